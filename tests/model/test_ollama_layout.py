"""Ollama's legacy layout: the names, types and sizes of its published files, and every spelling its converters had."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import read_tensors
from gguf_files import stored_bytes
from llama_cpp import LlamaCpp
from numpy.typing import NDArray
from ollama_files import VERSIONS, ollama_gguf

from gptoss_convert.formats.codecs.encoding import BF16
from gptoss_convert.formats.containers import gguf_types as ggml
from gptoss_convert.formats.containers.gguf_reader import GgufFile, read_gguf
from gptoss_convert.formats.containers.gguf_writer import plan_gguf
from gptoss_convert.model.config import GptOssConfig, parse_config, read_config
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from gptoss_convert.model.inventory import inventory
from gptoss_convert.model.layouts import gguf, hf, ollama
from gptoss_convert.model.layouts.table import Place, Table, Variants, alternatives, places

CONFIGS = {"20b": parse_config(GPT_OSS_20B), "120b": parse_config(GPT_OSS_120B)}

# Of the published 20b file: the tensors without a layer, and those of layer 7; numpy's order of dimensions.
SHAPES = {
    "token_embd.weight": (201088, 2880),
    "output_norm.weight": (2880,),
    "output.weight": (201088, 2880),
    "blk.7.attn_norm.weight": (2880,),
    "blk.7.attn_qkv.weight": (5120, 2880),
    "blk.7.attn_qkv.bias": (5120,),
    "blk.7.attn_out.weight": (2880, 4096),
    "blk.7.attn_out.bias": (2880,),
    "blk.7.attn_sinks": (64,),
    "blk.7.ffn_norm.weight": (2880,),
    "blk.7.ffn_gate_inp.weight": (32, 2880),
    "blk.7.ffn_gate_inp.bias": (32,),
    "blk.7.ffn_gate_up_exps.weight": (32, 5760, 2880),
    "blk.7.ffn_gate_up_exps.bias": (32, 5760),
    "blk.7.ffn_down_exps.weight": (32, 2880, 2880),
    "blk.7.ffn_down_exps.bias": (32, 2880),
}


def table_of(variants: Variants) -> Table:
    """The table with tensors in their other places."""
    return {name: variants[name][0] if name in variants else rows for name, rows in ollama.TABLE.items()}


APART = {name: rows for name, rows in ollama.VARIANTS.items() if re.search(r"\.(q|k|v|gate|up)\.", name)}
TABLES = {"first": ollama.TABLE, "apart": table_of(APART), "llama.cpp": table_of(ollama.VARIANTS)}


def stored(table: Table, config: GptOssConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and role of every array that the table asks for."""
    return {place.name: (place.part_shape(BF16, "data"), place.tensor.role) for place in places(table, config)}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_names_every_canonical_tensor_once_in_the_inventorys_order(table: Table) -> None:
    assert [place.tensor.name for place in places(table, CONFIGS["20b"])] == list(inventory(CONFIGS["20b"]))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tensors_that_share_an_array_fill_it(table: Table) -> None:
    rows: dict[tuple[str, int], Counter[int]] = {}
    for place in places(table, CONFIGS["20b"]):
        matrix = range(place.first, place.first + place.tensor.matrix_rows * place.step, place.step)
        rows.setdefault((place.name, place.rows), Counter()).update(matrix)
    assert all(found == Counter(range(n_rows)) for (_, n_rows), found in rows.items())


@pytest.mark.parametrize(("model", "n_arrays"), [("20b", 315), ("120b", 471)])
def test_table_asks_for_as_many_arrays_as_ollama_has_logged(model: str, n_arrays: int) -> None:
    assert len(stored(ollama.TABLE, CONFIGS[model])) == n_arrays


def test_arrays_have_the_converters_names_and_shapes() -> None:
    found = {name: shape for name, (shape, _) in stored(ollama.TABLE, CONFIGS["20b"]).items()}
    assert {name: found[name] for name in found if "blk" not in name or "blk.7." in name} == SHAPES


def metadata_bytes(n_bytes: int, table: Table, expert_bias: ggml.GgmlType) -> int:
    """What a file of `n_bytes` has left for its keys if it has the table's tensors in the types the docstring says."""
    kinds = {"expert bias": expert_bias, "experts": ggml.OLLAMA_MXFP4}
    arrays = stored(table, CONFIGS["20b"]).items()
    tensors = [
        (name, kinds.get(role, ggml.F32 if role in ollama.F32_ROLES else ggml.BF16), shape)
        for name, (shape, role) in arrays
    ]
    return n_bytes - plan_gguf({}, tensors).file_bytes


def test_the_published_files_sizes_leave_the_same_for_metadata() -> None:
    """Up to 12 kB: the later file's names of 1,069 fillers are shorter."""
    august = metadata_bytes(13_780_154_624, TABLES["first"], ggml.BF16)
    october = metadata_bytes(13_793_422_144, TABLES["apart"], ggml.F32)
    assert 13.7e6 < october < august < october + 12_000


@pytest.mark.parametrize(("n_bytes", "table", "kind"), [
    (13_780_154_624, "first", ggml.F32),
    (13_793_422_144, "apart", ggml.BF16),
])  # fmt: skip
def test_other_types_would_not_leave_that(n_bytes: int, table: str, kind: ggml.GgmlType) -> None:
    assert not 13e6 < metadata_bytes(n_bytes, TABLES[table], kind) < 14e6


# Every version's file, as the test's own converter makes it.


@pytest.fixture(scope="module", params=VERSIONS)
def legacy(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    path = tmp_path_factory.mktemp("ollama") / f"{request.param}.gguf"
    return read_gguf(ollama_gguf(tiny, path, request.param))


def place_in(file: GgufFile, options: Sequence[Place]) -> Place:
    """The one place that the file has, with the shape it must have there."""
    (place,) = [option for option in options if option.name in file.tensors]
    assert file.tensors[place.name].shape == place.part_shape(BF16, "data")
    return place


def rows_of(array: NDArray[Any], place: Place) -> NDArray[Any]:
    """The tensor's rows of all the array's matrices, or of its biases."""
    matrices = array.reshape(-1, place.rows, array.shape[-1] if place.tensor.cols > 1 else 1)
    end = place.first + place.tensor.matrix_rows * place.step
    return matrices[:, place.first : end : place.step]


def stored_array(file: GgufFile, name: str) -> NDArray[Any]:
    """BF16 patterns, or the bytes of interleaved blocks with their scales, as [..., bytes of a row]."""
    tensor, data = file.tensors[name], np.frombuffer(stored_bytes(file, name), np.uint8)
    if tensor.type is ggml.F32:
        return (data.view(np.uint32) >> 16).astype(np.uint16).reshape(tensor.shape)
    if tensor.type is ggml.BF16:
        return data.view(np.uint16).reshape(tensor.shape)
    blocks = data.reshape(*tensor.shape[:-1], -1, 17)
    if tensor.type is ggml.MXFP4:
        codes = np.concatenate([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1)
        blocks = np.concatenate([blocks[..., :1], codes[..., 0::2] | codes[..., 1::2] << 4], axis=-1)
    return blocks.reshape(*tensor.shape[:-1], -1)


def test_every_tensor_is_in_one_place_and_byte_identical_to_the_checkpoints(legacy: GgufFile, tiny: Path) -> None:
    config, source = read_config(tiny / "config.json"), read_tensors(tiny)
    of_hf = {place.tensor.name: place for place in places(hf.TABLE, config)}
    used = set()
    for options in alternatives(ollama.TABLE, ollama.VARIANTS, config):
        place = place_in(legacy, options)
        used.add(place.name)
        origin = of_hf[place.tensor.name]
        parts = [source[origin.first_name(part)] for part in (("scales", "blocks") if origin.is_packed else ("data",))]
        arrays = [np.frombuffer(part.data, np.uint8 if origin.is_packed else np.uint16) for part in parts]
        if origin.is_packed:
            scales, blocks = (array.reshape(part.shape) for array, part in zip(arrays, parts, strict=True))
            joined = np.concatenate([scales[..., None], blocks], axis=-1)
            arrays = [joined.reshape(*joined.shape[:-2], -1)]
        expected = rows_of(arrays[0].reshape(parts[0].shape) if not origin.is_packed else arrays[0], origin)
        assert np.array_equal(rows_of(stored_array(legacy, place.name), place), expected), place.tensor.name
    assert used == set(legacy.tensors)


def test_llama_cpps_own_names_are_taken_under_ollamas_architecture() -> None:
    assert TABLES["llama.cpp"] == gguf.TABLE


def test_llama_cpps_variants_are_q_k_and_v_one_after_another() -> None:
    options = [options for options in alternatives(gguf.TABLE, gguf.VARIANTS, CONFIGS["20b"]) if len(options) > 1]
    found = {place.tensor.name.split(".", 2)[2]: (place.name, place.first, place.rows) for _, place in options[6:12]}
    assert found == {
        f"attention.{part}.{kind}": (f"blk.1.attn_qkv.{kind}", first, 5120)
        for part, first in (("q", 0), ("k", 4096), ("v", 4608))
        for kind in ("weight", "bias")
    }


# llama.cpp's own variant.


def fused(source: GgufFile, path: Path, order: str) -> Path:
    """The file with q, k and v of each layer in one tensor, in that order, as `convert_hf_to_gguf.py --fuse-qkv`."""
    tensors, data = [], b""
    for name, tensor in source.tensors.items():
        stem = re.sub(r"\.attn_[qkv]\.", ".attn_{}.", name)
        names = [stem.format(part) for part in order] if "{}" in stem else [name]
        if "{}" in stem and ".attn_q." not in name:
            continue
        shape = (sum(source.tensors[part].shape[0] for part in names), *tensor.shape[1:])
        tensors.append((stem.format("qkv"), tensor.type, shape))
        joined = b"".join(stored_bytes(source, part) for part in names)
        data += joined + bytes(-len(joined) % 32)
    path.write_bytes(plan_gguf(source.kv, tensors).header + data)
    return path


def next_log_probs(path: Path, n_vocab: int) -> NDArray[np.float64]:
    with LlamaCpp(path) as model:
        return model.log_probs(range(5, 60), n_vocab)


def test_llama_cpp_takes_fused_rows_as_q_k_and_v(tiny_gguf: Path, tmp_path: Path) -> None:
    source = read_gguf(tiny_gguf)
    n_vocab = source.tensors["token_embd.weight"].shape[0]
    expected = next_log_probs(tiny_gguf, n_vocab)
    assert np.array_equal(next_log_probs(fused(source, tmp_path / "qkv.gguf", "qkv"), n_vocab), expected)
    assert not np.allclose(next_log_probs(fused(source, tmp_path / "qvk.gguf", "qvk"), n_vocab), expected, atol=1)
