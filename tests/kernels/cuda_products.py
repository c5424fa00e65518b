"""What the products of a training step must compute (tiles.cuh), for any size, split and schedule.

As in cuda_cases.py: buffers are exactly as large as a kernel may touch, outputs start as NaN, the reference is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.functions.program import Program
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.pieces import Layer, Output, StepPieces, print_pieces
from bpcore.kernels.cuda.source import tile_unit
from bpcore.kernels.cuda.tiling import count_tiles, shared_bytes, threads_of
from tests.helpers.compare import assert_close
from tests.kernels.on_host import changed

CASES = (
    *((1, 1, 1, 1), (3, 7, 5, 1), (33, 34, 10, 1), (32, 64, 65, 2), (66, 70, 31, 3), (5, 130, 8, 2), (40, 32, 36, 1)),
    *((2, 300, 3, 1), (230, 2, 3, 1)),
)
"""Samples, width below, width, splits: one, primes, one off the tiles, whole packs and ragged ones, and sums of more
stages than are on their way. In clusters, all sums are split among the blocks of one."""

TANH = bp.Activation("tanh2", "tanh(z)", "1 - h*h")


def pieces() -> StepPieces:
    """Print tanh, half the squared error on it, and momentum."""
    layer = Layer(Program({"h": TANH.value_formula}), Program({"delta": f"delta * ({TANH.derivative_formula})"}))
    output = Output(
        Program("terms = scale * 0.5 * (h - y)**2"), Program("delta = scale * (h - y) * (1 - h*h)"), "", True
    )
    rule = Program("v = mu*v + g; theta = theta - eta*v", outputs=("theta", "v"))
    return print_pieces([layer], output, rule, states=("v",), numbers=("mu", "eta"))


class Products:
    """Kernels of one dtype, shape of tiles and schedule, over one step of a network of one layer."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        rows: int = 32,
        columns: int = 32,
        together: int = 1,
        *,
        seed: int = 2,
        offset: int = 0,
        sanitize: bool = False,
        change: Sequence[str] = (),
    ) -> None:
        self.dtype, self.seed, self.offset = np.dtype(dtype), seed, offset
        self.rows, self.columns, self.together = rows, columns, together
        source = tile_unit(pieces().text, dtype, rows, columns, together)
        self.module = HostModule(changed(source, change), folder, sanitize=sanitize)
        self.rng = np.random.default_rng(5)

    def place(self, array: Any, dtype: Any = None) -> Any:
        """Copy into memory of exactly its size, `offset` elements past an address that is a multiple of 16."""
        array = np.asarray(array, self.dtype if dtype is None else dtype)
        raw = np.empty(array.size + self.offset, array.dtype)
        placed = raw[self.offset :].reshape(array.shape)
        placed[...] = array
        return placed

    def normal(self, *shape: int) -> Any:
        return self.place(self.rng.normal(size=shape))

    def blank(self, *shape: int) -> Any:
        return self.place(np.full(shape, np.nan))

    def launch(self, name: str, blocks: int, *arguments: Any) -> None:
        values = tuple(np.int64(a) if isinstance(a, int) else a for a in arguments)
        shared = shared_bytes(self.rows, self.columns, self.dtype.itemsize)
        threads = threads_of(self.rows, self.columns)
        self.module.launch(name, (blocks,), (threads,), values, seed=self.seed, shared=shared)

    def tiles(self, m: int, n: int) -> int:
        return count_tiles(m, n, self.rows, self.columns)

    def scratch(self, tiles: int, splits: int) -> tuple[Any, Any]:
        """Memory for parts of sums, which is aligned whatever else is not, and counters of arrivals."""
        size = tiles * splits * self.rows * self.columns if splits > self.together else 1
        parts = np.full(size, np.nan, self.dtype)
        return parts, np.zeros(tiles, np.uint32)


def _batch(p: Products, X: Any, Y: Any, index: Any, records: Any, numbers: Any) -> Any:
    """Lay out the table that says where the data lies; two steps are done, this is the third."""
    addresses = [array.ctypes.data for array in (X, Y)] + [0, 0]
    addresses += [index.ctypes.data, records.ctypes.data, numbers.ctypes.data, records.shape[1]]
    return np.array([*addresses, 2, 7, 0], np.int64)


def _step(p: Products, m: int, n_in: int, n: int) -> dict[str, Any]:
    """Data of a step."""
    rows = 2 * m + 1
    data = {"X": p.normal(rows, n_in), "Y": p.normal(rows, n), "records": np.full((3, 4), np.nan)}
    data["index"] = np.ascontiguousarray(p.rng.integers(0, rows, (4, m)), np.int64)
    data["numbers"] = p.place(np.tile([0.9, 0.1], (4, 1)))
    data |= {"W": p.normal(n_in, n), "b": p.normal(n)}
    data["batch"] = _batch(p, *(data[key] for key in ("X", "Y", "index", "records", "numbers")))
    return data


def _wide(array: Any) -> Any:
    return array.astype(np.float64)


def forward(p: Products, m: int, n_in: int, n: int, splits: int) -> None:
    """Forward from rows of X, and from a matrix."""
    for gathered in (True, False):
        d = _step(p, m, n_in, n)
        rows = d["X"][d["index"][3]]
        A = p.place(rows)
        Z, H = p.blank(m, n), p.blank(m, n)
        drop = (H, np.uint32(0), p.dtype.type(0), np.int32(0), np.uint32(0), np.uint32(0), np.uint32(0))
        arguments = (d["batch"], np.int32(1), np.int32(gathered), A, d["W"], d["b"], Z, H, H, np.int32(0), *drop)
        scratch = p.scratch(p.tiles(m, n), splits)
        p.launch("forward", p.tiles(m, n) * splits, *arguments, m, n_in, n, np.int32(splits), *scratch)
        expected = _wide(rows) @ _wide(d["W"]) + _wide(d["b"])
        scale = np.abs(_wide(rows)) @ np.abs(_wide(d["W"])) + 1
        assert_close(Z, expected, dtype=p.dtype, length=n_in, scale=scale)
        assert_close(H, np.tanh(_wide(Z)), dtype=p.dtype, scale=1.0)
        assert (scratch[1] == 0).all(), "the counters are not as they were"


def forward_output(p: Products, m: int, n_in: int, n: int, splits: int) -> None:
    """The last layer with loss and BP1."""
    if n > p.columns:
        return
    d = _step(p, m, n_in, n)
    A = p.normal(m, n_in)
    Z, H, Delta = p.blank(m, n), p.blank(m, n), p.blank(m, n)
    tiles = p.tiles(m, n)
    finishing = tiles * p.together
    of_block = np.full(2 * finishing, np.nan)
    p.launch(
        "forward_output",
        tiles * splits,
        *(d["batch"], np.int32(1), np.int32(0), A, d["W"], d["b"], Z, H, Delta, np.int32(0)),
        *(H, p.dtype.type(1 / m), m, n_in, n, np.int32(splits), *p.scratch(tiles, splits), of_block),
    )
    Y, h = _wide(d["Y"][d["index"][3]]), _wide(H)
    assert_close(H, np.tanh(_wide(A) @ _wide(d["W"]) + _wide(d["b"])), dtype=p.dtype, length=n_in, scale=n_in**0.5)
    assert_close(Delta, (h - Y) * (1 - h * h) / m, dtype=p.dtype, scale=np.abs(h - Y).max() / m)
    loss = 0.5 * ((h - Y) ** 2).sum() / m
    if finishing > 1:  # the loss of the rows of each block waits for the next kernel
        assert np.isnan(d["records"]).all()
        assert_close(of_block[::2].sum(keepdims=True).astype(p.dtype), np.array([loss]), dtype=p.dtype, length=m * n)
        return
    assert_close(d["records"][[0, 2], 3].astype(p.dtype), np.array([loss, m]), dtype=p.dtype, length=m * n)
    assert np.isnan(d["records"][:, :3]).all()


def backward(p: Products, m: int, n_next: int, n: int, splits: int) -> None:
    """BP2."""
    Delta_next, W, Z = p.normal(m, n_next), p.normal(n, n_next), p.normal(m, n)
    H, Delta = p.place(np.tanh(_wide(Z))), p.blank(m, n)
    arguments = (Delta_next, W, Z, H, Delta, np.int32(0), H, np.int32(0))
    scratch = p.scratch(p.tiles(m, n), splits)
    p.launch("backward", p.tiles(m, n) * splits, *arguments, m, n_next, n, np.int32(splits), *scratch)
    expected = (_wide(Delta_next) @ _wide(W).T) * (1 - _wide(H) ** 2)
    assert_close(Delta, expected, dtype=p.dtype, length=n_next, scale=np.abs(_wide(Delta_next)) @ np.abs(_wide(W)).T)


def gradient(p: Products, m: int, n_in: int, n: int, splits: int) -> None:
    """BP3, BP4 and the update, of a layer on rows of X and of one on a matrix."""
    d = _step(p, m, n_in, n)
    A, Deltas = p.normal(m, n_in), [p.normal(m, n), p.normal(m, n)]
    size = -(-n_in * n // 16) * 16
    per_layer = size + -(-n // 16) * 16
    theta, v, grad = p.normal(2 * per_layer), p.normal(2 * per_layer), p.blank(2 * per_layer)
    before, v_before = theta.copy(), v.copy()
    tiles = p.tiles(n_in + 1, n)
    table = [
        [n_in, n, l * per_layer, l * per_layer + size, A.ctypes.data * l, Deltas[l].ctypes.data, l * tiles, 0, 0]
        for l in range(2)
    ]
    states, squares = np.array([v.ctypes.data], np.int64), np.full(2 * tiles * p.together, np.nan)
    p.launch(
        "gradient",
        2 * tiles * splits,
        *(d["batch"], np.int32(1), np.array(table, np.int64), np.int32(2), theta, grad, states, grad),
        *(p.dtype.type(0), np.int32(0), m, np.int32(splits), *p.scratch(2 * tiles, splits), squares),
        *(np.arange(10.0), 5),
    )
    assert d["records"][[0, 2], 3].tolist() == [20, m]
    for l, inputs in enumerate((d["X"][d["index"][3]], A)):
        begin = l * per_layer
        for at, left in (
            (slice(begin, begin + n_in * n), _wide(inputs)),
            (slice(begin + size, begin + size + n), None),
        ):
            left = np.ones((m, 1)) if left is None else left
            expected, scale = left.T @ _wide(Deltas[l]), np.abs(left).T @ np.abs(_wide(Deltas[l]))
            assert_close(grad[at].reshape(expected.shape), expected, dtype=p.dtype, length=m, scale=scale)
            moved = 0.9 * _wide(v_before[at]) + _wide(grad[at])
            assert_close(v[at], moved, dtype=p.dtype, scale=np.abs(moved) + 1)
            assert_close(theta[at], _wide(before[at]) - 0.1 * moved, dtype=p.dtype, scale=np.abs(moved) + 1)
    gap = slice(n_in * n, size)
    assert np.isnan(grad[gap]).all()
    assert (theta[gap] == before[gap]).all()


ALL = (forward, forward_output, backward, gradient)


def run_all(products: Products) -> None:
    """Run every case for every size."""
    for case in ALL:
        for m, n_in, n, splits in CASES:
            case(products, m, n_in, n, products.together if products.together > 1 else splits)
