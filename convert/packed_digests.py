"""The digests of packed experts beside the floats they were decoded to, so that the way back can be proven.

    {"about": …, "algorithm": "xxh3-128/leaves", "tensors": {canonical name: 32 hex digits, …}}

What the digests are of is defined in docs/digests.md. Weights that were changed since simply have others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..formats.errors import CheckpointError
from ..formats.json_text import read_json_file

PACKED_DIGESTS_FILE = "mxfp4_digests.json"

_ABOUT = (
    "Digests of the MXFP4 tensors that these experts were decoded from; gptoss-convert to-mxfp4 compares with them."
)
_ALGORITHM = "xxh3-128/leaves"
_DIGEST = re.compile("[0-9a-f]{32}")
_MAX_BYTES = 1 << 20


def packed_digests_json(digests: Mapping[str, str]) -> bytes:
    """The bytes of the file."""
    content = {"about": _ABOUT, "algorithm": _ALGORITHM, "tensors": dict(digests)}
    return json.dumps(content, indent=1).encode() + b"\n"


def packed_digests_bytes(names: Iterable[str]) -> int:
    """How long the file is for these tensors, before their digests are known."""
    return len(packed_digests_json(dict.fromkeys(names, "0" * 32)))


def read_packed_digests(directory: Path) -> dict[str, str]:
    """The digests in `directory` by canonical name; none if the file is not there. Raises CheckpointError."""
    path = directory / PACKED_DIGESTS_FILE
    if not path.is_file():
        return {}
    content = read_json_file(path, max_bytes=_MAX_BYTES, max_depth=4, error=CheckpointError)
    tensors = content.get("tensors") if isinstance(content, dict) and content.get("algorithm") == _ALGORITHM else None
    if not isinstance(tensors, dict) or not all(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in tensors.values()
    ):
        raise CheckpointError(
            "the file does not hold digests of packed experts",
            file=path,
            expected=f"{_ALGORITHM} digests of 32 hex digits by tensor",
            remedy="Remove it: nothing else depends on it.",
        )
    return tensors
