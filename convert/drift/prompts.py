"""The tokens that two models are compared on: our own texts, a file's, or random ones where there is no tokenizer.

A file ends in `.jsonl` and has an object `{"text": "…", "name": "…"}` in each line (`name` may be missing), or is plain
text whose prompts are separated by blank lines. Special tokens such as `<|start|>` count as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.errors import UsageError
from ...formats.json_text import open_regular_file, parse_json
from ...model.tokenizer import Tokenizer
from ...model.tokenizer_json import byte_alphabet
from ..checkpoint import Checkpoint
from ..text import text_encoder
from ..tokenizers import DirectoryTokenizer
from ..validation.prompts import random_tokens
from .prompt_texts import TEXTS
from .tokenizers import same_files
from .vocabulary import require_same_tokens

DEFAULT_TOKENS = 256
"""Most tokens taken of each prompt: twice the official window."""

MAX_TOKENS = 16_384
"""Most tokens of all prompts together: their activations are in memory at once."""

_RANDOM_PROMPTS = 3
_MAX_FILE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Prompt:
    """One sequence; attention does not leave it.

    Attributes:
        name: what it is about, or its place in the file.
        tokens: int64 [T], T at least 2.
        pieces: what each token spells; "" if that is not known.
    """

    name: str
    tokens: NDArray[np.int64]
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """What both models are run on.

    Attributes:
        source: what the prompts are, in words.
        notes: what a reader of the figures should know of them.
    """

    prompts: tuple[Prompt, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> NDArray[np.int64]:
        """All tokens, prompt after prompt: int64 [T]."""
        return np.concatenate([prompt.tokens for prompt in self.prompts])

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where each prompt begins and ends among all tokens."""
        ends = np.cumsum([len(prompt.tokens) for prompt in self.prompts]).tolist()
        return tuple(zip([0, *ends[:-1]], ends, strict=True))

    def place(self, position: int) -> tuple[Prompt, int]:
        """The prompt that has the token at `position` among all, and the token's place in it."""
        number = next(number for number, (_, end) in enumerate(self.spans) if position < end)
        return self.prompts[number], position - self.spans[number][0]

    def at(self, position: int) -> str:
        """That place in words: "token 17 of 'code'"."""
        prompt, token = self.place(position)
        return f"token {token} of {prompt.name!r}"

    def describe(self) -> list[dict[str, Any]]:
        """Each prompt as JSON data."""
        return [{"name": one.name, "tokens": one.tokens.tolist(), "pieces": list(one.pieces)} for one in self.prompts]


def make_prompts(a: Checkpoint, b: Checkpoint, *, file: Path | None = None, n_tokens: int = DEFAULT_TOKENS) -> Prompts:
    """What to run `a` and `b` on; the ids are below the vocabulary of both.

    Args:
        a: whose tokenizer is taken, if it has one; else that of `b`.
        b: what `a` is compared with.
        file: texts to take instead of ours.
        n_tokens: most tokens of each prompt.

    Raises:
        UsageError: the tokenizers differ; the file is not what is said above; a prompt has fewer than 2 tokens, or all
            together have more than `MAX_TOKENS`.
        TokenizerError: a tokenizer is damaged.
    """
    _check_length(a, n_tokens)
    n_rows = min(a.config.vocab_size, b.config.vocab_size)
    tokenizer = _tokenizer(a)
    if tokenizer is None or not (same_files(a, b) and a.config.vocab_size == b.config.vocab_size):
        other = _tokenizer(b)
        if tokenizer is not None and other is not None:
            require_same_tokens(tokenizer, other, a.path, b.path)
        tokenizer = tokenizer or other
    if tokenizer is None:
        if file is not None:
            raise UsageError(
                "prompts need a tokenizer, and neither checkpoint has one",
                file=file,
                remedy="Give a directory that has tokenizer.json with --tokenizer, or leave out --prompts.",
            )
        return _random(n_rows, n_tokens)
    texts = _read(file) if file is not None else list(TEXTS.items())
    encode = text_encoder(tokenizer)
    prompts = tuple(_prompt(tokenizer, name, encode(text), n_tokens, n_rows, file) for name, text in texts)
    _check_total(prompts, file)
    notes, window = [], a.config.sliding_window
    if all(len(prompt.tokens) <= window for prompt in prompts):
        notes.append(f"No prompt is longer than the sliding window of {window} tokens: errors in it do not show.")
    return Prompts(prompts, str(file) if file else "built-in Harmony-formatted texts", tuple(notes))


def _check_length(checkpoint: Checkpoint, n_tokens: int) -> None:
    most = min(checkpoint.config.max_position_embeddings, MAX_TOKENS)
    if not 2 <= n_tokens <= most:
        raise UsageError(
            "so many tokens cannot be taken of a prompt",
            expected=f"--tokens of 2 to {most:,}",
            found=n_tokens,
            remedy=f"Use --tokens {DEFAULT_TOKENS}, or leave it away.",
        )


def _check_total(prompts: tuple[Prompt, ...], file: Path | None) -> None:
    total = sum(len(prompt.tokens) for prompt in prompts)
    if total > MAX_TOKENS:
        raise UsageError(
            "the prompts are too long together",
            file=file,
            expected=f"at most {MAX_TOKENS:,} tokens",
            found=f"{total:,} in {len(prompts):,} prompts",
            remedy="Give fewer prompts, or take less of each with --tokens.",
        )


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    source = checkpoint.tokenizer
    if source is None or (isinstance(source, DirectoryTokenizer) and not _has_tokenizer(source.directory)):
        return None
    return source.tokenizer(checkpoint.config.vocab_size)


def _has_tokenizer(directory: Path) -> bool:
    return (directory / "tokenizer.json").is_file()


def _random(n_rows: int, n_tokens: int) -> Prompts:
    prompts = []
    for seed in range(_RANDOM_PROMPTS):
        tokens = random_tokens(n_rows, n_tokens, seed)
        prompts.append(Prompt(f"random {seed}", tokens, ("",) * len(tokens)))
    note = (
        "Neither checkpoint has a tokenizer, so the tokens are random: a model says little about them that is of use. "
        "Give a directory that has tokenizer.json with --tokenizer."
    )
    return Prompts(tuple(prompts), "seeded random tokens", (note,))


def _prompt(tokenizer: Tokenizer, name: str, ids: list[int], n_tokens: int, n_rows: int, file: Path | None) -> Prompt:
    ids = [token_id for token_id in ids if token_id < n_rows][:n_tokens]
    if len(ids) < 2:
        raise UsageError(
            f"{name} is too short to be compared on",
            file=file,
            expected="at least 2 tokens",
            found=f"{len(ids)}",
            remedy="Leave it out, or write more.",
        )
    return Prompt(name, np.array(ids, np.int64), tuple(_pieces(tokenizer, ids)))


def _pieces(tokenizer: Tokenizer, ids: list[int]) -> Iterator[str]:
    """What each token spells; bytes that are no character alone are shown as U+FFFD."""
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    for token_id in ids:
        if token_id in tokenizer.specials:
            yield tokenizer.specials[token_id].content
        else:
            yield bytes(byte_of[character] for character in tokenizer.tokens[token_id]).decode(errors="replace")


def _read(file: Path) -> list[tuple[str, str]]:
    """Name and text of each prompt in the file."""
    with open_regular_file(file, error=UsageError) as opened:
        raw = opened.read(_MAX_FILE_BYTES + 1)
    if len(raw) > _MAX_FILE_BYTES:
        raise UsageError(
            "the file is too large for prompts",
            file=file,
            expected=f"at most {_MAX_FILE_BYTES:,} bytes",
            remedy="Give a part of it.",
        )
    text = _decoded(raw, file)
    found = list(_json_lines(text, file) if file.suffix.lower() == ".jsonl" else _paragraphs(text))
    if not found:
        raise UsageError("there is no prompt in the file", file=file, remedy="Write at least one line of text into it.")
    return found


def _decoded(raw: bytes, file: Path) -> str:
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"line {line} is not UTF-8",
            file=file,
            found=f"byte 0x{raw[error.start]:02x} at offset {error.start:,}",
            remedy="Save the file as UTF-8.",
        ) from None


def _paragraphs(text: str) -> Iterator[tuple[str, str]]:
    lines: list[str] = []
    first = 1
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            first = number if not lines else first
            lines.append(line)
        elif lines:
            yield f"line {first}", "\n".join(lines)
            lines = []


def _json_lines(text: str, file: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        value = parse_json(
            line.encode(), file=file, what=where, max_bytes=_MAX_FILE_BYTES, max_depth=8, error=UsageError
        )
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise UsageError(
                f"{where} has no text",
                file=file,
                expected='an object such as {"text": "Once upon a time …"}',
                found=line[:60],
                remedy="Correct the line; a file of plain text must not be named .jsonl.",
            )
        name = value.get("name")
        yield (name if isinstance(name, str) and name else where), value["text"]
