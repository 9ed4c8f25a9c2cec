"""The page of `drift --html`: well-formed, alone, escaped, and the same every time."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import drift_outcomes
import numpy as np
import pytest
import torch
from drift_outcomes import DEPTHS, HOSTILE
from drift_reference import disturbed

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.command import Outcome, run_drift
from gptoss_convert.convert.drift.html import render_html
from gptoss_convert.convert.drift.page.axes import log_axis, number_axis
from gptoss_convert.convert.drift.page.heat_map import EDGES, style_of
from gptoss_convert.convert.drift.page.logit_sections import MOST_POINTS, along, worst_positions
from gptoss_convert.convert.drift.page.markup import escaped, unbroken
from gptoss_convert.convert.drift.results import Verdict, total

torch.set_num_threads(1)

VOID = {"meta", "br", "col"}
LIMITS = [
    {"name": "kl", "fails": "above", "limit": 0.01, "figure": 0.0123, "passed": True},
    {"name": "top1", "fails": "below", "limit": 0.98, "figure": 0.991, "passed": False},
]

COMMON_END = ["Limits"]
OF_LAYERS = ["Residual stream by layer", "Routing by layer", "Layer by layer"]
SECTIONS = {
    "tensors": ["By role", "Where they differ", "Scale shifts", "Worst tensors"],
    "layers": [OF_LAYERS[0], "Where errors are made", *OF_LAYERS[1:]],
    "logits": [
        *("Predictions", "By prompt", "KL along the positions", "Where predictions differ most", "The next token"),
        *OF_LAYERS,
    ],
}


class Page(HTMLParser):
    """What is in a page. Raises AssertionError where an element is not closed, or one that was not opened is."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        opened = self.open.pop()
        assert opened == tag, f"</{tag}> where {opened} is open"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def classes(self) -> Counter[str]:
        return Counter(one for _, attributes in self.elements for one in (attributes.get("class") or "").split())


@pytest.fixture(scope="module")
def pair(tiny: Path, tiny_gguf: Path) -> tuple[Checkpoint, Checkpoint]:
    return open_checkpoint(tiny), open_checkpoint(tiny_gguf)


@pytest.fixture(scope="module")
def outcomes(pair: tuple[Checkpoint, Checkpoint]) -> dict[str, Outcome]:
    return drift_outcomes.of_120b(pair)


@pytest.fixture(scope="module")
def pages(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {depth: render_html(outcome) for depth, outcome in outcomes.items()}


@pytest.fixture(scope="module")
def real(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """`tiny` beside a copy with disturbed weights, at each depth."""
    other = disturbed(tiny, tmp_path_factory.mktemp("disturbed") / "tiny", 0.02)
    return {depth: run_drift(tiny, other, depth=depth) for depth in DEPTHS}


def headings(page: str) -> list[str]:
    return Page(page).texts["h2"]


# --- what the page is ---


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_element_is_closed_and_every_id_is_one(pages: dict[str, str], depth: str) -> None:
    page = Page(pages[depth])
    assert [tag for tag, _ in page.elements].count("html") == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert {name for one in referred if one for name in one.split()} <= set(ids)


@pytest.mark.parametrize("depth", DEPTHS)
def test_it_needs_nothing_else(pages: dict[str, str], depth: str) -> None:
    page = Page(pages[depth])
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href", "srcset", "style"}
    assert "://" not in pages[depth]
    assert "@import" not in pages[depth]
    assert set(re.findall(r"url\(([^)]*)\)", pages[depth])) <= {"#hatch"}


@pytest.mark.parametrize("depth", DEPTHS)
def test_charts_and_tables_can_be_read_aloud(pages: dict[str, str], depth: str) -> None:
    page = Page(pages[depth])
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    assert page.texts["caption"]
    assert all(text for text in page.texts["caption"])
    labelled = [one.get("role") == "img" or one.get("aria-hidden") or "viewbox" in one for one in page.all("svg")]
    assert all(labelled)
    charts = [one for one in page.all("svg") if one.get("aria-labelledby")]
    assert len(charts) == len(page.texts["figure"])
    assert len(page.texts["desc"]) == len(charts)
    assert all(len(text) > 20 for text in page.texts["desc"])


@pytest.mark.parametrize("depth", DEPTHS)
def test_sections_are_those_of_the_depth(pages: dict[str, str], depth: str) -> None:
    has_notes = ["Notes"] if depth != "tensors" else []
    assert headings(pages[depth]) == ["What was compared", *SECTIONS[depth], *COMMON_END, *has_notes]


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_same_outcome_gives_the_same_bytes(real: dict[str, Outcome], depth: str) -> None:
    outcome = real[depth]
    later = replace(outcome, report=outcome.report | {"seconds": 1e6})
    assert render_html(outcome) == render_html(later)


def test_the_version_is_named(outcomes: dict[str, Outcome]) -> None:
    assert "gptoss-convert 9.8.7" in render_html(outcomes["tensors"], "9.8.7")


# --- what it says ---


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_answer_is_on_top(real: dict[str, Outcome], depth: str) -> None:
    (title,) = Page(render_html(real[depth])).texts["h1"]
    said = [line.rstrip(".").lower() for line in real[depth].lines]
    assert title.rstrip(".").lower() in said


@pytest.mark.parametrize("depth", DEPTHS)
def test_numbers_are_those_of_the_terminal(real: dict[str, Outcome], depth: str) -> None:
    page = Page(render_html(real[depth]))
    shown = [re.sub(r"^\d+\. ", "", text) for text in page.texts["td"] + page.texts["th"]]
    for table in real[depth].tables[:2]:
        for column in table.columns:
            assert {str(cell).strip() for cell in column.cells} <= {text.strip() for text in shown}


def test_identical_models_show_only_identical_cells(tiny: Path) -> None:
    page = render_html(run_drift(tiny, tiny))
    classes = Page(page).classes
    n_cells = len({(layer, role) for layer, role in drift_cells(run_drift(tiny, tiny))})
    assert classes["cell-bytes"] == n_cells + 1, "each cell, and the legend"
    assert classes["cell-values"] == 1
    assert headings(page) == ["What was compared", "By role", "Where they differ", "Limits"]


def drift_cells(outcome: Outcome) -> Iterator[tuple[int | None, str]]:
    yield from ((one["layer"], one["role"]) for one in outcome.report["tensors"]["layers"])


@pytest.mark.parametrize(
    ("error", "style"),
    [
        (0.00005, "cell-0"),
        (EDGES[0], "cell-1"),
        (0.02, "cell-3"),
        (0.5, "cell-6"),
        (1.0, "cell-7"),
        (math.inf, "cell-7"),
    ],
)
def test_the_colour_of_a_cell_is_that_of_its_error(error: float, style: str) -> None:
    one = drift_outcomes.tensor("x", "norm", 0, 1.0)
    sums = replace(one.sums, energy_a=1.0, error=error**2) if math.isfinite(error) else replace(one.sums, energy_a=0.0)
    assert style_of(total([replace(one, sums=sums)])) == style


@pytest.mark.parametrize("verdict", [Verdict.BYTES, Verdict.VALUES])
def test_identical_cells_are_marked_by_how_they_are(verdict: Verdict) -> None:
    names = {Verdict.BYTES: "cell-bytes", Verdict.VALUES: "cell-values"}
    assert style_of(total([drift_outcomes.tensor("x", "norm", 0, 0, verdict=verdict)])) == names[verdict]


def test_shifts_beyond_the_axis_are_counted_at_its_end(outcomes: dict[str, Outcome]) -> None:
    told = [text for text in Page(render_html(outcomes["tensors"])).texts["title"] if re.search(": .+ blocks$", text)]
    counts = {name: int(count.replace(",", "")) for name, count in (text[:-7].split(": ") for text in told)}
    assert counts["≤ -12"] == 2 * 3 * 36
    assert counts["+2"] == 40 * 3 * 36
    assert sum(counts.values()) == (2 + 800 + 7000 + 1100 + 40) * 3 * 36


def test_limits_that_were_passed_are_named_on_top(
    outcomes: dict[str, Outcome], pair: tuple[Checkpoint, Checkpoint]
) -> None:
    compared = outcomes["logits"].compared
    page = render_html(drift_outcomes.outcome(compared, "logits", pair, limits=LIMITS))
    assert "✗ Over the limit" in Page(page).texts["b"]
    assert "kl is 0.0123, above 0.01" in page
    assert [text for text in Page(page).texts["td"] if text in ("✗ over", "✓ held")] == ["✗ over", "✓ held"]


def test_limits_that_held_are_said_to(outcomes: dict[str, Outcome], pair: tuple[Checkpoint, Checkpoint]) -> None:
    compared = outcomes["logits"].compared
    page = render_html(drift_outcomes.outcome(compared, "logits", pair, limits=LIMITS[1:]))
    assert "✓ Within the limits" in Page(page).texts["b"]


def test_notes_of_the_files_are_shown(outcomes: dict[str, Outcome], pair: tuple[Checkpoint, Checkpoint]) -> None:
    page = render_html(drift_outcomes.outcome(outcomes["layers"].compared, "layers", pair, notes=["Mind the gap."]))
    assert {"A: Mind the gap.", "B: Mind the gap.", "A note."} <= set(Page(page).texts["li"])


def test_differences_of_config_and_tokenizer_are_shown(outcomes: dict[str, Outcome]) -> None:
    config = [{"key": "rope_theta", "a": 150000.0, "b": 1e4}]
    tokenizer = [{"key": "merges", "a": "446,189", "b": "1"}]
    report = outcomes["tensors"].report | {"config_differences": config, "tokenizer_differences": tokenizer}
    texts = Page(render_html(replace(outcomes["tensors"], report=report))).texts
    assert {"rope_theta", "merges"} <= set(texts["th"])
    assert {"150000.0", "10000.0", "446,189", "1"} <= set(texts["td"])


def test_explained_tensors_are_listed(outcomes: dict[str, Outcome]) -> None:
    compared = replace(drift_outcomes.tensors(2), mixups={"layers.0.part1.weight": "are transposed"})
    page = render_html(replace(outcomes["tensors"], compared=compared))
    assert "are transposed" in Page(page).texts["td"]


# --- texts of strangers ---


@pytest.mark.parametrize("depth", DEPTHS)
def test_no_text_of_a_file_becomes_markup(pair: tuple[Checkpoint, Checkpoint], depth: str) -> None:
    text = render_html(drift_outcomes.hostile(pair)[depth])
    page = Page(text)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert len(page.texts["style"]) == 1
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x00", "\\x00").replace("\udcff", "\\udcff")
    assert shown in page.texts["main"][0]
    assert text.encode()
    assert not re.search("[\x00-\x08\u202e]", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<b", "a&lt;b"),
        ('"', "&quot;"),
        ("'", "&#x27;"),
        ("&lt;", "&amp;lt;"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x85", "\\x85"),
        ("\ud800", "\\ud800"),
        ("\u2066", "\\u2066"),
        ("\ufffe", "\\ufffe"),
        ("two\nlines", "two\nlines"),
        ("Grüße 水", "Grüße 水"),
    ],
)
def test_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("number", ["1.2e-05", "99.92 %", "31.5 dB"])
def test_a_number_is_not_broken(number: str) -> None:
    assert unbroken(f"<b> {number}.") == f'&lt;b&gt; <span class="unbroken">{number}</span>.'


# --- how large it is ---


def test_a_page_of_120b_is_small(outcomes: dict[str, Outcome], pages: dict[str, str]) -> None:
    compared = outcomes["tensors"].compared
    assert len(compared.found.tensors) == 687  # type: ignore[attr-defined]
    assert max(len(page.encode()) for page in pages.values()) < 500_000


@pytest.mark.parametrize("lengths", [(256,) * 64, (2,) * 8192, (16_384,)], ids=["many", "most", "long"])
def test_a_page_of_as_many_tokens_as_may_be_is_small(
    pair: tuple[Checkpoint, Checkpoint], lengths: tuple[int, ...]
) -> None:
    compared = drift_outcomes.logits(drift_outcomes.prompts(lengths))
    page = render_html(drift_outcomes.outcome(compared, "logits", pair))
    assert len(page.encode()) < 2_000_000
    assert "Each point is the largest of 21 positions in a row" in page


@pytest.mark.parametrize("stride", [1, 3, 21])
def test_points_are_the_largest_of_theirs_and_of_one_prompt(stride: int) -> None:
    prompts = drift_outcomes.prompts((50, 7, 64))
    kl = np.random.default_rng(1).lognormal(-5, 2, 121)
    points = along(kl, prompts, stride)
    values = [value for _, value in points if value is not None]
    assert len(values) == sum(-(-length // stride) for length in (50, 7, 64))
    assert [at for at, value in points if value is None] == [50, 57, 121]
    for begin, end in prompts.spans:
        own = [value for at, value in points if value is not None and begin <= at < end]
        assert max(own) == kl[begin:end].max()


def test_a_line_of_few_positions_has_them_all() -> None:
    prompts = drift_outcomes.prompts((MOST_POINTS,))
    assert len(along(np.ones(MOST_POINTS), prompts, 1)) == MOST_POINTS + 1


def test_the_worst_positions_come_first() -> None:
    assert worst_positions(np.array([0.1, 0.5, 0.2, 0.5])) == [1, 3, 2, 0]


# --- figures that are hard to draw ---


def test_no_noise_and_no_local_errors_leave_their_parts_out(pair: tuple[Checkpoint, Checkpoint]) -> None:
    compared = drift_outcomes.layers(3, noise=False, local=False)
    page = render_html(drift_outcomes.outcome(compared, "layers", pair))
    assert "bf16" not in page
    assert "Where errors are made" not in headings(page)


def test_a_model_of_one_layer_is_drawn(pair: tuple[Checkpoint, Checkpoint]) -> None:
    page = Page(render_html(drift_outcomes.outcome(drift_outcomes.layers(1), "layers", pair)))
    assert page.classes["dot"] == 2 + 2 + 3, "B and noise; attention and experts; three lines of routing"


def test_equal_models_are_drawn(tiny: Path) -> None:
    page = render_html(run_drift(tiny, tiny, depth="logits"))
    assert Page(page).texts["h1"] == ["No drift: both models compute the very same numbers."]
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


@pytest.mark.parametrize("value", [math.inf, 0.0])
def test_errors_of_zero_and_infinity_are_drawn_at_the_ends(pair: tuple[Checkpoint, Checkpoint], value: float) -> None:
    compared = drift_outcomes.layers(3)
    first, *others = compared.layers
    changed = replace(compared, layers=(replace(first, b=replace(first.b, residual=value)), *others))
    page = render_html(drift_outcomes.outcome(changed, "layers", pair))
    assert "M167 0L" in page if value else "M167 1000L" in page


@pytest.mark.parametrize(
    ("value", "place"), [(1e-3, 25.0), (1e-4, 0.0), (1.0, 100.0), (0.0, 0.0), (-1.0, 0.0), (math.inf, 100.0)]
)
def test_places_on_a_logarithmic_axis(value: float, place: float) -> None:
    assert log_axis([2e-4, 0.5]).percent(value) == place


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 30, ["0 %", "10 %", "20 %", "30 %"]),
        (97, 100, ["97 %", "98 %", "99 %", "100 %"]),
        (0, 0, ["0 %", "1 %"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, labels: list[str]) -> None:
    assert [tick.label for tick in number_axis(low, high, suffix=" %", most=4).ticks] == labels
