"""docs/drift.md says what the code has: every fault and the depth that catches it, every limit and its side."""

from __future__ import annotations

from pathlib import Path

from drift_cases import ARITHMETIC_FAULTS, CONFIG_FAULTS, FILE_FAULTS

from gptoss_convert.convert.drift.fail_over import NAMES, Limit
from gptoss_convert.convert.validation.faults import FAULTS

PAGE = (Path(__file__).parents[3] / "docs" / "drift.md").read_text(encoding="utf-8")


def rows_under(head: str) -> dict[str, list[str]]:
    """The table whose head begins so: the first cell of each row, and the others."""
    lines = PAGE[PAGE.index(head) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {first: others for first, *others in rows}


def test_every_fault_is_in_the_table_with_its_depths() -> None:
    table = rows_under("| fault |")
    assert sorted(table) == sorted(fault.name for fault in FAULTS)
    for name, (depths, _) in table.items():
        assert ("tensors" in depths) == (name in FILE_FAULTS or name in CONFIG_FAULTS)
        assert name not in ARITHMETIC_FAULTS or depths == "layers"


def test_every_limit_is_in_the_table_with_its_depths_and_its_side() -> None:
    table = rows_under("| name | depth |")
    assert {name.strip("`") for name in table} == set(NAMES)
    for name, (depths, _, side) in table.items():
        assert tuple(depths.split(", ")) == NAMES[name.strip("`")]
        assert side == Limit(name.strip("`"), 0).fails
