"""The proof of floats that became MXFP4 fails for every way to write them wrong, exact or requantized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import copy_of, nothing_left_in
from command_line import command, refused
from conversions import LAYOUTS, converted
from experts import DOWN, GATE_UP, Array, change_floats

from gptoss_convert.convert import run as run_module
from gptoss_convert.convert.manifest import Manifest, Verdict
from gptoss_convert.convert.verify import verify
from gptoss_convert.formats.codecs import mxfp4_encode
from gptoss_convert.formats.codecs.mxfp4 import Mxfp4

EXACT, REQUANTIZED = "layers.0.moe.down.weight", "layers.1.moe.up.weight"
DIGESTS = "every tensor's digest equals the source's"


@pytest.fixture(scope="module")
def dense(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted("to-bf16", tiny, tmp_path_factory.mktemp("dense") / "tiny")


@pytest.fixture(scope="module")
def trained(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`REQUANTIZED` is not exact; the first block of `EXACT` is zero."""
    directory = copy_of(dense, tmp_path_factory.mktemp("trained") / "tiny")
    # Rows of gate and up alternate. No code is 17/16 of another.
    change_floats(directory, GATE_UP.format(1), lambda values: scale_up(values[:, 1::2]))
    change_floats(directory, DOWN.format(0), lambda values: values[0, 0, 0].fill(0))
    return directory


def scale_up(values: Array) -> None:
    values *= 17 / 16


# --- what was written is damaged ---------------------------------------------------------------------------------

Damage = Callable[[bytearray], object]


def fails(
    layout: str,
    source: Path,
    directory: Path,
    damages: dict[tuple[str, int], Damage],
    monkeypatch: pytest.MonkeyPatch,
    *options: str | Path,
) -> str:
    """The command's message, if the bytes of some tensors' parts are changed before they are verified."""

    def damage_and_verify(manifest: Manifest, *arguments: Any) -> Verdict:
        assert verify(manifest).holds, "it must hold before the damage"
        for (name, part), damage in damages.items():
            rewrite(manifest, name, part, damage)
        return verify(manifest)

    monkeypatch.setattr(run_module, "verify", damage_and_verify)
    return refused_unproven(layout, source, directory, *options)


def rewrite(manifest: Manifest, name: str, part: int, damage: Damage) -> None:
    array = manifest.plan.layout.tensors[name].spans[part].array
    path = manifest.files[manifest.plan.paths.index(array.file)]
    assert path.name != array.file.name or path.parent != array.file.parent, "it has its name already"
    content = bytearray(path.read_bytes())
    piece = content[array.offset : array.offset + array.n_bytes]
    damage(piece)
    assert piece != content[array.offset : array.offset + array.n_bytes], "no damage was done"
    content[array.offset : array.offset + array.n_bytes] = piece
    path.write_bytes(content)


def refused_unproven(layout: str, source: Path, directory: Path, *options: str | Path) -> str:
    name, fixed, file_name = LAYOUTS[layout]
    with nothing_left_in(directory):
        outcome = command(name, source, directory / file_name, *fixed, *options)
    refused(outcome, DIGESTS, "Nothing was kept")
    return outcome.err.splitlines()[-1]


def flip(byte: int, bit: int) -> Damage:
    return lambda content: content.__setitem__(byte, content[byte] ^ 1 << bit)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("part", [0, 1], ids=["blocks", "scales"])
@pytest.mark.parametrize("name", [EXACT, REQUANTIZED], ids=["exact", "requantized"])
def test_every_bit_is_proven(
    name: str, part: int, bit: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In gate_up rows alternate: the second row is up's.
    byte = [96, 6][part] if name == REQUANTIZED else 7
    assert name in fails("hf", trained, tmp_path, {(name, part): flip(byte, bit)}, monkeypatch)


@pytest.mark.parametrize("name", [EXACT, REQUANTIZED], ids=["exact", "requantized"])
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "hf"])
def test_a_bit_of_a_code_is_proven_in_every_layout(
    layout: str, name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage = {(name, 0): lambda content: flip(len(content) - 1, 6)(content)}
    # The last byte of what gate and up share is up's everywhere.
    assert name in fails(layout, trained, tmp_path, damage, monkeypatch)


def sign_of_a_zero(content: bytearray) -> None:
    """Changes the sign of the first zero that is in a low nibble."""
    codes = np.frombuffer(content, np.uint8)
    first = int(np.flatnonzero(codes & 7 == 0)[0])
    content[first] ^= 8


def test_sign_of_a_zero_is_proven(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXACT in fails("hf", trained, tmp_path, {(EXACT, 0): sign_of_a_zero}, monkeypatch)


def test_scale_of_a_block_of_zeros_is_proven(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXACT in fails("hf", trained, tmp_path, {(EXACT, 1): flip(0, 0)}, monkeypatch)


@pytest.mark.parametrize("name", [EXACT, REQUANTIZED], ids=["exact", "requantized"])
def test_every_bit_is_proven_with_a_base(
    name: str, tiny: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage = {(name, 0): flip(96, 3)}
    assert name in fails("hf", trained, tmp_path, damage, monkeypatch, "--like", tiny)


# --- what encodes is wrong ---------------------------------------------------------------------------------------

Fault = Callable[[Mxfp4], object]


def swap_nibbles(out: Mxfp4) -> None:
    out.blocks[:] = out.blocks << 4 | out.blocks >> 4


def double_one_scale(out: Mxfp4) -> None:
    out.scales[3, 1] += 1


def change_one_code(out: Mxfp4) -> None:
    out.blocks[3, 1, 5] ^= 1


def lose_signs_of_zeros(out: Mxfp4) -> None:
    for shift in (0, 4):
        zeros = out.blocks >> shift & 15 == 8
        out.blocks[zeros] ^= np.uint8(8 << shift)


def move_rows(out: Mxfp4) -> None:
    out.blocks[:], out.scales[:] = np.roll(out.blocks, 1, axis=0), np.roll(out.scales, 1, axis=0)


def write_nothing(out: Mxfp4) -> None:
    out.blocks[-1], out.scales[-1] = 0, 0


FAULTS = [swap_nibbles, double_one_scale, change_one_code, lose_signs_of_zeros, move_rows, write_nothing]


@pytest.mark.parametrize("function", ["encode", "encode_like"])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_the_encoder_is_noticed_in_what_is_exact(
    fault: Fault, function: str, tiny: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = getattr(mxfp4_encode, function)

    def encode(*arguments: Any, **options: Any) -> mxfp4_encode.EncodeStats:
        stats: mxfp4_encode.EncodeStats = true(*arguments, **options)
        fault(next(argument for argument in reversed(arguments) if isinstance(argument, Mxfp4)))
        return stats

    monkeypatch.setattr(mxfp4_encode, function, encode)
    message = refused_unproven("hf", dense, tmp_path, *(("--like", tiny) if function == "encode_like" else ()))
    assert "layers.0.moe.gate.weight" in message
    assert "and 11 more" in message


def test_fault_in_an_exact_block_is_noticed_although_the_tensor_has_requantized_ones(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_of(dense, tmp_path / "source")
    change_floats(source, DOWN.format(2), lambda values: values[4, 100, 2, :1].fill(17 / 16))
    true = mxfp4_encode.encode

    def encode(*arguments: Any, **options: Any) -> mxfp4_encode.EncodeStats:
        stats = true(*arguments, **options)
        if stats.blocks_requantized:
            change_one_code(arguments[3])
        return stats

    monkeypatch.setattr(mxfp4_encode, "encode", encode)
    assert "layers.2.moe.down.weight differs" in refused_unproven("hf", source, tmp_path)


def test_base_that_is_kept_although_values_changed_is_noticed(
    tiny: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_of(dense, tmp_path / "source")
    change_floats(source, DOWN.format(2), lambda values: values[4, 100, 2].fill(0.5))
    true = mxfp4_encode.encode_like

    def keep_all(values: Any, encoding: str, like: Mxfp4, *arguments: Any, **options: Any) -> object:
        stats = true(values, encoding, like, *arguments, **options)
        arguments[-1].blocks[:], arguments[-1].scales[:] = like.blocks, like.scales
        return stats

    monkeypatch.setattr(mxfp4_encode, "encode_like", keep_all)
    assert "layers.2.moe.down.weight differs" in refused_unproven("hf", source, tmp_path, "--like", tiny)
