"""The limits are what rounding explains and no more; a distance is what its definition says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gptoss_convert.convert.validation.measures import (
    LIMITS,
    NO_EXPERT,
    NO_SIZE,
    NOT_FINITE,
    Measure,
    by_expert,
    measure,
    measure_choice,
)

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
F32 = LIMITS["f32"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def product(x: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
    """x · wᵀ of operands in `dtype`, sums in float32."""
    return x.to(dtype).float() @ w.to(dtype).float().T


X, W = normal(40, 2880), normal(300, 2880, seed=1)
EXPECTED = X @ W.T


def measured(found: Tensor, precision: str = "f32") -> Measure:
    return measure(3, "gate", EXPECTED, found, LIMITS[precision])


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LIMITS)
def test_limits_hold_for_sums_of_2880_rounded_products(precision: str) -> None:
    one = measured(product(X, W, DTYPES[precision]), precision)
    assert 0.01 < one.excess < 1


def halves_swapped(values: Tensor) -> Tensor:
    return values.roll(values.shape[1] // 2, 1)


WRONG = {
    "zeros": torch.zeros_like(EXPECTED),
    "halves swapped": halves_swapped(EXPECTED),
    "pairs swapped": EXPECTED.view(40, -1, 2).flip(-1).flatten(1),
    "scales off by one": 2 * EXPECTED,
    "scales off by one the other way": EXPECTED / 2,
    "one half zero": EXPECTED * (torch.arange(300) < 150),
}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("name", WRONG)
def test_limits_reject(name: str, precision: str) -> None:
    assert measured(WRONG[name].float(), precision).excess >= 30


def test_limits_reject_one_block_whose_scale_is_off_by_one_in_float32() -> None:
    changed = W.clone()
    changed[17, 64:96] *= 2
    one = measured((X @ changed.T).float())
    assert one.excess >= 1000
    assert (one.figure, one.place[1]) == ("worst", 17)


def test_limits_reject_one_weight_one_code_off_in_float32() -> None:
    """The least that one bit of a block can do: 0.5 of its scale, where 2.9 is the RMS of the codes."""
    changed = W.clone()
    changed[17, 70] += 0.5 / 2.9
    one = measured((X @ changed.T).float())
    assert one.excess >= 10
    assert (one.figure, one.place[1]) == ("worst", 17)


def test_bfloat16_would_hide_it() -> None:
    """Why validation multiplies in float32 on every device."""
    changed = W.clone()
    changed[17, 70] += 0.5 / 2.9
    assert measured((X @ changed.T).float(), "bf16").excess < 1


# --- definitions -------------------------------------------------------------------------------------------------


def test_a_measure_is_what_it_says() -> None:
    expected, found = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([[3.0, 0.0], [0.001, 4.0]])
    one = measure(None, "logits", expected, found, F32)
    assert one.relative == pytest.approx(0.001 / 5, rel=1e-6)
    assert one.worst == pytest.approx(0.001 / 2.5, rel=1e-6)
    assert one.excess == pytest.approx(max(2e-4 / 1e-5, 4e-4 / 1e-4), rel=1e-6)
    assert (one.figure, one.place, one.name) == ("relative", (1, 0), "logits")


def test_the_same_numbers_are_no_distance_even_if_all_are_zero() -> None:
    assert measure(0, "gate", EXPECTED, EXPECTED, F32).excess == 0
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    assert measure(0, "gate", nothing, nothing.float(), F32).excess == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_hopeless_and_placed(value: float) -> None:
    found = EXPECTED.float()
    found[5, 7] = value
    one = measured(found)
    assert (one.problem, one.place, one.excess) == (NOT_FINITE, (5, 7), math.inf)


def test_anything_beside_a_reference_of_zeros_is_hopeless() -> None:
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    assert measure(0, "gate", nothing, nothing.float() + 1e-30, F32).problem == NO_SIZE


def test_each_expert_has_its_own_error() -> None:
    experts = torch.tensor([[0, 2], [2, 5]])
    expected = normal(2, 2, 6)
    found = expected.clone()
    found[0, 1] *= 1.5
    errors = by_expert(experts, expected, found)
    both = torch.stack([expected[0, 1], expected[1, 0]])
    assert errors.keys() == {0, 2, 5}
    assert (errors[0], errors[5]) == (0, 0)
    assert errors[2] == pytest.approx(float(expected[0, 1].norm() / 2 / both.norm()))


# --- choices -----------------------------------------------------------------------------------------------------

LOGITS = torch.from_numpy(np.random.default_rng(3).permuted(np.tile(np.arange(8.0), (20, 1)), axis=1))
CHOSEN = LOGITS.topk(3).indices


def choice(found: Tensor, logits: Tensor = LOGITS) -> Measure:
    return measure_choice(0, logits, CHOSEN, found, F32)


def test_experts_in_another_order_are_the_same() -> None:
    assert choice(CHOSEN.flip(1)).excess == 0


def test_a_tie_may_be_decided_either_way() -> None:
    logits = LOGITS.clone()
    fourth = logits.topk(4).indices[:, 3]
    rows = torch.arange(20)
    logits[rows, fourth] = logits[rows, CHOSEN[:, 2]] - 1e-7
    found = CHOSEN.clone()
    found[4, 2] = fourth[4]
    assert 0 < choice(found, logits).excess < 1
    assert choice(found, logits).relative == 0


def test_another_expert_is_seen_and_its_token_named() -> None:
    found = CHOSEN.clone()
    found[4, 2] = LOGITS[4].argmin()
    one = choice(found)
    assert one.excess > 1000
    assert (one.place, one.relative) == ((4,), 1 / 20)


@pytest.mark.parametrize("expert", [-1, 8, int(CHOSEN[4, 0])])
def test_an_expert_that_does_not_exist_or_is_there_twice_is_hopeless(expert: int) -> None:
    found = CHOSEN.clone()
    found[4, 2] = expert
    one = choice(found)
    assert (one.problem, one.place, one.excess) == (NO_EXPERT, (4,), math.inf)
