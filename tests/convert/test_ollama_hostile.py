"""Files of Ollama's dialect that none of its converters wrote: understood to the byte, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from command_line import command, refused
from conversions import contents, converted
from gguf_entries import Entries, Entry, Keys, read_entries, read_keys, write_entries
from mxfp4_reference import decoded
from ollama_files import VERSIONS, ollama_gguf

from gptoss_convert.formats.containers.gguf_types import MXFP4, OLLAMA_MXFP4
from gptoss_convert.formats.containers.gguf_writer import string, u32

Files = dict[str, Entries]


@pytest.fixture(scope="module")
def keys(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Those of every version's file."""
    return read_keys(ollama_gguf(tiny, tmp_path_factory.mktemp("keys") / "tiny", "0.11.5"))


@pytest.fixture(scope="module")
def theirs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The tensors of each version's file, to be read only."""
    path = tmp_path_factory.mktemp("theirs") / "tiny"
    return {version: read_entries(ollama_gguf(tiny, path, version)) for version in VERSIONS}


# --- what is understood ---


def interleaved(tensors: Entries, layer: int, projection: str) -> bytes:
    """gate, up or down as blocks of type 4, out of a file that has gate and up in turn."""
    if projection == "down":
        return tensors[f"blk.{layer}.ffn_down_exps.weight"].data
    both = tensors[f"blk.{layer}.ffn_gate_up_exps.weight"]
    assert both.type is OLLAMA_MXFP4
    rows = np.frombuffer(both.data, np.uint8).reshape(*both.shape[:2], -1)
    return rows[:, ("gate", "up").index(projection) :: 2].tobytes()


@pytest.mark.parametrize("projections", [("down",), ("gate",), ("up",), ("gate", "up", "down")], ids=" ".join)
def test_ollamas_blocks_under_llama_cpps_architecture_are_repaired(
    projections: tuple[str, ...], theirs: Files, tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    tensors = read_entries(tiny_gguf)
    for layer in (0, 3):
        for projection in projections:
            name = f"blk.{layer}.ffn_{projection}_exps.weight"
            data = interleaved(theirs["0.11.5"], layer, projection)
            assert tensors[name].type is MXFP4
            assert tensors[name].data != data
            tensors[name] = Entry(OLLAMA_MXFP4, tensors[name].shape, data)
    path = write_entries(tmp_path / "tiny", read_keys(tiny_gguf), tensors)
    assert converted("to-gguf", path, tmp_path / "out.gguf").read_bytes() == tiny_gguf.read_bytes()
    assert contents(converted("to-mxfp4", path, tmp_path / "out", "--shard-plan", "1M")) == contents(tiny)


def test_both_types_of_blocks_in_one_file_are_understood(
    keys: Keys, theirs: Files, tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    early, late = theirs["0.11.7"], theirs["0.11.8"]
    mixed = {name: early[name] if name.startswith("blk.1.") else late[name] for name in early}
    path = write_entries(tmp_path / "tiny", keys, mixed)
    out = converted("to-gguf", path, tmp_path / "out.gguf", "--tokenizer", tiny)
    assert out.read_bytes() == tiny_gguf.read_bytes()


def test_ollamas_blocks_outside_the_experts_are_decoded(keys: Keys, theirs: Files, tmp_path: Path) -> None:
    tensors, name = theirs["0.11.5"], "blk.2.attn_out.weight"
    shape, random = tensors[name].shape, np.random.default_rng(0)
    codes = random.integers(0, 16, (shape[0] * shape[1] // 32, 32), np.uint8)
    scales = random.integers(110, 130, len(codes), np.uint8)
    blocks = np.concatenate([scales[:, None], codes[:, 0::2] | codes[:, 1::2] << 4], axis=1)
    other = {name: Entry(OLLAMA_MXFP4, shape, blocks.tobytes())}
    path = write_entries(tmp_path / "tiny", keys, tensors | other)
    out = converted("to-gguf", path, tmp_path / "out.gguf", "--type", "f32")
    (found,) = [one.data for one in gguf.GGUFReader(out).tensors if one.name == "blk.2.attn_output.weight"]
    assert found.tobytes() == decoded(codes, scales.astype(int) - 127).astype(np.float32).tobytes()


# --- what is refused ---


def renamed(keys: Keys) -> Keys:
    """Ollama's keys as llama.cpp has them."""
    return {key.replace("gptoss.", "gpt-oss."): value for key, value in keys.items()}


OTHER_KEYS: dict[str, tuple[Callable[[Keys], Keys], tuple[str, ...]]] = {
    "llama.cpp's keys, Ollama's tensors": (
        lambda keys: (
            renamed(keys) | {"general.architecture": string("gpt-oss"), "gpt-oss.expert_feed_forward_length": u32(160)}
        ),
        ("blk.0.attn_output.weight", "missing"),
    ),
    "llama.cpp's keys, Ollama's architecture": (renamed, ("gptoss.block_count", "the key is missing")),
    "Ollama's keys, llama.cpp's architecture": (
        lambda keys: keys | {"general.architecture": string("gpt-oss")},
        ("gpt-oss.block_count", "the key is missing"),
    ),
    "another architecture": (
        lambda keys: keys | {"general.architecture": string("gptoss2")},
        ("general.architecture", "expected 'gpt-oss' or 'gptoss'", "found 'gptoss2'"),
    ),
}


@pytest.mark.parametrize(("change", "words"), OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_dialects_that_are_mixed_up_are_refused_by_name(
    change: Callable[[Keys], Keys], words: tuple[str, ...], keys: Keys, theirs: Files, tmp_path: Path
) -> None:
    path = write_entries(tmp_path / "wrong", change(keys), theirs["0.11.5"])
    refused(command("to-mxfp4", path, tmp_path / "out"), path, *words)


def only(tensors: Entries, *ends: str) -> Entries:
    """Those of all layers whose names end so."""
    found = {name: entry for name, entry in tensors.items() if name.endswith(ends)}
    assert len(found) == 4 * len(ends)
    return found


def without(tensors: Entries, name: str) -> Entries:
    assert name in tensors
    return {other: entry for other, entry in tensors.items() if other != name}


def shorter(tensors: Entries, name: str) -> Entries:
    """The BF16 matrix without its last row."""
    kind, (rows, cols), data = tensors[name]
    return tensors | {name: Entry(kind, (rows - 1, cols), data[: -2 * cols])}


# What is in the file, made of what is in those of other versions, and what is said.
OTHER_TENSORS: dict[str, tuple[Callable[[Files], Entries], tuple[str, ...]]] = {
    "q, k and v in one and apart": (
        lambda of: of["0.11.5"] | only(of["0.11.7"], "attn_q.weight", "attn_k.weight", "attn_v.weight"),
        ("blk.0.attn_qkv.weight", "stored twice", "blk.0.attn_q.weight"),
    ),
    "gate and up in one and apart": (
        lambda of: of["0.11.8"] | only(of["0.12.6"], "ffn_gate_exps.weight", "ffn_up_exps.weight"),
        ("blk.0.ffn_gate_up_exps.weight", "stored twice", "blk.0.ffn_gate_exps.weight", "or convert the model again"),
    ),
    "two spellings of sinks": (
        lambda of: of["0.11.5"] | {"blk.1.attn_sinks.weight": of["0.11.5"]["blk.1.attn_sinks"]},
        ("blk.1.attn_sinks", "stored twice", "blk.1.attn_sinks.weight"),
    ),
    "up without gate": (
        lambda of: without(of["0.12.6"], "blk.2.ffn_gate_exps.weight"),
        ("blk.2.ffn_gate_exps.weight", "missing"),
    ),
    "one row of v too few": (
        lambda of: shorter(of["0.11.5"], "blk.3.attn_qkv.weight"),
        ("blk.3.attn_qkv.weight", "expected shape [512, 192]", "found shape [511, 192]"),
    ),
    "no unembedding": (lambda of: without(of["0.11.5"], "output.weight"), ("output.weight", "missing")),
}


@pytest.mark.parametrize(("change", "words"), OTHER_TENSORS.values(), ids=OTHER_TENSORS)
def test_tensors_of_no_version_are_refused_by_name(
    change: Callable[[Files], Entries], words: tuple[str, ...], keys: Keys, theirs: Files, tmp_path: Path
) -> None:
    path = write_entries(tmp_path / "wrong", keys, change(theirs))
    refused(command("to-mxfp4", path, tmp_path / "out"), path, *words)
