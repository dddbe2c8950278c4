/* The quantised block formats: decoding against checksums of what the Python package gguf decodes
 * (make_quant_goldens.py); the vector unpackers against the scalar one, bit for bit; products with
 * 8-bit activations in every row, at any number of rows and tokens; the full-precision path against
 * decoded weights; refusals. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "blocks.h"
#include "test.h"

enum { BLOCKS = 100000, TOKENS = 13, MAX_ROWS = 150, MAX_COLS = 4608 };

static const struct {
    int dtype;
    uint64_t sum;
} goldens[] = {{TRANSFORMER_Q4_0, 0x6b1f558feaa44400u},   {TRANSFORMER_Q4_1, 0x0770066b8e3b09beu},
               {TRANSFORMER_Q5_0, 0xe3389a6aa134ca00u},   {TRANSFORMER_Q5_1, 0x99d334eef2b2fd48u},
               {TRANSFORMER_Q8_0, 0xb29ecf9fa35b11c0u},   {TRANSFORMER_Q2_K, 0xc13eaa3cc972ddb8u},
               {TRANSFORMER_Q3_K, 0x526305b3359449c0u},   {TRANSFORMER_Q4_K, 0x556dfd210bf1865du},
               {TRANSFORMER_Q5_K, 0x17142cbaa1bec40bu},   {TRANSFORMER_Q6_K, 0x5f385074f651a0c6u},
               {TRANSFORMER_IQ4_NL, 0x831134cdf7545780u}, {TRANSFORMER_IQ4_XS, 0x481e3f6b224a926au},
               {TRANSFORMER_MXFP4, 0x8e4080aa80400000u},  {TRANSFORMER_TQ1_0, 0xa5157f97a7f40000u},
               {TRANSFORMER_TQ2_0, 0x8cb9ec3e3b266000u}};
enum { N_TYPES = sizeof goldens / sizeof goldens[0] };

/* ---- blocks ---- */

static void test_decode(void) {
    static const uint16_t special[8] = {0x0000, 0x8000, 0x0001, 0x83FF,
                                        0x7C00, 0xFC00, 0x7E00, 0x7BFF};
    for (int g = 0; g < N_TYPES; g++) {
        const tfi_format *f = tfi_format_of(goldens[g].dtype);
        size_t size = (size_t)f->size;
        unsigned char *blocks = (unsigned char *)malloc(BLOCKS * size);
        float *row = (float *)malloc((size_t)f->block * sizeof(float));
        transformer_tensor t;
        uint64_t sum = 0, at = 0;
        random_bytes(blocks, BLOCKS * size, (uint64_t)f->dtype);
        for (int i = 0; i < BLOCKS; i++) {
            unsigned char *b = blocks + (size_t)i * size;
            for (int which = 0; which < 2 && i % 16 == 0; which++)
                set_scale(f, b, which, special[(i / 16 >> 3 * which) % 8]);
        }
        t.data = blocks, t.dtype = f->dtype, t.rows = BLOCKS, t.cols = f->block;
        for (int i = 0; i < BLOCKS; i++) {
            transformer_decode(row, &t, i, 1);
            for (int j = 0; j < f->block; j++) {
                uint32_t bits = tfi_float_to_bits(row[j]);
                if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;
                sum += bits * (2 * at++ + 1);
            }
        }
        CHECK(sum == goldens[g].sum);
        free(blocks), free(row);
    }
    GROUP("decode: %d types, %d blocks each, as the Python package gguf", N_TYPES, BLOCKS);
}

/* ---- products ---- */

typedef struct problem {
    const tfi_format *f;
    int rows, cols;
    unsigned char *weights;
    float *decoded, *x, *want; /* want: in double, rounded */
} problem;

/* Every code all ones, or all zeros, and every activation the largest or the smallest of its block: the sums of
 * integers are as large as they can be. */
static void make_extreme(problem *p, int kind) {
    size_t size = (size_t)p->f->size, n = (size_t)p->rows * (size_t)(p->cols / p->f->block);
    for (size_t i = 0; i < n; i++) {
        unsigned char *block = p->weights + i * size;
        memset(block, kind & 1 ? 0xff : 0, size);
        set_scale(p->f, block, 0, tfi_to_f16(0.01f)), set_scale(p->f, block, 1, tfi_to_f16(0.02f));
        if (p->f->dtype == TRANSFORMER_MXFP4) block[0] = 120;
    }
    for (int i = 0; i < TOKENS * p->cols; i++) p->x[i] = kind & 2 ? -1.0f : 1.0f;
}

/* extreme: -1 = random, else see make_extreme. */
static void make_problem(problem *p, const tfi_format *f, int rows, int cols, int extreme) {
    transformer_tensor t;
    size_t row = transformer_row_size(f->dtype, cols);
    p->f = f, p->rows = rows, p->cols = cols;
    p->weights = (unsigned char *)malloc((size_t)rows * row); /* sanitizers see what is behind it */
    p->decoded = (float *)malloc((size_t)rows * (size_t)cols * sizeof(float));
    p->x = (float *)malloc((size_t)TOKENS * (size_t)cols * sizeof(float));
    p->want = (float *)malloc((size_t)TOKENS * (size_t)rows * sizeof(float));
    make_rows(f, p->weights, rows, cols, (uint64_t)(f->dtype * 1000 + cols));
    t.data = p->weights, t.dtype = f->dtype, t.rows = rows, t.cols = cols;
    for (int i = 0; i < TOKENS * cols; i++)
        p->x[i] = test_noise((uint32_t)i) + test_noise((uint32_t)i + 77777u) +
                  test_noise((uint32_t)i + 5555555u);
    if (extreme >= 0) make_extreme(p, extreme);
    CHECK(transformer_decode(p->decoded, &t, 0, rows) == TRANSFORMER_OK);
    for (int i = 0; i < TOKENS; i++)
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int j = 0; j < cols; j++)
                sum += (double)p->decoded[r * cols + j] * (double)p->x[i * cols + j];
            p->want[i * rows + r] = (float)sum;
        }
}

static void free_problem(problem *p) {
    free(p->weights), free(p->decoded), free(p->x), free(p->want);
}

static void *allocate64(size_t size, void **to_free) {
    *to_free = malloc(size + 64);
    return (char *)*to_free + (64 - (uintptr_t)*to_free % 64) % 64;
}

/* Rows first .. first + count - 1 times tokens from .. from + n - 1. */
static void multiply(const tfi_kernels *k, const problem *p, int first, int count, int from, int n,
                     float *out) {
    void *free_panels, *free_scratch;
    size_t bytes = tfi_act_bytes(TFI_ACT_INT8, p->cols);
    size_t row = transformer_row_size(p->f->dtype, p->cols);
    unsigned char *panels =
        (unsigned char *)allocate64(bytes * (size_t)(n + TFI_MAX_TILE), &free_panels);
    void *scratch = allocate64(tfi_product_scratch(p->cols), &free_scratch);
    tfi_pack_panels(k, TFI_ACT_INT8, panels, p->x + from * p->cols, p->cols, n, p->cols, 0,
                    (n + k->few - 1) / k->few);
    k->blocks(p->f, p->weights + (size_t)first * row, row, count, panels, n, p->cols, out,
              (size_t)p->rows, scratch);
    free(free_panels), free(free_scratch);
}

static void check_products(const tfi_kernels *k, const problem *p, double *worst) {
    static float all[TOKENS * MAX_ROWS], some[TOKENS * MAX_ROWS];
    double error = 0, size = 0;
    multiply(k, p, 0, p->rows, 0, TOKENS, all);
    for (int i = 0; i < TOKENS * p->rows; i++) {
        error += ((double)all[i] - (double)p->want[i]) * ((double)all[i] - (double)p->want[i]);
        size += (double)p->want[i] * (double)p->want[i];
    }
    CHECK(error <= 5e-4 * size);
    if (size > 0 && error / size > *worst) *worst = error / size;
    for (int n = 1; n < TOKENS; n++) { /* any part of the tokens, any part of the rows */
        int first = n % p->rows, count = p->rows - first, same = 1;
        multiply(k, p, first, count, TOKENS - n, n, some);
        for (int t = 0; t < n; t++)
            same &= memcmp(some + t * p->rows, all + (TOKENS - n + t) * p->rows + first,
                           (size_t)count * sizeof(float)) == 0;
        CHECK(same);
    }
}

/* A NaN or an infinity among 32 activations makes every product with them a NaN, and no other. */
static void check_odd(const tfi_kernels *k, problem *p) {
    static float out[2 * MAX_ROWS];
    float *spoiled = p->x + p->cols - 1, before = *spoiled;
    for (int kind = 0; kind < 2; kind++) {
        *spoiled = tfi_bits_to_float(kind ? 0x7fc00000u : 0x7f800000u);
        multiply(k, p, 0, p->rows, 0, 2, out);
        for (int r = 0; r < p->rows; r++) {
            CHECK((tfi_float_to_bits(out[r]) & 0x7fffffffu) > 0x7f800000u);
            CHECK((tfi_float_to_bits(out[p->rows + r]) & 0x7fffffffu) < 0x7f800000u);
        }
        multiply(k, p, 0, p->rows, 0, 1, out);
        for (int r = 0; r < p->rows; r++) CHECK(!(out[r] - out[r] == 0));
    }
    *spoiled = before;
}

/* Activations times a power of two make products times that power, however small or large their scales become. */
static void check_powers(const tfi_kernels *k, const problem *p) {
    static const float powers[] = {1 / 1048576.0f,
                                   16777216.0f}; /* of two: scales of 1e-8 and 2e5 */
    static float before[2 * MAX_ROWS], after[2 * MAX_ROWS];
    problem scaled = *p;
    scaled.x = (float *)malloc((size_t)(2 * p->cols) * sizeof(float));
    multiply(k, p, 0, p->rows, 0, 2, before);
    for (int i = 0; i < 2; i++) {
        int same = 1;
        for (int j = 0; j < 2 * p->cols; j++) scaled.x[j] = p->x[j] * powers[i];
        multiply(k, &scaled, 0, p->rows, 0, 2, after);
        for (int j = 0; j < 2 * p->rows; j++) same &= after[j] == before[j] * powers[i];
        CHECK(same);
    }
    free(scaled.x);
}

/* Numbers that are none in every second row stay there: a vector may reach into the next row. */
static void check_neighbours(const tfi_kernels *k, problem *p) {
    static float before[7 * MAX_ROWS], after[7 * MAX_ROWS];
    size_t row = transformer_row_size(p->f->dtype, p->cols), size = row * (size_t)p->rows;
    void *copy = malloc(size);
    memcpy(copy, p->weights, size);
    for (int n = 1; n <= 7; n += 3) {
        multiply(k, p, 0, p->rows, 0, n, before);
        for (int r = 1; r < p->rows; r += 2) memset(p->weights + (size_t)r * row, 0xff, row);
        multiply(k, p, 0, p->rows, 0, n, after);
        memcpy(p->weights, copy, size);
        for (int i = 0; i < n * p->rows; i++) {
            int odd = i % p->rows % 2, none = !(after[i] - after[i] == 0);
            CHECK(odd ? none : memcmp(&after[i], &before[i], sizeof(float)) == 0);
        }
    }
    free(copy);
}

static void test_products(void) {
    static const int shapes[][2] = {{1, 32},   {3, 64},   {50, 288}, {41, 96},  {33, 256},
                                    {4, 512},  {7, 768},  {6, 2304}, {17, 544}, {5, 4608},
                                    {2, 2048}, {150, 32}, {70, 480}, {5, 288}};
    for (int i = 0; tfi_rows[i]; i++) {
        const tfi_kernels *k = tfi_rows[i];
        double worst = 0;
        if ((k->needs & tfi_cpu()) != k->needs) {
            SKIP("%s: this CPU cannot run it", k->name);
            continue;
        }
        for (int g = 0; g < N_TYPES; g++)
            for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
                const tfi_format *f = tfi_format_of(goldens[g].dtype);
                problem p;
                if (shapes[s][1] % f->block) continue;
                make_problem(&p, f, shapes[s][0], shapes[s][1], -1);
                check_products(k, &p, &worst);
                if (s % 4 == 0) check_odd(k, &p);
                if (s % 4 == 1) check_powers(k, &p);
                check_neighbours(k, &p);
                free_problem(&p);
            }
        for (int g = 0; g < N_TYPES; g++)
            for (int extreme = 0; extreme < 4; extreme++) {
                problem p;
                make_problem(&p, tfi_format_of(goldens[g].dtype), 6, 1024, extreme);
                check_products(k, &p, &worst);
                free_problem(&p);
            }
        GROUP("%s: products with 8-bit activations, NMSE at most %.1e, any tile the same bits",
              k->name, worst);
    }
}

/* Alone on arrays a quantised matrix meets float32 activations, in the same bits as decoded rows. */
static void test_matmul(void) {
    static float out[TOKENS * MAX_ROWS], exact[TOKENS * MAX_ROWS];
    for (int g = 0; g < N_TYPES; g++) {
        problem p;
        transformer_tensor t;
        make_problem(&p, tfi_format_of(goldens[g].dtype), 9, 768, -1);
        t.data = p.weights, t.dtype = p.f->dtype, t.rows = 9, t.cols = 768;
        CHECK(transformer_matmul(out, p.x, &t, NULL, TOKENS) == TRANSFORMER_OK);
        t.data = p.decoded, t.dtype = TRANSFORMER_F32;
        CHECK(transformer_matmul(exact, p.x, &t, NULL, TOKENS) == TRANSFORMER_OK);
        double error = 0, size = 0;
        for (int i = 0; i < TOKENS * 9; i++) {
            error += ((double)out[i] - (double)exact[i]) * ((double)out[i] - (double)exact[i]);
            size += (double)p.want[i] * (double)p.want[i];
        }
        CHECK(error <= 1e-12 * size);                               /* 1e-6, relative */
        CHECK(memcmp(out, exact, sizeof(float) * TOKENS * 9) == 0); /* in one order, too */
        const int32_t ids[3] = {8, 0, 3};
        t.data = p.weights, t.dtype = p.f->dtype;
        CHECK(transformer_embedding(out, &t, ids, 0) == TRANSFORMER_OK);
        float *rows = (float *)malloc(3 * 768 * sizeof(float));
        CHECK(transformer_embedding(rows, &t, ids, 3) == TRANSFORMER_OK);
        for (int i = 0; i < 3; i++)
            CHECK(memcmp(rows + i * 768, p.decoded + ids[i] * 768, 768 * sizeof(float)) == 0);
        free(rows);
        free_problem(&p);
    }
    GROUP("matmul and embedding on plain arrays of blocks");
}

static void test_queries(void) {
    static float out[1024];
    static unsigned char blocks[1024];
    transformer_tensor t;
    t.data = blocks, t.dtype = TRANSFORMER_Q4_K, t.rows = 2, t.cols = 256;
    CHECK(strcmp(transformer_dtype_name(TRANSFORMER_Q4_K), "Q4_K") == 0);
    CHECK(strcmp(transformer_dtype_name(TRANSFORMER_F32), "F32") == 0);
    CHECK(strcmp(transformer_dtype_name(16), "IQ2_XXS") == 0 && !transformer_dtype_block(16));
    CHECK(strcmp(transformer_dtype_name(-1), "unknown type") == 0 && !transformer_dtype_size(16));
    CHECK(transformer_dtype_block(TRANSFORMER_Q4_K) == 256);
    CHECK(transformer_dtype_size(TRANSFORMER_Q4_K) == 144);
    CHECK(transformer_dtype_block(TRANSFORMER_BF16) == 1);
    CHECK(transformer_row_size(TRANSFORMER_Q4_K, 512) == 288);
    CHECK(transformer_row_size(TRANSFORMER_Q4_K, 128) == 0);
    CHECK(transformer_row_size(TRANSFORMER_Q8_0, 33) == 0);
    CHECK(transformer_row_size(TRANSFORMER_Q8_0, -32) == 0 && transformer_row_size(77, 32) == 0);
    CHECK(transformer_decode(out, &t, 0, 2) == TRANSFORMER_OK);
    CHECK(transformer_decode(out, &t, 1, 2) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_decode(out, &t, -1, 1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_decode(out, &t, 0, -1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_decode(NULL, &t, 0, 1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_decode(out, NULL, 0, 1) == TRANSFORMER_ARGUMENT);
    t.cols = 255;
    CHECK(transformer_decode(out, &t, 0, 1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_matmul(out, out, &t, NULL, 1) == TRANSFORMER_ARGUMENT);
    t.cols = 256, t.dtype = 16;
    CHECK(transformer_decode(out, &t, 0, 1) == TRANSFORMER_ARGUMENT);
    GROUP("queries and refusals");
}

/* ---- whole models ---- */

enum { N = 15, VOCAB = 70 };

/* Logits of N tokens, `chunk` at a time. */
static void run_model(const transformer_model *m, int chunk, int threads, int batch,
                      float *logits) {
    transformer_options options;
    int32_t tokens[N];
    memset(&options, 0, sizeof options);
    options.n_threads = threads, options.batch = batch;
    transformer_state *state = transformer_state_new(m, &options, NULL);
    transformer_workspace *work = transformer_workspace_new(m, &options, NULL);
    for (int i = 0; i < N; i++) tokens[i] = (int32_t)(random_word((uint64_t)i) % VOCAB);
    for (int i = 0; i < N; i += chunk) {
        transformer_sequence sequence;
        transformer_call call;
        memset(&sequence, 0, sizeof sequence), memset(&call, 0, sizeof call);
        sequence.state = state, sequence.tokens = tokens + i;
        sequence.n = N - i < chunk ? N - i : chunk;
        sequence.logits = logits + i * VOCAB, sequence.logits_rows = TRANSFORMER_LOGITS_ALL;
        call.sequences = &sequence, call.n_sequences = 1;
        CHECK(transformer_run(m, work, &call, NULL) == TRANSFORMER_OK);
    }
    transformer_free(state), transformer_free(work);
}

/* All matrices of type f, with the norms at 1; then the same decoded to F32. */
static unsigned char *make_weights(const transformer_config *c, const tfi_format *f, int decoded) {
    int dtype = decoded ? TRANSFORMER_F32 : f->dtype, rows, cols;
    size_t offset;
    unsigned char *flat = (unsigned char *)malloc(transformer_flat_size(c, dtype) + 64), *at = flat;
    at += (64 - (uintptr_t)at % 64) % 64;
    for (int l = 0; l < c->n_layers; l++)
        for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
            if (!transformer_flat_offset(c, dtype, role, l, &offset)) continue;
            transformer_tensor_shape(c, role, l, &rows, &cols);
            if (rows == 1) {
                for (int i = 0; i < cols; i++) ((float *)(void *)(at + offset))[i] = 1;
                continue;
            }
            transformer_tensor t;
            t.data = at + offset, t.dtype = f->dtype, t.rows = rows, t.cols = cols;
            unsigned char *blocks =
                decoded ? (unsigned char *)malloc(tfi_tensor_bytes(&t)) : at + offset;
            make_rows(f, blocks, rows, cols, (uint64_t)(role * 100 + l));
            t.data = blocks;
            if (decoded) {
                transformer_decode((float *)(void *)(at + offset), &t, 0, rows);
                free(blocks);
            }
        }
    return flat;
}

static transformer_model *make_model(const transformer_config *c, int dtype, unsigned char *flat,
                                     int full_precision, const char *isa) {
    transformer_options options;
    memset(&options, 0, sizeof options);
    options.full_precision = full_precision, options.isa = isa;
    transformer_model *m = transformer_model_new(c, &options, NULL);
    flat += (64 - (uintptr_t)flat % 64) % 64;
    CHECK(transformer_bind_flat(m, flat, transformer_flat_size(c, dtype), dtype, NULL) ==
          TRANSFORMER_OK);
    return m;
}

/* Blocks, but key and gate matrices as F32: products of one step that pack their input apart. */
static transformer_model *make_mixed(const transformer_config *c, int dtype, unsigned char *blocks,
                                     unsigned char *floats, const char *isa) {
    transformer_options options;
    memset(&options, 0, sizeof options);
    options.isa = isa;
    transformer_model *m = transformer_model_new(c, &options, NULL);
    for (int i = 0; i < c->n_layers * TRANSFORMER_N_ROLES; i++) {
        int role = i % TRANSFORMER_N_ROLES, l = i / TRANSFORMER_N_ROLES;
        int decoded = role == TRANSFORMER_K || role == TRANSFORMER_MLP_GATE;
        unsigned char *flat = decoded ? floats : blocks;
        transformer_tensor t;
        size_t offset;
        if (!transformer_flat_offset(c, decoded ? TRANSFORMER_F32 : dtype, role, l, &offset))
            continue;
        transformer_tensor_shape(c, role, l, &t.rows, &t.cols);
        t.data = flat + (64 - (uintptr_t)flat % 64) % 64 + offset;
        t.dtype = decoded || t.rows == 1 ? TRANSFORMER_F32 : dtype;
        CHECK(transformer_bind(m, role, l, &t, NULL) == TRANSFORMER_OK);
    }
    CHECK(transformer_model_ready(m, NULL) == TRANSFORMER_OK);
    return m;
}

/* Any split, threads and batch give the same bits on the fast path; the full-precision path gives
 * those of the decoded weights. */
static void test_model(const char *isa, int turn, int step) {
    static float want[N * VOCAB], have[N * VOCAB];
    static const int ways[][3] = {{1, 2, 0}, {2, 1, 0}, {5, 3, 0}, {7, 1, 4}};
    static transformer_config c;
    transformer_config_defaults(&c);
    c.dim = 256, c.n_layers = 2, c.n_heads = 4, c.n_kv_heads = 2, c.mlp_dim = 512;
    c.vocab_size = VOCAB, c.context = 64;
    for (int g = turn % step; g < N_TYPES; g += step) { /* the types in turn */
        const tfi_format *f = tfi_format_of(goldens[g].dtype);
        unsigned char *blocks = make_weights(&c, f, 0), *floats = make_weights(&c, f, 1);
        for (int path = 0; path < 3; path++) { /* types mixed, fast, in full precision */
            transformer_model *m = path ? make_model(&c, f->dtype, blocks, path == 2, isa)
                                        : make_mixed(&c, f->dtype, blocks, floats, isa);
            run_model(m, N, 1, 0, want);
            for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                run_model(m, ways[w][0], ways[w][1], ways[w][2], have);
                CHECK(memcmp(want, have, sizeof want) == 0);
            }
            transformer_free(m);
        }
        transformer_model *m = make_model(&c, TRANSFORMER_F32, floats, 0, isa);
        run_model(m, N, 1, 0, have);
        CHECK(memcmp(want, have, sizeof want) == 0);
        transformer_free(m);
        free(blocks), free(floats);
    }
    GROUP("%s: models: same bits however run; full precision as decoded", isa);
}

int main(int argc, char **argv) {
    const int brief = argc > 1; /* with an argument: what is bearable under emulation */
    (void)argv;
    test_queries();
    test_decode();
    test_products();
    test_matmul();
    for (int i = brief && tfi_rows[1]; tfi_rows[i]; i++)
        if ((tfi_rows[i]->needs & tfi_cpu()) == tfi_rows[i]->needs)
            test_model(tfi_rows[i]->name, i, brief ? 6 : 3);
    return test_finish();
}
