"""The 32 elements of a block as one LLVM vector, for kernels that numba compiles.

A loop over 32 elements is too short for LLVM to make good vector code of. Said as operations on whole vectors, the same
work is two to four times as fast. LLVM splits a vector over whatever registers the processor has (AVX-512, AVX2,
NEON), and numba gives a loop-carried vector registers too.

numba's disk cache looks at a kernel's own file alone: after a change here, touch the modules that use it.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils as _cgutils

from .numba_compile import operation

# numba annotates some of these, not all; half-typed calls are worse than none.
types: Any = numba.types
models: Any = extending.models
cgutils: Any = _cgutils

_LANES = 32
_INT32 = ir.IntType(32)


class Lanes(types.Type):  # type: ignore[misc]
    """numba's type of 32 elements."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(f"Lanes({element})")


@extending.register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(manager.lookup(lanes.element).get_value_type(), _LANES))


# --- bits --------------------------------------------------------------------------------------------------------


@operation
def load(_typing: Any, array: Any, _at: Any) -> Any:
    """Elements `at` to `at + 31` of a 1-D array whose elements lie one after another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = context.get_value_type(signature.return_type)
        data = context.make_array(array)(context, builder, args[0]).data
        vector = builder.load(builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer()))
        vector.align = 1
        return vector

    return Lanes(array.dtype)(array, types.intp), generate


@operation
def magnitudes(_typing: Any, lanes: Any) -> Any:
    """The patterns without the highest bit."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        mask = (1 << (args[0].type.element.width - 1)) - 1
        return builder.and_(args[0], _constant(args[0].type, mask))

    return lanes(lanes), generate


@operation
def largest(_typing: Any, lanes: Any) -> Any:
    """The largest element, as uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.zext(_reduce(builder, "umax", args[0]), ir.IntType(64))

    return types.uint64(lanes), generate


@operation
def equal(_typing: Any, first: Any, _second: Any) -> Any:
    """Whether all elements are equal."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        different = _reduce(builder, "or", builder.xor(*args))
        return builder.icmp_unsigned("==", different, different.type(0))

    return types.boolean(first, first), generate


# --- codes -------------------------------------------------------------------------------------------------------


@operation
def nearest(_typing: Any, lanes: Any, thresholds: Any, values: Any, _row: Any) -> Any:
    """The code of each magnitude (uint8 lanes), and the magnitude of that code.

    Code k is taken from `thresholds[row, k - 1]` on and stands for `values[row, k]`: C-contiguous [R, 7] and [R, 8].
    """
    codes = Lanes(types.uint8)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        magnitude, _, _, row = args
        code = _constant(context.get_value_type(codes), 0)
        value = _splat(builder, _entry(context, builder, values, args[2], row, 8, 0))
        for k in range(1, 8):
            threshold = _splat(builder, _entry(context, builder, thresholds, args[1], row, 7, k - 1))
            reached = builder.icmp_unsigned(">=", magnitude, threshold)
            code = builder.add(code, builder.zext(reached, code.type))
            level = _splat(builder, _entry(context, builder, values, args[2], row, 8, k))
            value = builder.select(reached, level, value)
        return context.make_tuple(builder, signature.return_type, [code, value])

    return types.Tuple((codes, lanes))(lanes, thresholds, values, types.intp), generate


@operation
def any_half(_typing: Any, codes: Any) -> Any:
    """Whether one of the codes is 0.5 or 1.5: 1 or 3."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        lanes = args[0].type
        half = builder.icmp_unsigned("==", builder.and_(args[0], _constant(lanes, 5)), _constant(lanes, 1))
        found = _reduce(builder, "or", builder.zext(half, lanes))
        return builder.icmp_unsigned("!=", found, found.type(0))

    return types.boolean(codes), generate


@operation
def pack(_typing: Any, codes: Any, values: Any) -> Any:
    """The codes with the signs of the values, interleaved, as two uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        negative = builder.icmp_signed("<", args[1], _constant(args[1].type, 0))
        signs = builder.select(negative, _constant(args[0].type, 8), _constant(args[0].type, 0))
        signed = builder.or_(args[0], signs)
        even, odd = (_shuffle(builder, signed, range(first, _LANES, 2)) for first in (0, 1))
        return _words(context, builder, signature, even, odd)

    return types.UniTuple(types.uint64, 2)(codes, values), generate


# --- the order of nibbles ----------------------------------------------------------------------------------------


@operation
def interleaved(_typing: Any, first: Any, _second: Any) -> Any:
    """A block's 16 bytes (two uint64) from the split_half order to the interleaved one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = _nibbles(builder, args)
        even, odd = (_shuffle(builder, low, range(start, _LANES, 2), high) for start in (0, 1))
        return _words(context, builder, signature, even, odd)

    return types.UniTuple(types.uint64, 2)(first, first), generate


@operation
def split_half(_typing: Any, first: Any, _second: Any) -> Any:
    """A block's 16 bytes (two uint64) from the interleaved order to the split_half one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = _nibbles(builder, args)
        elements = [place for byte in range(16) for place in (byte, 16 + byte)]
        halves = (_shuffle(builder, low, elements[start : start + 16], high) for start in (0, 16))
        return _words(context, builder, signature, *halves)

    return types.UniTuple(types.uint64, 2)(first, first), generate


# --- sums --------------------------------------------------------------------------------------------------------


@operation
def zeros(_typing: Any) -> Any:
    """32 float64 zeros."""

    def generate(context: Any, _builder: Any, signature: Any, _args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Lanes(types.float64)(), generate


@operation
def add_squares(_typing: Any, error: Any, square: Any, values: Any, levels: Any) -> Any:
    """(error + (values - levels)^2, square + values^2) in float64; the last two are patterns of BF16 or F32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, level = (_numbers(builder, patterns) for patterns in args[2:])
        difference = builder.fsub(value, level)
        added = [
            builder.fadd(total, builder.fmul(term, term))
            for total, term in zip(args[:2], (difference, value), strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, added)

    return types.UniTuple(error, 2)(error, square, values, levels), generate


@operation
def total(_typing: Any, lanes: Any) -> Any:
    """The sum of float64 elements, from the first to the last."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        sum_ = args[0].type.element(0.0)
        for i in range(_LANES):
            sum_ = builder.fadd(sum_, builder.extract_element(args[0], _INT32(i)))
        return sum_

    return types.float64(lanes), generate


# --- LLVM --------------------------------------------------------------------------------------------------------


def _constant(lanes: Any, value: int) -> Any:
    return ir.Constant(lanes, [value] * lanes.count)


def _shuffle(builder: Any, lanes: Any, order: Any, more: Any = None) -> Any:
    """Elements of `lanes`, then of `more`, in that order."""
    order = list(order)
    mask = ir.Constant(ir.VectorType(_INT32, len(order)), order)
    return builder.shuffle_vector(lanes, ir.Constant(lanes.type, ir.Undefined) if more is None else more, mask)


def _nibbles(builder: Any, words: Any) -> Any:
    """The low and the high nibbles of two uint64, each as 16 bytes."""
    pair = ir.Constant(ir.VectorType(ir.IntType(64), 2), ir.Undefined)
    for place, word in enumerate(words):
        pair = builder.insert_element(pair, word, _INT32(place))
    data = builder.bitcast(pair, ir.VectorType(ir.IntType(8), 16))
    return builder.and_(data, _constant(data.type, 15)), builder.lshr(data, _constant(data.type, 4))


def _words(context: Any, builder: Any, signature: Any, low: Any, high: Any) -> Any:
    """Two uint64 of bytes whose low and high nibbles are given."""
    data = builder.or_(low, builder.shl(high, _constant(high.type, 4)))
    words = builder.bitcast(data, ir.VectorType(ir.IntType(64), 2))
    return context.make_tuple(
        builder, signature.return_type, [builder.extract_element(words, _INT32(i)) for i in (0, 1)]
    )


def _splat(builder: Any, scalar: Any) -> Any:
    lanes = ir.VectorType(scalar.type, _LANES)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, _INT32(0))
    return _shuffle(builder, first, [0] * _LANES)


def _entry(context: Any, builder: Any, table: Any, value: Any, row: Any, columns: int, column: int) -> Any:
    """`table[row, column]`."""
    data = context.make_array(table)(context, builder, value).data
    at = builder.add(builder.mul(row, row.type(columns)), row.type(column))
    return builder.load(builder.gep(data, [at]))


def _reduce(builder: Any, operation: str, lanes: Any) -> Any:
    element = lanes.type.element
    name = f"llvm.vector.reduce.{operation}.v{_LANES}i{element.width}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(element, [lanes.type]), name)
    return builder.call(function, [lanes])


def _numbers(builder: Any, patterns: Any) -> Any:
    """The float64 numbers of BF16 or F32 patterns."""
    bits = ir.VectorType(_INT32, _LANES)
    if patterns.type.element.width < 32:
        patterns = builder.shl(builder.zext(patterns, bits), _constant(bits, 16))
    return builder.fpext(
        builder.bitcast(patterns, ir.VectorType(ir.FloatType(), _LANES)), ir.VectorType(ir.DoubleType(), _LANES)
    )
