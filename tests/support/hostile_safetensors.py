"""Safetensors files that break one rule each, and headers that cost as much as their size allows."""

from __future__ import annotations

import json
from collections.abc import Callable


def framed(text: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of `text` and `data`; `length` is the header length to claim, if not the true one."""
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(
    dtype: object = "U8", shape: object = (4,), data_offsets: object = (0, 4), **more: object
) -> dict[str, object]:
    """One tensor's header entry; by default a right one of four bytes."""
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets, **more}


def file_of(data: bytes = b"abcd", **members: object) -> bytes:
    """A file whose header has these members."""
    return framed(json.dumps(members).encode(), data)


def _members(n: int, member: str) -> bytes:
    return ("{" + ",".join(member.format(i) for i in range(n)) + "}").encode()


_TINY_ENTRY = '"{0:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'

COSTLY_HEADERS: dict[str, Callable[[int, int], bytes]] = {
    "deep nesting": lambda size, _: b'{"a":' + b"[" * (size // 2 - 4) + b"]" * (size // 2 - 4) + b"}",
    "as many empty lists as fit": lambda size, _: b'{"a":[' + b"[]," * (size // 3 - 4) + b"0]}",
    "empty lists up to the cap": lambda _, values: b'{"a":[' + b"[]," * (values // 2 - 4) + b"0]}",
    "as many entries as fit": lambda size, _: _members(size // 60, _TINY_ENTRY),
    "entries up to the cap": lambda _, values: _members(values // 12, _TINY_ENTRY),
    "metadata up to the cap": lambda _, values: (
        b'{"__metadata__":' + _members(values // 2 - 4, '"😀{0:x}":"😀"') + b"}"
    ),
    "keys up to the cap": lambda _, values: _members(values // 2 - 4, '"Ā{0:x}":0'),
    "one string": lambda size, _: b'{"a":"' + b"x" * (size - 16) + b'"}',
    "one wide string": lambda size, _: '{"a":"😀'.encode() + b"x" * (size - 16) + b'"}',
    "one string of escapes": lambda size, _: b'{"a":"' + b"\\n" * (size // 2 - 8) + b'"}',
    "one number": lambda size, _: b'{"a":' + b"1" * (size - 16) + b"}",
    "one shape": lambda _, values: (
        b'{"a":{"dtype":"U8","shape":[' + b"9," * (values - 32) + b'9],"data_offsets":[0,0]}}'
    ),
}
"""Header texts by name, from the most bytes and the most values that a reader takes."""
