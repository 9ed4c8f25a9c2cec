"""`--like`: blocks whose values did not change get the base's bytes, whatever layout the base is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import SCALES, Tensors, copy_of, edit_tensors, nothing_left_in, patch, read_tensors
from command_line import command, refused
from conversions import LAYOUTS, contents, converted, in_layout
from experts import DOWN, GATE_UP, change_floats, read_blocks, written_by_known_rules
from mxfp4_reference import exponents, nearest_codes

from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.run import run


@pytest.fixture(scope="module")
def base(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which many blocks come back with other bytes if there is nothing to compare with."""
    written = written_by_known_rules(tiny, tmp_path_factory.mktemp("written") / "tiny", largest_scale=240)
    return in_layout("hf", written, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def dense(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted("to-bf16", base, tmp_path_factory.mktemp("dense") / "tiny")


@pytest.fixture(scope="module")
def bases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base in every layout."""
    directory = tmp_path_factory.mktemp("bases")
    return {layout: in_layout(layout, base, directory / layout, "--tokenizer", base) for layout in LAYOUTS}


# --- nothing changed ---------------------------------------------------------------------------------------------


def test_without_a_base_some_blocks_come_back_with_other_bytes(base: Path, dense: Path, tmp_path: Path) -> None:
    assert contents(in_layout("hf", dense, tmp_path)) != contents(base)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mxfp4_to_bf16_and_back_is_byte_identical_in_every_layout(
    layout: str, base: Path, dense: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    assert contents(in_layout(layout, dense, tmp_path, "--like", base)) == contents(bases[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_base_may_be_in_any_layout(
    layout: str, base: Path, dense: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    assert contents(in_layout("hf", dense, tmp_path, "--like", bases[layout])) == contents(base)


@pytest.mark.parametrize("experts", ["bf16", "f32"])
def test_gguf_with_experts_that_are_floats_gives_back_the_base(experts: str, base: Path, tmp_path: Path) -> None:
    gguf = converted("to-gguf", base, tmp_path / "tiny.gguf", "--experts", experts)
    assert contents(in_layout("hf", gguf, tmp_path / "out", "--like", base)) == contents(base)


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
def test_base_is_kept_whatever_the_rule(rule: str, base: Path, dense: Path, tmp_path: Path) -> None:
    assert contents(in_layout("hf", dense, tmp_path, "--like", base, "--scale-rule", rule)) == contents(base)


# --- something changed -------------------------------------------------------------------------------------------

# Expert, stored row, block, element, and what stands there then.
PLACE, VALUE = (5, 101, 3, 17), 101 / 8192
GATE_UP_1 = GATE_UP.format(1)
CHANGED = "layers.1.moe.up.weight"  # row 101 of gate_up is row 50 of up


@pytest.fixture(scope="module")
def trained(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One weight of one expert is another."""
    directory = copy_of(dense, tmp_path_factory.mktemp("trained") / "tiny")
    change_floats(directory, GATE_UP_1, lambda values: values.__setitem__(PLACE, VALUE))
    return directory


def test_changed_weight_changes_its_block_alone(base: Path, trained: Path, tmp_path: Path) -> None:
    before, after = (read_tensors(path) for path in (base, in_layout("hf", trained, tmp_path, "--like", base)))
    parts = {f"{GATE_UP_1}_blocks", f"{GATE_UP_1}_scales"}
    assert {name for name in before if before[name] != after[name]} <= parts
    differ = ~read_blocks(before, GATE_UP_1).same_bytes(read_blocks(after, GATE_UP_1))
    assert np.argwhere(differ).tolist() == [list(PLACE[:3])]


def test_changed_block_is_rounded_by_the_rule_even(base: Path, trained: Path, tmp_path: Path) -> None:
    values = read_blocks(read_tensors(base), GATE_UP_1).values()[PLACE[:3]][None]
    values[0, PLACE[3]] = VALUE
    exponent = exponents(np.abs(values).max(axis=1), "even")
    after = read_blocks(read_tensors(in_layout("hf", trained, tmp_path, "--like", base)), GATE_UP_1)
    assert after.scales[PLACE[:3]] == exponent[0] + 127
    assert np.array_equal(after.codes[PLACE[:3]], nearest_codes(values, exponent)[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_changed_is_told_whatever_layout_the_base_is_in(
    layout: str, bases: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    report = command("to-mxfp4", trained, tmp_path / "out", "--like", bases[layout], "--json").json
    like, n_blocks = report["like"], report["quantized"]["blocks"]
    assert like["path"] == str(bases[layout])
    assert (like["blocks_changed"], like["share_changed"]) == (1, pytest.approx(1 / n_blocks))
    assert like["different"] == [CHANGED]
    assert len(like["identical"]) == 78
    assert report["quantized"]["by_tensor"][CHANGED]["blocks_requantized"] == 1
    assert report["quantized"]["blocks_requantized"] == 1


def test_tensors_that_were_not_quantized_are_compared_too(base: Path, tmp_path: Path) -> None:
    changed = copy_of(base, tmp_path / "changed")

    def edit(tensors: Tensors) -> None:
        for name in ("model.norm.weight", f"{DOWN.format(3)}_scales"):
            data = tensors[name].data
            tensors[name].data = data[:-1] + bytes([data[-1] ^ 1])

    edit_tensors(changed, edit)
    report = command("to-mxfp4", changed, tmp_path / "out", "--like", base, "--json").json
    assert report["like"]["different"] == ["layers.3.moe.down.weight", "norm.weight"]
    assert report["like"]["blocks_changed"] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_different_if_nothing_changed(layout: str, base: Path, dense: Path, tmp_path: Path) -> None:
    name, options, file_name = LAYOUTS[layout]
    like = command(name, dense, tmp_path / file_name, *options, "--like", base, "--json").json["like"]
    assert like["different"] == []
    assert len(like["identical"]) == 79
    assert (like["blocks_changed"], like["share_changed"]) == (0, 0)


# --- bases that are refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_layers", [3, 5])
def test_base_with_other_layers_is_wrong_usage(n_layers: int, dense: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run(plan_demo(other, layers=n_layers), prove=False)
    is_refused(dense, other, tmp_path, "another model")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_base_with_dense_experts_is_wrong_usage(layout: str, dense: Path, tmp_path: Path) -> None:
    is_refused(dense, dense, tmp_path, "not MXFP4", GATE_UP.format(0), layout=layout)


def test_base_that_is_none_is_refused(dense: Path, tmp_path: Path) -> None:
    is_refused(dense, tmp_path / "missing", tmp_path, "not a gpt-oss checkpoint", code=1)


def is_refused(source: Path, like: Path, directory: Path, *parts: str, layout: str = "hf", code: int = 2) -> None:
    name, options, file_name = LAYOUTS[layout]
    with nothing_left_in(directory):
        outcome = command(name, source, directory / file_name, *options, "--like", like)
    refused(outcome, like, *parts, code=code)


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_base_that_is_damaged_is_refused_by_name(layout: str, base: Path, dense: Path, tmp_path: Path) -> None:
    damaged = copy_of(base, tmp_path / "damaged")
    patch(damaged, SCALES, 320 * 6 + 6 + 5, b"\xff")
    is_refused(
        dense,
        damaged,
        tmp_path,
        SCALES,
        "to compare with is damaged",
        "layers.2.moe.up.weight, rows from 160 on",
        "row 0, block 5",
        layout=layout,
        code=1,
    )
