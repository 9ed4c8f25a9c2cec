"""Malformed GGUF files: refused for the right reason, in bounded memory, and never less strictly than ggml does."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hostile_gguf as raw
import pytest
from ggml_gguf import ggml_read_all
from gguf_files import replan
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_convert.formats.containers.gguf_reader import GgufFile, read_gguf
from gptoss_convert.formats.containers.gguf_types import MAX_ENTRIES, MAX_HEADER_BYTES, OLLAMA_MXFP4
from gptoss_convert.formats.errors import GgufError

ALIGNED = raw.gguf([raw.kv(b"general.alignment", raw.U32, raw.u32(32)), *raw.KVS], raw.INFOS, raw.N_DATA)
N_MUTANTS = 3000


@contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Fails if more than `n_bytes` are allocated at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= n_bytes
    finally:
        tracemalloc.stop()


def try_read(path: Path) -> GgufFile | None:
    try:
        return read_gguf(path)
    except GgufError:
        return None


def mutant(random_source: random.Random) -> bytes:
    """A sound file with a few bytes changed, perhaps cut off; half of the new bytes are small or near 255."""
    data = bytearray(ALIGNED)
    for _ in range(random_source.choice((1, 1, 1, 2, 4))):
        new = random_source.choice((0, 1, 2, 3, 8, 9, 39, 255, random_source.randrange(256)))
        data[random_source.randrange(len(ALIGNED) - raw.N_DATA)] = new
    if random_source.random() < 0.1:
        del data[random_source.randrange(len(data)) :]
    return bytes(data)


@pytest.fixture(scope="module")
def ggml_verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Case id to whether ggml refuses it."""
    directory = tmp_path_factory.mktemp("corpus")
    paths = [directory / f"{case.id}.gguf" for case in raw.CASES]
    for case, path in zip(raw.CASES, paths, strict=True):
        path.write_bytes(case.data)
    found = ggml_read_all(paths)
    return {case.id: header is None for case, header in zip(raw.CASES, found, strict=True)}


def test_case_ids_are_unique() -> None:
    assert len({case.id for case in raw.CASES}) == len(raw.CASES)


@pytest.mark.parametrize("case", raw.CASES, ids=lambda case: case.id)
def test_malformed_file_is_refused(case: raw.Case, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(case.data)
    with pytest.raises(GgufError, match=case.message) as refusal, at_most(len(case.data) + (2 << 20)):
        read_gguf(path)
    assert refusal.value.file == str(path)
    assert refusal.value.remedy


@pytest.mark.parametrize("case", raw.CASES, ids=lambda case: case.id)
def test_verdict_of_ggml_is_as_stated(case: raw.Case, ggml_verdicts: dict[str, bool]) -> None:
    assert ggml_verdicts[case.id] == case.ggml_refuses


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        pytest.param((0, MAX_ENTRIES + 1), r"impossible number of keys; expected 0 to 65536", id="keys"),
        pytest.param((MAX_ENTRIES + 1, 0), r"impossible number of tensors; expected 0 to 65536", id="tensors"),
    ],
)
def test_more_entries_than_any_model_has_are_refused(counts: tuple[int, int], message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, *counts))
        file.truncate(4 << 20)
    with pytest.raises(GgufError, match=message):
        read_gguf(path)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(raw.kv(b"k", raw.STRING, raw.u64(MAX_HEADER_BYTES)), id="string"),
        pytest.param(raw.kv(b"k", raw.ARRAY, raw.array(raw.U64, MAX_HEADER_BYTES // 8, b"")), id="numbers"),
        pytest.param(raw.kv(b"k", raw.ARRAY, raw.array(raw.STRING, MAX_HEADER_BYTES // 8, b"")), id="strings"),
        pytest.param(
            raw.kv(b"k", raw.ARRAY, raw.array(raw.STRING, 1, raw.u64(MAX_HEADER_BYTES))), id="string-in-an-array"
        ),
    ],
)
def test_header_beyond_the_limit_is_refused_unread(value: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    with path.open("wb") as file:
        file.write(raw.gguf([value], [], 0))
        file.truncate(2 * MAX_HEADER_BYTES)
    with pytest.raises(GgufError, match=r"key 'k': .* makes the header too long"), at_most(4 << 20):
        read_gguf(path)


def test_memory_is_at_most_twice_the_header(tmp_path: Path) -> None:
    path, n = tmp_path / "f.gguf", 500_000
    with path.open("wb") as file:
        file.write(raw.gguf([raw.kv(b"k", raw.ARRAY, raw.array(raw.STRING, n, b""))], [], 0, alignment=1))
        file.truncate(file.tell() + 8 * n)  # empty strings: the most strings that a header can hold
    with at_most(2 * path.stat().st_size + (2 << 20)):
        assert len(read_gguf(path).kv["k"].value) == n
    assert 2 * MAX_HEADER_BYTES + (2 << 20) < 200e6


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "mutant.gguf"


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(ALIGNED) - 1), st.integers(0, 255)), max_size=6),
    length=st.none() | st.integers(0, len(ALIGNED)),
)
def test_any_damage_gives_a_clean_error_or_a_file_that_can_be_written_again(
    scratch: Path, changes: list[tuple[int, int]], length: int | None
) -> None:
    data = bytearray(ALIGNED)
    for position, byte in changes:
        data[position] = byte
    scratch.write_bytes(data[:length])
    file = try_read(scratch)
    if file is not None:
        header = replan(file).header
        unpadded = len(header.rstrip(b"\0"))
        assert header[8:unpadded] == data[8:unpadded]  # from after the version: 2 is read, 3 is written


def test_no_mutant_that_ggml_refuses_is_accepted(tmp_path: Path) -> None:
    random_source = random.Random(20)
    paths = [tmp_path / f"{i}.gguf" for i in range(N_MUTANTS)]
    for path in paths:
        path.write_bytes(mutant(random_source))
    with at_most(4 << 20):
        ours = [try_read(path) for path in paths]
    assert 0.1 * N_MUTANTS < sum(file is not None for file in ours) < 0.9 * N_MUTANTS
    for file, theirs in zip(ours, ggml_read_all(paths), strict=True):
        if file is not None and OLLAMA_MXFP4 not in {tensor.type for tensor in file.tensors.values()}:
            assert theirs is not None, file.path
            assert theirs["data_offset"] == file.data_offset
            assert [tuple(t) for t in theirs["tensors"]] == [
                (t.name, t.type.id, [*t.ne, 1, 1, 1][:4], t.offset - file.data_offset, t.n_bytes)
                for t in file.tensors.values()
            ]
