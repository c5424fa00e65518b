"""Everything that needs a GPU, in one command and within ten minutes: python benchmarks/gpu_acceptance.py

1. the tests marked ``gpu`` (every backend-parametrised test on CuPy), with --require-backend cupy;
2. compute-sanitizer memcheck and racecheck over the kernel tests, where it is installed;
3. time per training step of bpcore and PyTorch, with the losses of the first steps compared;
4. a JSON file and a table with machine, driver, versions and commit in benchmarks/results/.

Nothing is installed or fetched: the repository is laid out as an installed package in a scratch folder. Every part has
a time limit, and what could not be done is said in the result. Without a GPU the script refuses to run, except with
--dry-run, which exercises all that can run, marks its files as such and keeps them out of benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x", "torch", "pytest", "threadpoolctl")
SANITIZED = "gpu and (rows or reductions or take_rows or random_bits or dropout or in_place or row_hits)"
PARITY = 2e-3
"""Largest relative difference of the first losses: float32 sums in another order, amplified by twenty steps."""


def run(command: list[str], limit: float, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a part under a time limit; never raises."""
    begun = time.perf_counter()
    facts: dict[str, Any] = {"command": " ".join(command), "limit_seconds": round(limit)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=max(limit, 1)
        )
        facts |= {"status": "ok" if done.returncode == 0 else "failed", "returncode": done.returncode}
        output = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        facts["status"] = "out of time"
        output = "".join(
            part.decode(errors="replace") if isinstance(part, bytes) else part or ""
            for part in (error.stdout, error.stderr)
        )
    except OSError as error:
        facts["status"], output = "could not start", str(error)
    return facts | {"seconds": round(time.perf_counter() - begun, 1), "output": output}


def lay_out(folder: Path) -> dict[str, str]:
    """Copy the repository as it would be installed, and return the environment that finds it."""
    code = shutil.ignore_patterns("__pycache__", "results")
    for name in ("bpcore", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=code)
    shutil.copytree(ROOT / "kernels", folder / "bpcore" / "kernels", ignore=code)
    # own settings, because plugins named in pyproject.toml may be missing here
    markers = re.search(r"^markers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.M | re.S)
    lines = [line.strip().rstrip(",").strip('"') for line in (markers.group(1) if markers else "").strip().splitlines()]
    settings = ["[pytest]", "pythonpath = .", "testpaths = tests", "addopts = --import-mode=importlib -ra", "markers ="]
    (folder / "pytest.ini").write_text("\n".join([*settings, *(f"    {line}" for line in lines), ""]), "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BPCORE_")}
    return {**kept, "PYTHONPATH": str(folder), "BPCORE_CACHE_DIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


def machine() -> dict[str, Any]:
    """Processor, GPU, driver, versions, commit."""
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    gpu = run(["nvidia-smi", query, "--format=csv,noheader"], 20, ROOT, dict(os.environ))
    commit = run(["git", "rev-parse", "HEAD"], 20, ROOT, dict(os.environ))
    dirty = run(["git", "status", "--porcelain"], 20, ROOT, dict(os.environ))
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": gpu["output"].strip().splitlines()[0] if gpu["status"] == "ok" and gpu["output"].strip() else None,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions,
        "commit": commit["output"].strip() if commit["status"] == "ok" else "unknown (no git here)",
        "changed_files": len(dirty["output"].splitlines()) if dirty["status"] == "ok" else None,
    }


def tail(part: dict[str, Any], lines: int = 25) -> dict[str, Any]:
    """Keep the end of a part's output."""
    return {**part, "output": "\n".join(part["output"].splitlines()[-lines:])}


def tests(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """The suite on the GPU; a dry run takes the tests of the same operations over the stand-in."""
    chosen = ["-m", "gpu", "--require-backend", "cupy"]
    if dry:
        chosen = ["tests/backends/test_cupy_backend.py", "-k", "stand-in and (matmul or take_rows)"]
    part = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen], limit, folder, environment)
    counts = re.findall(r"(\d+) (passed|failed|skipped|error|errors)\b", part["output"])
    return tail(part, 60) | {"counts": {word: int(count) for count, word in counts}}


def sanitizers(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Memcheck and racecheck over the kernel tests."""
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if found is None or dry:
        why = "compute-sanitizer is not installed" if found is None else "a dry run has no kernels on a GPU"
        return {tool: {"status": "not done", "why": why} for tool in ("memcheck", "racecheck")}
    target = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    target += ["tests/backends/test_cupy_backend.py", "-m", "gpu", "-k", SANITIZED, "--require-backend", "cupy"]
    results = {}
    for tool in ("memcheck", "racecheck"):
        command = [found, "--tool", tool, "--error-exitcode", "99", "--target-processes", "all", *target]
        part = tail(run(command, limit / 2, folder, environment))
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", part["output"])
        results[tool] = part | {"summary": summary[-1] if summary else None}
    return results


def throughput(
    folder: Path, environment: dict[str, str], limit: float, dry: bool, workloads: list[str]
) -> dict[str, Any]:
    """Time per step for each workload and engine, and whether the losses agree."""
    engines = ["bpcore-numpy", "bpcore-numba"]
    engines += ["torch-eager-cpu"] if dry else ["bpcore-cupy", "torch-eager-cuda", "torch-graph-cuda"]
    end = time.perf_counter() + limit
    rows: list[dict[str, Any]] = []
    jobs = [(workload, engine) for workload in workloads for engine in engines]
    for number, (workload, engine) in enumerate(jobs):
        share = (end - time.perf_counter()) / (len(jobs) - number)
        if share < 2:
            rows.append({"workload": workload, "engine": engine, "status": "not done", "why": "out of time"})
            continue
        on_cpu = engine in ("bpcore-numpy", "bpcore-numba", "torch-eager-cpu")
        steps = 20 if dry or (on_cpu and workload == "wide") else 200
        command = [sys.executable, "-m", "benchmarks.step_throughput", workload, engine, "--steps", str(steps)]
        part = run(command, 3 * share, folder, environment)
        if part["status"] == "ok":
            rows.append({"status": "ok", **json.loads(part["output"].splitlines()[-1])})
        else:
            why = (part["output"].strip().splitlines() or ["no output"])[-1][:300]
            rows.append({"workload": workload, "engine": engine, "status": part["status"], "why": why})
    return {"rows": compare_losses(rows), "parity_limit": PARITY, "float32_products": "float32, TF32 off"}


def compare_losses(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to every measured row how far its first losses are from those of the first measured engine."""
    references: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        reference = references.setdefault(row["workload"], row["losses"])
        differences = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(row["losses"], reference, strict=True)]
        row["loss_difference"] = max(differences)
        # written so that a NaN is no parity
        row["parity"] = bool(all(difference <= PARITY for difference in differences) and row["finite_at_the_end"])
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The result for readers."""
    about = result["machine"]
    title = "DRY RUN: no GPU was used, these are not GPU results" if result["dry_run"] else f"GPU run on {about['gpu']}"
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {about[name]}" for name in ("when", "commit", "changed_files", "python", "system", "cores")]
    lines.append("- " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    part = result["tests"]
    lines += ["", f"Tests: {part['status']}, {part['counts'] or 'no counts'}, {part['seconds']} s.", ""]
    for tool, found in result["sanitizers"].items():
        lines.append(f"compute-sanitizer {tool}: {found['status']} ({found.get('summary') or found.get('why')}).")
    lines += ["", "| workload | engine | µs/step (min to max) | start-up s | losses agree |", "|---|---|---|---|---|"]
    for row in result["throughput"]["rows"]:
        if row["status"] != "ok":
            lines.append(f"| {row['workload']} | {row['engine']} | {row['status']}: {row['why']} | | |")
            continue
        spread = f"{row['us_per_step']:.1f} ({row['us_per_step_min']:.1f} to {row['us_per_step_max']:.1f})"
        agree = f"{'yes' if row['parity'] else 'NO'} ({row['loss_difference']:.1e})"
        lines.append(f"| {row['workload']} | {row['engine']} | {spread} | {row['start_up_seconds']:.1f} | {agree} |")
    lines += ["", "Same weights, rows and order for all; float32 products, TF32 off; start-up holds compilation.", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run all parts and write the files; return 0 only if everything was done and is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="exercise what needs no GPU; writes no GPU numbers")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for everything (default 9.5)")
    parser.add_argument("--output", type=Path, help="folder for the files (default benchmarks/results)")
    options = parser.parse_args(arguments)
    about = machine()
    if about["gpu"] is None and not options.dry_run:
        print(
            "nvidia-smi shows no GPU here; nothing was run and nothing written. --dry-run shows what can run without."
        )
        return 2
    seconds = 60 * options.minutes
    workloads = ["smoke"] if options.dry_run else ["nielsen", "digits-small", "mnist-mid", "wide"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = lay_out(folder)
        result: dict[str, Any] = {"dry_run": options.dry_run, "machine": about}
        print("tests ...", flush=True)
        result["tests"] = tests(folder, environment, 0.42 * seconds, options.dry_run)
        print("compute-sanitizer ...", flush=True)
        result["sanitizers"] = sanitizers(folder, environment, 0.25 * seconds, options.dry_run)
        print("throughput ...", flush=True)
        result["throughput"] = throughput(folder, environment, 0.3 * seconds, options.dry_run, workloads)
    if options.dry_run:
        target = options.output or Path(tempfile.mkdtemp(prefix="bpcore-dry-run-"))
        name = "dry-run"
    else:
        target = options.output or RESULTS
        name = "gpu-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{about['gpu'].split(',')[0]} {about['when'][:16]}").lower()
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    table = markdown(result)
    (target / f"{name}.md").write_text(table, "utf-8")
    print(table)
    print(f"written: {target / name}.json and .md")
    return 0 if complete(result) else 1


def complete(result: dict[str, Any]) -> bool:
    """Whether every part was done and found nothing wrong (a dry run cannot do the sanitizers)."""
    parts = [result["tests"]["status"] == "ok"]
    parts += [row["status"] == "ok" and row["parity"] for row in result["throughput"]["rows"]]
    if not result["dry_run"]:
        parts += [part["status"] == "ok" for part in result["sanitizers"].values()]
    return all(parts)


if __name__ == "__main__":
    sys.exit(main())
