/* quantize.h - float32 rows to the types that GGUF files hold.  Licence: MIT, as transformer.h.
 *
 *     #define QUANTIZE_IMPLEMENTATION             (in exactly one .c or .cpp file)
 *     #include "quantize.h"
 *     ...
 *     size_t bytes = n_rows * quantize_row_size(QUANTIZE_Q4_K, n_cols);
 *     if (quantize_rows(QUANTIZE_Q4_K, weights, n_rows, n_cols, out, bytes, &bad) != QUANTIZE_OK) ...
 *
 * C99 or C++11, libc and libm.  Nothing is allocated, printed or kept; any number of threads may
 * call at once.  The output is a file's bytes: little-endian whatever the machine.
 *
 * TYPES      F32; F16 and BF16, rounded to nearest, ties to even; and blocks:
 *
 *              name   block  bits per weight  value of a weight
 *              Q4_0      32   4.5              d (q - 8)
 *              Q4_1      32   5                d q + m
 *              Q5_0      32   5.5              d (q - 16)
 *              Q5_1      32   6                d q + m
 *              Q8_0      32   8.5              d q
 *              Q4_K     256   4.5              d s q - dmin m    s, m: 6 bits per 32 weights
 *              Q5_K     256   5.5              d s q - dmin m    likewise
 *              Q6_K     256   6.5625           d s q             s: 8 bits per 16 weights
 *
 *            transformer.h's >>formats has the diagrams.
 * ERROR      Q8_0 is the nearest integer to x * 127 / max|x|, bit for bit what the gguf package for
 *            Python writes.  The others search for the scales (and minimums) that make the sum
 *            of squared errors of a block small, rather than take them from its largest weights.
 * REFUSES    NaN and infinity, except in F32 and BF16; numbers too large for F16 or for a block's
 *            F16 scale.
 * PRESETS    A preset (quantize_preset_find "q4_k_m") says which type each tensor of a model gets,
 *            by the name that GGUF gives it: the type that llama.cpp's llama-quantize chooses
 *            (September 2026).  What stays F32: vectors, position_embd.weight, ffn_gate_inp.weight
 *            and whatever is not called *.weight.  The mixtures:
 *
 *              preset   most    output  token_embd  attn_v, attn_qkv, ffn_down
 *              q4_k_m   Q4_K    Q6_K    Q4_K        half of them Q6_K
 *              q5_k_m   Q5_K    Q6_K    Q5_K        half of them Q6_K
 *              q6_k     Q6_K    Q6_K    Q6_K        Q6_K
 *              q4_0, q4_1, q5_0, q5_1: Q6_K for output, q8_0: Q8_0 everywhere
 *
 *            A head that is tied (there is no output.weight) makes token_embd.weight the output.
 *            "Half": of n layers, the first and the last eighth and every third between them.
 *            Exceptions: Falcon's output is Q8_0, and in q4_k_m its ffn_down Q6_K in the first
 *            sixteenth and else Q5_K where others have Q6_K; models of 80 layers whose heads share
 *            keys and values have Q5_K for Q4_K in attn_v; of eight experts, attn_v, attn_qkv and
 *            attn_k are Q8_0 and q4_k_m's attn_output is Q5_K.
 *            Where the width of a matrix is no multiple of the block, Q4_K becomes Q5_0, Q5_K
 *            Q5_1, Q6_K Q8_0; and where it is no multiple of 32 either, F16.
 * MACROS     QUANTIZE_IMPLEMENTATION, QUANTIZE_STATIC (everything static).
 */
#ifndef QUANTIZE_H
#define QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(QUANTIZE_STATIC)
#if defined(__GNUC__) || defined(__clang__)
#define QUANTIZE_API __attribute__((unused)) static
#else
#define QUANTIZE_API static
#endif
#else
#define QUANTIZE_API extern
#endif

typedef enum quantize_type { /* numbers as in GGUF and transformer_dtype */
                             QUANTIZE_F32 = 0,
                             QUANTIZE_F16 = 1,
                             QUANTIZE_Q4_0 = 2,
                             QUANTIZE_Q4_1 = 3,
                             QUANTIZE_Q5_0 = 6,
                             QUANTIZE_Q5_1 = 7,
                             QUANTIZE_Q8_0 = 8,
                             QUANTIZE_Q4_K = 12,
                             QUANTIZE_Q5_K = 13,
                             QUANTIZE_Q6_K = 14,
                             QUANTIZE_BF16 = 30
} quantize_type;

typedef enum quantize_status {
    QUANTIZE_OK = 0,
    QUANTIZE_ARGUMENT = 1, /* unknown type, NULL, n_cols no multiple of the block, out too small */
    QUANTIZE_VALUE = 2     /* a number that the type cannot hold */
} quantize_status;

/* "Q4_K"; "unknown" if this header does not write it. */
QUANTIZE_API const char *quantize_type_name(int type);

/* Weights per block (1, 32 or 256) and bytes of a row; 0 = unknown type, or n_cols is no multiple
 * of the block. */
QUANTIZE_API int quantize_block(int type);
QUANTIZE_API size_t quantize_row_size(int type, size_t n_cols);

/* x [n_rows, n_cols] to out, n_rows * quantize_row_size(type, n_cols) bytes.  After VALUE, *bad (may
 * be NULL) is the index in x of the first number refused, and out is in part written. */
QUANTIZE_API quantize_status quantize_rows(int type, const float *x, size_t n_rows, size_t n_cols,
                                           void *out, size_t out_size, size_t *bad);

typedef struct quantize_preset {
    const char *name; /* "q4_k_m" */
    int file_type;    /* GGUF's general.file_type */
    int type;         /* of most matrices */
    int output;       /* of the head */
    int more;         /* of attn_v, attn_qkv and ffn_down, where they get more bits */
} quantize_preset;

/* What a mixture depends on besides the tensor. */
typedef struct quantize_model {
    const char *arch; /* GGUF's general.architecture; NULL = none that has exceptions */
    int n_layers, n_heads, n_kv_heads, n_experts;
    int tied; /* there is no output.weight */
} quantize_model;

/* By name, or the i-th; NULL if there is none. */
QUANTIZE_API const quantize_preset *quantize_preset_find(const char *name);
QUANTIZE_API const quantize_preset *quantize_preset_at(int i);

/* The type of a tensor: its name in GGUF ("blk.3.attn_v.weight"), number of dimensions and width
 * (GGUF's first dimension). */
QUANTIZE_API int quantize_tensor_type(const quantize_preset *preset, const quantize_model *model,
                                      const char *name, int n_dims, size_t n_cols);

#ifdef __cplusplus
}
#endif
#endif /* QUANTIZE_H */

/* Stop here if you only want to use it.
 *
 * CONTENTS   >>numbers >>fits >>blocks >>superblocks >>rows >>presets
 */
#if defined(QUANTIZE_IMPLEMENTATION) && !defined(QUANTIZE_IMPLEMENTED)
#define QUANTIZE_IMPLEMENTED

#include <float.h>
#include <math.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>numbers ============================================================================= */

static uint32_t qzi_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float qzi_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* By its bits: isfinite is a constant under -ffast-math. */
static int qzi_finite(float x) { return (qzi_bits(x) & 0x7f800000u) != 0x7f800000u; }

/* IEEE 754 binary16, to nearest, ties to even; too large becomes infinity. */
static uint16_t qzi_to_f16(float x) {
    uint32_t bits = qzi_bits(x), sign = bits >> 16 & 0x8000u, exponent, mantissa, shift, rest, half;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u); /* NaN */
    if (bits >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x33000000u) return (uint16_t)sign; /* below half of the smallest */
    exponent = bits >> 23;
    mantissa = (bits & 0x7fffffu) | 0x800000u;
    shift = exponent < 113 ? 126 - exponent : 13; /* denormal: 2^-24 is the unit */
    half = mantissa >> shift;
    rest = mantissa & ((1u << shift) - 1);
    half += rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && (half & 1));
    if (exponent >= 113) half += (exponent - 113) << 10; /* the hidden bit adds one more */
    return (uint16_t)(sign | half);
}

static float qzi_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
    float x;
    if (exponent == 31) return qzi_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent > 0) return qzi_float(sign | (exponent + 112) << 23 | mantissa << 13);
    x = (float)mantissa / 16777216.0f;
    return sign ? -x : x;
}

static uint16_t qzi_to_bf16(float x) {
    uint32_t bits = qzi_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 64); /* stays a NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static void qzi_put16(unsigned char *out, uint32_t v) {
    out[0] = (unsigned char)v;
    out[1] = (unsigned char)(v >> 8);
}

static void qzi_put32(unsigned char *out, uint32_t v) {
    qzi_put16(out, v);
    qzi_put16(out + 2, v >> 16);
}

/* Writes a scale and returns what it will be read as. */
static float qzi_put_scale(unsigned char *out, float d) {
    uint16_t h = qzi_to_f16(d);
    qzi_put16(out, h);
    return qzi_from_f16(h);
}

/* ==== >>fits ================================================================================
 *
 * The best scale for given integers q is a division of sums; the best integers for a given scale
 * are the nearest ones.  So: try scales on a grid, round, improve each by least squares, keep the
 * one that is best in the end. */

/* The nearest integer in low .. high.  Adding low last keeps the conversion on positive numbers,
 * where it rounds down. */
static int qzi_nearest(float v, int low, int high) {
    v -= (float)low;
    v = v < 0 ? 0 : v;
    v = v > (float)(high - low) ? (float)(high - low) : v;
    return (int)(v + 0.5f) + low;
}

static float qzi_inverse(float d) {
    float inverse = d != 0 ? 1 / d : 0;
    return qzi_finite(inverse) ? inverse : 0; /* d is a denormal: all zeros */
}

/* x is nearly d q, q in low .. high: the scale with the least squared error that was found. */
static float qzi_fit_scale(const float *x, int n, int low, int high) {
    float peak = 0, best_d = 0, best = 0;
    int i, step;
    for (i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    if (qzi_inverse(peak) == 0) return 0;
    for (step = -10; step <= 10; step++) {
        /* The peak at one end of the range or, as that is often better, somewhat beyond it: from
         * 0.7 to 1.35 of the lower end, which reaches past the upper one. */
        float end = (float)(step & 1 ? -low : low) * (1.0f + 0.035f * (float)step);
        float inverse = end / peak, xq = 0, qq = 0, d;
        int round;
        for (round = 0; round < 2; round++) {
            xq = qq = 0;
            for (i = 0; i < n; i++) {
                float q = (float)qzi_nearest(x[i] * inverse, low, high);
                xq += x[i] * q;
                qq += q * q;
            }
            d = qq > 0 ? xq / qq : 0;
            inverse = qzi_inverse(d);
        }
        if (qq > 0 && xq * xq > best * qq) { /* error = sum x^2 - xq^2 / qq */
            best = xq * xq / qq;
            best_d = xq / qq;
        }
    }
    return best_d;
}

/* x is nearly d q + m, q in 0 .. high.  With `below`, m <= 0. */
static float qzi_fit_line(const float *x, int n, int high, int below, float *m) {
    float low = x[0], top = x[0], best = FLT_MAX, best_d = 0;
    int i, step;
    for (i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        top = x[i] > top ? x[i] : top;
    }
    if (below && low > 0) low = 0;
    *m = low;
    if (qzi_inverse(top - low) == 0) return 0;
    for (step = 0; step < 20; step++) {
        float d = (top - low) / ((float)high * (0.8f + 0.025f * (float)step)), base = low;
        float centre = 0.5f * (top + low);
        int round;
        if (!below) base = centre - 0.5f * d * (float)high; /* what is lost is lost on both sides */
        for (round = 0; round < 2; round++) {
            float sx = 0, sq = 0, sxq = 0, sqq = 0, sxx = 0, inverse = qzi_inverse(d), det, error;
            for (i = 0; i < n; i++) {
                float q = (float)qzi_nearest((x[i] - base) * inverse, 0, high), y = x[i] - centre;
                sx += y; /* centred: the sums below cancel less */
                sq += q;
                sxq += y * q;
                sqq += q * q;
                sxx += y * y;
            }
            det = (float)n * sqq - sq * sq;
            if (!(sqq > 0)) break;
            if (det > 0) {
                d = ((float)n * sxq - sx * sq) / det;
                base = (sx - d * sq) / (float)n + centre;
            } else { /* all integers are the same: leave the minimum */
                d = (sxq + (centre - base) * sq) / sqq;
            }
            if (below && base > 0) {
                base = 0;
                d = (sxq + centre * sq) / sqq;
            }
            error = sxx - 2 * d * sxq + d * d * sqq +
                    (base - centre) * (2 * d * sq - 2 * sx + (float)n * (base - centre));
            if (error < best) {
                best = error;
                best_d = d;
                *m = base;
            }
        }
    }
    return best_d;
}

/* Squared error of x as d q + m with the nearest q. */
static float qzi_error(const float *x, int n, float d, float m, int low, int high) {
    float inverse = qzi_inverse(d), sum = 0;
    int i;
    for (i = 0; i < n; i++) {
        float e = x[i] - (d * (float)qzi_nearest((x[i] - m) * inverse, low, high) + m);
        sum += e * e;
    }
    return sum;
}

/* ==== >>blocks ==============================================================================
 *
 * 32 weights: a scale, perhaps a minimum, perhaps 32 high bits, then nibbles: byte j holds weight j
 * in its low half and weight j + 16 in its high half. */

static void qzi_nibbles(unsigned char *out, const int *q) {
    int j;
    for (j = 0; j < 16; j++) out[j] = (unsigned char)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

/* Integers of 32 weights, offset so that they start at 0; high bits and nibbles. */
static void qzi_block_integers(const float *x, float d, float m, int low, int high,
                               unsigned char *out) {
    float inverse = qzi_inverse(d);
    uint32_t bits = 0;
    int q[32], j;
    for (j = 0; j < 32; j++) {
        q[j] = qzi_nearest((x[j] - m) * inverse, low, high) - low;
        bits |= (uint32_t)(q[j] >> 4) << j;
    }
    if (high - low > 15) {
        qzi_put32(out, bits);
        out += 4;
    }
    qzi_nibbles(out, q);
}

static int qzi_block_scale(const float *x, unsigned char *out, int low) {
    float d = qzi_put_scale(out, qzi_fit_scale(x, 32, low, -low - 1));
    qzi_block_integers(x, d, 0, low, -low - 1, out + 2);
    return qzi_finite(d);
}

static int qzi_block_line(const float *x, unsigned char *out, int high) {
    float m, d = qzi_put_scale(out, qzi_fit_line(x, 32, high, 0, &m));
    m = qzi_put_scale(out + 2, m);
    qzi_block_integers(x, d, m, 0, high, out + 4);
    return qzi_finite(d) && qzi_finite(m);
}

static int qzi_q4_0(const float *x, unsigned char *out) { return qzi_block_scale(x, out, -8); }
static int qzi_q5_0(const float *x, unsigned char *out) { return qzi_block_scale(x, out, -16); }
static int qzi_q4_1(const float *x, unsigned char *out) { return qzi_block_line(x, out, 15); }
static int qzi_q5_1(const float *x, unsigned char *out) { return qzi_block_line(x, out, 31); }

/* The one everybody writes alike: rounded with the scale as it was before it became F16, halves
 * away from zero. */
static int qzi_q8_0(const float *x, unsigned char *out) {
    float most = 0, d, inverse;
    int j;
    for (j = 0; j < 32; j++) most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
    d = most / 127;
    inverse = d != 0 ? 1 / d : 0;
    for (j = 0; j < 32; j++) { /* 127 (1 + 2^-23) at most; a huge inverse of a denormal d apart */
        float v = x[j] * inverse, a = fabsf(v) < 127 ? fabsf(v) : 127, f = floorf(a);
        int q = (int)f + (a - f >= 0.5f);
        out[2 + j] = (unsigned char)(v < 0 ? -q : q);
    }
    return qzi_finite(qzi_put_scale(out, d));
}

/* ==== >>superblocks =========================================================================
 *
 * 256 weights in sub-blocks whose scales are themselves integers.  After these are rounded, each
 * sub-block tries their neighbours too: with the rounded scale another one may be better. */

/* Twelve bytes for eight scales and eight minimums of 6 bits: numbers 0 to 3 lie in bytes 0-3 and
 * 4-7; of 4 to 7 the low halves share bytes 8-11, the high bits are the top bits of 0-7. */
static void qzi_pack_scales(unsigned char *out, const int *scale, const int *min) {
    int j;
    for (j = 0; j < 4; j++) {
        out[j] = (unsigned char)(scale[j] | (scale[j + 4] >> 4) << 6);
        out[j + 4] = (unsigned char)(min[j] | (min[j + 4] >> 4) << 6);
        out[j + 8] = (unsigned char)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

/* The best of the integer scales and minimums around s and m, for 32 weights. */
static void qzi_refine_line(const float *x, float d, float dmin, int high, int *s, int *m) {
    int s0 = *s, m0 = *m, i, k;
    float best = FLT_MAX;
    for (i = s0 - 1; i <= s0 + 1; i++)
        for (k = m0 - 1; k <= m0 + 1; k++) {
            float error;
            if (i < 0 || i > 63 || k < 0 || k > 63) continue;
            error = qzi_error(x, 32, d * (float)i, -dmin * (float)k, 0, high);
            if (error < best) {
                best = error;
                *s = i;
                *m = k;
            }
        }
}

/* Q4_K and Q5_K: d, dmin, scales; Q5_K: bit j of byte i is the fifth of weight i of sub-block j;
 * nibbles: 32 bytes for every two sub-blocks. */
static int qzi_k_line(const float *x, unsigned char *out, int high) {
    float scale[8], min[8], most_scale = 0, most_min = 0, d, dmin, inverse, inverse_min;
    unsigned char *fifth = out + 16, *nibbles = out + (high > 15 ? 48 : 16);
    int s[8], m[8], j, i;
    for (j = 0; j < 8; j++) {
        scale[j] = qzi_fit_line(x + 32 * j, 32, high, 1, &min[j]);
        if (scale[j] < 0) scale[j] = 0;
        most_scale = scale[j] > most_scale ? scale[j] : most_scale;
        most_min = -min[j] > most_min ? -min[j] : most_min;
    }
    d = qzi_put_scale(out, most_scale / 63);
    dmin = qzi_put_scale(out + 2, most_min / 63);
    if (!qzi_finite(d) || !qzi_finite(dmin)) return 0;
    inverse = qzi_inverse(d);
    inverse_min = qzi_inverse(dmin);
    memset(fifth, 0, (size_t)(nibbles - fifth));
    for (j = 0; j < 8; j++) {
        float a, b;
        s[j] = qzi_nearest(scale[j] * inverse, 0, 63);
        m[j] = qzi_nearest(-min[j] * inverse_min, 0, 63);
        qzi_refine_line(x + 32 * j, d, dmin, high, &s[j], &m[j]);
        a = d * (float)s[j];
        b = -dmin * (float)m[j];
        for (i = 0; i < 32; i++) {
            int q = qzi_nearest((x[32 * j + i] - b) * qzi_inverse(a), 0, high);
            unsigned char *byte = &nibbles[j / 2 * 32 + i];
            *byte = (unsigned char)(j % 2 ? *byte | (q & 15) << 4 : q & 15);
            if (high > 15) fifth[i] = (unsigned char)(fifth[i] | (q >> 4) << j);
        }
    }
    qzi_pack_scales(out + 4, s, m);
    return 1;
}

static int qzi_q4_k(const float *x, unsigned char *out) { return qzi_k_line(x, out, 15); }
static int qzi_q5_k(const float *x, unsigned char *out) { return qzi_k_line(x, out, 31); }

/* Q6_K: 128 bytes of low halves, 64 of high pairs of bits, 16 scales, d.  For each 128 weights,
 * weight 32 k + i has its low half in nibble k / 2 of byte 32 (k % 2) + i, its high bits in pair k
 * of byte i. */
static int qzi_q6_k(const float *x, unsigned char *out) {
    float scale[16], peak = 0, d, inverse;
    int j, i;
    for (j = 0; j < 16; j++) {
        scale[j] = qzi_fit_scale(x + 16 * j, 16, -32, 31);
        if (fabsf(scale[j]) > fabsf(peak)) peak = scale[j];
    }
    d = qzi_put_scale(out + 208, peak / -128);
    if (!qzi_finite(d)) return 0;
    inverse = qzi_inverse(d);
    memset(out, 0, 192);
    for (j = 0; j < 16; j++) {
        int s0 = qzi_nearest(scale[j] * inverse, -128, 127), s = s0, t;
        float best = FLT_MAX;
        for (t = s0 - 1; t <= s0 + 1; t++) {
            float error = qzi_error(x + 16 * j, 16, d * (float)t, 0, -32, 31);
            if (t < -128 || t > 127 || error >= best) continue;
            best = error;
            s = t;
        }
        out[192 + j] = (unsigned char)s;
        for (i = 16 * j; i < 16 * (j + 1); i++) {
            int q = qzi_nearest(x[i] * qzi_inverse(d * (float)s), -32, 31) + 32;
            int half = i / 128, k = i % 128 / 32, at = i % 32;
            unsigned char *low = &out[64 * half + 32 * (k % 2) + at];
            unsigned char *high = &out[128 + 32 * half + at];
            *low = (unsigned char)(*low | (q & 15) << (k / 2 * 4));
            *high = (unsigned char)(*high | (q >> 4) << (2 * k));
        }
    }
    return 1;
}

/* ==== >>rows ================================================================================ */

static int qzi_f32(const float *x, unsigned char *out) {
    qzi_put32(out, qzi_bits(*x));
    return 1;
}

static int qzi_f16(const float *x, unsigned char *out) {
    return qzi_finite(qzi_put_scale(out, *x));
}

static int qzi_bf16(const float *x, unsigned char *out) {
    qzi_put16(out, qzi_to_bf16(*x));
    return 1;
}

/* A block at a time; 0 if its scale is not finite. */
static const struct qzi_format {
    const char *name;
    int type, block, bytes;
    int (*write)(const float *x, unsigned char *out);
} qzi_formats[] = {
    {"F32", QUANTIZE_F32, 1, 4, qzi_f32},        {"F16", QUANTIZE_F16, 1, 2, qzi_f16},
    {"BF16", QUANTIZE_BF16, 1, 2, qzi_bf16},     {"Q4_0", QUANTIZE_Q4_0, 32, 18, qzi_q4_0},
    {"Q4_1", QUANTIZE_Q4_1, 32, 20, qzi_q4_1},   {"Q5_0", QUANTIZE_Q5_0, 32, 22, qzi_q5_0},
    {"Q5_1", QUANTIZE_Q5_1, 32, 24, qzi_q5_1},   {"Q8_0", QUANTIZE_Q8_0, 32, 34, qzi_q8_0},
    {"Q4_K", QUANTIZE_Q4_K, 256, 144, qzi_q4_k}, {"Q5_K", QUANTIZE_Q5_K, 256, 176, qzi_q5_k},
    {"Q6_K", QUANTIZE_Q6_K, 256, 210, qzi_q6_k}};

static const struct qzi_format *qzi_format_of(int type) {
    size_t i;
    for (i = 0; i < sizeof qzi_formats / sizeof *qzi_formats; i++)
        if (qzi_formats[i].type == type) return &qzi_formats[i];
    return NULL;
}

QUANTIZE_API const char *quantize_type_name(int type) {
    const struct qzi_format *f = qzi_format_of(type);
    return f ? f->name : "unknown";
}

QUANTIZE_API int quantize_block(int type) {
    const struct qzi_format *f = qzi_format_of(type);
    return f ? f->block : 0;
}

QUANTIZE_API size_t quantize_row_size(int type, size_t n_cols) {
    const struct qzi_format *f = qzi_format_of(type);
    if (!f || n_cols % (size_t)f->block != 0 || n_cols / (size_t)f->block > SIZE_MAX / 256)
        return 0;
    return n_cols / (size_t)f->block * (size_t)f->bytes;
}

/* The first number of a block that is to blame: not finite or, failing that, the largest. */
static size_t qzi_blame(const float *x, size_t n) {
    size_t i, most = 0;
    for (i = 0; i < n; i++) {
        if (!qzi_finite(x[i])) return i;
        if (fabsf(x[i]) > fabsf(x[most])) most = i;
    }
    return most;
}

QUANTIZE_API quantize_status quantize_rows(int type, const float *x, size_t n_rows, size_t n_cols,
                                           void *out, size_t out_size, size_t *bad) {
    const struct qzi_format *f = qzi_format_of(type);
    size_t row = quantize_row_size(type, n_cols), n, i, k;
    unsigned char *to = (unsigned char *)out;
    if (n_rows == 0) return f ? QUANTIZE_OK : QUANTIZE_ARGUMENT;
    if (!x || !out || row == 0 || n_rows > out_size / row) return QUANTIZE_ARGUMENT;
    n = n_rows * (n_cols / (size_t)f->block);
    for (i = 0; i < n; i++, to += f->bytes) {
        const float *block = x + i * (size_t)f->block;
        int ok = 1;
        for (k = 0; f->block > 1 && k < (size_t)f->block; k++) /* sums of squares stay finite */
            ok &= qzi_finite(block[k]) && fabsf(block[k]) < 1e9f;
        if (ok && f->write(block, to)) continue;
        if (bad) *bad = i * (size_t)f->block + qzi_blame(block, (size_t)f->block);
        return QUANTIZE_VALUE;
    }
    return QUANTIZE_OK;
}

/* ==== >>presets ============================================================================= */

static const quantize_preset qzi_presets[] = {
    {"f32", 0, QUANTIZE_F32, QUANTIZE_F32, QUANTIZE_F32},
    {"f16", 1, QUANTIZE_F16, QUANTIZE_F16, QUANTIZE_F16},
    {"bf16", 32, QUANTIZE_BF16, QUANTIZE_BF16, QUANTIZE_BF16},
    {"q8_0", 7, QUANTIZE_Q8_0, QUANTIZE_Q8_0, QUANTIZE_Q8_0},
    {"q6_k", 18, QUANTIZE_Q6_K, QUANTIZE_Q6_K, QUANTIZE_Q6_K},
    {"q5_k_m", 17, QUANTIZE_Q5_K, QUANTIZE_Q6_K, QUANTIZE_Q6_K},
    {"q4_k_m", 15, QUANTIZE_Q4_K, QUANTIZE_Q6_K, QUANTIZE_Q6_K},
    {"q5_1", 9, QUANTIZE_Q5_1, QUANTIZE_Q6_K, QUANTIZE_Q5_1},
    {"q5_0", 8, QUANTIZE_Q5_0, QUANTIZE_Q6_K, QUANTIZE_Q5_0},
    {"q4_1", 3, QUANTIZE_Q4_1, QUANTIZE_Q6_K, QUANTIZE_Q4_1},
    {"q4_0", 2, QUANTIZE_Q4_0, QUANTIZE_Q6_K, QUANTIZE_Q4_0}};

QUANTIZE_API const quantize_preset *quantize_preset_at(int i) {
    if (i < 0 || (size_t)i >= sizeof qzi_presets / sizeof *qzi_presets) return NULL;
    return &qzi_presets[i];
}

QUANTIZE_API const quantize_preset *quantize_preset_find(const char *name) {
    int i;
    for (i = 0; name && quantize_preset_at(i); i++)
        if (strcmp(name, qzi_presets[i].name) == 0) return &qzi_presets[i];
    return NULL;
}

/* What follows "blk.N." in a tensor's name, and *layer = N; the whole name, and -1, if nothing does. */
static const char *qzi_part(const char *name, int *layer) {
    const char *p = name + 4;
    *layer = -1;
    if (strncmp(name, "blk.", 4) != 0) return name;
    for (*layer = 0; *p >= '0' && *p <= '9' && *layer < 100000; p++)
        *layer = *layer * 10 + (*p - '0');
    return *p == '.' ? p + 1 : name;
}

static int qzi_more_bits(int layer, int n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static int qzi_is_arch(const quantize_model *model, const char *arch) {
    return model->arch && strcmp(model->arch, arch) == 0;
}

/* Eight query heads to one of keys and values: attn_v is small, so that more bits cost little. */
static int qzi_is_70b(const quantize_model *model) {
    return model->n_layers == 80 &&
           (qzi_is_arch(model, "qwen2") || qzi_is_arch(model, "olmo") ||
            (qzi_is_arch(model, "llama") && model->n_heads != model->n_kv_heads));
}

static int qzi_type_of_values(const quantize_preset *preset, const quantize_model *model,
                              int layer) {
    int type = qzi_more_bits(layer, model->n_layers) ? preset->more : preset->type;
    if (model->n_experts == 8) return QUANTIZE_Q8_0;
    return type == QUANTIZE_Q4_K && qzi_is_70b(model) ? (int)QUANTIZE_Q5_K : type;
}

static int qzi_type_of_down(const quantize_preset *preset, const quantize_model *model, int layer) {
    if (preset->type == QUANTIZE_Q4_K && qzi_is_arch(model, "falcon")) {
        if (layer < model->n_layers / 16) return preset->more;
        return qzi_more_bits(layer, model->n_layers) ? QUANTIZE_Q5_K : QUANTIZE_Q4_K;
    }
    return qzi_more_bits(layer, model->n_layers) ? preset->more : preset->type;
}

/* In a preset that has blocks. */
static int qzi_mixed_type(const quantize_preset *preset, const quantize_model *model,
                          const char *name) {
    int layer, eight = model->n_experts == 8;
    const char *part = qzi_part(name, &layer);
    if (strcmp(name, model->tied ? "token_embd.weight" : "output.weight") == 0)
        return qzi_is_arch(model, "falcon") ? (int)QUANTIZE_Q8_0 : preset->output;
    if (strcmp(part, "attn_v.weight") == 0 || strcmp(part, "attn_qkv.weight") == 0)
        return qzi_type_of_values(preset, model, layer);
    if (strncmp(part, "ffn_down", 8) == 0) return qzi_type_of_down(preset, model, layer);
    if (eight && strcmp(part, "attn_k.weight") == 0) return QUANTIZE_Q8_0;
    if (eight && preset->type == QUANTIZE_Q4_K && strcmp(part, "attn_output.weight") == 0)
        return QUANTIZE_Q5_K;
    return preset->type;
}

static int qzi_fallback(int type, size_t n_cols) {
    static const int smaller[][2] = {{QUANTIZE_Q4_K, QUANTIZE_Q5_0},
                                     {QUANTIZE_Q5_K, QUANTIZE_Q5_1},
                                     {QUANTIZE_Q6_K, QUANTIZE_Q8_0}};
    size_t i;
    for (i = 0; i < 3; i++)
        if (type == smaller[i][0] && n_cols % 256 != 0) type = smaller[i][1];
    return n_cols % (size_t)quantize_block(type) == 0 ? type : (int)QUANTIZE_F16;
}

QUANTIZE_API int quantize_tensor_type(const quantize_preset *preset, const quantize_model *model,
                                      const char *name, int n_dims, size_t n_cols) {
    size_t n = name ? strlen(name) : 0;
    if (!preset || !model || n < 7 || n_dims < 2 || strcmp(name + n - 7, ".weight") != 0 ||
        strcmp(name, "position_embd.weight") == 0 || strstr(name, "norm") ||
        strstr(name, "ffn_gate_inp."))
        return QUANTIZE_F32;
    if (quantize_block(preset->type) == 1) return preset->type;
    return qzi_fallback(qzi_mixed_type(preset, model, name), n_cols);
}

#ifdef __cplusplus
}
#endif
#endif /* QUANTIZE_IMPLEMENTATION */
