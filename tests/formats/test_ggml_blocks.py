"""ggml's block types decode byte-identical to ggml itself, and what its validation refuses is refused.

Every test that decodes runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

import ggml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import ggml_blocks, numba_ggml, numpy_ggml
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.ggml_blocks import TYPES, decode
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.errors import CodecError

Bytes = NDArray[np.uint8]
Values = NDArray[np.float32]

every_type = pytest.mark.parametrize("name", TYPES)
every_half = pytest.mark.parametrize(("name", "half"), [(name, half) for name in TYPES for half in TYPES[name].halves])

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16)
FINITE_HALVES = ALL_HALVES[(ALL_HALVES & 0x7C00) != 0x7C00]
# 0, -0, the smallest and the largest subnormal, the smallest normal, 1, the largest, and the same negative.
EDGE_HALVES = np.array([s | m for s in (0, 0x8000) for m in (0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF)], np.uint16)


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def put_half(name: str, data: Bytes, half: str, patterns: NDArray[np.uint16]) -> None:
    """Writes an F16 pattern into each block of `data` [n, block bytes]."""
    at = TYPES[name].halves[half]
    data[:, at : at + 2] = patterns.astype("<u2").view(np.uint8).reshape(-1, 2)


def random_blocks(name: str, n: int, seed: int = 0) -> Bytes:
    """Random bytes, all F16 numbers finite."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (n, TYPES[name].block_bytes), dtype=np.uint8)
    for half in TYPES[name].halves:
        put_half(name, data, half, rng.choice(FINITE_HALVES, n))
    return data


def decoded(name: str, data: Bytes) -> Values:
    """The values of blocks [n, block bytes], decoded as one row: float32 [n, block elements]."""
    out = np.full((1, len(data) * TYPES[name].block_elements), np.nan, np.float32)
    decode(name, data.reshape(1, -1), out)
    return out.reshape(len(data), -1)


def assert_byte_identical_to_ggml(name: str, data: Bytes) -> None:
    assert ggml.is_valid(name, data)
    assert decoded(name, data).tobytes() == ggml.dequantize(name, data).tobytes()


def codes_of_32(name: str, codes: NDArray[np.uint8]) -> Bytes:
    """Blocks of 32-element types with these codes [n, 32], all F16 numbers 0, laid out as ggml's drawing says."""
    data = np.zeros((len(codes), TYPES[name].block_bytes), np.uint8)
    if name == "Q8_0":
        data[:, 2:] = codes
        return data
    data[:, -16:] = codes[:, :16] & 15 | codes[:, 16:] << 4
    if name in ("Q5_0", "Q5_1"):
        data[:, -20:-16] = np.packbits(codes >> 4, axis=1, bitorder="little")
    return data


def test_the_table_is_that_of_ggml_and_of_the_container() -> None:
    of_container = {kind.name: (kind.block_elements, kind.block_bytes) for kind in GGML_TYPES.values()}
    for name, kind in TYPES.items():
        assert kind[:2] == ggml.block_size(name) == of_container[name]


@every_type
def test_random_blocks_are_byte_identical(name: str) -> None:
    assert_byte_identical_to_ggml(name, random_blocks(name, 20_000))


@every_half
def test_every_finite_half_is_byte_identical(name: str, half: str) -> None:
    data = random_blocks(name, len(FINITE_HALVES), seed=1)
    put_half(name, data, half, FINITE_HALVES)
    assert_byte_identical_to_ggml(name, data)


@pytest.mark.parametrize("name", [name for name, kind in TYPES.items() if kind.block_elements == 32 and name != "Q8_0"])
def test_every_code_with_every_finite_scale_is_byte_identical(name: str) -> None:
    n_codes = 32 if name in ("Q5_0", "Q5_1") else 16
    rising = np.arange(32, dtype=np.uint8) % n_codes
    data = codes_of_32(name, np.stack([rising, rising[::-1]])).repeat(len(FINITE_HALVES), axis=0)
    put_half(name, data, "d", np.tile(FINITE_HALVES, 2))
    if "m" in TYPES[name].halves:
        put_half(name, data, "m", np.random.default_rng(2).choice(FINITE_HALVES, len(data)))
    assert_byte_identical_to_ggml(name, data)


def test_every_code_of_q8_0_with_every_finite_scale_is_byte_identical() -> None:
    for codes in np.arange(256, dtype=np.uint8).reshape(8, 1, 32):
        data = codes_of_32("Q8_0", codes).repeat(len(FINITE_HALVES), axis=0)
        put_half("Q8_0", data, "d", FINITE_HALVES)
        assert_byte_identical_to_ggml("Q8_0", data)


@every_type
def test_every_bit_of_a_block_is_read_where_ggml_reads_it(name: str) -> None:
    n_bits = 8 * TYPES[name].block_bytes
    one_bit = np.packbits(np.eye(n_bits, dtype=np.uint8), axis=1, bitorder="little")
    data = np.concatenate([one_bit, ~one_bit])
    for half in TYPES[name].halves:
        put_half(name, data, half, np.full(2 * n_bits, 0x3C00, np.uint16))
    assert_byte_identical_to_ggml(name, data)


@every_type
@pytest.mark.parametrize("byte", [0x00, 0x80, 0x7F, 0xFF])
def test_extreme_blocks_are_byte_identical(name: str, byte: int) -> None:
    """Every pair of edge cases of the F16 numbers, all other bytes alike: signed zeros, subnormals, largest values."""
    first, second = (grid.reshape(-1) for grid in np.meshgrid(EDGE_HALVES, EDGE_HALVES))
    data = np.full((len(first), TYPES[name].block_bytes), byte, np.uint8)
    for half, patterns in zip(TYPES[name].halves, (first, second), strict=False):
        put_half(name, data, half, patterns)
    assert_byte_identical_to_ggml(name, data)


@every_type
def test_what_ggml_quantized_decodes_byte_identical(name: str) -> None:
    values = np.random.default_rng(3).standard_normal((500, TYPES[name].block_elements), np.float32)
    assert_byte_identical_to_ggml(name, ggml.quantize(name, values))


def test_elements_lie_where_the_drawing_says() -> None:
    """Q4_1 with d = 2, m = -1: the low nibbles come first."""
    data = np.frombuffer(bytes.fromhex("0040 00bc f0e1d2c3 b4a59687 78695a4b 3c2d1e0f"), np.uint8)
    expected = [2 * code - 1 for code in [*range(16), *range(15, -1, -1)]]
    assert decoded("Q4_1", data[None])[0].tolist() == expected


@every_half
@pytest.mark.parametrize(
    "pattern", [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF], ids=["inf", "-inf", "nan", "nan2", "-nan"]
)
def test_what_ggmls_validation_refuses_is_refused_by_row_and_block(name: str, half: str, pattern: int) -> None:
    data = random_blocks(name, 15)
    put_half(name, data[11:12], half, np.array([pattern], np.uint16))
    assert not ggml.is_valid(name, data)
    out = np.empty((3, 5 * TYPES[name].block_elements), np.float32)
    found = np.array([pattern], np.uint16).view(np.float16)[0]
    with pytest.raises(CodecError, match=f"row 2, block 1: the {name} scale {half} is not finite; .*found {found}"):
        decode(name, data.reshape(3, -1), out)


@every_type
def test_the_first_bad_block_is_named(name: str) -> None:
    data = random_blocks(name, 12)
    for block in (7, 5, 10):
        put_half(name, data[block : block + 1], "d", np.array([0x7C00], np.uint16))
    with pytest.raises(CodecError, match="row 1, block 1: "):
        decode(name, data.reshape(3, -1), np.empty((3, 4 * TYPES[name].block_elements), np.float32))


@every_type
@pytest.mark.parametrize(("n_rows", "groups"), [(0, 3), (3, 0), (1, 1), (7, 3), (3, 300)])
def test_strided_read_only_rows_decode_as_contiguous_ones(name: str, n_rows: int, groups: int) -> None:
    kind = TYPES[name]
    data = random_blocks(name, 2 * n_rows * groups).reshape(2 * n_rows, groups * kind.block_bytes)
    data.setflags(write=False)
    together = np.empty((2 * n_rows, groups * kind.block_elements), np.float32)
    decode(name, data, together)
    apart = np.full_like(together, 7)
    decode(name, data[1::2], apart[0::2])
    assert apart[0::2].tobytes() == together[1::2].tobytes()
    assert np.all(apart[1::2] == 7)


def test_a_bad_block_of_strided_rows_is_named() -> None:
    data = random_blocks("Q8_0", 400 * 90).reshape(400, 90, 34)
    data[301, 44, :2] = 0xFF
    with pytest.raises(CodecError, match="row 150, block 44: the Q8_0 scale d is not finite"):
        decode("Q8_0", data[1::2].reshape(200, -1), np.empty((200, 90 * 32), np.float32))
    with pytest.raises(CodecError, match="row 150, block 44: the Q8_0 scale d is not finite"):
        decode("Q8_0", data.reshape(400, -1)[1::2], np.empty((200, 90 * 32), np.float32))


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(CodecError, match=r"no decoder .*expected Q4_0, .*Q6_K; found IQ2_XXS"):
        decode("IQ2_XXS", np.zeros((1, 66), np.uint8), np.zeros((1, 256), np.float32))


@every_type
def test_wrong_shapes_are_refused(name: str) -> None:
    kind = TYPES[name]
    row = np.zeros((2, kind.block_bytes), np.uint8)
    with pytest.raises(CodecError, match=f"not a whole number of {name} blocks; .*a multiple of {kind.block_elements}"):
        decode(name, row, np.zeros((2, kind.block_elements + 16), np.float32))
    with pytest.raises(CodecError, match="the array data has the wrong shape"):
        decode(name, row, np.zeros((2, 2 * kind.block_elements), np.float32))
    with pytest.raises(CodecError, match="the array out has the wrong shape, dtype"):
        decode(name, row, np.zeros((2, kind.block_elements), np.float64))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(list(TYPES)),
    n=st.sampled_from([0, 1, 2, 255, 256, 257, 2049]),
    seed=st.integers(0, 2**32 - 1),
    bad=st.none() | st.floats(0, 0.999),
)
def test_numba_and_its_numpy_twin_are_the_same(name: str, n: int, seed: int, bad: float | None) -> None:
    data = random_blocks(name, n, seed)
    first_bad = -1
    if bad is not None and n:
        first_bad = int(bad * n)
        half = list(TYPES[name].halves)[seed % len(TYPES[name].halves)]
        put_half(name, data[first_bad : first_bad + 1], half, np.array([0x7C00 + seed % 2], np.uint16))
    outs = [np.full((n, TYPES[name].block_elements), 7, np.float32) for _ in range(2)]
    assert numba_ggml.decode(name, data, outs[0]) == first_bad
    assert numpy_ggml.decode(name, data, outs[1]) == first_bad
    assert outs[0].tobytes() == outs[1].tobytes()


def test_the_variable_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, module in (("0", numba_ggml), ("1", numpy_ggml)):
        monkeypatch.setenv(NO_NUMBA_VARIABLE, value)
        assert ggml_blocks._kernels() is module
