"""The official Hugging Face layout: `config.json`, `model-*.safetensors`, experts as MXFP4 blocks and scales.

Rows of `gate_up_proj` alternate: row 2i is row i of gate, row 2i + 1 row i of up; so do those of its bias.

Experts that are floats have other names (`VARIANTS`). One is not among them, because its writers disagree:
`experts.{expert}.gate_proj.weight` is gate in AutoRound (with transformers 4) and slime (March to June 2026), but the
first half of the alternating rows in llm-compressor 0.12 and 0.13, Defuser, and AutoRound with transformers 5.

Source: openai/gpt-oss-20b model.safetensors.index.json; transformers `models/gpt_oss/modeling_gpt_oss.py`.
"""

from __future__ import annotations

from dataclasses import replace

from .table import Rows, Table, Variants

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

# What transformers names experts that are floats: [E, inputs, outputs], gate and up alternate along the outputs.
_DENSE: Table = {
    "layers.{layer}.moe.gate.weight": Rows(f"{_EXPERTS}.gate_up_proj", first=0, step=2, transposed=True),
    "layers.{layer}.moe.up.weight": Rows(f"{_EXPERTS}.gate_up_proj", first=1, step=2, transposed=True),
    "layers.{layer}.moe.down.weight": Rows(f"{_EXPERTS}.down_proj", transposed=True),
}

DENSE_TABLE: Table = {**TABLE, **_DENSE}

# The same arrays as transformers 5 saves a dequantized model: under the names of blocks.
_MISNAMED: Table = {name: replace(rows, name=f"{rows.name}_blocks") for name, rows in _DENSE.items()}

# One nn.Linear for each expert, gate and up alternate; so is the router. Unsloth makes them for bitsandbytes, and a
# merge with PEFT then saves them. Source: unsloth-zoo `temporary_patches/gpt_oss.py`, GptOssExpertsBnb4bit.
_UNSLOTH: Table = {
    "layers.{layer}.moe.router.weight": Rows(f"{_LAYER}.mlp.router.linear.weight"),
    "layers.{layer}.moe.router.bias": Rows(f"{_LAYER}.mlp.router.linear.bias"),
    "layers.{layer}.moe.gate.weight": Rows(f"{_EXPERTS}.gate_up_projs.{{expert}}.weight", first=0, step=2),
    "layers.{layer}.moe.gate.bias": Rows(f"{_EXPERTS}.gate_up_projs.{{expert}}.bias", first=0, step=2),
    "layers.{layer}.moe.up.weight": Rows(f"{_EXPERTS}.gate_up_projs.{{expert}}.weight", first=1, step=2),
    "layers.{layer}.moe.up.bias": Rows(f"{_EXPERTS}.gate_up_projs.{{expert}}.bias", first=1, step=2),
    "layers.{layer}.moe.down.weight": Rows(f"{_EXPERTS}.down_projs.{{expert}}.weight"),
    "layers.{layer}.moe.down.bias": Rows(f"{_EXPERTS}.down_projs.{{expert}}.bias"),
}


def _linears(prefix: str) -> Table:
    """Three nn.Linear for each expert, gate and up apart."""
    return {
        f"layers.{{layer}}.moe.{role}.{kind}": Rows(f"{_EXPERTS}.{prefix}{{expert}}.{role}_proj.{kind}")
        for role in ("gate", "up", "down")
        for kind in ("weight", "bias")
    }


# Gate and up of an expert in one nn.Linear, alternating; AMD Quark names them so.
_FUSED: Table = {
    f"layers.{{layer}}.moe.{role}.{kind}": Rows(f"{_EXPERTS}.{{expert}}.gate_up_proj.{kind}", first=first, step=2)
    for first, role in enumerate(("gate", "up"))
    for kind in ("weight", "bias")
}

# `experts.0.gate_proj` is the gate in most checkpoints, but llm-compressor 0.12 and 0.13 cut the alternating rows into
# halves and gave them these names; nothing in the file tells. One level deeper (0.10 and 0.11) it is always the gate.
# Source: llm-compressor `modeling/gpt_oss.py`, pull request 3100; slime `convert_torch_dist_to_hf`.
LINEARS: Table = _linears("")
_DEEPER: Table = _linears("experts.")

# Where else a tensor may be stored.
VARIANTS: Variants = {
    name: places
    for name in TABLE
    if (places := tuple(rows[name] for rows in (_DENSE, _MISNAMED, _UNSLOTH, _FUSED, LINEARS, _DEEPER) if name in rows))
}
