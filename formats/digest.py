"""A digest of a tensor's canonical rows that does not depend on how or in which order they were read.

The rows are cut into **leaves** of a fixed number of rows; a leaf's digest is the xxh3-128 of its bytes (for MXFP4:
its blocks, then its scales), and the tensor's digest is the xxh3-128 of a header line and all leaf digests in order::

    rows      0 … L-1 | L … 2L-1 | …            L = leaf_rows(row_bytes), about 1 MiB
    leaves    d0      | d1       | …            16 bytes each
    digest    xxh3_128( "xxh3-128/leaves encoding shape L\\n" ‖ d0 ‖ d1 ‖ … )

Any slab that begins and ends on leaf boundaries can be digested on its own, by any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xxhash
from numpy.typing import NDArray

LEAF_BYTES = 1 << 20


def leaf_rows(row_bytes: int) -> int:
    """Rows per leaf for canonical rows of `row_bytes` bytes: at least one, else as many as fit in 1 MiB."""
    return max(1, LEAF_BYTES // row_bytes)


class TensorDigest:
    """Collects the leaves of one tensor; `hexdigest()` is defined once each leaf was seen exactly once."""

    def __init__(self, encoding: str, shape: tuple[int, ...], n_rows: int, leaf_rows: int) -> None:
        self.leaf_rows = leaf_rows
        self.n_rows = n_rows
        self._header = f"xxh3-128/leaves {encoding} {shape} {self.leaf_rows}\n".encode()
        self._leaves: list[bytes | None] = [None] * -(-n_rows // self.leaf_rows)

    def update(self, first_row: int, parts: Sequence[NDArray[Any]]) -> None:
        """Digests rows `first_row …`: each part is a C-contiguous array [rows, …] of the same rows.

        `first_row` is a multiple of `leaf_rows`, and the rows end at one too or at the tensor's end.
        """
        n_rows = parts[0].shape[0]
        assert first_row % self.leaf_rows == 0
        assert (first_row + n_rows) % self.leaf_rows == 0 or first_row + n_rows == self.n_rows
        assert all(part.flags.c_contiguous for part in parts)
        flat = [part.reshape(n_rows, -1) for part in parts]
        for begin in range(0, n_rows, self.leaf_rows):
            leaf = xxhash.xxh3_128()
            for part in flat:
                leaf.update(part[begin : begin + self.leaf_rows].data)
            index = (first_row + begin) // self.leaf_rows
            assert self._leaves[index] is None, "a leaf was digested twice"
            self._leaves[index] = leaf.digest()

    def hexdigest(self) -> str:
        """32 hex digits. Every row must have been digested."""
        leaves = [leaf for leaf in self._leaves if leaf is not None]
        assert len(leaves) == len(self._leaves), "a leaf was never digested"
        return xxhash.xxh3_128(self._header + b"".join(leaves)).hexdigest()
