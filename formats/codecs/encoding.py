"""The encodings a tensor's elements can be stored in: one row each.

| encoding     | elements per block | parts and bytes per block                            | canonical |
|--------------|--------------------|------------------------------------------------------|-----------|
| F32          | 1                  | data 4                                               | F32       |
| F16, BF16    | 1                  | data 2                                               | itself    |
| MXFP4        | 32                 | blocks 16 (interleaved nibbles), scales 1 (e8m0)     | MXFP4     |
| GGML_MXFP4   | 32                 | data 17 (scale, then split_half nibbles)             | MXFP4     |
| OLLAMA_MXFP4 | 32                 | data 17 (scale, then interleaved nibbles)            | MXFP4     |
| METAL_MXFP4  | 32                 | blocks 16, scales 1 (larger by 14)                   | MXFP4     |
| METAL_Q, _K  | 1                  | data 2 (BF16; rows of a head in pairs, times 2^k)    | BF16      |
| MLX_Q…       | 32, 64 or 128      | weight (4 or 8 bits each), scales, biases            | F32       |
| Q8_0 … Q6_K  | 32 or 256          | data (ggml's block types)                            | F32       |

The first four are **canonical**: what every other encoding is turned into, and what digests are taken of. MLX's affine
encodings and ggml's block types (`QUANTIZED`) are read only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """How elements are stored: `parts` are (name, bytes per block), each part a stored array of its own.

    `canonical_name` is what it is turned into, "" if it is canonical itself. `whole` is true where rows cannot be
    turned alone, but only a whole matrix.
    """

    name: str
    block_elements: int
    parts: tuple[tuple[str, int], ...]
    canonical_name: str = ""
    whole: bool = False

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


@dataclass(frozen=True)
class AffineEncoding(Encoding):
    """MLX's affine groups: codes of `bits` bits; scales and biases in the float encoding `scales`."""

    bits: int = 0
    scales: str = ""


@dataclass(frozen=True)
class HeadsEncoding(Encoding):
    """BF16 as OpenAI's Metal file has q and k: rows of each head of `head_dim` in pairs, times 2^`exponent`."""

    head_dim: int = 0
    exponent: int = 0


F32 = Encoding("F32", 1, (("data", 4),))
F16 = Encoding("F16", 1, (("data", 2),))
BF16 = Encoding("BF16", 1, (("data", 2),))
MXFP4 = Encoding("MXFP4", 32, (("blocks", 16), ("scales", 1)))
GGML_MXFP4 = Encoding("GGML_MXFP4", 32, (("data", 17),), MXFP4.name)
OLLAMA_MXFP4 = Encoding("OLLAMA_MXFP4", 32, (("data", 17),), MXFP4.name)
METAL_MXFP4 = Encoding("METAL_MXFP4", 32, MXFP4.parts, MXFP4.name)

CANONICAL: dict[str, Encoding] = {encoding.name: encoding for encoding in (F32, F16, BF16, MXFP4)}

# ggml type -> its encoding; elements and bytes per block as in ggml's headers
QUANTIZED: dict[str, Encoding] = {
    name: Encoding(name, elements, (("data", n_bytes),), F32.name)
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


def canonical(encoding: Encoding) -> Encoding:
    """The canonical encoding that `encoding` is unpacked to."""
    return CANONICAL[encoding.canonical_name or encoding.name]


def is_lossy(encoding: Encoding) -> bool:
    """True for encodings that floats were quantized to before, other than MXFP4."""
    return encoding.name in QUANTIZED or isinstance(encoding, AffineEncoding)


@functools.cache
def mlx_affine(bits: int, group_size: int, scales: str) -> AffineEncoding:
    """MLX's affine encoding; `scales` is the float encoding of scales and biases."""
    n_bytes = CANONICAL[scales].parts[0][1]
    parts = (("weight", group_size * bits // 8), ("scales", n_bytes), ("biases", n_bytes))
    return AffineEncoding(f"MLX_Q{bits}_G{group_size}", group_size, parts, F32.name, bits=bits, scales=scales)


@functools.cache
def metal_heads(name: str, head_dim: int, exponent: int) -> HeadsEncoding:
    """What a Metal file stores of q or k."""
    return HeadsEncoding(name, 1, BF16.parts, BF16.name, whole=True, head_dim=head_dim, exponent=exponent)
