"""The encodings a tensor's elements can be stored in: one row each.

| encoding   | elements per block | parts and bytes per block                            |
|------------|--------------------|------------------------------------------------------|
| F32        | 1                  | data 4                                               |
| F16, BF16  | 1                  | data 2                                               |
| MXFP4      | 32                 | blocks 16 (interleaved nibbles), scales 1 (e8m0)     |
| GGML_MXFP4 | 32                 | data 17 (scale, then split_half nibbles)             |

The first four are **canonical**: what every other encoding is turned into, and what digests are taken of. ggml's other
block types (`QUANTIZED`) are read only, and turned into F32.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """How elements are stored: `parts` are (name, bytes per block), each part a stored array of its own."""

    name: str
    block_elements: int
    parts: tuple[tuple[str, int], ...]

    def part_row_bytes(self, cols: int) -> dict[str, int]:
        """Bytes of one row of `cols` elements, for each part."""
        assert cols % self.block_elements == 0
        return {part: cols // self.block_elements * n_bytes for part, n_bytes in self.parts}

    def row_bytes(self, cols: int) -> int:
        """Bytes of one row of `cols` elements, all parts together."""
        return sum(self.part_row_bytes(cols).values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per element: 4.25 for MXFP4."""
        return 8 * sum(n_bytes for _, n_bytes in self.parts) / self.block_elements


F32 = Encoding("F32", 1, (("data", 4),))
F16 = Encoding("F16", 1, (("data", 2),))
BF16 = Encoding("BF16", 1, (("data", 2),))
MXFP4 = Encoding("MXFP4", 32, (("blocks", 16), ("scales", 1)))
GGML_MXFP4 = Encoding("GGML_MXFP4", 32, (("data", 17),))

# ggml type -> its encoding; elements and bytes per block as in ggml's headers
QUANTIZED: dict[str, Encoding] = {
    name: Encoding(name, elements, (("data", n_bytes),))
    for name, elements, n_bytes in (
        ("Q8_0", 32, 34),
        ("Q4_0", 32, 18),
        ("Q4_1", 32, 20),
        ("Q5_0", 32, 22),
        ("Q5_1", 32, 24),
        ("IQ4_NL", 32, 18),
        ("Q2_K", 256, 84),
        ("Q3_K", 256, 110),
        ("Q4_K", 256, 144),
        ("Q5_K", 256, 176),
        ("Q6_K", 256, 210),
    )
}
