"""Distances between next-token distributions, from logits that come some rows of the vocabulary at a time.

Nothing of the size [tokens, vocabulary] is ever held. Sums are float64 and relative to the largest logit so far; where
a larger one comes, they are scaled down. With a the logits of A and x those of another model:

    log Z_X = log Σ exp x        KL(P_A ‖ P_X) = Σ P_A (a - x) - (log Z_A - log Z_X)

Source: the running softmax of Milakov and Gimelshein, arXiv 1805.02867.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOP = 5


class Softmax:
    """One model's distribution after each of T tokens: its normalization, its likeliest tokens, the true next one.

    Args:
        n_tokens: T.
        following: int64 [T], the token that comes next; -1 where none does.
    """

    def __init__(self, n_tokens: int, following: Tensor) -> None:
        self._following = following
        self._largest = torch.full((n_tokens,), -torch.inf, dtype=torch.float64)
        self._sum = torch.zeros(n_tokens, dtype=torch.float64)
        self._top = torch.empty(n_tokens, 0, dtype=torch.float64)
        self.top_ids = torch.empty(n_tokens, 0, dtype=torch.int64)
        """int64 [T, 5]: the likeliest tokens, first the likeliest."""
        self._next = torch.full((n_tokens,), torch.nan, dtype=torch.float64)

    def add(self, begin: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the logits float64 [T, R] of tokens from id `begin` on.

        Returns exp(logits - m), m being the largest logit so far, and what all sums so far were scaled by: [T, R], [T].
        """
        largest = torch.maximum(self._largest, logits.amax(-1))
        factor = (self._largest - largest).exp()
        terms = (logits - largest[:, None]).exp_()
        self._sum = self._sum * factor + terms.sum(-1)
        self._largest = largest
        self._add_top(begin, logits)
        here = (self._following >= begin) & (self._following < begin + logits.shape[1])
        self._next[here] = logits[here, self._following[here] - begin]
        return terms, factor

    def _add_top(self, begin: int, logits: Tensor) -> None:
        values, ids = logits.topk(min(TOP, logits.shape[1]), dim=-1)
        values, ids = torch.cat([self._top, values], -1), torch.cat([self.top_ids, ids + begin], -1)
        self._top, order = values.topk(min(TOP, values.shape[1]), dim=-1)
        self.top_ids = ids.gather(-1, order)

    @property
    def log_sum(self) -> Tensor:
        """log Z: float64 [T]."""
        return self._largest + self._sum.log()

    @property
    def log_prob_next(self) -> Tensor:
        """The log-probability of the true next token, in nats: float64 [T]; NaN where there is none."""
        return self._next - self.log_sum

    def probability(self, logits: Tensor) -> Tensor:
        """The probability of tokens with these logits [T]."""
        return (logits - self.log_sum).exp()

    @property
    def top_logit(self) -> Tensor:
        """The logit of the likeliest token: float64 [T]."""
        return self._top[:, 0]

    @property
    def total(self) -> Tensor:
        """Σ exp(logits - m) of all tokens so far: float64 [T]."""
        return self._sum


class Divergence:
    """KL(P_A ‖ P_X), and the logit that X gives the token that A finds likeliest."""

    def __init__(self, n_tokens: int) -> None:
        self._weighted = torch.zeros(n_tokens, dtype=torch.float64)
        self._best = torch.full((n_tokens,), -torch.inf, dtype=torch.float64)
        self.logit_of_top = torch.empty(n_tokens, dtype=torch.float64)
        """float64 [T]."""

    def add(self, a: Tensor, other: Tensor, terms: Tensor, factor: Tensor) -> None:
        """Takes logits float64 [T, R] of both, and what `Softmax.add` of A returned for them."""
        self._weighted = self._weighted * factor + (terms * (a - other)).sum(-1)
        best, ids = a.max(-1)
        better = best > self._best
        self.logit_of_top = torch.where(better, other.gather(-1, ids[:, None])[:, 0], self.logit_of_top)
        self._best = torch.where(better, best, self._best)

    def kl(self, a: Softmax, other: Softmax) -> Tensor:
        """In nats: float64 [T]. Never negative: what rounding takes below zero is zero."""
        return (self._weighted / a.total - (a.log_sum - other.log_sum)).clamp(min=0)
