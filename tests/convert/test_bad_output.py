"""Outputs that cannot be written, and commands that cannot be meant: one message, the right exit code, nothing left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from checkpoints import copy_of, nothing_left_in
from command_line import Outcome, command, process, refused

from gptoss_convert.convert import staging
from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.progress import Progress
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.gguf import GgufTarget
from gptoss_convert.formats import files
from gptoss_convert.formats.errors import CheckpointError, OutputError

GGUF_BYTES = 3_192_640


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file to write, in a directory of its own."""
    directory = tmp_path / "out"
    directory.mkdir()
    return directory / "tiny.gguf"


def fails(tiny: Path, out: Path, *message: object, options: tuple[str, ...] = ()) -> Outcome:
    """`to-gguf` fails with the message and leaves the directory as it was."""
    with nothing_left_in(out.parent):
        outcome = command("to-gguf", tiny, out, *options)
    refused(outcome, *message)
    return outcome


# --- no space ---


def test_full_disk_is_noticed_before_the_first_byte(tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "free_bytes", lambda _directory: 1000)
    message = (
        out.parent,
        "too little free space",
        f"expected {GGUF_BYTES:,} bytes",
        "found 1,000 bytes",
        "Free some space",
    )
    fails(tiny, out, *message)


@pytest.mark.parametrize("n_writes", [0, 1, 20])
def test_disk_that_fills_while_it_is_written_is_reported(
    n_writes: int, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(n_writes))
    write_at = files.DataFile.write_at

    def write_until_full(file: files.DataFile, data: memoryview, offset: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(file, data, offset)

    monkeypatch.setattr(files.DataFile, "write_at", write_until_full)
    fails(tiny, out, out, "cannot be written", os.strerror(errno.ENOSPC), "Free some space or write to another disk")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a process's files")
@pytest.mark.parametrize("portable", ["0", "1"], ids=["positioned", "portable"])
def test_file_size_limit_of_the_system_is_reported(portable: str, tiny: Path, out: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    with nothing_left_in(out.parent):
        outcome = process("to-gguf", tiny, out, env={files.PORTABLE_VARIABLE: portable}, prepare=limit)
    refused(outcome, out, "cannot be written", os.strerror(errno.EFBIG), "--split-max-size")


# --- no permission ---


def test_directory_that_is_missing_is_named(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "no such directory" / "tiny.gguf"
    fails(tiny, out, out, "directory does not exist", f"expected the directory {out.parent}", "Create it first")


def test_directory_that_is_a_file_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    fails(tiny, tmp_path / "file" / "tiny.gguf", tmp_path / "file", "directory", "Create it first")


def test_directory_that_may_not_be_written_to_is_named(tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def refuse_to_create(path: str | Path, flags: int, *arguments: object, **options: object) -> int:
        if flags & os.O_CREAT and Path(path).parent == out.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really_open(path, flags, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse_to_create)
    fails(tiny, out, out, "cannot be written", os.strerror(errno.EACCES), "Choose a directory that you may write to")


@pytest.mark.skipif(sys.platform != "linux", reason="a place where nobody may create a file is known on Linux only")
def test_read_only_file_system_is_named(tiny: Path) -> None:
    out = Path("/sys/tiny.gguf")
    outcome = command("to-gguf", tiny, out)
    refused(outcome, out, "cannot be written", "Choose a directory that you may write to")


# --- something is there already ---


def test_existing_output_is_refused_without_force(tiny: Path, out: Path) -> None:
    out.write_bytes(b"old")
    fails(tiny, out, out, "exists already", "Use --force to replace it")


def test_existing_shard_is_refused_without_force(tiny: Path, out: Path) -> None:
    shard = out.with_name("tiny-00002-of-00004.gguf")
    shard.write_bytes(b"old")
    fails(tiny, out, shard, "exists already", "--force", options=("--split-max-size", "1M"))


def test_force_replaces_the_existing_output(tiny: Path, tiny_gguf: Path, out: Path) -> None:
    out.write_bytes(b"old")
    assert command("to-gguf", tiny, out, "--force", "--quiet").code == 0
    assert out.read_bytes() == tiny_gguf.read_bytes()
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_output_that_is_a_directory_is_refused(options: tuple[str, ...], tiny: Path, out: Path) -> None:
    out.mkdir()
    fails(tiny, out, out, "is a directory", "expected a file name", options=options)


@pytest.mark.parametrize("out", [".", "..", "/", ""])
def test_output_without_a_name_is_refused(
    out: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with nothing_left_in(tmp_path):
        refused(command("to-gguf", tiny, out, "--force"), "is a directory", "expected a file name")


def test_output_that_is_the_source_is_refused_even_with_force(tiny_gguf: Path, out: Path) -> None:
    shutil.copy(tiny_gguf, out)
    fails(out, out, out, "the output is the source", "Choose another name", options=("--force",))


def test_output_whose_partial_name_is_the_source_is_refused(tiny_gguf: Path, out: Path) -> None:
    source = out.with_name(out.name + ".partial")
    shutil.copy(tiny_gguf, source)
    fails(source, out, "is the source", "Choose another name")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_output_that_is_a_small_file_of_the_source_is_refused(name: str, tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    fails(checkpoint, checkpoint / name, checkpoint / name, "the output is the source", options=("--force",))


def test_foreign_partial_file_is_replaced(tiny: Path, out: Path) -> None:
    out.with_name(out.name + ".partial").write_bytes(b"what a killed run left")
    assert command("to-gguf", tiny, out, "--quiet").code == 0
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("name", ["tiny.gguf.lock", "tiny.lock", "tiny.gguf.tmp"])
def test_neighbour_with_a_similar_name_is_left_alone(name: str, tiny: Path, out: Path) -> None:
    out.with_name(name).write_bytes(b"mine")
    assert command("to-gguf", tiny, out, "--quiet").code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([out.name, name])
    assert out.with_name(name).read_bytes() == b"mine"


def test_directory_that_only_looks_unfinished_is_not_removed(tmp_path: Path) -> None:
    foreign = tmp_path / "demo.partial"
    foreign.mkdir()
    (foreign / "notes.txt").write_bytes(b"mine")
    with nothing_left_in(tmp_path):
        refused(command("make-demo", tmp_path / "demo", "--quiet"), foreign, "notes.txt")


def test_demo_is_not_made_in_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with nothing_left_in(tmp_path):
        refused(
            command("make-demo", tmp_path), tmp_path, "exists already", "a new or an empty directory", "Choose another"
        )


def test_demo_is_not_made_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with nothing_left_in(tmp_path):
        refused(command("make-demo", tmp_path / "file"), "exists already", "a new or an empty directory")


@pytest.mark.parametrize("directory", [".", "new", "new/", "../here/new"])
def test_demo_is_made_in_a_new_or_empty_directory(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    outcome = command("make-demo", directory, "--layers", "1", "--quiet")
    assert outcome == Outcome(0, "", "")
    assert command("inspect", here / directory, "--json").json["config"]["num_hidden_layers"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


# --- something happens meanwhile ---


class Meanwhile(Progress):
    """Does something when a stage begins."""

    def __init__(self, stage: str, action: object) -> None:
        self.awaited, self.action = stage, action

    def begin(self, what: str, n_bytes: int) -> None:
        if what == self.awaited:
            self.action()  # type: ignore[operator]


@pytest.mark.parametrize("stage", ["writing", "verifying"])
def test_second_run_at_the_same_time_is_refused_and_harms_nothing(
    stage: str, tiny: Path, tiny_gguf: Path, out: Path
) -> None:
    second: list[Outcome] = []
    plan_ = plan(open_checkpoint(tiny), GgufTarget(out))
    run(plan_, Meanwhile(stage, lambda: second.append(command("to-gguf", tiny, out))))
    refused(second[0], out, "another run is writing it", "Wait for it to end")
    assert out.read_bytes() == tiny_gguf.read_bytes()
    assert list(out.parent.iterdir()) == [out]


def test_shard_that_is_removed_meanwhile_is_named(tiny: Path, tmp_path: Path, out: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    shard = checkpoint / "model-00001-of-00003.safetensors"
    plan_ = plan(open_checkpoint(checkpoint), GgufTarget(out))
    with nothing_left_in(out.parent), pytest.raises(OutputError, match=r"model-00001.*cannot be read: .* Check"):
        run(plan_, Meanwhile("writing", shard.unlink))


def test_shard_that_is_cut_short_meanwhile_is_named(tiny: Path, tmp_path: Path, out: Path) -> None:
    checkpoint = copy_of(tiny, tmp_path / "tiny")
    shard = checkpoint / "model-00001-of-00003.safetensors"
    plan_ = plan(open_checkpoint(checkpoint), GgufTarget(out))
    with (
        nothing_left_in(out.parent),
        pytest.raises(CheckpointError, match=r"model-00001.*ended while"),
    ):
        run(plan_, Meanwhile("writing", lambda: os.truncate(shard, 500_000)))


@pytest.mark.parametrize("prove", [True, False], ids=["verified", "not"])
def test_read_error_is_reported_of_the_shard_and_not_of_the_output(
    prove: bool, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(files.PORTABLE_VARIABLE, "1")
    really_read = files.PortableFile._read

    def fail(file: files.PortableFile, buffer: memoryview, offset: int) -> int:
        if file.path.suffix == ".safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really_read(file, buffer, offset)

    monkeypatch.setattr(files.PortableFile, "_read", fail)
    plan_ = plan(open_checkpoint(tiny), GgufTarget(out))
    with nothing_left_in(out.parent), pytest.raises(OutputError, match=r"\.safetensors: .*cannot be read: ") as caught:
        run(plan_, prove=prove)
    assert "tiny.gguf" not in str(caught.value)


@pytest.mark.parametrize("shard", ["tiny-00001-of-00004.gguf", "tiny-00003-of-00004.gguf"])
def test_write_error_is_reported_of_the_shard_it_is_about(
    shard: str, tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at = files.DataFile.write_at

    def fail(file: files.DataFile, data: memoryview, offset: int) -> None:
        if file.path.name.startswith(shard):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file.path))
        write_at(file, data, offset)

    monkeypatch.setattr(files.DataFile, "write_at", fail)
    message = (f"{out.with_name(shard)}: the file cannot be written", os.strerror(errno.EIO))
    fails(tiny, out, *message, options=("--split-max-size", "1M"))


def test_interruption_leaves_nothing_and_exits_with_130(tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gptoss_convert.convert.run.verify", interrupt)
    with nothing_left_in(out.parent):
        outcome = command("to-gguf", tiny, out)
    assert outcome.code == 130
    assert outcome.err.endswith("interrupted: nothing was kept\n")


# --- usage ---


def test_wrong_usage_exits_with_2(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    refused(command("to-gguf", tiny, out, "--colour"), "No such option", "--colour", code=2)
    refused(command("to-gguf", tiny, out, "--type", "q4_k"), "--type", "q4_k", code=2)
    refused(command("to-gguf", tiny), "Missing argument", code=2)
    refused(command("to-onnx", tiny, out), "No such command", code=2)
    refused(command("make-demo", out, "--layers", "0"), "a model needs a layer", "found 0", code=2)
    for size in ("", "5X", "-1", "0", "1.5G", "G"):
        refused(command("to-gguf", tiny, out, "--split-max-size", size), "size", "K, M, G", f"found {size!r}", code=2)
    assert list(tmp_path.iterdir()) == []


def test_error_is_an_object_on_standard_output_with_json(tmp_path: Path) -> None:
    outcome = command("inspect", tmp_path, "--json")
    assert outcome.code == 1
    assert outcome.err == ""
    error = outcome.json["error"]
    assert error["kind"] == "CheckpointError"
    assert error["file"] == str(tmp_path)
    assert error["message"].endswith(error["remedy"])
    assert json.loads(outcome.out).keys() == {"error"}
