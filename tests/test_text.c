/* Whole programs' worth: greedy text of trained models.  The small model of the repository against token ids from
 * Hugging Face transformers; stories260K (from TRANSFORMER_DATA or ../shared/data, else skipped) against the text
 * that llama2.c prints. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#define TOKENIZER_IMPLEMENTATION
#include "../examples/tokenizer.h"
#include "test.h"

enum { MAX_VOCAB = 512, MAX_TOKENS = 256 };

typedef struct session {
    model_file *file;
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
} session;

static int start(session *s, const char *path) {
    transformer_error error;
    transformer_options options = {0};
    options.full_precision = 1; /* the references are float32 */
    memset(s, 0, sizeof *s);
    s->file = model_file_open(path, NULL, &error);
    if (s->file) s->model = transformer_model_new(model_file_config(s->file), &options, &error);
    if (s->model && model_file_bind(s->file, s->model, &error)) return 0;
    if (s->model) s->state = transformer_state_new(s->model, &options, &error);
    if (s->state) s->work = transformer_workspace_new(s->model, &options, &error);
    if (!s->work) fprintf(stderr, "%s: %s\n", path, error.text);
    return s->work != NULL;
}

static void finish(session *s) {
    transformer_free(s->work), transformer_free(s->state), transformer_free(s->model);
    if (s->file) model_file_close(s->file);
}

/* Feeds the prompt and continues it with the likeliest tokens; the first n of them. */
static int continue_greedily(session *s, const int32_t *prompt, int n_prompt, int32_t *out, int n) {
    static float logits[MAX_VOCAB];
    int vocab = transformer_model_config(s->model)->vocab_size;
    const int32_t *next = prompt;
    transformer_state_rewind(s->state, 0);
    for (int i = 0; i < n; i++) {
        if (vocab > MAX_VOCAB ||
            transformer_forward(s->model, s->work, s->state, next, i ? 1 : n_prompt, logits))
            return 0;
        out[i] = 0;
        for (int32_t j = 1; j < vocab; j++)
            if (logits[j] > logits[out[i]]) out[i] = j;
        next = out + i;
    }
    return 1;
}

/* ---- the model in the repository ---- */

typedef struct continuation {
    const char *what;
    int n_prompt, n;
    int32_t prompt[8], want[20];
} continuation;
static const continuation continuations[] = {
    {"the empty prompt", 1, 20, {1}, {260, 273, 289, 292, 291, 450, 269, 259, 294, 359,
                                      265, 395, 334, 332, 271, 339, 290, 280, 274, 423}},
    {"\"ROMEO:\"", 8, 20, {1, 484, 286, 284, 276, 286, 269, 259}, {280, 331, 441, 360, 346,
                                                                   417, 356, 312, 265, 328,
                                                                   383, 265, 360, 264, 342,
                                                                   324, 483, 358, 265, 328}},
    {"\"To be\"", 4, 20, {1, 260, 465, 373}, {326, 309, 344, 302, 265, 367, 334, 332, 303, 439,
                                              265, 367, 334, 332, 303, 439, 265, 259, 294, 440}}};

static void test_toy_lm(void) {
    session s;
    CHECK(start(&s, "examples/toy_lm"));
    for (size_t i = 0; s.work && i < sizeof continuations / sizeof continuations[0]; i++) {
        const continuation *c = &continuations[i];
        int32_t have[20];
        CHECK(continue_greedily(&s, c->prompt, c->n_prompt, have, c->n));
        CHECK(memcmp(have, c->want, (size_t)c->n * sizeof(int32_t)) == 0);
        GROUP("toy_lm continues %s as transformers does", c->what);
    }
    finish(&s);
}

/* ---- stories260K ---- */

static const char story[] = "Once upon a time, there was a little girl named Lily. She loved to "
                            "play outside in the park. One day, she saw "
                            "a big, red ball. She wanted to play with it, but it was too high.\n"
                            "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and "
                            "didn't know what to do. She said, \"I want to "
                            "play with your ball, but I can't find it.\"\n"
                            "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. "
                            "I didn't know what to do.\"\n"
                            "Lily didn't want to help her mom, so she";

static const char *data_path(const char *name) {
    static char path[2][512];
    static int turn;
    const char *directory = getenv("TRANSFORMER_DATA");
    turn = !turn;
    snprintf(path[turn], sizeof path[0], "%s/llama2c/%s", directory ? directory : "../shared/data",
             name);
    return path[turn];
}

static void test_stories(void) {
    session s;
    tokenizer_error error;
    int32_t begin = 1, tokens[MAX_TOKENS];
    char text[4096], piece[256];
    size_t size = 0;
    tokenizer_stream stream = {0};
    FILE *present = fopen(data_path("stories260K.bin"), "rb");
    tokenizer *t = tokenizer_open(data_path("tok512.bin"), 512, &error);
    if (!present || !t) {
        SKIP("stories260K: no llama2c/stories260K.bin and tok512.bin in TRANSFORMER_DATA or "
             "../shared/data");
        if (present) fclose(present);
        if (t) tokenizer_close(t);
        return;
    }
    fclose(present);
    CHECK(start(&s, data_path("stories260K.bin")));
    CHECK(s.work && continue_greedily(&s, &begin, 1, tokens, 200));
    tokenizer_decode(t, &stream, begin, piece);
    for (int i = 0; s.work && i < 200; i++) {
        size_t n = tokenizer_decode(t, &stream, tokens[i], piece);
        if (size + n < sizeof text) memcpy(text + size, piece, n), size += n;
    }
    CHECK(size >= sizeof story - 1 && memcmp(text, story, sizeof story - 1) == 0);
    CHECK(size <= sizeof story + 16); /* 200 steps end about there */
    GROUP("stories260K writes the text that llama2.c writes");
    finish(&s);
    tokenizer_close(t);
}

int main(void) {
    test_toy_lm();
    test_stories();
    return test_finish();
}
