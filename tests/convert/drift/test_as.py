"""`--as`: what a program computes of a config, and what is said of programs that compute otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drift_reference import random_prompts
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.arithmetic import CONSUMERS, as_computed_by, notes_on_arithmetic
from gptoss_convert.convert.drift.logits import compare_logits
from gptoss_convert.formats.errors import UsageError

torch.set_num_threads(1)

PROMPTS = random_prompts((200,))


@pytest.fixture(scope="module")
def truncated(a: Checkpoint) -> Checkpoint:
    return replace(a, config=replace(a.config, yarn=replace(a.config.yarn, truncate=True)))


@pytest.mark.parametrize(("consumer", "truncates"), [("llama.cpp", True), ("mlx", True), ("transformers", False)])
def test_programs_truncate_yarn_or_do_not(consumer: str, truncates: bool, a: Checkpoint) -> None:
    config = as_computed_by(a.config, consumer)
    assert not a.config.yarn.truncate
    assert config.yarn.truncate is truncates
    assert replace(config, yarn=a.config.yarn) == a.config


def test_nobody_undoes_a_truncation(truncated: Checkpoint) -> None:
    assert {as_computed_by(truncated.config, one).yarn.truncate for one in CONSUMERS} == {True}


def test_without_a_program_the_config_is_computed(a: Checkpoint) -> None:
    assert as_computed_by(a.config, None) is a.config


def test_a_program_that_is_not_known_is_refused_with_those_that_are(a: Checkpoint) -> None:
    with pytest.raises(UsageError, match=r"expected --as llama.cpp, mlx, transformers; found 'ollama'\. Ollama and LM"):
        as_computed_by(a.config, "ollama")


def test_as_llama_cpp_drifts_as_a_truncated_config_does(a: Checkpoint, truncated: Checkpoint) -> None:
    found = compare_logits(a, a, prompts=PROMPTS, noise=False, consumer="llama.cpp")
    expected = compare_logits(a, truncated, prompts=PROMPTS, noise=False)
    assert found.b.kl.tolist() == expected.b.kl.tolist()
    assert found.b.mean_kl > 1e-6


def test_both_as_llama_cpp_do_not_drift(a: Checkpoint) -> None:
    assert compare_logits(a, a, prompts=PROMPTS, noise=False, consumer="llama.cpp", consumer_a="mlx").is_zero


def test_as_of_a_is_not_that_of_b(a: Checkpoint, truncated: Checkpoint) -> None:
    of_a = compare_logits(a, truncated, prompts=PROMPTS, noise=False, consumer_a="llama.cpp")
    assert of_a.is_zero


@pytest.mark.parametrize(
    ("layout", "program", "option"),
    [("gguf", "llama.cpp", "llama.cpp"), ("ollama-legacy", "Ollama", "llama.cpp"), ("mlx", "MLX", "mlx")],
)
def test_files_of_programs_that_compute_otherwise_are_noted(
    layout: str, program: str, option: str, a: Checkpoint, ways: Ways
) -> None:
    (note,) = notes_on_arithmetic(a, open_checkpoint(ways.path(layout)), None, None)
    assert note.startswith("B will not run as it is computed here")
    assert f"{program} computes YaRN as if it were true. --as {option} shows" in note
    (note,) = notes_on_arithmetic(open_checkpoint(ways.path(layout)), a, None, None)
    assert note.startswith("A will not run")
    assert f"--as-a {option} shows" in note


@pytest.mark.parametrize("layout", ["original", "bf16", "metal"])
def test_files_of_other_programs_are_not_noted(layout: str, a: Checkpoint, ways: Ways) -> None:
    notes = notes_on_arithmetic(a, open_checkpoint(ways.path(layout)), None, None)
    assert [note for note in notes if "vocab" not in note] == []


def test_what_was_computed_is_noted(a: Checkpoint, truncated: Checkpoint, ways: Ways) -> None:
    gguf = open_checkpoint(ways.path("gguf"))
    (note,) = notes_on_arithmetic(a, gguf, "llama.cpp", None)
    assert note == "B is computed as llama.cpp computes it: YaRN truncated, although the config says truncate: false."
    assert notes_on_arithmetic(truncated, truncated, "mlx", None) == [
        "B is computed as mlx computes it: as its config says."
    ]
