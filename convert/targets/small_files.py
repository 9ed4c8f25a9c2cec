"""The small files of a Hugging Face directory: those of the tokenizer's source, official ones where one is missing."""

from __future__ import annotations

from ...model.hf_files import GPT_OSS_20B
from ...model.tokenizer_writer import official_small_files
from ..tokenizers import TokenizerSource


def small_files(source: TokenizerSource | None, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
    """The files by name, and notes on what is missing or doubtful. `source` is None if there is no tokenizer.

    Raises:
        TokenizerError: the source is damaged, or does not fit `vocab_size` rows.
    """
    texts, notes = ({}, []) if source is None else source.files(vocab_size)
    made = official_small_files() if vocab_size == GPT_OSS_20B["vocab_size"] else {}
    missing = [
        f"{name} is not in the source and was not made: copy it from the official repository, or use --tokenizer."
        for name in ("tokenizer.json", "chat_template.jinja")
        if name not in texts
    ]
    return {**made, **texts}, [*notes, *missing]
