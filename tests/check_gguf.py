#!/usr/bin/env python3
"""Reads GGUF files that build/convert wrote with the gguf package, which has to understand every key and byte of them.

    python3 tests/check_gguf.py FLOAT.gguf OTHER.gguf ...

FLOAT.gguf has a model's weights as float32, the others the same weights in other types: dequantised by that package,
they have to be close. The tokens have to be as many as the embedding has rows.
"""
import sys

import gguf
import numpy

WORST = {"F32": 0, "F16": 1e-6, "BF16": 1e-5, "Q8_0": 1e-4, "Q6_K": 1e-3, "Q5_K": 4e-3, "Q5_0": 4e-3, "Q5_1": 4e-3,
         "Q4_K": 1e-2, "Q4_0": 2e-2, "Q4_1": 1e-2}


def read(path):
    reader = gguf.GGUFReader(path)
    tensors = {t.name: t for t in reader.tensors}
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    assert len(tokens) == len(types) == tensors["token_embd.weight"].shape[1], path
    for key in reader.fields.values():
        key.contents()
    return tensors


def main():
    exact = read(sys.argv[1])
    for path in sys.argv[2:]:
        tensors = read(path)
        assert list(tensors) == list(exact), path
        errors = {}
        for name, tensor in tensors.items():
            wanted = exact[name].data.astype(numpy.float64)
            got = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float64).reshape(wanted.shape)
            error = ((got - wanted) ** 2).sum() / (wanted ** 2).sum()
            kind = tensor.tensor_type.name
            assert error <= WORST[kind], (path, name, kind, error)
            errors[kind] = max(error, errors.get(kind, 0))
        print(path, {kind: f"{error:.1e}" for kind, error in errors.items()})


main()
