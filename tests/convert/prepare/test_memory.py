"""Sizes of caches are those that the consumers allocate, and those worked out by hand for the published models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prepare_caches import llama_cpp_cells, llama_cpp_mib, mlx_bytes, transformers_bytes

from gptoss_convert.convert.prepare import memory
from gptoss_convert.convert.prepare.machines import GIB, MIB
from gptoss_convert.convert.prepare.memory import kv_bytes, wired_limit
from gptoss_convert.model.config import parse_config, read_config
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B

SMALL, LARGE = parse_config(GPT_OSS_20B), parse_config(GPT_OSS_120B)
# One token in one layer: keys and values of 8 heads of 64, two bytes each.
TOKEN = 2 * 8 * 64 * 2

BY_HAND = {
    # 12 layers see everything, 12 have a window: 128 and a batch of 512, rounded up to 768.
    "llama.cpp": 12 * 16_384 * TOKEN + 12 * 768 * TOKEN,
    # 127 and 2,048 are 136 blocks of 16, and one block more.
    "vllm": 12 * 16_384 * TOKEN + 12 * 137 * 16 * TOKEN,
    "transformers": 12 * 16_384 * TOKEN + 12 * 127 * TOKEN,
    "mlx": 12 * 16_384 * TOKEN + 12 * (128 + 2048 - 1) * TOKEN,
    # All layers alike, in float32.
    "metal": 24 * 16_384 * TOKEN * 2,
}


@pytest.mark.parametrize("consumer", BY_HAND)
def test_the_cache_of_20b_is_what_a_hand_works_out(consumer: str) -> None:
    assert kv_bytes(consumer, SMALL, 16_384) == BY_HAND[consumer]


def test_the_cache_of_120b_at_full_length_is_what_a_hand_works_out() -> None:
    assert kv_bytes("llama.cpp", LARGE, 131_072) == 18 * (131_072 + 768) * TOKEN == 4_860_149_760
    assert kv_bytes("llama.cpp", LARGE, 131_072, "q8_0") == 4_860_149_760 * 34 // 64


def test_a_context_shorter_than_the_window_takes_no_more_than_itself() -> None:
    assert kv_bytes("transformers", SMALL, 100) == 24 * 100 * TOKEN
    assert kv_bytes("llama.cpp", SMALL, 100) == 24 * 256 * TOKEN


@pytest.mark.parametrize("context", [200, 1000, 4096])
def test_llama_cpp_has_the_cells_that_we_say(tiny: Path, tiny_gguf: Path, context: int) -> None:
    ours = memory.llama_cpp_cells(read_config(tiny / "config.json"), context)
    assert llama_cpp_cells(tiny_gguf, context) == (ours.full, ours.sliding)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_llama_cpp_allocates_what_we_say(tiny: Path, tiny_gguf: Path, kv_type: str) -> None:
    ours = kv_bytes("llama.cpp", read_config(tiny / "config.json"), 4096, kv_type) / MIB
    assert llama_cpp_mib(tiny_gguf, 4096, f"GGML_TYPE_{kv_type.upper()}") == pytest.approx(ours, abs=0.011)


@pytest.mark.parametrize("n_tokens", [20, 32, 500])
def test_transformers_allocates_what_we_say(tiny: Path, n_tokens: int) -> None:
    ours = kv_bytes("transformers", read_config(tiny / "config.json"), n_tokens)
    assert transformers_bytes(tiny, n_tokens) == ours


def test_mlx_allocates_what_we_say(tiny: Path) -> None:
    raw = json.loads((tiny / "config.json").read_text())
    assert mlx_bytes(raw, [2048, 2048]) == kv_bytes("mlx", read_config(tiny / "config.json"), 4096)


@pytest.mark.parametrize(("context", "mib"), [(2048, 98.40), (16_384, 112.40), (131_072, 224.40)])
def test_the_estimate_for_llama_cpp_is_near_its_own_figure(context: int, mib: float) -> None:
    # What xllamacpp 2026.10.11549 logs as its compute buffer for the true shapes of 20b.
    assert memory.activation_bytes("llama.cpp", SMALL, context) / MIB == pytest.approx(mib, rel=0.01)


@pytest.mark.parametrize("consumer", BY_HAND)
def test_estimates_grow_with_the_model_and_are_no_zeros(consumer: str, tiny: Path) -> None:
    small = memory.activation_bytes(consumer, read_config(tiny / "config.json"), 16_384)
    assert 0 < small < memory.activation_bytes(consumer, SMALL, 16_384) < 4 * GIB
    assert memory.runtime_bytes(consumer, on_card=True) >= memory.runtime_bytes(consumer, on_card=False) > 0


@pytest.mark.parametrize(("gib", "mib"), [(16, 10_922), (32, 21_845), (36, 27_648), (64, 49_152)])
def test_the_gpus_limit_is_what_macs_report(gib: int, mib: int) -> None:
    assert wired_limit(gib * GIB) // MIB == mib
