"""Text becomes the tokens that transformers' own tokenizer gives, whatever the layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.drift.prompt_texts import TEXTS
from gptoss_convert.convert.text import text_encoder
from gptoss_convert.convert.validation.prompts import TEXT

EVERY_TEXT = {"validation": TEXT, **TEXTS}


@pytest.mark.parametrize("layout", ["hf", "gguf"])
@pytest.mark.parametrize("name", EVERY_TEXT)
def test_ids_are_those_of_transformers(name: str, layout: str, tiny: Path, tiny_gguf: Path) -> None:
    checkpoint = open_checkpoint({"hf": tiny, "gguf": tiny_gguf}[layout])
    assert checkpoint.tokenizer is not None
    encode = text_encoder(checkpoint.tokenizer.tokenizer(checkpoint.config.vocab_size))
    expected = AutoTokenizer.from_pretrained(tiny)(EVERY_TEXT[name], add_special_tokens=False)["input_ids"]
    assert len(expected) > 128
    assert encode(EVERY_TEXT[name]) == expected
