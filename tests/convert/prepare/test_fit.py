"""Verdicts add up, say by how much, and name only remedies that work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gptoss_convert.convert.prepare.fit import Setting, Verdict, available, judge, needs_of
from gptoss_convert.convert.prepare.machines import CPU, GIB, MIB, Machine, parse_machine
from gptoss_convert.convert.prepare.model import decoded, packed
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from gptoss_convert.model.layouts import gguf

SMALL, LARGE = parse_config(GPT_OSS_20B), parse_config(GPT_OSS_120B)
SMALL_GGUF, LARGE_GGUF = (packed(config, f32_roles=gguf.F32_ROLES) for config in (SMALL, LARGE))
EMBEDDING = 201_088 * 2880 * 2
# Codes and scales of gate, up and down of 128 experts, and their biases in float32.
LARGE_LAYER = 3 * 128 * 2880 * 2880 * 17 // 32 + 3 * 128 * 2880 * 4


def verdict(device: str, consumer: str = "llama.cpp", context: int = 16_384, *, large: bool = False) -> Verdict:
    return judge(LARGE_GGUF if large else SMALL_GGUF, parse_machine(device), Setting(consumer, context))


def kinds(found: Verdict) -> list[str]:
    return [remedy.kind for remedy in found.remedies]


def test_the_published_models_have_the_bytes_of_their_files() -> None:
    assert packed(SMALL).total == 13_761_264_768
    assert packed(LARGE).total == 65_248_815_744
    assert decoded(SMALL).total == 2 * 20_914_757_184
    assert (packed(SMALL).embedding, LARGE_GGUF.experts[7]) == (EMBEDDING, LARGE_LAYER)


def test_20b_on_a_3090_adds_up_by_hand() -> None:
    found = verdict("3090")
    assert found.fits
    assert found.needs.weights == SMALL_GGUF.total - EMBEDDING
    assert found.needs.kv_cache == 12 * (16_384 + 768) * 2048
    assert found.needs.host_weights == EMBEDDING
    assert found.needs.total == found.needs.weights + found.needs.kv_cache + found.needs.activations + GIB
    assert found.available == 24_576 * MIB
    assert found.spare == found.available - found.needs.total
    assert not found.remedies


def test_120b_on_a_3090_keeps_as_few_layers_as_it_can_with_the_processor() -> None:
    found = verdict("3090", large=True)
    assert found.fits is False
    assert found.spare is not None
    assert found.spare < 0
    # By hand: what is missing, in whole layers of experts.
    n_layers = -(found.spare // LARGE_LAYER)
    assert kinds(found)[0] == "n-cpu-moe"
    assert f"--n-cpu-moe {n_layers}, which" in found.remedies[0].text
    assert found.remedies[0].n_bytes == found.needs.total - n_layers * LARGE_LAYER
    assert {"cards", "20b"} <= set(kinds(found))


@pytest.mark.parametrize("consumer", ["llama.cpp", "ollama", "lm-studio", "vllm", "transformers"])
@pytest.mark.parametrize("device", ["T4", "3090", "A100-40", "H100"])
@pytest.mark.parametrize("large", [False, True])
def test_every_remedy_that_is_a_setting_fits(device: str, consumer: str, large: bool) -> None:
    model, machine = LARGE_GGUF if large else SMALL_GGUF, parse_machine(device)
    found = judge(model, machine, Setting(consumer, 131_072))
    assert found.fits or found.remedies
    for remedy in found.remedies:
        if remedy.setting is not None:
            assert judge(model, machine, remedy.setting).fits
            assert remedy.n_bytes == needs_of(model, machine, remedy.setting).total


def test_a_context_that_fits_is_the_longest_that_does() -> None:
    found = verdict("T4", context=131_072)
    shorter = next(remedy.setting for remedy in found.remedies if remedy.kind == "context")
    assert shorter is not None
    assert not judge(SMALL_GGUF, parse_machine("T4"), replace(shorter, context=shorter.context + 256)).fits


def test_vllm_is_spread_over_numbers_of_cards_that_divide_the_heads() -> None:
    remedy = next(one for one in verdict("3090", "vllm", large=True).remedies if one.kind == "cards")
    assert remedy.setting is not None
    assert remedy.setting.cards == 4
    remedy = next(one for one in verdict("3090", large=True).remedies if one.kind == "cards")
    assert remedy.setting is not None
    assert remedy.setting.cards == 3


def test_what_vllm_may_have_is_the_share_that_it_is_started_with() -> None:
    assert available(parse_machine("H100"), "vllm") == 81_559 * MIB * 90 // 100


def test_a_mac_counts_everything_against_what_the_gpu_may_have() -> None:
    found = verdict("M4:24")
    assert found.needs.weights == SMALL_GGUF.total
    assert (found.fits, found.available) == (True, 16 * GIB)


def test_a_mac_is_given_a_higher_limit_where_enough_is_left() -> None:
    found = verdict("M3 Pro 18")
    assert kinds(found)[0] == "wired-limit"
    mib = -(-found.needs.total // MIB)
    assert f"iogpu.wired_limit_mb={mib}`" in found.remedies[0].text
    raised = replace(parse_machine("M3 Pro 18"), wired_bytes=mib * MIB)
    assert judge(SMALL_GGUF, raised, Setting("llama.cpp", 16_384)).fits


def test_a_mac_of_16_gb_leaves_experts_to_the_processor_and_the_limit_alone() -> None:
    found = verdict("M2 16")
    assert "wired-limit" not in kinds(found)
    assert kinds(found)[0] == "n-cpu-moe"


def test_nothing_makes_120b_fit_a_mac_of_16_gb_but_the_small_model() -> None:
    assert kinds(verdict("M2 16", large=True)) == ["20b"]
    assert kinds(verdict("M1 8", large=True)) == []


def test_a_processor_keeps_a_tenth_for_the_system() -> None:
    machine = Machine("somebody's", CPU, "", 32 * GIB)
    assert available(machine, "llama.cpp") == 32 * GIB - 32 * GIB // 10
    assert judge(SMALL_GGUF, machine, Setting("llama.cpp", 16_384)).fits


def test_experts_are_left_to_a_host_only_if_it_can_hold_them() -> None:
    card = parse_machine("3090")
    setting = Setting("llama.cpp", 16_384)
    assert "n-cpu-moe" in kinds(judge(LARGE_GGUF, replace(card, host_bytes=64 * GIB), setting))
    assert "n-cpu-moe" not in kinds(judge(LARGE_GGUF, replace(card, host_bytes=32 * GIB), setting))


def test_without_a_machine_there_is_no_verdict_but_what_it_needs() -> None:
    found = judge(SMALL_GGUF, None, Setting("vllm", 16_384))
    assert (found.fits, found.available, found.spare) == (None, None, None)
    assert found.needs.total > SMALL_GGUF.total
