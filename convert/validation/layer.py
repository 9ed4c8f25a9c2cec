"""One layer on both sides: what the reference computes, and how far the side under test is from it.

    before ─┬─ norm ─ attention ─┬─ middle ─┬─ norm ─ inputs ─ router ─ logits ─ experts ─┬─ after
            └─────────── + ──────┘          └────────────────────── + ────────────────────┘

The side under test gets the reference's `before`, `middle` and `logits`, so that an error shows where it is made, and a
tie between two experts is no error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Arithmetic, Weights, attention, rms_norm, router_logits, unembed
from ..config_differences import differing_keys
from ..stored import StoredTensor
from .locate import Cause, Difference, Spot, find_difference
from .measures import EMBEDDING, LIMITS, LOGITS, Measure, by_expert, measure, measure_choice
from .stages import MoeStages, attention_by, every_expert, moe_stages

# Of the logits of a whole model so many tokens are compared: all rows of the unembedding go into each.
_LOGIT_TOKENS = 16

# stage -> stages that it is computed from on the side under test itself
_FOLLOWS = {
    "shares": ("experts",),
    "gate": ("experts",),
    "up": ("experts",),
    "activated": ("gate", "up"),
    "down": ("activated",),
    "out": ("down", "shares"),
}


class Runner(Protocol):
    """Multiplies on the side under test: the projections of attention, and all of a layer's experts."""

    @property
    def dot(self) -> str:
        """What products are made of: a key of `measures.LIMITS`."""

    def project(self, layer: int, name: str, inputs: Tensor) -> Tensor:
        """What attention's "q", "k", "v" or "o" makes of `inputs` float32 [T, …], bias in: float32."""

    def moe(self, layer: int, hidden: Tensor, logits: Tensor) -> MoeStages:
        """The stages for normalized hidden states float32 [T, H] and router logits float32 [T, E]."""


class CpuRunner:
    """torch in float32, weights decoded by numba, one expert at a time."""

    dot = "f32"

    def __init__(self, config: GptOssConfig, weights: Weights, arithmetic: Arithmetic = GPT_OSS) -> None:
        self._config, self._weights, self._arithmetic = config, weights, arithmetic

    def project(self, layer: int, name: str, inputs: Tensor) -> Tensor:
        weight, bias = (self._weights.dense(f"layers.{layer}.attention.{name}.{part}") for part in ("weight", "bias"))
        return linear(inputs, weight, bias)

    def moe(self, layer: int, hidden: Tensor, logits: Tensor) -> MoeStages:
        return moe_stages(self._config, self._weights, layer, hidden, logits, self._arithmetic)


@dataclass(frozen=True)
class Side:
    """What is under test: its config, its weights and where they are stored, its arithmetic, who multiplies for it."""

    config: GptOssConfig
    weights: Weights
    tensors: Mapping[str, StoredTensor]
    arithmetic: Arithmetic
    runner: Runner


@dataclass(frozen=True)
class Reference:
    """What is right: float64."""

    config: GptOssConfig
    weights: Weights


@dataclass(frozen=True)
class Layer:
    """What the reference computes of a layer; float64.

    Attributes:
        before, attended, middle, inputs, after: [T, H], as drawn above.
        router: the router's logits [T, E].
        rows: int64 [R], the tokens that experts are run on: `stages.every_expert`.
        logits: float32 [R, E], what both sides route these by.
        moe: the stages of R tokens.
    """

    before: Tensor
    attended: Tensor
    middle: Tensor
    inputs: Tensor
    router: Tensor
    rows: Tensor
    logits: Tensor
    moe: MoeStages

    @property
    def after(self) -> Tensor:
        return self.middle + self.moe.out[: len(self.middle)]

    @property
    def n_unchosen(self) -> int:
        """How many experts no token chose."""
        return self.logits.shape[1] - len(torch.unique(self.moe.experts[: len(self.middle)]))


def compute_layer(reference: Reference, layer: int, before: Tensor, *, all_experts: bool) -> Layer:
    """The layer after `before` [T, H]; with `all_experts`, experts that no token chooses are run too."""
    config, weights = reference.config, reference.weights
    normalized = rms_norm(config, before, weights.dense(f"layers.{layer}.attention.norm.weight"))
    attended = attention(config, layer, weights, normalized)
    middle = before + attended
    inputs = rms_norm(config, middle, weights.dense(f"layers.{layer}.moe.norm.weight"))
    router = router_logits(layer, weights, inputs)
    rows, logits = torch.arange(len(before)), router.float()
    if all_experts:
        rows, logits = every_expert(logits, config.num_experts_per_tok)
    moe = moe_stages(config, weights, layer, inputs[rows], logits.double())
    return Layer(before, attended, middle, inputs, router, rows, logits, moe)


def measure_layer(reference: Reference, side: Side, number: int, layer: Layer) -> list[Measure]:
    """Every stage of layer `number`, in order."""
    f32, limits = LIMITS["f32"], LIMITS[side.runner.dot]

    def normalized(stream: Tensor, norm: str) -> Tensor:
        return rms_norm(side.config, stream.float(), side.weights.dense(f"layers.{number}.{norm}.norm.weight"))

    attended = attention_by(
        partial(side.runner.project, number),
        side.config,
        number,
        normalized(layer.before, "attention"),
        side.weights.dense(f"layers.{number}.attention.sinks"),
        side.arithmetic,
    )
    inputs = normalized(layer.middle, "moe")
    router = router_logits(number, side.weights, inputs, side.arithmetic)
    found, expected = side.runner.moe(number, inputs[layer.rows], layer.logits), layer.moe
    measures = [
        measure(number, "attention", layer.attended, attended, limits),
        measure(number, "router", layer.router, router, f32),
        measure_choice(number, layer.logits.double(), expected.experts, found.experts, f32),
        measure(number, "shares", expected.shares, found.shares, f32),
    ]
    for stage in ("gate", "up", "activated", "down", "out"):
        pair = getattr(expected, stage), getattr(found, stage)
        one = measure(number, stage, *pair, limits)
        measures.append(replace(one, by_expert=by_expert(expected.experts, *pair)) if stage != "out" else one)
    off = {one.stage for one in measures if one.excess > 1}
    return [_explained(one, _spot(one, expected.experts), off, reference, side) for one in measures]


def measure_embedding(side: Side, reference: Reference, tokens: Tensor, embedded: Tensor) -> Measure:
    """The rows of the tokens that are run."""
    one = measure(None, EMBEDDING, embedded, side.weights.rows("embedding.weight", tokens), LIMITS["f32"])
    return _explained(one, Spot(row=int(tokens[one.place[0]])), set(), reference, side)


def measure_logits(side: Side, reference: Reference, hidden: Tensor) -> Measure:
    """The logits after some tokens of the last layer's output `hidden` [T, H], of rows that both sides have."""
    some = hidden[torch.linspace(0, len(hidden) - 1, min(_LOGIT_TOKENS, len(hidden))).long()]
    n_rows = min(reference.config.vocab_size, side.config.vocab_size)
    expected = unembed(replace(reference.config, vocab_size=n_rows), reference.weights, some)
    found = unembed(replace(side.config, vocab_size=n_rows), side.weights, some.float())
    one = measure(None, LOGITS, expected, found, LIMITS["f32"])
    return _explained(one, Spot(row=one.place[1]), set(), reference, side)


def _spot(one: Measure, experts: Tensor) -> Spot:
    """Which expert and row made the element of a projection that is farthest off."""
    if one.stage not in ("gate", "up", "down"):
        return Spot()
    token, slot, row = one.place
    return Spot(int(experts[token, slot]), row)


def _explained(one: Measure, spot: Spot, off: Iterable[str], reference: Reference, side: Side) -> Measure:
    """The measure, with what explains it if it is more than rounding. `off`: all stages of the layer that are."""
    if one.excess <= 1:
        return one
    difference = find_difference(reference.weights, side.weights, side.tensors, one.layer, one.stage, spot)
    return replace(one, cause=_cause(one, difference, off, reference.config, side.config))


def _cause(
    one: Measure, difference: Difference | None, off: Iterable[str], expected: GptOssConfig, found: GptOssConfig
) -> Cause:
    if difference is not None:
        return Cause(str(difference), difference=difference)
    follows = next((stage for stage in _FOLLOWS.get(one.stage, ()) if stage in off), None)
    if follows is not None:
        return Cause(f"it follows from {follows}", follows=follows)
    keys = differing_keys(expected, found)
    if keys:
        said = ", ".join(f"{key} is {other}, not {value}" for key, value, other in keys)
        return Cause(f"both sides read the same weights, but {said}")
    return Cause("both sides read the same weights and config: they compute otherwise")
