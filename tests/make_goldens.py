#!/usr/bin/env python3
"""Golden data for transformer.h: tiny random models of every family, and the logits they must give.

    python3 tests/make_goldens.py --out tests/goldens               every fixed case
    python3 tests/make_goldens.py --out DIR --only NAME[,NAME...]   some of them
    python3 tests/make_goldens.py --out DIR --seed 7 --random 50    fresh random models of the same families

Needs Python 3 with torch, transformers, safetensors and numpy; the C tests need only the files it writes.
Each case is one entry of CASES below. A model of class `type` is built by Hugging Face transformers from the
config keys given, every parameter is overwritten (norms not 1, biases not 0), and transformers itself saves it.
The saved directory is then loaded again, after the edits the case asks for, and run in float64: those logits are
the golden ones. Families that transformers does not have are written out in REFERENCE, in plain float64 torch.
The format of the files is described in the README.md that this script writes next to them.
"""
import argparse
import contextlib
import copy
import json
import math
import os
import random
import shutil
import struct
import sys
import warnings
import zlib

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

VOCAB = 47
SEQ = 40
F64 = torch.float64

# ------------------------------------------------------------------------------------------------ cases
# case(name, type, config keys..., _option=...). Options start with an underscore:
#   _seq        number of tokens (default 40)
#   _positions  positions whose logits are stored (default all)
#   _dtype      dtype of the saved weights: f32 (default), f16, bf16
#   _taps       also store the residual stream
#   _shards     max_shard_size, for a checkpoint in several files
#   _edit       names of edits applied to the saved directory before it is run (see EDITS)
#   _rope_length  the frequencies depend on the number of tokens: note it in golden.json
#   _note       what the case is for

CASES = []


def case(name, type, _note="", **kw):
    opt = {k[1:]: kw.pop(k) for k in list(kw) if k.startswith("_")}
    CASES.append(dict(name=name, type=type, config=kw, note=_note, **opt))


# Key sets shared by most families.
HF = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=28,
          max_position_embeddings=64)
HF2 = dict(HF, num_hidden_layers=2)
GPT = dict(n_embd=24, n_layer=3, n_head=3, n_positions=48)
GPT_2 = dict(GPT, n_layer=2)
LONG = dict(_seq=200, _positions=[0, 1, 5, 31, 32, 33, 63, 64, 65, 100, 127, 128, 150, 198, 199])
VERY_LONG = dict(_seq=1500, _positions=[0, 1, 31, 255, 256, 257, 511, 1000, 1023, 1024, 1400, 1498, 1499])


def rope(theta=10000.0, type="default", **kw):
    return dict(rope_type=type, rope_theta=theta, **kw)


# --- GPT-2 and relatives
case("gpt2", "gpt2", **GPT, _taps=1, _note="plain; 3 heads; residual stream stored")
case("gpt2_odd", "gpt2", **dict(GPT, n_head=4, n_inner=40, activation_function="gelu"), layer_norm_epsilon=1e-2,
     scale_attn_by_inverse_layer_idx=True, _note="scale_attn_by_inverse_layer_idx, n_inner, erf GELU, eps 1e-2")
case("gpt2_noscale", "gpt2", **dict(GPT_2, n_inner=20, activation_function="relu"), scale_attn_weights=False,
     reorder_and_upcast_attn=True, tie_word_embeddings=False,
     _note="scale_attn_weights false, ReLU, untied head, n_inner < n_embd")
case("gpt2_hub", "gpt2", **dict(GPT_2, n_inner=32), _edit=["legacy", "no_prefix", "gpt2_buffers"],
     _note="as on the hub: no transformer. prefix, attn.bias mask buffers")
case("gpt2_f16", "gpt2", **GPT_2, _dtype="f16", _note="F16 weights")
case("gpt2_bf16", "gpt2", **GPT_2, _dtype="bf16", _note="BF16 weights")
case("gpt2_sharded", "gpt2", **dict(GPT_2, n_inner=32), _shards="20KB",
     _note="several safetensors files with an index")
case("gpt_neo", "gpt_neo", hidden_size=24, num_layers=3, num_heads=3, max_position_embeddings=48, window_size=7,
     attention_types=[[["global", "local"], 1], [["global"], 1]], _note="global/local/global, window 7, dim*4 MLP")
case("gpt_neo_odd", "gpt_neo", hidden_size=24, num_layers=3, num_heads=4, max_position_embeddings=48, window_size=5,
     attention_types=[[["local"], 2], [["global"], 1]], intermediate_size=40, activation_function="relu",
     layer_norm_epsilon=1e-2, _edit=["no_layer_types"], _note="local/local/global, window 5, intermediate_size, ReLU")
case("gptj", "gptj", **GPT_2, rotary_dim=4, _note="rotary_dim 4 of 8, interleaved, head bias")
case("gptj_odd", "gptj", **dict(GPT_2, n_head=2, n_inner=40, activation_function="gelu"), rotary_dim=12,
     layer_norm_epsilon=1e-2, tie_word_embeddings=True, _note="rotary_dim = head_dim, n_inner, erf GELU")
NEOX = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=36,
            max_position_embeddings=64)
case("gpt_neox", "gpt_neox", **NEOX, rope_parameters=rope(partial_rotary_factor=0.5),
     _note="parallel, two norms, rotary half of 8")
case("gpt_neox_sequential", "gpt_neox", **dict(NEOX, num_hidden_layers=2, num_attention_heads=4),
     use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast", tie_word_embeddings=True,
     rope_parameters=rope(1000.0, partial_rotary_factor=1.0), layer_norm_eps=1e-2,
     _note="sequential, no attention biases, gelu_fast (tanh), full rotary, theta 1000, tied")
case("gpt_neox_pythia", "gpt_neox", **dict(NEOX, num_hidden_layers=2, num_attention_heads=2, hidden_size=32),
     rope_parameters=rope(partial_rotary_factor=0.25), _edit=["legacy", "neox_buffers"],
     _note="Pythia: rotary_pct 0.25 of 16, old config keys, old buffers in the file")
case("opt", "opt", hidden_size=24, num_hidden_layers=3, num_attention_heads=3, ffn_dim=36, max_position_embeddings=48,
     _note="125m style: pre-norm, position rows offset by 2")
case("opt_350m", "opt", hidden_size=24, num_hidden_layers=2, num_attention_heads=4, ffn_dim=36,
     max_position_embeddings=48, do_layer_norm_before=False, word_embed_proj_dim=16,
     _note="350m style: post-norm, no final norm, project_in and project_out")
case("opt_bare", "opt", hidden_size=24, num_hidden_layers=2, num_attention_heads=4, ffn_dim=36,
     max_position_embeddings=48, enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu",
     _note="no biases, norms without parameters, erf GELU")
case("opt_nofinal", "opt", hidden_size=24, num_hidden_layers=2, num_attention_heads=4, ffn_dim=36,
     max_position_embeddings=48, _remove_final=1, tie_word_embeddings=False,
     _note="_remove_final_layer_norm, untied head")
case("bloom", "bloom", hidden_size=24, n_layer=2, n_head=6, _note="6 heads: ALiBi slopes for a non power of two")
case("bloom_odd", "bloom", hidden_size=24, n_layer=2, n_head=3, apply_residual_connection_post_layernorm=True,
     _edit=["legacy", "no_prefix"], layer_norm_epsilon=1e-2,
     _note="residual taken after the norm; 3 heads; no transformer. prefix")
case("mpt", "mpt", d_model=24, n_layers=2, n_heads=4, max_seq_len=48, _note="ALiBi, norms without bias")
case("mpt_odd", "mpt", d_model=24, n_layers=2, n_heads=3, max_seq_len=48, layer_norm_epsilon=1e-2,
     attn_config=dict(clip_qkv=0.9, softmax_scale=0.55), _note="clip_qkv, softmax_scale, 3 heads, eps 1e-2")
FALCON = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, max_position_embeddings=64,
              ffn_hidden_size=40)
case("falcon_7b", "falcon", **FALCON, multi_query=True, _note="parallel, one norm, one kv head")
case("falcon_40b", "falcon", **dict(FALCON, num_hidden_layers=2, num_attention_heads=4), num_kv_heads=2,
     new_decoder_architecture=True, tie_word_embeddings=False,
     _note="new architecture: two norms, grouped qkv, untied")
case("falcon_11b", "falcon", **dict(FALCON, num_hidden_layers=2, num_attention_heads=6), num_kv_heads=3, bias=True,
     new_decoder_architecture=True, num_ln_in_parallel_attn=1, rope_parameters=rope(50000.0), _edit=["legacy"],
     layer_norm_epsilon=1e-2, _note="new architecture with one shared norm; biases; old config keys")
case("falcon_rw", "falcon", **dict(FALCON, hidden_size=32, num_attention_heads=8, num_hidden_layers=2), bias=True,
     alibi=True, parallel_attn=False, multi_query=False, layer_norm_epsilon=1e-2,
     _note="RW: ALiBi inside the scale, sequential, biases, 8 heads (slopes exact in bf16)")
case("falcon_rw_rounded", "falcon", **dict(FALCON, num_attention_heads=6, num_hidden_layers=2), bias=True, alibi=True,
     parallel_attn=False, multi_query=False, activation="relu",
     _note="RW with 6 heads: bf16(slope)*position rounded to bf16; ReLU")
case("falcon_mha", "falcon", **dict(FALCON, num_hidden_layers=2, ffn_hidden_size=None), multi_query=False,
     parallel_attn=False, _note="old architecture, per-head qkv, sequential, RoPE, default 4x MLP")
case("stablelm", "stablelm", **dict(HF2, num_attention_heads=3, num_key_value_heads=3),
     _note="3B: 0.25 of head_dim 8, MHA")
case("stablelm_bias", "stablelm", **HF2, use_qkv_bias=True, rope_parameters=rope(partial_rotary_factor=0.67),
     _edit=["legacy"], layer_norm_eps=1e-2, tie_word_embeddings=True,
     _note="1.6B: qkv biases; GQA; odd rotary fraction; old config keys")
case("stablelm_12b", "stablelm", **dict(HF2, hidden_size=32), use_parallel_residual=True, qk_layernorm=True,
     rope_parameters=rope(partial_rotary_factor=0.5), _note="12B: parallel with one norm, a qk LayerNorm per head")
case("phi", "phi", **dict(HF2, num_attention_heads=3, num_key_value_heads=None),
     _note="parallel, head bias, 0.5 of 8")
case("phi_odd", "phi", **HF2, qk_layernorm=True, rope_parameters=rope(500.0, partial_rotary_factor=0.7),
     hidden_act="gelu", tie_word_embeddings=True, _edit=["legacy"], layer_norm_eps=1e-2,
     _note="qk_layernorm (weight and bias, one for all heads), GQA, int(0.7 * 6) = 4, tied; old keys")

# --- Llama and relatives
case("llama", "llama", **dict(HF, num_key_value_heads=4), rms_norm_eps=1e-5, _note="llama 2: MHA, untied")
case("llama_bias", "llama", **HF2, head_dim=8, attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh",
     rms_norm_eps=1e-2, _note="attention_bias, mlp_bias, head_dim != dim/heads, GELU in the gate")
case("llama_tied", "llama", **dict(HF, num_attention_heads=6, num_key_value_heads=3, head_dim=6), rms_norm_eps=1e-5,
     tie_word_embeddings=True, rope_parameters=rope(500000.0), _taps=1,
     _note="llama 3 style: GQA, theta 5e5, tied; residual stream stored")
case("llama_hub", "llama", **HF2, tie_word_embeddings=True, _edit=["legacy", "llama_buffers", "duplicate_head"],
     _note="old config keys, rotary_emb.inv_freq buffers, tied and yet a copy of the head in the file")
case("llama_1500", "llama", **dict(HF2, max_position_embeddings=2048), **VERY_LONG,
     _note="plain RoPE to position 1499")
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
case("llama_llama3", "llama", **dict(HF2, head_dim=16, max_position_embeddings=256), **LONG,
     rope_parameters=rope(1000.0, "llama3", original_max_position_embeddings=32, **LLAMA3), _note="llama3 scaling")
case("llama_llama3_1500", "llama", **dict(HF2, head_dim=16, max_position_embeddings=2048), **VERY_LONG,
     rope_parameters=rope(500000.0, "llama3", original_max_position_embeddings=256, **dict(LLAMA3, factor=32.0)),
     _edit=["legacy"], _note="llama3 scaling, factor 32, to position 1499; old config keys")
case("llama_linear", "llama", **dict(HF2, max_position_embeddings=256), **LONG, rope_parameters=rope(10000.0,
     "linear", factor=4.0), _note="linear scaling")
case("llama_linear_old", "llama", **HF2, rope_parameters=rope(10000.0, "linear", factor=2.5), _edit=["legacy",
     "rope_type_as_type"], _note="linear scaling, rope_scaling.type as old files have it")
case("llama_dynamic", "llama", **dict(HF2, head_dim=8, max_position_embeddings=32), **LONG, _rope_length=1,
     rope_parameters=rope(10000.0, "dynamic", factor=2.0),
     _note="dynamic NTK: frequencies of the whole length, 200 tokens, original 32")
case("llama_dynamic_short", "llama", **dict(HF2, head_dim=8), _rope_length=1, rope_parameters=rope(10000.0, "dynamic",
     factor=2.0), _note="dynamic NTK below the original length: no change")
case("llama_yarn", "llama", **dict(HF2, head_dim=16, max_position_embeddings=256), **LONG, rope_parameters=rope(500.0,
     "yarn", factor=8.0, original_max_position_embeddings=32), _note="yarn, default betas")
case("llama_f16", "llama", **dict(HF2, head_dim=8), _dtype="f16", _note="F16 weights")
case("llama_bf16", "llama", **dict(HF2, head_dim=8), _dtype="bf16", _note="BF16 weights")
case("llama_sharded", "llama", **HF2, _shards="18KB", _note="several safetensors files with an index")
case("mistral", "mistral", **dict(HF, head_dim=8), sliding_window=9, _note="window 9, head_dim 8 (dim/heads 6)")
case("mistral_nemo", "mistral", **dict(HF2, head_dim=10, num_attention_heads=3, num_key_value_heads=1),
     sliding_window=None, rope_parameters=rope(1e6), _edit=["legacy"], rms_norm_eps=1e-2, tie_word_embeddings=True,
     _note="no window, head_dim 10, theta 1e6")
case("qwen2", "qwen2", **HF2, sliding_window=7, tie_word_embeddings=True, _edit=["legacy", "unused_window"],
     _note="qkv biases, tied; sliding_window present but not used")
case("qwen2_window", "qwen2", **HF, use_sliding_window=True, sliding_window=9, max_window_layers=1, rms_norm_eps=1e-2,
     _edit=["legacy"], _note="window 9 on layers >= 1")
case("qwen2_yarn", "qwen2", **dict(HF2, hidden_size=32, num_attention_heads=2, num_key_value_heads=1,
     max_position_embeddings=256), **LONG, rope_parameters=rope(1000.0, "yarn", factor=4.0, beta_fast=4,
     beta_slow=0.5, original_max_position_embeddings=64), _edit=["legacy"],
     _note="yarn with beta_fast, beta_slow; old config keys")
case("qwen3", "qwen3", **dict(HF, head_dim=10), tie_word_embeddings=True, _taps=1, rms_norm_eps=1e-2,
     _note="qk-norm per head, head_dim 10 (dim/heads 6), tied; residual stream stored")
case("qwen3_yarn", "qwen3", **dict(HF2, head_dim=16, num_attention_heads=3, num_key_value_heads=3,
     max_position_embeddings=256), attention_bias=True, **LONG, use_sliding_window=True, sliding_window=50,
     max_window_layers=1, rope_parameters=rope(2000.0, "yarn", factor=4.0, original_max_position_embeddings=64,
     beta_fast=3.0, beta_slow=0.5, truncate=False, attention_factor=1.25), _edit=["legacy"],
     _note="yarn untruncated with attention_factor, all biases, window 50 on layer 1")
case("phi3", "phi3", **HF, sliding_window=9, rms_norm_eps=1e-2, _note="fused qkv and gate_up, window 9")
PHI3_LONG = dict(HF2, hidden_size=32, num_attention_heads=4, max_position_embeddings=256,
                 original_max_position_embeddings=64, _rope_length=1, rope_parameters=rope(10000.0, "longrope",
                 short_factor=[1.0, 1.1, 1.25, 1.5], long_factor=[1.5, 2.0, 4.0, 7.5]))
case("phi3_longrope_short", "phi3", **PHI3_LONG, _note="longrope, 40 tokens <= original 64: short factors")
case("phi3_longrope_long", "phi3", **{**PHI3_LONG, **LONG}, _edit=["legacy"],
     _note="longrope, 200 tokens > original 64: long factors; old config keys")
case("phi3_partial", "phi3", **dict(PHI3_LONG, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
     rope_parameters=rope(10000.0, "longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.05, 1.1, 1.2, 1.3,
     1.4], long_factor=[1.5, 2.0, 3.0, 4.0, 6.0, 9.0])), _edit=["legacy"], _rename_longrope="su",
     _note="phi-4-mini: partial_rotary_factor 0.75, tied; old name su for longrope")

# --- Gemma
case("gemma", "gemma", **dict(HF2, head_dim=8, num_key_value_heads=1), _note="(1+w) norms, sqrt(dim), GELU tanh, MQA")
case("gemma_old", "gemma", **dict(HF2, head_dim=8), hidden_act="gelu", attention_bias=True, _edit=["legacy",
     "gelu_means_tanh"], rms_norm_eps=1e-2, _note="hidden_act gelu (means tanh), attention biases, old config keys")
case("gemma2", "gemma2", **dict(HF, head_dim=8), query_pre_attn_scalar=13, sliding_window=7,
     attn_logit_softcapping=2.0, final_logit_softcapping=4.0, _taps=1, _edit=["no_layer_types"],
     _note="softcaps, window 7 on even layers, scale 13^-0.5; residual stream")
case("gemma2_odd", "gemma2", **dict(HF2, head_dim=6, num_attention_heads=6), query_pre_attn_scalar=4,
     attn_logit_softcapping=None, final_logit_softcapping=None, sliding_window=5, layer_types=["full_attention",
     "sliding_attention"], attention_bias=True, rms_norm_eps=1e-2,
     _note="no softcaps, layer_types given the other way round, biases")
GEMMA3 = dict(HF, num_hidden_layers=4, head_dim=8, query_pre_attn_scalar=11, sliding_window=7)
G3_TYPES = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]


def gemma3_rope(**full):
    return dict(sliding_attention=rope(10000.0), full_attention=rope(1e6, **full))


case("gemma3", "gemma3_text", **GEMMA3, layer_types=G3_TYPES, rope_parameters=gemma3_rope(), rms_norm_eps=1e-2,
     _note="local/local/global, two thetas, qk-norm, scale 11^-0.5")
case("gemma3_linear", "gemma3_text", **dict(GEMMA3, num_hidden_layers=3, max_position_embeddings=512), **LONG,
     layer_types=G3_TYPES[:3], rope_parameters=gemma3_rope(type="linear", factor=8.0), _edit=["legacy"],
     _note="linear scaling on global layers only; old config keys (sliding_window_pattern, rope_local_base_freq)")
case("gemma3_seven", "gemma3_text", **dict(GEMMA3, num_hidden_layers=7, intermediate_size=20, num_key_value_heads=1),
     _edit=["legacy_default_pattern"], _note="7 layers, no pattern key at all: every sixth layer is global")
case("gemma3_f16", "gemma3_text", **GEMMA3, layer_types=G3_TYPES, _dtype="f16", _note="F16 weights")
case("gemma3_bf16", "gemma3_text", **GEMMA3, layer_types=G3_TYPES, _dtype="bf16", _note="BF16 weights")
case("gemma3_wrapped", "gemma3", text_config=dict(GEMMA3, layer_types=G3_TYPES, vocab_size=VOCAB,
     rope_parameters=gemma3_rope()), vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
     num_attention_heads=2, image_size=8, patch_size=4), image_token_index=46, boi_token_index=45, eoi_token_index=44,
     mm_tokens_per_image=1, _note="text_config and a language_model prefix, with a vision tower to skip")

# --- OLMo, SmolLM3, Granite, Cohere, GLM, ERNIE
case("olmo", "olmo", **dict(HF2, num_key_value_heads=4), _note="LayerNorm without parameters, untied")
case("olmo_clip", "olmo", **HF2, clip_qkv=1.2, attention_bias=True, tie_word_embeddings=True, _edit=["legacy"],
     _note="clip_qkv, GQA, biases, tied")
case("olmo2", "olmo2", **HF2, _note="norms on sublayer outputs, full-width qk-norm, GQA")
case("olmo2_odd", "olmo2", **dict(HF2, num_attention_heads=3, num_key_value_heads=3), attention_bias=True,
     rope_parameters=rope(500000.0), rms_norm_eps=1e-2, tie_word_embeddings=True, _edit=["legacy"],
     _note="MHA, biases, eps 1e-2, tied")
case("olmo3", "olmo3", **dict(HF, num_hidden_layers=5, intermediate_size=20), sliding_window=7, rms_norm_eps=1e-2,
     _note="window 7 on three layers of four, 5 layers")
case("olmo3_yarn", "olmo3", **dict(HF2, hidden_size=32, num_attention_heads=2, num_key_value_heads=1,
     max_position_embeddings=256), **LONG, sliding_window=20, layer_types=["sliding_attention", "full_attention"],
     rope_parameters=dict(sliding_attention=rope(3000.0), full_attention=rope(300.0, "yarn", factor=8.0,
     original_max_position_embeddings=64, beta_fast=2.0, beta_slow=0.25, attention_factor=1.2)),
     _note="yarn on full layers only, two thetas")
case("olmo3_old", "olmo3", **dict(HF2, hidden_size=32, num_attention_heads=2, num_key_value_heads=2),
     sliding_window=20, layer_types=["full_attention", "sliding_attention"],
     rope_parameters=dict(sliding_attention=rope(500000.0), full_attention=rope(500000.0, "yarn", factor=8.0,
     original_max_position_embeddings=32, attention_factor=1.2079441541679836, beta_fast=32.0, beta_slow=1.0)),
     _edit=["legacy"], tie_word_embeddings=True, _note="the same with rope_theta and rope_scaling")
case("smollm3", "smollm3", **dict(HF, num_hidden_layers=5, intermediate_size=20),
     _note="no RoPE on layer 3 (every fourth), 5 layers, tied")
case("smollm3_odd", "smollm3", **dict(HF, max_position_embeddings=256), no_rope_layers=[0, 1, 0], attention_bias=True,
     mlp_bias=True, use_sliding_window=True, sliding_window=9, tie_word_embeddings=False, rope_parameters=rope(5000.0,
     "yarn", factor=4.0, original_max_position_embeddings=64, mscale=1.5, mscale_all_dim=0.7), _edit=["legacy"],
     rms_norm_eps=1e-2, _note="no_rope_layers 0,1,0; window on the NoPE layers; biases; yarn with mscale; untied")
GRANITE = dict(embedding_multiplier=6.0, attention_multiplier=0.23, residual_multiplier=0.4, logits_scaling=3.0)
case("granite", "granite", **HF, **GRANITE, tie_word_embeddings=True, _note="all four multipliers, tied")
case("granite_bias", "granite", **dict(HF2, num_attention_heads=3, num_key_value_heads=1), **dict(GRANITE,
     embedding_multiplier=12.0), attention_bias=True, mlp_bias=True, rope_parameters=rope(50000.0), _edit=["legacy"],
     rms_norm_eps=1e-2, _note="the same with biases, MQA, untied; old config keys")
case("cohere", "cohere", **HF, logit_scale=0.25,
     _note="LayerNorm without bias, parallel, interleaved RoPE, logit_scale")
case("cohere_qknorm", "cohere", **HF2, logit_scale=0.5, use_qk_norm=True, attention_bias=True,
     rope_parameters=rope(8e6), _edit=["legacy"], layer_norm_eps=1e-2,
     _note="R+: qk LayerNorm [heads, head_dim], biases")
case("cohere2", "cohere2", **dict(HF, num_hidden_layers=5, intermediate_size=20), logit_scale=0.25, sliding_window=7,
     _note="window 7 with RoPE on three layers of four, the fourth full without RoPE; 5 layers")
case("cohere2_old", "cohere2", **HF, logit_scale=0.5, sliding_window=9, attention_bias=True,
     layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters=rope(50000.0),
     _edit=["legacy"], layer_norm_eps=1e-2, _note="sliding_window_pattern 2 in place of layer_types; biases")
case("glm", "glm", **dict(HF, head_dim=8), _note="fused gate_up, interleaved RoPE on half of head_dim 8, qkv biases")
case("glm_odd", "glm", **dict(HF2, head_dim=12, num_attention_heads=3, num_key_value_heads=1), attention_bias=False,
     tie_word_embeddings=True, rope_parameters=rope(5000.0, partial_rotary_factor=1.0), _edit=["legacy"],
     rms_norm_eps=1e-2, _note="no biases, full rotary, MQA, tied")
case("glm4", "glm4", **dict(HF2, head_dim=8), attention_bias=True, _note="sandwich norms, fused gate_up")
case("glm4_odd", "glm4", **dict(HF2, head_dim=12, num_attention_heads=3, num_key_value_heads=3), attention_bias=False,
     rope_parameters=rope(5000.0, partial_rotary_factor=0.34), rms_norm_eps=1e-2, _edit=["legacy"],
     tie_word_embeddings=True, _note="no biases, int(12*0.34) = 4 rotary dims, eps 1e-2")
case("ernie4_5", "ernie4_5", **dict(HF2, head_dim=8), _note="interleaved RoPE, head_dim 8, tied")
case("ernie4_5_bias", "ernie4_5", **dict(HF2, head_dim=None, num_attention_heads=3, num_key_value_heads=3),
     use_bias=True, tie_word_embeddings=False, _edit=["legacy"], rms_norm_eps=1e-2,
     _note="use_bias: all seven matrices; untied")

# --- StarCoder, Nemotron, EXAONE, Seed, Hunyuan, nanochat
case("gpt_bigcode", "gpt_bigcode", **GPT_2, multi_query=True, _note="one kv head, nn.Linear, [Q|K|V]")
case("gpt_bigcode_mha", "gpt_bigcode", **dict(GPT_2, n_inner=40, activation_function="gelu"), multi_query=False,
     layer_norm_epsilon=1e-2, _note="multi_query false: qkv per head; erf GELU")
case("starcoder2", "starcoder2", **HF, sliding_window=9, _note="biases everywhere, window 9, tied")
case("starcoder2_nobias", "starcoder2", **HF2, use_bias=False, tie_word_embeddings=False, norm_epsilon=1e-2,
     rope_parameters=rope(100000.0), hidden_act="gelu", _edit=["legacy"], _note="no linear biases, untied, eps 1e-2")
case("nemotron", "nemotron", **dict(HF2, head_dim=8), _note="LayerNorm (1+w)+b, ReLU squared, rotary half")
case("nemotron_odd", "nemotron", **dict(HF2, head_dim=8, num_attention_heads=3, num_key_value_heads=1),
     attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=rope(partial_rotary_factor=0.75),
     _edit=["legacy"], norm_eps=1e-2, _note="biases, 0.75 of 8 = 6, MQA, tied")
case("exaone4", "exaone4", **dict(HF, num_hidden_layers=5, intermediate_size=20), sliding_window=7,
     sliding_window_pattern=4, rms_norm_eps=1e-2, _edit=["no_layer_types"],
     _note="sliding layers with RoPE, full layers without; norms on outputs, qk-norm")
case("exaone4_full", "exaone4", **dict(HF2, max_position_embeddings=256), **LONG, sliding_window=None, head_dim=16,
     layer_types=["full_attention"] * 2, tie_word_embeddings=True, rope_parameters=rope(1000.0, "llama3",
     original_max_position_embeddings=32, **LLAMA3), _edit=["legacy"],
     _note="sliding_window null: RoPE on every layer; llama3 scaling; tied")
case("seed_oss", "seed_oss", **dict(HF2, head_dim=8), _note="qkv biases, no output bias")
case("seed_oss_odd", "seed_oss", **dict(HF2, head_dim=10, num_attention_heads=3, num_key_value_heads=1),
     attention_bias=False, attention_out_bias=True, mlp_bias=True, tie_word_embeddings=True, _edit=["legacy"],
     rope_parameters=rope(1e7), rms_norm_eps=1e-2, _note="output bias only, MLP biases, tied")
case("hunyuan", "hunyuan_v1_dense", **dict(HF2, head_dim=8), rms_norm_eps=1e-2, _note="qk-norm after RoPE")
case("hunyuan_alpha", "hunyuan_v1_dense", **dict(HF2, head_dim=8), **LONG, tie_word_embeddings=True,
     attention_bias=True, rope_parameters=rope(10000.0, "dynamic", alpha=50.0, factor=1.0, beta_fast=32, beta_slow=1,
     mscale=1.0, mscale_all_dim=0.0), _edit=["legacy"], _note="type dynamic with alpha: NTK base, once; biases, tied")
case("nanochat", "nanochat", **dict(HF2, num_key_value_heads=4),
     _note="weightless RMS, embedding norm, -angle, relu2, cap 15")
case("nanochat_odd", "nanochat", **HF2, attention_bias=True, final_logit_softcapping=3.0, rms_norm_eps=1e-2,
     rope_parameters=rope(100000.0), tie_word_embeddings=True, _note="GQA, biases, cap 3, eps 1e-2, theta 1e5")

# --- families that transformers does not have (REFERENCE below)
case("nanogpt", "nanogpt", n_layer=2, n_head=3, n_embd=24, block_size=48, bias=True,
     _note="erf GELU, nn.Linear, tied")
case("nanogpt_nobias", "nanogpt", n_layer=2, n_head=4, n_embd=24, block_size=48, bias=False, _note="no bias at all")
case("mingpt", "mingpt", n_layer=2, n_head=3, n_embd=24, block_size=40, _note="tanh GELU, untied, attn.bias buffers")
case("mingpt_odd", "mingpt", n_layer=3, n_head=4, n_embd=16, block_size=40, _note="3 layers, 4 heads, a full block")
case("microgpt", "microgpt", n_layer=1, n_head=4, n_embd=16, block_size=16, _seq=16, _note="the published size")
case("microgpt_odd", "microgpt", n_layer=3, n_head=3, n_embd=18, block_size=48, _note="3 layers, 3 heads")
QWEN = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, kv_channels=8, intermediate_size=72,
            layer_norm_epsilon=1e-6, max_position_embeddings=128, seq_length=16, rotary_emb_base=10000,
            rotary_pct=1.0, no_bias=True, use_dynamic_ntk=False, use_logn_attn=False, scale_attn_weights=True,
            tie_word_embeddings=False)
case("qwen", "qwen", **QWEN, _note="past seq_length, neither logn nor NTK")
case("qwen_logn", "qwen", **dict(QWEN, use_logn_attn=True, layer_norm_epsilon=1e-2),
     _note="use_logn_attn, 40 tokens, seq_length 16")
case("qwen_ntk", "qwen", **dict(QWEN, use_logn_attn=True, use_dynamic_ntk=True), _rope_length=1,
     _note="as shipped: logn and dynamic NTK (alpha from the whole length)")
MINICPM = dict(HF, rms_norm_eps=1e-5, hidden_act="silu", rope_theta=10000.0, rope_scaling=None, scale_emb=12,
               scale_depth=1.4, dim_model_base=6)
case("minicpm", "minicpm", **dict(MINICPM, num_hidden_layers=2),
     _note="scale_emb, scale_depth, dim_model_base; tied, no key for it")
case("minicpm_odd", "minicpm", **dict(MINICPM, num_hidden_layers=2, num_key_value_heads=4, scale_emb=3.0,
     scale_depth=2.5, dim_model_base=32, rms_norm_eps=1e-2, rope_theta=500.0), tie_word_embeddings=False,
     attention_bias=True, _note="untied, other multipliers, biases")
L2C = dict(dim=24, hidden_dim=40, n_layers=3, n_heads=4, n_kv_heads=2, max_seq_len=48)
case("llama2c_v0", "llama2c", **L2C, version=0, shared=True, _note="legacy .bin, tied, GQA")
case("llama2c_v0_untied", "llama2c", **dict(L2C, n_layers=2, n_kv_heads=4), version=0, shared=False,
     _note="legacy .bin, vocab < 0")
case("llama2c_v1", "llama2c", **dict(L2C, n_layers=2), version=1, shared=True, _note="version 1, tied")
case("llama2c_v1_untied", "llama2c", **dict(L2C, n_layers=2, n_heads=6, n_kv_heads=3), version=1, shared=False,
     _note="version 1, untied")
case("llama2c_v2", "llama2c", **dict(L2C, dim=32, hidden_dim=64), version=2, group_size=32, shared=True,
     _note="version 2 (Q8_0 groups of 32); logits of the dequantised weights, activations not quantised")
case("llama2c_v2_untied", "llama2c", **dict(L2C, n_layers=2), version=2, group_size=8, shared=False,
     _note="version 2, groups of 8, untied")

# --- what a GGUF file has no key for has to be as its architecture implies: attention scales, windows, widths
case("gemma2_gguf", "gemma2", **dict(HF, head_dim=8), query_pre_attn_scalar=8, sliding_window=7,
     attn_logit_softcapping=2.0, final_logit_softcapping=4.0, _note="for GGUF: attention scale head_dim^-0.5")
case("gemma3_gguf", "gemma3_text", **dict(GEMMA3, num_hidden_layers=7, intermediate_size=12, num_key_value_heads=1,
     query_pre_attn_scalar=8), rope_parameters=gemma3_rope(type="linear", factor=4.0),
     _note="for GGUF: attention scale head_dim^-0.5; 7 layers, linear scaling on every sixth")
case("glm_gguf", "glm", **dict(HF2, num_attention_heads=3, num_key_value_heads=1, head_dim=8),
     _note="for GGUF: head_dim is dim / n_heads")
case("phi_gguf", "phi", **dict(HF2, num_attention_heads=3, num_key_value_heads=None, intermediate_size=96),
     _note="for GGUF: MLP of 4 dim")
case("falcon_7b_gguf", "falcon", **dict(FALCON, num_hidden_layers=2, ffn_hidden_size=96), multi_query=True,
     _note="for GGUF: MLP of 4 dim")
case("falcon_40b_gguf", "falcon", **dict(FALCON, num_hidden_layers=2, num_attention_heads=4, ffn_hidden_size=96),
     num_kv_heads=2, new_decoder_architecture=True, tie_word_embeddings=False, _note="for GGUF: MLP of 4 dim")
case("starcoder2_gguf", "starcoder2", **HF2, sliding_window=None, _note="for GGUF: no window, biases everywhere")

# ------------------------------------------------------------------------------- edits of a saved directory
# What Hugging Face 5 writes is not what most checkpoints on the hub look like. These rewrite a saved directory into
# the older shape; the logits are computed after the edit, so transformers itself confirms the meaning is the same.

def edit_legacy(config, tensors, case):
    """rope_theta, rope_scaling and friends at the top level, as before transformers 5."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    params = config.pop("rope_parameters", None)
    if params is None:
        return
    if "full_attention" in params:
        local, params = params["sliding_attention"], params["full_attention"]
        if config["model_type"].startswith("gemma3"):
            config["rope_local_base_freq"] = local["rope_theta"]
            config["sliding_window_pattern"] = config.pop("layer_types").index("full_attention") + 1
        else:
            assert local["rope_theta"] == params["rope_theta"]
    params = dict(params)
    theta, fraction = params.pop("rope_theta"), params.pop("partial_rotary_factor", None)
    neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if neox else "rope_theta"] = theta
    if fraction is not None:
        config["rotary_pct" if neox else "partial_rotary_factor"] = fraction
    if config["model_type"] == "phi3":
        params.pop("original_max_position_embeddings", None)  # phi3 keeps it at the top level
    config["rope_scaling"] = None if params["rope_type"] == "default" else params
    if config["model_type"] == "cohere2":
        config["sliding_window_pattern"] = config.pop("layer_types").index("full_attention") + 1
    if config["model_type"] in ("qwen2", "qwen3", "smollm3"):
        config.pop("layer_types", None)


def edit_no_layer_types(config, tensors, case):
    for key in ("layer_types", "attention_layers"):
        config.pop(key, None)


def edit_legacy_default_pattern(config, tensors, case):
    edit_legacy(config, tensors, case)
    del config["sliding_window_pattern"]


def edit_rope_type_as_type(config, tensors, case):
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")


def edit_unused_window(config, tensors, case):
    config.update(sliding_window=7, max_window_layers=1, use_sliding_window=False)


def edit_gelu_means_tanh(config, tensors, case):
    config["hidden_act"] = "gelu"


def edit_no_prefix(config, tensors, case):
    for name in [n for n in tensors if n.startswith("transformer.")]:
        tensors[name[len("transformer."):]] = tensors.pop(name)


def edit_gpt2_buffers(config, tensors, case):
    n = config["n_positions"]
    for i in range(config["n_layer"]):
        tensors[f"h.{i}.attn.bias"] = torch.tril(torch.ones(n, n)).view(1, 1, n, n)


def edit_neox_buffers(config, tensors, case):
    n = config["max_position_embeddings"]
    for i in range(config["num_hidden_layers"]):
        p = f"gpt_neox.layers.{i}.attention."
        tensors[p + "bias"] = torch.tril(torch.ones(n, n, dtype=torch.bool)).view(1, 1, n, n)
        tensors[p + "masked_bias"] = torch.tensor(-1e9)
        tensors[p + "rotary_emb.inv_freq"] = torch.tensor([0.5, 0.25]).half()  # not to be used: recompute


def edit_llama_buffers(config, tensors, case):
    for i in range(config["num_hidden_layers"]):
        tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.tensor([0.5, 0.25, 0.125])  # not to be used: recompute


def edit_duplicate_head(config, tensors, case):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


EDITS = {k[5:]: v for k, v in globals().items() if k.startswith("edit_")}

# ---------------------------------------------------------------------------------- the Hugging Face side


@contextlib.contextmanager
def exact():
    """Inside, every float32 that transformers asks for (RoPE, norms, softmax) is a float64."""
    saved = torch.float, torch.float32, torch.Tensor.float, torch.get_default_dtype()
    torch.float = torch.float32 = F64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(F64)
    try:
        yield
    finally:
        torch.float, torch.float32, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


def auto(type):
    return transformers.AutoModelForImageTextToText if type == "gemma3" else transformers.AutoModelForCausalLM


def normal(shape, gen, mean, std):
    return torch.empty(shape).normal_(mean, std, generator=gen)


def fill(model, gen):
    """Overwrite every parameter: norms around 1 (0 where the family adds 1), biases not 0, matrices of gain ~1."""
    seen = set()
    for module in model.modules():
        kind = type(module).__name__
        for name, p in module.named_parameters(recurse=False):
            if p.data_ptr() in seen:
                continue
            seen.add(p.data_ptr())
            if "Norm" in kind:
                zero = name == "bias" or kind.startswith("Gemma") or "1P" in kind
                value = normal(p.shape, gen, 0.0 if zero else 1.0, 0.3)
            elif "Embedding" in kind:
                value = normal(p.shape, gen, 0.0, 0.5)
            elif p.dim() == 1:
                value = normal(p.shape, gen, 0.0, 0.3)
            else:
                fan_in = p.shape[0] if kind == "Conv1D" else p[0].numel()
                value = normal(p.shape, gen, 0.0, 1.1 / math.sqrt(fan_in))
            p.data.copy_(value)


def run(model, tokens, taps=False):
    """Logits [n, vocab], and the residual stream [n_layers + 1, n, dim] if asked for."""
    stream, hooks = [], []
    if taps:
        n_layers = model.config.num_hidden_layers
        layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n_layers)
        first = lambda x: x[0] if isinstance(x, tuple) else x
        hooks.append(layers[0].register_forward_pre_hook(lambda m, a, k: stream.append((a[0] if a else
                     k["hidden_states"])[0].clone()), with_kwargs=True))
        hooks += [l.register_forward_hook(lambda m, a, o: stream.append(first(o)[0].clone())) for l in layers]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    for h in hooks:
        h.remove()
    return logits, torch.stack(stream) if taps else None


def sharpness(model, tokens):
    """Mean over heads and late queries of 1 - entropy / log(keys): 0 when attention is uniform."""
    try:
        with torch.no_grad():
            att = model(input_ids=torch.tensor([tokens]), use_cache=False, output_attentions=True).attentions
        a = torch.stack([x[0, :, 8:] for x in att if x is not None])
    except Exception:
        return None
    n = (a > 0).sum(-1).clamp(min=2).to(a.dtype)
    return float((1 + (a * a.clamp(min=1e-30).log()).sum(-1) / n.log()).mean())


def calibrate(logits_of, scale_head):
    """Bring max |logit| into [2, 8] by scaling the head (the embedding, when tied)."""
    for _ in range(12):
        top = float(logits_of().abs().max())
        if 2.0 <= top <= 8.0:
            return
        scale_head(min(max(5.0 / top, 0.1), 10.0))
    raise SystemExit(f"cannot calibrate: max |logit| {top}")


DTYPES = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)
NOISE = {"_name_or_path", "transformers_version", "id2label", "label2id", "return_dict", "problem_type",
         "output_attentions", "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder"}


def tidy(config):
    """Without what says nothing about the model (and no local paths)."""
    if not isinstance(config, dict):
        return config
    return {k: tidy(v) for k, v in config.items() if k not in NOISE}


def attention(case):
    """transformers 5.23's eager path adds Falcon's ALiBi twice: once to the scores, once more within the mask."""
    return "sdpa" if case["config"].get("alibi") and case["type"] == "falcon" else "eager"


def make_hf(case, path, gen, tokens):
    config = dict(case["config"])
    if case["type"] != "gemma3":
        config.setdefault("vocab_size", VOCAB)
        config.update(bos_token_id=1, eos_token_id=2, pad_token_id=None)
    if case.get("remove_final"):
        config["_remove_final_layer_norm"] = True
    config = transformers.AutoConfig.for_model(case["type"], **copy.deepcopy(config))
    model = auto(case["type"]).from_config(config, attn_implementation=attention(case)).eval()
    fill(model, gen)
    head = model.get_output_embeddings().weight
    calibrate(lambda: run(model, tokens)[0], lambda f: head.data.mul_(f))
    model = model.to(DTYPES[case.get("dtype", "f32")])
    model.save_pretrained(path, max_shard_size=case.get("shards", "1GB"))

    with open(f"{path}/config.json") as f:
        config = tidy(json.load(f))
    before = run(model, tokens)[0] if case.get("edit") else None
    if case.get("edit"):
        tensors = load_file(f"{path}/model.safetensors")
        for name in case["edit"]:
            EDITS[name](config, tensors, case)
        save_file({k: v.contiguous() for k, v in tensors.items()}, f"{path}/model.safetensors", {"format": "pt"})
    with open(f"{path}/config.json", "w") as f:
        json.dump(config, f, indent=1)
    for name in os.listdir(path):
        if not (name == "config.json" or "safetensors" in name):
            os.remove(f"{path}/{name}")

    loaded, info = auto(case["type"]).from_pretrained(path, attn_implementation=attention(case), dtype=torch.float32,
                                                      output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    loaded.eval()
    single, _ = run(loaded, tokens)
    assert before is None or (before - single).abs().max() < 1e-4, "the edit changed the meaning"
    sharp = sharpness(loaded, tokens[:SEQ])
    with exact():
        model = auto(case["type"]).from_config(copy.deepcopy(loaded.config), attn_implementation=attention(case), dtype=F64)
        model.eval().load_state_dict(loaded.state_dict())
        assert all(x.dtype in (F64, torch.bool, torch.int64) for x in [*model.parameters(), *model.buffers()])
        logits, stream = run(model, tokens, case.get("taps"))
        swapped = run(model, [tokens[1], tokens[0]] + tokens[2:])[0]
    assert logits.dtype == F64
    if not case.get("lenient"):
        assert (swapped[4] - logits[4]).abs().max() > 1e-3, "attention does not see order"
        assert sharp is None or sharp > 0.03, f"attention is near uniform: {sharp}"
    if case.get("rename_longrope"):  # transformers 5.23 itself no longer reads the oldest name
        with open(f"{path}/config.json", "w") as f:
            config["rope_scaling"] = dict(config["rope_scaling"], type=case["rename_longrope"])
            del config["rope_scaling"]["rope_type"]
            json.dump(config, f, indent=1)
    return logits, stream, dict(hf_float32_max_diff=float(f"{(single.double() - logits).abs().max():.3g}"),
                                sharpness=sharp and round(sharp, 3))


# ------------------------------------------------------------------- families written out here, in float64
# w maps tensor names to float64 tensors, all matrices [out, in].

def rms(x, w=None, eps=1e-5):
    x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    return x if w is None else x * w


def layer_norm(x, w, b=None, eps=1e-5):
    x = x - x.mean(-1, keepdim=True)
    x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w
    return x if b is None else x + b


def linear(x, w, name):
    y = x @ w[name + ".weight"].T
    return y + w[name + ".bias"] if name + ".bias" in w else y


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def gelu_erf(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + torch.exp(-x))


def rotate(x, theta, interleaved):
    """RoPE of x [n, heads, dim] at positions 0, 1, ..."""
    n, _, dim = x.shape
    angle = torch.arange(n, dtype=F64)[:, None] * theta ** (-torch.arange(0, dim, 2, dtype=F64) / dim)
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    y = torch.empty_like(x)
    a, b = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, dim // 2), slice(dim // 2, None))
    y[..., a] = x[..., a] * c - x[..., b] * s
    y[..., b] = x[..., a] * s + x[..., b] * c
    return y


def attend(q, k, v):
    """Causal attention; q [n, heads, d], k and v [n, kv heads, d]; result [n, heads * d]."""
    n, heads, d = q.shape
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(d)
    scores = scores.masked_fill(torch.triu(torch.ones(n, n, dtype=torch.bool), 1), -math.inf)
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(n, heads * d)


def heads(x, n_heads):
    return x.view(x.shape[0], n_heads, -1)


def gpt_shapes(c, bias, tied):
    d = c["n_embd"]
    yield "transformer.wte.weight", (c["vocab_size"], d)
    yield "transformer.wpe.weight", (c["block_size"], d)
    for i in range(c["n_layer"]):
        for name, shape in [("ln_1", (d,)), ("attn.c_attn", (3 * d, d)), ("attn.c_proj", (d, d)), ("ln_2", (d,)),
                            ("mlp.c_fc", (4 * d, d)), ("mlp.c_proj", (d, 4 * d))]:
            yield f"transformer.h.{i}.{name}.weight", shape
            if bias:
                yield f"transformer.h.{i}.{name}.bias", shape[:1]
    yield "transformer.ln_f.weight", (d,)
    if bias:
        yield "transformer.ln_f.bias", (d,)
    if not tied:
        yield "lm_head.weight", (c["vocab_size"], d)


def gpt_forward(c, w, tokens, gelu):
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:len(tokens)]
    ln = lambda x, name: layer_norm(x, w[name + ".weight"], w.get(name + ".bias"))
    for i in range(c["n_layer"]):
        p = f"transformer.h.{i}."
        q, k, v = (heads(t, c["n_head"]) for t in linear(ln(x, p + "ln_1"), w, p + "attn.c_attn").chunk(3, -1))
        x = x + linear(attend(q, k, v), w, p + "attn.c_proj")
        x = x + linear(gelu(linear(ln(x, p + "ln_2"), w, p + "mlp.c_fc")), w, p + "mlp.c_proj")
    return ln(x, "transformer.ln_f") @ w.get("lm_head.weight", w["transformer.wte.weight"]).T


def microgpt_shapes(c):
    d = c["n_embd"]
    yield from [("wte", (c["vocab_size"], d)), ("wpe", (c["block_size"], d)), ("lm_head", (c["vocab_size"], d))]
    for i in range(c["n_layer"]):
        yield from [(f"layer{i}.attn_w{m}", (d, d)) for m in "qkvo"]
        yield from [(f"layer{i}.mlp_fc1", (4 * d, d)), (f"layer{i}.mlp_fc2", (d, 4 * d))]


def microgpt_forward(c, w, tokens):
    x = rms(w["wte"][tokens] + w["wpe"][:len(tokens)])
    for i in range(c["n_layer"]):
        m = lambda h, name: h @ w[f"layer{i}.{name}"].T
        h = rms(x)
        x = x + m(attend(*(heads(m(h, f"attn_w{t}"), c["n_head"]) for t in "qkv")), "attn_wo")
        x = x + m(m(rms(x), "mlp_fc1").clamp(min=0), "mlp_fc2")
    return x @ w["lm_head"].T


def qwen_shapes(c):
    d, proj, ff = c["hidden_size"], c["kv_channels"] * c["num_attention_heads"], c["intermediate_size"] // 2
    yield "transformer.wte.weight", (c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p = f"transformer.h.{i}."
        yield from [(p + "ln_1.weight", (d,)), (p + "attn.c_attn.weight", (3 * proj, d)),
                    (p + "attn.c_attn.bias", (3 * proj,)), (p + "attn.c_proj.weight", (d, proj)),
                    (p + "ln_2.weight", (d,)), (p + "mlp.w1.weight", (ff, d)), (p + "mlp.w2.weight", (ff, d)),
                    (p + "mlp.c_proj.weight", (d, ff))]
    yield from [("transformer.ln_f.weight", (d,)), ("lm_head.weight", (c["vocab_size"], d))]


def qwen_forward(c, w, tokens):
    n, dim, train = len(tokens), c["kv_channels"], c["seq_length"]
    theta, temperature = float(c["rotary_emb_base"]), torch.ones(n, dtype=F64)
    if c["use_dynamic_ntk"]:
        alpha = max(2 ** math.ceil(math.log2(n / train) + 1) - 1, 1)
        theta *= alpha ** (dim / (dim - 2))
    if c["use_logn_attn"]:
        temperature = torch.tensor([math.log(i, train) if i > train else 1.0 for i in range(1, n + 1)], dtype=F64)
    norm = lambda x, name: rms(x, w[name + ".weight"], c["layer_norm_epsilon"])
    x = w["transformer.wte.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"transformer.h.{i}."
        q, k, v = (heads(t, c["num_attention_heads"]) for t in
                   linear(norm(x, p + "ln_1"), w, p + "attn.c_attn").chunk(3, -1))
        q, k = rotate(q, theta, False) * temperature[:, None, None], rotate(k, theta, False)
        x = x + linear(attend(q, k, v), w, p + "attn.c_proj")
        h = norm(x, p + "ln_2")
        x = x + linear(linear(h, w, p + "mlp.w1") * silu(linear(h, w, p + "mlp.w2")), w, p + "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["lm_head.weight"].T


def minicpm_shapes(c):
    d, ff = c["hidden_size"], c["intermediate_size"]
    kv = d // c["num_attention_heads"] * c["num_key_value_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (d,)
        for m, rows in [("q", d), ("k", kv), ("v", kv), ("o", d)]:
            yield f"{p}self_attn.{m}_proj.weight", (rows, d)
            if c.get("attention_bias"):
                yield f"{p}self_attn.{m}_proj.bias", (rows,)
        yield from [(p + "post_attention_layernorm.weight", (d,)), (p + "mlp.gate_proj.weight", (ff, d)),
                    (p + "mlp.up_proj.weight", (ff, d)), (p + "mlp.down_proj.weight", (d, ff))]
    yield "model.norm.weight", (d,)
    if not c.get("tie_word_embeddings", True):
        yield "lm_head.weight", (c["vocab_size"], d)


def minicpm_forward(c, w, tokens):
    norm = lambda x, name: rms(x, w[name + ".weight"], c["rms_norm_eps"])
    depth = c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    x = w["model.embed_tokens.weight"][tokens] * c["scale_emb"]
    for i in range(c["num_hidden_layers"]):
        p, h = f"model.layers.{i}.", norm(x, f"model.layers.{i}.input_layernorm")
        q = heads(linear(h, w, p + "self_attn.q_proj"), c["num_attention_heads"])
        k, v = (heads(linear(h, w, f"{p}self_attn.{m}_proj"), c["num_key_value_heads"]) for m in "kv")
        a = attend(rotate(q, c["rope_theta"], False), rotate(k, c["rope_theta"], False), v)
        x = x + depth * linear(a, w, p + "self_attn.o_proj")
        h = norm(x, p + "post_attention_layernorm")
        m = silu(linear(h, w, p + "mlp.gate_proj")) * linear(h, w, p + "mlp.up_proj")
        x = x + depth * linear(m, w, p + "mlp.down_proj")
    x = norm(x, "model.norm") / (c["hidden_size"] / c["dim_model_base"])
    return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def llama2c_shapes(c):
    d, ff, kv = c["dim"], c["hidden_dim"], c["dim"] // c["n_heads"] * c["n_kv_heads"]
    yield "tok_embeddings.weight", (c["vocab_size"], d)
    for i in range(c["n_layers"]):
        p = f"layers.{i}."
        yield from [(p + "attention_norm.weight", (d,)), (p + "attention.wq.weight", (d, d)),
                    (p + "attention.wk.weight", (kv, d)), (p + "attention.wv.weight", (kv, d)),
                    (p + "attention.wo.weight", (d, d)), (p + "ffn_norm.weight", (d,)),
                    (p + "feed_forward.w1.weight", (ff, d)), (p + "feed_forward.w2.weight", (d, ff)),
                    (p + "feed_forward.w3.weight", (ff, d))]
    yield "norm.weight", (d,)
    if not c["shared"]:
        yield "output.weight", (c["vocab_size"], d)


def llama2c_forward(c, w, tokens):
    x = w["tok_embeddings.weight"][tokens]
    for i in range(c["n_layers"]):
        p = f"layers.{i}."
        h = rms(x, w[p + "attention_norm.weight"])
        q = heads(linear(h, w, p + "attention.wq"), c["n_heads"])
        k, v = (heads(linear(h, w, p + f"attention.w{m}"), c["n_kv_heads"]) for m in "kv")
        x = x + linear(attend(rotate(q, 10000.0, True), rotate(k, 10000.0, True), v), w, p + "attention.wo")
        h = rms(x, w[p + "ffn_norm.weight"])
        x = x + linear(silu(linear(h, w, p + "feed_forward.w1")) * linear(h, w, p + "feed_forward.w3"), w,
                       p + "feed_forward.w2")
    return rms(x, w["norm.weight"]) @ w.get("output.weight", w["tok_embeddings.weight"]).T


def quantise_q8(w, group):
    g = w.float().reshape(-1, group)
    scale = g.abs().max(dim=1).values / 127.0
    return torch.round(g / scale[:, None]).to(torch.int8), scale


def llama2c_write(c, w, file):
    """The three layouts of llama2.c's export.py."""
    layers = range(c["n_layers"])
    of = lambda name: [w[f"layers.{i}.{name}.weight"] for i in layers]
    put = lambda tensors: [file.write(t.detach().numpy().astype("<f4").tobytes()) for t in tensors]
    vocab = c["vocab_size"] if c["shared"] or c["version"] > 0 else -c["vocab_size"]
    sizes = struct.pack("<7i", c["dim"], c["hidden_dim"], c["n_layers"], c["n_heads"], c["n_kv_heads"], vocab,
                        c["max_seq_len"])
    attention = [of(f"attention.w{m}") for m in "qkvo"]
    mlp = [of(f"feed_forward.w{m}") for m in "123"]
    head = [] if c["shared"] else [w["output.weight"]]
    if c["version"] == 0:
        file.write(sizes)
        put([w["tok_embeddings.weight"], *of("attention_norm"), *sum(attention, []), *of("ffn_norm"), *sum(mlp, []),
             w["norm.weight"]])
        half = c["dim"] // c["n_heads"] // 2
        angle = torch.arange(c["max_seq_len"])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        put([angle.cos(), angle.sin(), *head])
        return
    header = struct.pack("<II", 0x616B3432, c["version"]) + sizes + struct.pack("<B", int(c["shared"]))
    if c["version"] == 2:
        header += struct.pack("<i", c["group_size"])
    file.write(header.ljust(256, b"\0"))
    put([*of("attention_norm"), *of("ffn_norm"), w["norm.weight"]])
    matrices = [w["tok_embeddings.weight"], *sum(attention, []), *sum(mlp, []), *head]
    if c["version"] == 1:
        put(matrices)
    for m in matrices if c["version"] == 2 else []:
        q, scale = quantise_q8(m, c["group_size"])
        file.write(q.numpy().tobytes())
        put([scale])


# type: (shapes, forward)
REFERENCE = {
    "nanogpt": (lambda c: gpt_shapes(c, c["bias"], True), lambda c, w, t: gpt_forward(c, w, t, gelu_erf)),
    "mingpt": (lambda c: gpt_shapes(c, True, False), lambda c, w, t: gpt_forward(c, w, t, gelu_tanh)),
    "microgpt": (microgpt_shapes, microgpt_forward),
    "qwen": (qwen_shapes, qwen_forward),
    "minicpm": (minicpm_shapes, minicpm_forward),
    "llama2c": (llama2c_shapes, llama2c_forward),
}
HEADS = ["lm_head.weight", "lm_head", "output.weight", "transformer.wte.weight", "model.embed_tokens.weight",
         "tok_embeddings.weight"]


def make_reference(case, path, gen, tokens):
    type, c = case["type"], dict(case["config"])
    c.setdefault("vocab_size", VOCAB)
    shapes, forward = REFERENCE[type]
    w = {}
    for name, shape in shapes(c):
        embedding = any(s in name for s in ("wte", "wpe", "embed"))
        if len(shape) == 1:
            w[name] = normal(shape, gen, 0.0 if name.endswith("bias") else 1.0, 0.3)
        else:
            w[name] = normal(shape, gen, 0.0, 0.5 if embedding else 1.1 / math.sqrt(shape[1]))
    wide = lambda: {k: v.double() for k, v in w.items()}
    head = next(n for n in HEADS if n in w)
    calibrate(lambda: forward(c, wide(), tokens), lambda f: w[head].mul_(f))
    if c.get("version") == 2:
        for name in [n for n in w if w[n].dim() == 2]:
            q, scale = quantise_q8(w[name], c["group_size"])
            w[name] = (q.float() * scale[:, None]).reshape(w[name].shape)
    logits = forward(c, wide(), tokens)
    swapped = forward(c, wide(), [tokens[1], tokens[0]] + tokens[2:])
    assert case.get("lenient") or (swapped[4] - logits[4]).abs().max() > 1e-3, "attention does not see order"

    os.makedirs(path, exist_ok=True)
    if type == "llama2c":
        with open(f"{path}/model.bin", "wb") as f:
            llama2c_write(c, w, f)
        return logits, None, {}
    if type == "nanogpt" and c["bias"]:
        w["lm_head.weight"] = w["transformer.wte.weight"].clone()  # its checkpoints hold the tied head twice
    if type == "mingpt":
        n = c["block_size"]
        w.update({f"transformer.h.{i}.attn.bias": torch.tril(torch.ones(n, n)).view(1, 1, n, n)
                  for i in range(c["n_layer"])})
    save_file(w, f"{path}/model.safetensors")
    with open(f"{path}/config.json", "w") as f:
        json.dump(dict(model_type=type, **c), f, indent=1)
    return logits, None, {}


# ------------------------------------------------------------------------------------------------ output

def write_f32(path, x):
    with open(path, "wb") as f:
        f.write(x.numpy().astype("<f4").tobytes())


def make(case, out, seed=0):
    name = case["name"]
    path = f"{out}/{name}"
    shutil.rmtree(path, ignore_errors=True)
    gen = torch.Generator().manual_seed(zlib.crc32(f"{name}/{seed}".encode()))
    limit = 44 if case["type"] == "gemma3" else case["config"].get("vocab_size", VOCAB)
    n = case.get("seq", SEQ)
    tokens = torch.randint(0, limit, (n,), generator=gen).tolist()
    if len(set(tokens[:2])) == 1:
        tokens[1] = (tokens[0] + 1) % limit
    logits, stream, facts = (make_reference if case["type"] in REFERENCE else make_hf)(case, path, gen, tokens)
    positions = case.get("positions", list(range(n)))
    golden = dict(name=name, family=case["type"], vocab_size=logits.shape[1], n_tokens=n, tokens=tokens,
                  positions=positions)
    if case.get("rope_length"):
        golden["rope_length"] = n
    if stream is not None:
        golden["residual_shape"] = list(stream.shape)
        write_f32(f"{path}/residual.f32", stream)
    golden.update(logits_absmax=float(f"{logits.abs().max():.4g}"), **facts, note=case["note"])
    write_f32(f"{path}/logits.f32", logits[positions])
    with open(f"{path}/golden.json", "w") as f:
        json.dump(golden, f)
        f.write("\n")
    size = sum(os.path.getsize(f"{path}/{x}") for x in os.listdir(path))
    print(f"{name:24} {size / 1024:7.1f} KB  max|logit| {golden['logits_absmax']:<7} "
          f"HF float32 differs by {golden.get('hf_float32_max_diff', '-'):<8} "
          f"sharpness {golden.get('sharpness', '-')}", flush=True)
    return golden


README = """# Golden data

Tiny random models of every family that transformer.h runs, and the logits they must give.
Made by `{command}`
with Python {python}, torch {torch} and transformers {transformers}; nothing here is trained or copied from anywhere.

The models of most families were built, given random parameters and saved by Hugging Face transformers itself. Some were
then rewritten into the shape of older checkpoints (config keys of before transformers 5, other tensor name prefixes,
buffers that must be skipped); the rewritten directory is what was run, and gives the same logits as before.
Families that transformers does not have (nanogpt, mingpt, microgpt, qwen, minicpm, llama2c) come from the plain
float64 implementations at the end of the script, with the tensor names and config keys of their real checkpoints.

Each directory holds:

- `config.json` and `model.safetensors` (or shards and `model.safetensors.index.json`; `model.bin` for llama2.c);
- `golden.json`: `name`, `family` (the model_type), `vocab_size`, `n_tokens`, `tokens`, `positions` (those whose logits
  are stored), `logits_absmax`, `note`, and where they apply `rope_length` (the RoPE frequencies depend on the number of
  tokens in the sequence: these logits are for one call with all of them), `residual_shape`, `hf_float32_max_diff`
  (how far transformers in float32 is from the golden logits), `sharpness` (how far attention is from uniform);
- `logits.f32`: float32, little-endian, [positions, vocab_size];
- `residual.f32` where stored: the residual stream before the first layer and after each layer, before the final norm:
  float32, little-endian, [n_layers + 1, n_tokens, dim].

The logits are those of a run in float64 throughout: inside transformers every place that asks for float32 (RoPE tables,
norms, softmax) was given float64, so they are the exact mathematics rounded once. transformers in float32 is within
1e-5 of them at short positions and a few 1e-5 at position 1500, where its float32 angles are what is wrong.
Two deliberate roundings remain, since they are part of the model: Falcon's ALiBi (slope, and slope times position,
rounded to bfloat16) and the weights of F16, BF16 and Q8_0 cases. Gemma's embedding multiplier is the exact sqrt(dim).

Every norm weight differs from 1 and every bias from 0; attention is far from uniform; windows are shorter than the
sequence; where a family permits, head_dim is not dim / n_heads and there are fewer kv heads than heads.

| case | family | KB | what it is for |
|---|---|---|---|
"""


def write_index(out, random):
    goldens = []
    for name in sorted(os.listdir(out)):
        if os.path.exists(f"{out}/{name}/golden.json"):
            with open(f"{out}/{name}/golden.json") as f:
                goldens.append(json.load(f))
    with open(f"{out}/index.txt", "w") as f:
        f.writelines(g["name"] + "\n" for g in goldens)
    if random:
        return
    with open(f"{out}/README.md", "w") as f:
        f.write(README.format(command="python3 tests/make_goldens.py --out tests/goldens", torch=torch.__version__,
                              transformers=transformers.__version__, python=sys.version.split()[0]))
        for g in goldens:
            d = f"{out}/{g['name']}"
            size = sum(os.path.getsize(f"{d}/{x}") for x in os.listdir(d)) / 1024
            f.write(f"| {g['name']} | {g['family']} | {size:.0f} | {g['note']} |\n")


# ------------------------------------------------------------------------------------------ random cases
# One row per family: what may vary. A value is a list to choose from, or a function of (r, config so far).

BOOL = [False, True]
ACTS = ["silu", "relu", "gelu", "gelu_pytorch_tanh"]
PARTIAL = [0.25, 0.5, 0.75, 1.0]


def windows(r, c):
    return r.randint(3, 20)


def layer_types(r, c):
    return [r.choice(["sliding_attention", "full_attention"]) for _ in range(c["num_hidden_layers"])]


def random_rope(r, kinds="default linear dynamic llama3 yarn", partial=None):
    kind, orig = r.choice(kinds.split()), r.choice([16, 32, 64])
    p = rope(r.choice([100.0, 1000.0, 10000.0, 500000.0]), kind)
    if kind in ("linear", "dynamic", "llama3", "yarn"):
        p["factor"] = r.choice([2.0, 3.5, 8.0])
    if kind in ("llama3", "yarn"):
        p["original_max_position_embeddings"] = orig
    if kind == "llama3":
        p.update(low_freq_factor=1.0, high_freq_factor=r.choice([3.0, 4.0]))
    if kind == "yarn":
        for key, values in [("beta_fast", [4.0, 16.0]), ("beta_slow", [0.5, 2.0]), ("attention_factor", [0.8, 1.3]),
                            ("truncate", BOOL)]:
            if r.random() < 0.4:
                p[key] = r.choice(values)
    if partial:
        p["partial_rotary_factor"] = r.choice(partial)
    return p


def random_phi3(r, c):
    size = c["hidden_size"] // c["num_attention_heads"]
    p = random_rope(r, "default longrope", [f for f in (0.5, 1.0) if int(size * f) % 2 == 0])
    half = int(c["hidden_size"] // c["num_attention_heads"] * p["partial_rotary_factor"]) // 2
    if p["rope_type"] == "longrope":
        p.update(short_factor=[round(r.uniform(1, 1.5), 3) for _ in range(half)],
                 long_factor=[round(r.uniform(1, 9), 3) for _ in range(half)])
    return p


def random_pair(kinds):
    return lambda r, c: dict(sliding_attention=random_rope(r, "default"), full_attention=random_rope(r, kinds))


def R(eps, head_dim=False, gqa=True, rope_kinds=None, partial=None, **knobs):
    return dict(style="hf", eps=eps, head_dim=head_dim, gqa=gqa, rope=rope_kinds, partial=partial, knobs=knobs)


ANY = "default linear dynamic llama3 yarn"
GPT_KNOBS = dict(n_inner=[None, 20, 50], activation_function=["gelu_new", "gelu", "relu"], tie_word_embeddings=BOOL)
RANDOM = {
    "gpt2": dict(style="gpt", knobs=dict(GPT_KNOBS, scale_attn_by_inverse_layer_idx=BOOL, scale_attn_weights=BOOL)),
    "gptj": dict(style="gpt", knobs=dict(GPT_KNOBS, rotary_dim=lambda r, c: 2 * r.randint(1, c["n_embd"] // c["n_head"]
                                                                                         // 2))),
    "gpt_bigcode": dict(style="gpt", knobs=dict(GPT_KNOBS, multi_query=BOOL)),
    "nanogpt": dict(style="own", knobs=dict(bias=BOOL)),
    "mingpt": dict(style="own", knobs={}),
    "microgpt": dict(style="own", knobs={}),
    "gpt_neo": R("layer_norm_epsilon", gqa=None, window_size=windows, attention_types=lambda r, c:
                 [[[r.choice(["global", "local"])], 1] for _ in range(c["num_hidden_layers"])]),
    "gpt_neox": R("layer_norm_eps", gqa=None, rope_kinds="default linear yarn", partial=PARTIAL,
                  use_parallel_residual=BOOL, attention_bias=BOOL, hidden_act=ACTS, tie_word_embeddings=BOOL),
    "opt": R(None, gqa=None, enable_bias=BOOL, layer_norm_elementwise_affine=BOOL, do_layer_norm_before=BOOL,
             word_embed_proj_dim=[None, 10, 32], activation_function=["relu", "gelu"], tie_word_embeddings=BOOL,
             ffn_dim=lambda r, c: r.randint(9, 60)),
    "bloom": R("layer_norm_epsilon", gqa=None, apply_residual_connection_post_layernorm=BOOL),
    "mpt": R("layer_norm_epsilon", gqa=None, attn_config=lambda r, c: dict(clip_qkv=r.choice([None, 0.7]),
             softmax_scale=r.choice([None, 0.6])), max_seq_len=[128]),
    "falcon": R("layer_norm_epsilon", gqa="num_kv_heads", rope_kinds="default linear",
                new_decoder_architecture=[True], num_ln_in_parallel_attn=[1, 2], bias=BOOL,
                ffn_hidden_size=[None, 30], activation=["gelu", "relu"], tie_word_embeddings=BOOL),
    "falcon ": R("layer_norm_epsilon", gqa=None, multi_query=BOOL, parallel_attn=BOOL, alibi=BOOL, bias=BOOL,
                 ffn_hidden_size=[None, 30], activation=["gelu", "relu"], tie_word_embeddings=BOOL),
    "stablelm": R("layer_norm_eps", rope_kinds="default linear", partial=PARTIAL, use_qkv_bias=BOOL, qk_layernorm=BOOL,
                  use_parallel_residual=BOOL, hidden_act=ACTS),
    "phi": R("layer_norm_eps", rope_kinds="default linear", partial=PARTIAL, qk_layernorm=BOOL, hidden_act=ACTS),
    "phi3": R("rms_norm_eps", rope_parameters=random_phi3, original_max_position_embeddings=[16, 30, 64],
              sliding_window=[None, 5, 11]),
    "llama": R("rms_norm_eps", True, rope_kinds=ANY, attention_bias=BOOL, mlp_bias=BOOL, hidden_act=ACTS),
    "mistral": R("rms_norm_eps", True, rope_kinds=ANY, sliding_window=[None, 4, 9, 15], hidden_act=ACTS),
    "qwen2": R("rms_norm_eps", rope_kinds=ANY, use_sliding_window=BOOL, sliding_window=windows,
               max_window_layers=[0, 1, 2, 3]),
    "qwen3": R("rms_norm_eps", True, rope_kinds=ANY, use_sliding_window=BOOL, sliding_window=windows,
               max_window_layers=[0, 1, 2, 3], attention_bias=BOOL),
    "gemma": R("rms_norm_eps", True, rope_kinds=ANY, attention_bias=BOOL),
    "gemma2": R("rms_norm_eps", True, rope_kinds=ANY, attention_bias=BOOL, sliding_window=windows,
                query_pre_attn_scalar=[3, 8, 17], attn_logit_softcapping=[None, 1.5, 20.0],
                final_logit_softcapping=[None, 4.0, 30.0], layer_types=layer_types),
    "gemma3_text": R("rms_norm_eps", True, attention_bias=BOOL, sliding_window=windows, layer_types=layer_types,
                     rope_parameters=random_pair("default linear yarn"), query_pre_attn_scalar=[3, 8, 17],
                     attn_logit_softcapping=[None, 1.5], final_logit_softcapping=[None, 4.0]),
    "olmo": R(None, rope_kinds=ANY, attention_bias=BOOL, clip_qkv=[None, 1.0, 1.5]),
    "olmo2": R("rms_norm_eps", rope_kinds=ANY, attention_bias=BOOL),
    "olmo3": R("rms_norm_eps", attention_bias=BOOL, sliding_window=windows, layer_types=layer_types,
               rope_parameters=random_pair("default yarn linear")),
    "smollm3": R("rms_norm_eps", rope_kinds=ANY, attention_bias=BOOL, mlp_bias=BOOL, use_sliding_window=BOOL,
                 sliding_window=windows, no_rope_layers=lambda r, c: [r.randint(0, 1) for _ in
                                                                      range(c["num_hidden_layers"])]),
    "granite": R("rms_norm_eps", rope_kinds=ANY, attention_bias=BOOL, mlp_bias=BOOL, embedding_multiplier=[1.0, 7.5],
                 attention_multiplier=[0.2, 0.5], residual_multiplier=[0.3, 1.0], logits_scaling=[0.5, 4.0]),
    "cohere": R("layer_norm_eps", rope_kinds="default linear", attention_bias=BOOL, use_qk_norm=BOOL,
                logit_scale=[0.25, 1.5]),
    "cohere2": R("layer_norm_eps", rope_kinds="default linear", attention_bias=BOOL, sliding_window=windows,
                 layer_types=layer_types, logit_scale=[0.25, 1.5]),
    "glm": R("rms_norm_eps", True, rope_kinds="default linear", partial=PARTIAL, attention_bias=BOOL),
    "glm4": R("rms_norm_eps", True, rope_kinds="default linear", partial=PARTIAL, attention_bias=BOOL),
    "ernie4_5": R("rms_norm_eps", True, rope_kinds=ANY, use_bias=BOOL),
    "starcoder2": R("norm_epsilon", rope_kinds=ANY, use_bias=BOOL, sliding_window=[None, 4, 9],
                    hidden_act=["gelu_pytorch_tanh", "relu"]),
    "nemotron": R("norm_eps", True, rope_kinds="default linear", partial=PARTIAL, attention_bias=BOOL, mlp_bias=BOOL),
    "exaone4": R("rms_norm_eps", True, rope_kinds=ANY, sliding_window=windows, layer_types=layer_types),
    "seed_oss": R("rms_norm_eps", True, rope_kinds=ANY, attention_bias=BOOL, attention_out_bias=BOOL, mlp_bias=BOOL),
    "hunyuan_v1_dense": R("rms_norm_eps", True, rope_kinds=ANY, attention_bias=BOOL),
    "nanochat": R("rms_norm_eps", rope_kinds="default linear", attention_bias=BOOL,
                  final_logit_softcapping=[None, 3.0, 15.0]),
}


def random_case(r, number):
    type = r.choice(sorted(RANDOM))
    row = RANDOM[type]
    n_heads, n_layers = r.choice([1, 2, 3, 4, 5, 6, 8]), r.randint(1, 6)
    head_dim = r.choice([4, 6, 8, 12] if n_heads < 5 else [4, 6])
    while head_dim * n_heads < 12:
        head_dim *= 2
    length = r.choice([6, 17, SEQ, SEQ, 100])
    if row["style"] == "hf":
        c = dict(hidden_size=n_heads * head_dim, num_hidden_layers=n_layers, num_attention_heads=n_heads,
                 intermediate_size=r.randint(9, 50), max_position_embeddings=r.choice([104, 128]))
        if row["head_dim"]:
            c["head_dim"] = r.choice([4, 6, 8, 10, 16])
        if row["gqa"]:
            c["num_key_value_heads" if row["gqa"] is True else row["gqa"]] = r.choice(
                [k for k in range(1, n_heads + 1) if n_heads % k == 0])
        if row["eps"]:
            c[row["eps"]] = r.choice([1e-6, 1e-5, 1e-3, 1e-2])
        if row["rope"]:
            size = c.get("head_dim", head_dim)
            partial = row["partial"] and [f for f in row["partial"] if int(size * f) % 2 == 0]  # odd ones break in HF
            c["rope_parameters"] = random_rope(r, row["rope"], partial)
        if row["gqa"] is not None:
            c["tie_word_embeddings"] = r.choice(BOOL)
    else:
        c = dict(n_embd=n_heads * head_dim, n_head=n_heads, n_layer=n_layers)
        c["n_positions" if row["style"] == "gpt" else "block_size"] = 104
    for key, values in row["knobs"].items():
        c[key] = values(r, c) if callable(values) else r.choice(values)
    if c.get("rope_parameters", {}).get("rope_type") in ("dynamic", "longrope"):
        c["max_position_embeddings"] = c["max_position_embeddings"] if length < 50 else 32
    c["vocab_size"] = r.choice([11, VOCAB, 64, 100])
    flat = "rope_type" in c.get("rope_parameters", {}) and type != "cohere2"
    return dict(name=f"random_{number:03}_{type.strip()}", type=type.strip(), config=c, note="random", seq=length,
                edit=["legacy"] if flat and r.random() < 0.5 else None, rope_length=1, lenient=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", required=True, help="directory to fill")
    ap.add_argument("--only", help="comma-separated case names; the rest of the directory stays as it is")
    ap.add_argument("--keep-going", action="store_true", help="report a failing case and go on")
    ap.add_argument("--seed", type=int, default=0, help="for --random")
    ap.add_argument("--random", type=int, metavar="K", help="make K random cases instead of the fixed ones")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    cases = CASES
    if args.random:
        r = random.Random(args.seed)
        cases = [random_case(r, i) for i in range(args.random)]
    if args.only:
        only = args.only.split(",")
        cases = [c for c in cases if c["name"] in only]
        assert len(cases) == len(only), "unknown case name"
    failed = []
    for c in cases:
        try:
            make(c, args.out, args.seed)
        except Exception as e:
            if not args.keep_going:
                raise
            failed.append(c["name"])
            shutil.rmtree(f"{args.out}/{c['name']}", ignore_errors=True)
            print(f"{c['name']:24} FAILED {type(e).__name__}: {str(e)[:300]}", flush=True)
    write_index(args.out, args.random)
    print(len(cases) - len(failed), "made,", len(failed), "failed", *failed)


if __name__ == "__main__":
    main()
