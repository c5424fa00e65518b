"""``bpcore warmup``: compile ahead of time, and look after the folder of compiled code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpcore.cli.inputs import parse_names
from bpcore.cli.reporting import facts_table, out, print_json, rows_table
from bpcore.cores import usable_cores
from bpcore.errors import ConfigurationError, unknown

if TYPE_CHECKING:
    from bpcore.kernels.numba.cache_folders import CacheFolder
    from bpcore.training.warmup import Scope

__all__ = ["warmup"]

DTYPES = {"float32": ("float32",), "float64": ("float64",), "both": ("float32", "float64")}
MAX_PROCESSES = 4
"""More processes want more memory, about 300 MB each, and soon wait for the slowest."""


def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64 or both.")] = "float32",
    quick: Annotated[bool, typer.Option("--quick", help="The most common pieces only.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every loss with every output that it accepts.")] = False,
    activations: Annotated[str | None, typer.Option(help="Only these hidden activations, such as relu,tanh.")] = None,
    losses: Annotated[str | None, typer.Option(help="Only these losses, such as mse,cross_entropy.")] = None,
    optimizers: Annotated[str | None, typer.Option(help="Only these update rules, such as sgd,adam.")] = None,
    processes: Annotated[int | None, typer.Option(help="Processes that compile; by default one a core, up to 4.")] = (
        None
    ),
    list_: Annotated[bool, typer.Option("--list", help="Show what is in the cache folder and compile nothing.")] = (
        False
    ),
    prune: Annotated[bool, typer.Option("--prune", help="Remove compiled code of other versions; compile nothing.")] = (
        False
    ),
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Compile what training and prediction on the Numba backend need, so that later processes start at once."""
    if quick and everything:
        raise ConfigurationError("--quick and --all contradict each other")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if list_ or prune:
        import bpcore as bp

        bp.get_backend("numba")  # without Numba there is nothing to show, and this says why
        (_prune if prune else _list)(json)
        return
    scope: Scope = "quick" if quick else "all" if everything else "usual"
    _compile(DTYPES[dtype], scope, activations, losses, optimizers, processes, json)


def _compile(
    dtypes: tuple[str, ...],
    scope: Scope,
    activations: str | None,
    losses: str | None,
    optimizers: str | None,
    processes: int | None,
    json: bool,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bpcore.training.warmup import warm_up

    error = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=error, disable=json or not error.is_terminal) as bar:
        task = bar.add_task("compiling", total=None)
        report = warm_up(
            dtypes,
            scope,
            activations=_split(activations),
            losses=_split(losses),
            optimizers=_split(optimizers),
            processes=_cores() if processes is None else processes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    from bpcore.kernels.numba.cache_folders import CacheFolder

    size = CacheFolder.read(report.folder).size
    if json:
        print_json(
            {
                "compiled": list(report.compiled),
                "present": list(report.present),
                "seconds": report.seconds,
                "folder": str(report.folder),
                "bytes": size,
            }
        )
        return
    out().print(
        facts_table(
            [
                ("compiled", _functions(report.compiled)),
                ("there already", _functions(report.present)),
                ("time", f"{report.seconds:.1f} s"),
                ("folder", report.folder),
                ("size", _megabytes(size)),
            ]
        )
    )


def _list(json: bool) -> None:
    from bpcore.kernels.numba.cache import folder, own_folder
    from bpcore.kernels.numba.cache_folders import CacheFolder, list_folders

    # a folder that cannot be written is shown in a temporary one
    mine, own = CacheFolder.read(folder()), own_folder()
    others = [found for found in list_folders(own.parent) if found.path != own]
    if json:
        print_json({"current": _as_json(mine), "others": [_as_json(found) for found in others]})
        return
    console = out()
    counts = {name: mine.functions.count(name) for name in dict.fromkeys(mine.functions)}
    if counts:
        console.print(rows_table(("function", "signatures"), counts.items(), right=["signatures"]))
        console.print()
    facts = [("folder", mine.path), ("functions", len(mine.functions)), ("size", _megabytes(mine.size))]
    if others:
        total = _megabytes(sum(found.size for found in others))
        facts.append(("other versions", f"{len(others)}, {total}; `bpcore warmup --prune` removes them"))
    console.print(facts_table(facts))


def _prune(json: bool) -> None:
    from bpcore.kernels.numba.cache import own_folder
    from bpcore.kernels.numba.cache_folders import prune

    removed = prune(own_folder())
    if json:
        print_json({"removed": [_as_json(found) for found in removed]})
        return
    console = out()
    if removed:
        rows = [(found.path.name, len(found.functions), _megabytes(found.size), _days(found.used)) for found in removed]
        console.print(rows_table(("removed", "functions", "size", "last used"), rows, right=["functions", "size"]))
    else:
        console.print("nothing to remove")


def _split(names: str | None) -> list[str] | None:
    if names is None:
        return None
    found = parse_names(names)
    return [found] if isinstance(found, str) else list(found)


def _cores() -> int:
    return min(usable_cores(), MAX_PROCESSES)


def _functions(names: Sequence[str]) -> str:
    return f"{len(names)} function{'' if len(names) == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _days(used: float) -> str:
    days = int((time.time() - used) / 86400)
    return "today" if days < 1 else f"{days} day{'s' if days > 1 else ''} ago"


def _as_json(found: CacheFolder) -> dict[str, Any]:
    return {
        "folder": str(found.path),
        "functions": list(found.functions),
        "bytes": found.size,
        "used": found.used,
    }
