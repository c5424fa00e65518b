"""The Numba backend as a whole: probing, plans, refusals, interpreted mode, allocation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from bpcore.backends import numba_backend as numba_backend_module
from bpcore.backends.contract import native_operations
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.errors import ShapeError
from bpcore.functions.program import Program
from tests.helpers.compare import assert_close

needs_numba = pytest.mark.skipif(not NumbaBackend.probe().usable, reason=NumbaBackend.probe().reason)
RELU = Program("h = max(z, 0)", name="relu")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False)


def test_probing_imports_nothing() -> None:
    done = run_python(
        "import sys; from bpcore.backends.numba_backend import NumbaBackend; print(NumbaBackend.probe());"
        "assert 'numba' not in sys.modules and 'llvmlite' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_probe_when_numba_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    probe = NumbaBackend.probe()
    assert (probe.usable, probe.reason, probe.repair) == (False, "Numba is not installed", "pip install numba")


def test_probe_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ValueError("numba.__spec__ is None")

    monkeypatch.setattr("importlib.util.find_spec", broken)
    probe = NumbaBackend.probe()
    assert not probe.usable
    assert "ValueError: numba.__spec__ is None" in probe.reason


def test_an_import_that_fails_is_remembered() -> None:
    code = """
import sys
sys.modules["numba"] = None
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.errors import BackendError
try:
    NumbaBackend()
except BackendError as error:
    print(error)
print(NumbaBackend.import_error)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("Numba is installed but cannot be imported (ModuleNotFoundError")
    assert second.startswith("ModuleNotFoundError")


def test_probe_tells_of_the_failed_import(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(NumbaBackend, "import_error", "ImportError: Numba needs NumPy 2.3 or less")
    probe = NumbaBackend.probe()
    assert not probe.usable
    assert "cannot be imported (ImportError: Numba needs NumPy 2.3 or less)" in probe.reason
    assert probe.repair == "pip install --upgrade numba"


INTERPRETED = """
import numpy as np
import warnings
warnings.simplefilter("error")
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.functions.program import Program
a, b = NumbaBackend(), NumpyBackend()
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    Z = rng.normal(0, 50, size=(6, 5)).astype(dtype)
    Z[0, 0] = np.inf
    row = rng.normal(size=5).astype(dtype)
    program = Program("h = sigmoid(z + row) * (1 - c) + softplus(-z) + erf(z) + max(z, 0) + log1p(exp(-abs(z)))")
    found, wanted = np.empty_like(Z), np.empty_like(Z)
    a.elementwise(program, out=found, z=Z, row=row, c=0.25)
    b.elementwise(program, out=wanted, z=Z, row=row, c=0.25)
    np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == np.float32 else 1e-13)
    Z[0, 0] = 1
    for name in ("softmax", "log_softmax"):
        np.testing.assert_allclose(getattr(a, name)(Z, found), getattr(b, name)(Z, wanted), rtol=1e-5)
    np.testing.assert_allclose(
        a.column_sums(Z, np.empty(5, dtype)), b.column_sums(Z, np.empty(5, dtype)), rtol=1e-4)
    mask = a.dropout_mask(np.empty((6, 5), dtype), rate=0.3, seed=2**63, step=2**40, layer=2)
    np.testing.assert_array_equal(
        mask, b.dropout_mask(np.empty((6, 5), dtype), rate=0.3, seed=2**63, step=2**40, layer=2))
    assert a.all_finite(Z)
    np.testing.assert_array_equal(a.take_rows(Z, np.array([2, 0]), np.empty((2, 5), dtype)), Z[[2, 0]])
print(a.describe()["compiles"])
"""


@needs_numba
def test_right_without_compilation() -> None:
    done = run_python(INTERPRETED, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    pytest.importorskip("numba")
    return NumbaBackend()


def test_what_is_native(numba_backend: NumbaBackend) -> None:
    from bpcore.backends.ops import OPS

    assert native_operations(NumbaBackend) == set(OPS)


def test_description_is_json(numba_backend: NumbaBackend) -> None:
    facts = json.loads(json.dumps(numba_backend.describe()))
    assert set(facts["threading_layers"]) == {"tbb", "omp", "workqueue"}
    assert facts["name"] == "numba"
    assert facts["threads"] >= 1
    assert facts["cache"]


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (10, 784, 30), (7, 13, 5), (3, 0, 2), (0, 4, 2)])
def test_products(
    numba_backend: NumbaBackend,
    transpose_a: bool,
    transpose_b: bool,
    m: int,
    k: int,
    n: int,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    A = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
    B = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    A64, B64 = A.astype(np.float64), B.astype(np.float64)
    expected = np.einsum("ik,kj->ij", A64.T if transpose_a else A64, B64.T if transpose_b else B64)
    out = np.full((m, n), np.nan, dtype)
    assert numba_backend.matmul(A, B, out, transpose_a=transpose_a, transpose_b=transpose_b) is out
    assert_close(out, expected, dtype=dtype, length=max(k, 1), scale=np.sqrt(np.mean(expected**2)) if m * k else 1.0)
    wide = np.full((m, n + 3), np.nan, dtype)
    part = wide[:, :n]
    assert numba_backend.matmul(A, B, part, transpose_a=transpose_a, transpose_b=transpose_b) is part
    assert_close(
        part.copy(), expected, dtype=dtype, length=max(k, 1), scale=np.sqrt(np.mean(expected**2)) if m * k else 1.0
    )


@pytest.mark.parametrize(
    ("out", "z", "message"),
    [
        (np.empty(3), np.zeros(4), r"relu: 'z' has shape \(4,\), which does not fit a result of shape \(3,\)"),
        (np.empty((2, 3)), np.zeros(2), r"possible: \(2, 3\), \(3,\), \(1, 3\), \(2, 1\) or one element"),
        (np.empty(3), np.zeros(3, "f"), "relu: 'z' is float32 but the result is float64; convert one of them"),
        (np.empty(3, int), np.zeros(3, int), "the result is int64; possible: float32, float64"),
        (np.empty((2, 2, 2)), np.zeros(2), "the result has 3 axes; at most two are possible"),
        (np.empty(3), [1.0, 2.0, 3.0], r"got builtins.list for 'z'; bring it here with backend.asarray"),
        ([1.0], np.zeros(1), "output 'h' is list, not a NumPy array"),
        ((np.empty(1), np.empty(1)), np.zeros(1), "2 arrays for the outputs h"),
    ],
)
def test_refusals(numba_backend: NumbaBackend, out: Any, z: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        numba_backend.elementwise(RELU, out=out, z=z)


def test_missing_values_are_named(numba_backend: NumbaBackend) -> None:
    with pytest.raises(ShapeError, match="add: no value for y; it needs x, y"):
        numba_backend.elementwise(Program("h = x + y", name="add"), out=np.empty(2), x=1.0)


@pytest.mark.parametrize("warm", [False, True])
def test_read_only_outputs_are_refused_and_inputs_are_not(numba_backend: NumbaBackend, warm: bool) -> None:
    program = Program(f"h = z + {int(warm)}", name="shift")
    frozen = np.zeros(5)
    frozen.flags.writeable = False
    if warm:  # the plan for these shapes is known, and knows nothing of access rights
        numba_backend.elementwise(program, out=np.empty(5), z=np.zeros(5))
    with pytest.raises(ShapeError, match="shift: output 'h' is read-only; pass a writable array"):
        numba_backend.elementwise(program, out=frozen, z=np.zeros(5))
    assert numba_backend.elementwise(program, out=np.empty(5), z=frozen).tolist() == [float(warm)] * 5


def test_unaligned_arrays(numba_backend: NumbaBackend) -> None:
    z, out = (np.zeros(8 * 40 + 1, np.uint8)[1:].view(np.float64) for _ in range(2))
    z[:] = np.arange(40)
    assert not z.flags.aligned
    numba_backend.elementwise(Program("h = z + 1"), out=out, z=z)
    assert_close(out.copy(), np.arange(1.0, 41.0), dtype=np.float64)


def test_a_known_plan_is_not_used_for_other_shapes_or_strides(numba_backend: NumbaBackend) -> None:
    program = Program("h = z + 0.5", name="half")
    z = np.arange(12.0).reshape(3, 4)
    row = z[1:2]  # the strides of z, but one row only: reading on would be reading beyond it
    assert row.strides == z.strides
    turned = np.asfortranarray(z)
    for given in (z, row, turned, z[:, :1], z, row):
        out = numba_backend.elementwise(program, out=np.empty((3, 4)), z=given)
        assert_close(out, np.broadcast_to(given, (3, 4)) + 0.5, dtype=np.float64)


def test_inputs_are_never_modified(numba_backend: NumbaBackend) -> None:
    z, b = -np.ones((3, 4)), np.ones(4)
    numba_backend.elementwise(
        Program("z2 = z + b; z = z2; h = z"), out=(np.empty((3, 4)), np.empty((3, 4)), np.empty((3, 4))), z=z, b=b
    )
    assert (z == -1).all()
    assert (b == 1).all()


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(numba_backend_module, "MAX_PLANS", 5)
    backend = NumbaBackend()
    for n in range(1, 20):
        assert backend.elementwise(RELU, out=np.empty(n), z=np.full(n, 2.0)).tolist() == [2.0] * n
    assert len(backend._plans) <= 5


def test_threads_share_one_backend(numba_backend: NumbaBackend) -> None:
    errors = []

    def work(k: int) -> None:
        z = np.full((20, 30), float(k))
        for _ in range(50):
            h = numba_backend.elementwise(Program("h = z*z + 1"), out=np.empty((20, 30)), z=z)
            s = numba_backend.column_sums(h, np.empty(30))
            if not (s == 20 * (k * k + 1)).all():
                errors.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
