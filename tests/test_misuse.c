/* Every entry point, used wrongly: it returns the documented status, says in words what is wrong, and changes nothing.
 * Sizes are exact, a failing malloc leaks nothing. */
#include <stdint.h>
#include <stdlib.h>
static int test_malloc_budget = -1, test_blocks;
static void *test_malloc(size_t n) {
    if (test_malloc_budget == 0) return NULL;
    if (test_malloc_budget > 0) test_malloc_budget--;
    test_blocks++;
    return malloc(n);
}
static void test_free(void *p) {
    if (p) test_blocks--;
    free(p);
}
#define TRANSFORMER_MALLOC(n) test_malloc(n)
#define TRANSFORMER_FREE(p) test_free(p)
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "models.h"

static transformer_error error;
/* The status is as documented, the text names the thing (and is empty for OK). */
#define EXPECT(status_, name, call)                                                                \
    do {                                                                                           \
        memset(&error, 1, sizeof error);                                                           \
        int got = (int)(call), want = (int)(status_);                                              \
        CHECK(got == want && (int)error.status == want);                                           \
        CHECK(memchr(error.text, 0, sizeof error.text) != NULL);                                   \
        CHECK(strstr(error.text, name) != NULL);                                                   \
        if (got != want || !strstr(error.text, name))                                              \
            fprintf(stderr, "line %d: status %d (%s), expected %d and '%s'\n", __LINE__, got,      \
                    error.text, want, name);                                                       \
    } while (0)

/* ---- configuration ---- */

static void expect_config(const char *field, const transformer_config *c) {
    EXPECT(TRANSFORMER_CONFIG, field, transformer_config_check(c, &error));
    CHECK(transformer_flat_size(c, TRANSFORMER_F32) == 0 && transformer_model_size(c) == 0);
    CHECK(transformer_config_check(c, NULL) == TRANSFORMER_CONFIG);
}

static void test_config(void) {
    transformer_config good, c;
    shape_llama(&good);
    CHECK(transformer_config_check(&good, &error) == TRANSFORMER_OK && error.text[0] == 0);
    EXPECT(TRANSFORMER_ARGUMENT, "config", transformer_config_check(NULL, &error));
    for (size_t i = 0; i < sizeof tfi_int_rules / sizeof tfi_int_rules[0]; i++) {
        const int bad[] = {tfi_int_rules[i].low - 1, tfi_int_rules[i].high + 1, -2147483647 - 1,
                           2147483647};
        for (int j = 0; j < 4; j++) {
            c = good;
            memcpy((char *)&c + tfi_int_rules[i].offset, &bad[j], sizeof(int));
            expect_config(tfi_int_rules[i].name, &c);
        }
    }
    for (size_t i = 0; i < sizeof tfi_float_rules / sizeof tfi_float_rules[0]; i++) {
        const float bad[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
        for (int j = 0; j < 3; j++) {
            c = good;
            memcpy((char *)&c + tfi_float_rules[i].offset, &bad[j], sizeof(float));
            expect_config(tfi_float_rules[i].name, &c);
        }
    }
#define BAD(field, assignment) c = good, assignment, expect_config(field, &c)
    BAD("n_heads", c.n_heads = 0);
    BAD("head_dim", (c.head_dim = 0, c.n_heads = 600));
    BAD("n_kv_heads", c.n_kv_heads = 4);
    BAD("mlp_dim", c.mlp_dim = 0);
    BAD("norm_placement", c.norm_placement = TRANSFORMER_PLACE_SUM | TRANSFORMER_PLACE_INPUT);
    BAD("norm_placement", (c.norm_placement = TRANSFORMER_PLACE_SUM, c.parallel = 1));
    BAD("residual_from_norm", (c.residual_from_norm = 1, c.parallel = 1));
    BAD("alibi_max_bias", c.position = TRANSFORMER_POSITION_ALIBI);
    BAD("logn_length", c.logn_length = 1);
    BAD("window", c.layers[1].window = -1);
    BAD("window", (c.causal = 0, c.layers[1].window = 4));
    BAD("layers[1].rope", c.layers[1].rope = 1);
    BAD("layers[0].rope", c.layers[0].rope = -2);
    BAD("no_attention", c.layers[0].no_attention = 2);
    BAD("attn_scale", c.layers[0].attn_scale = (float)NAN);
    BAD("rope[0].dims", c.rope[0].dims = 3);
    BAD("rope[0].dims", c.rope[0].dims = 8);
    BAD("rope[0].theta", c.rope[0].theta = 0);
    BAD("rope[0].scaling", c.rope[0].scaling = 7);
    BAD("rope[0].factor", (c.rope[0].scaling = TRANSFORMER_ROPE_LINEAR, c.rope[0].factor = NAN));
    BAD("original_context", c.rope[0].scaling = TRANSFORMER_ROPE_DYNAMIC);
    BAD("low_freq_factor",
        (c.rope[0].scaling = TRANSFORMER_ROPE_LLAMA3, c.rope[0].original_context = 9));
    BAD("beta_slow", (c.rope[0].scaling = TRANSFORMER_ROPE_YARN, c.rope[0].original_context = 9));
    BAD("rope[0]: factor 0", (c.rope[0].dims = 6, c.rope[0].scaling = TRANSFORMER_ROPE_LONG,
                              c.rope[0].original_context = 9));
    GROUP("configuration: each wrong field is named");
    c = good, c.dim = c.vocab_size = c.mlp_dim = 1 << 24, c.n_layers = TRANSFORMER_MAX_LAYERS;
    CHECK(transformer_config_check(&c, NULL) == TRANSFORMER_OK);
    if (sizeof(size_t) == 4) CHECK(transformer_flat_size(&c, TRANSFORMER_F32) == 0);
    else CHECK(transformer_flat_size(&c, TRANSFORMER_F32) > (size_t)1 << 24);
    CHECK(transformer_flat_size(&good, 77) == 0);
    GROUP("sizes that do not fit are 0");
}

/* ---- models ---- */

static void test_model(void) {
    transformer_config c;
    transformer_options o = {0};
    transformer_model *m = NULL;
    size_t size, flat_size, offset;
    int rows, cols;
    shape_llama(&c);
    size = transformer_model_size(&c);
    unsigned char *memory = (unsigned char *)test_aligned(size + 64);
    float *flat = (float *)model_weights(&c, TRANSFORMER_F32, 1, &flat_size);
    EXPECT(TRANSFORMER_ARGUMENT, "memory", transformer_model_init(NULL, size, &c, &o, &m, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "config",
           transformer_model_init(memory, size, NULL, &o, &m, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "model",
           transformer_model_init(memory, size, &c, &o, NULL, &error));
    EXPECT(TRANSFORMER_MEMORY, "smaller",
           transformer_model_init(memory, size - 1, &c, &o, &m, &error));
    EXPECT(TRANSFORMER_MEMORY, "aligned",
           transformer_model_init(memory + 4, size, &c, &o, &m, &error));
    o.isa = "quantum";
    EXPECT(TRANSFORMER_UNSUPPORTED, "quantum",
           transformer_model_init(memory, size, &c, &o, &m, &error));
    o.isa = NULL, o.rope_length = -1;
    EXPECT(TRANSFORMER_ARGUMENT, "rope_length",
           transformer_model_init(memory, size, &c, &o, &m, &error));
    CHECK(m == NULL);
    EXPECT(TRANSFORMER_OK, "", transformer_model_init(memory, size, &c, NULL, &m, &error));
    GROUP("model_init: memory, alignment, options");

    transformer_tensor t = {flat, TRANSFORMER_F32, 300, 36};
    EXPECT(TRANSFORMER_ARGUMENT, "model",
           transformer_bind(NULL, TRANSFORMER_EMBEDDING, 0, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "unknown role", transformer_bind(m, -1, 0, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "unknown role",
           transformer_bind(m, TRANSFORMER_N_ROLES, 0, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "layer 1",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 1, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "layer 2", transformer_bind(m, TRANSFORMER_Q, 2, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "layer -1", transformer_bind(m, TRANSFORMER_Q, -1, &t, &error));
    EXPECT(TRANSFORMER_WEIGHTS, "q_bias", transformer_bind(m, TRANSFORMER_Q_BIAS, 0, &t, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "no data",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 0, NULL, &error));
    t.rows = 299;
    EXPECT(TRANSFORMER_WEIGHTS, "[299, 36], expected [300, 36]",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 0, &t, &error));
    t.rows = 300, t.dtype = 5;
    EXPECT(TRANSFORMER_WEIGHTS, "type 5",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 0, &t, &error));
    t.dtype = TRANSFORMER_F32, t.data = (char *)flat + 2;
    EXPECT(TRANSFORMER_WEIGHTS, "aligned",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 0, &t, &error));
    EXPECT(TRANSFORMER_WEIGHTS, "embedding, layer 0: not bound",
           transformer_model_ready(m, &error));
    GROUP("bind: role, layer, shape, type, alignment; ready names what is missing");

    CHECK(!transformer_tensor_shape(&c, TRANSFORMER_Q_BIAS, 0, &rows, &cols));
    CHECK(!transformer_tensor_shape(&c, 99, 0, &rows, &cols) &&
          !transformer_tensor_shape(NULL, 0, 0, &rows, &cols));
    CHECK(transformer_tensor_shape(&c, TRANSFORMER_K, 1, &rows, &cols) && rows == 12 && cols == 36);
    CHECK(!transformer_flat_offset(&c, TRANSFORMER_F32, TRANSFORMER_Q, 2, &offset));
    CHECK(!transformer_flat_offset(&c, TRANSFORMER_F32, TRANSFORMER_Q, 0, NULL));
    EXPECT(TRANSFORMER_ARGUMENT, "NULL",
           transformer_bind_flat(m, NULL, flat_size, TRANSFORMER_F32, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "NULL",
           transformer_bind_flat(NULL, flat, flat_size, TRANSFORMER_F32, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "dtype", transformer_bind_flat(m, flat, flat_size, 9, &error));
    EXPECT(TRANSFORMER_WEIGHTS, "size",
           transformer_bind_flat(m, flat, flat_size - 1, TRANSFORMER_F32, &error));
    EXPECT(TRANSFORMER_WEIGHTS, "size",
           transformer_bind_flat(m, flat, flat_size, TRANSFORMER_F16, &error));
    EXPECT(TRANSFORMER_WEIGHTS, "aligned",
           transformer_bind_flat(m, flat + 1, flat_size, TRANSFORMER_F32, &error));
    CHECK(transformer_state_size(m, &o) == 0 && transformer_workspace_size(m, &o) == 0);
    EXPECT(TRANSFORMER_OK, "", transformer_bind_flat(m, flat, flat_size, TRANSFORMER_F32, &error));
    t.data = flat;
    EXPECT(TRANSFORMER_ARGUMENT, "read-only",
           transformer_bind(m, TRANSFORMER_EMBEDDING, 0, &t, &error));
    GROUP("bind_flat; a ready model cannot be changed");
    transformer_free(memory), transformer_free(flat);
}

/* ---- states and workspaces ---- */

static void test_state(void) {
    subject s, other;
    transformer_state *state = NULL, *copy = NULL;
    transformer_workspace *work = NULL;
    CHECK(subject_make(&s, SHAPE_GPT2, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    CHECK(subject_make(&other, SHAPE_GPT2, TRANSFORMER_F32, 2, NULL, 0, TRANSFORMER_F32));
    transformer_options o = s.options;
    size_t size = transformer_state_size(s.model, &o),
           work_size = transformer_workspace_size(s.model, &o);
    unsigned char *memory = (unsigned char *)test_aligned(size + 64),
                  *scratch = (unsigned char *)test_aligned(work_size + 64);
    EXPECT(TRANSFORMER_ARGUMENT, "state",
           transformer_state_init(memory, size, s.model, &o, NULL, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "memory",
           transformer_state_init(NULL, size, s.model, &o, &state, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "model",
           transformer_state_init(memory, size, NULL, &o, &state, &error));
    EXPECT(TRANSFORMER_MEMORY, "smaller",
           transformer_state_init(memory, size - 1, s.model, &o, &state, &error));
    EXPECT(TRANSFORMER_MEMORY, "aligned",
           transformer_state_init(memory + 8, size, s.model, &o, &state, &error));
    o.context = MODEL_CONTEXT + 1;
    EXPECT(TRANSFORMER_ARGUMENT, "learned",
           transformer_state_init(memory, size, s.model, &o, &state, &error));
    o.context = -1;
    EXPECT(TRANSFORMER_ARGUMENT, "context",
           transformer_state_init(memory, size, s.model, &o, &state, &error));
    o = s.options, o.kv_dtype = TRANSFORMER_BF16;
    EXPECT(TRANSFORMER_UNSUPPORTED, "kv_dtype",
           transformer_state_init(memory, size, s.model, &o, &state, &error));
    o = s.options, o.undo = -3;
    EXPECT(TRANSFORMER_ARGUMENT, "undo",
           transformer_state_init(memory, size, s.model, &o, &state, &error));
    o = s.options;
    CHECK(state == NULL);
    EXPECT(TRANSFORMER_OK, "", transformer_state_init(memory, size, s.model, &o, &state, &error));
    CHECK(transformer_state_bytes(state) == size && transformer_state_position(state) == 0);
    CHECK(transformer_state_context(state) == MODEL_CONTEXT);
    CHECK(transformer_state_rewind(state, 1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_rewind(state, -1) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_rewind(NULL, 0) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_bytes(NULL) == 0 && transformer_state_position(NULL) == 0);
    GROUP("state_init, rewind");

    EXPECT(TRANSFORMER_STATE, "another model",
           transformer_state_restore(memory, size, other.model, &copy, &error));
    EXPECT(TRANSFORMER_STATE, "damaged",
           transformer_state_restore(memory, size - 1, s.model, &copy, &error));
    EXPECT(TRANSFORMER_MEMORY, "smaller",
           transformer_state_restore(memory, 8, s.model, &copy, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "memory",
           transformer_state_restore(NULL, size, s.model, &copy, &error));
    for (size_t at = 0; at < sizeof(transformer_state) - sizeof(int32_t); at += 4)
        for (int i = 0; i < 4;
             i++) { /* any other header either is refused or stays within bounds */
            static const uint32_t odd[] = {0, 1, 0x7fffffffu, 0xffffffffu};
            uint32_t kept;
            memcpy(&kept, memory + at, 4);
            if (kept == odd[i]) continue;
            memcpy(memory + at, &odd[i], 4);
            copy = NULL;
            if (transformer_state_restore(memory, size, s.model, &copy, &error) == TRANSFORMER_OK)
                CHECK(copy->position <= copy->context && copy->size <= size &&
                      copy->high <= copy->context);
            else CHECK(copy == NULL && error.status == TRANSFORMER_STATE);
            memcpy(memory + at, &kept, 4);
        }
    EXPECT(TRANSFORMER_OK, "", transformer_state_restore(memory, size, s.model, &copy, &error));
    GROUP("state_restore refuses other models and damaged headers");

    EXPECT(TRANSFORMER_ARGUMENT, "work",
           transformer_workspace_init(scratch, work_size, s.model, &o, NULL, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "memory",
           transformer_workspace_init(NULL, work_size, s.model, &o, &work, &error));
    EXPECT(TRANSFORMER_MEMORY, "smaller",
           transformer_workspace_init(scratch, work_size - 1, s.model, &o, &work, &error));
    EXPECT(TRANSFORMER_MEMORY, "aligned",
           transformer_workspace_init(scratch + 4, work_size, s.model, &o, &work, &error));
    o.batch = -1;
    EXPECT(TRANSFORMER_ARGUMENT, "batch",
           transformer_workspace_init(scratch, work_size, s.model, &o, &work, &error));
    o = s.options, o.n_threads = 2000;
    EXPECT(TRANSFORMER_ARGUMENT, "n_threads",
           transformer_workspace_init(scratch, work_size, s.model, &o, &work, &error));
    o = s.options;
    EXPECT(TRANSFORMER_OK, "",
           transformer_workspace_init(scratch, work_size, s.model, &o, &work, &error));
    GROUP("workspace_init");
    transformer_free(memory), transformer_free(scratch), subject_free(&s), subject_free(&other);
}

/* ---- calls ---- */

static int ignore(void *user, const transformer_view *view) { return (void)user, (void)view, 0; }

/* A refused call leaves every byte of the state as it was. */
static void expect_call(transformer_status status, const char *name, const subject *s,
                        transformer_workspace *work, const transformer_call *call,
                        transformer_state *state, unsigned char *before) {
    size_t size = transformer_state_bytes(state);
    memcpy(before, state, size);
    EXPECT(status, name, transformer_run(s->model, work, call, &error));
    CHECK(memcmp(before, state, size) == 0);
}

static void test_calls(void) {
    subject s, other;
    static float logits[MODEL_MAX_VOCAB], rows[36], want[MODEL_MAX_VOCAB];
    int32_t tokens[4] = {1, 2, 3, 4}, targets[4] = {2, 3, 4, 5};
    CHECK(subject_make(&s, SHAPE_WINDOW, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    CHECK(subject_make(&other, SHAPE_WINDOW, TRANSFORMER_F32, 2, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s), *foreign = subject_state(&other);
    transformer_workspace *work = subject_workspace(&s, 32, 1, NULL, NULL);
    transformer_workspace *foreign_work = subject_workspace(&other, 32, 1, NULL, NULL);
    unsigned char *before = (unsigned char *)test_aligned(transformer_state_bytes(state));
    CHECK(transformer_forward(s.model, work, state, tokens, 4, want) == TRANSFORMER_OK);
    CHECK(transformer_state_rewind(state, 0) == TRANSFORMER_OK);
    transformer_sequence q = {0}, pair[2];
    transformer_call good = {0}, call;
    transformer_tap tap = {0};
    q.state = state, q.n = 4, q.tokens = tokens, q.logits = logits;
    good.sequences = &q, good.n_sequences = 1;
#define REFUSED(status, name) expect_call(status, name, &s, work, &call, state, before)
    call = good, call.sequences = NULL, REFUSED(TRANSFORMER_ARGUMENT, "sequences");
    call = good, call.n_sequences = 0, REFUSED(TRANSFORMER_ARGUMENT, "sequences");
    call = good, call.n_layers = -1, REFUSED(TRANSFORMER_ARGUMENT, "n_layers");
    EXPECT(TRANSFORMER_ARGUMENT, "sequences", transformer_run(s.model, work, NULL, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "model", transformer_run(NULL, work, &good, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "workspace", transformer_run(s.model, NULL, &good, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "another model",
           transformer_run(s.model, foreign_work, &good, &error));
    call = good;
    transformer_sequence kept = q;
#define BAD_SEQUENCE(status, name, assignment) q = kept, assignment, REFUSED(status, name)
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "sequence 0: state is NULL", q.state = NULL);
    BAD_SEQUENCE(TRANSFORMER_STATE, "another model", q.state = foreign);
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "n is 0", q.n = 0);
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "tokens or embeddings", q.tokens = NULL);
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "tokens or embeddings", q.embeddings = rows);
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "logits_rows", q.logits_rows = 2);
    BAD_SEQUENCE(TRANSFORMER_ARGUMENT, "targets", q.targets = targets);
    BAD_SEQUENCE(TRANSFORMER_FULL, "context", q.n = MODEL_CONTEXT + 1);
    q = kept, tokens[2] = 300, REFUSED(TRANSFORMER_ARGUMENT, "token 2 is 300");
    tokens[2] = -1, REFUSED(TRANSFORMER_ARGUMENT, "token 2 is -1"), tokens[2] = 3;
    q.targets = targets, q.logprobs = logits, targets[1] = -2,
    REFUSED(TRANSFORMER_ARGUMENT, "target 1 is -2");
    q = kept, call.tap = &tap, REFUSED(TRANSFORMER_ARGUMENT, "tap.function");
    tap.function = ignore, tap.sites = 1u << TRANSFORMER_SITE_SCORES;
    REFUSED(TRANSFORMER_ARGUMENT, "tap.scratch");
    call = good, pair[0] = pair[1] = q, call.sequences = pair, call.n_sequences = 2;
    REFUSED(TRANSFORMER_ARGUMENT, "share a state");
    EXPECT(TRANSFORMER_ARGUMENT, "paused", transformer_resume(s.model, work, 1, &error));
    CHECK(transformer_forward(s.model, work, state, tokens, 4, logits) == TRANSFORMER_OK);
    CHECK(memcmp(logits, want, 300 * sizeof(float)) == 0);
    GROUP("run: every wrong argument is named, the state keeps its bytes and its bits");

    static int32_t many[MODEL_CONTEXT];
    static float scratch[2 * 6 * MODEL_CONTEXT];
    model_tokens(many, MODEL_CONTEXT, 300, 5);
    tap.scratch = scratch, tap.scratch_size = sizeof scratch, tap.sites = 1;
    q = kept, q.tokens = many, q.n = MODEL_UNDO + 1, call = good, call.tap = &tap;
    REFUSED(TRANSFORMER_ARGUMENT, "undo");
    call.tap = NULL, call.n_layers = 1, REFUSED(TRANSFORMER_ARGUMENT, "one pass");
    q.n = 4, call.n_layers = 1;
    EXPECT(TRANSFORMER_PAUSED, "layer 1", transformer_run(s.model, work, &call, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "n_layers", transformer_resume(s.model, work, -1, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "paused", transformer_resume(other.model, work, 0, &error));
    EXPECT(TRANSFORMER_OK, "", transformer_resume(s.model, work, 0, &error));
    EXPECT(TRANSFORMER_ARGUMENT, "paused", transformer_resume(s.model, work, 0, &error));
    CHECK(transformer_state_position(state) == 8);
    while (transformer_state_position(state) < MODEL_CONTEXT)
        CHECK(transformer_forward(s.model, work, state, many, 4, NULL) == TRANSFORMER_OK);
    CHECK(transformer_forward(s.model, work, state, many, 1, NULL) == TRANSFORMER_FULL);
    CHECK(transformer_state_rewind(state, MODEL_CONTEXT - MODEL_UNDO - 1) ==
          TRANSFORMER_UNSUPPORTED);
    CHECK(transformer_state_position(state) == MODEL_CONTEXT);
    CHECK(transformer_state_rewind(state, MODEL_CONTEXT - MODEL_UNDO) == TRANSFORMER_OK);
    GROUP("calls with taps and pauses, a full context, rewinding further than a window keeps");
    transformer_free(before), transformer_free(work), transformer_free(foreign_work);
    transformer_free(state), transformer_free(foreign), subject_free(&s), subject_free(&other);
}

/* ---- names, malloc ---- */

static void test_names(void) {
    for (int i = -1; i <= TRANSFORMER_N_ROLES; i++)
        CHECK(transformer_role_name(i)[0] && transformer_status_text(i)[0] &&
              transformer_site_name(i)[0]);
    CHECK(strcmp(transformer_status_text(TRANSFORMER_FULL), "full") == 0);
    CHECK(strcmp(transformer_role_name(TRANSFORMER_HEAD_BIAS), "head_bias") == 0);
    CHECK(strcmp(transformer_role_name(TRANSFORMER_MLP_DOWN), "mlp_down") == 0);
    CHECK(strcmp(transformer_site_name(TRANSFORMER_SITE_LOGITS), "logits") == 0);
    CHECK(transformer_version() == TRANSFORMER_VERSION);
    CHECK(strcmp(transformer_isa(NULL), "none") == 0 && transformer_model_config(NULL) == NULL);
    CHECK(transformer_dtype_size(TRANSFORMER_F32) == 4 &&
          transformer_dtype_size(TRANSFORMER_BF16) == 2);
    CHECK(transformer_dtype_size(5) == 0);
    transformer_config_defaults(NULL);
    GROUP("names and version");
}

static void test_allocation(void) {
    transformer_config c;
    transformer_options o = {0};
    subject s;
    shape_llama(&c);
    CHECK(test_blocks == 0);
    test_malloc_budget = 0;
    CHECK(transformer_model_new(&c, &o, &error) == NULL && error.status == TRANSFORMER_MEMORY);
    test_malloc_budget = -1, o.isa = "none such";
    CHECK(transformer_model_new(&c, &o, &error) == NULL && error.status == TRANSFORMER_UNSUPPORTED);
    CHECK(test_blocks == 0);
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    int blocks = test_blocks;
    test_malloc_budget = 0;
    CHECK(transformer_state_new(s.model, &s.options, &error) == NULL &&
          error.status == TRANSFORMER_MEMORY);
    CHECK(transformer_workspace_new(s.model, &s.options, &error) == NULL &&
          error.status == TRANSFORMER_MEMORY);
    test_malloc_budget = -1, o = s.options, o.context = -7;
    CHECK(transformer_state_new(s.model, &o, &error) == NULL && strstr(error.text, "context"));
    o = s.options, o.batch = -7;
    CHECK(transformer_workspace_new(s.model, &o, &error) == NULL && strstr(error.text, "batch"));
    CHECK(test_blocks == blocks);
    subject_free(&s), transformer_free(NULL);
    CHECK(test_blocks == 0);
    GROUP("malloc that fails: MEMORY, and nothing is left behind");
}

int main(void) {
    test_config();
    test_model();
    test_state();
    test_calls();
    test_names();
    test_allocation();
    CHECK(test_blocks == 0);
    return test_finish();
}
