"""The plan of a conversion: every file, every tensor, every offset, before the first byte. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..formats.codecs.encoding import MXFP4, Encoding, canonical
from ..formats.codecs.mxfp4_scales import ScaleRule
from ..formats.digest import Leaves, leaf_rows
from ..formats.files import holds_holes
from ..model.inventory import CanonicalTensor
from .checkpoint import Checkpoint
from .like import require_like
from .stored import StoredTensor

# A slab's larger side. Big enough to amortise a system call, small enough to stay in the processor's cache.
SLAB_BYTES = 2 << 20


@dataclass(frozen=True)
class OutputFile:
    """A file to write: `header` at offset 0, tensors behind it, `n_bytes` in all; what is not written is zero."""

    path: Path
    header: bytes
    n_bytes: int


@dataclass(frozen=True)
class Move:
    """One tensor's way from where it is stored to where it will be; `like` is where a base has it, if there is one."""

    source: StoredTensor
    target: StoredTensor
    like: StoredTensor | None = None

    @property
    def sides(self) -> tuple[StoredTensor, ...]:
        """Source, target and base."""
        return (self.source, self.target) + ((self.like,) if self.like else ())

    @property
    def name(self) -> str:
        """The canonical name."""
        return self.source.tensor.name

    @property
    def quantizes(self) -> bool:
        """True if floats become MXFP4."""
        return canonical(self.target.encoding) is MXFP4 is not canonical(self.source.encoding)

    @property
    def dequantizes(self) -> bool:
        """True if MXFP4 becomes floats."""
        return canonical(self.source.encoding) is MXFP4 is not canonical(self.target.encoding)


@dataclass(frozen=True)
class Group:
    """Tensors that are moved together because their rows alternate in the source or in the target (gate and up).

    A slab is `slab_rows` rows of one matrix (the last may be fewer), or several whole matrices.
    """

    moves: tuple[Move, ...]
    rows: int
    matrix_rows: int
    slab_rows: int

    @property
    def slab_bytes(self) -> int:
        """Bytes of one slab, in source and target together."""
        cols = self.moves[0].source.tensor.cols
        sides = (side.encoding.row_bytes(cols) for move in self.moves for side in (move.source, move.target))
        return self.slab_rows * sum(sides)

    def slabs(self) -> Iterator[tuple[int, int]]:
        """The row ranges (begin, end) that the group is moved in; they begin and end where leaves do."""
        span = max(1, self.slab_rows // self.matrix_rows) * self.matrix_rows
        for first in range(0, self.rows, span):
            last = min(self.rows, first + span)
            for begin in range(first, last, self.slab_rows):
                yield begin, min(last, begin + self.slab_rows)


@dataclass(frozen=True)
class Closing:
    """A small file of `n_bytes` that is known only when all tensors were read: `text` of their digests by name."""

    path: Path
    n_bytes: int
    text: Callable[[Mapping[str, str]], bytes]


@dataclass(frozen=True)
class Quantizing:
    """How floats become MXFP4: the scale rule, and a checkpoint whose packed blocks are kept where values agree."""

    rule: ScaleRule = ScaleRule.EXACT
    like: Checkpoint | None = None


@dataclass(frozen=True)
class Layout:
    """What a target makes of a checkpoint.

    `texts` are small files written as they are, `closing` is one that is made of digests. `notes` are things a user
    should know. `atomic_directory` is set when all files lie in one new directory that appears as a whole. `reopen`
    opens the written files, given their paths. `kept` are the source's tensors without the rows that have no place in
    the layout, where there are such.
    """

    name: str
    files: tuple[OutputFile, ...]
    tensors: dict[str, StoredTensor]
    reopen: Callable[[Sequence[Path]], Checkpoint]
    texts: tuple[tuple[Path, bytes], ...] = ()
    notes: tuple[str, ...] = ()
    atomic_directory: Path | None = None
    closing: Closing | None = None
    kept: dict[str, StoredTensor] | None = None


class Target(Protocol):
    """A layout to write, with its options."""

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        """Where everything will lie. Raises GptOssConvertError if the checkpoint cannot be stored so."""


@dataclass(frozen=True)
class Plan:
    """A conversion, ready to run. `source_bytes` were accounted for: each belongs to exactly one tensor."""

    source: Checkpoint
    layout: Layout
    groups: tuple[Group, ...]
    source_bytes: int
    quantizing: Quantizing = field(default_factory=Quantizing)

    @property
    def n_bytes(self) -> int:
        """Bytes that will be written."""
        return sum(n_bytes for _, n_bytes in self.sizes)

    @property
    def is_sparse(self) -> bool:
        """True if the source is zeros that take no room, so that the output can be the same."""
        source = self.source
        return source.is_blank or (bool(source.files) and all(map(holds_holes, source.files)))

    @property
    def n_parameters(self) -> int:
        """Elements of all tensors that are moved."""
        return sum(move.source.tensor.n_elements for move in self.moves)

    @property
    def moves(self) -> Iterator[Move]:
        """Every tensor's move."""
        for group in self.groups:
            yield from group.moves

    @property
    def sizes(self) -> list[tuple[Path, int]]:
        """Every file that will be written, and its bytes."""
        layout = self.layout
        sizes = [(file.path, file.n_bytes) for file in layout.files]
        sizes += [(path, len(text)) for path, text in layout.texts]
        return sizes + ([(layout.closing.path, layout.closing.n_bytes)] if layout.closing else [])

    @property
    def paths(self) -> list[Path]:
        """Every file that will be written."""
        return [path for path, _ in self.sizes]


def plan(checkpoint: Checkpoint, target: Target, quantizing: Quantizing | None = None) -> Plan:
    """How `checkpoint` becomes `target`. Writes nothing.

    Raises:
        GptOssConvertError: the checkpoint cannot be stored so, or not every stored byte belongs to one tensor.
    """
    source_bytes = checkpoint.account()
    layout = target.lay_out(checkpoint)
    assert layout.tensors.keys() == checkpoint.tensors.keys()
    quantizing = quantizing or Quantizing()
    if quantizing.like is not None:
        require_like(checkpoint, quantizing.like)
    source, base = layout.kept or checkpoint.tensors, quantizing.like.tensors if quantizing.like else {}
    moves = {name: Move(source[name], target, base.get(name)) for name, target in layout.tensors.items()}
    return Plan(checkpoint, layout, tuple(_groups(moves)), source_bytes, quantizing)


def leaves(stored: StoredTensor) -> Leaves:
    """How the tensor's canonical rows are cut into leaves."""
    return leaves_as(stored.tensor, canonical(stored.encoding))


def leaves_as(tensor: CanonicalTensor, encoding: Encoding) -> Leaves:
    """How the tensor's rows are cut into leaves where they are in the canonical `encoding`."""
    return Leaves(tensor.rows, tensor.matrix_rows, leaf_rows(encoding.row_bytes(tensor.cols)))


def _groups(moves: Mapping[str, Move]) -> Iterator[Group]:
    """The moves in their order; those that share an array with alternating rows become one group."""
    members: dict[str, list[Move]] = {}
    leader_of_array: dict[tuple[Path, str], str] = {}
    for name, move in moves.items():
        arrays = [
            (span.array.file, span.array.name)
            for stored in (move.source, move.target)
            for span in stored.spans
            if span.step > 1
        ]
        leader = next((leader_of_array[array] for array in arrays if array in leader_of_array), name)
        for array in arrays:
            leader_of_array[array] = leader
        members.setdefault(leader, []).append(move)
    return map(_group, members.values())


def _group(moves: list[Move]) -> Group:
    first = moves[0].source
    cols, matrix_rows = first.tensor.cols, first.tensor.matrix_rows
    assert all((move.source.tensor.rows, move.source.tensor.cols) == (first.tensor.rows, cols) for move in moves)
    if any(_needs_whole_matrices(move) for move in moves):
        return Group(tuple(moves), first.tensor.rows, matrix_rows, matrix_rows)
    leaf = max(leaves(move.source).leaf_rows for move in moves)
    row_bytes = max(
        sum(move.source.encoding.row_bytes(cols) for move in moves),
        sum(move.target.encoding.row_bytes(cols) for move in moves),
    )
    unit = leaf if leaf < matrix_rows else matrix_rows
    slab_rows = max(1, SLAB_BYTES // row_bytes // unit) * unit
    if slab_rows > matrix_rows:
        is_even = all(span.is_even for move in moves for stored in move.sides for span in stored.spans)
        slab_rows = slab_rows // matrix_rows * matrix_rows if is_even else matrix_rows
    return Group(tuple(moves), first.tensor.rows, matrix_rows, slab_rows)


def _needs_whole_matrices(move: Move) -> bool:
    """True if some rows of a matrix cannot be moved alone.

    Transposed rows and whole encodings are turned all at once. Floats that become MXFP4 have leaves of their own for
    each of the two; only whole matrices are whole leaves of both.
    """
    return move.quantizes or any(stored.is_transposed or stored.encoding.whole for stored in move.sides)
