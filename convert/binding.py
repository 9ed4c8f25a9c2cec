"""From a layout's table and the arrays found in files to canonical tensors. Pairs blocks with scales by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from ..formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, MXFP4, OLLAMA_MXFP4, QUANTIZED, Encoding, mlx_affine
from ..formats.codecs.mlx_affine import BITS, GROUP_SIZES
from ..formats.errors import CheckpointError
from ..model.config import GptOssConfig
from ..model.inventory import CanonicalTensor
from ..model.layouts.table import Place, Table, Variants, alternatives
from .stored import RowSpan, StoredArray, StoredTensor

_FLOATS: dict[str, Encoding] = {"F32": F32, "F16": F16, "BF16": BF16}

# A container's word for its elements -> the encoding of a tensor that is one array.
_SINGLE: dict[str, Encoding] = {**_FLOATS, "MXFP4": GGML_MXFP4, OLLAMA_MXFP4.name: OLLAMA_MXFP4, **QUANTIZED}

_MOST_EXPERTS = 4096

RELOAD = "Download the checkpoint again, or compare it with the official one."

Arrays = Mapping[str, StoredArray]
Spellings = tuple[Table, Variants]
Relabel = Callable[[CanonicalTensor, Encoding], Encoding]


def bind(
    arrays: Arrays,
    table: Table,
    config: GptOssConfig,
    where: Path,
    variants: Variants | None = None,
    relabel: Relabel = lambda _tensor, encoding: encoding,
    elsewhere: Spellings | None = None,
) -> dict[str, StoredTensor]:
    """Every canonical tensor of the model, as `arrays` hold it, in the inventory's order.

    Args:
        arrays: by stored name.
        table: where each tensor is stored.
        config: what the sizes are.
        where: named in errors.
        variants: where else it may be stored; it must be in one place.
        relabel: the encoding of a tensor whose container means something else by a common dtype.
        elsewhere: where the same container's other dialect stores it; what is found there, too, is there twice.

    Raises:
        CheckpointError: a tensor is missing, there twice, of the wrong shape or dtype, half a pair, or nobody's.
    """
    chosen = _chosen(list(alternatives(table, variants or {}, config)), arrays)
    bound = {place.tensor.name: _bind_one(place, arrays, where, relabel) for place in chosen}
    used = {array.name for stored in bound.values() for span in stored.spans for array in span.arrays}
    strangers = {name: array for name, array in arrays.items() if name not in used}
    if strangers:
        spellings = [(table, variants or {}), *([elsewhere] if elsewhere else [])]
        again = next(_again(strangers, spellings, config), None)
        if again is None:
            raise _stranger(list(strangers.values()))
        array, tensor = again
        raise _twice(array, bound[tensor.name].spans[0].array.name)
    return bound


def _again(
    strangers: Arrays, spellings: Sequence[Spellings], config: GptOssConfig
) -> Iterator[tuple[StoredArray, CanonicalTensor]]:
    """Those of the arrays that are where one of the spellings stores a tensor, with that tensor."""
    for table, variants in spellings:
        for place in chain.from_iterable(alternatives(table, variants, config)):
            # The config may claim any number of experts.
            names = islice(place.array_names("blocks" if place.is_packed else "data"), _MOST_EXPERTS)
            yield from ((strangers[name], place.tensor) for name in names if name in strangers)


def _twice(array: StoredArray, other: str) -> CheckpointError:
    return CheckpointError(
        f"the tensor is stored twice, also as {other!r}",
        file=array.file,
        tensor=array.name,
        expected="one of them",
        remedy="Remove the one that is out of date, or convert the model again from its original weights.",
    )


def _stranger(arrays: Sequence[StoredArray]) -> CheckpointError:
    others = f" (and {len(arrays) - 1} more like it)" if arrays[1:] else ""
    return CheckpointError(
        f"the tensor belongs to no part of gpt-oss{others}",
        file=arrays[0].file,
        tensor=arrays[0].name,
        remedy="Nothing may be lost silently: remove it from the checkpoint if it is meant to be left out.",
    )


def _chosen(tensors: Sequence[Sequence[Place]], arrays: Arrays) -> list[Place]:
    """Where each tensor is stored. One that is stored nowhere should be where its like is in other layers."""
    found = [_found(choices, arrays) for choices in tensors]
    usual = {_kind(tensors[at]): number for at, number in enumerate(found) if number is not None}
    return [
        choices[usual.get(_kind(choices), 0) if number is None else number]
        for choices, number in zip(tensors, found, strict=True)
    ]


def _kind(choices: Sequence[Place]) -> str:
    """The tensor's name without its layer."""
    return ".".join(part for part in choices[0].tensor.name.split(".") if not part.isdigit())


def _found(choices: Sequence[Place], arrays: Arrays) -> int | None:
    """Which of the places the tensor is stored in, if it is in any."""
    named = [(at, array) for at, place in enumerate(choices) if (array := _first_array(place, arrays)) is not None]
    # transformers 5 writes floats under the names of packed blocks.
    fitting = [(at, array) for at, array in named if choices[at].is_packed != (array.dtype in _SINGLE)]
    if len(fitting) > 1:
        (_, array), (_, other) = fitting[:2]
        raise _twice(array, other.name)
    return next((at for at, _ in fitting or named), None)


def _first_array(place: Place, arrays: Arrays) -> StoredArray | None:
    """The first array of the place that is there."""
    parts = [part for part, _ in MXFP4.parts] if place.is_packed else ["data"]
    return next((arrays[name] for name in map(place.first_name, parts) if name in arrays), None)


def _bind_one(place: Place, arrays: Arrays, where: Path, relabel: Relabel) -> StoredTensor:
    tensor = place.tensor
    encoding = _encoding(place, arrays, where)
    if tensor.cols % encoding.block_elements:
        array = arrays[place.first_name(encoding.parts[0][0])]
        raise _wrong_shape(array, tensor, f"rows that are a multiple of {encoding.block_elements} long")
    row_bytes = encoding.part_row_bytes(tensor.cols)
    spans = []
    for part, _ in encoding.parts:
        found = tuple(_array(name, place, encoding, part, arrays, where) for name in place.array_names(part))
        spans.append(
            RowSpan(found, place.first, place.step, row_bytes[part], tensor.matrix_rows, place.rows, place.transposed)
        )
    return StoredTensor(tensor, relabel(tensor, encoding), tuple(spans))


def _array(name: str, place: Place, encoding: Encoding, part: str, arrays: Arrays, where: Path) -> StoredArray:
    """The array `name`, with the shape and dtype it must have."""
    shape = place.part_shape(encoding, part)
    if name not in arrays:
        raise _missing(name, shape, where)
    array = arrays[name]
    if part == "data":
        if _SINGLE.get(array.dtype) is not encoding:
            raise _wrong_dtype(array, f"{encoding.name}, as that of the other experts")
    elif array.dtype != place.part_dtype(encoding, part):
        raise _wrong_dtype(array, f"{place.part_dtype(encoding, part)} ({part} of {encoding.name})")
    if array.shape != shape:
        raise _wrong_shape(array, place.tensor, f"shape {list(shape)}")
    return array


def _encoding(place: Place, arrays: Arrays, where: Path) -> Encoding:
    """How the tensor is encoded at its place, by what arrays are there and by their dtypes."""
    if place.is_packed:
        _refuse_half_a_pair(place, arrays, where)
        return MXFP4
    first = place.first_name("data")
    if first not in arrays:
        raise _missing(first, place.part_shape(BF16, "data"), where)
    array = arrays[first]
    if place.is_mlx and array.dtype == "U32":
        return _mlx_encoding(place, array, arrays)
    encoding = _SINGLE.get(array.dtype)
    if encoding is None:
        raise _wrong_dtype(array, ", ".join(_SINGLE))
    return encoding


def _mlx_encoding(place: Place, weight: StoredArray, arrays: Arrays) -> Encoding:
    """MXFP4 if there are scales alone, an affine encoding if there are biases too; its numbers are in the shapes."""
    scales, biases = (arrays.get(place.first_name(part)) for part in ("scales", "biases"))
    cols = place.tensor.cols
    if scales is None or not scales.shape or not weight.shape:
        raise _missing(place.first_name("scales"), None, weight.file)
    if biases is None:
        if scales.dtype == "U8" and scales.shape[-1] * 32 == cols:
            return MXFP4
        expected, found = "mode mxfp4: a scale byte for 32 elements", f"{scales.dtype} {list(scales.shape)}"
    else:
        bits, group_size = weight.shape[-1] * 32 // max(1, cols), cols // max(1, scales.shape[-1])
        if bits in BITS and group_size in GROUP_SIZES and scales.dtype in _FLOATS:
            return mlx_affine(bits, group_size, scales.dtype)
        expected = f"{BITS[0]} or {BITS[1]} bits in groups of 32, 64 or 128"
        found = f"{bits} bits in groups of {group_size}, scales {scales.dtype}"
    raise CheckpointError(
        "MLX's quantization of the tensor cannot be decoded",
        file=weight.file,
        tensor=weight.name,
        expected=expected,
        found=found,
        remedy="Convert from the checkpoint it was quantized from.",
    )


def _refuse_half_a_pair(place: Place, arrays: Arrays, where: Path) -> None:
    """Raises CheckpointError unless blocks and scales are both there."""
    names = {part: place.first_name(part) for part, _ in MXFP4.parts}
    present = {part: arrays[name] for part, name in names.items() if name in arrays}
    missing = next((name for part, name in names.items() if part not in present), None)
    if missing is None:
        return
    for part, array in present.items():
        raise CheckpointError(
            f"its other half {missing!r} is missing",
            file=array.file,
            tensor=array.name,
            expected="blocks and scales together",
            found=f"{part} alone",
            remedy=RELOAD,
        )
    raise CheckpointError("the tensor is missing", file=where, tensor=missing, remedy=RELOAD)


def _missing(name: str, shape: tuple[int, ...] | None, where: Path) -> CheckpointError:
    expected = None if shape is None else f"shape {list(shape)}"
    return CheckpointError("the tensor is missing", file=where, tensor=name, expected=expected, remedy=RELOAD)


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
