/* model_file.h - opens model files for transformer.h.  Licence: MIT, as transformer.h.
 *
 *     #define TRANSFORMER_IMPLEMENTATION
 *     #include "transformer.h"
 *     #define MODEL_FILE_IMPLEMENTATION           (in exactly one .c or .cpp file)
 *     #include "model_file.h"
 *
 *     transformer_error error;
 *     model_file *file = model_file_open("models/SmolLM2-135M", NULL, &error);
 *     transformer_model *model = model_file_model(file, &options, &error);
 *     ... transformer_forward(model, ...) ...
 *     transformer_free(model);
 *     model_file_close(file);                     (only now: the model points into the file)
 *
 * READS      - a Hugging Face directory: config.json and model.safetensors, or the shards of
 *              model.safetensors.index.json; F32, F16 and BF16 weights of the families in the table
 *              under >>families.
 *            - a GGUF file, version 2 or 3, or all parts of a split one (name any of them), of the
 *              architectures in the table under >>gguf, with weights of any transformer_dtype.
 *            - a llama2.c checkpoint (.bin), version 0, 1 or 2.
 *            From a path, or from memory.
 * MEMORY     Files are mapped where the system can (else read into memory) and tensors are used
 *            where they lie.  Three things are copied, once, in the type they have: matrices stored
 *            transposed (GPT-2), queries, keys and values interleaved by head (GPT-NeoX, BLOOM,
 *            Falcon, StarCoder), and tensors at odd addresses.  Never more than the file's size.
 *            llama2.c version 2 is 8-bit: it is dequantised to F32, exactly, at four bytes per
 *            weight, and model_file_info.dequantized says so.
 * REFUSES    What cannot be run exactly as its authors run it, naming the key or tensor: unknown
 *            families, RoPE types and activations, mixtures of experts, quantized safetensors,
 *            tensors that are missing, left over, misshapen, or of another type.  Nothing in a file
 *            is trusted; do not change a file while it is open.
 * GGUF       leaves out facts that its architectures imply (RoPE pairing, where the norms are,
 *            windows' patterns); they are supplied.  What differs between models and is not in the
 *            file cannot be: the sliding window of Mistral 7B v0.1, of Qwen 2 and of StarCoder 2
 *            (taken to be 4096, as in its releases), Qwen 1's changes beyond its trained length.
 *            A metadata key of the architecture that is not understood is refused by name.
 *            model_file_metadata and model_file_stored show what is in a file, run or not.
 * LENGTH     "dynamic" and "longrope" scaling depend on the length of the sequence: set
 *            transformer_options.rope_length.  Qwen 1 changes its RoPE base with the length of the
 *            prompt: without model_file_options.rope_length its context ends where that begins.
 * MACROS     MODEL_FILE_IMPLEMENTATION, MODEL_FILE_STATIC (everything static), MODEL_FILE_NO_MMAP
 *            (read files into memory with fread).
 */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#ifndef TRANSFORMER_H
#include "transformer.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(MODEL_FILE_STATIC)
#if defined(__GNUC__) || defined(__clang__)
#define MODEL_FILE_API __attribute__((unused)) static
#else
#define MODEL_FILE_API static
#endif
#else
#define MODEL_FILE_API extern
#endif

typedef struct model_file model_file;

typedef struct model_file_options { /* all zero is the default; NULL will do */
    int rope_length; /* Qwen 1: length of the sequences to come; 0 = within the trained length */
    int only_look;   /* 1 = list metadata and tensors, of any architecture and type; nothing can be
                        bound, and a .safetensors file may lack its config.json */
} model_file_options;

typedef struct model_file_info {
    char format[16];     /* "safetensors", "GGUF" or "llama2.c" */
    char family[32];     /* config.json's model_type, general.architecture, or "llama2.c" */
    size_t n_tensors;    /* what model_file_bind binds */
    size_t n_stored;     /* for model_file_stored; 0 = llama2.c */
    size_t n_metadata;   /* for model_file_metadata; 0 = llama2.c */
    int n_files;         /* that hold weights: for model_file_part_at */
    size_t file_bytes;   /* of all of them */
    size_t copied_bytes; /* of weights that were rearranged or dequantised */
    int mapped;          /* 1 = files are mapped, 0 = read into memory */
    int dequantized;     /* 1 = 8-bit weights were expanded to F32 (llama2.c version 2) */
} model_file_info;

/* path: a directory with config.json, a .safetensors file in one, a GGUF file or a llama2.c
 * checkpoint.  NULL on failure, with the reason in *error (which may be NULL). */
MODEL_FILE_API model_file *model_file_open(const char *path, const model_file_options *options,
                                           transformer_error *error);

/* A GGUF file or a llama2.c checkpoint that is in memory, which has to stay there until
 * model_file_close and is not copied; at an address that is a multiple of 32, ideally. */
MODEL_FILE_API model_file *model_file_open_memory(const void *data, size_t size,
                                                  const model_file_options *options,
                                                  transformer_error *error);

/* config.json's text and a safetensors file, likewise.  config NULL = as model_file_open_memory. */
MODEL_FILE_API model_file *model_file_open_safetensors(const void *config, size_t config_size,
                                                       const void *data, size_t size,
                                                       const model_file_options *options,
                                                       transformer_error *error);
MODEL_FILE_API void model_file_close(model_file *file); /* NULL is ignored */

/* What transformer_model_size, _init and _new take.  You may copy it and change, say, context. */
MODEL_FILE_API const transformer_config *model_file_config(const model_file *file);
MODEL_FILE_API const model_file_info *model_file_get_info(const model_file *file);

/* One tensor, or NULL if this model has none in that role. */
MODEL_FILE_API const transformer_tensor *model_file_tensor(const model_file *file, int role,
                                                           int layer);

/* Binds every tensor (transformer_bind) and finishes the model (transformer_model_ready). */
MODEL_FILE_API transformer_status model_file_bind(const model_file *file, transformer_model *model,
                                                  transformer_error *error);

#ifndef TRANSFORMER_NO_MALLOC
/* transformer_model_new and model_file_bind in one.  A file of NULL gives NULL and leaves *error as
 * it is, so that the reason of a model_file_open just before can be told after both. */
MODEL_FILE_API transformer_model *model_file_model(const model_file *file,
                                                   const transformer_options *options,
                                                   transformer_error *error);
#endif

/* ---- what is in the file, understood or not ---- */

typedef struct model_file_part { /* one of the files that hold weights */
    const char *name;            /* the last part of its path */
    const unsigned char *data;
    size_t size;
} model_file_part;

/* File number i of info.n_files.  0 if there is none. */
MODEL_FILE_API int model_file_part_at(const model_file *file, int i, model_file_part *part);

typedef struct model_file_string { /* points into the file; no zero at its end; maybe not UTF-8 */
    const char *text;
    size_t length;
} model_file_string;

enum { /* of metadata: GGUF's numbers; then ours */
       MODEL_FILE_U8 = 0,
       MODEL_FILE_I8 = 1,
       MODEL_FILE_U16 = 2,
       MODEL_FILE_I16 = 3,
       MODEL_FILE_U32 = 4,
       MODEL_FILE_I32 = 5,
       MODEL_FILE_F32 = 6,
       MODEL_FILE_BOOL = 7,
       MODEL_FILE_STRING = 8,
       MODEL_FILE_ARRAY = 9,
       MODEL_FILE_U64 = 10,
       MODEL_FILE_I64 = 11,
       MODEL_FILE_F64 = 12,
       MODEL_FILE_JSON = 13 /* text of a value: correct JSON, valid UTF-8, maybe over many lines */
};

typedef struct model_file_value {
    model_file_string key;
    int type;                  /* MODEL_FILE_U8 ... */
    int element;               /* an array: the type of its elements; else = type */
    size_t n;                  /* an array: how many; else 1 */
    const unsigned char *data; /* the elements as GGUF stores them: little-endian, unaligned */
    size_t bytes;
} model_file_value;

/* Value number i of info.n_metadata; that of a key.  0 if there is none.  A GGUF file has typed
 * values; for safetensors they are the members of config.json, all MODEL_FILE_JSON. */
MODEL_FILE_API int model_file_metadata(const model_file *file, size_t i, model_file_value *value);
MODEL_FILE_API int model_file_find(const model_file *file, const char *key,
                                   model_file_value *value);

/* Element i (0 for what is no array).  0 if there is none, it is of another kind (bool counts as an
 * integer, integers as floats), or does not fit. */
MODEL_FILE_API int model_file_int(const model_file_value *value, size_t i, int64_t *out);
MODEL_FILE_API int model_file_float(const model_file_value *value, size_t i, double *out);
/* Strings have to be read in order: *at starts at 0 and moves on.  0 at the end. */
MODEL_FILE_API int model_file_next_string(const model_file_value *value, size_t *at,
                                          model_file_string *out);

typedef struct model_file_stored_tensor {
    model_file_string name;
    const char *type; /* "F32", "Q4_K", "I32", ..., "unknown"; never NULL */
    int dtype;        /* transformer_dtype, or -1: not for transformer.h */
    int gguf_type;    /* GGUF's number of the type, or -1 */
    int n_dims;       /* dims[0] is the outermost: [rows, columns] */
    uint64_t dims[4]; /* of more dimensions, the first four */
    const void *data;
    size_t bytes; /* 0 if the file does not say: a GGUF type that is unknown */
} model_file_stored_tensor;

/* Tensor number i of info.n_stored, in the order of names.  0 if there is none. */
MODEL_FILE_API int model_file_stored(const model_file *file, size_t i,
                                     model_file_stored_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif /* MODEL_FILE_H */

/* Stop here if you only want to use it.
 *
 * CONTENTS   >>errors >>files >>json >>reader    text to checked values
 *            >>rope >>families                   config.json to transformer_config
 *            >>names >>safetensors >>layouts     tensor names to roles, rows to rows
 *            >>metadata >>gguf                   the same of GGUF
 *            >>llama2c >>open                    the rest
 */
#if defined(MODEL_FILE_IMPLEMENTATION) && !defined(MODEL_FILE_IMPLEMENTED)
#define MODEL_FILE_IMPLEMENTED

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* These four headers declare open, fstat, mmap and close whatever the C dialect asked for. */
#if !defined(MODEL_FILE_NO_MMAP) && (defined(__unix__) || defined(__APPLE__)) && !defined(__wasm__)
#define MFI_MMAP 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#define MFI_MMAP 0
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>errors ============================================================================== */

#if defined(__GNUC__) || defined(__clang__)
#define MFI_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define MFI_PRINTF(f, a)
#endif

/* Bytes of the UTF-8 character at p, 0 if malformed, overlong, a surrogate or out of range. */
static int mfi_utf8(const unsigned char *p, const unsigned char *end) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int n = *p < 0x80 ? 1 : (*p >> 5) == 6 ? 2 : (*p >> 4) == 14 ? 3 : (*p >> 3) == 30 ? 4 : 0;
    uint32_t c = n == 1 ? *p : *p & (0xffu >> (n + 1));
    int i;
    if (n == 0 || end - p < n) return 0;
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

/* Files are hostile: what is quoted from them must not control the terminal that shows it, nor turn
 * the direction of writing (U+202A to U+202E, U+2066 to U+2069). */
static void mfi_clean(char *text) {
    char *end = text + strlen(text);
    while (text < end) {
        const unsigned char *p = (const unsigned char *)text;
        int n = mfi_utf8(p, (const unsigned char *)end);
        int turns = n == 3 && p[0] == 0xe2 &&
                    ((p[1] == 0x80 && p[2] >= 0xaa && p[2] <= 0xae) ||
                     (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9));
        if (n == 0 || turns || *p < 32 || *p == 127 || (*p == 0xc2 && p[1] < 0xa0))
            memset(text, '?', n ? (size_t)n : 1);
        text += n ? n : 1;
    }
}

/* Keeps the first error; returns 0 so that callers can write `return mfi_fail(...)`. */
MFI_PRINTF(3, 4)
static int mfi_fail(transformer_error *error, transformer_status status, const char *format, ...) {
    va_list args;
    if (error->status != TRANSFORMER_OK) return 0;
    error->status = status;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    mfi_clean(error->text);
    return 0;
}

#define MFI_BAD TRANSFORMER_CONFIG
#define MFI_WEIGHTS TRANSFORMER_WEIGHTS
#define MFI_UNSUPPORTED TRANSFORMER_UNSUPPORTED

/* ==== >>files =============================================================================== */

typedef struct mfi_file {
    unsigned char *data; /* NULL = not open */
    size_t size;
    int mapped;
    int borrowed;  /* the caller's memory */
    char name[64]; /* for errors: the last part of the path */
} mfi_file;

static void mfi_file_close(mfi_file *file) {
    if (!file->data) return;
#if MFI_MMAP
    if (file->mapped) munmap((void *)file->data, file->size);
    else
#endif
        if (!file->borrowed)
        free(file->data);
    file->data = NULL;
}

static const char *mfi_base_name(const char *path) {
    const char *base = path;
    for (; *path; path++)
        if (*path == '/' || *path == '\\') base = path + 1;
    return base;
}

#if MFI_MMAP
/* O_NONBLOCK: opening a pipe must not wait for a writer. */
static int mfi_file_map(const char *path, mfi_file *file, transformer_error *error) {
    struct stat st;
    void *data;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return mfi_fail(error, TRANSFORMER_ARGUMENT, "%s: cannot be opened", file->name);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uintmax_t)st.st_size > (uintmax_t)(SIZE_MAX / 2)) {
        close(fd);
        return mfi_fail(error, TRANSFORMER_ARGUMENT, "%s: empty, too large or not a file",
                        file->name);
    }
    file->size = (size_t)st.st_size;
    data = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return mfi_fail(error, TRANSFORMER_MEMORY, "%s: cannot be mapped", file->name);
    file->data = (unsigned char *)data;
    file->mapped = 1;
    return 1;
}
#else
/* Grows as it reads, so that no system-specific way to learn a file's size is needed. */
static int mfi_file_read(const char *path, mfi_file *file, transformer_error *error) {
    size_t room = 1 << 16, got = 1;
    int bad;
    FILE *f = fopen(path, "rb");
    if (!f) return mfi_fail(error, TRANSFORMER_ARGUMENT, "%s: cannot be opened", file->name);
    file->data = (unsigned char *)malloc(room);
    while (file->data && got > 0) {
        if (file->size == room) {
            unsigned char *more = NULL;
            if (room <= SIZE_MAX / 4) more = (unsigned char *)realloc(file->data, room *= 2);
            if (!more) break;
            file->data = more;
        }
        got = fread(file->data + file->size, 1, room - file->size, f);
        file->size += got;
    }
    bad = ferror(f);
    fclose(f);
    if (got > 0) mfi_fail(error, TRANSFORMER_MEMORY, "%s: not enough memory", file->name);
    else if (bad || file->size == 0)
        mfi_fail(error, TRANSFORMER_ARGUMENT, "%s: empty or cannot be read", file->name);
    else return 1;
    mfi_file_close(file);
    return 0;
}
#endif

static int mfi_file_open(const char *path, mfi_file *file, transformer_error *error) {
    memset(file, 0, sizeof *file);
    snprintf(file->name, sizeof file->name, "%s", mfi_base_name(path));
    mfi_clean(file->name);
#if MFI_MMAP
    return mfi_file_map(path, file, error);
#else
    return mfi_file_read(path, file, error);
#endif
}

static uint32_t mfi_u32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t mfi_u64(const unsigned char *p) {
    return (uint64_t)mfi_u32(p) | (uint64_t)mfi_u32(p + 4) << 32;
}

/* ==== >>json ================================================================================
 *
 * A text is checked once, strictly (RFC 8259, valid UTF-8), and then read where it lies: a value
 * is the span of its text.  That needs no memory at all, whatever the text.  After the check,
 * stepping through it needs no bounds: every object and array is known to end. */

typedef struct mfi_span {
    const char *p, *end;
} mfi_span;

#define MFI_JSON_DEPTH 32

static const char *mfi_json_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static int mfi_is_digit(char c) { return c >= '0' && c <= '9'; }

static int mfi_is_hex(char c) {
    return mfi_is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* The scanners move *at and return NULL, or what is wrong at *at. */
static const char *mfi_json_string(const char **at, const char *end) {
    const char *p = *at + 1;
    for (;;) {
        int n;
        *at = p;
        if (p == end) return "a string does not end";
        if (*p == '"') break;
        if ((unsigned char)*p < 32) return "control character in a string";
        if (*p == '\\') {
            int i;
            if (end - p < 2 || !strchr("\"\\/bfnrtu", p[1]) || !p[1]) return "bad escape";
            for (i = 2; p[1] == 'u' && i < 6; i++)
                if (end - p <= i || !mfi_is_hex(p[i])) return "bad escape";
            p += p[1] == 'u' ? 6 : 2;
            continue;
        }
        n = mfi_utf8((const unsigned char *)p, (const unsigned char *)end);
        if (n == 0) return "malformed UTF-8";
        p += n;
    }
    *at = p + 1;
    return NULL;
}

static const char *mfi_json_number(const char **at, const char *end) {
    const char *p = *at;
    int part;
    if (p < end && *p == '-') p++;
    for (part = 0; part < 3; part++) { /* integer, fraction, exponent */
        const char *digits;
        if (part == 1 && (p == end || *p != '.')) continue;
        if (part == 2 && (p == end || (*p != 'e' && *p != 'E'))) continue;
        p += part > 0;
        if (part == 2 && p < end && (*p == '+' || *p == '-')) p++;
        for (digits = p; p < end && mfi_is_digit(*p);) p++;
        if (p == digits || (part == 0 && *digits == '0' && p - digits > 1)) return "bad number";
    }
    *at = p;
    return NULL;
}

static const char *mfi_json_scalar(const char **at, const char *end) {
    static const char *const words[3] = {"true", "false", "null"};
    int i;
    if (*at == end) return "the text ends too early";
    if (**at == '"') return mfi_json_string(at, end);
    if (**at == '-' || mfi_is_digit(**at)) return mfi_json_number(at, end);
    for (i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(end - *at) >= n && memcmp(*at, words[i], n) == 0) {
            *at += n;
            return NULL;
        }
    }
    return "a value is expected";
}

/* Keys with escapes are refused, so that a key can be compared as it stands. */
static const char *mfi_json_key(const char **at, const char *end) {
    const char *start, *why;
    start = *at = mfi_json_space(*at, end);
    if (start == end || *start != '"') return "a key is expected";
    if ((why = mfi_json_string(at, end)) != NULL) return why;
    if (memchr(start, '\\', (size_t)(*at - start))) return "a key with escapes";
    *at = mfi_json_space(*at, end);
    if (*at == end || **at != ':') return "':' is expected";
    ++*at;
    return NULL;
}

/* Checks a whole text without recursion.  NULL, or what is wrong at *at. */
static const char *mfi_json_check(mfi_span text, const char **at) {
    char stack[MFI_JSON_DEPTH]; /* the brackets that close what is open */
    int depth = 0, more = 1;    /* more: a value is to follow */
    const char *end = text.end, *why = NULL;
    *at = text.p;
    while (more && !why) {
        more = 0;
        *at = mfi_json_space(*at, end);
        if (*at < end && (**at == '{' || **at == '[')) {
            if (depth == MFI_JSON_DEPTH) return "nested too deeply";
            stack[depth++] = **at == '{' ? '}' : ']';
            *at = mfi_json_space(*at + 1, end);
            more = *at == end || **at != stack[depth - 1];
            if (more && stack[depth - 1] == '}') why = mfi_json_key(at, end);
        } else {
            why = mfi_json_scalar(at, end);
        }
        while (!why && !more && depth > 0) { /* after a value: a comma, or the closing bracket */
            *at = mfi_json_space(*at, end);
            if (*at == end) return "the text ends too early";
            if (**at == stack[depth - 1]) {
                ++*at;
                depth--;
            } else if (**at == ',') {
                ++*at;
                more = 1;
                if (stack[depth - 1] == '}') why = mfi_json_key(at, end);
            } else {
                why = "',' or a closing bracket is expected";
            }
        }
    }
    if (!why && mfi_json_space(*at, end) != end) why = "text after the end";
    return why;
}

/* From here on: checked texts only. */
static const char *mfi_json_gap(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') p++;
    return p;
}

static const char *mfi_json_skip(const char *p) {
    int depth = 0;
    do {
        if (*p == '"') {
            for (p++; *p != '"'; p++) p += *p == '\\';
            p++;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (depth > 0) {
            p++;
        } else {
            while (!strchr(",]} \t\n\r", *p)) p++;
        }
    } while (depth > 0);
    return p;
}

/* Steps through an object or (key NULL) an array: *at starts at its bracket; 0 at its end. */
static int mfi_json_next(const char **at, mfi_span *key, mfi_span *value) {
    const char *p = *at;
    if (*p == '}' || *p == ']') return 0;
    p = mfi_json_gap(p + 1);
    if (*p == '}' || *p == ']') return 0;
    if (key) {
        key->p = p + 1;
        p = mfi_json_skip(p);
        key->end = p - 1;
        p = mfi_json_gap(mfi_json_gap(p) + 1);
    }
    value->p = p;
    value->end = p = mfi_json_skip(p);
    *at = mfi_json_gap(p);
    return 1;
}

static int mfi_same(mfi_span s, const char *word, size_t n) {
    return (size_t)(s.end - s.p) == n && memcmp(s.p, word, n) == 0;
}

/* How often the object has the key; *value is the last. */
static int mfi_json_get(mfi_span object, const char *key, size_t n, mfi_span *value) {
    const char *at = object.p;
    mfi_span k, v;
    int count = 0;
    while (mfi_json_next(&at, &k, &v))
        if (mfi_same(k, key, n)) {
            *value = v;
            count++;
        }
    return count;
}

static int mfi_json_integer(mfi_span s, int64_t *value) {
    const char *p = s.p + (*s.p == '-');
    int64_t v = 0;
    if (s.end - p < 1 || s.end - p > 18) return 0;
    for (; p < s.end; p++) {
        if (!mfi_is_digit(*p)) return 0;
        v = v * 10 + (*p - '0');
    }
    *value = *s.p == '-' ? -v : v;
    return 1;
}

/* Not strtod, which reads what the program's locale says.  Exact up to 15 digits, else within two
 * roundings of double. */
static int mfi_json_double(mfi_span s, double *value) {
    const char *p = s.p;
    uint64_t digits = 0;
    int exponent = 0, written = 0, fraction = 0, negative = *p == '-';
    double v;
    if (!negative && !mfi_is_digit(*p)) return 0;
    for (p += negative; p < s.end && (mfi_is_digit(*p) || *p == '.'); p++) {
        if (*p == '.') {
            fraction = 1;
        } else if (digits < 100000000000000000u) {
            digits = digits * 10 + (uint64_t)(*p - '0');
            exponent -= fraction;
        } else {
            exponent += !fraction;
        }
    }
    if (p < s.end) {
        int sign = p[1] == '-' ? -1 : 1;
        for (p += 1 + (p[1] == '-' || p[1] == '+'); p < s.end; p++)
            if (written < 100000) written = written * 10 + (*p - '0');
        exponent += sign * written;
    }
    v = (double)digits;
    if (exponent < -400 || exponent > 400) v = exponent < 0 || digits == 0 ? 0 : HUGE_VAL;
    else if (exponent < -22) /* two steps: 1e-310 must not pass through infinity */
        v = v / 1e22 / pow(10, -exponent - 22);
    else v = exponent < 0 ? v / pow(10, -exponent) : v * pow(10, exponent);
    *value = negative ? -v : v;
    return 1;
}

/* ==== >>reader ==============================================================================
 *
 * Values of config.json by key.  `keys` lists alternatives, "hidden_size|n_embd"; the first that
 * is there and not null counts (integers: the next must agree); a dot looks inside an object.  The first problem is kept and
 * makes everything after it return defaults, so that callers need not check each value. */

typedef struct mfi_reader {
    mfi_span object;
    const char *file;   /* "config.json" */
    const char *prefix; /* "" or, inside an object, such as "rope_scaling." */
    transformer_error *error;
    int bias_on, bias_any; /* TRANSFORMER_BIAS_*: there for sure; there if the tensor is */
    int tied;              /* tie_word_embeddings: 1, 0, or -1 = says nothing */
    int rope_length;
} mfi_reader;

enum { MFI_MAX_DIM = 1 << 24, MFI_MAX_CONTEXT = 1 << 30, MFI_REQUIRED = -1 };

static int mfi_ok(const mfi_reader *r) { return r->error->status == TRANSFORMER_OK; }

/* A dotted path.  1 if there and not null. */
static int mfi_find_path(mfi_reader *r, const char *path, size_t n, mfi_span *value) {
    mfi_span object = r->object;
    size_t start = 0, i;
    for (i = 0; i <= n; i++) {
        int count;
        if (i < n && path[i] != '.') continue;
        count =
            object.p && *object.p == '{' ? mfi_json_get(object, path + start, i - start, value) : 0;
        if (count > 1)
            return mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is there twice", r->file, r->prefix,
                            (int)i, path);
        if (count == 0 || *value->p == 'n') return 0;
        object = *value;
        start = i + 1;
        if (i < n && *object.p != '{')
            return mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not an object", r->file, r->prefix,
                            (int)i, path);
    }
    return 1;
}

/* Length of the alternative that was found, *key its start; 0 if none. */
static int mfi_find(mfi_reader *r, const char *keys, const char **key, mfi_span *value) {
    while (mfi_ok(r)) {
        size_t n = strcspn(keys, "|");
        *key = keys;
        if (mfi_find_path(r, keys, n, value)) return (int)n;
        if (!keys[n]) break;
        keys += n + 1;
    }
    return 0;
}

static int mfi_missing(mfi_reader *r, const char *keys) {
    return mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is missing", r->file, r->prefix,
                    (int)strcspn(keys, "|"), keys);
}

static int mfi_has(mfi_reader *r, const char *keys) {
    const char *key;
    mfi_span value;
    return mfi_find(r, keys, &key, &value) > 0;
}

/* The text of a value, for errors. */
static int mfi_show(mfi_span v) { return v.end - v.p > 40 ? 40 : (int)(v.end - v.p); }

static int mfi_int(mfi_reader *r, const char *keys, int otherwise, int least, int most) {
    const char *key, *other;
    mfi_span v, w;
    int64_t i = 0;
    int n = mfi_find(r, keys, &key, &v), m;
    if (n == 0) {
        if (otherwise == MFI_REQUIRED) mfi_missing(r, keys);
        return otherwise;
    }
    if (!mfi_json_integer(v, &i))
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not an integer: %.*s", r->file, r->prefix, n,
                 key, mfi_show(v), v.p);
    else if (i < least || i > most)
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is %.*s, not in %d .. %d", r->file, r->prefix, n,
                 key, mfi_show(v), v.p, least, most);
    else if (key[n] && (m = mfi_find(r, key + n + 1, &other, &w)) > 0 &&
             !mfi_same(w, v.p, (size_t)(v.end - v.p)))
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is %.*s, %.*s is %.*s", r->file, r->prefix, n, key,
                 mfi_show(v), v.p, m, other, mfi_show(w), w.p);
    return mfi_ok(r) ? (int)i : least;
}

static double mfi_number(mfi_reader *r, const char *keys, double otherwise, double least,
                         double most) {
    const char *key;
    mfi_span v;
    double d = 0;
    int n = mfi_find(r, keys, &key, &v);
    if (n == 0) {
        if (otherwise == (double)MFI_REQUIRED) mfi_missing(r, keys);
        return otherwise;
    }
    if (!mfi_json_double(v, &d))
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not a number: %.*s", r->file, r->prefix, n, key,
                 mfi_show(v), v.p);
    else if (!(d >= least && d <= most))
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is %.*s, not in %g .. %g", r->file, r->prefix, n,
                 key, mfi_show(v), v.p, least, most);
    else return d;
    return least;
}

/* A number that transformers computes with as it is, such as 4096.0, but that has to be whole. */
static int mfi_whole(mfi_reader *r, const char *key, int otherwise, int least, int most) {
    double d = mfi_number(r, key, otherwise, least, most);
    if (d == floor(d)) return (int)d;
    mfi_fail(r->error, MFI_BAD, "%s: %s%s is not an integer: %g", r->file, r->prefix, key, d);
    return least;
}

static int mfi_bool(mfi_reader *r, const char *keys, int otherwise) {
    const char *key;
    mfi_span v;
    int n = mfi_find(r, keys, &key, &v);
    if (n == 0) return otherwise;
    if (*v.p != 't' && *v.p != 'f')
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not true or false: %.*s", r->file, r->prefix, n,
                 key, mfi_show(v), v.p);
    return *v.p == 't';
}

/* Copies a string into text[size]; no value that means something here is longer or escaped. */
static void mfi_string(mfi_reader *r, const char *keys, const char *otherwise, char *text,
                       size_t size) {
    const char *key;
    mfi_span v;
    int n = mfi_find(r, keys, &key, &v);
    text[0] = 0;
    if (n == 0) {
        if (!otherwise) mfi_missing(r, keys);
        else snprintf(text, size, "%s", otherwise);
        return;
    }
    if (*v.p != '"')
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not a string: %.*s", r->file, r->prefix, n, key,
                 mfi_show(v), v.p);
    else if ((size_t)(v.end - v.p) - 2 >= size || memchr(v.p, '\\', (size_t)(v.end - v.p)))
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: %s%.*s %.*s... is not supported", r->file,
                 r->prefix, n, key, mfi_show(v), v.p);
    else snprintf(text, size, "%.*s", (int)(v.end - v.p) - 2, v.p + 1);
}

/* An array of numbers of exactly n elements. */
static void mfi_floats(mfi_reader *r, const char *keys, float *out, int n) {
    const char *key, *at;
    mfi_span v, item;
    double d;
    int i = 0, k = mfi_find(r, keys, &key, &v);
    if (k == 0) {
        mfi_missing(r, keys);
        return;
    }
    at = v.p;
    while (*v.p == '[' && mfi_json_next(&at, NULL, &item)) {
        if (!mfi_json_double(item, &d) || !(d > 0 && d < 1e30)) break;
        if (i < n) out[i] = (float)d;
        i++;
    }
    if (*v.p != '[' || i != n || *at != ']')
        mfi_fail(r->error, MFI_BAD, "%s: %s%.*s is not an array of %d numbers above 0", r->file,
                 r->prefix, k, key, n);
}

/* A key that changes the computation in a way this library has not: refused unless it has the
 * value that changes nothing. */
static void mfi_only(mfi_reader *r, const char *key, int value) {
    if (mfi_bool(r, key, value) != value)
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: %s%s = %s is not supported", r->file, r->prefix,
                 key, value ? "false" : "true");
}

static void mfi_absent(mfi_reader *r, const char *key) {
    if (mfi_has(r, key))
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: %s%s is not supported", r->file, r->prefix, key);
}

/* Biases that a key switches; without the key it is as the family's own default says, and tensors
 * beyond it are refused as left over. */
static void mfi_bias_key(mfi_reader *r, const char *key, int bits, int otherwise) {
    if (mfi_bool(r, key, otherwise)) r->bias_on |= bits;
}

#define MFI_QKV (TRANSFORMER_BIAS_Q | TRANSFORMER_BIAS_K | TRANSFORMER_BIAS_V)
#define MFI_OUT TRANSFORMER_BIAS_ATTN_OUT
#define MFI_QKVO (MFI_QKV | MFI_OUT)
#define MFI_MLP (TRANSFORMER_BIAS_MLP_UP | TRANSFORMER_BIAS_MLP_DOWN)
#define MFI_HEAD TRANSFORMER_BIAS_HEAD

/* ==== >>names ===============================================================================
 *
 * Tensor names without prefix ("model.", "transformer.", ...) and suffix (".weight", ".bias"),
 * '#' standing for the layer.  A matrix and its bias share a line. */

enum {
    MFI_ROWS,    /* [out, in], as transformer.h wants it */
    MFI_CAT,     /* rows of Q, then K, then V */
    MFI_GROUP,   /* per key-value head: its queries, its key, its value */
    MFI_GATE_UP, /* rows of the gate, then of up */
    MFI_IN_OUT,  /* [in, out]: transposed */
    MFI_IN_CAT,  /* [in, Q|K|V]: transposed */
    MFI_HEADS    /* a vector per head, each a tensor of its own: second '#' */
};

typedef struct mfi_name {
    const char *pattern;
    int role, layout;
} mfi_name;

#define MFI_END                                                                                    \
    { NULL, 0, 0 }

static const mfi_name mfi_names_llama[] = {
    {"embed_tokens", TRANSFORMER_EMBEDDING, MFI_ROWS},
    {"norm", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    {"lm_head", TRANSFORMER_HEAD, MFI_ROWS},
    {"layers.#.self_attn.q_proj", TRANSFORMER_Q, MFI_ROWS},
    {"layers.#.self_attn.k_proj", TRANSFORMER_K, MFI_ROWS},
    {"layers.#.self_attn.v_proj", TRANSFORMER_V, MFI_ROWS},
    {"layers.#.self_attn.o_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"layers.#.mlp.gate_proj", TRANSFORMER_MLP_GATE, MFI_ROWS},
    {"layers.#.mlp.up_proj", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"layers.#.mlp.down_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    {"layers.#.self_attn.q_norm", TRANSFORMER_Q_NORM, MFI_ROWS},
    {"layers.#.self_attn.k_norm", TRANSFORMER_K_NORM, MFI_ROWS},
    {"layers.#.self_attn.qkv_proj", TRANSFORMER_Q, MFI_CAT},
    {"layers.#.mlp.gate_up_proj", TRANSFORMER_MLP_GATE, MFI_GATE_UP},
    MFI_END};

/* post_attention_layernorm has three meanings: each family says which. */
static const mfi_name mfi_norms_input[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_norms_output[] = {
    {"layers.#.post_attention_layernorm", TRANSFORMER_ATTN_POST_NORM, MFI_ROWS},
    {"layers.#.post_feedforward_layernorm", TRANSFORMER_MLP_POST_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_norms_gemma[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_ATTN_POST_NORM, MFI_ROWS},
    {"layers.#.pre_feedforward_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.post_feedforward_layernorm", TRANSFORMER_MLP_POST_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_norms_glm4[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_self_attn_layernorm", TRANSFORMER_ATTN_POST_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.post_mlp_layernorm", TRANSFORMER_MLP_POST_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_norms_hunyuan[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.self_attn.query_layernorm", TRANSFORMER_Q_NORM, MFI_ROWS},
    {"layers.#.self_attn.key_layernorm", TRANSFORMER_K_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_norms_stablelm[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.self_attn.q_layernorm.norms.#", TRANSFORMER_Q_NORM, MFI_HEADS},
    {"layers.#.self_attn.k_layernorm.norms.#", TRANSFORMER_K_NORM, MFI_HEADS},
    MFI_END};
static const mfi_name mfi_names_phi[] = {
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.self_attn.dense", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"layers.#.self_attn.q_layernorm", TRANSFORMER_Q_NORM, MFI_ROWS},
    {"layers.#.self_attn.k_layernorm", TRANSFORMER_K_NORM, MFI_ROWS},
    {"layers.#.mlp.fc1", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"layers.#.mlp.fc2", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    {"final_layernorm", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_names_starcoder2[] = {
    {"layers.#.mlp.c_fc", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"layers.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    {"layers.#.mlp.fc1", TRANSFORMER_MLP_UP, MFI_ROWS}, /* nanochat */
    {"layers.#.mlp.fc2", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};

static const mfi_name mfi_names_gpt[] = {{"wte", TRANSFORMER_EMBEDDING, MFI_ROWS},
                                         {"wpe", TRANSFORMER_POSITION_EMBEDDING, MFI_ROWS},
                                         {"ln_f", TRANSFORMER_FINAL_NORM, MFI_ROWS},
                                         {"lm_head", TRANSFORMER_HEAD, MFI_ROWS},
                                         {"h.#.ln_1", TRANSFORMER_ATTN_NORM, MFI_ROWS},
                                         {"h.#.ln_2", TRANSFORMER_MLP_NORM, MFI_ROWS},
                                         MFI_END};
static const mfi_name mfi_blocks_gpt2[] = {{"h.#.attn.c_attn", TRANSFORMER_Q, MFI_IN_CAT},
                                           {"h.#.attn.c_proj", TRANSFORMER_ATTN_OUT, MFI_IN_OUT},
                                           {"h.#.mlp.c_fc", TRANSFORMER_MLP_UP, MFI_IN_OUT},
                                           {"h.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_IN_OUT},
                                           MFI_END};
static const mfi_name mfi_blocks_nanogpt[] = {{"h.#.attn.c_attn", TRANSFORMER_Q, MFI_CAT},
                                              {"h.#.attn.c_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
                                              {"h.#.mlp.c_fc", TRANSFORMER_MLP_UP, MFI_ROWS},
                                              {"h.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
                                              MFI_END};
static const mfi_name mfi_blocks_bigcode[] = {{"h.#.attn.c_attn", TRANSFORMER_Q, MFI_GROUP},
                                              {"h.#.attn.c_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
                                              {"h.#.mlp.c_fc", TRANSFORMER_MLP_UP, MFI_ROWS},
                                              {"h.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
                                              MFI_END};
static const mfi_name mfi_blocks_gpt_neo[] = {
    {"h.#.attn.attention.q_proj", TRANSFORMER_Q, MFI_ROWS},
    {"h.#.attn.attention.k_proj", TRANSFORMER_K, MFI_ROWS},
    {"h.#.attn.attention.v_proj", TRANSFORMER_V, MFI_ROWS},
    {"h.#.attn.attention.out_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"h.#.mlp.c_fc", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"h.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_blocks_gptj[] = {{"h.#.attn.q_proj", TRANSFORMER_Q, MFI_ROWS},
                                           {"h.#.attn.k_proj", TRANSFORMER_K, MFI_ROWS},
                                           {"h.#.attn.v_proj", TRANSFORMER_V, MFI_ROWS},
                                           {"h.#.attn.out_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
                                           {"h.#.mlp.fc_in", TRANSFORMER_MLP_UP, MFI_ROWS},
                                           {"h.#.mlp.fc_out", TRANSFORMER_MLP_DOWN, MFI_ROWS},
                                           MFI_END};
static const mfi_name mfi_blocks_qwen[] = {
    {"h.#.attn.c_attn", TRANSFORMER_Q, MFI_CAT},
    {"h.#.attn.c_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"h.#.mlp.w2", TRANSFORMER_MLP_GATE, MFI_ROWS}, /* w2 is the one that is activated */
    {"h.#.mlp.w1", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"h.#.mlp.c_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_names_microgpt[] = {{"layer#.attn_wq", TRANSFORMER_Q, MFI_ROWS},
                                              {"layer#.attn_wk", TRANSFORMER_K, MFI_ROWS},
                                              {"layer#.attn_wv", TRANSFORMER_V, MFI_ROWS},
                                              {"layer#.attn_wo", TRANSFORMER_ATTN_OUT, MFI_ROWS},
                                              {"layer#.mlp_fc1", TRANSFORMER_MLP_UP, MFI_ROWS},
                                              {"layer#.mlp_fc2", TRANSFORMER_MLP_DOWN, MFI_ROWS},
                                              MFI_END};

static const mfi_name mfi_names_neox[] = {
    {"embed_in", TRANSFORMER_EMBEDDING, MFI_ROWS},
    {"embed_out", TRANSFORMER_HEAD, MFI_ROWS},
    {"final_layer_norm", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    {"layers.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.attention.query_key_value", TRANSFORMER_Q, MFI_GROUP},
    {"layers.#.attention.dense", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"layers.#.mlp.dense_h_to_4h", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"layers.#.mlp.dense_4h_to_h", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_names_bloom[] = {
    {"word_embeddings", TRANSFORMER_EMBEDDING, MFI_ROWS},
    {"word_embeddings_layernorm", TRANSFORMER_EMBEDDING_NORM, MFI_ROWS},
    {"ln_f", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    {"lm_head", TRANSFORMER_HEAD, MFI_ROWS},
    {"h.#.input_layernorm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"h.#.ln_attn", TRANSFORMER_ATTN_NORM, MFI_ROWS}, /* Falcon with two norms */
    {"h.#.ln_mlp", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"h.#.post_attention_layernorm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"h.#.self_attention.query_key_value", TRANSFORMER_Q, MFI_GROUP},
    {"h.#.self_attention.dense", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"h.#.mlp.dense_h_to_4h", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"h.#.mlp.dense_4h_to_h", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_names_opt[] = {
    {"embed_tokens", TRANSFORMER_EMBEDDING, MFI_ROWS},
    {"embed_positions", TRANSFORMER_POSITION_EMBEDDING, MFI_ROWS},
    {"project_in", TRANSFORMER_EMBEDDING_PROJECTION, MFI_ROWS},
    {"project_out", TRANSFORMER_HEAD_PROJECTION, MFI_ROWS},
    {"final_layer_norm", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    {"lm_head", TRANSFORMER_HEAD, MFI_ROWS},
    {"layers.#.self_attn_layer_norm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"layers.#.final_layer_norm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"layers.#.self_attn.q_proj", TRANSFORMER_Q, MFI_ROWS},
    {"layers.#.self_attn.k_proj", TRANSFORMER_K, MFI_ROWS},
    {"layers.#.self_attn.v_proj", TRANSFORMER_V, MFI_ROWS},
    {"layers.#.self_attn.out_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"layers.#.fc1", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"layers.#.fc2", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    MFI_END};
static const mfi_name mfi_names_mpt[] = {{"wte", TRANSFORMER_EMBEDDING, MFI_ROWS},
                                         {"norm_f", TRANSFORMER_FINAL_NORM, MFI_ROWS},
                                         {"lm_head", TRANSFORMER_HEAD, MFI_ROWS},
                                         {"blocks.#.norm_1", TRANSFORMER_ATTN_NORM, MFI_ROWS},
                                         {"blocks.#.norm_2", TRANSFORMER_MLP_NORM, MFI_ROWS},
                                         {"blocks.#.attn.Wqkv", TRANSFORMER_Q, MFI_CAT},
                                         {"blocks.#.attn.out_proj", TRANSFORMER_ATTN_OUT, MFI_ROWS},
                                         {"blocks.#.ffn.up_proj", TRANSFORMER_MLP_UP, MFI_ROWS},
                                         {"blocks.#.ffn.down_proj", TRANSFORMER_MLP_DOWN, MFI_ROWS},
                                         MFI_END};

/* ==== >>rope ================================================================================
 *
 * Old configurations have rope_theta and rope_scaling, transformers 5 has rope_parameters, either
 * one object or one per layer type.  What depends on nothing but the configuration is resolved
 * here (attention_factor, above all); frequencies are transformer.h's work. */

typedef struct mfi_family {
    const char *type; /* config.json's model_type */
    const mfi_name *names[3];
    int flags;           /* MFI_LN ... below */
    int bias;            /* TRANSFORMER_BIAS_* that are always there */
    const char *mlp_key; /* width of the MLP; NULL = 4 dim */
    const char *act_key; /* activation, and what it is without; NULL = always that */
    const char *act;
    const char *eps_key; /* of the norms; likewise */
    double eps;
    double theta;   /* of RoPE, if the configuration does not say */
    double partial; /* likewise: fraction of the head that rotates */
    int head_dim;   /* likewise; 0 = dim / n_heads */
    void (*setup)(mfi_reader *r, transformer_config *c); /* what keys do not say; or NULL */
} mfi_family;

enum {
    MFI_LN = 1,           /* LayerNorm with a weight; else RMS norm */
    MFI_NORM_BIAS = 2,    /* and a bias */
    MFI_LNB = 3,          /* both */
    MFI_BARE = 4,         /* norms without weights */
    MFI_PLUS_ONE = 8,     /* the factor is 1 + weight */
    MFI_OUTPUT = 16,      /* norms after the blocks instead of before */
    MFI_SANDWICH = 32,    /* norms before and after the blocks */
    MFI_PARALLEL = 64,    /* attention and MLP side by side, one norm */
    MFI_UNGATED = 128,    /* MLP without gate; its width is 4 dim if not given */
    MFI_LEARNED = 256,    /* position matrix */
    MFI_ROPE = 512,       /* rotary positions */
    MFI_PAIRS = 1024,     /* of pairs (2i, 2i + 1) */
    MFI_PARTIAL = 2048,   /* of a part of the head, if partial_rotary_factor says so */
    MFI_TWO_ROPES = 4096, /* of two kinds, by layer type */
    MFI_TIED = 8192,      /* tied if the configuration does not say */
    MFI_QK_HEAD = 16384,  /* norms of queries and keys, by head */
    MFI_QK_FULL = 32768,  /* over all heads */
    MFI_QK_AFTER = 65536, /* by head, after the rotation */
    MFI_MHA = 131072      /* each head has its own keys; head_dim is dim / n_heads */
};

/* The context before scaling: the object's, or the configuration's own key (Phi-3), or all. */
static int mfi_rope_original(mfi_reader *top, mfi_reader *r, const transformer_config *c) {
    static const char key[] = "original_max_position_embeddings";
    int outer = mfi_whole(top, key, 0, 1, MFI_MAX_CONTEXT);
    int inner = mfi_whole(r, key, outer ? outer : c->context, 1, MFI_MAX_CONTEXT);
    if (outer && inner != outer)
        mfi_fail(top->error, MFI_BAD, "%s: %s is both %d and %d", top->file, key, outer, inner);
    return inner;
}

static double mfi_yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* Of YaRN.  null is no, unlike no such key: so transformers reads it. */
static int mfi_rope_truncate(mfi_reader *r) {
    mfi_span value;
    if (r->object.p && mfi_json_get(r->object, "truncate", 8, &value) == 1 && *value.p == 'n')
        return 0;
    return mfi_bool(r, "truncate", 1);
}

static void mfi_rope_yarn(mfi_reader *r, const transformer_config *c, transformer_rope *rope) {
    double mscale, all;
    rope->scaling = TRANSFORMER_ROPE_YARN;
    rope->factor = mfi_number(r, "factor", (double)c->context / rope->original_context, 1e-6, 1e6);
    rope->beta_fast = mfi_number(r, "beta_fast", 32, 0, 1e6);
    rope->beta_slow = mfi_number(r, "beta_slow", 1, 0, 1e6);
    if (rope->beta_fast == 0 || rope->beta_slow == 0)
        mfi_fail(r->error, MFI_BAD, "%s: %sbeta_fast or beta_slow is 0", r->file, r->prefix);
    rope->truncate = mfi_rope_truncate(r);
    mscale = mfi_number(r, "mscale", 0, 0, 1e3);
    all = mfi_number(r, "mscale_all_dim", 0, 0, 1e3);
    rope->attention_factor = mscale > 0 && all > 0 ? mfi_yarn_mscale(rope->factor, mscale) /
                                                         mfi_yarn_mscale(rope->factor, all)
                                                   : mfi_yarn_mscale(rope->factor, 1);
    rope->attention_factor = mfi_number(r, "attention_factor", rope->attention_factor, 1e-6, 1e6);
}

static void mfi_rope_long(mfi_reader *r, const transformer_config *c, transformer_rope *rope) {
    double factor;
    rope->scaling = TRANSFORMER_ROPE_LONG;
    if (rope->original_context < 2) {
        mfi_fail(r->error, MFI_BAD, "%s: original_max_position_embeddings is 1", r->file);
        return;
    }
    mfi_floats(r, "short_factor", rope->short_factors, rope->dims / 2);
    mfi_floats(r, "long_factor", rope->long_factors, rope->dims / 2);
    factor = mfi_number(r, "factor", (double)c->context / rope->original_context, 1e-6, 1e6);
    rope->attention_factor =
        factor <= 1 ? 1 : sqrt(1 + log(factor) / log((double)rope->original_context));
    rope->attention_factor = mfi_number(r, "attention_factor", rope->attention_factor, 1e-6, 1e6);
}

static void mfi_rope_scaling(mfi_reader *top, mfi_reader *r, const mfi_family *f,
                             const transformer_config *c, transformer_rope *rope) {
    char type[16];
    int phi3 = strcmp(f->type, "phi3") == 0;
    mfi_string(r, "rope_type|type", "default", type, sizeof type);
    if (!mfi_ok(r) || strcmp(type, "default") == 0) return;
    rope->original_context = c->context; /* DYNAMIC grows from there */
    if (strcmp(type, "linear") != 0 && !mfi_has(top, "max_position_embeddings"))
        mfi_missing(top, "max_position_embeddings");
    if (strcmp(type, "linear") == 0) {
        rope->scaling = TRANSFORMER_ROPE_LINEAR;
        rope->factor = mfi_number(r, "factor", MFI_REQUIRED, 1e-6, 1e6);
    } else if (strcmp(type, "dynamic") == 0 && mfi_has(r, "alpha") &&
               strcmp(f->type, "hunyuan_v1_dense") == 0) {
        rope->scaling = TRANSFORMER_ROPE_NTK;
        rope->factor = mfi_number(r, "alpha", 1, 1e-6, 1e6);
    } else if (strcmp(type, "dynamic") == 0) {
        rope->scaling = TRANSFORMER_ROPE_DYNAMIC;
        rope->factor = mfi_number(r, "factor", MFI_REQUIRED, 1e-6, 1e6);
    } else if (strcmp(type, "llama3") == 0) {
        rope->scaling = TRANSFORMER_ROPE_LLAMA3;
        rope->original_context = mfi_rope_original(top, r, c);
        rope->factor = mfi_number(r, "factor", MFI_REQUIRED, 1e-6, 1e6);
        rope->low_freq_factor = mfi_number(r, "low_freq_factor", MFI_REQUIRED, 1e-6, 1e6);
        rope->high_freq_factor = mfi_number(r, "high_freq_factor", MFI_REQUIRED, 1e-6, 1e6);
    } else if (strcmp(type, "yarn") == 0 && !phi3) {
        rope->original_context = mfi_rope_original(top, r, c);
        mfi_rope_yarn(r, c, rope);
    } else if (strcmp(type, "longrope") == 0 || (phi3 && strcmp(type, "su") == 0)) {
        rope->original_context = mfi_rope_original(top, r, c);
        mfi_rope_long(r, c, rope);
    } else {
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: %srope_type '%s' is not supported", r->file,
                 r->prefix, type);
    }
}

/* One table: r reads the object with its parameters, theta is what counts if it has none. */
static void mfi_rope_table(mfi_reader *top, mfi_reader *r, const mfi_family *f,
                           const transformer_config *c, transformer_rope *rope, double theta) {
    double part = mfi_number(top, "rotary_pct|partial_rotary_factor", f->partial, 0, 1);
    part = mfi_number(r, "partial_rotary_factor", part, 0, 1);
    if (part != 1 && !(f->flags & MFI_PARTIAL))
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: partial_rotary_factor %g is not supported in %s",
                 r->file, part, f->type);
    memset(rope, 0, sizeof *rope);
    rope->dims = (int)(c->head_dim * part);
    rope->pairing = f->flags & MFI_PAIRS ? TRANSFORMER_ROPE_INTERLEAVED : TRANSFORMER_ROPE_HALF;
    rope->theta = mfi_number(r, "rope_theta", theta, 1e-3, 1e15);
    rope->factor = 1;
    rope->attention_factor = 1;
    if (rope->dims < 2 || rope->dims % 2 != 0)
        mfi_fail(r->error, MFI_BAD, "%s: %d of head_dim %d would rotate; it takes an even number",
                 r->file, rope->dims, c->head_dim);
    else if (rope->dims > TRANSFORMER_MAX_HEAD_DIM)
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: head_dim %d is above %d", r->file, c->head_dim,
                 TRANSFORMER_MAX_HEAD_DIM);
    else mfi_rope_scaling(top, r, f, c, rope);
}

/* A reader of an object in *top, with nothing in it if the object is absent. */
static mfi_reader mfi_inside(mfi_reader *top, const char *key, const char *prefix) {
    mfi_reader r = *top;
    const char *found;
    r.prefix = prefix;
    r.object.p = r.object.end = NULL;
    if (mfi_find(top, key, &found, &r.object) && *r.object.p != '{') {
        mfi_fail(top->error, MFI_BAD, "%s: %s is not an object", top->file, key);
        r.object.p = r.object.end = NULL;
    }
    return r;
}

/* Gemma 3 and OLMo 3: table 0 for layers that see everything, table 1 for sliding windows.
 * Old style: rope_scaling is for table 0 only; table 1 has a base of its own (Gemma 3). */
static void mfi_rope_pair(mfi_reader *r, const mfi_family *f, transformer_config *c) {
    mfi_reader full = mfi_inside(r, "rope_parameters.full_attention", "full_attention.");
    mfi_reader local = mfi_inside(r, "rope_parameters.sliding_attention", "sliding_attention.");
    mfi_reader both;
    double theta = mfi_number(r, "rope_theta", f->theta, 1e-3, 1e15);
    int gemma = strncmp(f->type, "gemma", 5) == 0;
    if (!full.object.p && !local.object.p && mfi_has(r, "rope_parameters"))
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: rope_parameters is not per layer type", r->file);
    if (!full.object.p) full = mfi_inside(r, "rope_scaling", "rope_scaling.");
    else mfi_absent(r, "rope_scaling");
    if (!gemma && !local.object.p && theta != f->theta) /* which of the two is meant? */
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: rope_theta %g without rope_parameters", r->file,
                 theta);
    mfi_rope_table(r, &full, f, c, &c->rope[0], theta);
    theta = gemma ? mfi_number(r, "rope_local_base_freq", 1e4, 1e-3, 1e15) : theta;
    mfi_rope_table(r, &local, f, c, &c->rope[1], theta);
    /* transformers looks for this one outside of the layer types' objects */
    both = mfi_inside(r, "rope_parameters", "rope_parameters.");
    c->rope[0].truncate = c->rope[1].truncate = mfi_rope_truncate(&both);
}

static void mfi_rope(mfi_reader *r, const mfi_family *f, transformer_config *c) {
    mfi_reader inner = mfi_inside(r, "rope_scaling", "rope_scaling.");
    double theta = mfi_number(r, "rotary_emb_base|rope_theta", f->theta, 1e-3, 1e15);
    if (!inner.object.p || *mfi_json_gap(inner.object.p + 1) == '}')
        inner = mfi_inside(r, "rope_parameters", "rope_parameters.");
    mfi_absent(&inner, "full_attention");
    mfi_absent(&inner, "sliding_attention");
    mfi_rope_table(r, &inner, f, c, &c->rope[0], theta);
}

/* ==== >>families ============================================================================
 *
 * A table says what keys do not; a function per family, where it takes one, reads the keys that
 * only this family has.  Values for absent keys are those of the family's own configuration. */

/* Sliding windows: layer_types if there, else every layer from `first` on but each pattern-th. */
static void mfi_windows(mfi_reader *r, transformer_config *c, int window, int first, int pattern) {
    const char *key, *at = NULL;
    mfi_span v, item;
    int i, listed = mfi_find(r, "layer_types", &key, &v) > 0;
    if (listed && *(at = v.p) != '[') {
        mfi_fail(r->error, MFI_BAD, "%s: layer_types is not an array", r->file);
        return;
    }
    for (i = 0; i < c->n_layers && mfi_ok(r); i++) {
        int sliding = window > 0 && i >= first && (pattern == 0 || (i + 1) % pattern != 0);
        if (listed) {
            if (!mfi_json_next(&at, NULL, &item)) {
                mfi_fail(r->error, MFI_BAD, "%s: layer_types ends at layer %d", r->file, i);
                return;
            }
            sliding = mfi_same(item, "\"sliding_attention\"", 19);
            if (!sliding && !mfi_same(item, "\"full_attention\"", 16))
                mfi_fail(r->error, MFI_UNSUPPORTED, "%s: layer_types[%d] %.*s is not supported",
                         r->file, i, mfi_show(item), item.p);
            if (sliding && window == 0)
                mfi_fail(r->error, MFI_BAD, "%s: layer_types[%d] is sliding, sliding_window is off",
                         r->file, i);
        }
        c->layers[i].window = sliding ? window : 0;
    }
    if (listed && mfi_ok(r) && mfi_json_next(&at, NULL, &item))
        mfi_fail(r->error, MFI_BAD, "%s: layer_types has more than %d layers", r->file,
                 c->n_layers);
}

/* sliding_window: `otherwise` if the key is absent, 0 if it is null. */
static int mfi_window(mfi_reader *r, int otherwise) {
    mfi_span v;
    if (mfi_json_get(r->object, "sliding_window", 14, &v) == 0) return otherwise;
    return mfi_int(r, "sliding_window", 0, 1, MFI_MAX_CONTEXT);
}

static int mfi_all_windows(mfi_reader *r, transformer_config *c, int otherwise) {
    int i, window = mfi_window(r, otherwise);
    for (i = 0; i < c->n_layers; i++) c->layers[i].window = window;
    return window;
}

static void mfi_setup_bias(mfi_reader *r, transformer_config *c) {
    (void)c;
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    mfi_bias_key(r, "mlp_bias", MFI_MLP, 0);
}

static void mfi_setup_bias_attention(mfi_reader *r, transformer_config *c) {
    (void)c;
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
}

static void mfi_setup_gpt2(mfi_reader *r, transformer_config *c) {
    int i, by_layer = mfi_bool(r, "scale_attn_by_inverse_layer_idx", 0);
    if (!mfi_bool(r, "scale_attn_weights", 1)) c->attn_scale = 1;
    for (i = 0; by_layer && i < c->n_layers; i++)
        c->layers[i].attn_scale = c->attn_scale / (float)(i + 1);
}

static void mfi_setup_bigcode(mfi_reader *r, transformer_config *c) {
    c->n_kv_heads = mfi_bool(r, "multi_query", 1) ? 1 : c->n_heads;
    if (!mfi_bool(r, "scale_attn_weights", 1)) c->attn_scale = 1;
}

static void mfi_setup_nanogpt(mfi_reader *r, transformer_config *c) {
    c->norm_bias = mfi_bool(r, "bias", 1);
    if (c->norm_bias) r->bias_on |= MFI_QKVO | MFI_MLP;
}

static void mfi_setup_microgpt(mfi_reader *r, transformer_config *c) {
    (void)r;
    c->embedding_norm = 1;
    c->final_norm = 0;
}

/* attention_types: [[["global", "local"], 6]], each list so many times in a row. */
static void mfi_setup_gpt_neo(mfi_reader *r, transformer_config *c) {
    const char *key, *outer, *inner, *kinds;
    mfi_span v, group, list, times, kind;
    int window = mfi_int(r, "window_size", 256, 1, MFI_MAX_CONTEXT), layer = 0, bad = 0;
    c->attn_scale = 1;
    if (!mfi_find(r, "attention_types", &key, &v)) {
        mfi_missing(r, "attention_types");
        return;
    }
    bad = *(outer = v.p) != '[';
    while (!bad && mfi_json_next(&outer, NULL, &group)) {
        int64_t n = 0;
        inner = group.p;
        bad = *inner != '[' || !mfi_json_next(&inner, NULL, &list) || *list.p != '[' ||
              !mfi_json_next(&inner, NULL, &times) || !mfi_json_integer(times, &n) || n < 0;
        for (; !bad && n > 0 && layer <= c->n_layers; n--) {
            int before = layer;
            kinds = list.p;
            while (!bad && mfi_json_next(&kinds, NULL, &kind) && layer <= c->n_layers) {
                int local = mfi_same(kind, "\"local\"", 7);
                bad = !local && !mfi_same(kind, "\"global\"", 8);
                if (layer < c->n_layers) c->layers[layer].window = local ? window : 0;
                layer++;
            }
            if (layer == before) /* an empty list, a billion times */
                break;
        }
    }
    if (bad || layer != c->n_layers)
        mfi_fail(r->error, MFI_BAD, "%s: attention_types does not give %d layers", r->file,
                 c->n_layers);
}

static void mfi_setup_gptj(mfi_reader *r, transformer_config *c) {
    transformer_rope *rope = &c->rope[0];
    rope->dims = mfi_int(r, "rotary_dim", MFI_REQUIRED, 2, c->head_dim);
    if (mfi_ok(r) && rope->dims % 2 != 0)
        mfi_fail(r->error, MFI_BAD, "%s: rotary_dim %d is odd", r->file, rope->dims);
}

static void mfi_setup_neox(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 1);
    if (mfi_bool(r, "use_parallel_residual", 1)) c->parallel = TRANSFORMER_PARALLEL_TWO;
    if (mfi_has(r, "rotary_emb_base") && mfi_has(r, "rope_theta") &&
        mfi_number(r, "rope_theta", 0, 0, 1e15) != mfi_number(r, "rotary_emb_base", 0, 0, 1e15))
        mfi_fail(r->error, MFI_BAD, "%s: rope_theta and rotary_emb_base differ", r->file);
}

static void mfi_setup_opt(mfi_reader *r, transformer_config *c) {
    int before = mfi_bool(r, "do_layer_norm_before", 1);
    c->position_offset = 2;
    c->embedding_dim = mfi_int(r, "word_embed_proj_dim", c->dim, 1, MFI_MAX_DIM);
    c->norm_placement = before ? TRANSFORMER_PLACE_INPUT : TRANSFORMER_PLACE_SUM;
    c->final_norm = before && !mfi_bool(r, "_remove_final_layer_norm", 0);
    c->norm_weight = c->norm_bias = mfi_bool(r, "layer_norm_elementwise_affine", 1);
    if (mfi_bool(r, "enable_bias", 1)) r->bias_on |= MFI_QKVO | MFI_MLP;
}

static void mfi_setup_bloom(mfi_reader *r, transformer_config *c) {
    c->embedding_norm = 1;
    c->position = TRANSFORMER_POSITION_ALIBI;
    c->alibi_max_bias = 8;
    c->residual_from_norm = mfi_bool(r, "apply_residual_connection_post_layernorm", 0);
}

/* transformers reads only some of these keys; where it ignores one that matters, so must we, or
 * refuse it. */
static void mfi_setup_mpt(mfi_reader *r, transformer_config *c) {
    char text[40];
    c->position = TRANSFORMER_POSITION_ALIBI;
    c->alibi_max_bias = 8;
    c->context = mfi_int(r, "max_seq_len", 2048, 1, MFI_MAX_CONTEXT);
    c->mlp_dim = mfi_int(r, "expansion_ratio", 4, 1, 64);
    c->mlp_dim = c->mlp_dim <= MFI_MAX_DIM / c->dim ? c->mlp_dim * c->dim : MFI_MAX_DIM;
    c->qkv_clip = (float)mfi_number(r, "attn_config.clip_qkv", 0, 0, 1e6);
    c->attn_scale = (float)mfi_number(r, "attn_config.softmax_scale", c->attn_scale, 1e-6, 1e6);
    mfi_only(r, "no_bias", 1);
    mfi_only(r, "attn_config.alibi", 1);
    mfi_only(r, "attn_config.qk_ln", 0);
    mfi_only(r, "attn_config.prefix_lm", 0);
    mfi_absent(r, "logit_scale");
    mfi_absent(r, "attn_config.kv_n_heads");
    if (mfi_int(r, "attn_config.alibi_bias_max", 8, 1, 64) != 8)
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: attn_config.alibi_bias_max other than 8", r->file);
    mfi_string(r, "attn_config.attn_type", "multihead_attention", text, sizeof text);
    if (strcmp(text, "multihead_attention") != 0)
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: attn_config.attn_type '%s' is not supported",
                 r->file, text);
    mfi_string(r, "norm_type", "low_precision_layernorm", text, sizeof text);
    if (strcmp(text, "low_precision_layernorm") != 0 && strcmp(text, "layernorm") != 0)
        mfi_fail(r->error, MFI_UNSUPPORTED, "%s: norm_type '%s' is not supported", r->file, text);
}

/* Four wirings: 7B, 40B and 180B, 11B, RW. */
static void mfi_setup_falcon(mfi_reader *r, transformer_config *c) {
    int newer = mfi_bool(r, "new_decoder_architecture", 0);
    int parallel = mfi_bool(r, "parallel_attn", 1);
    int norms = mfi_int(r, "num_ln_in_parallel_attn", newer ? 2 : 1, 1, 2);
    if (newer) c->n_kv_heads = mfi_int(r, "num_kv_heads|n_head_kv", c->n_heads, 1, MFI_MAX_DIM);
    else c->n_kv_heads = mfi_bool(r, "multi_query", 1) ? 1 : c->n_heads;
    if ((newer && !parallel) || (norms == 2 && !newer))
        mfi_fail(r->error, MFI_UNSUPPORTED,
                 "%s: new_decoder_architecture %d, parallel_attn %d, num_ln_in_parallel_attn %d "
                 "is not supported",
                 r->file, newer, parallel, norms);
    if (parallel) c->parallel = norms == 2 ? TRANSFORMER_PARALLEL_TWO : TRANSFORMER_PARALLEL_SHARED;
    if (mfi_bool(r, "alibi", 0)) {
        c->position = TRANSFORMER_POSITION_ALIBI;
        c->alibi_max_bias = 8;
        c->alibi_falcon = 1;
        memset(c->rope, 0, sizeof c->rope);
    }
    if (mfi_bool(r, "bias", 0)) r->bias_on |= MFI_QKVO | MFI_MLP;
}

static void mfi_setup_stablelm(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "use_qkv_bias", MFI_QKV, 0);
    if (mfi_bool(r, "use_parallel_residual", 0)) c->parallel = TRANSFORMER_PARALLEL_SHARED;
    if (mfi_bool(r, "qk_layernorm", 0)) c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD;
}

static void mfi_setup_phi(mfi_reader *r, transformer_config *c) {
    if (mfi_bool(r, "qk_layernorm", 0)) {
        c->qk_norm = TRANSFORMER_QK_NORM_HEAD;
        r->bias_on |= TRANSFORMER_BIAS_QK_NORM;
    }
}

static void mfi_setup_window(mfi_reader *r, transformer_config *c) { mfi_all_windows(r, c, 0); }

static void mfi_setup_mistral(mfi_reader *r, transformer_config *c) {
    mfi_absent(r, "layer_types");
    mfi_all_windows(r, c, 4096);
}

/* The base of its RoPE grows in steps with the length of the prompt, the queries with the
 * logarithm of the position; both only beyond seq_length. */
static void mfi_setup_qwen(mfi_reader *r, transformer_config *c) {
    int trained = mfi_int(r, "seq_length", MFI_REQUIRED, 2, MFI_MAX_CONTEXT), length = trained;
    c->mlp_dim /= 2; /* intermediate_size counts gate and up */
    if (!mfi_bool(r, "no_bias", 1)) r->bias_on |= MFI_OUT | MFI_MLP;
    if (mfi_bool(r, "use_logn_attn", 1)) c->logn_length = trained;
    if (!mfi_ok(r) || !mfi_bool(r, "use_dynamic_ntk", 1)) return;
    if (r->rope_length > trained) {
        double steps = ceil(log((double)r->rope_length / trained) / log(2.0) - 1e-12) + 1;
        length = r->rope_length;
        c->rope[0].scaling = TRANSFORMER_ROPE_NTK;
        c->rope[0].factor = pow(2, steps) - 1;
    }
    if (c->context > length) c->context = length;
}

static void mfi_setup_qwen2(mfi_reader *r, transformer_config *c) {
    int window = mfi_bool(r, "use_sliding_window", 0) ? mfi_window(r, 4096) : 0;
    mfi_windows(r, c, window, mfi_int(r, "max_window_layers", 28, 0, MFI_MAX_CONTEXT), 0);
}

static void mfi_setup_qwen3(mfi_reader *r, transformer_config *c) {
    mfi_setup_qwen2(r, c);
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
}

static void mfi_setup_gemma(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    c->embedding_scale = (float)sqrt((double)c->dim);
    if (c->activation == TRANSFORMER_GELU) /* early releases say "gelu" and mean this */
        c->activation = TRANSFORMER_GELU_TANH;
}

/* A cap that null switches off; without the key the family's own holds. */
static float mfi_cap(mfi_reader *r, const char *key, double otherwise) {
    mfi_span v;
    int off = mfi_json_get(r->object, key, strlen(key), &v) > 0 && *v.p == 'n';
    return off ? 0 : (float)mfi_number(r, key, otherwise, 1e-6, 1e6);
}

/* What Gemma 2 and 3 share. */
static void mfi_setup_gemma_late(mfi_reader *r, transformer_config *c) {
    int activation = c->activation; /* here "gelu" means what it says */
    mfi_setup_gemma(r, c);
    c->activation = activation;
    c->attn_scale = (float)(1 / sqrt(mfi_number(r, "query_pre_attn_scalar", 256, 1e-3, 1e9)));
}

static void mfi_setup_gemma2(mfi_reader *r, transformer_config *c) {
    mfi_setup_gemma_late(r, c);
    c->attn_softcap = mfi_cap(r, "attn_logit_softcapping", 50);
    c->logit_softcap = mfi_cap(r, "final_logit_softcapping", 30);
    mfi_windows(r, c, mfi_window(r, 4096), 0, 2);
}

static void mfi_setup_gemma3(mfi_reader *r, transformer_config *c) {
    int i;
    mfi_setup_gemma_late(r, c); /* transformers reads attn_logit_softcapping and does not use it */
    c->logit_softcap = mfi_cap(r, "final_logit_softcapping", 0);
    mfi_windows(r, c, mfi_window(r, 4096), 0, mfi_int(r, "sliding_window_pattern", 6, 1, 256));
    for (i = 0; i < c->n_layers; i++) c->layers[i].rope = c->layers[i].window > 0;
}

static void mfi_setup_olmo(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    c->qkv_clip = (float)mfi_number(r, "clip_qkv", 0, 0, 1e6);
}

static void mfi_setup_olmo3(mfi_reader *r, transformer_config *c) {
    int i;
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    mfi_windows(r, c, mfi_window(r, 4096), 0, 4);
    for (i = 0; i < c->n_layers; i++) c->layers[i].rope = c->layers[i].window > 0;
}

/* no_rope_layers: 1 = this layer has RoPE (sic).  Windows, if any, are on the others. */
static void mfi_setup_smollm3(mfi_reader *r, transformer_config *c) {
    const char *key, *at = NULL;
    mfi_span v, item;
    int step = mfi_int(r, "no_rope_layer_interval", 4, 1, MFI_MAX_CONTEXT), i;
    int window = mfi_bool(r, "use_sliding_window", 0) ? mfi_window(r, 0) : 0;
    int listed = mfi_find(r, "no_rope_layers", &key, &v) > 0 && *(at = v.p) == '[';
    mfi_setup_bias(r, c);
    mfi_windows(r, c, window, c->n_layers, 0);
    for (i = 0; i < c->n_layers && mfi_ok(r); i++) {
        int64_t rope = (i + 1) % step != 0;
        if (listed && (!mfi_json_next(&at, NULL, &item) || !mfi_json_integer(item, &rope) ||
                       rope < 0 || rope > 1))
            mfi_fail(r->error, MFI_BAD, "%s: no_rope_layers[%d] is not 0 or 1", r->file, i);
        c->layers[i].rope = rope ? 0 : -1;
        if (!rope && !mfi_has(r, "layer_types")) c->layers[i].window = window;
    }
}

static void mfi_setup_granite(mfi_reader *r, transformer_config *c) {
    mfi_setup_bias(r, c);
    c->attn_scale = (float)mfi_number(r, "attention_multiplier", 1, 1e-6, 1e6);
    c->embedding_scale = (float)mfi_number(r, "embedding_multiplier", 1, 1e-6, 1e6);
    c->residual_scale = (float)mfi_number(r, "residual_multiplier", 1, 1e-6, 1e6);
    c->logit_scale = (float)(1 / mfi_number(r, "logits_scaling", 1, 1e-6, 1e6));
}

static void mfi_setup_cohere(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    c->logit_scale = (float)mfi_number(r, "logit_scale", 0.0625, 1e-6, 1e6);
    if (mfi_bool(r, "use_qk_norm", 0)) c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD;
}

/* Cohere 2 and EXAONE 4: where some layers slide, only those have RoPE. */
static void mfi_rope_on_windows(transformer_config *c) {
    int i;
    for (i = 0; i < c->n_layers; i++) c->layers[i].rope = c->layers[i].window > 0 ? 0 : -1;
}

static void mfi_setup_cohere2(mfi_reader *r, transformer_config *c) {
    mfi_setup_cohere(r, c);
    mfi_only(r, "use_qk_norm", 0);
    mfi_windows(r, c, mfi_window(r, 4096), 0, mfi_int(r, "sliding_window_pattern", 4, 1, 256));
    mfi_rope_on_windows(c);
}

static void mfi_setup_exaone4(mfi_reader *r, transformer_config *c) {
    int window = mfi_window(r, 4096), pattern = 4;
    if (window > 0 && !mfi_has(r, "layer_types")) /* may be "LLLG", with layer_types */
        pattern = mfi_int(r, "sliding_window_pattern", 4, 1, 256);
    mfi_windows(r, c, window, 0, pattern);
    if (window > 0) mfi_rope_on_windows(c);
}

static void mfi_setup_glm(mfi_reader *r, transformer_config *c) {
    (void)c;
    mfi_bias_key(r, "attention_bias", MFI_QKV, 1);
}

static void mfi_setup_minicpm(mfi_reader *r, transformer_config *c) {
    double depth = mfi_number(r, "scale_depth", 1, 1e-6, 1e6);
    double base = mfi_number(r, "dim_model_base", 1, 1e-6, 1e9);
    mfi_setup_bias(r, c);
    mfi_absent(r, "sparse_config");
    c->embedding_scale = (float)mfi_number(r, "scale_emb", 1, 1e-6, 1e6);
    c->residual_scale = (float)(depth / sqrt((double)c->n_layers));
    c->logit_scale = (float)(base / c->dim);
}

static void mfi_setup_ernie(mfi_reader *r, transformer_config *c) {
    (void)c;
    mfi_bias_key(r, "use_bias", MFI_QKVO | MFI_MLP, 0);
}

static void mfi_setup_starcoder2(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "use_bias", MFI_QKVO | MFI_MLP, 1);
    mfi_all_windows(r, c, 0);
}

static void mfi_setup_seed_oss(mfi_reader *r, transformer_config *c) {
    (void)c;
    mfi_bias_key(r, "attention_bias", MFI_QKV, 1);
    mfi_bias_key(r, "attention_out_bias", MFI_OUT, 0);
    mfi_bias_key(r, "mlp_bias", MFI_MLP, 0);
}

static void mfi_setup_nanochat(mfi_reader *r, transformer_config *c) {
    mfi_bias_key(r, "attention_bias", MFI_QKVO, 0);
    c->embedding_norm = 1;
    c->rope[0].reverse = 1;
    c->logit_softcap = mfi_cap(r, "final_logit_softcapping", 15);
}

#define MFI_GPT (MFI_LNB | MFI_UNGATED | MFI_LEARNED | MFI_MHA)
#define MFI_LLAMA                                                                                  \
    { mfi_names_llama, mfi_norms_input, NULL }
#define MFI_FALCON                                                                                 \
    { mfi_names_bloom, NULL, NULL }
#define MFI_GEMMA (MFI_ROPE | MFI_PLUS_ONE | MFI_TIED)
#define MFI_ALL_BIAS (MFI_QKVO | MFI_MLP)
#define MFI_RMS(act, eps) "intermediate_size", "hidden_act", act, "rms_norm_eps", eps

/* clang-format off */
static const mfi_family mfi_families[] = {
    /* type, names, flags,
     * biases, key of mlp_dim, key of the activation, activation, key of eps, eps,
     * theta, partial, head_dim, setup */
    {"gpt2", {mfi_names_gpt, mfi_blocks_gpt2, NULL}, MFI_GPT | MFI_TIED,
     MFI_ALL_BIAS, "n_inner", "activation_function", "gelu_new", "layer_norm_epsilon", 1e-5, 0, 1, 0, mfi_setup_gpt2},
    {"nanogpt", {mfi_names_gpt, mfi_blocks_nanogpt, NULL}, MFI_GPT | MFI_TIED,
     0, NULL, NULL, "gelu", NULL, 1e-5, 0, 1, 0, mfi_setup_nanogpt},
    {"mingpt", {mfi_names_gpt, mfi_blocks_nanogpt, NULL}, MFI_GPT,
     MFI_ALL_BIAS, NULL, NULL, "gelu_new", NULL, 1e-5, 0, 1, 0, NULL},
    {"microgpt", {mfi_names_gpt, mfi_names_microgpt, NULL}, MFI_BARE | MFI_UNGATED | MFI_LEARNED | MFI_MHA,
     0, NULL, NULL, "relu", NULL, 1e-5, 0, 1, 0, mfi_setup_microgpt},
    {"gpt_bigcode", {mfi_names_gpt, mfi_blocks_bigcode, NULL}, MFI_GPT | MFI_TIED,
     MFI_ALL_BIAS, "n_inner", "activation_function", "gelu_pytorch_tanh", "layer_norm_epsilon", 1e-5, 0, 1, 0, mfi_setup_bigcode},
    {"gpt_neo", {mfi_names_gpt, mfi_blocks_gpt_neo, NULL}, MFI_GPT | MFI_TIED,
     MFI_OUT | MFI_MLP, "intermediate_size", "activation_function", "gelu_new", "layer_norm_epsilon", 1e-5, 0, 1, 0, mfi_setup_gpt_neo},
    {"gptj", {mfi_names_gpt, mfi_blocks_gptj, NULL}, MFI_LNB | MFI_UNGATED | MFI_PARALLEL | MFI_ROPE | MFI_PAIRS | MFI_MHA,
     MFI_MLP | MFI_HEAD, "n_inner", "activation_function", "gelu_new", "layer_norm_epsilon", 1e-5, 1e4, 1, 0, mfi_setup_gptj},
    {"gpt_neox", {mfi_names_neox, NULL, NULL}, MFI_LNB | MFI_UNGATED | MFI_ROPE | MFI_PARTIAL | MFI_MHA,
     MFI_MLP, "intermediate_size", "hidden_act", "gelu", "layer_norm_eps", 1e-5, 1e4, 0.25, 0, mfi_setup_neox},
    {"opt", {mfi_names_opt, NULL, NULL}, MFI_GPT | MFI_TIED,
     0, "ffn_dim", "activation_function", "relu", NULL, 1e-5, 0, 1, 0, mfi_setup_opt},
    {"bloom", {mfi_names_bloom, NULL, NULL}, MFI_LNB | MFI_UNGATED | MFI_TIED | MFI_MHA,
     MFI_ALL_BIAS, NULL, NULL, "gelu_new", "layer_norm_epsilon", 1e-5, 0, 1, 0, mfi_setup_bloom},
    {"mpt", {mfi_names_mpt, NULL, NULL}, MFI_LN | MFI_UNGATED | MFI_TIED | MFI_MHA,
     0, NULL, NULL, "gelu", "layer_norm_epsilon", 1e-5, 0, 1, 0, mfi_setup_mpt},
    {"falcon", MFI_FALCON, MFI_LNB | MFI_UNGATED | MFI_ROPE | MFI_TIED,
     0, "ffn_hidden_size", "activation", "gelu", "layer_norm_epsilon", 1e-5, 1e4, 1, 0, mfi_setup_falcon},
    {"stablelm", {mfi_names_llama, mfi_norms_stablelm, NULL}, MFI_LNB | MFI_ROPE | MFI_PARTIAL,
     0, "intermediate_size", "hidden_act", "silu", "layer_norm_eps", 1e-5, 1e4, 0.25, 0, mfi_setup_stablelm},
    {"phi", {mfi_names_llama, mfi_names_phi, NULL}, MFI_LNB | MFI_UNGATED | MFI_PARALLEL | MFI_ROPE | MFI_PARTIAL,
     MFI_ALL_BIAS | MFI_HEAD, "intermediate_size", "hidden_act", "gelu_new", "layer_norm_eps", 1e-5, 1e4, 0.5, 0, mfi_setup_phi},
    {"phi3", MFI_LLAMA, MFI_ROPE | MFI_PARTIAL,
     0, MFI_RMS("silu", 1e-5), 1e4, 1, 0, mfi_setup_window},
    {"llama", MFI_LLAMA, MFI_ROPE,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 0, mfi_setup_bias},
    {"mistral", MFI_LLAMA, MFI_ROPE,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 0, mfi_setup_mistral},
    {"qwen", {mfi_names_gpt, mfi_blocks_qwen, NULL}, MFI_ROPE | MFI_PARTIAL,
     MFI_QKV, "intermediate_size", NULL, "silu", "layer_norm_epsilon", 1e-6, 1e4, 1, 0, mfi_setup_qwen},
    {"qwen2", MFI_LLAMA, MFI_ROPE,
     MFI_QKV, MFI_RMS("silu", 1e-6), 1e4, 1, 0, mfi_setup_qwen2},
    {"qwen3", MFI_LLAMA, MFI_ROPE | MFI_QK_HEAD,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 128, mfi_setup_qwen3},
    {"gemma", MFI_LLAMA, MFI_GEMMA,
     0, MFI_RMS("gelu_pytorch_tanh", 1e-6), 1e4, 1, 256, mfi_setup_gemma},
    {"gemma2", {mfi_names_llama, mfi_norms_gemma, NULL}, MFI_GEMMA | MFI_SANDWICH,
     0, "intermediate_size", "hidden_activation", "gelu_pytorch_tanh", "rms_norm_eps", 1e-6, 1e4, 1, 256, mfi_setup_gemma2},
    {"gemma3_text", {mfi_names_llama, mfi_norms_gemma, NULL}, MFI_GEMMA | MFI_SANDWICH | MFI_TWO_ROPES | MFI_QK_HEAD,
     0, "intermediate_size", "hidden_activation", "gelu_pytorch_tanh", "rms_norm_eps", 1e-6, 1e6, 1, 256, mfi_setup_gemma3},
    {"olmo", MFI_LLAMA, MFI_LN | MFI_BARE | MFI_ROPE,
     0, "intermediate_size", "hidden_act", "silu", NULL, 1e-5, 1e4, 1, 0, mfi_setup_olmo},
    {"olmo2", {mfi_names_llama, mfi_norms_output, NULL}, MFI_OUTPUT | MFI_ROPE | MFI_QK_FULL,
     0, MFI_RMS("silu", 1e-5), 1e4, 1, 0, mfi_setup_bias_attention},
    {"olmo3", {mfi_names_llama, mfi_norms_output, NULL}, MFI_OUTPUT | MFI_ROPE | MFI_TWO_ROPES | MFI_QK_FULL,
     0, MFI_RMS("silu", 1e-5), 5e5, 1, 0, mfi_setup_olmo3},
    {"smollm3", MFI_LLAMA, MFI_ROPE | MFI_TIED,
     0, MFI_RMS("silu", 1e-6), 2e6, 1, 0, mfi_setup_smollm3},
    {"granite", MFI_LLAMA, MFI_ROPE,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 0, mfi_setup_granite},
    {"cohere", MFI_LLAMA, MFI_LN | MFI_PARALLEL | MFI_ROPE | MFI_PAIRS | MFI_TIED,
     0, "intermediate_size", "hidden_act", "silu", "layer_norm_eps", 1e-5, 5e5, 1, 0, mfi_setup_cohere},
    {"cohere2", MFI_LLAMA, MFI_LN | MFI_PARALLEL | MFI_ROPE | MFI_PAIRS | MFI_TIED,
     0, "intermediate_size", "hidden_act", "silu", "layer_norm_eps", 1e-5, 1e4, 1, 0, mfi_setup_cohere2},
    {"glm", MFI_LLAMA, MFI_ROPE | MFI_PAIRS | MFI_PARTIAL,
     0, MFI_RMS("silu", 1.5625e-07), 1e4, 0.5, 128, mfi_setup_glm},
    {"glm4", {mfi_names_llama, mfi_norms_glm4, NULL}, MFI_SANDWICH | MFI_ROPE | MFI_PAIRS | MFI_PARTIAL,
     0, MFI_RMS("silu", 1.5625e-07), 1e4, 0.5, 128, mfi_setup_glm},
    {"minicpm", MFI_LLAMA, MFI_ROPE | MFI_TIED,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 0, mfi_setup_minicpm},
    {"ernie4_5", MFI_LLAMA, MFI_ROPE | MFI_PAIRS | MFI_TIED,
     0, MFI_RMS("silu", 1e-5), 5e5, 1, 128, mfi_setup_ernie},
    {"starcoder2", {mfi_names_llama, mfi_norms_input, mfi_names_starcoder2}, MFI_LNB | MFI_UNGATED | MFI_ROPE | MFI_TIED,
     0, "intermediate_size", "hidden_act", "gelu_pytorch_tanh", "norm_epsilon", 1e-5, 1e4, 1, 0, mfi_setup_starcoder2},
    {"nemotron", MFI_LLAMA, MFI_LNB | MFI_PLUS_ONE | MFI_UNGATED | MFI_ROPE | MFI_PARTIAL,
     0, "intermediate_size", "hidden_act", "relu2", "norm_eps", 1e-5, 1e4, 0.5, 0, mfi_setup_bias},
    {"exaone4", {mfi_names_llama, mfi_norms_output, NULL}, MFI_OUTPUT | MFI_ROPE | MFI_QK_HEAD,
     0, MFI_RMS("silu", 1e-5), 1e4, 1, 0, mfi_setup_exaone4},
    {"seed_oss", MFI_LLAMA, MFI_ROPE,
     0, MFI_RMS("silu", 1e-6), 1e4, 1, 128, mfi_setup_seed_oss},
    {"hunyuan_v1_dense", {mfi_names_llama, mfi_norms_hunyuan, NULL}, MFI_ROPE | MFI_QK_HEAD | MFI_QK_AFTER,
     0, MFI_RMS("silu", 1e-5), 1e4, 1, 0, mfi_setup_bias_attention},
    {"nanochat", {mfi_names_llama, mfi_names_starcoder2, NULL}, MFI_BARE | MFI_UNGATED | MFI_ROPE | MFI_QK_HEAD | MFI_QK_AFTER,
     0, MFI_RMS("relu2", 1e-6), 1e4, 1, 0, mfi_setup_nanochat}};
/* clang-format on */

/* The activation of that name; -1 if there is none. */
static int mfi_find_activation(const char *name) {
    static const struct {
        const char *name;
        int kind;
    } kinds[] = {{"silu", TRANSFORMER_SILU},
                 {"swish", TRANSFORMER_SILU},
                 {"gelu", TRANSFORMER_GELU},
                 {"gelu_python", TRANSFORMER_GELU},
                 {"gelu_new", TRANSFORMER_GELU_TANH},
                 {"gelu_fast", TRANSFORMER_GELU_TANH},
                 {"gelu_pytorch_tanh", TRANSFORMER_GELU_TANH},
                 {"quick_gelu", TRANSFORMER_GELU_QUICK},
                 {"relu", TRANSFORMER_RELU},
                 {"relu2", TRANSFORMER_RELU2},
                 {"tanh", TRANSFORMER_TANH},
                 {"sigmoid", TRANSFORMER_SIGMOID},
                 {"linear", TRANSFORMER_IDENTITY}};
    size_t i;
    for (i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(name, kinds[i].name) == 0) return kinds[i].kind;
    return -1;
}

static void mfi_activation(mfi_reader *r, const mfi_family *f, transformer_config *c) {
    char name[24];
    int kind;
    if (f->act_key) mfi_string(r, f->act_key, f->act, name, sizeof name);
    else snprintf(name, sizeof name, "%s", f->act);
    kind = mfi_find_activation(name);
    if (kind >= 0) c->activation = kind;
    else mfi_fail(r->error, MFI_UNSUPPORTED, "%s: activation '%s' is not supported", r->file, name);
}

/* Keys that, in any family, mean a model this library does not run. */
static void mfi_refuse(mfi_reader *r) {
    static const char *const counts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                         "moe_num_experts"};
    size_t i;
    mfi_absent(r, "quantization_config");
    mfi_absent(r, "attention_chunk_size");
    mfi_only(r, "use_bidirectional_attention", 0);
    mfi_only(r, "add_cross_attention", 0);
    mfi_only(r, "is_encoder_decoder", 0);
    mfi_only(r, "is_causal", 1);
    for (i = 0; i < sizeof counts / sizeof *counts; i++)
        if (mfi_int(r, counts[i], 0, 0, MFI_MAX_CONTEXT) > 1)
            mfi_fail(r->error, MFI_UNSUPPORTED, "%s: %s: mixtures of experts are not supported",
                     r->file, counts[i]);
}

/* Sizes have to be given, except in Gemma 3: its releases leave out what transformers supplies. */
static void mfi_sizes(mfi_reader *r, const mfi_family *f, transformer_config *c) {
    int ff = MFI_REQUIRED, gemma3 = strcmp(f->type, "gemma3_text") == 0;
    int context = gemma3 ? 131072 : f->flags & MFI_LEARNED ? MFI_REQUIRED : 2048;
    c->dim = mfi_int(r, "hidden_size|n_embed|n_embd|d_model", MFI_REQUIRED, 1, MFI_MAX_DIM);
    c->n_layers = mfi_int(r, "num_hidden_layers|n_layer|n_layers|num_layers", MFI_REQUIRED, 1,
                          TRANSFORMER_MAX_LAYERS);
    c->n_heads = mfi_int(r, "num_attention_heads|n_head|n_heads|num_heads",
                         gemma3 ? 8 : MFI_REQUIRED, 1, MFI_MAX_DIM);
    c->n_kv_heads = c->n_heads;
    if (!(f->flags & MFI_MHA))
        c->n_kv_heads = mfi_int(r, "num_key_value_heads", gemma3 ? 4 : c->n_heads, 1, MFI_MAX_DIM);
    c->vocab_size = mfi_int(r, "vocab_size", gemma3 ? 262208 : MFI_REQUIRED, 1, MFI_MAX_DIM);
    c->context =
        mfi_int(r, "max_position_embeddings|n_positions|block_size", context, 1, MFI_MAX_CONTEXT);
    if (f->flags & MFI_UNGATED && c->dim <= MFI_MAX_DIM / 4) ff = 4 * c->dim;
    c->mlp_dim = f->mlp_key ? mfi_int(r, f->mlp_key, ff, 1, MFI_MAX_DIM) : ff;
    if (!mfi_ok(r)) return;
    c->head_dim = f->head_dim;
    if (!(f->flags & MFI_MHA))
        c->head_dim = mfi_int(r, "head_dim|kv_channels|attention_head_dim", f->head_dim, 1,
                              TRANSFORMER_MAX_HEAD_DIM);
    if (c->head_dim == 0 && c->dim % c->n_heads != 0)
        mfi_fail(r->error, MFI_BAD, "%s: hidden_size %d is not a multiple of %d heads", r->file,
                 c->dim, c->n_heads);
    else if (c->head_dim == 0) c->head_dim = c->dim / c->n_heads;
    c->embedding_dim = c->dim;
}

/* What the family's flags say. */
static void mfi_apply_flags(const mfi_family *f, transformer_config *c) {
    int flags = f->flags;
    c->norm = flags & MFI_LN ? TRANSFORMER_NORM_LAYER : TRANSFORMER_NORM_RMS;
    c->norm_weight = !(flags & MFI_BARE);
    c->norm_bias = (flags & MFI_NORM_BIAS) != 0;
    c->norm_plus_one = (flags & MFI_PLUS_ONE) != 0;
    c->norm_placement = flags & MFI_OUTPUT     ? TRANSFORMER_PLACE_OUTPUT
                        : flags & MFI_SANDWICH ? TRANSFORMER_PLACE_INPUT | TRANSFORMER_PLACE_OUTPUT
                                               : TRANSFORMER_PLACE_INPUT;
    c->parallel = flags & MFI_PARALLEL ? TRANSFORMER_PARALLEL_SHARED : TRANSFORMER_SEQUENTIAL;
    c->gated = !(flags & MFI_UNGATED);
    c->position = flags & MFI_LEARNED ? TRANSFORMER_POSITION_LEARNED : TRANSFORMER_POSITION_NONE;
    c->attn_scale = (float)(1 / sqrt((double)c->head_dim));
    if (flags & (MFI_QK_HEAD | MFI_QK_FULL))
        c->qk_norm = flags & MFI_QK_FULL ? TRANSFORMER_QK_NORM_FULL : TRANSFORMER_QK_NORM_HEAD;
    c->qk_norm_after_rope = (flags & MFI_QK_AFTER) != 0;
    memset(c->rope, 0, sizeof c->rope);
}

/* config.json to transformer_config; biases and the head are settled when tensors are known. */
static void mfi_configure(mfi_reader *r, const mfi_family *f, transformer_config *c) {
    int i;
    transformer_config_defaults(c);
    mfi_refuse(r);
    mfi_sizes(r, f, c);
    mfi_activation(r, f, c);
    if (!mfi_ok(r)) return;
    mfi_apply_flags(f, c);
    c->norm_eps = (float)(f->eps_key ? mfi_number(r, f->eps_key, f->eps, 0, 1) : f->eps);
    if (f->flags & MFI_TWO_ROPES) mfi_rope_pair(r, f, c);
    else if (f->flags & MFI_ROPE) mfi_rope(r, f, c);
    r->bias_on = f->bias;
    r->bias_any = 0;
    if (f->setup && mfi_ok(r)) f->setup(r, c);
    for (i = 0; i < c->n_layers && c->rope[0].dims == 0; i++) c->layers[i].rope = -1;
}

/* ==== >>safetensors =========================================================================
 *
 * Eight bytes of length, a JSON header of that length, then the data.  Names and shapes stay where
 * they are in the header. */

typedef struct mfi_tensor {
    const char *name; /* not terminated */
    const unsigned char *data;
    uint64_t dims[4]; /* the first ones, outermost first */
    size_t bytes;
    uint32_t name_length;
    uint16_t file;
    uint8_t n_dims;
    uint8_t type; /* index into mfi_types */
    int32_t gguf; /* GGUF's number of the type, or -1 */
} mfi_tensor;

/* Every type of both formats.  Bytes are per block. */
static const struct {
    const char *name;
    int block, bytes;
    int gguf;  /* GGUF's number, or -1: only in safetensors, where blocks fill whole bytes */
    int dtype; /* transformer_dtype, or -1 */
} mfi_types[] = {{"F32", 1, 4, 0, TRANSFORMER_F32},
                 {"F16", 1, 2, 1, TRANSFORMER_F16},
                 {"BF16", 1, 2, 30, TRANSFORMER_BF16},
                 {"F64", 1, 8, 28, -1},
                 {"F8_E4M3", 1, 1, -1, -1},
                 {"F8_E5M2", 1, 1, -1, -1},
                 {"F8_E8M0", 1, 1, -1, -1},
                 {"F8_E4M3FNUZ", 1, 1, -1, -1},
                 {"F8_E5M2FNUZ", 1, 1, -1, -1},
                 {"F6_E2M3", 4, 3, -1, -1},
                 {"F6_E3M2", 4, 3, -1, -1},
                 {"F4", 2, 1, -1, -1},
                 {"I64", 1, 8, 27, -1},
                 {"I32", 1, 4, 26, -1},
                 {"I16", 1, 2, 25, -1},
                 {"I8", 1, 1, 24, -1},
                 {"U64", 1, 8, -1, -1},
                 {"U32", 1, 4, -1, -1},
                 {"U16", 1, 2, -1, -1},
                 {"U8", 1, 1, -1, -1},
                 {"BOOL", 1, 1, -1, -1},
                 {"C64", 1, 8, -1, -1},
                 {"Q4_0", 32, 18, 2, TRANSFORMER_Q4_0},
                 {"Q4_1", 32, 20, 3, TRANSFORMER_Q4_1},
                 {"Q5_0", 32, 22, 6, TRANSFORMER_Q5_0},
                 {"Q5_1", 32, 24, 7, TRANSFORMER_Q5_1},
                 {"Q8_0", 32, 34, 8, TRANSFORMER_Q8_0},
                 {"Q8_1", 32, 36, 9, -1},
                 {"Q2_K", 256, 84, 10, TRANSFORMER_Q2_K},
                 {"Q3_K", 256, 110, 11, TRANSFORMER_Q3_K},
                 {"Q4_K", 256, 144, 12, TRANSFORMER_Q4_K},
                 {"Q5_K", 256, 176, 13, TRANSFORMER_Q5_K},
                 {"Q6_K", 256, 210, 14, TRANSFORMER_Q6_K},
                 {"Q8_K", 256, 292, 15, -1},
                 {"IQ2_XXS", 256, 66, 16, -1},
                 {"IQ2_XS", 256, 74, 17, -1},
                 {"IQ3_XXS", 256, 98, 18, -1},
                 {"IQ1_S", 256, 50, 19, -1},
                 {"IQ4_NL", 32, 18, 20, TRANSFORMER_IQ4_NL},
                 {"IQ3_S", 256, 110, 21, -1},
                 {"IQ2_S", 256, 82, 22, -1},
                 {"IQ4_XS", 256, 136, 23, TRANSFORMER_IQ4_XS},
                 {"IQ1_M", 256, 56, 29, -1},
                 {"TQ1_0", 256, 54, 34, TRANSFORMER_TQ1_0},
                 {"TQ2_0", 256, 66, 35, TRANSFORMER_TQ2_0},
                 {"MXFP4", 32, 17, 39, TRANSFORMER_MXFP4},
                 {"NVFP4", 64, 36, 40, -1},
                 {"Q1_0", 128, 18, 41, -1},
                 {"Q2_0", 64, 18, 42, -1},
                 {"unknown", 1, 0, -1, -1}};

enum { MFI_UNKNOWN = (int)(sizeof mfi_types / sizeof *mfi_types) - 1 };

/* Bytes of a row of n elements, a whole number of blocks. */
static size_t mfi_row_bytes(int type, size_t n) {
    return n / (size_t)mfi_types[type].block * (size_t)mfi_types[type].bytes;
}

/* What a role's tensor is: which one, and which part of it.  piece is 0, 1 or 2 for Q, K, V or
 * gate, up. */
typedef struct mfi_slot {
    int32_t tensor; /* index, -1 = none */
    int8_t layout, piece, bias;
} mfi_slot;

typedef struct mfi_block { /* owned memory */
    struct mfi_block *next;
} mfi_block;

typedef struct mfi_keys { /* of a GGUF file, or of config.json */
    size_t *at;           /* where each key starts; the bracket or comma before it */
    unsigned char *used;  /* 1 = it was asked for */
    size_t n;
} mfi_keys;

struct model_file {
    transformer_config config;
    model_file_info info;
    mfi_file *files;
    int n_files;
    mfi_file json;               /* config.json, if there is one */
    transformer_tensor *tensors; /* [n_layers * TRANSFORMER_N_ROLES]; data NULL = none */
    mfi_block *blocks;
    mfi_tensor *found; /* sorted by name */
    size_t n_found, room;
    mfi_keys keys;
    /* only while opening: */
    const mfi_family *family;
    mfi_family adapted; /* GGUF: the family as such files have it */
    int only_look;
    mfi_slot *slots; /* like tensors */
    char prefix[32]; /* of the tensors' names */
};

static int mfi_show_name(const mfi_tensor *t) {
    return t->name_length > 100 ? 100 : (int)t->name_length;
}

/* "[47, 24]" */
typedef struct mfi_text {
    char text[100];
} mfi_text;

static mfi_text mfi_shape_text(const mfi_tensor *t) {
    mfi_text s = {"["};
    int i, n = 1;
    for (i = 0; i < t->n_dims && i < 4; i++)
        n += snprintf(s.text + n, sizeof s.text - (size_t)n, "%s%llu", i ? ", " : "",
                      (unsigned long long)t->dims[i]);
    snprintf(s.text + n, sizeof s.text - (size_t)n, t->n_dims > 4 ? ", ...]" : "]");
    return s;
}

/* An error about a tensor: "model.safetensors: tensor 'wte.weight': ..." */
MFI_PRINTF(5, 6)
static int mfi_tensor_fail(const model_file *mf, transformer_error *error,
                           transformer_status status, const mfi_tensor *t, const char *format,
                           ...) {
    char text[128];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mfi_fail(error, status, "%s: tensor '%.*s': %s", mf->files[t->file].name,
                    mfi_show_name(t), t->name, text);
}

/* "shape": dimensions and their product; 0 if it is not an array of sizes. */
static int mfi_shape(mfi_span v, mfi_tensor *t, uint64_t *count) {
    const char *at = v.p;
    mfi_span item;
    int64_t n;
    int i = 0, zero = 0;
    *count = 1;
    if (*v.p != '[') return 0;
    while (mfi_json_next(&at, NULL, &item)) {
        if (!mfi_json_integer(item, &n) || n < 0 || i >= 8) return 0;
        if (i < 4) t->dims[i] = (uint64_t)n;
        zero |= n == 0;
        if (n > 0 && *count > UINT64_MAX / 16 / (uint64_t)n) return 0;
        *count *= n > 0 ? (uint64_t)n : 1;
        i++;
    }
    t->n_dims = (uint8_t)i;
    *count = zero ? 0 : *count;
    return 1;
}

/* One entry of the header: dtype, shape and place, all consistent and inside the file. */
static int mfi_entry(const model_file *mf, mfi_tensor *t, mfi_span v, size_t start,
                     transformer_error *error) {
    const mfi_file *file = &mf->files[t->file];
    mfi_span dtype, shape, place, item;
    const char *at;
    int64_t from = -1, to = -1;
    uint64_t count, bytes, room = file->size - start;
    int i;
    if (*v.p != '{' || mfi_json_get(v, "dtype", 5, &dtype) != 1 || *dtype.p != '"' ||
        mfi_json_get(v, "shape", 5, &shape) != 1 ||
        mfi_json_get(v, "data_offsets", 12, &place) != 1 || *place.p != '[')
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t, "dtype, shape or data_offsets is bad");
    for (i = 0; i < MFI_UNKNOWN; i++) {
        size_t n = strlen(mfi_types[i].name);
        if ((size_t)(dtype.end - dtype.p) == n + 2 &&
            (mfi_types[i].block == 1 || mfi_types[i].gguf < 0) &&
            memcmp(dtype.p + 1, mfi_types[i].name, n) == 0)
            break;
    }
    if (i == MFI_UNKNOWN && !mf->only_look)
        return mfi_tensor_fail(mf, error, MFI_UNSUPPORTED, t, "dtype %.*s is not known",
                               mfi_show(dtype), dtype.p);
    t->type = (uint8_t)i;
    t->gguf = mfi_types[i].gguf;
    if (!mfi_shape(shape, t, &count))
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t, "bad shape %.*s", mfi_show(shape),
                               shape.p);
    at = place.p;
    if (!mfi_json_next(&at, NULL, &item) || !mfi_json_integer(item, &from) ||
        !mfi_json_next(&at, NULL, &item) || !mfi_json_integer(item, &to) || *at != ']' ||
        from < 0 || to < from || (uint64_t)to > room)
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t,
                               "data_offsets %.*s are not within the %llu bytes of data",
                               mfi_show(place), place.p, (unsigned long long)room);
    bytes = count / (uint64_t)mfi_types[i].block * (uint64_t)mfi_types[i].bytes;
    if (i < MFI_UNKNOWN && bytes != (uint64_t)(to - from))
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t,
                               "shape %.*s of %s takes %llu bytes, data_offsets give %llu",
                               mfi_show(shape), shape.p, mfi_types[i].name,
                               (unsigned long long)bytes, (unsigned long long)(to - from));
    t->data = file->data + start + (size_t)from;
    t->bytes = (size_t)(to - from);
    return 1;
}

static mfi_tensor *mfi_add(model_file *mf, transformer_error *error) {
    if (mf->n_found == mf->room) {
        size_t room = mf->room ? mf->room * 2 : 256;
        mfi_tensor *more = NULL;
        if (room <= SIZE_MAX / 2 / sizeof *more && room <= INT32_MAX)
            more = (mfi_tensor *)realloc(mf->found, room * sizeof *more);
        if (!more) {
            mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
            return NULL;
        }
        mf->found = more;
        mf->room = room;
    }
    memset(&mf->found[mf->n_found], 0, sizeof *mf->found);
    return &mf->found[mf->n_found++];
}

/* Lists the tensors of one file. */
static int mfi_safetensors(model_file *mf, int index, transformer_error *error) {
    const mfi_file *file = &mf->files[index];
    const char *at, *why;
    mfi_span text, key, value;
    uint64_t length;
    if (file->size < 8)
        return mfi_fail(error, MFI_WEIGHTS, "%s: %lu bytes are too few", file->name,
                        (unsigned long)file->size);
    length = mfi_u64(file->data);
    if (length < 2 || length > file->size - 8)
        return mfi_fail(error, MFI_WEIGHTS, "%s: header of %llu bytes in a file of %llu",
                        file->name, (unsigned long long)length, (unsigned long long)file->size);
    text.p = (const char *)file->data + 8;
    text.end = text.p + (size_t)length;
    why = *text.p == '{' ? mfi_json_check(text, &at) : (at = text.p, "'{' is expected");
    if (why)
        return mfi_fail(error, MFI_WEIGHTS, "%s: header: %s at byte %lu", file->name, why,
                        (unsigned long)(at - text.p) + 8);
    at = text.p;
    while (mfi_json_next(&at, &key, &value)) {
        mfi_tensor *t;
        if (mfi_same(key, "__metadata__", 12)) continue;
        t = mfi_add(mf, error);
        if (!t) return 0;
        t->name = key.p;
        t->name_length = (uint32_t)(key.end - key.p);
        t->file = (uint16_t)index;
        if (key.end - key.p > 1 << 16)
            return mfi_fail(error, MFI_WEIGHTS, "%s: a tensor name is too long", file->name);
        if (!mfi_entry(mf, t, value, 8 + (size_t)length, error)) return 0;
    }
    return 1;
}

static int mfi_name_order(const char *a, size_t n, const char *b, size_t m) {
    int order = memcmp(a, b, n < m ? n : m);
    return order ? order : n < m ? -1 : n > m;
}

static int mfi_by_name(const void *a, const void *b) {
    const mfi_tensor *x = (const mfi_tensor *)a, *y = (const mfi_tensor *)b;
    return mfi_name_order(x->name, x->name_length, y->name, y->name_length);
}

static int mfi_sort(model_file *mf, transformer_error *error) {
    size_t i;
    if (mf->n_found > 1) qsort(mf->found, mf->n_found, sizeof *mf->found, mfi_by_name);
    for (i = 1; i < mf->n_found; i++)
        if (mfi_by_name(&mf->found[i - 1], &mf->found[i]) == 0)
            return mfi_tensor_fail(mf, error, MFI_WEIGHTS, &mf->found[i], "is there twice");
    return 1;
}

static const mfi_tensor *mfi_lookup(const model_file *mf, const char *name, size_t n) {
    size_t low = 0, high = mf->n_found;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const mfi_tensor *t = &mf->found[middle];
        int order = mfi_name_order(name, n, t->name, t->name_length);
        if (order == 0) return t;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* ==== >>layouts =============================================================================
 *
 * From tensors to slots (which tensor, which part of it, for each role), from slots to
 * transformer_tensors. */

/* The role of a slot's bias; -1 if it has none. */
static int mfi_bias_role(int role) {
    switch (role) {
    case TRANSFORMER_EMBEDDING:
    case TRANSFORMER_EMBEDDING_PROJECTION:
    case TRANSFORMER_POSITION_EMBEDDING:
    case TRANSFORMER_HEAD_PROJECTION: return -1;
    default: return role + 1; /* as transformer_role numbers them */
    }
}

static int mfi_is_matrix(int role) {
    switch (role) {
    case TRANSFORMER_EMBEDDING:
    case TRANSFORMER_EMBEDDING_PROJECTION:
    case TRANSFORMER_POSITION_EMBEDDING:
    case TRANSFORMER_Q:
    case TRANSFORMER_K:
    case TRANSFORMER_V:
    case TRANSFORMER_ATTN_OUT:
    case TRANSFORMER_MLP_GATE:
    case TRANSFORMER_MLP_UP:
    case TRANSFORMER_MLP_DOWN:
    case TRANSFORMER_HEAD_PROJECTION:
    case TRANSFORMER_HEAD: return 1;
    default: return 0;
    }
}

static int mfi_per_layer(int role) {
    return role >= TRANSFORMER_ATTN_NORM && role <= TRANSFORMER_MLP_POST_NORM_BIAS;
}

/* The roles in a fused tensor, in order; *n of them. */
static const int *mfi_pieces(int layout, int *n) {
    static const int qkv[3] = {TRANSFORMER_Q, TRANSFORMER_K, TRANSFORMER_V};
    static const int mlp[2] = {TRANSFORMER_MLP_GATE, TRANSFORMER_MLP_UP};
    *n = layout == MFI_GATE_UP ? 2 : 3;
    return layout == MFI_GATE_UP                                              ? mlp
           : layout == MFI_CAT || layout == MFI_GROUP || layout == MFI_IN_CAT ? qkv
                                                                              : NULL;
}

/* Does the name follow the pattern?  '#' takes a number below 10000; numbers go to index[0..1]. */
static int mfi_matches(const char *pattern, const char *name, size_t n, int index[2]) {
    const char *end = name + n;
    int k = 0;
    index[0] = index[1] = 0;
    for (; *pattern; pattern++) {
        const char *digits = name;
        if (*pattern != '#') {
            if (name == end || *name != *pattern) return 0;
            name++;
            continue;
        }
        while (name < end && mfi_is_digit(*name) && name - digits < 4)
            index[k] = index[k] * 10 + (*name++ - '0');
        if (name == digits || (*digits == '0' && name - digits > 1)) return 0;
        k++;
    }
    return name == end;
}

static int mfi_ends(const char *name, size_t n, const char *end) {
    size_t m = strlen(end);
    return n >= m && memcmp(name + n - m, end, m) == 0;
}

/* Buffers that old checkpoints carry and no model needs. */
static int mfi_ignored(const model_file *mf, const mfi_tensor *t) {
    static const char *const ends[] = {".attn.bias",
                                       ".attn.masked_bias",
                                       ".attention.bias",
                                       ".attention.masked_bias",
                                       "rotary_emb.inv_freq",
                                       "rope_freqs.weight",
                                       "rope_factors_long.weight",
                                       "rope_factors_short.weight"}; /* read with the metadata */
    static const char *const parts[] = {"vision_tower.", "multi_modal_projector."};
    size_t i, k;
    for (i = 0; i < sizeof ends / sizeof *ends; i++)
        if (mfi_ends(t->name, t->name_length, ends[i])) return 1;
    if (strcmp(mf->info.family, "gemma3") != 0) return 0;
    for (i = 0; i < 2; i++) /* "model.vision_tower...": the text part runs without it */
        for (k = 0; k <= 6; k += 6)
            if (t->name_length > k + strlen(parts[i]) &&
                (k == 0 || !memcmp(t->name, "model.", 6)) &&
                memcmp(t->name + k, parts[i], strlen(parts[i])) == 0)
                return 1;
    return 0;
}

static int mfi_set_slot(model_file *mf, size_t t, int role, int layer, int layout, int piece,
                        int bias, transformer_error *error) {
    mfi_slot *slot = &mf->slots[layer * TRANSFORMER_N_ROLES + role];
    if (slot->tensor >= 0)
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, &mf->found[t], "is the same as '%.*s'",
                               mfi_show_name(&mf->found[slot->tensor]),
                               mf->found[slot->tensor].name);
    slot->tensor = (int32_t)t;
    slot->layout = (int8_t)layout;
    slot->piece = (int8_t)piece;
    slot->bias = (int8_t)bias;
    return 1;
}

/* Fills the slots of tensor t, called `name` without prefix and suffix.  0 if no pattern fits. */
static int mfi_match(model_file *mf, size_t t, const char *name, size_t n, int bias,
                     transformer_error *error) {
    const transformer_config *c = &mf->config;
    int i, k, n_pieces, index[2];
    for (i = 0; i < 3 && mf->family->names[i]; i++) {
        const mfi_name *line;
        for (line = mf->family->names[i]; line->pattern; line++) {
            const int *pieces = mfi_pieces(line->layout, &n_pieces);
            int layer, role;
            if ((bias && mfi_bias_role(line->role) < 0) ||
                !mfi_matches(line->pattern, name, n, index))
                continue;
            layer = mfi_per_layer(line->role) ? index[0] : 0;
            if (layer >= c->n_layers)
                return mfi_tensor_fail(mf, error, MFI_WEIGHTS, &mf->found[t],
                                       "the model has %d layers", c->n_layers);
            if (line->layout == MFI_HEADS && index[1] > 0) { /* found again by name, from head 0 */
                int heads = line->role == TRANSFORMER_Q_NORM ? c->n_heads : c->n_kv_heads;
                return index[1] < heads && !bias
                           ? 1
                           : mfi_tensor_fail(mf, error, MFI_WEIGHTS, &mf->found[t],
                                             "the model has %d heads", heads);
            }
            for (k = 0; k < (pieces ? n_pieces : 1); k++) {
                role = pieces ? pieces[k] : line->role;
                if (!mfi_set_slot(mf, t, bias ? role + 1 : role, layer, line->layout, k, bias,
                                  error))
                    return 0;
            }
            return 1;
        }
    }
    return 0;
}

/* Every tensor gets its slot, is known to be useless, or is an error. */
static int mfi_match_all(model_file *mf, transformer_error *error) {
    static const char *const prefixes[] = {"model.language_model.",
                                           "language_model.model.",
                                           "language_model.",
                                           "model.decoder.",
                                           "decoder.",
                                           "transformer.",
                                           "gpt_neox.",
                                           "model.",
                                           ""};
    size_t t, i;
    for (t = 0; t < mf->n_found; t++) {
        const mfi_tensor *tensor = &mf->found[t];
        size_t n = tensor->name_length;
        int bias = mfi_ends(tensor->name, n, ".bias"), done = 0;
        if (mfi_ignored(mf, tensor)) continue;
        if (bias) n -= 5;
        else if (mfi_ends(tensor->name, n, ".weight")) n -= 7;
        else if (strcmp(mf->info.family, "microgpt") != 0) n = 0;
        for (i = 0; i < sizeof prefixes / sizeof *prefixes && n > 0 && !done; i++) {
            size_t m = strlen(prefixes[i]);
            if (n <= m || memcmp(tensor->name, prefixes[i], m) != 0) continue;
            done = mfi_match(mf, t, tensor->name + m, n - m, bias, error);
            if (error->status != TRANSFORMER_OK) return 0;
            if (done && !mf->prefix[0]) snprintf(mf->prefix, sizeof mf->prefix, "%s", prefixes[i]);
        }
        if (!done)
            return mfi_tensor_fail(mf, error, MFI_WEIGHTS, tensor, "no %s model has it",
                                   mf->info.family);
    }
    return 1;
}

/* "Tensor so-and-so is missing", by the name it would have. */
static int mfi_missing_tensor(const model_file *mf, int role, int layer, transformer_error *error) {
    int i, k, n;
    for (i = 0; i < 3 && mf->family->names[i]; i++) {
        const mfi_name *line;
        for (line = mf->family->names[i]; line->pattern; line++) {
            const int *pieces = mfi_pieces(line->layout, &n);
            for (k = 0; k < (pieces ? n : 1); k++) {
                int r = pieces ? pieces[k] : line->role, cut = (int)strcspn(line->pattern, "#");
                const char *rest = line->pattern + cut;
                char number[16] = "";
                if (r != role && mfi_bias_role(r) != role) continue;
                if (*rest == '#') {
                    snprintf(number, sizeof number, "%d", layer);
                    rest++;
                }
                return mfi_fail(error, MFI_WEIGHTS, "%s: tensor '%s%.*s%s%s%s' is missing",
                                mf->files[0].name, mf->prefix, cut, line->pattern, number, rest,
                                r == role ? ".weight" : ".bias");
            }
        }
    }
    return mfi_fail(error, MFI_WEIGHTS, "%s: a tensor (%s) is missing", mf->files[0].name,
                    transformer_role_name(role));
}

static int mfi_filled(const model_file *mf, int role) {
    int i;
    for (i = 0; i < mf->config.n_layers; i++)
        if (mf->slots[i * TRANSFORMER_N_ROLES + role].tensor >= 0) return 1;
    return 0;
}

static int mfi_head_is_copy(const model_file *mf) {
    int head = mf->slots[TRANSFORMER_HEAD].tensor;
    int embedding = mf->slots[TRANSFORMER_EMBEDDING].tensor;
    const mfi_tensor *a = &mf->found[head], *b;
    if (embedding < 0) return 1; /* its absence is reported later */
    b = &mf->found[embedding];
    return a->type == b->type && a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* Biases and the head, now that the tensors are known. */
static int mfi_settle(model_file *mf, const mfi_reader *r, transformer_error *error) {
    static const int roles[][2] = {
        {TRANSFORMER_BIAS_Q, TRANSFORMER_Q_BIAS},
        {TRANSFORMER_BIAS_K, TRANSFORMER_K_BIAS},
        {TRANSFORMER_BIAS_V, TRANSFORMER_V_BIAS},
        {TRANSFORMER_BIAS_ATTN_OUT, TRANSFORMER_ATTN_OUT_BIAS},
        {TRANSFORMER_BIAS_MLP_UP, TRANSFORMER_MLP_UP_BIAS},
        {TRANSFORMER_BIAS_MLP_DOWN, TRANSFORMER_MLP_DOWN_BIAS},
    };
    transformer_config *c = &mf->config;
    int has_head = mfi_filled(mf, TRANSFORMER_HEAD);
    size_t i;
    c->biases = r->bias_on;
    for (i = 0; i < sizeof roles / sizeof *roles; i++)
        if (r->bias_any & roles[i][0] && mfi_filled(mf, roles[i][1])) c->biases |= roles[i][0];
    c->tied = r->tied >= 0 ? r->tied : !has_head || (mf->family->flags & MFI_TIED) != 0;
    /* A head beside tied embeddings is a copy of them and is left out, or it is what counts. */
    if (c->tied && has_head && !mfi_head_is_copy(mf)) c->tied = 0;
    if (c->tied) mf->slots[TRANSFORMER_HEAD].tensor = -1;
    if (!c->tied && !has_head) return mfi_missing_tensor(mf, TRANSFORMER_HEAD, 0, error);
    return 1;
}

static void *mfi_own(model_file *mf, size_t bytes, transformer_error *error) {
    mfi_block *block = NULL;
    if (bytes <= SIZE_MAX - 256) block = (mfi_block *)malloc(bytes + sizeof *block + 64);
    if (!block) {
        mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory for %lu bytes of weights",
                 (unsigned long)bytes);
        return NULL;
    }
    block->next = mf->blocks;
    mf->blocks = block;
    mf->info.copied_bytes += bytes;
    return (void *)(((uintptr_t)(block + 1) + 63) & ~(uintptr_t)63);
}

/* out[r, c] = in[c, r0 + r]: in tiles, so that neither side jumps through memory. */
static void mfi_transpose(unsigned char *out, const unsigned char *in, size_t rows, size_t cols,
                          size_t stride, size_t size) {
    size_t r0, c0, r, c;
    for (r0 = 0; r0 < rows; r0 += 32)
        for (c0 = 0; c0 < cols; c0 += 32)
            for (r = r0; r < rows && r < r0 + 32; r++)
                for (c = c0; c < cols && c < c0 + 32; c++) {
                    unsigned char *to = out + (r * cols + c) * size;
                    const unsigned char *from = in + (c * stride + r) * size;
                    if (size == 4) memcpy(to, from, 4);
                    else memcpy(to, from, 2);
                }
}

/* Row of the grouped tensor that is row r of piece 0, 1, 2 = Q, K, V. */
static size_t mfi_group_row(const transformer_config *c, int piece, size_t r) {
    size_t hd = (size_t)c->head_dim, per = (size_t)(c->n_heads / c->n_kv_heads);
    size_t head = r / hd, group = piece == 0 ? head / per : head;
    size_t in_group = piece == 0 ? head % per : per + (size_t)piece - 1;
    return (group * (per + 2) + in_group) * hd + r % hd;
}

/* A vector made of one tensor per head. */
static int mfi_heads(model_file *mf, const mfi_tensor *first, const transformer_tensor *shape,
                     unsigned char *out, transformer_error *error) {
    size_t n = (size_t)mf->config.head_dim, size = (size_t)mfi_types[first->type].bytes;
    size_t stem = first->name_length - 8; /* ends in "0.weight" */
    int head;
    for (head = 0; head < shape->cols / mf->config.head_dim; head++) {
        char name[160];
        const mfi_tensor *t;
        int length = snprintf(name, sizeof name, "%.*s%d.weight", (int)stem, first->name, head);
        if (length < 0 || (size_t)length >= sizeof name)
            return mfi_tensor_fail(mf, error, MFI_WEIGHTS, first, "name too long");
        t = mfi_lookup(mf, name, (size_t)length);
        if (!t)
            return mfi_fail(error, MFI_WEIGHTS, "%s: tensor '%s' is missing",
                            mf->files[first->file].name, name);
        if (t->n_dims != 1 || t->dims[0] != n || t->type != first->type)
            return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t, "%s %s, expected %s [%lu]",
                                   mfi_types[t->type].name, mfi_shape_text(t).text,
                                   mfi_types[first->type].name, (unsigned long)n);
        memcpy(out + (size_t)head * n * size, t->data, n * size);
    }
    return 1;
}

/* Checks a source's shape against the rows and columns it has to have. */
static int mfi_check_shape(const model_file *mf, const mfi_tensor *t, const mfi_slot *slot,
                           int vector, size_t rows, size_t cols, transformer_error *error) {
    size_t a = rows, b = cols, hd = (size_t)mf->config.head_dim;
    if (mfi_types[t->type].dtype < 0)
        return mfi_tensor_fail(mf, error, MFI_UNSUPPORTED, t, "type %s is not supported",
                               mfi_types[t->type].name);
    if ((vector || slot->layout == MFI_HEADS) && mfi_types[t->type].block > 1)
        return mfi_tensor_fail(mf, error, MFI_UNSUPPORTED, t, "type %s is not for vectors",
                               mfi_types[t->type].name);
    if (slot->layout == MFI_HEADS) return 1;
    if (vector) { /* [n], or [heads, head_dim] */
        if ((t->n_dims == 1 && t->dims[0] == rows) ||
            (t->n_dims == 2 && t->dims[1] == hd && rows % hd == 0 && t->dims[0] == rows / hd &&
             mf->config.qk_norm == TRANSFORMER_QK_NORM_PER_HEAD))
            return 1;
        return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t, "shape %s, expected [%lu]",
                               mfi_shape_text(t).text, (unsigned long)rows);
    }
    if (slot->layout == MFI_IN_OUT || slot->layout == MFI_IN_CAT) {
        a = cols;
        b = rows;
    }
    if (t->n_dims == 2 && t->dims[0] == a && t->dims[1] == b) return 1;
    return mfi_tensor_fail(mf, error, MFI_WEIGHTS, t, "shape %s, expected [%lu, %lu]",
                           mfi_shape_text(t).text, (unsigned long)a, (unsigned long)b);
}

/* Rows of the whole source, and the row at which this piece starts. */
static size_t mfi_source_rows(const model_file *mf, const mfi_slot *slot, int layer, size_t own,
                              size_t *start) {
    int n, k, rows, cols;
    const int *pieces = mfi_pieces(slot->layout, &n);
    size_t total = 0;
    *start = 0;
    if (!pieces) return own;
    for (k = 0; k < n; k++) {
        if (!transformer_tensor_shape(&mf->config, pieces[k], layer, &rows, &cols)) rows = 0;
        if (k < slot->piece) *start += (size_t)rows;
        total += (size_t)rows;
    }
    return total;
}

/* The tensor of one role: in place where it can be, else a copy. */
static int mfi_resolve(model_file *mf, int role, int layer, transformer_tensor *out,
                       transformer_error *error) {
    const mfi_slot *slot = &mf->slots[layer * TRANSFORMER_N_ROLES + role];
    const mfi_tensor *t = &mf->found[slot->tensor];
    int vector = !mfi_is_matrix(role), moved;
    size_t rows = (size_t)(vector ? out->cols : out->rows), r;
    size_t cols = vector ? 1 : (size_t)out->cols, start, total, size, row, align;
    unsigned char *copy;
    const unsigned char *data;
    total = mfi_source_rows(mf, slot, layer, rows, &start);
    if (!mfi_check_shape(mf, t, slot, vector, total, cols, error)) return 0;
    size = (size_t)mfi_types[t->type].bytes; /* of an element, where elements are moved */
    row = mfi_row_bytes(t->type, cols);
    out->dtype = mfi_types[t->type].dtype;
    moved = (slot->layout == MFI_GROUP && mf->config.n_kv_heads > 1) || slot->layout == MFI_HEADS ||
            (!vector && (slot->layout == MFI_IN_OUT || slot->layout == MFI_IN_CAT));
    align = mfi_types[t->type].block == 1 ? size : mfi_types[t->type].bytes % 2 ? 1 : 2;
    data = t->data + (moved ? 0 : start * row);
    if (!moved && (uintptr_t)data % align == 0) {
        out->data = data;
        return 1;
    }
    if ((copy = (unsigned char *)mfi_own(mf, rows * row, error)) == NULL) return 0;
    out->data = copy;
    if (slot->layout == MFI_HEADS) return mfi_heads(mf, t, out, copy, error);
    if (!moved) memcpy(copy, data, rows * row);
    else if (slot->layout == MFI_GROUP)
        for (r = 0; r < rows; r++)
            memcpy(copy + r * row, data + mfi_group_row(&mf->config, slot->piece, r) * row, row);
    else mfi_transpose(copy, data + start * size, rows, cols, total, size);
    return 1;
}

/* All roles of all layers: what the configuration asks for is there, and nothing else. */
static int mfi_resolve_all(model_file *mf, transformer_error *error) {
    const transformer_config *c = &mf->config;
    int layer, role;
    for (layer = 0; layer < c->n_layers; layer++)
        for (role = 0; role < TRANSFORMER_N_ROLES; role++) {
            size_t at = (size_t)layer * TRANSFORMER_N_ROLES + (size_t)role;
            transformer_tensor *out = &mf->tensors[at];
            const mfi_slot *slot = &mf->slots[at];
            int wanted = (layer == 0 || mfi_per_layer(role)) &&
                         transformer_tensor_shape(c, role, layer, &out->rows, &out->cols);
            if (wanted && slot->tensor < 0) return mfi_missing_tensor(mf, role, layer, error);
            if (!wanted && slot->tensor >= 0)
                return mfi_tensor_fail(mf, error, MFI_WEIGHTS, &mf->found[slot->tensor],
                                       "the configuration asks for no %s",
                                       transformer_role_name(role));
            if (wanted && !mfi_resolve(mf, role, layer, out, error)) return 0;
            mf->info.n_tensors += (size_t)wanted;
        }
    return 1;
}

static int mfi_make_room(model_file *mf, transformer_error *error) {
    size_t n = (size_t)mf->config.n_layers * TRANSFORMER_N_ROLES, i;
    mf->tensors = (transformer_tensor *)calloc(n, sizeof *mf->tensors);
    mf->slots = (mfi_slot *)malloc(n * sizeof *mf->slots);
    if (!mf->tensors || !mf->slots) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    for (i = 0; i < n; i++) mf->slots[i].tensor = -1;
    return 1;
}

/* The configuration in transformer.h's own judgement, with the place named. */
static int mfi_check_config(const model_file *mf, const char *where, transformer_error *error) {
    transformer_error inner;
    if (transformer_config_check(&mf->config, &inner) == TRANSFORMER_OK) return 1;
    return mfi_fail(error, inner.status, "%s: %.200s", where, inner.text);
}

/* directory/name, to be freed; NULL if there is no memory. */
static char *mfi_join(const char *directory, const char *name, size_t n) {
    size_t length = strlen(directory);
    char *path = length < SIZE_MAX / 4 ? (char *)malloc(length + n + 2) : NULL;
    if (!path) return NULL;
    memcpy(path, directory, length);
    if (length > 0 && path[length - 1] != '/' && path[length - 1] != '\\') path[length++] = '/';
    memcpy(path + length, name, n);
    path[length + n] = 0;
    return path;
}

/* Opens directory/name as the next of mf->files. */
static int mfi_open_file(model_file *mf, const char *directory, const char *name, size_t n,
                         transformer_error *error) {
    char *path = mfi_join(directory, name, n);
    mfi_file *more = (mfi_file *)realloc(mf->files, ((size_t)mf->n_files + 1) * sizeof *more);
    int ok = 0;
    if (more) mf->files = more;
    if (!more || !path) mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    else if ((ok = mfi_file_open(path, &mf->files[mf->n_files], error)) != 0) mf->n_files++;
    free(path);
    return ok;
}

/* ==== >>metadata ============================================================================
 *
 * A GGUF file: "GGUF", version, how many tensors, how many keys; the keys with their values; for
 * each tensor its name, dimensions (innermost first), type and offset; padding up to a multiple of
 * general.alignment; the data.  It is checked once from start to end, and then read where it lies. */

enum { MFI_ARRAY_DEPTH = 4, MFI_MAX_KEY = 65535 };

typedef struct mfi_cursor {
    const unsigned char *p, *end;
    const mfi_file *file;
    const char *what; /* is being read, for errors: "the value of key" */
    model_file_string of;
    transformer_error *error;
} mfi_cursor;

static mfi_text mfi_quote(model_file_string s) {
    mfi_text q;
    int n = s.length > 60 ? 60 : (int)s.length;
    snprintf(q.text, sizeof q.text, s.text ? " '%.*s'" : "%.*s", n, s.text ? s.text : "");
    return q;
}

static int mfi_gguf_bad(const mfi_cursor *c, const char *why) {
    return mfi_fail(c->error, MFI_WEIGHTS, "%s: %s%s, at byte %lu: %s", c->file->name, c->what,
                    mfi_quote(c->of).text, (unsigned long)(c->p - c->file->data), why);
}

/* The next n bytes, or NULL if the file is too short. */
static const unsigned char *mfi_take(mfi_cursor *c, uint64_t n) {
    const unsigned char *p = c->p;
    if (n > (uint64_t)(c->end - p)) {
        mfi_gguf_bad(c, "the file ends here");
        return NULL;
    }
    c->p += (size_t)n;
    return p;
}

static int mfi_take_u32(mfi_cursor *c, uint32_t *v) {
    const unsigned char *p = mfi_take(c, 4);
    if (p) *v = mfi_u32(p);
    return p != NULL;
}

static int mfi_take_u64(mfi_cursor *c, uint64_t *v) {
    const unsigned char *p = mfi_take(c, 8);
    if (p) *v = mfi_u64(p);
    return p != NULL;
}

static int mfi_take_string(mfi_cursor *c, model_file_string *s) {
    uint64_t n = 0;
    if (!mfi_take_u64(c, &n)) return 0;
    s->length = (size_t)n;
    s->text = (const char *)mfi_take(c, n);
    return s->text != NULL;
}

/* Bytes of a scalar of that type; 0 for strings, arrays and what does not exist. */
static size_t mfi_scalar_bytes(uint32_t type) {
    static const unsigned char bytes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < 13 ? bytes[type] : 0;
}

/* n values of one type; arrays of arrays may be MFI_ARRAY_DEPTH deep. */
static int mfi_take_values(mfi_cursor *c, uint32_t type, uint64_t n, int depth) {
    size_t size = mfi_scalar_bytes(type);
    model_file_string s;
    uint64_t i, inner = 0;
    uint32_t element = 0;
    if (size) {
        if (n > UINT64_MAX / 8) n = UINT64_MAX / 8;
        return mfi_take(c, n * size) != NULL;
    }
    if (type != MODEL_FILE_STRING && type != MODEL_FILE_ARRAY)
        return mfi_gguf_bad(c, "a type that does not exist");
    if (depth == MFI_ARRAY_DEPTH) return mfi_gguf_bad(c, "arrays nested too deeply");
    for (i = 0; i < n; i++) /* each takes 8 bytes at least: the file's end stops it */
        if (type == MODEL_FILE_STRING ? !mfi_take_string(c, &s)
                                      : !mfi_take_u32(c, &element) || !mfi_take_u64(c, &inner) ||
                                            !mfi_take_values(c, element, inner, depth + 1))
            return 0;
    return 1;
}

/* A key with its value. */
static int mfi_take_key(mfi_cursor *c, model_file_value *v) {
    uint32_t type = 0, element;
    uint64_t n = 1;
    c->what = "a metadata key";
    c->of.text = NULL;
    if (!mfi_take_string(c, &v->key)) return 0;
    if (v->key.length > MFI_MAX_KEY) return mfi_gguf_bad(c, "longer than 65535");
    c->what = "metadata key";
    c->of = v->key;
    if (!mfi_take_u32(c, &type)) return 0;
    element = type;
    if (type == MODEL_FILE_ARRAY && (!mfi_take_u32(c, &element) || !mfi_take_u64(c, &n))) return 0;
    v->data = c->p;
    if (!mfi_take_values(c, element, n, type == MODEL_FILE_ARRAY)) return 0;
    v->bytes = (size_t)(c->p - v->data);
    v->type = (int)type;
    v->element = (int)element;
    v->n = (size_t)n;
    return 1;
}

/* A value of a file that was checked. */
static void mfi_value_at(const mfi_file *file, size_t at, model_file_value *v) {
    transformer_error unused;
    mfi_cursor c;
    memset(&c, 0, sizeof c);
    memset(&unused, 0, sizeof unused);
    c.p = file->data + at;
    c.end = file->data + file->size;
    c.file = file;
    c.error = &unused;
    mfi_take_key(&c, v);
}

/* How often the key is there, counting to 2; *value is the last. */
static int mfi_key_find(const mfi_file *file, const mfi_keys *keys, const char *key,
                        model_file_value *value) {
    size_t i, n = strlen(key);
    int count = 0;
    for (i = 0; i < keys->n && count < 2; i++) {
        const unsigned char *p = file->data + keys->at[i];
        if (mfi_u64(p) != n || memcmp(p + 8, key, n) != 0) continue;
        mfi_value_at(file, keys->at[i], value);
        if (keys->used) keys->used[i] = 1;
        count++;
    }
    return count;
}

/* Where the members of config.json's object are. */
static int mfi_list_members(model_file *mf, mfi_span object, transformer_error *error) {
    const char *at, *base = (const char *)mf->json.data;
    mfi_span key, value;
    size_t n = 0;
    for (at = object.p; mfi_json_next(&at, &key, &value);) n++;
    mf->keys.at = (size_t *)malloc((n + 1) * sizeof *mf->keys.at);
    if (!mf->keys.at) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    for (at = object.p; mf->keys.n < n; mfi_json_next(&at, &key, &value))
        mf->keys.at[mf->keys.n++] = (size_t)(at - base);
    return 1;
}

static void mfi_member_at(const mfi_file *file, size_t offset, model_file_value *v) {
    const char *at = (const char *)file->data + offset;
    mfi_span key = {NULL, NULL}, value = {NULL, NULL};
    mfi_json_next(&at, &key, &value);
    v->key.text = key.p;
    v->key.length = (size_t)(key.end - key.p);
    v->type = v->element = MODEL_FILE_JSON;
    v->n = 1;
    v->data = (const unsigned char *)value.p;
    v->bytes = (size_t)(value.end - value.p);
}

MODEL_FILE_API int model_file_metadata(const model_file *file, size_t i, model_file_value *value) {
    if (!file || !value || i >= file->keys.n) return 0;
    if (file->json.data) mfi_member_at(&file->json, file->keys.at[i], value);
    else mfi_value_at(&file->files[0], file->keys.at[i], value);
    return 1;
}

MODEL_FILE_API int model_file_find(const model_file *file, const char *key,
                                   model_file_value *value) {
    size_t i, n;
    if (!file || !key || !value) return 0;
    if (!file->json.data) return mfi_key_find(&file->files[0], &file->keys, key, value) > 0;
    for (i = 0, n = strlen(key); i < file->keys.n; i++) {
        mfi_member_at(&file->json, file->keys.at[i], value);
        if (value->key.text && value->key.length == n && memcmp(value->key.text, key, n) == 0)
            return 1;
    }
    return 0;
}

MODEL_FILE_API int model_file_part_at(const model_file *file, int i, model_file_part *part) {
    if (!file || !part || i < 0 || i >= file->n_files) return 0;
    part->name = file->files[i].name;
    part->data = file->files[i].data;
    part->size = file->files[i].size;
    return 1;
}

MODEL_FILE_API int model_file_int(const model_file_value *value, size_t i, int64_t *out) {
    const unsigned char *p;
    uint64_t u;
    if (!value || !out || i >= value->n) return 0;
    p = value->data + i * mfi_scalar_bytes((uint32_t)value->element);
    switch (value->element) {
    case MODEL_FILE_U8:
    case MODEL_FILE_BOOL: *out = p[0]; return 1;
    case MODEL_FILE_I8: *out = p[0] < 128 ? p[0] : p[0] - 256; return 1;
    case MODEL_FILE_U16: *out = p[0] | p[1] << 8; return 1;
    case MODEL_FILE_I16:
        *out = p[0] | p[1] << 8;
        if (*out > 32767) *out -= 65536;
        return 1;
    case MODEL_FILE_U32: *out = mfi_u32(p); return 1;
    case MODEL_FILE_I32:
        *out = mfi_u32(p);
        if (*out > 0x7fffffff) *out -= (int64_t)1 << 32;
        return 1;
    case MODEL_FILE_U64:
    case MODEL_FILE_I64:
        u = mfi_u64(p);
        if (u >> 63 && value->element == MODEL_FILE_U64) return 0;
        *out = u >> 63 ? -(int64_t)(~u) - 1 : (int64_t)u;
        return 1;
    default: return 0;
    }
}

MODEL_FILE_API int model_file_float(const model_file_value *value, size_t i, double *out) {
    const unsigned char *p;
    int64_t n;
    float f;
    if (!value || !out || i >= value->n) return 0;
    p = value->data + i * mfi_scalar_bytes((uint32_t)value->element);
    if (value->element == MODEL_FILE_F32) {
        memcpy(&f, p, 4);
        *out = (double)f;
    } else if (value->element == MODEL_FILE_F64) {
        memcpy(out, p, 8);
    } else if (value->element == MODEL_FILE_BOOL || !model_file_int(value, i, &n)) {
        return 0;
    } else {
        *out = (double)n;
    }
    return 1;
}

MODEL_FILE_API int model_file_next_string(const model_file_value *value, size_t *at,
                                          model_file_string *out) {
    const unsigned char *p;
    if (!value || !at || !out || value->element != MODEL_FILE_STRING || *at >= value->bytes)
        return 0;
    p = value->data + *at;
    out->length = (size_t)mfi_u64(p);
    out->text = (const char *)p + 8;
    *at += 8 + out->length;
    return 1;
}

/* ==== >>gguf ================================================================================
 *
 * Tensors, split files, the architectures. */

/* Name, shape, type and place of one tensor; its data still counted from the file's start. */
static int mfi_gguf_tensor(model_file *mf, mfi_cursor *c, mfi_tensor *t) {
    model_file_string name;
    uint32_t n_dims = 0, type = 0, d;
    uint64_t offset = 0, count = 1;
    int i;
    c->what = "a tensor's name";
    c->of.text = NULL;
    if (!mfi_take_string(c, &name)) return 0;
    if (name.length < 1 || name.length > MFI_MAX_KEY) return mfi_gguf_bad(c, "not 1 to 65535 long");
    t->name = name.text;
    t->name_length = (uint32_t)name.length;
    t->file = (uint16_t)(c->file - mf->files);
    c->what = "tensor";
    c->of = name;
    if (!mfi_take_u32(c, &n_dims)) return 0;
    if (n_dims < 1 || n_dims > 4) return mfi_gguf_bad(c, "not 1 to 4 dimensions");
    t->n_dims = (uint8_t)n_dims;
    for (d = 0; d < n_dims; d++) {
        uint64_t *n = &t->dims[n_dims - 1 - d];
        if (!mfi_take_u64(c, n)) return 0;
        if (*n < 1 || *n > UINT64_MAX / 16 / count)
            return mfi_gguf_bad(c, "a dimension is 0 or the tensor too large");
        count *= *n;
    }
    if (!mfi_take_u32(c, &type) || !mfi_take_u64(c, &offset)) return 0;
    for (i = 0; i < MFI_UNKNOWN; i++)
        if (mfi_types[i].gguf >= 0 && (uint32_t)mfi_types[i].gguf == type) break;
    t->gguf = type <= INT32_MAX ? (int32_t)type : -1;
    if (i == MFI_UNKNOWN && !mf->only_look)
        return mfi_fail(c->error, MFI_UNSUPPORTED, "%s: tensor%s: type number %lu is not known",
                        c->file->name, mfi_quote(name).text, (unsigned long)type);
    t->type = (uint8_t)i;
    if (t->dims[n_dims - 1] % (uint64_t)mfi_types[i].block != 0)
        return mfi_fail(c->error, MFI_WEIGHTS, "%s: tensor%s: its rows are not whole blocks of %s",
                        c->file->name, mfi_quote(name).text, mfi_types[i].name);
    count = count / (uint64_t)mfi_types[i].block; /* times at most 292: checked by division */
    if (offset > c->file->size ||
        (mfi_types[i].bytes && count > c->file->size / (uint64_t)mfi_types[i].bytes))
        return mfi_gguf_bad(c, "its data lies beyond the end of the file");
    t->bytes = (size_t)count * (size_t)mfi_types[i].bytes;
    t->data = c->file->data + (size_t)offset;
    return 1;
}

/* The names and values of n keys. */
static int mfi_gguf_keys(mfi_cursor *c, uint64_t n, mfi_keys *keys) {
    model_file_value v;
    if (n > (uint64_t)(c->end - c->p) / 13) /* 8 + 4 + 1 bytes each, at least */
        return mfi_gguf_bad(c, "more keys than the file has room for");
    keys->at = (size_t *)malloc(((size_t)n + 1) * sizeof *keys->at);
    if (!keys->at) return mfi_fail(c->error, TRANSFORMER_MEMORY, "not enough memory");
    while (keys->n < (size_t)n) {
        keys->at[keys->n] = (size_t)(c->p - c->file->data);
        if (!mfi_take_key(c, &v)) return 0;
        keys->n++;
    }
    return 1;
}

/* An integer of a file's metadata that needs no architecture; `otherwise` if it is not there. */
static int mfi_gguf_general(const mfi_file *file, const mfi_keys *keys, const char *key,
                            int otherwise, int most, transformer_error *error) {
    model_file_value v;
    int64_t i;
    int count = mfi_key_find(file, keys, key, &v);
    if (count == 0) return otherwise;
    if (count > 1 || v.type == MODEL_FILE_ARRAY || !model_file_int(&v, 0, &i) || i < 0 ||
        i > most) {
        mfi_fail(error, MFI_BAD, "%s: %s is there twice, or not an integer in 0 .. %d", file->name,
                 key, most);
        return otherwise;
    }
    return (int)i;
}

static int mfi_gguf_header(mfi_cursor *c, uint64_t *n_tensors, uint64_t *n_keys) {
    const unsigned char *p;
    c->what = "the header";
    if ((p = mfi_take(c, 8)) == NULL) return 0;
    if (memcmp(p, "GGUF", 4) != 0)
        return mfi_fail(c->error, MFI_WEIGHTS, "%s: not a GGUF file", c->file->name);
    if (p[4] == 0 && p[5] == 0 && p[7] != 0)
        return mfi_fail(c->error, MFI_UNSUPPORTED, "%s: a big-endian GGUF file", c->file->name);
    if (mfi_u32(p + 4) != 2 && mfi_u32(p + 4) != 3)
        return mfi_fail(c->error, MFI_UNSUPPORTED, "%s: GGUF version %lu is not supported",
                        c->file->name, (unsigned long)mfi_u32(p + 4));
    return mfi_take_u64(c, n_tensors) && mfi_take_u64(c, n_keys);
}

/* Moves tensors from `first` on to where the file's data starts. */
static int mfi_gguf_place(model_file *mf, const mfi_cursor *c, const mfi_keys *keys, size_t first) {
    const mfi_file *file = c->file;
    int align = mfi_gguf_general(file, keys, "general.alignment", 32, 1 << 30, c->error);
    size_t start = (size_t)(c->p - file->data), room, i;
    if (c->error->status != TRANSFORMER_OK) return 0;
    if (align == 0 || (align & (align - 1)) != 0)
        return mfi_fail(c->error, MFI_BAD, "%s: general.alignment %d is not a power of two",
                        file->name, align);
    start += ((size_t)align - start % (size_t)align) % (size_t)align;
    room = start < file->size ? file->size - start : 0;
    for (i = first; i < mf->n_found; i++) {
        mfi_tensor *t = &mf->found[i];
        size_t offset = (size_t)(t->data - file->data);
        if (offset % (size_t)align != 0)
            return mfi_tensor_fail(mf, c->error, MFI_WEIGHTS, t,
                                   "offset %llu is not a multiple of general.alignment %d",
                                   (unsigned long long)offset, align);
        if (offset > room || t->bytes > room - offset)
            return mfi_tensor_fail(mf, c->error, MFI_WEIGHTS, t,
                                   "%llu bytes at %llu are not within the %llu bytes of data",
                                   (unsigned long long)t->bytes, (unsigned long long)offset,
                                   (unsigned long long)room);
        t->data += start;
    }
    return 1;
}

/* Lists keys and tensors of one file. */
static int mfi_gguf_list(model_file *mf, int index, mfi_keys *keys, transformer_error *error) {
    mfi_cursor c;
    uint64_t n_tensors = 0, n_keys = 0, i;
    size_t first = mf->n_found;
    mfi_tensor *more = NULL;
    memset(&c, 0, sizeof c);
    c.file = &mf->files[index];
    c.p = c.file->data;
    c.end = c.p + c.file->size;
    c.error = error;
    if (!mfi_gguf_header(&c, &n_tensors, &n_keys) || !mfi_gguf_keys(&c, n_keys, keys)) return 0;
    c.what = "the header";
    c.of.text = NULL;
    if (n_tensors > (uint64_t)(c.end - c.p) / 33 || n_tensors > (1u << 24)) /* at least 33 each */
        return mfi_gguf_bad(&c, "more tensors than the file has room for");
    more = (mfi_tensor *)realloc(mf->found, (first + (size_t)n_tensors + 1) * sizeof *more);
    if (!more) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    mf->found = more;
    mf->room = first + (size_t)n_tensors + 1;
    for (i = 0; i < n_tensors; i++) {
        mfi_tensor *t = mfi_add(mf, error);
        if (!t || !mfi_gguf_tensor(mf, &c, t)) return 0;
    }
    return mfi_gguf_place(mf, &c, keys, first);
}

/* Replaces file 0 by all parts, in order, if it is one of several: NAME-00002-of-00003.gguf. */
static int mfi_gguf_parts(model_file *mf, const char *path, transformer_error *error) {
    enum { TAIL = 20 }; /* "-00002-of-00003.gguf" */
    size_t n = path ? strlen(path) : 0;
    const char *tail = path ? path + (n > TAIL ? n - TAIL : 0) : "";
    int no, count, used = 0;
    char *part;
    if (n <= TAIL || sscanf(tail, "-%5d-of-%5d.gguf%n", &no, &count, &used) != 2 || used != TAIL ||
        no < 1 || count < 1 || no > count)
        return 1;
    if (count > 1024)
        return mfi_fail(error, MFI_WEIGHTS, "%s: more than 1024 parts", mf->files[0].name);
    while (mf->n_files > 0) mfi_file_close(&mf->files[--mf->n_files]);
    part = (char *)malloc(n + 1);
    if (!part) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    memcpy(part, path, n + 1);
    for (no = 1; no <= count && error->status == TRANSFORMER_OK; no++) {
        int digit, rest = no;
        for (digit = 5; digit > 0; digit--, rest /= 10)
            part[n - TAIL + (size_t)digit] = (char)('0' + rest % 10);
        mfi_open_file(mf, "", part, n, error);
    }
    free(part);
    if (error->status == TRANSFORMER_ARGUMENT) error->status = MFI_WEIGHTS; /* a part is missing */
    return error->status == TRANSFORMER_OK;
}

/* Lists all files; the first has the metadata, and each says which part of how many it is. */
static int mfi_gguf_list_all(model_file *mf, transformer_error *error) {
    int i, total = -1;
    for (i = 0; i < mf->n_files; i++) {
        mfi_keys part = {NULL, NULL, 0}, *keys = i ? &part : &mf->keys;
        const mfi_file *file = &mf->files[i];
        int ok = mfi_gguf_list(mf, i, keys, error), no, count, all;
        no = ok ? mfi_gguf_general(file, keys, "split.no", 0, 65535, error) : 0;
        count = ok ? mfi_gguf_general(file, keys, "split.count", 0, 65535, error) : 0;
        all = ok ? mfi_gguf_general(file, keys, "split.tensors.count", -1, 1 << 30, error) : 0;
        if (i == 0) total = all;
        free(part.at);
        if (!ok || error->status != TRANSFORMER_OK) return 0;
        if ((count > 1 || mf->n_files > 1) && (count != mf->n_files || no != i))
            return mfi_fail(error, MFI_WEIGHTS,
                            "%s: split.no %d, split.count %d: not part %d of %d", file->name, no,
                            count, i + 1, mf->n_files);
    }
    if (mf->n_files > 1 && total >= 0 && (size_t)total != mf->n_found)
        return mfi_fail(error, MFI_WEIGHTS, "%s: split.tensors.count is %d, the parts have %lu",
                        mf->files[0].name, total, (unsigned long)mf->n_found);
    return mfi_sort(mf, error);
}

/* ---- values by key: ".name" is the architecture's ---- */

typedef struct mfi_meta {
    model_file *mf;
    const char *file, *arch;
    transformer_error *error;
} mfi_meta;

static int mfi_meta_ok(const mfi_meta *m) { return m->error->status == TRANSFORMER_OK; }

static int mfi_meta_fail(mfi_meta *m, transformer_status status, const char *key, const char *why) {
    return mfi_fail(m->error, status, "%s: %s%s %s", m->file, *key == '.' ? m->arch : "", key, why);
}

/* 1 if it is there; notes that it was asked for. */
static int mfi_meta_find(mfi_meta *m, const char *key, model_file_value *v) {
    char name[128];
    int count;
    snprintf(name, sizeof name, "%s%s", *key == '.' ? m->arch : "", key);
    count = mfi_meta_ok(m) ? mfi_key_find(&m->mf->files[0], &m->mf->keys, name, v) : 0;
    if (count > 1) mfi_meta_fail(m, MFI_BAD, key, "is there twice");
    return count == 1;
}

static int mfi_meta_range(mfi_meta *m, const char *key, int64_t i, int least, int most) {
    if (i >= least && i <= most) return (int)i;
    mfi_fail(m->error, MFI_BAD, "%s: %s%s is %lld, not in %d .. %d", m->file,
             *key == '.' ? m->arch : "", key, (long long)i, least, most);
    return least;
}

static int mfi_meta_int(mfi_meta *m, const char *key, int otherwise, int least, int most) {
    model_file_value v;
    int64_t i = 0;
    if (!mfi_meta_find(m, key, &v)) {
        if (otherwise == MFI_REQUIRED) mfi_meta_fail(m, MFI_BAD, key, "is missing");
        return otherwise;
    }
    if (v.type == MODEL_FILE_ARRAY || !model_file_int(&v, 0, &i)) {
        mfi_meta_fail(m, MFI_BAD, key, "is not an integer");
        return least;
    }
    return mfi_meta_range(m, key, i, least, most);
}

static int mfi_meta_bool(mfi_meta *m, const char *key, int otherwise) {
    return mfi_meta_int(m, key, otherwise, 0, 1);
}

static double mfi_meta_number(mfi_meta *m, const char *key, double otherwise, double least,
                              double most) {
    model_file_value v;
    double d = 0;
    if (!mfi_meta_find(m, key, &v)) {
        if (otherwise == (double)MFI_REQUIRED) mfi_meta_fail(m, MFI_BAD, key, "is missing");
        return otherwise;
    }
    if (v.type == MODEL_FILE_ARRAY || !model_file_float(&v, 0, &d))
        mfi_meta_fail(m, MFI_BAD, key, "is not a number");
    else if (!(d >= least && d <= most))
        mfi_fail(m->error, MFI_BAD, "%s: %s%s is %g, not in %g .. %g", m->file,
                 *key == '.' ? m->arch : "", key, d, least, most);
    else return d;
    return least;
}

/* A string of at most size - 1 bytes. */
static void mfi_meta_word(mfi_meta *m, const char *key, const char *otherwise, char *text,
                          size_t size) {
    model_file_value v;
    model_file_string s;
    size_t at = 0;
    snprintf(text, size, "%s", otherwise ? otherwise : "");
    if (!mfi_meta_find(m, key, &v)) {
        if (!otherwise) mfi_meta_fail(m, MFI_BAD, key, "is missing");
        return;
    }
    if (v.type != MODEL_FILE_STRING || !model_file_next_string(&v, &at, &s) || s.length >= size ||
        memchr(s.text, 0, s.length))
        mfi_meta_fail(m, MFI_BAD, key, "is not a string of sensible length");
    else snprintf(text, size, "%.*s", (int)s.length, s.text);
}

/* One integer, or one for each layer: of_layer[i * stride] is set if they differ. */
static int mfi_meta_layers(mfi_meta *m, const char *key, int otherwise, transformer_layer *layers,
                           int *of_layer) {
    const int n = m->mf->config.n_layers, stride = (int)(sizeof *layers / sizeof(int));
    model_file_value v;
    int64_t value = 0;
    int i, first = 0, same = 1;
    if (!mfi_meta_find(m, key, &v) || v.type != MODEL_FILE_ARRAY)
        return mfi_meta_int(m, key, otherwise, 1, MFI_MAX_DIM);
    if (v.n != (size_t)n) {
        mfi_meta_fail(m, MFI_BAD, key, "has not one value for each layer");
        return 1;
    }
    for (i = 0; i < n && mfi_meta_ok(m); i++) {
        if (!model_file_int(&v, (size_t)i, &value))
            mfi_meta_fail(m, MFI_BAD, key, "has no integers");
        of_layer[i * stride] = mfi_meta_range(m, key, value, 1, MFI_MAX_DIM);
        first = i ? first : of_layer[0];
        same = same && of_layer[i * stride] == first;
    }
    for (i = 0; i < n && same; i++) of_layer[i * stride] = 0;
    return first;
}

static int mfi_has_tensor(const model_file *mf, const char *name) {
    return mfi_lookup(mf, name, strlen(name)) != NULL;
}

/* Factors that frequencies are divided by, one for each pair.  0 if the tensor is not there. */
static int mfi_meta_factors(mfi_meta *m, const char *name, float *out, int n) {
    const mfi_tensor *t = mfi_lookup(m->mf, name, strlen(name));
    int i;
    if (!t || !mfi_meta_ok(m)) return 0;
    if (mfi_types[t->type].dtype != TRANSFORMER_F32 || t->n_dims != 1 || t->dims[0] != (uint64_t)n)
        return mfi_tensor_fail(m->mf, m->error, MFI_WEIGHTS, t, "%s %s, expected F32 [%d]",
                               mfi_types[t->type].name, mfi_shape_text(t).text, n);
    memcpy(out, t->data, (size_t)n * sizeof *out);
    for (i = 0; i < n; i++)
        if (!(out[i] > 0 && out[i] < 1e30f))
            return mfi_tensor_fail(m->mf, m->error, MFI_WEIGHTS, t, "element %d is not above 0", i);
    return 1;
}

/* YaRN as transformers has it: attention is scaled with the logarithm of the factor, unless the
 * file says by what. */
static void mfi_gguf_yarn(mfi_meta *m, transformer_rope *rope) {
    rope->scaling = TRANSFORMER_ROPE_YARN;
    rope->factor = mfi_meta_number(m, ".rope.scaling.factor", MFI_REQUIRED, 1e-6, 1e6);
    rope->beta_fast = mfi_meta_number(m, ".rope.scaling.yarn_beta_fast", 32, 1e-6, 1e6);
    rope->beta_slow = mfi_meta_number(m, ".rope.scaling.yarn_beta_slow", 1, 1e-6, 1e6);
    rope->truncate = 1;
    rope->attention_factor = mfi_yarn_mscale(rope->factor, 1);
    rope->attention_factor =
        mfi_meta_number(m, ".rope.scaling.yarn_attn_factor", rope->attention_factor, 1e-6, 1e6);
    if (mfi_meta_number(m, ".rope.scaling.yarn_ext_factor", 1, 0, 1e6) != 1)
        mfi_meta_fail(m, MFI_UNSUPPORTED, ".rope.scaling.yarn_ext_factor", "is not 1");
}

static void mfi_gguf_rope(mfi_meta *m, const mfi_family *f, const transformer_config *c,
                          transformer_rope *rope) {
    char type[16];
    int factors, half;
    rope->dims = mfi_meta_int(m, ".rope.dimension_count", c->head_dim, 1, c->head_dim);
    rope->pairing = f->flags & MFI_PAIRS ? TRANSFORMER_ROPE_INTERLEAVED : TRANSFORMER_ROPE_HALF;
    rope->theta = mfi_meta_number(m, ".rope.freq_base", 1e4, 1e-3, 1e15);
    rope->factor = rope->attention_factor = 1;
    rope->original_context =
        mfi_meta_int(m, ".rope.scaling.original_context_length", c->context, 1, MFI_MAX_CONTEXT);
    mfi_meta_word(m, ".rope.scaling.type", "", type, sizeof type);
    if (!mfi_meta_ok(m)) return;
    half = rope->dims / 2;
    if (rope->dims % 2 != 0) {
        mfi_meta_fail(m, MFI_BAD, ".rope.dimension_count", "is odd");
        return;
    }
    factors = mfi_meta_factors(m, "rope_freqs.weight", rope->short_factors, half);
    if (factors) memcpy(rope->long_factors, rope->short_factors, sizeof rope->long_factors);
    else if (mfi_has_tensor(m->mf, "rope_factors_long.weight"))
        factors = mfi_meta_factors(m, "rope_factors_long.weight", rope->long_factors, half) &&
                  mfi_meta_factors(m, "rope_factors_short.weight", rope->short_factors, half);
    if (!factors && mfi_has_tensor(m->mf, "rope_factors_long.weight"))
        mfi_meta_fail(m, MFI_BAD, "rope_factors_short.weight", "is missing");
    if (factors) {
        rope->scaling = TRANSFORMER_ROPE_LONG;
        if (!mfi_has_tensor(m->mf, "rope_freqs.weight"))
            mfi_meta_int(m, ".rope.scaling.original_context_length", MFI_REQUIRED, 1,
                         MFI_MAX_CONTEXT);
    }
    if (strcmp(type, "yarn") == 0 && !factors) mfi_gguf_yarn(m, rope);
    else if (strcmp(type, "") == 0 || strcmp(type, "linear") == 0) {
        rope->factor = mfi_meta_number(m, ".rope.scale_linear", 1, 1e-6, 1e6);
        rope->factor = mfi_meta_number(m, ".rope.scaling.factor", rope->factor, 0, 1e6);
        if (rope->factor == 0) rope->factor = 1;
        if (rope->factor != 1 && factors)
            mfi_meta_fail(m, MFI_UNSUPPORTED, ".rope.scaling.factor", "and factors for each pair");
        if (rope->factor != 1) rope->scaling = TRANSFORMER_ROPE_LINEAR;
    } else if (strcmp(type, "none") == 0) {
        mfi_meta_number(m, ".rope.scaling.factor", 1, 0, 1e6); /* says nothing */
    } else if (strcmp(type, "longrope") != 0 || !factors) {
        mfi_meta_fail(m, MFI_UNSUPPORTED, ".rope.scaling.type", "is not supported here");
    }
    rope->attention_factor *= mfi_meta_number(m, ".rope.scaling.attn_factor", 1, 1e-6, 1e6);
}

/* Every layer sees so many positions but each pattern-th, which sees all; or as the file says. */
static void mfi_gguf_windows(mfi_meta *m, transformer_config *c, int window, int pattern) {
    static const char key[] = ".attention.sliding_window_pattern";
    model_file_value v;
    int64_t sliding = 0;
    int i, listed = mfi_meta_find(m, key, &v) && v.type == MODEL_FILE_ARRAY;
    if (!listed) pattern = mfi_meta_int(m, key, pattern, 1, MFI_MAX_CONTEXT);
    if (listed && v.n != (size_t)c->n_layers) {
        mfi_meta_fail(m, MFI_BAD, key, "has not one value for each layer");
        return;
    }
    for (i = 0; i < c->n_layers; i++) {
        sliding = (i + 1) % pattern != 0;
        if (listed && (!model_file_int(&v, (size_t)i, &sliding) || sliding < 0 || sliding > 1))
            mfi_meta_fail(m, MFI_BAD, key, "is not a list of 0 and 1");
        c->layers[i].window = sliding ? window : 0;
    }
}

static int mfi_gguf_window(mfi_meta *m, int otherwise) {
    return mfi_meta_int(m, ".attention.sliding_window", otherwise, 0, MFI_MAX_CONTEXT);
}

static void mfi_gguf_gptneox(mfi_meta *m, transformer_config *c) {
    if (mfi_meta_bool(m, ".use_parallel_residual", 1)) c->parallel = TRANSFORMER_PARALLEL_TWO;
}

static void mfi_gguf_bloom(mfi_meta *m, transformer_config *c) {
    (void)m;
    c->embedding_norm = 1;
    c->position = TRANSFORMER_POSITION_ALIBI;
    c->alibi_max_bias = 8;
}

static void mfi_gguf_mpt(mfi_meta *m, transformer_config *c) {
    c->position = TRANSFORMER_POSITION_ALIBI;
    c->alibi_max_bias = (float)mfi_meta_number(m, ".attention.max_alibi_bias", 8, 1, 64);
    c->qkv_clip = (float)mfi_meta_number(m, ".attention.clamp_kqv", 0, 0, 1e6);
}

static void mfi_gguf_falcon(mfi_meta *m, transformer_config *c) {
    if (mfi_has_tensor(m->mf, "blk.0.attn_norm_2.weight")) c->parallel = TRANSFORMER_PARALLEL_TWO;
    else c->parallel = TRANSFORMER_PARALLEL_SHARED;
}

/* Converters have written a use_parallel_residual that the tensors contradict. */
static void mfi_gguf_stablelm(mfi_meta *m, transformer_config *c) {
    if (!mfi_has_tensor(m->mf, "blk.0.ffn_norm.weight")) c->parallel = TRANSFORMER_PARALLEL_SHARED;
    if (mfi_has_tensor(m->mf, "blk.0.attn_q_norm.weight"))
        c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD;
}

/* Files without the key are the first releases', of which those for 4096 positions have windows. */
static void mfi_gguf_phi3(mfi_meta *m, transformer_config *c) {
    int i, window = mfi_gguf_window(m, c->context == 4096 ? 2047 : 0);
    for (i = 0; i < c->n_layers; i++) c->layers[i].window = window;
}

static void mfi_gguf_qwen(mfi_meta *m, transformer_config *c) {
    (void)m;
    c->mlp_dim /= 2; /* feed_forward_length counts gate and up */
}

static void mfi_gguf_gemma(mfi_meta *m, transformer_config *c) {
    (void)m;
    c->embedding_scale = (float)sqrt((double)c->dim);
}

/* The largest of Gemma 2 and of Gemma 3 is told by its layers: it alone scales attention otherwise. */
static void mfi_gguf_gemma_scale(transformer_config *c, int largest) {
    if (c->n_layers == largest) c->attn_scale = (float)(1 / sqrt((double)c->dim / c->n_heads));
    c->embedding_scale = (float)sqrt((double)c->dim);
}

static void mfi_gguf_gemma2(mfi_meta *m, transformer_config *c) {
    mfi_gguf_gemma_scale(c, 46);
    c->attn_softcap = (float)mfi_meta_number(m, ".attn_logit_softcapping", 50, 0, 1e6);
    c->logit_softcap = (float)mfi_meta_number(m, ".final_logit_softcapping", 30, 0, 1e6);
    mfi_gguf_windows(m, c, mfi_gguf_window(m, 4096), 2);
}

/* Table 1, for layers with windows: not scaled. */
static void mfi_gguf_local_rope(mfi_meta *m, transformer_config *c, double theta) {
    int i;
    c->rope[1] = c->rope[0];
    c->rope[1].scaling = TRANSFORMER_ROPE_PLAIN;
    c->rope[1].factor = c->rope[1].attention_factor = 1;
    c->rope[1].theta = mfi_meta_number(m, ".rope.freq_base_swa", theta, 1e-3, 1e15);
    for (i = 0; i < c->n_layers; i++) c->layers[i].rope = c->layers[i].window > 0;
}

static void mfi_gguf_gemma3(mfi_meta *m, transformer_config *c) {
    mfi_gguf_gemma_scale(c, 62);
    c->logit_softcap = (float)mfi_meta_number(m, ".final_logit_softcapping", 0, 0, 1e6);
    mfi_gguf_windows(m, c, mfi_gguf_window(m, 0), 6);
    mfi_gguf_local_rope(m, c, 1e4);
}

static void mfi_gguf_olmo(mfi_meta *m, transformer_config *c) {
    c->qkv_clip = (float)mfi_meta_number(m, ".attention.clamp_kqv", 0, 0, 1e6);
}

static void mfi_gguf_olmo2(mfi_meta *m, transformer_config *c) {
    int window = mfi_gguf_window(m, 0); /* OLMo 3 */
    if (window == 0) return;
    mfi_gguf_windows(m, c, window, 4);
    mfi_gguf_local_rope(m, c, c->rope[0].theta);
}

static void mfi_gguf_smollm3(mfi_meta *m, transformer_config *c) {
    int i;
    (void)m;
    for (i = 0; i < c->n_layers; i++) c->layers[i].rope = (i + 1) % 4 != 0 ? 0 : -1;
}

static void mfi_gguf_scales(mfi_meta *m, transformer_config *c, double embedding, double residual,
                            double logits) {
    c->embedding_scale = (float)mfi_meta_number(m, ".embedding_scale", embedding, 1e-6, 1e6);
    c->residual_scale = (float)mfi_meta_number(m, ".residual_scale", residual, 1e-6, 1e6);
    c->logit_scale = (float)(1 / mfi_meta_number(m, ".logit_scale", logits, 1e-6, 1e6));
}

static void mfi_gguf_granite(mfi_meta *m, transformer_config *c) {
    int i, rope = mfi_meta_bool(m, ".rope.scaling.finetuned", 1);
    mfi_gguf_scales(m, c, 1, 1, MFI_REQUIRED);
    c->attn_scale = (float)mfi_meta_number(m, ".attention.scale", (double)c->attn_scale, 1e-6, 1e6);
    for (i = 0; i < c->n_layers && !rope; i++) c->layers[i].rope = -1;
}

/* Files without these keys are the first releases'. */
static void mfi_gguf_minicpm(mfi_meta *m, transformer_config *c) {
    mfi_gguf_scales(m, c, 12, 1.4 / sqrt((double)c->n_layers), c->dim / 256.0);
}

static void mfi_gguf_command_r(mfi_meta *m, transformer_config *c) {
    c->logit_scale = (float)mfi_meta_number(m, ".logit_scale", MFI_REQUIRED, 1e-6, 1e6);
    if (mfi_has_tensor(m->mf, "blk.0.attn_q_norm.weight"))
        c->qk_norm = TRANSFORMER_QK_NORM_PER_HEAD;
}

static void mfi_gguf_cohere2(mfi_meta *m, transformer_config *c) {
    c->logit_scale = (float)mfi_meta_number(m, ".logit_scale", MFI_REQUIRED, 1e-6, 1e6);
    mfi_gguf_windows(m, c, mfi_gguf_window(m, 4096), 4);
    mfi_rope_on_windows(c);
}

static void mfi_gguf_exaone4(mfi_meta *m, transformer_config *c) {
    int window = mfi_gguf_window(m, 0);
    if (window == 0) return;
    mfi_gguf_windows(m, c, window, 4);
    mfi_rope_on_windows(c);
}

/* 7B rotates, 13B has ALiBi; they are told apart by their layers. */
static void mfi_gguf_baichuan(mfi_meta *m, transformer_config *c) {
    (void)m;
    if (c->n_layers != 40) return;
    c->position = TRANSFORMER_POSITION_ALIBI;
    c->alibi_max_bias = 8;
    memset(c->rope, 0, sizeof c->rope);
}

static void mfi_gguf_arcee(mfi_meta *m, transformer_config *c) {
    (void)m;
    c->gated = 0;
    c->activation = TRANSFORMER_RELU2;
}

static void mfi_gguf_orion(mfi_meta *m, transformer_config *c) {
    (void)m;
    c->norm_bias = 1;
}

static void mfi_gguf_starcoder2(mfi_meta *m, transformer_config *c) {
    int i, window = mfi_gguf_window(m, 4096);
    for (i = 0; i < c->n_layers; i++) c->layers[i].window = window;
}

/* Where norms and fused tensors have names of their own; looked at before mfi_names_gguf. */
static const mfi_name mfi_gguf_two_norms[] = {/* Falcon 40B: attn_norm is the MLP's */
                                              {"blk.#.attn_norm_2", TRANSFORMER_ATTN_NORM,
                                               MFI_ROWS},
                                              {"blk.#.attn_norm", TRANSFORMER_MLP_NORM, MFI_ROWS},
                                              MFI_END};
static const mfi_name mfi_gguf_input_norms[] = {
    {"blk.#.post_attention_norm", TRANSFORMER_MLP_NORM, MFI_ROWS}, MFI_END};
static const mfi_name mfi_gguf_fused[] = {{"blk.#.ffn_up", TRANSFORMER_MLP_GATE, MFI_GATE_UP},
                                          MFI_END};
static const mfi_name mfi_names_gguf[] = {
    {"token_embd", TRANSFORMER_EMBEDDING, MFI_ROWS},
    {"token_embd_norm", TRANSFORMER_EMBEDDING_NORM, MFI_ROWS},
    {"position_embd", TRANSFORMER_POSITION_EMBEDDING, MFI_ROWS},
    {"output_norm", TRANSFORMER_FINAL_NORM, MFI_ROWS},
    {"output", TRANSFORMER_HEAD, MFI_ROWS},
    {"blk.#.attn_norm", TRANSFORMER_ATTN_NORM, MFI_ROWS},
    {"blk.#.attn_qkv", TRANSFORMER_Q, MFI_CAT},
    {"blk.#.attn_q", TRANSFORMER_Q, MFI_ROWS},
    {"blk.#.attn_k", TRANSFORMER_K, MFI_ROWS},
    {"blk.#.attn_v", TRANSFORMER_V, MFI_ROWS},
    {"blk.#.attn_q_norm", TRANSFORMER_Q_NORM, MFI_ROWS},
    {"blk.#.attn_k_norm", TRANSFORMER_K_NORM, MFI_ROWS},
    {"blk.#.attn_output", TRANSFORMER_ATTN_OUT, MFI_ROWS},
    {"blk.#.post_attention_norm", TRANSFORMER_ATTN_POST_NORM, MFI_ROWS},
    {"blk.#.ffn_norm", TRANSFORMER_MLP_NORM, MFI_ROWS},
    {"blk.#.ffn_gate", TRANSFORMER_MLP_GATE, MFI_ROWS},
    {"blk.#.ffn_up", TRANSFORMER_MLP_UP, MFI_ROWS},
    {"blk.#.ffn_down", TRANSFORMER_MLP_DOWN, MFI_ROWS},
    {"blk.#.post_ffw_norm", TRANSFORMER_MLP_POST_NORM, MFI_ROWS},
    MFI_END};

typedef struct mfi_gguf_arch {
    const char *name;   /* general.architecture */
    const char *family; /* the same model in mfi_families */
    int flags;          /* more than the family's: rows of q and k permuted to MFI_PAIRS */
    int bias;           /* biases it may have, if the tensors are there */
    void (*setup)(mfi_meta *m, transformer_config *c);
} mfi_gguf_arch;

static const mfi_gguf_arch mfi_gguf_archs[] = {
    {"llama", "llama", MFI_PAIRS, MFI_ALL_BIAS, NULL},
    {"gpt2", "gpt2", 0, MFI_ALL_BIAS, NULL},
    {"gptneox", "gpt_neox", 0, MFI_ALL_BIAS, mfi_gguf_gptneox},
    {"bloom", "bloom", 0, MFI_ALL_BIAS, mfi_gguf_bloom},
    {"mpt", "mpt", 0, MFI_ALL_BIAS, mfi_gguf_mpt},
    {"falcon", "falcon", 0, 0, mfi_gguf_falcon},
    {"stablelm", "stablelm", 0, MFI_ALL_BIAS, mfi_gguf_stablelm},
    {"phi2", "phi", 0, MFI_ALL_BIAS, NULL},
    {"phi3", "phi3", 0, MFI_ALL_BIAS, mfi_gguf_phi3},
    {"qwen", "qwen", 0, MFI_ALL_BIAS, mfi_gguf_qwen},
    {"qwen2", "qwen2", 0, MFI_ALL_BIAS, NULL},
    {"qwen3", "qwen3", 0, MFI_ALL_BIAS, NULL},
    {"gemma", "gemma", 0, MFI_ALL_BIAS, mfi_gguf_gemma},
    {"gemma2", "gemma2", 0, MFI_ALL_BIAS, mfi_gguf_gemma2},
    {"gemma3", "gemma3_text", 0, MFI_ALL_BIAS, mfi_gguf_gemma3},
    {"olmo", "olmo", MFI_PAIRS, 0, mfi_gguf_olmo},
    {"olmo2", "olmo2", 0, MFI_ALL_BIAS, mfi_gguf_olmo2},
    {"smollm3", "smollm3", MFI_PAIRS, MFI_ALL_BIAS, mfi_gguf_smollm3},
    {"granite", "granite", MFI_PAIRS, MFI_ALL_BIAS, mfi_gguf_granite},
    {"command-r", "cohere", 0, MFI_ALL_BIAS, mfi_gguf_command_r},
    {"cohere2", "cohere2", 0, MFI_ALL_BIAS, mfi_gguf_cohere2},
    {"chatglm", "glm", 0, MFI_ALL_BIAS, NULL},
    {"glm4", "glm4", 0, MFI_ALL_BIAS, NULL},
    {"minicpm", "minicpm", MFI_PAIRS, 0, mfi_gguf_minicpm},
    {"ernie4_5", "ernie4_5", 0, MFI_ALL_BIAS, NULL},
    {"starcoder", "gpt_bigcode", 0, MFI_ALL_BIAS, NULL},
    {"starcoder2", "starcoder2", 0, MFI_ALL_BIAS, mfi_gguf_starcoder2},
    {"nemotron", "nemotron", 0, MFI_ALL_BIAS, NULL},
    {"exaone4", "exaone4", 0, MFI_ALL_BIAS, mfi_gguf_exaone4},
    {"seed_oss", "seed_oss", 0, MFI_ALL_BIAS, NULL},
    {"hunyuan-dense", "hunyuan_v1_dense", 0, MFI_ALL_BIAS, NULL},
    /* Llamas under other names */
    {"mistral3", "llama", MFI_PAIRS, MFI_ALL_BIAS, NULL},
    {"internlm2", "llama", MFI_PAIRS, 0, NULL},
    {"xverse", "llama", MFI_PAIRS, 0, NULL},
    {"baichuan", "llama", MFI_PAIRS, 0, mfi_gguf_baichuan},
    {"arcee", "llama", MFI_PAIRS | MFI_UNGATED, 0, mfi_gguf_arcee},
    {"exaone", "llama", 0, 0, NULL},
    {"orion", "llama", MFI_LN, 0, mfi_gguf_orion},
};

/* OLMo's and MiniCPM's converter permutes rows and not biases, Falcon's loses the ALiBi that comes
 * with them: what such a file means cannot be told. */

/* The architecture's family, changed to what its GGUF files are like: 1 + weight is added, heads
 * are tied if there is no matrix for them, and all but these families' biases are told by tensors. */
static int mfi_gguf_family(mfi_meta *m, const mfi_gguf_arch **arch) {
    mfi_family *f = &m->mf->adapted;
    size_t i, k;
    for (i = 0; i < sizeof mfi_gguf_archs / sizeof *mfi_gguf_archs; i++)
        if (strcmp(m->arch, mfi_gguf_archs[i].name) == 0) break;
    if (i == sizeof mfi_gguf_archs / sizeof *mfi_gguf_archs)
        return mfi_fail(m->error, MFI_UNSUPPORTED, "%s: general.architecture '%s' is not supported",
                        m->file, m->arch);
    *arch = &mfi_gguf_archs[i];
    for (k = 0; strcmp(mfi_families[k].type, (*arch)->family) != 0;) k++;
    *f = mfi_families[k];
    f->flags = (f->flags | (*arch)->flags) & ~(MFI_PLUS_ONE | MFI_TIED | MFI_TWO_ROPES);
    f->names[0] = mfi_names_gguf;
    f->names[1] = f->names[2] = NULL;
    if (mfi_has_tensor(m->mf, "blk.0.attn_norm_2.weight")) f->names[0] = mfi_gguf_two_norms;
    else if (strcmp(m->arch, "seed_oss") == 0) f->names[0] = mfi_gguf_input_norms;
    else if (!(f->flags & MFI_UNGATED) && !mfi_has_tensor(m->mf, "blk.0.ffn_gate.weight"))
        f->names[0] = mfi_gguf_fused;
    if (f->names[0] != mfi_names_gguf) f->names[1] = mfi_names_gguf;
    m->mf->family = f;
    return 1;
}

/* Sizes; those of heads and of the MLP may differ from layer to layer. */
static void mfi_gguf_sizes(mfi_meta *m, const mfi_family *f, transformer_config *c) {
    const mfi_tensor *embedding = mfi_lookup(m->mf, "token_embd.weight", 17);
    static const char *const eps_keys[2] = {".attention.layer_norm_rms_epsilon",
                                            ".attention.layer_norm_epsilon"};
    int ln = (f->flags & MFI_LN) != 0; /* Qwen 1's converter writes the other key */
    model_file_value v;
    const char *eps =
        eps_keys[!mfi_meta_find(m, eps_keys[ln], &v) && mfi_meta_find(m, eps_keys[!ln], &v) ? !ln
                                                                                            : ln];
    c->n_layers = mfi_meta_int(m, ".block_count", MFI_REQUIRED, 1, TRANSFORMER_MAX_LAYERS);
    c->dim = c->embedding_dim = mfi_meta_int(m, ".embedding_length", MFI_REQUIRED, 1, MFI_MAX_DIM);
    c->context = mfi_meta_int(m, ".context_length", MFI_REQUIRED, 1, MFI_MAX_CONTEXT);
    c->n_heads =
        mfi_meta_layers(m, ".attention.head_count", MFI_REQUIRED, c->layers, &c->layers[0].n_heads);
    c->n_kv_heads = mfi_meta_layers(m, ".attention.head_count_kv", c->n_heads, c->layers,
                                    &c->layers[0].n_kv_heads);
    c->mlp_dim =
        mfi_meta_layers(m, ".feed_forward_length", MFI_REQUIRED, c->layers, &c->layers[0].mlp_dim);
    c->norm_eps = (float)mfi_meta_number(m, eps, MFI_REQUIRED, 0, 1);
    if (!mfi_meta_ok(m)) return;
    c->head_dim =
        mfi_meta_int(m, ".attention.key_length", c->dim / c->n_heads, 1, TRANSFORMER_MAX_HEAD_DIM);
    c->value_dim =
        mfi_meta_int(m, ".attention.value_length", c->head_dim, 1, TRANSFORMER_MAX_HEAD_DIM);
    if (!embedding || embedding->n_dims != 2 || embedding->dims[0] > (uint64_t)MFI_MAX_DIM)
        mfi_meta_fail(m, MFI_WEIGHTS, "tensor 'token_embd.weight'", "is missing or misshapen");
    else c->vocab_size = (int)embedding->dims[0];
    if (mfi_meta_ok(m) && (c->head_dim < 1 || c->head_dim > TRANSFORMER_MAX_HEAD_DIM))
        mfi_meta_fail(m, MFI_BAD, ".attention.key_length", "is missing, or out of range");
}

/* Keys of the architecture that no one has asked for: harmless, harmless with one value, or an
 * error, since they may change what the model computes. */
static void mfi_gguf_leftover(mfi_meta *m) {
    static const struct {
        const char *key;
        int value; /* -1 = any */
    } harmless[] = {{".vocab_size", -1},
                    {".tensor_data_layout", -1},
                    {".use_parallel_residual", -1},
                    {".attention.layer_norm_epsilon", -1},
                    {".attention.layer_norm_rms_epsilon", -1},
                    {".rope.scaling.finetuned", -1},
                    {".rope.scaling.original_context_length", -1},
                    {".rope.dimension_count", -1},
                    {".rope.freq_base", -1},
                    {".rope.freq_base_swa", -1},
                    {".attention.causal", 1},
                    {".attention.sliding_window", 0},
                    {".expert_count", 0},
                    {".expert_used_count", 0},
                    {".expert_group_count", 0},
                    {".nextn_predict_layers", 0},
                    {".pooling_type", 0}};
    model_file_value v;
    size_t i, k, n = strlen(m->arch);
    for (i = 0; i < m->mf->keys.n && mfi_meta_ok(m); i++) {
        int64_t value = -1;
        if (m->mf->keys.used[i]) continue;
        mfi_value_at(&m->mf->files[0], m->mf->keys.at[i], &v);
        if (v.key.length <= n || memcmp(v.key.text, m->arch, n) != 0 || v.key.text[n] != '.')
            continue;
        for (k = 0; k < sizeof harmless / sizeof *harmless; k++)
            if (v.key.length - n == strlen(harmless[k].key) &&
                memcmp(v.key.text + n, harmless[k].key, v.key.length - n) == 0 &&
                (harmless[k].value < 0 ||
                 (v.type != MODEL_FILE_ARRAY && model_file_int(&v, 0, &value) &&
                  value == harmless[k].value)))
                break;
        if (k == sizeof harmless / sizeof *harmless)
            mfi_fail(m->error, MFI_UNSUPPORTED, "%s: metadata key%s %s is not supported", m->file,
                     mfi_quote(v.key).text, value >= 0 ? "with this value" : "");
    }
}

/* Metadata to transformer_config, as mfi_configure does it. */
static int mfi_gguf_configure(mfi_meta *m, mfi_reader *settle) {
    transformer_config *c = &m->mf->config;
    const mfi_gguf_arch *arch = NULL;
    const mfi_family *f = &m->mf->adapted;
    int i;
    transformer_config_defaults(c);
    if (!mfi_gguf_family(m, &arch)) return 0;
    mfi_gguf_sizes(m, f, c);
    if (!mfi_meta_ok(m)) return 0;
    c->activation = mfi_find_activation(f->act);
    mfi_apply_flags(f, c);
    if (f->flags & MFI_ROPE) mfi_gguf_rope(m, f, c, &c->rope[0]);
    if (arch->setup && mfi_meta_ok(m)) arch->setup(m, c);
    for (i = 0; i < c->n_layers && c->rope[0].dims == 0; i++) c->layers[i].rope = -1;
    mfi_gguf_leftover(m);
    memset(settle, 0, sizeof *settle);
    settle->bias_on = f->bias;
    settle->bias_any = arch->bias;
    settle->tied = -1;
    return mfi_meta_ok(m);
}

/* File 0 is open; path is NULL if it is memory. */
static int mfi_open_gguf(model_file *mf, const char *path, transformer_error *error) {
    mfi_reader settle;
    mfi_meta m;
    snprintf(mf->info.format, sizeof mf->info.format, "GGUF");
    if (!mfi_gguf_parts(mf, path, error) || !mfi_gguf_list_all(mf, error)) return 0;
    mf->keys.used = (unsigned char *)calloc(mf->keys.n + 1, 1);
    if (!mf->keys.used) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    m.mf = mf;
    m.file = mf->files[0].name;
    m.arch = mf->info.family;
    m.error = error;
    mfi_meta_word(&m, "general.architecture", mf->only_look ? "" : NULL, mf->info.family,
                  sizeof mf->info.family);
    if (!mfi_meta_ok(&m) || mf->only_look) return mfi_meta_ok(&m);
    return mfi_gguf_configure(&m, &settle) && mfi_make_room(mf, error) &&
           mfi_match_all(mf, error) && mfi_settle(mf, &settle, error) &&
           mfi_check_config(mf, m.file, error) && mfi_resolve_all(mf, error);
}

/* ==== >>llama2c =============================================================================
 *
 * Seven integers and untyped floats, in an order that depends on the version:
 *   0  no magic; vocab_size < 0 means untied; two tables of cosines and sines after final_norm
 *   1  "ak42", version, the integers, a byte for tied, zeros up to byte 256; norms first
 *   2  the same plus a group size; matrices are int8, each followed by one F32 scale per group
 * The size of the file must be exactly what the integers call for. */

enum { MFI_TABLES = -1, MFI_STOP = -2 };

static const int mfi_llama2c_order[2][13] = {
    {TRANSFORMER_EMBEDDING, TRANSFORMER_ATTN_NORM, TRANSFORMER_Q, TRANSFORMER_K, TRANSFORMER_V,
     TRANSFORMER_ATTN_OUT, TRANSFORMER_MLP_NORM, TRANSFORMER_MLP_GATE, TRANSFORMER_MLP_DOWN,
     TRANSFORMER_MLP_UP, TRANSFORMER_FINAL_NORM, MFI_TABLES, TRANSFORMER_HEAD},
    {TRANSFORMER_ATTN_NORM, TRANSFORMER_MLP_NORM, TRANSFORMER_FINAL_NORM, TRANSFORMER_EMBEDDING,
     TRANSFORMER_Q, TRANSFORMER_K, TRANSFORMER_V, TRANSFORMER_ATTN_OUT, TRANSFORMER_MLP_GATE,
     TRANSFORMER_MLP_DOWN, TRANSFORMER_MLP_UP, TRANSFORMER_HEAD, MFI_STOP}};

typedef struct mfi_llama2c {
    int version;
    uint64_t at;     /* offset of what comes next */
    uint64_t group;  /* version 2: weights per scale */
    uint64_t tables; /* version 0: floats in the two tables */
} mfi_llama2c;

static int mfi_llama2c_header(model_file *mf, mfi_llama2c *l, transformer_error *error) {
    static const char *const names[7] = {"dim",        "hidden_dim", "n_layers", "n_heads",
                                         "n_kv_heads", "vocab_size", "seq_len"};
    static const int most[7] = {MFI_MAX_DIM, MFI_MAX_DIM, TRANSFORMER_MAX_LAYERS, MFI_MAX_DIM,
                                MFI_MAX_DIM, MFI_MAX_DIM, MFI_MAX_CONTEXT};
    const mfi_file *file = &mf->files[0];
    transformer_config *c = &mf->config;
    int n[7], i;
    const unsigned char *p = file->data;
    memset(l, 0, sizeof *l);
    if (file->size >= 8 && mfi_u32(p) == 0x616b3432u) {
        if (mfi_u32(p + 4) != 1 && mfi_u32(p + 4) != 2)
            return mfi_fail(error, MFI_UNSUPPORTED, "%s: llama2.c version %lu is not supported",
                            file->name, (unsigned long)mfi_u32(p + 4));
        l->version = (int)mfi_u32(p + 4);
        p += 8;
    }
    if (file->size < (l->version ? 256u : 28u))
        return mfi_fail(error, MFI_WEIGHTS, "%s: too short for any model file", file->name);
    transformer_config_defaults(c);
    for (i = 0; i < 7; i++) {
        uint32_t v = mfi_u32(p + 4 * i);
        if (i == 5 && l->version == 0) {
            c->tied = v < 0x80000000u;
            v = c->tied ? v : 0u - v;
        }
        if (v < 1 || v > (uint32_t)most[i])
            return mfi_fail(error, MFI_WEIGHTS,
                            "%s: not a model file, or a damaged llama2.c one (%s is %lu)",
                            file->name, names[i], (unsigned long)v);
        n[i] = (int)v;
    }
    if (n[0] % n[3] != 0 || n[3] % n[4] != 0 || n[0] / n[3] > TRANSFORMER_MAX_HEAD_DIM)
        return mfi_fail(error, MFI_WEIGHTS, "%s: dim %d, n_heads %d, n_kv_heads %d do not fit",
                        file->name, n[0], n[3], n[4]);
    c->dim = c->embedding_dim = n[0];
    c->mlp_dim = n[1];
    c->n_layers = n[2];
    c->n_heads = n[3];
    c->n_kv_heads = n[4];
    c->vocab_size = n[5];
    c->context = n[6];
    c->head_dim = n[0] / n[3];
    c->norm_eps = 1e-5f;
    c->rope[0].dims = c->head_dim;
    c->rope[0].pairing = TRANSFORMER_ROPE_INTERLEAVED;
    l->at = l->version ? 256 : 28;
    l->tables = (uint64_t)n[6] * (uint64_t)c->head_dim; /* seq_len * head_dim / 2, twice */
    if (l->version) c->tied = p[28] != 0;
    l->group = l->version == 2 ? mfi_u32(p + 29) : 0;
    if (l->version && p[28] > 1)
        return mfi_fail(error, MFI_WEIGHTS, "%s: the byte for a shared classifier is %d",
                        file->name, p[28]);
    if (l->version == 2 && (l->group < 1 || l->group > MFI_MAX_DIM))
        return mfi_fail(error, MFI_WEIGHTS, "%s: group size %lu", file->name,
                        (unsigned long)l->group);
    return 1;
}

/* The tables hold cos and sin of position * theta^(-2i / head_dim) and are not used; but if they
 * were made with another theta, the model is not what we would run. */
static int mfi_llama2c_tables(const model_file *mf, const mfi_llama2c *l,
                              transformer_error *error) {
    const transformer_config *c = &mf->config;
    int i, half = c->head_dim / 2;
    for (i = 0; i < half && c->context > 1; i++) {
        double angle = pow(1e4, -2.0 * i / c->head_dim);
        float have;
        memcpy(&have, mf->files[0].data + l->at + 4 * ((uint64_t)half + (uint64_t)i), 4);
        if (!(fabs((double)have - cos(angle)) < 1e-3))
            return mfi_fail(error, MFI_UNSUPPORTED, "%s: its RoPE table is not that of theta 10000",
                            mf->files[0].name);
    }
    return 1;
}

/* One tensor at l->at, in place or dequantised; the size of the file is known to be right. */
static int mfi_llama2c_tensor(model_file *mf, mfi_llama2c *l, int role, transformer_tensor *out,
                              transformer_error *error) {
    const unsigned char *data = mf->files[0].data + (size_t)l->at, *scales;
    size_t n = (size_t)out->rows * (size_t)out->cols, i, group = (size_t)l->group;
    float *copy, scale = 0;
    out->dtype = TRANSFORMER_F32;
    if (l->version < 2 || !mfi_is_matrix(role)) {
        l->at += (uint64_t)n * 4;
        out->data = data;
        if ((uintptr_t)data % 4 == 0) return 1;
        if ((copy = (float *)mfi_own(mf, n * 4, error)) == NULL) return 0;
        out->data = memcpy(copy, data, n * 4);
        return 1;
    }
    if (n > SIZE_MAX / 8 || (copy = (float *)mfi_own(mf, n * 4, error)) == NULL)
        return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    scales = data + n;
    for (i = 0; i < n; i++) {
        if (i % group == 0) memcpy(&scale, scales + i / group * 4, 4);
        copy[i] = (float)(data[i] < 128 ? data[i] : data[i] - 256) * scale;
    }
    out->data = copy;
    l->at += (uint64_t)n + (uint64_t)(n / group) * 4;
    return 1;
}

/* Walks through the file's tensors: with `bind` 0 to learn its size, with 1 to bind them. */
static int mfi_llama2c_walk(model_file *mf, mfi_llama2c *l, int bind, transformer_error *error) {
    const int *order = mfi_llama2c_order[l->version > 0];
    int i, layer;
    for (i = 0; i < 13 && order[i] != MFI_STOP; i++) {
        int role = order[i], layers = role >= 0 && mfi_per_layer(role) ? mf->config.n_layers : 1;
        if (role == MFI_TABLES) {
            if (bind && !mfi_llama2c_tables(mf, l, error)) return 0;
            l->at += l->tables * 4;
            continue;
        }
        for (layer = 0; layer < layers; layer++) {
            transformer_tensor t, *out = &mf->tensors[layer * TRANSFORMER_N_ROLES + role];
            uint64_t n;
            memset(&t, 0, sizeof t);
            if (!transformer_tensor_shape(&mf->config, role, layer, &t.rows, &t.cols)) continue;
            if (bind) {
                if (!mfi_llama2c_tensor(mf, l, role, &t, error)) return 0;
                *out = t;
                mf->info.n_tensors++;
                continue;
            }
            n = (uint64_t)t.rows * (uint64_t)t.cols; /* below 2^54; all of them below 2^63 */
            if (l->version == 2 && mfi_is_matrix(role) && n % l->group != 0)
                return mfi_fail(error, MFI_WEIGHTS, "%s: %s is not a multiple of group size %lu",
                                mf->files[0].name, transformer_role_name(role),
                                (unsigned long)l->group);
            l->at += l->version == 2 && mfi_is_matrix(role) ? n + n / l->group * 4 : n * 4;
        }
    }
    return 1;
}

static int mfi_open_llama2c(model_file *mf, transformer_error *error) {
    mfi_llama2c l;
    uint64_t start;
    const mfi_file *file = &mf->files[0];
    snprintf(mf->info.format, sizeof mf->info.format, "llama2.c");
    snprintf(mf->info.family, sizeof mf->info.family, "llama2.c");
    if (!mfi_llama2c_header(mf, &l, error) || !mfi_check_config(mf, file->name, error) ||
        !mfi_make_room(mf, error))
        return 0;
    start = l.at;
    if (!mfi_llama2c_walk(mf, &l, 0, error)) return 0;
    if (l.at != file->size)
        return mfi_fail(
            error, MFI_WEIGHTS,
            "%s: llama2.c version %d: the header calls for %llu bytes, the file has %llu",
            file->name, l.version, (unsigned long long)l.at, (unsigned long long)file->size);
    l.at = start;
    mf->info.dequantized = l.version == 2;
    return mfi_llama2c_walk(mf, &l, 1, error);
}

/* ==== >>open ================================================================================ */

enum { MFI_MAX_CONFIG = 1 << 20, MFI_MAX_INDEX = 1 << 24 }; /* bytes */

/* The text of a file that is one object, checked; at most `most` bytes. */
static int mfi_check_json(const mfi_file *file, size_t most, mfi_span *text,
                          transformer_error *error) {
    const char *why, *at = NULL;
    text->p = (const char *)file->data;
    text->end = text->p + file->size;
    if (file->size > most)
        return mfi_fail(error, MFI_BAD, "%s: larger than %lu bytes", file->name,
                        (unsigned long)most);
    if ((why = mfi_json_check(*text, &at)) != NULL)
        return mfi_fail(error, MFI_BAD, "%s: %s at byte %lu", file->name, why,
                        (unsigned long)(at - text->p));
    text->p = mfi_json_gap(text->p);
    return *text->p == '{' || mfi_fail(error, MFI_BAD, "%s: '{' is expected", file->name);
}

static int mfi_open_json(const char *directory, const char *name, size_t most, mfi_file *file,
                         mfi_span *text, transformer_error *error) {
    char *path = mfi_join(directory, name, strlen(name));
    int ok = path && mfi_file_open(path, file, error);
    free(path);
    if (!ok) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    if (mfi_check_json(file, most, text, error)) return 1;
    mfi_file_close(file);
    return 0;
}

static const char mfi_index_name[] = "model.safetensors.index.json";

/* Opens the shard that an entry of the index names, if it is a new one; returns its number. */
static int mfi_open_shard(model_file *mf, const char *directory, mfi_span name,
                          transformer_error *error) {
    size_t n = (size_t)(name.end - name.p);
    int i;
    if (n < 3 || n > 60 || *name.p != '"' || memchr(name.p, '/', n) || memchr(name.p, '\\', n) ||
        name.p[1] == '.' || !mfi_ends(name.p, n, ".safetensors\""))
        return mfi_fail(error, MFI_WEIGHTS, "%s: %.*s is not the name of a file here",
                        mfi_index_name, mfi_show(name), name.p) -
               1;
    for (i = mf->n_files - 1; i >= 0; i--)
        if (strlen(mf->files[i].name) == n - 2 && memcmp(mf->files[i].name, name.p + 1, n - 2) == 0)
            return i;
    if (mf->n_files >= 1024)
        return mfi_fail(error, MFI_WEIGHTS, "%s: more than 1024 files", mfi_index_name) - 1;
    if (!mfi_open_file(mf, directory, name.p + 1, n - 2, error) ||
        !mfi_safetensors(mf, mf->n_files - 1, error))
        return -1;
    return mf->n_files - 1;
}

/* All shards, and then: each tensor is where the index says, and in the index. */
static int mfi_open_index(model_file *mf, const char *directory, mfi_span index,
                          transformer_error *error) {
    mfi_span map, key, value;
    const char *at;
    size_t n = 0;
    if (mfi_json_get(index, "weight_map", 10, &map) != 1 || *map.p != '{')
        return mfi_fail(error, MFI_WEIGHTS, "%s: weight_map is missing", mfi_index_name);
    for (at = map.p; mfi_json_next(&at, &key, &value); n++)
        if (mfi_open_shard(mf, directory, value, error) < 0) return 0;
    if (n == 0) return mfi_fail(error, MFI_WEIGHTS, "%s: weight_map is empty", mfi_index_name);
    if (!mfi_sort(mf, error)) return 0;
    for (at = map.p; mfi_json_next(&at, &key, &value);) {
        const mfi_tensor *t = mfi_lookup(mf, key.p, (size_t)(key.end - key.p));
        if (!t || t->file != mfi_open_shard(mf, directory, value, error))
            return mfi_fail(error, MFI_WEIGHTS, "%s: tensor '%.*s' is not in %.*s", mfi_index_name,
                            mfi_show(key), key.p, mfi_show(value), value.p);
    }
    if (n != mf->n_found)
        return mfi_fail(error, MFI_WEIGHTS, "%s: lists %lu tensors, its files have %lu",
                        mfi_index_name, (unsigned long)n, (unsigned long)mf->n_found);
    return 1;
}

/* The weights of a directory: the file asked for, model.safetensors, or the index's.  Without a
 * directory the only file is open already. */
static int mfi_open_weights(model_file *mf, const char *directory, const char *name,
                            transformer_error *error) {
    static const char single[] = "model.safetensors";
    transformer_error first, second;
    mfi_file file;
    mfi_span text;
    int ok;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    if (name && !mfi_open_file(mf, directory, name, strlen(name), error)) return 0;
    if (name || !directory || mfi_open_file(mf, directory, single, sizeof single - 1, &first))
        return mfi_safetensors(mf, 0, error) && mfi_sort(mf, error);
    memset(&file, 0, sizeof file);
    if (first.status != TRANSFORMER_ARGUMENT) {
        *error = first;
        return 0;
    }
    if (!mfi_open_json(directory, mfi_index_name, MFI_MAX_INDEX, &file, &text, &second)) {
        *error = second.status == TRANSFORMER_ARGUMENT ? first : second;
        return 0;
    }
    ok = mfi_open_index(mf, directory, text, error);
    mfi_file_close(&file);
    return ok;
}

static const mfi_family *mfi_find_family(mfi_reader *r, model_file *mf) {
    const char *type = mf->info.family;
    size_t i;
    mfi_string(r, "model_type", NULL, mf->info.family, sizeof mf->info.family);
    if (strcmp(type, "gemma3") == 0) { /* with a vision part, which is left out */
        mfi_reader text = mfi_inside(r, "text_config", "text_config.");
        if (!text.object.p) mfi_missing(r, "text_config");
        r->object = text.object;
        r->prefix = text.prefix;
        type = "gemma3_text";
    }
    for (i = 0; i < sizeof mfi_families / sizeof *mfi_families; i++)
        if (strcmp(type, mfi_families[i].type) == 0) return &mfi_families[i];
    mfi_fail(r->error, MFI_UNSUPPORTED, "%s: model_type '%s' is not supported", r->file, type);
    return NULL;
}

/* A model of config.json, whose text this is, with its weights. */
static int mfi_open_configured(model_file *mf, const char *directory, const char *name,
                               mfi_span text, int rope_length, transformer_error *error) {
    mfi_reader r;
    if (!mfi_list_members(mf, text, error)) return 0;
    memset(&r, 0, sizeof r);
    r.object = text;
    r.file = "config.json";
    r.prefix = "";
    r.error = error;
    r.rope_length = rope_length;
    r.tied = mfi_has(&r, "tie_word_embeddings") ? mfi_bool(&r, "tie_word_embeddings", 0) : -1;
    snprintf(mf->info.format, sizeof mf->info.format, "safetensors");
    if (mf->only_look) {
        mfi_string(&r, "model_type", "", mf->info.family, sizeof mf->info.family);
        return mfi_ok(&r) && mfi_open_weights(mf, directory, name, error);
    }
    mfi_absent(&r, "quantization_config");
    mf->family = mfi_find_family(&r, mf);
    if (!mf->family || !mfi_ok(&r)) return 0;
    if (mfi_has(&r, "tie_word_embeddings")) /* text_config's, if there is one */
        r.tied = mfi_bool(&r, "tie_word_embeddings", 0);
    mfi_configure(&r, mf->family, &mf->config);
    return mfi_ok(&r) && mfi_open_weights(mf, directory, name, error) && mfi_make_room(mf, error) &&
           mfi_match_all(mf, error) && mfi_settle(mf, &r, error) &&
           mfi_check_config(mf, "config.json", error) && mfi_resolve_all(mf, error);
}

/* Is this the name of a file in the directory rather than of the directory? */
static int mfi_names_file(const char *path) {
    size_t n = strlen(path);
    return mfi_ends(path, n, ".safetensors") || mfi_ends(path, n, "config.json") ||
           mfi_ends(path, n, ".index.json");
}

/* What is no directory: the first file is open. */
static int mfi_open_single(model_file *mf, const char *path, transformer_error *error) {
    const mfi_file *file = &mf->files[0];
    if (file->size >= 4 && memcmp(file->data, "GGUF", 4) == 0)
        return mfi_open_gguf(mf, path, error);
    return mfi_open_llama2c(mf, error);
}

typedef struct mfi_source { /* a path, or memory */
    const char *path;
    const void *data, *config; /* config: for safetensors */
    size_t size, config_size;
} mfi_source;

/* An open file that is the caller's memory. */
static mfi_file mfi_borrow(const void *data, size_t size, const char *name) {
    mfi_file file;
    memset(&file, 0, sizeof file);
    file.data = (unsigned char *)(uintptr_t)data; /* only ever read */
    file.size = size;
    file.borrowed = 1;
    snprintf(file.name, sizeof file.name, "%s", name);
    return file;
}

static int mfi_open_memory(model_file *mf, const mfi_source *source, int rope_length,
                           transformer_error *error) {
    mfi_span text;
    mf->files = (mfi_file *)calloc(1, sizeof *mf->files);
    if (!mf->files) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    mf->n_files = 1;
    mf->files[0] = mfi_borrow(source->data, source->size, "memory");
    if (!source->config) return mfi_open_single(mf, NULL, error);
    mf->json = mfi_borrow(source->config, source->config_size, "config.json");
    return mfi_check_json(&mf->json, MFI_MAX_CONFIG, &text, error) &&
           mfi_open_configured(mf, NULL, NULL, text, rope_length, error);
}

static int mfi_open_path(model_file *mf, const char *path, int rope_length,
                         transformer_error *error) {
    transformer_error first;
    mfi_span text;
    const char *name = NULL;
    char *directory;
    int ok;
    memset(&first, 0, sizeof first);
    directory = mfi_join(path, "", 0);
    if (!directory) return mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
    if (mfi_names_file(path)) {
        directory[mfi_base_name(path) - path] = 0;
        name = mfi_ends(path, strlen(path), ".safetensors") ? mfi_base_name(path) : NULL;
    }
    ok = mfi_open_json(directory, "config.json", MFI_MAX_CONFIG, &mf->json, &text, &first);
    if (ok) {
        ok = mfi_open_configured(mf, directory, name, text, rope_length, error);
    } else if (mf->only_look && name && first.status == TRANSFORMER_ARGUMENT) {
        snprintf(mf->info.format, sizeof mf->info.format, "safetensors");
        ok = mfi_open_weights(mf, directory, name, error);
    } else if (first.status != TRANSFORMER_ARGUMENT || mfi_names_file(path)) {
        *error = first;
    } else if (mfi_open_file(mf, "", path, strlen(path), error)) {
        ok = mfi_open_single(mf, path, error);
    } else if (error->status == TRANSFORMER_ARGUMENT) {
        error->status = TRANSFORMER_OK;
        mfi_fail(error, TRANSFORMER_ARGUMENT,
                 "%.160s: neither a directory with config.json nor a file that can be read", path);
    }
    free(directory);
    return ok;
}

static model_file *mfi_open(const mfi_source *source, const model_file_options *options,
                            transformer_error *error) {
    static const uint16_t one = 1;
    model_file *mf;
    int i, ok, rope_length = options ? options->rope_length : 0;
    if (rope_length < 0) {
        mfi_fail(error, TRANSFORMER_ARGUMENT, "options.rope_length is negative");
        return NULL;
    }
    if (*(const unsigned char *)&one != 1) {
        mfi_fail(error, MFI_UNSUPPORTED, "model files are little-endian; this machine is not");
        return NULL;
    }
    mf = (model_file *)calloc(1, sizeof *mf);
    if (!mf) {
        mfi_fail(error, TRANSFORMER_MEMORY, "not enough memory");
        return NULL;
    }
    mf->only_look = options && options->only_look;
    ok = source->path ? mfi_open_path(mf, source->path, rope_length, error)
                      : mfi_open_memory(mf, source, rope_length, error);
    free(mf->slots);
    free(mf->keys.used);
    mf->slots = NULL;
    mf->keys.used = NULL;
    mf->info.n_stored = mf->n_found;
    mf->info.n_metadata = mf->keys.n;
    mf->info.n_files = mf->n_files;
    for (i = 0; i < mf->n_files; i++) {
        mf->info.file_bytes += mf->files[i].size;
        mf->info.mapped = mf->files[i].mapped;
    }
    if (ok) return mf;
    model_file_close(mf);
    return NULL;
}

/* NULL with an error that names the argument, unless `what` is NULL. */
static model_file *mfi_open_checked(const mfi_source *source, const char *what,
                                    const model_file_options *options, transformer_error *error) {
    transformer_error ignored, *e = error ? error : &ignored;
    memset(e, 0, sizeof *e);
    if (!what) return mfi_open(source, options, e);
    mfi_fail(e, TRANSFORMER_ARGUMENT, "%s", what);
    return NULL;
}

MODEL_FILE_API model_file *model_file_open(const char *path, const model_file_options *options,
                                           transformer_error *error) {
    mfi_source source = {NULL, NULL, NULL, 0, 0};
    source.path = path;
    return mfi_open_checked(&source, path ? NULL : "path is NULL", options, error);
}

MODEL_FILE_API model_file *model_file_open_memory(const void *data, size_t size,
                                                  const model_file_options *options,
                                                  transformer_error *error) {
    return model_file_open_safetensors(NULL, 0, data, size, options, error);
}

MODEL_FILE_API model_file *model_file_open_safetensors(const void *config, size_t config_size,
                                                       const void *data, size_t size,
                                                       const model_file_options *options,
                                                       transformer_error *error) {
    mfi_source source = {NULL, NULL, NULL, 0, 0};
    source.data = data;
    source.size = size;
    source.config = config;
    source.config_size = config_size;
    return mfi_open_checked(&source,
                            !data       ? "data is NULL"
                            : size == 0 ? "size is 0"
                                        : NULL,
                            options, error);
}

MODEL_FILE_API void model_file_close(model_file *file) {
    if (!file) return;
    while (file->blocks) {
        mfi_block *block = file->blocks;
        file->blocks = block->next;
        free(block);
    }
    while (file->n_files > 0) mfi_file_close(&file->files[--file->n_files]);
    mfi_file_close(&file->json);
    free(file->files);
    free(file->tensors);
    free(file->found);
    free(file->keys.at);
    free(file);
}

MODEL_FILE_API const transformer_config *model_file_config(const model_file *file) {
    return file ? &file->config : NULL;
}

MODEL_FILE_API const model_file_info *model_file_get_info(const model_file *file) {
    return file ? &file->info : NULL;
}

MODEL_FILE_API const transformer_tensor *model_file_tensor(const model_file *file, int role,
                                                           int layer) {
    const transformer_tensor *t;
    if (!file || !file->tensors || role < 0 || role >= TRANSFORMER_N_ROLES || layer < 0 ||
        layer >= file->config.n_layers)
        return NULL;
    t = &file->tensors[layer * TRANSFORMER_N_ROLES + role];
    return t->data ? t : NULL;
}

static void mfi_fail_argument(transformer_error *error, const char *text) {
    transformer_error ignored, *e = error ? error : &ignored;
    memset(e, 0, sizeof *e);
    mfi_fail(e, TRANSFORMER_ARGUMENT, "%s", text);
}

static int mfi_can_bind(const model_file *file, transformer_error *error) {
    if (file && !file->only_look) return 1;
    mfi_fail_argument(error, file ? "the file was opened with only_look" : "file is NULL");
    return 0;
}

MODEL_FILE_API transformer_status model_file_bind(const model_file *file, transformer_model *model,
                                                  transformer_error *error) {
    int role, layer;
    if (!mfi_can_bind(file, error)) return TRANSFORMER_ARGUMENT;
    if (!model) {
        mfi_fail_argument(error, "model is NULL");
        return TRANSFORMER_ARGUMENT;
    }
    for (layer = 0; layer < file->config.n_layers; layer++)
        for (role = 0; role < TRANSFORMER_N_ROLES; role++) {
            const transformer_tensor *t = model_file_tensor(file, role, layer);
            transformer_status status =
                t ? transformer_bind(model, role, layer, t, error) : TRANSFORMER_OK;
            if (status != TRANSFORMER_OK) return status;
        }
    return transformer_model_ready(model, error);
}

#ifndef TRANSFORMER_NO_MALLOC
MODEL_FILE_API transformer_model *model_file_model(const model_file *file,
                                                   const transformer_options *options,
                                                   transformer_error *error) {
    if (!file || !mfi_can_bind(file, error)) return NULL;
    transformer_model *model = transformer_model_new(&file->config, options, error);
    if (!model || model_file_bind(file, model, error) == TRANSFORMER_OK) return model;
    transformer_free(model);
    return NULL;
}
#endif

MODEL_FILE_API int model_file_stored(const model_file *file, size_t i,
                                     model_file_stored_tensor *tensor) {
    const mfi_tensor *t;
    if (!file || !tensor || i >= file->n_found) return 0;
    t = &file->found[i];
    memset(tensor, 0, sizeof *tensor);
    tensor->name.text = t->name;
    tensor->name.length = t->name_length;
    tensor->type = mfi_types[t->type].name;
    tensor->dtype = mfi_types[t->type].dtype;
    tensor->gguf_type = t->gguf;
    tensor->n_dims = t->n_dims;
    memcpy(tensor->dims, t->dims, sizeof tensor->dims);
    tensor->data = t->data;
    tensor->bytes = t->bytes;
    return 1;
}

#ifdef __cplusplus
}
#endif
#endif /* MODEL_FILE_IMPLEMENTATION */
