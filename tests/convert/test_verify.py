"""The verification holds for what was written right, and fails for every way to write it wrong."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SCALES, Tensors, copy_of, patch, read_tensors
from command_line import command, refused

from gptoss_convert.convert import run as run_module
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.manifest import Manifest, Verdict
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.stored import StoredArray
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.convert.verify import verify
from gptoss_convert.formats.errors import VerificationError

DENSE, EXPERTS = ("auto", "bf16", "f16", "f32"), ("mxfp4", "bf16", "f16", "f32")

Damage = Callable[[Manifest], object]


# --- it holds ---


@pytest.mark.parametrize(("dense", "experts"), list(product(DENSE, EXPERTS)))
def test_every_combination_of_types_is_proven(dense: str, experts: str, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    report = command("to-gguf", tiny, out, "--type", dense, "--experts", experts, "--json").json
    assert report["verified"] is True
    assert all(check["holds"] for check in report["checks"])
    encodings = {row["role"]: row["encoding"] for row in command("inspect", out, "--json").json["roles"]}
    assert encodings["attention"] == encodings["embedding"] == {"auto": "BF16"}.get(dense, dense.upper())
    assert encodings["experts"] == {"mxfp4": "GGML_MXFP4"}.get(experts, experts.upper())
    assert bool(report["rounded"]) == (dense == "f16")


def f16_changes(tensors: Tensors, name: str) -> int:
    """How many BF16 values numpy cannot hold as float16."""
    exact = (np.frombuffer(tensors[name].data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return int(np.count_nonzero(exact.astype(np.float16).astype(np.float32) != exact))


def test_rounded_values_are_counted_as_numpy_counts_them(tiny: Path, tmp_path: Path) -> None:
    tensors = read_tensors(tiny)
    rounded = command("to-gguf", tiny, tmp_path / "tiny.gguf", "--type", "f16", "--json").json["rounded"]
    stored_names = {
        "embedding.weight": "model.embed_tokens.weight",
        "unembedding.weight": "lm_head.weight",
        "layers.2.attention.o.weight": "model.layers.2.self_attn.o_proj.weight",
    }
    for canonical, stored in stored_names.items():
        assert rounded.get(canonical, 0) == f16_changes(tensors, stored)
    assert rounded["layers.2.attention.o.weight"] > 0
    assert all("attention" in name or "embedding" in name for name in rounded)


def test_rounded_values_are_told_in_the_verdict(tiny: Path, tmp_path: Path) -> None:
    assert " rounded in " in command("to-gguf", tiny, tmp_path / "tiny.gguf", "--type", "f16").out


def test_experts_too_small_for_f16_are_counted_as_rounded(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    patch(checkpoint, SCALES, 0, bytes([90]))
    report = command("to-gguf", checkpoint, tmp_path / "tiny.gguf", "--experts", "f16", "--json").json
    assert report["verified"] is True
    assert list(report["rounded"]) == ["layers.2.moe.gate.weight"]
    assert 0 < report["rounded"]["layers.2.moe.gate.weight"] <= 32


def test_split_output_is_proven(tiny: Path, tmp_path: Path) -> None:
    manifest = run(plan(open_checkpoint(tiny), GgufTarget(tmp_path / "tiny.gguf", split_max_bytes=500_000)))
    assert len(manifest.files) > 3
    assert manifest.verdict is not None
    assert manifest.verdict.holds


def test_gguf_to_gguf_is_proven_and_byte_identical(tiny_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.gguf"
    assert command("to-gguf", tiny_gguf, out, "--json").json["verified"] is True
    assert out.read_bytes() == tiny_gguf.read_bytes()


def test_demo_is_proven(tmp_path: Path) -> None:
    manifest = run(plan_demo(tmp_path / "demo", layers=1), prove=True)
    assert manifest.verdict is not None
    assert manifest.verdict.holds


def test_digests_say_what_the_source_holds_whatever_is_made_of_it(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    def digests(source: Path, *options: str) -> object:
        return command("to-gguf", source, tmp_path / "out.gguf", "--force", "--json", *options).json["digests"]

    assert digests(tiny) == digests(tiny, "--type", "f16", "--experts", "bf16")
    from_hf, from_gguf = digests(tiny), digests(tiny_gguf)
    assert isinstance(from_hf, dict)
    assert isinstance(from_gguf, dict)
    same = {name for name in from_hf if from_hf[name] == from_gguf[name]}
    assert {name for name in from_hf if name.endswith(("gate.weight", "up.weight", "down.weight"))} <= same


# --- it fails ---


def array(manifest: Manifest, name: str) -> tuple[Path, StoredArray]:
    """The written file, and the array that holds the canonical tensor `name`."""
    stored = manifest.plan.layout.tensors[name].spans[0].array
    return manifest.files[manifest.plan.paths.index(stored.file)], stored


def rewrite(path: Path, offset: int, change: Callable[[bytearray], object], n_bytes: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        content = bytearray(file.read(n_bytes))
        before = bytes(content)
        change(content)
        assert content != before, "no damage was done"
        file.seek(offset)
        file.write(content)


def flip(name: str, byte: int, bit: int) -> Damage:
    """Flips one bit of a tensor."""

    def damage(manifest: Manifest) -> None:
        path, stored = array(manifest, name)
        rewrite(path, stored.offset + byte, lambda content: content.__setitem__(0, content[0] ^ 1 << bit), 1)

    return damage


def swap(first: str, second: str) -> Damage:
    """Swaps the bytes of two tensors."""

    def damage(manifest: Manifest) -> None:
        (path, one), (_, two) = array(manifest, first), array(manifest, second)
        content = path.read_bytes()
        a, b = (content[stored.offset : stored.offset + stored.n_bytes] for stored in (one, two))
        rewrite(path, one.offset, lambda old: old.__setitem__(slice(None), b), one.n_bytes)
        rewrite(path, two.offset, lambda old: old.__setitem__(slice(None), a), two.n_bytes)

    return damage


def rotate(name: str, n_bytes: int) -> Damage:
    """Moves a tensor's bytes up by `n_bytes`, the last to the front: rows or experts in another order."""

    def damage(manifest: Manifest) -> None:
        path, stored = array(manifest, name)
        rewrite(
            path,
            stored.offset,
            lambda old: old.__setitem__(slice(None), old[-n_bytes:] + old[:-n_bytes]),
            stored.n_bytes,
        )

    return damage


def zero(name: str) -> Damage:
    def damage(manifest: Manifest) -> None:
        path, stored = array(manifest, name)
        rewrite(path, stored.offset, lambda old: old.__setitem__(slice(None), bytes(stored.n_bytes)), stored.n_bytes)

    return damage


BLOCK, ROW, EXPERT = 17, 6 * 17, 160 * 6 * 17  # bytes of tiny's gate and up
EXPERT_TENSOR, NORM = "layers.1.moe.gate.weight", "layers.3.attention.norm.weight"
DIGESTS = "every tensor's digest equals"

# what is done, the tensor that the error must name, the damage
DAMAGES: list[tuple[str, str, Damage]] = [
    ("one bit of a block", EXPERT_TENSOR, flip(EXPERT_TENSOR, 77 * BLOCK + 5, 6)),
    ("one bit of a scale", EXPERT_TENSOR, flip(EXPERT_TENSOR, 77 * BLOCK, 0)),
    ("one bit of the last block", EXPERT_TENSOR, flip(EXPERT_TENSOR, 8 * EXPERT - 1, 7)),
    ("low bit of an F32 norm", NORM, flip(NORM, 4 * 100, 0)),
    ("a bit of an F32 norm that BF16 has", NORM, flip(NORM, 4 * 100 + 2, 0)),
    ("sign of a sink", "layers.0.attention.sinks", flip("layers.0.attention.sinks", 3, 7)),
    ("low bit of a router bias", "layers.0.moe.router.bias", flip("layers.0.moe.router.bias", 4, 0)),
    ("one bit of the embedding", "embedding.weight", flip("embedding.weight", 415 * 384, 0)),
    ("gate and up swapped", EXPERT_TENSOR, swap(EXPERT_TENSOR, "layers.1.moe.up.weight")),
    ("biases swapped", "layers.1.moe.gate.bias", swap("layers.1.moe.gate.bias", "layers.1.moe.up.bias")),
    ("embedding and unembedding swapped", "embedding.weight", swap("embedding.weight", "unembedding.weight")),
    ("layers swapped", EXPERT_TENSOR, swap(EXPERT_TENSOR, "layers.2.moe.gate.weight")),
    ("rows moved", EXPERT_TENSOR, rotate(EXPERT_TENSOR, ROW)),
    ("experts moved", EXPERT_TENSOR, rotate(EXPERT_TENSOR, EXPERT)),
    ("blocks moved", EXPERT_TENSOR, rotate(EXPERT_TENSOR, BLOCK)),
    ("tensor never written", "layers.2.attention.v.weight", zero("layers.2.attention.v.weight")),
]


def convert_damaged(source: Path, out: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch, **options: str) -> str:
    """Converts, damages what was written before it is verified, and returns the verification's message."""

    def damage_and_verify(manifest: Manifest, *arguments: object) -> Verdict:
        assert verify(manifest).holds, "it must hold before the damage"
        damage(manifest)
        return verify(manifest)

    monkeypatch.setattr(run_module, "verify", damage_and_verify)
    with pytest.raises(VerificationError) as caught:
        run(plan(open_checkpoint(source), GgufTarget(out, **options)))  # type: ignore[arg-type]
    assert not out.exists()
    assert not list(out.parent.glob(out.name + "*"))
    return str(caught.value)


@pytest.mark.parametrize(("tensor", "damage"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_damaged_tensor_is_named(
    tensor: str, damage: Damage, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = convert_damaged(tiny, tmp_path / "out.gguf", damage, monkeypatch)
    assert DIGESTS in message
    assert f"{tensor}" in message


@pytest.mark.parametrize(("experts", "n_bytes"), [("bf16", 2), ("f16", 2), ("f32", 4)])
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_a_decoded_expert_is_proven(
    bit: int, experts: str, n_bytes: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damages = [flip(EXPERT_TENSOR, n_bytes * 1000 + byte, bit) for byte in range(n_bytes)]
    for damage in damages:
        message = convert_damaged(tiny, tmp_path / "out.gguf", damage, monkeypatch, experts=experts)
        monkeypatch.undo()
        assert DIGESTS in message
        assert EXPERT_TENSOR in message


@pytest.mark.parametrize("bit", range(16))
def test_every_bit_of_a_tensor_that_was_rounded_is_proven(
    bit: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "layers.2.attention.o.weight"
    damage = flip(name, 2 * 1000 + bit // 8, bit % 8)
    assert name in convert_damaged(tiny, tmp_path / "out.gguf", damage, monkeypatch, type="f16")


def change_header(old: bytes, new: bytes) -> Damage:
    """Replaces the first `old` of the written file by as many bytes."""
    assert len(old) == len(new)

    def damage(manifest: Manifest) -> None:
        content = manifest.files[0].read_bytes()
        assert old in content
        manifest.files[0].write_bytes(content.replace(old, new, 1))

    return damage


def swap_names(manifest: Manifest) -> None:
    """The names of two tensors of one shape, swapped."""
    key, value = b"blk.1.attn_k.weight", b"blk.1.attn_v.weight"
    for old, new in ((key, b"?"), (value, key), (b"?", value)):
        change_header(old.ljust(len(key), b"?"), new.ljust(len(key), b"?"))(manifest)


def resize(n_bytes: int) -> Damage:
    return lambda manifest: os.truncate(manifest.files[0], manifest.files[0].stat().st_size + n_bytes)


WINDOW = b"gpt-oss.attention.sliding_window" + struct.pack("<I", 4)
FILE_DAMAGES: list[tuple[str, str, Damage]] = [
    ("value of a key", "headers", change_header(WINDOW + struct.pack("<I", 32), WINDOW + struct.pack("<I", 33))),
    ("tokenizer", "headers", change_header(b"<|return|>", b"<|RETURN|>")),
    ("name of a key", "headers", change_header(b"general.name", b"general.nime")),
    ("name of a tensor", "'blk.1.attn_k.weight'", change_header(b"blk.1.attn_k.weight", b"blk.1.attn_K.weight")),
    ("names of two tensors", "layers.1.attention.k.weight: planned", swap_names),
    ("magic", "can be read", change_header(b"GGUF", b"GGUE")),
    ("cut short", "can be read", resize(-1)),
    ("cut in half", "can be read", resize(-1_500_000)),
    ("bytes behind the end", "can be read", resize(32)),
]


@pytest.mark.parametrize(("claim", "damage"), [row[1:] for row in FILE_DAMAGES], ids=[row[0] for row in FILE_DAMAGES])
def test_damaged_file_is_refused(
    claim: str, damage: Damage, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claim in convert_damaged(tiny, tmp_path / "out.gguf", damage, monkeypatch)


def test_source_that_changes_under_a_decoded_expert_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    message = convert_damaged(
        checkpoint, tmp_path / "out.gguf", lambda _: patch(checkpoint, SCALES, 0, b"\x01"), monkeypatch, experts="f32"
    )
    assert "layers.2.moe.gate.weight" in message


def test_failed_verification_exits_with_1_and_leaves_the_old_output(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")

    def damage_and_verify(manifest: Manifest, *arguments: object) -> Verdict:
        flip(NORM, 0, 0)(manifest)
        return verify(manifest)

    monkeypatch.setattr(run_module, "verify", damage_and_verify)
    outcome = command("to-gguf", tiny, out, "--force")
    refused(outcome, NORM, "digest", "Nothing was kept")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out.gguf", b"older")]


def test_demo_that_was_written_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage_and_verify(manifest: Manifest, *arguments: object) -> Verdict:
        flip("layers.0.moe.down.weight", 0, 0)(manifest)
        return verify(manifest)

    monkeypatch.setattr(run_module, "verify", damage_and_verify)
    with pytest.raises(VerificationError, match=r"layers\.0\.moe\.down\.weight"):
        run(plan_demo(tmp_path / "demo", layers=1), prove=True)
    assert list(tmp_path.iterdir()) == []
