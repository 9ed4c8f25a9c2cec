"""What transformers' own `save_pretrained` writes is a source for `to-mxfp4`, and gives the checkpoint back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from checkpoints import Tensors, read_tensors
from command_line import command
from mxfp4_reference import decoded
from numpy.typing import NDArray
from save_pretrained import in_spelling_of_transformers_4, save_decoded, save_dense

EXPERTS = ("_blocks", "_scales")

SOURCES: dict[str, Callable[[Path, Path], Path]] = {
    "BF16": save_dense,
    "BF16 with a config of transformers 4": lambda tiny, out: in_spelling_of_transformers_4(save_dense(tiny, out)),
    "BF16 in several shards": partial(save_dense, shard="1MB"),
    "BF16 under the names of blocks": save_decoded,
    "F32": partial(save_dense, dtype=torch.float32),
    "F16": partial(save_dense, dtype=torch.float16),
}
LOSSLESS = [name for name in SOURCES if name != "F16"]


@pytest.fixture(scope="module")
def saved(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("saved")
    return {name: save(tiny, directory / name.replace(" ", "-")) for name, save in SOURCES.items()}


@pytest.fixture(scope="module")
def to_mxfp4(saved: dict[str, Path], tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`to_mxfp4(name, *options)`: what the command makes of a source, in shards as large as those of `tiny`."""
    made: dict[tuple[str | Path, ...], Path] = {}

    def convert(name: str, *options: str | Path) -> Path:
        if (name, *options) not in made:
            out = tmp_path_factory.mktemp("mxfp4") / "tiny"
            outcome = command("to-mxfp4", saved[name], out, "--tokenizer", tiny, "--shard-plan", "1M", *options)
            assert outcome.code == 0, outcome.err
            made[name, *options] = out
        return made[name, *options]

    return convert


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Tensors:
    return read_tensors(tiny)


def differing(found: Tensors, expected: Tensors) -> list[str]:
    """Names of tensors that differ in anything, and of those that only one side has."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def rounded_to_f16(tensors: Tensors) -> Tensors:
    """BF16 tensors rounded to F16. What is left is BF16 still: F16 takes digits only from numbers below 2^-17."""

    def rounded(data: bytes) -> bytes:
        return np.frombuffer(data, ml_dtypes.bfloat16).astype(np.float16).astype(ml_dtypes.bfloat16).tobytes()

    return {
        name: replace(tensor, data=rounded(tensor.data)) if tensor.dtype == "BF16" else tensor
        for name, tensor in tensors.items()
    }


# --- tensors ---


@pytest.mark.parametrize("name", LOSSLESS)
def test_all_tensors_are_byte_identical_with_like(
    name: str, to_mxfp4: Callable[..., Path], tiny: Path, expected: Tensors
) -> None:
    assert differing(read_tensors(to_mxfp4(name, "--like", tiny)), expected) == []


@pytest.mark.parametrize("name", LOSSLESS)
def test_shards_are_byte_identical_with_like(name: str, to_mxfp4: Callable[..., Path], tiny: Path) -> None:
    out = to_mxfp4(name, "--like", tiny)
    shards = sorted(path.name for path in tiny.glob("model*"))
    assert sorted(path.name for path in out.glob("model*")) == shards
    assert [shard for shard in shards if (out / shard).read_bytes() != (tiny / shard).read_bytes()] == []


def test_f16_gives_back_what_f16_held(to_mxfp4: Callable[..., Path], tiny: Path, expected: Tensors) -> None:
    held = rounded_to_f16(expected)
    assert differing(held, expected)
    assert differing(read_tensors(to_mxfp4("F16", "--like", tiny)), held) == []


@pytest.mark.parametrize("name", LOSSLESS)
def test_tensors_outside_the_experts_are_byte_identical(
    name: str, to_mxfp4: Callable[..., Path], expected: Tensors
) -> None:
    differ = differing(read_tensors(to_mxfp4(name)), expected)
    assert [tensor for tensor in differ if not tensor.endswith(EXPERTS)] == []


@pytest.mark.parametrize("name", SOURCES)
def test_experts_are_value_identical(name: str, to_mxfp4: Callable[..., Path], expected: Tensors) -> None:
    found = packed_experts(read_tensors(to_mxfp4(name)))
    for tensor, packed in packed_experts(expected).items():
        assert values(*found[tensor]).tobytes() == values(*packed).tobytes(), tensor


@pytest.mark.parametrize("name", SOURCES)
def test_experts_are_byte_identical_where_only_one_scale_is_possible(
    name: str, to_mxfp4: Callable[..., Path], expected: Tensors
) -> None:
    found = packed_experts(read_tensors(to_mxfp4(name)))
    for tensor, (codes, scales) in packed_experts(expected).items():
        only = has_one_scale(codes)
        assert only.mean() > 0.999
        assert np.array_equal(found[tensor][0][only], codes[only]), tensor
        assert np.array_equal(found[tensor][1][only], scales[only]), tensor


Array = NDArray[Any]


def packed_experts(tensors: Tensors) -> dict[str, tuple[Array, Array]]:
    """Name without its end -> codes uint8 [n, 32] and scales uint8 [n]."""
    experts = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            blocks = np.frombuffer(tensor.data, np.uint8).reshape(-1, 16)
            codes = np.stack([blocks & 15, blocks >> 4], axis=2).reshape(-1, 32)
            stem = name.removesuffix("_blocks")
            experts[stem] = codes, np.frombuffer(tensors[f"{stem}_scales"].data, np.uint8)
    assert len(experts) == 8
    return experts


def values(codes: Array, scales: Array) -> Array:
    """float64 [n, 32]; zeros have their sign."""
    return decoded(codes, scales.astype(int) - 127)


def has_one_scale(codes: Array) -> Array:
    """Which blocks have a value of 0.5 or 1.5 steps, so no higher scale, and one of 4 or 6, so no lower: bool [n]."""
    magnitudes = codes & 7
    return np.isin(magnitudes, [1, 3]).any(axis=1) & (magnitudes >= 6).any(axis=1)


# --- config ---


@pytest.mark.parametrize("name", SOURCES)
def test_config_says_what_the_official_one_does_in_its_spelling(
    name: str, to_mxfp4: Callable[..., Path], tiny: Path
) -> None:
    found, official = (json.loads((path / "config.json").read_bytes()) for path in (to_mxfp4(name), tiny))
    del official["transformers_version"]
    assert {key: found.get(key) for key in official} == official
    assert not {"rope_parameters", "dtype"} & found.keys()
    assert found.get("torch_dtype", "bfloat16") == "bfloat16"


# --- what is said ---


def test_repair_of_names_is_said(saved: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    arguments = ("--tokenizer", tiny, "--dry-run", "--json")
    notes = {
        name: command("to-mxfp4", saved[name], tmp_path / "out", *arguments).json["notes"]
        for name in ("BF16", "BF16 under the names of blocks")
    }
    said = [note for note in notes["BF16 under the names of blocks"] if "under the names of packed blocks" in note]
    assert len(said) == 1
    assert "transformers itself would load random experts" in said[0]
    assert not any("packed blocks" in note for note in notes["BF16"])
