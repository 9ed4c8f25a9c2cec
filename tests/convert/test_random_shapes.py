"""Models of any shape come back byte-identical from every chain of conversions."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from checkpoints import read_tensors
from conversions import contents, converted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptoss_convert.convert.demo import synthetic_checkpoint
from gptoss_convert.convert.plan import plan
from gptoss_convert.convert.run import run
from gptoss_convert.convert.targets.hf import HfTarget
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.config_checks import layer_types
from gptoss_convert.model.demo_tokenizer import demo_tokenizer_files
from gptoss_convert.model.hf_files import GPT_OSS_20B

N_TEXT, N_SPECIAL = 256, 21
EMBEDDINGS, N_KEPT = ("model.embed_tokens.weight", "lm_head.weight"), N_TEXT + 16


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; hidden and intermediate are in blocks of 32."""

    layers: int
    experts: int
    hidden: int
    intermediate: int
    kv_heads: int
    heads_per_kv: int
    head_dim: int
    spare_rows: int

    def config(self) -> dict[str, object]:
        return GPT_OSS_20B | {
            "eos_token_id": N_TEXT + 4,
            "head_dim": self.head_dim,
            "hidden_size": 32 * self.hidden,
            "intermediate_size": 32 * self.intermediate,
            "layer_types": layer_types(self.layers),
            "num_attention_heads": self.kv_heads * self.heads_per_kv,
            "num_experts_per_tok": 1,
            "experts_per_token": 1,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "num_local_experts": self.experts,
            "pad_token_id": N_TEXT + 1,
            "vocab_size": N_TEXT + N_SPECIAL + self.spare_rows,
        }


SHAPES = st.builds(
    Shape,
    layers=st.integers(1, 2),
    experts=st.integers(1, 3),
    hidden=st.integers(1, 5),
    intermediate=st.integers(1, 5),
    kv_heads=st.integers(1, 3),
    heads_per_kv=st.integers(1, 5),
    head_dim=st.integers(1, 17).map(lambda half: 2 * half),
    spare_rows=st.integers(0, 7),
).filter(lambda shape: shape.hidden != shape.intermediate)

# Nothing twice as large as it must be, and everything odd.
SMALLEST, ODD = Shape(1, 1, 1, 2, 1, 1, 2, 0), Shape(2, 3, 5, 3, 3, 5, 6, 7)


def made(shape: Shape, seed: int, out: Path) -> Path:
    """A checkpoint in the official layout."""
    config = parse_config(shape.config())
    texts = demo_tokenizer_files(N_TEXT, config.vocab_size)
    run(plan(synthetic_checkpoint(config, seed), HfTarget(out, texts)), prove=False)
    return out


@settings(derandomize=True, max_examples=12, deadline=None)
@given(SHAPES, st.integers(0, 2**32))
@example(SMALLEST, 0)
@example(ODD, 0)
def test_mxfp4_to_bf16_and_back_is_byte_identical_with_like(shape: Shape, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = made(shape, seed, directory / "source")
        dense = converted("to-bf16", source, directory / "bf16")
        assert contents(converted("to-mxfp4", dense, directory / "back", "--like", source)) == contents(source)


@settings(derandomize=True, max_examples=12, deadline=None)
@given(SHAPES, st.integers(0, 2**32))
@example(SMALLEST, 0)
@example(ODD, 0)
def test_hf_to_mlx_to_gguf_to_original_and_back_is_byte_identical(shape: Shape, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = made(shape, seed, directory / "source")
        mlx = converted("to-mlx", source, directory / "mlx")
        gguf = converted("to-gguf", mlx, directory / "out.gguf")
        back = converted("to-mxfp4", gguf, directory / "hf")
        original = converted("to-mxfp4", back, directory / "original", "--layout", "original")
        again = converted("to-mxfp4", original, directory / "again", "--tokenizer", source)
        assert read_tensors(back) == read_tensors(again) == read_tensors(source)
        assert contents(back) == contents(source)


@settings(derandomize=True, max_examples=12, deadline=None)
@given(SHAPES, st.integers(0, 2**32))
@example(SMALLEST, 0)
@example(ODD, 0)
def test_hf_to_metal_and_back_is_byte_identical_but_for_rows_without_a_token(shape: Shape, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = made(shape, seed, directory / "source")
        metal = converted("to-metal", source, directory / "model.bin")
        back = read_tensors(converted("to-mxfp4", metal, directory / "back", "--pad-vocab", "--tokenizer", source))
        before = read_tensors(source)
        assert {tensor for tensor in before if before[tensor] != back[tensor]} <= set(EMBEDDINGS)
        for tensor in EMBEDDINGS:
            kept = N_KEPT * 2 * before[tensor].shape[1]
            assert back[tensor].data[:kept] == before[tensor].data[:kept]
