"""Directories in Hugging Face's layout that transformers and mlx-lm load without a word and that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import Tensors, copy_of, edit_json, edit_tensors
from numpy.typing import NDArray

Array = NDArray[Any]
Change = Callable[[Array], Array]
Fault = Callable[[Path], object]

ELEMENT = {"BF16": np.uint16, "U8": np.uint8}


def with_fault(source: Path, out: Path, fault: Fault) -> Path:
    """A copy of the directory `source` with the fault in it."""
    fault(copy_of(source, out))
    before, after = ({path.name: path.read_bytes() for path in directory.iterdir()} for directory in (source, out))
    assert before != after
    return out


def tensors(change: Change, *ends: str) -> Fault:
    """`change` made to all tensors whose names end so. It is given BF16 as patterns, uint16."""

    def edit(stored: Tensors) -> None:
        for name, tensor in stored.items():
            if name.endswith(ends):
                array = np.frombuffer(tensor.data, ELEMENT[tensor.dtype]).reshape(tensor.shape)
                tensor.data = np.ascontiguousarray(change(array)).tobytes()

    return partial(edit_tensors, change=edit)


def config(**changes: object) -> Fault:
    """Other values for keys of the config, and of its `rope_scaling`."""

    def edit(content: dict[str, Any]) -> None:
        for key, value in changes.items():
            part = content["rope_scaling"] if key in content["rope_scaling"] else content
            assert part[key] != value
            part[key] = value

    return lambda directory: edit_json(directory / "config.json", edit)


def pairs_swapped(array: Array) -> Array:
    """Rows 2i and 2i + 1 of each expert in the other order."""
    return array.reshape(len(array), -1, 2, *array.shape[2:])[:, :, ::-1]


def column_pairs_swapped(array: Array) -> Array:
    """Columns 2i and 2i + 1 of each expert in the other order."""
    return array.reshape(*array.shape[:-1], -1, 2)[..., ::-1]


def in_halves(array: Array) -> Array:
    """All even rows of each expert before all odd ones."""
    return np.concatenate([array[:, 0::2], array[:, 1::2]], axis=1)


def first_one_larger(array: Array) -> Array:
    """The very first element one larger: a scale twice as large, a BF16 value one unit in the last place."""
    changed = array.copy()
    changed.flat[0] += 1
    return changed


def in_spelling_of_transformers_5(directory: Path) -> None:
    """The config says the same as before to those who know `rope_parameters`."""

    def edit(content: dict[str, Any]) -> None:
        content["rope_parameters"] = {**content.pop("rope_scaling"), "rope_theta": content.pop("rope_theta")}

    edit_json(directory / "config.json", edit)


GATE_UP = ("gate_up_proj_blocks", "gate_up_proj_scales", "gate_up_proj_bias")
DOWN = ("down_proj_blocks", "down_proj_scales")

MXFP4_FAULTS: dict[str, Fault] = {
    "gate and up swapped": tensors(pairs_swapped, *GATE_UP),
    "gate before up, not in turn": tensors(in_halves, *GATE_UP),
    "nibbles swapped": tensors(lambda blocks: blocks << 4 | blocks >> 4, "_blocks"),
    "scales one too large": tensors(lambda scales: scales + 1, "_scales"),
    "scales one too small": tensors(lambda scales: scales - 1, "_scales"),
    "one scale of one block off by one": tensors(first_one_larger, "layers.0.mlp.experts.down_proj_scales"),
    "experts moved by one": tensors(partial(np.roll, shift=1, axis=0), *DOWN),
    "expert biases dropped": tensors(np.zeros_like, "_proj_bias"),
    "router bias dropped": tensors(np.zeros_like, "router.bias"),
    "attention bias dropped": tensors(np.zeros_like, "_proj.bias"),
    "sinks zeroed": tensors(np.zeros_like, "sinks"),
}

EXPERT = "layers.0.mlp.experts"
BF16_FAULTS: dict[str, Fault] = {
    "gate and up swapped": tensors(column_pairs_swapped, "gate_up_proj", "gate_up_proj_bias"),
    "experts moved by one": tensors(partial(np.roll, shift=1, axis=0), "down_proj"),
    "one weight one unit in the last place off": tensors(first_one_larger, f"{EXPERT}.down_proj"),
    "one bias one unit in the last place off": tensors(first_one_larger, f"{EXPERT}.down_proj_bias"),
    "one sink one unit in the last place off": tensors(first_one_larger, "layers.0.self_attn.sinks"),
}

CONFIG_FAULTS: dict[str, Fault] = {
    "factor of YaRN is 8": config(factor=8.0),
    "theta is 10000": config(rope_theta=10_000),
    "window is one longer": config(sliding_window=33),
    "layers slide in the other order": config(layer_types=["full_attention", "sliding_attention"] * 2),
    "three experts per token": config(num_experts_per_tok=3),
}
# mlx-lm has no key for two of these, and the third is too small a change to be told from other sums in float32.
TRANSFORMERS_FAULTS = CONFIG_FAULTS | {
    "truncate is true": config(truncate=True),
    "no clamp": config(swiglu_limit=1e9),
    "epsilon is 1e-6": config(rms_norm_eps=1e-6),
}
# Without `rope_scaling` transformers takes the official YaRN for granted.
MLX_FAULTS = CONFIG_FAULTS | {
    "no YaRN": config(rope_scaling=None),
    "positions in the spelling of transformers 5": in_spelling_of_transformers_5,
}
