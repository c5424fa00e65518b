"""How commands speak: results on standard output, errors as one line on standard error, exit codes for scripts."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from bpcore.errors import BackendError, BpcoreError, DivergenceError

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "UNUSABLE_BACKEND",
    "USAGE",
    "facts_table",
    "out",
    "print_json",
    "reports_errors",
    "rows_table",
    "show_tracebacks",
]

FAILED, USAGE, UNUSABLE_BACKEND, INTERRUPTED = 1, 2, 3, 130

P = ParamSpec("P")
R = TypeVar("R")
_debug = False


def show_tracebacks(wanted: bool) -> None:
    """Choose whether an error of bpcore is shown with its traceback."""
    global _debug
    _debug = wanted


def out() -> Console:
    """Console for results; made anew so that it follows a redirected standard output."""
    return Console(highlight=False, markup=False)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors that bpcore raises on purpose into one line on standard error and an exit code.

    Parameters
    ----------
    command : callable
        A command.

    Returns
    -------
    callable
        The same command for Typer, with the exit codes of :mod:`bpcore.cli`.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BpcoreError as error:
            if _debug:
                raise
            typer.echo(f"bpcore: {error}", err=True)
            raise typer.Exit(_exit_code(error)) from None
        except KeyboardInterrupt:
            typer.echo("bpcore: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None

    return wrapper


def _exit_code(error: BpcoreError) -> int:
    if isinstance(error, BackendError):
        return UNUSABLE_BACKEND
    return FAILED if isinstance(error, DivergenceError) else USAGE


def print_json(value: Any) -> None:
    """Print a value as JSON and nothing else; numbers that are not finite become null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def facts_table(facts: Iterable[tuple[str, object]], title: str | None = None) -> Table:
    """Lay out names and values in two columns."""
    table = Table(
        box=None, show_header=False, title=title, title_justify="left", title_style="bold", padding=(0, 2, 0, 0)
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, str(value))
    return table


def rows_table(header: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> Table:
    """Lay out rows under a header; the columns named in `right` are aligned to the right."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in set(right) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table
