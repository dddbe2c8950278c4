/* common.h - what several of the example programs need: errors, time, arguments, a model.
 * Licence: MIT.
 *
 * Include it before everything else: it asks the system headers for clock_gettime.  It includes
 * the declarations of transformer.h and model_file.h, not their implementations.
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

/* ---- a model from a file ---- */

/* Open, set up, bind.  The model points into *file: close that last. */
static inline transformer_model *load_model(const char *path, const transformer_options *options,
                                            model_file **file) {
    transformer_error error;
    model_file_options file_options = {0};
    file_options.rope_length = options->rope_length;
    *file = model_file_open(path, &file_options, &error);
    if (*file == NULL) die("%s: %s", path, error.text);
    transformer_model *model = transformer_model_new(model_file_config(*file), options, &error);
    if (model == NULL || model_file_bind(*file, model, &error) != TRANSFORMER_OK)
        die("%s: %s", path, error.text);
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
