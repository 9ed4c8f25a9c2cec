"""Every named fault is seen where it is made, far beyond its limit; what cannot be seen says why; seeing can fail."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Tensors, copy_of, edit_tensors
from command_line import command

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.validation import faults, measures, self_test
from gptoss_convert.convert.validation.faults import FAULTS, Fault
from gptoss_convert.convert.validation.measures import Limits
from gptoss_convert.convert.validation.self_test import Seen, demo_checkpoint, see_fault

BY_NAME = {fault.name: fault for fault in FAULTS}

# What was promised to be seen -> the faults that show it.
PROMISED = {
    "gate/up swapped": ["gate and up swapped"],
    "gate/up de-interleaved twice": ["gate and up taken apart twice"],
    "nibbles swapped": ["nibbles swapped"],
    "ggml nibble order read as HF order": ["ggml's nibbles read in Hugging Face's order"],
    "scale off by one": ["scales off by one", "scale of one block off by one"],
    "one expert's scales zeroed": ["scales of one expert zero"],
    "transposed down": ["down transposed"],
    "bias dropped (each of the biases)": [
        f"bias of {name} dropped" for name in ("q", "k", "v", "o", "gate", "up", "down")
    ],
    "expert biases permuted": ["biases of experts permuted"],
    "router bias dropped": ["bias of the router dropped"],
    "top-k softmax over all experts": ["softmax over all experts"],
    "no clamp": ["no clamp"],
    "alpha 1.0": ["alpha 1.0"],
    "no +1": ["up without + 1"],
    "no sinks": ["no sinks"],
    "full attention on sliding layers": ["full attention on sliding layers"],
    "window off by one": ["window one too long", "window one too short"],
    "YaRN truncated": ["YaRN truncated"],
    "YaRN off": ["YaRN off"],
    "q and k swapped between heads": ["q swapped between heads", "k swapped between heads"],
    "norm weights off by one layer": ["norms of another layer"],
    "one block flipped by one bit": ["one bit of one block flipped"],
}

# The least that must lie between a fault and what rounding explains.
TIMES_THE_LIMIT = 50


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """How each fault shows in the model of the self-test."""
    with demo_checkpoint() as checkpoint:
        return {one.fault: one for one in self_test.see_faults(checkpoint)}


@pytest.mark.parametrize("promise", PROMISED)
def test_every_promised_fault_has_an_entry(promise: str) -> None:
    assert PROMISED[promise]
    assert set(PROMISED[promise]) <= BY_NAME.keys()


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(FAULTS) == 36


@pytest.mark.parametrize("name", BY_NAME)
def test_fault_is_first_seen_where_it_is_made_far_beyond_the_limit(name: str, seen: dict[str, Seen]) -> None:
    one = seen[name]
    assert (one.stage, one.unseen) == (BY_NAME[name].stage, "")
    assert one.holds
    assert one.excess >= TIMES_THE_LIMIT
    assert one.figure in ("relative", "worst")
    assert one.where


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("gate and up swapped", "layers.0.moe.gate.weight, expert"),
        ("scales off by one", "as all of its block is 2 times what it should be"),
        ("scales of one expert zero", "layers.0.moe.gate.weight, expert 0"),
        ("one bit of one block flipped", "layers.0.moe.gate.weight, expert 0, row 80, block 1"),
        ("scale of one block off by one", "layers.0.moe.gate.weight, expert 0, row 80, block 1"),
        ("bias of up dropped", "layers.0.moe.up.bias, expert"),
        ("norms of another layer", "layers.0.attention.norm.weight, row"),
        ("embedding one row off", "embedding.weight, row"),
        ("no clamp", "swiglu_limit is 1e+30, not 7.0"),
        ("YaRN truncated", "rope_scaling.truncate is True, not False"),
        ("alpha 1.0", "both sides read the same weights and config: they compute otherwise"),
    ],
)
def test_the_explanation_names_what_was_changed(name: str, where: str, seen: dict[str, Seen]) -> None:
    assert where in seen[name].where


# --- what cannot be seen -----------------------------------------------------------------------------------------


def with_config(checkpoint: Checkpoint, **changes: object) -> Checkpoint:
    """The checkpoint with another config; `factor` and `truncate` are YaRN's."""
    yarn = {key: changes.pop(key) for key in ("factor", "truncate") if key in changes}
    config = replace(checkpoint.config, **changes)  # type: ignore[arg-type]
    return replace(checkpoint, config=replace(config, yarn=replace(config.yarn, **yarn)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("YaRN truncated", {"truncate": True}, "the model's positions are those of a truncated YaRN"),
        ("YaRN truncated", {"factor": 1.0}, "the model's positions are those of a truncated YaRN"),
        ("YaRN off", {"factor": 1.0}, "the model's YaRN stretches nothing"),
        ("norms of another layer", {"num_hidden_layers": 1}, "the model has one layer"),
    ],
)
def test_what_a_config_hides_is_reported_with_the_reason(
    name: str, changes: dict[str, object], why: str, tiny: Path
) -> None:
    one = see_fault(with_config(open_checkpoint(tiny), **changes), BY_NAME[name])
    assert (one.unseen, one.stage, one.holds) == (why, "", True)


@pytest.fixture(scope="module")
def without_biases(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    def zero(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.endswith("bias"):
                tensor.data = bytes(len(tensor.data))

    directory = copy_of(tiny, tmp_path_factory.mktemp("without") / "biases")
    edit_tensors(directory, zero)
    return open_checkpoint(directory)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("bias")])
def test_a_model_without_biases_says_that_none_can_be_missed(name: str, without_biases: Checkpoint) -> None:
    one = see_fault(without_biases, BY_NAME[name])
    assert one.unseen in ("these biases are zero", "the experts' biases are the same")


def test_a_single_bias_that_is_not_zero_is_missed(without_biases: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    def one_bias(tensors: Tensors) -> None:
        tensor = tensors["model.layers.1.self_attn.v_proj.bias"]
        tensor.data = np.array([0x3F80], "<u2").tobytes() + tensor.data[2:]

    directory = copy_of(without_biases.path, tmp_path / "one")
    edit_tensors(directory, one_bias)
    one = see_fault(open_checkpoint(directory), BY_NAME["bias of v dropped"])
    assert (one.stage, one.unseen) == ("attention", "")
    assert "layers.1.attention.v.bias, row 0: 0, not 1" in one.where


# --- the self-test can fail --------------------------------------------------------------------------------------


def self_test_outcome() -> tuple[int, str]:
    outcome = command("validate", "--self-test", "--device", "cpu")
    return outcome.code, outcome.out


def few(monkeypatch: pytest.MonkeyPatch, *chosen: Fault) -> None:
    monkeypatch.setattr(self_test, "FAULTS", chosen)


def test_the_self_test_is_good_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, BY_NAME["no sinks"], BY_NAME["nibbles swapped"])
    code, out = self_test_outcome()
    assert code == 0
    assert "good: 2 of 2 faults are seen in the stage where they are made" in out


def test_a_fault_that_changes_nothing_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, BY_NAME["no sinks"], Fault("sinks kept", "attention"))
    code, out = self_test_outcome()
    assert code == 1
    assert re.search(r"^sinks kept +NOT SEEN", out, re.MULTILINE)
    assert "BAD: 1 of 2 faults" in out


def test_limits_that_let_a_fault_pass_fail_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, BY_NAME["one bit of one block flipped"])
    monkeypatch.setitem(measures.LIMITS, "f32", Limits(1e-2, 1.0))
    code, out = self_test_outcome()
    assert code == 1
    assert "NOT SEEN" in out
    assert "BAD: 0 of 1 faults" in out


def test_a_fault_seen_elsewhere_than_where_it_is_made_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, replace(BY_NAME["no sinks"], stage="gate"))
    code, out = self_test_outcome()
    assert code == 1
    assert "no sinks: expected in gate, first seen in attention" in out


def test_kernels_that_compute_otherwise_fail_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    swiglu = faults.GPT_OSS.__class__  # the arithmetic of the side under test, which torch computes on the CPU
    monkeypatch.setattr("gptoss_convert.convert.validation.layer.GPT_OSS", swiglu(up_offset=0.0))
    monkeypatch.setattr("gptoss_convert.convert.validation.validate.GPT_OSS", swiglu(up_offset=0.0))
    code, out = self_test_outcome()
    assert code == 1
    for layout in ("hf", "gguf", "bf16"):
        assert f"NOT VALID: {layout}: " in out


def test_threads_are_as_before_the_self_test() -> None:
    before = torch.get_num_threads()
    with demo_checkpoint():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
