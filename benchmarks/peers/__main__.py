"""The command ``python -m benchmarks.peers``; run it in the root of the repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers import race, report, results
from benchmarks.peers.adapters import CONTESTANTS
from benchmarks.peers.machine import choose_cpus
from benchmarks.peers.workloads import WORKLOADS
from bpcore.bench.machine import REMOVED, load
from bpcore.bench.process import FAILED

BUSY = 0.5
"""Load from which a warning is given."""

QUICK = ("nielsen", "tabular", "digits-small", "predict-small-1")


def parser() -> argparse.ArgumentParser:
    """Describe the command."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Race bpcore against other libraries: same weights, data and order of samples, float32, rounds "
        "interleaved, one process for each contestant, losses compared with a float64 reference.",
    )
    found.add_argument("--workloads", nargs="+", metavar="NAME", choices=[*WORKLOADS, "smoke"], help="default: all")
    found.add_argument("--contestants", nargs="+", metavar="NAME", choices=list(CONTESTANTS), help="default: all")
    found.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1 2 (as far as there are cores)")
    found.add_argument("--rounds", type=int, help="rounds of each workload (default 7; with --quick 3)")
    found.add_argument(
        "--seconds", type=float, help="time of the rounds of a workload, all contestants together (8; 3)"
    )
    found.add_argument("--limit", type=float, default=120.0, help="seconds that preparing may take (default 120)")
    found.add_argument("--quick", action="store_true", help=f"1 thread and only {', '.join(QUICK)}, unless named")
    found.add_argument("--cold", action="store_true", help="begin with empty caches of compiled code")
    found.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    found.add_argument("--list", action="store_true", help="name workloads and contestants, and stop")
    return found


def list_all(console: Console) -> None:
    """Print what can be raced."""
    for name, work in WORKLOADS.items():
        how = f"{work.loss}, {work.optimizer}" if work.kind == "train" else "predict"
        widths = "-".join(map(str, work.sizes))
        line = f"{name:20} {widths} {work.activation}, {work.output}; {how}; batch {work.batch}"
        console.print(line, highlight=False)
    console.print()
    for name, contestant in CONTESTANTS.items():
        console.print(f"{name:20} needs {', '.join(contestant.packages)}", highlight=False)


def usable_threads(wanted: list[int] | None, quick: bool) -> list[int]:
    """Return the numbers of threads that were asked for; by default 1, and 2 where there are two cores."""
    if wanted:
        for threads in wanted:
            if threads < 1:
                raise ValueError(f"--threads {threads}; at least 1 is needed")
            choose_cpus(threads)
        return wanted
    if quick:
        return [1]
    try:
        choose_cpus(2)
    except ValueError:
        return [1]
    return [1, 2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=report.WIDE)  # a file has room
    if options.list:
        list_all(console)
        return 0
    try:
        threads = usable_threads(options.threads, options.quick)
    except ValueError as error:
        parser().error(str(error))
    if options.json and not options.json.parent.is_dir():
        parser().error(f"--json {options.json}: there is no folder {options.json.parent}")
    workloads = options.workloads or list(QUICK if options.quick else WORKLOADS)
    names = options.contestants or list(CONTESTANTS)
    console.print(f"{', '.join(REMOVED)} are removed from the environment of all contestants.", highlight=False)
    busy = (load() or [0.0])[0]
    if busy > BUSY:
        console.print(f"Load {busy}: others use this machine; with several threads above all, figures will be wrong.")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        # seldom redrawn: the bar takes time from whoever is being measured
        progress.live.refresh_per_second = 1
        task = progress.add_task("starting", total=len(threads) * len(workloads))

        def finished(number: int, workload: str, found: dict) -> None:  # type: ignore[type-arg]
            report.show(progress.console, number, workload, found)
            progress.advance(task)

        result = race.run(
            workloads,
            names,
            threads,
            tell=lambda text: progress.update(task, description=text),
            on_workload=finished,
            rounds=options.rounds or (3 if options.quick else 7),
            seconds=options.seconds or (3.0 if options.quick else 8.0),
            limit=options.limit,
            cold=options.cold,
        )
    if options.json:
        results.save(result, options.json)
        console.print(f"written: {options.json}", highlight=False)
    parts = [found for run in result["runs"] for found in run["workloads"].values()]
    bad = {FAILED, results.DIFFERS}
    return 1 if any(row["status"] in bad for found in parts for row in found["contestants"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
