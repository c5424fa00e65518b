"""``bpcore tune``: measure this machine once, so that backends and plans are chosen by what was measured."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bpcore.cli.bench import parse_budget, refuse_unusable
from bpcore.cli.meter import measuring
from bpcore.cli.reporting import facts_table, out, print_json, rows_table
from bpcore.errors import ConfigurationError

__all__ = ["tune"]

SECONDS = 60.0


def tune(
    budget: Annotated[str | None, typer.Option(help="Time for everything, such as 90s or 5m; default 60 s.")] = None,
    backends: Annotated[
        str | None, typer.Option(help="Only these, such as numba,cupy:graph,cupy:wide; by default all that run here.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what is stored and measure nothing.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what is stored and measure nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Measure which backend and plan is the fastest on this machine from which size on, and store it."""
    from bpcore.tuning import tuning_file, valid_tuning

    if show and forget:
        raise ConfigurationError("--show and --forget exclude each other")
    if backends is not None and (show or forget):
        raise ConfigurationError("--backends says what is measured; --show and --forget measure nothing")
    path = tuning_file()
    if forget:
        was_there = path.exists()
        path.unlink(missing_ok=True)
        if json:
            print_json({"removed": str(path) if was_there else None})
        else:
            typer.echo(f"removed: {path}" if was_there else "nothing to remove")
        return
    if not show:
        _measure(SECONDS if budget is None else parse_budget(budget), backends, quiet=json)
    found, why_not = valid_tuning()
    facts: dict[str, Any] = {"file": str(path), "counts": found is not None, "why_not": why_not}
    if found is not None:
        facts |= {"when": found.when, "machine": found.machine}
        facts |= {"backends": [vars(part) for part in found.backends], "plans": [vars(part) for part in found.plans]}
    if json:
        print_json(facts)
    elif found is None:
        out().print(why_not)
    else:
        _show(facts)


def _measure(seconds: float, backends: str | None, quiet: bool) -> None:
    from rich.console import Console

    from bpcore.bench.tune import contenders, measure, tuning_of
    from bpcore.persistence.atomic import write_atomically
    from bpcore.tuning import tuning_file

    compared = contenders(None if backends is None else backends.split(","))
    refuse_unusable([contender.backend for contender in compared])
    with measuring(quiet) as tell:
        result = measure(seconds, tell, compared)
    path = tuning_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, tuning_of(result).as_json().encode())
    for text in result["warnings"]:
        Console(stderr=True).print(f"note: {text}", markup=False, highlight=False)


def _show(facts: dict[str, Any]) -> None:
    from bpcore.tuning import spell

    console = out()
    for kind in ("backends", "plans"):
        rows = [(spell(part["from_flops"]), part["best"]) for part in facts[kind]]
        if rows:
            console.print(rows_table(("from a step of", kind.removesuffix("s")), rows, right=["from a step of"]))
            console.print()
    console.print(facts_table([("measured", facts["when"]), ("file", facts["file"])]))
