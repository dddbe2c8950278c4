/* Logits of tiny random models of every family, saved by Hugging Face transformers or by an independent
 * implementation (tests/make_goldens.py), against ours: all positions, the residual streams where stored, fed
 * at once and in pieces.  Prints the largest error per family.  Usage: test_goldens [DIRECTORY [CASE ...]] */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#include "test.h"

enum { MAX_TOKENS = 4096, MAX_FAMILIES = 80 };

typedef struct family_result {
    char name[64];
    int cases;
    double worst, worst_nmse, short_precision; /* the last: with BF16 products */
} family_result;
static family_result families[MAX_FAMILIES];
static int n_families;

static family_result *family_of(const char *name) {
    for (int i = 0; i < n_families; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    CHECK(n_families < MAX_FAMILIES);
    snprintf(families[n_families].name, sizeof families[0].name, "%s", name);
    return &families[n_families++];
}

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

static int read_golden(golden *g) {
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
static deviation compare(const golden *g, const float *logits) {
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

/* ---- a case: full precision against the bound of the contract, then the default arithmetic, then pieces ---- */

static const float *as_16_bit(const model_file *file) {
    const transformer_tensor *t = model_file_tensor(file, TRANSFORMER_EMBEDDING, 0);
    return t && t->dtype == TRANSFORMER_BF16 ? (const float *)t->data : NULL;
}

static void check_residual(golden *g, const model_file *file) {
    const transformer_config *c = model_file_config(file);
    size_t n = (size_t)(c->n_layers + 1) * (size_t)g->n_tokens * (size_t)c->dim;
    recorder r = {(float *)calloc(n, sizeof(float)), g->n_tokens, c->dim};
    float *logits = (float *)malloc((size_t)g->n_tokens * (size_t)g->vocab_size * sizeof(float));
    CHECK(run_case(g, file, 1, g->n_tokens, logits, &r));
    double worst = test_difference(r.rows, g->residual, n);
    CHECK(worst <= 1e-4);
    GROUP("%-22s residual stream of every layer: largest error %.1e", g->name, worst);
    free(r.rows), free(logits);
}

static void check_case(const char *directory, const char *name) {
    static golden g; /* too large for the stack */
    transformer_error error;
    memset(&g, 0, sizeof g);
    g.directory = directory, g.name = name;
    if (!read_golden(&g)) {
        fprintf(stderr, "%s: golden files missing or of the wrong size\n", name);
        CHECK(!"golden files");
        GROUP("%s", name);
        return;
    }
    model_file_options options = {0};
    options.rope_length = g.rope_length;
    FILE *checkpoint = fopen(in_case(&g, "model.bin"), "rb");
    if (checkpoint) fclose(checkpoint);
    else snprintf(g.path, sizeof g.path, "%s/%s", directory, name);
    model_file *file = model_file_open(g.path, &options, &error);
    if (!file) fprintf(stderr, "%s: %s\n", name, error.text);
    CHECK(file != NULL);
    size_t n = (size_t)g.n_tokens * (size_t)g.vocab_size;
    float *logits = (float *)malloc(n * sizeof(float)),
          *pieces = (float *)malloc(n * sizeof(float));
    deviation d = {1e30, 1e30}, rounded = {0, 0};
    if (file && run_case(&g, file, 1, g.n_tokens, logits, NULL)) {
        d = compare(&g, logits);
        CHECK(run_case(&g, file, 1, 7, pieces, NULL));
        CHECK(memcmp(logits, pieces, n * sizeof(float)) == 0);
        CHECK(run_case(&g, file, 0, g.n_tokens, pieces, NULL));
        rounded = compare(&g, pieces);
        /* Activations rounded to BF16 carry 2^-9 each: a relative error of some 1e-3 after a few layers. */
        if (as_16_bit(file)) CHECK(rounded.nmse <= 1e-3);
        else CHECK(memcmp(logits, pieces, n * sizeof(float)) == 0);
    }
    CHECK(d.most <= 1e-4);
    CHECK(d.nmse <= 1e-9);
    family_result *f = family_of(g.family);
    f->cases++;
    f->worst = d.most > f->worst ? d.most : f->worst;
    f->worst_nmse = d.nmse > f->worst_nmse ? d.nmse : f->worst_nmse;
    f->short_precision = rounded.nmse > f->short_precision ? rounded.nmse : f->short_precision;
    GROUP("%-22s %4d positions: largest error %.1e, NMSE %.1e", name, g.n_positions, d.most,
          d.nmse);
    if (file && g.residual && d.most <= 1e-4) check_residual(&g, file);
    free(logits), free(pieces), free(g.logits), free(g.residual);
    if (file) model_file_close(file);
}

static void print_table(void) {
    printf("\n%-16s %5s  %-13s  %-10s\n", "family", "cases", "largest error", "NMSE");
    for (int i = 0; i < n_families; i++)
        printf("%-16s %5d  %-13.1e  %-10.1e\n", families[i].name, families[i].cases,
               families[i].worst, families[i].worst_nmse);
    printf("\n");
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "tests/goldens";
    char path[512], *index, *name;
    for (int i = 2; i < argc; i++) check_case(directory, argv[i]);
    if (argc <= 2) {
        snprintf(path, sizeof path, "%s/index.txt", directory);
        index = test_read_file(path, NULL);
        if (!index) {
            fprintf(stderr, "%s: cannot be read (run from the project's root)\n", path);
            return 1;
        }
        for (name = strtok(index, "\r\n"); name; name = strtok(NULL, "\r\n"))
            check_case(directory, name);
        free(index);
    }
    print_table();
    return test_finish();
}
