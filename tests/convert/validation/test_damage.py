"""A damaged file fails, and the message names tensor, expert, row and block, whatever the layout."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import copy_of, edit_json, patch, read_tensors
from command_line import Outcome, command, refused
from gguf_faults import Tensors
from hollow import Entries, hollow
from ways import Ways

from gptoss_convert.formats.containers.gguf_reader import read_gguf

N_EXPERTS, HIDDEN, INNER = 8, 192, 160
LAYER, EXPERT, ROW, BLOCK, BYTE = 2, 3, 7, 4, 5
# What the low nibble of byte 5 of a block is: an element of 32, by the order of nibbles.
IN_TURN, IN_HALVES = 10, 5
HF_EXPERTS = f"model.layers.{LAYER}.mlp.experts"


@dataclass(frozen=True)
class Place:
    """Where a layout keeps byte 5 of block 4 of row 7 of expert 3, and which element its low nibble is."""

    tensor: str
    offset: int
    element: int


def block_offset(row: int, n_rows: int, cols: int, block_bytes: int) -> int:
    return ((EXPERT * n_rows + row) * (cols // 32) + BLOCK) * block_bytes


def gguf_place(projection: str, n_rows: int, cols: int) -> Place:
    offset = block_offset(ROW, n_rows, cols, 17) + 1 + BYTE
    return Place(f"blk.{LAYER}.ffn_{projection}_exps.weight", offset, IN_HALVES)


def mlx_place(projection: str, n_rows: int, cols: int) -> Place:
    return Place(f"{HF_EXPERTS}.{projection}_proj.weight", block_offset(ROW, n_rows, cols, 16) + BYTE, IN_TURN)


def hf_gate_up(first: int) -> Place:
    offset = block_offset(2 * ROW + first, 2 * INNER, HIDDEN, 16) + BYTE
    return Place(f"{HF_EXPERTS}.gate_up_proj_blocks", offset, IN_TURN)


SHAPES = {"gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}
PLACES: dict[str, dict[str, Place]] = {
    "hf": {
        "gate": hf_gate_up(0),
        "up": hf_gate_up(1),
        "down": Place(f"{HF_EXPERTS}.down_proj_blocks", block_offset(ROW, HIDDEN, INNER, 16) + BYTE, IN_TURN),
    },
    "gguf": {name: gguf_place(name, *shape) for name, shape in SHAPES.items()},
    "mlx": {name: mlx_place(name, *shape) for name, shape in SHAPES.items()},
}


@pytest.fixture(scope="module")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    torch.set_num_threads(1)
    return Ways(tiny, tmp_path_factory.mktemp("ways"))


def changed(source: Path, out: Path, tensor: str, offset: int, change: Any) -> Path:
    """A copy at `out` in which one byte of the stored tensor is `change` of what it was."""
    if source.is_file():
        shutil.copyfile(source, out)
        data = Tensors(read_gguf(out)).bytes_of(tensor)
        data[offset] = change(int(data[offset]))
        data.base.flush()
        return out
    byte = read_tensors(copy_of(source, out))[tensor].data[offset]
    patch(out, tensor, offset, bytes([change(byte)]))
    return out


def layer_of(outcome: Outcome, number: int) -> dict[str, Any]:
    stages = next(layer for layer in outcome.json["layers"] if layer["layer"] == number)["stages"]
    assert isinstance(stages, dict)
    return stages


@pytest.mark.parametrize("projection", SHAPES)
@pytest.mark.parametrize("layout", PLACES)
def test_one_flipped_bit_is_found_in_its_block(layout: str, projection: str, ways: Ways, tmp_path: Path) -> None:
    source, place = ways.path(*(() if layout == "hf" else (layout,))), PLACES[layout][projection]
    damaged = changed(source, tmp_path / source.name, place.tensor, place.offset, lambda byte: byte ^ 2)
    outcome = command("validate", ways.start, damaged, "--layers", LAYER, "--device", "cpu", "--json")
    assert outcome.code == 1
    stages = layer_of(outcome, LAYER)
    found = stages[projection]["cause"]["difference"]
    n_rows, cols = SHAPES[projection]
    assert (
        found
        | {
            "tensor": f"layers.{LAYER}.moe.{projection}.weight",
            "expert": EXPERT,
            "row": ROW,
            "block": BLOCK,
            "column": 32 * BLOCK + place.element,
            "differing": [1, n_rows * cols // 32],
            "stored": place.tensor,
        }
        == found
    )
    assert Path(found["file"]).is_relative_to(damaged)
    others = [stage for stage, one in stages.items() if one["excess"] > 1 and stage != projection]
    assert all(stages[stage]["cause"].get("follows") for stage in others)
    off = [int(expert) for expert, error in stages[projection]["by_expert"].items() if error > 1e-5]
    assert off == [EXPERT]


def test_the_message_says_where_in_one_line(ways: Ways, tmp_path: Path) -> None:
    place = PLACES["gguf"]["down"]
    damaged = changed(ways.path("gguf"), tmp_path / "bad.gguf", place.tensor, place.offset, lambda byte: byte ^ 2)
    outcome = command("validate", ways.start, damaged, "--layers", LAYER, "--device", "cpu")
    assert outcome.code == 1
    assert "NOT VALID: 2 of 10 stages are farther apart than rounding explains" in outcome.out
    where = f"layers.{LAYER}.moe.down.weight, expert {EXPERT}, row {ROW}, block {BLOCK} (column {32 * BLOCK + 5}): "
    line = next(line for line in outcome.out.splitlines() if where in line)
    assert line.endswith(f"1 of 960 blocks there differ, stored as '{place.tensor}' in {damaged}")
    assert f"1 of {N_EXPERTS} experts are off: {EXPERT} (" in outcome.out


def test_a_scale_off_by_one_is_called_that(ways: Ways, tmp_path: Path) -> None:
    offset = block_offset(2 * ROW + 1, 2 * INNER, HIDDEN, 1)
    name = f"{HF_EXPERTS}.gate_up_proj_scales"
    damaged = changed(ways.start, tmp_path / "bad", name, offset, lambda byte: byte + 1)
    outcome = command("validate", ways.start, damaged, "--layers", LAYER, "--device", "cpu", "--json")
    found = layer_of(outcome, LAYER)["up"]["cause"]["difference"]
    assert (found["expert"], found["row"], found["block"], found["factor"]) == (EXPERT, ROW, BLOCK, 2)
    assert (found["stored"], outcome.code) == (name, 1)


@pytest.mark.parametrize(
    ("tensor", "row", "column", "name", "stage"),
    [
        ("self_attn.o_proj.weight", 5, 9, "attention.o.weight", "attention"),
        ("self_attn.k_proj.bias", 11, None, "attention.k.bias", "attention"),
        ("mlp.router.weight", 3, 100, "moe.router.weight", "router"),
        ("post_attention_layernorm.weight", 20, None, "moe.norm.weight", "router"),
        ("mlp.experts.down_proj_bias", 4, None, "moe.down.bias", "down"),
    ],
)
def test_a_large_change_of_a_float_is_found_at_its_element(
    tensor: str, row: int, column: int | None, name: str, stage: str, ways: Ways, tmp_path: Path
) -> None:
    stored = f"model.layers.{LAYER}.{tensor}"
    width = {"self_attn.o_proj.weight": 256, "mlp.router.weight": HIDDEN}.get(tensor, 1)
    offset = 2 * (row * width + (column or 0)) + 1
    damaged = changed(ways.start, tmp_path / "bad", stored, offset, lambda byte: byte ^ 0x80)  # its sign
    outcome = command("validate", ways.start, damaged, "--layers", LAYER, "--device", "cpu", "--json")
    found = layer_of(outcome, LAYER)[stage]["cause"]["difference"]
    at = {"expert": 0, "row": row} if tensor.startswith("mlp.experts") else {"row": row}
    at |= {} if column is None else {"column": column}
    assert found | at | {"tensor": f"layers.{LAYER}.{name}", "stored": stored} == found
    assert found["found"] == -found["expected"]
    assert outcome.code == 1


def test_a_row_of_the_unembedding_is_found(ways: Ways, tmp_path: Path) -> None:
    damaged = changed(ways.start, tmp_path / "bad", "lm_head.weight", 2 * (333 * HIDDEN + 7) + 1, lambda b: b ^ 0x80)
    outcome = command("validate", ways.start, damaged, "--layers", 3, "--device", "cpu", "--json")
    found = outcome.json["logits"]["cause"]["difference"]
    assert (found["tensor"], found["row"], found["column"]) == ("unembedding.weight", 333, 7)


def test_a_row_of_the_embedding_that_no_token_has_is_not_seen(ways: Ways, tmp_path: Path) -> None:
    """As docs/validate.md says: digests see it."""
    offset = 2 * (410 * HIDDEN + 7) + 1
    damaged = changed(ways.start, tmp_path / "bad", "model.embed_tokens.weight", offset, lambda byte: byte ^ 0x80)
    assert command("validate", ways.start, damaged, "--layers", 0, "--device", "cpu", "--quiet").code == 0


# --- numbers that are none ---------------------------------------------------------------------------------------


def test_a_scale_that_is_nan_is_named(ways: Ways, tmp_path: Path) -> None:
    name = f"{HF_EXPERTS}.gate_up_proj_scales"
    offset = block_offset(2 * ROW, 2 * INNER, HIDDEN, 1)
    damaged = changed(ways.start, tmp_path / "bad", name, offset, lambda _: 255)
    outcome = command("validate", damaged, "--layers", LAYER, "--device", "cpu")
    where = f"the scale of a block is not a number (layers.{LAYER}.moe.gate.weight[{EXPERT}, {ROW}], block {BLOCK})"
    refused(outcome, name, where, "expected a scale byte of 0 to 254; found 255", "get the weights again")


def test_a_scale_that_is_nan_in_the_other_checkpoint_is_named(ways: Ways, tmp_path: Path) -> None:
    place = PLACES["gguf"]["up"]
    damaged = changed(ways.path("gguf"), tmp_path / "bad.gguf", place.tensor, place.offset - 1 - BYTE, lambda _: 255)
    outcome = command("validate", ways.start, damaged, "--layers", LAYER, "--device", "cpu")
    refused(outcome, damaged, place.tensor, f"layers.{LAYER}.moe.up.weight[{EXPERT}, {ROW}], block {BLOCK}")


def test_a_norm_that_is_nan_is_named(ways: Ways, tmp_path: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"
    patch(copy_of(ways.start, tmp_path / "bad"), name, 2 * 5, np.array([0x7FC0], "<u2").tobytes())
    outcome = command("validate", tmp_path / "bad", "--device", "cpu")
    refused(outcome, name, "a value is not finite (layers.1.attention.norm.weight[5])", "found NaN or infinity")


def test_damage_is_an_object_with_json(ways: Ways, tmp_path: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"
    patch(copy_of(ways.start, tmp_path / "bad"), name, 0, np.array([0x7F80], "<u2").tobytes())
    outcome = command("validate", tmp_path / "bad", "--device", "cpu", "--json")
    assert outcome.code == 1
    assert (outcome.json["error"]["kind"], outcome.json["error"]["tensor"]) == ("CodecError", name)


# --- encodings that are not read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["IQ4_XS", "TQ1_0", "IQ2_XXS"])
def test_a_ggml_type_that_is_not_read_is_refused_by_name(encoding: str, ways: Ways, tmp_path: Path) -> None:
    def change(entries: Entries) -> None:
        entries["blk.1.attn_output.weight"].dtype = encoding

    refused(
        command("validate", hollow(ways.path("gguf"), tmp_path / "out", change)), "blk.1.attn_output.weight", encoding
    )


@pytest.mark.parametrize(("method", "name"), [("gptq", "GPTQ"), ("awq", "AWQ"), ("modelopt", "ModelOpt")])
def test_a_quantizer_that_is_not_read_is_refused_by_name(method: str, name: str, ways: Ways, tmp_path: Path) -> None:
    directory = copy_of(ways.start, tmp_path / "out")
    edit_json(directory / "config.json", lambda config: config.update(quantization_config={"quant_method": method}))
    refused(command("validate", directory), name)
