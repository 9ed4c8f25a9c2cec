"""What is taken for a checkpoint and is none: what it is instead, and where the checkpoint is if it is near."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from ..formats.errors import CheckpointError
from ..model.config import CONFIG_FILE
from ..model.foreign import ADAPTER_CONFIG

GENERAL = f"Give the directory that holds {CONFIG_FILE} and model.safetensors.index.json."
_SAVE_ANEW = (
    "Download the safetensors of the same model, or write them with transformers: "
    "AutoModelForCausalLM.from_pretrained(directory).save_pretrained(new_directory)."
)
_UNPACK = "Unpack it, and give the directory that it holds."

_CONFIGS = (CONFIG_FILE, ADAPTER_CONFIG)
_HEAD_BYTES = 512
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAGICS = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`."),
    (0, b"PK\3\4", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a rar archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
)

_LATER_SHARD = re.compile(r".*-(?!00001)\d{5}-of-\d{5}\.gguf", re.DOTALL)
_MOST_ENTRIES = 10_000
_SHOWN = 3


def not_a_checkpoint(path: Path, expected: str, found: str | None = None) -> CheckpointError:
    """The error for a path that holds no checkpoint. It is looked into unless `found` says what is there."""
    remedy = None
    if found is None:
        found, remedy = _file(path) if path.is_file() else _directory(path)
    return CheckpointError(
        "this is not a gpt-oss checkpoint", file=path, expected=expected, found=found, remedy=remedy or GENERAL
    )


def refuse_pickles(directory: Path) -> None:
    """Raises CheckpointError if the weights in `directory` are pickles and nothing else."""
    names = _names(directory)
    if not any(".safetensors" in name for name in names) and any(_is_pickle(name) for name in names):
        raise not_a_checkpoint(directory, "*.safetensors")


def _file(path: Path) -> tuple[str | None, str | None]:
    """What the file is, as far as its first bytes tell, and what to do; None where nothing is known."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "an empty file", "Download the file again."
    if head[:1] == b"\x80" or (head[:4] == b"PK\3\4" and path.suffix in _PICKLES):
        return "a pickle of PyTorch", _SAVE_ANEW
    for offset, magic, what, remedy in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return what, remedy
    parent = path.parent if path.parent.name else path.parent.absolute()
    if path.suffix in (".safetensors", ".json") and any((parent / name).is_file() for name in _CONFIGS):
        return "one file of a checkpoint", f"Give the directory {parent}."
    return None, None


def _directory(path: Path) -> tuple[str | None, str | None]:
    """What is in the directory instead, and what to do; None where nothing is known."""
    names = _names(path)
    ggufs = [name for name in names if name.endswith(".gguf") and not _LATER_SHARD.fullmatch(name)]
    if ggufs:
        return "a GGUF file" if len(ggufs) == 1 else f"{len(ggufs)} GGUF files", _give("file", path, ggufs)
    if "model.bin" in names and CONFIG_FILE not in names:
        return "model.bin", _give("file", path, ["model.bin"])
    pickles = [name for name in names if _is_pickle(name)]
    if pickles:
        return f"pickles of PyTorch: {pickles[0]}", _SAVE_ANEW
    below = islice(chain(path.glob(f"*/{CONFIG_FILE}"), path.glob(f"snapshots/*/{CONFIG_FILE}")), _SHOWN)
    inside = sorted(str(config.parent.relative_to(path)) for config in below)
    return None, _give("directory", path, inside) if inside else None


def _give(what: str, directory: Path, names: Sequence[str]) -> str:
    return f"Give the {what} " + " or ".join(str(directory / name) for name in names[:_SHOWN]) + "."


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in islice(directory.iterdir(), _MOST_ENTRIES))


def _is_pickle(name: str) -> bool:
    return Path(name).suffix in _PICKLES and name != "model.bin"
