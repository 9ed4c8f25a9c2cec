"""Every kernel in every form that is launched, with the tiles of `tiles_for`: what is compiled ahead of time.

Signatures and divisibilities are those that a launch at the true shapes of gpt-oss finds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .activations import ELEMENTS
from .architectures import ARCHITECTURES, NATIVE
from .epilogue import swiglu_kernel
from .gemm import gemm_kernel
from .gemv import gemv_kernel
from .quantize import quantize_kernel
from .routing import combine_kernel, count_kernel, group_kernel, route_kernel
from .tile import decode_kernel
from .tiles import (
    COMBINE_BLOCK,
    DECODE_TILE,
    QUANTIZE_BLOCKS,
    ROUTE_TOKENS,
    SORT_CHUNK,
    SWIGLU_BLOCK,
    Tiles,
    tiles_for,
)
from .weights import ENCODINGS

TARGETS: dict[str, str] = {row.name: row.backend for row in ARCHITECTURES.values() if row.proof == row.name}
"""Architecture -> backend, of those that are compiled for."""

TOKENS = (1, 16, 512, 4096)
"""Numbers of tokens that the tiles are asked for."""

_POINTERS = {
    "torch.uint8": "*u8",
    "torch.int8": "*i8",
    "torch.bfloat16": "*i16",
    "torch.float16": "*fp16",
    "torch.float32": "*fp32",
}
_ACTIVATIONS = {"f32": "*fp32", "bf16": "*bf16", "f16": "*fp16", "scaled": "*bf16", **dict.fromkeys(NATIVE, "*u8")}
# gpt-oss holds these in attn_output alone, so they never meet SwiGLU.
_PLAIN_ONLY = ("Q4_K", "Q5_K", "Q6_K")


@dataclass(frozen=True)
class Entry:
    """One form of a kernel.

    Args:
        name: says which, in words.
        function: the `triton.jit` function.
        signature: argument -> type, "constexpr" for what `constexprs` gives.
        constexprs: argument -> value.
        divisible: arguments (addresses or numbers) that are multiples of 16.
        num_warps, num_stages: compile options.
        archs: keys of TARGETS whose table asks for this form.
    """

    name: str
    function: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    divisible: tuple[str, ...]
    num_warps: int
    num_stages: int
    archs: tuple[str, ...]

    def attrs(self) -> dict[tuple[int], list[list[Any]]]:
        """`divisible` as `triton.compiler.ASTSource` takes it."""
        return {(i,): [["tt.divisibility", 16]] for i, name in enumerate(self.signature) if name in self.divisible}


@dataclass(frozen=True)
class _Form:
    """A product that is launched: all of an entry but where. `is_transposed`: as Hugging Face's transposed BF16."""

    encoding: str
    is_transposed: bool
    gated: bool
    dot: str
    tiles: Tiles

    @property
    def name(self) -> str:
        tiles = self.tiles
        way = "GEMV" if tiles.BM == 1 else f"GEMM {self.dot}"
        what = f"{'gate_up' if self.gated else 'linear'} {self.encoding}{' transposed' if self.is_transposed else ''}"
        return f"{way} {what} {tiles.BM}x{self._rows}x{tiles.BK}, {tiles.warps} warps, {tiles.stages} stages"

    def entry(self, archs: tuple[str, ...]) -> Entry:
        tiles, is_gemv = self.tiles, self.tiles.BM == 1
        pointers, constants = _stored(self.encoding)
        constants |= {"PAIRS_PER_ROW": 4 if self.gated else 1, "GATED": self.gated, "STAGES": False}
        constants |= {"BN": self._rows, "BK": tiles.BK}
        constants |= {"LOADS": tiles.stages} if is_gemv else {"DOT": self.dot, "BM": tiles.BM}
        odd = ("limit", "alpha", "n_pairs", *_odd_strides(self.encoding))
        if self.is_transposed:
            # One row after another is one element (of down; a launch makes a 1 constant) or two, K a whole row apart.
            constants |= {"COL_A": 5760, "COL_B": 5760} if self.gated else {"COL_A": 2880, "COL_B": 2880}
            constants |= {} if self.gated else {"row_a": 1, "row_b": 1}
            odd += ("row_a", "row_b")
        x = "*fp32" if is_gemv else _ACTIVATIONS[self.dot]
        named = {"x_ptr": x, "experts_ptr": "*i32", "pairs_ptr": "*i32", "limit": "fp32", "alpha": "fp32"}
        named |= {"a_ptr": pointers[0], "up_a_ptr": pointers[0], "b_ptr": pointers[-1], "up_b_ptr": pointers[-1]}
        is_native = self.dot in NATIVE
        named |= {"matrix_a": "i64", "out_ptr": x if self.gated and not is_native else "*fp32", "x_scales_ptr": x}
        function = gemv_kernel if is_gemv else gemm_kernel
        stages = 1 if is_gemv else tiles.stages
        return _entry(self.name, function, named, constants, warps=tiles.warps, stages=stages, archs=archs, odd=odd)

    @property
    def _rows(self) -> int:
        return self.tiles.BN if self.gated else 2 * self.tiles.BN


def _stored(encoding: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Pointer types of the parts, and the constants that say how they lie."""
    _, parts = ENCODINGS[encoding]
    pointers = tuple(_POINTERS[str(dtype)] for dtype, _ in parts)
    cols = [count for _, count in parts]
    return pointers, {"ENCODING": encoding, "COL_A": cols[0], "COL_B": cols[-1]}


def _odd_strides(encoding: str) -> tuple[str, ...]:
    """Strides that are no multiple of 16 where a row has 90 blocks (11 in the blocks of 256, of 4,096 elements 16)."""
    elements, parts = ENCODINGS[encoding]
    names = []
    for (_, count), part in ((parts[0], "a"), (parts[-1], "b")):
        row = (16 if elements == 256 else 2880 // elements) * count
        names += [f"row_{part}"] * (row % 16 > 0) + [f"matrix_{part}"] * (2880 * row % 16 > 0)
    return tuple(names)


def _entry(
    name: str,
    function: Any,
    named: dict[str, str],
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 1,
    archs: tuple[str, ...] = tuple(TARGETS),
    odd: tuple[str, ...] = (),
) -> Entry:
    """An entry whose other pointers are float32 and whose other numbers are int32."""
    signature = {}
    for argument in function.arg_names:
        default = "*fp32" if argument.endswith("_ptr") else "i32"
        signature[argument] = "constexpr" if argument in constants else named.get(argument, default)
    divisible = tuple(name for name in signature if name not in constants and name not in odd)
    return Entry(name, function, signature, constants, divisible, warps, stages, archs)


def _dots(encoding: str, arch: str) -> tuple[str, ...]:
    """The precisions that the ladder or a proof asks for there."""
    if not ARCHITECTURES[arch].dots:
        return ("f32",)
    if encoding == "MXFP4":
        return ("bf16", "scaled", "f16", "f32", *ARCHITECTURES[arch].native)
    return {"F16": ("f16",), "F32": ("f32",)}.get(encoding, ("bf16",))


def _forms(backend: str, arch: str) -> Iterator[_Form]:
    """All products that the table asks for on one architecture; some more than once."""
    for encoding in ENCODINGS:
        for dot, n_tokens, gated in itertools.product(_dots(encoding, arch), TOKENS, (True, False)):
            for is_transposed in (False, True) if encoding == "BF16" else (False,):
                tiles = tiles_for(backend, arch, n_tokens, encoding, dot=dot, is_transposed=is_transposed)
                if not gated or encoding not in _PLAIN_ONLY:
                    yield _Form(encoding, is_transposed, gated, "f32" if tiles.BM == 1 else dot, tiles)


def _products() -> tuple[Entry, ...]:
    """Each product once, with its architectures."""
    found: dict[_Form, dict[str, None]] = {}
    for arch, backend in TARGETS.items():
        for form in _forms(backend, arch):
            found.setdefault(form, {})[arch] = None
    return tuple(form.entry(tuple(archs)) for form, archs in found.items())


def _quantizers() -> Iterator[Entry]:
    """Of x as it comes, and of SwiGLU's result."""
    archs = tuple(arch for arch in TARGETS if ARCHITECTURES[arch].native)
    for kind, element in ELEMENTS.items():
        for name, pointer in (("f32", "*fp32"), ("bf16", "*i16"), ("f16", "*fp16")):
            named = {"x_ptr": pointer, "codes_ptr": "*u8", "scales_ptr": "*u8"}
            constants = {"ELEMENT": element, "BG": QUANTIZE_BLOCKS}
            odd = ("n_blocks",)
            yield _entry(f"quantize {name} to {kind}", quantize_kernel, named, constants, archs=archs, odd=odd)


def _others() -> tuple[Entry, ...]:
    """Routing and what else is no product."""
    ints = dict.fromkeys(("experts_ptr", "counts_ptr", "pairs_ptr", "tile_experts_ptr"), "*i32")
    routing = {"TOP_K": 4, "SLOTS": 4, "BT": ROUTE_TOKENS, "BE": 32}
    grouping = {"BM": 64, "BE": 32, "CHUNK": SORT_CHUNK}
    decodes = []
    for encoding in ENCODINGS:
        pointers, constants = _stored(encoding)
        named = {"a_ptr": pointers[0], "b_ptr": pointers[-1], "matrix_a": "i64"}
        constants |= {"BN": DECODE_TILE[0], "BK": DECODE_TILE[1]}
        odd = _odd_strides(encoding)
        decodes.append(_entry(f"decode {encoding}", decode_kernel, named, constants, warps=8, odd=odd))
    return (
        _entry("route", route_kernel, ints, routing, odd=("n_tokens",)),
        _entry("count", count_kernel, ints, {"CHUNK": SORT_CHUNK}, odd=("n_pairs",)),
        _entry("group", group_kernel, ints, grouping, odd=("n_pairs",)),
        _entry("combine", combine_kernel, {}, {"TOP_K": 4, "BLOCK": COMBINE_BLOCK}),
        _entry(
            "swiglu", swiglu_kernel, {"limit": "fp32", "alpha": "fp32"}, {"BLOCK": SWIGLU_BLOCK}, odd=("limit", "alpha")
        ),
        *decodes,
        *_quantizers(),
    )


KERNELS: tuple[Entry, ...] = (*_others(), *_products())
