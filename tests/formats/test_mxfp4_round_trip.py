"""MXFP4 -> floats -> MXFP4: what comes back byte-identical, what value-identical, and what `like` adds.

Every test runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mxfp4_reference import as_encoding, as_numbers
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import mxfp4, mxfp4_encode
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.mxfp4_encode import EncodeStats, Prefer, encode, encode_like, survey
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule
from gptoss_convert.formats.errors import CodecError

Array = NDArray[Any]

OCP_RULES = (ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.EVEN)


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def empty(n_rows: int, groups: int) -> Mxfp4:
    return Mxfp4(np.full((n_rows, groups, 16), 0xEE, np.uint8), np.full((n_rows, groups), 0xEE, np.uint8))


def family(rule: ScaleRule, n_rows: int = 1000, groups: int = 90, seed: int = 0) -> Mxfp4:
    """What a writer that uses `rule` makes of normal weights."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n_rows, groups * 32), np.float32) * rng.uniform(0.005, 0.05, (n_rows, 1))
    out = empty(n_rows, groups)
    encode(as_encoding(values, "BF16"), "BF16", rule, out)
    return out


def as_bf16(mx: Mxfp4) -> NDArray[np.uint16]:
    out = np.empty((len(mx.scales), mx.scales.shape[1] * 32), np.uint16)
    mxfp4.decode_bf16(mx, out)
    return out


# --- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("rule", OCP_RULES)
def test_mxfp4_to_bf16_and_back_is_value_identical_whoever_wrote_it(rule: ScaleRule, prefer: Prefer) -> None:
    source = family(rule, 100)
    out = empty(*source.scales.shape)
    stats = encode(as_bf16(source), "BF16", ScaleRule.EXACT, out, prefer=prefer)
    assert stats.blocks_requantized == 0
    assert as_bf16(out).tobytes() == as_bf16(source).tobytes()


@pytest.mark.parametrize("rule", [ScaleRule.FLOOR, ScaleRule.EVEN])
def test_what_floor_or_even_wrote_comes_back_byte_identical(rule: ScaleRule) -> None:
    source = family(rule)
    found = survey(as_bf16(source), "BF16")
    assert 0 < found.blocks_ambiguous / found.blocks < 5e-4
    out = empty(*source.scales.shape)
    encode(as_bf16(source), "BF16", ScaleRule.EXACT, out, prefer=found.prefer)
    assert np.array_equal(out.scales, source.scales)
    assert np.array_equal(out.blocks, source.blocks)


def test_what_ceil_wrote_comes_back_byte_identical_but_for_one_block_in_ten_thousand() -> None:
    source = family(ScaleRule.CEIL)
    found = survey(as_bf16(source), "BF16")
    assert 0.2 < found.blocks_ambiguous / found.blocks < 0.3
    out = empty(*source.scales.shape)
    encode(as_bf16(source), "BF16", ScaleRule.EXACT, out, prefer=found.prefer)
    changed = (out.scales != source.scales) | (out.blocks != source.blocks).any(axis=2)
    assert 0 <= np.count_nonzero(changed) <= 1e-4 * changed.size
    assert (out.scales[changed] == source.scales[changed] + 1).all()
    codes = np.stack([source.blocks & 7, source.blocks >> 4 & 7], axis=-1)[changed]
    assert not np.isin(codes, [1, 3]).any(), "a changed block that was not ambiguous"


@pytest.mark.parametrize("rule", OCP_RULES)
def test_a_thousand_blocks_tell_who_wrote_the_tensor(rule: ScaleRule) -> None:
    expected = Prefer.HIGH if rule is ScaleRule.CEIL else Prefer.LOW
    for seed in range(20):
        assert survey(as_bf16(family(rule, 100, 10, seed)), "BF16").prefer is expected


def test_zeros_and_changed_blocks_do_not_count_in_the_decision() -> None:
    assert EncodeStats(blocks=10_000, blocks_zero=900, blocks_exact=1000, blocks_ambiguous=3).prefer is Prefer.HIGH
    assert EncodeStats(blocks=10_000, blocks_zero=0, blocks_exact=1000, blocks_ambiguous=20).prefer is Prefer.LOW
    assert EncodeStats().prefer is Prefer.LOW


def test_surveys_of_slabs_add_up_to_the_survey_of_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    values = as_bf16(family(ScaleRule.CEIL, 50, 7))
    whole = survey(values, "BF16")
    monkeypatch.setattr(mxfp4_encode, "_CHUNK_BLOCKS", 20)
    assert survey(values, "BF16") == whole
    assert survey(values[:31], "BF16") + survey(values[31:], "BF16") == whole


# --- like --------------------------------------------------------------------------------------------------------


def awkward() -> Mxfp4:
    """Every kind of block whose bytes cannot be told from its values, and random ones of any scale to 252."""
    rng = np.random.default_rng(7)
    source = Mxfp4(rng.integers(0, 256, (40, 9, 16), np.uint8), rng.integers(0, 253, (40, 9), dtype=np.uint8))
    source.blocks[::3] &= 0x88  # zeros of both signs, under any scale
    source.blocks[1::3] &= 0x99  # 0.5 at most
    return source


@pytest.mark.parametrize("rule", ScaleRule)
def test_unchanged_blocks_of_like_come_back_byte_identical_in_full(rule: ScaleRule) -> None:
    for source in (awkward(), *(family(each, 100) for each in OCP_RULES)):
        out = empty(*source.scales.shape)
        stats = encode_like(as_bf16(source), "BF16", source, rule, out)
        assert stats.blocks_unchanged == stats.blocks == source.scales.size
        assert np.array_equal(out.scales, source.scales)
        assert np.array_equal(out.blocks, source.blocks)


@pytest.mark.parametrize("encoding", ["BF16", "F32", "F16"])
def test_changed_blocks_get_the_rule_and_the_others_the_bytes_of_like(encoding: str) -> None:
    source = family(ScaleRule.CEIL, 30, 8)
    values = as_encoding(as_numbers(as_bf16(source), "BF16"), encoding)
    changed = np.random.default_rng(0).random(source.scales.shape) < 0.3
    rows, groups = np.nonzero(changed)
    values.view(f"u{values.itemsize}")[rows, groups * 32 + 11] ^= 1
    plain, out = empty(30, 8), empty(30, 8)
    encode(values, encoding, ScaleRule.EXACT, plain)
    stats = encode_like(values, encoding, source, ScaleRule.EXACT, out)
    assert stats.blocks_unchanged == np.count_nonzero(~changed)
    assert stats.blocks_requantized == np.count_nonzero(changed)
    for found, by_rule, of_like in zip(planes(out), planes(plain), planes(source), strict=True):
        assert np.array_equal(found[changed], by_rule[changed])
        assert np.array_equal(found[~changed], of_like[~changed])


def planes(mx: Mxfp4) -> tuple[Array, Array]:
    return mx.blocks, mx.scales


def test_a_zero_of_the_other_sign_is_a_change() -> None:
    source = Mxfp4(np.full((1, 2, 16), 0x50, np.uint8), np.full((1, 2), 120, np.uint8))
    values = as_bf16(source)
    values[0, 32] = 0x8000
    out = empty(1, 2)
    assert encode_like(values, "BF16", source, ScaleRule.FLOOR, out).blocks_unchanged == 1
    assert out.blocks[0, 1, 0] & 15 == 8
    assert out.scales[0].tolist() == [120, 119]


def test_a_value_that_f16_could_not_hold_is_a_change() -> None:
    source = Mxfp4(np.full((1, 1, 16), 0x77, np.uint8), np.full((1, 1), 90, np.uint8))
    values = np.empty((1, 32), np.uint16)
    assert mxfp4.decode_f16(source, values) == 32
    assert encode_like(values, "F16", source, ScaleRule.EXACT, empty(1, 1)).blocks_unchanged == 0


def test_a_like_with_a_nan_scale_is_refused() -> None:
    like = Mxfp4(np.zeros((1, 2, 16), np.uint8), np.uint8([[0, 255]]))
    with pytest.raises(CodecError, match="row 0, block 1: the scale is NaN"):
        encode_like(np.zeros((1, 64), np.uint16), "BF16", like, ScaleRule.EXACT, empty(1, 2))


def test_a_like_of_another_shape_is_refused() -> None:
    like = Mxfp4(np.zeros((1, 3, 16), np.uint8), np.zeros((1, 3), np.uint8))
    with pytest.raises(CodecError, match="the array scales of like has the wrong shape"):
        encode_like(np.zeros((1, 64), np.uint16), "BF16", like, ScaleRule.EXACT, empty(1, 2))
