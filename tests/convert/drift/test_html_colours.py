"""The colours of the page of `drift --html`: readable in light and dark, in grey too, and all of them there."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from gptoss_convert.convert.drift.page.style import DARK, LIGHT, STYLE_SHEET


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


SCHEMES = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


@SCHEMES
@pytest.mark.parametrize("text", ["text", "soft", "b", "good", "bad"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
def test_text_stands_out(colours: dict[str, str], text: str, ground: str) -> None:
    assert contrast(colours[text], colours[ground]) >= 4.5


@SCHEMES
@pytest.mark.parametrize("line", ["b", "second", "noise"])
def test_lines_stand_out(colours: dict[str, str], line: str) -> None:
    assert contrast(colours[line], colours["ground"]) >= 3


@SCHEMES
def test_larger_errors_stand_out_more_in_grey_too(colours: dict[str, str]) -> None:
    steps = [contrast(colours[f"cell-{number}"], colours["ground"]) for number in range(8)]
    assert all(larger > 1.2 * smaller for smaller, larger in pairwise(steps)), steps


@SCHEMES
def test_every_colour_that_is_named_is_there(colours: dict[str, str]) -> None:
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", STYLE_SHEET)) == set(colours)
