"""What quantized activations cost at gpt-oss's widths: prints the table of docs/hardware.md. Takes minutes.

TRITON_INTERPRET=1 python tests/support/kernel_native_errors.py
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import interpreter
import numpy as np
import torch
from kernel_cases import Shape
from kernel_moe_checks import Case, expected, make, run
from moe_reference import relative
from numpy.typing import NDArray

SHAPE = Shape(tokens=8, experts=4, top_k=4, hidden=2880, inner=2880)
# All scales: sums of 2,880 products are then about 1, and SwiGLU's clamps are met by few.
QUIETER = 4
LOUD_CHANNELS, LOUDER = 29, 32
DOTS = {"bfloat16, the default": "scaled", "MXFP8": "mxfp8", "MXFP4": "mxfp4"}


def true_widths() -> Case:
    case = make("MXFP4", SHAPE, "cpu")
    dense = {name: getattr(case.dense, name) * 2.0**-QUIETER for name in ("gate", "up", "down")}
    for name in dense:
        getattr(case.weights, name).parts[1].sub_(QUIETER)
    return replace(case, dense=replace(case.dense, **dense))


def loud(x: NDArray[Any]) -> NDArray[Any]:
    """One channel of a hundred louder than the others, as in the residual stream of a trained model."""
    factors = np.ones(x.shape[1], np.float32)
    factors[np.random.default_rng(3).choice(x.shape[1], LOUD_CHANNELS, replace=False)] = LOUDER
    product = x * factors
    return (product / np.sqrt(np.mean(np.square(product)))).astype(np.float32)


def main() -> None:
    torch.set_num_threads(1)
    interpreter.quicken()
    interpreter.mend_bfloat16()
    plain = true_widths()
    cases = {"normal": plain, "one channel of 100 is 32 times louder": replace(plain, x=loud(plain.x))}
    wanted = {name: expected(case) for name, case in cases.items()}
    lines = [f"| activations | {' | '.join(cases)} |", "|" + "---|" * (1 + len(cases))]
    for name, dot in DOTS.items():
        errors = [relative(run(case, None, dot).out.numpy(), wanted[key]["out"]) for key, case in cases.items()]
        lines.append(f"| {name} | {' | '.join(f'{error:.1%}' for error in errors)} |")
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
