"""Text to token ids, by the tokenizer that a checkpoint has."""

from __future__ import annotations

from collections.abc import Callable

from ..model.tokenizer import Tokenizer
from ..model.tokenizer_writer import tokenizer_json


def text_encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """A function from text to its ids, as Hugging Face's `tokenizers` gives them; specials count, too.

    Making it takes about a second for the official vocabulary.
    """
    from tokenizers import Tokenizer as Encoder

    encoder = Encoder.from_str(tokenizer_json(tokenizer).decode())
    # The library numbers added tokens by itself where they are not at the vocabulary's end.
    special = {added.content: token_id for token_id, added in tokenizer.specials.items()}

    def encode(text: str) -> list[int]:
        found = encoder.encode(text, add_special_tokens=False)
        return [special.get(token, token_id) for token, token_id in zip(found.tokens, found.ids, strict=True)]

    return encode
