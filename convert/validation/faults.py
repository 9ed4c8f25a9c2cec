"""Named mistakes, put into a model's arithmetic or weights to show that validation sees them.

Each is what some converter or runtime has really done. A fault changes the side under test alone: its config, what it
computes, or what it reads of the weights, decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Arithmetic, Weights
from ...model.rope import concentration, frequencies

_HEAD_HALF = 32  # heads of gpt-oss have 64 elements

# The weights and a tensor's name to what is read instead; of rows with their numbers, of experts with the expert's.
Reading = Callable[[Weights, str], Tensor]
RowReading = Callable[[Weights, str, Tensor], Tensor]
ExpertReading = Callable[[Weights, str, int], Tensor]
# A model to why a fault cannot be seen in it; "" if it can.
Unseen = Callable[[GptOssConfig, Weights], str]


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: what went wrong.
        stage: the first stage that must show it.
        config: the config that is computed with.
        arithmetic: what is computed.
        dense, rows, expert: what is read of the weights.
        unseen: why it cannot be seen in a model.
    """

    name: str
    stage: str
    config: Callable[[GptOssConfig], GptOssConfig] = lambda config: config
    arithmetic: Arithmetic = GPT_OSS
    dense: Reading = lambda weights, name: weights.dense(name)
    rows: RowReading = lambda weights, name, ids: weights.rows(name, ids)
    expert: ExpertReading = lambda weights, name, expert: weights.expert(name, expert)
    unseen: Unseen = lambda _config, _weights: ""


@dataclass(frozen=True)
class FaultyWeights:
    """The weights of `base` as `fault` reads them."""

    base: Weights
    fault: Fault

    def dense(self, name: str) -> Tensor:
        return self.fault.dense(self.base, name)

    def rows(self, name: str, ids: Tensor) -> Tensor:
        return self.fault.rows(self.base, name, ids)

    def expert(self, name: str, expert: int) -> Tensor:
        return self.fault.expert(self.base, name, expert)


def _swapped(name: str) -> str:
    """The same of up for gate, and of gate for up."""
    return name.replace(".gate.", ".?.").replace(".up.", ".gate.").replace(".?.", ".up.")


def _role(name: str) -> str:
    """ "gate" of "layers.3.moe.gate.weight"."""
    return name.split(".")[-2]


def _twice_apart(weights: Weights, name: str, expert: int) -> Tensor:
    """Rows of gate (or up) after gate and up, already apart, were taken apart once more."""
    first = 0 if _role(name) == "gate" else 1
    gate = weights.expert(name if first == 0 else _swapped(name), expert).clone()
    up = weights.expert(_swapped(name) if first == 0 else name, expert)
    half = len(gate) - len(gate) // 2 if first == 0 else len(gate) // 2
    out = gate.new_empty(gate.shape)
    out[:half], out[half:] = gate[first::2], up[first::2][: len(gate) - half]
    return out


def _only_down(change: Callable[[Tensor], Tensor]) -> ExpertReading:
    def read(weights: Weights, name: str, expert: int) -> Tensor:
        matrix = weights.expert(name, expert)
        return change(matrix) if _role(name) == "down" else matrix

    return read


def _each(change: Callable[[Tensor], Tensor]) -> ExpertReading:
    return lambda weights, name, expert: change(weights.expert(name, expert))


def _nibbles_swapped(matrix: Tensor) -> Tensor:
    return matrix.view(len(matrix), -1, 2).flip(-1).flatten(1)


def _split_halves_read_in_turn(matrix: Tensor) -> Tensor:
    """Byte j holds elements j and j + 16 of a block; they are taken for 2j and 2j + 1."""
    return matrix.view(len(matrix), -1, 2, 16).transpose(-1, -2).flatten(1)


def _memory_transposed(matrix: Tensor) -> Tensor:
    return matrix.reshape(matrix.shape[1], matrix.shape[0]).mT


def _one_block(change: Callable[[Tensor], object]) -> ExpertReading:
    """`change` made in place to the second block of the middle row of one expert's gate."""

    def read(weights: Weights, name: str, expert: int) -> Tensor:
        matrix = weights.expert(name, expert)
        if _role(name) != "gate" or expert:
            return matrix
        changed = matrix.clone()
        change(changed[len(matrix) // 2, 32:64])
        return changed

    return read


def _flip_one_bit(block: Tensor) -> None:
    """The lowest bit of the first code below 2: 0 and 0.5, or 1 and 1.5 change places, the least one bit can do."""
    half = 2.0 ** (float(block.abs().max().log2().floor()) - 3)  # of the scale, for the largest code is 4 or 6
    place = int((block.abs() < 4 * half).int().argmax())
    count = round(float(block[place]) / half)
    block[place] = half * (count + (1 if count % 2 == 0 else -1) * (1 if count >= 0 else -1))


def _scaled(factor: float, only: Callable[[int], bool] = lambda _expert: True) -> ExpertReading:
    def read(weights: Weights, name: str, expert: int) -> Tensor:
        matrix = weights.expert(name, expert)
        return matrix * factor if only(expert) else matrix

    return read


def _without(suffix: str) -> Reading:
    return lambda weights, name: weights.dense(name) * (0 if name.endswith(suffix) else 1)


def _rolled_biases(weights: Weights, name: str) -> Tensor:
    tensor = weights.dense(name)
    return tensor.roll(1, 0) if name.endswith("down.bias") else tensor


def _heads_exchanged(projection: str) -> Reading:
    """The first and the last half of its heads change places: heads of one group get the keys of another."""

    def read(weights: Weights, name: str) -> Tensor:
        tensor = weights.dense(name)
        return tensor.roll(len(tensor) // 2, 0) if f".attention.{projection}." in name else tensor

    return read


def _pairs_in_turn(weights: Weights, name: str) -> Tensor:
    """Rows of q and k as for positions that turn elements 2i and 2i + 1, not i and i + 32."""
    tensor = weights.dense(name)
    if ".attention.q." not in name and ".attention.k." not in name:
        return tensor
    return tensor.view(-1, 2, _HEAD_HALF, *tensor.shape[1:]).transpose(1, 2).flatten(0, 2)


def _norm_of_another_layer(weights: Weights, name: str) -> Tensor:
    if not name.endswith(".norm.weight"):
        return weights.dense(name)
    _, layer, rest = name.split(".", 2)
    return weights.dense(f"layers.{int(layer) - 1 if int(layer) else 1}.{rest}")


def _rows_before(weights: Weights, name: str, ids: Tensor) -> Tensor:
    return weights.rows(name, (ids - 1).clamp(min=0)) if name == "embedding.weight" else weights.rows(name, ids)


def _tied_embeddings(weights: Weights, _name: str, ids: Tensor) -> Tensor:
    return weights.rows("embedding.weight", ids)


def _output_norm_of_ones(weights: Weights, name: str) -> Tensor:
    tensor = weights.dense(name)
    return torch.ones_like(tensor) if name == "norm.weight" else tensor


def _with_yarn(truncate: bool) -> Callable[[GptOssConfig], GptOssConfig]:
    return lambda config: replace(config, yarn=replace(config.yarn, truncate=truncate))


def _alike(change: Reading, suffix: str, why: str) -> Unseen:
    """`why`, if `change` leaves the tensors of all layers whose names end so as they are."""

    def unseen(config: GptOssConfig, weights: Weights) -> str:
        names = [f"layers.{layer}.{suffix}" for layer in range(config.num_hidden_layers)]
        return why if all(torch.equal(weights.dense(name), change(weights, name)) for name in names) else ""

    return unseen


def _same_when_truncated(config: GptOssConfig, _weights: Weights) -> str:
    truncated = _with_yarn(truncate=True)(config)
    is_same = _equal(frequencies(config), frequencies(truncated))
    return "the model's positions are those of a truncated YaRN" if is_same else ""


def _no_yarn(config: GptOssConfig, _weights: Weights) -> str:
    is_plain = _equal(frequencies(config), frequencies(config, yarn=False)) and concentration(config) == 1
    return "the model's YaRN stretches nothing" if is_plain else ""


def _equal(one: Tensor, other: Tensor) -> bool:
    """But for the last bit."""
    return torch.allclose(one, other, rtol=1e-6, atol=0)


def _sliding(layers: Literal["odd", "all", "none"]) -> Arithmetic:
    return replace(GPT_OSS, sliding_layers=layers)


_BIASES = {
    "q": ("attention.q.bias", "attention"),
    "k": ("attention.k.bias", "attention"),
    "v": ("attention.v.bias", "attention"),
    "o": ("attention.o.bias", "attention"),
    "gate": ("moe.gate.bias", "gate"),
    "up": ("moe.up.bias", "up"),
    "down": ("moe.down.bias", "down"),
}

_ZERO = "these biases are zero"


def _dropped(role: str, suffix: str, stage: str) -> Fault:
    drop = _without(suffix)
    return Fault(f"bias of {role} dropped", stage, dense=drop, unseen=_alike(drop, suffix, _ZERO))


FAULTS: tuple[Fault, ...] = (
    Fault("gate and up swapped", "gate", expert=lambda weights, name, e: weights.expert(_swapped(name), e)),
    Fault("gate and up taken apart twice", "gate", expert=_twice_apart),
    Fault("nibbles swapped", "gate", expert=_each(_nibbles_swapped)),
    Fault("ggml's nibbles read in Hugging Face's order", "gate", expert=_each(_split_halves_read_in_turn)),
    Fault("scales off by one", "gate", expert=_scaled(2.0)),
    Fault("scales of one expert zero", "gate", expert=_scaled(0.0, lambda expert: expert == 0)),
    Fault("down transposed", "down", expert=_only_down(_memory_transposed)),
    Fault("one bit of one block flipped", "gate", expert=_one_block(_flip_one_bit)),
    Fault("scale of one block off by one", "gate", expert=_one_block(lambda block: block.mul_(2.0))),
    *(_dropped(role, suffix, stage) for role, (suffix, stage) in _BIASES.items()),
    Fault(
        "biases of experts permuted",
        "down",
        dense=_rolled_biases,
        unseen=_alike(_rolled_biases, "moe.down.bias", "the experts' biases are the same"),
    ),
    Fault(
        "bias of the router dropped",
        "router",
        arithmetic=replace(GPT_OSS, has_router_bias=False),
        unseen=_alike(_without("bias"), "moe.router.bias", _ZERO),
    ),
    Fault("softmax over all experts", "shares", arithmetic=replace(GPT_OSS, softmax_over="all")),
    Fault("no clamp", "activated", config=lambda config: replace(config, swiglu_limit=1e30)),
    Fault("alpha 1.0", "activated", arithmetic=replace(GPT_OSS, swiglu_alpha=1.0)),
    Fault("up without + 1", "activated", arithmetic=replace(GPT_OSS, up_offset=0.0)),
    Fault("no sinks", "attention", arithmetic=replace(GPT_OSS, has_sinks=False)),
    Fault("full attention on sliding layers", "attention", arithmetic=_sliding("none")),
    Fault("sliding layers are the odd ones", "attention", arithmetic=_sliding("odd")),
    Fault(
        "window one too long",
        "attention",
        config=lambda config: replace(config, sliding_window=config.sliding_window + 1),
    ),
    Fault(
        "window one too short",
        "attention",
        config=lambda config: replace(config, sliding_window=config.sliding_window - 1),
    ),
    Fault(
        "YaRN truncated",
        "attention",
        config=_with_yarn(truncate=True),
        unseen=_same_when_truncated,
    ),
    Fault("YaRN off", "attention", arithmetic=replace(GPT_OSS, has_yarn=False), unseen=_no_yarn),
    Fault("q swapped between heads", "attention", dense=_heads_exchanged("q")),
    Fault("k swapped between heads", "attention", dense=_heads_exchanged("k")),
    Fault("q and k in pairs, not in halves", "attention", dense=_pairs_in_turn),
    Fault(
        "norms of another layer",
        "attention",
        dense=_norm_of_another_layer,
        unseen=lambda config, _: "the model has one layer" if config.num_hidden_layers == 1 else "",
    ),
    Fault("embedding one row off", "embedding", rows=_rows_before),
    Fault("norm before the logits dropped", "logits", dense=_output_norm_of_ones),
    Fault("embedding read as unembedding", "logits", rows=_tied_embeddings),
)
