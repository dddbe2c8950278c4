/* gguf_writer.h - writes GGUF files, version 3, a piece at a time.  Licence: MIT.
 *
 *     #define GGUF_WRITER_IMPLEMENTATION          (in exactly one .c or .cpp file)
 *     #include "gguf_writer.h"
 *
 *     gguf_writer *w = gguf_writer_new_file("model.gguf", 0);
 *     gguf_writer_text(w, "general.architecture", "llama");
 *     gguf_writer_int(w, "llama.block_count", GGUF_WRITER_U32, 2);
 *     gguf_writer_tensor(w, "token_embd.weight", 0, dims, 2, bytes);    (0 = F32; innermost first)
 *     ...
 *     gguf_writer_begin(w);
 *     gguf_writer_data(w, rows, size);            (all tensors' data, in the order above)
 *     ...
 *     if (gguf_writer_end(w) != GGUF_WRITER_OK) puts(gguf_writer_error(w));
 *     gguf_writer_free(w);
 *
 * C99 or C++11, libc only.  Nothing is printed or kept.  Only metadata and the list of tensors are
 * held in memory; the tensors' data passes through.
 *
 * ERRORS     The first failure is kept: everything after it returns its status and does nothing, so
 *            that one look at the end will do.
 * FILES      gguf_writer_new_file writes PATH.part, and gguf_writer_end renames it once every byte
 *            is written: there is never half a file under PATH.  A writer that is freed before, or
 *            that failed, removes PATH.part.  A PATH.part that is there already is left alone: it
 *            may be of another writer at work.  Only a GGUF file is ever replaced.
 * BYTES      Metadata is little-endian whatever the machine.  The data of tensors is written as it
 *            is given: it has to be little-endian.
 * MACROS     GGUF_WRITER_IMPLEMENTATION, GGUF_WRITER_STATIC (everything static),
 *            GGUF_WRITER_MALLOC, _REALLOC and _FREE (all three, or none).
 */
#ifndef GGUF_WRITER_H
#define GGUF_WRITER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(GGUF_WRITER_STATIC)
#if defined(__GNUC__) || defined(__clang__)
#define GGUF_WRITER_API __attribute__((unused)) static
#else
#define GGUF_WRITER_API static
#endif
#else
#define GGUF_WRITER_API extern
#endif

typedef struct gguf_writer gguf_writer;

typedef enum gguf_writer_status {
    GGUF_WRITER_OK = 0,
    GGUF_WRITER_ARGUMENT = 1, /* twice the same name, too few elements, a file that exists, ... */
    GGUF_WRITER_MEMORY = 2,
    GGUF_WRITER_WRITE = 3 /* opening, writing, closing or renaming failed */
} gguf_writer_status;

enum { /* of metadata: GGUF's numbers */
       GGUF_WRITER_U8 = 0,
       GGUF_WRITER_I8 = 1,
       GGUF_WRITER_U16 = 2,
       GGUF_WRITER_I16 = 3,
       GGUF_WRITER_U32 = 4,
       GGUF_WRITER_I32 = 5,
       GGUF_WRITER_F32 = 6,
       GGUF_WRITER_BOOL = 7,
       GGUF_WRITER_STRING = 8,
       GGUF_WRITER_ARRAY = 9,
       GGUF_WRITER_U64 = 10,
       GGUF_WRITER_I64 = 11,
       GGUF_WRITER_F64 = 12
};

/* Takes the next bytes of the file.  0 = done; anything else is a failure. */
typedef int gguf_writer_sink(void *user, const void *data, size_t size);

/* NULL = not enough memory.  overwrite: 1 = PATH may be a GGUF file. */
GGUF_WRITER_API gguf_writer *gguf_writer_new(gguf_writer_sink *sink, void *user);
GGUF_WRITER_API gguf_writer *gguf_writer_new_file(const char *path, int overwrite);
GGUF_WRITER_API void gguf_writer_free(gguf_writer *w); /* NULL is ignored */

/* What went wrong first, one line; "" = nothing. */
GGUF_WRITER_API const char *gguf_writer_error(const gguf_writer *w);

/* ---- metadata, in any order, before gguf_writer_begin ----
 *
 * A key may be there once.  After gguf_writer_array, its n elements follow as values whose key is
 * NULL and whose type is the array's. */

/* U8 .. I32, BOOL, U64 and I64; the value has to fit. */
GGUF_WRITER_API gguf_writer_status gguf_writer_int(gguf_writer *w, const char *key, int type,
                                                   int64_t value);
/* F32 or F64. */
GGUF_WRITER_API gguf_writer_status gguf_writer_float(gguf_writer *w, const char *key, int type,
                                                     double value);
GGUF_WRITER_API gguf_writer_status gguf_writer_text(gguf_writer *w, const char *key,
                                                    const char *text);
GGUF_WRITER_API gguf_writer_status gguf_writer_string(gguf_writer *w, const char *key,
                                                      const char *text, size_t size);
GGUF_WRITER_API gguf_writer_status gguf_writer_array(gguf_writer *w, const char *key, int element,
                                                     uint64_t n);
/* A value as a GGUF file has it: of an array, its elements without their type and number. */
GGUF_WRITER_API gguf_writer_status gguf_writer_raw(gguf_writer *w, const char *key, size_t key_size,
                                                   int type, int element, uint64_t n,
                                                   const void *data, size_t size);

/* general.alignment: a power of two; 32 if this is not called. */
GGUF_WRITER_API gguf_writer_status gguf_writer_alignment(gguf_writer *w, uint32_t alignment);

/* ---- tensors ---- */

/* type: GGUF's number.  dims [n_dims], 1 to 4 of them, the innermost first.  bytes: of all data. */
GGUF_WRITER_API gguf_writer_status gguf_writer_tensor(gguf_writer *w, const char *name, int type,
                                                      const uint64_t *dims, int n_dims,
                                                      uint64_t bytes);

/* Writes everything in front of the data.  Then the header can be read, and *size is its own;
 * gguf_writer_size is the whole file's. */
GGUF_WRITER_API gguf_writer_status gguf_writer_begin(gguf_writer *w);
GGUF_WRITER_API const void *gguf_writer_header(const gguf_writer *w, size_t *size);
GGUF_WRITER_API uint64_t gguf_writer_size(const gguf_writer *w);

/* The next bytes of the tensor whose turn it is; no further than its end. */
GGUF_WRITER_API gguf_writer_status gguf_writer_data(gguf_writer *w, const void *data, size_t size);

/* All data is there.  A file gets its name. */
GGUF_WRITER_API gguf_writer_status gguf_writer_end(gguf_writer *w);

#ifdef __cplusplus
}
#endif
#endif /* GGUF_WRITER_H */

/* Stop here if you only want to use it.
 *
 * CONTENTS   >>buffers >>values >>tensors >>output
 */
#if defined(GGUF_WRITER_IMPLEMENTATION) && !defined(GGUF_WRITER_IMPLEMENTED)
#define GGUF_WRITER_IMPLEMENTED

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef GGUF_WRITER_MALLOC
#define GGUF_WRITER_MALLOC malloc
#define GGUF_WRITER_REALLOC realloc
#define GGUF_WRITER_FREE free
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>buffers ============================================================================= */

typedef struct gwi_buffer {
    unsigned char *data;
    size_t size, room;
} gwi_buffer;

/* Which strings are in a buffer: a hash table of where they start, plus 1. */
typedef struct gwi_names {
    size_t *slots;
    size_t n, room;
} gwi_names;

enum { GWI_METADATA, GWI_DATA, GWI_ENDED };

struct gguf_writer {
    gguf_writer_status status;
    char error[256];
    gguf_writer_sink *sink;
    void *user;
    FILE *file;        /* of gguf_writer_new_file; NULL once it is closed */
    char *path, *part; /* one allocation */
    int stage;         /* GWI_METADATA ... */
    gwi_buffer keys, tensors, sizes;
    gwi_names key_names, tensor_names;
    uint64_t n_keys, n_tensors;
    uint64_t alignment, total; /* total: bytes of data, with padding */
    uint64_t elements;         /* of an array, still to come */
    int element;               /* their type */
    uint64_t turn, left;       /* which tensor's data comes next, and how much */
    size_t header;             /* bytes; in `keys` once it is written */
};

/* Keeps the first failure. */
#if defined(__GNUC__) || defined(__clang__)
__attribute__((format(printf, 3, 4)))
#endif
static gguf_writer_status
gwi_fail(gguf_writer *w, gguf_writer_status status, const char *format, ...) {
    va_list args;
    char *p;
    if (w->status != GGUF_WRITER_OK) return w->status;
    w->status = status;
    va_start(args, format);
    vsnprintf(w->error, sizeof w->error, format, args);
    va_end(args);
    for (p = w->error; *p; p++) /* names may come from files */
        if ((unsigned char)*p < 32 || *p == 127) *p = '?';
    return status;
}

static int gwi_grow(gguf_writer *w, gwi_buffer *b, size_t size) {
    size_t room = b->room ? b->room : 1024;
    unsigned char *more;
    if (size <= b->room - b->size) return 1;
    while (room - b->size < size && room <= SIZE_MAX / 2) room *= 2;
    more = room - b->size < size ? NULL : (unsigned char *)GGUF_WRITER_REALLOC(b->data, room);
    if (!more) {
        gwi_fail(w, GGUF_WRITER_MEMORY, "not enough memory");
        return 0;
    }
    b->data = more;
    b->room = room;
    return 1;
}

static void gwi_put(gguf_writer *w, gwi_buffer *b, const void *data, size_t size) {
    if (size == 0 || w->status != GGUF_WRITER_OK || !gwi_grow(w, b, size)) return;
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

/* The low `bytes` bytes of v, the lowest first. */
static void gwi_put_int(gguf_writer *w, gwi_buffer *b, uint64_t v, int bytes) {
    unsigned char out[8];
    int i;
    for (i = 0; i < bytes; i++) out[i] = (unsigned char)(v >> (8 * i));
    gwi_put(w, b, out, (size_t)bytes);
}

static void gwi_put_string(gguf_writer *w, gwi_buffer *b, const char *text, size_t size) {
    gwi_put_int(w, b, size, 8);
    gwi_put(w, b, text, size);
}

static uint64_t gwi_get_int(const unsigned char *p, int bytes) {
    uint64_t v = 0;
    while (bytes-- > 0) v = v << 8 | p[bytes];
    return v;
}

/* The slot of that string, or the empty one where it belongs. */
static size_t *gwi_slot(const gwi_names *names, const gwi_buffer *b, const char *text,
                        size_t size) {
    uint32_t hash = 2166136261u;
    size_t i, at;
    for (i = 0; i < size; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    for (at = hash % names->room; names->slots[at]; at = (at + 1) % names->room) {
        const unsigned char *p = b->data + names->slots[at] - 1;
        if (gwi_get_int(p, 8) == size && memcmp(p + 8, text, size) == 0) break;
    }
    return &names->slots[at];
}

/* Notes the string that is about to be put at the end of b.  0 if it is there already. */
static int gwi_note(gguf_writer *w, gwi_names *names, const gwi_buffer *b, const char *text,
                    size_t size) {
    size_t *slot;
    if (names->n >= names->room / 2) {
        gwi_names larger = {NULL, names->n, names->room ? names->room * 2 : 64};
        size_t i, bytes = larger.room * sizeof *slot;
        if (larger.room <= SIZE_MAX / 4 / sizeof *slot)
            larger.slots = (size_t *)GGUF_WRITER_MALLOC(bytes);
        if (!larger.slots) {
            gwi_fail(w, GGUF_WRITER_MEMORY, "not enough memory");
            return 0;
        }
        memset(larger.slots, 0, bytes);
        for (i = 0; i < names->room; i++) {
            const unsigned char *p = b->data + names->slots[i] - 1;
            if (names->slots[i])
                *gwi_slot(&larger, b, (const char *)p + 8, (size_t)gwi_get_int(p, 8)) =
                    names->slots[i];
        }
        GGUF_WRITER_FREE(names->slots);
        *names = larger;
    }
    slot = gwi_slot(names, b, text, size);
    if (*slot) return 0;
    *slot = b->size + 1;
    names->n++;
    return 1;
}

/* ==== >>values ============================================================================== */

/* Bytes of a scalar; 0 for strings, arrays and what does not exist. */
static int gwi_scalar_bytes(int type) {
    static const unsigned char bytes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type >= 0 && type < 13 ? bytes[type] : 0;
}

static int gwi_show(size_t size) { return size > 80 ? 80 : (int)size; }

/* May a value of this type be put now?  Puts its key and type, or counts an element. */
static int gwi_open(gguf_writer *w, const char *key, size_t key_size, int type) {
    if (!w || w->status != GGUF_WRITER_OK) return 0;
    if (w->stage != GWI_METADATA) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "metadata after gguf_writer_begin");
    } else if (!key && (w->elements == 0 || type != w->element)) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "an element of type %d %s", type,
                 w->elements == 0 ? "without an array" : "in an array of another type");
    } else if (!key) {
        w->elements--;
        return 1;
    } else if (w->elements > 0) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "key '%.*s' before an array's last %llu elements",
                 gwi_show(key_size), key, (unsigned long long)w->elements);
    } else if (key_size < 1 || key_size > 65535) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "a key that is not 1 to 65535 bytes long");
    } else if (!gwi_note(w, &w->key_names, &w->keys, key, key_size)) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "key '%.*s' is there twice", gwi_show(key_size), key);
    } else {
        gwi_put_string(w, &w->keys, key, key_size);
        gwi_put_int(w, &w->keys, (uint64_t)type, 4);
        w->n_keys++;
        return 1;
    }
    return 0;
}

static size_t gwi_length(const char *text) { return text ? strlen(text) : 0; }

static gguf_writer_status gwi_status(const gguf_writer *w) {
    return w ? w->status : GGUF_WRITER_ARGUMENT;
}

static int gwi_fits(int type, int64_t v) {
    int bits = 8 * gwi_scalar_bytes(type);
    switch (type) {
    case GGUF_WRITER_BOOL: return v == 0 || v == 1;
    case GGUF_WRITER_U8:
    case GGUF_WRITER_U16:
    case GGUF_WRITER_U32: return v >= 0 && v < (int64_t)1 << bits;
    case GGUF_WRITER_I8:
    case GGUF_WRITER_I16:
    case GGUF_WRITER_I32: return v >= -((int64_t)1 << (bits - 1)) && v < (int64_t)1 << (bits - 1);
    case GGUF_WRITER_U64: return v >= 0;
    case GGUF_WRITER_I64: return 1;
    default: return 0;
    }
}

GGUF_WRITER_API gguf_writer_status gguf_writer_int(gguf_writer *w, const char *key, int type,
                                                   int64_t value) {
    if (!w) return GGUF_WRITER_ARGUMENT;
    if (!gwi_fits(type, value))
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "%s%lld is no value of type %d", key ? key : "",
                        (long long)value, type);
    if (gwi_open(w, key, gwi_length(key), type))
        gwi_put_int(w, &w->keys, (uint64_t)value, gwi_scalar_bytes(type));
    return w->status;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_float(gguf_writer *w, const char *key, int type,
                                                     double value) {
    float single = (float)value;
    uint32_t bits32;
    uint64_t bits64;
    if (!w) return GGUF_WRITER_ARGUMENT;
    memcpy(&bits32, &single, 4);
    memcpy(&bits64, &value, 8);
    if (type != GGUF_WRITER_F32 && type != GGUF_WRITER_F64)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "a number of type %d", type);
    if (gwi_open(w, key, gwi_length(key), type))
        gwi_put_int(w, &w->keys, type == GGUF_WRITER_F32 ? bits32 : bits64, gwi_scalar_bytes(type));
    return w->status;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_string(gguf_writer *w, const char *key,
                                                      const char *text, size_t size) {
    if (gwi_open(w, key, gwi_length(key), GGUF_WRITER_STRING))
        gwi_put_string(w, &w->keys, text, size);
    return gwi_status(w);
}

GGUF_WRITER_API gguf_writer_status gguf_writer_text(gguf_writer *w, const char *key,
                                                    const char *text) {
    return gguf_writer_string(w, key, text, gwi_length(text));
}

GGUF_WRITER_API gguf_writer_status gguf_writer_array(gguf_writer *w, const char *key, int element,
                                                     uint64_t n) {
    if (!w) return GGUF_WRITER_ARGUMENT;
    if (!key || (!gwi_scalar_bytes(element) && element != GGUF_WRITER_STRING))
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "an array of type %d, or without a key", element);
    if (gwi_open(w, key, strlen(key), GGUF_WRITER_ARRAY)) {
        gwi_put_int(w, &w->keys, (uint64_t)element, 4);
        gwi_put_int(w, &w->keys, n, 8);
        w->element = element;
        w->elements = n;
    }
    return w->status;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_raw(gguf_writer *w, const char *key, size_t key_size,
                                                   int type, int element, uint64_t n,
                                                   const void *data, size_t size) {
    if (!w) return GGUF_WRITER_ARGUMENT;
    if (!key || type < 0 || type > GGUF_WRITER_F64)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "a value of type %d, or without a key", type);
    if (gwi_open(w, key, key_size, type)) {
        if (type == GGUF_WRITER_ARRAY) {
            gwi_put_int(w, &w->keys, (uint64_t)element, 4);
            gwi_put_int(w, &w->keys, n, 8);
        }
        gwi_put(w, &w->keys, data, size);
    }
    return w->status;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_alignment(gguf_writer *w, uint32_t alignment) {
    if (!w) return GGUF_WRITER_ARGUMENT;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || w->n_tensors > 0)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT,
                        "alignment %lu: not a power of two, or after the first tensor",
                        (unsigned long)alignment);
    gguf_writer_int(w, "general.alignment", GGUF_WRITER_U32, (int64_t)alignment);
    w->alignment = alignment;
    return w->status;
}

/* ==== >>tensors ============================================================================= */

static uint64_t gwi_padding(const gguf_writer *w, uint64_t at) {
    return (w->alignment - at % w->alignment) % w->alignment;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_tensor(gguf_writer *w, const char *name, int type,
                                                      const uint64_t *dims, int n_dims,
                                                      uint64_t bytes) {
    size_t size = gwi_length(name);
    int i;
    if (!w || w->status != GGUF_WRITER_OK) return gwi_status(w);
    if (w->stage != GWI_METADATA)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "a tensor after gguf_writer_begin");
    if (size < 1 || size > 64)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "tensor '%.*s': a name of 1 to 64 bytes is needed",
                        gwi_show(size), size ? name : "");
    if (type < 0 || !dims || n_dims < 1 || n_dims > 4 || bytes < 1 ||
        bytes > UINT64_MAX / 4 - w->total)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "tensor '%s': type, dimensions or bytes are wrong",
                        name);
    if (!gwi_note(w, &w->tensor_names, &w->tensors, name, size))
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "tensor '%s' is there twice", name);
    gwi_put_string(w, &w->tensors, name, size);
    gwi_put_int(w, &w->tensors, (uint64_t)n_dims, 4);
    for (i = 0; i < n_dims; i++) gwi_put_int(w, &w->tensors, dims[i], 8);
    gwi_put_int(w, &w->tensors, (uint64_t)type, 4);
    gwi_put_int(w, &w->tensors, w->total, 8);
    gwi_put_int(w, &w->sizes, bytes, 8);
    w->total += bytes;
    w->total += gwi_padding(w, w->total);
    w->n_tensors++;
    return w->status;
}

/* ==== >>output ============================================================================== */

GGUF_WRITER_API gguf_writer *gguf_writer_new(gguf_writer_sink *sink, void *user) {
    gguf_writer *w = (gguf_writer *)GGUF_WRITER_MALLOC(sizeof *w);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->sink = sink;
    w->user = user;
    w->alignment = 32;
    return w;
}

static int gwi_to_file(void *user, const void *data, size_t size) {
    return fwrite(data, 1, size, (FILE *)user) != size;
}

/* Is there something of that name, be it unreadable?  is_gguf: does it begin like a GGUF file? */
static int gwi_exists(const char *path, int *is_gguf) {
    char magic[4] = {0, 0, 0, 0};
    FILE *f;
    errno = 0;
    f = fopen(path, "rb");
    *is_gguf = f && fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (f) fclose(f);
#ifdef ENOENT
    return f != NULL || errno != ENOENT;
#else
    return f != NULL;
#endif
}

/* Creates w->part, if what is under the two names allows it. */
static void gwi_create(gguf_writer *w, int overwrite) {
    int is_gguf, exists = gwi_exists(w->path, &is_gguf);
    if (exists && !overwrite) gwi_fail(w, GGUF_WRITER_ARGUMENT, "%.200s: exists", w->path);
    else if (exists && !is_gguf)
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "%.200s: exists and is no GGUF file", w->path);
    else if (gwi_exists(w->part, &is_gguf))
        gwi_fail(w, GGUF_WRITER_ARGUMENT,
                 "%.200s: exists; unless another program is writing it, remove it", w->part);
    else if ((w->file = fopen(w->part, "wbx")) == NULL) /* x: nobody else has made it meanwhile */
        gwi_fail(w, GGUF_WRITER_WRITE, "%.200s: cannot be written", w->part);
}

GGUF_WRITER_API gguf_writer *gguf_writer_new_file(const char *path, int overwrite) {
    gguf_writer *w = gguf_writer_new(gwi_to_file, NULL);
    size_t n = gwi_length(path);
    if (!w) return NULL;
    if (n == 0) {
        gwi_fail(w, GGUF_WRITER_ARGUMENT, "the file has no name");
        return w;
    }
    w->path = n <= SIZE_MAX / 4 ? (char *)GGUF_WRITER_MALLOC(2 * n + 7) : NULL;
    if (!w->path) {
        GGUF_WRITER_FREE(w);
        return NULL;
    }
    w->part = w->path + n + 1;
    memcpy(w->path, path, n + 1);
    memcpy(w->part, path, n);
    memcpy(w->part + n, ".part", 6);
    gwi_create(w, overwrite);
    w->user = w->file;
    return w;
}

GGUF_WRITER_API void gguf_writer_free(gguf_writer *w) {
    if (!w) return;
    if (w->file) {
        fclose(w->file);
        remove(w->part);
    }
    GGUF_WRITER_FREE(w->path);
    GGUF_WRITER_FREE(w->keys.data);
    GGUF_WRITER_FREE(w->tensors.data);
    GGUF_WRITER_FREE(w->sizes.data);
    GGUF_WRITER_FREE(w->key_names.slots);
    GGUF_WRITER_FREE(w->tensor_names.slots);
    GGUF_WRITER_FREE(w);
}

GGUF_WRITER_API const char *gguf_writer_error(const gguf_writer *w) {
    return w ? w->error : "not enough memory";
}

static void gwi_write(gguf_writer *w, const void *data, size_t size) {
    if (size > 0 && w->status == GGUF_WRITER_OK && w->sink(w->user, data, size) != 0)
        gwi_fail(w, GGUF_WRITER_WRITE, "%.200s: writing failed; is the disk full?",
                 w->part ? w->part : "output");
}

static void gwi_write_padding(gguf_writer *w, uint64_t size) {
    static const unsigned char zeros[64] = {0};
    for (; size > 0 && w->status == GGUF_WRITER_OK; size -= size < 64 ? size : 64)
        gwi_write(w, zeros, (size_t)(size < 64 ? size : 64));
}

/* On to the tensor whose turn it is: left = its bytes, or 0 after the last. */
static void gwi_turn(gguf_writer *w) {
    w->left = w->turn < w->n_tensors ? gwi_get_int(w->sizes.data + 8 * (size_t)w->turn, 8) : 0;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_begin(gguf_writer *w) {
    gwi_buffer all = {NULL, 0, 0};
    size_t pad;
    if (!w || w->status != GGUF_WRITER_OK) return gwi_status(w);
    if (w->stage != GWI_METADATA || w->elements > 0)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT,
                        "gguf_writer_begin twice, or before an array's last elements");
    gwi_put(w, &all, "GGUF", 4);
    gwi_put_int(w, &all, 3, 4);
    gwi_put_int(w, &all, w->n_tensors, 8);
    gwi_put_int(w, &all, w->n_keys, 8);
    gwi_put(w, &all, w->keys.data, w->keys.size);
    gwi_put(w, &all, w->tensors.data, w->tensors.size);
    for (pad = (size_t)gwi_padding(w, all.size); pad > 0 && w->status == GGUF_WRITER_OK; pad--)
        gwi_put_int(w, &all, 0, 1);
    GGUF_WRITER_FREE(w->keys.data);
    w->keys = all;
    w->stage = GWI_DATA;
    w->header = all.size;
    gwi_turn(w);
    gwi_write(w, all.data, all.size);
    return w->status;
}

GGUF_WRITER_API const void *gguf_writer_header(const gguf_writer *w, size_t *size) {
    int there = w && w->stage != GWI_METADATA;
    *size = there ? w->header : 0;
    return there ? w->keys.data : NULL;
}

GGUF_WRITER_API uint64_t gguf_writer_size(const gguf_writer *w) {
    return w && w->stage != GWI_METADATA ? w->header + w->total : 0;
}

GGUF_WRITER_API gguf_writer_status gguf_writer_data(gguf_writer *w, const void *data, size_t size) {
    if (!w || w->status != GGUF_WRITER_OK) return gwi_status(w);
    if (w->stage != GWI_DATA || size > w->left)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "more data than tensor %llu has room for",
                        (unsigned long long)w->turn);
    gwi_write(w, data, size);
    w->left -= size;
    if (w->left > 0 || w->turn == w->n_tensors) return w->status;
    gwi_write_padding(w, gwi_padding(w, gwi_get_int(w->sizes.data + 8 * (size_t)w->turn, 8)));
    w->turn++;
    gwi_turn(w);
    return w->status;
}

/* Closes the file, which is where a full disk may show, and gives it its name. */
static void gwi_close(gguf_writer *w) {
    int bad = fflush(w->file) != 0 || ferror(w->file);
    bad |= fclose(w->file) != 0;
    w->file = NULL;
    if (bad) gwi_fail(w, GGUF_WRITER_WRITE, "%.200s: writing failed; is the disk full?", w->part);
#ifdef _WIN32
    if (!bad) remove(w->path); /* there, rename replaces nothing */
#endif
    if (!bad && rename(w->part, w->path) != 0)
        gwi_fail(w, GGUF_WRITER_WRITE, "%.200s: cannot be given its name", w->part);
    if (w->status != GGUF_WRITER_OK) remove(w->part);
}

GGUF_WRITER_API gguf_writer_status gguf_writer_end(gguf_writer *w) {
    if (!w || w->status != GGUF_WRITER_OK) return gwi_status(w);
    if (w->stage != GWI_DATA || w->turn < w->n_tensors)
        return gwi_fail(w, GGUF_WRITER_ARGUMENT, "%llu tensors have no data yet",
                        (unsigned long long)(w->n_tensors - w->turn));
    w->stage = GWI_ENDED;
    if (w->file) gwi_close(w);
    return w->status;
}

#ifdef __cplusplus
}
#endif
#endif /* GGUF_WRITER_IMPLEMENTATION */
