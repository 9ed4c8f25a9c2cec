"""A tokenizer of any size for synthetic checkpoints: the files, the special tokens and the split of the official one.

The vocabulary is our own: 256 byte tokens, then merges learned from a short text, then merges by enumeration until
the size is reached. It encodes any text without loss; it is not the official vocabulary.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from ..formats.errors import REPORT, UsageError
from .harmony import CHAT_TEMPLATE, N_SPECIAL_TOKENS, special_tokens
from .tokenizer import harmony_tokenizer
from .tokenizer_json import byte_alphabet
from .tokenizer_writer import tokenizer_files

# No combining marks: llama.cpp's gpt-4o split ends a word before one, the o200k pattern does not.
_TRAINING_TEXT = """\
The converter reads every tensor once and writes every byte once. When it has written the last byte, it opens the
file again and proves that nothing was lost: the names, the shapes, the scales and the blocks are the same as before.
What is the weather like in the mountains today? There is snow on the northern side, and the wind is still strong.
She asked whether the other people would come to the station before the train leaves, and they said that they would.
A model is only as good as the numbers inside it; the rest is text. I think we should be careful with the numbers.
One, two, three: 1 2 3 10 20 32 64 128 256 1000 2880. Please don't, can't, won't, it's, we're, they'll, I've, he'd.
def read(path, size=0):
    for index in range(len(values)):
        if value is None or not name:
            return {"name": name, "index": index, "values": [value, size]}
    raise ValueError("expected a value, found none")
int main(void) { const char *text = "hello, world"; return 0; }
Guten Morgen, wie geht es Ihnen? Das Wetter ist heute schön, aber es wird später noch regnen.
Bonjour, où se trouve la gare ? Elle est près de la rivière, à côté du marché. ¿Dónde está la estación? Mañana iré.
Доброе утро, как дела? Сегодня хорошая погода. Καλημέρα κόσμε.
今日は天気がいいですね。你好,世界。안녕하세요. مرحبا بالعالم.
"""

# Close to the o200k split for plain text; the standard library has no Unicode letter classes.
_WORD = re.compile(r" ?[^\W\d_]+|\d{1,3}| ?[^\s\w]+|\s+")


def demo_tokenizer_files(n_text: int, vocab_size: int) -> dict[str, bytes]:
    """The tokenizer's files by name, as in an official directory; the same sizes give the same bytes.

    `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and
    `chat_template.jinja`. The 21 special tokens follow the text tokens without a gap: the tokenizers library
    numbers them so, whatever the file says. With 199998 text tokens each has its official id.

    Args:
        n_text: number of text tokens, ids 0..n_text-1; at least 256, one for each byte.
        vocab_size: rows of the embedding; above every id.

    Raises:
        UsageError: the sizes do not fit together.
    """
    if not 256 <= n_text <= vocab_size - N_SPECIAL_TOKENS:
        raise UsageError(
            "the tokenizer's sizes do not fit together",
            expected=f"256 <= text tokens <= vocabulary - {N_SPECIAL_TOKENS}",
            found=f"{n_text} text tokens, vocabulary {vocab_size}",
            remedy=REPORT,
        )
    tokens, merges = byte_level_vocabulary(n_text)
    tokenizer = harmony_tokenizer(
        dict(enumerate(tokens)),
        [" ".join(pair) for pair in merges],
        special_tokens(n_text),
        chat_template=CHAT_TEMPLATE,
    )
    return tokenizer_files(tokenizer)


def byte_level_vocabulary(n_tokens: int) -> tuple[list[str], list[tuple[str, str]]]:
    """`n_tokens` distinct tokens in id order, and the `n_tokens - 256` merges that make those after the first 256."""
    tokens = _byte_tokens()
    merges = _learned_merges(n_tokens - len(tokens))
    tokens += [left + right for left, right in merges]
    return _enumerated(tokens, merges, n_tokens)


def _byte_tokens() -> list[str]:
    """One token for each byte: printable characters stand for themselves and come first, as in o200k."""
    return sorted(byte_alphabet())


def _learned_merges(n_merges: int) -> list[tuple[str, str]]:
    """Up to `n_merges` merges of the training text's most frequent neighbours; ties go by code point, last first."""
    alphabet = byte_alphabet()
    words = Counter(tuple(alphabet[byte] for byte in word.encode()) for word in _WORD.findall(_TRAINING_TEXT))
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(merges) < n_merges:
        counts: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                if "".join(pair) not in made:
                    counts[pair] += count
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        made.add("".join(best))
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with each neighbouring `pair` joined, from the left."""
    if pair[0] not in word:
        return word
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def _enumerated(
    tokens: list[str], merges: list[tuple[str, str]], n_tokens: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """`tokens` and `merges` continued to `n_tokens` by joining tokens pair by pair, new ones only."""
    rights = tuple(tokens)
    made = set(tokens)
    missing = n_tokens - len(tokens)
    if missing == 0:
        return tokens, merges
    for left in rights:
        for right in rights:
            joined = left + right
            if joined in made:
                continue
            made.add(joined)
            tokens.append(joined)
            merges.append((left, right))
            missing -= 1
            if missing == 0:
                return tokens, merges
    raise UsageError(
        "more text tokens than this vocabulary can hold",
        expected=f"at most {len(tokens)}",
        found=n_tokens,
        remedy=REPORT,
    )
