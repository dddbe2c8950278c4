/* sampler.h - from logits to the next token: penalties, temperature, top-k, top-p, min-p, typical.
 * Licence: MIT.
 *
 *     #define SAMPLER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "sampler.h"
 *     ...
 *     sampler s;
 *     sampler_options options = {0};          (greedy)
 *     options.temperature = 0.8f;
 *     options.min_p = 0.05f;
 *     options.repetition = 1.1f;
 *     if (sampler_init(&s, &options) == 0) {
 *         sampler_penalize(&s, logits, vocab_size, history, n_history, scratch);   (changes logits)
 *         token = sampler_sample(&s, logits, vocab_size, scratch);
 *     }
 *
 * C99 or C++11, libc and libm.  Nothing is allocated: scratch is the caller's, vocab_size
 * candidates, and so is the history, the latest tokens in any order.  A sampler holds no pointers;
 * copying it forks its random stream.
 *
 * THE ORDER of steps is that of Hugging Face transformers' logits processors; what those do not
 * have stands where vLLM and llama.cpp have it:
 *   sampler_bias (optional)
 *   1. bias          added to the logits of single tokens; -inf forbids one
 *   sampler_penalize (optional), for each token that occurs in the history, count times
 *   2. repetition    positive logits are divided by it, negative ones multiplied (Keskar et al.
 *                    2019, arXiv:1909.05858)
 *   3. presence, frequency   the logit loses presence + count * frequency
 *   sampler_sample
 *   4. temperature   every logit is divided by it; 0 means greedy: the largest logit, the lowest
 *                    id among equals, and no random number is drawn
 *   5. top_k         only the k largest logits stay (lower ids first among equals); 0 = all
 *   6. softmax       over what is left, here and after each step that takes some away
 *   7. top_p         only the shortest run of most probable tokens whose probabilities sum to at
 *                    least p stays, never less than one; 1 or 0 = all (Holtzman et al. 2019,
 *                    arXiv:1904.09751)
 *   8. min_p         only tokens at least min_p times as probable as the first stay; 0 = all
 *                    (Nguyen et al. 2024, arXiv:2407.01082)
 *   9. typical       only the tokens stay whose -log probability is nearest to its mean (the
 *                    entropy), the fewest that sum to at least this, and those just as near as
 *                    the last of them; 1 or 0 = all (Meister et al. 2022, arXiv:2202.00666)
 *  10. the draw      one number u of the generator; the candidates are walked in the order of
 *                    sampler_candidates until their probabilities sum to more than u
 *
 * THE GENERATOR is PCG32 (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient
 * Statistically Good Algorithms for Random Number Generation", pcg32 XSH RR 64/32), seeded like
 * pcg32_srandom(seed, 54); u = next / 2^32, one per drawn token.  The same seed gives the same
 * numbers everywhere; the same tokens too wherever libm's exp() and log() agree.
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
    float min_p;      /* 0 = off */
    float typical;    /* 0 or 1 = off */
    float repetition; /* 0 or 1 = off; larger discourages */
    float presence;   /* 0 = off; negative encourages */
    float frequency;  /* 0 = off; negative encourages */
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

/* What sampler_bias adds to the logit of one token. */
typedef struct sampler_token_bias {
    int id;
    float bias; /* -inf forbids the token */
} sampler_token_bias;

/* 0, or -1 if a pointer is NULL, temperature, top_k or repetition is negative, top_p, min_p or
 * typical is outside 0 .. 1 or anything is not finite. */
int sampler_init(sampler *s, const sampler_options *options);

/* Step 1, in place.  0; or -1, with nothing changed, if a pointer is NULL, an id is outside 0 .. n-1
 * or a bias is NaN or +inf. */
int sampler_bias(float *logits, int n, const sampler_token_bias *bias, int n_bias);

/* Steps 2 and 3, in place; one pass over the history [n_history], none over the vocabulary.
 * scratch [n] is overwritten.  0; or -1, with nothing changed, if a pointer is NULL (no history
 * needs none) or a token is outside 0 .. n-1. */
int sampler_penalize(const sampler *s, float *logits, int n, const int32_t *history, int n_history,
                     sampler_candidate *scratch);

/* The next token; advances the generator unless greedy.  logits [n] stay as they are, scratch [n]
 * (may be NULL if greedy).  -1 if there is nothing to choose from: n < 1, a logit is NaN or +inf,
 * or all are -inf. */
int sampler_sample(sampler *s, const float *logits, int n, sampler_candidate *scratch);

/* What sampler_sample draws from: writes the candidates to scratch [n] and returns how many, or
 * -1 as above.  Probabilities sum to 1.  With typical the most typical comes first; else with
 * top_k or top_p they are in descending order, else in the order of ids (sorting a whole
 * vocabulary would be the slowest step of all). */
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

/* NaN is not. */
static int smi_within(float x, float low, float high) { return x >= low && x <= high; }

int sampler_init(sampler *s, const sampler_options *options) {
    if (s == NULL || options == NULL) return -1;
    if (!smi_within(options->temperature, 0, FLT_MAX) || options->top_k < 0 ||
        !smi_within(options->top_p, 0, 1) || !smi_within(options->min_p, 0, 1) ||
        !smi_within(options->typical, 0, 1) || !smi_within(options->repetition, 0, FLT_MAX) ||
        !smi_within(options->presence, -FLT_MAX, FLT_MAX) ||
        !smi_within(options->frequency, -FLT_MAX, FLT_MAX))
        return -1;
    s->options = *options;
    s->state = 0;
    s->increment = (54u << 1) | 1;
    sampler_random(s);
    s->state += options->seed;
    sampler_random(s);
    return 0;
}

/* ---- bias and penalties ---- */

int sampler_bias(float *logits, int n, const sampler_token_bias *bias, int n_bias) {
    if (logits == NULL || (bias == NULL && n_bias > 0)) return -1;
    for (int i = 0; i < n_bias; i++)
        if (bias[i].id < 0 || bias[i].id >= n || !(bias[i].bias <= FLT_MAX)) return -1;
    for (int i = 0; i < n_bias; i++) logits[bias[i].id] += bias[i].bias;
    return 0;
}

int sampler_penalize(const sampler *s, float *logits, int n, const int32_t *history, int n_history,
                     sampler_candidate *scratch) {
    float repetition = s->options.repetition > 0 ? s->options.repetition : 1;
    if (n_history < 1) return 0;
    if (logits == NULL || history == NULL || scratch == NULL) return -1;
    for (int i = 0; i < n_history; i++)
        if (history[i] < 0 || history[i] >= n) return -1;
    /* a token's own candidate counts it, so that no pass is over the vocabulary */
    for (int i = 0; i < n_history; i++) scratch[history[i]].id = 0;
    for (int i = 0; i < n_history; i++) scratch[history[i]].id++;
    for (int i = 0; i < n_history; i++) {
        int *count = &scratch[history[i]].id;
        float *logit = &logits[history[i]];
        if (*count == 0) continue; /* done at an earlier place */
        *logit = *logit < 0 ? *logit * repetition : *logit / repetition;
        *logit -= s->options.presence + (float)*count * s->options.frequency;
        *count = 0;
    }
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

/* Keeps, in their order, those at least min_p as probable as the first, whose unnormalised
 * probability is 1.  Returns how many. */
static int smi_min_p(sampler_candidate *c, int n, float min_p) {
    int count = 0;
    for (int i = 0; i < n; i++)
        if (c[i].probability >= min_p) c[count++] = c[i];
    return count;
}

/* Brings the most typical to the front and returns how many stay.  In between, a candidate's logit
 * is minus its distance from the entropy; its own comes back from logits. */
static int smi_typical(sampler_candidate *c, int n, float mass, const float *logits) {
    double sum = smi_sum(c, n), entropy = 0;
    int count;
    for (int i = 0; i < n; i++) {
        double p = c[i].probability / sum;
        if (p > 0) entropy -= p * log(p);
    }
    for (int i = 0; i < n; i++)
        c[i].logit =
            c[i].probability > 0 ? -(float)fabs(log(c[i].probability / sum) + entropy) : -FLT_MAX;
    count = smi_select(c, n, n, mass * sum);
    /* the others are a heap, not sorted: one pass for those as near as the last */
    float distance = c[count - 1].logit;
    for (int i = count; i < n; i++)
        if (c[i].logit >= distance && c[i].probability > 0) {
            sampler_candidate swap = c[count];
            c[count++] = c[i];
            c[i] = swap;
        }
    for (int i = 0; i < count; i++) c[i].logit = logits[c[i].id];
    return count;
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
    if (s->options.min_p > 0) count = smi_min_p(scratch, count, s->options.min_p);
    if (s->options.typical > 0 && s->options.typical < 1)
        count = smi_typical(scratch, count, s->options.typical, logits);
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
