/* Small random models of every kind that the configuration can express, for tests that need no
 * file.  Odd sizes on purpose: no width is a multiple of a vector.  Include after transformer.h
 * with its implementation. */
#ifndef MODELS_H
#define MODELS_H
#include "blocks.h"
#include "test.h"

enum { MODEL_CONTEXT = 160, MODEL_UNDO = 16, MODEL_MAX_VOCAB = 4200 };

/* ---- shapes: what each adds to the plain Llama block ---- */

static inline void shape_llama(transformer_config *c) {
    transformer_config_defaults(c);
    c->dim = 36, c->n_layers = 2, c->n_heads = 6, c->n_kv_heads = 2, c->head_dim = 6;
    c->mlp_dim = 50, c->vocab_size = 300, c->context = MODEL_CONTEXT;
}
static inline void shape_layer_norm(transformer_config *c) {
    shape_llama(c);
    c->norm = TRANSFORMER_NORM_LAYER, c->norm_bias = 1, c->gated = 0;
    c->activation = TRANSFORMER_GELU_TANH, c->n_kv_heads = 0;
    c->biases = 127 & ~TRANSFORMER_BIAS_HEAD;
}
static inline void shape_gpt2(transformer_config *c) {
    shape_layer_norm(c);
    c->position = TRANSFORMER_POSITION_LEARNED, c->position_offset = 2, c->rope[0].dims = 0;
    c->tied = 1;
}
static inline void shape_mqa(transformer_config *c) {
    shape_llama(c);
    c->n_kv_heads = 1, c->head_dim = 10, c->value_dim = 14, c->logit_scale = .7f;
    c->residual_scale = .8f, c->attn_scale = .25f, c->biases = 7;
}
static inline void shape_window(transformer_config *c) {
    shape_llama(c);
    c->n_layers = 4, c->layers[0].window = c->layers[2].window = 7;
}
static inline void shape_alibi(transformer_config *c) {
    shape_layer_norm(c);
    c->position = TRANSFORMER_POSITION_ALIBI, c->alibi_max_bias = 8, c->rope[0].dims = 0;
    c->embedding_norm = c->residual_from_norm = 1, c->activation = TRANSFORMER_GELU;
}
static inline void shape_falcon(transformer_config *c) {
    shape_alibi(c);
    c->alibi_falcon = 1, c->residual_from_norm = 0, c->n_kv_heads = 3;
    c->parallel = TRANSFORMER_PARALLEL_TWO;
}
static inline void shape_softcap(transformer_config *c) {
    shape_window(c);
    c->attn_softcap = 5, c->logit_softcap = 8, c->norm_plus_one = 1, c->embedding_scale = 6;
    c->norm_placement = TRANSFORMER_PLACE_INPUT | TRANSFORMER_PLACE_OUTPUT;
    c->activation = TRANSFORMER_GELU_TANH, c->tied = 1;
}
static inline void shape_post_norm(transformer_config *c) {
    shape_layer_norm(c);
    c->norm_placement = TRANSFORMER_PLACE_SUM, c->final_norm = 0;
    c->position = TRANSFORMER_POSITION_SINUSOIDAL, c->rope[0].dims = 0;
    c->activation = TRANSFORMER_RELU;
}
static inline void shape_output_norm(transformer_config *c) {
    shape_llama(c);
    c->norm_placement = TRANSFORMER_PLACE_OUTPUT, c->qk_norm = TRANSFORMER_QK_NORM_FULL;
}
static inline void shape_parallel_shared(transformer_config *c) {
    shape_layer_norm(c);
    c->parallel = TRANSFORMER_PARALLEL_SHARED, c->biases = TRANSFORMER_BIAS_HEAD;
    c->rope[0].dims = 4, c->rope[0].pairing = TRANSFORMER_ROPE_INTERLEAVED;
}
static inline void shape_parallel_two(transformer_config *c) {
    shape_layer_norm(c);
    c->parallel = TRANSFORMER_PARALLEL_TWO, c->rope[0].dims = 2, c->rope[0].reverse = 1;
    c->activation = TRANSFORMER_GELU_QUICK;
}
static inline void shape_two_ropes(transformer_config *c) {
    shape_window(c);
    c->qk_norm = TRANSFORMER_QK_NORM_HEAD, c->rope[1].dims = 6, c->rope[1].theta = 300;
    c->layers[0].rope = c->layers[2].rope = 1;
    c->rope[0].scaling = TRANSFORMER_ROPE_LLAMA3, c->rope[0].factor = 8;
    c->rope[0].low_freq_factor = 1, c->rope[0].high_freq_factor = 4;
    c->rope[0].original_context = 40;
    c->rope[1].scaling = TRANSFORMER_ROPE_YARN, c->rope[1].factor = 4;
    c->rope[1].original_context = 40, c->rope[1].beta_fast = 32, c->rope[1].beta_slow = 1;
    c->rope[1].attention_factor = 1.1;
}
static inline void shape_qk_after_rope(transformer_config *c) {
    shape_llama(c);
    c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD, c->qk_norm_after_rope = 1;
    c->biases = TRANSFORMER_BIAS_QK_NORM, c->norm = TRANSFORMER_NORM_LAYER, c->norm_weight = 1;
    c->logn_length = 50, c->qkv_clip = .9f;
}
static inline void shape_no_norm(transformer_config *c) {
    shape_llama(c);
    c->norm_placement = 0, c->final_norm = 0, c->activation = TRANSFORMER_TANH;
}
static inline void shape_pieces(transformer_config *c) {
    shape_llama(c);
    c->n_layers = 4, c->norm_weight = 0, c->norm = TRANSFORMER_NORM_LAYER;
    c->layers[0].no_mlp = 1, c->layers[0].n_heads = 3, c->layers[0].n_kv_heads = 3;
    c->layers[1].no_attention = 1, c->layers[1].mlp_dim = 21;
    c->layers[2].n_heads = 8, c->layers[2].n_kv_heads = 4, c->layers[2].rope = -1;
    c->layers[3].attn_scale = .9f, c->layers[3].mlp_dim = 70;
}
static inline void shape_projected(transformer_config *c) {
    shape_layer_norm(c);
    c->embedding_dim = 21, c->activation = TRANSFORMER_RELU2;
    c->position = TRANSFORMER_POSITION_LEARNED, c->rope[0].dims = 0;
}
static inline void shape_bigram(transformer_config *c) { shape_llama(c), c->n_layers = 0; }
/* Large enough that threads are worth their barriers: a few tokens at once; even one. */
static inline void shape_wide(transformer_config *c) {
    shape_llama(c);
    c->dim = 128, c->n_heads = 4, c->head_dim = 32, c->mlp_dim = 250, c->vocab_size = 4000;
}
static inline void shape_huge(transformer_config *c) {
    shape_llama(c);
    c->dim = 500, c->n_heads = 5, c->n_kv_heads = 1, c->head_dim = 20, c->mlp_dim = 260;
    c->vocab_size = MODEL_MAX_VOCAB;
}

/* Widths that quantised blocks fill; even one token is worth threads. */
static inline void shape_blocks(transformer_config *c) {
    shape_llama(c);
    c->dim = 512, c->n_heads = 8, c->n_kv_heads = 4, c->head_dim = 64, c->mlp_dim = 768;
    c->vocab_size = 300;
}

typedef struct model_shape {
    const char *name;
    void (*set)(transformer_config *);
} model_shape;
static const model_shape model_shapes[] = {{"llama", shape_llama},
                                           {"gpt2", shape_gpt2},
                                           {"multi-query", shape_mqa},
                                           {"window", shape_window},
                                           {"alibi", shape_alibi},
                                           {"falcon alibi", shape_falcon},
                                           {"softcap", shape_softcap},
                                           {"post-norm", shape_post_norm},
                                           {"output norm", shape_output_norm},
                                           {"parallel shared", shape_parallel_shared},
                                           {"parallel two", shape_parallel_two},
                                           {"two ropes", shape_two_ropes},
                                           {"qk norm after rope", shape_qk_after_rope},
                                           {"no norm", shape_no_norm},
                                           {"pieces", shape_pieces},
                                           {"projected", shape_projected},
                                           {"bigram", shape_bigram},
                                           {"wide", shape_wide},
                                           {"huge", shape_huge},
                                           {"blocks", shape_blocks}};
enum {
    SHAPE_BLOCKS = sizeof model_shapes / sizeof model_shapes[0] - 1, /* of quantised weights */
    N_SHAPES = SHAPE_BLOCKS,
    SHAPE_LLAMA = 0,
    SHAPE_GPT2 = 1,
    SHAPE_WINDOW = 3,
    SHAPE_SOFTCAP = 6,
    SHAPE_PARALLEL_SHARED = 9,
    SHAPE_PROJECTED = 15,
    SHAPE_WIDE = 17,
    SHAPE_HUGE = 18
};

/* ---- weights ---- */

/* Aligned to 64; free with transformer_free. */
static inline void *test_aligned(size_t size) {
    void *memory = tfi_new(size ? size : 1, NULL);
    if (memory) memset(memory, 0, size); /* padding is compared, too */
    return memory;
}

/* Memory in which every float is a NaN: whatever is read before it is written shows. */
static inline void *test_poisoned(size_t size) {
    void *memory = test_aligned(size);
    if (memory) memset(memory, 0xff, size);
    return memory;
}

static inline int model_is_norm_weight(int role) {
    return role == TRANSFORMER_EMBEDDING_NORM || role == TRANSFORMER_ATTN_NORM ||
           role == TRANSFORMER_MLP_NORM || role == TRANSFORMER_ATTN_POST_NORM ||
           role == TRANSFORMER_MLP_POST_NORM || role == TRANSFORMER_FINAL_NORM ||
           role == TRANSFORMER_Q_NORM || role == TRANSFORMER_K_NORM;
}

/* Random numbers that keep activations near 1. */
static inline void model_fill_tensor(void *data, const transformer_config *c, int role, int dtype,
                                     int rows, int cols, uint32_t seed) {
    float base = model_is_norm_weight(role) && !c->norm_plus_one ? 1 : 0, scale = .4f;
    if (role == TRANSFORMER_EMBEDDING) scale = 2;
    else if (role == TRANSFORMER_POSITION_EMBEDDING) scale = 1;
    else if (rows > 1) scale = 4 / sqrtf((float)cols);
    if (tfi_format_of(dtype)->block > 1) {
        make_rows(tfi_format_of(dtype), (unsigned char *)data, rows, cols, seed);
        return;
    }
    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++) {
        float value = base + scale * test_noise(seed * 0x9e3779b9u + (uint32_t)i);
        uint16_t half = dtype == TRANSFORMER_F16 ? tfi_to_f16(value) : tfi_to_bf16(value);
        if (dtype == TRANSFORMER_F32) memcpy((float *)data + i, &value, sizeof value);
        else memcpy((uint16_t *)data + i, &half, sizeof half);
    }
}

/* The flat buffer of a configuration; seed tells models of one shape apart. */
static inline void *model_weights(const transformer_config *c, int dtype, uint32_t seed,
                                  size_t *size) {
    size_t bytes = transformer_flat_size(c, dtype), offset;
    unsigned char *flat = (unsigned char *)test_aligned(bytes);
    int rows, cols;
    if (size) *size = bytes;
    if (!flat) return NULL;
    memset(flat, 0, bytes);
    for (int layer = 0; layer < (c->n_layers ? c->n_layers : 1); layer++)
        for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
            if (!transformer_tensor_shape(c, role, layer, &rows, &cols)) continue;
            if (!transformer_flat_offset(c, dtype, role, layer, &offset)) continue;
            int vector = tfi_roles[role].kind != TFI_MATRIX;
            model_fill_tensor(flat + offset, c, role, vector ? TRANSFORMER_F32 : dtype, rows, cols,
                              seed * 7919u + (uint32_t)(layer * TRANSFORMER_N_ROLES + role));
        }
    return flat;
}

/* The rows of kernels that this machine can run, worst first; returns how many. */
static inline int model_isas(const char **names, int most) {
    int n = 0;
    for (int i = 0; tfi_rows[i] && n < most; i++)
        if (tfi_choose(tfi_rows[i]->name) == tfi_rows[i]) names[n++] = tfi_rows[i]->name;
    return n;
}

/* ---- a model with its weights ---- */

typedef struct subject {
    const char *name;
    transformer_config config;
    transformer_options options; /* of model and states; workspaces have their own */
    int dtype;
    void *flat;
    size_t flat_size;
    transformer_model *model;
} subject;

static inline int subject_make(subject *s, int shape, int dtype, uint32_t seed, const char *isa,
                               int full_precision, int kv_dtype) {
    transformer_error error;
    memset(s, 0, sizeof *s);
    s->name = model_shapes[shape].name, s->dtype = dtype;
    model_shapes[shape].set(&s->config);
    s->options.isa = isa, s->options.full_precision = full_precision;
    s->options.kv_dtype = kv_dtype, s->options.undo = MODEL_UNDO;
    s->flat = model_weights(&s->config, dtype, seed, &s->flat_size);
    s->model = transformer_model_new(&s->config, &s->options, &error);
    if (s->flat && s->model &&
        !transformer_bind_flat(s->model, s->flat, s->flat_size, dtype, &error))
        return 1;
    fprintf(stderr, "%s: %s\n", s->name, error.text);
    return 0;
}
static inline void subject_free(subject *s) {
    transformer_free(s->model);
    transformer_free(s->flat);
    memset(s, 0, sizeof *s);
}

/* A state and a workspace in poisoned memory, to be freed with transformer_free. */
static inline transformer_state *subject_state(const subject *s) {
    size_t size = transformer_state_size(s->model, &s->options);
    void *memory = test_poisoned(size);
    transformer_state *state = NULL;
    if (transformer_state_init(memory, size, s->model, &s->options, &state, NULL))
        transformer_free(memory);
    return state;
}
static inline transformer_workspace *subject_workspace(const subject *s, int batch, int n_threads,
                                                       transformer_parallel *parallel, void *user) {
    transformer_options o = s->options;
    transformer_workspace *work = NULL;
    o.batch = batch, o.n_threads = n_threads, o.parallel = parallel, o.parallel_user = user;
    size_t size = transformer_workspace_size(s->model, &o);
    void *memory = test_poisoned(size);
    if (transformer_workspace_init(memory, size, s->model, &o, &work, NULL))
        transformer_free(memory);
    return work;
}

/* NaN in slot `slot` of a layer's keys (which = 0) or values (1) of one head. */
static inline void model_poison_slot(transformer_state *state, const transformer_config *c,
                                     int layer, int which, int head, int slot) {
    int dim = which ? c->value_dim : c->head_dim;
    int capacity = tfi_capacity(c, layer, state->context, state->undo);
    size_t element = transformer_dtype_size(state->kv_dtype);
    unsigned char *data = (unsigned char *)state + tfi_kv_offsets(state)[2 * layer + which] +
                          (size_t)head * (size_t)capacity * (size_t)dim * element;
    for (int d = 0; d < dim; d++) {
        int at = slot * dim + d;
        if (!which) at = (slot / TFI_KEY_BLOCK * dim + d) * TFI_KEY_BLOCK + slot % TFI_KEY_BLOCK;
        memset(data + (size_t)at * element, 0xff, element);
    }
}

static inline void model_tokens(int32_t *tokens, int n, int vocab_size, uint32_t seed) {
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)(test_hash(seed * 65537u + (uint32_t)i) % (uint32_t)vocab_size);
}
#endif
