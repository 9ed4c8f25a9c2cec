"""Malformed GGUF files, one per rule of the format, built from raw bytes and with none of the package's code.

`CASES` is the corpus; `VALID` is the small sound file that every case is a variation of.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
TYPE_F32, TYPE_Q4_0, TYPE_MXFP4 = 0, 2, 39


@dataclass(frozen=True)
class Case:
    """`data` must be refused with a message that matches `message`; `ggml_refuses` says whether ggml does so too."""

    id: str
    data: bytes
    message: str
    ggml_refuses: bool = True


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number % 2**64)


def text(raw: bytes) -> bytes:
    return u64(len(raw)) + raw


def kv(key: bytes, value_type: int, payload: bytes) -> bytes:
    return text(key) + u32(value_type) + payload


def array(element_type: int, n: int, payload: bytes) -> bytes:
    return u32(element_type) + u64(n) + payload


def info(name: bytes, ne: tuple[int, ...], type_id: int, offset: int) -> bytes:
    return text(name) + u32(len(ne)) + b"".join(map(u64, ne)) + u32(type_id) + u64(offset)


def gguf(
    kvs: list[bytes],
    infos: list[bytes],
    n_data: int,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_kv: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file of these parts with `n_data` zero bytes of data; the counts may lie."""
    header = magic + u32(version)
    header += u64(len(infos) if n_tensors is None else n_tensors) + u64(len(kvs) if n_kv is None else n_kv)
    header += b"".join(kvs) + b"".join(infos)
    return header + bytes(-len(header) % alignment) + bytes(n_data)


ARCH = kv(b"general.architecture", STRING, text(b"test"))
KVS = [
    ARCH,
    kv(b"test.count", U32, u32(7)),
    kv(b"test.flag", BOOL, b"\x01"),
    kv(b"test.tokens", ARRAY, array(STRING, 3, text(b"a") + text(b"") + text("é".encode()))),
    kv(b"test.types", ARRAY, array(I32, 3, struct.pack("<3i", -1, 0, 1))),
]
# 5 x 4 = 20 bytes of F32, then 2 rows of 64 MXFP4 elements = 68 bytes; both padded.
INFOS = [info(b"norm", (5,), TYPE_F32, 0), info(b"experts", (64, 2), TYPE_MXFP4, 32)]
N_DATA = 32 + 96
VALID = gguf(KVS, INFOS, N_DATA)
HEADER_BYTES = len(VALID) - N_DATA


def with_kv(*kvs: bytes, n_data: int = N_DATA) -> bytes:
    return gguf([ARCH, *kvs], INFOS, n_data)


def with_info(*infos: bytes, n_data: int = 4096) -> bytes:
    return gguf([ARCH], list(infos), n_data)


def _preamble() -> list[Case]:
    return [
        Case("magic", gguf(KVS, INFOS, N_DATA, magic=b"GGML"), r"not a GGUF file; expected b'GGUF'; found b'GGML'"),
        Case("zeros", bytes(256), r"not a GGUF file"),
        Case("no-bytes", b"", r"the magic reaches past the end"),
        Case("only-magic", b"GGUF", r"the version reaches past the end"),
        Case("version-0", gguf(KVS, INFOS, N_DATA, version=0), r"unknown GGUF version; expected 2 or 3; found 0"),
        Case("version-1", gguf(KVS, INFOS, N_DATA, version=1), r"unknown GGUF version.*found 1"),
        Case("version-4", gguf(KVS, INFOS, N_DATA, version=4), r"unknown GGUF version.*found 4"),
        Case("big-endian", gguf(KVS, INFOS, N_DATA, version=3 << 24), r"big-endian"),
        Case("n-tensors-negative", gguf(KVS, INFOS, N_DATA, n_tensors=-1), r"impossible number of tensors.*found -1\b"),
        Case("n-tensors-huge", gguf(KVS, INFOS, N_DATA, n_tensors=2**60), r"impossible number of tensors"),
        Case("n-kv-negative", gguf(KVS, INFOS, N_DATA, n_kv=-(2**63)), r"impossible number of keys.*found -922"),
        Case("n-kv-huge", gguf(KVS, INFOS, N_DATA, n_kv=2**62), r"impossible number of keys"),
        Case("n-kv-cannot-fit", gguf([], [], 130, n_kv=12), r"impossible number of keys; expected 0 to 9 .*found 12"),
        Case(
            "n-tensors-one-more",
            gguf([ARCH], INFOS, 0, n_tensors=3, alignment=1),
            r"the length of the name of tensor 2 reaches past the end",
        ),
    ]


def _keys() -> list[Case]:
    long_key = kv(b"k" * 65_536, U8, b"\0")
    return [
        Case("key-length-huge", with_kv(u64(2**63) + b"x"), r"key 1 is too long; expected at most 65535 bytes"),
        Case("key-past-end", gguf([u64(65_000) + b"x"], [], 60), r"key 0 reaches past the end of the file"),
        Case("key-too-long", with_kv(long_key), r"key 1 is too long", ggml_refuses=False),
        Case("key-empty", with_kv(kv(b"", U8, b"\0")), r"a key is empty"),
        Case("key-not-utf8", with_kv(kv(b"\xff\xfe", U8, b"\0")), r"a key is not UTF-8", ggml_refuses=False),
        Case("key-nul", with_kv(kv(b"a\0b", U8, b"\0")), r"a key holds a NUL byte", ggml_refuses=False),
        Case("key-twice", with_kv(ARCH), r"key 'general.architecture': the key is there twice"),
    ]


def _values() -> list[Case]:
    nested = array(ARRAY, 1, array(U8, 1, b"\0"))
    deep = array(ARRAY, 1, b"") * 3000
    key = r"key 'k': "
    return [
        Case("type-unknown", with_kv(kv(b"k", 13, b"\0")), key + r"the value's type is unknown; .*0 to 12; found 13"),
        Case("type-cut", gguf([text(b"key.that.ends") + b"\0"], [], 0, alignment=1), r"the value's type reaches past"),
        Case("value-cut", gguf([kv(b"k", U64, b"\0")], [], 0, alignment=1), key + r"the value reaches past"),
        Case("bool-2", with_kv(kv(b"k", BOOL, b"\2")), key + r"a bool is neither 0 nor 1.*found 2", ggml_refuses=False),
        Case(
            "bool-2-in-array",
            with_kv(kv(b"k", ARRAY, array(BOOL, 2, b"\1\2"))),
            key + r"a bool of the array is neither",
            ggml_refuses=False,
        ),
        Case("string-huge", with_kv(kv(b"k", STRING, u64(2**64 - 1))), key + r"the string reaches past the end"),
        Case("string-past-end", with_kv(kv(b"k", STRING, u64(4096) + b"x")), key + r"the string reaches past the end"),
        Case("array-type-unknown", with_kv(kv(b"k", ARRAY, array(99, 1, b"\0"))), r"element type is unknown.*found 99"),
        Case("array-nested", with_kv(kv(b"k", ARRAY, nested)), key + r"the value is an array of arrays"),
        Case("array-nested-3000-deep", with_kv(kv(b"k", ARRAY, deep)), key + r"the value is an array of arrays"),
        Case("array-u8-1e9", with_kv(kv(b"k", ARRAY, array(U8, 10**9, b""))), key + r"an array of 1000000000 U8 reach"),
        Case("array-huge", with_kv(kv(b"k", ARRAY, array(U64, 2**61, b""))), key + r"an array of 2305\d+ U64 reaches"),
        Case(
            "strings-1e9", with_kv(kv(b"k", ARRAY, array(STRING, 10**9, b""))), key + r"an array of 10+ strings reach"
        ),
        Case("strings-huge", with_kv(kv(b"k", ARRAY, array(STRING, 2**64 - 1, b""))), r"an array of 184\d+ strings"),
        Case(
            "string-in-array-huge",
            with_kv(kv(b"k", ARRAY, array(STRING, 2, text(b"a") + u64(2**64 - 1)))),
            key + r"string 1 of the array reaches past the end",
        ),
        Case(
            "strings-cut",
            gguf([kv(b"k", ARRAY, array(STRING, 3, text(b"x" * 24)))], [], 0, alignment=1),
            key + r"the length of string 1 reaches past the end",
        ),
    ]


def _alignment() -> list[Case]:
    def aligned(value_type: int, payload: bytes) -> bytes:
        return with_kv(kv(b"general.alignment", value_type, payload))

    key = r"key 'general.alignment': "
    return [
        Case(
            "alignment-u64", aligned(U64, u64(32)), key + r"the alignment has the wrong type; expected U32; found U64"
        ),
        Case("alignment-zero", aligned(U32, u32(0)), key + r"the alignment is not usable; .*found 0"),
        Case("alignment-24", aligned(U32, u32(24)), key + r"the alignment is not usable; .*a power of two; found 24"),
        Case(
            "alignment-array", aligned(ARRAY, array(U32, 1, u32(32))), key + r".*wrong type; expected U32; found ARRAY"
        ),
    ]


def _names_and_shapes() -> list[Case]:
    tensor = r"tensor 't': "
    product = (2**32, 2**31)
    return [
        Case("name-64-bytes", with_info(info(b"n" * 64, (4,), 0, 0)), r"at most 63 bytes; found 64 bytes"),
        Case("name-past-end", with_info(u64(2**40) + b"x"), r"the name of tensor 0 reaches past the end"),
        Case("name-empty", with_info(info(b"", (4,), 0, 0), n_data=32), r"a tensor name is empty", ggml_refuses=False),
        Case(
            "name-nul",
            with_info(info(b"a\0b", (4,), 0, 0), n_data=32),
            r"a tensor name holds a NUL",
            ggml_refuses=False,
        ),
        Case(
            "name-not-utf8",
            with_info(info(b"\xc3\x28", (4,), 0, 0), n_data=32),
            r"a tensor name is not UTF-8",
            ggml_refuses=False,
        ),
        Case(
            "name-twice",
            with_info(info(b"t", (8,), 0, 0), info(b"t", (8,), 0, 32), n_data=64),
            tensor + r"the tensor is there twice",
        ),
        Case(
            "dims-0",
            with_info(info(b"t", (), 0, 0), n_data=32),
            tensor + r"wrong number of dimensions; expected 1 to 4; found 0",
            ggml_refuses=False,
        ),
        Case("dims-5", with_info(info(b"t", (1, 1, 1, 1, 1), 0, 0)), tensor + r"wrong number of dim.*found 5"),
        Case("dims-huge", with_info(text(b"t") + u32(2**32 - 1)), tensor + r"wrong number of dim.*found 4294967295"),
        Case(
            "dim-zero",
            with_info(info(b"t", (8, 0), 0, 0), n_data=0),
            tensor + r"the tensor is empty",
            ggml_refuses=False,
        ),
        Case("dim-negative", with_info(info(b"t", (-8,), 0, 0)), tensor + r".*more elements than ggml can count"),
        Case("product-overflow", with_info(info(b"t", product, 0, 0)), tensor + r".*more elements than ggml can count"),
        Case("product-wraps-to-0", with_info(info(b"t", (2**32, 2**32), 0, 0)), tensor + r".*more elements than ggml"),
        Case("bytes-overflow", with_info(info(b"t", (2**62,), 0, 0)), tensor + r"the file is \d+ bytes too short"),
        Case(
            "row-not-whole-blocks", with_info(info(b"t", (48,), TYPE_MXFP4, 0)), tensor + r".*multiple of 32; found 48"
        ),
        Case("infos-cut", gguf([ARCH], [info(b"t", (8,), 0, 0)[:-1]], 0, alignment=1), tensor + r"the offset reach"),
        Case("shape-cut", gguf([ARCH], [text(b"tensor.name.long") + u32(4)], 5), r"the shape reaches past the end"),
    ]


def _types() -> list[Case]:
    def typed(type_id: int) -> bytes:
        return with_info(info(b"t", (256,), type_id, 0))

    removed = [
        Case(f"type-removed-{i}", typed(i), rf"tensor 't': the tensor's type was removed from ggml.*found {i} \(")
        for i in (5, 31, 32, 33, 36, 37, 38)
    ]
    return [
        *removed,
        Case(
            "ollama-row-not-whole-blocks",
            with_info(info(b"t", (48,), 4, 0)),
            r"tensor 't': a row is not a whole number of OLLAMA_MXFP4 blocks; .*multiple of 32; found 48",
        ),
        Case("type-43", typed(43), r"tensor 't': unknown tensor type; expected 0 to 42; found 43"),
        Case("type-huge", typed(2**32 - 1), r"tensor 't': unknown tensor type.*found 4294967295"),
    ]


def _offsets() -> list[Case]:
    def second_at(offset: int) -> bytes:
        return with_info(info(b"a", (8,), 0, 0), info(b"b", (8,), 0, offset))

    tensor, n_data = r"tensor 'b': the tensor does not follow the one before it; expected 32; found ", N_DATA
    last_bytes = 68  # of the second tensor, without its padding
    return [
        Case("offset-gap", second_at(64), tensor + "64"),
        Case("offset-overlap", second_at(0), tensor + "0"),
        Case("offset-misaligned", second_at(33), tensor + "33"),
        Case("offset-wraps", second_at(2**64 - 32), tensor + str(2**64 - 32)),
        Case("offset-first-not-0", with_info(info(b"a", (8,), 0, 32)), r"tensor 'a': .*expected 0; found 32"),
        Case(
            "offset-out-of-order",
            with_info(info(b"b", (8,), 0, 32), info(b"a", (8,), 0, 0)),
            r"tensor 'b': .*expected 0; found 32",
        ),
        Case("data-absent", gguf(KVS, INFOS, 0), r"tensor 'norm': the file is 100 bytes too short", ggml_refuses=False),
        Case(
            "data-cut",
            gguf(KVS, INFOS, 32 + last_bytes - 1),
            r"tensor 'experts': the file is 1 bytes too short",
            ggml_refuses=False,
        ),
        Case("trailing-byte", gguf(KVS, INFOS, n_data + 1), r"bytes after the last tensor", ggml_refuses=False),
        Case("trailing-no-tensors", gguf(KVS, [], 1), r"bytes after the last tensor", ggml_refuses=False),
    ]


CASES = [*_preamble(), *_keys(), *_values(), *_alignment(), *_names_and_shapes(), *_types(), *_offsets()]
