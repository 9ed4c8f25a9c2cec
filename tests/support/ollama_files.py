"""gpt-oss files as Ollama's legacy converters wrote them, made without the package's tables and metadata.

Source: Ollama `convert/{convert,convert_gptoss,reader,tokenizer}.go` at fa7776fd, 4ae4f47b, 59412fbb and 93085127.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import Tensor, read_tensors
from gguf_files import write_plan
from numpy.typing import NDArray

from gptoss_convert.formats.containers.gguf_types import BF16, F32, MXFP4, OLLAMA_MXFP4, GgmlType
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import boolean, f32, f32s, i32s, plan_gguf, string, strings, u32

Array = NDArray[Any]

NAMES = {
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_out",
    "self_attn.sinks": "attn_sinks",
    "mlp.router": "ffn_gate_inp",
    "mlp.experts.gate_up_proj_": "ffn_gate_up_exps.",
    "mlp.experts.down_proj_": "ffn_down_exps.",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


@dataclass(frozen=True)
class Version:
    """What a version of the converter did: `raw` blocks have type 4 and their stored nibbles."""

    fuses_qkv: bool
    splits_gate_up: bool
    raw: bool
    expert_bias: GgmlType


VERSIONS = {
    "0.11.0": Version(fuses_qkv=True, splits_gate_up=False, raw=True, expert_bias=BF16),
    "0.11.5": Version(fuses_qkv=True, splits_gate_up=False, raw=True, expert_bias=F32),
    "0.11.7": Version(fuses_qkv=False, splits_gate_up=False, raw=True, expert_bias=F32),
    "0.11.8": Version(fuses_qkv=False, splits_gate_up=False, raw=False, expert_bias=F32),
    "0.12.6": Version(fuses_qkv=False, splits_gate_up=True, raw=False, expert_bias=F32),
}


def ollama_gguf(checkpoint: Path, path: Path, version: str) -> Path:
    """The file that this version of Ollama made of a BF16 and MXFP4 checkpoint."""
    how = VERSIONS[version]
    arrays = _renamed(read_tensors(checkpoint))
    if how.fuses_qkv:
        arrays = _fused(arrays)
    if how.splits_gate_up:
        arrays = _split(arrays)
    tensors, data = [], {}
    for name, array in sorted(arrays.items()):
        kind = _kind(name, array, how)
        data[name] = _encoded(array, kind)
        shape = (*array.shape[:2], 32 * array.shape[2]) if array.dtype == np.uint8 else array.shape
        tensors.append((name, kind, shape))
    return write_plan(path, plan_gguf(ollama_kv(checkpoint), tensors), data)


def _renamed(stored: dict[str, Tensor]) -> dict[str, Array]:
    """Ollama name -> BF16 patterns as uint16, or blocks as uint8 [E, N, G, 17], scales first."""
    arrays: dict[str, Array] = {}
    for name, tensor in stored.items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        arrays[name] = np.frombuffer(tensor.data, np.uint8 if tensor.dtype == "U8" else np.uint16).reshape(tensor.shape)
    for name in [name for name in arrays if name.endswith(".scales")]:
        scales, blocks = arrays.pop(name), arrays.pop(name.replace(".scales", ".blocks"))
        arrays[name.replace(".scales", ".weight")] = np.concatenate([scales[..., None], blocks], axis=-1)
    return arrays


def _fused(arrays: dict[str, Array]) -> dict[str, Array]:
    fused = dict(arrays)
    for name in [name for name in arrays if ".attn_q." in name]:
        parts = [fused.pop(name.replace(".attn_q.", f".attn_{part}.")) for part in "qkv"]
        fused[name.replace(".attn_q.", ".attn_qkv.")] = np.concatenate(parts)
    return fused


def _split(arrays: dict[str, Array]) -> dict[str, Array]:
    split = dict(arrays)
    for name in [name for name in arrays if "gate_up" in name]:
        both = split.pop(name)
        split |= {name.replace("gate_up", half): both[:, first::2] for first, half in enumerate(("gate", "up"))}
    return split


def _kind(name: str, array: Array, how: Version) -> GgmlType:
    if array.dtype == np.uint8:
        return OLLAMA_MXFP4 if how.raw else MXFP4
    if name.endswith("_exps.bias"):
        return how.expert_bias
    return F32 if array.ndim == 1 or name.endswith((".ffn_gate_inp.weight", ".bias")) else BF16


def _encoded(array: Array, kind: GgmlType) -> Array:
    if kind is F32:
        return array.astype(np.uint32) << 16
    return _in_halves(array) if kind is MXFP4 else np.ascontiguousarray(array)


def _in_halves(blocks: Array) -> Array:
    """Byte j of a block's codes: element j low, element j + 16 high."""
    codes = np.stack([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    return np.concatenate([blocks[..., :1], codes[..., :16] | codes[..., 16:] << 4], axis=-1)


def ollama_kv(checkpoint: Path) -> dict[str, GgufValue]:
    """The keys that the converter made of config.json and tokenizer.json, sorted."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    kv = {
        "general.architecture": string("gptoss"),
        "general.file_type": u32(4),
        "general.quantization_version": u32(2),
        "gptoss.context_length": u32(config["max_position_embeddings"]),
        "gptoss.block_count": u32(config["num_hidden_layers"]),
        "gptoss.embedding_length": u32(config["hidden_size"]),
        "gptoss.feed_forward_length": u32(config["intermediate_size"]),
        "gptoss.expert_count": u32(config["num_local_experts"]),
        "gptoss.expert_used_count": u32(config["experts_per_token"]),
        "gptoss.attention.head_count": u32(config["num_attention_heads"]),
        "gptoss.attention.head_count_kv": u32(config["num_key_value_heads"]),
        "gptoss.attention.key_length": u32(config["head_dim"]),
        "gptoss.attention.value_length": u32(config["head_dim"]),
        "gptoss.attention.layer_norm_rms_epsilon": f32(config["rms_norm_eps"]),
        "gptoss.attention.sliding_window": u32(config["sliding_window"]),
        "gptoss.rope.freq_base": f32(config["rope_theta"]),
        "gptoss.rope.scaling.factor": f32(config["rope_scaling"]["factor"]),
        "gptoss.rope.scaling.original_context_length": u32(config["initial_context_length"]),
    }
    return dict(sorted((kv | _tokenizer_kv(checkpoint, config["vocab_size"])).items()))


def _tokenizer_kv(checkpoint: Path, vocab_size: int) -> dict[str, GgufValue]:
    """The demo's special tokens have other ids than the official ones, so those are found by name here."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_bytes())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    texts = {token_id: text for text, token_id in (tokenizer["model"]["vocab"] | added).items()}
    n_fillers = vocab_size - len(texts)
    tokens = [texts[token_id] for token_id in sorted(texts)] + [f"[PAD{place}]" for place in range(n_fillers)]
    types = [3 if token_id in added.values() else 1 for token_id in sorted(texts)] + [4] * n_fillers
    return {
        "tokenizer.ggml.add_bos_token": boolean(False),
        "tokenizer.ggml.add_eos_token": boolean(False),
        "tokenizer.ggml.add_padding_token": boolean(False),
        "tokenizer.ggml.bos_token_id": u32(added["<|startoftext|>"]),
        "tokenizer.ggml.eos_token_id": u32(added["<|endoftext|>"]),
        "tokenizer.ggml.eos_token_ids": i32s([added[f"<|{name}|>"] for name in ("endoftext", "return", "call")]),
        "tokenizer.ggml.merges": strings([" ".join(merge) for merge in tokenizer["model"]["merges"]]),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.padding_token_id": u32(added["<|endoftext|>"]),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.scores": f32s([float(token_id) for token_id in sorted(texts)] + [-1.0] * n_fillers),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.tokens": strings(tokens),
    }
