"""Sizes as people write them: 5G, 500M."""

from __future__ import annotations

from ...formats.errors import UsageError


def parse_size(text: str) -> int:
    """`text` like 5G, 500M or 4800000000 in bytes; units are decimal, as llama.cpp counts them. Raises UsageError."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise UsageError(
            "the size is not a number",
            expected="a whole number with K, M, G or T",
            found=repr(text),
            remedy="Write it like 5G or 500M.",
        )
    return int(number) * unit
