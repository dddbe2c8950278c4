/* Sebastian Raschka's "Understanding and Coding the Self-Attention Mechanism of Large Language
 * Models From Scratch" (2023) and "... Self-Attention, Multi-Head Attention, Cross-Attention, and
 * Causal-Attention in LLMs" (2024), step by step with the public kernels: every tensor of
 * tests/data/raschka.json is an input or is reproduced. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "test.h"

enum { N_TENSORS = 59, MOST = 2048 };
static const double tolerance = 1e-5;
static char *json;
static char seen[N_TENSORS][48];
static int n_seen, n_inputs;
static double worst;

/* Reads a tensor; counts it once. */
static int take(const char *name, float *out) {
    const char *keys[2] = {name, "data"};
    int n = test_json_numbers(json, keys, 2, out, MOST), i = 0;
    if (n <= 0) fprintf(stderr, "%s: not in raschka.json\n", name);
    CHECK(n > 0);
    while (i < n_seen && strcmp(seen[i], name) != 0) i++;
    if (i == n_seen && i < N_TENSORS) snprintf(seen[n_seen++], sizeof seen[0], "%s", name);
    return n;
}

static void input(const char *name, float *out, int n) {
    int before = n_seen;
    CHECK(take(name, out) == n);
    n_inputs += n_seen - before;
}

static void check(const char *name, const float *have, int n) {
    static float want[MOST];
    CHECK(take(name, want) == n);
    double off = 0; /* relative where the number is above 1: omegas go up to 145 */
    for (int i = 0; i < n; i++) {
        double size = fmax(1, fabs((double)want[i]));
        off = fmax(off, test_difference(want + i, have + i, 1) / size);
    }
    if (off > tolerance) fprintf(stderr, "%s: off by %g\n", name, off);
    CHECK(off <= tolerance);
    worst = fmax(worst, off);
}

/* y = W x for n rows: the 2023 article keeps W as [out, in] and multiplies W.matmul(x), which is
 * how this library has it; the 2024 article keeps [in, out] and multiplies x @ W. */
static void project(float *y, const float *x, const float *w, int out, int in, int n,
                    int in_first) {
    static float turned[MOST];
    transformer_tensor t;
    for (int i = 0; in_first && i < in; i++)
        for (int o = 0; o < out; o++) turned[o * in + i] = w[i * out + o];
    t.data = in_first ? turned : w, t.dtype = TRANSFORMER_F32, t.rows = out, t.cols = in;
    CHECK(transformer_matmul(y, x, &t, NULL, n) == TRANSFORMER_OK);
}

/* One head.  scale 0 is 1 / sqrt(key_dim); 1 gives the bare dot products, the articles' omega. */
static void attend(float *out, float *scores, float *weights, const float *q, const float *k,
                   const float *v, int n_queries, int n_keys, int key_dim, int value_dim,
                   float scale, int causal) {
    static float unused[MOST];
    transformer_attention_args a;
    memset(&a, 0, sizeof a);
    a.q = q, a.k = k, a.v = v, a.out = out ? out : unused, a.scores = scores, a.weights = weights;
    a.n_queries = n_queries, a.n_keys = n_keys, a.n_heads = a.n_kv_heads = 1;
    a.key_dim = key_dim, a.value_dim = value_dim, a.scale = scale, a.causal = causal;
    CHECK(transformer_attention(&a) == TRANSFORMER_OK);
}

/* ---- the 2023 article: 6 tokens, 16 dimensions, keys of 24 and values of 28 ---- */

enum { T = 6, D = 16, KEY = 24, VALUE = 28, SECOND = 1, T2 = 8 };

static void attention_2023(void) {
    static float table[T * D], x[T * D], wq[KEY * D], wk[KEY * D], wv[VALUE * D], other[T2 * D];
    static float q[T * KEY], k[T2 * KEY], v[T2 * VALUE], scores[T * T2], weights[T * T2];
    static float context[T * VALUE], one[KEY];
    static const int32_t sentence[T] = {0, 4, 5, 2, 1, 3}; /* "Life is short, eat dessert first" */
    transformer_tensor embedding = {table, TRANSFORMER_F32, T, D};
    input("b23.embedding_weight", table, T * D);
    CHECK(transformer_embedding(x, &embedding, sentence, T) == TRANSFORMER_OK);
    check("b23.embedded_sentence", x, T * D);
    input("b23.W_query", wq, KEY * D), input("b23.W_key", wk, KEY * D);
    input("b23.W_value", wv, VALUE * D);

    project(one, x + SECOND * D, wq, KEY, D, 1, 0);
    check("b23.query_2", one, KEY);
    project(q, x, wq, KEY, D, T, 0), project(k, x, wk, KEY, D, T, 0);
    project(v, x, wv, VALUE, D, T, 0);
    check("b23.queries", q, T * KEY), check("b23.keys", k, T * KEY);
    check("b23.values", v, T * VALUE);

    attend(NULL, scores, NULL, one, k, v, 1, T, KEY, VALUE, 1, 0);
    check("b23.omega_2", scores, T);
    for (int j = 0; j < T; j++) scores[j] /= sqrtf(KEY); /* by hand first */
    CHECK(transformer_softmax(scores, T) == TRANSFORMER_OK);
    check("b23.attention_weights_2", scores, T);
    attend(context, NULL, weights, one, k, v, 1, T, KEY, VALUE, 0, 0);
    check("b23.attention_weights_2", weights, T);
    check("b23.context_vector_2", context, VALUE);
    attend(NULL, scores, NULL, q, k, v, T, T, KEY, VALUE, 1, 0);
    check("b23.scores_all", scores, T * T);
    attend(context, NULL, weights, q, k, v, T, T, KEY, VALUE, 0, 0);
    check("b23.weights_all", weights, T * T), check("b23.context_all", context, T * VALUE);

    input("b23.cross_embedded_sentence_2", other, T2 * D);
    project(k, other, wk, KEY, D, T2, 0), project(v, other, wv, VALUE, D, T2, 0);
    check("b23.cross_keys", k, T2 * KEY), check("b23.cross_values", v, T2 * VALUE);
    attend(NULL, scores, NULL, one, k, v, 1, T2, KEY, VALUE, 1, 0);
    check("b23.cross_omega_2", scores, T2);
    attend(context, NULL, weights, one, k, v, 1, T2, KEY, VALUE, 0, 0);
    check("b23.cross_weights_2", weights, T2), check("b23.cross_context_2", context, VALUE);
    GROUP("2023: self-attention and cross-attention");
}

/* Three heads: one call with n_heads = 3, whose layout puts the heads of a token side by side; the
 * article has one matrix per head, one after the other. */
static void multi_head_2023(void) {
    enum { H = 3 };
    static float x[T * D], wq[H * KEY * D], wk[H * KEY * D], wv[H * VALUE * D];
    static float q[H * KEY], k[T * H * KEY], v[T * H * VALUE], scores[H * T], weights[H * T];
    static float context[H * VALUE], by_head[H * T * VALUE];
    transformer_attention_args a;
    input("b23.embedded_sentence", x, T * D);
    input("b23.mh_W_query", wq, H * KEY * D), input("b23.mh_W_key", wk, H * KEY * D);
    input("b23.mh_W_value", wv, H * VALUE * D);
    project(q, x + SECOND * D, wq, H * KEY, D, 1, 0);
    project(k, x, wk, H * KEY, D, T, 0), project(v, x, wv, H * VALUE, D, T, 0);
    check("b23.mh_query_2", q, H * KEY);
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++)
            memcpy(by_head + (h * T + t) * KEY, k + (t * H + h) * KEY, KEY * sizeof(float));
    check("b23.mh_keys", by_head, H * T * KEY);
    for (int h = 0; h < H; h++)
        for (int t = 0; t < T; t++)
            memcpy(by_head + (h * T + t) * VALUE, v + (t * H + h) * VALUE, VALUE * sizeof(float));
    check("b23.mh_values", by_head, H * T * VALUE);
    memset(&a, 0, sizeof a);
    a.q = q, a.k = k, a.v = v, a.out = context, a.scores = scores, a.weights = weights;
    a.n_queries = 1, a.n_keys = T, a.n_heads = a.n_kv_heads = H;
    a.key_dim = KEY, a.value_dim = VALUE, a.scale = 1;
    CHECK(transformer_attention(&a) == TRANSFORMER_OK);
    check("b23.mh_omega_2", scores, H * T);
    a.scale = 0;
    CHECK(transformer_attention(&a) == TRANSFORMER_OK);
    check("b23.mh_weights_2", weights, H * T), check("b23.mh_context_2", context, H * VALUE);
    GROUP("2023: three heads");
}

/* ---- the 2024 article: 3 dimensions, keys of 2, values of 4; weights [in, out] ---- */

enum { D3 = 3, KEY2 = 2, VALUE4 = 4 };

static void attention_2024(void) {
    static float x[T * D3], other[T2 * D3], wq[D3 * KEY2], wk[D3 * KEY2], wv[D3 * VALUE4];
    static float q[T * KEY2], k[T2 * KEY2], v[T2 * VALUE4], scores[T * T2], weights[T * T2];
    static float context[T * VALUE4];
    input("m24.embedded_sentence", x, T * D3), input("m24.W_query", wq, D3 * KEY2);
    input("m24.W_key", wk, D3 * KEY2), input("m24.W_value", wv, D3 * VALUE4);
    project(q, x, wq, KEY2, D3, T, 1), project(k, x, wk, KEY2, D3, T, 1);
    project(v, x, wv, VALUE4, D3, T, 1);
    attend(context, scores, NULL, q + SECOND * KEY2, k, v, 1, T, KEY2, VALUE4, 1, 0);
    check("m24.omega_2", scores, T);
    attend(context, NULL, weights, q + SECOND * KEY2, k, v, 1, T, KEY2, VALUE4, 0, 0);
    check("m24.attention_weights_2", weights, T), check("m24.context_vector_2", context, VALUE4);
    attend(context, NULL, NULL, q, k, v, T, T, KEY2, VALUE4, 0, 0);
    check("m24.SelfAttention_out", context, T * VALUE4);

    input("m24.cross_second_input", other, T2 * D3);
    project(k, other, wk, KEY2, D3, T2, 1), project(v, other, wv, VALUE4, D3, T2, 1);
    attend(context, NULL, NULL, q, k, v, T, T2, KEY2, VALUE4, 0, 0);
    check("m24.cross_out", context, T * VALUE4);
    GROUP("2024: self-attention and cross-attention");
}

static void multi_head_2024(void) {
    static float x[T * D3], wq[D3 * KEY2], wk[D3 * KEY2], wv[D3];
    static float q[T * KEY2], k[T * KEY2], v[T], context[T], all[T * 4];
    input("m24.embedded_sentence", x, T * D3);
    for (int h = 0; h < 4; h++) {
        char name[32];
        snprintf(name, sizeof name, "m24.mh%d.W_query", h), input(name, wq, D3 * KEY2);
        snprintf(name, sizeof name, "m24.mh%d.W_key", h), input(name, wk, D3 * KEY2);
        snprintf(name, sizeof name, "m24.mh%d.W_value", h), input(name, wv, D3);
        project(q, x, wq, KEY2, D3, T, 1), project(k, x, wk, KEY2, D3, T, 1);
        project(v, x, wv, 1, D3, T, 1);
        attend(context, NULL, NULL, q, k, v, T, T, KEY2, 1, 0, 0);
        if (h == 0) check("m24.SingleHead_dv1_out", context, T);
        for (int t = 0; t < T; t++) all[t * 4 + h] = context[t];
    }
    check("m24.MultiHeadWrapper_out", all, T * 4);
    GROUP("2024: four heads of one value");
}

static void causal_2024(void) {
    static float x[T * D3], wq[D3 * KEY2], wk[D3 * KEY2], wv[D3 * VALUE4];
    static float q[T * KEY2], k[T * KEY2], v[T * VALUE4], scores[T * T], weights[T * T];
    static float context[T * VALUE4], renormalised[T * T];
    input("m24.embedded_sentence", x, T * D3), input("m24.W_query", wq, D3 * KEY2);
    input("m24.W_key", wk, D3 * KEY2), input("m24.W_value", wv, D3 * VALUE4);
    project(q, x, wq, KEY2, D3, T, 1), project(k, x, wk, KEY2, D3, T, 1);
    project(v, x, wv, VALUE4, D3, T, 1);
    attend(NULL, scores, NULL, q, k, v, T, T, KEY2, VALUE4, 1, 0);
    check("m24.causal_scores", scores, T * T);
    attend(NULL, NULL, weights, q, k, v, T, T, KEY2, VALUE4, 0, 0);
    check("m24.causal_unmasked_weights", weights, T * T);
    for (int i = 0; i < T; i++) { /* cut off the future, divide by what is left */
        float sum = 0;
        for (int j = 0; j <= i; j++) sum += weights[i * T + j];
        for (int j = 0; j < T; j++) renormalised[i * T + j] = j <= i ? weights[i * T + j] / sum : 0;
    }
    check("m24.causal_renormalised", renormalised, T * T);
    attend(context, NULL, weights, q, k, v, T, T, KEY2, VALUE4, 0, 1);
    check("m24.causal_weights", weights, T * T); /* the mask before the softmax: the same */
    check("m24.causal_context", context, T * VALUE4);
    CHECK(test_difference(weights, renormalised, T * T) <= tolerance);
    GROUP("2024: causal attention, masked before or renormalised after");
}

int main(void) {
    int total = 0;
    json = test_read_file("tests/data/raschka.json", NULL);
    if (!json) {
        fprintf(stderr, "tests/data/raschka.json: cannot be read (run from the project's root)\n");
        return 1;
    }
    attention_2023();
    multi_head_2023();
    attention_2024();
    multi_head_2024();
    causal_2024();
    for (const char *p = json; (p = strstr(p, "\"shape\"")) != NULL; p++) total++;
    CHECK(total == N_TENSORS && n_seen == total);
    GROUP("%d of %d tensors: %d inputs, %d reproduced, largest error %.1e", n_seen, total, n_inputs,
          n_seen - n_inputs, worst);
    free(json);
    return test_finish();
}
