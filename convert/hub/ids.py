"""What a user means by SRC: a path on this machine, or a repository of the Hub.

    org/name[/folder or file][@revision]        hf://org/name… says the same and is never a path

A path that exists is always taken as that path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...formats.errors import CheckpointError, GptOssConvertError, TokenizerError, UsageError
from .near import did_you_mean, near_paths, near_repositories

PREFIX = "hf://"
DEFAULT_REVISION = "main"

TOKENIZER_FILE = "tokenizer.json"

_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_REVISION = re.compile(r"[^\s\\:?*\[~^@{]{1,250}")
_COMMIT = re.compile("[0-9a-f]{40}")
_PAGES = ("tree", "blob", "resolve", "raw")


@dataclass(frozen=True)
class HubId:
    """A repository, a folder or file in it ("" is its root), and a branch, tag or commit."""

    repository: str
    path: str = ""
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        name = f"{self.repository}/{self.path}" if self.path else self.repository
        return name if self.revision == DEFAULT_REVISION else f"{name}@{self.revision}"

    def at(self, path: str) -> HubId:
        """Another path in the same repository and revision."""
        return HubId(self.repository, path, self.revision)


def parse_source(text: str, *, tokenizer: bool = False) -> Path | HubId:
    """The path if there is one, else the id that `text` spells. Asks nobody.

    Args:
        text: what was given.
        tokenizer: it is to name a tokenizer, not a model.

    Raises:
        CheckpointError: there is no such path, and `text` is no id.
        TokenizerError: the same of a tokenizer, or the path is no directory.
        UsageError: it begins with hf:// and is no id, or it is the address of a page.
    """
    if text.startswith(PREFIX):
        found = parse_id(text.removeprefix(PREFIX))
        if found is None:
            raise UsageError(
                "this is no repository of the Hub",
                file=text,
                expected="hf://org/name[@revision]",
                remedy="Give an id such as openai/gpt-oss-20b.",
            )
        return found
    path = Path(text)
    if _exists(path):
        if tokenizer and not path.is_dir():
            raise _no_directory(path)
        return path
    if text.startswith(("https://", "http://")):
        raise _address_refusal(text)
    found = parse_id(text)
    if found is None:
        raise _neither(text, tokenizer=tokenizer)
    return found


def parse_id(text: str) -> HubId | None:
    """The id that `text` spells, or None."""
    name, at, revision = text.partition("@")
    if at and (not _REVISION.fullmatch(revision) or not is_plain_path(revision)):
        return None
    org, _, rest = name.partition("/")
    repository, slash, path = rest.partition("/")
    if not _is_name(org) or not _is_name(repository) or (slash and not is_plain_path(path)):
        return None
    return HubId(f"{org}/{repository}", path, revision if at else DEFAULT_REVISION)


def is_commit(revision: str) -> bool:
    """True if the revision is the full hash of a commit: its files never change."""
    return _COMMIT.fullmatch(revision) is not None


def is_plain_path(path: str) -> bool:
    """True if `path` stays below where it begins, on every system."""
    parts = path.split("/")
    return not set(path) & set("\\:\0") and not any(part in ("", ".", "..") for part in parts)


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and "--" not in text and ".." not in text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name; a NUL in it
        return False


def _neither(text: str, *, tokenizer: bool) -> GptOssConvertError:
    """The error for what is no path that exists and no id."""
    kind, problem = CheckpointError, "this is not a gpt-oss checkpoint"
    expected, holds = "a directory or a file that exists", "config.json and the weights"
    if tokenizer:
        kind, problem = TokenizerError, "there is no such tokenizer"
        expected, holds = f"a directory with {TOKENIZER_FILE}", TOKENIZER_FILE
    near = did_you_mean([*near_paths(text), *near_repositories(text)])
    return kind(
        problem,
        file=text,
        expected=f"{expected}, or a repository of the Hub as org/name[@revision]",
        found="neither",
        remedy=f"{near}Give the directory that holds {holds}, or an id such as openai/gpt-oss-20b.",
    )


def _no_directory(path: Path) -> TokenizerError:
    """The error for a file in place of the directory that holds the tokenizer."""
    is_inside = path.name == TOKENIZER_FILE
    return TokenizerError(
        "the tokenizer is taken from a directory",
        file=path,
        expected=f"a directory with {TOKENIZER_FILE}",
        found="a file",
        remedy=f"Give the directory {path.parent if is_inside else f'that holds {TOKENIZER_FILE}'}.",
    )


def _address_refusal(text: str) -> UsageError:
    """The error for the address of a page, with the id that is meant if one can be seen."""
    parts = [part for part in unquote(urlsplit(text).path).split("/") if part]
    page = parts[2:4] if len(parts) > 3 and parts[2] in _PAGES else []
    spelled = "/".join(parts[:2] + parts[4:] if page else parts) + (f"@{page[1]}" if page else "")
    meant = parse_id(spelled)
    return UsageError(
        "an address is not taken",
        file=text,
        expected="a path, or an id as org/name[@revision]",
        remedy="Give an id such as openai/gpt-oss-20b." if meant is None else f"Give {meant}.",
    )
