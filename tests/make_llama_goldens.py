#!/usr/bin/env python3
"""What llama.cpp computes from the files that build/convert writes: golden logits of block formats.

    make build/convert && python3 tests/make_llama_goldens.py --out tests/llama_cpp

Needs the Python package llama-cpp-python. Two models, each as several types: examples/toy_lm, whose rows of 128 and
320 take blocks of 32, and noise of width 256 for the K-quants, which test_convert.c makes in the same way. llama.cpp
keeps its cache in float32, without flash attention (which computes in F16), and reads a token at a time.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from llama_cpp import Llama

TOY_TYPES, NOISE_TYPES = ["q8_0", "q4_0", "q4_k_m"], ["q4_k_m", "q5_k_m", "q6_k"]
DIM, VOCAB, CONTEXT, SEED, TOKENS = 256, 300, 32, 7, 12


def noise(first, n):
    """test_noise() of test.h"""
    x = np.arange(first, first + n, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(16777216) - np.float32(0.5)


def write_noise_model(path):
    """make_llama2c() of test_convert.c: a llama2.c checkpoint of two layers, two heads, one of keys"""
    head = DIM // 2
    n = VOCAB * DIM + 2 * (2 * DIM + 9 * DIM * DIM) + DIM
    angles = np.outer(np.arange(CONTEXT), 1e4 ** (-2.0 * np.arange(head // 2) / head))
    with open(path, "wb") as f:
        np.array([DIM, 2 * DIM, 2, 2, 1, VOCAB, CONTEXT], "<i4").tofile(f)
        noise(SEED, n).tofile(f)
        np.cos(angles).astype("<f4").tofile(f)
        np.sin(angles).astype("<f4").tofile(f)


def golden(out, name, model, kind, work):
    file = work / (name + ".gguf")
    subprocess.run(["build/convert", model, file, "--type", kind], check=True)
    llama = Llama(str(file), n_ctx=CONTEXT, n_threads=1, logits_all=True, flash_attn=False, type_k=0, type_v=0,
                  verbose=False)
    tokens = [int(t) for t in np.random.RandomState(1).randint(3, llama.n_vocab(), TOKENS)]
    for token in tokens:
        llama.eval([token])
    case = out / name
    case.mkdir(parents=True, exist_ok=True)
    llama.scores[:TOKENS].astype("<f4").tofile(case / "logits.f32")
    about = {"name": name, "family": "llama", "vocab_size": llama.n_vocab(), "n_tokens": TOKENS, "tokens": tokens,
             "positions": list(range(TOKENS))}
    (case / "golden.json").write_text(json.dumps(about) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        write_noise_model(work / "noise.bin")
        for kind in TOY_TYPES:
            golden(out, "toy_" + kind, "examples/toy_lm", kind, work)
        for kind in NOISE_TYPES:
            golden(out, "noise_" + kind, work / "noise.bin", kind, work)


if __name__ == "__main__":
    main()
