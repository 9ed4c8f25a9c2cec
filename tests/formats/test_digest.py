"""The digest of a tensor: the same however it is cut and in whatever order it is read, another for any other bytes."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gptoss_convert.formats.digest import LEAF_BYTES, Leaves, TensorDigest, leaf_rows

ROWS, LEAF = 103, 4
SHAPE = (ROWS, 64)
BLOCKS = np.random.default_rng(1).integers(0, 256, (ROWS, 2, 16), np.uint8)
SCALES = np.random.default_rng(2).integers(0, 255, (ROWS, 2), np.uint8)


def digest(
    blocks: NDArray[np.uint8] = BLOCKS,
    scales: NDArray[np.uint8] = SCALES,
    cuts: tuple[int, ...] = (),
    *,
    seed: int | None = None,
    encoding: str = "MXFP4",
    shape: tuple[int, ...] = SHAPE,
    leaf: int = LEAF,
) -> str:
    """The digest when the rows are cut into slabs at `cuts` and these are shuffled by `seed`."""
    collected = TensorDigest(encoding, shape, Leaves(ROWS, ROWS, leaf))
    edges = sorted({0, ROWS, *cuts})
    slabs = list(pairwise(edges))
    if seed is not None:
        random.Random(seed).shuffle(slabs)
    for begin, end in slabs:
        collected.update(begin, [blocks[begin:end], scales[begin:end]])
    return collected.hexdigest()


WHOLE = digest()


def test_digest_is_that_of_its_definition() -> None:
    leaves = [
        xxhash.xxh3_128_digest(BLOCKS[row : row + LEAF].tobytes() + SCALES[row : row + LEAF].tobytes())
        for row in range(0, ROWS, LEAF)
    ]
    assert xxhash.xxh3_128_hexdigest(b"xxh3-128/leaves MXFP4 (103, 64) 103 4\n" + b"".join(leaves)) == WHOLE


@given(st.sets(st.integers(0, ROWS // LEAF).map(lambda leaf: leaf * LEAF)), st.integers())
def test_digest_does_not_depend_on_slabs_or_their_order(cuts: set[int], seed: int) -> None:
    assert digest(cuts=tuple(cuts), seed=seed) == WHOLE


@given(st.integers(0, BLOCKS.size - 1), st.integers(1, 255))
def test_digest_differs_if_any_byte_of_a_block_differs(place: int, change: int) -> None:
    blocks = BLOCKS.copy()
    blocks.reshape(-1)[place] ^= change
    assert digest(blocks) != WHOLE


@given(st.integers(0, SCALES.size - 1), st.integers(1, 255))
def test_digest_differs_if_any_scale_differs(place: int, change: int) -> None:
    scales = SCALES.copy()
    scales.reshape(-1)[place] ^= change
    assert digest(scales=scales) != WHOLE


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, LEAF), (3, ROWS - 1), (ROWS - 2, ROWS - 1)])
def test_digest_differs_if_rows_are_swapped(first: int, second: int) -> None:
    order = np.arange(ROWS)
    order[[first, second]] = second, first
    assert digest(BLOCKS[order], SCALES[order]) != WHOLE


@pytest.mark.parametrize(
    "other", [{"encoding": "BF16"}, {"shape": (ROWS * 2, 32)}, {"shape": (1, ROWS, 64)}, {"leaf": 8}], ids=str
)
def test_digest_differs_if_encoding_shape_or_leaves_differ(other: dict[str, object]) -> None:
    assert digest(**other) != WHOLE  # type: ignore[arg-type]


def test_zeros_have_another_digest_for_every_shape() -> None:
    digests = set()
    for rows in range(1, 40):
        collected = TensorDigest("BF16", (rows, 8), Leaves(rows, rows, LEAF))
        collected.update(0, [np.zeros((rows, 8), np.uint16)])
        digests.add(collected.hexdigest())
    assert len(digests) == 39


@pytest.mark.parametrize("row_bytes", [1, 2, 17, 1530, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 10 * LEAF_BYTES])
def test_leaf_is_the_most_rows_that_fit_in_a_mebibyte_but_one_at_least(row_bytes: int) -> None:
    rows = leaf_rows(row_bytes)
    assert rows >= 1
    assert rows == 1 or rows * row_bytes <= LEAF_BYTES
    assert (rows + 1) * row_bytes > LEAF_BYTES


def test_leaves_never_cross_a_matrix() -> None:
    leaves = Leaves(n_rows=20, matrix_rows=10, leaf_rows=4)
    expected = [(0, 0, 4), (1, 4, 8), (2, 8, 10), (3, 10, 14), (4, 14, 18), (5, 18, 20)]
    assert list(leaves.between(0, 20)) == expected
    assert list(leaves.between(4, 14)) == expected[1:4]
    assert len(leaves) == 6


def test_digest_of_a_stack_does_not_depend_on_slabs() -> None:
    values = np.random.default_rng(3).integers(0, 1 << 16, (20, 8), np.uint16)
    leaves = Leaves(n_rows=20, matrix_rows=10, leaf_rows=4)
    digests = set()
    for cuts in [(0, 20), (0, 10, 20), (0, 4, 8, 10, 14, 18, 20), (0, 8, 14, 20)]:
        collected = TensorDigest("BF16", (2, 10, 8), leaves)
        for begin, end in reversed(list(pairwise(cuts))):
            collected.update(begin, [values[begin:end]])
        digests.add(collected.hexdigest())
    assert len(digests) == 1
