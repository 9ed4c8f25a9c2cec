"""The layout tables: every canonical tensor once, under the names that transformers and gguf-py use."""

from __future__ import annotations

from collections import Counter

import gguf as gguf_py
import pytest

from gptoss_convert.formats.codecs.encoding import BF16, MXFP4
from gptoss_convert.model.config import GptOssConfig, parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from gptoss_convert.model.inventory import inventory
from gptoss_convert.model.layouts import gguf, hf, mlx, original
from gptoss_convert.model.layouts.table import Table, places

CONFIGS = {"20b": parse_config(GPT_OSS_20B), "120b": parse_config(GPT_OSS_120B)}
TABLES = {
    "hf": hf.TABLE,
    "hf-bf16": hf.DENSE_TABLE,
    "gguf": gguf.TABLE,
    "original": original.TABLE,
    "mlx": mlx.TABLE,
}
N_ARRAYS = {
    "hf": (459, 687),
    "hf-bf16": (411, 615),
    "gguf": (459, 687),
    "original": (363, 543),
    "mlx": (531, 795),
}
HIDDEN, LAYERS = 2880, 24

# HF tensors that hold a layer's experts, and their shapes, of the 20b model.
EXPERTS = {
    "gate_up_proj_blocks": (32, 5760, 90, 16),
    "gate_up_proj_scales": (32, 5760, 90),
    "gate_up_proj_bias": (32, 5760),
    "down_proj_blocks": (32, 2880, 90, 16),
    "down_proj_scales": (32, 2880, 90),
    "down_proj_bias": (32, 2880),
}


def stored_shapes(table: Table, config: GptOssConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every array that the table asks for."""
    shapes = {}
    for place in places(table, config):
        encoding = MXFP4 if place.is_packed or (place.is_mlx and place.tensor.role == "experts") else BF16
        for part, _ in encoding.parts:
            shape = place.part_shape(encoding, part)
            for name in place.array_names(part):
                assert shapes.setdefault(name, shape) == shape
    return shapes


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("model", CONFIGS)
def test_table_names_every_canonical_tensor_once_in_the_inventorys_order(model: str, table: Table) -> None:
    assert [place.tensor.name for place in places(table, CONFIGS[model])] == list(inventory(CONFIGS[model]))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tensors_that_share_an_array_fill_it(table: Table) -> None:
    rows: dict[str, Counter[int]] = {}
    for place in places(table, CONFIGS["20b"]):
        matrix = range(place.first, place.first + place.tensor.matrix_rows * place.step, place.step)
        rows.setdefault(place.name, Counter()).update(matrix)
        assert max(matrix) < place.rows
    for place in places(table, CONFIGS["20b"]):
        assert rows[place.name] == Counter(range(place.rows)), place.name


def test_gate_has_the_even_rows_and_up_the_odd() -> None:
    for table in (hf.TABLE, original.TABLE):
        turns = Counter((name.split(".")[-2], rows.first, rows.step) for name, rows in table.items() if rows.step > 1)
        assert turns == {("gate", 0, 2): 2, ("up", 1, 2): 2}


def test_q_k_and_v_lie_one_after_another_in_the_original_layout() -> None:
    found = {
        place.tensor.name.split(".")[-2]: (place.first, place.rows)
        for place in places(original.TABLE, CONFIGS["20b"])
        if place.name == "block.0.attn.qkv.weight"
    }
    assert found == {"q": (0, 5120), "k": (4096, 5120), "v": (4608, 5120)}


@pytest.mark.parametrize("layout", TABLES)
def test_table_asks_for_the_published_number_of_arrays(layout: str) -> None:
    found = tuple(len(stored_shapes(TABLES[layout], config)) for config in CONFIGS.values())
    assert found == N_ARRAYS[layout]


@pytest.mark.parametrize(("part", "shape"), EXPERTS.items())
def test_experts_of_the_hf_layout_have_the_published_shapes(part: str, shape: tuple[int, ...]) -> None:
    shapes = stored_shapes(hf.TABLE, CONFIGS["20b"])
    assert shapes[f"model.layers.23.mlp.experts.{part}"] == shape


def test_other_tensors_of_the_hf_layout_are_those_of_transformers() -> None:
    import torch
    from transformers import GptOssConfig as TransformersConfig
    from transformers import GptOssForCausalLM

    with torch.device("meta"):
        model = GptOssForCausalLM(TransformersConfig(**{key: GPT_OSS_20B[key] for key in _SIZES}))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if ".experts." not in name}
    found = {name: shape for name, shape in stored_shapes(hf.TABLE, CONFIGS["20b"]).items() if ".experts." not in name}
    assert found == expected


_SIZES = (
    *("num_hidden_layers", "num_local_experts", "vocab_size", "hidden_size", "intermediate_size", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "layer_types"),
)


def test_names_of_the_gguf_layout_are_those_that_gguf_py_gives_to_the_hf_names() -> None:
    names = gguf_py.get_tensor_name_map(gguf_py.MODEL_ARCH.GPT_OSS, LAYERS)
    hf_names = {place.tensor.name: place.name for place in places(hf.TABLE, CONFIGS["20b"])}
    for place in places(gguf.TABLE, CONFIGS["20b"]):
        canonical = place.tensor.name
        if ".moe.gate." in canonical or ".moe.up." in canonical or canonical.endswith(".moe.down.bias"):
            continue  # gguf-py does not know the HF names of these; a test below has their GGUF names
        hf_name = hf_names[canonical].replace("_{part}", ".weight").replace(".sinks", ".sinks.weight")
        assert names.get_name(hf_name, try_suffixes=(".weight", ".bias")) == place.name


def test_stems_of_the_gguf_layout_are_all_those_of_gguf_py() -> None:
    expected = {gguf_py.TENSOR_NAMES[kind] for kind in gguf_py.MODEL_TENSORS[gguf_py.MODEL_ARCH.GPT_OSS]}
    stems = {rows.name.replace("{layer}", "{bid}").rpartition(".")[0] for rows in gguf.TABLE.values()}
    assert stems == expected


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("canonical", ["gate", "up", "down"])
def test_experts_of_the_gguf_layout_have_gguf_pys_names(canonical: str, part: str) -> None:
    kind = gguf_py.MODEL_TENSOR[f"FFN_{canonical.upper()}_EXP"]
    stem = gguf_py.TENSOR_NAMES[kind].replace("{bid}", "{layer}")
    assert gguf.TABLE[f"layers.{{layer}}.moe.{canonical}.{part}"].name == f"{stem}.{part}"


def test_what_llama_cpp_wants_as_f32_is_everything_but_the_large_matrices() -> None:
    roles = {tensor.role for tensor in inventory(CONFIGS["20b"]).values()}
    assert roles - gguf.F32_ROLES == {"embedding", "unembedding", "attention", "experts"}
