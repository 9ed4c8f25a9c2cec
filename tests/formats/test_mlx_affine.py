"""MLX's affine quantization decodes byte-identical to MLX in float32, and its mode "mxfp4" holds our MXFP4 bytes.

The oracle is MLX on the CPU. Every test that decodes affine groups runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import mlx_affine, mxfp4, numba_mlx, numpy_mlx
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.mlx_affine import BITS, GROUP_SIZES, decode
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]
Values = NDArray[np.float32]

# encoding -> MLX's dtype, numpy's dtype of the same numbers, the exponent bits of a pattern
ENCODINGS: dict[str, tuple[Any, Any, int]] = {
    "F32": (mx.float32, np.float32, 0x7F80_0000),
    "F16": (mx.float16, np.float16, 0x7C00),
    "BF16": (mx.bfloat16, ml_dtypes.bfloat16, 0x7F80),
}
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
every_16_bit_encoding = pytest.mark.parametrize("encoding", ["F16", "BF16"])
every_form = pytest.mark.parametrize(("bits", "group_size"), list(product(BITS, GROUP_SIZES)))


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def decoded(weight: Array, scales: Array, biases: Array, encoding: str, bits: int, group_size: int) -> Values:
    out = np.full((len(weight), weight.shape[1] * 32 // bits), np.nan, np.float32)
    decode(weight, scales, biases, out, encoding=encoding, bits=bits, group_size=group_size)
    return out


def pattern(values: Array, encoding: str) -> Array:
    """`values` as `decode` takes them: float32, or uint16 patterns."""
    stored = values.astype(ENCODINGS[encoding][1])
    return stored if encoding == "F32" else stored.view(np.uint16)


def value(patterns: Array, encoding: str) -> Array:
    """What such patterns stand for, exactly: float64."""
    return patterns.view(ENCODINGS[encoding][1]).astype(np.float64)


def mlx_values(array: mx.array) -> Values:
    return np.array(array.astype(mx.float32))


def mlx_float32(weight: Array, scales: Array, biases: Array, encoding: str, bits: int, group_size: int) -> Values:
    """What MLX computes in float32."""
    factors = [mx.array(value(array, encoding).astype(np.float32)) for array in (scales, biases)]
    return mlx_values(mx.dequantize(mx.array(weight), *factors, group_size=group_size, bits=bits))


def random_words(rng: Generator, n_rows: int, cols: int, bits: int) -> Array:
    return rng.integers(0, 1 << 32, (n_rows, cols * bits // 32), np.uint32)


def random_patterns(rng: Generator, encoding: str, shape: tuple[int, ...], exponents: tuple[int, int]) -> Array:
    """Random numbers of both signs, their exponents in the range."""
    magnitudes = np.ldexp(1 + rng.random(shape), rng.integers(*exponents, shape, endpoint=True))
    return pattern(rng.choice([-1, 1], shape) * magnitudes, encoding)


def codes_of(weight: Array, bits: int) -> Array:
    """The codes of the words by shifting, float64: an unpacking of another kind than the codec's."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (weight[:, :, None] >> shifts & np.uint32(2**bits - 1)).reshape(len(weight), -1).astype(np.float64)


@pytest.mark.parametrize(
    ("bits", "words", "codes"),
    [
        (4, [0x7654_3210, 0xFEDC_BA98, 0x0000_000F, 0xF000_0000], [*range(16), 15, *[0] * 14, 15]),
        (8, [0x0302_0100, 0xFFFE_FDFC, *[0] * 5, 0x8000_0000], [0, 1, 2, 3, 252, 253, 254, 255, *[0] * 23, 128]),
    ],
)
def test_codes_lie_where_the_drawing_says(bits: int, words: list[int], codes: list[int]) -> None:
    two, three = np.float32([[2]]), np.float32([[3]])
    assert decoded(np.uint32([words]), two, three, "F32", bits, 32)[0].tolist() == [2 * code + 3 for code in codes]


@every_encoding
@every_form
def test_what_mlx_quantized_decodes_byte_identical_in_float32(encoding: str, bits: int, group_size: int) -> None:
    values = np.random.default_rng(0).standard_normal((64, 384), np.float32)
    stored = mx.quantize(mx.array(values).astype(ENCODINGS[encoding][0]), group_size=group_size, bits=bits)
    weight = np.array(stored[0])
    scales, biases = (pattern(mlx_values(factor), encoding) for factor in stored[1:])
    assert (value(scales, encoding) < 0).any()
    ours = decoded(weight, scales, biases, encoding, bits, group_size)
    assert ours.tobytes() == mlx_float32(weight, scales, biases, encoding, bits, group_size).tobytes()


@every_encoding
@every_form
def test_random_groups_decode_byte_identical_to_mlx_in_float32(encoding: str, bits: int, group_size: int) -> None:
    rng = np.random.default_rng(1)
    cols, exponents = 384, (-14, 14) if encoding == "F16" else (-126, 110)
    weight = random_words(rng, 200, cols, bits)
    scales, biases = (random_patterns(rng, encoding, (200, cols // group_size), exponents) for _ in range(2))
    ours = decoded(weight, scales, biases, encoding, bits, group_size)
    assert ours.tobytes() == mlx_float32(weight, scales, biases, encoding, bits, group_size).tobytes()


@every_16_bit_encoding
@pytest.mark.parametrize("bits", BITS)
def test_every_code_times_every_16_bit_scale_is_exact(encoding: str, bits: int) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    finite = patterns[(patterns & ENCODINGS[encoding][2]) != ENCODINGS[encoding][2]]
    scales = finite[np.abs(value(finite, encoding)) * (2**bits - 1) <= np.finfo(np.float32).max, None]
    for first in range(0, 2**bits, 32):
        word_codes = (first + np.arange(32, dtype=np.uint32)).reshape(-1, 32 // bits) & np.uint32(2**bits - 1)
        words = (word_codes << np.arange(0, 32, bits, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
        weight = np.broadcast_to(words, (len(scales), len(words)))
        ours = decoded(weight, scales, np.zeros_like(scales), encoding, bits, 32)
        assert np.array_equal(ours, codes_of(weight[:1], bits) * value(scales, encoding))


@every_16_bit_encoding
@every_form
def test_with_16_bit_scales_the_value_is_the_nearest_float32(encoding: str, bits: int, group_size: int) -> None:
    """In float64 code * scale + bias is exact here, so its float32 is rounded once."""
    rng = np.random.default_rng(2)
    weight = random_words(rng, 50, 256, bits)
    scales, biases = (random_patterns(rng, encoding, (50, 256 // group_size), (-12, 12)) for _ in range(2))
    wide_scales, wide_biases = (value(array, encoding).repeat(group_size, axis=1) for array in (scales, biases))
    exact = codes_of(weight, bits) * wide_scales + wide_biases
    assert (exact != exact.astype(np.float32)).any()
    assert np.array_equal(decoded(weight, scales, biases, encoding, bits, group_size), exact.astype(np.float32))


@every_encoding
@pytest.mark.parametrize("bits", BITS)
def test_mlx_itself_rounds_product_and_sum_to_the_dtype_of_the_scales(encoding: str, bits: int) -> None:
    """Which arithmetic MLX's CPU uses: without this, "byte-identical in float32" would leave open where it differs."""
    mlx_dtype, dtype, _ = ENCODINGS[encoding]
    values = mx.array(np.random.default_rng(3).standard_normal((64, 384), np.float32)).astype(mlx_dtype)
    stored = mx.quantize(values, group_size=64, bits=bits)
    weight, scales, biases = np.array(stored[0]), mlx_values(stored[1]), mlx_values(stored[2])
    products = (codes_of(weight, bits).astype(np.float32) * scales.repeat(64, axis=1)).astype(dtype)
    sums = (products.astype(np.float32) + biases.repeat(64, axis=1)).astype(dtype).astype(np.float32)
    assert sums.tobytes() == mlx_values(mx.dequantize(*stored, group_size=64, bits=bits)).tobytes()
    ours = decoded(weight, pattern(scales, encoding), pattern(biases, encoding), encoding, bits, 64)
    assert np.array_equal(ours.astype(dtype).astype(np.float32), sums) == (encoding == "F32")


@every_form
def test_strided_read_only_rows_decode_as_contiguous_ones(bits: int, group_size: int) -> None:
    rng = np.random.default_rng(4)
    weight = random_words(rng, 600, 256, bits)
    scales, biases = (random_patterns(rng, "BF16", (600, 256 // group_size), (-9, 9)) for _ in range(2))
    for array in (weight, scales, biases):
        array.setflags(write=False)
    together = decoded(weight, scales, biases, "BF16", bits, group_size)
    apart = np.full_like(together, 7)
    odd = slice(1, None, 2)
    decode(weight[odd], scales[odd], biases[odd], apart[::2], encoding="BF16", bits=bits, group_size=group_size)
    assert apart[::2].tobytes() == together[odd].tobytes()
    assert np.all(apart[odd] == 7)


@pytest.mark.parametrize(("n_rows", "groups"), [(0, 2), (2, 0)])
def test_no_elements_are_decoded_to_nothing(n_rows: int, groups: int) -> None:
    factors = np.zeros((n_rows, groups), np.float32)
    assert decoded(np.zeros((n_rows, 8 * groups), np.uint32), factors, factors, "F32", 8, 32).size == 0


@every_encoding
@pytest.mark.parametrize("bad", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("name", ["scales", "biases"])
def test_a_scale_or_bias_that_is_not_finite_is_refused_by_row_and_group(encoding: str, bad: str, name: str) -> None:
    factors = {key: np.ones((3, 4), np.float32) for key in ("scales", "biases")}
    factors[name][2, 1] = float(bad)
    stored = [pattern(array, encoding) for array in factors.values()]
    message = f"row 2, group 1 of the {name} is not finite; expected a finite {encoding} number; found {bad}"
    with pytest.raises(CodecError, match=message):
        decoded(np.zeros((3, 32), np.uint32), *stored, encoding, 8, 32)


@pytest.mark.parametrize("encoding", ["F32", "BF16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_too_large_for_float32_is_refused_by_row_and_element(encoding: str, sign: int) -> None:
    weight = np.zeros((2, 16), np.uint32)
    weight[1, 12] = 0x0000_0300
    scales, biases = np.float32([[1, 1], [1, sign * 2.0**127]]), np.ones((2, 2), np.float32)
    stored = [pattern(array, encoding) for array in (scales, biases)]
    assert np.array_equal(decoded(weight * 0, *stored, encoding, 8, 32), np.ones((2, 64)))
    message = rf"row 1, element 49 is too large for F32; .*found scale {sign * 2.0**127:g}, bias 1".replace("+", r"\+")
    with pytest.raises(CodecError, match=message):
        decoded(weight, *stored, encoding, 8, 32)


@pytest.mark.parametrize(
    ("bits", "group_size", "message"),
    [
        *((bits, 64, f"this bits; expected 4 or 8; found {bits}") for bits in (1, 2, 3, 5, 6)),
        *((8, size, f"this group_size; expected 32 or 64 or 128; found {size}") for size in (16, 256)),
    ],
)
def test_forms_without_a_decoder_are_refused(bits: int, group_size: int, message: str) -> None:
    ones = np.ones((1, 1), np.float32)
    with pytest.raises(CodecError, match=message):
        decode(
            np.zeros((1, 64), np.uint32),
            ones,
            ones,
            np.empty((1, 256), np.float32),
            encoding="F32",
            bits=bits,
            group_size=group_size,
        )


@pytest.mark.parametrize(
    ("wrong", "array", "message"),
    [
        ("out", np.empty((2, 96), np.float32), "not a whole number of groups; expected a multiple of 64 elements; fou"),
        ("out", np.empty((2, 128), np.float64), r"array out .* expected float32 \[2, 128\]"),
        ("weight", np.zeros((2, 31), np.uint32), r"array weight .* expected uint32 \[2, 32\]"),
        ("weight", np.zeros((2, 32), np.int32), r"array weight .* expected uint32 \[2, 32\]"),
        ("scales", np.zeros((2, 3), np.uint16), r"array scales .* expected uint16 \[2, 2\]"),
        ("biases", np.zeros((2, 2), np.float32), r"array biases .* expected uint16 \[2, 2\]"),
    ],
)
def test_wrong_shapes_and_dtypes_are_refused(wrong: str, array: Array, message: str) -> None:
    arrays: dict[str, Any] = {
        "weight": np.zeros((2, 32), np.uint32),
        "scales": np.zeros((2, 2), np.uint16),
        "biases": np.zeros((2, 2), np.uint16),
        "out": np.empty((2, 128), np.float32),
    }
    with pytest.raises(CodecError, match=message):
        decode(**(arrays | {wrong: array}), encoding="BF16", bits=8, group_size=64)


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([0, 1, 3, 511, 512, 513, 2049]),
    bits=st.sampled_from(BITS),
    group_size=st.sampled_from(GROUP_SIZES),
    seed=st.integers(0, 2**32 - 1),
)
def test_numba_and_its_numpy_twin_are_the_same(n: int, bits: int, group_size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (n, group_size * bits // 8), np.uint8)
    scales, biases = (random_patterns(rng, "F32", (n,), (-149, 110)) for _ in range(2))
    outs = [np.empty((n, group_size), np.float32) for _ in range(2)]
    for module, out in zip((numba_mlx, numpy_mlx), outs, strict=True):
        getattr(module, f"decode_{bits}")(codes, scales, biases, out)
    assert outs[0].tobytes() == outs[1].tobytes()


def test_the_variable_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for choice, module in (("0", numba_mlx), ("1", numpy_mlx)):
        monkeypatch.setenv(NO_NUMBA_VARIABLE, choice)
        assert mlx_affine._kernels() is module


# --- mode "mxfp4" ------------------------------------------------------------------------------------------------


def every_code(scales: range) -> Mxfp4:
    """One row per scale, one block: codes 0..15 rising, then falling."""
    codes = np.tile(np.concatenate([np.arange(16), np.arange(15, -1, -1)]), (len(scales), 1, 1))
    return Mxfp4((codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8), np.array(scales, np.uint8)[:, None])


def decoded_mxfp4(mx4: Mxfp4) -> Values:
    out = np.empty((len(mx4.scales), mx4.scales.shape[1] * 32), np.float32)
    mxfp4.decode_f32(mx4, out)
    return out


def mlx_mxfp4(mx4: Mxfp4, dtype: Any) -> Values:
    """MLX's values of the same bytes: words of four bytes of `blocks`, and `scales`."""
    words = mx.array(mx4.blocks.reshape(len(mx4.scales), -1).view("<u4"))
    stored = mx.dequantize(words, mx.array(mx4.scales), group_size=32, bits=4, mode="mxfp4", dtype=dtype)
    return mlx_values(stored)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32], ids=["bf16", "f32"])
def test_mlx_reads_the_bytes_of_our_mxfp4_byte_identical_with_every_code_and_scale(dtype: Any) -> None:
    mx4 = every_code(range(253))
    assert mlx_mxfp4(mx4, dtype).tobytes() == decoded_mxfp4(mx4).tobytes()


def test_mlx_reads_random_mxfp4_planes_byte_identical() -> None:
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (40, 90, 16), np.uint8)
    mx4 = Mxfp4(blocks, rng.integers(0, 253, (40, 90), np.uint8))
    assert mlx_mxfp4(mx4, mx.float32).tobytes() == decoded_mxfp4(mx4).tobytes()


def test_what_mlx_quantized_as_mxfp4_is_our_mxfp4() -> None:
    values = mx.array(np.random.default_rng(6).standard_normal((64, 2880), np.float32))
    words, scales = mx.quantize(values, group_size=32, bits=4, mode="mxfp4")
    mx4 = Mxfp4(np.array(words).astype("<u4").view(np.uint8).reshape(64, 90, 16), np.array(scales))
    assert decoded_mxfp4(mx4).tobytes() == mlx_values(mx.dequantize(words, scales, mode="mxfp4")).tobytes()


def test_mlx_takes_scale_255_for_infinity_where_we_refuse_it() -> None:
    mx4 = every_code(range(255, 256))
    assert np.isinf(mlx_mxfp4(mx4, mx.float32)[0, 1:8]).all()
    with pytest.raises(CodecError, match="row 0, block 0: the scale is NaN"):
        decoded_mxfp4(mx4)
