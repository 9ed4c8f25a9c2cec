"""Floats to MXFP4: a scale for each block by a named rule, codes rounded to nearest, ties to even, signs of zero kept.

`mxfp4_scales` has the rules floor, even and ceil. The rule **exact** gives back what MXFP4 was decoded to:

1. A block that MXFP4 can hold exactly keeps its values. Its exponents form an interval; the lowest is what the floor
   rule picks, and puts the largest magnitude at 4 or 6 steps (a step is 2^e). Writers put it at 3 steps or more, so
   only a largest magnitude of 6 steps leaves a choice, 6 or 3 steps, and only if no value is 0.5 or 1.5 steps.
2. Such an **ambiguous** block is decided for the whole tensor, by who wrote it. Floor and even put 4 or 6 steps into
   every block, and fewer than one block in 10,000 is ambiguous by chance: the lower exponent is right. Ceil leaves
   20 to 28 % of all blocks with a largest magnitude of 3 steps, each of them ambiguous: the higher is right.
3. All other blocks were changed since, and get the fallback rule's scale.

The decision is one bit per tensor, and rows can be encoded in any order once it is made: `survey` some rows, add the
results up, and hand `.prefer` to every `encode`. The two cases are so far apart that the first few thousand exact
blocks settle it; a survey of one slab will do.

Every finite BF16, F16 or F32 value is within reach of some scale: 6 * 2^127 is beyond them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CodecError
from . import floats
from .encoding import BF16, F16, F32
from .mxfp4 import BLOCK_ELEMENTS, Mxfp4, check_scales, require_rows
from .mxfp4_scales import ScaleRule, Scaling, encode_kernels, scaling, tables

_ELEMENT = {BF16.name: np.dtype(np.uint16), F16.name: np.dtype(np.uint16), F32.name: np.dtype(np.float32)}

# Blocks that a survey, or F16 on its way through F32, takes at a time: 8 MB of float32.
_CHUNK_BLOCKS = 65536

# Of the exact blocks, less than 0.01 % are ambiguous after floor and even, and 20 % and more after ceil.
_CEIL_SHARE = 0.02


class Prefer(StrEnum):
    """Which exponent an ambiguous block gets."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class EncodeStats:
    """What encoding did to some blocks. The stats of all slabs of a tensor add up to the tensor's.

    Args:
        blocks: how many there are.
        blocks_zero: those of zeros, of either sign.
        blocks_exact: those whose values all have a code; those of zeros too.
        blocks_ambiguous: those exact at two exponents (rule exact only).
        blocks_unchanged: those that equal the block of `like` (`encode_like` only).
        squared_error: sum over the requantized blocks of (value - value of its code)^2.
        squared_sum: sum over the requantized blocks of value^2.
    """

    blocks: int = 0
    blocks_zero: int = 0
    blocks_exact: int = 0
    blocks_ambiguous: int = 0
    blocks_unchanged: int = 0
    squared_error: float = 0.0
    squared_sum: float = 0.0

    def __add__(self, other: EncodeStats) -> EncodeStats:
        return EncodeStats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def blocks_requantized(self) -> int:
        """Blocks of which at least one value was rounded."""
        return self.blocks - self.blocks_exact

    @property
    def relative_mse(self) -> float:
        """squared_error / squared_sum, over the requantized blocks; 0 if there are none."""
        return self.squared_error / self.squared_sum if self.squared_sum else 0.0

    @property
    def prefer(self) -> Prefer:
        """The exponent that ambiguous blocks had, going by their share of the exact blocks that are not zero."""
        candidates = self.blocks_exact - self.blocks_zero
        return Prefer.HIGH if self.blocks_ambiguous > _CEIL_SHARE * candidates else Prefer.LOW


def encode(
    values: NDArray[Any],
    encoding: str,
    rule: ScaleRule,
    out: Mxfp4,
    *,
    prefer: Prefer = Prefer.LOW,
    fallback: ScaleRule = ScaleRule.EVEN,
) -> EncodeStats:
    """Writes N rows of floats into `out` as MXFP4.

    Args:
        values: [N, G * 32], float32 for "F32", uint16 patterns for "BF16" and "F16". Rows may lie any distance apart.
        encoding: which of these.
        rule: how a block gets its scale.
        out: N rows of G blocks, written. A block of zeros gets scale 0.
        prefer: what the rule exact does with an ambiguous block.
        fallback: the rule for blocks that are not exact, where `rule` is exact: floor, ceil or even.

    Raises:
        CodecError: a value is NaN or infinite, or would go to 2^128, which no float holds (magnitudes from
            1.75 * 2^127 by the rules ceil and even). Row, block and element are named; `out` is then unfinished.
    """
    return _encode(values, encoding, out, (rule, prefer, fallback))


def encode_like(
    values: NDArray[Any],
    encoding: str,
    like: Mxfp4,
    rule: ScaleRule,
    out: Mxfp4,
    *,
    prefer: Prefer = Prefer.LOW,
    fallback: ScaleRule = ScaleRule.EVEN,
) -> EncodeStats:
    """As `encode`, but a block whose values are those of the block of `like`, to the bit, gets its very bytes.

    Args:
        like: the packed rows that the values may have been decoded from, of the shape of `out`; not the same memory.

    Raises:
        CodecError: as `encode`; or a scale of `like` is 255.
    """
    require_rows("scales of like", like.scales, np.uint8, out.scales.shape)
    check_scales(like.scales)
    return _encode(values, encoding, out, (rule, prefer, fallback), like)


def survey(values: NDArray[Any], encoding: str) -> EncodeStats:
    """What the rule exact meets in these rows; `.prefer` of one survey, or of the sum of several, is the decision.

    Args:
        values: as in `encode`, a multiple of 32 columns.
        encoding: as in `encode`.

    Raises:
        CodecError: as `encode`.
    """
    n_rows, groups = len(values), values.shape[1] // BLOCK_ELEMENTS
    step = max(1, _CHUNK_BLOCKS // max(1, groups))
    blocks, scales = (
        np.empty((min(step, n_rows), groups, 16), np.uint8),
        np.empty((min(step, n_rows), groups), np.uint8),
    )
    stats = EncodeStats()
    for begin in range(0, n_rows, step):
        rows = values[begin : begin + step]
        out = Mxfp4(blocks[: len(rows)], scales[: len(rows)])
        stats += _encode(rows, encoding, out, (ScaleRule.EXACT, Prefer.LOW, ScaleRule.EVEN), first_row=begin)
    return stats


def _encode(
    values: NDArray[Any],
    encoding: str,
    out: Mxfp4,
    choice: tuple[ScaleRule, Prefer, ScaleRule],
    like: Mxfp4 | None = None,
    first_row: int = 0,
) -> EncodeStats:
    n_rows, groups = out.scales.shape
    require_rows("values", values, _ELEMENT[encoding], (n_rows, groups * BLOCK_ELEMENTS))
    rule, prefer, fallback = choice
    stats = EncodeStats()
    for begin, patterns, name in _patterns(values, encoding) if values.size else ():
        numbers = scaling(name, rule, fallback, prefer is Prefer.HIGH)
        part = slice(begin, begin + len(patterns))
        written = out.blocks[part], out.scales[part]
        tally = encode_kernels().encode(patterns, tables(name), numbers, *written)
        if tally.refused >= 0:
            row, block = divmod(tally.refused, groups)
            _refuse(patterns[row, block * BLOCK_ELEMENTS :], numbers, first_row + begin + row, block)
        kept = 0
        if like is not None:
            kept = encode_kernels().keep(patterns, tables(name), (like.blocks[part], like.scales[part]), *written)
        stats += EncodeStats(
            len(patterns) * groups,
            *(tally.zero, tally.exact, tally.ambiguous, kept),
            *(tally.squared_error, tally.squared_sum),
        )
    return stats


def _patterns(values: NDArray[Any], encoding: str) -> Iterator[tuple[int, NDArray[Any], str]]:
    """First row, patterns and encoding of pieces in which F16 has become F32; the others are one piece."""
    if encoding != F16.name:
        yield 0, values.view(f"u{values.itemsize}"), encoding
        return
    step = max(1, _CHUNK_BLOCKS * BLOCK_ELEMENTS // values.shape[1])
    wide = np.empty((min(step, len(values)), values.shape[1]), np.float32)
    for begin in range(0, len(values), step):
        rows = values[begin : begin + step]
        floats.convert(rows, F16.name, F32.name, wide[: len(rows)])
        yield begin, wide[: len(rows)].view(np.uint32), F32.name


def _refuse(patterns: NDArray[Any], numbers: Scaling, row: int, block: int) -> None:
    """Raises for the first of `patterns` that is at the limit or above."""
    bits = patterns.astype(np.uint32) << (32 - 8 * patterns.itemsize)
    magnitudes = patterns & ((1 << (8 * patterns.itemsize - 1)) - 1)
    element = int(np.argmax(magnitudes >= numbers.limit))
    value = bits.view(np.float32)[element]
    where = f"row {row}, block {block}, element {element}"
    if not np.isfinite(value):
        raise CodecError(
            f"{where} is not finite, so MXFP4 cannot hold it",
            expected="a finite value",
            found=value,
            remedy="No trained weight is such a number: check what wrote the source.",
        )
    raise CodecError(
        f"{where} would be rounded to 2^128, which no float can hold",
        expected="a magnitude below 1.75 * 2^127",
        found=f"{value:g}",
        remedy="Choose the scale rule floor, which clips it to 1.5 * 2^127.",
    )
