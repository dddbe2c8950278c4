/* The promises of >>contract, each by a test that fails if it is broken; bits are compared with
 * memcmp.  Models are random and small (models.h), of every kind; every row of kernels that this
 * machine can run is tried. */
#define _DEFAULT_SOURCE 1
#include <stdint.h>
#include <stdlib.h>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#define TEST_POSIX 1
#else
#define TEST_POSIX 0
#endif

/* Every allocation that the header can ask for by name is counted, so that forward() can be seen to
 * make none. */
static int allocations;
#if defined(__GNUC__)
#define ALLOCATED() (void)__atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED) /* by any thread */
#else
#define ALLOCATED() (void)allocations++
#endif
static void *counted_malloc(size_t n) { return ALLOCATED(), malloc(n); }
#define malloc counted_malloc
#define calloc(n, size) counted_malloc((n) * (size))
#define realloc(p, n) (ALLOCATED(), (realloc)(p, n))
#if defined(_OPENMP) && defined(__GNUC__) && TEST_POSIX
#include <omp.h>
#include <sched.h>
static int processors = 1024; /* teams of any size, whatever the machine */
#define omp_get_num_procs() processors
/* Threads that wait for each other in a call give their processors away, which is counted. */
static int yields;
#define TFI_YIELD() (void)(__atomic_fetch_add(&yields, 1, __ATOMIC_RELAXED), sched_yield())
#endif
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#undef malloc
#undef calloc
#undef realloc
#include "models.h"

#ifndef TEST_TOKENS /* at least 70: beyond a block of keys */
#define TEST_TOKENS 150
#endif
enum { N = TEST_TOKENS, MAX_ISAS = 8, ALL_SITES = (1 << TRANSFORMER_N_SITES) - 1 };
static const char *isas[MAX_ISAS];
static int n_isas;
static float expected[(size_t)N * MODEL_MAX_VOCAB], logits[(size_t)N * MODEL_MAX_VOCAB];
static int32_t prompt[N];
static float tap_scratch[2 * 8 * MODEL_CONTEXT];

/* ---- other people's job systems ---- */

static int reverse_calls;
/* Serial, last task first. */
static void run_reversed(void *user, transformer_task *task, void *arg, int n) {
    if (user) ++*(int *)user;
    for (int i = n - 1; i >= 0; i--) task(arg, i);
}

#if TEST_POSIX
/* Three threads that wait for work, and the caller; whoever is free takes the next index. */
typedef struct thread_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pthread_t threads[3];
    transformer_task *task;
    void *arg;
    int next, n, left, quit, calls, elsewhere; /* elsewhere: tasks not run by the caller */
} thread_pool;
static thread_pool pool;

/* Runs tasks until there are none; called and left with the lock held. */
static void pool_work(thread_pool *p, int worker) {
    while (p->next < p->n) {
        int index = p->next++;
        transformer_task *task = p->task;
        void *arg = p->arg;
        p->elsewhere += worker;
        pthread_mutex_unlock(&p->lock);
        task(arg, index);
        pthread_mutex_lock(&p->lock);
        if (--p->left == 0) pthread_cond_signal(&p->done);
    }
}
static void *pool_thread(void *arg) {
    thread_pool *p = (thread_pool *)arg;
    pthread_mutex_lock(&p->lock);
    while (!p->quit) {
        if (p->next < p->n) pool_work(p, 1);
        else pthread_cond_wait(&p->wake, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}
static void run_pooled(void *user, transformer_task *task, void *arg, int n) {
    thread_pool *p = (thread_pool *)user;
    pthread_mutex_lock(&p->lock);
    p->task = task, p->arg = arg, p->next = 0, p->n = p->left = n, p->calls++;
    pthread_cond_broadcast(&p->wake);
    pool_work(p, 0);
    while (p->left) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
static void pool_start(thread_pool *p) {
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL), pthread_cond_init(&p->done, NULL);
    for (int i = 0; i < 3; i++) pthread_create(&p->threads[i], NULL, pool_thread, p);
}
static void pool_stop(thread_pool *p) {
    pthread_mutex_lock(&p->lock);
    p->quit = 1;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < 3; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->wake), pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
}
#endif

/* ---- one prompt, in many ways ---- */

enum { HOOK_NONE, HOOK_REVERSED, HOOK_POOLED };

typedef struct way {
    int chunk;     /* tokens per call; 0 = all */
    int n_threads; /* 1 = serial */
    int hook;      /* who runs the threads: OpenMP (or nobody), or one of ours */
    int taps;      /* 1 = every site is shown to a tap */
    int company;   /* 1 = two other sequences in each call */
    int reused;    /* 1 = the state has held other tokens before */
    int batch;     /* of the workspace; 0 = the default */
    int layers;    /* pause after so many layers, resume, ... */
} way;

static int peek(void *user, const transformer_view *view) {
    double sum = 0;
    for (int i = 0; i < view->n; i++)
        for (int j = 0; j < view->width; j++)
            sum += (double)view->data[(size_t)i * view->stride + (size_t)j];
    *(double *)user += sum;
    return 0;
}

/* The same, and is it the thread of the call that looks? */
typedef struct witness {
    double sum;
    int elsewhere; /* views shown by another thread, but for scores and weights */
#if TEST_POSIX
    pthread_t caller;
#endif
} witness;

static int peek_and_witness(void *user, const transformer_view *view) {
    witness *seen = (witness *)user;
#if TEST_POSIX
    if (view->site != TRANSFORMER_SITE_SCORES && view->site != TRANSFORMER_SITE_WEIGHTS)
        seen->elsewhere += !pthread_equal(pthread_self(), seen->caller);
#endif
    return peek(&seen->sum, view);
}

static transformer_workspace *way_workspace(const subject *s, const way *w) {
#if TEST_POSIX
    if (w->hook == HOOK_POOLED)
        return subject_workspace(s, w->batch, w->n_threads, run_pooled, &pool);
#endif
    if (w->hook != HOOK_NONE)
        return subject_workspace(s, w->batch, w->n_threads, run_reversed, &reverse_calls);
    return subject_workspace(s, w->batch, w->n_threads, NULL, NULL);
}

static int has_window(const subject *s) {
    for (int l = 0; l < s->config.n_layers; l++)
        if (s->config.layers[l].window) return 1;
    return 0;
}

/* Runs a call with all its pauses.  Returns its status, and counts the pauses. */
static transformer_status run_call(const subject *s, transformer_workspace *work,
                                   const transformer_call *call, int *pauses) {
    transformer_status status = transformer_run(s->model, work, call, NULL);
    while (status == TRANSFORMER_PAUSED) {
        if (pauses) ++*pauses;
        status = transformer_resume(s->model, work, call->n_layers, NULL);
    }
    return status;
}

/* A call of our n tokens; with company, between two other sequences that are somewhere else. */
static transformer_status run_chunk(const subject *s, const way *w, transformer_workspace *work,
                                    transformer_state *state, transformer_state *const *others,
                                    const int32_t *tokens, int n, float *out,
                                    const transformer_tap *tap) {
    static const int lengths[2] = {2, 5};
    transformer_sequence sequences[3], *own = sequences;
    transformer_call call;
    memset(sequences, 0, sizeof sequences), memset(&call, 0, sizeof call);
    if (w->company) {
        own = &sequences[1];
        for (int i = 0; i < 2; i++) {
            transformer_sequence *q = &sequences[2 * i];
            if (transformer_state_position(others[i]) + 5 > MODEL_CONTEXT)
                transformer_state_rewind(others[i], 0);
            q->state = others[i], q->n = lengths[i], q->tokens = prompt + 11 * i;
        }
    }
    own->state = state, own->n = n, own->tokens = tokens, own->logits = out;
    own->logits_rows = TRANSFORMER_LOGITS_ALL;
    call.sequences = sequences, call.n_sequences = w->company ? 3 : 1, call.tap = tap;
    call.n_layers = w->layers;
    return run_call(s, work, &call, NULL);
}

/* Logits of all n prompt tokens, computed that way; 1 if every call succeeded. */
static int run_way(const subject *s, const way *w, int n, float *out) {
    static const int32_t before[5] = {3, 1, 4, 1, 5};
    witness seen;
    transformer_tap tap;
    transformer_state *state = subject_state(s), *others[2] = {NULL, NULL};
    transformer_workspace *work = way_workspace(s, w);
    int ok = state && work, chunk = w->chunk ? w->chunk : n;
    memset(&tap, 0, sizeof tap), memset(&seen, 0, sizeof seen);
#if TEST_POSIX
    seen.caller = pthread_self();
#endif
    tap.sites = ALL_SITES, tap.function = peek_and_witness, tap.user = &seen;
    tap.scratch = tap_scratch, tap.scratch_size = sizeof tap_scratch;
    if ((w->taps || w->layers) && has_window(s)) chunk = tfi_min(chunk, MODEL_UNDO);
    for (int i = 0; i < 2 && w->company; i++) {
        others[i] = subject_state(s);
        ok = ok && !transformer_forward(s->model, work, others[i], prompt + i, 3 + 64 * i, NULL);
    }
    for (int i = 0; i < 9 && ok && w->reused; i++)
        ok = !transformer_forward(s->model, work, state, before, 5, NULL);
    ok = ok && !transformer_state_rewind(state, 0);
    for (int i = 0; i < n && ok; i += chunk)
        ok = run_chunk(s, w, work, state, others, prompt + i, tfi_min(chunk, n - i),
                       out + (size_t)i * (size_t)s->config.vocab_size,
                       w->taps ? &tap : NULL) == TRANSFORMER_OK;
    transformer_free(state), transformer_free(work);
    transformer_free(others[0]), transformer_free(others[1]);
    return ok && !seen.elsewhere;
}

static size_t logits_bytes(const subject *s, int n) {
    return (size_t)n * (size_t)s->config.vocab_size * sizeof(float);
}

/* The run that all others must equal: one call, serial, fresh. */
static void run_plainly(const subject *s, int n, float *out) {
    static const way plain = {0, 1, HOOK_NONE, 0, 0, 0, 256, 0};
    model_tokens(prompt, N, s->config.vocab_size, 1);
    CHECK(run_way(s, &plain, n, out));
    for (size_t i = 0; i < logits_bytes(s, n) / sizeof(float); i++)
        if (!(fabsf(out[i]) < 1e4f)) {
            CHECK(!"logits are finite");
            break;
        }
}

static int same_bits(const subject *s, const way *w, int n) {
    memset(logits, 0x55, logits_bytes(s, n));
    if (run_way(s, w, n, logits) && !memcmp(expected, logits, logits_bytes(s, n))) return 1;
    fprintf(stderr,
            "%s, %s, dtype %d, full %d, kv %d: chunk %d, threads %d, hook %d, taps %d, company %d, "
            "reused %d, batch %d, layers %d\n",
            s->name, transformer_isa(s->model), s->dtype, s->options.full_precision,
            s->options.kv_dtype, w->chunk, w->n_threads, w->hook, w->taps, w->company, w->reused,
            w->batch, w->layers);
    return 0;
}

static const int chunks[] = {1, 2, 3, 7, 16, 0};
enum { N_CHUNKS = 6, N_TEAMS = 10 };
/* Serial, and 2, 3, 4 threads by OpenMP, in reverse, in a pool. */
static void set_team(way *w, int team) {
    w->n_threads = team ? 2 + (team - 1) % 3 : 1;
    w->hook = team ? (team - 1) / 3 : HOOK_NONE;
}

static int brief; /* with an argument: what is bearable under emulation */

/* Each way of varying one thing, then some that vary all. */
static int vary_one(const subject *s, int n, int combined) {
    static const way plain = {0, 1, HOOK_NONE, 0, 0, 0, 256, 0};
    int runs = 0;
    way w;
    for (int i = 0; i < N_CHUNKS - 1; i++, runs++)
        w = plain, w.chunk = chunks[i],
        test_check(same_bits(s, &w, n), __FILE__, __LINE__, "chunk");
    for (int i = 1; i < N_TEAMS; i++, runs++)
        w = plain, set_team(&w, i), test_check(same_bits(s, &w, n), __FILE__, __LINE__, "threads");
    w = plain, w.taps = 1, runs++, test_check(same_bits(s, &w, n), __FILE__, __LINE__, "taps");
    w = plain, w.company = 1, runs++,
    test_check(same_bits(s, &w, n), __FILE__, __LINE__, "company");
    w = plain, w.reused = 1, runs++, test_check(same_bits(s, &w, n), __FILE__, __LINE__, "reused");
    w = plain, w.batch = 5, runs++, test_check(same_bits(s, &w, n), __FILE__, __LINE__, "batch");
    /* single tokens, shared */
    for (int i = 1; i < N_TEAMS && s->config.dim >= 500; i += brief ? 4 : 1, runs++) {
        w = plain, w.chunk = 1, set_team(&w, i);
        test_check(same_bits(s, &w, n), __FILE__, __LINE__, "decoding by threads");
    }
    for (int i = 0; i < combined; i++, runs++) {
        uint32_t r = test_hash((uint32_t)(i + 1) * 2654435761u);
        memset(&w, 0, sizeof w);
        w.chunk = chunks[r % N_CHUNKS], r /= N_CHUNKS;
        set_team(&w, (int)(r % N_TEAMS)), r /= N_TEAMS;
        w.taps = r & 1, w.company = r >> 1 & 1, w.reused = r >> 2 & 1, w.batch = r & 8 ? 5 : 256;
        test_check(same_bits(s, &w, n), __FILE__, __LINE__, "combination");
    }
    return runs;
}

typedef struct variant {
    int dtype, full_precision, kv_dtype;
} variant;
static const variant variants[] = {{TRANSFORMER_F32, 0, TRANSFORMER_F32},
                                   {TRANSFORMER_F16, 0, TRANSFORMER_F16},
                                   {TRANSFORMER_BF16, 0, TRANSFORMER_F32},
                                   {TRANSFORMER_BF16, 1, TRANSFORMER_F16},
                                   {TRANSFORMER_F32, 0, TRANSFORMER_F16}};
enum { N_VARIANTS = 5 };

/* Every shape on every row (brief: every third on the best) with F32 weights; the other formats in turn. */
static void test_same_bits(void) {
    for (int shape = 0; shape < N_SHAPES; shape++) {
        int runs = 0, n = shape >= SHAPE_WIDE ? 20 : brief ? 60 : N;
        if (brief && shape % 3) continue;
        for (int i = 0; i < n_isas; i++)
            for (int v = 0; v < N_VARIANTS; v++) {
                const variant *kind = &variants[v];
                subject s;
                if (v && (shape + v + i) % 2) continue;
                if ((brief || shape == SHAPE_HUGE) && i < n_isas - 1) continue;
                if (brief && v > 1) continue;
                CHECK(subject_make(&s, shape, kind->dtype, 1, isas[i], kind->full_precision,
                                   kind->kv_dtype));
                run_plainly(&s, n, expected);
                runs += vary_one(&s, n, v ? 2 : 6);
                subject_free(&s);
            }
        GROUP("same bits: %s, %d runs", model_shapes[shape].name, runs);
    }
}

/* Quantised weights: every type on the best row, a few on the others, a few in full precision.  13
 * tokens are two panels and a single token. */
static void test_same_bits_blocks(void) {
    int runs = 0, type = 0, models = 0;
    for (size_t f = 0; f < sizeof tfi_formats / sizeof tfi_formats[0]; f++) {
        if (!tfi_formats[f].unpack) continue;
        type++;
        for (int i = 0; i < n_isas; i++)
            for (int full = 0; full < 2; full++) {
                int best = i == n_isas - 1, few = (type + i) % (brief ? 15 : 5) == 0;
                subject s;
                if (!best && (full || brief)) continue;
                if (!few && (full || brief || !best)) continue;
                CHECK(subject_make(&s, SHAPE_BLOCKS, tfi_formats[f].dtype, 1, isas[i], full,
                                   type % 2 ? TRANSFORMER_F32 : TRANSFORMER_F16));
                run_plainly(&s, 13, expected);
                runs += vary_one(&s, 13, 2), models++;
                subject_free(&s);
            }
    }
    GROUP("same bits: quantised weights, %d models, %d runs", models, runs);
}

/* Every combination of everything. */
static void test_all_combinations(int shape, const variant *kind, int n) {
    subject s;
    int runs = 0;
    CHECK(subject_make(&s, shape, kind->dtype, 2, NULL, kind->full_precision, kind->kv_dtype));
    run_plainly(&s, n, expected);
    for (int c = 0; c < N_CHUNKS; c++)
        for (int team = 0; team < N_TEAMS; team++)
            for (int bits = 0; bits < 16; bits++, runs++) {
                way w = {0, 1, HOOK_NONE, 0, 0, 0, 0, 0};
                w.chunk = chunks[c], set_team(&w, team);
                w.taps = bits & 1, w.company = bits >> 1 & 1, w.reused = bits >> 2 & 1;
                w.batch = bits & 8 ? 5 : 256;
                CHECK(same_bits(&s, &w, n));
            }
    GROUP("same bits, all combinations: %s, %s, %d runs", s.name, transformer_isa(s.model), runs);
    subject_free(&s);
}

/* Threads did run, or the above says nothing about them. */
static void test_threads_ran(void) {
    CHECK(reverse_calls > 1000);
#if TEST_POSIX
    CHECK(pool.calls > 1000 && pool.elsewhere > 100);
    GROUP("threads: %d calls of the reversed hook, %d of the pool's, %d tasks on other threads; %s",
          reverse_calls, pool.calls, pool.elsewhere, TFI_OPENMP ? "OpenMP too" : "no OpenMP");
#else
    GROUP("threads: %d calls of the reversed hook", reverse_calls);
#endif
}

/* ---- several tokens, log-probabilities, embeddings, pauses ---- */

/* A tap keeps one thread of a call busy; the others, no more than processors, do not spin all the
 * while. */
#ifdef TFI_YIELD
static int take_time(void *team, const transformer_view *view) {
    (void)view;
    if (!*(int *)team) usleep(50000);
    return *(int *)team = omp_get_num_threads(), 0;
}
static void test_waiting(void) {
    subject s;
    int team = 0;
    CHECK(subject_make(&s, SHAPE_HUGE, TRANSFORMER_F32, 1, NULL, 0, TRANSFORMER_F32));
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 16, 8, NULL, NULL);
    transformer_sequence q = {0};
    transformer_tap tap = {0};
    transformer_call call = {0};
    q.state = state, q.n = 16, q.tokens = prompt, q.logits = logits;
    tap.sites = 1u << TRANSFORMER_SITE_EMBEDDING, tap.function = take_time, tap.user = &team;
    call.sequences = &q, call.n_sequences = 1, call.tap = &tap;
    yields = 0, processors = 2;
    CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_OK && team);
    processors = 1024;
    if (omp_get_thread_limit() > 1) CHECK(team == 2 && yields > 0);
    else SKIP("OpenMP is limited to one thread");
    GROUP("no more threads than processors; one that waits long gives its own away");
    transformer_free(work), transformer_free(state), subject_free(&s);
}
#endif

static const int plain_shapes[] = {
    SHAPE_LLAMA,           SHAPE_GPT2,      SHAPE_WINDOW, SHAPE_SOFTCAP,
    SHAPE_PARALLEL_SHARED, SHAPE_PROJECTED, SHAPE_WIDE};
enum { N_PLAIN_SHAPES = 7 };

/* Runs one sequence of a call; its other fields are the caller's. */
static transformer_status run_one(const subject *s, transformer_workspace *work,
                                  transformer_sequence *q, const transformer_tap *tap, int n_layers,
                                  int *pauses) {
    transformer_call call;
    memset(&call, 0, sizeof call);
    call.sequences = q, call.n_sequences = 1, call.tap = tap, call.n_layers = n_layers;
    return run_call(s, work, &call, pauses);
}

static transformer_sequence make_sequence(transformer_state *state, const int32_t *tokens, int n,
                                          float *out) {
    transformer_sequence q;
    memset(&q, 0, sizeof q);
    q.state = state, q.n = n, q.tokens = tokens, q.logits = out;
    q.logits_rows = TRANSFORMER_LOGITS_ALL;
    return q;
}

static void test_last_logits(void) {
    subject s;
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 3, NULL, 0, 0));
    run_plainly(&s, N, expected);
    for (int n = 1; n <= N; n += 7) {
        transformer_state *state = subject_state(&s);
        transformer_workspace *work = subject_workspace(&s, 32, 1, NULL, NULL);
        CHECK(!transformer_forward(s.model, work, state, prompt, n, logits));
        CHECK(!memcmp(logits, expected + (size_t)(n - 1) * 300, 300 * sizeof(float)));
        CHECK(transformer_state_position(state) == n);
        transformer_free(state), transformer_free(work);
    }
    GROUP("forward: the last token's logits are those of the whole");
    subject_free(&s);
}

static void score(const subject *s, int chunk, int n_threads, float *out, const int32_t *targets,
                  float *logprobs) {
    transformer_state *state = subject_state(s);
    transformer_workspace *work =
        subject_workspace(s, 64, n_threads, n_threads > 1 ? run_reversed : NULL, &reverse_calls);
    for (int i = 0; i < N; i += chunk) {
        transformer_sequence q = make_sequence(state, prompt + i, tfi_min(chunk, N - i), NULL);
        q.targets = targets + i, q.logprobs = logprobs + i;
        if (out) q.logits = out + (size_t)i * (size_t)s->config.vocab_size;
        CHECK(run_one(s, work, &q, NULL, 0, NULL) == TRANSFORMER_OK);
    }
    transformer_free(state), transformer_free(work);
}

static void test_logprobs(void) {
    static float first[N], other[N];
    int32_t targets[N];
    double worst = 0;
    for (int i = 0; i < N_PLAIN_SHAPES; i += brief ? 2 : 1) {
        subject s;
        CHECK(subject_make(&s, plain_shapes[i], TRANSFORMER_F32, 4, NULL, 0, 0));
        run_plainly(&s, N, expected);
        int vocab = s.config.vocab_size;
        model_tokens(targets, N, vocab, 9);
        for (int t = 0; t < N; t++) {
            if (t % 5 == 2) targets[t] = -1;
            first[t] = other[t] = 7;
        }
        targets[0] = 0, targets[1] = vocab - 1;
        score(&s, N, 1, logits, targets, first);
        CHECK(!memcmp(logits, expected, logits_bytes(&s, N)));
        for (int t = 0; t < N; t++) {
            const float *row = expected + (size_t)t * (size_t)vocab;
            double sum = 0;
            if (targets[t] < 0) {
                CHECK(first[t] == 7);
                continue;
            }
            for (int j = 0; j < vocab; j++) sum += exp((double)row[j]);
            worst = fmax(worst, fabs((double)row[targets[t]] - log(sum) - (double)first[t]));
        }
        for (int c = 0; c < N_CHUNKS; c++) {
            int chunk = chunks[c] ? chunks[c] : N;
            score(&s, chunk, 1 + c % 3, c % 2 ? logits : NULL, targets, other);
            CHECK(!memcmp(first, other, sizeof first));
        }
        subject_free(&s);
    }
    CHECK(worst < 1e-5);
    GROUP("log-probabilities: same bits in any split, with or without logits; largest error %.1e",
          worst);
}

static void test_embeddings(void) {
    static float rows[N * 512];
    for (int i = 0; i < N_PLAIN_SHAPES; i++)
        for (int v = 0; v < 3; v++) {
            subject s;
            if (brief && v != i % 3) continue;
            CHECK(subject_make(&s, plain_shapes[i], variants[v].dtype, 5, NULL, 0, 0));
            run_plainly(&s, N, expected);
            const transformer_config *c = transformer_model_config(s.model);
            size_t offset, dim = (size_t)c->embedding_dim;
            transformer_tensor table = {NULL, 0, 0, 0};
            CHECK(transformer_flat_offset(c, s.dtype, TRANSFORMER_EMBEDDING, 0, &offset));
            table.data = (unsigned char *)s.flat + offset, table.dtype = s.dtype;
            table.rows = c->vocab_size, table.cols = c->embedding_dim;
            CHECK(!transformer_embedding(rows, &table, prompt, N));
            for (size_t j = 0; j < N * dim; j++) rows[j] *= c->embedding_scale;
            for (int chunk = 7; chunk <= N; chunk += N - 7) {
                transformer_state *state = subject_state(&s);
                transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
                for (int t = 0; t < N; t += chunk) {
                    transformer_sequence q =
                        make_sequence(state, NULL, tfi_min(chunk, N - t),
                                      logits + (size_t)t * (size_t)c->vocab_size);
                    q.embeddings = rows + (size_t)t * dim;
                    CHECK(run_one(&s, work, &q, NULL, 0, NULL) == TRANSFORMER_OK);
                }
                CHECK(!memcmp(logits, expected, logits_bytes(&s, N)));
                transformer_free(state), transformer_free(work);
            }
            subject_free(&s);
        }
    GROUP("embeddings in place of tokens give the same bits");
}

static void test_pauses(void) {
    for (int shape = 0; shape < N_SHAPES; shape += brief ? 3 : 1) {
        subject s;
        int n = shape >= SHAPE_WIDE ? 30 : N;
        CHECK(subject_make(&s, shape, TRANSFORMER_F32, 6, NULL, 0, 0));
        run_plainly(&s, n, expected);
        int n_layers = s.config.n_layers, chunk = has_window(&s) ? MODEL_UNDO : 40, vocab;
        vocab = s.config.vocab_size;
        for (int layers = 1; layers <= n_layers + 2; layers++)
            for (int team = 0; team < 2; team++) {
                way w = {0, 1, HOOK_NONE, 0, 0, 0, 64, 0};
                w.chunk = chunk, w.layers = layers, w.company = w.taps = team;
                if (team) w.n_threads = 3, w.hook = HOOK_REVERSED;
                CHECK(same_bits(&s, &w, n));
            }
        /* the pauses are where they were asked for; in between nothing has advanced */
        transformer_state *state = subject_state(&s);
        transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
        transformer_sequence q = make_sequence(state, prompt, 5, logits);
        transformer_call call;
        memset(&call, 0, sizeof call);
        call.sequences = &q, call.n_sequences = 1;
        for (int layers = 1; layers <= n_layers; layers++) {
            int pauses = 0;
            CHECK(!transformer_state_rewind(state, 0));
            CHECK(run_one(&s, work, &q, NULL, layers, &pauses) == TRANSFORMER_OK);
            CHECK(pauses == (n_layers - 1) / layers || pauses == n_layers / layers);
        }
        if (n_layers > 1) { /* dropped, and taken up again with another number of layers */
            call.n_layers = 1;
            CHECK(!transformer_state_rewind(state, 0));
            CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_PAUSED);
            CHECK(transformer_state_position(state) == 0);
            q.tokens = prompt + 5;
            CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_PAUSED);
            CHECK(transformer_state_position(state) == 0);
            q.tokens = prompt;
            CHECK(transformer_run(s.model, work, &call, NULL) == TRANSFORMER_PAUSED);
            CHECK(transformer_resume(s.model, work, 0, NULL) == TRANSFORMER_OK);
            CHECK(transformer_state_position(state) == 5);
            CHECK(!memcmp(logits, expected, (size_t)(5 * vocab) * sizeof(float)));
            CHECK(transformer_resume(s.model, work, 0, NULL) == TRANSFORMER_ARGUMENT);
            CHECK(transformer_state_position(state) == 5);
        }
        transformer_free(state), transformer_free(work), subject_free(&s);
    }
    GROUP("pauses after any number of layers give the same bits; a dropped call leaves the state");
}

static void test_no_allocation(void) {
    int shown = 0;
    allocations = 0;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        subject s;
        double sum = 0;
        transformer_tap tap;
        CHECK(subject_make(&s, shape, TRANSFORMER_BF16, 7, NULL, 0, 0));
        transformer_state *state = subject_state(&s);
        transformer_workspace *work = subject_workspace(&s, 8, 3, run_reversed, &reverse_calls);
        memset(&tap, 0, sizeof tap);
        tap.sites = ALL_SITES, tap.function = peek, tap.user = &sum;
        tap.scratch = tap_scratch, tap.scratch_size = sizeof tap_scratch;
        transformer_sequence q = make_sequence(state, prompt, 11, logits);
        model_tokens(prompt, N, s.config.vocab_size, 1);
        CHECK(allocations >= 4); /* the counter counts */
        allocations = 0;
        CHECK(!transformer_forward(s.model, work, state, prompt, 20, logits));
        CHECK(!run_one(&s, work, &q, &tap, 0, NULL));
        CHECK(transformer_forward(s.model, work, state, prompt, 1000, logits) == TRANSFORMER_FULL);
        shown += allocations;
        transformer_free(state), transformer_free(work), subject_free(&s);
    }
    CHECK(shown == 0);
    GROUP("forward() allocates nothing");
}

/* ---- one model, many states ---- */

#if TEST_POSIX
enum { N_LINES = 4, LINE_TOKENS = 60 };
typedef struct timeline {
    const subject *s;
    int chunk, same;
    int32_t tokens[LINE_TOKENS];
    float want[LINE_TOKENS * 300], have[LINE_TOKENS * 300];
} timeline;

static void run_timeline(timeline *t, float *out) {
    transformer_state *state = subject_state(t->s);
    transformer_workspace *work = subject_workspace(t->s, 16, 2, run_reversed, NULL);
    for (int i = 0; i < LINE_TOKENS; i += t->chunk) {
        transformer_sequence q =
            make_sequence(state, t->tokens + i, tfi_min(t->chunk, LINE_TOKENS - i), out + i * 300);
        run_one(t->s, work, &q, NULL, 0, NULL);
    }
    transformer_free(state), transformer_free(work);
}
static void *timeline_thread(void *arg) {
    timeline *t = (timeline *)arg;
    t->same = 0;
    for (int i = 0; i < 8; i++) {
        memset(t->have, 0, sizeof t->have);
        run_timeline(t, t->have);
        t->same += !memcmp(t->want, t->have, sizeof t->want);
    }
    return NULL;
}
static void test_many_states(void) {
    static timeline lines[N_LINES];
    static const int shapes[] = {SHAPE_LLAMA, SHAPE_GPT2, SHAPE_SOFTCAP};
    for (int k = 0; k < 3; k++) {
        pthread_t threads[N_LINES];
        subject s;
        CHECK(subject_make(&s, shapes[k], TRANSFORMER_BF16, 8, NULL, 0, 0));
        for (int i = 0; i < N_LINES; i++) {
            lines[i].s = &s, lines[i].chunk = 1 + 4 * i;
            model_tokens(lines[i].tokens, LINE_TOKENS, s.config.vocab_size, 20 + (uint32_t)i);
            run_timeline(&lines[i], lines[i].want);
        }
        for (int i = 0; i < N_LINES; i++)
            CHECK(!pthread_create(&threads[i], NULL, timeline_thread, &lines[i]));
        for (int i = 0; i < N_LINES; i++) pthread_join(threads[i], NULL), CHECK(lines[i].same == 8);
        subject_free(&s);
    }
    GROUP("many states: four threads with one model, each as if alone");
}
#endif

/* ---- state is plain memory ---- */

/* The token at `from` and what follows, one by one; are they what the plain run gave? */
static int continues(const subject *s, transformer_workspace *work, transformer_state *state,
                     int to) {
    int from = transformer_state_position(state);
    size_t vocab = (size_t)s->config.vocab_size;
    for (int i = from; i < to; i += 5) {
        transformer_sequence q =
            make_sequence(state, prompt + i, tfi_min(5, to - i), logits + (size_t)i * vocab);
        if (run_one(s, work, &q, NULL, 0, NULL)) return 0;
    }
    return !memcmp(logits + (size_t)from * vocab, expected + (size_t)from * vocab,
                   (size_t)(to - from) * vocab * sizeof(float));
}

/* Through a file and back, into other memory. */
static void *through_file(const void *data, size_t size) {
    FILE *f = tmpfile();
    void *copy = test_poisoned(size);
    if (!f || !copy || fwrite(data, 1, size, f) != size || fseek(f, 0, SEEK_SET) ||
        fread(copy, 1, size, f) != size)
        transformer_free(copy), copy = NULL;
    if (f) fclose(f);
    return copy;
}

/* Everything in the cache that no later token may look at becomes NaN. */
static void poison_unused(const subject *s, transformer_state *state) {
    const transformer_config *c = transformer_model_config(s->model);
    for (int l = 0; l < c->n_layers; l++) {
        int capacity = tfi_capacity(c, l, state->context, state->undo);
        int window = c->layers[l].window, position = state->position;
        int oldest = window ? tfi_max(0, position + 1 - window) : 0;
        for (int slot = 0; slot < capacity && !c->layers[l].no_attention; slot++) {
            int used = 0;
            for (int p = oldest; p < position; p++) used |= p % capacity == slot;
            for (int h = 0; h < c->layers[l].n_kv_heads && !used; h++)
                for (int which = 0; which < 2; which++)
                    model_poison_slot(state, c, l, which, h, slot);
        }
    }
}

static void test_save_fork_restore(int shape, int kv_dtype) {
    subject s;
    transformer_error error;
    transformer_state *restored = NULL;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 9, NULL, 0, kv_dtype));
    int n = shape == SHAPE_WIDE ? 60 : N;
    run_plainly(&s, n, expected);
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 32, 1, NULL, NULL);
    CHECK(continues(&s, work, state, 50));
    size_t size = transformer_state_bytes(state);
    CHECK(size == transformer_state_size(s.model, &s.options));
    /* a copy in memory goes its own way first; a copy from a file goes on where this one stood */
    void *fork = test_poisoned(size), *file = through_file(state, size);
    memcpy(fork, state, size);
    CHECK(!transformer_state_restore(fork, size, s.model, &restored, &error) && restored == fork);
    for (int i = 0; i < 40; i++)
        CHECK(!transformer_forward(s.model, work, restored, prompt + (i * 7) % 50, 1, NULL));
    CHECK(continues(&s, work, state, n));
    CHECK(file && !transformer_state_restore(file, size, s.model, &restored, &error));
    CHECK(transformer_state_position(restored) == 50 && transformer_state_bytes(restored) == size);
    CHECK(transformer_state_context(restored) == MODEL_CONTEXT);
    transformer_free(work); /* with another workspace, of another size */
    work = subject_workspace(&s, 3, 2, run_reversed, NULL);
    poison_unused(&s, restored);
    CHECK(continues(&s, work, restored, n));
    /* the fork did what a fresh state does with its tokens */
    static float forked[MODEL_MAX_VOCAB], fresh[MODEL_MAX_VOCAB];
    int32_t tokens[90];
    for (int i = 0; i < 90; i++) tokens[i] = prompt[i < 50 ? i : ((i - 50) * 7) % 50];
    CHECK(!transformer_forward(s.model, work, (transformer_state *)fork, prompt, 1, forked));
    CHECK(!transformer_state_rewind(state, 0));
    CHECK(!transformer_forward(s.model, work, state, tokens, 90, NULL));
    CHECK(!transformer_forward(s.model, work, state, prompt, 1, fresh));
    CHECK(!memcmp(forked, fresh, (size_t)s.config.vocab_size * sizeof(float)));
    transformer_free(state), transformer_free(work), transformer_free(fork), transformer_free(file);
    subject_free(&s);
}

static void test_rewind(int shape, int kv_dtype) {
    subject s;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 10, NULL, 0, kv_dtype));
    int n = shape == SHAPE_WIDE ? 60 : N;
    run_plainly(&s, n, expected);
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 32, 1, NULL, NULL);
    size_t size = transformer_state_bytes(state);
    void *before = test_aligned(size);
    CHECK(transformer_state_rewind(NULL, 0) == TRANSFORMER_ARGUMENT);
    for (int there = MODEL_UNDO + 1; there < n; there += 9)
        for (int back = 0; back <= MODEL_UNDO; back += 4) {
            CHECK(!transformer_state_rewind(state, 0));
            CHECK(continues(&s, work, state, there));
            CHECK(!transformer_state_rewind(state, there - back));
            CHECK(transformer_state_position(state) == there - back);
            poison_unused(&s, state);
            memcpy(before, state, size);
            CHECK(transformer_state_rewind(state, -1) == TRANSFORMER_ARGUMENT);
            CHECK(transformer_state_rewind(state, there - back + 1) == TRANSFORMER_ARGUMENT);
            if (state->has_ring && there > MODEL_UNDO + 1)
                CHECK(transformer_state_rewind(state, there - MODEL_UNDO - 1) ==
                      TRANSFORMER_UNSUPPORTED);
            CHECK(!memcmp(before, state, size));
            CHECK(continues(&s, work, state, tfi_min(there + 20, n)));
        }
    /* what another sequence left behind beyond the position does not matter */
    CHECK(!transformer_state_rewind(state, 0));
    CHECK(!transformer_forward(s.model, work, state, prompt + 3, n - 3, NULL));
    CHECK(!transformer_state_rewind(state, 0));
    CHECK(continues(&s, work, state, n));
    CHECK(has_window(&s) == state->has_ring);
    transformer_free(before), transformer_free(state), transformer_free(work), subject_free(&s);
}

static void expect_refused(void *memory, size_t size, const subject *s) {
    transformer_error error;
    transformer_state *restored = (transformer_state *)memory;
    CHECK(transformer_state_restore(memory, size, s->model, &restored, &error) ==
          TRANSFORMER_STATE);
    CHECK(!restored && error.status == TRANSFORMER_STATE && strstr(error.text, "state"));
}

/* Configurations that differ in one thing only must not take each other's states. */
typedef void config_change(transformer_config *c);
static void change_eps(transformer_config *c) { c->norm_eps = 1e-6f; }
static void change_pairing(transformer_config *c) { c->rope[0].pairing = 1; }
static void change_attention_factor(transformer_config *c) { c->rope[0].attention_factor = 1.2; }
static void change_theta(transformer_config *c) { c->rope[0].theta = 9999; }
static void change_reverse(transformer_config *c) { c->rope[0].reverse = 1; }
static void change_window(transformer_config *c) { c->layers[1].window = 9; }
static void change_scale(transformer_config *c) { c->layers[0].attn_scale = .4f; }
static void change_activation(transformer_config *c) { c->activation = TRANSFORMER_RELU; }
static void change_heads(transformer_config *c) { c->n_kv_heads = 3; }
static void change_context(transformer_config *c) { c->context++; }
static void change_no_rope(transformer_config *c) { c->layers[1].rope = -1; }
static void change_softcap(transformer_config *c) { c->attn_softcap = 30; }
static void change_linear(transformer_config *c) {
    c->rope[0].scaling = TRANSFORMER_ROPE_LINEAR, c->rope[0].factor = 2;
}
static void change_dynamic(transformer_config *c) {
    c->rope[0].scaling = TRANSFORMER_ROPE_DYNAMIC, c->rope[0].original_context = 64;
    c->rope[0].factor = 2;
}
static const struct {
    const char *name;
    config_change *change;
} changes[] = {{"norm_eps", change_eps},
               {"rope pairing", change_pairing},
               {"rope attention_factor", change_attention_factor},
               {"rope theta", change_theta},
               {"rope reverse", change_reverse},
               {"window", change_window},
               {"attn_scale", change_scale},
               {"activation", change_activation},
               {"n_kv_heads", change_heads},
               {"context", change_context},
               {"a layer without rope", change_no_rope},
               {"attn_softcap", change_softcap},
               {"rope scaling", change_linear}};

static void test_restore_refuses(void) {
    subject s, other;
    transformer_error error;
    transformer_state *restored = NULL;
    CHECK(subject_make(&s, SHAPE_LLAMA, TRANSFORMER_F32, 11, NULL, 0, 0));
    model_tokens(prompt, N, s.config.vocab_size, 1);
    transformer_state *state = subject_state(&s);
    transformer_workspace *work = subject_workspace(&s, 32, 1, NULL, NULL);
    CHECK(!transformer_forward(s.model, work, state, prompt, 40, NULL));
    size_t size = transformer_state_bytes(state);
    void *saved = test_aligned(size);
    memcpy(saved, state, size);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        int failed = test_failed;
        other = s;
        changes[i].change(&other.config);
        other.flat = model_weights(&other.config, TRANSFORMER_F32, 11, &other.flat_size);
        other.model = transformer_model_new(&other.config, &other.options, &error);
        CHECK(other.model && !transformer_bind_flat(other.model, other.flat, other.flat_size,
                                                    TRANSFORMER_F32, &error));
        expect_refused(state, size, &other);
        CHECK(transformer_forward(other.model, work, state, prompt, 1, NULL) != TRANSFORMER_OK);
        if (test_failed > failed) fprintf(stderr, "    with another %s\n", changes[i].name);
        memcpy(state, saved, size);
        subject_free(&other);
    }
    CHECK(subject_make(&other, SHAPE_LLAMA, TRANSFORMER_F32, 12, NULL, 0, 0)); /* other weights */
    expect_refused(state, size, &other);
    subject_free(&other);
    CHECK(subject_make(&other, SHAPE_LLAMA, TRANSFORMER_BF16, 11, NULL, 0, 0));
    expect_refused(state, size, &other);
    subject_free(&other);
    /* another length to resolve RoPE for */
    for (int length = 0; length <= 300; length += 150) {
        transformer_options options;
        memset(&options, 0, sizeof options);
        options.rope_length = length;
        other = s, change_dynamic(&other.config);
        other.options = options, other.options.rope_length = 200;
        for (int i = 0; i < 2; i++) {
            transformer_model *m =
                transformer_model_new(&other.config, i ? &other.options : &options, &error);
            CHECK(m && !transformer_bind_flat(m, s.flat, s.flat_size, TRANSFORMER_F32, &error));
            if (i) {
                other.model = m;
                expect_refused(restored, transformer_state_bytes(restored), &other);
            } else restored = transformer_state_new(m, &options, &error);
            if (!i) transformer_free(m);
        }
        transformer_free(restored), transformer_free(other.model);
    }
    /* too short; misaligned; NULL */
    for (size_t cut = 1; cut < size; cut = cut * 3 + 1) {
        restored = state;
        transformer_status status =
            transformer_state_restore(state, size - cut, s.model, &restored, &error);
        CHECK((status == TRANSFORMER_STATE || status == TRANSFORMER_MEMORY) && !restored);
    }
    CHECK(transformer_state_restore(state, 0, s.model, &restored, &error) == TRANSFORMER_MEMORY);
    CHECK(transformer_state_restore(NULL, size, s.model, &restored, &error) ==
          TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_restore(state, size, NULL, &restored, &error) == TRANSFORMER_ARGUMENT);
    CHECK(transformer_state_restore(state, size, s.model, NULL, &error) == TRANSFORMER_ARGUMENT);
    /* each word of the header damaged: refused, or what it now says is possible and safe to run */
    static const uint32_t values[] = {
        0, 1, 2, 0xffffffffu, 0x7fffffffu, 0x80000000u, 0x40000000u, 0x20000000u, 161, 1u << 16};
    int refused = 0, taken = 0;
    void *copy = test_aligned(size);
    for (size_t word = 0; word < sizeof(transformer_state) / 4; word++)
        for (size_t v = 0; v < 2 + sizeof values / sizeof values[0]; v++) {
            uint32_t old, value;
            memcpy(copy, state, size);
            memcpy(&old, (unsigned char *)copy + 4 * word, 4);
            value = v == 0 ? old + 1 : v == 1 ? ~old : values[v - 2];
            if (value == old) continue;
            memcpy((unsigned char *)copy + 4 * word, &value, 4);
            transformer_status status =
                transformer_state_restore(copy, size, s.model, &restored, &error);
            if (status) {
                CHECK(status == TRANSFORMER_STATE && !restored && error.text[0]);
                refused++;
                continue;
            }
            CHECK(word >= 6); /* not the magic, the fingerprint or the size */
            int position = transformer_state_position(restored);
            CHECK(position >= 0 && position <= transformer_state_context(restored));
            CHECK(transformer_state_bytes(restored) == size);
            CHECK(transformer_forward(s.model, work, restored, prompt, 1, logits) ==
                  (position < transformer_state_context(restored) ? TRANSFORMER_OK
                                                                  : TRANSFORMER_FULL));
            transformer_state_rewind(restored, position / 2);
            taken++;
        }
    CHECK(refused > 100);
    /* damaged offsets are computed anew, not trusted */
    memcpy(copy, state, size);
    memset((unsigned char *)copy + 64, 0xff, 32);
    CHECK(!transformer_state_restore(copy, size, s.model, &restored, &error));
    run_plainly(&s, N, expected);
    CHECK(continues(&s, work, restored, 60));
    GROUP("restore refuses other models, other weights and %d of %d damaged headers", refused,
          refused + taken);
    transformer_free(copy), transformer_free(saved);
    transformer_free(state), transformer_free(work), subject_free(&s);
}

/* ---- a failed call leaves the state as it was ---- */

typedef struct failing {
    subject s, other;
    transformer_state *state, *second, *foreign;
    transformer_workspace *work, *foreign_work;
    transformer_sequence q[2];
    transformer_call call;
    transformer_tap tap;
} failing;

static int never_called(void *user, const transformer_view *view) {
    (void)view;
    CHECK(!"the tap of a refused call");
    return *(int *)user;
}

/* Sets up failure number i; its expected status, or -1 if there are no more. */
static int set_failure(failing *f, int i, const transformer_model **m, transformer_workspace **w) {
    static int32_t bad[4] = {1, 2, 3, 4};
    static const int32_t targets[4] = {0, -1, 300, 1}, low[4] = {0, -2, 5, 1};
    static float few[8];
    int undo = f->s.options.undo, left = MODEL_CONTEXT - transformer_state_position(f->state);
    *m = f->s.model, *w = f->work;
    memset(&f->call, 0, sizeof f->call), memset(&f->tap, 0, sizeof f->tap);
    f->q[0] = make_sequence(f->state, prompt, 3, logits);
    f->q[1] = make_sequence(f->second, prompt, 4, logits + 3000);
    f->call.sequences = f->q, f->call.n_sequences = 2;
    f->tap.function = never_called, f->tap.sites = 2, f->tap.user = &f->tap;
    bad[1] = 2, bad[2] = 3;
    switch (i) {
    case 0: return *m = NULL, TRANSFORMER_ARGUMENT;
    case 1: return *w = NULL, TRANSFORMER_ARGUMENT;
    case 2: return *w = f->foreign_work, TRANSFORMER_ARGUMENT;
    case 3: return f->call.sequences = NULL, TRANSFORMER_ARGUMENT;
    case 4: return f->call.n_sequences = 0, TRANSFORMER_ARGUMENT;
    case 5: return f->call.n_sequences = -1, TRANSFORMER_ARGUMENT;
    case 6: return f->call.n_layers = -1, TRANSFORMER_ARGUMENT;
    case 7: return f->q[1].state = f->state, TRANSFORMER_ARGUMENT;
    case 8: return f->q[1].state = f->foreign, TRANSFORMER_STATE;
    case 9: return f->q[1].n = 0, TRANSFORMER_ARGUMENT;
    case 10: return f->q[1].n = -5, TRANSFORMER_ARGUMENT;
    case 11: return f->q[0].n = INT32_MAX, TRANSFORMER_FULL;
    case 12: return f->q[0].n = left + 1, TRANSFORMER_FULL;
    case 13: return f->q[1].tokens = NULL, TRANSFORMER_ARGUMENT;
    case 14: return f->q[1].embeddings = few, TRANSFORMER_ARGUMENT;
    case 15: return f->q[1].tokens = bad, bad[2] = -1, TRANSFORMER_ARGUMENT;
    case 16: return f->q[1].tokens = bad, bad[2] = 300, TRANSFORMER_ARGUMENT;
    case 17: return f->q[1].tokens = bad, bad[1] = INT32_MAX, TRANSFORMER_ARGUMENT;
    case 18: return f->q[1].tokens = bad, bad[1] = INT32_MIN, TRANSFORMER_ARGUMENT;
    case 19: return f->q[1].targets = targets, f->q[1].logprobs = few, TRANSFORMER_ARGUMENT;
    case 20: return f->q[1].targets = low, f->q[1].logprobs = few, TRANSFORMER_ARGUMENT;
    case 21: return f->q[1].targets = targets, TRANSFORMER_ARGUMENT;
    case 22: return f->q[1].logprobs = few, TRANSFORMER_ARGUMENT;
    case 23: return f->q[1].logits_rows = 2, TRANSFORMER_ARGUMENT;
    case 24: return f->call.tap = &f->tap, f->tap.function = NULL, TRANSFORMER_ARGUMENT;
    case 25: return f->call.tap = &f->tap, f->tap.sites = ALL_SITES, TRANSFORMER_ARGUMENT;
    case 26:
        f->call.tap = &f->tap, f->tap.sites = ALL_SITES, f->tap.scratch = tap_scratch;
        return f->tap.scratch_size = 2 * 6 * MODEL_CONTEXT * 4 - 4, TRANSFORMER_ARGUMENT;
    case 27: return f->call.tap = &f->tap, f->q[0].n = undo + 1, TRANSFORMER_ARGUMENT;
    case 28: return f->call.n_layers = 1, f->q[0].n = undo + 1, TRANSFORMER_ARGUMENT;
    case 29: return f->call.n_layers = 1, f->q[0].n = f->q[1].n = undo, TRANSFORMER_ARGUMENT;
    case 30: return f->q[1].state = NULL, TRANSFORMER_ARGUMENT;
    default: return -1;
    }
}

static void test_failures(void) {
    failing f;
    transformer_error error;
    const transformer_model *m;
    transformer_workspace *w;
    int status, i;
    memset(&f, 0, sizeof f);
    CHECK(subject_make(&f.s, SHAPE_WINDOW, TRANSFORMER_F32, 13, NULL, 0, 0));
    CHECK(subject_make(&f.other, SHAPE_WINDOW, TRANSFORMER_F32, 14, NULL, 0, 0));
    f.state = subject_state(&f.s), f.second = subject_state(&f.s);
    f.foreign = subject_state(&f.other);
    f.work = subject_workspace(&f.s, 20, 1, NULL, NULL);
    f.foreign_work = subject_workspace(&f.other, 20, 1, NULL, NULL);
    run_plainly(&f.s, N, expected);
    CHECK(continues(&f.s, f.work, f.state, 30) && continues(&f.s, f.work, f.second, 70));
    size_t size = transformer_state_bytes(f.state);
    void *before[2] = {test_aligned(size), test_aligned(size)};
    for (i = 0; (status = set_failure(&f, i, &m, &w)) != -1; i++) {
        memcpy(before[0], f.state, size), memcpy(before[1], f.second, size);
        memset(logits, 0x55, sizeof(float) * 6000);
        memset(&error, 0x33, sizeof error);
        int have = (int)transformer_run(m, w, &f.call, &error);
        if (have != status)
            fprintf(stderr, "failure %d: status %d, expected %d\n", i, have, status);
        CHECK(have == status);
        CHECK((int)error.status == have && error.text[0] && memchr(error.text, 0, 248));
        CHECK(!memcmp(before[0], f.state, size) && !memcmp(before[1], f.second, size));
        for (int j = 0; j < 24000; j++)
            if (((unsigned char *)logits)[j] != 0x55) {
                CHECK(!"a refused call writes no logits");
                break;
            }
        CHECK(transformer_run(m, w, &f.call, NULL) == (transformer_status)have);
    }
    CHECK(transformer_run(f.s.model, f.work, NULL, &error) == TRANSFORMER_ARGUMENT);
    CHECK(continues(&f.s, f.work, f.state, N) && continues(&f.s, f.work, f.second, N));
    GROUP("%d ways to fail: the right status, an explanation, every byte of the states as it was",
          i);
    transformer_free(before[0]), transformer_free(before[1]);
    transformer_free(f.state), transformer_free(f.second), transformer_free(f.foreign);
    transformer_free(f.work), transformer_free(f.foreign_work);
    subject_free(&f.s), subject_free(&f.other);
}

/* ---- taps ---- */

/* What each view must say, checked as it comes; and changes to make. */
enum { EDIT_NONE, EDIT_SAME, EDIT_SCALE, EDIT_ZERO, EDIT_STOP };
typedef struct watcher {
    const subject *s;
    int start[3], n[3]; /* position and tokens of each sequence of the call */
    int n_sequences;
    int edit, sites, layer, position; /* where; layer and position -1 = everywhere */
    int rows[TRANSFORMER_N_SITES], views[TRANSFORMER_N_SITES], last_site, last_layer, edits;
    double worst_sum;
} watcher;

static int site_width(const transformer_config *c, int site, int l) {
    const transformer_layer *layer = &c->layers[l < 0 ? 0 : l];
    switch (site) {
    case TRANSFORMER_SITE_Q:
    case TRANSFORMER_SITE_Q_ROTATED: return layer->n_heads * c->head_dim;
    case TRANSFORMER_SITE_K:
    case TRANSFORMER_SITE_K_ROTATED: return layer->n_kv_heads * c->head_dim;
    case TRANSFORMER_SITE_V: return layer->n_kv_heads * c->value_dim;
    case TRANSFORMER_SITE_Z: return layer->n_heads * c->value_dim;
    case TRANSFORMER_SITE_MLP_PRE:
    case TRANSFORMER_SITE_MLP_UP:
    case TRANSFORMER_SITE_MLP_ACT: return layer->mlp_dim;
    case TRANSFORMER_SITE_LOGITS: return c->vocab_size;
    default: return c->dim;
    }
}

static void check_view(watcher *w, const transformer_view *v) {
    const transformer_config *c = transformer_model_config(w->s->model);
    int per_model = v->site == TRANSFORMER_SITE_EMBEDDING || v->site >= TRANSFORMER_SITE_FINAL_NORM;
    int per_key = v->site == TRANSFORMER_SITE_SCORES || v->site == TRANSFORMER_SITE_WEIGHTS;
    CHECK(v->site >= 0 && v->site < TRANSFORMER_N_SITES && v->data);
    CHECK(per_model ? v->layer == -1 : v->layer >= 0 && v->layer < c->n_layers);
    CHECK(v->sequence >= 0 && v->sequence < w->n_sequences);
    CHECK(v->n >= 1 && v->position >= w->start[v->sequence]);
    CHECK(v->position + v->n <= w->start[v->sequence] + w->n[v->sequence]);
    if (per_key) {
        int heads = c->layers[v->layer].n_heads, window = c->layers[v->layer].window;
        int keys = window ? tfi_min(window, v->position + 1) : v->position + 1;
        CHECK(v->n == 1 && v->n_keys == keys && v->first_key == v->position + 1 - keys);
        CHECK(v->width == heads * keys);
        for (int h = 0; h < heads && v->site == TRANSFORMER_SITE_WEIGHTS; h++) {
            double sum = 0;
            for (int j = 0; j < keys; j++) {
                sum += (double)v->data[h * keys + j];
                if (!(v->data[h * keys + j] >= 0)) sum = 9; /* fails below */
            }
            w->worst_sum = fmax(w->worst_sum, fabs(sum - 1));
        }
    } else {
        CHECK(v->n_keys == 0 && v->first_key == 0);
        CHECK(v->width == site_width(c, v->site, v->layer));
        CHECK(v->n == 1 || v->stride >= (size_t)v->width);
    }
    for (int i = 0; i < v->n; i++)
        for (int j = 0; j < v->width; j++)
            if (!(fabsf(v->data[(size_t)i * v->stride + (size_t)j]) < 1e5f)) {
                CHECK(!"a view shows numbers");
                return;
            }
}

static int watch(void *user, const transformer_view *v) {
    watcher *w = (watcher *)user;
    check_view(w, v);
    if (v->layer == w->last_layer && v->layer >= 0 && v->site < w->last_site &&
        w->last_site != TRANSFORMER_SITE_WEIGHTS) /* which comes with SCORES, token by token */
        CHECK(!"sites come in their order");
    w->last_site = v->site, w->last_layer = v->layer;
    w->rows[v->site] += v->n, w->views[v->site]++;
    if (!(w->sites >> v->site & 1) || (w->layer >= 0 && v->layer >= 0 && v->layer != w->layer))
        return 0;
    for (int i = 0; i < v->n; i++) {
        float *row = v->data + (size_t)i * v->stride;
        if (w->position >= 0 && v->position + i != w->position) continue;
        w->edits++;
        if (w->edit == EDIT_STOP) return 1;
        for (int j = 0; j < v->width; j++) {
            volatile float value = row[j];
            if (w->edit == EDIT_SAME) row[j] = value;
            if (w->edit == EDIT_SCALE) row[j] = value * 1.5f + .01f * (float)(j % 3);
            if (w->edit == EDIT_ZERO) row[j] = 0;
        }
    }
    return 0;
}

/* Runs n prompt tokens under a watcher, chunk by chunk; with company as in run_way. */
static transformer_status run_watched(watcher *w, int n, int chunk, int batch, int company,
                                      float *out) {
    const subject *s = w->s;
    transformer_tap tap;
    way how = {0, 3, HOOK_REVERSED, 1, 0, 0, 0, 0};
    transformer_state *state = subject_state(s), *others[2] = {NULL, NULL};
    transformer_workspace *work;
    transformer_status status = TRANSFORMER_OK;
    how.company = company, how.batch = batch;
    work = way_workspace(s, &how);
    memset(&tap, 0, sizeof tap);
    tap.sites = ALL_SITES, tap.function = watch, tap.user = w;
    tap.scratch = tap_scratch, tap.scratch_size = sizeof tap_scratch;
    for (int i = 0; i < 2 && company; i++) {
        others[i] = subject_state(s);
        CHECK(!transformer_forward(s->model, work, others[i], prompt, 7, NULL));
    }
    for (int i = 0; i < n && !status; i += chunk) {
        w->start[company] = i, w->n[company] = tfi_min(chunk, n - i);
        w->n_sequences = company ? 3 : 1, w->last_site = w->last_layer = -1;
        for (int j = 0; j < 2 && company; j++)
            w->start[2 * j] = transformer_state_position(others[j]), w->n[2 * j] = 2 + 3 * j;
        status = run_chunk(s, &how, work, state, others, prompt + i, tfi_min(chunk, n - i),
                           out + (size_t)i * (size_t)s->config.vocab_size, &tap);
    }
    if (w->edit == EDIT_STOP && status == TRANSFORMER_STOPPED) {
        /* nothing has advanced; the next call is right */
        CHECK(transformer_state_position(state) == w->start[company]);
        for (int j = 0; j < 2 && company; j++)
            CHECK(transformer_state_position(others[j]) == w->start[2 * j]);
        CHECK(transformer_resume(s->model, work, 0, NULL) == TRANSFORMER_ARGUMENT);
        CHECK(continues(s, work, state, n));
    }
    transformer_free(state), transformer_free(work);
    transformer_free(others[0]), transformer_free(others[1]);
    return status;
}

static watcher make_watcher(const subject *s, int edit, int sites) {
    watcher w;
    memset(&w, 0, sizeof w);
    w.s = s, w.edit = edit, w.sites = sites, w.layer = w.position = -1;
    return w;
}

/* Does a model have a site in some layer? */
static int has_site(const transformer_config *c, int site) {
    int attention = 0, mlp = 0;
    for (int l = 0; l < c->n_layers; l++)
        attention |= !c->layers[l].no_attention, mlp |= !c->layers[l].no_mlp;
    if (site == TRANSFORMER_SITE_MLP_UP) return mlp && c->gated;
    if (site == TRANSFORMER_SITE_RESIDUAL_MID) return attention && !c->parallel;
    if (site == TRANSFORMER_SITE_RESIDUAL_PRE || site == TRANSFORMER_SITE_RESIDUAL_POST)
        return c->n_layers > 0;
    if (site == TRANSFORMER_SITE_MLP_NORM) return mlp && c->parallel != TRANSFORMER_PARALLEL_SHARED;
    if (site >= TRANSFORMER_SITE_ATTN_NORM && site <= TRANSFORMER_SITE_ATTN_OUT) return attention;
    if (site >= TRANSFORMER_SITE_MLP_PRE && site <= TRANSFORMER_SITE_MLP_OUT) return mlp;
    return 1;
}

static void test_taps(int shape) {
    enum { TAPPED = 21 };
    static float edited[TAPPED * 300];
    subject s;
    CHECK(subject_make(&s, shape, TRANSFORMER_F32, 15, NULL, 0, 0));
    const transformer_config *c = transformer_model_config(s.model);
    size_t bytes = logits_bytes(&s, TAPPED);
    int chunk = has_window(&s) ? MODEL_UNDO : TAPPED;
    run_plainly(&s, TAPPED, expected);
    for (int company = 0; company < 2; company++) { /* reading, and writing the same back */
        watcher w = make_watcher(&s, company ? EDIT_SAME : EDIT_NONE, ALL_SITES);
        CHECK(!run_watched(&w, TAPPED, chunk, 256, company, logits));
        CHECK(!memcmp(logits, expected, bytes));
        CHECK(w.worst_sum < 1e-5);
        for (int site = 0; site < TRANSFORMER_N_SITES; site++)
            CHECK((w.rows[site] > 0) == has_site(c, site) ||
                  site == TRANSFORMER_SITE_ATTN_NORM /* also a shared norm of MLP-only layers */);
        CHECK(company || w.rows[TRANSFORMER_SITE_EMBEDDING] == TAPPED);
        CHECK(company || w.rows[TRANSFORMER_SITE_LOGITS] == TAPPED);
        CHECK(company || w.rows[TRANSFORMER_SITE_RESIDUAL_POST] == TAPPED * c->n_layers);
    }
    for (int site = 0; site < TRANSFORMER_N_SITES; site++) {
        int failed = test_failed;
        if (!has_site(c, site)) continue;
        /* A change at position 4: nothing before it differs, something from there on does, and
         * chunks, small passes and company make no difference. */
        watcher w = make_watcher(&s, EDIT_SCALE, 1 << site);
        w.position = 4;
        CHECK(!run_watched(&w, TAPPED, chunk, 256, 0, edited));
        CHECK(w.edits > 0 && memcmp(edited, expected, bytes));
        CHECK(!memcmp(edited, expected, logits_bytes(&s, 4)));
        for (int i = 0; i < 4; i++) {
            static const int ways[4][3] = {{1, 256, 0}, {7, 3, 0}, {3, 4, 0}, {7, 256, 1}};
            w = make_watcher(&s, EDIT_SCALE, 1 << site), w.position = 4;
            if (ways[i][2]) w.position = -1; /* the others pass position 4, too */
            if (ways[i][2]) {
                watcher all = make_watcher(&s, EDIT_SCALE, 1 << site);
                CHECK(!run_watched(&all, TAPPED, chunk, 256, 0, edited));
            }
            CHECK(!run_watched(&w, TAPPED, ways[i][0], ways[i][1], ways[i][2], logits));
            CHECK(!memcmp(edited, logits, bytes));
        }
        for (int layer = 0; layer < tfi_max(1, c->n_layers); layer++)
            for (int position = 0; position < TAPPED; position += 10) { /* stopping */
                w = make_watcher(&s, EDIT_STOP, 1 << site), w.layer = layer, w.position = position;
                transformer_status status =
                    run_watched(&w, TAPPED, tfi_min(chunk, 11), 5 + 251 * (layer & 1), 0, logits);
                CHECK(status == (w.edits ? TRANSFORMER_STOPPED : TRANSFORMER_OK));
                w = make_watcher(&s, EDIT_STOP, 1 << site), w.layer = layer, w.position = position;
                run_watched(&w, TAPPED, tfi_min(chunk, 11), 256, 1, logits);
            }
        if (test_failed > failed)
            fprintf(stderr, "    %s, site %s\n", s.name, transformer_site_name(site));
    }
    GROUP("taps: %s", s.name);
    subject_free(&s);
}

typedef struct residual_test {
    float embedding[8][64];
    int same, seen;
} residual_test;
static int ablate_all(void *user, const transformer_view *v) {
    residual_test *r = (residual_test *)user;
    for (int i = 0; i < v->n; i++) {
        float *row = v->data + (size_t)i * v->stride, *own = r->embedding[v->position + i];
        size_t bytes = (size_t)v->width * sizeof(float);
        if (v->site == TRANSFORMER_SITE_EMBEDDING) memcpy(own, row, bytes);
        else if (v->site == TRANSFORMER_SITE_RESIDUAL_POST)
            r->seen++, r->same += !memcmp(own, row, bytes);
        else memset(row, 0, bytes);
    }
    return 0;
}
static void test_ablation(void) {
    static const int shapes[] = {SHAPE_LLAMA, SHAPE_GPT2, SHAPE_SOFTCAP, SHAPE_PARALLEL_SHARED};
    for (int i = 0; i < 4; i++) {
        static residual_test r;
        subject s;
        transformer_tap tap;
        CHECK(subject_make(&s, shapes[i], TRANSFORMER_F32, 16, NULL, 0, 0));
        transformer_state *state = subject_state(&s);
        transformer_workspace *work = subject_workspace(&s, 64, 1, NULL, NULL);
        transformer_sequence q = make_sequence(state, prompt, 8, logits);
        memset(&r, 0, sizeof r), memset(&tap, 0, sizeof tap);
        tap.sites = 1u << TRANSFORMER_SITE_EMBEDDING | 1u << TRANSFORMER_SITE_RESIDUAL_POST |
                    1u << TRANSFORMER_SITE_ATTN_OUT | 1u << TRANSFORMER_SITE_MLP_OUT;
        tap.function = ablate_all, tap.user = &r;
        CHECK(!run_one(&s, work, &q, &tap, 0, NULL));
        CHECK(r.seen == 8 * s.config.n_layers && r.same == r.seen);
        transformer_free(state), transformer_free(work), subject_free(&s);
    }
    GROUP("taps: without the blocks' outputs the residual stream stays the embedding");
}

/* ---- encoders: causal = 0 ---- */

static const float *flat_tensor(const subject *s, int role, int layer) {
    size_t offset = 0;
    CHECK(transformer_flat_offset(&s->config, TRANSFORMER_F32, role, layer, &offset));
    return (const float *)(const void *)((const unsigned char *)s->flat + offset);
}
static void plain_product(double *out, const float *w, const double *x, int rows, int cols) {
    for (int i = 0; i < rows; i++) {
        out[i] = 0;
        for (int k = 0; k < cols; k++) out[i] += (double)w[i * cols + k] * x[k];
    }
}
static void plain_rms(double *out, const double *x, const float *weight, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) out[i] = (double)weight[i] * x[i] / sqrt(sum / n + 1e-5);
}

enum { ENCODED = 70, DIM = 36, HEADS = 6, HEAD_DIM = 6, HIDDEN = 50 };
/* One Llama-like layer without RoPE, in double precision, straight from the formulas. */
static void plain_encoder(const subject *s, double (*out)[300]) {
    static double x[ENCODED][DIM], q[ENCODED][DIM], k[ENCODED][DIM], v[ENCODED][DIM];
    double h[DIM], z[DIM], gate[HIDDEN], up[HIDDEN], block[DIM], weights[ENCODED];
    const float *table = flat_tensor(s, TRANSFORMER_EMBEDDING, 0);
    for (int t = 0; t < ENCODED; t++) {
        for (int i = 0; i < DIM; i++) x[t][i] = (double)table[prompt[t] * DIM + i];
        plain_rms(h, x[t], flat_tensor(s, TRANSFORMER_ATTN_NORM, 0), DIM);
        plain_product(q[t], flat_tensor(s, TRANSFORMER_Q, 0), h, DIM, DIM);
        plain_product(k[t], flat_tensor(s, TRANSFORMER_K, 0), h, DIM, DIM);
        plain_product(v[t], flat_tensor(s, TRANSFORMER_V, 0), h, DIM, DIM);
    }
    for (int t = 0; t < ENCODED; t++) {
        for (int head = 0; head < HEADS; head++) {
            double total = 0;
            int at = head * HEAD_DIM;
            for (int j = 0; j < ENCODED; j++) {
                double dot = 0;
                for (int i = 0; i < HEAD_DIM; i++) dot += q[t][at + i] * k[j][at + i];
                total += weights[j] = exp(dot / sqrt(HEAD_DIM));
            }
            for (int i = 0; i < HEAD_DIM; i++) {
                z[at + i] = 0;
                for (int j = 0; j < ENCODED; j++) z[at + i] += weights[j] / total * v[j][at + i];
            }
        }
        plain_product(block, flat_tensor(s, TRANSFORMER_ATTN_OUT, 0), z, DIM, DIM);
        for (int i = 0; i < DIM; i++) x[t][i] += block[i];
        plain_rms(h, x[t], flat_tensor(s, TRANSFORMER_MLP_NORM, 0), DIM);
        plain_product(gate, flat_tensor(s, TRANSFORMER_MLP_GATE, 0), h, HIDDEN, DIM);
        plain_product(up, flat_tensor(s, TRANSFORMER_MLP_UP, 0), h, HIDDEN, DIM);
        for (int i = 0; i < HIDDEN; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
        plain_product(block, flat_tensor(s, TRANSFORMER_MLP_DOWN, 0), up, DIM, HIDDEN);
        for (int i = 0; i < DIM; i++) x[t][i] += block[i];
        plain_rms(h, x[t], flat_tensor(s, TRANSFORMER_FINAL_NORM, 0), DIM);
        plain_product(out[t], flat_tensor(s, TRANSFORMER_HEAD, 0), h, 300, DIM);
    }
}

/* Largest difference; infinite if a number is none. */
static double row_error(const double *want, const float *have, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double error = fabs(want[i] - (double)have[i]);
        if (!(error < 1e30)) return 1e30;
        if (error > worst) worst = error;
    }
    return worst;
}

static void test_encoder(void) {
    static double want[ENCODED][300];
    double worst = 0;
    for (int i = 0; i < n_isas; i++) {
        subject s;
        transformer_error error;
        memset(&s, 0, sizeof s), memset(&error, 0, sizeof error);
        shape_llama(&s.config);
        s.config.n_layers = 1, s.config.n_kv_heads = 0, s.config.rope[0].dims = 0;
        s.config.causal = 0, s.options.isa = isas[i];
        s.flat = model_weights(&s.config, TRANSFORMER_F32, 17, &s.flat_size);
        s.model = transformer_model_new(&s.config, &s.options, &error);
        CHECK(s.model &&
              !transformer_bind_flat(s.model, s.flat, s.flat_size, TRANSFORMER_F32, &error));
        model_tokens(prompt, N, 300, 1);
        plain_encoder(&s, want);
        transformer_state *state = subject_state(&s);
        transformer_workspace *work = subject_workspace(&s, ENCODED, 1, NULL, NULL);
        transformer_sequence q = make_sequence(state, prompt, ENCODED, expected);
        CHECK(run_one(&s, work, &q, NULL, 0, NULL) == TRANSFORMER_OK);
        for (int t = 0; t < ENCODED; t++)
            worst = fmax(worst, row_error(want[t], expected + t * 300, 300));
        /* one call only, at position 0, in one pass */
        CHECK(transformer_forward(s.model, work, state, prompt, 1, logits) == TRANSFORMER_ARGUMENT);
        CHECK(!transformer_state_rewind(state, 0));
        CHECK(transformer_forward(s.model, work, state, prompt, ENCODED + 1, logits) ==
              TRANSFORMER_ARGUMENT);
        /* with threads and two others: the same bits; another last token: other first logits */
        transformer_state *others[2] = {subject_state(&s), subject_state(&s)};
        way w = {0, 3, HOOK_REVERSED, 0, 1, 0, 0, 0};
        transformer_workspace *threaded = subject_workspace(&s, 90, 3, run_reversed, NULL);
        CHECK(!run_chunk(&s, &w, threaded, state, others, prompt, ENCODED, logits, NULL));
        CHECK(!memcmp(expected, logits, logits_bytes(&s, ENCODED)));
        prompt[ENCODED - 1] = (prompt[ENCODED - 1] + 1) % 300;
        CHECK(!transformer_state_rewind(state, 0));
        q.logits = logits;
        CHECK(run_one(&s, work, &q, NULL, 0, NULL) == TRANSFORMER_OK);
        CHECK(memcmp(expected, logits, 300 * sizeof(float)));
        transformer_free(state), transformer_free(others[0]), transformer_free(others[1]);
        transformer_free(work), transformer_free(threaded), subject_free(&s);
    }
    CHECK(worst < 2e-5);
    GROUP("causal = 0: every position sees the whole call; largest error %.1e", worst);
}

/* ---- pages that may not be touched ---- */

#if TEST_POSIX
typedef struct guarded {
    unsigned char *map;
    size_t size;
} guarded;
enum { MAX_GUARDED = 400 };
static guarded guards[MAX_GUARDED];
static int n_guards;

/* n bytes between two pages that fault: ending at the second (at_end; n rounded up to the
 * alignment), or starting after the first. */
static void *guard(size_t n, size_t alignment, int at_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner;
    n = (n + alignment - 1) / alignment * alignment;
    inner = (n + page - 1) / page * page;
    void *map = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(map != MAP_FAILED && n_guards < MAX_GUARDED);
    guards[n_guards].map = (unsigned char *)map, guards[n_guards++].size = inner + 2 * page;
    CHECK(!mprotect((unsigned char *)map + page, inner, PROT_READ | PROT_WRITE));
    memset((unsigned char *)map + page, 0xff, inner);
    return (unsigned char *)map + page + (at_end ? inner - n : 0);
}
static void release_guards(void) {
    while (n_guards) n_guards--, munmap(guards[n_guards].map, guards[n_guards].size);
}

/* Binds every tensor at a place of its own, aligned to no more than its elements. */
static transformer_model *guarded_model(const subject *s, int at_end) {
    transformer_error error;
    transformer_model *m = NULL;
    size_t size = transformer_model_size(&s->config), offset;
    CHECK(!transformer_model_init(guard(size, 64, at_end), size, &s->config, &s->options, &m,
                                  &error));
    for (int l = 0; l < tfi_max(1, s->config.n_layers); l++)
        for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
            transformer_tensor t;
            if (!transformer_tensor_shape(&s->config, role, l, &t.rows, &t.cols)) continue;
            CHECK(transformer_flat_offset(&s->config, s->dtype, role, l, &offset));
            t.dtype = tfi_roles[role].kind == TFI_MATRIX ? s->dtype : TRANSFORMER_F32;
            size_t element = transformer_dtype_size(t.dtype);
            size_t bytes = element * (size_t)t.rows * (size_t)t.cols;
            void *data = guard(bytes, element, at_end);
            memcpy(data, (const unsigned char *)s->flat + offset, bytes);
            t.data = data;
            CHECK(!transformer_bind(m, role, l, &t, &error));
        }
    CHECK(!transformer_model_ready(m, &error));
    return m;
}

static void test_guarded(int shape, const char *isa, const variant *kind, int at_end) {
    subject s, g;
    transformer_error error;
    transformer_options o;
    transformer_state *state;
    transformer_workspace *work;
    transformer_tap tap;
    double sum = 0;
    int n = shape == SHAPE_WIDE ? 19 : tfi_min(83, N);
    if (!subject_make(&s, shape, kind->dtype, 18, isa, kind->full_precision, kind->kv_dtype))
        return;
    run_plainly(&s, n, expected);
    g = s, g.model = guarded_model(&s, at_end);
    o = s.options, o.batch = 13, o.n_threads = 2, o.parallel = run_reversed;
    size_t state_size = transformer_state_size(g.model, &o);
    size_t work_size = transformer_workspace_size(g.model, &o);
    size_t row = (size_t)s.config.vocab_size * sizeof(float);
    size_t scratch = 2 * (size_t)tfi_max(8, s.config.n_heads) * MODEL_CONTEXT * sizeof(float);
    void *own_state = guard(state_size, 64, at_end), *own_work = guard(work_size, 64, at_end);
    int32_t *tokens = (int32_t *)guard((size_t)n * sizeof(int32_t), 4, at_end);
    float *out = (float *)guard((size_t)n * row, 4, at_end);
    memcpy(tokens, prompt, (size_t)n * sizeof(int32_t));
    memset(&tap, 0, sizeof tap);
    tap.sites = ALL_SITES, tap.function = peek, tap.user = &sum;
    tap.scratch = (float *)guard(scratch, 4, at_end), tap.scratch_size = scratch;
    for (int i = 0; i < 4; i++) { /* all at once; by 16 with and without taps; one by one */
        int chunk = i == 0 ? n : i == 3 ? 1 : MODEL_UNDO;
        CHECK(!transformer_state_init(own_state, state_size, g.model, &o, &state, &error));
        CHECK(!transformer_workspace_init(own_work, work_size, g.model, &o, &work, &error));
        memset(out, 0x55, (size_t)n * row);
        for (int t = 0; t < n; t += chunk) {
            transformer_sequence q = make_sequence(state, tokens + t, tfi_min(chunk, n - t),
                                                   out + (size_t)t * (row / sizeof(float)));
            CHECK(!run_one(&g, work, &q, i == 2 ? &tap : NULL, 0, NULL));
        }
        CHECK(!memcmp(out, expected, (size_t)n * row));
    }
    release_guards(), subject_free(&s);
}
static void test_guard_pages(void) {
    int runs = 0;
    for (int shape = 0; shape < SHAPE_HUGE; shape++)
        for (int i = 0; i < n_isas; i++)
            for (int v = 0; v < N_VARIANTS - 1; v++)
                for (int at_end = 0; at_end < 2; at_end++) {
                    if (!at_end && (shape + i + v) % 3) continue;
                    test_guarded(shape, isas[i], &variants[v], at_end), runs++;
                }
    GROUP("guard pages around every tensor, state, workspace, tokens, logits: %d models", runs);
}
#endif

int main(int argc, char **argv) {
    brief = argc > 1, (void)argv;
    n_isas = model_isas(isas, MAX_ISAS);
#if TEST_POSIX
    pool_start(&pool);
#endif
#ifdef TFI_YIELD
    test_waiting();
#else
    SKIP("threads that wait: no OpenMP here");
#endif
    test_last_logits();
    test_logprobs();
    test_embeddings();
    test_pauses();
    test_no_allocation();
    test_failures();
    for (int i = 0; i < N_PLAIN_SHAPES; i++)
        for (int kv_dtype = 0; kv_dtype < 2; kv_dtype++)
            test_save_fork_restore(plain_shapes[i], kv_dtype);
    GROUP("states saved, forked and restored go on with the same bits; unused memory may be NaN");
    for (int i = 0; i < N_PLAIN_SHAPES; i++)
        for (int kv_dtype = 0; kv_dtype < 2; kv_dtype++)
            if (!brief || (i % 3 == 2 && kv_dtype == i / 3 % 2))
                test_rewind(plain_shapes[i], kv_dtype);
    GROUP("rewind: within undo the same bits, beyond it refused");
    test_restore_refuses();
    for (int shape = brief ? 9 : 0; shape < SHAPE_WIDE; shape += brief ? 6 : 1) test_taps(shape);
    test_ablation();
    test_encoder();
#if TEST_POSIX
    test_many_states();
    if (!brief) test_guard_pages();
#else
    SKIP("many states, guard pages: no POSIX threads and mmap here");
#endif
    test_same_bits();
    test_same_bits_blocks();
    if (!brief) {
        test_all_combinations(SHAPE_WINDOW, &variants[0], N);
        test_all_combinations(SHAPE_GPT2, &variants[2], N);
        test_all_combinations(SHAPE_WIDE, &variants[1], 20);
        test_threads_ran();
    }
#if TEST_POSIX
    pool_stop(&pool);
#endif
    return test_finish();
}
