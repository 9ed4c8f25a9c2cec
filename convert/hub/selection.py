"""Which files of a repository a job needs. Pure: names in, names out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...formats.containers.safetensors import MAX_HEADER_VALUES
from ...formats.containers.safetensors_index import INDEX_SUFFIX, MAX_INDEX_BYTES, SHARD_SUFFIX
from ...formats.errors import SafetensorsError
from ...formats.json_text import read_json_file
from ...model.config import CONFIG_FILE
from ...model.foreign import ADAPTER_CONFIG
from ..packed_digests import PACKED_DIGESTS_FILE
from ..render import size
from ..tokenizers import CARRIED
from .errors import HubError, no_such_path
from .ids import TOKENIZER_FILE, HubId
from .need import Need

# What a tokenizer is told by, and what else is carried along into an output.
_CARRIED = (TOKENIZER_FILE, "LICENSE", "USAGE_POLICY")
_FACTS = (CONFIG_FILE, *(name for name in CARRIED if name not in _CARRIED))
_BESIDE_WEIGHTS = (ADAPTER_CONFIG, PACKED_DIGESTS_FILE)

_GGUF = ".gguf"
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_LISTED = 12


@dataclass(frozen=True)
class Selection:
    """The files of one checkpoint.

    Attributes:
        opens: what `open_checkpoint` is given, relative to the repository's root; "" is the root.
        whole: small files that are read from end to end.
        weights: files with weights, of which some jobs read the headers alone.
        named: files that must only be there.
    """

    opens: str
    whole: tuple[str, ...]
    weights: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.whole, *self.weights, *self.named)


def select(wanted: HubId, n_bytes: Mapping[str, int], need: Need) -> Selection:
    """The files that `need` takes, of those in the repository (with their sizes by name).

    Raises:
        HubError: the repository holds no checkpoint there, or more than one.
    """
    path = wanted.path
    if need is Need.TOKENIZER:
        return _tokenizer(wanted, n_bytes)
    if path in n_bytes:
        return _file(wanted, n_bytes)
    inside = sorted(name for name in n_bytes if name.startswith(f"{path}/" if path else ""))
    if not inside:
        raise no_such_path(wanted, n_bytes)
    here = [name for name in inside if _folder(name) == path]
    if any(name.endswith(SHARD_SUFFIX) for name in here):
        return _directory(path, n_bytes, here, need)
    models = [name for name in inside if name.endswith(_GGUF)]
    if models:
        return _only_gguf(wanted, n_bytes, models)
    metal = [name for name in here if name.endswith(".bin") and path]
    if len(metal) == 1:
        return Selection(metal[0], (), (metal[0],))
    raise _nothing_here(wanted, n_bytes)


def index_of(selection: Selection) -> str | None:
    """The one index among the files, if there is one."""
    indexes = [name for name in selection.whole if name.endswith(INDEX_SUFFIX)]
    return indexes[0] if len(indexes) == 1 else None


def keep_named_shards(selection: Selection, wanted: HubId, index: Path, n_bytes: Mapping[str, int]) -> Selection:
    """The selection with those shards alone that the index at `index` names: others lie beside by chance.

    Raises:
        HubError: the repository lacks one of them.
        SafetensorsError: the index is not readable as one.
    """
    content = read_json_file(
        index, max_bytes=MAX_INDEX_BYTES, max_depth=8, max_values=MAX_HEADER_VALUES, error=SafetensorsError
    )
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict):
        return selection  # the reader of the directory says what is wrong
    shards = sorted({shard for shard in weight_map.values() if isinstance(shard, str)})
    names = [f"{selection.opens}/{shard}" if selection.opens else shard for shard in shards]
    missing = [name for name in names if name not in n_bytes]
    if missing:
        raise HubError(
            f"{len(missing)} of {len(names)} files that the index names are missing",
            file=str(wanted),
            expected=", ".join(missing[:_LISTED]),
            remedy="Try another revision, or tell the owner of the repository.",
        )
    return Selection(selection.opens, selection.whole, tuple(names), selection.named)


def _directory(path: str, n_bytes: Mapping[str, int], here: Sequence[str], need: Need) -> Selection:
    """Safetensors in a folder, with the tokenizer beside them or, as for `original/`, at the root."""
    prefix = f"{path}/" if path else ""
    whole = [name for name in here if name.endswith(INDEX_SUFFIX)]
    whole += [prefix + name for name in (*_FACTS, *_BESIDE_WEIGHTS)]
    home = prefix if f"{prefix}{TOKENIZER_FILE}" in n_bytes else ""
    carried = [home + name for name in _CARRIED]
    if home != prefix:
        whole += _FACTS
    weights = tuple(name for name in here if name.endswith(SHARD_SUFFIX))
    named = () if need is not Need.HEADERS else tuple(name for name in carried[:1] if name in n_bytes)
    if need is not Need.HEADERS:
        whole += carried
    return Selection(path, tuple(name for name in dict.fromkeys(whole) if name in n_bytes), weights, named)


def _tokenizer(wanted: HubId, n_bytes: Mapping[str, int]) -> Selection:
    prefix = f"{wanted.path}/" if wanted.path else ""
    if f"{prefix}{TOKENIZER_FILE}" not in n_bytes:
        raise HubError(
            f"the repository has no {TOKENIZER_FILE} there",
            file=str(wanted),
            remedy="Give one that has, such as openai/gpt-oss-20b.",
        )
    return Selection(
        wanted.path, tuple(name for name in (prefix + one for one in (*_FACTS, *_CARRIED)) if name in n_bytes)
    )


def _file(wanted: HubId, n_bytes: Mapping[str, int]) -> Selection:
    path = wanted.path
    if path.endswith(_GGUF):
        return _shards(wanted, n_bytes, path)
    if path.endswith(".bin"):
        return Selection(path, (), (path,))
    folder = wanted.at(_folder(path))
    raise HubError(
        "this file alone is no checkpoint",
        file=str(wanted),
        expected="a GGUF file, a Metal model.bin, or a folder with safetensors",
        remedy=f"Give {folder}.",
    )


def _only_gguf(wanted: HubId, n_bytes: Mapping[str, int], names: Sequence[str]) -> Selection:
    """The one model among GGUF files; the parts of a split one count as one."""
    models: dict[str, list[str]] = {}
    for name in names:
        split = _SPLIT.fullmatch(name)
        models.setdefault(split["stem"] if split else name, []).append(name)
    if len(models) == 1:
        return _shards(wanted, n_bytes, names[0])
    listed = [f"{parts[0]} ({size(sum(n_bytes[part] for part in parts))})" for parts in models.values()]
    more = f", and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    raise HubError(
        f"the repository holds {len(models)} models as GGUF",
        file=str(wanted),
        expected="one of them",
        found=", ".join(listed[:_LISTED]) + more,
        remedy=f"Name the file, such as {wanted.at(next(iter(models.values()))[0])}.",
    )


def _shards(wanted: HubId, n_bytes: Mapping[str, int], name: str) -> Selection:
    """The file, or all parts of the split model that it is one of."""
    split = _SPLIT.fullmatch(name)
    if split is None:
        return Selection(name, (), (name,))
    count = int(split["count"])
    names = [f"{split['stem']}-{number:05d}-of-{count:05d}{_GGUF}" for number in range(1, count + 1)]
    missing = [part for part in names if part not in n_bytes]
    if missing or not names:
        raise HubError(
            f"{len(missing)} of {count} parts of the split model are missing",
            file=str(wanted),
            expected=", ".join(missing[:_LISTED]),
            remedy="Try another revision, or tell the owner of the repository.",
        )
    return Selection(names[0], (), tuple(names))


def _nothing_here(wanted: HubId, n_bytes: Mapping[str, int]) -> HubError:
    folders = sorted(
        {_folder(name) for name in n_bytes if name.endswith((SHARD_SUFFIX, _GGUF, ".bin"))} - {"", wanted.path}
    )
    remedy = f"Name a folder, such as {wanted.at(folders[0])}." if folders else "Give a repository that holds weights."
    found = "adapter weights alone" if ADAPTER_CONFIG in n_bytes else "neither"
    return HubError(
        "the repository holds no weights there",
        file=str(wanted),
        expected="*.safetensors or *.gguf",
        found=found,
        remedy=remedy,
    )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
