"""The graph plans against the reference path, step for step: over the stand-in for CuPy, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_products import CudaProducts
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.clipping import ClipLayerNorm, ClipNorm, ClipValue
from bpcore.functions.losses import get_loss
from bpcore.functions.penalties import L1, L2, Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.kernels.cuda.tiling import choose_tiling
from bpcore.problem import Problem
from bpcore.training.plans import choose_plan
from bpcore.training.spec import Dropout, StepSpec
from bpcore.training.state import TrainingState
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_same_bits, tolerance
from tests.helpers.declared import BUMP, WARM

ROWS = 200
PLANS = ("graph", "wide")
# sizes, hidden activations, output, loss, rule, then what else the spec has
SHAPES: dict[str, tuple[list[int], list[Any], str, str, UpdateRule, dict[str, Any]]] = {
    "plain": ([7, 5, 3], ["sigmoid"], "sigmoid", "quadratic", bp.SGD(0.5), {}),
    "weights": ([6, 9, 4, 1], ["tanh", "relu"], "sigmoid", "binary_cross_entropy", bp.Adam(0.01), {"weighted": True}),
    "masks": (
        [5, 8, 8, 4],
        ["relu", "relu"],
        "softmax",
        "cross_entropy",
        bp.Momentum(0.1),
        {"dropout": Dropout((0.4, 0.0))},
    ),
    "everything": (
        [5, 6, 17, 4],
        ["tanh", "softmax"],
        "softmax",
        "mse",
        bp.NAdam(0.01),
        {"dropout": Dropout(0.3, per="sample"), "penalty": L1(0.01) + L2(0.1), "clip": ClipLayerNorm(0.05)},
    ),
    "norm": ([4, 6, 2], [BUMP], "identity", "huber", WARM, {"clip": ClipNorm(0.1), "weighted": True}),
    "masked rows": (
        [4, 70, 2],
        ["tanh"],
        "identity",
        "mse",
        bp.AMSGrad(0.01),
        {"dropout": Dropout(0.5), "clip": ClipValue(0.02), "penalty": Penalty("plain", "0.1 * w * w")},
    ),
    "one layer": ([9, 3], [], "log_softmax", "cross_entropy", bp.SGD(0.1), {"weighted": True}),
    "log-softmax rows": (
        [6, 5, 600],
        ["log_softmax"],
        "softmax",
        "quadratic",
        bp.RMSprop(0.01),
        {"dropout": Dropout(0.3, per="sample")},
    ),
    "tiles": ([131, 70, 65, 3], ["relu", "gelu"], "softmax", "cross_entropy", bp.Lion(0.001), {"penalty": L2(0.01)}),
}


class Case:
    """One spec with data, and some plans, each with a network and a state of its own.

    The reference is on NumPy, unless another backend is given: it shares no kernel with the plans, and builds none.
    The precision is that of the plan wide.
    """

    def __init__(
        self,
        be: Backend,
        shape: str,
        dtype: str,
        batch_size: int,
        plans: tuple[str, ...],
        reference: Backend | None = None,
        precision: str | None = None,
        sizes: list[int] | None = None,
    ) -> None:
        own_sizes, hidden, output, loss_name, rule, others = SHAPES[shape]
        sizes = sizes or own_sizes
        rng, others = np.random.default_rng(3), dict(others)
        weighted, loss = others.pop("weighted", False), get_loss(loss_name)
        X = rng.normal(size=(ROWS, sizes[0]))
        by_class = output != "identity"
        Y: Any = rng.integers(0, max(2, sizes[-1]), ROWS) if by_class else rng.normal(size=(ROWS, sizes[-1]))
        weights = None
        if weighted:
            weights = rng.random(ROWS) + 0.1
            weights[:10] = 0  # whole batches of them are drawn
        self.runs: dict[str, Any] = {}
        self.problems: dict[str, tuple[Backend, Problem]] = {}
        for name in plans:
            if precision is not None:
                others["precision"] = precision if name == "wide" else None
            on = (reference or bp.get_backend("numpy")) if name == "reference" else be
            net = bp.MLP(sizes, hidden or "relu", output, seed=1, dtype=dtype, backend=on)
            problem = Problem.prepare(net, on, X, Y, loss, sample_weight=weights)
            self.problems[name] = on, problem
            classes = problem.labels is not None
            activations = tuple(net.activations)
            self.spec = StepSpec(
                net.sizes, activations, loss, rule, batch_size, net.dtype, weighted=weighted, classes=classes, **others
            )
            plan, _ = choose_plan(name, self.spec, net, on, 11)
            self.runs[name] = plan, net, TrainingState.begin(on, rule, net.layout, net.dtype)

    def run(self, name: str, index: Any, watch: Any = None) -> Any:
        plan, _, state = self.runs[name]
        be, problem = self.problems[name]
        records = be.zeros((3, len(index) + 1), np.float64)  # its rows are longer than needed
        etas = [0.05 / (1 + state.step + k) for k in range(len(index))]
        index = be.asarray(np.ascontiguousarray(index, np.int64))
        plan.run(problem, index, state, etas, records[:, : len(index)], watch)
        return be.to_numpy(records)

    def results(self, name: str) -> dict[str, Any]:
        plan, net, state = self.runs[name]
        be, _ = self.problems[name]
        arrays = {"theta": net.theta, "gradient": plan.gradient, **state.arrays}
        return {key: np.array(be.to_numpy(array)) for key, array in arrays.items()}


def orders(batch_size: int) -> list[Any]:
    """Whole batches, a partial one, and one in which all weights are zero."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, ROWS, (4, batch_size))
    return [whole, rng.integers(0, ROWS, (2, batch_size // 2 + 1)), rng.integers(0, 10, (2, batch_size))]


def compare(case: Case, plan: str, batch_size: int) -> None:
    rtol = 1e-10
    if case.spec.dtype == np.float32:
        # eight steps, in which each product adds up some terms; momentum of small gradients adds a digit
        rtol = 10 * tolerance(np.float32, length=8 * max(131, batch_size))
    for index in orders(batch_size):
        found, expected = (case.run(name, index) for name in (plan, "reference"))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    actual, wanted = case.results(plan), case.results("reference")
    for name, array in wanted.items():
        np.testing.assert_allclose(actual[name], array, rtol=rtol, atol=rtol * np.abs(array).max(), err_msg=name)
    (_, _, state), (_, _, expected_state) = case.runs[plan], case.runs["reference"]
    assert state.step == expected_state.step == 8
    assert list(state.running) == list(expected_state.running)
    np.testing.assert_allclose(list(state.running.values()), list(expected_state.running.values()), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("plan", PLANS)
def test_equals_the_reference(cupy_backend: CupyBackend, plan: str, shape: str, dtype: str) -> None:
    if dtype == "float32" and shape in ("norm", "everything"):
        pytest.skip("a norm at the limit is above it in one order of addition and below it in another")
    compare(Case(cupy_backend, shape, dtype, 9, (plan, "reference")), plan, 9)


def test_outputs_of_more_columns_than_a_tile(cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their loss is not taken together with their product, and a row is that of a warp and not of a block."""
    shape = [6, 5, 100], ["tanh"], "softmax", "cross_entropy", bp.SGD(0.1), {"weighted": True}
    monkeypatch.setitem(SHAPES, "many outputs", shape)
    compare(Case(cupy_backend, "many outputs", "float64", 9, ("graph", "reference")), "graph", 9)


def error_of(case: Case, index: Any, expected: Case) -> dict[str, float]:
    """How far the wide plan is from a reference in float64 after a run of steps, by what is compared."""
    case.run("wide", index)
    actual, wanted = case.results("wide"), expected.results("reference")
    return {key: float(np.linalg.norm(actual[key] - wanted[key]) / np.linalg.norm(wanted[key])) for key in wanted}


@pytest.mark.parametrize("shape", SHAPES)
def test_three_products_of_tf32_are_as_near_as_float32(cupy_backend: CupyBackend, shape: str) -> None:
    """With the widths above, and with others; whole batches and a partial one.

    Rounding a product to float32 changes it by 2**-24 at most; three products by 2**-21 of the sum of absolute values,
    and are rounded then: nine times that.
    """
    rng, own = np.random.default_rng(8), SHAPES[shape][0]
    for sizes in (own, [*map(int, rng.integers(3, 80, len(own) - 1)), own[-1]]):
        cases = [
            Case(cupy_backend, shape, dtype, 33, (plan,), precision=precision, sizes=sizes)
            for dtype, plan, precision in (
                ("float64", "reference", None),
                ("float32", "wide", None),
                ("float32", "wide", "tf32x3"),
            )
        ]
        whole, partial, _ = orders(33)
        for index in (whole[:2], partial[:1]):
            cases[0].run("reference", index)
            allowed, found = (error_of(case, index, cases[0]) for case in cases[1:])
            for key, error in found.items():
                assert error <= 9 * max(allowed[key], 2.0**-24), (sizes, key, allowed[key])


@pytest.mark.parametrize(
    ("capability", "clusters"),
    [((7, 5), True), ((9, 0), True), ((9, 0), False)],
    ids=["old", "clusters", "none of them"],
)
@pytest.mark.parametrize(("multiprocessors", "rows", "columns", "splits"), [(1, 32, 32, 1), (40, 64, 32, 2)])
@pytest.mark.parametrize("shape", ["tiles", "everything"])
def test_tiles_and_splits(
    fake_cupy: FakeCupy,
    shape: str,
    multiprocessors: int,
    rows: int,
    columns: int,
    splits: int,
    capability: tuple[int, int],
    clusters: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there are multiprocessors for them, several blocks share the sums of one tile."""
    monkeypatch.setattr("tests.backends.fake_cupy.CAPABILITY", capability)
    monkeypatch.setattr(CudaProducts, "clusters", clusters)
    fake_cupy.multiprocessors = multiprocessors
    compare(Case(CupyBackend(), shape, "float64", 128, ("graph", "reference")), "graph", 128)
    if shape == "tiles":
        tiling = choose_tiling([(132, 70), (71, 65), (66, 3)], 128, multiprocessors)
        assert (tiling.shape, tiling.splits) == ((rows, columns), splits)
        assert ("gradient", (tiling.blocks,), (128,)) in fake_cupy.launches
        assert (2 in fake_cupy.clusters) == (splits == 2 and capability == (9, 0) and clusters)


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_bits_from_run_to_run_and_however_a_run_is_cut(cupy_backend: CupyBackend, plan: str) -> None:
    index = np.random.default_rng(5).integers(0, ROWS, (70, 9))  # two long graphs, and steps one by one
    found = []
    for cuts in ([70], [70], [1, 33, 36]):
        case = Case(cupy_backend, "masks", "float32", 9, (plan,))
        start = 0
        for count in cuts:
            case.run(plan, index[start : start + count])
            start += count
        found.append(case.results(plan))
    for other in found[1:]:
        for name, array in found[0].items():
            assert_same_bits(other[name], array)


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_crosses_and_nothing_is_allocated_inside_a_run(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, plan: str
) -> None:
    case = Case(fake_backend, "plain", "float32", 9, (plan,))
    at_once = case.runs[plan][0].at_once
    assert at_once > 1
    index = np.random.default_rng(5).integers(0, ROWS, (2 * at_once, 9))
    case.run(plan, index)
    counts = []
    for steps in (at_once, 2 * at_once):
        before = fake_cupy.count.copy()
        case.run(plan, index[:steps])
        counts.append(fake_cupy.count - before)
    short, long = counts
    assert long["graph"] == 2 * short["graph"] == 2
    assert {name: short[name] for name in ("to_device", "to_host", "allocation")} == {
        name: long[name] for name in ("to_device", "to_host", "allocation")
    }


@pytest.mark.parametrize("plan", PLANS)
def test_a_device_that_is_not_the_current_one(fake_cupy: FakeCupy, plan: str) -> None:
    fake_cupy.devices = 2
    compare(Case(CupyBackend(1), "plain", "float64", 9, (plan, "reference")), plan, 9)
    assert fake_cupy.current_device == 0


def test_kernels_in_a_step(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    case = Case(fake_backend, "masks", "float32", 9, ("graph",))
    fake_cupy.launches.clear()
    case.run("graph", np.zeros((1, 9)))
    names = [name for name, _, _ in fake_cupy.launches if not name.startswith("formula")]
    assert names == ["forward"] * 2 + ["forward_output"] + ["backward"] * 2 + ["gradient", "advance_run"]


@pytest.mark.parametrize("plan", PLANS)
def test_a_watched_run_shows_every_quantity(cupy_backend: CupyBackend, plan: str) -> None:
    case = Case(cupy_backend, "plain", "float64", 9, (plan, "reference"))
    seen: dict[str, list[Any]] = {plan: [], "reference": []}
    index = np.arange(18).reshape(2, 9)
    for name, list_ in seen.items():
        case.run(name, index, lambda what, l, array, list_=list_: list_.append((what, l, array.shape)))
    assert set(seen["reference"]) <= set(seen[plan])
    actual, wanted = case.results(plan), case.results("reference")
    np.testing.assert_allclose(actual["theta"], wanted["theta"], rtol=1e-12)


@pytest.mark.parametrize("plan", PLANS)
def test_divergence_is_found_and_the_parameters_before_it_are_kept(cupy_backend: CupyBackend, plan: str) -> None:
    net = bp.MLP([4, 8, 2], "relu", "identity", seed=0, backend=cupy_backend)
    X = np.random.default_rng(0).normal(size=(32, 4))
    trainer = bp.Trainer(net, "mse", bp.SGD(1e6), batch_size=8, plan=plan)
    with pytest.raises(DivergenceError, match=r"step \d+: .* is not finite"):
        trainer.run(X, X[:, :2], np.tile(np.arange(8), (60, 1)))
    assert np.isfinite(cupy_backend.to_numpy(net.theta)).all()


def test_training_names_plan_and_reason(cupy_backend: CupyBackend) -> None:
    X, y = np.random.default_rng(0).normal(size=(32, 4)), np.arange(32) % 2
    run = bp.train(bp.MLP([4, 8, 2], seed=0, backend=cupy_backend), X, y, epochs=2, batch_size=8, plan="graph")
    assert run.record["plan"] == "graph"
    assert run.history["loss"][1] < run.history["loss"][0]


@pytest.mark.parametrize("plan", PLANS)
def test_other_backends_are_refused(plan: str) -> None:
    net = bp.MLP([4, 2], seed=0, backend="numpy")
    with pytest.raises(ConfigurationError, match=rf"plan='{plan}' needs backend cupy; the network is on numpy"):
        bp.Trainer(net, plan=plan).run(np.zeros((2, 4)), [0, 1], [[0, 1]])
