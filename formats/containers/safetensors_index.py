"""A directory of safetensors: one file, or shards and the index that says which tensor lies in which.

    {"metadata": {"total_size": bytes of all tensors}, "weight_map": {tensor: shard, …}}

Which files: exactly one `*.safetensors.index.json` and the shards it names, or no index and exactly one
`*.safetensors`. Hidden files (macOS leaves `._*` beside each) and sub-directories are not looked at.

Source: transformers `modeling_utils.py`, huggingface_hub `serialization/_base.py` (the index); huggingface_hub
`file_download.py` (the cache's symlinks).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SafetensorsError
from ..json_text import clipped, excerpt, read_json_file
from .safetensors import MAX_HEADER_BYTES, MAX_HEADER_VALUES, SafetensorsHeader, read_safetensors_header

INDEX_SUFFIX = ".safetensors.index.json"
SHARD_SUFFIX = ".safetensors"

MAX_INDEX_BYTES = MAX_HEADER_BYTES
"""Longest index taken: an index names what headers name, in about as many bytes."""

_INDEX_DEPTH = 8  # the two objects need 2; the rest is room for what others put into "metadata"
_NO_PART_OF_A_NAME = frozenset("/\\:\0")
_DOWNLOAD_ALL = "Download the index and all shards again, from one version of the checkpoint."


def read_safetensors_directory(directory: Path) -> list[SafetensorsHeader]:
    """The checked header of every safetensors file of the directory, sorted by file name.

    With an index, it and the shards agree both ways: each tensor is in the shard that the index says and in no other,
    no shard holds a tensor that the index does not name, and no other safetensors file lies beside them.

    A hostile checkpoint must not make us read other files. So every file has a plain name, and its real path is inside
    the real directory. One exception: in a Hugging Face cache, files are symlinks from `<repo>/snapshots/<revision>/…`
    into `<repo>/blobs/`, so if the real directory lies in the former, real paths may lie in the latter.

    Raises:
        SafetensorsError: there is no safetensors file or more than one without an index, a file breaks a rule of its
            format, lies outside, is missing or is unnamed, or index and shards contradict each other.
    """
    names = _visible_names(directory)
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if not indexes:
        single = _only_one(directory, [name for name in names if name.endswith(SHARD_SUFFIX)], f"*{SHARD_SUFFIX}")
        return [read_safetensors_header(_confined(directory, single))]
    index = _confined(directory, _only_one(directory, indexes, f"*{INDEX_SUFFIX}"))
    weight_map, total_size = _read_index(index)
    shards = sorted(set(weight_map.values()))
    _check_shard_names(index, shards, names)
    headers = [read_safetensors_header(_confined(directory, shard)) for shard in shards]
    _check_agreement(index, weight_map, headers)
    _check_total_size(index, total_size, headers)
    return headers


def _visible_names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as problem:
        found = problem.strerror or str(problem)
        remedy = "Give the directory of a checkpoint."
        raise SafetensorsError("not a readable directory", file=directory, found=found, remedy=remedy) from None


def _only_one(directory: Path, names: list[str], pattern: str) -> str:
    if len(names) == 1:
        return names[0]
    found = clipped(", ".join(names)) if names else "none"
    remedy = "Move the others away." if names else "Give the directory that holds the weights, or download them."
    raise SafetensorsError(
        "cannot tell which files make the checkpoint",
        file=directory,
        expected=f"one {pattern}, or shards with their index",
        found=found,
        remedy=remedy,
    )


def _read_index(index: Path) -> tuple[dict[str, str], object]:
    """Tensor -> shard, and `metadata.total_size` as it is (`None` if absent). Shards have plain names."""
    members = read_json_file(
        index,
        max_bytes=MAX_INDEX_BYTES,
        max_depth=_INDEX_DEPTH,
        max_values=MAX_HEADER_VALUES,
        error=SafetensorsError,
    )
    if not isinstance(members, dict):
        raise _index_error(index, "the index is not a JSON object", found=excerpt(members))
    weight_map, metadata = members.get("weight_map"), members.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _index_error(index, "the value is not an object", key="metadata", found=excerpt(metadata))
    if not isinstance(weight_map, dict) or not weight_map:
        found = "nothing" if "weight_map" not in members else excerpt(weight_map)
        raise _index_error(
            index, "the index names no shard", key="weight_map", expected="shards by tensor", found=found
        )
    for tensor, shard in weight_map.items():
        if not _is_plain_name(shard):
            expected = "the name of a file beside the index"
            raise _index_error(
                index, "the shard has no plain name", tensor=tensor, expected=expected, found=excerpt(shard)
            )
    return weight_map, metadata.get("total_size")


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and not name.startswith(".") and name != "" and _NO_PART_OF_A_NAME.isdisjoint(name)


def _check_shard_names(index: Path, shards: list[str], names: list[str]) -> None:
    """Refuses shards that are missing, and safetensors files that the index does not name; `names` is all there is."""
    missing = sorted(set(shards) - set(names))
    if missing:
        problem = f"{len(missing)} of {len(shards)} shards missing"
        remedy = "Download the missing shards into this directory."
        raise _index_error(index, problem, expected=clipped(", ".join(missing)), remedy=remedy)
    unnamed = sorted({name for name in names if name.endswith(SHARD_SUFFIX)} - set(shards))
    if unnamed:
        remedy = "Move what does not belong to the checkpoint away; download the index again if it is out of date."
        problem = "safetensors files that the index does not name lie beside it"
        raise _index_error(index, problem, found=clipped(", ".join(unnamed)), remedy=remedy)


def _confined(directory: Path, name: str) -> Path:
    """`directory / name`, if its real path is where `read_safetensors_directory` allows."""
    path = directory / name
    real_directory, real_path = Path(os.path.realpath(directory)), Path(os.path.realpath(path))
    if not any(real_path.is_relative_to(root) for root in (real_directory, *_blobs(real_directory))):
        raise SafetensorsError(
            "the file is a link out of the checkpoint",
            file=path,
            expected=f"a file in {real_directory}",
            found=str(real_path),
            remedy="Replace the link by the file itself, or give the directory that the file is in.",
        )
    return path


def _blobs(directory: Path) -> list[Path]:
    """Where files of a snapshot in Hugging Face's cache really are: in `repository/blobs`, or where all share theirs.

    Source: huggingface_hub 2.4, which marks the directory of shared contents by a file.
    """
    snapshots = next((parent for parent in directory.parents if parent.name == "snapshots"), None)
    if snapshots is None:
        return []
    shared = snapshots.parent.parent / "blobs"
    return [snapshots.parent / "blobs", *([shared] if (shared / ".huggingface-shared-blobs").is_file() else [])]


def _check_agreement(index: Path, weight_map: dict[str, str], headers: list[SafetensorsHeader]) -> None:
    """Every tensor is in the shard that the index says, in no other, and none is unnamed."""
    holders: dict[str, str] = {}
    for header in headers:
        shard = header.path.name
        for tensor in header.entries:
            if tensor in holders:
                found = f"{holders[tensor]} and {shard}"
                raise _index_error(index, "the tensor is in two shards", tensor=tensor, expected="one", found=found)
            if tensor not in weight_map:
                problem = "the index does not name this tensor of a shard"
                raise _index_error(index, problem, tensor=tensor, found=shard)
            holders[tensor] = shard
    for tensor, shard in weight_map.items():
        if tensor not in holders:
            problem = "the tensor is in no shard"
            raise _index_error(index, problem, tensor=tensor, expected=shard)
        if holders[tensor] != shard:
            problem = "the tensor is in another shard than the index says"
            raise _index_error(index, problem, tensor=tensor, expected=shard, found=holders[tensor])


def _check_total_size(index: Path, total_size: object, headers: list[SafetensorsHeader]) -> None:
    """Refuses a total that is not the bytes of all tensors; none at all is fine."""
    n_bytes = sum(entry.n_bytes for header in headers for entry in header.entries.values())
    if total_size is None or (type(total_size) is int and total_size == n_bytes):
        return
    raise _index_error(
        index,
        "the total is not the bytes of all tensors",
        key="metadata.total_size",
        expected=f"{n_bytes}",
        found=excerpt(total_size),
        remedy=f"{_DOWNLOAD_ALL} If the shards are right, set the total to {n_bytes} or remove it.",
    )


def _index_error(
    index: Path, problem: str, *, tensor: str | None = None, remedy: str = _DOWNLOAD_ALL, **fields: str | None
) -> SafetensorsError:
    name = None if tensor is None else clipped(tensor)
    return SafetensorsError(problem, file=index, tensor=name, remedy=remedy, **fields)
