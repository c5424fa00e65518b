"""``bpcore train``: from a data set to a trained, measured and saved network in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from bpcore.cli.inputs import check_choices, load_data, parse_columns, parse_names, parse_widths, prepare
from bpcore.cli.reporting import INTERRUPTED, facts_table, out, print_json
from bpcore.cli.setup import DEFAULT_OPTIMIZER, choose_optimizer, choose_output, divide, encode
from bpcore.data.datasets import Dataset
from bpcore.data.fitting import fit_preprocessing
from bpcore.errors import ConfigurationError
from bpcore.persistence.atomic import check_writable

if TYPE_CHECKING:
    from bpcore.cli.setup import Targets
    from bpcore.network import MLP
    from bpcore.training.run import Run
    from bpcore.training.stopping import Progress

__all__ = ["train"]


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="digits, iris, wine, breast-cancer, diabetes; or a .csv, .parquet, .npz, .npy or IDX file, or the folder of MNIST."
        ),
    ] = "digits",
    target: Annotated[str | None, typer.Option(help="Column (or .npz array) of the targets: name or number.")] = None,
    labels: Annotated[str | None, typer.Option(help="File of the targets, for .npy and IDX files.")] = None,
    group: Annotated[str | None, typer.Option(help="Column of groups, none of which is in two parts.")] = None,
    drop: Annotated[str | None, typer.Option(help="Columns to leave out, separated by commas.")] = None,
    missing: Annotated[
        str, typer.Option(help="Missing features: refuse, mean, median, most-frequent or constant.")
    ] = "refuse",
    fill: Annotated[float, typer.Option(help="The number for --missing constant.")] = 0.0,
    text: Annotated[str, typer.Option(help="Features that are text: refuse or one-hot.")] = "refuse",
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    layers: Annotated[str, typer.Option(help="Widths of the hidden layers, or none.")] = "128,64",
    activation: Annotated[str, typer.Option(help="Hidden activation; one for all, or one for each.")] = "relu",
    output: Annotated[str, typer.Option(help="Output activation; auto: by the task.")] = "auto",
    loss: Annotated[str, typer.Option(help="Loss; auto: by the output.")] = "auto",
    optimizer: Annotated[str, typer.Option(help="Update rule, such as sgd, momentum, adam, or lbfgs.")] = (
        DEFAULT_OPTIMIZER
    ),
    eta: Annotated[float | None, typer.Option(help="Learning rate; a default for each optimizer.")] = None,
    batch_size: Annotated[str, typer.Option(help="Samples in a step, or full.")] = "32",
    epochs: Annotated[int, typer.Option(help="Passes over the training part.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the split, the weights and the shuffles.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the products, on a GPU: tf32, bf16 or fp16; by default the dtype.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="Rate of dropout on the hidden layers.")] = 0.0,
    l2: Annotated[float, typer.Option(help="Weight of the L2 penalty.")] = 0.0,
    test_fraction: Annotated[
        float | None, typer.Option(help="Share of the data held out for testing; 0.2 unless the data says.")
    ] = None,
    split_order: Annotated[
        bool, typer.Option("--split-order", help="Hold out the last rows instead of random ones (time series).")
    ] = False,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without progress on a validation part.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the matrix products.")] = None,
    save: Annotated[str | None, typer.Option(help="Write the model to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the last line only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each epoch.")] = False,
) -> None:
    """Train a network on DATA and measure it on a part that it has not seen."""
    import bpcore as bp

    if save is not None:
        check_writable(save)  # before the training, not after
    rule = choose_optimizer(optimizer, eta)
    hidden = parse_widths(layers)
    chosen = bp.selection(backend)
    check_choices(missing, text)
    source = load_data(
        data,
        target,
        task,  # type: ignore[arg-type]
        labels=labels,
        group=group,
        drop=parse_columns(drop),
        keep_missing=missing != "refuse",
        text=text,
    )
    output, loss_object = choose_output(source, output, loss)
    rows = divide(source, test_fraction, seed, in_order=split_order, validates=patience is not None)
    fit_rows, validation_rows, test_rows = rows.fit, rows.validation, rows.test
    preprocessing = source.preprocessing or fit_preprocessing(
        source.X[fit_rows], source.feature_names, missing, constant=fill, categories=source.categories
    )
    X, targets = prepare(source, preprocessing), encode(source, output, fit_rows)
    net = bp.MLP(
        [X.shape[1], *hidden, targets.n_out],
        activation=parse_names(activation),
        output=output,
        seed=seed,
        dtype=dtype,
        backend=None if backend is None else bp.get_backend(backend),
    )
    net.meta = {
        "task": source.task,
        "classes": None if source.classes is None else list(source.classes),
        "feature_names": list(source.feature_names),
        "target": source.target_name,
        "categories": {name: list(texts) for name, texts in source.categories.items()},
        "preprocessing": preprocessing.to_dict(),
        "target_preprocessing": None if targets.preprocessing is None else targets.preprocessing.to_dict(),
        "loss": loss_object.name,
        "data": source.source,
    }
    console, talks = out(), not (json or quiet)
    if talks:
        parts = f"{len(fit_rows)} to train"
        parts += f", {len(validation_rows)} to validate" if patience is not None else ""
        console.print(
            facts_table(
                [
                    ("data", f"{source.name} ({source.source}): {len(X)} samples, {X.shape[1]} features"),
                    ("target", _describe_target(source)),
                    ("split", f"{parts}, {len(test_rows)} held out{_how_divided(source, seed, split_order)}"),
                    ("network", _describe_network(net)),
                    ("loss", loss_object.name),
                    ("backend", f"{chosen.name}, {net.dtype}: {chosen.why}"),
                ]
            )
        )
    run = bp.train(
        net,
        X[fit_rows],
        targets.values[fit_rows],
        loss=loss_object,
        optimizer=rule,
        batch_size=_batch_size(batch_size),
        epochs=epochs,
        validation=(X[validation_rows], targets.values[validation_rows]),
        dropout=dropout or None,
        penalty=[bp.L2(l2)] if l2 else None,
        stop=[bp.Patience(patience)] if patience is not None else None,
        seed=seed,
        callbacks=[_print_epoch] if verbose and not json else (),
        threads=threads,
        precision=precision,
        verbose=False if json or quiet or verbose else None,
    )
    test = measure(net, source, X, targets, test_rows)
    if save is not None:
        net.save(save)
    seconds, samples = run.seconds, len(fit_rows) * len(run.history)
    if json:
        print_json(
            {
                "data": {
                    "name": source.name,
                    "source": source.source,
                    "task": source.task,
                    "samples": len(X),
                    "features": X.shape[1],
                    "target": source.target_name,
                    "classes": source.classes,
                    "train": len(fit_rows),
                    "validation": len(validation_rows) if patience is not None else 0,
                    "test": len(test_rows),
                },
                "sizes": net.sizes,
                "test": test,
                "history": list(run.history),
                "stopped_because": run.stopped_because,
                "seconds": seconds,
                "samples_per_second": samples / seconds,
                "kept": run.kept,
                "record": run.record,
                "saved": save,
            }
        )
    else:
        headline = _headline(test)
        if talks:
            console.print()
            console.print(
                facts_table(
                    [
                        ("held out", headline),
                        ("epochs", f"{len(run.history)} ({run.stopped_because}; parameters: {run.kept})"),
                        ("time", f"{seconds:.2f} s, {samples / seconds:,.0f} samples/s, plan {run.record['plan']}"),
                        *([("saved", save)] if save else []),
                    ]
                )
            )
        else:
            console.print(f"{headline}; {seconds:.2f} s{f'; saved {save}' if save else ''}")
    if _was_interrupted(run):
        raise typer.Exit(INTERRUPTED)


def measure(net: MLP, data: Dataset, X: Any, targets: Targets, rows: Any) -> dict[str, float]:
    """Measure a network on some rows; errors of numbers are in the units of the target."""
    found = net.evaluate(X[rows], targets.values[rows], loss=net.meta["loss"])
    if targets.preprocessing is None:
        return found
    assert data.y is not None
    prediction = targets.preprocessing.undo(net.predict(X[rows]).astype(np.float64))
    error = prediction - data.y[rows].reshape(prediction.shape)
    mse = float(np.mean(error**2))
    return {**found, "mse": mse, "rmse": mse**0.5, "mae": float(np.mean(np.abs(error)))}


def _headline(test: dict[str, float]) -> str:
    if "accuracy" in test:
        return f"accuracy {100 * test['accuracy']:.2f} %, loss {test['loss']:.4g}"
    return f"R2 {test['r2']:.4f}, MSE {test['mse']:.5g}, mean absolute error {test['mae']:.5g}"


def _how_divided(data: Dataset, seed: int, in_order: bool) -> str:
    if data.held_out:
        return " by the data itself"
    if in_order:
        return ", the last ones"
    return f" (seed {seed}{', whole groups' if data.groups is not None else ''})"


def _describe_target(data: Dataset) -> str:
    if data.classes is None:
        return f"{data.target_name}, a number (standardised for training)"
    names = [str(name) for name in data.classes]
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"{data.target_name}, {len(names)} classes: {shown}"


def _describe_network(net: MLP) -> str:
    names = ", ".join(activation.name for activation in net.activations)
    return f"{' - '.join(map(str, net.sizes))}, {names}, {net.n_parameters:,} parameters"


def _batch_size(text: str) -> int | Literal["full"]:
    if text == "full":
        return "full"
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"--batch-size is {text!r}; expected a whole number of at least 1, or full") from None


def _print_epoch(net: MLP, progress: Progress) -> None:
    from bpcore.training.progress import summary

    if progress.row is not None:
        typer.echo(f"epoch {progress.epoch:3d}  {summary(progress.row)}")


def _was_interrupted(run: Run) -> bool:
    return run.stopped_because.startswith("interrupted")
