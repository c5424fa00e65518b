"""What is particular to the NumPy backend: blocks, memory kept between calls, threads, messages."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from bpcore.backends.numpy_backend import BLOCK, MAX_VIEWS, NumpyBackend
from bpcore.errors import BpcoreError, ShapeError
from bpcore.functions.program import Program
from bpcore.random import Purpose
from tests.helpers.compare import assert_close, assert_same_bits

PLUS = Program("h = z + w", name="plus")
LONG = Program("t = exp(-z*z) + w; u = where(t > s, t, sqrt(abs(z))); h = t*u - k; v = t + u", outputs=("h", "v"))


def reference(z, w, s, k):
    z, w = z.astype(np.float64), w.astype(np.float64)
    t = np.exp(-z * z) + w
    u = np.where(t > s, t, np.sqrt(np.abs(z)))
    return t * u - k, t + u


# ------------------------------------------------------------------------------------------------ blocks


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])
def test_vectors_around_the_block_size(size, dtype, rng):
    z, w = rng.normal(size=(2, size)).astype(dtype)
    outs = np.empty((2, size), dtype)
    NumpyBackend().elementwise(LONG, out=(outs[0], outs[1]), z=z, w=w, s=0.25, k=2)
    for found, expected in zip(outs, reference(z, w, 0.25, 2), strict=True):
        assert_close(found, expected, dtype=dtype, scale=np.abs(expected) + 4)


@pytest.mark.parametrize(
    "shape", [(1, BLOCK + 1), (BLOCK + 1, 1), (2, BLOCK), (3, BLOCK + 5), (BLOCK // 8 + 1, 8), (129, 65), (90, 91)]
)
@pytest.mark.parametrize("kind", ["row", "row1", "column", "one", "full", "vector of a square"])
def test_broadcast_arguments_over_several_blocks(shape, kind, dtype, rng):
    m, n = shape
    if kind == "vector of a square":
        m = n = 91  # (n,) is a row here, never a column
    sizes = {"row": (n,), "row1": (1, n), "column": (m, 1), "one": (1,), "full": (m, n)}
    z, w = rng.normal(size=(m, n)).astype(dtype), rng.normal(size=sizes.get(kind, (n,))).astype(dtype)
    outs = np.empty((2, m, n), dtype)
    NumpyBackend().elementwise(LONG, out=(outs[0], outs[1]), z=z, w=w, s=0.25, k=2)
    for found, expected in zip(outs, reference(z, w, 0.25, 2), strict=True):
        assert_close(found, expected, dtype=dtype, scale=np.abs(expected) + 4)


def test_blocks_do_not_change_the_bits(dtype, rng):
    """Elements that lie in different blocks of a large array are computed as they are alone."""
    z, w = rng.normal(size=(2, 2 * BLOCK + 100)).astype(dtype)
    whole = np.empty_like(z)
    backend = NumpyBackend()
    program = Program("h = (z + w) * z - w / (1 + z*z)")
    backend.elementwise(program, out=whole, z=z, w=w)
    for start in (0, BLOCK - 3, BLOCK, 2 * BLOCK - 1, 2 * BLOCK + 50):
        part = np.empty(20, dtype)
        backend.elementwise(program, out=part, z=z[start : start + 20].copy(), w=w[start : start + 20].copy())
        assert_same_bits(part, whole[start : start + 20].copy())


def test_in_place_over_several_blocks(dtype, rng):
    z = rng.normal(size=(300, 100)).astype(dtype)
    expected = np.tanh(z.astype(np.float64)) * 2 + z
    found = z.copy()
    assert NumpyBackend().elementwise(Program("z = 2*tanh(z) + z"), out=found, z=found) is found
    assert_close(found, expected, dtype=dtype)


def test_more_shapes_than_are_remembered(dtype):
    backend = NumpyBackend()
    program = Program("h = exp(z) + exp(2*z)")
    for n in range(1, MAX_VIEWS + 50):
        out = np.empty(n, dtype)
        backend.elementwise(program, out=out, z=np.zeros(n, dtype))
        assert out[0] == 2.0
        assert out[-1] == 2.0


def test_a_small_call_after_a_large_one_and_back(dtype, rng):
    backend = NumpyBackend()
    for size in (10, BLOCK + 3, 7, 3 * BLOCK, 10, 1):
        z, w = rng.normal(size=(2, size)).astype(dtype)
        outs = np.empty((2, size), dtype)
        backend.elementwise(LONG, out=(outs[0], outs[1]), z=z, w=w, s=0.0, k=0.5)
        expected = reference(z, w, 0.0, 0.5)
        assert_close(outs[0], expected[0], dtype=dtype, scale=np.abs(expected[0]) + 4)


def test_dtypes_alternate_on_one_backend(rng):
    backend = NumpyBackend()
    z, w = rng.normal(size=(2, 500))
    for dtype in (np.float32, np.float64, np.float32):
        outs = np.empty((2, 500), dtype)
        backend.elementwise(LONG, out=(outs[0], outs[1]), z=z.astype(dtype), w=w.astype(dtype), s=0.0, k=0.5)
        expected = reference(z.astype(dtype), w.astype(dtype), 0.0, 0.5)
        assert_close(outs[1], expected[1], dtype=dtype, scale=np.abs(expected[1]) + 4)


# ------------------------------------------------------------------------------------------------ allocation


def every_operation(backend, dtype, shape):
    """One call of each operation, as functions of nothing, on arrays made beforehand."""
    m, n = shape
    rng = np.random.default_rng(1)
    Z, G, out = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    W = rng.normal(size=(n, 16)).astype(dtype)
    product, row, one = np.empty((m, 16), dtype), np.empty(n, dtype), np.empty(1)
    index, labels, hits = rng.integers(0, m, m), rng.integers(0, n, m), np.empty(m, dtype)
    bits, b = np.empty(m * n, np.uint32), rng.normal(size=n).astype(dtype)
    extra = np.empty(shape, dtype)
    return {
        "matmul": lambda: backend.matmul(Z, W, product),
        "elementwise": lambda: backend.elementwise(LONG, out=(out, extra), z=Z, w=b, s=0.5, k=1.0),
        "column_sums": lambda: backend.column_sums(Z, row),
        "total": lambda: backend.total(Z, one),
        "sum_squares": lambda: backend.sum_squares(Z, one),
        "all_finite": lambda: backend.all_finite(Z),
        "softmax": lambda: backend.softmax(Z, out),
        "log_softmax": lambda: backend.log_softmax(Z, out),
        "backprop_softmax": lambda: backend.backprop_softmax(G, Z, out),
        "backprop_log_softmax": lambda: backend.backprop_log_softmax(G, Z, out),
        "take_rows": lambda: backend.take_rows(Z, index, out),
        "row_hits": lambda: backend.row_hits(Z, labels, 0.5, hits),
        "random_bits": lambda: backend.random_bits(bits, seed=1, purpose=Purpose.USER, step=3, layer=1),
        "dropout_mask": lambda: backend.dropout_mask(out, rate=0.5, seed=1, step=2, layer=3),
        "copy": lambda: backend.copy(Z, out),
        "fill": lambda: backend.fill(out, 0.5),
    }


@pytest.mark.parametrize("name", every_operation(NumpyBackend(), np.float32, (3, 2)))
@pytest.mark.parametrize("shape", [(2048, 64), (331, 397)])
def test_no_array_is_allocated_after_the_first_call(name, shape, dtype):
    backend = NumpyBackend()
    call = every_operation(backend, dtype, shape)[name]
    call()
    call()
    tracemalloc.start()
    try:
        call()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        call()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # NumPy buffers casting and broadcasting ufuncs in pieces of 8192 elements, whatever the size of the array; an
    # array of this shape is several times as large
    assert peak < 2.5 * 8192 * 8 < 0.4 * shape[0] * shape[1] * dtype.itemsize, f"{name} allocated {peak} bytes"


def test_scratch_memory_does_not_grow_with_the_array(rng):
    """An element-wise call on a large array keeps registers of one block."""
    backend = NumpyBackend()
    z, w = rng.normal(size=(2, 40 * BLOCK)).astype(np.float32)
    outs = np.empty((2, z.size), np.float32)
    tracemalloc.start()
    try:
        backend.elementwise(LONG, out=(outs[0], outs[1]), z=z, w=w, s=0.0, k=0.5)
        kept = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # a handful of registers of 32 KiB, against 1.25 MiB for one array
    assert kept < 12 * BLOCK * 4


# ------------------------------------------------------------------------------------------------ threads


def test_many_threads_on_one_backend_get_the_results_of_one(dtype):
    backend = NumpyBackend()
    shapes = [(40, 30), (7, 5), (130, 70), (1, 9)]

    def work(seed):
        results = []
        rng = np.random.default_rng(seed)
        for k in range(40):
            shape = shapes[(seed + k) % len(shapes)]
            Z, H = rng.normal(size=shape).astype(dtype), np.empty(shape, dtype)
            V = np.empty(shape, dtype)
            backend.elementwise(LONG, out=(H, V), z=Z, w=Z, s=0.1 * seed, k=k)
            backend.log_softmax(H, H)
            backend.backprop_softmax(Z, V, V)
            results += [H.copy(), V.copy(), backend.sum_squares(V, np.empty(1)).copy()]
            results.append(backend.dropout_mask(H, rate=0.5, seed=seed, step=k, layer=1).copy())
        return results

    expected = [work(seed) for seed in range(8)]
    found: dict[int, list] = {}
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def run(seed):
        try:
            barrier.wait(timeout=30)
            found[seed] = work(seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not errors
    for seed in range(8):
        for mine, theirs in zip(found[seed], expected[seed], strict=True):
            assert_same_bits(mine, theirs)


def test_threads_may_compile_the_same_program_at_once(dtype):
    for round_ in range(20):
        backend = NumpyBackend()
        program = Program(f"h = exp(z) * {round_} + tanh(z)*tanh(z)")
        z = np.linspace(-1, 1, 50).astype(dtype)
        results: list[np.ndarray] = []
        barrier = threading.Barrier(4)

        def run(backend=backend, program=program, barrier=barrier, results=results, z=z):
            barrier.wait(timeout=30)
            results.append(backend.elementwise(program, out=np.empty_like(z), z=z))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(results) == 4
        for result in results[1:]:
            assert_same_bits(result, results[0])


# ------------------------------------------------------------------------------------------------ messages


@pytest.fixture
def arrays(dtype):
    return {"z": np.zeros((3, 4), dtype), "w": np.zeros((3, 4), dtype), "out": np.zeros((3, 4), dtype)}


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "after a right call"])
def test_a_missing_argument_is_named(arrays, warm):
    backend = NumpyBackend()
    if warm:
        backend.elementwise(PLUS, **arrays)
    with pytest.raises(ShapeError, match="plus: no value for w; it needs z, w"):
        backend.elementwise(PLUS, out=arrays["out"], z=arrays["z"])


def test_a_foreign_dtype_is_named(arrays, dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    with pytest.raises(ShapeError, match=f"plus: w is {np.dtype(other)}, but the result is {dtype}; convert one"):
        NumpyBackend().elementwise(PLUS, **{**arrays, "w": np.zeros((3, 4), other)})


@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 4), (4, 1), (12,)])
def test_a_wrong_shape_is_named_with_those_that_fit(arrays, dtype, shape):
    possible = r"possible: \(3, 4\), \(4,\), \(1, 4\), \(3, 1\) or one element"
    with pytest.raises(ShapeError, match=rf"plus: w has shape .*does not fit a result of shape \(3, 4\); {possible}"):
        NumpyBackend().elementwise(PLUS, **{**arrays, "w": np.zeros(shape, dtype)})


def test_outputs_that_differ_are_named(arrays, dtype):
    two = Program("h = z + w; k = z - w", name="two")
    with pytest.raises(ShapeError, match=rf"two: k is {dtype} \(4, 3\); expected {dtype} \(3, 4\)"):
        NumpyBackend().elementwise(two, **{**arrays, "out": (arrays["out"], np.zeros((4, 3), dtype))})
    with pytest.raises(ShapeError, match="two: 1 arrays given for the outputs h, k"):
        NumpyBackend().elementwise(two, **arrays)


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (
            "matmul",
            [(3, 4), (3, 5), (3, 5)],
            r"matmul: A \(3, 4\) and B \(3, 5\) do not fit; expected \(m, k\) and \(k, n\)",
        ),
        ("matmul", [(3, 4), (4, 5), (5, 3)], r"matmul: out is float32 \(5, 3\); expected float32 \(3, 5\)"),
        ("softmax", [(3, 1), (3, 4)], r"softmax: out is float32 \(3, 4\); expected float32 \(3, 1\)"),
        ("log_softmax", [(1, 4), (3, 4)], r"log_softmax: out is float32 \(3, 4\); expected float32 \(1, 4\)"),
        (
            "backprop_softmax",
            [(3, 4), (1, 4), (3, 4)],
            r"backprop_softmax: H is float32 \(1, 4\); expected float32 \(3, 4\)",
        ),
        ("backprop_log_softmax", [(3, 4), (3, 4), (4, 3)], r"backprop_log_softmax: out is .*expected float32 \(3, 4\)"),
        ("column_sums", [(3, 4), (3,)], r"column_sums: out is float32 \(3,\); expected float32 \(4,\)"),
        ("total", [(3, 4), (1,)], r"total: out is float32 \(1,\); expected float64 \(1,\)"),
        ("sum_squares", [(3, 4), (1,)], r"sum_squares: out is float32 \(1,\); expected float64 \(1,\)"),
    ],
)
def test_operations_name_what_does_not_fit(op, shapes, message):
    with pytest.raises(ShapeError, match=message):
        getattr(NumpyBackend(), op)(*(np.zeros(shape, np.float32) for shape in shapes))


@pytest.mark.parametrize("wrong", [None, "1", [[1.0] * 4] * 3, object()])
def test_what_is_neither_number_nor_array_is_refused(arrays, wrong):
    with pytest.raises((BpcoreError, TypeError)):
        NumpyBackend().elementwise(PLUS, **{**arrays, "w": wrong})


def test_a_read_only_output_is_refused_and_unchanged(arrays):
    arrays["out"].flags.writeable = False
    with pytest.raises((BpcoreError, ValueError), match="read-only"):
        NumpyBackend().elementwise(PLUS, **{**arrays, "w": 1.0})
    assert (arrays["out"] == 0).all()


def test_numbers_that_overflow_are_silent(dtype):
    """Overflow is for the engine to notice (it names step and layer), not for NumPy to warn about."""
    huge = np.full((2, 3), np.finfo(dtype).max, dtype)
    backend = NumpyBackend()
    assert np.isinf(backend.elementwise(Program("h = z*z"), out=np.empty_like(huge), z=huge)).all()
    assert np.isnan(backend.elementwise(Program("h = z/w - z/w"), out=np.empty_like(huge), z=huge, w=0.0)).all()
    bad = np.array([[np.inf, -np.inf, np.nan]], dtype)
    for op in ("softmax", "log_softmax"):
        getattr(backend, op)(bad, np.empty_like(bad))
    for op in ("backprop_softmax", "backprop_log_softmax"):
        getattr(backend, op)(bad, huge[:1], np.empty_like(bad))
    backend.matmul(np.full((2, 2), np.inf, dtype), np.array([[1, -1], [-1, 1]], dtype), np.empty((2, 2), dtype))
    backend.column_sums(np.array([[np.inf], [-np.inf]], dtype), np.empty(1, dtype))
    backend.total(bad, np.empty(1))
    backend.sum_squares(bad, np.empty(1))


def test_probe_and_description():
    probe = NumpyBackend.probe()
    assert probe.usable
    assert np.__version__ in probe.reason
    facts = NumpyBackend().describe()
    assert facts["numpy"] == np.__version__
    assert facts["blas"], "NumPy's BLAS was not found"
    assert repr(NumpyBackend()) == "<backend numpy on cpu>"
