"""The order in which the official conversion filled its shards, and the names it gave them.

The official HF files were made from OpenAI's `original/` ones: tensors in the alphabetical order of their original
names, put into a shard until the next would exceed 4.8 GB, shards counted from 0 but "of" one less than their number.
Of 120b the seven original files were taken in the order 4, 3, 6, 2, 1, 7, 5; each held up to 10 GiB of that same order.

Source: rebuilt from the published index files; tests pin their SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from ...formats.containers.safetensors import DTYPE_BITS
from ..config import GptOssConfig

SHARD_BYTES = 4_800_000_000
ORIGINAL_FILE_BYTES = 10 << 30

# The original files in the order they were converted in, by how many there are.
_FILE_ORDER: dict[int, tuple[int, ...]] = {7: (4, 3, 6, 2, 1, 7, 5)}

# original name -> HF names, as the conversion wrote them one after another
_MODEL_ORDER: dict[str, tuple[str, ...]] = {
    "embedding.weight": ("model.embed_tokens.weight",),
    "norm.scale": ("model.norm.weight",),
    "unembedding.weight": ("lm_head.weight",),
}
_LAYER_ORDER: dict[str, tuple[str, ...]] = {
    "attn.norm.scale": ("input_layernorm.weight",),
    "attn.out.bias": ("self_attn.o_proj.bias",),
    "attn.out.weight": ("self_attn.o_proj.weight",),
    "attn.qkv.bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "attn.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attn.sinks": ("self_attn.sinks",),
    "mlp.gate.bias": ("mlp.router.bias",),
    "mlp.gate.weight": ("mlp.router.weight",),
    "mlp.mlp1_bias": ("mlp.experts.gate_up_proj_bias",),
    "mlp.mlp1_weight.blocks": ("mlp.experts.gate_up_proj_blocks",),
    "mlp.mlp1_weight.scales": ("mlp.experts.gate_up_proj_scales",),
    "mlp.mlp2_bias": ("mlp.experts.down_proj_bias",),
    "mlp.mlp2_weight.blocks": ("mlp.experts.down_proj_blocks",),
    "mlp.mlp2_weight.scales": ("mlp.experts.down_proj_scales",),
    "mlp.norm.scale": ("post_attention_layernorm.weight",),
}


def shards(config: GptOssConfig, n_bytes: Mapping[str, int], max_bytes: int = SHARD_BYTES) -> list[list[str]]:
    """The names of the HF tensors in each shard, in the order they were added. `n_bytes` is by HF name."""
    return fill(_conversion_order(config, n_bytes), n_bytes, max_bytes)


def _conversion_order(config: GptOssConfig, n_bytes: Mapping[str, int]) -> list[str]:
    """All HF names in the order the official conversion met them."""
    originals = dict(_MODEL_ORDER)
    for layer in range(config.num_hidden_layers):
        for original, names in _LAYER_ORDER.items():
            originals[f"block.{layer}.{original}"] = tuple(f"model.layers.{layer}.{name}" for name in names)
    original_bytes = {original: sum(n_bytes[name] for name in names) for original, names in originals.items()}
    files = fill(sorted(originals), original_bytes, ORIGINAL_FILE_BYTES)
    order = _FILE_ORDER.get(len(files), tuple(range(1, len(files) + 1)))
    return [name for number in order for original in files[number - 1] for name in originals[original]]


def fill(names: Iterable[str], n_bytes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Greedy: a new file whenever the next tensor would exceed `max_bytes`; never an empty one."""
    files: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if files[-1] and filled + n_bytes[name] > max_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += n_bytes[name]
    return files


def shard_name(number: int, n_shards: int) -> str:
    """The file name of shard `number` (from 0), with the official off-by-one: three shards end in `-of-00002`."""
    return f"model-{number:05d}-of-{n_shards - 1:05d}.safetensors"


def index_json(weight_map: Mapping[str, str], total_bytes: int) -> bytes:
    """The bytes of model.safetensors.index.json."""
    return json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": dict(weight_map)}).encode()


def header_order(names: Sequence[str], dtypes: Mapping[str, str]) -> list[str]:
    """The order of tensors inside a shard: wide elements first, then by name, as the safetensors writer sorts."""
    return sorted(names, key=lambda name: (-DTYPE_BITS[dtypes[name]], dtypes[name], name))
