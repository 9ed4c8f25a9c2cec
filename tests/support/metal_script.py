"""An oracle for Metal files: a whole file written front to back with torch, as OpenAI's conversion script does it.

It shares no code with the package. Where the script has numbers of the official models (4 active experts, heads of 64,
16 special tokens) this takes them as arguments, so that a small model will do.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import torch

UUIDS = {
    "model": "df52dc86-1789-4ed0-a295-66f10508145b",
    "layout": "229177a8-5775-4268-bfd8-d588b351c56d",
    "tokenizer": "7401aded-2a95-40cb-b782-9ccebaafe72b",
    "start": "55a77c2f-8a01-4c54-8ac2-313bfc7e208d",
    "message": "16e40431-f47f-4b22-b59b-8b278fc30a54",
    "end": "fcac2f6d-4705-4f6b-b228-642accac7238",
    "return": "f799ff69-1992-43c4-a3d8-d831f475dc75",
    "refusal": "e15ba702-28c4-4292-ab8f-ffa434709128",
    "constrain": "c0bb14c7-6022-49da-ad08-792d67e8b470",
    "channel": "fd3dda11-c8ab-4033-876e-d93deb172c93",
    "call": "1220f796-e388-4de5-b487-fe2eb5fe03c0",
    "untrusted": "07d7da55-b346-4cff-8b37-7cefacf8a3e8",
}

# The script's names for 199998..200013; it has two for 200008, and tiktoken 0.9 and 0.12 both keep this one.
SPECIALS = (
    *("unused", "endoftext", "untrusted", "endofuntrusted", "return", "constrain", "unused", "channel"),
    *("start", "end", "message", "unused", "unused", "unused", "call", "refusal"),
)

REGEX = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TINY = {
    "num_hidden_layers": 2,
    "num_experts": 3,
    "experts_per_token": 2,
    "vocab_size": 330,
    "hidden_size": 96,
    "intermediate_size": 64,
    "swiglu_limit": 7.0,
    "head_dim": 16,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "sliding_window": 128,
    "initial_context_length": 4096,
    "rope_theta": 150000,
    "rope_scaling_factor": 32.0,
    "rope_ntk_alpha": 1,
    "rope_ntk_beta": 32,
}


def tiny_tensors(config: Mapping[str, Any] = TINY) -> dict[str, torch.Tensor]:
    """Random tensors of the `original/` layout."""
    random = torch.Generator().manual_seed(11)
    hidden, inter, experts = config["hidden_size"], config["intermediate_size"], config["num_experts"]
    q = config["num_attention_heads"] * config["head_dim"]
    qkv = q + 2 * config["num_key_value_heads"] * config["head_dim"]

    def bf16(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).bfloat16()

    def u8(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=random, dtype=torch.uint8)

    tensors = {"embedding.weight": bf16(config["vocab_size"], hidden), "norm.scale": bf16(hidden)}
    tensors["unembedding.weight"] = bf16(config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = {
            "attn.norm.scale": bf16(hidden),
            "attn.qkv.weight": bf16(qkv, hidden),
            "attn.qkv.bias": bf16(qkv),
            "attn.sinks": bf16(config["num_attention_heads"]),
            "attn.out.weight": bf16(hidden, q),
            "attn.out.bias": bf16(hidden),
            "mlp.norm.scale": bf16(hidden),
            "mlp.gate.weight": bf16(experts, hidden),
            "mlp.gate.bias": bf16(experts),
            "mlp.mlp1_weight.blocks": u8(0, 256, experts, 2 * inter, hidden // 32, 16),
            "mlp.mlp1_weight.scales": u8(0, 241, experts, 2 * inter, hidden // 32),
            "mlp.mlp1_bias": bf16(experts, 2 * inter),
            "mlp.mlp2_weight.blocks": u8(0, 256, experts, hidden, inter // 32, 16),
            "mlp.mlp2_weight.scales": u8(0, 241, experts, hidden, inter // 32),
            "mlp.mlp2_bias": bf16(experts, hidden),
        }
        tensors |= {f"block.{layer}.{name}": tensor for name, tensor in block.items()}
    return tensors


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


class Writer:
    """A file that is only ever appended to."""

    def __init__(self) -> None:
        self.file = io.BytesIO()

    def bytes(self, data: bytes) -> None:
        self.file.write(data)

    def align(self, n_bytes: int) -> None:
        while self.file.tell() % n_bytes:
            self.file.write(b"\0")

    def tensor(self, tensor: torch.Tensor) -> None:
        self.align(16)
        self.bytes(raw(tensor))

    def uuid(self, name: str) -> None:
        self.bytes(UUID(UUIDS[name]).bytes if name in UUIDS else b"\0" * 16)


def metal_file(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], tokens: Sequence[bytes]) -> bytes:
    """The whole file. `tokens` are the text tokens by id; 16 special ones follow."""
    out = Writer()
    _write_header(out, config)
    _write_tokenizer(out, tokens)
    kept = len(tokens) + len(SPECIALS)
    out.tensor(tensors["embedding.weight"][:kept])
    for layer in range(config["num_hidden_layers"]):
        block = {name.split(".", 2)[2]: t for name, t in tensors.items() if name.startswith(f"block.{layer}.")}
        _write_shared(out, config, block)
    out.tensor(tensors["norm.scale"])
    out.tensor(tensors["unembedding.weight"][:kept])
    for layer in range(config["num_hidden_layers"]):
        out.align(16384)
        for expert in range(config["num_experts"]):
            for part in ("mlp1_weight.blocks", "mlp1_weight.scales", "mlp1_bias"):
                _write_expert(out, tensors[f"block.{layer}.mlp.{part}"][expert], part)
            for part in ("mlp2_weight.blocks", "mlp2_weight.scales", "mlp2_bias"):
                _write_expert(out, tensors[f"block.{layer}.mlp.{part}"][expert], part)
    return out.file.getvalue()


def _write_header(out: Writer, config: Mapping[str, Any]) -> None:
    out.bytes(b"GPT-OSS v1.0" + struct.pack("<I", 0))
    out.uuid("model")
    context, theta, factor = config["initial_context_length"], config["rope_theta"], config["rope_scaling_factor"]

    def dimension(turns: float) -> float:
        return config["head_dim"] / 2 * math.log(context / (turns * 2 * math.pi)) / math.log(theta)

    low, high = dimension(config["rope_ntk_beta"]), dimension(config["rope_ntk_alpha"])
    for key in ("context", "num_hidden_layers", "num_experts", "experts_per_token", "hidden_size", "intermediate_size"):
        out.bytes(struct.pack("<I", int(context * factor) if key == "context" else config[key]))
    out.bytes(struct.pack("<f", config["swiglu_limit"]))
    for key in ("head_dim", "num_attention_heads", "num_key_value_heads", "sliding_window"):
        out.bytes(struct.pack("<I", config[key]))
    for number in (theta, 1 / factor, -low / (high - low), 1 / (high - low), 0.1 * math.log(factor) + 1, 1e-5):
        out.bytes(struct.pack("<f", number))
    out.uuid("layout")


def _write_tokenizer(out: Writer, tokens: Sequence[bytes]) -> None:
    out.uuid("tokenizer")
    size = sum(2 + len(token) for token in tokens)
    out.bytes(struct.pack("<4I", len(SPECIALS), len(tokens), len(REGEX) + 1, size))
    for name in SPECIALS:
        out.uuid(name)
    out.bytes(REGEX.encode("ascii") + b"\0")
    for token in tokens:
        out.bytes(struct.pack("<H", len(token)) + token)
    out.align(16384)


def _write_shared(out: Writer, config: Mapping[str, Any], block: Mapping[str, torch.Tensor]) -> None:
    out.tensor(block["attn.norm.scale"])
    out.tensor(_for_kernels(config, block["attn.qkv.weight"]))
    out.tensor(_for_kernels(config, block["attn.qkv.bias"]))
    for name in ("attn.sinks", "attn.out.weight", "attn.out.bias"):
        out.tensor(block[name])
    for name in ("mlp.norm.scale", "mlp.gate.weight", "mlp.gate.bias"):
        out.tensor(block[name])


def _for_kernels(config: Mapping[str, Any], qkv: torch.Tensor) -> torch.Tensor:
    """Rows of q and k in rotated pairs; q halved, k quartered."""
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    q, k, v = qkv.split([heads * dim, kv_heads * dim, kv_heads * dim])
    pairs = torch.arange(dim).view(2, dim // 2).T.reshape(-1)

    def reordered(rows: torch.Tensor) -> torch.Tensor:
        return rows.view(-1, dim, *rows.shape[1:])[:, pairs].reshape(rows.shape)

    return torch.cat([reordered(q) * 0.5, reordered(k) * 0.25, v])


def _write_expert(out: Writer, tensor: torch.Tensor, part: str) -> None:
    out.tensor(tensor + 14 if part.endswith("scales") else tensor)


def kernel_offsets(config: Mapping[str, Any], n_tokens: int) -> dict[str, int]:
    """Where OpenAI's program looks for each array (experts: for expert 1 of layer 1), from the start of the weights."""
    hidden, inter, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    experts, dim, layers = config["num_experts"], config["head_dim"], config["num_hidden_layers"]
    qkv = dim * (heads + 2 * config["num_key_value_heads"])
    shared = {
        "attn.norm.scale": hidden * 2,
        "attn.qkv.weight": qkv * hidden * 2,
        "attn.qkv.bias": qkv * 2,
        "attn.sinks": heads * 2,
        "attn.out.weight": hidden * heads * dim * 2,
        "attn.out.bias": hidden * 2,
        "mlp.norm.scale": hidden * 2,
        "mlp.gate.weight": experts * hidden * 2,
        "mlp.gate.bias": experts * 2,
    }
    expert = {
        "mlp.mlp1_weight.blocks": inter * hidden,
        "mlp.mlp1_weight.scales": 2 * inter * hidden // 32,
        "mlp.mlp1_bias": 2 * inter * 2,
        "mlp.mlp2_weight.blocks": hidden * inter // 2,
        "mlp.mlp2_weight.scales": hidden * inter // 32,
        "mlp.mlp2_bias": hidden * 2,
    }

    def up(number: int, multiple: int) -> int:
        return (number + multiple - 1) // multiple * multiple

    per_layer, per_expert = (sum(up(size, 16) for size in sizes.values()) for sizes in (shared, expert))
    embedding = up(n_tokens * hidden * 2, 16)
    offsets = {"embedding.weight": 0, "norm.scale": embedding + layers * per_layer}
    offsets["unembedding.weight"] = offsets["norm.scale"] + up(hidden * 2, 16)
    moe = up(offsets["unembedding.weight"] + embedding, 16384) + up(experts * per_expert, 16384)
    for sizes, start in ((shared, embedding + per_layer), (expert, moe + per_expert)):
        for name, size in sizes.items():
            offsets[f"block.1.{name}"] = start
            start += up(size, 16)
    return offsets
