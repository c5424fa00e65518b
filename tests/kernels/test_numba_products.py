"""Matrix products of compiled loops against float64 NumPy, in the three orientations that training needs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore.kernels.numba import products, vectors
from tests.helpers.compare import assert_close, assert_same_bits

# around the heights of a tile, the widths of one and two vectors (4 to 16 numbers), the blocks of rows and terms
ROWS = (1, 2, 3, 5, 6, 7, 12, 13, 241)
TERMS = (1, 2, 7, 16, 64, 65, 128, 129, 257)
COLUMNS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 30, 33, 64, 100, 256, 300)
ORIENTATIONS = ("H @ W", "Delta @ W.T", "H.T @ Delta")
GAP = 5
"""Numbers before and after each matrix that must not be read into a result or written."""


class Operand:
    """A matrix somewhere in a vector, its surroundings NaN."""

    def __init__(self, M: Any, transposed: bool = False) -> None:
        self.flat = np.full(M.size + 2 * GAP, np.nan, M.dtype)
        self.flat[GAP : GAP + M.size] = (M.T if transposed else M).ravel()
        self.strides = (1, M.shape[0]) if transposed else (M.shape[1], 1)


def product(orientation: str, A: Any, B: Any, bias: Any = None, blas: int = 0) -> Any:
    """Return A @ B + bias from the kernel; A or B is stored transposed where the orientation says so."""
    (m, k), n = A.shape, B.shape[1]
    a, b = Operand(A, orientation == "H.T @ Delta"), Operand(B, orientation == "Delta @ W.T")
    C = np.full(m * n + 2 * GAP, np.nan, A.dtype)
    D = a.flat if bias is None else np.concatenate([np.full(GAP, np.nan, A.dtype), bias])
    scratch = np.full(products.scratch_size(A.dtype.itemsize), np.nan, A.dtype)
    products.multiply[A.dtype](
        *(a.flat, GAP, *a.strides, b.flat, GAP, *b.strides, C, GAP, n),
        *(D, -1 if bias is None else GAP, m, k, n, vectors.width(A.dtype.itemsize), scratch, blas),
    )
    assert np.isnan(C[:GAP]).all()
    assert np.isnan(C[GAP + m * n :]).all()
    return C[GAP : GAP + m * n].reshape(m, n)


def factors(m: int, k: int, n: int, dtype: Any, rng: np.random.Generator) -> Any:
    A, B, bias = rng.normal(size=(m, k)), rng.normal(size=(k, n)), rng.normal(size=n)
    return A.astype(dtype), B.astype(dtype), bias.astype(dtype)


def check(orientation: str, m: int, k: int, n: int, dtype: Any, rng: np.random.Generator, blas: int = 0) -> None:
    A, B, bias = factors(m, k, n, dtype, rng)
    exact = A.astype(np.float64) @ B.astype(np.float64)
    for added in (None, bias):
        found = product(orientation, A, B, added, blas)
        expected = exact if added is None else exact + added
        # a single column or row has no neighbours from whose size the rounding of a sum that cancels could be read
        scale = np.maximum(np.abs(expected), np.sqrt(k))
        assert_close(found, expected, dtype=dtype, length=k + 1, scale=scale)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("m", ROWS)
def test_products(orientation: str, m: int, dtype: Any, rng: np.random.Generator) -> None:
    for k in TERMS:
        for n in COLUMNS:
            check(orientation, m, k, n, dtype, rng)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_products_of_wide_layers(orientation: str, dtype: Any, rng: np.random.Generator) -> None:
    """Blocks of A are copied there."""
    for m, k in ((1, 300), (5, 129), (13, 130), (250, 300)):
        check(orientation, m, k, products.WIDE + 5, dtype, rng)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_products_by_blas(orientation: str, dtype: Any, rng: np.random.Generator) -> None:
    address = products.gemm_address(dtype)
    assert address != 0
    for m, k, n in ((1, 5, 7), (2, 3, 4), (33, 1, 5), (33, 17, 1), (64, 100, 30), (5, 300, 41)):
        check(orientation, m, k, n, dtype, rng, address)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_reference_of_the_kernel(orientation: str, dtype: Any, rng: np.random.Generator) -> None:
    """What multiplies where nothing is compiled computes the same."""
    A, B, bias = factors(7, 9, 11, dtype, rng)
    a, b = Operand(A, orientation == "H.T @ Delta"), Operand(B, orientation == "Delta @ W.T")
    C = np.zeros(77, dtype)
    reference: Any = products.reference
    reference(a.flat, GAP, *a.strides, b.flat, GAP, *b.strides, C, 0, 11, bias, 0, 7, 9, 11, 0, C, 0)
    assert_close(C.reshape(7, 11), A.astype(np.float64) @ B + bias, dtype=dtype, length=9, scale=3.0)


@pytest.mark.parametrize("blas", [False, True])
@pytest.mark.parametrize("orientation", ["H @ W", "Delta @ W.T"])
@pytest.mark.parametrize("m", [1, 2, 13, 250])
def test_some_columns_of_a_wider_result(
    m: int, orientation: str, blas: bool, dtype: Any, rng: np.random.Generator
) -> None:
    """Members of a team share a product by columns: what lies beside theirs is not touched."""
    w = vectors.width(dtype.itemsize)
    k, first, n, row = 300, 5, 3 * w + 2, 3 * w + 20
    A, B, bias = factors(m, k, n, dtype, rng)
    a, b = Operand(A), Operand(B, orientation == "Delta @ W.T")
    C, scratch = np.full((m, row), np.nan, dtype), np.empty(products.scratch_size(dtype.itemsize), dtype)
    address = products.gemm_address(dtype) if blas else 0
    products.kernel(dtype)(
        *(a.flat, GAP, *a.strides, b.flat, GAP, *b.strides, C.reshape(-1), first, row),
        *(bias, 0, m, k, n, w, scratch, address),
    )
    exact = A.astype(np.float64) @ B.astype(np.float64) + bias
    scale = np.abs(A.astype(np.float64)) @ np.abs(B) + np.abs(bias)
    assert_close(np.ascontiguousarray(C[:, first : first + n]), exact, dtype=dtype, length=k, scale=scale)
    assert np.isnan(C[:, :first]).all()
    assert np.isnan(C[:, first + n :]).all()


@pytest.mark.parametrize("n", [16, 17, 40, 100])
def test_a_row_of_dW_does_not_depend_on_who_computes_it(n: int, dtype: Any, rng: np.random.Generator) -> None:
    """Threads compute different rows of dW: however it is cut, six rows at a time, the bits are the same."""
    Delta = rng.normal(size=(50, n)).astype(dtype)
    H = rng.normal(size=(50, 24)).astype(dtype)
    whole = product("H.T @ Delta", H.T, Delta)
    halves = [product("H.T @ Delta", H[:, part].T, Delta) for part in (slice(0, 12), slice(12, 24))]
    assert_same_bits(np.concatenate(halves), whole)


def test_not_a_number_and_infinity_reach_the_result(dtype: Any) -> None:
    for m, n in ((1, 40), (1, 3), (9, 40), (9, 3), (9, 1)):
        A, B = np.ones((m, 8), dtype), np.ones((8, n), dtype)
        A[0, 3], B[5, 0] = np.nan, np.inf
        found = product("H @ W", A, B)
        assert np.isnan(found[0]).all()
        assert np.isinf(found[1:, 0]).all()
        assert (found[1:, 1:] == 8).all()


GUARDED = """
import ctypes, mmap
import numpy as np
from bpcore.kernels.numba import products, vectors

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    '''A matrix whose last number is the last of a page; the next page may not be touched.'''

    def __init__(self, size, dtype):
        room = -(-size * dtype.itemsize // PAGE) * PAGE
        self.memory = mmap.mmap(-1, room + PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        assert libc.mprotect(ctypes.c_void_p(address + room), PAGE, 0) == 0, ctypes.get_errno()
        whole = np.frombuffer(self.memory, dtype, room // dtype.itemsize)
        self.flat = whole[whole.size - size :]
        self.flat[:] = 1


for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
    w = vectors.width(dtype.itemsize)
    scratch = Guarded(products.scratch_size(dtype.itemsize), dtype)
    bias = {n: Guarded(n, dtype) for n in (1, 2, 7, 9, 15, 17, 33, 150, 700)}
    for m in (1, 2, 5, 6, 13, 17):
        for k in (1, 3, 9, 17, 65, 130, 260):
            for n in bias:
                A, B, C = (Guarded(size, dtype) for size in (m * k, k * n, m * n))
                for a, b in (((k, 1), (n, 1)), ((k, 1), (1, k)), ((1, m), (n, 1))):
                    C.flat[:] = 0
                    places = (A.flat, 0, *a, B.flat, 0, *b, C.flat, 0, n, bias[n].flat, 0)
                    products.multiply[dtype](*places, m, k, n, w, scratch.flat, 0)
                    assert (C.flat == k + 1).all(), (m, k, n)
print("done")
"""


@pytest.mark.skipif(os.name != "posix", reason="pages are protected through POSIX")
def test_nothing_beyond_a_matrix_is_touched() -> None:
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


SCRIPT = """
import numpy as np
from tests.kernels.test_numba_products import COLUMNS, ORIENTATIONS, check
from bpcore.kernels.numba.vectors import width
rng = np.random.default_rng(1)
for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
    for orientation in ORIENTATIONS:
        for m in (1, 2, 7, 13):
            for k in (1, 7, 33, 257):
                for n in COLUMNS:
                    check(orientation, m, k, n, dtype, rng)
print(width(4))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("processor", "numbers"), [("x86-64-v3", 8), ("x86-64", 4)])
def test_products_on_processors_with_shorter_vectors(processor: str, numbers: int) -> None:
    import llvmlite.binding as llvm

    if not llvm.get_process_triple().startswith("x86_64") or not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("these processors can be played by an x86 with AVX2 only")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == numbers
