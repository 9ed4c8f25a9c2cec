"""Right numbers in the wrong place are explained by what a converter did, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_cases import FILE_FAULTS, changed, compared, drifted
from ways import Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.drift.mixups import find_mixups

# fault -> what is said of the tensors, and of how many of them
EXPLAINED = {
    "gate and up swapped": ("have gate and up swapped", 8),
    "gate and up taken apart twice": ("have rows of gate and up taken apart twice", 8),
    "nibbles swapped": ("have the two codes of each byte swapped", 12),
    "ggml's nibbles read in Hugging Face's order": ("have ggml's order of codes taken for Hugging Face's", 12),
    "biases of experts permuted": ("have all rows moved by one", 4),
    "q swapped between heads": ("hold A's rows in another order", 4),
    "k swapped between heads": ("hold A's rows in another order", 4),
    "q and k in pairs, not in halves": (
        "have the rows of their heads in pairs where A has halves, or the reverse",
        8,
    ),
    "embedding one row off": ("have all rows moved by one", 1),
    "embedding read as unembedding": ("hold A's embedding", 1),
}


@pytest.mark.parametrize("fault", EXPLAINED)
def test_mixup_is_named(fault: str, tiny: Path, tmp_path: Path) -> None:
    words, count = EXPLAINED[fault]
    report = drifted(tiny, changed(tiny, tmp_path / "other", FILE_FAULTS[fault])).report["tensors"]
    assert set(report["mixups"].values()) == {words}
    assert len(report["mixups"]) == count
    assert words.split(" ", 1)[1] in report["sentence"]


def test_mixup_is_named_in_floats_and_in_another_layout(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "tiny", FILE_FAULTS["gate and up swapped"])
    dense = Ways(other, tmp_path)
    for layout in ("bf16", "gguf"):
        sentence = drifted(tiny, dense.path(layout)).report["tensors"]["sentence"]
        assert "have gate and up swapped" in sentence


def test_norms_of_another_layer_are_told_by_which(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS["norms of another layer"])
    found = drifted(tiny, other).report["tensors"]["mixups"]
    assert found["layers.3.moe.norm.weight"] == "hold A's weights of the layer before"
    assert found["layers.0.moe.norm.weight"] == "hold A's weights of the layer after"


@pytest.mark.parametrize("fault", ["scales off by one", "one bit of one block flipped", "bias of q dropped"])
def test_what_is_no_mixup_is_not_called_one(fault: str, tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS[fault])
    assert find_mixups(compared(tiny, other), open_checkpoint(tiny), open_checkpoint(other)) == {}
