"""Metal headers, part by part, so that each part can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

MAGIC = b"GPT-OSS v1.0" + bytes(4)
MODEL, LAYOUT, TOKENIZER = (
    UUID("df52dc86-1789-4ed0-a295-66f10508145b"),
    UUID("229177a8-5775-4268-bfd8-d588b351c56d"),
    UUID("7401aded-2a95-40cb-b782-9ccebaafe72b"),
)
START, END = UUID("55a77c2f-8a01-4c54-8ac2-313bfc7e208d"), UUID("fcac2f6d-4705-4f6b-b228-642accac7238")

# In file order; whole numbers are uint32, the others float32.
FIELDS: dict[str, int | float] = {
    "context_length": 131072,
    "num_blocks": 2,
    "num_experts": 3,
    "num_active_experts": 2,
    "embedding_dim": 96,
    "mlp_dim": 64,
    "swiglu_limit": 7.0,
    "head_dim": 16,
    "num_heads": 6,
    "num_kv_heads": 2,
    "attention_window": 128,
    "rope_theta": 150000.0,
    "interpolation_scale": 0.03125,
    "yarn_offset": -0.875,
    "yarn_scale": 0.4375,
    "yarn_multiplier": 1.34375,
    "rmsnorm_epsilon": 2.0**-17,
}
TOKENS = (b"a", b"bc", b"\xff\x00d")


def fields(**changed: Any) -> bytes:
    values = FIELDS | changed
    return b"".join(struct.pack("<I" if isinstance(value, int) else "<f", value) for value in values.values())


def section(tokens: Sequence[bytes] = TOKENS) -> bytes:
    return b"".join(struct.pack("<H", len(token)) + token for token in tokens)


def header(
    *,
    magic: bytes = MAGIC,
    model: UUID = MODEL,
    model_fields: bytes | None = None,
    layout: UUID = LAYOUT,
    tokenizer: UUID = TOKENIZER,
    sizes: dict[str, int] | None = None,
    roles: Sequence[UUID] = (START, UUID(int=0), END),
    regex: bytes = rb"\s+" + b"\0",
    tokens: bytes | None = None,
    pad: bytes | None = None,
) -> bytes:
    """A header, right unless told otherwise. `sizes` replaces stored sizes: special, text, regex, tokens."""
    tokens = section() if tokens is None else tokens
    stored = {"special": len(roles), "text": len(TOKENS), "regex": len(regex), "tokens": len(tokens)} | (sizes or {})
    head = b"".join(
        (
            magic,
            model.bytes,
            fields() if model_fields is None else model_fields,
            layout.bytes,
            tokenizer.bytes,
            struct.pack("<4I", *stored.values()),
            *(role.bytes for role in roles),
            regex,
            tokens,
        )
    )
    return head + (bytes(-len(head) % 16384) if pad is None else pad)
