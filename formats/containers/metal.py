"""OpenAI's Metal model file: a strict, bounded reader and a byte-exact builder of its header.

    byte      0  magic: "GPT-OSS v1.0", then uint32 0
             16  UUID of the model family
             32  17 numbers (`MetalFields`), little-endian
            100  UUID of the weights' layout
            116  UUID of the tokenizer's format
            132  uint32 S special tokens, N text tokens, R bytes of pattern, B bytes of text tokens
            148  S × UUID: what the special token N + i does, zero for nothing
    148 +  16·S  the pattern that splits text: ASCII, NUL at its end, R bytes in all
        + R      N × (uint16 length, bytes): the text tokens, B bytes in all
        + B      zeros up to a multiple of 16384, where the weights begin

UUIDs are in the byte order of RFC 9562. The weights are never touched here; no list of them is in the file.

Source: openai/gpt-oss `gpt_oss/metal/scripts/create-local-model.py`, `gpt_oss/metal/source/model.c`. Stricter than
both: sizes are bounded, counts are at least 1, floats are finite, no UUID comes twice, no token is empty, the tokens
fill their section, the pattern has one NUL, the padding is zero.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from ..errors import MetalError
from ..json_text import excerpt, open_regular_file
from .metal_types import (
    APPLE_GPU_LAYOUT,
    FIELD_BYTES,
    MAGIC,
    MAX_REGEX_BYTES,
    MAX_SPECIAL_TOKENS,
    MAX_TOKENS_BYTES,
    MIN_TOKEN_BYTES,
    MODEL_UUID,
    NO_UUID,
    PAGE_BYTES,
    TIKTOKEN_TOKENIZER,
    MetalFields,
    MetalFile,
    MetalTokenizer,
    MetalTokens,
    check_specials,
    decode_fields,
    encode_fields,
    encode_regex,
    encode_tokens,
    refusal,
)

_FAMILY = b"GPT-OSS v"
_LFS_POINTER = b"version https://git-lfs"[: len(MAGIC)]
_UUID_BYTES = 16


def read_metal(path: Path) -> MetalFile:
    """The header of the file, every rule of the format checked; reads at most 17 MB, whatever the file holds.

    Raises:
        MetalError: the file is missing or unreadable, or breaks a rule of the format.
    """
    with open_regular_file(path, error=MetalError) as handle:
        cursor = _Cursor(handle, path)
        _read_magic(cursor)
        _expect_uuid(cursor, MODEL_UUID, "model family")
        fields = decode_fields(cursor.take(FIELD_BYTES, "the model header"), path)
        _expect_uuid(cursor, APPLE_GPU_LAYOUT, "weights layout")
        _expect_uuid(cursor, TIKTOKEN_TOKENIZER, "tokenizer format")
        tokenizer = _read_tokenizer(cursor)
        _read_padding(cursor)
    return MetalFile(path, cursor.file_bytes, fields, APPLE_GPU_LAYOUT, tokenizer, cursor.position)


def build_metal_header(fields: MetalFields, tokenizer: MetalTokenizer) -> bytes:
    """The bytes before the weights: what `read_metal` reads gives the same bytes again.

    Raises:
        MetalError: a value that the format cannot hold.
    """
    check_specials(tokenizer.specials, len(tokenizer.tokens))
    regex = encode_regex(tokenizer.regex)
    tokens = encode_tokens(tokenizer.tokens)
    sizes = (len(tokenizer.specials), len(tokenizer.tokens), len(regex), len(tokens))
    parts = [
        MAGIC,
        MODEL_UUID.bytes,
        encode_fields(fields),
        APPLE_GPU_LAYOUT.bytes,
        TIKTOKEN_TOKENIZER.bytes,
        *(size.to_bytes(4, "little") for size in sizes),
        *((role or NO_UUID).bytes for role in tokenizer.specials.values()),
        regex,
        tokens,
    ]
    header = b"".join(parts)
    return header + bytes(-len(header) % PAGE_BYTES)


class _Cursor:
    """A position in the header; nothing is read before the file is known to have it."""

    def __init__(self, handle: BinaryIO, path: Path) -> None:
        self.path = path
        self.file_bytes = os.fstat(handle.fileno()).st_size
        self.position = 0
        self._handle = handle

    def take(self, n_bytes: int, what: str) -> bytes:
        left = self.file_bytes - self.position
        if n_bytes > left:
            expected, found = f"{n_bytes:,} bytes", f"{left:,} bytes left"
            raise refusal(self.path, f"the file ends within {what}", expected=expected, found=found)
        raw = self._handle.read(n_bytes)
        if len(raw) != n_bytes:
            raise refusal(self.path, "the file became shorter while it was read")
        self.position += n_bytes
        return raw

    def count(self, what: str, most: int) -> int:
        number = int.from_bytes(self.take(4, "the tokenizer header"), "little")
        if number > most:
            expected, found = f"at most {most:,}", f"{number:,}"
            raise refusal(self.path, f"impossible number of {what}", expected=expected, found=found)
        return number


def _read_magic(cursor: _Cursor) -> None:
    magic = cursor.take(min(len(MAGIC), cursor.file_bytes), "the magic")
    if magic == _LFS_POINTER:
        problem, remedy = "this is a Git LFS pointer, not the file itself", "Run `git lfs pull`."
        raise refusal(cursor.path, problem, remedy=remedy)
    if not magic.startswith(_FAMILY):
        problem, remedy = "this is not a Metal model file", "Give the model.bin of a gpt-oss checkpoint."
        raise refusal(cursor.path, problem, expected=excerpt(MAGIC), found=excerpt(magic), remedy=remedy)
    if magic != MAGIC:
        problem, remedy = "unknown version of a Metal model file", "Convert from the checkpoint it was made of."
        raise refusal(cursor.path, problem, expected=excerpt(MAGIC), found=excerpt(magic), remedy=remedy)


def _expect_uuid(cursor: _Cursor, expected: UUID, what: str) -> None:
    found = UUID(bytes=cursor.take(_UUID_BYTES, f"the UUID of the {what}"))
    if found != expected:
        remedy = "Convert from the checkpoint it was made of."
        raise refusal(cursor.path, f"unknown {what}", expected=str(expected), found=str(found), remedy=remedy)


def _read_tokenizer(cursor: _Cursor) -> MetalTokenizer:
    n_special = cursor.count("special tokens", MAX_SPECIAL_TOKENS)
    n_text = cursor.count("text tokens", MAX_TOKENS_BYTES // MIN_TOKEN_BYTES)
    regex_bytes = cursor.count("bytes of split pattern", MAX_REGEX_BYTES)
    tokens_bytes = cursor.count("bytes of text tokens", MAX_TOKENS_BYTES)
    if tokens_bytes < MIN_TOKEN_BYTES * n_text:
        expected, found = f"at least {MIN_TOKEN_BYTES * n_text:,} bytes for {n_text:,} tokens", f"{tokens_bytes:,}"
        raise refusal(cursor.path, "the text tokens do not fit their section", expected=expected, found=found)
    roles = cursor.take(_UUID_BYTES * n_special, "the special tokens")
    specials = {n_text + place: _role(roles, place) for place in range(n_special)}
    check_specials(specials, n_text, cursor.path)
    regex = _read_regex(cursor, regex_bytes)
    section = cursor.take(tokens_bytes, "the text tokens")
    return MetalTokenizer(regex, MetalTokens(section, _token_ends(section, n_text, cursor.path)), specials)


def _role(roles: bytes, place: int) -> UUID | None:
    role = UUID(bytes=roles[_UUID_BYTES * place : _UUID_BYTES * (place + 1)])
    return None if role == NO_UUID else role


def _read_regex(cursor: _Cursor, n_bytes: int) -> str:
    raw = cursor.take(n_bytes, "the split pattern")
    if not raw or raw.find(b"\0") != n_bytes - 1 or not raw.isascii():
        found = excerpt(raw)
        raise refusal(cursor.path, "the split pattern is malformed", expected="ASCII, then one NUL", found=found)
    return raw[:-1].decode("ascii")


def _token_ends(section: bytes, n_text: int, path: Path) -> array[int]:
    """Where each token ends, after a leading 0. The loop is flat because there are 200,000 tokens."""
    ends = array("I", [0])
    end, n_bytes = 0, len(section)
    for token_id in range(n_text):
        # Past the end the slice is short: the number is then small, and the check below finds it out.
        length = int.from_bytes(section[end : end + 2], "little")
        end += 2 + length
        if length == 0 or end > n_bytes:
            raise _bad_token(path, token_id, length, n_bytes - end + length)
        ends.append(end)
    if end != n_bytes:
        problem, expected = "the text tokens do not fill their section", f"{n_bytes:,} bytes"
        raise refusal(path, problem, expected=expected, found=f"{end:,} bytes")
    return ends


def _bad_token(path: Path, token_id: int, length: int, left: int) -> MetalError:
    if left < 0:
        return refusal(path, f"the length of text token {token_id} reaches past the end of its section")
    if length == 0:
        return refusal(path, f"text token {token_id} is empty", expected="at least 1 byte")
    expected, found = f"at most {left:,} bytes", f"{length:,}"
    return refusal(path, f"text token {token_id} reaches past the end of its section", expected=expected, found=found)


def _read_padding(cursor: _Cursor) -> None:
    begin = cursor.position
    padding = cursor.take(-begin % PAGE_BYTES, "the padding before the weights")
    if any(padding):
        offset = next(place for place, byte in enumerate(padding) if byte)
        found = f"{padding[offset]:#04x} at byte {begin + offset:,}"
        raise refusal(cursor.path, "the padding before the weights is not zero", expected="zeros", found=found)
