"""``bpcore gradcheck``: the gradients of random or given networks against central differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from bpcore.cli.inputs import parse_names, parse_widths
from bpcore.cli.reporting import FAILED, out, print_json, rows_table
from bpcore.errors import ConfigurationError
from bpcore.functions.activations import ACTIVATIONS, Activation, get_activation
from bpcore.functions.losses import LOSSES, Loss, default_loss, get_loss
from bpcore.network import MLP
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.gradcheck import GradcheckReport

__all__ = ["gradcheck"]


def gradcheck(
    layers: Annotated[str | None, typer.Option(help="All widths, inputs and outputs included, such as 4,5,3.")] = None,
    activation: Annotated[str | None, typer.Option(help="Hidden activation; one for all, or one for each.")] = None,
    output: Annotated[str | None, typer.Option(help="Output activation.")] = None,
    loss: Annotated[str | None, typer.Option(help="Loss.")] = None,
    samples: Annotated[int, typer.Option(help="Samples in the batch.")] = 5,
    count: Annotated[int, typer.Option(help="Number of networks; what is not given is drawn for each.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    backend: Annotated[str | None, typer.Option(help="Whose gradients are checked.")] = None,
    against: Annotated[str | None, typer.Option(help="A second backend to compare with.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Check BP1-BP4 against central differences, layer by layer; exit code 1 if a gradient is wrong.

    What is not given is drawn at random.
    """
    import bpcore as bp

    if samples < 1 or count < 1:
        raise ConfigurationError(f"--samples and --count must be at least 1, got {samples} and {count}")
    widths = None if layers is None else parse_widths(layers)
    console, passed, results = out(), True, []
    for k in range(count):
        rng = np.random.default_rng((seed, k))
        output_activation, loss_object = _draw_output(rng, output, loss)
        sizes = widths or _draw_sizes(rng, output_activation, loss_object)
        net = MLP(
            sizes,
            activation=parse_names(activation) if activation else _draw_activations(rng, max(len(sizes) - 2, 0)),
            output=output_activation,
            seed=seed + k,
            dtype="float64",
            backend=backend,
        )
        X = rng.normal(size=(samples, sizes[0]))
        report = bp.gradcheck(
            net, X, _draw_targets(rng, loss_object, samples, sizes[-1]), loss_object, against=against, seed=seed
        )
        passed &= report.passed
        if json:
            results.append(_as_json(net, report))
        else:
            _show(console, net, report)
    if json:
        print_json({"passed": passed, "networks": results})
    if not passed:
        raise typer.Exit(FAILED)


def _draw_output(rng: np.random.Generator, output: str | None, loss: str | None) -> tuple[Activation, Loss]:
    """Complete a pair of output activation and loss that fit each other."""
    if output is not None and loss is not None:
        return get_activation(output), get_loss(loss)
    if output is not None:
        return get_activation(output), default_loss(get_activation(output))
    chosen = LOSSES[str(rng.choice(sorted(LOSSES)))] if loss is None else get_loss(loss)
    fitting = [name for name, candidate in ACTIVATIONS.items() if candidate.differentiable and _fits(chosen, candidate)]
    return ACTIVATIONS[str(rng.choice(fitting))], chosen


def _fits(loss: Loss, output: Activation) -> bool:
    if output.name == "hard_sigmoid" and loss.prediction_range == (0, 1):
        return False  # it reaches 0 and 1 exactly, where such a loss is infinite and has no gradient
    try:
        loss.check_output(output)
    except ConfigurationError:
        return False
    return True


def _draw_sizes(rng: np.random.Generator, output: Activation, loss: Loss) -> list[int]:
    """Two to four layers of two to six neurons, now and then a single output where that has a meaning."""
    sizes = [int(n) for n in rng.integers(2, 7, size=rng.integers(2, 5))]
    single = rng.random() < 0.25 and loss.target_kind != "distribution" and not output.rowwise
    return [*sizes[:-1], 1] if single else sizes


def _draw_activations(rng: np.random.Generator, count: int) -> list[str]:
    names = [name for name, candidate in ACTIVATIONS.items() if candidate.differentiable and not candidate.rowwise]
    return [str(name) for name in rng.choice(names, size=count)]


def _draw_targets(rng: np.random.Generator, loss: Loss, m: int, n_out: int) -> NDArray[Any]:
    """Targets (m, n_out) of the kind that the loss takes."""
    if loss.target_kind == "real":
        return rng.normal(size=(m, n_out))
    if loss.target_kind == "sign":
        return rng.choice([-1.0, 1.0], size=(m, n_out))
    Y = rng.uniform(0.05, 0.95, size=(m, n_out))
    return Y / Y.sum(axis=1, keepdims=True) if loss.target_kind == "distribution" else Y


def _describe(net: MLP, report: GradcheckReport) -> str:
    names = ", ".join(activation.name for activation in net.activations)
    return f"{' - '.join(map(str, net.sizes))} ({names}), {report.loss}, {report.backend}"


def _show(console: Any, net: MLP, report: GradcheckReport) -> None:
    verdict = "passed" if report.passed else "FAILED"
    console.print(f"{_describe(net, report)}: {verdict}", soft_wrap=True)
    header = ("", "gradient", "against", "checked", "error", "worst at", "analytic", "other")
    rows = []
    for row in report.rows:
        checked = f"{row.checked}/{row.checked + row.skipped}"
        numbers = (f"{row.error:.1e}", ",".join(map(str, row.worst)), f"{row.analytic:.4g}", f"{row.other:.4g}")
        verdict = "ok" if row.passed else "FAIL"
        rows.append((verdict, f"{row.quantity}[{row.layer}]", row.against, checked, *numbers))
    console.print(rows_table(header, rows, right=("checked", "error", "analytic", "other")))
    skipped = sum(row.skipped for row in report.rows)
    if skipped:
        console.print(f"{skipped} coordinates next to a kink, where there is no derivative, were left out")


def _as_json(net: MLP, report: GradcheckReport) -> dict[str, Any]:
    return {
        "sizes": net.sizes,
        "activations": [activation.name for activation in net.activations],
        "loss": report.loss,
        "backend": report.backend,
        "tolerance": report.tolerance,
        "passed": report.passed,
        "rows": [vars(row) for row in report.rows],
    }
