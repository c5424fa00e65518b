"""The fused plan against float64, in bf16 and in float32: over the stand-in for CuPy, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.clipping import ClipNorm, ClipValue
from bpcore.functions.losses import get_loss
from bpcore.functions.penalties import L2
from bpcore.training import graph
from bpcore.training.fused import FusedPlan, choose_shape
from bpcore.training.memory import DataShape
from bpcore.training.placement import place
from bpcore.training.plans import choose_plan
from bpcore.training.spec import Dropout, StepSpec
from tests.backends.fake_cublas import to_bfloat16
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_close, assert_same_bits
from tests.kernels.fused_cases import CASES, FLOAT_CASES, Case, Run
from tests.training.test_wide_plan import EPSILON, keep_clear_of_zero

SIZES, HIDDEN = [13, 24, 24, 24, 5], ["relu", "tanh", "tanh"]
ROWS = 160
PRECISIONS = pytest.mark.parametrize("precision", ["bf16", "float32"])


def trainer_of(be: Any, plan: str, precision: str | None = "bf16", batch: int = 70, **others: Any) -> Any:
    """A trainer and its data."""
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(ROWS, SIZES[0])), rng.integers(0, SIZES[-1], ROWS)
    dtype = "float64" if precision is None else "float32"
    net = bp.MLP(SIZES, HIDDEN, seed=1, dtype=dtype, backend=be)
    keep_clear_of_zero(net, be)
    options = {"optimizer": bp.Adam(0.01), **others}
    return bp.Trainer(net, batch_size=batch, seed=4, plan=plan, precision=precision, **options), X, y


def results(trainer: Any, be: Any) -> dict[str, Any]:
    """Parameters, gradient and state after the steps so far."""
    arrays = {"theta": trainer.net.theta, "gradient": trainer._plan.gradient, **trainer.state.arrays}
    return {name: np.array(be.to_numpy(array), np.float64) for name, array in arrays.items()}


def gradient_of_a_step(case: Case, be: CupyBackend, tolerance: float) -> None:
    """Compare with the reference of the kernel what the plan makes of its data."""
    run = Run(case)
    net = bp.MLP(list(case.sizes), case.hidden, case.output, seed=1, dtype="float32", backend=be)
    be.copy(be.asarray(np.ascontiguousarray(run.net.theta)), out=net.theta)
    precision = case.precision or "float32"
    trainer = bp.Trainer(net, case.loss, bp.SGD(1e-3), batch_size=case.m, plan="fused", precision=precision)
    weights = run.weights if case.weighted else None
    targets = run.labels if run.spec.classes else run.Y
    records = trainer.run(run.X, targets, run.index[1:], sample_weight=weights)
    plan: Any = trainer._plan
    gradient = be.to_numpy(plan.gradient)
    found = {f"d{kind}{l}": net.layout.views(gradient, kind)[l] for kind in "Wb" for l in net.W.layers}
    run.compare(
        {**found, "loss": records.loss[0], "hits": records.hits[0] if run.spec.classes else 0.0}, tolerance=tolerance
    )


@pytest.mark.parametrize("name", ["ragged", *(pytest.param(x, marks=pytest.mark.long) for x in CASES if x != "ragged")])
def test_the_gradient_is_that_of_rounded_operands(cupy_backend: CupyBackend, name: str) -> None:
    """To 1e-3 where two kinds of sums may round one operand of thousands differently; see `Run.compare`."""
    gradient_of_a_step(CASES[name], cupy_backend, 1e-3)


@pytest.mark.parametrize(
    "name", ["ragged", *(pytest.param(x, marks=pytest.mark.long) for x in FLOAT_CASES if x != "ragged")]
)
def test_the_gradient_in_float32(cupy_backend: CupyBackend, name: str) -> None:
    gradient_of_a_step(FLOAT_CASES[name], cupy_backend, 0.0)  # the tolerance is that of so many roundings


@pytest.mark.parametrize(
    "others",
    [
        {},
        pytest.param(
            {"penalty": L2(0.01), "clip": ClipValue(0.01), "optimizer": bp.NAdam(0.01)}, marks=pytest.mark.long
        ),
        pytest.param({"clip": ClipNorm(10.0), "optimizer": bp.Momentum(0.05)}, marks=pytest.mark.long),
    ],
    ids=["adam", "penalty", "norm"],
)
def test_near_float64_and_not_float32(cupy_backend: CupyBackend, others: dict[str, Any]) -> None:
    order = np.random.default_rng(3).integers(0, ROWS, (1, 70))
    found = []
    for be, plan, precision in ((cupy_backend, "fused", "bf16"), (bp.get_backend("numpy"), "reference", None)):
        trainer, X, y = trainer_of(be, plan, precision, **others)
        records = trainer.run(X, y, order)
        found.append((results(trainer, be), records))
    (actual, records), (wanted, its_records) = found
    error, scale = np.linalg.norm(actual["gradient"] - wanted["gradient"]), np.linalg.norm(wanted["gradient"])
    assert 64 * 2.0**-24 * scale < error < 4 * EPSILON["bf16"] * scale
    np.testing.assert_allclose(records.loss, its_records.loss, rtol=8 * EPSILON["bf16"])


@pytest.mark.parametrize(
    "others",
    [
        {"optimizer": bp.Momentum(0.05)},
        pytest.param({"penalty": L2(0.01), "clip": ClipValue(0.01), "optimizer": bp.SGD(0.1)}, marks=pytest.mark.long),
        pytest.param({"clip": ClipNorm(0.1), "optimizer": bp.Momentum(0.05)}, marks=pytest.mark.long),
    ],
    ids=["momentum", "penalty", "norm"],
)
def test_float32_is_the_reference_to_rounding(cupy_backend: CupyBackend, others: dict[str, Any]) -> None:
    """Three steps, the parameters and the state of the rule after them."""
    order = np.random.default_rng(3).integers(0, ROWS, (3, 70))
    found = []
    for be, plan, precision in ((cupy_backend, "fused", "float32"), (bp.get_backend("numpy"), "reference", None)):
        trainer, X, y = trainer_of(be, plan, precision, **others)
        records = trainer.run(X, y, order)
        found.append((trainer, results(trainer, be), records))
    (trainer, actual, records), (_, wanted, its_records) = found
    assert trainer.plan_name == "fused"
    for name, array in wanted.items():
        scale = np.abs(array).max()
        assert_close(actual[name].astype(np.float32), array, dtype=np.float32, length=len(order) * 70, scale=scale)
    np.testing.assert_allclose(records.loss, its_records.loss, rtol=1e-6)


@PRECISIONS
def test_training_and_partial_batches(cupy_backend: CupyBackend, precision: str) -> None:
    """Steps far below the spacing of bf16 add up; batches smaller than a tile, and than the batch of the plan."""
    losses = []
    for plan in ("fused", "wide"):
        trainer, X, y = trainer_of(cupy_backend, plan, precision)
        rng = np.random.default_rng(0)
        for size, steps in ((70, 3), (1, 1), (33, 2)):
            records = trainer.run(X, y, rng.integers(0, ROWS, (steps, size)))
        losses.append(records.loss[-1])
        assert trainer.plan_name == plan
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02 if precision == "bf16" else 1e-4)


@PRECISIONS
def test_the_same_bits_however_a_run_is_cut(
    cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(graph, "MOST_STEPS", 3)
    order = np.random.default_rng(5).integers(0, ROWS, (7, 70))
    found = []
    for cuts in ([7], [7], [1, 4, 2]):
        trainer, X, y = trainer_of(cupy_backend, "fused", precision)
        for begin, count in zip(np.cumsum([0, *cuts]), cuts, strict=False):
            trainer.run(X, y, order[begin : begin + count])
        found.append(results(trainer, cupy_backend))
    for other in found[1:]:
        for name, array in found[0].items():
            assert_same_bits(other[name], array)


def test_streamed_data_is_the_same_training(fake_backend: CupyBackend) -> None:
    rng, found = np.random.default_rng(2), []
    X, y = rng.normal(size=(ROWS, SIZES[0])), rng.integers(0, SIZES[-1], ROWS)
    for where in ("stream", "resident"):
        net = bp.MLP(SIZES, HIDDEN, seed=1, dtype="float32", backend=fake_backend)
        options: dict[str, Any] = {"epochs": 2, "batch_size": 70, "seed": 5, "data": where}
        run = bp.train(net, X, y, optimizer=bp.Adam(0.01), plan="auto", precision="bf16", **options)
        assert run.record["plan"] == "fused"
        assert run.record["data"]["placement"].startswith(where)
        found.append(np.array(fake_backend.to_numpy(net.theta)))
    assert_same_bits(found[0], found[1])


@PRECISIONS
def test_the_kernels_of_a_step(fake_backend: CupyBackend, fake_cupy: FakeCupy, precision: str) -> None:
    trainer, X, y = trainer_of(fake_backend, "fused", precision)
    before = len(fake_cupy.launches)
    trainer.run(X, y, np.zeros((1, 70), np.int64))
    names = [
        name for name, _, _ in fake_cupy.launches[before:] if not name.startswith(("formula", "count", "add_part"))
    ]
    first = ["copy_parameters"] if precision == "bf16" else []  # once a run
    assert names == [*first, "fused_step", "add_slices", "move_parameters", "advance_run"]


def test_the_products_read_theta_rounded(cupy_backend: CupyBackend) -> None:
    trainer, X, y = trainer_of(cupy_backend, "fused")
    for _ in range(2):
        trainer.run(X, y, [np.arange(70)])
        theta = np.array(cupy_backend.to_numpy(trainer.net.theta))
        np.testing.assert_array_equal(cupy_backend.to_numpy(trainer._plan._copy), to_bfloat16(theta))
        cupy_backend.fill(trainer.net.theta, 0.25)  # the caller changes them between two runs


@PRECISIONS
def test_divergence_is_found(cupy_backend: CupyBackend, precision: str) -> None:
    trainer, X, y = trainer_of(cupy_backend, "fused", precision, optimizer=bp.SGD(3e38))
    with pytest.raises(DivergenceError, match=r"step \d+: .* is not finite"):
        trainer.run(X, y, np.tile(np.arange(70), (8, 1)))
    assert np.isfinite(cupy_backend.to_numpy(trainer.net.theta)).all()


# ------------------------------------------------------------------------------------------ choice and refusals


def spec_of(be: Any, sizes: list[int], hidden: Any = "relu", precision: str | None = "bf16", **others: Any) -> Any:
    net = bp.MLP(sizes, hidden, seed=0, dtype="float32", backend=be)
    batch = others.pop("batch_size", 1000)
    rest = {"classes": True, "precision": precision, **others}
    return net, StepSpec(
        net.sizes, tuple(net.activations), get_loss("cross_entropy"), bp.SGD(0.1), batch, net.dtype, **rest
    )


def test_auto_chooses_it_where_it_can(fake_backend: CupyBackend) -> None:
    net, spec = spec_of(fake_backend, [64] * 9 + [10])
    plan, why = choose_plan("auto", spec, net, fake_backend, 0)
    assert plan.name == "fused"
    assert "was not measured" in why
    assert isinstance(plan, FusedPlan)
    assert plan.shape.rows == 128
    net, spec = spec_of(fake_backend, [64, 200, 10])
    plan, why = choose_plan("auto", spec, net, fake_backend, 0)
    assert plan.name == "wide"
    assert why.endswith("no fused plan: a layer has 200 neurons, and 128 is the most")
    net, spec = spec_of(fake_backend, [4, 8, 3], precision="tf32")
    assert choose_plan("auto", spec, net, fake_backend, 0)[0].name == "wide"


def test_auto_does_not_choose_what_was_not_measured(fake_backend: CupyBackend) -> None:
    net, spec = spec_of(fake_backend, [64] * 9 + [10], precision=None, batch_size=65536)
    plan, why = choose_plan("auto", spec, net, fake_backend, 0)
    assert plan.name == "wide"
    assert "fused" not in why
    assert choose_plan("fused", spec, net, fake_backend, 0)[0].name == "fused"


@pytest.mark.parametrize(
    ("sizes", "hidden", "others", "message"),
    [
        ([64, 64, 10], "relu", {"precision": "tf32"}, "computed in float32 or bf16, not in tf32"),
        ([64, 64, 10], "relu", {"dropout": Dropout(0.5)}, "it has no dropout"),
        ([64, 64, 10], "gelu", {}, "layer 2 is gelu, whose derivative"),
        ([64, 64, 64, 10], ["relu", "softmax"], {}, "layer 3 is softmax, whose derivative"),
        ([129, 64, 10], "relu", {}, "a layer has 129 neurons, and 128 is the most"),
        ([64] * 12, "relu", {}, "the gradient takes 176 registers of a thread, and 150 are the most"),
        ([128, 128, 128, 10], "relu", {}, "the gradient takes 136 registers of a thread, and 118 are the most"),
        ([64] * 12, "relu", {"precision": None}, "the gradient takes 176 registers of a thread, and 144 are the most"),
        ([64, 64, 10], "gelu", {"precision": None}, "layer 2 is gelu, whose derivative"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    fake_backend: CupyBackend, sizes: list[int], hidden: Any, others: dict[str, Any], message: str
) -> None:
    net, spec = spec_of(fake_backend, sizes, hidden, **others)
    with pytest.raises(ConfigurationError, match=f"there is no fused plan for this: .*{message}"):
        FusedPlan(spec, net, fake_backend, 0)


def test_a_network_of_float64_is_refused(fake_backend: CupyBackend) -> None:
    net = bp.MLP([4, 3, 2], "relu", seed=0, dtype="float64", backend=fake_backend)
    with pytest.raises(ConfigurationError, match="it needs a network of float32; this one is of float64"):
        bp.train(net, np.zeros((2, 4)), [0, 1], plan="fused")


@pytest.mark.parametrize(
    ("precision", "kib", "rows"),
    [
        ("bf16", (227, 224, 163, 92, 90), [128, 96, 64, 16, None]),
        (None, (227, 215, 214, 180, 179, 163, 162), [128, 128, 64, 64, 32, 32, None]),
    ],
)
def test_shared_memory_decides_about_the_tile(
    fake_backend: CupyBackend,
    monkeypatch: pytest.MonkeyPatch,
    precision: str | None,
    kib: tuple[int, ...],
    rows: list[int | None],
) -> None:
    _, spec = spec_of(fake_backend, [64] * 9 + [10], precision=precision)
    found = []
    for size in kib:
        properties = {"major": 9, "minor": 0, "sharedMemPerBlockOptin": size * 1024}
        monkeypatch.setattr(fake_backend.gpu, "properties", lambda known=properties: known)
        shape = choose_shape(spec, fake_backend)
        found.append(shape.rows if shape else None)
    assert found == rows
    reason = FusedPlan.supports(spec, fake_backend)
    assert reason is not None
    told = "16 samples take 92" if precision else "32 samples take 163"
    assert f"{told} KiB of shared memory; this device has {kib[-1]} KiB" in reason


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_other_precisions_are_refused(fake_backend: CupyBackend, precision: str) -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float32", backend=fake_backend)
    with pytest.raises(ConfigurationError, match=rf"'{precision}' is possible with plan='wide' only.*plan='fused'"):
        bp.train(net, np.zeros((2, 4)), [0, 1], precision=precision, plan="fused")


@pytest.mark.parametrize("precision", ["bf16", None])
def test_the_forecast_of_memory(fake_backend: CupyBackend, fake_cupy: FakeCupy, precision: str | None) -> None:
    net, spec = spec_of(fake_backend, [40, 60, 60, 60, 4], batch_size=1000, precision=precision)
    before = fake_cupy.used
    plan = FusedPlan(spec, net, fake_backend, 0)
    parts = plan.device_bytes(spec, fake_backend, net.layout.size)
    told, found = sum(parts.values()), fake_cupy.used - before
    assert abs(found - told) < 0.01 * told + 2**14, (parts, found)
    blocks = min(int(fake_backend.gpu.multiprocessors), -(-1000 // 128))
    assert parts["activations and Deltas"] == (0 if precision else 4 * blocks * 2 * 128 * 64)
    forecast = place("auto", spec, net, fake_backend, DataShape(1000, 40, 4), plan="fused").forecast
    assert forecast is not None
    assert forecast.parts["sums of the blocks"] == parts["sums of the blocks"]
