"""Models split over several GGUF files, as llama.cpp names and reads them.

    model-00001-of-00003.gguf    all metadata, the first tensors
    model-00002-of-00003.gguf    more tensors
    model-00003-of-00003.gguf    the last tensors

Every shard is a GGUF file of its own and carries `split.no` (u16, from 0), `split.count` (u16) and
`split.tensors.count` (i32, of all shards). No tensor is divided.

Source: llama.cpp `tools/gguf-split` and `src/llama-model-loader.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

from ..errors import REPORT, GgufError, remedied
from .gguf_reader import GgufFile, read_gguf
from .gguf_types import DEFAULT_ALIGNMENT, ValueType, align_up, tensor_bytes
from .gguf_values import GgufValue
from .gguf_writer import NOT_HELD, GgufPlan, PlannedTensor, i32, plan_gguf, u16

SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"
SPLIT_TENSORS = "split.tensors.count"
SPLIT_TYPES = {SPLIT_NO: ValueType.U16, SPLIT_COUNT: ValueType.U16, SPLIT_TENSORS: ValueType.I32}
MAX_SHARDS = 65_535

_ONE_MODEL = "Download all shards of one and the same model."
_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def shard_name(stem: str, number: int, count: int) -> str:
    """The file name of shard `number` (from 1) of `count`."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def plan_gguf_split(
    kv: Mapping[str, GgufValue],
    tensors: Iterable[PlannedTensor],
    max_bytes: int,
    *,
    alignment: int = DEFAULT_ALIGNMENT,
) -> list[GgufPlan]:
    """One plan per shard, at most `max_bytes` of padded tensor data in each; a larger tensor has a shard to itself.

    If everything fits in one file, that file is plain, without split keys. Split keys in `kv` describe the files
    it came from and are left out.

    Raises:
        GgufError: as `plan_gguf`, or more than 65,535 shards.
    """
    kv = {key: value for key, value in kv.items() if key not in SPLIT_TYPES}
    tensors = list(tensors)
    with remedied(NOT_HELD):
        shards = _share_out(tensors, max_bytes, alignment)
    if len(shards) == 1:
        return [plan_gguf(kv, tensors, alignment=alignment)]
    if len(shards) > MAX_SHARDS:
        raise GgufError(
            "too many shards",
            expected=f"at most {MAX_SHARDS}",
            found=len(shards),
            remedy="Allow more bytes in each shard.",
        )
    plans = []
    for number, shard in enumerate(shards):
        split = {SPLIT_NO: u16(number), SPLIT_COUNT: u16(len(shards)), SPLIT_TENSORS: i32(len(tensors))}
        plans.append(plan_gguf({**kv, **split} if number == 0 else split, shard, alignment=alignment))
    _check_unique([(None, plan.tensors) for plan in plans])
    return plans


def _share_out(tensors: Sequence[PlannedTensor], max_bytes: int, alignment: int) -> list[list[PlannedTensor]]:
    """Fill one shard after another in order."""
    shards: list[list[PlannedTensor]] = [[]]
    shard_bytes = 0
    for name, ggml_type, shape in tensors:
        n_bytes = align_up(tensor_bytes(name, ggml_type, tuple(shape)[::-1]), alignment)
        if shards[-1] and shard_bytes + n_bytes > max_bytes:
            shards.append([])
            shard_bytes = 0
        shards[-1].append((name, ggml_type, shape))
        shard_bytes += n_bytes
    return shards


def shard_paths(first_path: str | Path, count: int) -> list[Path]:
    """The paths of all `count` shards beside the first one.

    Raises:
        GgufError: the first path is not named as shard 1 of `count`.
    """
    first_path = Path(first_path)
    match = _SHARD_NAME.fullmatch(first_path.name)
    if match is None or int(match["count"]) != count or int(match["number"]) != 1:
        raise GgufError(
            "a shard's name does not fit its place in the split model",
            file=first_path,
            expected=shard_name(match["stem"] if match else "NAME", 1, count),
            found=first_path.name,
            remedy="Give all shards the names they were published under.",
        )
    return [first_path.with_name(shard_name(match["stem"], number, count)) for number in range(1, count + 1)]


@overload
def read_gguf_shards(first_path: str | Path) -> list[GgufFile]: ...
@overload
def read_gguf_shards(*, paths: Sequence[str | Path]) -> list[GgufFile]: ...
def read_gguf_shards(
    first_path: str | Path | None = None, *, paths: Sequence[str | Path] | None = None
) -> list[GgufFile]:
    """The headers of all shards in order, checked against each other; of a plain file, a list of one.

    Give the first shard, and the others are found beside it by name; or give all `paths` in order, whatever their
    names (of files that do not have their final names yet).

    Raises:
        GgufError: a shard is missing, misnamed, out of order or broken, or the shards do not make one model.
    """
    if paths and first_path is None:
        candidates = [Path(path) for path in paths]
    elif first_path is not None and paths is None:
        candidates = [Path(first_path)]
    else:
        raise TypeError("read_gguf_shards takes the first path or all paths")
    first = read_gguf(candidates[0])
    count = _split_value(first, SPLIT_COUNT) if SPLIT_COUNT in first.kv else 0
    if count == 0 and len(candidates) == 1:  # a plain file; llama-gguf-split leaves count 0 in one it has merged
        return [first]
    if number := _split_value(first, SPLIT_NO):
        raise _not_the_first(first.path, number, count)
    if paths is None and count > 1:
        candidates = shard_paths(first.path, count)
    if len(candidates) != count:
        raise GgufError(
            "wrong number of shards", file=first.path, expected=count, found=len(candidates), remedy=_ONE_MODEL
        )
    shards = [first, *(_read_shard(path, count) for path in candidates[1:])]
    _check_shards(shards, count)
    return shards


def _read_shard(path: Path, count: int) -> GgufFile:
    if not path.exists():
        raise GgufError(
            "a shard of the model is missing",
            file=path,
            expected=f"all {count} shards in one directory",
            remedy="Download the missing shard.",
        )
    return read_gguf(path)


def _not_the_first(path: Path, number: int, count: int) -> GgufError:
    match = _SHARD_NAME.fullmatch(path.name)
    first_name = shard_name(match["stem"], 1, count) if match else "the first shard"
    return GgufError(
        f"this is shard {number + 1} of {count} of a split model",
        file=path,
        expected="shard 1",
        remedy=f"Open {first_name} instead; the others are found beside it.",
    )


def _split_value(shard: GgufFile, key: str) -> int:
    value, expected = shard.kv.get(key), SPLIT_TYPES[key]
    if value is None or value.type is not expected:
        raise GgufError(
            "the shard does not say where it belongs",
            file=shard.path,
            key=key,
            expected=f"a {expected.name}",
            found="nothing" if value is None else value.type.name,
            remedy="Split the model again with a current tool.",
        )
    number: int = value.stored
    return number


def _check_shards(shards: Sequence[GgufFile], count: int) -> None:
    n_tensors = sum(len(shard.tensors) for shard in shards)
    for number, shard in enumerate(shards):
        for key, expected in ((SPLIT_NO, number), (SPLIT_COUNT, count), (SPLIT_TENSORS, n_tensors)):
            found = _split_value(shard, key)
            if found != expected:
                raise GgufError(
                    "the shards do not belong together",
                    file=shard.path,
                    key=key,
                    expected=expected,
                    found=found,
                    remedy=_ONE_MODEL,
                )
    _check_unique([(shard.path, shard.tensors) for shard in shards])


def _check_unique(shards: Iterable[tuple[Path | None, Iterable[str]]]) -> None:
    seen: set[str] = set()
    for path, names in shards:
        for name in names:
            if name in seen:
                raise GgufError(
                    "the tensor is in two shards", file=path, tensor=name, remedy=_ONE_MODEL if path else REPORT
                )
            seen.add(name)
