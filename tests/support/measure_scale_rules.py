"""Prints what each scale rule costs as a Markdown table for docs/: relative MSE by distribution of the weights.

Relative MSE = sum of squared errors / sum of squares, over BF16 values drawn at random. "best scale" takes for each
block the scale with the smallest error, found by trying five: what no rule can beat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mxfp4_reference import as_encoding, as_numbers, decoded, exponents, nearest_codes
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.mxfp4_encode import encode
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

N_BLOCKS, CHUNK = 1 << 18, 1 << 14

DISTRIBUTIONS: dict[str, Draw] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "student-t (4)": lambda rng, shape: rng.standard_t(4, shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}
RULES = {"floor": ScaleRule.FLOOR, "even": ScaleRule.EVEN, "ceil": ScaleRule.CEIL}


def relative_mse(patterns: Array, rule: ScaleRule) -> float:
    out = Mxfp4(np.empty((1, N_BLOCKS, 16), np.uint8), np.empty((1, N_BLOCKS), np.uint8))
    return encode(patterns.reshape(1, -1), "BF16", rule, out).relative_mse


def best_relative_mse(patterns: Array) -> float:
    error = square = 0.0
    for begin in range(0, N_BLOCKS, CHUNK):
        numbers = as_numbers(patterns[begin : begin + CHUNK], "BF16")
        floor = exponents(np.abs(numbers).max(axis=1), "floor")
        trials = []
        for exponent in (floor + step for step in range(-2, 3)):
            values = decoded(nearest_codes(numbers, exponent), exponent)
            trials.append(np.square(numbers - values).sum(axis=1))
        error += float(np.min(trials, axis=0).sum())
        square += float(np.square(numbers).sum())
    return error / square


def main() -> None:
    print(f"| weights | {' | '.join(RULES)} | best scale |")
    print("|---|" + "---|" * (len(RULES) + 1))
    for name, draw in DISTRIBUTIONS.items():
        values = draw(np.random.default_rng(0), (N_BLOCKS, 32))
        # Sizes spread evenly over an octave: a rule's error depends on where between two powers of two a block lies.
        patterns = as_encoding(values * np.exp2(np.random.default_rng(1).uniform(-6, -5, (N_BLOCKS, 1))), "BF16")
        row = [relative_mse(patterns, rule) for rule in RULES.values()] + [best_relative_mse(patterns)]
        print(f"| {name} | " + " | ".join(f"{mse:.5f}" for mse in row) + " |")


if __name__ == "__main__":
    main()
