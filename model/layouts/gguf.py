"""The GGUF layout of llama.cpp, architecture `gpt-oss`: gate, up and down apart, norms and biases in F32.

Its converter can put q, k and v into one tensor (`--fuse-qkv`), one after another.

Source: llama.cpp `gguf-py/gguf/constants.py` (GPT_OSS), `conversion/gpt_oss.py`, `src/models/openai-moe.cpp`.
"""

from __future__ import annotations

from .table import Rows, Table, Variants

NAME = "gguf"

TABLE: Table = {
    "embedding.weight": Rows("token_embd.weight"),
    "layers.{layer}.attention.norm.weight": Rows("blk.{layer}.attn_norm.weight"),
    "layers.{layer}.attention.q.weight": Rows("blk.{layer}.attn_q.weight"),
    "layers.{layer}.attention.q.bias": Rows("blk.{layer}.attn_q.bias"),
    "layers.{layer}.attention.k.weight": Rows("blk.{layer}.attn_k.weight"),
    "layers.{layer}.attention.k.bias": Rows("blk.{layer}.attn_k.bias"),
    "layers.{layer}.attention.v.weight": Rows("blk.{layer}.attn_v.weight"),
    "layers.{layer}.attention.v.bias": Rows("blk.{layer}.attn_v.bias"),
    "layers.{layer}.attention.o.weight": Rows("blk.{layer}.attn_output.weight"),
    "layers.{layer}.attention.o.bias": Rows("blk.{layer}.attn_output.bias"),
    "layers.{layer}.attention.sinks": Rows("blk.{layer}.attn_sinks.weight"),
    "layers.{layer}.moe.norm.weight": Rows("blk.{layer}.post_attention_norm.weight"),
    "layers.{layer}.moe.router.weight": Rows("blk.{layer}.ffn_gate_inp.weight"),
    "layers.{layer}.moe.router.bias": Rows("blk.{layer}.ffn_gate_inp.bias"),
    "layers.{layer}.moe.gate.weight": Rows("blk.{layer}.ffn_gate_exps.weight"),
    "layers.{layer}.moe.gate.bias": Rows("blk.{layer}.ffn_gate_exps.bias"),
    "layers.{layer}.moe.up.weight": Rows("blk.{layer}.ffn_up_exps.weight"),
    "layers.{layer}.moe.up.bias": Rows("blk.{layer}.ffn_up_exps.bias"),
    "layers.{layer}.moe.down.weight": Rows("blk.{layer}.ffn_down_exps.weight"),
    "layers.{layer}.moe.down.bias": Rows("blk.{layer}.ffn_down_exps.bias"),
    "norm.weight": Rows("output_norm.weight"),
    "unembedding.weight": Rows("output.weight"),
}

FUSED_QKV: Table = {
    "layers.{layer}.attention.q.weight": Rows("blk.{layer}.attn_qkv.weight", after=("kv", "kv")),
    "layers.{layer}.attention.q.bias": Rows("blk.{layer}.attn_qkv.bias", after=("kv", "kv")),
    "layers.{layer}.attention.k.weight": Rows("blk.{layer}.attn_qkv.weight", before=("q",), after=("kv",)),
    "layers.{layer}.attention.k.bias": Rows("blk.{layer}.attn_qkv.bias", before=("q",), after=("kv",)),
    "layers.{layer}.attention.v.weight": Rows("blk.{layer}.attn_qkv.weight", before=("q", "kv")),
    "layers.{layer}.attention.v.bias": Rows("blk.{layer}.attn_qkv.bias", before=("q", "kv")),
}

VARIANTS: Variants = {name: (rows,) for name, rows in FUSED_QKV.items()}

# llama.cpp aborts on norms, sinks and biases in F16 or BF16; the router is kept exact.
F32_ROLES = frozenset({"norm", "sinks", "router", "router bias", "attention bias", "expert bias"})
