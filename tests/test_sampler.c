/* test_sampler.c - examples/sampler.h against a plain version in double precision, and draws
 * against their probabilities.
 *
 *     cc -O2 tests/test_sampler.c -o build/test_sampler -lm && build/test_sampler
 */
#define SAMPLER_IMPLEMENTATION
#include "../examples/sampler.h"

#include "test.h"

enum { MAX_N = 1000 };

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
    memset(&options, 0, sizeof options);
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
    GROUP("the generator is PCG32");
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
    /* option by option: values just outside its range, and one inside */
    static const float wrong_values[5][2] = {{-0.1f, 1.1f},
                                             {-0.1f, 1.1f},
                                             {-1, HUGE_VALF},
                                             {-HUGE_VALF, HUGE_VALF},
                                             {-HUGE_VALF, HUGE_VALF}};
    static const float right_values[5] = {0.05f, 0.9f, 1.3f, -2, 2};
    for (int option = 0; option < 5; option++)
        for (int i = 0; i < 4; i++) {
            bad = good;
            float *fields[] = {&bad.min_p, &bad.typical, &bad.repetition, &bad.presence,
                               &bad.frequency};
            *fields[option] = i < 2 ? wrong_values[option][i] : i == 2 ? NAN : right_values[option];
            CHECK(sampler_init(&s, &bad) == (i < 3 ? -1 : 0));
        }
    GROUP("impossible options are refused");
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
    GROUP("greedy: the largest logit, the lowest id among equals, no random number");
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
    GROUP("nothing to choose from is reported");
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
    GROUP("temperature, top-k, top-p equal the plain version in double precision");
}

/* ---- min-p and typical: the plain version knows how near its decisions were ---- */

static double margin; /* the smallest difference that a decision hung on */

static int decide(double value, double threshold) {
    if (fabs(value - threshold) < margin) margin = fabs(value - threshold);
    return value >= threshold;
}

static int most_typical(const void *a, const void *b) {
    const plain *x = (const plain *)a, *y = (const plain *)b;
    return x->logit > y->logit ? 1 : x->logit < y->logit ? -1 : x->id - y->id;
}

static double normalise(plain *c, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].p;
    for (int i = 0; i < n; i++) c[i].p /= sum;
    return sum;
}

/* What is left of the sorted c after top_p, min_p and typical, as the header words them. */
static int plain_filters(plain *c, int n, const sampler_options *o) {
    double cumulated = 0, entropy = 0, first = c[0].p;
    int kept = 0;
    if (o->top_p > 0 && o->top_p < 1) {
        do cumulated += c[kept++].p;
        while (kept < n && !decide(cumulated, (double)o->top_p));
        n = kept;
        normalise(c, n);
        first = c[0].p;
    }
    if (o->min_p > 0) {
        for (kept = 0; kept < n && decide(c[kept].p, (double)o->min_p * first);) kept++;
        n = kept;
        normalise(c, n);
    }
    if (o->typical > 0 && o->typical < 1) {
        while (n > 1 && !(c[n - 1].p > 0)) n--;
        for (int i = 0; i < n; i++) entropy -= c[i].p * log(c[i].p);
        for (int i = 0; i < n; i++) c[i].logit = fabs(-log(c[i].p) - entropy);
        qsort(c, (size_t)n, sizeof *c, most_typical);
        cumulated = 0, kept = 0;
        do cumulated += c[kept++].p;
        while (kept < n && !decide(cumulated, (double)o->typical));
        /* those just as near: equal logits, to be told from nearly equal distances */
        while (kept < n && fabs(c[kept].logit - c[kept - 1].logit) < 1e-13) kept++;
        if (kept < n) decide(c[kept].logit, c[kept - 1].logit);
        n = kept;
        normalise(c, n);
    }
    return n;
}

static int check_filters(const float *logits, int n, const sampler_options *o) {
    static plain expected[MAX_N];
    static sampler_candidate got[MAX_N];
    static double probability[MAX_N];
    sampler s;
    CHECK(sampler_init(&s, o) == 0);
    int count = sampler_candidates(&s, logits, n, got);
    int plain_count = plain_distribution(expected, logits, n, (double)o->temperature, o->top_k);
    margin = 1;
    plain_count = plain_filters(expected, plain_count, o);
    if (margin < 2e-6) return 0; /* too near to call */
    CHECK(count == plain_count);
    memset(probability, 0, sizeof probability);
    for (int i = 0; i < plain_count; i++) probability[expected[i].id] = expected[i].p;
    for (int i = 0; i < count; i++) {
        CHECK(fabs(probability[got[i].id] - (double)got[i].probability) < 1e-6);
        CHECK(got[i].logit >= logits[got[i].id] && got[i].logit <= logits[got[i].id]);
        probability[got[i].id] = -1; /* not twice */
    }
    return 1;
}

static void test_filters(void) {
    static const int sizes[] = {1, 2, 17, 100, MAX_N};
    static const float min_ps[] = {0, 0.02f, 0.3f, 0.9f}, typicals[] = {0, 0.1f, 0.6f, 0.95f, 1};
    float logits[MAX_N];
    int clear = 0, rounds = 0;
    for (int round = 0; round < 4; round++)
        for (int size = 0; size < 5; size++)
            for (int m = 0; m < 4; m++)
                for (int t = 0; t < 5; t++) {
                    sampler_options o;
                    memset(&o, 0, sizeof o);
                    o.temperature = round < 2 ? 1 : 0.6f;
                    o.top_k = round % 2 ? 12 : 0;
                    o.top_p = round == 3 ? 0.85f : 0;
                    o.min_p = min_ps[m], o.typical = typicals[t];
                    random_logits(logits, sizes[size]);
                    clear += check_filters(logits, sizes[size], &o);
                    rounds++;
                }
    CHECK(clear > rounds * 8 / 10);
    GROUP("min-p and typical, after top-k and top-p, equal the plain version");
}

static void test_bias(void) {
    float logits[4] = {1, 2, 3, 4}, before[4];
    sampler_token_bias bias[3] = {{3, -HUGE_VALF}, {0, 2.5f}, {0, -0.25f}};
    CHECK(sampler_bias(logits, 4, bias, 3) == 0);
    CHECK(fabsf(logits[0] - 3.25f) < 1e-6f && fabsf(logits[1] - 2) < 1e-6f);
    sampler s = make(0, 0, 0, 1);
    CHECK(sampler_sample(&s, logits, 4, NULL) == 0); /* 3 is forbidden */
    CHECK(sampler_bias(logits, 4, NULL, 0) == 0);
    memcpy(before, logits, sizeof before);
    static const sampler_token_bias bad[] = {{4, 1}, {-1, 1}, {0, NAN}, {0, HUGE_VALF}};
    for (int i = 0; i < 4; i++) {
        sampler_token_bias two[2] = {{1, 1}, {0, 0}};
        two[1] = bad[i];
        CHECK(sampler_bias(logits, 4, two, 2) == -1);
    }
    CHECK(sampler_bias(logits, 4, NULL, 1) == -1 && sampler_bias(NULL, 4, bias, 1) == -1);
    CHECK(memcmp(before, logits, sizeof before) == 0);
    GROUP("bias");
}

static void check_penalties(const sampler_options *o, int n, int n_history) {
    static sampler_candidate scratch[MAX_N];
    float logits[MAX_N], original[MAX_N];
    int32_t history[300];
    sampler s;
    CHECK(sampler_init(&s, o) == 0);
    random_logits(original, n);
    memcpy(logits, original, sizeof logits);
    for (int i = 0; i < n_history; i++) history[i] = (int32_t)(random_u32() % (uint32_t)n);
    memset(scratch, 0x55, sizeof scratch);
    CHECK(sampler_penalize(&s, logits, n, history, n_history, scratch) == 0);
    for (int i = 0; i < n; i++) {
        double want = original[i], repetition = o->repetition > 0 ? (double)o->repetition : 1;
        int count = 0;
        for (int j = 0; j < n_history; j++) count += history[j] == i;
        if (count > 0) {
            want = want > 0 ? want / repetition : want * repetition;
            want -= (double)o->presence;
            want -= count * (double)o->frequency;
        }
        CHECK(fabs(want - (double)logits[i]) < 1e-4 ||
              (original[i] <= -HUGE_VALF && logits[i] <= -HUGE_VALF));
        CHECK(count > 0 || (logits[i] >= original[i] && logits[i] <= original[i]));
    }
}

static void test_penalties(void) {
    static const float repetitions[] = {0, 1, 1.3f, 0.5f}, others[] = {0, 0.7f, -0.4f};
    static const int sizes[] = {1, 5, 60, MAX_N}, windows[] = {0, 1, 7, 300};
    sampler_options o;
    memset(&o, 0, sizeof o);
    for (int i = 0; i < 4 * 3 * 3; i++)
        for (int j = 0; j < 16; j++) {
            o.repetition = repetitions[i % 4];
            o.presence = others[i / 4 % 3], o.frequency = others[i / 12];
            check_penalties(&o, sizes[j % 4], windows[j / 4]);
        }
    sampler s = make(0, 0, 0, 1);
    sampler_candidate scratch[3];
    float logits[3] = {1, 2, 3};
    int32_t bad[2][2] = {{0, 3}, {0, -1}};
    s.options.presence = 1;
    for (int i = 0; i < 2; i++) CHECK(sampler_penalize(&s, logits, 3, bad[i], 2, scratch) == -1);
    CHECK(sampler_penalize(&s, NULL, 3, bad[0], 1, scratch) == -1);
    CHECK(sampler_penalize(&s, logits, 3, NULL, 1, scratch) == -1);
    CHECK(sampler_penalize(&s, logits, 3, bad[0], 1, NULL) == -1);
    CHECK(sampler_penalize(&s, logits, 3, NULL, 0, NULL) == 0);
    CHECK(logits[0] + logits[1] + logits[2] > 5.999f && logits[2] > 2.999f);
    CHECK(sampler_penalize(&s, logits, 3, bad[0], 1, scratch) == 0 && logits[0] < 0.001f);
    GROUP("repetition, presence and frequency penalties equal the plain version");
}

/* Pearson's chi-square of the draws stays below the value that one run in ten thousand exceeds
 * (Wilson & Hilferty's approximation of the quantile). */
static void check_draws(const sampler_options *options) {
    enum { N = 30, DRAWS = 200000 };
    float logits[N];
    sampler_candidate scratch[N], expected[N];
    int counts[N] = {0};
    for (int i = 0; i < N; i++) logits[i] = (float)(3 * random_unit());
    sampler s;
    CHECK(sampler_init(&s, options) == 0);
    int32_t history[] = {3, 4, 4, 29};
    const sampler_token_bias bias = {7, 0.5f};
    CHECK(sampler_bias(logits, N, &bias, 1) == 0);
    CHECK(sampler_penalize(&s, logits, N, history, 4, scratch) == 0);
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
    static const sampler_options options[] = {
        {1, 0, 0, 0, 0, 0, 0, 0, 0},           {0.5f, 0, 0, 1, 0, 0, 0, 0, 0},
        {1, 7, 0, 2, 0, 0, 0, 0, 0},           {1, 0, 0.8f, 3, 0, 0, 0, 0, 0},
        {2, 20, 0.7f, 4, 0, 0, 0, 0, 0},       {1, 0, 0, 5, 0.1f, 0, 0, 0, 0},
        {1, 0, 0, 6, 0, 0.7f, 0, 0, 0},        {1.5f, 25, 0.95f, 7, 0.05f, 0.8f, 0, 0, 0},
        {1, 0, 0, 8, 0, 0, 1.3f, 0.5f, -0.2f},
    };
    for (size_t i = 0; i < 2 * sizeof options / sizeof options[0]; i++) {
        sampler_options o = options[i / 2];
        o.seed += 100 * (i % 2);
        check_draws(&o);
    }
    GROUP("draws have the right frequencies (chi-square)");
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
    GROUP("the same seed draws the same, a copy forks the stream");
}

int main(void) {
    test_generator();
    test_options();
    test_greedy();
    test_nothing_to_choose();
    test_candidates();
    test_filters();
    test_bias();
    test_penalties();
    test_draws();
    test_streams();
    return test_finish();
}
