"""Reordered heads, scaled BF16 and shifted scales: against torch, against plain loops, and back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.metal_values import decode_heads, encode_heads, shift_scales
from gptoss_convert.formats.errors import CodecError

PATTERNS = np.arange(1 << 16, dtype=np.uint16)
EXPONENTS = [-1, -2]


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, "1" if request.param == "numpy" else "0")


def exact(exponent: int) -> np.ndarray:
    """The patterns whose product BF16 holds, by integer arithmetic alone; infinity and NaN included."""
    field, fraction = (PATTERNS >> 7 & 0xFF).astype(int), (PATTERNS & 0x7F).astype(int)
    significand = np.where(field > 0, fraction + 128, fraction)
    lost_bits = np.maximum(-exponent - np.maximum(field - 1, 0), 0)
    return (field == 255) | (significand % (1 << lost_bits) == 0)


def as_bf16(patterns: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(patterns.view(np.int16)).view(torch.bfloat16)


def encoded(values: np.ndarray, head_dim: int, exponent: int) -> np.ndarray:
    out = np.empty_like(values)
    encode_heads(values, head_dim, exponent, out)
    return out


def decoded(values: np.ndarray, head_dim: int, exponent: int) -> np.ndarray:
    out = np.empty_like(values)
    decode_heads(values, head_dim, exponent, out)
    return out


@pytest.mark.parametrize("head_dim", [2, 8, 64])
@pytest.mark.parametrize("shape", [(128,), (128, 1), (192, 5)])
def test_rows_become_pairs(shape: tuple[int, ...], head_dim: int) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    out = encoded(values, head_dim, 0)
    for row in range(shape[0]):
        head, place = divmod(row, head_dim)
        pair, half = place % (head_dim // 2), place // (head_dim // 2)
        assert np.array_equal(out[head * head_dim + 2 * pair + half], values[row])


@pytest.mark.parametrize("exponent", [0, *EXPONENTS])
@pytest.mark.parametrize("shape", [(64,), (128, 33)])
def test_the_way_back_is_byte_identical(shape: tuple[int, ...], exponent: int) -> None:
    random = np.random.default_rng(3)
    values = random.choice(PATTERNS[exact(exponent)], shape)
    assert np.array_equal(decoded(encoded(values, 64, exponent), 64, exponent), values)


def test_rows_may_lie_apart() -> None:
    values = np.random.default_rng(4).integers(0, 1 << 15, (128, 6)).astype(np.uint16)
    wide = np.zeros((256, 6), np.uint16)
    wide[1::2] = values
    assert np.array_equal(encoded(wide[1::2], 64, 0), encoded(values, 64, 0))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_exact_product_is_that_of_torch(exponent: int) -> None:
    """All patterns, in heads of two rows, which keep their order; torch may change a NaN's payload."""
    values = PATTERNS[exact(exponent)]
    ours = encoded(values, 2, exponent)
    theirs = (as_bf16(values) * 2.0**exponent).view(torch.int16).numpy().view(np.uint16)
    is_nan = (values & 0x7FFF) > 0x7F80
    assert np.array_equal(ours[~is_nan], theirs[~is_nan])
    assert np.array_equal(ours[is_nan], values[is_nan])


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_inexact_product_is_refused(exponent: int) -> None:
    inexact = PATTERNS[~exact(exponent)]
    assert len(inexact) > 100
    for pattern in inexact:
        with pytest.raises(CodecError, match="too many bits for a subnormal number"):
            encoded(np.array([0, pattern], np.uint16), 2, exponent)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_overflow_on_the_way_back_is_refused(exponent: int) -> None:
    for sign in (0, 0x8000):
        for field in range(255 + exponent, 255):
            with pytest.raises(CodecError, match=r"times 2\^\d is too large"):
                decoded(np.array([0, sign | field << 7], np.uint16), 2, exponent)


def test_a_refusal_names_tensor_index_and_count() -> None:
    values = np.full((64, 3), 0x3F80, np.uint16)
    values[2, 1] = values[5, 0] = 1
    message = r"tensor 'q': the value at index \(4098, 1\) times 2\^-1 has too many bits .* \(and 1 more\); .*9.18"
    with pytest.raises(CodecError, match=message):
        encode_heads(values, 64, -1, np.empty_like(values), tensor="q", first_row=4096)


@pytest.mark.parametrize(("n_rows", "head_dim"), [(63, 64), (64, 3), (64, 0), (96, 64)])
def test_rows_that_are_not_whole_heads_are_refused(n_rows: int, head_dim: int) -> None:
    with pytest.raises(CodecError, match="not whole heads"):
        encoded(np.zeros((n_rows, 2), np.uint16), head_dim, 0)


def test_every_scale_is_shifted_and_back() -> None:
    scales = np.arange(241, dtype=np.uint8)
    stored, back = np.empty_like(scales), np.empty_like(scales)
    shift_scales(scales, 14, stored)
    shift_scales(stored, -14, back)
    assert stored.tolist() == list(range(14, 255))
    assert np.array_equal(back, scales)


def test_scales_may_be_shifted_in_place() -> None:
    scales = np.array([[120, 121]], np.uint8)
    shift_scales(scales, 14, scales)
    assert scales.tolist() == [[134, 135]]


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [(241, 14, "0 to 240"), (255, 14, "0 to 240"), (13, -14, "14 to 255"), (0, -14, "14 to 255")],
)
def test_a_scale_that_would_wrap_is_refused(scale: int, shift: int, expected: str) -> None:
    scales = np.full((2, 3), 100, np.uint8)
    scales[1, 2] = scale
    message = rf"tensor 's': the scale at index \(9, 2\) cannot be shifted by {shift}; expected {expected}; .* {scale}"
    with pytest.raises(CodecError, match=message):
        shift_scales(scales, shift, np.empty_like(scales), tensor="s", first_row=8)


def test_a_stored_scale_of_255_is_read() -> None:
    """OpenAI's script writes it for 241; its kernels take it for infinity, so we do not write it."""
    out = np.empty(1, np.uint8)
    shift_scales(np.array([255], np.uint8), -14, out)
    assert out[0] == 241
