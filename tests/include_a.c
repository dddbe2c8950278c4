/* A user of the header who calls every public function: as C99 and as C++11, with the implementation in another file
 * or (TRANSFORMER_STATIC) with a copy of its own.  include_b.c is a second one in the same program, with main. */
#ifdef TRANSFORMER_STATIC
#define TRANSFORMER_IMPLEMENTATION
#endif
#ifdef TRANSFORMER_FILE
#include TRANSFORMER_FILE
#include TRANSFORMER_FILE
#else
#include "transformer.h"
#include "transformer.h" /* twice does no harm */
#endif
#include <string.h>

#ifdef TRANSFORMER_SHORT_NAMES
#define NAME(short_name) short_name
#else
#define NAME(short_name) transformer_##short_name
#endif

enum { INCLUDE_VOCAB = 11, INCLUDE_DIM = 8, INCLUDE_LOGITS = 2 * INCLUDE_VOCAB };

#ifndef INCLUDE_USER
#define INCLUDE_USER include_a
#endif
#ifdef __cplusplus
extern "C" int include_a(const char *isa, float *logits);
extern "C" int include_b(const char *isa, float *logits);
#else
int include_a(const char *isa, float *logits);
int include_b(const char *isa, float *logits);
#endif

/* The line of the first check that fails, 0 if none does. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) return __LINE__;                                                         \
    } while (0)

static unsigned char include_pool[1 << 19];
static size_t include_used;

static void *include_take(size_t size) {
    size_t start = 64 - (size_t)include_pool % 64, at = start + include_used;
    include_used += (size + 63) / 64 * 64;
    return start + include_used <= sizeof include_pool ? include_pool + at : NULL;
}

static int include_tap(void *user, const transformer_view *view) {
    *(int *)user += view->n;
    return 0;
}

static int include_kernels(void) {
    static const float two_by_two[4] = {1, 2, 3, 4};
    static const int32_t tokens[1] = {1};
    float x[2] = {1, -1}, out[2], scratch[4];
    transformer_tensor w = {two_by_two, TRANSFORMER_F32, 2, 2};
    transformer_attention_args args;
    MUST(NAME(matmul)(out, x, &w, NULL, 1) == TRANSFORMER_OK && out[0] == -1 && out[1] == -1);
    MUST(NAME(softmax)(out, 2) == TRANSFORMER_OK && out[0] == 0.5f);
    MUST(NAME(layernorm)(out, x, NULL, NULL, 2, 0.0f) == TRANSFORMER_OK && out[0] == 1);
    MUST(NAME(rmsnorm)(out, x, NULL, 2, 0.0f) == TRANSFORMER_OK && out[1] == -1);
    MUST(transformer_rope_apply(x, 1, 2, 2, TRANSFORMER_ROPE_HALF, 1e4, 0) == TRANSFORMER_OK);
    MUST(x[0] == 1 && x[1] == -1);
    MUST(transformer_activate(x, 2, TRANSFORMER_RELU) == TRANSFORMER_OK && x[1] == 0);
    memset(&args, 0, sizeof args);
    args.q = args.k = args.v = x, args.out = out;
    args.n_queries = args.n_keys = args.n_heads = args.n_kv_heads = 1;
    args.key_dim = args.value_dim = 2;
    MUST(NAME(attention)(&args) == TRANSFORMER_OK && out[0] == x[0]);
    MUST(NAME(mlp)(out, x, NULL, &w, &w, NULL, NULL, NULL, TRANSFORMER_IDENTITY, 1, scratch) ==
         TRANSFORMER_OK);
    MUST(out[0] == 7 && out[1] == 15);
    MUST(transformer_embedding(out, &w, tokens, 1) == TRANSFORMER_OK && out[1] == 4);
    MUST(transformer_unembedding(out, out, &w, 0) == TRANSFORMER_OK);
    return 0;
}

static int include_words(void) {
    MUST(transformer_version() == TRANSFORMER_VERSION);
    MUST(strcmp(transformer_status_text(TRANSFORMER_OK), "ok") == 0);
    MUST(strcmp(transformer_role_name(TRANSFORMER_EMBEDDING), "embedding") == 0);
    MUST(strcmp(transformer_site_name(TRANSFORMER_SITE_EMBEDDING), "embedding") == 0);
    MUST(transformer_dtype_size(TRANSFORMER_BF16) == 2);
    MUST(transformer_dtype_block(TRANSFORMER_Q4_K) == 256);
    MUST(strcmp(transformer_dtype_name(TRANSFORMER_Q4_K), "Q4_K") == 0);
    MUST(transformer_row_size(TRANSFORMER_Q8_0, 64) == 68);
    {
        const float numbers[2] = {3, 4};
        float row[1] = {0};
        transformer_tensor t;
        t.data = numbers, t.dtype = TRANSFORMER_F32, t.rows = 2, t.cols = 1;
        MUST(transformer_decode(row, &t, 1, 1) == TRANSFORMER_OK && row[0] == 4);
    }
    return 0;
}

/* Weights from -1 to 1 by formula; through the flat buffer or tensor by tensor. */
static int include_bind(transformer_model *model, const transformer_config *config, int flat) {
    size_t size = transformer_flat_size(config, TRANSFORMER_F32), offset = 0;
    float *weights = (float *)include_take(size);
    int role, layer, rows, cols, bound = 0;
    MUST(weights != NULL && size > 0);
    for (size_t i = 0; i < size / sizeof(float); i++)
        weights[i] = (float)((int)(i * 37 % 101) - 50) / 50.0f;
    if (flat) {
        MUST(transformer_bind_flat(model, weights, size, TRANSFORMER_F32, NULL) == TRANSFORMER_OK);
        return 0;
    }
    MUST(transformer_model_ready(model, NULL) == TRANSFORMER_WEIGHTS);
    for (role = 0; role < TRANSFORMER_N_ROLES; role++)
        for (layer = 0; layer < config->n_layers; layer++) {
            transformer_tensor tensor;
            if (!transformer_tensor_shape(config, role, layer, &rows, &cols)) continue;
            MUST(transformer_flat_offset(config, TRANSFORMER_F32, role, layer, &offset));
            tensor.data = weights + offset / sizeof(float), tensor.dtype = TRANSFORMER_F32;
            tensor.rows = rows, tensor.cols = cols;
            MUST(transformer_bind(model, role, layer, &tensor, NULL) == TRANSFORMER_OK);
            bound++;
        }
    MUST(bound > 0 && transformer_model_ready(model, NULL) == TRANSFORMER_OK);
    return 0;
}

/* Memory of ours, weights bound one by one; forward, then back and again by run, pause and resume. */
static int include_own_memory(const transformer_config *config, const transformer_options *options,
                              const char *isa, float *logits) {
    static const int32_t tokens[3] = {1, 2, 3};
    transformer_model *model = NULL;
    transformer_state *state = NULL;
    transformer_workspace *work = NULL;
    transformer_error error;
    transformer_sequence sequence;
    transformer_call call;
    transformer_tap tap;
    float again[INCLUDE_VOCAB];
    int seen = 0, line;
    void *memory;
    size_t size = transformer_model_size(config);
    MUST(transformer_model_init(include_take(size), size, config, options, &model, &error) ==
         TRANSFORMER_OK);
    line = include_bind(model, config, 0);
    if (line) return line;
    MUST(transformer_model_config(model)->value_dim == INCLUDE_DIM / 2);
    if (isa) MUST(strcmp(transformer_isa(model), isa) == 0);
    size = transformer_state_size(model, options), memory = include_take(size);
    MUST(transformer_state_init(memory, size, model, options, &state, &error) == TRANSFORMER_OK);
    size = transformer_workspace_size(model, options);
    MUST(transformer_workspace_init(include_take(size), size, model, options, &work, &error) ==
         TRANSFORMER_OK);
    MUST(NAME(forward)(model, work, state, tokens, 3, logits) == TRANSFORMER_OK);
    MUST(transformer_state_position(state) == 3 && transformer_state_context(state) == 16);
    MUST(transformer_state_rewind(state, 0) == TRANSFORMER_OK);
    size = transformer_state_bytes(state);
    MUST(transformer_state_restore(memory, size, model, &state, &error) == TRANSFORMER_OK);
    memset(&sequence, 0, sizeof sequence), memset(&call, 0, sizeof call);
    memset(&tap, 0, sizeof tap);
    tap.sites = 1u << TRANSFORMER_SITE_RESIDUAL_POST;
    tap.function = include_tap, tap.user = &seen;
    sequence.state = state, sequence.tokens = tokens, sequence.n = 3, sequence.logits = again;
    call.sequences = &sequence, call.n_sequences = 1, call.n_layers = 1, call.tap = &tap;
    MUST(transformer_run(model, work, &call, &error) == TRANSFORMER_PAUSED);
    MUST(transformer_resume(model, work, 0, &error) == TRANSFORMER_OK);
    MUST(seen == 3 * config->n_layers && memcmp(again, logits, sizeof again) == 0);
    return 0;
}

#ifndef TRANSFORMER_NO_MALLOC
static int include_malloc(const transformer_config *config, const transformer_options *options,
                          float *logits) {
    static const int32_t tokens[3] = {1, 2, 3};
    transformer_error error;
    transformer_model *model = transformer_model_new(config, options, &error);
    MUST(model != NULL);
    int line = include_bind(model, config, 1);
    if (line) return line;
    transformer_state *state = transformer_state_new(model, options, &error);
    transformer_workspace *work = transformer_workspace_new(model, options, &error);
    MUST(state != NULL && work != NULL);
    MUST(NAME(forward)(model, work, state, tokens, 3, logits) == TRANSFORMER_OK);
    transformer_free(work);
    transformer_free(state);
    transformer_free(model);
    return 0;
}
#endif

/* isa: the row that is expected, or NULL.  logits: [2, INCLUDE_VOCAB]. */
int INCLUDE_USER(const char *isa, float *logits) {
    transformer_config config;
    transformer_options options;
    int line;
    include_used = 0;
    transformer_config_defaults(&config);
    MUST(transformer_config_check(&config, NULL) == TRANSFORMER_CONFIG);
    config.dim = INCLUDE_DIM, config.n_layers = 2, config.n_heads = 2, config.mlp_dim = 12;
    config.vocab_size = INCLUDE_VOCAB, config.context = 16;
    MUST(transformer_config_check(&config, NULL) == TRANSFORMER_OK);
    memset(&options, 0, sizeof options);
    line = include_own_memory(&config, &options, isa, logits);
    if (line) return line;
#ifdef TRANSFORMER_NO_MALLOC
    memcpy(logits + INCLUDE_VOCAB, logits, INCLUDE_VOCAB * sizeof(float));
#else
    line = include_malloc(&config, &options, logits + INCLUDE_VOCAB);
    if (line) return line;
#endif
    MUST(memcmp(logits, logits + INCLUDE_VOCAB, INCLUDE_VOCAB * sizeof(float)) == 0);
    options.isa = "scalar", include_used = 0;
    {
        float scalar[INCLUDE_VOCAB];
        line = include_own_memory(&config, &options, "scalar", scalar);
        if (line) return line;
        for (int i = 0; i < INCLUDE_VOCAB; i++)
            MUST(scalar[i] - logits[i] < 1e-4f && logits[i] - scalar[i] < 1e-4f);
    }
    line = include_words();
    return line ? line : include_kernels();
}
