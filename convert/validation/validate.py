"""Runs a model's layers twice on the same inputs, stage by stage, and measures how far they are apart.

The reference computes in float64 with weights that the numpy twin of the codecs decoded. The side under test computes
with the stored bytes: by the Triton kernels on a GPU, or by torch in float32 with weights that the numba kernels
decoded. Its inputs of each stage are the reference's, so that an error shows where it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ...formats.codecs.accelerate import numpy_twin
from ...formats.errors import UsageError
from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Arithmetic, Weights, attention, rms_norm, router_logits
from ..checkpoint import Checkpoint
from ..progress import Progress
from ..weights import CheckpointWeights
from .faults import Fault, FaultyWeights
from .locate import locate
from .measures import LIMITS, Limits, Measure, by_expert, measure, measure_choice
from .prompts import prompt_tokens, random_tokens
from .stages import MoeStages, moe_stages


class MoeRunner(Protocol):
    """Computes the stages of a layer's experts on the side under test."""

    @property
    def dot(self) -> str:
        """What products are made of: a key of `measures.LIMITS`."""

    def __call__(self, layer: int, hidden: Tensor, logits: Tensor) -> MoeStages:
        """The stages for normalized hidden states float32 [T, H] and router logits float32 [T, E]."""


class CpuRunner:
    """torch in float32, weights decoded by numba, one expert at a time."""

    dot = "f32"

    def __init__(self, config: GptOssConfig, weights: Weights, arithmetic: Arithmetic = GPT_OSS) -> None:
        self._config, self._weights, self._arithmetic = config, weights, arithmetic

    def __call__(self, layer: int, hidden: Tensor, logits: Tensor) -> MoeStages:
        return moe_stages(self._config, self._weights, layer, hidden, logits, self._arithmetic)


@dataclass(frozen=True)
class Side:
    """What is under test: its config, its weights, its arithmetic, and how it runs the experts."""

    config: GptOssConfig
    weights: Weights
    arithmetic: Arithmetic
    runner: MoeRunner


class TwinWeights:
    """Weights in float64, decoded by the numpy twin of the codecs."""

    def __init__(self, weights: CheckpointWeights) -> None:
        self._weights = weights

    def dense(self, name: str) -> Tensor:
        with numpy_twin():
            return self._weights.dense(name)

    def rows(self, name: str, ids: Tensor) -> Tensor:
        with numpy_twin():
            return self._weights.rows(name, ids)

    def expert(self, name: str, expert: int) -> Tensor:
        with numpy_twin():
            return self._weights.expert(name, expert)


@dataclass(frozen=True)
class Validation:
    """What was measured.

    Attributes:
        measures: each stage of each layer, in order.
        tokens: how many were run, and where they came from.
        inputs: "Harmony-formatted text", or "seeded random tokens".
        limits: what rounding explains, of the experts' stages.
        peak: the largest magnitude of the residual stream, by layer.
    """

    measures: tuple[Measure, ...]
    tokens: int
    inputs: str
    limits: Limits
    peak: dict[int, float]

    @property
    def holds(self) -> bool:
        """True if every stage is within rounding of its reference."""
        return self.worst.excess <= 1

    @property
    def worst(self) -> Measure:
        """The stage that is farthest off in units of its limit."""
        return max(self.measures, key=lambda one: one.excess)


def least_tokens(config: GptOssConfig) -> int:
    """How many tokens must be run for the sliding window to matter: twice the window, more than 128."""
    return max(2 * config.sliding_window, 129)


def tokens_for(checkpoint: Checkpoint, n_tokens: int | None) -> tuple[Tensor, str]:
    """Token ids to run, int64 [T], and what they are. Raises UsageError if so few do not test the window."""
    least = least_tokens(checkpoint.config)
    wanted = least if n_tokens is None else n_tokens
    if wanted <= checkpoint.config.sliding_window:
        raise UsageError(
            "so few tokens do not leave the sliding window",
            expected=f"--tokens of more than {checkpoint.config.sliding_window}, better {least}",
            found=wanted,
        )
    vocab_size = checkpoint.config.vocab_size
    if checkpoint.tokenizer is None:
        return torch.from_numpy(random_tokens(vocab_size, wanted)), "seeded random tokens: there is no tokenizer"
    tokenizer = checkpoint.tokenizer.tokenizer(vocab_size)
    return torch.from_numpy(prompt_tokens(tokenizer, wanted)), "Harmony-formatted text"


def validate(
    checkpoint: Checkpoint,
    *,
    other: Checkpoint | None = None,
    layers: Sequence[int] | None = None,
    n_tokens: int | None = None,
    fault: Fault | None = None,
    make_runner: Callable[[Checkpoint], AbstractContextManager[MoeRunner]] | None = None,
    progress: Progress | None = None,
) -> Validation:
    """The stages of `other` (of `checkpoint` itself if None) against the float64 reference of `checkpoint`.

    Args:
        checkpoint: what the reference reads.
        other: what the side under test reads, if it is another one.
        layers: which are measured; all if None.
        n_tokens: how many tokens; twice the sliding window if None.
        fault: a mistake to put into the side under test. Only without `make_runner`.
        make_runner: how the experts run; `CpuRunner` if None.
        progress: told of every layer.

    Raises:
        UsageError: layers or tokens that are not there, two models of other shapes.
        CodecError: a weight is not finite; file, tensor and block are named.
    """
    wanted = _layers(checkpoint.config, layers)
    tokens, inputs = tokens_for(checkpoint, n_tokens)
    tested = other or checkpoint
    require_same_model(checkpoint, tested)
    progress = progress or Progress()
    with ExitStack() as stack:
        reference = TwinWeights(stack.enter_context(CheckpointWeights(checkpoint, dtype=torch.float64)))
        plain = stack.enter_context(CheckpointWeights(tested))
        side = _side(tested.config, plain, fault)
        if make_runner is not None:
            side = Side(side.config, side.weights, side.arithmetic, stack.enter_context(make_runner(tested)))
        n_bytes = sum(
            stored.n_bytes for stored in checkpoint.tensors.values() if _layer_of(stored.tensor.name) in wanted
        )
        stack.enter_context(progress.during("validating", n_bytes))
        measures, peak = _run(checkpoint, reference, side, tokens, wanted, progress)
    return Validation(tuple(measures), len(tokens), inputs, LIMITS[side.runner.dot], peak)


def require_same_model(checkpoint: Checkpoint, other: Checkpoint) -> None:
    """Raises UsageError naming the first size in which the two models differ."""
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_local_experts", "num_attention_heads")
    for key in (*sizes, "num_key_value_heads", "head_dim", "num_experts_per_tok"):
        expected, found = getattr(checkpoint.config, key), getattr(other.config, key)
        if expected != found:
            raise UsageError(
                "the two checkpoints are not of one model",
                file=other.path,
                key=key,
                expected=f"{expected}, as in {checkpoint.path}",
                found=found,
            )


def _side(config: GptOssConfig, weights: Weights, fault: Fault | None) -> Side:
    arithmetic = GPT_OSS
    if fault is not None:
        config, arithmetic, weights = fault.config(config), fault.arithmetic, FaultyWeights(weights, fault)
    return Side(config, weights, arithmetic, CpuRunner(config, weights, arithmetic))


def _layers(config: GptOssConfig, layers: Sequence[int] | None) -> list[int]:
    every = range(config.num_hidden_layers)
    wrong = next((layer for layer in layers or () if layer not in every), None)
    if wrong is not None:
        raise UsageError("the model has no such layer", expected=f"0 to {every[-1]}", found=wrong)
    return sorted(set(every if layers is None else layers))


def _layer_of(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("layers.") else None


def _run(
    checkpoint: Checkpoint, reference: Weights, side: Side, tokens: Tensor, wanted: list[int], progress: Progress
) -> tuple[list[Measure], dict[int, float]]:
    """Every layer up to the last wanted one; those that are not wanted are only passed through."""
    config = checkpoint.config
    hidden = reference.rows("embedding.weight", tokens)
    measures: list[Measure] = []
    peak: dict[int, float] = {}
    for layer in range(wanted[-1] + 1):
        found, hidden = _layer(config, reference, side, layer, hidden, layer in wanted)
        measures += found
        peak[layer] = float(hidden.abs().max())
        if layer in wanted:
            tensors = checkpoint.tensors.items()
            n_bytes = sum(stored.n_bytes for name, stored in tensors if _layer_of(name) == layer)
            progress.advance(n_bytes, f"layer {layer}")
    return measures, peak


def _layer(
    config: GptOssConfig, reference: Weights, side: Side, layer: int, hidden: Tensor, measured: bool
) -> tuple[list[Measure], Tensor]:
    """What a layer measures, and the reference's residual stream after it (float64 [T, H])."""
    norms = (f"layers.{layer}.attention.norm.weight", f"layers.{layer}.moe.norm.weight")
    attended = attention(config, layer, reference, rms_norm(config, hidden, reference.dense(norms[0])))
    middle = hidden + attended
    inputs = rms_norm(config, middle, reference.dense(norms[1]))
    logits = router_logits(layer, reference, inputs)
    # Both sides route by the same numbers, so that a tie is no error.
    shared = logits.float()
    expected = moe_stages(config, reference, layer, inputs, shared.double())
    if not measured:
        return [], middle + expected.out
    f32 = LIMITS["f32"]
    limits = LIMITS[side.runner.dot]

    def normalized(stream: Tensor, norm: str) -> Tensor:
        return rms_norm(side.config, stream.float(), side.weights.dense(norm))

    found_attention = attention(side.config, layer, side.weights, normalized(hidden, norms[0]), side.arithmetic)
    found_inputs = normalized(middle, norms[1])
    found_logits = router_logits(layer, side.weights, found_inputs, side.arithmetic)
    found = side.runner(layer, found_inputs, shared)
    measures = [
        measure(layer, "attention", attended, found_attention, f32),
        measure(layer, "router", logits, found_logits, f32),
        measure_choice(layer, logits, expected.experts, found.experts, f32),
        measure(layer, "shares", expected.shares, found.shares, f32),
    ]
    for stage in ("gate", "up", "activated", "down", "out"):
        pair = getattr(expected, stage), getattr(found, stage)
        one = measure(layer, stage, *pair, limits)
        experts = by_expert(expected.experts, *pair) if stage != "out" else {}
        measures.append(replace(one, by_expert=experts))
    return [_located(one, expected.experts, reference, side.weights) for one in measures], middle + expected.out


def _located(one: Measure, experts: Tensor, reference: Weights, found: Weights) -> Measure:
    """The measure, with what explains it if it is more than rounding."""
    if one.excess <= 1:
        return one
    expert = row = None
    if one.stage in ("gate", "up", "down"):
        token, slot, row = one.place
        expert = int(experts[token, slot])
    return replace(one, where=locate(reference, found, one.layer, one.stage, expert, row))
