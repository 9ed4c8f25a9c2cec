"""`is_zero` finds a single bit in any place, and looks no further than it has to."""

from __future__ import annotations

import numpy as np
import pytest

from gptoss_convert.formats.zeros import is_zero

LENGTHS = [0, 1, 7, 8, 4095, 4096, 4097, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, (2 << 20) + 3]
every_length = pytest.mark.parametrize("length", LENGTHS)


@every_length
def test_zeros_are_zero_at_any_address(length: int) -> None:
    data = np.ones(length + 2, np.uint8)
    data[1:-1] = 0
    assert is_zero(data[1:-1]) is True


@every_length
def test_one_bit_is_found_at_either_end_and_beside_every_edge(length: int) -> None:
    data = np.zeros(length, np.uint8)
    places = {0, 8, 4095, 4096, 256 << 10, (256 << 10) - 1, length // 2, length - 1}
    for place in (place for place in places if 0 <= place < length):
        for bit in (1, 0x80):
            data[place] = bit
            assert is_zero(data) is False
        data[place] = 0


def test_a_bit_is_found_wherever_it_is() -> None:
    data = np.zeros(4200, np.uint8)
    for place in range(len(data)):
        data[place] = 1
        assert not is_zero(data)
        data[place] = 0


def test_read_only_bytes_are_taken() -> None:
    assert is_zero(np.frombuffer(bytes(5000), np.uint8))
