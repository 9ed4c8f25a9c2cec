"""Figures of `drift --depth logits`: transformers' logits, in float64, give the same; of equals they are zero."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import copy_of, patch
from drift_reference import Expected, following, log_softmax, random_prompts
from transformers_reference import Reference
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift import logits as subject
from gptoss_convert.convert.drift.layers import ROUNDING
from gptoss_convert.convert.drift.lockstep import Injection
from gptoss_convert.convert.drift.logit_report import DELTA_EDGES, histogram
from gptoss_convert.convert.drift.logits import LogitComparison, compare_logits
from gptoss_convert.convert.drift.softmax import Divergence, Softmax
from gptoss_convert.convert.progress import Progress
from gptoss_convert.convert.weights import CheckpointWeights
from gptoss_convert.formats.errors import CheckpointError, UsageError
from gptoss_convert.model.forward import forward

torch.set_num_threads(1)

PROMPTS = random_prompts((150, 60))
N_TOKENS = 210

RELATIVE_KL = 1e-3
"""On the KL of a position, beside 1e-7 nats. Measured on three disturbed copies: 1e-4 at the worst
position, float32 on both sides; the KLs are 1e-4 to 0.25."""


@pytest.fixture(scope="module")
def found(a: Checkpoint, b: Checkpoint) -> LogitComparison:
    return compare_logits(a, b, prompts=PROMPTS)


@pytest.fixture(scope="module")
def expected(a: Checkpoint, b: Checkpoint) -> Expected:
    """By transformers' logits."""

    def log_probs(path: Path) -> np.ndarray:
        reference = Reference(path)
        return np.concatenate([log_softmax(reference.logits(one.tokens.tolist())) for one in PROMPTS.prompts])

    return Expected(log_probs(a.path), log_probs(b.path), following(PROMPTS))


# --- against transformers ---


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """How many times the tolerance the KLs are off at the worst position."""
    return float((np.abs(found - expected) / (1e-7 + RELATIVE_KL * expected)).max())


def test_kl_of_every_position_is_within_drift_of_transformers(found: LogitComparison, expected: Expected) -> None:
    assert found.b.kl.shape == (N_TOKENS,)
    assert off(found.b.kl, expected.kl) <= 1


def test_the_tolerance_rejects_the_other_direction_100_times(found: LogitComparison, expected: Expected) -> None:
    assert off(found.b.kl, expected.reversed().kl) >= 100


def test_the_tolerance_rejects_another_arithmetic_10_times(a: Checkpoint, b: Checkpoint, expected: Expected) -> None:
    wrong = compare_logits(a, b, prompts=PROMPTS, noise=False, consumer="llama.cpp", consumer_a="llama.cpp")
    assert off(wrong.b.kl, expected.kl) >= 10


def test_statistics_of_kl_are_those_of_transformers(found: LogitComparison, expected: Expected) -> None:
    kl = np.sort(expected.kl)
    place = 0.99 * (len(kl) - 1)
    p99 = kl[math.floor(place)] + (place % 1) * (kl[math.ceil(place)] - kl[math.floor(place)])
    statistics = [found.b.mean_kl, found.b.median_kl, found.b.p99_kl, found.b.max_kl]
    assert statistics == pytest.approx([kl.mean(), (kl[104] + kl[105]) / 2, p99, kl[-1]], rel=1e-3)


def test_likeliest_tokens_agree_as_transformers_say(found: LogitComparison, expected: Expected) -> None:
    assert np.array_equal(found.b.same_top, expected.same_top)
    assert 0 < expected.same_top.sum() < N_TOKENS
    assert found.b.top1 == expected.same_top.mean()


def test_overlap_of_five_is_what_transformers_say(found: LogitComparison, expected: Expected) -> None:
    # Where two logits are within rounding of each other, fifth and sixth may change places.
    assert (found.b.top_overlap != expected.top_overlap).sum() <= 1
    assert len(set(expected.top_overlap.tolist())) >= 3
    assert found.b.top5 == pytest.approx(expected.top_overlap.mean() / 5, abs=1e-3)


def test_probabilities_of_the_likeliest_are_those_of_transformers(found: LogitComparison, expected: Expected) -> None:
    under_a, under_b = expected.probability_of_top
    assert np.abs(found.a.probability_of_top - under_a).max() <= 1e-4
    assert np.abs(found.b.predictions.probability_of_top - under_b).max() <= 1e-4
    assert np.abs(under_a - under_b).max() >= 1e-2


def test_next_tokens_are_as_likely_as_transformers_say(found: LogitComparison, expected: Expected) -> None:
    under_a, under_b = expected.next_tokens
    known = ~np.isnan(found.b.delta_next)
    assert np.flatnonzero(~known).tolist() == [149, 209]
    assert np.abs(found.a.log_prob_next[known] - under_a).max() <= 2e-4
    assert np.abs(found.b.delta_next[known] - (under_b - under_a)).max() <= 2e-4
    assert np.abs(under_b - under_a).max() >= 0.1


def test_perplexities_are_those_of_transformers(found: LogitComparison, expected: Expected) -> None:
    perplexities = [float(np.exp(-one.mean())) for one in expected.next_tokens]
    assert [found.a.perplexity, found.b.predictions.perplexity] == pytest.approx(perplexities, rel=1e-4)
    assert abs(perplexities[0] / perplexities[1] - 1) >= 1e-3


# --- noise ---


def in_both(checkpoint: Checkpoint, *dtypes: torch.dtype) -> Expected:
    """One checkpoint computed in two types, the first taken for A."""
    parts = []
    for dtype in dtypes:
        with CheckpointWeights(checkpoint, dtype=dtype) as weights:
            logits = [forward(checkpoint.config, weights, torch.from_numpy(one.tokens)) for one in PROMPTS.prompts]
        parts.append(log_softmax(torch.cat(logits).numpy()))
    return Expected(parts[0], parts[1], following(PROMPTS))


def test_noise_is_the_drift_of_a_forward_pass_in_bf16(a: Checkpoint, found: LogitComparison) -> None:
    expected = in_both(a, torch.float32, torch.bfloat16)
    assert found.noise is not None
    assert found.noise.mean_kl == pytest.approx(expected.kl.mean(), rel=0.05)
    assert found.times_noise == pytest.approx(found.b.kl.mean() / expected.kl.mean(), rel=0.05)


def test_rounding_leaves_room_for_float32(a: Checkpoint, found: LogitComparison) -> None:
    """`ROUNDING_KL` is 100 times what float32 is off, and a thousandth of what bf16 is off."""
    expected = in_both(a, torch.float64, torch.float32)
    assert found.noise is not None
    assert 100 * expected.kl.mean() < subject.ROUNDING_KL < found.noise.mean_kl / 1000


def test_without_noise_there_is_none(a: Checkpoint) -> None:
    found = compare_logits(a, a, prompts=PROMPTS, noise=False)
    assert (found.noise, found.times_noise) == (None, None)
    assert len(found.tables()[0].columns) == 2


# --- nothing where nothing differs ---


def test_drift_of_a_checkpoint_from_itself_is_exactly_zero(a: Checkpoint) -> None:
    found = compare_logits(a, a)
    b = found.b
    assert found.is_zero
    assert [b.mean_kl, b.median_kl, b.p99_kl, b.max_kl] == [0, 0, 0, 0]
    assert (b.top1, b.top5) == (1, 1)
    assert np.nansum(np.abs(b.delta_next)) == 0
    assert np.array_equal(b.predictions.probability_of_top, found.a.probability_of_top)
    assert b.predictions.perplexity == found.a.perplexity
    assert found.noise is not None
    assert found.noise.mean_kl > 1e-6


@pytest.mark.parametrize("layout", ["original", "gguf", "ollama-legacy", "mlx", "metal", "bf16", "gguf-f32"])
def test_drift_of_a_lossless_conversion_is_exactly_zero(layout: str, a: Checkpoint, ways: Ways) -> None:
    found = compare_logits(a, open_checkpoint(ways.path(layout)), prompts=PROMPTS, noise=False)
    assert found.is_zero
    assert found.lines()[-2] == "no drift: both models compute the very same numbers"


def test_rows_that_one_layout_lost_are_left_out_of_both(a: Checkpoint, b: Checkpoint, ways: Ways) -> None:
    metal = open_checkpoint(ways.path("metal"))
    found = compare_logits(metal, b, prompts=PROMPTS, noise=False)
    assert found.n_rows == 400
    assert any("A has 400 rows and B 416. Distributions are over the 400" in note for note in found.notes)
    with CheckpointWeights(a) as one, CheckpointWeights(b) as other:
        parts = [
            [forward(x.config, w, torch.from_numpy(p.tokens))[:, :400] for p in PROMPTS.prompts]
            for x, w in ((a, one), (b, other))
        ]
    expected = Expected(*(log_softmax(torch.cat(part).numpy()) for part in parts), following(PROMPTS))
    assert off(found.b.kl, expected.kl) <= 1


# --- however it is cut ---


@pytest.mark.parametrize(("rows", "tokens"), [(100, 512), (2048, 64), (3, 77)])
def test_figures_do_not_depend_on_how_logits_are_cut(
    rows: int, tokens: int, a: Checkpoint, b: Checkpoint, found: LogitComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_ROWS", rows)
    monkeypatch.setattr(subject, "_TOKENS", tokens)
    cut = compare_logits(a, b, prompts=PROMPTS, noise=False)
    # Other sums in the products of float32, which is what differs by 1e-6.
    assert cut.b.kl == pytest.approx(found.b.kl, rel=1e-4, abs=1e-9)
    assert np.array_equal(cut.b.same_top, found.b.same_top)
    assert cut.b.predictions.probability_of_top == pytest.approx(found.b.predictions.probability_of_top, abs=1e-5)
    assert cut.b.predictions.perplexity == pytest.approx(found.b.predictions.perplexity, rel=1e-6)


def test_a_running_softmax_holds_logits_far_apart() -> None:
    """Of whole rows the exponentials overflow, or what a larger logit made of the first sum is lost."""
    first, second = torch.tensor([[-900.0, -901.0]]).double(), torch.tensor([[800.0, 799.0]]).double()
    other_first, other_second = first - 0.5, second + torch.tensor([[0.0, 0.25]])
    a, b, divergence = Softmax(1, torch.tensor([2])), Softmax(1, torch.tensor([2])), Divergence(1)
    for begin, one, two in ((0, first, other_first), (2, second, other_second)):
        terms, factor = a.add(begin, one)
        b.add(begin, two)
        divergence.add(one, two, terms, factor)
    expected = Expected(
        log_softmax(torch.cat([first, second], 1).numpy()),
        log_softmax(torch.cat([other_first, other_second], 1).numpy()),
        np.array([2]),
    )
    assert divergence.kl(a, b).numpy() == pytest.approx(expected.kl, rel=1e-9)
    assert a.log_prob_next.numpy() == pytest.approx(expected.next_tokens[0])


# --- as data and in words ---


def test_histogram_counts_each_position_once() -> None:
    values = np.array([-5.0, -3.0, -0.0005, 0.0, 0.0009, 0.001, 3.0, 9.0, np.nan])
    counts = histogram(values)
    assert sum(counts) == 8
    assert len(counts) == len(DELTA_EDGES) + 1
    assert (counts[0], counts[1], counts[7], counts[8], counts[-1]) == (1, 1, 3, 1, 2)


def test_report_is_json_without_infinities(found: LogitComparison) -> None:
    report = json.loads(json.dumps(found.describe(), allow_nan=False))
    assert report["drift"]["mean_kl"] == found.b.mean_kl
    assert report["perplexity"]["a"] == found.a.perplexity
    assert [one["tokens"] for one in report["by_prompt"]] == [150, 60]
    assert [len(one["kl"]) for one in report["by_prompt"]] == [150, 60]
    assert report["by_prompt"][1]["delta_next"][-1] is None
    assert len(report["layers"]["layers"]) == 4


def test_perplexity_comes_last_with_the_reason(found: LogitComparison) -> None:
    assert found.lines()[-1].startswith("perplexity: ")
    assert "It comes last because" in found.lines()[-1]
    assert not any("perplexity" in line for line in found.lines()[:-1])


def test_the_verdict_is_in_units_of_noise(found: LogitComparison) -> None:
    assert found.times_noise is not None
    assert f"{found.times_noise:,.1f} times what A drifts from itself" in found.lines()[-2]
    assert found.lines()[-2].startswith("DRIFT")


def test_figures_for_limits_have_names(found: LogitComparison) -> None:
    figures = found.figures()
    assert (figures["kl"], figures["top1"]) == (found.b.mean_kl, found.b.top1)
    assert {"kl_p99", "kl_max", "top5", "residual", "overlap"} <= figures.keys()


class Counter(Progress):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def begin(self, what: str, n_bytes: int) -> None:
        self.total += n_bytes

    def advance(self, n_bytes: int, tensor: str) -> None:
        self.done += n_bytes


def test_progress_ends_at_its_total(a: Checkpoint, b: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_ROWS", 99)
    counter = Counter()
    compare_logits(a, b, prompts=PROMPTS, noise=False, progress=counter)
    assert counter.done == counter.total > 1e6


# --- what cannot be compared ---


def test_logits_that_are_not_finite_are_an_error_that_names_model_and_token(tiny: Path, tmp_path: Path) -> None:
    broken = copy_of(tiny, tmp_path / "broken")
    # 3e38 in every column: the products overflow, the layers do not know of it.
    patch(broken, "model.norm.weight", 0, b"\x61\x7f" * 192)
    patch(broken, "lm_head.weight", 192 * 2 * 17, b"\x61\x7f" * 192)
    with pytest.raises(CheckpointError, match=r"B computes numbers that are not finite; the first arise in the logits"):
        compare_logits(open_checkpoint(tiny), open_checkpoint(broken), prompts=PROMPTS, noise=False)


def test_models_of_other_shapes_are_refused_by_key(a: Checkpoint) -> None:
    other = replace(a, config=replace(a.config, num_experts_per_tok=2))
    with pytest.raises(UsageError, match=r"num_experts_per_tok.*expected 4, as in .*; found 2"):
        compare_logits(a, other, prompts=PROMPTS)


def test_an_injected_mistake_changes_b_alone(a: Checkpoint) -> None:
    inject = Injection(config=lambda config: replace(config, swiglu_limit=0.5))
    found = compare_logits(a, a, prompts=PROMPTS, noise=False, inject=inject)
    assert found.a.perplexity == compare_logits(a, a, prompts=PROMPTS, noise=False).a.perplexity
    assert found.b.mean_kl > 1e-3


def test_the_page_of_metrics_states_the_thresholds_and_the_bins() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert f"more than **{subject.ROUNDING_KL:.0e} nats** is drift".replace("e-09", "e-9") in page
    assert f"more than **{ROUNDING:.0e}** (of".replace("e-05", "e-5") in page
    edges = ", ".join(f"\N{MINUS SIGN}{-edge:g}" for edge in DELTA_EDGES if edge < 0)
    assert f"{edges} and the same above zero" in page
    assert [-edge for edge in DELTA_EDGES[::-1]] == list(DELTA_EDGES)
