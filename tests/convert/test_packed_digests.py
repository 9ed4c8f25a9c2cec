"""`mxfp4_digests.json`: a BF16 directory says what it was decoded from, so that the way back can be proven."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Tensors, copy_of, edit_json, edit_tensors, nothing_left_in, read_tensors
from command_line import command, refused
from conversions import LAYOUTS, converted, in_layout
from experts import DOWN, GATE_UP, change_floats, read_floats, store_floats, written_by_known_rules

FILE = "mxfp4_digests.json"

Digests = dict[str, str]


@pytest.fixture(scope="module")
def packed_digests(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Digests:
    """Those of the experts of `tiny`, as another conversion tells them."""
    return expert_digests(tiny, tmp_path_factory.mktemp("digests"))


def expert_digests(source: Path, directory: Path) -> Digests:
    digests = command("to-gguf", source, directory / "out.gguf", "--json").json["digests"]
    experts = {name: digest for name, digest in digests.items() if is_expert(name)}
    assert len(experts) == 12
    return experts


def is_expert(name: str) -> bool:
    return name.endswith(("gate.weight", "up.weight", "down.weight"))


@pytest.fixture(scope="module")
def dense(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted("to-bf16", tiny, tmp_path_factory.mktemp("dense") / "tiny")


def recorded(directory: Path) -> Digests:
    tensors: Digests = json.loads((directory / FILE).read_bytes())["tensors"]
    return tensors


# --- what is recorded --------------------------------------------------------------------------------------------


def test_bf16_directory_has_the_digests_of_the_packed_experts(dense: Path, packed_digests: Digests) -> None:
    assert recorded(dense) == packed_digests


def test_digests_are_recorded_without_verification_too(tiny: Path, packed_digests: Digests, tmp_path: Path) -> None:
    out = converted("to-bf16", tiny, tmp_path / "out", "--no-verify")
    assert recorded(out) == packed_digests


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "hf"])
def test_digests_do_not_depend_on_the_layout_they_are_taken_of(
    layout: str, tiny: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    source = in_layout(layout, tiny, tmp_path / "source", "--tokenizer", tiny)
    pad = ("--pad-vocab",) if layout == "metal" else ()
    out = converted("to-bf16", source, tmp_path / "out", "--tokenizer", tiny, *pad)
    assert recorded(out) == packed_digests


@pytest.mark.parametrize("options", [(), ("--no-verify",)], ids=["", "no-verify"])
def test_digests_are_carried_from_floats_to_floats(
    options: tuple[str, ...], dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    assert recorded(converted("to-bf16", dense, tmp_path / "out", *options)) == packed_digests


def test_digests_of_floats_that_were_packed_before_stand_beside_those_of_what_is_packed(
    tiny: Path, dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    mixed = copy_of(dense, tmp_path / "mixed")
    packed = {f"{stem.format(0)}_{part}" for stem in (GATE_UP, DOWN) for part in ("blocks", "scales")}
    replace(mixed, tiny, [GATE_UP.format(0), DOWN.format(0)], packed)
    edit_json(mixed / FILE, lambda content: content["tensors"].pop("layers.0.moe.gate.weight"))
    edit_json(mixed / FILE, lambda content: content["tensors"].update({"layers.0.moe.up.weight": "0" * 32}))
    assert recorded(converted("to-bf16", mixed, tmp_path / "out")) == packed_digests


def replace(directory: Path, source: Path, old: list[str], new: set[str]) -> None:
    """Tensors `new` of another directory in place of `old`."""
    found = {name: tensor for name, tensor in read_tensors(source).items() if name in new}
    assert found.keys() == new

    def edit(tensors: Tensors) -> None:
        shards = [tensors.pop(name).shard for name in old]
        for name, tensor in found.items():
            tensors[name] = dataclasses.replace(tensor, shard=shards[0])

    edit_tensors(directory, edit)


def test_floats_of_unknown_origin_have_no_digests(dense: Path, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    (source / FILE).unlink()
    assert not (converted("to-bf16", source, tmp_path / "out") / FILE).exists()


def test_packed_layouts_have_no_such_file(dense: Path, tmp_path: Path) -> None:
    for layout in ("hf", "original", "mlx"):
        assert not (in_layout(layout, dense, tmp_path / layout) / FILE).exists()


# --- what they are compared with ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_way_back_has_the_recorded_digests_with_the_base(
    layout: str, tiny: Path, dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    packed = report(layout, dense, tmp_path, "--like", tiny)
    assert packed == {"digests": packed_digests, "as_recorded": [*packed_digests], "not_as_recorded": []}


def report(layout: str, source: Path, directory: Path, *options: str | Path) -> dict[str, Any]:
    name, fixed, file_name = LAYOUTS[layout]
    packed: dict[str, Any] = command(name, source, directory / file_name, *fixed, *options, "--json").json["packed"]
    return packed


def test_tensor_that_was_changed_is_not_as_recorded(
    tiny: Path, dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    source = copy_of(dense, tmp_path / "source")
    change_floats(source, GATE_UP.format(2), lambda values: values.__setitem__((0, 0, 0, 0), 1 / 3))
    packed = report("hf", source, tmp_path, "--like", tiny)
    assert packed["not_as_recorded"] == ["layers.2.moe.gate.weight"]
    assert sorted(packed["as_recorded"]) == sorted(packed_digests.keys() - {"layers.2.moe.gate.weight"})


def test_packed_digests_are_those_of_what_was_written(tiny: Path, tmp_path: Path) -> None:
    written = written_by_known_rules(tiny, tmp_path / "written")
    dense = converted("to-bf16", written, tmp_path / "dense")
    packed = report("hf", dense, tmp_path)
    assert packed["digests"] == expert_digests(tmp_path / "tiny", tmp_path)
    before = recorded(dense)
    same = [name for name in before if before[name] == packed["digests"][name]]
    assert packed["as_recorded"] == same
    assert {"layers.0.moe.down.weight", "layers.2.moe.up.weight"} <= set(same)
    assert "layers.2.moe.gate.weight" not in same
    assert "layers.3.moe.down.weight" not in same


def test_nothing_is_compared_if_nothing_is_recorded(dense: Path, packed_digests: Digests, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    (source / FILE).unlink()
    packed = report("hf", source, tmp_path)
    assert packed.keys() == {"digests", "as_recorded", "not_as_recorded"}
    assert packed["digests"].keys() == packed_digests.keys()
    assert packed["as_recorded"] == packed["not_as_recorded"] == []


def test_digests_say_the_same_of_floats_in_another_encoding(
    tiny: Path, dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    source = copy_of(dense, tmp_path / "source")

    def edit(tensors: Tensors) -> None:
        for stem in (GATE_UP.format(1), DOWN.format(1)):
            store_floats(tensors, stem, read_floats(tensors, stem), "F32")

    edit_tensors(source, edit)
    assert report("hf", source, tmp_path, "--like", tiny)["as_recorded"] == [*packed_digests]


# --- files that are refused --------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]
NAME = "layers.0.moe.gate.weight"
DAMAGES: dict[str, Change] = {
    "another algorithm": lambda content: content.update(algorithm="sha256"),
    "no algorithm": lambda content: content.pop("algorithm"),
    "no tensors": lambda content: content.pop("tensors"),
    "tensors in a list": lambda content: content.update(tensors=[*content["tensors"].values()]),
    "digest too short": lambda content: content["tensors"].update({NAME: "0" * 31}),
    "digest too long": lambda content: content["tensors"].update({NAME: "0" * 33}),
    "digest with a line end": lambda content: content["tensors"].update({NAME: "0" * 32 + "\n"}),
    "digest in capitals": lambda content: content["tensors"].update({NAME: "ABCDEF" + "0" * 26}),
    "digest that is a number": lambda content: content["tensors"].update({NAME: 0}),
    "digest that is null": lambda content: content["tensors"].update({NAME: None}),
}


@pytest.mark.parametrize("name", ["to-bf16", "to-mxfp4"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_is_refused_by_name(damage: Change, name: str, dense: Path, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    edit_json(source / FILE, damage)
    with nothing_left_in(tmp_path):
        outcome = command(name, source, tmp_path / "out")
    refused(outcome, source / FILE, "does not hold digests of packed experts", "Remove it")


@pytest.mark.parametrize("content", [b"", b"[]", b'"text"', b"{", b"null", b"\xff\xfe", b'{"a": 1, "a": 2}'])
def test_file_that_is_no_json_object_is_refused_by_name(content: bytes, dense: Path, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    (source / FILE).write_bytes(content)
    with nothing_left_in(tmp_path):
        outcome = command("to-bf16", source, tmp_path / "out")
    refused(outcome, source / FILE)


def test_file_that_is_too_long_is_refused_by_name(dense: Path, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    edit_json(source / FILE, lambda content: content.update(about="x" * (1 << 20)))
    with nothing_left_in(tmp_path):
        outcome = command("to-bf16", source, tmp_path / "out")
    refused(outcome, source / FILE)


def test_digests_of_tensors_that_the_model_does_not_have_are_ignored(
    dense: Path, packed_digests: Digests, tmp_path: Path
) -> None:
    source = copy_of(dense, tmp_path / "source")
    edit_json(source / FILE, lambda content: content["tensors"].update({"layers.9.moe.gate.weight": "0" * 32}))
    assert recorded(converted("to-bf16", source, tmp_path / "out")) == packed_digests
