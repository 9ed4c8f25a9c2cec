"""The small files beside tokenizer.json: which tokens begin, end and pad a text, and the chat template.

They are read in milliseconds, so `inspect` needs no more. Where the files disagree, tokenizer_config.json counts,
as it does for llama.cpp's converter and transformers; the disagreement becomes a warning.

Source: transformers 5.23 `tokenization_utils_base.py`; gguf-py `vocab.py` (SpecialVocab).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..formats.errors import TokenizerError
from ..formats.json_text import open_regular_file, read_json_file
from .harmony import OFFICIAL_CHAT_TEMPLATE_SHA256

ROLES = ("bos", "eos", "pad")

MAX_SMALL_FILE_BYTES = 8 * 2**20
_MAX_DEPTH = 32

_TEMPLATE_FILE = "chat_template.jinja"
_CONFIG_FILE = "tokenizer_config.json"


@dataclass(frozen=True)
class SpecialToken:
    """A token with a role; either half may be unknown to the small files."""

    id: int | None
    text: str | None


@dataclass(frozen=True)
class TemplateFacts:
    """Where a chat template came from, its length in characters, and whether it is the published one."""

    source: str
    n_chars: int
    sha256: str
    official: bool


@dataclass(frozen=True)
class TokenizerFacts:
    """What `inspect` shows of a tokenizer; the counts are None unless tokenizer.json itself was read."""

    bos: SpecialToken
    eos: SpecialToken
    pad: SpecialToken
    stop_ids: tuple[int, ...]
    template: TemplateFacts | None
    warnings: tuple[str, ...]
    n_text_tokens: int | None = None
    n_special_tokens: int | None = None
    n_merges: int | None = None


@dataclass(frozen=True)
class SmallFiles:
    """The small files' contents; a file that is not there is an empty object."""

    tokenizer_config: Mapping[str, object]
    generation_config: Mapping[str, object]
    config: Mapping[str, object]
    chat_template: str | None
    chat_template_source: str | None
    warnings: tuple[str, ...]

    def special_text(self, role: str) -> str | None:
        """The text of the role's token as tokenizer_config.json names it, a string or an object with `content`."""
        entry = self.tokenizer_config.get(f"{role}_token")
        if isinstance(entry, dict):
            entry = entry.get("content")
        return entry if isinstance(entry, str) else None

    def declared_ids(self, role: str) -> dict[str, tuple[int, ...]]:
        """The role's token ids by the file that states them, config.json first."""
        files = {"config.json": self.config, "generation_config.json": self.generation_config}
        stated = {name: _whole_numbers(content.get(f"{role}_token_id")) for name, content in files.items()}
        return {name: ids for name, ids in stated.items() if ids}

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end generation, from generation_config.json."""
        return _whole_numbers(self.generation_config.get("eos_token_id"))


def read_small_files(directory: Path) -> SmallFiles:
    """tokenizer_config.json, generation_config.json, config.json and the chat template of `directory`.

    Raises:
        TokenizerError: a file that is there cannot be read or is not what its name says.
    """
    tokenizer_config = _read_object(directory / _CONFIG_FILE)
    template, source, warnings = _chat_template(directory, tokenizer_config)
    return SmallFiles(
        tokenizer_config=tokenizer_config,
        generation_config=_read_object(directory / "generation_config.json"),
        config=_read_object(directory / "config.json"),
        chat_template=template,
        chat_template_source=source,
        warnings=tuple(warnings),
    )


def read_special_token_facts(directory: Path) -> TokenizerFacts:
    """The special tokens and the template of `directory`, without opening tokenizer.json.

    Raises:
        TokenizerError: a file that is there cannot be read or is not what its name says.
    """
    small = read_small_files(directory)
    texts = _added_texts(small.tokenizer_config)
    ids = {text: token_id for token_id, text in texts.items()}

    def token(role: str) -> SpecialToken:
        text = small.special_text(role)
        token_id = ids.get(text) if text is not None else None
        if token_id is None:
            token_id = next((stated[0] for stated in small.declared_ids(role).values()), None)
        if text is None and token_id is not None:
            text = texts.get(token_id)
        return SpecialToken(token_id, text)

    bos, eos, pad = (token(role) for role in ROLES)
    return TokenizerFacts(
        bos=bos,
        eos=eos,
        pad=pad,
        stop_ids=small.stop_ids,
        template=template_facts(small.chat_template, small.chat_template_source),
        warnings=small.warnings,
    )


def template_facts(template: str | None, source: str | None) -> TemplateFacts | None:
    """The facts of a chat template; its digest is of the UTF-8 bytes, which are those of chat_template.jinja."""
    if template is None:
        return None
    sha256 = hashlib.sha256(template.encode()).hexdigest()
    return TemplateFacts(source or "unknown", len(template), sha256, sha256 == OFFICIAL_CHAT_TEMPLATE_SHA256)


def _read_object(path: Path) -> Mapping[str, object]:
    if not path.exists():
        return {}
    content = read_json_file(path, max_bytes=MAX_SMALL_FILE_BYTES, max_depth=_MAX_DEPTH, error=TokenizerError)
    if not isinstance(content, dict):
        raise TokenizerError(
            "is not a JSON object",
            file=path,
            expected="an object",
            found=type(content).__name__,
            remedy="Download the file again, or remove it.",
        )
    return content


def _added_texts(tokenizer_config: Mapping[str, object]) -> dict[int, str]:
    """The added tokens' texts by id, as far as tokenizer_config.json lists them."""
    entries = tokenizer_config.get("added_tokens_decoder")
    if not isinstance(entries, dict):
        return {}
    return {
        int(token_id): entry["content"]
        for token_id, entry in entries.items()
        if token_id.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str)
    }


def _whole_numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values if type(item) is int)


def _chat_template(directory: Path, tokenizer_config: Mapping[str, object]) -> tuple[str | None, str | None, list[str]]:
    """The template, the file it came from, and warnings: chat_template.jinja before tokenizer_config.json."""
    embedded, warnings = _embedded_template(tokenizer_config, directory / _CONFIG_FILE)
    path = directory / _TEMPLATE_FILE
    if not path.exists():
        return embedded, _CONFIG_FILE if embedded is not None else None, warnings
    template = _read_template(path)
    if embedded is not None and embedded != template:
        warnings.append(f"{_CONFIG_FILE} holds another chat template; {_TEMPLATE_FILE} is used.")
    return template, _TEMPLATE_FILE, warnings


def _read_template(path: Path) -> str:
    with open_regular_file(path, error=TokenizerError) as file:
        content = file.read(MAX_SMALL_FILE_BYTES + 1)
    remedy = "Copy the chat template again from where the model came from."
    if len(content) > MAX_SMALL_FILE_BYTES:
        raise TokenizerError(
            "is too large for a chat template",
            file=path,
            expected=f"at most {MAX_SMALL_FILE_BYTES:,} bytes",
            found=f"{path.stat().st_size:,} bytes",
            remedy=remedy,
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise TokenizerError(
            "is not text in UTF-8", file=path, found=f"{problem.reason} at byte {problem.start:,}", remedy=remedy
        ) from None


def _embedded_template(tokenizer_config: Mapping[str, object], path: Path) -> tuple[str | None, list[str]]:
    """The template inside tokenizer_config.json: one text, or the one named "default" of a list."""
    value = tokenizer_config.get("chat_template")
    if value is None or isinstance(value, str):
        return value, []
    named = {}
    for entry in value if isinstance(value, list) else [value]:
        name, template = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise TokenizerError(
                "is not a chat template",
                file=path,
                key="chat_template",
                expected="a text, or a list of objects with name and template",
                found=type(entry).__name__,
                remedy="Copy the file again from where the model came from.",
            )
        named[name] = template
    others = sorted(named.keys() - {"default"})
    return named.get("default"), [f"The chat template {name!r} of {_CONFIG_FILE} is not carried." for name in others]
