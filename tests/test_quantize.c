/* The quantisers of examples/quantize.h: errors no larger than those of llama.cpp's reference
 * quantisers, measured once on the same numbers; bytes of Q8_0; refusals; presets. */
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "../examples/model_file.h"
#define QUANTIZE_IMPLEMENTATION
#include "../examples/quantize.h"
#include "test.h"

enum { COLS = 256, ROWS = 256 };

/* Squared error over squared values, of llama.cpp (ggml_quantize_chunk without importance matrix,
 * ggml 0.25): on nearly Gaussian numbers (below) and on the matrices of examples/toy_lm. */
static const struct {
    int type;
    double gauss, real;
} reference[] = {
    {QUANTIZE_Q4_0, 7.209748e-03, 6.997889e-03}, {QUANTIZE_Q4_1, 6.019351e-03, 5.534950e-03},
    {QUANTIZE_Q5_0, 1.764420e-03, 1.757573e-03}, {QUANTIZE_Q5_1, 1.405886e-03, 1.315335e-03},
    {QUANTIZE_Q8_0, 2.767381e-05, 2.740360e-05}, {QUANTIZE_Q4_K, 4.980667e-03, 4.655305e-03},
    {QUANTIZE_Q5_K, 1.272155e-03, 1.235648e-03}, {QUANTIZE_Q6_K, 3.082252e-04, 2.905707e-04}};
enum { N_REFERENCE = (int)(sizeof reference / sizeof *reference) };

static float gauss[ROWS * COLS], back[ROWS * COLS];
static unsigned char bytes[ROWS * COLS * 4];

static void make_gauss(void) {
    for (uint32_t i = 0; i < ROWS * COLS; i++) {
        float x = 0;
        for (uint32_t k = 1; k <= 12; k++) x += test_noise(i * 12 + k);
        gauss[i] = x * 0.02f;
    }
}

/* Adds squared error and squared values of x, n_rows of n_cols, to sums[0] and sums[1]. */
static void add_error(int type, const float *x, int n_rows, int n_cols, double *sums) {
    transformer_tensor t = {bytes, type, n_rows, n_cols};
    size_t n = (size_t)n_rows * (size_t)n_cols;
    CHECK(quantize_row_size(type, (size_t)n_cols) == transformer_row_size(type, n_cols));
    CHECK(quantize_rows(type, x, (size_t)n_rows, (size_t)n_cols, bytes, sizeof bytes, NULL) ==
          QUANTIZE_OK);
    CHECK(transformer_decode(back, &t, 0, n_rows) == TRANSFORMER_OK);
    for (size_t i = 0; i < n; i++) {
        double e = (double)back[i] - (double)x[i];
        sums[0] += e * e;
        sums[1] += (double)x[i] * (double)x[i];
    }
}

static void check_errors(void) {
    for (int i = 0; i < N_REFERENCE; i++) {
        double sums[2] = {0, 0};
        add_error(reference[i].type, gauss, ROWS, COLS, sums);
        CHECK(sums[0] / sums[1] <= reference[i].gauss * (1 + 1e-6));
        GROUP("%s, Gaussian: %.4e, reference %.4e", quantize_type_name(reference[i].type),
              sums[0] / sums[1], reference[i].gauss);
    }
}

/* As many rows of 256 as a matrix fills, whatever its width. */
static void check_real(void) {
    transformer_error error;
    model_file *file = model_file_open("examples/toy_lm", NULL, &error);
    CHECK(file != NULL);
    for (int i = 0; file && i < N_REFERENCE; i++) {
        double sums[2] = {0, 0};
        for (int layer = 0; layer < model_file_config(file)->n_layers; layer++)
            for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
                const transformer_tensor *t = model_file_tensor(file, role, layer);
                static float x[512 * 320];
                if (!t || t->rows == 1) continue;
                CHECK(transformer_decode(x, t, 0, t->rows) == TRANSFORMER_OK);
                add_error(reference[i].type, x, t->rows * t->cols / COLS, COLS, sums);
            }
        CHECK(sums[0] / sums[1] <= reference[i].real * (1 + 1e-6));
        GROUP("%s, toy_lm: %.4e, reference %.4e", quantize_type_name(reference[i].type),
              sums[0] / sums[1], reference[i].real);
    }
    model_file_close(file);
}

static void check_bytes(void) {
    uint64_t hash = 0xcbf29ce484222325u;
    size_t n = ROWS * quantize_row_size(QUANTIZE_Q8_0, COLS);
    CHECK(quantize_rows(QUANTIZE_Q8_0, gauss, ROWS, COLS, bytes, sizeof bytes, NULL) ==
          QUANTIZE_OK);
    for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    CHECK(hash ==
          0x820debc0a00f9ca8u); /* FNV-1a of what gguf.quants.quantize of PyPI's gguf gives */
    GROUP("Q8_0: the bytes of the gguf package");
}

/* Every F16 comes back as itself, and what lies between two goes to the nearer, ties to even. */
static void check_halves(void) {
    unsigned char out[2];
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float x = qzi_from_f16((uint16_t)h), next = qzi_from_f16((uint16_t)(h + 1)), middle;
        uint16_t even = (uint16_t)(h + (h & 1));
        CHECK(qzi_to_f16(x) == h && qzi_to_f16(-x) == (h | 0x8000u));
        if (h == 0x7bff) break;
        middle = 0.5f * (x + next);
        CHECK(qzi_to_f16(middle) == even);
        CHECK(qzi_to_f16(middle * 0.99999f) == h && qzi_to_f16(middle * 1.00001f) == h + 1);
    }
    float x[] = {1.00390625f, 1.01171875f, -1.00390626f, 65519.0f, 65520.0f, INFINITY, NAN};
    static const uint32_t bf16[] = {0x3f80, 0x3f82, 0xbf80, 0x4780, 0x4780, 0x7f80};
    for (int i = 0; i < 6; i++) {
        CHECK(quantize_rows(QUANTIZE_BF16, &x[i], 1, 1, out, 2, NULL) == QUANTIZE_OK);
        CHECK((out[0] | (uint32_t)out[1] << 8) == bf16[i]);
    }
    CHECK(quantize_rows(QUANTIZE_BF16, &x[6], 1, 1, out, 2, NULL) == QUANTIZE_OK);
    CHECK((out[1] & 0x7f) == 0x7f && (out[0] & 0x80) && (out[0] & 0x7f));
    CHECK(quantize_rows(QUANTIZE_F16, &x[3], 1, 1, out, 2, NULL) == QUANTIZE_OK && out[1] == 0x7b);
    for (int i = 4; i < 7; i++)
        CHECK(quantize_rows(QUANTIZE_F16, &x[i], 1, 1, out, 2, NULL) == QUANTIZE_VALUE);
    GROUP("F16 and BF16 round to nearest, ties to even");
}

/* Blocks that divide by nothing: zeros, one value, denormals, one large number. */
static void check_special(void) {
    for (int i = 0; i < N_REFERENCE; i++) {
        int type = reference[i].type;
        transformer_tensor t = {bytes, type, 1, COLS};
        float x[COLS], most;
        for (int kind = 0; kind < 6; kind++) {
            static const float value[] = {0, 0.25f, -0.25f, 1e-40f, 1e-7f, 1000};
            for (int k = 0; k < COLS; k++) x[k] = kind < 3 || k % 7 == 3 ? value[kind] : 0;
            CHECK(quantize_rows(type, x, 1, COLS, bytes, sizeof bytes, NULL) == QUANTIZE_OK);
            CHECK(transformer_decode(back, &t, 0, 1) == TRANSFORMER_OK);
            most = fabsf(value[kind]) * 0.02f + 1e-6f;
            for (int k = 0; k < COLS; k++) CHECK(fabsf(back[k] - x[k]) <= most);
        }
        size_t bad = 0;
        memcpy(x, gauss, sizeof x);
        x[77] = NAN;
        CHECK(quantize_rows(type, x, 1, COLS, bytes, sizeof bytes, &bad) == QUANTIZE_VALUE &&
              bad == 77);
        x[77] = 3e38f;
        x[78] = -3e38f;
        CHECK(quantize_rows(type, x, 1, COLS, bytes, sizeof bytes, &bad) == QUANTIZE_VALUE &&
              bad == 77);
        CHECK(quantize_rows(type, gauss, 1, 31, bytes, sizeof bytes, NULL) == QUANTIZE_ARGUMENT);
        CHECK(quantize_rows(type, gauss, 1, COLS, bytes, quantize_row_size(type, COLS) - 1, NULL) ==
              QUANTIZE_ARGUMENT);
        CHECK(quantize_rows(type, NULL, 1, COLS, bytes, sizeof bytes, NULL) == QUANTIZE_ARGUMENT);
        GROUP("%s: special values", quantize_type_name(type));
    }
    CHECK(quantize_row_size(99, 256) == 0 && quantize_block(99) == 0);
    CHECK(quantize_rows(99, gauss, 1, COLS, bytes, sizeof bytes, NULL) == QUANTIZE_ARGUMENT);
}

typedef struct preset_case {
    const char *preset;
    quantize_model model;
    const char *name;
    int dims, cols, type;
} preset_case;

#define PLAIN                                                                                      \
    { NULL, 16, 4, 4, 0, 0 }
#define TIED                                                                                       \
    { NULL, 16, 4, 4, 0, 1 }
#define FIVE                                                                                       \
    { "llama", 5, 4, 2, 0, 1 }
#define FALCON                                                                                     \
    { "falcon", 32, 8, 1, 0, 1 }
#define BIG                                                                                        \
    { "llama", 80, 64, 8, 0, 0 }
#define EIGHT                                                                                      \
    { "llama", 32, 32, 8, 8, 0 }

static const preset_case preset_cases[] = {
    {"q4_k_m", PLAIN, "blk.0.attn_norm.weight", 1, 256, QUANTIZE_F32},
    {"q4_k_m", PLAIN, "blk.0.attn_q.bias", 1, 256, QUANTIZE_F32},
    {"q4_k_m", PLAIN, "blk.0.attn_q_norm.weight", 2, 256, QUANTIZE_F32},
    {"q4_k_m", PLAIN, "position_embd.weight", 2, 256, QUANTIZE_F32},
    {"q4_k_m", PLAIN, "token_embd.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", TIED, "token_embd.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", PLAIN, "output.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", PLAIN, "blk.3.attn_q.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", PLAIN, "blk.3.attn_q.weight", 2, 288, QUANTIZE_Q5_0},
    {"q4_k_m", PLAIN, "blk.3.attn_q.weight", 2, 100, QUANTIZE_F16},
    {"q4_k_m", PLAIN, "output.weight", 2, 96, QUANTIZE_Q8_0},
    {"q4_0", PLAIN, "output.weight", 2, 100, QUANTIZE_F16},
    {"q4_k_m", PLAIN, "blk.0.ffn_down.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", PLAIN, "blk.1.ffn_down.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", PLAIN, "blk.2.ffn_down.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", PLAIN, "blk.4.attn_v.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", PLAIN, "blk.5.attn_v.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", PLAIN, "blk.15.attn_v.weight", 2, 256, QUANTIZE_Q6_K},
    /* one matrix of queries, keys and values is like one of values */
    {"q4_k_m", PLAIN, "blk.3.attn_qkv.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", PLAIN, "blk.4.attn_qkv.weight", 2, 256, QUANTIZE_Q6_K},
    {"q5_k_m", PLAIN, "blk.3.attn_qkv.weight", 2, 256, QUANTIZE_Q5_K},
    {"q4_k_m", PLAIN, "blk.3.attn_qkv.weight", 2, 96, QUANTIZE_Q5_0},
    {"q4_0", PLAIN, "blk.4.attn_qkv.weight", 2, 256, QUANTIZE_Q4_0},
    /* the last eighth begins at 7 n / 8, rounded down, whatever the first has */
    {"q4_k_m", FIVE, "blk.0.attn_v.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", FIVE, "blk.2.attn_v.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", FIVE, "blk.3.attn_v.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_k_m", FIVE, "blk.4.attn_v.weight", 2, 256, QUANTIZE_Q6_K},
    {"q5_k_m", FIVE, "blk.4.ffn_down.weight", 2, 96, QUANTIZE_Q8_0},
    {"q4_k_m", FALCON, "token_embd.weight", 2, 256, QUANTIZE_Q8_0},
    {"q4_0", FALCON, "token_embd.weight", 2, 256, QUANTIZE_Q8_0},
    {"f16", FALCON, "token_embd.weight", 2, 256, QUANTIZE_F16},
    {"q4_k_m", FALCON, "blk.1.ffn_down.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", FALCON, "blk.2.ffn_down.weight", 2, 256, QUANTIZE_Q5_K},
    {"q4_k_m", FALCON, "blk.4.ffn_down.weight", 2, 256, QUANTIZE_Q4_K},
    {"q5_k_m", FALCON, "blk.2.ffn_down.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", BIG, "blk.0.attn_v.weight", 2, 256, QUANTIZE_Q6_K},
    {"q4_k_m", BIG, "blk.10.attn_v.weight", 2, 256, QUANTIZE_Q5_K},
    {"q4_k_m", BIG, "blk.10.ffn_down.weight", 2, 256, QUANTIZE_Q4_K},
    {"q4_0", BIG, "blk.10.attn_v.weight", 2, 256, QUANTIZE_Q4_0},
    {"q4_k_m", EIGHT, "blk.4.attn_v.weight", 2, 256, QUANTIZE_Q8_0},
    {"q4_0", EIGHT, "blk.4.attn_k.weight", 2, 256, QUANTIZE_Q8_0},
    {"f16", EIGHT, "blk.4.attn_k.weight", 2, 256, QUANTIZE_F16},
    {"q4_k_m", EIGHT, "blk.4.attn_output.weight", 2, 256, QUANTIZE_Q5_K},
    {"q5_k_m", EIGHT, "blk.4.attn_output.weight", 2, 256, QUANTIZE_Q5_K},
    {"q4_0", EIGHT, "blk.4.attn_output.weight", 2, 256, QUANTIZE_Q4_0},
    {"q4_k_m", EIGHT, "blk.4.ffn_gate_inp.weight", 2, 256, QUANTIZE_F32},
    {"q4_k_m", EIGHT, "blk.4.ffn_down_exps.weight", 3, 256, QUANTIZE_Q4_K},
    {"q4_k_m", EIGHT, "blk.6.ffn_down_exps.weight", 3, 256, QUANTIZE_Q6_K},
    {"q4_k_m", EIGHT, "blk.6.ffn_up_exps.weight", 3, 256, QUANTIZE_Q4_K}};

/* As llama-quantize chooses them. */
static void check_presets(void) {
    for (size_t i = 0; i < sizeof preset_cases / sizeof *preset_cases; i++) {
        const preset_case *c = &preset_cases[i];
        int type = quantize_tensor_type(quantize_preset_find(c->preset), &c->model, c->name,
                                        c->dims, (size_t)c->cols);
        if (type != c->type)
            fprintf(stderr, "case %d: %s is %s\n", (int)i, c->name, quantize_type_name(type));
        CHECK(type == c->type);
    }
    CHECK(quantize_preset_find("q9") == NULL && quantize_preset_find(NULL) == NULL);
    GROUP("presets");
}

int main(void) {
    make_gauss();
    check_errors();
    check_real();
    check_bytes();
    check_halves();
    check_special();
    check_presets();
    return test_finish();
}
