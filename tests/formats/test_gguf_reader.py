"""The GGUF reader finds what gguf-py wrote and what ggml finds, in little time and memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import hostile_gguf as raw
import numpy as np
import pytest
from ggml_gguf import ggml_read, library
from gguf_files import BF16_ROWS, MXFP4_ROWS, NORM, stored_bytes, write_plan, write_with_gguf_py

from gptoss_convert.formats.containers.gguf_reader import GgufFile, read_gguf
from gptoss_convert.formats.containers.gguf_types import (
    BF16,
    F32,
    GGML_TYPES,
    MXFP4,
    OLLAMA_MXFP4,
    REMOVED_TYPES,
    SCALAR_FORMATS,
    GgufTensor,
    ValueType,
    row_bytes,
)
from gptoss_convert.formats.containers.gguf_values import StringArray
from gptoss_convert.formats.containers.gguf_writer import i32s, plan_gguf, strings
from gptoss_convert.formats.errors import GgufError

VOCAB, MERGES, TENSORS = 201_088, 446_189, 459


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    """A file that gguf-py wrote."""
    path = tmp_path_factory.mktemp("gguf") / "foreign.gguf"
    write_with_gguf_py(path)
    return read_gguf(path)


@pytest.fixture(scope="module")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The header of gpt-oss-20b: as many tokens, merges and tensors, of about the same length."""
    kv = {
        "tokenizer.ggml.tokens": strings([f"token{i:x}" for i in range(VOCAB)]),
        "tokenizer.ggml.token_type": i32s(np.ones(VOCAB, np.int32)),
        "tokenizer.ggml.merges": strings([f"Ġmer{i:x} ge{i:x}" for i in range(MERGES)]),
    }
    plan = plan_gguf(kv, [(f"blk.{i}.weight", MXFP4, (1, 32)) for i in range(TENSORS)])
    return write_plan(tmp_path_factory.mktemp("gguf") / "vocabulary.gguf", plan)


def test_tensor_types_are_those_of_ggml() -> None:
    lib = library()
    for type_id in range(max(GGML_TYPES) + 1):
        name = lib.ggml_type_name(type_id).decode().upper()
        block = (lib.ggml_blck_size(type_id), lib.ggml_type_size(type_id))
        if type_id in REMOVED_TYPES or type_id == OLLAMA_MXFP4.id:
            assert block == (0, 0)
        else:
            ours = GGML_TYPES[type_id]
            assert (ours.name, ours.block_elements, ours.block_bytes) == (name, *block)


def test_tensor_types_are_those_of_gguf_py() -> None:
    known_wrong = {gguf.GGMLQuantizationType.Q8_1}  # 40 bytes in gguf 0.19.0; ggml has 36
    for theirs, block in gguf.GGML_QUANT_SIZES.items():
        ours = GGML_TYPES[int(theirs)]
        assert ours.name == theirs.name
        assert (ours.block_elements, ours.block_bytes) == block or theirs in known_wrong


def test_value_types_are_those_of_gguf_py() -> None:
    renamed = {"UINT": "U", "INT": "I", "FLOAT": "F"}
    for theirs in gguf.GGUFValueType:
        name = theirs.name
        for long, short in renamed.items():
            name = name.replace(long, short) if name.startswith(long) else name
        assert ValueType[name] == theirs


@pytest.mark.parametrize("value_type", SCALAR_FORMATS, ids=lambda t: t.name)
def test_numpy_and_struct_agree_on_a_value_type(value_type: ValueType) -> None:
    pattern = b"\x01\x00\x80\x3f\x00\x00\xf0\x3f"[: struct.calcsize(SCALAR_FORMATS[value_type])]
    read_by_numpy = np.frombuffer(pattern, SCALAR_FORMATS[value_type])
    assert read_by_numpy.tolist() == list(struct.unpack(SCALAR_FORMATS[value_type], pattern))


def test_row_bytes_counts_whole_blocks() -> None:
    assert row_bytes(MXFP4, 2880) == 90 * 17
    assert row_bytes(BF16, 2880) == 5760
    with pytest.raises(GgufError, match=r"multiple of 32; found 2881"):
        row_bytes(MXFP4, 2881)


@pytest.mark.parametrize(
    ("key", "value_type", "value"),
    [
        ("general.architecture", ValueType.STRING, "test"),
        ("v.u8", ValueType.U8, 255),
        ("v.i8", ValueType.I8, -128),
        ("v.u16", ValueType.U16, 65535),
        ("v.i16", ValueType.I16, -32768),
        ("v.u32", ValueType.U32, 2**32 - 1),
        ("v.i32", ValueType.I32, -(2**31)),
        ("v.u64", ValueType.U64, 2**64 - 1),
        ("v.i64", ValueType.I64, -(2**63)),
        ("v.f32", ValueType.F32, float(np.float32(1e-5))),
        ("v.f64", ValueType.F64, 1e-5),
        ("v.true", ValueType.BOOL, True),
        ("v.false", ValueType.BOOL, False),
        ("v.string", ValueType.STRING, "naïve Ġ\n🙂"),
    ],
)
def test_scalar_of_gguf_py_is_read(foreign: GgufFile, key: str, value_type: ValueType, value: object) -> None:
    assert foreign.kv[key].type is value_type
    assert foreign.kv[key].value == value
    assert type(foreign.kv[key].value) is type(value)


@pytest.mark.parametrize(
    ("key", "element_type", "values"),
    [
        ("v.strings", ValueType.STRING, ["a", "", "é", "x" * 1000]),
        ("v.i32s", ValueType.I32, [-1, 0, 2**31 - 1]),
        ("v.f32s", ValueType.F32, [0.5, -2.0]),
        ("v.bools", ValueType.BOOL, [True, False]),
    ],
)
def test_array_of_gguf_py_is_read(foreign: GgufFile, key: str, element_type: ValueType, values: list[object]) -> None:
    found = foreign.kv[key]
    assert (found.type, found.element_type) == (ValueType.ARRAY, element_type)
    assert list(found.value) == values


def test_tensors_of_gguf_py_are_found_in_order(foreign: GgufFile) -> None:
    assert [(t.name, t.type, t.shape) for t in foreign.tensors.values()] == [
        ("experts.weight", MXFP4, (2, 3, 64)),
        ("norm.weight", F32, (5,)),
        ("q.weight", BF16, (3, 7)),
    ]
    assert stored_bytes(foreign, "experts.weight") == MXFP4_ROWS.tobytes()
    assert stored_bytes(foreign, "norm.weight") == NORM.tobytes()
    assert stored_bytes(foreign, "q.weight") == BF16_ROWS.tobytes()


def test_offsets_are_those_of_ggml(foreign: GgufFile) -> None:
    theirs = ggml_read(foreign.path)
    assert theirs is not None
    assert theirs["data_offset"] == foreign.data_offset
    assert [(t[0], t[3] + theirs["data_offset"], t[4]) for t in theirs["tensors"]] == [
        (t.name, t.offset, t.n_bytes) for t in foreign.tensors.values()
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(raw.VALID, id="sound"),
        pytest.param(raw.gguf(raw.KVS, raw.INFOS, raw.N_DATA, version=2), id="version-2"),
        pytest.param(raw.VALID[: raw.HEADER_BYTES + 32 + 68], id="without-the-last-padding"),
        pytest.param(raw.gguf(raw.KVS, [], 0), id="no-tensors"),
        pytest.param(raw.gguf(raw.KVS, [], 0, alignment=1), id="no-tensors-no-padding"),
        pytest.param(raw.gguf([], [], 0), id="nothing-at-all"),
    ],
)
def test_sound_file_is_read_as_ggml_reads_it(data: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / "f.gguf", data)
    ours, theirs = read_gguf(path), ggml_read(path)
    assert theirs is not None
    assert (ours.version, ours.alignment) == (theirs["version"], theirs["alignment"])
    assert list(ours.kv) == [key for key, *_ in theirs["kv"]]
    assert [(t.name, t.type.id, t.offset - ours.data_offset) for t in ours.tensors.values()] == [
        (name, type_id, offset) for name, type_id, _, offset, _ in theirs["tensors"]
    ]


@pytest.mark.parametrize("alignment", [1, 8, 4096])
def test_alignment_places_the_data(alignment: int, tmp_path: Path) -> None:
    key = raw.kv(b"general.alignment", raw.U32, raw.u32(alignment))
    data = raw.gguf([key], [raw.info(b"t", (3,), raw.TYPE_F32, 0)], 12, alignment=alignment)
    file = read_gguf(save(tmp_path / "f.gguf", data))
    assert file.tensors["t"] == GgufTensor("t", F32, (3,), len(data) - 12, 12)


def test_string_array_behaves_as_a_list(foreign: GgufFile) -> None:
    found, expected = foreign.kv["v.strings"].value, ["a", "", "é", "x" * 1000]
    assert isinstance(found, StringArray)
    assert [found[i] for i in (0, 1, 2, 3, -1, -4)] == [expected[i] for i in (0, 1, 2, 3, -1, -4)]
    assert found[1:3] == expected[1:3]
    assert found == expected
    assert found != ["a", "", "é", "y" * 1000]
    assert found != expected[:3]
    assert "é" in found
    for index in (4, -5):
        with pytest.raises(IndexError):
            found[index]


def test_string_that_is_not_utf8_is_refused_only_when_decoded(tmp_path: Path) -> None:
    scalar = raw.kv(b"bad.scalar", raw.STRING, raw.text(b"ab\xff"))
    tokens = raw.kv(b"bad.tokens", raw.ARRAY, raw.array(raw.STRING, 2, raw.text(b"ok") + raw.text(b"\xc3")))
    file = read_gguf(save(tmp_path / "f.gguf", raw.gguf([scalar, tokens], [], 0)))
    assert file.kv["bad.tokens"].value[0] == "ok"
    with pytest.raises(GgufError, match=r"f\.gguf: key 'bad.scalar': the string is not UTF-8.*0xff at position 2"):
        _ = file.kv["bad.scalar"].value
    for decode in (lambda: file.kv["bad.tokens"].value[1], lambda: list(file.kv["bad.tokens"].value)):
        with pytest.raises(GgufError, match=r"key 'bad.tokens': string 1 of the array is not UTF-8"):
            decode()


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match=r"absent\.gguf: the file cannot be read; found No such file"):
        read_gguf(tmp_path / "absent.gguf")
    with pytest.raises(GgufError, match=r"this is not a file"):
        read_gguf(tmp_path)


def test_a_whole_vocabulary_is_read_fast_and_small(vocabulary_file: Path) -> None:
    start = time.perf_counter()
    file = read_gguf(vocabulary_file)
    seconds = time.perf_counter() - start
    assert len(file.kv["tokenizer.ggml.tokens"].value) == VOCAB
    assert file.kv["tokenizer.ggml.merges"].value[MERGES - 1] == f"Ġmer{MERGES - 1:x} ge{MERGES - 1:x}"
    assert len(file.tensors) == TENSORS
    assert seconds < 10  # against a return to seconds per vocabulary: this takes 0.1 s, gguf-py 15 s


def test_a_whole_vocabulary_takes_twice_its_bytes(vocabulary_file: Path) -> None:
    tracemalloc.start()
    try:
        file = read_gguf(vocabulary_file)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * file.data_offset + (8 << 20)


def test_tensor_data_is_not_read(tmp_path: Path) -> None:
    plan = plan_gguf({}, [("t", F32, (1 << 26,))])
    path = write_plan(tmp_path / "f.gguf", plan)
    tracemalloc.start()
    try:
        read_gguf(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20 < plan.file_bytes
