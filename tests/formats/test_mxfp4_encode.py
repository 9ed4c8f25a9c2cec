"""Floats to MXFP4 by every rule, against float64 arithmetic, and MXFP4 -> BF16 -> MXFP4.

Every test runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from mxfp4_reference import (
    ELEMENT,
    KINDS,
    STEPS,
    as_encoding,
    as_numbers,
    decoded,
    exact_exponents,
    exponents,
    hard_blocks,
    nearest_codes,
    packed,
)
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import mxfp4, mxfp4_encode
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.mxfp4_encode import EncodeStats, Prefer, encode, encode_like, survey
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]

OCP_RULES = (ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.EVEN)
ENCODINGS = ("BF16", "F16", "F32")


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def empty(n_rows: int, groups: int) -> Mxfp4:
    return Mxfp4(np.full((n_rows, groups, 16), 0xEE, np.uint8), np.full((n_rows, groups), 0xEE, np.uint8))


def encoded(numbers: Array, encoding: str, rule: ScaleRule, **options: Any) -> tuple[Array, Array, EncodeStats]:
    """blocks [n, 16], scales [n] and stats of `numbers` [n, 32]: four blocks a row, the last row filled with zeros."""
    n_rows = -(-len(numbers) // 4)
    values = np.zeros((n_rows * 4, 32), ELEMENT[encoding])
    values[: len(numbers)] = as_encoding(numbers, encoding)
    out = empty(n_rows, 4)
    stats = encode(values.reshape(n_rows, 128), encoding, rule, out, **options)
    return out.blocks.reshape(-1, 16)[: len(numbers)], out.scales.reshape(-1)[: len(numbers)], stats


def rule_reference(numbers: Array, rule: str) -> tuple[Array, Array]:
    """blocks and scales by float64 arithmetic."""
    exponent = exponents(np.abs(numbers).max(axis=1), rule)
    return packed(nearest_codes(numbers, exponent)), (exponent + 127).astype(np.uint8)


def exact_reference(numbers: Array, prefer: Prefer, fallback: str) -> tuple[Array, Array]:
    exact, lowest, highest = exact_exponents(numbers)
    chosen = highest if prefer is Prefer.HIGH else lowest
    exponent = np.where(exact, chosen, exponents(np.abs(numbers).max(axis=1), fallback))
    return packed(nearest_codes(numbers, exponent)), (exponent + 127).astype(np.uint8)


# --- the rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", OCP_RULES)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_is_byte_identical_to_float64_arithmetic(kind: str, encoding: str, rule: ScaleRule) -> None:
    numbers = hard_blocks(kind, encoding)
    blocks, scales, _ = encoded(numbers, encoding, rule)
    expected_blocks, expected_scales = rule_reference(numbers, rule)
    assert np.array_equal(scales, expected_scales)
    assert np.array_equal(blocks, expected_blocks)


@pytest.mark.parametrize("rule", OCP_RULES)
def test_every_bf16_magnitude_as_the_largest_is_byte_identical_to_float64_arithmetic(rule: ScaleRule) -> None:
    patterns = np.arange(0x7F80 if rule is ScaleRule.FLOOR else 0x7F60, dtype=np.uint16)
    numbers = np.zeros((len(patterns), 32))
    numbers[:, 5] = as_numbers(patterns, "BF16")
    numbers[:, 6] = -numbers[:, 5] / 2
    numbers = as_numbers(as_encoding(numbers, "BF16"), "BF16")
    blocks, scales, _ = encoded(numbers, "BF16", rule)
    expected_blocks, expected_scales = rule_reference(numbers, rule)
    assert np.array_equal(scales, expected_scales)
    assert np.array_equal(blocks, expected_blocks)


@pytest.mark.parametrize("exponent", [-127, -126, -125, -124, -1, 0, 120])
def test_every_bf16_magnitude_below_the_largest_is_byte_identical_to_float64_arithmetic(exponent: int) -> None:
    top = int(as_encoding(np.ldexp([4.0], exponent), "BF16")[0])
    numbers = as_numbers(np.arange((top + 31) // 31 * 31, dtype=np.uint16).reshape(-1, 31).clip(max=top), "BF16")
    numbers = np.concatenate([np.full((len(numbers), 1), np.ldexp(4.0, exponent)), numbers], axis=1)
    blocks, scales, _ = encoded(numbers, "BF16", ScaleRule.FLOOR)
    assert (scales == exponent + 127).all()
    assert np.array_equal(blocks, packed(nearest_codes(numbers, np.full(len(numbers), exponent))))


@pytest.mark.parametrize("fallback", OCP_RULES)
@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_exact_rule_is_byte_identical_to_a_search_of_all_exponents(
    encoding: str, prefer: Prefer, fallback: ScaleRule
) -> None:
    numbers = np.concatenate([steps_blocks(encoding), hard_blocks("random", encoding, 100)])
    blocks, scales, stats = encoded(numbers, encoding, ScaleRule.EXACT, prefer=prefer, fallback=fallback)
    expected_blocks, expected_scales = exact_reference(numbers, prefer, fallback)
    assert np.array_equal(scales, expected_scales)
    assert np.array_equal(blocks, expected_blocks)
    exact, lowest, highest = exact_exponents(numbers)
    assert stats.blocks_exact - (stats.blocks - len(numbers)) == np.count_nonzero(exact)
    assert stats.blocks_ambiguous == np.count_nonzero(exact & (lowest < highest)) > 20


def steps_blocks(encoding: str) -> Array:
    """Blocks of few different codes, exact ones and ones that a single value spoils, down to the lowest scales."""
    rng = np.random.default_rng(3)
    rows = []
    for exponent in range(-20, 10) if encoding == "F16" else [*range(-127, -118), *range(-5, 5), *range(120, 125)]:
        for _ in range(40):
            levels = rng.choice([*STEPS, 0.75, 1.25], rng.integers(1, 5), p=[0.115] * 8 + [0.04] * 2)
            rows.append(np.ldexp(rng.choice(levels, 32) * rng.choice([-1.0, 1.0], 32), exponent))
    return np.array(rows)


def test_six_steps_without_halves_are_exact_at_two_exponents() -> None:
    numbers = np.ldexp(STEPS[[0, 2, 4, 5, 6, 7] * 5 + [0, 7]], 3)[None]
    low, high = (encoded(numbers, "BF16", ScaleRule.EXACT, prefer=prefer) for prefer in (Prefer.LOW, Prefer.HIGH))
    assert (low[1][0], high[1][0]) == (130, 131)
    assert low[2].blocks_ambiguous == high[2].blocks_ambiguous == 1


@pytest.mark.parametrize("half", [0.5, 1.5, -0.5, -1.5])
def test_six_steps_with_a_half_are_exact_at_one_exponent(half: float) -> None:
    numbers = np.full((1, 32), 6.0)
    numbers[0, 17] = half
    _, scales, stats = encoded(numbers, "BF16", ScaleRule.EXACT, prefer=Prefer.HIGH)
    assert (scales[0], stats.blocks_ambiguous) == (127, 0)


# --- the statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_statistics_are_those_of_float64_arithmetic(encoding: str, rule: ScaleRule) -> None:
    numbers = np.concatenate(
        [hard_blocks("random", encoding, 300, seed=1), steps_blocks(encoding)[::7], np.zeros((4, 32))]
    )
    numbers = numbers[: len(numbers) // 4 * 4]
    _, scales, stats = encoded(numbers, encoding, rule)
    values = decoded(nearest_codes(numbers, scales.astype(int) - 127), scales.astype(int) - 127)
    requantized = (values != numbers).any(axis=1)
    assert stats.blocks == len(numbers)
    assert stats.blocks_zero == np.count_nonzero(~numbers.any(axis=1))
    assert stats.blocks_requantized == np.count_nonzero(requantized)
    error = np.square(numbers - values)[requantized].sum()
    square = np.square(numbers[requantized]).sum()
    assert stats.squared_error == pytest.approx(error, rel=1e-12)
    assert stats.relative_mse == pytest.approx(error / square, rel=1e-12)


def test_statistics_add_up_and_an_exact_tensor_has_no_error() -> None:
    total = EncodeStats(10, 1, 7, 2, 3, 0.5, 50.0) + EncodeStats(10, 0, 10, 1, 4, 0.0, 0.0)
    assert total == EncodeStats(20, 1, 17, 3, 7, 0.5, 50.0)
    assert (total.blocks_requantized, total.relative_mse) == (3, 0.01)
    assert EncodeStats(5, 0, 5).relative_mse == 0.0


# --- zeros, ends of the range, refusals --------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_block_of_zeros_gets_scale_0_and_keeps_its_signs(encoding: str, rule: ScaleRule) -> None:
    blocks, scales, stats = encoded(np.tile([0.0, -0.0, -0.0, 0.0], (4, 8)), encoding, rule)
    assert (stats.blocks_zero, stats.blocks_exact, stats.relative_mse) == (4, 4, 0.0)
    assert not scales.any()
    assert np.array_equal(blocks, np.tile(np.uint8([0x80, 0x08]), (4, 8)))


BAD_VALUES = {"nan": (np.nan, "nan"), "inf": (np.inf, "inf"), "-inf": (-np.inf, "-inf")}


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bad", BAD_VALUES)
def test_what_is_not_finite_is_refused_by_row_block_and_element(
    bad: str, encoding: str, rule: ScaleRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mxfp4_encode, "_CHUNK_BLOCKS", 6)
    value, name = BAD_VALUES[bad]
    values = np.zeros((9, 96), ELEMENT[encoding])
    values[7, 2 * 32 + 13] = as_encoding(np.array([value]), encoding)[0]
    message = f"row 7, block 2, element 13 is not finite.*expected a finite value; found {name}"
    with pytest.raises(CodecError, match=message):
        encode(values, encoding, rule, empty(9, 3))
    with pytest.raises(CodecError, match=message):
        survey(values, encoding)


@pytest.mark.parametrize("encoding", ["BF16", "F32"])
@pytest.mark.parametrize("rule", [ScaleRule.CEIL, ScaleRule.EVEN, ScaleRule.EXACT])
def test_what_would_round_to_two_to_the_128_is_refused(rule: ScaleRule, encoding: str) -> None:
    numbers = np.zeros((1, 32))
    numbers[0, 31] = -np.ldexp(1.75, 127)
    message = re.escape(
        "element 31 would be rounded to 2^128, which no float can hold; expected a magnitude below 1.75"
    )
    with pytest.raises(CodecError, match=message):
        encoded(numbers, encoding, rule)


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("encoding", ["BF16", "F32"])
def test_the_largest_values_that_are_taken_decode_again(encoding: str, rule: ScaleRule) -> None:
    below = np.nextafter(np.float32(np.ldexp(1.75, 127)), np.float32(0)) if encoding == "F32" else np.ldexp(222.0, 120)
    largest = float(np.finfo(np.float32).max) if rule is ScaleRule.FLOOR and encoding == "F32" else float(below)
    blocks, scales, _ = encoded(np.tile([largest, -largest / 4], (4, 16)), encoding, rule)
    out = np.empty((1, 128), np.uint16)
    mxfp4.decode_bf16(Mxfp4(blocks.reshape(1, 4, 16), scales.reshape(1, 4)), out)
    assert as_numbers(out, "BF16")[0, 0] == np.ldexp(1.5, 127)


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_second_row_is_read_and_written_in_place(encoding: str) -> None:
    numbers = np.stack([hard_blocks("random", encoding, 3, seed).reshape(96) for seed in range(9)])
    whole = as_encoding(numbers, encoding)
    expected, out, like = empty(4, 3), empty(9, 3), empty(8, 3)
    stats = encode(whole[1::2].copy(), encoding, ScaleRule.EXACT, expected)
    every_second = Mxfp4(out.blocks[1::2], out.scales[1::2])
    assert encode(whole[1::2], encoding, ScaleRule.EXACT, every_second) == stats
    like.blocks[::2], like.scales[::2] = expected.blocks, expected.scales
    encode_like(whole[1::2], encoding, Mxfp4(like.blocks[::2], like.scales[::2]), ScaleRule.EXACT, every_second)
    assert np.array_equal(out.blocks[1::2], expected.blocks)
    assert np.array_equal(out.scales[1::2], expected.scales)
    assert (out.blocks[::2] == 0xEE).all()
    assert (out.scales[::2] == 0xEE).all()


@pytest.mark.parametrize(("n_rows", "groups"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_encoded_to_nothing(n_rows: int, groups: int) -> None:
    values = np.zeros((n_rows, groups * 32), np.uint16)
    for encoding in ("BF16", "F16"):
        assert encode(values, encoding, ScaleRule.EXACT, empty(n_rows, groups)) == EncodeStats()
        assert survey(values, encoding) == EncodeStats()


def test_f16_in_several_pieces_is_the_same_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = as_encoding(hard_blocks("random", "F16", 60).reshape(20, 96), "F16")
    one, several = empty(20, 3), empty(20, 3)
    whole = encode(values, "F16", ScaleRule.EVEN, one)
    monkeypatch.setattr(mxfp4_encode, "_CHUNK_BLOCKS", 10)
    stats = encode(values, "F16", ScaleRule.EVEN, several)
    assert stats.relative_mse == pytest.approx(whole.relative_mse)
    assert np.array_equal(one.blocks, several.blocks)
    assert np.array_equal(one.scales, several.scales)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 95), np.uint16), np.zeros((2, 96), np.float32), np.zeros((2, 192), np.uint16)[:, ::2]]
)
def test_values_of_another_shape_dtype_or_stride_are_refused(values: Array) -> None:
    with pytest.raises(CodecError, match="the array values has the wrong shape, dtype or strides"):
        encode(values, "BF16", ScaleRule.EXACT, empty(2, 3))
