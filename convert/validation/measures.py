"""How far the stages of a layer are from their reference, and how far they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

STAGES = ("attention", "router", "experts", "shares", "gate", "up", "activated", "down", "out")
"""What is measured of a layer, in the order in which it is computed. All get the reference's inputs."""


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
        layer, stage: which.
        relative, worst: as in `Limits`; infinite where something is not finite.
        excess: the larger of both as a multiple of its limit: above 1 it is more than rounding.
        place: index of the element that is farthest off.
        by_expert: the relative error of each expert that was used, of stages that experts make.
        where: which stored numbers explain an excess above 1, in words.
    """

    layer: int
    stage: str
    relative: float
    worst: float
    excess: float
    place: tuple[int, ...]
    by_expert: dict[int, float] = field(default_factory=dict)
    where: str = ""


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


def measure(layer: int, stage: str, expected: Tensor, found: Tensor, limits: Limits) -> Measure:
    """The distance of `found` from `expected` (float64), which have the same shape."""
    difference = (found.to(torch.float64) - expected).abs()
    finite = bool(torch.isfinite(difference).all())
    flat = torch.nan_to_num(difference, nan=torch.inf).flatten()
    place = tuple(int(i) for i in torch.unravel_index(flat.argmax(), difference.shape))
    norm, size = float(expected.norm()), math.sqrt(expected.numel())
    if not finite or norm == 0:
        off = 0.0 if finite and float(flat.max()) == 0 else math.inf
        return Measure(layer, stage, off, off, off, place)
    relative, worst = float(difference.norm()) / norm, float(flat.max()) / (norm / size)
    return Measure(layer, stage, relative, worst, max(relative / limits.relative, worst / limits.worst), place)


def measure_choice(layer: int, logits: Tensor, expected: Tensor, found: Tensor, limits: Limits) -> Measure:
    """Whether the same experts were chosen, but for those whose logits are as close as rounding can exchange.

    Args:
        layer: which.
        logits: the reference's, float64 [T, E].
        expected, found: int64 [T, k].
        limits: what rounding explains, of logits in units of their RMS.
    """
    rms = float(logits.square().mean().sqrt())
    best, other = (logits.gather(1, experts).sort(dim=1).values for experts in (expected, found))
    gap = (best - other).abs().amax(dim=1)
    token = int(gap.argmax())
    worst = float(gap[token]) / rms if rms else 0.0
    disagree = float((expected.sort(1).values != found.sort(1).values).any(1).double().mean())
    return Measure(layer, "experts", disagree if worst > limits.worst else 0.0, worst, worst / limits.worst, (token,))
