"""How far the stages of a model are from their reference, and how far they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .locate import Cause

EMBEDDING, LOGITS = "embedding", "logits"
LAYER_STAGES = ("attention", "router", "experts", "shares", "gate", "up", "activated", "down", "out")
STAGES = (EMBEDDING, *LAYER_STAGES, LOGITS)
"""What is measured, in the order in which it is computed. The first and the last belong to no layer."""

NOT_FINITE = "a value is not finite"
NO_SIZE = "its reference is zero"
NO_EXPERT = "a token has an expert that does not exist, or the same one twice"


@dataclass(frozen=True)
class Limits:
    """The most that rounding explains.

    Attributes:
        relative: of ‖found - expected‖ / ‖expected‖, over all elements.
        worst: of max |found - expected| / RMS(expected).
    """

    relative: float
    worst: float


# Sums of 2,880 products: float32 keeps 24 bits of each, BF16 and F16 inputs 8 and 11.
LIMITS = {"f32": Limits(1e-5, 1e-4), "bf16": Limits(1e-2, 0.15), "f16": Limits(2e-3, 0.03)}


@dataclass(frozen=True)
class Measure:
    """One stage of one layer.

    Attributes:
        layer, stage: which; the layer is None for the embedding and the logits.
        relative, worst: as in `Limits`; infinite if there is a problem.
        excess: the larger of both as a multiple of its limit: above 1 it is more than rounding.
        figure: which of them that is, "relative" or "worst".
        place: index of the element that is farthest off.
        problem: why no distance can be told; "" if it can.
        by_expert: the relative error of each expert, of stages that experts make.
        cause: what explains an excess above 1.
    """

    layer: int | None
    stage: str
    relative: float
    worst: float
    excess: float
    figure: str
    place: tuple[int, ...]
    problem: str = ""
    by_expert: dict[int, float] = field(default_factory=dict)
    cause: Cause | None = None

    @property
    def name(self) -> str:
        """ "gate of layer 3"."""
        return self.stage if self.layer is None else f"{self.stage} of layer {self.layer}"


def by_expert(experts: Tensor, expected: Tensor, found: Tensor) -> dict[int, float]:
    """The relative error ‖found - expected‖ / ‖expected‖ of each expert's outputs.

    `experts` is int64 [T, k], the others are [T, k, …].
    """
    wide = expected.to(torch.float64)
    size, off = ((tensor * tensor).sum(-1).flatten() for tensor in (wide, found.to(torch.float64) - wide))
    flat = experts.flatten()
    totals = [torch.zeros(int(flat.max()) + 1, dtype=torch.float64).index_add_(0, flat, part) for part in (off, size)]
    used = torch.unique(flat).tolist()
    return {expert: math.sqrt(float(totals[0][expert]) / max(float(totals[1][expert]), 1e-300)) for expert in used}


def measure(layer: int | None, stage: str, expected: Tensor, found: Tensor, limits: Limits) -> Measure:
    """The distance of `found` from `expected` (float64), which have the same shape."""
    difference = (found.to(torch.float64) - expected).abs()
    flat = torch.nan_to_num(difference, nan=torch.inf, posinf=torch.inf).flatten()
    place = tuple(int(i) for i in torch.unravel_index(flat.argmax(), difference.shape))
    largest, norm = float(flat.max()), float(expected.norm())
    if math.isinf(largest):
        return _hopeless(layer, stage, place, NOT_FINITE)
    if norm == 0:
        return _hopeless(layer, stage, place, NO_SIZE) if largest else Measure(layer, stage, 0, 0, 0, "worst", place)
    relative, worst = float(difference.norm()) / norm, largest * math.sqrt(expected.numel()) / norm
    excess, figure = max((relative / limits.relative, "relative"), (worst / limits.worst, "worst"))
    return Measure(layer, stage, relative, worst, excess, figure, place)


def measure_choice(layer: int, logits: Tensor, expected: Tensor, found: Tensor, limits: Limits) -> Measure:
    """Whether the same experts were chosen, but for those whose logits are as close as rounding can exchange.

    `relative` is the share of tokens with other experts, if rounding does not explain them; `worst` the largest
    difference of the logits that were chosen.

    Args:
        layer: which.
        logits: the reference's, float64 [T, E].
        expected, found: int64 [T, k].
        limits: what rounding explains, of logits in units of their RMS.
    """
    wrong = ((found < 0) | (found >= logits.shape[1])).any(1) | (found.sort(1).values.diff(dim=1) == 0).any(1)
    if bool(wrong.any()):
        return _hopeless(layer, "experts", (int(wrong.nonzero()[0]),), NO_EXPERT)
    rms = float(logits.square().mean().sqrt())
    best, other = (logits.gather(1, experts).sort(dim=1).values for experts in (expected, found))
    gap = (best - other).abs().amax(dim=1)
    token = int(gap.argmax())
    worst = float(gap[token]) / rms if rms else 0.0
    disagree = float((expected.sort(1).values != found.sort(1).values).any(1).double().mean())
    excess = worst / limits.worst
    return Measure(layer, "experts", disagree if excess > 1 else 0.0, worst, excess, "worst", (token,))


def _hopeless(layer: int | None, stage: str, place: tuple[int, ...], problem: str) -> Measure:
    return Measure(layer, stage, math.inf, math.inf, math.inf, "worst", place, problem)
