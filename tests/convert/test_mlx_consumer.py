"""What mlx-lm computes from our directories is what transformers computes from the checkpoint, within drift.

Compared are log-probabilities of the next token over the whole vocabulary, after each token of a prompt ten times as
long as the sliding window. mlx-lm computes YaRN as if `truncate` were true, and MLX has no key for it: so the
reference is the same weights with `truncate: true`. mlx-lm needs a layer of either type; `tiny` has two of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_faults import MLX_FAULTS, MXFP4_FAULTS, with_fault
from command_line import command
from drift import drift
from mlx_reference import MlxReference
from numpy.typing import NDArray
from tolerances import F32
from transformers import AutoTokenizer
from transformers_reference import OTHER_ARITHMETIC, Reference

N_VOCAB, WINDOW = 416, 32
PROMPT = np.random.default_rng(0).integers(0, N_VOCAB, 320).tolist()

TEXT = "<|start|>user<|message|>Où est la gare? It's 20:15, the train leaves in 3 minutes.<|end|><|start|>assistant"

# Commands that write a directory for MLX. What each makes of `tiny` is compared with `tiny` itself.
COMMANDS = ("to-mxfp4", "to-mlx")

LogProbs = NDArray[np.float64]


@pytest.fixture(scope="module")
def expected(tiny: Path) -> LogProbs:
    return Reference(tiny, truncate=True).log_probs(PROMPT)


@pytest.fixture(scope="module")
def of_tiny(tiny: Path) -> MlxReference:
    return MlxReference(tiny)


@pytest.fixture(scope="module")
def log_probs_of_tiny(of_tiny: MlxReference) -> LogProbs:
    return of_tiny.log_probs(PROMPT)


@pytest.fixture(scope="module", params=COMMANDS)
def written(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> MlxReference:
    """The model in the directory that the command makes of `tiny`."""
    out = tmp_path_factory.mktemp("mlx") / "tiny"
    outcome = command(request.param, tiny, out)
    assert outcome.code == 0, outcome.err
    return MlxReference(out)


def test_official_layout_is_within_1e_3_of_transformers_with_truncate_true(
    log_probs_of_tiny: LogProbs, expected: LogProbs
) -> None:
    measured = drift(expected, log_probs_of_tiny)
    assert F32.excess(measured) <= 1, measured


def test_parameters_in_mlx_lm_are_byte_identical(written: MlxReference, of_tiny: MlxReference) -> None:
    assert written.parameters.keys() == of_tiny.parameters.keys()
    assert [name for name in of_tiny.parameters if written.parameters[name] != of_tiny.parameters[name]] == []


def test_log_probabilities_are_equal(written: MlxReference, log_probs_of_tiny: LogProbs) -> None:
    assert np.array_equal(written.log_probs(PROMPT), log_probs_of_tiny)


def test_text_has_the_same_tokens_as_in_transformers(written: MlxReference, tiny: Path) -> None:
    ids = AutoTokenizer.from_pretrained(tiny)(TEXT)["input_ids"]
    assert len(ids) > WINDOW
    assert written.tokens(TEXT) == ids


def test_generation_stops_at_the_same_tokens(written: MlxReference, of_tiny: MlxReference) -> None:
    assert written.eos_token_ids == of_tiny.eos_token_ids
    assert len(of_tiny.eos_token_ids) == 3


# --- what the tolerance rejects ---


@pytest.mark.parametrize("changes", OTHER_ARITHMETIC.values(), ids=OTHER_ARITHMETIC)
def test_tolerance_rejects_other_arithmetic_50_times(changes: dict, tiny: Path, log_probs_of_tiny: LogProbs) -> None:
    measured = drift(Reference(tiny, **changes).log_probs(PROMPT), log_probs_of_tiny)
    assert F32.excess(measured) >= 50, measured


FAULTS = MXFP4_FAULTS | MLX_FAULTS


@pytest.mark.parametrize("name", FAULTS)
def test_tolerance_rejects_faulty_directories_50_times(
    name: str, tiny: Path, expected: LogProbs, tmp_path: Path
) -> None:
    faulty = with_fault(tiny, tmp_path / "faulty", FAULTS[name])
    measured = drift(expected, MlxReference(faulty).log_probs(PROMPT))
    assert F32.excess(measured) >= 50, measured
