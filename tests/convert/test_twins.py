"""The same bytes come of floats and of MXFP4 whatever kernels, system calls, slabs and threads do the work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import copy_of, edit_tensors
from command_line import command, process
from conversions import contents, converted
from experts import DOWN, GATE_UP, Array, change_floats, read_blocks, store_floats, written_by_known_rules

from gptoss_convert.convert import plan as plan_module
from gptoss_convert.convert import workers
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import Quantizing
from gptoss_convert.convert.targets.hf import HfTarget
from gptoss_convert.formats import digest
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.files import PORTABLE_VARIABLE

Result = tuple[dict[str, bytes], dict[str, Any]]

# Every road on which there are kernels: what is read, the command, its options, and the name of what it writes.
ROADS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "MXFP4 to BF16": ("packed", "to-bf16", (), "tiny"),
    "BF16 to MXFP4": ("trained", "to-mxfp4", (), "tiny"),
    "BF16 to MXFP4, like another": ("trained", "to-mxfp4", ("--like", "packed"), "tiny"),
    "BF16 to MXFP4, like a Metal file": ("trained", "to-mxfp4", ("--like", "metal"), "tiny"),
    "mixture to MXFP4": ("mixed", "to-mxfp4", (), "tiny"),
    "MXFP4 to MLX": ("packed", "to-mlx", (), "tiny"),
    "MXFP4 to Metal": ("packed", "to-metal", (), "tiny.bin"),
    "BF16 to Metal": ("trained", "to-metal", (), "tiny.bin"),
    "BF16 to GGUF with experts in F16": ("trained", "to-gguf", ("--experts", "f16"), "tiny.gguf"),
}
VARIABLES = {"numpy": NO_NUMBA_VARIABLE, "portable files": PORTABLE_VARIABLE}

Way = Callable[[pytest.MonkeyPatch], object]
WAYS: dict[str, Way] = {
    "numpy": lambda monkeypatch: monkeypatch.setenv(NO_NUMBA_VARIABLE, "1"),
    "portable files": lambda monkeypatch: monkeypatch.setenv(PORTABLE_VARIABLE, "1"),
    "one thread": lambda monkeypatch: monkeypatch.setattr(workers, "n_workers", lambda *_: 1),
    "seven threads": lambda monkeypatch: monkeypatch.setattr(workers, "n_workers", lambda *_: 7),
    "smallest slabs": lambda monkeypatch: monkeypatch.setattr(plan_module, "SLAB_BYTES", 1),
}


@pytest.fixture(scope="module")
def sources(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("sources")
    packed = written_by_known_rules(tiny, directory / "packed" / "tiny", largest_scale=240)
    (directory / "trained").mkdir()
    trained = converted("to-bf16", packed, directory / "trained" / "tiny")
    for stem in (GATE_UP.format(1), DOWN.format(3)):
        change_floats(trained, stem, scale_up)
    mixed = copy_of(packed, directory / "mixed" / "tiny")
    stem = DOWN.format(2)
    edit_tensors(mixed, lambda tensors: store_floats(tensors, stem, read_blocks(tensors, stem).values(), "F16"))
    metal = converted("to-metal", packed, directory / "tiny.bin")
    return {"packed": packed, "trained": trained, "mixed": mixed, "metal": metal}


def scale_up(values: Array) -> None:
    values *= 17 / 16


def arguments(road: str, sources: dict[str, Path], directory: Path) -> tuple[list[str | Path], Path]:
    """The command, and what it writes."""
    source, name, options, file_name = ROADS[road]
    directory.mkdir()
    out = directory / file_name
    return [name, sources[source], out, *(sources.get(option, option) for option in options)], out


@pytest.fixture(scope="module")
def usual(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """What comes of a road if nothing is said of how."""
    return functools.cache(lambda road: result(road, sources, tmp_path_factory.mktemp("usual") / "out"))


def result(road: str, sources: dict[str, Path], directory: Path) -> Result:
    """The bytes of the road's end, and its report without what the clock and sums of floats say."""
    words, out = arguments(road, sources, directory)
    report = command(*words, "--json").json
    told = {key: report.get(key) for key in ("digests", "rounded", "packed", "like")}
    return contents(out), told | {"counts": counts(report)}


@pytest.fixture(autouse=True)
def _small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tiny tensors have many leaves, and slabs can differ."""
    monkeypatch.setattr(digest, "LEAF_BYTES", 4096)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("road", ROADS)
def test_result_is_byte_identical(
    road: str,
    way: Way,
    usual: Callable[[str], Result],
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = usual(road)
    way(monkeypatch)
    assert result(road, sources, tmp_path / "out") == expected


def counts(report: dict[str, Any]) -> dict[str, Any]:
    """What was counted of each tensor that was quantized. Sums of errors depend on the order they are added in."""
    tensors = report.get("quantized", {}).get("by_tensor", {})
    return {
        name: {key: count for key, count in found.items() if key.startswith("blocks")}
        for name, found in tensors.items()
    }


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=VARIABLES)
def test_result_of_a_process_of_its_own_is_byte_identical(
    variable: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    usual, expected = arguments("BF16 to MXFP4", sources, tmp_path / "usual")
    other, found = arguments("BF16 to MXFP4", sources, tmp_path / "other")
    for words, env in ((usual, {}), (other, {variable: "1"})):
        outcome = process(*words, env=env)
        assert outcome.code == 0, outcome.err
    assert contents(found) == contents(expected)


def test_smallest_slabs_cut_the_embedding_of_a_base_that_lacks_its_last_rows(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "SLAB_BYTES", 1)
    checkpoint, base = open_checkpoint(sources["trained"]), open_checkpoint(sources["metal"])
    planned = plan_module.plan(checkpoint, HfTarget(tmp_path / "out"), Quantizing(like=base))
    first = planned.groups[0]
    assert first.moves[0].name == "embedding.weight"
    assert max(begin for begin, _ in first.slabs()) >= base.tensors["embedding.weight"].tensor.rows
