"""``bpcore evaluate``: measure a saved model on data with known targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import typer

from bpcore.cli.inputs import has_own_targets, load_for_model, prepare, wants_disk
from bpcore.cli.measures import errors_in_units, print_targets
from bpcore.cli.reporting import facts_table, out, print_json, rows_table
from bpcore.data.datasets import DATASETS
from bpcore.data.preprocessing import ClassList, Standardizer
from bpcore.data.store import Store
from bpcore.data.store_files import store_for_model
from bpcore.errors import ConfigurationError, DataError
from bpcore.network import MLP
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.model_file import load_model
from bpcore.typing import NDArray

__all__ = ["evaluate", "read_pair", "stored"]

Block = tuple[NDArray[Any], NDArray[Any]]
"""Features and targets of some rows."""


def evaluate(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote, a checkpoint, or a folder of them.")],
    data: Annotated[str, typer.Argument(help="A data set, a file or a folder, with targets; see train.")],
    target: Annotated[str | None, typer.Option(help="Column of the targets; by default that of the training.")] = None,
    labels: Annotated[str | None, typer.Option(help="File of the targets, for .npy and IDX files.")] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Measure from the disk; by default files of 512 MiB and more."),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for what --stream keeps on disk meanwhile; implies --stream.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Measure a saved MODEL on DATA."""
    net = load_model(model, backend)
    knowledge = Knowledge(net)
    if wants_disk(data, stream, cache):
        with stored(data, knowledge, target, labels, cache, False if json else None) as store:
            metrics = net.evaluate(store, loss=knowledge.loss)
            m, blocks = store.m, store.blocks()
            by_class, by_target = _in_words(net, knowledge, metrics, blocks)
    else:
        X, truth = read_pair(data, knowledge, target, labels)
        metrics, m = net.evaluate(X, truth, loss=knowledge.loss), len(X)
        if knowledge.classes is not None and knowledge.task == "classification":
            truth = knowledge.classes.encode(truth)
        by_class, by_target = _in_words(net, knowledge, metrics, [(X, truth)])
    if json:
        print_json({"model": model, "data": data, "samples": m, **metrics, "classes": by_class, "targets": by_target})
        return
    shown = [("samples", f"{m}")]
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
    print_targets(console, by_target)


def read_pair(data: str, knowledge: Knowledge, target: str | None, labels: str | None) -> Block:
    """Read features, prepared, and targets as the network compares them."""
    source = load_for_model(data, knowledge, target, labels=labels)
    if source.held_out:  # the others are those that it was trained with
        tested = slice(len(source.X) - source.held_out, None)
        source = replace(source, X=source.X[tested], y=None if source.y is None else source.y[tested])
    if source.y is None or source.task != knowledge.task:
        raise DataError(f"{data} has a target for {source.task}, but the model was trained for {knowledge.task}")
    X = prepare(source, knowledge.preprocessing)
    if knowledge.task == "classification":
        return X, source.y if source.classes is None else ClassList(source.classes).decode(source.y)
    truth = source.y.reshape(len(source.y), -1)
    return X, truth if knowledge.target_preprocessing is None else knowledge.target_preprocessing.apply(truth)


def stored(
    data: str, knowledge: Knowledge, target: str | None, labels: str | None, cache: str | None, verbose: bool | None
) -> Store:
    """Write the data to a store on disk, from which it is read as the network takes it."""
    if data in DATASETS:
        raise ConfigurationError(f"--stream and --cache are for files; the data set {data!r} is in memory")
    if knowledge.task == "classification" and knowledge.classes is None:
        raise ConfigurationError("the model does not name its classes, so a file cannot be streamed; use --no-stream")
    fitted = knowledge.target_preprocessing
    if fitted is not None and not isinstance(fitted, Standardizer):
        raise ConfigurationError("--stream is for targets that were standardised, or not at all; use --no-stream")
    return store_for_model(
        data,
        target=target or (None if has_own_targets(data) else knowledge.target),
        labels=labels,
        features=knowledge.feature_names,
        classes=knowledge.classes if knowledge.task == "classification" else None,
        categories=knowledge.categories,
        preprocessing=knowledge.preprocessing,
        target_preprocessing=fitted,
        folder=cache,
        dtype=knowledge.net.dtype,
        verbose=verbose,
    )


def _in_words(
    net: MLP, knowledge: Knowledge, metrics: dict[str, float], blocks: Iterable[Block]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Say what became of each class; or of each target, with errors in the units of the targets among the metrics."""
    if knowledge.task == "classification":
        return _classes(net, knowledge, blocks), []
    metrics.pop("rmse")  # to stand behind the mean of the squares
    fitted = knowledge.target_preprocessing
    errors = errors_in_units(net, fitted, ((X, Y if fitted is None else fitted.undo(Y)) for X, Y in blocks))
    metrics |= errors.over_all()
    return [], errors.by_target(knowledge.target_names)


def _classes(net: MLP, knowledge: Knowledge, blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Say what became of each class; targets are the indices of classes."""
    pairs: Counter[tuple[int, int]] = Counter()
    for X, truth in blocks:
        predicted = knowledge.classes_of(np.asarray(net.predict(X)))
        pairs.update(zip(truth.tolist(), predicted.tolist(), strict=True))
    names = knowledge.classes.names if knowledge.classes else range(max(max(pair) for pair in pairs) + 1)
    rows = []
    for c, name in enumerate(names):
        samples = sum(count for (truth, _), count in pairs.items() if truth == c)
        claimed = sum(count for (_, said), count in pairs.items() if said == c)
        right = pairs[c, c]
        recall = right / samples if samples else float("nan")
        precision = right / claimed if claimed else float("nan")
        rows.append({"class": name, "samples": samples, "right": right, "recall": recall, "precision": precision})
    return rows


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"
