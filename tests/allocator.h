/* An allocator for the code under test: it counts, and the allocation with the number fail_at fails.  Include it, point
 * the code's malloc, calloc, realloc and free here, include the code, and point them back. */
#ifndef ALLOCATOR_H
#define ALLOCATOR_H
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static long allocations, allocations_live; /* so far; not freed */
static long fail_at; /* 1 = the next one; 0 = none.  Set allocations to 0 with it. */
static size_t live_bytes, peak_bytes;

/* Blocks are preceded by their size. */
static inline void *counted_realloc(void *p, size_t n) {
    size_t old = p ? ((size_t *)p)[-2] : 0;
    if (++allocations == fail_at || n > (size_t)-1 / 2) return NULL;
    size_t *q = (size_t *)realloc(p ? (size_t *)p - 2 : NULL, n + 2 * sizeof *q);
    if (!q) return NULL;
    q[0] = n;
    allocations_live += p == NULL;
    live_bytes += n - old;
    peak_bytes = live_bytes > peak_bytes ? live_bytes : peak_bytes;
    return q + 2;
}

static inline void *counted_malloc(size_t n) { return counted_realloc(NULL, n); }

static inline void *counted_calloc(size_t n, size_t size) {
    void *p = size && n > (size_t)-1 / size ? NULL : counted_realloc(NULL, n * size);
    return p ? memset(p, 0, n * size) : NULL;
}

static inline void counted_free(void *p) {
    if (!p) return;
    allocations_live--;
    live_bytes -= ((size_t *)p)[-2];
    free((size_t *)p - 2);
}
#endif
