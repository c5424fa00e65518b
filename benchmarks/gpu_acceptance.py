"""Everything that needs a GPU, in one command: python benchmarks/gpu_acceptance.py

tests       every test marked ``gpu``, with --require-backend cupy; in parallel where pytest-xdist is installed
sanitizers  compute-sanitizer memcheck and racecheck over a few that run every kernel, while the tests run
            (benchmarks/gpu/sanitized.py)
race        bpcore by each plan against PyTorch and JAX, losses compared with float64 (benchmarks/gpu/race.py)
costs       launches, graphs, barriers, copies, the rates of products (benchmarks/gpu/costs.py)
profile     the counters of the GPU for the kernels that decide the goals, by ncu (benchmarks/gpu/counters.py)
crossovers  which plan is the fastest for which size, beside what is chosen (benchmarks/gpu/crossovers.py)
bench       ``bpcore bench``: every backend, and each precision of the GPU, at all batch sizes

Nothing is installed or fetched: the repository is laid out as an installed package in a scratch folder. Every part has
a time limit (benchmarks/gpu/schedule.py), what could not be done is said in the result, and the files are written after
each part, with what it had found when its time was over. Without a GPU the script refuses to run, except with
--dry-run, which exercises all that can run, marks its files as such and keeps them out of benchmarks/results/.

Where nine minutes are too few for all parts, two calls give them more, the most valuable parts first; what the first
has compiled is there for the second, in a folder of yours:

    python benchmarks/gpu_acceptance.py --minutes 6.5 --cache /tmp/gpu-cache --only race,costs,profile
    python benchmarks/gpu_acceptance.py --minutes 5 --cache /tmp/gpu-cache --only tests,sanitizers,crossovers,bench
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
from benchmarks.gpu import here, sanitized, schedule  # noqa: E402
from benchmarks.gpu.parts import run, tail  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton", "jax", "jaxlib", "pytest",
    "threadpoolctl",
)  # fmt: skip
GATE = "go-{}"
"""A file in the scratch folder: when it is there, a part that has compiled ahead may begin to measure."""

PROCESSES = max(1, min(12, (os.cpu_count() or 1) - 4))
"""Of pytest: they share one GPU, and spend most of their time compiling."""

SUMMING_UP = 20.0
"""Seconds before the end from which no further test begins."""


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
    """Processor, versions, commit."""
    from bpcore.backends.diagnosis import cpu

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
        "gpu": None,
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
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark", f"--kept-cache={cache_of_tests(environment)}"]
    # it should sum up before it is ended
    words = ["--durations", "10", f"--stop-after={max(limit - SUMMING_UP, 0.5 * limit):.0f}"]
    part = run([sys.executable, "-m", "pytest", *quiet, *words, *chosen], limit, folder, environment)
    status = "out of time" if "(--stop-after)" in part["output"] else part["status"]
    return tail(part, 80) | {"status": status, "counts": counts(part["output"])}


def counts(output: str) -> dict[str, int]:
    """How many tests passed and failed, also of a run that was ended, and could not sum up.

    Examples
    --------
    >>> counts("..s.F [ 50%]\\n... [ 80%]\\n"), counts("....\\n=== 2 failed, 5 passed in 3 s ===")
    ({'passed': 6, 'failed': 1, 'skipped': 1}, {'failed': 2, 'passed': 5})
    """
    found = re.findall(r"(\d+) (passed|failed|skipped|error|errors)\b", output)
    if found:
        return {word: int(count) for count, word in found}
    letters = "".join(re.findall(r"^([.sFExX]+)(?: +\[ *\d+%\])?$", output, re.M))
    words = {".": "passed", "F": "failed", "E": "error", "s": "skipped"}
    return {word: letters.count(letter) for letter, word in words.items() if letter in letters}


def cache_of_tests(environment: dict[str, str]) -> Path:
    """Where tests keep compiled code: not where what is measured does, because tests tune, too."""
    return Path(environment["BPCORE_CACHE_DIR"]) / "tests"


def sanitizers(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Memcheck and racecheck over some of the tests, at the same time."""
    return sanitized.sanitizers(folder, environment, limit, dry, cache_of_tests(environment))


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
    words = ["--seconds", str(max(limit - 10, 1)), "--after", str(folder / GATE.format("race"))]
    if dry:
        words += ["--dry-run", "--workloads", "smoke"]
    return module("race", folder, environment, limit, *words)


def profile(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """The counters of the GPU, kernel by kernel."""
    return module("counters", folder, environment, limit, "--seconds", str(max(limit - 5, 1)))


def crossovers(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
    """Which plan is the fastest for which size of a step."""
    words = ["--seconds", str(max(limit - 5, 1)), "--after", str(folder / GATE.format("crossovers"))]
    return module("crossovers", folder, environment, limit, *words, *(["--dry-run"] if dry else []))


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
    "tests": tests, "sanitizers": sanitizers, "race": race, "costs": costs, "profile": profile,
    "crossovers": crossovers, "bench": bench,
}  # fmt: skip


def complete(result: dict[str, Any]) -> bool:
    """Whether every part was done and found nothing wrong.

    What a contestant says that it cannot do is nothing wrong, nor is a machine without other libraries or ncu, or one
    that keeps its counters to itself; but bpcore itself must have been raced. A dry run cannot do the sanitizers and
    the costs.
    """
    parts = result["parts"]
    if any(name not in parts for name in result["asked"]):
        return False
    rights = [
        part["status"] == "ok" for name, part in parts.items() if name in ("tests", "race", "crossovers", "bench")
    ]
    rights += [parts["profile"]["status"] in ("ok", "skipped")] if "profile" in parts else []
    if not result["dry_run"]:
        rights += [part["status"] == "ok" for part in parts.get("sanitizers", {}).values()]
        rights += [parts[name]["status"] == "ok" for name in ("costs",) if name in parts]
    if not result["dry_run"] and "sanitizers" not in parts:
        rights += [any(part["status"] == "ok" for part in parts.values())]  # if nothing was done, all was not done
    if "tests" in parts:
        counted = parts["tests"].get("counts", {})
        rights += [counted.get("passed", 0) > 0, not any(counted.get(word) for word in ("failed", "error", "errors"))]
    if "race" in parts:
        rights += [bool(parts["race"].get("rows"))]
    for found in parts.get("race", {}).get("rows", {}).values():
        rows = found["contestants"]
        rights += [bool(rows), *(row["status"] in ("ok", "skipped") for row in rows.values())]
        if not result["dry_run"] and found.get("precision", "float32") == "float32":  # what every GPU can do
            rights += [rows.get("bpcore-auto", {"status": "not there"})["status"] == "ok"]
    return all(rights)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts and write the files after each; return 0 only if everything was done and is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART,PART", help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="exercise what needs no GPU; writes no GPU numbers")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (default 9)")
    parser.add_argument("--output", type=Path, help="folder for the files (default benchmarks/results)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep compiled code here, for a later call")
    parser.add_argument("--commit", help="the commit to write down, where git does not know it")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    chosen = options.only.split(",") if options.only else list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"--only {options.only}: there is no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        environment = lay_out(Path(scratch))
        if options.cache is not None:
            environment["BPCORE_CACHE_DIR"] = str(options.cache.resolve())
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
    from benchmarks.gpu.contestants import GPU_BYTES

    about = machine(options.commit)
    asked = [part for part in schedule.ORDER if part in chosen]
    if not options.dry_run:
        found = here.gpu(folder, environment)
        if "why" in found:
            print(f"bpcore has no GPU here: {found['why']}")
            print("Nothing was run and nothing written. --dry-run shows what can run without a GPU.")
            return 2
        about |= {"gpu": here.smi(found, folder, environment), "cuda": found}
        environment[GPU_BYTES] = str(found["memory"])
    lacking = here.missing(asked)
    for missing, lost in lacking.items():
        print(f"{missing} is not installed: {lost}", flush=True)
    if options.dry_run:
        target, name = options.output or Path(tempfile.mkdtemp(prefix="bpcore-dry-run-")), "dry-run"
    else:
        target = options.output or RESULTS
        name = "gpu-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{about['gpu'].split(',')[0]} {about['when'][:16]}").lower()
    target.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"dry_run": options.dry_run, "machine": about, "asked": asked, "missing": lacking}
    result["parts"] = {}
    with ThreadPoolExecutor(len(asked)) as pool:

        def begin(part: str, limit: float) -> Any:
            return pool.submit(PARTS[part], folder, environment, limit, options.dry_run)

        try:
            early = schedule.ahead(asked)
            running = {}
            if early is not None:
                running[early] = begin(early, schedule.limit_ahead(early, asked, end - time.monotonic()))
            for parts in schedule.stages(asked):
                limit = schedule.limit_of(parts[0], asked, end - time.monotonic())
                print(f"{', '.join(parts)} (at most {limit:.0f} s) ...", flush=True)
                for part in parts:
                    (folder / GATE.format(part)).touch()
                    if part not in running:
                        running[part] = begin(part, limit)
                result["parts"] |= {part: running[part].result() for part in parts}
                (target / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
                (target / f"{name}.md").write_text(report.markdown(result), "utf-8")
        finally:
            for part in asked:  # whoever waits for it ends
                (folder / GATE.format(part)).touch()
    print(report.markdown(result))
    print(f"written: {target / name}.json and .md")
    if complete(result):
        return 0
    print("Not all that was asked for was done and found right; what is missing or wrong is in the lines above.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
