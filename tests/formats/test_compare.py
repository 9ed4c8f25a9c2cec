"""Comparison counts and sums what it says: against plain float64 arithmetic, on numba and on its numpy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxfp4_reference import packed
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import numba_compare, numpy_compare
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.compare import changed_blocks, measure, same_bytes, same_packed
from gptoss_convert.formats.codecs.encoding import GGML_MXFP4, MXFP4, OLLAMA_MXFP4
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]

checked = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def spread(array: Array, step: int) -> Array:
    """The array's values in every `step`-th row of a larger one."""
    out = np.full((step * len(array), *array.shape[1:]), 0xEE, array.dtype)[::step]
    out[:] = array
    return out


def blocks_of(codes: Array, scales: Array, step: int = 1) -> Mxfp4:
    """Packed rows of codes [N, G, 32] and scales [N, G]."""
    return Mxfp4(spread(packed(codes.reshape(-1, 32)).reshape(*scales.shape, 16), step), spread(scales, step))


# --- bytes ---


@pytest.mark.parametrize("shape", [(7, 3), (4, 4096), (5, 90), (300, 17), (1, 1), (40_000, 6)])
@pytest.mark.parametrize("step", [1, 2])
def test_one_other_byte_is_seen_wherever_it_is(shape: tuple[int, int], step: int) -> None:
    a = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    b = spread(a, step)
    assert same_bytes(a, b)
    for place in ((0, 0), (shape[0] // 2, shape[1] // 2), (shape[0] - 1, shape[1] - 1)):
        changed = spread(a, step)
        changed[place] ^= 1
        assert not same_bytes(a, changed)


def test_bytes_between_rows_do_not_count() -> None:
    a = spread(np.zeros((8, 16), np.uint8), 2)
    b = spread(np.zeros((8, 16), np.uint8), 2)
    assert b.base is not None
    b.base[1::2] = 7
    assert same_bytes(a, b)


def test_zero_and_negative_zero_are_other_bytes() -> None:
    assert not same_bytes(np.array([[0.0]], np.float32), np.array([[-0.0]], np.float32))


def test_arrays_without_elements_are_equal() -> None:
    assert same_bytes(np.empty((0, 4), np.uint8), np.empty((0, 4), np.uint8))


# --- blocks in two orders of bytes ---


def in_both_orders(codes: Array, scales: Array, step: int) -> tuple[list[Array], list[Array]]:
    """Planes and ggml's blocks of codes [N, G, 32], by the definitions of both orders; rows `step` apart."""
    n_rows, groups = scales.shape
    ggml = np.concatenate([scales[..., None], codes[..., :16] | codes[..., 16:] << 4], axis=-1)
    planes = codes[..., 0::2] | codes[..., 1::2] << 4
    return (
        [spread(planes.reshape(n_rows, groups * 16), step), spread(scales, step)],
        [spread(ggml.reshape(n_rows, groups * 17), step)],
    )


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (5000, 2), (3, 90)])
def test_the_same_blocks_in_another_order_are_seen_as_that(shape: tuple[int, int], step: int) -> None:
    rng = np.random.default_rng(2)
    codes, scales = rng.integers(0, 16, (*shape, 32), np.uint8), rng.integers(0, 255, shape, np.uint8)
    planes, ggml = in_both_orders(codes, scales, step)
    assert same_packed((MXFP4, GGML_MXFP4), planes, ggml)
    assert same_packed((GGML_MXFP4, MXFP4), ggml, planes)
    for place in (0, shape[0] // 2, shape[0] - 1):
        for part in (planes[0], planes[1], ggml[0]):
            column, bit = int(rng.integers(part.shape[1])), 1 << int(rng.integers(8))
            part[place, column] ^= bit
            assert not same_packed((MXFP4, GGML_MXFP4), planes, ggml)
            part[place, column] ^= bit


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("element", range(32))
def test_every_element_has_its_place_in_either_order(element: int) -> None:
    codes, scales = np.zeros((2, 3, 32), np.uint8), np.full((2, 3), 127, np.uint8)
    codes[1, 2, element] = 5
    planes, ggml = in_both_orders(codes, scales, 1)
    assert same_packed((MXFP4, GGML_MXFP4), planes, ggml)
    _, other = in_both_orders(np.roll(codes, 1, axis=-1), scales, 1)
    assert not same_packed((MXFP4, GGML_MXFP4), planes, other)


@pytest.mark.usefixtures("either")
def test_blocks_with_a_scale_that_is_nan_are_left_to_others() -> None:
    codes, scales = np.zeros((2, 3, 32), np.uint8), np.full((2, 3), 127, np.uint8)
    scales[1, 1] = 255
    assert not same_packed((MXFP4, GGML_MXFP4), *in_both_orders(codes, scales, 1))


@pytest.mark.parametrize("encodings", [(MXFP4, MXFP4), (MXFP4, OLLAMA_MXFP4), (GGML_MXFP4, GGML_MXFP4)])
def test_orders_that_cannot_be_compared_so_are_left_to_others(encodings: Any) -> None:
    codes, scales = np.zeros((2, 3, 32), np.uint8), np.full((2, 3), 127, np.uint8)
    planes, ggml = in_both_orders(codes, scales, 1)
    assert not same_packed(encodings, planes, ggml)


# --- values ---


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(
    ("shape", "block"), [((3, 64), 32), ((5, 7), 1), ((1, 1), 1), ((70, 1056), 32), ((4000, 3), 1)]
)
def test_figures_are_those_of_float64_arithmetic(shape: tuple[int, int], block: int) -> None:
    rng = np.random.default_rng(shape[1])
    a = rng.standard_normal(shape).astype(np.float32)
    b = np.where(rng.random(shape) < 0.1, a + rng.standard_normal(shape).astype(np.float32), a)
    found, (wide_a, wide_b) = measure(a, b, block), (one.astype(np.float64) for one in (a, b))
    error = wide_b - wide_a
    assert found.elements == a.size
    assert found.changed == (a != b).reshape(-1, block).any(axis=1).sum()
    sums = [found.energy_a, found.energy_b, found.product, found.error]
    expected = [(one * other).sum() for one, other in ((wide_a, wide_a), (wide_b, wide_b), (wide_a, wide_b))]
    assert sums == pytest.approx([*expected, (error**2).sum()], rel=1e-12)
    place = np.unravel_index(np.abs(error).argmax(), shape)
    assert (found.largest, found.place) == (np.abs(error).max(), tuple(map(int, place)))
    assert found.values == (a[place], b[place])


@pytest.mark.usefixtures("either")
def test_equal_values_are_at_distance_zero_exactly() -> None:
    a = np.random.default_rng(0).standard_normal((9, 96)).astype(np.float32)
    found = measure(a, a.copy(), 32)
    assert (found.changed, found.error, found.largest) == (0, 0.0, 0.0)
    assert found.energy_a == found.energy_b == found.product


@pytest.mark.usefixtures("either")
def test_negative_zero_is_no_other_value() -> None:
    assert measure(np.zeros((1, 32), np.float32), -np.zeros((1, 32), np.float32), 32).changed == 0


@pytest.mark.usefixtures("either")
def test_smallest_difference_that_float32_has_is_seen() -> None:
    a = np.zeros((1, 4096), np.float32)
    b = a.copy()
    b[0, 4095] = np.float32(1e-45)
    found = measure(a, b)
    assert (found.changed, found.place, found.error > 0) == (1, (0, 4095), True)


@pytest.mark.usefixtures("either")
def test_largest_numbers_do_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    found = measure(np.full((2, 4096), largest), np.full((2, 4096), -largest))
    assert found.largest == 2 * float(largest)
    assert np.isfinite(found.error)


@checked
@given(n=st.integers(1, 300), block=st.sampled_from([1, 32]), share=st.sampled_from([0.0, 0.01, 1.0]), seed=seeds)
def test_numba_and_numpy_measure_the_same(n: int, block: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = np.ldexp(rng.standard_normal(32 * n), rng.integers(-140, 120, 32 * n)).astype(np.float32)
    b = np.where(rng.random(32 * n) < share, np.roll(a, 1), a)
    results = []
    for kernels in (numba_compare, numpy_compare):
        counts, sums = np.zeros(2, np.int64), np.zeros(4, np.float64)
        results.append((kernels.measure(a, b, block, counts, sums), counts.tolist(), sums))
    assert results[0][:2] == results[1][:2]
    assert results[0][2] == pytest.approx(results[1][2], rel=1e-12)


# --- packed blocks ---


@pytest.mark.usefixtures("either")
def test_changes_of_packed_blocks_are_counted_by_kind() -> None:
    codes, scales = np.full((2, 4, 32), 3, np.uint8), np.full((2, 4), 120, np.uint8)
    codes[:, :, 5] = 0
    other_codes, other_scales = codes.copy(), scales.copy()
    other_scales[0, 1] += 3  # its scale alone
    other_codes[1, 0, 5] = 8  # a zero's sign alone
    other_codes[1, 2, 7], other_scales[1, 2] = 9, 110  # both
    found = changed_blocks(blocks_of(codes, scales, 2), blocks_of(other_codes, other_scales))
    assert (found.blocks, found.scale_only, found.signed_zeros) == (3, 1, 1)
    assert {int(at) - 255: int(found.shifts[at]) for at in np.flatnonzero(found.shifts)} == {-10: 1, 0: 1, 3: 1}


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(("a", "b", "shift"), [(0, 255, 255), (255, 0, -255)])
def test_widest_shifts_of_scales_have_a_place(a: int, b: int, shift: int) -> None:
    codes = np.zeros((1, 1, 32), np.uint8)
    found = changed_blocks(*(blocks_of(codes, np.full((1, 1), one, np.uint8)) for one in (a, b)))
    assert np.flatnonzero(found.shifts).tolist() == [shift + 255]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("element", range(32))
def test_sign_of_every_zero_is_counted(element: int) -> None:
    a, scales = np.full((1, 1, 32), 8, np.uint8), np.full((1, 1), 1, np.uint8)
    b = a.copy()
    b[0, 0, element] = 0
    assert changed_blocks(blocks_of(a, scales), blocks_of(b, scales)).signed_zeros == 1


@checked
@given(rows=st.integers(1, 4), groups=st.integers(1, 130), share=st.sampled_from([0.02, 0.6]), seed=seeds)
def test_numba_and_numpy_count_the_same(rows: int, groups: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    codes, scales = rng.integers(0, 16, (rows, groups, 32)), rng.integers(0, 256, (rows, groups))
    for _ in range(2):
        sides.append(blocks_of(codes.astype(np.uint8), scales.astype(np.uint8), int(rng.integers(1, 3))))
        codes = np.where(rng.random(codes.shape) < share / 8, rng.choice([0, 8], codes.shape), codes)
        scales = np.where(rng.random(scales.shape) < share, rng.integers(0, 256, scales.shape), scales)
    results = []
    for kernels in (numba_compare, numpy_compare):
        shifts, counts = np.zeros(511, np.int64), np.zeros(3, np.int64)
        words = tuple(side.blocks.view(np.uint64) for side in sides)
        kernels.changed_blocks(words, tuple(side.scales for side in sides), shifts, counts)
        results.append((counts.tolist(), shifts.tolist()))
    assert results[0] == results[1]


def test_arrays_of_other_shapes_are_refused() -> None:
    with pytest.raises(CodecError, match="array b has the wrong shape"):
        measure(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
