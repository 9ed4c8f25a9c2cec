"""What llama.cpp computes from our GGUF files does not depend on what they were made of.

Compared, to the bit, are log-probabilities of the next token with those from the file made of `tiny` itself, which
test_consumers.py compares with transformers'. Experts that were floats are the same values in MXFP4, if not always the
same blocks; that makes no difference either. What training changed is compared with transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from checkpoints import Tensors, copy_of, edit_tensors, read_tensors
from conversions import converted, in_layout
from drift import drift
from expert_spellings import packed_in, unsloth
from experts import DOWN, GATE_UP, Array, change_floats
from gguf_entries import Entry, read_entries, read_keys, write_entries
from gguf_faults import Tensors as GgufTensors
from gguf_faults import with_fault
from llama_cpp import LlamaCpp
from numpy.typing import NDArray
from ollama_files import ollama_gguf
from tolerances import BF16, F32, MXFP4, Tolerance
from transformers_reference import Reference

N_VOCAB, N_KEPT, HIDDEN = 416, 400, 192
PROMPTS = np.random.default_rng(7).integers(0, N_VOCAB, (2, 100)).tolist()
LENGTHS = (1, 33, 100)  # The sliding window is 32.

LogProbs = NDArray[np.float64]
Source = tuple[Path, tuple[str | Path, ...]]


def log_probs(path: Path) -> LogProbs:
    """llama.cpp's, [positions, vocabulary]."""
    with LlamaCpp(path) as model:
        found = np.stack([model.log_probs(prompt[:length], N_VOCAB) for prompt in PROMPTS for length in LENGTHS])
    assert np.isfinite(found).all()
    return found


def transformers_log_probs(checkpoint: Path) -> LogProbs:
    """As llama.cpp computes YaRN, [positions, vocabulary]."""
    reference = Reference(checkpoint, truncate=True)
    of_prompts = [reference.log_probs(prompt) for prompt in PROMPTS]
    return np.stack([found[length - 1] for found in of_prompts for length in LENGTHS])


# --- what files are made of ---


def bf16(tiny: Path, out: Path) -> Source:
    return converted("to-bf16", tiny, out), ()


def spelt(tiny: Path, out: Path, spell: Callable[[Tensors], object]) -> Source:
    """A BF16 directory with its experts under other names."""
    edit_tensors(converted("to-bf16", tiny, out), spell)
    return out, ()


def mixed(tiny: Path, out: Path) -> Source:
    """Two layers packed, two dense."""
    return spelt(tiny, out, packed_in(read_tensors(tiny), 0, 3))


def layout(name: str, tiny: Path, out: Path, *options: str | Path) -> Source:
    return in_layout(name, tiny, out), options


def original(tiny: Path, out: Path) -> Source:
    """Its tokenizer is that of the Hugging Face directory."""
    return layout("original", tiny, out, "--tokenizer", tiny)


def decoded_gguf(tiny: Path, out: Path) -> Source:
    return converted("to-gguf", tiny, out, "--type", "f32", "--experts", "f16"), ("--type", "bf16")


def split_gguf(tiny: Path, out: Path) -> Source:
    out.mkdir()
    converted("to-gguf", tiny, out / "tiny.gguf", "--split-max-size", "1M")
    shards = sorted(out.iterdir())
    assert len(shards) > 2
    return shards[0], ()


def fused_gguf(tiny: Path, out: Path) -> Source:
    """q, k and v of each layer in one tensor, as llama.cpp's converter makes it with --fuse-qkv."""
    plain = converted("to-gguf", tiny, out.with_name("plain.gguf"))
    entries = read_entries(plain)
    for layer in range(4):
        for kind in ("weight", "bias"):
            parts = [entries.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            rows = sum(part.shape[0] for part in parts)
            data = b"".join(part.data for part in parts)
            entries[f"blk.{layer}.attn_qkv.{kind}"] = Entry(parts[0].type, (rows, *parts[0].shape[1:]), data)
    return write_entries(out, read_keys(plain), entries), ()


def ollama(version: str, tiny: Path, out: Path) -> Source:
    return ollama_gguf(tiny, out, version), ()


SOURCES: dict[str, Callable[[Path, Path], Source]] = {
    "BF16": bf16,
    "BF16 in Unsloth's spelling": partial(spelt, spell=unsloth),
    "BF16 and MXFP4": mixed,
    "original": original,
    "MLX": partial(layout, "mlx"),
    "GGUF": partial(layout, "gguf"),
    "GGUF in floats": decoded_gguf,
    "GGUF in shards": split_gguf,
    "GGUF with q, k and v in one": fused_gguf,
    "Ollama 0.11.0": partial(ollama, "0.11.0"),
    "Ollama 0.12.6": partial(ollama, "0.12.6"),
}

OPTIONS: dict[str, tuple[str, ...]] = {
    "by default": (),
    "in shards": ("--split-max-size", "1M"),
    "BF16 experts": ("--experts", "bf16"),
    "F16": ("--experts", "f16", "--type", "f16"),
    "F32": ("--experts", "f32", "--type", "f32"),
}


def to_gguf(source: Source, directory: Path, *options: str) -> Path:
    """The file, or the first of its shards; `options` come last and hold."""
    directory.mkdir()
    path, needed = source
    converted("to-gguf", path, directory / "out.gguf", *needed, *options)
    return min(directory.iterdir())


@pytest.fixture(scope="module")
def expected(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LogProbs]:
    """From the files made of `tiny`, by name of the options."""
    directory = tmp_path_factory.mktemp("expected")
    return {name: log_probs(to_gguf((tiny, ()), directory / name, *options)) for name, options in OPTIONS.items()}


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return SOURCES[request.param](tiny, tmp_path_factory.mktemp("source") / "tiny")


@pytest.mark.parametrize("options", OPTIONS)
def test_log_probabilities_are_equal_whatever_the_file_is_made_of(
    options: str, source: Source, expected: dict[str, LogProbs], tmp_path: Path
) -> None:
    found = log_probs(to_gguf(source, tmp_path / "gguf", *OPTIONS[options]))
    assert np.array_equal(found, expected[options])


def test_llama_cpp_computes_the_same_from_q_k_and_v_in_one(
    tiny: Path, expected: dict[str, LogProbs], tmp_path: Path
) -> None:
    """So the file made by hand is one that llama.cpp takes."""
    path, _ = fused_gguf(tiny, tmp_path / "fused.gguf")
    assert np.array_equal(log_probs(path), expected["by default"])


# --- Metal, which keeps 400 of 416 rows of the embeddings ---


@pytest.fixture(scope="module")
def cut(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with zeros in the rows that Metal does not keep."""
    directory = copy_of(tiny, tmp_path_factory.mktemp("cut") / "tiny")

    def edit(tensors: Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            kept = tensors[name].data[: N_KEPT * HIDDEN * 2]
            tensors[name].data = kept + bytes(len(tensors[name].data) - len(kept))

    edit_tensors(directory, edit)
    return directory


@pytest.mark.parametrize("options", OPTIONS)
def test_log_probabilities_from_metal_are_those_of_the_rows_it_keeps(
    options: str, cut: Path, tiny: Path, expected: dict[str, LogProbs], tmp_path: Path
) -> None:
    metal = in_layout("metal", tiny, tmp_path / "metal")
    found = log_probs(to_gguf((metal, ("--pad-vocab",)), tmp_path / "found", *OPTIONS[options]))
    assert np.array_equal(found, log_probs(to_gguf((cut, ()), tmp_path / "cut", *OPTIONS[options])))
    assert not np.array_equal(found, expected[options])


# --- equality means something ---


def one_code_larger(tensors: GgufTensors) -> None:
    """The lowest bit of one code of one block."""
    tensors.blocks("blk.0.ffn_down_exps.weight")[0, 1] ^= 1


def test_one_bit_shows(tiny_gguf: Path, expected: dict[str, LogProbs], tmp_path: Path) -> None:
    faulty = with_fault(tiny_gguf, tmp_path / "faulty.gguf", one_code_larger)
    assert not np.array_equal(log_probs(faulty), expected["by default"])


# --- experts that were trained ---


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BF16 directory with other experts in two layers, which MXFP4 holds with a loss."""
    directory = converted("to-bf16", tiny, tmp_path_factory.mktemp("trained") / "tiny")
    for seed, stem in enumerate((GATE_UP.format(1), DOWN.format(1), DOWN.format(3))):
        change_floats(directory, stem, partial(disturb, random=np.random.default_rng(seed)))
    return directory


def disturb(values: Array, random: np.random.Generator) -> None:
    values += random.normal(0, values.std(), values.shape)


@pytest.fixture(scope="module")
def trained_reference(trained: Path) -> LogProbs:
    return transformers_log_probs(trained)


@pytest.mark.parametrize(("options", "tolerance"), [("BF16 experts", BF16), ("F32", F32)])
def test_trained_experts_as_floats_are_within_drift_of_transformers(
    options: str, tolerance: Tolerance, trained: Path, trained_reference: LogProbs, tmp_path: Path
) -> None:
    found = log_probs(to_gguf((trained, ()), tmp_path / "gguf", *OPTIONS[options]))
    assert tolerance.excess(drift(trained_reference, found)) <= 1


def test_trained_experts_in_mxfp4_are_within_drift_of_transformers_on_our_directory(
    trained: Path, trained_reference: LogProbs, expected: dict[str, LogProbs], tmp_path: Path
) -> None:
    """Both programs get the same blocks; neither training nor quantizing is within the tolerance."""
    reference = transformers_log_probs(converted("to-mxfp4", trained, tmp_path / "tiny"))
    found = log_probs(to_gguf((trained, ()), tmp_path / "gguf"))
    assert MXFP4.excess(drift(reference, found)) <= 1
    assert MXFP4.excess(drift(trained_reference, found)) >= 10
    assert MXFP4.excess(drift(expected["by default"], found)) >= 50


@pytest.mark.parametrize("options", ["by default", "F32"])
def test_trained_experts_are_the_same_by_way_of_another_layout(options: str, trained: Path, tmp_path: Path) -> None:
    by_mlx = converted("to-mlx", trained, tmp_path / "mlx")
    packed = converted("to-mxfp4", trained, tmp_path / "tiny")
    first, second = (to_gguf((path, ()), path.with_suffix(".gguf"), *OPTIONS[options]) for path in (by_mlx, packed))
    assert np.array_equal(log_probs(first), log_probs(second))
