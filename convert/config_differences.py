"""Which keys of two configs differ."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..model.config import GptOssConfig


def differing_keys(expected: GptOssConfig, found: GptOssConfig) -> list[tuple[str, Any, Any]]:
    """The keys of two configs whose values differ, with both."""
    pairs = []
    for part in fields(GptOssConfig):
        if part.name not in ("raw", "yarn"):
            pairs.append((part.name, getattr(expected, part.name), getattr(found, part.name)))
    for part in fields(expected.yarn):
        pairs.append((f"rope_scaling.{part.name}", getattr(expected.yarn, part.name), getattr(found.yarn, part.name)))
    return [pair for pair in pairs if pair[1] != pair[2]]
