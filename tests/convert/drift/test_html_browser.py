"""The page of `drift --html` in a real browser: on screens of all widths, in light and dark, and on paper."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import browser
import drift_outcomes
import numpy as np
import pytest
from drift_outcomes import DEPTHS

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.html import render_html
from gptoss_convert.convert.drift.page.style import DARK, LIGHT

WIDTHS = (360, 400, 768, 1400)
in_browser = pytest.mark.skipif(browser.find() is None, reason=browser.MISSING)


@pytest.fixture(scope="module")
def pair(tiny: Path, tiny_gguf: Path) -> tuple[Checkpoint, Checkpoint]:
    return open_checkpoint(tiny), open_checkpoint(tiny_gguf)


@pytest.fixture(scope="module")
def pages(pair: tuple[Checkpoint, Checkpoint]) -> dict[str, str]:
    return {depth: render_html(outcome) for depth, outcome in drift_outcomes.of_120b(pair).items()}


@pytest.fixture(scope="module")
def layouts(
    pages: dict[str, str], pair: tuple[Checkpoint, Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], browser.Layout]:
    hostile = {f"hostile {depth}": render_html(outcome) for depth, outcome in drift_outcomes.hostile(pair).items()}
    directory = tmp_path_factory.mktemp("layout")
    return browser.layout(pages, WIDTHS, directory) | browser.layout(hostile, WIDTHS[:1], directory)


@in_browser
@pytest.mark.parametrize(
    ("name", "width"),
    [*product(DEPTHS, WIDTHS), *product([f"hostile {depth}" for depth in DEPTHS], WIDTHS[:1])],
)
def test_nothing_is_wider_than_the_window(
    layouts: dict[tuple[str, int], browser.Layout], name: str, width: int
) -> None:
    found = layouts[name, width]
    assert (found.width, found.scroll, found.beyond) == (width, width, ())


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_labels_of_charts_do_not_lie_on_one_another(
    layouts: dict[tuple[str, int], browser.Layout], depth: str, width: int
) -> None:
    assert layouts[depth, width].covered == ()


@in_browser
def test_what_is_too_wide_would_be_noticed(tmp_path: Path) -> None:
    wide = '<!DOCTYPE html><body style="margin:0"><p style="width:500px;margin:0">a</p><svg><text y="9">a</text>'
    found = browser.layout({"wide": f'{wide}<text y="9">b</text></svg></body>'}, (400,), tmp_path)["wide", 400]
    assert (found.width, found.scroll, found.beyond, found.covered) == (400, 500, ("P : a",), ("a and b",))


@in_browser
@pytest.mark.parametrize(("dark", "colours"), [(False, LIGHT), (True, DARK)], ids=["light", "dark"])
@pytest.mark.parametrize("depth", ["tensors", "logits"])
def test_a_picture_has_the_colours_of_the_scheme_and_a_free_margin(
    pages: dict[str, str], tmp_path: Path, depth: str, dark: bool, colours: dict[str, str]
) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(pages[depth], encoding="utf-8")
    browser.screenshot(page, picture, 400, 800, dark=dark)
    seen = browser.pixels(picture)[..., :3]
    ground = np.array([int(colours["ground"][place : place + 2], 16) for place in (1, 3, 5)], np.uint8)
    assert seen.shape[1] == 400
    assert (seen[:, -8:] == ground).all(), "the right margin is free"
    assert (seen[:, :8] == ground).all(), "the left margin is free"
    assert (seen != ground).any(axis=-1).mean() > 0.02, "something is drawn"


@in_browser
@pytest.mark.parametrize("depth", DEPTHS)
def test_it_prints(pages: dict[str, str], tmp_path: Path, depth: str) -> None:
    page, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(pages[depth], encoding="utf-8")
    browser.print_to_pdf(page, paper)
    data = paper.read_bytes()
    assert data.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 12
