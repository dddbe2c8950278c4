#!/usr/bin/env python3
"""Greedy texts that llama.cpp writes from the weights of every type that build/convert writes.

    make build/convert && python3 tests/make_llama_texts.py BIN >tests/llama_cpp/greedy.txt
    make build/convert build/generate && python3 tests/make_llama_texts.py check

The second compares with build/generate --full-precision. BIN holds llama-quantize and llama-completion of llama.cpp.
Each file of examples/toy_lm is decoded to float32 by llama-quantize, so that no activation is rounded to 8 bits (which
each build of llama.cpp does a little otherwise), and continued by llama-completion with a cache in float32. A line per
text: the type, the prompt, the beginning of the text in JSON.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TYPES = "f32 f16 bf16 q8_0 q6_k q5_k_m q4_k_m q5_1 q5_0 q4_1 q4_0".split()
PROMPTS = ["First Citizen", "What say you", "My lord, I", "KING RICHARD"]
TOKENS, LETTERS = 80, 150  # the program does not always print its last tokens


def converted(file, kind):
    subprocess.run(["build/convert", "examples/toy_lm", file, "--type", kind, "--force", "--quiet"], check=True)


def text_of(command, **options):
    run = subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, capture_output=True,
                         **options)
    return run.stdout.decode().strip("\n ")


def make(programs, work):
    env = dict(os.environ, LD_LIBRARY_PATH=str(programs))
    file, decoded = work / "file.gguf", work / "decoded.gguf"
    for kind in TYPES:
        converted(file, kind)
        text_of([programs / "llama-quantize", "--allow-requantize", file, decoded, "f32"], env=env)
        for prompt in PROMPTS:
            text = text_of([programs / "llama-completion", "-m", decoded, "-p", prompt, "-n", TOKENS, "--temp", 0,
                            "-no-cnv", "-t", 1, "-ctk", "f32", "-ctv", "f32", "-fa", "off"], env=env)
            print(kind, json.dumps(prompt), json.dumps(text[:LETTERS]), sep="\t")


def check(work):
    lines = [line.split("\t") for line in Path("tests/llama_cpp/greedy.txt").read_text().splitlines()]
    assert sorted({line[0] for line in lines}) == sorted(TYPES) and len(lines) == len(TYPES) * len(PROMPTS)
    for kind, prompt, text in lines:
        file = work / (kind + ".gguf")
        if not file.exists():
            converted(file, kind)
        ours = text_of(["build/generate", file, "-p", json.loads(prompt), "-n", TOKENS, "-t", 0, "--full-precision",
                        "--kv", "f32"])
        text = json.loads(text)
        assert ours.startswith(text) and len(text) > 100, f"{kind}: {prompt}:\n{ours}\n---\n{text}"
    print(f"{len(lines)} texts")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        if sys.argv[1] == "check":
            check(Path(directory))
        else:
            make(Path(sys.argv[1]), Path(directory))
