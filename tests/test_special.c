/* Models that no file describes: encoders, blocks without norms, attention-only and MLP-only stacks,
 * every wiring, position scheme, scale and cap, and random combinations of them all, against a
 * forward pass in double precision written here once more, as plainly as possible, for the whole of
 * transformer_config. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "test.h"

enum { MAX_LAYERS = 4, MAX_DIM = 40, MAX_TOKENS = 80, MAX_WIDE = 16 * 24, MAX_VOCAB = 300 };

/* ---- weights: float storage to bind, and what it means in double ---- */

typedef struct weights {
    double *value[TRANSFORMER_N_ROLES][MAX_LAYERS]; /* as stored, rounded to the type; or NULL */
    void *data[TRANSFORMER_N_ROLES][MAX_LAYERS];
    int rows[TRANSFORMER_N_ROLES][MAX_LAYERS], cols[TRANSFORMER_N_ROLES][MAX_LAYERS];
} weights;

static int is_norm_weight(int role) {
    return role == TRANSFORMER_EMBEDDING_NORM || role == TRANSFORMER_ATTN_NORM ||
           role == TRANSFORMER_Q_NORM || role == TRANSFORMER_K_NORM ||
           role == TRANSFORMER_ATTN_POST_NORM || role == TRANSFORMER_MLP_NORM ||
           role == TRANSFORMER_MLP_POST_NORM || role == TRANSFORMER_FINAL_NORM;
}

static void make_tensor(weights *w, const transformer_config *c, int role, int layer, int dtype,
                        uint32_t seed) {
    int rows, cols, shape = transformer_tensor_shape(c, role, layer, &rows, &cols);
    w->value[role][layer] = NULL, w->data[role][layer] = NULL;
    if (!shape) return;
    size_t n = (size_t)rows * (size_t)cols;
    int vector = rows == 1 && role != TRANSFORMER_EMBEDDING && role != TRANSFORMER_HEAD;
    double scale = vector ? 0.5 : 3 / sqrt((double)cols), base = 0;
    if (role == TRANSFORMER_EMBEDDING || role == TRANSFORMER_POSITION_EMBEDDING) scale = 2;
    if (is_norm_weight(role) && !c->norm_plus_one) base = 1;
    double *value = w->value[role][layer] = (double *)malloc(n * sizeof(double));
    unsigned char *data = (unsigned char *)malloc(n * transformer_dtype_size(dtype));
    for (size_t i = 0; i < n; i++) {
        float x = (float)(base + scale * (double)test_noise(seed * 131071u + (uint32_t)i));
        uint16_t half = dtype == TRANSFORMER_F16 ? tfi_to_f16(x) : tfi_to_bf16(x);
        if (dtype == TRANSFORMER_F32) memcpy(data + i * 4, &x, 4);
        else memcpy(data + i * 2, &half, 2);
        if (dtype == TRANSFORMER_F16) x = tfi_from_f16(half);
        if (dtype == TRANSFORMER_BF16) x = tfi_from_bf16(half);
        value[i] = (double)x;
    }
    w->data[role][layer] = data, w->rows[role][layer] = rows, w->cols[role][layer] = cols;
}

static int layers_of(const transformer_config *c, int role) {
    int global = role < TRANSFORMER_ATTN_NORM || role >= TRANSFORMER_FINAL_NORM;
    return global ? 1 : c->n_layers;
}

static void make_weights(weights *w, const transformer_config *c, int dtype, uint32_t seed) {
    memset(w, 0, sizeof *w);
    for (int role = 0; role < TRANSFORMER_N_ROLES; role++)
        for (int l = 0; l < layers_of(c, role); l++)
            make_tensor(w, c, role, l, dtype, seed + (uint32_t)(role * 8 + l));
}

static void free_weights(weights *w) {
    for (int role = 0; role < TRANSFORMER_N_ROLES; role++)
        for (int l = 0; l < MAX_LAYERS; l++) free(w->value[role][l]), free(w->data[role][l]);
}

/* ---- the reference: all tokens at once, scalar loops, double ---- */

typedef struct reference {
    const transformer_config *c;
    const weights *w;
    int n, rope_length;
    int head_dim, value_dim, embedding_dim;
    double x[MAX_TOKENS][MAX_DIM], h[MAX_TOKENS][MAX_DIM], embedded[MAX_TOKENS][MAX_DIM];
    double q[MAX_TOKENS][MAX_WIDE], k[MAX_TOKENS][MAX_WIDE], v[MAX_TOKENS][MAX_WIDE];
    double z[MAX_TOKENS][MAX_WIDE], block[2][MAX_TOKENS][MAX_DIM];
} reference;

/* y = W x + b */
static void ref_linear(const reference *r, int role, int bias_role, int l, double *y,
                       const double *x) {
    int cols = r->w->cols[role][l];
    const double *b = bias_role < 0 ? NULL : r->w->value[bias_role][l];
    for (int i = 0; i < r->w->rows[role][l]; i++) {
        y[i] = b ? b[i] : 0;
        for (int j = 0; j < cols; j++) y[i] += r->w->value[role][l][i * cols + j] * x[j];
    }
}

/* Norm in place; weight and bias start at element `first`. */
static void ref_norm(const reference *r, int role, int l, double *x, int n, int first) {
    const double *weight = r->w->value[role][l], *bias = r->w->value[role + 1][l];
    double mean = 0, variance = 0;
    for (int i = 0; i < n && r->c->norm == TRANSFORMER_NORM_LAYER; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++) {
        x[i] = (x[i] - mean) / sqrt(variance + (double)r->c->norm_eps);
        if (weight) x[i] *= weight[first + i] + (r->c->norm_plus_one ? 1 : 0);
        if (bias) x[i] += bias[first + i];
    }
}

static double ref_activation(double x, int kind) {
    const double pi = acos(-1.0);
    if (kind == TRANSFORMER_SILU) return x / (1 + exp(-x));
    if (kind == TRANSFORMER_GELU) return x * erfc(-x / sqrt(2.0)) / 2;
    if (kind == TRANSFORMER_GELU_TANH)
        return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3))));
    if (kind == TRANSFORMER_GELU_QUICK) return x / (1 + exp(-1.702 * x));
    if (kind == TRANSFORMER_RELU) return fmax(x, 0);
    if (kind == TRANSFORMER_RELU2) return pow(fmax(x, 0), 2);
    if (kind == TRANSFORMER_TANH) return tanh(x);
    if (kind == TRANSFORMER_SIGMOID) return 1 / (1 + exp(-x));
    return x;
}

static void ref_embed(reference *r, const int32_t *tokens, const float *given) {
    const transformer_config *c = r->c;
    for (int t = 0; t < r->n; t++) {
        double *e = r->embedded[t], *x = r->x[t];
        for (int i = 0; i < r->embedding_dim; i++)
            e[i] = given ? (double)given[t * r->embedding_dim + i]
                         : r->w->value[TRANSFORMER_EMBEDDING][0][tokens[t] * r->embedding_dim + i] *
                               (double)c->embedding_scale;
        if (r->embedding_dim == c->dim) memcpy(x, e, sizeof r->x[t]);
        else ref_linear(r, TRANSFORMER_EMBEDDING_PROJECTION, -1, 0, x, e);
        for (int i = 0; i < c->dim; i++) {
            if (c->position == TRANSFORMER_POSITION_LEARNED)
                x[i] += r->w->value[TRANSFORMER_POSITION_EMBEDDING][0]
                                   [(t + c->position_offset) * c->dim + i];
            if (c->position == TRANSFORMER_POSITION_SINUSOIDAL) {
                double angle = t / pow(10000, (double)(i / 2 * 2) / c->dim);
                x[i] += i % 2 ? cos(angle) : sin(angle);
            }
        }
        if (c->embedding_norm) ref_norm(r, TRANSFORMER_EMBEDDING_NORM, 0, x, c->dim, 0);
    }
}

/* Inverse frequency of pair i. */
static double ref_frequency(const transformer_rope *p, int dims, int i, int length) {
    const double pi = acos(-1.0);
    double theta = p->theta, original = p->original_context;
    if (length < p->original_context) length = p->original_context;
    if (p->scaling == TRANSFORMER_ROPE_NTK) theta *= pow(p->factor, dims / (dims - 2.0));
    if (p->scaling == TRANSFORMER_ROPE_DYNAMIC)
        theta *= pow(p->factor * length / original - p->factor + 1, dims / (dims - 2.0));
    double f = 1 / pow(theta, 2.0 * i / dims), turns = original * f / (2 * pi);
    if (p->scaling == TRANSFORMER_ROPE_LINEAR) return f / p->factor;
    if (p->scaling == TRANSFORMER_ROPE_LONG)
        return f / (double)(length > p->original_context ? p->long_factors : p->short_factors)[i];
    if (p->scaling == TRANSFORMER_ROPE_LLAMA3) {
        double keep = (turns - p->low_freq_factor) / (p->high_freq_factor - p->low_freq_factor);
        keep = fmin(1, fmax(0, keep));
        return keep * f + (1 - keep) * f / p->factor;
    }
    if (p->scaling == TRANSFORMER_ROPE_YARN) {
        double low = dims * log(original / (p->beta_fast * 2 * pi)) / (2 * log(p->theta));
        double high = dims * log(original / (p->beta_slow * 2 * pi)) / (2 * log(p->theta));
        if (p->truncate) low = floor(low), high = ceil(high);
        low = fmax(low, 0), high = fmin(high, dims - 1);
        if (low == high) high += 0.001;
        double ramp = fmin(1, fmax(0, (i - low) / (high - low)));
        return f / p->factor * ramp + f * (1 - ramp);
    }
    return f;
}

static void ref_rotate(const reference *r, int l, double *x, int position) {
    int id = r->c->layers[l].rope;
    if (id < 0 || r->c->rope[id].dims == 0) return;
    const transformer_rope *p = &r->c->rope[id];
    int dims = p->dims < 0 ? r->head_dim : p->dims;
    for (int i = 0; i < dims / 2; i++) {
        int a = p->pairing == TRANSFORMER_ROPE_HALF ? i : 2 * i;
        int b = p->pairing == TRANSFORMER_ROPE_HALF ? i + dims / 2 : 2 * i + 1;
        double angle = position * ref_frequency(p, dims, i, r->rope_length), old = x[a];
        if (p->reverse) angle = -angle;
        x[a] = (old * cos(angle) - x[b] * sin(angle)) * p->attention_factor;
        x[b] = (old * sin(angle) + x[b] * cos(angle)) * p->attention_factor;
    }
}

/* Norm and rotation of the heads of one token. */
static void ref_heads(const reference *r, int role, int l, double *x, int heads, int position) {
    int d = r->head_dim, kind = r->c->qk_norm;
    for (int stage = 0; stage < 2; stage++) { /* norm then rotation, or the other way round */
        if (stage == (r->c->qk_norm_after_rope ? 1 : 0)) {
            if (kind == TRANSFORMER_QK_NORM_FULL) ref_norm(r, role, l, x, heads * d, 0);
            for (int h = 0; h < heads; h++) {
                if (kind == TRANSFORMER_QK_NORM_HEAD) ref_norm(r, role, l, x + h * d, d, 0);
                if (kind == TRANSFORMER_QK_NORM_PER_HEAD) ref_norm(r, role, l, x + h * d, d, h * d);
            }
        } else
            for (int h = 0; h < heads; h++) ref_rotate(r, l, x + h * d, position);
    }
}

static void ref_clip(const reference *r, double *x, int n) {
    double c = (double)r->c->qkv_clip;
    for (int i = 0; c > 0 && i < n; i++) x[i] = fmin(c, fmax(-c, x[i]));
}

static double bf16(double x) { return (double)tfi_from_bf16(tfi_to_bf16((float)x)); }

static double ref_alibi(const reference *r, int head, int heads, int key, double scale) {
    int power = 1;
    double slope;
    while (power * 2 <= heads) power *= 2;
    if (head < power) slope = pow(2, -(double)r->c->alibi_max_bias * (head + 1) / power);
    else slope = pow(2, -(double)r->c->alibi_max_bias * (2 * (head - power) + 1) / (2 * power));
    /* slope * key and slope * (key - query) differ by what the softmax takes away */
    return r->c->alibi_falcon ? bf16(bf16(slope) * bf16(key)) * scale : slope * key;
}

static void ref_attend(reference *r, int l, int t, int head, int heads, int kv_heads) {
    const transformer_config *c = r->c;
    int kv = head / (heads / kv_heads), window = c->layers[l].window;
    double score[MAX_TOKENS], most = -1e300, sum = 0;
    double scale = c->layers[l].attn_scale != 0 ? (double)c->layers[l].attn_scale
                   : c->attn_scale != 0         ? (double)c->attn_scale
                                                : 1 / sqrt((double)r->head_dim);
    for (int j = 0; j < r->n; j++) {
        score[j] = 0;
        for (int i = 0; i < r->head_dim; i++)
            score[j] += r->q[t][head * r->head_dim + i] * r->k[j][kv * r->head_dim + i];
        score[j] *= scale;
        if (c->attn_softcap > 0)
            score[j] = (double)c->attn_softcap * tanh(score[j] / (double)c->attn_softcap);
        if (c->position == TRANSFORMER_POSITION_ALIBI)
            score[j] += ref_alibi(r, head, heads, j, scale);
        if (c->causal && (j > t || (window && t - j >= window))) score[j] = -1e300;
        most = fmax(most, score[j]);
    }
    for (int j = 0; j < r->n; j++) sum += score[j] = score[j] > -1e299 ? exp(score[j] - most) : 0;
    for (int i = 0; i < r->value_dim; i++) {
        double *z = &r->z[t][head * r->value_dim + i];
        *z = 0;
        for (int j = 0; j < r->n; j++) *z += score[j] / sum * r->v[j][kv * r->value_dim + i];
    }
}

/* What the attention block adds, from r->h. */
static void ref_attention(reference *r, int l) {
    const transformer_config *c = r->c;
    int heads = c->layers[l].n_heads ? c->layers[l].n_heads : c->n_heads;
    int kv_heads = c->layers[l].n_kv_heads ? c->layers[l].n_kv_heads
                   : c->n_kv_heads         ? c->n_kv_heads
                                           : heads;
    for (int t = 0; t < r->n; t++) {
        ref_linear(r, TRANSFORMER_Q, TRANSFORMER_Q_BIAS, l, r->q[t], r->h[t]);
        ref_linear(r, TRANSFORMER_K, TRANSFORMER_K_BIAS, l, r->k[t], r->h[t]);
        ref_linear(r, TRANSFORMER_V, TRANSFORMER_V_BIAS, l, r->v[t], r->h[t]);
        ref_clip(r, r->q[t], heads * r->head_dim), ref_clip(r, r->k[t], kv_heads * r->head_dim);
        ref_clip(r, r->v[t], kv_heads * r->value_dim);
        ref_heads(r, TRANSFORMER_Q_NORM, l, r->q[t], heads, t);
        ref_heads(r, TRANSFORMER_K_NORM, l, r->k[t], kv_heads, t);
        for (int i = 0; c->logn_length && i < heads * r->head_dim; i++)
            r->q[t][i] *= fmax(1, log(t + 1.0) / log((double)c->logn_length));
    }
    for (int t = 0; t < r->n; t++) {
        for (int h = 0; h < heads; h++) ref_attend(r, l, t, h, heads, kv_heads);
        ref_linear(r, TRANSFORMER_ATTN_OUT, TRANSFORMER_ATTN_OUT_BIAS, l, r->block[0][t], r->z[t]);
    }
}

static void ref_mlp(reference *r, int l) {
    for (int t = 0; t < r->n; t++) {
        double up[MAX_WIDE], gate[MAX_WIDE];
        ref_linear(r, TRANSFORMER_MLP_UP, TRANSFORMER_MLP_UP_BIAS, l, up, r->h[t]);
        if (r->c->gated)
            ref_linear(r, TRANSFORMER_MLP_GATE, TRANSFORMER_MLP_GATE_BIAS, l, gate, r->h[t]);
        for (int i = 0; i < r->w->rows[TRANSFORMER_MLP_UP][l]; i++)
            up[i] = r->c->gated ? ref_activation(gate[i], r->c->activation) * up[i]
                                : ref_activation(up[i], r->c->activation);
        ref_linear(r, TRANSFORMER_MLP_DOWN, TRANSFORMER_MLP_DOWN_BIAS, l, r->block[1][t], up);
    }
}

static void ref_block_input(reference *r, int role, int l) {
    for (int t = 0; t < r->n; t++) {
        memcpy(r->h[t], r->x[t], sizeof r->h[t]);
        if (r->c->norm_placement & TRANSFORMER_PLACE_INPUT)
            ref_norm(r, role, l, r->h[t], r->c->dim, 0);
        if (r->c->residual_from_norm) memcpy(r->x[t], r->h[t], sizeof r->h[t]);
    }
}

static void ref_finish(reference *r, int which, int post_role, int sum_role, int l) {
    for (int t = 0; t < r->n; t++) {
        double *a = r->block[which][t], *x = r->x[t];
        if (r->c->norm_placement & TRANSFORMER_PLACE_OUTPUT)
            ref_norm(r, post_role, l, a, r->c->dim, 0);
        for (int i = 0; i < r->c->dim; i++) x[i] += (double)r->c->residual_scale * a[i];
        if (r->c->norm_placement & TRANSFORMER_PLACE_SUM) ref_norm(r, sum_role, l, x, r->c->dim, 0);
    }
}

static void ref_layer(reference *r, int l) {
    static double saved[MAX_TOKENS][MAX_DIM];
    const transformer_config *c = r->c;
    int attention = !c->layers[l].no_attention, mlp = !c->layers[l].no_mlp;
    memcpy(saved, r->x, sizeof saved);
    if (attention) {
        ref_block_input(r, TRANSFORMER_ATTN_NORM, l);
        ref_attention(r, l);
        if (!c->parallel) ref_finish(r, 0, TRANSFORMER_ATTN_POST_NORM, TRANSFORMER_ATTN_NORM, l);
    }
    if (mlp) {
        int shared = c->parallel == TRANSFORMER_PARALLEL_SHARED;
        ref_block_input(r, shared ? TRANSFORMER_ATTN_NORM : TRANSFORMER_MLP_NORM, l);
        ref_mlp(r, l);
    }
    if (c->parallel && attention)
        ref_finish(r, 0, TRANSFORMER_ATTN_POST_NORM, TRANSFORMER_ATTN_NORM, l);
    if (mlp) ref_finish(r, 1, TRANSFORMER_MLP_POST_NORM, TRANSFORMER_MLP_NORM, l);
}

static void ref_forward(const transformer_config *c, const weights *w, const int32_t *tokens,
                        const float *given, int n, int rope_length, double *logits) {
    static reference r;
    r.c = c, r.w = w, r.n = n, r.rope_length = rope_length;
    r.head_dim = c->head_dim ? c->head_dim : c->n_heads ? c->dim / c->n_heads : 0;
    r.value_dim = c->value_dim ? c->value_dim : r.head_dim;
    r.embedding_dim = c->embedding_dim ? c->embedding_dim : c->dim;
    ref_embed(&r, tokens, given);
    for (int l = 0; l < c->n_layers; l++) ref_layer(&r, l);
    for (int t = 0; t < n; t++) {
        double *y = logits + t * c->vocab_size, *h = r.x[t];
        if (c->final_norm) ref_norm(&r, TRANSFORMER_FINAL_NORM, 0, h, c->dim, 0);
        if (r.embedding_dim != c->dim) {
            ref_linear(&r, TRANSFORMER_HEAD_PROJECTION, -1, 0, r.embedded[t], h);
            h = r.embedded[t];
        }
        int head = c->tied ? TRANSFORMER_EMBEDDING : TRANSFORMER_HEAD;
        ref_linear(&r, head, TRANSFORMER_HEAD_BIAS, 0, y, h);
        for (int i = 0; i < c->vocab_size; i++) {
            y[i] *= (double)c->logit_scale;
            if (c->logit_softcap > 0)
                y[i] = (double)c->logit_softcap * tanh(y[i] / (double)c->logit_softcap);
        }
    }
}

/* ---- running both ---- */

typedef struct setting {
    int dtype, n, given, chunk; /* chunk: tokens per call, 0 = all at once */
    uint32_t seed;
    transformer_options options;
} setting;

typedef struct outcome {
    double error, largest; /* of the logits */
} outcome;

static transformer_model *bind(const transformer_config *c, const weights *w, const setting *s) {
    transformer_error error = {TRANSFORMER_OK, ""};
    transformer_model *m = transformer_model_new(c, &s->options, &error);
    for (int role = 0; m && role < TRANSFORMER_N_ROLES; role++)
        for (int l = 0; l < layers_of(c, role); l++) {
            transformer_tensor t = {w->data[role][l], s->dtype, w->rows[role][l], w->cols[role][l]};
            if (t.data && transformer_bind(m, role, l, &t, &error)) {
                fprintf(stderr, "bind: %s\n", error.text);
                transformer_free(m);
                return NULL;
            }
        }
    if (m && transformer_model_ready(m, &error) == TRANSFORMER_OK) return m;
    fprintf(stderr, "model: %s\n", error.text);
    transformer_free(m);
    return NULL;
}

static int run_model(const transformer_model *m, const setting *s, const int32_t *tokens,
                     const float *given, float *logits) {
    const transformer_config *c = transformer_model_config(m);
    transformer_error error;
    transformer_state *state = transformer_state_new(m, &s->options, &error);
    transformer_workspace *work = transformer_workspace_new(m, &s->options, &error);
    int ok = state && work;
    for (int at = 0, n; ok && at < s->n; at += n) {
        transformer_sequence q;
        transformer_call call;
        memset(&q, 0, sizeof q), memset(&call, 0, sizeof call);
        n = s->chunk && s->chunk < s->n - at ? s->chunk : s->n - at;
        q.state = state, q.n = n, q.logits_rows = TRANSFORMER_LOGITS_ALL;
        if (given) q.embeddings = given + at * c->embedding_dim;
        else q.tokens = tokens + at;
        q.logits = logits + at * c->vocab_size;
        call.sequences = &q, call.n_sequences = 1;
        ok = transformer_run(m, work, &call, &error) == TRANSFORMER_OK;
    }
    if (!ok) fprintf(stderr, "run: %s\n", error.text);
    transformer_free(work), transformer_free(state);
    return ok;
}

static outcome compare(const transformer_config *c, const setting *s) {
    static float logits[MAX_TOKENS * MAX_VOCAB], given[MAX_TOKENS * MAX_DIM];
    static double want[MAX_TOKENS * MAX_VOCAB];
    static weights w;
    int32_t tokens[MAX_TOKENS];
    outcome o = {1e30, 0};
    transformer_error error;
    if (transformer_config_check(c, &error)) {
        fprintf(stderr, "config: %s\n", error.text);
        return o;
    }
    make_weights(&w, c, s->dtype, s->seed * 1000u);
    for (int t = 0; t < s->n; t++)
        tokens[t] = (int32_t)(test_hash(s->seed + (uint32_t)t) % (uint32_t)c->vocab_size);
    for (int i = 0; i < MAX_TOKENS * MAX_DIM; i++) given[i] = 2 * test_noise((uint32_t)i);
    ref_forward(c, &w, tokens, s->given ? given : NULL, s->n, s->options.rope_length, want);
    transformer_model *m = bind(c, &w, s);
    if (m && run_model(m, s, tokens, s->given ? given : NULL, logits)) {
        o.error = 0;
        for (int i = 0; i < s->n * c->vocab_size; i++) {
            double off = fabs((double)logits[i] - want[i]);
            if (!(off <= o.error)) o.error = off;
            o.largest = fmax(o.largest, fabs(want[i]));
        }
    }
    transformer_free(m);
    free_weights(&w);
    return o;
}

/* ---- one model per feature ---- */

static void base_config(transformer_config *c) {
    transformer_config_defaults(c);
    c->dim = 24, c->n_layers = 3, c->n_heads = 4, c->head_dim = 8, c->mlp_dim = 36;
    c->vocab_size = 29, c->context = MAX_TOKENS;
}

static void encoder(transformer_config *c) { c->causal = 0; }
static void no_norms(transformer_config *c) {
    c->norm_placement = 0, c->final_norm = 0, c->residual_scale = 0.5f;
}
static void attention_only(transformer_config *c) {
    for (int l = 0; l < 3; l++) c->layers[l].no_mlp = 1;
    c->norm_placement = 0, c->mlp_dim = 0;
}
static void mlp_only(transformer_config *c) {
    for (int l = 0; l < 3; l++) c->layers[l].no_attention = 1;
    c->n_heads = 0, c->head_dim = 0;
}
static void bigram(transformer_config *c) { c->n_layers = 0, c->final_norm = 0, c->mlp_dim = 0; }
static void bigram_normed(transformer_config *c) { c->n_layers = 0, c->n_heads = 0; }
static void mixed_blocks(transformer_config *c) {
    c->layers[0].no_attention = 1, c->layers[1].no_mlp = 1;
    c->layers[2].no_attention = c->layers[2].no_mlp = 1;
}
static void head_counts(transformer_config *c) {
    c->n_kv_heads = 2;
    c->layers[0].n_heads = 6, c->layers[0].n_kv_heads = 3, c->layers[1].n_heads = 2;
    c->layers[2].n_kv_heads = 1;
}
static void more_heads_own_keys(transformer_config *c) { c->layers[1].n_heads = 8; }
static void fewer_heads_own_keys(transformer_config *c) { c->layers[1].n_heads = 2; }
static void mlp_dims(transformer_config *c) { c->layers[0].mlp_dim = 7, c->layers[2].mlp_dim = 65; }
static void attn_scales(transformer_config *c) {
    c->attn_scale = 0.2f, c->layers[1].attn_scale = 0.9f, c->layers[2].attn_scale = -0.3f;
}
static void sinusoidal(transformer_config *c) {
    c->position = TRANSFORMER_POSITION_SINUSOIDAL, c->rope[0].dims = 0;
}
static void learned(transformer_config *c) {
    c->position = TRANSFORMER_POSITION_LEARNED, c->rope[0].dims = 0, c->position_offset = 2;
}
static void alibi(transformer_config *c) {
    c->position = TRANSFORMER_POSITION_ALIBI, c->rope[0].dims = 0, c->alibi_max_bias = 8;
}
static void alibi_six_heads(transformer_config *c) { alibi(c), c->n_heads = 6; }
static void alibi_falcon(transformer_config *c) { alibi(c), c->n_heads = 7, c->alibi_falcon = 1; }
static void alibi_softcap(transformer_config *c) { alibi(c), c->attn_softcap = 2; }
static void alibi_window(transformer_config *c) { alibi(c), c->layers[1].window = 9; }
static void post_norm(transformer_config *c) { c->norm_placement = TRANSFORMER_PLACE_SUM; }
static void sandwich(transformer_config *c) {
    c->norm_placement = TRANSFORMER_PLACE_INPUT | TRANSFORMER_PLACE_OUTPUT;
}
static void output_norms(transformer_config *c) { c->norm_placement = TRANSFORMER_PLACE_OUTPUT; }
static void parallel_shared(transformer_config *c) { c->parallel = TRANSFORMER_PARALLEL_SHARED; }
static void parallel_two(transformer_config *c) { c->parallel = TRANSFORMER_PARALLEL_TWO; }
static void parallel_sandwich(transformer_config *c) { parallel_two(c), sandwich(c); }
static void parallel_no_norm(transformer_config *c) {
    parallel_shared(c), c->norm_placement = 0, c->residual_scale = 0.5f;
}
static void parallel_mixed(transformer_config *c) { parallel_shared(c), mixed_blocks(c); }
static void residual_from_norm(transformer_config *c) { c->residual_from_norm = 1; }
static void embedding_norm(transformer_config *c) { c->embedding_norm = 1, learned(c); }
static void layer_norm(transformer_config *c) {
    c->norm = TRANSFORMER_NORM_LAYER, c->norm_bias = 1, c->embedding_norm = 1;
}
static void bare_layer_norm(transformer_config *c) {
    c->norm = TRANSFORMER_NORM_LAYER, c->norm_weight = 0;
}
static void plus_one(transformer_config *c) {
    c->norm_plus_one = 1, c->qk_norm = TRANSFORMER_QK_NORM_HEAD;
}
static void qk_head(transformer_config *c) { c->qk_norm = TRANSFORMER_QK_NORM_HEAD; }
static void qk_full(transformer_config *c) {
    c->qk_norm = TRANSFORMER_QK_NORM_FULL, c->n_kv_heads = 2;
}
static void qk_per_head_after(transformer_config *c) {
    c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD, c->n_kv_heads = 2, c->qk_norm_after_rope = 1;
}
static void qk_bare(transformer_config *c) { qk_head(c), c->norm_weight = 0; }
static void qk_layer_biased(transformer_config *c) {
    qk_per_head_after(c), c->norm = TRANSFORMER_NORM_LAYER, c->biases = TRANSFORMER_BIAS_QK_NORM;
}
static void value_dim(transformer_config *c) { c->value_dim = 13, c->n_kv_heads = 2; }
static void small_heads(transformer_config *c) { c->head_dim = 2, c->value_dim = 1; }
static void derived_head_dim(transformer_config *c) { c->head_dim = 0; }
static void projections(transformer_config *c) { c->embedding_dim = 17; }
static void projections_tied(transformer_config *c) {
    c->embedding_dim = 37, c->tied = 1, learned(c), c->embedding_scale = 3;
}
static void logn(transformer_config *c) { c->logn_length = 10; }
static void clip(transformer_config *c) { c->qkv_clip = 0.3f, c->biases = 7; }
static void softcaps(transformer_config *c) { c->attn_softcap = 0.8f, c->logit_softcap = 1.5f; }
static void scales(transformer_config *c) {
    c->embedding_scale = 4.5f, c->residual_scale = 0.3f, c->logit_scale = -0.25f;
}
static void windows(transformer_config *c) {
    c->layers[0].window = 1, c->layers[1].window = 7, c->layers[2].window = 64;
}
static void two_ropes(transformer_config *c) {
    c->rope[1] = c->rope[0], c->rope[1].theta = 1e6, c->rope[1].dims = 4;
    c->rope[1].pairing = TRANSFORMER_ROPE_INTERLEAVED;
    c->layers[0].rope = 1, c->layers[1].rope = -1;
}
static void interleaved(transformer_config *c) {
    c->rope[0].pairing = TRANSFORMER_ROPE_INTERLEAVED;
}
static void partial(transformer_config *c) { c->rope[0].dims = 6; }
static void reverse(transformer_config *c) { c->rope[0].reverse = 1; }
static void scaled_rope(transformer_config *c, int scaling) {
    transformer_rope *r = &c->rope[0];
    r->dims = 8, r->scaling = scaling, r->factor = 4, r->original_context = 16;
    r->low_freq_factor = 0.5, r->high_freq_factor = 2, r->beta_fast = 2, r->beta_slow = 0.2;
    r->attention_factor = 1.2;
    for (int i = 0; i < 4; i++)
        r->short_factors[i] = 1 + (float)i / 4, r->long_factors[i] = 2 + (float)i;
}
static void rope_linear(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_LINEAR); }
static void rope_dynamic(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_DYNAMIC); }
static void rope_ntk(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_NTK); }
static void rope_llama3(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_LLAMA3); }
static void rope_yarn(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_YARN); }
static void rope_yarn_truncated(transformer_config *c) { rope_yarn(c), c->rope[0].truncate = 1; }
static void rope_long(transformer_config *c) { scaled_rope(c, TRANSFORMER_ROPE_LONG); }
static void all_biases(transformer_config *c) { c->biases = 255, qk_head(c); }
static void head_bias(transformer_config *c) {
    c->biases = TRANSFORMER_BIAS_HEAD, c->logit_scale = 0.5f;
}
static void tied(transformer_config *c) { c->tied = 1, c->biases = TRANSFORMER_BIAS_HEAD; }
static void large_vocabulary(transformer_config *c) { c->vocab_size = MAX_VOCAB; }
static void one_of_all(transformer_config *c) {
    c->dim = c->n_heads = c->head_dim = c->mlp_dim = c->vocab_size = 1, c->rope[0].dims = 0;
}

typedef struct special {
    const char *name;
    void (*change)(transformer_config *c);
} special;
#define SPECIAL(name)                                                                              \
    { #name, name }
static const special specials[] = {SPECIAL(encoder),
                                   SPECIAL(no_norms),
                                   SPECIAL(attention_only),
                                   SPECIAL(mlp_only),
                                   SPECIAL(bigram),
                                   SPECIAL(bigram_normed),
                                   SPECIAL(mixed_blocks),
                                   SPECIAL(head_counts),
                                   SPECIAL(more_heads_own_keys),
                                   SPECIAL(fewer_heads_own_keys),
                                   SPECIAL(mlp_dims),
                                   SPECIAL(attn_scales),
                                   SPECIAL(sinusoidal),
                                   SPECIAL(learned),
                                   SPECIAL(alibi),
                                   SPECIAL(alibi_six_heads),
                                   SPECIAL(alibi_falcon),
                                   SPECIAL(alibi_softcap),
                                   SPECIAL(alibi_window),
                                   SPECIAL(post_norm),
                                   SPECIAL(sandwich),
                                   SPECIAL(output_norms),
                                   SPECIAL(parallel_shared),
                                   SPECIAL(parallel_two),
                                   SPECIAL(parallel_sandwich),
                                   SPECIAL(parallel_no_norm),
                                   SPECIAL(parallel_mixed),
                                   SPECIAL(residual_from_norm),
                                   SPECIAL(embedding_norm),
                                   SPECIAL(layer_norm),
                                   SPECIAL(bare_layer_norm),
                                   SPECIAL(plus_one),
                                   SPECIAL(qk_head),
                                   SPECIAL(qk_full),
                                   SPECIAL(qk_per_head_after),
                                   SPECIAL(qk_bare),
                                   SPECIAL(qk_layer_biased),
                                   SPECIAL(value_dim),
                                   SPECIAL(small_heads),
                                   SPECIAL(derived_head_dim),
                                   SPECIAL(projections),
                                   SPECIAL(projections_tied),
                                   SPECIAL(logn),
                                   SPECIAL(clip),
                                   SPECIAL(softcaps),
                                   SPECIAL(scales),
                                   SPECIAL(windows),
                                   SPECIAL(two_ropes),
                                   SPECIAL(interleaved),
                                   SPECIAL(partial),
                                   SPECIAL(reverse),
                                   SPECIAL(rope_linear),
                                   SPECIAL(rope_dynamic),
                                   SPECIAL(rope_ntk),
                                   SPECIAL(rope_llama3),
                                   SPECIAL(rope_yarn),
                                   SPECIAL(rope_yarn_truncated),
                                   SPECIAL(rope_long),
                                   SPECIAL(all_biases),
                                   SPECIAL(head_bias),
                                   SPECIAL(tied),
                                   SPECIAL(large_vocabulary),
                                   SPECIAL(one_of_all)};

static const double tolerance = 1e-4;

static int row_runs(const tfi_kernels *k) { return (k->needs & tfi_cpu()) == k->needs; }

static void test_specials(const char *isa) {
    static transformer_config c;
    double worst = 0, largest = 0;
    int n_specials = (int)(sizeof specials / sizeof specials[0]);
    for (int i = 0; i < n_specials; i++) {
        base_config(&c);
        specials[i].change(&c);
        for (int variant = 0; variant < 3; variant++) {
            setting s;
            memset(&s, 0, sizeof s);
            s.n = variant ? 70 : 5, s.seed = (uint32_t)i + 1, s.options.isa = isa;
            s.options.rope_length = variant ? 70 : 0; /* above and below original_context */
            s.chunk = variant == 2 && c.causal ? 9 : 0, s.options.undo = variant == 2 ? 11 : 0;
            outcome o = compare(&c, &s);
            if (!(o.error <= tolerance))
                fprintf(stderr, "%s, %d tokens: error %g\n", specials[i].name, s.n, o.error);
            CHECK(o.error <= tolerance);
            CHECK(o.largest > 0.02 && o.largest < 60);
            worst = fmax(worst, o.error), largest = fmax(largest, o.largest);
        }
    }
    GROUP("%s: %d special models: largest error %.1e (largest logit %.1f)", isa, n_specials, worst,
          largest);
}

static void test_every_activation(const char *isa) {
    static transformer_config c;
    double worst = 0;
    for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++)
        for (int gated = 0; gated < 2; gated++) {
            setting s;
            memset(&s, 0, sizeof s);
            base_config(&c);
            c.activation = kind, c.gated = gated, c.biases = TRANSFORMER_BIAS_MLP_UP;
            s.n = 12, s.seed = 7, s.options.isa = isa;
            outcome o = compare(&c, &s);
            CHECK(o.error <= tolerance);
            worst = fmax(worst, o.error);
        }
    GROUP("%s: every activation, gated and not: largest error %.1e", isa, worst);
}

/* Each bit of the biases alone: the tensor exists, and it matters. */
static void test_every_bias(const char *isa) {
    static transformer_config c;
    double worst = 0;
    for (int bit = 1; bit < 256; bit *= 2)
        for (int gated = 0; gated < 2; gated++) {
            setting s;
            memset(&s, 0, sizeof s);
            base_config(&c);
            c.biases = bit, c.gated = gated, c.qk_norm = TRANSFORMER_QK_NORM_HEAD;
            s.n = 9, s.seed = (uint32_t)bit, s.options.isa = isa;
            outcome o = compare(&c, &s);
            CHECK(o.error <= tolerance);
            worst = fmax(worst, o.error);
        }
    GROUP("%s: every bias: largest error %.1e", isa, worst);
}

/* ---- random combinations ---- */

static uint32_t dice;
static int roll(int n) { return (int)(test_hash(++dice) % (uint32_t)n); }
static int rarely(int value) { return roll(4) == 0 ? value : 0; }
static float between(float low, float high) {
    return low + (high - low) * (test_noise(++dice) + 0.5f);
}

static void random_rope(transformer_rope *r, int head_dim) {
    r->dims = roll(3) ? head_dim / 2 * 2 : 2 * roll(head_dim / 2 + 1);
    r->pairing = roll(2), r->reverse = roll(2), r->scaling = roll(7);
    if (r->dims == 2 &&
        (r->scaling == TRANSFORMER_ROPE_DYNAMIC || r->scaling == TRANSFORMER_ROPE_NTK))
        r->scaling = TRANSFORMER_ROPE_PLAIN; /* their exponent is dims / (dims - 2) */
    r->original_context = 1 + roll(60), r->truncate = roll(2);
    r->theta = roll(2) ? 1e4 : 500, r->factor = 1 + roll(8);
    r->low_freq_factor = 0.5 + roll(2), r->high_freq_factor = 2 + roll(3);
    r->beta_slow = 0.1 + roll(2), r->beta_fast = 2 + roll(30);
    r->attention_factor = roll(2) ? 1 : 1.3;
    for (int i = 0; i < head_dim / 2; i++)
        r->short_factors[i] = between(1, 3), r->long_factors[i] = between(1, 30);
}

static void random_layer(transformer_config *c, transformer_layer *layer) {
    layer->window = c->causal ? rarely(1 + roll(70)) : 0;
    layer->rope = c->rope[1].dims ? roll(3) - 1 : roll(2) - 1;
    layer->no_attention = roll(8) == 0, layer->no_mlp = roll(8) == 0;
    if (roll(4) == 0) { /* heads of its own, with keys and values for them */
        int group = 1 + roll(3);
        layer->n_kv_heads = 1 + roll(3), layer->n_heads = layer->n_kv_heads * group;
    }
    layer->mlp_dim = rarely(1 + roll(MAX_DIM * 2)),
    layer->attn_scale = rarely(1) ? between(-1, 1) : 0;
}

static void random_config(transformer_config *c) {
    transformer_config_defaults(c);
    /* dim 1 is elsewhere: the norm of one number jumps at 0, and any error with it */
    c->dim = 2 + roll(MAX_DIM - 1), c->n_layers = 1 + roll(MAX_LAYERS), c->n_kv_heads = 1 + roll(3);
    c->n_heads = c->n_kv_heads * (1 + roll(4)), c->head_dim = 1 + roll(20);
    if (roll(3) == 0) c->n_kv_heads = 0;
    c->value_dim = rarely(1 + roll(20)), c->mlp_dim = 1 + roll(MAX_DIM * 2);
    c->vocab_size = roll(4) ? 2 + roll(40) : 200 + roll(MAX_VOCAB - 200);
    c->embedding_dim = rarely(1 + roll(MAX_DIM)), c->context = MAX_TOKENS;
    c->norm = roll(2), c->norm_weight = roll(4) > 0, c->norm_bias = roll(2);
    c->norm_plus_one = roll(2), c->norm_eps = roll(2) ? 1e-5f : 1e-3f;
    c->parallel = rarely(1 + roll(2));
    c->norm_placement = c->parallel || roll(5) ? roll(4) : TRANSFORMER_PLACE_SUM;
    if (c->norm_placement & TRANSFORMER_PLACE_INPUT && !c->parallel)
        c->residual_from_norm = rarely(1);
    c->embedding_norm = rarely(1), c->final_norm = roll(4) > 0, c->causal = roll(5) > 0;
    c->position = roll(4), c->position_offset = roll(3), c->alibi_max_bias = between(1, 9);
    c->alibi_falcon = roll(2);
    random_rope(&c->rope[0], c->head_dim);
    if (roll(2)) random_rope(&c->rope[1], c->head_dim);
    c->biases = roll(2) ? roll(256) : 0, c->qk_norm = rarely(1 + roll(3));
    c->qk_norm_after_rope = roll(2), c->attn_scale = rarely(1) ? between(-1, 1) : 0;
    c->attn_softcap = rarely(1) ? between(0.5f, 5) : 0,
    c->qkv_clip = rarely(1) ? between(0.2f, 2) : 0;
    c->logn_length = rarely(2 + roll(40)), c->activation = roll(9), c->gated = roll(2);
    c->embedding_scale = roll(2) ? 1 : between(0.3f, 2), c->residual_scale = between(0.3f, 0.8f);
    c->logit_scale = roll(2) ? 1 : between(-1, 1);
    c->logit_softcap = rarely(1) ? between(1, 5) : 0, c->tied = roll(2);
    for (int l = 0; l < c->n_layers; l++) random_layer(c, &c->layers[l]);
}

/* Which rows this CPU has, to draw one. */
static const char *random_isa(void) {
    const char *names[8];
    int n = 0;
    for (int i = 0; tfi_rows[i] && n < 8; i++)
        if (row_runs(tfi_rows[i])) names[n++] = tfi_rows[i]->name;
    return names[roll(n)];
}

/* Errors in units of the largest logit if that is above 1: nothing here normalises all models. */
static outcome random_case(uint32_t seed, int dtype, int full_precision, int kv_dtype) {
    static transformer_config c;
    setting s;
    dice = seed * 4096u;
    random_config(&c);
    memset(&s, 0, sizeof s);
    s.dtype = dtype, s.seed = seed, s.given = rarely(1);
    s.n = 1 + (roll(3) ? roll(20) : roll(MAX_TOKENS));
    s.options.isa = random_isa(), s.options.full_precision = full_precision;
    s.options.kv_dtype = kv_dtype, s.options.rope_length = roll(2) ? 0 : 1 + roll(80);
    if (c.causal) {
        s.chunk = rarely(1 + roll(30)), s.options.batch = rarely(1 + roll(30));
        s.options.undo = rarely(1 + roll(20));
    }
    outcome o = compare(&c, &s);
    o.error /= fmax(1, o.largest);
    return o;
}

static void test_random(const char *name, int dtype, int full_precision, int kv_dtype, int cases,
                        double bound) {
    double worst = 0, largest = 0;
    int lively = 0;
    for (int i = 0; i < cases; i++) {
        uint32_t seed = (uint32_t)(i + 1 + 1000 * dtype);
        outcome o = random_case(seed, dtype, full_precision, kv_dtype);
        if (!(o.error <= bound)) fprintf(stderr, "%s: seed %u: error %g\n", name, seed, o.error);
        CHECK(o.error <= bound);
        worst = fmax(worst, o.error), largest = fmax(largest, o.largest);
        lively += o.largest > 0.1;
    }
    CHECK(lively * 10 >= cases * 9);
    GROUP("%d random models, %s: largest error %.1e of %.0e (largest logit %.0f)", cases, name,
          worst, bound, largest);
}

int main(int argc, char **argv) {
    /* with an argument: what is bearable under emulation */
    const int brief = argc > 1, share = brief ? 4 : 1;
    (void)argv;
    for (int i = 0; tfi_rows[i]; i++) {
        if (!row_runs(tfi_rows[i])) {
            SKIP("%s: not on this CPU", tfi_rows[i]->name);
            continue;
        }
        if (brief && !i && tfi_rows[1]) continue; /* scalar, which others cover */
        test_specials(tfi_rows[i]->name);
        test_every_activation(tfi_rows[i]->name);
        test_every_bias(tfi_rows[i]->name);
    }
    test_random("F32", TRANSFORMER_F32, 0, TRANSFORMER_F32, 400 / share, tolerance);
    test_random("F16", TRANSFORMER_F16, 0, TRANSFORMER_F32, 150 / share, tolerance);
    test_random("BF16, full precision", TRANSFORMER_BF16, 1, TRANSFORMER_F32, 150 / share,
                tolerance);
    /* 2^-11 per key and value, 2^-9 per activation, times what the model makes of them */
    test_random("F32, KV cache in F16", TRANSFORMER_F32, 0, TRANSFORMER_F16, 150 / share, 1e-2);
    test_random("BF16", TRANSFORMER_BF16, 0, TRANSFORMER_F32, 150 / share, 1e-1);
    return test_finish();
}
