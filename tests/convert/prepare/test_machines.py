"""The table of machines holds together, and finds what people type."""

from __future__ import annotations

import pytest

from gptoss_convert.convert.prepare.machines import (
    APPLE,
    CARDS,
    CHIPS,
    CPU,
    FAMILIES,
    GIB,
    MIB,
    REPRESENTATIVES,
    family_of,
    parse_machine,
    spellings,
)
from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.architectures import ARCHITECTURES

SPELLED = {
    "3090": "RTX 3090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "5090 32GB": "RTX 5090",
    "a100-40": "A100-40",
    "A100 80GB": "A100-80",
    "a6000": "RTX A6000",
    "t4": "T4",
    "L40s": "L40S",
    "h100": "H100",
    "H200 141": "H200",
    "b200": "B200",
    "mi300x": "MI300X",
    "7900xtx": "RX 7900 XTX",
    "Radeon RX 7900 XTX": "RX 7900 XTX",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_cards_row_agrees_with_itself_and_with_the_table_of_architectures(name: str) -> None:
    card = CARDS[name]
    assert card.vendor_gb is not None
    assert card.memory_bytes is not None
    assert card.arch in ARCHITECTURES
    assert card.family in FAMILIES
    # Drivers report within a few percent of the box, counted in GiB or, for the largest, in GB.
    assert 0.93 * card.vendor_gb * GIB < card.memory_bytes <= 1.1 * card.vendor_gb * GIB
    assert card.memory_bytes % MIB == 0
    assert parse_machine(name) == card


@pytest.mark.parametrize("text", SPELLED)
def test_a_card_is_found_as_people_type_it(text: str) -> None:
    assert parse_machine(text).name == SPELLED[text]


@pytest.mark.parametrize("chip", CHIPS)
def test_every_chip_is_found_with_every_memory(chip: str) -> None:
    for gib in CHIPS[chip]:
        for text in (f"{chip} {gib}", f"Apple {chip}:{gib}", f"{chip.lower().replace(' ', '')} {gib}GB"):
            machine = parse_machine(text)
            assert (machine.name, machine.family, machine.memory_bytes) == (chip, APPLE, gib * GIB)


def test_spellings_are_unambiguous() -> None:
    assert len({parse_machine(name) for name in spellings()}) == len(spellings())


def test_every_family_but_the_processors_has_an_example() -> None:
    assert set(REPRESENTATIVES) == set(FAMILIES) - {CPU}
    assert {family: parse_machine(name).family for family, name in REPRESENTATIVES.items()} == {
        family: family for family in REPRESENTATIVES
    }


@pytest.mark.parametrize(
    ("arch", "family"),
    [("sm_75", "turing"), ("sm_87", "ampere"), ("sm_89", "ada"), ("sm_121", "blackwell"), ("gfx950", "mi300"),
     ("gfx1151", "rdna3"), ("gfx1201", "other"), ("sm_61", "other")],
)  # fmt: skip
def test_architectures_have_families(arch: str, family: str) -> None:
    assert arch in ARCHITECTURES
    assert family_of(arch) == family


@pytest.mark.parametrize(("text", "near"), [("3080", "RTX 3090"), ("MI300", "MI300X"), ("A100-8", "A100-80")])
def test_near_names_are_listed_for_an_unknown_one(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"no such device.*{near}.*found '{text}'"):
        parse_machine(text)


def test_some_of_each_kind_are_listed_where_nothing_is_near() -> None:
    with pytest.raises(UsageError, match="RTX 3090, A100-80, MI300X, M2 Max 64"):
        parse_machine("???")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("M2 Max", "comes with several sizes of memory; expected 'M2 Max 32' or 'M2 Max 64' or 'M2 Max 96'"),
     ("M4:33", "no M4 comes with that memory"), ("M4 Ultra 64", "no such chip")],
)  # fmt: skip
def test_a_chip_must_be_one_that_is_sold(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_machine(text)
