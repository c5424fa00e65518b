"""``bpcore export``, ``import`` and ``card``: models in the forms of other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bpcore.cli.inputs import parse_names
from bpcore.cli.reporting import print_json
from bpcore.data.preprocessing import ClassList
from bpcore.errors import ConfigurationError
from bpcore.exchange.card import card_text, model_card
from bpcore.exchange.numpy_export import export_numpy
from bpcore.exchange.onnx_export import export_onnx
from bpcore.exchange.onnx_inputs import CATEGORIES, input_columns
from bpcore.exchange.torch_import import from_torch_state
from bpcore.exchange.torch_state import export_torch, torch_modules
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.model_file import load_model

__all__ = ["card", "export", "import_model"]


def export(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote.")],
    onnx: Annotated[str | None, typer.Option(help="Write an ONNX file.")] = None,
    numpy: Annotated[str | None, typer.Option(help="Write a Python file that needs NumPy only.")] = None,
    torch: Annotated[str | None, typer.Option(help="Write a PyTorch state dictionary (safetensors).")] = None,
    card: Annotated[str | None, typer.Option(help="Write the model card (JSON).")] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --numpy: a .npy file for the parameters, beside the Python file.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="With --torch: names of the linear layers, separated by commas.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="With --onnx: float32 or float64; by default the model's.")] = None,
    bare: Annotated[bool, typer.Option("--bare", help="With --onnx: no preprocessing and no labels.")] = False,
) -> None:
    """Write a saved MODEL for other programs, in one or several forms."""
    wanted = {"--onnx": onnx, "--numpy": numpy, "--torch": torch, "--card": card}
    paths = [path for path in (*wanted.values(), weights) if path is not None]
    if not any(path is not None for path in wanted.values()):
        raise ConfigurationError(f"nothing to export: give one or several of {', '.join(wanted)} with a file name")
    _check_companions([("--weights", weights, "--numpy", numpy), ("--names", names, "--torch", torch)])
    _check_companions([("--dtype", dtype, "--onnx", onnx), ("--bare", bare or None, "--onnx", onnx)])
    places = [os.path.realpath(path) for path in (model, *paths)]
    if len(set(places)) < len(places):
        raise ConfigurationError("each form needs a file of its own, which is not the model file")
    for path in paths:
        check_writable(path)
    net = load_model(model, backend="numpy")
    if onnx is not None:
        export_onnx(net, onnx, dtype=dtype, bare=bare)
        text = "" if bare else _inputs(Knowledge(net))
        typer.echo(f"wrote {onnx}: ONNX" + text)
    if numpy is not None:
        export_numpy(net, numpy, weights=weights)
        typer.echo(f"wrote {numpy}: Python with NumPy" + (f", and its weights to {weights}" if weights else ""))
    if torch is not None:
        export_torch(net, torch, None if names is None else _list(names))
        module = torch_modules(net) if names is None else None
        rest = "; the preprocessing is no part of it" if net.meta.get("preprocessing") else ""
        typer.echo(f"wrote {torch}: PyTorch state" + (f" of {module}" if module else "") + rest)
    if card is not None:
        write_atomically(card, card_text(model_card(model)).encode())
        typer.echo(f"wrote {card}: model card")


def import_model(
    state: Annotated[str, typer.Argument(help="A PyTorch state dictionary of linear layers, as safetensors.")],
    save: Annotated[str, typer.Option(help="Write the model to this file.")],
    activation: Annotated[
        str | None, typer.Option(help="Hidden activation; one for all, or one for each, separated by commas.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Output activation.")] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of the linear layers, first to last, separated by commas.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, separated by commas.")] = None,
    features: Annotated[str | None, typer.Option(help="Names of the columns of X, separated by commas.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression; by default as noted.")] = None,
) -> None:
    """Make a model of a PyTorch state; the activations must be named, except for what export --torch wrote."""
    check_writable(save)
    if Path(state).suffix.lower() in (".pkl", ".pickle", ".joblib"):
        raise ConfigurationError(
            f"{state} is a pickle, which can run code and is not read. Load it in Python, where you trust it, and use "
            "bpcore.from_sklearn(estimator).save(path)"
        )
    if task not in (None, "classification", "regression"):
        raise ConfigurationError(f"--task is {task!r}; expected classification or regression")
    net = from_torch_state(
        state,
        None if activation is None else parse_names(activation),
        output,
        names=None if names is None else _list(names),
        backend="numpy",
    )
    if task is not None:
        net.meta["task"] = task
    if classes is not None:
        net.meta |= {"task": "classification", "classes": list(ClassList(tuple(_list(classes))).names)}
    if features is not None:
        net.meta["feature_names"] = _list(features)
    Knowledge(net)  # before the file is written, not when it is used
    net.save(save)
    typer.echo(f"wrote {save}: {net!r}")


def card(
    model: Annotated[str, typer.Argument(help="A file that train --save wrote.")],
) -> None:
    """Print the card of a saved MODEL as JSON: structure, data, preprocessing, measurements, training, versions."""
    print_json(model_card(model))


def _inputs(knowledge: Knowledge) -> str:
    """Say what an ONNX file takes, where that is more than one table of numbers."""
    names = knowledge.feature_names or ()
    columns = input_columns(knowledge)
    if CATEGORIES not in columns:
        return ""
    return ", inputs " + " and ".join(f"{name} ({', '.join(names[j] for j in columns[name])})" for name in columns)


def _check_companions(pairs: list[tuple[str, object, str, object]]) -> None:
    for option, value, other, needed in pairs:
        if value is not None and needed is None:
            raise ConfigurationError(f"{option} is for {other}, which was not asked for")


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
