"""The MoE block of gpt-oss in float64, definition by definition: an oracle that shares no code with the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Experts:
    """Decoded weights float64: gate and up [E, I, H], down [E, H, I]; biases [E, I], [E, I], [E, H]."""

    gate: Array
    up: Array
    down: Array
    gate_bias: Array
    up_bias: Array
    down_bias: Array


def choose(logits: Array, top_k: int) -> tuple[Array, Array]:
    """The experts [T, top_k], the lower one first of two equal logits, and the softmax over those logits alone."""
    experts = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(logits.astype(np.float64), experts, axis=1)
    powers = np.exp(chosen - chosen[:, :1])
    return experts, powers / powers.sum(axis=1, keepdims=True)


def swiglu(gate: Array, up: Array, limit: float, alpha: float = 1.702) -> Array:
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return (up + 1) * gate / (1 + np.exp(-alpha * gate))


def stages(x: Array, logits: Array, weights: Experts, top_k: int, limit: float) -> dict[str, Array]:
    """Every stage by its name: [T, top_k, …], out [T, H]."""
    experts, shares = choose(logits, top_k)
    x = x.astype(np.float64)
    product = lambda matrices, rows: np.einsum("tkij,tkj->tki", matrices[experts], rows)  # noqa: E731
    each = np.repeat(x[:, None], top_k, axis=1)
    gate = product(weights.gate, each) + weights.gate_bias[experts]
    up = product(weights.up, each) + weights.up_bias[experts]
    activated = swiglu(gate, up, limit)
    down = product(weights.down, activated) + weights.down_bias[experts]
    out = (down * shares[:, :, None]).sum(axis=1)
    return {"weights": shares, "gate": gate, "up": up, "activated": activated, "down": down, "out": out}


def error(found: Array, expected: Array) -> float:
    """The largest difference, in units of the root mean square of what was expected; NaN if any is NaN."""
    assert found.shape == expected.shape
    if not expected.size:
        return 0.0
    return float(np.abs(found.astype(np.float64) - expected).max() / np.sqrt(np.mean(np.square(expected))))


def relative(found: Array, expected: Array) -> float:
    """The norm of the difference over the norm of what was expected; NaN if any is NaN."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))
