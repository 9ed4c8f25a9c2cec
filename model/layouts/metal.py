"""The layout of OpenAI's Metal model file: what everyone shares, then each layer's experts, one expert after another.

    weights    embedding                                                      16-aligned each
               per layer: norm, qkv, sinks, out, norm, router
               norm, unembedding
    per layer  expert 0: mlp1 blocks, scales, bias, mlp2 blocks, scales, bias 16-aligned each; layers 16384-aligned
               expert 1: the same, …

The names, shapes and bytes are those of OpenAI's `original/` layout, with three differences that the kernels want: the
embeddings end with the last token of the header's tokenizer; rows of q and k are reordered and scaled; scales are
larger by 14. Which rows of mlp1 are gate and up does not differ: they alternate, gate first.

Source: openai/gpt-oss `gpt_oss/metal/scripts/create-local-model.py`, `gpt_oss/metal/source/model.c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

from ...formats.codecs.encoding import METAL_MXFP4, MXFP4, Encoding, metal_heads
from ...formats.containers.metal_types import PAGE_BYTES, MetalFields, MetalFile, refusal
from ..harmony import N_SPECIAL_TOKENS, OFFICIAL_N_TEXT_TOKENS
from ..hf_files import GPT_OSS_20B
from ..inventory import CanonicalTensor
from ..metal_tokenizer import N_SPECIAL
from . import original
from .table import Rows, Table

NAME = "metal"
ALIGNMENT = 16

# Rows of each q and k head change places: row i of the first half becomes row 2i, row i of the second row 2i + 1.
# The kernels do not divide by √64 = 2 · 4.
Q_EXPONENT = -1
K_EXPONENT = -2

Shape = tuple[str | int, ...]

# name, dtype, shape in terms of `_sizes()`
EMBEDDING = ("embedding.weight", "BF16", ("tokens", "hidden"))
LAYER_ARRAYS: tuple[tuple[str, str, Shape], ...] = (
    ("block.{layer}.attn.norm.scale", "BF16", ("hidden",)),
    ("block.{layer}.attn.qkv.weight", "BF16", ("qkv", "hidden")),
    ("block.{layer}.attn.qkv.bias", "BF16", ("qkv",)),
    ("block.{layer}.attn.sinks", "BF16", ("heads",)),
    ("block.{layer}.attn.out.weight", "BF16", ("hidden", "q")),
    ("block.{layer}.attn.out.bias", "BF16", ("hidden",)),
    ("block.{layer}.mlp.norm.scale", "BF16", ("hidden",)),
    ("block.{layer}.mlp.gate.weight", "BF16", ("experts", "hidden")),
    ("block.{layer}.mlp.gate.bias", "BF16", ("experts",)),
)
LAST_ARRAYS: tuple[tuple[str, str, Shape], ...] = (
    ("norm.scale", "BF16", ("hidden",)),
    ("unembedding.weight", "BF16", ("tokens", "hidden")),
)
# The leading "experts" is not in one place: expert e lies `stride` bytes after expert e - 1.
EXPERT_ARRAYS: tuple[tuple[str, str, Shape], ...] = (
    ("block.{layer}.mlp.mlp1_weight.blocks", "U8", ("experts", "gate and up", "hidden blocks", 16)),
    ("block.{layer}.mlp.mlp1_weight.scales", "U8", ("experts", "gate and up", "hidden blocks")),
    ("block.{layer}.mlp.mlp1_bias", "BF16", ("experts", "gate and up")),
    ("block.{layer}.mlp.mlp2_weight.blocks", "U8", ("experts", "hidden", "intermediate blocks", 16)),
    ("block.{layer}.mlp.mlp2_weight.scales", "U8", ("experts", "hidden", "intermediate blocks")),
    ("block.{layer}.mlp.mlp2_bias", "BF16", ("experts", "hidden")),
)

_EXPERT = "block.{layer}.mlp"

# The arrays by the names they are given here; those of experts are one array each.
TABLE: Table = {
    **original.TABLE,
    "layers.{layer}.moe.gate.weight": Rows(f"{_EXPERT}.mlp1_weight.{{part}}[{{expert}}]", first=0, step=2),
    "layers.{layer}.moe.gate.bias": Rows(f"{_EXPERT}.mlp1_bias[{{expert}}]", first=0, step=2),
    "layers.{layer}.moe.up.weight": Rows(f"{_EXPERT}.mlp1_weight.{{part}}[{{expert}}]", first=1, step=2),
    "layers.{layer}.moe.up.bias": Rows(f"{_EXPERT}.mlp1_bias[{{expert}}]", first=1, step=2),
    "layers.{layer}.moe.down.weight": Rows(f"{_EXPERT}.mlp2_weight.{{part}}[{{expert}}]"),
    "layers.{layer}.moe.down.bias": Rows(f"{_EXPERT}.mlp2_bias[{{expert}}]"),
}

_ELEMENT_BYTES = {"BF16": 2, "U8": 1}
_BLOCK = 32


class MetalArray(NamedTuple):
    """One array among the weights.

    Attributes:
        name: as in the `original/` layout.
        shape: of the whole array.
        dtype: "BF16" or "U8".
        offset: of its first byte, from the start of the weights.
        n_bytes: all parts together, without what lies between them.
        n_parts: 1, or the number of experts: part e is `shape[1:]`, row-major, at `offset + e · stride`.
        stride: bytes from one part to the next.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    n_bytes: int
    n_parts: int
    stride: int

    @property
    def is_of_experts(self) -> bool:
        """True if there is one part for each expert, even if there is one expert only."""
        return ".mlp1_" in self.name or ".mlp2_" in self.name

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of each part, in order."""
        n_bytes = self.n_bytes // self.n_parts
        return ((self.offset + part * self.stride, n_bytes) for part in range(self.n_parts))


def metal_arrays(fields: MetalFields, n_tokens: int) -> list[MetalArray]:
    """Every array in file order, experts' arrays by their first part.

    Hostile fields can ask for billions of layers: `require_size` a file before its arrays are listed.

    Args:
        fields: the sizes.
        n_tokens: rows of both embeddings.

    Raises:
        MetalError: rows that are not whole MXFP4 blocks.
    """
    sizes = _sizes(fields, n_tokens)
    arrays: list[MetalArray] = []

    def place(rows: Iterable[tuple[str, str, Shape]], end: int, layer: int = 0) -> int:
        for name, dtype, shape in rows:
            dims = _dims(shape, sizes)
            n_bytes = _stored_bytes(dtype, dims)
            arrays.append(MetalArray(name.format(layer=layer), dims, dtype, end, n_bytes, 1, n_bytes))
            end += _align(n_bytes, ALIGNMENT)
        return end

    end = place([EMBEDDING], 0)
    for layer in range(fields.num_blocks):
        end = place(LAYER_ARRAYS, end, layer)
    end = place(LAST_ARRAYS, end)
    stride = _expert_bytes(sizes)
    for layer in range(fields.num_blocks):
        end = part = _align(end, PAGE_BYTES)
        for name, dtype, shape in EXPERT_ARRAYS:
            dims = _dims(shape, sizes)
            n_bytes = _stored_bytes(dtype, dims)
            arrays.append(MetalArray(name.format(layer=layer), dims, dtype, part, n_bytes, dims[0], stride))
            part += _align(_stored_bytes(dtype, dims[1:]), ALIGNMENT)
        end += stride * fields.num_experts
    return arrays


def weights_bytes(fields: MetalFields, n_tokens: int) -> int:
    """Bytes from the first weight to the end of the file, computed without listing the arrays. Raises MetalError."""
    sizes = _sizes(fields, n_tokens)

    def aligned(rows: Iterable[tuple[str, str, Shape]]) -> int:
        return sum(_align(_stored_bytes(dtype, _dims(shape, sizes)), ALIGNMENT) for _, dtype, shape in rows)

    shared = aligned([EMBEDDING]) + fields.num_blocks * aligned(LAYER_ARRAYS) + aligned(LAST_ARRAYS)
    experts = fields.num_experts * _expert_bytes(sizes)
    return _align(shared, PAGE_BYTES) + (fields.num_blocks - 1) * _align(experts, PAGE_BYTES) + experts


def require_size(file: MetalFile) -> None:
    """Nothing, if the file holds exactly the weights that its header announces.

    Raises:
        MetalError: it is too short or too long, or its rows are not whole MXFP4 blocks.
    """
    expected = file.weights_offset + weights_bytes(file.fields, file.tokenizer.n_tokens)
    if file.file_bytes != expected:
        missing = expected - file.file_bytes
        problem = f"the file is {missing:,} bytes too short for its weights"
        if missing < 0:
            problem = f"there are {-missing:,} bytes after the last weight"
        raise refusal(file.path, problem, expected=f"{expected:,} bytes", found=f"{file.file_bytes:,} bytes")


def relabelled(tensor: CanonicalTensor, encoding: Encoding, head_dim: int) -> Encoding:
    """How the file has a tensor that the `original/` layout has as `encoding`."""
    if encoding is MXFP4:
        return METAL_MXFP4
    scaled = {"q": ("METAL_Q", Q_EXPONENT), "k": ("METAL_K", K_EXPONENT)}.get(tensor.name.split(".")[-2])
    if scaled is None or tensor.role not in ("attention", "attention bias"):
        return encoding
    return metal_heads(scaled[0], head_dim, scaled[1])


def usual_vocab_size(n_tokens: int) -> int:
    """Rows of the whole model's embeddings, of which the file holds `n_tokens`: the official ones, else a round number.

    The tokens after the 16 special ones that are kept, and rows without a token, are what the file leaves out.
    """
    if n_tokens == OFFICIAL_N_TEXT_TOKENS + N_SPECIAL:
        return int(str(GPT_OSS_20B["vocab_size"]))
    return _align(n_tokens - N_SPECIAL + N_SPECIAL_TOKENS, _BLOCK)


def gaps(arrays: Iterable[MetalArray]) -> list[tuple[int, int]]:
    """(offset, bytes) of what lies between the parts of `arrays`: all of it must be zero."""
    pieces = sorted(piece for array in arrays for piece in array.pieces())
    ends = ((offset + n_bytes, following) for (offset, n_bytes), (following, _) in pairwise(pieces))
    return [(end, following - end) for end, following in ends if end != following]


def _sizes(fields: MetalFields, n_tokens: int) -> dict[str, int]:
    for key in ("embedding_dim", "mlp_dim"):
        if getattr(fields, key) % _BLOCK:
            problem, expected = "rows are not whole MXFP4 blocks", f"a multiple of {_BLOCK}"
            raise refusal(None, problem, key=key, expected=expected, found=f"{getattr(fields, key):,}")
    q = fields.num_heads * fields.head_dim
    return {
        "tokens": n_tokens,
        "hidden": fields.embedding_dim,
        "heads": fields.num_heads,
        "q": q,
        "qkv": q + 2 * fields.num_kv_heads * fields.head_dim,
        "experts": fields.num_experts,
        "gate and up": 2 * fields.mlp_dim,
        "hidden blocks": fields.embedding_dim // _BLOCK,
        "intermediate blocks": fields.mlp_dim // _BLOCK,
    }


def _dims(shape: Shape, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else sizes[size] for size in shape)


def _stored_bytes(dtype: str, dims: tuple[int, ...]) -> int:
    return _ELEMENT_BYTES[dtype] * prod(dims)


def _expert_bytes(sizes: dict[str, int]) -> int:
    """From the start of one expert to that of the next."""
    parts = ((dtype, _dims(shape, sizes)[1:]) for _, dtype, shape in EXPERT_ARRAYS)
    return sum(_align(_stored_bytes(dtype, dims), ALIGNMENT) for dtype, dims in parts)


def _align(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment
