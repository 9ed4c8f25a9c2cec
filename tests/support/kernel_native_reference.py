"""MXFP8 and MXFP4 by float64 arithmetic, definition by definition: an oracle that shares no code with the package.

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3, 5.4.1 and 6.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Magnitudes by code: e4m3 without 0x7F, which is NaN; e2m1.
E4M3 = np.array(
    [m * 2.0**-9 for m in range(8)] + [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8)][:-1]
)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
MAGNITUDES = {"MXFP8": E4M3, "MXFP4": E2M1}


def blocks_of(x: Array) -> Array:
    """float64 [blocks, 32] of x [rows, K], K a multiple of 32."""
    return np.asarray(x, np.float64).reshape(-1, 32)


def quantized(x: Array, kind: str) -> tuple[Array, Array]:
    """Codes uint8 [blocks, 32], not packed, and scales uint8 [blocks], of finite x."""
    blocks = blocks_of(x)
    exponent = _exponents(np.abs(blocks).max(axis=1), kind)
    steps = np.ldexp(np.abs(blocks), -exponent[:, None])
    sign = np.signbit(blocks) * (0x80 if kind == "MXFP8" else 8)
    return (_nearest(steps, MAGNITUDES[kind]) + sign).astype(np.uint8), (exponent + 127).astype(np.uint8)


def _exponents(amax: Array, kind: str) -> Array:
    """MXFP8: the least e ≥ -127 with amax ≤ 448 · 2^e. MXFP4: the least with amax < 7 · 2^e."""
    candidates = np.arange(-127, 128)
    with np.errstate(over="ignore"):
        fits = amax[:, None] <= np.ldexp(448.0, candidates)
        if kind == "MXFP4":
            fits = amax[:, None] < np.ldexp(7.0, candidates)
    found: Array = candidates[fits.argmax(axis=1)]
    return found


def _nearest(steps: Array, magnitudes: Array) -> Array:
    """The nearest code of each; of two equally near the even one."""
    above = np.clip(np.searchsorted(magnitudes, steps), 1, len(magnitudes) - 1)
    below = above - 1
    up, down = magnitudes[above] - steps, steps - magnitudes[below]
    chosen: Array = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
    return chosen


def packed(codes: Array, kind: str) -> Array:
    """As products take them: uint8 [blocks, 32], or [blocks, 16] with the even element low."""
    return codes if kind == "MXFP8" else codes[:, 0::2] | codes[:, 1::2] << 4


def values(codes: Array, scales: Array, kind: str) -> Array:
    """float64 [blocks, 32]."""
    mask = 0x7F if kind == "MXFP8" else 7
    magnitude = np.ldexp(MAGNITUDES[kind][codes & mask], scales.astype(np.int64)[:, None] - 127)
    return np.where(codes > mask, -magnitude, magnitude)


def rounded(x: Array, kind: str) -> Array:
    """What x [..., K] becomes, float64."""
    return values(*quantized(x, kind), kind).reshape(x.shape)


def hard_blocks(kind: str) -> dict[str, Array]:
    """float32 [blocks, 32] that are hard to quantize, by name."""
    rng = np.random.default_rng(sum(kind.encode()))
    normal = rng.standard_normal((400, 32))
    exponents = rng.integers(-149, 120, (600, 1))
    found = {
        "normal": normal,
        "of every exponent": np.ldexp(rng.standard_normal((600, 32)), exponents - rng.integers(0, 14, (600, 32))),
        "halfway between two codes": _halfway(kind),
        "at the rule's limit": _limits(kind),
        "zeros of both signs": np.where(rng.random((4, 32)) < 0.5, 0.0, -0.0),
        "one value": np.eye(32) * 3.3,
    }
    with np.errstate(over="ignore"):
        return {name: np.clip(each, -3.4e38, 3.4e38).astype(np.float32) for name, each in found.items()}


def _halfway(kind: str) -> Array:
    """Every midpoint, and its neighbours in float32, beside the largest magnitude."""
    grid = MAGNITUDES[kind]
    middle = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
    near = np.concatenate([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))])
    near = np.resize(np.concatenate([near, -near]), (-(-2 * len(near) // 31), 31))
    blocks = np.concatenate([np.full((len(near), 1), grid[-1]), near], axis=1)
    return np.concatenate([np.ldexp(blocks, exponent) for exponent in (-118, -20, 0, 7, 110)])


def _limits(kind: str) -> Array:
    """Blocks whose largest magnitude is where the next scale begins, and next to it."""
    limits = np.float32([448, 256, 480]) if kind == "MXFP8" else np.float32([3.5, 7, 6, 4])
    near = np.concatenate([limits, np.nextafter(limits, np.float32(0)), np.nextafter(limits, np.float32(1e9))])
    ramp = np.linspace(-1, 1, 32)[None, :] * near[:, None].astype(np.float64)
    ramp[:, 0] = near
    return np.concatenate([np.ldexp(ramp, exponent) for exponent in (-134, -127, -126, -30, 0, 30, 110)])


def every_half_float(dtype: Any) -> Array:
    """Every finite pattern of a 16-bit float, [blocks, 32]: neighbours together, then shuffled."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    finite = patterns[np.isfinite(patterns.astype(np.float32))]
    shuffled = np.random.default_rng(1).permutation(finite)
    return np.concatenate([finite, shuffled]).reshape(-1, 32)
