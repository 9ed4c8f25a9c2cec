"""Where a checkpoint's tokenizer comes from: a Hugging Face directory, a GGUF's keys, or a Metal file's header.

Each gives the same three things, so that every source can go to every target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..formats.containers.gguf_values import GgufValue
from ..formats.containers.metal_types import MetalFile
from ..formats.errors import TokenizerError
from ..formats.json_text import open_regular_file
from ..model.gguf_tokenizer import PREFIX, TOKENS, kv_to_facts, kv_to_tokenizer
from ..model.metal_tokenizer import metal_to_facts, metal_to_tokenizer
from ..model.tokenizer import Tokenizer, read_tokenizer
from ..model.tokenizer_files import TokenizerFacts, read_special_token_facts
from ..model.tokenizer_json import MAX_TOKENIZER_BYTES
from ..model.tokenizer_writer import tokenizer_files

CARRIED = (
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "LICENSE",
    "USAGE_POLICY",
)


class TokenizerSource(Protocol):
    """A tokenizer that has not been read yet; making one of these opens no file."""

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        """The tokenizer, every id below `vocab_size`. Raises TokenizerError."""

    def files(self, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
        """The Hugging Face files by name, and what there is to say of them. Raises TokenizerError."""

    def facts(self) -> TokenizerFacts:
        """What `inspect` shows, in milliseconds. Raises TokenizerError."""


@dataclass(frozen=True)
class DirectoryTokenizer:
    """The files in `directory`, carried byte for byte."""

    directory: Path

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        return read_tokenizer(self.directory, vocab_size=vocab_size)

    def files(self, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:  # noqa: ARG002 - nothing is looked into
        """Those of the files that are there, and the licence."""
        paths = {name: self.directory / name for name in CARRIED}
        return {name: _whole(path) for name, path in paths.items() if path.is_file()}, []

    def facts(self) -> TokenizerFacts:
        return read_special_token_facts(self.directory)


@dataclass(frozen=True)
class GgufTokenizer:
    """The tokenizer in a GGUF's metadata; `file` is named in errors."""

    metadata: Mapping[str, GgufValue] = field(repr=False)
    file: Path

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        tokenizer = kv_to_tokenizer(self.metadata, self.file)
        tokenizer.require_fit(vocab_size, self.file)
        return tokenizer

    def files(self, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
        return _built(self.tokenizer(vocab_size))

    def facts(self) -> TokenizerFacts:
        return kv_to_facts(self.metadata)

    def is_of(self, architecture: str) -> bool:
        """True if the file is of that architecture: then its keys can go to another such file as they are."""
        found = self.metadata.get("general.architecture")
        return found is not None and found.value == architecture

    def kv(self) -> dict[str, GgufValue]:
        """The tokenizer's keys as they are stored, those that nobody here understands too."""
        return {key: value for key, value in self.metadata.items() if key.startswith(PREFIX)}


@dataclass(frozen=True)
class MetalHeaderTokenizer:
    """The tokenizer in a Metal file's header, which has no chat template."""

    metal: MetalFile = field(repr=False)

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        tokenizer = metal_to_tokenizer(self.metal.tokenizer, vocab_size, self.metal.path)
        tokenizer.require_fit(vocab_size, self.metal.path)
        return tokenizer

    def files(self, vocab_size: int) -> tuple[dict[str, bytes], list[str]]:
        return _built(self.tokenizer(vocab_size))

    def facts(self) -> TokenizerFacts:
        return metal_to_facts(self.metal.tokenizer)


def gguf_tokenizer(metadata: Mapping[str, GgufValue], file: Path) -> GgufTokenizer | None:
    """The tokenizer in a GGUF's metadata; None if it has no tokens, as in files that hold weights only."""
    return GgufTokenizer(metadata, file) if TOKENS in metadata else None


def _built(tokenizer: Tokenizer) -> tuple[dict[str, bytes], list[str]]:
    return tokenizer_files(tokenizer), list(tokenizer.warnings)


def _whole(path: Path) -> bytes:
    """The file's bytes. Raises TokenizerError."""
    with open_regular_file(path, error=TokenizerError) as file:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_TOKENIZER_BYTES:
            raise TokenizerError(
                "the file is too large to be carried along",
                file=path,
                expected=f"at most {MAX_TOKENIZER_BYTES:,} bytes",
                found=f"{n_bytes:,} bytes",
                remedy="Give a directory with the right files with --tokenizer.",
            )
        return file.read()
