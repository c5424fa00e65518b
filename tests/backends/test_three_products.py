"""Products of float32 as three products of TF32: near the exact ones as the digits promise, with nothing left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore.training.wide
from bpcore.backends.cublas import WORKSPACE, Cublas
from bpcore.backends.cupy_backend import CupyBackend
from tests.backends.fake_cublas import FakeLibrary, cut_to_tf32, split_into_tf32

SHAPES = ((1, 1, 1), (3, 7, 5), (64, 64, 64), (33, 130, 17), (128, 96, 260))


class ThreeProducts:
    """An own handle of cuBLAS on some backend."""

    def __init__(self, be: CupyBackend) -> None:
        self.be = be
        wide: Any = bpcore.training.wide  # the stand-in is put there
        self.cublas = Cublas(wide.load_cublas(be.xp), be.empty(WORKSPACE, np.uint8))
        self.cublas.use_stream(be.gpu.current_stream())
        # the stand-in rounds each product once; on a device sums are rounded at each term, and may be cut off
        self.rounds_once = isinstance(self.cublas._library, FakeLibrary)

    def multiply(self, A: Any, B: Any, **transposed: bool) -> Any:
        be = self.be
        shape = (A.shape[transposed.get("transpose_a", False)], B.shape[1 - transposed.get("transpose_b", False)])
        out = be.asarray(np.full(shape, np.nan, np.float32))  # what was there before is not read
        pairs = [tuple(be.asarray(part) for part in split_into_tf32(X)) for X in (A, B)]
        self.cublas.multiply(pairs[0], pairs[1], out, "tf32x3", **transposed)
        return be.to_numpy(out)

    def bound(self, k: int) -> float:
        """How far the sum of k terms may be from the exact one, as a share of the sum of their absolute values.

        Tensor cores read the rest of a number to its last digit but one, 2**-23 of the number, of either factor; the
        product of two rests, each at most 2**-11 of its number, is left out. Then the sums are rounded.
        """
        return 1.001 * (2 * 2.0**-23 + 2.0**-22 + (2.0**-24 if self.rounds_once else (k + 2) * 2.0**-23))


@pytest.fixture
def products(cupy_backend: CupyBackend) -> ThreeProducts:
    return ThreeProducts(cupy_backend)


def numbers(kind: str, *shape: int) -> Any:
    """Numbers whose rests are what chance gives, or as large as they can be and all of one sign."""
    rng = np.random.default_rng(3)
    if kind == "random":
        return (rng.normal(size=shape) * np.exp2(rng.integers(-12, 12, shape))).astype(np.float32)
    # ten bits of fraction, and nearly one half of the last of them
    return (1 + rng.integers(0, 1023, shape) * 2.0**-10 + rng.integers(4000, 4095, shape) * 2.0**-23).astype(np.float32)


def error(found: Any, A: Any, B: Any) -> float:
    """Largest error as a share of the sum of the absolute values."""
    A, B = A.astype(np.float64), B.astype(np.float64)
    return float((np.abs(found - A @ B) / (np.abs(A) @ np.abs(B))).max())


@pytest.mark.parametrize("kind", ["random", "one sign"])
@pytest.mark.parametrize("transposed", ["neither", "A", "B"])
def test_near_the_exact_product(products: ThreeProducts, kind: str, transposed: str) -> None:
    for m, k, n in SHAPES:
        A, B = numbers(kind, m, k), numbers(kind, k, n)
        left, right = (np.ascontiguousarray(A.T), B) if transposed == "A" else (A, B)
        right = np.ascontiguousarray(B.T) if transposed == "B" else right
        found = products.multiply(left, right, transpose_a=transposed == "A", transpose_b=transposed == "B")
        assert error(found, A, B) <= products.bound(k)


def test_hardware_that_cuts_off_is_as_near(fake_backend: CupyBackend) -> None:
    products: Any = ThreeProducts(fake_backend)
    products.cublas._library.rounds = cut_to_tf32
    for kind in ("random", "one sign"):
        A, B = numbers(kind, 33, 130), numbers(kind, 130, 17)
        assert error(products.multiply(A, B), A, B) <= products.bound(130)


def test_as_good_as_float32(fake_backend: CupyBackend) -> None:
    """Sums in float32 are further away, where many terms are added up."""
    A, B = numbers("random", 64, 512), numbers("random", 512, 64)
    running = np.zeros((64, 64), np.float32)
    for k in range(512):
        running += np.outer(A[:, k], B[k])
    assert error(ThreeProducts(fake_backend).multiply(A, B), A, B) < error(running, A, B)


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_a_product_that_is_missing_is_found(
    cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, dropped: int
) -> None:
    """Without one of them the error is far beyond the bound, with numbers of either kind."""
    all_of_it, calls = Cublas._multiply, [0]

    def forgetful(self: Any, *matrices: Any, **how: Any) -> None:
        if calls[0] != dropped:
            all_of_it(self, *matrices, **how | {"adds": calls[0] > (dropped == 0)})
        calls[0] += 1

    monkeypatch.setattr(Cublas, "_multiply", forgetful)
    products = ThreeProducts(cupy_backend)
    for kind in ("random", "one sign"):
        calls[0] = 0
        A, B = numbers(kind, 64, 64), numbers(kind, 64, 64)
        assert error(products.multiply(A, B), A, B) > 10 * products.bound(64)


def test_infinities_and_large_numbers(products: ThreeProducts) -> None:
    """An infinity stays one, also where it meets a number of few digits, whose rest is 0; large floats are finite."""
    largest = np.finfo(np.float32).max
    A = np.array([[np.inf, 1, 2], [-np.inf, 0.1, 3], [largest, 0, 0], [np.nan, 1, 1], [1, 2, 3]], np.float32)
    B = np.array([[0.5, -0.3, 0], [1, 1, 1], [2, 1, 0.7]], np.float32)
    with np.errstate(invalid="ignore"):
        wanted = A.astype(np.float64) @ B.astype(np.float64)
        found = products.multiply(A, B)
        mirrored = products.multiply(np.ascontiguousarray(B.T), np.ascontiguousarray(A.T)).T
    for result in (found, mirrored):
        np.testing.assert_allclose(result, wanted, rtol=2.0**-20)
