"""The ladder's rules, row by row; that docs/hardware.md says the same."""

from __future__ import annotations

from pathlib import Path

import hardware_page
import numpy as np
import pytest
import torch

from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels import ladder
from gptoss_convert.kernels.architectures import ARCHITECTURES, NATIVE, NONE
from gptoss_convert.kernels.device import ENCODINGS, Device, fp16_exact, parse_arch, path_for

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hardware.md"
NAMES = {
    "triton dot_scaled",
    "triton own decode",
    "triton gemv + torch matmul",
    "torch",
    "numba + torch",
    "triton interpreter",
}
MXFP4 = ("MXFP4", "METAL_MXFP4", "OLLAMA_MXFP4")
GGML = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K")
WITHOUT_KERNEL = ("Q2_K", "Q3_K", "MLX_Q4_G64", "MLX_Q8_G64")
HARDWARE = ("sm_100", "sm_103", "sm_120", "sm_121", "gfx950")
UPCAST = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "gfx90a", "gfx942", "gfx1100", "gfx1101", "gfx1102", "gfx1150")
UPCAST += ("gfx1151", "gfx1200", "gfx1201")
SCALAR = ("sm_70", "sm_75")
UNSUPPORTED = ("sm_60", "sm_61", "sm_72", "sm_88", "sm_101", "sm_110", "gfx906", "gfx908", "gfx1030", "gfx1250")
EVERYWHERE = [*ARCHITECTURES, "cpu", "interpret"]
FEW, MANY = 1, 512


def test_every_architecture_is_in_one_of_the_lists_of_this_file() -> None:
    assert sorted(ARCHITECTURES) == sorted(HARDWARE + UPCAST + SCALAR + UNSUPPORTED)


@pytest.mark.parametrize("tokens", [FEW, MANY])
@pytest.mark.parametrize("arch", EVERYWHERE)
def test_every_encoding_has_a_named_path_and_a_reason(arch: str, tokens: int) -> None:
    for encoding, weights in ENCODINGS.items():
        path = path_for(encoding, parse_arch(arch), tokens=tokens)
        assert path.name in NAMES
        assert len(path.why) > 20
        assert path.stored_bits == weights.stored_bits
        assert not path.native


@pytest.mark.parametrize("tokens", [FEW, MANY])
@pytest.mark.parametrize("arch", EVERYWHERE)
def test_what_reads_more_bytes_than_are_stored_says_how_many_and_nothing_else_does(arch: str, tokens: int) -> None:
    for encoding in ENCODINGS:
        path = path_for(encoding, parse_arch(arch), tokens=tokens)
        if path.used_bits == path.stored_bits and not path.costs:
            continue
        assert path.costs.startswith(f"{path.used_bits / 8:g} bytes per weight")
        assert f"not {path.stored_bits / 8:.2f}" in path.costs


# --- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", MXFP4)
@pytest.mark.parametrize("arch", HARDWARE + UPCAST)
def test_mxfp4_planes_are_multiplied_by_dot_scaled_with_bfloat16(arch: str, encoding: str) -> None:
    path = path_for(encoding, parse_arch(arch), tokens=MANY)
    assert (path.name, path.dot, path.emulated) == ("triton dot_scaled", "bfloat16", True)
    assert path.used_bits == 4.25


@pytest.mark.parametrize("arch", HARDWARE + UPCAST)
def test_the_reason_says_whether_an_instruction_converts(arch: str) -> None:
    why = path_for("MXFP4", parse_arch(arch), tokens=MANY).why
    assert (f"an instruction of {arch}" in why) == (arch in HARDWARE)
    assert (f"{arch} has no instruction" in why) == (arch in UPCAST)


@pytest.mark.parametrize(
    ("triton", "uses"), [("3.6.0", False), ("3.7.1", False), ("3.9.0", True), ("3.10.0+rocm", True)]
)
def test_an_older_triton_is_said_not_to_use_the_instruction(triton: str, uses: bool) -> None:
    why = path_for("MXFP4", Device("B200", "cuda", "sm_100", triton=triton), tokens=MANY).why
    assert ("; an instruction of sm_100 turns" in why) == uses
    assert (f"arithmetic, as Triton {triton} does not use sm_100's instruction, turns" in why) != uses


@pytest.mark.parametrize("arch", HARDWARE + UPCAST)
def test_ggml_blocks_are_decoded_to_bfloat16_by_our_own_code(arch: str) -> None:
    for encoding in (*GGML, "GGML_MXFP4"):
        path = path_for(encoding, parse_arch(arch), tokens=MANY)
        assert (path.name, path.dot, path.emulated, path.costs) == ("triton own decode", "bfloat16", True, "")
        assert ("rounded to bfloat16" in path.why) == (encoding != "GGML_MXFP4")


@pytest.mark.parametrize(("encoding", "dot"), [("BF16", "bfloat16"), ("F16", "float16"), ("F32", "float32")])
@pytest.mark.parametrize("arch", HARDWARE + UPCAST)
def test_floats_are_multiplied_as_what_they_are(arch: str, encoding: str, dot: str) -> None:
    path = path_for(encoding, parse_arch(arch), tokens=MANY)
    assert (path.name, path.dot, path.emulated, path.costs) == ("triton own decode", dot, False, "")
    assert path.why.endswith(f"{arch} multiplies {dot} itself")


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_87"])
def test_ampere_multiplies_what_is_quantized_in_bfloat16_only(arch: str) -> None:
    for encoding in (*MXFP4, *GGML, "GGML_MXFP4"):
        assert path_for(encoding, parse_arch(arch), tokens=MANY).dot == "bfloat16"


@pytest.mark.parametrize("arch", HARDWARE + UPCAST + SCALAR)
def test_a_few_tokens_read_weights_as_stored_and_are_multiplied_in_float32(arch: str) -> None:
    for encoding in (*MXFP4, *GGML, "GGML_MXFP4", "BF16", "F16", "F32"):
        path = path_for(encoding, parse_arch(arch), tokens=FEW)
        assert (path.used_bits, path.dot, path.costs) == (path.stored_bits, "float32", "")
        assert path.kernel_dot == "f32"


@pytest.mark.parametrize("arch", SCALAR)
def test_without_tensor_cores_in_triton_many_tokens_are_left_to_torch(arch: str) -> None:
    few, many = (path_for("MXFP4", parse_arch(arch), tokens=tokens) for tokens in (4, 5))
    assert few.name == many.name == "triton gemv + torch matmul"
    assert (few.used_bits, many.used_bits, many.dot) == (4.25, 16, "float16")
    assert "104 to 140" in many.why
    assert many.costs == "2 bytes per weight of an expert while it is multiplied, not 0.53; " + (
        "4.53 bytes moved per weight, not 0.53"
    )


@pytest.mark.parametrize(
    ("encoding", "fits", "dot"),
    [
        ("MXFP4", True, "float16"),
        ("MXFP4", False, "float32"),
        ("GGML_MXFP4", True, "float16"),
        ("GGML_MXFP4", False, "float32"),
        ("F16", False, "float16"),
        *((name, True, "float32") for name in ("BF16", "F32", *GGML)),
    ],
)
def test_float16_is_used_only_where_it_is_exact(encoding: str, fits: bool, dot: str) -> None:
    assert path_for(encoding, parse_arch("sm_75"), tokens=MANY, fits_fp16=fits).dot == dot


@pytest.mark.parametrize("arch", UNSUPPORTED)
def test_an_unsupported_gpu_gets_torch_and_the_reason(arch: str) -> None:
    for encoding in ENCODINGS:
        path = path_for(encoding, parse_arch(arch), tokens=MANY)
        assert path.name == "torch"
        assert path.why.startswith(f"{arch}: {ARCHITECTURES[arch].reason}")


@pytest.mark.parametrize("encoding", WITHOUT_KERNEL)
def test_an_encoding_without_a_kernel_gets_torch_and_the_reason(encoding: str) -> None:
    path = path_for(encoding, parse_arch("sm_90"), tokens=MANY)
    assert (path.name, path.dot) == ("torch", "float32")
    assert f"no kernel for {encoding}" in path.why


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_without_triton_the_processor_multiplies(encoding: str) -> None:
    gpu = Device("RTX 3090", "cuda", "sm_86", 25_000_000_000, triton=None, torch="2.13.0")
    path = path_for(encoding, gpu)
    assert (path.name, path.dot) == ("numba + torch", "float32")
    assert "Triton is not installed" in path.why


def test_the_interpreter_multiplies_in_float32_and_says_why() -> None:
    path = path_for("MXFP4", parse_arch("interpret"), tokens=MANY)
    assert (path.name, path.dot, path.kernel_dot) == ("triton interpreter", "float32", "f32")
    assert "bfloat16 wrongly" in path.why


# --- native ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", HARDWARE)
def test_a_native_product_is_had_on_request(arch: str) -> None:
    path = path_for("MXFP4", parse_arch(arch), tokens=MANY, native=True)
    assert (path.name, path.native, path.emulated, path.dot) == ("triton dot_scaled", True, False, "MXFP8 × MXFP4")
    assert path.kernel_dot == ARCHITECTURES[arch].native[0]
    assert "activations are quantized" in path.why
    assert ("codes of weights become e4m3" in path.why) == (arch in ("sm_120", "sm_121"))


@pytest.mark.parametrize("arch", HARDWARE)
def test_few_tokens_are_not_multiplied_natively_and_the_reason_says_so(arch: str) -> None:
    plain, asked = (path_for("MXFP4", parse_arch(arch), tokens=4, native=native) for native in (False, True))
    assert asked.why == f"native was asked for, but 16 pairs are too few for it; {plain.why}"
    assert asked.why.startswith("native was asked for, but 16 pairs are too few for it; up to 16 pairs")
    assert (asked.native, asked.dot, asked.kernel_dot) == (False, "float32", "f32")
    assert path_for("MXFP4", parse_arch(arch), tokens=5, native=True).native


@pytest.mark.parametrize("name", ["cpu", "interpret"])
def test_a_processor_says_that_it_has_no_native_product(name: str) -> None:
    plain, asked = (path_for("MXFP4", parse_arch(name), tokens=MANY, native=native) for native in (False, True))
    assert asked.why == f"native was asked for, but a processor has no product of MXFP4; {plain.why}"
    assert (asked.name, asked.native, asked.dot) == (plain.name, False, plain.dot)


def test_without_triton_there_is_no_native_product() -> None:
    path = path_for("MXFP4", Device("B200", "cuda", "sm_100", triton=None), tokens=MANY, native=True)
    assert not path.native
    assert path.why.startswith("native was asked for, but that takes Triton; Triton is not installed here")


@pytest.mark.parametrize("arch", [*UPCAST, *SCALAR, *UNSUPPORTED])
def test_where_there_is_no_native_product_a_request_changes_the_reason_only(arch: str) -> None:
    plain, asked = (path_for("MXFP4", parse_arch(arch), native=native) for native in (False, True))
    assert asked.why == f"native was asked for, but {arch} has no product of MXFP4; {plain.why}"
    assert (asked.name, asked.native, asked.dot) == (plain.name, False, plain.dot)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name not in MXFP4])
def test_only_mxfp4_planes_are_multiplied_natively(encoding: str) -> None:
    path = path_for(encoding, parse_arch("sm_100"), native=True)
    assert not path.native
    assert f"{encoding} is not MXFP4 in planes" in path.why


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arch"),
    [
        *((text, "sm_75") for text in ("sm_75", "SM75", "sm_75 ", "7.5", "75")),
        ("sm_90a", "sm_90"),
        ("12.0", "sm_120"),
        ("gfx942:sramecc+:xnack-", "gfx942"),
        ("gfx90a", "gfx90a"),
    ],
)
def test_architectures_may_be_spelled_as_tools_do(text: str, arch: str) -> None:
    assert parse_arch(text).arch == arch


@pytest.mark.parametrize("text", ["", "sm_", "sm_57", "gfx", "gfx9999", "RTX 3090", "sm_75; rm"])
def test_an_unknown_architecture_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(UsageError, match=r"no such architecture in the table; expected cpu, .*sm_75.*nvidia-smi"):
        parse_arch(text)


def test_a_gpu_newer_than_the_table_gets_torch() -> None:
    path = path_for("MXFP4", Device("Rubin", "cuda", "sm_140", triton="3.9.0"))
    assert (path.name, path.dot) == ("torch", "float32")
    assert "not in the table" in path.why


@pytest.mark.parametrize("device", [Device("", "cuda", "gfx942", triton="3"), Device("", "xpu", "sm_75", triton="3")])
def test_a_device_that_cannot_be_is_refused(device: Device) -> None:
    with pytest.raises(UsageError, match="this names no GPU; expected such as sm_90"):
        path_for("MXFP4", device)


def test_an_unknown_encoding_is_refused_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"no such encoding; expected one of MXFP4, .*; found 'NVFP4'"):
        path_for("NVFP4", parse_arch("sm_90"))


@pytest.mark.parametrize(("encoding", "like"), [("METAL_Q", "BF16"), ("METAL_K", "BF16"), ("Q8_0_PLANES", "Q8_0")])
def test_what_is_put_in_order_when_loaded_goes_as_what_it_becomes(encoding: str, like: str) -> None:
    for arch in EVERYWHERE:
        there, here = (path_for(name, parse_arch(arch), tokens=MANY) for name in (encoding, like))
        assert (there.name, there.dot, there.costs) == (here.name, here.dot, here.costs)


# --- the kernels agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", HARDWARE + UPCAST + SCALAR)
def test_the_launcher_takes_the_gemv_where_the_ladder_says_so(arch: str) -> None:
    from gptoss_convert.kernels.tiles import tiles_for

    device = parse_arch(arch)
    for tokens in range(1, 40):
        for top_k in (1, 4):
            tiles = tiles_for(device.backend, arch, tokens, "MXFP4", top_k=top_k)
            path = path_for("MXFP4", device, tokens=tokens, top_k=top_k)
            assert (tiles.BM == 1) == (path.dot == "float32")


def test_the_kernels_know_every_dot_of_the_ladder_and_every_encoding_with_a_kernel() -> None:
    from gptoss_convert.kernels.moe import DOTS
    from gptoss_convert.kernels.weights import ENCODINGS as WITH_KERNEL

    paths = [path_for(name, parse_arch(arch), tokens=MANY) for name in ENCODINGS for arch in EVERYWHERE]
    assert {path.kernel_dot for path in paths} - {""} == set(DOTS) - set(NATIVE)
    assert {dot for row in ARCHITECTURES.values() for dot in row.native} == set(NATIVE)
    repacked = {"METAL_MXFP4", "OLLAMA_MXFP4"}
    ours = {name for name, weights in ENCODINGS.items() if weights.kernel != ladder.NO_KERNEL}
    assert ours - repacked == set(WITH_KERNEL) - {"Q8_0_PLANES"}


def test_only_what_is_compiled_for_some_architecture_has_a_kernel_there() -> None:
    for row in ARCHITECTURES.values():
        assert (row.proof == "") == (row.rung == NONE) == (row.shared_bytes == 0) == (row.reason != "")
        assert row.proof == "" or ARCHITECTURES[row.proof].dots == row.dots
        assert row.native == (ARCHITECTURES[row.proof].native if row.proof else ())


# --- float16 -----------------------------------------------------------------------------------------------------

CODES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def held_by_float16(scale: int, code: int) -> bool:
    value = CODES[code & 7] * 2.0 ** (scale - 127) if scale != 255 else np.nan
    with np.errstate(over="ignore"):
        return bool(np.float64(np.float16(value)) == value)


def test_float16_holds_all_codes_under_exactly_these_scales() -> None:
    held = {scale for scale in range(256) if all(held_by_float16(scale, code) for code in range(16))}
    assert held == {scale for scale in range(256) if fp16_exact(np.array([scale], np.uint8))} == set(range(104, 141))


def test_one_scale_outside_is_enough_and_blocks_of_zeros_may_have_any() -> None:
    scales = np.full((3, 5), 120, np.uint8)
    blocks = np.full((3, 5, 16), 0x21, np.uint8)
    assert fp16_exact(scales, blocks)
    scales[2, 3] = 0
    assert not fp16_exact(scales)
    assert not fp16_exact(scales, blocks)
    blocks[2, 3] = 0x80
    assert fp16_exact(scales, blocks)
    scales[2, 3] = 255
    assert not fp16_exact(scales, blocks)


def test_tensors_do_as_well_as_arrays() -> None:
    scales = torch.full((2, 4), 104, dtype=torch.uint8)
    assert fp16_exact(scales, torch.ones((2, 4, 16), dtype=torch.uint8))
    assert not fp16_exact(scales - 1, torch.ones((2, 4, 16), dtype=torch.uint8))


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [hardware_page.ladder_table, hardware_page.encoding_table])
def test_the_page_holds_the_table(table: object) -> None:
    lines = table()  # type: ignore[operator]
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(lines[0]) == 1
    shown = page[page.index(lines[0]) :].partition("\n\n")[0].splitlines()
    assert shown == lines
