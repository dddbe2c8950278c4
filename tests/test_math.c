/* The elementary functions of every row over dense grids, the public kernels and the rotary tables,
 * each against double precision, formulas written here again, or numbers known from elsewhere. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "test.h"

static int row_runs(const tfi_kernels *k) { return (k->needs & tfi_cpu()) == k->needs; }

static void fill(float *x, int n, uint32_t seed, float scale) {
    for (int i = 0; i < n; i++) x[i] = 2 * scale * test_noise(seed * 7919u + (uint32_t)i);
}

/* ---- elementary functions: the bounds that the manual states ---- */

enum { CHUNK = 1024 };
static const double relative_bound = 3e-7, absolute_bound = 2e-7;

typedef struct error {
    double relative, absolute, at;
} error;

/* Largest errors of function over low .. high in n steps; relative only where the result is a
 * normal float. */
static error measure(const tfi_kernels *k, double low, double high, int n,
                     void (*function)(const tfi_kernels *, float *, int), double (*exact)(double)) {
    static float x[CHUNK], y[CHUNK];
    error worst = {0, 0, 0};
    for (int first = 0; first < n; first += CHUNK) {
        for (int i = 0; i < CHUNK; i++) {
            double part = (first + i) / (double)n;
            x[i] = (float)(low + (high - low) * (part < 1 ? part : 1));
        }
        memcpy(y, x, sizeof y);
        function(k, y, CHUNK);
        for (int i = 0; i < CHUNK; i++) {
            double want = exact((double)x[i]), off = fabs((double)y[i] - want);
            if (!(off <= worst.absolute)) worst.absolute = off;
            if (!(fabs(want) >= (double)FLT_MIN)) continue;
            if (!(off / fabs(want) <= worst.relative)) {
                worst.relative = off / fabs(want);
                worst.at = (double)x[i];
            }
        }
    }
    return worst;
}

static void run_exp(const tfi_kernels *k, float *x, int n) { k->exponentials(x, x, n, 0); }
static void run_tanh(const tfi_kernels *k, float *x, int n) {
    k->activate(x, NULL, n, TRANSFORMER_TANH);
}
static void run_cap(const tfi_kernels *k, float *x, int n) { k->cap(x, n, 1); }
static void run_sigmoid(const tfi_kernels *k, float *x, int n) {
    k->activate(x, NULL, n, TRANSFORMER_SIGMOID);
}
static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* erf as GELU shows it: gelu(z) = z / 2 (1 + erf(z / sqrt 2)).  Errors in units of z / 2. */
static double measure_erf(const tfi_kernels *k) {
    static float x[CHUNK], y[CHUNK];
    double worst = 0;
    for (int first = 0; first < 1 << 20; first += CHUNK) {
        for (int i = 0; i < CHUNK; i++) x[i] = (float)((first + i + 1) * (12.0 / (1 << 20)) - 6);
        memcpy(y, x, sizeof y);
        k->activate(y, NULL, CHUNK, TRANSFORMER_GELU);
        for (int i = 0; i < CHUNK; i++) {
            double half = (double)x[i] / 2, want = half * (1 + erf((double)x[i] / sqrt(2.0)));
            /* 1.2e-7 is for the roundings of z / sqrt 2, the sum and the product */
            double off = fabs((double)y[i] - want) - 1.2e-7 * fabs(want);
            if (half != 0 && !(off / fabs(half) <= worst)) worst = off / fabs(half);
        }
    }
    return worst;
}

/* Does exp(x) come out smaller than normal numbers, but not 0, for some x from -105 to -87? */
static int has_denormals(const tfi_kernels *k) {
    float x[999];
    for (int i = 0; i < 999; i++) x[i] = -105.0f + 0.018f * (float)i;
    run_exp(k, x, 999);
    int has = x[0] != 0 || x[998] == 0;
    for (int i = 0; i < 999; i++) has |= x[i] != 0 && x[i] < FLT_MIN;
    return has;
}

static void test_elementary(const tfi_kernels *k) {
    const int n = 1 << 20;
    error e = measure(k, -87.3, 88.72, n, run_exp, exp);
    error small = measure(k, -104, -87.3, n / 4, run_exp, exp);
    CHECK(e.relative <= relative_bound);
    CHECK(small.absolute <= (double)FLT_MIN && !has_denormals(k));
    error t = measure(k, -10, 10, n, run_tanh, tanh), t0 = measure(k, -0.7, 0.7, n, run_tanh, tanh);
    error tiny = measure(k, -1e-20, 1e-20, n / 4, run_tanh, tanh);
    error c = measure(k, -10, 10, n, run_cap, tanh);
    CHECK(t.absolute <= absolute_bound && t0.absolute <= absolute_bound);
    CHECK(t.relative <= relative_bound && t0.relative <= relative_bound);
    CHECK(tiny.relative <= relative_bound && c.absolute <= absolute_bound);
    error s = measure(k, -87, 40, n, run_sigmoid, exact_sigmoid);
    error far = measure(k, -200, -87, n / 4, run_sigmoid, exact_sigmoid);
    CHECK(s.relative <= relative_bound && far.absolute <= 1e-37);
    double f = measure_erf(k);
    CHECK(f <= absolute_bound);
    GROUP("%s: relative errors: exp %.1e, tanh %.1e, sigmoid %.1e; absolute: tanh %.1e, erf %.1e",
          k->name, e.relative, fmax(t.relative, t0.relative), s.relative,
          fmax(t.absolute, t0.absolute), f);
}

/* Each activation against the plain formula, relative to |y| + |x| / 4 (a step may round x). */
static void test_activations(const tfi_kernels *k) {
    static float x[CHUNK], y[CHUNK];
    double worst = 0;
    for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++)
        for (int first = 0; first < 1 << 18; first += CHUNK) {
            for (int i = 0; i < CHUNK; i++) x[i] = (float)((first + i) * (40.0 / (1 << 18)) - 20);
            memcpy(y, x, sizeof y);
            k->activate(y, NULL, CHUNK, kind);
            for (int i = 0; i < CHUNK; i++) {
                double want = tfi_reference_activation((double)x[i], kind);
                double size = fabs(want) + fabs((double)x[i]) / 4 + 1e-6;
                worst = fmax(worst, fabs((double)y[i] - want) / size);
            }
        }
    CHECK(worst <= 5e-7);
    GROUP("%s: activations: error %.1e of |y| + |x| / 4", k->name, worst);
}

static void test_scalar_erf(void) {
    double relative = 0, absolute = 0;
    for (int i = 1; i < 1 << 20; i++) {
        float x = (float)(i * (6.0 / (1 << 20)));
        double want = erf((double)x), off = fabs((double)tfi_erf_scalar(x) - want);
        relative = fmax(relative, off / want), absolute = fmax(absolute, off);
        CHECK(tfi_erf_scalar(-x) == -tfi_erf_scalar(x));
    }
    CHECK(relative <= relative_bound && absolute <= absolute_bound);
    GROUP("scalar erf: error %.1e relative, %.1e absolute", relative, absolute);
}

/* GELU's two forms are not the same function, nor SILU a third. */
static void test_activations_differ(void) {
    double apart[2] = {0, 0};
    for (int i = -500; i <= 500; i++) {
        float exact = (float)i / 100, tanh_form = exact, quick = exact;
        CHECK(!transformer_activate(&exact, 1, TRANSFORMER_GELU) &&
              !transformer_activate(&tanh_form, 1, TRANSFORMER_GELU_TANH) &&
              !transformer_activate(&quick, 1, TRANSFORMER_GELU_QUICK));
        apart[0] = fmax(apart[0], fabs((double)exact - (double)tanh_form));
        apart[1] = fmax(apart[1], fabs((double)exact - (double)quick));
    }
    CHECK(fabs(apart[0] - 4.73e-4) < 1e-6 && fabs(apart[1] - 2.03e-2) < 1e-4);
    GROUP("GELU and its approximations: %.2e and %.2e apart, as they should be", apart[0],
          apart[1]);
}

/* ---- public kernels ---- */

static void test_softmax(void) {
    static float x[3000], y[3000];
    double worst = 0, sum = 0;
    for (int n = 1; n <= 3000; n = n * 3 / 2 + 1) {
        fill(x, n, (uint32_t)n, 10);
        memcpy(y, x, sizeof x);
        tfi_reference_softmax(y, n);
        CHECK(transformer_softmax(x, n) == TRANSFORMER_OK);
        for (int i = 0; i < n; i++)
            worst = fmax(worst, fabs((double)x[i] - (double)y[i]) / ((double)y[i] + 1e-30));
    }
    CHECK(worst <= 2e-6);
    for (int i = 0; i < 7; i++) x[i] = 1e30f; /* equal numbers, however large */
    CHECK(!transformer_softmax(x, 7));
    for (int i = 0; i < 7; i++) CHECK(fabs((double)x[i] - 1 / 7.0) <= 1e-8);
    x[0] = 0, x[1] = 1000, x[2] = -1000, x[3] = (float)-INFINITY;
    CHECK(!transformer_softmax(x, 4) && x[0] == 0 && x[1] == 1 && x[2] == 0 && x[3] == 0);
    x[0] = logf(1), x[1] = logf(2), x[2] = logf(5); /* closed form; shifts change nothing */
    for (int i = 0; i < 3; i++) y[i] = x[i] + 64;
    CHECK(!transformer_softmax(x, 3) && !transformer_softmax(y, 3));
    CHECK(fabs((double)x[0] - 0.125) < 1e-7 && fabs((double)x[1] - 0.25) < 1e-7 &&
          fabs((double)x[2] - 0.625) < 1e-7 && test_difference(x, y, 3) < 3e-6);
    x[0] = 5;
    CHECK(!transformer_softmax(x, 1) && x[0] == 1 && !transformer_softmax(x, 0) && x[0] == 1);
    fill(x, 3000, 1, 10);
    CHECK(!transformer_softmax(x, 3000));
    for (int i = 0; i < 3000; i++) sum += (double)x[i];
    CHECK(fabs(sum - 1) < 1e-6);
    GROUP("softmax: relative error %.1e", worst);
}

static void test_norms(void) {
    static float x[1000], w[1000], b[1000], y[1000], want[1000];
    double worst = 0;
    for (int n = 1; n <= 1000; n = n * 3 / 2 + 1) {
        fill(x, n, (uint32_t)n, 3), fill(w, n, 5, 2), fill(b, n, 6, 1);
        for (int bits = 0; bits < 4; bits++) {
            const float *weight = bits & 1 ? w : NULL, *bias = bits & 2 ? b : NULL;
            tfi_reference_norm(want, x, weight, bias, n, 1e-5f, TRANSFORMER_NORM_LAYER);
            CHECK(!transformer_layernorm(y, x, weight, bias, n, 1e-5f));
            worst = fmax(worst, test_difference(y, want, (size_t)n));
            tfi_reference_norm(want, x, weight, NULL, n, 1e-5f, TRANSFORMER_NORM_RMS);
            CHECK(!transformer_rmsnorm(y, x, weight, n, 1e-5f));
            worst = fmax(worst, test_difference(y, want, (size_t)n));
            CHECK(!transformer_rmsnorm(x, x, weight, n, 1e-5f)); /* in place */
            CHECK(memcmp(x, y, (size_t)n * sizeof(float)) == 0);
            fill(x, n, (uint32_t)n, 3);
        }
    }
    CHECK(worst <= 5e-6);
    x[0] = 3, x[1] = 4; /* sqrt((9 + 16) / 2 + 12.5) = 5: eps is inside the root */
    CHECK(!transformer_rmsnorm(y, x, NULL, 2, 12.5f) && y[0] == 0.6f && y[1] == 0.8f);
    x[0] = 1, x[1] = 3; /* mean 2, variance (1 + 1) / 2: it divides by n */
    CHECK(!transformer_layernorm(y, x, NULL, NULL, 2, 0) && y[0] == -1 && y[1] == 1);
    for (int i = 0; i < 1000; i++) x[i] = 1000; /* no variance at all */
    CHECK(!transformer_layernorm(y, x, w, b, 1000, 1e-5f) && test_difference(y, b, 1000) == 0);
    GROUP("layernorm, rmsnorm: error %.1e", worst);
}

static void test_rope_apply(void) {
    static const int positions[] = {0, 1, 63, 500, 131071};
    static const int dims[] = {0, 2, 8, 26, 64};
    enum { HEADS = 3, HEAD = 64 };
    float x[HEADS * HEAD], start[HEADS * HEAD];
    double worst = 0;
    for (int p = 0; p < 5; p++)
        for (int d = 0; d < 5; d++)
            for (int pairing = 0; pairing < 2; pairing++) {
                double theta = p & 1 ? 1e4 : 5e5;
                int half = dims[d] / 2;
                fill(start, HEADS * HEAD, 3, 1);
                memcpy(x, start, sizeof x);
                CHECK(
                    !transformer_rope_apply(x, HEADS, HEAD, dims[d], pairing, theta, positions[p]));
                for (int h = 0; h < HEADS; h++) {
                    const float *from = start + h * HEAD, *to = x + h * HEAD;
                    for (int i = 0; i < half; i++) {
                        int a = pairing ? 2 * i : i, b = pairing ? 2 * i + 1 : i + half;
                        double angle = positions[p] / pow(theta, 2.0 * i / dims[d]);
                        double c = cos(angle), s = sin(angle);
                        double first = (double)from[a] * c - (double)from[b] * s;
                        double second = (double)from[a] * s + (double)from[b] * c;
                        worst = fmax(worst, fabs((double)to[a] - first));
                        worst = fmax(worst, fabs((double)to[b] - second));
                    }
                    for (int i = dims[d]; i < HEAD; i++) CHECK(to[i] == from[i]);
                }
            }
    CHECK(worst <= 3e-7);
    x[0] = 1, x[1] = 0; /* by one radian, counter-clockwise */
    CHECK(!transformer_rope_apply(x, 1, 2, 2, TRANSFORMER_ROPE_HALF, 1e4, 1));
    CHECK(fabs((double)x[0] - 0.5403023058681398) < 1e-7 &&
          fabs((double)x[1] - 0.8414709848078965) < 1e-7);
    GROUP("rope_apply up to position 131071: error %.1e", worst);
}

static void make_matrix(transformer_tensor *t, void *data, int dtype, int rows, int cols,
                        uint32_t seed) {
    t->data = data, t->dtype = dtype, t->rows = rows, t->cols = cols;
    for (int i = 0; i < rows * cols; i++) {
        float value = 2 * test_noise(seed * 7919u + (uint32_t)i);
        uint16_t half = dtype == TRANSFORMER_F16 ? tfi_to_f16(value) : tfi_to_bf16(value);
        if (dtype == TRANSFORMER_F32) memcpy((float *)data + i, &value, sizeof value);
        else memcpy((uint16_t *)data + i, &half, sizeof half);
    }
}
static const int dtypes[] = {TRANSFORMER_F32, TRANSFORMER_F16, TRANSFORMER_BF16};

static void test_matmul(void) {
    static float storage[37 * 53], x[5 * 53], y[5 * 37], want[37], bias[37];
    double worst = 0;
    transformer_tensor w;
    fill(x, 5 * 53, 2, 1), fill(bias, 37, 3, 1);
    for (int d = 0; d < 3; d++)
        for (int biased = 0; biased < 2; biased++) {
            make_matrix(&w, storage, dtypes[d], 37, 53, 9);
            CHECK(!transformer_matmul(y, x, &w, biased ? bias : NULL, 5));
            for (int t = 0; t < 5; t++) {
                tfi_reference_matvec(want, &w, x + t * 53);
                for (int r = 0; biased && r < 37; r++) want[r] += bias[r];
                worst = fmax(worst, test_difference(want, y + t * 37, 37));
            }
        }
    CHECK(worst <= 5e-6);
    static const float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    w.data = identity, w.dtype = TRANSFORMER_F32, w.rows = w.cols = 3;
    CHECK(!transformer_matmul(y, x, &w, NULL, 4) && memcmp(y, x, 12 * sizeof(float)) == 0);
    w.rows = 0, y[0] = 7; /* nothing to do */
    CHECK(!transformer_matmul(y, x, &w, NULL, 4) && y[0] == 7);
    w.rows = 3, w.cols = 0; /* empty sums */
    CHECK(!transformer_matmul(y, x, &w, bias, 1) && memcmp(y, bias, 3 * sizeof(float)) == 0);
    GROUP("matmul F32, F16, BF16: error %.1e", worst);
}

static void test_mlp(void) {
    enum { DIM = 19, HIDDEN = 45, N = 3 };
    static float store[3][DIM * HIDDEN], x[N * DIM], y[N * DIM], scratch[2 * HIDDEN];
    static float gate_bias[HIDDEN], up_bias[HIDDEN], down_bias[DIM];
    double worst = 0;
    transformer_tensor gate, up, down;
    fill(x, N * DIM, 1, 1), fill(gate_bias, HIDDEN, 2, 1), fill(up_bias, HIDDEN, 3, 1);
    fill(down_bias, DIM, 4, 1);
    for (int d = 0; d < 3; d++)
        for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++)
            for (int bits = 0; bits < 4; bits++) {
                int gated = bits & 1, biased = bits & 2;
                make_matrix(&gate, store[0], dtypes[d], HIDDEN, DIM, 5);
                make_matrix(&up, store[1], dtypes[d], HIDDEN, DIM, 6);
                make_matrix(&down, store[2], dtypes[d], DIM, HIDDEN, 7);
                CHECK(!transformer_mlp(y, x, gated ? &gate : NULL, &up, &down,
                                       biased && gated ? gate_bias : NULL, biased ? up_bias : NULL,
                                       biased ? down_bias : NULL, kind, N, scratch));
                for (int t = 0; t < N; t++) {
                    float g[HIDDEN], u[HIDDEN], hidden[HIDDEN], want[DIM];
                    double most = 0;
                    tfi_reference_matvec(g, &gate, x + t * DIM);
                    tfi_reference_matvec(u, &up, x + t * DIM);
                    for (int i = 0; i < HIDDEN; i++) {
                        double a = (double)g[i] + (biased ? (double)gate_bias[i] : 0);
                        double b = (double)u[i] + (biased ? (double)up_bias[i] : 0);
                        hidden[i] = (float)(gated ? tfi_reference_activation(a, kind) * b
                                                  : tfi_reference_activation(b, kind));
                        most = fmax(most, fabs((double)hidden[i]));
                    }
                    tfi_reference_matvec(want, &down, hidden);
                    for (int i = 0; biased && i < DIM; i++) want[i] += down_bias[i];
                    worst = fmax(worst, test_difference(want, y + t * DIM, DIM) / (1 + most));
                }
            }
    CHECK(worst <= 5e-6);
    GROUP("mlp, every activation, gated or not: error %.1e", worst);
}

static void test_embedding(void) {
    static float storage[11 * 7], out[4 * 7], x[3 * 7], p[3 * 11], want[11];
    static const int32_t tokens[4] = {10, 0, 3, 3};
    double worst = 0;
    transformer_tensor table;
    for (int d = 0; d < 3; d++) {
        make_matrix(&table, storage, dtypes[d], 11, 7, 3);
        CHECK(!transformer_embedding(out, &table, tokens, 4));
        for (int i = 0; i < 4; i++) {
            float row[7];
            tfi_decode(row, &table, (size_t)tokens[i] * 7, 7);
            CHECK(memcmp(row, out + i * 7, sizeof row) == 0);
        }
        fill(x, 3 * 7, 8, 2);
        CHECK(!transformer_unembedding(p, x, &table, 3));
        for (int i = 0; i < 3; i++) {
            tfi_reference_matvec(want, &table, x + i * 7);
            tfi_reference_softmax(want, 11);
            worst = fmax(worst, test_difference(want, p + i * 11, 11));
        }
    }
    CHECK(worst <= 1e-6);
    GROUP("embedding exact; unembedding: error %.1e", worst);
}

/* ---- attention: the definition, one query and head at a time, in double ---- */

static int sees(const transformer_attention_args *a, int i, int j) {
    int here = a->n_keys - a->n_queries + i; /* the query's own position */
    if (a->causal && j > here) return 0;
    if (a->causal && a->window && here - j >= a->window) return 0;
    return a->mask ? a->mask[i * a->n_keys + j] != 0 : 1;
}

static double check_attention(const transformer_attention_args *a) {
    double worst = 0, scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)a->key_dim);
    for (int h = 0; h < a->n_heads; h++)
        for (int i = 0; i < a->n_queries; i++) {
            double score[80], sum = 0, most = -DBL_MAX;
            int kv = h * a->n_kv_heads / a->n_heads, row = (h * a->n_queries + i) * a->n_keys;
            for (int j = 0; j < a->n_keys; j++) {
                score[j] = 0;
                for (int d = 0; d < a->key_dim; d++)
                    score[j] += (double)a->q[(i * a->n_heads + h) * a->key_dim + d] *
                                (double)a->k[(j * a->n_kv_heads + kv) * a->key_dim + d];
                score[j] *= scale;
                if (a->softcap > 0)
                    score[j] = (double)a->softcap * tanh(score[j] / (double)a->softcap);
                if (a->scores) worst = fmax(worst, fabs((double)a->scores[row + j] - score[j]));
                if (sees(a, i, j)) most = fmax(most, score[j]);
            }
            for (int j = 0; j < a->n_keys; j++) sum += sees(a, i, j) ? exp(score[j] - most) : 0;
            for (int j = 0; j < a->n_keys; j++) {
                score[j] = sees(a, i, j) ? exp(score[j] - most) / sum : 0;
                if (a->weights) worst = fmax(worst, fabs((double)a->weights[row + j] - score[j]));
                if (a->weights && !sees(a, i, j)) CHECK(a->weights[row + j] == 0);
            }
            for (int d = 0; d < a->value_dim; d++) {
                double want = 0;
                float got = a->out[(i * a->n_heads + h) * a->value_dim + d];
                for (int j = 0; j < a->n_keys; j++)
                    want += score[j] * (double)a->v[(j * a->n_kv_heads + kv) * a->value_dim + d];
                worst = fmax(worst, fabs((double)got - want));
                if (sum == 0) CHECK(got == 0);
            }
        }
    return worst;
}

static int choose(uint32_t *seed, int n) { return (int)(test_hash(++*seed) % (uint32_t)n); }

static void test_attention(void) {
    enum { N = 80, WIDE = 12 * 40 };
    static float q[N * WIDE], k[N * WIDE], v[N * WIDE], out[N * WIDE];
    static float scores[12 * N * N], weights[12 * N * N];
    static uint8_t mask[N * N];
    static const int heads[][2] = {{1, 1}, {4, 4}, {6, 2}, {5, 1}, {12, 3}};
    double worst = 0;
    uint32_t seed = 1;
    int blind = 0, seen[4] = {0, 0, 0, 0};
    for (int round = 0; round < 400; round++) {
        transformer_attention_args a;
        memset(&a, 0, sizeof a);
        fill(q, N * WIDE, seed, 1.5f), fill(k, N * WIDE, seed + 1, 1.5f), fill(v, N * WIDE, 3, 1);
        a.q = q, a.k = k, a.v = v, a.out = out;
        a.n_keys = 1 + choose(&seed, round % 4 ? 20 : N), a.n_queries = 1 + choose(&seed, N);
        a.causal = choose(&seed, 2);
        if (a.n_queries > a.n_keys && (a.causal || a.n_queries > 25)) a.n_queries = a.n_keys;
        if (a.causal && choose(&seed, 2)) a.window = 1 + choose(&seed, 30);
        const int *pair = heads[choose(&seed, 5)];
        a.n_heads = pair[0], a.n_kv_heads = pair[1];
        a.key_dim = 1 + choose(&seed, 40), a.value_dim = 1 + choose(&seed, 40);
        if (choose(&seed, 2)) a.scale = choose(&seed, 2) ? 0.37f : -0.2f;
        if (choose(&seed, 3) == 0) a.softcap = 1.5f;
        if (choose(&seed, 2)) a.scores = scores;
        if (choose(&seed, 2)) a.weights = weights;
        if (choose(&seed, 2)) {
            int rows = a.n_queries;
            for (int i = 0; i < rows * a.n_keys; i++) mask[i] = (uint8_t)(choose(&seed, 3) * 7);
            memset(mask + choose(&seed, rows) * a.n_keys, 0, (size_t)a.n_keys); /* sees nothing */
            a.mask = mask, blind++;
        }
        seen[a.causal] += 1, seen[2] += a.n_queries != a.n_keys, seen[3] += a.window != 0;
        CHECK(transformer_attention(&a) == TRANSFORMER_OK);
        worst = fmax(worst, check_attention(&a));
    }
    CHECK(blind > 50 && seen[0] > 50 && seen[1] > 50 && seen[2] > 50 && seen[3] > 50);
    CHECK(worst <= 5e-6);
    /* keys all alike: the mean of the values; no keys at all: zeros */
    transformer_attention_args a;
    memset(&a, 0, sizeof a);
    float values[4] = {1, 2, 3, 6}, one[1] = {1}, same[4] = {5, 5, 5, 5};
    a.q = one, a.k = same, a.v = values, a.out = out, a.n_queries = 1, a.n_keys = 4;
    a.n_heads = a.n_kv_heads = a.key_dim = a.value_dim = 1;
    CHECK(!transformer_attention(&a) && out[0] == 3);
    a.n_keys = 0, out[0] = 9;
    CHECK(!transformer_attention(&a) && out[0] == 0);
    float w[4], o[1];
    tfi_reference_attention(o, w, q, k, v, 4, 8, 1, 0.5f);
    a.q = q, a.k = k, a.v = v, a.n_keys = 4, a.key_dim = 8, a.scale = 0.5f, a.weights = weights;
    CHECK(!transformer_attention(&a) && test_difference(w, weights, 4) <= 1e-6 &&
          test_difference(o, out, 1) <= 1e-6);
    GROUP("attention, 400 random shapes, masks, windows, caps: error %.1e", worst);
}

/* ---- wrong arguments: ARGUMENT, and nothing written ---- */

static float guarded[64];
static int untouched(void) {
    int good = 1;
    for (int i = 0; i < 64; i++) good &= guarded[i] == 12345;
    return good;
}
#define REFUSED(call) CHECK((call) == TRANSFORMER_ARGUMENT && untouched())

static void test_attention_arguments(void) {
    static float x[64];
    transformer_attention_args good, a;
    memset(&good, 0, sizeof good);
    good.q = good.k = good.v = x, good.out = good.scores = good.weights = guarded;
    good.n_queries = good.n_keys = good.n_heads = good.n_kv_heads = good.key_dim = 2;
    good.value_dim = 2;
    REFUSED(transformer_attention(NULL));
#define WITH(change) a = good, change, REFUSED(transformer_attention(&a))
    WITH(a.q = NULL);
    WITH(a.k = NULL);
    WITH(a.v = NULL);
    WITH(a.out = NULL);
    WITH(a.n_queries = -1);
    WITH(a.n_keys = -1);
    WITH(a.n_heads = 0);
    WITH(a.n_heads = -2);
    WITH(a.n_kv_heads = 0);
    WITH(a.n_kv_heads = 3);
    WITH(a.n_heads = 3);
    WITH(a.key_dim = 0);
    WITH(a.value_dim = 0);
    WITH(a.window = -1);
    WITH((a.causal = 1, a.n_queries = 3));
#undef WITH
}

static void test_arguments(void) {
    static float x[64];
    static const int32_t tokens[2] = {0, 4}, negative[2] = {0, -1};
    transformer_tensor w = {x, TRANSFORMER_F32, 4, 4}, bad, up = {x, TRANSFORMER_F32, 4, 4};
    float scratch[8];
    for (int i = 0; i < 64; i++) guarded[i] = 12345;
    REFUSED(transformer_matmul(NULL, x, &w, NULL, 1));
    REFUSED(transformer_matmul(guarded, NULL, &w, NULL, 1));
    REFUSED(transformer_matmul(guarded, x, NULL, NULL, 1));
    REFUSED(transformer_matmul(guarded, x, &w, NULL, -1));
#define WITH(change) bad = w, change, REFUSED(transformer_matmul(guarded, x, &bad, NULL, 1))
    WITH(bad.data = NULL);
    WITH(bad.dtype = 77);
    WITH(bad.rows = -1);
    WITH(bad.cols = -1);
    WITH(bad.data = (const char *)x + 1);
#undef WITH
    REFUSED(transformer_softmax(NULL, 4));
    REFUSED(transformer_softmax(guarded, -1));
    REFUSED(transformer_layernorm(NULL, x, NULL, NULL, 4, 1));
    REFUSED(transformer_layernorm(guarded, NULL, NULL, NULL, 4, 1));
    REFUSED(transformer_layernorm(guarded, x, NULL, NULL, -4, 1));
    REFUSED(transformer_rmsnorm(NULL, x, NULL, 4, 1));
    REFUSED(transformer_rmsnorm(guarded, NULL, NULL, 4, 1));
    REFUSED(transformer_rmsnorm(guarded, x, NULL, -4, 1));
    REFUSED(transformer_rope_apply(NULL, 1, 4, 4, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, -1, 4, 4, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, 3, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, 6, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, -2, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, -4, 4, 0, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, 4, 2, 1e4, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, 4, 0, 0, 1));
    REFUSED(transformer_rope_apply(guarded, 1, 4, 4, 0, (double)NAN, 1));
    REFUSED(transformer_activate(NULL, 1, 0));
    REFUSED(transformer_activate(guarded, -1, 0));
    REFUSED(transformer_activate(guarded, 1, -1));
    REFUSED(transformer_activate(guarded, 1, TRANSFORMER_IDENTITY + 1));
    REFUSED(transformer_embedding(NULL, &w, tokens, 1));
    REFUSED(transformer_embedding(guarded, NULL, tokens, 1));
    REFUSED(transformer_embedding(guarded, &w, NULL, 1));
    REFUSED(transformer_embedding(guarded, &w, tokens, -1));
    REFUSED(transformer_embedding(guarded, &w, tokens, 2));
    REFUSED(transformer_embedding(guarded, &w, negative, 2));
    REFUSED(transformer_unembedding(NULL, x, &w, 1));
    REFUSED(transformer_unembedding(guarded, NULL, &w, 1));
    REFUSED(transformer_unembedding(guarded, x, NULL, 1));
    REFUSED(transformer_unembedding(guarded, x, &w, -1));
#define MLP(out, in, gate, u, d, kind, n, s)                                                       \
    REFUSED(transformer_mlp(out, in, gate, u, d, NULL, NULL, NULL, kind, n, s))
    MLP(NULL, x, NULL, &up, &w, 0, 1, scratch);
    MLP(guarded, NULL, NULL, &up, &w, 0, 1, scratch);
    MLP(guarded, x, NULL, NULL, &w, 0, 1, scratch);
    MLP(guarded, x, NULL, &up, NULL, 0, 1, scratch);
    MLP(guarded, x, NULL, &up, &w, 0, 1, NULL);
    MLP(guarded, x, NULL, &up, &w, 0, -1, scratch);
    MLP(guarded, x, NULL, &up, &w, -1, 1, scratch);
    MLP(guarded, x, NULL, &up, &w, TRANSFORMER_IDENTITY + 1, 1, scratch);
    bad = w, bad.cols = 3;
    MLP(guarded, x, &bad, &up, &w, 0, 1, scratch);
    MLP(guarded, x, NULL, &up, &bad, 0, 1, scratch);
    bad = w, bad.data = NULL;
    MLP(guarded, x, NULL, &bad, &w, 0, 1, scratch);
    MLP(guarded, x, &bad, &up, &w, 0, 1, scratch);
    MLP(guarded, x, NULL, &up, &bad, 0, 2, scratch);
    test_attention_arguments();
    CHECK(transformer_matmul(guarded, x, &w, NULL, 0) == TRANSFORMER_OK && untouched());
    CHECK(transformer_softmax(guarded, 0) == TRANSFORMER_OK && untouched());
    CHECK(transformer_layernorm(guarded, x, NULL, NULL, 0, 1) == TRANSFORMER_OK && untouched());
    CHECK(transformer_activate(guarded, 0, 0) == TRANSFORMER_OK && untouched());
    CHECK(transformer_embedding(guarded, &w, tokens, 0) == TRANSFORMER_OK && untouched());
    GROUP("wrong arguments are refused, nothing is written; nothing asked, nothing done");
}

/* ---- rotary tables: the formulas again, independently, then numbers known from elsewhere ---- */

static transformer_rope rope_of(int scaling, int dims, double theta, double factor, int original) {
    transformer_rope r;
    memset(&r, 0, sizeof r);
    r.scaling = scaling, r.dims = dims, r.theta = theta, r.factor = factor;
    r.original_context = original, r.attention_factor = 1, r.truncate = 1;
    r.low_freq_factor = 1, r.high_freq_factor = 4, r.beta_fast = 32, r.beta_slow = 1;
    for (int i = 0; i < dims / 2; i++)
        r.short_factors[i] = 1 + 0.03f * (float)i, r.long_factors[i] = 1 + 0.9f * (float)i;
    return r;
}

/* Wavelengths instead of frequencies, so that no expression is shared. */
static double wavelength(const transformer_rope *r, int i, int length) {
    const double turn = 2 * acos(-1.0);
    double theta = r->theta, d = r->dims, grown = (double)length / r->original_context;
    if (r->scaling == TRANSFORMER_ROPE_NTK) theta *= exp(log(r->factor) * d / (d - 2));
    if (r->scaling == TRANSFORMER_ROPE_DYNAMIC && length > r->original_context)
        theta *= exp(log(1 + r->factor * (grown - 1)) * d / (d - 2));
    double plain = turn * exp(log(theta) * 2 * i / d), stretched = plain * r->factor;
    switch (r->scaling) {
    case TRANSFORMER_ROPE_LINEAR: return stretched;
    case TRANSFORMER_ROPE_LLAMA3: {
        double turns = r->original_context / plain, low = r->low_freq_factor,
               high = r->high_freq_factor;
        if (turns >= high) return plain;
        if (turns <= low) return stretched;
        double keep = (turns - low) / (high - low);
        return 1 / (keep / plain + (1 - keep) / stretched);
    }
    case TRANSFORMER_ROPE_YARN: {
        /* dimension at which `beta` turns fit: theta^(2 dim / d) = original / (2 pi beta) */
        double low = d / 2 * log(r->original_context / turn / r->beta_fast) / log(theta);
        double high = d / 2 * log(r->original_context / turn / r->beta_slow) / log(theta);
        if (r->truncate) low = floor(low), high = ceil(high);
        low = low > 0 ? low : 0, high = high < d - 1 ? high : d - 1;
        double ramp = (i - low) / (high - low != 0 ? high - low : 0.001);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        return 1 / (ramp / stretched + (1 - ramp) / plain);
    }
    case TRANSFORMER_ROPE_LONG:
        return plain *
               (double)(length > r->original_context ? r->long_factors[i] : r->short_factors[i]);
    default: return plain;
    }
}

static void test_rope_tables(void) {
    static tfi_rope_table table;
    static const double factors[] = {1, 2, 8, 32};
    static const int dims[] = {2, 4, 16, 64, 128, 512};
    double worst = 0;
    for (int scaling = 0; scaling <= TRANSFORMER_ROPE_LONG; scaling++)
        for (int f = 0; f < 4; f++)
            for (int d = 0; d < 6; d++)
                for (int i = 0; i < 12; i++) {
                    int original = i & 1 ? 8192 : 256, truncate = i & 2 ? 1 : 0;
                    int lengths[3] = {0, original, original * 5}, length = lengths[i / 4];
                    if (dims[d] == 2 &&
                        (scaling == TRANSFORMER_ROPE_NTK || scaling == TRANSFORMER_ROPE_DYNAMIC))
                        continue; /* the exponent d / (d - 2) does not exist */
                    transformer_rope r =
                        rope_of(scaling, dims[d], i & 1 ? 5e5 : 1e4, factors[f], original);
                    r.truncate = truncate, r.reverse = i & 1;
                    tfi_resolve_rope(&table, &r, length);
                    CHECK(table.pairs == dims[d] / 2);
                    for (int p = 0; p < table.pairs; p++) {
                        double want = 2 * acos(-1.0) / wavelength(&r, p, length);
                        double got = r.reverse ? -table.frequency[p] : table.frequency[p];
                        worst = fmax(worst, fabs(got / want - 1));
                    }
                }
    CHECK(worst <= 1e-12);
    GROUP("rotary tables of every scaling, lengths below and above: relative error %.1e", worst);
}

/* Frequencies 0, 1/4, 1/2, 3/4 and last of published configurations (computed by an independent
 * program from the formulas of their model code). */
typedef struct known_rope {
    const char *name;
    int scaling, dims;
    double theta, factor;
    int original, truncate, length;
    double frequency[5];
} known_rope;
static const known_rope known_ropes[] = {{"Llama 3.1 (factor 8)",
                                          TRANSFORMER_ROPE_LLAMA3,
                                          128,
                                          5e5,
                                          8,
                                          8192,
                                          0,
                                          0,
                                          {1.0, 0.03760603093086393, 0.0005248461609929547,
                                           6.647869871181235e-06, 3.068925988914511e-07}},
                                         {"Llama 3.2 (factor 32)",
                                          TRANSFORMER_ROPE_LLAMA3,
                                          64,
                                          5e5,
                                          32,
                                          8192,
                                          0,
                                          0,
                                          {1.0, 0.03760603093086393, 0.00042955679655936815,
                                           1.6619674677953088e-06, 9.41830672543491e-08}},
                                         {"DeepSeek V3 yarn",
                                          TRANSFORMER_ROPE_YARN,
                                          64,
                                          1e4,
                                          40,
                                          4096,
                                          1,
                                          0,
                                          {1.0, 0.1, 0.0055, 2.5e-05, 3.3338035804083097e-06}},
                                         {"gpt-oss yarn",
                                          TRANSFORMER_ROPE_YARN,
                                          64,
                                          150000,
                                          32,
                                          4096,
                                          0,
                                          0,
                                          {1.0, 0.050813274815461475, 0.00045648391922324086,
                                           4.09997848180298e-06, 3.0235114281192144e-07}},
                                         {"Qwen 2.5 yarn",
                                          TRANSFORMER_ROPE_YARN,
                                          128,
                                          1e6,
                                          4,
                                          32768,
                                          1,
                                          0,
                                          {1.0, 0.03162277660168379, 0.0006029411764705882,
                                           7.905694150420949e-06, 3.102344401879299e-07}},
                                         {"linear",
                                          TRANSFORMER_ROPE_LINEAR,
                                          8,
                                          1e4,
                                          4,
                                          0,
                                          0,
                                          0,
                                          {0.25, 0.025, 0.0025, 0.00025, 0.00025}},
                                         {"dynamic",
                                          TRANSFORMER_ROPE_DYNAMIC,
                                          8,
                                          1e4,
                                          2,
                                          2048,
                                          0,
                                          4096,
                                          {1.0, 0.06933612743506347, 0.004807498567691361,
                                           0.0003333333333333334, 0.0003333333333333334}}};

static void test_known_ropes(void) {
    static tfi_rope_table table;
    double worst = 0;
    for (size_t i = 0; i < sizeof known_ropes / sizeof known_ropes[0]; i++) {
        const known_rope *known = &known_ropes[i];
        int pairs = known->dims / 2;
        int at[5] = {0, pairs / 4, pairs / 2, pairs * 3 / 4, pairs - 1};
        transformer_rope r =
            rope_of(known->scaling, known->dims, known->theta, known->factor, known->original);
        r.truncate = known->truncate;
        tfi_resolve_rope(&table, &r, known->length);
        for (int j = 0; j < 5; j++)
            worst = fmax(worst, fabs(table.frequency[at[j]] / known->frequency[j] - 1));
    }
    CHECK(worst <= 1e-12);
    transformer_rope r = rope_of(TRANSFORMER_ROPE_YARN, 64, 150000, 32, 4096);
    CHECK(fabs(tfi_yarn_dimension(&r, 32) - 8.0928) < 1e-4);
    CHECK(fabs(tfi_yarn_dimension(&r, 1) - 17.3980) < 1e-4);
    static const double six[] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};
    static const double last_of_twelve[] = {0.7071067811865476, 0.35355339059327384,
                                            0.17677669529663695, 0.08838834764831849};
    for (int h = 0; h < 6; h++) CHECK((double)tfi_alibi_slope(h, 6, 8) == six[h]);
    for (int h = 0; h < 4; h++)
        CHECK((double)tfi_alibi_slope(8 + h, 12, 8) == (double)(float)last_of_twelve[h]);
    GROUP("rotary tables of seven published configurations: relative error %.1e; ALiBi slopes",
          worst);
}

int main(void) {
    for (int i = 0; tfi_rows[i]; i++) {
        if (!row_runs(tfi_rows[i])) {
            SKIP("%s: not on this CPU", tfi_rows[i]->name);
            continue;
        }
        test_elementary(tfi_rows[i]);
        test_activations(tfi_rows[i]);
    }
    test_scalar_erf();
    test_activations_differ();
    test_softmax();
    test_norms();
    test_rope_apply();
    test_matmul();
    test_mlp();
    test_embedding();
    test_attention();
    test_arguments();
    test_rope_tables();
    test_known_ropes();
    return test_finish();
}
