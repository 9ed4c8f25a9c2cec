"""Where a canonical tensor lies in files: the one vocabulary for what is read and what is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..formats.codecs.encoding import Encoding
from ..formats.errors import VerificationError
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
    """Rows `first + i·step` of `array`, each `row_bytes` long: one part of a canonical tensor."""

    array: StoredArray
    first: int
    step: int
    row_bytes: int

    def interval(self, begin: int, end: int) -> tuple[int, int]:
        """File offsets of the first and past the last byte of canonical rows `begin … end - 1`."""
        first = self.array.offset + (self.first + begin * self.step) * self.row_bytes
        return first, first + ((end - 1 - begin) * self.step + 1) * self.row_bytes


@dataclass(frozen=True)
class StoredTensor:
    """A canonical tensor as it is stored: its encoding and one span per part of that encoding."""

    tensor: CanonicalTensor
    encoding: Encoding
    spans: tuple[RowSpan, ...]

    @property
    def n_bytes(self) -> int:
        """Stored bytes of this tensor alone (its share of arrays that hold several)."""
        return self.tensor.rows * self.encoding.row_bytes(self.tensor.cols)

    @property
    def is_contiguous(self) -> bool:
        """True if each part is one run of bytes."""
        return all(span.step == 1 for span in self.spans)


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
            claims.setdefault((span.array.file, span.array.name), []).append((span, stored.tensor.rows))
    n_bytes = 0
    for array in arrays:
        spans = claims.pop((array.file, array.name), [])
        _check_claims(array, spans)
        n_bytes += array.n_bytes
    if claims:
        file, name = next(iter(claims))
        raise VerificationError("a tensor is used that the file does not hold", file=file, tensor=name)
    return n_bytes


def _check_claims(array: StoredArray, claims: list[tuple[RowSpan, int]]) -> None:
    """Counts for every row of `array` how often it is claimed."""
    row_bytes = claims[0][0].row_bytes if claims else max(1, array.n_bytes)
    uses = np.zeros(array.n_bytes // row_bytes, np.uint8)
    for span, n_rows in claims:
        last = span.first + (n_rows - 1) * span.step
        if span.row_bytes != row_bytes or last >= len(uses):
            raise VerificationError("rows are used that the tensor does not have", file=array.file, tensor=array.name)
        uses[span.first : last + 1 : span.step] += 1
    wrong = np.flatnonzero(uses != 1)
    if len(wrong) or array.n_bytes % row_bytes:
        raise VerificationError(
            f"{len(wrong)} rows are not used exactly once",
            file=array.file,
            tensor=array.name,
            expected=f"each of {len(uses)} rows once",
            found=f"row {wrong[0]} used {uses[wrong[0]]} times" if len(wrong) else "bytes left over",
            remedy="This is a bug of gptoss-convert: please report it.",
        )
