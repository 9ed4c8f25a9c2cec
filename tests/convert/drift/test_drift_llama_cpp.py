"""KL and the likeliest tokens of a pair of GGUF files are what llama.cpp's own probabilities of that pair say.

llama.cpp computes YaRN truncated whatever the config says, so ours is computed `--as llama.cpp` on both sides. Weights
are F32: of MXFP4 llama.cpp rounds activations to 8 bits, which is its own drift and not that of the pair.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drift_reference import N_VOCAB, Expected, disturbed, random_prompts
from llama_cpp import LlamaCpp
from ways import Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.drift.logits import LogitComparison, compare_logits

torch.set_num_threads(1)

# Inside the window of 32 tokens, at its edges, and far beyond.
LENGTHS = (1, 5, 31, 32, 33, 48, 64, 97, 128, 160, 200, 230, 256, 300, 350, 400)
PROMPTS = random_prompts((400,))
TOKENS = PROMPTS.prompts[0].tokens.tolist()

RELATIVE_KL = 1e-3
"""On the KL of a position, beside 1e-6 nats. Measured on three disturbed copies: 0.3 of this
at most, float32 on both sides; the KLs are 1e-4 to 0.24."""


@pytest.fixture(scope="module")
def pair(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """F32 GGUF files of `tiny` and of a disturbed copy."""
    directory = tmp_path_factory.mktemp("pair")
    other = disturbed(tiny, directory / "other", 0.02)
    paths = []
    for name, start in (("a", tiny), ("b", other)):
        (directory / name).mkdir()
        paths.append(Ways(start, directory / name).path("gguf-f32"))
    return paths[0], paths[1]


@pytest.fixture(scope="module")
def expected(pair: tuple[Path, Path]) -> Expected:
    """By llama.cpp's log-probabilities after so many tokens."""
    found = []
    for path in pair:
        with LlamaCpp(path) as model:
            found.append(np.stack([model.log_probs(TOKENS[:length], N_VOCAB) for length in LENGTHS]))
        assert np.isfinite(found[-1]).all()
    return Expected(*found, np.full(len(LENGTHS), -1))


def ours(pair: tuple[Path, Path], consumer: str | None) -> LogitComparison:
    a, b = map(open_checkpoint, pair)
    return compare_logits(a, b, prompts=PROMPTS, noise=False, consumer=consumer, consumer_a=consumer)


@pytest.fixture(scope="module")
def found(pair: tuple[Path, Path]) -> LogitComparison:
    return ours(pair, "llama.cpp")


AT = [length - 1 for length in LENGTHS]


def off(found: LogitComparison, kl: np.ndarray) -> float:
    """How many times the tolerance the KLs are off at the worst position."""
    return float((np.abs(found.b.kl[AT] - kl) / (1e-6 + RELATIVE_KL * kl)).max())


def test_kl_is_within_drift_of_llama_cpp(found: LogitComparison, expected: Expected) -> None:
    assert off(found, expected.kl) <= 1


def test_the_tolerance_rejects_the_other_direction_50_times(found: LogitComparison, expected: Expected) -> None:
    assert off(found, expected.reversed().kl) >= 50


def test_the_tolerance_rejects_what_llama_cpp_does_not_compute_10_times(
    pair: tuple[Path, Path], expected: Expected
) -> None:
    """Without `--as`, both sides are computed with a YaRN that is not truncated: a pair of other models."""
    assert off(ours(pair, None), expected.kl) >= 10


def test_likeliest_tokens_agree_where_llama_cpp_says(found: LogitComparison, expected: Expected) -> None:
    assert found.b.same_top[AT].tolist() == expected.same_top.tolist()
    assert found.b.same_top[AT].mean() == expected.same_top.mean()
    assert 0 < expected.same_top.sum() < len(LENGTHS)


def test_probabilities_of_the_likeliest_are_llama_cpp_s(found: LogitComparison, expected: Expected) -> None:
    under_a, under_b = expected.probability_of_top
    assert np.abs(found.a.probability_of_top[AT] - under_a).max() <= 1e-3
    assert np.abs(found.b.predictions.probability_of_top[AT] - under_b).max() <= 1e-3
    assert np.abs(under_a - under_b).max() >= 1e-2
