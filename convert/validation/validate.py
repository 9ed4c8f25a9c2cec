"""Runs a model's layers twice on the same inputs, stage by stage, and measures how far they are apart.

The reference computes in float64 with weights that the numpy twin of the codecs decoded. The side under test computes
with the stored bytes: by the Triton kernels on a GPU, or by torch in float32 with weights that the numba kernels
decoded. Its inputs of each stage are the reference's, so that an error shows where it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...formats.codecs.accelerate import numpy_twin
from ...formats.errors import UsageError
from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Weights
from ..checkpoint import Checkpoint
from ..progress import Progress
from ..same_model import require_same_model
from ..weights import CheckpointWeights
from .faults import Fault, FaultyWeights
from .layer import (
    CpuRunner,
    Reference,
    Runner,
    Side,
    compute_layer,
    measure_embedding,
    measure_layer,
    measure_logits,
)
from .measures import LIMITS, Limits, Measure
from .prompts import prompt_tokens, random_tokens

TEXT, RANDOM = "Harmony-formatted text", "seeded random tokens, for there is no tokenizer"


class TwinWeights:
    """The weights of a checkpoint, decoded by the numpy twin of the codecs."""

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
        tokens: how many were run.
        inputs: what they are: `TEXT` or `RANDOM`.
        limits: what rounding explains, of the experts' stages.
        peak: the largest magnitude of the residual stream, by layer.
        unchosen: how many experts no token chose, by layer; they were given one.
    """

    measures: tuple[Measure, ...]
    tokens: int
    inputs: str
    limits: Limits
    peak: dict[int, float]
    unchosen: dict[int, int]

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


def tokens_for(checkpoint: Checkpoint, n_tokens: int | None, vocab_size: int | None = None) -> tuple[Tensor, str]:
    """Token ids to run, int64 [T], and what they are.

    Args:
        checkpoint: whose tokenizer is taken, if it has one.
        n_tokens: how many; `least_tokens` if None.
        vocab_size: ids are below it; the checkpoint's if None.

    Raises:
        UsageError: so few do not test the window, or there are more than positions.
    """
    config = checkpoint.config
    least = least_tokens(config)
    wanted = least if n_tokens is None else n_tokens
    if wanted <= config.sliding_window:
        raise UsageError(
            "so few tokens do not leave the sliding window",
            expected=f"--tokens of more than {config.sliding_window}, better {least}",
            found=wanted,
            remedy=f"Use --tokens {least}, or leave it away.",
        )
    if n_tokens is not None and wanted > config.max_position_embeddings:
        raise UsageError(
            "the model has no positions for so many tokens",
            expected=f"--tokens of at most {config.max_position_embeddings}",
            found=wanted,
            remedy=f"Use --tokens {least}, or leave it away.",
        )
    if checkpoint.tokenizer is None:
        return torch.from_numpy(random_tokens(vocab_size or config.vocab_size, wanted)), RANDOM
    tokenizer = checkpoint.tokenizer.tokenizer(config.vocab_size)
    return torch.from_numpy(prompt_tokens(tokenizer, wanted)), TEXT


def validate(
    checkpoint: Checkpoint,
    *,
    other: Checkpoint | None = None,
    layers: Sequence[int] | None = None,
    n_tokens: int | None = None,
    fault: Fault | None = None,
    make_runner: Callable[[Checkpoint], AbstractContextManager[Runner]] | None = None,
    progress: Progress | None = None,
) -> Validation:
    """The stages of `other` (of `checkpoint` itself if None) against the float64 reference of `checkpoint`.

    Args:
        checkpoint: what the reference reads.
        other: what the side under test reads, if it is another one.
        layers: which are measured; all if None. With the last one, so are the logits.
        n_tokens: how many tokens; twice the sliding window if None.
        fault: a mistake to put into the side under test. Only without `make_runner`.
        make_runner: who multiplies on the side under test; `CpuRunner` if None.
        progress: told of every layer.

    Raises:
        UsageError: layers or tokens that are not there, two models of other shapes.
        CodecError: a weight is not finite; file, tensor and block are named.
    """
    assert fault is None or make_runner is None
    wanted = _layers(checkpoint.config, layers)
    tested = other or checkpoint
    require_same_model(checkpoint, tested)
    vocab_size = min(checkpoint.config.vocab_size, tested.config.vocab_size)
    tokens, inputs = tokens_for(checkpoint, n_tokens, vocab_size)
    with ExitStack() as stack:
        twin = TwinWeights(stack.enter_context(CheckpointWeights(checkpoint, dtype=torch.float64)))
        side = _side(tested, stack.enter_context(CheckpointWeights(tested)), fault)
        if make_runner is not None:
            side = replace(side, runner=stack.enter_context(make_runner(tested)))
        run = _Run(Reference(checkpoint.config, twin), side, set(wanted))
        sizes = _layer_bytes(checkpoint)[: wanted[-1] + 1]
        stack.enter_context((progress or Progress()).during("validating", sum(sizes)))
        run.layers(tokens, sizes, progress or Progress())
    return Validation(tuple(run.measures), len(tokens), inputs, LIMITS[side.runner.dot], run.peak, run.unchosen)


def _side(tested: Checkpoint, weights: Weights, fault: Fault | None) -> Side:
    config, arithmetic = tested.config, GPT_OSS
    if fault is not None:
        config, arithmetic, weights = fault.config(config), fault.arithmetic, FaultyWeights(weights, fault)
    return Side(config, weights, tested.tensors, arithmetic, CpuRunner(config, weights, arithmetic))


def _layers(config: GptOssConfig, layers: Sequence[int] | None) -> list[int]:
    every = range(config.num_hidden_layers)
    wrong = next((layer for layer in layers or () if layer not in every), None)
    if wrong is not None:
        raise UsageError(
            "the model has no such layer",
            expected=f"0 to {every[-1]}",
            found=wrong,
            remedy="Use --layers with numbers from this range, or leave it away.",
        )
    return sorted(set(every if layers is None else layers))


def _layer_bytes(checkpoint: Checkpoint) -> list[int]:
    """Stored bytes of each layer."""
    sizes = [0] * checkpoint.config.num_hidden_layers
    for name, stored in checkpoint.tensors.items():
        if name.startswith("layers."):
            sizes[int(name.split(".")[1])] += stored.n_bytes
    return sizes


class _Run:
    """One pass through the layers; those that are not wanted are only passed through."""

    def __init__(self, reference: Reference, side: Side, wanted: set[int]) -> None:
        self._reference, self._side, self._wanted = reference, side, wanted
        self.measures: list[Measure] = []
        self.peak: dict[int, float] = {}
        self.unchosen: dict[int, int] = {}

    def layers(self, tokens: Tensor, sizes: list[int], progress: Progress) -> None:
        """The embedding, as many layers as there are `sizes` in bytes, and if that is all of them, the logits."""
        # A copy, for whatever else is asked of the embedding takes its place.
        hidden = self._reference.weights.rows("embedding.weight", tokens).clone()
        self.measures.append(measure_embedding(self._side, self._reference, tokens, hidden))
        for number, n_bytes in enumerate(sizes):
            layer = compute_layer(self._reference, number, hidden, all_experts=number in self._wanted)
            if number in self._wanted:
                self.measures += measure_layer(self._reference, self._side, number, layer)
                self.unchosen[number] = layer.n_unchosen
            hidden = layer.after
            self.peak[number] = float(hidden.abs().max())
            progress.advance(n_bytes, f"layer {number}")
        if len(sizes) == self._reference.config.num_hidden_layers:
            self.measures.append(measure_logits(self._side, self._reference, hidden))
