"""The race on a GPU, without one: what it counts, whom it believes, and that its kernels compile."""

from __future__ import annotations

import doctest
import gc
import importlib
import itertools
import json
import math
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import bpcore as bp
from bpcore.bench.problem import Problem
from bpcore.bench.process import serve
from bpcore.bench.witness import losses
from bpcore.kernels.cuda import build
from bpcore.training.plans import choose_plan
from tests.backends.conftest import fake_backend, fake_cupy

__all__ = ["fake_backend", "fake_cupy"]

# by name, because the benchmarks are no part of what is type-checked
adapters: Any = importlib.import_module("benchmarks.peers.adapters")
contestants: Any = importlib.import_module("benchmarks.gpu.contestants")
costs: Any = importlib.import_module("benchmarks.gpu.costs")
cpu: Any = importlib.import_module("benchmarks.peers.workloads")
gpu_race: Any = importlib.import_module("benchmarks.gpu.race")
profile: Any = importlib.import_module("benchmarks.gpu.profile")
results: Any = importlib.import_module("benchmarks.peers.results")
with_numpy: Any = importlib.import_module("benchmarks.peers.adapters.with_numpy")
worker: Any = importlib.import_module("benchmarks.gpu.worker")
workloads: Any = importlib.import_module("benchmarks.gpu.workloads")


def test_the_examples() -> None:
    for module in (gpu_race, contestants):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


# ------------------------------------------------------------------------------------------ floors


class Counted:
    """A matrix that counts the operations of the products it takes part in."""

    __array_priority__ = 1000
    flops = 0

    def __init__(self, array: Any) -> None:
        self.array = array

    def __matmul__(self, other: Counted) -> Counted:
        (m, k), (_, n) = self.array.shape, other.array.shape
        Counted.flops += 2 * m * k * n
        return Counted(self.array @ other.array)

    @property
    def T(self) -> Counted:
        return Counted(self.array.T)


@pytest.mark.parametrize("name", sorted(workloads.WORKLOADS))
def test_operations_are_those_of_the_four_equations(name: str) -> None:
    """Counted once more, by multiplying matrices (of one batch and few columns) as BP2 and BP4 say."""
    work = workloads.WORKLOADS[name]
    sizes, batch = [-(-n // 32) for n in work.sizes], 4
    small = replace(work, sizes=tuple(sizes), batch=batch)
    H = [Counted(np.ones((batch, sizes[0])))]
    W = [Counted(np.ones(pair)) for pair in itertools.pairwise(sizes)]
    Counted.flops = 0
    for matrix in W:
        H.append(H[-1] @ matrix)
    delta = H[-1]
    for l in range(len(W) - 1, -1, -1):
        assert (H[l].T @ delta).array.shape == W[l].array.shape
        if l:
            delta = delta @ W[l].T
    assert small.flops() == Counted.flops


def test_the_floor_by_hand() -> None:
    work = cpu.RacedWorkload("train", (3, 4, 2), "tanh", "softmax", "cross_entropy", "adam", 5, 50, 6, 0.1)
    # inputs 15 and the number of each class 5; theta has 26 numbers, Adam two more vectors, all read and written
    assert workloads.least_bytes(work, on_chip=0) == 4 * (15 + 5 + 2 * 3 * 26)
    assert workloads.least_bytes(work, on_chip=4 * 3 * 26) == 4 * (15 + 5)
    assert workloads.least_bytes(replace(work, loss="mse", optimizer="sgd"), 0) == 4 * (15 + 10 + 2 * 26)
    measured: dict[str, Any] = {
        "second_level_cache": 0,
        "parts": {"products": {"best_tflops": {"float32": 2.0, "bfloat16": 8.0}}, "copies": {"device_gb_per_s": 4.0}},
    }
    found = workloads.floor(work, measured)
    assert found == {
        "flop_us": pytest.approx(480 / 2e6), "byte_us": pytest.approx(4 * 176 / 4e3), "us": pytest.approx(0.176),
    }  # fmt: skip
    assert workloads.floor(replace(work, precision="bf16"), measured)["flop_us"] == pytest.approx(480 / 8e6)
    assert workloads.floor(replace(work, precision="tf32"), measured) is None, "that rate was not measured"
    measured["parts"]["products"]["best_tflops"]["tf32"] = 4.0
    assert workloads.floor(replace(work, precision="tf32x3"), measured)["flop_us"] == pytest.approx(3 * 480 / 4e6)
    assert workloads.floor(work, {}) is None


# ------------------------------------------------------------------------------------------ parity


@pytest.mark.parametrize("name", sorted(workloads.WORKLOADS))
def test_who_does_not_learn_has_no_parity(name: str) -> None:
    """Losses of an untrained network are further away than the tolerance: agreement shows that it was trained.

    Wide layers are made narrower, and mini-batches smaller, than in the race.
    """
    work = workloads.WORKLOADS[name]
    if work.flops() > 1e9:
        work = replace(work, sizes=tuple(min(n, 256) for n in work.sizes), batch=64, rows=512)
    problem = Problem.make(work)
    with threadpool_limits(1):  # threads of BLAS spin while they wait for each other; beside other tests it takes long
        frozen = losses(replace(work, eta=0.0), problem, chunks=1)
        expected = losses(work, problem, chunks=1)
    assert results.difference(frozen, expected) > 1.3 * workloads.PARITY[work.precision]


def row_of(off: list[float], rounds: list[float] | None = None) -> dict[str, Any]:
    return {"status": "ok", "off": off, "prepared_in_s": 0.1} | ({} if rounds is None else {"rounds": rounds})


@pytest.mark.parametrize(("precision", "off"), [("float32", 2e-4), ("tf32x3", 2e-4), ("tf32", 6e-4), ("bf16", 3e-3)])
def test_parity_is_judged_by_the_precision(precision: str, off: float) -> None:
    work = replace(cpu.SMOKE, precision=precision)
    rows = {
        "torch-eager": row_of([off / 4, off / 4], [30.0, 10.0, 20.0]), "torch-graph": row_of([1e-9, off], [5.0]),
        "bpcore-graph": row_of([1e-9, math.nan], [1.0]), "jax-scan": row_of([1e-9]),
        "bpcore-auto": row_of([0.0], [10.0]), "bpcore-wide": {"status": "failed", "why": "x", "off": [0.0]},
    }  # fmt: skip
    found = gpu_race.judge(work, rows)
    assert {name: row["status"] for name, row in rows.items()} == {
        "torch-eager": "ok", "torch-graph": "differs", "bpcore-graph": "differs", "jax-scan": "not done",
        "bpcore-auto": "ok", "bpcore-wide": "failed",
    }  # fmt: skip
    assert found["best_torch"] == "torch-eager", "who computes something else is nobody's measure"
    assert rows["bpcore-auto"]["over_best_torch"] == 0.5
    assert rows["torch-graph"]["over_best_torch"] == 0.25
    json.dumps(found, allow_nan=False)


# ------------------------------------------------------------------------------------------ the race, in this process


class InThisProcess:
    """A worker without a process."""

    started: list[str] = []  # noqa: RUF012  (emptied by the fixture)

    def __init__(self, name: str, threads: int) -> None:
        self.holder, self.alive = worker.GpuHolder(name, threads), True
        self.started.append(name)

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        replies: list[str] = []
        serve(self.holder, [json.dumps({"do": do, **arguments})], replies.append)
        return dict(json.loads(replies[0]))

    def close(self) -> None:
        self.alive = False


def frozen(runner: Any) -> None:
    runner.update = lambda: None


def raises(runner: Any) -> None:
    def run(order: Any) -> Any:
        raise ArithmeticError("no more\nthan this")

    runner.run = run


def raises_later(runner: Any) -> None:
    run, runs = runner.run, [0]

    def tiring(order: Any) -> Any:
        runs[0] += 1
        if runs[0] > 2:
            raise ArithmeticError("tired")
        return run(order)

    runner.run = tiring


def lazy(runner: Any) -> None:
    run = runner.run
    runner.run = lambda order: run(order) if len(order) <= 8 else run(order)[1:]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Races without processes, among NumPy's form and some that are planted."""
    planted = types.ModuleType("benchmarks.gpu.planted")
    monkeypatch.setitem(sys.modules, "benchmarks.gpu.planted", planted)

    def plant(name: str, spoil: Any) -> None:
        def prepare(work: Any, problem: Any, threads: int) -> Any:
            runner = with_numpy.prepare(work, problem, threads)
            spoil(runner)
            return runner

        setattr(planted, name, prepare)
        monkeypatch.setitem(contestants.CONTESTANTS, name, adapters.Contestant("planted", name, ("numpy",)))

    for spoil in (frozen, raises, raises_later, lazy):
        plant(spoil.__name__, spoil)
    plant("right", lambda runner: None)
    plant("jax-scan", lambda runner: None)  # one of those that have a process for each workload
    monkeypatch.setitem(contestants.CONTESTANTS, "absent", adapters.Contestant("no_such_adapter", "x", ("numpy",)))
    monkeypatch.setattr(gpu_race, "start_worker", InThisProcess)
    monkeypatch.setattr(InThisProcess, "started", [])
    monkeypatch.setattr(gpu_race, "SECONDS", 0.01)


def raced(rows: list[str], names: list[str], seconds: float = 60.0) -> dict[str, Any]:
    written: list[str] = []
    found = gpu_race.run(rows, names, seconds, lambda result: written.append(json.dumps(result)), lambda text: None)
    assert len(written) == sum(bool(row["contestants"]) for row in found["rows"].values())
    return dict(found)


@pytest.mark.usefixtures("in_process")
def test_planted_contestants_are_found_out() -> None:
    names = ["right", "frozen", "raises", "raises_later", "lazy", "absent", "jax-scan"]
    rows = raced(["smoke"], names)["rows"]["smoke"]["contestants"]
    assert {name: row["status"] for name, row in rows.items()} == {
        "right": "ok", "frozen": "differs", "raises": "failed", "raises_later": "failed", "lazy": "failed",
        "absent": "skipped", "jax-scan": "ok",
    }  # fmt: skip
    assert rows["raises"]["why"] == "ArithmeticError: no more"
    assert rows["absent"]["why"] == "not installed: benchmarks.gpu.no_such_adapter"
    assert "losses came back" in rows["lazy"]["why"]
    assert rows["frozen"]["off"] > workloads.PARITY["float32"] > rows["right"]["off"]
    times = rows["right"]["us_per_step"]
    assert len(times["rounds"]) == gpu_race.ROUNDS
    assert times["least"] <= times["median"] <= max(times["rounds"])


@pytest.mark.usefixtures("in_process")
def test_who_failed_gets_a_new_process_and_who_did_not_keeps_its_own() -> None:
    raced(["smoke", "tabular"], ["right", "raises", "jax-scan"])
    assert {name: InThisProcess.started.count(name) for name in ("right", "raises", "jax-scan")} == {
        "right": 1, "raises": 2, "jax-scan": 2,
    }  # fmt: skip


@pytest.mark.parametrize("precision", workloads.PARITY)
@pytest.mark.parametrize("width", [5, 200])
def test_only_who_can_compute_in_a_precision_compiles(precision: str, width: int, fake_backend: Any) -> None:
    """Whom no process is started for refuses, over the stand-in as on a GPU."""
    sizes = (6, width, 3)
    spec = bp.Trainer(
        bp.MLP(sizes, backend=fake_backend, dtype="float32"), "cross_entropy", bp.SGD(0.1), batch_size=4,
        precision=None if precision == "float32" else precision,
    ).spec(weighted=False, classes=True)  # fmt: skip
    net = bp.MLP(sizes, output="softmax", backend=fake_backend, dtype="float32")
    work = replace(workloads.get_workload("smoke"), sizes=sizes, precision=precision)
    for name in contestants.KEEPS_KERNELS:
        if not contestants.compiles(name, work) and contestants.on_gpu(name):
            with pytest.raises(bp.errors.ConfigurationError):
                choose_plan(name.removeprefix("bpcore-"), spec, net, fake_backend, 0)
    assert contestants.compiles("bpcore-auto", work)
    assert contestants.compiles("bpcore-wide", work)


@pytest.mark.usefixtures("in_process")
def test_the_witness_computes_once_and_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precisions of one workload are judged by the same losses."""
    told: list[str] = []

    def witness(work: Any, problem: Any, chunks: int) -> Any:
        told.append("witness")
        return losses(work, problem, chunks)

    monkeypatch.setattr(gpu_race, "losses", witness)
    monkeypatch.setitem(workloads.WORKLOADS, "first", cpu.SMOKE)
    monkeypatch.setitem(workloads.WORKLOADS, "second", replace(cpu.SMOKE, precision="tf32", at_most_us=9.0))
    found = gpu_race.run(["first", "second"], ["right"], 60.0, lambda result: None, told.append)
    assert told.count("witness") == 1
    assert told.index("witness") < told.index("first: preparing")
    assert {found["rows"][row]["contestants"]["right"]["status"] for row in ("first", "second")} == {"ok"}


def test_what_was_prepared_is_not_looked_through_for_garbage_in_each_round() -> None:
    holder = worker.GpuHolder("bpcore-numpy", 1)
    gc.unfreeze()
    try:
        assert holder.load()["status"] == holder.prepare("smoke")["status"] == "ok"
        assert gc.get_freeze_count() > 10_000, "modules are most of it"
        assert holder.round(chunks=1, warm=0)["status"] == "ok"
        holder.release()
        assert gc.get_freeze_count() == 0, "a workload that is over is garbage"
    finally:
        gc.unfreeze()


def test_who_computes_on_the_processor_chooses_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_race, "Worker", lambda *arguments: arguments)
    monkeypatch.delenv(contestants.DRY_RUN, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    module, words, environment, folder = gpu_race.start_worker("torch-eager", 4)
    assert (module, words) == ("benchmarks.gpu.worker", ["torch-eager", "4"])
    assert (folder / "benchmarks" / "gpu" / "worker.py").is_file()
    assert (environment["JAX_PLATFORMS"], environment["OMP_NUM_THREADS"], environment["NPROC"]) == ("cuda", "4", "4")
    environment = gpu_race.start_worker("bpcore-numba", 4)[2]
    assert not {"OMP_NUM_THREADS", "BPCORE_NUM_THREADS", "NPROC"} & set(environment)
    monkeypatch.setenv(contestants.DRY_RUN, "1")
    assert gpu_race.start_worker("jax-scan", 4)[2]["JAX_PLATFORMS"] == "cpu"


@pytest.mark.usefixtures("in_process")
def test_without_time_nothing_is_run() -> None:
    found = raced(["smoke"], ["right"], seconds=0.0)
    assert found["status"] == "out of time"
    assert found["rows"]["smoke"] == {"contestants": {}, "why": "out of time"}


def test_a_plan_that_is_not_there_is_not_supported_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with_bpcore: Any = importlib.import_module("benchmarks.gpu.with_bpcore")
    import bpcore as bp

    numpy_backend = bp.get_backend("numpy")
    monkeypatch.setattr(bp, "get_backend", lambda name: numpy_backend)
    problem = Problem.make(cpu.SMOKE)
    with pytest.raises(adapters.Skip, match="not supported: unknown plan 'no-such-plan'"):
        with_bpcore.prepare(cpu.SMOKE, problem, 1, plan="no-such-plan")
    with pytest.raises(adapters.Skip, match="not supported"):
        with_bpcore.prepare(replace(cpu.SMOKE, precision="bf16"), problem, 1, plan="reference")
    runner = with_bpcore.prepare(cpu.SMOKE, problem, 1, plan="reference")
    runner.reset()
    found = runner.evidence(runner.run(problem.order(0, 1)))
    assert results.difference(found, losses(cpu.SMOKE, problem, chunks=1)) < workloads.PARITY["float32"]
    assert (runner.facts["ran"], runner.facts["why"]) == ("reference", "asked for")
    with pytest.raises(adapters.Skip, match="numpy computes in float32"):
        with_bpcore.prepare_cpu(replace(cpu.SMOKE, precision="tf32"), problem, 1, backend="numpy")


@pytest.mark.witness
@pytest.mark.parametrize("function", ["prepare_eager", "prepare_graph"])
@pytest.mark.parametrize("name", ["smoke", "nielsen", "tabular", "regression-tiny"])
def test_pytorch_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch, name: str, function: str) -> None:
    pytest.importorskip("torch")
    with_torch: Any = importlib.import_module("benchmarks.gpu.with_torch")
    monkeypatch.setenv(contestants.DRY_RUN, "1")
    monkeypatch.setattr(with_torch.torch.cuda, "is_available", lambda: False)
    work = replace(workloads.get_workload(name), chunk=16)
    problem = Problem.make(work)
    expected = losses(work, problem, chunks=2)
    runner = getattr(with_torch, function)(work, problem, 1)
    for _ in range(2):  # the second time shows whether reset forgets everything
        runner.reset()
        found = runner.evidence(runner.run(problem.order(0, 2)))
        assert results.difference(found, expected) < workloads.PARITY["float32"]


# ------------------------------------------------------------------------------------------ costs


def test_the_kernels_compile() -> None:
    """By whichever compiler is here; those of clusters are for compute capability 9.0."""
    source = Path(costs.__file__).with_name("costs.cu").read_text("utf-8")
    try:
        build.compile_with_nvrtc('extern "C" __global__ void probe() {}', "sm_90")
        compiler: Any = build.compile_with_nvrtc
    except ImportError:
        if not shutil.which("nvcc"):
            pytest.skip("neither NVRTC nor nvcc is here")
        compiler = build.compile_with_nvcc
    names = ["empty", "small", "hold", "block_barrier", "grid_barrier"]
    for arch, clusters in (("sm_80", []), ("sm_90", [f"cluster_barrier_{n}" for n in costs.CLUSTERS])):
        code = compiler(source, arch)
        assert [name for name in [*names, *clusters] if name.encode() not in code] == []


def test_a_measurement_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bench: Any) -> dict[str, Any]:
        raise RuntimeError("no cluster\nat all")

    bench = types.SimpleNamespace(multiprocessors=2, properties={"l2CacheSize": 7})
    monkeypatch.setattr(costs, "MEASUREMENTS", {"bad": fails, "good": lambda bench: {"us": 1.0}})
    written: list[int] = []
    found = costs.measure(lambda result: written.append(len(result["parts"])), lambda: bench)
    assert written == [1, 2]
    assert (found["status"], found["second_level_cache"]) == ("failed", 7)
    assert found["parts"]["bad"]["why"] == "RuntimeError: no cluster"
    assert (found["parts"]["good"]["status"], found["parts"]["good"]["us"]) == ("ok", 1.0)


def test_predictions_on_the_processor_are_those_of_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    inference: Any = importlib.import_module("benchmarks.gpu.inference")
    net = bp.MLP([6, 9, 3], "relu", "softmax", seed=3, dtype="float32", backend="numpy")
    samples = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    X = types.SimpleNamespace(cpu=lambda: types.SimpleNamespace(numpy=lambda: samples))
    found: list[Any] = []

    class Tensor(types.SimpleNamespace):
        def __len__(self) -> int:
            return len(samples)

    def us(call: Any, wait: Any) -> float:
        found.append(np.array(call()))
        return 7.0

    monkeypatch.setattr(inference, "us", us)
    assert inference.on_the_processor(net, Tensor(**vars(X))) == {"numba_us": 7.0, "numpy_us": 7.0}
    for H in found:
        np.testing.assert_allclose(H, net.predict(samples), rtol=1e-5)
    monkeypatch.setattr(inference, "MOST_FLOPS", 2 * 5 * (6 * 9 + 9 * 3) - 1)
    assert inference.on_the_processor(net, Tensor(**vars(X))) == {}, "a call that takes too long"


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        (None, "PyTorch is not installed"),
        (
            types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False)),
            "this PyTorch finds no CUDA device",
        ),
    ],
    ids=["none", "that of a processor"],
)
def test_without_pytorch_its_measurements_are_left_out_and_nothing_has_failed(
    monkeypatch: pytest.MonkeyPatch, torch: Any, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    bench = types.SimpleNamespace(multiprocessors=2, properties={"l2CacheSize": 7}, capability=89)
    chosen = {
        "products": costs.products,
        "steps": costs.steps,
        "inference": costs.inference,
        "good": lambda _: {"us": 1},
    }
    monkeypatch.setattr(costs, "MEASUREMENTS", chosen)
    found = costs.measure(lambda result: None, lambda: bench)
    assert found["status"] == "ok"
    assert {part["why"] for name, part in found["parts"].items() if name != "good"} == {why}
    assert {part["status"] for part in found["parts"].values()} == {"skipped", "ok"}
    assert workloads.floor(cpu.SMOKE, found) is None


class PlayedTorch:
    """As much of PyTorch as products ask for, on a GPU whose products of float64 take a quarter of a second."""

    float32, float64, float16, bfloat16 = "float32", "float64", "float16", "bfloat16"

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.now = 0.0
        self.cuda = types.SimpleNamespace(Event=lambda enable_timing: self.Event(self), empty_cache=lambda: None)
        self.cuda.is_available = lambda: True

    class Event:
        def __init__(self, torch: PlayedTorch) -> None:
            self.torch = torch

        def record(self) -> None:
            self.at = self.torch.now

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: Any) -> float:
            return float(other.at - self.at)

    def set_float32_matmul_precision(self, how: str) -> None:
        pass

    def randn(self, *shape: int, device: str) -> Any:
        return types.SimpleNamespace(to=lambda dtype: dtype)

    def empty_like(self, dtype: str) -> str:
        return dtype

    def mm(self, A: str, B: str, out: str) -> None:
        self.calls[A] = self.calls.get(A, 0) + 1
        self.now += 250.0 if A == "float64" else 1.0


def test_slow_products_do_not_take_minutes_and_absent_ones_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = PlayedTorch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = costs.products(types.SimpleNamespace(capability=75))
    assert set(found["best_tflops"]) == {"float32", "float16", "float64"}, "nothing is called tf32 that is not"
    assert found["tflops"]["float64 4096"] == pytest.approx(2e-6 * 4096**3 / 250e3)
    assert torch.calls["float64"] <= 4 * len(costs.SIZES)
    assert torch.calls["float16"] > 20 * len(costs.SIZES)
    assert "bfloat16" in costs.products(types.SimpleNamespace(capability=80))["best_tflops"]


def test_what_is_started_by_itself_says_why_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cupy" in [status.name for status in bp.backends() if status.usable]:
        pytest.skip("there is a GPU here")
    inference: Any = importlib.import_module("benchmarks.gpu.inference")
    assert inference.main() == 2
    assert capsys.readouterr().err.startswith("nothing was measured: backend 'cupy' cannot run: ")
    assert costs.main(["--output", str(tmp_path / "costs.json")]) == 1
    assert capsys.readouterr().out.startswith("the GPU: failed: ")
    crossovers: Any = importlib.import_module("benchmarks.gpu.crossovers")
    assert crossovers.main(["--output", str(tmp_path / "crossovers.json")]) == 1
    assert "backend 'cupy' cannot run: " in capsys.readouterr().out
    assert json.loads((tmp_path / "crossovers.json").read_text("utf-8"))["status"] == "failed"


@pytest.mark.parametrize("plan", ["auto", "wide"])
def test_a_profile_without_a_gpu_says_so(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "cupy" in [status.name for status in bp.backends() if status.usable]:
        pytest.skip("there is a GPU here")
    assert profile.main(["nielsen", plan]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("nothing was measured: backend 'cupy' cannot run")
    assert not captured.out
