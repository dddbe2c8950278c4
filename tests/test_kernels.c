/* Every kernel of every row that this CPU can run: against double precision within stated bounds,
 * against the scalar row, and bit for bit against itself: each output computed alone, in any tile,
 * at any alignment, next to pages that may not be touched.  Then NaN, infinities and the half
 * formats, exhaustively. */
#define _DEFAULT_SOURCE 1
#include <stdint.h>
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#define GUARDED 1
#else
#define GUARDED 0
#endif
#define TRANSFORMER_IMPLEMENTATION
#include "transformer.h"
#include "test.h"

static const int sizes[] = {0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], MOST = 257, TOKENS = 33, ROWS = 17, LONG = 600 };
#define EPSILON 5.9604644775390625e-8 /* 2^-24: one rounding, relative */

/* By their bits: -ffast-math makes comparisons mean what it likes. */
static uint32_t magnitude_of(float x) { return tfi_float_to_bits(x) & 0x7fffffffu; }
static int is_nan(float x) { return magnitude_of(x) > 0x7f800000u; }
static int is_finite(float x) { return magnitude_of(x) < 0x7f800000u; }

static int row_runs(const tfi_kernels *k) { return (k->needs & tfi_cpu()) == k->needs; }
static double worst_of(double worst, double error, double bound) {
    double part = error / bound;
    return part <= worst ? worst : part; /* a NaN stays */
}

/* ---- memory between two pages that fault ---- */

enum { AREA = 1 << 20, N_AREAS = 4 };
static unsigned char *areas[N_AREAS];
static char now_running[160] = "nothing";

#if GUARDED
static void on_fault(int signal_number) {
    static const char message[] = "FAILED: touched memory outside its arrays: ";
    ssize_t unused = write(2, message, sizeof message - 1);
    unused += write(2, now_running, strlen(now_running));
    unused += write(2, "\n", 1);
    (void)signal_number;
    _exit(unused != 0);
}
#endif

static int make_areas(void) {
    for (int i = 0; i < N_AREAS; i++) {
#if GUARDED
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        void *map = mmap(NULL, AREA + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (map == MAP_FAILED) return 0;
        areas[i] = (unsigned char *)map + page;
        if (mprotect(areas[i], AREA, PROT_READ | PROT_WRITE)) return 0;
#else
        areas[i] = (unsigned char *)malloc(AREA);
        if (!areas[i]) return 0;
#endif
    }
#if GUARDED
    signal(SIGSEGV, on_fault), signal(SIGBUS, on_fault);
#endif
    return 1;
}

/* How arrays lie in their areas: up against the page after them, against the page before them, or
 * (2 .. 4) off the start by 1 .. 3 elements. */
enum { AT_END, AT_START, N_PLACES = 5 };
static void *place_array(int area, size_t bytes, size_t element, int place) {
    if (place == AT_END) return areas[area] + AREA - bytes;
    return areas[area] + (size_t)(place - AT_START) * element;
}

static void *place_copy(int area, const void *data, size_t bytes, size_t element, int place) {
    void *to = place_array(area, bytes, element, place);
    if (bytes) memcpy(to, data, bytes);
    return to;
}
static float *place_floats(int area, const float *data, int n, int place) {
    return (float *)place_copy(area, data, (size_t)n * sizeof(float), sizeof(float), place);
}

static void fill(float *x, int n, uint32_t seed, float scale) {
    for (int i = 0; i < n; i++) x[i] = 2 * scale * test_noise(seed * 7919u + (uint32_t)i);
}

/* ---- packing (of 8-bit activations: test_formats.c) ---- */

static size_t act_size(int act) { return act == TFI_ACT_BF16 ? 2 : 4; }

/* Lanes of a row's panels: two rows of ones and twos alternate every so many. */
static int panel_lanes(const tfi_kernels *k, int act) {
    static float ones[64], twos[64];
    static float panel[64 * TFI_PAD];
    const float *rows[2] = {ones, twos};
    int lanes = 0;
    for (int i = 0; i < 64; i++) ones[i] = 1, twos[i] = 2;
    k->pack[act](panel, rows, 2, 64);
    if (act == TFI_ACT_F32)
        while (lanes < 64 && panel[lanes] == 1) lanes++;
    else
        while (lanes < 64 && ((uint16_t *)(void *)panel)[lanes] == tfi_to_bf16(1)) lanes++;
    return lanes;
}

/* Tokens and columns that a panel of n tokens holds: several are padded to quads, if tiles are of
 * those, and so are columns to four of them. */
static int padded_tokens(const tfi_kernels *k, int n) {
    return k->tile[TFI_ACT_F32] % TFI_PAD || n == 1 ? n : (n + TFI_PAD - 1) / TFI_PAD * TFI_PAD;
}
static int padded_columns(const tfi_kernels *k, int lanes, int size) {
    int step = k->tile[TFI_ACT_F32] % TFI_PAD ? lanes : 4 * lanes;
    return (size + step - 1) / step * step;
}

static size_t packed_size(const tfi_kernels *k, int act, int n, int size) {
    return (size_t)(padded_columns(k, panel_lanes(k, act), size) * padded_tokens(k, n)) *
           act_size(act);
}

static void check_panel(const tfi_kernels *k, int act, int lanes, int n, int size, int place) {
    static float source[TFI_MAX_TILE][MOST];
    const float *rows[TFI_MAX_TILE] = {NULL};
    size_t bytes = packed_size(k, act, n, size);
    int good = 1, tokens = padded_tokens(k, n);
    for (int t = 0; t < n; t++) {
        fill(source[t], size, (uint32_t)(t + 1), 1);
        rows[t] = source[t];
    }
    rows[n - 1] = place_floats(0, source[n - 1], size, place);
    void *panel = place_array(1, bytes, act_size(act), place);
    k->pack[act](panel, rows, n, size);
    for (int i = 0; i < padded_columns(k, lanes, size); i++)
        for (int t = 0; t < tokens; t++) {
            int at = (i / lanes * tokens + t) * lanes + i % lanes;
            float want = i < size && t < n ? source[t][i] : 0;
            if (act == TFI_ACT_F32) good &= ((float *)panel)[at] == want;
            else good &= ((uint16_t *)panel)[at] == tfi_to_bf16(want);
        }
    CHECK(good);
}

static void test_pack(const tfi_kernels *k) {
    for (int act = 0; act < TFI_ACT_INT8; act++) {
        if (!k->pack[act]) continue;
        int lanes = panel_lanes(k, act);
        CHECK(lanes >= 1 && 32 % lanes == 0 && k->tile[act] >= 1 && k->tile[act] <= TFI_MAX_TILE);
        for (int s = 0; s < N_SIZES; s++)
            for (int n = 1; n <= k->tile[act]; n++)
                for (int place = 0; place < N_PLACES; place++)
                    check_panel(k, act, lanes, n, sizes[s], place);
    }
    GROUP("%s: pack", k->name);
}

/* ---- matrix products ---- */

static float w_exact[LONG * (MOST + 3)], x_exact[TOKENS * MOST];
static uint16_t w_halves[LONG * (MOST + 3)];
static float alone[TOKENS][LONG], alone_scalar[TOKENS][LONG];
static double product[TOKENS][LONG], magnitude[TOKENS][LONG];

static float wide_scratch[TFI_CUT_ROWS * TFI_CUT_BYTES / sizeof(float)];

static int act_of_kind(int kind) { return kind == TFI_W_BF16_DOT ? TFI_ACT_BF16 : TFI_ACT_F32; }
static const char *kind_name(int kind) {
    static const char *const names[] = {"f32", "f16", "bf16", "bf16_dot"};
    return names[kind];
}
static size_t weight_size(int kind) { return kind == TFI_W_F32 ? 4 : 2; }
static const void *weight_at(int kind, size_t i) {
    return kind == TFI_W_F32 ? (const void *)(w_exact + i) : (const void *)(w_halves + i);
}
static float weight_value(int kind, size_t i) {
    return kind == TFI_W_F32   ? w_exact[i]
           : kind == TFI_W_F16 ? tfi_from_f16(w_halves[i])
                               : tfi_from_bf16(w_halves[i]);
}

/* Weights with gaps of NaN between rows: whatever reads them shows. */
static void make_weights(int kind, int rows, int size) {
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < size + 3; i++) {
            size_t at = (size_t)(r * (size + 3) + i);
            float value = i < size ? test_noise((uint32_t)(r * 1000 + i)) : (float)NAN;
            w_exact[at] = value;
            w_halves[at] = kind == TFI_W_F16 ? tfi_to_f16(value) : tfi_to_bf16(value);
        }
}

/* Panels of n tokens in an area, exactly as long as the tokens need. */
static void *make_panels(const tfi_kernels *k, int act, const float *x, int n, int size,
                         int place) {
    const int tile = k->tile[act], panels = (n + tile - 1) / tile, left = n - (panels - 1) * tile;
    size_t panel = (size_t)(tile * tfi_panel_cols(size)) * act_size(act);
    size_t bytes = (size_t)(panels - 1) * panel + packed_size(k, act, left, size);
    unsigned char *to = (unsigned char *)place_array(1, bytes, act_size(act), place);
    for (int p = 0; p < panels; p++) {
        const float *rows[TFI_MAX_TILE] = {NULL};
        int count = p + 1 < panels ? tile : left;
        for (int t = 0; t < count; t++) rows[t] = x + (size_t)((p * tile + t) * size);
        k->pack[act](to + (size_t)p * panel, rows, count, size);
    }
    return to;
}

/* Each output by itself: one row, one token. */
static void compute_alone(const tfi_kernels *k, int kind, int rows, int size,
                          float to[TOKENS][LONG]) {
    for (int t = 0; t < TOKENS; t++) {
        const float *x = x_exact + t * size;
        void *panel = make_panels(k, act_of_kind(kind), x, 1, size, AT_START);
        for (int r = 0; r < rows; r++)
            k->matmul[kind](weight_at(kind, (size_t)(r * (size + 3))), 0, 1, panel, 1, size,
                            &to[t][r], 0, NULL);
    }
}

static void compute_exactly(int kind, int rows, int size) {
    for (int t = 0; t < TOKENS; t++)
        for (int r = 0; r < rows; r++) {
            product[t][r] = magnitude[t][r] = 0;
            for (int i = 0; i < size; i++) {
                float x = x_exact[t * size + i];
                if (kind == TFI_W_BF16_DOT) x = tfi_from_bf16(tfi_to_bf16(x));
                double term = (double)weight_value(kind, (size_t)(r * (size + 3) + i)) * (double)x;
                product[t][r] += term, magnitude[t][r] += fabs(term);
            }
        }
}

/* One shape in one place: the same bits as alone, and nothing written beside. */
static void check_shape(const tfi_kernels *k, int kind, int rows, int n, int size, int place) {
    int gap = place == AT_END ? 0 : 3, out_gap = place == AT_END ? 0 : 5, good = 1;
    size_t element = weight_size(kind), stride = (size_t)(size + gap), length = 0;
    if (rows) length = (size_t)(rows - 1) * stride + (size_t)size;
    unsigned char *w = (unsigned char *)place_array(0, length * element, element, place);
    for (int r = 0; r < rows; r++)
        if (size)
            memcpy(w + (size_t)r * stride * element, weight_at(kind, (size_t)(r * (size + 3))),
                   (r + 1 < rows ? stride : (size_t)size) * element);
    void *panels = make_panels(k, act_of_kind(kind), x_exact, n, size, place);
    int out_stride = rows + out_gap, out_length = (n - 1) * out_stride + rows;
    float *out = (float *)place_array(2, (size_t)out_length * sizeof(float), sizeof(float), place);
    for (int i = 0; i < out_length; i++) out[i] = 12345;
    snprintf(now_running, sizeof now_running, "%s matmul_%s rows %d tokens %d k %d place %d",
             k->name, kind_name(kind), rows, n, size, place);
    k->matmul[kind](w, stride, rows, panels, n, size, out, (size_t)out_stride, wide_scratch);
    for (int t = 0; t < n; t++) {
        if (rows) good &= memcmp(out + t * out_stride, alone[t], (size_t)rows * sizeof(float)) == 0;
        for (int i = rows; t + 1 < n && i < out_stride; i++)
            good &= out[t * out_stride + i] == 12345;
    }
    if (!good) fprintf(stderr, "%s\n", now_running);
    CHECK(good);
}

/* The next number of tokens to try: all up to 13, then around ends of panels of 16, if there are any. */
static int next_count(const tfi_kernels *k, int n) {
    static const int later[] = {15, 16, 17, 18, 21, 32, 33};
    if (n < 13) return n + 1;
    for (size_t i = 0; k->tile[TFI_ACT_F32] == 16 && i < sizeof later / sizeof later[0]; i++)
        if (later[i] > n) return later[i];
    return TOKENS + 1;
}

static void test_matmul(const tfi_kernels *k, int kind) {
    static const int row_counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17};
    double worst = 0;
    for (int s = 0; s < N_SIZES; s++) {
        int size = sizes[s];
        make_weights(kind, ROWS, size);
        fill(x_exact, TOKENS * size, 99, 1);
        compute_alone(k, kind, ROWS, size, alone);
        compute_alone(tfi_rows[0], kind == TFI_W_BF16_DOT ? TFI_W_BF16 : kind, ROWS, size,
                      alone_scalar);
        compute_exactly(kind, ROWS, size);
        for (int t = 0; t < TOKENS; t++)
            for (int r = 0; r < ROWS; r++) {
                /* at most size roundings of sums and as many of products */
                double bound = 2 * (size + 1) * EPSILON * magnitude[t][r] + 1e-30;
                worst = worst_of(worst, fabs((double)alone[t][r] - product[t][r]), bound);
                if (kind != TFI_W_BF16_DOT) /* the scalar row does not round its activations */
                    CHECK(fabs((double)alone[t][r] - (double)alone_scalar[t][r]) <= 2 * bound);
            }
        CHECK(worst <= 1);
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++)
            for (int n = 1; n <= TOKENS; n = next_count(k, n))
                for (int place = 0; place < N_PLACES; place++)
                    check_shape(k, kind, row_counts[i], n, size, place);
    }
    /* many rows: several blocks of the second-level cache, whose sizes are no multiples of a tile */
    make_weights(kind, LONG, MOST);
    fill(x_exact, TOKENS * MOST, 98, 1);
    compute_alone(k, kind, LONG, MOST, alone);
    for (int rows = LONG - 5; rows <= LONG; rows++)
        for (int n = 1; n <= TOKENS; n = next_count(k, n))
            check_shape(k, kind, rows, n, MOST, AT_END);
    GROUP("%s: matmul %s: the bits of one row and one token in every tile; error %.2f of "
          "2 (k + 1) 2^-24 sum |w x|",
          k->name, kind_name(kind), worst);
}

static int brief; /* with an argument: what is bearable under emulation */

enum {
    STRIDE = 37,
    CUT_ROWS_MOST = 2 * TFI_CUT_ROWS + 3,
    WIDEST = 4133,
    MANY = 8 * TFI_MAX_FEW + 1
};

/* One token among n, from cuts computed alone and added; of the others, that they were written. */
static int check_cut(const tfi_kernels *k, int kind, const float *x, int rows, int n, int t,
                     int size) {
    static float want[CUT_ROWS_MOST], out[MANY * CUT_ROWS_MOST];
    const int act = act_of_kind(kind), cut = TFI_CUT_BYTES / (act == TFI_ACT_BF16 ? 2 : 4);
    snprintf(now_running, sizeof now_running, "%s matmul_%s cut: rows %d tokens %d k %d", k->name,
             kind_name(kind), rows, n, size);
    for (int from = 0; from < size; from += cut) {
        int width = size - from < cut ? size - from : cut;
        void *part = make_panels(k, act, x + t * size + from, 1, width, AT_END);
        for (int r = 0; r < rows; r++) {
            float sum;
            k->matmul[kind](weight_at(kind, (size_t)(r * STRIDE + from)), 0, 1, part, 1, width,
                            &sum, 0, NULL);
            want[r] = from ? want[r] + sum : sum;
        }
    }
    void *panels = make_panels(k, act, x, n, size, AT_END);
    for (int j = 0; j < n * rows; j++) out[j] = (float)NAN;
    k->matmul[kind](weight_at(kind, 0), STRIDE, rows, panels, n, size, out, (size_t)rows,
                    t % 3 ? wide_scratch : NULL);
    for (int j = 0; j < n * rows; j++)
        if (is_nan(out[j])) return 0;
    return memcmp(out + t * rows, want, (size_t)rows * sizeof(float)) == 0;
}

/* Many columns are summed cut by cut, in tiles and out of them; many tokens meet weights of 16 bits
 * that have been widened if there is scratch.  Rows of weights overlap, to be many and yet small. */
static void test_cuts(const tfi_kernels *k, int kind) {
    static const int cut_sizes[] = {1024, 1025, 2047, 2048, 2049, 4099, WIDEST};
    static const int many_sizes[] = {STRIDE, 1025, 2048}, many_rows[] = {3, TFI_CUT_ROWS + 5};
    static const int row_counts[] = {
        0, 3, 4, TFI_CUT_ROWS - 1, TFI_CUT_ROWS, TFI_CUT_ROWS + 1, CUT_ROWS_MOST};
    static float x[TOKENS * WIDEST > MANY * 2048 ? TOKENS * WIDEST : MANY * 2048];
    int good = 1;
    make_weights(kind, 1, WIDEST + STRIDE * CUT_ROWS_MOST);
    fill(x, (int)(sizeof x / sizeof x[0]), 97, 1);
    for (size_t s = 0; s < sizeof cut_sizes / sizeof cut_sizes[0]; s += brief ? 2 : 1)
        for (int n = 1 + (brief ? (int)s % 3 : 0); n <= TOKENS;
             n = brief ? n + 5 : next_count(k, n))
            for (int i = brief ? ((int)s + n) % 3 : 0;
                 i < (int)(sizeof row_counts / sizeof row_counts[0]); i += brief ? 3 : 1)
                good &=
                    check_cut(k, kind, x, row_counts[i], n, i % 3 ? i % n : n - 1, cut_sizes[s]);
    CHECK(good);
    CHECK(sizeof wide_scratch <= tfi_product_scratch(1)); /* what a model's workspace has */
    for (int s = 0; s < 3; s++)
        for (int n = 8 * k->few - 1; n <= 8 * k->few + 1; n++)
            for (int t = 0; t < n; t += brief ? 22 : 7)
                good &= check_cut(k, kind, x, many_rows[t % 2], n, t, many_sizes[s]);
    CHECK(good);
    GROUP("%s: matmul %s: sums cut by cut, the same bits in tiles and out of them, for many tokens",
          k->name, kind_name(kind));
}

/* ---- element by element ---- */

typedef void elementwise(const tfi_kernels *k, float *x, const float *times, int n, int variant);

static void run_activate(const tfi_kernels *k, float *x, const float *times, int n, int variant) {
    k->activate(x, times, n, variant);
}
static void run_cap(const tfi_kernels *k, float *x, const float *times, int n, int variant) {
    (void)times;
    k->cap(x, n, variant ? 30.0f : 0.7f);
}
static void run_exponentials(const tfi_kernels *k, float *x, const float *times, int n,
                             int variant) {
    (void)times;
    k->exponentials(x, x, n, variant ? 3.0f : 0.0f);
}

static double exact_activate(double x, int variant) { return tfi_reference_activation(x, variant); }
static double exact_cap(double x, int variant) {
    double cap = variant ? 30.0 : (double)0.7f;
    return cap * tanh(x / cap);
}
static double exact_exponential(double x, int variant) { return exp(x - (variant ? 3 : 0)); }

static double check_elements(const tfi_kernels *k, const char *name, elementwise *function,
                             double (*exact)(double, int), int variant, const float *times) {
    float x[MOST], single[MOST], scalar[MOST];
    double worst = 0;
    fill(x, MOST, (uint32_t)variant + 5, 12), x[0] = 0, x[1] = -0.0f, x[2] = 1e-20f;
    memcpy(single, x, sizeof x), memcpy(scalar, x, sizeof x);
    for (int i = 0; i < MOST; i++) {
        float one_times = times ? times[i] : 0;
        function(k, single + i, times ? &one_times : NULL, 1, variant);
        function(tfi_rows[0], scalar + i, times ? &one_times : NULL, 1, variant);
        double want = exact((double)x[i], variant) * (times ? (double)times[i] : 1);
        double bound = 1e-6 * (fabs(want) + fabs((double)x[i]) * 0.1 + 1e-3);
        worst = worst_of(worst, fabs((double)single[i] - want), bound);
        CHECK(fabs((double)single[i] - (double)scalar[i]) <= 2 * bound);
    }
    CHECK(worst <= 1);
    for (int s = 0; s < N_SIZES; s++)
        for (int place = 0; place < N_PLACES; place++) {
            int n = sizes[s];
            float *y = place_floats(0, x, n, place),
                  *by = times ? place_floats(1, times, n, place) : NULL;
            snprintf(now_running, sizeof now_running, "%s %s %d n %d", k->name, name, variant, n);
            function(k, y, by, n, variant);
            CHECK(n == 0 || memcmp(y, single, (size_t)n * sizeof(float)) == 0);
        }
    return worst;
}

static void test_elements(const tfi_kernels *k) {
    float times[MOST];
    double worst = 0;
    fill(times, MOST, 77, 1);
    for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++) {
        worst =
            fmax(worst, check_elements(k, "activate", run_activate, exact_activate, kind, NULL));
        worst =
            fmax(worst, check_elements(k, "activate", run_activate, exact_activate, kind, times));
    }
    for (int i = 0; i < 2; i++) {
        worst = fmax(worst, check_elements(k, "cap", run_cap, exact_cap, i, NULL));
        worst = fmax(
            worst, check_elements(k, "exponentials", run_exponentials, exact_exponential, i, NULL));
    }
    GROUP("%s: activate, cap, exponentials: the bits of one element at any place; error %.2f of "
          "1e-6 (|y| + |x| / 10 + 1e-3)",
          k->name, worst);
}

/* ---- sums, maxima, norms, conversion ---- */

static void test_reductions(const tfi_kernels *k) {
    float x[MOST], out[MOST];
    double worst = 0;
    for (int s = 0; s < N_SIZES; s++)
        for (int place = 0; place < N_PLACES; place++) {
            int n = sizes[s];
            float first_sum = 0, max = -FLT_MAX;
            double sum = 0;
            fill(x, n, (uint32_t)n, 5);
            float *in = place_floats(0, x, n, place);
            float *to = (float *)place_array(1, (size_t)n * sizeof(float), sizeof(float), place);
            for (int i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
            snprintf(now_running, sizeof now_running, "%s maximum n %d", k->name, n);
            CHECK(k->maximum(in, n) == max);
            for (int i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
            snprintf(now_running, sizeof now_running, "%s exponentials n %d", k->name, n);
            float got = k->exponentials(to, in, n, max);
            first_sum = k->exponentials(out, x, n, max);
            CHECK(memcmp(&first_sum, &got, sizeof got) == 0);
            CHECK(fabs((double)got - sum) <= (n + 4) * 4 * EPSILON * sum);
            if (n) worst = worst_of(worst, fabs((double)got - sum), (n + 4) * 4 * EPSILON * sum);
        }
    for (int at = 0; at < 65; at++) { /* the largest may be anywhere */
        for (int i = 0; i < 65; i++) x[i] = -5 - (float)i;
        x[at] = -1;
        CHECK(k->maximum(x, 65) == -1);
    }
    GROUP("%s: maximum, sum of exponentials: error %.2f of 4 (n + 4) 2^-24 sum", k->name, worst);
}

static double check_norm(const tfi_kernels *k, int n, int kind, int weighted, int biased) {
    float x[MOST] = {0}, weight[MOST], bias[MOST], out[MOST], scalar[MOST], exact[MOST];
    double worst = 0, most = 0, deviation = 0, mean = 0;
    fill(x, n, (uint32_t)(n + kind), 3), fill(weight, n, 8, 2), fill(bias, n, 9, 1);
    for (int i = 0; i < n; i++) x[i] += 0.5f, mean += (double)x[i] / n;
    const float *w = weighted ? weight : NULL, *b = biased ? bias : NULL;
    tfi_reference_norm(exact, x, w, b, n, 1e-5f, kind);
    k->norm(out, x, w, b, n, 1e-5f, kind);
    tfi_rows[0]->norm(scalar, x, w, b, n, 1e-5f, kind);
    if (kind == TRANSFORMER_NORM_RMS) mean = 0;
    for (int i = 0; i < n; i++) {
        deviation += ((double)x[i] - mean) * ((double)x[i] - mean) / n;
        most = fmax(most, fabs((double)x[i]));
    }
    deviation = sqrt(deviation + 1e-5);
    for (int i = 0; i < n; i++) { /* relative to the largest value that enters the sums */
        double bound = (n + 8) * EPSILON *
                       (fabs(w ? (double)w[i] : 1) * most / deviation + fabs(b ? (double)b[i] : 0));
        worst = worst_of(worst, fabs((double)out[i] - (double)exact[i]), bound);
        CHECK(fabs((double)out[i] - (double)scalar[i]) <= 2 * bound);
    }
    CHECK(worst <= 1);
    for (int place = 0; place < N_PLACES; place++) {
        float *px = place_floats(0, x, n, place);
        float *pw = w ? place_floats(1, w, n, place) : NULL;
        float *pb = b ? place_floats(2, b, n, place) : NULL;
        float *to = (float *)place_array(3, (size_t)n * sizeof(float), sizeof(float), place);
        snprintf(now_running, sizeof now_running, "%s norm n %d", k->name, n);
        k->norm(to, px, pw, pb, n, 1e-5f, kind);
        CHECK(memcmp(to, out, (size_t)n * sizeof(float)) == 0);
        k->norm(px, px, pw, pb, n, 1e-5f, kind); /* in place */
        CHECK(memcmp(px, out, (size_t)n * sizeof(float)) == 0);
    }
    return worst;
}

static void test_norm(const tfi_kernels *k) {
    double worst = 0;
    for (int s = 1; s < N_SIZES; s++)
        for (int i = 0; i < 8; i++)
            worst = fmax(worst, check_norm(k, sizes[s], i & 1, i & 2, i & 4));
    GROUP("%s: norm: error %.2f of (n + 8) 2^-24 (|w| max|x| / deviation + |b|)", k->name, worst);
}

static void test_to_f16(const tfi_kernels *k) {
    float x[MOST];
    uint16_t want[MOST];
    fill(x, MOST, 4, 70000);
    for (int i = 0; i < MOST; i += 3) x[i] *= 1e-9f;
    for (int i = 0; i < MOST; i++) want[i] = tfi_to_f16(x[i]);
    for (int s = 0; s < N_SIZES; s++)
        for (int place = 0; place < N_PLACES; place++) {
            int n = sizes[s];
            float *in = place_floats(0, x, n, place);
            uint16_t *to = (uint16_t *)place_array(1, (size_t)n * 2, 2, place);
            snprintf(now_running, sizeof now_running, "%s to_f16 n %d", k->name, n);
            k->to_f16(to, in, n);
            CHECK(n == 0 || memcmp(to, want, (size_t)n * 2) == 0);
        }
    GROUP("%s: to_f16", k->name);
}

/* ---- attention ---- */

static void test_scores(const tfi_kernels *k) {
    float s[TFI_KEY_BLOCK], bias[TFI_KEY_BLOCK], other[TFI_KEY_BLOCK], other_bias[TFI_KEY_BLOCK];
    double worst = 0;
    for (int variant = 0; variant < 4; variant++) {
        float cap = variant & 1 ? 5.0f : 0.0f, scale = 0.3f;
        int biased = variant & 2;
        fill(s, TFI_KEY_BLOCK, 3, 40), fill(bias, TFI_KEY_BLOCK, 5, 4);
        float *to = place_floats(0, s, TFI_KEY_BLOCK, AT_END);
        float *by = biased ? place_floats(1, bias, TFI_KEY_BLOCK, AT_END) : NULL;
        snprintf(now_running, sizeof now_running, "%s scores", k->name);
        k->scores(to, scale, cap, by);
        for (int i = 0; i < TFI_KEY_BLOCK; i++) {
            double x = (double)s[i] * (double)scale;
            double want = (cap > 0 ? (double)cap * tanh(x / (double)cap) : x) +
                          (biased ? (double)bias[i] : 0);
            worst = worst_of(worst, fabs((double)to[i] - want), 2e-6);
            fill(other, TFI_KEY_BLOCK, 7, 90), fill(other_bias, TFI_KEY_BLOCK, 8, 9);
            other[i] = s[i], other_bias[i] = bias[i]; /* a key does not mind its neighbours */
            k->scores(other, scale, cap, biased ? other_bias : NULL);
            CHECK(memcmp(&to[i], &other[i], sizeof(float)) == 0);
        }
    }
    CHECK(worst <= 1);
    GROUP("%s: scores: error %.2f of 2e-6 at |s| <= 16", k->name, worst);
}

/* Blocks of a long row one after the other, with masked ends, give the softmax of the whole. */
static void test_softmax_block(const tfi_kernels *k) {
    enum { BLOCKS = 4, N = BLOCKS * TFI_KEY_BLOCK };
    static float x[N], e[N];
    static const int visible[][2] = {{0, N}, {0, 1}, {N - 1, N}, {37, 41}, {10, 200}, {63, 65}};
    double worst = 0;
    for (int v = 0; v < 6; v++)
        for (int rising = 0; rising < 2; rising++) {
            int low = visible[v][0], high = visible[v][1];
            float max = -3.0e38f, sum = 0, top = -FLT_MAX, factor[BLOCKS], product_of = 1;
            double exact = 0;
            fill(x, N, 55, 9);
            for (int i = 0; i < N; i++) x[i] += (float)(rising ? i : -i) * 0.2f;
            for (int i = low; i < high; i++) top = x[i] > top ? x[i] : top;
            for (int i = low; i < high; i++) exact += exp((double)x[i] - (double)top);
            for (int i = 0; i < N; i++) e[i] = i >= low && i < high ? x[i] : -FLT_MAX;
            for (int b = low / TFI_KEY_BLOCK; b * TFI_KEY_BLOCK < high; b++) {
                float *s = place_floats(0, e + b * TFI_KEY_BLOCK, TFI_KEY_BLOCK,
                                        b % 2 ? AT_START : AT_END);
                k->softmax_block(s, 1, TFI_KEY_BLOCK, &max, &sum, &factor[b]);
                memcpy(e + b * TFI_KEY_BLOCK, s, TFI_KEY_BLOCK * sizeof(float));
            }
            CHECK(max == top && fabs((double)sum - exact) <= 1e-5 * exact);
            worst = worst_of(worst, fabs((double)sum - exact), 1e-5 * exact);
            for (int b = (high - 1) / TFI_KEY_BLOCK; b >= low / TFI_KEY_BLOCK; b--) {
                for (int i = b * TFI_KEY_BLOCK; i < (b + 1) * TFI_KEY_BLOCK; i++) {
                    double want = i >= low && i < high ? exp((double)x[i] - (double)top) : 0;
                    CHECK(fabs((double)(e[i] * product_of) - want) <= 2e-6 * (want + 1e-6));
                }
                product_of *= factor[b];
            }
        }
    GROUP("%s: softmax_block: error %.2f of 1e-5 sum", k->name, worst);
}

/* Rows together, over some keys: the bits of each alone over all, whatever the others hold, if no
 * other key is visible; a row with no key changes nothing. */
static void test_softmax_rows(const tfi_kernels *k) {
    enum { R = 21, N = R * TFI_KEY_BLOCK };
    static float x[N], together[N], alone[TFI_KEY_BLOCK];
    float max[R], sum[R], older[R];
    int good = 1;
    for (int rows = 1; rows <= R; rows++) {
        fill(x, N, 56 + (uint32_t)rows, 9);
        for (int r = 0; r < rows; r++) max[r] = r % 3 ? (float)r - 8 : -3.0e38f, sum[r] = 0.5f;
        const int n = TFI_KEY_BLOCK / 4 * (1 + rows % 4);
        for (int j = 0; j < rows * TFI_KEY_BLOCK; j++)
            if (j / TFI_KEY_BLOCK == rows - 1 || j % TFI_KEY_BLOCK >= n) x[j] = -FLT_MAX;
        float before = max[rows - 1];
        float *s = place_floats(0, x, rows * TFI_KEY_BLOCK, rows % 2 ? AT_START : AT_END);
        k->softmax_block(s, rows, n, max, sum, older);
        memcpy(together, s, (size_t)rows * TFI_KEY_BLOCK * sizeof(float));
        CHECK(max[rows - 1] == before && sum[rows - 1] == 0.5f && older[rows - 1] == 1);
        for (int r = 0; r < rows; r++) {
            float own_max = r % 3 ? (float)r - 8 : -3.0e38f, own_sum = 0.5f, own_older;
            memcpy(alone, x + r * TFI_KEY_BLOCK, sizeof alone);
            k->softmax_block(alone, 1, TFI_KEY_BLOCK, &own_max, &own_sum, &own_older);
            good &= memcmp(alone, together + r * TFI_KEY_BLOCK, (size_t)n * sizeof(float)) == 0;
            good &= own_max == max[r] && own_sum == sum[r] && own_older == older[r];
        }
    }
    CHECK(good);
    GROUP("%s: softmax_block: the bits of a row alone", k->name);
}

static void test_scale(const tfi_kernels *k) {
    int good = 1;
    for (int n = 0; n <= MOST; n += n < 70 ? 1 : 61)
        for (int place = 0; place < N_PLACES; place++) {
            fill(x_exact, n + 1, 57, 1);
            float *x = place_floats(0, x_exact, n, place),
                  *out = place_floats(1, x_exact, n, place);
            k->scale(out, x, 0.3f, n);
            for (int i = 0; i < n; i++) good &= out[i] == x_exact[i] * 0.3f;
            k->scale(x, x, 0.3f, n);
            good &= memcmp(x, out, (size_t)n * sizeof(float)) == 0;
        }
    CHECK(good);
    GROUP("%s: scale, in place and not", k->name);
}

enum { QUERIES = 13, KEYS = TFI_KEY_BLOCK };
static float p_exact[QUERIES * KEYS], v_exact[KEYS * (MOST + 2)], start_sums[QUERIES * MOST];
static float sums_alone[QUERIES][MOST];
static uint16_t v_halves[KEYS * (MOST + 2)];

static const void *value_at(int f16, int i) {
    return f16 ? (const void *)(v_halves + i) : (const void *)(v_exact + i);
}

static void check_accumulate(const tfi_kernels *k, int f16, int rows, int keys, int dim,
                             int place) {
    int gap = place == AT_END ? 0 : 2, good = 1;
    size_t element = f16 ? 2 : 4;
    int v_stride = dim + gap, length = keys ? (keys - 1) * v_stride + dim : 0;
    unsigned char *v = (unsigned char *)place_array(0, (size_t)length * element, element, place);
    for (int j = 0; j < keys; j++)
        memcpy(v + (size_t)(j * v_stride) * element, value_at(f16, j * (MOST + 2)),
               (size_t)dim * element);
    int p_stride = keys + gap, out_stride = dim + gap;
    float *p = (float *)place_array(1, (size_t)((rows - 1) * p_stride + keys) * 4, 4, place);
    float *out = (float *)place_array(2, (size_t)((rows - 1) * out_stride + dim) * 4, 4, place);
    for (int r = 0; r < rows; r++) {
        memcpy(p + r * p_stride, p_exact + r * KEYS, (size_t)keys * 4);
        memcpy(out + r * out_stride, start_sums + r * MOST, (size_t)dim * 4);
        for (int i = dim; r + 1 < rows && i < out_stride; i++) out[r * out_stride + i] = 12345;
    }
    snprintf(now_running, sizeof now_running, "%s accumulate %s rows %d keys %d dim %d place %d",
             k->name, f16 ? "f16" : "f32", rows, keys, dim, place);
    int cut = place ? keys / 2 : 0; /* in two steps: the same sums in the same order */
    if (cut)
        k->accumulate[f16](out, (size_t)out_stride, p, (size_t)p_stride, v, (size_t)v_stride, rows,
                           cut, dim);
    k->accumulate[f16](out, (size_t)out_stride, p + cut, (size_t)p_stride,
                       v + (size_t)(cut * v_stride) * element, (size_t)v_stride, rows, keys - cut,
                       dim);
    for (int r = 0; r < rows; r++) {
        if (dim) good &= memcmp(out + r * out_stride, sums_alone[r], (size_t)dim * 4) == 0;
        for (int i = dim; r + 1 < rows && i < out_stride; i++)
            good &= out[r * out_stride + i] == 12345;
    }
    if (!good) fprintf(stderr, "%s\n", now_running);
    CHECK(good);
}

static double sums_alone_exactly(const tfi_kernels *k, int f16, int keys) {
    double worst = 0;
    for (int r = 0; r < QUERIES; r++)
        for (int d = 0; d < MOST; d++) {
            double exact = (double)start_sums[r * MOST + d], size = fabs(exact);
            sums_alone[r][d] = start_sums[r * MOST + d];
            k->accumulate[f16](&sums_alone[r][d], 0, p_exact + r * KEYS, 0, value_at(f16, d),
                               MOST + 2, 1, keys, 1);
            for (int j = 0; j < keys; j++) {
                int at = j * (MOST + 2) + d;
                double term = (double)p_exact[r * KEYS + j] *
                              (double)(f16 ? tfi_from_f16(v_halves[at]) : v_exact[at]);
                exact += term, size += fabs(term);
            }
            worst = worst_of(worst, fabs((double)sums_alone[r][d] - exact),
                             2 * (keys + 1) * EPSILON * size);
        }
    CHECK(worst <= 1);
    return worst;
}

static void test_accumulate(const tfi_kernels *k, int f16) {
    static const int key_counts[] = {0, 1, 2, 5, 63, 64}, row_counts[] = {1, 2, 3, 4, 5, 7, 8, 13};
    double worst = 0;
    fill(p_exact, QUERIES * KEYS, 1, 1), fill(v_exact, KEYS * (MOST + 2), 2, 1);
    fill(start_sums, QUERIES * MOST, 3, 1);
    for (int i = 0; i < KEYS * (MOST + 2); i++) v_halves[i] = tfi_to_f16(v_exact[i]);
    for (int i = 0; i < 6; i++) {
        worst = fmax(worst, sums_alone_exactly(k, f16, key_counts[i]));
        for (int r = 0; r < 8; r++)
            for (int s = 0; s < N_SIZES; s++)
                for (int place = 0; place < N_PLACES; place++)
                    check_accumulate(k, f16, row_counts[r], key_counts[i], sizes[s], place);
    }
    GROUP("%s: accumulate %s: the bits of one query and one dimension; error %.2f of "
          "2 (keys + 1) 2^-24 sum |p v|",
          k->name, f16 ? "f16" : "f32", worst);
}

/* ---- what is no number stays none ---- */

/* A NaN or infinity in one weight or one input shows in its own outputs and nowhere else. */
static void check_poisoned_product(const tfi_kernels *k, int kind, int size, int at, float poison) {
    enum { R = 7, N = 7 };
    static float clean[N * R], out[N * R];
    static unsigned char w[R * MOST * 4];
    size_t element = weight_size(kind);
    int act = act_of_kind(kind), bad = 3;
    float x[N * MOST];
    memcpy(x, x_exact, (size_t)(N * size) * sizeof(float));
    for (int r = 0; r < R; r++)
        memcpy(w + (size_t)(r * size) * element, weight_at(kind, (size_t)(r * (size + 3))),
               (size_t)size * element);
    k->matmul[kind](w, (size_t)size, R, make_panels(k, act, x, N, size, AT_END), N, size, clean, R,
                    wide_scratch);
    x[bad * size + at] = poison;
    k->matmul[kind](w, (size_t)size, R, make_panels(k, act, x, N, size, AT_END), N, size, out, R,
                    wide_scratch);
    for (int t = 0; t < N; t++)
        for (int r = 0; r < R; r++)
            if (t == bad)
                CHECK(!is_finite(out[t * R + r]) && (!is_nan(poison) || is_nan(out[t * R + r])));
            else CHECK(out[t * R + r] == clean[t * R + r]);
    x[bad * size + at] = x_exact[bad * size + at];
    uint16_t half = kind == TFI_W_F16 ? tfi_to_f16(poison) : tfi_to_bf16(poison);
    memcpy(w + (size_t)(bad * size + at) * element,
           kind == TFI_W_F32 ? (const void *)&poison : (const void *)&half, element);
    k->matmul[kind](w, (size_t)size, R, make_panels(k, act, x, N, size, AT_END), N, size, out, R,
                    wide_scratch);
    for (int t = 0; t < N; t++)
        for (int r = 0; r < R; r++)
            if (r == bad)
                CHECK(!is_finite(out[t * R + r]) && (!is_nan(poison) || is_nan(out[t * R + r])));
            else CHECK(out[t * R + r] == clean[t * R + r]);
    memset(x, 0, sizeof x); /* infinity times zero */
    k->matmul[kind](w, (size_t)size, R, make_panels(k, act, x, N, size, AT_END), N, size, out, R,
                    wide_scratch);
    CHECK(is_nan(out[bad]) && out[bad + 1] == 0);
}

static void test_poison(const tfi_kernels *k) {
    static const int lengths[] = {1, 5, 16, 17, 33, 257};
    const float poisons[] = {(float)NAN, (float)INFINITY, (float)-INFINITY};
    float x[65], y[65];
    for (int kind = 0; kind < TFI_N_WEIGHTS; kind++)
        for (int i = 0; k->matmul[kind] && i < 6; i++) {
            make_weights(kind, ROWS, lengths[i]);
            fill(x_exact, TOKENS * lengths[i], 99, 1);
            for (int p = 0; p < 3; p++)
                for (int at = 0; at<lengths[i]; at += lengths[i]> 20 ? 15 : 1)
                    check_poisoned_product(k, kind, lengths[i], at, poisons[p]);
        }
    for (int at = 0; at < 65; at++) {
        float max = -3.0e38f, sum = 0, older;
        int nans = 0;
        fill(x, 65, 6, 1), x[at] = (float)NAN;
        for (int kind = 0; kind < 2; kind++) {
            k->norm(y, x, NULL, NULL, 65, 1e-5f, kind);
            for (int i = 0; i < 65; i++) nans += is_nan(y[i]);
        }
        CHECK(nans == 130);
        CHECK(is_nan(k->exponentials(y, x, 65, 1)) && is_nan(y[at]) && !is_nan(y[(at + 1) % 65]));
        for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++) {
            k->activate(memcpy(y, x, sizeof x), NULL, 65, kind);
            CHECK(is_nan(y[at]) && !is_nan(y[(at + 1) % 65]));
            fill(y, 65, 7, 1);
            k->activate(y, x, 65, kind); /* a factor that is none */
            CHECK(is_nan(y[at]) && !is_nan(y[(at + 1) % 65]));
        }
        k->cap(memcpy(y, x, sizeof x), 65, 3);
        CHECK(is_nan(y[at]) && !is_nan(y[(at + 1) % 65]));
        if (at == 64) break;
        k->scores(memcpy(y, x, sizeof x), 1, 3, x);
        CHECK(is_nan(y[at]) && !is_nan(y[(at + 1) % 64]));
        k->softmax_block(memcpy(y, x, sizeof x), 1, 64, &max, &sum, &older);
        CHECK(is_nan(sum) && is_nan(y[at]));
        for (int i = 0; i < 65; i++) y[i] = 0;
        k->accumulate[0](y, 0, x, 0, v_exact, 65, 1, at + 1, 65); /* a weight that is none */
        for (int i = 0; i < 65; i++) CHECK(is_nan(y[i]));
        for (int i = 0; i < 65; i++) y[i] = 0;
        k->accumulate[0](y, 0, v_exact, 0, x, 0, 1, 1, 65); /* a value */
        CHECK(is_nan(y[at]) && !is_nan(y[(at + 1) % 65]));
    }
    GROUP("%s: NaN and infinity reach their own outputs and no others", k->name);
}

/* Far out each activation has reached its limit.  At minus infinity itself SILU and the GELUs are
 * 0 times infinity: their limit is 0, PyTorch answers NaN; here they are 0 or no number, never a
 * number made up. */
static void test_limits(const tfi_kernels *k) {
    for (int kind = 0; kind <= TRANSFORMER_IDENTITY; kind++) {
        int saturates = kind == TRANSFORMER_TANH || kind == TRANSFORMER_SIGMOID;
        int through = kind == TRANSFORMER_IDENTITY;
        float low = kind == TRANSFORMER_TANH ? -1.0f : 0.0f;
        for (int n = 1; n <= 33; n += 4)
            for (int i = 0; i < 6; i++) {
                const float points[] = {1e4f,  3e38f,  (float)INFINITY,
                                        -1e4f, -3e38f, (float)-INFINITY};
                float x[33], far = points[i];
                for (int j = 0; j < n; j++) x[j] = far;
                k->activate(x, NULL, n, kind);
                for (int j = 0; j < n; j++) {
                    float y = x[j];
                    if (!is_finite(y)) {
                        int infinite = !is_finite(far);
                        int squared = kind == TRANSFORMER_RELU2 && far > 1e19f;
                        CHECK(squared || (infinite && !saturates));
                        uint32_t bits = tfi_float_to_bits(y);
                        if (far > 0) CHECK(bits == 0x7f800000u);
                        else
                            CHECK(kind <= TRANSFORMER_GELU_QUICK ||
                                  (through && bits == 0xff800000u));
                    } else if (saturates) CHECK(y == (far > 0 ? 1.0f : low) || fabsf(y) < 1e-30f);
                    else if (through) CHECK(y == far);
                    else if (far > 0) CHECK(y == (kind == TRANSFORMER_RELU2 ? far * far : far));
                    else CHECK(fabsf(y) <= 1e-7f);
                }
                for (int j = 0; j < n; j++) x[j] = far;
                k->cap(x, n, 30);
                for (int j = 0; j < n; j++) CHECK(x[j] == (far > 0 ? 30.0f : -30.0f));
                for (int j = 0; j < n; j++) x[j] = far;
                k->exponentials(x, x, n, 0);
                for (int j = 0; j < n; j++) CHECK(far > 0 ? x[j] > 3.4e38f : x[j] == 0);
            }
    }
    GROUP("%s: limits at +-1e4, +-3e38 and infinity", k->name);
}

/* ---- the half formats, exhaustively ---- */

static float next_up(float x) { return nextafterf(x, (float)INFINITY); }
static float next_down(float x) { return nextafterf(x, (float)-INFINITY); }

static double f16_value(int h) {
    int exponent = (h >> 10) & 31, mantissa = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static void test_half_formats(void) {
    int good = 1;
    for (int h = 0; h < 65536; h++) {
        float f16 = tfi_from_f16((uint16_t)h), bf16 = tfi_from_bf16((uint16_t)h);
        double want = f16_value(h);
        good &= (h & 0x7fff) > 0x7c00 ? is_nan(f16) : (double)f16 == want;
        good &= tfi_float_to_bits(f16) >> 31 == (uint32_t)h >> 15;
        good &= tfi_float_to_bits(bf16) == (uint32_t)h << 16;
        good &= is_nan(f16) ? is_nan(tfi_from_f16(tfi_to_f16(f16))) : tfi_to_f16(f16) == h;
        good &= is_nan(bf16) ? is_nan(tfi_from_bf16(tfi_to_bf16(bf16))) : tfi_to_bf16(bf16) == h;
    }
    CHECK(good);
    for (int h = 0; h < 0x7c00; h++) { /* between h and the next, with 65536 after 65504 */
        double above = h == 0x7bff ? 65536 : f16_value(h + 1);
        float middle = (float)((f16_value(h) + above) / 2);
        uint16_t even = (uint16_t)(h + (h & 1));
        good &= tfi_to_f16(middle) == even && tfi_to_f16(-middle) == (even | 0x8000);
        good &= tfi_to_f16(next_down(middle)) == h && tfi_to_f16(next_up(middle)) == h + 1;
        good &= tfi_to_f16(next_up((float)f16_value(h))) == h;
        good &= tfi_to_f16(next_down((float)above)) == h + 1;
    }
    CHECK(good);
    for (uint32_t h = 0; h < 0x7f80; h++) { /* 0x7f80 is the infinity, which 2^128 would round to */
        float middle = tfi_bits_to_float(h << 16 | 0x8000u);
        uint32_t even = h + (h & 1);
        good &= tfi_to_bf16(middle) == even && tfi_to_bf16(-middle) == (even | 0x8000u);
        good &= tfi_to_bf16(tfi_bits_to_float(h << 16 | 0x7fffu)) == h;
        good &= tfi_to_bf16(tfi_bits_to_float(h << 16 | 0x8001u)) == h + 1;
    }
    CHECK(good);
    CHECK(tfi_to_f16(1e30f) == 0x7c00 && tfi_to_f16(-1e30f) == 0xfc00);
    CHECK(tfi_to_bf16(FLT_MAX) == 0x7f80 && tfi_to_f16(FLT_MIN) == 0);
    CHECK(is_nan(tfi_from_bf16(tfi_to_bf16(tfi_bits_to_float(0x7f800001u)))));
    CHECK(is_nan(tfi_from_f16(tfi_to_f16(tfi_bits_to_float(0xff800001u)))));
    GROUP("F16 and BF16: all 65536 values, midpoints and neighbours round to nearest even");
}

/* All F16 through a row's vector loads (whole vectors and tails) and stores. */
static void test_half_rows(const tfi_kernels *k) {
    static uint16_t in[MOST], back[3 * MOST];
    static float out[MOST], x[3 * MOST];
    const float one = 1;
    int good = 1;
    for (int first = 0; first < 65536; first += MOST - 2) {
        int n = 65536 - first < MOST - 2 ? 65536 - first : MOST - 2; /* 255: odd tails */
        for (int i = 0; i < n; i++) in[i] = (uint16_t)(first + i), out[i] = -0.0f;
        k->accumulate[1](out, 0, &one, 0, in, 0, 1, 1, n);
        for (int i = 0; i < n; i++) {
            float want = tfi_from_f16(in[i]), dot = 0, wide[TFI_MAX_TILE] = {1};
            good &= is_nan(want) ? is_nan(out[i]) : memcmp(&want, &out[i], sizeof want) == 0;
            k->matmul[TFI_W_F16](in + i, 1, 1, wide, 1, 1, &dot, 0, NULL);
            good &= is_nan(want) ? is_nan(dot) : dot == want;
            k->matmul[TFI_W_BF16](in + i, 1, 1, wide, 1, 1, &dot, 0, NULL);
            want = tfi_from_bf16(in[i]);
            good &= is_nan(want) ? is_nan(dot) : dot == want;
        }
        int m = 0;
        for (int i = 0; i < n && !is_nan(tfi_from_f16(in[i])); i++) {
            int above = (in[i] & 0x7fff) == 0x7bff;
            float value = tfi_from_f16(in[i]),
                  next = above ? copysignf(65536, value) : tfi_from_f16((uint16_t)(in[i] + 1));
            float middle = !is_finite(value) ? value : (value + next) / 2;
            x[m++] = next_down(middle), x[m++] = middle, x[m++] = next_up(middle);
        }
        k->to_f16(back, x, m);
        for (int i = 0; i < m; i++)
            good &= is_nan(x[i]) ? is_nan(tfi_from_f16(back[i])) : back[i] == tfi_to_f16(x[i]);
    }
    CHECK(good);
    x[0] = (float)NAN, x[20] = (float)NAN;
    k->to_f16(back, x, 21);
    CHECK(is_nan(tfi_from_f16(back[0])) && is_nan(tfi_from_f16(back[20])));
    GROUP("%s: F16 and BF16 loads and F16 stores equal the scalar ones for every value", k->name);
}

static void test_table(void) {
    CHECK(strcmp(tfi_rows[0]->name, "scalar") == 0 && tfi_rows[0]->needs == 0);
    for (int i = 0; tfi_rows[i]; i++) {
        const tfi_kernels *k = tfi_rows[i];
        CHECK(k->name && k->few >= 1 && k->few <= TFI_MAX_FEW && k->norm && k->activate);
        CHECK(!k->has_bf16_dot == !k->matmul[TFI_W_BF16_DOT]);
        CHECK(!k->has_bf16_dot == !k->pack[TFI_ACT_BF16]);
        const tfi_kernels *chosen = tfi_choose(k->name);
        CHECK(row_runs(k) ? chosen == k : chosen && chosen != k && row_runs(chosen));
        for (int j = 0; j < i; j++) CHECK(strcmp(k->name, tfi_rows[j]->name) != 0);
    }
    CHECK(tfi_choose("no such row") == NULL && tfi_choose(NULL) && row_runs(tfi_choose(NULL)));
    GROUP("the table of rows");
}

int main(int argc, char **argv) {
    brief = argc > 1, (void)argv;
    if (!make_areas()) {
        fprintf(stderr, "no memory for the test's arrays\n");
        return 1;
    }
    if (!GUARDED) SKIP("pages that fault around arrays: this system has no mmap");
    test_table();
    test_half_formats();
    for (int i = 0; tfi_rows[i]; i++) {
        const tfi_kernels *k = tfi_rows[i];
        if (!row_runs(k)) {
            SKIP("%s: not on this CPU", k->name);
            continue;
        }
        test_pack(k);
        for (int kind = 0; kind < TFI_N_WEIGHTS; kind++)
            if (k->matmul[kind]) test_matmul(k, kind), test_cuts(k, kind);
        test_elements(k);
        test_reductions(k);
        test_norm(k);
        test_to_f16(k);
        test_scores(k);
        test_softmax_block(k);
        test_softmax_rows(k);
        test_scale(k);
        for (int f16 = 0; f16 < 2; f16++) test_accumulate(k, f16);
        test_poison(k);
        test_limits(k);
        test_half_rows(k);
    }
    return test_finish();
}
