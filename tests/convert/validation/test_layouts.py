"""One model in any layout gives the same figures: of its own, and beside any other layout of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import command
from ways import DECODED, Ways

# Stored in a way of its own, and what `validate` calls the encoding of its experts.
LAYOUTS = {
    "hf": "MXFP4",
    "original": "MXFP4",
    "gguf": "GGML_MXFP4",
    "ollama-legacy": "OLLAMA_MXFP4",
    "mlx": "MXFP4",
    "metal": "METAL_MXFP4",
    "bf16": "BF16",
    "gguf-bf16": "BF16",
    "gguf-f16": "F16",
    "gguf-f32": "F32",
}
FIGURES = ("relative", "worst")


@pytest.fixture(scope="module")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    torch.set_num_threads(1)
    return Ways(tiny, tmp_path_factory.mktemp("ways"))


def report(ways: Ways, *arguments: str | Path) -> dict[str, Any]:
    # The tokenizer of original/ is not in it.
    tokenizer = ("--tokenizer", ways.start) if arguments[0] == ways.path("original") else ()
    outcome = command("validate", *arguments, *tokenizer, "--layers", "0,1", "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def path_of(layout: str, ways: Ways) -> Path:
    return ways.path(*(() if layout == "hf" else (layout,)))


def figures(found: dict[str, Any]) -> list[float]:
    layers = [one for layer in found["layers"] for one in layer["stages"].values()]
    return [one[name] for one in (found["embedding"], *layers) for name in FIGURES]


@pytest.fixture(scope="module")
def expected(ways: Ways) -> list[float]:
    found = figures(report(ways, ways.start))
    assert len(found) == 2 * (1 + 2 * 9)
    assert sum(figure > 0 for figure in found) > 25
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_figures(layout: str, ways: Ways, expected: list[float]) -> None:
    found = report(ways, path_of(layout, ways))
    assert [one["encoding"] for one in found["paths"] if one["part"] == "experts"] == [LAYOUTS[layout]]
    assert found["inputs"] == "text"
    assert figures(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "hf"])
def test_every_layout_beside_the_source_gives_the_same_figures(layout: str, ways: Ways, expected: list[float]) -> None:
    assert figures(report(ways, ways.start, path_of(layout, ways))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pair", [("gguf", "mlx"), ("metal", "bf16"), ("gguf-f16", "original")], ids=" and ".join)
def test_any_two_layouts_agree(pair: tuple[str, str], ways: Ways, expected: list[float]) -> None:
    found = report(ways, *(path_of(layout, ways) for layout in pair))
    assert found["config_differences"] in ([], [{"key": "vocab_size", "a": 400, "b": 416}])
    assert figures(found) == pytest.approx(expected, rel=1e-6)


def test_floats_among_the_layouts_are_those_that_were_decoded() -> None:
    assert {layout for layout, encoding in LAYOUTS.items() if "MXFP4" not in encoding} == set(DECODED)
