"""``bpcore evaluate``: measure a saved model on data with known targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import typer

from bpcore.cli.inputs import Model, load_for_model, prepare
from bpcore.cli.reporting import facts_table, out, print_json, rows_table
from bpcore.data.preprocessing import ClassList
from bpcore.errors import DataError
from bpcore.network import MLP
from bpcore.persistence.model_file import load_model
from bpcore.typing import NDArray

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote.")],
    data: Annotated[str, typer.Argument(help="A data set, a file or a folder, with targets; see train.")],
    target: Annotated[str | None, typer.Option(help="Column of the targets; by default that of the training.")] = None,
    labels: Annotated[str | None, typer.Option(help="File of the targets, for .npy and IDX files.")] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Measure a saved MODEL on DATA."""
    net = load_model(model, backend)
    knowledge = Model(net)
    source = load_for_model(data, knowledge, target, read_target=True, labels=labels)
    if source.held_out:  # the others are those that it was trained with
        tested = slice(len(source.X) - source.held_out, None)
        source = replace(source, X=source.X[tested], y=None if source.y is None else source.y[tested])
    if source.y is None or source.task != knowledge.task:
        raise DataError(f"{data} has a target for {source.task}, but the model was trained for {knowledge.task}")
    X = prepare(source, knowledge.preprocessing)
    if knowledge.task == "classification":
        truth = source.y if source.classes is None else ClassList(source.classes).decode(source.y)
        metrics, by_class = _classes(net, knowledge, X, truth)
    else:
        metrics, by_class = _numbers(net, knowledge, X, source.y), []
    if json:
        print_json({"model": model, "data": data, "samples": len(X), **metrics, "classes": by_class})
        return
    shown = [("samples", f"{len(X)}")]
    shown += [
        (name, f"{100 * value:.2f} %" if name == "accuracy" else f"{value:.6g}") for name, value in metrics.items()
    ]
    console = out()
    console.print(facts_table(shown))
    if by_class:
        header = ("class", "samples", "right", "recall", "precision")
        rows = [
            (row["class"], row["samples"], row["right"], _percent(row["recall"]), _percent(row["precision"]))
            for row in by_class
        ]
        console.print(rows_table(header, rows, right=header[1:]))


def _classes(
    net: MLP, knowledge: Model, X: NDArray[Any], labels: NDArray[Any]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Loss and accuracy, and what became of each class."""
    metrics = net.evaluate(X, labels, loss=knowledge.loss)
    truth = labels if knowledge.classes is None else knowledge.classes.encode(labels)
    predicted = knowledge.classes_of(np.asarray(net.predict(X)))
    names = knowledge.classes.names if knowledge.classes else range(max(int(truth.max()), int(predicted.max())) + 1)
    rows = []
    for c, name in enumerate(names):
        samples, claimed = int(np.sum(truth == c)), int(np.sum(predicted == c))
        right = int(np.sum((truth == c) & (predicted == c)))
        recall = right / samples if samples else float("nan")
        precision = right / claimed if claimed else float("nan")
        rows.append({"class": name, "samples": samples, "right": right, "recall": recall, "precision": precision})
    return metrics, rows


def _numbers(net: MLP, knowledge: Model, X: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    """Errors in the units of the target, and the share of the variance that is explained."""
    truth = y.reshape(len(y), -1)
    fitted = knowledge.target_preprocessing
    scaled = truth if fitted is None else fitted.apply(truth)
    metrics = net.evaluate(X, scaled, loss=knowledge.loss)
    prediction = np.asarray(net.predict(X), dtype=np.float64)
    error = (prediction if fitted is None else fitted.undo(prediction)) - truth
    mse = float(np.mean(error**2))
    return {
        "loss": metrics["loss"],
        "r2": metrics["r2"],
        "mse": mse,
        "rmse": mse**0.5,
        "mae": float(np.mean(np.abs(error))),
    }


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"
