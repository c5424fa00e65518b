"""Result files: JSON with a published schema, and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import os
from importlib import resources
from typing import Any

from bpcore.errors import DataError
from bpcore.persistence.atomic import write_atomically

__all__ = ["FORMAT", "load_result", "save_csv", "save_result", "schema"]

FORMAT = "bpcore-bench-1"

CSV_COLUMNS: tuple[str, ...] = (
    "network",
    "batch",
    "contender",
    "status",
    "samples_per_second",
    "us_per_step",
    "q1",
    "q3",
    "spread",
    "gflops",
    "of_peak",
    "over_numpy",
    "plan",
    "threads",
    "seconds_to_prepare",
    "why",
)


def schema() -> dict[str, Any]:
    """Return the JSON schema of result files (draft 2020-12).

    Examples
    --------
    >>> schema()["title"]
    'Result of bpcore bench'
    """
    text = resources.files("bpcore.bench").joinpath("result.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def save_result(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result file.

    Parameters
    ----------
    result : dict
        Of a sweep.
    path : str or PathLike
        The file; its folder must exist.

    Raises
    ------
    ModelFileError
        If it cannot be written; an existing file is unchanged then.
    """
    write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def load_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result file.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    dict
        The result.

    Raises
    ------
    DataError
        If it cannot be read, or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise DataError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{os.fspath(path)} is no JSON ({error}); `bpcore bench --json FILE` writes results") from None
    form = found.get("format") if isinstance(found, dict) else None
    if form != FORMAT:
        raise DataError(
            f"{os.fspath(path)} is no result of this version of bpcore: its format is {form!r}, not {FORMAT!r}; "
            "`bpcore bench --json FILE` writes results"
        )
    return dict(found)


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row for each contender at each batch size of each network."""
    found = []
    for network in result["networks"]:
        for cell in network["cells"]:
            for name, row in cell["contenders"].items():
                times = row.get("us_per_step", {})
                flat = {"network": network["name"], "batch": cell["batch"], "contender": name, **row}
                flat["us_per_step"] = times.get("median")
                found.append(flat | {word: times.get(word) for word in ("q1", "q3", "spread")})
    return found


def save_csv(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write one line for each contender at each batch size of each network.

    Parameters
    ----------
    result : dict
        Of a sweep.
    path : str or PathLike
        The file; its folder must exist.

    Raises
    ------
    ModelFileError
        If it cannot be written; an existing file is unchanged then.
    """
    text = io.StringIO()
    columns, rows = CSV_COLUMNS, rows_of(result)
    if result["mode"] == "ops":
        from bpcore.bench import operations

        columns, rows = operations.CSV_COLUMNS, operations.rows_of(result)
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
