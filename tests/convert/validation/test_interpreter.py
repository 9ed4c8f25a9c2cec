"""The Triton kernels themselves validate small models, in a process of its own, on the bytes of every layout."""

from __future__ import annotations

import sys
from pathlib import Path

import ggml
import numpy as np
import pytest
from command_line import Outcome, process
from gguf_faults import nibbles_in_hf_order, with_fault
from gguf_files import stored_bytes, write_plan
from interpreted_commands import interpreted
from ways import Ways

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.containers.gguf_writer import plan_gguf

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux only")

TYPES = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}

# layout -> how its experts are stored, and what the kernels are given
ENCODINGS = {
    "hf": ("MXFP4", "MXFP4"),
    "gguf": ("GGML_MXFP4", "GGML_MXFP4"),
    "mlx": ("MXFP4", "MXFP4"),
    "bf16": ("BF16", "BF16"),
    "metal": ("METAL_MXFP4", "MXFP4"),
    "ollama-legacy": ("OLLAMA_MXFP4", "MXFP4"),
}
# Types of attn_output, of 256 columns, and of q, k and v, of 192, layer by layer.
LARGE, SMALL = ("Q4_K", "Q5_K", "Q6_K", "Q5_0"), ("Q8_0", "Q4_0", "Q5_1", "IQ4_NL")


def with_quantized_attention(source: Path, out: Path) -> Path:
    """The GGUF file with attention's matrices in the types above."""
    file = read_gguf(source)
    tensors, data = [], {}
    for name, tensor in file.tensors.items():
        stored, kind = np.frombuffer(stored_bytes(file, name), np.uint8), tensor.type
        if "attn_" in name and name.endswith("weight") and tensor.type.name == "BF16":
            kind = TYPES[(LARGE if "output" in name else SMALL)[int(name.split(".")[1])]]
            values = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            stored = ggml.quantize(kind.name, values.reshape(-1, kind.block_elements))
        tensors.append((name, kind, tensor.shape))
        data[name] = stored
    return write_plan(out, plan_gguf(file.kv, tensors), data)


@pytest.fixture(scope="module")
def outcomes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Of each layout, and of a damaged GGUF file beside its source."""
    ways = Ways(tiny, tmp_path_factory.mktemp("ways"))
    paths: dict[str, tuple[Path, ...]] = {name: (ways.path(*([] if name == "hf" else [name])),) for name in ENCODINGS}
    bad = with_fault(ways.path("gguf"), tmp_path_factory.mktemp("bad") / "bad.gguf", nibbles_in_hf_order)
    paths["damaged"] = (tiny, bad)
    options = ("--device", "interpret", "--json")
    commands: list[tuple[str | Path, ...]] = [("validate", *some, *options, "--layers", "1") for some in paths.values()]
    quantized = with_quantized_attention(ways.path("gguf"), bad.with_name("quantized.gguf"))
    found = interpreted([*commands, ("validate", quantized, *options)])
    return dict(zip([*paths, "quantized"], found, strict=True))


def test_the_command_as_users_run_it(tiny: Path) -> None:
    outcome = process("validate", tiny, "--device", "interpret", "--layers", "0")
    assert outcome.code == 0, outcome.err
    assert "run on Triton's interpreter: the kernels themselves, one operation at a time" in outcome.out
    assert "experts in MXFP4: triton interpreter, products in float32" in outcome.out
    assert "valid: every stage agrees with its float64 reference" in outcome.out


@pytest.mark.parametrize("layout", ENCODINGS)
def test_the_kernels_agree_with_float64(layout: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[layout]
    assert outcome.code == 0, outcome.err
    report = outcome.json
    stored, read_as = ENCODINGS[layout]
    used = {"encoding": stored, "read_as": read_as, "path": "triton interpreter", "dot": "float32"}
    assert [one for one in report["paths"] if one["part"] == "experts"] == [used | {"part": "experts"}]
    attention = [one for one in report["paths"] if one["part"] == "attention"]
    assert {one["read_as"] for one in attention} == {"BF16"}
    assert {one["path"] for one in attention} == {"triton interpreter"}
    assert report["device"]["backend"] == "interpret"
    (layer,) = report["layers"]
    errors = [layer["stages"][stage]["relative"] for stage in ("attention", "gate", "up", "activated", "down", "out")]
    assert all(1e-9 < error < 1e-5 for error in errors)


def test_the_kernels_sum_otherwise_than_torch(tiny: Path, outcomes: dict[str, Outcome]) -> None:
    """So that it is seen that they were run."""
    from command_line import command

    cpu = command("validate", tiny, "--device", "cpu", "--layers", "1", "--json").json["layers"][0]["stages"]
    kernels = outcomes["hf"].json["layers"][0]["stages"]
    assert cpu["router"] == kernels["router"]
    assert all(cpu[stage]["relative"] != kernels[stage]["relative"] for stage in ("attention", "down"))


@pytest.mark.parametrize("kind", [*LARGE, *SMALL])
def test_attention_in_ggmls_block_types_goes_through_the_kernels(kind: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["quantized"]
    assert outcome.code == 0, outcome.err
    used = {"part": "attention", "encoding": kind, "read_as": kind, "path": "triton interpreter", "dot": "float32"}
    assert used in outcome.json["paths"]
    errors = [layer["stages"]["attention"]["relative"] for layer in outcome.json["layers"]]
    assert all(1e-9 < error < 1e-5 for error in errors)


def test_the_kernels_show_damage(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["damaged"]
    assert outcome.code == 1
    gate = outcome.json["layers"][0]["stages"]["gate"]
    assert gate["excess"] > 10_000
    assert gate["cause"]["difference"]["tensor"] == "layers.1.moe.gate.weight"
