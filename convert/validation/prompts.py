"""Text to run models on: Harmony-formatted, of our own writing, long enough for the sliding window to matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...model.tokenizer import Tokenizer
from ..text import text_encoder

# Speaker, channel, text. Several subjects, a tool call, a language that is not English, code.
_TURNS: tuple[tuple[str, str], ...] = (
    ("system", "You answer briefly. Reasoning: low. Valid channels: analysis, commentary, final."),
    ("user", "A tank holds 240 litres and loses 3.5 litres an hour through a crack. When is it half empty?"),
    ("assistant<|channel|>analysis", "Half of it is 120 litres; 120 / 3.5 is about 34.29 hours."),
    ("assistant<|channel|>final", "After a little more than 34 hours: 120 litres at 3.5 litres an hour."),
    ("user", "Wie heißt der längste Fluss, der ganz in Frankreich fließt, und wo entspringt er?"),
    ("assistant<|channel|>final", "Es ist die Loire. Sie entspringt am Mont Gerbier-de-Jonc im Zentralmassiv."),
    ("user", "Write a function that says whether a word reads the same from both ends, ignoring case."),
    (
        "assistant<|channel|>final",
        "def is_palindrome(word: str) -> bool:\n    folded = word.casefold()\n    return folded == folded[::-1]",
    ),
    ("user", "What will the weather be in Lisbon tomorrow?"),
    (
        "assistant to=functions.forecast<|channel|>commentary <|constrain|>json",
        '{"place": "Lisbon", "day": "tomorrow", "unit": "celsius"}',
    ),
    ("functions.forecast to=assistant<|channel|>commentary", '{"low": 14, "high": 22, "sky": "clear", "wind_kmh": 18}'),
    ("assistant<|channel|>final", "Clear, between 14 and 22 degrees, with a light wind from the sea."),
    ("user", "Explain to a child why the moon does not fall down."),
    (
        "assistant<|channel|>final",
        "It does fall, all the time! But it also flies sideways so fast that the round earth curves away beneath it "
        "just as quickly as it falls. So it goes around and around, and never comes closer.",
    ),
)
TEXT = "".join(f"<|start|>{header}<|message|>{text}<|end|>" for header, text in _TURNS)


def prompt_tokens(tokenizer: Tokenizer, n_tokens: int, text: str = TEXT) -> NDArray[np.int64]:
    """The ids of `text`, repeated to `n_tokens`: int64 [n_tokens]."""
    return np.resize(np.array(text_encoder(tokenizer)(text), np.int64), n_tokens)


def random_tokens(vocab_size: int, n_tokens: int, seed: int = 0) -> NDArray[np.int64]:
    """Seeded ids for a model whose tokenizer is not at hand: int64 [n_tokens]."""
    return np.random.default_rng(seed).integers(0, vocab_size, n_tokens)
