"""``bpcore inspect``: what a saved network does with data, layer by layer, and what is wrong with it."""

from __future__ import annotations

from typing import Annotated

import typer

from bpcore.cli.evaluate import read_pair, stored
from bpcore.cli.inputs import wants_disk
from bpcore.cli.pictures import check_picture, save_picture
from bpcore.cli.reporting import FAILED, out, print_json
from bpcore.cli.setup import choose_optimizer
from bpcore.errors import ConfigurationError
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.update_rule import UpdateRule
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.model_file import load_model

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote, a checkpoint, or a folder of them.")],
    data: Annotated[str, typer.Argument(help="A data set, a file or a folder, with targets; see train.")],
    target: Annotated[str | None, typer.Option(help="Column of the targets; by default that of the training.")] = None,
    labels: Annotated[str | None, typer.Option(help="File of the targets, for .npy and IDX files.")] = None,
    samples: Annotated[int, typer.Option(help="Samples at most that are looked at.")] = 1024,
    optimizer: Annotated[
        str | None, typer.Option(help="Update rule whose first step is compared with the weights.")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Its learning rate; a default for each.")] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Read from the disk; by default files of 512 MiB and more."),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for what --stream keeps on disk meanwhile; implies --stream.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Write a picture to this file: .png, .svg or .pdf.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if there is an alarm.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Look at what a saved MODEL does with DATA: statistics of every layer, dead neurons, alarms with advice."""
    import bpcore as bp

    if plot is not None:
        check_picture(plot, "--plot")
    rule = _rule(optimizer, eta)
    net = load_model(model, backend)
    knowledge = Knowledge(net)
    if wants_disk(data, stream, cache):
        with stored(data, knowledge, target, labels, cache, False if json else None) as store:
            report = bp.inspect(net, store, loss=knowledge.loss, optimizer=rule, samples=samples)
    else:
        X, truth = read_pair(data, knowledge, target, labels)
        report = bp.inspect(net, X, truth, knowledge.loss, optimizer=rule, samples=samples)
    if plot is not None:
        save_picture(report.plot(), plot)
    if json:
        print_json({"model": model, "data": data, **report.to_dict(), "plot": plot})
    else:
        out().print(report)
        if plot is not None:
            out().print(f"picture: {plot}", soft_wrap=True)
    if strict and not report.passed:
        raise typer.Exit(FAILED)


def _rule(optimizer: str | None, eta: float | None) -> UpdateRule | None:
    if optimizer is None:
        if eta is not None:
            raise ConfigurationError("--eta is the learning rate of an update rule; name it with --optimizer")
        return None
    rule = choose_optimizer(optimizer, eta)
    if isinstance(rule, ScipyMinimize):
        raise ConfigurationError(
            f"--optimizer {optimizer} has no single update to look at; name an update rule, or none"
        )
    return rule
