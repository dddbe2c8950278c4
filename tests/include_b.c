/* A second user of the header in the program of include_a.c, and main: both must get the same bits.
 * Usage: include [ISA], where ISA is the instruction-set row that this machine should choose. */
#define INCLUDE_USER include_b
#include "include_a.c"
#include <stdio.h>

#ifdef TEST_MALLOC
#ifdef __cplusplus
extern "C" int test_in_use(void);
#else
int test_in_use(void);
#endif
#else
static int test_in_use(void) { return 0; }
#endif

int main(int argc, char **argv) {
    float a[INCLUDE_LOGITS], b[INCLUDE_LOGITS];
    const char *isa = argc > 1 ? argv[1] : NULL;
    int line = include_a(isa, a);
    if (!line) line = include_b(isa, b);
    if (line) printf("include_a.c:%d: failed\n", line);
    if (line) return 1;
    if (memcmp(a, b, sizeof a) != 0) printf("the two users' logits differ\n");
    if (test_in_use()) printf("%d blocks of memory not freed\n", test_in_use());
    return memcmp(a, b, sizeof a) != 0 || test_in_use();
}
