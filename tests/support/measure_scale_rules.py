"""`make scale-rules`: prints the tables of docs/scale-rules.md, every figure of that page.

They follow from the seeds here and the versions of the peers, which are printed too, not from the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from mxfp4_reference import as_encoding, as_numbers, exponents
from mxfp4_writers import BEST, EXACT, OUR_RULES, PEERS, Blocks, Writer, ours
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

N_BLOCKS, N_RETURNING = 1 << 14, 1 << 16

DISTRIBUTIONS: dict[str, Draw] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
    "Student's t (4)": lambda rng, shape: rng.standard_t(4, shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}
FAMILIES = {"floor": ScaleRule.FLOOR, "ceil": ScaleRule.CEIL}
UPDATES = (0.01, 0.03, 0.1, 0.3)

LIKE = "`exact`, `--like ORIGINAL`"
PACKAGES = ("numpy", "torch", "torchao", "gguf", "xllamacpp", "mlx")


@dataclass(frozen=True)
class Table:
    """A Markdown table with a row for each writer."""

    title: str
    columns: list[str]
    cells: Callable[[Writer], list[str]]
    writers: list[Writer]

    def head(self) -> str:
        return line(self.columns) + "\n|" + "---|" * len(self.columns)

    def row(self, writer: Writer) -> str:
        return line([writer.name, *self.cells(writer)])


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


@cache
def weights(distribution: str, n_blocks: int = N_BLOCKS, seed: int = 0) -> Array:
    """BF16 patterns. Sizes spread evenly over an octave: a rule's error depends on where in it a block lies."""
    rng = np.random.default_rng(seed)
    values = DISTRIBUTIONS[distribution](rng, (n_blocks, 32))
    return as_encoding(values * np.exp2(rng.uniform(-6, -5, (n_blocks, 1))), "BF16")


@cache
def original(family: str, n_blocks: int = N_BLOCKS) -> Blocks:
    """What a writer of that family makes of gaussian weights."""
    return ours(weights("gaussian", n_blocks), FAMILIES[family])


@cache
def fine_tuned(family: str, update: float) -> Array:
    """BF16 patterns: the original plus gaussian noise with `update` times the root mean square of its values."""
    base = original(family).values()
    noise = np.random.default_rng(1).standard_normal(base.shape) * update * np.sqrt(np.square(base).mean())
    return as_encoding(base + noise, "BF16")


# --- what a writer does ------------------------------------------------------------------------------------------


def behaviour(writer: Writer) -> list[str]:
    """Its rule, what it does with ties and with -0, and its scales of a block of zeros and of one of 2^-127 at most."""
    ties = np.array([4, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5])
    answers = {"to the even code": [0, 2, 2, 4, 4, 6], "down": [0, 1, 2, 3, 4, 5], "up": [1, 2, 3, 4, 5, 6]}
    codes = encoded(writer, ties).codes[0, 1:7].tolist()
    zeros = encoded(writer, np.array([4, -0.0, 0.0])).codes[0, 1:3].tolist()
    return [
        rule_of(writer),
        next(name for name, answer in answers.items() if answer == codes),
        {(8, 0): "kept", (0, 0): "lost"}[tuple(zeros)],
        *(str(encoded(writer, np.array([amax])).scales[0]) for amax in (0.0, 2.0**-127)),
    ]


def encoded(writer: Writer, values: Array) -> Blocks:
    """One block that begins with these values; the others are zeros."""
    block = np.zeros((1, 32))
    block[0, : len(values)] = values
    return writer.encode(as_encoding(block, "BF16"))


def rule_of(writer: Writer) -> str:
    """The rule that gives this writer's scales of all blocks tried, among them some at every rule's boundary."""
    boundary = np.zeros((15, 32), np.uint16)
    largest = as_encoding(np.array([1, 1.25, 1.5, 1.75, 2]), "BF16")
    boundary[:, 0] = np.concatenate([largest - 1, largest, largest + 1])
    patterns = np.concatenate([weights("gaussian"), boundary])
    amax = np.abs(as_numbers(patterns, "BF16")).max(axis=1)
    rules = {name: exponents(amax, name) for name in ("floor", "even", "ceil")}
    rules["ceil(log2 amax) - 2"] = np.ceil(np.log2(amax)).astype(int) - 2
    scales = writer.encode(patterns).scales
    return next(name for name, each in rules.items() if np.array_equal(scales, each + 127))


# --- what it costs -----------------------------------------------------------------------------------------------


def cost(writer: Writer) -> list[str]:
    """Relative MSE by distribution, and the share of gaussian blocks whose largest magnitude is more than 6 steps."""
    cells = []
    for distribution in DISTRIBUTIONS:
        numbers = as_numbers(weights(distribution), "BF16")
        found = writer.encode(weights(distribution))
        cells.append(f"{np.square(numbers - found.values()).sum() / np.square(numbers).sum():.4f}")
        if distribution == "gaussian":
            clipped = np.abs(numbers).max(axis=1) > np.ldexp(6.0, found.scales.astype(int) - 127)
    return [*cells, percent(clipped.mean())]


def error_of_update(writer: Writer, family: str, update: float) -> float:
    """Sum of squared errors of the fine-tuned weights / sum of squares of what fine-tuning added."""
    numbers = as_numbers(fine_tuned(family, update), "BF16")
    values = writer.encode(fine_tuned(family, update)).values()
    return float(np.square(numbers - values).sum() / np.square(numbers - original(family).values()).sum())


def fine_tuning(writer: Writer) -> list[str]:
    return [f"{error_of_update(writer, family, update):.2f}" for family in FAMILIES for update in UPDATES]


def round_trip(writer: Writer) -> list[str]:
    """Share of blocks with equal values and with equal bytes after MXFP4 → BF16 → MXFP4, by family."""
    cells = []
    for family in FAMILIES:
        source = original(family, N_RETURNING)
        patterns = as_encoding(source.values(), "BF16")
        like = source if writer.name == LIKE else None
        found = writer.encode(patterns) if like is None else ours(patterns, ScaleRule.EXACT, like)
        cells += [share((found.values() == source.values()).all(axis=1)), share(found.same_bytes(source))]
    return cells


def share(which: Array) -> str:
    """In per cent; "100 %" only if it is all of them, to three digits more if few are missing."""
    missing = 1 - which.mean()
    return percent(1 - missing, digits=3 if 0 < missing < 0.005 else 0)


def percent(number: float, digits: int = 0) -> str:
    return f"{100 * number:.{digits}f} %"


TABLES = [
    Table(
        "Who does what",
        ["writer", "scale", "ties go", "-0", "scale of a block of zeros", "of 2^-127 alone"],
        behaviour,
        [*OUR_RULES, *PEERS],
    ),
    Table(
        "Relative mean squared error",
        ["writer", *DISTRIBUTIONS, "gaussian blocks clipped"],
        cost,
        [BEST, *OUR_RULES, *PEERS],
    ),
    Table(
        "Squared error of fine-tuned weights, as a multiple of the update's square",
        ["rule", *(f"{family}-like, {percent(update)}" for family in FAMILIES for update in UPDATES)],
        fine_tuning,
        [BEST, *OUR_RULES],
    ),
    Table(
        "MXFP4 → BF16 → MXFP4: share of blocks that come back",
        ["writer", *(f"{family}-like: {what}" for family in FAMILIES for what in ("values", "bytes"))],
        round_trip,
        [EXACT, Writer(LIKE, EXACT.encode), *OUR_RULES, *PEERS],
    ),
]


def versions() -> str:
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in PACKAGES)


def main() -> None:
    for table in TABLES:
        print(
            f"{table.title}\n\n{table.head()}", *(table.row(writer) for writer in table.writers), sep="\n", end="\n\n"
        )
    print(versions())


if __name__ == "__main__":
    main()
