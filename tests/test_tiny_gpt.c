/* Every intermediate of a two-layer GPT whose weights come from a hash, against numbers from PyTorch in double
 * precision (tests/data/tiny_gpt.json, see tests/data/README.md): each tap site, logits tied and untied, both GELUs,
 * greedy text, ablations through taps, the logit lens, causality. */
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "test.h"

enum { VOCAB = 13, DIM = 16, HEADS = 4, HEAD_DIM = 4, LAYERS = 2, CONTEXT = 8, MLP = 64, N = 5 };
static const int32_t prompt[N] = {1, 4, 7, 2, 9};
static char *json;

/* Element i of tensor t: base + scale * noise, bit for bit as the reference script has it. */
static void fill(float *out, int rows, int cols, int id, double scale, double base) {
    for (int i = 0; i < rows * cols; i++) {
        double u = (double)(test_hash((uint32_t)id * 65536u + (uint32_t)i) >> 8) / 16777216.0;
        out[i] = (float)(base + scale * (u - 0.5));
    }
}

typedef struct source {
    int role, offset; /* tensor id = offset, or 16 * (layer + 1) + offset */
    double scale, base;
    int first_row; /* q, k, v are rows of one matrix */
} source;
static const source sources[] = {{TRANSFORMER_EMBEDDING, 1, .4, 0, 0},
                                 {TRANSFORMER_POSITION_EMBEDDING, 2, .2, 0, 0},
                                 {TRANSFORMER_FINAL_NORM, 3, .2, 1, 0},
                                 {TRANSFORMER_FINAL_NORM_BIAS, 4, .2, 0, 0},
                                 {TRANSFORMER_HEAD, 5, .8, 0, 0},
                                 {TRANSFORMER_ATTN_NORM, 0, .2, 1, 0},
                                 {TRANSFORMER_ATTN_NORM_BIAS, 1, .2, 0, 0},
                                 {TRANSFORMER_Q, 2, 1, 0, 0},
                                 {TRANSFORMER_K, 2, 1, 0, DIM},
                                 {TRANSFORMER_V, 2, 1, 0, 2 * DIM},
                                 {TRANSFORMER_Q_BIAS, 3, .2, 0, 0},
                                 {TRANSFORMER_K_BIAS, 3, .2, 0, DIM},
                                 {TRANSFORMER_V_BIAS, 3, .2, 0, 2 * DIM},
                                 {TRANSFORMER_ATTN_OUT, 4, .6, 0, 0},
                                 {TRANSFORMER_ATTN_OUT_BIAS, 5, .2, 0, 0},
                                 {TRANSFORMER_MLP_NORM, 6, .2, 1, 0},
                                 {TRANSFORMER_MLP_NORM_BIAS, 7, .2, 0, 0},
                                 {TRANSFORMER_MLP_UP, 8, .6, 0, 0},
                                 {TRANSFORMER_MLP_UP_BIAS, 9, .2, 0, 0},
                                 {TRANSFORMER_MLP_DOWN, 10, .4, 0, 0},
                                 {TRANSFORMER_MLP_DOWN_BIAS, 11, .2, 0, 0}};

typedef struct gpt {
    transformer_config config;
    float *flat;
    transformer_model *model;
    transformer_state *state;
    transformer_workspace *work;
} gpt;

static void fill_tensor(const gpt *g, const source *s, int layer, int per_layer) {
    static float whole[3 * DIM * 64];
    size_t offset = 0;
    int rows, cols, id = per_layer ? 16 * (layer + 1) + s->offset : s->offset;
    if (!transformer_tensor_shape(&g->config, s->role, layer, &rows, &cols)) return;
    transformer_flat_offset(&g->config, TRANSFORMER_F32, s->role, layer, &offset);
    fill(whole, rows == 1 ? 1 : rows + s->first_row, rows == 1 ? cols + s->first_row : cols, id,
         s->scale, s->base);
    memcpy((char *)g->flat + offset, whole + s->first_row * (rows == 1 ? 1 : cols),
           (size_t)(rows * cols) * sizeof(float));
}

static gpt build(int tied, int activation) {
    gpt g;
    transformer_error error;
    transformer_options options = {0};
    transformer_config *c = &g.config;
    transformer_config_defaults(c);
    c->dim = DIM, c->n_layers = LAYERS, c->n_heads = HEADS, c->head_dim = HEAD_DIM;
    c->mlp_dim = MLP, c->vocab_size = VOCAB, c->context = CONTEXT;
    c->norm = TRANSFORMER_NORM_LAYER, c->norm_bias = 1, c->gated = 0, c->activation = activation;
    c->position = TRANSFORMER_POSITION_LEARNED, c->rope[0].dims = 0, c->tied = tied;
    c->biases = TRANSFORMER_BIAS_Q | TRANSFORMER_BIAS_K | TRANSFORMER_BIAS_V |
                TRANSFORMER_BIAS_ATTN_OUT | TRANSFORMER_BIAS_MLP_UP | TRANSFORMER_BIAS_MLP_DOWN;
    size_t size = transformer_flat_size(c, TRANSFORMER_F32);
    g.flat = (float *)aligned_alloc(64, (size + 63) / 64 * 64);
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        int per_layer = i >= 5;
        for (int l = 0; l < (per_layer ? LAYERS : 1); l++)
            fill_tensor(&g, &sources[i], l, per_layer);
    }
    g.model = transformer_model_new(c, &options, &error);
    CHECK(g.model && !transformer_bind_flat(g.model, g.flat, size, TRANSFORMER_F32, &error));
    g.state = transformer_state_new(g.model, &options, &error);
    g.work = transformer_workspace_new(g.model, &options, &error);
    CHECK(g.state && g.work);
    return g;
}

static void destroy(gpt *g) {
    transformer_free(g->work), transformer_free(g->state), transformer_free(g->model);
    free(g->flat);
}

static int golden(const char *section, const char *name, float *out, int max) {
    const char *keys[] = {section, name, "data"};
    return test_json_numbers(json, keys, 3, out, max);
}

/* Runs the prompt with a tap and returns all logits. */
static void run(gpt *g, const int32_t *tokens, int n, const transformer_tap *tap, float *logits) {
    transformer_sequence sequence = {0};
    transformer_call call = {0};
    transformer_error error;
    sequence.state = g->state, sequence.n = n, sequence.tokens = tokens;
    sequence.logits = logits, sequence.logits_rows = TRANSFORMER_LOGITS_ALL;
    call.sequences = &sequence, call.n_sequences = 1, call.tap = tap;
    CHECK(transformer_state_rewind(g->state, 0) == TRANSFORMER_OK);
    CHECK(transformer_run(g->model, g->work, &call, &error) == TRANSFORMER_OK);
}

/* ---- every activation ---- */

typedef struct named_site {
    int site;
    const char *name;
    int heads; /* the golden is [head][token][...], ours [token][head][...] */
} named_site;
static const named_site named_sites[] = {{TRANSFORMER_SITE_EMBEDDING, "embed", 0},
                                         {TRANSFORMER_SITE_RESIDUAL_PRE, "resid_pre", 0},
                                         {TRANSFORMER_SITE_ATTN_NORM, "ln1", 0},
                                         {TRANSFORMER_SITE_Q, "q", 1},
                                         {TRANSFORMER_SITE_K, "k", 1},
                                         {TRANSFORMER_SITE_V, "v", 1},
                                         {TRANSFORMER_SITE_Q_ROTATED, "q", 1},
                                         {TRANSFORMER_SITE_K_ROTATED, "k", 1},
                                         {TRANSFORMER_SITE_SCORES, "attn_scaled", 1},
                                         {TRANSFORMER_SITE_WEIGHTS, "pattern", 1},
                                         {TRANSFORMER_SITE_Z, "z", 1},
                                         {TRANSFORMER_SITE_ATTN_OUT, "attn_out", 0},
                                         {TRANSFORMER_SITE_RESIDUAL_MID, "resid_mid", 0},
                                         {TRANSFORMER_SITE_MLP_NORM, "ln2", 0},
                                         {TRANSFORMER_SITE_MLP_PRE, "mlp_pre", 0},
                                         {TRANSFORMER_SITE_MLP_ACT, "mlp_post", 0},
                                         {TRANSFORMER_SITE_MLP_OUT, "mlp_out", 0},
                                         {TRANSFORMER_SITE_RESIDUAL_POST, "resid_post", 0},
                                         {TRANSFORMER_SITE_FINAL_NORM, "ln_f", 0},
                                         {TRANSFORMER_SITE_LOGITS, "logits", 0}};
static double site_worst[TRANSFORMER_N_SITES];
static int site_views[TRANSFORMER_N_SITES];

/* Compares one view with the golden of its site, whichever way the heads are ordered there. */
static int compare_view(void *user, const transformer_view *v) {
    static float expected[4096];
    const named_site *s = (const named_site *)user;
    char name[32];
    while (s->site != v->site) s++;
    if (v->layer < 0) snprintf(name, sizeof name, "%s", s->name);
    else snprintf(name, sizeof name, "%d.%s", v->layer, s->name);
    int n = golden("tied.erf", name, expected, 4096), per_key = v->n_keys > 0;
    int heads = s->heads ? HEADS : 1, wide = per_key ? N : v->width / heads;
    CHECK(n == heads * N * wide);
    for (int t = 0; t < v->n; t++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < (per_key ? v->n_keys : wide); i++) {
                float have =
                    v->data[(size_t)t * v->stride + (size_t)(h * (per_key ? v->n_keys : wide) + i)];
                float want = expected[(h * N + v->position + t) * wide + i];
                site_worst[v->site] = fmax(site_worst[v->site], fabs((double)have - (double)want));
            }
    site_views[v->site]++;
    return 0;
}

static void test_every_site(void) {
    static float scratch[2 * HEADS * CONTEXT], logits[N * VOCAB], plain[N * VOCAB];
    gpt g = build(1, TRANSFORMER_GELU);
    transformer_tap tap = {0};
    tap.sites = (1u << TRANSFORMER_N_SITES) - 1, tap.function = compare_view;
    tap.user = (void *)(uintptr_t)named_sites;
    tap.scratch = scratch, tap.scratch_size = sizeof scratch;
    run(&g, prompt, N, NULL, plain);
    run(&g, prompt, N, &tap, logits);
    CHECK(memcmp(plain, logits, sizeof plain) == 0);
    double worst = 0;
    for (size_t i = 0; i < sizeof named_sites / sizeof named_sites[0]; i++) {
        int site = named_sites[i].site;
        CHECK(site_views[site] > 0);
        CHECK(site_worst[site] <= 2e-5);
        worst = fmax(worst, site_worst[site]);
    }
    CHECK(site_views[TRANSFORMER_SITE_MLP_UP] == 0); /* not a gated model */
    GROUP("every tap site equals the reference: largest error %.1e", worst);
    destroy(&g);
}

static void test_logits(void) {
    static const struct {
        const char *name;
        int tied, activation;
    } cases[] = {{"tied.erf", 1, TRANSFORMER_GELU},
                 {"tied.tanh", 1, TRANSFORMER_GELU_TANH},
                 {"untied.erf", 0, TRANSFORMER_GELU},
                 {"untied.tanh", 0, TRANSFORMER_GELU_TANH}};
    for (int i = 0; i < 4; i++) {
        float want[N * VOCAB], have[N * VOCAB];
        gpt g = build(cases[i].tied, cases[i].activation);
        CHECK(golden(cases[i].name, "logits", want, N * VOCAB) == N * VOCAB);
        run(&g, prompt, N, NULL, have);
        double worst = test_difference(want, have, N * VOCAB);
        CHECK(worst <= 2e-5);
        GROUP("logits %s: largest error %.1e", cases[i].name, worst);
        destroy(&g);
    }
}

static void test_greedy_and_causality(void) {
    float want[CONTEXT], logits[CONTEXT * VOCAB], other[CONTEXT * VOCAB];
    const char *keys[] = {"greedy"};
    int32_t tokens[CONTEXT];
    gpt g = build(1, TRANSFORMER_GELU);
    CHECK(test_json_numbers(json, keys, 1, want, CONTEXT) == CONTEXT);
    memcpy(tokens, prompt, sizeof prompt);
    for (int n = N; n < CONTEXT; n++) {
        run(&g, tokens, n, NULL, logits);
        const float *last = logits + (n - 1) * VOCAB;
        int best = 0;
        for (int i = 1; i < VOCAB; i++) best = last[i] > last[best] ? i : best;
        tokens[n] = best;
        CHECK(best == (int)want[n]);
    }
    run(&g, prompt, N, NULL, logits);
    memcpy(tokens, prompt, sizeof prompt), tokens[N - 1] = 3;
    run(&g, tokens, N, NULL, other);
    CHECK(memcmp(logits, other, (N - 1) * VOCAB * sizeof(float)) == 0);
    CHECK(memcmp(logits, other, N * VOCAB * sizeof(float)) != 0);
    GROUP("greedy continuation; a later token does not change earlier logits");
    destroy(&g);
}

/* ---- interventions ---- */

typedef struct ablation {
    int layer, head, frozen;
    float weights[LAYERS][N][HEADS * N]; /* the clean run's, for the frozen variant */
    int record;
} ablation;

static int ablate(void *user, const transformer_view *v) {
    ablation *a = (ablation *)user;
    if (v->site == TRANSFORMER_SITE_WEIGHTS) {
        size_t bytes = (size_t)v->width * sizeof(float);
        if (a->record) memcpy(a->weights[v->layer][v->position], v->data, bytes);
        else memcpy(v->data, a->weights[v->layer][v->position], bytes);
    }
    if (v->site == TRANSFORMER_SITE_Z && v->layer == a->layer)
        for (int t = 0; t < v->n; t++)
            memset(v->data + (size_t)t * v->stride + a->head * HEAD_DIM, 0,
                   HEAD_DIM * sizeof(float));
    return 0;
}

static void test_ablation(void) {
    static float scratch[2 * HEADS * CONTEXT], logits[N * VOCAB];
    static ablation a;
    double worst = 0;
    gpt g = build(1, TRANSFORMER_GELU);
    transformer_tap tap = {0};
    tap.function = ablate, tap.user = &a, tap.scratch = scratch, tap.scratch_size = sizeof scratch;
    tap.sites = 1u << TRANSFORMER_SITE_WEIGHTS, a.record = 1;
    run(&g, prompt, N, &tap, logits);
    a.record = 0;
    for (int frozen = 0; frozen < 2; frozen++)
        for (a.layer = 0; a.layer < LAYERS; a.layer++)
            for (a.head = 0; a.head < HEADS; a.head++) {
                float want[VOCAB];
                char name[16];
                const char *keys[] = {"ablation", name, frozen ? "pattern_preserving" : "full"};
                snprintf(name, sizeof name, "L%dH%d", a.layer, a.head);
                CHECK(test_json_numbers(json, keys, 3, want, VOCAB) == VOCAB);
                tap.sites = 1u << TRANSFORMER_SITE_Z;
                if (frozen) tap.sites |= 1u << TRANSFORMER_SITE_WEIGHTS;
                run(&g, prompt, N, &tap, logits);
                worst = fmax(worst, test_difference(want, logits + (N - 1) * VOCAB, VOCAB));
            }
    CHECK(worst <= 2e-5);
    GROUP("ablating each head, attention patterns free or frozen: largest error %.1e", worst);
    destroy(&g);
}

/* ---- the logit lens: final norm and unembedding of every residual stream, with the public kernels ---- */

typedef struct lens {
    gpt *g;
    int rows;
    float logits[2 * LAYERS + 1][VOCAB];
} lens;

static int look(void *user, const transformer_view *v) {
    lens *l = (lens *)user;
    const float *weight, *bias, *x = v->data + (size_t)(v->n - 1) * v->stride;
    float h[DIM];
    size_t offset = 0;
    transformer_tensor table = {0};
    if (v->site == TRANSFORMER_SITE_RESIDUAL_PRE && v->layer > 0) return 0;
    transformer_flat_offset(&l->g->config, TRANSFORMER_F32, TRANSFORMER_FINAL_NORM, 0, &offset);
    weight = l->g->flat + offset / sizeof(float);
    transformer_flat_offset(&l->g->config, TRANSFORMER_F32, TRANSFORMER_FINAL_NORM_BIAS, 0,
                            &offset);
    bias = l->g->flat + offset / sizeof(float);
    table.data = l->g->flat, table.rows = VOCAB, table.cols = DIM;
    CHECK(transformer_layernorm(h, x, weight, bias, DIM, 1e-5f) == TRANSFORMER_OK);
    CHECK(transformer_matmul(l->logits[l->rows++], h, &table, NULL, 1) == TRANSFORMER_OK);
    return 0;
}

static void test_logit_lens(void) {
    static float want[5 * VOCAB], logits[N * VOCAB];
    const char *keys[] = {"logit_lens_last"};
    gpt g = build(1, TRANSFORMER_GELU);
    lens l;
    transformer_tap tap = {0};
    memset(&l, 0, sizeof l), l.g = &g;
    tap.function = look, tap.user = &l;
    tap.sites = 1u << TRANSFORMER_SITE_RESIDUAL_PRE | 1u << TRANSFORMER_SITE_RESIDUAL_MID |
                1u << TRANSFORMER_SITE_RESIDUAL_POST;
    run(&g, prompt, N, &tap, logits);
    CHECK(l.rows == 5 && test_json_numbers(json, keys, 1, want, 5 * VOCAB) == 5 * VOCAB);
    double worst = test_difference(want, l.logits[0], 5 * VOCAB);
    CHECK(worst <= 2e-5);
    GROUP("logit lens through taps and public kernels: largest error %.1e", worst);
    destroy(&g);
}

int main(void) {
    json = test_read_file("tests/data/tiny_gpt.json", NULL);
    if (!json) {
        fprintf(stderr, "tests/data/tiny_gpt.json: cannot be read (run from the project's root)\n");
        return 1;
    }
    test_every_site();
    test_logits();
    test_greedy_and_causality();
    test_ablation();
    test_logit_lens();
    free(json);
    return test_finish();
}
