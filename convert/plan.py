"""The plan of a conversion: every file, every tensor, every offset, before the first byte. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..formats.codecs.encoding import F32, GGML_MXFP4, MXFP4, QUANTIZED, Encoding
from ..formats.digest import Leaves, leaf_rows
from .checkpoint import Checkpoint
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
    """One tensor's way from where it is stored to where it will be."""

    source: StoredTensor
    target: StoredTensor


@dataclass(frozen=True)
class Group:
    """Tensors that are moved together because their rows alternate in the source or in the target (gate and up).

    A slab is `slab_rows` rows of one matrix (the last may be fewer), or several whole matrices.
    """

    moves: tuple[Move, ...]
    rows: int
    matrix_rows: int
    slab_rows: int

    def slabs(self) -> Iterator[tuple[int, int]]:
        """The row ranges (begin, end) that the group is moved in; they begin and end where leaves do."""
        span = max(1, self.slab_rows // self.matrix_rows) * self.matrix_rows
        for first in range(0, self.rows, span):
            last = min(self.rows, first + span)
            for begin in range(first, last, self.slab_rows):
                yield begin, min(last, begin + self.slab_rows)


@dataclass(frozen=True)
class Layout:
    """What a target makes of a checkpoint.

    `texts` are small files written as they are. `notes` are things a user should know. `atomic_directory` is set when
    all files lie in one new directory that appears as a whole. `reopen` opens the written files, given their paths.
    """

    name: str
    files: tuple[OutputFile, ...]
    tensors: dict[str, StoredTensor]
    reopen: Callable[[Sequence[Path]], Checkpoint]
    texts: tuple[tuple[Path, bytes], ...] = ()
    notes: tuple[str, ...] = ()
    atomic_directory: Path | None = None


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

    @property
    def n_bytes(self) -> int:
        """Bytes that will be written."""
        return sum(file.n_bytes for file in self.layout.files) + sum(len(text) for _, text in self.layout.texts)

    @property
    def moves(self) -> Iterator[Move]:
        """Every tensor's move."""
        for group in self.groups:
            yield from group.moves

    @property
    def paths(self) -> list[Path]:
        """Every file that will be written."""
        return [file.path for file in self.layout.files] + [path for path, _ in self.layout.texts]


def plan(checkpoint: Checkpoint, target: Target) -> Plan:
    """How `checkpoint` becomes `target`. Writes nothing.

    Raises:
        GptOssConvertError: the checkpoint cannot be stored so, or not every stored byte belongs to one tensor.
    """
    source_bytes = checkpoint.account()
    layout = target.lay_out(checkpoint)
    assert layout.tensors.keys() == checkpoint.tensors.keys()
    groups = tuple(_groups(checkpoint.tensors, layout.tensors))
    return Plan(checkpoint, layout, groups, source_bytes)


def canonical(encoding: Encoding) -> Encoding:
    """The canonical encoding that `encoding` is unpacked to."""
    if encoding is GGML_MXFP4:
        return MXFP4
    return F32 if encoding.name in QUANTIZED else encoding


def leaves(stored: StoredTensor) -> Leaves:
    """How the tensor's canonical rows are cut into leaves."""
    tensor = stored.tensor
    row_bytes = canonical(stored.encoding).row_bytes(tensor.cols)
    return Leaves(tensor.rows, tensor.matrix_rows, leaf_rows(row_bytes))


def _groups(source: dict[str, StoredTensor], target: dict[str, StoredTensor]) -> Iterator[Group]:
    """Moves in the target's order; those that share an array with alternating rows become one group."""
    members: dict[str, list[str]] = {}
    leader_of_array: dict[tuple[Path, str], str] = {}
    for name in target:
        arrays = [
            (span.array.file, span.array.name)
            for stored in (source[name], target[name])
            for span in stored.spans
            if span.step > 1
        ]
        leader = next((leader_of_array[array] for array in arrays if array in leader_of_array), name)
        for array in arrays:
            leader_of_array[array] = leader
        members.setdefault(leader, []).append(name)
    for names in members.values():
        yield _group([Move(source[name], target[name]) for name in names])


def _group(moves: list[Move]) -> Group:
    first = moves[0].source
    cols = first.tensor.cols
    assert all((move.source.tensor.rows, move.source.tensor.cols) == (first.tensor.rows, cols) for move in moves)
    leaf = max(leaves(move.source).leaf_rows for move in moves)
    row_bytes = max(
        sum(move.source.encoding.row_bytes(cols) for move in moves),
        sum(move.target.encoding.row_bytes(cols) for move in moves),
    )
    matrix_rows = first.tensor.matrix_rows
    unit = leaf if leaf < matrix_rows else matrix_rows
    slab_rows = max(1, SLAB_BYTES // row_bytes // unit) * unit
    if slab_rows > matrix_rows:
        slab_rows = slab_rows // matrix_rows * matrix_rows
    return Group(tuple(moves), first.tensor.rows, matrix_rows, slab_rows)
