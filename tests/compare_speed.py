#!/usr/bin/env python3
"""How fast two programs run the same model, measured in turn. Prints ratios, judges nothing.

    python3 tests/compare_speed.py [--rounds N] OLD NEW -- MODEL|--shape NAME [options of bench]
    LLAMA_BENCH=PROGRAM [LLAMA_BENCH_ARGS="..."] python3 tests/compare_speed.py [--rounds N] build/bench -- MODEL [...]

OLD and NEW are two builds of examples/bench.c. LLAMA_BENCH is a llama-bench, of llama.cpp or of a relative, which gets
the same model, -p, -n, -d, -r, --threads and --kv in its own words, flash attention, and LLAMA_BENCH_ARGS as they are.

Machines are shared and restless, so the programs run one after the other, each first in every second round, and a
ratio is of two runs of the same round. Exit status 1 if a program fails, never because of a speed.
"""
import json
import os
import shlex
import statistics
import subprocess
import sys

KINDS = ("prefill", "decode")


def stop(text):
    sys.exit(f"compare_speed: {text}")


def run(command):
    """The JSON that a program prints."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
    except (OSError, ValueError) as error:
        stop(f"{command[0]}: {error}")
    return stop(f"{shlex.join(command)}: status {done.returncode}\n{done.stderr.decode(errors='replace')[-2000:]}")


def run_bench(program, arguments):
    """Tokens per second, of prefill and of decode."""
    report = run([program, "-r", "1", *arguments, "--json"])
    return [report[kind]["tokens_per_s"] for kind in KINDS]


def run_llama_bench(program, arguments):
    words = {"-p": "512", "-n": "128", "-d": "0", "-r": "1", "--threads": "1", "--kv": "f32"}
    rest, given = [], iter(arguments)
    for word in given:
        if word in words:
            words[word] = next(given, "")
        else:
            rest.append(word)
    if len(rest) != 1 or rest[0].startswith("-"):
        stop(f"llama-bench takes a model file and {' '.join(words)}, not {shlex.join(rest)}")
    command = [program, "-m", rest[0], "-p", words["-p"], "-n", words["-n"], "-t", words["--threads"],
               "-ctk", words["--kv"], "-ctv", words["--kv"], "-fa", "1", "-r", words["-r"], "-o", "json"]
    if words["-d"] != "0":
        command += ["-d", words["-d"]]
    report = run(command + shlex.split(os.environ.get("LLAMA_BENCH_ARGS", "")))
    prefill = [test["avg_ts"] for test in report if test["n_gen"] == 0]
    decode = [test["avg_ts"] for test in report if test["n_gen"] > 0]
    if len(prefill) != 1 or len(decode) != 1:
        stop(f"{program}: not one test of prefill and one of decode")
    return [prefill[0], decode[0]]


def parse(arguments):
    """Rounds, two programs as pairs (how to run, path), what both are told."""
    if "--" not in arguments:
        sys.exit(__doc__)
    at = arguments.index("--")
    programs, told, rounds = arguments[:at], arguments[at + 1:], 3
    if programs[:1] == ["--rounds"] and len(programs) > 1:
        rounds = int(programs[1]) if programs[1].isdigit() else 0
        programs = programs[2:]
    programs = [(run_bench, program) for program in programs]
    if "LLAMA_BENCH" in os.environ:
        programs.append((run_llama_bench, os.environ["LLAMA_BENCH"]))
    if len(programs) != 2 or rounds < 1:
        sys.exit(__doc__)
    return rounds, programs, told


def main():
    rounds, programs, told = parse(sys.argv[1:])
    speeds = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            how, program = programs[which]
            speeds[which].append(how(program, told))
    names = [program for _, program in programs]
    print(f"tokens per second, medians of {rounds}; ratio = {names[0]} / {names[1]}, of each round and their median")
    print(f"{'':10} {names[0][-20:]:>20} {names[1][-20:]:>20} {'ratio':>7}")
    for kind, name in enumerate(KINDS):
        columns = [[one[kind] for one in of_program] for of_program in speeds]
        ratios = [a / b for a, b in zip(*columns)]
        first, second = map(statistics.median, columns)
        print(f"{name:10} {first:20.2f} {second:20.2f} {statistics.median(ratios):7.3f}   "
              f"({' '.join(f'{ratio:.3f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
