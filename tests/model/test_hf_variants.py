"""Other names of dense experts: the arrays of each writer, which way they lie, and whose rows they hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import GptOssConfig as TransformersConfig
from transformers import GptOssForCausalLM

from gptoss_convert.formats.codecs.encoding import BF16
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B
from gptoss_convert.model.layouts import hf
from gptoss_convert.model.layouts.table import Place, Table, places

HIDDEN, INTER, EXPERTS = 96, 64, 3
CONFIG = replace(
    parse_config(GPT_OSS_20B),
    hidden_size=HIDDEN,
    intermediate_size=INTER,
    num_local_experts=EXPERTS,
    num_hidden_layers=1,
)
MLP = "model.layers.0.mlp"

# writer -> every array in which it differs from the official layout, for expert 2 where there is one for each
WRITERS: dict[str, dict[str, tuple[int, ...]]] = {
    "transformers": {
        f"{MLP}.experts.gate_up_proj": (EXPERTS, HIDDEN, 2 * INTER),
        f"{MLP}.experts.down_proj": (EXPERTS, INTER, HIDDEN),
    },
    "transformers 5, dequantized": {
        f"{MLP}.experts.gate_up_proj_blocks": (EXPERTS, HIDDEN, 2 * INTER),
        f"{MLP}.experts.down_proj_blocks": (EXPERTS, INTER, HIDDEN),
    },
    "Unsloth": {
        f"{MLP}.router.linear.weight": (EXPERTS, HIDDEN),
        f"{MLP}.router.linear.bias": (EXPERTS,),
        f"{MLP}.experts.gate_up_projs.2.weight": (2 * INTER, HIDDEN),
        f"{MLP}.experts.gate_up_projs.2.bias": (2 * INTER,),
        f"{MLP}.experts.down_projs.2.weight": (HIDDEN, INTER),
        f"{MLP}.experts.down_projs.2.bias": (HIDDEN,),
    },
    "Quark": {
        f"{MLP}.experts.2.gate_up_proj.weight": (2 * INTER, HIDDEN),
        f"{MLP}.experts.2.gate_up_proj.bias": (2 * INTER,),
    },
    "slime": {
        f"{MLP}.experts.2.gate_proj.weight": (INTER, HIDDEN),
        f"{MLP}.experts.2.gate_proj.bias": (INTER,),
        f"{MLP}.experts.2.up_proj.weight": (INTER, HIDDEN),
        f"{MLP}.experts.2.up_proj.bias": (INTER,),
        f"{MLP}.experts.2.down_proj.weight": (HIDDEN, INTER),
        f"{MLP}.experts.2.down_proj.bias": (HIDDEN,),
    },
    "llm-compressor": {
        f"{MLP}.experts.experts.2.gate_proj.weight": (INTER, HIDDEN),
        f"{MLP}.experts.experts.2.gate_proj.bias": (INTER,),
        f"{MLP}.experts.experts.2.up_proj.weight": (INTER, HIDDEN),
        f"{MLP}.experts.experts.2.up_proj.bias": (INTER,),
        f"{MLP}.experts.experts.2.down_proj.weight": (HIDDEN, INTER),
        f"{MLP}.experts.experts.2.down_proj.bias": (HIDDEN,),
    },
}


def tables() -> list[Table]:
    """The official table with each variant in its row's place, one at a time."""
    return [{**hf.TABLE, name: rows} for name, choices in hf.VARIANTS.items() for rows in choices]


def variant_places() -> list[Place]:
    official = {place.name for place in places(hf.TABLE, CONFIG)}
    return [place for table in tables() for place in places(table, CONFIG) if place.name not in official]


def stored_shapes(found: list[Place]) -> dict[str, tuple[int, ...]]:
    """The shape of the last array of every place: that of expert 2, if each has its own."""
    return {list(place.array_names("data"))[-1]: place.part_shape(BF16, "data") for place in found}


def test_variants_are_the_arrays_of_every_writer_and_no_others() -> None:
    expected = {name: shape for arrays in WRITERS.values() for name, shape in arrays.items()}
    assert stored_shapes(variant_places()) == expected


def test_dense_table_is_the_state_of_transformers_model() -> None:
    sizes = {key: GPT_OSS_20B[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")}
    with torch.device("meta"):
        model = GptOssForCausalLM(
            TransformersConfig(
                **sizes, hidden_size=HIDDEN, intermediate_size=INTER, num_local_experts=EXPERTS, num_hidden_layers=1
            )
        )
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert stored_shapes(list(places(hf.DENSE_TABLE, CONFIG))) == expected


def test_rows_of_tensors_that_share_an_array_fill_it_once() -> None:
    rows: dict[str, Counter[int]] = {}
    for place in variant_places():
        taken = range(place.first, place.first + place.tensor.matrix_rows * place.step, place.step)
        rows.setdefault(place.name, Counter()).update(taken)
    for place in variant_places():
        assert rows[place.name] == Counter(range(place.rows)), place.name


@pytest.mark.parametrize(("projection", "first"), [("gate", 0), ("up", 1)])
def test_gate_and_up_alternate_as_in_transformers_wherever_they_share_an_array(projection: str, first: int) -> None:
    shared = [place for place in variant_places() if "gate_up" in place.name and f".{projection}." in place.tensor.name]
    assert {(place.first, place.step) for place in shared} == {(first, 2)}
    assert len(shared) == 6  # weights of four writers, and the bias of two


def test_only_stacked_floats_are_transposed() -> None:
    transposed = {place.name: place.transposed for place in variant_places() if place.tensor.role == "experts"}
    assert transposed == {name: "{expert}" not in name for name in transposed}


def test_one_array_for_each_expert_is_numbered_from_0() -> None:
    place = next(place for place in variant_places() if "down_projs" in place.name)
    assert list(place.array_names("data")) == [f"{MLP}.experts.down_projs.{expert}.weight" for expert in range(EXPERTS)]
