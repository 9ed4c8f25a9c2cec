"""The encoder's numba kernels and their numpy twin are the same function, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxfp4_reference import KINDS, STEPS, as_encoding, hard_blocks
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import numba_encode, numpy_encode
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.mxfp4_scales import ScaleRule, Tally, encode_kernels, scaling, tables

Array = NDArray[Any]

checked = settings(deadline=None, max_examples=80)
shapes = st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 3, 90, 131]))
seeds = st.integers(0, 2**32 - 1)
encodings = st.sampled_from(["BF16", "F32"])
fallbacks = st.sampled_from([ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.EVEN])


def spread(array: Array, kind: int) -> Array:
    """The array's values in its own memory (0), in every second row (1), or that from an odd address (2)."""
    step = 1 if kind == 0 else 2
    raw = np.full(step * array.nbytes + 1, 0xEE, np.uint8)[kind // 2 :][: step * array.nbytes]
    out = raw.view(array.dtype).reshape(step * array.shape[0], *array.shape[1:])[::step]
    out[:] = array
    return out


def values_of(kind: str, encoding: str, shape: tuple[int, int], seed: int) -> Array:
    """Patterns [N, G * 32]: blocks of a kind of `hard_blocks`, half of them with few steps, some of zeros."""
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    numbers = hard_blocks(kind, encoding, n, seed)
    exponent = rng.choice([-127, -126, -125, -3, 0, 100], (n, 1))
    steps = np.ldexp(rng.choice(STEPS * rng.choice([0, 1], 8), (n, 32)), exponent) * rng.choice([-1.0, 1.0], (n, 32))
    numbers = np.where(rng.random((n, 1)) < 0.5, steps, numbers)
    return as_encoding(numbers, encoding).view("u2" if encoding == "BF16" else "u4").reshape(shape[0], -1)


def empty(shape: tuple[int, int], kind: int) -> tuple[Array, Array]:
    return spread(np.full((*shape, 16), 0xEE, np.uint8), kind), spread(np.full(shape, 0xEE, np.uint8), kind)


def memory(outs: tuple[Array, Array]) -> list[bytes]:
    """All bytes of the outputs, those between rows too."""
    return [(out if out.base is None else out.base).tobytes() for out in outs]


@checked
@given(
    kind=st.sampled_from(KINDS),
    encoding=encodings,
    shape=shapes,
    seed=seeds,
    rule=st.sampled_from(ScaleRule),
    fallback=fallbacks,
    high=st.booleans(),
    layout=st.integers(0, 2),
)
def test_encode_is_the_same(
    kind: str,
    encoding: str,
    shape: tuple[int, int],
    seed: int,
    rule: ScaleRule,
    fallback: ScaleRule,
    high: bool,
    layout: int,
) -> None:
    values = spread(values_of(kind, encoding, shape, seed), layout)
    before = values.copy()
    found = []
    for module in (numba_encode, numpy_encode):
        outs = empty(shape, layout)
        tally = module.encode(values, tables(encoding), scaling(encoding, rule, fallback, high), *outs)
        found.append((tally, memory(outs)))
    assert found[0] == found[1]
    assert np.array_equal(values, before)


@checked
@given(encoding=encodings, shape=shapes, seed=seeds, share=st.floats(0, 1), layout=st.integers(0, 2))
def test_keep_is_the_same(encoding: str, shape: tuple[int, int], seed: int, share: float, layout: int) -> None:
    values = spread(values_of("random", encoding, shape, seed), layout)
    rng = np.random.default_rng(seed)
    like = empty(shape, layout)
    numba_encode.encode(values, tables(encoding), scaling(encoding, ScaleRule.EXACT, ScaleRule.EVEN, False), *like)
    spoilt = rng.random(shape) < share
    like[0][spoilt, rng.integers(0, 16)] ^= np.uint8(1 << rng.integers(0, 8))
    like[1][rng.random(shape) < share / 2] = rng.integers(0, 255)
    found = []
    for module in (numba_encode, numpy_encode):
        outs = empty(shape, layout)
        found.append((module.keep(values, tables(encoding), like, *outs), memory(outs)))
    assert found[0] == found[1]


@checked
@given(encoding=encodings, shape=shapes, seed=seeds, n_bad=st.integers(1, 3), rule=st.sampled_from(ScaleRule))
def test_the_same_block_is_refused(
    encoding: str, shape: tuple[int, int], seed: int, n_bad: int, rule: ScaleRule
) -> None:
    values = np.ones((shape[0], shape[1] * 32), np.uint16 if encoding == "BF16" else np.uint32)
    numbers = scaling(encoding, rule, ScaleRule.EVEN, False)
    bad = np.random.default_rng(seed).integers(0, values.size, n_bad)
    values.reshape(-1)[bad] = numbers.limit
    tallies = [
        module.encode(values, tables(encoding), numbers, *empty(shape, 0)) for module in (numba_encode, numpy_encode)
    ]
    assert [tally.refused for tally in tallies] == [bad.min() // 32] * 2
    values.reshape(-1)[bad] = numbers.limit - 1
    assert numba_encode.encode(values, tables(encoding), numbers, *empty(shape, 0)).refused == -1


def test_a_refusal_counts_nothing() -> None:
    values = np.zeros((2, 64), np.uint16)
    values[1, 40] = 0x7F80
    numbers = scaling("BF16", ScaleRule.FLOOR, ScaleRule.EVEN, False)
    for module in (numba_encode, numpy_encode):
        assert module.encode(values, tables("BF16"), numbers, *empty((2, 2), 0)) == Tally(3, 0, 0, 0, 0.0, 0.0)


def test_the_kernels_are_chosen_as_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for choice, module in (("0", numba_encode), ("1", numpy_encode)):
        monkeypatch.setenv(NO_NUMBA_VARIABLE, choice)
        assert encode_kernels() is module
