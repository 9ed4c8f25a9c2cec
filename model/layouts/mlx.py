"""The layout of mlx-lm: Hugging Face's names, gate and up apart, packed weights as words of four bytes.

    {module}.weight    floats [..., N, K], or what is quantized: uint32, eight codes of 4 bits or four of 8 in a word
    {module}.scales    one for each group of a row: bytes (mode mxfp4) or floats (mode affine)
    {module}.biases    floats, of mode affine only; `{module}.bias` is the projection's own

In mode mxfp4 the bytes are those of the official blocks and scales: element i of a word lies in its bits 4i to 4i + 3.

Source: mlx-lm 0.32.2 `models/gpt_oss.py` (sanitize), `utils.py` (save_model, load_model); MLX 0.32.4
`nn/layers/quantized.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .table import Rows, Table

NAME = "mlx"

_LAYER = "model.layers.{layer}"
_EXPERTS = "model.layers.{layer}.mlp.experts"

TABLE: Table = {
    "embedding.weight": Rows("model.embed_tokens.{mlx}"),
    "layers.{layer}.attention.norm.weight": Rows(f"{_LAYER}.input_layernorm.weight"),
    "layers.{layer}.attention.q.weight": Rows(f"{_LAYER}.self_attn.q_proj.{{mlx}}"),
    "layers.{layer}.attention.q.bias": Rows(f"{_LAYER}.self_attn.q_proj.bias"),
    "layers.{layer}.attention.k.weight": Rows(f"{_LAYER}.self_attn.k_proj.{{mlx}}"),
    "layers.{layer}.attention.k.bias": Rows(f"{_LAYER}.self_attn.k_proj.bias"),
    "layers.{layer}.attention.v.weight": Rows(f"{_LAYER}.self_attn.v_proj.{{mlx}}"),
    "layers.{layer}.attention.v.bias": Rows(f"{_LAYER}.self_attn.v_proj.bias"),
    "layers.{layer}.attention.o.weight": Rows(f"{_LAYER}.self_attn.o_proj.{{mlx}}"),
    "layers.{layer}.attention.o.bias": Rows(f"{_LAYER}.self_attn.o_proj.bias"),
    "layers.{layer}.attention.sinks": Rows(f"{_LAYER}.self_attn.sinks"),
    "layers.{layer}.moe.norm.weight": Rows(f"{_LAYER}.post_attention_layernorm.weight"),
    "layers.{layer}.moe.router.weight": Rows(f"{_LAYER}.mlp.router.{{mlx}}"),
    "layers.{layer}.moe.router.bias": Rows(f"{_LAYER}.mlp.router.bias"),
    "layers.{layer}.moe.gate.weight": Rows(f"{_EXPERTS}.gate_proj.{{mlx}}"),
    "layers.{layer}.moe.gate.bias": Rows(f"{_EXPERTS}.gate_proj.bias"),
    "layers.{layer}.moe.up.weight": Rows(f"{_EXPERTS}.up_proj.{{mlx}}"),
    "layers.{layer}.moe.up.bias": Rows(f"{_EXPERTS}.up_proj.bias"),
    "layers.{layer}.moe.down.weight": Rows(f"{_EXPERTS}.down_proj.{{mlx}}"),
    "layers.{layer}.moe.down.bias": Rows(f"{_EXPERTS}.down_proj.bias"),
    "norm.weight": Rows("model.norm.weight"),
    "unembedding.weight": Rows("lm_head.{mlx}"),
}

# mlx_lm.convert's files hold at most this many bytes of tensors.
SHARD_BYTES = 5 << 30
METADATA = {"format": "mlx"}


def recognises_names(names: Iterable[str]) -> bool:
    """True if gate and up of all experts lie apart, each in one array."""
    return any(name.endswith(".mlp.experts.gate_proj.weight") for name in names)


def shard_name(number: int, n_shards: int) -> str:
    """The file name of shard `number`, from 1."""
    return "model.safetensors" if n_shards == 1 else f"model-{number:05d}-of-{n_shards:05d}.safetensors"
