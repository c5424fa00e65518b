"""``bpcore predict``: apply a saved model to data."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

import numpy as np
import typer

from bpcore.cli.inputs import Model, load_for_model, prepare
from bpcore.cli.reporting import print_json
from bpcore.errors import ConfigurationError
from bpcore.network import MLP
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.persistence.model_file import load_model

__all__ = ["predict"]


def predict(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote, a checkpoint, or a folder of them.")],
    data: Annotated[str, typer.Argument(help="A data set or a .csv or .npz file.")],
    out: Annotated[str | None, typer.Option(help="Write a .csv file instead of printing.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="One more column for each class.")] = False,
    target: Annotated[str | None, typer.Option(help="Column of targets to leave out, by name or number.")] = None,
    backend: Annotated[str | None, typer.Option(help="numpy, numba, cupy or auto.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON and nothing else.")] = False,
) -> None:
    """Predict the target of every row of DATA with a saved MODEL."""
    if out is not None:
        check_writable(out)
    net = load_model(model, backend)
    knowledge = Model(net)
    source = load_for_model(data, knowledge, target, read_target=False)
    columns = _predictions(net, knowledge, prepare(source, knowledge.preprocessing), probabilities)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    if out is not None:
        write_atomically(out, text.getvalue().encode())
    if json:
        print_json({"model": model, "data": data, "written": out, **{k: v.tolist() for k, v in columns.items()}})
    elif out is not None:
        typer.echo(f"wrote {len(source.X)} predictions to {out}")
    else:
        typer.echo(text.getvalue(), nl=False)


def _predictions(net: MLP, knowledge: Model, X: Any, probabilities: bool) -> dict[str, Any]:
    """Columns of the result: the prediction, and the probability of each class if asked for."""
    H = np.asarray(net.predict(X))
    if knowledge.task == "regression":
        if probabilities:
            raise ConfigurationError("--probabilities is for classes, but this model predicts numbers")
        fitted = knowledge.target_preprocessing
        values = H.astype(np.float64) if fitted is None else fitted.undo(H.astype(np.float64))
        if values.shape[1] == 1:
            return {"prediction": values[:, 0]}
        return {f"prediction {j}": values[:, j] for j in range(values.shape[1])}
    indices, classes = knowledge.classes_of(H), knowledge.classes
    columns = {"prediction": indices if classes is None else classes.decode(indices)}
    if probabilities:
        P = _probabilities(net, H)
        names = range(P.shape[1]) if classes is None else classes.names
        columns |= {f"p({name})": P[:, j] for j, name in enumerate(names)}
    return columns


def _probabilities(net: MLP, H: Any) -> Any:
    """Probability of each class, shape (m, K), for the outputs that have that meaning."""
    if net.output.name == "softmax":
        return H
    if net.output.name == "log_softmax":
        return np.exp(H)
    if net.output.name == "sigmoid":
        return np.hstack([1 - H, H]) if H.shape[1] == 1 else H
    raise ConfigurationError(
        f"--probabilities: the output activation {net.output.name!r} gives no probabilities; "
        "train with --output softmax or sigmoid"
    )
