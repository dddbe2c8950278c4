/* Random rows of the quantised formats, for tests that include the implementation. */
#ifndef BLOCKS_H
#define BLOCKS_H
#include <stdint.h>

static inline uint64_t random_word(uint64_t index) {
    uint64_t z = index * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline void random_bytes(unsigned char *out, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)(random_word((seed << 32) + i / 8) >> i % 8 * 8);
}

/* Scale (0) or minimum (1) of a block; 0 if it has none in 16 bits. */
static inline int set_scale(const tfi_format *f, unsigned char *block, int which, uint16_t value) {
    if (f->dtype == TRANSFORMER_MXFP4 || (which && f->bias)) return 0;
    block[f->scale_at + 2 * which] = (unsigned char)(value & 255);
    block[f->scale_at + 2 * which + 1] = (unsigned char)(value >> 8);
    return 1;
}

/* Rows of blocks with scales around 0.01. */
static inline void make_rows(const tfi_format *f, unsigned char *out, int rows, int cols,
                             uint64_t seed) {
    size_t n = (size_t)rows * (size_t)(cols / f->block);
    random_bytes(out, n * (size_t)f->size, seed);
    for (size_t i = 0; i < n; i++) {
        unsigned char *block = out + i * (size_t)f->size;
        float scale = 0.01f + (float)(random_word(seed + i) % 256) / 20000;
        set_scale(f, block, 0, tfi_to_f16(scale));
        set_scale(f, block, 1, tfi_to_f16(f->block == 32 ? -scale * 8 : scale * 3));
        if (f->dtype == TRANSFORMER_MXFP4) block[0] = (unsigned char)(120 + i % 4);
    }
}
#endif
