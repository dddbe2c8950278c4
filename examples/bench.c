/* bench.c - how fast a model runs, and how near that is to what this machine can do.
 *
 *     cc -O2 -fopenmp examples/bench.c -o build/bench -lm
 *     build/bench --shape llama-3.2-1b --dtype bf16 --threads 2
 *
 * Prefill (many tokens in one call) is limited by arithmetic, decode (one token per call) by
 * reading every weight from memory.  Both limits are measured before and after each repeat, with
 * the same number of threads, and a repeat's share of a limit is its share of these two
 * measurements: other programs slow down both sides of the ratio.
 */
#include "common.h"
#include <ctype.h>
#define TRANSFORMER_IMPLEMENTATION
#include "../transformer.h"
#define MODEL_FILE_IMPLEMENTATION
#include "model_file.h"

#ifndef _WIN32
#include <sys/resource.h>
#endif

static const char usage[] =
    "usage: bench MODEL [options]\n"
    "       bench --shape NAME [--dtype f32|f16|bf16|q8_0|q4_k|...] [options]     (random "
    "weights)\n"
    "  shapes: gpt2-124m llama-3.2-1b qwen2.5-0.5b stories15m stories110m\n"
    "  -p TOKENS          prefill this many tokens (default 512)\n"
    "  -n TOKENS          decode this many tokens (default 128)\n"
    "  -d DEPTH           with so many tokens in the cache (default 0)\n"
    "  --batch B          B sequences in one pass (default 1)\n"
    "  -r REPEATS         (default 5)\n"
    "  --json             one JSON object in place of the table\n"
    "  --profile          also where the time of a pass goes, step by step\n"
    "  --accuracy         also how far the logits are from those of --full-precision\n"
    "  --threads N        threads (with OpenMP)\n"
    "  --isa NAME         use no better instruction set than this (scalar, avx2, ...)\n"
    "  --kv f32|f16       type of the KV cache\n"
    "  --full-precision   float32 activations in every matrix product\n";

enum { MAX_REPEATS = 1000 };

typedef struct arguments {
    const char *model, *shape;
    int dtype; /* of a shape's matrices */
    int prefill, decode, depth, batch, repeats, json, profile, accuracy;
    transformer_options options;
} arguments;

/* The steps of a pass, as --profile tells them apart. */
enum { NORMS, QKV, ROPE, ATTENTION, ATTN_OUT, MLP_UP, MLP_DOWN, PACKING, HEAD, OTHER, N_STEPS };

/* What is measured. */
typedef struct subject {
    model_file *file;         /* NULL for a shape */
    void *weights;            /* a shape's, to be freed */
    unsigned char *flat;      /* they begin here */
    int dtype;                /* of the matrices */
    double weight_bytes;      /* that one pass over the model reads */
    double step_ops[N_STEPS]; /* of matrix products, per token (HEAD: per token with logits) */
    double step_bytes[N_STEPS];
    transformer_model *model;
    transformer_workspace *work;
    transformer_sequence *sequences; /* [batch] */
    int32_t *tokens;
} subject;

/* One number per measurement; sorted when all are there. */
typedef struct series {
    int n;
    double at[2 * MAX_REPEATS + 1];
} series;

/* What came out of one kind of pass, a number per repeat. */
typedef struct speeds {
    series tokens;                     /* per second */
    series bandwidth_share, ops_share; /* of the limits before and after the repeat */
    double bytes_per_token, ops_per_token;
} speeds;

typedef struct results {
    speeds prefill, decode;
    series bandwidth;  /* bytes per second: before each pass, and after the last */
    series arithmetic; /* float32 or BF16 operations per second, as the model's row computes */
    double peak_memory;
    double nmse, divergence; /* from full precision, with --accuracy */
} results;

/* ---- arguments ---- */

static int same_letters(const char *a, const char *b) {
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b)) a++, b++;
    return *a == *b;
}

static int parse_dtype(const char *name) {
    for (int dtype = 0; dtype < 64; dtype++)
        if (transformer_dtype_size(dtype) && same_letters(name, transformer_dtype_name(dtype)))
            return dtype;
    die("--dtype: '%s' is no type of weights", name);
}

/* -p and the like, whose value is a number. */
static int is_number_option(int argc, char **argv, int *i, arguments *a) {
    static const char *const names[] = {"-p", "-n", "-d", "--batch", "-r"};
    int *const numbers[] = {&a->prefill, &a->decode, &a->depth, &a->batch, &a->repeats};
    for (int k = 0; k < 5; k++)
        if (is_option(argv, i, names[k])) {
            int least = numbers[k] == &a->depth ? 0 : 1;
            *numbers[k] = parse_int(names[k], option_value(argc, argv, i), least, 1 << 24);
            return 1;
        }
    return 0;
}

static void parse_arguments(int argc, char **argv, arguments *a) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (is_number_option(argc, argv, &i, a)) continue;
        if (is_option(argv, &i, "--shape")) a->shape = option_value(argc, argv, &i);
        else if (is_option(argv, &i, "--dtype"))
            a->dtype = parse_dtype(option_value(argc, argv, &i));
        else if (is_option(argv, &i, "--json")) a->json = 1;
        else if (is_option(argv, &i, "--profile")) a->profile = 1;
        else if (is_option(argv, &i, "--accuracy")) a->accuracy = 1;
        else if (name[0] != '-' && a->model == NULL) a->model = name;
        else if (!library_option(argc, argv, &i, &a->options)) die("unknown argument '%s'", name);
    }
    if (a->repeats > MAX_REPEATS) die("-r: at most %d", MAX_REPEATS);
    if (a->profile && a->json) die("--profile has no JSON form");
#ifndef _OPENMP
    if (a->options.n_threads > 1)
        die("--threads: this program was compiled without OpenMP (-fopenmp)");
#endif
}

/* ---- the probes ---- */

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define BENCH_X86 1
#include <immintrin.h>
#define BENCH_TARGET(features) __attribute__((target(features)))
#else
#define BENCH_X86 0
#endif
#if defined(__ARM_NEON) && defined(__aarch64__)
#define BENCH_NEON 1
#include <arm_neon.h>
#else
#define BENCH_NEON 0
#endif

/* The probe of bandwidth: sums memory, in four streams at once because the caches' prefetchers
 * follow several.  The result depends on every stream, or the compiler would leave some out.
 * LANES is a register of the widest kind. */
#if defined(__GNUC__) || defined(__clang__)
typedef uint64_t lanes16 __attribute__((vector_size(16)));
#define FIRST_LANE(x) ((x)[0])
#else
typedef uint64_t lanes16;
#define FIRST_LANE(x) (x)
#endif
#define SUM_STREAMS(LANES)                                                                         \
    size_t part = size / sizeof(LANES) / 4;                                                        \
    const LANES *p = (const LANES *)memory, *q = p + part, *r = q + part, *s = r + part;           \
    LANES a = *p, b = a, c = a, d = a;                                                             \
    for (size_t i = 0; i < part; i++) {                                                            \
        a += p[i];                                                                                 \
        b += q[i];                                                                                 \
        c += r[i];                                                                                 \
        d += s[i];                                                                                 \
    }                                                                                              \
    a = (a + b) + (c + d);                                                                         \
    return FIRST_LANE(a);

static uint64_t read_portable(const void *memory, size_t size) { SUM_STREAMS(lanes16) }

#if BENCH_X86
typedef uint64_t lanes32 __attribute__((vector_size(32)));
BENCH_TARGET("avx2") static uint64_t read_avx2(const void *memory, size_t size) {
    SUM_STREAMS(lanes32)
}

typedef uint64_t lanes64 __attribute__((vector_size(64)));
BENCH_TARGET("avx512f") static uint64_t read_avx512(const void *memory, size_t size) {
    SUM_STREAMS(lanes64)
}
#endif

/* The probe of arithmetic: twelve independent chains of multiply-add in registers, enough to hide
 * their latency.  Each begins with another number, or the compiler would see that they are equal
 * and compute one.  SET, FMA and ADD say on which registers; FACTOR is the type of x and y. */
#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define CHAIN_BEGIN(i) a##i = SET(i);
#define CHAIN_STEP(i) a##i = FMA(x, y, a##i);
#define CHAIN_SUM(i) sum = ADD(sum, a##i);
#define RUN_CHAINS(VECTOR, FACTOR, X)                                                              \
    FACTOR x = X, y = x;                                                                           \
    VECTOR a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, sum = SET(0);                         \
    CHAINS(CHAIN_BEGIN)                                                                            \
    for (int i = 0; i < n; i++) {                                                                  \
        CHAINS(CHAIN_STEP)                                                                         \
    }                                                                                              \
    CHAINS(CHAIN_SUM)

typedef float fma_probe(int n, float seed);

#define SET(i) ((float)(i))
#define FMA(x, y, a) ((a) * (x) + (y))
#define ADD(a, b) ((a) + (b))
static float fma_scalar(int n, float seed) {
    RUN_CHAINS(float, float, seed)
    return sum;
}
#undef SET
#undef FMA
#undef ADD

#if BENCH_NEON
#define SET(i) vdupq_n_f32((float)(i))
#define FMA(x, y, a) vfmaq_f32(a, x, y)
#define ADD(a, b) vaddq_f32(a, b)
static float fma_neon(int n, float seed) {
    RUN_CHAINS(float32x4_t, float32x4_t, vdupq_n_f32(seed))
    return vgetq_lane_f32(sum, 0);
}
#endif

#if BENCH_X86
#define SET(i) _mm256_set1_ps((float)(i))
#define FMA(x, y, a) _mm256_fmadd_ps(x, y, a)
#define ADD(a, b) _mm256_add_ps(a, b)
BENCH_TARGET("avx2,fma") static float fma_avx2(int n, float seed) {
    RUN_CHAINS(__m256, __m256, _mm256_set1_ps(seed))
    return _mm256_cvtss_f32(sum);
}
#undef SET
#undef FMA
#undef ADD

#define SET(i) _mm512_set1_ps((float)(i))
#define FMA(x, y, a) _mm512_fmadd_ps(x, y, a)
#define ADD(a, b) _mm512_add_ps(a, b)
BENCH_TARGET("avx512f") static float fma_avx512(int n, float seed) {
    RUN_CHAINS(__m512, __m512, _mm512_set1_ps(seed))
    return _mm512_cvtss_f32(sum);
}

/* _mm512_dpbf16_ps: two products of BF16 numbers added to each float32 */
#undef FMA
#define FMA(x, y, a) _mm512_dpbf16_ps(a, x, y)
BENCH_TARGET("avx512f,avx512bw,avx512vl,avx512bf16") static float fma_bf16(int n, float seed) {
    RUN_CHAINS(__m512, __m512bh, _mm512_cvtne2ps_pbh(SET(seed), SET(seed)))
    return _mm512_cvtss_f32(sum);
}
#endif

/* The best of this machine: the function, and its operations per multiply-add of one chain. */
static fma_probe *choose_fma(int bf16, int *ops) {
#if BENCH_X86
    if (bf16 && __builtin_cpu_supports("avx512bf16")) return *ops = 64, fma_bf16;
    if (__builtin_cpu_supports("avx512f")) return *ops = 32, fma_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return *ops = 16, fma_avx2;
#elif BENCH_NEON
    (void)bf16, (void)fma_scalar;
    return *ops = 8, fma_neon;
#endif
    (void)bf16;
    return *ops = 2, fma_scalar;
}

static uint64_t read_memory(const void *memory, size_t size) {
#if BENCH_X86
    if (__builtin_cpu_supports("avx512f")) return read_avx512(memory, size);
    if (__builtin_cpu_supports("avx2")) return read_avx2(memory, size);
#endif
    return read_portable(memory, size);
}

/* Larger than the caches of most machines. */
#define PROBE_BYTES ((size_t)512 << 20)

static volatile uint64_t probe_sink; /* keeps the probes' results from being optimised away */

/* Bytes per second. */
static double probe_bandwidth(const char *buffer, int n_threads) {
    size_t part = PROBE_BYTES / (size_t)n_threads / 256 * 256; /* whole registers, four streams */
    uint64_t sum = 0;
    double start = seconds();
#ifdef _OPENMP
#pragma omp parallel for num_threads(n_threads) schedule(static, 1) reduction(+ : sum)
#endif
    for (int i = 0; i < n_threads; i++) sum += read_memory(buffer + part * (size_t)i, part);
    probe_sink = sum;
    return (double)part * n_threads / (seconds() - start);
}

/* Operations per second. */
static double probe_arithmetic(int bf16, int n_threads) {
    int ops, steps = 20000000;
    fma_probe *probe = choose_fma(bf16, &ops);
    float sum = 0, seed = probe_sink == 1 ? 0.5f : 0.25f; /* not a constant */
    double start = seconds();
#ifdef _OPENMP
#pragma omp parallel for num_threads(n_threads) schedule(static, 1) reduction(+ : sum)
#endif
    for (int i = 0; i < n_threads; i++) sum += probe(steps, seed);
    probe_sink = sum > 1;
    return 12.0 * ops * steps * n_threads / (seconds() - start);
}

/* ---- shapes with random weights ---- */

typedef struct shape {
    const char *name;
    int gpt2; /* 1 = GPT-2's block, 0 = Llama's */
    int dim, n_layers, n_heads, n_kv_heads, head_dim, mlp_dim, vocab_size, context;
    int biases;
    int pairing; /* of RoPE */
    double theta;
} shape;

static const shape shapes[] = {
    {"gpt2-124m", 1, 768, 12, 12, 12, 64, 3072, 50257, 1024,
     TRANSFORMER_BIAS_Q | TRANSFORMER_BIAS_K | TRANSFORMER_BIAS_V | TRANSFORMER_BIAS_ATTN_OUT |
         TRANSFORMER_BIAS_MLP_UP | TRANSFORMER_BIAS_MLP_DOWN,
     0, 0},
    {"llama-3.2-1b", 0, 2048, 16, 32, 8, 64, 8192, 128256, 131072, 0, TRANSFORMER_ROPE_HALF, 5e5},
    {"qwen2.5-0.5b", 0, 896, 24, 14, 2, 64, 4864, 151936, 32768,
     TRANSFORMER_BIAS_Q | TRANSFORMER_BIAS_K | TRANSFORMER_BIAS_V, TRANSFORMER_ROPE_HALF, 1e6},
    {"stories15m", 0, 288, 6, 6, 6, 48, 768, 32000, 256, 0, TRANSFORMER_ROPE_INTERLEAVED, 1e4},
    {"stories110m", 0, 768, 12, 12, 12, 64, 2048, 32000, 1024, 0, TRANSFORMER_ROPE_INTERLEAVED,
     1e4},
};

static void describe(transformer_config *config, const char *name, int context) {
    const shape *s = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].name, name) == 0) s = &shapes[i];
    if (s == NULL)
        die("--shape: '%s' is none of gpt2-124m, llama-3.2-1b, qwen2.5-0.5b, stories15m, "
            "stories110m",
            name);
    transformer_config_defaults(config);
    config->dim = s->dim;
    config->n_layers = s->n_layers;
    config->n_heads = s->n_heads;
    config->n_kv_heads = s->n_kv_heads;
    config->head_dim = s->head_dim;
    config->mlp_dim = s->mlp_dim;
    config->vocab_size = s->vocab_size;
    config->context = context > s->context ? context : s->context;
    config->biases = s->biases;
    config->tied = 1;
    if (s->gpt2) {
        config->norm = TRANSFORMER_NORM_LAYER;
        config->norm_bias = 1;
        config->position = TRANSFORMER_POSITION_LEARNED;
        config->rope[0].dims = 0;
        config->activation = TRANSFORMER_GELU_TANH;
        config->gated = 0;
    } else {
        config->rope[0].dims = s->head_dim;
        config->rope[0].pairing = s->pairing;
        config->rope[0].theta = s->theta;
    }
}

/* splitmix64 (Steele, Lea & Flood 2014): any element of the sequence without those before it. */
static uint64_t random_bits(uint64_t i) {
    uint64_t z = i * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Random numbers of both signs between 2^-7 and 2^-5 in size, made of random bits without any
 * conversion: the sign, the lowest bit of the exponent and the mantissa are random, the rest of
 * the exponent is fixed.  Quantised blocks get such halves between 2^-13 and 2^-11, which are their
 * scales (MXFP4's are bytes: 2^-15 .. 2^-8): weights as small as a trained model's, or activations
 * would come out that no model has, and denormals, which take longer.  n = words of 64 bits. */
static void fill_random(uint64_t *out, size_t n, int dtype, uint64_t seed) {
    uint64_t random = dtype == TRANSFORMER_F32     ? 0x80FFFFFF80FFFFFFu
                      : dtype == TRANSFORMER_BF16  ? 0x80FF80FF80FF80FFu
                      : dtype == TRANSFORMER_MXFP4 ? 0x0707070707070707u
                                                   : 0x87FF87FF87FF87FFu;
    uint64_t fixed = dtype == TRANSFORMER_F32     ? 0x3C0000003C000000u
                     : dtype == TRANSFORMER_BF16  ? 0x3C003C003C003C00u
                     : dtype == TRANSFORMER_MXFP4 ? 0x7070707070707070u
                     : dtype == TRANSFORMER_F16   ? 0x2000200020002000u
                                                  : 0x0800080008000800u;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
    for (long long i = 0; i < (long long)n; i++)
        out[i] = (random_bits(seed + (uint64_t)i) & random) | fixed;
}

/* Is it a norm's weight?  Those are 1, other vectors (biases) 0. */
static int is_norm_weight(int role) {
    return role == TRANSFORMER_ATTN_NORM || role == TRANSFORMER_MLP_NORM ||
           role == TRANSFORMER_FINAL_NORM;
}

/* Roles that every layer has, and those the model has once (layer 0). */
static int role_layers(const transformer_config *config, int role) {
    int per_layer = role >= TRANSFORMER_ATTN_NORM && role <= TRANSFORMER_MLP_POST_NORM_BIAS;
    return per_layer ? config->n_layers : 1;
}

static void fill_weights(unsigned char *weights, const transformer_config *config, int dtype) {
    for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
        for (int layer = 0; layer < role_layers(config, role); layer++) {
            int rows, cols;
            size_t offset;
            if (!transformer_tensor_shape(config, role, layer, &rows, &cols) ||
                !transformer_flat_offset(config, dtype, role, layer, &offset))
                continue;
            if (rows > 1) { /* tensors begin at multiples of 64 bytes: rounding up is safe */
                size_t bytes = (size_t)rows * transformer_row_size(dtype, cols);
                fill_random((uint64_t *)(void *)(weights + offset), (bytes + 7) / 8, dtype, offset);
                continue;
            }
            for (int i = 0; i < cols; i++)
                ((float *)(void *)(weights + offset))[i] = is_norm_weight(role) ? 1.0f : 0.0f;
        }
    }
}

static void make_random_model(subject *s, const arguments *a, int context) {
    static transformer_config config;
    transformer_error error;
    describe(&config, a->shape, context);
    size_t size = transformer_flat_size(&config, a->dtype);
    s->dtype = a->dtype;
    s->model = transformer_model_new(&config, &a->options, &error);
    if (s->model == NULL) die("%s: %s", a->shape, error.text);
    s->weights = allocate(size + 128, 1);
    s->flat = (unsigned char *)s->weights + (64 - (uintptr_t)s->weights % 64) % 64;
    fill_weights(s->flat, &config, a->dtype);
    if (transformer_bind_flat(s->model, s->flat, size, a->dtype, &error) != TRANSFORMER_OK)
        die("%s: %s", a->shape, error.text);
}

/* ---- what a pass costs ---- */

static int step_of_role(int role) {
    switch (role) {
    case TRANSFORMER_Q:
    case TRANSFORMER_K:
    case TRANSFORMER_V: return QKV;
    case TRANSFORMER_ATTN_OUT: return ATTN_OUT;
    case TRANSFORMER_MLP_GATE:
    case TRANSFORMER_MLP_UP: return MLP_UP;
    case TRANSFORMER_MLP_DOWN: return MLP_DOWN;
    case TRANSFORMER_EMBEDDING:
    case TRANSFORMER_HEAD: return HEAD;
    default: return OTHER;
    }
}

static void count_weights(subject *s, const arguments *a) {
    const transformer_config *config = transformer_model_config(s->model);
    int head = config->tied ? TRANSFORMER_EMBEDDING : TRANSFORMER_HEAD;
    for (int role = 0; role < TRANSFORMER_N_ROLES; role++) {
        for (int layer = 0; layer < role_layers(config, role); layer++) {
            int rows, cols;
            if (!transformer_tensor_shape(config, role, layer, &rows, &cols)) continue;
            const transformer_tensor *tensor =
                s->file ? model_file_tensor(s->file, role, layer) : NULL;
            int dtype = rows == 1 ? TRANSFORMER_F32 : tensor ? tensor->dtype : s->dtype;
            double width = (double)transformer_row_size(dtype, cols);
            if (role == TRANSFORMER_EMBEDDING || role == TRANSFORMER_POSITION_EMBEDDING)
                s->weight_bytes += a->batch * width; /* a row per token */
            if (role != head && role <= TRANSFORMER_POSITION_EMBEDDING) continue;
            s->weight_bytes += rows * width;
            if (rows == 1) continue;
            s->step_ops[step_of_role(role)] += 2.0 * rows * cols;
            s->step_bytes[step_of_role(role)] += rows * width;
        }
    }
}

/* Keys that n tokens from position `first` on see, summed over layers, times `per_key`(layer):
 * elements of the KV cache read, or multiply-adds of attention. */
static double count_attention(const transformer_config *config, int first, int n, int ops) {
    double sum = 0;
    for (int i = 0; i < config->n_layers; i++) {
        const transformer_layer *layer = &config->layers[i];
        int heads = ops ? layer->n_heads : layer->n_kv_heads;
        if (heads == 0) heads = ops ? config->n_heads : config->n_kv_heads;
        double keys = 0;
        for (int p = first; p < first + n; p++)
            keys += layer->window > 0 && layer->window < p + 1 ? layer->window : p + 1;
        if (!layer->no_attention) sum += keys * heads * (config->head_dim + config->value_dim);
    }
    return sum;
}

/* Of all matrix products but the head's. */
static double layer_ops(const subject *s) {
    double sum = 0;
    for (int i = 0; i < N_STEPS; i++) sum += i == HEAD ? 0 : s->step_ops[i];
    return sum;
}

static double prefill_ops(const subject *s, const arguments *a) {
    const transformer_config *config = transformer_model_config(s->model);
    double attention = 2 * count_attention(config, a->depth, a->prefill, 1);
    return a->batch * (a->prefill * layer_ops(s) + s->step_ops[HEAD] + attention);
}

static double decode_ops(const subject *s, const arguments *a) {
    const transformer_config *config = transformer_model_config(s->model);
    double attention = 2 * count_attention(config, a->depth, a->decode, 1);
    return a->batch * (a->decode * (layer_ops(s) + s->step_ops[HEAD]) + attention);
}

static double decode_bytes(const subject *s, const arguments *a) {
    const transformer_config *config = transformer_model_config(s->model);
    double cache = count_attention(config, a->depth, a->decode, 0);
    return a->decode * s->weight_bytes +
           a->batch * cache * (double)transformer_dtype_size(a->options.kv_dtype);
}

/* ---- measuring ---- */

/* Random tokens, a state per sequence, room for the logits. */
static void set_up(subject *s, const arguments *a) {
    int most = a->prefill > a->decode ? a->prefill : a->decode;
    transformer_options options = a->options;
    options.context = a->depth + most;
    options.undo = most > 512 ? most : 0;
    if (a->shape) make_random_model(s, a, options.context);
    else s->model = load_model(a->model, &options, &s->file);
    for (int role = 0; s->file && role < TRANSFORMER_N_ROLES; role++) {
        const transformer_tensor *tensor = model_file_tensor(s->file, role, 0);
        if (tensor && tensor->rows > 1) s->dtype = tensor->dtype;
    }
    count_weights(s, a);

    int vocab_size = transformer_model_config(s->model)->vocab_size;
    int n = a->depth > most ? a->depth : most;
    s->tokens = (int32_t *)allocate((size_t)n, sizeof *s->tokens);
    for (int i = 0; i < n; i++)
        s->tokens[i] = (int32_t)(random_bits((uint64_t)i) % (uint64_t)vocab_size);
    s->work = new_workspace(s->model, &options);
    s->sequences = (transformer_sequence *)allocate((size_t)a->batch, sizeof(transformer_sequence));
    memset(s->sequences, 0, (size_t)a->batch * sizeof(transformer_sequence));
    for (int i = 0; i < a->batch; i++) {
        s->sequences[i].state = new_state(s->model, &options);
        s->sequences[i].logits = (float *)allocate((size_t)vocab_size, sizeof(float));
    }
}

static void tear_down(subject *s, const arguments *a) {
    for (int i = 0; i < a->batch; i++) {
        transformer_free(s->sequences[i].state);
        free(s->sequences[i].logits);
    }
    free(s->sequences);
    free(s->tokens);
    transformer_free(s->work);
    transformer_free(s->model);
    model_file_close(s->file);
    free(s->weights);
}

/* n tokens to each sequence from position `from` on, per_call at a time.  Returns seconds. */
static double run_tokens(const subject *s, const arguments *a, int from, int n, int per_call) {
    transformer_error error;
    transformer_call call = {0};
    call.sequences = s->sequences;
    call.n_sequences = a->batch;
    for (int i = 0; i < a->batch; i++)
        if (transformer_state_rewind(s->sequences[i].state, from) != TRANSFORMER_OK)
            die("cannot rewind to position %d", from);
    double start = seconds();
    for (int at = 0; at < n; at += per_call) {
        for (int i = 0; i < a->batch; i++) {
            s->sequences[i].tokens = s->tokens + at;
            s->sequences[i].n = per_call;
        }
        if (transformer_run(s->model, s->work, &call, &error) != TRANSFORMER_OK)
            die("%s", error.text);
    }
    return seconds() - start;
}

static double peak_memory(void) {
#ifdef _WIN32
    return 0;
#else
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
#ifdef __APPLE__
    return (double)used.ru_maxrss;
#else
    return 1024.0 * (double)used.ru_maxrss;
#endif
#endif
}

static void add(series *s, double value) { s->at[s->n++] = value; }

/* The mean of the last two. */
static double recent(const series *s) { return (s->at[s->n - 2] + s->at[s->n - 1]) / 2; }

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort(series *s) { qsort(s->at, (size_t)s->n, sizeof(double), compare_doubles); }

static double median(const series *sorted) {
    return (sorted->at[(sorted->n - 1) / 2] + sorted->at[sorted->n / 2]) / 2;
}

/* Where the probes run. */
typedef struct bench_probes {
    void *memory;
    const char *buffer; /* aligned */
    int bf16, n_threads;
} bench_probes;

static bench_probes new_probes(const subject *s, const arguments *a) {
    bench_probes p;
    p.n_threads = a->options.n_threads > 1 ? a->options.n_threads : 1;
    p.bf16 = s->dtype == TRANSFORMER_BF16 && !a->options.full_precision &&
             strcmp(transformer_isa(s->model), "avx512bf16") == 0;
    p.memory = allocate(PROBE_BYTES + 64, 1);
    memset(p.memory, 1, PROBE_BYTES + 64);
    p.buffer = (const char *)p.memory + (64 - (uintptr_t)p.memory % 64) % 64;
    return p;
}

/* Some times each, in turn: a machine with neighbours changes its speed within moments. */
static void run_probes(const bench_probes *p, results *r) {
    enum { TIMES = 5 };
    double bandwidth = 0, arithmetic = 0;
    for (int i = 0; i < TIMES; i++) {
        bandwidth += probe_bandwidth(p->buffer, p->n_threads) / TIMES;
        arithmetic += probe_arithmetic(p->bf16, p->n_threads) / TIMES;
    }
    add(&r->bandwidth, bandwidth);
    add(&r->arithmetic, arithmetic);
}

/* n tokens, per_call at a time, and the limits after them; those before them are known. */
static void measure_pass(const subject *s, const arguments *a, const bench_probes *p, results *r,
                         speeds *v, int n, int per_call) {
    double tokens = a->batch * n / run_tokens(s, a, a->depth, n, per_call);
    run_probes(p, r);
    add(&v->tokens, tokens);
    add(&v->bandwidth_share, tokens * v->bytes_per_token / recent(&r->bandwidth));
    add(&v->ops_share, tokens * v->ops_per_token / recent(&r->arithmetic));
}

static void measure(const subject *s, const arguments *a, results *r) {
    bench_probes p = new_probes(s, a);
    r->prefill.ops_per_token = prefill_ops(s, a) / a->batch / a->prefill;
    r->decode.ops_per_token = decode_ops(s, a) / a->batch / a->decode;
    r->decode.bytes_per_token = decode_bytes(s, a) / a->batch / a->decode;

    if (a->depth > 0) run_tokens(s, a, 0, a->depth, a->depth);
    run_tokens(s, a, a->depth, a->prefill, a->prefill); /* warm-up */
    run_tokens(s, a, a->depth, a->decode < 4 ? a->decode : 4, 1);
    run_probes(&p, r);
    for (int i = 0; i < a->repeats; i++) {
        measure_pass(s, a, &p, r, &r->prefill, a->prefill, a->prefill);
        measure_pass(s, a, &p, r, &r->decode, a->decode, 1);
    }
    r->peak_memory = peak_memory() - (double)PROBE_BYTES; /* the buffer is no part of it */
    free(p.memory);

    series *all[] = {&r->prefill.tokens,
                     &r->prefill.bandwidth_share,
                     &r->prefill.ops_share,
                     &r->decode.tokens,
                     &r->decode.bandwidth_share,
                     &r->decode.ops_share,
                     &r->bandwidth,
                     &r->arithmetic};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) sort(all[i]);
}

/* ---- the report ---- */

static double spread(const series *s) { return (s->at[s->n - 1] - s->at[0]) / 2 / median(s); }

static void print_row(const char *name, int tokens, const speeds *v) {
    double middle = median(&v->tokens);
    char label[32];
    snprintf(label, sizeof label, "%s %d", name, tokens);
    printf("%-14s %10.1f  +-%4.1f %%", label, middle, 100 * spread(&v->tokens));
    if (v->bytes_per_token > 0)
        printf(" %10.2f %7.1f %%", v->bytes_per_token * middle / 1e9,
               100 * median(&v->bandwidth_share));
    else printf(" %10s %9s", "-", "-");
    printf(" %11.2f %7.1f %%\n", v->ops_per_token * middle / 1e9, 100 * median(&v->ops_share));
}

static void print_table(const subject *s, const arguments *a, const results *r) {
    double bandwidth = median(&r->bandwidth), arithmetic = median(&r->arithmetic);
    printf("%s   %s   %s   threads %d   batch %d   depth %d   medians of %d\n\n",
           a->shape ? a->shape : a->model, transformer_dtype_name(s->dtype),
           transformer_isa(s->model), a->options.n_threads > 1 ? a->options.n_threads : 1, a->batch,
           a->depth, a->repeats);
    printf("%-14s %10s  %8s %10s %9s %11s %9s\n", "", "tokens/s", "spread", "GB/s", "of limit",
           "Gflop/s", "of limit");
    print_row("prefill", a->prefill, &r->prefill);
    print_row("decode", a->decode, &r->decode);
    printf("%-14s %10s  %8s %10.2f %9s %11.2f\n", "limits", "", "", bandwidth / 1e9, "",
           arithmetic / 1e9);
    printf("%-14s %10s  %8s %10s +-%4.1f %% %11s +-%4.1f %%\n\n", "their spread", "", "", "",
           100 * spread(&r->bandwidth), "", 100 * spread(&r->arithmetic));
    printf("weights %.1f MB per pass, peak memory %.1f MB\n", s->weight_bytes / 1e6,
           r->peak_memory / 1e6);
    if (a->accuracy)
        printf("against full precision: NMSE %.3g, KL divergence %.3g nats a token\n", r->nmse,
               r->divergence);
    if (s->weight_bytes < (double)PROBE_BYTES && median(&r->decode.bandwidth_share) > 1)
        printf("more than the memory gives: the weights are in the caches\n");
}

static void print_json_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if ((unsigned char)*text < 32) printf("\\u%04x", (unsigned)(unsigned char)*text);
        else printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    putchar('"');
}

static void print_json_row(const char *name, int tokens, const speeds *v) {
    double middle = median(&v->tokens);
    printf(",\"%s\":{\"tokens\":%d,\"tokens_per_s\":%.6g,\"min\":%.6g,\"max\":%.6g", name, tokens,
           middle, v->tokens.at[0], v->tokens.at[v->tokens.n - 1]);
    if (v->bytes_per_token > 0)
        printf(",\"bytes_per_s\":%.6g,\"bytes_share\":%.4g", v->bytes_per_token * middle,
               median(&v->bandwidth_share));
    printf(",\"ops_per_s\":%.6g,\"ops_share\":%.4g}", v->ops_per_token * middle,
           median(&v->ops_share));
}

static void print_json(const subject *s, const arguments *a, const results *r) {
    printf("{\"model\":");
    print_json_string(a->shape ? a->shape : a->model);
    printf(",\"dtype\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"batch\":%d,\"depth\":%d,"
           "\"repeats\":%d,\"full_precision\":%d,\"kv\":\"%s\"",
           transformer_dtype_name(s->dtype), transformer_isa(s->model),
           a->options.n_threads > 1 ? a->options.n_threads : 1, a->batch, a->depth, a->repeats,
           a->options.full_precision, transformer_dtype_name(a->options.kv_dtype));
    print_json_row("prefill", a->prefill, &r->prefill);
    print_json_row("decode", a->decode, &r->decode);
    printf(",\"limits\":{\"bytes_per_s\":%.6g,\"ops_per_s\":%.6g},\"weight_bytes\":%.0f,"
           "\"peak_memory\":%.0f",
           median(&r->bandwidth), median(&r->arithmetic), s->weight_bytes, r->peak_memory);
    if (a->accuracy) printf(",\"nmse\":%.3g,\"kl_divergence\":%.3g", r->nmse, r->divergence);
    printf("}\n");
}

/* ---- where the time goes ----
 *
 * With options.parallel each group of steps is one call of ours, so we can time it; what we are
 * handed is the library's own description of the group. */
typedef struct profile {
    int n_threads;
    double time[N_STEPS]; /* seconds */
} profile;

static int step_of_group(const tfi_group *g) {
    static const struct {
        tfi_step_function *run;
        int step;
    } table[] = {
        {tfi_step_qkv, QKV},           {tfi_step_rotate, ROPE},     {tfi_step_attention, ATTENTION},
        {tfi_step_attn_out, ATTN_OUT}, {tfi_step_mlp_up, MLP_UP},   {tfi_step_mlp_down, MLP_DOWN},
        {tfi_step_head, HEAD},         {tfi_step_attn_norm, NORMS}, {tfi_step_mlp_norm, NORMS},
        {tfi_step_final_norm, NORMS},  {tfi_step_mlp_add, NORMS},   {tfi_step_attn_add, NORMS},
        {tfi_step_pack_h, PACKING},    {tfi_step_pack_z, PACKING},  {tfi_step_pack_mlp, PACKING},
        {tfi_step_pack_out, PACKING}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (int at = g->first; at < g->last; at++)
            if (g->steps[at].run == table[i].run &&
                (g->steps[at].conditions & g->traits) == g->steps[at].conditions)
                return table[i].step;
    return OTHER;
}

static void run_timed(void *user, transformer_task *task, void *arg, int n) {
    profile *p = (profile *)user;
    double start = seconds();
    if (p->n_threads < 2)
        for (int i = 0; i < n; i++) task(arg, i);
    else {
#ifdef _OPENMP
#pragma omp parallel for num_threads(p->n_threads) schedule(static, 1)
        for (int i = 0; i < n; i++) task(arg, i);
#endif
    }
    p->time[step_of_group((const tfi_group *)arg)] += seconds() - start;
}

/* The same tokens once more, timed step by step. */
static void print_profile(subject *s, const arguments *a, const results *r, int is_prefill) {
    static const char *const names[] = {"norms, sums", "q, k, v", "rope, cache", "attention",
                                        "attn output", "MLP in",  "MLP out",     "packing",
                                        "head",        "the rest"};
    const transformer_config *config = transformer_model_config(s->model);
    int n = is_prefill ? a->prefill : a->decode, passes = is_prefill ? 1 : n;
    double known = 0, cache = count_attention(config, a->depth, n, 0), total;
    transformer_options options = a->options;
    transformer_workspace *work = s->work;
    profile p;
    memset(&p, 0, sizeof p);
    p.n_threads = a->options.n_threads > 1 ? a->options.n_threads : 1;
    options.n_threads = p.n_threads > 1 ? p.n_threads : 2; /* one has no need of our function */
    options.parallel = run_timed;
    options.parallel_user = &p;
    s->work = new_workspace(s->model, &options);
    total = run_tokens(s, a, a->depth, n, n / passes);
    transformer_free(s->work);
    s->work = work;
    for (int i = 0; i < N_STEPS; i++) known += p.time[i];
    p.time[OTHER] += total - known;
    printf("\n%-14s %10s %8s %10s %9s %11s %9s\n", is_prefill ? "prefill" : "decode", "ms/pass",
           "share", "GB/s", "of limit", "Gflop/s", "of limit");
    for (int i = 0; i < N_STEPS; i++) {
        double logits = i == HEAD && is_prefill ? 1 : n, seconds_spent = p.time[i];
        double ops = a->batch * logits * s->step_ops[i], bytes = passes * s->step_bytes[i];
        if (i == ATTENTION) {
            ops = a->batch * 2 * count_attention(config, a->depth, n, 1);
            bytes = a->batch * cache * (double)transformer_dtype_size(a->options.kv_dtype);
        }
        if (seconds_spent <= 0) continue;
        printf("%-14s %10.3f %6.1f %%", names[i], 1e3 * seconds_spent / passes,
               100 * seconds_spent / total);
        if (bytes > 0 && !is_prefill)
            printf(" %10.2f %7.1f %%", bytes / seconds_spent / 1e9,
                   100 * bytes / seconds_spent / median(&r->bandwidth));
        else printf(" %10s %9s", "-", "-");
        if (ops > 0)
            printf(" %11.2f %7.1f %%", ops / seconds_spent / 1e9,
                   100 * ops / seconds_spent / median(&r->arithmetic));
        putchar('\n');
    }
}

/* ---- what speed costs ----
 *
 * The logits of some tokens beside those of float32 activations on the same weights. */
enum { N_COMPARED = 32 };

static double log_sum_exp(const float *logits, int n) {
    double most = logits[0], sum = 0;
    for (int i = 1; i < n; i++) most = logits[i] > most ? logits[i] : most;
    for (int i = 0; i < n; i++) sum += exp(logits[i] - most);
    return most + log(sum);
}

/* Logits [n, vocab_size] of the first n tokens. */
static float *all_logits(const subject *s, const transformer_model *model,
                         const transformer_options *options, int n) {
    transformer_error error;
    transformer_call call = {0};
    transformer_sequence sequence = {0};
    size_t vocab_size = (size_t)transformer_model_config(model)->vocab_size;
    transformer_workspace *work = new_workspace(model, options);
    sequence.state = new_state(model, options);
    sequence.n = n;
    sequence.tokens = s->tokens;
    sequence.logits = (float *)allocate((size_t)n * vocab_size, sizeof(float));
    sequence.logits_rows = TRANSFORMER_LOGITS_ALL;
    call.sequences = &sequence;
    call.n_sequences = 1;
    if (transformer_run(model, work, &call, &error) != TRANSFORMER_OK) die("%s", error.text);
    transformer_free(sequence.state);
    transformer_free(work);
    return sequence.logits;
}

static transformer_model *full_precision_model(const subject *s, transformer_options options) {
    transformer_error error;
    const transformer_config *config = transformer_model_config(s->model);
    options.full_precision = 1;
    transformer_model *model = s->file ? model_file_model(s->file, &options, &error)
                                       : transformer_model_new(config, &options, &error);
    if (model == NULL) die("%s", error.text);
    if (s->file == NULL &&
        transformer_bind_flat(model, s->flat, transformer_flat_size(config, s->dtype), s->dtype,
                              &error) != TRANSFORMER_OK)
        die("%s", error.text);
    return model;
}

/* The sum of squared differences over that of squares, and the Kullback-Leibler divergence of the
 * next token's distribution from that of full precision, mean over the tokens. */
static void measure_accuracy(const subject *s, const arguments *a, results *r) {
    int most = a->prefill > a->decode ? a->prefill : a->decode;
    int n = most < N_COMPARED ? most : N_COMPARED;
    int vocab_size = transformer_model_config(s->model)->vocab_size;
    transformer_options options = a->options;
    options.context = n;
    transformer_model *exact = full_precision_model(s, options);
    float *x = all_logits(s, exact, &options, n), *y = all_logits(s, s->model, &options, n);
    double squares = 0, errors = 0, divergence = 0;
    for (int t = 0; t < n; t++) {
        const float *p = x + (size_t)t * (size_t)vocab_size, *q = y + (p - x);
        double log_p = log_sum_exp(p, vocab_size), log_q = log_sum_exp(q, vocab_size);
        for (int i = 0; i < vocab_size; i++) {
            double difference = (double)p[i] - q[i];
            errors += difference * difference;
            squares += (double)p[i] * p[i];
            divergence += exp(p[i] - log_p) * (difference - log_p + log_q);
        }
    }
    r->nmse = errors > 0 ? errors / squares : 0;
    r->divergence = divergence / n;
    free(x);
    free(y);
    transformer_free(exact);
}

int main(int argc, char **argv) {
    arguments a;
    subject s;
    static results r;
    offer_help(argc, argv, usage);
    memset(&a, 0, sizeof a);
    memset(&s, 0, sizeof s);
    a.dtype = TRANSFORMER_F32;
    a.prefill = 512;
    a.decode = 128;
    a.batch = 1;
    a.repeats = 5;
    parse_arguments(argc, argv, &a);
    if ((a.model == NULL) == (a.shape == NULL)) {
        fputs(usage, stderr);
        return 1;
    }
    set_up(&s, &a);
    measure(&s, &a, &r);
    if (a.accuracy) measure_accuracy(&s, &a, &r);
    if (a.json) print_json(&s, &a, &r);
    else print_table(&s, &a, &r);
    for (int i = 0; a.profile && i < 2; i++) print_profile(&s, &a, &r, i == 0);
    tear_down(&s, &a);
    return 0;
}
