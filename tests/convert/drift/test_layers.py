"""Figures of `drift --depth layers`: by their definitions, where an error is made, and zero where nothing differs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import BLOCKS, copy_of, edit_tensors, patch
from drift_reference import disturbed, random_prompts
from torch import Tensor
from ways import Ways

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.drift.layers import ROUNDING, LayerComparison, compare_layers, relative_error
from gptoss_convert.convert.drift.lockstep import Injection
from gptoss_convert.convert.weights import CheckpointWeights
from gptoss_convert.formats.errors import CheckpointError, UsageError
from gptoss_convert.model.forward import Arithmetic, LayerTrace, Weights, forward

torch.set_num_threads(1)

PROMPTS = random_prompts((120, 50))
N_LAYERS = 4


@pytest.fixture(scope="module")
def found(a: Checkpoint, b: Checkpoint) -> LayerComparison:
    return compare_layers(a, b, prompts=PROMPTS)


def traces(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> list[dict[str, np.ndarray]]:
    """What a forward pass of each prompt alone computes, layer by layer, all prompts one after the other."""
    of_prompts: list[list[LayerTrace]] = []
    with CheckpointWeights(checkpoint, dtype=dtype) as weights:
        for prompt in PROMPTS.prompts:
            of_prompts.append([])
            tokens = torch.from_numpy(prompt.tokens)
            forward(checkpoint.config, weights, tokens, on_layer=lambda _, trace: of_prompts[-1].append(trace))
    parts = ("hidden", "attention_output", "moe_output", "router_logits")
    return [
        {part: np.concatenate([getattr(one, part).double().numpy() for one in layer]) for part in parts}
        for layer in zip(*of_prompts, strict=True)
    ]


@pytest.fixture(scope="module")
def of_a(a: Checkpoint) -> list[dict[str, np.ndarray]]:
    return traces(a)


@pytest.fixture(scope="module")
def of_b(b: Checkpoint) -> list[dict[str, np.ndarray]]:
    return traces(b)


# --- by definition ---


@pytest.mark.parametrize(
    ("figure", "part"), [("residual", "hidden"), ("attention", "attention_output"), ("moe", "moe_output")]
)
def test_relative_errors_are_those_of_two_forward_passes(
    figure: str, part: str, found: LayerComparison, of_a: list, of_b: list
) -> None:
    for layer in range(N_LAYERS):
        difference = of_b[layer][part] - of_a[layer][part]
        expected = np.sqrt((difference**2).sum() / (of_a[layer][part] ** 2).sum())
        assert getattr(found.layers[layer].b, figure) == pytest.approx(expected, rel=1e-3)
        assert expected > 100 * ROUNDING


def chosen(trace: dict[str, np.ndarray]) -> list[set[int]]:
    return [set(row) for row in np.argsort(-trace["router_logits"], axis=1)[:, :4].tolist()]


def test_experts_that_differ_are_those_of_two_forward_passes(found: LayerComparison, of_a: list, of_b: list) -> None:
    n_tokens = 170
    for layer, one in enumerate(found.layers):
        pairs = list(zip(chosen(of_a[layer]), chosen(of_b[layer]), strict=True))
        assert one.b.expert_overlap == pytest.approx(sum(len(x & y) for x, y in pairs) / 4 / n_tokens)
        assert one.b.same_experts == pytest.approx(sum(x == y for x, y in pairs) / n_tokens)
        first = next(number for number, (x, y) in enumerate(pairs) if x != y)
        assert one.first_rerouted is not None
        place = ("prompt 0", first) if first < 120 else ("prompt 1", first - 120)
        assert (one.first_rerouted.prompt, one.first_rerouted.place) == place
    assert found.layers[3].b.same_experts < 1


def test_peaks_are_the_largest_magnitudes(found: LayerComparison, of_a: list, of_b: list) -> None:
    for one, x, y in zip(found.layers, of_a, of_b, strict=True):
        assert (one.peak_a, one.peak_b) == pytest.approx((np.abs(x["hidden"]).max(), np.abs(y["hidden"]).max()))


def test_noise_is_that_of_a_forward_pass_in_bf16(a: Checkpoint, found: LayerComparison, of_a: list) -> None:
    rounded = traces(a, torch.bfloat16)
    for layer, one in enumerate(found.layers):
        assert one.noise is not None
        difference = rounded[layer]["hidden"] - of_a[layer]["hidden"]
        expected = np.sqrt((difference**2).sum() / (of_a[layer]["hidden"] ** 2).sum())
        assert one.noise.residual == pytest.approx(expected, rel=0.1)


def test_rounding_leaves_room_for_float32(a: Checkpoint, of_a: list) -> None:
    """`ROUNDING` is 3 times more than what float32 is off, and less than a hundredth of what bf16 is off."""
    wide, rounded = traces(a, torch.float64), traces(a, torch.bfloat16)
    for layer in range(N_LAYERS):
        for part in ("hidden", "attention_output", "moe_output"):
            errors = [
                relative_error(*map(torch.from_numpy, (wide[layer][part], x[layer][part]))) for x in (of_a, rounded)
            ]
            assert 3 * errors[0] < ROUNDING < errors[1] / 100


def test_relative_error_of_nothing() -> None:
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert relative_error(zero, zero) == 0
    assert relative_error(zero, one) == float("inf")
    assert relative_error(one, zero) == 1


# --- where an error is made ---


def test_experts_edited_in_one_layer_show_alone_in_that_layer(a: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    edited = copy_of(tiny, tmp_path / "edited")
    patch(edited, BLOCKS, 0, bytes(range(256)) * 30)
    found = compare_layers(a, open_checkpoint(edited), prompts=PROMPTS, noise=False)
    assert [one.local_attention for one in found.layers] == [0, 0, 0, 0]
    assert [bool(one.local_moe) for one in found.layers] == [False, False, True, False]
    assert [bool(one.b.residual) for one in found.layers] == [False, False, True, True]
    assert found.first is not None
    assert found.first[:2] == found.largest[:2] == ("experts", 2)
    assert "begins in the experts of layer 2" in found.lines()[-1]


def test_attention_edited_in_one_layer_shows_alone_in_that_layer(a: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    edited = disturbed(tiny, tmp_path / "edited", 0.1, only="layers.1.self_attn.v_proj")
    found = compare_layers(a, open_checkpoint(edited), prompts=PROMPTS, noise=False)
    assert [bool(one.local_attention) for one in found.layers] == [False, True, False, False]
    assert [one.local_moe for one in found.layers] == [0, 0, 0, 0]
    assert found.first is not None
    assert found.first[:2] == ("attention", 1)


def test_embeddings_edited_show_before_the_first_layer(a: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    edited = disturbed(tiny, tmp_path / "edited", 0.1, only="embed_tokens")
    found = compare_layers(a, open_checkpoint(edited), prompts=PROMPTS, noise=False)
    assert found.embedding == pytest.approx(0.1, rel=0.1)
    assert found.first == ("embedding", None, found.embedding)
    assert not any(one.local_moe or one.local_attention for one in found.layers)


def test_the_first_token_sent_elsewhere_is_named(a: Checkpoint, tiny: Path, tmp_path: Path) -> None:
    edited = copy_of(tiny, tmp_path / "edited")
    patch(edited, "model.layers.3.mlp.router.bias", 0, b"\x80\xc2")  # expert 0 gets -64
    found = compare_layers(a, open_checkpoint(edited), prompts=PROMPTS, noise=False)
    assert [one.first_rerouted is None for one in found.layers] == [True, True, True, False]
    assert "the first token sent to other experts: in layer 3, token" in "\n".join(found.lines())


# --- nothing where nothing differs ---


def test_drift_of_a_checkpoint_from_itself_is_exactly_zero(a: Checkpoint) -> None:
    found = compare_layers(a, a)
    assert found.is_zero
    assert found.embedding == 0
    for one in found.layers:
        assert [one.b.residual, one.b.attention, one.b.moe, one.local_attention, one.local_moe] == [0] * 5
        assert (one.b.expert_overlap, one.b.same_experts, one.first_rerouted) == (1, 1, None)
        assert one.peak_a == one.peak_b > 1
        assert one.noise is not None
        assert one.noise.residual > 1e-3
    assert found.lines()[-1].startswith("no drift")


@pytest.mark.parametrize("layout", ["gguf", "metal", "bf16"])
def test_drift_of_a_lossless_conversion_is_exactly_zero(layout: str, a: Checkpoint, ways: Ways) -> None:
    found = compare_layers(a, open_checkpoint(ways.path(layout)), prompts=PROMPTS, noise=False)
    assert found.is_zero


def test_a_difference_that_no_figure_of_b_shows_is_not_zero(found: LayerComparison) -> None:
    assert not found.is_zero
    assert not replace(found, layers=(), embedding=1e-12).is_zero
    assert replace(found, layers=(), embedding=0.0).is_zero


# --- one layer in memory, each weight read once ---


class Recorder:
    """Weights that count what they are asked for."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.asked: Counter[str] = Counter()

    def dense(self, name: str) -> Tensor:
        self.asked[name] += 1
        return self.weights.dense(name)

    def rows(self, name: str, ids: Tensor) -> Tensor:
        self.asked[name] += 1
        return self.weights.rows(name, ids)

    def expert(self, name: str, expert: int) -> Tensor:
        self.asked[f"{name}[{expert}]"] += 1
        return self.weights.expert(name, expert)


def test_each_weight_is_read_once_for_all_prompts_and_layer_by_layer(a: Checkpoint) -> None:
    recorders: list[Recorder] = []

    def watch(weights: Weights) -> Weights:
        recorders.append(Recorder(weights))
        return recorders[0]

    compare_layers(a, a, prompts=random_prompts((40, 40, 40)), inject=Injection(weights=watch))
    asked = recorders[0].asked
    assert set(asked.values()) == {1}
    layers = [int(name.split(".")[1]) for name in asked if name.startswith("layers.")]
    assert layers == sorted(layers)
    assert sum(".moe.down.weight[" in name for name in asked) == N_LAYERS * 8


def test_attention_does_not_leave_a_prompt(a: Checkpoint) -> None:
    """Prompts as short as the window do not show how long it is; together they would."""
    inject = Injection(config=lambda config: replace(config, sliding_window=31))
    short = compare_layers(a, a, prompts=random_prompts((31, 31, 31)), noise=False, inject=inject)
    assert short.is_zero
    assert not compare_layers(a, a, prompts=random_prompts((93,)), noise=False, inject=inject).is_zero


# --- numbers that are not finite ---


@pytest.mark.parametrize(
    ("tensor", "n_values", "where"),
    [
        ("model.layers.2.post_attention_layernorm.weight", 192, "in layer 2, in the norm before the experts"),
        ("model.layers.0.self_attn.v_proj.weight", 192, "in layer 0, in the output of attention"),
        ("model.layers.1.input_layernorm.weight", 192, "in layer 1, in the norm before attention"),
    ],
)
def test_numbers_that_are_not_finite_are_an_error_that_says_where_they_arose(
    tensor: str, n_values: int, where: str, a: Checkpoint, tiny: Path, tmp_path: Path
) -> None:
    broken = copy_of(tiny, tmp_path / "broken")
    patch(broken, tensor, 0, b"\x7f\x7f" * n_values)  # 3.4e38, which is finite
    for one, other, name in ((a, open_checkpoint(broken), "B"), (open_checkpoint(broken), a, "A")):
        with pytest.raises(CheckpointError) as caught:
            compare_layers(one, other, prompts=PROMPTS, noise=False, local=False)
        message = str(caught.value)
        assert f"{name} computes numbers that are not finite; the first arise {where}" in message
        assert "of 'prompt 0'" in message
        assert str(broken) in message
        assert f"gptoss-convert validate {broken}" in message


class OneBadRow(Recorder):
    """Weights in which the embedding of one token is not a number."""

    def rows(self, name: str, ids: Tensor) -> Tensor:
        rows = self.weights.rows(name, ids)
        rows[ids == 7] = torch.nan
        return rows


def test_the_first_token_that_is_not_finite_is_named(a: Checkpoint) -> None:
    first, second = (replace(one, tokens=np.where(one.tokens == 7, 8, one.tokens)) for one in PROMPTS.prompts)
    second.tokens[30] = 7
    prompts = replace(PROMPTS, prompts=(first, second))
    with pytest.raises(CheckpointError, match="found nan at element 0 of token 30 of 'prompt 1'"):
        compare_layers(a, a, prompts=prompts, noise=False, inject=Injection(weights=OneBadRow))


# --- as data and in words ---


def test_report_is_json_without_infinities(found: LayerComparison) -> None:
    report = json.loads(json.dumps(found.describe(), allow_nan=False))
    assert [one["layer"] for one in report["layers"]] == [0, 1, 2, 3]
    assert report["layers"][3]["b"]["residual"] == found.layers[3].b.residual
    assert report["layers"][0]["noise"]["moe"] == found.layers[0].noise.moe
    assert report["largest"]["relative_error"] == found.largest[2]


def test_columns_of_what_did_not_run_are_left_out(a: Checkpoint, found: LayerComparison) -> None:
    bare = compare_layers(a, a, prompts=PROMPTS, noise=False, local=False)
    assert [len(table.columns) for table in bare.tables()] == [4, 5]
    assert [len(table.columns) for table in found.tables()] == [9, 6]
    assert all(len(table.rows) == N_LAYERS for table in found.tables())


def test_models_with_other_layers_are_refused_by_key(a: Checkpoint) -> None:
    other = replace(a, config=replace(a.config, num_hidden_layers=3))
    with pytest.raises(UsageError, match=r"num_hidden_layers.*expected 4, as in .*; found 3"):
        compare_layers(a, other, prompts=PROMPTS)


def test_configs_that_differ_are_computed(a: Checkpoint) -> None:
    other = replace(a, config=replace(a.config, swiglu_limit=1.0))
    found = compare_layers(a, other, prompts=PROMPTS, noise=False)
    assert found.first is not None
    assert found.first[:2] == ("experts", 0)


def test_an_injected_arithmetic_is_b_s(a: Checkpoint) -> None:
    found = compare_layers(a, a, prompts=PROMPTS, noise=False, inject=Injection(arithmetic=Arithmetic(has_sinks=False)))
    assert found.first is not None
    assert found.first[:2] == ("attention", 0)


def test_a_copy_whose_tensors_were_only_written_anew_is_no_other(tiny: Path, tmp_path: Path) -> None:
    """So what tests see of disturbed copies is the disturbance."""
    copy = copy_of(tiny, tmp_path / "copy")
    edit_tensors(copy, lambda tensors: None)
    assert compare_layers(open_checkpoint(tiny), open_checkpoint(copy), prompts=PROMPTS, noise=False).is_zero
