#!/usr/bin/env python3
"""GGUF files of the golden models, made by llama.cpp's own converter.

    python3 tests/make_gguf.py --llama LLAMA.CPP --goldens tests/goldens --out tests/gguf [--only NAME,...] [--all]

LLAMA.CPP is a source tree with convert_hf_to_gguf.py and conversion/. Each case is a directory of tests/goldens, which
Hugging Face transformers saved; its golden logits are those that the GGUF file has to give. The converter runs as it
is but for the vocabulary: these models have none, so set_vocab writes a list of tokens without meaning. Weights keep
the type they have. Golden models whose GGUF file cannot say what they compute (a window, a pattern or a scale that the
format has no key for, or that the converter drops) are left out; --all converts those too, to look at. Files go to
OUT with index.txt, a line per case: its name, that of the golden.
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

CASES = {}


def case(name, golden=None, **config):
    """name: GGUF case; golden: what it is made from, if not called the same; config: changes to config.json before
    the converter reads it. They say what the model is in the words this converter looks for, which are those of older
    checkpoints, and change nothing that is computed."""
    CASES[name] = (golden or name, config)


case("llama")
case("llama_llama3_1500")
case("llama_linear")
case("llama_yarn")
case("llama_bf16")
case("llama_f16")
case("mistral_nemo")
case("gpt2", n_ctx=48)
case("gptneox", "gpt_neox", rotary_pct=0.5)
case("gptneox_sequential", "gpt_neox_pythia", rotary_pct=0.25)
case("bloom")
case("mpt", architectures=["MPTForCausalLM"])
case("falcon_7b", "falcon_7b_gguf", num_kv_heads=1)
case("falcon_40b", "falcon_40b_gguf")
case("stablelm")
case("stablelm_bias")
case("stablelm_12b")
case("phi2", "phi_gguf")
case("phi3")
case("phi3_longrope_long")
case("phi3_longrope_short")
case("phi3_partial")
case("qwen", architectures=["QWenLMHeadModel"])
case("qwen2")
case("qwen2_yarn")
case("qwen3")
case("gemma")
case("gemma2", "gemma2_gguf")
case("gemma3", "gemma3_gguf")
case("olmo")
case("olmo2")
case("olmo3")
case("olmo3_yarn")
case("smollm3")
case("granite")
case("granite_bias")
case("command-r", "cohere")
case("command-r_qknorm", "cohere_qknorm")
case("cohere2", rotary_pct=1.0)
case("chatglm", "glm_gguf", layernorm_epsilon=1.5625e-07, seq_length=64)
case("glm4")
case("minicpm", architectures=["MiniCPMForCausalLM"])
case("ernie4_5")
case("ernie4_5_bias")
case("starcoder", "gpt_bigcode")
case("starcoder2", "starcoder2_gguf")
case("nemotron", "nemotron_odd")
case("exaone4")
case("exaone4_full")
case("seed_oss")
case("hunyuan-dense", "hunyuan")


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


def stack_qk_norms(kind):
    """StableLM 2 12B: a vector per head becomes a matrix. The converter's own code for it returns a generator from a
    generator, and so loses the tensors."""
    def modify_tensors(self, data, name, bid):
        for part, n in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
            if f".{part}_layernorm.norms." in name:
                heads = self.__dict__.setdefault("qk_heads", {}).setdefault((part, bid), {})
                heads[int(name.split(".")[-2])] = data
                if len(heads) == self.hparams[n]:
                    import torch
                    stacked = torch.stack([heads[i] for i in sorted(heads)])
                    yield f"blk.{bid}.attn_{part}_norm.weight", stacked
                return
        yield from kind.modify_tensors(self, data, name, bid)
    return modify_tensors


OUTTYPES = {"f32": lambda: __import__("gguf").LlamaFileType.ALL_F32,
            "f16": lambda: __import__("gguf").LlamaFileType.MOSTLY_F16,
            "bf16": lambda: __import__("gguf").LlamaFileType.MOSTLY_BF16}


def convert(source, config, out, outtype="f32"):
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        shutil.copytree(source, directory)
        edited = json.loads((directory / "config.json").read_text())
        edited.update(config)
        (directory / "config.json").write_text(json.dumps(edited))
        hparams = ModelBase.load_hparams(directory, False)
        kind = get_model_class(hparams["architectures"][0])
        added = {"set_vocab": set_vocab, "model_arch": kind.model_arch}
        if hasattr(kind, "_stack_qk_norm"):
            added["modify_tensors"] = stack_qk_norms(kind)
        # Gemma 3's reads how many tokens there are
        tokens = {f"t{i}": i for i in range(edited.get("vocab_size", 0))}
        (directory / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}, "added_tokens": []}))
        patched = type(kind.__name__, (kind,), added)
        model = patched(directory, OUTTYPES[outtype](), Path(out), model_name="golden")
        model.hparams.update(config)
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
            outtype = next((t for t in ("bf16", "f16") if golden.endswith("_" + t)), "f32")
            convert(Path(args.goldens) / golden, config, out / f"{name}.gguf", outtype)
            print(f"{name}: {(out / f'{name}.gguf').stat().st_size} bytes", flush=True)
        except BaseException as e:
            print(f"{name}: FAILED: {type(e).__name__}: {e}", flush=True)
            if args.only:
                traceback.print_exc()
    made = [f"{n} {g}\n" for n, (g, _) in cases.items() if (out / f"{n}.gguf").is_file()]
    (out / "index.txt").write_text("".join(made))


if __name__ == "__main__":
    main()
