"""Files read and written at offsets: the kernel's calls and their portable twin do the same."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gptoss_convert.formats import files
from gptoss_convert.formats.errors import CheckpointError
from gptoss_convert.formats.files import DataFile, PortableFile, PosixFile, open_data_file

CONTENT = random.Random(0).randbytes(100_000)
HAS_POSITIONED_CALLS = hasattr(os, "preadv") and hasattr(os, "pwrite")


@pytest.fixture(params=["positioned", "portable"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[DataFile]:
    """Which of the two is opened; where the system lacks the calls, both are the portable one."""
    monkeypatch.setenv(files.PORTABLE_VARIABLE, "1" if request.param == "portable" else "0")
    return PosixFile if request.param == "positioned" and HAS_POSITIONED_CALLS else PortableFile


@pytest.fixture
def source(tmp_path: Path, kind: type[DataFile]) -> Iterator[DataFile]:
    """`CONTENT` in a file, to be read."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    with open_data_file(path) as file:
        yield file


@pytest.fixture
def target(tmp_path: Path, kind: type[DataFile]) -> Iterator[DataFile]:
    """A new file."""
    with open_data_file(tmp_path / "target", create=True) as file:
        yield file


def read(file: DataFile, offset: int, n_bytes: int) -> bytes:
    buffer = bytearray(n_bytes)
    file.read_into(memoryview(buffer), offset)
    return bytes(buffer)


def test_each_kind_is_opened_when_asked_for(kind: type[DataFile], source: DataFile, target: DataFile) -> None:
    assert type(source) is type(target) is kind


@pytest.mark.parametrize(("offset", "n_bytes"), [(0, 0), (0, 1), (17, 50_000), (99_999, 1), (0, 100_000)])
def test_bytes_are_read_from_their_offset(source: DataFile, offset: int, n_bytes: int) -> None:
    assert read(source, offset, n_bytes) == CONTENT[offset : offset + n_bytes]


@pytest.mark.parametrize(("offset", "found"), [(99_990, 10), (100_000, 0), (200_000, 0)])
def test_short_file_is_named_with_what_was_expected_and_found(source: DataFile, offset: int, found: int) -> None:
    with pytest.raises(
        CheckpointError, match=rf"expected 20 bytes from offset {offset}; found {found} bytes"
    ) as caught:
        read(source, offset, 20)
    assert caught.value.file == str(source.path)
    assert caught.value.remedy


def test_bytes_are_written_at_their_offset(target: DataFile) -> None:
    target.resize(100)
    target.write_at(memoryview(b"end"), 97)
    target.write_at(memoryview(b"start"), 0)
    target.write_at(memoryview(b""), 50)
    assert target.path.read_bytes() == b"start" + bytes(92) + b"end"


def test_what_is_written_can_be_read_back(target: DataFile) -> None:
    target.write_at(memoryview(CONTENT), 5)
    assert read(target, 5, 1000) == CONTENT[:1000]


@pytest.mark.parametrize("n_bytes", [0, 1, 5000])
def test_resized_file_has_that_size_and_zeros_behind_what_was_written(target: DataFile, n_bytes: int) -> None:
    target.write_at(memoryview(b"abc"), 0)
    target.resize(n_bytes)
    assert target.path.read_bytes() == b"abc".ljust(n_bytes, b"\0")[:n_bytes]


@pytest.mark.parametrize("buffer_bytes", [1000, 100_000])
@pytest.mark.parametrize(("source_offset", "offset", "n_bytes"), [(0, 0, 100_000), (33, 7, 12_345), (99_999, 4096, 1)])
def test_copied_bytes_are_the_same(
    source: DataFile, target: DataFile, source_offset: int, offset: int, n_bytes: int, buffer_bytes: int
) -> None:
    target.copy_from(source, source_offset, offset, n_bytes, memoryview(bytearray(buffer_bytes)))
    assert target.path.read_bytes() == bytes(offset) + CONTENT[source_offset : source_offset + n_bytes]


def test_copy_of_more_than_there_is_names_the_source(source: DataFile, target: DataFile) -> None:
    with pytest.raises(CheckpointError, match="source: the file ended"):
        target.copy_from(source, 90_000, 0, 20_000, memoryview(bytearray(1000)))


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="there is no kernel copy that could fail")
@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("n_good", [0, 1])
def test_copy_goes_on_through_the_buffer_where_the_kernel_stops(
    n_good: int, code: int, source: DataFile, target: DataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_copy, good = os.copy_file_range, iter(range(n_good))

    def stop(from_fd: int, to_fd: int, n_bytes: int, *offsets: int) -> int:
        if next(good, None) is None:
            raise OSError(code, os.strerror(code))
        return really_copy(from_fd, to_fd, min(n_bytes, 1234), *offsets)

    monkeypatch.setattr(os, "copy_file_range", stop)
    target.copy_from(source, 10, 20, 50_000, memoryview(bytearray(1000)))
    assert target.path.read_bytes() == bytes(20) + CONTENT[10:50_010]


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="there is no kernel copy that could fail")
def test_full_disk_is_not_mistaken_for_a_copy_that_the_kernel_cannot_do(
    source: DataFile, target: DataFile, kind: type[DataFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    monkeypatch.setattr(kind, "_write", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        target.copy_from(source, 0, 0, 1000, memoryview(bytearray(1000)))


def test_short_reads_and_writes_are_continued(
    source: DataFile, target: DataFile, kind: type[DataFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    really_read, really_write = kind._read, kind._write
    monkeypatch.setattr(kind, "_read", lambda file, buffer, offset: really_read(file, buffer[:777], offset))
    monkeypatch.setattr(kind, "_write", lambda file, data, offset: really_write(file, data[:333], offset))
    target.write_at(memoryview(read(source, 0, 10_000)), 0)
    assert target.path.read_bytes() == CONTENT[:10_000]


def test_several_threads_read_and_write_one_file_each_at_its_offset(source: DataFile, target: DataFile) -> None:
    part = 500
    offsets = list(range(0, len(CONTENT), part))
    random.Random(3).shuffle(offsets)

    def copy(offset: int) -> None:
        target.write_at(memoryview(read(source, offset, part)), offset)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, offsets))
    assert target.path.read_bytes() == CONTENT


@pytest.mark.parametrize("call", ["_read", "_write"])
def test_error_of_the_system_names_the_file(
    call: str, source: DataFile, target: DataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = source if call == "_read" else target
    monkeypatch.setattr(type(file), call, fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        read(file, 0, 10) if call == "_read" else file.write_at(memoryview(b"x"), 0)
    assert caught.value.filename == str(file.path)


def test_new_file_replaces_what_was_there(tmp_path: Path, kind: type[DataFile]) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with open_data_file(tmp_path / "file", create=True) as file:
        file.sync()
    assert (tmp_path / "file").read_bytes() == b""


def test_missing_file_is_an_error_of_the_system(tmp_path: Path, kind: type[DataFile]) -> None:
    with pytest.raises(FileNotFoundError):
        open_data_file(tmp_path / "missing")


def test_file_may_be_closed_twice(source: DataFile) -> None:
    source.close()
    source.close()


def test_replace_takes_the_place_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    files.replace_file(tmp_path / "new", tmp_path / "old")
    files.sync_directory(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old", b"new")]


def test_free_space_is_that_of_the_disk(tmp_path: Path) -> None:
    assert 0 < files.free_bytes(tmp_path) < 1 << 60
