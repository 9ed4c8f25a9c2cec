"""Positions: the published numbers of the official models, and rotations against complex arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gptoss_convert.model.config import GptOssConfig, parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B
from gptoss_convert.model.rope import concentration, correction_range, frequencies, rotate

OFFICIAL = parse_config(GPT_OSS_20B)
TRUNCATED = replace(OFFICIAL, yarn=replace(OFFICIAL.yarn, truncate=True))


def test_official_ramp_has_the_published_range() -> None:
    assert correction_range(OFFICIAL) == pytest.approx((8.092779115512402, 17.39802450158856), rel=1e-14)


def test_truncated_ramp_is_rounded_outwards() -> None:
    assert correction_range(TRUNCATED) == (8, 18)


def test_ramp_stays_among_the_pairs() -> None:
    few = replace(OFFICIAL, yarn=replace(OFFICIAL.yarn, beta_fast=1e6, beta_slow=1e-9))
    assert correction_range(few) == (0, OFFICIAL.head_dim - 1)


def test_concentration_is_the_published_one() -> None:
    assert concentration(OFFICIAL) == pytest.approx(1.3465735902799727, rel=1e-15)


def test_positions_that_are_not_stretched_are_not_concentrated() -> None:
    assert concentration(replace(OFFICIAL, yarn=replace(OFFICIAL.yarn, factor=0.5))) == 1


@pytest.mark.parametrize(("config", "kept", "ramp"), [(OFFICIAL, 9, 9), (TRUNCATED, 9, 9)], ids=["exact", "truncated"])
def test_fast_pairs_keep_their_frequency_and_slow_ones_are_divided(config: GptOssConfig, kept: int, ramp: int) -> None:
    ratio = (frequencies(config, yarn=False) / frequencies(config)).double().numpy()
    assert ratio[:kept] == pytest.approx(1, rel=1e-6)
    assert ratio[kept + ramp :] == pytest.approx(32, rel=1e-6)
    assert (np.diff(ratio[kept - 1 : kept + ramp + 1]) > 0).all()


def test_ramp_without_length_is_a_step() -> None:
    yarn = replace(OFFICIAL.yarn, truncate=True, beta_fast=1e6, beta_slow=4096 / 6.22)
    config = replace(OFFICIAL, yarn=yarn)
    assert correction_range(config) == (0, 0)
    ratio = (frequencies(config, yarn=False) / frequencies(config)).numpy()
    assert ratio == pytest.approx([1] + [32] * 31, rel=1e-6)


@pytest.mark.parametrize(("pair", "change"), [(16, 0.27), (17, 0.76)])
def test_truncation_changes_frequencies_as_published(pair: int, change: float) -> None:
    ratio = float(frequencies(TRUNCATED)[pair] / frequencies(OFFICIAL)[pair])
    assert ratio - 1 == pytest.approx(change, abs=0.005)


@pytest.mark.parametrize("yarn", [True, False])
def test_rotation_is_that_of_complex_numbers(yarn: bool) -> None:
    heads = torch.randn(3, 1500, 64, dtype=torch.float64, generator=torch.manual_seed(0))
    angles = np.float32(np.arange(1500))[:, None] * frequencies(OFFICIAL, yarn=yarn).numpy()
    turned = (heads[..., :32] + 1j * heads[..., 32:]).numpy() * np.exp(1j * angles.astype(np.float64))
    turned *= concentration(OFFICIAL) if yarn else 1
    found = rotate(heads, OFFICIAL, yarn=yarn).numpy()
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], -1), rtol=0, atol=1e-13)
