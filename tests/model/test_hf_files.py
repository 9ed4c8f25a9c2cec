"""The official config.json, byte for byte, and the same spelling for other models."""

from __future__ import annotations

import hashlib
import json

import pytest

from gptoss_convert.formats.errors import ConfigError
from gptoss_convert.model import hf_files
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B, official_config

# Published with revisions 6cee5e81 (20b) and b5c939de (120b).
PUBLISHED = {
    "20b config.json": (1806, "3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce"),
    "120b config.json": (2089, "933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_file_is_byte_identical_to_the_published_one(name: str) -> None:
    content = {
        "20b config.json": official_config(GPT_OSS_20B),
        "120b config.json": official_config(GPT_OSS_120B),
    }[name]
    assert (len(content), hashlib.sha256(content).hexdigest()) == PUBLISHED[name]


def test_config_is_byte_identical_whatever_the_order_of_its_keys() -> None:
    backwards = dict(reversed(GPT_OSS_20B.items()))
    assert official_config(backwards) == official_config(GPT_OSS_20B)


def test_config_carries_unknown_keys() -> None:
    assert json.loads(official_config(GPT_OSS_20B | {"lora_note": "héllo"}))["lora_note"] == "héllo"


def test_config_in_the_spelling_of_transformers_5_is_written_in_the_official_one() -> None:
    newer = {key: value for key, value in GPT_OSS_20B.items() if key not in ("rope_scaling", "rope_theta")}
    newer["rope_parameters"] = GPT_OSS_20B["rope_scaling"] | {"rope_theta": 150_000}  # type: ignore[operator]
    assert official_config(newer) == official_config(GPT_OSS_20B)
    assert "rope_parameters" in newer, "the argument is not changed"


def test_dtype_is_written_as_torch_dtype() -> None:
    written = json.loads(official_config({"dtype": "bfloat16"}))
    assert written == {"torch_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"rope_parameters": {"factor": 8.0}}, "rope_scaling"),
        ({"rope_parameters": GPT_OSS_20B["rope_scaling"] | {"rope_theta": 1.0}}, "rope_theta"),  # type: ignore[operator]
        ({"torch_dtype": "bfloat16", "dtype": "float32"}, "torch_dtype"),
    ],
)
def test_two_spellings_that_contradict_each_other_are_refused(extra: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"key '{key}': contradicts"):
        official_config(GPT_OSS_20B | extra)


def test_layer_types_alternate_and_slide_first() -> None:
    assert hf_files.layer_types(3) == ["sliding_attention", "full_attention", "sliding_attention"]
