"""`drift --depth logits`: how far apart the two models' next-token distributions are after every token.

    KL(P_A ‖ P_B) = Σ P_A(t) (log P_A(t) - log P_B(t))        over all tokens t that both vocabularies have; in nats

P is the softmax of the logits, at temperature 1. A is what is right: KL weighs what A finds likely. `docs/metrics.md`
has every figure's formula.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear

from ...formats.codecs.encoding import BF16, canonical
from ...model.forward import rms_norm
from ..checkpoint import Checkpoint
from ..progress import Progress
from .arithmetic import notes_on_arithmetic
from .layers import LayerComparison, configs, run_layers
from .lockstep import NOTHING, Injection, Pair, all_layers_bytes, opened, require_finite
from .logit_report import describe_logits, logit_lines, logit_tables
from .model import Stream
from .prompts import Prompts, make_prompts
from .softmax import TOP, Divergence, Softmax

ROUNDING_KL = 1e-9
"""The mean KL, in nats, that sums in float32, taken in another order, explain at most. Above it, B is another model.

Measured on the demo checkpoint: 4e-12 between float32 and float64.
"""

# Rows of the unembedding decoded at once, and of how many tokens their logits are held: 8 MB in float64.
_ROWS, _TOKENS = 2048, 512

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """One model's next-token distributions. T is the number of tokens that were run.

    Attributes:
        top_ids: int64 [T, 5], the likeliest tokens, first the likeliest.
        log_prob_next: float64 [T], of the token that really comes next, in nats; NaN after a prompt's last token.
        probability_of_top: float64 [T], of the token that A finds likeliest.
    """

    top_ids: NDArray[np.int64]
    log_prob_next: Floats
    probability_of_top: Floats

    @property
    def perplexity(self) -> float:
        """exp(-mean log-probability of the token that really comes next)."""
        return float(np.exp(-np.nanmean(self.log_prob_next)))


@dataclass(frozen=True)
class Divergences:
    """How far a model's predictions are from A's, position by position.

    Attributes:
        predictions: the model's.
        kl: float64 [T], KL(P_A ‖ P) in nats.
        same_top: bool [T], whether both find the same token likeliest.
        top_overlap: int64 [T], how many of A's 5 likeliest tokens are among its own 5.
        delta_next: float64 [T], log-probability of the token that really comes next less A's, in nats; NaN where there
            is none.
    """

    predictions: Predictions
    kl: Floats
    same_top: NDArray[np.bool_]
    top_overlap: NDArray[np.int64]
    delta_next: Floats

    @property
    def mean_kl(self) -> float:
        return float(self.kl.mean())

    @property
    def median_kl(self) -> float:
        return float(np.median(self.kl))

    @property
    def p99_kl(self) -> float:
        """99 of 100 positions have at most this; between two positions, linearly interpolated."""
        return float(np.percentile(self.kl, 99))

    @property
    def max_kl(self) -> float:
        return float(self.kl.max())

    @property
    def top1(self) -> float:
        """The share of positions where both find the same token likeliest."""
        return float(self.same_top.mean())

    @property
    def top5(self) -> float:
        """How many of A's 5 likeliest tokens are among the model's own 5, as a share, mean over positions."""
        return float(self.top_overlap.mean()) / TOP


@dataclass(frozen=True)
class LogitComparison:
    """How far B's predictions are from A's.

    Attributes:
        layers: what happened on the way, layer by layer; without local errors.
        n_rows: how many tokens of the vocabulary the distributions are over.
        a: A's predictions.
        b: B's, beside A's.
        noise: those of A computed in bf16, beside A's; None if it did not run.
    """

    layers: LayerComparison
    n_rows: int
    a: Predictions
    b: Divergences
    noise: Divergences | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know."""
        return self.layers.notes

    @property
    def prompts(self) -> Prompts:
        """What was run."""
        return self.layers.prompts

    @property
    def is_zero(self) -> bool:
        """True if both models computed the very same numbers."""
        zero = not self.b.kl.any() and not np.nan_to_num(self.b.delta_next).any()
        return zero and self.layers.is_zero and bool(self.b.same_top.all())

    @property
    def is_rounding(self) -> bool:
        """True if sums in float32, taken in another order, explain all."""
        return self.b.mean_kl <= ROUNDING_KL

    @property
    def times_noise(self) -> float | None:
        """B's mean KL in units of that of A computed in bf16; None if that did not run or is zero."""
        return self.b.mean_kl / self.noise.mean_kl if self.noise is not None and self.noise.mean_kl else None

    def figures(self) -> dict[str, float]:
        """What `--fail-over` takes, by its name: "kl" and the like fail above a limit, "top1" and "top5" below."""
        b = self.b
        kl = {"kl": b.mean_kl, "kl_median": b.median_kl, "kl_p99": b.p99_kl, "kl_max": b.max_kl}
        return kl | {"top1": b.top1, "top5": b.top5} | self.layers.figures()

    def describe(self) -> dict[str, Any]:
        """The report as JSON data: no number in it is infinite."""
        return describe_logits(self)

    def tables(self) -> list[Table]:
        """All figures, by prompt, and how far the next token's log-probability moved."""
        return logit_tables(self)

    def lines(self) -> list[str]:
        """What was run, what it says, and last the perplexities."""
        return logit_lines(self)


def compare_logits(
    a: Checkpoint,
    b: Checkpoint,
    *,
    prompts: Prompts | None = None,
    noise: bool = True,
    consumer: str | None = None,
    consumer_a: str | None = None,
    inject: Injection = NOTHING,
    progress: Progress | None = None,
) -> LogitComparison:
    """How far the predictions of `b` are from those of `a`.

    Args, raises: as `layers.compare_layers`.
    """
    config_a, config_b = configs(a, b, consumer, consumer_a)
    prompts = prompts or make_prompts(a, b)
    progress = progress or Progress()
    with ExitStack() as stack:
        pair = stack.enter_context(opened(a, b, config_a, config_b, inject, noise=noise))
        n_bytes = all_layers_bytes(pair) + sum(_unembedding_bytes(one) for one in (pair.a, pair.b))
        stack.enter_context(progress.during("comparing logits", n_bytes))
        embedding, layers = run_layers(pair, prompts, progress, local=False)
        run = _Unembedding(pair, prompts)
        run.all_rows(progress)
        predictions, of_b, of_noise = run.results()
    notes = [*prompts.notes, *notes_on_arithmetic(a, b, consumer, consumer_a)]
    if a.config.vocab_size != b.config.vocab_size:
        sizes = f"A has {a.config.vocab_size:,} rows and B {b.config.vocab_size:,}"
        notes.append(f"The vocabularies differ: {sizes}. Distributions are over the {run.n_rows:,} that both have.")
    compared = LayerComparison(str(a.path), str(b.path), prompts, embedding, layers, tuple(notes))
    return LogitComparison(compared, run.n_rows, predictions, of_b, of_noise)


def _unembedding_bytes(stream: Stream) -> int:
    return stream.checkpoint.tensors["unembedding.weight"].n_bytes


class _Unembedding:
    """The last matrix product of all streams at once, some rows and some tokens at a time."""

    def __init__(self, pair: Pair, prompts: Prompts) -> None:
        self._pair, self._prompts = pair, prompts
        self.n_rows = min(pair.a.config.vocab_size, pair.b.config.vocab_size)
        n_tokens = len(prompts.tokens)
        starts = range(0, n_tokens, _TOKENS)
        self._spans = [(begin, min(begin + _TOKENS, n_tokens)) for begin in starts]
        self._following = _following(prompts)
        self._inputs = {stream.name: _normalized(stream) for stream in pair.streams}
        self._softmax = {stream.name: [self._make(span) for span in self._spans] for stream in pair.streams}
        self._divergence = {
            stream.name: [Divergence(end - begin) for begin, end in self._spans] for stream in pair.streams[1:]
        }

    def _make(self, span: tuple[int, int]) -> Softmax:
        begin, end = span
        return Softmax(end - begin, self._following[begin:end])

    def all_rows(self, progress: Progress) -> None:
        """Takes every row that both vocabularies have. Raises CheckpointError: a logit is not finite."""
        pair = self._pair
        for begin in range(0, self.n_rows, _ROWS):
            ids = torch.arange(begin, min(begin + _ROWS, self.n_rows))
            rows = {stream.name: stream.weights.rows("unembedding.weight", ids) for stream in (pair.a, pair.b)}
            if pair.noise is not None:
                stored = pair.a.checkpoint.tensors["unembedding.weight"]
                exact = canonical(stored.encoding) is BF16
                rows[pair.noise.name] = rows["A"] if exact else rows["A"].bfloat16().float()
            for number, span in enumerate(self._spans):
                self._add(number, span, begin, rows)
            for stream in (pair.a, pair.b):
                n_bytes = _unembedding_bytes(stream)
                # Counted by rows of those both have, so that the last adds up to all bytes.
                done = n_bytes * (begin + len(ids)) // self.n_rows - n_bytes * begin // self.n_rows
                progress.advance(done, f"{stream.name}, unembedding")

    def _add(self, number: int, span: tuple[int, int], begin: int, rows: dict[str, Tensor]) -> None:
        logits = {}
        for stream in self._pair.streams:
            product = linear(self._inputs[stream.name][slice(*span)], rows[stream.name])
            require_finite(product, stream, "in the logits", self._prompts, span[0])
            logits[stream.name] = product.double()
        terms, factor = self._softmax["A"][number].add(begin, logits["A"])
        for name, divergences in self._divergence.items():
            self._softmax[name][number].add(begin, logits[name])
            divergences[number].add(logits["A"], logits[name], terms, factor)

    def results(self) -> tuple[Predictions, Divergences, Divergences | None]:
        """A's predictions; B's and those of A in bf16 beside them."""
        of_a = self._softmax["A"]
        top = np.concatenate([one.probability(one.top_logit).numpy() for one in of_a])
        a = _predictions(of_a, top)
        found = {name: self._beside(a, name) for name in self._divergence}
        return a, found["B"], found.get("A in bf16")

    def _beside(self, a: Predictions, name: str) -> Divergences:
        pairs = list(zip(self._softmax[name], self._divergence[name], strict=True))
        top = np.concatenate([softmax.probability(one.logit_of_top).numpy() for softmax, one in pairs])
        kl = [one.kl(of_a, softmax) for of_a, (softmax, one) in zip(self._softmax["A"], pairs, strict=True)]
        own = _predictions(self._softmax[name], top)
        return Divergences(
            predictions=own,
            kl=torch.cat(kl).numpy(),
            same_top=a.top_ids[:, 0] == own.top_ids[:, 0],
            top_overlap=(a.top_ids[:, :, None] == own.top_ids[:, None, :]).sum((1, 2)),
            delta_next=own.log_prob_next - a.log_prob_next,
        )


def _predictions(softmax: list[Softmax], probability_of_top: Floats) -> Predictions:
    return Predictions(
        torch.cat([one.top_ids for one in softmax]).numpy(),
        torch.cat([one.log_prob_next for one in softmax]).numpy(),
        probability_of_top,
    )


def _normalized(stream: Stream) -> Tensor:
    """What the unembedding is multiplied with: float32 [T, H]."""
    stream.forget()
    return rms_norm(stream.config, stream.hidden, stream.computed.dense("norm.weight")).float()


def _following(prompts: Prompts) -> Tensor:
    """The token after each, int64 [T]; -1 after the last of a prompt."""
    parts = [torch.from_numpy(np.append(prompt.tokens[1:], -1)) for prompt in prompts.prompts]
    return torch.cat(parts)
