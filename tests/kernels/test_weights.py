"""Stored matrices say where they lie, refuse what no kernel reads, and the table has tiles for all of them."""

from __future__ import annotations

import ggml_definitions
import numpy as np
import pytest
import torch
from stored_matrices import ALL, FLOATS, GGML, random_ggml, random_matrices

from gptoss_convert.formats.errors import CodecError
from gptoss_convert.kernels.architectures import ARCHITECTURES, NATIVE
from gptoss_convert.kernels.tiles import GEMV_PAIRS, tiles_for
from gptoss_convert.kernels.weights import ENCODINGS, Matrices, matrices, split_planes

GPUS = [(row.backend, row.name) for row in ARCHITECTURES.values() if row.proof] + [("interpret", "")]


def test_every_encoding_is_tried() -> None:
    assert set(ENCODINGS) == {*ALL, "Q8_0_PLANES"}


@pytest.mark.parametrize("name", GGML)
def test_the_oracle_of_ggmls_blocks_is_the_gguf_packages(name: str) -> None:
    import gguf

    data = random_ggml(name, (200,), np.random.default_rng(0))
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    assert ggml_definitions.decoded(name, data).tobytes() == expected.tobytes()


def test_an_encoding_without_kernels_is_refused_by_name() -> None:
    with pytest.raises(CodecError, match=r"no kernel for this encoding; expected MXFP4, .* found Q2_K\. Convert"):
        matrices("Q2_K", torch.zeros((1, 1, 84), dtype=torch.uint8))


def test_half_a_block_is_refused() -> None:
    with pytest.raises(CodecError, match=r"whole number of Q4_0 blocks; expected a multiple of 32 elements; found 48"):
        Matrices("Q4_0", (torch.zeros(27, dtype=torch.uint8),), (1, 1, 48), (27,), (27,), (18,), (0,))


def test_rows_outside_of_the_tensor_are_a_bug() -> None:
    data = torch.zeros(17, dtype=torch.uint8)
    with pytest.raises(AssertionError, match="outside"):
        Matrices("GGML_MXFP4", (data,), (1, 1, 32), (17,), (17,), (17,), (1,))


@pytest.mark.parametrize("encoding", ALL)
def test_rows_and_experts_are_views_of_the_same_bytes(encoding: str) -> None:
    stored, _ = random_matrices(encoding, (3, 7, 256), np.random.default_rng(0), "cpu")
    chosen = stored.expert(2).rows(1, 3)
    for part in range(len(stored.parts)):
        assert torch.equal(chosen.view(part), stored.view(part)[2:, 1::3])
        assert chosen.parts[part].data_ptr() == stored.parts[part].data_ptr()


@pytest.mark.parametrize("encoding", FLOATS)
def test_transposed_floats_are_laid_row_by_row(encoding: str) -> None:
    stored, _ = random_matrices(encoding, (2, 4, 8), np.random.default_rng(0), "cpu")
    turned = matrices(encoding, stored.parts[0].transpose(1, 2))
    assert turned.is_transposed
    laid = split_planes(turned)
    assert not laid.is_transposed
    assert torch.equal(laid.view(0), turned.view(0))
    assert split_planes(stored) is stored


@pytest.mark.parametrize(("backend", "arch"), GPUS)
def test_tiles_are_what_the_kernels_can_be_compiled_for(backend: str, arch: str) -> None:
    for encoding in ENCODINGS:
        for n_tokens in (1, 2, 4, 5, 16, 64, 512, 4096, 131072):
            for dot in ("f32", "bf16", "scaled", *NATIVE):
                tiles = tiles_for(backend, arch, n_tokens, encoding, dot=dot)
                for size in (tiles.BM, tiles.BN, tiles.BK, tiles.warps):
                    assert size & (size - 1) == 0
                assert tiles.BM == 1 or tiles.BM >= 16
                assert tiles.BK >= 32
                assert tiles.stages >= 1
                assert backend == "interpret" or (tiles.BM == 1) == (4 * n_tokens <= GEMV_PAIRS)
