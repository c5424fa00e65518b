"""SIMD vectors for compiled code: the pieces of which a matrix product is made, written in LLVM's language.

A loop that LLVM vectorises by itself keeps neither a block of the result in registers nor its operands in order. Here
the vectors are explicit: :func:`tile` holds a few rows of the result, two vectors wide, in registers from the first
term of its sums to the last. Others are made for what is narrow: :func:`narrow` for a result with few columns,
:func:`dots` for one with a single column, :func:`strip` for one with a single row. :func:`move` and :func:`transpose`
bring an operand into the order in which a tile reads it.

Arrays are vectors in the sense of NumPy (one axis) and come with the place at which to begin. Nothing is checked.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

__all__ = ["dots", "move", "narrow", "prefetch", "strip", "tile", "transpose", "width"]

_WHOLE = types.int64
_INT64, _INT32 = ir.IntType(64), ir.IntType(32)
# products may be fused with the sums that follow; nothing is reordered
_FLAGS = ("contract",)


def width(itemsize: int) -> int:
    """Return how many numbers of a size a SIMD register holds.

    Of the processor that Numba compiles for, which ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` may name: compiled
    code that is found in the cache folder was made for the same.
    """
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    known = set(features.split(","))
    if "+avx512f" in known or name == "x86-64-v4":
        size = 64
    else:
        size = 32 if "+avx" in known or name == "x86-64-v3" else 16
    return size // itemsize


class _Writer:
    """Writes instructions on vectors of one type."""

    def __init__(self, context: Any, builder: Any, array: Any) -> None:
        self.context, self.builder = context, builder
        self.align = array.dtype.bitwidth // 8
        self.width = width(self.align)
        self.type = ir.VectorType(context.get_value_type(array.dtype), self.width)

    def begin(self, kind: Any, array: Any, offset: Any) -> Any:
        """Return where an element of an array lies."""
        return self.step(self.context.make_array(kind)(self.context, self.builder, array).data, offset)

    def step(self, pointer: Any, *offsets: Any) -> Any:
        for offset in offsets:
            pointer = self.builder.gep(pointer, [offset])
        return pointer

    def times(self, stride: Any, k: int) -> Any:
        return self.builder.mul(stride, _INT64(k))

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.align)

    def store(self, vector: Any, pointer: Any) -> None:
        self.builder.store(vector, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.align)

    def first(self, count: Any) -> Any:
        """Return a mask of the first ``count`` numbers."""
        kind = ir.VectorType(_INT32, self.width)
        nothing = ir.Constant(kind, ir.Undefined)
        count = self.builder.insert_element(nothing, self.builder.trunc(count, _INT32), _INT32(0))
        count = self.shuffle(count, nothing, [0] * self.width)
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(self.width))), count)

    def load_some(self, pointer: Any, mask: Any) -> Any:
        """Load the numbers of a mask, and zeros for the others; these are not touched."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        return self._masked("load", self.type, pointer, _INT32(self.align), mask, self.zero())

    def store_some(self, vector: Any, pointer: Any, mask: Any) -> None:
        """Store the numbers of a mask."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        self._masked("store", ir.VoidType(), vector, pointer, _INT32(self.align), mask)

    def _masked(self, what: str, result: Any, *arguments: Any) -> Any:
        # LLVM completes the name with whatever its pointers are called
        name = f"llvm.masked.{what}.v{self.width}f{8 * self.align}.p0"
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

    def shuffle(self, a: Any, b: Any, places: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, self.width), places))

    def repeat(self, number: Any) -> Any:
        nothing = ir.Constant(self.type, ir.Undefined)
        return self.shuffle(self.builder.insert_element(nothing, number, _INT32(0)), nothing, [0] * self.width)

    def zero(self) -> Any:
        return ir.Constant(self.type, [0.0] * self.width)

    def product(self, x: Any, y: Any) -> Any:
        return self.builder.fmul(x, y, flags=_FLAGS)

    def add_up(self, terms: Any, n: int, addends: Callable[[Any], list[Any]], step: int = 1) -> list[Any]:
        """Write a loop over p = 0, step, ... below ``terms``, at least once round; return the n sums of its addends."""
        builder, entry = self.builder, self.builder.block
        loop, after = (builder.append_basic_block(name) for name in ("terms", "after"))
        builder.branch(loop)
        builder.position_at_end(loop)
        p, before = builder.phi(_INT64), [builder.phi(self.type) for _ in range(n)]
        sums = [builder.fadd(x, y, flags=_FLAGS) for x, y in zip(before, addends(p), strict=True)]
        following = builder.add(p, _INT64(step))
        for x, first, y in zip([p, *before], [_INT64(0)] + [self.zero()] * n, [following, *sums], strict=True):
            x.add_incoming(first, entry)
            x.add_incoming(y, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
        builder.position_at_end(after)
        return sums


def tile(rows: int) -> Callable[..., None]:
    """Make the product of a few rows of A with two vectors of columns of B.

    Parameters
    ----------
    rows : int
        Rows of the result. With 6, twelve accumulators, two vectors of B and one number of A fill the 16 registers
        of AVX2.

    Returns
    -------
    callable
        ``tile(A, a, a_row, a_term, B, b, b_term, b_second, C, c, c_row, c_second, D, d, d_row, terms, add)`` computes
        ``C[c + i c_row + j] = sum_p A[a + i a_row + p a_term] B[b + p b_term + j]`` for i below ``rows``, for j within
        the first vector and, from ``b_second`` and ``c_second`` on, within the second. The two may overlap: that is
        how a number of columns between one and two vectors is computed. With ``add`` other than 0 the sums are added
        to ``D[d + i d_row + j]``. Sums begin with p = 0 and go on in order.
    """

    @intrinsic
    def product(typingctx, A, a, a_row, a_term, B, b, b_term, b_second, C, c, c_row, c_second, D, d, d_row, terms, add):
        def codegen(context, builder, signature, args):
            A, a, a_row, a_term, B, b, b_term, b_second, C, c, c_row, c_second, D, d, d_row, terms, add = args
            kinds = signature.args
            w = _Writer(context, builder, kinds[0])
            a, b = w.begin(kinds[0], A, a), w.begin(kinds[4], B, b)
            c, d = w.begin(kinds[8], C, c), w.begin(kinds[12], D, d)
            firsts = [w.step(a, w.times(a_row, i)) for i in range(rows)]

            def addends(p):
                column, offset = w.step(b, builder.mul(p, b_term)), builder.mul(p, a_term)
                columns = w.load(column), w.load(w.step(column, b_second))
                numbers = [w.repeat(builder.load(w.step(first, offset))) for first in firsts]
                return [w.product(number, vector) for number in numbers for vector in columns]

            sums = w.add_up(terms, 2 * rows, addends)
            with builder.if_else(builder.icmp_signed("!=", add, _INT64(0))) as (added, stored):
                for branch in (added, stored):
                    with branch:
                        for i, pair in enumerate(zip(sums[::2], sums[1::2], strict=True)):
                            place = w.step(c, w.times(c_row, i))
                            places = place, w.step(place, c_second)
                            if branch is added:
                                # both are read before either is written: they may overlap
                                old = w.step(d, w.times(d_row, i))
                                old = w.load(old), w.load(w.step(old, c_second))
                                pair = tuple(builder.fadd(x, y) for x, y in zip(old, pair, strict=True))
                            for vector, where in zip(pair, places, strict=True):
                                w.store(vector, where)
            return context.get_dummy_value()

        n = _WHOLE
        return types.none(A, n, n, n, B, n, n, n, C, n, n, n, D, n, n, n, n), codegen

    return product  # type: ignore[no-any-return]


def narrow(rows: int) -> Callable[..., None]:
    """Make the product of a few rows of A with fewer columns of B than a vector has numbers.

    Parameters
    ----------
    rows : int
        Rows of the result.

    Returns
    -------
    callable
        ``narrow(A, a, a_row, a_term, B, b, b_term, C, c, c_row, D, d, d_row, columns, terms, add)``; as for
        :func:`tile`. Columns from ``columns`` on are neither read nor written.
    """

    @intrinsic
    def product(typingctx, A, a, a_row, a_term, B, b, b_term, C, c, c_row, D, d, d_row, columns, terms, add):
        def codegen(context, builder, signature, args):
            A, a, a_row, a_term, B, b, b_term, C, c, c_row, D, d, d_row, columns, terms, add = args
            kinds = signature.args
            w = _Writer(context, builder, kinds[0])
            a, b = w.begin(kinds[0], A, a), w.begin(kinds[4], B, b)
            c, d = w.begin(kinds[7], C, c), w.begin(kinds[10], D, d)
            firsts, mask = [w.step(a, w.times(a_row, i)) for i in range(rows)], w.first(columns)

            def addends(p):
                column, offset = w.load_some(w.step(b, builder.mul(p, b_term)), mask), builder.mul(p, a_term)
                return [w.product(w.repeat(builder.load(w.step(first, offset))), column) for first in firsts]

            sums = w.add_up(terms, rows, addends)
            with builder.if_else(builder.icmp_signed("!=", add, _INT64(0))) as (added, stored):
                for branch in (added, stored):
                    with branch:
                        for i, vector in enumerate(sums):
                            if branch is added:
                                vector = builder.fadd(w.load_some(w.step(d, w.times(d_row, i)), mask), vector)
                            w.store_some(vector, w.step(c, w.times(c_row, i)), mask)
            return context.get_dummy_value()

        n = _WHOLE
        return types.none(A, n, n, n, B, n, n, C, n, n, D, n, n, n, n, n), codegen

    return product  # type: ignore[no-any-return]


@intrinsic
def dots(typingctx, A, a, a_row, B, b, C, c, terms):
    """Multiply some rows of A with a column: ``C[c + i] = sum_p A[a + i a_row + p] B[b + p]``.

    There are as many rows as a vector has numbers.
    Each row is added up in a vector of its own; at the end the vectors of two rows at a time are folded into one, until
    one vector holds the sums of all. Terms are added in an order that depends on their number only.
    """

    def codegen(context, builder, signature, args):
        A, a, a_row, B, b, C, c, terms = args
        kinds = signature.args
        w = _Writer(context, builder, kinds[0])
        n = w.width
        a, b, c = (w.begin(kinds[k], *pair) for k, pair in ((0, (A, a)), (3, (B, b)), (5, (C, c))))
        firsts = [w.step(a, w.times(a_row, i)) for i in range(n)]

        def addends(p):
            mask = w.first(builder.sub(terms, p))
            column = w.load_some(w.step(b, p), mask)
            return [w.product(w.load_some(w.step(first, p), mask), column) for first in firsts]

        vectors = w.add_up(terms, n, addends, step=n)
        while len(vectors) > 1:
            # every block of a vector belongs to one row: its halves are added, and those of two vectors take turns
            half = len(vectors) // 2
            lower = [which + start + k for start in range(0, n, 2 * half) for which in (0, n) for k in range(half)]
            upper = [place + half for place in lower]
            pairs = zip(vectors[:half], vectors[half:], strict=True)
            vectors = [builder.fadd(w.shuffle(x, y, lower), w.shuffle(x, y, upper)) for x, y in pairs]
        w.store(vectors[0], c)
        return context.get_dummy_value()

    n = _WHOLE
    return types.none(A, n, n, B, n, C, n, n), codegen


def strip(vectors: int) -> Callable[..., None]:
    """Make the product of one row with many columns of B.

    Such a product reads B once and does little else: it is as fast as memory, provided that what is read lies
    together.

    Parameters
    ----------
    vectors : int
        Width of the result.

    Returns
    -------
    callable
        ``strip(A, a, a_term, B, b, b_term, C, c, terms)`` computes
        ``C[c + j] = sum_p A[a + p a_term] B[b + p b_term + j]`` for j below ``vectors`` times the width of a vector.
        Sums begin with p = 0 and go on in order.
    """

    @intrinsic
    def product(typingctx, A, a, a_term, B, b, b_term, C, c, terms):
        def codegen(context, builder, signature, args):
            A, a, a_term, B, b, b_term, C, c, terms = args
            kinds = signature.args
            w = _Writer(context, builder, kinds[0])
            a, b, c = (w.begin(kinds[k], *pair) for k, pair in ((0, (A, a)), (3, (B, b)), (6, (C, c))))

            def addends(p):
                number = w.repeat(builder.load(w.step(a, builder.mul(p, a_term))))
                row = w.step(b, builder.mul(p, b_term))
                return [w.product(number, w.load(w.step(row, _INT64(v * w.width)))) for v in range(vectors)]

            sums = w.add_up(terms, vectors, addends)
            for v, y in enumerate(sums):
                w.store(y, w.step(c, _INT64(v * w.width)))
            return context.get_dummy_value()

        n = _WHOLE
        return types.none(A, n, n, B, n, n, C, n, n), codegen

    return product  # type: ignore[no-any-return]


@intrinsic
def move(typingctx, source, a, target, b):
    """Copy one vector: ``target[b:] = source[a:]``."""

    def codegen(context, builder, signature, args):
        source, a, target, b = args
        w = _Writer(context, builder, signature.args[0])
        w.store(w.load(w.begin(signature.args[0], source, a)), w.begin(signature.args[2], target, b))
        return context.get_dummy_value()

    return types.none(source, _WHOLE, target, _WHOLE), codegen


def prefetch(array, at):
    """Ask for the line of the cache that holds an element of an array, of any axes, counted in C order."""


def _prefetch(typingctx, array, at):
    def codegen(context, builder, signature, args):
        array, at = args
        pointer = builder.gep(context.make_array(signature.args[0])(context, builder, array).data, [at])
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        # to be read, soon and often, as data
        arguments = [pointer, _INT32(0), _INT32(3), _INT32(1)]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), arguments)
        return context.get_dummy_value()

    return types.none(array, _WHOLE), codegen


if not numba.config.DISABLE_JIT:
    prefetch = intrinsic(_prefetch)


@intrinsic
def transpose(typingctx, source, a, source_row, columns, target, b, target_row):
    """Transpose a block: as many rows as a vector has numbers, and that many columns, or fewer.

    Columns from ``columns`` on are not read; the rows of the target that they would become receive zeros.
    Each pass interleaves the first half of the rows with the second; after log2(rows) passes rows are columns.
    """

    def codegen(context, builder, signature, args):
        source, a, source_row, columns, target, b, target_row = args
        w = _Writer(context, builder, signature.args[0])
        n, mask = w.width, w.first(columns)
        begin, end = w.begin(signature.args[0], source, a), w.begin(signature.args[4], target, b)
        rows = [w.load_some(w.step(begin, w.times(source_row, i)), mask) for i in range(n)]
        halves = [[start + x // 2 + (n if x % 2 else 0) for x in range(n)] for start in (0, n // 2)]
        for _ in range(n.bit_length() - 1):
            rows = [w.shuffle(rows[i], rows[i + n // 2], half) for i in range(n // 2) for half in halves]
        for i, row in enumerate(rows):
            w.store(row, w.step(end, w.times(target_row, i)))
        return context.get_dummy_value()

    return types.none(source, _WHOLE, _WHOLE, _WHOLE, target, _WHOLE, _WHOLE), codegen
