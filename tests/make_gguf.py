#!/usr/bin/env python3
"""GGUF files of the golden models, made by llama.cpp's own converter.

    python3 tests/make_gguf.py --llama LLAMA.CPP --goldens tests/goldens --out tests/gguf [--only NAME,...] [--all]

LLAMA.CPP is a source tree with convert_hf_to_gguf.py and conversion/. Each case is a directory of tests/goldens, which
Hugging Face transformers saved; its golden logits are those that the GGUF file has to give. The converter runs as it
is but for the vocabulary: these models have none, so set_vocab writes a list of tokens without meaning. Weights are
F32. Cases whose GGUF file cannot say what the model computes (a window, a pattern or a scale that the format has no
key for, or that the converter drops) are left out: see LEFT_OUT. --all converts those too, to look at.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# GGUF case: golden it is made from, changes to config.json before the converter reads it. The changes say what the
# model is in the words this converter looks for; none changes what is computed.
CASES = {}


def case(name, golden=None, **config):
    CASES[name] = (golden or name, config)


def read_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama", required=True)
    parser.add_argument("--goldens", default="tests/goldens")
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--all", action="store_true")
    return parser.parse_args()


def set_vocab(model):
    n = model.hparams.get("vocab_size") or model.find_hparam(["vocab_size"])
    writer = model.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", "</s>", "<0x0A>"] + [f"t{i}" for i in range(4, n)])
    writer.add_token_scores([0.0] * n)
    writer.add_token_types([2, 3, 3, 6] + [1] * (n - 4))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def convert(source, config, out):
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType
    import gguf
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        shutil.copytree(source, directory)
        edited = json.loads((directory / "config.json").read_text())
        edited.update(config)
        (directory / "config.json").write_text(json.dumps(edited))
        hparams = ModelBase.load_hparams(directory, False)
        kind = get_model_class(hparams["architectures"][0])
        patched = type(kind.__name__, (kind,), {"set_vocab": set_vocab, "model_arch": kind.model_arch})
        model = patched(directory, gguf.LlamaFileType.ALL_F32, Path(out), model_name="golden")
        model.write()


def main():
    args = read_args()
    sys.path[:0] = [args.llama, str(Path(args.llama) / "gguf-py")]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    cases = dict(CASES)
    if args.all:
        for d in sorted(Path(args.goldens).iterdir()):
            if (d / "config.json").is_file():
                cases.setdefault(d.name, (d.name, {}))
    for name, (golden, config) in cases.items():
        if args.only and name not in args.only.split(","):
            continue
        try:
            convert(Path(args.goldens) / golden, config, out / f"{name}.gguf")
            print(f"{name}: {(out / f'{name}.gguf').stat().st_size} bytes", flush=True)
        except BaseException as e:
            print(f"{name}: FAILED: {type(e).__name__}: {e}", flush=True)
            if args.only:
                traceback.print_exc()


if __name__ == "__main__":
    main()
