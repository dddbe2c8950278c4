/* Every entry point, misused: NULL, sizes too small by one, misaligned memory, values out of range,
 * things in the wrong order or of another model.  Each call must return the documented status, name
 * what is wrong, and change nothing. */
#define _DEFAULT_SOURCE 1
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
static int mallocs_until_failure = -1, blocks_in_use;
static void *test_malloc(size_t n);
static void test_free(void *p);
#define TRANSFORMER_MALLOC(n) test_malloc(n)
#define TRANSFORMER_FREE(p) test_free(p)
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "models.h"

static void *test_malloc(size_t n) {
    void *block = mallocs_until_failure == 0 ? NULL : malloc(n);
    if (mallocs_until_failure > 0) mallocs_until_failure--;
    blocks_in_use += block != NULL;
    return block;
}
static void test_free(void *p) {
    blocks_in_use -= p != NULL;
    free(p);
}

static transformer_error error;
static int32_t tokens[MODEL_CONTEXT + 1];
static float logits[MODEL_CONTEXT * 300];

/* The error of the last call says this status and mentions this text. */
static int says(transformer_status have, transformer_status want, const char *text) {
    int named = error.status == want && error.text[0] && memchr(error.text, 0, sizeof error.text) &&
                (!text || strstr(error.text, text));
    if (have != want || !named)
        fprintf(stderr, "    status %s, expected %s; error %s, \"%s\", expected \"%s\"\n",
                transformer_status_text((int)have), transformer_status_text((int)want),
                transformer_status_text((int)error.status), error.text, text ? text : "");
    memset(&error, 0x77, sizeof error);
    return have == want && named;
}

/* ---- names, sizes of types ---- */

static int unique_names(const char *(*name)(int), int n) {
    for (int i = 0; i < n; i++) {
        if (!name(i) || !name(i)[0] || strstr(name(i), "unknown")) return 0;
        for (int j = 0; j < i; j++)
            if (!strcmp(name(i), name(j))) return 0;
    }
    return name(-1) && name(n) && name(INT_MAX) && name(INT_MIN) && strstr(name(n), "unknown") &&
           strstr(name(-1), "unknown");
}

static void test_names(void) {
    CHECK(transformer_version() == TRANSFORMER_VERSION && TRANSFORMER_VERSION >= 100);
    CHECK(unique_names(transformer_status_text, TRANSFORMER_PAUSED + 1));
    CHECK(unique_names(transformer_role_name, TRANSFORMER_N_ROLES));
    CHECK(unique_names(transformer_site_name, TRANSFORMER_N_SITES));
    CHECK(!strcmp(transformer_status_text(TRANSFORMER_OK), "ok"));
    CHECK(!strcmp(transformer_status_text(TRANSFORMER_UNSUPPORTED), "unsupported"));
    CHECK(!strcmp(transformer_role_name(TRANSFORMER_EMBEDDING), "embedding"));
    CHECK(!strcmp(transformer_role_name(TRANSFORMER_HEAD_BIAS), "head_bias"));
    CHECK(!strcmp(transformer_role_name(TRANSFORMER_MLP_DOWN), "mlp_down"));
    CHECK(!strcmp(transformer_site_name(TRANSFORMER_SITE_Q_ROTATED), "q_rotated"));
    CHECK(!strcmp(transformer_site_name(TRANSFORMER_SITE_LOGITS), "logits"));
    CHECK(transformer_dtype_size(TRANSFORMER_F32) == 4);
    CHECK(transformer_dtype_size(TRANSFORMER_F16) == 2);
    CHECK(transformer_dtype_size(TRANSFORMER_BF16) == 2);
    CHECK(!transformer_dtype_size(-1) && !transformer_dtype_size(999));
    GROUP("version, names, types");
}

/* ---- configurations ---- */

/* A complete configuration with one field wrong: refused everywhere, and the field is named. */
static void refuse(const transformer_config *c, const char *field) {
    static unsigned char memory[4096];
    int rows, cols, failed = test_failed;
    size_t offset;
    transformer_model *model = (transformer_model *)memory;
    CHECK(says(transformer_config_check(c, &error), TRANSFORMER_CONFIG, field));
    CHECK(transformer_config_check(c, NULL) == TRANSFORMER_CONFIG);
    CHECK(transformer_model_size(c) == 0 && transformer_flat_size(c, TRANSFORMER_F32) == 0);
    CHECK(!transformer_tensor_shape(c, TRANSFORMER_EMBEDDING, 0, &rows, &cols));
    CHECK(!transformer_flat_offset(c, TRANSFORMER_F32, TRANSFORMER_EMBEDDING, 0, &offset));
    CHECK(says(transformer_model_init(memory, sizeof memory, c, NULL, &model, &error),
               TRANSFORMER_CONFIG, field));
    CHECK(!model);
    CHECK(!transformer_model_new(c, NULL, &error) && error.status == TRANSFORMER_CONFIG);
    if (test_failed > failed) fprintf(stderr, "    field %s\n", field);
}
#define REFUSE(change, field)                                                                      \
    do {                                                                                           \
        shape_two_ropes(&c);                                                                       \
        change;                                                                                    \
        refuse(&c, field);                                                                         \
    } while (0)
#define REFUSE_INT(field, low, high)                                                               \
    do {                                                                                           \
        REFUSE(c.field = (low)-1, #field);                                                         \
        REFUSE(c.field = INT_MIN, #field);                                                         \
        REFUSE(c.field = INT_MAX, #field);                                                         \
        if ((high) < INT_MAX) REFUSE(c.field = (high) + ((high) < INT_MAX), #field);               \
    } while (0)
#define REFUSE_FLOAT(field)                                                                        \
    do {                                                                                           \
        REFUSE(c.field = NAN, #field);                                                             \
        REFUSE(c.field = INFINITY, #field);                                                        \
        REFUSE(c.field = -INFINITY, #field);                                                       \
    } while (0)

static void test_config_fields(void) {
    transformer_config c;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        model_shapes[shape].set(&c);
        memset(&error, 0x77, sizeof error);
        CHECK(!transformer_config_check(&c, &error) && !error.status && !error.text[0]);
    }
    CHECK(says(transformer_config_check(NULL, &error), TRANSFORMER_ARGUMENT, "config"));
    transformer_config_defaults(NULL);
    transformer_config_defaults(&c);
    refuse(&c, ""); /* sizes are missing */
    REFUSE_INT(dim, 1, 1 << 24);
    REFUSE_INT(n_layers, 0, TRANSFORMER_MAX_LAYERS);
    REFUSE_INT(n_heads, 1, INT_MAX);
    REFUSE_INT(n_kv_heads, 0, 6);
    REFUSE(c.n_kv_heads = 4, "n_kv_heads"); /* does not divide 6 */
    REFUSE_INT(head_dim, 0, TRANSFORMER_MAX_HEAD_DIM);
    REFUSE_INT(value_dim, 0, TRANSFORMER_MAX_HEAD_DIM);
    REFUSE_INT(mlp_dim, 1, 1 << 24);
    REFUSE_INT(vocab_size, 1, 1 << 24);
    REFUSE_INT(embedding_dim, 0, 1 << 24);
    REFUSE_INT(context, 1, 1 << 30);
    REFUSE_INT(norm, 0, 1);
    REFUSE_INT(norm_weight, 0, 1);
    REFUSE_INT(norm_bias, 0, 1);
    REFUSE_INT(norm_plus_one, 0, 1);
    REFUSE_INT(norm_placement, 0, 7);
    REFUSE_INT(embedding_norm, 0, 1);
    REFUSE_INT(final_norm, 0, 1);
    REFUSE_INT(parallel, 0, 2);
    REFUSE_INT(residual_from_norm, 0, 1);
    REFUSE_INT(causal, 0, 1);
    REFUSE_INT(position, 0, 3);
    REFUSE_INT(position_offset, 0, 1 << 20);
    REFUSE_INT(alibi_falcon, 0, 1);
    REFUSE_INT(biases, 0, 255);
    REFUSE_INT(qk_norm, 0, 3);
    REFUSE_INT(qk_norm_after_rope, 0, 1);
    REFUSE_INT(logn_length, 0, INT_MAX);
    REFUSE(c.logn_length = 1, "logn_length");
    REFUSE_INT(activation, 0, TRANSFORMER_IDENTITY);
    REFUSE_INT(gated, 0, 1);
    REFUSE_INT(tied, 0, 1);
    REFUSE_FLOAT(norm_eps);
    REFUSE_FLOAT(alibi_max_bias);
    REFUSE_FLOAT(attn_scale);
    REFUSE_FLOAT(attn_softcap);
    REFUSE_FLOAT(qkv_clip);
    REFUSE_FLOAT(embedding_scale);
    REFUSE_FLOAT(residual_scale);
    REFUSE_FLOAT(logit_scale);
    REFUSE_FLOAT(logit_softcap);
    REFUSE(c.norm_eps = -1e-5f, "norm_eps");
    REFUSE(c.attn_softcap = -1, "attn_softcap");
    REFUSE(c.logit_softcap = -1, "logit_softcap");
    REFUSE(c.qkv_clip = -1, "qkv_clip");
    REFUSE((c.position = TRANSFORMER_POSITION_ALIBI, c.alibi_max_bias = 0), "alibi_max_bias");
    REFUSE((c.norm_placement = TRANSFORMER_PLACE_SUM | 1), "norm_placement");
    REFUSE((c.norm_placement = TRANSFORMER_PLACE_SUM | 2), "norm_placement");
    REFUSE((c.norm_placement = TRANSFORMER_PLACE_SUM, c.parallel = 1), "norm_placement");
    REFUSE((c.residual_from_norm = 1, c.parallel = 1), "residual_from_norm");
    REFUSE((c.residual_from_norm = 1, c.norm_placement = 0), "residual_from_norm");
    REFUSE((c.head_dim = 0, c.dim = 5), "head_dim"); /* 5 / 6 */
    GROUP("configuration: every field out of range is refused and named");
}

static void test_config_layers_and_ropes(void) {
    transformer_config c;
    for (int l = 0; l < 4; l += 3) {
        char name[40];
        const char *field = name;
#define REFUSE_LAYER(member, value)                                                                \
    snprintf(name, sizeof name, "layers[%d]." #member, l);                                         \
    REFUSE(c.layers[l].member = (value), field)
        REFUSE_LAYER(window, -1);
        REFUSE_LAYER(window, INT_MAX);
        REFUSE_LAYER(rope, -2);
        REFUSE_LAYER(rope, 2);
        REFUSE_LAYER(no_attention, 2);
        REFUSE_LAYER(no_attention, -1);
        REFUSE_LAYER(no_mlp, 2);
        REFUSE_LAYER(no_mlp, -1);
        REFUSE_LAYER(n_heads, -1);
        REFUSE_LAYER(n_heads, INT_MAX);
        REFUSE_LAYER(n_kv_heads, -1);
        REFUSE_LAYER(n_kv_heads, 4);
        REFUSE_LAYER(n_kv_heads, 12);
        REFUSE_LAYER(mlp_dim, -1);
        REFUSE_LAYER(mlp_dim, INT_MAX);
        REFUSE_LAYER(attn_scale, NAN);
        REFUSE_LAYER(attn_scale, INFINITY);
    }
    REFUSE(c.rope[1].dims = 0, "layers[0].rope");
    REFUSE((c.causal = 0, c.layers[0].window = 0), "layers[2].window");
    for (int i = 0; i < 2; i++) {
        char name[40];
        const char *field = name;
#define REFUSE_ROPE(member, value)                                                                 \
    snprintf(name, sizeof name, "rope[%d]." #member, i);                                           \
    REFUSE(c.rope[i].member = (value), field)
        REFUSE_ROPE(dims, -2);
        REFUSE_ROPE(dims, 3);
        REFUSE_ROPE(dims, 8);
        REFUSE_ROPE(dims, INT_MAX);
        REFUSE_ROPE(dims, INT_MIN);
        REFUSE_ROPE(pairing, 2);
        REFUSE_ROPE(pairing, -1);
        REFUSE_ROPE(reverse, 2);
        REFUSE_ROPE(scaling, -1);
        REFUSE_ROPE(scaling, 7);
        REFUSE_ROPE(theta, 0);
        REFUSE_ROPE(theta, -1);
        REFUSE_ROPE(theta, (double)NAN);
        REFUSE_ROPE(theta, (double)INFINITY);
        REFUSE_ROPE(factor, 0);
        REFUSE_ROPE(factor, (double)NAN);
        REFUSE_ROPE(attention_factor, 0);
        REFUSE_ROPE(attention_factor, (double)NAN);
        REFUSE_ROPE(original_context, 0);
        REFUSE_ROPE(original_context, -1);
    }
    REFUSE((c.head_dim = 5, c.rope[0].dims = -1, c.rope[1].dims = 4), "rope[0].dims");
    REFUSE(c.rope[0].low_freq_factor = 0, "rope[0].low_freq_factor");
    REFUSE(c.rope[0].low_freq_factor = (double)NAN, "rope[0].low_freq_factor");
    REFUSE(c.rope[0].high_freq_factor = 1, "rope[0].high_freq_factor");
    REFUSE(c.rope[1].beta_slow = 0, "rope[1].beta_slow");
    REFUSE(c.rope[1].beta_fast = .5, "rope[1].beta_fast");
    for (int dims = -1; dims <= 6; dims += 7) { /* -1: the whole head, which is 6 */
        REFUSE((c.rope[0].dims = dims, c.rope[0].scaling = TRANSFORMER_ROPE_LONG), "rope[0]");
        shape_two_ropes(&c);
        c.rope[0].dims = dims, c.rope[0].scaling = TRANSFORMER_ROPE_LONG;
        for (int i = 0; i < 3; i++) c.rope[0].short_factors[i] = c.rope[0].long_factors[i] = 1;
        CHECK(!transformer_config_check(&c, &error));
        c.rope[0].long_factors[2] = NAN, refuse(&c, "rope[0]");
        c.rope[0].long_factors[2] = 1, c.rope[0].short_factors[2] = 0, refuse(&c, "rope[0]");
    }
    GROUP("configuration: per-layer fields and RoPE tables");
}

/* Configurations that are possible but too large for the machine: 0 or MEMORY, no crash, no
 * wrapped-around size. */
static void test_huge_sizes(void) {
    static unsigned char small[4096];
    transformer_config c;
    transformer_model *model = NULL;
    transformer_options options;
    memset(&options, 0, sizeof options);
    shape_llama(&c);
    c.dim = c.vocab_size = c.mlp_dim = 1 << 24, c.n_layers = 256, c.n_heads = 1 << 15;
    c.n_kv_heads = 0, c.head_dim = 512, c.context = 1 << 30;
    CHECK(!transformer_config_check(&c, &error));
    size_t flat = transformer_flat_size(&c, TRANSFORMER_F32);
    CHECK(flat == 0 || flat / 256 / 3 >= (size_t)1 << 24 << 24); /* 2^58 fit in 64 bits */
    if (sizeof(size_t) == 4) CHECK(flat == 0);
    CHECK(says(transformer_model_init(small, 64, &c, NULL, &model, &error), TRANSFORMER_MEMORY,
               NULL));
    CHECK(!model);
    /* dimensions just above 2^32 bytes, where 32-bit products wrap around to little */
    for (int dim = 1 << 14; dim <= 1 << 17; dim *= 2) {
        double bytes = 4.0 * dim * dim * 2; /* embedding and head */
        shape_bigram(&c);
        c.dim = c.vocab_size = dim;
        flat = transformer_flat_size(&c, TRANSFORMER_F32);
        if (sizeof(size_t) == 4 && bytes > 4294967295.0) CHECK(flat == 0);
        else CHECK((double)flat >= bytes && (double)flat < bytes + 4.0 * dim + 4096);
    }
    /* states and workspaces of a small model, asked for with large options */
    shape_llama(&c);
    c.n_layers = 1, c.dim = 4, c.n_heads = c.n_kv_heads = 256, c.head_dim = 512, c.mlp_dim = 4;
    c.vocab_size = 2, c.context = 64;
    size_t size;
    void *weights = model_weights(&c, TRANSFORMER_F16, 1, &size);
    model = transformer_model_new(&c, &options, &error);
    CHECK(model && !transformer_bind_flat(model, weights, size, TRANSFORMER_F16, &error));
    for (int context = 1 << 12; context <= 1 << 29; context *= 2) {
        transformer_state *state = NULL;
        double bytes = 2.0 * 256 * 512 * 4 * context;
        options.context = context;
        size = transformer_state_size(model, &options);
        if (bytes > (double)SIZE_MAX) CHECK(size == 0);
        else CHECK((double)size >= bytes && (double)size < bytes + 4096);
        CHECK(says(transformer_state_init(small, 64, model, &options, &state, &error),
                   TRANSFORMER_MEMORY, NULL));
        CHECK(!state);
    }
    options.batch = 65536, options.n_threads = 1024;
    size = transformer_workspace_size(model, &options);
    CHECK(size == 0 || (double)size > 65536.0 * 256 * 4 * 1024);
    if (sizeof(size_t) == 4) CHECK(size == 0);
    transformer_workspace *work = NULL;
    CHECK(says(transformer_workspace_init(small, 64, model, &options, &work, &error),
               TRANSFORMER_MEMORY, NULL));
    mallocs_until_failure = 0;
    CHECK(!transformer_workspace_new(model, &options, &error));
    CHECK(says(error.status, TRANSFORMER_MEMORY, NULL));
    options.context = 1 << 29;
    CHECK(!transformer_state_new(model, &options, &error));
    CHECK(says(error.status, TRANSFORMER_MEMORY, NULL));
    mallocs_until_failure = -1;
    transformer_free(model), transformer_free(weights);
    GROUP("sizes beyond the address space are 0, never wrapped around");
}

/* ---- shapes and places of tensors ---- */

static void test_flat(void) {
    static const int dtypes[] = {TRANSFORMER_F32, TRANSFORMER_F16, TRANSFORMER_BF16};
    for (int shape = 0; shape < N_SHAPES; shape++)
        for (int d = 0; d < 3; d++) {
            transformer_config c;
            model_shapes[shape].set(&c);
            size_t at = 0, offset;
            int rows, cols, first = 1;
            /* in the documented order, each at the next multiple of 64 */
            for (int stage = 0; stage < 3; stage++)
                for (int l = 0; l < (stage == 1 ? c.n_layers : 1); l++)
                    for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
                        int own = role < TRANSFORMER_ATTN_NORM    ? 0
                                  : role < TRANSFORMER_FINAL_NORM ? 1
                                                                  : 2;
                        if (own != stage) continue;
                        int there = transformer_tensor_shape(&c, role, l, &rows, &cols);
                        CHECK(there == transformer_flat_offset(&c, dtypes[d], role, l, &offset));
                        CHECK(there == transformer_tensor_shape(&c, role, l, NULL, NULL));
                        if (!there) continue;
                        CHECK(offset == at && (first || at > 0) && rows > 0 && cols > 0);
                        first = 0;
                        int dtype = tfi_roles[role].kind == TFI_MATRIX ? dtypes[d] : 0;
                        size_t bytes = (size_t)rows * (size_t)cols * transformer_dtype_size(dtype);
                        at += (bytes + 63) / 64 * 64;
                    }
            CHECK(transformer_flat_size(&c, dtypes[d]) == at);
        }
    transformer_config c;
    size_t offset = 77;
    int rows = 77, cols = 77;
    shape_llama(&c);
    CHECK(!transformer_flat_size(&c, 12345) && !transformer_flat_size(NULL, TRANSFORMER_F32));
    CHECK(!transformer_flat_offset(&c, 12345, TRANSFORMER_EMBEDDING, 0, &offset));
    CHECK(!transformer_flat_offset(NULL, 0, TRANSFORMER_EMBEDDING, 0, &offset));
    CHECK(!transformer_tensor_shape(NULL, TRANSFORMER_EMBEDDING, 0, &rows, &cols));
    CHECK(!transformer_model_size(NULL));
    static const int wrong[][2] = {{-1, 0},
                                   {TRANSFORMER_N_ROLES, 0},
                                   {INT_MAX, 0},
                                   {TRANSFORMER_EMBEDDING, 1},
                                   {TRANSFORMER_EMBEDDING, -1},
                                   {TRANSFORMER_Q, -1},
                                   {TRANSFORMER_Q, 2},
                                   {TRANSFORMER_Q, INT_MAX},
                                   {TRANSFORMER_Q_BIAS, 0},
                                   {TRANSFORMER_HEAD, 1},
                                   {TRANSFORMER_POSITION_EMBEDDING, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(!transformer_tensor_shape(&c, wrong[i][0], wrong[i][1], &rows, &cols));
        CHECK(!transformer_flat_offset(&c, 0, wrong[i][0], wrong[i][1], &offset));
    }
    CHECK(rows == 77 && cols == 77 && offset == 77);
    GROUP("flat buffer: every tensor in the documented order and place");
}

/* ---- models ---- */

static void test_model_init(void) {
    transformer_config c;
    transformer_options options;
    transformer_model *model;
    memset(&options, 0, sizeof options);
    for (int shape = 0; shape < N_SHAPES; shape++) { /* the size query is exact */
        model_shapes[shape].set(&c);
        size_t size = transformer_model_size(&c);
        unsigned char *memory = (unsigned char *)test_poisoned(size);
        model = (transformer_model *)memory;
        CHECK(says(transformer_model_init(memory, size - 1, &c, &options, &model, &error),
                   TRANSFORMER_MEMORY, NULL));
        CHECK(!model && memory[0] == 0xff && !memcmp(memory, memory + 1, size - 1));
        CHECK(!transformer_model_init(memory, size, &c, &options, &model, &error) && model);
        CHECK(!error.status && !error.text[0]);
        transformer_free(memory);
    }
    shape_llama(&c);
    size_t size = transformer_model_size(&c);
    unsigned char *memory = (unsigned char *)test_poisoned(size + 64);
    CHECK(says(transformer_model_init(NULL, size, &c, &options, &model, &error),
               TRANSFORMER_ARGUMENT, "memory"));
    for (int off = 1; off < 64; off *= 2)
        CHECK(says(transformer_model_init(memory + off, size, &c, &options, &model, &error),
                   TRANSFORMER_MEMORY, "align"));
    CHECK(says(transformer_model_init(memory, size, NULL, &options, &model, &error),
               TRANSFORMER_ARGUMENT, "config"));
    CHECK(says(transformer_model_init(memory, size, &c, &options, NULL, &error),
               TRANSFORMER_ARGUMENT, "model"));
    options.isa = "mmx";
    CHECK(says(transformer_model_init(memory, size, &c, &options, &model, &error),
               TRANSFORMER_UNSUPPORTED, "mmx"));
    options.isa = "";
    CHECK(says(transformer_model_init(memory, size, &c, &options, &model, &error),
               TRANSFORMER_UNSUPPORTED, "isa"));
    options.isa = NULL, options.rope_length = -1;
    CHECK(says(transformer_model_init(memory, size, &c, &options, &model, &error),
               TRANSFORMER_ARGUMENT, "rope_length"));
    options.rope_length = 0;
    CHECK(!model && memory[0] == 0xff && !memcmp(memory, memory + 1, size + 63));
    const char *names[8];
    int n = model_isas(names, 8);
    for (int i = 0; i < n; i++) {
        options.isa = names[i];
        CHECK(!transformer_model_init(memory, size, &c, &options, &model, NULL));
        CHECK(!strcmp(transformer_isa(model), names[i]));
    }
    CHECK(!transformer_model_init(memory, size, &c, NULL, &model, NULL));
    /* the best by default, which BF16 dot products are on some processors only */
    int best = n - 1 - (!strcmp(names[n - 1], "avx512bf16") && tfi_cpu() & TFI_CPU_SLOW_BF16);
    CHECK(!strcmp(transformer_isa(model), names[best]));
    CHECK(transformer_isa(NULL) && !transformer_model_config(NULL));
    /* zeros of the configuration are resolved */
    const transformer_config *own = transformer_model_config(model);
    CHECK(own && own->value_dim == 6 && own->embedding_dim == 36 && own->rope[0].dims == 6);
    CHECK(own->layers[1].n_heads == 6 && own->layers[1].n_kv_heads == 2);
    CHECK(own->layers[0].mlp_dim == 50 && own->layers[0].attn_scale > .4f);
    transformer_free(memory);
    GROUP("model: exact size; memory, options and instruction set checked");
}

static void test_bind(void) {
    static float numbers[300 * 36 + 1];
    transformer_config c;
    static transformer_tensor t; /* static: its padding is 0 */
    t.data = numbers, t.dtype = TRANSFORMER_F32, t.rows = 12, t.cols = 36;
    shape_llama(&c);
    size_t size = transformer_model_size(&c);
    void *before = test_aligned(size), *memory = test_aligned(size);
    transformer_model *model = NULL;
    CHECK(!transformer_model_init(memory, size, &c, NULL, &model, &error));
    memcpy(before, model, size);
#define REFUSE_BIND(model_, role, layer, tensor, status, text)                                     \
    CHECK(says(transformer_bind(model_, role, layer, tensor, &error), status, text));              \
    CHECK(!memcmp(before, model, size))
    REFUSE_BIND(NULL, TRANSFORMER_K, 0, &t, TRANSFORMER_ARGUMENT, "model");
    REFUSE_BIND(model, TRANSFORMER_K, 0, NULL, TRANSFORMER_ARGUMENT, "k, layer 0");
    t.data = NULL;
    REFUSE_BIND(model, TRANSFORMER_K, 1, &t, TRANSFORMER_ARGUMENT, "k, layer 1");
    t.data = numbers;
    REFUSE_BIND(model, -1, 0, &t, TRANSFORMER_ARGUMENT, NULL);
    REFUSE_BIND(model, TRANSFORMER_N_ROLES, 0, &t, TRANSFORMER_ARGUMENT, NULL);
    REFUSE_BIND(model, INT_MAX, 0, &t, TRANSFORMER_ARGUMENT, NULL);
    REFUSE_BIND(model, TRANSFORMER_K, -1, &t, TRANSFORMER_ARGUMENT, "k, layer -1");
    REFUSE_BIND(model, TRANSFORMER_K, 2, &t, TRANSFORMER_ARGUMENT, "k, layer 2");
    REFUSE_BIND(model, TRANSFORMER_HEAD, 1, &t, TRANSFORMER_ARGUMENT, "head");
    REFUSE_BIND(model, TRANSFORMER_K_BIAS, 0, &t, TRANSFORMER_WEIGHTS, "k_bias");
    t.rows = 36, t.cols = 12;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "[12, 36]");
    t.rows = 12, t.cols = 37;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "[12, 37]");
    t.rows = -12, t.cols = -36;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "[-12, -36]");
    t.rows = INT_MIN, t.cols = 36;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "-2147483648");
    t.rows = 12;
    static const int types[] = {-1, 2, 3, 8, 12, 14, 29, 31, INT_MAX};
    for (int i = 0; i < 9; i++) {
        t.dtype = types[i];
        REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "k, layer 0");
    }
    t.dtype = TRANSFORMER_F32, t.data = (const unsigned char *)numbers + 2;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "align");
    t.dtype = TRANSFORMER_F16, t.data = (const unsigned char *)numbers + 1;
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_WEIGHTS, "align");
    /* each missing tensor is named; before the last one the model is not ready for anything */
    t.data = numbers;
    for (int l = 0; l < 2; l++)
        for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
            if (!transformer_tensor_shape(&c, role, l, &t.rows, &t.cols)) continue;
            CHECK(says(transformer_model_ready(model, &error), TRANSFORMER_WEIGHTS, "not bound"));
            t.dtype = role % 2 ? TRANSFORMER_F16 : TRANSFORMER_F32;
            CHECK(!transformer_bind(model, role, l, &t, &error));
            CHECK(!transformer_bind(model, role, l, &t, NULL)); /* again: the last one counts */
        }
    CHECK(!transformer_state_size(model, NULL) && !transformer_workspace_size(model, NULL));
    CHECK(!transformer_state_new(model, NULL, &error));
    CHECK(says(error.status, TRANSFORMER_ARGUMENT, "ready"));
    CHECK(!transformer_workspace_new(model, NULL, &error));
    CHECK(says(error.status, TRANSFORMER_ARGUMENT, "ready"));
    CHECK(transformer_forward(model, NULL, NULL, tokens, 1, logits) == TRANSFORMER_ARGUMENT);
    CHECK(!transformer_model_ready(model, &error) && !error.text[0]);
    memcpy(before, model, size);
    CHECK(transformer_tensor_shape(&c, TRANSFORMER_K, 0, &t.rows, &t.cols));
    REFUSE_BIND(model, TRANSFORMER_K, 0, &t, TRANSFORMER_ARGUMENT, "ready");
    CHECK(!transformer_model_ready(model, &error)); /* already: still fine, nothing changes */
    CHECK(!memcmp(before, model, size));
    CHECK(says(transformer_model_ready(NULL, &error), TRANSFORMER_ARGUMENT, "model"));
    transformer_free(model), transformer_free(before);
    /* one missing tensor at a time */
    for (int l = 0; l < 2; l++)
        for (int missing = 0; missing < TRANSFORMER_N_ROLES; missing++) {
            char text[64];
            int rows, cols;
            if (!transformer_tensor_shape(&c, missing, l, NULL, NULL)) continue;
            model = transformer_model_new(&c, NULL, &error);
            for (int i = 0; i < 2 * TRANSFORMER_N_ROLES; i++) {
                int role = i % TRANSFORMER_N_ROLES, layer = i / TRANSFORMER_N_ROLES;
                if (!transformer_tensor_shape(&c, role, layer, &rows, &cols)) continue;
                t.rows = rows, t.cols = cols, t.dtype = TRANSFORMER_F32;
                if (role != missing || layer != l)
                    CHECK(!transformer_bind(model, role, layer, &t, NULL));
            }
            snprintf(text, sizeof text, "%s, layer %d", transformer_role_name(missing), l);
            CHECK(says(transformer_model_ready(model, &error), TRANSFORMER_WEIGHTS, text));
            transformer_free(model);
        }
    GROUP("binding: wrong, missing and late tensors are refused and named");
}

static void test_bind_flat(void) {
    transformer_config c;
    size_t size;
    shape_gpt2(&c);
    void *flat = model_weights(&c, TRANSFORMER_F32, 1, &size);
    transformer_model *model = transformer_model_new(&c, NULL, &error);
#define REFUSE_FLAT(m, data, bytes, dtype, status, text)                                           \
    CHECK(says(transformer_bind_flat(m, data, bytes, dtype, &error), status, text));               \
    CHECK(transformer_model_ready(model, NULL) == TRANSFORMER_WEIGHTS)
    REFUSE_FLAT(NULL, flat, size, TRANSFORMER_F32, TRANSFORMER_ARGUMENT, NULL);
    REFUSE_FLAT(model, NULL, size, TRANSFORMER_F32, TRANSFORMER_ARGUMENT, NULL);
    REFUSE_FLAT(model, flat, size - 1, TRANSFORMER_F32, TRANSFORMER_WEIGHTS, "size");
    REFUSE_FLAT(model, flat, size + 1, TRANSFORMER_F32, TRANSFORMER_WEIGHTS, "size");
    REFUSE_FLAT(model, flat, 0, TRANSFORMER_F32, TRANSFORMER_WEIGHTS, "size");
    REFUSE_FLAT(model, flat, size, TRANSFORMER_F16, TRANSFORMER_WEIGHTS, "size");
    REFUSE_FLAT(model, flat, size, 12345, TRANSFORMER_ARGUMENT, "12345");
    REFUSE_FLAT(model, (unsigned char *)flat + 4, size, TRANSFORMER_F32, TRANSFORMER_WEIGHTS,
                "align");
    CHECK(!transformer_bind_flat(model, flat, size, TRANSFORMER_F32, &error) && !error.text[0]);
    CHECK(says(transformer_bind_flat(model, flat, size, TRANSFORMER_F32, &error),
               TRANSFORMER_ARGUMENT, "ready"));
    transformer_free(model), transformer_free(flat);
    GROUP("bind_flat: size, alignment and type checked");
}

/* ---- states and workspaces ---- */

static void test_state_init(void) {
    subject s;
    transformer_options o;
    transformer_state *state = NULL;
    for (int shape = 0; shape < N_SHAPES; shape++)
        for (int kv_dtype = 0; kv_dtype < 2; kv_dtype++) {
            CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, kv_dtype));
            size_t size = transformer_state_size(s.model, &s.options);
            unsigned char *memory = (unsigned char *)test_poisoned(size);
            CHECK(
                says(transformer_state_init(memory, size - 1, s.model, &s.options, &state, &error),
                     TRANSFORMER_MEMORY, NULL));
            CHECK(!state && !memcmp(memory, memory + 1, size - 1));
            CHECK(!transformer_state_init(memory, size, s.model, &s.options, &state, &error));
            CHECK(transformer_state_bytes(state) == size && !transformer_state_position(state));
            CHECK(transformer_state_context(state) == MODEL_CONTEXT);
            transformer_free(memory), subject_free(&s);
        }
    CHECK(subject_make(&s, SHAPE_GPT2, TRANSFORMER_F32, 1, NULL, 0, 0));
    memset(&o, 0, sizeof o);
    size_t size = transformer_state_size(s.model, NULL);
    CHECK(size == transformer_state_size(s.model, &o));
    unsigned char *memory = (unsigned char *)test_poisoned(size + 64);
#define REFUSE_STATE(memory_, size_, m, status, text)                                              \
    state = (transformer_state *)memory;                                                           \
    CHECK(says(transformer_state_init(memory_, size_, m, &o, &state, &error), status, text));      \
    CHECK(!state && !memcmp(memory, memory + 1, size + 63))
    REFUSE_STATE(NULL, size, s.model, TRANSFORMER_ARGUMENT, "memory");
    REFUSE_STATE(memory + 8, size, s.model, TRANSFORMER_MEMORY, "align");
    REFUSE_STATE(memory, size, NULL, TRANSFORMER_ARGUMENT, "model");
    CHECK(says(transformer_state_init(memory, size, s.model, &o, NULL, &error),
               TRANSFORMER_ARGUMENT, "state"));
    static const struct {
        int context, kv_dtype, undo, status;
        const char *text;
    } wrong[] = {{-1, 0, 0, TRANSFORMER_ARGUMENT, "context"},
                 {INT_MIN, 0, 0, TRANSFORMER_ARGUMENT, "context"},
                 {INT_MAX, 0, 0, TRANSFORMER_ARGUMENT, "context"},
                 {MODEL_CONTEXT + 1, 0, 0, TRANSFORMER_ARGUMENT, "learned"},
                 {0, TRANSFORMER_BF16, 0, TRANSFORMER_UNSUPPORTED, "kv_dtype"},
                 {0, -1, 0, TRANSFORMER_UNSUPPORTED, "kv_dtype"},
                 {0, INT_MAX, 0, TRANSFORMER_UNSUPPORTED, "kv_dtype"},
                 {0, 0, -1, TRANSFORMER_ARGUMENT, "undo"},
                 {0, 0, INT_MAX, TRANSFORMER_ARGUMENT, "undo"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        o.context = wrong[i].context, o.kv_dtype = wrong[i].kv_dtype, o.undo = wrong[i].undo;
        CHECK(!transformer_state_size(s.model, &o));
        REFUSE_STATE(memory, size, s.model, (transformer_status)wrong[i].status, wrong[i].text);
        CHECK(!transformer_state_new(s.model, &o, &error));
        CHECK(says(error.status, (transformer_status)wrong[i].status, wrong[i].text));
    }
    /* no state at all */
    CHECK(!transformer_state_bytes(NULL) && !transformer_state_position(NULL));
    CHECK(!transformer_state_context(NULL));
    CHECK(transformer_state_rewind(NULL, 0) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_rewind((transformer_state *)(void *)memory, 0) == TRANSFORMER_ARGUMENT);
    CHECK(!transformer_state_bytes((transformer_state *)(void *)memory));
    transformer_free(memory), subject_free(&s);
    GROUP("state: exact size; memory and options checked");
}

static void test_workspace_init(void) {
    subject s;
    transformer_options o;
    transformer_workspace *work = NULL;
    memset(&o, 0, sizeof o);
    for (int shape = 0; shape < N_SHAPES; shape++)
        for (int i = 0; i < 3; i++) {
            CHECK(subject_make(&s, shape, TRANSFORMER_BF16, 1, NULL, i == 1, 0));
            o.batch = i * 7, o.n_threads = i * 2;
            size_t size = transformer_workspace_size(s.model, &o);
            unsigned char *memory = (unsigned char *)test_poisoned(size);
            CHECK(says(transformer_workspace_init(memory, size - 1, s.model, &o, &work, &error),
                       TRANSFORMER_MEMORY, NULL));
            CHECK(!work && !memcmp(memory, memory + 1, size - 1));
            CHECK(!transformer_workspace_init(memory, size, s.model, &o, &work, &error) && work);
            transformer_free(memory), subject_free(&s);
        }
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, 0));
    memset(&o, 0, sizeof o);
    size_t size = transformer_workspace_size(s.model, NULL);
    unsigned char *memory = (unsigned char *)test_poisoned(size + 64);
#define REFUSE_WORK(memory_, size_, m, status, text)                                               \
    work = (transformer_workspace *)memory;                                                        \
    CHECK(says(transformer_workspace_init(memory_, size_, m, &o, &work, &error), status, text));   \
    CHECK(!work && !memcmp(memory, memory + 1, size + 63))
    REFUSE_WORK(NULL, size, s.model, TRANSFORMER_ARGUMENT, "memory");
    REFUSE_WORK(memory + 32, size, s.model, TRANSFORMER_MEMORY, "align");
    REFUSE_WORK(memory, size, NULL, TRANSFORMER_ARGUMENT, "model");
    CHECK(says(transformer_workspace_init(memory, size, s.model, &o, NULL, &error),
               TRANSFORMER_ARGUMENT, "work"));
    static const int batches[] = {-1, INT_MIN, 65537, INT_MAX}, teams[] = {-1, 1025, INT_MAX};
    for (int i = 0; i < 7; i++) {
        o.batch = i < 4 ? batches[i] : 0, o.n_threads = i < 4 ? 0 : teams[i - 4];
        CHECK(!transformer_workspace_size(s.model, &o));
        REFUSE_WORK(memory, size, s.model, TRANSFORMER_ARGUMENT, i < 4 ? "batch" : "n_threads");
        CHECK(!transformer_workspace_new(s.model, &o, &error));
        CHECK(says(error.status, TRANSFORMER_ARGUMENT, i < 4 ? "batch" : "n_threads"));
    }
    transformer_free(memory), subject_free(&s);
    GROUP("workspace: exact size; memory and options checked");
}

/* ---- calls (the state's bytes after each failure: test_contract.c) ---- */

static void test_forward_arguments(void) {
    subject s, other;
    int32_t bad[3] = {1, 2, 3};
    CHECK(subject_make(&s, SHAPE_GPT2, TRANSFORMER_F32, 1, NULL, 0, 0));
    CHECK(subject_make(&other, SHAPE_GPT2, TRANSFORMER_F32, 2, NULL, 0, 0));
    transformer_state *state = subject_state(&s), *foreign = subject_state(&other);
    transformer_workspace *work = subject_workspace(&s, 8, 1, NULL, NULL);
    transformer_workspace *strange = subject_workspace(&other, 8, 1, NULL, NULL);
    model_tokens(tokens, MODEL_CONTEXT + 1, 300, 1);
#define REFUSE_CALL(m, w, st, tk, n, status)                                                       \
    CHECK(transformer_forward(m, w, st, tk, n, logits) == (status));                               \
    CHECK(transformer_state_position(state) == 0)
    REFUSE_CALL(NULL, work, state, tokens, 1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, NULL, state, tokens, 1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, NULL, tokens, 1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, state, NULL, 1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, state, tokens, 0, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, state, tokens, -1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, state, tokens, INT_MIN, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(s.model, work, state, tokens, INT_MAX, TRANSFORMER_FULL);
    REFUSE_CALL(s.model, work, state, tokens, MODEL_CONTEXT + 1, TRANSFORMER_FULL);
    REFUSE_CALL(s.model, work, foreign, tokens, 1, TRANSFORMER_STATE);
    REFUSE_CALL(s.model, strange, state, tokens, 1, TRANSFORMER_ARGUMENT);
    REFUSE_CALL(other.model, strange, state, tokens, 1, TRANSFORMER_STATE);
    static const int32_t wrong[] = {-1, 300, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 4; i++) {
        bad[2] = wrong[i];
        REFUSE_CALL(s.model, work, state, bad, 3, TRANSFORMER_ARGUMENT);
    }
    /* the error names the token */
    transformer_sequence q;
    transformer_call call;
    memset(&q, 0, sizeof q), memset(&call, 0, sizeof call);
    q.state = state, q.tokens = bad, q.n = 3, call.sequences = &q, call.n_sequences = 1;
    bad[2] = 300;
    CHECK(says(transformer_run(s.model, work, &call, &error), TRANSFORMER_ARGUMENT,
               "token 2 is 300"));
    q.tokens = tokens, q.n = MODEL_CONTEXT + 1;
    CHECK(says(transformer_run(s.model, work, &call, &error), TRANSFORMER_FULL, "context"));
    q.n = 3, q.state = foreign;
    CHECK(says(transformer_run(s.model, work, &call, &error), TRANSFORMER_STATE, "model"));
    CHECK(says(transformer_resume(s.model, work, 0, &error), TRANSFORMER_ARGUMENT, "paused"));
    CHECK(says(transformer_resume(NULL, work, 0, &error), TRANSFORMER_ARGUMENT, NULL));
    CHECK(says(transformer_resume(s.model, NULL, 0, &error), TRANSFORMER_ARGUMENT, NULL));
    q.state = state, call.n_layers = 1;
    CHECK(says(transformer_run(s.model, work, &call, &error), TRANSFORMER_PAUSED, NULL));
    CHECK(says(transformer_resume(other.model, work, 0, &error), TRANSFORMER_ARGUMENT, NULL));
    CHECK(says(transformer_resume(s.model, work, -1, &error), TRANSFORMER_ARGUMENT, "n_layers"));
    CHECK(!transformer_resume(s.model, work, 1, &error) && !error.text[0]);
    CHECK(transformer_state_position(state) == 3 && !transformer_state_rewind(state, 0));
    /* the last position is as good as any; then the state is full */
    CHECK(!transformer_forward(s.model, work, state, tokens, MODEL_CONTEXT - 1, NULL));
    CHECK(transformer_forward(s.model, work, state, tokens, 2, logits) == TRANSFORMER_FULL);
    CHECK(!transformer_forward(s.model, work, state, tokens, 1, logits));
    CHECK(transformer_state_position(state) == MODEL_CONTEXT);
    CHECK(transformer_forward(s.model, work, state, tokens, 1, logits) == TRANSFORMER_FULL);
    CHECK(transformer_state_position(state) == MODEL_CONTEXT);
    CHECK(transformer_state_rewind(state, MODEL_CONTEXT + 1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_rewind(state, INT_MIN) == TRANSFORMER_ARGUMENT);
    CHECK(!transformer_state_rewind(state, MODEL_CONTEXT - 1));
    CHECK(!transformer_forward(s.model, work, state, tokens, 1, logits));
    transformer_free(state), transformer_free(foreign), transformer_free(work);
    transformer_free(strange), subject_free(&s), subject_free(&other);
    GROUP("forward, run, resume: wrong arguments, full context");
}

/* A state may be shorter or longer than the model's context where positions allow it. */
static void test_own_context(void) {
    subject s;
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, 0));
    transformer_workspace *work = subject_workspace(&s, 0, 1, NULL, NULL);
    static const int contexts[] = {1, 3, 64, 65, 500};
    for (int i = 0; i < 5; i++) {
        s.options.context = contexts[i];
        transformer_state *state = subject_state(&s);
        CHECK(transformer_state_context(state) == contexts[i]);
        for (int t = 0; t < contexts[i]; t++)
            CHECK(!transformer_forward(s.model, work, state, tokens + t % 100, 1, logits));
        CHECK(transformer_forward(s.model, work, state, tokens, 1, logits) == TRANSFORMER_FULL);
        transformer_free(state);
    }
    transformer_free(work), subject_free(&s);
    GROUP("states of any context, filled to the last position");
}

/* ---- malloc fails ---- */

static void test_malloc_failure(void) {
    subject s;
    transformer_config c;
    shape_llama(&c);
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, 0));
    int in_use = blocks_in_use;
    mallocs_until_failure = 0;
    CHECK(!transformer_model_new(&c, NULL, &error));
    CHECK(says(error.status, TRANSFORMER_MEMORY, "memory"));
    CHECK(!transformer_state_new(s.model, NULL, &error));
    CHECK(says(error.status, TRANSFORMER_MEMORY, "memory"));
    CHECK(!transformer_workspace_new(s.model, NULL, &error));
    CHECK(says(error.status, TRANSFORMER_MEMORY, "memory"));
    CHECK(!transformer_model_new(&c, NULL, NULL) && !transformer_state_new(s.model, NULL, NULL));
    CHECK(!transformer_workspace_new(s.model, NULL, NULL));
    mallocs_until_failure = -1;
    CHECK(blocks_in_use == in_use);
    /* what fails after the allocation gives it back */
    transformer_options o;
    memset(&o, 0, sizeof o);
    o.isa = "mmx";
    CHECK(!transformer_model_new(&c, &o, &error));
    CHECK(says(error.status, TRANSFORMER_UNSUPPORTED, "mmx") && blocks_in_use == in_use);
    CHECK(!transformer_model_new(NULL, NULL, &error) && blocks_in_use == in_use);
    CHECK(says(error.status, TRANSFORMER_ARGUMENT, "config"));
    CHECK(!transformer_state_new(NULL, NULL, &error) && blocks_in_use == in_use);
    CHECK(says(error.status, TRANSFORMER_ARGUMENT, "model"));
    CHECK(!transformer_workspace_new(NULL, NULL, &error) && blocks_in_use == in_use);
    CHECK(says(error.status, TRANSFORMER_ARGUMENT, "model"));
    transformer_free(NULL);
    subject_free(&s);
    GROUP("malloc fails: NULL and MEMORY, nothing leaks");
}

/* ---- kernels on plain arrays ---- */

static void test_kernels(void) {
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8], kept[8], scratch[16];
    const uint16_t half = 0;
    transformer_tensor w = {x, TRANSFORMER_F32, 2, 2}, bad;
    int32_t ids[2] = {0, 2};
    transformer_attention_args a;
    memset(out, 0x55, sizeof out), memcpy(kept, out, sizeof out);
#define REFUSE_KERNEL(expression)                                                                  \
    CHECK((expression) == TRANSFORMER_ARGUMENT);                                                   \
    CHECK(!memcmp(out, kept, sizeof out))
    REFUSE_KERNEL(transformer_matmul(NULL, x, &w, NULL, 1));
    REFUSE_KERNEL(transformer_matmul(out, NULL, &w, NULL, 1));
    REFUSE_KERNEL(transformer_matmul(out, x, NULL, NULL, 1));
    REFUSE_KERNEL(transformer_matmul(out, x, &w, NULL, -1));
    bad = w, bad.data = NULL;
    REFUSE_KERNEL(transformer_matmul(out, x, &bad, NULL, 1));
    bad = w, bad.dtype = 12;
    REFUSE_KERNEL(transformer_matmul(out, x, &bad, NULL, 1));
    bad = w, bad.rows = -1;
    REFUSE_KERNEL(transformer_matmul(out, x, &bad, NULL, 1));
    bad = w, bad.cols = -1;
    REFUSE_KERNEL(transformer_matmul(out, x, &bad, NULL, 1));
    REFUSE_KERNEL(transformer_softmax(NULL, 1));
    REFUSE_KERNEL(transformer_softmax(out, -1));
    REFUSE_KERNEL(transformer_layernorm(NULL, x, NULL, NULL, 2, 0));
    REFUSE_KERNEL(transformer_layernorm(out, NULL, NULL, NULL, 2, 0));
    REFUSE_KERNEL(transformer_layernorm(out, x, NULL, NULL, -1, 0));
    REFUSE_KERNEL(transformer_rmsnorm(NULL, x, NULL, 2, 0));
    REFUSE_KERNEL(transformer_rmsnorm(out, NULL, NULL, 2, 0));
    REFUSE_KERNEL(transformer_rmsnorm(out, x, NULL, -1, 0));
    REFUSE_KERNEL(transformer_rope_apply(NULL, 1, 4, 4, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, -1, 4, 4, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, 1, -4, 4, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, 1, 4, 3, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, 1, 4, 6, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, 1, 4, -2, 0, 1e4, 1));
    REFUSE_KERNEL(transformer_rope_apply(out, 1, 4, 4, 2, 1e4, 1));
    REFUSE_KERNEL(transformer_activate(NULL, 1, 0));
    REFUSE_KERNEL(transformer_activate(out, -1, 0));
    REFUSE_KERNEL(transformer_activate(out, 1, -1));
    REFUSE_KERNEL(transformer_activate(out, 1, TRANSFORMER_IDENTITY + 1));
    REFUSE_KERNEL(transformer_embedding(out, &w, ids, 2)); /* id 2 of 2 rows */
    ids[1] = -1;
    REFUSE_KERNEL(transformer_embedding(out, &w, ids, 2));
    ids[1] = 1;
    REFUSE_KERNEL(transformer_embedding(NULL, &w, ids, 2));
    REFUSE_KERNEL(transformer_embedding(out, NULL, ids, 2));
    REFUSE_KERNEL(transformer_embedding(out, &w, NULL, 2));
    REFUSE_KERNEL(transformer_embedding(out, &w, ids, -1));
    REFUSE_KERNEL(transformer_unembedding(NULL, x, &w, 1));
    REFUSE_KERNEL(transformer_unembedding(out, NULL, &w, 1));
    REFUSE_KERNEL(transformer_unembedding(out, x, NULL, 1));
    REFUSE_KERNEL(transformer_unembedding(out, x, &w, -1));
    REFUSE_KERNEL(transformer_mlp(NULL, x, &w, &w, &w, NULL, NULL, NULL, 0, 1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, NULL, &w, &w, &w, NULL, NULL, NULL, 0, 1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, x, &w, NULL, &w, NULL, NULL, NULL, 0, 1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, x, &w, &w, NULL, NULL, NULL, NULL, 0, 1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, x, &w, &w, &w, NULL, NULL, NULL, 99, 1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, x, &w, &w, &w, NULL, NULL, NULL, 0, -1, scratch));
    REFUSE_KERNEL(transformer_mlp(out, x, &w, &w, &w, NULL, NULL, NULL, 0, 1, NULL));
    bad = w, bad.rows = 3;
    REFUSE_KERNEL(transformer_mlp(out, x, &bad, &w, &w, NULL, NULL, NULL, 0, 1, scratch));
    bad = w, bad.data = &half, bad.dtype = -5;
    REFUSE_KERNEL(transformer_mlp(out, x, NULL, &w, &bad, NULL, NULL, NULL, 0, 1, scratch));
    REFUSE_KERNEL(transformer_attention(NULL));
    static const int changes = 13;
    for (int i = 0; i <= changes; i++) {
        memset(&a, 0, sizeof a);
        a.q = a.k = a.v = x, a.out = out, a.n_queries = a.n_keys = 2, a.n_heads = 2;
        a.n_kv_heads = 1, a.key_dim = a.value_dim = 2, a.causal = 1;
        switch (i) {
        case 0: a.q = NULL; break;
        case 1: a.k = NULL; break;
        case 2: a.v = NULL; break;
        case 3: a.out = NULL; break;
        case 4: a.n_queries = -1; break;
        case 5: a.n_keys = -1; break;
        case 6: a.n_heads = -1; break;
        case 7: a.n_kv_heads = 0; break;
        case 8: a.n_heads = 3, a.n_kv_heads = 2; break;
        case 9: a.key_dim = -1; break;
        case 10: a.value_dim = -1; break;
        case 11: a.window = -1; break;
        case 12: a.n_kv_heads = -1; break;
        default: continue;
        }
        REFUSE_KERNEL(transformer_attention(&a));
    }
    CHECK(!transformer_attention(&a) && memcmp(out, kept, sizeof out));
    CHECK(!transformer_softmax(x, 0) && !transformer_matmul(out, x, &w, NULL, 0));
    GROUP("kernels: NULL and bad sizes are refused before anything is written");
}

int main(void) {
    test_names();
    test_config_fields();
    test_config_layers_and_ropes();
    test_huge_sizes();
    test_flat();
    test_model_init();
    test_bind();
    test_bind_flat();
    test_state_init();
    test_workspace_init();
    test_forward_arguments();
    test_own_context();
    test_malloc_failure();
    test_kernels();
    CHECK(blocks_in_use == 0);
    return test_finish();
}
