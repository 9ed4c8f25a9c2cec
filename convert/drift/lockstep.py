"""Two checkpoints through the same layers at the same time, on the same tokens: one layer of each in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...formats.errors import CheckpointError
from ...model.config import GptOssConfig
from ...model.forward import GPT_OSS, Arithmetic, LayerTrace, Weights
from ..checkpoint import Checkpoint
from ..progress import Progress
from ..weights import CheckpointWeights
from .model import LayerWeights, RoundedWeights, Stream, attend, embed, prepare_experts, run_experts
from .prompts import Prompts

# A part of a trace, in the order that they are computed, and what it is called.
_PARTS = {
    "attention_input": "the norm before attention",
    "attention_output": "the output of attention",
    "hidden_before_moe": "the residual stream after attention",
    "moe_input": "the norm before the experts",
    "router_logits": "the router's logits",
    "moe_output": "the output of the experts",
    "hidden": "the residual stream after the layer",
}


@dataclass(frozen=True)
class Injection:
    """What B computes if it is not what its files say: a mistake, to show that it is seen.

    Attributes:
        config: made of B's own.
        arithmetic: what is computed.
        weights: made of B's own; read in float32.
    """

    config: Callable[[GptOssConfig], GptOssConfig] = lambda config: config
    arithmetic: Arithmetic = GPT_OSS
    weights: Callable[[Weights], Weights] = lambda weights: weights


NOTHING = Injection()


@dataclass(frozen=True)
class Step:
    """One layer, of all that run.

    Attributes:
        layer: its number.
        a, b: each model on its own residual stream.
        noise: A in bf16 on its own stream, if it runs.
        local: B's attention and B's experts on what A gave its own, if they run.
    """

    layer: int
    a: LayerTrace
    b: LayerTrace
    noise: LayerTrace | None
    local: LayerTrace | None


@dataclass(frozen=True)
class Pair:
    """A, B, and A in bf16 if it runs, with their weights open."""

    a: Stream
    b: Stream
    noise: Stream | None

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those that run on a stream of their own."""
        return (self.a, self.b) if self.noise is None else (self.a, self.b, self.noise)


@contextmanager
def opened(
    a: Checkpoint, b: Checkpoint, config_a: GptOssConfig, config_b: GptOssConfig, inject: Injection, *, noise: bool
) -> Iterator[Pair]:
    """Both models with their weights open, as long as the context lasts."""
    with ExitStack() as stack, torch.no_grad():
        weights = LayerWeights(stack.enter_context(CheckpointWeights(a)))
        first = Stream("A", a, config_a, GPT_OSS, weights, weights, rounds=False)
        rounded = LayerWeights(RoundedWeights(weights))
        beside = Stream("A in bf16", a, config_a, GPT_OSS, weights, rounded, rounds=True) if noise else None
        other = LayerWeights(inject.weights(stack.enter_context(CheckpointWeights(b))))
        second = Stream("B", b, inject.config(config_b), inject.arithmetic, other, other, rounds=False)
        yield Pair(first, second, beside)


def start(pair: Pair, prompts: Prompts) -> None:
    """Each stream holds the embedded tokens. Raises CodecError: a row is not finite."""
    tokens = torch.from_numpy(prompts.tokens)
    for stream in pair.streams:
        stream.hidden = embed(stream, tokens)


def steps(pair: Pair, prompts: Prompts, progress: Progress, *, local: bool) -> Iterator[Step]:
    """Every layer in turn; afterwards each stream holds what comes out of the last.

    Raises:
        CheckpointError: a number is infinite or none; model, layer, part and token are named.
        CodecError: a weight is not finite; file, tensor and block are named.
    """
    spans = prompts.spans
    for layer in range(pair.a.config.num_hidden_layers):
        traces = {}
        for stream in pair.streams:
            stream.forget()
            traces[stream.name] = attend(stream, layer, stream.hidden, spans)
            middle = stream.hidden + traces[stream.name].attention_output
            prepare_experts(stream, layer, traces[stream.name], middle)
        a, b = traces["A"], traces["B"]
        beside = None
        if local:
            beside = attend(pair.b, layer, pair.a.hidden, spans)
            prepare_experts(pair.b, layer, beside, a.hidden_before_moe)
        _run_experts(pair, layer, traces, beside, progress)
        for stream in pair.streams:
            _require_finite(stream, layer, traces[stream.name], prompts)
            stream.hidden = traces[stream.name].hidden
        yield Step(layer, a, b, traces.get("A in bf16"), beside)


def _run_experts(
    pair: Pair, layer: int, traces: dict[str, LayerTrace], local: LayerTrace | None, progress: Progress
) -> None:
    of_a = [(stream, traces[stream.name]) for stream in pair.streams if stream is not pair.b]
    of_b = [(pair.b, traces["B"]), *([(pair.b, local)] if local is not None else [])]
    for pairs, stream in ((of_a, pair.a), (of_b, pair.b)):
        n_bytes, n_experts = layer_bytes(stream.checkpoint, layer), stream.config.num_local_experts
        advance = partial(progress.advance, tensor=f"{stream.name}, layer {layer}")
        run_experts(layer, pairs, partial(advance, n_bytes // n_experts))
        advance(n_bytes % n_experts)


def layer_bytes(checkpoint: Checkpoint, layer: int) -> int:
    """Stored bytes of a layer."""
    start = f"layers.{layer}."
    return sum(stored.n_bytes for name, stored in checkpoint.tensors.items() if name.startswith(start))


def all_layers_bytes(pair: Pair) -> int:
    """Stored bytes of all layers of both models."""
    layers = range(pair.a.config.num_hidden_layers)
    return sum(layer_bytes(stream.checkpoint, layer) for stream in (pair.a, pair.b) for layer in layers)


def _require_finite(stream: Stream, layer: int, trace: LayerTrace, prompts: Prompts) -> None:
    for part, what in _PARTS.items():
        require_finite(getattr(trace, part), stream, f"in layer {layer}, in {what}", prompts)


def require_finite(values: Tensor, stream: Stream, where: str, prompts: Prompts, begin: int = 0) -> None:
    """Nothing, if every number of `values` [T, …], of tokens from `begin` on, is finite. Raises CheckpointError."""
    if bool(torch.isfinite(values.sum())) or bool(values.isfinite().all()):
        return
    wrong = (~values.isfinite()).nonzero()[0].tolist()
    checkpoint = stream.checkpoint
    raise CheckpointError(
        f"{stream.name} computes numbers that are not finite; the first arise {where}",
        file=checkpoint.path,
        expected="finite numbers, as in every layer before it",
        found=f"{float(values[tuple(wrong)])} at element {wrong[1]} of {prompts.at(begin + wrong[0])}",
        remedy=f"Look for the weights behind it: gptoss-convert validate {checkpoint.path}",
    )
