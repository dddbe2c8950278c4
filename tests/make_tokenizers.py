#!/usr/bin/env python3
"""Tokenizers of every kind, trained on a made-up text, and what the reference implementations make of another.

    pip install tokenizers sentencepiece gguf
    python3 tests/make_tokenizers.py goldens        writes tests/data/tokenizers
    python3 tests/make_tokenizers.py check [N [EXE]]  compares build/tokenize with tokenizers and sentencepiece
                                                    on N characters (default 1000000)

The texts come from this script alone: words of letters of many scripts, code, digits, emoji, control characters and
white space, drawn by a seeded generator.
"""
import base64
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def camel(end):
    head = r"[^\r\n\p{L}\p{N}]?"
    return head + UPPER + "*" + LOWER + "+" + end + "|" + head + UPPER + "+" + LOWER + "*" + end


REGEXES = {
    "llama3": CASE + LETTERS + r"|\p{N}{1,3}" + SIGNS + TAIL,
    "qwen2": CASE + LETTERS + r"|\p{N}" + SIGNS + TAIL,
    "qwen35": CASE + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL,
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "tekken": camel("") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL,
    "gpt4o": camel(CASE + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL,
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
              r"\s+(?!\S)|\s+",
    "seed": CASE + LETTERS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + TAIL,
    "han": r"[\p{Han}]+|[\p{L}&&[^\p{Han}]]+|\p{N}{2,3}?|\p{Hangul}|[^\p{L}\p{N}]",
    "words": r"\w+|[^\w\s]+|\s+$|\s",
}
ASCII_SIGNS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def pre_tokenizer(name):
    seq = pre_tokenizers.Sequence
    if name in REGEXES:
        return seq([split(REGEXES[name]), byte_level()])
    return {
        "gpt2": lambda: byte_level(True),
        "prefix": lambda: byte_level(True, True),
        "starcoder": lambda: seq([pre_tokenizers.Digits(True), byte_level(True)]),
        "falcon": lambda: seq([pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(False),
                               split("[0-9][0-9][0-9]")]),
        "deepseek_coder": lambda: seq([split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                       split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(True), byte_level()]),
        "deepseek_v3": lambda: seq([split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"),
                                    split(ASCII_SIGNS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
                                          r"[\r\n]*" + TAIL), byte_level()]),
        "removed": lambda: seq([split(r"\s+", "removed"), byte_level()]),
        "previous": lambda: seq([split(r"[\s\p{P}]", "merged_with_previous"), byte_level()]),
        "next": lambda: seq([split(r"[\s\p{P}]", "merged_with_next"), byte_level()]),
        "whitespace": lambda: seq([pre_tokenizers.Whitespace(), byte_level()]),
    }[name]()


BYTE_LEVEL = list(REGEXES) + ["gpt2", "prefix", "starcoder", "falcon", "deepseek_coder", "deepseek_v3", "removed",
                              "previous", "next", "whitespace"]
FORMS = {"qwen2": normalizers.NFC, "seed": normalizers.NFD, "words": normalizers.NFKC, "previous": normalizers.NFKD}
UNIGRAMS = ["unigram", "unigram_nmt", "unigram_map"]
OTHERS = ["llama2", "gemma"] + UNIGRAMS + ["metaspace"]

# ---- texts ----

ALPHABETS = ["etaoinshrdlu", "etaoinshrdlucmfw", "ETAOINabcd", "éàüößñçøåœ", "абвгдежзиклмнопрст", "αβγδεζηθικλμν",
             "ابتثجحخدذر", "אבגדהוזחטי", "अआइईउऊकखगािीु्", "กขคงจฉชาีู", "的一是不了人我在有他这", "日本語ひらがなカタカナ",
             "가나다라마바사아자차카타", "ㄱㄴㄷㄹ", "각너", "ǅǈʰˠªº", "𝐀𝐁𝐜𝐝𐐀𐐨"]
EXTRAS = ["'s", "'t", "'re", "'VE", "'Ll", "'D", "'ſ", "’s", "e\u0301", "a\u0308\u0323", "o\u0302\u0301", "ﬁ", "①", "ﷺ", "Å",
          "ー", "K", "½", "²³", "٣٤", "१२३", "Ⅷ", "\u200b", "\u200d", "\ufeff", "\u00ad", "😀", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "🇩🇪",
          "\u0000", "\u0001", "\u001b", "\u007f", "\u0085", "\u2028", "\u3000", "\u00a0", "\u1680", "\u2003", "\t", "\r", "\r\n",
          "\n", "\n\n", "\v", "\f", "  ", "   ", "        ", "<|end|>", "</s>", "<unk>", "▁", "Ġ", "<0x0A>", "\ufffd", "\ue000",
          "\U0010ffff", "==", "!=", "->", "::", "//", "/*", "{", "}", "();", "[0]", "\"", "`", "$x", "#if", "snake_case", "camelCase",
          "HTTPServer", "0x1F", "1e-9", "3.14", "12345678", "1,000", "...", "…", "。", "，", "¿", "«", "»", "---", "'", "''"]


class Writer:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.words = ["".join(self.random.choice(a) for _ in range(self.random.randint(1, 9)))
                      for a in ALPHABETS for _ in range(60)]

    def character(self):
        while True:
            c = self.random.choice([self.random.randrange(0x3000), self.random.randrange(0x20000),
                                    self.random.randrange(0x110000)])
            if not 0xD800 <= c < 0xE000:
                return chr(c)

    def text(self, size):
        out, n = [], 0
        while n < size:
            kind = self.random.random()
            if kind < 0.55:
                word = self.words[int(len(self.words) * self.random.random() ** 2)]
                piece = word + self.random.choice([" ", " ", " ", " ", "", ", ", ". ", "\n", "-"])
            elif kind < 0.62:
                piece = str(self.random.randrange(10 ** self.random.randint(1, 9)))
            elif kind < 0.97:
                piece = self.random.choice(EXTRAS) + self.random.choice(["", "", " "])
            else:
                piece = self.character() * self.random.choice([1, 1, 1, 3])
            out.append(piece)
            n += len(piece)
        return "".join(out)


# ---- tokenizers ----

def train_byte_level(name, text, size):
    t = Tokenizer(models.BPE(ignore_merges=name in ("llama3", "tekken")))
    t.pre_tokenizer = pre_tokenizer(name)
    t.decoder = decoders.ByteLevel()
    if name in FORMS:
        t.normalizer = FORMS[name]()
    special = ["<|begin|>", "<|end|>"]
    t.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens([AddedToken("snake_case", normalized=True), AddedToken("  ", normalized=False),
                  AddedToken("HTTP", single_word=True, normalized=False), AddedToken("#if", lstrip=True, rstrip=True)])
    if name in ("llama3", "gpt4o"):
        t.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A" + (" <|end|>" if name == "gpt4o" else ""),
            special_tokens=[("<|begin|>", t.token_to_id("<|begin|>")), ("<|end|>", t.token_to_id("<|end|>"))])
    return t


def train_sentencepiece(text, size, **options):
    model = io.BytesIO()
    lines = [line for line in text.split("\n") if line.strip() and "\0" not in line]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=size,
                                             minloglevel=2, num_threads=1, max_sentence_length=100000, **options)
    return model.getvalue()


SENTENCEPIECE = {
    "spm_bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                    remove_extra_whitespaces=False, character_coverage=0.99),
    "spm_bpe_nmt": dict(model_type="bpe", character_coverage=0.98, user_defined_symbols=["<mask>", "==", "snake_case"]),
    "spm_unigram": dict(model_type="unigram", character_coverage=0.98, user_defined_symbols=["::"]),
    "spm_unigram_bytes": dict(model_type="unigram", byte_fallback=True, character_coverage=0.99,
                              normalization_rule_name="nfkc", split_digits=True),
    "spm_suffixless": dict(model_type="bpe", byte_fallback=True, add_dummy_prefix=False,
                           normalization_rule_name="identity", remove_extra_whitespaces=False,
                           allow_whitespace_only_pieces=True, character_coverage=0.99),
}


def train_other(name, text, size):
    """tokenizer.json files whose symbols are characters."""
    special = ["<unk>", "<s>", "</s>"]
    space = "\u2581"
    if name in UNIGRAMS + ["metaspace"]:
        if name in UNIGRAMS:
            t = Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
        else:
            t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
            trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, limit_alphabet=200)
        steps = [normalizers.Precompiled(charsmap(MAP_RULES))] if name == "unigram_map" else [normalizers.NFKC()]
        steps = ([normalizers.Nmt()] if name == "unigram_nmt" else []) + steps
        t.normalizer = normalizers.Sequence(steps + [normalizers.Replace(Regex(" {2,}"), " ")])
        scheme = "always" if name in UNIGRAMS else "first"
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        t.decoder = decoders.Metaspace(prepend_scheme=scheme)
        t.train_from_iterator([text], trainer)
        return t
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", space)
    t.normalizer = normalizers.Sequence([normalizers.Prepend(space), replace]) if name == "llama2" else replace
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, limit_alphabet=200,
                                  max_token_length=16)
    t.pre_tokenizer = split(f"{space}", "merged_with_next")  # only to train words
    t.train_from_iterator([text], trainer)
    data = json.loads(t.to_str())
    vocab = data["model"]["vocab"]
    for b in bytes_:
        vocab.setdefault(b, len(vocab))
    data["pre_tokenizer"] = None if name == "llama2" else {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    t = Tokenizer.from_str(json.dumps(data))
    steps = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    t.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if name == "llama2" else []))
    if name == "llama2":
        t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def all_tokenizers(text, size):
    """(name, file name, bytes, encode(text) -> ids, decode(ids) -> text)"""
    for name in BYTE_LEVEL + OTHERS:
        t = train_byte_level(name, text, size) if name in BYTE_LEVEL else train_other(name, text, size + 256)
        # vocabularies are written in the order of their ids
        data = json.loads(t.to_str())

        def encode(line, t=t):
            return t.encode(line, add_special_tokens=False).ids

        def decode(ids, t=t):
            return t.decode(ids, skip_special_tokens=False)
        yield (name, "tokenizer.json", json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), encode,
               decode)
    for name, options in SENTENCEPIECE.items():
        model = train_sentencepiece(text, size + 300, **options)
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)

        def decode(ids, sp=sp):
            return sp.decode(ids).replace(" \u2047 ", "<unk>")  # its picture of what is not known
        yield name, "tokenizer.model", model, sp.encode, decode


def is_special(name):
    """Are names of special tokens found in text?  tokenizers finds them, sentencepiece does not."""
    return not name.startswith("spm")


def check(n, exe="build/tokenize"):
    train, text = Writer(1).text(300000), Writer(2).text(n)
    # lines end at \n only; \r and others are text
    lines = text.split("\n")
    failed = 0
    for name, file, data, encode, decode in all_tokenizers(train, 2000):
        folder = tempfile.mkdtemp()
        with open(os.path.join(folder, file), "wb") as f:
            f.write(data)
        options = ["--no-bos"] + (["--special"] if is_special(name) else [])
        bad = []
        run = subprocess.run([exe, folder] + options, input=("\n".join(lines) + "\n").encode(), capture_output=True)
        got = [[int(x) for x in line.split()] for line in run.stdout.decode().split("\n")[:-1]]
        if run.returncode or len(got) != len(lines):
            bad.append(run.stderr.decode() or "wrong number of lines")
        for line, ids in zip(lines, got):
            want = encode(line)
            if want != ids:
                at = next((i for i, (a, b) in enumerate(zip(want, ids)) if a != b), min(len(want), len(ids)))
                bad.append(f"{line[:80]!r}: from {at}: {ids[at:at + 8]}, not {want[at:at + 8]}")
        run = subprocess.run([exe, folder, "--decode"] + options[1:], input=run.stdout, capture_output=True)
        text, want = run.stdout.decode(errors="replace"), "".join(decode(ids) + "\n" for ids in got)
        if text != want:
            at = next((i for i, (a, b) in enumerate(zip(want, text)) if a != b), min(len(want), len(text)))
            bad.append(f"decoded: {text[at - 20:at + 20]!r}, not {want[at - 20:at + 20]!r}")
        # sums of scores are rounded elsewhere in a long text: of unigrams only short ones are the same to the last bit
        whole = "\n".join(lines[:100 if "unigram" in name else 2000])
        run = subprocess.run([exe, folder, "--whole"] + options, input=whole.encode(), capture_output=True)
        if [int(x) for x in run.stdout.split()] != encode(whole):
            bad.append("many lines as a whole")
        print(f"{'FAIL ' if bad else 'ok   '} {name}: {len(lines)} lines, {sum(map(len, got))} tokens" +
              (f", {len(bad)} differ" if bad else ""))
        for message in bad[:3]:
            print("      " + message)
        failed += bool(bad)
        shutil.rmtree(folder)
        sys.stdout.flush()
    print(f"{len(BYTE_LEVEL) + len(OTHERS) + len(SENTENCEPIECE) - failed} passed, {failed} failed")
    return failed


# ---- goldens ----

RULES = "FB01\t66 69\n2460\t31\n212B\tC5\nFDFA\t635 644 6CC 20 627 644 644 647\n3000\t20\n41 30A\tC5\n9\t20\n"
# of a Precompiled: of the graphemes with e, the accent goes
MAP_RULES = RULES + "65 301\tE9\n65\tEB\nD A\t20\n430\t62 63 64\n61 308\tE4\n200D\t2D\n600\t78\n7F\t79\n"


def tiny_vocab():
    pieces = ["a", "b", "c", " ", "\u00c4", "\u00a0", "ab", "abc", " a", "bc"]
    return {piece.replace(" ", "\u0120"): i for i, piece in enumerate(pieces)}


def tiny_json(**parts):
    data = {"version": "1.0", "added_tokens": [
        {"id": 10, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True},
        {"id": 11, "content": "ab c", "single_word": True, "lstrip": True, "rstrip": True, "normalized": True,
         "special": False}],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    data.update(parts)
    return json.dumps(data).encode()


def tiny_files():
    """Small files of every kind, in which nothing is without a purpose: tests break them in every way."""
    merges = [["a", "b"], ["ab", "c"], ["\u0120", "a"], ["b", "c"]]
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
           "ignore_merges": True, "vocab": tiny_vocab(), "merges": merges}
    yield "tiny_bpe.json", tiny_json(
        model=bpe, normalizer={"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "b{2,}|\\x{E9}[^a-z]?(?!x)"}, "content": "bb"}]},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(?i:'s)|\\p{L}++|[^\\s\\p{L}]+?$"}, "behavior": "Isolated",
             "invert": False}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]},
        post_processor={"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [10], "tokens": ["<s>"]}}},
        decoder={"type": "ByteLevel"})
    yield "tiny_unigram.json", tiny_json(
        model={"type": "Unigram", "unk_id": 0, "byte_fallback": False,
               "vocab": [["<unk>", 0], ["\u2581", -2], ["a", -1.5], ["\u2581a", -2.5], ["b\u00e9\"", -3e0]]},
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "Nmt"}, {"type": "Precompiled",
                              "precompiled_charsmap": base64.b64encode(charsmap("41\t61\n")).decode()}]},
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        decoder={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True})
    yield "vocab.json", json.dumps(tiny_vocab()).encode()
    yield "merges.txt", ("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in merges)).encode()
    yield "tokenizer_config.json", json.dumps(
        {"bos_token": {"content": "ab"}, "eos_token": "abc", "add_bos_token": True,
         "chat_template": [{"name": "default", "template": "{{ x }}"}]}).encode()
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("<0x41>", 0, 6), ("\u2581", -2, 1), ("a", -1, 1),
              ("b", -1, 1), ("ab", -0.5, 1), ("\u2581ab", -0.25, 5), ("xy", 0, 4)]
    for kind, model_type in (("spm", 2), ("unigram", 1)):
        yield f"tiny_{kind}.model", spm_bytes(pieces, model_type)
    yield "tiny.bin", (4).to_bytes(4, "little") + b"".join(
        struct.pack("<fi", score, len(text.encode())) + text.encode()
        for text, score in [("<unk>"[:4], 0), ("s", 0), ("/s", 0), (" ", -1), ("a", -1), ("b", -2), ("ab", -0.5)])
    for kind in ("gpt2", "llama", "t5"):
        yield f"tiny_{kind}.gguf", tiny_gguf(kind, pieces, merges)


def field(number, wire, payload):
    return bytes([number << 3 | wire & 7]) if number < 16 else bytes([(number << 3 | wire) & 127 | 128, number >> 4])


def message(number, data):
    return field(number, 2, None) + bytes([len(data)]) + data if len(data) < 128 else \
        field(number, 2, None) + bytes([len(data) & 127 | 128, len(data) >> 7]) + data


def charsmap(rules):
    """Rules as sentencepiece itself compiles them."""
    folder = tempfile.mkdtemp()
    with open(folder + "/rules.tsv", "w", encoding="ascii") as f:
        f.write(rules)
    model = train_sentencepiece("a b ab abc " * 50 + "\nabc a", 8, model_type="bpe",
                                normalization_rule_tsv=folder + "/rules.tsv")
    shutil.rmtree(folder)
    proto = sentencepiece_model_pb2().ModelProto.FromString(model)
    return proto.normalizer_spec.precompiled_charsmap


def sentencepiece_model_pb2():
    from sentencepiece import sentencepiece_model_pb2 as pb2
    return pb2


def spm_bytes(pieces, model_type):
    out = b""
    for text, score, kind in pieces:
        out += message(1, message(1, text.encode()) + field(2, 5, None) + struct.pack("<f", score) +
                       field(3, 0, None) + bytes([kind]))
    trainer = field(3, 0, None) + bytes([model_type]) + field(35, 0, None) + b"\1"
    return out + message(2, trainer) + message(3, message(2, charsmap("41\t61\n")) + field(4, 0, None) + b"\1")


def gguf_bytes(fill):
    """The GGUF file whose metadata fill(writer) writes."""
    import gguf
    folder = tempfile.mkdtemp()
    path = folder + "/x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with open(path, "rb") as f:
        data = f.read()
    shutil.rmtree(folder)
    return data


def fill_tiny(writer, kind, pieces, merges):
    writer.add_tokenizer_model(kind)
    if kind == "gpt2":
        vocab = list(tiny_vocab()) + ["<s>"]
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(vocab)
        writer.add_token_types([1] * 10 + [3])
        writer.add_token_merges([" ".join(m) for m in merges])
        writer.add_bos_token_id(10)
        writer.add_add_bos_token(True)
    else:
        writer.add_token_list([p[0] for p in pieces])
        writer.add_token_scores([float(p[1]) for p in pieces])
        writer.add_token_types([p[2] for p in pieces])
        writer.add_eos_token_id(2)
        if kind == "t5":
            writer.add_precompiled_charsmap(charsmap("41\t61\n"))
    writer.add_chat_template("{{ x }}")


def tiny_gguf(kind, pieces, merges):
    return gguf_bytes(lambda writer: fill_tiny(writer, kind, pieces, merges))


def fill_vocabulary(writer, name, data):
    if name.startswith("spm"):
        proto = sentencepiece_model_pb2().ModelProto.FromString(data)
        unigram = proto.trainer_spec.model_type == 1
        writer.add_tokenizer_model("t5" if unigram else "llama")
        writer.add_token_list([p.piece for p in proto.pieces])
        writer.add_token_scores([p.score for p in proto.pieces])
        writer.add_token_types([p.type for p in proto.pieces])
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
        writer.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
        if unigram:
            writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    else:
        data = json.loads(data)
        vocab = data["model"]["vocab"]
        added = {t["id"]: t for t in data["added_tokens"]}
        tokens = {**{i: text for text, i in vocab.items()}, **{i: t["content"] for i, t in added.items()}}
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre({"llama3": "llama-bpe", "gpt4o": "gpt-4o", "gpt2": "gpt-2",
                                  "deepseek_coder": "deepseek-coder"}[name])
        writer.add_token_list([tokens[i] for i in range(len(tokens))])
        writer.add_token_types([1 if i not in added else 3 if added[i]["special"] else 4 for i in range(len(tokens))])
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]])


def as_gguf(name, data):
    """The same vocabulary as a GGUF file would have it."""
    return gguf_bytes(lambda writer: fill_vocabulary(writer, name, data))


GGUF_TOO = ["llama3", "gpt4o", "gpt2", "deepseek_coder", "spm_bpe", "spm_unigram"]


def goldens(folder="tests/data/tokenizers"):
    train, text = Writer(3).text(60000), Writer(4).text(2500)
    lines = text.split("\n")
    os.makedirs(folder, exist_ok=True)

    def write(name, data):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
    rules = tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False)
    rules.write(RULES)
    rules.close()
    for name in ("spm_bpe_nmt", "spm_unigram", "spm_unigram_bytes"):
        SENTENCEPIECE[name].pop("normalization_rule_name", None)
        SENTENCEPIECE[name]["normalization_rule_tsv"] = rules.name
    write("text.txt", text.encode())
    cases = []
    for name, file, data, encode, _ in all_tokenizers(train, 460):
        # what names added tokens may differ where a file format says less about them
        if name in ("llama3", "gpt4o", "gpt2", "deepseek_coder"):
            data = json.loads(data)
            data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] != "#if" and t["content"] != "HTTP"]
            for token in data["added_tokens"]:
                token["normalized"] = False
            for i, token in enumerate(sorted(data["added_tokens"], key=lambda t: t["id"])):
                token["id"] = i if i < 2 else len(data["model"]["vocab"]) + i - 2
            data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
            t = Tokenizer.from_str(data.decode())

            def encode(line, t=t):
                return t.encode(line, add_special_tokens=False).ids
        ids = "".join(" ".join(map(str, encode(line))) + "\n" for line in lines).encode()
        stem = name + (".json" if file.endswith("json") else ".model")
        write(stem, data)
        write(name + ".ids", ids)
        # U+2581 comes back as a space where it stands for one: 2 = but for lines that have it
        reversible = 2 if name in ("spm_bpe", "spm_suffixless", "llama2", "gemma") else name in ("llama3", "gpt4o", "gpt2", "deepseek_coder")
        cases.append((stem, name + ".ids", is_special(name), reversible))
        if name in GGUF_TOO:
            write(name + ".gguf", as_gguf(name, data))
            cases.append((name + ".gguf", name + ".ids", is_special(name), reversible))
    os.makedirs(os.path.join(folder, "tiny"), exist_ok=True)
    for name, data in tiny_files():
        write(os.path.join("tiny", name), data)
    write("list.txt", "".join(f"{a} {b} {int(c)} {int(d)}\n" for a, b, c, d in cases).encode())
    os.unlink(rules.name)
    return 0


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "check":
        return check(int((sys.argv[2:] + [1000000])[0]), *sys.argv[3:4]) > 0
    if sys.argv[1:] == ["goldens"]:
        return goldens()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
