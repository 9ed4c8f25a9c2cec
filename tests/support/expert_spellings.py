"""BF16 experts as other programs store them: changes to a directory that `to-bf16` wrote, without our own code.

There `gate_up_proj` is [experts, inputs, 2 · outputs] with gate and up in turn along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from checkpoints import Tensor, Tensors
from numpy.typing import NDArray

N_LAYERS = 4
LAYER = "model.layers.{layer}.mlp"

Array = NDArray[np.uint16]


def unsloth(tensors: Tensors) -> None:
    """One linear module for each expert, gate and up in turn; the router is one too."""
    for layer in range(N_LAYERS):
        mlp = LAYER.format(layer=layer)
        for kind in ("weight", "bias"):
            tensors[f"{mlp}.router.linear.{kind}"] = tensors.pop(f"{mlp}.router.{kind}")
        for projection in ("gate_up_proj", "down_proj"):
            weights, biases, shard = _take(tensors, f"{mlp}.experts.{projection}")
            for expert, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                _put(tensors, f"{mlp}.experts.{projection}s.{expert}", weight.T, bias, shard)


def llm_compressor(tensors: Tensors) -> None:
    """Three linear modules for each expert, one level deeper."""
    for layer in range(N_LAYERS):
        experts = f"{LAYER.format(layer=layer)}.experts"
        gate_up, gate_up_bias, shard = _take(tensors, f"{experts}.gate_up_proj")
        down, down_bias, _ = _take(tensors, f"{experts}.down_proj")
        for expert in range(len(down)):
            module = f"{experts}.experts.{expert}"
            rows, biases = gate_up[expert].T, gate_up_bias[expert]
            _put(tensors, f"{module}.gate_proj", rows[0::2], biases[0::2], shard)
            _put(tensors, f"{module}.up_proj", rows[1::2], biases[1::2], shard)
            _put(tensors, f"{module}.down_proj", down[expert].T, down_bias[expert], shard)


def packed_in(packed: Tensors, *layers: int) -> Callable[[Tensors], None]:
    """The experts of `layers` are MXFP4, as in `packed`; the others stay BF16."""

    def change(tensors: Tensors) -> None:
        (shard,) = {tensor.shard for tensor in tensors.values()}
        for layer in layers:
            for projection in ("gate_up_proj", "down_proj"):
                name = f"{LAYER.format(layer=layer)}.experts.{projection}"
                del tensors[name]
                for part in (f"{name}_blocks", f"{name}_scales"):
                    tensor = packed[part]
                    tensors[part] = Tensor(shard, tensor.dtype, tensor.shape, tensor.data)

    return change


def _take(tensors: Tensors, name: str) -> tuple[Array, Array, str]:
    """Weight and bias of a projection of all experts, which are taken out, and their shard."""
    weight, bias = tensors.pop(name), tensors.pop(f"{name}_bias")
    return (*(np.frombuffer(one.data, np.uint16).reshape(one.shape) for one in (weight, bias)), weight.shard)  # type: ignore[return-value]


def _put(tensors: Tensors, module: str, weight: Array, bias: Array, shard: str) -> None:
    for kind, array in (("weight", weight), ("bias", bias)):
        tensors[f"{module}.{kind}"] = Tensor(shard, "BF16", list(array.shape), np.ascontiguousarray(array).tobytes())
