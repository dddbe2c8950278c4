/* common.h - what several of the example programs need: errors, time, arguments, a model.
 * Licence: MIT.
 *
 * Include it before everything else: it asks the system headers for clock_gettime.  It includes
 * the declarations of transformer.h, model_file.h and sampler.h, not their implementations.
 */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../transformer.h"
#include "model_file.h"
#include "sampler.h"

/* Print one line to stderr and exit with status 1. */
#if defined(__GNUC__) || defined(__clang__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
static inline void
die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* The error of a library, without the path or its last part, if it begins with one of them. */
static inline const char *without_path(const char *path, const char *text) {
    for (const char *name = path, *p = path;; p++) {
        size_t n = strlen(name);
        if (strncmp(text, name, n) == 0 && strncmp(text + n, ": ", 2) == 0) text += n + 2;
        while (*p != '\0' && *p != '/' && *p != '\\') p++;
        if (*p == '\0') return text;
        name = p + 1;
    }
}

#if defined(__GNUC__) || defined(__clang__)
__attribute__((noreturn))
#endif
static inline void
die_about(const char *path, const char *text) {
    die("%s: %s", path, without_path(path, text));
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = size == 0 || count <= SIZE_MAX / size ? malloc(count * size + 1) : NULL;
    if (memory == NULL) die("out of memory for %zu x %zu bytes", count, size);
    return memory;
}

/* Seconds since some moment in the past. */
static inline double seconds(void) {
    struct timespec now;
#ifdef _WIN32
    timespec_get(&now, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- arguments ---- */

/* A whole number in low .. high, or death. */
static inline int parse_int(const char *name, const char *text, int low, int high) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < low || value > high)
        die("%s: '%s' is not a whole number from %d to %d", name, text, low, high);
    return (int)value;
}

static inline double parse_number(const char *name, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= low && value <= high))
        die("%s: '%s' is not a number from %g to %g", name, text, low, high);
    return value;
}

/* Is argv[*i] the option called name? */
static inline int is_option(char **argv, const int *i, const char *name) {
    return strcmp(argv[*i], name) == 0;
}

/* The argument that follows the option argv[*i], which *i moves on to. */
static inline const char *option_value(int argc, char **argv, int *i) {
    if (*i + 1 >= argc) die("%s needs a value", argv[*i]);
    return argv[++*i];
}

static inline int asks_for_help(const char *argument) {
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

/* --help, first or last: the usage on stdout, and the end. */
static inline void offer_help(int argc, char **argv, const char *usage) {
    if (argc < 2 || (!asks_for_help(argv[1]) && !asks_for_help(argv[argc - 1]))) return;
    if (fputs(usage, stdout) == EOF || fflush(stdout) == EOF) exit(1);
    exit(0);
}

/* -z or --tokenizer: 1 if argv[*i] was it. */
static inline int tokenizer_option(int argc, char **argv, int *i, const char **tokenizer) {
    if (!is_option(argv, i, "-z") && !is_option(argv, i, "--tokenizer")) return 0;
    *tokenizer = option_value(argc, argv, i);
    return 1;
}

/* The options that mean the same everywhere: 1 if argv[*i] was one of them. */
static inline int library_option(int argc, char **argv, int *i, transformer_options *options) {
    if (is_option(argv, i, "--threads")) {
        options->n_threads = parse_int("--threads", option_value(argc, argv, i), 1, 1024);
    } else if (is_option(argv, i, "--isa")) {
        options->isa = option_value(argc, argv, i);
    } else if (is_option(argv, i, "--full-precision")) {
        options->full_precision = 1;
    } else if (is_option(argv, i, "--kv")) {
        const char *dtype = option_value(argc, argv, i);
        if (strcmp(dtype, "f32") != 0 && strcmp(dtype, "f16") != 0)
            die("--kv: '%s' is neither f32 nor f16", dtype);
        options->kv_dtype = strcmp(dtype, "f16") == 0 ? TRANSFORMER_F16 : TRANSFORMER_F32;
    } else {
        return 0;
    }
    return 1;
}

/* ---- choosing a token ---- */

#define SAMPLING_USAGE                                                                             \
    "  -t TEMPERATURE     0 = always the most probable token (default 1)\n"                        \
    "  -k TOP_K           sample from the k most probable tokens (default 0 = all)\n"              \
    "  --top-p P          sample from the tokens that make up this probability (default 0.9)\n"    \
    "  --min-p P          drop tokens less than P times as probable as the first (default 0)\n"    \
    "  --typical P        sample from the most typical tokens that make up P (default 0 = off)\n"  \
    "  --repetition X     penalty: logits of recent tokens are divided by X (default 1 = off)\n"   \
    "  --presence X       penalty: logits of recent tokens lose X (default 0)\n"                   \
    "  --frequency X      penalty: logits lose X per recent occurrence (default 0)\n"              \
    "  --window N         how many tokens are recent (default 64)\n"                               \
    "  --bias TOKEN=X     add X to the logit of a token id; -inf forbids it; up to 64 times\n"     \
    "  --seed SEED        of the random numbers (default: the time)\n"

typedef struct sampling {
    sampler_options options;
    int window;
    sampler_token_bias bias[64];
    int n_bias;
} sampling;

static inline void sampling_defaults(sampling *s) {
    memset(s, 0, sizeof *s);
    s->options.temperature = 1;
    s->options.top_p = 0.9f;
    s->options.seed = (uint64_t)time(NULL) & INT_MAX;
    s->window = 64;
}

/* The value of --bias. */
static inline void parse_bias(const char *text, sampling *s) {
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    double bias = *end == '=' ? strtod(end + 1, &end) : 0;
    if (end == text || *end != '\0' || strchr(text, '=') == NULL || errno != 0 || id < 0 ||
        id > INT_MAX || !(bias <= 1e6))
        die("--bias: '%s' is not a token's number, '=' and a number", text);
    if (s->n_bias == (int)(sizeof s->bias / sizeof s->bias[0])) die("--bias: too many");
    s->bias[s->n_bias].id = (int)id;
    s->bias[s->n_bias++].bias = (float)bias;
}

/* The options of SAMPLING_USAGE: 1 if argv[*i] was one of them. */
static inline int sampling_option(int argc, char **argv, int *i, sampling *s) {
    const struct {
        const char *name;
        float *value;
        double low, high;
    } numbers[] = {{"-t", &s->options.temperature, 0, 1e6},
                   {"--top-p", &s->options.top_p, 0, 1},
                   {"--min-p", &s->options.min_p, 0, 1},
                   {"--typical", &s->options.typical, 0, 1},
                   {"--repetition", &s->options.repetition, 0, 1e6},
                   {"--presence", &s->options.presence, -1e6, 1e6},
                   {"--frequency", &s->options.frequency, -1e6, 1e6}};
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
        if (!is_option(argv, i, numbers[k].name)) continue;
        *numbers[k].value = (float)parse_number(numbers[k].name, option_value(argc, argv, i),
                                                numbers[k].low, numbers[k].high);
        return 1;
    }
    if (is_option(argv, i, "-k")) {
        s->options.top_k = parse_int("-k", option_value(argc, argv, i), 0, INT_MAX);
    } else if (is_option(argv, i, "--window")) {
        s->window = parse_int("--window", option_value(argc, argv, i), 0, INT_MAX);
    } else if (is_option(argv, i, "--seed")) {
        s->options.seed = (uint64_t)parse_int("--seed", option_value(argc, argv, i), 0, INT_MAX);
    } else if (is_option(argv, i, "--bias")) {
        parse_bias(option_value(argc, argv, i), s);
    } else {
        return 0;
    }
    return 1;
}

/* The next token, after the n_tokens so far; changes the logits [n].  scratch [n]. */
static inline int32_t choose_token(sampler *s, const sampling *choice, float *logits, int n,
                                   const int32_t *tokens, int n_tokens,
                                   sampler_candidate *scratch) {
    int recent = n_tokens < choice->window ? n_tokens : choice->window;
    if (sampler_bias(logits, n, choice->bias, choice->n_bias) != 0)
        die("--bias: the model has only %d tokens", n);
    if (sampler_penalize(s, logits, n, tokens + n_tokens - recent, recent, scratch) != 0)
        die("a token of the text is not one of the model's %d", n);
    int32_t token = sampler_sample(s, logits, n, scratch);
    if (token < 0) die("the logits leave no token to choose");
    return token;
}

/* ---- a model from a file ---- */

/* Open, set up, bind.  The model points into *file: close that last. */
static inline transformer_model *load_model(const char *path, const transformer_options *options,
                                            model_file **file) {
    transformer_error error;
    model_file_options file_options = {0};
    file_options.rope_length = options->rope_length;
    *file = model_file_open(path, &file_options, &error);
    if (*file == NULL) die_about(path, error.text);
    transformer_model *model = model_file_model(*file, options, &error);
    if (model == NULL) die_about(path, error.text);
    return model;
}

static inline transformer_state *new_state(const transformer_model *model,
                                           const transformer_options *options) {
    transformer_error error;
    transformer_state *state = transformer_state_new(model, options, &error);
    if (state == NULL) die("%s", error.text);
    return state;
}

static inline transformer_workspace *new_workspace(const transformer_model *model,
                                                   const transformer_options *options) {
    transformer_error error;
    transformer_workspace *work = transformer_workspace_new(model, options, &error);
    if (work == NULL) die("%s", error.text);
    return work;
}

#endif /* EXAMPLES_COMMON_H */
