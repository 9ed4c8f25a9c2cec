"""What a page tells its reader to type, and what it shows as code."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    """The text of every block of the page that is fenced as `language`, in order."""
    return [text for kind, text in _FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> list[str]:
    """Every line of the page's `sh` blocks, without comments."""
    lines = [line.split("  #")[0].strip() for block in code_blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
