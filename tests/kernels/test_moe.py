"""The MoE block on stored weights: every stage within F32 of float64, whatever the encoding, the shape, the layout."""

from __future__ import annotations

import pytest
from kernel_cases import MATMUL_ENCODINGS, MOE_ENCODINGS, SHAPES
from kernel_figures import figures
from kernel_tolerances import BF16, F16, F32

FAULTS = (
    "zeros",
    "gate and up swapped",
    "the scale of one block too large by one",
    "one bit of one block flipped",
    "nibbles swapped",
    "gate_bias dropped",
    "up_bias dropped",
    "down_bias dropped",
    "gate_bias of another expert",
    "up_bias of another expert",
    "down_bias of another expert",
    "no clamp",
    "alpha 1",
)
BFLOAT16 = ("bf16 of MXFP4", "scaled of MXFP4", "bf16 of BF16", "bf16 of GGML_MXFP4", "bf16 of Q8_0")


@pytest.mark.parametrize("way", ["GEMM", "GEMV"])
@pytest.mark.parametrize("encoding", MOE_ENCODINGS)
def test_every_stage_of_every_encoding(encoding: str, way: str, device: str) -> None:
    assert figures(device, "moe")[f"{encoding} by {way}"] <= F32


@pytest.mark.parametrize("way", ["GEMM", "GEMV"])
@pytest.mark.parametrize("encoding", MATMUL_ENCODINGS)
def test_one_matrix_of_every_encoding(encoding: str, way: str, device: str) -> None:
    assert figures(device, "moe")[f"matmul {encoding} by {way}"] <= F32


def test_one_matrix_without_a_bias(device: str) -> None:
    assert figures(device, "moe")["matmul without a bias"] <= F32


@pytest.mark.parametrize("name", [*SHAPES, "an expert without tokens"])
def test_every_stage_of_ragged_shapes(name: str, device: str) -> None:
    assert figures(device, "moe")[f"shape: {name}"] <= F32


@pytest.mark.parametrize("tokens", [1, 7, 60])
@pytest.mark.parametrize("encoding", ["MXFP4", "BF16", "Q8_0"])
def test_every_stage_with_the_tiles_of_the_table(encoding: str, tokens: int, device: str) -> None:
    assert figures(device, "moe")[f"{encoding}, {tokens} tokens, by the table"] <= F32


@pytest.mark.parametrize("encoding", ["MXFP4", "Q4_1"])
def test_every_stage_by_torch_on_decoded_experts(encoding: str, device: str) -> None:
    assert figures(device, "moe")[f"{encoding} by expert in float32"] <= F32
    assert figures(device, "moe")[f"{encoding} by expert in float16"] <= F16


def test_no_tokens_give_no_rows(device: str) -> None:
    assert figures(device, "moe")["shape: no token"] == [0, 96]
    assert figures(device, "moe")["matmul of no rows"] == [0, 70]


def test_the_clamps_are_met(device: str) -> None:
    for share in figures(device, "moe")["share of gates and ups that are clamped"]:
        assert 0.01 < share < 0.5


@pytest.mark.parametrize("encoding", ["MXFP4", "GGML_MXFP4", "BF16", "Q4_1"])
def test_bit_identical_if_gate_and_up_are_interleaved(encoding: str, device: str) -> None:
    assert figures(device, "moe")[f"{encoding} interleaved"] == 0


def test_bit_identical_if_bf16_is_transposed(device: str) -> None:
    assert figures(device, "moe")["BF16 interleaved and transposed"] == 0


@pytest.mark.parametrize("encoding", ["GGML_MXFP4", "Q8_0"])
def test_bit_identical_if_blocks_are_split_into_planes(encoding: str, device: str) -> None:
    assert figures(device, "moe")[f"{encoding} split into planes"] == 0
    assert figures(device, "moe")[f"{encoding} split into planes, by GEMV"] == 0


def test_gate_and_up_may_be_stored_differently(device: str) -> None:
    assert figures(device, "moe")["gate and up in two encodings"] <= F32


@pytest.mark.parametrize("way", ["GEMM", "GEMV"])
@pytest.mark.parametrize("name", ["gate", "up", "down"])
def test_a_nan_scale_makes_its_row_nan_for_its_experts_tokens_alone(name: str, way: str, device: str) -> None:
    assert figures(device, "moe")[f"NaN in {name} by {way}"] == [True, True, True]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tolerance_rejects_faults_a_thousand_times_over(fault: str, device: str) -> None:
    assert figures(device, "moe")[f"fault: {fault}"] > 1000 * F32


def test_scaled_products_of_exact_operands_are_as_good_as_float32(device: str) -> None:
    assert figures(device, "moe")["scaled, gate and up"] <= F32


@pytest.mark.parametrize("dot", ["bf16", "f16"])
def test_products_of_exact_operands_are_as_good_as_float32(dot: str, device: str) -> None:
    assert figures(device, "moe")[f"{dot}, gate and up"] <= F32


@pytest.mark.parametrize(
    "name", ["bf16 of MXFP4", "scaled of MXFP4", "bf16 of BF16", "bf16 of GGML_MXFP4", "bf16 of Q8_0"]
)
def test_rounded_to_bfloat16(name: str, device: str) -> None:
    assert figures(device, "moe")[name] <= BF16


@pytest.mark.parametrize("dot", ["bf16", "scaled", "f16"])
def test_rounded_with_the_tiles_of_the_table(dot: str, device: str) -> None:
    assert figures(device, "moe")[f"{dot} of MXFP4, by the table"] <= (F16 if dot == "f16" else BF16)


def test_rounded_to_float16(device: str) -> None:
    assert figures(device, "moe")["f16 of MXFP4"] <= F16


def test_dot_scaled_without_mending_the_interpreter() -> None:
    assert figures("cpu", "moe")["scaled, gate and up, interpreter as it is"] <= F32


@pytest.mark.gpu
def test_bit_identical_in_every_run() -> None:
    assert figures("cuda", "moe")["two runs"] == 0
