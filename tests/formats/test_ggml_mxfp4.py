"""The repacks between interleaved blocks and ggml's: byte-identical both ways, and read by ggml itself.

Every test runs on the numba kernels and on their numpy twin.
"""

from __future__ import annotations

import ggml
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_convert.formats.codecs import mxfp4
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.codecs.ggml_mxfp4 import repack_from_ggml, repack_to_ggml
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.errors import CodecError

Bytes = NDArray[np.uint8]
ODD_SHAPES = [(0, 3), (1, 1), (1, 5), (3, 0), (7, 3), (2, 300)]


@pytest.fixture(params=["0", "1"], ids=["numba", "numpy"], autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_NUMBA_VARIABLE, request.param)


def random_bytes(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def to_ggml(mx: Mxfp4) -> Bytes:
    out = np.empty((*mx.scales.shape, 17), np.uint8)
    repack_to_ggml(mx, out)
    return out


def from_ggml(data: Bytes) -> Mxfp4:
    mx = Mxfp4(np.empty((*data.shape[:2], 16), np.uint8), np.empty(data.shape[:2], np.uint8))
    repack_from_ggml(data, mx.blocks, mx.scales)
    return mx


def every_code(scales: range) -> Mxfp4:
    """One row per scale, one block: codes 0..15 rising, then falling."""
    codes = np.tile(np.concatenate([np.arange(16), np.arange(15, -1, -1)]), (len(scales), 1, 1))
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)
    return Mxfp4(blocks, np.array(scales, np.uint8)[:, None])


def decoded(mx: Mxfp4) -> NDArray[np.float32]:
    out = np.empty((len(mx.scales), mx.scales.shape[1] * 32), np.float32)
    mxfp4.decode_f32(mx, out)
    return out


def test_the_nibbles_go_where_the_drawing_says() -> None:
    interleaved = bytes.fromhex("10325476 98badcfe 10325476 98badcfe")  # element i has code i mod 16
    split_half = bytes.fromhex("7f 00112233 44556677 8899aabb ccddeeff")
    mx = Mxfp4(np.frombuffer(interleaved, np.uint8).reshape(1, 1, 16), np.uint8([[0x7F]]))
    assert to_ggml(mx).tobytes() == split_half
    assert from_ggml(np.frombuffer(split_half, np.uint8).reshape(1, 1, 17)).blocks.tobytes() == interleaved


@pytest.mark.parametrize("element", range(32))
def test_each_element_keeps_its_code(element: int) -> None:
    blocks = np.zeros((1, 1, 16), np.uint8)
    blocks[0, 0, element // 2] = 0xB << 4 * (element % 2)
    expected = np.zeros(17, np.uint8)
    expected[1 + element % 16] = 0xB << 4 * (element // 16)
    assert to_ggml(Mxfp4(blocks, np.zeros((1, 1), np.uint8))).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("n_rows", "groups"), ODD_SHAPES)
def test_the_repacks_are_byte_identical_inverses(n_rows: int, groups: int) -> None:
    mx = Mxfp4(random_bytes(n_rows, groups, 16), random_bytes(n_rows, groups))
    back = from_ggml(to_ggml(mx))
    assert np.array_equal(back.blocks, mx.blocks)
    assert np.array_equal(back.scales, mx.scales)
    data = random_bytes(n_rows, groups, 17)
    assert np.array_equal(to_ggml(from_ggml(data)), data)


@pytest.mark.parametrize("groups", [1, 3, 5])
def test_every_second_row_is_read_and_written_in_place(groups: int) -> None:
    blocks, scales = random_bytes(6, groups, 16), random_bytes(6, groups)
    gate, up = (Mxfp4(blocks[first::2], scales[first::2]) for first in (0, 1))
    joined = Mxfp4(np.empty_like(blocks), np.empty_like(scales))
    for first, half in enumerate((gate, up)):
        assert np.array_equal(to_ggml(half), to_ggml(Mxfp4(half.blocks.copy(), half.scales.copy())))
        repack_from_ggml(to_ggml(half), joined.blocks[first::2], joined.scales[first::2])
    assert np.array_equal(joined.blocks, blocks)
    assert np.array_equal(joined.scales, scales)


def test_read_only_bytes_at_any_address_are_read() -> None:
    mx = Mxfp4(random_bytes(3, 5, 16), random_bytes(3, 5))
    for offset in range(1, 8):
        data = np.frombuffer(bytes(offset) + mx.blocks.tobytes(), np.uint8, offset=offset).reshape(3, 5, 16)
        assert np.array_equal(to_ggml(Mxfp4(data, mx.scales)), to_ggml(mx))


def test_an_output_of_another_shape_is_refused_by_name() -> None:
    mx = Mxfp4(random_bytes(3, 5, 16), random_bytes(3, 5))
    with pytest.raises(CodecError, match=r"the array out has the wrong .*expected uint8 \[3, 5, 17\]"):
        repack_to_ggml(mx, np.empty((3, 5, 16), np.uint8))
    with pytest.raises(CodecError, match=r"the array data has the wrong .*expected uint8 \[3, 5, 17\]"):
        repack_from_ggml(np.empty((3, 4, 17), np.uint8), mx.blocks, mx.scales)


def test_ggml_decodes_our_blocks_byte_identical_but_for_minus_zero() -> None:
    mx = every_code(range(253))
    ours, theirs = decoded(mx), ggml.dequantize_mxfp4(to_ggml(mx)[:, 0])
    minus_zero = (ours == 0) & np.signbit(ours)
    assert np.count_nonzero(minus_zero) == 2 * 253
    assert np.array_equal(ours.view(np.uint32)[~minus_zero], theirs.view(np.uint32)[~minus_zero])


def test_ggml_decodes_code_8_as_plus_zero() -> None:
    data = np.full((255, 17), 0x88, np.uint8)
    data[:, 0] = np.arange(255)
    assert not ggml.dequantize_mxfp4(data).view(np.uint32).any()


def test_ggml_decodes_the_subnormal_scales_0_and_1_exactly() -> None:
    values = ggml.dequantize_mxfp4(to_ggml(every_code(range(2)))[:, 0])
    assert values[:, :8].tolist() == [[code * 2.0**e for code in (0, 0.5, 1, 1.5, 2, 3, 4, 6)] for e in (-127, -126)]


def test_ggml_overflows_to_infinity_where_we_refuse_scales_253_and_254() -> None:
    mx = every_code(range(253, 255))
    theirs = ggml.dequantize_mxfp4(to_ggml(mx)[:, 0])
    inf = float("inf")
    assert theirs[0, :8].tolist() == [0, 2.0**125, 2.0**126, 1.5 * 2.0**126, 2.0**127, 1.5 * 2.0**127, inf, inf]
    assert theirs[1, :8].tolist() == [0, 2.0**126, 2.0**127, 1.5 * 2.0**127, inf, inf, inf, inf]
    with pytest.raises(CodecError, match="row 0, block 0, element 6 is too large for F32"):
        decoded(mx)


def test_ggml_takes_scale_255_for_2_to_the_128_where_we_refuse_it() -> None:
    mx = every_code(range(255, 256))
    theirs = ggml.dequantize_mxfp4(to_ggml(mx)[:, 0])
    assert theirs[0, :8].tolist() == [0, 2.0**127, *[float("inf")] * 6]
    with pytest.raises(CodecError, match="row 0, block 0: the scale is NaN"):
        decoded(mx)


def test_blocks_that_ggml_quantized_decode_byte_identical_to_ggml() -> None:
    values = np.random.default_rng(0).standard_normal((5000, 32), np.float32)
    data = ggml.quantize_mxfp4(values)
    ours = decoded(from_ggml(data[None]))
    assert ours.tobytes() == ggml.dequantize_mxfp4(data).tobytes()
