/* libFuzzer target: any bytes as a GGUF file or llama2.c checkpoint in memory.  What opens must bind and run a token.
 * corpus: tests/gguf tests/goldens/llama2c_v1 tests/goldens/llama2c_v2
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_model_file.c -lm -o build/fuzz
 *     build/fuzz build/found tests/gguf */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"

#include "runs.h"

static void look(const model_file *file) {
    model_file_value v;
    model_file_string s;
    model_file_stored_tensor t;
    int64_t integer;
    double number;
    unsigned sum = 0;
    for (size_t i = 0; model_file_metadata(file, i, &v); i++) {
        for (size_t at = 0; model_file_next_string(&v, &at, &s);)
            if (s.length) sum += (unsigned char)s.text[s.length - 1];
        if (v.n && model_file_int(&v, v.n - 1, &integer)) sum += (unsigned)integer;
        if (v.n && model_file_float(&v, v.n - 1, &number)) sum += number > 0;
    }
    for (size_t i = 0; model_file_stored(file, i, &t); i++)
        if (t.bytes) sum += ((const unsigned char *)t.data)[t.bytes - 1];
    if (sum == 0xdeadbeef) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    model_file_options options = {0};
    for (options.only_look = 0; options.only_look < 2; options.only_look++) {
        transformer_error error;
        model_file *file = model_file_open_memory(data, size, &options, &error);
        if (!file && !error.status) abort();
        if (file && options.only_look) look(file);
        else if (file && !runs(file, NULL, 1, &error) && error.status != TRANSFORMER_MEMORY)
            abort();
        model_file_close(file);
    }
    return 0;
}
