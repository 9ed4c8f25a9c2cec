"""F32, F16 and BF16: exhaustive for 16-bit sources, against ml_dtypes and the standard library's struct.

Every test runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.floats import convert, find_nonfinite
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]
FLOATS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
ELEMENT = {"BF16": np.uint16, "F16": np.uint16, "F32": np.float32}
PAIRS = [(source, target) for source in FLOATS for target in FLOATS if source != target]
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def converted(values: Array, source: str, target: str) -> tuple[Array, int]:
    out = np.empty(values.shape, ELEMENT[target])
    return out, convert(values, source, target, out)


def as_numbers(values: Array, encoding: str) -> Array:
    with np.errstate(invalid="ignore"):
        return values.view(FLOATS[encoding]).astype(np.float64)


def oracle(values: Array, source: str, target: str) -> Array:
    """What ml_dtypes (BF16) and numpy (F16, F32) make of the values, in float64."""
    with np.errstate(all="ignore"):
        return values.view(FLOATS[source]).astype(np.float32).astype(FLOATS[target]).astype(np.float64)


def bits(values: Array) -> Array:
    return values.view(f"u{values.itemsize}")


def difficult_f32() -> Array:
    """Random patterns, every exponent with its ties to both sides, subnormals; all finite in BF16."""
    rng = np.random.default_rng(0)
    upper = rng.integers(0, 1 << 16, 100_000, dtype=np.uint32)
    lower = rng.choice(np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]), len(upper))
    values = (upper << 16 | lower).view(np.float32)
    return values[np.abs(values) < 3.3e38]


@pytest.mark.parametrize("target", ["F16", "F32"])
def test_every_bf16_pattern_that_fits_converts_like_the_oracle(target: str) -> None:
    expected = oracle(ALL_16_BITS, "BF16", target)
    numbers = as_numbers(ALL_16_BITS, "BF16")
    fits = np.isfinite(expected) | ~np.isfinite(numbers)
    out, count = converted(ALL_16_BITS[fits], "BF16", target)
    np.testing.assert_array_equal(as_numbers(out, target), expected[fits])
    assert np.array_equal(np.signbit(as_numbers(out, target)), np.signbit(expected[fits]))
    assert count == np.count_nonzero((expected != numbers)[fits] & ~np.isnan(numbers[fits]))


@pytest.mark.parametrize("target", ["BF16", "F32"])
def test_every_f16_pattern_converts_like_the_oracle(target: str) -> None:
    expected, numbers = oracle(ALL_16_BITS, "F16", target), as_numbers(ALL_16_BITS, "F16")
    out, count = converted(ALL_16_BITS, "F16", target)
    np.testing.assert_array_equal(as_numbers(out, target), expected)
    assert np.array_equal(np.signbit(as_numbers(out, target)), np.signbit(expected))
    assert count == np.count_nonzero((expected != numbers) & ~np.isnan(numbers))


def test_f32_narrows_to_bf16_byte_identical_to_ml_dtypes() -> None:
    values = difficult_f32()
    out, count = converted(values, "F32", "BF16")
    assert out.tobytes() == values.astype(ml_dtypes.bfloat16).tobytes()
    assert count == np.count_nonzero(bits(values) & 0xFFFF)


def test_f32_narrows_to_f16_byte_identical_to_struct() -> None:
    values = np.float32(
        [0, -0.0, 1, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65519, 2**-24, 2**-25, 1.1 * 2**-25, 1e-30, -np.pi]
    )
    out, count = converted(values, "F32", "F16")
    assert out.tobytes() == struct.pack("<12e", *values.tolist())
    assert count == 7


def test_bf16_survives_f32_and_f16_survives_f32_exactly() -> None:
    for encoding in ("BF16", "F16"):
        numbers = as_numbers(ALL_16_BITS, encoding)
        finite = ALL_16_BITS[np.isfinite(numbers)]
        wide, widened = converted(finite, encoding, "F32")
        back, narrowed = converted(wide, "F32", encoding)
        assert (widened, narrowed) == (0, 0)
        assert np.array_equal(back, finite)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_nan_infinity_and_minus_zero_stay_and_are_not_counted(source: str, target: str) -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32).astype(FLOATS[source]).view(ELEMENT[source])
    out, count = converted(values, source, target)
    assert count == 0
    np.testing.assert_array_equal(as_numbers(out, target), [np.nan, np.inf, -np.inf, -0.0])
    assert np.signbit(as_numbers(out, target)[3])


@pytest.mark.parametrize("pattern", [0x7F80_0001, 0x7FBF_FFFF, 0x7FFF_FFFF, 0xFF80_0001, 0xFFFF_FFFF])
def test_an_f32_nan_never_narrows_to_infinity_or_zero(pattern: int) -> None:
    values = np.uint32([pattern]).view(np.float32)
    out, count = converted(values, "F32", "BF16")
    assert np.isnan(as_numbers(out, "BF16")[0])
    assert count == 0


@pytest.mark.parametrize(
    ("source", "target", "value", "remedy"),
    [
        ("BF16", "F16", 65536, "Convert to F32 or BF16."),
        ("F32", "F16", -65520, "Convert to F32 or BF16."),
        ("F32", "BF16", 3.4e38, "Convert to F32."),
    ],
)
@pytest.mark.parametrize("shape", [(7, 5), (3, 70_000)])
def test_a_finite_value_that_overflows_is_refused_by_index(
    source: str, target: str, value: float, remedy: str, shape: tuple[int, int]
) -> None:
    values = np.zeros(shape, ELEMENT[source])
    values[2, 1] = np.float32([np.inf]).astype(FLOATS[source]).view(ELEMENT[source])[0]
    values[2, 4] = np.float32([value]).astype(FLOATS[source]).view(ELEMENT[source])[0]
    expected = (
        rf"value at index \(2, 4\) is too large for {target}; .*found {re.escape(f'{value:g}')}.*{re.escape(remedy)}"
    )
    with pytest.raises(CodecError, match=expected):
        converted(values, source, target)
    with pytest.raises(CodecError, match=expected):
        converted(np.asfortranarray(values), source, target)


@pytest.mark.parametrize(("source", "target"), [*PAIRS, ("BF16", "BF16"), ("F32", "F32")])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (5, 3), (3, 70_000), (150_000, 1)])
def test_strided_rows_and_columns_convert_like_contiguous_ones(
    source: str, target: str, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2 * shape[0], 2 * shape[1]), np.float32)
    whole = numbers.astype(FLOATS[source]).view(ELEMENT[source])
    for values in (whole[0::2, : shape[1]], whole[: shape[0], 1::2], whole[1::2, 0::2]):
        out = np.zeros((2 * shape[0], shape[1]), ELEMENT[target])
        count = convert(values, source, target, out[1::2])
        expected, expected_count = converted(values.copy(), source, target)
        assert count == expected_count
        assert np.array_equal(out[1::2], expected)
        assert not out[0::2].any()


@pytest.mark.parametrize("encoding", FLOATS)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [(0, 0), (0, 8191), (1, 8192), (2, 69_999)])
def test_find_nonfinite_gives_the_first_index(encoding: str, value: float, index: tuple[int, int]) -> None:
    values = np.zeros((3, 70_000), np.float32).astype(FLOATS[encoding])
    values[index] = values[2, 69_999] = value
    values = values.view(ELEMENT[encoding])
    assert find_nonfinite(values, encoding) == index
    assert find_nonfinite(np.asfortranarray(values), encoding) == index


@pytest.mark.parametrize("encoding", FLOATS)
def test_find_nonfinite_passes_every_finite_value_and_no_other(encoding: str) -> None:
    patterns = ALL_16_BITS if encoding != "F32" else (ALL_16_BITS.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(as_numbers(patterns, encoding))
    assert find_nonfinite(patterns[finite][:, None], encoding) is None
    for pattern in patterns[~finite][::37]:
        assert find_nonfinite(np.array([[pattern]]), encoding) == (0, 0)


def test_find_nonfinite_looks_only_at_the_rows_given() -> None:
    values = np.zeros((4, 3), np.uint16)
    values[1, 2] = 0x7F80
    assert find_nonfinite(values[0::2], "BF16") is None
    assert find_nonfinite(values[1::2], "BF16") == (0, 2)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_find_nonfinite_of_nothing_is_none(shape: tuple[int, int]) -> None:
    assert find_nonfinite(np.empty(shape, np.uint16), "F16") is None


def test_an_array_of_another_dtype_is_refused() -> None:
    with pytest.raises(CodecError, match=r"does not hold rows of BF16; expected uint16 \[N, \.\.\.\]; found float32"):
        converted(np.zeros((1, 1), np.float32), "BF16", "F32")
