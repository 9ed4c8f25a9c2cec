"""Names near to one that is nowhere: repositories that many have, and what lies in the same directory."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

WELL_KNOWN = (
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
    "openai/gpt-oss-safeguard-20b",
    "openai/gpt-oss-safeguard-120b",
    "unsloth/gpt-oss-20b",
    "unsloth/gpt-oss-120b",
    "unsloth/gpt-oss-20b-BF16",
    "unsloth/gpt-oss-120b-BF16",
    "unsloth/gpt-oss-20b-GGUF",
    "unsloth/gpt-oss-120b-GGUF",
    "ggml-org/gpt-oss-20b-GGUF",
    "ggml-org/gpt-oss-120b-GGUF",
    "lmstudio-community/gpt-oss-20b-GGUF",
    "lmstudio-community/gpt-oss-120b-GGUF",
    "lmstudio-community/gpt-oss-20b-MLX-8bit",
    "lmstudio-community/gpt-oss-120b-MLX-8bit",
    "mlx-community/gpt-oss-20b-MXFP4-Q4",
    "mlx-community/gpt-oss-20b-MXFP4-Q8",
    "mlx-community/gpt-oss-120b-MXFP4-Q4",
    "mlx-community/gpt-oss-120b-MXFP4-Q8",
)
"""Repositories of gpt-oss on the Hub, the official ones first."""

_CUTOFF = 0.75
_SHOWN = 3
_MOST_ENTRIES = 10_000


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """At most three of the known names that are spelled much like `name`, the nearest first; case does not count."""
    spelled: dict[str, list[str]] = {}
    for one in known:
        spelled.setdefault(one.lower(), []).append(one)
    near = difflib.get_close_matches(name.lower(), list(spelled), n=_SHOWN, cutoff=_CUTOFF)
    return [one for key in near for one in spelled[key]][:_SHOWN]


def near_repositories(text: str) -> list[str]:
    """Well-known repositories that `text` may mean; without an owner, those that are called so, official ones first."""
    if "/" in text:
        return [one for one in near_names(text, WELL_KNOWN) if one != text]
    owned: dict[str, list[str]] = {}
    for one in WELL_KNOWN:
        owned.setdefault(one.partition("/")[2], []).append(one)
    return [one for name in near_names(text, owned)[:1] for one in owned[name]][:_SHOWN]


def near_paths(text: str) -> list[str]:
    """Paths that exist and are spelled much like `text`, which does not, in the last of its directories that is there.

    For `models/gpt-os/model.gguf` these are names in `models` near to `gpt-os`.
    """
    missing = Path(text)
    while missing.name and not os.path.lexists(missing.parent):
        missing = missing.parent
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except (OSError, ValueError):  # not to be read; a NUL in it
        return []
    return [str(missing.parent / name) for name in near_names(missing.name, sorted(names))]


def did_you_mean(names: Iterable[str]) -> str:
    """The question, with a space behind it; nothing if there are no names."""
    meant = " or ".join(list(names)[:_SHOWN])
    return f"Did you mean {meant}? " if meant else ""
