"""MXFP4 to floats and back: all 16 codes x 256 scales, against float64 arithmetic and ml_dtypes.

Every test runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import mxfp4
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]

# Written out from the specification, not taken from the package.
VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])

DECODERS = {"BF16": mxfp4.decode_bf16, "F16": mxfp4.decode_f16, "F32": mxfp4.decode_f32}
FLOATS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
ELEMENT = {"BF16": np.uint16, "F16": np.uint16, "F32": np.float32}
# The highest scale at which no code overflows, and the lowest at which every code is exact.
HIGHEST = {"BF16": 252, "F16": 140, "F32": 252}
LOWEST = {"BF16": 0, "F16": 104, "F32": 0}


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def packed(codes: Array, scales: Array) -> Mxfp4:
    """codes [N, G, 32] packed with the even element low, element by element."""
    return Mxfp4((codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8), scales.astype(np.uint8))


def every_code(scales: range) -> Mxfp4:
    """One row per scale, one block: codes 0..15 rising, then falling, so that each is in a low and a high nibble."""
    codes = np.concatenate([np.arange(16), np.arange(15, -1, -1)])
    return packed(np.tile(codes, (len(scales), 1, 1)), np.array(scales)[:, None])


def random_rows(n_rows: int, groups: int, scales: tuple[int, int] = (104, 141), seed: int = 0) -> Mxfp4:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (n_rows, groups, 32))
    return packed(codes, rng.integers(*scales, (n_rows, groups)))


def exact(mx: Mxfp4) -> Array:
    """The values in float64 [N, G * 32]."""
    codes = np.stack([mx.blocks & 15, mx.blocks >> 4], axis=-1).reshape(*mx.scales.shape, 32)
    values = np.ldexp(VALUES[codes], mx.scales[..., None].astype(int) - 127)
    return values.reshape(len(values), mx.scales.shape[1] * 32)


def rounded(values: Array, encoding: str) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(FLOATS[encoding]).view(ELEMENT[encoding])


def decoded(mx: Mxfp4, encoding: str) -> tuple[Array, int]:
    out = np.empty((len(mx.scales), mx.scales.shape[1] * 32), ELEMENT[encoding])
    count = DECODERS[encoding](mx, out)
    return out, count


@pytest.mark.parametrize("encoding", ["BF16", "F32"])
def test_all_codes_and_scales_to_252_decode_byte_identical_to_float64_arithmetic(encoding: str) -> None:
    mx = every_code(range(253))
    out, count = decoded(mx, encoding)
    assert count == 0
    assert out.tobytes() == rounded(exact(mx), encoding).tobytes()
    assert out.view(FLOATS[encoding]).astype(np.float64).tobytes() == exact(mx).tobytes()


def test_all_codes_and_scales_to_252_decode_like_ml_dtypes() -> None:
    mx = every_code(range(253))
    codes = np.stack([mx.blocks & 15, mx.blocks >> 4], axis=-1).reshape(253, 32)
    elements = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    oracle = elements * mx.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    assert decoded(mx, "F32")[0].tobytes() == oracle.tobytes()


@pytest.mark.parametrize("scale", range(141))
def test_f16_is_rounded_to_nearest_even_and_the_inexact_are_counted(scale: int) -> None:
    mx = every_code(range(scale, scale + 1))
    out, count = decoded(mx, "F16")
    oracle = rounded(exact(mx), "F16")
    assert out.tobytes() == oracle.tobytes()
    assert count == np.count_nonzero(oracle.view(np.float16).astype(np.float64) != exact(mx))
    assert (count == 0) == (scale >= 104)


@pytest.mark.parametrize("code", range(16))
@pytest.mark.parametrize(
    ("encoding", "scale"), [("BF16", 253), ("BF16", 254), ("F32", 253), ("F32", 254), ("F16", 141), ("F16", 254)]
)
def test_a_scale_beyond_the_range_overflows_for_some_codes_only(encoding: str, scale: int, code: int) -> None:
    mx = packed(np.full((1, 1, 32), code), np.array([[scale]]))
    oracle = rounded(exact(mx), encoding)
    if np.isfinite(oracle.view(FLOATS[encoding])).all():
        assert decoded(mx, encoding)[0].tobytes() == oracle.tobytes()
    else:
        found = re.escape(f"found {VALUES[code]:g} * 2^{scale - 127} (scale byte {scale})")
        with pytest.raises(CodecError, match=f"row 0, block 0, element 0 is too large for {encoding}.*{found}"):
            decoded(mx, encoding)


def test_an_overflow_is_placed_by_row_block_and_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxfp4, "_AUDIT_BLOCKS", 8)
    codes = np.ones((70, 3, 32), int)
    codes[67, 2, 13] = 15
    scales = np.full((70, 3), 127)
    scales[67, 2] = 253
    with pytest.raises(CodecError, match="row 67, block 2, element 13 is too large for BF16"):
        decoded(packed(codes, scales), "BF16")


@pytest.mark.parametrize("encoding", DECODERS)
def test_scale_255_is_refused_by_row_and_block(encoding: str) -> None:
    mx = random_rows(5, 3)
    mx.scales[3, 1] = 255
    with pytest.raises(CodecError, match=r"row 3, block 1: the scale is NaN; .*found scale byte 255"):
        decoded(mx, encoding)


def test_check_scales_passes_254_and_refuses_255() -> None:
    scales = np.full((2, 2), 254, np.uint8)
    mxfp4.check_scales(scales)
    scales[1, 0] = 255
    with pytest.raises(CodecError, match="row 1, block 0: the scale is NaN"):
        mxfp4.check_scales(scales)


@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize(("n_rows", "groups"), [(0, 3), (1, 1), (1, 5), (3, 0), (7, 3), (2, 300)])
def test_decode_and_encode_exact_are_inverse_for_odd_shapes(encoding: str, n_rows: int, groups: int) -> None:
    mx = random_rows(n_rows, groups)
    out, count = decoded(mx, encoding)
    assert count == 0
    assert out.tobytes() == rounded(exact(mx), encoding).tobytes()
    blocks = np.full_like(mx.blocks, 0xEE)
    assert mxfp4.encode_exact(out, encoding, mx.scales, blocks) == 0
    assert np.array_equal(blocks, mx.blocks)


@pytest.mark.parametrize("encoding", DECODERS)
def test_every_second_row_is_read_and_written_in_place(encoding: str) -> None:
    whole = random_rows(9, 3)
    odd = Mxfp4(whole.blocks[1::2], whole.scales[1::2])
    out = np.zeros((8, 96), ELEMENT[encoding])
    DECODERS[encoding](odd, out[0::2])
    assert out[0::2].tobytes() == rounded(exact(odd), encoding).tobytes()
    assert not out[1::2].any()
    blocks = np.zeros_like(whole.blocks)
    assert mxfp4.encode_exact(out[0::2], encoding, odd.scales, blocks[1::2]) == 0
    assert np.array_equal(blocks[1::2], odd.blocks)
    assert not blocks[0::2].any()


@pytest.mark.parametrize("encoding", DECODERS)
def test_encode_exact_gives_back_every_code_at_every_exact_scale(encoding: str) -> None:
    mx = every_code(range(LOWEST[encoding], HIGHEST[encoding] + 1))
    blocks = np.zeros_like(mx.blocks)
    assert mxfp4.encode_exact(decoded(mx, encoding)[0], encoding, mx.scales, blocks) == 0
    assert np.array_equal(blocks, mx.blocks)


@pytest.mark.parametrize("encoding", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("scale", [104, 105, 127, 140])
def test_encode_exact_notices_every_single_bit(encoding: str, scale: int) -> None:
    mx = every_code(range(scale, scale + 1))
    values = decoded(mx, encoding)[0]
    bits = values.view(f"u{values.itemsize}")
    for element in range(32):
        for bit in range(bits.itemsize * 8):
            changed = bits.copy()
            changed[0, element] ^= 1 << bit
            assert_noticed(changed.view(values.dtype), encoding, mx)


@pytest.mark.parametrize("scale", [0, 1, 2, 252])
def test_encode_exact_notices_every_single_bit_at_the_ends_of_the_range(scale: int) -> None:
    mx = every_code(range(scale, scale + 1))
    bits = decoded(mx, "BF16")[0]
    for element in range(32):
        for bit in range(16):
            changed = bits.copy()
            changed[0, element] ^= 1 << bit
            assert_noticed(changed, "BF16", mx)


def assert_noticed(changed: Array, encoding: str, mx: Mxfp4) -> None:
    """The count is that of the values no code has; a change to another code's value shows in the blocks."""
    held = np.isin(changed.view(FLOATS[encoding]).astype(np.float64), np.ldexp(VALUES, int(mx.scales[0, 0]) - 127))
    blocks = np.zeros_like(mx.blocks)
    count = mxfp4.encode_exact(changed, encoding, mx.scales, blocks)
    assert count == np.count_nonzero(~held)
    assert count or not np.array_equal(blocks, mx.blocks)


@pytest.mark.parametrize("encoding", DECODERS)
def test_encode_exact_counts_what_no_code_holds_and_gives_it_a_zero_code(encoding: str) -> None:
    mx = random_rows(3, 5)
    values = decoded(mx, encoding)[0]
    wrong = {(0, 0): 1 / 3, (1, 95): -1.1e-3, (2, 64): np.nan, (2, 159): -np.inf}
    for index, value in wrong.items():
        values[index] = rounded(np.array([value]), encoding)[0]
    blocks = np.zeros_like(mx.blocks)
    assert mxfp4.encode_exact(values, encoding, mx.scales, blocks) == 4
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(values.shape)
    assert [codes[index] & 7 for index in wrong] == [0] * 4


@pytest.mark.parametrize("encoding", DECODERS)
def test_no_value_is_held_under_scale_255_nor_infinity_under_254(encoding: str) -> None:
    zeros = np.zeros((1, 32), ELEMENT[encoding])
    infinities = rounded(np.full((1, 32), np.inf), encoding)
    blocks = np.zeros((1, 1, 16), np.uint8)
    assert mxfp4.encode_exact(zeros, encoding, np.uint8([[255]]), blocks) == 32
    assert mxfp4.encode_exact(infinities, encoding, np.uint8([[254]]), blocks) == 32


@pytest.mark.parametrize("encoding", DECODERS)
def test_encode_exact_under_a_scale_off_by_one_is_noticed(encoding: str) -> None:
    mx = random_rows(3, 3, scales=(110, 130))
    blocks = np.zeros_like(mx.blocks)
    assert mxfp4.encode_exact(decoded(mx, encoding)[0], encoding, mx.scales + np.uint8(1), blocks) > 0


BAD: dict[str, Callable[[], object]] = {
    "blocks": lambda: Mxfp4(np.zeros((2, 3, 17), np.uint8), np.zeros((2, 3), np.uint8)),
    "scales": lambda: Mxfp4(np.zeros((2, 3, 16), np.uint8), np.zeros((2, 3), np.int8)),
    "out": lambda: mxfp4.decode_bf16(random_rows(2, 3), np.zeros((2, 95), np.uint16)),
    "values": lambda: mxfp4.encode_exact(
        np.zeros((2, 96), np.uint16), "F32", np.zeros((2, 3), np.uint8), np.zeros((2, 3, 16), np.uint8)
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_array_of_another_shape_or_dtype_is_refused_by_name(name: str) -> None:
    with pytest.raises(CodecError, match=f"the array {name} has the wrong shape, dtype or strides; expected"):
        BAD[name]()


def test_columns_that_are_not_contiguous_are_refused() -> None:
    with pytest.raises(CodecError, match=r"the array blocks has the wrong .*strides of \[96, 32, 2\] bytes"):
        Mxfp4(np.zeros((2, 3, 32), np.uint8)[:, :, 0::2], np.zeros((2, 3), np.uint8))
