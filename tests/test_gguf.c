/* GGUF files, made by llama.cpp's converter from the golden models (tests/make_gguf.py): every architecture gives the
 * golden logits.  Usage: test_gguf [DIRECTORY [CASE ...]] */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#include "goldens.h"

static void check_arch(const char *directory, const char *name, const char *golden_name) {
    static golden g; /* too large for the stack */
    static char path[512];
    transformer_error error;
    if (!open_golden(&g, "tests/goldens", golden_name)) return;
    snprintf(path, sizeof path, "%s/%s.gguf", directory, name);
    model_file *file = model_file_open(path, NULL, &error);
    if (!file) fprintf(stderr, "%s: %s\n", name, error.text);
    CHECK(file != NULL);
    size_t n = (size_t)g.n_tokens * (size_t)g.vocab_size;
    float *logits = (float *)malloc(n * sizeof(float));
    deviation d = {1e30, 1e30};
    CHECK(file && model_file_config(file)->vocab_size == g.vocab_size);
    if (file && model_file_config(file)->vocab_size == g.vocab_size &&
        run_case(&g, file, 1, g.n_tokens, logits, NULL))
        d = compare(&g, logits);
    CHECK(d.most <= 1e-4);
    CHECK(d.nmse <= 1e-9);
    CHECK(file && model_file_get_info(file)->copied_bytes == 0);
    GROUP("%-22s %-12s %4d positions: largest error %.1e, NMSE %.1e", name,
          file ? model_file_get_info(file)->family : "", g.n_positions, d.most, d.nmse);
    free(logits), free(g.logits), free(g.residual);
    model_file_close(file);
}

static void check_line(char *line, const void *directory) {
    char name[64], golden_name[64];
    CHECK(sscanf(line, "%63s %63s", name, golden_name) == 2);
    check_arch((const char *)directory, name, golden_name);
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "tests/gguf";
    char path[512];
    for (int i = 2; i < argc; i++) check_arch(directory, argv[i], argv[i]);
    snprintf(path, sizeof path, "%s/index.txt", directory);
    if (argc <= 2) CHECK(test_each_line(path, check_line, directory) > 0);
    return test_finish();
}
