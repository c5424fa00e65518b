"""Results as ``bpcore bench`` writes them, made up: any contenders, statuses, modes and holes, and no measurement."""

from __future__ import annotations

from typing import Any

from bpcore.bench import statistics
from bpcore.bench.networks import NETWORKS
from bpcore.bench.workload import PARTS

__all__ = ["ALL_ROWS", "BATCHES", "GPU", "PEAKS", "make_operations", "make_result", "set_status"]

PEAKS = {"numpy": 480.0, "numba": 480.0, "cupy": 52e3, "cupy:tf32": 370e3, "cupy:bf16": 720e3}
MEMORY = {"numpy": 21.0, "numba": 42.0, "cupy": 2900.0, "cupy:tf32": 2900.0, "cupy:bf16": 2900.0}
START = {"numpy": 120.0, "numba": 3.0, "cupy": 9.0, "cupy:tf32": 10.0, "cupy:bf16": 11.0}
GPU = tuple(PEAKS)
ALL_ROWS = {(16, "numpy"): "noisy", (64, "cupy"): "suspect", (256, "cupy:bf16"): "differs", (4096, "numpy"): "skipped",
            (4096, "numba"): "failed"}  # fmt: skip
"""A row of each status, by batch size and contender."""
WHY = {"noisy": "half of the rounds are 31 % or more away from the median", "suspect": "above the measured peak",
       "differs": "it computes something else than the float64 witness", "failed": "the process ended with code -11",
       "skipped": "a step would take about 4.2 s; a longer --budget measures it"}  # fmt: skip
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


def make_result(
    contenders: tuple[str, ...] = ("numpy", "numba"),
    networks: tuple[str, ...] = ("digits",),
    batches: tuple[int, ...] = BATCHES,
    mode: str = "train",
) -> dict[str, Any]:
    """Make a result in which each contender starts slowly, and ends at a share of its peak."""
    gpu = any(name.startswith("cupy") for name in contenders)
    return {
        "format": "bpcore-bench-1",
        "bpcore": "0.1.0",
        "when": "2026-01-02T03:04:05+00:00",
        "mode": mode,
        "settings": {
            "contenders": list(contenders), "networks": list(networks), "batch_sizes": list(batches),
            "dtype": "float32", "threads": None, "seconds": 110.0, "rounds_of_a_visit": 3,
        },
        "seconds": 108.2,
        "interrupted": False,
        "machine": {
            "cpu": "Some CPU 9000", "simd": ["avx2", "fma", "avx512f"], "cores": 16, "usable_cores": 16, "quota": None,
            "gpus": [{"name": "Some GPU", "memory": 80 * 2**30, "driver": "CUDA 13.0"}] if gpu else [],
            "system": "Linux 6.1 x86_64", "python": "3.12.1", "load": [0.1, 0.2, 0.3], "clock_mhz": 3210.0,
            "available_memory": 100 * 2**30, "commit": "0123456789abcdef0123", "dirty": True,
            "environment": {"OMP_NUM_THREADS": "4"}, "removed_variables": ["OPENBLAS_CORETYPE"],
            "load_afterwards": [1.5, 1.0, 0.5], "clock_mhz_afterwards": 2987.0,
        },
        "contenders": {name: contender(name) for name in contenders},
        "networks": [network(name, contenders, batches, mode) for name in networks],
        "warnings": [],
    }  # fmt: skip


def contender(name: str) -> dict[str, Any]:
    return {
        "status": "ok", "device": "cuda:0" if name.startswith("cupy") else "cpu", "seconds_to_start": 0.12,
        "versions": {"python": "3.12.1", "numpy": "2.4.6"},
        "blas": [{"library": "openblas", "version": "0.3.31", "core_type": "SkylakeX", "threads": 16}],
        "memory": {}, "peaks": [{"2048": PEAKS[name]}], "gb_per_second": MEMORY[name], "peak_gflops": PEAKS[name],
    }  # fmt: skip


def timed(us: float) -> dict[str, Any]:
    return {
        "status": "ok",
        "why": "",
        "us_per_step": statistics.summary([[1e-6 * us * k for k in (0.99, 1, 1.02)]] * 2),
    }


def network(name: str, contenders: tuple[str, ...], batches: tuple[int, ...], mode: str) -> dict[str, Any]:
    preset, cells = NETWORKS[name], []
    for batch in batches:
        work = preset.workload(batch, "train" if mode == "train" else "predict", "float32")
        rows = {}
        for who in contenders:
            us = START[who] + work.flops() / (0.4 * PEAKS[who] * 1e3)
            rows[who] = timed(us) | {
                "plan": "compiled" if who == "numba" else "reference", "plan_why": "a reason",
                "seconds_to_prepare": 0.1, "checked": True,
                "threads": (1 if batch < 256 else 16) if who == "numba" else None,
                "parity": {when: {"values": 1.2e-7, "movement": 3.4e-4} for when in ("before", "after")},
            }  # fmt: skip
        cells.append({"batch": batch, "rows": 16384, "flops": work.flops(), "bytes": work.bytes(), "contenders": rows})
    found = {
        "name": name, "sizes": list(preset.sizes), "activation": preset.activation, "output": preset.output,
        "loss": preset.loss, "optimizer": preset.optimizer, "n_parameters": 9610, "cells": cells,
        "parts": parts_of(contenders) if mode == "train" else {},
    }  # fmt: skip
    statistics.judge(found, PEAKS)
    return found


def parts_of(contenders: tuple[str, ...]) -> dict[str, Any]:
    """Parts of a step; those of the first contender take less than the step, those of all others more."""
    found = {}
    for k, name in enumerate(contenders):
        us = {part: 4.0 * START[name] / 120 * (number + 1) for number, part in enumerate(PARTS)}
        found[name] = {"how": "the calls of the engine", "us": {**us, "step": sum(us.values()) * (0.5 if k else 1.4)}}
    return {"batch": 64, "costs": {part: {"flops": 1000, "bytes": 2000} for part in PARTS}, "contenders": found}


def set_status(result: dict[str, Any], statuses: dict[tuple[int, str], str], of: int = 0) -> dict[str, Any]:
    """Give rows of a network, by batch size and contender, another status with a reason, and judge again."""
    found = result["networks"][of]
    for cell in found["cells"]:
        for name, row in cell["contenders"].items():
            status = statuses.get((cell["batch"], name))
            if status in ("skipped", "failed"):
                row.clear()
            if status:
                row |= {"status": status, "why": WHY[status]}
        cell["best"], cell["ties"] = statistics.best_of(cell["contenders"])
    found["winners"] = statistics.winners(found["cells"])
    for pair in found["crossovers"]:
        pair["from_batch"] = statistics.crossover(found["cells"], pair["contender"], pair["over"])
    return result


def make_operations(contenders: tuple[str, ...] = ("numpy", "numba")) -> dict[str, Any]:
    """Make a result of single operations."""
    cases = [("matmul", {"m": n, "k": n, "n": n}) for n in (32, 512)]
    cases += [(name, {"m": 256, "n": 512}) for name in ("softmax", "column_sums", "elementwise")]
    found = []
    for number, (name, sizes) in enumerate(cases):
        rows = {}
        for k, who in enumerate(contenders):
            # the second contender is slower than the first at the first operation, and faster at all others
            us = 40.0 * (number + 1) * (1.0 if not k else 1.8 if not number else 1 / (k + number))
            rows[who] = timed(us) | {"gflops": 1e3 / us, "gb_per_second": 2e3 / us, "of_peak": None}
            rows[who]["over_numpy"] = (
                rows[contenders[0]]["us_per_step"]["median"] / us if "numpy" in contenders else None
            )
        best, ties = statistics.best_of(rows)
        costs = {"flops": 1_000_000, "bytes": 2_000_000, "best": best, "ties": ties}
        found.append({"name": name, "sizes": sizes, **costs, "contenders": rows})
    return make_result(contenders, networks=(), mode="ops") | {"operations": found}
