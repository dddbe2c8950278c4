/* test_tokenizer.c - examples/tokenizer.h against a naive version, against what others' tokenizers
 * give, and against broken files.
 *
 *     cc -O2 tests/test_tokenizer.c -o build/test_tokenizer && build/test_tokenizer
 *
 * Real vocabularies are read from the directory in the environment variable TRANSFORMER_DATA, or
 * from ../shared/data; their groups are skipped where it is absent.
 */
#define TOKENIZER_IMPLEMENTATION
#include "../examples/tokenizer.h"

#include "test.h"

enum { MAX_TEXT = 2000, MAX_FILE = 1 << 16 };

static uint32_t random_state = 2463534242u;

static uint32_t random_u32(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/* ---- files made here ---- */

typedef struct bytes {
    unsigned char data[MAX_FILE];
    size_t size;
} bytes;

static void put_u32(bytes *b, uint32_t x) {
    for (int i = 0; i < 4; i++) b->data[b->size++] = (unsigned char)(x >> 8 * i);
}

static void put_token(bytes *b, const char *text, int size, float score) {
    uint32_t bits;
    memcpy(&bits, &score, 4);
    put_u32(b, bits);
    put_u32(b, (uint32_t)size);
    memcpy(b->data + b->size, text, (size_t)size);
    b->size += (size_t)size;
}

/* <unk>, <s>, </s>, the 256 bytes if wanted, then the characters, then pieces made of two earlier
 * ones, with few different scores.  Returns the number of tokens. */
static int make_file(bytes *b, int with_bytes, int n_pieces) {
    static const char *const characters[] = {" ", "a", "b", "c", "\xC3\xA9", "\xE6\x97\xA5", "-"};
    char pieces[512][16], text[16];
    int sizes[512], n = 0, n_characters = 7, tokens = 3;
    b->size = 0;
    put_u32(b, 16);
    put_token(b, "<unk>", 5, 0);
    put_token(b, "\n<s>\n", 5, 0);
    put_token(b, "\n</s>\n", 6, 0);
    for (int i = 0; i < 256 && with_bytes; i++, tokens++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        put_token(b, text, 6, 0);
    }
    while (n < n_pieces) {
        if (n < n_characters) {
            sizes[n] = (int)strlen(characters[n]);
            memcpy(pieces[n], characters[n], (size_t)sizes[n]);
        } else {
            int left = (int)(random_u32() % (unsigned)n), right = (int)(random_u32() % (unsigned)n);
            if (sizes[left] + sizes[right] > 16) continue;
            sizes[n] = sizes[left] + sizes[right];
            memcpy(pieces[n], pieces[left], (size_t)sizes[left]);
            memcpy(pieces[n] + sizes[left], pieces[right], (size_t)sizes[right]);
        }
        put_token(b, pieces[n], sizes[n], -(float)(random_u32() % 40));
        n++;
        tokens++;
    }
    return tokens;
}

/* Text of the alphabet above, at times with other characters, and bytes that are not UTF-8. */
static int random_text(char *text, int most, int broken) {
    static const char *const parts[] = {"a",        "b",
                                        "c",        "a",
                                        "ab",       " ",
                                        "\xC3\xA9", "\xE6\x97\xA5",
                                        "-",        "z",
                                        "\n",       "\xF0\x9F\x98\x80",
                                        "<0x41>",   "<s>",
                                        "\xFF",     "\xE6\x97",
                                        "\xA5",     "\xED\xA0\x80",
                                        "\xC0\xAF"};
    int size = 0, n_parts = (int)(random_u32() % (unsigned)(most / 8 + 1));
    for (int i = 0; i < n_parts; i++) {
        const char *part = parts[random_u32() % (broken ? 19 : 14)];
        memcpy(text + size, part, strlen(part));
        size += (int)strlen(part);
        if (broken && random_u32() % 50 == 0) text[size++] = '\0';
    }
    return size;
}

/* ---- the naive version: at every step, scan all pairs and all pieces ---- */

typedef struct span {
    int start, size, token, merges;
} span;

static int naive_find(const tokenizer *t, const char *text, int size) {
    for (int id = 0, n; id < tokenizer_vocab_size(t); id++) {
        const char *piece = tokenizer_piece(t, id, &n);
        int byte = n == 6 && memcmp(piece, "<0x", 3) == 0;
        if (id > 2 && !byte && n == size && memcmp(piece, text, (size_t)size) == 0) return id;
    }
    return -1;
}

static float naive_score(const bytes *b, int token) {
    size_t at = 4;
    float score;
    for (int i = 0; i < token; i++) at += 8u + b->data[at + 4];
    uint32_t bits = tki_u32(b->data + at);
    memcpy(&score, &bits, 4);
    return score;
}

/* Sizes of characters by the table in RFC 3629, section 4. */
static int naive_character(const unsigned char *s, int n) {
    static const unsigned char table[9][6] = {
        /* first byte from, to; second byte from, to; further bytes; unused */
        {0x00, 0x7F, 0, 0, 0, 0},       {0xC2, 0xDF, 0x80, 0xBF, 0, 0},
        {0xE0, 0xE0, 0xA0, 0xBF, 1, 0}, {0xE1, 0xEC, 0x80, 0xBF, 1, 0},
        {0xED, 0xED, 0x80, 0x9F, 1, 0}, {0xEE, 0xEF, 0x80, 0xBF, 1, 0},
        {0xF0, 0xF0, 0x90, 0xBF, 2, 0}, {0xF1, 0xF3, 0x80, 0xBF, 2, 0},
        {0xF4, 0xF4, 0x80, 0x8F, 2, 0}};
    for (int i = 0; i < 9; i++) {
        const unsigned char *row = table[i];
        int size = i == 0 ? 1 : 2 + row[4], good = s[0] >= row[0] && s[0] <= row[1] && size <= n;
        good = good && (size == 1 || (s[1] >= row[2] && s[1] <= row[3]));
        for (int j = 2; good && j < size; j++) good = s[j] >= 0x80 && s[j] <= 0xBF;
        if (good) return size;
    }
    return 0;
}

static int naive_encode(const tokenizer *t, const bytes *b, const char *text, int length,
                        int32_t *out) {
    static char spaced[MAX_TEXT + 1];
    static span spans[MAX_TEXT + 1];
    int n = 0;
    spaced[0] = ' ';
    memcpy(spaced + 1, text, (size_t)length);
    length = length > 0 ? length + 1 : 0;
    for (int at = 0, size; at < length; at += size) {
        size = naive_character((const unsigned char *)spaced + at, length - at);
        size = size ? size : 1;
        int token = naive_find(t, spaced + at, size);
        for (int i = 0; i < (token < 0 ? size : 1); i++, n++) {
            span s = {at, size, token, 1};
            if (token < 0) { /* bytes begin at token 3 in these files */
                s.token = tokenizer_vocab_size(t) < 259 ? 0 : 3 + (unsigned char)spaced[at + i];
                s.merges = 0;
            }
            spans[n] = s;
        }
    }
    for (;;) {
        int best = -1, best_token = -1;
        for (int i = 0; i + 1 < n; i++) {
            if (!spans[i].merges || !spans[i + 1].merges) continue;
            int token = naive_find(t, spaced + spans[i].start, spans[i].size + spans[i + 1].size);
            if (token >= 0 && (best < 0 || naive_score(b, token) > naive_score(b, best_token))) {
                best = i;
                best_token = token;
            }
        }
        if (best < 0) break;
        spans[best].size += spans[best + 1].size;
        spans[best].token = best_token;
        memmove(&spans[best + 1], &spans[best + 2], (size_t)(n - best - 2) * sizeof(span));
        n--;
    }
    int kept = 0;
    for (int i = 0; i < n; i++) /* a run of what is unknown is one token */
        if (spans[i].token != 0 || kept == 0 || out[kept - 1] != 0) out[kept++] = spans[i].token;
    return kept;
}

/* ---- groups ---- */

/* Encodes with and without BOS; checks that both agree with the naive version. */
static void check_encoding(const tokenizer *t, const bytes *b, const char *text, int length) {
    static int32_t expected[MAX_TEXT + 2], got[MAX_TEXT + 2];
    tokenizer_error error;
    size_t capacity = (size_t)length + 2;
    int n = naive_encode(t, b, text, length, expected);
    CHECK(tokenizer_encode(t, text, (size_t)length, 0, got, capacity, &error) == n);
    CHECK(memcmp(expected, got, (size_t)n * sizeof *got) == 0);
    CHECK(tokenizer_encode(t, text, (size_t)length, TOKENIZER_BOS, got, capacity, &error) == n + 1);
    CHECK(got[0] == tokenizer_bos(t));
    CHECK(memcmp(expected, got + 1, (size_t)n * sizeof *got) == 0);
    if (n > 0)
        CHECK(tokenizer_encode(t, text, (size_t)length, 0, got, (size_t)n - 1, &error) == -1);
}

static void test_naive(void) {
    static bytes file;
    char text[MAX_TEXT];
    tokenizer_error error;
    for (int round = 0; round < 60; round++) {
        int with_bytes = round % 4 != 0, pieces = 7 + (int)(random_u32() % 120);
        int n = make_file(&file, with_bytes, pieces);
        tokenizer *t = tokenizer_open_memory(file.data, file.size, round % 2 ? n : 0, &error);
        CHECK(t != NULL && tokenizer_vocab_size(t) == n);
        for (int i = 0; t && i < 20; i++)
            check_encoding(t, &file, text, random_text(text, 200, i % 2));
        tokenizer_close(t);
    }
    GROUP("encoding equals the naive quadratic version");
}

/* Decodes tokens one by one into out; checks that every step writes whole characters. */
static int decode_all(const tokenizer *t, const int32_t *tokens, int n, char *out) {
    tokenizer_stream stream;
    char step[256];
    int size = 0;
    memset(&stream, 0, sizeof stream);
    CHECK(tokenizer_decode_bound(t) <= sizeof step);
    for (int i = 0; i <= n; i++) {
        int written = i < n ? tokenizer_decode(t, &stream, tokens[i], step)
                            : tokenizer_decode_end(&stream, step);
        CHECK(written >= 0 && written <= (int)tokenizer_decode_bound(t));
        for (int at = 0, c; at < written; at += c) {
            c = naive_character((const unsigned char *)step + at, written - at);
            CHECK(c > 0);
            c = c > 0 ? c : 1;
        }
        memcpy(out + size, step, (size_t)written);
        size += written;
    }
    return size;
}

static void test_round_trip(void) {
    static bytes file;
    static char text[MAX_TEXT], out[3 * MAX_TEXT];
    static int32_t tokens[MAX_TEXT + 2];
    tokenizer_error error;
    int n = make_file(&file, 1, 100);
    tokenizer *t = tokenizer_open_memory(file.data, file.size, n, &error);
    CHECK(t != NULL);
    for (int i = 0; t && i < 2000; i++) {
        int length = random_text(text, MAX_TEXT / 2, 0);
        int count = tokenizer_encode(t, text, (size_t)length, i % 2 ? TOKENIZER_BOS : 0, tokens,
                                     MAX_TEXT + 2, &error);
        CHECK(decode_all(t, tokens, count, out) == length);
        CHECK(memcmp(text, out, (size_t)length) == 0);
    }
    CHECK(tokenizer_encode(t, "ab", 2, TOKENIZER_NO_SPACE, tokens, 4, &error) >= 1);
    CHECK(tokenizer_piece(t, tokens[0], &n)[0] == 'a');
    CHECK(tokenizer_encode(t, "", 0, TOKENIZER_BOS, tokens, 1, &error) == 1 && tokens[0] == 1);
    CHECK(tokenizer_encode(t, "", 0, 0, tokens, 0, &error) == 0);
    tokenizer_close(t);
    GROUP("decoding gives the text back");
}

/* Feeds bytes as byte tokens (behind an 'a', so that nothing is stripped). */
static void check_bytes(const tokenizer *t, const char *in, const char *expected) {
    int32_t tokens[64];
    char out[256];
    int n = 0, size = (int)strlen(expected);
    for (; in[n]; n++) tokens[n] = 3 + (unsigned char)in[n];
    CHECK(decode_all(t, tokens, n, out) == size);
    CHECK(memcmp(out, expected, (size_t)size) == 0);
}

static void test_stream(void) {
    static bytes file;
    static int32_t tokens[MAX_TEXT];
    static char out[64 * MAX_TEXT];
    char step[256];
    tokenizer_stream stream;
    int n = make_file(&file, 1, 100);
    tokenizer *t = tokenizer_open_memory(file.data, file.size, n, NULL);
    CHECK(t != NULL);
    check_bytes(t, "\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80");
    check_bytes(t, "\xE2\x82", "\xEF\xBF\xBD");
    check_bytes(t, "\xE2\x28", "\xEF\xBF\xBD(");
    check_bytes(t, "\xE2\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9");
    check_bytes(t, "\xC0\xAFx", "\xEF\xBF\xBD\xEF\xBF\xBDx");
    check_bytes(t, "\xF0\x9F\xFF", "\xEF\xBF\xBD\xEF\xBF\xBD");
    check_bytes(t, "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    check_bytes(t, " x", " x"); /* a space that is a byte is not the encoder's */
    for (int i = 0; i < MAX_TEXT; i++) tokens[i] = (int32_t)(random_u32() % (unsigned)n);
    CHECK(decode_all(t, tokens, MAX_TEXT, out) > 0);
    memset(&stream, 0, sizeof stream);
    CHECK(tokenizer_decode(t, &stream, -1, step) == -1);
    CHECK(tokenizer_decode(t, &stream, n, step) == -1);
    CHECK(tokenizer_piece(t, n, &n) == NULL);
    tokenizer_close(t);
    GROUP("decoding writes only whole characters");
}

static void test_long_text(void) {
    enum { LENGTH = 300000 };
    static bytes file;
    char *text = (char *)malloc(LENGTH), *out = (char *)malloc(3 * LENGTH);
    int32_t *tokens = (int32_t *)malloc((LENGTH + 2) * sizeof *tokens);
    tokenizer_error error;
    int n = make_file(&file, 1, 400);
    tokenizer *t = tokenizer_open_memory(file.data, file.size, n, &error);
    CHECK(t != NULL && text != NULL && tokens != NULL && out != NULL);
    for (int i = 0; i < LENGTH; i++) text[i] = "aab c"[random_u32() % 5];
    int count = tokenizer_encode(t, text, LENGTH, TOKENIZER_BOS, tokens, LENGTH + 2, &error);
    CHECK(count > 0);
    CHECK(decode_all(t, tokens, count, out) == LENGTH);
    CHECK(memcmp(text, out, LENGTH) == 0);
    tokenizer_close(t);
    free(text);
    free(tokens);
    free(out);
    GROUP("a long text");
}

static int refused(const bytes *b, size_t size, int vocab_size) {
    tokenizer_error error;
    error.text[0] = '\0';
    unsigned char *exact = (unsigned char *)malloc(size + 1); /* so that overruns are seen */
    memcpy(exact, b->data, size);
    tokenizer *t = tokenizer_open_memory(exact, size, vocab_size, &error);
    int result = t == NULL && error.text[0] != '\0' && strchr(error.text, '\n') == NULL;
    tokenizer_close(t);
    free(exact);
    return result;
}

static void test_broken_files(void) {
    static bytes file, copy;
    tokenizer_error error;
    int n = make_file(&file, 1, 30);
    CHECK(!refused(&file, file.size, n) && !refused(&file, file.size, 0));
    for (size_t size = 0; size < file.size; size++) CHECK(refused(&file, size, n));
    CHECK(refused(&file, file.size, n + 1) && refused(&file, file.size, n - 1));
    CHECK(refused(&file, file.size, -1) && refused(&file, file.size, INT_MAX));

    static const uint32_t lengths[] = {17, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF8};
    for (int i = 0; i < 5;
         i++) { /* the first token's length, with and without a header that fits */
        copy = file;
        copy.size = 8;
        put_u32(&copy, lengths[i]);
        copy.size = 0;
        CHECK(refused(&copy, file.size, 0));
        put_u32(&copy, 0xFFFFFFFF);
        CHECK(refused(&copy, file.size, 0));
    }
    copy = file;
    copy.size = 4;
    put_u32(&copy, 0x7FC00000); /* the first token's score: NaN */
    CHECK(refused(&copy, file.size, 0));
    CHECK(tokenizer_open_memory(NULL, 0, 0, &error) == NULL);
    CHECK(tokenizer_open("there/is/no/such.file", 0, &error) == NULL && error.text[0] != '\0');
    CHECK(tokenizer_open(".", 0, &error) == NULL && error.text[0] != '\0');
    CHECK(tokenizer_open("there/is/no/such.file", 0, NULL) == NULL);
    GROUP("broken files are refused with a reason");
}

static void test_mutations(void) {
    static bytes file;
    static char out[64 * MAX_TEXT];
    static int32_t tokens[MAX_TEXT + 2];
    char text[MAX_TEXT];
    int opened = 0;
    for (int round = 0; round < 20000; round++) {
        if (round % 100 == 0) make_file(&file, round % 200 == 0, 20);
        unsigned char *data = (unsigned char *)malloc(file.size);
        memcpy(data, file.data, file.size);
        for (int i = 0; i < 1 + round % 5; i++)
            data[random_u32() % file.size] = (unsigned char)(random_u32() % 5 ? random_u32() : 0);
        tokenizer *t = tokenizer_open_memory(data, file.size, 0, NULL);
        if (t && tokenizer_decode_bound(t) <= 256) {
            opened++;
            int length = random_text(text, 100, 1);
            int n =
                tokenizer_encode(t, text, (size_t)length, TOKENIZER_BOS, tokens, MAX_TEXT, NULL);
            CHECK(n >= 0 && n <= length + 2);
            decode_all(t, tokens, n < 0 ? 0 : n, out);
        }
        tokenizer_close(t);
        free(data);
    }
    CHECK(opened > 1000);
    GROUP("files with random bytes changed do no harm");
}

/* ---- real vocabularies ---- */

/* DATA/name whole, zero-terminated, or NULL. */
static char *read_data(const char *name, size_t *size) {
    const char *directory = getenv("TRANSFORMER_DATA");
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", directory ? directory : "../shared/data", name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    char *data = (char *)calloc(1, 1 << 22);
    *size = data ? fread(data, 1, (1 << 22) - 1, file) : 0;
    fclose(file);
    return data;
}

static void skip(const char *name, const char *file) {
    SKIP("%s: no %s in TRANSFORMER_DATA or ../shared/data", name, file);
}

static void test_tok512(void) {
    static bytes file;
    static const char *const texts[] = {
        "",
        "Once upon a time",
        "Once upon a time, there was a little girl named Lily. She loved to play outside.",
        " two  spaces ",
        "\n\nLine\n",
        "Gru\xC3\x9F, \xE6\x97\xA5\xE6\x9C\xAC, \xF0\x9F\x98\x80"};
    const char *name = "stories260K's vocabulary: encoding equals the naive version";
    size_t size = 0;
    char *data = read_data("llama2c/tok512.bin", &size), out[256];
    int32_t tokens[256];
    if (data == NULL) {
        skip(name, "llama2c/tok512.bin");
        return;
    }
    CHECK(size <= MAX_FILE);
    file.size = size <= MAX_FILE ? size : 0;
    memcpy(file.data, data, file.size);
    tokenizer *t = tokenizer_open_memory(data, size, 512, NULL);
    CHECK(t != NULL);
    for (int i = 0; t && i < 6; i++) {
        size_t length = strlen(texts[i]);
        check_encoding(t, &file, texts[i], (int)length);
        int n = tokenizer_encode(t, texts[i], length, TOKENIZER_BOS, tokens, 256, NULL);
        CHECK(decode_all(t, tokens, n, out) == (int)length);
        CHECK(memcmp(out, texts[i], length) == 0);
    }
    tokenizer_close(t);
    free(data);
    GROUP("%s", name);
}

/* Ids that Meta's tokenizer gives, as published with llama2.c (test.c), BOS first. */
static void test_llama2(void) {
    static const struct {
        const char *text;
        int n, ids[26];
    } known[] = {
        {"", 1, {1}},
        {"I believe the meaning of life is", 8, {1, 306, 4658, 278, 6593, 310, 2834, 338}},
        {"Simply put, the theory of relativity states that ",
         13,
         {1, 3439, 17632, 1925, 29892, 278, 6368, 310, 14215, 537, 5922, 393, 29871}},
        {"A brief message congratulating the team on the launch:\n\n        Hi everyone,\n\n"
         "        I just ",
         26,
         {1,     319, 11473, 2643, 378,  629,   271,   18099, 278, 3815, 373, 278, 6826,
          29901, 13,  13,    4706, 6324, 14332, 29892, 13,    13,  4706, 306, 925, 29871}}};
    const char *name = "Llama 2's vocabulary: ids published with llama2.c";
    size_t size = 0;
    char *data = read_data("llama2c/tokenizer.bin", &size);
    int32_t tokens[256];
    if (data == NULL) {
        skip(name, "llama2c/tokenizer.bin");
        return;
    }
    tokenizer *t = tokenizer_open_memory(data, size, 32000, NULL);
    CHECK(t != NULL);
    for (int i = 0; t && i < 4; i++) {
        int n = tokenizer_encode(t, known[i].text, strlen(known[i].text), TOKENIZER_BOS, tokens,
                                 256, NULL);
        CHECK(n == known[i].n);
        for (int j = 0; j < n && j < known[i].n; j++) CHECK(tokens[j] == known[i].ids[j]);
    }
    tokenizer_close(t);
    free(data);
    GROUP("%s", name);
}

/* The texts and ids of one vocabulary: a line of ids per text. */
static void check_texts(const tokenizer *t, char *text, char *line) {
    const char *separator = "\n__ggml_vocab_test__\n";
    int32_t tokens[1024];
    int n_texts = 0;
    while (*line) {
        char *end = strstr(text, separator);
        size_t length = end ? (size_t)(end - text) : strlen(text);
        int n = tokenizer_encode(t, text, length, 0, tokens, 1024, NULL), count = 0,
            before = test_failed;
        for (; *line && *line != '\n'; count++) {
            long id = strtol(line, &line, 10);
            CHECK(count < n && tokens[count] == id);
            line += strspn(line, " ");
        }
        CHECK(count == n);
        if (test_failed > before) printf("  text %d: '%.*s'\n", n_texts, (int)length, text);
        line += *line == '\n';
        text += length + (end ? strlen(separator) : 0);
        n_texts++;
    }
    CHECK(n_texts > 30);
}

/* Vocabularies of real models, llama.cpp's texts, and the ids that the models' own tokenizers give. */
static void test_llama_cpp(const char *vocabulary, const char *stem) {
    char name[128], file[64];
    size_t size = 0, unused = 0;
    char *data = read_data(vocabulary, &size), *texts, *ids;
    snprintf(name, sizeof name, "%s: llama.cpp's texts and ids", vocabulary);
    snprintf(file, sizeof file, "vocab/%s.inp", stem);
    texts = read_data(file, &unused);
    snprintf(file, sizeof file, "vocab/%s.out", stem);
    ids = read_data(file, &unused);
    if (data == NULL || texts == NULL || ids == NULL) {
        skip(name, vocabulary);
    } else {
        tokenizer_error error;
        tokenizer *t = tokenizer_open_memory(data, size, 0, &error);
        CHECK(t != NULL);
        if (t) check_texts(t, texts, ids);
        tokenizer_close(t);
        GROUP("%s", name);
    }
    free(data);
    free(texts);
    free(ids);
}

/* ---- Unicode ---- */

static uint32_t fnv(uint32_t hash, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    return hash;
}

static size_t write_utf8(uint32_t c, char *out) {
    const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(n == 1 ? c : (0xF00u >> n & 0xF0) | c);
    return (size_t)n;
}

/* Of every character there can be: what tests/make_unicode.py sums from Python's database. */
static void test_unicode(void) {
    static const uint32_t want[] = {0x25bbd7e1u, 0x74f768b9u, 0x85b6614eu, 0x8543f1c1u};
    const uint32_t none = 2166136261u;
    uint32_t categories = none;
    for (uint32_t c = 0; c < 0x110000; c++) categories = fnv(categories, tki_category(c), 2);
    CHECK(categories == 0x9fa4108fu);
    for (int form = 0; form < 4; form++) { /* NFD, NFC, NFKD, NFKC */
        uint32_t sum = none;
        tki_buffer out;
        memset(&out, 0, sizeof out);
        for (uint32_t c = 0; c < 0x110000; c++) {
            char text[4];
            if (c >= 0xD800 && c < 0xE000) continue;
            out.size = 0;
            tki_normal_form(text, write_utf8(c, text), form & 1, form & 2, &out);
            sum = fnv(sum, out.data, out.size);
        }
        CHECK(sum == want[form] && !out.failed);
        free(out.data);
    }
    GROUP("categories and normal forms of all of Unicode");
}

int main(void) {
    test_unicode();
    test_naive();
    test_round_trip();
    test_stream();
    test_long_text();
    test_broken_files();
    test_mutations();
    test_tok512();
    test_llama2();
    test_llama_cpp("llama2c/tokenizer.bin", "llama-spm");
    test_llama_cpp("vocab/llama-spm.gguf", "llama-spm");
    test_llama_cpp("vocab/gpt-2.gguf", "gpt-2");
    test_llama_cpp("vocab/falcon.gguf", "falcon");
    test_llama_cpp("vocab/deepseek-llm.gguf", "deepseek-llm");
    return test_finish();
}
