"""`drift --depth layers`: the same tokens through both models, and how far apart they are after every layer.

    relative error of X = ‖X_B - X_A‖ / ‖X_A‖        Frobenius norms in float64, over all tokens and elements; no unit

Each model runs on its own residual stream, so errors add up on the way. **Local** errors do not: there B's attention,
and B's experts, get what A gave its own, so that an error shows in the layer where it is made.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor

from ...model.config import GptOssConfig
from ...model.forward import LayerTrace
from ..checkpoint import Checkpoint
from ..progress import Progress
from ..same_model import require_same_model
from .arithmetic import as_computed_by, notes_on_arithmetic
from .layer_report import describe_layers, layer_lines, layer_tables
from .lockstep import NOTHING, Injection, Pair, Step, all_layers_bytes, opened, start, steps
from .prompts import Prompts, make_prompts

ROUNDING = 1e-5
"""The relative error that sums in float32, taken in another order, explain at most. Above it, B is another model.

Measured on the demo checkpoint: 1e-6 between float32 and float64 in every part of every layer.
"""


@dataclass(frozen=True)
class Distances:
    """How far a model is from A in one layer.

    Attributes:
        residual: relative error of the residual stream after the layer.
        attention: relative error of what attention adds to it.
        moe: relative error of what the experts add to it.
        expert_overlap: how many of a token's experts in A are its experts here too, as a share, mean over tokens.
        same_experts: the share of tokens that are sent to exactly the experts that A sends them to.
    """

    residual: float
    attention: float
    moe: float
    expert_overlap: float
    same_experts: float


@dataclass(frozen=True)
class Token:
    """A token, by its prompt and its place in it, counted from 0, and what it spells."""

    prompt: str
    place: int
    piece: str


@dataclass(frozen=True)
class LayerFigures:
    """One layer.

    Attributes:
        layer: its number.
        b: B, on its own residual stream.
        noise: A in bf16, on its own; None if it did not run.
        local_attention, local_moe: relative errors of what B's attention, and B's experts, make of what A gave its own;
            None if they did not run.
        first_rerouted: the first token that B sends to other experts than A; None if there is none.
        peak_a, peak_b: the largest magnitude in the residual stream after the layer.
    """

    layer: int
    b: Distances
    noise: Distances | None
    local_attention: float | None
    local_moe: float | None
    first_rerouted: Token | None
    peak_a: float
    peak_b: float


@dataclass(frozen=True)
class LayerComparison:
    """How far B is from A, layer by layer.

    Attributes:
        path_a, path_b: the checkpoints.
        prompts: what was run.
        embedding: relative error of the residual stream before the first layer.
        layers: one entry for each layer.
        notes: what a reader of the figures should know.
    """

    path_a: str
    path_b: str
    prompts: Prompts
    embedding: float
    layers: tuple[LayerFigures, ...]
    notes: tuple[str, ...]

    @property
    def largest(self) -> tuple[str, int | None, float]:
        """The largest relative error that shows where something differs: which, in which layer, and how large.

        Local errors if they were measured; else those of B's own stream.
        """
        return max(self._errors(), key=lambda one: one[2])

    @property
    def first(self) -> tuple[str, int | None, float] | None:
        """The first relative error beyond `ROUNDING`, in the order of computation; None if there is none."""
        return next((one for one in self._errors() if one[2] > ROUNDING), None)

    def _errors(self) -> list[tuple[str, int | None, float]]:
        """In the order of computation, local errors if they were measured, else those of B's own stream."""
        found: list[tuple[str, int | None, float]] = [("embedding", None, self.embedding)]
        for one in self.layers:
            attention = one.b.attention if one.local_attention is None else one.local_attention
            moe = one.b.moe if one.local_moe is None else one.local_moe
            found += [("attention", one.layer, attention), ("experts", one.layer, moe)]
        return found

    @property
    def is_zero(self) -> bool:
        """True if both models computed the very same numbers in every layer."""
        errors = [self.embedding, *(getattr(one.b, part) for one in self.layers for part in _ERRORS)]
        errors += [error for one in self.layers for error in (one.local_attention, one.local_moe) if error is not None]
        return not any(errors) and all(one.b.same_experts == 1 for one in self.layers)

    def figures(self) -> dict[str, float]:
        """What `--fail-over` takes, by its name: the worst over all layers."""
        return {
            "residual": max([self.embedding, *(one.b.residual for one in self.layers)]),
            "local": self.largest[2],
            "overlap": min(one.b.expert_overlap for one in self.layers),
            "experts": min(one.b.same_experts for one in self.layers),
        }

    def describe(self) -> dict[str, Any]:
        """The report as JSON data: no number in it is infinite."""
        return describe_layers(self)

    def tables(self) -> list[Table]:
        """Errors by layer; routing and magnitudes by layer."""
        return layer_tables(self)

    def lines(self) -> list[str]:
        """What was run, and what it says."""
        return layer_lines(self)


_ERRORS = ("residual", "attention", "moe")


def compare_layers(
    a: Checkpoint,
    b: Checkpoint,
    *,
    prompts: Prompts | None = None,
    noise: bool = True,
    local: bool = True,
    consumer: str | None = None,
    consumer_a: str | None = None,
    inject: Injection = NOTHING,
    progress: Progress | None = None,
) -> LayerComparison:
    """How far `b` is from `a` after every layer.

    Args:
        a: what is right.
        b: what is compared with it.
        prompts: what to run; our own texts if None.
        noise: whether A runs in bf16 too: what its drift is worth comparing with. Costs a third of the time.
        local: whether B's layers run once more, on A's stream. Costs a third of the time.
        consumer: the program whose arithmetic B is computed with; a key of `arithmetic.CONSUMERS`.
        consumer_a: the same for A.
        inject: a mistake to put into B.
        progress: told of every expert.

    Raises:
        UsageError: models of other shapes, tokenizers that differ, a program that is not known.
        CheckpointError: numbers that are not finite arise; model, layer, part and token are named.
        CodecError: a weight is not finite; file, tensor and block are named.
    """
    config_a, config_b = configs(a, b, consumer, consumer_a)
    prompts = prompts or make_prompts(a, b)
    progress = progress or Progress()
    with ExitStack() as stack:
        pair = stack.enter_context(opened(a, b, config_a, config_b, inject, noise=noise))
        stack.enter_context(progress.during("comparing layers", all_layers_bytes(pair)))
        embedding, layers = run_layers(pair, prompts, progress, local=local)
    notes = (*prompts.notes, *notes_on_arithmetic(a, b, consumer, consumer_a))
    return LayerComparison(str(a.path), str(b.path), prompts, embedding, layers, notes)


def configs(
    a: Checkpoint, b: Checkpoint, consumer: str | None, consumer_a: str | None
) -> tuple[GptOssConfig, GptOssConfig]:
    """What each is computed with. Raises UsageError: other shapes, or a program that is not known."""
    require_same_model(a, b)
    return as_computed_by(a.config, consumer_a), as_computed_by(b.config, consumer)


def run_layers(
    pair: Pair, prompts: Prompts, progress: Progress, *, local: bool
) -> tuple[float, tuple[LayerFigures, ...]]:
    """Relative error of the embedded tokens, and every layer's figures; each stream then holds the last layer's output.

    Raises: as `compare_layers`.
    """
    start(pair, prompts)
    embedding = relative_error(pair.a.hidden, pair.b.hidden)
    layers = []
    for step in steps(pair, prompts, progress, local=local):
        top_k = pair.a.config.num_experts_per_tok
        layers.append(
            LayerFigures(
                layer=step.layer,
                b=_distances(step.a, step.b, top_k),
                noise=None if step.noise is None else _distances(step.a, step.noise, top_k),
                local_attention=_local(step, "attention_output"),
                local_moe=_local(step, "moe_output"),
                first_rerouted=_first_rerouted(step.a, step.b, top_k, prompts),
                peak_a=float(step.a.hidden.abs().max()),
                peak_b=float(step.b.hidden.abs().max()),
            )
        )
    return embedding, tuple(layers)


def relative_error(a: Tensor, b: Tensor) -> float:
    """‖b - a‖ / ‖a‖ over all elements, in float64; 0 if both are zero, infinite if only `a` is."""
    wide = a.double()
    off, size = float((b.double() - wide).norm()), float(wide.norm())
    return off / size if size else (0.0 if off == 0 else float("inf"))


def _local(step: Step, part: str) -> float | None:
    return None if step.local is None else relative_error(getattr(step.a, part), getattr(step.local, part))


def _distances(a: LayerTrace, other: LayerTrace, top_k: int) -> Distances:
    shared = _shared_experts(a, other, top_k)
    return Distances(
        residual=relative_error(a.hidden, other.hidden),
        attention=relative_error(a.attention_output, other.attention_output),
        moe=relative_error(a.moe_output, other.moe_output),
        expert_overlap=float(shared.double().mean()) / top_k,
        same_experts=float((shared == top_k).double().mean()),
    )


def _shared_experts(a: LayerTrace, other: LayerTrace, top_k: int) -> Tensor:
    """How many of each token's experts are the same in both: int64 [T]."""
    one, two = (trace.router_logits.topk(top_k, dim=-1).indices for trace in (a, other))
    return (one[:, :, None] == two[:, None, :]).sum((1, 2))


def _first_rerouted(a: LayerTrace, b: LayerTrace, top_k: int, prompts: Prompts) -> Token | None:
    differ = (_shared_experts(a, b, top_k) < top_k).nonzero()
    if not len(differ):
        return None
    prompt, place = prompts.place(int(differ[0]))
    return Token(prompt.name, place, prompt.pieces[place])
