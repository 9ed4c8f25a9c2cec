"""The official Hugging Face layout: `config.json`, `model-*.safetensors`, experts as MXFP4 blocks and scales.

Rows of `gate_up_proj` alternate: row 2i is row i of gate, row 2i + 1 row i of up; so do those of its bias.

Source: openai/gpt-oss-20b model.safetensors.index.json; transformers `models/gpt_oss/modeling_gpt_oss.py`.
"""

from __future__ import annotations

from .table import Rows, Table

NAME = "hf"
INDEX_FILE = "model.safetensors.index.json"

_LAYER = "model.layers.{layer}"
_EXPERTS = "model.layers.{layer}.mlp.experts"

TABLE: Table = {
    "embedding.weight": Rows("model.embed_tokens.weight"),
    "layers.{layer}.attention.norm.weight": Rows(f"{_LAYER}.input_layernorm.weight"),
    "layers.{layer}.attention.q.weight": Rows(f"{_LAYER}.self_attn.q_proj.weight"),
    "layers.{layer}.attention.q.bias": Rows(f"{_LAYER}.self_attn.q_proj.bias"),
    "layers.{layer}.attention.k.weight": Rows(f"{_LAYER}.self_attn.k_proj.weight"),
    "layers.{layer}.attention.k.bias": Rows(f"{_LAYER}.self_attn.k_proj.bias"),
    "layers.{layer}.attention.v.weight": Rows(f"{_LAYER}.self_attn.v_proj.weight"),
    "layers.{layer}.attention.v.bias": Rows(f"{_LAYER}.self_attn.v_proj.bias"),
    "layers.{layer}.attention.o.weight": Rows(f"{_LAYER}.self_attn.o_proj.weight"),
    "layers.{layer}.attention.o.bias": Rows(f"{_LAYER}.self_attn.o_proj.bias"),
    "layers.{layer}.attention.sinks": Rows(f"{_LAYER}.self_attn.sinks"),
    "layers.{layer}.moe.norm.weight": Rows(f"{_LAYER}.post_attention_layernorm.weight"),
    "layers.{layer}.moe.router.weight": Rows(f"{_LAYER}.mlp.router.weight"),
    "layers.{layer}.moe.router.bias": Rows(f"{_LAYER}.mlp.router.bias"),
    "layers.{layer}.moe.gate.weight": Rows(f"{_EXPERTS}.gate_up_proj_{{part}}", first=0, step=2),
    "layers.{layer}.moe.gate.bias": Rows(f"{_EXPERTS}.gate_up_proj_bias", first=0, step=2),
    "layers.{layer}.moe.up.weight": Rows(f"{_EXPERTS}.gate_up_proj_{{part}}", first=1, step=2),
    "layers.{layer}.moe.up.bias": Rows(f"{_EXPERTS}.gate_up_proj_bias", first=1, step=2),
    "layers.{layer}.moe.down.weight": Rows(f"{_EXPERTS}.down_proj_{{part}}"),
    "layers.{layer}.moe.down.bias": Rows(f"{_EXPERTS}.down_proj_bias"),
    "norm.weight": Rows("model.norm.weight"),
    "unembedding.weight": Rows("lm_head.weight"),
}
