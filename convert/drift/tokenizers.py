"""In what two checkpoints' tokenizers differ, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...formats.errors import TokenizerError
from ...model.tokenizer import Tokenizer
from ..checkpoint import Checkpoint
from ..tokenizers import DirectoryTokenizer, GgufTokenizer, MetalHeaderTokenizer

# What a tokenizer is made of; two directories that hold the same bytes of all of these need not be parsed.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_KEYS = ("pattern", "bos_id", "eos_id", "pad_id", "stop_ids", "add_bos", "add_eos")

# What a GGUF file does not say, and what a Metal file does not: there it is made of its tokens.
_NOT_IN_GGUF = ("stop_ids",)
_NOT_IN_METAL = ("stop_ids", "merges", "pattern")


@dataclass(frozen=True)
class TokenizerDifference:
    """What differs, and what it is in A and in B, in words."""

    key: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.key}: {self.a} and {self.b}"


def tokenizer_differences(a: Checkpoint, b: Checkpoint) -> tuple[TokenizerDifference, ...]:
    """What differs between the tokenizers; nothing is raised for one that is missing or cannot be read: it is said."""
    if a.tokenizer is None or b.tokenizer is None:
        said = ["none" if checkpoint.tokenizer is None else "there" for checkpoint in (a, b)]
        return () if said[0] == said[1] else (TokenizerDifference("tokenizer", *said),)
    if same_files(a, b):
        return ()
    found: list[Tokenizer | str] = []
    for checkpoint in (a, b):
        assert checkpoint.tokenizer is not None
        try:
            found.append(checkpoint.tokenizer.tokenizer(checkpoint.config.vocab_size))
        except (TokenizerError, OSError) as error:
            found.append(f"unreadable ({error})")
    first, second = found
    if isinstance(first, str) or isinstance(second, str):
        said = [one if isinstance(one, str) else "readable" for one in found]
        return (TokenizerDifference("tokenizer", *said),)
    unsaid = {key for checkpoint in (a, b) for key in _unsaid(checkpoint)}
    return tuple(one for one in _differences(first, second) if one.key.partition(",")[0] not in unsaid)


def _unsaid(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The keys that the checkpoint's tokenizer cannot have."""
    if isinstance(checkpoint.tokenizer, MetalHeaderTokenizer):
        return _NOT_IN_METAL
    return _NOT_IN_GGUF if isinstance(checkpoint.tokenizer, GgufTokenizer) else ()


def same_files(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether both tokenizers are directories', whose files and ids in the config are the same: one says it all."""
    if not isinstance(a.tokenizer, DirectoryTokenizer) or not isinstance(b.tokenizer, DirectoryTokenizer):
        return False
    directories = a.tokenizer.directory, b.tokenizer.directory
    if any(a.config.raw.get(key) != b.config.raw.get(key) for key in _IDS):
        return False
    try:
        return all(_content(directories[0], name) == _content(directories[1], name) for name in _FILES)
    except OSError:
        return False


def _content(directory: Path, name: str) -> bytes | None:
    path = directory / name
    return path.read_bytes() if path.is_file() else None


def _differences(a: Tokenizer, b: Tokenizer) -> list[TokenizerDifference]:
    specials = [{token_id: token.content for token_id, token in one.specials.items()} for one in (a, b)]
    found = [
        _tables("text tokens", a.tokens, b.tokens),
        _tables("special tokens", *specials),
        _tables("merges", dict(enumerate(a.merges)), dict(enumerate(b.merges))),
    ]
    for key in _KEYS:
        values = getattr(a, key), getattr(b, key)
        found.append(None if values[0] == values[1] else TokenizerDifference(key, *map(repr, values)))
    if a.chat_template != b.chat_template:
        found.append(TokenizerDifference("chat_template", *(_template(one.chat_template) for one in (a, b))))
    return [one for one in found if one is not None]


def _tables(key: str, a: Mapping[int, str], b: Mapping[int, str]) -> TokenizerDifference | None:
    """The number of entries, or the first that differs where the numbers are equal."""
    if a == b:
        return None
    if len(a) != len(b):
        return TokenizerDifference(key, f"{len(a):,}", f"{len(b):,}")
    place = next(place for place in sorted(a.keys() | b.keys()) if a.get(place) != b.get(place))
    return TokenizerDifference(f"{key}, {place}", repr(a.get(place)), repr(b.get(place)))


def _template(text: str | None) -> str:
    return "none" if text is None else f"{len(text):,} characters"
