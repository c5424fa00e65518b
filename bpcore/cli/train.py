"""``bpcore train``: from a data set to a trained, measured and saved network in one command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bpcore.cli.checkpoints import choose_checkpoint, describe_checkpoints
from bpcore.cli.inputs import check_choices, check_task, parse_columns, parse_names, parse_widths, wants_disk
from bpcore.cli.measures import print_targets
from bpcore.cli.pictures import check_picture, save_picture
from bpcore.cli.reporting import INTERRUPTED, facts_table, out, print_json
from bpcore.cli.setup import DEFAULT_OPTIMIZER, choose_optimizer
from bpcore.cli.training_data import DataOptions, errors_of, with_data
from bpcore.data.datasets import Dataset
from bpcore.errors import ConfigurationError
from bpcore.exchange.card import plain, run_facts
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.persistence.atomic import check_writable
from bpcore.persistence.knowledge import Knowledge

if TYPE_CHECKING:
    from bpcore.inspection import Inspector
    from bpcore.network import MLP
    from bpcore.training.run import Run
    from bpcore.training.stopping import Progress

__all__ = ["train"]

LOOKS = 30
"""How many looks of --inspect there are, about, however long the training is."""


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="digits, iris, wine, breast-cancer, diabetes; or a .csv, .parquet, .npz, .npy, .safetensors or IDX "
            "file, or a folder with the files of MNIST."
        ),
    ] = "digits",
    target: Annotated[
        str | None,
        typer.Option(
            help="Column of the target, by name or number; several columns of numbers, separated by commas; or the "
            "array of a file with several."
        ),
    ] = None,
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
        str | None, typer.Option(help="Of the products, on a GPU: tf32x3, tf32, bf16 or fp16; by default the dtype.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="Rate of dropout on the hidden layers.")] = 0.0,
    l2: Annotated[float, typer.Option(help="Weight of the L2 penalty.")] = 0.0,
    test_fraction: Annotated[
        float | None, typer.Option(help="Share of the data held out for testing; 0.2 unless the data says.")
    ] = None,
    split_order: Annotated[
        bool, typer.Option("--split-order", help="Hold out the last rows instead of random ones (time series).")
    ] = False,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Train from the disk, with some blocks of rows in memory; by default for files of 512 MiB and more.",
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for what --stream keeps on disk while it trains; implies --stream.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without progress on a validation part.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the matrix products.")] = None,
    save: Annotated[str | None, typer.Option(help="Write the model to this file.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Folder for checkpoints, from which the training can be resumed.")
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(help="How often: steps (1000), time (30s, 10m, 2h) or epochs (1e); several with commas. [10m]"),
    ] = None,
    keep_checkpoints: Annotated[int | None, typer.Option(help="How many of the last to keep. [3]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the folder, if it has one.")
    ] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Look at every layer during the training; print what is wrong.")
    ] = False,
    inspect_plot: Annotated[
        str | None, typer.Option(help="Write a picture of the looks to this file; implies --inspect.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the last line only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each epoch.")] = False,
) -> None:
    """Train a network on DATA and measure it on a part that it has not seen."""
    import bpcore as bp

    if save is not None:
        check_writable(save)  # before the training, not after
    if inspect_plot is not None:
        check_picture(inspect_plot, "--inspect-plot")
    looks = bp.Inspector(max(epochs // LOOKS, 1)) if inspect or inspect_plot is not None else None
    checkpoints = choose_checkpoint(checkpoint, checkpoint_every, keep_checkpoints, resume)
    rule = choose_optimizer(optimizer, eta)
    hidden = parse_widths(layers)
    chosen = bp.selection(backend)
    check_choices(missing, text)
    check_task(task)
    options = DataOptions(
        name=data,
        target=target,
        labels=labels,
        group=group,
        drop=parse_columns(drop),
        task=task,  # type: ignore[arg-type]
        missing=missing,
        fill=fill,
        text=text,
        output=output,
        loss=loss,
        test_fraction=test_fraction,
        in_order=split_order,
        validates=patience is not None,
        seed=seed,
        dtype=dtype,
        stream=stream,
        cache=cache,
        verbose=False if json or quiet else None,
    )
    # a full-batch method has all samples in memory, so that a file is not kept from there unless that is asked for
    implied = False if isinstance(rule, ScipyMinimize) and cache is None else None
    on_disk = wants_disk(data, implied if stream is None else stream, cache)
    found = with_data(options, on_disk)
    source, (n_fit, n_validation, n_test) = found.source, found.counts
    samples = n_fit + n_validation + n_test
    net = bp.MLP(
        [found.n_in, *hidden, found.n_out],
        activation=parse_names(activation),
        output=found.output,
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
        "preprocessing": None if found.preprocessing is None else found.preprocessing.to_dict(),
        "target_preprocessing": None if found.target_preprocessing is None else found.target_preprocessing.to_dict(),
        "loss": found.loss.name,
        "data": source.source,
    }
    console, talks = out(), not (json or quiet)
    if talks:
        parts = f"{n_fit} to train" + (f", {n_validation} to validate" if patience is not None else "")
        where = f", on disk in {found.fit[0].files.folder}" if on_disk else ""
        console.print(
            facts_table(
                [
                    ("data", f"{source.name} ({source.source}): {samples} samples, {found.n_in} features{where}"),
                    ("target", _describe_target(source, found.n_out)),
                    ("split", f"{parts}, {n_test} held out{found.how}"),
                    ("network", _describe_network(net)),
                    ("loss", found.loss.name),
                    ("backend", f"{chosen.name}, {net.dtype}: {chosen.why}"),
                ]
            )
        )
    run = bp.train(
        net,
        *found.fit,
        loss=found.loss,
        optimizer=rule,
        batch_size=_batch_size(batch_size),
        epochs=epochs,
        validation=found.validation[0] if on_disk else found.validation,
        dropout=dropout or None,
        penalty=[bp.L2(l2)] if l2 else None,
        stop=[bp.Patience(patience)] if patience is not None else None,
        seed=seed,
        callbacks=[*([_print_epoch] if verbose and not json else []), *([looks] if looks is not None else [])],
        threads=threads,
        precision=precision,
        checkpoint=checkpoints,
        resume=resume,
        verbose=False if json or quiet or verbose else None,
    )
    test = net.evaluate(*found.test, loss=net.meta["loss"])
    by_target: list[dict[str, Any]] = []
    if found.target_preprocessing is not None:
        errors = errors_of(net, found)
        test |= errors.over_all()
        by_target = errors.by_target(Knowledge(net).target_names)
    found.close()
    if looks is not None and inspect_plot is not None:
        save_picture(looks.plot(), inspect_plot)
    if save is not None:
        net.meta |= {
            "samples": {"train": n_fit, "validation": n_validation, "test": n_test},
            "held_out": plain(test),
            "run": run_facts(run),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        net.save(save)
    seconds, visited = run.seconds, n_fit * len(run.history)
    if json:
        print_json(
            {
                "data": {
                    "name": source.name,
                    "source": source.source,
                    "task": source.task,
                    "samples": samples,
                    "features": found.n_in,
                    "target": source.target_name,
                    "classes": source.classes,
                    "train": n_fit,
                    "validation": n_validation,
                    "test": n_test,
                },
                "sizes": net.sizes,
                "test": test,
                "targets": by_target,
                "history": list(run.history),
                "stopped_because": run.stopped_because,
                "seconds": seconds,
                "samples_per_second": visited / seconds,
                "kept": run.kept,
                "record": run.record,
                "saved": save,
                **({} if looks is None else {"inspection": looks.to_dict()}),
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
                        ("time", f"{seconds:.2f} s, {visited / seconds:,.0f} samples/s, plan {run.record['plan']}"),
                        *describe_checkpoints(run.record),
                        *([("saved", save)] if save else []),
                    ]
                )
            )
            print_targets(console, by_target)
        else:
            console.print(f"{headline}; {seconds:.2f} s{f'; saved {save}' if save else ''}")
        if looks is not None and not quiet:
            _show_looks(console, looks)
    if _was_interrupted(run):
        raise typer.Exit(INTERRUPTED)


def _show_looks(console: Any, looks: Inspector) -> None:
    """Print the last look, and what the loss says over all of them."""
    console.print()
    console.print(looks.reports[-1])
    for alarm in looks.alarms:
        if alarm not in looks.reports[-1].alarms:
            console.print(str(alarm), soft_wrap=True)


def _headline(test: dict[str, float]) -> str:
    if "accuracy" in test:
        return f"accuracy {100 * test['accuracy']:.2f} %, loss {test['loss']:.4g}"
    return f"R2 {test['r2']:.4f}, MSE {test['mse']:.5g}, mean absolute error {test['mae']:.5g}"


def _describe_target(data: Dataset, n_out: int) -> str:
    if data.classes is None:
        numbers = "a number" if n_out == 1 else f"{n_out} numbers"
        return f"{data.target_name}, {numbers} (standardised for training)"
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
