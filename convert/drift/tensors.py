"""How far the weights of two checkpoints are apart, tensor by tensor, whatever their layouts.

Both are read once, slab by slab, through the canonical view. Of tensors that differ, slabs that are equal are read a
second time on one side, because relative figures need the size of the whole tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from ...formats.codecs.compare import SHIFTS, Distance, PackedChanges
from ...formats.codecs.encoding import MXFP4, canonical
from ...formats.codecs.slab import Scratch, Slab
from ..checkpoint import Checkpoint
from ..plan import Group, Move
from ..progress import Progress
from ..reading import FileReader, SlabReader, slabs
from ..same_model import require_same_model
from ..stored import StoredTensor
from ..workers import run_slabs
from .pairs import pair_up
from .results import PackedDrift, Spot, Sums, TensorComparison, TensorDrift, Verdict, added
from .slabs import Part, RowChanges, compare_slab, measure_alone, unit_elements
from .stored_bytes import same_blocks, same_stored_bytes, stored_alike


def compare_tensors(a: Checkpoint, b: Checkpoint, progress: Progress | None = None) -> TensorComparison:
    """Every tensor of `b` beside that of `a`. Of embeddings, the rows that both have.

    Raises:
        UsageError: they are of two models; the config key is named.
        CodecError: a weight is NaN or infinite; file, tensor and place are named.
        OSError: a file cannot be read.
    """
    require_same_model(a, b)
    progress = progress or Progress()
    groups = pair_up(a, b)
    with a.make_reader() as reader_a, b.make_reader() as reader_b:
        run = _Run(groups, (reader_a, reader_b), progress)
        with progress.during("comparing", sum(_bytes(group) for group in groups)):
            run_slabs(groups, run.compare)
        again = run.unmeasured(groups)
        if again:
            with progress.during("measuring", sum(_bytes(group, 1) for group in again)):
                run_slabs(again, run.measure)
    found = {
        move.name: _folded(move, run.parts[move.name], _rows_left_out(move, a, b))
        for group in groups
        for move in group.moves
    }
    return TensorComparison(dict(sorted(found.items(), key=lambda item: _natural(item[0]))))


def _bytes(group: Group, n_sides: int = 2) -> int:
    return sum(side.n_bytes for move in group.moves for side in move.sides[:n_sides])


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Layer 2 before layer 10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def _rows_left_out(move: Move, a: Checkpoint, b: Checkpoint) -> int:
    rows = [checkpoint.tensors[move.name].tensor.rows for checkpoint in (a, b)]
    return max(rows) - min(rows)


class _Run:
    """Reads both sides and keeps what each slab gave. Its methods may be called from any thread."""

    def __init__(self, groups: Iterable[Group], readers: tuple[SlabReader, SlabReader], progress: Progress) -> None:
        self._alike = {id(group): stored_alike(group) for group in groups}
        self._readers = readers
        self._progress = progress
        self._lock = threading.Lock()
        self.parts: dict[str, list[Part]] = {}

    def compare(self, group: Group, begin: int, end: int, scratch: Scratch) -> None:
        """Compares rows `begin … end - 1` of the group's tensors."""
        sides = self._sides(group, begin, end, scratch)
        if sides is None:
            parts = [Part(begin, end, same_bytes=True)] * len(group.moves)
        else:
            pairs = zip(group.moves, *sides, strict=True)
            parts = [compare_slab(move, a, b, begin, scratch) for move, a, b in pairs]
        with self._lock:
            for move, part in zip(group.moves, parts, strict=True):
                self.parts.setdefault(move.name, []).append(part)
        n_bytes = _bytes(group) * (end - begin) // group.rows
        self._progress.advance(n_bytes, _stored_name(group.moves[-1].target))

    def _sides(self, group: Group, begin: int, end: int, scratch: Scratch) -> list[list[Slab]] | None:
        """Both sides' slabs; None if the stored bytes already say that they are the same, and finite."""
        if self._alike[id(group)] and same_stored_bytes(group, begin, end, self._readers, scratch):
            return None
        buffers = scratch.nested("a"), scratch.nested("b")
        tensors = [[move.sides[number] for move in group.moves] for number in (0, 1)]
        a, b = self._readers
        if not (isinstance(a, FileReader) and isinstance(b, FileReader)):
            return [reader.load(tensors[n], begin, end, buffers[n]) for n, reader in enumerate(self._readers)]
        windows = [reader.read(tensors[n], begin, end, buffers[n]) for n, reader in enumerate((a, b))]
        if same_blocks(group, windows):
            return None
        return [slabs(tensors[n], window, buffers[n]) for n, window in enumerate(windows)]

    def unmeasured(self, groups: Iterable[Group]) -> list[Group]:
        """The tensors that differ, each alone, of which some slab is equal and was not measured."""
        return [
            Group((move,), group.rows, group.matrix_rows, group.slab_rows)
            for group in groups
            for move in group.moves
            if _differs(self.parts[move.name]) and not all(part.distances for part in self.parts[move.name])
        ]

    def measure(self, group: Group, begin: int, end: int, scratch: Scratch) -> None:
        """Measures rows that are equal on both sides, on the one side."""
        (move,) = group.moves
        parts = self.parts[move.name]
        number = next(number for number, part in enumerate(parts) if part.begin == begin)
        if not parts[number].distances:
            (slab,) = self._readers[0].load([move.source], begin, end, scratch.nested("a"))
            parts[number] = measure_alone(move, slab, parts[number], scratch)
        n_bytes = _bytes(group, 1) * (end - begin) // group.rows
        self._progress.advance(n_bytes, _stored_name(move.source))


def _differs(parts: Iterable[Part]) -> bool:
    return any(distance.changed for part in parts for distance in part.distances)


def _stored_name(stored: StoredTensor) -> str:
    return stored.spans[0].array.name if stored.spans else stored.tensor.name


def _folded(move: Move, parts: list[Part], rows_left_out: int) -> TensorDrift:
    """What the slabs of one tensor come to, whatever order they came in."""
    parts = sorted(parts, key=lambda part: part.begin)
    tensor, unit = move.source.tensor, unit_elements(move)
    distances = [distance for part in parts for distance in part.distances]
    differs = _differs(parts)
    alike = canonical(move.source.encoding) is canonical(move.target.encoding)
    same = all(part.same_bytes for part in parts)
    verdict = Verdict.DIFFERS if differs else Verdict.BYTES if alike and same else Verdict.VALUES
    largest = max(distances, key=lambda one: one.largest) if differs else None
    return TensorDrift(
        name=tensor.name,
        role=tensor.role,
        layer=int(tensor.name.split(".")[1]) if tensor.name.startswith("layers.") else None,
        verdict=verdict,
        encodings=(move.source.encoding.name, move.target.encoding.name),
        stored=(_stored_name(move.source), _stored_name(move.target)),
        elements=tensor.n_elements,
        unit="block" if unit > 1 else "element",
        units=tensor.n_elements // unit,
        changed=sum(one.changed for one in distances),
        sums=added(map(_sums, distances)) if differs else Sums(),
        max_error=largest.largest if largest else 0.0,
        worst=_spot(move, largest) if largest else None,
        packed=_packed([part.packed for part in parts if part.packed]),
        rows=_rows([part.rows for part in parts if part.rows]) if differs else None,
        rows_left_out=rows_left_out,
    )


def _sums(distance: Distance) -> Sums:
    return Sums(distance.elements, distance.energy_a, distance.energy_b, distance.product, distance.error)


def _packed(changes: list[PackedChanges]) -> PackedDrift | None:
    if not changes:
        return None
    shifts = sum((one.shifts for one in changes), np.zeros(SHIFTS, np.int64))
    return PackedDrift(
        changed=sum(one.blocks for one in changes),
        scale_only=sum(one.scale_only for one in changes),
        signed_zeros=sum(one.signed_zeros for one in changes),
        shifts={int(place) - 255: int(shifts[place]) for place in np.flatnonzero(shifts)},
    )


def _rows(rows: list[RowChanges]) -> RowChanges | None:
    if not rows:
        return None
    return RowChanges(
        sum(one.changed for one in rows), sum(one.zero_in_a for one in rows), sum(one.zero_in_b for one in rows)
    )


def _spot(move: Move, distance: Distance) -> Spot:
    """The place of the largest error in the tensor of B."""
    stored, tensor, (row, column) = move.target, move.target.tensor, distance.place
    is_vector = tensor.cols == 1
    matrix, inside = divmod(row, tensor.matrix_rows)
    array = stored.spans[0].interval(row, row + 1)[0] if stored.spans else None
    return Spot(
        stored=array.name if array else tensor.name,
        file=str(array.file) if array else "",
        expert=matrix if len(tensor.shape) - (not is_vector) > 1 else None,
        row=inside,
        column=None if is_vector else column,
        block=column // MXFP4.block_elements if unit_elements(move) > 1 else None,
        value_a=distance.values[0],
        value_b=distance.values[1],
    )
