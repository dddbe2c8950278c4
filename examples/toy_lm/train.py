#!/usr/bin/env python3
"""Train a very small Llama-shaped language model, and its tokenizer, on one text file.

    python3 train.py --text tinyshakespeare.txt --out . --steps 2900 --check

Needs torch 2.9 or later, safetensors and numpy (and transformers for --check).  Writes

    tokenizer.bin      the pieces and their scores, in llama2.c's format
    config.json        the shape of the model, as Hugging Face's LlamaForCausalLM has it
    model.safetensors  the weights in bfloat16, under LlamaForCausalLM's names
"""
import argparse
import collections
import json
import math
import os
import re
import struct
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save as pack

UNK, BOS, EOS, FIRST_BYTE, FIRST_PIECE = 0, 1, 2, 3, 259
IGNORE = -100          # target id that the loss skips
HELD_OUT = 0.1         # the last tenth of the text is never trained on


# ---------------------------------------------------------------- tokenizer

# The places no merge may cross while the pieces are learnt: a word may hold one leading
# space and one leading apostrophe, and a line end is "\n" or "\n\n" and nothing else.
WORD = re.compile(r"\n\n|\n| ?'?[A-Za-z]+| ?[^\sA-Za-z]+|\s")
LINE = re.compile(r"\n+|[^\n]+")   # no piece mixes a line end with other text


def merge_pair(symbols, pair):
    """Replace each occurrence of the two adjacent symbols in pair by their concatenation."""
    out, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i:i + 2]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def learn_pieces(text, count):
    """Byte-pair encoding over characters: the alphabet of the text, then merges by frequency."""
    words = [(list(w), n) for w, n in collections.Counter(WORD.findall(text)).items()]
    pieces = sorted(set(text))
    while len(pieces) < count:
        pairs = collections.Counter()
        for symbols, n in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda p: (pairs[p], p))
        pieces.append(best[0] + best[1])
        words = [(merge_pair(s, best), n) for s, n in words]
    return pieces


class Tokenizer:
    """llama2.c's encoding: characters first, then always the best-scored adjacent merge.

    Ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes <0x00>..<0xFF>, then the pieces: the
    alphabet in code point order, followed by the merges in the order they were learnt.
    A merge's score is minus its rank, so that the earliest merge goes first.
    """

    def __init__(self, pieces):
        alphabet = sum(len(p) == 1 for p in pieces)
        self.tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
        merges = len(pieces) - alphabet
        self.scores = [0.0] * (FIRST_PIECE + alphabet) + [-float(r + 1) for r in range(merges)]
        self.id_of = {p: FIRST_PIECE + i for i, p in enumerate(pieces)}

    def __len__(self):
        return len(self.tokens)

    def encode(self, text):
        """The ids of text exactly as it stands: no <s>, no added space."""
        ids = []
        for ch in text:
            known = self.id_of.get(ch)
            ids += [known] if known is not None else [FIRST_BYTE + b for b in ch.encode("utf-8")]
        while True:
            best_score, best_at, best_id = -1e10, -1, -1
            for i in range(len(ids) - 1):
                merged = self.id_of.get(self.tokens[ids[i]] + self.tokens[ids[i + 1]])
                if merged is not None and self.scores[merged] > best_score:
                    best_score, best_at, best_id = self.scores[merged], i, merged
            if best_at < 0:
                return ids
            ids[best_at:best_at + 2] = [best_id]

    def decode(self, ids):
        """The text of ids; the space that follows <s> is the encoder's own and goes away."""
        out, previous = b"", None
        for i in ids:
            if i >= FIRST_PIECE:
                piece = self.tokens[i].encode("utf-8")
                out += piece[1:] if previous == BOS and piece[:1] == b" " else piece
            elif i >= FIRST_BYTE:
                out += bytes([i - FIRST_BYTE])
            previous = i
        return out.decode("utf-8", "replace")

    def to_bytes(self):
        raw = [t.encode("utf-8") for t in self.tokens]
        out = struct.pack("<I", max(len(r) for r in raw))
        return out + b"".join(struct.pack("<fi", s, len(r)) + r for s, r in zip(self.scores, raw))


# ---------------------------------------------------------------- data

Line = collections.namedtuple("Line", "spaced begin end next chars opens_speech")


class Corpus:
    """A text as one stream of ids, and windows of it that begin with <s> at a line start.

    As llama2.c's encoder does, a window's first line gets a space in front.
    """

    def __init__(self, text, tokenizer, context):
        self.context = context
        self.lines, stream, chunks, opens = [], [], LINE.findall(text.lstrip("\n")), True
        for line, gap in zip(chunks[::2], chunks[1::2] + [""]):
            begin = len(stream)
            stream += tokenizer.encode(line)
            end = len(stream)
            stream += tokenizer.encode(gap)
            self.lines.append(Line(tokenizer.encode(" " + line), begin, end, len(stream),
                                   len(line) + len(gap), opens))
            opens = len(gap) > 1
        self.stream = np.array(stream, dtype=np.int64)
        whole = [line for line in self.lines if line.end + context <= len(stream)]
        self.starts = whole, [line for line in whole if line.opens_speech]

    def window(self, line):
        head = np.array([BOS] + line.spaced, dtype=np.int64)
        return np.concatenate([head, self.stream[line.end:line.end + self.context]])[:self.context + 1]

    def batch(self, size, rng):
        """Random windows, half of them from the start of a speech, half from any line."""
        pools = [self.starts[i % 2] for i in range(size)]
        rows = torch.from_numpy(np.stack([self.window(p[rng.integers(len(p))]) for p in pools]))
        return rows[:, :-1], rows[:, 1:]

    def all_windows(self):
        """The whole text, cut into windows of whole lines: inputs, targets, characters."""
        rows = []
        for line in self.lines:
            if not rows or len(rows[-1]) + line.next - line.begin > self.context + 1:
                rows.append([BOS] + line.spaced)
            else:
                rows[-1] += self.stream[line.begin:line.end].tolist()
            rows[-1] += self.stream[line.end:line.next].tolist()
        x = torch.full((len(rows), self.context), BOS)
        y = torch.full((len(rows), self.context), IGNORE)
        for i, row in enumerate(rows):
            row = torch.tensor(row[:self.context + 1])
            x[i, :len(row) - 1], y[i, :len(row) - 1] = row[:-1], row[1:]
        return x, y, sum(line.chars for line in self.lines)


# ---------------------------------------------------------------- model

class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


def rotate(x, cos, sin):
    """Rotary embedding: dimension i turns together with dimension i + head_dim / 2."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    """Causal attention in which several query heads share a key and value head."""

    def __init__(self, c):
        super().__init__()
        dim, size = c["hidden_size"], c["head_dim"]
        self.size, self.group = size, c["num_attention_heads"] // c["num_key_value_heads"]
        self.q_proj = nn.Linear(dim, c["num_attention_heads"] * size, bias=False)
        self.k_proj = nn.Linear(dim, c["num_key_value_heads"] * size, bias=False)
        self.v_proj = nn.Linear(dim, c["num_key_value_heads"] * size, bias=False)
        self.o_proj = nn.Linear(c["num_attention_heads"] * size, dim, bias=False)

    def heads(self, x):
        return x.unflatten(-1, (-1, self.size)).transpose(1, 2)

    def forward(self, x, cos, sin):
        q, k, v = (self.heads(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v.float()))
        with torch.autocast("cpu", enabled=False):   # on a CPU, faster in float32 than in bfloat16
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, hidden = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = MLP(c)

    def forward(self, x, cos, sin, drop):
        x = x + drop(self.self_attn(self.input_layernorm(x), cos, sin))
        return x + drop(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Llama(nn.Module):
    """The modules are nested so that the state dict has LlamaForCausalLM's names."""

    def __init__(self, c, dropout=0.0):
        super().__init__()
        self.model, self.drop = Decoder(c), nn.Dropout(dropout)
        half = c["head_dim"] // 2
        turns = c["rope_theta"] ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(c["max_position_embeddings"]), turns)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 if not small else 0.02 / math.sqrt(2 * len(self.model.layers)))

    def forward(self, ids):
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        x = self.drop(self.model.embed_tokens(ids))
        for layer in self.model.layers:
            x = layer(x, cos, sin, self.drop)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def model_config(args, vocab_size):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": args.dim,
        "intermediate_size": args.hidden,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads,
        "head_dim": args.head_dim,
        "max_position_embeddings": args.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "torch_dtype": "bfloat16",
    }


# ---------------------------------------------------------------- training

def rounded(model):
    """The weights as they are stored."""
    return {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}


@torch.no_grad()
def evaluate(config, weights, windows):
    """Cross-entropy per token and bits per character, with the stored weights in float32."""
    model = Llama(config).eval()
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    x, y, chars = windows
    total = sum(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), ignore_index=IGNORE,
                                reduction="sum").item() for a, b in zip(x.split(16), y.split(16)))
    return total / (y != IGNORE).sum().item(), total / math.log(2) / chars


def save(out, tokenizer, config, weights):
    """Write each file beside its place first, so that no reader ever sees half of one."""
    files = {
        "tokenizer.bin": tokenizer.to_bytes(),
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "model.safetensors": pack(weights, metadata={"format": "pt"}),
    }
    for name, data in files.items():
        path = os.path.join(out, name)
        with open(path + ".new", "wb") as f:
            f.write(data)
        os.replace(path + ".new", path)


def make_optimizers(model, lr, decay):
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim == 1]
    embedding = [model.model.embed_tokens.weight]
    return [torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW([{"params": embedding, "weight_decay": decay},
                               {"params": norms, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.98))]


def rate(progress):
    """Linear warm-up over the first 2 %, then half a cosine down to nothing."""
    return min(1.0, progress / 0.02) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(args, config, tokenizer, train_set, val_set):
    model = Llama(config, args.dropout)
    optimizers = make_optimizers(model, args.lr, args.decay)
    rng = np.random.default_rng(args.seed)
    val_windows = val_set.all_windows()
    best, step, mean, start = math.inf, 0, None, time.time()
    while True:
        progress = max((step + 1) / args.steps if args.steps else 0,
                       (time.time() - start) / (60 * args.minutes) if args.minutes else 0)
        for o in optimizers:
            for group in o.param_groups:
                group["lr"] = args.lr * rate(progress)
        x, y = train_set.batch(args.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
        step += 1
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % args.every == 0 or progress >= 1:
            weights = rounded(model)
            val, bpc = evaluate(config, weights, val_windows)
            print(f"step {step:5d}  {time.time() - start:6.0f} s  train {mean:.4f}  "
                  f"val {val:.4f}  {bpc:.4f} bits/char{'  *' if val < best else ''}", flush=True)
            if val < best:
                best = val
                save(args.out, tokenizer, config, weights)
        if progress >= 1:
            return


# ---------------------------------------------------------------- after training

@torch.no_grad()
def generate(model, tokenizer, count, temperature, seed, prompt=""):
    """Continue <s> (and the prompt, with a space in front of it) by count tokens."""
    ids = [BOS] + (tokenizer.encode(" " + prompt) if prompt else [])
    rng = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = model(torch.tensor([ids]))[0, -1]
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            ids.append(int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng)))
    return tokenizer.decode(ids)


def report(args, config, tokenizer, sets):
    """Losses, samples and (with --check) a comparison of what is on the disk."""
    weights = load_file(os.path.join(args.out, "model.safetensors"))
    for name, part in sets.items():
        loss, bpc = evaluate(config, weights, part.all_windows())
        print(f"{name}: {loss:.4f} nats per token, {bpc:.4f} bits per character")
    model = Llama(config).eval()
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    print(f"parameters: {sum(p.numel() for p in model.parameters())}")
    for temperature in (0, 0.8):
        print(f"--- temperature {temperature}\n{generate(model, tokenizer, 200, temperature, args.seed)}")
    if args.check:
        check(args.out, model, sets["val"].all_windows()[0][:4])


@torch.no_grad()
def check(out, model, ids):
    from transformers import LlamaForCausalLM
    other = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    gap = (other(ids).logits - model(ids)).abs().max().item()
    print(f"largest difference from transformers' logits: {gap:.2e}")
    assert gap < 1e-3


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--text", required=True)
    p.add_argument("--out", default=".")
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--minutes", type=float, default=0, help="stop by the clock instead of by --steps")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--check", action="store_true", help="compare with transformers at the end")
    p.add_argument("--vocab", type=int, default=512)
    p.add_argument("--dim", type=int, default=128)
    p.add_argument("--hidden", type=int, default=320)
    p.add_argument("--layers", type=int, default=5)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--head-dim", type=int, default=32)
    p.add_argument("--context", type=int, default=256)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--lr", type=float, default=6e-3)
    p.add_argument("--decay", type=float, default=0.3)
    p.add_argument("--dropout", type=float, default=0.2)
    p.add_argument("--every", type=int, default=200, help="steps between evaluations")
    args = p.parse_args()
    if not args.steps and not args.minutes:
        p.error("give --steps or --minutes")
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)

    with open(args.text, encoding="utf-8") as f:
        text = f.read()
    cut = text.index("\n\n", int(len(text) * (1 - HELD_OUT))) + 2
    tokenizer = Tokenizer(learn_pieces(text[:cut], args.vocab - FIRST_PIECE))
    config = model_config(args, len(tokenizer))
    sets = {"train": Corpus(text[:cut], tokenizer, args.context),
            "val": Corpus(text[cut:], tokenizer, args.context)}
    for name, part in sets.items():
        chars = sum(line.chars for line in part.lines)
        print(f"{name}: {chars} characters, {len(part.stream)} tokens")
    train(args, config, tokenizer, sets["train"], sets["val"])
    report(args, config, tokenizer, sets)


if __name__ == "__main__":
    main()
