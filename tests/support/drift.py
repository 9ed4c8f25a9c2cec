"""How far one model's next-token distributions are from another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Drift:
    """Distances in nats over all tested positions.

    mean_kl: mean over the positions of the Kullback-Leibler divergence, sum of p (log p - log q), p the reference.
    largest: the largest |log p - log q| of any token at any position.
    disputed: the widest lead of the reference's likeliest token over its second at a position where the other model
        finds another token likeliest; 0 if there is none.
    """

    mean_kl: float
    largest: float
    disputed: float


def drift(reference: NDArray[np.float64], found: NDArray[np.float64]) -> Drift:
    """The drift of `found` from `reference`: log-probabilities float64 [positions, vocabulary], all finite."""
    assert reference.shape == found.shape
    assert np.isfinite(reference).all()
    assert np.isfinite(found).all()
    kl = (np.exp(reference) * (reference - found)).sum(axis=1)
    differ = reference.argmax(axis=1) != found.argmax(axis=1)
    return Drift(
        mean_kl=float(kl.mean()),
        largest=float(np.abs(reference - found).max()),
        disputed=float(leads(reference)[differ].max(initial=0.0)),
    )


def leads(log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how many nats the likeliest token leads the second, for each position."""
    two = np.sort(log_probs, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]
