"""E8M0: all 256 scale bytes against arithmetic and ml_dtypes; exponents are never wrapped."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from gptoss_convert.formats.codecs import e8m0
from gptoss_convert.formats.errors import CodecError

SCALES = np.arange(256, dtype=np.uint8)


def test_every_scale_decodes_to_its_power_of_two() -> None:
    decoded = e8m0.decode(SCALES)
    assert [float(value) for value in decoded[:255]] == [math.ldexp(1, scale - 127) for scale in range(255)]
    assert math.isnan(decoded[255])


def test_every_scale_decodes_like_ml_dtypes() -> None:
    oracle = SCALES.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(e8m0.decode(SCALES), oracle)


def test_encode_inverts_every_exponent() -> None:
    assert e8m0.encode(np.arange(-127, 128)).tolist() == list(range(255))


@pytest.mark.parametrize("exponent", [-128, 128, -383, 129, 2**40])
def test_an_exponent_outside_the_range_is_refused_by_index(exponent: int) -> None:
    with pytest.raises(CodecError, match=rf"index \(0, 1\); expected -127\.\.127; found {exponent}\."):
        e8m0.encode(np.array([[0, exponent], [0, 0]]))


def test_a_narrow_integer_type_does_not_wrap() -> None:
    assert e8m0.encode(np.int8([-127, 127])).tolist() == [0, 254]


@pytest.mark.parametrize("found", [(0, 0), (1, 2), (2, 4)])
def test_find_nan_gives_row_and_block_of_the_first(found: tuple[int, int]) -> None:
    scales = np.full((3, 5), 254, np.uint8)
    scales[found] = scales[2, 4] = 255
    assert e8m0.find_nan(scales) == found


def test_find_nan_looks_only_at_the_rows_given() -> None:
    scales = np.zeros((4, 3), np.uint8)
    scales[1, 1] = 255
    assert e8m0.find_nan(scales[0::2]) is None
    assert e8m0.find_nan(scales[1::2]) == (0, 1)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_find_nan_of_nothing_is_none(shape: tuple[int, int]) -> None:
    assert e8m0.find_nan(np.empty(shape, np.uint8)) is None
