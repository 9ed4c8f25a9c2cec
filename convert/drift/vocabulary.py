"""Whether two models mean the same by their token ids."""

from __future__ import annotations

from pathlib import Path

from ...formats.errors import UsageError
from ...formats.json_text import excerpt
from ...model.tokenizer import Tokenizer


def require_same_tokens(a: Tokenizer, b: Tokenizer, path_a: Path, path_b: Path) -> None:
    """Nothing, if every id that both have spells the same; ids that one of them has alone do not matter.

    Raises:
        UsageError: an id spells something else in the other; the lowest such is named.
    """
    for token_id in sorted({*a.tokens, *a.specials} & {*b.tokens, *b.specials}):
        expected, found = a.text_of(token_id), b.text_of(token_id)
        if expected != found:
            raise UsageError(
                "the tokenizers differ, so the two models do not read the same text",
                file=path_b,
                key=f"token {token_id}",
                expected=f"{excerpt(expected)}, as in {path_a}",
                found=excerpt(found),
                remedy="Compare models that share a tokenizer, or give the right one with --tokenizer.",
            )
