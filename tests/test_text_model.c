/* examples/text_model.h: its text is what the parts give by hand; prompts in turn, a full context, restarts, stops,
 * refusals and failing allocations leave it right. */
#define _DEFAULT_SOURCE /* mkdtemp */
#include <stdint.h>
#include "allocator.h"
#include "files.h"
#include "test.h"
#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define free counted_free
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#define TOKENIZER_IMPLEMENTATION
#define SAMPLER_IMPLEMENTATION
#define TEXT_MODEL_IMPLEMENTATION
#include "../examples/text_model.h"
#undef malloc
#undef calloc
#undef realloc
#undef free

#define MODEL "examples/toy_lm"
enum { MOST = 400 };

typedef struct written { /* a text by the parts themselves */
    int32_t tokens[MOST];
    int n_prompt, n;
    char text[8192]; /* of what is new */
} written;

/* n tokens behind a prompt: one call of the forward pass for the prompt, one for each token. */
static written write_by_hand(const char *prompt, int n, const text_model_options *o) {
    static written w;
    text_model *m = text_model_open(MODEL, o, NULL); /* only for its parts */
    sampler choice;
    tokenizer_stream stream;
    size_t size = 0;
    memset(&w, 0, sizeof w), memset(&stream, 0, sizeof stream);
    CHECK(m != NULL && sampler_init(&choice, &o->sampling) == 0);
    if (!m) return w;
    w.n = w.n_prompt =
        tokenizer_encode(m->words, prompt, strlen(prompt), TOKENIZER_AUTO, w.tokens, MOST, NULL);
    for (int i = 0; i < w.n; i++) tokenizer_decode(m->words, &stream, w.tokens[i], m->piece);
    for (int from = 0; w.n < w.n_prompt + n; from = w.n++) {
        int recent = w.n < m->options.window ? w.n : m->options.window;
        CHECK(!transformer_forward(m->model, m->work, m->state, w.tokens + from, w.n - from,
                                   m->logits));
        sampler_penalize(&choice, m->logits, m->vocab_size, w.tokens + w.n - recent, recent,
                         m->scratch);
        w.tokens[w.n] = sampler_sample(&choice, m->logits, m->vocab_size, m->scratch);
        int bytes = tokenizer_decode(m->words, &stream, w.tokens[w.n], m->piece);
        memcpy(w.text + size, m->piece, (size_t)bytes);
        size += (size_t)bytes;
    }
    text_model_close(m);
    return w;
}

/* Takes n pieces; are they the text of w from its token number `from` on? */
static int goes_on_as(text_model *m, const written *w, int from, int n) {
    for (int i = 0; i < n; i++) {
        const char *piece = text_model_next(m);
        if (!piece || m->token != w->tokens[from + i] || (int)strlen(piece) != m->size) return 0;
    }
    return 1;
}

static void test_same_as_parts(void) {
    for (int kind = 0; kind < 3; kind++) {
        text_model_options o;
        char text[8192] = "";
        memset(&o, 0, sizeof o);
        if (kind > 0) o.sampling.temperature = 1, o.sampling.seed = 7;
        if (kind > 1) o.sampling.repetition = 1.5f, o.window = 5;
        written w = write_by_hand("Once upon a time", 60, &o);
        text_model *m = text_model_open(MODEL, &o, NULL);
        CHECK(m && text_model_prompt(m, "Once upon a time", NULL) == 0);
        for (int i = 0; m && i < 60; i++) {
            const char *piece = text_model_next(m);
            CHECK(piece && m->end == TEXT_MODEL_GOES_ON);
            if (piece) strcat(text, piece);
        }
        CHECK(m && m->n_tokens == w.n &&
              memcmp(m->tokens, w.tokens, (size_t)w.n * sizeof *w.tokens) == 0);
        CHECK(strcmp(text, w.text) == 0 && strlen(text) > 60);
        text_model_close(m);
    }
    GROUP("text_model: 60 tokens greedy, drawn and with penalties are those of the parts");
}

/* A prompt in the middle of what the model says is as if all had been one text. */
static void test_turns(void) {
    transformer_error error;
    text_model *m = text_model_open(MODEL, NULL, &error),
               *other = text_model_open(MODEL, NULL, &error);
    int32_t all[MOST];
    CHECK(m && other && text_model_prompt(m, "KING:\nMy lord", &error) == 0);
    for (int i = 0; m && i < 9; i++) CHECK(text_model_next(m) != NULL);
    CHECK(text_model_prompt(m, ", said the king", &error) ==
          0); /* the ninth token is still to be read */
    CHECK(text_model_prompt(m, "", &error) == 0);
    int n = m->n_tokens;
    for (int i = 1; i < n; i++) CHECK(m->tokens[i] != tokenizer_bos(m->words));
    CHECK(m->tokens[0] == tokenizer_bos(m->words));
    memcpy(all, m->tokens, (size_t)n * sizeof *all);
    CHECK(!transformer_forward(other->model, other->work, other->state, all, n, other->logits));
    float *logits = text_model_logits(m);
    CHECK(logits && memcmp(logits, other->logits, (size_t)m->vocab_size * sizeof *logits) == 0);
    logits[17] = 1e6f; /* what is changed counts */
    CHECK(text_model_next(m) != NULL && m->token == 17);
    text_model_restart(m);
    CHECK(text_model_next(m) == NULL && m->end == TEXT_MODEL_FAILED &&
          text_model_logits(m) == NULL);
    CHECK(text_model_prompt(m, "KING:\nMy lord", &error) == 0);
    for (int i = 0; i < 9; i++)
        CHECK(text_model_next(m) && m->tokens[m->n_tokens - 1] == all[m->n_tokens - 1]);
    text_model_close(m), text_model_close(other);
    GROUP("text_model: prompts in turn, logits changed, a restart");
}

static void test_ends(void) {
    text_model_options o;
    transformer_error error;
    memset(&o, 0, sizeof o);
    o.run.context = 40;
    written w = write_by_hand("Once upon a time", 20, &o);
    text_model *m = text_model_open(MODEL, &o, &error);
    CHECK(m && text_model_prompt(m, "Once upon a time", &error) == 0);
    CHECK(goes_on_as(m, &w, w.n_prompt, 10));
    char long_prompt[400];
    memset(long_prompt, 'x', sizeof long_prompt);
    long_prompt[399] = 0;
    CHECK(text_model_prompt(m, long_prompt, &error) == -1 && error.status == TRANSFORMER_FULL);
    CHECK(strstr(error.text, "of 40") != NULL);
    long_prompt[25] = 0; /* too long only for what is left */
    CHECK(text_model_prompt(m, long_prompt, &error) == -1 && error.status == TRANSFORMER_FULL);
    CHECK(goes_on_as(m, &w, w.n_prompt + 10, 10)); /* as if nothing had been */
    int count = m->n_tokens;
    while (text_model_next(m)) count++;
    CHECK(m->end == TEXT_MODEL_FULL && count == 41); /* the last one need not be read any more */
    CHECK(text_model_next(m) == NULL && text_model_logits(m) == NULL);
    CHECK(text_model_prompt(m, "a", &error) == -1 && error.status == TRANSFORMER_FULL);
    text_model_restart(m);
    CHECK(text_model_prompt(m, "", &error) == 0 && m->n_tokens == 1 &&
          m->tokens[0] == tokenizer_bos(m->words));
    float *logits = text_model_logits(m);
    logits[tokenizer_bos(m->words)] = 1e6f;
    CHECK(text_model_next(m) == NULL && m->end == TEXT_MODEL_ENDED && m->n_tokens == 1);
    CHECK(text_model_prompt(m, "And", &error) == 0 && text_model_next(m) != NULL);
    for (int i = 0; i < m->vocab_size; i++) text_model_logits(m)[i] = NAN;
    CHECK(text_model_next(m) == NULL && m->end == TEXT_MODEL_FAILED);
    text_model_close(m);
    GROUP("text_model: a full context, the end of a text, logits without a choice");
}

/* The token that is this byte. */
static int byte_token(const text_model *m, int byte) {
    char name[8];
    snprintf(name, sizeof name, "<0x%02X>", byte);
    return tokenizer_find(m->words, name, 6);
}

static const char *next_byte(text_model *m, int byte) {
    text_model_logits(m)[byte_token(m, byte)] = 1e6f;
    return text_model_next(m);
}

/* What is held back of a character comes at the end, however one gets there, and prompts may complete it. */
static void test_held(void) {
    text_model_options o;
    transformer_error error;
    memset(&o, 0, sizeof o);
    for (int look = 0; look < 2; look++) {
        o.run.context = 2;
        text_model *m = text_model_open(MODEL, &o, &error);
        CHECK(m && text_model_prompt(m, "", &error) == 0);
        CHECK(!strcmp(next_byte(m, 0xE2), "") && !strcmp(next_byte(m, 0x82), ""));
        CHECK(m->n_tokens == 3);
        CHECK(text_model_prompt(m, "", &error) == 0); /* does nothing */
        CHECK(text_model_prompt(m, "a", &error) == -1 && strstr(error.text, "room for 0 of 2"));
        if (look) CHECK(text_model_logits(m) == NULL && m->end == TEXT_MODEL_GOES_ON);
        const char *rest = text_model_next(m);
        CHECK(rest && strstr(rest, "\xEF\xBF\xBD") == rest && m->end == TEXT_MODEL_FULL);
        CHECK(text_model_next(m) == NULL);
        text_model_close(m);
    }
    o.run.context = 20;
    text_model *m = text_model_open(MODEL, &o, &error);
    CHECK(m && text_model_prompt(m, "x\xE2", &error) == 0);
    CHECK(!strcmp(next_byte(m, 0x82), "") && !strcmp(next_byte(m, 0xAC), "\xE2\x82\xAC"));
    text_model_close(m);
    GROUP("text_model: characters in parts");
}

static int stop_at(void *user, int done, int n) {
    CHECK(done < n);
    return done >= *(int *)user;
}

static void test_progress(void) {
    text_model_options o;
    transformer_error error;
    static char prompt[1300];
    int stop = 1024, never = INT_MAX;
    memset(&o, 0, sizeof o);
    memset(prompt, 1, sizeof prompt - 1); /* a token each */
    o.run.context = 8000, o.progress = stop_at, o.progress_user = &stop;
    text_model *m = text_model_open(MODEL, &o, &error);
    CHECK(m && text_model_prompt(m, prompt, &error) == -1 && error.status == TRANSFORMER_STOPPED);
    CHECK(m->n_tokens == 1024 && transformer_state_position(m->state) == 1024 &&
          text_model_next(m) == NULL);
    m->options.progress_user = &never;
    CHECK(text_model_prompt(m, "KING", &error) == 0 && text_model_next(m) != NULL);
    m->options.progress_user = &stop;
    prompt[510] = '\xE2'; /* the last byte read, as a token still waited: held, not what follows */
    CHECK(text_model_prompt(m, prompt, &error) == -1 && text_model_next(m) == NULL);
    CHECK(m->n_tokens == transformer_state_position(m->state) &&
          m->tokens[m->n_tokens - 1] == byte_token(m, 0xE2) && m->stream.n_held == 1);
    CHECK(text_model_prompt(m, "\x82", &error) == 0 && !strcmp(next_byte(m, 0xAC), "\xE2\x82\xAC"));
    m->options.progress_user = &never;
    text_model_restart(m);
    CHECK(text_model_prompt(m, prompt, &error) == 0 && text_model_next(m) != NULL);
    text_model_close(m);
    GROUP("text_model: a long prompt can be stopped");
}

static void test_refusals(void) {
    text_model_options o;
    transformer_error error;
    memset(&o, 0, sizeof o);
    CHECK(!text_model_open("no such file", NULL, &error) && strstr(error.text, "no such file"));
    CHECK(!text_model_open("no such file", NULL, NULL));
    o.tokenizer = "no such tokenizer";
    CHECK(!text_model_open(MODEL, &o, &error) && strstr(error.text, "no such tokenizer"));
    memset(&o, 0, sizeof o);
    o.sampling.temperature = -1;
    CHECK(!text_model_open(MODEL, &o, &error) && strstr(error.text, "sampler"));
    memset(&o, 0, sizeof o);
    o.run.isa = "no such row";
    CHECK(!text_model_open(MODEL, &o, &error) && strstr(error.text, "isa"));
    memset(&o, 0, sizeof o);
    o.run.batch = -1;
    CHECK(!text_model_open(MODEL, &o, &error) && strstr(error.text, "batch"));
    memset(&o, 0, sizeof o);
    o.window = -1;
    CHECK(!text_model_open(MODEL, &o, &error) && strstr(error.text, "window"));
    text_model_close(NULL);
    CHECK(allocations_live == 0);
    GROUP("text_model: what cannot be opened is refused with its reason");
}

/* Paths for which the tokenizer is somewhere else. */
static void test_paths(void) {
    text_model *m = text_model_open(MODEL "/model.safetensors", NULL, NULL);
    CHECK(m && tokenizer_kind(m->words) == TOKENIZER_LLAMA2C);
    text_model_close(m);
    size_t size = 0;
    char *file = test_read_file("tests/gguf/llama.gguf", &size);
    make_dir();
    write_file("m-00001-of-00002.gguf", file,
               size); /* as much of a split file as a tokenizer needs */
    tokenizer *t = tokenizer_open(path_of("m-00002-of-00002.gguf"), 0, NULL);
    CHECK(t && tokenizer_kind(t) == TOKENIZER_GGUF);
    tokenizer_close(t);
    CHECK(!tokenizer_open(path_of("m-0000x-of-00002.gguf"), 0, NULL));
    remove_file("m-00001-of-00002.gguf"), rmdir(dir);
    free(file);
    GROUP("text_model: a .safetensors file's tokenizer, a split file's");
}

static void test_no_memory(void) {
    int done = 0, refused = 0;
    for (long at = 1; !done && at < 5000; at++) {
        transformer_error error;
        memset(&error, 0, sizeof error);
        allocations = 0, fail_at = at;
        text_model *m = text_model_open(MODEL, NULL, &error);
        if (m && text_model_prompt(m, "Once", &error) == 0) done = allocations < at;
        if (!done) refused++, CHECK(error.text[0] != 0);
        fail_at = 0;
        text_model_close(m);
        CHECK(allocations_live == 0);
    }
    CHECK(done && refused > 10);
    GROUP("text_model: %d failing allocations, none leaks", refused);
}

int main(void) {
    test_same_as_parts();
    test_turns();
    test_ends();
    test_held();
    test_progress();
    test_refusals();
    test_paths();
    test_no_memory();
    return test_finish();
}
