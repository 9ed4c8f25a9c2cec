"""Moves one slab: read once, checked, digested, packed into the target's bytes, written in place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.codecs import e8m0, floats
from ..formats.codecs.encoding import MXFP4, Encoding, canonical
from ..formats.codecs.mxfp4 import Mxfp4
from ..formats.codecs.slab import Scratch, Slab, pack, planes, unpack
from ..formats.digest import TensorDigest
from ..formats.errors import CodecError
from ..formats.files import DataFile
from .placed import placed
from .plan import Group, Move, Plan, leaves, leaves_as
from .progress import Progress
from .quantize import Quantizer
from .reading import FileReader, SlabReader, slabs
from .stored import RowSpan, StoredTensor
from .window import Window, intervals

# source and target encodings between which a value can fall
_COARSER = {("BF16", "F16"), ("MXFP4", "F16"), ("F32", "F16"), ("F32", "BF16"), ("F16", "BF16")}

COPY_BYTES = 1 << 20


def source_digest(move: Move) -> TensorDigest:
    """An empty canonical digest of what is moved."""
    return _digest(move, canonical(move.source.encoding))


def written_digest(move: Move) -> TensorDigest:
    """An empty digest of the floats that what is moved becomes; its leaves are those of the source's."""
    return _digest(move, canonical(move.target.encoding))


def packed_digest(move: Move) -> TensorDigest:
    """An empty canonical digest of MXFP4 that floats become."""
    tensor = move.source.tensor
    return TensorDigest(MXFP4.name, tensor.shape, leaves_as(tensor, MXFP4))


def _digest(move: Move, encoding: Encoding) -> TensorDigest:
    return TensorDigest(encoding.name, move.source.tensor.shape, leaves(move.source))


def may_round(move: Move) -> bool:
    """True if the target's encoding is coarser than the source's, so that values may have to be rounded."""
    source, target = canonical(move.source.encoding).name, canonical(move.target.encoding).name
    return (source, target) in _COARSER


def keeps_bytes(group: Group) -> bool:
    """True if the rows that the group occupies in each source array are, byte for byte, those of one target array.

    So it is with a tensor of its own, and with gate and up where both sides store their rows in turn.
    """
    shifts: dict[str, set[tuple[str, int]]] = {}
    sharing: dict[str, int] = {}
    for move in group.moves:
        if not move.target.encoding is move.source.encoding is canonical(move.source.encoding):
            return False
        for source, target in zip(move.source.spans, move.target.spans, strict=True):
            if source.step != target.step or not _is_plain(source) or not _is_plain(target):
                return False
            name = source.array.name
            shifts.setdefault(name, set()).add((target.array.name, target.first - source.first))
            sharing[name] = sharing.get(name, 0) + 1
    steps = {span.array.name: span.step for move in group.moves for span in move.source.spans}
    return all(len(found) == 1 for found in shifts.values()) and sharing == steps


def _is_plain(span: RowSpan) -> bool:
    """True if all rows are stored, as rows, in one array."""
    return len(span.arrays) == 1 and not span.transposed and not span.padding


def contiguous_planes(slab: Slab, scratch: Scratch) -> list[NDArray[Any]]:
    """The slab's canonical bytes as C-contiguous arrays [N, …], copied into `scratch` where rows are strided."""
    found = []
    for number, plane in enumerate(planes(slab)):
        if not plane.flags.c_contiguous:
            copy = scratch.array(f"plane{number}", plane.shape, plane.dtype)
            np.copyto(copy, plane)
            plane = copy
        found.append(plane)
    return found


def refuse_invalid(slab: Slab, stored: StoredTensor, begin: int) -> None:
    """Raises CodecError if the slab, whose first row is `begin`, holds NaN, an infinity, or scale byte 255."""
    if isinstance(slab, Mxfp4):
        found = e8m0.find_nan(slab.scales)
        problem, expected, value = "the scale of a block is not a number", "a scale byte of 0 to 254", "255"
    else:
        found = floats.find_nonfinite(slab.values, slab.encoding.name)
        problem, expected, value = "a value is not finite", "finite numbers", "NaN or infinity"
    if found is None:
        return
    row, col = found
    span = stored.spans[-1]
    raise CodecError(
        f"{problem} ({_place(stored, begin + row, col)})",
        file=span.array.file,
        tensor=span.array.name,
        expected=expected,
        found=value,
        remedy="The file is damaged or the model diverged in training; get the weights again.",
    )


def _place(stored: StoredTensor, row: int, col: int) -> str:
    """Where in the canonical tensor: its index, or expert, row and block."""
    shape = stored.tensor.shape
    if stored.tensor.cols == 1:
        return f"{stored.tensor.name}{list(map(int, np.unravel_index(row, shape)))}"
    index = list(map(int, np.unravel_index(row, shape[:-1])))
    unit = "block" if canonical(stored.encoding).block_elements > 1 else "column"
    return f"{stored.tensor.name}{index}, {unit} {col}"


class SlabMover:
    """Moves slabs from a reader to open output files. `move` may be called from any thread.

    `digests` are of the sources in canonical form; `written` are of tensors that may be rounded, as they are written;
    `packed` are of MXFP4 that floats became. `rounded` counts values that changed. `differs` says of each tensor
    whether a byte is another than what the base (`Quantizing.like`) would give.
    """

    def __init__(
        self,
        plan: Plan,
        reader: SlabReader,
        quantizer: Quantizer,
        outputs: Mapping[Path, DataFile],
        progress: Progress,
        *,
        digest: bool,
    ) -> None:
        self._reader = reader
        self._quantizer = quantizer
        self._outputs = outputs
        self._progress = progress
        self._lock = threading.Lock()
        self.digests: dict[str, TensorDigest] = {}
        self.written: dict[str, TensorDigest] = {}
        self.packed: dict[str, TensorDigest] = {}
        self.rounded: dict[str, int] = {}
        self.differs: dict[str, bool] = {}
        for move in plan.moves:
            if quantizer.like:
                self.differs[move.name] = False
            if digest or (move.dequantizes and plan.layout.closing is not None):
                self.digests[move.name] = source_digest(move)
            if digest and may_round(move):
                self.written[move.name] = written_digest(move)
            if move.quantizes:
                self.packed[move.name] = packed_digest(move)

    def move(self, group: Group, begin: int, end: int, scratch: Scratch) -> None:
        """Moves rows `begin … end - 1` of the group's tensors."""
        if self.digests or self._quantizer.like or not self._copy(group, begin, end, scratch):
            self._convert(group, begin, end, scratch)
        n_bytes = sum(move.source.n_bytes // group.rows for move in group.moves) * (end - begin)
        self._progress.advance(n_bytes, group.moves[-1].target.spans[0].array.name)

    def _convert(self, group: Group, begin: int, end: int, scratch: Scratch) -> None:
        sources = [move.source for move in group.moves]
        window: Window | None = None
        if isinstance(self._reader, FileReader) and keeps_bytes(group) and not self._quantizer.like:
            window = self._reader.read(sources, begin, end, scratch)
            found = slabs(sources, window, scratch)
        else:
            found = self._reader.load(sources, begin, end, scratch)
        for move, slab in zip(group.moves, found, strict=True):
            refuse_invalid(slab, move.source, begin)
            if move.name in self.digests:
                self.digests[move.name].update(begin, contiguous_planes(slab, scratch))
        if window is None:
            self._write_packed(group, found, begin, end, scratch)
            return
        places = intervals([move.target for move in group.moves], begin, end)
        for (array, first, _), piece in zip(places, window.pieces, strict=True):
            self._write(array.file, piece.buffer, first)

    def _write_packed(self, group: Group, slabs: list[Slab], begin: int, end: int, scratch: Scratch) -> None:
        window = Window([move.target for move in group.moves], begin, end, scratch, "write")
        for number, (move, slab) in enumerate(zip(group.moves, slabs, strict=True)):
            if move.quantizes:
                slab = self._quantizer.quantize(group, number, slab, begin, scratch)
                self.packed[move.name].update(begin, contiguous_planes(slab, scratch))
            parts = window.rows(move.target)
            with placed(move.source, begin, f"{move.target.encoding.name} cannot hold the tensor"):
                n_rounded = pack(slab, move.target.encoding, parts)
            if n_rounded:
                with self._lock:
                    self.rounded[move.name] = self.rounded.get(move.name, 0) + n_rounded
            if move.name in self.written:
                self._digest_written(move, parts, begin, scratch)
            if self._quantizer.like:
                differs = self._quantizer.differs(move, parts, begin, end, scratch)
                with self._lock:
                    self.differs[move.name] |= differs
        window.turn_out()
        for piece in window.pieces:
            self._write(piece.array.file, piece.buffer, piece.first)

    def _digest_written(self, move: Move, parts: list[NDArray[np.uint8]], begin: int, scratch: Scratch) -> None:
        """Digests what is written of a tensor that may be rounded, in canonical form."""
        slab = unpack(move.target.encoding, parts, scratch.nested("written"), "written")
        self.written[move.name].update(begin, contiguous_planes(slab, scratch))

    def _write(self, file: Path, buffer: NDArray[np.uint8], first: int) -> None:
        self._outputs[file].write_at(buffer.data, first)

    def _copy(self, group: Group, begin: int, end: int, scratch: Scratch) -> bool:
        """Lets the kernel copy a slab whose bytes do not change; False if they do."""
        if not isinstance(self._reader, FileReader) or not keeps_bytes(group):
            return False
        sources = intervals([move.source for move in group.moves], begin, end)
        targets = intervals([move.target for move in group.moves], begin, end)
        buffer = scratch.take("copy", COPY_BYTES)
        for (source, offset, last), (target, first, _) in zip(sources, targets, strict=True):
            file = self._reader.file(source.file)
            self._outputs[target.file].copy_from(file, offset, first, last - offset, buffer.data)
        return True
