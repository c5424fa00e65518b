"""Networks as one Python file that needs NumPy and nothing else, printed from the declarations."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore._version import __version__
from bpcore.data.preprocessing import Scaler
from bpcore.errors import ConfigurationError
from bpcore.exchange import numpy_template as template
from bpcore.exchange.numpy_inputs import constants, literal, needs, prepare_source
from bpcore.functions.activations import Activation
from bpcore.functions.expression import OPERATIONS, Call, Expr, Var, walk
from bpcore.functions.printing import to_numpy, to_text
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.persistence.knowledge import Knowledge
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["EMBEDDED_BYTES", "export_numpy", "numpy_source"]

EMBEDDED_BYTES = 2**24
"""Bytes of parameters that go into the file itself; Python is slow to read longer texts."""

ERROR_FUNCTIONS = {"erf": "The error function", "erfc": "The complementary error function"}


def export_numpy(net: MLP, path: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None) -> None:
    """Write a network as a Python file that predicts with NumPy alone.

    The file has the functions ``predict(X)``, ``forward(X)`` (what ``net.predict`` gives) and, where the outputs have
    that meaning, ``predict_proba(X)``. X is as it was before the stored preprocessing: a matrix of numbers, with codes
    for categories; rows of cells (numbers, text, None) in the order of the features; or dicts by their names. As a
    command, ``python model.py data.csv`` prints the prediction of every row. It runs on Python 3.9 and NumPy 1.21, and
    later.

    Parameters
    ----------
    net : MLP
        The network. Not modified.
    path : str or PathLike
        The file, usually ``*.py``; replaced in one step.
    weights : str or PathLike, optional
        A file ``*.npy`` in the same folder for the parameters. By default they are in the Python file, as base64, up to
        16 MiB.

    Raises
    ------
    ConfigurationError
        If the parameters take more than 16 MiB and `weights` is not given, or the notes in ``net.meta`` contradict the
        network.
    ModelFileError
        If a file cannot be written.

    Examples
    --------
    >>> import runpy, tempfile
    >>> from bpcore.network import MLP
    >>> net = MLP([2, 4, 1], activation="gelu", output="identity", seed=0, backend="numpy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_numpy(net, Path(folder, "model.py"))
    ...     model = runpy.run_path(str(Path(folder, "model.py")))
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> bool(np.allclose(model["forward"](X), net.predict(X), rtol=1e-6))
    True
    """
    check_writable(path)
    theta = _parameters(net)
    if weights is None:
        if theta.nbytes > EMBEDDED_BYTES:
            raise ConfigurationError(
                f"the {net.n_parameters:,} parameters take {theta.nbytes / 2**20:.0f} MiB; a Python file holds up to "
                f"{EMBEDDED_BYTES // 2**20}: name a file for them with weights= (--weights), such as model.npy"
            )
        write_atomically(path, numpy_source(net, theta).encode("ascii"))
        return
    beside = check_writable(weights)
    if beside.parent != Path(os.path.realpath(path)).parent or beside.suffix != ".npy":
        raise ConfigurationError(
            f"weights is {os.fspath(weights)!r}; expected a file *.npy in the folder of {os.fspath(path)}, so that the "
            "two can be moved together"
        )
    data = io.BytesIO()
    np.save(data, theta)
    source = numpy_source(net, theta, Path(weights).name)
    write_atomically(weights, data.getvalue())
    write_atomically(path, source.encode("ascii"))


def numpy_source(net: MLP, theta: NDArray[Any] | None = None, weights: str | None = None) -> str:
    """Return the text of the file, which is ASCII.

    Parameters
    ----------
    net : MLP
        The network.
    theta : ndarray, optional
        Its parameters without gaps, little-endian; read from the network if not given.
    weights : str, optional
        Name of the file that holds them, in the same folder; by default they are in the text.
    """
    theta = _parameters(net) if theta is None else theta
    knowledge = Knowledge(net)
    expressions = [act.value_formula.expr for act in net.activations if not act.rowwise]
    helpers = _helpers(expressions)
    modules = ["argparse", "csv", "itertools", "sys"]
    modules += ["base64"] if weights is None else ["hashlib", "os"]
    modules += ["math"] if any(f"math.{name}" in text for name in ERROR_FUNCTIONS for text in helpers) else []
    parts = [
        _head(net, knowledge),
        "".join(f"import {module}\n" for module in sorted(modules)) + "\nimport numpy as np\n",
        _facts(net, knowledge),
        _weights(theta, weights),
        *helpers,
        *_activations(net),
        template.UNPACK,
        *([template.SEPARATE] if weights is not None else []),
        _layers(net, weights),
        template.TABLE,
        template.CHECKS,
        *needs(knowledge),
        prepare_source(knowledge),
        template.FORWARD,
        _predict(knowledge),
        *([_predict_proba(knowledge)] if _has_probabilities(knowledge) else []),
        template.COMMAND,
    ]
    return "\n".join(parts)


def _parameters(net: MLP) -> NDArray[Any]:
    """Return W and b of each layer, one after the other, as little-endian numbers."""
    parts = [part.reshape(-1) for pair in net.get_weights() for part in pair]
    return np.concatenate(parts).astype(net.dtype.newbyteorder("<"), copy=False)


def _head(net: MLP, knowledge: Knowledge) -> str:
    what = f"{net.sizes[-1]} outputs"
    if knowledge.stated:
        what = f"{knowledge.n_classes} classes" if knowledge.task == "classification" else f"{net.sizes[-1]} numbers"
    return f'''#!/usr/bin/env python3
"""A multilayer perceptron in one file that needs NumPy only: {knowledge.n_columns} inputs, {what}.

    python model.py data.csv        prints a prediction for every row

    from model import predict
    predict(X)                      X has one sample a row, as it was measured: an array,
                                    rows of cells, or dicts by the names of the columns

Written by bpcore {__version__}.
"""
'''


def _facts(net: MLP, knowledge: Knowledge) -> str:
    """Constants. Text is written with ascii(), whatever it holds: quotes, line ends, any alphabet."""
    labelled = knowledge.stated and knowledge.task == "classification"
    lines = [
        f"SIZES = {literal(net.sizes)}",
        f"DTYPE = np.{net.dtype}",
        f"CLASSES = {literal(knowledge.class_names) if labelled else None}",
        f"HAS_PROBABILITIES = {_has_probabilities(knowledge)}",
        *constants(knowledge),
    ]
    return "\n".join(lines) + "\n"


def _weights(theta: NDArray[Any], weights: str | None) -> str:
    if weights is not None:
        digest = hashlib.sha256(theta.tobytes()).hexdigest()
        return f"WEIGHTS_FILE = {weights!a}\nWEIGHTS_SHA256 = {digest!r}\n"
    text = "\n".join(textwrap.wrap(base64.b64encode(theta.tobytes()).decode(), 116))
    return f'# W and b of each layer in turn, little-endian, in base64\nWEIGHTS = """\n{text}\n"""\n'


def _helpers(expressions: list[Expr]) -> list[str]:
    """Return the source of the functions that the formulas call and NumPy lacks."""
    used = dict.fromkeys(node.op for expr in expressions for node in walk(expr) if isinstance(node, Call))
    found = [
        template.ERROR_FUNCTION.format(name=name, what=what) for name, what in ERROR_FUNCTIONS.items() if name in used
    ]
    for op in used:
        expansion = OPERATIONS[op].expansion
        if expansion is not None:
            found.append(f"\ndef {op}(x):\n    return {to_numpy(expansion(Var('x')))}\n")
    return found


def _activations(net: MLP) -> list[str]:
    """Return one function for each activation, and the list of them."""
    numbers: dict[Activation, int] = {}
    for activation in net.activations:
        numbers.setdefault(activation, len(numbers) + 1)
    functions = [_activation(activation, f"activation_{k}") for activation, k in numbers.items()]
    each = [f"activation_{numbers[activation]}" for activation in net.activations]
    return [*functions, f"\nACTIVATIONS = [{', '.join(each)}]\n"]


def _activation(activation: Activation, name: str) -> str:
    comment = f"\n# {activation.name!a}"
    if activation.rowwise:
        return comment + template.ROWWISE[activation.rowwise].format(name=name)
    expr, variables = activation.value_formula.expr, activation.value_formula.variables
    value = to_numpy(expr) if variables else f"np.full_like(z, {to_numpy(expr)})"
    return f'{comment}\ndef {name}(z):\n    """{to_text(expr)}"""\n    return {value}\n'


def _layers(net: MLP, weights: str | None) -> str:
    letters = {"float32": "<f4", "float64": "<f8"}
    read = "read_weights()"
    if weights is None:
        read = f'np.frombuffer(base64.b64decode(WEIGHTS), "{letters[str(net.dtype)]}")'
    return f"\nLAYERS = unpack({read}.astype(DTYPE))\n"


def _predict(knowledge: Knowledge) -> str:
    net = knowledge.net
    if not knowledge.stated:
        return '\ndef predict(X):\n    """Return the outputs, shape (m, n_L)."""\n    return forward(X)\n'
    if knowledge.task == "classification":
        index = "H.argmax(axis=1)" if net.sizes[-1] > 1 else f"(H[:, 0] > {net.threshold!r}).astype(int)"
        return (
            '\ndef predict(X):\n    """Return the class of every row, shape (m,)."""\n'
            f"    H = forward(X)\n    return np.array(CLASSES)[{index}]\n"
        )
    fitted = knowledge.target_preprocessing
    value = "forward(X).astype(np.float64)"
    if isinstance(fitted, Scaler):
        value += " * TARGET_DIVISOR"
    elif fitted is not None:
        value += " * TARGET_SCALE + TARGET_MEAN"
    return (
        '\ndef predict(X):\n    """Return the numbers in the units of the target, float64, shape (m, n_L)."""\n'
        f"    return {value}\n"
    )


def _has_probabilities(knowledge: Knowledge) -> bool:
    return knowledge.stated and knowledge.has_probabilities


def _predict_proba(knowledge: Knowledge) -> str:
    lines = ["    return forward(X)"]
    if knowledge.net.output.name == "log_softmax":
        lines = ["    return np.exp(forward(X))"]
    elif knowledge.net.sizes[-1] == 1:
        lines = ["    H = forward(X)", "    return np.hstack([1 - H, H])"]
    doc = '    """Return the probability of each class, shape (m, K)."""'
    return "\n".join(["", "def predict_proba(X):", doc, *lines, ""])
