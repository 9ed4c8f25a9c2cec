"""MXFP4 → floats → MXFP4 through the commands: what comes back the same, and the rules by which the rest is rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import Tensors, copy_of, nothing_left_in, read_tensors
from command_line import Outcome, command, refused
from conversions import LAYOUTS, contents, converted, in_layout
from experts import (
    DOWN,
    GATE_UP,
    HAND_MADE,
    LOWER,
    WRITERS,
    Array,
    ExpertBlocks,
    change_floats,
    encoded,
    read_blocks,
    read_floats,
    stems,
    with_hard_values,
    written_by_known_rules,
)
from mxfp4_reference import FLOATS, KINDS, exact_exponents, nearest_codes

from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.run import run

# --- there and back ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_by_known_rules(tiny, tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture(scope="module")
def written_bf16(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted("to-bf16", written, tmp_path_factory.mktemp("bf16") / "tiny")


@pytest.fixture(scope="module")
def source(written: Path) -> Tensors:
    return read_tensors(written)


@pytest.fixture(scope="module")
def back(written_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return read_tensors(converted("to-mxfp4", written_bf16, tmp_path_factory.mktemp("back") / "tiny"))


def largest(blocks: ExpertBlocks) -> Array:
    """The largest code but for its sign, [E, N, G]."""
    top: Array = (blocks.codes & 7).max(axis=-1)
    return top


def has_a_choice(blocks: ExpertBlocks) -> Array:
    """Blocks with 6 steps, none of 0.5 and 1.5, are as well ones with 3 steps; those with 3 ones with 6: [E, N, G]."""
    halves = np.isin(blocks.codes & 7, [1, 3]).any(axis=-1)
    choice: Array = (largest(blocks) == 7) & ~halves | (largest(blocks) == 5)
    return choice


def test_mxfp4_to_bf16_and_back_is_value_identical(source: Tensors, back: Tensors) -> None:
    assert stems(back) == stems(source)
    for stem in stems(source):
        assert read_blocks(back, stem).values().tobytes() == read_blocks(source, stem).values().tobytes(), stem


def test_mxfp4_to_bf16_and_back_is_byte_identical_but_for_blocks_with_a_choice(source: Tensors, back: Tensors) -> None:
    for stem in stems(source):
        before = read_blocks(source, stem)
        only = ~has_a_choice(before) & (largest(before) > 5)
        assert only.mean() > (0.7 if "ceil" in writers(stem) else 0.998)
        assert before.same_bytes(read_blocks(back, stem))[only].all(), stem


def writers(stem: str) -> list[str]:
    return [rule for written, _, rule in WRITERS if written == stem]


@pytest.mark.parametrize(("stem", "rows", "rule"), WRITERS)
def test_blocks_with_a_choice_get_the_exponent_that_their_writer_gave_the_others(
    stem: str, rows: slice, rule: str, source: Tensors, back: Tensors
) -> None:
    before, after = (ExpertBlocks(*(part[:, rows] for part in read_blocks(of, stem))) for of in (source, back))
    differ = ~before.same_bytes(after)
    if rule != "ceil":
        assert not differ.any()
        return
    assert has_a_choice(before).mean() > 0.2
    assert np.array_equal(differ, has_a_choice(before) & (largest(before) == 7))
    assert np.array_equal(before.codes[0, 0, 0], np.resize(LOWER, 32))
    assert differ[0, 0, 0]
    assert differ.mean() < 1e-3


@pytest.mark.parametrize("name", HAND_MADE)
def test_block_comes_back_with_the_lowest_exponent_that_holds_it(name: str, source: Tensors, back: Tensors) -> None:
    number = list(HAND_MADE).index(name)
    before, after = (read_blocks(tensors, DOWN.format(3)) for tensors in (source, back))
    row, group = divmod(number, before.scales.shape[2])
    codes, scale, expected_codes, expected_scale = HAND_MADE[name]
    assert before.scales[0, row, group] == scale
    assert before.codes[0, row, group].tolist() == np.resize(codes, 32).tolist()
    assert after.scales[0, row, group] == expected_scale
    assert after.codes[0, row, group].tolist() == np.resize(expected_codes, 32).tolist()


def test_tensors_outside_the_experts_come_back_byte_identical(source: Tensors, back: Tensors) -> None:
    def others(tensors: Tensors) -> dict[str, bytes]:
        return {name: tensor.data for name, tensor in tensors.items() if not name.endswith(("_blocks", "_scales"))}

    assert len(others(source)) == 63
    assert others(back) == others(source)


def test_blocks_that_are_exact_are_counted(source: Tensors, written_bf16: Path, tmp_path: Path) -> None:
    quantized = command("to-mxfp4", written_bf16, tmp_path / "out", "--json").json["quantized"]
    n_blocks = sum(read_blocks(source, stem).scales.size for stem in stems(source))
    assert (quantized["blocks"], quantized["blocks_exact"]) == (n_blocks, n_blocks)
    assert (quantized["blocks_requantized"], quantized["relative_mse"]) == (0, 0)


@pytest.mark.parametrize("experts", ["bf16", "f32"])
def test_gguf_with_experts_that_are_floats_gives_the_same_directory(
    experts: str, written: Path, written_bf16: Path, tmp_path: Path
) -> None:
    gguf = converted("to-gguf", written, tmp_path / "tiny.gguf", "--experts", experts)
    from_gguf, from_bf16 = (in_layout("hf", path, tmp_path / path.parent.name) for path in (gguf, written_bf16))
    assert contents(from_gguf) == contents(from_bf16)


# --- rules -------------------------------------------------------------------------------------------------------

HARD = len(KINDS)  # experts of `with_hard_values`; the others are exact


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, as BF16."""
    directory = tmp_path_factory.mktemp("dense")
    run(plan_demo(directory / "demo", layers=1), prove=False)
    return converted("to-bf16", directory / "demo", directory / "tiny")


@pytest.fixture(scope="module")
def trained(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By encoding, directories with experts that MXFP4 cannot hold, and some that it can."""
    return {
        encoding: with_hard_values(dense, tmp_path_factory.mktemp(encoding) / "tiny", encoding) for encoding in FLOATS
    }


@pytest.fixture(scope="module")
def quantized(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `to-mxfp4` makes of them."""
    return {name: in_layout("hf", path, tmp_path_factory.mktemp(f"quantized-{name}")) for name, path in trained.items()}


def exact_first(values: Array) -> tuple[ExpertBlocks, Array]:
    """What the default rule makes of values [E, N, G, 32], and which blocks it keeps, [E, N, G]."""
    flat, rounded = values.reshape(-1, 32), encoded(values, "even")
    exact, lowest, _ = exact_exponents(flat)
    exponent = np.where(exact, lowest, rounded.exponents.reshape(-1))
    codes = nearest_codes(flat, exponent).reshape(values.shape)
    scales = (exponent + 127).astype(np.uint8).reshape(values.shape[:-1])
    return ExpertBlocks(codes, scales), exact.reshape(scales.shape)


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
@pytest.mark.parametrize("encoding", FLOATS)
def test_whole_files_are_what_the_reference_gives(
    rule: str, encoding: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    out = converted("to-mxfp4", trained[encoding], tmp_path / "out", "--scale-rule", rule)
    before, after = read_tensors(trained[encoding]), read_tensors(out)
    for stem in stems(before):
        expected = encoded(read_floats(before, stem), rule)
        assert expected.same_bytes(read_blocks(after, stem)).all(), stem


@pytest.mark.parametrize("encoding", FLOATS)
def test_blocks_that_are_not_exact_are_rounded_by_the_rule_even(
    encoding: str, trained: dict[str, Path], quantized: dict[str, Path]
) -> None:
    before, after = read_tensors(trained[encoding]), read_tensors(quantized[encoding])
    for stem in stems(before):
        values, found = read_floats(before, stem), read_blocks(after, stem)
        expected, exact = exact_first(values[:HARD])
        assert (~exact[[0, 2, 3]]).mean() > 0.9
        assert expected.same_bytes(ExpertBlocks(found.codes[:HARD], found.scales[:HARD])).all(), stem
        assert found.values()[HARD:].tobytes() == values[HARD:].tobytes(), stem


@pytest.mark.parametrize("encoding", FLOATS)
def test_requantized_blocks_and_their_error_are_told(encoding: str, trained: dict[str, Path], tmp_path: Path) -> None:
    report = command("to-mxfp4", trained[encoding], tmp_path / "out", "--json").json["quantized"]
    before = read_tensors(trained[encoding])
    n_exact, n_blocks, error, total = 0, 0, 0.0, 0.0
    for stem in stems(before):
        values = read_floats(before, stem)
        hard, (blocks, exact) = values[:HARD], exact_first(values[:HARD])
        n_exact += int(exact.sum()) + values[HARD:, ..., 0].size
        n_blocks += values[..., 0].size
        error += float(np.square(hard - blocks.values())[~exact].sum())
        total += float(np.square(hard)[~exact].sum())
    assert (report["blocks"], report["blocks_exact"]) == (n_blocks, n_exact)
    assert report["blocks_requantized"] == n_blocks - n_exact
    assert report["relative_mse"] == pytest.approx(error / total, rel=1e-6)


# Metal adds 14 to each scale, so those of the largest BF16 have no place there.
OTHERS = [("original", "BF16"), ("mlx", "BF16"), ("gguf", "BF16"), ("metal", "F16")]


@pytest.mark.parametrize("rule", ["exact", "floor", "ceil", "even"])
@pytest.mark.parametrize(("layout", "encoding"), OTHERS)
def test_packed_experts_are_the_same_in_every_layout(
    layout: str, encoding: str, rule: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    at_once = in_layout(layout, trained[encoding], tmp_path / "at-once", "--scale-rule", rule)
    hf = in_layout("hf", trained[encoding], tmp_path / "hf", "--scale-rule", rule)
    assert contents(at_once) == contents(in_layout(layout, hf, tmp_path / "repacked"))


def test_scale_that_metal_cannot_hold_is_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    with nothing_left_in(tmp_path):
        outcome = command("to-metal", trained["BF16"], tmp_path / "out.bin")
    refused(outcome, trained["BF16"], GATE_UP.format(0), "cannot be shifted by 14", "expected 0 to 240")


@pytest.mark.parametrize("encoding", FLOATS)
def test_gguf_with_experts_that_are_floats_is_quantized_alike(
    encoding: str, trained: dict[str, Path], quantized: dict[str, Path], tmp_path: Path
) -> None:
    gguf = converted("to-gguf", trained[encoding], tmp_path / "tiny.gguf", "--experts", encoding.lower())
    out = in_layout("hf", gguf, tmp_path / "back")
    assert contents(out) == contents(quantized[encoding])


# --- values that are refused -------------------------------------------------------------------------------------

GATE_UP_0, DOWN_0 = GATE_UP.format(0), DOWN.format(0)


def refused_with(value: float, place: tuple[int, ...], stem: str, layout: str, dense: Path, directory: Path) -> Outcome:
    """The command on experts with one other value fails and leaves nothing."""
    source = copy_of(dense, directory / "source")
    change_floats(source, stem, lambda values: values.__setitem__(place, value))
    name, options, file_name = LAYOUTS[layout]
    with nothing_left_in(directory):
        return command(name, source, directory / f"out-{file_name}", *options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_value_that_is_not_finite_is_refused_in_every_layout(
    value: float, layout: str, dense: Path, tmp_path: Path
) -> None:
    outcome = refused_with(value, (1, 7, 2, 5), GATE_UP_0, layout, dense, tmp_path)
    where = "layers.0.moe.up.weight[1, 3], column 69"
    refused(outcome, tmp_path / "source" / "model.safetensors", GATE_UP_0, "a value is not finite", where)


@pytest.mark.parametrize("expert", range(8))
def test_value_that_is_not_finite_is_refused_in_every_expert(expert: int, dense: Path, tmp_path: Path) -> None:
    outcome = refused_with(np.nan, (expert, 191, 4, 31), DOWN_0, "hf", dense, tmp_path)
    refused(outcome, DOWN_0, "a value is not finite", f"layers.0.moe.down.weight[{expert}, 191], column 159")


@pytest.mark.parametrize("expert", range(8))
def test_value_that_the_rule_even_rounds_beyond_all_floats_is_refused(expert: int, dense: Path, tmp_path: Path) -> None:
    outcome = refused_with(1.75 * 2.0**127, (expert, 1, 2, 3), DOWN_0, "hf", dense, tmp_path)
    where = f"(layers.0.moe.down.weight, rows from {192 * expert} on): row 1, block 2, element 3"
    refused(outcome, DOWN_0, where, "rounded to 2^128", "Choose the scale rule floor, which clips")


def test_value_that_the_rule_even_refuses_is_clipped_by_the_rule_floor(dense: Path, tmp_path: Path) -> None:
    source = copy_of(dense, tmp_path / "source")
    change_floats(source, DOWN_0, lambda values: values.__setitem__((0, 1, 2, 3), -1.75 * 2.0**127))
    out = converted("to-mxfp4", source, tmp_path / "out", "--scale-rule", "floor")
    assert read_blocks(read_tensors(out), DOWN_0).values()[0, 1, 2, 3] == -1.5 * 2.0**127
