/* Logits of tiny random models of every family, saved by Hugging Face transformers or by an independent
 * implementation (tests/make_goldens.py), against ours: all positions, the residual streams where stored, fed
 * at once and in pieces.  Prints the largest error per family.  Usage: test_goldens [DIRECTORY [CASE ...]] */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#include "goldens.h"

enum { MAX_FAMILIES = 80 };

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
    if (!open_golden(&g, directory, name)) return;
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

static void check_line(char *line, const void *directory) {
    check_case((const char *)directory, line);
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "tests/goldens";
    char path[512];
    for (int i = 2; i < argc; i++) check_case(directory, argv[i]);
    snprintf(path, sizeof path, "%s/index.txt", directory);
    if (argc <= 2) CHECK(test_each_line(path, check_line, directory) > 0);
    print_table();
    return test_finish();
}
