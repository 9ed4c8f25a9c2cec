"""Products that take MXFP4 itself: activations quantized byte for byte, each product exact, and what the block loses.

Without a card that has them: numbers come from the interpreter, instructions from the compiler (tests/aot).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from aot import Result
from kernel_cases import NATIVE_KINDS, NATIVE_SHAPES
from kernel_figures import Figures, figures
from kernel_tolerances import BF16, F32, MXFP4, MXFP8

from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.architectures import ARCHITECTURES, NATIVE, UPCAST
from gptoss_convert.kernels.device import devices, parse_arch, path_for
from gptoss_convert.kernels.native import check_native
from gptoss_convert.kernels.tiles import tiles_for

KINDS = ("MXFP8", "MXFP4")
TOLERANCES = {"mxfp8": MXFP8, "mxfp8_wide": MXFP8, "mxfp4": MXFP4}
HARD = (
    "normal",
    "of every exponent",
    "halfway between two codes",
    "at the rule's limit",
    "zeros of both signs",
    "one value",
    "every BF16",
    "every F16",
)
FAULTS = (
    "no scales",
    "all scales too large by one",
    "scales of the next block",
    "halves swapped",
    "codes are zeros",
    "signs lost",
    "gate and up swapped",
)
# mxfp8_wide quantizes as mxfp8.
FAULTY = [("mxfp8", 10.0), ("mxfp4", 2.5)]
WITH = [(dot, row.name) for row in ARCHITECTURES.values() for dot in row.native]
WITHOUT = [(dot, row.name) for row in ARCHITECTURES.values() for dot in NATIVE if dot not in row.native]


def found_for(dot: str, device: str) -> Figures:
    """The figures, if the device has this product: the interpreter has all, a GPU few or none."""
    if device == "cuda":
        arch = devices()[0].arch
        if dot not in ARCHITECTURES[arch].native:
            assert "no product of" in figures(device, "native")[f"{dot} without hardware"]
            pytest.skip(f"{arch} has no {dot}, and says so")
    return figures(device, "native")


# --- activations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", HARD)
@pytest.mark.parametrize("kind", KINDS)
def test_byte_identical_to_the_definition(kind: str, blocks: str, device: str) -> None:
    assert figures(device, "native")[f"{kind}: {blocks}"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_byte_identical_to_torchao_where_that_is_right(kind: str, device: str) -> None:
    pytest.importorskip("torchao", reason="the same blocks are compared with float64 arithmetic above")
    assert figures(device, "native")[f"{kind} of torchao"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_with_nan_or_infinity_has_scale_nan(kind: str, device: str) -> None:
    broken = figures(device, "native")[f"{kind} of blocks with NaN and infinity"]
    assert broken[:4] == [255] * 4
    assert broken[4] < 255


@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_lie_apart_and_there_may_be_none(kind: str, device: str) -> None:
    found = figures(device, "native")
    assert found[f"{kind}: rows that lie apart"] == 0
    assert found[f"{kind}: no rows"] == [0, 160 if kind == "MXFP8" else 80]


# --- products ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_one_matrix_loses_nothing_but_what_is_quantized(dot: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: product"] <= F32


@pytest.mark.parametrize("name", [*NATIVE_SHAPES, "by the table"])
@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_every_stage_loses_nothing_but_what_is_quantized(dot: str, name: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: {name}"] <= F32


@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_nan_stays_in_its_row(dot: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: rows that are NaN"] == [3]


@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_few_rows_are_not_quantized(dot: str, device: str) -> None:
    found = found_for(dot, device)
    assert max(found[f"{dot}: product of two rows"], found[f"{dot}: two tokens"]) <= F32


@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_bit_identical_if_gate_and_up_are_interleaved(dot: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: interleaved"] == 0


def test_bit_identical_if_codes_are_widened() -> None:
    assert figures("cpu", "native")["codes widened"] == 0


@pytest.mark.parametrize("dot", NATIVE_KINDS)
def test_the_whole_block_within_what_quantizing_costs(dot: str, device: str) -> None:
    found = found_for(dot, device)[f"{dot}: whole block"]
    assert TOLERANCES[dot] / 3 <= found <= TOLERANCES[dot]


@pytest.mark.parametrize("dot", ["mxfp8", "mxfp4"])
def test_a_louder_block_costs_no_more(dot: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: whole block, its blocks unlike"] <= TOLERANCES[dot]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("dot", "times"), FAULTY)
def test_the_tolerance_rejects_faults(dot: str, times: float, fault: str, device: str) -> None:
    assert found_for(dot, device)[f"{dot}: fault: {fault}"] > times * TOLERANCES[dot]


@pytest.mark.parametrize(("arch", "dot"), [("sm_100", "mxfp8"), ("sm_120", "mxfp8_wide"), ("gfx950", "mxfp8")])
def test_the_block_goes_the_ladders_way_on_request(arch: str, dot: str) -> None:
    few, many = (figures("cpu", "native")[f"{arch}, {tokens} tokens"] for tokens in (2, 20))
    assert (few["dot"], many["dot"]) == ("f32", dot)
    assert few["error"] <= F32
    assert BF16 < many["error"] <= MXFP8


def test_where_there_is_none_a_request_changes_nothing() -> None:
    found = figures("cpu", "native")["sm_86, 20 tokens"]
    assert found["dot"] == "scaled"
    assert found["error"] <= BF16


# --- who has them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dot", "arch"), WITH)
def test_the_launcher_quantizes_exactly_where_the_ladder_says_so(dot: str, arch: str) -> None:
    device = parse_arch(arch)
    check_native(dot, device.backend, arch, "MXFP4")
    for tokens in range(1, 40):
        for top_k in (1, 4):
            tiles = tiles_for(device.backend, arch, tokens, "MXFP4", dot=dot, top_k=top_k)
            assert (tiles.BM > 1) == path_for("MXFP4", device, tokens=tokens, top_k=top_k, native=True).native


@pytest.mark.parametrize(("dot", "arch"), WITHOUT)
def test_elsewhere_it_is_refused_by_name_with_what_to_use(dot: str, arch: str) -> None:
    row = ARCHITECTURES[arch]
    instead = f"dot={row.native[0]!r}" if row.native else "dot='scaled'" if row.rung == UPCAST else "`moe_by_ladder`"
    have = ", ".join(name for other, name in WITH if other == dot)
    message = f"no product of {NATIVE[dot]} × MXFP4 by dot='{dot}' on this GPU; expected one of {have}; found {arch}. "
    with pytest.raises(UsageError) as raised:
        check_native(dot, row.backend, arch, "MXFP4")
    assert message + f"Use {instead}, which" in str(raised.value)


def test_a_gpu_newer_than_the_table_is_refused() -> None:
    with pytest.raises(UsageError, match=r"found sm_140\. Use `moe_by_ladder`, which"):
        check_native("mxfp8", "cuda", "sm_140", "MXFP4")


def test_other_products_are_refused_nowhere() -> None:
    for dot in ("f32", "bf16", "f16", "scaled"):
        check_native(dot, "cuda", "sm_75", "BF16")


def test_other_encodings_are_refused_by_name(device: str) -> None:
    message = figures(device, "native")["a matrix in BF16"]
    assert "the weights are not MXFP4 in planes; expected MXFP4; found BF16. `split_planes` makes planes" in message


# --- what would be noticed when compiling ------------------------------------------------------------------------

SOUND = Result("GEMM", "sm_120", instructions=("mma.sync",), scaled=("mxf8f6f4",), dots=(("native", 64),))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"scaled": ()}, "its products take no scales"),
        ({"converts": True}, "converts codes to bfloat16"),
        ({"target": "sm_86"}, "sm_86 has no product with scales"),
    ],
)
def test_what_is_wrong_is_a_fault(change: dict[str, object], fault: str) -> None:
    assert SOUND.faults() == []
    (found,) = replace(SOUND, **change).faults()
    assert fault in found
