"""``bpcore predict``: apply a saved model to data of any length, a block of rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import numpy as np
import typer

from bpcore.cli.inputs import blocks_for_model
from bpcore.cli.meter import metered
from bpcore.cli.reporting import print_json
from bpcore.cli.tables_out import CsvText, Write, table_file
from bpcore.errors import ConfigurationError
from bpcore.persistence.atomic import check_writable
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.model_file import load_model
from bpcore.typing import NDArray

__all__ = ["predict"]


def predict(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote, a checkpoint, or a folder of them.")],
    data: Annotated[str, typer.Argument(help="A data set, or a file of any length or a folder; see train.")],
    out: Annotated[
        str | None, typer.Option(help="Write a file instead of printing: .parquet, or anything else for CSV.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="One more column for each class.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Column of targets to leave out, by name or number; or several.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON and nothing else.")] = False,
) -> None:
    """Predict the target of every row of DATA with a saved MODEL."""
    if out is not None:
        check_writable(out)
    knowledge = Knowledge(load_model(model, backend))
    if probabilities:
        _check_probabilities(knowledge)
    blocks = blocks_for_model(data, knowledge, target)
    # a bar between lines that are printed would tear them apart
    results = _results(knowledge, metered(blocks, None if out is not None else False), probabilities)
    count = 0
    kept: list[dict[str, NDArray[Any]]] = []
    with table_file(out) if out is not None else contextlib.nullcontext(_printer(json)) as write:
        for columns in results:
            write(columns)
            count += len(columns[next(iter(columns))])
            if json:
                kept.append(columns)
    if json:
        together = {name: [value for part in kept for value in part[name].tolist()] for name in kept[0]}
        print_json({"model": model, "data": data, "written": out, **together})
    elif out is not None:
        typer.echo(f"wrote {count} predictions to {out}")


def _printer(silent: bool) -> Write:
    text = CsvText()
    return lambda columns: None if silent else typer.echo(text(columns), nl=False)


def _results(
    knowledge: Knowledge, blocks: Iterable[NDArray[Any]], probabilities: bool
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield columns for each block: the prediction, and the probability of each class if asked for."""
    for X in blocks:
        H = np.asarray(knowledge.net.predict(X))
        if knowledge.task == "regression":
            values = knowledge.values_of(H)
            names = knowledge.target_names
            yield {
                f"prediction {name}" if len(names) > 1 else "prediction": values[:, j] for j, name in enumerate(names)
            }
            continue
        indices, classes = knowledge.classes_of(H), knowledge.classes
        columns = {"prediction": indices if classes is None else classes.decode(indices)}
        if probabilities:
            P = knowledge.probabilities_of(H)
            columns |= {f"p({name})": P[:, j] for j, name in enumerate(knowledge.class_names)}
        yield columns


def _check_probabilities(knowledge: Knowledge) -> None:
    if knowledge.task == "regression":
        raise ConfigurationError("--probabilities is for classes, but this model predicts numbers")
    if not knowledge.has_probabilities:
        raise ConfigurationError(
            f"--probabilities: the output activation {knowledge.net.output.name!r} gives no probabilities; "
            "train with --output softmax or sigmoid"
        )
