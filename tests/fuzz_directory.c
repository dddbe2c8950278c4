/* libFuzzer target: a Hugging Face directory with any bytes as config.json, beside the weights of the golden models of
 * the same model_type, as model.safetensors, beside the configuration of one, or as the index of a golden model's
 * shards.  What opens must bind and run a token.
 * corpus: tests/goldens
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_directory.c -lm -o build/fuzz
 *     build/fuzz build/found tests/goldens       (from the project's root) */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <unistd.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#include "runs.h"
#include "test.h"

typedef struct golden {
    char type[40]; /* "model_type": "llama" */
    char *config, *weights;
    size_t config_size, weights_size;
} golden;

static golden goldens[200];
static int n_goldens;

static char *read_part(const char *name, const char *file, size_t *size) {
    char path[200];
    snprintf(path, sizeof path, "tests/goldens/%s/%s", name, file);
    return test_read_file(path, size);
}

static void read_golden(char *name, const void *unused) {
    golden *g = &goldens[n_goldens];
    char *type;
    (void)unused;
    g->config = read_part(name, "config.json", &g->config_size);
    g->weights = read_part(name, "model.safetensors", &g->weights_size);
    type = g->config ? strstr(g->config, "\"model_type\": \"") : NULL;
    if (type && g->weights && n_goldens < 199) {
        sscanf(type + 15, "%38[^\"]", g->type);
        n_goldens++;
    } else {
        free(g->config), free(g->weights);
    }
}

static int contains(const uint8_t *data, size_t size, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(data + i, word, n) == 0) return 1;
    return 0;
}

/* Weights of no tensors: what a configuration gets without any. */
static const char nothing[] = "\2\0\0\0\0\0\0\0{}";

/* What has been opened, or why it has not been. */
static void use(model_file *file, int only_look, transformer_error *error) {
    model_file_value v;
    unsigned sum = 0;
    if (!file && !error->status) abort();
    for (size_t i = 0; model_file_metadata(file, i, &v); i++)
        for (size_t k = 0; k < v.bytes; k++) sum += v.data[k];
    if (sum == 0xdeadbeef) abort();
    if (file && !only_look && !runs(file, NULL, 1, error) && error->status != TRANSFORMER_MEMORY)
        abort();
    model_file_close(file);
}

static void try_directory(const void *config, size_t n_config, const void *data, size_t size) {
    transformer_error error;
    model_file_options options = {0, 0};
    for (options.only_look = 0; options.only_look < 2; options.only_look++) {
        model_file *file =
            model_file_open_safetensors(config, n_config, data, size, &options, &error);
        use(file, options.only_look, &error);
    }
}

/* The bytes as the index of the shards of tests/goldens/NAME, in a directory that points to them. */
static void try_index(const char *name, const uint8_t *data, size_t size) {
    static const char *const parts[] = {"config.json", "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    transformer_error error;
    char directory[100], path[200], target[1200], root[900];
    FILE *index;
    if (!getcwd(root, sizeof root)) abort();
    snprintf(directory, sizeof directory, "/tmp/fuzz_directory.XXXXXX");
    if (!mkdtemp(directory)) abort();
    for (int i = 0; i < 4; i++) {
        snprintf(target, sizeof target, "%s/tests/goldens/%s/%s", root, name, parts[i]);
        snprintf(path, sizeof path, "%s/%s", directory, parts[i]);
        if (symlink(target, path) != 0) abort();
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    index = fopen(path, "wb");
    if (!index || fwrite(data, 1, size, index) != size || fclose(index) != 0) abort();
    use(model_file_open(directory, NULL, &error), 0, &error);
    unlink(path);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, parts[i]);
        unlink(path);
    }
    rmdir(directory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (n_goldens == 0) test_each_line("tests/goldens/index.txt", read_golden, NULL);
    if (n_goldens < 100) abort();
    if (size == 0) return 0;
    for (int i = 0; i < n_goldens; i++) { /* any one, and those whose weights are as long */
        const golden *g = &goldens[i];
        if (g->weights_size == size || i == (int)((size + data[size / 2]) % (size_t)n_goldens))
            try_directory(g->config, g->config_size, data, size);
    }
    if (size > 20000) return 0; /* no configuration */
    try_directory(data, size, nothing, sizeof nothing - 1);
    if (contains(data, size, "weight_map")) {
        try_index("llama_sharded", data, size);
        try_index("gpt2_sharded", data, size);
    }
    for (int i = 0; i < n_goldens; i++)
        if (contains(data, size, goldens[i].type))
            try_directory(data, size, goldens[i].weights, goldens[i].weights_size);
    return 0;
}
