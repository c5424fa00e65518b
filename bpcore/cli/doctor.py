"""``bpcore doctor``: what this machine can do, what it cannot, why, and how to repair it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from bpcore.cli.reporting import FAILED, UNUSABLE_BACKEND, USAGE, facts_table, out, print_json
from bpcore.errors import BackendError, BpcoreError

__all__ = ["doctor"]

Facts = dict[str, Any]


def doctor(
    backend: Annotated[str | None, typer.Option(help="Exit with code 3 unless this backend can run.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if there is a warning.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON and nothing else.")] = False,
) -> None:
    """Examine backends, BLAS, threads and settings of this machine, and say how to repair what is wrong."""
    import bpcore as bp
    from bpcore.backends.diagnosis import diagnose

    facts = {**diagnose(), "tuning": _tuning()}
    if json:
        print_json(facts)
    else:
        _show(out(), facts)
    try:
        bp.get_backend(backend)
    except BackendError as error:
        typer.echo(f"bpcore: {error}", err=True)
        raise typer.Exit(UNUSABLE_BACKEND) from None
    except BpcoreError as error:
        typer.echo(f"bpcore: {error}", err=True)
        raise typer.Exit(USAGE) from None
    if strict and facts["warnings"]:
        raise typer.Exit(FAILED)


def _show(console: Console, facts: Facts) -> None:
    selection = facts["selection"]
    console.print(
        facts_table(
            [
                ("bpcore", facts["bpcore"]),
                ("python", " ".join(str(value) for value in facts["python"].values())),
                ("platform", " ".join(str(value) for value in facts["platform"].values())),
                ("in use", f"{selection['name'] or 'nothing'} ({selection['why']})"),
            ]
        )
    )
    _heading(console, "Backends")
    for status in facts["backends"]:
        rows = [(status["name"], f"{'usable' if status['usable'] else 'not usable'}: {status['reason']}")]
        rows += [("  repair", status["repair"])] if status["repair"] else []
        rows += [(f"  {name}", _spell(value)) for name, value in status["facts"].items()]
        console.print(facts_table(rows))
    _heading(console, "Processor")
    quota = facts["cpu"]["quota"]
    cpu = {**facts["cpu"], "quota": "no limit" if quota is None else f"{quota:g} cores"}
    console.print(facts_table((name, _spell(value)) for name, value in cpu.items()))
    for gpu in facts["gpu"]:
        memory = "memory unknown" if gpu["memory"] is None else f"{gpu['memory'] / 2**30:.0f} GiB"
        console.print(facts_table([("gpu", f"{gpu['name']}, {memory}, driver {gpu['driver']}")]))
    _heading(console, "Matrix products")
    for blas in facts["blas"]:
        console.print(facts_table((name, _spell(value)) for name, value in blas.items()))
    if not facts["blas"]:
        console.print("no BLAS library that tells its name")
    _heading(console, "Threads")
    console.print(facts_table((name, _spell(value)) for name, value in facts["threading"].items()))
    _heading(console, "Automatic choice")
    console.print(facts_table((name, _spell(value)) for name, value in facts["tuning"].items()))
    if facts["environment"]:
        _heading(console, "Environment")
        console.print(facts_table(facts["environment"].items()))
    _heading(console, "Warnings")
    for number, warning in enumerate(facts["warnings"], start=1):
        lines = [("what", warning["what"]), ("cost", warning["cost"]), ("repair", warning["repair"])]
        console.print(facts_table([(f"{number}", ""), *lines]))
    if not facts["warnings"]:
        console.print("none")


def _tuning() -> Facts:
    """What ``bpcore tune`` has stored, and whether it counts."""
    from bpcore.tuning import spell, tuning_file, valid_tuning

    found, why_not = valid_tuning()
    if found is None:
        rule = "cupy if it can run, else numba, else numpy"
        return {"counts": False, "why": why_not, "backends": rule, "plans": "by fixed sizes"}
    ranges = {
        kind: [f"{part.best} from a step of {spell(part.from_flops)}" for part in getattr(found, kind)]
        for kind in ("backends", "plans")
    }
    return {"counts": True, "why": f"measured {found.when}", **ranges, "file": str(tuning_file())}


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="bold")


def _spell(value: Any) -> str:
    """Write a fact on one line: lists with commas, tables as name and value."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_spell(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_spell(entry) for entry in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
