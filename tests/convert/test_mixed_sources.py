"""Hugging Face directories in which some experts are packed and some are floats, under any name that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import Tensor, Tensors, copy_of, edit_tensors, nothing_left_in, read_tensors
from command_line import command, refused
from conversions import LAYOUTS, contents, converted, in_layout
from experts import (
    ALL,
    DOWN,
    GATE,
    GATE_UP,
    LAYER,
    UP,
    Array,
    change_floats,
    encoded,
    read_blocks,
    read_floats,
    stems,
    store_floats,
    written_by_known_rules,
)
from mxfp4_reference import as_encoding

Change = Callable[[Tensors], object]


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which quantizing anew would change bytes, so that it is seen if that is done."""
    written = written_by_known_rules(tiny, tmp_path_factory.mktemp("written") / "tiny", largest_scale=240)
    return in_layout("hf", written, tmp_path_factory.mktemp("packed"))


# --- ways to store experts as floats -----------------------------------------------------------------------------


def dense(stem: str, encoding: str = "BF16") -> Change:
    """As transformers stores them."""
    return lambda tensors: store_floats(tensors, stem, read_blocks(tensors, stem).values(), encoding)


def misnamed(stem: str) -> Change:
    """As transformers 5 saves a model that it decoded."""
    return lambda tensors: store_floats(tensors, stem, read_blocks(tensors, stem).values(), name=f"{stem}_blocks")


def unsloth(layer: int) -> Change:
    """One linear module for each expert and projection, and the router a level deeper."""

    def edit(tensors: Tensors) -> None:
        for name in ("gate_up", "down"):
            stem = f"{LAYER.format(layer)}.{name}_proj"
            matrices, biases, shard = taken(tensors, stem)
            for expert, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
                store_linear(tensors, f"{LAYER.format(layer)}.{name}_projs.{expert}", matrix, bias, shard)
        router = f"model.layers.{layer}.mlp.router"
        for kind in ("weight", "bias"):
            tensors[f"{router}.linear.{kind}"] = tensors.pop(f"{router}.{kind}")

    return edit


def linearized(layer: int) -> Change:
    """Three linear modules for each expert."""

    def edit(tensors: Tensors) -> None:
        for stem, rows in ((GATE_UP, {"gate": GATE, "up": UP}), (DOWN, {"down": ALL})):
            matrices, biases, shard = taken(tensors, stem.format(layer))
            for name, part in rows.items():
                for expert, (matrix, bias) in enumerate(zip(matrices[:, part], biases[:, part], strict=True)):
                    store_linear(tensors, f"{LAYER.format(layer)}.experts.{expert}.{name}_proj", matrix, bias, shard)

    return edit


def taken(tensors: Tensors, stem: str) -> tuple[Array, Array, str]:
    """Removes a packed projection: BF16 patterns [E, N, K] and [E, N], and the shard."""
    values = read_blocks(tensors, stem).values()
    _, scales, bias = (tensors.pop(f"{stem}_{part}") for part in ("blocks", "scales", "bias"))
    biases = np.frombuffer(bias.data, np.uint16).reshape(bias.shape)
    return as_encoding(values.reshape(*values.shape[:2], -1), "BF16"), biases, scales.shard


def store_linear(tensors: Tensors, name: str, matrix: Array, bias: Array, shard: str) -> None:
    for kind, array in (("weight", matrix), ("bias", bias)):
        tensors[f"{name}.{kind}"] = Tensor(shard, "BF16", list(array.shape), array.tobytes())


def both(*changes: Change) -> Change:
    def edit(tensors: Tensors) -> None:
        for change in changes:
            change(tensors)

    return edit


# What is done, which projections are floats then, and how many of the 12 expert tensors have which encoding.
G, D = [GATE_UP.format(layer) for layer in range(4)], [DOWN.format(layer) for layer in range(4)]
MIXTURES: dict[str, tuple[Change, list[str], dict[str, int]]] = {
    "some layers": (both(*map(dense, (G[1], D[1], G[2], D[2]))), [G[1], D[1], G[2], D[2]], {"MXFP4": 6, "BF16": 6}),
    "down of a layer": (dense(D[2]), [D[2]], {"MXFP4": 11, "BF16": 1}),
    "gate and up of a layer": (dense(G[2]), [G[2]], {"MXFP4": 10, "BF16": 2}),
    "several encodings": (
        both(dense(G[2], "F32"), dense(D[2]), dense(D[1], "F16")),
        [G[2], D[2], D[1]],
        {"MXFP4": 8, "F32": 2, "BF16": 1, "F16": 1},
    ),
    "a module for each expert": (unsloth(2), [G[2], D[2]], {"MXFP4": 9, "BF16": 3}),
    "three modules for each expert": (linearized(2), [G[2], D[2]], {"MXFP4": 9, "BF16": 3}),
    "names of blocks": (both(misnamed(G[2]), misnamed(D[2])), [G[2], D[2]], {"MXFP4": 9, "BF16": 3}),
    "every way at once": (
        both(unsloth(0), linearized(1), misnamed(G[2]), dense(D[2])),
        [*G[:3], *D[:3]],
        {"MXFP4": 3, "BF16": 9},
    ),
    "a module for each expert everywhere": (both(*map(unsloth, range(4))), G + D, {"BF16": 12}),
    "three modules for each expert everywhere": (both(*map(linearized, range(4))), G + D, {"BF16": 12}),
    "names of blocks everywhere": (both(*map(misnamed, G + D)), G + D, {"BF16": 12}),
}


@pytest.fixture(scope="module")
def mixed(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same checkpoint in every mixture."""
    made = {}
    for name, (change, _, _) in MIXTURES.items():
        made[name] = copy_of(packed, tmp_path_factory.mktemp("mixed") / "tiny")
        edit_tensors(made[name], change)
    return made


# --- what comes of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXTURES)
def test_floats_are_value_identical_and_what_is_packed_is_byte_identical(
    name: str, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    before, after = (read_tensors(path) for path in (packed, in_layout("hf", mixed[name], tmp_path)))
    assert before.keys() == after.keys()
    floats = MIXTURES[name][1]
    parts = {f"{stem}_{part}" for stem in floats for part in ("blocks", "scales")}
    assert {tensor for tensor in before if before[tensor] != after[tensor]} <= parts
    for stem in floats:
        assert read_blocks(after, stem).values().tobytes() == read_blocks(before, stem).values().tobytes()


@pytest.mark.parametrize("name", MIXTURES)
def test_everything_is_byte_identical_with_like(
    name: str, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    assert contents(in_layout("hf", mixed[name], tmp_path, "--like", packed)) == contents(packed)


@pytest.mark.parametrize("prove", [True, False], ids=["proven", "copied"])
def test_packed_tensors_keep_bytes_that_quantizing_would_change(
    prove: bool, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    options = () if prove else ("--no-verify",)
    before = read_tensors(packed)
    after = read_tensors(in_layout("hf", mixed["gate and up of a layer"], tmp_path, *options))
    anew = read_tensors(in_layout("hf", converted("to-bf16", packed, tmp_path / "bf16"), tmp_path / "anew"))
    for name in (f"{D[2]}_blocks", f"{D[3]}_scales"):
        assert after[name] == before[name]
        assert anew[name] != before[name]


@pytest.mark.parametrize("name", MIXTURES)
def test_bf16_of_a_mixture_is_that_of_the_packed_checkpoint(
    name: str, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    found, expected = (
        {name: tensor.data for name, tensor in read_tensors(converted("to-bf16", path, tmp_path / out)).items()}
        for path, out in ((mixed[name], "found"), (packed, "expected"))
    )
    assert found == expected


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "hf"])
@pytest.mark.parametrize("name", ["some layers", "down of a layer", "every way at once"])
def test_mixture_in_another_layout_is_that_of_the_packed_checkpoint(
    name: str, layout: str, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    found = in_layout(layout, mixed[name], tmp_path / "found", "--like", packed)
    assert contents(found) == contents(in_layout(layout, packed, tmp_path / "expected"))


@pytest.mark.parametrize("experts", ["bf16", "f32"])
@pytest.mark.parametrize("name", ["several encodings", "every way at once"])
def test_gguf_of_floats_of_a_mixture_is_that_of_the_packed_checkpoint(
    name: str, experts: str, mixed: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    found, expected = (
        contents(converted("to-gguf", path, tmp_path / f"{out}.gguf", "--experts", experts))
        for path, out in ((mixed[name], "found"), (packed, "expected"))
    )
    assert found == expected


def test_floats_that_mxfp4_cannot_hold_are_rounded_by_the_rule(mixed: dict[str, Path], tmp_path: Path) -> None:
    source = copy_of(mixed["down of a layer"], tmp_path / "source")
    change_floats(source, D[2], scale_up)
    for rule in ("floor", "ceil", "even"):
        after = read_tensors(converted("to-mxfp4", source, tmp_path / rule, "--scale-rule", rule))
        before = read_tensors(source)
        assert encoded(read_floats(before, D[2]), rule).same_bytes(read_blocks(after, D[2])).all()
        packed = [f"{stem}_{part}" for stem in stems(before) if stem != D[2] for part in ("blocks", "scales")]
        assert [name for name in packed if after[name].data != before[name].data] == []


def scale_up(values: Array) -> None:
    values *= 17 / 16


# --- what is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXTURES)
def test_inspect_tells_a_mixture_with_its_true_encodings(name: str, mixed: dict[str, Path]) -> None:
    report = command("inspect", mixed[name], "--json").json
    encodings = MIXTURES[name][2]
    assert report["layout"] == ("hf-mixed" if len(encodings) > 1 else "hf-bf16")
    assert {row["encoding"]: row["tensors"] for row in report["roles"] if row["role"] == "experts"} == encodings


@pytest.mark.parametrize("name", MIXTURES)
def test_repair_of_names_is_said_where_one_is_made(name: str, mixed: dict[str, Path], tmp_path: Path) -> None:
    said = command("to-mxfp4", mixed[name], tmp_path / "out").err
    is_repaired = "names of blocks" in name or name == "every way at once"
    assert said.count("note: The experts are floats under the names of packed blocks") == is_repaired


@pytest.mark.parametrize("name", MIXTURES)
def test_only_floats_are_quantized(name: str, mixed: dict[str, Path], tmp_path: Path) -> None:
    report = command("to-mxfp4", mixed[name], tmp_path / "out", "--json").json
    assert report["verified"] is True
    assert report["quantized"]["tensors"] == 12 - MIXTURES[name][2].get("MXFP4", 0)


# --- mixtures that are refused -----------------------------------------------------------------------------------


def is_refused(packed: Path, directory: Path, change: Change, *parts: object) -> None:
    """The command fails with such a message if the packed checkpoint was changed so."""
    source = copy_of(packed, directory / "source")
    edit_tensors(source, change)
    with nothing_left_in(directory):
        outcome = command("to-mxfp4", source, directory / "out")
    refused(outcome, *parts)


def test_projection_that_is_packed_and_dense_is_refused(packed: Path, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        copies = {name: tensors[name] for name in (f"{D[1]}_blocks", f"{D[1]}_scales")}
        dense(D[1])(tensors)
        tensors.update(copies)

    is_refused(packed, tmp_path, edit, f"{D[1]}_blocks", f"stored twice, also as '{D[1]}'", "expected one of them")


def test_floats_with_the_name_of_blocks_beside_scales_are_refused(packed: Path, tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        scales = tensors[f"{D[1]}_scales"]
        misnamed(D[1])(tensors)
        tensors[f"{D[1]}_scales"] = scales

    is_refused(packed, tmp_path, edit, f"{D[1]}_scales", "belongs to no part of gpt-oss")


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_missing_expert_is_refused_by_name(kind: str, packed: Path, tmp_path: Path) -> None:
    name = f"{LAYER.format(2)}.down_projs.5.{kind}"
    is_refused(packed, tmp_path, both(unsloth(2), lambda tensors: tensors.pop(name)), name, "the tensor is missing")


def test_expert_beyond_the_last_is_refused_by_name(packed: Path, tmp_path: Path) -> None:
    experts = f"{LAYER.format(2)}.down_projs"

    def edit(tensors: Tensors) -> None:
        unsloth(2)(tensors)
        tensors[f"{experts}.8.weight"] = tensors[f"{experts}.7.weight"]

    is_refused(packed, tmp_path, edit, f"{experts}.8.weight", "belongs to no part of gpt-oss")


def test_expert_of_another_dtype_than_the_others_is_refused_by_name(packed: Path, tmp_path: Path) -> None:
    name = f"{LAYER.format(2)}.experts.3.up_proj.weight"

    def edit(tensors: Tensors) -> None:
        linearized(2)(tensors)
        tensors[name].dtype = "F16"

    is_refused(packed, tmp_path, edit, name, "BF16, as that of the other experts", "found F16")
