/* States, taps, pauses and what comes out besides logits: saved, forked, restored and rewound states go on bit for
 * bit; taps see and change what they say; pauses and several threads change nothing; nothing is read or written
 * beyond its array. */
#define _DEFAULT_SOURCE
#include <stdint.h>
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "models.h"
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#define TEST_POSIX 1
#else
#define TEST_POSIX 0
#endif

enum { N = 90, VOCAB = MODEL_MAX_VOCAB };
static int32_t tokens[MODEL_CONTEXT];
static float want[MODEL_CONTEXT * 300], have[MODEL_CONTEXT * 300];
static float scratch[2 * 8 * MODEL_CONTEXT];

/* n tokens from `from` on, all their logits to out + from * vocab_size, `chunk` at a time. */
static transformer_status feed(const subject *s, transformer_workspace *work,
                               transformer_state *state, int from, int n, int chunk,
                               const transformer_tap *tap, float *out) {
    int vocab = s->config.vocab_size;
    for (int at = from; at < from + n; at += chunk) {
        transformer_sequence q = {0};
        transformer_call call = {0};
        q.state = state, q.tokens = tokens + at,
        q.n = from + n - at < chunk ? from + n - at : chunk;
        q.logits = out + (size_t)at * (size_t)vocab, q.logits_rows = TRANSFORMER_LOGITS_ALL;
        call.sequences = &q, call.n_sequences = 1, call.tap = tap;
        transformer_status status = transformer_run(s->model, work, &call, NULL);
        if (status) return status;
    }
    return TRANSFORMER_OK;
}

static int same(const subject *s, int from, int n) {
    size_t vocab = (size_t)s->config.vocab_size;
    return memcmp(want + (size_t)from * vocab, have + (size_t)from * vocab,
                  (size_t)n * vocab * sizeof(float)) == 0;
}

/* ---- save, fork, restore, rewind ---- */

/* Overwrites with NaN what the state holds of positions from `position` on. */
static void poison(const subject *s, transformer_state *state, int position) {
    const transformer_config *c = transformer_model_config(s->model);
    for (int l = 0; l < c->n_layers; l++)
        for (int which = 0; which < 2 && !c->layers[l].no_attention; which++) {
            int capacity = tfi_capacity(c, l, state->context, state->undo);
            int ring = capacity < state->context, end = ring ? position + state->undo : capacity;
            for (int h = 0; h < c->layers[l].n_kv_heads; h++)
                for (int p = position; p < end; p++)
                    model_poison_slot(state, c, l, which, h, p % capacity);
        }
}

static void test_timelines(int shape, int kv_dtype) {
    subject s;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, kv_dtype));
    transformer_state *state = subject_state(&s), *fork = NULL;
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    size_t size = transformer_state_bytes(state);
    void *copy = test_poisoned(size);
    CHECK(feed(&s, work, state, 0, N, N, NULL, want) == TRANSFORMER_OK);
    /* the same, with a copy taken on the way, to memory elsewhere */
    CHECK(transformer_state_rewind(state, 0) == TRANSFORMER_OK);
    poison(&s, state, 0);
    CHECK(feed(&s, work, state, 0, 70, 13, NULL, have) == TRANSFORMER_OK && same(&s, 0, 70));
    memcpy(copy, state, size);
    CHECK(transformer_state_restore(copy, size, s.model, &fork, NULL) == TRANSFORMER_OK);
    CHECK(fork != state && transformer_state_position(fork) == 70);
    poison(&s, fork, 70);
    /* the two timelines go on, one with another token */
    int32_t kept = tokens[70];
    tokens[70] = (kept + 1) % s.config.vocab_size;
    CHECK(feed(&s, work, state, 70, N - 70, 4, NULL, have) == TRANSFORMER_OK);
    CHECK(!same(&s, 70, N - 70) || s.config.n_layers == 0);
    tokens[70] = kept;
    CHECK(feed(&s, work, fork, 70, N - 70, 4, NULL, have) == TRANSFORMER_OK &&
          same(&s, 70, N - 70));
    /* back to where the wrong token was, as far as a window's memory goes */
    CHECK(transformer_state_rewind(state, N - MODEL_UNDO) == TRANSFORMER_OK || N - MODEL_UNDO > 70);
    CHECK(transformer_state_rewind(fork, N - MODEL_UNDO) == TRANSFORMER_OK);
    poison(&s, fork, N - MODEL_UNDO);
    CHECK(feed(&s, work, fork, N - MODEL_UNDO, MODEL_UNDO, 5, NULL, have) == TRANSFORMER_OK);
    CHECK(same(&s, N - MODEL_UNDO, MODEL_UNDO));
    transformer_free(copy), transformer_free(work), transformer_free(state), subject_free(&s);
}

static void test_other_models(void) {
    subject a, b;
    transformer_state *restored = NULL;
    CHECK(subject_make(&a, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&a);
    size_t size = transformer_state_bytes(state);
    for (int i = 0; i < 4;
         i++) { /* other weights, other shape, other type of weights, other RoPE */
        CHECK(subject_make(&b, i == 1 ? SHAPE_SOFTCAP : SHAPE_LLAMA,
                           i == 2 ? TRANSFORMER_F16 : TRANSFORMER_F32, i == 0 ? 2 : 1, NULL, 0,
                           TRANSFORMER_F32));
        if (i == 3) {
            transformer_free(b.model);
            b.config.rope[0].theta = 5000;
            b.model = transformer_model_new(&b.config, &b.options, NULL);
            CHECK(!transformer_bind_flat(b.model, b.flat, b.flat_size, b.dtype, NULL));
        }
        CHECK(transformer_state_restore(state, size, b.model, &restored, NULL) ==
              TRANSFORMER_STATE);
        CHECK(restored == NULL);
        subject_free(&b);
    }
    CHECK(transformer_state_restore(state, size, a.model, &restored, NULL) == TRANSFORMER_OK);
    GROUP("restore refuses other weights, shapes, types, frequencies");
    transformer_free(state), subject_free(&a);
}

/* ---- taps ---- */

typedef struct meddler {
    int site, layer, stop, views, wrong;
    float factor;
    double sum_off;
    float embedding[MODEL_CONTEXT * 64], after[MODEL_CONTEXT * 64];
} meddler;

static int meddle(void *user, const transformer_view *v) {
    meddler *m = (meddler *)user;
    int own = v->site == m->site && (m->layer < 0 || v->layer == m->layer);
    m->wrong += v->n < 1 || v->position < 0 || v->sequence != 0 || !v->data ||
                (v->n > 1 && v->stride < (size_t)v->width);
    if (v->site == TRANSFORMER_SITE_WEIGHTS)
        for (int h = 0; h < v->width / v->n_keys; h++) {
            double sum = 0;
            for (int j = 0; j < v->n_keys; j++) sum += (double)v->data[h * v->n_keys + j];
            m->sum_off = fmax(m->sum_off, fabs(sum - 1));
            m->wrong += v->first_key + v->n_keys != v->position + 1 || v->n != 1;
        }
    if (!own) return 0;
    m->views++;
    for (int t = 0; t < v->n; t++)
        for (int i = 0; i < v->width; i++) v->data[(size_t)t * v->stride + (size_t)i] *= m->factor;
    return m->stop;
}

static void test_site(const subject *s, transformer_workspace *work, transformer_state *state,
                      int site, meddler *m, int *seen) {
    transformer_tap tap = {0};
    tap.sites = 1u << site, tap.function = meddle, tap.user = m;
    tap.scratch = scratch, tap.scratch_size = sizeof scratch;
    m->site = site, m->layer = -1;
    /* seen, not changed */
    transformer_state_rewind(state, 0), m->factor = 1, m->stop = 0, m->views = 0;
    CHECK(feed(s, work, state, 0, 10, 10, &tap, have) == TRANSFORMER_OK && same(s, 0, 10));
    *seen += m->views > 0;
    if (!m->views) return;
    /* changed: the logits differ, and not with how the tokens were fed */
    transformer_state_rewind(state, 0), m->factor = 1.5f;
    CHECK(feed(s, work, state, 0, 10, 10, &tap, have) == TRANSFORMER_OK);
    int no_effect = site == TRANSFORMER_SITE_K && s->config.qk_norm; /* a norm undoes a factor */
    no_effect |= site == TRANSFORMER_SITE_Q && s->config.qk_norm;
    CHECK(!same(s, 0, 10) || no_effect || s->config.n_layers == 0);
    static float changed[10 * 300];
    memcpy(changed, have, 10 * (size_t)s->config.vocab_size * sizeof(float));
    transformer_state_rewind(state, 0);
    CHECK(feed(s, work, state, 0, 10, 3, &tap, have) == TRANSFORMER_OK);
    CHECK(memcmp(changed, have, 10 * (size_t)s->config.vocab_size * sizeof(float)) == 0);
    /* stopped: nothing advanced, the next call is right */
    transformer_state_rewind(state, 0), m->factor = 1;
    CHECK(feed(s, work, state, 0, 4, 4, NULL, have) == TRANSFORMER_OK);
    m->stop = 1;
    CHECK(feed(s, work, state, 4, 6, 6, &tap, have) == TRANSFORMER_STOPPED);
    CHECK(transformer_state_position(state) == 4);
    m->stop = 0;
    CHECK(feed(s, work, state, 4, 6, 6, NULL, have) == TRANSFORMER_OK && same(s, 0, 10));
}

static void test_taps(int shape, int *seen) {
    static meddler m;
    subject s;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    memset(&m, 0, sizeof m);
    CHECK(feed(&s, work, state, 0, 10, 10, NULL, want) == TRANSFORMER_OK);
    for (int site = 0; site < TRANSFORMER_N_SITES; site++)
        test_site(&s, work, state, site, &m, &seen[site]);
    CHECK(m.wrong == 0 && m.sum_off < 1e-5);
    transformer_free(work), transformer_free(state), subject_free(&s);
}

static int silence(void *user, const transformer_view *v) {
    meddler *m = (meddler *)user;
    for (int t = 0; t < v->n; t++) {
        float *row = v->data + (size_t)t * v->stride;
        size_t bytes = (size_t)v->width * sizeof(float);
        if (v->site == TRANSFORMER_SITE_EMBEDDING)
            memcpy(m->embedding + (v->position + t) * v->width, row, bytes);
        else if (v->site == TRANSFORMER_SITE_RESIDUAL_POST)
            memcpy(m->after + (v->position + t) * v->width, row, bytes);
        else memset(row, 0, bytes);
    }
    return 0;
}

static void test_silenced_blocks(void) {
    static meddler m;
    subject s;
    transformer_tap tap = {0};
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    tap.sites = 1u << TRANSFORMER_SITE_EMBEDDING | 1u << TRANSFORMER_SITE_ATTN_OUT |
                1u << TRANSFORMER_SITE_MLP_OUT | 1u << TRANSFORMER_SITE_RESIDUAL_POST;
    tap.function = silence, tap.user = &m;
    CHECK(feed(&s, work, state, 0, 20, 20, &tap, have) == TRANSFORMER_OK);
    CHECK(memcmp(m.embedding, m.after, 20 * (size_t)s.config.dim * sizeof(float)) == 0);
    GROUP("with all blocks silenced the residual stream is the embedding");
    transformer_free(work), transformer_free(state), subject_free(&s);
}

/* ---- pauses, log-probabilities, embeddings ---- */

static void test_pauses(int shape) {
    subject s;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    transformer_sequence q = {0};
    transformer_call call = {0};
    CHECK(feed(&s, work, state, 0, 10, 10, NULL, want) == TRANSFORMER_OK);
    q.state = state, q.tokens = tokens, q.n = 10, q.logits = have,
    q.logits_rows = TRANSFORMER_LOGITS_ALL;
    call.sequences = &q, call.n_sequences = 1;
    for (call.n_layers = 1; call.n_layers <= s.config.n_layers + 1; call.n_layers++) {
        int pauses = 0;
        transformer_state_rewind(state, 0);
        memset(have, 0, sizeof have);
        transformer_status status = transformer_run(s.model, work, &call, NULL);
        for (; status == TRANSFORMER_PAUSED; pauses++) {
            CHECK(transformer_state_position(state) == 0);
            status = transformer_resume(s.model, work, call.n_layers, NULL);
        }
        CHECK(status == TRANSFORMER_OK && same(&s, 0, 10));
        CHECK(s.config.n_layers < 2 || (pauses > 0) == (call.n_layers < s.config.n_layers));
    }
    if (s.config.n_layers > 1) { /* a paused call that is dropped */
        transformer_state_rewind(state, 0), call.n_layers = 1;
        CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_PAUSED);
        CHECK(feed(&s, work, state, 0, 10, 10, NULL, have) == TRANSFORMER_OK && same(&s, 0, 10));
    }
    transformer_free(work), transformer_free(state), subject_free(&s);
}

static double exact_logprob(const float *logits, int n, int target) {
    double max = (double)logits[0], sum = 0;
    for (int i = 1; i < n; i++) max = fmax(max, (double)logits[i]);
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return (double)logits[target] - max - log(sum);
}

static void test_logprobs(int shape) {
    static float logprobs[N], again[N];
    static int32_t targets[N];
    subject s;
    double worst = 0;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    int vocab = s.config.vocab_size, n = MODEL_UNDO;
    model_tokens(targets, N, vocab, 9);
    targets[3] = -1, logprobs[3] = again[3] = 77;
    CHECK(feed(&s, work, state, 0, n, n, NULL, want) == TRANSFORMER_OK);
    for (int chunk = 1; chunk <= n; chunk += n - 1) {
        float *out = chunk == 1 ? again : logprobs;
        transformer_state_rewind(state, 0);
        for (int at = 0; at < n; at += chunk) {
            transformer_sequence q = {0};
            transformer_call call = {0};
            q.state = state, q.tokens = tokens + at, q.n = chunk, q.targets = targets + at,
            q.logprobs = out + at;
            call.sequences = &q, call.n_sequences = 1;
            CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_OK);
        }
    }
    for (int i = 0; i < n; i++)
        if (targets[i] >= 0)
            worst = fmax(worst, fabs(exact_logprob(want + i * vocab, vocab, targets[i]) -
                                     (double)logprobs[i]));
    CHECK(worst <= 1e-5 && logprobs[3] == 77);
    CHECK(memcmp(logprobs, again, (size_t)n * sizeof(float)) == 0);
    transformer_free(work), transformer_free(state), subject_free(&s);
}

static void test_embeddings(int shape) {
    static float rows[N * 64];
    subject s;
    transformer_sequence q = {0};
    transformer_call call = {0};
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
    int width = transformer_model_config(s.model)->embedding_dim;
    CHECK(feed(&s, work, state, 0, 16, 16, NULL, want) == TRANSFORMER_OK);
    for (int t = 0; t < 16; t++)
        for (int i = 0; i < width; i++) /* the embedding matrix lies first in the flat buffer */
            rows[t * width + i] =
                ((float *)s.flat)[tokens[t] * width + i] * s.config.embedding_scale;
    transformer_state_rewind(state, 0);
    q.state = state, q.n = 16, q.embeddings = rows, q.logits = have,
    q.logits_rows = TRANSFORMER_LOGITS_ALL;
    call.sequences = &q, call.n_sequences = 1;
    CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_OK && same(&s, 0, 16));
    /* what comes later is not seen, not even times 0: numbers that are none stay with their token */
    for (int t = 15; t >= 0; t--) {
        for (int i = 0; i < width; i++) rows[t * width + i] = i % 2 ? INFINITY : NAN;
        transformer_state_rewind(state, 0);
        CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_OK);
        CHECK(!s.config.causal || same(&s, 0, t));
        CHECK(!same(&s, t, 1));
    }
    transformer_free(work), transformer_free(state), subject_free(&s);
}

#if TEST_POSIX
/* ---- four states at once ---- */

enum { TEAM = 4, STEPS = 40 };
typedef struct runner {
    const subject *s;
    int index;
    float *out; /* [STEPS, vocab_size] */
} runner;

static void *run_alone(void *arg) {
    runner *r = (runner *)arg;
    transformer_state *state = subject_state(r->s);
    transformer_workspace *work = subject_workspace(r->s, 8, 1, NULL, NULL);
    for (int i = 0; i < STEPS; i++) {
        int32_t token = tokens[(i * 7 + r->index * 13) % N];
        transformer_forward(r->s->model, work, state, &token, 1,
                            r->out + i * r->s->config.vocab_size);
    }
    transformer_free(work), transformer_free(state);
    return NULL;
}

static void test_concurrent(void) {
    subject s;
    runner alone[TEAM], together[TEAM];
    pthread_t thread[TEAM];
    CHECK(subject_make(&s, SHAPE_WINDOW, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    size_t size = (size_t)STEPS * (size_t)s.config.vocab_size * sizeof(float);
    for (int i = 0; i < TEAM; i++) {
        alone[i].s = together[i].s = &s, alone[i].index = together[i].index = i;
        alone[i].out = (float *)test_aligned(size), together[i].out = (float *)test_aligned(size);
        run_alone(&alone[i]);
    }
    for (int i = 0; i < TEAM; i++)
        CHECK(pthread_create(&thread[i], NULL, run_alone, &together[i]) == 0);
    for (int i = 0; i < TEAM; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < TEAM; i++) {
        CHECK(memcmp(alone[i].out, together[i].out, size) == 0);
        transformer_free(alone[i].out), transformer_free(together[i].out);
    }
    GROUP("%d states on as many threads equal the same ones in turn", TEAM);
    subject_free(&s);
}

/* ---- every array ends where memory ends ---- */

/* size bytes, rounded up to a multiple of unit, that end at a page that cannot be touched. */
static void *guarded(size_t size, size_t unit) {
    size_t page = 65536, rounded = (size + unit - 1) / unit * unit,
           whole = (rounded + page - 1) / page * page;
    char *base =
        (char *)mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (base == (char *)MAP_FAILED || mprotect(base + whole, page, PROT_NONE)) return NULL;
    return base + whole - rounded;
}

static void test_guarded(int shape, int dtype, const char *isa) {
    subject s;
    CHECK(subject_make(&s, shape, dtype, 1, isa, 0, TRANSFORMER_F32));
    transformer_model *m = NULL;
    transformer_state *state = NULL;
    transformer_workspace *work = NULL;
    transformer_options o = s.options;
    o.batch = 11;
    size_t size = transformer_model_size(&s.config);
    CHECK(!transformer_model_init(guarded(size, 64), size, &s.config, &o, &m, NULL));
    for (int l = 0; l < (s.config.n_layers ? s.config.n_layers : 1); l++)
        for (int role = 0; role < TRANSFORMER_N_ROLES;
             role++) { /* each tensor at a boundary of its own */
            transformer_tensor t;
            size_t offset;
            if (!transformer_tensor_shape(&s.config, role, l, &t.rows, &t.cols)) continue;
            transformer_flat_offset(&s.config, dtype, role, l, &offset);
            t.dtype = tfi_roles[role].kind == TFI_MATRIX ? dtype : TRANSFORMER_F32;
            size_t element = transformer_dtype_size(t.dtype),
                   bytes = (size_t)t.rows * (size_t)t.cols * element;
            void *data = guarded(bytes, element);
            memcpy(data, (char *)s.flat + offset, bytes);
            t.data = data;
            CHECK(!transformer_bind(m, role, l, &t, NULL));
        }
    CHECK(!transformer_model_ready(m, NULL));
    size = transformer_state_size(m, &o);
    CHECK(!transformer_state_init(guarded(size, 64), size, m, &o, &state, NULL));
    size = transformer_workspace_size(m, &o);
    CHECK(!transformer_workspace_init(guarded(size, 64), size, m, &o, &work, NULL));
    int32_t *ids = (int32_t *)guarded(sizeof(int32_t) * 70, sizeof(int32_t));
    float *logits = (float *)guarded((size_t)s.config.vocab_size * sizeof(float), sizeof(float));
    memcpy(ids, tokens, sizeof(int32_t) * 70);
    transformer_state *plain = subject_state(&s);
    transformer_workspace *roomy = subject_workspace(&s, 70, 1, NULL, NULL);
    CHECK(transformer_forward(m, work, state, ids, 70, logits) == TRANSFORMER_OK);
    CHECK(transformer_forward(s.model, roomy, plain, tokens, 70, have) == TRANSFORMER_OK);
    CHECK(memcmp(logits, have, (size_t)s.config.vocab_size * sizeof(float)) == 0);
    transformer_free(plain), transformer_free(roomy), subject_free(&s);
}
#endif

int main(void) {
    const char *isas[8];
    int n_isas = model_isas(isas, 8), seen[TRANSFORMER_N_SITES] = {0}, all = 1;
    model_tokens(tokens, MODEL_CONTEXT, 300, 3);
    for (int shape = 0; shape < SHAPE_WIDE; shape++)
        for (int f16 = 0; f16 < 2; f16++)
            test_timelines(shape, f16 ? TRANSFORMER_F16 : TRANSFORMER_F32);
    GROUP("saved, forked, restored and rewound states go on bit for bit; what they do not use may "
          "be NaN");
    test_other_models();
    for (int shape = 0; shape < SHAPE_WIDE; shape++) test_taps(shape, seen);
    for (int site = 0; site < TRANSFORMER_N_SITES; site++) all &= seen[site] > 0;
    CHECK(all);
    GROUP("taps: reading changes nothing, writing takes effect alike in one call and in pieces, "
          "stopping undoes");
    test_silenced_blocks();
    for (int shape = 0; shape < SHAPE_WIDE; shape++) test_pauses(shape);
    GROUP("pauses after any number of layers, and calls dropped while paused");
    for (int shape = 0; shape < SHAPE_WIDE; shape++) test_logprobs(shape);
    GROUP("log-probabilities, without logits, however fed");
    for (int shape = 0; shape < SHAPE_WIDE; shape++) test_embeddings(shape);
    GROUP("embeddings in place of tokens");
#if TEST_POSIX
    test_concurrent();
    for (int i = 0; i < n_isas; i++)
        for (int shape = 0; shape < SHAPE_WIDE; shape++) {
            test_guarded(shape, TRANSFORMER_F32, isas[i]);
            test_guarded(shape, (shape + i) % 2 ? TRANSFORMER_F16 : TRANSFORMER_BF16, isas[i]);
        }
    GROUP("nothing beyond the end of any tensor, state, workspace, token or logit is touched");
#else
    (void)n_isas;
    SKIP("threads and guard pages: no POSIX here");
#endif
    return test_finish();
}
