"""What the machine charges, of launches to products, and what predictions take: ``python -m benchmarks.gpu.costs``.

Times of the GPU are differences of events on a stream. What a barrier costs is the difference of two launches that
differ in the number of barriers, over that number. Each measurement stands alone: one that fails says why and takes
none of the others with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.digits import digits
from benchmarks.gpu.inference import cuda_torch, inference
from benchmarks.gpu.workloads import PEAK_OF, PRODUCTS, WORKLOADS
from benchmarks.peers.adapters import Skip
from benchmarks.peers.workloads import products as products_of

REPEATS = 7
LAUNCHES = 500
"""As many as fit the queue of a stream, so that they can all be waiting when the first one begins."""

NODES = 200
BARRIERS = 2000
THREADS = 256
CLUSTERS = (2, 4, 8, 16)
LARGEST_PORTABLE_CLUSTER = 8
NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
"""Number of an attribute of a kernel in cuda.h."""

SIZES = (4096, 8192)
LONG_US = 5e4
"""Microseconds of a call from which it is timed alone and less often: float64 on a GPU for graphics."""
SEVERAL, FEW_REPEATS = 3, 2
LEAST_CAPABILITY = {"tf32": 80, "bfloat16": 80}
"""Elsewhere PyTorch computes such products with other units, in other digits."""
DTYPES = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16", "float64": "float64"}
COPIED = 1 << 30
COPIED_FROM_HOST = 1 << 28


class Bench:
    """One GPU, the kernels of ``costs.cu``, and how a time is taken."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.multiprocessors = int(self.properties["multiProcessorCount"])
        self.capability = 10 * int(self.properties["major"]) + int(self.properties["minor"])
        source = Path(__file__).with_name("costs.cu").read_text("utf-8")
        self.module = cupy.RawModule(code=source, options=("--std=c++17",))
        self.stream = cupy.cuda.Stream(non_blocking=True)  # the null stream cannot be captured

    def kernel(self, name: str) -> Any:
        return self.module.get_function(name)

    def us(self, call: Callable[[], Any], times: int = 1, behind: Callable[[], Any] | None = None) -> float:
        """Median microseconds of the GPU for a call, of `REPEATS`; ``behind`` is queued before and not timed."""
        cupy, found = self.cupy, []
        with self.stream:
            call()
            self.stream.synchronize()
            for _ in range(REPEATS):
                begin, end = cupy.cuda.Event(), cupy.cuda.Event()
                if behind is not None:
                    behind()
                begin.record(self.stream)
                for _ in range(times):
                    call()
                end.record(self.stream)
                end.synchronize()
                found.append(1e3 * cupy.cuda.get_elapsed_time(begin, end) / times)
        return float(statistics.median(found))

    def difference(self, call: Callable[[int], Any]) -> float:
        """Microseconds that one more round costs."""
        return (self.us(lambda: call(2 * BARRIERS)) - self.us(lambda: call(BARRIERS))) / BARRIERS

    def capture(self, work: Callable[[], Any]) -> Any:
        with self.stream:
            work()  # whatever is loaded at first use is loaded before
            self.stream.synchronize()
            self.stream.begin_capture()
            work()
            return self.stream.end_capture()


def launches(bench: Bench) -> dict[str, Any]:
    """An empty kernel: on the host, and in a stream that never waits for the host."""
    empty, hold = bench.kernel("empty"), bench.kernel("hold")
    host = []
    with bench.stream:
        for _ in range(REPEATS):
            bench.stream.synchronize()
            begun = time.perf_counter()
            for _ in range(LAUNCHES):
                empty((1,), (1,), ())
            host.append(1e6 * (time.perf_counter() - begun) / LAUNCHES)
    nanoseconds = bench.cupy.int64(2e3 * LAUNCHES * statistics.median(host))
    return {
        "host_us_through_cupy": statistics.median(host),
        "stream_us": bench.us(lambda: empty((1,), (1,), ()), LAUNCHES, lambda: hold((1,), (1,), (nanoseconds,))),
    }


def graphs(bench: Bench) -> dict[str, Any]:
    """Replays of chains of kernels, each waiting for the one before; and of a graph with one node."""
    cupy, empty, small = bench.cupy, bench.kernel("empty"), bench.kernel("small")
    x = cupy.zeros(bench.multiprocessors * THREADS, cupy.float32)
    chains = {
        "empty": lambda: empty((1,), (1,), ()),
        "small_one_block": lambda: small((1,), (THREADS,), (x,)),
        "small_all_multiprocessors": lambda: small((bench.multiprocessors,), (THREADS,), (x,)),
    }
    found: dict[str, Any] = {"nodes": NODES}
    for name, node in chains.items():
        graph = bench.capture(lambda node=node: [node() for _ in range(NODES)])  # type: ignore[misc]
        found[f"{name}_us_per_node"] = bench.us(lambda graph=graph: graph.launch(bench.stream), 10) / NODES  # type: ignore[misc]
    single = bench.capture(chains["empty"])
    found["one_node_us"] = bench.us(lambda: single.launch(bench.stream), 100)
    begun = time.perf_counter()
    for _ in range(100):
        single.launch(bench.stream)
    found["host_us_a_replay"] = 1e4 * (time.perf_counter() - begun)
    bench.stream.synchronize()
    return found


def barriers(bench: Bench) -> dict[str, Any]:
    """A barrier of a block, of clusters, and of a grid with a block on each multiprocessor, through device memory."""
    cupy = bench.cupy
    found: dict[str, Any] = {"threads_in_a_block": THREADS}
    block = bench.kernel("block_barrier")
    for threads in (THREADS, 1024):
        found[f"block_of_{threads}_us"] = bench.difference(
            lambda rounds, threads=threads: block((1,), (threads,), (cupy.int32(rounds),))  # type: ignore[misc]
        )
    for size in CLUSTERS:
        try:
            cluster = bench.kernel(f"cluster_barrier_{size}")
            if size > LARGEST_PORTABLE_CLUSTER:
                cupy.cuda.driver.funcSetAttribute(cluster.kernel.ptr, NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
            found[f"cluster_of_{size}_us"] = bench.difference(
                lambda rounds, size=size, cluster=cluster: cluster((size,), (THREADS,), (cupy.int32(rounds),))  # type: ignore[misc]
            )
        except Exception as error:  # an older device, or a cluster that does not fit
            found[f"cluster_of_{size}_us"] = None
            found[f"cluster_of_{size}_why"] = f"{type(error).__name__}: {error}".splitlines()[0]
    grid, failed = bench.kernel("grid_barrier"), cupy.zeros(1, cupy.int32)
    arrived = cupy.zeros(1, cupy.uint32)
    cupy.cuda.Device().synchronize()  # the zeros were written on another stream

    def all_blocks(rounds: int) -> None:
        arrived.data.memset_async(0, 4)
        grid((bench.multiprocessors,), (THREADS,), (arrived, cupy.int32(rounds), failed))

    found["grid_blocks"] = bench.multiprocessors
    found["grid_us"] = bench.difference(all_blocks)
    if int(failed[0]):
        found |= {"grid_us": None, "grid_why": "a block waited in vain: the blocks do not all run at once"}
    return found


def copies(bench: Bench) -> dict[str, Any]:
    """Within the memory of the device, counted as read and written; and from pinned memory of the host."""
    import cupyx

    cupy = bench.cupy
    source, target = cupy.zeros(COPIED, cupy.uint8), cupy.empty(COPIED, cupy.uint8)
    us = bench.us(lambda: target.data.copy_from_device_async(source.data, COPIED), 3)
    found = {"device_gb_per_s": 2e-3 * COPIED / us, "bytes": COPIED}
    host = cupyx.empty_pinned((COPIED_FROM_HOST,), cupy.uint8)
    host[...] = 1
    us = bench.us(lambda: target.data.copy_from_host_async(host.ctypes.data, COPIED_FROM_HOST), 3)
    found["pinned_host_gb_per_s"] = 1e-3 * COPIED_FROM_HOST / us
    small = 4096
    found["pinned_host_4_kib_us"] = bench.us(lambda: target.data.copy_from_host_async(host.ctypes.data, small), 20)
    return found


def torch_for(precision: str) -> Any:
    """PyTorch, set to this precision of its float32 products."""
    torch = cuda_torch()
    torch.set_float32_matmul_precision("high" if precision.startswith("tf32") else "highest")
    return torch


def torch_us(torch: Any, call: Callable[[], Any], times: int) -> float:
    """Median microseconds of the GPU for a call."""
    call()
    once = torch_rounds(torch, call, 1, 1)[0]
    times, repeats = (1, FEW_REPEATS) if once > LONG_US else (times, REPEATS)
    return float(statistics.median(torch_rounds(torch, call, times, repeats)))


def torch_rounds(torch: Any, call: Callable[[], Any], times: int, repeats: int) -> list[float]:
    """Microseconds of a call, in some rounds of so many calls."""
    found = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(times):
            call()
        end.record()
        end.synchronize()
        found.append(1e3 * begin.elapsed_time(end) / times)
    return found


def products(bench: Bench) -> dict[str, Any]:
    """Rates of square products of cuBLAS, through PyTorch."""
    found: dict[str, Any] = {"tflops": {}, "best_tflops": {}}
    for precision, name in DTYPES.items():
        torch = torch_for(precision)
        if bench.capability < LEAST_CAPABILITY.get(precision, 0):
            continue
        for n in SIZES:
            A, B = (torch.randn(n, n, device="cuda").to(getattr(torch, name)) for _ in range(2))
            C = torch.empty_like(A)
            us = torch_us(torch, partial(torch.mm, A, B, out=C), SEVERAL)
            found["tflops"][f"{precision} {n}"] = 2e-6 * n**3 / us
        found["best_tflops"][precision] = max(found["tflops"][f"{precision} {n}"] for n in SIZES)
    torch.cuda.empty_cache()
    return found


def steps(bench: Bench) -> dict[str, Any]:
    """The matrix products of one step of each workload and nothing else, one after the other in a captured graph."""
    found: dict[str, Any] = {}
    for name, work in WORKLOADS.items():
        torch = torch_for(work.precision)
        if bench.capability < LEAST_CAPABILITY.get(PEAK_OF[work.precision], 0):
            continue
        dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
        operands = [
            tuple(torch.randn(sizes[a], sizes[b], device="cuda").to(dtype) for a, b in ("mk", "kn", "mn"))
            for sizes in (product.sizes for product in products_of(work))
        ]

        more = PRODUCTS.get(work.precision, 1) - 1

        def run(operands: Any = operands, torch: Any = torch, more: int = more) -> None:
            for A, B, C in operands:
                torch.mm(A, B, out=C)
                for _ in range(more):
                    torch.addmm(C, A, B, out=C)

        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        us = torch_us(torch, graph.replay, 5)
        found[name] = {"us": us, "tflops": 1e-6 * work.flops() / us}
        del graph, operands, run
        torch.cuda.empty_cache()
    return found


MEASUREMENTS = {
    "launches": launches, "graphs": graphs, "barriers": barriers, "copies": copies, "products": products,
    "digits": digits, "steps": steps, "inference": inference,
}  # fmt: skip


def measure(write: Callable[[dict[str, Any]], None], make: Callable[[], Any] = Bench) -> dict[str, Any]:
    """Take all measurements.

    Parameters
    ----------
    write : callable
        Given everything found so far, after each measurement.
    make : callable
        Gives the `Bench`.

    Returns
    -------
    dict
        ``status``, and for each measurement its facts, or why there are none.
    """
    result: dict[str, Any] = {"status": "ok", "parts": {}}
    try:
        bench = make()
        result |= {
            "multiprocessors": bench.multiprocessors,
            "second_level_cache": int(bench.properties["l2CacheSize"]),
            "shared_memory_of_a_block": int(bench.properties.get("sharedMemPerBlockOptin", 0)),
        }
    except Exception as error:
        return result | {"status": "failed", "why": first_line(error)}
    for name, function in MEASUREMENTS.items():
        begun = time.perf_counter()
        try:
            facts = {"status": "ok", **function(bench)}
        except Skip as why:
            facts = {"status": "skipped", "why": str(why)}
        except Exception as error:
            facts = {"status": "failed", "why": first_line(error)}
            result["status"] = "failed"
        result["parts"][name] = facts | {"seconds": round(time.perf_counter() - begun, 2)}
        write(result)
    return result


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="write all figures here")
    options = parser.parse_args(arguments)

    def write(result: dict[str, Any]) -> None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")

    result = measure(write)
    write(result)
    for name, found in {"the GPU": result, **result["parts"]}.items():
        if "why" in found:
            print(f"{name}: {found['status']}: {found['why']}")
    return 0 if result["status"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
