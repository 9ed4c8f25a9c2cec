"""What a Metal model file is made of: its header's fields, its tokenizer, and the rules for both.

Source: openai/gpt-oss `gpt_oss/metal/source/include/internal/{storage,uuid}.h`, `gpt_oss/metal/source/model.c`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import overload
from uuid import UUID

from ..errors import MetalError
from ..json_text import excerpt

MAGIC = b"GPT-OSS v1.0\0\0\0\0"
MODEL_UUID = UUID("df52dc86-1789-4ed0-a295-66f10508145b")
APPLE_GPU_LAYOUT = UUID("229177a8-5775-4268-bfd8-d588b351c56d")
TIKTOKEN_TOKENIZER = UUID("7401aded-2a95-40cb-b782-9ccebaafe72b")
NO_UUID = UUID(int=0)

PAGE_BYTES = 16384
"""The weights begin on a page of Apple silicon, so that the GPU can use the mapped file."""

MAX_SPECIAL_TOKENS = 4096
"""Most special tokens taken. The official files have 16; the embedding of gpt-oss has room for 1,090."""

MAX_REGEX_BYTES = 65_536
"""Longest split pattern taken, NUL included. The official one has 275 bytes."""

MAX_TOKENS_BYTES = 16 * 2**20
"""Most bytes of text tokens taken. The official ones have 1,797,666."""

MIN_TOKEN_BYTES = 3
"""The least that one token occupies: its length and one byte."""

_FIELDS = struct.Struct("<6If4I6f")
FIELD_BYTES = _FIELDS.size
_MAX_U32 = 2**32 - 1
_MAX_F32 = (2 - 2.0**-23) * 2.0**127
_MAX_TOKEN_LENGTH = 2**16 - 1


@dataclass(frozen=True, slots=True)
class MetalFields:
    """The 17 numbers of the model header, in file order: whole numbers are uint32, the others float32.

    Attributes:
        context_length: tokens, after YaRN's extension.
        num_blocks: transformer layers.
        num_experts: per layer.
        num_active_experts: used for each token.
        embedding_dim: elements of the hidden state.
        mlp_dim: elements between an expert's two matrices.
        swiglu_limit: where activations are clamped.
        head_dim: elements of one attention head.
        num_heads: query heads.
        num_kv_heads: key heads, and value heads.
        attention_window: tokens that a sliding layer sees, the current one included.
        rope_theta: base of the rotation frequencies.
        interpolation_scale: factor on the positions of slow dimensions, 1 / YaRN's factor.
        yarn_offset, yarn_scale: dimension pair i is interpolated by `i · yarn_scale + yarn_offset`, clamped to 0..1.
        yarn_multiplier: factor on cosines and sines.
        rmsnorm_epsilon: added to the mean square.
    """

    context_length: int
    num_blocks: int
    num_experts: int
    num_active_experts: int
    embedding_dim: int
    mlp_dim: int
    swiglu_limit: float
    head_dim: int
    num_heads: int
    num_kv_heads: int
    attention_window: int
    rope_theta: float
    interpolation_scale: float
    yarn_offset: float
    yarn_scale: float
    yarn_multiplier: float
    rmsnorm_epsilon: float


class MetalTokens(Sequence[bytes]):
    """Text tokens by id, each cut from the file's bytes when it is asked for.

    Args:
        section: per token a uint16 length and as many bytes.
        ends: where each token ends in `section`, after a leading 0.
    """

    def __init__(self, section: bytes, ends: array[int]) -> None:
        self._section = section
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return self._section[self._ends[place] + 2 : self._ends[place + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return (self._section[begin + 2 : end] for begin, end in pairwise(self._ends))


@dataclass(frozen=True, eq=False)
class MetalTokenizer:
    """The tokenizer in the header.

    Attributes:
        regex: the pattern that splits text; ASCII.
        tokens: bytes of the text tokens; a token's id is its place.
        specials: by id, from `len(tokens)` on without a gap: the UUID that says what the token does, None for nothing.
    """

    regex: str
    tokens: Sequence[bytes]
    specials: Mapping[int, UUID | None]

    @property
    def n_tokens(self) -> int:
        """Rows of the embedding."""
        return len(self.tokens) + len(self.specials)


@dataclass(frozen=True, eq=False)
class MetalFile:
    """A checked header. The weights fill the file from `weights_offset` on."""

    path: Path
    file_bytes: int
    fields: MetalFields
    layout: UUID
    tokenizer: MetalTokenizer
    weights_offset: int

    @property
    def weights_bytes(self) -> int:
        """Bytes from `weights_offset` to the end of the file."""
        return self.file_bytes - self.weights_offset


def decode_fields(raw: bytes, file: Path | None = None) -> MetalFields:
    """The fields in `raw`, 68 bytes, checked. Raises MetalError."""
    decoded = MetalFields(*_FIELDS.unpack(raw))
    _check_fields(decoded, file)
    return decoded


def encode_fields(model: MetalFields) -> bytes:
    """The 68 bytes of the fields; numbers with a fraction are rounded to float32. Raises MetalError."""
    _check_fields(model, None)
    return _FIELDS.pack(*astuple(model))


def _check_fields(model: MetalFields, file: Path | None) -> None:
    for field in fields(model):
        value = getattr(model, field.name)
        if field.type == "int":
            good = type(value) is int and 1 <= value <= _MAX_U32
            expected = f"a whole number from 1 to {_MAX_U32:,}"
        else:
            good, expected = abs(value) <= _MAX_F32, "a finite float32"
        if not good:
            raise refusal(file, "the field is out of range", key=field.name, expected=expected, found=excerpt(value))


def check_specials(specials: Mapping[int, UUID | None], n_text: int, file: Path | None = None) -> None:
    """Nothing, if the ids follow the text tokens one by one and no UUID is there twice. Raises MetalError."""
    if len(specials) > MAX_SPECIAL_TOKENS:
        expected, found = f"at most {MAX_SPECIAL_TOKENS:,}", f"{len(specials):,}"
        raise refusal(file, "there are too many special tokens", expected=expected, found=found)
    owners: dict[UUID, int] = {}
    for place, (token_id, role) in enumerate(specials.items()):
        if token_id != n_text + place:
            problem = "the special tokens do not follow the text tokens one by one"
            raise refusal(file, problem, expected=f"id {n_text + place}", found=f"id {token_id}")
        if role is None:
            continue
        if role in owners:
            found = f"ids {owners[role]} and {token_id}"
            raise refusal(file, f"two special tokens have the UUID {role}", expected="each UUID once", found=found)
        owners[role] = token_id


def encode_regex(regex: str) -> bytes:
    """The pattern's bytes with the NUL at their end. Raises MetalError."""
    if not regex.isascii() or "\0" in regex or len(regex) >= MAX_REGEX_BYTES:
        expected = f"up to {MAX_REGEX_BYTES - 1:,} ASCII characters without NUL"
        raise refusal(None, "the split pattern cannot be stored", expected=expected, found=excerpt(regex))
    return regex.encode("ascii") + b"\0"


def encode_tokens(tokens: Sequence[bytes]) -> bytes:
    """Per token a uint16 length and its bytes. Raises MetalError."""
    parts = []
    for token_id, token in enumerate(tokens):
        if not 1 <= len(token) <= _MAX_TOKEN_LENGTH:
            expected, found = f"1 to {_MAX_TOKEN_LENGTH:,} bytes", f"{len(token):,}"
            raise refusal(None, f"text token {token_id} cannot be stored", expected=expected, found=found)
        parts.append(len(token).to_bytes(2, "little") + token)
    section = b"".join(parts)
    if len(section) > MAX_TOKENS_BYTES:
        expected, found = f"at most {MAX_TOKENS_BYTES:,} bytes", f"{len(section):,} bytes"
        raise refusal(None, "the text tokens are too long together", expected=expected, found=found)
    return section


def refusal(
    file: Path | None,
    problem: str,
    *,
    key: str | None = None,
    expected: str | None = None,
    found: str | None = None,
    remedy: str | None = None,
) -> MetalError:
    """The error. Unless a remedy is given it is that for a damaged file, or for a value not yet in a file."""
    if remedy is None:
        remedy = "Download the file again. If it stays so, the program that wrote it is at fault."
        if file is None:
            remedy = "Metal model files cannot hold it: choose another target."
    return MetalError(problem, file=file, key=key, expected=expected, found=found, remedy=remedy)
