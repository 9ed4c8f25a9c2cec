"""Floats on their way to MXFP4, and how what is written differs from a base."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
from numpy.typing import NDArray

from ..formats.codecs import mxfp4_encode
from ..formats.codecs.encoding import MXFP4
from ..formats.codecs.mxfp4 import Mxfp4, check_scales
from ..formats.codecs.mxfp4_encode import EncodeStats, Prefer
from ..formats.codecs.mxfp4_scales import ScaleRule
from ..formats.codecs.slab import Dense, Scratch, Slab, pack
from ..formats.errors import CodecError
from .placed import placed
from .plan import Group, Move, Plan
from .reading import SlabReader

# Blocks that settle which exponent a tensor's ambiguous blocks had.
_ENOUGH_BLOCKS = 4096


class Quantizer:
    """Makes MXFP4 of floats by the plan's rule. Methods may be called from any thread.

    Args:
        plan: what is done.
        reader: of the plan's source.
        like: of the plan's base, if it has one.

    Attributes:
        stats: what quantizing did, by canonical name.
    """

    def __init__(self, plan: Plan, reader: SlabReader, like: SlabReader | None) -> None:
        self._rule = plan.quantizing.rule
        self._reader = reader
        self.like = like
        self.stats = {move.name: EncodeStats() for move in plan.moves if move.quantizes}
        self._preferred: dict[str, Prefer] = {}
        self._lock = threading.Lock()
        self._surveying = threading.Lock()

    def quantize(self, group: Group, number: int, slab: Slab, begin: int, scratch: Scratch) -> Mxfp4:
        """The slab of the group's move `number`, whose first row is `begin`, as MXFP4. Raises CodecError."""
        move = group.moves[number]
        assert isinstance(slab, Dense)
        n_rows, groups = len(slab.values), slab.values.shape[1] // MXFP4.block_elements
        out = Mxfp4(
            scratch.array(f"quantized{number}.blocks", (n_rows, groups, 16), np.dtype(np.uint8)),
            scratch.array(f"quantized{number}.scales", (n_rows, groups), np.dtype(np.uint8)),
        )
        prefer = self._preference(group, move, scratch) if self._rule is ScaleRule.EXACT else Prefer.LOW
        values, encoding = slab.values, slab.encoding.name
        base = None if self.like is None else self._packed_base(move, begin, begin + n_rows, scratch)
        with placed(move.source, begin, "the tensor cannot become MXFP4"):
            if base is None:
                stats = mxfp4_encode.encode(values, encoding, self._rule, out, prefer=prefer)
            else:
                stats = mxfp4_encode.encode_like(values, encoding, base, self._rule, out, prefer=prefer)
        with self._lock:
            self.stats[move.name] += stats
        return out

    def differs(self, move: Move, parts: list[NDArray[np.uint8]], begin: int, end: int, scratch: Scratch) -> bool:
        """Whether `parts`, rows `begin … end - 1` as they are written, are other bytes than the base would give.

        Rows that the base does not hold are not compared: a Metal file lacks the last ones of embeddings.
        """
        assert move.like is not None
        end = min(end, move.like.tensor.rows)
        if begin >= end:
            return False
        parts = [part[: end - begin] for part in parts]
        base = self._base(move, begin, end, scratch)
        expected = [scratch.array(f"expected{number}", part.shape, part.dtype) for number, part in enumerate(parts)]
        try:
            pack(base, move.target.encoding, expected)
        except CodecError:
            return True
        return not all(np.array_equal(part, other) for part, other in zip(parts, expected, strict=True))

    def _base(self, move: Move, begin: int, end: int, scratch: Scratch) -> Slab:
        """The base's rows, in canonical form."""
        assert self.like is not None
        assert move.like is not None
        (slab,) = self.like.load([move.like], begin, end, scratch.nested("aside"))
        return slab

    def _packed_base(self, move: Move, begin: int, end: int, scratch: Scratch) -> Mxfp4:
        """The base's rows. Raises CodecError naming the base if they are damaged."""
        base = self._base(move, begin, end, scratch)
        assert move.like is not None
        assert isinstance(base, Mxfp4)
        with placed(move.like, begin, "the checkpoint to compare with is damaged"):
            check_scales(base.scales)
        return base

    def _preference(self, group: Group, move: Move, scratch: Scratch) -> Prefer:
        """Which exponent ambiguous blocks of the tensor get: decided once, from matrices spread over the tensor."""
        with self._surveying:
            if move.name not in self._preferred:
                self._survey(group, scratch.nested("aside"))
            return self._preferred[move.name]

    def _survey(self, group: Group, scratch: Scratch) -> None:
        moves = [move for move in group.moves if move.quantizes]
        stats = dict.fromkeys((move.name for move in moves), EncodeStats())
        last = group.rows // group.matrix_rows - 1
        for matrix in sorted({0, last // 3, 2 * last // 3, last}):
            begin = matrix * group.matrix_rows
            slabs = self._reader.load([move.source for move in moves], begin, begin + group.matrix_rows, scratch)
            for move, slab in zip(moves, slabs, strict=True):
                assert isinstance(slab, Dense)
                # What cannot be encoded is refused, with its place, when its own slab is moved.
                with contextlib.suppress(CodecError):
                    stats[move.name] += mxfp4_encode.survey(slab.values, slab.encoding.name)
            if all(found.blocks_exact - found.blocks_zero >= _ENOUGH_BLOCKS for found in stats.values()):
                break
        self._preferred |= {name: found.prefer for name, found in stats.items()}
