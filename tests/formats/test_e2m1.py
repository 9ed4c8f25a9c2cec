"""E2M1: all 16 codes against ml_dtypes, every rounding tie, nothing wrapped or guessed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from gptoss_convert.formats.codecs import e2m1
from gptoss_convert.formats.errors import CodecError

CODES = np.arange(16, dtype=np.uint8)

# midpoint between two neighbours -> the even code of the two
TIES = {0.25: 0, 0.75: 2, 1.25: 2, 1.75: 4, 2.5: 4, 3.5: 6, 5.0: 6}


def test_every_code_decodes_byte_identical_to_ml_dtypes() -> None:
    oracle = CODES.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert e2m1.decode(CODES).tobytes() == oracle.tobytes()


def test_encode_inverts_decode_for_every_code() -> None:
    assert e2m1.encode(e2m1.decode(CODES)).tolist() == list(range(16))


@pytest.mark.parametrize(("tie", "code"), TIES.items())
def test_a_tie_goes_to_the_even_code_and_its_neighbours_to_the_nearest(tie: float, code: int) -> None:
    below, above = np.nextafter(np.float32(tie), np.float32([0, 9]))
    lower, upper = sorted({code, code + 1} if e2m1.VALUES[code] < tie else {code - 1, code})
    assert e2m1.encode(np.float32([tie, below, above])).tolist() == [code, lower, upper]
    assert e2m1.encode(-np.float32([tie, below, above])).tolist() == [8 | code, 8 | lower, 8 | upper]


def test_every_finite_half_encodes_like_ml_dtypes() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = halves[np.isfinite(halves)].astype(np.float32)
    oracle = values.astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 15
    assert np.array_equal(e2m1.encode(values), oracle)


def test_magnitudes_above_6_saturate() -> None:
    assert e2m1.encode(np.float32([6.5, 3e38, -6.5, -3e38])).tolist() == [7, 7, 15, 15]


def test_zero_keeps_its_sign() -> None:
    assert e2m1.encode(np.float32([0.0, -0.0])).tolist() == [0, 8]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_index(value: float) -> None:
    with pytest.raises(CodecError, match=r"value at index \(1, 2\); expected a finite value; found -?(nan|inf)\."):
        e2m1.encode(np.float32([[1, 2, 3], [4, 5, value]]))


def test_a_byte_above_15_is_refused() -> None:
    with pytest.raises(CodecError, match=r"4 bits; expected 0\.\.15; found 16\."):
        e2m1.decode(np.uint8([3, 16]))


@pytest.mark.parametrize("shape", [(0,), (), (2, 0), (2, 3)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    codes = np.full(shape, 3, np.uint8)
    assert np.array_equal(e2m1.encode(e2m1.decode(codes)), codes)
