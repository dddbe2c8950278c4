/* transformer.h - decoder-only transformers in one C header.  Licence: MIT, see >>history.
 *
 *     #define TRANSFORMER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "transformer.h"
 *     ...
 *     cc -O2 app.c -lm                            (add -fopenmp for threads)
 *
 * It computes the forward pass of GPT-2, Llama, Qwen, Gemma, Phi, OLMo and their relatives: token
 * ids in, logits out.  It reads no files, splits no text and draws no samples: examples/ does.
 *
 * CONTENTS   (search for the tag; all before >>kernels is meant to be read in order, in an evening)
 *   >>about >>contract >>manual            what it is, what it promises, how it is used
 *   >>types >>api                          the interface
 *   >>base >>formats >>math                sizes, number formats, each operation in plain C
 *   >>config >>model >>state >>forward     validation, weights, the KV cache, the forward pass
 *   >>taps >>threads                       activations; how steps are shared out
 *   >>kernels >>x86 >>arm64 >>wasm         the same operations on vectors
 *   >>bodies >>history                     the vector code itself; versions and licence
 *
 * ==== >>about ====================================================================================
 *
 * From a flat buffer of weights to greedy text, error checks left out (README.md has them):
 *
 *     transformer_config config;
 *     transformer_config_defaults(&config);              a plain Llama block; sizes are still 0
 *     config.dim = 64, config.n_layers = 5, config.n_heads = 8, config.mlp_dim = 172;
 *     config.vocab_size = 512, config.context = 512;
 *     transformer_options options = {0};                 all zero = the defaults
 *     transformer_error error;
 *     transformer_model *model = transformer_model_new(&config, &options, &error);
 *     transformer_bind_flat(model, weights, transformer_flat_size(&config, TRANSFORMER_F32),
 *                           TRANSFORMER_F32, &error);
 *     transformer_state *state = transformer_state_new(model, &options, &error);
 *     transformer_workspace *work = transformer_workspace_new(model, &options, &error);
 *     while (transformer_forward(model, work, state, &token, 1, logits) == TRANSFORMER_OK)
 *         token = index_of_largest(logits);
 *
 * ==== >>contract =================================================================================
 *
 * 1. Right.  For every supported family, logits equal Hugging Face transformers in float32 to 1e-4
 *    absolute on O(1) logits (NMSE <= 1e-9) for float32 weights, at short and at long positions.
 *    What the library cannot run it refuses, naming the field; nothing is guessed or silently
 *    requantised.
 * 2. The same bits.  For one build and one instruction-set row, logits are bit-identical for any
 *    split of the tokens into calls, any thread count, OpenMP or not, batched with other sequences
 *    or alone, taps on or off, fresh or reused state.  One reduction order per dot product;
 *    parallel only across outputs; prefill and decode share it.  Of a NaN, only that it is one.
 * 3. Never harms the host.  No abort, exit, assert on input, signal, longjmp, stdio, getenv,
 *    logging, mutable global, thread-local or thread of its own.  Every entry point returns a
 *    status; a failed call leaves the state as it was.
 * 4. One model, many states, no locks.  A model is read-only after set-up; each state is one
 *    timeline.  Different states run concurrently on any threads.
 * 5. The caller owns memory.  An exact size query, then caller memory; no allocation in forward().
 *    State is plain memory without pointers that would break under memcpy: save, fork and restore
 *    are a copy; rewind is an assignment.
 * 6. Drops in.  C99 and C++11; gcc, clang, MSVC-shaped; 32- and 64-bit; x86-64, AArch64, wasm32;
 *    big-endian.  Every name prefixed, a static mode, -ffast-math does not break it.
 * 7. Fast as shipped.  cc -O2 is enough: kernels are picked at run time from the CPU.
 * 8. Open.  Every named activation can be read, and rewritten before it is used, at enumerated,
 *    frozen sites; zero cost when unused.
 * 9. Readable.  One person reads the interface, the model and the scalar reference in an evening,
 *    in the order of the file.
 *
 * ==== >>manual ===================================================================================
 *
 * WORDS      token: an integer id.  position: index of a token in its sequence, from 0.  dim: width
 *            of the residual stream.  head: one of n_heads attention heads of head_dim numbers;
 *            n_kv_heads of them have keys and values of their own, which the others share
 *            (multi-query, grouped-query attention).  KV cache: keys and values of past positions.
 *            logits: one unnormalised score per vocabulary entry.
 * OBJECTS    model: configuration plus pointers to your weights.  Read-only once ready.
 *            state: one sequence's KV cache and position.  Plain memory without pointers.
 *            workspace: scratch for one call at a time; nothing in it outlives a call (but PAUSE).
 * MEMORY     Ask for the exact size, pass memory.  The *_new functions are a malloc convenience,
 *            the only place that allocates.  Matrices are used where they lie and must outlive the
 *            model; vectors (norm weights, biases) are copied as float32 at binding.  A model and a
 *            workspace hold pointers and stay where they are; a state may be moved, copied (a
 *            fork), written to disk and read back: see transformer_state_restore.  Optimised code
 *            needs less than 16 KB of stack; a debug build (-O0) up to 400 KB.
 * THREADS    A model may be used by any number of threads at once, each with its own state and
 *            workspace.  Inside one call, up to options.n_threads share the work if the
 *            implementation was compiled with OpenMP, or through your own job system if
 *            options.parallel is set.  Calls too small to gain from threads run on one.
 * ERRORS     Where a function takes a transformer_error, that says in words which field, tensor or
 *            argument is wrong; pass NULL if you do not care.
 * ROUNDING   Activations and sums are float32.  F32 and F16 weights are multiplied in float32, and
 *            so are BF16 weights, except on the row "avx512bf16" (the best of AMD's processors; on
 *            Intel's, where it is slow, only if options.isa names it): there the activations that
 *            enter a matrix product are rounded to BF16 (relative error 2^-9 each), while products
 *            are exact and sums float32.  Quantised weights meet activations rounded to 8 bits, with
 *            a scale for each 32 (a 127th of the largest of them, to 11 bits; a product's error is
 *            below 1e-4 of its size, squared and on average); sums of integers are exact.
 *            options.full_precision = 1 keeps float32 activations everywhere; quantised weights
 *            then give the bits of the same weights decoded to F32.  transformer_matmul and the
 *            other functions on plain arrays always keep float32 activations.
 *            Keys and values are kept in float32 unless options.kv_dtype asks for F16.  exp has a
 *            relative error below 3e-7, tanh and erf an absolute one below 2e-7; RoPE angles are
 *            computed in double.
 * LENGTH     Two RoPE scalings ("dynamic", "longrope") depend on the length of the whole sequence,
 *            so that results would depend on how it is split into calls.  They are resolved once,
 *            for options.rope_length.
 * PAUSE      transformer_run can pause after some layers and be resumed later: a game can spend
 *            2 ms a frame.
 * BIG-ENDIAN F32, F16 and BF16 weights are numbers in the machine's own byte order; quantised
 *            blocks are little-endian everywhere, as in a file.
 * MACROS     Before including (each may be given with -D):
 *              TRANSFORMER_IMPLEMENTATION  compile the implementation here (exactly one .c file)
 *              TRANSFORMER_STATIC          everything static: two libraries may carry own copies
 *              TRANSFORMER_SHORT_NAMES     also forward(), matmul(), softmax(), layernorm(), ...
 *              TRANSFORMER_NO_MALLOC       without the *_new functions and <stdlib.h>
 *              TRANSFORMER_MALLOC(n), TRANSFORMER_FREE(p)   instead of malloc and free (both)
 *              TRANSFORMER_NO_SIMD         scalar kernels only
 *              TRANSFORMER_NO_OPENMP       ignore OpenMP even where the compiler offers it
 *              TRANSFORMER_FILE            this header's name in quotes, if you rename it: the
 *                                          kernels are compiled once per instruction set by
 *                                          including the file again (default "transformer.h")
 */
#ifndef TRANSFORMER_H
#define TRANSFORMER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(TRANSFORMER_STATIC)
#if defined(__GNUC__) || defined(__clang__)
#define TRANSFORMER_API __attribute__((unused)) static
#else
#define TRANSFORMER_API static
#endif
#else
#define TRANSFORMER_API extern
#endif

#define TRANSFORMER_VERSION 100 /* 0.1.0: major * 10000 + minor * 100 + patch */
#define TRANSFORMER_MAX_LAYERS 256
#define TRANSFORMER_MAX_HEAD_DIM 512
#define TRANSFORMER_MAX_ROPE_PAIRS (TRANSFORMER_MAX_HEAD_DIM / 2)

/* ==== >>types =============================================================================== */

typedef enum transformer_status {
    TRANSFORMER_OK = 0,
    TRANSFORMER_ARGUMENT = 1, /* an argument is NULL, out of range or contradicts another */
    TRANSFORMER_CONFIG = 2,   /* a field of the configuration is wrong; the error names it */
    TRANSFORMER_WEIGHTS = 3,  /* a tensor is missing, misshapen or mistyped; the error names it */
    TRANSFORMER_MEMORY = 4,   /* the memory passed is too small or misaligned, or malloc failed */
    TRANSFORMER_FULL = 5,     /* the tokens do not fit in the rest of the state's context */
    TRANSFORMER_STATE = 6,    /* the state belongs to another model or build, or is damaged */
    TRANSFORMER_UNSUPPORTED = 7, /* understood, but not possible in this build or for this model */
    TRANSFORMER_STOPPED = 8,     /* a tap stopped the call; no state advanced */
    TRANSFORMER_PAUSED = 9       /* the layers asked for are done; go on with transformer_resume */
} transformer_status;

typedef struct transformer_error {
    transformer_status status;
    char text[248]; /* one line, zero-terminated; empty if OK */
} transformer_error;

/* The numbers are GGUF's.  The quantised formats store 32 or 256 neighbours of a row as a block: small
 * integers and what scales them (layouts at >>formats).  They are for matrices whose columns are a
 * multiple of the block; vectors are F32, F16 or BF16. */
typedef enum transformer_dtype {
    TRANSFORMER_F32 = 0,
    TRANSFORMER_F16 = 1,     /* IEEE 754 binary16 */
    TRANSFORMER_Q4_0 = 2,    /* 32 weights of 4 bits, a scale */
    TRANSFORMER_Q4_1 = 3,    /* ... and a minimum */
    TRANSFORMER_Q5_0 = 6,    /* 32 weights of 5 bits, a scale */
    TRANSFORMER_Q5_1 = 7,    /* ... and a minimum */
    TRANSFORMER_Q8_0 = 8,    /* 32 weights of 8 bits, a scale */
    TRANSFORMER_Q2_K = 10,   /* 256 weights of 2 bits; scales and minimums of each 16 in 4 bits */
    TRANSFORMER_Q3_K = 11,   /* 256 of 3 bits; scales of each 16 in 6 bits */
    TRANSFORMER_Q4_K = 12,   /* 256 of 4 bits; scales and minimums of each 32 in 6 bits */
    TRANSFORMER_Q5_K = 13,   /* 256 of 5 bits; likewise */
    TRANSFORMER_Q6_K = 14,   /* 256 of 6 bits; scales of each 16 in 8 bits */
    TRANSFORMER_IQ4_NL = 20, /* 32 weights out of a table of 16 values, a scale */
    TRANSFORMER_IQ4_XS = 23, /* 256 likewise; scales of each 32 in 6 bits */
    TRANSFORMER_BF16 = 30,   /* the upper 16 bits of a float32 */
    TRANSFORMER_TQ1_0 = 34,  /* 256 weights -1, 0 or 1, five to a byte, a scale */
    TRANSFORMER_TQ2_0 = 35,  /* 256 weights -1, 0 or 1 in 2 bits, a scale */
    TRANSFORMER_MXFP4 = 39   /* 32 weights of 4 bits (E2M1), a power of two */
} transformer_dtype;

/* A matrix [rows, cols], row-major without gaps; y = W x takes x[cols] to y[rows].  A vector has
 * one row. */
typedef struct transformer_tensor {
    const void *data; /* native byte order, aligned to 4 bytes (F32), 1 (MXFP4) or 2 (all others) */
    int dtype;        /* transformer_dtype */
    int rows, cols;
} transformer_tensor;

/* ---- configuration: plain data that describes any family ---- */

enum { TRANSFORMER_NORM_RMS = 0, TRANSFORMER_NORM_LAYER = 1 };

/* Where a block normalises: its input, its output before the residual sum, or the sum (bits). */
enum { TRANSFORMER_PLACE_INPUT = 1, TRANSFORMER_PLACE_OUTPUT = 2, TRANSFORMER_PLACE_SUM = 4 };

/* Sequential: x += attn(norm1 x), x += mlp(norm2 x).  Parallel: x += attn(norm1 x) + mlp(norm x),
 * where norm is norm1 (SHARED) or norm2 (TWO). */
enum { TRANSFORMER_SEQUENTIAL = 0, TRANSFORMER_PARALLEL_SHARED = 1, TRANSFORMER_PARALLEL_TWO = 2 };

enum {
    TRANSFORMER_POSITION_NONE =
        0, /* nothing added to embeddings or scores (RoPE is set per layer) */
    TRANSFORMER_POSITION_LEARNED = 1, /* a row of the position matrix is added to each embedding */
    TRANSFORMER_POSITION_SINUSOIDAL =
        2,                         /* Vaswani et al. 2017, section 3.5: sin and cos interleaved */
    TRANSFORMER_POSITION_ALIBI = 3 /* Press et al. 2021: a slope per head times the distance */
};

enum {
    TRANSFORMER_ROPE_HALF = 0,
    TRANSFORMER_ROPE_INTERLEAVED = 1
}; /* pairs (i, i + dims/2) or (2i, 2i + 1) */

enum {
    TRANSFORMER_ROPE_PLAIN = 0,
    TRANSFORMER_ROPE_LINEAR = 1,  /* frequencies / factor */
    TRANSFORMER_ROPE_DYNAMIC = 2, /* theta grows with options.rope_length beyond original_context */
    TRANSFORMER_ROPE_NTK = 3,     /* theta * factor^(dims / (dims - 2)) */
    TRANSFORMER_ROPE_LLAMA3 =
        4,                     /* low frequencies / factor, smooth between low_freq and high_freq */
    TRANSFORMER_ROPE_YARN = 5, /* Peng et al. 2023 (arXiv:2309.00071) */
    TRANSFORMER_ROPE_LONG =
        6 /* LongRoPE: a divisor per frequency, long_factors if options.rope_length is
                                     greater than original_context, else short_factors */
};

typedef struct transformer_rope {
    int dims;                /* leading dimensions of each head that rotate, even; 0 = no table */
    int pairing;             /* TRANSFORMER_ROPE_HALF or _INTERLEAVED */
    int reverse;             /* 1 = rotate by minus the angle */
    int scaling;             /* TRANSFORMER_ROPE_PLAIN ... _LONG */
    int original_context;    /* DYNAMIC, LLAMA3, YARN, LONG: context before scaling */
    int truncate;            /* YARN: round the ramp's ends to whole dimensions */
    double theta;            /* base of the frequencies, such as 1e4 */
    double factor;           /* LINEAR, DYNAMIC, LLAMA3, YARN: the stretch; NTK: alpha */
    double low_freq_factor;  /* LLAMA3 */
    double high_freq_factor; /* LLAMA3 */
    double beta_fast;        /* YARN */
    double beta_slow;        /* YARN */
    double attention_factor; /* cos and sin are multiplied by it; 1 = off */
    float short_factors[TRANSFORMER_MAX_ROPE_PAIRS]; /* LONG: [dims / 2] */
    float long_factors[TRANSFORMER_MAX_ROPE_PAIRS];  /* LONG: [dims / 2] */
} transformer_rope;

enum {
    TRANSFORMER_QK_NORM_NONE = 0,
    TRANSFORMER_QK_NORM_HEAD = 1,    /* over each head, one weight [head_dim] for all heads */
    TRANSFORMER_QK_NORM_FULL = 2,    /* over all heads together, weight [n_heads * head_dim] */
    TRANSFORMER_QK_NORM_PER_HEAD = 3 /* over each head, a weight of its own: [n_heads * head_dim] */
};

/* Which linear maps have a bias (bits). */
enum {
    TRANSFORMER_BIAS_Q = 1,
    TRANSFORMER_BIAS_K = 2,
    TRANSFORMER_BIAS_V = 4,
    TRANSFORMER_BIAS_ATTN_OUT = 8,
    TRANSFORMER_BIAS_MLP_UP = 16, /* gate and up */
    TRANSFORMER_BIAS_MLP_DOWN = 32,
    TRANSFORMER_BIAS_HEAD = 64,
    TRANSFORMER_BIAS_QK_NORM = 128
};

typedef enum transformer_activation {
    TRANSFORMER_SILU = 0,       /* x sigmoid(x) */
    TRANSFORMER_GELU = 1,       /* x Phi(x), with erf */
    TRANSFORMER_GELU_TANH = 2,  /* the tanh approximation (GPT-2's) */
    TRANSFORMER_GELU_QUICK = 3, /* x sigmoid(1.702 x) */
    TRANSFORMER_RELU = 4,
    TRANSFORMER_RELU2 = 5, /* max(x, 0)^2 */
    TRANSFORMER_TANH = 6,
    TRANSFORMER_SIGMOID = 7,
    TRANSFORMER_IDENTITY = 8
} transformer_activation;

/* What may differ from layer to layer; all zero = as the rest of the configuration says. */
typedef struct transformer_layer {
    int window;       /* 0 = all; W > 0: position i sees the W positions up to and with itself */
    int rope;         /* RoPE table: 0 or 1; -1 = none in this layer */
    int no_attention; /* 1 = this layer has no attention block */
    int no_mlp;       /* 1 = this layer has no MLP block */
    int n_heads;      /* 0 = config.n_heads */
    int n_kv_heads;   /* 0 = config.n_kv_heads */
    int mlp_dim;      /* 0 = config.mlp_dim */
    float attn_scale; /* 0 = config.attn_scale */
} transformer_layer;

/* Set every field; transformer_config_defaults fills in a plain Llama block without sizes. */
typedef struct transformer_config {
    /* sizes */
    int dim;        /* width of the residual stream */
    int n_layers;   /* at most TRANSFORMER_MAX_LAYERS */
    int n_heads;    /* query heads */
    int n_kv_heads; /* key and value heads; divides n_heads; 0 = n_heads */
    int head_dim;   /* of queries and keys; at most TRANSFORMER_MAX_HEAD_DIM; 0 = dim / n_heads */
    int value_dim;  /* of values; at most TRANSFORMER_MAX_HEAD_DIM; 0 = head_dim */
    int mlp_dim;    /* hidden width of the MLP */
    int vocab_size; /* rows of the embedding and of the head */
    int embedding_dim; /* width of the embedding table; != dim needs projections; 0 = dim */
    int context; /* positions the model was made for; rows - position_offset of a position matrix */
    /* norms */
    int norm;           /* TRANSFORMER_NORM_RMS or _LAYER */
    int norm_weight;    /* 1 = norms have a weight */
    int norm_bias;      /* 1 = norms have a bias */
    int norm_plus_one;  /* 1 = the factor is 1 + weight */
    float norm_eps;     /* inside the square root */
    int norm_placement; /* TRANSFORMER_PLACE_* bits; 0 = no norm in the blocks */
    int embedding_norm; /* 1 = norm on the embeddings */
    int final_norm;     /* 1 = norm before the head */
    /* wiring */
    int parallel;           /* TRANSFORMER_SEQUENTIAL, _PARALLEL_SHARED or _PARALLEL_TWO */
    int residual_from_norm; /* 1 = the residual branch starts after the norm (BLOOM option) */
    int causal;             /* 1 = decoder; 0 = encoder: every position sees the whole call */
    /* positions */
    int position;         /* TRANSFORMER_POSITION_* */
    int position_offset;  /* learned: position p uses row p + offset */
    float alibi_max_bias; /* ALiBi: 8 in the paper */
    int alibi_falcon;     /* 1 = Falcon's: biases rounded to BF16 and multiplied by attn_scale */
    transformer_rope rope[2];
    /* attention */
    int biases;  /* TRANSFORMER_BIAS_* bits */
    int qk_norm; /* TRANSFORMER_QK_NORM_*; kind, weight and plus-one as the other norms */
    int qk_norm_after_rope; /* 1 = normalise after the rotation */
    float attn_scale;       /* factor of q.k; 0 = 1 / sqrt(head_dim) */
    float attn_softcap;     /* c: scores become c tanh(s / c); 0 = off */
    float qkv_clip;         /* q, k and v are clamped to [-c, c]; 0 = off */
    int logn_length;        /* L: q *= max(1, log(position + 1) / log(L)) (Qwen 1); 0 = off */
    /* MLP */
    int activation; /* transformer_activation */
    int gated;      /* 1 = down(act(gate x) * up x); 0 = down(act(up x)) */
    /* scales */
    float embedding_scale; /* of the token embedding; 1 = off */
    float residual_scale;  /* of each block's output; 1 = off */
    float logit_scale;     /* of the logits; 1 = off */
    float logit_softcap;   /* 0 = off */
    int tied;              /* 1 = the head is the embedding matrix */
    transformer_layer layers[TRANSFORMER_MAX_LAYERS];
} transformer_config;

/* ---- weights ---- */

/* Every tensor a model can have.  The order is that of the flat buffer: first the model's own,
 * then layer after layer, then the rest.  Which of them a model has follows from its configuration:
 * see transformer_tensor_shape. */
typedef enum transformer_role {
    TRANSFORMER_EMBEDDING = 0,        /* [vocab_size, embedding_dim] */
    TRANSFORMER_EMBEDDING_PROJECTION, /* [dim, embedding_dim], if they differ */
    TRANSFORMER_POSITION_EMBEDDING,   /* [context + position_offset, dim] */
    TRANSFORMER_EMBEDDING_NORM,       /* [dim] */
    TRANSFORMER_EMBEDDING_NORM_BIAS,
    TRANSFORMER_ATTN_NORM, /* per layer from here: [dim] */
    TRANSFORMER_ATTN_NORM_BIAS,
    TRANSFORMER_Q, /* [n_heads * head_dim, dim]; heads are consecutive blocks of rows */
    TRANSFORMER_Q_BIAS,
    TRANSFORMER_K, /* [n_kv_heads * head_dim, dim] */
    TRANSFORMER_K_BIAS,
    TRANSFORMER_V, /* [n_kv_heads * value_dim, dim] */
    TRANSFORMER_V_BIAS,
    TRANSFORMER_Q_NORM, /* [head_dim] or [n_heads * head_dim] */
    TRANSFORMER_Q_NORM_BIAS,
    TRANSFORMER_K_NORM, /* [head_dim] or [n_kv_heads * head_dim] */
    TRANSFORMER_K_NORM_BIAS,
    TRANSFORMER_ATTN_OUT, /* [dim, n_heads * value_dim] */
    TRANSFORMER_ATTN_OUT_BIAS,
    TRANSFORMER_ATTN_POST_NORM, /* [dim]: PLACE_OUTPUT */
    TRANSFORMER_ATTN_POST_NORM_BIAS,
    TRANSFORMER_MLP_NORM, /* [dim] */
    TRANSFORMER_MLP_NORM_BIAS,
    TRANSFORMER_MLP_GATE, /* [mlp_dim, dim], if gated */
    TRANSFORMER_MLP_GATE_BIAS,
    TRANSFORMER_MLP_UP, /* [mlp_dim, dim] */
    TRANSFORMER_MLP_UP_BIAS,
    TRANSFORMER_MLP_DOWN, /* [dim, mlp_dim] */
    TRANSFORMER_MLP_DOWN_BIAS,
    TRANSFORMER_MLP_POST_NORM, /* [dim]: PLACE_OUTPUT */
    TRANSFORMER_MLP_POST_NORM_BIAS,
    TRANSFORMER_FINAL_NORM, /* the model's own again: [dim] */
    TRANSFORMER_FINAL_NORM_BIAS,
    TRANSFORMER_HEAD_PROJECTION, /* [embedding_dim, dim], if they differ */
    TRANSFORMER_HEAD,            /* [vocab_size, embedding_dim], if not tied */
    TRANSFORMER_HEAD_BIAS,       /* [vocab_size] */
    TRANSFORMER_N_ROLES
} transformer_role;

/* ---- options: all zero is the default ---- */

typedef void transformer_task(void *arg, int index);

/* Runs task(arg, i) once for each i in 0 .. n-1, in any order, on any threads; returns after. */
typedef void transformer_parallel(void *user, transformer_task *task, void *arg, int n);

typedef struct transformer_options {
    /* read by transformer_model_* */
    /* Use no row of kernels better than this; NULL = the best.  "scalar", "avx2", "avx2vnni",
     * "avx512", "avx512vnni", "avx512bf16"; "neon", "neondot"; "simd128" */
    const char *isa;
    int full_precision; /* 1 = float32 activations in every matrix product (see ROUNDING) */
    int rope_length;    /* length for DYNAMIC and LONG RoPE scaling; 0 = original_context */
    /* read by transformer_state_* */
    int context;  /* positions the state can hold; 0 = config.context */
    int kv_dtype; /* TRANSFORMER_F32 (default) or TRANSFORMER_F16 */
    int undo;     /* sliding windows: positions a rewind can go back, and tokens per pass; 0 = 512.
                     Layers that see everything can go back to any position. */
    /* read by transformer_workspace_* */
    int batch;     /* most tokens in one pass over the weights; 0 = 256 (or context if less) */
    int n_threads; /* 0 or 1 = serial; with OpenMP no more than processors are at work */
    transformer_parallel *parallel; /* your job system in place of OpenMP */
    void *parallel_user;
} transformer_options;

typedef struct transformer_model transformer_model;
typedef struct transformer_state transformer_state;
typedef struct transformer_workspace transformer_workspace;

/* ---- taps: every activation by name ---- */

/* Sites, in the order of computation.  A tap sees a row of `width` floats per token and may
 * rewrite it: the new values are what the rest of the pass uses.  H = heads of the layer, N = its
 * key and value heads. */
typedef enum transformer_site {
    TRANSFORMER_SITE_EMBEDDING = 0,    /* [dim] entering the first layer */
    TRANSFORMER_SITE_RESIDUAL_PRE = 1, /* [dim] residual stream entering the layer */
    TRANSFORMER_SITE_ATTN_NORM = 2,    /* [dim] what q, k and v are computed from */
    TRANSFORMER_SITE_Q = 3, /* [H * head_dim] after bias and clip, before norm and rotation */
    TRANSFORMER_SITE_K = 4, /* [N * head_dim] likewise */
    TRANSFORMER_SITE_V = 5, /* [N * value_dim] */
    TRANSFORMER_SITE_Q_ROTATED = 6, /* [H * head_dim] as used: after norm and rotation if any */
    TRANSFORMER_SITE_K_ROTATED = 7, /* [N * head_dim] likewise; what the KV cache will hold */
    TRANSFORMER_SITE_SCORES = 8,    /* [H * n_keys] scaled, capped, biased; visible keys only */
    TRANSFORMER_SITE_WEIGHTS = 9,   /* [H * n_keys] after the softmax */
    TRANSFORMER_SITE_Z = 10,        /* [H * value_dim] weighted sums of values, one per head */
    TRANSFORMER_SITE_ATTN_OUT = 11, /* [dim] what the attention block adds (after norm and scale) */
    TRANSFORMER_SITE_RESIDUAL_MID = 12, /* [dim] between the blocks (not in parallel layers) */
    TRANSFORMER_SITE_MLP_NORM = 13,     /* [dim] input of the MLP */
    TRANSFORMER_SITE_MLP_PRE = 14,      /* [mlp_dim] before the activation (the gate's, if gated) */
    TRANSFORMER_SITE_MLP_UP = 15,  /* [mlp_dim] what the activated gate multiplies; gated only */
    TRANSFORMER_SITE_MLP_ACT = 16, /* [mlp_dim] input of the down projection */
    TRANSFORMER_SITE_MLP_OUT = 17, /* [dim] what the MLP block adds */
    TRANSFORMER_SITE_RESIDUAL_POST = 18, /* [dim] residual stream leaving the layer */
    TRANSFORMER_SITE_FINAL_NORM = 19,    /* [dim] input of the head, where logits are computed */
    TRANSFORMER_SITE_LOGITS = 20,        /* [vocab_size] where logits are stored */
    TRANSFORMER_N_SITES = 21
} transformer_site;

typedef struct transformer_view {
    int site;      /* transformer_site */
    int layer;     /* 0 .. n_layers - 1; -1 for EMBEDDING, FINAL_NORM and LOGITS */
    int sequence;  /* index in the call */
    int position;  /* of the first row */
    int n;         /* rows: consecutive positions.  1 for SCORES and WEIGHTS */
    int width;     /* floats per row */
    int n_keys;    /* SCORES, WEIGHTS: keys per head; else 0 */
    int first_key; /* SCORES, WEIGHTS: position of the first of them */
    size_t stride; /* floats from row to row */
    float *data;
} transformer_view;

/* Called by the thread of transformer_run (SCORES, WEIGHTS: by task 0 of options.parallel), one at
 * a time.  Return 0 to go on; else the call stops: TRANSFORMER_STOPPED, and nothing has advanced. */
typedef int transformer_tap_function(void *user, const transformer_view *view);

typedef struct transformer_tap {
    uint32_t sites; /* bit 1 << site for each site wanted */
    transformer_tap_function *function;
    void *user;
    float *scratch; /* SCORES, WEIGHTS: at least 2 * n_heads * context floats, with the context of
                            the largest state in the call; NULL if neither is wanted */
    size_t scratch_size; /* bytes */
} transformer_tap;

/* ---- a call ---- */

enum { TRANSFORMER_LOGITS_LAST = 0, TRANSFORMER_LOGITS_ALL = 1 };

typedef struct transformer_sequence {
    transformer_state *state;
    int n;                   /* tokens, >= 1 */
    const int32_t *tokens;   /* [n] ids; or NULL, and then */
    const float *embeddings; /* [n, embedding_dim] in place of embedding_scale * embedding rows */
    float *logits;           /* out [vocab_size] or [n, vocab_size]; NULL = none */
    int logits_rows;         /* TRANSFORMER_LOGITS_LAST or _ALL */
    const int32_t *targets;  /* [n] ids or -1, or NULL: for each i >= 0 ... */
    float *logprobs;         /* ... out [n] log-probability of targets[i]; -1 = untouched */
} transformer_sequence;

typedef struct transformer_call {
    transformer_sequence *sequences; /* different states; read until the call is over */
    int n_sequences;
    int n_layers;               /* pause after so many layers; 0 = run to the end */
    const transformer_tap *tap; /* NULL = none */
} transformer_call;

/* ==== >>api ================================================================================= */

TRANSFORMER_API int transformer_version(void); /* TRANSFORMER_VERSION of the implementation */
TRANSFORMER_API const char *
transformer_status_text(int status); /* "ok", "argument", ...; never NULL */
TRANSFORMER_API const char *
transformer_role_name(int role); /* "embedding", "attn_norm", ...; never NULL */
TRANSFORMER_API const char *
transformer_site_name(int site); /* "embedding", "q_rotated", ...; never NULL */

/* What a transformer_dtype is.  A block is the smallest unit of a row: 1 element of F32, F16 and
 * BF16, else 32 or 256. */
TRANSFORMER_API const char *
transformer_dtype_name(int dtype); /* "F32", "Q4_K", ... also of GGUF's other types; never NULL */
TRANSFORMER_API int transformer_dtype_block(int dtype);   /* elements per block; 0 = unknown */
TRANSFORMER_API size_t transformer_dtype_size(int dtype); /* bytes per block; 0 = unknown */
TRANSFORMER_API size_t transformer_row_size(
    int dtype, int cols); /* bytes; 0 = unknown type, or cols not a multiple of the block */

/* out[i] = row `row` + i of t as float32, for n_rows rows.   out [n_rows, t->cols]. */
TRANSFORMER_API transformer_status transformer_decode(float *out, const transformer_tensor *t,
                                                      int row, int n_rows);

/* Fill in: RMS norm with weights at 1e-5 before each block and at the end, RoPE theta 1e4 over the
 * whole head (dims is set from head_dim by the check if left -1), gated SiLU, causal, no biases,
 * all scales 1, untied. Sizes stay 0 and must be set. */
TRANSFORMER_API void transformer_config_defaults(transformer_config *config);

/* Is it complete and possible?  If not: CONFIG, and an error that names the first wrong field. */
TRANSFORMER_API transformer_status transformer_config_check(const transformer_config *config,
                                                            transformer_error *error);

/* Shape of a tensor: 1 and *rows, *cols if a model of this (valid) configuration has it, else 0.
 * layer is 0 for the model's own tensors. */
TRANSFORMER_API int transformer_tensor_shape(const transformer_config *config, int role, int layer,
                                             int *rows, int *cols);

/* The flat buffer: all tensors in the order of transformer_role (per-layer roles layer by layer),
 * matrices in dtype, vectors in F32, each starting at a multiple of 64 bytes.  Size in bytes (0 =
 * config invalid, too large, or a matrix whose columns are no multiple of dtype's block), and the
 * byte offset of one tensor (1 = present, else 0). */
TRANSFORMER_API size_t transformer_flat_size(const transformer_config *config, int dtype);
TRANSFORMER_API int transformer_flat_offset(const transformer_config *config, int dtype, int role,
                                            int layer, size_t *offset);

/* Model: size of the memory, set-up, binding of weights, end of set-up.
 *   memory   at least transformer_model_size bytes, aligned to 64
 *   flat     aligned to 64; bind_flat binds every tensor and makes the model ready
 *   tensor   of the shape that transformer_tensor_shape gives; its data must outlive the model if
 *            it is a matrix
 * transformer_model_ready fails if a tensor is missing and names it; after OK the model is
 * read-only. */
TRANSFORMER_API size_t transformer_model_size(const transformer_config *config);
TRANSFORMER_API transformer_status transformer_model_init(void *memory, size_t size,
                                                          const transformer_config *config,
                                                          const transformer_options *options,
                                                          transformer_model **model,
                                                          transformer_error *error);
TRANSFORMER_API transformer_status transformer_bind(transformer_model *model, int role, int layer,
                                                    const transformer_tensor *tensor,
                                                    transformer_error *error);
TRANSFORMER_API transformer_status transformer_bind_flat(transformer_model *model, const void *flat,
                                                         size_t size, int dtype,
                                                         transformer_error *error);
TRANSFORMER_API transformer_status transformer_model_ready(transformer_model *model,
                                                           transformer_error *error);
TRANSFORMER_API const transformer_config *
transformer_model_config(const transformer_model *model); /* zeros resolved */
TRANSFORMER_API const char *
transformer_isa(const transformer_model *model); /* the row in use, such as "avx512" */

/* State: memory aligned to 64.  The bytes of a state may be copied at any time between calls; a
 * copy elsewhere (or read back from disk) becomes usable by transformer_state_restore, which
 * refuses one made by another model, by other weights or by a build with another layout, with
 * STATE. */
TRANSFORMER_API size_t transformer_state_size(const transformer_model *model,
                                              const transformer_options *options);
TRANSFORMER_API transformer_status transformer_state_init(void *memory, size_t size,
                                                          const transformer_model *model,
                                                          const transformer_options *options,
                                                          transformer_state **state,
                                                          transformer_error *error);
TRANSFORMER_API transformer_status transformer_state_restore(void *memory, size_t size,
                                                             const transformer_model *model,
                                                             transformer_state **state,
                                                             transformer_error *error);
TRANSFORMER_API size_t transformer_state_bytes(const transformer_state *state); /* what to copy */
TRANSFORMER_API int transformer_state_position(const transformer_state *state); /* tokens so far */
TRANSFORMER_API int
transformer_state_context(const transformer_state *state); /* tokens it can hold */

/* Go back to position 0 <= position <= the present one.  O(1).  ARGUMENT if out of range;
 * UNSUPPORTED if a sliding-window layer no longer holds what that position needs (see
 * options.undo); the state is then unchanged. */
TRANSFORMER_API transformer_status transformer_state_rewind(transformer_state *state, int position);

/* Workspace: memory aligned to 64.  Scratch for calls of at most options.batch tokens per pass;
 * longer calls are done in several passes with the same bits. */
TRANSFORMER_API size_t transformer_workspace_size(const transformer_model *model,
                                                  const transformer_options *options);
TRANSFORMER_API transformer_status transformer_workspace_init(void *memory, size_t size,
                                                              const transformer_model *model,
                                                              const transformer_options *options,
                                                              transformer_workspace **work,
                                                              transformer_error *error);

/* Evaluate n tokens at the state's position; logits [vocab_size] of the last one (NULL = only
 * advance the state). ARGUMENT if a pointer is NULL, n < 1 or a token is outside 0 .. vocab_size -
 * 1; FULL if fewer than n positions are left; STATE if the state is not one of this model.  The
 * position advances by n only on OK. Cost: about 2 * parameters * n operations; the weights are
 * read once per options.batch tokens. Phuong & Hutter 2022 (arXiv:2207.09238) Algorithm 10,
 * generalised as transformer_config says. */
TRANSFORMER_API transformer_status transformer_forward(const transformer_model *model,
                                                       transformer_workspace *work,
                                                       transformer_state *state,
                                                       const int32_t *tokens, int n, float *logits);

/* The same with everything: several sequences in one pass over the weights, embeddings as input,
 * logits of all positions, log-probabilities, taps, pauses.  Conditions on all sequences are
 * checked before anything is computed. With causal = 0 each sequence starts at position 0 and fits
 * in one pass.  PAUSED: continue with transformer_resume, same model and workspace, before any
 * other use of that workspace; the sequences, their states and buffers and the tap must stay as
 * they are.  A paused call may be dropped: its states have not advanced. */
TRANSFORMER_API transformer_status transformer_run(const transformer_model *model,
                                                   transformer_workspace *work,
                                                   const transformer_call *call,
                                                   transformer_error *error);
TRANSFORMER_API transformer_status transformer_resume(const transformer_model *model,
                                                      transformer_workspace *work, int n_layers,
                                                      transformer_error *error);

#ifndef TRANSFORMER_NO_MALLOC
/* malloc conveniences: size query, allocation and init in one.  NULL on failure, with the reason
 * in *error. transformer_free releases any of them (NULL is ignored). */
TRANSFORMER_API transformer_model *transformer_model_new(const transformer_config *config,
                                                         const transformer_options *options,
                                                         transformer_error *error);
TRANSFORMER_API transformer_state *transformer_state_new(const transformer_model *model,
                                                         const transformer_options *options,
                                                         transformer_error *error);
TRANSFORMER_API transformer_workspace *transformer_workspace_new(const transformer_model *model,
                                                                 const transformer_options *options,
                                                                 transformer_error *error);
TRANSFORMER_API void transformer_free(void *object);
#endif

/* ---- kernels on plain arrays: what forward() is made of, usable alone ----
 * float32 in and out, best instruction-set row of this machine, no threads, no allocation; out may
 * not alias an input unless it says so.  They return ARGUMENT for NULL or a size below 0 and then
 * write nothing. */

/* out[i, r] = sum_k w[r, k] x[i, k] + bias[r].   x [n, w.cols], out [n, w.rows], bias [w.rows] or
 * NULL. */
TRANSFORMER_API transformer_status transformer_matmul(float *out, const float *x,
                                                      const transformer_tensor *w,
                                                      const float *bias, int n);

/* x[i] = exp(x[i] - max x) / sum_j exp(x[j] - max x), in place; exp is 0 below 2^-126.   x [n] */
TRANSFORMER_API transformer_status transformer_softmax(float *x, int n);

/* out[i] = weight[i] (x[i] - mean) / sqrt(variance + eps) + bias[i]; the variance divides by n. 
 * weight, bias [n] or NULL; out may alias x.  Ba et al. 2016 (arXiv:1607.06450); Formal
 * Algorithms, Alg. 6. */
TRANSFORMER_API transformer_status transformer_layernorm(float *out, const float *x,
                                                         const float *weight, const float *bias,
                                                         int n, float eps);

/* out[i] = weight[i] x[i] / sqrt(mean(x^2) + eps).  weight [n] or NULL; out may alias x.
 * Zhang & Sennrich 2019 (arXiv:1910.07467) eq. 4. */
TRANSFORMER_API transformer_status transformer_rmsnorm(float *out, const float *x,
                                                       const float *weight, int n, float eps);

/* Rotates the first dims of each head by position * theta^(-2i / dims), pair i being (i, i +
 * dims/2) or (2i, 2i + 1). x [n_heads, head_dim] in place; dims even, 0 .. head_dim.  Su et al.
 * 2021 (arXiv:2104.09864) eq. 34. */
TRANSFORMER_API transformer_status transformer_rope_apply(float *x, int n_heads, int head_dim,
                                                          int dims, int pairing, double theta,
                                                          int position);

/* Element by element, in place.   x [n]; kind = transformer_activation. */
TRANSFORMER_API transformer_status transformer_activate(float *x, int n, int kind);

/* Scaled dot-product attention.  Vaswani et al. 2017 eq. 1; Formal Algorithms, Alg. 4 and 5;
 * grouped heads: Ainslie et al. 2023 (arXiv:2305.13245): head h uses key-value head h / (n_heads /
 * n_kv_heads).
 *   out[i, h] = sum_j weights[h, i, j] v[j, h']     weights = softmax over visible j of scale q[i,
 *   h] . k[j, h']
 * A query that sees no key gives zeros.  All arrays are row-major without gaps. */
typedef struct transformer_attention_args {
    const float *q; /* [n_queries, n_heads, key_dim] */
    const float *k; /* [n_keys, n_kv_heads, key_dim] */
    const float *v; /* [n_keys, n_kv_heads, value_dim] */
    float *out;     /* out [n_queries, n_heads, value_dim] */
    float *scores;  /* out [n_heads, n_queries, n_keys] scaled and capped, unmasked, or NULL */
    float *weights; /* out [n_heads, n_queries, n_keys], 0 where masked, or NULL */
    const uint8_t
        *mask; /* [n_queries, n_keys] nonzero = visible, or NULL; combines with causal and window */
    int n_queries, n_keys;   /* queries are the last n_queries of n_keys positions when causal */
    int n_heads, n_kv_heads; /* n_kv_heads divides n_heads */
    int key_dim, value_dim;
    int causal;    /* 1: query i sees keys j <= i + n_keys - n_queries */
    int window;    /* W > 0 (with causal): only the last W of those */
    float scale;   /* 0 = 1 / sqrt(key_dim) */
    float softcap; /* 0 = off */
} transformer_attention_args;
TRANSFORMER_API transformer_status transformer_attention(const transformer_attention_args *args);

/* out[i] = down (act(gate x[i]) * (up x[i])) or, without gate, down act(up x[i]).   x [n, dim],
 * out [n, dim], gate (or NULL) and up [mlp_dim, dim], down [dim, mlp_dim], biases [rows] or NULL,
 * scratch [2 * mlp_dim]. */
TRANSFORMER_API transformer_status transformer_mlp(
    float *out, const float *x, const transformer_tensor *gate, const transformer_tensor *up,
    const transformer_tensor *down, const float *gate_bias, const float *up_bias,
    const float *down_bias, int activation, int n, float *scratch);

/* out[i] = row tokens[i] of table.  out [n, table.cols].  Formal Algorithms, Alg. 1.  ARGUMENT for
 * an id out of range. */
TRANSFORMER_API transformer_status transformer_embedding(float *out,
                                                         const transformer_tensor *table,
                                                         const int32_t *tokens, int n);

/* probabilities[i] = softmax(table x[i]).  x [n, table.cols], out [n, table.rows].  Formal
 * Algorithms, Alg. 7. */
TRANSFORMER_API transformer_status transformer_unembedding(float *out, const float *x,
                                                           const transformer_tensor *table, int n);

#ifdef TRANSFORMER_SHORT_NAMES
/* Functions, not macros: a macro `forward` would break std::forward. */
static inline transformer_status forward(const transformer_model *model,
                                         transformer_workspace *work, transformer_state *state,
                                         const int32_t *tokens, int n, float *logits) {
    return transformer_forward(model, work, state, tokens, n, logits);
}
static inline transformer_status matmul(float *out, const float *x, const transformer_tensor *w,
                                        const float *bias, int n) {
    return transformer_matmul(out, x, w, bias, n);
}
static inline transformer_status softmax(float *x, int n) { return transformer_softmax(x, n); }
static inline transformer_status layernorm(float *out, const float *x, const float *weight,
                                           const float *bias, int n, float eps) {
    return transformer_layernorm(out, x, weight, bias, n, eps);
}
static inline transformer_status rmsnorm(float *out, const float *x, const float *weight, int n,
                                         float eps) {
    return transformer_rmsnorm(out, x, weight, n, eps);
}
static inline transformer_status attention(const transformer_attention_args *args) {
    return transformer_attention(args);
}
static inline transformer_status mlp(float *out, const float *x, const transformer_tensor *gate,
                                     const transformer_tensor *up, const transformer_tensor *down,
                                     const float *gate_bias, const float *up_bias,
                                     const float *down_bias, int activation, int n,
                                     float *scratch) {
    return transformer_mlp(out, x, gate, up, down, gate_bias, up_bias, down_bias, activation, n,
                           scratch);
}
#endif

#ifdef __cplusplus
}
#endif
#endif /* TRANSFORMER_H */

/* Stop here if you only want to use the library.  The rest is how it works. */

#if defined(TRANSFORMER_IMPLEMENTATION) && !defined(TFI_IMPLEMENTED)
#define TFI_IMPLEMENTED

/* ==== >>base ================================================================================= */

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#if defined(_OPENMP) && !defined(TRANSFORMER_NO_OPENMP)
#include <omp.h>
#define TFI_OPENMP 1
#define TFI_PROCESSORS() omp_get_num_procs()
#else
#define TFI_OPENMP 0
#define TFI_PROCESSORS() 1
#endif

/* The same bits wherever a line of code is compiled: 32-bit x86 computes with SSE2, since the x87
 * unit keeps more digits in registers than in memory; sums are not reordered; and a product and a
 * sum are fused only where we say so (V_FMA): left to itself a compiler may fuse one way in the body
 * of a loop and another way in its tail. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#if defined(__i386__) && !defined(__SSE2_MATH__)
#pragma GCC target("sse2,fpmath=sse")
#endif
#ifdef __FAST_MATH__
#pragma GCC optimize("no-fast-math")
#endif
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#if defined(__FAST_MATH__) && !defined(__s390x__) && !defined(__wasm__)
#pragma float_control(precise, on, push)
#endif
#pragma clang fp contract(off)
#elif defined(_MSC_VER)
#pragma float_control(precise, on, push)
#pragma fp_contract(off)
#endif

#if defined(TRANSFORMER_MALLOC) != defined(TRANSFORMER_FREE)
#error "define both TRANSFORMER_MALLOC and TRANSFORMER_FREE, or neither"
#endif
#if !defined(TRANSFORMER_NO_MALLOC) && !defined(TRANSFORMER_MALLOC)
#include <stdlib.h>
#define TRANSFORMER_MALLOC(n) malloc(n)
#define TRANSFORMER_FREE(p) free(p)
#endif
#ifndef TRANSFORMER_FILE
#define TRANSFORMER_FILE "transformer.h"
#endif
#if defined(TRANSFORMER_STATIC)
#define TFI_DEF TRANSFORMER_API
#else
#define TFI_DEF
#endif
#if defined(__GNUC__) || defined(__clang__)
#define TFI_NOINLINE __attribute__((noinline))
#define TFI_FORCE_INLINE inline __attribute__((always_inline))
#define TFI_UNUSED __attribute__((unused))
#define TFI_PREFETCH(p, level) __builtin_prefetch(p, 0, level)
#define TFI_TAKE_TICKET(p) __atomic_fetch_add(p, 1, __ATOMIC_RELAXED)
#else
#define TFI_NOINLINE
#define TFI_FORCE_INLINE inline
#define TFI_UNUSED
#define TFI_PREFETCH(p, level) (void)(p)
#endif

enum {
    TFI_ALIGN = 64,            /* of every array in our memory: a cache line, a 512-bit vector */
    TFI_KEY_BLOCK = 64,        /* keys per step of attention; caches hold whole blocks */
    TFI_HEAD_BLOCK = 256,      /* vocabulary rows per step of the head */
    TFI_BLOCK_BYTES = 3 << 17, /* weights that stay in second-level cache while all tokens pass */
    TFI_AHEAD_BYTES = 1 << 11, /* how far before its use a weight from memory is asked for */
    TFI_CUT_BYTES = 4096, /* of each token that stay in first-level cache while the rows pass */
    TFI_CUT_ROWS = 96     /* rows of weights that meet all tokens before the next cut */
};

static int tfi_min(int a, int b) { return a < b ? a : b; }
static int tfi_max(int a, int b) { return a > b ? a : b; }
static int tfi_round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
static int tfi_padded(int n) { return tfi_round_up(n, TFI_ALIGN / (int)sizeof(float)); }

/* Sizes that stick at "too large": any sum or product that overflows makes the whole size
 * SIZE_MAX. */
static size_t tfi_times(size_t a, size_t b) { return b && a > SIZE_MAX / b ? SIZE_MAX : a * b; }
static size_t tfi_plus(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

/* One memory block handed out piece by piece.  With base NULL it only measures: the size query and
 * the set-up run the same code, so they cannot disagree. */
typedef struct tfi_arena {
    unsigned char *base;
    size_t used;
} tfi_arena;

static void *tfi_take(tfi_arena *arena, size_t count, size_t element) {
    size_t at = arena->used, bytes = tfi_times(count, element);
    size_t rounded = tfi_plus(bytes, TFI_ALIGN - 1);
    rounded = rounded == SIZE_MAX ? SIZE_MAX : rounded & ~(size_t)(TFI_ALIGN - 1);
    arena->used = tfi_plus(arena->used, rounded);
    return arena->base && arena->used != SIZE_MAX ? arena->base + at : NULL;
}

/* Writes a message of %s and %d into the error and returns its status. */
static transformer_status tfi_fail(transformer_error *error, transformer_status status,
                                   const char *format, ...) {
    va_list args;
    size_t at = 0;
    if (!error) return status;
    va_start(args, format);
    error->status = status;
    for (; *format; format++) {
        char digits[16];
        const char *piece = digits;
        digits[0] = *format, digits[1] = 0;
        if (format[0] == '%' && format[1] == 's') {
            piece = va_arg(args, const char *), format++;
        } else if (format[0] == '%' && format[1] == 'd') {
            int value = va_arg(args, int), place = (int)sizeof digits - 1;
            unsigned rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;
            digits[place] = 0;
            do digits[--place] = (char)('0' + rest % 10), rest /= 10;
            while (rest);
            if (value < 0) digits[--place] = '-';
            piece = digits + place, format++;
        }
        for (; *piece && at + 1 < sizeof error->text; piece++) error->text[at++] = *piece;
    }
    error->text[at] = 0;
    va_end(args);
    return status;
}

static transformer_status tfi_ok(transformer_error *error) {
    if (error) error->status = TRANSFORMER_OK, error->text[0] = 0;
    return TRANSFORMER_OK;
}

static transformer_status tfi_check_memory(const void *memory, size_t size, size_t need,
                                           transformer_error *error) {
    if (!memory) return tfi_fail(error, TRANSFORMER_ARGUMENT, "memory is NULL");
    if (need == SIZE_MAX)
        return tfi_fail(error, TRANSFORMER_MEMORY, "size exceeds the address space");
    if ((uintptr_t)memory % TFI_ALIGN)
        return tfi_fail(error, TRANSFORMER_MEMORY, "memory is not aligned to %d bytes", TFI_ALIGN);
    if (size < need)
        return tfi_fail(error, TRANSFORMER_MEMORY, "memory is smaller than the size query says");
    return TRANSFORMER_OK;
}

/* FNV-1a, 64 bits: names models and state layouts. */
static uint64_t tfi_hash(uint64_t hash, const void *data, size_t n) {
    const unsigned char *bytes = (const unsigned char *)data;
    for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static const char *const tfi_status_names[] = {"ok",      "argument", "config", "weights",
                                               "memory",  "full",     "state",  "unsupported",
                                               "stopped", "paused"};
TFI_DEF int transformer_version(void) { return TRANSFORMER_VERSION; }
TFI_DEF const char *transformer_status_text(int status) {
    int n = (int)(sizeof tfi_status_names / sizeof tfi_status_names[0]);
    return status >= 0 && status < n ? tfi_status_names[status] : "unknown status";
}

/* ==== >>formats ==============================================================================
 *
 *   F32   s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm     value = (-1)^s 2^(e-127) 1.m
 *   BF16  s eeeeeeee mmmmmmm                     the upper half of an F32
 *   F16   s eeeee mmmmmmmmmm                     value = (-1)^s 2^(e-15) 1.m;  e = 0: 2^-14 0.m
 *
 * Quantised blocks, bytes from left to right.  d, m: F16 scale and minimum; q: the integers, a
 * nibble (4 bits), a crumb (2) or a bit each.  "lo|hi 16" = 16 bytes whose low nibbles are 16
 * weights and whose high nibbles are the 16 after them; "crumbs 32" = 32 bytes that hold, from low
 * bits to high, four times 32 weights; "bits 32" likewise eight times 32.
 *
 *   Q4_0    d2 q(lo|hi 16)                                d (q - 8)
 *   Q4_1    d2 m2 q(lo|hi 16)                             d q + m
 *   Q5_0    d2 h4 q(lo|hi 16)       h: 32 fifth bits      d (q + 16 h - 16)
 *   Q5_1    d2 m2 h4 q(lo|hi 16)                          d (q + 16 h) + m
 *   Q8_0    d2 q32                                        d q
 *   IQ4_NL  d2 q(lo|hi 16)                                d table[q]
 *   MXFP4   e1 q(lo|hi 16)                                2^(e-128) table[q]
 *   Q2_K    s16 q(2 crumbs 32) d2 m2                      d (s & 15) q - m (s >> 4)
 *   Q3_K    h(bits 32) q(2 crumbs 32) s12 d2              d (s - 32) (q + 4 h - 4)
 *   Q4_K    d2 m2 s12 q(4 lo|hi 32)                       d s q - m t     (t: the minimums)
 *   Q5_K    d2 m2 s12 h(bits 32) q(4 lo|hi 32)            d s (q + 16 h) - m t
 *   Q6_K    q(2 lo|hi 64) h(2 crumbs 32) s16 d2           d s (q + 16 h - 32)
 *   IQ4_XS  d2 t2 s4 q(8 lo|hi 16)                        d (s + 16 t - 32) table[q]
 *   TQ1_0   q48 q4 d2               base 3, top first     d (q - 1)
 *   TQ2_0   q(2 crumbs 32) d2                             d (q - 1)
 */
static float tfi_bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static uint32_t tfi_float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static float tfi_from_bf16(uint16_t h) { return tfi_bits_to_float((uint32_t)h << 16); }

/* To nearest, ties to even; a NaN stays one (the rounding carry could turn it into an infinity). */
static uint16_t tfi_to_bf16(float value) {
    uint32_t bits = tfi_float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static float tfi_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u,
             mantissa = h & 0x3ffu;
    if (exponent == 31) return tfi_bits_to_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return tfi_bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * (1.0f / 16777216.0f); /* denormal: mantissa * 2^-24, exact */
    return sign ? -tiny : tiny;
}

/* To nearest, ties to even. */
static uint16_t tfi_to_f16(float value) {
    uint32_t bits = tfi_float_to_bits(value), sign = (bits >> 16) & 0x8000u,
             magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);  /* NaN */
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 65536: infinity */
    if (magnitude < 0x38800000u) {                                   /* below 2^-14: denormal */
        uint32_t shift = 126 - (magnitude >> 23), whole = (magnitude & 0x7fffffu) | 0x800000u;
        if (magnitude < 0x33000000u) return (uint16_t)sign; /* at most 2^-25 rounds to zero */
        uint32_t kept = whole >> shift, rest = whole & ((1u << shift) - 1),
                 half = 1u << (shift - 1);
        return (uint16_t)(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
    }
    uint32_t rebased = magnitude - (112u << 23);
    return (uint16_t)(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
}

/* ---- quantised blocks ---- */

/* A block taken apart: weight i = scale[i / 16] * q[i] + offset[i / 16].  Each product is exact in
 * float32 (11 bits of an F16 times at most 6 and 8), so only the addition rounds. */
typedef struct tfi_block {
    int8_t q[256];
    float scale[16], offset[16];
} tfi_block;

static const int8_t tfi_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t tfi_mxfp4_values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12}; /* doubled */

/* Blocks are bytes in the same order on every machine: little-endian. */
static uint16_t tfi_half_at(const unsigned char *from) {
    return (uint16_t)(from[0] | from[1] << 8);
}
static float tfi_f16_at(const unsigned char *from) { return tfi_from_f16(tfi_half_at(from)); }

/* n weights in groups of `run` low nibbles followed by their high nibbles. */
static void tfi_nibbles(int8_t *q, const unsigned char *from, int n, int run) {
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)(from[i / (2 * run) * run + i % run] >> i / run % 2 * 4 & 15);
}
static int tfi_crumb(const unsigned char *from, int i) {
    return from[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}
static int tfi_bit(const unsigned char *from, int i) { return from[i % 32] >> i / 32 & 1; }

/* Scales and minimums of Q4_K and Q5_K: 8 of either in 6 bits.  The first four of each are the low
 * bits of bytes 0 .. 7; the others have their low 4 bits in bytes 8 .. 11 and the upper 2 on top
 * of bytes 0 .. 7. */
static int tfi_scale6(const unsigned char *s, int i, int minimum) {
    int low = s[i % 4 + 4 * minimum];
    return i < 4 ? low & 63 : (s[i + 4] >> 4 * minimum & 15) | low >> 6 << 4;
}
/* Q3_K: 16 scales of 6 bits: nibbles in bytes 0 .. 7, the upper 2 bits in bytes 8 .. 11. */
static int tfi_scale_q3(const unsigned char *s, int i) {
    return (s[i % 8] >> i / 8 * 4 & 15) | (s[8 + i % 4] >> i / 4 * 2 & 3) << 4;
}
/* TQ1_0: 256 digits, 0 .. 2.  A byte is five digits of a fraction in base 3: times 3^p, without its
 * carry, it begins with digit p. */
static TFI_FORCE_INLINE void tfi_get_trits(const unsigned char *b, unsigned char *digits) {
    for (int p = 0, power = 1; p < 5; p++, power *= 3) {
        for (int i = 0; i < 32; i++)
            digits[32 * p + i] = (unsigned char)((b[i] * power & 255) * 3 >> 8);
        for (int i = 0; i < 16; i++)
            digits[160 + 16 * p + i] = (unsigned char)((b[32 + i] * power & 255) * 3 >> 8);
        for (int i = 0; i < 4 && p < 4; i++)
            digits[240 + 4 * p + i] = (unsigned char)((b[48 + i] * power & 255) * 3 >> 8);
    }
}

static void tfi_set_scales(tfi_block *o, float scale, float offset) {
    for (int g = 0; g < 16; g++) o->scale[g] = scale, o->offset[g] = offset;
}

static void tfi_unpack_q4_0(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), 0);
    tfi_nibbles(o->q, b + 2, 32, 16);
    for (int i = 0; i < 32; i++) o->q[i] = (int8_t)(o->q[i] - 8);
}
static void tfi_unpack_q4_1(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), tfi_f16_at(b + 2));
    tfi_nibbles(o->q, b + 4, 32, 16);
}
static void tfi_unpack_q5_0(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), 0);
    tfi_nibbles(o->q, b + 6, 32, 16);
    for (int i = 0; i < 32; i++)
        o->q[i] = (int8_t)(o->q[i] + 16 * (b[2 + i / 8] >> i % 8 & 1) - 16);
}
static void tfi_unpack_q5_1(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), tfi_f16_at(b + 2));
    tfi_nibbles(o->q, b + 8, 32, 16);
    for (int i = 0; i < 32; i++) o->q[i] = (int8_t)(o->q[i] + 16 * (b[4 + i / 8] >> i % 8 & 1));
}
static void tfi_unpack_q8_0(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), 0);
    memcpy(o->q, b + 2, 32);
}
static void tfi_unpack_iq4_nl(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b), 0);
    tfi_nibbles(o->q, b + 2, 32, 16);
    for (int i = 0; i < 32; i++) o->q[i] = tfi_iq4_values[o->q[i]];
}
/* 2^(e - 128), half of E8M0's value since the table is doubled; the two smallest are denormal. */
static float tfi_mxfp4_scale(int e) {
    return tfi_bits_to_float(e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23);
}
static void tfi_unpack_mxfp4(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_mxfp4_scale(b[0]), 0);
    tfi_nibbles(o->q, b + 1, 32, 16);
    for (int i = 0; i < 32; i++) o->q[i] = tfi_mxfp4_values[o->q[i]];
}
static void tfi_unpack_q2_k(const unsigned char *b, tfi_block *o) {
    float d = tfi_f16_at(b + 80), m = tfi_f16_at(b + 82);
    for (int g = 0; g < 16; g++)
        o->scale[g] = d * (float)(b[g] & 15), o->offset[g] = -(m * (float)(b[g] >> 4));
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)tfi_crumb(b + 16, i);
}
static void tfi_unpack_q3_k(const unsigned char *b, tfi_block *o) {
    float d = tfi_f16_at(b + 108);
    for (int g = 0; g < 16; g++) o->scale[g] = d * (float)(tfi_scale_q3(b + 96, g) - 32);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(tfi_crumb(b + 32, i) + 4 * tfi_bit(b, i) - 4);
}
static void tfi_scales_q4_k(const unsigned char *b, tfi_block *o) {
    float d = tfi_f16_at(b), m = tfi_f16_at(b + 2);
    for (int g = 0; g < 16; g++)
        o->scale[g] = d * (float)tfi_scale6(b + 4, g / 2, 0),
        o->offset[g] = -(m * (float)tfi_scale6(b + 4, g / 2, 1));
}
static void tfi_unpack_q4_k(const unsigned char *b, tfi_block *o) {
    tfi_scales_q4_k(b, o);
    tfi_nibbles(o->q, b + 16, 256, 32);
}
static void tfi_unpack_q5_k(const unsigned char *b, tfi_block *o) {
    tfi_scales_q4_k(b, o);
    tfi_nibbles(o->q, b + 48, 256, 32);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(o->q[i] + 16 * tfi_bit(b + 16, i));
}
static void tfi_unpack_q6_k(const unsigned char *b, tfi_block *o) {
    float d = tfi_f16_at(b + 208);
    for (int g = 0; g < 16; g++) o->scale[g] = d * (float)(int8_t)b[192 + g];
    tfi_nibbles(o->q, b, 256, 64);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(o->q[i] + 16 * tfi_crumb(b + 128, i) - 32);
}
static void tfi_unpack_iq4_xs(const unsigned char *b, tfi_block *o) {
    float d = tfi_f16_at(b);
    uint16_t high = tfi_half_at(b + 2);
    for (int g = 0; g < 16; g++) {
        int low = b[4 + g / 4] >> g / 2 % 2 * 4 & 15, top = high >> g / 2 * 2 & 3;
        o->scale[g] = d * (float)(low + 16 * top - 32);
    }
    tfi_nibbles(o->q, b + 8, 256, 16);
    for (int i = 0; i < 256; i++) o->q[i] = tfi_iq4_values[o->q[i]];
}
static void tfi_unpack_tq1_0(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b + 52), 0);
    unsigned char digits[256];
    tfi_get_trits(b, digits);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(digits[i] - 1);
}
static void tfi_unpack_tq2_0(const unsigned char *b, tfi_block *o) {
    tfi_set_scales(o, tfi_f16_at(b + 64), 0);
    for (int i = 0; i < 256; i++) o->q[i] = (int8_t)(tfi_crumb(b, i) - 1);
}

/* type, elements and bytes of a block, alignment, where its scale is, what makes its integers
 * unsigned (0: they are, and come with offsets), scales per 32 elements, decoder */
#define TFI_QUANTISED(M)                                                                           \
    M(Q4_0, 32, 18, 2, 0, 8, 1, q4_0)                                                              \
    M(Q4_1, 32, 20, 2, 0, 0, 1, q4_1)                                                              \
    M(Q5_0, 32, 22, 2, 0, 16, 1, q5_0)                                                             \
    M(Q5_1, 32, 24, 2, 0, 0, 1, q5_1)                                                              \
    M(Q8_0, 32, 34, 2, 0, 128, 1, q8_0)                                                            \
    M(IQ4_NL, 32, 18, 2, 0, 128, 1, iq4_nl)                                                        \
    M(MXFP4, 32, 17, 1, 0, 16, 1, mxfp4)                                                           \
    M(Q2_K, 256, 84, 2, 80, 0, 2, q2_k)                                                            \
    M(Q3_K, 256, 110, 2, 108, 4, 2, q3_k)                                                          \
    M(Q4_K, 256, 144, 2, 0, 0, 1, q4_k)                                                            \
    M(Q5_K, 256, 176, 2, 0, 0, 1, q5_k)                                                            \
    M(Q6_K, 256, 210, 2, 208, 32, 2, q6_k)                                                         \
    M(IQ4_XS, 256, 136, 2, 0, 128, 1, iq4_xs)                                                      \
    M(TQ1_0, 256, 54, 2, 52, 1, 1, tq1_0)                                                          \
    M(TQ2_0, 256, 66, 2, 64, 1, 1, tq2_0)
#define TFI_FORMAT_ENTRY(type, block, size, alignment, scale_at, bias, groups, function)           \
    {TRANSFORMER_##type,   #type, block, size, alignment, scale_at, bias, groups,                  \
     tfi_unpack_##function},

typedef struct tfi_format {
    int dtype;
    const char *name;
    int block, size, alignment, scale_at, bias, groups;
    void (*unpack)(const unsigned char *block, tfi_block *out);
} tfi_format;

static const tfi_format tfi_formats[] = {{TRANSFORMER_F32, "F32", 1, 4, 4, 0, 0, 1, NULL},
                                         {TRANSFORMER_F16, "F16", 1, 2, 2, 0, 0, 1, NULL},
                                         {TRANSFORMER_BF16, "BF16", 1, 2, 2, 0, 0, 1, NULL},
                                         TFI_QUANTISED(TFI_FORMAT_ENTRY)
                                         /* known by name only */
                                         {9, "Q8_1", 0, 0, 0, 0, 0, 0, NULL},
                                         {15, "Q8_K", 0, 0, 0, 0, 0, 0, NULL},
                                         {16, "IQ2_XXS", 0, 0, 0, 0, 0, 0, NULL},
                                         {17, "IQ2_XS", 0, 0, 0, 0, 0, 0, NULL},
                                         {18, "IQ3_XXS", 0, 0, 0, 0, 0, 0, NULL},
                                         {19, "IQ1_S", 0, 0, 0, 0, 0, 0, NULL},
                                         {21, "IQ3_S", 0, 0, 0, 0, 0, 0, NULL},
                                         {22, "IQ2_S", 0, 0, 0, 0, 0, 0, NULL},
                                         {24, "I8", 0, 0, 0, 0, 0, 0, NULL},
                                         {25, "I16", 0, 0, 0, 0, 0, 0, NULL},
                                         {26, "I32", 0, 0, 0, 0, 0, 0, NULL},
                                         {27, "I64", 0, 0, 0, 0, 0, 0, NULL},
                                         {28, "F64", 0, 0, 0, 0, 0, 0, NULL},
                                         {29, "IQ1_M", 0, 0, 0, 0, 0, 0, NULL},
                                         {40, "NVFP4", 0, 0, 0, 0, 0, 0, NULL},
                                         {41, "Q1_0", 0, 0, 0, 0, 0, 0, NULL},
                                         {42, "Q2_0", 0, 0, 0, 0, 0, 0, NULL}};

static const tfi_format *tfi_format_of(int dtype) {
    static const tfi_format unknown = {-1, "unknown type", 0, 0, 0, 0, 0, 0, NULL};
    for (size_t i = 0; i < sizeof tfi_formats / sizeof tfi_formats[0]; i++)
        if (tfi_formats[i].dtype == dtype) return &tfi_formats[i];
    return &unknown;
}

TFI_DEF const char *transformer_dtype_name(int dtype) { return tfi_format_of(dtype)->name; }
TFI_DEF int transformer_dtype_block(int dtype) { return tfi_format_of(dtype)->block; }
TFI_DEF size_t transformer_dtype_size(int dtype) { return (size_t)tfi_format_of(dtype)->size; }
TFI_DEF size_t transformer_row_size(int dtype, int cols) {
    const tfi_format *f = tfi_format_of(dtype);
    if (!f->block || cols < 0 || cols % f->block) return 0;
    return tfi_times((size_t)(cols / f->block), (size_t)f->size);
}
static size_t tfi_alignment(int dtype) { return (size_t)tfi_format_of(dtype)->alignment; }
static size_t tfi_tensor_bytes(const transformer_tensor *t) {
    return (size_t)t->rows * transformer_row_size(t->dtype, t->cols);
}

static void tfi_decode_halves(float *out, const unsigned char *from, int n, int dtype) {
    for (int i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + (size_t)i * sizeof half, sizeof half);
        out[i] = dtype == TRANSFORMER_F16 ? tfi_from_f16(half) : tfi_from_bf16(half);
    }
}

/* out[i] = element `first + i` of the tensor, counted along its rows.  Reads through memcpy: data
 * needs no alignment here. */
static void tfi_decode(float *out, const transformer_tensor *t, size_t first, int n) {
    const tfi_format *f = tfi_format_of(t->dtype);
    size_t block = (size_t)f->block;
    const unsigned char *from = (const unsigned char *)t->data + first / block * (size_t)f->size;
    if (t->dtype == TRANSFORMER_F32) memcpy(out, from, (size_t)n * sizeof *out);
    else if (!f->unpack) tfi_decode_halves(out, from, n, t->dtype);
    for (int i = 0, at = (int)(first % block); f->unpack && i < n; at = 0, from += f->size) {
        tfi_block b;
        f->unpack(from, &b);
        for (; at < f->block && i < n; at++, i++) {
            out[i] = b.scale[at / 16] * (float)b.q[at];
            if (!f->bias) out[i] += b.offset[at / 16];
        }
    }
}

TFI_DEF transformer_status transformer_decode(float *out, const transformer_tensor *t, int row,
                                              int n_rows) {
    if (!out || !t || !t->data || t->rows < 0 || t->cols < 0 || row < 0 || n_rows < 0 ||
        row > t->rows - n_rows || (t->cols && !transformer_row_size(t->dtype, t->cols)))
        return TRANSFORMER_ARGUMENT;
    for (int i = 0; i < n_rows; i++)
        tfi_decode(out + (size_t)i * (size_t)t->cols, t, (size_t)(row + i) * (size_t)t->cols,
                   t->cols);
    return TRANSFORMER_OK;
}

/* ==== >>math =================================================================================
 *
 * Every operation of the model in its plainest form: what the vector kernels further down are
 * tested against, and the place to read what they compute.  Nothing here is called by forward()
 * unless it says so.
 */

/* y[r] = sum_k w[r, k] x[k]. */
static TFI_UNUSED void tfi_reference_matvec(float *y, const transformer_tensor *w, const float *x) {
    for (int r = 0; r < w->rows; r++) {
        double sum = 0;
        for (int k = 0; k < w->cols; k++) {
            float weight;
            tfi_decode(&weight, w, (size_t)r * (size_t)w->cols + (size_t)k, 1);
            sum += (double)weight * (double)x[k];
        }
        y[r] = (float)sum;
    }
}

/* x[i] = exp(x[i] - max) / sum.  Subtracting the maximum keeps exp in range and changes nothing
 * else. */
static TFI_UNUSED void tfi_reference_softmax(float *x, int n) {
    double max = -DBL_MAX, sum = 0;
    for (int i = 0; i < n; i++) max = x[i] > max ? (double)x[i] : max;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - max);
    for (int i = 0; i < n; i++) x[i] = (float)(exp((double)x[i] - max) / sum);
}

/* RMS: x / sqrt(mean x^2 + eps).  Layer: the same after subtracting the mean. */
static TFI_UNUSED void tfi_reference_norm(float *out, const float *x, const float *weight,
                                          const float *bias, int n, float eps, int kind) {
    double mean = 0, square = 0;
    for (int i = 0; i < n; i++) mean += kind == TRANSFORMER_NORM_LAYER ? (double)x[i] / n : 0;
    for (int i = 0; i < n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
    for (int i = 0; i < n; i++) {
        double y = ((double)x[i] - mean) / sqrt(square + (double)eps);
        out[i] = (float)(y * (weight ? (double)weight[i] : 1) + (bias ? (double)bias[i] : 0));
    }
}

/* Hendrycks & Gimpel 2016 (arXiv:1606.08415) for GELU, So et al. 2021 (arXiv:2109.08668) for
 * squared ReLU. */
static TFI_UNUSED double tfi_reference_activation(double x, int kind) {
    switch (kind) {
    case TRANSFORMER_SILU: return x / (1 + exp(-x));
    case TRANSFORMER_GELU: return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case TRANSFORMER_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case TRANSFORMER_GELU_QUICK: return x / (1 + exp(-1.702 * x));
    case TRANSFORMER_RELU: return x > 0 ? x : 0;
    case TRANSFORMER_RELU2: return x > 0 ? x * x : 0;
    case TRANSFORMER_TANH: return tanh(x);
    case TRANSFORMER_SIGMOID: return 1 / (1 + exp(-x));
    default: return x;
    }
}

/* Turns each pair of one head by its angle (used by forward; there is no faster one).
 * (x, y) -> (x cos - y sin, x sin + y cos); pair i is (i, i + pairs) or (2i, 2i + 1). */
static void tfi_rotate_pair(float *x, int apart, float cosine, float sine) {
    float a = x[0], b = x[apart];
    x[0] = a * cosine - b * sine;
    x[apart] = a * sine + b * cosine;
}
static void tfi_rotate(float *x, int pairs, int pairing, const float *cosine, const float *sine) {
    int step = pairing == TRANSFORMER_ROPE_HALF ? 1 : 2,
        apart = pairing == TRANSFORMER_ROPE_HALF ? pairs : 1;
    for (int i = 0; i < pairs; i++) tfi_rotate_pair(x + i * step, apart, cosine[i], sine[i]);
}

/* One query over n keys: the definition that >>forward's blockwise attention computes in another
 * order. */
static TFI_UNUSED void tfi_reference_attention(float *out, float *weights, const float *q,
                                               const float *k, const float *v, int n, int key_dim,
                                               int value_dim, float scale) {
    for (int j = 0; j < n; j++) {
        double score = 0;
        for (int i = 0; i < key_dim; i++) score += (double)q[i] * (double)k[j * key_dim + i];
        weights[j] = (float)(score * (double)scale);
    }
    tfi_reference_softmax(weights, n);
    for (int i = 0; i < value_dim; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++) sum += (double)weights[j] * (double)v[j * value_dim + i];
        out[i] = (float)sum;
    }
}

/* ALiBi slope of a head (Press et al. 2021, arXiv:2108.12409, section 3; for a number of heads
 * that is no power of two, the published code's interleaving). */
static float tfi_alibi_slope(int head, int n_heads, float max_bias) {
    int power = 1;
    while (power * 2 <= n_heads) power *= 2;
    double exponent =
        head < power ? (double)(head + 1) / power : (2.0 * (head - power) + 1) / (2.0 * power);
    return (float)pow(2.0, -(double)max_bias * exponent);
}

/* ==== >>config =============================================================================== */

static int tfi_n_heads(const transformer_config *c, int layer) {
    return c->layers[layer].n_heads ? c->layers[layer].n_heads : c->n_heads;
}
static int tfi_n_kv_heads(const transformer_config *c, int layer) {
    if (c->layers[layer].n_kv_heads) return c->layers[layer].n_kv_heads;
    return c->n_kv_heads ? c->n_kv_heads : tfi_n_heads(c, layer);
}
static int tfi_head_dim(const transformer_config *c) {
    return c->head_dim ? c->head_dim : c->n_heads > 0 ? c->dim / c->n_heads : 0;
}
static int tfi_value_dim(const transformer_config *c) {
    return c->value_dim ? c->value_dim : tfi_head_dim(c);
}
static int tfi_embedding_dim(const transformer_config *c) {
    return c->embedding_dim ? c->embedding_dim : c->dim;
}
static int tfi_mlp_dim(const transformer_config *c, int layer) {
    return c->layers[layer].mlp_dim ? c->layers[layer].mlp_dim : c->mlp_dim;
}
static float tfi_attn_scale(const transformer_config *c, int layer) {
    float own = c->layers[layer].attn_scale, common = c->attn_scale;
    return own != 0 ? own : common != 0 ? common : (float)(1.0 / sqrt((double)tfi_head_dim(c)));
}
static const transformer_rope *tfi_layer_rope(const transformer_config *c, int layer) {
    int id = c->layers[layer].rope;
    return id < 0 || c->rope[id].dims == 0 ? NULL : &c->rope[id];
}

TFI_DEF void transformer_config_defaults(transformer_config *c) {
    if (!c) return;
    memset(c, 0, sizeof *c);
    c->norm = TRANSFORMER_NORM_RMS, c->norm_weight = 1, c->norm_eps = 1e-5f;
    c->norm_placement = TRANSFORMER_PLACE_INPUT, c->final_norm = 1, c->causal = 1;
    c->activation = TRANSFORMER_SILU, c->gated = 1;
    c->embedding_scale = c->residual_scale = c->logit_scale = 1;
    for (int i = 0; i < 2; i++)
        c->rope[i].theta = 1e4, c->rope[i].factor = c->rope[i].attention_factor = 1;
    c->rope[0].dims = -1;
}

/* One line per rule: a name, the range of an int field. */
typedef struct tfi_int_rule {
    const char *name;
    size_t offset;
    int low, high;
} tfi_int_rule;
enum { TFI_MAX_DIM = 1 << 24, TFI_MAX_CONTEXT = 1 << 30 };
#define TFI_RULE(field, low, high)                                                                 \
    { #field, offsetof(transformer_config, field), low, high }
static const tfi_int_rule tfi_int_rules[] = {
    TFI_RULE(dim, 1, TFI_MAX_DIM),
    TFI_RULE(n_layers, 0, TRANSFORMER_MAX_LAYERS),
    TFI_RULE(n_heads, 0, TFI_MAX_DIM),
    TFI_RULE(n_kv_heads, 0, TFI_MAX_DIM),
    TFI_RULE(head_dim, 0, TRANSFORMER_MAX_HEAD_DIM),
    TFI_RULE(value_dim, 0, TRANSFORMER_MAX_HEAD_DIM),
    TFI_RULE(mlp_dim, 0, TFI_MAX_DIM),
    TFI_RULE(vocab_size, 1, TFI_MAX_DIM),
    TFI_RULE(embedding_dim, 0, TFI_MAX_DIM),
    TFI_RULE(context, 1, TFI_MAX_CONTEXT),
    TFI_RULE(norm, TRANSFORMER_NORM_RMS, TRANSFORMER_NORM_LAYER),
    TFI_RULE(norm_weight, 0, 1),
    TFI_RULE(norm_bias, 0, 1),
    TFI_RULE(norm_plus_one, 0, 1),
    TFI_RULE(norm_placement, 0, 7),
    TFI_RULE(embedding_norm, 0, 1),
    TFI_RULE(final_norm, 0, 1),
    TFI_RULE(parallel, 0, TRANSFORMER_PARALLEL_TWO),
    TFI_RULE(residual_from_norm, 0, 1),
    TFI_RULE(causal, 0, 1),
    TFI_RULE(position, 0, TRANSFORMER_POSITION_ALIBI),
    TFI_RULE(position_offset, 0, 1 << 20),
    TFI_RULE(alibi_falcon, 0, 1),
    TFI_RULE(biases, 0, 255),
    TFI_RULE(qk_norm, 0, TRANSFORMER_QK_NORM_PER_HEAD),
    TFI_RULE(qk_norm_after_rope, 0, 1),
    TFI_RULE(logn_length, 0, TFI_MAX_CONTEXT),
    TFI_RULE(activation, 0, TRANSFORMER_IDENTITY),
    TFI_RULE(gated, 0, 1),
    TFI_RULE(tied, 0, 1)};

typedef struct tfi_float_rule {
    const char *name;
    size_t offset;
    float low;
} tfi_float_rule;
#define TFI_FLOAT_RULE(field, low)                                                                 \
    { #field, offsetof(transformer_config, field), low }
static const tfi_float_rule tfi_float_rules[] = {TFI_FLOAT_RULE(norm_eps, 0),
                                                 TFI_FLOAT_RULE(alibi_max_bias, 0),
                                                 TFI_FLOAT_RULE(attn_scale, -FLT_MAX),
                                                 TFI_FLOAT_RULE(attn_softcap, 0),
                                                 TFI_FLOAT_RULE(qkv_clip, 0),
                                                 TFI_FLOAT_RULE(embedding_scale, -FLT_MAX),
                                                 TFI_FLOAT_RULE(residual_scale, -FLT_MAX),
                                                 TFI_FLOAT_RULE(logit_scale, -FLT_MAX),
                                                 TFI_FLOAT_RULE(logit_softcap, 0)};

static transformer_status tfi_bad(transformer_error *error, const char *field, const char *why) {
    return tfi_fail(error, TRANSFORMER_CONFIG, "%s %s", field, why);
}

static transformer_status tfi_check_fields(const transformer_config *c, transformer_error *error) {
    for (size_t i = 0; i < sizeof tfi_int_rules / sizeof tfi_int_rules[0]; i++) {
        const tfi_int_rule *rule = &tfi_int_rules[i];
        int value;
        memcpy(&value, (const unsigned char *)c + rule->offset, sizeof value);
        if (value < rule->low || value > rule->high)
            return tfi_fail(error, TRANSFORMER_CONFIG, "%s is %d, not in %d .. %d", rule->name,
                            value, rule->low, rule->high);
    }
    for (size_t i = 0; i < sizeof tfi_float_rules / sizeof tfi_float_rules[0]; i++) {
        float value;
        memcpy(&value, (const unsigned char *)c + tfi_float_rules[i].offset, sizeof value);
        if (!(value >= tfi_float_rules[i].low && value <= FLT_MAX))
            return tfi_bad(error, tfi_float_rules[i].name, "is out of range or no number");
    }
    return TRANSFORMER_OK;
}

static int tfi_outside(double value, double low, double high) {
    return !(value >= low && value <= high);
}

static transformer_status tfi_check_rope(const transformer_rope *r, int id, int head_dim,
                                         transformer_error *error) {
    const char *field = NULL;
    int stretched = r->scaling == TRANSFORMER_ROPE_DYNAMIC ||
                    r->scaling == TRANSFORMER_ROPE_LLAMA3 || r->scaling == TRANSFORMER_ROPE_YARN ||
                    r->scaling == TRANSFORMER_ROPE_LONG;
    if (r->dims == 0) return TRANSFORMER_OK;
    if (r->dims < -1 || r->dims > head_dim || (r->dims == -1 ? head_dim % 2 : r->dims % 2))
        field = "dims";
    else if (r->pairing < 0 || r->pairing > TRANSFORMER_ROPE_INTERLEAVED) field = "pairing";
    else if (r->reverse < 0 || r->reverse > 1) field = "reverse";
    else if (r->scaling < 0 || r->scaling > TRANSFORMER_ROPE_LONG) field = "scaling";
    else if (tfi_outside(r->theta, 1e-3, 1e30)) field = "theta";
    else if (tfi_outside(r->attention_factor, 1e-6, 1e6)) field = "attention_factor";
    else if (r->scaling != TRANSFORMER_ROPE_PLAIN && tfi_outside(r->factor, 1e-6, 1e9))
        field = "factor";
    else if (stretched && (r->original_context < 1 || r->original_context > TFI_MAX_CONTEXT))
        field = "original_context";
    else if (r->scaling == TRANSFORMER_ROPE_LLAMA3 && tfi_outside(r->low_freq_factor, 1e-6, 1e6))
        field = "low_freq_factor";
    else if (r->scaling == TRANSFORMER_ROPE_LLAMA3 &&
             tfi_outside(r->high_freq_factor, r->low_freq_factor + 1e-6, 1e6))
        field = "high_freq_factor";
    else if (r->scaling == TRANSFORMER_ROPE_YARN && tfi_outside(r->beta_slow, 1e-6, 1e6))
        field = "beta_slow";
    else if (r->scaling == TRANSFORMER_ROPE_YARN && tfi_outside(r->beta_fast, r->beta_slow, 1e6))
        field = "beta_fast";
    if (field) return tfi_fail(error, TRANSFORMER_CONFIG, "rope[%d].%s is out of range", id, field);
    int pairs = (r->dims == -1 ? head_dim : r->dims) / 2;
    for (int i = 0; r->scaling == TRANSFORMER_ROPE_LONG && i < pairs; i++)
        if (tfi_outside((double)r->short_factors[i], 1e-6, 1e6) ||
            tfi_outside((double)r->long_factors[i], 1e-6, 1e6))
            return tfi_fail(error, TRANSFORMER_CONFIG, "rope[%d]: factor %d is out of range", id,
                            i);
    return TRANSFORMER_OK;
}

static transformer_status tfi_check_layer(const transformer_config *c, int l,
                                          transformer_error *error) {
    const transformer_layer *layer = &c->layers[l];
    const char *field = NULL;
    if (layer->window < 0 || layer->window > TFI_MAX_CONTEXT || (layer->window && !c->causal))
        field = "window";
    else if (layer->rope < -1 || layer->rope > 1 || (layer->rope == 1 && c->rope[1].dims == 0))
        field = "rope";
    else if (layer->no_attention < 0 || layer->no_attention > 1) field = "no_attention";
    else if (layer->no_mlp < 0 || layer->no_mlp > 1) field = "no_mlp";
    else if (layer->n_heads < 0 || layer->n_heads > TFI_MAX_DIM) field = "n_heads";
    else if (layer->n_kv_heads < 0 || layer->n_kv_heads > TFI_MAX_DIM) field = "n_kv_heads";
    else if (layer->mlp_dim < 0 || layer->mlp_dim > TFI_MAX_DIM) field = "mlp_dim";
    else if (tfi_outside((double)layer->attn_scale, -(double)FLT_MAX, (double)FLT_MAX))
        field = "attn_scale";
    else if (!layer->no_mlp && tfi_mlp_dim(c, l) < 1) field = "mlp_dim";
    else if (!layer->no_attention) {
        int heads = tfi_n_heads(c, l), kv = tfi_n_kv_heads(c, l),
            widest = tfi_max(tfi_head_dim(c), tfi_value_dim(c));
        if (heads < 1 || heads > TFI_MAX_DIM / tfi_max(widest, 1)) field = "n_heads";
        else if (kv < 1 || kv > heads || heads % kv) field = "n_kv_heads";
    }
    return field ? tfi_fail(error, TRANSFORMER_CONFIG,
                            "layers[%d].%s is out of range or contradicts another field", l, field)
                 : TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_config_check(const transformer_config *c,
                                                    transformer_error *error) {
    int needs_heads = 0, place;
    if (!c) return tfi_fail(error, TRANSFORMER_ARGUMENT, "config is NULL");
    if (tfi_check_fields(c, error)) return TRANSFORMER_CONFIG;
    place = c->norm_placement;
    for (int l = 0; l < c->n_layers; l++) needs_heads |= c->layers[l].no_attention == 0;
    if (needs_heads && c->n_heads < 1) return tfi_bad(error, "n_heads", "is 0");
    if (needs_heads && (tfi_head_dim(c) < 1 || tfi_head_dim(c) > TRANSFORMER_MAX_HEAD_DIM))
        return tfi_bad(error, "head_dim", "is 0 or too large");
    for (int i = 0; needs_heads && i < 2; i++)
        if (tfi_check_rope(&c->rope[i], i, tfi_head_dim(c), error)) return TRANSFORMER_CONFIG;
    if ((place & TRANSFORMER_PLACE_SUM) && (place != TRANSFORMER_PLACE_SUM || c->parallel))
        return tfi_bad(error, "norm_placement", "SUM excludes INPUT, OUTPUT and parallel blocks");
    if (c->residual_from_norm && (c->parallel || !(place & TRANSFORMER_PLACE_INPUT)))
        return tfi_bad(error, "residual_from_norm",
                       "needs sequential blocks with a norm on their input");
    if (c->position == TRANSFORMER_POSITION_ALIBI && !(c->alibi_max_bias > 0))
        return tfi_bad(error, "alibi_max_bias", "is not above 0");
    if (c->logn_length == 1) return tfi_bad(error, "logn_length", "is 1");
    for (int l = 0; l < c->n_layers; l++)
        if (tfi_check_layer(c, l, error)) return TRANSFORMER_CONFIG;
    return tfi_ok(error);
}

/* ---- the tensors of a configuration ---- */

enum { TFI_MATRIX, TFI_NORM_WEIGHT, TFI_VECTOR };
typedef struct tfi_role_info {
    const char *name;
    int per_layer, kind;
} tfi_role_info;
static const tfi_role_info tfi_roles[TRANSFORMER_N_ROLES] = {
    {"embedding", 0, TFI_MATRIX},
    {"embedding_projection", 0, TFI_MATRIX},
    {"position_embedding", 0, TFI_MATRIX},
    {"embedding_norm", 0, TFI_NORM_WEIGHT},
    {"embedding_norm_bias", 0, TFI_VECTOR},
    {"attn_norm", 1, TFI_NORM_WEIGHT},
    {"attn_norm_bias", 1, TFI_VECTOR},
    {"q", 1, TFI_MATRIX},
    {"q_bias", 1, TFI_VECTOR},
    {"k", 1, TFI_MATRIX},
    {"k_bias", 1, TFI_VECTOR},
    {"v", 1, TFI_MATRIX},
    {"v_bias", 1, TFI_VECTOR},
    {"q_norm", 1, TFI_NORM_WEIGHT},
    {"q_norm_bias", 1, TFI_VECTOR},
    {"k_norm", 1, TFI_NORM_WEIGHT},
    {"k_norm_bias", 1, TFI_VECTOR},
    {"attn_out", 1, TFI_MATRIX},
    {"attn_out_bias", 1, TFI_VECTOR},
    {"attn_post_norm", 1, TFI_NORM_WEIGHT},
    {"attn_post_norm_bias", 1, TFI_VECTOR},
    {"mlp_norm", 1, TFI_NORM_WEIGHT},
    {"mlp_norm_bias", 1, TFI_VECTOR},
    {"mlp_gate", 1, TFI_MATRIX},
    {"mlp_gate_bias", 1, TFI_VECTOR},
    {"mlp_up", 1, TFI_MATRIX},
    {"mlp_up_bias", 1, TFI_VECTOR},
    {"mlp_down", 1, TFI_MATRIX},
    {"mlp_down_bias", 1, TFI_VECTOR},
    {"mlp_post_norm", 1, TFI_NORM_WEIGHT},
    {"mlp_post_norm_bias", 1, TFI_VECTOR},
    {"final_norm", 0, TFI_NORM_WEIGHT},
    {"final_norm_bias", 0, TFI_VECTOR},
    {"head_projection", 0, TFI_MATRIX},
    {"head", 0, TFI_MATRIX},
    {"head_bias", 0, TFI_VECTOR}};

TFI_DEF const char *transformer_role_name(int role) {
    return role >= 0 && role < TRANSFORMER_N_ROLES ? tfi_roles[role].name : "unknown role";
}

/* Does this model have the tensor, and of what shape?  A norm's bias follows its weight in the
 * enumeration. */
static int tfi_shape_of_norm(const transformer_config *c, int role, int l, int *cols) {
    int in_or_sum = c->norm_placement & (TRANSFORMER_PLACE_INPUT | TRANSFORMER_PLACE_SUM);
    int out = c->norm_placement & TRANSFORMER_PLACE_OUTPUT;
    const transformer_layer *layer = &c->layers[l];
    int attention = !layer->no_attention, mlp = !layer->no_mlp,
        shared = c->parallel == TRANSFORMER_PARALLEL_SHARED;
    *cols = c->dim;
    switch (role) {
    case TRANSFORMER_EMBEDDING_NORM: return c->embedding_norm;
    case TRANSFORMER_ATTN_NORM: return in_or_sum && (attention || (shared && mlp));
    case TRANSFORMER_ATTN_POST_NORM: return out && attention;
    case TRANSFORMER_MLP_NORM: return in_or_sum && mlp && !shared;
    case TRANSFORMER_MLP_POST_NORM: return out && mlp;
    case TRANSFORMER_FINAL_NORM: return c->final_norm;
    case TRANSFORMER_Q_NORM:
    case TRANSFORMER_K_NORM:
        *cols = tfi_head_dim(c);
        if (c->qk_norm >= TRANSFORMER_QK_NORM_FULL)
            *cols *= role == TRANSFORMER_Q_NORM ? tfi_n_heads(c, l) : tfi_n_kv_heads(c, l);
        return attention && c->qk_norm != TRANSFORMER_QK_NORM_NONE;
    default: return 0;
    }
}

static int tfi_shape_of_matrix(const transformer_config *c, int role, int l, int *rows, int *cols) {
    int projected = tfi_embedding_dim(c) != c->dim;
    int attention = !c->layers[l].no_attention, mlp = !c->layers[l].no_mlp;
    *rows = *cols = c->dim;
    switch (role) {
    case TRANSFORMER_EMBEDDING: return *rows = c->vocab_size, *cols = tfi_embedding_dim(c), 1;
    case TRANSFORMER_EMBEDDING_PROJECTION: return *cols = tfi_embedding_dim(c), projected;
    case TRANSFORMER_POSITION_EMBEDDING:
        return *rows = c->context + c->position_offset, c->position == TRANSFORMER_POSITION_LEARNED;
    case TRANSFORMER_Q: return *rows = tfi_n_heads(c, l) * tfi_head_dim(c), attention;
    case TRANSFORMER_K: return *rows = tfi_n_kv_heads(c, l) * tfi_head_dim(c), attention;
    case TRANSFORMER_V: return *rows = tfi_n_kv_heads(c, l) * tfi_value_dim(c), attention;
    case TRANSFORMER_ATTN_OUT: return *cols = tfi_n_heads(c, l) * tfi_value_dim(c), attention;
    case TRANSFORMER_MLP_GATE: return *rows = tfi_mlp_dim(c, l), mlp && c->gated;
    case TRANSFORMER_MLP_UP: return *rows = tfi_mlp_dim(c, l), mlp;
    case TRANSFORMER_MLP_DOWN: return *cols = tfi_mlp_dim(c, l), mlp;
    case TRANSFORMER_HEAD_PROJECTION: return *rows = tfi_embedding_dim(c), projected;
    case TRANSFORMER_HEAD: return *rows = c->vocab_size, *cols = tfi_embedding_dim(c), !c->tied;
    default: return 0;
    }
}

static int tfi_has_bias(const transformer_config *c, int matrix_role) {
    switch (matrix_role) {
    case TRANSFORMER_Q: return c->biases & TRANSFORMER_BIAS_Q;
    case TRANSFORMER_K: return c->biases & TRANSFORMER_BIAS_K;
    case TRANSFORMER_V: return c->biases & TRANSFORMER_BIAS_V;
    case TRANSFORMER_ATTN_OUT: return c->biases & TRANSFORMER_BIAS_ATTN_OUT;
    case TRANSFORMER_MLP_GATE:
    case TRANSFORMER_MLP_UP: return c->biases & TRANSFORMER_BIAS_MLP_UP;
    case TRANSFORMER_MLP_DOWN: return c->biases & TRANSFORMER_BIAS_MLP_DOWN;
    default: return 0;
    }
}

/* The shape for a valid configuration and a role and layer in range. */
static int tfi_shape(const transformer_config *c, int role, int l, int *rows, int *cols) {
    int weights; /* rows of the matrix that a bias belongs to */
    *rows = 1;
    if (tfi_roles[role].kind == TFI_MATRIX) return tfi_shape_of_matrix(c, role, l, rows, cols) != 0;
    if (tfi_roles[role].kind == TFI_NORM_WEIGHT)
        return tfi_shape_of_norm(c, role, l, cols) && c->norm_weight;
    if (role == TRANSFORMER_HEAD_BIAS)
        return *cols = c->vocab_size, (c->biases & TRANSFORMER_BIAS_HEAD) != 0;
    if (tfi_roles[role - 1].kind == TFI_NORM_WEIGHT) {
        int of_qk = role == TRANSFORMER_Q_NORM_BIAS || role == TRANSFORMER_K_NORM_BIAS;
        return tfi_shape_of_norm(c, role - 1, l, cols) &&
               (of_qk ? c->biases & TRANSFORMER_BIAS_QK_NORM : c->norm_bias);
    }
    return tfi_shape_of_matrix(c, role - 1, l, cols, &weights) && tfi_has_bias(c, role - 1);
}

static int tfi_role_in_range(const transformer_config *c, int role, int layer) {
    if (role < 0 || role >= TRANSFORMER_N_ROLES) return 0;
    return tfi_roles[role].per_layer ? layer >= 0 && layer < c->n_layers : layer == 0;
}

TFI_DEF int transformer_tensor_shape(const transformer_config *c, int role, int layer, int *rows,
                                     int *cols) {
    int r, k;
    if (transformer_config_check(c, NULL) || !tfi_role_in_range(c, role, layer)) return 0;
    if (!tfi_shape(c, role, layer, &r, &k)) return 0;
    if (rows) *rows = r;
    if (cols) *cols = k;
    return 1;
}

/* Visits every (role, layer) in flat order: the model's own before the layers, each layer's, the
 * rest. */
typedef struct tfi_walk {
    int role, layer;
} tfi_walk;

static int tfi_walk_next(const transformer_config *c, tfi_walk *w) {
    int in_layers = w->role >= 0 && tfi_roles[w->role].per_layer;
    w->role++;
    if (in_layers && !tfi_roles[w->role].per_layer) {
        if (w->layer + 1 < c->n_layers) w->layer++, w->role = TRANSFORMER_ATTN_NORM;
        else w->layer = 0;
    }
    if (w->role == TRANSFORMER_ATTN_NORM && c->n_layers == 0) w->role = TRANSFORMER_FINAL_NORM;
    return w->role < TRANSFORMER_N_ROLES;
}

/* Offset of a tensor, or with role TRANSFORMER_N_ROLES the size of all; SIZE_MAX if it does not fit
 * the address space or a matrix cannot be stored in blocks of dtype. */
static size_t tfi_flat_place(const transformer_config *c, int dtype, int role, int layer) {
    tfi_arena arena = {NULL, 0};
    tfi_walk w = {-1, 0};
    while (tfi_walk_next(c, &w) && !(w.role == role && w.layer == layer)) {
        int rows, cols;
        if (!tfi_shape(c, w.role, w.layer, &rows, &cols)) continue;
        int matrix = tfi_roles[w.role].kind == TFI_MATRIX;
        size_t row = transformer_row_size(matrix ? dtype : TRANSFORMER_F32, cols);
        tfi_take(&arena, row ? (size_t)rows : SIZE_MAX, row ? row : 1);
    }
    return arena.used;
}

TFI_DEF size_t transformer_flat_size(const transformer_config *c, int dtype) {
    if (transformer_config_check(c, NULL) || !transformer_dtype_size(dtype)) return 0;
    size_t size = tfi_flat_place(c, dtype, TRANSFORMER_N_ROLES, 0);
    return size == SIZE_MAX ? 0 : size;
}

TFI_DEF int transformer_flat_offset(const transformer_config *c, int dtype, int role, int layer,
                                    size_t *offset) {
    if (!offset || !transformer_tensor_shape(c, role, layer, NULL, NULL) ||
        !transformer_dtype_size(dtype))
        return 0;
    *offset = tfi_flat_place(c, dtype, role, layer);
    return *offset != SIZE_MAX;
}

/* ==== >>model ================================================================================ */

/* How activations enter a matrix product.  A few tokens at a time are interleaved into a panel
 * that the kernel reads front to back: [k / 8][token][8] floats (4 with AVX-512 and NEON), or
 * [k / 8][token][8] BF16, or integers of 8 bits with a scale for each 32 (>>bodies). */
enum { TFI_ACT_F32, TFI_ACT_BF16, TFI_ACT_INT8, TFI_N_ACTS, TFI_MAX_TILE = 16, TFI_PAD = 4 };

/* Weight formats as the kernels see them: BF16 has a path for either kind of activations; so have
 * quantised blocks, which meet floats as decoded rows of F32. */
enum {
    TFI_W_F32,
    TFI_W_F16,
    TFI_W_BF16,
    TFI_W_BF16_DOT,
    TFI_N_WEIGHTS,
    TFI_W_DECODED = TFI_N_WEIGHTS,
    TFI_W_BLOCKS
};

/* One row of the instruction-set table: every function that has a vector form.  The bodies and
 * their comments are at the end of the file; tests compare each row with the scalar one. */
typedef struct tfi_kernels {
    const char *name;
    unsigned needs;            /* CPU features, as tfi_cpu() reports them */
    int few, tile[TFI_N_ACTS]; /* so few tokens each thread packs itself; the most in a panel */
    int has_bf16_dot;
    /* panel = n <= tile rows of k floats, interleaved; k is padded with zeros, and several tokens
     * to a multiple of TFI_PAD if `tile` is one */
    void (*pack[TFI_N_ACTS])(void *panel, const float *const *rows, int n, int k);
    /* out[t * out_stride + r] = sum_k w[r, k] x[t, k] for rows of w and n tokens in panels; scratch:
     * tfi_product_scratch(k) bytes if F16 and BF16 may be widened, else NULL */
    void (*matmul[TFI_N_WEIGHTS])(const void *w, size_t w_stride, int rows, const void *panels,
                                  int n, int k, float *out, size_t out_stride, void *scratch);
    /* the same for rows of quantised blocks, w_bytes apart, and panels of TFI_ACT_INT8 */
    void (*blocks)(const tfi_format *format, const unsigned char *w, size_t w_bytes, int rows,
                   const void *panels, int n, int k, float *out, size_t out_stride, void *scratch);
    void (*norm)(float *out, const float *x, const float *weight, const float *bias, int n,
                 float eps, int kind);
    void (*activate)(float *x, const float *times, int n,
                     int kind);              /* x = act(x) * times (or * 1) */
    void (*cap)(float *x, int n, float cap); /* x = cap tanh(x / cap) */
    /* a block of TFI_KEY_BLOCK scores: s = cap(s * scale) + bias (bias may be NULL, cap 0) */
    void (*scores)(float *s, float scale, float cap, const float *bias);
    /* one step of the online softmax over the first n of a block of keys, row by row: s[r, :n]
     * becomes exp(s[r, :n] - max[r]), and older[r] is the factor for what was summed before */
    void (*softmax_block)(float *s, int rows, int n, float *max, float *sum, float *older);
    void (*scale)(float *out, const float *x, float by, int n); /* out = x * by; may be in place */
    /* out[r, :] += sum_j p[r, j] v[j, :], j ascending; [0] values in F32, [1] in F16 */
    void (*accumulate[2])(float *out, size_t out_stride, const float *p, size_t p_stride,
                          const void *v, size_t v_stride, int rows, int keys, int dim);
    float (*maximum)(const float *x, int n);
    float (*exponentials)(float *out, const float *x, int n,
                          float max); /* out = exp(x - max); returns the sum */
    void (*to_f16)(uint16_t *out, const float *x, int n);
} tfi_kernels;
static const tfi_kernels *
tfi_choose(const char *name); /* >>kernels: best row up to a name; NULL = unknown name */

typedef struct tfi_rope_table {
    int pairs; /* 0 = unused */
    double frequency[TRANSFORMER_MAX_ROPE_PAIRS];
} tfi_rope_table;

enum { TFI_MODEL_MAGIC = 0x7466696d };
struct transformer_model {
    uint32_t magic;
    int ready, full_precision;
    uint64_t fingerprint;
    const tfi_kernels *kernels;
    transformer_tensor *tensors; /* [max(1, n_layers)][TRANSFORMER_N_ROLES] */
    unsigned char *bound;        /* the same shape */
    int used_acts;               /* bit 1 << TFI_ACT_* */
    int used_scratch;            /* 1 = some matrix is decoded or widened */
    tfi_rope_table rope[2];
    transformer_config config;
};

static size_t tfi_slot(int role, int layer) {
    return (size_t)layer * TRANSFORMER_N_ROLES + (size_t)role;
}
static const transformer_tensor *tfi_tensor(const transformer_model *m, int role, int layer) {
    return &m->tensors[tfi_slot(role, layer)];
}
/* A norm weight or bias, or NULL if the model has none. */
static const float *tfi_vector(const transformer_model *m, int role, int layer) {
    return (const float *)tfi_tensor(m, role, layer)->data;
}

/* Memory of a model: the structure, the table of tensors, float32 copies of all vectors. */
static size_t tfi_model_layout(transformer_model *m, unsigned char *base,
                               const transformer_config *c) {
    tfi_arena arena = {base, 0};
    tfi_walk w = {-1, 0};
    size_t slots = (size_t)tfi_max(1, c->n_layers) * TRANSFORMER_N_ROLES;
    tfi_take(&arena, 1, sizeof(transformer_model));
    transformer_tensor *tensors =
        (transformer_tensor *)tfi_take(&arena, slots, sizeof(transformer_tensor));
    unsigned char *bound = (unsigned char *)tfi_take(&arena, slots, 1);
    if (m) {
        m->tensors = tensors, m->bound = bound;
        memset(tensors, 0, slots * sizeof(transformer_tensor));
        memset(bound, 0, slots);
    }
    while (tfi_walk_next(c, &w)) {
        int rows, cols;
        if (tfi_roles[w.role].kind == TFI_MATRIX || !tfi_shape(c, w.role, w.layer, &rows, &cols))
            continue;
        void *copy = tfi_take(&arena, (size_t)cols, sizeof(float));
        if (m) tensors[tfi_slot(w.role, w.layer)].data = copy;
    }
    return arena.used;
}

TFI_DEF size_t transformer_model_size(const transformer_config *c) {
    if (transformer_config_check(c, NULL)) return 0;
    size_t size = tfi_model_layout(NULL, NULL, c);
    return size == SIZE_MAX ? 0 : size;
}

/* YaRN: the dimension whose wavelength fits `turns` times in the original context. */
static double tfi_yarn_dimension(const transformer_rope *r, double turns) {
    return r->dims * log(r->original_context / (turns * 6.283185307179586)) / (2 * log(r->theta));
}

static double tfi_yarn_ramp(const transformer_rope *r, int i) {
    double low = tfi_yarn_dimension(r, r->beta_fast), high = tfi_yarn_dimension(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    if (low < 0) low = 0;
    if (high > r->dims - 1) high = r->dims - 1;
    if (low == high) high += 0.001;
    double ramp = (i - low) / (high - low);
    return ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
}

static double tfi_llama3_frequency(const transformer_rope *r, double frequency) {
    double wavelength = 6.283185307179586 / frequency, original = r->original_context;
    if (wavelength < original / r->high_freq_factor) return frequency;
    if (wavelength > original / r->low_freq_factor) return frequency / r->factor;
    double smooth =
        (original / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * frequency / r->factor + smooth * frequency;
}

/* Turns a description into frequencies: angle of pair i at position p = p * frequency[i]. */
static void tfi_resolve_rope(tfi_rope_table *table, const transformer_rope *r, int rope_length) {
    double theta = r->theta, exponent = r->dims > 2 ? (double)r->dims / (r->dims - 2) : 1;
    int length = tfi_max(rope_length, r->original_context);
    table->pairs = r->dims / 2;
    if (r->scaling == TRANSFORMER_ROPE_NTK) theta *= pow(r->factor, exponent);
    if (r->scaling == TRANSFORMER_ROPE_DYNAMIC)
        theta *= pow(r->factor * length / r->original_context - (r->factor - 1), exponent);
    const float *divisors = length > r->original_context ? r->long_factors : r->short_factors;
    for (int i = 0; i < table->pairs; i++) {
        double f = pow(theta, -2.0 * i / r->dims);
        if (r->scaling == TRANSFORMER_ROPE_LINEAR) f /= r->factor;
        if (r->scaling == TRANSFORMER_ROPE_LLAMA3) f = tfi_llama3_frequency(r, f);
        if (r->scaling == TRANSFORMER_ROPE_LONG) f /= (double)divisors[i];
        if (r->scaling == TRANSFORMER_ROPE_YARN) {
            double ramp = tfi_yarn_ramp(r, i);
            f = f / r->factor * ramp + f * (1 - ramp);
        }
        table->frequency[i] = r->reverse ? -f : f;
    }
}

/* Fills in what the zeros of a configuration stand for. */
static void tfi_resolve_config(transformer_config *c) {
    c->head_dim = tfi_head_dim(c), c->value_dim = tfi_value_dim(c),
    c->embedding_dim = tfi_embedding_dim(c);
    for (int i = 0; i < 2; i++)
        if (c->rope[i].dims == -1) c->rope[i].dims = c->head_dim;
    for (int l = 0; l < c->n_layers; l++) {
        transformer_layer *layer = &c->layers[l];
        int heads = tfi_n_heads(c, l), kv_heads = tfi_n_kv_heads(c, l);
        layer->attn_scale = layer->no_attention ? 0 : tfi_attn_scale(c, l);
        layer->n_heads = heads, layer->n_kv_heads = kv_heads, layer->mlp_dim = tfi_mlp_dim(c, l);
    }
    if (!c->n_kv_heads) c->n_kv_heads = c->n_heads; /* after the layers, which may have their own */
}

TFI_DEF transformer_status transformer_model_init(void *memory, size_t size,
                                                  const transformer_config *config,
                                                  const transformer_options *options,
                                                  transformer_model **model,
                                                  transformer_error *error) {
    if (!model) return tfi_fail(error, TRANSFORMER_ARGUMENT, "model is NULL");
    *model = NULL;
    transformer_status status = transformer_config_check(config, error);
    if (status) return status;
    status = tfi_check_memory(memory, size, tfi_model_layout(NULL, NULL, config), error);
    if (status) return status;
    const char *isa = options ? options->isa : NULL;
    const tfi_kernels *kernels = tfi_choose(isa);
    if (!kernels)
        return tfi_fail(error, TRANSFORMER_UNSUPPORTED, "options.isa '%s' is not available", isa);
    if (options && options->rope_length < 0)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "options.rope_length < 0");
    transformer_model *m = (transformer_model *)memory;
    memset(m, 0, sizeof *m);
    m->magic = TFI_MODEL_MAGIC;
    m->kernels = kernels;
    m->full_precision = options ? options->full_precision : 0;
    m->config = *config;
    tfi_resolve_config(&m->config);
    tfi_model_layout(m, (unsigned char *)memory, &m->config);
    for (int i = 0; i < 2; i++)
        if (m->config.rope[i].dims > 0)
            tfi_resolve_rope(&m->rope[i], &m->config.rope[i], options ? options->rope_length : 0);
    *model = m;
    return tfi_ok(error);
}

static transformer_status tfi_check_tensor(const transformer_model *m, int role, int layer,
                                           const transformer_tensor *t, transformer_error *error) {
    int rows, cols;
    const char *name = transformer_role_name(role);
    if (!m || m->magic != TFI_MODEL_MAGIC) return tfi_fail(error, TRANSFORMER_ARGUMENT, "no model");
    if (m->ready) return tfi_fail(error, TRANSFORMER_ARGUMENT, "the model is ready and read-only");
    if (!tfi_role_in_range(&m->config, role, layer))
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "%s, layer %d: no such tensor", name, layer);
    if (!tfi_shape(&m->config, role, layer, &rows, &cols))
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "%s, layer %d: this configuration has no such tensor", name, layer);
    if (!t || !t->data)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "%s, layer %d: no data", name, layer);
    const char *type = transformer_dtype_name(t->dtype);
    int block = transformer_dtype_block(t->dtype);
    if (!block)
        return tfi_fail(error, TRANSFORMER_WEIGHTS, "%s, layer %d: type %d (%s) is not supported",
                        name, layer, t->dtype, type);
    if (t->rows != rows || t->cols != cols)
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "%s, layer %d: shape [%d, %d], expected [%d, %d]", name, layer, t->rows,
                        t->cols, rows, cols);
    if (block > 1 && tfi_roles[role].kind != TFI_MATRIX)
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "%s, layer %d: type %s is for matrices; a vector is F32, F16 or BF16", name,
                        layer, type);
    if (cols % block)
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "%s, layer %d: %d columns are no multiple of the block of %s, %d", name,
                        layer, cols, type, block);
    if ((uintptr_t)t->data % tfi_alignment(t->dtype))
        return tfi_fail(error, TRANSFORMER_WEIGHTS, "%s, layer %d: data is not aligned to %d bytes",
                        name, layer, (int)tfi_alignment(t->dtype));
    if (tfi_times((size_t)rows, transformer_row_size(t->dtype, cols)) == SIZE_MAX)
        return tfi_fail(error, TRANSFORMER_WEIGHTS, "%s, layer %d: too large", name, layer);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_bind(transformer_model *m, int role, int layer,
                                            const transformer_tensor *tensor,
                                            transformer_error *error) {
    transformer_status status = tfi_check_tensor(m, role, layer, tensor, error);
    if (status) return status;
    transformer_tensor *own = &m->tensors[tfi_slot(role, layer)];
    m->bound[tfi_slot(role, layer)] = 1;
    if (tfi_roles[role].kind == TFI_MATRIX) {
        *own = *tensor;
        return tfi_ok(error);
    }
    float *copy = (float *)(uintptr_t)own->data;
    tfi_decode(copy, tensor, 0, tensor->cols);
    if (tfi_roles[role].kind == TFI_NORM_WEIGHT && m->config.norm_plus_one)
        for (int i = 0; i < tensor->cols; i++) copy[i] += 1;
    own->dtype = TRANSFORMER_F32, own->rows = 1, own->cols = tensor->cols;
    return tfi_ok(error);
}

TFI_DEF transformer_status transformer_bind_flat(transformer_model *m, const void *flat,
                                                 size_t size, int dtype, transformer_error *error) {
    if (!m || m->magic != TFI_MODEL_MAGIC || !flat)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "NULL argument");
    if (!transformer_dtype_size(dtype))
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "dtype %d (%s) is not supported", dtype,
                        transformer_dtype_name(dtype));
    size_t need = tfi_flat_place(&m->config, dtype, TRANSFORMER_N_ROLES, 0), at = 0;
    if (need == SIZE_MAX)
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "no flat buffer of %s: too large, or columns that are no multiple of %d",
                        transformer_dtype_name(dtype), transformer_dtype_block(dtype));
    if (size != need)
        return tfi_fail(error, TRANSFORMER_WEIGHTS,
                        "the flat buffer's size is not transformer_flat_size");
    if ((uintptr_t)flat % TFI_ALIGN)
        return tfi_fail(error, TRANSFORMER_WEIGHTS, "the flat buffer is not aligned to %d bytes",
                        TFI_ALIGN);
    tfi_walk w = {-1, 0};
    while (tfi_walk_next(&m->config, &w)) {
        transformer_tensor t;
        if (!tfi_shape(&m->config, w.role, w.layer, &t.rows, &t.cols)) continue;
        t.dtype = tfi_roles[w.role].kind == TFI_MATRIX ? dtype : TRANSFORMER_F32;
        t.data = (const unsigned char *)flat + at;
        transformer_status status = transformer_bind(m, w.role, w.layer, &t, error);
        if (status) return status;
        size_t bytes = tfi_tensor_bytes(&t);
        at += (bytes + TFI_ALIGN - 1) & ~(size_t)(TFI_ALIGN - 1);
    }
    return transformer_model_ready(m, error);
}

/* The kernel for a matrix: by its type, and for BF16 by what precision was asked for. */
static int tfi_weight_kind(const transformer_model *m, int dtype) {
    if (dtype == TRANSFORMER_F32) return TFI_W_F32;
    if (dtype == TRANSFORMER_F16) return TFI_W_F16;
    if (dtype != TRANSFORMER_BF16) return m->full_precision ? TFI_W_DECODED : TFI_W_BLOCKS;
    return m->kernels->has_bf16_dot && !m->full_precision ? TFI_W_BF16_DOT : TFI_W_BF16;
}
static int tfi_act_of(int weight_kind) {
    return weight_kind == TFI_W_BLOCKS     ? TFI_ACT_INT8
           : weight_kind == TFI_W_BF16_DOT ? TFI_ACT_BF16
                                           : TFI_ACT_F32;
}

/* A state remembers this number.  It covers the shape of the model, the resolved RoPE frequencies
 * and a sample of every tensor: enough to tell models apart without reading gigabytes. */
static uint64_t tfi_fingerprint(const transformer_model *m) {
    const transformer_config *c = &m->config;
    uint64_t hash =
        tfi_hash(14695981039346656037u, c->layers, (size_t)c->n_layers * sizeof c->layers[0]);
    for (size_t i = 0; i < sizeof tfi_int_rules / sizeof tfi_int_rules[0]; i++)
        hash = tfi_hash(hash, (const unsigned char *)c + tfi_int_rules[i].offset, sizeof(int));
    for (size_t i = 0; i < sizeof tfi_float_rules / sizeof tfi_float_rules[0]; i++)
        hash = tfi_hash(hash, (const unsigned char *)c + tfi_float_rules[i].offset, sizeof(float));
    for (int i = 0; i < 2; i++) {
        if (!m->rope[i].pairs) continue;
        const transformer_rope *r = &c->rope[i];
        const double numbers[4] = {(double)r->pairing, (double)r->reverse, (double)r->scaling,
                                   r->attention_factor};
        hash = tfi_hash(hash, numbers, sizeof numbers);
        hash = tfi_hash(hash, m->rope[i].frequency, (size_t)m->rope[i].pairs * sizeof(double));
    }
    for (int i = 0; i < tfi_max(1, c->n_layers) * TRANSFORMER_N_ROLES; i++) {
        const transformer_tensor *t = &m->tensors[i];
        if (!m->bound[i]) continue;
        size_t bytes = tfi_tensor_bytes(t), sample = 64;
        const unsigned char *data = (const unsigned char *)t->data;
        if (bytes < 3 * sample) hash = tfi_hash(hash, data, bytes);
        for (int j = 0; bytes >= 3 * sample && j < 3; j++)
            hash = tfi_hash(hash, data + (bytes - sample) / 2 * (size_t)j, sample);
    }
    return hash;
}

/* To decode rows, or to widen halves. */
static int tfi_needs_scratch(int weight_kind) {
    return weight_kind >= TFI_W_DECODED || weight_kind == TFI_W_F16 || weight_kind == TFI_W_BF16;
}

TFI_DEF transformer_status transformer_model_ready(transformer_model *m, transformer_error *error) {
    tfi_walk w = {-1, 0};
    if (!m || m->magic != TFI_MODEL_MAGIC) return tfi_fail(error, TRANSFORMER_ARGUMENT, "no model");
    while (tfi_walk_next(&m->config, &w)) {
        int rows, cols;
        if (!tfi_shape(&m->config, w.role, w.layer, &rows, &cols)) continue;
        if (!m->bound[tfi_slot(w.role, w.layer)])
            return tfi_fail(error, TRANSFORMER_WEIGHTS, "%s, layer %d: not bound",
                            tfi_roles[w.role].name, w.layer);
        if (tfi_roles[w.role].kind == TFI_MATRIX) {
            int kind = tfi_weight_kind(m, tfi_tensor(m, w.role, w.layer)->dtype);
            m->used_acts |= 1 << tfi_act_of(kind);
            m->used_scratch |= tfi_needs_scratch(kind);
        }
    }
    m->fingerprint = tfi_fingerprint(m);
    m->ready = 1;
    return tfi_ok(error);
}

static int tfi_is_ready(const transformer_model *m) {
    return m && m->magic == TFI_MODEL_MAGIC && m->ready;
}

TFI_DEF const transformer_config *transformer_model_config(const transformer_model *m) {
    return m && m->magic == TFI_MODEL_MAGIC ? &m->config : NULL;
}
TFI_DEF const char *transformer_isa(const transformer_model *m) {
    return m && m->magic == TFI_MODEL_MAGIC ? m->kernels->name : "none";
}

/* ==== >>state ================================================================================
 *
 *   header | offsets of K and V, per layer | layer 0: K, V | layer 1: K, V | ...
 *
 *   Position p is in slot p % capacity.  Capacity is the context, or with a window W only W + undo,
 *   rounded up to whole blocks of 64, so that none wraps around.  K of a layer is
 *   [n_kv_heads][capacity / 64][head_dim][64]: neighbouring keys are lanes of a vector;
 *   V is [n_kv_heads][capacity][value_dim].
 */
#define TFI_STATE_MAGIC                                                                            \
    0x3230657461745346u /* "FStatE02" in little-endian order; other layouts, other numbers */

struct transformer_state {
    uint64_t magic;
    uint64_t model; /* fingerprint */
    uint64_t size;  /* of the whole state, bytes */
    int32_t context, kv_dtype, undo;
    int32_t position; /* tokens so far */
    int32_t high; /* one past the highest position ever written: what rings may have overwritten */
    int32_t has_ring; /* some layer keeps fewer positions than the context */
};

static int tfi_capacity(const transformer_config *c, int layer, int context, int undo) {
    int window = c->layers[layer].window, keep = context;
    if (window && window < context - undo) keep = window + undo;
    return tfi_round_up(keep, TFI_KEY_BLOCK);
}

static uint64_t *tfi_kv_offsets(const transformer_state *s) {
    return (uint64_t *)((unsigned char *)(uintptr_t)s +
                        TFI_ALIGN); /* the header fits in one line */
}

/* Size of a state; with a state, also fills in its offsets. */
static size_t tfi_state_layout(transformer_state *s, const transformer_config *c, int context,
                               int kv_dtype, int undo) {
    tfi_arena arena = {NULL, 0};
    size_t element = transformer_dtype_size(kv_dtype);
    uint64_t *offsets = s ? tfi_kv_offsets(s) : NULL;
    tfi_take(&arena, 1, sizeof(transformer_state));
    tfi_take(&arena, 2 * (size_t)c->n_layers, sizeof(uint64_t));
    for (int l = 0; l < c->n_layers; l++) {
        if (c->layers[l].no_attention) continue;
        size_t rows =
            tfi_times((size_t)tfi_n_kv_heads(c, l), (size_t)tfi_capacity(c, l, context, undo));
        if (offsets) offsets[2 * l] = arena.used;
        tfi_take(&arena, tfi_times(rows, (size_t)tfi_head_dim(c)), element);
        if (offsets) offsets[2 * l + 1] = arena.used;
        tfi_take(&arena, tfi_times(rows, (size_t)tfi_value_dim(c)), element);
    }
    return arena.used;
}

static transformer_status tfi_state_options(const transformer_model *m,
                                            const transformer_options *o, int *context,
                                            int *kv_dtype, int *undo, transformer_error *error) {
    if (!tfi_is_ready(m)) return tfi_fail(error, TRANSFORMER_ARGUMENT, "the model is not ready");
    *context = o && o->context ? o->context : m->config.context;
    *kv_dtype = o ? o->kv_dtype : TRANSFORMER_F32;
    *undo = o && o->undo ? o->undo : 512;
    if (*context < 1 || *context > TFI_MAX_CONTEXT)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "options.context %d is out of range",
                        *context);
    if (m->config.position == TRANSFORMER_POSITION_LEARNED && *context > m->config.context)
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "options.context %d: the model has learned only %d positions", *context,
                        m->config.context);
    if (*kv_dtype != TRANSFORMER_F32 && *kv_dtype != TRANSFORMER_F16)
        return tfi_fail(error, TRANSFORMER_UNSUPPORTED,
                        "options.kv_dtype %d is neither F32 nor F16", *kv_dtype);
    if (*undo < 1 || *undo > TFI_MAX_CONTEXT / 2)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "options.undo %d is out of range", *undo);
    return TRANSFORMER_OK;
}

TFI_DEF size_t transformer_state_size(const transformer_model *m,
                                      const transformer_options *options) {
    int context, kv_dtype, undo;
    if (tfi_state_options(m, options, &context, &kv_dtype, &undo, NULL)) return 0;
    size_t size = tfi_state_layout(NULL, &m->config, context, kv_dtype, undo);
    return size == SIZE_MAX ? 0 : size;
}

TFI_DEF transformer_status transformer_state_init(void *memory, size_t size,
                                                  const transformer_model *m,
                                                  const transformer_options *options,
                                                  transformer_state **state,
                                                  transformer_error *error) {
    int context, kv_dtype, undo;
    if (!state) return tfi_fail(error, TRANSFORMER_ARGUMENT, "state is NULL");
    *state = NULL;
    transformer_status status = tfi_state_options(m, options, &context, &kv_dtype, &undo, error);
    if (status) return status;
    size_t need = tfi_state_layout(NULL, &m->config, context, kv_dtype, undo);
    status = tfi_check_memory(memory, size, need, error);
    if (status) return status;
    transformer_state *s = (transformer_state *)memory;
    memset(s, 0, sizeof *s);
    s->magic = TFI_STATE_MAGIC, s->model = m->fingerprint, s->size = need;
    s->context = context, s->kv_dtype = kv_dtype, s->undo = undo;
    for (int l = 0; l < m->config.n_layers; l++)
        s->has_ring |= tfi_capacity(&m->config, l, context, undo) < context &&
                       !m->config.layers[l].no_attention;
    tfi_state_layout(s, &m->config, context, kv_dtype, undo);
    *state = s;
    return tfi_ok(error);
}

TFI_DEF transformer_status transformer_state_restore(void *memory, size_t size,
                                                     const transformer_model *m,
                                                     transformer_state **state,
                                                     transformer_error *error) {
    if (!state) return tfi_fail(error, TRANSFORMER_ARGUMENT, "state is NULL");
    *state = NULL;
    if (!tfi_is_ready(m)) return tfi_fail(error, TRANSFORMER_ARGUMENT, "the model is not ready");
    transformer_status status = tfi_check_memory(memory, size, sizeof(transformer_state), error);
    if (status) return status;
    transformer_state *s = (transformer_state *)memory;
    if (s->magic != TFI_STATE_MAGIC)
        return tfi_fail(error, TRANSFORMER_STATE, "no state of this build's layout");
    if (s->model != m->fingerprint)
        return tfi_fail(error, TRANSFORMER_STATE, "the state belongs to another model");
    transformer_options o;
    memset(&o, 0, sizeof o);
    o.context = s->context, o.kv_dtype = s->kv_dtype, o.undo = s->undo;
    if (s->context < 1 || s->undo < 1 || transformer_state_size(m, &o) != s->size ||
        s->size > size || s->size == 0)
        return tfi_fail(error, TRANSFORMER_STATE, "the state is damaged: its sizes do not fit");
    if (s->position < 0 || s->position > s->context || s->high < s->position ||
        s->high > s->context)
        return tfi_fail(error, TRANSFORMER_STATE,
                        "the state is damaged: its position is out of range");
    s->has_ring = 0;
    for (int l = 0; l < m->config.n_layers; l++)
        s->has_ring |= tfi_capacity(&m->config, l, s->context, s->undo) < s->context &&
                       !m->config.layers[l].no_attention;
    tfi_state_layout(s, &m->config, s->context, s->kv_dtype, s->undo);
    *state = s;
    return tfi_ok(error);
}

static int tfi_is_state(const transformer_state *s) { return s && s->magic == TFI_STATE_MAGIC; }
TFI_DEF size_t transformer_state_bytes(const transformer_state *s) {
    return tfi_is_state(s) ? (size_t)s->size : 0;
}
TFI_DEF int transformer_state_position(const transformer_state *s) {
    return tfi_is_state(s) ? s->position : 0;
}
TFI_DEF int transformer_state_context(const transformer_state *s) {
    return tfi_is_state(s) ? s->context : 0;
}

TFI_DEF transformer_status transformer_state_rewind(transformer_state *s, int position) {
    if (!tfi_is_state(s) || position < 0 || position > s->position) return TRANSFORMER_ARGUMENT;
    /* A ring keeps window + undo positions, so what position - window .. position - 1 held is
     * still there. */
    if (s->has_ring && position > 0 && position < s->high - s->undo) return TRANSFORMER_UNSUPPORTED;
    s->position = position;
    if (position == 0) s->high = 0;
    return TRANSFORMER_OK;
}

/* ==== >>forward ==============================================================================
 *
 * A pass takes up to `batch` rows (tokens of one or several sequences) through the model once.  It
 * is a list of small steps, given as data below; each step is shared out among the threads by
 * tokens, by weight rows or by attention heads, never by parts of a sum.  In one layer (Formal
 * Algorithms, Alg. 10, with all its relatives):
 *
 *     h = norm(x);  q, k, v = W h;  rotate q and k;  store k, v;  z = attention(q, K, V)
 *     a = W_o z;    x += a;         h = norm(x);     m = W_down act(W_up h);   x += m
 */

/* The rows of a pass that belong to one sequence: consecutive tokens. */
typedef struct tfi_slice {
    int sequence, token; /* index in the call; first token's index in the sequence */
    int row, n;          /* rows row .. row + n - 1 of the pass */
    int position;        /* of the first row */
    int n_keys;          /* positions in the cache once the pass has stored its own */
    int out, n_out;      /* rows out .. of the head's input */
} tfi_slice;

typedef struct tfi_run {
    const transformer_model *m;
    const transformer_config *c;
    const tfi_kernels *k;
    transformer_workspace *w;
    transformer_call call;
    int sequence, token; /* where the next pass begins */
    int n_rows, n_slices, n_out, n_items;
    int stage, stage_end; /* 0 = embedding, 1 .. n_layers = layers, n_layers + 1 = head */
    int parts;            /* threads at work in this pass */
    int stopped, active;  /* active: between PAUSED and the end */
} tfi_run;

enum { TFI_WORKSPACE_MAGIC = 0x74666977, TFI_QUERY_ROWS = 24, TFI_MAX_FEW = 8 }; /* tokens */

/* Where a thread is, in groups of steps (>>threads) and in the products of a group.  A product of
 * many tokens is cut into chunks of rows, and whoever is free takes the next: threads that share
 * their processor with others get fewer.  A chunk's number is a ticket; while a group draws from one
 * row of workspace.tickets, the other is set to zero for the group after it. */
typedef struct tfi_turn {
    int group, product;
} tfi_turn;
enum { TFI_GROUP_PRODUCTS = 8, TFI_CHUNK_ROWS = 48 };

struct transformer_workspace {
    uint32_t magic;
    int batch, n_threads;
    uint64_t model;
    transformer_parallel *parallel;
    void *parallel_user;
    tfi_run run;
    /* [batch] */
    tfi_slice *slices;
    int *row_slice, *row_position, *out_row, *out_target;
    float **out_logits, **out_logprob;
    float *row_target_logit;
    /* [batch, width], rows padded to whole vectors */
    float *x, *h, *q, *k, *v, *z, *attn, *mlp, *up, *gate, *embedded;
    int x_stride, q_stride, k_stride, v_stride, z_stride, mlp_stride, embedded_stride;
    float *cosine[2], *sine[2];         /* [batch, pairs] */
    void *packed[TFI_N_ACTS];           /* panels of a whole pass */
    float *block_max, *block_sum;       /* [vocabulary blocks, batch] for log-probabilities */
    int tickets[2][TFI_GROUP_PRODUCTS]; /* see tfi_turn */
    int arrivals;                       /* at the barriers of a pass */
    /* [n_threads] */
    tfi_turn *turns;
    unsigned char *private_memory;
    size_t private_size;
};

/* A thread's own scratch, in this order: */
typedef struct tfi_private {
    void *panel[TFI_N_ACTS]; /* one panel each of the widest product */
    float *scores;           /* [TFI_QUERY_ROWS, TFI_KEY_BLOCK] */
    float *sums;             /* [TFI_QUERY_ROWS, value_dim] */
    float *bias;             /* [TFI_KEY_BLOCK] */
    float *queries;          /* [TFI_QUERY_ROWS, head_dim] */
    float *head;             /* [batch, TFI_HEAD_BLOCK] */
    void *unpacked;          /* rows decoded or widened, see tfi_product_scratch */
} tfi_private;

/* ---- workspace ---- */

static int tfi_widest(const transformer_config *c, int what) {
    int widest = 1;
    for (int l = 0; l < c->n_layers; l++) {
        int attention = !c->layers[l].no_attention, mlp = !c->layers[l].no_mlp, width = 0;
        if (what == TRANSFORMER_SITE_Q) width = attention * tfi_n_heads(c, l) * tfi_head_dim(c);
        if (what == TRANSFORMER_SITE_K) width = attention * tfi_n_kv_heads(c, l) * tfi_head_dim(c);
        if (what == TRANSFORMER_SITE_V) width = attention * tfi_n_kv_heads(c, l) * tfi_value_dim(c);
        if (what == TRANSFORMER_SITE_Z) width = attention * tfi_n_heads(c, l) * tfi_value_dim(c);
        if (what == TRANSFORMER_SITE_MLP_ACT) width = mlp * tfi_mlp_dim(c, l);
        widest = tfi_max(widest, width);
    }
    return widest;
}

/* Columns as panels store them: whole groups of 32, the longest unit of any row of kernels. */
static int tfi_panel_cols(int k) { return tfi_round_up(k, 32); }
/* Of 8-bit activations and unpacked weights, a unit of TFI_LANES blocks takes so many vectors; 16
 * lanes are the most. */
enum { TFI_UNIT_X = 15, TFI_UNIT_W = 12, TFI_UNIT_COLS = 512, TFI_BLOCK_MOST = 128 };

/* Bytes of a token's activations in panels. */
static size_t tfi_act_bytes(int act, int cols) {
    if (act == TFI_ACT_INT8)
        return (size_t)(tfi_round_up(cols, TFI_UNIT_COLS) / TFI_UNIT_COLS) * TFI_UNIT_X * TFI_ALIGN;
    return (size_t)tfi_panel_cols(cols) * (act == TFI_ACT_BF16 ? 2 : 4);
}

/* Rows of a quantised matrix that are unpacked at a time if there are many tokens. */
static TFI_UNUSED int tfi_block_rows(size_t row_bytes) {
    return tfi_min(TFI_BLOCK_MOST, tfi_max(4, (int)(TFI_BLOCK_BYTES / row_bytes / 4 * 4)));
}

static int tfi_widest_input(const transformer_config *c) {
    int wide = tfi_max(tfi_widest(c, TRANSFORMER_SITE_Z), tfi_widest(c, TRANSFORMER_SITE_MLP_ACT));
    return tfi_max(tfi_max(wide, c->dim), tfi_embedding_dim(c));
}

/* Memory for the product of a matrix of so many columns, quantised or widened: TFI_BLOCK_BYTES, or 4
 * rows as float32 if that is more, the sums that wait for a cut along k, and a token. */
static size_t tfi_product_scratch(int cols) {
    size_t rows = tfi_times(4 * sizeof(float), (size_t)tfi_round_up(cols, TFI_UNIT_COLS));
    size_t sums = (size_t)TFI_BLOCK_MOST * TFI_MAX_FEW * TFI_ALIGN;
    size_t token = tfi_act_bytes(TFI_ACT_INT8, cols);
    return sums + token + (rows > (size_t)TFI_BLOCK_BYTES ? rows : (size_t)TFI_BLOCK_BYTES);
}

static tfi_private tfi_private_layout(tfi_arena *arena, const transformer_model *m, int batch) {
    const transformer_config *c = &m->config;
    int widest = tfi_widest_input(c);
    tfi_private p;
    for (int act = 0; act < TFI_N_ACTS; act++)
        p.panel[act] =
            tfi_take(arena, m->used_acts >> act & 1 ? tfi_act_bytes(act, widest) : 0, TFI_MAX_FEW);
    p.scores = (float *)tfi_take(arena, TFI_QUERY_ROWS * TFI_KEY_BLOCK, sizeof(float));
    p.sums = (float *)tfi_take(arena, (size_t)(TFI_QUERY_ROWS * tfi_padded(tfi_value_dim(c))),
                               sizeof(float));
    p.bias = (float *)tfi_take(arena, TFI_KEY_BLOCK, sizeof(float));
    p.queries = (float *)tfi_take(arena, (size_t)(TFI_QUERY_ROWS * tfi_head_dim(c)), sizeof(float));
    p.head = (float *)tfi_take(arena, (size_t)batch * TFI_HEAD_BLOCK, sizeof(float));
    p.unpacked = tfi_take(arena, m->used_scratch ? tfi_product_scratch(widest) : 0, 1);
    return p;
}

static tfi_private tfi_private_of(const tfi_run *r, int part) {
    tfi_arena arena;
    arena.base = r->w->private_memory + (size_t)part * r->w->private_size;
    arena.used = 0;
    return tfi_private_layout(&arena, r->m, r->w->batch);
}

static float *tfi_take_rows(tfi_arena *arena, int batch, int width, int *stride) {
    *stride = tfi_padded(width);
    return (float *)tfi_take(arena, tfi_times((size_t)batch, (size_t)*stride), sizeof(float));
}

/* Lays out the arrays of w (which may be a throw-away copy, to measure). */
static size_t tfi_workspace_layout(transformer_workspace *w, unsigned char *base,
                                   const transformer_model *m) {
    const transformer_config *c = &m->config;
    tfi_arena arena = {base, 0}, own = {NULL, 0};
    int unused;
    size_t batch = (size_t)w->batch;
    size_t blocks = (size_t)(c->vocab_size + TFI_HEAD_BLOCK - 1) / TFI_HEAD_BLOCK;
    tfi_take(&arena, 1, sizeof *w);
    w->slices = (tfi_slice *)tfi_take(&arena, batch, sizeof *w->slices);
    w->row_slice = (int *)tfi_take(&arena, batch, sizeof(int));
    w->row_position = (int *)tfi_take(&arena, batch, sizeof(int));
    w->out_row = (int *)tfi_take(&arena, batch, sizeof(int));
    w->out_target = (int *)tfi_take(&arena, batch, sizeof(int));
    w->out_logits = (float **)tfi_take(&arena, batch, sizeof(float *));
    w->out_logprob = (float **)tfi_take(&arena, batch, sizeof(float *));
    w->row_target_logit = (float *)tfi_take(&arena, batch, sizeof(float));
    w->x = tfi_take_rows(&arena, w->batch, c->dim, &w->x_stride);
    w->h = tfi_take_rows(&arena, w->batch, c->dim, &w->x_stride);
    w->attn = tfi_take_rows(&arena, w->batch, c->dim, &w->x_stride);
    w->mlp = tfi_take_rows(&arena, w->batch, c->dim, &w->x_stride);
    w->q = tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_Q), &w->q_stride);
    w->k = tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_K), &w->k_stride);
    w->v = tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_V), &w->v_stride);
    w->z = tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_Z), &w->z_stride);
    w->up =
        tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_MLP_ACT), &w->mlp_stride);
    w->gate = w->up;
    if (c->gated)
        w->gate = tfi_take_rows(&arena, w->batch, tfi_widest(c, TRANSFORMER_SITE_MLP_ACT),
                                &w->mlp_stride);
    w->embedded =
        tfi_take_rows(&arena, c->embedding_dim != c->dim ? w->batch : 0, c->embedding_dim, &unused);
    w->embedded_stride = tfi_padded(c->embedding_dim);
    for (int i = 0; i < 2; i++) {
        size_t pairs = tfi_times(batch, (size_t)m->rope[i].pairs);
        w->cosine[i] = (float *)tfi_take(&arena, pairs, sizeof(float));
        w->sine[i] = (float *)tfi_take(&arena, pairs, sizeof(float));
    }
    for (int act = 0; act < TFI_N_ACTS; act++) {
        size_t bytes = m->used_acts >> act & 1 ? tfi_act_bytes(act, tfi_widest_input(c)) : 0;
        w->packed[act] = tfi_take(&arena, (batch + TFI_PAD - 1) / TFI_PAD * TFI_PAD, bytes);
    }
    w->block_max = (float *)tfi_take(&arena, tfi_times(blocks, batch), sizeof(float));
    w->block_sum = (float *)tfi_take(&arena, tfi_times(blocks, batch), sizeof(float));
    tfi_private_layout(&own, m, w->batch);
    w->private_size = own.used;
    w->turns = (tfi_turn *)tfi_take(&arena, (size_t)w->n_threads, sizeof(tfi_turn));
    w->private_memory = (unsigned char *)tfi_take(&arena, (size_t)w->n_threads, own.used);
    return arena.used;
}

static transformer_status tfi_workspace_options(transformer_workspace *w,
                                                const transformer_model *m,
                                                const transformer_options *o,
                                                transformer_error *error) {
    memset(w, 0, sizeof *w);
    if (!tfi_is_ready(m)) return tfi_fail(error, TRANSFORMER_ARGUMENT, "the model is not ready");
    w->magic = TFI_WORKSPACE_MAGIC, w->model = m->fingerprint;
    w->batch = o && o->batch ? o->batch : tfi_min(256, m->config.context);
    w->n_threads = o && o->n_threads ? o->n_threads : 1;
    w->parallel = o ? o->parallel : NULL;
    w->parallel_user = o ? o->parallel_user : NULL;
    if (w->batch < 1 || w->batch > 1 << 16)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "options.batch %d is not in 1 .. 65536",
                        w->batch);
    if (w->n_threads < 1 || w->n_threads > 1024)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "options.n_threads %d is not in 0 .. 1024",
                        w->n_threads);
    return TRANSFORMER_OK;
}

TFI_DEF size_t transformer_workspace_size(const transformer_model *m,
                                          const transformer_options *options) {
    transformer_workspace w;
    if (tfi_workspace_options(&w, m, options, NULL)) return 0;
    size_t size = tfi_workspace_layout(&w, NULL, m);
    return size == SIZE_MAX ? 0 : size;
}

TFI_DEF transformer_status transformer_workspace_init(void *memory, size_t size,
                                                      const transformer_model *m,
                                                      const transformer_options *options,
                                                      transformer_workspace **work,
                                                      transformer_error *error) {
    transformer_workspace w;
    if (!work) return tfi_fail(error, TRANSFORMER_ARGUMENT, "work is NULL");
    *work = NULL;
    transformer_status status = tfi_workspace_options(&w, m, options, error);
    if (status) return status;
    status = tfi_check_memory(memory, size, tfi_workspace_layout(&w, NULL, m), error);
    if (status) return status;
    tfi_workspace_layout(&w, (unsigned char *)memory, m);
    memcpy(memory, &w, sizeof w);
    *work = (transformer_workspace *)memory;
    return tfi_ok(error);
}

/* ---- shares, panels, products ---- */

/* Part `part` of `parts` of 0 .. n-1, in units of `unit`. */
static void tfi_share(int n, int unit, int part, int parts, int *begin, int *end) {
    int units = (n + unit - 1) / unit;
    *begin = tfi_min(n, (int)((int64_t)units * part / parts) * unit);
    *end = tfi_min(n, (int)((int64_t)units * (part + 1) / parts) * unit);
}

/* Interleaves panels first .. last-1 of n rows of x. */
static void tfi_pack_panels(const tfi_kernels *k, int act, void *packed, const float *x, int stride,
                            int n, int cols, int first, int last) {
    const int tile = k->tile[act];
    const size_t panel_bytes = (size_t)tile * tfi_act_bytes(act, cols);
    const float *rows[TFI_MAX_TILE];
    for (int p = first, count; p < last; p++) {
        count = tfi_min(tile, n - p * tile);
        for (int i = 0; i < count; i++) rows[i] = x + (size_t)(p * tile + i) * (size_t)stride;
        k->pack[act]((unsigned char *)packed + (size_t)p * panel_bytes, rows, count, cols);
    }
}

/* The step before a product when there are many rows: the threads pack them together. */
static void tfi_pack_rows(const tfi_run *r, const float *x, int stride, int n, int cols, int part) {
    for (int act = 0, begin, end; act < TFI_N_ACTS; act++) {
        tfi_share((n - 1) / r->k->tile[act] + 1, 1, part, r->parts, &begin, &end);
        if (r->m->used_acts >> act & 1)
            tfi_pack_panels(r->k, act, r->w->packed[act], x, stride, n, cols, begin, end);
    }
}

/* The same with rows of a quantised matrix, decoded a few at a time for all tokens of the pass. */
static void tfi_product_decoded(const tfi_run *r, const transformer_tensor *w, const void *panels,
                                int n, int begin, int end, float *out, int out_stride, int part) {
    float *decoded = (float *)tfi_private_of(r, part).unpacked;
    int most = tfi_max(4, TFI_BLOCK_BYTES / (int)sizeof(float) / w->cols / 4 * 4), rows;
    for (int first = begin; first < end; first += rows) {
        rows = tfi_min(most, end - first);
        for (int i = 0; i < rows; i++)
            tfi_decode(decoded + (size_t)i * (size_t)w->cols, w,
                       (size_t)(first + i) * (size_t)w->cols, w->cols);
        r->k->matmul[TFI_W_F32](decoded, (size_t)w->cols, rows, panels, n, w->cols,
                                out + (first - begin), (size_t)out_stride, NULL);
    }
}

/* What goes into products: n rows.  Few are packed by each thread for itself, which saves a
 * barrier, once for all products that follow; many have been packed by tfi_pack_rows. */
typedef struct tfi_input {
    const float *x;
    int stride, n, packed; /* packed: bits 1 << TFI_ACT_* */
} tfi_input;

static tfi_input tfi_input_of(const float *x, int stride, int n) {
    tfi_input in = {x, stride, n, 0};
    return in;
}

/* out = x W^T for rows begin .. end-1 of a weight matrix. */
static void tfi_product(const tfi_run *r, const transformer_tensor *w, tfi_input *in, int begin,
                        int end, float *out, int out_stride, int part) {
    int kind = tfi_weight_kind(r->m, w->dtype), act = tfi_act_of(kind), n = in->n;
    const void *panels = r->w->packed[act];
    if (begin >= end) return;
    if (n == 1 && act == TFI_ACT_F32) {
        panels = in->x; /* a panel of one token is the row itself */
    } else if (n <= r->k->few) {
        void *own = tfi_private_of(r, part).panel[act];
        if (!(in->packed >> act & 1))
            tfi_pack_panels(r->k, act, own, in->x, in->stride, n, w->cols, 0, 1);
        in->packed |= 1 << act;
        panels = own;
    }
    size_t row = transformer_row_size(w->dtype, w->cols);
    const unsigned char *first = (const unsigned char *)w->data + (size_t)begin * row;
    void *scratch = tfi_needs_scratch(kind) ? tfi_private_of(r, part).unpacked : NULL;
    if (kind == TFI_W_DECODED)
        tfi_product_decoded(r, w, panels, n, begin, end, out, out_stride, part);
    else if (kind == TFI_W_BLOCKS)
        r->k->blocks(tfi_format_of(w->dtype), first, row, end - begin, panels, n, w->cols, out,
                     (size_t)out_stride, scratch);
    else
        r->k->matmul[kind](first, (size_t)w->cols, end - begin, panels, n, w->cols, out,
                           (size_t)out_stride, scratch);
}

/* out[:, begin .. end-1] = x W^T + bias, clamped. */
static void tfi_linear_rows(const tfi_run *r, int role, int layer, tfi_input *in, int begin,
                            int end, float *out, int out_stride, float clip, int part) {
    const float *bias = tfi_vector(r->m, role + 1, layer);
    tfi_product(r, tfi_tensor(r->m, role, layer), in, begin, end, out + begin, out_stride, part);
    for (int t = 0; t < in->n && (bias || clip > 0); t++) {
        float *row = out + (size_t)t * (size_t)out_stride;
        for (int i = begin; bias && i < end; i++) row[i] += bias[i];
        for (int i = begin; clip > 0 && i < end; i++)
            row[i] = row[i] > clip ? clip : row[i] < -clip ? -clip : row[i];
    }
}

/* Chunk `ticket` of n rows: a part of those that are left, ever smaller, so that the threads end
 * together.  0 = there is none. */
static int tfi_find_chunk(int n, int parts, int ticket, int *begin, int *end) {
    for (*begin = *end = 0; *end < n && ticket >= 0; ticket--) {
        *begin = *end;
        *end = tfi_min(n, *begin + tfi_round_up((n - *begin) / (2 * parts) + 1, TFI_CHUNK_ROWS));
    }
    return ticket < 0;
}

/* The rows of this part: its share, or of many tokens as many chunks as it comes to. */
static void tfi_linear(const tfi_run *r, int role, int layer, tfi_input *in, float *out,
                       int out_stride, float clip, int part) {
    int rows = tfi_tensor(r->m, role, layer)->rows, begin, end;
#ifdef TFI_TAKE_TICKET
    tfi_turn *turn = &r->w->turns[part];
    if (in->n > r->k->few && r->parts > 1 && turn->product < TFI_GROUP_PRODUCTS) {
        int *tickets = &r->w->tickets[turn->group & 1][turn->product++];
        while (tfi_find_chunk(rows, r->parts, TFI_TAKE_TICKET(tickets), &begin, &end))
            tfi_linear_rows(r, role, layer, in, begin, end, out, out_stride, clip, part);
        return;
    }
#endif
    tfi_share(rows, 16, part, r->parts, &begin, &end);
    tfi_linear_rows(r, role, layer, in, begin, end, out, out_stride, clip, part);
}

static void tfi_norm(const tfi_run *r, int role, int layer, float *out, const float *x, int n) {
    r->k->norm(out, x, tfi_vector(r->m, role, layer), tfi_vector(r->m, role + 1, layer), n,
               r->c->norm_eps, r->c->norm);
}

static float *tfi_row(float *base, int stride, int row) {
    return base + (size_t)row * (size_t)stride;
}

/* ---- steps: embedding ---- */

typedef void tfi_step_function(const tfi_run *r, int layer, int part);

static const float *tfi_given_embedding(const tfi_run *r, int row) {
    const tfi_slice *s = &r->w->slices[r->w->row_slice[row]];
    const transformer_sequence *q = &r->call.sequences[s->sequence];
    size_t index = (size_t)(s->token + row - s->row);
    return q->tokens ? NULL : q->embeddings + index * (size_t)r->c->embedding_dim;
}

/* Row of the table for a token, times embedding_scale (Formal Algorithms, Alg. 1). */
static void tfi_embed_token(const tfi_run *r, float *out, int row) {
    const tfi_slice *s = &r->w->slices[r->w->row_slice[row]];
    const transformer_tensor *table = tfi_tensor(r->m, TRANSFORMER_EMBEDDING, 0);
    const float *given = tfi_given_embedding(r, row);
    if (given) {
        memcpy(out, given, (size_t)table->cols * sizeof(float));
        return;
    }
    int32_t token = r->call.sequences[s->sequence].tokens[s->token + row - s->row];
    tfi_decode(out, table, (size_t)token * (size_t)table->cols, table->cols);
    if (r->c->embedding_scale != 1)
        for (int i = 0; i < table->cols; i++) out[i] *= r->c->embedding_scale;
}

/* Alg. 2, or the sinusoids of Vaswani et al. 2017 (arXiv:1706.03762) section 3.5. */
static void tfi_add_position(const tfi_run *r, float *x, int position, float *scratch) {
    const transformer_tensor *table = tfi_tensor(r->m, TRANSFORMER_POSITION_EMBEDDING, 0);
    if (r->c->position == TRANSFORMER_POSITION_LEARNED) {
        tfi_decode(scratch, table, (size_t)(position + r->c->position_offset) * (size_t)r->c->dim,
                   r->c->dim);
        for (int i = 0; i < r->c->dim; i++) x[i] += scratch[i];
    } else if (r->c->position == TRANSFORMER_POSITION_SINUSOIDAL) {
        for (int i = 0; i < r->c->dim; i++) {
            double angle = position * pow(10000.0, -(double)(i - i % 2) / r->c->dim);
            x[i] += (float)(i % 2 ? cos(angle) : sin(angle));
        }
    }
}

static void tfi_step_embed(const tfi_run *r, int layer, int part) {
    transformer_workspace *w = r->w;
    int begin, end, direct = r->c->embedding_dim == r->c->dim;
    int stride = direct ? w->x_stride : w->embedded_stride;
    (void)layer;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        tfi_embed_token(r, tfi_row(direct ? w->x : w->embedded, stride, row), row);
        for (int id = 0; id < 2; id++) {
            int pairs = r->m->rope[id].pairs;
            double factor = r->c->rope[id].attention_factor;
            for (int i = 0; i < pairs; i++) {
                double angle = w->row_position[row] * r->m->rope[id].frequency[i];
                w->cosine[id][row * pairs + i] = (float)(cos(angle) * factor);
                w->sine[id][row * pairs + i] = (float)(sin(angle) * factor);
            }
        }
    }
}

static void tfi_step_pack_embedding(const tfi_run *r, int layer, int part) {
    (void)layer;
    tfi_pack_rows(r, r->w->embedded, r->w->embedded_stride, r->n_rows, r->c->embedding_dim, part);
}
static void tfi_step_project_embedding(const tfi_run *r, int layer, int part) {
    const transformer_tensor *w = tfi_tensor(r->m, TRANSFORMER_EMBEDDING_PROJECTION, 0);
    int begin, end;
    (void)layer;
    tfi_share(w->rows, 16, part, r->parts, &begin, &end);
    tfi_input in = tfi_input_of(r->w->embedded, r->w->embedded_stride, r->n_rows);
    tfi_product(r, w, &in, begin, end, r->w->x + begin, r->w->x_stride, part);
}

static void tfi_step_position(const tfi_run *r, int layer, int part) {
    int begin, end;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        float *x = tfi_row(r->w->x, r->w->x_stride, row);
        tfi_add_position(r, x, r->w->row_position[row], tfi_row(r->w->h, r->w->x_stride, row));
        if (r->c->embedding_norm) tfi_norm(r, TRANSFORMER_EMBEDDING_NORM, layer, x, x, r->c->dim);
    }
}

/* ---- steps: the attention block ---- */

/* h = norm(x), or x itself where this model has no norm there. */
static void tfi_norm_rows(const tfi_run *r, int role, int layer, int part) {
    int begin, end;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        float *h = tfi_row(r->w->h, r->w->x_stride, row),
              *x = tfi_row(r->w->x, r->w->x_stride, row);
        size_t bytes = (size_t)r->c->dim * sizeof(float);
        if (r->c->norm_placement & TRANSFORMER_PLACE_INPUT)
            tfi_norm(r, role, layer, h, x, r->c->dim);
        else memcpy(h, x, bytes);
        if (r->c->residual_from_norm) memcpy(x, h, bytes);
    }
}
static void tfi_step_attn_norm(const tfi_run *r, int layer, int part) {
    tfi_norm_rows(r, TRANSFORMER_ATTN_NORM, layer, part);
}

static void tfi_step_pack_h(const tfi_run *r, int layer, int part) {
    (void)layer;
    tfi_pack_rows(r, r->w->h, r->w->x_stride, r->n_rows, r->c->dim, part);
}

static void tfi_step_qkv(const tfi_run *r, int layer, int part) {
    transformer_workspace *w = r->w;
    float clip = r->c->qkv_clip;
    tfi_input in = tfi_input_of(w->h, w->x_stride, r->n_rows);
    tfi_linear(r, TRANSFORMER_Q, layer, &in, w->q, w->q_stride, clip, part);
    tfi_linear(r, TRANSFORMER_K, layer, &in, w->k, w->k_stride, clip, part);
    tfi_linear(r, TRANSFORMER_V, layer, &in, w->v, w->v_stride, clip, part);
}

/* Normalises queries or keys, in place: over all heads together, or head by head. */
static void tfi_norm_heads(const tfi_run *r, int role, int layer, float *x, int n_heads) {
    int dim = r->c->head_dim, kind = r->c->qk_norm;
    const float *weight = tfi_vector(r->m, role, layer), *bias = tfi_vector(r->m, role + 1, layer);
    if (kind == TRANSFORMER_QK_NORM_FULL) {
        r->k->norm(x, x, weight, bias, n_heads * dim, r->c->norm_eps, r->c->norm);
        return;
    }
    for (int h = 0; h < n_heads; h++) {
        int at = kind == TRANSFORMER_QK_NORM_PER_HEAD ? h * dim : 0;
        r->k->norm(x + h * dim, x + h * dim, weight ? weight + at : NULL, bias ? bias + at : NULL,
                   dim, r->c->norm_eps, r->c->norm);
    }
}

/* Norm and rotation of all heads of one row, in the model's order. */
static void tfi_prepare_heads(const tfi_run *r, int norm_role, int layer, float *x, int n_heads,
                              int row) {
    const transformer_rope *rope = tfi_layer_rope(r->c, layer);
    int normed = r->c->qk_norm != TRANSFORMER_QK_NORM_NONE, after = r->c->qk_norm_after_rope;
    if (normed && !after) tfi_norm_heads(r, norm_role, layer, x, n_heads);
    if (rope) {
        int id = r->c->layers[layer].rope, pairs = r->m->rope[id].pairs;
        const float *cosine = r->w->cosine[id] + row * pairs, *sine = r->w->sine[id] + row * pairs;
        for (int h = 0; h < n_heads; h++)
            tfi_rotate(x + h * r->c->head_dim, pairs, rope->pairing, cosine, sine);
    }
    if (normed && after) tfi_norm_heads(r, norm_role, layer, x, n_heads);
}

static void tfi_step_rotate(const tfi_run *r, int layer, int part) {
    int begin, end, n_heads = tfi_n_heads(r->c, layer), logn = r->c->logn_length;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        float *q = tfi_row(r->w->q, r->w->q_stride, row);
        int position = r->w->row_position[row];
        tfi_prepare_heads(r, TRANSFORMER_Q_NORM, layer, q, n_heads, row);
        tfi_prepare_heads(r, TRANSFORMER_K_NORM, layer, tfi_row(r->w->k, r->w->k_stride, row),
                          tfi_n_kv_heads(r->c, layer), row);
        if (logn && position + 1 > logn) {
            float longer = (float)(log((double)position + 1) / log((double)logn));
            for (int i = 0; i < n_heads * r->c->head_dim; i++) q[i] *= longer;
        }
    }
}

/* Where a layer's keys (which = 0) or values (1) of one key-value head begin, and how many slots
 * it has. */
typedef struct tfi_cache {
    unsigned char *data;
    int capacity, f16;
    size_t row_bytes;
} tfi_cache;

static tfi_cache tfi_cache_of(const tfi_run *r, const tfi_slice *slice, int layer, int which,
                              int kv_head) {
    const transformer_state *s = r->call.sequences[slice->sequence].state;
    int dim = which ? r->c->value_dim : r->c->head_dim;
    tfi_cache cache;
    cache.f16 = s->kv_dtype == TRANSFORMER_F16;
    cache.capacity = tfi_capacity(r->c, layer, s->context, s->undo);
    cache.row_bytes = (size_t)dim * transformer_dtype_size(s->kv_dtype);
    cache.data = (unsigned char *)(uintptr_t)s + tfi_kv_offsets(s)[2 * layer + which] +
                 (size_t)kv_head * (size_t)cache.capacity * cache.row_bytes;
    return cache;
}

static void tfi_store_value(const tfi_run *r, tfi_cache cache, int position, const float *x) {
    unsigned char *to = cache.data + (size_t)(position % cache.capacity) * cache.row_bytes;
    if (cache.f16) r->k->to_f16((uint16_t *)(void *)to, x, r->c->value_dim);
    else memcpy(to, x, cache.row_bytes);
}

static void tfi_store_key(const tfi_run *r, tfi_cache cache, int position, const float *x) {
    int first = (position - position % TFI_KEY_BLOCK) % cache.capacity; /* of its block */
    void *block = cache.data + (size_t)first * cache.row_bytes;
    uint16_t half[TFI_KEY_BLOCK];
    for (int d = 0; d < r->c->head_dim; d++) {
        int at = d * TFI_KEY_BLOCK + position % TFI_KEY_BLOCK, i = d % TFI_KEY_BLOCK;
        if (cache.f16 && i == 0)
            r->k->to_f16(half, x + d, tfi_min(TFI_KEY_BLOCK, r->c->head_dim - d));
        if (cache.f16) ((uint16_t *)block)[at] = half[i];
        else ((float *)block)[at] = x[d];
    }
}

static void tfi_step_store(const tfi_run *r, int layer, int part) {
    int begin, end;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        const tfi_slice *slice = &r->w->slices[r->w->row_slice[row]];
        const float *k = tfi_row(r->w->k, r->w->k_stride, row),
                    *v = tfi_row(r->w->v, r->w->v_stride, row);
        int at = r->w->row_position[row];
        for (int h = 0; h < tfi_n_kv_heads(r->c, layer); h++) {
            tfi_store_key(r, tfi_cache_of(r, slice, layer, 0, h), at, k + h * r->c->head_dim);
            tfi_store_value(r, tfi_cache_of(r, slice, layer, 1, h), at, v + h * r->c->value_dim);
        }
    }
}

/* ---- attention ----
 *
 * Softmax over keys without ever holding all scores (Milakov & Gimelshein 2018, arXiv:1805.02867;
 * Dao et al. 2022, arXiv:2205.14135): blocks of TFI_KEY_BLOCK keys at fixed positions, in
 * ascending order, and per query a running maximum, sum of exponentials and weighted sum of
 * values.  A query's result depends on nothing but its own keys: which other queries share the
 * tile does not matter.
 *
 * A tile is up to TFI_QUERY_ROWS queries that read the same key-value head: the heads of its
 * group, token after token.
 */
typedef struct tfi_tile {
    const tfi_slice *slice;
    int layer, kv_head, group; /* group = query heads per key-value head */
    int first, n;              /* queries first .. first + n - 1 of slice->n * group */
} tfi_tile;

/* Keys begin .. end-1 that a query may see. */
static void tfi_visible(const tfi_run *r, const tfi_tile *tile, int query, int *begin, int *end) {
    int position = tile->slice->position + (tile->first + query) / tile->group;
    int window = r->c->layers[tile->layer].window;
    *end = r->c->causal ? position + 1 : tile->slice->n_keys;
    *begin = window ? tfi_max(0, position + 1 - window) : 0;
}

static int tfi_tile_row(const tfi_tile *t, int query) {
    return t->slice->row + (t->first + query) / t->group;
}
static int tfi_tile_head(const tfi_tile *t, int query) {
    return t->kv_head * t->group + (t->first + query) % t->group;
}

/* What ALiBi adds to the scores of a block of keys.  Only differences between keys matter, so the
 * query's own position is the zero: that keeps the numbers small.  Falcon computes slope *
 * position in BF16. */
static void tfi_alibi_bias(const tfi_run *r, const tfi_tile *tile, int query, int block,
                           float *bias) {
    int position = tile->slice->position + (tile->first + query) / tile->group;
    float slope = tfi_alibi_slope(tfi_tile_head(tile, query), tfi_n_heads(r->c, tile->layer),
                                  r->c->alibi_max_bias);
    float scale = tfi_attn_scale(r->c, tile->layer), rounded = tfi_from_bf16(tfi_to_bf16(slope));
    float own = tfi_from_bf16(tfi_to_bf16(rounded * tfi_from_bf16(tfi_to_bf16((float)position))));
    for (int j = 0; j < TFI_KEY_BLOCK; j++) {
        float key = (float)(block + j);
        if (!r->c->alibi_falcon) bias[j] = slope * (float)(block + j - position);
        else
            bias[j] =
                (tfi_from_bf16(tfi_to_bf16(rounded * tfi_from_bf16(tfi_to_bf16(key)))) - own) *
                scale;
    }
}

/* Scores of the tile's queries with one block of keys: scaled, capped, biased, not masked. */
static void tfi_block_scores(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                             int block, int n_keys) {
    tfi_cache keys = tfi_cache_of(r, tile->slice, tile->layer, 0, tile->kv_head);
    int dim = r->c->head_dim, alibi = r->c->position == TRANSFORMER_POSITION_ALIBI;
    memset(own->scores, 0, (size_t)(tile->n * TFI_KEY_BLOCK) * sizeof(float));
    r->k->accumulate[keys.f16](own->scores, TFI_KEY_BLOCK, own->queries, (size_t)dim,
                               keys.data + (size_t)(block % keys.capacity) * keys.row_bytes,
                               TFI_KEY_BLOCK, tile->n, dim, n_keys);
    for (int i = 0; i < tile->n; i++) {
        if (alibi) tfi_alibi_bias(r, tile, i, block, own->bias);
        r->k->scores(own->scores + i * TFI_KEY_BLOCK, tfi_attn_scale(r->c, tile->layer),
                     r->c->attn_softcap, alibi ? own->bias : NULL);
    }
}

/* Of a block of keys, query i sees low[i] .. high[i] - 1. */
typedef struct tfi_seen {
    int low[TFI_QUERY_ROWS], high[TFI_QUERY_ROWS];
} tfi_seen;

static void tfi_see_block(const tfi_run *r, const tfi_tile *tile, int block, tfi_seen *seen) {
    for (int i = 0, begin, end; i < tile->n; i++) {
        tfi_visible(r, tile, i, &begin, &end);
        seen->low[i] = tfi_min(TFI_KEY_BLOCK, tfi_max(0, begin - block));
        seen->high[i] = tfi_max(seen->low[i], tfi_min(TFI_KEY_BLOCK, end - block));
    }
}

/* Queries first .. first + n - 1 add, of the keys from .. to - 1, those they see: what all see at
 * once, what is left at either end half of the queries by half.  Each query adds its keys in
 * ascending order either way, and none that it does not see: 0 times infinity is not 0. */
static void tfi_add_values(const tfi_run *r, const tfi_private *own, const tfi_cache *block,
                           const tfi_seen *seen, int first, int n, int from, int to) {
    size_t dim = (size_t)r->c->value_dim, stride = (size_t)tfi_padded(r->c->value_dim);
    int all_from = from, all_to = to, any_from = to, any_to = from;
    for (int i = first; i < first + n; i++) {
        all_from = tfi_max(all_from, seen->low[i]), all_to = tfi_min(all_to, seen->high[i]);
        any_from = tfi_min(any_from, seen->low[i]), any_to = tfi_max(any_to, seen->high[i]);
    }
    any_from = tfi_max(any_from, from), any_to = tfi_min(any_to, to);
    if (any_from >= any_to) return;
    if (all_from >= all_to) all_from = all_to = to;
    const int half = n > 4 ? tfi_round_up(n / 2, 4) : n / 2;
    for (int part = 0; part < 2 && any_from < all_from && n > 1; part++)
        tfi_add_values(r, own, block, seen, part ? first + half : first, part ? n - half : half,
                       from, all_from);
    if (all_from < all_to)
        r->k->accumulate[block->f16](own->sums + (size_t)first * stride, stride,
                                     own->scores + first * TFI_KEY_BLOCK + all_from, TFI_KEY_BLOCK,
                                     block->data + (size_t)all_from * block->row_bytes, dim, n,
                                     all_to - all_from, (int)dim);
    for (int part = 0; part < 2 && all_to < any_to && n > 1; part++)
        tfi_add_values(r, own, block, seen, part ? first + half : first, part ? n - half : half,
                       all_to, to);
}

static void tfi_block_values(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                             int block, const tfi_seen *seen) {
    tfi_cache values = tfi_cache_of(r, tile->slice, tile->layer, 1, tile->kv_head);
    values.data += (size_t)(block % values.capacity) * values.row_bytes;
    tfi_add_values(r, own, &values, seen, 0, tile->n, 0, TFI_KEY_BLOCK);
}

typedef struct tfi_softmax {
    float max[TFI_QUERY_ROWS], sum[TFI_QUERY_ROWS], older[TFI_QUERY_ROWS];
} tfi_softmax;

/* Visible keys of a block leave exp(score - max), others 0 up to where no query sees any more. */
static void tfi_block_softmax(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                              const tfi_seen *seen, tfi_softmax *state) {
    int stride = tfi_padded(r->c->value_dim), n = tfi_padded(1);
    for (int i = 0; i < tile->n; i++) n = tfi_max(n, tfi_padded(seen->high[i]));
    for (int i = 0; i < tile->n; i++) {
        float *s = own->scores + i * TFI_KEY_BLOCK;
        for (int j = 0; j < seen->low[i]; j++) s[j] = -FLT_MAX;
        for (int j = seen->high[i]; j < n; j++) s[j] = -FLT_MAX;
    }
    r->k->softmax_block(own->scores, tile->n, n, state->max, state->sum, state->older);
    for (int i = 0; i < tile->n; i++) {
        float *sums = own->sums + i * stride;
        if (state->older[i] != 1) r->k->scale(sums, sums, state->older[i], r->c->value_dim);
    }
}

/* Starts a tile: its queries together, running sums to zero. */
static void tfi_begin_tile(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                           tfi_softmax *state) {
    size_t dim = (size_t)r->c->head_dim;
    for (int i = 0; i < tile->n; i++) {
        const float *q = tfi_row(r->w->q, r->w->q_stride, tfi_tile_row(tile, i));
        memcpy(own->queries + (size_t)i * dim, q + (size_t)tfi_tile_head(tile, i) * dim,
               dim * sizeof(float));
        state->max[i] = -3.0e38f, state->sum[i] = 0;
    }
    memset(own->sums, 0, (size_t)tile->n * (size_t)tfi_padded(r->c->value_dim) * sizeof(float));
}

/* z = weighted sum / sum of weights; a query that saw nothing gives zeros. */
static void tfi_end_tile(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                         const tfi_softmax *state) {
    int dim = r->c->value_dim, stride = tfi_padded(dim);
    for (int i = 0; i < tile->n; i++) {
        float *z =
            tfi_row(r->w->z, r->w->z_stride, tfi_tile_row(tile, i)) + tfi_tile_head(tile, i) * dim;
        float inverse = state->sum[i] > 0 ? 1 / state->sum[i] : 0;
        r->k->scale(z, own->sums + i * stride, inverse, dim);
    }
}

/* First and last key that any query of the tile sees; the first rounded down to a block. */
static void tfi_tile_range(const tfi_run *r, const tfi_tile *tile, int *begin, int *end) {
    *begin = INT32_MAX, *end = 0;
    for (int i = 0; i < tile->n; i++) {
        int from, to;
        tfi_visible(r, tile, i, &from, &to);
        *begin = tfi_min(*begin, from / TFI_KEY_BLOCK * TFI_KEY_BLOCK), *end = tfi_max(*end, to);
    }
}

static void tfi_attend_tile(const tfi_run *r, const tfi_tile *tile, const tfi_private *own) {
    tfi_softmax state;
    tfi_seen seen;
    int begin, end;
    tfi_tile_range(r, tile, &begin, &end);
    tfi_begin_tile(r, tile, own, &state);
    for (int block = begin; block < end; block += TFI_KEY_BLOCK) {
        tfi_block_scores(r, tile, own, block, tfi_min(TFI_KEY_BLOCK, end - block));
        tfi_see_block(r, tile, block, &seen);
        tfi_block_softmax(r, tile, own, &seen, &state);
        tfi_block_values(r, tile, own, block, &seen);
    }
    tfi_end_tile(r, tile, own, &state);
}

/* The tiles of all slices, dealt to the threads in turn: later tokens see more keys, so neighbours
 * cost alike. */
static void tfi_step_attention(const tfi_run *r, int layer, int part) {
    tfi_private own = tfi_private_of(r, part);
    tfi_tile tile;
    int turn = 0;
    tile.layer = layer;
    tile.group = tfi_n_heads(r->c, layer) / tfi_n_kv_heads(r->c, layer);
    for (int s = 0; s < r->n_slices; s++) {
        tile.slice = &r->w->slices[s];
        int queries = tile.slice->n * tile.group;
        for (tile.kv_head = 0; tile.kv_head < tfi_n_kv_heads(r->c, layer); tile.kv_head++)
            for (tile.first = 0; tile.first < queries; tile.first += TFI_QUERY_ROWS) {
                tile.n = tfi_min(TFI_QUERY_ROWS, queries - tile.first);
                if (turn++ % r->parts == part) tfi_attend_tile(r, &tile, &own);
            }
    }
}

/* ---- attention under taps: the same numbers, where a tap can see and change them ---- */

static int tfi_tapped(const tfi_run *r, int site) {
    return r->call.tap && r->call.tap->sites >> site & 1;
}

/* Calls the tap for one slice's rows.  Returns nonzero to stop. */
static int tfi_call_tap(const tfi_run *r, int site, int layer, const tfi_slice *slice, int position,
                        int n, int width, size_t stride, float *data, int n_keys, int first_key) {
    transformer_view view;
    view.site = site, view.layer = layer, view.sequence = slice->sequence, view.position = position;
    view.n = n, view.width = width, view.n_keys = n_keys, view.first_key = first_key;
    view.stride = stride, view.data = data;
    return r->call.tap->function(r->call.tap->user, &view);
}

/* One query head: its tile of one. */
static tfi_tile tfi_single_tile(const tfi_run *r, const tfi_slice *slice, int layer, int token,
                                int head) {
    tfi_tile tile;
    tile.slice = slice, tile.layer = layer;
    tile.group = tfi_n_heads(r->c, layer) / tfi_n_kv_heads(r->c, layer);
    tile.kv_head = head / tile.group;
    tile.first = token * tile.group + head % tile.group, tile.n = 1;
    return tile;
}

/* scores[0 .. end-begin) of one query, through the same kernels as always. */
static void tfi_query_scores(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                             float *scores) {
    tfi_softmax unused;
    int begin, end, from, to;
    tfi_tile_range(r, tile, &from, &to);
    tfi_visible(r, tile, 0, &begin, &end);
    tfi_begin_tile(r, tile, own, &unused);
    for (int block = from; block < to; block += TFI_KEY_BLOCK) {
        tfi_block_scores(r, tile, own, block, tfi_min(TFI_KEY_BLOCK, to - block));
        for (int j = tfi_max(begin, block); j < tfi_min(end, block + TFI_KEY_BLOCK); j++)
            scores[j - begin] = own->scores[j - block];
    }
}

/* z of one query from given scores, or (weighted) from given weights: there the weights stand in
 * for exp(score - max), with sum 1. */
static void tfi_query_result(const tfi_run *r, const tfi_tile *tile, const tfi_private *own,
                             const float *row, int weighted) {
    tfi_softmax state;
    tfi_seen seen;
    int begin, end, from, to;
    tfi_tile_range(r, tile, &from, &to);
    tfi_visible(r, tile, 0, &begin, &end);
    tfi_begin_tile(r, tile, own, &state);
    for (int block = from; block < to; block += TFI_KEY_BLOCK) {
        memset(own->scores, 0, TFI_KEY_BLOCK * sizeof(float));
        for (int j = tfi_max(begin, block); j < tfi_min(end, block + TFI_KEY_BLOCK); j++)
            own->scores[j - block] = row[j - begin];
        tfi_see_block(r, tile, block, &seen);
        if (!weighted) tfi_block_softmax(r, tile, own, &seen, &state);
        tfi_block_values(r, tile, own, block, &seen);
    }
    if (weighted) state.sum[0] = 1;
    tfi_end_tile(r, tile, own, &state);
}

/* The sum is taken in pieces: one lane adding thousands of numbers one by one would lose digits. */
static void tfi_softmax_row(const tfi_kernels *k, float *x, int n) {
    enum { PIECE = 256 };
    if (n < 1) return;
    float max = k->maximum(x, n);
    double sum = 0;
    for (int i = 0; i < n; i += PIECE)
        sum += (double)k->exponentials(x + i, x + i, tfi_min(PIECE, n - i), max);
    float inverse = (float)(1 / sum);
    for (int i = 0; i < n; i++) x[i] *= inverse;
}

/* All heads of one token.  The weights a tap sees are the exact softmax row; if it leaves them as
 * they are, z is computed from the scores as without a tap, else from the new weights. */
static int tfi_attend_token(const tfi_run *r, const tfi_slice *slice, int layer, int token,
                            const tfi_private *own) {
    int heads = tfi_n_heads(r->c, layer), position = slice->position + token, begin, end,
        changed = 0;
    tfi_tile tile = tfi_single_tile(r, slice, layer, token, 0);
    tfi_visible(r, &tile, 0, &begin, &end);
    int n = end - begin;
    float *scores = r->call.tap->scratch, *weights = scores + (size_t)heads * (size_t)n;
    for (int h = 0; h < heads; h++) {
        tile = tfi_single_tile(r, slice, layer, token, h);
        tfi_query_scores(r, &tile, own, scores + (size_t)h * (size_t)n);
    }
    if (tfi_tapped(r, TRANSFORMER_SITE_SCORES) &&
        tfi_call_tap(r, TRANSFORMER_SITE_SCORES, layer, slice, position, 1, heads * n, 0, scores, n,
                     begin))
        return 1;
    uint64_t before = 0;
    if (tfi_tapped(r, TRANSFORMER_SITE_WEIGHTS)) {
        memcpy(weights, scores, (size_t)heads * (size_t)n * sizeof(float));
        for (int h = 0; h < heads; h++) tfi_softmax_row(r->k, weights + (size_t)h * (size_t)n, n);
        before = tfi_hash(0, weights, (size_t)heads * (size_t)n * sizeof(float));
        if (tfi_call_tap(r, TRANSFORMER_SITE_WEIGHTS, layer, slice, position, 1, heads * n, 0,
                         weights, n, begin))
            return 1;
        changed = tfi_hash(0, weights, (size_t)heads * (size_t)n * sizeof(float)) != before;
    }
    for (int h = 0; h < heads; h++) {
        tile = tfi_single_tile(r, slice, layer, token, h);
        tfi_query_result(r, &tile, own, (changed ? weights : scores) + (size_t)h * (size_t)n,
                         changed);
    }
    return 0;
}

static void tfi_step_attention_tapped(const tfi_run *r, int layer, int part) {
    if (part) return;
    tfi_private own = tfi_private_of(r, 0);
    for (int s = 0; s < r->n_slices; s++)
        for (int t = 0; t < r->w->slices[s].n && !r->w->run.stopped; t++)
            r->w->run.stopped = tfi_attend_token(r, &r->w->slices[s], layer, t, &own);
}

/* ---- steps: after attention ---- */

static void tfi_step_pack_z(const tfi_run *r, int layer, int part) {
    tfi_pack_rows(r, r->w->z, r->w->z_stride, r->n_rows, tfi_n_heads(r->c, layer) * r->c->value_dim,
                  part);
}

static void tfi_step_attn_out(const tfi_run *r, int layer, int part) {
    tfi_input in = tfi_input_of(r->w->z, r->w->z_stride, r->n_rows);
    tfi_linear(r, TRANSFORMER_ATTN_OUT, layer, &in, r->w->attn, r->w->x_stride, 0, part);
}

/* A block's output: norm, scale. */
static void tfi_finish_block(const tfi_run *r, int norm_role, int layer, float *block, int part) {
    int begin, end;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        float *a = tfi_row(block, r->w->x_stride, row);
        if (r->c->norm_placement & TRANSFORMER_PLACE_OUTPUT)
            tfi_norm(r, norm_role, layer, a, a, r->c->dim);
        for (int i = 0; r->c->residual_scale != 1 && i < r->c->dim; i++)
            a[i] *= r->c->residual_scale;
    }
}
static void tfi_step_attn_post(const tfi_run *r, int layer, int part) {
    tfi_finish_block(r, TRANSFORMER_ATTN_POST_NORM, layer, r->w->attn, part);
}

/* x += block, and the norm of post-norm models. */
static void tfi_add_block(const tfi_run *r, int norm_role, int layer, const float *block,
                          int part) {
    int begin, end;
    tfi_share(r->n_rows, 1, part, r->parts, &begin, &end);
    for (int row = begin; row < end; row++) {
        float *x = tfi_row(r->w->x, r->w->x_stride, row);
        const float *a = block + (size_t)row * (size_t)r->w->x_stride;
        for (int i = 0; i < r->c->dim; i++) x[i] += a[i];
        if (r->c->norm_placement & TRANSFORMER_PLACE_SUM)
            tfi_norm(r, norm_role, layer, x, x, r->c->dim);
    }
}
static void tfi_step_attn_add(const tfi_run *r, int layer, int part) {
    tfi_add_block(r, TRANSFORMER_ATTN_NORM, layer, r->w->attn, part);
}

/* ---- steps: the MLP block ---- */

static void tfi_step_mlp_norm(const tfi_run *r, int layer, int part) {
    tfi_norm_rows(r, TRANSFORMER_MLP_NORM, layer, part);
}

static void tfi_step_mlp_up(const tfi_run *r, int layer, int part) {
    transformer_workspace *w = r->w;
    tfi_input in = tfi_input_of(w->h, w->x_stride, r->n_rows);
    tfi_linear(r, TRANSFORMER_MLP_UP, layer, &in, w->up, w->mlp_stride, 0, part);
    if (r->c->gated)
        tfi_linear(r, TRANSFORMER_MLP_GATE, layer, &in, w->gate, w->mlp_stride, 0, part);
}

/* gate = act(gate) * up; without a gate, up = act(up) (w->gate is w->up then). */
static void tfi_step_mlp_act(const tfi_run *r, int layer, int part) {
    int begin, end;
    tfi_share(tfi_mlp_dim(r->c, layer), 16, part, r->parts, &begin, &end);
    for (int row = 0; row < r->n_rows && begin < end; row++) {
        float *gate = tfi_row(r->w->gate, r->w->mlp_stride, row),
              *up = tfi_row(r->w->up, r->w->mlp_stride, row);
        r->k->activate(gate + begin, r->c->gated ? up + begin : NULL, end - begin,
                       r->c->activation);
    }
}

static void tfi_step_pack_mlp(const tfi_run *r, int layer, int part) {
    tfi_pack_rows(r, r->w->gate, r->w->mlp_stride, r->n_rows, tfi_mlp_dim(r->c, layer), part);
}

static void tfi_step_mlp_down(const tfi_run *r, int layer, int part) {
    tfi_input in = tfi_input_of(r->w->gate, r->w->mlp_stride, r->n_rows);
    tfi_linear(r, TRANSFORMER_MLP_DOWN, layer, &in, r->w->mlp, r->w->x_stride, 0, part);
}
static void tfi_step_mlp_post(const tfi_run *r, int layer, int part) {
    tfi_finish_block(r, TRANSFORMER_MLP_POST_NORM, layer, r->w->mlp, part);
}
static void tfi_step_mlp_add(const tfi_run *r, int layer, int part) {
    tfi_add_block(r, TRANSFORMER_MLP_NORM, layer, r->w->mlp, part);
}

/* ---- steps: the head, only for rows whose logits are wanted ---- */

static void tfi_step_final_norm(const tfi_run *r, int layer, int part) {
    int begin, end;
    tfi_share(r->n_out, 1, part, r->parts, &begin, &end);
    for (int o = begin; o < end; o++) {
        const float *x = tfi_row(r->w->x, r->w->x_stride, r->w->out_row[o]);
        float *h = tfi_row(r->w->h, r->w->x_stride, o);
        if (r->c->final_norm) tfi_norm(r, TRANSFORMER_FINAL_NORM, layer, h, x, r->c->dim);
        else memcpy(h, x, (size_t)r->c->dim * sizeof(float));
    }
}

static void tfi_step_pack_out(const tfi_run *r, int layer, int part) {
    (void)layer;
    tfi_pack_rows(r, r->w->h, r->w->x_stride, r->n_out, r->c->dim, part);
}
static void tfi_step_project_out(const tfi_run *r, int layer, int part) {
    const transformer_tensor *w = tfi_tensor(r->m, TRANSFORMER_HEAD_PROJECTION, 0);
    int begin, end;
    (void)layer;
    tfi_share(w->rows, 16, part, r->parts, &begin, &end);
    tfi_input in = tfi_input_of(r->w->h, r->w->x_stride, r->n_out);
    tfi_product(r, w, &in, begin, end, r->w->embedded + begin, r->w->embedded_stride, part);
}
static void tfi_step_pack_projected(const tfi_run *r, int layer, int part) {
    (void)layer;
    tfi_pack_rows(r, r->w->embedded, r->w->embedded_stride, r->n_out, r->c->embedding_dim, part);
}

/* Keeps what a log-probability needs of one row of one vocabulary block: its maximum, the sum of
 * exponentials, and the target's logit if it lies here. */
static void tfi_score_block(const tfi_run *r, float *logits, int block, int n, int out,
                            float *scratch) {
    int target = r->w->out_target[out] - block * TFI_HEAD_BLOCK;
    size_t at = (size_t)block * (size_t)r->w->batch + (size_t)out;
    if (!r->w->out_logprob[out]) return;
    r->w->block_max[at] = r->k->maximum(logits, n);
    r->w->block_sum[at] = r->k->exponentials(scratch, logits, n, r->w->block_max[at]);
    if (target >= 0 && target < n) r->w->row_target_logit[out] = logits[target];
}

/* Logits of vocabulary rows block * TFI_HEAD_BLOCK ...: product, bias, scale, cap; then stored,
 * scored or both. */
static void tfi_head_block(const tfi_run *r, tfi_input *in, int block, int part) {
    const transformer_tensor *head =
        tfi_tensor(r->m, r->c->tied ? TRANSFORMER_EMBEDDING : TRANSFORMER_HEAD, 0);
    const float *bias = tfi_vector(r->m, TRANSFORMER_HEAD_BIAS, 0);
    int first = block * TFI_HEAD_BLOCK, n = tfi_min(TFI_HEAD_BLOCK, r->c->vocab_size - first);
    float *logits = tfi_private_of(r, part).head;
    float exponentials[TFI_HEAD_BLOCK];
    tfi_product(r, head, in, first, first + n, logits, TFI_HEAD_BLOCK, part);
    for (int o = 0; o < r->n_out; o++) {
        float *row = logits + (size_t)o * TFI_HEAD_BLOCK;
        for (int i = 0; bias && i < n; i++) row[i] += bias[first + i];
        for (int i = 0; r->c->logit_scale != 1 && i < n; i++) row[i] *= r->c->logit_scale;
        if (r->c->logit_softcap > 0) r->k->cap(row, n, r->c->logit_softcap);
        if (r->w->out_logits[o])
            memcpy(r->w->out_logits[o] + first, row, (size_t)n * sizeof(float));
        tfi_score_block(r, row, block, n, o, exponentials);
    }
}

static int tfi_n_head_blocks(const tfi_run *r) {
    return (r->c->vocab_size + TFI_HEAD_BLOCK - 1) / TFI_HEAD_BLOCK;
}

static void tfi_step_head(const tfi_run *r, int layer, int part) {
    int begin, end, projected = r->c->embedding_dim != r->c->dim;
    tfi_input in = tfi_input_of(projected ? r->w->embedded : r->w->h,
                                projected ? r->w->embedded_stride : r->w->x_stride, r->n_out);
    (void)layer;
    tfi_share(tfi_n_head_blocks(r), 1, part, r->parts, &begin, &end);
    for (int block = begin; block < end && r->n_out; block++) tfi_head_block(r, &in, block, part);
}

/* log p = logit - log sum exp, over the blocks in order.  If a tap has had its hands on stored
 * logits, from those. */
static void tfi_step_logprob(const tfi_run *r, int layer, int part) {
    int begin, end;
    float exponentials[TFI_HEAD_BLOCK];
    (void)layer;
    tfi_share(r->n_out, 1, part, r->parts, &begin, &end);
    for (int o = begin; o < end; o++) {
        double max = -DBL_MAX, sum = 0;
        if (!r->w->out_logprob[o]) continue;
        for (int b = 0; b < tfi_n_head_blocks(r); b++) {
            size_t at = (size_t)b * (size_t)r->w->batch + (size_t)o;
            if (r->w->out_logits[o] && tfi_tapped(r, TRANSFORMER_SITE_LOGITS))
                tfi_score_block(r, r->w->out_logits[o] + b * TFI_HEAD_BLOCK, b,
                                tfi_min(TFI_HEAD_BLOCK, r->c->vocab_size - b * TFI_HEAD_BLOCK), o,
                                exponentials);
            max = (double)r->w->block_max[at] > max ? (double)r->w->block_max[at] : max;
        }
        for (int b = 0; b < tfi_n_head_blocks(r); b++) {
            size_t at = (size_t)b * (size_t)r->w->batch + (size_t)o;
            sum += (double)r->w->block_sum[at] * exp((double)r->w->block_max[at] - max);
        }
        *r->w->out_logprob[o] = (float)((double)r->w->row_target_logit[o] - max - log(sum));
    }
}

/* ---- the program: what a pass does, as data ---- */

/* How a step is shared out.  Between two steps with the same split no thread needs what another
 * computed. */
enum {
    TFI_BY_TOKEN,
    TFI_BY_PANEL,
    TFI_BY_ROW,     /* of a product's weights */
    TFI_BY_MLP_ROW, /* likewise, but what the same rows of gate and up made (of few tokens) */
    TFI_BY_TILE,
    TFI_BY_OUT,
    TFI_BY_BLOCK
};

/* Conditions on a step: all its bits must hold. */
enum {
    TFI_IF_ATTENTION = 1,
    TFI_IF_MLP = 2,
    TFI_IF_MANY = 4 /* rows are packed together */,
    TFI_IF_SEQUENTIAL = 8,
    TFI_IF_PARALLEL = 16,
    TFI_IF_MLP_NORM = 32 /* the MLP has an input of its own */,
    TFI_IF_PROJECTED = 64,
    TFI_IF_SCORES_TAPPED = 128,
    TFI_IF_SCORES_FREE = 256,
    TFI_IF_OUT = 512,
    TFI_IF_OUT_MANY = 1024,
    TFI_IF_SHARED_NORM = 2048
};

typedef struct tfi_step {
    tfi_step_function *run;
    int split, conditions;
    int first_site, last_site; /* sites whose values this step completes; last < first = none */
} tfi_step;

#define TFI_SITE(name) TRANSFORMER_SITE_##name
#define TFI_NO_SITE 0, -1
static const tfi_step tfi_embedding_steps[] = {
    {tfi_step_embed, TFI_BY_TOKEN, 0, TFI_NO_SITE},
    {tfi_step_pack_embedding, TFI_BY_PANEL, TFI_IF_PROJECTED | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_project_embedding, TFI_BY_ROW, TFI_IF_PROJECTED, TFI_NO_SITE},
    {tfi_step_position, TFI_BY_TOKEN, 0, TFI_SITE(EMBEDDING), TFI_SITE(EMBEDDING)},
    {NULL, 0, 0, TFI_NO_SITE}};
/* Nothing: for a site, or to wait for what others computed. */
static void tfi_step_enter(const tfi_run *r, int layer, int part) {
    (void)r, (void)layer, (void)part;
}
static const tfi_step tfi_layer_steps[] = {
    {tfi_step_enter, TFI_BY_TOKEN, 0, TFI_SITE(RESIDUAL_PRE), TFI_SITE(RESIDUAL_PRE)},
    {tfi_step_attn_norm, TFI_BY_TOKEN, TFI_IF_SHARED_NORM, TFI_SITE(ATTN_NORM),
     TFI_SITE(ATTN_NORM)},
    {tfi_step_pack_h, TFI_BY_PANEL, TFI_IF_SHARED_NORM | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_qkv, TFI_BY_ROW, TFI_IF_ATTENTION, TFI_SITE(Q), TFI_SITE(V)},
    {tfi_step_rotate, TFI_BY_TOKEN, TFI_IF_ATTENTION, TFI_SITE(Q_ROTATED), TFI_SITE(K_ROTATED)},
    {tfi_step_store, TFI_BY_TOKEN, TFI_IF_ATTENTION, TFI_NO_SITE},
    {tfi_step_attention, TFI_BY_TILE, TFI_IF_ATTENTION | TFI_IF_SCORES_FREE, TFI_SITE(Z),
     TFI_SITE(Z)},
    {tfi_step_attention_tapped, TFI_BY_TILE, TFI_IF_ATTENTION | TFI_IF_SCORES_TAPPED, TFI_SITE(Z),
     TFI_SITE(Z)},
    {tfi_step_pack_z, TFI_BY_PANEL, TFI_IF_ATTENTION | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_attn_out, TFI_BY_ROW, TFI_IF_ATTENTION, TFI_NO_SITE},
    {tfi_step_attn_post, TFI_BY_TOKEN, TFI_IF_ATTENTION, TFI_SITE(ATTN_OUT), TFI_SITE(ATTN_OUT)},
    {tfi_step_attn_add, TFI_BY_TOKEN, TFI_IF_ATTENTION | TFI_IF_SEQUENTIAL, TFI_SITE(RESIDUAL_MID),
     TFI_SITE(RESIDUAL_MID)},
    {tfi_step_mlp_norm, TFI_BY_TOKEN, TFI_IF_MLP | TFI_IF_MLP_NORM, TFI_SITE(MLP_NORM),
     TFI_SITE(MLP_NORM)},
    {tfi_step_pack_h, TFI_BY_PANEL, TFI_IF_MLP | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_mlp_up, TFI_BY_MLP_ROW, TFI_IF_MLP, TFI_SITE(MLP_PRE), TFI_SITE(MLP_UP)},
    {tfi_step_enter, TFI_BY_TOKEN, TFI_IF_MLP | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_mlp_act, TFI_BY_MLP_ROW, TFI_IF_MLP, TFI_SITE(MLP_ACT), TFI_SITE(MLP_ACT)},
    {tfi_step_pack_mlp, TFI_BY_PANEL, TFI_IF_MLP | TFI_IF_MANY, TFI_NO_SITE},
    {tfi_step_mlp_down, TFI_BY_ROW, TFI_IF_MLP, TFI_NO_SITE},
    {tfi_step_mlp_post, TFI_BY_TOKEN, TFI_IF_MLP, TFI_SITE(MLP_OUT), TFI_SITE(MLP_OUT)},
    {tfi_step_attn_add, TFI_BY_TOKEN, TFI_IF_ATTENTION | TFI_IF_PARALLEL, TFI_NO_SITE},
    {tfi_step_mlp_add, TFI_BY_TOKEN, TFI_IF_MLP, TFI_NO_SITE},
    {tfi_step_enter, TFI_BY_TOKEN, 0, TFI_SITE(RESIDUAL_POST), TFI_SITE(RESIDUAL_POST)},
    {NULL, 0, 0, TFI_NO_SITE}};
static const tfi_step tfi_head_steps[] = {
    {tfi_step_final_norm, TFI_BY_OUT, TFI_IF_OUT, TFI_SITE(FINAL_NORM), TFI_SITE(FINAL_NORM)},
    {tfi_step_pack_out, TFI_BY_PANEL, TFI_IF_OUT_MANY, TFI_NO_SITE},
    {tfi_step_project_out, TFI_BY_ROW, TFI_IF_OUT | TFI_IF_PROJECTED, TFI_NO_SITE},
    {tfi_step_pack_projected, TFI_BY_PANEL, TFI_IF_OUT_MANY | TFI_IF_PROJECTED, TFI_NO_SITE},
    {tfi_step_head, TFI_BY_BLOCK, TFI_IF_OUT, TFI_SITE(LOGITS), TFI_SITE(LOGITS)},
    {tfi_step_logprob, TFI_BY_OUT, TFI_IF_OUT, TFI_NO_SITE},
    {NULL, 0, 0, TFI_NO_SITE}};

static const tfi_step *tfi_stage_steps(const tfi_run *r, int stage) {
    return stage == 0                ? tfi_embedding_steps
           : stage <= r->c->n_layers ? tfi_layer_steps
                                     : tfi_head_steps;
}

/* Which conditions hold in a stage. */
static int tfi_stage_traits(const tfi_run *r, int stage) {
    const transformer_config *c = r->c;
    int layer = stage - 1, traits = 0;
    int tapped = tfi_tapped(r, TRANSFORMER_SITE_SCORES) || tfi_tapped(r, TRANSFORMER_SITE_WEIGHTS);
    if (r->n_rows > r->k->few) traits |= TFI_IF_MANY;
    if (r->n_out) traits |= TFI_IF_OUT;
    if (r->n_out > r->k->few) traits |= TFI_IF_OUT_MANY;
    if (c->embedding_dim != c->dim) traits |= TFI_IF_PROJECTED;
    if (layer < 0 || layer >= c->n_layers) return traits;
    int attention = !c->layers[layer].no_attention, mlp = !c->layers[layer].no_mlp;
    int shared = c->parallel == TRANSFORMER_PARALLEL_SHARED;
    traits |= tapped ? TFI_IF_SCORES_TAPPED : TFI_IF_SCORES_FREE;
    traits |= c->parallel ? TFI_IF_PARALLEL : TFI_IF_SEQUENTIAL;
    if (attention) traits |= TFI_IF_ATTENTION;
    if (mlp) traits |= TFI_IF_MLP;
    if (!shared) traits |= TFI_IF_MLP_NORM;
    if (attention || (shared && mlp)) traits |= TFI_IF_SHARED_NORM;
    return traits;
}

/* ==== >>taps ================================================================================= */

static const char *const tfi_site_names[TRANSFORMER_N_SITES] = {
    "embedding",     "residual_pre", "attn_norm", "q",       "k",       "v",
    "q_rotated",     "k_rotated",    "scores",    "weights", "z",       "attn_out",
    "residual_mid",  "mlp_norm",     "mlp_pre",   "mlp_up",  "mlp_act", "mlp_out",
    "residual_post", "final_norm",   "logits"};
TFI_DEF const char *transformer_site_name(int site) {
    return site >= 0 && site < TRANSFORMER_N_SITES ? tfi_site_names[site] : "unknown site";
}

/* Where a site's rows lie: [n_rows, width]; NULL if this model has no such site. */
static float *tfi_site_rows(const tfi_run *r, int site, int layer, int *width, int *stride) {
    transformer_workspace *w = r->w;
    *width = r->c->dim, *stride = w->x_stride;
    switch (site) {
    case TRANSFORMER_SITE_EMBEDDING:
    case TRANSFORMER_SITE_RESIDUAL_PRE:
    case TRANSFORMER_SITE_RESIDUAL_MID:
    case TRANSFORMER_SITE_RESIDUAL_POST: return w->x;
    case TRANSFORMER_SITE_ATTN_NORM:
    case TRANSFORMER_SITE_MLP_NORM:
    case TRANSFORMER_SITE_FINAL_NORM: return w->h;
    case TRANSFORMER_SITE_ATTN_OUT: return w->attn;
    case TRANSFORMER_SITE_MLP_OUT: return w->mlp;
    case TRANSFORMER_SITE_Q:
    case TRANSFORMER_SITE_Q_ROTATED:
        return *width = tfi_n_heads(r->c, layer) * r->c->head_dim, *stride = w->q_stride, w->q;
    case TRANSFORMER_SITE_K:
    case TRANSFORMER_SITE_K_ROTATED:
        return *width = tfi_n_kv_heads(r->c, layer) * r->c->head_dim, *stride = w->k_stride, w->k;
    case TRANSFORMER_SITE_V:
        return *width = tfi_n_kv_heads(r->c, layer) * r->c->value_dim, *stride = w->v_stride, w->v;
    case TRANSFORMER_SITE_Z:
        return *width = tfi_n_heads(r->c, layer) * r->c->value_dim, *stride = w->z_stride, w->z;
    case TRANSFORMER_SITE_MLP_PRE:
    case TRANSFORMER_SITE_MLP_ACT:
        return *width = tfi_mlp_dim(r->c, layer), *stride = w->mlp_stride, w->gate;
    case TRANSFORMER_SITE_MLP_UP:
        return *width = tfi_mlp_dim(r->c, layer), *stride = w->mlp_stride,
               r->c->gated ? w->up : NULL;
    default: return NULL;
    }
}

/* Shows a finished site to the tap, one view per sequence. */
static int tfi_fire(const tfi_run *r, int site, int layer) {
    int width, stride,
        out_site = site == TRANSFORMER_SITE_FINAL_NORM || site == TRANSFORMER_SITE_LOGITS;
    float *rows = tfi_site_rows(r, site, layer, &width, &stride);
    int shown = site == TRANSFORMER_SITE_EMBEDDING || out_site ? -1 : layer;
    for (int s = 0; s < r->n_slices; s++) {
        const tfi_slice *slice = &r->w->slices[s];
        int first = out_site ? slice->out : slice->row, n = out_site ? slice->n_out : slice->n;
        int position = slice->position + (out_site ? slice->n - slice->n_out : 0);
        float *data = rows ? rows + (size_t)first * (size_t)stride : NULL;
        if (site == TRANSFORMER_SITE_LOGITS) {
            while (n && !r->w->out_logits[first])
                first++, n--, position++; /* rows only scored, not stored */
            data = n ? r->w->out_logits[first] : NULL, width = stride = r->c->vocab_size;
        }
        if (data && n &&
            tfi_call_tap(r, site, shown, slice, position, n, width, (size_t)stride, data, 0, 0))
            return 1;
    }
    return 0;
}

/* ==== >>threads ==============================================================================
 *
 * A group is a run of steps that a thread can do one after the other without looking at the
 * others' work.  After each group comes a barrier: with OpenMP all threads walk through the same
 * groups side by side inside one parallel region; with options.parallel each group is one call of
 * the user's function.
 */
typedef struct tfi_group {
    const tfi_run *run;
    const tfi_step *steps;
    int layer, traits, first, last; /* steps first .. last-1, those whose conditions hold */
    int site_step;                  /* step whose sites are tapped after the group, or -1 */
    int number;                     /* of the groups of a pass */
} tfi_group;

static int tfi_wants_site(const tfi_run *r, const tfi_step *step) {
    for (int site = step->first_site; site <= step->last_site; site++)
        if (tfi_tapped(r, site)) return 1;
    return 0;
}

/* The next group at or after step `from`; 0 if the stage is over. */
static int tfi_next_group(const tfi_run *r, int stage, int from, tfi_group *g) {
    int split = -1;
    g->run = r, g->layer = stage >= 1 && stage <= r->c->n_layers ? stage - 1 : 0;
    g->steps = tfi_stage_steps(r, stage), g->traits = tfi_stage_traits(r, stage);
    g->first = from, g->site_step = -1;
    for (g->last = from; g->steps[g->last].run; g->last++) {
        const tfi_step *step = &g->steps[g->last];
        if ((step->conditions & g->traits) != step->conditions) continue;
        if (split >= 0 && step->split != split) break;
        split = step->split;
        if (!tfi_wants_site(r, step)) continue;
        g->site_step = g->last++;
        break;
    }
    return split >= 0;
}

static void tfi_run_group(void *arg, int part) {
    const tfi_group *g = (const tfi_group *)arg;
    g->run->w->turns[part].group = g->number, g->run->w->turns[part].product = 0;
    for (int i = g->first; i < g->last; i++)
        if ((g->steps[i].conditions & g->traits) == g->steps[i].conditions)
            g->steps[i].run(g->run, g->layer, part);
}

static void tfi_fire_group(const tfi_group *g) {
    const tfi_step *step = &g->steps[g->site_step];
    for (int site = step->first_site; site <= step->last_site && !g->run->w->run.stopped; site++)
        if (tfi_tapped(g->run, site) && tfi_fire(g->run, site, g->layer))
            g->run->w->run.stopped = 1;
}

/* Where a team has arrived `*arrivals` times when all may go on (>>kernels). */
static void tfi_barrier(const tfi_run *r, int team, int *arrivals);

/* Walks through the stages, as thread `part` of the team, after `arrivals` at its barriers. */
static void tfi_walk_stages(const tfi_run *r, int part, int team, int arrivals) {
    tfi_group group;
    group.number = 0;
    for (int stage = r->stage; stage < r->stage_end; stage++) {
        for (int at = 0; tfi_next_group(r, stage, at, &group); at = group.last, group.number++) {
            int *later = r->w->tickets[(group.number + 1) & 1];
            if (part == 0) memset(later, 0, sizeof r->w->tickets[0]);
            if (team == 1 && r->parts > 1)
                r->w->parallel(r->w->parallel_user, tfi_run_group, &group, r->parts);
            else tfi_run_group(&group, part);
            tfi_barrier(r, team, &arrivals);
            if (group.site_step >= 0) {
                if (part == 0) tfi_fire_group(&group);
                tfi_barrier(r, team, &arrivals);
            }
            if (r->w->run.stopped) return;
        }
    }
}

/* A pass costs about this many multiplications before another thread is worth its barriers. */
enum { TFI_SERIAL_WORK = 1 << 21 };

static int tfi_count_parts(const tfi_run *r) {
    const transformer_config *c = r->c;
    double work = (double)r->n_out * c->vocab_size * c->embedding_dim;
    for (int l = 0; l < c->n_layers; l++)
        work += (double)r->n_rows * c->dim *
                ((double)c->layers[l].mlp_dim * 3 + (double)c->layers[l].n_heads * c->head_dim * 2);
    if (work < (double)TFI_SERIAL_WORK) return 1;
    return r->w->parallel ? r->w->n_threads : tfi_min(r->w->n_threads, TFI_PROCESSORS());
}

static void tfi_execute(tfi_run *r) {
    r->parts = tfi_count_parts(r);
    memset(r->w->tickets, 0, sizeof r->w->tickets);
    r->w->arrivals = 0;
#if TFI_OPENMP
    if (r->parts > 1 && !r->w->parallel) {
#pragma omp parallel num_threads(r->parts)
        {
            int team = omp_get_num_threads(), part = omp_get_thread_num(), arrivals = 0;
            if (part == 0) r->parts = team; /* fewer than asked for, if the runtime says so */
            tfi_barrier(r, team, &arrivals);
            tfi_walk_stages(r, part, team, arrivals);
        }
        return;
    }
#endif
    tfi_walk_stages(r, 0, 1, 0);
}

/* ---- calls: checks, passes, the end ---- */

static transformer_status tfi_check_tokens(const transformer_config *c,
                                           const transformer_sequence *q, int index,
                                           transformer_error *error) {
    for (int i = 0; q->tokens && i < q->n; i++)
        if (q->tokens[i] < 0 || q->tokens[i] >= c->vocab_size)
            return tfi_fail(error, TRANSFORMER_ARGUMENT,
                            "sequence %d: token %d is %d, not in 0 .. %d", index, i,
                            (int)q->tokens[i], c->vocab_size - 1);
    for (int i = 0; q->targets && i < q->n; i++)
        if (q->targets[i] < -1 || q->targets[i] >= c->vocab_size)
            return tfi_fail(error, TRANSFORMER_ARGUMENT,
                            "sequence %d: target %d is %d, not in -1 .. %d", index, i,
                            (int)q->targets[i], c->vocab_size - 1);
    return TRANSFORMER_OK;
}

static transformer_status tfi_check_sequence(const transformer_model *m,
                                             const transformer_workspace *w,
                                             const transformer_sequence *q, int index,
                                             transformer_error *error) {
    if (!q->state)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "sequence %d: state is NULL", index);
    if (!tfi_is_state(q->state))
        return tfi_fail(error, TRANSFORMER_STATE, "sequence %d: no state", index);
    if (q->state->model != m->fingerprint)
        return tfi_fail(error, TRANSFORMER_STATE, "sequence %d: the state belongs to another model",
                        index);
    if (q->n < 1) return tfi_fail(error, TRANSFORMER_ARGUMENT, "sequence %d: n is %d", index, q->n);
    if (!q->tokens == !q->embeddings)
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "sequence %d: give tokens or embeddings, one of them", index);
    if (q->logits_rows != TRANSFORMER_LOGITS_LAST && q->logits_rows != TRANSFORMER_LOGITS_ALL)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "sequence %d: logits_rows is %d", index,
                        q->logits_rows);
    if (!q->targets != !q->logprobs)
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "sequence %d: targets and logprobs go together", index);
    if (q->n > q->state->context - q->state->position)
        return tfi_fail(error, TRANSFORMER_FULL,
                        "sequence %d: %d tokens at position %d exceed the context of %d", index,
                        q->n, (int)q->state->position, (int)q->state->context);
    if (!m->config.causal && (q->state->position || q->n > w->batch))
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "sequence %d: without a causal mask a sequence is one call of at most "
                        "options.batch tokens",
                        index);
    return tfi_check_tokens(&m->config, q, index, error);
}

static transformer_status tfi_check_tap(const transformer_model *m, const transformer_call *call,
                                        transformer_error *error) {
    const transformer_tap *tap = call->tap;
    int rows_needed =
        tap && tap->sites & (1u << TRANSFORMER_SITE_SCORES | 1u << TRANSFORMER_SITE_WEIGHTS);
    if (!tap) return TRANSFORMER_OK;
    if (!tap->function) return tfi_fail(error, TRANSFORMER_ARGUMENT, "tap.function is NULL");
    for (int s = 0; s < call->n_sequences; s++) {
        const transformer_sequence *q = &call->sequences[s];
        size_t need = 0;
        for (int l = 0; l < m->config.n_layers; l++) {
            size_t heads = (size_t)tfi_n_heads(&m->config, l), keys = (size_t)q->state->context;
            size_t bytes = tfi_times(tfi_times(2 * heads, keys), sizeof(float));
            need = bytes > need && !m->config.layers[l].no_attention ? bytes : need;
        }
        if (rows_needed && (!tap->scratch || tap->scratch_size < need))
            return tfi_fail(error, TRANSFORMER_ARGUMENT,
                            "tap.scratch is smaller than 2 * n_heads * context floats");
        if (q->state->has_ring && q->n > q->state->undo)
            return tfi_fail(error, TRANSFORMER_ARGUMENT,
                            "sequence %d: with a tap and sliding windows at most options.undo = %d "
                            "tokens per call",
                            s, (int)q->state->undo);
    }
    return TRANSFORMER_OK;
}

static transformer_status tfi_check_call(const transformer_model *m, const transformer_workspace *w,
                                         const transformer_call *call, transformer_error *error) {
    int64_t total = 0;
    if (!tfi_is_ready(m)) return tfi_fail(error, TRANSFORMER_ARGUMENT, "the model is not ready");
    if (!w || w->magic != TFI_WORKSPACE_MAGIC)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "no workspace");
    if (w->model != m->fingerprint)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "the workspace belongs to another model");
    if (!call || !call->sequences || call->n_sequences < 1 || call->n_layers < 0)
        return tfi_fail(error, TRANSFORMER_ARGUMENT, "the call has no sequences or n_layers < 0");
    for (int s = 0; s < call->n_sequences; s++) {
        transformer_status status = tfi_check_sequence(m, w, &call->sequences[s], s, error);
        if (status) return status;
        total += call->sequences[s].n;
        for (int other = 0; other < s; other++)
            if (call->sequences[other].state == call->sequences[s].state)
                return tfi_fail(error, TRANSFORMER_ARGUMENT, "sequences %d and %d share a state",
                                other, s);
        if (call->n_layers && call->sequences[s].state->has_ring &&
            call->sequences[s].n > call->sequences[s].state->undo)
            return tfi_fail(error, TRANSFORMER_ARGUMENT,
                            "sequence %d: a call with pauses must fit in one pass", s);
    }
    if (call->n_layers && total > w->batch)
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "a call with pauses must fit in one pass of options.batch = %d", w->batch);
    return tfi_check_tap(m, call, error);
}

/* How many of a sequence's remaining tokens the pass takes. */
static int tfi_slice_length(const tfi_run *r, const transformer_sequence *q, int token) {
    int left = q->n - token, room = r->w->batch - r->n_rows;
    if (!r->c->causal) return left <= room ? left : 0;
    if (q->state->has_ring) left = tfi_min(left, q->state->undo);
    return tfi_min(left, room);
}

/* Rows of a slice whose logits are wanted, and where they go. */
static void tfi_plan_outputs(tfi_run *r, tfi_slice *slice) {
    const transformer_sequence *q = &r->call.sequences[slice->sequence];
    transformer_workspace *w = r->w;
    int all = q->logits && q->logits_rows == TRANSFORMER_LOGITS_ALL,
        ends = slice->token + slice->n == q->n;
    slice->out = r->n_out;
    slice->n_out = all || q->targets ? slice->n : q->logits && ends ? 1 : 0;
    for (int i = 0; i < slice->n_out; i++) {
        int row = slice->n - slice->n_out + i, token = slice->token + row, out = r->n_out++;
        int last = token == q->n - 1, target = q->targets ? (int)q->targets[token] : -1;
        w->out_row[out] = slice->row + row;
        w->out_logits[out] = all    ? q->logits + (size_t)token * (size_t)r->c->vocab_size
                             : last ? q->logits
                                    : NULL;
        w->out_target[out] = target;
        w->out_logprob[out] = target >= 0 ? q->logprobs + token : NULL;
    }
}

/* Takes the next tokens of the call into a pass; 0 if there are none left. */
static int tfi_plan_pass(tfi_run *r) {
    r->n_rows = r->n_slices = r->n_out = 0;
    r->stage = 0, r->stage_end = r->c->n_layers + 2;
    while (r->sequence < r->call.n_sequences && r->n_rows < r->w->batch) {
        const transformer_sequence *q = &r->call.sequences[r->sequence];
        tfi_slice *slice = &r->w->slices[r->n_slices];
        int n = tfi_slice_length(r, q, r->token);
        if (!n) break;
        slice->sequence = r->sequence, slice->token = r->token, slice->row = r->n_rows,
        slice->n = n;
        slice->position = q->state->position + r->token, slice->n_keys = slice->position + n;
        for (int i = 0; i < n; i++) {
            r->w->row_slice[r->n_rows] = r->n_slices;
            r->w->row_position[r->n_rows++] = slice->position + i;
        }
        tfi_plan_outputs(r, slice);
        q->state->high = tfi_max(q->state->high, slice->n_keys);
        r->n_slices++, r->token += n;
        if (r->token < q->n) break; /* what is left waits for the next pass */
        r->sequence++, r->token = 0;
    }
    return r->n_rows > 0;
}

/* Runs until the layers asked for are done, then says so; or to the end of the call. */
static transformer_status tfi_continue(tfi_run *r, int n_layers, transformer_error *error) {
    do {
        int last = r->c->n_layers + 2,
            from = tfi_max(r->stage, 1); /* stage 0 comes with the first layer */
        r->stage_end = n_layers && n_layers < r->c->n_layers + 1 - from ? from + n_layers : last;
        tfi_execute(r);
        r->stage = r->stage_end;
        if (r->stopped) {
            r->active = 0;
            return tfi_fail(error, TRANSFORMER_STOPPED, "stopped by the tap");
        }
        if (r->stage < last) {
            r->active = 1;
            return tfi_fail(error, TRANSFORMER_PAUSED, "paused before layer %d", r->stage - 1);
        }
    } while (tfi_plan_pass(r));
    for (int s = 0; s < r->call.n_sequences; s++)
        r->call.sequences[s].state->position += r->call.sequences[s].n;
    r->active = 0;
    return tfi_ok(error);
}

TFI_DEF transformer_status transformer_run(const transformer_model *m, transformer_workspace *work,
                                           const transformer_call *call, transformer_error *error) {
    transformer_status status = tfi_check_call(m, work, call, error);
    if (status) return status;
    tfi_run *r = &work->run;
    memset(r, 0, sizeof *r);
    r->m = m, r->c = &m->config, r->k = m->kernels, r->w = work, r->call = *call;
    tfi_plan_pass(r);
    return tfi_continue(r, call->n_layers, error);
}

TFI_DEF transformer_status transformer_resume(const transformer_model *m,
                                              transformer_workspace *work, int n_layers,
                                              transformer_error *error) {
    if (!tfi_is_ready(m) || !work || work->magic != TFI_WORKSPACE_MAGIC || work->run.m != m ||
        !work->run.active)
        return tfi_fail(error, TRANSFORMER_ARGUMENT,
                        "no paused call of this model in the workspace");
    if (n_layers < 0) return tfi_fail(error, TRANSFORMER_ARGUMENT, "n_layers is %d", n_layers);
    return tfi_continue(&work->run, n_layers, error);
}

TFI_DEF transformer_status transformer_forward(const transformer_model *m,
                                               transformer_workspace *work,
                                               transformer_state *state, const int32_t *tokens,
                                               int n, float *logits) {
    transformer_sequence sequence;
    transformer_call call;
    memset(&sequence, 0, sizeof sequence);
    memset(&call, 0, sizeof call);
    sequence.state = state, sequence.n = n, sequence.tokens = tokens, sequence.logits = logits;
    call.sequences = &sequence, call.n_sequences = 1;
    return transformer_run(m, work, &call, NULL);
}

#ifndef TRANSFORMER_NO_MALLOC
/* The block that malloc returned stands just before the aligned one. */
static void *tfi_new(size_t size, transformer_error *error) {
    size_t total = tfi_plus(size, TFI_ALIGN + sizeof(void *));
    void *block = size && total != SIZE_MAX ? TRANSFORMER_MALLOC(total) : NULL;
    if (!block) {
        tfi_fail(error, TRANSFORMER_MEMORY, "out of memory");
        return NULL;
    }
    uintptr_t at = ((uintptr_t)block + sizeof(void *) + TFI_ALIGN - 1) / TFI_ALIGN * TFI_ALIGN;
    memcpy((unsigned char *)at - sizeof(void *), &block, sizeof block);
    return (void *)at;
}

TFI_DEF void transformer_free(void *object) {
    void *block;
    if (!object) return;
    memcpy(&block, (unsigned char *)object - sizeof(void *), sizeof block);
    TRANSFORMER_FREE(block);
}

TFI_DEF transformer_model *transformer_model_new(const transformer_config *config,
                                                 const transformer_options *options,
                                                 transformer_error *error) {
    transformer_model *model = NULL;
    if (transformer_config_check(config, error)) return NULL;
    size_t size = transformer_model_size(config);
    void *memory = tfi_new(size, error);
    if (memory && transformer_model_init(memory, size, config, options, &model, error))
        transformer_free(memory);
    return model;
}

TFI_DEF transformer_state *transformer_state_new(const transformer_model *model,
                                                 const transformer_options *options,
                                                 transformer_error *error) {
    int context, kv_dtype, undo;
    transformer_state *state = NULL;
    if (tfi_state_options(model, options, &context, &kv_dtype, &undo, error)) return NULL;
    size_t size = transformer_state_size(model, options);
    void *memory = tfi_new(size, error);
    if (memory && transformer_state_init(memory, size, model, options, &state, error))
        transformer_free(memory);
    return state;
}

TFI_DEF transformer_workspace *transformer_workspace_new(const transformer_model *model,
                                                         const transformer_options *options,
                                                         transformer_error *error) {
    transformer_workspace w, *work = NULL;
    if (tfi_workspace_options(&w, model, options, error)) return NULL;
    size_t size = transformer_workspace_size(model, options);
    void *memory = tfi_new(size, error);
    if (memory && transformer_workspace_init(memory, size, model, options, &work, error))
        transformer_free(memory);
    return work;
}
#endif

/* ==== >>kernels ==============================================================================
 *
 * Each instruction set is a vocabulary: a vector type TFI_V of TFI_LANES floats and about thirty
 * V_ macros.  The kernels themselves are written once, at the end of this file, and compiled once
 * per vocabulary by including the file again. A new instruction set is one more block and one more
 * row in the table.
 *
 * What makes results independent of tiles: a dot product always adds element k to lane k %
 * TFI_LANES (k % 4 with AVX-512), in order of k, and folds the lanes in one fixed tree after every
 * TFI_CUT_BYTES; tiles only decide how many dot products are under way at once.
 */
#if defined(__GNUC__) || defined(__clang__)
#define TFI_TARGET_ISA(features) __attribute__((target(features)))
#if defined(__OPTIMIZE__) && !defined(TFI_INLINE)
#define TFI_INLINE inline __attribute__((always_inline))
#elif !defined(TFI_INLINE)
#define TFI_INLINE inline /* by force it would take minutes where nothing is optimised */
#endif
#else
#define TFI_TARGET_ISA(features)
#ifndef TFI_INLINE
#define TFI_INLINE inline
#endif
#endif

/* ---- what threads need of the machine ---- */

#if TFI_OPENMP && defined(TFI_TAKE_TICKET) && !defined(_WIN32) && !defined(TFI_YIELD)
#ifdef __cplusplus
#include <thread>
#define TFI_YIELD() std::this_thread::yield()
#elif __STDC_VERSION__ >= 201112L && defined(__linux__) && !defined(__ANDROID__) &&                \
    !defined(__STDC_NO_THREADS__)
#include <threads.h>
#define TFI_YIELD() thrd_yield()
#endif
#endif
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define TFI_PAUSE() __builtin_ia32_pause()
#else
#define TFI_PAUSE() (void)0
#endif

/* A thread that waits long gives its processor away: the one it waits for may need it.  Only ever
 * inside a parallel region of our own: outside, OpenMP's barrier would bind to one of the caller's. */
static void tfi_barrier(const tfi_run *r, int team, int *arrivals) {
    (void)r;
    *arrivals += team;
#ifdef TFI_YIELD
    enum { SPINS = 256 };
    int *now = &r->w->arrivals;
    if (team > 1) __atomic_add_fetch(now, 1, __ATOMIC_ACQ_REL);
    for (int i = 0; team > 1 && __atomic_load_n(now, __ATOMIC_ACQUIRE) < *arrivals; i++)
        if (i < SPINS) TFI_PAUSE();
        else TFI_YIELD();
#elif TFI_OPENMP
    if (team > 1) {
#pragma omp barrier
    }
#endif
}

/* ---- what the vector kernels share ---- */

/* The scales and minimums of a block of 256, what the vector kernels multiply by d and m: one[2] is
 * 16 scales, or 8 scales and 8 minimums (Q4_K, Q5_K); two[2] 16 minimums.  Bytes are taken eight at
 * a time; no operation carries from one to the next. */
static uint64_t tfi_eight_at(const void *from) {
    uint64_t eight;
    memcpy(&eight, from, sizeof eight);
    return eight;
}
static uint64_t tfi_four_at(const void *from) {
    uint32_t four;
    memcpy(&four, from, sizeof four);
    return four;
}
/* eight times x - 32, x in 0 .. 63 */
static uint64_t tfi_less_32(uint64_t x) {
    const uint64_t top = 0x2020202020202020u;
    x ^= top;
    return x | (x & top) << 1 | (x & top) << 2;
}

static TFI_FORCE_INLINE void tfi_get_subscales(const int dtype, const unsigned char *b,
                                               uint64_t *one, uint64_t *two) {
    const uint64_t low4 = 0x0f0f0f0f0f0f0f0fu, low2 = 0x0303030303030303u, half = 0xffffffffu;
    uint64_t x, y;
    if (dtype == TRANSFORMER_Q6_K) {
        one[0] = tfi_eight_at(b + 192), one[1] = tfi_eight_at(b + 200);
    } else if (dtype == TRANSFORMER_Q2_K) {
        x = tfi_eight_at(b), y = tfi_eight_at(b + 8);
        one[0] = x & low4, one[1] = y & low4, two[0] = x >> 4 & low4, two[1] = y >> 4 & low4;
    } else if (dtype == TRANSFORMER_Q3_K) {
        x = tfi_eight_at(b + 96), y = tfi_four_at(b + 104), y |= y << 30;
        one[0] = tfi_less_32((x & low4) | (y & low2) << 4);
        one[1] = tfi_less_32((x >> 4 & low4) | (y >> 4 & low2) << 4);
    } else if (dtype == TRANSFORMER_Q4_K || dtype == TRANSFORMER_Q5_K) {
        x = tfi_eight_at(b + 4), y = tfi_four_at(b + 12);
        uint64_t low = x & 0x3f3f3f3f3f3f3f3fu, high = x >> 2 & 0x3030303030303030u;
        one[0] = (low & half) | ((y & low4) | (high & half)) << 32;
        one[1] = low >> 32 | ((y >> 4 & low4) << 32 | (high & ~half));
    } else { /* IQ4_XS: nibbles and crumbs spread to bytes */
        x = tfi_four_at(b + 4), y = tfi_four_at(b) >> 16;
        x = (x | x << 16) & 0x0000ffff0000ffffu, y = (y | y << 24) & 0x000000ff000000ffu;
        x = (x | x << 8) & 0x00ff00ff00ff00ffu, y = (y | y << 12) & 0x000f000f000f000fu;
        x = (x | x << 4) & low4, y = (y | y << 6) & low2;
        one[0] = one[1] = tfi_less_32(x | y << 4);
    }
}

/* Where 16 weights lie, half h of the 32 of block b: the layouts of >>formats in numbers.  From byte
 * base + b / share * step + b % inner * 32 + h * half on, the bits of `mask` above bit
 * b % share / inner * bits + h * half_bits. */
typedef struct tfi_bits {
    int base, share, step, inner, bits, half, half_bits, mask;
} tfi_bits;
static TFI_FORCE_INLINE int tfi_byte_of(const tfi_bits *at, int b, int h) {
    return at->base + b / at->share * at->step + b % at->inner * 32 + h * at->half;
}
static TFI_FORCE_INLINE int tfi_bit_of(const tfi_bits *at, int b, int h) {
    return b % at->share / at->inner * at->bits + h * at->half_bits;
}

/* The low and the high bits of a type's weights, in blocks of `size` bytes for per * 32 of them.
 * Q5_0 and Q5_1 have 32 fifth bits of their own before the others; `values` has what codes mean. */
typedef struct tfi_places {
    tfi_bits low, high;
    int per, size, fifth_bits;
    const void *values;
} tfi_places;
static TFI_FORCE_INLINE tfi_places tfi_places_of(const tfi_format *f) {
    tfi_places p = {{f->size - 16, 1, 0, 1, 0, 0, 4, 15}, {0, 1, 0, 1, 0, 0, 0, 0}, 1, 0, 0, NULL};
    const tfi_bits bytes = {f->size - 32, 1, 0, 1, 0, 16, 0, 255},
                   pairs = {16, 4, 32, 1, 2, 16, 0, 3}, nibbles = {16, 2, 32, 1, 4, 16, 0, 15},
                   one = {0, 8, 0, 1, 1, 16, 0, 1};
    p.per = f->block / 32, p.size = f->size;
    switch (f->dtype) {
    case TRANSFORMER_Q8_0: p.low = bytes; break;
    case TRANSFORMER_Q5_0:
    case TRANSFORMER_Q5_1: p.fifth_bits = 1; break;
    case TRANSFORMER_Q2_K: p.low = pairs; break;
    case TRANSFORMER_TQ2_0: p.low = pairs, p.low.base = 0; break;
    case TRANSFORMER_Q3_K: p.low = pairs, p.low.base = 32, p.high = one; break;
    case TRANSFORMER_Q4_K: p.low = nibbles; break;
    case TRANSFORMER_Q5_K: p.low = nibbles, p.low.base = 48, p.high = one, p.high.base = 16; break;
    case TRANSFORMER_Q6_K:
        p.low = nibbles, p.low.base = 0, p.low.share = 4, p.low.step = 64, p.low.inner = 2;
        p.high = pairs, p.high.base = 128;
        break;
    case TRANSFORMER_IQ4_NL: p.values = tfi_iq4_values; break;
    case TRANSFORMER_IQ4_XS: p.low.base = 8, p.low.step = 16, p.values = tfi_iq4_values; break;
    case TRANSFORMER_MXFP4: p.values = tfi_mxfp4_values; break;
    case TRANSFORMER_TQ1_0: p.low = bytes, p.low.base = 0, p.per = 1, p.size = 32; break;
    default: break; /* Q4_0, Q4_1 */
    }
    return p;
}

/* ---- scalar: one lane ---- */
/* What tfi_cpu says beside the features that rows need: BF16 dot products do half the work that
 * float32 ones do, as on Intel's processors.  Their row is for whoever names it. */
enum { TFI_CPU_SLOW_BF16 = 1 << 16 };

#define TFI_PASS
#define TFI_ROW scalar
#define TFI_ROW_NAME "scalar"
#define TFI_FLOATS
#define TFI_FLOAT_ROW scalar
#define TFI_NEEDS 0
#define TFI_TARGET
#define TFI_TILE_INLINE                                                                            \
    TFI_NOINLINE /* one copy of the inner loop: whatever the compiler does, it does always */
#define TFI_V float
#define TFI_LANES 1
#define TFI_TILE 1
#define TFI_PANEL 1
#define TFI_TILE_ROWS 1
#define TFI_CHUNKS 1
#define V_SET(x) (x)
#define V_LOAD(p) (*(p))
#define V_LOAD_N(p, n) ((n) ? *(p) : 0.0f)
#define V_STORE(p, v) (*(p) = (v))
#define V_STORE_N(p, v, n) ((n) ? (void)(*(p) = (v)) : (void)0)
#define V_KEEP(v, n) ((n) ? (v) : 0.0f)
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_DIV(a, b) ((a) / (b))
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_MAX(a, b) ((b) < (a) ? (a) : (b))
#define V_MIN(a, b) ((a) < (b) ? (a) : (b))
#define V_ABS(a) fabsf(a)
#define V_IF_LESS(a, b, x, y) ((a) < (b) ? (x) : (y))
#define V_ROUND(a) tfi_nearest(a)
#define V_SCALE(a, n) tfi_scale(a, n)
#define V_SUM(v) (v)
#define V_HMAX(v) (v)
#define V_FROM_F16(p) tfi_from_f16(*(p))
#define V_FROM_F16_N(p, n) ((n) ? tfi_from_f16(*(p)) : 0.0f)
#define V_FROM_BF16(p) tfi_from_bf16(*(p))
#define V_FROM_BF16_N(p, n) ((n) ? tfi_from_bf16(*(p)) : 0.0f)
#define V_TO_F16(p, v) (*(p) = tfi_to_f16(v))
#define TFI_BLOCK_ROW scalar
static float tfi_larger(float most, float x) {
    return most != most || x <= most ? most : x;
} /* a NaN stays */
/* NaN and what has no fraction stay as they are. */
static float tfi_nearest(float x) {
    return fabsf(x) < 8388608.0f ? (float)(int)(x + (x < 0 ? -0.5f : 0.5f)) : x;
}
/* x 2^n for -150 <= n <= 128, by halves: the factors are normal, only the last product rounds. */
static float tfi_scale(float x, float n) {
    if (!(fabsf(n) <= 160)) return x + n; /* NaN */
    int whole = (int)n, half = whole / 2, rest = whole - half;
    x *= tfi_bits_to_float((uint32_t)(half + 127) << 23);
    return x * tfi_bits_to_float((uint32_t)(rest + 127) << 23);
}
#include TRANSFORMER_FILE

#if defined(TRANSFORMER_NO_SIMD)
#define TFI_VECTOR_ROWS
static unsigned tfi_cpu(void) { return 0; }

/* ==== >>x86 ================================================================================== */
#elif defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#include <immintrin.h>
enum {
    TFI_CPU_AVX2 = 1,
    TFI_CPU_AVX512 = 2,
    TFI_CPU_BF16 = 4,
    TFI_CPU_VNNI = 8,
    TFI_CPU_AVX_VNNI = 16 /* VNNI for vectors of 256 bits, without AVX-512 */
};

#if defined(__GNUC__) || defined(__clang__)
static unsigned tfi_cpu(void) {
    unsigned cpu = 0;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        unsigned a, b, c, d; /* F16C has no name that all compilers know: leaf 1, ecx bit 29 */
        __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
        if (c >> 29 & 1) cpu |= TFI_CPU_AVX2;
        __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
        if (a) __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
        if (cpu && a >> 4 & 1) cpu |= TFI_CPU_AVX_VNNI;
    }
    if (cpu && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        cpu |= TFI_CPU_AVX512;
    if (cpu & TFI_CPU_AVX512 && __builtin_cpu_supports("avx512vnni")) cpu |= TFI_CPU_VNNI;
    if (cpu & TFI_CPU_AVX512 && __builtin_cpu_supports("avx512bf16")) cpu |= TFI_CPU_BF16;
    if (__builtin_cpu_is("intel")) cpu |= TFI_CPU_SLOW_BF16;
    return cpu;
}
#else
#include <intrin.h>
static unsigned tfi_cpu(void) {
    int leaf0[4], leaf1[4], leaf7[4], leaf71[4];
    unsigned cpu = 0;
    __cpuidex(leaf0, 0, 0), __cpuidex(leaf1, 1, 0), __cpuidex(leaf7, 7, 0), __cpuidex(leaf71, 7, 1);
    if (!(leaf1[2] >> 27 & 1)) return 0; /* no xgetbv: the system does not save vector registers */
    uint64_t saved = _xgetbv(0);
    if ((saved & 6) == 6 && leaf7[1] >> 5 & 1 && leaf1[2] >> 12 & 1 && leaf1[2] >> 29 & 1)
        cpu |= TFI_CPU_AVX2;
    if (cpu && leaf7[0] && leaf71[0] >> 4 & 1) cpu |= TFI_CPU_AVX_VNNI;
    unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* f, dq, bw, vl */
    if (cpu && (saved & 0xe6) == 0xe6 && ((unsigned)leaf7[1] & wanted) == wanted)
        cpu |= TFI_CPU_AVX512;
    if (cpu & TFI_CPU_AVX512 && leaf7[2] >> 11 & 1) cpu |= TFI_CPU_VNNI;
    if (cpu & TFI_CPU_AVX512 && leaf71[0] >> 5 & 1) cpu |= TFI_CPU_BF16;
    if (leaf0[1] == 0x756e6547) cpu |= TFI_CPU_SLOW_BF16; /* "Genu"ineIntel */
    return cpu;
}
#endif

/* Says that v is in a register now.  Without it gcc 12 stores the sums of a block tile after every
 * step and loads tokens again for every row, and clang keeps too much at once. */
#if defined(__GNUC__)
#define TFI_IN_REGISTER(v) __asm__("" : "+v"(v));
#else
#define TFI_IN_REGISTER(v)
#endif

/* Compilers that know AVX-VNNI. */
#if defined(__clang__)
#if __clang_major__ >= 13
#define TFI_AVX_VNNI
#endif
#elif defined(__GNUC__) ? __GNUC__ >= 11 : defined(_MSC_VER)
#define TFI_AVX_VNNI
#endif

/* ---- AVX2, FMA, F16C: 8 lanes, 16 registers ---- */
#define TFI_PASS
#define TFI_ROW avx2
#define TFI_ROW_NAME "avx2"
#define TFI_FLOATS
#define TFI_FLOAT_ROW avx2
#define TFI_NEEDS TFI_CPU_AVX2
#define TFI_TARGET TFI_TARGET_ISA("avx2,fma,f16c")
#define TFI_TILE_INLINE TFI_INLINE
#define TFI_V __m256
#define TFI_LANES 8
#define TFI_TILE 3
#define TFI_PANEL 3
#define TFI_TILE_ROWS 4
#define TFI_CHUNKS 2
/* n lanes of ones, then zeros, as a mask for maskload */
static TFI_TARGET TFI_INLINE __m256i tfi_mask8(int n) {
    static const int32_t ones_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones_zeros + 8 - n));
}
static TFI_TARGET TFI_INLINE __m128i tfi_load8_n(const uint16_t *p, int n) {
    uint16_t copy[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < n; i++) copy[i] = p[i];
    return _mm_loadu_si128((const __m128i *)(const void *)copy);
}
static TFI_TARGET TFI_INLINE __m256 tfi_widen_bf16_8(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
/* x 2^n in two steps, so that denormals come out right: n = a + b, -126 <= a <= 127 */
static TFI_TARGET TFI_INLINE __m256 tfi_scale8(__m256 x, __m256 n) {
    __m256i whole = _mm256_cvtps_epi32(n), bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_max_epi32(_mm256_min_epi32(whole, bias), _mm256_set1_epi32(-126));
    __m256i b = _mm256_sub_epi32(whole, a);
    x = _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a, bias), 23)));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(b, bias), 23)));
}
/* lanes i and i + 4, then i and i + 2, then 0 and 1 */
static TFI_TARGET TFI_INLINE __m128 tfi_fold8(__m256 v) {
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
static TFI_TARGET TFI_INLINE float tfi_sum4(__m128 v) {
    __m128 pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
}
static TFI_TARGET TFI_INLINE float tfi_max4(__m128 v) {
    __m128 pairs = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehdup_ps(pairs)));
}
/* {sum a, sum b, sum c, sum d}, each in the order of tfi_sum4 */
static TFI_TARGET TFI_INLINE __m128 tfi_sums4(__m128 a, __m128 b, __m128 c, __m128 d) {
    __m128 ab =
        _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)); /* a0+a2 b0+b2 a1+a3 b1+b3 */
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}
/* p[0 .. 3] = sums, or += if there are more */
static TFI_TARGET TFI_INLINE void tfi_put4(float *p, int more, __m128 sums) {
    _mm_storeu_ps(p, more ? _mm_add_ps(_mm_loadu_ps(p), sums) : sums);
}
#define V_SET(x) _mm256_set1_ps(x)
#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_LOAD_N(p, n) _mm256_maskload_ps(p, tfi_mask8(n))
#define V_STORE(p, v) _mm256_storeu_ps(p, v)
#define V_STORE_N(p, v, n) _mm256_maskstore_ps(p, tfi_mask8(n), v)
#define V_KEEP(v, n) _mm256_and_ps(v, _mm256_castsi256_ps(tfi_mask8(n)))
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_DIV(a, b) _mm256_div_ps(a, b)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define V_MIN(a, b) _mm256_min_ps(a, b)
#define V_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define V_IF_LESS(a, b, x, y) _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define V_ROUND(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_SCALE(a, n) tfi_scale8(a, n)
#define V_SUM(v) tfi_sum4(tfi_fold8(v))
#define V_HMAX(v) tfi_max4(_mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)))
#define V_STORE_SUM4(p, more, a, b, c, d)                                                          \
    tfi_put4(p, more, tfi_sums4(tfi_fold8(a), tfi_fold8(b), tfi_fold8(c), tfi_fold8(d)))
#define V_FROM_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define V_FROM_F16_N(p, n) _mm256_cvtph_ps(tfi_load8_n(p, n))
#define V_FROM_BF16(p) tfi_widen_bf16_8(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define V_FROM_BF16_N(p, n) tfi_widen_bf16_8(tfi_load8_n(p, n))
#define V_TO_F16(p, v)                                                                             \
    _mm_storeu_si128((__m128i *)(void *)(p),                                                       \
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
/* quads of unsigned bytes times signed ones, pairs in 16 bits on the way: |w| <= 128, |x| <= 127 */
static TFI_TARGET TFI_INLINE __m256i tfi_dot8(__m256i sum, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static TFI_TARGET TFI_INLINE void tfi_store8_bytes(int8_t *p, __m256 v) {
    __m256i whole = _mm256_cvtps_epi32(v);
    __m128i half =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(half, half));
}
/* 16 bytes, two sets of 8: one after the other or in turn; in lane order */
static TFI_TARGET TFI_INLINE void tfi_subscales8(const uint64_t *s, const int in_turn, __m256 *a,
                                                 __m256 *b) {
    const __m128i index = in_turn
                              ? _mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15)
                              : _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    __m128i bytes = _mm_shuffle_epi8(_mm_set_epi64x((long long)s[1], (long long)s[0]), index);
    *a = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    *b = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)));
}
/* F16 that are `step` bytes apart, in lane order: word L of a load is that of block L / 4 + 2 (L %
 * 4), whose place it is */
#define TFI_HALF_8(L)                                                                              \
    _mm_loadu_si128((const __m128i *)(const void *)(p + (L / 4 + L % 4 * 2) * step - 2 * L))
static TFI_TARGET TFI_INLINE __m256 tfi_halves8(const unsigned char *p, const int step) {
    __m128i a = _mm_blend_epi16(TFI_HALF_8(0), TFI_HALF_8(1), 2);
    a = _mm_blend_epi16(a, TFI_HALF_8(2), 4);
    a = _mm_blend_epi16(a, TFI_HALF_8(3), 8);
    a = _mm_blend_epi16(a, TFI_HALF_8(4), 16);
    a = _mm_blend_epi16(a, TFI_HALF_8(5), 32);
    a = _mm_blend_epi16(a, TFI_HALF_8(6), 64);
    return _mm256_cvtph_ps(_mm_blend_epi16(a, TFI_HALF_8(7), 128));
}
static TFI_TARGET TFI_INLINE __m128 tfi_two_f16(const unsigned char *p, const unsigned char *q) {
    return _mm_cvtph_ps(_mm_cvtsi32_si128((int)(tfi_half_at(p) | (uint32_t)tfi_half_at(q) << 16)));
}
#define TFI_BLOCKS
#define TFI_BLOCK_ROW avx2
#define D_STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define D_SPLAT(byte) _mm256_set1_epi8((char)(byte))
#define D_REPEAT(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define D_PIECES(AT)                                                                               \
    _mm256_loadu2_m128i((const __m128i *)(const void *)(AT(1)),                                    \
                        (const __m128i *)(const void *)(AT(0)))
#define D_SHIFT(v, BY) _mm256_srlv_epi64(v, _mm256_set_epi64x(BY(1), BY(1), BY(0), BY(0)))
#define D_AND(a, b) _mm256_and_si256(a, b)
#define D_ADD(a, b) _mm256_add_epi8(a, b)
#define D_SUB(a, b) _mm256_sub_epi8(a, b)
#define D_MIN(a, b) _mm256_min_epu8(a, b)
#define D_LEFT4(v) _mm256_slli_epi16(v, 4)
#define D_SHUFFLE(v, index) _mm256_shuffle_epi8(v, index)
#define D_LOW32(a, b) _mm256_unpacklo_epi32(a, b)
#define D_HIGH32(a, b) _mm256_unpackhi_epi32(a, b)
#define D_LOW64(a, b) _mm256_unpacklo_epi64(a, b)
#define D_HIGH64(a, b) _mm256_unpackhi_epi64(a, b)
#define D_ADD32(a, b) _mm256_add_epi32(a, b)
#define D_SUB32(a, b) _mm256_sub_epi32(a, b)
#define D_RIGHT32(v, n) _mm256_srai_epi32(v, n)
#define D_HALVES(p, step) tfi_halves8(p, step)
#define D_TWO_HALVES(p, q) _mm256_broadcastss_ps(tfi_two_f16(p, p))
#define D_SUBSCALES(s, first, in_turn, a, b) tfi_subscales8((s)[0], in_turn, a, b)
#define TFI_BLOCK_ROWS 2
#define TFI_I __m256i
#define V_FROM_INT(v) _mm256_cvtepi32_ps(v)
#define D_BIAS 0
#define D_ZERO _mm256_setzero_si256()
#define D_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define D_DOT(is_signed, sum, w, x)                                                                \
    (is_signed ? tfi_dot8(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) : tfi_dot8(sum, w, x))
#define D_PAIRS(sum, w, x) _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x))
#define D_WIDEN(sum, pairs) _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
#define D_STORE_BYTES(p, v) tfi_store8_bytes(p, v)
#ifdef TFI_AVX_VNNI
#define TFI_KEEP_VOCABULARY
#endif
#include TRANSFORMER_FILE

/* ---- AVX2 with VNNI: quads of unsigned times signed bytes added to a 32-bit lane ---- */
#ifdef TFI_AVX_VNNI
#define TFI_PASS
#define TFI_ROW avx2vnni
#define TFI_ROW_NAME "avx2vnni"
#undef TFI_NEEDS
#undef TFI_TARGET
#undef TFI_BLOCK_ROW
#undef D_BIAS
#undef D_DOT
#define TFI_NEEDS (TFI_CPU_AVX2 | TFI_CPU_AVX_VNNI)
#define TFI_TARGET TFI_TARGET_ISA("avx2,fma,f16c,avxvnni")
#define TFI_BLOCKS
#define TFI_BLOCK_ROW avx2vnni
#define D_BIAS 128
#define D_DOT(is_signed, sum, w, x) _mm256_dpbusd_avx_epi32(sum, w, x)
#define D_HOLD(sum) TFI_IN_REGISTER(sum)
#include TRANSFORMER_FILE
#endif

/* ---- AVX-512: 16 lanes, 32 registers.  Zero-masked forms with a full mask stand for the plain
 * ones that g++ 12 warns about: the same instructions. ---- */
#define TFI_PASS
#define TFI_ROW avx512
#define TFI_ROW_NAME "avx512"
#define TFI_FLOATS
#define TFI_FLOAT_ROW avx512
#define TFI_NEEDS (TFI_CPU_AVX2 | TFI_CPU_AVX512)
#define TFI_TARGET TFI_TARGET_ISA("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#define TFI_TILE_INLINE TFI_INLINE
#define TFI_V __m512
#define TFI_LANES 16
#define TFI_TILE 6
#define TFI_PANEL 16
#define TFI_TILE_ROWS 4
#define TFI_CHUNKS 4
#define TFI_ALL16 ((__mmask16)0xffffu)
#define TFI_M16(n) ((__mmask16)((1u << (n)) - 1u))
/* to nearest, by way of integers: the arguments of exp leave small ones */
static TFI_TARGET TFI_INLINE __m512 tfi_round16(__m512 v) {
    return _mm512_maskz_cvtepi32_ps(TFI_ALL16, _mm512_maskz_cvtps_epi32(TFI_ALL16, v));
}
static TFI_TARGET TFI_INLINE __m512 tfi_widen_bf16_16(__m256i h) {
    return _mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(TFI_ALL16, _mm512_maskz_cvtepu16_epi32(TFI_ALL16, h), 16));
}
static TFI_TARGET TFI_INLINE __m512 tfi_if_less16(__m512 a, __m512 b, __m512 x, __m512 y) {
    __mmask16 less = _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
#if defined(__clang__) && defined(__FAST_MATH__) /* it would take !(a < b) for a >= b */
    __asm__("" : "+k"(less));
#endif
    return _mm512_mask_blend_ps(less, y, x);
}
/* lanes i and i + 8, then i and i + 4 */
static TFI_TARGET TFI_INLINE __m128 tfi_fold16(__m512 v) {
    return tfi_fold8(_mm256_add_ps(_mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 0),
                                   _mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 1)));
}
/* tfi_sum4 of each quarter, in its first lane, then of the quarters */
static TFI_TARGET TFI_INLINE __m512 tfi_quad_sum(__m512 v) {
    v = _mm512_add_ps(v, _mm512_maskz_permute_ps(TFI_ALL16, v, 0x4E));
    return _mm512_add_ps(v, _mm512_maskz_permute_ps(TFI_ALL16, v, 0xB1));
}
static TFI_TARGET TFI_INLINE float tfi_sum16(__m512 v) {
    return _mm_cvtss_f32(tfi_fold16(tfi_quad_sum(v)));
}
/* tfi_sums4 of each quarter: halves of two vectors side by side, with one shuffle and one blend, since
 * the second is for any of two ports */
static TFI_TARGET TFI_INLINE __m512 tfi_pairs16(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_mask_blend_ps((__mmask16)0xcccc, a, b),
                         _mm512_maskz_shuffle_ps(TFI_ALL16, a, b, 0x4E));
}
static TFI_TARGET TFI_INLINE __m512 tfi_sums16(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = tfi_pairs16(a, b), cd = tfi_pairs16(c, d);
    return _mm512_add_ps(_mm512_maskz_shuffle_ps(TFI_ALL16, ab, cd, 0x88),
                         _mm512_maskz_shuffle_ps(TFI_ALL16, ab, cd, 0xDD));
}
static TFI_TARGET TFI_INLINE float tfi_max16(__m512 v) {
    __m256 half = _mm256_max_ps(_mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 0),
                                _mm512_maskz_extractf32x8_ps((__mmask8)0xff, v, 1));
    return tfi_max4(_mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
#define V_SET(x) _mm512_set1_ps(x)
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_LOAD_N(p, n) _mm512_maskz_loadu_ps(TFI_M16(n), p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_STORE_N(p, v, n) _mm512_mask_storeu_ps(p, TFI_M16(n), v)
#define V_KEEP(v, n) _mm512_maskz_mov_ps(TFI_M16(n), v)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_DIV(a, b) _mm512_div_ps(a, b)
#define V_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define V_MAX(a, b) _mm512_maskz_max_ps(TFI_ALL16, a, b)
#define V_MIN(a, b) _mm512_maskz_min_ps(TFI_ALL16, a, b)
#define V_ABS(a) _mm512_maskz_andnot_ps(TFI_ALL16, _mm512_set1_ps(-0.0f), a)
#define V_IF_LESS(a, b, x, y) tfi_if_less16(a, b, x, y)
#define V_ROUND(a) tfi_round16(a)
#define V_SCALE(a, n) _mm512_maskz_scalef_ps(TFI_ALL16, a, n)
#define V_SUM(v) tfi_sum16(v)
#define V_HMAX(v) tfi_max16(v)
#define V_STORE_SUM4(p, more, a, b, c, d) tfi_put4(p, more, tfi_fold16(tfi_sums16(a, b, c, d)))
#define V_FROM_F16(p)                                                                              \
    _mm512_maskz_cvtph_ps(TFI_ALL16, _mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define V_FROM_F16_N(p, n) _mm512_maskz_cvtph_ps(TFI_ALL16, _mm256_maskz_loadu_epi16(TFI_M16(n), p))
#define V_FROM_BF16(p) tfi_widen_bf16_16(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define V_FROM_BF16_N(p, n) tfi_widen_bf16_16(_mm256_maskz_loadu_epi16(TFI_M16(n), p))
/* Quads: 4 columns of a row of weights beside each other 4 times, to meet those of 4 tokens. */
#define TFI_QUADS
#define TFI_LOW(n, most) ((1u << ((n) < 0 ? 0 : (n) < (most) ? (n) : (most))) - 1u)
#define V_QUADS(p) _mm512_maskz_broadcast_f32x4(TFI_ALL16, _mm_loadu_ps(p))
#define V_QUADS_N(p, n)                                                                            \
    _mm512_maskz_broadcast_f32x4(TFI_ALL16, _mm_maskz_loadu_ps((__mmask8)TFI_LOW(n, 4), p))
#define TFI_HALVES4(p) _mm_loadl_epi64((const __m128i *)(const void *)(p))
#define TFI_HALVES4_N(p, n) _mm_maskz_loadu_epi16((__mmask8)TFI_LOW(n, 4), p)
#define V_QUADS_F16(halves)                                                                        \
    _mm512_maskz_cvtph_ps(TFI_ALL16, _mm256_maskz_broadcastq_epi64((__mmask8)0xff, halves))
#define V_QUADS_BF16(halves)                                                                       \
    tfi_widen_bf16_16(_mm256_maskz_broadcastq_epi64((__mmask8)0xff, halves))
#define V_MIX(a, b, which) _mm512_maskz_shuffle_f32x4(TFI_ALL16, a, b, which)
/* Columns of two rows, from p and from q, half a vector of weights each, beside each other. */
#define TFI_JOINED(p, q)                                                                           \
    tfi_join(_mm256_loadu_si256((const __m256i *)(const void *)(p)),                               \
             _mm256_loadu_si256((const __m256i *)(const void *)(q)))
#define V_JOIN(p, q) _mm512_castsi512_ps(TFI_JOINED(p, q))
#define V_JOIN_F16(p, q) _mm512_maskz_cvtph_ps(TFI_ALL16, tfi_two_pieces(p, q))
#define V_JOIN_BF16(p, q) tfi_widen_bf16_16(tfi_two_pieces(p, q))
/* The first of each quad, eight sums, to out, added to older ones if `more`. */
static TFI_TARGET TFI_INLINE void tfi_put8(float *out, int more, __m512 low, __m512 high) {
    const __m512i quads = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 both = _mm512_maskz_permutex2var_ps(TFI_ALL16, low, quads, high);
    __m256 sums = _mm512_maskz_extractf32x8_ps((__mmask8)0xff, both, 0);
    _mm256_storeu_ps(out, more ? _mm256_add_ps(_mm256_loadu_ps(out), sums) : sums);
}
/* Sums of 4 and of 2 rows for a token, beside each other in out, added to older ones if `more`. */
static TFI_TARGET TFI_INLINE void tfi_put6(float *out, int more, __m128 four, __m128 two) {
    __m128 none = _mm_setzero_ps();
    if (more) {
        four = _mm_add_ps(four, _mm_loadu_ps(out));
        two = _mm_add_ps(two, _mm_loadl_pi(none, (const __m64 *)(const void *)(out + 4)));
    }
    _mm_storeu_ps(out, four);
    _mm_storel_pi((__m64 *)(void *)(out + 4), two);
}
#define TFI_QUARTER(v, q) _mm512_maskz_extractf32x4_ps((__mmask8)15, v, q)
#define TFI_PUT_TOKEN(t)                                                                           \
    if (tokens > t) tfi_put6(out + t * out_stride, more, TFI_QUARTER(four, t), TFI_QUARTER(two, t));
/* Sums of rows 0 .. 3 and of 4, 5, a quad for each of 4 tokens: those of `rows` rows and `tokens`
 * tokens go to out, rows `apart`. */
static TFI_TARGET TFI_INLINE void tfi_put_quads(float *out, size_t out_stride, int apart, int rows,
                                                int tokens, int more, __m512 four, __m512 two) {
    float sums[32];
    if (apart == 1 && rows == 6) {
        TFI_PUT_TOKEN(0) TFI_PUT_TOKEN(1) TFI_PUT_TOKEN(2) TFI_PUT_TOKEN(3) return;
    }
    _mm512_storeu_ps(sums, four), _mm512_storeu_ps(sums + 16, two);
    for (int t = 0; t < tokens && t < 4; t++, out += out_stride)
        for (int r = 0; r < rows; r++) {
            float sum = sums[r / 4 * 16 + 4 * t + r % 4], *to = out + (size_t)r * (size_t)apart;
            *to = more ? *to + sum : sum;
        }
}
#define V_TO_F16(p, v)                                                                             \
    _mm256_storeu_si256(                                                                           \
        (__m256i *)(void *)(p),                                                                    \
        _mm512_maskz_cvtps_ph(TFI_ALL16, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
#define TFI_KEEP_VOCABULARY
static TFI_TARGET TFI_INLINE __m512 tfi_bytes16(__m128i bytes) {
    return _mm512_maskz_cvtepi32_ps(TFI_ALL16, _mm512_maskz_cvtepi8_epi32(TFI_ALL16, bytes));
}
/* the same two sets of 8 from each of two blocks; lanes 0 and 1 of 4 belong to the first */
static TFI_TARGET TFI_INLINE void tfi_subscales16(uint64_t (*s)[2], const int in_turn, __m512 *a,
                                                  __m512 *b) {
    const __m128i index = in_turn
                              ? _mm_setr_epi8(0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15)
                              : _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    __m128i one = _mm_set_epi64x((long long)s[0][1], (long long)s[0][0]),
            two = _mm_set_epi64x((long long)s[1][1], (long long)s[1][0]);
    one = _mm_shuffle_epi8(one, index), two = _mm_shuffle_epi8(two, index);
    *a = tfi_bytes16(_mm_unpacklo_epi16(one, two)), *b = tfi_bytes16(_mm_unpackhi_epi16(one, two));
}
/* F16 that are `step` bytes apart, in lane order.  A load of 64 bytes has 4 of them, or 2; each is
 * merged into the one before, a word further on. */
static TFI_TARGET TFI_INLINE __m512 tfi_halves16(const unsigned char *p, const int step) {
    const int per = step > 18 ? 2 : 4, words = step / 2;
    const uint32_t most = per == 4 ? 1u | 1u << 9 | 1u << 18 | 1u << 27 : 1u | 1u << words;
    __m512i v = _mm512_loadu_si512((const void *)p);
#define TFI_MERGE(j) _mm512_mask_loadu_epi16(v, (__mmask32)(most << j), p + j * (per * step - 2))
    v = TFI_MERGE(1), v = TFI_MERGE(2), v = TFI_MERGE(3);
    if (per == 2) v = TFI_MERGE(4), v = TFI_MERGE(5), v = TFI_MERGE(6), v = TFI_MERGE(7);
#define TFI_HALF_16(L)                                                                             \
    (short)(per == 4 ? L / 4 * words + L % 4 : L / 4 % 2 * words + L % 4 * 2 + L / 8)
    __m256i index =
        _mm256_setr_epi16(TFI_HALF_16(0), TFI_HALF_16(1), TFI_HALF_16(2), TFI_HALF_16(3),
                          TFI_HALF_16(4), TFI_HALF_16(5), TFI_HALF_16(6), TFI_HALF_16(7),
                          TFI_HALF_16(8), TFI_HALF_16(9), TFI_HALF_16(10), TFI_HALF_16(11),
                          TFI_HALF_16(12), TFI_HALF_16(13), TFI_HALF_16(14), TFI_HALF_16(15));
    v = _mm512_maskz_permutexvar_epi16((__mmask32)-1, _mm512_castsi256_si512(index), v);
    return _mm512_maskz_cvtph_ps(TFI_ALL16, _mm512_maskz_extracti64x4_epi64((__mmask8)0xff, v, 0));
}
static TFI_TARGET TFI_INLINE __m512 tfi_two_halves16(const unsigned char *p,
                                                     const unsigned char *q) {
    return _mm512_maskz_permutexvar_ps(
        TFI_ALL16, _mm512_set_epi32(1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0),
        _mm512_castps128_ps512(tfi_two_f16(p, q)));
}
static TFI_TARGET TFI_INLINE __m256i tfi_two_pieces(const void *low, const void *high) {
    return _mm256_loadu2_m128i((const __m128i *)high, (const __m128i *)low);
}
static TFI_TARGET TFI_INLINE __m512i tfi_join(__m256i low, __m256i high) {
    return _mm512_maskz_inserti64x4((__mmask8)0xffu, _mm512_castsi256_si512(low), high, 1);
}
#define TFI_BLOCKS
#define TFI_BLOCK_ROW avx512
#define TFI_ALL8 ((__mmask8)0xffu)
#define D_STORE(p, v) _mm512_storeu_si512((void *)(p), v)
#define D_SPLAT(byte) _mm512_set1_epi8((char)(byte))
#define D_REPEAT(p)                                                                                \
    _mm512_maskz_broadcast_i32x4(TFI_ALL16, _mm_loadu_si128((const __m128i *)(const void *)(p)))
#define D_PIECES(AT) tfi_join(tfi_two_pieces(AT(0), AT(1)), tfi_two_pieces(AT(2), AT(3)))
#define D_SHIFT(v, BY)                                                                             \
    _mm512_maskz_srlv_epi64(                                                                       \
        TFI_ALL8, v, _mm512_set_epi64(BY(3), BY(3), BY(2), BY(2), BY(1), BY(1), BY(0), BY(0)))
#define D_AND(a, b) _mm512_and_si512(a, b)
#define D_ADD(a, b) _mm512_add_epi8(a, b)
#define D_SUB(a, b) _mm512_sub_epi8(a, b)
#define D_MIN(a, b) _mm512_maskz_min_epu8((__mmask64)-1, a, b)
#define D_LEFT4(v) _mm512_slli_epi16(v, 4)
#define D_SHUFFLE(v, index) _mm512_shuffle_epi8(v, index)
#define D_LOW32(a, b) _mm512_maskz_unpacklo_epi32(TFI_ALL16, a, b)
#define D_HIGH32(a, b) _mm512_maskz_unpackhi_epi32(TFI_ALL16, a, b)
#define D_LOW64(a, b) _mm512_maskz_unpacklo_epi64(TFI_ALL8, a, b)
#define D_HIGH64(a, b) _mm512_maskz_unpackhi_epi64(TFI_ALL8, a, b)
#define D_ADD32(a, b) _mm512_add_epi32(a, b)
#define D_SUB32(a, b) _mm512_sub_epi32(a, b)
#define D_RIGHT32(v, n) _mm512_maskz_srav_epi32(TFI_ALL16, v, _mm512_set1_epi32(n))
#define D_HALVES(p, step) tfi_halves16(p, step)
#define V_TURN(v) /* lanes as 4 x 4, transposed */                                                 \
    _mm512_maskz_permutexvar_ps(                                                                   \
        TFI_ALL16, _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v)
#define D_TWO_HALVES(p, q) tfi_two_halves16(p, q)
#define D_SUBSCALES(s, first, in_turn, a, b) tfi_subscales16(s, in_turn, a, b)
#define TFI_BLOCK_ROWS 4
#define TFI_I __m512i
#define V_FROM_INT(v) _mm512_maskz_cvtepi32_ps(TFI_ALL16, v)
static TFI_TARGET TFI_INLINE __m512i tfi_dot16(__m512i sum, __m512i w, __m512i x) {
    __m512i pairs = _mm512_maddubs_epi16(w, x);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
static TFI_TARGET TFI_INLINE __m512i tfi_sign16(__m512i x, __m512i w) {
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
}
#define D_BIAS 0
#define D_ZERO _mm512_setzero_si512()
#define D_LOAD(p) _mm512_loadu_si512((const void *)(p))
#define D_DOT(is_signed, sum, w, x)                                                                \
    (is_signed ? tfi_dot16(sum, _mm512_abs_epi8(w), tfi_sign16(x, w)) : tfi_dot16(sum, w, x))
#define D_PAIRS(sum, w, x) _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, x))
#define D_WIDEN(sum, pairs) _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
#define D_STORE_BYTES(p, v)                                                                        \
    _mm_storeu_si128(                                                                              \
        (__m128i *)(void *)(p),                                                                    \
        _mm512_maskz_cvtsepi32_epi8(TFI_ALL16, _mm512_maskz_cvtps_epi32(TFI_ALL16, v)))
#include TRANSFORMER_FILE

/* ---- AVX-512 with VNNI: quads of unsigned times signed bytes added to a 32-bit lane ---- */
#define TFI_PASS
#define TFI_ROW avx512vnni
#define TFI_ROW_NAME "avx512vnni"
#undef TFI_NEEDS
#undef TFI_TARGET
#undef TFI_BLOCK_ROW
#undef D_BIAS
#undef D_DOT
#define TFI_NEEDS (TFI_CPU_AVX2 | TFI_CPU_AVX512 | TFI_CPU_VNNI)
#define TFI_TARGET TFI_TARGET_ISA("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#define TFI_BLOCKS
#define TFI_BLOCK_ROW avx512vnni
#define D_BIAS 128
#define D_DOT(is_signed, sum, w, x) _mm512_dpbusd_epi32(sum, w, x)
#define D_HOLD(sum) TFI_IN_REGISTER(sum)
#define TFI_KEEP_VOCABULARY
#include TRANSFORMER_FILE

/* ---- AVX-512 with the BF16 dot product: pairs of BF16 products added to a float32 lane ---- */
#define TFI_PASS
#define TFI_ROW avx512bf16
#define TFI_ROW_NAME "avx512bf16"
#undef TFI_NEEDS
#undef TFI_TARGET
#define TFI_NEEDS (TFI_CPU_AVX2 | TFI_CPU_AVX512 | TFI_CPU_VNNI | TFI_CPU_BF16)
#define TFI_TARGET                                                                                 \
    TFI_TARGET_ISA("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
#define TFI_BF16_DOT 1
static TFI_TARGET TFI_INLINE __m512 tfi_dot_bf16(__m512i w, __m512i x, __m512 sum) {
    __m512bh a, b;
    memcpy(&a, &w, sizeof a), memcpy(&b, &x, sizeof b);
    return _mm512_dpbf16_ps(sum, a, b);
}
#define V_LOAD_BF16_PAIRS(p) _mm512_loadu_si512((const void *)(p))
#define V_LOAD_BF16_PAIRS_N(p, n) _mm512_maskz_loadu_epi16((__mmask32)TFI_LOW(n, 31), p)
#define V_QUADS_BF16_PAIRS(p) D_REPEAT(p)
#define V_QUADS_BF16_PAIRS_N(p, n)                                                                 \
    _mm512_maskz_broadcast_i32x4(TFI_ALL16, _mm_maskz_loadu_epi16((__mmask8)TFI_LOW(n, 8), p))
#define V_MIX_PAIRS(a, b, which) _mm512_maskz_shuffle_i32x4(TFI_ALL16, a, b, which)
static TFI_TARGET TFI_INLINE __m512i tfi_bf16_pairs(const float *p, int n) {
    __m512 a = _mm512_maskz_loadu_ps((__mmask16)TFI_LOW(n, 16), p),
           b = _mm512_maskz_loadu_ps((__mmask16)TFI_LOW(n - 16, 16), n > 16 ? p + 16 : p);
    __m512bh both = _mm512_cvtne2ps_pbh(b, a);
    __m512i v;
    memcpy(&v, &both, sizeof v);
    return v;
}
#include TRANSFORMER_FILE
#ifdef TFI_AVX_VNNI
#define TFI_AVX_VNNI_ROW TFI_ENTRY(avx2vnni),
#else
#define TFI_AVX_VNNI_ROW
#endif
#define TFI_VECTOR_ROWS                                                                            \
    TFI_ENTRY(avx2), TFI_AVX_VNNI_ROW TFI_ENTRY(avx512), TFI_ENTRY(avx512vnni),                    \
        TFI_ENTRY(avx512bf16),

/* ==== >>arm64 ================================================================================ */
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
#include <arm_neon.h>
/* NEON with fused multiply-add is part of the base architecture; dot products of bytes (sdot) are
 * not. */
enum { TFI_CPU_DOT = 1 };
#if defined(__ARM_FEATURE_DOTPROD)
static unsigned tfi_cpu(void) { return TFI_CPU_DOT; }
#elif defined(__linux__)
#include <sys/auxv.h>
static unsigned tfi_cpu(void) { return getauxval(AT_HWCAP) >> 20 & 1 ? TFI_CPU_DOT : 0; }
#else
static unsigned tfi_cpu(void) { return 0; }
#endif

#define TFI_PASS
#define TFI_ROW neon
#define TFI_ROW_NAME "neon"
#define TFI_FLOATS
#define TFI_FLOAT_ROW neon
#define TFI_NEEDS 0
#define TFI_TARGET
#define TFI_TILE_INLINE TFI_INLINE
#define TFI_V float32x4_t
#define TFI_LANES 4
#define TFI_TILE 6
#define TFI_PANEL 6
#define TFI_TILE_ROWS 4
#define TFI_CHUNKS 4
static TFI_INLINE float32x4_t tfi_load4_n(const float *p, int n) {
    float copy[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) copy[i] = p[i];
    return vld1q_f32(copy);
}
static TFI_INLINE uint16x4_t tfi_load4_n_u16(const uint16_t *p, int n) {
    uint16_t copy[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) copy[i] = p[i];
    return vld1_u16(copy);
}
static TFI_INLINE void tfi_store4_n(float *p, float32x4_t v, int n) {
    float copy[4];
    vst1q_f32(copy, v);
    for (int i = 0; i < n; i++) p[i] = copy[i];
}
static TFI_INLINE float32x4_t tfi_keep4(float32x4_t v, int n) {
    float copy[4];
    vst1q_f32(copy, v);
    return tfi_load4_n(copy, n);
}
static TFI_INLINE float32x4_t tfi_scale4(float32x4_t x, float32x4_t n) {
    int32x4_t whole = vcvtq_s32_f32(n), bias = vdupq_n_s32(127);
    int32x4_t a = vmaxq_s32(vminq_s32(whole, bias), vdupq_n_s32(-126)), b = vsubq_s32(whole, a);
    x = vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(a, bias), 23)));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(b, bias), 23)));
}
/* lanes 0 + 1 and 2 + 3, then the two */
static TFI_INLINE float tfi_sum4(float32x4_t v) {
    float32x4_t pairs = vpaddq_f32(v, v);
    return vgetq_lane_f32(vpaddq_f32(pairs, pairs), 0);
}
static TFI_INLINE void tfi_put4(float *p, int more, float32x4_t sums) {
    vst1q_f32(p, more ? vaddq_f32(vld1q_f32(p), sums) : sums);
}
#define V_SET(x) vdupq_n_f32(x)
#define V_LOAD(p) vld1q_f32(p)
#define V_LOAD_N(p, n) tfi_load4_n(p, n)
#define V_STORE(p, v) vst1q_f32(p, v)
#define V_STORE_N(p, v, n) tfi_store4_n(p, v, n)
#define V_KEEP(v, n) tfi_keep4(v, n)
#define V_ADD(a, b) vaddq_f32(a, b)
#define V_SUB(a, b) vsubq_f32(a, b)
#define V_MUL(a, b) vmulq_f32(a, b)
#define V_DIV(a, b) vdivq_f32(a, b)
#define V_FMA(a, b, c) vfmaq_f32(c, a, b)
#define V_MAX(a, b) vmaxq_f32(a, b)
#define V_MIN(a, b) vminq_f32(a, b)
#define V_ABS(a) vabsq_f32(a)
#define V_IF_LESS(a, b, x, y) vbslq_f32(vcltq_f32(a, b), x, y)
#define V_ROUND(a) vrndnq_f32(a)
#define V_SCALE(a, n) tfi_scale4(a, n)
#define V_SUM(v) tfi_sum4(v)
#define V_HMAX(v) vmaxvq_f32(v)
#define V_STORE_SUM4(p, more, a, b, c, d)                                                          \
    tfi_put4(p, more, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)))
#define V_FROM_F16(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define V_FROM_F16_N(p, n) vcvt_f32_f16(vreinterpret_f16_u16(tfi_load4_n_u16(p, n)))
#define V_FROM_BF16(p) vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))
#define V_FROM_BF16_N(p, n) vreinterpretq_f32_u32(vshll_n_u16(tfi_load4_n_u16(p, n), 16))
#define V_TO_F16(p, v) vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)))
static TFI_INLINE int32x4_t tfi_dot4(int32x4_t sum, int8x16_t w, int8x16_t x) {
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
static TFI_INLINE void tfi_store4_bytes(int8_t *p, float32x4_t v) {
    int16x4_t half = vqmovn_s32(vcvtnq_s32_f32(v));
    int8x8_t bytes = vqmovn_s16(vcombine_s16(half, half));
    int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    memcpy(p, &four, sizeof four);
}
/* Blocks first .. first + 3 of two sets of 8 bytes: one after the other or in turn */
static TFI_INLINE void tfi_subscales4(const uint64_t *s, int first, int in_turn, float32x4_t *a,
                                      float32x4_t *b) {
    int16x8_t x = vmovl_s8(vcreate_s8(in_turn ? s[first / 4] : s[0] >> 8 * first));
    int16x8_t y = vmovl_s8(vcreate_s8(s[1] >> 8 * first));
    int16x8_t one = in_turn ? vuzp1q_s16(x, x) : x, two = in_turn ? vuzp2q_s16(x, x) : y;
    *a = vcvtq_f32_s32(vmovl_s16(vget_low_s16(one)));
    *b = vcvtq_f32_s32(vmovl_s16(vget_low_s16(two)));
}
static TFI_INLINE float32x4_t tfi_halves4(const unsigned char *p, int step) {
    uint16_t half[4];
    for (int i = 0; i < 4; i++) half[i] = tfi_half_at(p + i * step);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)));
}
#define D_U8(v) vreinterpretq_u8_s32(v)
#define D_I(v) vreinterpretq_s32_u8(v)
#define D_STORE(p, v) vst1q_u8(p, D_U8(v))
#define D_SPLAT(byte) D_I(vdupq_n_u8((uint8_t)(byte)))
#define D_REPEAT(p) D_I(vld1q_u8((const uint8_t *)(p)))
#define D_PIECES(AT) D_I(vld1q_u8(AT(0)))
#define D_SHIFT(v, BY) D_I(vshlq_u8(D_U8(v), vdupq_n_s8((int8_t) - (BY(0)))))
#define D_AND(a, b) vandq_s32(a, b)
#define D_ADD(a, b) D_I(vaddq_u8(D_U8(a), D_U8(b)))
#define D_SUB(a, b) D_I(vsubq_u8(D_U8(a), D_U8(b)))
#define D_MIN(a, b) D_I(vminq_u8(D_U8(a), D_U8(b)))
#define D_LEFT4(v) D_I(vshlq_n_u8(D_U8(v), 4))
#define D_SHUFFLE(v, index) D_I(vqtbl1q_u8(D_U8(v), D_U8(index)))
#define D_LOW32(a, b) vzip1q_s32(a, b)
#define D_HIGH32(a, b) vzip2q_s32(a, b)
#define D_LOW64(a, b) D_64(vzip1q_s64, a, b)
#define D_HIGH64(a, b) D_64(vzip2q_s64, a, b)
#define D_64(zip, a, b)                                                                            \
    vreinterpretq_s32_s64(zip(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)))
#define D_ADD32(a, b) vaddq_s32(a, b)
#define D_SUB32(a, b) vsubq_s32(a, b)
#define D_RIGHT32(v, n) vshlq_s32(v, vdupq_n_s32(-(n)))
#define D_HALVES(p, step) tfi_halves4(p, step)
#define D_TWO_HALVES(p, q) vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(tfi_half_at(p))))
#define D_SUBSCALES(s, first, in_turn, a, b) tfi_subscales4((s)[0], first, in_turn, a, b)
#define TFI_BLOCKS
#define TFI_BLOCK_ROW neon
#define TFI_BLOCK_ROWS 4
#define TFI_I int32x4_t
#define V_FROM_INT(v) vcvtq_f32_s32(v)
#define D_BIAS 0
#define D_ZERO vdupq_n_s32(0)
#define D_LOAD(p) vreinterpretq_s32_u8(vld1q_u8(p))
#define D_DOT(is_signed, sum, w, x) tfi_dot4(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x))
#define D_STORE_BYTES(p, v) tfi_store4_bytes(p, v)
#if defined(__ARM_FEATURE_DOTPROD) || defined(__GNUC__)
#define TFI_KEEP_VOCABULARY
#endif
#include TRANSFORMER_FILE

/* ---- NEON with dot products of bytes.  A compiler that was not told of them has no intrinsic, and
 * its assembler no instruction: there its number, with those of the registers. ---- */
#if defined(__ARM_FEATURE_DOTPROD) || defined(__GNUC__)
#define TFI_PASS
#define TFI_ROW neondot
#define TFI_ROW_NAME "neondot"
#undef TFI_NEEDS
#undef TFI_BLOCK_ROW
#undef D_DOT
#define TFI_NEEDS TFI_CPU_DOT
#define TFI_BLOCKS
#define TFI_BLOCK_ROW neondot
static TFI_INLINE int32x4_t tfi_sdot4(int32x4_t sum, int32x4_t w, int32x4_t x) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
#else
    __asm__(
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,"
        "30,31\n\t.set .Ltfi_v\\n,\\n\n\t.endr\n\t"
        ".inst 0x4e809400 + .Ltfi_%0 + (.Ltfi_%1 << 5) + (.Ltfi_%2 << 16)" /* sdot */
        : "+w"(sum)
        : "w"(w), "w"(x));
    return sum;
#endif
}
#define D_DOT(is_signed, sum, w, x) tfi_sdot4(sum, w, x)
#include TRANSFORMER_FILE
#define TFI_VECTOR_ROWS TFI_ENTRY(neon), TFI_ENTRY(neondot),
#else
#define TFI_VECTOR_ROWS TFI_ENTRY(neon),
#endif

/* ==== >>wasm ================================================================================= */
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
static unsigned tfi_cpu(void) { return 0; } /* a module with SIMD does not even load without it */
#define TFI_PASS
#define TFI_ROW simd128
#define TFI_ROW_NAME "simd128"
#define TFI_FLOATS
#define TFI_FLOAT_ROW simd128
#define TFI_NEEDS 0
#define TFI_TARGET
#define TFI_TILE_INLINE TFI_INLINE
#define TFI_V v128_t
#define TFI_LANES 4
#define TFI_TILE 3
#define TFI_PANEL 3
#define TFI_TILE_ROWS 4
#define TFI_CHUNKS 2
static TFI_INLINE v128_t tfi_load4_n(const float *p, int n) {
    float copy[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) copy[i] = p[i];
    return wasm_v128_load(copy);
}
static TFI_INLINE v128_t tfi_load4_n_u16(const uint16_t *p, int n) {
    uint16_t copy[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; i++) copy[i] = p[i];
    return wasm_u32x4_load16x4(copy);
}
static TFI_INLINE void tfi_store4_n(float *p, v128_t v, int n) {
    float copy[4];
    wasm_v128_store(copy, v);
    for (int i = 0; i < n; i++) p[i] = copy[i];
}
static TFI_INLINE v128_t tfi_keep4(v128_t v, int n) {
    float copy[4];
    wasm_v128_store(copy, v);
    return tfi_load4_n(copy, n);
}
static TFI_INLINE v128_t tfi_scale4(v128_t x, v128_t n) {
    v128_t whole = wasm_i32x4_trunc_sat_f32x4(n), bias = wasm_i32x4_splat(127);
    v128_t a = wasm_i32x4_max(wasm_i32x4_min(whole, bias), wasm_i32x4_splat(-126)),
           b = wasm_i32x4_sub(whole, a);
    x = wasm_f32x4_mul(x, wasm_i32x4_shl(wasm_i32x4_add(a, bias), 23));
    return wasm_f32x4_mul(x, wasm_i32x4_shl(wasm_i32x4_add(b, bias), 23));
}
/* F16 in the low halves of four 32-bit lanes: shift the exponent into place, and let one
 * multiplication by 2^112 rebase it and normalise denormals; infinities and NaNs get their
 * exponent restored. */
static TFI_INLINE v128_t tfi_widen_f16_4(v128_t h) {
    v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
    v128_t shifted = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7fff)), 13);
    v128_t value = wasm_f32x4_mul(shifted, wasm_f32x4_splat(5.192296858534828e33f));
    v128_t special = wasm_i32x4_gt(shifted, wasm_i32x4_splat(0x0f7fffff));
    value = wasm_v128_or(value, wasm_v128_and(special, wasm_i32x4_splat(0x7f800000)));
    return wasm_v128_or(value, sign);
}
static TFI_INLINE void tfi_store4_f16(uint16_t *p, v128_t v) {
    float copy[4];
    wasm_v128_store(copy, v);
    for (int i = 0; i < 4; i++) p[i] = tfi_to_f16(copy[i]);
}
/* lanes 0 + 2 and 1 + 3, then the two */
static TFI_INLINE float tfi_sum4(v128_t v) {
    v128_t pairs = wasm_f32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(pairs, 0) + wasm_f32x4_extract_lane(pairs, 1);
}
static TFI_INLINE float tfi_max4(v128_t v) {
    v128_t pairs = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(
        wasm_f32x4_pmax(pairs, wasm_i32x4_shuffle(pairs, pairs, 1, 1, 1, 1)), 0);
}
static TFI_INLINE v128_t tfi_sums4(v128_t a, v128_t b, v128_t c, v128_t d) {
    v128_t ab =
        wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    v128_t cd =
        wasm_f32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return wasm_f32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5),
                          wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}
static TFI_INLINE void tfi_put4(float *p, int more, v128_t sums) {
    wasm_v128_store(p, more ? wasm_f32x4_add(wasm_v128_load(p), sums) : sums);
}
#define V_SET(x) wasm_f32x4_splat(x)
#define V_LOAD(p) wasm_v128_load(p)
#define V_LOAD_N(p, n) tfi_load4_n(p, n)
#define V_STORE(p, v) wasm_v128_store(p, v)
#define V_STORE_N(p, v, n) tfi_store4_n(p, v, n)
#define V_KEEP(v, n) tfi_keep4(v, n)
#define V_ADD(a, b) wasm_f32x4_add(a, b)
#define V_SUB(a, b) wasm_f32x4_sub(a, b)
#define V_MUL(a, b) wasm_f32x4_mul(a, b)
#define V_DIV(a, b) wasm_f32x4_div(a, b)
#define V_FMA(a, b, c) wasm_f32x4_add(wasm_f32x4_mul(a, b), c)
#define V_MAX(a, b) wasm_f32x4_max(a, b)
#define V_MIN(a, b) wasm_f32x4_min(a, b)
#define V_ABS(a) wasm_f32x4_abs(a)
#define V_IF_LESS(a, b, x, y) wasm_v128_bitselect(x, y, wasm_f32x4_lt(a, b))
#define V_ROUND(a) wasm_f32x4_nearest(a)
#define V_SCALE(a, n) tfi_scale4(a, n)
#define V_SUM(v) tfi_sum4(v)
#define V_HMAX(v) tfi_max4(v)
#define V_STORE_SUM4(p, more, a, b, c, d) tfi_put4(p, more, tfi_sums4(a, b, c, d))
#define V_FROM_F16(p) tfi_widen_f16_4(wasm_u32x4_load16x4(p))
#define V_FROM_F16_N(p, n) tfi_widen_f16_4(tfi_load4_n_u16(p, n))
#define V_FROM_BF16(p) wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16)
#define V_FROM_BF16_N(p, n) wasm_i32x4_shl(tfi_load4_n_u16(p, n), 16)
#define V_TO_F16(p, v) tfi_store4_f16(p, v)
static TFI_INLINE v128_t tfi_dot4(v128_t sum, v128_t w, v128_t x) {
    v128_t a = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extmul_low_i8x16(w, x));
    v128_t b = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extmul_high_i8x16(w, x));
    return wasm_i32x4_add(sum, wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6),
                                              wasm_i32x4_shuffle(a, b, 1, 3, 5, 7)));
}
static TFI_INLINE void tfi_store4_bytes(int8_t *p, v128_t v) {
    v128_t whole = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(v)),
           half = wasm_i16x8_narrow_i32x4(whole, whole);
    wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(half, half), 0);
}
/* Blocks first .. first + 3 of two sets of 8 bytes: one after the other or in turn */
static TFI_INLINE void tfi_subscales4(const uint64_t *s, int first, int in_turn, v128_t *a,
                                      v128_t *b) {
    v128_t x = wasm_i64x2_splat((int64_t)(in_turn ? s[first / 4] : s[0] >> 8 * first));
    v128_t y = wasm_i64x2_splat((int64_t)(s[1] >> 8 * first));
    x = wasm_i16x8_extend_low_i8x16(x), y = wasm_i16x8_extend_low_i8x16(y);
    v128_t one =
        in_turn ? wasm_i32x4_shr(wasm_i32x4_shl(x, 16), 16) : wasm_i32x4_extend_low_i16x8(x);
    v128_t two = in_turn ? wasm_i32x4_shr(x, 16) : wasm_i32x4_extend_low_i16x8(y);
    *a = wasm_f32x4_convert_i32x4(one), *b = wasm_f32x4_convert_i32x4(two);
}
static TFI_INLINE v128_t tfi_halves4(const unsigned char *p, int step) {
    return tfi_widen_f16_4(wasm_i32x4_make(tfi_half_at(p), tfi_half_at(p + step),
                                           tfi_half_at(p + 2 * step), tfi_half_at(p + 3 * step)));
}
#define D_STORE(p, v) wasm_v128_store(p, v)
#define D_SPLAT(byte) wasm_i8x16_splat((int8_t)(byte))
#define D_REPEAT(p) wasm_v128_load(p)
#define D_PIECES(AT) wasm_v128_load(AT(0))
#define D_SHIFT(v, BY) wasm_u8x16_shr(v, (uint32_t)(BY(0)))
#define D_AND(a, b) wasm_v128_and(a, b)
#define D_ADD(a, b) wasm_i8x16_add(a, b)
#define D_SUB(a, b) wasm_i8x16_sub(a, b)
#define D_MIN(a, b) wasm_u8x16_min(a, b)
#define D_LEFT4(v) wasm_i8x16_shl(v, 4)
#define D_SHUFFLE(v, index) wasm_i8x16_swizzle(v, index)
#define D_LOW32(a, b) wasm_i32x4_shuffle(a, b, 0, 4, 1, 5)
#define D_HIGH32(a, b) wasm_i32x4_shuffle(a, b, 2, 6, 3, 7)
#define D_LOW64(a, b) wasm_i64x2_shuffle(a, b, 0, 2)
#define D_HIGH64(a, b) wasm_i64x2_shuffle(a, b, 1, 3)
#define D_ADD32(a, b) wasm_i32x4_add(a, b)
#define D_SUB32(a, b) wasm_i32x4_sub(a, b)
#define D_RIGHT32(v, n) wasm_i32x4_shr(v, (uint32_t)(n))
#define D_HALVES(p, step) tfi_halves4(p, step)
#define D_TWO_HALVES(p, q) tfi_widen_f16_4(wasm_i32x4_splat(tfi_half_at(p)))
#define D_SUBSCALES(s, first, in_turn, a, b) tfi_subscales4((s)[0], first, in_turn, a, b)
#define TFI_BLOCKS
#define TFI_BLOCK_ROW simd128
#define TFI_BLOCK_ROWS 2
#define TFI_I v128_t
#define V_FROM_INT(v) wasm_f32x4_convert_i32x4(v)
#define D_BIAS 0
#define D_ZERO wasm_i32x4_splat(0)
#define D_LOAD(p) wasm_v128_load(p)
#define D_DOT(is_signed, sum, w, x) tfi_dot4(sum, w, x)
#define D_STORE_BYTES(p, v) tfi_store4_bytes(p, v)
#include TRANSFORMER_FILE
#define TFI_VECTOR_ROWS TFI_ENTRY(simd128),
#else
#define TFI_VECTOR_ROWS
static unsigned tfi_cpu(void) { return 0; }
#endif

/* ---- the table, weakest row first ---- */
#define TFI_ENTRY(row) &tfi_kernels_##row
static const tfi_kernels *const tfi_rows[] = {TFI_ENTRY(scalar), TFI_VECTOR_ROWS NULL};

static const tfi_kernels *tfi_choose(const char *name) {
    const tfi_kernels *best = NULL;
    unsigned cpu = tfi_cpu();
    for (int i = 0; tfi_rows[i]; i++) {
        int slow = !name && tfi_rows[i]->has_bf16_dot && cpu & TFI_CPU_SLOW_BF16;
        if (!slow && (tfi_rows[i]->needs & cpu) == tfi_rows[i]->needs) best = tfi_rows[i];
        if (name && strcmp(name, tfi_rows[i]->name) == 0) return best;
    }
    return name ? NULL : best;
}

/* ---- kernels on plain arrays ---- */

/* A tensor that can be used as a matrix: its type known, its rows whole blocks, its data aligned. */
static int tfi_is_matrix(const transformer_tensor *t) {
    return t && t->data && t->rows >= 0 && t->cols >= 0 && transformer_dtype_block(t->dtype) &&
           t->cols % transformer_dtype_block(t->dtype) == 0 &&
           (uintptr_t)t->data % tfi_alignment(t->dtype) == 0;
}

/* The sums of quantised rows over a cut of their columns at a time: the bits of decoded rows. */
static void tfi_matmul_decoded(const tfi_kernels *k, float *out, const float *x,
                               const transformer_tensor *w, int n) {
    float weights[TFI_CUT_BYTES / sizeof(float)], sum;
    const int most = (int)(sizeof weights / sizeof weights[0]), rows = w->rows, cols = w->cols;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < cols; i += most) {
            int count = tfi_min(most, cols - i);
            tfi_decode(weights, w, (size_t)r * (size_t)cols + (size_t)i, count);
            for (int t = 0; t < n; t++) {
                float *y = out + (size_t)t * (size_t)rows + r;
                k->matmul[TFI_W_F32](weights, 0, 1, x + (size_t)t * (size_t)cols + i, 1, count,
                                     &sum, 0, NULL);
                *y = i ? *y + sum : sum;
            }
        }
}

TFI_DEF transformer_status transformer_matmul(float *out, const float *x,
                                              const transformer_tensor *w, const float *bias,
                                              int n) {
    const tfi_kernels *k = tfi_choose(NULL);
    if (!out || !x || n < 0 || !tfi_is_matrix(w)) return TRANSFORMER_ARGUMENT;
    int kind = w->dtype == TRANSFORMER_F32   ? TFI_W_F32
               : w->dtype == TRANSFORMER_F16 ? TFI_W_F16
                                             : TFI_W_BF16;
    if (tfi_format_of(w->dtype)->unpack) tfi_matmul_decoded(k, out, x, w, n), kind = -1;
    for (int t = 0; t < n; t++) {
        const float *row = x + (size_t)t * (size_t)w->cols;
        float *y = out + (size_t)t * (size_t)w->rows;
        if (kind >= 0) /* a panel of one is the row */
            k->matmul[kind](w->data, (size_t)w->cols, w->rows, row, 1, w->cols, y, 0, NULL);
        for (int r = 0; bias && r < w->rows; r++) y[r] += bias[r];
    }
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_softmax(float *x, int n) {
    if (!x || n < 0) return TRANSFORMER_ARGUMENT;
    tfi_softmax_row(tfi_choose(NULL), x, n);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_layernorm(float *out, const float *x, const float *weight,
                                                 const float *bias, int n, float eps) {
    if (!out || !x || n < 0) return TRANSFORMER_ARGUMENT;
    if (n) tfi_choose(NULL)->norm(out, x, weight, bias, n, eps, TRANSFORMER_NORM_LAYER);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_rmsnorm(float *out, const float *x, const float *weight,
                                               int n, float eps) {
    if (!out || !x || n < 0) return TRANSFORMER_ARGUMENT;
    if (n) tfi_choose(NULL)->norm(out, x, weight, NULL, n, eps, TRANSFORMER_NORM_RMS);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_rope_apply(float *x, int n_heads, int head_dim, int dims,
                                                  int pairing, double theta, int position) {
    if (!x || n_heads < 0 || dims < 0 || dims % 2 || dims > head_dim || !(theta > 0) ||
        pairing < 0 || pairing > TRANSFORMER_ROPE_INTERLEAVED)
        return TRANSFORMER_ARGUMENT;
    int step = pairing == TRANSFORMER_ROPE_HALF ? 1 : 2,
        apart = pairing == TRANSFORMER_ROPE_HALF ? dims / 2 : 1;
    for (int i = 0; i < dims / 2; i++) {
        double angle = position * pow(theta, -2.0 * i / dims);
        float cosine = (float)cos(angle), sine = (float)sin(angle);
        for (int h = 0; h < n_heads; h++)
            tfi_rotate_pair(x + (size_t)h * (size_t)head_dim + i * step, apart, cosine, sine);
    }
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_activate(float *x, int n, int kind) {
    if (!x || n < 0 || kind < 0 || kind > TRANSFORMER_IDENTITY) return TRANSFORMER_ARGUMENT;
    tfi_choose(NULL)->activate(x, NULL, n, kind);
    return TRANSFORMER_OK;
}

static int tfi_attention_sees(const transformer_attention_args *a, int i, int j) {
    int last = i + a->n_keys - a->n_queries;
    if (a->causal && (j > last || (a->window && j <= last - a->window))) return 0;
    return !a->mask || a->mask[(size_t)i * (size_t)a->n_keys + (size_t)j];
}

/* One query of one head, two passes over its keys: the largest score first, then weights and
 * values. */
static void tfi_attend_plain(const tfi_kernels *k, const transformer_attention_args *a, int h,
                             int i) {
    int kv = h / (a->n_heads / a->n_kv_heads);
    size_t k_row = (size_t)a->n_kv_heads * (size_t)a->key_dim,
           v_row = (size_t)a->n_kv_heads * (size_t)a->value_dim;
    const float *q = a->q + ((size_t)i * (size_t)a->n_heads + (size_t)h) * (size_t)a->key_dim;
    const float *keys = a->k + (size_t)kv * (size_t)a->key_dim,
                *values = a->v + (size_t)kv * (size_t)a->value_dim;
    float *out = a->out + ((size_t)i * (size_t)a->n_heads + (size_t)h) * (size_t)a->value_dim;
    size_t row = ((size_t)h * (size_t)a->n_queries + (size_t)i) * (size_t)a->n_keys;
    float scale = a->scale != 0 ? a->scale : (float)(1 / sqrt((double)a->key_dim));
    float max = -FLT_MAX, sum = 0, score, weight;
    for (int pass = 0; pass < 2; pass++) {
        for (int d = 0; pass && d < a->value_dim; d++) out[d] = 0;
        for (int j = 0; j < a->n_keys; j++) {
            int seen = tfi_attention_sees(a, i, j);
            if (pass && a->weights) a->weights[row + (size_t)j] = 0;
            if (!seen && (pass || !a->scores)) continue;
            k->matmul[TFI_W_F32](keys + (size_t)j * k_row, 0, 1, q, 1, a->key_dim, &score, 0, NULL);
            score *= scale;
            if (a->softcap > 0) k->cap(&score, 1, a->softcap);
            if (!pass && a->scores) a->scores[row + (size_t)j] = score;
            if (!pass && seen && score > max) max = score;
            if (!pass) continue;
            sum += k->exponentials(&weight, &score, 1, max);
            if (a->weights) a->weights[row + (size_t)j] = weight;
            k->accumulate[0](out, 0, &weight, 0, values + (size_t)j * v_row, 0, 1, 1, a->value_dim);
        }
    }
    float inverse = sum > 0 ? 1 / sum : 0;
    for (int d = 0; d < a->value_dim; d++) out[d] *= inverse;
    for (int j = 0; a->weights && j < a->n_keys; j++) a->weights[row + (size_t)j] *= inverse;
}

TFI_DEF transformer_status transformer_attention(const transformer_attention_args *a) {
    if (!a || !a->q || !a->k || !a->v || !a->out || a->n_queries < 0 || a->n_keys < 0 ||
        a->n_heads < 1 || a->n_kv_heads < 1 || a->n_heads % a->n_kv_heads || a->key_dim < 1 ||
        a->value_dim < 1 || a->window < 0 || (a->causal && a->n_queries > a->n_keys))
        return TRANSFORMER_ARGUMENT;
    const tfi_kernels *k = tfi_choose(NULL);
    for (int h = 0; h < a->n_heads; h++)
        for (int i = 0; i < a->n_queries; i++) tfi_attend_plain(k, a, h, i);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_mlp(float *out, const float *x,
                                           const transformer_tensor *gate,
                                           const transformer_tensor *up,
                                           const transformer_tensor *down, const float *gate_bias,
                                           const float *up_bias, const float *down_bias,
                                           int activation, int n, float *scratch) {
    if (!out || !x || !up || !down || !scratch || n < 0 || up->rows < 0 || down->cols != up->rows ||
        (gate && (gate->rows != up->rows || gate->cols != up->cols)))
        return TRANSFORMER_ARGUMENT;
    if (activation < 0 || activation > TRANSFORMER_IDENTITY) return TRANSFORMER_ARGUMENT;
    for (int t = 0; t < n; t++) {
        const float *row = x + (size_t)t * (size_t)up->cols;
        float *hidden = scratch, *times = gate ? scratch + up->rows : NULL;
        transformer_status status = transformer_matmul(gate ? times : hidden, row, up, up_bias, 1);
        if (!status && gate) status = transformer_matmul(hidden, row, gate, gate_bias, 1);
        if (status) return status;
        tfi_choose(NULL)->activate(hidden, times, up->rows, activation);
        status =
            transformer_matmul(out + (size_t)t * (size_t)down->rows, hidden, down, down_bias, 1);
        if (status) return status;
    }
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_embedding(float *out, const transformer_tensor *table,
                                                 const int32_t *tokens, int n) {
    if (!out || !tokens || n < 0 || !tfi_is_matrix(table)) return TRANSFORMER_ARGUMENT;
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= table->rows) return TRANSFORMER_ARGUMENT;
    for (int i = 0; i < n; i++)
        tfi_decode(out + (size_t)i * (size_t)table->cols, table,
                   (size_t)tokens[i] * (size_t)table->cols, table->cols);
    return TRANSFORMER_OK;
}

TFI_DEF transformer_status transformer_unembedding(float *out, const float *x,
                                                   const transformer_tensor *table, int n) {
    transformer_status status = transformer_matmul(out, x, table, NULL, n);
    for (int i = 0; !status && i < n; i++)
        transformer_softmax(out + (size_t)i * (size_t)table->rows, table->rows);
    return status;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#elif defined(__clang__)
#pragma clang fp contract(on) /* the compiler's default */
#if defined(__FAST_MATH__) && !defined(__s390x__) && !defined(__wasm__)
#pragma float_control(pop)
#endif
#elif defined(_MSC_VER)
#pragma fp_contract(on)
#pragma float_control(pop)
#endif
#endif /* TRANSFORMER_IMPLEMENTATION */

/* ==== >>bodies ============================================================================== */
#ifdef TFI_PASS
#undef TFI_PASS
#define TFI_JOIN2(name, row) tfi_##name##_##row
#define TFI_JOIN(name, row) TFI_JOIN2(name, row)
#define TFI_K(name) TFI_JOIN(name, TFI_ROW)
#define TFI_FLOAT_KERNEL(name) TFI_JOIN(name, TFI_FLOAT_ROW)
#define TFI_BLOCK_KERNEL(name) TFI_JOIN(name, TFI_BLOCK_ROW)

#ifdef TFI_FLOATS

/* ---- elementary functions ---- */

/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; e^r by a minimax polynomial (relative error
 * 1e-8).  Below -104 the result is exactly 0; above 88.7 it is 2^128 = infinity rounded down to
 * the largest float by the clamp. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(exp)(TFI_V x) {
    x = V_MIN(V_SET(88.722836f), V_MAX(V_SET(-104.0f), x)); /* operands in this order keep a NaN */
    TFI_V n = V_ROUND(V_MUL(x, V_SET(1.44269504f)));
    TFI_V r = V_FMA(n, V_SET(-0.693359375f), x); /* ln 2 in two parts: the first product is exact */
    r = V_FMA(n, V_SET(2.12194440e-4f), r);
    TFI_V p = V_SET(0.00139015331f);
    p = V_FMA(p, r, V_SET(0.00836373959f));
    p = V_FMA(p, r, V_SET(0.0416668616f));
    p = V_FMA(p, r, V_SET(0.166665733f));
    p = V_FMA(p, r, V_SET(0.5f));
    p = V_FMA(V_MUL(r, r), p, r);
    return V_SCALE(V_ADD(p, V_SET(1.0f)), n);
}

/* 1 / (1 + e^-x) */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(sigmoid)(TFI_V x) {
    return V_DIV(V_SET(1.0f), V_ADD(V_SET(1.0f), TFI_K(exp)(V_SUB(V_SET(0.0f), x))));
}

/* Below 0.6 an odd polynomial, so that small arguments keep their relative accuracy; above it 1 -
 * 2 / (e^2x + 1). */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(tanh)(TFI_V x) {
    TFI_V size = V_ABS(x), square = V_MUL(x, x), p = V_SET(0.0025796222f);
    p = V_FMA(p, square, V_SET(-0.00860546436f));
    p = V_FMA(p, square, V_SET(0.0218531061f));
    p = V_FMA(p, square, V_SET(-0.0539704971f));
    p = V_FMA(p, square, V_SET(0.133333579f));
    p = V_FMA(p, square, V_SET(-0.333333343f));
    p = V_FMA(V_MUL(p, square), x, x);
    TFI_V far = V_DIV(V_SET(2.0f), V_ADD(V_SET(1.0f), TFI_K(exp)(V_ADD(size, size))));
    far = V_SUB(V_SET(1.0f), far);
    far = V_IF_LESS(x, V_SET(0.0f), V_SUB(V_SET(0.0f), far), far);
    return V_IF_LESS(size, V_SET(0.6f), p, far);
}

/* Below 1 an odd polynomial, from there 1 - e^q(|x|) with a polynomial q = log erfc. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(erf)(TFI_V x) {
    TFI_V size = V_MIN(V_SET(4.0f), V_ABS(x)), square = V_MUL(x, x), p = V_SET(-9.64151695e-6f), q;
    p = V_FMA(p, square, V_SET(1.12569483e-4f));
    p = V_FMA(p, square, V_SET(-8.48282885e-4f));
    p = V_FMA(p, square, V_SET(0.00522094546f));
    p = V_FMA(p, square, V_SET(-0.0268654004f));
    p = V_FMA(p, square, V_SET(0.112837821f));
    p = V_FMA(p, square, V_SET(-0.376126379f));
    p = V_MUL(V_FMA(p, square, V_SET(1.12837923f)), x);
    q = V_SET(7.84526833e-7f);
    q = V_FMA(q, size, V_SET(-1.24528844e-5f));
    q = V_FMA(q, size, V_SET(6.43421663e-5f));
    q = V_FMA(q, size, V_SET(1.01757440e-4f));
    q = V_FMA(q, size, V_SET(-0.0033602633f));
    q = V_FMA(q, size, V_SET(0.0238364991f));
    q = V_FMA(q, size, V_SET(-0.106961489f));
    q = V_FMA(q, size, V_SET(-0.634196103f));
    q = V_FMA(q, size, V_SET(-1.1292038f));
    q = V_FMA(q, size, V_SET(1.25292921e-4f));
    q = V_SUB(V_SET(1.0f), TFI_K(exp)(q));
    q = V_IF_LESS(x, V_SET(0.0f), V_SUB(V_SET(0.0f), q), q);
    return V_IF_LESS(size, V_SET(1.0f), p, q);
}

static TFI_TARGET TFI_INLINE TFI_V TFI_K(activation)(TFI_V x, int kind) {
    TFI_V zero = V_SET(0.0f), u;
    switch (kind) {
    case TRANSFORMER_SILU: return V_DIV(x, V_ADD(V_SET(1.0f), TFI_K(exp)(V_SUB(zero, x))));
    case TRANSFORMER_GELU: /* x/2 (1 + erf(x / sqrt 2)) */
        return V_MUL(V_MUL(V_SET(0.5f), x),
                     V_ADD(V_SET(1.0f), TFI_K(erf)(V_MUL(x, V_SET(0.70710678f)))));
    case TRANSFORMER_GELU_TANH: /* x/2 (1 + tanh u) = x sigmoid(2u) */
        u = V_MUL(V_MUL(x, V_SET(1.59576912f)), V_FMA(V_MUL(x, x), V_SET(0.044715f), V_SET(1.0f)));
        return V_DIV(x, V_ADD(V_SET(1.0f), TFI_K(exp)(V_SUB(zero, u))));
    case TRANSFORMER_GELU_QUICK:
        return V_DIV(x, V_ADD(V_SET(1.0f), TFI_K(exp)(V_MUL(x, V_SET(-1.702f)))));
    case TRANSFORMER_RELU: return V_MAX(zero, x);
    case TRANSFORMER_RELU2: return V_MUL(V_MAX(zero, x), V_MAX(zero, x));
    case TRANSFORMER_TANH: return TFI_K(tanh)(x);
    case TRANSFORMER_SIGMOID: return TFI_K(sigmoid)(x);
    default: return x;
    }
}

/* ---- rows of floats ---- */

static TFI_TARGET void TFI_K(activate)(float *x, const float *times, int n, int kind) {
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) {
        TFI_V y = TFI_K(activation)(V_LOAD(x + i), kind);
        V_STORE(x + i, times ? V_MUL(y, V_LOAD(times + i)) : y);
    }
    if (i < n) {
        TFI_V y = TFI_K(activation)(V_LOAD_N(x + i, n - i), kind);
        y = times ? V_MUL(y, V_LOAD_N(times + i, n - i)) : y;
        V_STORE_N(x + i, y, n - i);
    }
}

static TFI_TARGET void TFI_K(cap)(float *x, int n, float cap) {
    TFI_V high = V_SET(cap), inverse = V_SET(1 / cap);
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES)
        V_STORE(x + i, V_MUL(high, TFI_K(tanh)(V_MUL(V_LOAD(x + i), inverse))));
    if (i < n)
        V_STORE_N(x + i, V_MUL(high, TFI_K(tanh)(V_MUL(V_LOAD_N(x + i, n - i), inverse))), n - i);
}

static TFI_TARGET float TFI_K(maximum)(const float *x, int n) {
    TFI_V max = V_SET(-FLT_MAX);
    int i = 0;
    float result;
    for (; i + TFI_LANES <= n; i += TFI_LANES) max = V_MAX(max, V_LOAD(x + i));
    result = V_HMAX(max);
    for (; i < n; i++) result = x[i] > result ? x[i] : result;
    return result;
}

/* e^x, or 0 where that would be denormal: to make such numbers and to multiply by them takes a
 * hundred times as long. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(softmax_weight)(TFI_V x) {
    /* no V_MAX: -ffast-math lets clang exchange its operands, and a NaN must stay */
    TFI_V least = V_SET(-87.33654f), normal = V_IF_LESS(x, least, least, x);
    return V_IF_LESS(x, least, V_SET(0.0f), TFI_K(exp)(normal));
}

/* Lanes beyond n must not count: they would add e^(0 - max). */
static TFI_TARGET float TFI_K(exponentials)(float *out, const float *x, int n, float max) {
    TFI_V sum = V_SET(0.0f), shift = V_SET(max);
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) {
        TFI_V e = TFI_K(softmax_weight)(V_SUB(V_LOAD(x + i), shift));
        V_STORE(out + i, e);
        sum = V_ADD(sum, e);
    }
    if (i < n) {
        TFI_V e = V_KEEP(TFI_K(softmax_weight)(V_SUB(V_LOAD_N(x + i, n - i), shift)), n - i);
        V_STORE_N(out + i, e, n - i);
        sum = V_ADD(sum, e);
    }
    return V_SUM(sum);
}

static TFI_TARGET TFI_INLINE float TFI_K(mean)(const float *x, int n) {
    TFI_V sum = V_SET(0.0f);
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) sum = V_ADD(sum, V_LOAD(x + i));
    if (i < n) sum = V_ADD(sum, V_LOAD_N(x + i, n - i));
    return V_SUM(sum) / (float)n;
}

/* mean of (x - shift)^2 */
static TFI_TARGET TFI_INLINE float TFI_K(mean_square)(const float *x, int n, float shift) {
    TFI_V sum = V_SET(0.0f), away, by = V_SET(shift);
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) {
        away = V_SUB(V_LOAD(x + i), by);
        sum = V_FMA(away, away, sum);
    }
    if (i < n) {
        away = V_KEEP(V_SUB(V_LOAD_N(x + i, n - i), by), n - i);
        sum = V_FMA(away, away, sum);
    }
    return V_SUM(sum) / (float)n;
}

static TFI_TARGET void TFI_K(norm)(float *out, const float *x, const float *weight,
                                   const float *bias, int n, float eps, int kind) {
    float mean = kind == TRANSFORMER_NORM_LAYER ? TFI_K(mean)(x, n) : 0;
    TFI_V factor = V_SET(1 / sqrtf(TFI_K(mean_square)(x, n, mean) + eps)), shift = V_SET(mean);
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) {
        TFI_V y = V_MUL(V_SUB(V_LOAD(x + i), shift), factor);
        if (weight) y = V_MUL(y, V_LOAD(weight + i));
        if (bias) y = V_ADD(y, V_LOAD(bias + i));
        V_STORE(out + i, y);
    }
    if (i < n) {
        TFI_V y = V_MUL(V_SUB(V_LOAD_N(x + i, n - i), shift), factor);
        if (weight) y = V_MUL(y, V_LOAD_N(weight + i, n - i));
        if (bias) y = V_ADD(y, V_LOAD_N(bias + i, n - i));
        V_STORE_N(out + i, y, n - i);
    }
}

static TFI_TARGET void TFI_K(to_f16)(uint16_t *out, const float *x, int n) {
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) V_TO_F16(out + i, V_LOAD(x + i));
    for (; i < n; i++) out[i] = tfi_to_f16(x[i]);
}

/* ---- attention ---- */

static TFI_TARGET void TFI_K(scores)(float *s, float scale, float cap, const float *bias) {
    for (int j = 0; j < TFI_KEY_BLOCK; j += TFI_LANES) {
        TFI_V x = V_MUL(V_LOAD(s + j), V_SET(scale));
        if (cap > 0) x = V_MUL(V_SET(cap), TFI_K(tanh)(V_MUL(x, V_SET(1 / cap))));
        if (bias) x = V_ADD(x, V_LOAD(bias + j));
        V_STORE(s + j, x);
    }
}

static TFI_TARGET void TFI_K(softmax_block)(float *s, int rows, int n, float *max, float *sum,
                                            float *older) {
    for (int r = 0; r < rows; r++) {
        float highest = TFI_K(maximum)(s + r * TFI_KEY_BLOCK, n);
        highest = highest > max[r] ? highest : max[r];
        older[r] = max[r] - highest, max[r] = highest;
    }
    TFI_K(exponentials)(older, older, rows, 0);
    for (int r = 0; r < rows; r++) {
        float *row = s + r * TFI_KEY_BLOCK;
        sum[r] = sum[r] * older[r] + TFI_K(exponentials)(row, row, n, max[r]);
    }
}

static TFI_TARGET void TFI_K(scale)(float *out, const float *x, float by, int n) {
    int i = 0;
    for (; i + TFI_LANES <= n; i += TFI_LANES) V_STORE(out + i, V_MUL(V_LOAD(x + i), V_SET(by)));
    if (i < n) V_STORE_N(out + i, V_MUL(V_LOAD_N(x + i, n - i), V_SET(by)), n - i);
}

/* ---- matrix products ----
 *
 * A tile is TFI_TILE_ROWS weight rows times 1 .. TFI_TILE tokens, one vector of partial sums each,
 * all in registers. The lists below write out `M(r, t)` for every pair, since compilers at -O2 do
 * not keep arrays in registers.
 */
#ifdef TFI_QUADS /* rows of weights at a time */
#define TFI_GROUP 6
#define TFI_GROUPS(rows) (((rows) + 5) / 6)
#define TFI_WIDE TFI_PANEL   /* tokens from which on it pays to widen weights */
#define TFI_STREAM TFI_PANEL /* up to which rows come from memory whole, in long streams */
#define TFI_ASKING(n) ((n) / TFI_PANEL + ((n) % TFI_PANEL > 1)) /* panels whose tiles ask */
#else
#define TFI_GROUP 4
#define TFI_GROUPS(rows) ((rows) / 4)
#define TFI_WIDE (8 * TFI_PANEL)
#define TFI_STREAM (TFI_PANEL - 1)
#define TFI_ASKING(n) ((n) / TFI_PANEL)
#endif
#ifndef TFI_LISTS
#define TFI_LISTS
/* Rows of weights that the last tiles of a block ask for: 1 / 2^slow of a row each, lest all of the
 * memory's bandwidth be needed for a while and none then, or `each` rows if tiles are few. */
typedef struct tfi_soon {
    const unsigned char *rows;
    size_t stride, width, step;   /* bytes; of a tile, of a step */
    int parts, each, slow, first; /* parts: tiles that ask; first: the one that begins */
} tfi_soon;

/* `width` weights of n rows `stride` apart, of `size` bytes each; `step` weights in a tile's step. */
static TFI_UNUSED tfi_soon tfi_plan_soon(const void *rows, size_t size, size_t stride, int width,
                                         int n, int step, int tiles) {
    tfi_soon s;
    s.rows = (const unsigned char *)rows, s.stride = stride * size;
    s.slow = tiles >= 4 * n ? 2 : tiles >= 2 * n ? 1 : 0;
    s.each = tfi_max(1, (n + tiles - 1) / tiles);
    s.width = (size_t)width * size >> s.slow, s.step = (size_t)step * size >> s.slow;
    s.parts = (n + s.each - 1) / s.each << s.slow, s.first = tfi_max(0, tiles - s.parts);
    return s;
}

static TFI_UNUSED const void *tfi_soon_part(const tfi_soon *s, int tile, const void *none) {
    int part = tile - s->first, of = part & ((1 << s->slow) - 1);
    if (part < 0 || part >= s->parts) return none;
    return s->rows + (size_t)((part >> s->slow) * s->each) * s->stride + (size_t)of * s->width;
}

/* A part of a product: some rows times all tokens, over columns from .. stop - 1.  Row r of group g
 * lies g * step + r * apart rows after the first, and so do results. */
typedef struct tfi_part {
    const void *panels; /* of all columns, `unit` for each token */
    float *out, *scratch;
    size_t out_stride;
    int n, unit, rows, groups, step, apart, from, stop;
    int ask; /* 1 = the next panel comes from afar and is asked for */
    tfi_soon soon;
} tfi_part;
#define TFI_ROWS_OF_GROUP(p, g)                                                                    \
    tfi_min(TFI_GROUP, ((p)->rows - (g) * (p)->step + (p)->apart - 1) / (p)->apart)
#define TFI_T1(M, r) M(r, 0)
#define TFI_T2(M, r) TFI_T1(M, r) M(r, 1)
#define TFI_T3(M, r) TFI_T2(M, r) M(r, 2)
#define TFI_T4(M, r) TFI_T3(M, r) M(r, 3)
#define TFI_T5(M, r) TFI_T4(M, r) M(r, 4)
#define TFI_T6(M, r) TFI_T5(M, r) M(r, 5)
#define TFI_R1(T, M) T(M, 0)
#define TFI_R4(T, M) T(M, 0) T(M, 1) T(M, 2) T(M, 3)
#define TFI_R6(T, M) TFI_R4(T, M) T(M, 4) T(M, 5)
#define TFI_SIZES1(M, type) M(type, 1, TFI_T1)
#define TFI_SIZES2(M, type) TFI_SIZES1(M, type) M(type, 2, TFI_T2)
#define TFI_SIZES3(M, type) TFI_SIZES2(M, type) M(type, 3, TFI_T3)
#define TFI_SIZES4(M, type) TFI_SIZES3(M, type) M(type, 4, TFI_T4)
#define TFI_SIZES6(M, type) TFI_SIZES4(M, type) M(type, 5, TFI_T5) M(type, 6, TFI_T6)
#define TFI_ZERO(r, t) TFI_V a##r##t = V_SET(0.0f);
#define TFI_LOAD_X(r, t) x##t = TFI_X_LOAD(x + t * TFI_STEP);
#define TFI_LOAD_X_N(r, t) x##t = TFI_X_LOAD_N(x + t * TFI_STEP, k - (int)i);
#define TFI_DECLARE_X(r, t) TFI_X x##t;
#define TFI_MAC(r, t) a##r##t = TFI_DOT(w, x##t, a##r##t);
#define TFI_STORE_SUMS(r, t)                                                                       \
    if (together) V_STORE_SUM4(out + (size_t)t * out_stride, more, a0##t, a1##t, a2##t, a3##t);    \
    else {                                                                                         \
        float sum[4], *to = out + (size_t)t * out_stride;                                          \
        V_STORE_SUM4(sum, 0, a0##t, a1##t, a2##t, a3##t);                                          \
        for (int j = 0; j < 4; j++) to[j * apart] = more ? to[j * apart] + sum[j] : sum[j];        \
    }

/* One tile of 4 rows over k columns; x are T tokens of a panel of exactly T.  Rows lie w_stride
 * elements apart, their results `apart` floats.  `more`: these columns follow others, whose sums
 * are in out.  A full tile asks for what will be needed from second-level cache, a little at every
 * step since a burst would keep loads waiting: parts of rows that come `soon` and one of the
 * `next` panel.  With few tokens the rows come from memory, and are asked for some steps ahead. */
#define TFI_LOAD_W(T, r)                                                                           \
    if (T < TFI_TILE) TFI_PREFETCH((const unsigned char *)(w##r + i) + TFI_AHEAD_BYTES, 3);        \
    w = TFI_W_LOAD(w##r + i);
#define TFI_ASK_ON                                                                                 \
    TFI_PREFETCH(row_part, 2);                                                                     \
    for (int j = 1; j < soon->each; j++) TFI_PREFETCH(row_part + (size_t)j * soon->stride, 2);     \
    TFI_PREFETCH(panel_part, 2);                                                                   \
    row_part += soon->step, panel_part += TFI_STEP * sizeof(TFI_X_ELEMENT) / TFI_ASK;
#define TFI_DEFINE_TILE(type, T, LIST)                                                             \
    static TFI_TARGET TFI_TILE_INLINE void TFI_K(tile##T##_##type)(                                \
        const TFI_W *w0, size_t w_stride, const TFI_X_ELEMENT *x, int k, float *out,               \
        size_t out_stride, int apart, int more, const tfi_soon *soon, int tile,                    \
        const TFI_X_ELEMENT *next) {                                                               \
        const TFI_W *w1 = w0 + w_stride, *w2 = w1 + w_stride, *w3 = w2 + w_stride;                 \
        const int together = T == TFI_TILE || apart == 1;                                          \
        const size_t whole = (size_t)(k / TFI_STEP * TFI_STEP);                                    \
        const unsigned char *row_part = (const unsigned char *)tfi_soon_part(soon, tile, w0);      \
        const unsigned char *panel_part = (const unsigned char *)next;                             \
        size_t i = 0;                                                                              \
        TFI_X w;                                                                                   \
        LIST(TFI_DECLARE_X, 0)                                                                     \
        TFI_R4(LIST, TFI_ZERO)                                                                     \
        for (; i < whole; i += TFI_STEP, x += T * TFI_STEP) {                                      \
            LIST(TFI_LOAD_X, 0)                                                                    \
            if (T == TFI_TILE) {                                                                   \
                TFI_ASK_ON                                                                         \
            }                                                                                      \
            TFI_LOAD_W(T, 0)                                                                       \
            LIST(TFI_MAC, 0)                                                                       \
            TFI_LOAD_W(T, 1)                                                                       \
            LIST(TFI_MAC, 1)                                                                       \
            TFI_LOAD_W(T, 2)                                                                       \
            LIST(TFI_MAC, 2)                                                                       \
            TFI_LOAD_W(T, 3)                                                                       \
            LIST(TFI_MAC, 3)                                                                       \
        }                                                                                          \
        if (i < (size_t)k) {                                                                       \
            LIST(TFI_LOAD_X_N, 0)                                                                  \
            w = TFI_W_LOAD_N(w0 + i, k - (int)i);                                                  \
            LIST(TFI_MAC, 0)                                                                       \
            w = TFI_W_LOAD_N(w1 + i, k - (int)i);                                                  \
            LIST(TFI_MAC, 1)                                                                       \
            w = TFI_W_LOAD_N(w2 + i, k - (int)i);                                                  \
            LIST(TFI_MAC, 2)                                                                       \
            w = TFI_W_LOAD_N(w3 + i, k - (int)i);                                                  \
            LIST(TFI_MAC, 3)                                                                       \
        }                                                                                          \
        LIST(TFI_STORE_SUMS, 0)                                                                    \
    }

/* The part of the next panel that a tile asks for: a panel meets TFI_CUT_ROWS rows before it, and
 * many long panels come from third-level cache or memory. */
#define TFI_ASK (TFI_CUT_ROWS / TFI_GROUP / TFI_PANEL)
/* Rows that fill no tile, first .. rows - 1, each by itself in the tiles' order: TFI_CUT columns at
 * a time. */
#define TFI_CUT (TFI_CUT_BYTES / (int)sizeof(TFI_X_ELEMENT))
#define TFI_DEFINE_SINGLES(type)                                                                   \
    static TFI_TARGET TFI_TILE_INLINE float TFI_K(dot_##type)(                                     \
        const TFI_W *w, const TFI_X_ELEMENT *x, int tokens, int k) {                               \
        TFI_V sum = V_SET(0.0f);                                                                   \
        int i = 0;                                                                                 \
        for (; i + TFI_STEP <= k; i += TFI_STEP, x += tokens * TFI_STEP)                           \
            sum = TFI_DOT(TFI_W_LOAD(w + i), TFI_X_LOAD(x), sum);                                  \
        if (i < k) sum = TFI_DOT(TFI_W_LOAD_N(w + i, k - i), TFI_X_LOAD_N(x, k - i), sum);         \
        return V_SUM(sum);                                                                         \
    }                                                                                              \
    static TFI_TARGET void TFI_K(singles_##type)(const TFI_W *w, size_t w_stride, int first,       \
                                                 int rows, const TFI_X_ELEMENT *panels, int n,     \
                                                 int k, float *out, size_t out_stride) {           \
        const size_t unit = (size_t)((k + 31) / 32 * 32);                                          \
        for (int t = 0; t < n; t++, out += out_stride) {                                           \
            int t0 = t / TFI_TILE * TFI_TILE, tokens = tfi_min(TFI_TILE, n - t0);                  \
            const TFI_X_ELEMENT *x = panels + (size_t)t0 * unit + (t - t0) * TFI_STEP;             \
            for (int r = first; r < rows; r++) {                                                   \
                const TFI_W *row = w + (size_t)r * w_stride;                                       \
                out[r] = TFI_K(dot_##type)(row, x, tokens, tfi_min(k, TFI_CUT));                   \
                for (int from = TFI_CUT; from < k; from += TFI_CUT)                                \
                    out[r] += TFI_K(dot_##type)(row + from, x + (size_t)from * (size_t)tokens,     \
                                                tokens, tfi_min(k - from, TFI_CUT));               \
            }                                                                                      \
        }                                                                                          \
    }
#define TFI_TILE_CASE(type, T, LIST)                                                               \
    case T:                                                                                        \
        for (int g = 0; g < p->groups; g++, tile++)                                                \
            for (int i = p->from; i == p->from || i < p->stop; i += TFI_CUT) {                     \
                const TFI_W *row = w + (size_t)(g * p->step) * w_stride + (i - p->from);           \
                TFI_K(tile##T##_##type)                                                            \
                (row, (size_t)p->apart * w_stride, x + (size_t)i * T,                              \
                 tfi_min(TFI_CUT, p->stop - i), out + g * p->step, p->out_stride, p->apart, i > 0, \
                 &p->soon, tile,                                                                   \
                 next && g < TFI_ASK * TFI_TILE ? next + g * (wide / TFI_ASK) : x);                \
            }                                                                                      \
        break;
/* RUN: a switch over the tiles' sizes */
#define TFI_DEFINE_PART(type, RUN)                                                                 \
    static TFI_TARGET void TFI_K(part_##type)(const TFI_W *w, size_t w_stride,                     \
                                              const tfi_part *p) {                                 \
        const int wide = tfi_min(p->stop - p->from, TFI_CUT);                                      \
        int tile = 0;                                                                              \
        for (int t0 = 0; t0 < p->n; t0 += TFI_PANEL) {                                             \
            const TFI_X_ELEMENT *x = (const TFI_X_ELEMENT *)p->panels, *next = NULL;               \
            const int tokens = tfi_min(TFI_PANEL, p->n - t0);                                      \
            float *out = p->out + (size_t)t0 * p->out_stride;                                      \
            x += (size_t)t0 * (size_t)p->unit;                                                     \
            if (p->ask && p->n - t0 >= 2 * TFI_PANEL)                                              \
                next = x + (size_t)TFI_PANEL * (size_t)(p->unit + p->from);                        \
            RUN                                                                                    \
        }                                                                                          \
    }
/* ---- quads, a second form of tiles ----
 *
 * A quad is 16 bytes of a row, four lanes of sums; a vector of activations holds the quads of
 * TFI_PAD tokens, and each quad of weights is spread to all of them.  A line of weights meets up to 16
 * tokens while it is in first-level cache, and there is a quarter of the folding.  Tiles are of six
 * rows and 1 .. 4 vectors; a token alone meets eight rows, whose quads are put beside each other.  Two
 * distances of prefetching make up for the shuffles that takes. */
#define TFI_LOAD_QUADS(u, t) x##t = TFI_X_LOAD(x + (u * vectors + t) * TFI_STEP);
#define TFI_QUAD_MACS(LIST, r, u)                                                                  \
    w = TFI_W_QUADS(w##r + i + u * TFI_QUAD);                                                      \
    LIST(TFI_MAC, r)
#define TFI_QUAD_MACS_N(LIST, r, u)                                                                \
    w = TFI_W_QUADS_N(w##r + i + u * TFI_QUAD, k - (int)i - u * TFI_QUAD);                         \
    LIST(TFI_MAC, r)
#define TFI_QUAD_STEP(LIST, MACS, u)                                                               \
    LIST(TFI_LOAD_QUADS, u)                                                                        \
    MACS(LIST, 0, u)                                                                               \
    MACS(LIST, 1, u) MACS(LIST, 2, u) MACS(LIST, 3, u) MACS(LIST, 4, u) MACS(LIST, 5, u)
#define TFI_QUAD_STEPS(LIST, MACS)                                                                 \
    TFI_QUAD_STEP(LIST, MACS, 0)                                                                   \
    TFI_QUAD_STEP(LIST, MACS, 1) TFI_QUAD_STEP(LIST, MACS, 2) TFI_QUAD_STEP(LIST, MACS, 3)
#define TFI_PUT_QUADS(r, t)                                                                        \
    tfi_put_quads(out + (size_t)(TFI_PAD * t) * out_stride, out_stride, apart, rows,               \
                  tokens - TFI_PAD * t, more, tfi_sums16(a0##t, a1##t, a2##t, a3##t),              \
                  tfi_sums16(a4##t, a5##t, a4##t, a5##t));
#define TFI_QUADS_AHEAD(T, r) TFI_PREFETCH((const unsigned char *)(w##r + i) + TFI_AHEAD_BYTES, 3);
/* Of a tile, `rows` are there and `tokens` wanted.  If there is something to ask for (tfi_soon), a
 * tile that is not full asks, too. */
#define TFI_DEFINE_QUADS(type, T, LIST)                                                            \
    static TFI_TARGET TFI_TILE_INLINE void TFI_K(quads##T##_##type)(                               \
        const TFI_W *w0, size_t w_stride, int rows, const TFI_X_ELEMENT *x, int tokens, int k,     \
        float *out, size_t out_stride, int apart, int more, const tfi_soon *soon, int tile,        \
        const TFI_X_ELEMENT *next) {                                                               \
        enum { vectors = T };                                                                      \
        const TFI_W *w1 = w0 + (rows > 1 ? w_stride : 0), *w2 = w1 + (rows > 2 ? w_stride : 0),    \
                    *w3 = w2 + (rows > 3 ? w_stride : 0), *w4 = w3 + (rows > 4 ? w_stride : 0),    \
                    *w5 = w4 + (rows > 5 ? w_stride : 0);                                          \
        const size_t whole = (size_t)(k / TFI_STEP * TFI_STEP);                                    \
        const unsigned char *row_part = (const unsigned char *)tfi_soon_part(soon, tile, w0);      \
        const unsigned char *panel_part = (const unsigned char *)next;                             \
        size_t i = 0;                                                                              \
        TFI_X w;                                                                                   \
        LIST(TFI_DECLARE_X, 0)                                                                     \
        TFI_R6(LIST, TFI_ZERO)                                                                     \
        for (; i < whole; i += TFI_STEP, x += 4 * vectors * TFI_STEP) {                            \
            if (soon->step) {                                                                      \
                TFI_ASK_ON                                                                         \
            } else {                                                                               \
                TFI_R6(TFI_QUADS_AHEAD, T)                                                         \
            }                                                                                      \
            TFI_QUAD_STEPS(LIST, TFI_QUAD_MACS)                                                    \
        }                                                                                          \
        if (i < (size_t)k) {                                                                       \
            TFI_QUAD_STEPS(LIST, TFI_QUAD_MACS_N)                                                  \
        }                                                                                          \
        LIST(TFI_PUT_QUADS, 0)                                                                     \
    }
/* Four vectors of quads turned: PUT(to, q, v) takes the vector of quad q of each. */
#define TFI_TURN(PUT, to, a, b, c, d)                                                              \
    {                                                                                              \
        TFI_X low1 = TFI_MIX(a, b, 0x44), low2 = TFI_MIX(c, d, 0x44);                              \
        TFI_X high1 = TFI_MIX(a, b, 0xEE), high2 = TFI_MIX(c, d, 0xEE);                            \
        PUT(to, 0, TFI_MIX(low1, low2, 0x88));                                                     \
        PUT(to, 1, TFI_MIX(low1, low2, 0xDD));                                                     \
        PUT(to, 2, TFI_MIX(high1, high2, 0x88));                                                   \
        PUT(to, 3, TFI_MIX(high1, high2, 0xDD));                                                   \
    }
#define TFI_ALL_FOUR(M) M(0) M(1) M(2) M(3)
#define TFI_ALL_EIGHT(M) TFI_ALL_FOUR(M) M(4) M(5) M(6) M(7)
#define TFI_EIGHT(r) const TFI_W *w##r = w + (r < rows ? (size_t)(r * apart) * w_stride : 0);
#define TFI_EIGHT_X(u) TFI_X x##u = TFI_X_QUADS(x + i + u * TFI_QUAD);
#define TFI_EIGHT_X_N(u) TFI_X x##u = TFI_X_QUADS_N(x + i + u * TFI_QUAD, stop - i - u * TFI_QUAD);
#define TFI_EIGHT_W_N(r) TFI_X v##r = TFI_W_LOAD_N(w##r + i, stop - i);
#define TFI_EIGHT_MAC(sums, u, v) sums = TFI_DOT(v, x##u, sums)
/* Asks for what follows in a stream through memory, at two distances. */
#define TFI_STREAM_AHEAD(p)                                                                        \
    (TFI_PREFETCH((p) + TFI_AHEAD_BYTES / 2, 3), TFI_PREFETCH((p) + 2 * TFI_AHEAD_BYTES, 2))
#define TFI_EIGHT_AHEAD(r) TFI_STREAM_AHEAD((const unsigned char *)(w##r + i));
/* Two quads each of four rows: halves of rows are put beside each other as they are loaded, which
 * leaves half of the shuffles to the one port that has them. */
#define TFI_EIGHT_HALF(sums, A, B, C, D, at, u, v)                                                 \
    {                                                                                              \
        TFI_X ab = TFI_W_JOIN(w##A + i + at, w##B + i + at);                                       \
        TFI_X cd = TFI_W_JOIN(w##C + i + at, w##D + i + at);                                       \
        sums = TFI_DOT(TFI_MIX(ab, cd, 0x88), x##u, sums);                                         \
        sums = TFI_DOT(TFI_MIX(ab, cd, 0xDD), x##v, sums);                                         \
    }
#define TFI_EIGHT_STEP                                                                             \
    TFI_ALL_FOUR(TFI_EIGHT_X)                                                                      \
    TFI_EIGHT_HALF(first, 0, 1, 2, 3, 0, 0, 1)                                                     \
    TFI_EIGHT_HALF(second, 4, 5, 6, 7, 0, 0, 1)                                                    \
    TFI_EIGHT_HALF(first, 0, 1, 2, 3, TFI_STEP / 2, 2, 3)                                          \
    TFI_EIGHT_HALF(second, 4, 5, 6, 7, TFI_STEP / 2, 2, 3)
#define TFI_EIGHT_LAST_STEP                                                                        \
    {                                                                                              \
        TFI_ALL_FOUR(TFI_EIGHT_X_N)                                                                \
        TFI_ALL_EIGHT(TFI_EIGHT_W_N)                                                               \
        TFI_TURN(TFI_EIGHT_MAC, first, v0, v1, v2, v3)                                             \
        TFI_TURN(TFI_EIGHT_MAC, second, v4, v5, v6, v7)                                            \
    }
/* Weights of a product of one token that are taken to be in a cache, at most. */
enum { TFI_CACHED_BYTES = 1 << 18 };
#define TFI_DEFINE_ONE(type)                                                                       \
    static TFI_TARGET TFI_TILE_INLINE void TFI_K(eight_##type)(                                    \
        const TFI_W *w, size_t w_stride, int rows, int apart, const TFI_X_ELEMENT *x, int k,       \
        float *out, int more) {                                                                    \
        TFI_V low = V_SET(0.0f), high = low;                                                       \
        float sums[8];                                                                             \
        TFI_ALL_EIGHT(TFI_EIGHT)                                                                   \
        for (int i = 0, stop; i == 0 || i < k; i = stop + !k) {                                    \
            TFI_V first = V_SET(0.0f), second = V_SET(0.0f);                                       \
            const int from = i;                                                                    \
            stop = tfi_min(k, i + TFI_CUT);                                                        \
            for (; i + TFI_STEP <= stop; i += TFI_STEP) {                                          \
                if (apart > 1 && i * (int)sizeof(TFI_W) % TFI_ALIGN == 0) {                        \
                    TFI_ALL_EIGHT(TFI_EIGHT_AHEAD)                                                 \
                }                                                                                  \
                TFI_EIGHT_STEP                                                                     \
            }                                                                                      \
            if (i < stop) TFI_EIGHT_LAST_STEP                                                      \
            first = tfi_quad_sum(first), second = tfi_quad_sum(second);                            \
            low = from ? V_ADD(low, first) : first, high = from ? V_ADD(high, second) : second;    \
        }                                                                                          \
        if (apart == 1 && rows == 8) {                                                             \
            tfi_put8(out, more, low, high);                                                        \
            return;                                                                                \
        }                                                                                          \
        tfi_put8(sums, 0, low, high);                                                              \
        for (int r = 0; r < rows; r++) {                                                           \
            float *to = out + (size_t)r * (size_t)apart;                                           \
            *to = more ? *to + sums[r] : sums[r];                                                  \
        }                                                                                          \
    }                                                                                              \
    static TFI_TARGET void TFI_K(one_##type)(const TFI_W *w, size_t w_stride, const tfi_part *p,   \
                                             const TFI_X_ELEMENT *x, float *out) {                 \
        const int groups = p->rows / 8, done = 8 * groups, rest = p->rows - done;                  \
        const int k = p->stop - p->from, more = p->from > 0;                                       \
        /* so little is in a cache: rows go in order, unasked for */                               \
        const int cached = (size_t)p->rows * w_stride * sizeof(TFI_W) <= TFI_CACHED_BYTES;         \
        const int step = cached ? 8 : 1, apart = cached ? 1 : groups;                              \
        x += p->from;                                                                              \
        for (int g = 0; g < groups; g++, w += (size_t)step * w_stride)                             \
            TFI_K(eight_##type)(w, w_stride, 8, apart, x, k, out + g * step, more);                \
        w += (size_t)(done - groups * step) * w_stride;                                            \
        if (rest) TFI_K(eight_##type)(w, w_stride, rest, 1, x, k, out + done, more);               \
    }
#define TFI_QUADS_CASE(type, T, LIST)                                                              \
    case T:                                                                                        \
        for (int g = 0; g < p->groups; g++, tile++)                                                \
            for (int i = p->from; i == p->from || i < p->stop; i += TFI_CUT) {                     \
                const TFI_W *row = w + (size_t)(g * p->step) * w_stride + (i - p->from);           \
                TFI_K(quads##T##_##type)                                                           \
                (row, (size_t)p->apart * w_stride, TFI_ROWS_OF_GROUP(p, g),                        \
                 x + (size_t)i * (TFI_PAD * T), tokens, tfi_min(TFI_CUT, p->stop - i),             \
                 out + g * p->step, p->out_stride, p->apart, i > 0, &p->soon, tile,                \
                 next && g < TFI_ASK * TFI_PANEL ? next + g * (wide / TFI_ASK) : x);               \
            }                                                                                      \
        break;
#define TFI_MATMUL16(type, part)                                                                   \
    TFI_SIZES4(TFI_DEFINE_QUADS, type)                                                             \
    TFI_DEFINE_ONE(type)                                                                           \
    TFI_DEFINE_PART(                                                                               \
        type, if (tokens == 1) TFI_K(one_##type)(w, w_stride, p, x, out);                          \
        else switch ((tokens + TFI_PAD - 1) / TFI_PAD){TFI_SIZES4(TFI_QUADS_CASE, type)})          \
    TFI_DEFINE_EXTRA_##part(type) TFI_DEFINE_DRIVER(type, part, none)
#define TFI_DEFINE_QUADS_PACK(type)                                                                \
    static TFI_TARGET void TFI_K(pack_##type)(void *panel, const float *const *rows, int n,        \
                                              int k) {                                             \
        TFI_X_ELEMENT *to = (TFI_X_ELEMENT *)panel;                                                \
        const int padded = n == 1 ? 1 : (n + TFI_PAD - 1) / TFI_PAD * TFI_PAD;                     \
        for (int i = 0; i < k; i += TFI_STEP, to += padded * TFI_STEP)                             \
            for (int t = 0; t < n; t += TFI_PAD) {                                                 \
                const int left = tfi_min(k - i, TFI_STEP);                                         \
                TFI_X a = TFI_X_ROW(rows[t] + i, left), b = TFI_QUADS_ROW(1),                      \
                      c = TFI_QUADS_ROW(2), d = TFI_QUADS_ROW(3);                                  \
                TFI_X_ELEMENT *at = to + t * TFI_QUAD;                                             \
                if (n == 1) TFI_X_STORE(to, a);                                                    \
                else TFI_TURN(TFI_PUT_TURNED, at, a, b, c, d)                                      \
            }                                                                                      \
    }
#define TFI_PUT_TURNED(to, q, v) TFI_X_STORE((to) + (q)*padded * TFI_QUAD, v)
#define TFI_QUADS_ROW(j) TFI_X_ROW(rows[tfi_min(t + j, n - 1)] + i, t + j < n ? left : 0)

#define TFI_DEFINE_EXTRA_part(type)
/* Weights of 16 bits meet many tokens as floats, made so once for all. */
#define TFI_DEFINE_EXTRA_wide(type)                                                                \
    static TFI_TARGET void TFI_K(wide_##type)(const TFI_W *w, size_t w_stride,                     \
                                              const tfi_part *p) {                                 \
        const int cols = p->stop - p->from, stride = (cols + TFI_LANES - 1) & -TFI_LANES;          \
        float *to = p->scratch;                                                                    \
        if (p->n < TFI_WIDE || !to) {                                                              \
            TFI_K(part_##type)(w, w_stride, p);                                                    \
            return;                                                                                \
        }                                                                                          \
        for (int r = 0; r < p->rows; r++, w += w_stride, to += stride) {                           \
            int i = 0;                                                                             \
            for (; i + TFI_LANES <= cols; i += TFI_LANES) V_STORE(to + i, TFI_W_LOAD(w + i));      \
            if (i < cols) V_STORE(to + i, TFI_W_LOAD_N(w + i, cols - i));                          \
        }                                                                                          \
        TFI_K(part_f32)(p->scratch, (size_t)stride, p);                                            \
    }
/* All rows and tokens of a product.  Each sum is taken over TFI_CUT columns at a time, so few that a
 * panel's part of them stays in first-level cache while rows pass, and added to the older ones in
 * out.  A block of weights that fits the second-level cache meets every panel before the next is
 * read: each weight comes from memory once.  Few tokens take all columns of a row, rows in four long
 * streams through memory, which prefetchers follow best. */
#define TFI_DEFINE_DRIVER(type, part, rest)                                                        \
    static TFI_TARGET void TFI_K(matmul_##type)(const void *weights, size_t w_stride, int rows,    \
                                                const void *panels, int n, int k, float *out,      \
                                                size_t out_stride, void *scratch) {                \
        const TFI_W *w = (const TFI_W *)weights;                                                   \
        const int groups = TFI_GROUPS(rows), block = TFI_CUT_ROWS / TFI_GROUP;                     \
        tfi_part p;                                                                                \
        memset(&p, 0, sizeof p);                                                                   \
        p.panels = panels, p.out = out, p.scratch = (float *)scratch, p.out_stride = out_stride;   \
        p.n = n, p.unit = (k + 31) / 32 * 32, p.ask = (int64_t)n * k > TFI_BLOCK_BYTES / 4;        \
        p.rows = rows, p.groups = p.apart = groups, p.step = 1, p.stop = k;                        \
        if (n <= TFI_STREAM) TFI_K(part_##type)(w, w_stride, &p);                                  \
        p.apart = 1, p.step = TFI_GROUP;                                                           \
        for (int first = 0; n > TFI_STREAM && first < groups; first += block) {                    \
            const int end = tfi_min(groups, first + block);                                        \
            const int after = tfi_max(0, rows - TFI_GROUP * end);                                  \
            p.groups = end - first, p.out = out + TFI_GROUP * first;                               \
            p.rows = tfi_min(rows - TFI_GROUP * first, TFI_GROUP * p.groups);                      \
            for (p.from = 0; p.from == 0 || p.from < k; p.from = p.stop + !k) { /* once if !k */   \
                const int below = k <= p.from + TFI_CUT;                                           \
                const TFI_W *row = w + (size_t)(TFI_GROUP * first) * w_stride;                     \
                p.stop = tfi_min(k, p.from + TFI_CUT);                                             \
                p.soon =                                                                           \
                    tfi_plan_soon(below ? w + (size_t)(TFI_GROUP * end) * w_stride : row + p.stop, \
                                  sizeof(TFI_W), w_stride, tfi_min(k, TFI_CUT),                    \
                                  below ? tfi_min(after, TFI_CUT_ROWS) : p.rows, TFI_STEP,         \
                                  TFI_ASKING(n) * p.groups);                                       \
                TFI_K(part##_##type)(row + p.from, w_stride, &p);                                  \
            }                                                                                      \
        }                                                                                          \
        TFI_REST_##rest(type)                                                                      \
    }
#define TFI_REST_none(type)
#define TFI_REST_singles(type)                                                                     \
    TFI_K(singles_##type)                                                                          \
    (w, w_stride, 4 * groups, rows, (const TFI_X_ELEMENT *)panels, n, k, out, out_stride);
/* The same without tiles. */
#define TFI_MATMUL1(type, part)                                                                    \
    TFI_DEFINE_SINGLES(type)                                                                       \
    static void TFI_K(matmul_##type)(const void *weights, size_t w_stride, int rows,               \
                                     const void *panels, int n, int k, float *out,                 \
                                     size_t out_stride, void *scratch) {                           \
        (void)scratch;                                                                             \
        TFI_K(singles_##type)                                                                      \
        ((const TFI_W *)weights, w_stride, 0, rows, (const TFI_X_ELEMENT *)panels, n, k, out,      \
         out_stride);                                                                              \
    }
#define TFI_MATMUL3(type, part) TFI_DEFINE_TILES(type, part, TFI_SIZES3)
#define TFI_MATMUL6(type, part) TFI_DEFINE_TILES(type, part, TFI_SIZES6)
#define TFI_DEFINE_TILES(type, part, SIZES)                                                        \
    TFI_DEFINE_SINGLES(type)                                                                       \
    SIZES(TFI_DEFINE_TILE, type)                                                                   \
    TFI_DEFINE_PART(type, switch (tokens){SIZES(TFI_TILE_CASE, type)})                             \
    TFI_DEFINE_EXTRA_##part(type) TFI_DEFINE_DRIVER(type, part, singles)
#define TFI_MATMUL_JOIN(tile, type, part) TFI_MATMUL##tile(type, part)
#define TFI_MATMUL_OF(tile, type, part) TFI_MATMUL_JOIN(tile, type, part) /* tile: its number */
/* part: `part` as the weights are, `wide` widened if there are many tokens. */
#define TFI_DEFINE_MATMUL(type, part) TFI_MATMUL_OF(TFI_PANEL, type, part)
#endif

#define TFI_X TFI_V
#define TFI_X_ELEMENT float
#define TFI_X_LOAD(p) V_LOAD(p)
#define TFI_X_LOAD_N(p, n) V_LOAD_N(p, n)
#define TFI_STEP TFI_LANES
#define TFI_DOT(w, x, sum) V_FMA(w, x, sum)
#define TFI_QUAD 4
#define TFI_MIX(a, b, which) V_MIX(a, b, which)
#define TFI_X_QUADS(p) V_QUADS(p)
#define TFI_X_QUADS_N(p, n) V_QUADS_N(p, n)
#define TFI_X_ROW(p, n) V_LOAD_N(p, n)
#define TFI_X_STORE(p, v) V_STORE(p, v)
#ifdef TFI_QUADS
TFI_DEFINE_QUADS_PACK(f32)
#endif

#define TFI_W float
#define TFI_W_LOAD(p) V_LOAD(p)
#define TFI_W_LOAD_N(p, n) V_LOAD_N(p, n)
#define TFI_W_QUADS(p) V_QUADS(p)
#define TFI_W_QUADS_N(p, n) V_QUADS_N(p, n)
#define TFI_W_JOIN(p, q) V_JOIN(p, q)
TFI_DEFINE_MATMUL(f32, part)
#undef TFI_W_QUADS
#undef TFI_W_QUADS_N
#undef TFI_W_JOIN
#undef TFI_W
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N

#define TFI_W uint16_t
#define TFI_W_LOAD(p) V_FROM_F16(p)
#define TFI_W_LOAD_N(p, n) V_FROM_F16_N(p, n)
#define TFI_W_QUADS(p) V_QUADS_F16(TFI_HALVES4(p))
#define TFI_W_QUADS_N(p, n) V_QUADS_F16(TFI_HALVES4_N(p, n))
#define TFI_W_JOIN(p, q) V_JOIN_F16(p, q)
TFI_DEFINE_MATMUL(f16, wide)
#undef TFI_W_QUADS
#undef TFI_W_QUADS_N
#undef TFI_W_JOIN
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N

#define TFI_W_LOAD(p) V_FROM_BF16(p)
#define TFI_W_LOAD_N(p, n) V_FROM_BF16_N(p, n)
#define TFI_W_QUADS(p) V_QUADS_BF16(TFI_HALVES4(p))
#define TFI_W_QUADS_N(p, n) V_QUADS_BF16(TFI_HALVES4_N(p, n))
#define TFI_W_JOIN(p, q) V_JOIN_BF16(p, q)
TFI_DEFINE_MATMUL(bf16, wide)
#undef TFI_W_QUADS
#undef TFI_W_QUADS_N
#undef TFI_W_JOIN
#undef TFI_QUAD
#undef TFI_MIX
#undef TFI_X_QUADS
#undef TFI_X_QUADS_N
#undef TFI_X_ROW
#undef TFI_X_STORE
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N
#undef TFI_X
#undef TFI_X_ELEMENT
#undef TFI_X_LOAD
#undef TFI_X_LOAD_N
#undef TFI_STEP
#undef TFI_DOT
#undef TFI_W

#ifndef TFI_QUADS
static TFI_TARGET void TFI_K(pack_f32)(void *panel, const float *const *rows, int n, int k) {
    float *to = (float *)panel;
    for (int i = 0; i < k; i += TFI_LANES)
        for (int t = 0; t < n; t++, to += TFI_LANES)
            V_STORE(to, i + TFI_LANES <= k ? V_LOAD(rows[t] + i) : V_LOAD_N(rows[t] + i, k - i));
}
#endif

/* ---- weighted sums of values ---- */

#ifndef TFI_VALUE_LISTS
#define TFI_VALUE_LISTS
#define TFI_LOAD_SUM(r, c) TFI_V a##r##c = V_LOAD(out + (size_t)r * out_stride + c * TFI_LANES);
#define TFI_LOAD_SUM_N(r, c) TFI_V a##r##c = V_LOAD_N(out + (size_t)r * out_stride, width);
#define TFI_LOAD_VALUE(r, c) TFI_V v##c = TFI_W_LOAD(v + c * TFI_LANES);
#define TFI_ASK_VALUE(r, c)                                                                        \
    TFI_PREFETCH((const unsigned char *)(v + c * TFI_LANES) + 8 * TFI_AHEAD_BYTES, 2);
#define TFI_ADD_VALUE(r, c) a##r##c = V_FMA(p##r, v##c, a##r##c);
#define TFI_STORE_SUM(r, c) V_STORE(out + (size_t)r * out_stride + c * TFI_LANES, a##r##c);
#define TFI_STORE_SUM_N(r, c) V_STORE_N(out + (size_t)r * out_stride, a##r##c, width);
#define TFI_LOAD_P(r) TFI_V p##r = V_SET(p[(size_t)r * p_stride + (size_t)j]);

/* Adds all keys to C vectors of 4 queries (or 1), held in registers; C = 0: to `width` floats, less
 * than a vector.  The first queries `ask` for what follows in the cache: softmax between two blocks
 * leaves prefetchers behind. */
#define TFI_DEFINE_VALUES(name, ROWS, LIST, LOAD_SUM, LOAD_V, STORE_SUM, PS)                       \
    static TFI_TARGET TFI_TILE_INLINE void TFI_K(name)(                                            \
        float *out, size_t out_stride, const float *p, size_t p_stride, const TFI_W *v,            \
        size_t v_stride, int keys, int width, int ask) {                                           \
        (void)width, (void)out_stride, (void)p_stride;                                             \
        ROWS(LIST, LOAD_SUM)                                                                       \
        for (int j = 0; j < keys; j++, v += v_stride) {                                            \
            if (ask) {                                                                             \
                LIST(TFI_ASK_VALUE, 0)                                                             \
            }                                                                                      \
            LIST(LOAD_V, 0)                                                                        \
            PS ROWS(LIST, TFI_ADD_VALUE)                                                           \
        }                                                                                          \
        ROWS(LIST, STORE_SUM)                                                                      \
    }
#define TFI_LOAD_VALUE_N(r, c) TFI_V v##c = TFI_W_LOAD_N(v, width);
#define TFI_LOAD_P1 TFI_LOAD_P(0)
#define TFI_LOAD_P4 TFI_LOAD_P(0) TFI_LOAD_P(1) TFI_LOAD_P(2) TFI_LOAD_P(3)

#define TFI_DEFINE_VALUES_OF(type, C, LIST)                                                        \
    TFI_DEFINE_VALUES(values4_##C##_##type, TFI_ROW_LIST, LIST, TFI_LOAD_SUM, TFI_LOAD_VALUE,      \
                      TFI_STORE_SUM, TFI_ROW_P)                                                    \
    TFI_DEFINE_VALUES(values1_##C##_##type, TFI_R1, LIST, TFI_LOAD_SUM, TFI_LOAD_VALUE,            \
                      TFI_STORE_SUM, TFI_LOAD_P1)
#define TFI_VALUES_CASE(type, C, LIST)                                                             \
    case C:                                                                                        \
        if (four) TFI_K(values4_##C##_##type)                                                      \
        (to, out_stride, weights, p_stride, v, v_stride, keys, width, r == 0);                     \
        else TFI_K(values1_##C##_##type)(to, 0, weights, 0, v, v_stride, keys, width, r == 0);     \
        break;
#define TFI_DEFINE_ACCUMULATE(type)                                                                \
    TFI_CHUNK_SIZES(TFI_DEFINE_VALUES_OF, type)                                                    \
    TFI_DEFINE_VALUES(values4_0_##type, TFI_ROW_LIST, TFI_T1, TFI_LOAD_SUM_N, TFI_LOAD_VALUE_N,    \
                      TFI_STORE_SUM_N, TFI_ROW_P)                                                  \
    TFI_DEFINE_VALUES(values1_0_##type, TFI_R1, TFI_T1, TFI_LOAD_SUM_N, TFI_LOAD_VALUE_N,          \
                      TFI_STORE_SUM_N, TFI_LOAD_P1)                                                \
    static TFI_TARGET void TFI_K(accumulate_##type)(                                               \
        float *out, size_t out_stride, const float *p, size_t p_stride, const void *values,        \
        size_t v_stride, int rows, int keys, int dim) {                                            \
        for (int r = 0; r < rows;) {                                                               \
            int four = TFI_TILE_ROWS == 4 && r + 4 <= rows;                                        \
            const float *weights = p + (size_t)r * p_stride;                                       \
            for (int d = 0, width; d < dim; d += width) {                                          \
                float *to = out + (size_t)r * out_stride + d;                                      \
                const TFI_W *v = (const TFI_W *)values + d;                                        \
                const int vectors = tfi_min(TFI_CHUNKS, (dim - d) / TFI_LANES);                    \
                width = vectors ? vectors * TFI_LANES : dim - d;                                   \
                switch (vectors) {                                                                 \
                    TFI_CHUNK_SIZES(TFI_VALUES_CASE, type) TFI_VALUES_CASE(type, 0, TFI_T1)        \
                }                                                                                  \
            }                                                                                      \
            r += four ? 4 : 1;                                                                     \
        }                                                                                          \
    }
#endif
#if TFI_CHUNKS == 4
#define TFI_CHUNK_SIZES TFI_SIZES4
#elif TFI_CHUNKS == 2
#define TFI_CHUNK_SIZES TFI_SIZES2
#else
#define TFI_CHUNK_SIZES TFI_SIZES1
#endif
#if TFI_TILE_ROWS == 4
#define TFI_ROW_LIST TFI_R4
#define TFI_ROW_P TFI_LOAD_P4
#else
#define TFI_ROW_LIST TFI_R1
#define TFI_ROW_P TFI_LOAD_P1
#endif
#define TFI_W float
#define TFI_W_LOAD(p) V_LOAD(p)
#define TFI_W_LOAD_N(p, n) V_LOAD_N(p, n)
TFI_DEFINE_ACCUMULATE(f32)
#undef TFI_W
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N
#define TFI_W uint16_t
#define TFI_W_LOAD(p) V_FROM_F16(p)
#define TFI_W_LOAD_N(p, n) V_FROM_F16_N(p, n)
TFI_DEFINE_ACCUMULATE(f16)
#undef TFI_W
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N

#endif /* TFI_FLOATS */

/* ---- BF16 weights times activations rounded to BF16 ---- */
#ifdef TFI_BF16_DOT
#define TFI_X __m512i
#define TFI_X_ELEMENT uint16_t
#define TFI_X_LOAD(p) V_LOAD_BF16_PAIRS(p)
#define TFI_STEP (2 * TFI_LANES)
#define TFI_DOT(w, x, sum) tfi_dot_bf16(w, x, sum)
#define TFI_W uint16_t
#define TFI_W_LOAD(p) V_LOAD_BF16_PAIRS(p)
#define TFI_W_LOAD_N(p, n) V_LOAD_BF16_PAIRS_N(p, n)
#define TFI_QUAD 8
#define TFI_MIX(a, b, which) V_MIX_PAIRS(a, b, which)
#define TFI_X_QUADS(p) V_QUADS_BF16_PAIRS(p)
#define TFI_X_QUADS_N(p, n) V_QUADS_BF16_PAIRS_N(p, n)
#define TFI_X_ROW(p, n) tfi_bf16_pairs(p, n)
#define TFI_X_STORE(p, v) D_STORE(p, v)
#define TFI_W_QUADS(p) V_QUADS_BF16_PAIRS(p)
#define TFI_W_QUADS_N(p, n) V_QUADS_BF16_PAIRS_N(p, n)
#define TFI_W_JOIN(p, q) TFI_JOINED(p, q)
TFI_DEFINE_QUADS_PACK(bf16)
TFI_DEFINE_MATMUL(bf16_dot, part)
#undef TFI_QUAD
#undef TFI_MIX
#undef TFI_X_QUADS
#undef TFI_X_QUADS_N
#undef TFI_X_ROW
#undef TFI_X_STORE
#undef TFI_W_QUADS
#undef TFI_W_QUADS_N
#undef TFI_W_JOIN
#undef TFI_W
#undef TFI_W_LOAD
#undef TFI_W_LOAD_N
#undef TFI_X
#undef TFI_X_ELEMENT
#undef TFI_X_LOAD
#undef TFI_STEP
#undef TFI_DOT
#endif

/* ---- quantised blocks times 8-bit activations ----
 *
 * A unit is TFI_LANES blocks of 32 columns.  Both sides are laid out so that lane l of a vector
 * belongs to one block throughout: vector j = 0 .. 7 of a unit holds columns 4 j .. 4 j + 3 of each
 * block, and 4 bytes times 4 bytes add into the block's own 32-bit lane.  So the integers are exact,
 * and a dot product is, lane by lane,
 *
 *     sum = fma(float(integers) * weight scale, activation scale, sum)    unit after unit,
 *
 * whatever the tile.  Lane 4 s + i holds block i * TFI_LANES / 4 + s of the unit: that order lets
 * a vector of 16-byte pieces be transposed within its pieces (D_TRANSPOSE).
 *
 *   weights      q[8]  scale[2]  offset[2]           of both halves of the blocks; per row
 *   activations  q[8]  scale  start  sum  start[2]  sum[2]     each times the tokens of the panel
 *
 * sum is scale times the integers' sum, for weights with an offset: of the block, of its halves.
 * start is where the integer sums begin: instructions that take unsigned times signed bytes get
 * signed weights plus 128, and start undoes it.
 */
#ifndef TFI_BLOCK_LISTS
#define TFI_BLOCK_LISTS
enum { TFI_BLOCK_CUT = 2048 }; /* columns */
/* Halvings that make 128 the bias. */
static TFI_FORCE_INLINE int tfi_bias_shift(int bias) {
    int shift = 0;
    while (bias && bias << shift < 128) shift++;
    return shift;
}
/* A scale in the 11 bits of an F16, ties to even, and in all of float's range: below and above F16's,
 * llama.cpp's scales, otherwise the same, are less exact, zero or infinite. */
static TFI_FORCE_INLINE float tfi_short_scale(float scale) {
    uint32_t bits = tfi_float_to_bits(scale);
    return tfi_bits_to_float((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}
/* The largest integer of a type's weights once they are positive, or a little more; of less than 128. */
static TFI_UNUSED int tfi_most_code(int dtype) {
    if (dtype == TRANSFORMER_Q6_K) return 63;
    return dtype == TRANSFORMER_Q5_0 || dtype == TRANSFORMER_Q5_1 || dtype == TRANSFORMER_Q5_K ||
                   dtype == TRANSFORMER_MXFP4
               ? 31
               : 15;
}
#define TFI_R2(T, M) T(M, 0) T(M, 1)
#define TFI_BLOCK_ROW_POINTER(r, t) const unsigned char *w##r = p->w + r * p->w_row;
#define TFI_BLOCK_START(r, t)                                                                      \
    TFI_I a##r##t = D_ZERO;                                                                        \
    if (kind == TFI_BIASED)                                                                        \
        a##r##t = D_RIGHT32(D_LOAD(x + (size_t)(start + g) * step + t * TFI_VECTOR), p->shift);
#define TFI_BLOCK_X(r, t)                                                                          \
    x##t = D_LOAD(xj + t * TFI_VECTOR);                                                            \
    D_HOLD(x##t)
#define TFI_BLOCK_DECLARE(r, t) TFI_I x##t;
#define TFI_BLOCK_MAC(r, t)                                                                        \
    a##r##t = D_DOT(kind == TFI_SIGNED, a##r##t, q, x##t);                                         \
    D_HOLD(a##r##t)
#if defined(__GNUC__) && !defined(__clang__) /* gcc 12 keeps tokens on the stack in a loop */
#define TFI_UNROLL TFI_PRAGMA(GCC unroll(TFI_HELD ? 8 : 1))
#define TFI_UNROLL_ALL TFI_PRAGMA(GCC unroll(16)) /* as at -O3 */
#define TFI_PRAGMA(text) TFI_PRAGMA_TEXT(text)
#define TFI_PRAGMA_TEXT(text) _Pragma(#text)
#else
#define TFI_UNROLL
#define TFI_UNROLL_ALL
#endif
#define TFI_BLOCK_ROW_MACS(LIST, MAC, r)                                                           \
    q = D_LOAD(w##r + (size_t)j * TFI_VECTOR);                                                     \
    LIST(MAC, r)
#define TFI_BLOCK_NO_PAIRS(r, t) TFI_I b##r##t = D_ZERO;
#define TFI_BLOCK_PAIRS(r, t) b##r##t = D_PAIRS(b##r##t, q, x##t);
#define TFI_BLOCK_WIDEN(r, t) a##r##t = D_WIDEN(a##r##t, b##r##t);
#define TFI_BLOCK_FLOATS(p, i) V_LOAD((const float *)(const void *)((p) + (size_t)(i)*TFI_VECTOR))
/* 4 rows: their sums stay in registers, which need as many as the integers do.  2: in memory. */
#define TFI_HELD (TFI_BLOCK_ROWS == 4)
#define TFI_BLOCK_AT(r, t) (p->sums + (size_t)(r * p->tokens + t) * TFI_LANES)
#define TFI_BLOCK_SUM(r, t)                                                                        \
    TFI_V s##r##t = TFI_HELD && p->more ? V_LOAD(TFI_BLOCK_AT(r, t)) : V_SET(0.0f);                \
    if (!TFI_HELD && !p->more) V_STORE(TFI_BLOCK_AT(r, t), s##r##t);
#define TFI_BLOCK_KEEP(r, t) V_STORE(TFI_BLOCK_AT(r, t), s##r##t);
#define TFI_BLOCK_OUT(r, t)                                                                        \
    V_STORE_SUM4(p->out + (size_t)t * p->out_stride, 0, s0##t, s1##t, s2##t, s3##t);
#define TFI_BLOCK_FOLD(r, t)                                                                       \
    {                                                                                              \
        TFI_V v = V_MUL(V_FROM_INT(a##r##t), TFI_BLOCK_FLOATS(w##r, 8 + g));                       \
        if (!TFI_HELD) s##r##t = V_LOAD(TFI_BLOCK_AT(r, t));                                       \
        s##r##t = V_FMA(v, TFI_BLOCK_FLOATS(x + 8 * step, t), s##r##t);                            \
        if (kind == TFI_OFFSET)                                                                    \
            s##r##t = V_FMA(TFI_BLOCK_FLOATS(w##r, 10 + g),                                        \
                            TFI_BLOCK_FLOATS(x + (size_t)(total + g) * step, t), s##r##t);         \
        if (!TFI_HELD) V_STORE(TFI_BLOCK_AT(r, t), s##r##t);                                       \
    }
/* A part of a product: TFI_BLOCK_ROWS rows times some tokens of a panel, over some units. */
typedef struct {
    const unsigned char *w, *x;
    size_t w_row;      /* bytes */
    int tokens, units; /* of the whole panel; of the part */
    float *sums;       /* lanes, per row and token of the panel */
    int more;          /* the sums go on */
    int shift;         /* from 128 times the sum of a token's integers to the bias times it */
    float *out;        /* where the sums' sums go if they end here, or NULL */
    size_t out_stride;
} tfi_block_part;
/* How a tile sees the integers of the weights: as they are; all made positive by a bias, which times
 * the sum of the token's is subtracted at the start; positive with an offset of its own scale. */
enum { TFI_SIGNED, TFI_BIASED, TFI_OFFSET };
#define TFI_HAS_SIGNED_CODES(f) ((f)->bias == 128 && D_BIAS == 0)
/* T of the panel's tokens.  short_sums > 0: so many products of pairs fit in 16 bits together. */
#define TFI_DEFINE_BLOCK_TILE(T, LIST, ROWS, ROW_MACS, DONE)                                       \
    static TFI_TARGET TFI_INLINE void TFI_K(block_tile##T)(                                        \
        const tfi_block_part *p, const int kind, const int groups, const int short_sums) {         \
        const int start = groups == 1 ? 9 : 11, total = groups == 1 ? 10 : 13;                     \
        const int steps = short_sums ? short_sums : 8 / groups;                                    \
        const size_t step = (size_t)p->tokens * TFI_VECTOR;                                        \
        const unsigned char *x = p->x;                                                             \
        (void)start;                                                                               \
        ROWS(TFI_T1, TFI_BLOCK_ROW_POINTER)                                                        \
        ROWS(LIST, TFI_BLOCK_SUM)                                                                  \
        for (int u = 0; u < p->units; u++, x += TFI_UNIT_X * step) {                               \
            const unsigned char *xj = x;                                                           \
            TFI_UNROLL                                                                             \
            for (int g = 0; g < groups; g++) {                                                     \
                ROWS(LIST, TFI_BLOCK_START)                                                        \
                for (int j = g * 8 / groups; j < (g + 1) * 8 / groups;) {                          \
                    const int end = j + steps;                                                     \
                    ROWS(LIST, TFI_BLOCK_NO_PAIRS)                                                 \
                    TFI_UNROLL                                                                     \
                    for (; j < end; j++, xj += step) {                                             \
                        TFI_I q;                                                                   \
                        LIST(TFI_BLOCK_DECLARE, 0)                                                 \
                        LIST(TFI_BLOCK_X, 0)                                                       \
                        if (short_sums) {                                                          \
                            ROW_MACS(LIST, TFI_BLOCK_PAIRS)                                        \
                        } else {                                                                   \
                            ROW_MACS(LIST, TFI_BLOCK_MAC)                                          \
                        }                                                                          \
                    }                                                                              \
                    if (short_sums) {                                                              \
                        ROWS(LIST, TFI_BLOCK_WIDEN)                                                \
                    }                                                                              \
                }                                                                                  \
                ROWS(LIST, TFI_BLOCK_FOLD)                                                         \
            }                                                                                      \
            ROWS(TFI_T1, TFI_BLOCK_NEXT)                                                           \
        }                                                                                          \
        DONE(LIST)                                                                                 \
    }                                                                                              \
    static TFI_TARGET TFI_NOINLINE void TFI_K(block_tiles##T)(const tfi_block_part *p,             \
                                                              const tfi_format *f) {               \
        const int most = tfi_most_code(f->dtype);                                                  \
        if (TFI_HAS_SIGNED_CODES(f)) TFI_K(block_tile##T)(p, TFI_SIGNED, 1, 0);                    \
        else if (!D_SHORT_SUMS && f->groups == 1) TFI_BLOCK_KINDS(T, 1, 0)                         \
        else if (!D_SHORT_SUMS) TFI_BLOCK_KINDS(T, 2, 0)                                           \
        else if (f->groups == 1 && most < 16) TFI_BLOCK_KINDS(T, 1, 8)                             \
        else if (f->groups == 1) TFI_BLOCK_KINDS(T, 1, 4)                                          \
        else if (most < 32) TFI_BLOCK_KINDS(T, 2, 4)                                               \
        else TFI_K(block_tile##T)(p, TFI_BIASED, 2, 2);                                            \
    }
#define TFI_BLOCK_KINDS(T, groups, short_sums)                                                     \
    {                                                                                              \
        if (f->bias) TFI_K(block_tile##T)(p, TFI_BIASED, groups, short_sums);                      \
        else TFI_K(block_tile##T)(p, TFI_OFFSET, groups, short_sums);                              \
    }
#define TFI_BLOCK_NEXT(r, t) w##r += (size_t)TFI_UNIT_W * TFI_VECTOR;
#define TFI_BLOCK_MACS2(LIST, MAC)                                                                 \
    TFI_BLOCK_ROW_MACS(LIST, MAC, 0)                                                               \
    TFI_BLOCK_ROW_MACS(LIST, MAC, 1)
#define TFI_BLOCK_MACS4(LIST, MAC)                                                                 \
    TFI_BLOCK_MACS2(LIST, MAC)                                                                     \
    TFI_BLOCK_ROW_MACS(LIST, MAC, 2)                                                               \
    TFI_BLOCK_ROW_MACS(LIST, MAC, 3)
#define TFI_BLOCK_DONE2(LIST)
#define TFI_BLOCK_DONE4(LIST)                                                                      \
    if (p->out) {                                                                                  \
        LIST(TFI_BLOCK_OUT, 0)                                                                     \
    } else {                                                                                       \
        TFI_R4(LIST, TFI_BLOCK_KEEP)                                                               \
    }
#endif

#ifdef TFI_BLOCKS
#define TFI_VECTOR (4 * TFI_LANES) /* bytes */
#ifndef D_HOLD
#define D_HOLD(v)
#endif
#ifdef D_PAIRS
#define D_SHORT_SUMS 1
#else
#define D_SHORT_SUMS 0
#define D_PAIRS(sum, w, x) sum
#define D_WIDEN(sum, pairs) sum
#endif
#if TFI_BLOCK_ROWS == 4
#define TFI_BLOCK_TILE(T)                                                                          \
    TFI_DEFINE_BLOCK_TILE(T, TFI_T##T, TFI_R4, TFI_BLOCK_MACS4, TFI_BLOCK_DONE4)
#else
#define TFI_BLOCK_TILE(T)                                                                          \
    TFI_DEFINE_BLOCK_TILE(T, TFI_T##T, TFI_R2, TFI_BLOCK_MACS2, TFI_BLOCK_DONE2)
#endif
TFI_BLOCK_TILE(1)
TFI_BLOCK_TILE(2)
TFI_BLOCK_TILE(3)
#undef TFI_BLOCK_TILE

/* Up to 6 tokens, 3 and 3, 3 and 2, or 2 and 2: the sums and the integers of more would not both
 * stay in registers, and to store them after every unit costs as much as a quarter of its products. */
static TFI_TARGET TFI_INLINE void TFI_K(block_tiles)(tfi_block_part p, const tfi_format *f) {
    for (int t = 0, end = p.tokens; t < end;) {
        const int count = end - t == 4 ? 2 : tfi_min(end - t, 3);
        (count == 1   ? TFI_K(block_tiles1)
         : count == 2 ? TFI_K(block_tiles2)
                      : TFI_K(block_tiles3))(&p, f);
        t += count, p.x += count * TFI_VECTOR, p.sums += count * TFI_LANES;
        if (p.out) p.out += (size_t)count * p.out_stride;
    }
}

/* The lane of block b of a unit. */
static TFI_TARGET TFI_INLINE int TFI_K(block_lane)(int b) {
    return 4 * (b % (TFI_LANES / 4)) + b / (TFI_LANES / 4);
}

/* to[0 .. 3 step] = vectors whose pieces of 16 bytes are 4 x 4 words, transposed: from the order of
 * the data to that of panels, or back. */
static TFI_TARGET TFI_INLINE void TFI_K(transpose)(TFI_I a, TFI_I b, TFI_I c, TFI_I d,
                                                   unsigned char *to, size_t step) {
    TFI_I ab = D_LOW32(a, b), cd = D_LOW32(c, d);
    D_STORE(to, D_LOW64(ab, cd));
    D_STORE(to + step, D_HIGH64(ab, cd));
    ab = D_HIGH32(a, b), cd = D_HIGH32(c, d);
    D_STORE(to + 2 * step, D_LOW64(ab, cd));
    D_STORE(to + 3 * step, D_HIGH64(ab, cd));
}

/* Lanes 4 s + i = 0 .. 3 of the result are the sums of lanes 4 s .. 4 s + 3 of a, b, c, d. */
static TFI_TARGET TFI_INLINE TFI_I TFI_K(gather_sums)(TFI_I a, TFI_I b, TFI_I c, TFI_I d) {
    TFI_I ab = D_ADD32(D_LOW32(a, b), D_HIGH32(a, b)), cd = D_ADD32(D_LOW32(c, d), D_HIGH32(c, d));
    return D_ADD32(D_LOW64(ab, cd), D_HIGH64(ab, cd));
}

/* The sums of 4 vectors of integers, lane by lane. */
static TFI_TARGET TFI_INLINE TFI_I TFI_K(sum_bytes)(const unsigned char *q) {
    const TFI_I one = D_SPLAT(1);
    return TFI_K(gather_sums)(D_DOT(0, D_ZERO, one, D_LOAD(q)),
                              D_DOT(0, D_ZERO, one, D_LOAD(q + TFI_VECTOR)),
                              D_DOT(0, D_ZERO, one, D_LOAD(q + 2 * TFI_VECTOR)),
                              D_DOT(0, D_ZERO, one, D_LOAD(q + 3 * TFI_VECTOR)));
}
/* A unit of k numbers to vectors that are `step` bytes apart. */
static TFI_TARGET TFI_INLINE void TFI_K(pack_unit)(const float *x, int k, unsigned char *to,
                                                   size_t step) {
    unsigned char q[8 * TFI_VECTOR];
    float sizes[TFI_LANES], factors[TFI_LANES];
    TFI_V odd = V_SET(0.0f), zero = odd;
    if (k < 32 * TFI_LANES) memset(q, 0, sizeof q), memset(sizes, 0, sizeof sizes);
    for (int b = 0; 32 * b < k; b++) {
        TFI_V most = zero;
        for (int i = 32 * b; i < 32 * (b + 1); i += TFI_LANES) {
            TFI_V v = V_LOAD(x + i);
            most = V_MAX(most, V_ABS(v));
            odd = V_FMA(v, zero, odd); /* a NaN or an infinity makes it, and the scales, NaN */
        }
        sizes[TFI_K(block_lane)(b)] = V_HMAX(most);
    }
    TFI_V size = V_LOAD(sizes), factor = V_DIV(V_SET(127.0f), size);
    factor = V_IF_LESS(V_SET(1e-30f), size, factor, zero);
    TFI_V scale = V_IF_LESS(zero, factor, V_DIV(size, V_SET(127.0f)), zero);
    V_STORE(factors, factor);
    V_STORE(sizes, scale);
    for (int i = 0; i < TFI_LANES; i++) sizes[i] = tfi_short_scale(sizes[i]);
    scale = V_ADD(V_LOAD(sizes), V_SET(V_SUM(odd)));
    for (int b = 0; 32 * b < k; b++) {
        unsigned char *piece = q + b / (TFI_LANES / 4) * TFI_VECTOR + b % (TFI_LANES / 4) * 16;
        TFI_V times = V_SET(factors[TFI_K(block_lane)(b)]);
        for (int i = 0; i < 32; i += TFI_LANES)
            D_STORE_BYTES((int8_t *)piece + i / 16 * 4 * TFI_VECTOR + i % 16,
                          V_MUL(V_LOAD(x + 32 * b + i), times));
    }
    for (int h = 0; h < 2; h++) {
        const unsigned char *half = q + 4 * h * TFI_VECTOR;
        TFI_I a = D_LOAD(half), b = D_LOAD(half + TFI_VECTOR), c = D_LOAD(half + 2 * TFI_VECTOR),
              d = D_LOAD(half + 3 * TFI_VECTOR);
        if (step == TFI_VECTOR) memcpy(to + 4 * h * TFI_VECTOR, half, 4 * TFI_VECTOR);
        else TFI_K(transpose)(a, b, c, d, to + (size_t)(4 * h) * step, step);
    }
    TFI_I low = TFI_K(sum_bytes)(q), high = TFI_K(sum_bytes)(q + 4 * TFI_VECTOR);
    TFI_I low_start = low, high_start = high;
    for (int i = 0; i < 7; i++)
        low_start = D_ADD32(low_start, low_start), high_start = D_ADD32(high_start, high_start);
    low_start = D_SUB32(D_ZERO, low_start), high_start = D_SUB32(D_ZERO, high_start);
    D_STORE(to + 9 * step, D_ADD32(low_start, high_start));
    D_STORE(to + 11 * step, low_start);
    D_STORE(to + 12 * step, high_start);
    V_STORE((float *)(void *)(to + 8 * step), scale);
    V_STORE((float *)(void *)(to + 10 * step), V_MUL(scale, V_FROM_INT(D_ADD32(low, high))));
    V_STORE((float *)(void *)(to + 13 * step), V_MUL(scale, V_FROM_INT(low)));
    V_STORE((float *)(void *)(to + 14 * step), V_MUL(scale, V_FROM_INT(high)));
}

static TFI_TARGET void TFI_K(pack_int8)(void *panel, const float *const *rows, int n, int k) {
    unsigned char *to = (unsigned char *)panel;
    const int unit = 32 * TFI_LANES;
    for (int first = 0; first < k; first += unit, to += (size_t)TFI_UNIT_X * (size_t)n * TFI_VECTOR)
        for (int t = 0; t < n; t++) TFI_K(pack_unit)
    (rows[t] + first, tfi_min(unit, k - first), to + (size_t)t * TFI_VECTOR,
     (size_t)n * TFI_VECTOR);
}

/* The integers plus `up` of half h of the blocks of step i; of TQ1_0, from its digits.  AT and SHIFT
 * say where the bits of piece s are. */
#ifndef TFI_FETCH_LISTS
#define TFI_FETCH_LISTS
#define TFI_PIECE(s) (first + i * (TFI_LANES / 4) + (s)) /* its block of 32 columns */
#define TFI_PIECE_DATA(s) (src + TFI_PIECE(s) / p.per * p.size)
#define TFI_AT_LOW(s) (TFI_PIECE_DATA(s) + tfi_byte_of(&p.low, TFI_PIECE(s) % p.per, h))
#define TFI_SHIFT_LOW(s) tfi_bit_of(&p.low, TFI_PIECE(s) % p.per, h)
#define TFI_AT_HIGH(s) (TFI_PIECE_DATA(s) + tfi_byte_of(&p.high, TFI_PIECE(s) % p.per, h))
#define TFI_SHIFT_HIGH(s) tfi_bit_of(&p.high, TFI_PIECE(s) % p.per, h)
#define TFI_AT_FIFTH_BITS(s) (TFI_PIECE_DATA(s) + p.size - 20)
#endif
static TFI_TARGET TFI_INLINE TFI_I TFI_K(fetch)(const tfi_format *f, const unsigned char *src,
                                                const int first, const int i, const int h,
                                                const int up) {
    static const uint8_t spread[2][16] = {{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
                                          {2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}};
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const tfi_places p = tfi_places_of(f);
    TFI_I q = D_PIECES(TFI_AT_LOW), high;
    if (p.low.mask < 255) q = D_AND(D_SHIFT(q, TFI_SHIFT_LOW), D_SPLAT(p.low.mask));
    if (p.high.mask) {
        high = D_AND(D_SHIFT(D_PIECES(TFI_AT_HIGH), TFI_SHIFT_HIGH), D_SPLAT(p.high.mask));
        if (p.low.mask == 15) q = D_ADD(q, D_LEFT4(high));
        else high = D_ADD(high, high), q = D_ADD(q, D_ADD(high, high));
    }
    if (p.fifth_bits) {
        high = D_AND(D_SHUFFLE(D_PIECES(TFI_AT_FIFTH_BITS), D_REPEAT(spread[h])), D_REPEAT(bits));
        q = D_ADD(q, D_LEFT4(D_MIN(high, D_SPLAT(1))));
    }
    if (p.values) return D_SHUFFLE(D_ADD(D_REPEAT(p.values), D_SPLAT(up)), q);
    return D_ADD(q, D_SPLAT(f->bias == 128 ? up : up - f->bias));
}

/* Scales of a unit, s[0 .. 1], and its offsets, s[2 .. 3]. */
static TFI_TARGET TFI_INLINE void TFI_K(fetch_scales)(const tfi_format *f, const unsigned char *src,
                                                      const int first, TFI_V *s) {
    const int dtype = f->dtype;
    const unsigned char *at = src + f->scale_at, *next = at + f->size; /* of two blocks */
    uint64_t one[2][2], two[2][2];
    s[0] = s[1] = s[2] = s[3] = V_SET(0.0f);
    (void)first, (void)next; /* a unit is a part of a block of 256 only where it has 4 lanes */
    if (f->block == 32) {
        float scales[TFI_LANES];
        for (int b = 0; dtype == TRANSFORMER_MXFP4 && b < TFI_LANES; b++)
            scales[TFI_K(block_lane)(b)] = tfi_mxfp4_scale(src[(size_t)b * 17]);
        s[0] = dtype == TRANSFORMER_MXFP4 ? V_LOAD(scales) : D_HALVES(at, f->size);
        if (!f->bias) s[2] = D_HALVES(at + 2, f->size);
        return;
    }
    TFI_V scale = D_TWO_HALVES(at, next);
    if (dtype == TRANSFORMER_TQ1_0 || dtype == TRANSFORMER_TQ2_0) {
        s[0] = scale;
        return;
    }
    tfi_get_subscales(dtype, src, one[0], two[0]);
    if (TFI_LANES == 16) tfi_get_subscales(dtype, src + f->size, one[1], two[1]);
    D_SUBSCALES(one, first, f->groups == 2, &s[0], &s[1]);
    if (!f->bias) {
        TFI_V minimum = V_SUB(V_SET(0.0f), D_TWO_HALVES(at + 2, next + 2));
        s[2] = s[1];
        if (f->groups == 2) D_SUBSCALES(two, first, 1, &s[2], &s[3]);
        s[2] = V_MUL(minimum, s[2]), s[3] = V_MUL(minimum, s[3]);
    }
    s[0] = V_MUL(scale, s[0]), s[1] = V_MUL(scale, s[1]);
}

static TFI_TARGET TFI_INLINE void TFI_K(unpack_half)(const tfi_format *f, const unsigned char *src,
                                                     const int first, const int h,
                                                     unsigned char *to) {
    const int up = f->bias == 128 ? D_BIAS : f->bias;
    TFI_K(transpose)
    (TFI_K(fetch)(f, src, first, 0, h, up), TFI_K(fetch)(f, src, first, 1, h, up),
     TFI_K(fetch)(f, src, first, 2, h, up), TFI_K(fetch)(f, src, first, 3, h, up), to, TFI_VECTOR);
}

/* sum plus, lane by lane, half h of the pieces of step i times a token. */
static TFI_TARGET TFI_INLINE TFI_I TFI_K(piece_dot)(const tfi_format *f, const unsigned char *src,
                                                    const int first, const unsigned char *x,
                                                    const int i, const int h, TFI_I sum) {
    const int is_signed = TFI_HAS_SIGNED_CODES(f), up = is_signed ? 0 : f->bias;
    TFI_I q = TFI_K(fetch)(f, src, first, i, h, up);
    return D_DOT(is_signed, sum, q, D_LOAD(x + (4 * h + i) * TFI_VECTOR));
}

/* A group's integers, in its blocks' lanes, times the scales of the weights. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(group_scaled)(const tfi_format *f, const TFI_I *s,
                                                       const unsigned char *x, const int g,
                                                       const TFI_V *scales) {
    const int sums = f->groups == 2 ? 11 + g : 9;
    TFI_I total = TFI_K(gather_sums)(s[0], s[1], s[2], s[3]);
    if (f->bias && !TFI_HAS_SIGNED_CODES(f))
        total = D_ADD32(total, D_RIGHT32(D_LOAD(x + sums * TFI_VECTOR), tfi_bias_shift(f->bias)));
    return V_MUL(V_FROM_INT(total), scales[g]);
}

/* sum plus a group, times the scales of the token: the steps of a tile. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(group_sum)(const tfi_format *f, const TFI_I *s,
                                                    const unsigned char *x, const int g,
                                                    const TFI_V *scales, TFI_V sum) {
    const int two = f->groups == 2;
    sum = V_FMA(TFI_K(group_scaled)(f, s, x, g, scales), TFI_BLOCK_FLOATS(x, 8), sum);
    if (f->bias) return sum;
    return V_FMA(scales[2 + g], TFI_BLOCK_FLOATS(x, two ? 13 + g : 10), sum);
}

/* Half h of a unit, or of its first blocks, dotted with a token's: a vector for each step. */
static TFI_TARGET TFI_INLINE void TFI_K(half_dot)(const tfi_format *f, const unsigned char *src,
                                                  const int first, int blocks,
                                                  const unsigned char *x, const int h, TFI_I *s) {
    const int step = TFI_LANES / 4; /* blocks */
    s[0] = TFI_K(piece_dot)(f, src, first, x, 0, h, s[0]);
    if (blocks > step) s[1] = TFI_K(piece_dot)(f, src, first, x, 1, h, s[1]);
    if (blocks > 2 * step) s[2] = TFI_K(piece_dot)(f, src, first, x, 2, h, s[2]);
    if (blocks > 3 * step) s[3] = TFI_K(piece_dot)(f, src, first, x, 3, h, s[3]);
}

/* A unit, or the first blocks of one, times a token.  The integers are dotted as they are fetched,
 * and the 4 sums of a piece are added up afterwards: the same integers as in a panel. */
static TFI_TARGET TFI_INLINE TFI_V TFI_K(unit_dot)(const tfi_format *f, const unsigned char *src,
                                                   const int first, int blocks,
                                                   const unsigned char *x, const TFI_V *scales,
                                                   TFI_V sum) {
    const int two = f->groups == 2;
    TFI_I s[4] = {D_ZERO, D_ZERO, D_ZERO, D_ZERO};
    TFI_K(half_dot)(f, src, first, blocks, x, 0, s);
    if (two) {
        sum = TFI_K(group_sum)(f, s, x, 0, scales, sum);
        s[0] = s[1] = s[2] = s[3] = D_ZERO;
    }
    TFI_K(half_dot)(f, src, first, blocks, x, 1, s);
    return TFI_K(group_sum)(f, s, x, two, scales, sum);
}

#ifdef V_TURN
/* Rows of fewer blocks than lanes, one behind the other, as one stream: a unit has blocks of several
 * rows, the token's are joined likewise.  Not with offsets, which take a second product, nor MXFP4,
 * whose products may underflow to -0, which lanes without a block would turn into 0. */
#define TFI_JOINS(f) ((f)->block == 32 && (f)->bias && (f)->dtype != TRANSFORMER_MXFP4)

/* A token of n blocks n times, as LANES rows of n blocks meet it. */
static TFI_TARGET void TFI_K(join_token)(const unsigned char *x, int n, unsigned char *to) {
    const int quarter = TFI_LANES / 4;
    for (int i = 0; i < n; i++, to += TFI_UNIT_X * TFI_VECTOR)
        for (int place = 0; place < TFI_LANES; place++) {
            const int b = (i * TFI_LANES + place) % n;
            const int from = b / quarter * TFI_VECTOR + b % quarter * 16;
            const int at = place / quarter * TFI_VECTOR + place % quarter * 16;
            memcpy(to + at, x + from, 16);
            memcpy(to + at + 4 * TFI_VECTOR, x + from + 4 * TFI_VECTOR, 16);
            memcpy(to + 9 * TFI_VECTOR + 4 * TFI_K(block_lane)(place),
                   x + 9 * TFI_VECTOR + 4 * TFI_K(block_lane)(b), 4);
        }
}

/* LANES rows at a time of n blocks times a token, which is joined too. */
static TFI_TARGET TFI_INLINE void TFI_K(joined_rows)(const tfi_format *f, const unsigned char *w,
                                                     int rows, int n, const unsigned char *token,
                                                     const unsigned char *joined, float *sums) {
    float products[TFI_LANES * TFI_LANES];
    const TFI_V token_scales = TFI_BLOCK_FLOATS(token, 8);
    TFI_V scales[4];
    for (int r = 0; r < rows; r += TFI_LANES, sums += TFI_LANES * TFI_LANES) {
        const unsigned char *x = joined;
        for (int i = 0; i < n; i++, x += TFI_UNIT_X * TFI_VECTOR, w += TFI_LANES * f->size) {
            TFI_I s[4] = {D_ZERO, D_ZERO, D_ZERO, D_ZERO};
            TFI_UNROLL_ALL
            for (int at = 0; at < TFI_LANES * f->size; at += 64) TFI_STREAM_AHEAD(w + at);
            TFI_K(fetch_scales)(f, w, 0, scales);
            TFI_K(half_dot)(f, w, 0, TFI_LANES, x, 0, s);
            TFI_K(half_dot)(f, w, 0, TFI_LANES, x, 1, s);
            V_STORE(products + i * TFI_LANES, V_TURN(TFI_K(group_scaled)(f, s, x, 0, scales)));
        }
        for (int i = 0; i < TFI_LANES; i++) {
            TFI_V sum = V_TURN(V_LOAD_N(products + i * n, n));
            V_STORE(sums + i * TFI_LANES, V_FMA(sum, token_scales, V_SET(0.0f)));
        }
    }
}
#endif

/* Rows of n blocks of a type known to the compiler: times one token if there is one, or unpacked.
 * With both, `unpacked` is the token joined.
 * Row r is number r / 4 of the r % 4-th of four streams, which lie `apart` bytes from each other.
 * An incomplete unit goes on in the next row, whose scales do not count, or is copied between zeros
 * where it would go on behind `end`. */
static TFI_TARGET TFI_INLINE void TFI_K(block_rows)(const tfi_format *f, const unsigned char *w,
                                                    size_t apart, size_t step, int rows, int n,
                                                    const unsigned char *end,
                                                    const unsigned char *token, float *sums,
                                                    unsigned char *unpacked) {
    enum { WIDE = TFI_LANES < 8 ? 8 : TFI_LANES };
    const int per = f->block / 32, unit = TFI_LANES * f->size / per;
    unsigned char copy[WIDE * 34], digits[WIDE * 32]; /* 34: the most bytes per 32 columns */
    float numbers[TFI_LANES];                         /* of the blocks in the lanes */
    TFI_V scales[4];
#ifdef V_TURN
    if (TFI_JOINS(f) && token && unpacked) {
        TFI_K(joined_rows)(f, w, rows, n, token, unpacked, sums);
        return;
    }
#endif
    for (int b = 0; b < TFI_LANES; b++) numbers[TFI_K(block_lane)(b)] = (float)b;
    for (int r = 0; r < rows; r++) {
        const unsigned char *x = token;
        const unsigned char *row = w + (size_t)(r % 4) * apart + (size_t)(r / 4) * step;
        TFI_V sum = V_SET(0.0f);
        for (int b = 0; b < n; b += TFI_LANES) {
            const unsigned char *src = row + (size_t)(b / per) * (size_t)f->size, *codes;
            const int first = TFI_LANES < 8 ? b % per : 0;
            TFI_UNROLL_ALL
            for (int i = 0; i < unit; i += 64) TFI_STREAM_AHEAD(src + i);
            if (n - b < TFI_LANES && end - src < unit) {
                memset(copy, 0, sizeof copy);
                memcpy(copy, src, (size_t)((n - b + per - 1) / per) * (size_t)f->size);
                src = copy;
            }
            codes = f->dtype == TRANSFORMER_TQ1_0 ? digits : src;
            for (int i = 0; f->dtype == TRANSFORMER_TQ1_0 && i < WIDE / 8; i++)
                tfi_get_trits(src + 54 * i, digits + 256 * i);
            TFI_K(fetch_scales)(f, src, first, scales);
            if (n - b < TFI_LANES) {
                TFI_UNROLL_ALL
                for (int i = 0; i < 4; i++)
                    scales[i] =
                        V_IF_LESS(V_LOAD(numbers), V_SET((float)(n - b)), scales[i], V_SET(0.0f));
            }
            if (token) {
                sum = TFI_K(unit_dot)(f, codes, first, n - b, x, scales, sum);
                x += TFI_UNIT_X * TFI_VECTOR;
                continue;
            }
            TFI_K(unpack_half)(f, codes, first, 0, unpacked);
            TFI_K(unpack_half)(f, codes, first, 1, unpacked + 4 * TFI_VECTOR);
            for (int i = 0; i < 4; i++)
                V_STORE((float *)(void *)(unpacked + (8 + i) * TFI_VECTOR), scales[i]);
            unpacked += TFI_UNIT_W * TFI_VECTOR;
        }
        if (token) V_STORE(sums + r * TFI_LANES, sum);
    }
}

#define TFI_DEFINE_ROWS(type, block, size, alignment, scale_at, bias, groups, function)            \
    static TFI_TARGET TFI_NOINLINE void TFI_K(rows_##type)(                                        \
        const unsigned char *w, size_t apart, size_t step, int rows, int n,                        \
        const unsigned char *end, const unsigned char *token, float *sums,                         \
        unsigned char *unpacked) {                                                                 \
        const tfi_format f = {TRANSFORMER_##type, NULL, block,  size, alignment,                   \
                              scale_at,           bias, groups, NULL};                             \
        TFI_K(block_rows)(&f, w, apart, step, rows, n, end, token, sums, unpacked);                \
    }
#define TFI_ROWS_CASE(type, block, size, alignment, scale_at, bias, groups, function)              \
    case TRANSFORMER_##type:                                                                       \
        TFI_K(rows_##type)(w, apart, step, rows, n, end, token, sums, unpacked);                   \
        break;
TFI_QUANTISED(TFI_DEFINE_ROWS)

static TFI_TARGET void TFI_K(rows)(const tfi_format *f, const unsigned char *w, size_t apart,
                                   size_t step, int rows, int n, const unsigned char *end,
                                   const unsigned char *token, float *sums,
                                   unsigned char *unpacked) {
    switch (f->dtype) { TFI_QUANTISED(TFI_ROWS_CASE) }
}
#undef TFI_DEFINE_ROWS
#undef TFI_ROWS_CASE

/* out[t, r] = the lanes of sums[r, t], added up. */
static TFI_TARGET void TFI_K(block_sums)(const float *sums, int rows, int tokens, float *out,
                                         size_t out_stride) {
    const int width = tokens * TFI_LANES; /* floats per row */
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++) {
            const float *from = sums + r * width + t * TFI_LANES;
            V_STORE_SUM4(out + (size_t)t * out_stride + r, 0, V_LOAD(from), V_LOAD(from + width),
                         V_LOAD(from + 2 * width), V_LOAD(from + 3 * width));
        }
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            out[(size_t)t * out_stride + (size_t)r] =
                V_SUM(V_LOAD(sums + r * width + t * TFI_LANES));
}

/* A token that was packed alone, in the order of a panel. */
static TFI_TARGET const unsigned char *TFI_K(one_token)(const unsigned char *x, int units,
                                                        unsigned char *panel) {
    unsigned char *to = panel;
    for (; units > 0; units--, x += TFI_UNIT_X * TFI_VECTOR, to += TFI_UNIT_X * TFI_VECTOR) {
        for (const unsigned char *from = x; from < x + 8 * TFI_VECTOR; from += 4 * TFI_VECTOR)
            TFI_K(transpose)
        (D_LOAD(from), D_LOAD(from + TFI_VECTOR), D_LOAD(from + 2 * TFI_VECTOR),
         D_LOAD(from + 3 * TFI_VECTOR), to + (from - x), TFI_VECTOR);
        memcpy(to + 8 * TFI_VECTOR, x + 8 * TFI_VECTOR, (TFI_UNIT_X - 8) * TFI_VECTOR);
    }
    return panel;
}

#ifdef V_TURN
/* One token times short rows, if so many that joining pays; returns how many it has taken. */
static TFI_TARGET int TFI_K(blocks_joined)(const tfi_format *f, const unsigned char *w,
                                           size_t w_bytes, int rows, const unsigned char *x, int n,
                                           float *out, float *sums) {
    unsigned char *joined = (unsigned char *)(sums + TFI_BLOCK_MOST * TFI_LANES);
    const int whole = rows & -TFI_LANES;
    if (!TFI_JOINS(f) || n < 1 || n >= TFI_LANES || rows < 3 * TFI_LANES ||
        w_bytes != (size_t)n * (size_t)f->size)
        return 0;
    TFI_K(join_token)(x, n, joined);
    for (int first = 0, count; first < whole; first += count, w += (size_t)count * w_bytes) {
        count = tfi_min(TFI_BLOCK_MOST, whole - first);
        TFI_K(rows)(f, w, 0, 0, count, n, NULL, x, sums, joined);
        TFI_K(block_sums)(sums, count, 1, out + first, 0);
    }
    return whole;
}
#endif

/* One token: the rows come from memory in four long streams, as for the tiles above. */
static TFI_TARGET void TFI_K(blocks_1)(const tfi_format *f, const unsigned char *w, size_t w_bytes,
                                       int rows, const unsigned char *x, int n, float *out,
                                       float *sums) {
    const unsigned char *end = w + (size_t)rows * w_bytes;
    float four[TFI_BLOCK_MOST];
#ifdef V_TURN
    const int joined = TFI_K(blocks_joined)(f, w, w_bytes, rows, x, n, out, sums);
    w += (size_t)joined * w_bytes, out += joined, rows -= joined;
#endif
    const int groups = rows / 4, rest = rows % 4;
    for (int first = 0, count; first < groups; first += count) {
        count = tfi_min(TFI_BLOCK_MOST / 4, groups - first);
        TFI_K(rows)
        (f, w + (size_t)first * w_bytes, (size_t)groups * w_bytes, w_bytes, 4 * count, n, end, x,
         sums, NULL);
        TFI_K(block_sums)(sums, 4 * count, 1, four, 0);
        for (int r = 0; r < 4 * count; r++) out[r % 4 * groups + first + r / 4] = four[r];
    }
    w += (size_t)(rows - rest) * w_bytes;
    TFI_K(rows)(f, w, w_bytes, 0, rest, n, end, x, sums, NULL);
    TFI_K(block_sums)(sums, rest, 1, out + (rows - rest), 0);
}

/* See tfi_kernels.blocks.  Some rows at a time are unpacked, then meet all tokens; a cut along k
 * keeps a panel's part in first-level cache meanwhile. */
static TFI_TARGET void TFI_K(blocks)(const tfi_format *f, const unsigned char *w, size_t w_bytes,
                                     int rows, const void *panels, int n, int k, float *out,
                                     size_t out_stride, void *scratch) {
    int units = (k + 32 * TFI_LANES - 1) / (32 * TFI_LANES), cut = TFI_BLOCK_CUT / (32 * TFI_LANES);
    const int shift = tfi_bias_shift(f->bias);
    const unsigned char *end = w + (size_t)rows * w_bytes;
    size_t w_unit = (size_t)TFI_UNIT_W * TFI_VECTOR, w_row = w_unit * (size_t)units;
    int most = n <= TFI_TILE ? 4 : tfi_block_rows(w_row);
    unsigned char *unpacked = (unsigned char *)scratch;
    unsigned char *after = unpacked + w_row * (size_t)most;
    unsigned char *token = after + (size_t)TFI_BLOCK_MOST * TFI_MAX_FEW * TFI_ALIGN;
    float *sums = (float *)(void *)after;
    if (n == 1) {
        const unsigned char *x = (const unsigned char *)panels;
        TFI_K(blocks_1)(f, w, w_bytes, rows, x, k / 32, out, (float *)scratch);
        return;
    }
    for (int first = 0; first < rows; first += most, w += (size_t)most * w_bytes) {
        int count = tfi_min(most, rows - first), padded = tfi_round_up(count, 4);
        TFI_K(rows)(f, w, w_bytes, 4 * w_bytes, count, k / 32, end, NULL, NULL, unpacked);
        memset(unpacked + (size_t)count * w_row, 0, (size_t)(padded - count) * w_row);
        for (int t0 = 0; t0 < n; t0 += TFI_TILE) {
            int tokens = tfi_min(TFI_TILE, n - t0);
            const unsigned char *x =
                (const unsigned char *)panels + (size_t)t0 * tfi_act_bytes(TFI_ACT_INT8, k);
            float *to = out + (size_t)t0 * out_stride + first;
            tfi_block_part p = {NULL, NULL, w_row, tokens, 0, NULL, 0, shift, NULL, out_stride};
            int summed = 0; /* rows */
            if (tokens == 1) x = TFI_K(one_token)(x, units, token);
            for (int u = 0; u == 0 || u < units; u += cut)
                for (int r = 0; r < padded; r += TFI_BLOCK_ROWS) {
                    p.w = unpacked + (size_t)r * w_row + (size_t)u * w_unit;
                    p.x = x + (size_t)(u * tokens * TFI_UNIT_X) * TFI_VECTOR;
                    p.units = tfi_min(cut, units - u), p.more = u > 0;
                    p.sums = sums + r * tokens * TFI_LANES;
                    if (TFI_HELD && u + cut >= units && r + 4 <= count)
                        p.out = to + r, summed = r + 4;
                    TFI_K(block_tiles)(p, f);
                    p.out = NULL;
                }
            TFI_K(block_sums)
            (sums + summed * tokens * TFI_LANES, count - summed, tokens, to + summed, out_stride);
        }
    }
}
#undef TFI_VECTOR
#undef D_SHORT_SUMS
#undef D_HOLD
#undef D_PAIRS
#undef D_WIDEN
#endif

#if TFI_LANES == 1
/* The scalar row: panels are blocks of 32. */
typedef struct tfi_quantised {
    float scale, sum, sums[2]; /* sum: of all integers times scale, then of either half */
    int8_t q[32];
} tfi_quantised;

static void TFI_K(pack_int8)(void *panel, const float *const *rows, int n, int k) {
    unsigned char *to = (unsigned char *)panel;
    for (int i = 0; i < k; i += 32, to += TFI_UNIT_X * 4) {
        tfi_quantised block;
        float size = 0, inverse, half[2] = {0, 0};
        (void)n;
        for (int j = 0; j < 32; j++) size = tfi_larger(size, fabsf(rows[0][i + j]));
        inverse = size > 1e-30f ? 127 / size : 0;
        for (int j = 0; j < 32; j++) {
            float x = inverse > 0 ? tfi_nearest(rows[0][i + j] * inverse) : 0;
            block.q[j] = (int8_t)x, half[j / 16] += x;
        }
        block.scale = inverse > 0                    ? tfi_short_scale(size / 127)
                      : size >= 0 && size <= FLT_MAX ? 0
                                                     : size;
        block.sum = block.scale * (half[0] + half[1]);
        block.sums[0] = block.scale * half[0], block.sums[1] = block.scale * half[1];
        memcpy(to, &block, sizeof block);
    }
}

static void TFI_K(block_dot)(const tfi_format *f, const tfi_block *w, int b, const unsigned char *x,
                             float *sum) {
    tfi_quantised block;
    memcpy(&block, x, sizeof block);
    for (int g = 0; g < f->groups; g++) {
        int total = 0, width = 32 / f->groups, from = g * width, group = (32 * b + from) / 16;
        for (int i = from; i < from + width; i++) total += w->q[32 * b + i] * block.q[i];
        *sum = (float)total * w->scale[group] * block.scale + *sum;
        if (!f->bias) *sum = w->offset[group] * (f->groups == 1 ? block.sum : block.sums[g]) + *sum;
    }
}

static void TFI_K(blocks)(const tfi_format *f, const unsigned char *w, size_t w_bytes, int rows,
                          const void *panels, int n, int k, float *out, size_t out_stride,
                          void *scratch) {
    const unsigned char *x = (const unsigned char *)panels;
    tfi_block block;
    (void)scratch;
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < n; t++) out[(size_t)t * out_stride + (size_t)r] = 0;
        for (int i = 0; i < k / f->block; i++) {
            f->unpack(w + (size_t)r * w_bytes + (size_t)i * (size_t)f->size, &block);
            for (int t = 0; t < n; t++)
                for (int b = 0; b < f->block / 32; b++) TFI_K(block_dot)
            (f, &block, b,
             x + (size_t)t * tfi_act_bytes(TFI_ACT_INT8, k) +
                 (size_t)(i * (f->block / 32) + b) * TFI_UNIT_X * 4,
             out + (size_t)t * out_stride + (size_t)r);
        }
    }
}
#endif

/* ---- the row ---- */

static const tfi_kernels TFI_K(kernels) = {
    TFI_ROW_NAME,
    TFI_NEEDS,
    TFI_TILE,
    {TFI_PANEL, TFI_PANEL, TFI_TILE},
#ifdef TFI_BF16_DOT
    1,
    {TFI_FLOAT_KERNEL(pack_f32), TFI_K(pack_bf16), TFI_BLOCK_KERNEL(pack_int8)},
    {TFI_FLOAT_KERNEL(matmul_f32), TFI_FLOAT_KERNEL(matmul_f16), TFI_FLOAT_KERNEL(matmul_bf16),
     TFI_K(matmul_bf16_dot)},
#else
    0,
    {TFI_FLOAT_KERNEL(pack_f32), NULL, TFI_BLOCK_KERNEL(pack_int8)},
    {TFI_FLOAT_KERNEL(matmul_f32), TFI_FLOAT_KERNEL(matmul_f16), TFI_FLOAT_KERNEL(matmul_bf16),
     NULL},
#endif
    TFI_BLOCK_KERNEL(blocks),
    TFI_FLOAT_KERNEL(norm),
    TFI_FLOAT_KERNEL(activate),
    TFI_FLOAT_KERNEL(cap),
    TFI_FLOAT_KERNEL(scores),
    TFI_FLOAT_KERNEL(softmax_block),
    TFI_FLOAT_KERNEL(scale),
    {TFI_FLOAT_KERNEL(accumulate_f32), TFI_FLOAT_KERNEL(accumulate_f16)},
    TFI_FLOAT_KERNEL(maximum),
    TFI_FLOAT_KERNEL(exponentials),
    TFI_FLOAT_KERNEL(to_f16)};

#undef TFI_CHUNK_SIZES
#undef TFI_ROW_LIST
#undef TFI_ROW_P
#undef TFI_ROW
#undef TFI_ROW_NAME
#undef TFI_BF16_DOT
#undef TFI_FLOATS
#undef TFI_BLOCKS
#ifdef TFI_KEEP_VOCABULARY /* the next row only adds to this one */
#undef TFI_KEEP_VOCABULARY
#else
#undef TFI_NEEDS
#undef TFI_TARGET
#undef TFI_TILE_INLINE
#undef TFI_V
#undef TFI_LANES
#undef TFI_TILE
#undef TFI_TILE_ROWS
#undef TFI_PANEL
#undef TFI_GROUP
#undef TFI_GROUPS
#undef TFI_WIDE
#undef TFI_STREAM
#undef TFI_ASKING
#undef TFI_QUADS
#undef V_QUADS
#undef V_QUADS_N
#undef V_QUADS_F16
#undef V_QUADS_BF16
#undef V_MIX
#undef V_JOIN
#undef V_JOIN_F16
#undef V_JOIN_BF16
#undef TFI_CHUNKS
#undef V_SET
#undef V_LOAD
#undef V_LOAD_N
#undef V_STORE
#undef V_STORE_N
#undef V_KEEP
#undef V_ADD
#undef V_SUB
#undef V_MUL
#undef V_DIV
#undef V_FMA
#undef V_MAX
#undef V_MIN
#undef V_ABS
#undef V_IF_LESS
#undef V_ROUND
#undef V_SCALE
#undef V_SUM
#undef V_HMAX
#undef V_STORE_SUM4
#undef V_FROM_F16
#undef V_FROM_F16_N
#undef V_FROM_BF16
#undef V_FROM_BF16_N
#undef V_TO_F16
#undef V_FROM_INT
#undef TFI_FLOAT_ROW
#undef TFI_BLOCK_ROW
#undef TFI_BLOCK_ROWS
#undef TFI_I
#undef D_BIAS
#undef D_ZERO
#undef D_LOAD
#undef D_DOT
#undef D_STORE_BYTES
#undef D_STORE
#undef D_SPLAT
#undef D_REPEAT
#undef D_PIECES
#undef D_SHIFT
#undef D_AND
#undef D_ADD
#undef D_SUB
#undef D_MIN
#undef D_LEFT4
#undef D_SHUFFLE
#undef D_LOW32
#undef D_HIGH32
#undef D_LOW64
#undef D_HIGH64
#undef D_ADD32
#undef D_SUB32
#undef D_RIGHT32
#undef D_HALVES
#undef V_TURN
#undef D_TWO_HALVES
#undef D_SUBSCALES
#undef D_64
#undef D_I
#undef D_U8
#undef V_LOAD_BF16_PAIRS
#undef V_LOAD_BF16_PAIRS_N
#undef V_QUADS_BF16_PAIRS
#undef V_QUADS_BF16_PAIRS_N
#undef V_MIX_PAIRS
#endif
#endif /* TFI_PASS */

/* ==== >>history ==============================================================================
 *
 * 0.1.0  first version: F32, F16, BF16 and quantised weights; scalar, AVX2, AVX-512, NEON, wasm.
 *
 * MIT License, see the file LICENSE.
 */
