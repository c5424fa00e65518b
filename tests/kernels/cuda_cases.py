"""What each CUDA kernel must compute, for any size and any schedule; used with and without AddressSanitizer.

A case launches kernels of one unit and compares with float64 NumPy. Buffers are exactly as large as the kernel may
touch, so an access beyond them is seen by AddressSanitizer; outputs start as NaN, so a missing write is seen anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bpcore import random as reference
from bpcore.functions.program import Program
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.source import print_elementwise, unit_source
from bpcore.random import Purpose
from tests.helpers.compare import assert_close, assert_same_bits
from tests.kernels.on_host import changed

SIZES = ((1, 1), (1, 7), (3, 2), (5, 4), (13, 10), (2, 31), (7, 32), (3, 33), (40, 3))
"""Rows and columns: one, primes, one off the powers of two that decide how many lanes work on a row."""

WIDE_SIZES = ((1, 64), (3, 65), (2, 1025), (5, 1499))
"""For the kernels that give a row to a block."""


class Bench:
    """Kernels of one dtype under one schedule."""

    def __init__(
        self,
        folder: Path,
        dtype: Any,
        *,
        seed: int = 2,
        sanitize: bool = False,
        change: Sequence[str] = (),
        offset: int = 0,
    ) -> None:
        self.folder = folder
        self.dtype = np.dtype(dtype)
        self.seed = seed
        self.sanitize = sanitize
        self.change = change
        self.offset = offset
        self.rng = np.random.default_rng(7)

    def module(self, unit: str) -> HostModule:
        source = changed(unit_source(unit, self.dtype), self.change)
        return HostModule(source, self.folder, sanitize=self.sanitize)

    def launch(self, unit: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        values = tuple(np.int64(a) if isinstance(a, int) else a for a in arguments)
        self.module(unit).launch(name, grid, block, values, seed=self.seed)

    def place(self, array: Any, dtype: Any = None) -> Any:
        """Copy into memory of exactly its size, `offset` elements past an address that is a multiple of 16."""
        array = np.asarray(array, self.dtype if dtype is None else dtype)
        raw = np.empty(array.size + self.offset, array.dtype)
        if array.size:
            assert raw.ctypes.data % 16 == 0, "malloc aligns to 16 bytes"
        placed = raw[self.offset :].reshape(array.shape)
        placed[...] = array
        return placed

    def blank(self, *shape: int, dtype: Any = None) -> Any:
        return self.place(np.full(shape, np.nan), dtype)

    def normal(self, *shape: int) -> Any:
        return self.place(self.rng.normal(size=shape) * 3)


def _softmax(Z: Any) -> Any:
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def _launch_rows(bench: Bench, name: str, wide: bool, m: int, n: int, *arrays: Any) -> None:
    if wide:
        bench.launch("rowwise", f"{name}_wide", (2,), (96,), *arrays, m, n)
    else:
        width = np.int32(min(32, 1 << (n - 1).bit_length()))
        bench.launch("rowwise", f"{name}_narrow", (2,), (64,), *arrays, m, n, width)


def softmax(bench: Bench, m: int, n: int, wide: bool) -> None:
    Z = bench.normal(m, n)
    Z[0, -1] = 1000  # exp overflows, unless the maximum has seen every column
    expected = _softmax(Z.astype(np.float64))
    H = bench.blank(m, n)
    _launch_rows(bench, "softmax", wide, m, n, Z, H)
    assert_close(H, expected, dtype=bench.dtype, length=n)
    _launch_rows(bench, "softmax", wide, m, n, Z, Z)  # in place
    assert_same_bits(np.ascontiguousarray(Z), np.ascontiguousarray(H))


def log_softmax(bench: Bench, m: int, n: int, wide: bool) -> None:
    Z = bench.normal(m, n)
    Z[0, -1] = 1000
    H = bench.blank(m, n)
    _launch_rows(bench, "log_softmax", wide, m, n, Z, H)
    shifted = Z.astype(np.float64) - Z.max(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    # z - max and log sum are rounded as numbers of their own size, and cancel where the class is likely
    assert_close(H, expected, dtype=bench.dtype, length=n, scale=np.abs(shifted).max(axis=1, keepdims=True) + 1)


def backprop_softmax(bench: Bench, m: int, n: int, wide: bool) -> None:
    G = bench.normal(m, n)
    H = bench.place(_softmax(bench.normal(m, n)))
    D = bench.blank(m, n)
    _launch_rows(bench, "backprop_softmax", wide, m, n, G, H, D)
    g, h = G.astype(np.float64), H.astype(np.float64)
    expected = h * (g - (g * h).sum(axis=1, keepdims=True))
    assert_close(D, expected, dtype=bench.dtype, length=n, scale=np.abs(g).max() * h)
    _launch_rows(bench, "backprop_softmax", wide, m, n, G, H, G)
    assert_same_bits(np.ascontiguousarray(G), np.ascontiguousarray(D))


def backprop_log_softmax(bench: Bench, m: int, n: int, wide: bool) -> None:
    G = bench.normal(m, n)
    H = bench.place(np.log(_softmax(bench.normal(m, n))))
    D = bench.blank(m, n)
    _launch_rows(bench, "backprop_log_softmax", wide, m, n, G, H, D)
    g, h = G.astype(np.float64), H.astype(np.float64)
    expected = g - np.exp(h) * g.sum(axis=1, keepdims=True)
    assert_close(D, expected, dtype=bench.dtype, length=n, scale=np.abs(g).max() + np.abs(expected))


def row_hits(bench: Bench, m: int, n: int, wide: bool) -> None:
    H = bench.place(bench.rng.integers(0, 3, size=(m, n)))  # many equal maxima
    H[m // 2] = np.nan if n > 1 else H[m // 2]
    H[-1, 0] = np.nan
    guess = (H[:, 0] > 0.5).astype(np.int64) if n == 1 else H.argmax(axis=1)
    labels = bench.place(np.where(bench.rng.random(m) < 0.7, guess, (guess + 1) % max(n, 2)), np.int64)
    hits = bench.blank(m)
    _launch_rows(bench, "row_hits", wide, m, n, H, labels, bench.dtype.type(0.5), hits)
    expected = np.where(np.isnan(H).any(axis=1), 0.0, guess == labels)
    assert_close(hits, expected, dtype=bench.dtype)


def column_sums(bench: Bench, m: int, n: int, wide: bool) -> None:
    A = bench.normal(m, n)
    expected = A.astype(np.float64).sum(axis=0)
    for x, y, splits in ((8, 8, 1), (4, 16, 3), (16, 1, 2), (1, 32, 5)):
        out = bench.blank(n)
        partial = bench.blank(splits if splits > 1 else 1, n, dtype=np.float64)
        bench.launch("reductions", "column_sums", (2, splits), (x, y), A, out, partial, m, n)
        if splits > 1:
            bench.launch("reductions", "add_column_partials", (2,), (32,), partial, out, n, splits)
        assert_close(out, expected, dtype=bench.dtype, scale=np.abs(A).max())


def sums(bench: Bench, m: int, n: int, wide: bool) -> None:
    A = bench.normal(m * n)
    a = A.astype(np.float64)
    for name, expected in (("total", a.sum()), ("sum_squares", (a * a).sum()), ("count_not_finite", 0.0)):
        of_block, out = bench.blank(3, dtype=np.float64), bench.blank(1, dtype=np.float64)
        bench.launch("reductions", name, (3,), (64,), A, of_block, m * n)
        bench.launch("reductions", "add_partials", (1,), (32,), of_block, out, 3)
        assert_close(out, np.array([expected]), dtype=np.float64, length=m * n, scale=np.abs(a).max() ** 2)
    A[[0, m * n // 2, -1]] = np.inf, np.nan, -np.inf
    out = bench.blank(1, dtype=np.float64)
    bench.launch("reductions", "count_not_finite", (1,), (64,), A, out, m * n)
    assert out[0] == np.count_nonzero(~np.isfinite(A))


def take_rows(bench: Bench, m: int, n: int, wide: bool) -> None:
    p = 2 * m + 1
    X = bench.normal(p, n)
    index = bench.place(bench.rng.integers(0, p, size=m), np.int64)
    index[0] = p - 1
    expected = np.ascontiguousarray(X[index])
    out = bench.blank(m, n)
    size = bench.dtype.itemsize
    bench.launch("gather", f"take_rows_{size}", (2, 2), (4, 8), X, index, out, p, m, n)
    assert_same_bits(np.ascontiguousarray(out), expected)
    if n * size % 16 == 0 and not bench.offset:
        out = bench.blank(m, n)
        bench.launch("gather", "take_rows_16", (1, 3), (2, 8), X, index, out, p, m, n * size // 16)
        assert_same_bits(np.ascontiguousarray(out), expected)
    index[0] = p  # one past the end: not read, and recognisable
    bench.launch("gather", f"take_rows_{size}", (2, 2), (4, 8), X, index, out, p, m, n)
    assert np.isnan(out[0]).all()
    assert_same_bits(np.ascontiguousarray(out[1:]), expected[1:])


def random_fields(bench: Bench, m: int, n: int, wide: bool) -> None:
    p, seed, step, layer = m * n, 0xFEDCBA9876543210, (0xABCDEF << 32) + 5, 513
    words = (
        np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), np.uint32(layer), np.uint32(step & 0xFFFFFFFF),
    )  # fmt: skip
    bits = bench.place(np.zeros(p), np.uint32)
    tag = np.uint32(Purpose.USER << 24 | step >> 32)
    bench.launch("random", "random_bits", (2,), (32,), bits, p, *words, tag)
    expected = reference.random_bits(p, seed=seed, purpose=Purpose.USER, step=step, layer=layer)
    assert_same_bits(np.ascontiguousarray(bits), expected)
    mask = bench.blank(p)
    tag = np.uint32(Purpose.DROPOUT << 24 | step >> 32)
    threshold, kept = np.uint32(int(0.3 * 2**32)), bench.dtype.type(1 / 0.7)
    bench.launch("random", "dropout_mask", (3,), (32,), mask, p, threshold, kept, *words, tag)
    drawn = reference.random_bits(p, seed=seed, purpose=Purpose.DROPOUT, step=step, layer=layer)
    assert_same_bits(np.ascontiguousarray(mask), np.where(drawn < threshold, 0, kept).astype(bench.dtype))


def formulas(bench: Bench, m: int, n: int, wide: bool) -> None:
    kinds = {"z": "full", "c": "full", "k": "one"}
    for row in (False, True):  # with an argument of kind row the kernel walks over rows and columns
        program = Program("t = z*b + c; h = t*k; g = t - k", outputs=("h", "g"), name="rows" if row else "flat")
        kernel = print_elementwise(program, kinds | {"b": "row" if row else "full"})
        arrays = {"z": bench.normal(m, n), "c": bench.normal(m, n), "k": bench.normal(1)}
        arrays["b"] = bench.normal(*((n,) if row else (m, n)))
        h, g = bench.blank(m, n), bench.blank(m, n)
        grid, block, sizes = ((2, 2), (8, 4), (m, n)) if row else ((2,), (32,), (m * n,))
        module = HostModule(kernel.source(bench.dtype), bench.folder, sanitize=bench.sanitize)
        arguments = (h, g, *(arrays[name] for name in kernel.arrays), *map(np.int64, sizes))
        module.launch(kernel.name, grid, block, arguments, seed=bench.seed)
        z, c, k, b = (arrays[name].astype(np.float64) for name in "zckb")
        terms = np.abs(z * b) + np.abs(c)
        assert_close(h, (z * b + c) * k, dtype=bench.dtype, scale=terms * np.abs(k))
        assert_close(g, z * b + c - k, dtype=bench.dtype, scale=terms + np.abs(k))


Case = Callable[[Bench, int, int, bool], None]
ROW_CASES: tuple[Case, ...] = (softmax, log_softmax, backprop_softmax, backprop_log_softmax, row_hits)
OTHER_CASES: tuple[Case, ...] = (column_sums, sums, take_rows, random_fields, formulas)


def run_all(bench: Bench) -> None:
    """Run every case for every size."""
    for case in (*ROW_CASES, *OTHER_CASES):
        for m, n in SIZES:
            case(bench, m, n, False)
    for case in ROW_CASES:
        for m, n in WIDE_SIZES:
            case(bench, m, n, True)
