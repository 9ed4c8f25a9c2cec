"""A comparison of predictions as JSON data, as tables and in words."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from ..render import plain_table
from ..report import number
from .layer_report import describe_layers, error_text, head_lines, share

if TYPE_CHECKING:
    from .logits import Divergences, LogitComparison, Predictions
    from .prompts import Prompt

DELTA_EDGES = (-3.0, -1.0, -0.3, -0.1, -0.03, -0.01, -0.001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Where the bins of the histogram of `delta_next` meet, in nats; the first and the last are open."""

_KL = ("mean_kl", "median_kl", "p99_kl", "max_kl")


def histogram(values: NDArray[np.float64]) -> list[int]:
    """How many of `values` are in each bin of `DELTA_EDGES`: below the first edge, between each two, from the last on.

    A value on an edge belongs to the bin above it; NaN to none.
    """
    known = values[~np.isnan(values)]
    counts = np.bincount(np.digitize(known, DELTA_EDGES), minlength=len(DELTA_EDGES) + 1)
    return [int(count) for count in counts]


def describe_logits(found: LogitComparison) -> dict[str, Any]:
    """The report of `drift --depth logits`, as JSON data."""
    return {
        "a": found.layers.path_a,
        "b": found.layers.path_b,
        "inputs": found.prompts.source,
        "vocabulary": found.n_rows,
        "is_zero": found.is_zero,
        "times_noise": number(found.times_noise),
        "drift": _describe_divergences(found.b),
        "noise": None if found.noise is None else _describe_divergences(found.noise),
        "by_prompt": [
            _describe_prompt(found, prompt, slice(*span))
            for prompt, span in zip(found.prompts.prompts, found.prompts.spans, strict=True)
        ],
        "delta_edges": list(DELTA_EDGES),
        "perplexity": {"a": number(found.a.perplexity), "b": number(found.b.predictions.perplexity)},
        "layers": describe_layers(found.layers),
        "notes": list(found.notes),
    }


def _describe_divergences(one: Divergences) -> dict[str, Any]:
    return {
        **{name: number(getattr(one, name)) for name in (*_KL, "top1", "top5")},
        "mean_probability_of_top": number(float(one.predictions.probability_of_top.mean())),
        "delta_histogram": histogram(one.delta_next),
    }


def _describe_prompt(found: LogitComparison, prompt: Prompt, span: slice) -> dict[str, Any]:
    models: dict[str, Predictions] = {"a": found.a, "b": found.b.predictions}
    return {
        "name": prompt.name,
        "tokens": len(prompt.tokens),
        "mean_kl": number(float(found.b.kl[span].mean())),
        "max_kl": number(float(found.b.kl[span].max())),
        "top1": number(float(found.b.same_top[span].mean())),
        "noise_mean_kl": None if found.noise is None else number(float(found.noise.kl[span].mean())),
        "kl": _numbers(found.b.kl[span]),
        "noise_kl": None if found.noise is None else _numbers(found.noise.kl[span]),
        "delta_next": _numbers(found.b.delta_next[span]),
        "top_overlap": found.b.top_overlap[span].tolist(),
        **{f"top_{name}": one.top_ids[span, 0].tolist() for name, one in models.items()},
        **{f"probability_of_top_{name}": _numbers(one.probability_of_top[span]) for name, one in models.items()},
        **{f"log_prob_next_{name}": _numbers(one.log_prob_next[span]) for name, one in models.items()},
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [number(value) for value in values.tolist()]


def logit_tables(found: LogitComparison) -> list[Table]:
    """All figures, by prompt, and how far the next token's log-probability moved."""
    return [_figures(found), _by_prompt(found), _moved(found)]


def _figures(found: LogitComparison) -> Table:
    columns = [found.b] if found.noise is None else [found.b, found.noise]
    table = plain_table("figure", *["B", "A in bf16"][: len(columns)], left=("figure",))
    names = ("mean KL(P_A ‖ P), nats", "  median", "  99th percentile", "  largest")
    for shown, name in zip(names, _KL, strict=True):
        table.add_row(shown, *(error_text(getattr(one, name)) for one in columns))
    table.add_row("same likeliest token", *(share(one.top1) for one in columns))
    table.add_row("overlap of the 5 likeliest", *(share(one.top5) for one in columns))
    probabilities = [one.predictions.probability_of_top.mean() for one in columns]
    own = f"probability of A's likeliest token (A: {found.a.probability_of_top.mean():.4f})"
    table.add_row(own, *(f"{probability:.4f}" for probability in probabilities))
    return table


def _by_prompt(found: LogitComparison) -> Table:
    noise = [] if found.noise is None else ["its noise"]
    table = plain_table("prompt", "tokens", "mean KL", *noise, "largest KL", "same likeliest", left=("prompt",))
    for prompt, (begin, end) in zip(found.prompts.prompts, found.prompts.spans, strict=True):
        kl = found.b.kl[begin:end]
        beside = [] if found.noise is None else [error_text(float(found.noise.kl[begin:end].mean()))]
        table.add_row(
            Text(prompt.name),
            str(end - begin),
            error_text(float(kl.mean())),
            *beside,
            error_text(float(kl.max())),
            share(float(found.b.same_top[begin:end].mean())),
        )
    return table


def _moved(found: LogitComparison) -> Table:
    """Only bins that hold something, and those between them."""
    title = "Δ log-probability of the next token, nats"
    columns = [found.b] if found.noise is None else [found.b, found.noise]
    table = plain_table(title, *["B", "A in bf16"][: len(columns)], left=(title,))
    counts = [histogram(one.delta_next) for one in columns]
    names = bin_names()
    used = [place for place, pair in enumerate(zip(*counts, strict=True)) if any(pair)]
    for place in range(min(used, default=0), max(used, default=-1) + 1):
        table.add_row(names[place], *(f"{one[place]:,}" for one in counts))
    return table


def bin_names() -> list[str]:
    """What the bins of `histogram` are called."""
    between = [f"{low:g} to {high:g}" for low, high in pairwise(DELTA_EDGES)]
    return [f"below {DELTA_EDGES[0]:g}", *between, f"{DELTA_EDGES[-1]:g} and more"]


def logit_lines(found: LogitComparison) -> list[str]:
    """What was run, what it says, and last the perplexities."""
    return [
        *head_lines(found.layers),
        f"KL(P_A ‖ P_B) = Σ P_A (log P_A - log P_B), in nats, over {found.n_rows:,} tokens, at each position",
        *([] if found.noise is None else ["noise: the same for A computed in bf16"]),
        verdict(found),
        f"perplexity: {found.a.perplexity:,.4g} (A), {found.b.predictions.perplexity:,.4g} (B). It comes last because "
        "it says least: tokens that got likelier hide those that got less likely, and a chat model's is high on "
        "short texts whatever it is worth.",
    ]


def verdict(found: LogitComparison) -> str:
    if found.is_zero:
        return "no drift: both models compute the very same numbers"
    kl = f"mean KL of {error_text(found.b.mean_kl)} nats"
    if found.is_rounding:
        return f"no drift beyond rounding in float32: {kl}"
    if found.times_noise is None:
        return f"DRIFT: {kl}; {share(found.b.top1)} of positions have the same likeliest token"
    times = found.times_noise
    if times <= 1:
        return f"DRIFT below noise: {kl}, {100 * times:.2g} % of what A drifts from itself when computed in bf16"
    return f"DRIFT: {kl}, {times:,.1f} times what A drifts from itself when computed in bf16"
