"""The transpose of dense experts moves every element to its place, by numba and by numpy: byte-identical.

Elements differ, so that one in the wrong place is seen. Gaps between rows are compared too: nothing else is written.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import numba_transpose, numpy_transpose, transpose
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.transpose import to_columns, to_rows
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]
Shape = tuple[int, int, int]

every_dtype = pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
# S, N, K around whole tiles of 8, and past the 640 rows of a strip, in both directions
SHAPES = [
    *product((1, 2, 3), (1, 7, 8, 9, 24), (1, 7, 8, 9, 40)),
    *((1, 13, 1293), (2, 1293, 5), (2, 16, 1280), (1, 1288, 24), (2, 321, 643)),
]


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def distinct(shape: tuple[int, ...], dtype: Any) -> Array:
    """Elements that differ from each other in uint32, and from all near them in uint16."""
    return (np.arange(1, np.prod(shape) + 1, dtype=np.uint32) * np.uint32(2_654_435_761)).astype(dtype).reshape(shape)


def stored_of(rows: Array) -> Array:
    """[K, N * S], an element at a time as the docstring says it."""
    n_matrices, n, k = rows.shape
    flat = [rows[i % n_matrices, i // n_matrices, row] for row in range(k) for i in range(n * n_matrices)]
    return np.array(flat, rows.dtype).reshape(k, n * n_matrices)


def test_kernels_are_those_asked_for(request: pytest.FixtureRequest) -> None:
    asked = numba_transpose if "numba" in request.node.name else numpy_transpose
    assert transpose._kernels() is asked


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_stored_columns_are_byte_identical_to_the_definition(shape: Shape, dtype: Any) -> None:
    rows = distinct(shape, dtype)
    out = np.zeros(shape, dtype)
    to_rows(stored_of(rows), out)
    assert out.tobytes() == rows.tobytes()


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stored_columns_of_rows_are_byte_identical_to_the_definition(shape: Shape, dtype: Any) -> None:
    rows = distinct(shape, dtype)
    stored = stored_of(rows)
    out = np.zeros_like(stored)
    to_columns(rows, out)
    assert out.tobytes() == stored.tobytes()


@every_dtype
def test_all_small_shapes_come_back_byte_identical(dtype: Any) -> None:
    for shape in product((1, 2), range(19), range(19)):
        rows = distinct(shape, dtype)
        stored, back = np.zeros((shape[2], shape[0] * shape[1]), dtype), np.zeros(shape, dtype)
        to_columns(rows, stored)
        assert np.array_equal(stored, rows.transpose(2, 1, 0).reshape(stored.shape))
        to_rows(stored, back)
        assert np.array_equal(back, rows)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.sampled_from([1, 2, 5]), st.integers(0, 50), st.integers(0, 50)),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    gaps=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    shift=st.integers(0, 3),
)
def test_twins_are_byte_identical_where_rows_and_matrices_lie_apart(
    shape: Shape, dtype: Any, gaps: tuple[int, int], shift: int
) -> None:
    n_matrices, n, k = shape
    results = []
    for module in (numba_transpose, numpy_transpose):
        rows_bytes = distinct((4 * n_matrices * (n + 9) * k + 64,), np.uint8)
        columns_bytes = distinct((4 * k * (n * n_matrices + 9) + 64,), np.uint8)
        rows = view(rows_bytes, shift, (n_matrices, n + gaps[0], k), dtype)[:, :n]
        columns = view(columns_bytes, shift, (k, n * n_matrices + gaps[1]), dtype)[:, : n * n_matrices]
        module.to_columns(rows, columns)
        there = columns_bytes.tobytes()
        assert np.array_equal(columns, rows.transpose(2, 1, 0).reshape(columns.shape))
        rows[...] = 0
        module.to_rows(columns, rows)
        results.append((there, rows_bytes.tobytes()))
    assert results[0] == results[1]


def view(data: Array, shift: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of `shape` that begins `shift` bytes into `data`: at any address."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return data[shift : shift + n_bytes].view(dtype).reshape(shape)


@pytest.mark.parametrize("n_matrices", [1, 2])
def test_some_columns_of_an_expert_can_be_taken_alone(n_matrices: int) -> None:
    rows = distinct((n_matrices, 50, 33), np.uint16)
    stored = stored_of(rows)
    part = np.zeros((n_matrices, 21, 33), np.uint16)
    to_rows(stored[:, 9 * n_matrices : 30 * n_matrices], part)
    assert np.array_equal(part, rows[:, 9:30])
    to_columns(part + np.uint16(1), stored[:, 9 * n_matrices : 30 * n_matrices])
    rows[:, 9:30] += 1
    assert np.array_equal(stored, stored_of(rows))


U2, U4 = np.uint16, np.uint32
STORED, ROWS = np.zeros((6, 8), U2), np.zeros((2, 4, 6), U2)
REFUSED = {
    "columns of another number": (np.zeros((6, 7), U2), ROWS, r"expected uint16 \[6, 8\].*found uint16 \[6, 7\]"),
    "rows of another number": (np.zeros((5, 8), U2), ROWS, r"expected uint16 \[6, 8\].*found uint16 \[5, 8\]"),
    "the rows' shape": (np.zeros((8, 6), U2), ROWS, r"expected uint16 \[6, 8\].*found uint16 \[8, 6\]"),
    "three axes of columns": (np.zeros((6, 4, 2), U2), ROWS, r"expected uint16 \[6, 8\].*found uint16 \[6, 4, 2\]"),
    "two axes of rows": (STORED, np.zeros((8, 6), U2), r"expected uint16 or uint32 \[S, N, K\].*found uint16 \[8, 6\]"),
    "no matrix": (STORED, np.zeros((0, 4, 6), U2), r"with S of at least 1; found uint16 \[0, 4, 6\]"),
    "two dtypes": (np.zeros((6, 8), U4), ROWS, r"expected uint16 \[6, 8\].*found uint32 \[6, 8\]"),
    "floats": (STORED.astype("f4"), ROWS.astype("f4"), r"expected uint16 or uint32 .*found float32 \[2, 4, 6\]"),
    "signed": (STORED.view("i2"), ROWS.view("i2"), r"expected uint16 or uint32 .*found int16 \[2, 4, 6\]"),
    "columns that lie apart": (np.zeros((6, 16), U2)[:, ::2], ROWS, r"contiguous within a row.*strides of \[32, 4\]"),
    "rows transposed": (STORED, np.zeros((2, 6, 4), U2).transpose(0, 2, 1), "contiguous within a row.*strides of"),
}
every_refusal = pytest.mark.parametrize(("columns", "rows", "message"), REFUSED.values(), ids=REFUSED)


@every_refusal
def test_to_rows_refuses(columns: Array, rows: Array, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        to_rows(columns, rows)


@every_refusal
def test_to_columns_refuses(columns: Array, rows: Array, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        to_columns(rows, columns)


@pytest.mark.parametrize("order", [">u2", ">u4"])
def test_another_byte_order_is_refused(order: str) -> None:
    with pytest.raises(CodecError, match="uint16 or uint32"):
        to_rows(STORED.astype(order), ROWS.astype(order))
