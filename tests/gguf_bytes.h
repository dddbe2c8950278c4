/* Writes GGUF files into w.bytes, correct ones or not: begin, keys with their values, tensors, end. */
#ifndef GGUF_BYTES_H
#define GGUF_BYTES_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    unsigned char bytes[1 << 21];
    size_t n, n_keys, n_tensors;
    size_t align;
    struct {
        char name[80];
        int n_dims, type;
        uint64_t dims[4];
        const void *data; /* NULL = zeros */
        size_t size;
    } tensors[128];
} writer;

static writer w;

static inline void put(const void *data, size_t n) {
    if (w.n + n > sizeof w.bytes) abort();
    if (data) memcpy(w.bytes + w.n, data, n);
    else memset(w.bytes + w.n, 0, n);
    w.n += n;
}

static inline void put_int(uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) w.bytes[w.n++] = (unsigned char)(v >> (8 * i));
}

static inline void put_string(const char *s) {
    put_int(strlen(s), 8);
    put(s, strlen(s));
}

static inline void key(const char *name, int type) {
    put_string(name);
    put_int((uint64_t)type, 4);
    w.n_keys++;
}

static inline void key_int(const char *name, int type, uint64_t v, int bytes) {
    key(name, type);
    put_int(v, bytes);
}

static inline void key_string(const char *name, const char *s) {
    key(name, MODEL_FILE_STRING);
    put_string(s);
}

static inline void key_float(const char *name, float f) {
    key(name, MODEL_FILE_F32);
    put(&f, 4);
}

static inline void key_array(const char *name, int element, uint64_t n) {
    key(name, MODEL_FILE_ARRAY);
    put_int((uint64_t)element, 4);
    put_int(n, 8);
}

static inline void begin(int version) {
    memset(&w, 0, sizeof w);
    w.align = 32;
    put("GGUF", 4);
    put_int((uint64_t)version, 4);
    put(NULL, 16);
}

static inline void tensor(const char *name, int type, int n_dims, const uint64_t *dims,
                          const void *data, size_t size) {
    size_t i = w.n_tensors++;
    if (i >= 128) abort();
    snprintf(w.tensors[i].name, sizeof w.tensors[i].name, "%s", name);
    w.tensors[i].type = type, w.tensors[i].n_dims = n_dims;
    memcpy(w.tensors[i].dims, dims, (size_t)n_dims * sizeof *dims);
    w.tensors[i].data = data, w.tensors[i].size = size;
}

/* Tensor infos and data.  The file is w.bytes[w.n]. */
static inline void end(void) {
    size_t offset = 0, n;
    for (size_t i = 0; i < w.n_tensors; i++) {
        put_string(w.tensors[i].name);
        put_int((uint64_t)w.tensors[i].n_dims, 4);
        for (int d = w.tensors[i].n_dims - 1; d >= 0; d--) put_int(w.tensors[i].dims[d], 8);
        put_int((uint64_t)w.tensors[i].type, 4);
        put_int(offset, 8);
        offset = (offset + w.tensors[i].size + w.align - 1) / w.align * w.align;
    }
    put(NULL, (w.align - w.n % w.align) % w.align);
    for (size_t i = 0; i < w.n_tensors; i++) {
        put(w.tensors[i].data, w.tensors[i].size);
        put(NULL, (w.align - w.n % w.align) % w.align);
    }
    n = w.n;
    w.n = 8;
    put_int(w.n_tensors, 8);
    put_int(w.n_keys, 8);
    w.n = n;
}
#endif
