/* The one file of a program that carries the implementation. */
#ifdef TEST_MALLOC /* the malloc convenience on memory of ours: a pool, and a count of what is in use */
#include <stddef.h>
#ifdef __cplusplus
extern "C" int test_in_use(void);
#else
int test_in_use(void);
#endif
static int in_use;
static void *pool_take(size_t n) {
    static unsigned char pool[1 << 22];
    static size_t used;
    size_t rounded = (n + 63) / 64 * 64, start = 64 - (size_t)pool % 64;
    if (rounded > sizeof pool - start - used) return NULL;
    used += rounded, in_use++;
    return pool + start + used - rounded;
}
static void pool_give(void *p) { in_use -= p != NULL; }
int test_in_use(void) { return in_use; }
#define TRANSFORMER_MALLOC(n) pool_take(n)
#define TRANSFORMER_FREE(p) pool_give(p)
#endif

#define TRANSFORMER_IMPLEMENTATION
#ifdef TRANSFORMER_FILE
#include TRANSFORMER_FILE
#else
#include "transformer.h"
#endif
