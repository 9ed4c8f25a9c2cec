"""From a layout's table and the arrays found in files to canonical tensors. Pairs blocks with scales by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, MXFP4, QUANTIZED, Encoding
from ..formats.errors import CheckpointError
from ..model.config import GptOssConfig
from ..model.inventory import CanonicalTensor
from ..model.layouts.table import Place, Table, places
from .stored import RowSpan, StoredArray, StoredTensor

# A container's word for its elements -> the encoding of a tensor that is one array.
_SINGLE: dict[str, Encoding] = {"F32": F32, "F16": F16, "BF16": BF16, "MXFP4": GGML_MXFP4, **QUANTIZED}

_RELOAD = "Download the checkpoint again, or compare it with the official one."


def bind(arrays: Mapping[str, StoredArray], table: Table, config: GptOssConfig, where: Path) -> dict[str, StoredTensor]:
    """Every canonical tensor of the model, as `arrays` hold it, in the inventory's order.

    Raises:
        CheckpointError: a tensor is missing, of the wrong shape or dtype, half a pair, or nobody's.
    """
    bound = {place.tensor.name: _bind_one(place, arrays, where) for place in places(table, config)}
    used = {span.array.name for stored in bound.values() for span in stored.spans}
    _refuse_strangers([name for name in arrays if name not in used], arrays)
    return bound


def _bind_one(place: Place, arrays: Mapping[str, StoredArray], where: Path) -> StoredTensor:
    tensor = place.tensor
    if "{part}" in place.name:
        found = _packed_parts(place, arrays, where)
        encoding = MXFP4
    else:
        if place.name not in arrays:
            raise _missing(place, where)
        found = {"data": arrays[place.name]}
        encoding = _encoding(found["data"])
    if tensor.cols % encoding.block_elements:
        raise _wrong_shape(found["data"], tensor, f"rows that are a multiple of {encoding.block_elements} long")
    row_bytes = encoding.part_row_bytes(tensor.cols)
    for part, array in found.items():
        shape = place.part_shape(part)
        if array.shape != shape:
            raise _wrong_shape(array, tensor, f"shape {list(shape)}")
    spans = tuple(RowSpan(found[part], place.first, place.step, row_bytes[part]) for part, _ in encoding.parts)
    return StoredTensor(tensor, encoding, spans)


def _packed_parts(place: Place, arrays: Mapping[str, StoredArray], where: Path) -> dict[str, StoredArray]:
    """The arrays of a packed tensor by part. Both or nothing."""
    names = {part: place.part_name(part) for part, _ in MXFP4.parts}
    found = {part: arrays[stored] for part, stored in names.items() if stored in arrays}
    if len(found) == len(names):
        for part, array in found.items():
            if array.dtype != "U8":
                raise _wrong_dtype(array, f"U8 ({part} of MXFP4)")
        return found
    missing = next(stored for part, stored in names.items() if part not in found)
    if found:
        (present,) = found.values()
        raise CheckpointError(
            f"its other half {missing!r} is missing",
            file=present.file,
            tensor=present.name,
            expected="blocks and scales together",
            found=f"{next(iter(found))} alone",
            remedy=_RELOAD,
        )
    raise CheckpointError("the tensor is missing", file=where, tensor=missing, remedy=_RELOAD)


def _encoding(array: StoredArray) -> Encoding:
    encoding = _SINGLE.get(array.dtype)
    if encoding is None:
        raise _wrong_dtype(array, ", ".join(_SINGLE))
    return encoding


def _refuse_strangers(names: list[str], arrays: Mapping[str, StoredArray]) -> None:
    if not names:
        return
    others = f" (and {len(names) - 1} more like it)" if names[1:] else ""
    raise CheckpointError(
        f"the tensor belongs to no part of gpt-oss{others}",
        file=arrays[names[0]].file,
        tensor=names[0],
        remedy="Nothing may be lost silently: remove it from the checkpoint if it is meant to be left out.",
    )


def _missing(place: Place, where: Path) -> CheckpointError:
    expected = f"shape {list(place.part_shape('data'))}"
    return CheckpointError("the tensor is missing", file=where, tensor=place.name, expected=expected, remedy=_RELOAD)


def _wrong_shape(array: StoredArray, tensor: CanonicalTensor, expected: str) -> CheckpointError:
    return CheckpointError(
        "the shape contradicts the config",
        file=array.file,
        tensor=array.name,
        expected=f"{expected} ({tensor.name})",
        found=f"shape {list(array.shape)}",
        remedy="The config.json may be that of another model, or the file may be damaged.",
    )


def _wrong_dtype(array: StoredArray, expected: str) -> CheckpointError:
    return CheckpointError(
        "the dtype cannot be converted",
        file=array.file,
        tensor=array.name,
        expected=expected,
        found=array.dtype,
        remedy="Convert from the checkpoint this one was quantized from.",
    )
