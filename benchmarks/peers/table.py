"""Write docs/reference/benchmarks.md from the files in benchmarks/results: ``python -m benchmarks.peers.table``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers import report, results

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"

INTRODUCTION = """\
<!-- Written by `python -m benchmarks.peers.table` from the files in benchmarks/results; do not edit. -->

# Benchmarks

Time of a training step, or of one call of predict, beside other libraries, as measured by
`python -m benchmarks.peers` on the machines named below. [How it is measured](../../benchmarks/results/README.md) says
what is equal for all, what is counted and what is not. Figures under different headings were taken on
different machines or days and must not be compared.

- *Time*: median of the rounds, with the quartiles; compilation is apart, under *prepared*.
- *Against the best peer*, *against PyTorch eager*: bpcore's speed as a multiple of theirs. The goals were set for two
  Zen 5 cores with AVX-512; they are aims, not promises.
- *products*: the matrix products of the step alone, called one by one from NumPy: a floor for whoever uses that BLAS.
- *off float64 by*: largest difference of losses or outputs from a float64 reference, as a share of the largest of them.
"""


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table."""
    names = list(head)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def machine(result: dict[str, Any]) -> str:
    """Where and when, in one paragraph."""
    found = result["machine"]
    commit = (found["commit"] or "unknown")[:12] + (" with changes" if found["dirty"] else "")
    how = result["settings"]
    load = ", ".join(f"{value:g}" for value in found["load"] or [])
    return (
        f"{result['when'][:10]}. {found['cpu']} ({', '.join(found['simd'])}), {found['cores']} processors, "
        f"{found['system']}, Python {found['python']}; commit {commit}. Load before: {load or 'unknown'}. "
        f"{how['rounds']} rounds, {how['seconds']:g} s a workload, "
        f"{'empty' if how['cold'] else 'existing'} caches of compiled code.\n"
    )


def versions(run: dict[str, Any]) -> str:
    """Versions, the BLAS that the peak was measured with, and the peak."""
    known: dict[str, str] = {}
    for worker in run["workers"].values():
        known |= worker.get("versions", {})
    blas = [pool for pool in run["blas"] if pool.get("user_api") == "blas"]
    pools = ", ".join(
        f"{pool['internal_api']} {pool.get('version')} ({pool.get('architecture', 'unknown')})" for pool in blas
    )
    best = max(run["sgemm_peak_gflops"].values(), default=0.0)
    listed = ", ".join(f"{name} {version}" for name, version in sorted(known.items()))
    return f"{listed}. NumPy's BLAS: {pools}; sgemm peak {best:.0f} GFLOP/s.\n"


def section(result: dict[str, Any]) -> str:
    """Everything from one result file."""
    text = machine(result)
    for run in result["runs"]:
        threads = run["threads"]
        text += f"\n### {threads} thread{'s' if threads > 1 else ''}\n\n{versions(run)}\n"
        summary = [(workload, *report.headline(found)) for workload, found in run["workloads"].items()]
        text += markdown(
            ("workload", "bpcore, µs", "best peer, µs", "against the best peer", "against PyTorch eager"), summary
        )
        for workload, found in run["workloads"].items():
            text += f"\n**{workload}**: {report.cost(found)}.\n\n"
            rows = found["contestants"]
            timed = [name for name in report.order_of(found) if "us_per_step" in rows[name]]
            if timed:
                text += markdown(report.COLUMNS, (report.cells(name, rows[name]) for name in timed))
            others = [f"{name} {row['status']} ({row['why']})" for name, row in rows.items() if name not in timed]
            if others:
                text += f"\nWithout a figure: {'; '.join(others)}.\n"
    return text


def page(folder: Path = RESULTS) -> str:
    """Return the page for all result files of a folder, the newest first; those of a GPU have tables of their own."""
    files = sorted((path for path in folder.glob("*.json") if not path.name.startswith("gpu-")), reverse=True)
    text = INTRODUCTION
    for path in files:
        text += f"\n## {path.stem}\n\n{section(results.load(path))}"
    if not files:
        text += "\nNo results are recorded yet.\n"
    return text


def main() -> None:
    PAGE.write_text(page(), "utf-8", newline="\n")
    print(PAGE)


if __name__ == "__main__":
    main()
