"""A Metal file ends its embeddings with the 16th special token: the way back is refused, or pads with rows of zeros.

In `tiny` the 384 text tokens and 16 of the special ones are kept; the last 16 of 416 rows have no place in the file.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from checkpoints import Tensors, nothing_left_in, read_tensors
from command_line import Outcome, command, refused
from gguf_files import stored_bytes
from numpy.typing import NDArray

from gptoss_convert.convert import plan as planning
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.targets.hf import HfTarget
from gptoss_convert.convert.targets.metal import MetalTarget
from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.model.tokenizer import read_tokenizer

COLS, ROWS, KEPT = 192, 416, 400
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")

# target -> its command, and where the embeddings are in what it writes
TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {
    "hf": (("to-mxfp4",), EMBEDDINGS),
    "original": (("to-mxfp4", "--layout", "original"), ("embedding.weight", "unembedding.weight")),
    "bf16": (("to-bf16",), EMBEDDINGS),
    "mlx": (("to-mlx",), EMBEDDINGS),
    "gguf": (("to-gguf",), ("token_embd.weight", "output.weight")),
    "ollama-legacy": (("to-gguf", "--dialect", "ollama-legacy"), ("token_embd.weight", "output.weight")),
}

Rows = NDArray[np.uint16]


@pytest.fixture(scope="module")
def metal(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `to-metal` makes of `tiny`, to be read only."""
    path = tmp_path_factory.mktemp("metal") / "model.bin"
    assert command("to-metal", tiny, path, "--quiet").code == 0
    return path


@pytest.fixture(scope="module")
def embeddings(tiny: Path) -> list[Rows]:
    """Both embeddings of `tiny`, uint16 [416, 192]."""
    tensors = read_tensors(tiny)
    return [bf16(tensors, name) for name in EMBEDDINGS]


def bf16(tensors: Tensors, name: str) -> Rows:
    return np.frombuffer(tensors[name].data, np.uint16).reshape(tensors[name].shape)


def stored(path: Path, names: tuple[str, str]) -> list[Rows]:
    """Both embeddings in a directory or a GGUF file."""
    if path.is_dir():
        tensors = read_tensors(path)
        return [bf16(tensors, name) for name in names]
    return [np.frombuffer(stored_bytes(read_gguf(path), name), np.uint16).reshape(-1, COLS) for name in names]


def convert(target: str, source: Path, out: Path, *options: str | Path) -> Outcome:
    (name, *fixed), _ = TARGETS[target]
    return command(name, source, out, *fixed, *options)


# --- without the option ---


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["written", "planned"])
def test_refused_without_the_option(target: str, options: tuple[str, ...], metal: Path, tmp_path: Path) -> None:
    with nothing_left_in(tmp_path):
        outcome = convert(target, metal, tmp_path / "out", *options)
    refused(outcome, metal, "rows of the embeddings", "expected 416 rows", "found 400 rows", "--pad-vocab", code=2)


def test_metal_to_metal_needs_no_option_and_is_byte_identical_as_a_file(metal: Path, tmp_path: Path) -> None:
    outcome = command("to-metal", metal, tmp_path / "again.bin", "--json")
    assert outcome.json["verified"] is True
    assert (tmp_path / "again.bin").read_bytes() == metal.read_bytes()


def test_inspect_needs_no_option_and_shows_the_rows_that_are_there(metal: Path) -> None:
    report = command("inspect", metal, "--json").json
    assert report["layout"] == "metal"
    assert report["config"]["vocab_size"] == KEPT
    assert report["parameters"] == 3_725_808 - 2 * (ROWS - KEPT) * COLS


# --- with it ---


@pytest.mark.parametrize("target", TARGETS)
def test_kept_rows_are_byte_identical_and_added_rows_are_zero(
    target: str, metal: Path, embeddings: list[Rows], tmp_path: Path
) -> None:
    outcome = convert(target, metal, tmp_path / "out", "--pad-vocab", "--json")
    assert outcome.json["verified"] is True
    for found, before in zip(stored(tmp_path / "out", TARGETS[target][1]), embeddings, strict=True):
        assert found.shape == before.shape == (ROWS, COLS)
        assert np.array_equal(found[:KEPT], before[:KEPT])
        assert before[KEPT:].any()
        assert not found[KEPT:].any()


def test_padded_and_cut_again_is_byte_identical_as_a_file(metal: Path, tmp_path: Path) -> None:
    assert convert("hf", metal, tmp_path / "hf", "--pad-vocab", "--quiet").code == 0
    assert command("to-metal", tmp_path / "hf", tmp_path / "again.bin", "--quiet").code == 0
    assert (tmp_path / "again.bin").read_bytes() == metal.read_bytes()


def test_padding_that_was_never_written_is_cut_again(metal: Path, tmp_path: Path) -> None:
    padded = open_checkpoint(metal, pad_vocab=True)
    run(planning.plan(padded, MetalTarget(tmp_path / "again.bin")))
    assert (tmp_path / "again.bin").read_bytes() == metal.read_bytes()


@pytest.mark.parametrize("slab_rows", [16, 24, 400, 408])
def test_padding_may_begin_anywhere_in_a_slab(
    slab_rows: int, metal: Path, embeddings: list[Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slab of stored rows, of some, or of none: in the true shapes there are slabs of padding alone."""
    monkeypatch.setattr(planning, "leaf_rows", lambda _row_bytes: slab_rows)
    monkeypatch.setattr(planning, "SLAB_BYTES", 1)
    padded = open_checkpoint(metal, pad_vocab=True)
    planned = planning.plan(padded, HfTarget(tmp_path / "hf"))
    assert planned.groups[0].slab_rows == slab_rows
    manifest = run(planned)
    assert manifest.verdict is not None
    assert manifest.verdict.holds
    for found, before in zip(stored(tmp_path / "hf", EMBEDDINGS), embeddings, strict=True):
        assert np.array_equal(found[:KEPT], before[:KEPT])
        assert not found[KEPT:].any()


def test_padding_is_there_when_a_tensor_gets_another_encoding(
    metal: Path, embeddings: list[Rows], tmp_path: Path
) -> None:
    run(planning.plan(open_checkpoint(metal, pad_vocab=True), GgufTarget(tmp_path / "f32.gguf", type="f32")))
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    values = found["token_embd.weight"].reshape(ROWS, COLS)
    assert np.array_equal(values[:KEPT].view(np.uint32) >> 16, embeddings[0][:KEPT])
    assert not values[KEPT:].any()


def test_tokenizer_of_a_padded_model_has_all_special_tokens(metal: Path, tiny: Path, tmp_path: Path) -> None:
    assert convert("hf", metal, tmp_path / "hf", "--pad-vocab", "--quiet").code == 0
    found, before = (read_tokenizer(path, vocab_size=ROWS) for path in (tmp_path / "hf", tiny))
    assert found.specials == before.specials
    assert len(found.specials) == 21


@pytest.mark.parametrize("target", TARGETS)
def test_a_source_that_has_all_rows_is_not_padded(target: str, tiny: Path, tmp_path: Path) -> None:
    plain = convert(target, tiny, tmp_path / "out", "--dry-run", "--json").json
    assert convert(target, tiny, tmp_path / "out", "--pad-vocab", "--dry-run", "--json").json == plain


# --- what is said ---


def notes(outcome: Outcome) -> list[str]:
    return [line.removeprefix("note: ") for line in outcome.err.splitlines() if line.startswith("note: ")]


@pytest.fixture(scope="module")
def said_of_metal(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return notes(command("to-metal", tiny, tmp_path_factory.mktemp("said") / "model.bin"))


def test_rows_that_are_left_out_are_said_with_their_tokens(said_of_metal: list[str]) -> None:
    (note,) = [note for note in said_of_metal if "left out" in note]
    assert "16 rows of each are left out" in note
    assert "<|reserved_200014|>, <|reserved_200015|>, <|reserved_200016|>, <|reserved_200017|>, <|endofprompt|>" in note
    assert "The way back cannot restore them." in note


def test_sizes_that_openais_kernels_lack_are_said(said_of_metal: list[str]) -> None:
    assert [note for note in said_of_metal if "Metal kernels" in note] == [
        "OpenAI's Metal kernels need num_experts 32 or 128; this model has 8.",
        "OpenAI's Metal kernels need num_heads 64; this model has 4.",
        "OpenAI's Metal kernels need num_kv_heads 8; this model has 2.",
    ]


def test_missing_template_is_said(said_of_metal: list[str]) -> None:
    assert [note for note in said_of_metal if "no chat template" in note]


def test_metal_to_metal_leaves_nothing_out_and_says_nothing_of_rows(metal: Path, tmp_path: Path) -> None:
    assert not [note for note in notes(command("to-metal", metal, tmp_path / "again.bin")) if "rows" in note]


@pytest.mark.parametrize("target", TARGETS)
def test_added_rows_are_said(target: str, metal: Path, tmp_path: Path) -> None:
    said = notes(convert(target, metal, tmp_path / "out", "--pad-vocab"))
    assert [note for note in said if "holds 400 rows of each embedding: 16 rows of zeros are added" in note]


def test_missing_template_of_a_directory_is_said_with_the_remedy(metal: Path, tmp_path: Path) -> None:
    said = notes(convert("hf", metal, tmp_path / "out", "--pad-vocab"))
    assert [note for note in said if note.startswith("chat_template.jinja is not in the source") and "--token" in note]
