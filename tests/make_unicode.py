#!/usr/bin/env python3
"""Writes examples/unicode_data.h, the tables that examples/tokenizer.h needs of the Unicode Character Database.

    pip install unicodedata2==16.0.0 regex
    python3 tests/make_unicode.py >examples/unicode_data.h
    python3 tests/make_unicode.py sums      prints what tests/test_tokenizer.c compares: properties and forms of every one

The tokenizers of Hugging Face use version 16.0 for the properties of characters (through Oniguruma), but 9.0 for
normalisation: characters that came later (perl knows which) do not decompose, compose or change places.
"""
import subprocess
import sys

import regex
import unicodedata2 as ucd

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
SCRIPTS = "Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()
POINTS = range(0x110000)
OLD = set(map(int, subprocess.run(
    ["perl", "-e", r'no warnings; for (0..0x10FFFF) { print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ }'],
    capture_output=True, check=True).stdout.split()))


def runs(value):
    """(start, value) wherever value changes."""
    out = []
    for c in POINTS:
        v = value(c)
        if not out or out[-1][1] != v:
            out.append((c, v))
    return out


def table(kind, name, comment, numbers):
    print(f"\n/* {comment} */")
    print(f"static const {kind} {name}[] = {{")
    line = "   "
    for number in numbers:
        text = f" {number},"
        if len(line) + len(text) > 100:
            print(line)
            line = "   "
        line += text
    print(line)
    print("};")


def decompositions(compatible):
    """Full decompositions of characters that have one, but for Hangul syllables."""
    form = "NFKD" if compatible else "NFD"
    for c in POINTS:
        if 0xD800 <= c < 0xE000 or 0xAC00 <= c < 0xD7A4 or c not in OLD:
            continue
        whole = ucd.normalize(form, chr(c))
        if whole != chr(c) and not (compatible and whole == ucd.normalize("NFD", chr(c))):
            yield c, [ord(x) for x in whole]


def compositions():
    """(first, second, composed) of canonical composition, sorted."""
    for c in POINTS:
        parts = ucd.decomposition(chr(c)) if c in OLD and not 0xD800 <= c < 0xE000 else ""
        if not parts or parts.startswith("<") or len(parts.split()) != 2:
            continue
        first, second = (int(x, 16) for x in parts.split())
        if ucd.normalize("NFC", chr(first) + chr(second)) == chr(c):
            yield first, second, c


def decomposition_table(name, what, compatible):
    pool, entries, offsets = [], [], []
    for c, whole in decompositions(compatible):
        entries.append(c << 5 | len(whole))
        offsets.append(len(pool))
        pool += whole
    table("uint32_t", f"tku_{name}", f"{what}: character << 5 | size, sorted.", entries)
    table("uint16_t", f"tku_{name}_at", "Where each begins in the texts.", offsets)
    table("uint32_t", f"tku_{name}_text", f"Their texts, one behind the other ({len(pool)}).", pool)


def fnv(parts):
    """FNV-1a, 32 bits, of some bytes."""
    h = 2166136261
    for part in parts:
        for byte in part:
            h = (h ^ byte) * 16777619 & 0xffffffff
    return h


def sums():
    print("categories", hex(fnv(ucd.category(chr(c)).encode() for c in POINTS)))
    for form in "NFC", "NFD", "NFKC", "NFKD":
        print(form, hex(fnv((ucd.normalize(form, chr(c)) if c in OLD else chr(c)).encode()
                            for c in POINTS if not 0xD800 <= c < 0xE000)))


def main():
    assert ucd.unidata_version == "16.0.0"
    print("""/* unicode_data.h - tables of the Unicode Character Database, version 16.0, for tokenizer.h;
 * normalisation is that of version 9.0.\n * Made by tests/make_unicode.py; not to be edited.  Licence of the data: Unicode License V3.
 */
#ifndef UNICODE_DATA_H
#define UNICODE_DATA_H

#include <stdint.h>

/* clang-format off */

/* The general categories, by number. */
static const char tku_category_names[][3] = {""")
    print("    " + ", ".join(f'"{c}"' for c in CATEGORIES))
    print("};")
    table("uint32_t", "tku_categories", "Where the general category changes: first character << 5 | category.",
          [c << 5 | v for c, v in runs(lambda c: CATEGORIES.index(ucd.category(chr(c))))])
    table("uint32_t", "tku_combining",
          "Where the canonical combining class changes: first character << 8 | class.",
          [c << 8 | v for c, v in runs(lambda c: ucd.combining(chr(c)) if c in OLD else 0)])
    print("\n/* The scripts that are known, by number from 1. */")
    print("static const char *const tku_script_names[] = {")
    print("    " + ", ".join(f'"{s}"' for s in SCRIPTS))
    print("};")
    script = [0] * 0x110000
    for i, name in enumerate(SCRIPTS):
        pattern = regex.compile(rf"\p{{Script={name}}}")
        for c in POINTS:
            if pattern.match(chr(c)) and ucd.category(chr(c)) != "Cn":
                script[c] = i + 1
    table("uint32_t", "tku_scripts", "Where the script changes: first character << 5 | script, 0 = another.",
          [c << 5 | v for c, v in runs(lambda c: script[c])])
    decomposition_table("canonical", "Full canonical decompositions", False)
    decomposition_table("compatible", "Full compatibility decompositions that are not canonical", True)
    table("uint32_t", "tku_compositions", "Canonical compositions: first, second, composed; sorted.",
          [x for row in sorted(compositions()) for x in row])
    table("uint32_t", "tku_joining", "Characters of class 0 that compose with the one before, but for Hangul; sorted.",
          sorted({b for _, b, _ in compositions() if ucd.combining(chr(b)) == 0}))
    print("\n/* clang-format on */\n\n#endif /* UNICODE_DATA_H */")


sums() if sys.argv[1:] == ["sums"] else main()
