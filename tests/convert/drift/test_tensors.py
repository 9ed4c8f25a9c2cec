"""Depth `tensors`: what is equal is said to be equal, and how far, and what differs is measured and located."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import EMBEDDING, SCALES, Tensors, copy_of, patch, read_tensors
from drift_cases import ARITHMETIC_FAULTS, CONFIG_FAULTS, FILE_FAULTS, bf16, changed, compared, in_config, on, sentence
from experts import DOWN, GATE_UP, ExpertBlocks, read_blocks, store_blocks, written_by_known_rules
from numpy.typing import NDArray
from ways import Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.drift import pairs, slabs, stored_bytes
from gptoss_convert.convert.drift.results import Verdict
from gptoss_convert.convert.drift.tensors import compare_tensors
from gptoss_convert.convert.validation.faults import FAULTS
from gptoss_convert.formats.codecs.accelerate import NO_NUMBA_VARIABLE
from gptoss_convert.formats.errors import CodecError

BYTES, VALUES, DIFFERS = Verdict

# What a layout stores in another encoding than Hugging Face's, by role; all else has the same canonical bytes.
SMALL = {"norm", "attention bias", "router", "router bias", "expert bias", "sinks"}
OTHER_ENCODING: dict[tuple[str, ...], set[str]] = {
    ("original",): set(),
    ("original-shards",): set(),
    ("gguf",): SMALL,
    ("gguf-shards",): SMALL,
    ("ollama-legacy",): SMALL,
    ("mlx",): set(),
    ("metal",): set(),
    ("bf16",): {"experts"},
    ("gguf-bf16",): SMALL | {"experts"},
    ("gguf-f16",): SMALL | {"experts"},
    ("gguf-f32",): SMALL | {"experts", "attention", "embedding", "unembedding"},
    ("bf16", "hf"): set(),
    ("gguf", "hf"): set(),
}


# --- nothing differs ---


@pytest.mark.parametrize("steps", [(), *OTHER_ENCODING], ids=lambda steps: " to ".join(("hf", *steps)))
def test_drift_against_itself_is_exactly_zero(steps: tuple[str, ...], ways: Ways) -> None:
    found = compared(ways.path(*steps), ways.path(*steps))
    assert {one.verdict for one in found.tensors.values()} == {BYTES}
    totals = found.totals
    assert (totals.changed, totals.max_error, totals.worst_relative) == (0, 0, 0)
    assert math.isinf(totals.lowest_sqnr_db)


@pytest.mark.parametrize("steps", OTHER_ENCODING, ids=lambda steps: " to ".join(("hf", *steps)))
def test_lossless_conversion_is_byte_or_value_identical(steps: tuple[str, ...], ways: Ways) -> None:
    values = OTHER_ENCODING[steps]
    for pair in ((ways.start, ways.path(*steps)), (ways.path(*steps), ways.start)):
        found = compared(*pair)
        assert len(found.tensors) == 79
        by_role = {(one.role, one.verdict) for one in found.tensors.values()}
        assert {role for role, verdict in by_role if verdict is VALUES} == values
        assert {role for role, verdict in by_role if verdict is BYTES}.isdisjoint(values)
        assert not found.differing


def test_numpy_finds_what_numba_finds(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS["scales off by one"])
    before = compared(tiny, other)
    monkeypatch.setenv(NO_NUMBA_VARIABLE, "1")
    after = compared(tiny, other)
    for name, one in before.tensors.items():
        twin = after.tensors[name]
        assert (one.verdict, one.changed, one.max_error, one.packed) == (
            twin.verdict,
            twin.changed,
            twin.max_error,
            twin.packed,
        )
        assert one.sums.relative_error == pytest.approx(twin.sums.relative_error, rel=1e-12)


def test_other_bytes_of_the_same_values_are_told_from_other_values(tiny: Path, tmp_path: Path) -> None:
    """6, 4 and 2 steps of one scale are 3, 2 and 1 steps of the next, and zero has two signs."""

    def written(scale: int, codes: tuple[int, ...]) -> Path:
        def edit(tensors: Tensors) -> None:
            blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, DOWN.format(1))))
            blocks.codes[0, 0, 0], blocks.scales[0, 0, 0] = np.resize(codes, 32), scale
            store_blocks(tensors, DOWN.format(1), blocks)

        return changed(tiny, tmp_path / str(scale), edit)

    found = compared(written(120, (7, 14, 4, 8)), written(121, (5, 12, 2, 0))).tensors["layers.1.moe.down.weight"]
    assert (found.verdict, found.changed, found.max_error) == (VALUES, 0, 0)
    assert found.packed is not None
    assert (found.packed.changed, found.packed.signed_zeros, dict(found.packed.shifts)) == (1, 8, {1: 1})


# --- something differs ---

PLACE = (5, 101, 3, 17)  # expert, row of gate_up, block, element
CHANGED = "layers.1.moe.up.weight"  # row 101 of gate_up is row 50 of up


@pytest.fixture(scope="module")
def one_code(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One code of one block is 7, which is six steps; it was another."""

    def edit(tensors: Tensors) -> None:
        blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, GATE_UP.format(1))))
        blocks.codes[PLACE] = 7 if blocks.codes[PLACE] != 7 else 6
        store_blocks(tensors, GATE_UP.format(1), blocks)

    return changed(tiny, tmp_path_factory.mktemp("one code") / "tiny", edit)


def values_of(directory: Path) -> NDArray[np.float64]:
    """The values of `CHANGED`: [E, N, K]."""
    values = read_blocks(read_tensors(directory), GATE_UP.format(1)).values()[:, 1::2]
    return values.reshape(*values.shape[:2], -1)


@pytest.mark.parametrize("layout", ["hf", "gguf", "mlx", "bf16"])
def test_one_changed_code_is_located_whatever_the_layout(layout: str, tiny: Path, one_code: Path, ways: Ways) -> None:
    a = ways.start if layout == "hf" else ways.path(layout)
    (found,) = compared(a, one_code).differing
    expert, row, block, element = PLACE
    assert found.name == CHANGED
    assert (found.unit, found.changed, found.units) == ("block", 1, 8 * 160 * 6)
    spot = found.worst
    assert spot is not None
    assert (spot.expert, spot.row, spot.block, spot.column) == (expert, row // 2, block, 32 * block + element)
    assert spot.stored == f"{GATE_UP.format(1)}_blocks"
    place = (expert, row // 2, 32 * block + element)
    assert (spot.value_a, spot.value_b) == (values_of(tiny)[place], values_of(one_code)[place])


@pytest.mark.parametrize("layout", ["hf", "gguf", "bf16"])
def test_figures_of_a_tensor_are_those_of_float64_arithmetic(
    layout: str, tiny: Path, one_code: Path, ways: Ways
) -> None:
    a = ways.start if layout == "hf" else ways.path(layout)
    found = compared(a, one_code).tensors[CHANGED]
    before, after = values_of(tiny), values_of(one_code)
    relative = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert found.sums.relative_error == pytest.approx(relative, rel=1e-12)
    assert found.sums.sqnr_db == pytest.approx(-20 * math.log10(relative), rel=1e-12)
    assert found.sums.rms_error == pytest.approx(float(np.sqrt(np.mean((after - before) ** 2))), rel=1e-12)
    cosine = float((before * after).sum() / np.linalg.norm(before) / np.linalg.norm(after))
    assert found.sums.cosine == pytest.approx(cosine, rel=1e-12)
    assert found.max_error == np.abs(after - before).max()


def test_shifted_scales_are_counted_by_their_shift(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS["scales off by one"])
    found = compared(tiny, other)
    n_blocks = 4 * 8 * (320 * 6 + 192 * 5)
    assert found.shifts() == {1: n_blocks}
    for one in found.differing:
        assert one.packed is not None
        assert (one.packed.scale_only, one.sums.cosine) == (one.units, pytest.approx(1))
        assert one.sums.relative_error == pytest.approx(1)


def test_elements_of_dense_tensors_are_counted_one_by_one(tiny: Path, tmp_path: Path) -> None:
    name = "model.layers.2.self_attn.o_proj.weight"

    def three(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[[3, 50, 100], 7] *= 2
        return values

    (found,) = compared(tiny, changed(tiny, tmp_path / "other", on(name, three))).differing
    assert (found.name, found.unit, found.changed) == ("layers.2.attention.o.weight", "element", 3)
    assert found.worst is not None
    assert (found.worst.expert, found.worst.block, found.worst.column) == (None, None, 7)


def test_result_does_not_depend_on_the_order_of_threads(tiny: Path, one_code: Path) -> None:
    assert compared(tiny, one_code) == compared(tiny, one_code)


@pytest.mark.parametrize("layout", ["hf", "gguf", "mlx", "original", "bf16", "metal"])
def test_result_does_not_depend_on_the_size_of_slabs(
    layout: str, tiny: Path, one_code: Path, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small ones most slabs of the tensor are equal, and are measured on one side alone."""
    a = ways.start if layout == "hf" else ways.path(layout)
    before = compared(a, one_code)
    monkeypatch.setattr(pairs, "SLAB_BYTES", 3000)
    monkeypatch.setattr(slabs, "_CHUNK_ELEMENTS", 700)
    monkeypatch.setattr(stored_bytes, "_PIECE_BYTES", 1000)
    after = compared(a, one_code)
    for name, one in before.tensors.items():
        other = after.tensors[name]
        assert (one.verdict, one.changed, one.worst, one.packed) == (
            other.verdict,
            other.changed,
            other.worst,
            other.packed,
        )
        assert one.sums.elements == other.sums.elements
        assert one.sums.energy_a == pytest.approx(other.sums.energy_a, rel=1e-12)
        assert one.sums.cosine == pytest.approx(other.sums.cosine, rel=1e-12)


@pytest.mark.parametrize("name", ["hf", "gguf", "ollama-legacy", "bf16"])
def test_last_byte_of_a_file_counts_where_bytes_are_compared_as_they_come(
    name: str, ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_bytes, "_PIECE_BYTES", 1000)
    source = ways.start if name == "hf" else ways.path(name)
    other = tmp_path / source.name
    (shutil.copytree if source.is_dir() else shutil.copy)(source, other)
    checkpoint = open_checkpoint(other)
    last = max(checkpoint.arrays, key=lambda array: (array.file.name, array.offset))
    with last.file.open("r+b") as file:
        file.seek(last.offset + last.n_bytes - 2)
        file.write(b"\x11")
    assert len(compared(source, other).differing) == 1


def test_embedding_is_compared_as_far_as_both_have_it(ways: Ways) -> None:
    found = compared(ways.start, ways.path("metal"))
    left_out = {one.name: one.rows_left_out for one in found.tensors.values() if one.rows_left_out}
    assert left_out == {"embedding.weight": 16, "unembedding.weight": 16}


def test_rows_of_zeros_are_told_from_other_rows(ways: Ways) -> None:
    found = compared(ways.start, ways.path("metal", "hf"))
    assert [one.name for one in found.differing] == ["embedding.weight", "unembedding.weight"]
    for one in found.differing:
        assert one.rows is not None
        assert (one.rows.changed, one.rows.zero_in_a, one.rows.zero_in_b) == (16, 0, 16)


def test_requantized_experts_differ_in_values(tiny: Path, tmp_path: Path) -> None:
    found = compared(tiny, written_by_known_rules(tiny, tmp_path / "other"))
    assert found.differing
    assert {one.role for one in found.differing} == {"experts"}


# --- weights that are no numbers ---


@pytest.mark.parametrize("side", ["A", "B", "both"])
def test_infinity_is_refused_by_name_and_place(side: str, tiny: Path, tmp_path: Path) -> None:
    bad = copy_of(tiny, tmp_path / "bad")
    patch(bad, EMBEDDING, 2 * (5 * 192 + 7), (0x7F80).to_bytes(2, "little"))
    pair = {"A": (bad, tiny), "B": (tiny, bad), "both": (bad, bad)}[side]
    with pytest.raises(CodecError, match=r"embed_tokens.*not finite \(embedding.weight\[5\], column 7\)"):
        compared(*pair)


@pytest.mark.parametrize("side", ["A", "B", "both"])
def test_scale_that_is_no_number_is_refused_by_name_and_place(side: str, tiny: Path, tmp_path: Path) -> None:
    bad = copy_of(tiny, tmp_path / "bad")
    patch(bad, SCALES, 6 * 321, b"\xff")
    pair = {"A": (bad, tiny), "B": (tiny, bad), "both": (bad, bad)}[side]
    with pytest.raises(CodecError, match=r"gate_up_proj_scales.*\(layers.2.moe.up.weight\[1, 0\], block 0\)"):
        compared(*pair)


def test_negative_nan_is_no_number_either(tiny: Path, tmp_path: Path) -> None:
    bad = copy_of(tiny, tmp_path / "bad")
    patch(bad, EMBEDDING, 0, (0xFFC1).to_bytes(2, "little"))
    with pytest.raises(CodecError, match=r"not finite \(embedding.weight\[0\], column 0\)"):
        compared(bad, bad)


# --- faults ---


def test_every_fault_is_one_of_a_file_of_a_config_or_of_arithmetic() -> None:
    kinds = (*FILE_FAULTS, *CONFIG_FAULTS, *ARITHMETIC_FAULTS)
    assert sorted(kinds) == sorted(fault.name for fault in FAULTS)


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_fault_in_the_weights_of_a_file_is_caught(fault: str, tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS[fault])
    found = compare_tensors(open_checkpoint(tiny), open_checkpoint(other))
    assert found.differing
    assert not any(word in sentence(tiny, other) for word in ("Same weights", "Same bytes", "decode of the same"))


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_fault_in_the_config_of_a_file_is_caught(fault: str, tiny: Path, tmp_path: Path) -> None:
    key, change = CONFIG_FAULTS[fault]
    other = copy_of(tiny, tmp_path / "other")
    in_config(key, change)(other)
    assert f"their configs differ in {key}" in sentence(tiny, other)


def test_fault_is_caught_in_another_layout_too(tiny: Path, tmp_path: Path, ways: Ways) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS["one bit of one block flipped"])
    (found,) = compared(ways.path("gguf"), other).differing
    assert found.name == "layers.0.moe.gate.weight"


def test_demo_has_biases_to_drop(tiny: Path) -> None:
    tensors = read_tensors(tiny)
    assert all(bf16(one).any() for name, one in tensors.items() if name.endswith("bias"))
