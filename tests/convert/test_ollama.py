"""Ollama's legacy GGUF, end to end: what its converters wrote is repaired, what we write is what they wrote.

Their files are made by tests/support/ollama_files.py. The chat template is in no such file, for Ollama keeps it beside
the weights; everything else of `tiny` comes back from each of them.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from command_line import command
from conversions import contents, converted
from gguf_entries import Entry, read_entries, read_keys
from llama_cpp import LlamaCpp
from numpy.typing import NDArray
from ollama_files import VERSIONS, ollama_gguf

from gptoss_convert.formats.containers.gguf_types import BF16, F32

N_VOCAB = 416
PROMPT = np.random.default_rng(3).integers(0, N_VOCAB, 80).tolist()
TEMPLATE = "chat_template.jinja"

LEGACY = ("--dialect", "ollama-legacy")


@pytest.fixture(scope="module")
def theirs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each version's file. They bear the checkpoint's name, which llama.cpp's dialect has a key for."""
    directory = tmp_path_factory.mktemp("theirs")
    paths = {version: directory / version / tiny.name for version in VERSIONS}
    for version, path in paths.items():
        path.parent.mkdir()
        ollama_gguf(tiny, path, version)
    return paths


@pytest.fixture(params=VERSIONS)
def legacy(request: pytest.FixtureRequest, theirs: dict[str, Path]) -> Path:
    """One version's file, to be read only."""
    return theirs[request.param]


@pytest.fixture(scope="module")
def ours(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our file in the dialect, to be read only."""
    return converted("to-gguf", tiny, tmp_path_factory.mktemp("ours") / tiny.name, *LEGACY)


def notes(*arguments: str | Path) -> list[str]:
    """What the command says on its way."""
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    return [line.removeprefix("note: ") for line in outcome.err.splitlines() if line.startswith("note: ")]


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    assert name in files
    return {other: content for other, content in files.items() if other != name}


# --- what is recognised, shown and said ---

NAMES = ["sha256-b112e727c6f18875636c56a779790a590d705aec9e1c0eb5a97d51fc2a778583", "model.bin", "x.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_recognised_whatever_the_file_is_called(name: str, legacy: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(legacy.read_bytes())
    assert command("inspect", tmp_path / name, "--json").json["layout"] == "ollama-legacy"


# version -> arrays of the four layers, and what the experts and their biases are stored in
SHOWN = {
    "0.11.0": (55, "OLLAMA_MXFP4", "BF16"),
    "0.11.5": (55, "OLLAMA_MXFP4", "F32"),
    "0.11.7": (71, "OLLAMA_MXFP4", "F32"),
    "0.11.8": (71, "GGML_MXFP4", "F32"),
    "0.12.6": (79, "GGML_MXFP4", "F32"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_inspect_shows_what_is_stored(version: str, theirs: dict[str, Path]) -> None:
    report = command("inspect", theirs[version], "--json").json
    encodings = {row["role"]: row["encoding"] for row in report["roles"]}
    assert (report["tensor_count"], encodings["experts"], encodings["expert bias"]) == SHOWN[version]
    assert report["parameters"] == 3_725_808
    assert report["config"]["yarn"]["truncate"] is False


def test_inspect_says_the_dialect_and_that_there_is_no_template(legacy: Path) -> None:
    said = command("inspect", legacy).out
    assert said.startswith(f"{legacy}: gpt-oss, ollama-legacy layout\n")
    assert "template     none" in said


@pytest.mark.parametrize("name", ["to-mxfp4", "to-gguf", "to-bf16"])
def test_repair_is_said(name: str, legacy: Path, tmp_path: Path) -> None:
    said = notes(name, legacy, tmp_path / "out")
    assert [note for note in said if "Ollama's dialect" in note and "are repaired" in note]
    assert [note for note in said if "whether YaRN is truncated" in note and "truncate: false is taken" in note]


@pytest.mark.parametrize("name", ["to-mxfp4", "to-gguf"])
def test_missing_template_is_said_with_the_remedy(name: str, legacy: Path, tiny: Path, tmp_path: Path) -> None:
    assert [note for note in notes(name, legacy, tmp_path / "a") if "template" in note and "--tokenizer" in note]
    assert not [note for note in notes(name, legacy, tmp_path / "b", "--tokenizer", tiny) if "template" in note]


def test_missing_template_is_not_said_of_ollamas_own_dialect(legacy: Path, tmp_path: Path) -> None:
    """Ollama keeps it beside the file."""
    assert not [note for note in notes("to-gguf", legacy, tmp_path / "out", *LEGACY) if "template" in note]


# --- theirs to Hugging Face ---


def test_every_file_but_the_template_is_byte_identical_in_hf(legacy: Path, tiny: Path, tmp_path: Path) -> None:
    out = converted("to-mxfp4", legacy, tmp_path / "out", "--shard-plan", "1M")
    assert contents(out) == without(contents(tiny), TEMPLATE)


def test_every_file_is_byte_identical_in_hf_with_the_models_tokenizer(legacy: Path, tiny: Path, tmp_path: Path) -> None:
    out = converted("to-mxfp4", legacy, tmp_path / "out", "--shard-plan", "1M", "--tokenizer", tiny)
    assert contents(out) == contents(tiny)


# --- theirs to llama.cpp ---


@pytest.fixture(scope="module")
def repaired(theirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `to-gguf` makes of each version's file when asked for nothing else."""
    directory = tmp_path_factory.mktemp("repaired")
    return {name: converted("to-gguf", path, directory / f"{name}.gguf") for name, path in theirs.items()}


def keys(path: Path) -> dict[str, Any]:
    """Every key with its value, as gguf-py reads them."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_repaired_file_has_every_key_but_the_template_and_the_same_tensors(
    version: str, repaired: dict[str, Path], tiny_gguf: Path
) -> None:
    found, expected = keys(repaired[version]), keys(tiny_gguf)
    del expected["tokenizer.chat_template"]
    assert found == expected | {"GGUF.kv_count": expected["GGUF.kv_count"] - 1}
    assert contents(repaired[version]) == contents(tiny_gguf)


def test_repaired_file_is_byte_identical_with_the_models_tokenizer(
    legacy: Path, tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    out = converted("to-gguf", legacy, tmp_path / "out.gguf", "--tokenizer", tiny)
    assert out.read_bytes() == tiny_gguf.read_bytes()


@pytest.fixture(scope="module")
def expected_log_probs(tiny_gguf: Path) -> NDArray[np.float64]:
    return log_probs(tiny_gguf)


def log_probs(path: Path) -> NDArray[np.float64]:
    with LlamaCpp(path) as model:
        return model.log_probs(PROMPT, N_VOCAB)


@pytest.mark.parametrize("version", VERSIONS)
def test_llama_cpp_computes_from_the_repaired_file_what_it_does_from_ours(
    version: str, repaired: dict[str, Path], expected_log_probs: NDArray[np.float64]
) -> None:
    assert np.array_equal(log_probs(repaired[version]), expected_log_probs)


# A server that is taken down before its first answer may wait for itself forever, so the process ends without that.
LOAD = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.verbosity = sys.argv[1], 1
server = xllamacpp.Server(params)
os._exit(0)
"""

REASONS = {
    "0.11.0": "of type 4 (DEPRECATED)",
    "0.11.5": "of type 4 (DEPRECATED)",
    "0.11.7": "of type 4 (DEPRECATED)",
    "0.11.8": "unknown model architecture: 'gptoss'",
    "0.12.6": "unknown model architecture: 'gptoss'",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_llama_cpp_refuses_the_legacy_file(version: str, theirs: dict[str, Path], repaired: dict[str, Path]) -> None:
    """That is why files are repaired."""
    loads = [
        subprocess.run(
            [sys.executable, "-c", LOAD, str(path)], capture_output=True, encoding="utf-8", check=False, timeout=120
        )
        for path in (theirs[version], repaired[version])
    ]
    assert [load.returncode != 0 for load in loads] == [True, False]
    assert REASONS[version] in loads[0].stdout + loads[0].stderr


# --- ours beside theirs ---


def test_ours_has_their_keys_and_two_more(ours: Path, theirs: dict[str, Path]) -> None:
    """Ollama passes over the config. Its converter takes a template of tokenizer_config.json only."""
    found, expected = read_keys(ours), read_keys(theirs["0.11.0"])
    assert {key: value for key, value in found.items() if key in expected} == expected
    assert found.keys() - expected.keys() == {"gptoss_convert.config", "tokenizer.chat_template"}


def test_ours_has_the_tensors_of_0_11_5_byte_for_byte(ours: Path, theirs: dict[str, Path]) -> None:
    assert read_entries(ours) == read_entries(theirs["0.11.5"])


def test_ours_has_the_tensors_of_0_11_0_with_the_experts_biases_in_f32(ours: Path, theirs: dict[str, Path]) -> None:
    found, expected = read_entries(ours), read_entries(theirs["0.11.0"])
    biases = [name for name in expected if name.endswith("_exps.bias")]
    assert len(biases) == 8
    for name in biases:
        kind, shape, data = expected[name]
        assert kind is BF16
        expected[name] = Entry(F32, shape, (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).tobytes())
    assert found == expected


def type_codes(path: Path, end: str) -> list[int]:
    """The type's code in the file's own bytes, for each tensor whose name ends so."""
    raw = path.read_bytes()
    codes: list[int] = []
    for match in re.finditer(rf"blk\.\d+\.{re.escape(end)}".encode(), raw):
        assert struct.unpack_from("<Q", raw, match.start() - 8) == (len(match.group()),)
        (n_dims,) = struct.unpack_from("<I", raw, match.end())
        codes += struct.unpack_from("<I", raw, match.end() + 4 + 8 * n_dims)
    return codes


@pytest.mark.parametrize(("end", "code"), [
    ("ffn_gate_up_exps.weight", 4),
    ("ffn_down_exps.weight", 4),
    ("attn_qkv.weight", 30),
    ("ffn_gate_up_exps.bias", 0),
])  # fmt: skip
def test_type_codes_in_the_file(end: str, code: int, ours: Path) -> None:
    assert type_codes(ours, end) == [code] * 4


def test_architecture_in_the_file(ours: Path) -> None:
    key, value = b"general.architecture", b"gptoss"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    assert ours.read_bytes().count(entry) == 1


def test_repaired_from_ours_every_file_is_byte_identical(
    ours: Path, tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    assert contents(converted("to-mxfp4", ours, tmp_path / "out", "--shard-plan", "1M")) == contents(tiny)
    assert converted("to-gguf", ours, tmp_path / "out.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_any_version_becomes_the_first_ones_layout(legacy: Path, theirs: dict[str, Path], tmp_path: Path) -> None:
    out = converted("to-gguf", legacy, tmp_path / "out", *LEGACY)
    assert read_entries(out) == read_entries(theirs["0.11.5"])


def test_split_file_is_repaired_from_its_first_shard(tiny: Path, tmp_path: Path) -> None:
    converted("to-gguf", tiny, tmp_path / "split.gguf", *LEGACY, "--split-max-size", "1M")
    shards = sorted(tmp_path.glob("split-*.gguf"))
    assert len(shards) > 2
    assert command("inspect", shards[0], "--json").json["layout"] == "ollama-legacy"
    assert contents(converted("to-mxfp4", shards[0], tmp_path / "out", "--shard-plan", "1M")) == contents(tiny)


# --- experts that are floats ---

FLOATS = {"bf16": 32, "f16": 1, "f32": 0}


@pytest.fixture(scope="module", params=FLOATS)
def floats(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file with such experts in Ollama's dialect, and in llama.cpp's."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "legacy").mkdir()
    options = ("--experts", request.param)
    legacy = converted("to-gguf", tiny, directory / "legacy" / tiny.name, *LEGACY, *options)
    return legacy, converted("to-gguf", tiny, directory / f"{request.param}.gguf", *options)


def test_float_experts_have_gate_and_up_in_turn_and_their_file_type(floats: tuple[Path, Path]) -> None:
    legacy, direct = ({one.name: one.data for one in gguf.GGUFReader(path).tensors} for path in floats)
    for layer in range(4):
        for kind in ("weight", "bias"):
            both = legacy[f"blk.{layer}.ffn_gate_up_exps.{kind}"]
            assert np.array_equal(both[:, 0::2], direct[f"blk.{layer}.ffn_gate_exps.{kind}"])
            assert np.array_equal(both[:, 1::2], direct[f"blk.{layer}.ffn_up_exps.{kind}"])
    found = keys(floats[0])
    assert found["general.architecture"] == "gptoss"
    assert found["general.file_type"] == FLOATS[floats[1].stem]


def test_float_experts_are_repaired_byte_for_byte(floats: tuple[Path, Path], tmp_path: Path) -> None:
    legacy, direct = floats
    out = converted("to-gguf", legacy, tmp_path / "out.gguf", "--experts", direct.stem)
    assert out.read_bytes() == direct.read_bytes()


def test_float_experts_become_the_same_mxfp4_like_the_original(
    floats: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    out = converted("to-mxfp4", floats[0], tmp_path / "out", "--shard-plan", "1M", "--like", tiny)
    assert contents(out) == contents(tiny)
