"""Outcomes of `drift` of the size of gpt-oss-120b, made of figures and not of weights: what a page is to be made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gptoss_convert.convert.checkpoint import Checkpoint
from gptoss_convert.convert.drift.command import Outcome
from gptoss_convert.convert.drift.compare import Compared, ComparedTensors
from gptoss_convert.convert.drift.layers import Distances, LayerComparison, LayerFigures, Token
from gptoss_convert.convert.drift.logits import Divergences, LogitComparison, Predictions
from gptoss_convert.convert.drift.prompts import Prompt, Prompts
from gptoss_convert.convert.drift.results import (
    PackedDrift,
    Spot,
    Sums,
    TensorComparison,
    TensorDrift,
    Verdict,
)

DEPTHS = ("tensors", "layers", "logits")
HOSTILE = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>&'\u202e\x00\udcff</style>"

ROLES = (
    *("norm", "attention", "attention", "attention", "attention", *["attention bias"] * 4, "sinks", "norm"),
    *("router", "router bias", "experts", "experts", "experts", *["expert bias"] * 3),
)
SENTENCE = (
    "12 expert tensors in layers 3–5 were retrained (relative error up to 3.1 %); the other 675 tensors are the same."
)


def outcome(
    compared: Compared,
    depth: str,
    checkpoints: tuple[Checkpoint, Checkpoint],
    *,
    limits: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Outcome:
    """What `run_drift` would give for this comparison."""
    sides: dict[str, Any] = {
        name: {"path": str(one.path), "layout": one.layout, "notes": list(notes)}
        for name, one in zip("ab", checkpoints, strict=True)
    }
    report = sides | {
        "depth": depth,
        "config_differences": [],
        "tokenizer_differences": [],
        "fail_over": list(limits),
    }
    return Outcome(report, compared.tables(), compared.lines(), (), compared, checkpoints)


def renamed(checkpoint: Checkpoint, path: str) -> Checkpoint:
    return replace(checkpoint, path=Path(path))


def tensor(name: str, role: str, layer: int | None, error: float, *, verdict: Verdict = Verdict.DIFFERS) -> TensorDrift:
    """A tensor with this relative error, and shifts if it is packed."""
    plain = TensorDrift(name, role, layer, verdict, ("MXFP4", "MXFP4"), (name, name), 1 << 20, "block", 1 << 15)
    if verdict is not Verdict.DIFFERS:
        return plain
    sums = Sums(1 << 20, 1.0, 1.0 + error**2, 1.0 - error**2 / 2, error**2)
    spot = Spot(name, "model-00001-of-00002.safetensors", 17, 2214, 1301, 40, 0.125, -0.0625)
    packed = PackedDrift(9000, 120, 3, {-14: 2, -1: 800, 0: 7000, 1: 1100, 2: 40}) if role == "experts" else None
    return replace(plain, changed=9000, sums=sums, max_error=error, worst=spot, packed=packed)


def tensors(n_layers: int = 36, *, all_differ: bool = True) -> ComparedTensors:
    """As many tensors as a model of so many layers has; their errors have all sizes."""
    found = [tensor("embedding.weight", "embedding", None, 0, verdict=Verdict.BYTES)]
    found.append(tensor("norm.weight", "norm", None, 1e-5))
    found.append(tensor("unembedding.weight", "unembedding", None, 0, verdict=Verdict.VALUES))
    for layer in range(n_layers):
        for number, role in enumerate(ROLES):
            same = Verdict.BYTES if number % 5 == 0 and layer % 3 else Verdict.VALUES if number % 7 == 3 else None
            error = math.exp(-10 + 11 * abs(math.sin(layer / 6 + number / 3)))
            verdict = Verdict.DIFFERS if all_differ or same is None else same
            found.append(tensor(f"layers.{layer}.part{number}.weight", role, layer, error, verdict=verdict))
    return ComparedTensors(TensorComparison({one.name: one for one in found}), {}, SENTENCE)


def prompts(lengths: Sequence[int] = (256,) * 5, name: str = "", piece: str = " word") -> Prompts:
    names = ("chat", "tools", "code", "German", "mathematics")
    made = tuple(
        Prompt(name or names[number % 5], np.arange(length, dtype=np.int64), (piece,) * length)
        for number, length in enumerate(lengths)
    )
    return Prompts(made, "built-in Harmony-formatted texts")


def layers(
    n_layers: int = 36, shown: Prompts | None = None, *, noise: bool = True, local: bool = True
) -> LayerComparison:
    """Errors that grow from layer to layer, larger than their noise."""
    found = []
    for layer in range(n_layers):
        size = 0.004 * 1.08**layer
        beside = Distances(size / 9, size / 7, size / 6, 0.999 - layer / 4000, 0.995 - layer / 1500)
        found.append(
            LayerFigures(
                layer=layer,
                b=Distances(size, 1.4 * size, 1.7 * size, 0.99 - layer / 400, 0.97 - layer / 150),
                noise=beside if noise else None,
                local_attention=1e-3 if local else None,
                local_moe=0.02 if local and layer in (3, 4, 5) else 1e-5 if local else None,
                first_rerouted=Token("chat", 7 + layer, " word") if layer else None,
                peak_a=100.0 * layer,
                peak_b=101.0 * layer,
            )
        )
    return LayerComparison("A", "B", shown or prompts(), 2e-4, tuple(found), ("A note.",))


def logits(shown: Prompts | None = None, n_layers: int = 36, *, noise: bool = True) -> LogitComparison:
    """KLs of all sizes along the positions of the prompts, seeded."""
    shown = shown or prompts()
    n_tokens = len(shown.tokens)
    random = np.random.default_rng(0)
    of_a = _predictions(n_tokens, random)
    of_b, of_noise = (_divergences(of_a, size, random) for size in (1e-2, 1e-4))
    compared = layers(n_layers, shown, noise=noise, local=False)
    return LogitComparison(compared, 201_088, of_a, of_b, of_noise if noise else None)


def _predictions(n_tokens: int, random: np.random.Generator) -> Predictions:
    top = random.integers(0, 50, (n_tokens, 5))
    return Predictions(top, -random.gamma(1.0, 2.0, n_tokens), random.uniform(0.2, 1, n_tokens))


def _divergences(of_a: Predictions, size: float, random: np.random.Generator) -> Divergences:
    n_tokens = len(of_a.top_ids)
    moved = random.normal(0, 2 * math.sqrt(size), n_tokens)
    own = replace(of_a, log_prob_next=of_a.log_prob_next + moved, probability_of_top=of_a.probability_of_top * 0.98)
    kl = size * random.lognormal(-1.5, 1.8, n_tokens)
    kl[n_tokens // 2] = 0.0
    same = random.uniform(0, 1, n_tokens) > size * 3
    return Divergences(own, kl, same, np.where(same, 5, 4), moved)


def of_120b(pair: tuple[Checkpoint, Checkpoint]) -> dict[str, Outcome]:
    """One of each depth, as of two models of 36 layers."""
    compared: tuple[Compared, ...] = (tensors(), layers(), logits())
    return {depth: outcome(one, depth, pair) for depth, one in zip(DEPTHS, compared, strict=True)}


def hostile(pair: tuple[Checkpoint, Checkpoint]) -> dict[str, Outcome]:
    """Small ones, in which every text that a file may say is `HOSTILE`."""
    one = tensor(HOSTILE, "norm", 0, 0.1)
    texts = prompts((4, 4), HOSTILE, HOSTILE)
    compared_layers = layers(2, texts)
    rerouted = tuple(
        replace(
            layer, first_rerouted=layer.first_rerouted and replace(layer.first_rerouted, piece=HOSTILE, prompt=HOSTILE)
        )
        for layer in compared_layers.layers
    )
    compared = {
        "tensors": replace(
            tensors(1),
            found=TensorComparison({HOSTILE: one}),
            mixups={HOSTILE: HOSTILE},
            sentence=HOSTILE,
        ),
        "layers": replace(compared_layers, layers=rerouted, notes=(HOSTILE,)),
        "logits": logits(texts, 2),
    }
    path = Path("a" + HOSTILE.replace("\x00", ""))
    checkpoints = replace(pair[0], path=path, model_name=HOSTILE), replace(pair[1], path=path, model_name=HOSTILE)
    made = {depth: outcome(compared[depth], depth, checkpoints, notes=[HOSTILE]) for depth in DEPTHS}
    difference = [{"key": HOSTILE, "a": HOSTILE, "b": HOSTILE}]
    both = {"config_differences": difference, "tokenizer_differences": difference}
    return {depth: replace(outcome, report=outcome.report | both) for depth, outcome in made.items()}
