/* A test program is a list of checks: CHECK counts, REPORT prints one line per group, FINISH ends main. */
#ifndef TEST_H
#define TEST_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped, test_group_failed;

static inline void test_check(int ok, const char *file, int line, const char *what) {
    if (ok) {
        test_passed++;
        return;
    }
    test_failed++, test_group_failed++;
    if (test_group_failed <= 10) fprintf(stderr, "%s:%d: FAILED: %s\n", file, line, what);
}
#define CHECK(condition) test_check((condition) != 0, __FILE__, __LINE__, #condition)

/* One line per group of checks. */
#define GROUP(...)                                                                                 \
    do {                                                                                           \
        printf(test_group_failed ? "FAIL  " : "ok    ");                                           \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        fflush(stdout);                                                                            \
        test_group_failed = 0;                                                                     \
    } while (0)

#define SKIP(...)                                                                                  \
    do {                                                                                           \
        test_skipped++;                                                                            \
        printf("SKIP  ");                                                                          \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
    } while (0)

/* Steps through what takes long with a sanitizer, which is then as thorough as time allows. */
#if defined __has_feature
#if __has_feature(address_sanitizer)
#define TEST_STEP 61
#endif
#elif defined __SANITIZE_ADDRESS__
#define TEST_STEP 61
#endif
#ifndef TEST_STEP
#define TEST_STEP 1
#endif

/* What a header's field of 4 or 8 bytes must survive. */
#define TEST_EXTREMES                                                                              \
    {                                                                                              \
        0, 1, UINT64_MAX, 0x7fffffffu, 0x80000000u, 0xffffffffu, (uint64_t)1 << 61,                \
            (uint64_t)1 << 63, UINT64_MAX - 1                                                      \
    }

static inline int test_finish(void) {
    printf("%d passed, %d failed", test_passed, test_failed);
    if (test_skipped) printf(", %d skipped", test_skipped);
    printf("\n");
    return test_failed != 0;
}

/* Largest absolute difference; a NaN anywhere makes it infinite. */
static inline double test_difference(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= 1e30)) return 1e30;
        if (d > most) most = d;
    }
    return most;
}

/* The whole file, zero-terminated, to be freed; NULL if it cannot be read. */
static inline char *test_read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    long n;
    if (!f) return NULL;
    if (fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        data = (char *)malloc((size_t)n + 1);
        if (data && fread(data, 1, (size_t)n, f) != (size_t)n) {
            free(data);
            data = NULL;
        } else if (data) {
            data[n] = 0;
            if (size) *size = (size_t)n;
        }
    }
    fclose(f);
    return data;
}

/* Calls do_line for every line of a file that is not empty, without its end; returns how many there were, 0 and a
 * failure if the file cannot be read. */
static inline int test_each_line(const char *path, void (*do_line)(char *line, const void *user),
                                 const void *user) {
    char *text = test_read_file(path, NULL), *line = text, *next;
    int n = 0;
    if (!text) fprintf(stderr, "%s: cannot be read (run from the project's root)\n", path);
    CHECK(text != NULL);
    for (; line && *line; line = next) {
        size_t length = strcspn(line, "\r\n");
        next = line + length + strspn(line + length, "\r\n");
        line[length] = 0;
        if (length == 0) continue;
        do_line(line, user);
        n++;
    }
    free(text);
    return n;
}

/* The numbers of the array after key ... key in a JSON text that we wrote ourselves: each key is searched after
 * the one before.  Returns how many (at most max), or -1 if a key is missing. */
static inline int test_json_numbers(const char *json, const char *const *keys, int n_keys,
                                    float *out, int max) {
    const char *p = json;
    int n = 0, depth = 0;
    for (int i = 0; i < n_keys; i++) {
        char quoted[128];
        snprintf(quoted, sizeof quoted, "\"%s\":", keys[i]);
        p = strstr(p, quoted);
        if (!p) return -1;
        p += strlen(quoted);
    }
    while (*p == ' ') p++;
    do {
        char *end;
        if (*p == '[') depth++;
        if (*p == ']') depth--;
        if (*p == '[' || *p == ']' || *p == ',' || *p == ' ' || *p == '\n') {
            p++;
            continue;
        }
        double value = strtod(p, &end);
        if (end == p || n == max) break;
        out[n++] = (float)value;
        p = end;
    } while (depth > 0);
    return n;
}

/* Deterministic noise in [-0.5, 0.5): a 32-bit mix of the index. */
static inline uint32_t test_hash(uint32_t n) {
    n ^= n >> 16, n *= 0x85ebca6bu, n ^= n >> 13, n *= 0xc2b2ae35u, n ^= n >> 16;
    return n;
}
static inline float test_noise(uint32_t seed) {
    return (float)(test_hash(seed) >> 8) / 16777216.0f - 0.5f;
}
#endif
