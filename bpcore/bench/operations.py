"""``bpcore bench --mode ops``: operations of the backends, each by itself, at a small, a middle and a large size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.ops import OPS
from bpcore.bench.pace import ROUNDS
from bpcore.bench.statistics import best_of, summary, verdict
from bpcore.bench.sweep import VISITS, Sweep
from bpcore.functions.program import Program
from bpcore.random import Purpose, random_bits

__all__ = ["CASES", "CSV_COLUMNS", "Case", "OperationSweep", "rows_of", "time_operation"]

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
"""How far a result may lie from the float64 reference, as a share of it, times the square root of the longest sum."""

CSV_COLUMNS: tuple[str, ...] = (
    "operation", "sizes", "contender", "status", "us_per_step", "q1", "q3", "spread", "gflops", "gb_per_second",
    "over_numpy", "why",
)  # fmt: skip

SIGMOID = Program("h = 1 / (1 + exp(-z))", name="sigmoid")
RATE, SEED = 0.5, 7
ROUND_SECONDS = 0.002, 0.02
"""The least and the most that a round takes."""


class Case(NamedTuple):
    """An operation at one size.

    Attributes
    ----------
    name : str
        In :data:`bpcore.backends.ops.OPS`.
    sizes : dict of str to int
        What the letters of its signature stand for.
    """

    name: str
    sizes: dict[str, int]


def _cases() -> list[Case]:
    found = [Case("matmul", {"m": n, "k": n, "n": n}) for n in (32, 128, 512, 2048)]
    found += [Case("matmul", {"m": m, "k": 784, "n": 128}) for m in (1, 64, 1024)]
    areas = [{"m": 64, "n": 64}, {"m": 256, "n": 512}, {"m": 4096, "n": 1024}]
    for name in OPS:
        if name == "take_rows":
            found += [Case(name, {"p": 4 * sizes["m"], **sizes}) for sizes in areas]
        elif name == "random_bits":
            found += [Case(name, {"p": sizes["m"] * sizes["n"]}) for sizes in areas]
        elif name != "matmul":
            found += [Case(name, sizes) for sizes in areas]
    return found


CASES = _cases()
"""What is measured; an element-wise operation stands for all, with the formula of the sigmoid."""


def prepare(be: Backend, case: Case, dtype: np.dtype[Any]) -> tuple[Callable[[], object], Any, Any]:
    """Return the call of an operation, the array that it fills, and what the reference fills it with."""
    s, rng = case.sizes, np.random.default_rng(5)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32).astype(dtype)

    def at(host: Any) -> Any:
        return be.asarray(host)

    name, reference = case.name, OPS[case.name].reference
    m, n = s.get("m", 0), s.get("n", 0)
    call: Callable[[], object]
    if name == "matmul":
        A, B, out = draw(m, s["k"]), draw(s["k"], n), be.empty((m, n), dtype)
        on_a, on_b = at(A), at(B)
        call = lambda: be.matmul(on_a, on_b, out=out)  # noqa: E731  (a case each, and nothing else)
        return call, out, reference(A.astype(float), B.astype(float))
    if name == "random_bits":
        out = be.empty(s["p"], np.uint32)
        call = lambda: be.random_bits(out, seed=SEED, purpose=Purpose.USER)  # noqa: E731
        return call, out, random_bits(s["p"], seed=SEED, purpose=Purpose.USER)
    if name == "dropout_mask":
        out = be.empty((m, n), dtype)
        bits = random_bits(m * n, seed=SEED, purpose=Purpose.DROPOUT, layer=2).reshape(m, n)
        call = lambda: be.dropout_mask(out, rate=RATE, seed=SEED, step=0, layer=2)  # noqa: E731
        return call, out, reference(bits, RATE)
    if name == "take_rows":
        X, index, out = draw(s["p"], n), rng.integers(0, s["p"], m), be.empty((m, n), dtype)
        on_x, on_index = at(X), at(index)
        call = lambda: be.take_rows(on_x, on_index, out=out)  # noqa: E731
        return call, out, reference(X, index)
    A = draw(m, n)
    on_a = at(A)
    if name == "row_hits":
        labels, out = rng.integers(0, n, m), be.empty(m, dtype)
        on_labels = at(labels)
        call = lambda: be.row_hits(on_a, on_labels, 0.5, out=out)  # noqa: E731
        return call, out, reference(A, labels, 0.5)
    if name == "elementwise":
        out = be.empty((m, n), dtype)
        call = lambda: be.elementwise(SIGMOID, out=out, z=on_a)  # noqa: E731
        return call, out, 1 / (1 + np.exp(-A.astype(float)))
    if name in ("backprop_softmax", "backprop_log_softmax"):
        H = OPS[name.removeprefix("backprop_")].reference(draw(m, n).astype(float)).astype(dtype)
        on_h, out = at(H), be.empty((m, n), dtype)
        function = getattr(be, name)
        call = lambda: function(on_a, on_h, out=out)  # noqa: E731
        return call, out, reference(A.astype(float), H.astype(float))
    shapes: dict[str, tuple[int | tuple[int, ...], Any]] = {
        "column_sums": (n, dtype), "total": (1, np.float64), "sum_squares": (1, np.float64),
        "softmax": ((m, n), dtype), "log_softmax": ((m, n), dtype),
    }  # fmt: skip
    shape, kind = shapes[name]
    out, function = be.empty(shape, kind), getattr(be, name)
    call = lambda: function(on_a, out=out)  # noqa: E731
    return call, out, reference(A.astype(float))


def time_operation(
    be: Backend, name: str, sizes: dict[str, int], dtype: np.dtype[Any], seconds: float, rounds: int
) -> dict[str, Any]:
    """Time an operation, and compare what it computes with the reference.

    Parameters
    ----------
    be : Backend
        Whose operation.
    name, sizes
        As in :class:`Case`.
    dtype : dtype
        Of its arrays.
    seconds : float
        Of a round.
    rounds : int
        How many.

    Returns
    -------
    dict
        ``seconds_per_call`` of each round, and the ``distance`` from the reference as a share of it.
    """
    call, out, expected = prepare(be, Case(name, sizes), dtype)

    def run(times: int) -> float:
        begun = time.perf_counter()
        for _ in range(times):
            call()
        be.synchronize()
        return (time.perf_counter() - begun) / times

    run(1)
    times = max(1, min(100_000, round(seconds / run(3))))
    times = max(1, min(100_000, round(seconds / run(times))))
    found = [run(times) for _ in range(rounds)]
    return {"seconds_per_call": found, "distance": distance(be.to_numpy(out), expected)}


def distance(found: Any, expected: Any) -> float | None:
    """Return how far an array is from what was expected, as a share of it; None if it does not fit at all."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return None
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / size if size else 0.0


class OperationSweep(Sweep):
    """The sweep over operations instead of networks."""

    def run(self) -> dict[str, Any]:
        """Measure all cases; return the result. Interrupted, it returns what is there."""
        visits: dict[tuple[int, str], list[list[float]]] = {}
        off: dict[tuple[int, str], float] = {}
        hindered: dict[tuple[int, str], tuple[str, str]] = {}
        left = self.settings.seconds - (time.monotonic() - self.begun)
        each = 0.5 * left / (len(CASES) * len(self.names) * VISITS * (ROUNDS + 1))
        each = min(max(each, ROUND_SECONDS[0]), ROUND_SECONDS[1])
        end, interrupted = self.begun + self.settings.seconds, False
        try:
            for number in range(VISITS):
                for k, case in enumerate(CASES):
                    self.tell(case.name)
                    first = number % len(self.names)
                    for name in self.names[first:] + self.names[:first]:
                        if (k, name) in hindered or (number and time.monotonic() > end):
                            continue
                        reply = self.crew.ask(
                            name, "operation", operation=case.name, sizes=case.sizes, seconds=each, rounds=ROUNDS
                        )
                        if reply["status"] != "ok":
                            hindered[k, name] = reply["status"], reply["why"]
                            continue
                        visits.setdefault((k, name), []).append(reply["seconds_per_call"])
                        away = math.inf if reply["distance"] is None else reply["distance"]
                        off[k, name] = max(off.get((k, name), 0.0), away)
            self._measure_peaks()
        except KeyboardInterrupt:
            interrupted = True
            self.warnings.append("interrupted: what is missing was not measured")
        return self._result(interrupted) | {
            "mode": "ops",
            "operations": [self._part(k, case, visits, off, hindered) for k, case in enumerate(CASES)],
        }

    def _part(self, k: int, case: Case, visits: Any, off: Any, hindered: Any) -> dict[str, Any]:
        op, itemsize = OPS[case.name], np.dtype(self.settings.contenders[0].precision).itemsize
        flops, moved = op.flops(case.sizes), op.elements(case.sizes) * itemsize
        dtype = self.settings.contenders[0].precision
        tolerance = TOLERANCE[dtype] * math.sqrt(max(op.reduction(case.sizes), 1))
        rows: dict[str, dict[str, Any]] = {}
        for name in self.names:
            if (k, name) in hindered or (k, name) not in visits:
                status, why = hindered.get((k, name), ("skipped", "no time was left"))
                rows[name] = {"status": status, "why": why}
                continue
            row: dict[str, Any] = {"us_per_step": summary(visits[k, name])}
            seconds = 1e-6 * row["us_per_step"]["median"]
            peak = self.crew.peaks.get(name)
            row |= {"gflops": 1e-9 * flops / seconds, "gb_per_second": 1e-9 * moved / seconds}
            row["of_peak"] = row["gflops"] / peak if peak and case.name == "matmul" else None
            row["distance"] = off[k, name] if math.isfinite(off[k, name]) else None
            row["status"], row["why"] = verdict(row)
            if off[k, name] > tolerance:
                row["status"], row["why"] = "differs", "it computes something else than the float64 reference"
            rows[name] = row
        numpy = rows.get("numpy", {}).get("us_per_step", {}).get("median")
        for row in rows.values():
            if "us_per_step" in row:
                row["over_numpy"] = numpy / row["us_per_step"]["median"] if numpy else None
        best, ties = best_of(rows)
        return {
            "name": case.name, "sizes": case.sizes, "flops": flops, "bytes": moved, "best": best, "ties": ties,
            "contenders": rows,
        }  # fmt: skip


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row for each contender at each operation."""
    found = []
    for part in result["operations"]:
        sizes = " ".join(f"{letter}={size}" for letter, size in part["sizes"].items())
        for name, row in part["contenders"].items():
            times = row.get("us_per_step", {})
            flat = {**row, "operation": part["name"], "sizes": sizes, "contender": name}
            flat["us_per_step"] = times.get("median")
            found.append(flat | {word: times.get(word) for word in ("q1", "q3", "spread")})
    return found
