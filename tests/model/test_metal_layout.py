"""Where arrays lie in a Metal file, and the whole file against an independent writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from metal_script import TINY, kernel_offsets, metal_file, tiny_tensors

from gptoss_convert.formats.codecs.metal_values import SCALE_SHIFT, decode_heads, encode_heads, shift_scales
from gptoss_convert.formats.containers.metal import build_metal_header, read_metal
from gptoss_convert.formats.containers.metal_types import MetalFields
from gptoss_convert.formats.errors import MetalError
from gptoss_convert.model.layouts.metal import (
    K_EXPONENT,
    Q_EXPONENT,
    MetalArray,
    gaps,
    metal_arrays,
    require_size,
    weights_bytes,
)

OFFICIAL_TOKENS, OFFICIAL_WEIGHTS_OFFSET = 200_014, 1_802_240
TOKENS = [bytes([byte]) for byte in range(256)] + [b"word%d" % n for n in range(44)]
FILE = metal_file(TINY, tiny_tensors(), TOKENS)

Q_ROWS = TINY["num_attention_heads"] * TINY["head_dim"]
K_ROWS = TINY["num_key_value_heads"] * TINY["head_dim"]


def official_fields(n_layers: int, n_experts: int) -> MetalFields:
    yarn = (150000.0, 1 / 32, -0.87, 0.107, 1.3466, 1e-5)
    return MetalFields(131072, n_layers, n_experts, 4, 2880, 2880, 7.0, 64, 64, 8, 128, *yarn)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metal") / "model.bin"
    path.write_bytes(FILE)
    return path


def arrays_of(path: Path) -> tuple[int, list[MetalArray]]:
    file = read_metal(path)
    return file.weights_offset, metal_arrays(file.fields, file.tokenizer.n_tokens)


@pytest.mark.parametrize(
    ("n_layers", "n_experts", "file_bytes"), [(24, 32, 13_750_886_400), (36, 128, 65_238_253_568)], ids=["20b", "120b"]
)
def test_the_official_sizes(n_layers: int, n_experts: int, file_bytes: int) -> None:
    fields = official_fields(n_layers, n_experts)
    assert OFFICIAL_WEIGHTS_OFFSET + weights_bytes(fields, OFFICIAL_TOKENS) == file_bytes
    arrays = metal_arrays(fields, OFFICIAL_TOKENS)
    assert len(arrays) == 15 * n_layers + 3
    assert OFFICIAL_WEIGHTS_OFFSET + max(sum(piece) for array in arrays for piece in array.pieces()) == file_bytes


@pytest.mark.parametrize(("n_layers", "n_experts", "padding"), [(24, 32, 191_872), (36, 128, 8_064)])
def test_every_official_byte_is_an_arrays_or_padding(n_layers: int, n_experts: int, padding: int) -> None:
    fields = official_fields(n_layers, n_experts)
    arrays = metal_arrays(fields, OFFICIAL_TOKENS)
    assert sum(n_bytes for _, n_bytes in gaps(arrays)) == padding
    assert sum(array.n_bytes for array in arrays) + padding == weights_bytes(fields, OFFICIAL_TOKENS)


def test_offsets_are_those_that_the_kernels_read(path: Path) -> None:
    found = {array.name: array.offset + (array.n_parts > 1) * array.stride for array in arrays_of(path)[1]}
    expected = kernel_offsets(TINY, len(TOKENS) + 16)
    assert {name: found[name] for name in expected} == expected
    assert found.keys() - expected.keys() == {name for name in found if name.startswith("block.0.")}


def test_gaps_are_what_no_array_covers(path: Path) -> None:
    offset, arrays = arrays_of(path)
    covered = np.zeros(len(FILE) - offset, np.uint8)
    for array in arrays:
        for begin, n_bytes in array.pieces():
            covered[begin : begin + n_bytes] += 1
    for begin, n_bytes in gaps(arrays):
        covered[begin : begin + n_bytes] += 1
        assert not any(FILE[offset + begin : offset + begin + n_bytes])
    assert (covered == 1).all()


def stored_in(path: Path, array: MetalArray, offset: int) -> np.ndarray:
    """The array's bytes, uint8 or uint16, in its own shape."""
    parts = [path.read_bytes()[offset + at : offset + at + size] for at, size in array.pieces()]
    return np.frombuffer(b"".join(parts), "<u2" if array.dtype == "BF16" else "u1").reshape(array.shape)


def patterns(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def to_metal(name: str, values: np.ndarray) -> np.ndarray:
    """What the file holds of an array of the original layout."""
    out = values.copy()
    if ".qkv." in name:
        for begin, n_rows, exponent in ((0, Q_ROWS, Q_EXPONENT), (Q_ROWS, K_ROWS, K_EXPONENT)):
            rows = slice(begin, begin + n_rows)
            encode_heads(values[rows], TINY["head_dim"], exponent, out[rows])
    if name.endswith(".scales"):
        shift_scales(values, SCALE_SHIFT, out)
    return out[: len(TOKENS) + 16] if "embedding" in name else out


def from_metal(name: str, values: np.ndarray) -> np.ndarray:
    out = values.copy()
    if ".qkv." in name:
        for begin, n_rows, exponent in ((0, Q_ROWS, Q_EXPONENT), (Q_ROWS, K_ROWS, K_EXPONENT)):
            rows = slice(begin, begin + n_rows)
            decode_heads(values[rows], TINY["head_dim"], exponent, out[rows])
    if name.endswith(".scales"):
        shift_scales(values, -SCALE_SHIFT, out)
    return out


def test_a_whole_file_is_byte_identical_to_the_independent_writer(path: Path) -> None:
    """Header, arrays, transforms and padding together; the file is made long first, so gaps are zeros."""
    file, (offset, arrays) = read_metal(path), arrays_of(path)
    ours = bytearray(offset + weights_bytes(file.fields, file.tokenizer.n_tokens))
    ours[:offset] = build_metal_header(file.fields, file.tokenizer)
    tensors = tiny_tensors()
    for array in arrays:
        raw = to_metal(array.name, patterns(tensors.pop(array.name))).tobytes()
        for part, (begin, n_bytes) in enumerate(array.pieces()):
            ours[offset + begin : offset + begin + n_bytes] = raw[part * n_bytes : (part + 1) * n_bytes]
    assert not tensors
    assert bytes(ours) == FILE


def test_the_original_tensors_come_back_byte_identical(path: Path) -> None:
    offset, arrays = arrays_of(path)
    tensors = tiny_tensors()
    assert {array.name for array in arrays} == tensors.keys()
    for array in arrays:
        original = patterns(tensors[array.name])
        kept = original[: len(TOKENS) + 16] if "embedding" in array.name else original
        assert np.array_equal(from_metal(array.name, stored_in(path, array, offset)), kept), array.name


@pytest.mark.parametrize(
    ("change", "message"),
    [(-1, "the file is 1 bytes too short for its weights"), (16, "there are 16 bytes after the last weight")],
)
def test_a_file_of_another_size_is_refused(tmp_path: Path, change: int, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(FILE[:change] if change < 0 else FILE + bytes(change))
    with pytest.raises(MetalError, match=message):
        require_size(read_metal(path))


def test_a_file_of_the_right_size_is_not_refused(path: Path) -> None:
    require_size(read_metal(path))


def test_billions_of_layers_are_refused_at_once(path: Path) -> None:
    fields = read_metal(path).fields
    huge = dict.fromkeys(("num_blocks", "num_experts", "embedding_dim", "mlp_dim"), 2**32 - 32)
    hostile = replace(fields, **huge)
    with pytest.raises(MetalError, match="bytes too short for its weights"):
        require_size(replace(read_metal(path), fields=hostile))


@pytest.mark.parametrize("key", ["embedding_dim", "mlp_dim"])
def test_rows_that_are_not_whole_blocks_are_refused(key: str) -> None:
    fields = replace(official_fields(1, 1), **{key: 2881})
    with pytest.raises(MetalError, match=f"key '{key}': rows are not whole MXFP4 blocks; .* 32; found 2,881"):
        metal_arrays(fields, 10)
