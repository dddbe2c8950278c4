/* fuzz_tokenizer.c - a libFuzzer target: the input is a file of a tokenizer, and behind its last zero byte a text;
 * and it is the tokenizer_config.json beside a small tokenizer.json, then the merges.txt beside a small vocab.json.
 * corpus: tests/data/tokenizers/tiny
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_tokenizer.c -o build/fuzz_tokenizer
 *     build/fuzz_tokenizer -max_len=4096 CORPUS tests/data/tokenizers/tiny
 */
#define TOKENIZER_IMPLEMENTATION
#include "../examples/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Tokens of the text, and back.  What the interface promises of sizes must hold. */
static void use(const tokenizer *t, const char *text, size_t size, int flags) {
    size_t capacity = tokenizer_encode_bound(t, size), bound = tokenizer_decode_bound(t);
    tokenizer_stream stream = {0, 0, {0}, flags & 1};
    if (capacity > 1 << 20 || bound > 1 << 20) return;
    int32_t *tokens = (int32_t *)malloc((capacity + 1) * sizeof *tokens);
    char *out = (char *)malloc(bound);
    int n = tokenizer_encode(t, text, size, flags, tokens, capacity, NULL);
    if (n < 0) abort(); /* the bound was too small */
    for (int i = 0; i < n; i++) {
        int written = tokenizer_decode(t, &stream, tokens[i], out);
        if (written < 0 || (size_t)written > bound) abort();
    }
    if ((size_t)tokenizer_decode_end(&stream, out) > bound) abort();
    free(tokens);
    free(out);
}

/* Opens the files, and uses the bytes behind the last zero of the input as a text. */
static void try_files(const tokenizer_files *files, const uint8_t *data, size_t size) {
    size_t cut = size;
    tokenizer *t = tokenizer_open_files(files, 0, NULL);
    if (t == NULL) return;
    while (cut > 0 && data[cut - 1] != 0 && size - cut < 64) cut--;
    use(t, "abc ab c  b\xC3\xA9 A'S <s>xy\xFF\xE6\x97 ab", 28, TOKENIZER_AUTO | TOKENIZER_SPECIAL);
    use(t, (const char *)data + cut, size - cut, TOKENIZER_BOS | TOKENIZER_EOS);
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char merges[] = "#version: 0.2\na b\nab c\n";
    static const char vocab[] =
        "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"\xC4\xA0\":5,\"<s>\":6}";
    static const char unigram[] = "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":"
                                  "[[\"<s>\",0],[\"a\",-1],[\"ab\",-1],[\"abc\",-2],[\"c\",-2]]}}";
    tokenizer_files files;
    memset(&files, 0, sizeof files);
    files.data = data;
    files.size = size;
    files.merges = merges;
    files.merges_size = sizeof merges - 1;
    try_files(&files, data, size);
    if (size > 20000) return 0; /* no file beside a vocabulary as small as these */
    files.data = unigram;
    files.size = sizeof unigram - 1;
    files.config = data;
    files.config_size = size;
    try_files(&files, data, size);
    if (size == 0 || data[0] != '#') return 0; /* classes of all characters take a while */
    files.data = vocab;
    files.size = sizeof vocab - 1;
    files.config = NULL;
    files.merges = data;
    files.merges_size = size;
    try_files(&files, data, size);
    return 0;
}
