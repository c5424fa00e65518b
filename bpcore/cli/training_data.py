"""The data of ``bpcore train``, in memory or on disk: parts, preparation and facts in one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.cli.inputs import load_data, prepare
from bpcore.cli.measures import Errors, errors_in_units
from bpcore.cli.setup import TEST_FRACTION, VALIDATION_FRACTION, choose_output, divide, encode
from bpcore.data.datasets import Dataset, Task
from bpcore.data.fitting import fit_preprocessing
from bpcore.data.preprocessing import Preprocessing, Standardizer
from bpcore.data.store import Store
from bpcore.data.store_files import store_file
from bpcore.functions.losses import Loss
from bpcore.network import MLP

__all__ = ["DataOptions", "TrainingData", "errors_of", "with_data"]

Pair = tuple[Any, Any]
"""Features and targets; or a store and None."""


@dataclass(frozen=True)
class DataOptions:
    """What was asked for; see ``bpcore train --help``."""

    name: str
    target: str | None
    labels: str | None
    group: str | None
    drop: tuple[str, ...]
    task: Task | Literal["auto"]
    missing: str
    fill: float
    text: str
    output: str
    loss: str
    test_fraction: float | None
    in_order: bool
    validates: bool
    seed: int
    dtype: str | None
    stream: bool | None
    cache: str | None
    verbose: bool | None


@dataclass(frozen=True)
class TrainingData:
    """Data that is ready to be trained with.

    Attributes
    ----------
    source : Dataset
        Names and facts; its matrix is empty where the data is on disk.
    fit, validation, test : (X, Y) or (Store, None)
        The parts.
    counts : tuple of int
        Rows of each.
    n_in, n_out : int
        Widths of the network's input and output.
    preprocessing, target_preprocessing
        What was applied.
    output : str
        The output activation.
    loss : Loss
        The loss.
    how : str
        How the rows were divided.
    close : callable
        Removes what was written to disk.
    """

    source: Dataset
    fit: Pair
    validation: Pair
    test: Pair
    counts: tuple[int, int, int]
    n_in: int
    n_out: int
    preprocessing: Preprocessing | None
    target_preprocessing: Standardizer | None
    output: str
    loss: Loss
    how: str
    close: Callable[[], None]
    truth: Any = None
    """Targets of the test part before preparation, where they are in memory."""


def with_data(options: DataOptions, on_disk: bool) -> TrainingData:
    """Read the data, set parts aside and prepare them."""
    return _on_disk(options) if on_disk else _in_memory(options)


def _in_memory(options: DataOptions) -> TrainingData:
    source = load_data(
        options.name,
        options.target,
        options.task,
        labels=options.labels,
        group=options.group,
        drop=options.drop,
        keep_missing=options.missing != "refuse",
        text=options.text,
    )
    output, loss = choose_output(source, options.output, options.loss)
    rows = divide(source, options.test_fraction, options.seed, in_order=options.in_order, validates=options.validates)
    preprocessing = source.preprocessing or fit_preprocessing(
        source.X[rows.fit], source.feature_names, options.missing, constant=options.fill, categories=source.categories
    )
    X, targets = prepare(source, preprocessing), encode(source, output, rows.fit)
    assert source.y is not None

    def pair(part: Any) -> Pair:
        return X[part], targets.values[part]

    return TrainingData(
        source,
        pair(rows.fit),
        pair(rows.validation),
        pair(rows.test),
        (len(rows.fit), len(rows.validation) if options.validates else 0, len(rows.test)),
        X.shape[1],
        targets.n_out,
        preprocessing,
        targets.preprocessing,
        output,
        loss,
        _how_divided(options, source.held_out > 0, ""),
        lambda: None,
        source.y[rows.test],
    )


def _on_disk(options: DataOptions) -> TrainingData:
    found = store_file(
        options.name,
        target=options.target,
        labels=options.labels,
        group=options.group,
        drop=options.drop,
        task=options.task,
        missing=options.missing,
        fill=options.fill,
        text=options.text,
        test_fraction=TEST_FRACTION if options.test_fraction is None else options.test_fraction,
        validation_fraction=VALIDATION_FRACTION if options.validates else 0.0,
        seed=options.seed,
        in_order=options.in_order,
        folder=options.cache,
        dtype=options.dtype or "float32",
        verbose=options.verbose,
    )
    try:
        store, path = found.train, Path(options.name)
        source = Dataset(
            path.name,
            np.empty((0, store.n_columns)),
            None,
            found.feature_names,
            store.classes,
            found.task,
            store.preprocessing,
            str(path),
            found.target_name,
            categories=store.categories,
        )
        output, loss = choose_output(source, options.output, options.loss)
        n_classes = 0 if store.classes is None else len(store.classes)
        single = n_classes == 2 and output not in ("softmax", "log_softmax")
        validation = found.validation or found.test
        return TrainingData(
            source,
            (store, None),
            (validation, None),
            (found.test, None),
            (store.m, 0 if found.validation is None else found.validation.m, found.test.m),
            store.width,
            1 if single else n_classes or store.n_targets,
            store.preprocessing,
            store.target_preprocessing,
            output,
            loss,
            _how_divided(options, path.is_dir(), ", each row drawn by itself"),
            found.close,
        )
    except BaseException:
        found.close()
        raise


def _how_divided(options: DataOptions, by_itself: bool, drawn: str) -> str:
    if by_itself:
        return " by the data itself"
    if options.in_order:
        return ", the last ones"
    return f" (seed {options.seed}{', whole groups' if options.group is not None else drawn})"


def errors_of(net: MLP, data: TrainingData) -> Errors:
    """Errors of the test part, in the units of the targets."""
    X, fitted = data.test[0], data.target_preprocessing
    assert fitted is not None
    if isinstance(X, Store):
        return errors_in_units(net, fitted, ((block, fitted.undo(y)) for block, y in X.blocks()))
    return errors_in_units(net, fitted, [(X, np.asarray(data.truth).reshape(len(X), -1))])
