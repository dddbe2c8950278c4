/* test_tokenizer_files.c - examples/tokenizer.h against the ids of other implementations for every kind of file, and
 * against files that are cut off, changed, or come when memory runs out.
 *
 *     cc -O2 tests/test_tokenizer_files.c -o build/test_tokenizer_files && build/test_tokenizer_files
 */
#include <stdlib.h>

#include "allocator.h"

#define TOKENIZER_MALLOC counted_malloc
#define TOKENIZER_REALLOC counted_realloc
#define TOKENIZER_FREE counted_free
#define TOKENIZER_IMPLEMENTATION
#include "../examples/tokenizer.h"
#include "test.h"

#include <time.h>

#define DATA "tests/data/tokenizers/"

static const char *const tiny[] = {"tiny_bpe.json",  "tiny_unigram.json",  "vocab.json",
                                   "tiny_spm.model", "tiny_unigram.model", "tiny.bin",
                                   "tiny_gpt2.gguf", "tiny_llama.gguf",    "tiny_t5.gguf"};
enum { N_TINY = 9, ROOM = 1 << 16 };

static char *read_golden(const char *folder, const char *name, size_t *size) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", folder, name);
    return test_read_file(path, size);
}

/* The line that begins at *text, which moves behind it; NULL at the end. */
static char *next_line(char **text, size_t *size) {
    char *line = *text, *end = strchr(line, '\n');
    if (*line == '\0' && end == NULL) return NULL;
    *size = end ? (size_t)(end - line) : strlen(line);
    *text = line + *size + (end != NULL);
    return line;
}

/* All tokens as text; *size = how long it is. */
static char *decode_all(const tokenizer *t, const int32_t *tokens, int n, int special,
                        size_t *size) {
    tokenizer_stream stream;
    size_t bound = tokenizer_decode_bound(t), at = 0;
    char *out = (char *)malloc(((size_t)n + 1) * bound + 1);
    memset(&stream, 0, sizeof stream);
    stream.special = special;
    for (int i = 0; i < n; i++) {
        int written = tokenizer_decode(t, &stream, tokens[i], out + at);
        CHECK(written >= 0 && (size_t)written <= bound);
        at += written > 0 ? (size_t)written : 0;
    }
    at += (size_t)tokenizer_decode_end(&stream, out + at);
    *size = at;
    return out;
}

/* ---- the ids of others ---- */

static int has(const char *line, size_t size, const char *what) {
    size_t n = strlen(what);
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(line + i, what, n) == 0) return 1;
    return 0;
}

/* Is there nothing that comes back with other spaces: U+2581, which stands for one, and special tokens, behind which
 * Llama 2's encoding puts one? */
static int is_plain(const char *line, size_t size) {
    return !has(line, size, "\xE2\x96\x81") && !has(line, size, "</s>") &&
           !has(line, size, "<unk>");
}

static void check_line(const tokenizer *t, const char *line, size_t size, char *ids, int flags,
                       int reversible) {
    size_t capacity = tokenizer_encode_bound(t, size), back;
    int32_t *tokens = (int32_t *)malloc((capacity + 1) * sizeof *tokens);
    tokenizer_error error;
    int n = tokenizer_encode(t, line, size, flags, tokens, capacity, &error), count = 0, same = 1;
    for (char *end; *ids && *ids != '\n'; count++) {
        long id = strtol(ids, &end, 10);
        same = same && count < n && tokens[count] == id;
        ids = end + (*end == ' ');
    }
    CHECK(n == count);
    CHECK(same);
    if (n != count || !same) fprintf(stderr, "  line '%.*s'\n", (int)(size > 60 ? 60 : size), line);
    if (n > 0) CHECK(tokenizer_encode(t, line, size, flags, tokens, (size_t)n - 1, NULL) == -1);
    if (n >= 0 && (reversible == 1 || (reversible == 2 && is_plain(line, size)))) {
        char *text = decode_all(t, tokens, n, 1, &back);
        CHECK(back == size && memcmp(text, line, size) == 0);
        free(text);
    }
    free(tokens);
}

static void test_case(const char *file, const char *ids_name, int special, int reversible) {
    char path[256], *texts, *ids, *text, *line, *id_line;
    size_t size, id_size, text_size;
    tokenizer_error error;
    snprintf(path, sizeof path, DATA "%s", file);
    tokenizer *t = tokenizer_open(path, 0, &error);
    texts = text = read_golden(DATA, "text.txt", &text_size);
    ids = read_golden(DATA, ids_name, NULL);
    CHECK(t != NULL && texts != NULL && ids != NULL);
    if (t == NULL) fprintf(stderr, "  %s\n", error.text);
    id_line = ids;
    int n_lines = 0, flags = special ? TOKENIZER_SPECIAL : 0;
    for (char *end = texts + text_size; t && texts && ids && text <= end; n_lines++) {
        char *newline = (char *)memchr(text, '\n', (size_t)(end - text));
        size = newline ? (size_t)(newline - text) : (size_t)(end - text);
        line = next_line(&id_line, &id_size);
        CHECK(line != NULL);
        if (line == NULL) break;
        check_line(t, text, size, line, flags, reversible);
        text += size + 1;
    }
    CHECK(n_lines > 20);
    tokenizer_close(t);
    free(texts);
    free(ids);
    GROUP("%s: ids of the reference implementation%s", file, reversible ? ", and back" : "");
}

static void test_cases(void) {
    char *list = read_golden(DATA, "list.txt", NULL), *at = list, *line, file[64], ids[64];
    size_t size;
    int special, reversible, n = 0;
    while (list && (line = next_line(&at, &size)) != NULL) {
        if (sscanf(line, "%63s %63s %d %d", file, ids, &special, &reversible) == 4) {
            test_case(file, ids, special, reversible);
            n++;
        }
    }
    free(list);
    CHECK(n >= 35);
    GROUP("all cases of list.txt were run");
}

/* ---- broken files ---- */

enum {
    MOST_TABLES = 1 << 19
}; /* memory that a tokenizer takes whatever its file: classes, states */

/* Opens a copy that ends where the memory ends, so that tools see an overrun; encodes and decodes if it can. */
static int try_file(const char *data, size_t size, const char *merges, size_t merges_size) {
    static const char text[] = "abc ab c  b\xC3\xA9 A'S <s>xy\xFF\xE6\x97 ab";
    tokenizer_files files;
    tokenizer_error error;
    memset(&files, 0, sizeof files);
    char *exact = (char *)malloc(size ? size : 1);
    memcpy(exact, data, size);
    files.data = exact;
    files.size = size;
    files.merges = merges;
    files.merges_size = merges_size;
    error.text[0] = '\0';
    peak_bytes = live_bytes;
    tokenizer *t = tokenizer_open_files(&files, 0, &error);
    CHECK(peak_bytes <= 2 * (size + merges_size) + MOST_TABLES);
    if (t == NULL) CHECK(error.text[0] != '\0' && strchr(error.text, '\n') == NULL);
    if (t && tokenizer_encode_bound(t, sizeof text) < ROOM) {
        int32_t tokens[4096];
        size_t back;
        int n = tokenizer_encode(t, text, sizeof text, TOKENIZER_AUTO | TOKENIZER_SPECIAL, tokens,
                                 4096, NULL);
        CHECK(n <= 4096);
        if (n > 0 && tokenizer_decode_bound(t) < ROOM) free(decode_all(t, tokens, n, 1, &back));
    }
    int opened = t != NULL;
    tokenizer_close(t);
    free(exact);
    return opened;
}

static void test_truncations(void) {
    size_t merges_size = 0;
    char *merges = read_golden(DATA "tiny/", "merges.txt", &merges_size);
    CHECK(merges != NULL);
    for (int i = 0; i < N_TINY; i++) {
        size_t size = 0;
        int opened = 0;
        char *data = read_golden(DATA "tiny/", tiny[i], &size);
        CHECK(data != NULL && try_file(data, size, merges, merges_size));
        for (size_t n = 0; data && n < size; n++) opened += try_file(data, n, merges, merges_size);
        /* a SentencePiece or llama2.c file may end behind any piece; GGUF and JSON have an end of their own */
        int open_ended = strstr(tiny[i], ".model") || strstr(tiny[i], ".bin");
        CHECK(open_ended ? opened < 20 : opened == 0);
        GROUP("%s: every truncation, %d of %d can be opened", tiny[i], opened, (int)size);
        free(data);
    }
    for (size_t n = 0; n < merges_size; n++) {
        size_t size = 0;
        char *data = read_golden(DATA "tiny/", "vocab.json", &size);
        try_file(data, size, merges, n);
        free(data);
    }
    free(merges);
    GROUP("merges.txt: every truncation");
}

static void test_extremes(void) {
    static const uint64_t values[] = {
        0,          1,          0xFFFFFFFFFFFFFFFF, 0x7FFFFFFF,
        0x80000000, 0xFFFFFFFF, (uint64_t)1 << 61,  (uint64_t)1 << 63};
    for (int i = 0; i < N_TINY; i++) {
        size_t size = 0;
        char *data = read_golden(DATA "tiny/", tiny[i], &size);
        CHECK(data != NULL);
        size_t step = strstr(tiny[i], ".json") ? 5 : 1; /* of text only a sample */
        for (size_t at = 0; data && at < size; at += step) {
            for (int k = 0; k < 16; k++) {
                char saved[8];
                size_t n = k % 2 ? 8 : 4;
                if (at + n > size) continue;
                memcpy(saved, data + at, n);
                for (size_t b = 0; b < n; b++) data[at + b] = (char)(values[k / 2] >> 8 * b);
                try_file(data, size, NULL, 0);
                memcpy(data + at, saved, n);
            }
        }
        free(data);
        GROUP("%s: extreme values at every byte", tiny[i]);
    }
}

static void test_mutations(void) {
    uint32_t state = 12345;
    int opened = 0;
    for (int i = 0; i < N_TINY; i++) {
        size_t size = 0, merges_size = 0;
        char *data = read_golden(DATA "tiny/", tiny[i], &size), *copy = (char *)malloc(size);
        char *merges = read_golden(DATA "tiny/", "merges.txt", &merges_size);
        for (int round = 0; data && round < 1500; round++) {
            memcpy(copy, data, size);
            for (int k = 0; k <= round % 3; k++) {
                state = test_hash(state + 1);
                copy[state % size] =
                    state & 0x10000 ? (char)(state >> 24) : data[(state >> 8) % size];
            }
            opened += try_file(copy, size, merges, merges_size);
        }
        free(data);
        free(copy);
        free(merges);
    }
    CHECK(opened > 1000);
    GROUP("bytes changed at random: %d of %d files can be opened", opened, 1500 * N_TINY);
}

/* ---- memory ---- */

static int open_and_encode(const tokenizer_files *files, tokenizer_error *error) {
    static const char text[] = "abc ab c  b\xC3\xA9\xCC\x81\xCC\xA3 A'S <s>xy ab";
    int32_t tokens[256];
    tokenizer *t = tokenizer_open_files(files, 0, error);
    int n = t ? tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_AUTO, tokens, 256, error) : -1;
    tokenizer_close(t);
    return n;
}

static void test_memory(void) {
    size_t merges_size = 0, config_size = 0;
    char *merges = read_golden(DATA "tiny/", "merges.txt", &merges_size);
    char *config = read_golden(DATA "tiny/", "tokenizer_config.json", &config_size);
    for (int i = 0; i < N_TINY; i++) {
        tokenizer_files files;
        tokenizer_error error;
        memset(&files, 0, sizeof files);
        char *data = read_golden(DATA "tiny/", tiny[i], &files.size);
        files.data = data;
        files.merges = merges;
        files.merges_size = merges_size;
        files.config = config;
        files.config_size = config_size;
        allocations_live = 0, fail_at = 0;
        int whole = open_and_encode(&files, &error), n = -1;
        CHECK(whole > 0 && allocations_live == 0);
        long k = 1, failures = 0;
        for (; k < 10000; k++) {
            allocations = 0, allocations_live = 0, fail_at = k;
            error.text[0] = '\0';
            n = open_and_encode(&files, &error);
            CHECK(allocations_live == 0);
            if (allocations < k) break; /* it needs no more than k - 1 */
            failures += n < 0;
            CHECK(n == whole || (n < 0 && strstr(error.text, "memory")));
        }
        CHECK(n == whole && k > 5 && failures > 5);
        fail_at = 0;
        free(data);
        GROUP("%s: each of %ld allocations fails, nothing leaks", tiny[i], k - 1);
    }
    free(merges);
    free(config);
}

/* ---- long runs ---- */

static void test_runs(void) {
    static const char *const files[] = {"gpt2.json",   "llama3.gguf",   "deepseek_coder.json",
                                        "llama2.json", "spm_bpe.model", "spm_unigram.model",
                                        "gemma.json",  "words.json"};
    static const char *const units[] = {"a", " ",        "\n", "ab", "  x", "\xE7\x9A\x84",
                                        "1", "\xCC\x81", "<"};
    enum { LENGTH = 1 << 20 };
    char *text = (char *)malloc(LENGTH + 8);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        snprintf(path, sizeof path, DATA "%s", files[i]);
        tokenizer *t = tokenizer_open(path, 0, NULL);
        CHECK(t != NULL);
        for (size_t u = 0; t && u < sizeof units / sizeof *units; u++) {
            size_t n = strlen(units[u]), size = 0;
            for (; size + n <= LENGTH / 4; size += n) memcpy(text + size, units[u], n);
            size_t capacity = tokenizer_encode_bound(t, size);
            int32_t *tokens = (int32_t *)malloc(capacity * sizeof *tokens);
            clock_t start = clock();
            int count = tokenizer_encode(t, text, size, TOKENIZER_SPECIAL, tokens, capacity, NULL);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            CHECK(count >= 0 && seconds < 5); /* what is quadratic would take minutes */
            free(tokens);
        }
        tokenizer_close(t);
        GROUP("%s: runs of 256 KiB take no time to speak of", files[i]);
    }
    free(text);
}

/* ---- the first spaces of a decoded text ---- */

/* Three spaces, each a token, and a letter: so many spaces are left. */
static void check_first_spaces(const char *file, int left) {
    tokenizer *t = tokenizer_open(file, 0, NULL);
    int32_t tokens[4];
    size_t size = 0;
    CHECK(t != NULL);
    if (!t) return;
    for (int i = 0; i < 3; i++) tokens[i] = tokenizer_find(t, "\xE2\x96\x81", 3);
    tokens[3] = tokenizer_find(t, "a", 1);
    CHECK(tokens[0] >= 0 && tokens[3] >= 0);
    char *text = decode_all(t, tokens, 4, 0, &size);
    CHECK(size == (size_t)left + 1 && memcmp(text, "   a" + 3 - left, size) == 0);
    free(text);
    tokenizer_close(t);
}

static void test_first_spaces(void) {
    check_first_spaces(DATA "spm_bpe.model", 2);
    check_first_spaces(DATA "spm_unigram_bytes.model", 0); /* removes spaces that are too many */
    check_first_spaces(DATA "spm_suffixless.model", 3);
    GROUP("decoding drops the spaces that encoding puts in front, or removes");
}

/* ---- the interface ---- */

static void test_interface(void) {
    tokenizer_error error;
    int32_t tokens[64];
    int left, right, size;
    size_t back;
    tokenizer *t = tokenizer_open(DATA "llama3.json", 0, &error);
    CHECK(t && tokenizer_kind(t) == TOKENIZER_JSON && tokenizer_model(t) == TOKENIZER_BPE);
    CHECK(t && tokenizer_pre(t) && strcmp(tokenizer_pre(t), "llama-bpe") == 0);
    if (t) {
        int begin = tokenizer_find(t, "<|begin|>", 9), end = tokenizer_find(t, "<|end|>", 7);
        CHECK(begin >= 0 && end >= 0 && tokenizer_bos(t) == begin && tokenizer_adds_bos(t) &&
              !tokenizer_adds_eos(t));
        CHECK(tokenizer_type(t, begin) == TOKENIZER_CONTROL && tokenizer_type(t, -1) == 0);
        CHECK(tokenizer_is_end(t, end) && !tokenizer_is_end(t, begin) &&
              !tokenizer_is_end(t, 99999));
        CHECK(tokenizer_encode(t, "a<|end|>", 8, TOKENIZER_AUTO | TOKENIZER_SPECIAL, tokens, 64,
                               NULL) == 3);
        CHECK(tokens[0] == begin && tokens[2] == end);
        char *text = decode_all(t, tokens, 3, 0, &back);
        CHECK(back == 1 && text[0] == 'a');
        free(text);
        text = decode_all(t, tokens, 3, 1, &back);
        CHECK(back == 17 && memcmp(text, "<|begin|>a<|end|>", 17) == 0);
        free(text);
        CHECK(tokenizer_encode(t, "a<|end|>", 8, 0, tokens, 64, NULL) > 3);
        CHECK(tokenizer_merge(t, 0, &left, &right) == 0 &&
              tokenizer_merge(t, -1, &left, &right) == -1);
        CHECK(tokenizer_merge(t, tokenizer_n_merges(t), &left, &right) == -1);
        CHECK(tokenizer_piece(t, tokenizer_vocab_size(t), &size) == NULL);
    }
    tokenizer_close(t);
    t = tokenizer_open(DATA "tiny", 0, &error); /* a directory with vocab.json */
    CHECK(t && tokenizer_kind(t) == TOKENIZER_GPT2 && tokenizer_adds_bos(t));
    CHECK(t && tokenizer_chat_template(t) && strcmp(tokenizer_chat_template(t), "{{ x }}") == 0);
    tokenizer_close(t);
    t = tokenizer_open(DATA "tiny/tiny_gpt2.gguf", 0, &error);
    CHECK(t && tokenizer_chat_template(t) && strcmp(tokenizer_chat_template(t), "{{ x }}") == 0);
    tokenizer_close(t);
    t = tokenizer_open(DATA "spm_bpe.model", 0, &error);
    CHECK(t && tokenizer_kind(t) == TOKENIZER_SENTENCEPIECE && tokenizer_model(t) == TOKENIZER_SPM);
    CHECK(t && tokenizer_adds_bos(t) && tokenizer_adds_space(t) && tokenizer_unk(t) == 0);
    tokenizer_close(t);
    CHECK(allocations_live == 0);
    GROUP("what the interface says of a file");
}

/* A map of characters is applied to graphemes of less than 6 bytes, by the shortest of their beginnings that it has. */
static void test_graphemes(void) {
    static const struct {
        const char *text, *other;
        int same;
    } cases[] = {{"a\r\nb", "a b", 1},
                 {"a\rb", "a b", 0},
                 {"ve\xCC\x81v", "vev", 1},
                 {"ve\xCC\x81\xCC\x81v", "vev", 1},
                 {"ve\xCC\x81\xCC\x81\xCC\x81v", "vev", 0},
                 {"ve\xE2\x80\x8D\xE2\x80\x8Dv", "ve--v", 1}, /* 7 bytes: character by character */
                 {"ve\xE2\x80\x8Dv", "vev", 1},
                 {"v\xD8\x80"
                  "ev",
                  "vxv", 1}, /* U+0600 takes what follows */
                 {"v\x7F\xCC\x81v", "vy\xCC\x81v", 1},
                 {"v\x7F\xCC\x81v", "vyv", 0}}; /* nothing joins a control character */
    tokenizer_error error;
    tokenizer *t = tokenizer_open(DATA "unigram_map.json", 0, &error);
    CHECK(t != NULL);
    for (size_t i = 0; t && i < sizeof cases / sizeof *cases; i++) {
        int32_t a[64], b[64];
        int n = tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 0, a, 64, &error);
        int m = tokenizer_encode(t, cases[i].other, strlen(cases[i].other), 0, b, 64, &error);
        int same = n == m && memcmp(a, b, (size_t)n * sizeof *a) == 0;
        CHECK(n > 0 && m > 0 && same == cases[i].same);
        if (same != cases[i].same) fprintf(stderr, "graphemes: case %d\n", (int)i);
    }
    tokenizer_close(t);
    GROUP("a map of characters inside a tokenizer.json: graphemes");
}

/* Bytes are tokens of a unigram by their names, too, as in tokenizers; not where SentencePiece says what they are. */
static void test_byte_names(void) {
    static const char json[] = "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":"
                               "true,\"vocab\":[[\"<unk>\",0],"
                               "[\"<0x41>\",-9],[\"b\",-1],[\"<\",-1],[\"0\",-1],[\"x\",-1],[\"4\","
                               "-1],[\"1\",-1],[\">\",-5]]}}";
    tokenizer_error error;
    int32_t tokens[16];
    tokenizer *t = tokenizer_open_memory(json, sizeof json - 1, 0, &error);
    CHECK(t && tokenizer_encode(t, "b<0x41>A", 8, 0, tokens, 16, &error) == 3);
    CHECK(t && tokens[0] == 2 && tokens[1] == 1 && tokens[2] == 1);
    tokenizer_close(t);
    GROUP("byte tokens of a unigram in a tokenizer.json have names");
}

#define MAP_JSON(map)                                                                              \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"    \
    "\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\",\"precompiled_charsmap\":" map "}]}}"
#define ONE_UNIT "\"BAAAAAAAAAAA\"" /* 4 bytes of units, which are zero, and a text that is empty */

/* What is not done is refused by its name. */
static void test_refusals(void) {
    static const struct {
        const char *json, *reason;
    } cases[] = {
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
         "dropout"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":"
         "\"x\"}}",
         "suffix"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":"
         "\"Lowercase\"}}",
         "Lowercase"},
        {MAP_JSON("\"AAAA\""), "units in 3 bytes"},
        {MAP_JSON("\"AAA\""), "base64"},
        {MAP_JSON("\"A===\""), "base64"},
        {MAP_JSON("\"AA A\""), "base64"},
        {MAP_JSON("\"\""), "base64"},
        {MAP_JSON("null"), "no precompiled_charsmap"},
        {MAP_JSON(ONE_UNIT "},{\"type\":\"Precompiled\",\"precompiled_charsmap\":" ONE_UNIT),
         "a second one"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{"
         "\"type\":\"Odd\"}}",
         "Odd"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{"
         "\"type\":\"Split\","
         "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"a(?<=b)\"}}}",
         "(?"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{"
         "\"type\":\"Split\","
         "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"a?+a\"}}}",
         "possessive"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":"
         "\"CTC\"}}",
         "CTC"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "number"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483647},\"merges\":[]}}", "number"},
        {"{\"a\":0}", "merges.txt"},
        {"{\"a\":0", "JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer_error error;
        error.text[0] = '\0';
        tokenizer *t = tokenizer_open_memory(cases[i].json, strlen(cases[i].json), 0, &error);
        CHECK(t == NULL && strstr(error.text, cases[i].reason));
        if (t || !strstr(error.text, cases[i].reason))
            fprintf(stderr, "  %s: %s\n", cases[i].reason, error.text);
        tokenizer_close(t);
    }
    GROUP("what is not done is refused by its name");
}

int main(void) {
    test_cases();
    test_truncations();
    test_extremes();
    test_mutations();
    test_memory();
    test_runs();
    test_interface();
    test_graphemes();
    test_first_spaces();
    test_byte_names();
    test_refusals();
    return test_finish();
}
