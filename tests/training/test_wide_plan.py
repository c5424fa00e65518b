"""The wide plan in lower precision, against a float64 reference: over the stand-in for CuPy, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import ConfigurationError, DivergenceError, UnknownNameError
from bpcore.functions.clipping import ClipNorm
from bpcore.functions.penalties import L2
from bpcore.training.spec import Dropout
from bpcore.training.wide import WidePlan
from tests.backends.fake_cublas import split_into_tf32, to_bfloat16
from tests.backends.fake_cupy import FakeCupy

EPSILON = {"tf32x3": 2.0**-22, "tf32": 2.0**-10, "bf16": 2.0**-8, "fp16": 2.0**-11}
"""What one rounding changes at most, relatively; the tensor cores may cut digits off TF32 instead of rounding. Of a
product, three of TF32 leave out 2**-22, and twice 2**-23 of its factors."""
LOWER = tuple(EPSILON)

# sizes, hidden activations, output, what else a trainer is told
SHAPES: dict[str, tuple[list[int], list[str], str, dict[str, Any]]] = {
    "relu": ([24, 40, 16, 5], ["relu", "relu"], "softmax", {}),
    "large": ([128, 256, 16], ["relu"], "softmax", {}),
    "odd": ([7, 13, 9, 3], ["tanh", "gelu"], "identity", {"penalty": L2(0.01)}),
    "dropped": ([8, 24, 16, 4], ["relu", "tanh"], "softmax", {"dropout": Dropout(0.3, per="sample")}),
    "masked": ([8, 24, 16, 4], ["sigmoid", "relu"], "softmax", {"dropout": Dropout(0.3), "clip": ClipNorm(10.0)}),
    "rows": ([8, 12, 40], ["softmax"], "softmax", {"dropout": Dropout(0.2)}),
}


def keep_clear_of_zero(net: Any, be: Any) -> None:
    """Move z of the hidden layers to about 1 and -1: next to 0, a rounding switches a ReLU on or off."""
    theta = np.array(be.to_numpy(net.theta))
    for block in net.layout.blocks:
        if block.layer < net.n_layers - 1:
            values = net.layout.view(theta, block)
            values[...] = 0.1 * values if block.name == "W" else 1 - 2 * (np.arange(values.size) % 3 % 2)
    be.copy(be.asarray(theta), out=net.theta)


def train_a_little(be: Any, shape: str, dtype: str, precision: str | None, plan: str, steps: int = 1) -> Any:
    """Return the network, the records and the last gradient after some steps."""
    sizes, hidden, output, others = SHAPES[shape]
    m = 128
    rng = np.random.default_rng(2)
    X = rng.normal(size=(256, sizes[0]))
    Y: Any = rng.normal(size=(256, sizes[-1])) if output == "identity" else rng.integers(0, sizes[-1], 256)
    net = bp.MLP(sizes, hidden, output, seed=1, dtype=dtype, backend=be)
    keep_clear_of_zero(net, be)
    trainer = bp.Trainer(
        net, optimizer=bp.Momentum(0.05), batch_size=m, seed=4, plan=plan, precision=precision, **others
    )
    records = trainer.run(X, Y, rng.integers(0, 256, (steps, m)))
    used: Any = trainer._plan
    return trainer, records, be.to_numpy(used.gradient).astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", LOWER)
def test_lower_precision_is_near_float64_and_not_float32(cupy_backend: CupyBackend, shape: str, precision: str) -> None:
    _, wanted_records, wanted = train_a_little(bp.get_backend("numpy"), shape, "float64", None, "reference")
    _, records, found = train_a_little(cupy_backend, shape, "float32", precision, "wide")
    scale, error = np.linalg.norm(wanted), np.linalg.norm(found - wanted)
    # The errors of some ten roundings, one after the other, come together as a random walk.
    assert error < 4 * EPSILON[precision] * scale
    # cuBLAS may compute small products in float32, and three products are as near as those
    if precision in ("bf16", "fp16") or (precision, shape) == ("tf32", "large"):
        assert error > 64 * 2.0**-24 * scale  # float32 is nearer
    np.testing.assert_allclose(records.loss, wanted_records.loss, rtol=8 * EPSILON[precision])


@pytest.mark.parametrize("precision", LOWER)
def test_training_in_lower_precision(cupy_backend: CupyBackend, precision: str) -> None:
    """Parameters are kept in float32: steps far below the spacing of 16 bits add up."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(256, 16))
    Y = (X[:, :4] @ rng.normal(size=(4, 3))).argmax(axis=1)
    losses = []
    for chosen in (precision, None):
        net = bp.MLP([16, 32, 3], seed=0, dtype="float32", backend=cupy_backend)
        run = bp.train(
            net, X, Y, optimizer=bp.Adam(0.002), epochs=12, batch_size=32, seed=1, plan="wide", precision=chosen
        )
        losses.append(run.history[-1]["loss"])
        assert run.record["spec"]["precision"] == (chosen or "float32")
        assert run.record["spec"]["dtype"] == "float32"
        assert ("loss_scaling" in run.record) == (chosen == "fp16")
    assert losses[0] < 0.9 * run.history[0]["loss"]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_auto_chooses_the_plan_that_can(cupy_backend: CupyBackend, precision: str) -> None:
    net = bp.MLP([4, 8, 3], seed=0, dtype="float32", backend=cupy_backend)
    run = bp.train(net, np.eye(4), [0, 1, 2, 0], epochs=1, precision=precision)
    assert run.record["plan"] == "wide"
    assert run.record["plan_why"].endswith(f"no other plan computes in {precision}")


def test_overflow_in_fp16_skips_the_step_and_halves_the_scale(cupy_backend: CupyBackend) -> None:
    """A target of 1e3 gives errors that the first scales carry beyond 65504."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(8, 4)), np.full((8, 2), 1e3)
    net = bp.MLP([4, 8, 2], "relu", "identity", seed=0, dtype="float32", backend=cupy_backend)
    trainer = bp.Trainer(net, "mse", bp.Momentum(1e-5), batch_size=8, plan="wide", precision="fp16")
    before = np.array(cupy_backend.to_numpy(net.theta))
    trainer.run(X, Y, [np.arange(8)])
    assert trainer.loss_scaling == {"scale": 32768.0, "skipped_steps": 1}
    np.testing.assert_array_equal(cupy_backend.to_numpy(net.theta), before)
    np.testing.assert_array_equal(cupy_backend.to_numpy(trainer.state.arrays["v"]), 0)
    assert trainer.state.step == 1
    trainer.run(X, Y, np.tile(np.arange(8), (40, 1)))
    found = trainer.loss_scaling
    assert found is not None
    assert 1 <= found["skipped_steps"] <= 16
    assert found["scale"] == 65536 / 2 ** found["skipped_steps"]
    assert not np.array_equal(cupy_backend.to_numpy(net.theta), before)
    assert np.isfinite(cupy_backend.to_numpy(net.theta)).all()


def test_the_scale_is_doubled_after_enough_good_steps(
    cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpcore.training.wide.GOOD_STEPS", 5)
    net = bp.MLP([4, 8, 2], "relu", "softmax", seed=0, dtype="float32", backend=cupy_backend)
    trainer = bp.Trainer(net, batch_size=8, plan="wide", precision="fp16")
    X, y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2
    scales = []
    for _ in range(11):
        trainer.run(X, y, [np.arange(8)])
        assert trainer.loss_scaling is not None
        scales.append(trainer.loss_scaling["scale"] / 65536)
    assert scales == [1] * 4 + [2] * 5 + [4] * 2


def test_an_overflow_of_the_forward_pass_is_divergence(cupy_backend: CupyBackend) -> None:
    """The loss scale cannot help where H itself is beyond 65504; float32 can, and says that nothing is wrong."""
    net = bp.MLP([4, 8, 2], "relu", "identity", seed=0, dtype="float32", backend=cupy_backend)
    X = np.full((8, 4), 1e6)
    trainer = bp.Trainer(net, "mse", bp.SGD(1e-20), batch_size=8, plan="wide", precision="fp16")
    with pytest.raises(DivergenceError):
        trainer.run(X, np.zeros((8, 2)), [np.arange(8)])


@pytest.mark.parametrize("precision", ["bf16", "tf32x3"])
def test_parameters_that_the_caller_changed_are_read(cupy_backend: CupyBackend, precision: str) -> None:
    X, y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2
    net = bp.MLP([4, 8, 2], seed=0, dtype="float32", backend=cupy_backend)
    trainer = bp.Trainer(net, optimizer=bp.SGD(0.01), batch_size=8, plan="wide", precision=precision)
    first = trainer.run(X, y, [np.arange(8)]).loss
    cupy_backend.fill(net.theta, 0.0)
    np.testing.assert_allclose(trainer.run(X, y, [np.arange(8)]).loss, np.log(2), rtol=1e-6)
    assert abs(first[0] - np.log(2)) > 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_products_read_theta_rounded_to_the_nearest(cupy_backend: CupyBackend, precision: str) -> None:
    """The update writes what the next products read, in the same pass; to the even one of two neighbours."""
    net = bp.MLP([40, 30, 3], seed=0, dtype="float32", backend=cupy_backend)
    theta = np.array(cupy_backend.to_numpy(net.theta))
    halfway = 1 + np.arange(1, 64, 2) * (2.0**-8 if precision == "bf16" else 2.0**-11)
    tiny = np.arange(32) * 2.0**-25  # subnormal numbers of fp16, and halfway between them
    theta[:96] = np.concatenate([halfway, tiny, -halfway])
    cupy_backend.copy(cupy_backend.asarray(theta), out=net.theta)
    trainer = bp.Trainer(net, optimizer=bp.SGD(0.1), batch_size=8, plan="wide", precision=precision)
    X = np.ones((8, 40))
    X[:, :4] = 0  # so that the numbers above stay as they are
    for steps in (1, 3):
        trainer.run(X, np.arange(8) % 3, np.tile(np.arange(8), (steps, 1)))
        plan: Any = trainer._plan
        moved, theta = theta, np.array(cupy_backend.to_numpy(net.theta))
        np.testing.assert_array_equal(theta[:96], moved[:96])
        assert not np.array_equal(theta, moved)
        wanted = to_bfloat16(theta) if precision == "bf16" else theta.astype(np.float16).view(np.uint16)
        np.testing.assert_array_equal(cupy_backend.to_numpy(plan._copy), wanted)


# ------------------------------------------------------------------------------------------ floats in two planes


@pytest.mark.parametrize("shape", SHAPES)
def test_two_planes_hold_what_is_read(cupy_backend: CupyBackend, shape: str) -> None:
    """After steps of whole batches and of a partial one: parameters, inputs, what is handed on, and errors."""
    trainer, _, _ = train_a_little(cupy_backend, shape, "float32", "tf32x3", "wide", steps=2)
    sizes = SHAPES[shape][0]
    X = np.random.default_rng(2).normal(size=(256, sizes[0])).astype(np.float32)
    for m in (128, 27):
        index = np.arange(m)[::-1].copy()
        Y: Any = np.zeros((256, sizes[-1])) if SHAPES[shape][2] == "identity" else np.arange(256) % sizes[-1]
        trainer.run(X, Y, [index])
        plan, to_numpy = trainer._plan, cupy_backend.to_numpy
        theta, size = to_numpy(trainer.net.theta), trainer.net.layout.size
        copy = to_numpy(plan._copy)
        for part, wanted in zip((copy[:size], copy[size:]), split_into_tf32(theta), strict=True):
            np.testing.assert_array_equal(part, wanted)
        found = to_numpy(plan._inputs_of[1])
        np.testing.assert_array_equal(found[:m] + found[m : 2 * m], X[index])
        for planes in [*plan._inputs_of.values(), *plan._Delta.values()]:
            planes = to_numpy(planes)
            high, low = planes[:m], planes[m : 2 * m]
            for part, wanted in zip((high, low), split_into_tf32(high + low), strict=True):
                np.testing.assert_array_equal(part, wanted)


def test_products_of_a_step_in_three(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    counts = []
    for precision in ("tf32", "tf32x3"):
        net = bp.MLP([8, 16, 24, 3], "relu", seed=0, dtype="float32", backend=fake_backend)
        trainer = bp.Trainer(net, batch_size=32, plan="wide", precision=precision)
        trainer.run(np.ones((32, 8)), np.arange(32) % 3, [np.arange(32)])
        before = fake_cupy.count["gemm"]
        trainer.run(np.ones((32, 8)), np.arange(32) % 3, [np.arange(32)])
        counts.append(fake_cupy.count["gemm"] - before)
    assert counts == [8, 24]


def test_an_overflow_is_divergence_and_no_other_number(cupy_backend: CupyBackend) -> None:
    """Activations beyond the largest float are infinities in two planes as in one: H, the loss and the report."""
    messages = []
    for precision in (None, "tf32x3"):
        net = bp.MLP([4, 8, 2], "relu", "identity", seed=0, dtype="float32", backend=cupy_backend)
        X = np.full((8, 4), 1e38)
        cupy_backend.fill(net.theta, 3.0)
        trainer = bp.Trainer(net, "mse", bp.SGD(1e-20), batch_size=8, plan="wide", precision=precision)
        with pytest.raises(DivergenceError) as caught:
            trainer.run(X, np.zeros((8, 2)), [np.arange(8)])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "inf" in messages[0]


# ------------------------------------------------------------------------------------------ ReLU inside the products


def passes(fake_cupy: FakeCupy, be: Any, sizes: list[int], dtype: str, precision: str | None) -> list[str]:
    """Names of the kernels of a step."""
    net = bp.MLP(sizes, "relu", seed=0, dtype=dtype, backend=be)
    trainer = bp.Trainer(net, batch_size=32, plan="wide", precision=precision)
    trainer.run(np.ones((32, sizes[0])), np.arange(32) % sizes[-1], [np.arange(32)])
    return [name for name, _, _ in fake_cupy.launches]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_relu_is_inside_the_products_of_16_bits(fake_backend: CupyBackend, fake_cupy: FakeCupy, precision: str) -> None:
    names = passes(fake_cupy, fake_backend, [8, 16, 24, 3], "float32", precision)
    assert "finish_forward" not in names
    assert names.count("finish_backward") == 2


@pytest.mark.parametrize(
    ("sizes", "precision"),
    [
        ([8, 16, 24, 3], None),
        ([8, 16, 24, 3], "tf32"),
        ([8, 16, 24, 3], "tf32x3"),
        ([8, 12, 20, 3], "bf16"),
    ],
)
def test_relu_is_a_pass_of_its_own_elsewhere(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, sizes: list[int], precision: str | None
) -> None:
    names = passes(fake_cupy, fake_backend, sizes, "float32", precision)
    assert names.count("finish_forward") == names.count("finish_backward") == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_relu_inside_and_outside_agree(
    cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    found = []
    for inside in (True, False):
        monkeypatch.setattr(WidePlan, "epilogues", inside)
        found.append(train_a_little(cupy_backend, "relu", "float32", precision, "wide")[2])
    assert not np.array_equal(*found)  # the sums are rounded to 16 bits after the bias instead of before
    # each is within four roundings of float64, as above
    assert np.linalg.norm(found[0] - found[1]) < 8 * EPSILON[precision] * np.linalg.norm(found[1])


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_other_backends_are_refused(precision: str, backend: str) -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float32", backend=backend)
    with pytest.raises(ConfigurationError, match=rf"precision='{precision}' needs an NVIDIA GPU.*backend {backend}"):
        bp.train(net, np.zeros((2, 4)), [0, 1], precision=precision, allow_one_class=True)


@pytest.mark.parametrize("plan", ["graph", "reference"])
def test_other_plans_are_refused(fake_backend: CupyBackend, plan: str) -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float32", backend=fake_backend)
    with pytest.raises(
        ConfigurationError, match=rf"'bf16' is possible with plan='wide' or plan='fused' only.*plan='{plan}'"
    ):
        bp.train(net, np.zeros((2, 4)), [0, 1], precision="bf16", plan=plan)


def test_a_dtype_that_does_not_fit_is_refused() -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float64", backend="numpy")
    with pytest.raises(ConfigurationError, match=r"precision='tf32' needs a network of float32; this one"):
        bp.Trainer(net, precision="tf32")
    with pytest.raises(ConfigurationError, match="precision='float32' needs a network of float32"):
        bp.Trainer(net, precision="float32")
    assert bp.Trainer(net, precision="float64").precision is None
    with pytest.raises(
        UnknownNameError, match=r"unknown precision 'fp8'; known: float32, tf32x3, tf32, bf16, fp16, float64"
    ):
        bp.Trainer(net, precision="fp8")


def test_full_batch_optimizers_are_refused(fake_backend: CupyBackend) -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float32", backend=fake_backend)
    with pytest.raises(ConfigurationError, match="precision='tf32' is for steps of gradient descent"):
        bp.train(net, np.zeros((2, 4)), [0, 1], optimizer=bp.LBFGS(), precision="tf32")


def test_an_old_gpu_is_refused(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    net = bp.MLP([4, 2], seed=0, dtype="float32", backend=fake_backend)
    monkeypatch.setattr(fake_backend.gpu, "properties", lambda: {"major": 7, "minor": 5})
    message = r"needs compute capability 8\.0; this GPU has 7\.5\. Possible here: fp16"
    with pytest.raises(ConfigurationError, match=message):
        bp.train(net, np.zeros((2, 4)), [0, 1], precision="bf16")
