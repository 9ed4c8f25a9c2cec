"""Planned GGUF files are byte-identical to gguf-py's, accepted by ggml, and nothing is lost on the way in silence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ggml_gguf import ggml_read
from gguf_files import BF16_ROWS, MXFP4_ROWS, NORM, replan, write_plan, write_with_gguf_py
from numpy.typing import NDArray

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import (
    BF16,
    F16,
    F32,
    GGML_TYPES,
    MXFP4,
    OLLAMA_MXFP4,
    Q8_0,
    GgmlType,
    ValueType,
)
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import (
    GgufPlan,
    boolean,
    f32,
    f32s,
    i32,
    i32s,
    plan_gguf,
    string,
    strings,
    u8,
    u16,
    u32,
    u64,
)
from gptoss_convert.formats.errors import GgufError

KV = {
    "general.architecture": string("test"),
    "v.u8": u8(255),
    "v.i8": GgufValue(ValueType.I8, -128),
    "v.u16": u16(65535),
    "v.i16": GgufValue(ValueType.I16, -32768),
    "v.u32": u32(2**32 - 1),
    "v.i32": i32(-(2**31)),
    "v.u64": u64(2**64 - 1),
    "v.i64": GgufValue(ValueType.I64, -(2**63)),
    "v.f32": f32(1e-5),
    "v.f64": GgufValue(ValueType.F64, 1e-5),
    "v.true": boolean(True),
    "v.false": boolean(False),
    "v.string": string("naïve Ġ\n🙂"),
    "v.strings": strings(["a", "", "é", "x" * 1000]),
    "v.i32s": i32s([-1, 0, 2**31 - 1]),
    "v.f32s": f32s([0.5, -2.0]),
    "v.bools": GgufValue(ValueType.ARRAY, [True, False], ValueType.BOOL),
}
TENSORS = [("experts.weight", MXFP4, (2, 3, 64)), ("norm.weight", F32, (5,)), ("q.weight", BF16, (3, 7))]
DATA: dict[str, NDArray[np.generic]] = {"experts.weight": MXFP4_ROWS, "norm.weight": NORM, "q.weight": BF16_ROWS}

INTEGERS = {
    t: np.iinfo(np.dtype(f"{'u' if t.name.startswith('U') else 'i'}{int(t.name[1:]) // 8}"))
    for t in ValueType
    if t.name[0] in "UI"
}


def as_ggml_has_it(plan: GgufPlan) -> list[list[Any]]:
    data_offset = len(plan.header)
    return [[t.name, t.type.id, [*t.ne, 1, 1, 1][:4], t.offset - data_offset, t.n_bytes] for t in plan.tensors.values()]


def refused(kv: dict[str, GgufValue], *tensors: tuple[str, GgmlType, tuple[int, ...]], **options: int) -> str:
    with pytest.raises(GgufError) as refusal:
        plan_gguf(kv, tensors, **options)
    return str(refusal.value)


def test_file_is_byte_identical_to_that_of_gguf_py(tmp_path: Path) -> None:
    write_with_gguf_py(tmp_path / "theirs.gguf")
    ours = write_plan(tmp_path / "ours.gguf", plan_gguf(KV, TENSORS), DATA)
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_gguf_py_reads_the_tensors(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write_plan(tmp_path / "f.gguf", plan_gguf(KV, TENSORS), DATA))
    assert [(t.name, t.data.tobytes()) for t in reader.tensors] == [(name, a.tobytes()) for name, a in DATA.items()]


def test_ggml_has_every_value_and_offset_as_planned(tmp_path: Path) -> None:
    plan = plan_gguf(KV, TENSORS)
    theirs = ggml_read(write_plan(tmp_path / "f.gguf", plan))
    assert theirs is not None
    assert theirs["data_offset"] == len(plan.header)
    assert theirs["tensors"] == as_ggml_has_it(plan)
    for (key, value_type, element_type, found), (our_key, ours) in zip(theirs["kv"], KV.items(), strict=True):
        assert (key, value_type, element_type) == (our_key, ours.type, ours.element_type)
        expected = [ours.value] if not isinstance(ours.value, list) else ours.value
        found = [found] if not isinstance(found, list) else found
        assert [x.encode("latin-1").decode() if isinstance(x, str) else x for x in found] == pytest.approx(expected)


@pytest.mark.parametrize(
    "ggml_type", [kind for kind in GGML_TYPES.values() if kind is not OLLAMA_MXFP4], ids=lambda t: t.name
)
def test_ggml_accepts_every_type_where_it_was_planned(ggml_type: GgmlType, tmp_path: Path) -> None:
    shape = (3, 2 * ggml_type.block_elements)
    plan = plan_gguf({}, [("a", ggml_type, shape), ("b", ggml_type, shape), ("c", F32, (1,))])
    theirs = ggml_read(write_plan(tmp_path / "f.gguf", plan))
    assert theirs is not None
    assert theirs["tensors"] == as_ggml_has_it(plan)


def test_ollamas_type_is_written_under_its_number_and_read_back(tmp_path: Path) -> None:
    plan = plan_gguf({}, [("a", OLLAMA_MXFP4, (3, 64))])
    path = write_plan(tmp_path / "f.gguf", plan)
    header = struct.pack("<I2QIQ", 2, 64, 3, 4, 0)  # dimensions, type, offset
    assert plan.header.rstrip(b"\0").endswith(header.rstrip(b"\0"))
    tensor = read_gguf(path).tensors["a"]
    assert (tensor.type, tensor.shape, tensor.n_bytes) == (OLLAMA_MXFP4, (3, 64), 3 * 2 * 17)
    assert ggml_read(path) is None  # ggml knows the number as that of a removed type


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_is_recorded_and_kept(alignment: int, tmp_path: Path) -> None:
    plan = plan_gguf({"k": u8(1)}, TENSORS, alignment=alignment)
    path = write_plan(tmp_path / "f.gguf", plan)
    theirs, ours = ggml_read(path), read_gguf(path)
    assert theirs is not None
    assert theirs["alignment"] == ours.alignment == alignment
    assert theirs["tensors"] == as_ggml_has_it(plan)
    assert replan(ours).header == plan.header


def test_default_alignment_is_not_recorded() -> None:
    assert b"general.alignment" not in plan_gguf({}, TENSORS).header


def test_offsets_are_the_running_sum_of_padded_sizes() -> None:
    plan = plan_gguf(KV, TENSORS)
    start = len(plan.header)
    assert start % 32 == 0
    # 2 x 3 rows of 2 blocks of 17 bytes = 204, padded 224; 20, padded 32; 42, padded 64.
    assert [(t.offset - start, t.n_bytes) for t in plan.tensors.values()] == [(0, 204), (224, 20), (256, 42)]
    assert plan.file_bytes == start + 320


def test_plan_of_what_was_read_is_byte_identical(tmp_path: Path) -> None:
    plan = plan_gguf(KV, TENSORS)
    file = read_gguf(write_plan(tmp_path / "f.gguf", plan))
    assert replan(file) == plan
    assert file.kv == KV
    assert file.tensors == plan.tensors


def test_string_that_is_not_utf8_is_carried_unchanged(tmp_path: Path) -> None:
    plan = plan_gguf({"k": GgufValue(ValueType.STRING, b"\xff\xfe")}, [])
    assert replan(read_gguf(write_plan(tmp_path / "f.gguf", plan))).header == plan.header


def test_a_file_without_tensors_is_its_header(tmp_path: Path) -> None:
    plan = plan_gguf(KV, [])
    assert plan.file_bytes == len(plan.header)
    assert ggml_read(write_plan(tmp_path / "f.gguf", plan)) is not None


def test_trailing_dimensions_of_one_are_kept(tmp_path: Path) -> None:
    plan = plan_gguf({}, [("t", F32, (1, 1, 3))])
    assert read_gguf(write_plan(tmp_path / "f.gguf", plan)).tensors["t"].shape == (1, 1, 3)
    assert ggml_read(tmp_path / "f.gguf") is not None


def test_empty_text_and_empty_arrays_are_kept(tmp_path: Path) -> None:
    kv = {"text": string(""), "texts": strings([]), "numbers": i32s([]), "floats": f32s([])}
    path = write_plan(tmp_path / "f.gguf", plan_gguf(kv, []))
    assert read_gguf(path).kv == kv
    theirs = ggml_read(path)
    assert theirs is not None
    assert [key for key, *_ in theirs["kv"]] == list(kv)


def test_values_are_equal_if_they_are_stored_alike() -> None:
    assert f32(1e-5) == f32(float(np.float32(1e-5)))
    assert i32s([1, 2]) == i32s(np.array([1, 2], np.int64))
    assert u32(1) != i32(1)
    assert u32(1) != u32(2)
    assert strings([]) != i32s([])


@pytest.mark.parametrize("value_type", INTEGERS, ids=lambda t: t.name)
def test_integers_fit_to_the_last_one_and_never_wrap(value_type: ValueType) -> None:
    limits = INTEGERS[value_type]
    for number in (limits.min, limits.max):
        plan_gguf({"k": GgufValue(value_type, number)}, [])
        plan_gguf({"k": GgufValue(ValueType.ARRAY, [number], value_type)}, [])
    for number in (int(limits.min) - 1, int(limits.max) + 1):
        for value in (GgufValue(value_type, number), GgufValue(ValueType.ARRAY, [0, number], value_type)):
            assert f"the value does not fit the type {value_type.name}" in refused({"k": value})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.0, 1e-45, 3.4028234663852886e38])
def test_float_is_stored_as_the_nearest_f32(number: float) -> None:
    for value in (f32(number), f32s([number])):
        assert struct.pack("<f", number) in plan_gguf({"k": value}, []).header


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(u32(-1), "fit the type U32; expected an integer from 0 to 4294967295; found -1", id="negative"),
        pytest.param(u32(1.0), "expected an integer from 0 to 4294967295; found 1.0", id="float-as-integer"),
        pytest.param(u32(True), "fit the type U32", id="bool-as-integer"),
        pytest.param(u32("7"), "fit the type U32; .*found '7'", id="text-as-integer"),
        pytest.param(boolean(1), "fit the type BOOL; expected true or false; found 1", id="integer-as-bool"),
        pytest.param(string(7), "fit the type STRING; expected text; found 7", id="integer-as-text"),
        pytest.param(f32(1e39), "fit the type F32", id="f32-too-large"),
        pytest.param(f32(True), "fit the type F32", id="bool-as-float"),
        pytest.param(f32s([0.0, 1e39]), r"fit the type F32; .*found 1e\+39", id="f32-too-large-in-array"),
        pytest.param(i32s([0.5]), "elements of numpy type float64", id="floats-as-integers"),
        pytest.param(i32s([2**70]), "elements of numpy type object", id="integer-beyond-64-bits"),
        pytest.param(i32s(np.zeros((2, 2), np.int32)), "one dimension; expected 1; found 2", id="two-dimensions"),
        pytest.param(strings("abc"), "a list of strings is wanted", id="one-string-as-list"),
        pytest.param(strings(["a", 7]), "fit the type STRING; .*found 7", id="integer-in-strings"),
        pytest.param(string("\ud800"), r"not valid Unicode; .*found '\\ud800'", id="lone-surrogate"),
        pytest.param(strings(["a", "\udfff"]), r"not valid Unicode; .*found '\\udfff'", id="lone-surrogate-in-strings"),
        pytest.param(GgufValue(ValueType.ARRAY, [1]), "element type cannot be stored", id="array-of-nothing"),
        pytest.param(GgufValue(ValueType.ARRAY, [], ValueType.ARRAY), "element type cannot", id="array-of-arrays"),
    ],
)
def test_value_that_does_not_fit_is_refused_by_key(value: GgufValue, message: str) -> None:
    with pytest.raises(GgufError, match=f"^key 'some.key': .*{message}"):
        plan_gguf({"some.key": value}, [])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        pytest.param(("n" * 64, F32, (4,)), "at most 63 bytes; found 64 bytes", id="name-64-bytes"),
        pytest.param(("é" * 32, F32, (4,)), "at most 63 bytes; found 64 bytes", id="name-64-bytes-of-utf8"),
        pytest.param(("", F32, (4,)), "a tensor name is empty", id="name-empty"),
        pytest.param(("a\0b", F32, (4,)), "a tensor name holds a NUL", id="name-nul"),
        pytest.param(("\ud800", F32, (4,)), "a tensor's name is not valid Unicode", id="name-surrogate"),
        pytest.param(("t", F32, ()), "tensor 't': wrong number of dimensions; expected 1 to 4; found 0", id="dims-0"),
        pytest.param(("t", F32, (1,) * 5), "tensor 't': wrong number of dim.*found 5", id="dims-5"),
        pytest.param(("t", F32, (4, 0)), "tensor 't': the tensor is empty", id="empty"),
        pytest.param(("t", F32, (-4,)), "tensor 't': the tensor is empty", id="negative"),
        pytest.param(("t", F16, (2**32, 2**31)), "tensor 't': .*more elements than ggml can count", id="too-large"),
        pytest.param(("t", MXFP4, (64, 33)), "tensor 't': .*whole number of MXFP4.*of 32; found 33", id="rows"),
        pytest.param(("t", Q8_0, (32, 16)), "tensor 't': .*whole number of Q8_0 blocks", id="rows-of-q8_0"),
    ],
)
def test_tensor_that_ggml_cannot_hold_is_refused(tensor: tuple[str, GgmlType, tuple[int, ...]], message: str) -> None:
    with pytest.raises(GgufError, match=message):
        plan_gguf({}, [("first", F32, (4,)), tensor])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: refused({"": u8(0)}), "a key is empty", id="key-empty"),
        pytest.param(lambda: refused({"a\0": u8(0)}), "a key holds a NUL", id="key-nul"),
        pytest.param(lambda: refused({"k" * 65536: u8(0)}), "at most 65535 bytes", id="key-too-long"),
        pytest.param(lambda: refused({}, ("t", F32, (1,)), ("t", F32, (1,))), "same name", id="two-of-a-name"),
        pytest.param(lambda: refused({}, alignment=24), "a power of two; found 24", id="alignment-24"),
        pytest.param(lambda: refused({}, alignment=0), "a power of two; found 0", id="alignment-0"),
        pytest.param(
            lambda: refused({"general.alignment": u32(64)}), "another alignment; expected 32; found 64", id="alignments"
        ),
        pytest.param(lambda: refused({"k": string("x" * (64 << 20))}), "too long for a GGUF header", id="header"),
        pytest.param(lambda: refused({str(i): u8(0) for i in range(65537)}), "too many keys", id="too-many-keys"),
    ],
)
def test_file_that_ggml_cannot_hold_is_refused(make: Callable[[], str], message: str) -> None:
    assert message in make()
