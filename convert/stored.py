"""Where a canonical tensor lies in files: the one vocabulary for what is read and what is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..formats.codecs.encoding import Encoding
from ..formats.errors import REPORT, VerificationError
from ..model.inventory import CanonicalTensor


@dataclass(frozen=True)
class StoredArray:
    """One named array in a file: `n_bytes` bytes at `offset`; `dtype` is the container's word for its elements."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class RowSpan:
    """One part of a canonical tensor: rows, each `row_bytes` long, of one array, or of one array per matrix.

    Row i of matrix m is row `m · pitch + first + i · step` of the array, or row `first + i · step` of array m. If
    `transposed`, the rows are the columns of stored matrices [inputs, `pitch`]. The last `padding` rows are not
    stored: they are zero.
    """

    arrays: tuple[StoredArray, ...]
    first: int
    step: int
    row_bytes: int
    matrix_rows: int
    pitch: int
    transposed: bool = False
    padding: int = 0

    @property
    def array(self) -> StoredArray:
        """The array, or the first of several."""
        return self.arrays[0]

    @property
    def is_even(self) -> bool:
        """True if all rows are equally far apart, so that a slab may go from one matrix into the next."""
        return len(self.arrays) == 1 and not self.transposed and self.pitch == self.matrix_rows * self.step

    def interval(self, begin: int, end: int) -> tuple[StoredArray, int, int]:
        """The array that canonical rows `begin … end - 1` lie in, and the file offsets where they begin and end.

        Rows that are not evenly apart must be of one matrix, transposed ones be one matrix.
        """
        matrix, row = divmod(begin, self.matrix_rows)
        last = end - 1 - matrix * self.matrix_rows
        array = self.arrays[matrix] if len(self.arrays) > 1 else self.array
        start = array.offset + (0 if len(self.arrays) > 1 else matrix * self.pitch * self.row_bytes)
        if self.transposed:
            return array, start, start + self.pitch * self.row_bytes
        if self.padding:
            last = min(last, array.n_bytes // self.row_bytes - 1)
        first = start + (self.first + row * self.step) * self.row_bytes
        return array, first, max(first, start + (self.first + last * self.step + 1) * self.row_bytes)


@dataclass(frozen=True)
class StoredTensor:
    """A canonical tensor as it is stored: its encoding and one span per part of that encoding."""

    tensor: CanonicalTensor
    encoding: Encoding
    spans: tuple[RowSpan, ...]

    @property
    def n_bytes(self) -> int:
        """Stored bytes of this tensor alone (its share of arrays that hold several)."""
        padding = self.spans[0].padding if self.spans else 0
        return (self.tensor.rows - padding) * self.encoding.row_bytes(self.tensor.cols)

    @property
    def is_transposed(self) -> bool:
        """True if its rows are columns of what is stored."""
        return any(span.transposed for span in self.spans)


def account(arrays: Iterable[StoredArray], tensors: Iterable[StoredTensor]) -> int:
    """Proves that every byte of `arrays` belongs to exactly one row of exactly one tensor.

    Returns:
        The number of bytes accounted for.

    Raises:
        VerificationError: a row is claimed twice or by nobody, or an array is none of ours.
    """
    claims: dict[tuple[Path, str], list[tuple[RowSpan, int]]] = {}
    for stored in tensors:
        for span in stored.spans:
            for array in span.arrays:
                claims.setdefault((array.file, array.name), []).append((span, stored.tensor.rows // len(span.arrays)))
    n_bytes = 0
    for array in arrays:
        _check_claims(array, claims.pop((array.file, array.name), []))
        n_bytes += array.n_bytes
    if claims:
        file, name = next(iter(claims))
        raise VerificationError("a tensor is used that the file does not hold", file=file, tensor=name, remedy=REPORT)
    return n_bytes


def _check_claims(array: StoredArray, claims: list[tuple[RowSpan, int]]) -> None:
    """Counts for every row (or column) of `array` how often it is claimed."""
    row_bytes = claims[0][0].row_bytes if claims else max(1, array.n_bytes)
    uses = np.zeros(array.n_bytes // row_bytes, np.uint8)
    for span, n_rows in claims:
        n_matrices, stored_rows = max(1, n_rows // span.matrix_rows), min(n_rows, span.matrix_rows) - span.padding
        last = span.first + (stored_rows - 1) * span.step
        fits = last < span.pitch and n_matrices * span.pitch - span.padding <= len(uses)
        if span.row_bytes != row_bytes or not fits:
            raise VerificationError(
                "rows are used that the tensor does not have", file=array.file, tensor=array.name, remedy=REPORT
            )
        for matrix in range(n_matrices):
            start = matrix * span.pitch
            uses[start + span.first : start + last + 1 : span.step] += 1
    wrong = np.flatnonzero(uses != 1)
    if len(wrong) or array.n_bytes % row_bytes:
        raise VerificationError(
            f"{len(wrong)} rows are not used exactly once",
            file=array.file,
            tensor=array.name,
            expected=f"each of {len(uses)} rows once",
            found=f"row {wrong[0]} used {uses[wrong[0]]} times" if len(wrong) else "bytes left over",
            remedy=REPORT,
        )
