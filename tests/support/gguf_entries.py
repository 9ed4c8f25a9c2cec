"""A GGUF file as a dict of tensors with their bytes: to be compared, changed, and written again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf_files import stored_bytes, write_plan

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import GgmlType
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import plan_gguf


class Entry(NamedTuple):
    """A tensor; the shape as numpy has it."""

    type: GgmlType
    shape: tuple[int, ...]
    data: bytes


Entries = dict[str, Entry]
Keys = dict[str, GgufValue]


def read_keys(path: Path) -> Keys:
    """Every key of the file."""
    return dict(read_gguf(path).kv)


def read_entries(path: Path) -> Entries:
    """Every tensor of the file, in its order."""
    file = read_gguf(path)
    return {name: Entry(one.type, one.shape, stored_bytes(file, name)) for name, one in file.tensors.items()}


def write_entries(path: Path, keys: Mapping[str, GgufValue], entries: Mapping[str, Entry]) -> Path:
    """The file that holds these and nothing else."""
    plan = plan_gguf(keys, [(name, entry.type, entry.shape) for name, entry in entries.items()])
    return write_plan(path, plan, {name: np.frombuffer(entry.data, np.uint8) for name, entry in entries.items()})
