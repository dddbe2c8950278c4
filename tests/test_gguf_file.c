/* The GGUF reader of examples/model_file.h on files of its own making and on spoilt ones: every type of metadata, split
 * files, keys that are not understood, every truncation and every field of the header set to extremes.
 * Asked for is always the same: an error that says where, or a model that runs.  Files lie in memory blocks of exactly their size, so that -fsanitize=address sees every byte read beyond. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counted_model_file.h"
#include "files.h"
#include "gguf_bytes.h"
#include "runs.h"

static void check(int ok, const char *what, const char *more) {
    char text[700];
    snprintf(text, sizeof text, "%s: %s", what, more ? more : "");
    test_check(ok, "test_gguf_file.c", 0, text);
}

/* ---- copying GGUF ---- */

/* Everything in the file but the key `without`, and tensors from `first` to before `last`. */
static void copy_keys(const model_file *file, const char *without) {
    model_file_value v;
    for (size_t i = 0; model_file_metadata(file, i, &v); i++) {
        if (strlen(without) == v.key.length && memcmp(without, v.key.text, v.key.length) == 0)
            continue;
        put_int(v.key.length, 8);
        put(v.key.text, v.key.length);
        put_int((uint64_t)v.type, 4);
        if (v.type == MODEL_FILE_ARRAY) {
            put_int((uint64_t)v.element, 4);
            put_int(v.n, 8);
        }
        put(v.data, v.bytes);
        w.n_keys++;
    }
}

static void copy_tensors(const model_file *file, size_t first, size_t last, const char *without) {
    model_file_stored_tensor t;
    for (size_t i = first; i < last && model_file_stored(file, i, &t); i++) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)t.name.length, t.name.text);
        if (strcmp(name, without) != 0)
            tensor(name, t.gguf_type, t.n_dims, t.dims, t.data, t.bytes);
    }
}

/* ---- opening ---- */

/* A block of exactly n bytes, as aligned as a mapped file. */
typedef struct block {
    void *base;
    unsigned char *data;
} block;

static block exact(const void *data, size_t n) {
    block b;
    b.base = malloc(n + 64);
    size_t shift = 64 - (uintptr_t)b.base % 64;
    free(b.base);
    b.base =
        malloc(n + shift); /* most likely at the same place; else less aligned, and right anyway */
    if (!b.base) abort();
    b.data = (unsigned char *)b.base + shift;
    memcpy(b.data, data, n);
    return b;
}

/* Must be refused, with both words in the error. */
static void must_fail(const void *data, size_t n, const char *what, const char *word,
                      const char *word2) {
    transformer_error error;
    block b = exact(data, n);
    model_file *file = model_file_open_memory(b.data, n, NULL, &error);
    check(!file && error.status && strstr(error.text, word) && strstr(error.text, word2), what,
          file ? "was opened" : error.text);
    model_file_close(file);
    check(allocations_live == 0, "no leak", what);
    free(b.base);
}

/* Must be refused with the file's name, or work. */
static void must_survive(const void *data, size_t n, const char *what) {
    transformer_error error;
    block b = exact(data, n);
    peak_bytes = live_bytes;
    model_file *file = model_file_open_memory(b.data, n, NULL, &error);
    check(peak_bytes <= 2 * n + (1 << 20), "memory", what);
    if (file) check(runs(file, NULL, 1, &error), what, error.text);
    else check(error.status && strncmp(error.text, "memory: ", 8) == 0, what, error.text);
    model_file_close(file);
    check(allocations_live == 0, "no leak", what);
    free(b.base);
}

static model_file *open_or_die(const void *data, size_t n) {
    transformer_error error;
    model_file *file = model_file_open_memory(data, n, NULL, &error);
    check(file != NULL, "opens", error.text);
    if (!file) exit(test_finish());
    return file;
}

/* ---- metadata ---- */

static int same(model_file_string s, const char *text) {
    return s.length == strlen(text) && memcmp(s.text, text, s.length) == 0;
}

static void test_values(int version) {
    static const struct {
        const char *key;
        int type, bytes;
        uint64_t bits;
        int64_t value;
    } ints[] = {{"u8", MODEL_FILE_U8, 1, 200, 200},
                {"i8", MODEL_FILE_I8, 1, 200, -56},
                {"u16", MODEL_FILE_U16, 2, 60000, 60000},
                {"i16", MODEL_FILE_I16, 2, 60000, -5536},
                {"u32", MODEL_FILE_U32, 4, 4000000000u, 4000000000},
                {"i32", MODEL_FILE_I32, 4, 4000000000u, -294967296},
                {"bool", MODEL_FILE_BOOL, 1, 1, 1},
                {"u64", MODEL_FILE_U64, 8, (uint64_t)1 << 62, (int64_t)1 << 62},
                {"i64", MODEL_FILE_I64, 8, (uint64_t)-5, -5},
                {"i64 least", MODEL_FILE_I64, 8, (uint64_t)1 << 63, INT64_MIN}};
    const uint64_t dims[4] = {2, 3, 5, 4};
    const double pi = 3.14159265358979;
    model_file_options look = {0};
    transformer_error error;
    model_file_value v;
    model_file_string s;
    model_file_stored_tensor t;
    double d = 0;
    int64_t i64 = 0;
    size_t i, at = 0;
    look.only_look = 1;
    begin(version);
    w.align = 64;
    key_string("general.architecture", "of no one's");
    for (i = 0; i < sizeof ints / sizeof *ints; i++)
        key_int(ints[i].key, ints[i].type, ints[i].bits, ints[i].bytes);
    key_int("u64 most", MODEL_FILE_U64, UINT64_MAX, 8);
    key_float("f32", 1.5f);
    key("f64", MODEL_FILE_F64), put(&pi, 8);
    key_array("strings", MODEL_FILE_STRING, 3);
    put_string("one"), put_string(""), put_string("three");
    key_array("empty", MODEL_FILE_U16, 0);
    key_array("shorts", MODEL_FILE_I16, 3);
    put_int(7, 2), put_int(0xffff, 2), put_int(9, 2);
    key_array("nested", MODEL_FILE_ARRAY, 2);
    put_int(MODEL_FILE_U8, 4), put_int(3, 8), put_int(0x030201, 3);
    put_int(MODEL_FILE_STRING, 4), put_int(1, 8), put_string("x");
    key_int("general.alignment", MODEL_FILE_U32, 64, 4);
    tensor("b", 0, 4, dims, NULL, 480);
    tensor("a", 14, 1, (const uint64_t[]){256}, NULL, 210);
    tensor("c", 27, 1, dims, NULL, 16);
    end();
    block b = exact(w.bytes, w.n);
    model_file *file = model_file_open_memory(b.data, w.n, &look, &error);
    check(file != NULL, "opens", error.text);
    if (!file) return;
    const model_file_info *info = model_file_get_info(file);
    CHECK(strcmp(info->format, "GGUF") == 0 && strcmp(info->family, "of no one's") == 0);
    CHECK(info->n_metadata == w.n_keys && info->n_stored == 3 && info->n_tensors == 0);
    for (i = 0; i < sizeof ints / sizeof *ints; i++) {
        CHECK(model_file_find(file, ints[i].key, &v) && v.type == ints[i].type && v.n == 1);
        CHECK(model_file_int(&v, 0, &i64) && i64 == ints[i].value);
        CHECK(!model_file_int(&v, 1, &i64));
        CHECK(model_file_float(&v, 0, &d) == (ints[i].type != MODEL_FILE_BOOL));
        CHECK(ints[i].type == MODEL_FILE_BOOL || d == (double)ints[i].value);
        CHECK(!model_file_next_string(&v, &at, &s));
    }
    CHECK(model_file_find(file, "u64 most", &v) && !model_file_int(&v, 0, &i64));
    CHECK(model_file_find(file, "f32", &v) && model_file_float(&v, 0, &d) && d == 1.5);
    CHECK(!model_file_int(&v, 0, &i64));
    CHECK(model_file_find(file, "f64", &v) && model_file_float(&v, 0, &d) && d == pi);
    CHECK(model_file_find(file, "general.architecture", &v) && v.element == MODEL_FILE_STRING);
    CHECK(model_file_next_string(&v, &at, &s) && same(s, "of no one's"));
    CHECK(!model_file_next_string(&v, &at, &s));
    CHECK(model_file_find(file, "strings", &v) && v.n == 3 && v.type == MODEL_FILE_ARRAY);
    at = 0;
    CHECK(model_file_next_string(&v, &at, &s) && same(s, "one"));
    CHECK(model_file_next_string(&v, &at, &s) && same(s, ""));
    CHECK(model_file_next_string(&v, &at, &s) && same(s, "three"));
    CHECK(!model_file_next_string(&v, &at, &s) && !model_file_int(&v, 0, &i64));
    CHECK(model_file_find(file, "empty", &v) && v.n == 0 && !model_file_int(&v, 0, &i64));
    CHECK(model_file_find(file, "shorts", &v) && v.n == 3 && v.bytes == 6);
    CHECK(model_file_int(&v, 1, &i64) && i64 == -1 && model_file_int(&v, 2, &i64) && i64 == 9);
    CHECK(model_file_find(file, "nested", &v) && v.n == 2 && v.element == MODEL_FILE_ARRAY);
    CHECK(v.bytes == 12 + 3 + 12 + 9 && !model_file_int(&v, 0, &i64));
    CHECK(!model_file_find(file, "no such", &v) && !model_file_find(NULL, "u8", &v));
    CHECK(!model_file_metadata(file, info->n_metadata, &v) && !model_file_metadata(NULL, 0, &v));
    CHECK(model_file_stored(file, 0, &t) && same(t.name, "a") && strcmp(t.type, "Q6_K") == 0);
    CHECK(t.gguf_type == 14 && t.bytes == 210 && t.n_dims == 1 && t.dims[0] == 256);
    CHECK(model_file_stored(file, 1, &t) && same(t.name, "b") && t.n_dims == 4 && t.bytes == 480);
    CHECK(memcmp(t.dims, dims, sizeof dims) == 0 && t.dtype == TRANSFORMER_F32);
    CHECK(model_file_stored(file, 2, &t) && strcmp(t.type, "I64") == 0 && t.dtype == -1);
    CHECK(!model_file_stored(file, 3, &t));
    CHECK(model_file_bind(file, NULL, NULL) == TRANSFORMER_ARGUMENT);
    CHECK(!model_file_tensor(file, TRANSFORMER_EMBEDDING, 0));
    model_file_close(file);
    free(b.base);
    must_fail(w.bytes, w.n, "an unknown architecture", "general.architecture", "of no one's");
    CHECK(allocations_live == 0);
    GROUP("metadata of every type, version %d", version);
}

/* ---- the header ---- */

static void test_headers(void) {
    static const uint32_t versions[] = {0, 1, 4, 0xffffffffu, 0x03000000u, 0x02000000u};
    const uint64_t dims[1] = {8};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        begin((int)versions[i]);
        end();
        must_fail(w.bytes, w.n, "version", i < 4 ? "GGUF version" : "big-endian", "memory");
    }
    begin(3);
    end();
    must_fail(w.bytes, w.n, "no keys", "general.architecture is missing", "");
    begin(3);
    key_string("general.architecture", "llama"), key_string("general.architecture", "llama");
    end();
    must_fail(w.bytes, w.n, "a key twice", "general.architecture is there twice", "");
    begin(3);
    key_int("general.architecture", MODEL_FILE_U32, 1, 4);
    end();
    must_fail(w.bytes, w.n, "no string", "general.architecture", "string");
    for (int align = 0; align <= 48; align += 24) {
        begin(3);
        key_int("general.alignment", MODEL_FILE_U32, (uint64_t)align, 4);
        end();
        must_fail(w.bytes, w.n, "alignment", "general.alignment", "power of two");
    }
    begin(3);
    tensor("x", 0, 1, dims, NULL, 32), tensor("x", 0, 1, dims, NULL, 32);
    end();
    must_fail(w.bytes, w.n, "a tensor twice", "'x'", "twice");
    begin(3);
    tensor("x", 36, 1, dims, NULL, 32);
    end();
    must_fail(w.bytes, w.n, "a type that is not there", "'x'", "36");
    begin(3);
    tensor("x", 2, 1, dims, NULL, 32);
    end();
    must_fail(w.bytes, w.n, "part of a block", "'x'", "whole blocks");
    begin(3);
    w.align = 1;
    tensor("w", 0, 1, dims, NULL, 33), tensor("x", 0, 1, dims, NULL, 32);
    end();
    must_fail(w.bytes, w.n, "offset", "'x'", "general.alignment");
    begin(3);
    key_array("deep", MODEL_FILE_ARRAY, 1);
    for (int i = 0; i < 9; i++) put_int(MODEL_FILE_ARRAY, 4), put_int(1, 8);
    put_int(MODEL_FILE_U8, 4), put_int(0, 8);
    end();
    must_fail(w.bytes, w.n, "nesting", "'deep'", "too deeply");
    must_fail("GGUF", 4, "a stub", "header", "ends");
    CHECK(!model_file_open_memory(NULL, 5, NULL, NULL));
    CHECK(!model_file_open_memory("GGUF", 0, NULL, NULL));
    GROUP("headers");
}

/* ---- changes to a good model ---- */

static char *good; /* tests/gguf/llama.gguf */
static size_t n_good;

/* The good model without a key and a tensor, open for more keys. */
static void change(const char *without, const char *without_tensor) {
    model_file *file = open_or_die(good, n_good);
    begin(3);
    copy_keys(file, without);
    copy_tensors(file, 0, SIZE_MAX, without_tensor);
    model_file_close(file);
}

/* The file in w runs and gives these logits. */
static void must_give(const float *before) {
    static float after[256];
    transformer_error error;
    model_file *file = open_or_die(w.bytes, w.n);
    CHECK(runs(file, after, 0, &error));
    CHECK(memcmp(before, after, (size_t)model_file_config(file)->vocab_size * sizeof *after) == 0);
    model_file_close(file);
}

/* llama.feed_forward_length as a list. */
static void change_widths(int n, int first, int step) {
    change("llama.feed_forward_length", "");
    key_array("llama.feed_forward_length", MODEL_FILE_I32, (uint64_t)n);
    for (int l = 0; l < n; l++) put_int((uint64_t)(first + l * step), 4);
    end();
}

static void test_keys(void) {
    static const char *const required[] = {
        "llama.block_count",          "llama.context_length",
        "llama.embedding_length",     "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
        "general.architecture"};
    static const char *const refused[] = {
        "llama.attention.sliding_window", "llama.expert_count", "llama.new_thing",
        "llama.attention.scale",          "llama.logit_scale",  "llama.rope.dimension_sections"};
    static float before[256];
    transformer_error error;
    size_t i;
    model_file *file = open_or_die(good, n_good);
    CHECK(runs(file, before, 0, &error));
    const transformer_config c = *model_file_config(file);
    model_file_close(file);
    for (i = 0; i < sizeof required / sizeof *required; i++) {
        change(required[i], "");
        end();
        must_fail(w.bytes, w.n, required[i], required[i], "missing");
        change(required[i], "");
        key_array(required[i], MODEL_FILE_F32, 0);
        end();
        must_fail(w.bytes, w.n, required[i], required[i], "");
    }
    for (i = 0; i < sizeof refused / sizeof *refused; i++) {
        change("", "");
        key_int(refused[i], MODEL_FILE_U32, 2, 4);
        end();
        must_fail(w.bytes, w.n, refused[i], refused[i], "not supported");
    }
    change("", ""); /* said with what changes nothing */
    key_int("llama.expert_count", MODEL_FILE_U32, 0, 4);
    key_int("llama.attention.causal", MODEL_FILE_BOOL, 1, 1);
    key_int("other.new_thing", MODEL_FILE_U32, 9, 4);
    end();
    must_survive(w.bytes, w.n, "harmless keys");
    must_give(before);
    /* a list with the same number for each layer is that number; other lists do not fit the tensors */
    change_widths(c.n_layers, c.mlp_dim, 0);
    must_give(before);
    change_widths(c.n_layers, c.mlp_dim, -1);
    must_fail(w.bytes, w.n, "a list", "blk.1.ffn_", "shape");
    change_widths(1, c.mlp_dim, 0);
    must_fail(w.bytes, w.n, "a short list", "llama.feed_forward_length", "each layer");
    change("", "blk.1.ffn_down.weight");
    end();
    must_fail(w.bytes, w.n, "a tensor is missing", "blk.1.ffn_down.weight", "missing");
    change("", "token_embd.weight");
    end();
    must_fail(w.bytes, w.n, "no embedding", "token_embd.weight", "missing");
    change("", "");
    tensor("blk.0.ffn_gate_exps.weight", 0, 1, (const uint64_t[]){4}, NULL, 16);
    end();
    must_fail(w.bytes, w.n, "a tensor too many", "blk.0.ffn_gate_exps.weight", "llama");
    GROUP("keys and tensors that are missing, or not understood");
}

/* ---- types of weights ---- */

/* Where a block has its scale, and its minimum's (-1: none): they are set to sane values, the rest is random. */
static const struct {
    int type, scale, minimum;
} runnable[] = {
    {TRANSFORMER_F32, -1, -1},   {TRANSFORMER_F16, -1, -1},   {TRANSFORMER_BF16, -1, -1},
    {TRANSFORMER_Q4_0, 0, -1},   {TRANSFORMER_Q4_1, 0, 2},    {TRANSFORMER_Q5_0, 0, -1},
    {TRANSFORMER_Q5_1, 0, 2},    {TRANSFORMER_Q8_0, 0, -1},   {TRANSFORMER_Q2_K, 80, 82},
    {TRANSFORMER_Q3_K, 108, -1}, {TRANSFORMER_Q4_K, 0, 2},    {TRANSFORMER_Q5_K, 0, 2},
    {TRANSFORMER_Q6_K, 208, -1}, {TRANSFORMER_IQ4_NL, 0, -1}, {TRANSFORMER_IQ4_XS, 0, -1},
    {TRANSFORMER_MXFP4, 0, -1},  {TRANSFORMER_TQ1_0, 52, -1}, {TRANSFORMER_TQ2_0, 64, -1}};
enum { N_RUNNABLE = (int)(sizeof runnable / sizeof *runnable), DIM = 256, TYPES_VOCAB = 9 };

/* A model with a matrix of a type that does not run is refused with the names of both. */
static void with_type(int type, const char *name) {
    static unsigned char bytes[1 << 17];
    char *at = NULL;
    memcpy(bytes, good, n_good);
    for (size_t i = 0; i + 24 < n_good && !at; i++)
        if (memcmp(bytes + i, "blk.0.ffn_up.weight", 19) == 0) at = (char *)bytes + i + 19;
    CHECK(at != NULL);
    if (!at) return;
    at[4 + 16] = (char)type; /* behind the number of dimensions and two of them */
    must_fail(bytes, n_good, "a type that does not run", "blk.0.ffn_up.weight", name);
}

static void test_types(void) {
    static const int others[] = {9, 15, 16, 17, 18, 19, 21, 22, 24, 25, 26, 27, 28, 29, 40, 41, 42};
    const uint64_t dims[2] = {2, DIM};
    static unsigned char zeros[2 * DIM * 8];
    model_file_options look = {0};
    transformer_error error;
    model_file_stored_tensor t;
    look.only_look = 1;
    for (size_t i = 0; i < N_RUNNABLE + sizeof others / sizeof *others; i++) {
        int type = i < N_RUNNABLE ? runnable[i].type : others[i - N_RUNNABLE];
        begin(3);
        tensor("x", type, 2, dims, zeros, sizeof zeros);
        end();
        model_file *file = model_file_open_memory(w.bytes, w.n, &look, &error);
        check(file && model_file_stored(file, 0, &t) && t.gguf_type == type, "type", error.text);
        if (!file) continue;
        CHECK(t.dtype == (i < N_RUNNABLE ? type : -1)); /* both have GGUF's numbers */
        CHECK(strcmp(t.type, transformer_dtype_name(type)) == 0);
        CHECK(i >= N_RUNNABLE || t.bytes == 2 * transformer_row_size(type, DIM));
        model_file_close(file);
        if (i >= N_RUNNABLE) with_type(type, transformer_dtype_name(type));
    }
    for (unsigned type = 99; type; type = type == 99 ? 0xfffffffeu : 0) { /* numbers of no type */
        begin(3);
        tensor("x", (int)type, 2, dims, zeros, sizeof zeros);
        end();
        must_fail(w.bytes, w.n, "no type", "'x'", "is not known");
        model_file *file = model_file_open_memory(w.bytes, w.n, &look, &error);
        check(file && model_file_stored(file, 0, &t) && strcmp(t.type, "unknown") == 0 &&
                  t.gguf_type == (type == 99 ? 99 : -1) && t.bytes == 0 && t.dims[1] == DIM,
              "no type", error.text);
        model_file_close(file);
    }
    GROUP("types: names and sizes");
}

/* Random rows of the type; F32, F16 and BF16 between -0.5 and 0.5, or near 0.2. */
static void random_rows(int i, uint32_t seed, size_t rows, unsigned char *out) {
    int type = runnable[i].type;
    size_t unit = transformer_dtype_size(type), n = rows * transformer_row_size(type, DIM);
    for (size_t b = 0; b < n; b++) out[b] = (unsigned char)(test_hash(seed + (uint32_t)b) >> 9);
    for (size_t b = 0; b < n; b += unit) {
        float f = test_noise(seed + (uint32_t)b);
        if (type == TRANSFORMER_F32) memcpy(out + b, &f, 4);
        else if (type == TRANSFORMER_F16) out[b + 1] = (unsigned char)(0x30 | (out[b + 1] & 0x81));
        else if (type == TRANSFORMER_BF16) out[b + 1] = (unsigned char)(0x3e | (out[b + 1] & 0x80));
        else if (type == TRANSFORMER_MXFP4) out[b] = 124;
        else out[b + (size_t)runnable[i].scale + 1] = (unsigned char)(unit > 40 ? 0x0c : 0x20);
        if (runnable[i].minimum >= 0) out[b + (size_t)runnable[i].minimum + 1] = 0x10;
    }
}

/* A Llama of one layer whose matrices are of that type, or the same weights decoded to F32.  The first has queries,
 * keys and values in one tensor, the second in three. */
static void types_model(int i, int decoded) {
    static const struct {
        const char *name;
        int rows; /* 0 = a vector */
    } parts[] = {{"token_embd.weight", TYPES_VOCAB}, {"blk.0.attn_norm.weight", 0},
                 {"blk.0.attn_q.weight", DIM},       {"blk.0.attn_k.weight", DIM / 2},
                 {"blk.0.attn_v.weight", DIM / 2},   {"blk.0.attn_output.weight", DIM},
                 {"blk.0.ffn_norm.weight", 0},       {"blk.0.ffn_gate.weight", DIM},
                 {"blk.0.ffn_up.weight", DIM},       {"blk.0.ffn_down.weight", DIM},
                 {"output_norm.weight", 0}};
    static unsigned char pool[8 * DIM * DIM * 4];
    static float floats[8 * DIM * DIM], ones[DIM];
    unsigned char *p = pool;
    float *f = floats;
    begin(3);
    key_string("general.architecture", "llama");
    key_int("llama.block_count", MODEL_FILE_U32, 1, 4);
    key_int("llama.context_length", MODEL_FILE_U32, 64, 4);
    key_int("llama.embedding_length", MODEL_FILE_U32, DIM, 4);
    key_int("llama.feed_forward_length", MODEL_FILE_U32, DIM, 4);
    key_int("llama.attention.head_count", MODEL_FILE_U32, 4, 4);
    key_int("llama.attention.head_count_kv", MODEL_FILE_U32, 2, 4);
    key_float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (int k = 0; k < DIM; k++) ones[k] = 1 + test_noise((uint32_t)k);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        const uint64_t dims[2] = {(uint64_t)parts[k].rows, DIM}, vector[1] = {DIM},
                       qkv[2] = {2 * DIM, DIM};
        size_t rows = (size_t)parts[k].rows,
               size = rows * transformer_row_size(runnable[i].type, DIM);
        transformer_tensor t;
        if (rows == 0) {
            tensor(parts[k].name, 0, 1, vector, ones, sizeof ones);
            continue;
        }
        random_rows(i, (uint32_t)k << 20, rows, p);
        t.data = p, t.dtype = runnable[i].type, t.rows = parts[k].rows, t.cols = DIM;
        if (decoded) {
            CHECK(!transformer_decode(f, &t, 0, t.rows));
            tensor(parts[k].name, 0, 2, dims, f, rows * DIM * sizeof *f);
        } else if (k == 2) {
            tensor("blk.0.attn_qkv.weight", runnable[i].type, 2, qkv, p, 2 * size);
        } else if (k != 3 && k != 4) {
            tensor(parts[k].name, runnable[i].type, 2, dims, p, size);
        }
        p += size, f += rows * DIM;
    }
    end();
}

static double nmse(const float *a, const float *b, int n) {
    double error = 0, power = 0;
    for (int i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        power += (double)b[i] * (double)b[i];
    }
    return power > 0 && error <= 1e30 ? error / power : 1e30;
}

static void test_weights(void) {
    transformer_error error;
    double worst = 0, worst_fast = 0;
    for (int i = 0; i < N_RUNNABLE; i++) {
        float want[TYPES_VOCAB], have[TYPES_VOCAB], fast[TYPES_VOCAB];
        types_model(i, 1);
        model_file *file = open_or_die(w.bytes, w.n);
        CHECK(runs(file, want, 1, &error));
        model_file_close(file);
        types_model(i, 0);
        file = open_or_die(w.bytes, w.n);
        const char *name = transformer_dtype_name(runnable[i].type);
        check(runs(file, have, 1, &error) && runs(file, fast, 0, &error), name, error.text);
        const transformer_tensor *v = model_file_tensor(file, TRANSFORMER_V, 0);
        CHECK(v && v->dtype == runnable[i].type && v->rows == DIM / 2);
        CHECK(model_file_get_info(file)->copied_bytes == 0);
        model_file_close(file);
        double d = nmse(have, want, TYPES_VOCAB), e = nmse(fast, want, TYPES_VOCAB);
        check(d <= 1e-9, name, "full precision");
        check(e <= 1e-2, name, "8-bit activations");
        worst = d > worst ? d : worst, worst_fast = e > worst_fast ? e : worst_fast;
    }
    GROUP("weights of every type: NMSE against decoded ones %.1e, with 8-bit activations %.1e",
          worst, worst_fast);
}

/* Architectures that compute what another one does: the same file under the other name gives the same bits. */
static void test_names(void) {
    static const char *const names[][3] = {{"llama", "llama", "internlm2"},
                                           {"llama", "llama", "xverse"},
                                           {"llama", "llama", "baichuan"},
                                           {"llama", "llama", "mistral3"},
                                           {"stablelm", "stablelm", "orion"}};
    transformer_error error;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        static float one[256], other[256];
        char path[120];
        model_file_value v;
        snprintf(path, sizeof path, "tests/gguf/%s.gguf", names[i][0]);
        model_file *file = model_file_open(path, NULL, &error);
        check(file && runs(file, one, 1, &error), path, error.text);
        if (!file) continue;
        begin(3);
        for (size_t k = 0, n = strlen(names[i][1]); model_file_metadata(file, k, &v); k++) {
            char text[100];
            if (v.type == MODEL_FILE_ARRAY) continue; /* the vocabulary */
            if (v.key.length > n && memcmp(v.key.text, names[i][1], n) == 0)
                snprintf(text, sizeof text, "%s%.*s", names[i][2], (int)(v.key.length - n),
                         v.key.text + n);
            else snprintf(text, sizeof text, "%.*s", (int)v.key.length, v.key.text);
            if (strcmp(text, "general.architecture") == 0) {
                key_string(text, names[i][2]);
                continue;
            }
            key(text, v.type);
            put(v.data, v.bytes);
        }
        copy_tensors(file, 0, SIZE_MAX, "");
        end();
        model_file *renamed = model_file_open_memory(w.bytes, w.n, NULL, &error);
        check(renamed && runs(renamed, other, 1, &error), names[i][2], error.text);
        size_t n = (size_t)model_file_config(file)->vocab_size;
        check(memcmp(one, other, n * sizeof *one) == 0, names[i][2], "the same bits");
        model_file_close(renamed);
        model_file_close(file);
    }
    GROUP("architectures that are others under another name");
}

/* ---- split files ---- */

/* Part no of 3 with the given numbers in it. */
static void make_part(int no, int said_no, int said_count, int said_tensors) {
    static const size_t cut[] = {0, 3, 11, SIZE_MAX};
    char name[40];
    model_file *file = open_or_die(good, n_good);
    begin(3);
    if (no == 0) copy_keys(file, "");
    key_int("split.no", MODEL_FILE_U16, (uint64_t)said_no, 2);
    key_int("split.count", MODEL_FILE_U16, (uint64_t)said_count, 2);
    key_int("split.tensors.count", MODEL_FILE_I32,
            said_tensors ? (uint64_t)said_tensors : model_file_get_info(file)->n_stored, 4);
    copy_tensors(file, cut[no], cut[no + 1], "");
    end();
    model_file_close(file);
    snprintf(name, sizeof name, "m-%05d-of-00003.gguf", no + 1);
    write_file(name, w.bytes, w.n);
}

static void split_fails(const char *name, const char *what, const char *word, const char *word2) {
    transformer_error error;
    model_file *file = model_file_open(path_of(name), NULL, &error);
    check(!file && strstr(error.text, word) && strstr(error.text, word2), what, error.text);
    model_file_close(file);
    CHECK(allocations_live == 0);
}

static void test_split(void) {
    static float one[256], three[256];
    static const char *const names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                        "m-00003-of-00003.gguf"};
    char from[400];
    transformer_error error;
    model_file *file = open_or_die(good, n_good);
    size_t row = (size_t)model_file_config(file)->vocab_size * sizeof(float);
    CHECK(runs(file, one, 0, &error));
    model_file_close(file);
    for (int i = 0; i < 3; i++) make_part(i, i, 3, 0);
    for (int i = 0; i < 3; i++) {
        file = model_file_open(path_of(names[i]), NULL, &error);
        check(file && runs(file, three, 0, &error), names[i], error.text);
        CHECK(memcmp(one, three, row) == 0);
        CHECK(file && model_file_get_info(file)->copied_bytes == 0);
        model_file_close(file);
    }
    make_part(1, 2, 3, 0);
    split_fails(names[0], "wrong number", "m-00002-of-00003.gguf", "split.no");
    make_part(1, 1, 4, 0);
    split_fails(names[0], "wrong count", "m-00002-of-00003.gguf", "split.count");
    make_part(1, 1, 3, 0);
    make_part(0, 0, 3, 5);
    split_fails(names[0], "wrong number of tensors", "split.tensors.count", "5");
    make_part(0, 0, 3, 0);
    snprintf(from, sizeof from, "%s", path_of(names[0]));
    rename(from, path_of("alone.gguf"));
    file = model_file_open(path_of("alone.gguf"), NULL, &error);
    check(!file && strstr(error.text, "split.count"), "a part under another name", error.text);
    split_fails("m-00003-of-00003.gguf", "the first is missing", "m-00001-of-00003.gguf", "opened");
    make_part(0, 0, 3, 0);
    unlink(path_of(names[1]));
    split_fails(names[0], "the second is missing", "m-00002-of-00003.gguf", "opened");
    for (int i = 0; i < 3; i++) unlink(path_of(names[i]));
    unlink(path_of("alone.gguf"));
    GROUP("split files");
}

/* ---- spoilt files ---- */

enum { MAX_FIELDS = 4096 };

typedef struct fields {
    size_t at[MAX_FIELDS], n, header;
} fields;

/* Where the header's 4- and 8-byte fields start: a reader of its own, for good files only. */
static uint64_t field(const unsigned char *p, size_t *at, int bytes, fields *f) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[*at + (size_t)i];
    if (f->n < MAX_FIELDS) f->at[f->n++] = *at;
    *at += (size_t)bytes;
    return v;
}

static void find_fields(const unsigned char *p, fields *f) {
    static const unsigned char sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    size_t at = 0;
    f->n = 0;
    field(p, &at, 4, f), field(p, &at, 4, f);
    uint64_t n_tensors = field(p, &at, 8, f), n_keys = field(p, &at, 8, f);
    for (uint64_t i = 0; i < n_keys; i++) {
        size_t length = (size_t)field(p, &at, 8, f);
        at += length;
        uint64_t type = field(p, &at, 4, f), n = 1;
        if (type == 9) type = field(p, &at, 4, f), n = field(p, &at, 8, f);
        if (n > 1 && sizes[type]) {
            field(p, &at, sizes[type], f);
            at += (size_t)(n - 1) * sizes[type];
        }
        for (uint64_t k = 0; n == 1 && sizes[type] && k < n; k++) field(p, &at, sizes[type], f);
        for (uint64_t k = 0; type == 8 && k < n; k++) {
            size_t text = (size_t)field(p, &at, 8, f);
            at += text;
        }
    }
    for (uint64_t i = 0; i < n_tensors; i++) {
        size_t length = (size_t)field(p, &at, 8, f);
        at += length;
        uint64_t n_dims = field(p, &at, 4, f);
        for (uint64_t d = 0; d < n_dims; d++) field(p, &at, 8, f);
        field(p, &at, 4, f), field(p, &at, 8, f);
    }
    f->header = at;
}

static const uint64_t extremes[] = TEST_EXTREMES;

static void spoil(const char *name) {
    static fields f;
    char path[300];
    size_t n, i;
    snprintf(path, sizeof path, "tests/gguf/%s.gguf", name);
    char *image = test_read_file(path, &n);
    check(image != NULL, name, "cannot be read");
    if (!image) return;
    find_fields((const unsigned char *)image, &f);
    for (i = 1; i < n; i += i < f.header + 64 ? 1 : TEST_STEP) must_survive(image, i, name);
    for (i = n - 40; i < n; i++) must_survive(image, i, name);
    for (i = 0; i < f.n; i++)
        for (size_t k = 0; k < 2 * sizeof extremes / sizeof *extremes; k++) {
            size_t bytes = k & 1 ? 8 : 4;
            char kept[8], what[120];
            memcpy(kept, image + f.at[i], 8);
            memcpy(image + f.at[i], &extremes[k / 2], bytes);
            snprintf(what, sizeof what, "%s, byte %lu = 0x%llx (%d bytes)", name,
                     (unsigned long)f.at[i], (unsigned long long)extremes[k / 2], (int)bytes);
            must_survive(image, n, what);
            memcpy(image + f.at[i], kept, 8);
        }
    free(image);
}

static void spoil_line(char *line, const void *unused) {
    (void)unused;
    line[strcspn(line, " ")] = 0;
    spoil(line);
}

static void test_spoilt(void) {
    int n = test_each_line("tests/gguf/index.txt", spoil_line, NULL);
    CHECK(n > 40);
    GROUP("%d files: cut at every byte before the tensors, every %d behind; every field", n,
          TEST_STEP);
}

int main(void) {
    good = test_read_file("tests/gguf/llama.gguf", &n_good);
    if (!good) {
        fprintf(stderr, "tests/gguf/llama.gguf cannot be read (run from the project's root)\n");
        return 1;
    }
    make_dir();
    test_values(2);
    test_values(3);
    test_headers();
    test_keys();
    test_types();
    test_weights();
    test_names();
    test_split();
    test_spoilt();
    rmdir(dir);
    free(good);
    return test_finish();
}
