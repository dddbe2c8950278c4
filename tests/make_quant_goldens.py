#!/usr/bin/env python3
"""Prints the table in test_formats.c: for each quantised type a checksum of what the Python package
gguf (0.17 or newer) decodes from 100000 blocks.  The blocks are made here and there in the same way:
bytes of a counter-based generator, and in every 16th block special scales."""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

BLOCKS = 100000
SPECIAL = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7C00, 0xFC00, 0x7E00, 0x7BFF]
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
          "MXFP4": [], "TQ1_0": [52], "TQ2_0": [64]}


def random_bytes(seed, n):
    z = (np.arange((n + 7) // 8, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).astype("<u8").view(np.uint8)[:n]


for name, scales in SCALES.items():
    dtype = GGMLQuantizationType[name]
    size = GGML_QUANT_SIZES[dtype][1]
    blocks = random_bytes(int(dtype), BLOCKS * size).reshape(BLOCKS, size).copy()
    for which, at in enumerate(scales):
        for i in range(0, BLOCKS, 16):
            value = SPECIAL[(i // 16 >> 3 * which) % 8]
            blocks[i, at], blocks[i, at + 1] = value & 255, value >> 8
    with np.errstate(all="ignore"):
        values = quants.dequantize(blocks, dtype).reshape(-1).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    bits[np.isnan(values)] = 0x7FC00000
    sums = np.uint64(0)
    with np.errstate(over="ignore"):
        sums = (bits * (2 * np.arange(bits.size, dtype=np.uint64) + np.uint64(1))).sum(dtype=np.uint64)
    print("    {TRANSFORMER_%s, 0x%016xu}," % (name, int(sums)))
