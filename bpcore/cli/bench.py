"""``bpcore bench``: which backend is the fastest on this machine, for which network and batch size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpcore.cli.meter import measuring
from bpcore.cli.peers import race_peers, refuse_beside_peers
from bpcore.cli.reporting import FAILED, INTERRUPTED, out, print_json, reports_errors
from bpcore.errors import ConfigurationError, missing_extra, unknown

if TYPE_CHECKING:
    from bpcore.bench.contender import Contender
    from bpcore.bench.sweep import Settings

__all__ = ["bench", "parse_budget", "refuse_unusable"]

MODES = ("train", "inference", "ops")
QUICK_SECONDS, SECONDS = 25.0, 110.0
QUICK_EVERY = 4
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

bench = typer.Typer(
    help="Measure which backend is the fastest on this machine, for which network and batch size.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@bench.callback(invoke_without_command=True)
@reports_errors
def measure(
    context: typer.Context,
    backends: Annotated[
        str | None,
        typer.Option(help="Only these, such as numba,cupy:bf16,cupy:bf16:fused; by default all that run here."),
    ] = None,
    networks: Annotated[str | None, typer.Option(help="Only these presets: tiny, digits, mnist, deep, wide.")] = None,
    layers: Annotated[str | None, typer.Option(help="A network of your own instead, such as 784,512,10.")] = None,
    activation: Annotated[str, typer.Option(help="Of the hidden layers of --layers: relu, tanh or sigmoid.")] = "relu",
    optimizer: Annotated[str, typer.Option(help="For --layers: sgd, momentum or adam.")] = "momentum",
    batch_sizes: Annotated[
        str | None, typer.Option(help="Such as 1,64,4096; by default the powers of two up to 65536.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="On the processor; by default what each chooses.")] = (
        None
    ),
    mode: Annotated[str, typer.Option(help="train, inference (predict) or ops (single operations).")] = "train",
    budget: Annotated[str | None, typer.Option(help="Time for everything, such as 90s or 10m; default 110 s.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two small networks in half a minute.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file; - prints them alone.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line a figure to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file, to be opened in a browser.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this .png, .svg or .pdf file.")] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="Race other libraries instead (with --quick, --threads, --json); needs a checkout."
        ),
    ] = False,
) -> None:
    """Measure which backend is the fastest on this machine, for which network and batch size."""
    if context.invoked_subcommand is not None:
        return
    if peers:
        refuse_beside_peers(context, json)
        raise typer.Exit(race_peers(quick, threads, json))
    settings = _settings(
        backends, networks, layers, activation, optimizer, batch_sizes, dtype, threads, mode, budget, quick
    )
    for path in (json, csv, html, plot):
        _check_path(path)
    if html is not None or plot is not None:
        from importlib.util import find_spec

        if find_spec("matplotlib") is None:  # said before anything is measured
            raise missing_extra("matplotlib", "plot", "--html and --plot")
    quiet = json == Path("-")
    result = _measure(settings, mode, quiet)
    _write(result, json, csv, html, plot)
    if not quiet:
        _conclude(result)
    raise typer.Exit(_exit_code(result))


@bench.command("compare")
@reports_errors
def compare(
    files: Annotated[list[Path], typer.Argument(help="Results of --json; ratios are over the first.")],
    fail_below: Annotated[
        float | None,
        typer.Option(help="Exit with code 1 if a speed is below this share of the first, such as 0.9."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON and nothing else.")] = False,
) -> None:
    """Compare results of machines, commits or settings, with marks where the difference is more than noise."""
    from bpcore.bench.compare import compare_results, comparison_table, regressions
    from bpcore.bench.result import load_result

    if len(files) < 2:
        raise ConfigurationError("compare needs at least two result files")
    if fail_below is not None and not 0 < fail_below <= 1:
        raise ConfigurationError(f"--fail-below is {fail_below:g}; it is a share, above 0 and at most 1")
    found = compare_results([load_result(path) for path in files], [path.stem for path in files])
    slower = [] if fail_below is None else regressions(found, fail_below)
    if json:
        print_json(found | {"regressions": slower})
    else:
        console = out()
        console.print(comparison_table(found))
        if fail_below is not None:
            console.print(f"{len(slower)} below {fail_below:g} of the first" if slower else "no regression")
            for text in slower:
                console.print(f"  {text}")
    if slower:
        raise typer.Exit(FAILED)


def _settings(
    backends: str | None,
    networks: str | None,
    layers: str | None,
    activation: str,
    optimizer: str,
    batch_sizes: str | None,
    dtype: str,
    threads: int | None,
    mode: str,
    budget: str | None,
    quick: bool,
) -> Settings:
    from bpcore.bench.contender import parse_contenders, usable_contenders
    from bpcore.bench.networks import BATCH_SIZES, NETWORKS, QUICK, custom_network, find_network
    from bpcore.bench.sweep import Settings
    from bpcore.settings import check_dtype

    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    precision = str(check_dtype(dtype))
    if networks is not None and layers is not None:
        raise ConfigurationError("--networks and --layers exclude each other")
    if layers is not None:
        chosen = [custom_network(_whole_numbers("layers", layers), activation, optimizer)]
    elif networks is not None:
        chosen = [find_network(name.strip()) for name in networks.split(",")]
    else:
        chosen = [NETWORKS[name] for name in (QUICK if quick else NETWORKS)]
    batches = tuple(sorted(set(_whole_numbers("batch-sizes", batch_sizes)))) if batch_sizes else BATCH_SIZES
    if quick and not batch_sizes:
        batches = batches[::QUICK_EVERY]
    if backends is None:
        contenders, _ = usable_contenders(precision)
        contenders = [contender for contender in contenders if mode == "train" or contender.is_plain]
    else:
        contenders = parse_contenders(backends.split(","), precision)
        _refuse_details(contenders, mode)
        refuse_unusable([contender.backend for contender in contenders])
    seconds = parse_budget(budget) if budget is not None else QUICK_SECONDS if quick else SECONDS
    kind = "predict" if mode == "inference" else "train"
    return Settings(contenders, chosen, batches, kind, threads, seconds, parts=not quick)


def _whole_numbers(option: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise ConfigurationError(f"--{option} {text!r}: whole numbers of at least 1 are needed, such as 784,512,10")
    return [int(word) for word in words]


def parse_budget(text: str) -> float:
    """Return the seconds of a time such as 90s, 10m or 1h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not seconds:
        raise ConfigurationError(f"--budget {text!r}: a time is needed, such as 90s, 10m or 1h")
    return seconds


def _refuse_details(contenders: list[Contender], mode: str) -> None:
    """Refuse precisions and plans where nothing is trained."""
    for contender in contenders:
        if mode != "train" and not contender.is_plain:
            what = "a call of predict" if mode == "inference" else "a single operation"
            raise ConfigurationError(
                f"{contender.name!r} names a precision or a plan of training; --mode {mode} measures {what}, which is "
                f"computed in the dtype of the network. Use {contender.backend}, or --mode train"
            )


def refuse_unusable(names: list[str]) -> None:
    """Raise `BackendError` for the first backend that cannot run here."""
    from bpcore.backends.registry import backends as all_backends
    from bpcore.errors import BackendError

    for status in all_backends():
        if status.name in names and not status.usable:
            repair = f". Repair: {status.repair}" if status.repair else ""
            raise BackendError(f"backend {status.name!r} cannot run: {status.reason.rstrip('.')}{repair}")


def _check_path(path: Path | None) -> None:
    """Refuse a file that cannot be written before anything is measured."""
    if path is not None and path != Path("-"):
        from bpcore.persistence.atomic import check_writable

        check_writable(path)


def _measure(settings: Settings, mode: str, quiet: bool) -> dict[str, Any]:
    """Run the sweep with a bar on standard error, and print each table as soon as it is there."""
    from bpcore.bench.operations import OperationSweep
    from bpcore.bench.sweep import Sweep
    from bpcore.bench.tables import network_table

    console = out()

    def show(network: dict[str, Any]) -> None:
        if not quiet:
            console.print(network_table(network))

    kind = OperationSweep if mode == "ops" else Sweep
    with measuring(quiet) as tell, kind(settings, tell, show) as sweep:
        return sweep.run()


def _conclude(result: dict[str, Any]) -> None:
    """Print what is known in the end only."""
    from rich.console import Console

    from bpcore.bench.tables import operations_table

    if result["mode"] == "ops":
        out().print(operations_table(result))
    error = Console(stderr=True)
    for text in result["warnings"]:
        error.print(f"note: {text}", markup=False, highlight=False)


def _write(result: dict[str, Any], json: Path | None, csv: Path | None, html: Path | None, plot: Path | None) -> None:
    from bpcore.bench.result import save_csv, save_result

    if json == Path("-"):
        print_json(result)
    elif json is not None:
        save_result(result, json)
    if csv is not None:
        save_csv(result, csv)
    if html is not None:
        from bpcore.bench.html import save_html

        save_html(result, html)
    if plot is not None:
        from bpcore.bench.plots import save_plots

        save_plots(result, plot)
    for path in (json, csv, html, plot):
        if path is not None and path != Path("-"):
            typer.echo(f"written: {path}", err=True)


def _exit_code(result: dict[str, Any]) -> int:
    """1 if something computes the wrong thing, failed, or has an impossible speed; 130 if interrupted."""
    if result["interrupted"]:
        return INTERRUPTED
    cells = [cell for network in result["networks"] for cell in network["cells"]] + result.get("operations", [])
    wrong = {"differs", "suspect", "failed"}
    return FAILED if any(row["status"] in wrong for cell in cells for row in cell["contenders"].values()) else 0
