"""Every named fault of validation, put into B, is caught by `drift` at default thresholds, at the documented depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drift_faults import Shown, at_layers, at_logits, injection, markdown, unseen

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.layers import ROUNDING, compare_layers
from gptoss_convert.convert.drift.lockstep import NOTHING
from gptoss_convert.convert.drift.logits import compare_logits
from gptoss_convert.convert.drift.prompts import Prompts, make_prompts
from gptoss_convert.convert.validation.faults import FAULTS, Fault

torch.set_num_threads(1)

ONLY_AT_LOGITS = {"norm before the logits dropped", "embedding read as unembedding"}
"""Faults behind the last layer, which depth `layers` does not see."""


LEAST = 10
"""How many times its threshold a figure must be. Measured: 25 for one bit of one block, 160 and more for all others."""


def by_name(fault: Fault) -> str:
    return fault.name


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="module")
def prompts(checkpoint: Checkpoint) -> Prompts:
    """Three windows of each of our texts."""
    return make_prompts(checkpoint, checkpoint, n_tokens=96)


def test_names_are_those_of_faults() -> None:
    assert {fault.name for fault in FAULTS} > ONLY_AT_LOGITS


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.name not in ONLY_AT_LOGITS], ids=by_name)
def test_fault_is_caught_at_depth_layers_where_it_is_made(
    fault: Fault, checkpoint: Checkpoint, prompts: Prompts
) -> None:
    assert unseen(fault, checkpoint) == ""
    first = at_layers(fault, checkpoint, prompts)
    assert first is not None
    part, layer, error = first
    assert error >= LEAST * ROUNDING
    expected = fault.stage if fault.stage in ("attention", "embedding") else "experts"
    assert (part, layer) == (expected, None if expected == "embedding" else 0)


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.name in ONLY_AT_LOGITS], ids=by_name)
def test_fault_behind_the_layers_is_caught_at_depth_logits(
    fault: Fault, checkpoint: Checkpoint, prompts: Prompts
) -> None:
    assert at_layers(fault, checkpoint, prompts) is None
    assert at_logits(fault, checkpoint, prompts) >= LEAST


@pytest.mark.parametrize(
    "name", ["one bit of one block flipped", "scale of one block off by one", "YaRN truncated", "bias of up dropped"]
)
def test_the_least_of_faults_are_caught_at_depth_logits_too(
    name: str, checkpoint: Checkpoint, prompts: Prompts
) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    assert at_logits(fault, checkpoint, prompts) >= LEAST


def test_nothing_is_caught_where_nothing_is_wrong(checkpoint: Checkpoint, prompts: Prompts) -> None:
    plain = Fault("none", "attention")
    assert at_layers(plain, checkpoint, prompts) is None
    assert at_logits(plain, checkpoint, prompts) == 0
    for inject in (NOTHING, injection(plain)):
        assert compare_layers(checkpoint, checkpoint, prompts=prompts, noise=False, inject=inject).is_zero


def test_a_fault_that_noise_hides_is_still_drift(checkpoint: Checkpoint, prompts: Prompts) -> None:
    """One bit of one block: far below what bf16 does, and yet named."""
    (fault,) = (one for one in FAULTS if one.name == "one bit of one block flipped")
    found = compare_logits(checkpoint, checkpoint, prompts=prompts, inject=injection(fault))
    assert found.times_noise is not None
    assert found.times_noise < 0.01
    assert found.lines()[-2].startswith("DRIFT below noise")


def test_the_table_names_what_cannot_be_seen_and_what_was_not() -> None:
    rows = markdown([Shown("one", unseen="it is so"), Shown("two"), Shown("three", "", "experts", 0, 1234.0, 2e9)])
    assert rows.splitlines()[2:] == [
        "| one | cannot be seen: it is so | | | |",
        "| two | NOT SEEN | mean KL |  |  |",
        "| three | layers | experts, layer 0 | 1,200 | 2 × 10^9 |",
    ]
