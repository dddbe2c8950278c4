/* sampler.h - from logits to the next token: greedy, temperature, top-k, top-p.  Licence: MIT.
 *
 *     #define SAMPLER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "sampler.h"
 *     ...
 *     sampler s;
 *     sampler_options options = {0};          (greedy)
 *     options.temperature = 0.8f;
 *     options.top_p = 0.9f;
 *     if (sampler_init(&s, &options) == 0)
 *         token = sampler_sample(&s, logits, vocab_size, scratch);
 *
 * C99 or C++11, libc and libm.  Nothing is allocated: scratch is the caller's, vocab_size
 * candidates. A sampler holds no pointers; copying it forks its random stream.
 *
 * THE ORDER of steps is that of Hugging Face transformers' logits warpers:
 *   1. temperature   every logit is divided by it; 0 means greedy: the largest logit, the lowest
 *                    id among equals, and no random number is drawn
 *   2. top_k         only the k largest logits stay (lower ids first among equals); 0 = all
 *   3. softmax       over what is left
 *   4. top_p         only the shortest run of most probable tokens whose probabilities sum to at
 *                    least p stays, never less than one; 1 or 0 = all (Holtzman et al. 2019,
 *                    arXiv:1904.09751)
 *   5. the draw      one number u of the generator; the candidates are walked in the order of
 *                    sampler_candidates until their probabilities sum to more than u
 *
 * THE GENERATOR is PCG32 (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient
 * Statistically Good Algorithms for Random Number Generation", pcg32 XSH RR 64/32), seeded like
 * pcg32_srandom(seed, 54); u = next / 2^32, one per drawn token.  The same seed gives the same
 * numbers everywhere; the same tokens too wherever libm's exp() agrees.
 */
#ifndef SAMPLER_H
#define SAMPLER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All zero = greedy. */
typedef struct sampler_options {
    float temperature; /* 0 = greedy; larger is more random */
    int top_k;         /* 0 = off */
    float top_p;       /* 0 or 1 = off */
    uint64_t seed;
} sampler_options;

typedef struct sampler {
    sampler_options options;
    uint64_t state, increment; /* PCG32 */
} sampler;

typedef struct sampler_candidate {
    int id;
    float logit;
    float probability;
} sampler_candidate;

/* 0, or -1 if a pointer is NULL, temperature or top_k is negative, top_p is outside 0 .. 1 or
 * anything is not finite. */
int sampler_init(sampler *s, const sampler_options *options);

/* The next token; advances the generator unless greedy.  logits [n] stay as they are, scratch [n]
 * (may be NULL if greedy).  -1 if there is nothing to choose from: n < 1, a logit is NaN or +inf,
 * or all are -inf. */
int sampler_sample(sampler *s, const float *logits, int n, sampler_candidate *scratch);

/* What sampler_sample draws from: writes the candidates to scratch [n] and returns how many, or
 * -1 as above.  Probabilities sum to 1.  With top_k or top_p they are in descending order, else in
 * the order of ids (sorting a whole vocabulary would be the slowest step of all). */
int sampler_candidates(const sampler *s, const float *logits, int n, sampler_candidate *scratch);

/* The generator itself: the next 32 random bits. */
uint32_t sampler_random(sampler *s);

#ifdef __cplusplus
}
#endif
#endif /* SAMPLER_H */

#ifdef SAMPLER_IMPLEMENTATION
#ifndef SAMPLER_IMPLEMENTED
#define SAMPLER_IMPLEMENTED

#include <float.h>
#include <math.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the generator ---- */

uint32_t sampler_random(sampler *s) {
    uint64_t old = s->state;
    uint32_t xorshifted = (uint32_t)(((old >> 18) ^ old) >> 27);
    uint32_t rotation = (uint32_t)(old >> 59);
    s->state = old * 6364136223846793005u + s->increment;
    return (xorshifted >> rotation) | (xorshifted << ((32 - rotation) & 31));
}

int sampler_init(sampler *s, const sampler_options *options) {
    if (s == NULL || options == NULL) return -1;
    /* written so that NaN fails */
    if (!(options->temperature >= 0 && options->temperature <= FLT_MAX) || options->top_k < 0 ||
        !(options->top_p >= 0 && options->top_p <= 1))
        return -1;
    s->options = *options;
    s->state = 0;
    s->increment = (54u << 1) | 1;
    sampler_random(s);
    s->state += options->seed;
    sampler_random(s);
    return 0;
}

/* ---- candidates ---- */

/* Id of the largest logit, the lowest among equals; -1 if there is none (see sampler_sample). */
static int smi_argmax(const float *logits, int n) {
    int best = -1;
    if (logits == NULL) return -1;
    for (int i = 0; i < n; i++) {
        if (!(logits[i] <= FLT_MAX)) return -1;
        if (logits[i] >= -FLT_MAX && (best < 0 || logits[i] > logits[best])) best = i;
    }
    return best;
}

/* Does a come before b?  Larger logits first, lower ids first among equals. */
static int smi_before(const sampler_candidate *a, const sampler_candidate *b) {
    return a->logit > b->logit || (!(a->logit < b->logit) && a->id < b->id);
}

/* Restores the heap c[0 .. n-1], in which each i comes before its children 2i+1 and 2i+2, after
 * c[i] changed. */
static void smi_sift_down(sampler_candidate *c, int n, int i) {
    sampler_candidate moved = c[i];
    while (i < n / 2) {
        int child = 2 * i + 1;
        if (child + 1 < n && smi_before(&c[child + 1], &c[child])) child++;
        if (!smi_before(&c[child], &moved)) break;
        c[i] = c[child];
        i = child;
    }
    c[i] = moved;
}

/* Takes the first candidate off the heap c[0 .. n-1] and leaves it in c[n-1]. */
static void smi_pop(sampler_candidate *c, int n) {
    sampler_candidate first = c[0];
    c[0] = c[n - 1];
    c[n - 1] = first;
    smi_sift_down(c, n - 1, 0);
}

/* Brings the first candidates to the front in descending order: at most `most`, and no more than
 * it takes to reach `mass` (the sum of their unnormalised probabilities).  Returns how many. A
 * heap gives them one by one, so that a few out of many cost little more than one pass. */
static int smi_select(sampler_candidate *c, int n, int most, double mass) {
    int count = 0;
    double sum = 0;
    for (int i = n / 2 - 1; i >= 0; i--) smi_sift_down(c, n, i);
    while (count < most && (count == 0 || sum < mass)) {
        smi_pop(c, n - count);
        count++;
        sum += c[n - count].probability;
    }
    /* the first one is now the last, and so on: mirror the array */
    for (int i = 0, j = n - 1; i < j; i++, j--) {
        sampler_candidate swap = c[i];
        c[i] = c[j];
        c[j] = swap;
    }
    return count;
}

static double smi_sum(const sampler_candidate *c, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].probability;
    return sum;
}

int sampler_candidates(const sampler *s, const float *logits, int n, sampler_candidate *scratch) {
    int count = n, best = smi_argmax(logits, n);
    if (best < 0 || scratch == NULL) return -1;
    if (!(s->options.temperature > 0)) {
        scratch[0].id = best;
        scratch[0].logit = logits[best];
        scratch[0].probability = 1;
        return 1;
    }
    for (int i = 0; i < n; i++) { /* relative to the largest, so that exp cannot overflow */
        double x = ((double)logits[i] - logits[best]) / s->options.temperature;
        scratch[i].id = i;
        scratch[i].logit = logits[i];
        scratch[i].probability = (float)exp(x);
    }
    int top_k = s->options.top_k > 0 && s->options.top_k < n;
    int top_p = s->options.top_p > 0 && s->options.top_p < 1;
    if (top_k) count = smi_select(scratch, n, s->options.top_k, DBL_MAX);
    if (top_p)
        count = smi_select(scratch, count, count, s->options.top_p * smi_sum(scratch, count));
    double sum = smi_sum(scratch, count);
    for (int i = 0; i < count; i++) scratch[i].probability = (float)(scratch[i].probability / sum);
    return count;
}

int sampler_sample(sampler *s, const float *logits, int n, sampler_candidate *scratch) {
    if (!(s->options.temperature > 0)) return smi_argmax(logits, n);
    int count = sampler_candidates(s, logits, n, scratch);
    if (count < 0) return -1;
    double u = sampler_random(s) / 4294967296.0, sum = 0;
    int last = -1;
    for (int i = 0; i < count; i++) {
        if (!(scratch[i].probability > 0)) continue;
        last = scratch[i].id;
        sum += scratch[i].probability;
        if (u < sum) return last;
    }
    return last; /* rounding left the sum just below u */
}

#ifdef __cplusplus
}
#endif
#endif /* SAMPLER_IMPLEMENTED */
#endif /* SAMPLER_IMPLEMENTATION */
