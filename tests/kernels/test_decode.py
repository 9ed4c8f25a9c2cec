"""The kernels decode every encoding bit for bit, wherever its rows and columns lie."""

from __future__ import annotations

import pytest
from kernel_figures import figures

ENCODINGS = ("BF16", "F16", "F32", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K")
MOVED = ("MXFP4", "GGML_MXFP4", "BF16", "Q5_K")


@pytest.mark.parametrize("encoding", ["MXFP4", "GGML_MXFP4"])
def test_value_identical_for_every_code_under_every_scale(encoding: str, device: str) -> None:
    assert figures(device, "decode")[encoding] == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_value_identical_to_the_codecs(encoding: str, device: str) -> None:
    assert figures(device, "decode")[encoding] == 0


@pytest.mark.parametrize("encoding", ["GGML_MXFP4", "Q8_0"])
def test_planes_hold_the_same_values(encoding: str, device: str) -> None:
    assert figures(device, "decode")[f"{encoding} in planes"] == 0


@pytest.mark.parametrize("encoding", MOVED)
def test_every_second_row_is_read_where_it_lies(encoding: str, device: str) -> None:
    assert figures(device, "decode")[f"odd rows of {encoding}"] == 0
    assert figures(device, "decode")[f"third row on of expert 1 of {encoding}"] == 0


@pytest.mark.parametrize("encoding", ["BF16", "F16", "F32"])
def test_transposed_floats_are_read_where_they_lie(encoding: str, device: str) -> None:
    assert figures(device, "decode")[f"transposed {encoding}"] == 0


def test_blocks_may_lie_apart(device: str) -> None:
    assert figures(device, "decode")["MXFP4 with gaps between blocks"] == 0


def test_matrices_may_lie_beyond_2_gib(device: str) -> None:
    assert figures(device, "decode")["beyond 2^31 bytes"] == 0


def test_the_comparison_finds_codes_in_another_order(device: str) -> None:
    assert figures(device, "decode")["other codes than those"] > 20_000
