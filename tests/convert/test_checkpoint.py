"""Checkpoints: recognised by content, bound by a table, and every stored byte belongs to exactly one tensor."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import ROUTER, Tensor, copy_of, edit_json, edit_tensors, read_tensors
from command_line import command
from hypothesis import given
from hypothesis import strategies as st

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.stored import RowSpan, StoredArray, StoredTensor, account
from gptoss_convert.formats.codecs.encoding import BF16, Encoding
from gptoss_convert.formats.errors import CheckpointError, VerificationError
from gptoss_convert.model.inventory import CanonicalTensor
from gptoss_convert.model.layouts import gguf, hf
from gptoss_convert.model.layouts.table import Rows

# --- recognised by content ---


def test_directory_is_opened_as_the_hf_layout(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    assert checkpoint.layout == "hf"
    assert checkpoint.n_parameters == 3_725_808
    assert checkpoint.n_bytes == checkpoint.account() == 3_120_096


def test_gguf_is_opened_whatever_its_name(tiny_gguf: Path, tmp_path: Path) -> None:
    path = shutil.copy(tiny_gguf, tmp_path / "model.bin")
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.layout == "gguf"
    assert checkpoint.n_bytes == checkpoint.account() == 3_174_336


def test_both_layouts_hold_the_same_tensors(tiny: Path, tiny_gguf: Path) -> None:
    from_hf, from_gguf = open_checkpoint(tiny), open_checkpoint(tiny_gguf)
    assert [stored.tensor for stored in from_hf.tensors.values()] == [
        stored.tensor for stored in from_gguf.tensors.values()
    ]


def test_config_read_from_a_gguf_is_the_original(tiny: Path, tiny_gguf: Path) -> None:
    assert open_checkpoint(tiny_gguf).config == open_checkpoint(tiny).config


def test_split_gguf_is_opened_from_its_first_shard(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    assert command("to-gguf", tiny, tmp_path / "tiny.gguf", "--split-max-size", "1M", "--quiet").code == 0
    checkpoint = open_checkpoint(tmp_path / "tiny-00001-of-00004.gguf")
    assert len(checkpoint.files) == 4
    assert checkpoint.n_bytes == open_checkpoint(tiny_gguf).n_bytes


def test_checkpoint_in_one_file_without_index_is_opened(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")

    def into_one(tensors: dict[str, Tensor]) -> None:
        for tensor in tensors.values():
            tensor.shard = "model.safetensors"

    edit_tensors(checkpoint, into_one)
    (checkpoint / "model.safetensors.index.json").unlink()
    assert open_checkpoint(checkpoint).n_parameters == 3_725_808


def test_float_encodings_of_a_fine_tune_are_seen_as_they_are(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")

    def widen(tensors: dict[str, Tensor]) -> None:
        tensor = tensors[ROUTER]
        wide = np.frombuffer(tensor.data, np.uint16).astype(np.uint32) << 16
        tensor.dtype, tensor.data = "F32", wide.tobytes()

    edit_tensors(checkpoint, widen)
    assert open_checkpoint(checkpoint).tensors["layers.0.moe.router.weight"].encoding.name == "F32"


def test_unknown_config_keys_are_carried_along(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    edit_json(checkpoint / "config.json", lambda config: config.update(trained_by="us"))
    assert open_checkpoint(checkpoint).config.raw["trained_by"] == "us"


# --- every byte belongs to exactly one tensor ---


@pytest.mark.parametrize("source", ["hf", "gguf"])
def test_spans_say_where_the_bytes_are(source: str, tiny: Path, tiny_gguf: Path) -> None:
    """The stored rows of gate, up and down, read by the spans, are those of the HF arrays, sliced by hand."""
    checkpoint = open_checkpoint(tiny if source == "hf" else tiny_gguf)
    biases = {name: stored_values(checkpoint.tensors[f"layers.1.moe.{name}.bias"]) for name in ("gate", "up", "down")}
    tensors = read_tensors(tiny)

    def bf16(name: str) -> np.ndarray:
        tensor = tensors[f"model.layers.1.mlp.experts.{name}_bias"]
        wide = np.frombuffer(tensor.data, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(tensor.shape)

    gate_up = bf16("gate_up_proj")
    expected = {"gate": gate_up[:, 0::2], "up": gate_up[:, 1::2], "down": bf16("down_proj")}
    for name, values in expected.items():
        np.testing.assert_array_equal(biases[name].reshape(values.shape), values)


def stored_values(stored: StoredTensor) -> np.ndarray:
    """The values of a BF16 or F32 tensor, read row by row."""
    (span,) = stored.spans
    content = span.array.file.read_bytes()
    rows = b"".join(content[slice(*span.interval(row, row + 1)[1:])] for row in range(stored.tensor.rows))
    if stored.encoding.name == "F32":
        return np.frombuffer(rows, np.float32)
    return (np.frombuffer(rows, np.uint16).astype(np.uint32) << 16).view(np.float32)


def with_table(
    monkeypatch: pytest.MonkeyPatch, module: object, changes: Mapping[str, Rows | None], path: Path
) -> Checkpoint:
    """The checkpoint at `path`, opened with another table."""
    table = {**module.TABLE, **changes}  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "TABLE", table)
    return open_checkpoint(path)


UP = "layers.{layer}.moe.up.weight"
GATE_UP = "model.layers.{layer}.mlp.experts.gate_up_proj_{part}"


def test_rows_used_twice_by_a_wrong_table_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = with_table(monkeypatch, hf, {UP: Rows(GATE_UP, first=0, step=2)}, tiny)
    with pytest.raises(VerificationError, match=r"gate_up_proj_blocks': 2560 rows are not used exactly once") as caught:
        checkpoint.account()
    assert caught.value.expected == "each of 2560 rows once"
    assert caught.value.found == "row 0 used 2 times"


def test_rows_used_by_nobody_are_refused(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    tensors = {name: stored for name, stored in checkpoint.tensors.items() if name != "layers.2.moe.up.weight"}
    with pytest.raises(VerificationError, match=r"layers\.2\..*gate_up_proj_blocks.*found row 1 used 0 times"):
        replace(checkpoint, tensors=tensors).account()


def test_array_used_by_nobody_is_refused(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    tensors = {name: stored for name, stored in checkpoint.tensors.items() if name != "norm.weight"}
    with pytest.raises(VerificationError, match=r"'model\.norm\.weight'.*used 0 times"):
        replace(checkpoint, tensors=tensors).account()


def test_array_that_no_file_holds_is_refused(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    with pytest.raises(VerificationError, match="a tensor is used that the file does not hold"):
        replace(checkpoint, arrays=checkpoint.arrays[1:]).account()


def test_table_that_maps_two_tensors_to_one_is_refused(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = "blk.{layer}.ffn_gate_exps.weight"
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up_exps\.weight.*stored twice"):
        with_table(monkeypatch, gguf, {UP: Rows(gate)}, tiny_gguf)


# --- the accounting itself ---

ELEMENT: Encoding = BF16
FILE = Path("file")


def an_array(rows: int, name: str = "a") -> StoredArray:
    return StoredArray(FILE, name, "BF16", (rows,), 0, rows * 2)


def a_tensor(array: StoredArray, rows: int, first: int = 0, step: int = 1) -> StoredTensor:
    span = RowSpan((array,), first, step, 2, rows, array.shape[0])
    return StoredTensor(CanonicalTensor("t.bias", "norm", (rows,)), ELEMENT, (span,))


@given(st.integers(1, 7), st.integers(1, 50))
def test_interleaved_tensors_that_share_an_array_are_accepted(step: int, rows: int) -> None:
    array = an_array(step * rows)
    assert account([array], [a_tensor(array, rows, first, step) for first in range(step)]) == array.n_bytes


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_tensors_one_after_another_are_accepted(counts: list[int]) -> None:
    array = an_array(sum(counts))
    firsts = [sum(counts[:number]) for number in range(len(counts))]
    assert account([array], [a_tensor(array, *pair) for pair in zip(counts, firsts, strict=True)]) == array.n_bytes


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([], "row 0 used 0 times"),
        ([(9, 0, 1)], "row 9 used 0 times"),
        ([(9, 1, 1)], "row 0 used 0 times"),
        ([(10, 0, 1), (10, 0, 1)], "row 0 used 2 times"),
        ([(6, 0, 1), (5, 5, 1)], "row 5 used 2 times"),
        ([(5, 0, 2), (4, 1, 2)], "row 9 used 0 times"),
        ([(11, 0, 1)], "rows are used that the tensor does not have"),
        ([(5, 1, 2), (5, 2, 2)], "rows are used that the tensor does not have"),
    ],
)
def test_rows_not_used_exactly_once_are_refused(claims: list[tuple[int, int, int]], message: str) -> None:
    array = an_array(10)
    with pytest.raises(VerificationError, match=message):
        account([array], [a_tensor(array, *claim) for claim in claims])


def test_bytes_left_over_behind_the_last_row_are_refused() -> None:
    array = replace(an_array(10), n_bytes=21)
    with pytest.raises(VerificationError, match="bytes left over"):
        account([array], [a_tensor(array, 10)])


def test_rows_of_another_length_are_refused() -> None:
    array = an_array(10)
    wide = replace(a_tensor(array, 5), spans=(RowSpan((array,), 0, 1, 4, 5, 5),))
    with pytest.raises(VerificationError):
        account([array], [wide, a_tensor(array, 10)])
