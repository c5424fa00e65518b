"""The application: global options, and the commands, each in a file of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from bpcore._version import __version__
from bpcore.cli.bench import bench
from bpcore.cli.doctor import doctor
from bpcore.cli.evaluate import evaluate
from bpcore.cli.export import card, export, import_model
from bpcore.cli.gallery import gallery
from bpcore.cli.gradcheck import gradcheck
from bpcore.cli.inspect import inspect
from bpcore.cli.predict import predict
from bpcore.cli.reporting import reports_errors, show_tracebacks
from bpcore.cli.train import train
from bpcore.cli.tune import tune
from bpcore.cli.warmup import warmup

__all__ = ["app"]

app = typer.Typer(
    name="bpcore",
    help="Train multilayer perceptrons and see what they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 a check failed, 2 wrong usage or input, 3 the backend cannot run, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bpcore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train multilayer perceptrons and see what they do."""
    show_tracebacks(debug)


for command in (train, predict, evaluate, export, card, inspect, gradcheck, gallery, doctor, warmup, tune):
    app.command()(reports_errors(command))
app.command("import")(reports_errors(import_model))
app.add_typer(bench, name="bench")
