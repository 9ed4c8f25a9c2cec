"""Strict, bounded JSON: the cost of a text is known before it is parsed, and nothing in it is guessed.

`json.loads` alone recurses as deep as the text nests, makes 70 bytes of objects out of the 3 bytes `[],`, keeps the
last of two equal keys, and takes NaN, infinities and lone surrogates. Here a linear scan bounds depth and number of
values first; then each of those is refused.

Source: RFC 8259; RFC 7493 (I-JSON: unique keys, no lone surrogates).
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import GptOssConvertError

MAX_JSON_VALUES = 4_000_000
"""Default cap on values: a tokenizer.json of 200,000 tokens and 450,000 merges has about 2 million."""

MAX_NUMBER_CHARS = 100
"""Longest number taken, in characters. The longest in use is 31 (tokenizers write 10³⁰ for "no limit")."""

_REMEDY = "Download the file again; if you edited it, correct the JSON."

_BOM = b"\xef\xbb\xbf"
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},:'))
_QUOTE = ord('"')

_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1

_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def parse_json(
    text: bytes,
    *,
    file: str | Path,
    what: str,
    max_bytes: int,
    max_depth: int,
    error: type[GptOssConvertError],
    max_values: int = MAX_JSON_VALUES,
) -> object:
    """The one value that `text` spells: dict, list, str, int, finite float, bool or None.

    Args:
        text: UTF-8 without a byte order mark.
        file: the file that errors name.
        what: what `text` is, as the subject of a sentence ("the header").
        max_bytes: longest text taken.
        max_depth: deepest nesting of arrays and objects taken; `[]` has depth 1. Under 500: the parser recurses.
        error: the exception to raise.
        max_values: most values taken, keys counted too.

    Raises:
        error: the text breaks a rule of JSON or of this module.
    """
    rules = _Rules(file, what, error)
    rules.check_size(len(text), max_bytes)
    rules.check_structure(text, max_depth, max_values)
    try:
        return json.loads(
            rules.decoded(text),
            object_pairs_hook=rules.unique_keys,
            parse_int=rules.whole_number,
            parse_float=rules.real_number,
            parse_constant=rules.constant,
        )
    except json.JSONDecodeError as problem:
        raise rules.refusal("is not valid JSON", found=f"{problem.msg} at character {problem.pos:,}") from None


def read_json_file(
    path: Path,
    *,
    max_bytes: int,
    max_depth: int,
    error: type[GptOssConvertError],
    max_values: int = MAX_JSON_VALUES,
) -> object:
    """The one value that the file spells; the rules are those of `parse_json`. Its size is checked before it is read.

    Raises:
        error: the file is missing, unreadable, too large, or breaks a rule of `parse_json`.
    """
    with open_regular_file(path, error=error) as file:
        _Rules(path, "the file", error).check_size(path.stat().st_size, max_bytes)
        text = file.read(max_bytes + 1)
    return parse_json(
        text,
        file=path,
        what="the file",
        max_bytes=max_bytes,
        max_depth=max_depth,
        error=error,
        max_values=max_values,
    )


@contextmanager
def open_regular_file(path: Path, *, error: type[GptOssConvertError]) -> Iterator[BinaryIO]:
    """The file, open for reading. Directories, pipes and devices are refused: they have no size, and may block.

    Raises:
        error: there is no such file, it is not a regular one, or the system refuses to open or read it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise error("not a regular file", file=path, remedy="Give the path of a file on disk.")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise error("there is no such file", file=path, remedy="Check the path, or download the file.") from None
    except OSError as problem:
        raise error(
            "the file cannot be read",
            file=path,
            found=problem.strerror or problem,
            remedy="Check the permissions and the disk.",
        ) from problem


def excerpt(value: object) -> str:
    """`value` as an error shows what it found: its repr, cut after 80 characters."""
    return clipped(repr(value), 80)


def clipped(text: str, limit: int = 200) -> str:
    """`text`, cut after `limit` characters; for names that come from a file and may have any length."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


@dataclass(frozen=True)
class _Rules:
    """One text's checks; each raises the caller's error with the file and what the text is."""

    file: str | Path
    what: str
    error: type[GptOssConvertError]

    def refusal(
        self, problem: str, *, key: str | None = None, expected: str | None = None, found: str | None = None
    ) -> GptOssConvertError:
        return self.error(
            f"{self.what} {problem}", file=self.file, key=key, expected=expected, found=found, remedy=_REMEDY
        )

    def check_size(self, n_bytes: int, max_bytes: int) -> None:
        if n_bytes > max_bytes:
            raise self.refusal("is too large", expected=f"at most {max_bytes:,} bytes", found=f"{n_bytes:,} bytes")

    def check_structure(self, text: bytes, max_depth: int, max_values: int) -> None:
        """Refuses too deep, too many values and lone surrogates, in linear time and without recursion.

        Escaped backslashes go first, escaped quotes next, so every quote left opens or closes a string. A backslash
        outside of a string could mislead this scan, but there the parser stops before it goes any deeper.
        """
        unescaped = text.replace(rb"\\", b"_")
        # A search for the two bytes is twenty times as fast as the expression, and most texts have none.
        if (rb"\ud" in unescaped or rb"\uD" in unescaped) and _LONE_SURROGATE.search(unescaped):
            raise self.refusal("has half of a surrogate pair in a string", expected="whole characters")
        marks = np.frombuffer(unescaped.replace(rb"\"", b"").translate(None, _NOT_STRUCTURE), np.uint8)
        inside = np.bitwise_xor.accumulate((marks == _QUOTE).view(np.uint8)).view(np.bool_)
        steps = _STEPS[marks[~inside & (marks != _QUOTE)]]
        depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
        if depth > max_depth:
            raise self.refusal("is nested too deeply", expected=f"at most {max_depth} levels", found=f"{depth:,}")
        n_values = 1 + steps.size - np.count_nonzero(steps < 0)
        if n_values > max_values:
            raise self.refusal(
                "has too many values", expected=f"at most {max_values:,}", found=f"up to {int(n_values):,}"
            )

    def decoded(self, text: bytes) -> str:
        if text.startswith(_BOM):
            raise self.refusal("starts with a byte order mark", expected="UTF-8 without one")
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as problem:
            found = f"{problem.reason} at byte {problem.start:,}"
            raise self.refusal("is not text in UTF-8", expected="UTF-8", found=found) from None

    def unique_keys(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise self.refusal("has the same key twice", key=clipped(key), expected="every key once")
                seen.add(key)
        return members

    def whole_number(self, digits: str) -> int:
        # Called for each of a tokenizer's 200,000 ids: one comparison, not one call more.
        if len(digits) > MAX_NUMBER_CHARS:
            self.check_number(digits)
        return int(digits)

    def real_number(self, digits: str) -> float:
        self.check_number(digits)
        number = float(digits)
        if math.isinf(number):
            raise self.refusal("has a number out of range", expected="a finite float64", found=digits)
        return number

    def check_number(self, digits: str) -> None:
        if len(digits) > MAX_NUMBER_CHARS:
            expected = f"at most {MAX_NUMBER_CHARS} characters"
            raise self.refusal("has a number that is too long", expected=expected, found=f"{len(digits):,} characters")

    def constant(self, name: str) -> object:
        raise self.refusal("has a value that JSON does not have", expected="finite numbers", found=name)
