"""The compiled plan against the reference path, step for step, and what it promises besides equal numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bpcore as bp
from bpcore.errors import ConfigurationError, DataError, DivergenceError, UnknownNameError
from bpcore.functions.clipping import ClipLayerNorm, ClipNorm, ClipValue
from bpcore.functions.losses import get_loss
from bpcore.functions.penalties import L1, L2, Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.problem import Problem
from bpcore.random import Purpose, random_bits
from bpcore.training import teamwork
from bpcore.training.plans import choose_plan
from bpcore.training.spec import Dropout, StepSpec
from bpcore.training.state import TrainingState
from tests.helpers.compare import assert_same_bits, tolerance
from tests.helpers.declared import BUMP, LOG_COSH, WARM

pytest.importorskip("numba")

# sizes, hidden activations, output, loss, rule, then what else the spec has; classes where the loss compares classes
POOL: list[tuple[list[int], list[Any], str, Any, UpdateRule, dict[str, Any]]] = [
    ([7, 5, 3], ["sigmoid"], "sigmoid", "quadratic", bp.SGD(0.5), {"penalty": Penalty("plain", "0.1 * w * w")}),
    ([6, 9, 4, 1], ["tanh", "relu"], "sigmoid", "binary_cross_entropy", bp.Adam(0.01), {"weighted": True}),
    ([5, 8, 8, 4], ["relu", "relu"], "softmax", "cross_entropy", bp.Momentum(0.1), {"dropout": Dropout((0.4, 0.0))}),
    (
        [5, 6, 17, 4],
        ["tanh", "softmax"],
        "softmax",
        "mse",
        bp.NAdam(0.01),
        {"dropout": Dropout(0.3, per="sample"), "penalty": L1(0.01) + L2(0.1), "clip": ClipLayerNorm(0.05)},
    ),
    ([4, 6, 2], [BUMP], "identity", LOG_COSH, WARM, {"clip": ClipNorm(0.1), "weighted": True}),
    (
        [4, 33, 2],
        ["tanh"],
        "identity",
        "mse",
        bp.AMSGrad(0.01),
        {"dropout": Dropout(0.5), "clip": ClipValue(0.02), "penalty": L2(0.1)},
    ),
    ([9, 3], [], "log_softmax", "cross_entropy", bp.SGD(0.1), {"weighted": True}),
]
SLOW_POOL: list[Any] = [
    ([6, 7, 5, 4, 3], ["gelu", "elu", "mish"], "softmax", "cross_entropy", rule, {"dropout": Dropout(0.3)})
    for rule in (bp.Nesterov(0.1), bp.Adagrad(0.1), bp.RMSprop(0.01), bp.Adadelta(), bp.AdamW(0.01), bp.Lion(0.01))
] + [
    ([6, 5, n], [activation], output, loss, bp.SGD(0.1), {})
    for activation, output, loss, n in (
        ("leaky_relu", "identity", "absolute", 2),
        ("selu", "identity", "huber", 2),
        ("gelu_tanh", "identity", "binary_cross_entropy_logits", 1),
        ("silu", "tanh", "hinge", 1),
        ("softplus", "identity", "exponential", 1),
        ("hard_sigmoid", "softmax", bp.CrossEntropy(base=2), 3),
        ("hard_tanh", "sigmoid", "mse", 3),
        ("log_softmax", "identity", "quadratic", 3),
    )
]
CLASSES = ("cross_entropy", "binary_cross_entropy", "quadratic", "hinge", "exponential")
ROWS = 40


class Case:
    """One spec with data, and the two plans, each with a network and a state of its own."""

    def __init__(
        self,
        shape: Any,
        dtype: str,
        batch_size: int = 8,
        seed: int = 0,
        rule: UpdateRule | None = None,
        threads: int = 1,
        rows: int = ROWS,
    ):
        sizes, hidden, output, loss, given_rule, others = shape
        rng = np.random.default_rng(seed)
        others, rule = dict(others), rule or given_rule
        weighted = others.pop("weighted", False)
        loss = get_loss(loss)
        X = rng.normal(size=(rows, sizes[0])).astype(dtype)
        by_class = output != "identity" and (loss.name.split("(")[0] in CLASSES)
        Y: Any = rng.random((rows, sizes[-1]))
        if by_class or loss.target_kind == "sign":
            Y = rng.integers(0, max(2, sizes[-1]), rows)
        weights = None
        if weighted:
            weights = rng.random(rows) + 0.1
            weights[:10] = 0  # whole batches of them are drawn
        self.runs: dict[str, tuple[Any, bp.MLP, TrainingState]] = {}
        self.problems: dict[str, Problem] = {}
        # a reference that shares no kernel with the plan, and has none to compile
        for name, backend in (("compiled", "numba"), ("reference", "numpy")):
            be = bp.get_backend(backend)
            net = bp.MLP(sizes, hidden or "relu", output, seed=seed, dtype=dtype, backend=be)
            problem = self.problems[name] = Problem.prepare(net, be, X, Y, loss, sample_weight=weights)
            self.spec = StepSpec(
                net.sizes,
                tuple(net.activations),
                loss,
                rule,
                batch_size,
                net.dtype,
                weighted=weighted,
                classes=problem.labels is not None,
                **others,
            )
            plan, _ = choose_plan(name, self.spec, net, be, 11, threads)
            self.runs[name] = plan, net, TrainingState.begin(be, rule, net.layout, net.dtype)

    def run(self, name: str, index: Any, eta: float = 0.05, watch: Any = None) -> Any:
        plan, _, state = self.runs[name]
        records = np.zeros((3, len(index)))
        etas = [eta / (1 + k) for k in range(len(index))]
        plan.run(self.problems[name], np.asarray(index, np.int64), state, etas, records, watch)
        return records

    def results(self, name: str) -> dict[str, Any]:
        plan, net, state = self.runs[name]
        return {"theta": net.theta, "gradient": plan.gradient, **state.arrays}


def orders(seed: int) -> tuple[Any, Any, Any]:
    """Whole batches, a partial one, and one in which all weights are zero."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, ROWS, (4, 8)), rng.integers(0, ROWS, (2, 3)), rng.integers(0, 10, (2, 8))


def compare(case: Case, seed: int, indices: Any = None) -> None:
    rtol = 1e-10
    if case.spec.dtype == np.float32:
        # eight steps, in which each product adds up some terms; momentum of small gradients adds a digit
        rtol = 10 * tolerance(np.float32, length=8 * max(33, case.spec.batch_size))
    for index in indices or orders(seed):
        found, expected = (case.run(name, index) for name in ("compiled", "reference"))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    actual, wanted = case.results("compiled"), case.results("reference")
    for name, array in wanted.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(actual[name], array, rtol=rtol, atol=rtol * scale, err_msg=name)
    (_, _, state), (_, _, expected_state) = case.runs["compiled"], case.runs["reference"]
    assert state.step == expected_state.step == 8
    assert list(state.running) == list(expected_state.running)
    np.testing.assert_allclose(list(state.running.values()), list(expected_state.running.values()), rtol=1e-13)


# float32 for some of them only: nearly all of the time is compilation
QUICK = [(shape, "float64") for shape in POOL] + [(shape, "float32") for shape in POOL[1:4]]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=st.sampled_from(QUICK), seed=st.integers(0, 2**16), threads=st.integers(1, 3))
def test_equals_the_reference(case, seed, threads):
    shape, dtype = case
    compare(Case(shape, dtype, seed=seed, threads=threads), seed)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [POOL[1], POOL[2], POOL[3]], ids=["weights", "masks", "clipping"])
def test_batches_of_several_blocks(shape, threads):
    """A thread takes a block of samples through all layers before the next; the last batch is a partial one."""
    case, rng = Case(shape, "float64", batch_size=4000, threads=threads, rows=4100), np.random.default_rng(0)
    plan = case.runs["compiled"][0]
    assert plan._block < 4000 / threads
    compare(case, 0, [rng.integers(0, 4100, (n, m)) for n, m in ((4, 4000), (3, 1601), (1, 2))])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    widths=st.lists(st.integers(1, 150), min_size=2, max_size=4),
    batch_size=st.integers(1, 90),
    threads=st.integers(1, 3),
    shape=st.sampled_from([POOL[0], POOL[5]]),
)
def test_random_widths(widths, batch_size, threads, shape):
    """Products of all shapes, their rows and those of the gradient shared in all ways."""
    _, hidden, output, loss, rule, others = shape
    case = Case(
        (widths, hidden[0], output, loss, rule, others if len(widths) > 2 else {}),
        "float64",
        batch_size,
        threads=threads,
    )
    rng = np.random.default_rng(batch_size)
    sizes = (batch_size, batch_size, max(1, batch_size // 3))
    compare(case, 0, [rng.integers(0, ROWS, (n, m)) for n, m in zip((4, 3, 1), sizes, strict=True)])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layers_that_blas_multiplies(monkeypatch, dtype, threads):
    from bpcore.kernels.numba import machine

    known = machine.Machine(1e11, 30, (2,), (0.0,), (2.0,))
    monkeypatch.setattr(machine, "machine", lambda most: known)
    monkeypatch.setattr(machine, "_LEAST_WIDE", 1)
    case = Case(POOL[1], dtype, threads=threads)
    plan = case.runs["compiled"][0]
    assert plan.uses_blas
    assert [bool(address) for address in plan._table[:, -2]] == [True, True, False, False]
    compare(case, 0)


@pytest.mark.parametrize("shape", [POOL[2], POOL[3], POOL[5]], ids=["masks", "clipping", "masked Adam"])
def test_threads_change_rounding_only_and_each_number_repeats(shape):
    index = orders(1)[0]
    theta = {}
    for threads in (1, 2, 3):
        cases = [Case(shape, "float64", threads=threads) for _ in range(2)]
        records = [case.run("compiled", index) for case in cases]
        assert_same_bits(*records)
        for name, array in cases[0].results("compiled").items():
            assert_same_bits(array, cases[1].results("compiled")[name])
        theta[threads] = cases[0].results("compiled")["theta"]
    for threads in (2, 3):
        np.testing.assert_allclose(theta[threads], theta[1], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", POOL + SLOW_POOL, ids=lambda s: f"{s[1][0] if s[1] else 'none'}-{s[4].name}")
def test_every_declaration_equals_the_reference(shape, dtype):
    compare(Case(shape, dtype), 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [POOL[2], POOL[3]], ids=["batch", "sample"])
def test_dropout_masks_are_the_bits_of_philox(shape, threads):
    case = Case(shape, "float64", threads=threads)
    case.run("compiled", orders(0)[0])
    plan = case.runs["compiled"][0]
    assert case.spec.dropout is not None
    for layer, rate in case.spec.rates.items():
        n = case.spec.sizes[layer - 1] * (8 if case.spec.dropout.per == "sample" else 1)
        start = plan._table[layer - 1, 7]
        bits = random_bits(n, seed=11, purpose=Purpose.DROPOUT, step=3, layer=layer)
        assert_same_bits(plan._work[start : start + n], np.where(bits < int(rate * 2**32), 0.0, 1 / (1 - rate)))


def test_layers_of_other_widths_and_depths_compile_nothing():
    small = Case(POOL[0], "float64").runs["compiled"][0]
    large = Case(([30, 20, 10, 5], ["sigmoid", "sigmoid"], *POOL[0][2:]), "float64", batch_size=32).runs["compiled"][0]
    assert large._run is small._run
    assert set(large._pieces) == set(small._pieces)


def test_repeats_bit_for_bit():
    first, second = Case(POOL[5], "float32"), Case(POOL[5], "float32")
    assert_same_bits(*(case.run("compiled", orders(0)[0]) for case in (first, second)))
    assert_same_bits(*(case.results("compiled")["theta"] for case in (first, second)))


def test_how_steps_are_cut_into_runs_does_not_matter():
    whole, pieces = Case(POOL[2], "float64"), Case(POOL[2], "float64")
    index = orders(3)[0]
    plan, net, state = whole.runs["compiled"]
    plan.run(whole.problems["compiled"], index, state, [0.1] * 4, np.zeros((3, 4)))
    plan, other, state = pieces.runs["compiled"]
    for k in range(4):
        plan.run(pieces.problems["compiled"], index[k : k + 1], state, [0.1], np.zeros((3, 1)))
    assert_same_bits(net.theta, other.theta)


# ------------------------------------------------------------------------------------------ threads, processes


def test_two_threads_train_two_networks():
    alone, together = ([Case(POOL[k], "float64", seed=k) for k in (1, 2)] for _ in range(2))
    index = np.random.default_rng(0).integers(0, ROWS, (500, 8))
    for case in alone:
        case.run("compiled", index)
    threads = [threading.Thread(target=case.run, args=("compiled", index)) for case in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert_same_bits(one.results("compiled")["theta"], other.results("compiled")["theta"])


SCRIPT = """
import json, sys
import numpy as np
from tests.training.test_compiled_plan import POOL, Case, orders
case = Case(POOL[int(sys.argv[1])], "float64")
records = case.run("compiled", orders(0)[0])
plan = case.runs["compiled"][0]
dispatchers = [f for f in [plan._run, *plan._pieces] if hasattr(f, "stats")]
print(json.dumps({
    "theta": case.results("compiled")["theta"].tolist(),
    "records": records.tolist(),
    "compiled": len(dispatchers),
    "misses": sum(sum(f.stats.cache_misses.values()) for f in dispatchers),
}))
"""


def in_another_process(k: int, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(k)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_process_compiles_nothing():
    case = Case(POOL[4], "float64")
    case.run("compiled", orders(0)[0])
    found = in_another_process(4)
    assert found["compiled"] > 10
    assert found["misses"] == 0
    np.testing.assert_array_equal(found["theta"], case.results("compiled")["theta"])


@pytest.mark.parametrize("k", [3, 5])
def test_without_compilation_the_numbers_are_the_same(k):
    case = Case(POOL[k], "float64")
    records = case.run("compiled", orders(0)[0])
    found = in_another_process(k, NUMBA_DISABLE_JIT="1")
    assert found["compiled"] == 0
    np.testing.assert_allclose(found["records"], records, rtol=1e-10)
    np.testing.assert_allclose(found["theta"], case.results("compiled")["theta"], rtol=1e-10, atol=1e-12)


def test_allocates_nothing_inside():
    from numba.core.runtime import _nrt_python as nrt

    case = Case(POOL[3], "float32")
    plan, _, state = case.runs["compiled"]

    def cost(steps):
        """Allocations of compiled code and of Python in one run."""
        index = np.random.default_rng(0).integers(0, ROWS, (steps, 8))
        etas, records = [0.01] * steps, np.zeros((3, steps))
        before = nrt.memsys_get_stats_alloc()
        tracemalloc.start()
        try:
            plan.run(case.problems["compiled"], index, state, etas, records)
            return nrt.memsys_get_stats_alloc() - before, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    nrt.memsys_enable_stats()
    try:
        cost(2)
        few, many = cost(2), cost(4000)
    finally:
        nrt.memsys_disable_stats()
    assert few[0] == many[0]  # one for each array argument
    assert many[1] < 4000 * 8 + 16_000  # the learning rates as an array, and the arguments of one call


# ------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", ["compiled", "reference"])
def test_scalars_that_fail_are_an_error_at_their_step(name):
    rule = UpdateRule("late", "theta = theta - r*g", scalars="r = eta / (t - 3)")
    case = Case(POOL[0], "float64", rule=rule)
    with pytest.raises(ConfigurationError, match=r"late: the scalars 'r = eta / \(t - 3\)' fail at t=3"):
        case.run(name, orders(0)[0])
    assert case.runs[name][2].step == 2


def test_scalars_that_are_infinite_without_an_error_are_used():
    rule = UpdateRule("odd", "theta = theta - eta*g / r", scalars="r = where(t == 2, t * 1e200 * 1e200, t)")
    case = Case(POOL[0], "float64", rule=rule)
    compare(case, 0)


def test_bad_index_is_an_error():
    case = Case(POOL[0], "float64")
    with pytest.raises(DataError, match=r"index\[0\] is 99, but X has 40 rows"):
        case.run("compiled", np.full((1, 8), 99))


@pytest.mark.parametrize("wide", ["X", "Y"])
def test_data_with_strides(wide):
    case, plain = Case(POOL[5], "float64"), Case(POOL[5], "float64")
    problem = case.problems["compiled"]
    data = getattr(problem, wide)
    object.__setattr__(problem, wide, np.repeat(data, 2, axis=1)[:, ::2])
    index = orders(0)[0]
    assert_same_bits(case.run("compiled", index), plain.run("compiled", index))
    assert_same_bits(case.results("compiled")["theta"], plain.results("compiled")["theta"])


def test_divergence_is_found_at_the_same_place():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(64, 5)), rng.normal(size=(64, 2))
    found = {}
    for plan in ("compiled", "reference"):
        net = bp.MLP([5, 9, 2], "relu", "identity", seed=0, backend="numba")
        trainer = bp.Trainer(net, optimizer=bp.SGD(50.0), batch_size=8, plan=plan, seed=0)
        with pytest.raises(DivergenceError, match="not finite") as caught:
            trainer.run(X, Y, rng.permuted(np.tile(np.arange(64), (50, 1)), axis=1)[:, :8] * 0 + np.arange(8))
        found[plan] = caught.value.step, caught.value.layer, caught.value.quantity
        assert trainer.plan_name == plan
        assert np.isfinite(net.theta).all()
    assert found["compiled"] == found["reference"]


def test_watching_does_not_change_the_steps():
    watched, plain = Case(POOL[5], "float64"), Case(POOL[5], "float64")
    seen = []
    records = watched.run("compiled", orders(0)[0], watch=lambda quantity, layer, array: seen.append((quantity, layer)))
    assert_same_bits(records, plain.run("compiled", orders(0)[0]))
    assert_same_bits(watched.results("compiled")["theta"], plain.results("compiled")["theta"])
    assert {quantity for quantity, _ in seen} == {"Z", "H", "loss", "Delta", "db", "dW", "W", "b"}


# ------------------------------------------------------------------------------------------ the choice


def chosen(be: str, plan: str = "auto", optimizer: Any = None) -> tuple[str, str]:
    net = bp.MLP([7, 5, 3], "sigmoid", "sigmoid", seed=0, dtype="float64", backend=be)
    trainer = bp.Trainer(net, "quadratic", optimizer or bp.SGD(0.5), batch_size=8, plan=plan, seed=0)
    trainer.run(np.zeros((8, 7)), np.zeros((8, 3)), np.arange(8)[None])
    return trainer.plan_name, trainer.plan_why


def test_choice_of_the_plan():
    assert chosen("numba") == ("compiled", "whole runs of steps in one call, on backend numba")
    assert chosen("numba", "compiled") == ("compiled", "asked for")
    assert chosen("numba", "reference") == ("reference", "asked for")
    assert chosen("numpy") == ("reference", "the only plan for backend numpy")
    with pytest.raises(ConfigurationError, match="plan='compiled' needs backend numba; the network is on numpy"):
        chosen("numpy", "compiled")
    with pytest.raises(UnknownNameError, match=r"unknown plan 'compile'.*Did you mean 'compiled'"):
        chosen("numba", "compile")


def test_what_is_not_supported_goes_to_the_reference_and_says_why():
    names = [f"s{k}" for k in range(5)]
    code = "; ".join(f"{name} = {name} + g" for name in names) + "; theta = theta - eta*s4"
    rule = UpdateRule("greedy", code, state=names)
    assert chosen("numba", optimizer=rule) == (
        "reference",
        "no compiled plan: the rule greedy keeps 5 arrays, compiled code has room for 4",
    )
    with pytest.raises(ConfigurationError, match="no compiled plan for this: the rule greedy keeps 5 arrays"):
        chosen("numba", "compiled", rule)


def test_a_call_by_address_with_other_types_does_not_compile():
    """Nothing at run time would notice: the function would read other bytes as its arguments."""
    import numba
    from numba.core.errors import TypingError

    from bpcore.kernels.numba.calls import addresses, caller
    from bpcore.kernels.numba.rowwise import total

    call = caller(*total.arguments)
    functions = addresses([total[np.dtype("float64")]])

    @numba.njit
    def run(functions, A, out):
        call(functions, 0, A, out)

    out = np.zeros(1)
    run(functions, np.arange(4.0), out)
    assert out[0] == 6
    with pytest.raises(TypingError, match=r"takes T1, float64 1! was called with array\(int64"):
        run(functions, np.arange(4.0), np.zeros(1, np.int64))


@pytest.mark.parametrize("shape", [POOL[1], POOL[2], POOL[3]], ids=["weights", "masks", "clipping"])
@pytest.mark.parametrize("threads", [2, 3])
def test_products_shared_by_columns(monkeypatch, shape, threads):
    """Wide layers, whose members meet before and after their products; the last batch has one sample."""
    sizes, hidden, output, loss, rule, others = shape
    monkeypatch.setattr(teamwork, "SHARED_BYTES", 0)
    monkeypatch.setattr(teamwork, "LEAST_COLUMNS", 20)
    wide = [90 if 0 < l < len(sizes) - 1 else n for l, n in enumerate(sizes)]
    case = Case((wide, hidden, output, loss, rule, others), "float64", batch_size=50, threads=threads, rows=60)
    table = case.runs["compiled"][0]._table
    assert table[1:-2, -1].tolist() == [1] * (len(sizes) - 3)
    rng = np.random.default_rng(0)
    compare(case, 0, [rng.integers(0, 60, (n, m)) for n, m in ((4, 50), (2, 7), (2, 1))])
