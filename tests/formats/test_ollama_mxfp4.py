"""Ollama's first MXFP4 blocks: the bytes its converter wrote, the ggml block its loader made of them, and back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.encoding import MXFP4, OLLAMA_MXFP4, canonical
from gptoss_convert.formats.codecs.ggml_mxfp4 import repack_to_ggml
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4
from gptoss_convert.formats.codecs.ollama_mxfp4 import join, part
from gptoss_convert.formats.codecs.slab import Scratch, pack, unpack
from gptoss_convert.formats.errors import CodecError

Bytes = NDArray[np.uint8]
SHAPES = [(0, 3), (1, 1), (1, 5), (3, 0), (7, 3), (2, 300)]


def random_bytes(*shape: int) -> Bytes:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def joined(mx: Mxfp4) -> Bytes:
    out = np.empty((len(mx.scales), 17 * mx.scales.shape[1]), np.uint8)
    join(mx, out)
    return out


def parted(data: Bytes) -> Mxfp4:
    n_rows, groups = len(data), data.shape[1] // 17
    mx = Mxfp4(np.empty((n_rows, groups, 16), np.uint8), np.empty((n_rows, groups), np.uint8))
    part(data, mx.blocks, mx.scales)
    return mx


def as_ollama_loads(block: bytes) -> bytes:
    """What Ollama 0.11.5 gives ggml: the block's two halves, woven nibble by nibble."""
    low_high = [(byte & 15, byte >> 4) for byte in block[1:]]
    woven = [
        (first[turn], second[turn]) for first, second in zip(low_high[:8], low_high[8:], strict=True) for turn in (0, 1)
    ]
    return block[:1] + bytes(low | high << 4 for low, high in woven)


@pytest.mark.parametrize(("n_rows", "groups"), SHAPES)
def test_a_block_is_the_scale_and_then_the_stored_bytes(n_rows: int, groups: int) -> None:
    mx = Mxfp4(random_bytes(n_rows, groups, 16), random_bytes(n_rows, groups))
    expected = np.concatenate([mx.scales[..., None], mx.blocks], axis=-1)  # as the converter's Concat does
    assert joined(mx).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("n_rows", "groups"), SHAPES)
def test_parting_is_the_inverse_of_joining(n_rows: int, groups: int) -> None:
    data = random_bytes(n_rows, groups * 17)
    assert joined(parted(data)).tobytes() == data.tobytes()


def test_rows_may_lie_apart() -> None:
    data, out = random_bytes(6, 3 * 17), np.zeros((6, 3 * 17), np.uint8)
    blocks, scales = np.empty((6, 3, 16), np.uint8), np.empty((6, 3), np.uint8)
    for first in (0, 1):
        part(data[first::2], blocks[first::2], scales[first::2])
    for first in (0, 1):
        join(Mxfp4(blocks[first::2], scales[first::2]), out[first::2])
    assert np.array_equal(blocks, parted(data).blocks)
    assert np.array_equal(out, data)


def test_what_ollama_makes_of_a_block_is_ggmls_block() -> None:
    mx = Mxfp4(random_bytes(64, 4, 16), random_bytes(64, 4))
    ggml = np.empty((64, 4, 17), np.uint8)
    repack_to_ggml(mx, ggml)
    blocks = joined(mx).reshape(-1, 17)
    assert [as_ollama_loads(block.tobytes()) for block in blocks] == [block.tobytes() for block in ggml.reshape(-1, 17)]


def test_a_slab_comes_back_from_the_encoding() -> None:
    mx, out = Mxfp4(random_bytes(5, 3, 16), random_bytes(5, 3)), np.empty((5, OLLAMA_MXFP4.row_bytes(96)), np.uint8)
    assert pack(mx, OLLAMA_MXFP4, [out]) == 0
    back = unpack(OLLAMA_MXFP4, [out], Scratch(), "x")
    assert isinstance(back, Mxfp4)
    assert np.array_equal(back.blocks, mx.blocks)
    assert np.array_equal(back.scales, mx.scales)
    assert canonical(OLLAMA_MXFP4) is MXFP4


def test_arrays_that_do_not_fit_are_refused() -> None:
    mx = Mxfp4(random_bytes(2, 3, 16), random_bytes(2, 3))
    with pytest.raises(CodecError, match=r"the array out has the wrong shape.*expected uint8 \[2, 51\]"):
        join(mx, np.empty((2, 50), np.uint8))
    with pytest.raises(CodecError, match=r"the array data has the wrong shape.*expected uint8 \[2, 51\]"):
        part(np.empty((2, 50), np.uint8), mx.blocks, mx.scales)
    with pytest.raises(CodecError, match=r"the array blocks_out has the wrong shape.*expected uint8 \[2, 3, 16\]"):
        part(np.empty((2, 51), np.uint8), mx.blocks[:, :2], mx.scales)
