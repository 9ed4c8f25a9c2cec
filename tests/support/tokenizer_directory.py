"""A small tokenizer's files, and a way to spoil them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptoss_convert.model.demo_tokenizer import demo_tokenizer_files

# Text tokens 0..299, special tokens 300..320, no token for 321..329.
N_TEXT, VOCAB_SIZE = 300, 330

FILES = demo_tokenizer_files(N_TEXT, VOCAB_SIZE)

Edit = Callable[[dict[str, Any]], object]


def write_tokenizer(directory: Path) -> Path:
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return directory


def edit(directory: Path, name: str, change: Edit) -> None:
    """Writes the JSON file `name` back after `change` was applied to its content."""
    content = json.loads((directory / name).read_bytes())
    change(content)
    (directory / name).write_text(json.dumps(content), encoding="utf-8")
