"""parse_json: equal to the standard library on JSON, an error of the caller's kind on anything else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_convert.formats.errors import ConfigError, SafetensorsError
from gptoss_convert.formats.json_text import parse_json, read_json_file


def parsed(text: str | bytes, *, max_bytes: int = 1000, max_depth: int = 4, max_values: int = 50) -> object:
    return parse_json(
        text if isinstance(text, bytes) else text.encode(),
        file="config.json",
        what="the file",
        max_bytes=max_bytes,
        max_depth=max_depth,
        max_values=max_values,
        error=ConfigError,
    )


REFUSED = {
    "empty": (b"", "not valid JSON; found Expecting value at character 0"),
    "cut off": (b'{"a": [1, 2', "not valid JSON; found Expecting ',' delimiter at character 11"),
    "two values": (b"{} {}", "not valid JSON; found Extra data at character 3"),
    "trailing comma": (b"[1,]", "not valid JSON"),
    "single quotes": (b"{'a': 1}", "not valid JSON"),
    "control character in a string": (b'["a\nb"]', "not valid JSON; found Invalid control character"),
    "unknown escape": (rb'["\x41"]', r"not valid JSON; found Invalid \\escape"),
    "too large": (b" " * 1001, "too large; expected at most 1,000 bytes; found 1,001 bytes"),
    "too deep": (b"[[[[[]]]]]", "nested too deeply; expected at most 4 levels; found 5"),
    "too deep for recursion": (b"[" * 900, "nested too deeply; expected at most 4 levels; found 900"),
    "too deep in objects": (b'{"a":{"b":{"c":{"d":{}}}}}', "nested too deeply"),
    "too deep after an escaped quote": (rb'["\"", [[[[]]]]]', "nested too deeply"),
    "too deep after an escaped backslash": (rb'["\\", [[[[]]]]]', "nested too deeply"),
    "too many values": (b"[" + b"0," * 50 + b"0]", "too many values; expected at most 50; found up to 52"),
    "byte order mark": (b"\xef\xbb\xbf{}", "byte order mark; expected UTF-8 without one"),
    "not UTF-8": (b'["\xff"]', "not text in UTF-8; expected UTF-8; found invalid start byte at byte 2"),
    "UTF-16": ("{}".encode("utf-16-be"), "not valid JSON"),
    "surrogate as UTF-8": (b'["\xed\xa0\x80"]', "not text in UTF-8"),
    "key twice": (b'{"a": 1, "b": 2, "a": 3}', "key 'a': the file has the same key twice"),
    "key twice by an escape": (rb'{"a": 1, "\u0061": 3}', "key 'a': the file has the same key twice"),
    "key twice further in": (b'{"o": {"k": 1, "k": 1}}', "key 'k': the file has the same key twice"),
    "NaN": (b"[NaN]", "a value that JSON does not have; expected finite numbers; found NaN"),
    "Infinity": (b"[Infinity]", "a value that JSON does not have; expected finite numbers; found Infinity"),
    "minus Infinity": (b"[-Infinity]", "a value that JSON does not have; expected finite numbers; found -Infinity"),
    "float out of range": (b"[1e999]", "a number out of range; expected a finite float64; found 1e999"),
    "huge whole number": (b"[" + b"9" * 101 + b"]", "too long; expected at most 100 characters; found 101 characters"),
    "huge real number": (b"[0." + b"9" * 101 + b"]", "a number that is too long"),
    "high surrogate alone": (rb'["\ud83d"]', "half of a surrogate pair"),
    "low surrogate alone": (rb'["\uDE00"]', "half of a surrogate pair"),
    "surrogates in the wrong order": (rb'["\ude00\ud83d"]', "half of a surrogate pair"),
    "two high surrogates": (rb'["\ud83d\ud83d\ude00"]', "half of a surrogate pair"),
    "two low surrogates": (rb'["\ud83d\ude00\ude00"]', "half of a surrogate pair"),
    "surrogates around a backslash": (rb'["\ud83d\\\ude00"]', "half of a surrogate pair"),
    "surrogate in a key": (rb'{"\ud83d": 1}', "half of a surrogate pair"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(text)
    assert caught.value.file == "config.json"
    assert caught.value.remedy


TAKEN = {
    "brackets in a string are not nesting": '["[[[[[[{{{{{{"]',
    "commas in a string are not values": '["' + "," * 100 + '"]',
    "brackets after an escaped quote are in the string": r'["\"[[[[[["]',
    "brackets after three backslashes and a quote are in the string": r'["\\\"[[[[[["]',
    "brackets in a key are not nesting": '{"[[[[[[": 1}',
    "the deepest nesting": "[[[[]]]]",
    "the most values": "[" + "0," * 48 + "0]",
    "a surrogate pair": r'["\ud83d\uDE00"]',
    "two surrogate pairs": r'["\ud83d\ude00\ud83d\ude00"]',
    "an escaped backslash before ud83d": r'["\\ud83d"]',
    "characters beyond ASCII": '{"ключ": "😀\u2028"}',
    "a number of 31 digits": '{"model_max_length": 1000000000000000019884624838656}',
    "a scalar": "-1.5e-3",
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_taken_as_the_standard_library_does(text: str) -> None:
    assert parsed(text) == json.loads(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
@settings(derandomize=True, max_examples=200, deadline=None)
def test_any_json_value_survives(value: object, ensure_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    assert parsed(text, max_bytes=100_000, max_depth=100, max_values=10_000) == value


@given(st.text(alphabet='[]{}",:\\u0dD8 a', max_size=40))
@settings(derandomize=True, max_examples=1000, deadline=None)
def test_any_text_is_refused_or_taken_as_the_standard_library_does(text: str) -> None:
    try:
        value = parsed(text)
    except ConfigError:
        return
    assert value == json.loads(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": [1, 2.5, null]}', encoding="utf-8")
    assert read_json_file(path, max_bytes=100, max_depth=2, error=ConfigError) == {"a": [1, 2.5, None]}


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SafetensorsError, match="too large; expected at most 100 bytes; found 1,099,511,627,776 bytes"):
        read_json_file(path, max_bytes=100, max_depth=2, error=SafetensorsError)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: there is no such file"):
        read_json_file(tmp_path / "config.json", max_bytes=100, max_depth=2, error=ConfigError)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        read_json_file(tmp_path, max_bytes=100, max_depth=2, error=ConfigError)


def test_long_keys_are_cut_in_messages() -> None:
    key = "k" * 400
    with pytest.raises(ConfigError, match=r"kkk… \(400 characters\)") as caught:
        parsed(f'{{"{key}": 1, "{key}": 2}}')
    assert len(str(caught.value)) < 500


def test_numbers_are_finite_floats_and_exact_ints() -> None:
    values = parsed("[9007199254740993, 1e308, -0.0]")
    assert values == [9007199254740993, 1e308, 0.0]
    assert math.copysign(1, values[2]) == -1
