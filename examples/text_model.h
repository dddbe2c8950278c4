/* text_model.h - text in, text out: a model file, its tokenizer and a sampler as one object.
 * Licence: MIT.  Needs transformer.h, model_file.h, tokenizer.h (unicode_data.h) and sampler.h.
 *
 *     #define TEXT_MODEL_IMPLEMENTATION          (in exactly one .c or .cpp file; and those of the
 *     #include "text_model.h"                     four other headers, there or elsewhere)
 *     ...
 *     text_model *m = text_model_open("model.gguf", NULL, &error);
 *     if (m && text_model_prompt(m, "Once upon a time", &error) == 0)
 *         while ((piece = text_model_next(m)) != NULL) fputs(piece, stdout);
 *     text_model_close(m);
 *
 * C99 or C++11.  Nothing here prints or exits.  One object is one text (prompts and what the model
 * says to them, in turn) for one thread at a time; several objects share nothing.
 *
 * The parts are in the struct, to be used as well: what this header does is to put them together.
 */
#ifndef TEXT_MODEL_H
#define TEXT_MODEL_H

#ifndef TRANSFORMER_H
#include "transformer.h"
#endif
#include "model_file.h"
#include "sampler.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TEXT_MODEL_CONTEXT = 4096, TEXT_MODEL_WINDOW = 64 };

typedef struct text_model_options { /* all zero is the default; NULL will do */
    transformer_options run;        /* context 0 = the model's, but at most TEXT_MODEL_CONTEXT */
    sampler_options sampling;       /* all zero = greedy */
    int window;            /* latest tokens that its penalties look at; 0 = TEXT_MODEL_WINDOW */
    const char *tokenizer; /* file or directory; NULL = what the model comes with, which a llama2.c
                              checkpoint does not */
    int special; /* 1 = names of control tokens in prompts (<|im_start|>) are those tokens;
                              leave it 0 for text that is not your own */
    /* Called while a long prompt is read: so many of the text's n tokens are done.  Anything but 0
     * stops text_model_prompt.  It must leave the object alone. */
    int (*progress)(void *user, int done, int n);
    void *progress_user;
} text_model_options;

/* Why text_model_next has no more.  ENDED: the model has ended its text or turn, by m->token, which the
 * text lacks.  FAILED: no prompt yet, or one that was stopped (give another), or logits that leave no
 * token to choose. */
typedef enum text_model_end {
    TEXT_MODEL_GOES_ON = 0,
    TEXT_MODEL_ENDED,
    TEXT_MODEL_FULL, /* the context is */
    TEXT_MODEL_FAILED
} text_model_end;

typedef struct text_model {
    text_model_options options;
    model_file *file;
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
    tokenizer *words;
    sampler choice;
    int vocab_size;             /* tokens that both the model and the tokenizer have */
    float *logits;              /* [model's vocab_size] of the next token */
    sampler_candidate *scratch; /* [vocab_size] */
    int32_t *tokens;            /* [context + 1] of the whole text; the state has seen as many as
                                   its position says: all, or all but the last */
    int n_tokens;
    int token; /* the latest that text_model_next chose, or -1 */
    text_model_end end;
    tokenizer_stream stream;
    char *piece; /* the text of one token */
    int size;    /* its bytes */
} text_model;

/* Opens everything that path (see model_file.h) names.  NULL on failure: *error (which may be NULL)
 * says why. */
text_model *text_model_open(const char *path, const text_model_options *options,
                            transformer_error *error);
void text_model_close(text_model *m); /* NULL is ignored */

/* The text goes on with this; the first prompt gets what the model wants in front (BOS: leave it out
 * of the prompt).  An empty one begins a text with BOS (or EOS) alone, later it does nothing.  A
 * prompt after the end of a turn begins with whatever closes that turn.  0, or -1 with the reason in
 * *error (which may be NULL): a prompt that does not fit, for one, changes nothing; one that was
 * stopped has been read in part. */
int text_model_prompt(text_model *m, const char *prompt, transformer_error *error);

/* Chooses the next token and returns the text that it completes: m->size bytes, then a zero; ""
 * while a character is incomplete.  Valid until the next call.  NULL if there is no more: m->end
 * says why.  Another prompt may follow, unless the context is full. */
const char *text_model_next(text_model *m);

/* The logits from which the next call of text_model_next chooses, to look at or to change first:
 * m->logits, or NULL if there are none. */
float *text_model_logits(text_model *m);

/* The object is as new, and another text can begin; the sampler draws on. */
void text_model_restart(text_model *m);

#ifdef __cplusplus
}
#endif
#endif /* TEXT_MODEL_H */

#ifdef TEXT_MODEL_IMPLEMENTATION
#ifndef TEXT_MODEL_IMPLEMENTED
#define TEXT_MODEL_IMPLEMENTED

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TMI_PIECE = 512 }; /* tokens of a prompt between two signs of progress */

#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 3, 4)))
#endif
static int
tmi_fail(transformer_error *error, transformer_status status, const char *format, ...) {
    va_list args;
    if (!error) return -1;
    va_start(args, format);
    error->status = status;
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return -1;
}

/* ---- open and close ---- */

static int tmi_open_tokenizer(text_model *m, const char *path, transformer_error *error) {
    tokenizer_error why;
    const char *name = m->options.tokenizer ? m->options.tokenizer : path;
    m->words = tokenizer_open(name, transformer_model_config(m->model)->vocab_size, &why);
    if (!m->words)
        return tmi_fail(error, TRANSFORMER_ARGUMENT, "tokenizer %.100s: %.90s%s", name, why.text,
                        m->options.tokenizer ? "" : " (options.tokenizer names another)");
    return 0;
}

static int tmi_allocate(text_model *m, transformer_error *error) {
    size_t vocab_size = (size_t)transformer_model_config(m->model)->vocab_size;
    m->logits = (float *)malloc(vocab_size * sizeof *m->logits);
    m->scratch = (sampler_candidate *)malloc(vocab_size * sizeof *m->scratch);
    m->tokens =
        (int32_t *)malloc(((size_t)transformer_state_context(m->state) + 1) * sizeof *m->tokens);
    m->piece = (char *)malloc(tokenizer_decode_bound(m->words) + 1);
    if (!m->logits || !m->scratch || !m->tokens || !m->piece)
        return tmi_fail(error, TRANSFORMER_MEMORY, "out of memory");
    return 0;
}

static int tmi_open(text_model *m, const char *path, transformer_error *error) {
    model_file_options file_options;
    transformer_options *run = &m->options.run;
    memset(&file_options, 0, sizeof file_options);
    file_options.rope_length = run->rope_length;
    m->file = model_file_open(path, &file_options, error);
    m->model = model_file_model(m->file, run, error);
    if (!m->model || tmi_open_tokenizer(m, path, error) != 0) return -1;
    const transformer_config *config = transformer_model_config(m->model);
    if (!run->context)
        run->context = config->context < TEXT_MODEL_CONTEXT ? config->context : TEXT_MODEL_CONTEXT;
    if (m->options.window < 0)
        return tmi_fail(error, TRANSFORMER_ARGUMENT, "options.window %d is negative",
                        m->options.window);
    if (!m->options.window) m->options.window = TEXT_MODEL_WINDOW;
    m->vocab_size = tokenizer_vocab_size(m->words);
    if (config->vocab_size < m->vocab_size) m->vocab_size = config->vocab_size;
    if (sampler_init(&m->choice, &m->options.sampling) != 0)
        return tmi_fail(error, TRANSFORMER_ARGUMENT, "impossible sampler options");
    m->state = transformer_state_new(m->model, run, error);
    if (m->state) m->work = transformer_workspace_new(m->model, run, error);
    return m->work ? tmi_allocate(m, error) : -1;
}

text_model *text_model_open(const char *path, const text_model_options *options,
                            transformer_error *error) {
    text_model *m = (text_model *)calloc(1, sizeof *m);
    if (!m) tmi_fail(error, TRANSFORMER_MEMORY, "out of memory");
    if (!m) return NULL;
    if (options) m->options = *options;
    if (tmi_open(m, path, error) == 0) {
        text_model_restart(m);
        return m;
    }
    text_model_close(m);
    return NULL;
}

void text_model_close(text_model *m) {
    if (!m) return;
    free(m->piece), free(m->tokens), free(m->scratch), free(m->logits);
    tokenizer_close(m->words);
    transformer_free(m->work), transformer_free(m->state), transformer_free(m->model);
    model_file_close(m->file);
    free(m);
}

void text_model_restart(text_model *m) {
    transformer_state_rewind(m->state, 0);
    memset(&m->stream, 0, sizeof m->stream);
    m->n_tokens = m->size = 0;
    m->token = -1;
    m->end = TEXT_MODEL_FAILED; /* there are no logits yet */
}

/* ---- prompts ---- */

/* What is in front of the first prompt, and what an empty one is. */
static int tmi_begin(text_model *m, int32_t *tokens, int n) {
    const tokenizer *t = m->words;
    if (n > 0 && tokenizer_adds_eos(t) && tokens[n - 1] == tokenizer_eos(t))
        n--; /* the text is to go on */
    if (n > 0) return n;
    tokens[0] = tokenizer_bos(t) >= 0 ? tokenizer_bos(t) : tokenizer_eos(t);
    return tokens[0] >= 0;
}

static int tmi_check(const text_model *m, const int32_t *tokens, int n, transformer_error *error) {
    int context = transformer_state_context(m->state);
    int room = m->n_tokens < context ? context - m->n_tokens : 0;
    if (n + m->n_tokens == 0)
        return tmi_fail(error, TRANSFORMER_ARGUMENT,
                        "this model needs a prompt: it has no token that begins a text");
    if (n > room)
        return tmi_fail(error, TRANSFORMER_FULL,
                        "the prompt has %d tokens, the context room for %d of %d", n, room,
                        context);
    for (int i = 0; i < n; i++)
        if (tokens[i] >= m->vocab_size)
            return tmi_fail(error, TRANSFORMER_ARGUMENT,
                            "token %d of the prompt is %d, the model has %d", i, (int)tokens[i],
                            m->vocab_size);
    return 0;
}

/* The state sees all tokens of the text, the logits are those behind the last. */
static int tmi_read(text_model *m, transformer_error *error) {
    int from, n;
    m->end = TEXT_MODEL_FAILED; /* until there are logits */
    while (from = transformer_state_position(m->state), n = m->n_tokens - from, n > 0) {
        int size = n < TMI_PIECE ? n : TMI_PIECE, last = size == n;
        transformer_status status = transformer_forward(
            m->model, m->work, m->state, m->tokens + from, size, last ? m->logits : NULL);
        if (status) return tmi_fail(error, status, "%s", transformer_status_text((int)status));
        if (!last && m->options.progress &&
            m->options.progress(m->options.progress_user, from + size, m->n_tokens)) {
            m->n_tokens = from + size;
            return tmi_fail(error, TRANSFORMER_STOPPED, "stopped after %d tokens", from + size);
        }
    }
    m->end = TEXT_MODEL_GOES_ON;
    return 0;
}

int text_model_prompt(text_model *m, const char *prompt, transformer_error *error) {
    tokenizer_error why;
    size_t length = strlen(prompt), capacity = tokenizer_encode_bound(m->words, length) + 1;
    int flags = m->options.special ? TOKENIZER_SPECIAL : 0;
    int32_t *tokens = (int32_t *)malloc(capacity * sizeof *tokens);
    if (!tokens) return tmi_fail(error, TRANSFORMER_MEMORY, "out of memory");
    flags |= m->n_tokens ? TOKENIZER_NO_SPACE : TOKENIZER_AUTO;
    int n = tokenizer_encode(m->words, prompt, length, flags, tokens, capacity, &why);
    int failed = n < 0 ? tmi_fail(error, TRANSFORMER_ARGUMENT, "%s", why.text) : 0;
    if (!failed && m->n_tokens == 0) n = tmi_begin(m, tokens, n);
    if (!failed) failed = tmi_check(m, tokens, n, error);
    if (!failed && n > 0) {
        memcpy(m->tokens + m->n_tokens, tokens, (size_t)n * sizeof *tokens);
        int first = m->n_tokens;
        m->n_tokens += n;
        failed = tmi_read(m, error); /* all of them, unless it was stopped */
        for (int i = first; i < m->n_tokens; i++)
            tokenizer_decode(m->words, &m->stream, m->tokens[i], m->piece);
    }
    free(tokens);
    return failed;
}

/* ---- what the model says ---- */

/* Models of llama2.c end a text with the BOS of the next. */
static int tmi_ends(const text_model *m, int token) {
    return token == tokenizer_bos(m->words) || tokenizer_is_end(m->words, token);
}

static int tmi_full(const text_model *m) {
    return m->n_tokens > transformer_state_context(m->state);
}

float *text_model_logits(text_model *m) {
    if (tmi_full(m)) return NULL;
    if (m->end == TEXT_MODEL_GOES_ON) tmi_read(m, NULL); /* the last token, if it waits */
    return m->end == TEXT_MODEL_GOES_ON ? m->logits : NULL;
}

/* The next token, or -1 if there is none. */
static int tmi_choose(text_model *m) {
    float *logits = text_model_logits(m);
    int recent = m->n_tokens < m->options.window ? m->n_tokens : m->options.window;
    if (!logits) return -1;
    if (sampler_penalize(&m->choice, logits, m->vocab_size, m->tokens + m->n_tokens - recent,
                         recent, m->scratch) != 0)
        return -1;
    return sampler_sample(&m->choice, logits, m->vocab_size, m->scratch);
}

static const char *tmi_piece(text_model *m, int size) {
    m->size = size > 0 ? size : 0;
    m->piece[m->size] = '\0';
    return m->piece;
}

const char *text_model_next(text_model *m) {
    if (m->end != TEXT_MODEL_GOES_ON) return NULL;
    m->token = tmi_choose(m);
    if (m->token < 0) m->end = tmi_full(m) ? TEXT_MODEL_FULL : TEXT_MODEL_FAILED;
    if (m->token >= 0 && tmi_ends(m, m->token)) m->end = TEXT_MODEL_ENDED;
    if (m->end != TEXT_MODEL_GOES_ON) { /* what was held back of a character */
        int held = tokenizer_decode_end(&m->stream, m->piece);
        m->stream.started = 1;
        return held > 0 ? tmi_piece(m, held) : NULL;
    }
    m->tokens[m->n_tokens++] = m->token;
    return tmi_piece(m, tokenizer_decode(m->words, &m->stream, m->token, m->piece));
}

#ifdef __cplusplus
}
#endif
#endif /* TEXT_MODEL_IMPLEMENTED */
#endif /* TEXT_MODEL_IMPLEMENTATION */
