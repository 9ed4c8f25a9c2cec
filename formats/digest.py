"""A digest of a tensor's canonical rows that does not depend on how or in which order they were read.

A tensor is a stack of matrices (the experts), or one. Each matrix is cut into **leaves** of a fixed number of rows, the
last of which may be shorter. A leaf's digest is the xxh3-128 of its bytes (for MXFP4: its blocks, then its scales), and
the tensor's digest is the xxh3-128 of a header line and all leaf digests in order::

    matrix    |          0           |          1        …
    rows      | 0 … L-1 | L … M-1    | 0 … L-1 |         …    L = leaf_rows(bytes per row), about 1 MiB
    leaves    | d0      | d1         | d2      | d3      …    16 bytes each
    digest    xxh3_128( "xxh3-128/leaves encoding shape M L\\n" ‖ d0 ‖ d1 ‖ … )

Any slab that begins and ends where leaves do can be digested on its own, by any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash
from numpy.typing import NDArray

LEAF_BYTES = 1 << 20


def leaf_rows(row_bytes: int) -> int:
    """Rows per leaf for canonical rows of `row_bytes` bytes: at least one, else as many as fit in 1 MiB."""
    return max(1, LEAF_BYTES // row_bytes)


@dataclass(frozen=True)
class Leaves:
    """How `n_rows` rows are cut: into matrices of `matrix_rows`, and these into leaves of `leaf_rows`."""

    n_rows: int
    matrix_rows: int
    leaf_rows: int

    def __len__(self) -> int:
        """Leaves of all matrices."""
        return self.n_rows // self.matrix_rows * self._per_matrix

    @property
    def _per_matrix(self) -> int:
        return -(-self.matrix_rows // self.leaf_rows)

    def between(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The leaves that make rows `begin … end - 1`: (number, first row, past the last row) of each."""
        row = begin
        while row < end:
            matrix, inside = divmod(row, self.matrix_rows)
            assert inside % self.leaf_rows == 0, "a slab must begin with a leaf"
            last = matrix * self.matrix_rows + min(inside + self.leaf_rows, self.matrix_rows)
            assert last <= end, "a slab must end with a leaf"
            yield matrix * self._per_matrix + inside // self.leaf_rows, row, last
            row = last


class TensorDigest:
    """Collects the leaves of one tensor; `hexdigest()` is defined once each leaf was seen exactly once."""

    def __init__(self, encoding: str, shape: tuple[int, ...], leaves: Leaves) -> None:
        self._leaves = leaves
        self._header = f"xxh3-128/leaves {encoding} {shape} {leaves.matrix_rows} {leaves.leaf_rows}\n".encode()
        self._digests: list[bytes | None] = [None] * len(leaves)

    def update(self, first_row: int, parts: Sequence[NDArray[Any]]) -> None:
        """Digests rows `first_row …`: each part is a C-contiguous array [rows, …] of the same whole leaves."""
        n_rows = parts[0].shape[0]
        assert all(part.flags.c_contiguous for part in parts)
        flat = [part.reshape(n_rows, -1) for part in parts]
        for number, begin, end in self._leaves.between(first_row, first_row + n_rows):
            assert self._digests[number] is None, "a leaf was digested twice"
            leaf = xxhash.xxh3_128()
            for part in flat:
                leaf.update(part[begin - first_row : end - first_row].data)
            self._digests[number] = leaf.digest()

    def hexdigest(self) -> str:
        """32 hex digits. Every row must have been digested."""
        digests = [digest for digest in self._digests if digest is not None]
        assert len(digests) == len(self._digests), "a leaf was never digested"
        return xxhash.xxh3_128(self._header + b"".join(digests)).hexdigest()
