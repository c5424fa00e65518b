"""Which plan is the fastest for which size of a step, and which is chosen: ``python -m benchmarks.gpu.crossovers``.

``bpcore.training.plans`` chooses by two numbers, the operations of a step up to which the persistent plan is taken
where it fits, and those from which the wide one is. Here a grid of networks and batch sizes is timed with each plan,
those first whose steps are nearest to one of the numbers, and what was fastest is set beside what is chosen. ``bpcore
tune`` does the same for one machine, with fewer networks and all backends; how ranges follow from times is its part.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import time
import unittest.mock
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import bpcore as bp
from benchmarks.gpu import with_bpcore
from benchmarks.gpu.race import plan as chunks_of
from benchmarks.gpu.telling import telling
from benchmarks.peers.adapters import Skip
from bpcore.backends.cupy_products import CudaProducts
from bpcore.bench.networks import custom_network
from bpcore.bench.problem import Problem
from bpcore.bench.runner import make_rule
from bpcore.bench.tune import ranges
from bpcore.bench.workload import Workload
from bpcore.errors import BackendError
from bpcore.training import plans
from bpcore.training.persistent import best_shape
from bpcore.training.spec import StepSpec

__all__ = ["Point", "grid", "measure"]

OUTPUTS = 10
SMALL = {"inputs": (256, 784), "widths": (32, 64, 128, 256), "depths": (1, 2, 3), "batches": (16, 32, 64, 128, 256)}
LARGE = {"inputs": (256, 784), "widths": (256, 512, 1024, 2048), "depths": (1, 2, 3), "batches": (8, 64, 512, 4096)}
NARROW = {"inputs": (64,), "widths": (16, 64, 128), "depths": (2, 6), "batches": (512, 8192, 65536)}
"""Networks of one width in their hidden layers: where the persistent plan may fit, where cuBLAS may be faster than our
own products, and where a fused step may be faster than one by cuBLAS, in bf16 and in float32."""

LEAST_FLOPS, MOST_DISTANCE = 2e6, math.log(30)
"""Small steps are persistent without question; far from where the wide plan is chosen there is none either."""

PLANS = ("persistent", "graph", "wide")
SWITCHES = {"late": "early", "apart": "clusters"}
"""A plan ``graph-late`` or ``graph-apart`` does without something of :class:`CudaProducts`: what does it gain?"""
SIZES_MATTER = ("persistent", "fused")
"""Plans whose kernels are compiled for each network; those of the others are shared by all."""
EVERY = 6
"""Every so many points are compiled for all plans."""
HOPPER = {"major": 9, "minor": 0, "multiProcessorCount": 132, "sharedMemPerBlockOptin": 232448}

ROUNDS, ROUND_SECONDS = 3, 0.03
CHUNK_FLOPS = 10**11
COMPILE_SHARE = 0.5
LEAST = 3.0
"""Seconds that must be left for a point to be begun."""

COMPILERS = max(1, min(12, (os.cpu_count() or 1) - 4))


@dataclass(frozen=True)
class Point:
    """A network and a batch size in a precision, and the plans that are compared there."""

    sizes: tuple[int, ...]
    batch: int
    precision: str = "float32"
    plans: tuple[str, ...] = PLANS

    @property
    def work(self) -> Workload:
        """How it is trained; a chunk is a few milliseconds, that of a large step has few steps."""
        work = custom_network(self.sizes).workload(self.batch, "train", self.precision)
        return replace(work, chunk=max(8, min(work.chunk, CHUNK_FLOPS // work.flops())))

    def far(self, flops: float) -> float:
        """How far its step is from a size, as a logarithm."""
        return abs(math.log(self.work.flops() / flops))

    def spec(self) -> StepSpec:
        """What its step is, without a device."""
        work = self.work
        net = bp.MLP(work.sizes, work.activation, work.output, init="zeros", dtype=work.dtype, backend="numpy")
        trainer = bp.Trainer(net, work.loss, make_rule(work), batch_size=work.batch)
        return trainer.spec(weighted=False, classes=work.output == "softmax")


def networks(of: Mapping[str, Sequence[int]], **more: Any) -> list[Point]:
    """Return all points of a family."""
    each = product(of["inputs"], of["widths"], of["depths"], of["batches"])
    return [Point((inputs, *(width,) * depth, OUTPUTS), batch, **more) for inputs, width, depth, batch in each]


def grid(properties: Mapping[str, Any] | None = None) -> list[Point]:
    """Return all points: two of the middle, then four families in turn, of each the most informative ones first.

    Parameters
    ----------
    properties : mapping, optional
        Of the device, which decide what fits on the chip; by default those of a Hopper GPU.
    """
    properties = properties or HOPPER
    large = [replace(point, plans=("graph", "wide")) for point in networks(LARGE)]
    large = [point for point in large if point.far(plans.WIDE_FLOPS) < MOST_DISTANCE]
    small = [point for point in networks(SMALL) if point.work.flops() >= LEAST_FLOPS]
    small = [point for point in small if best_shape(point.spec(), properties) is not None]
    small.sort(key=lambda point: point.far(plans.ON_CHIP_FLOPS))
    large.sort(key=lambda point: point.far(plans.WIDE_FLOPS))
    lower = networks(NARROW, precision="bf16", plans=("wide", "fused"))
    lower.sort(key=lambda point: -point.batch)
    narrow = [replace(point, precision="float32", plans=("graph", "wide", "fused")) for point in lower]
    families = [point for some in zip_longest(small, large, lower, narrow) for point in some if point is not None]
    switched = ("graph", *(f"graph-{switch}" for switch in SWITCHES))
    middle = [Point((784, 512, 512, OUTPUTS), batch, plans=switched) for batch in (128, 16)]
    return [*middle, *families]


# ------------------------------------------------------------------------------------------ on a GPU, and to rehearse


def on_gpu(work: Workload, problem: Problem, plan: str) -> Any:
    """Return a runner that has taken a step."""
    plan, _, switch = plan.partition("-")
    if not switch:
        return with_bpcore.prepare(work, problem, 1, plan)
    with unittest.mock.patch.object(CudaProducts, SWITCHES[switch], False):
        return with_bpcore.prepare(work, problem, 1, plan)


def chosen_on_gpu(runner: Any) -> str:
    """Which plan is taken where none is asked for."""
    spec = runner.trainer.spec(weighted=False, classes=runner.work.output == "softmax")
    return str(plans.kind_on_gpu("auto", spec, runner.be)[0].name)


def rehearsed(work: Workload, problem: Problem, plan: str) -> Any:
    """The same on the processor, in a dry run."""
    return with_bpcore.prepare_on_cpu(work, problem, 1, plan, "numba")


def here() -> Mapping[str, Any] | None:
    """Properties of the device; None without one."""
    try:
        return bp.get_backend("cupy").gpu.properties()
    except BackendError:
        return None


def compile_point(point: Point, plan: str) -> str:
    """Build the kernels, in a process of their own; they stay on the disk."""
    try:
        on_gpu(point.work, Problem.make(point.work), plan)
    except Skip as why:
        return str(why)
    return ""


def compile_all(points: Sequence[Point], seconds: float) -> int:
    """Build the kernels of all points by several processes, the first ones first; return how many were done."""
    jobs = [
        (point, plan) for k, point in enumerate(points) for plan in point.plans
        if plan in SIZES_MATTER or k % EVERY == 0
    ]  # fmt: skip
    pool = ProcessPoolExecutor(min(COMPILERS, len(jobs)), multiprocessing.get_context("spawn"))
    try:
        waiting = [pool.submit(compile_point, *job) for job in jobs]
        return len(wait(waiting, seconds).done)
    finally:
        pool.shutdown(cancel_futures=True)  # waits for those that are running: nothing is timed beside them


# ------------------------------------------------------------------------------------------ timing


def look(point: Point, make: Callable[..., Any], choose: Callable[[Any], str]) -> dict[str, Any]:
    """Time a point with each plan, in rounds over all plans; say what was the fastest and what is chosen."""
    work = point.work
    problem = Problem.make(work)
    row: dict[str, Any] = {"sizes": list(point.sizes), "batch": point.batch, "precision": point.precision}
    row |= {"flops": work.flops(), "us": {}, "refused": {}, "chosen": None}
    runners: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name in point.plans:
        try:
            runner = make(work, problem, name)
            runner.reset()
            runner.run(runner.stage(problem.order(0, 1)))
            seconds[name] = timed(runner, problem, 1) * work.chunk
            row["chosen"] = row["chosen"] or choose(runner)
            runners[name] = runner
        except Skip as why:
            row["refused"][name] = str(why)
        except Exception as error:
            row["refused"][name] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
    found: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            chunks = chunks_of(max(seconds[name], 1e-6), ROUND_SECONDS)[0]
            found[name].append(timed(runner, problem, chunks))
    row["us"] = {name: 1e6 * statistics.median(times) for name, times in found.items()}
    if row["us"]:
        row["fastest"] = min(row["us"], key=row["us"].__getitem__)
        if row["chosen"] in row["us"]:
            row["over_fastest"] = row["us"][row["chosen"]] / row["us"][row["fastest"]]
    return row


def timed(runner: Any, problem: Problem, chunks: int) -> float:
    """Seconds of a step."""
    order = problem.order(0, chunks)
    staged = runner.stage(order)
    begun = time.perf_counter()
    runner.run(staged)
    return (time.perf_counter() - begun) / len(order)


def conclude(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """From which size on each plan is the fastest in float32, with as few ranges as the times allow.

    Plans that are chosen by something else than the size are left out.
    """
    points = [
        (float(row["flops"]), row["us"]) for row in rows
        if row["precision"] == "float32" and row["us"] and set(row["us"]) <= set(PLANS)
    ]  # fmt: skip
    return [vars(part) for part in ranges(points)] if points else []


def measure(
    seconds: float,
    write: Callable[[dict[str, Any]], None],
    tell: Callable[[str], None] = print,
    points: Sequence[Point] | None = None,
    after: Path | None = None,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """Time all points, as far as the time goes.

    Parameters
    ----------
    seconds : float
        For everything.
    write : callable
        Is given everything found so far, after each point.
    tell : callable
        Is told what happens.
    points : sequence of Point, optional
        By default :func:`grid`.
    after : Path, optional
        Nothing is timed before this file is there; what is compiled may be compiled before.
    rehearsal : bool
        Compute on the processor; the times mean nothing.

    Returns
    -------
    dict
        ``status``, ``rows``, ``ranges``, and by which sizes a plan is chosen.
    """
    end = time.monotonic() + seconds
    points = grid(here()) if points is None else points
    chosen_by = {"persistent_up_to_flops": plans.ON_CHIP_FLOPS, "wide_from_flops": plans.WIDE_FLOPS}
    result: dict[str, Any] = {"status": "ok", "chosen_by": chosen_by, "of": len(points), "rows": [], "ranges": []}
    if not rehearsal:
        tell(f"compiling for {len(points)} points")
        compile_all(points, COMPILE_SHARE * seconds)
    while after is not None and not after.exists() and time.monotonic() < end:
        time.sleep(0.1)
    make, choose = (rehearsed, lambda runner: "compiled") if rehearsal else (on_gpu, chosen_on_gpu)
    for point in points:
        if end - time.monotonic() < LEAST:
            result["why"] = f"the time was over after {len(result['rows'])} of {len(points)} points"
            break
        tell(f"{'-'.join(map(str, point.sizes))}, batch {point.batch}, {point.precision}")
        row = look(point, make, choose)
        result["rows"].append(row)
        if any(why.startswith("failed") for why in row["refused"].values()):
            result["status"] = "failed"
        result["ranges"] = conclude(result["rows"])
        write(result)
    if not any(row["us"] for row in result["rows"]):
        whys = {why for row in result["rows"] for why in row["refused"].values()}
        result |= {"status": "failed", "why": result.get("why") or "; ".join(sorted(whys))}
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="write all figures here")
    parser.add_argument("--seconds", type=float, default=180.0, help="time for everything (default 180)")
    parser.add_argument("--after", type=Path, metavar="FILE", help="compile now, and begin when this file is there")
    parser.add_argument("--dry-run", action="store_true", help="rehearse with two small networks on the processor")
    options = parser.parse_args(arguments)
    write, tell = telling(options.output)
    points = None
    if not options.dry_run:
        try:
            bp.get_backend("cupy")
        except BackendError as why:
            write({"status": "failed", "why": str(why), "rows": []})
            print(why)
            return 1
    if options.dry_run:
        points = [Point((8, *(16,) * k, 3), 8 * k, plans=("reference", "compiled")) for k in (1, 2)]
    result = measure(options.seconds, write, tell, points, options.after, options.dry_run)
    write(result)
    if "why" in result:
        print(result["why"])
    return 0 if result["status"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
