"""The sentence at the end says what the difference is, for each kind of difference there is a sentence for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Tensors, copy_of, edit_json
from conversions import converted
from drift_cases import ATTENTION, FILE_FAULTS, bf16, changed, on, on_blocks, quantized_gguf, sentence, store, together
from experts import DOWN, GATE_UP, ExpertBlocks, change_floats, read_blocks, store_blocks
from numpy.typing import NDArray
from ways import Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.drift.clauses import clauses_of
from gptoss_convert.convert.drift.names import training_word
from gptoss_convert.convert.drift.results import Sums, TensorComparison, TensorDrift, Verdict
from gptoss_convert.convert.run import run


def nudge(blocks: ExpertBlocks) -> None:
    """A tenth of the codes moves to a neighbour."""
    rng = np.random.default_rng(3)
    move = (rng.random(blocks.codes.shape) < 0.1) & (blocks.codes & 7 > 0)
    blocks.codes[:] = np.where(move, blocks.codes ^ 1, blocks.codes)


def noisy(values: NDArray[Any]) -> NDArray[Any]:
    return values * (1 + 0.05 * np.random.default_rng(4).standard_normal(values.shape).astype(np.float32))


# --- no tensor differs ---


def test_same_bytes(tiny: Path, tmp_path: Path) -> None:
    assert sentence(tiny, copy_of(tiny, tmp_path / "copy")) == "Same bytes: all 79 tensors are identical."


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (("original",), "Same weights, other layout (hf and original)."),
        (("gguf",), "Same weights, other nibble order (hf and gguf)."),
        (("ollama-legacy",), "Same weights, other layout (hf and ollama-legacy)."),
        (("mlx",), "Same weights, other layout (hf and mlx)."),
        (("metal",), "Same weights, other layout (hf and metal); B lacks the last 16 rows of A's embeddings."),
        (("bf16",), "BF16 decode of the same blocks: B holds as floats what A holds as MXFP4."),
        (("gguf-f16",), "F16 decode of the same blocks: B holds as floats what A holds as MXFP4."),
        (("gguf-f32",), "F32 decode of the same blocks: B holds as floats what A holds as MXFP4."),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_same_weights_in_another_layout(steps: tuple[str, ...], expected: str, ways: Ways) -> None:
    assert sentence(ways.start, ways.path(*steps)) == expected


def test_sides_are_told_apart(ways: Ways) -> None:
    assert sentence(ways.path("bf16"), ways.start).endswith("A holds as floats what B holds as MXFP4.")
    assert "A lacks the last 16 rows of B's embeddings" in sentence(ways.path("metal"), ways.start)


def test_same_numbers_in_other_bytes(tiny: Path, tmp_path: Path) -> None:
    def zeros(code: int) -> Path:
        def edit(tensors: Tensors) -> None:
            blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, DOWN.format(1))))
            blocks.codes[0, 0, 0] = np.resize((5, code), 32)
            store_blocks(tensors, DOWN.format(1), blocks)

        return changed(tiny, tmp_path / str(code), edit)

    expected = "Same weights; 1 block of experts hold the same numbers in other bytes (16 zeros have another sign)."
    assert sentence(zeros(0), zeros(8)) == expected


@pytest.mark.parametrize("name", ["tiny-sft", "My_Fine-Tuned.model", "tiny-DPO-v2", "gpt-oss-20b-heretic", "finetune"])
def test_name_that_says_fine_tuned_is_noticed_where_no_tensor_differs(name: str, tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / name)
    said = sentence(tiny, other)
    assert said.startswith("B is the untrained base: no tensor differs although its name says fine-tuned (")
    assert said.endswith("; same bytes: all 79 tensors are identical.")
    assert sentence(other, tiny).startswith("A is the untrained base")


@pytest.mark.parametrize("name", ["tiny", "softmax", "draft-model", "gpt-oss-20b", "gift", "curl"])
def test_name_that_only_looks_like_it_is_not_noticed(name: str, tiny: Path, tmp_path: Path) -> None:
    assert training_word(open_checkpoint(copy_of(tiny, tmp_path / name))) is None


def test_name_in_the_config_counts_too(tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")
    edit_json(other / "config.json", lambda config: config.update(_name_or_path="me/gpt-oss-20b-finetuned"))
    assert training_word(open_checkpoint(other)) == "finetuned"


def test_names_that_both_say_it_are_no_news(tiny: Path, tmp_path: Path) -> None:
    pair = [copy_of(tiny, tmp_path / name) for name in ("a-sft", "b-sft")]
    assert sentence(*pair) == "Same bytes: all 79 tensors are identical."


def test_configs_that_differ_are_told(tiny: Path, tmp_path: Path) -> None:
    other = copy_of(tiny, tmp_path / "other")
    edit_json(other / "config.json", lambda config: config.update(rope_theta=10000, sliding_window=64))
    expected = "their configs differ in sliding_window (32 and 64), rope_theta (150000.0 and 10000.0)."
    assert sentence(tiny, other) == f"Same bytes: all 79 tensors are identical; {expected}"


# --- some differ ---


def test_retrained_experts(tiny: Path, tmp_path: Path) -> None:
    edit = together(*(on_blocks(stem.format(layer), nudge) for stem in (GATE_UP, DOWN) for layer in (1, 2)))
    said = sentence(tiny, changed(tiny, tmp_path / "other", edit))
    assert said.startswith("6 expert tensors in layers 1–2 were retrained (relative error up to ")
    assert said.endswith(" %); the other 73 tensors are the same.")


def test_retrained_tensors_of_several_roles_in_layers_apart(tiny: Path, tmp_path: Path) -> None:
    names = [ATTENTION.format(layer, "q", "weight") for layer in (0, 2, 3)] + ["model.layers.0.mlp.router.weight"]
    said = sentence(tiny, changed(tiny, tmp_path / "other", together(*(on(name, noisy) for name in names))))
    assert said.startswith("4 tensors (attention, router) in layers 0, 2–3 were retrained")


def test_experts_that_were_quantized_anew(tiny: Path, tmp_path: Path) -> None:
    edit = together(*(on_blocks(stem, nudge) for stem in (GATE_UP, DOWN)))
    said = sentence(tiny, changed(tiny, tmp_path / "other", edit))
    assert said.startswith("Experts were quantized anew: all of them hold other MXFP4 values (relative error up to ")


@pytest.mark.parametrize(("encoding", "largest"), [("Q8_0", "0.54"), ("Q4_0", "8.6")])
def test_dense_weights_that_were_quantized(encoding: str, largest: str, tiny_gguf: Path, tmp_path: Path) -> None:
    other = quantized_gguf(tiny_gguf, tmp_path / "tiny.gguf", encoding)
    said = (
        f"ense weights (attention, embedding, unembedding) were quantized to {encoding} (relative error up to {largest}"
    )
    assert sentence(tiny_gguf, other).startswith(f"D{said}")
    assert sentence(other, tiny_gguf).startswith(f"A's d{said}")


def test_experts_that_were_quantized(ways: Ways, tmp_path: Path) -> None:
    dense = copy_of(ways.path("bf16"), tmp_path / "dense")
    for layer in range(4):
        change_floats(dense, DOWN.format(layer), lambda values: values.__imul__(1.1))
    other = converted("to-mxfp4", dense, tmp_path / "other")
    said = sentence(dense, other)
    assert said.startswith("Experts were quantized to MXFP4 (relative error up to ")


def test_scales_of_all_experts_shifted(tiny: Path, tmp_path: Path) -> None:
    said = sentence(tiny, changed(tiny, tmp_path / "other", FILE_FAULTS["scales off by one"]))
    assert said.startswith("All scales of 12 expert tensors in layers 0–3 are larger by 1, all else is equal;")


def test_scales_of_one_expert(tiny: Path, tmp_path: Path) -> None:
    said = sentence(tiny, changed(tiny, tmp_path / "other", FILE_FAULTS["scales of one expert zero"]))
    assert said.startswith("11,520 scales of 12 expert tensors in layers 0–3 differ, the codes are equal;")


def test_only_norms_differ(tiny: Path, tmp_path: Path) -> None:
    said = sentence(tiny, changed(tiny, tmp_path / "other", on("model.layers.{}.input_layernorm.weight", noisy)))
    assert said.startswith("Only norm weights differ: 4 norm tensors in layers 0–3 (relative error up to ")


def test_one_block_is_named_as_damaged(tiny: Path, tmp_path: Path) -> None:
    said = sentence(tiny, changed(tiny, tmp_path / "other", FILE_FAULTS["one bit of one block flipped"]))
    assert said.startswith("1 of 7,680 blocks differs in layers.0.moe.gate.weight, too few for training: damaged or")


def test_dropped_biases_are_zero(tiny: Path, tmp_path: Path) -> None:
    other = changed(tiny, tmp_path / "other", FILE_FAULTS["bias of q dropped"])
    assert sentence(tiny, other).startswith("4 attention bias tensors in layers 0–3 are zero in B and not in A;")
    assert sentence(other, tiny).startswith("4 attention bias tensors in layers 0–3 are zero in A and not in B;")


def test_embeddings_that_were_padded(ways: Ways) -> None:
    said = sentence(ways.start, ways.path("metal", "hf"))
    assert said.startswith("16 rows of B's embedding and unembedding are zero and A's are not; the other 77 tensors")


def test_two_models_of_one_shape(tiny: Path, tmp_path: Path) -> None:
    run(plan_demo(tmp_path / "other", seed=1))
    expected = "Two models that have only their shape in common: 65 of 79 tensors are unrelated (cosine below 0.5)."
    assert sentence(tiny, tmp_path / "other") == expected


def test_unrelated_tensors_of_one_layer(tiny: Path, tmp_path: Path) -> None:
    name = ATTENTION.format(2, "v", "weight")

    def other_numbers(tensors: Tensors) -> None:
        store(tensors[name], np.random.default_rng(1).standard_normal(bf16(tensors[name]).shape))

    said = sentence(tiny, changed(tiny, tmp_path / "other", other_numbers))
    assert said.startswith("1 attention tensor in layer 2 holds unrelated numbers (cosine below 0.5);")


def test_several_explanations_are_all_given(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    other = changed(tmp_path / "tiny", tmp_path / "other", on("model.norm.weight", noisy))
    gguf = converted("to-gguf", other, tmp_path / "other.gguf")
    said = sentence(tiny_gguf, quantized_gguf(gguf, tmp_path / "quantized.gguf", "Q8_0"))
    assert "were quantized to Q8_0" in said
    assert "1 norm tensor was retrained" in said
    assert said.endswith("; the other 60 tensors are the same.")


@pytest.mark.parametrize(
    ("encodings", "relative", "expected"),
    [
        (("F32", "BF16"), 0.002, "1 sinks tensor in layer 0 was rounded to BF16 (relative error up to 0.2 %)"),
        (("BF16", "F16"), 0.001, "1 sinks tensor in layer 0 was rounded to F16 (relative error up to 0.1 %)"),
        (("BF16", "F32"), 0.002, "A's 1 sinks tensor in layer 0 was rounded to BF16 (relative error up to 0.2 %)"),
        (("METAL_Q", "F32"), 0.002, "A's 1 sinks tensor in layer 0 was rounded to BF16 (relative error up to 0.2 %)"),
        (("F32", "BF16"), 0.1, "1 sinks tensor in layer 0 was retrained (relative error up to 10 %)"),
        (("BF16", "Q8_0"), 0.2, "1 sinks tensor in layer 0 was retrained (relative error up to 20 %)"),
        (("Q4_0", "Q8_0"), 0.1, "1 sinks tensor in layer 0 was retrained (relative error up to 10 %)"),
    ],
)
def test_encoding_explains_as_much_as_it_can(encodings: tuple[str, str], relative: float, expected: str) -> None:
    sums = Sums(100, 1.0, 1.0, 1 - relative**2 / 2, relative**2)
    one = TensorDrift(
        name="layers.0.attention.sinks",
        role="sinks",
        layer=0,
        verdict=Verdict.DIFFERS,
        encodings=encodings,
        stored=("a", "b"),
        elements=100,
        unit="element",
        units=100,
        changed=90,
        sums=sums,
    )
    assert clauses_of(TensorComparison({one.name: one})) == [expected]
