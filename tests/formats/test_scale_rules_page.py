"""docs/scale-rules.md says what `make scale-rules` measures, digit for digit, and what it claims is so."""

from __future__ import annotations

from pathlib import Path

import measure_scale_rules
import pytest
from measure_scale_rules import TABLES, Table
from mxfp4_writers import Writer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale-rules.md"

WHO, COST, FINE_TUNING, ROUND_TRIP = TABLES
ROWS = [(table, writer) for table in TABLES for writer in table.writers]


def cells(table: Table, name: str) -> list[str]:
    """What the page says in one row."""
    rows = [line for line in section(table).splitlines() if line.startswith(f"| {name} |")]
    assert len(rows) == 1
    return rows[0].strip("| ").split(" | ")[1:]


def section(table: Table) -> str:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(table.head()) == 1
    return page.partition(table.head())[2].partition("\n\n")[0]


def numbers(table: Table, name: str) -> list[float]:
    return [float(cell.removesuffix(" %")) for cell in cells(table, name)]


@pytest.mark.parametrize(
    ("table", "writer"), ROWS, ids=[f"{table.cells.__name__}-{writer.name}" for table, writer in ROWS]
)
def test_the_page_holds_what_is_measured(table: Table, writer: Writer) -> None:
    if writer.package:
        pytest.importorskip(
            writer.package, reason="the page's figures of a peer are those of the machines that have it"
        )
    assert table.row(writer) in section(table).splitlines()


@pytest.mark.parametrize("table", TABLES, ids=[table.cells.__name__ for table in TABLES])
def test_the_page_has_a_row_for_every_writer_and_no_other(table: Table) -> None:
    names = [row.strip("| ").split(" | ")[0] for row in section(table).strip().splitlines()]
    assert names == [writer.name for writer in table.writers]


def test_the_page_names_the_packages_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"{package} " in page for package in measure_scale_rules.PACKAGES)


# --- what the text says ------------------------------------------------------------------------------------------


def test_even_has_the_lowest_error_of_the_rules_and_is_within_4_percent_of_the_best() -> None:
    for even, floor, ceil, best in zip(
        *(numbers(COST, name)[:4] for name in ("`even`", "`floor`", "`ceil`", "best scale")), strict=True
    ):
        assert best <= even < min(floor, ceil)
        assert even <= 1.04 * best


def test_ceil_clips_nothing_and_the_others_do() -> None:
    clipped = {name: numbers(COST, name)[4] for name in ("`ceil`", "`even`", "`floor`")}
    assert clipped["`ceil`"] == 0 < clipped["`even`"] < clipped["`floor`"]


def test_only_even_never_leaves_fine_tuned_weights_farther_away_than_the_original_was() -> None:
    assert max(numbers(FINE_TUNING, "`even`")) <= 1
    assert max(numbers(FINE_TUNING, "`floor`")) > 1 < max(numbers(FINE_TUNING, "`ceil`"))
    assert numbers(FINE_TUNING, "`even`") == numbers(FINE_TUNING, "best scale")


def test_exact_brings_back_more_bytes_than_any_rule_or_peer_and_like_brings_back_all() -> None:
    assert set(numbers(ROUND_TRIP, measure_scale_rules.LIKE)) == {100}
    others = [writer.name for writer in ROUND_TRIP.writers[2:]]
    assert numbers(ROUND_TRIP, "`exact`")[:3] == [100, 100, 100]
    assert numbers(ROUND_TRIP, "`exact`")[3] > max(numbers(ROUND_TRIP, name)[3] for name in others)


@pytest.mark.parametrize(("writer", "rule"), [("FLOOR", "floor"), ("EVEN", "even"), ("RCEIL", "ceil")])
def test_ours_do_what_torchao_does(writer: str, rule: str) -> None:
    for table in (WHO, COST, ROUND_TRIP):
        assert cells(table, f"torchao {writer}") == cells(table, f"`{rule}`")
