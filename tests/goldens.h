/* Reading a case of tests/goldens, running a model file on its tokens and comparing the logits. */
#ifndef GOLDENS_H
#define GOLDENS_H
#include "test.h"

enum { MAX_TOKENS = 4096 };

typedef struct golden {
    const char *directory, *name;
    char path[512], family[64];
    int n_tokens, n_positions, vocab_size, rope_length;
    int32_t tokens[MAX_TOKENS];
    float positions[MAX_TOKENS];
    float *logits, *residual; /* [n_positions, vocab_size]; [n_layers + 1, n_tokens, dim] or NULL */
} golden;

static const char *in_case(golden *g, const char *file) {
    snprintf(g->path, sizeof g->path, "%s/%s/%s", g->directory, g->name, file);
    return g->path;
}

static int json_int(const char *json, const char *key, int missing) {
    float value = 0;
    const char *keys[1];
    keys[0] = key;
    return test_json_numbers(json, keys, 1, &value, 1) == 1 ? (int)value : missing;
}

static inline int read_golden(golden *g) {
    static float numbers[MAX_TOKENS];
    const char *tokens_key[] = {"tokens"}, *positions_key[] = {"positions"};
    size_t bytes = 0;
    char *json = test_read_file(in_case(g, "golden.json"), NULL);
    if (!json) return 0;
    g->n_tokens = test_json_numbers(json, tokens_key, 1, numbers, MAX_TOKENS);
    for (int i = 0; i < g->n_tokens; i++) g->tokens[i] = (int32_t)numbers[i];
    g->n_positions = test_json_numbers(json, positions_key, 1, g->positions, MAX_TOKENS);
    g->vocab_size = json_int(json, "vocab_size", 0);
    g->rope_length = json_int(json, "rope_length", 0);
    const char *family = strstr(json, "\"family\": \"");
    if (family) sscanf(family + 11, "%63[^\"]", g->family);
    free(json);
    g->logits = (float *)(void *)test_read_file(in_case(g, "logits.f32"), &bytes);
    g->residual = (float *)(void *)test_read_file(in_case(g, "residual.f32"), NULL);
    return g->logits && g->n_tokens > 0 && g->n_positions > 0 &&
           bytes == (size_t)g->n_positions * (size_t)g->vocab_size * sizeof(float);
}

/* ---- one run of a case ---- */

typedef struct recorder {
    float *rows; /* [n_layers + 1, n_tokens, dim] */
    int n_tokens, dim;
} recorder;

static int record(void *user, const transformer_view *v) {
    recorder *r = (recorder *)user;
    int row = v->site == TRANSFORMER_SITE_EMBEDDING ? 0 : v->layer + 1;
    for (int t = 0; t < v->n; t++)
        memcpy(r->rows +
                   ((size_t)row * (size_t)r->n_tokens + (size_t)(v->position + t)) * (size_t)r->dim,
               v->data + (size_t)t * v->stride, (size_t)r->dim * sizeof(float));
    return 0;
}

/* All logits, fed in pieces of `piece`, and the residual streams if asked for.  0 with a message on failure. */
static int run_case(golden *g, const model_file *file, int full_precision, int piece, float *logits,
                    recorder *residual) {
    transformer_error error;
    transformer_options options = {0};
    options.full_precision = full_precision, options.context = g->n_tokens;
    options.rope_length = g->rope_length, options.batch = 512;
    transformer_model *model = transformer_model_new(model_file_config(file), &options, &error);
    int ok = model && !model_file_bind(file, model, &error);
    transformer_state *state = ok ? transformer_state_new(model, &options, &error) : NULL;
    transformer_workspace *work = state ? transformer_workspace_new(model, &options, &error) : NULL;
    ok = work != NULL;
    for (int at = 0; ok && at < g->n_tokens; at += piece) {
        transformer_sequence sequence = {0};
        transformer_call call = {0};
        transformer_tap tap = {0};
        sequence.state = state, sequence.tokens = g->tokens + at;
        sequence.n = g->n_tokens - at < piece ? g->n_tokens - at : piece;
        sequence.logits = logits + (size_t)at * (size_t)g->vocab_size;
        sequence.logits_rows = TRANSFORMER_LOGITS_ALL;
        call.sequences = &sequence, call.n_sequences = 1;
        tap.sites = 1u << TRANSFORMER_SITE_EMBEDDING | 1u << TRANSFORMER_SITE_RESIDUAL_POST;
        tap.function = record, tap.user = residual;
        if (residual) call.tap = &tap;
        ok = !transformer_run(model, work, &call, &error);
    }
    if (!ok) fprintf(stderr, "%s: %s\n", g->name, error.text);
    transformer_free(work), transformer_free(state), transformer_free(model);
    return ok;
}

typedef struct deviation {
    double most, nmse;
} deviation;

/* Ours at the golden's positions against its rows. */
static inline deviation compare(const golden *g, const float *logits) {
    deviation d = {0, 0};
    double error = 0, power = 0;
    for (int p = 0; p < g->n_positions; p++)
        for (int i = 0; i < g->vocab_size; i++) {
            double want = (double)g->logits[(size_t)p * (size_t)g->vocab_size + (size_t)i];
            double have =
                (double)logits[(size_t)g->positions[p] * (size_t)g->vocab_size + (size_t)i];
            double off = fabs(want - have);
            if (!(off <= 1e30)) off = 1e30;
            d.most = off > d.most ? off : d.most;
            error += off * off, power += want * want;
        }
    d.nmse = error / power;
    return d;
}

/* Reads the case; 0, counted as a failure, if its files are missing or of the wrong size. */
static inline int open_golden(golden *g, const char *directory, const char *name) {
    memset(g, 0, sizeof *g);
    g->directory = directory, g->name = name;
    if (read_golden(g)) return 1;
    fprintf(stderr, "%s: golden files missing or of the wrong size\n", name);
    CHECK(!"golden files");
    GROUP("%s", name);
    return 0;
}
#endif
