"""Tokens go to the experts of their largest logits, and every expert gets its pairs, in order."""

from __future__ import annotations

import pytest
from kernel_figures import figures
from kernel_tolerances import SHARES

SIZES = ("65 tokens, 4 of 32", "33 tokens, 4 of 128", "5 tokens, 3 of 5", "3 tokens, 4 of 4", "2 tokens, 1 of 1")
SPECIAL = ("equal logits", "zeros of both signs", "infinite, huge and tiny logits")
PAIRS = (
    "28 pairs of 5 experts in tiles of 16",
    "3000 pairs of 7 experts in tiles of 16",
    "1 pairs of 128 experts in tiles of 16",
    "40 pairs of 3 experts in tiles of 32",
)


@pytest.mark.parametrize("name", [*SIZES, *SPECIAL])
def test_the_experts_are_those_of_a_stable_sort_and_share_by_softmax(name: str, device: str) -> None:
    figure = figures(device, "routing")[name]
    assert figure["others"] == 0
    assert figure["error"] <= SHARES


def test_nan_stays_nan_and_names_an_expert_that_exists(device: str) -> None:
    assert figures(device, "routing")["NaN"] == [True] * 4


@pytest.mark.parametrize("name", PAIRS)
def test_tiles_hold_each_experts_pairs_in_order_and_nothing_else(name: str, device: str) -> None:
    assert figures(device, "routing")[name] == 0
