/* test_sampler.c - examples/sampler.h against a plain version in double precision, and draws
 * against their probabilities.
 *
 *     cc -O2 tests/test_sampler.c -o build/test_sampler -lm && build/test_sampler
 */
#define SAMPLER_IMPLEMENTATION
#include "../examples/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_N = 1000 };

static int passed, failed, wrong; /* wrong: failed checks of the present group */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && wrong++ < 5) printf("  line %d: %s\n", __LINE__, #condition);          \
    } while (0)

static void end_group(const char *name) {
    printf("%s %s\n", wrong ? "FAIL" : "ok  ", name);
    wrong ? failed++ : passed++;
    wrong = 0;
}

static uint32_t random_state = 12345;

static uint32_t random_u32(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static double random_unit(void) { return random_u32() / 4294967296.0; }

static sampler make(float temperature, int top_k, float top_p, uint64_t seed) {
    sampler s;
    sampler_options options;
    memset(&s, 0, sizeof s);
    options.temperature = temperature;
    options.top_k = top_k;
    options.top_p = top_p;
    options.seed = seed;
    CHECK(sampler_init(&s, &options) == 0);
    return s;
}

/* Logits with equal values among them (steps of 1/4) and, at times, -inf. */
static void random_logits(float *logits, int n) {
    int coarse = random_u32() % 2 == 0, holes = random_u32() % 3 == 0;
    for (int i = 0; i < n; i++) {
        double x = 12 * random_unit() - 6;
        logits[i] = (float)(coarse ? floor(4 * x) / 4 : x);
        if (holes && i > 0 && random_u32() % 4 == 0) logits[i] = -HUGE_VALF;
    }
}

/* ---- the plain version: sort everything, one step after another ---- */

typedef struct plain {
    int id;
    double logit, p;
} plain;

static int descending(const void *a, const void *b) {
    const plain *x = (const plain *)a, *y = (const plain *)b;
    if (x->logit > y->logit || x->logit < y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

/* Sorted, cut to top_k, with probabilities; top_p is left to the caller.  Returns how many. */
static int plain_distribution(plain *out, const float *logits, int n, double temperature,
                              int top_k) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        out[i].id = i;
        out[i].logit = logits[i];
    }
    qsort(out, (size_t)n, sizeof *out, descending);
    if (top_k > 0 && top_k < n) n = top_k;
    for (int i = 0; i < n; i++) sum += out[i].p = exp((out[i].logit - out[0].logit) / temperature);
    for (int i = 0; i < n; i++) out[i].p /= sum;
    return n;
}

/* ---- groups ---- */

static void test_generator(void) {
    /* the first numbers of pcg32-demo in O'Neill's pcg-c-basic: seed 42, sequence 54 */
    static const uint32_t expected[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                        0x83d2f293, 0xbfa4784b, 0xcbed606e};
    sampler s = make(1, 0, 0, 42);
    for (int i = 0; i < 6; i++) CHECK(sampler_random(&s) == expected[i]);
    end_group("the generator is PCG32");
}

static void test_options(void) {
    sampler s;
    sampler_options good, bad;
    memset(&good, 0, sizeof good);
    CHECK(sampler_init(&s, &good) == 0);
    CHECK(sampler_init(NULL, &good) == -1);
    CHECK(sampler_init(&s, NULL) == -1);
    const float bad_temperatures[] = {-1, NAN, HUGE_VALF}, bad_top_ps[] = {-0.1f, 1.5f, NAN};
    for (int i = 0; i < 3; i++) {
        bad = good;
        bad.temperature = bad_temperatures[i];
        CHECK(sampler_init(&s, &bad) == -1);
        bad = good;
        bad.top_p = bad_top_ps[i];
        CHECK(sampler_init(&s, &bad) == -1);
    }
    bad = good;
    bad.top_k = -1;
    CHECK(sampler_init(&s, &bad) == -1);
    end_group("impossible options are refused");
}

static void test_greedy(void) {
    float logits[MAX_N];
    sampler s = make(0, 5, 0.5f, 7), before = s;
    for (int round = 0; round < 500; round++) {
        int n = 1 + (int)(random_u32() % MAX_N), best = 0;
        random_logits(logits, n);
        for (int i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
        CHECK(sampler_sample(&s, logits, n, NULL) == best);
    }
    CHECK(s.state == before.state);
    end_group("greedy: the largest logit, the lowest id among equals, no random number");
}

static void test_nothing_to_choose(void) {
    sampler_candidate scratch[4];
    for (int greedy = 0; greedy < 2; greedy++) {
        sampler s = make(greedy ? 0.0f : 1.0f, 0, 0, 1);
        float logits[4] = {0, NAN, 1, 2};
        CHECK(sampler_sample(&s, logits, 4, scratch) == -1);
        logits[1] = HUGE_VALF;
        CHECK(sampler_sample(&s, logits, 4, scratch) == -1);
        for (int i = 0; i < 4; i++) logits[i] = -HUGE_VALF;
        CHECK(sampler_sample(&s, logits, 4, scratch) == -1);
        CHECK(sampler_sample(&s, logits, 0, scratch) == -1);
        CHECK(sampler_sample(&s, NULL, 4, scratch) == -1);
        logits[2] = -3e38f;
        CHECK(sampler_sample(&s, logits, 4, scratch) == 2);
    }
    end_group("nothing to choose from is reported");
}

static void check_candidates(const float *logits, int n, float temperature, int top_k,
                             float top_p) {
    static plain expected[MAX_N];
    static sampler_candidate got[MAX_N + 1];
    sampler s = make(temperature, top_k, top_p, 1);
    got[n].id = -77;
    int count = sampler_candidates(&s, logits, n, got);
    int most = plain_distribution(expected, logits, n, temperature, top_k);
    CHECK(got[n].id == -77);
    CHECK(count >= 1 && count <= most);

    int sorted = (top_k > 0 && top_k < n) || (top_p > 0 && top_p < 1);
    double mass = 0, sum = 0;
    for (int i = 0; i < count; i++) mass += expected[i].p;
    if (top_p > 0 && top_p < 1) { /* the shortest prefix that reaches top_p, up to rounding */
        CHECK(mass > top_p - 1e-5);
        CHECK(count == 1 || mass - expected[count - 1].p < top_p + 1e-5);
    } else {
        CHECK(count == most);
    }
    for (int i = 0; i < count; i++) {
        CHECK(i == 0 || sorted || got[i].id > got[i - 1].id);
        CHECK(!sorted || got[i].id == expected[i].id);
        sum += got[i].probability;
    }
    for (int i = 0, j; i < count; i++) {
        for (j = 0; got[j].id != expected[i].id && j < count - 1; j++)
            ;
        CHECK(got[j].id == expected[i].id);
        CHECK(fabs(got[j].probability - expected[i].p / mass) < 1e-6);
    }
    CHECK(fabs(sum - 1) < 1e-5);
}

static void test_candidates(void) {
    static const int sizes[] = {1, 2, 3, 17, 100, MAX_N};
    static const float temperatures[] = {0.01f, 0.7f, 1, 5};
    static const float top_ps[] = {0, 0.05f, 0.5f, 0.9f, 0.999f, 1};
    static const int top_ks[] = {0, 1, 2, 10, 99, 5000};
    float logits[MAX_N], copy[MAX_N];
    for (int size = 0; size < 6; size++)
        for (int t = 0; t < 4; t++)
            for (int p = 0; p < 6; p++)
                for (int k = 0; k < 6; k++) {
                    random_logits(logits, sizes[size]);
                    memcpy(copy, logits, sizeof copy);
                    check_candidates(logits, sizes[size], temperatures[t], top_ks[k], top_ps[p]);
                    CHECK(memcmp(copy, logits, (size_t)sizes[size] * sizeof(float)) == 0);
                }
    end_group("temperature, top-k, top-p equal the plain version in double precision");
}

/* Pearson's chi-square of the draws stays below the value that one run in ten thousand exceeds
 * (Wilson & Hilferty's approximation of the quantile). */
static void check_draws(float temperature, int top_k, float top_p, uint64_t seed) {
    enum { N = 30, DRAWS = 200000 };
    float logits[N];
    sampler_candidate scratch[N], expected[N];
    int counts[N] = {0};
    for (int i = 0; i < N; i++) logits[i] = (float)(3 * random_unit());
    sampler s = make(temperature, top_k, top_p, seed);
    int n = sampler_candidates(&s, logits, N, expected);
    for (int i = 0; i < DRAWS; i++) {
        int id = sampler_sample(&s, logits, N, scratch);
        CHECK(id >= 0 && id < N);
        counts[id < 0 ? 0 : id]++;
    }
    double chi_square = 0, freedom = n - 1, total = 0;
    for (int i = 0; i < n; i++) {
        double mean = DRAWS * (double)expected[i].probability;
        double difference = counts[expected[i].id] - mean;
        chi_square += difference * difference / mean;
        total += counts[expected[i].id];
    }
    CHECK(total == DRAWS); /* nothing else was drawn */
    double cube = 1 - 2 / (9 * freedom) + 3.72 * sqrt(2 / (9 * freedom));
    CHECK(n > 1 && chi_square < freedom * cube * cube * cube);
}

static void test_draws(void) {
    for (uint64_t seed = 0; seed < 3; seed++) {
        check_draws(1, 0, 0, seed);
        check_draws(0.5f, 0, 0, seed);
        check_draws(1, 7, 0, seed);
        check_draws(1, 0, 0.8f, seed);
        check_draws(2, 20, 0.7f, seed);
    }
    end_group("draws have the right frequencies (chi-square)");
}

static void test_streams(void) {
    float logits[50];
    sampler_candidate scratch[50];
    random_logits(logits, 50);
    sampler a = make(5, 0, 0, 99), b = make(5, 0, 0, 99), c = make(5, 0, 0, 100);
    int differs = 0;
    for (int i = 0; i < 100; i++) {
        int token = sampler_sample(&a, logits, 50, scratch);
        CHECK(token == sampler_sample(&b, logits, 50, scratch));
        differs += token != sampler_sample(&c, logits, 50, scratch);
    }
    CHECK(differs > 20);
    sampler fork = a;
    for (int i = 0; i < 100; i++)
        CHECK(sampler_sample(&a, logits, 50, scratch) ==
              sampler_sample(&fork, logits, 50, scratch));
    end_group("the same seed draws the same, a copy forks the stream");
}

int main(void) {
    test_generator();
    test_options();
    test_greedy();
    test_nothing_to_choose();
    test_candidates();
    test_draws();
    test_streams();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
