"""On a GPU: its kernels validate small models in every layout, and show damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import command
from gguf_faults import nibbles_in_hf_order, with_fault
from ways import Ways

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("layout", ["hf", "gguf", "mlx", "bf16", "metal", "ollama-legacy", "gguf-f16", "gguf-f32"])
def test_the_kernels_agree_with_float64(layout: str, tiny: Path, tmp_path: Path) -> None:
    path = Ways(tiny, tmp_path).path(*([] if layout == "hf" else [layout]))
    outcome = command("validate", path, "--device", "cuda", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["device"]["backend"] in ("cuda", "hip")
    assert {one["dot"] for one in outcome.json["paths"]} == {"float32"}


def test_the_kernels_show_damage(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    bad = with_fault(tiny_gguf, tmp_path / "bad.gguf", nibbles_in_hf_order)
    outcome = command("validate", tiny, bad, "--device", "cuda", "--json")
    assert outcome.code == 1
    assert outcome.json["layers"][0]["stages"]["gate"]["excess"] > 10_000


def test_the_gpu_passes_its_test_and_is_taken(tiny: Path) -> None:
    outcome = command("validate", tiny, "--layers", "0", "--json")
    assert outcome.json["device"]["backend"] in ("cuda", "hip")
    assert command("validate", "--self-test", "--device", "cuda").code == 0
