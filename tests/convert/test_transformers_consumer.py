"""What transformers computes from the directories we write equals what it computes from the checkpoint, to the bit.

Compared are logits in float32 after each token of a prompt ten times as long as the sliding window. transformers
decodes MXFP4 experts to the BF16 values that `to-bf16` writes, so nothing is left that may differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_faults import BF16_FAULTS, MXFP4_FAULTS, TRANSFORMERS_FAULTS, with_fault
from command_line import command
from numpy.typing import NDArray
from save_pretrained import save_decoded
from transformers import AutoTokenizer, GenerationConfig
from transformers_reference import Reference

PROMPT = np.random.default_rng(0).integers(0, 416, 320).tolist()

TEXT = "<|start|>user<|message|>Où est la gare? It's 20:15, the train leaves in 3 minutes.<|end|><|start|>assistant"

# Commands that write a directory for transformers, one after the other; the first is given `tiny`.
ROUTES: dict[str, tuple[str, ...]] = {
    "MXFP4": ("to-mxfp4",),
    "BF16": ("to-bf16",),
    "MXFP4 of BF16": ("to-bf16", "to-mxfp4"),
}

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Logits:
    return Reference(tiny).logits(PROMPT)


def converted(source: Path, directory: Path, route: str) -> Path:
    """What the commands of the route make of `source`."""
    for name in ROUTES[route]:
        out = directory / name
        outcome = command(name, source, out)
        assert outcome.code == 0, outcome.err
        source = out
    return source


@pytest.fixture(scope="module", params=ROUTES)
def written(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tiny, tmp_path_factory.mktemp("written"), request.param)


@pytest.fixture(scope="module")
def bf16(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tiny, tmp_path_factory.mktemp("bf16"), "BF16")


def test_logits_in_float32_are_equal(written: Path, expected: Logits) -> None:
    assert np.array_equal(Reference(written).logits(PROMPT), expected)


def test_text_has_the_same_tokens(written: Path, tiny: Path) -> None:
    ids = AutoTokenizer.from_pretrained(tiny)(TEXT)["input_ids"]
    assert AutoTokenizer.from_pretrained(written)(TEXT)["input_ids"] == ids


def test_chat_is_rendered_the_same(written: Path, tiny: Path) -> None:
    chat = [{"role": "user", "content": "Où est la gare?"}]
    rendered = [
        AutoTokenizer.from_pretrained(directory).apply_chat_template(chat, tokenize=False)
        for directory in (written, tiny)
    ]
    assert rendered[0] == rendered[1]
    assert chat[0]["content"] in rendered[0]


def test_generation_stops_at_the_same_tokens(written: Path, tiny: Path) -> None:
    found, stored = (GenerationConfig.from_pretrained(directory).eos_token_id for directory in (written, tiny))
    assert found == stored
    assert len(stored) == 3


# --- what is not equal ---


@pytest.mark.parametrize("name", MXFP4_FAULTS | TRANSFORMERS_FAULTS)
def test_faulty_mxfp4_directory_is_not_equal(name: str, tiny: Path, expected: Logits, tmp_path: Path) -> None:
    faulty = with_fault(tiny, tmp_path / "faulty", (MXFP4_FAULTS | TRANSFORMERS_FAULTS)[name])
    assert not np.array_equal(Reference(faulty).logits(PROMPT), expected)


@pytest.mark.parametrize("name", BF16_FAULTS | TRANSFORMERS_FAULTS)
def test_faulty_bf16_directory_is_not_equal(name: str, bf16: Path, expected: Logits, tmp_path: Path) -> None:
    faulty = with_fault(bf16, tmp_path / "faulty", (BF16_FAULTS | TRANSFORMERS_FAULTS)[name])
    assert not np.array_equal(Reference(faulty).logits(PROMPT), expected)


def test_experts_that_transformers_does_not_find_are_an_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"missing_keys.*experts\.down_proj'"):
        Reference(save_decoded(tiny, tmp_path / "saved"))
