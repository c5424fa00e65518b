"""Everything that needs a GPU, in one command: python benchmarks/gpu_acceptance.py

tests       every test marked ``gpu``, with --require-backend cupy; in parallel where pytest-xdist is installed
sanitizers  compute-sanitizer memcheck and racecheck over some of them, where it is installed, while the tests run
costs       launches, graphs, barriers, copies, the rates of products (benchmarks/gpu/costs.py)
race        bpcore by each plan against PyTorch and JAX, losses compared with float64 (benchmarks/gpu/race.py)
bench       ``bpcore bench``: every backend, and each precision of the GPU, at all batch sizes

Nothing is installed or fetched: the repository is laid out as an installed package in a scratch folder. Every part has
a time limit, what could not be done is said in the result, and the files are written after each part. Without a GPU
the script refuses to run, except with --dry-run, which exercises all that can run, marks its files as such and keeps
them out of benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # started as a file, Python would look beside it

# Nothing that imports bpcore: in a checkout that was not installed, only what lay_out makes can be imported.
from benchmarks.gpu.parts import run, tail  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton", "jax", "jaxlib", "pytest",
    "threadpoolctl",
)  # fmt: skip
SHARES = {"tests": 0.48, "sanitizers": 0.48, "costs": 0.07, "race": 0.35, "bench": 0.1}
"""How much of the time a part may take. What one leaves goes to those after it."""

AT_ONCE = ("tests", "sanitizers")
"""Parts that measure nothing, and run at the same time; what the race compiles is compiled then, too."""
GO = "go"
"""A file in the scratch folder: when it is there, the race may begin."""

PROCESSES = max(1, min(12, (os.cpu_count() or 1) - 4))
"""Of pytest: they share one GPU, and spend most of their time compiling."""

SANITIZED_FILES = ("tests/training", "tests/backends/test_cupy_backend.py", "tests/backends/test_cupy_inference.py")
SANITIZED = (
    "float32 and (test_equals_the_reference or test_rows or test_reductions or test_row_hits or test_by_a_graph)"
    " or test_random_bits or test_dropout_mask or test_elementwise_in_place or (test_two_planes and (odd or rows))"
    " or (test_the_gradient_in_float32 and ragged)"
)
"""Where the tests are, and pytest's expression for those, that run under compute-sanitizer: each kernel a few times,
because it makes them ten to a hundred times slower."""

REPORTS = r"^========= (?:Invalid|Error|Warning|Race|Barrier|Program hit|Potential).*"
"""What compute-sanitizer writes at the beginning of each of its findings."""


def lay_out(folder: Path) -> dict[str, str]:
    """Copy the repository as it would be installed, and return the environment that finds it."""
    code = shutil.ignore_patterns("__pycache__", "results")
    for name in ("bpcore", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=code)
    shutil.copytree(ROOT / "kernels", folder / "bpcore" / "kernels", ignore=code)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    # what an installer would leave for importlib.metadata
    version = re.search(r'__version__ = "(.+)"', (ROOT / "bpcore" / "_version.py").read_text("utf-8"))
    assert version is not None
    about = folder / f"bpcore-{version[1]}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bpcore\nVersion: {version[1]}\n", "utf-8")
    # own settings, because plugins named in pyproject.toml may be missing here
    markers = re.search(r"^markers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.M | re.S)
    lines = [line.strip().rstrip(",").strip('"') for line in (markers.group(1) if markers else "").strip().splitlines()]
    settings = ["[pytest]", "pythonpath = .", "testpaths = tests", "addopts = --import-mode=importlib -ra", "markers ="]
    (folder / "pytest.ini").write_text("\n".join([*settings, *(f"    {line}" for line in lines), ""]), "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BPCORE_")}
    return {**kept, "PYTHONPATH": str(folder), "BPCORE_CACHE_DIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


def machine(commit: str | None = None) -> dict[str, Any]:
    """Processor, GPU, driver, versions, commit."""
    from bpcore.backends.diagnosis import cpu

    query = "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm"
    gpu = run(["nvidia-smi", query, "--format=csv,noheader"], 20, ROOT, dict(os.environ))
    found = run(["git", "rev-parse", "HEAD"], 20, ROOT, dict(os.environ))
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
        "processor": cpu()["model"],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions,
        "commit": commit or (found["output"].strip() if found["status"] == "ok" else "unknown (no git here)"),
        "changed_files": len(dirty["output"].splitlines()) if dirty["status"] == "ok" and not commit else None,
    }


def tests(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """The suite on the GPU; a dry run takes the tests of the same operations over the stand-in."""
    chosen = ["-m", "gpu", "--require-backend", "cupy"]
    if dry:
        chosen = ["tests/backends/test_cupy_backend.py", "-k", "stand-in and (matmul or take_rows)"]
    elif importlib.util.find_spec("xdist") is not None:
        chosen += ["-n", str(PROCESSES), "--dist", "worksteal"]
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    command = [sys.executable, "-m", "pytest", *quiet, "--durations", "10", *chosen]
    part = run(command, limit, folder, environment)
    counts = re.findall(r"(\d+) (passed|failed|skipped|error|errors)\b", part["output"])
    return tail(part, 80) | {"counts": {word: int(count) for count, word in counts}}


def sanitizers(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Memcheck and racecheck over the kernel tests, at the same time."""
    tools = ("memcheck", "racecheck")
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if found is None or dry:
        why = "compute-sanitizer is not installed" if found is None else "a dry run has no kernels on a GPU"
        return {tool: {"status": "not done", "why": why} for tool in tools}
    target = [sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider"]
    target += [*SANITIZED_FILES, "-m", "gpu", "-k", SANITIZED, "--require-backend", "cupy"]

    def check(tool: str) -> dict[str, Any]:
        part = run([found, "--tool", tool, "--error-exitcode", "99", *target], limit, folder, environment)
        return tail(part) | findings(part["output"])

    with ThreadPoolExecutor(len(tools)) as pool:
        return dict(zip(tools, pool.map(check, tools), strict=True))


def findings(output: str) -> dict[str, Any]:
    """What compute-sanitizer and pytest say, also of a run that did not come to its end.

    Examples
    --------
    >>> findings("a.py::test PASSED [ 10%]\\n========= Invalid __global__ read of size 4 bytes")
    {'passed': 1, 'reports': 1, 'summary': '1 tests passed, 1 reports'}
    """
    passed, reports = len(re.findall(r" PASSED\b", output)), len(re.findall(REPORTS, output, re.M))
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", output)
    told = [*summary[-1:], f"{passed} tests passed, {reports} reports"]
    return {"passed": passed, "reports": reports, "summary": "; ".join(told)}


def module(name: str, folder: Path, environment: dict[str, str], limit: float, *words: str) -> dict[str, Any]:
    """Run a module that writes a file as it goes; what it wrote counts even if it did not come to its end."""
    file = folder / f"{name}.json"
    part = run(
        [sys.executable, "-m", f"benchmarks.gpu.{name}", "--output", str(file), *words], limit, folder, environment
    )
    try:
        written: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        written = {}
    status = part["status"]
    if status == "failed" and written.get("status", "ok") != "ok":
        status = written["status"]  # it ended by itself, and says what is missing
    return written | tail(part) | {"status": status}


def costs(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """What the machine charges."""
    return module("costs", folder, environment, limit)


def race(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Time a step for each workload and contestant, and whether the losses agree."""
    # it should end before it is ended
    words = ["--seconds", str(max(limit - 10, 1)), "--after", str(folder / GO)]
    if dry:
        words += ["--dry-run", "--workloads", "smoke"]
    return module("race", folder, environment, limit, *words)


def bench(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Let the command answer which backend is the fastest; what it found is a result file of its own."""
    file = folder / "bench.json"
    # it takes some seconds more than it is told, and should end before it is ended
    words = ["--budget", "5s" if dry else f"{max(round(0.7 * limit - 10), 5)}s", "--json", str(file)]
    words += ["--layers", "4,8,2", "--batch-sizes", "1,16"] if dry else []
    part = run([sys.executable, "-m", "bpcore", "bench", *words], limit, folder, environment)
    result = json.loads(file.read_text("utf-8")) if file.exists() else None
    return tail(part, 200) | {"result": result}


PARTS: dict[str, Callable[[Path, dict[str, str], float, bool], dict[str, Any]]] = {
    "tests": tests, "sanitizers": sanitizers, "costs": costs, "race": race, "bench": bench,
}  # fmt: skip


def complete(result: dict[str, Any]) -> bool:
    """Whether every part was done and found nothing wrong.

    What a contestant says that it cannot do is nothing wrong. A dry run cannot do the sanitizers and the costs.
    """
    parts = result["parts"]
    if any(name not in parts for name in result["asked"]):
        return False
    rights = [part["status"] == "ok" for name, part in parts.items() if name in ("tests", "race", "bench")]
    if not result["dry_run"]:
        rights += [part["status"] == "ok" for part in parts.get("sanitizers", {}).values()]
        rights += [parts[name]["status"] == "ok" for name in ("costs",) if name in parts]
    for found in parts.get("race", {}).get("rows", {}).values():
        rights += [bool(found["contestants"])]
        rights += [row["status"] in ("ok", "skipped") for row in found["contestants"].values()]
    return all(rights)


def stages(asked: list[str]) -> list[list[str]]:
    """Divide the parts into those that run at the same time.

    Examples
    --------
    >>> stages(["tests", "sanitizers", "race"]), stages(["sanitizers", "costs"])
    ([['tests', 'sanitizers'], ['race']], [['sanitizers'], ['costs']])
    """
    together = [part for part in asked if part in AT_ONCE]
    return [together] * bool(together) + [[part] for part in asked if part not in AT_ONCE]


def limit_of(name: str, asked: list[str], left: float) -> float:
    """Seconds for a part: its share of what is left, among the parts that are still to come.

    Examples
    --------
    >>> round(limit_of("tests", list(SHARES), 100.0)), limit_of("race", ["race"], 60.0)
    (48, 60.0)
    """
    rest = [parts[0] for parts in stages(asked[asked.index(name) :])]
    return left * (SHARES[name] / sum(SHARES[part] for part in rest))


def main(arguments: list[str] | None = None) -> int:
    """Run the parts and write the files after each; return 0 only if everything was done and is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART,PART", help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="exercise what needs no GPU; writes no GPU numbers")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (default 9)")
    parser.add_argument("--output", type=Path, help="folder for the files (default benchmarks/results)")
    parser.add_argument("--commit", help="the commit to write down, where git does not know it")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    chosen = options.only.split(",") if options.only else list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"--only {options.only}: there is no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        environment = lay_out(Path(scratch))
        sys.path.insert(0, scratch)
        try:
            return measure(options, chosen, Path(scratch), environment, end)
        finally:
            sys.path.remove(scratch)


def measure(
    options: argparse.Namespace, chosen: list[str], folder: Path, environment: dict[str, str], end: float
) -> int:
    """Run the chosen parts until `end`, with what was laid out in a folder, and write the files."""
    from benchmarks.gpu import report

    about = machine(options.commit)
    if about["gpu"] is None and not options.dry_run:
        print(
            "nvidia-smi shows no GPU here; nothing was run and nothing written. --dry-run shows what can run without."
        )
        return 2
    if options.dry_run:
        target, name = options.output or Path(tempfile.mkdtemp(prefix="bpcore-dry-run-")), "dry-run"
    else:
        target = options.output or RESULTS
        name = "gpu-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{about['gpu'].split(',')[0]} {about['when'][:16]}").lower()
    target.mkdir(parents=True, exist_ok=True)
    asked = [part for part in PARTS if part in chosen]
    result: dict[str, Any] = {"dry_run": options.dry_run, "machine": about, "asked": asked, "parts": {}}
    with ThreadPoolExecutor(len(asked)) as pool:

        def begin(part: str, limit: float) -> Any:
            return pool.submit(PARTS[part], folder, environment, limit, options.dry_run)

        try:
            left = end - time.monotonic()
            kept = SHARES["bench"] / sum(SHARES[parts[0]] for parts in stages(asked)) if "bench" in asked else 0.0
            racing = begin("race", left * (1 - kept)) if "race" in asked else None
            for parts in stages(asked):
                limit = limit_of(parts[0], asked, end - time.monotonic())
                print(f"{', '.join(parts)} (at most {limit:.0f} s) ...", flush=True)
                if parts == ["race"]:
                    (folder / GO).touch()
                running = {part: racing if part == "race" else begin(part, limit) for part in parts}
                result["parts"] |= {part: found.result() for part, found in running.items()}
                (target / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
                (target / f"{name}.md").write_text(report.markdown(result), "utf-8")
        finally:
            (folder / GO).touch()  # whoever waits for it ends
    print(report.markdown(result))
    print(f"written: {target / name}.json and .md")
    return 0 if complete(result) else 1


if __name__ == "__main__":
    sys.exit(main())
