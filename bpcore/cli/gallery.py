"""``bpcore gallery``: the worked examples, their numbers and their pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpcore.cli.reporting import FAILED, out, print_json, rows_table
from bpcore.errors import ConfigurationError, MissingExtraError, unknown

if TYPE_CHECKING:
    from bpcore.gallery import Check, Example, Report

__all__ = ["gallery"]

WIDTH = 160
"""Columns that the widest table may take."""


def gallery(
    names: Annotated[list[str] | None, typer.Argument(help="Numbers or names, such as R7 or saturated-neuron.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    backend: Annotated[str | None, typer.Option(help="Where to compute.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Save the pictures in this folder.")] = None,
    format: Annotated[str, typer.Option(help="Of the pictures: png or svg.")] = "png",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """List the worked examples, or run some; exit code 1 if a number is not the one that is known.

    An example prints its equations and tables, compares its numbers with the known ones, and draws its pictures.
    """
    from bpcore.gallery import EXAMPLES, get_example, run_example, save_pictures
    from bpcore.gallery.pictures import FORMATS

    if every and names:
        raise ConfigurationError(f"--all runs every example; leave it out to run {', '.join(names)} alone")
    if format not in FORMATS:
        raise unknown("format of pictures", format, FORMATS)
    examples = list(EXAMPLES.values()) if every else [get_example(name) for name in names or ()]
    if not examples:
        _list(json)
        return
    passed, results, no_pictures = True, [], None
    for example in examples:
        begin = time.perf_counter()
        report = run_example(example, backend)
        seconds, files = time.perf_counter() - begin, list[Path]()
        if folder is not None and no_pictures is None:
            try:
                files = save_pictures(example, report, folder, format)
            except MissingExtraError as error:
                no_pictures = error
        passed &= report.passed
        if json:
            results.append(_as_json(example, report, seconds, files))
        else:
            _show(example, report, seconds, files, folder is not None)
    if json:
        print_json({"passed": passed, "examples": results})
    elif len(examples) > 1:
        out().print(f"{len(examples)} examples: {'all passed' if passed else 'FAILED'}")
    if not passed:
        raise typer.Exit(FAILED)
    if no_pictures is not None:
        # the numbers are out; the pictures were asked for and are not there
        raise no_pictures


def _list(json: bool) -> None:
    from bpcore.gallery import EXAMPLES

    if json:
        facts = [{"number": e.key, "name": e.name, "shows": e.shows} for e in EXAMPLES.values()]
        print_json({"examples": facts})
        return
    console = out()
    for example in EXAMPLES.values():
        console.print(f"{example.key:<4} {example.name:<22} {example.shows}", soft_wrap=True)
    console.print("\nRun some with: bpcore gallery R7 --out pictures", soft_wrap=True)


def _show(example: Example, report: Report, seconds: float, files: list[Path], drawn: bool) -> None:
    console = out()
    # a terminal that is narrower folds the lines, which loses less than cutting the numbers off
    console.width = max(console.width, WIDTH)
    console.print(f"{example.key} {example.name}: {example.shows}", style="bold", soft_wrap=True)
    console.print()
    for line in example.equations:
        console.print(f"    {line}", soft_wrap=True)
    for table in report.tables:
        console.print(f"\n{table.title}", style="bold")
        left = {name for k, name in enumerate(table.header) if any(_is_word(row[k]) for row in table.rows)}
        laid_out = rows_table(table.header, table.rows, right=[name for name in table.header if name not in left])
        console.print(laid_out)
    failed = [check for check in report.checks if not check.passed]
    verdict = (
        f"{len(failed)} of {len(report.checks)} checks FAILED" if failed else f"{len(report.checks)} checks passed"
    )
    console.print(f"\n{verdict}, {seconds:.1f} s on {report.backend}")
    for check in failed:
        console.print(f"  FAIL {_describe(check)}", soft_wrap=True)
    for path, picture in zip(files, report.pictures, strict=False):
        console.print(f"{path}: {picture.caption}", soft_wrap=True)
    if not drawn:
        console.print(f"pictures: {len(report.pictures)}, saved with --out FOLDER", soft_wrap=True)
    console.print()


def _is_word(cell: object) -> bool:
    """Whether a cell is neither a number nor empty."""
    text = str(cell).removesuffix("%").strip()
    try:
        float(text or 0)
    except ValueError:
        return True
    return False


def _describe(check: Check) -> str:
    found, expected = (f"{v:.9g}" if isinstance(v, float) else repr(v) for v in (check.found, check.expected))
    unit = f" {check.unit}" if check.unit else ""
    if check.relation == "=":
        return f"{check.what}: found {found}{unit}, known {expected}{unit} within {check.tolerance:.2g}"
    return f"{check.what}: found {found}{unit}, must be {check.relation} {expected}{unit}"


def _as_json(example: Example, report: Report, seconds: float, files: list[Path]) -> dict[str, Any]:
    return {
        "number": example.key,
        "name": example.name,
        "shows": example.shows,
        "equations": list(example.equations),
        "backend": report.backend,
        "seconds": round(seconds, 3),
        "passed": report.passed,
        "checks": [{**vars(check), "passed": check.passed} for check in report.checks],
        "tables": [
            {"title": t.title, "header": list(t.header), "rows": [[str(cell) for cell in row] for row in t.rows]}
            for t in report.tables
        ],
        "pictures": [str(path) for path in files],
    }
