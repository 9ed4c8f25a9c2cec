"""What our forward pass computes from every layout is what transformers and llama.cpp compute, and nothing else is.

Prompts are 1,200 tokens of `tiny`: far beyond its window of 32, and so far that YaRN's `truncate` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, inf
from pathlib import Path

import numpy as np
import pytest
import torch
from drift import Drift, drift
from llama_cpp import LlamaCpp
from numpy.typing import NDArray
from tolerances import F32
from torch import Tensor
from transformers_reference import Reference
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.weights import CheckpointWeights
from gptoss_convert.model import forward as subject
from gptoss_convert.model.config import GptOssConfig
from gptoss_convert.model.forward import (
    GPT_OSS,
    Arithmetic,
    LayerTrace,
    Weights,
    attend,
    forward,
    rms_norm,
    route,
    swiglu,
)

N_VOCAB = 416
# A Metal file ends its embeddings with row 399.
PROMPT = np.random.default_rng(0).integers(0, 400, 1200).tolist()

TOLERANCE = 1e-4
"""On logits, whose standard deviation is 4. Measured on seeds 0 to 7: 3e-5 at most, whoever is compared in float32."""

BF16_MEAN_KL, F16_MEAN_KL = 1e-3, 2e-4
"""Activations of 8 and 11 bits against 53, mean over the prompt in nats. Measured on seeds 0 to 7: 5e-4 and 5e-5.

The largest difference says little: in one prompt of two, rounding decides somewhere which expert comes fourth.
"""

LAYOUTS = ("hf", "bf16", "original", "gguf", "mlx", "metal")

LogProbs = NDArray[np.float64]


@pytest.fixture(scope="module")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    torch.set_num_threads(1)  # The model is too small to share between threads.
    return Ways(tiny, tmp_path_factory.mktemp("ways"))


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="module", params=[False, True], ids=["not truncated", "truncated"])
def truncate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def expected(tiny: Path, truncate: bool) -> Tensor:
    """transformers' logits [1200, 416]."""
    return torch.from_numpy(Reference(tiny, truncate=truncate).logits(PROMPT))


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint) -> Tensor:
    """Our logits after the first 320 tokens."""
    return logits(checkpoint, PROMPT[:320])


def truncated(config: GptOssConfig, truncate: bool = True) -> GptOssConfig:
    return replace(config, yarn=replace(config.yarn, truncate=truncate))


def logits(
    checkpoint: Checkpoint, prompt: list[int], dtype: torch.dtype = torch.float32, residual: torch.dtype | None = None
) -> Tensor:
    with CheckpointWeights(checkpoint, dtype=dtype) as weights:
        return forward(checkpoint.config, weights, torch.tensor(prompt), residual=residual)


def log_probs(values: Tensor) -> LogProbs:
    return values.double().log_softmax(-1).numpy()


# --- against other programs ---


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_within_1e_4_of_transformers(layout: str, truncate: bool, ways: Ways, expected: Tensor) -> None:
    checkpoint = open_checkpoint(ways.path(*(() if layout == "hf" else (layout,))))
    checkpoint = replace(checkpoint, config=truncated(checkpoint.config, truncate))
    found = logits(checkpoint, PROMPT)
    assert found.shape == (1200, 400 if layout == "metal" else N_VOCAB)
    assert (found - expected[:, : found.shape[1]]).abs().max() <= TOLERANCE


def test_truncation_moves_logits_50_times_the_tolerance_after_1024_positions(checkpoint: Checkpoint) -> None:
    found, other = (logits(replace(checkpoint, config=truncated(checkpoint.config, t)), PROMPT) for t in (False, True))
    assert (found - other)[1024:].abs().amax(-1).min() >= 50 * TOLERANCE


@pytest.fixture(scope="module")
def of_llama_cpp(ways: Ways) -> tuple[list[int], LogProbs]:
    """After how many tokens, and log-probabilities [positions, 416]."""
    lengths = [1, 31, 32, 33, 97, 511, 1025, 1200]
    with LlamaCpp(ways.path("gguf-f32"), n_ctx=1280) as model:
        return lengths, np.stack([model.log_probs(PROMPT[:length], N_VOCAB) for length in lengths])


def drift_from_llama_cpp(checkpoint: Checkpoint, truncate: bool, of_llama_cpp: tuple[list[int], LogProbs]) -> Drift:
    lengths, found = of_llama_cpp
    ours = logits(replace(checkpoint, config=truncated(checkpoint.config, truncate)), PROMPT)
    return drift(log_probs(ours[[length - 1 for length in lengths]]), found)


def test_truncated_model_is_within_drift_of_llama_cpp(
    checkpoint: Checkpoint, of_llama_cpp: tuple[list[int], LogProbs]
) -> None:
    measured = drift_from_llama_cpp(checkpoint, True, of_llama_cpp)
    assert F32.excess(measured) <= 1, measured


def test_drift_rejects_the_model_that_is_not_truncated_50_times(
    checkpoint: Checkpoint, of_llama_cpp: tuple[list[int], LogProbs]
) -> None:
    measured = drift_from_llama_cpp(checkpoint, False, of_llama_cpp)
    assert F32.excess(measured) >= 50, measured


def test_trace_has_the_residual_stream_of_transformers(tiny: Path, checkpoint: Checkpoint) -> None:
    found: list[Tensor] = []
    with CheckpointWeights(checkpoint) as weights:
        embedded = weights.rows("embedding.weight", torch.tensor(PROMPT[:320])).clone()
        forward(
            checkpoint.config, weights, torch.tensor(PROMPT[:320]), on_layer=lambda _, trace: found.append(trace.hidden)
        )
    rms = [hidden.square().mean().sqrt().item() for hidden in (embedded, *found)]
    assert rms == pytest.approx(Reference(tiny).residual_rms(PROMPT[:320]), rel=1e-5)


# --- what is computed otherwise is seen ---


@dataclass(frozen=True)
class Fault:
    """Another arithmetic, or numbers that another config would say."""

    arithmetic: Arithmetic = GPT_OSS
    config: Callable[[GptOssConfig], GptOssConfig] = lambda config: config

    def logits(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Tensor:
        with CheckpointWeights(checkpoint, dtype=dtype) as weights:
            config = self.config(checkpoint.config)
            return forward(config, weights, torch.tensor(PROMPT[:320]), arithmetic=self.arithmetic)


FAULTS: dict[str, Fault] = {
    "no clamp": Fault(config=lambda config: replace(config, swiglu_limit=inf)),
    "clamp at 6": Fault(config=lambda config: replace(config, swiglu_limit=6.0)),
    "alpha is 1": Fault(Arithmetic(swiglu_alpha=1.0)),
    "nothing added to up": Fault(Arithmetic(up_offset=0.0)),
    "no sinks": Fault(Arithmetic(has_sinks=False)),
    "no layer slides": Fault(Arithmetic(sliding_layers="none")),
    "odd layers slide": Fault(Arithmetic(sliding_layers="odd")),
    "every layer slides": Fault(Arithmetic(sliding_layers="all")),
    "window is one longer": Fault(config=lambda config: replace(config, sliding_window=33)),
    "window is one shorter": Fault(config=lambda config: replace(config, sliding_window=31)),
    "no YaRN": Fault(Arithmetic(has_yarn=False)),
    "YaRN is truncated": Fault(config=truncated),
    "softmax over all experts": Fault(Arithmetic(softmax_over="all")),
    "no router bias": Fault(Arithmetic(has_router_bias=False)),
    "three experts per token": Fault(config=lambda config: replace(config, num_experts_per_tok=3)),
    "RMSNorm's epsilon is 1e-3": Fault(config=lambda config: replace(config, rms_norm_eps=1e-3)),
}


def test_every_choice_of_arithmetic_is_among_the_faults() -> None:
    chosen = {tuple(vars(fault.arithmetic).items()) for fault in FAULTS.values()}
    for name, value in vars(GPT_OSS).items():
        assert {dict(choice)[name] for choice in chosen} > {value}


@pytest.mark.parametrize("name", FAULTS)
def test_other_arithmetic_moves_logits_50_times_the_tolerance(name: str, checkpoint: Checkpoint, ours: Tensor) -> None:
    assert (FAULTS[name].logits(checkpoint) - ours).abs().max() >= 50 * TOLERANCE


@pytest.mark.parametrize(
    "name", [f"{stem}.bias" for stem in ("q", "k", "v", "o", "router", "gate", "up", "down")] + ["sinks"]
)
def test_a_tensor_of_zeros_moves_logits_50_times_the_tolerance(
    name: str, checkpoint: Checkpoint, ours: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = CheckpointWeights.dense
    monkeypatch.setattr(CheckpointWeights, "dense", lambda self, n: dense(self, n) * (not n.endswith(f".{name}")))
    assert (logits(checkpoint, PROMPT[:320]) - ours).abs().max() >= 50 * TOLERANCE


# --- dtypes ---


@pytest.fixture(scope="module")
def in_float64(checkpoint: Checkpoint) -> Tensor:
    found = logits(checkpoint, PROMPT, dtype=torch.float64)
    assert found.dtype == torch.float64
    return found


def test_float32_is_within_tolerance_of_float64(checkpoint: Checkpoint, in_float64: Tensor) -> None:
    assert (logits(checkpoint, PROMPT) - in_float64).abs().max() <= TOLERANCE


@pytest.mark.parametrize("residual", [None, torch.float32], ids=["", "float32 residual"])
@pytest.mark.parametrize(("dtype", "mean_kl"), [(torch.bfloat16, BF16_MEAN_KL), (torch.float16, F16_MEAN_KL)])
def test_rounded_activations_are_within_drift(
    dtype: torch.dtype, mean_kl: float, residual: torch.dtype | None, checkpoint: Checkpoint, in_float64: Tensor
) -> None:
    measured = drift(log_probs(in_float64), log_probs(logits(checkpoint, PROMPT, dtype=dtype, residual=residual)))
    # Where nothing is rounded, it is 1e-11.
    assert 1e-7 < measured.mean_kl < mean_kl, measured


@pytest.mark.parametrize("name", ["no clamp", "nothing added to up", "no sinks", "no layer slides"])
def test_drift_rejects_other_arithmetic_in_bf16_50_times(name: str, checkpoint: Checkpoint, in_float64: Tensor) -> None:
    found = FAULTS[name].logits(checkpoint, torch.bfloat16)
    assert drift(log_probs(in_float64[:320]), log_probs(found)).mean_kl >= 50 * BF16_MEAN_KL


def traced(checkpoint: Checkpoint, dtype: torch.dtype, residual: torch.dtype | None) -> LayerTrace:
    traces: list[LayerTrace] = []
    with CheckpointWeights(checkpoint, dtype=dtype) as weights:
        tokens = torch.tensor(PROMPT[:40])
        forward(checkpoint.config, weights, tokens, residual=residual, on_layer=lambda _, trace: traces.append(trace))
    assert len(traces) == checkpoint.config.num_hidden_layers
    return traces[-1]


def test_residual_stream_has_its_own_dtype(checkpoint: Checkpoint) -> None:
    wide, narrow = torch.float32, torch.bfloat16
    dtypes = {name: value.dtype for name, value in vars(traced(checkpoint, narrow, wide)).items()}
    assert {name for name, dtype in dtypes.items() if dtype is wide} == {"hidden_before_moe", "router_logits", "hidden"}
    assert set(dtypes.values()) == {wide, narrow}


# --- parts, by their definitions ---


def test_norm_is_rounded_once(checkpoint: Checkpoint) -> None:
    generator = torch.manual_seed(0)
    hidden = 3 * torch.randn(50, 192, dtype=torch.float64, generator=generator)
    weight = (1 + 0.1 * torch.randn(192, generator=generator)).bfloat16()
    rms = (hidden.square().mean(-1, keepdim=True) + checkpoint.config.rms_norm_eps).sqrt()
    found = rms_norm(checkpoint.config, hidden, weight)
    assert torch.equal(found, (hidden / rms * weight.double()).bfloat16())


@pytest.mark.parametrize(
    ("gate", "up", "clamped"),
    [(2, 3, (2, 3)), (9, 3, (7, 3)), (2, 9, (2, 7)), (2, -9, (2, -7)), (-9, 3, (-9, 3)), (-70, -1, (-70, -1))],
)
def test_up_is_clamped_on_both_sides_and_gate_above_only(
    gate: float, up: float, clamped: tuple[float, float], checkpoint: Checkpoint
) -> None:
    """A gate clamped below as well would change the output by 5e-5 at most: no logit would show it."""
    found = swiglu(checkpoint.config, *torch.tensor([[gate], [up]], dtype=torch.float64))
    gate, up = clamped
    assert found.item() == pytest.approx((up + 1) * gate / (1 + exp(-1.702 * gate)), rel=1e-12)


def test_chosen_experts_share_one(checkpoint: Checkpoint) -> None:
    experts, shares = route(checkpoint.config, torch.tensor([[0.0, 5, 1, 4, 2, 3, -1, -2]], dtype=torch.float64))
    assert experts.tolist() == [[1, 3, 5, 4]]
    total = sum(exp(logit) for logit in (5, 4, 3, 2))
    assert shares[0].tolist() == pytest.approx([exp(logit) / total for logit in (5, 4, 3, 2)], rel=1e-14)


def attended(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, window: int | None) -> Tensor:
    """What `attend` is, by its definition."""
    n_heads, n_tokens, head_dim = q.shape
    out = torch.zeros(n_tokens, n_heads, head_dim, dtype=q.dtype)
    for token in range(n_tokens):
        for head in range(n_heads):
            source = head // (n_heads // len(k))
            seen = [key for key in range(token + 1) if window is None or key > token - window]
            weights = [exp(float(q[head, token] @ k[source, key]) / head_dim**0.5) for key in seen]
            total = sum(weights) + (exp(float(sinks[head])) if sinks is not None else 0)
            out[token, head] = sum(weight / total * v[source, key] for weight, key in zip(weights, seen, strict=True))
    return out.flatten(1)


@pytest.mark.parametrize("scores", [1, 100, 1 << 20])
@pytest.mark.parametrize("window", [None, 1, 3, 11, 40])
@pytest.mark.parametrize("has_sinks", [True, False])
def test_attention_is_its_definition_however_queries_are_cut(
    scores: int, window: int | None, has_sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_SCORES", scores)
    generator = torch.manual_seed(0)
    q, k, v = (torch.randn(n, 11, 4, dtype=torch.float64, generator=generator) for n in (6, 2, 2))
    sinks = torch.randn(6, dtype=torch.float64, generator=generator) if has_sinks else None
    found = attend(q, k, v, sinks, window)
    assert (found - attended(q, k, v, sinks, window)).abs().max() <= 1e-14


# --- how much is asked for ---


class Recorder:
    """Weights that remember what they were asked for."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.dense_tensors: list[str] = []
        self.row_ids: list[tuple[str, list[int]]] = []
        self.experts: list[tuple[str, int]] = []

    def dense(self, name: str) -> Tensor:
        self.dense_tensors.append(name)
        return self.weights.dense(name)

    def rows(self, name: str, ids: Tensor) -> Tensor:
        self.row_ids.append((name, ids.tolist()))
        return self.weights.rows(name, ids)

    def expert(self, name: str, expert: int) -> Tensor:
        self.experts.append((name, expert))
        return self.weights.expert(name, expert)


@pytest.fixture
def recorder(checkpoint: Checkpoint) -> Recorder:
    """What one token asks for, where 100 rows of the unembedding may be decoded at once."""
    with pytest.MonkeyPatch.context() as patch, CheckpointWeights(checkpoint) as weights:
        patch.setattr(subject, "_UNEMBEDDING_ROWS", 100)
        recorder = Recorder(weights)
        found = forward(checkpoint.config, recorder, torch.tensor(PROMPT[:1]))
        assert torch.allclose(found, logits(checkpoint, PROMPT[:1]), rtol=0, atol=TOLERANCE)
    return recorder


def test_one_token_asks_for_four_experts_of_each_layer_once(recorder: Recorder) -> None:
    assert len(recorder.experts) == len(set(recorder.experts)) == 4 * 4 * 3


def test_embeddings_are_asked_for_by_rows(recorder: Recorder) -> None:
    assert recorder.row_ids[0] == ("embedding.weight", PROMPT[:1])
    names, ids = zip(*recorder.row_ids[1:], strict=True)
    assert set(names) == {"unembedding.weight"}
    assert [len(some) for some in ids] == [100, 100, 100, 100, 16]
    assert [row for some in ids for row in some] == list(range(N_VOCAB))


def test_every_other_tensor_is_asked_for_once(recorder: Recorder, checkpoint: Checkpoint) -> None:
    roles = {"embedding", "unembedding", "experts"}
    others = [name for name, stored in checkpoint.tensors.items() if stored.tensor.role not in roles]
    assert sorted(recorder.dense_tensors) == sorted(others)


def test_last_only_gives_the_last_row(checkpoint: Checkpoint, ours: Tensor) -> None:
    with CheckpointWeights(checkpoint) as weights:
        found = forward(checkpoint.config, weights, torch.tensor(PROMPT[:320]), last_only=True)
    assert found.shape == (1, N_VOCAB)
    assert (found[0] - ours[-1]).abs().max() <= TOLERANCE
