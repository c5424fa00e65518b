"""Networks for the tests of every exported form: each activation, each task, preprocessing, awkward names."""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.functions.activations import ACTIVATIONS

FORMULAS = {
    "waves": "sin(z) + cos(2*z) / 3",
    "root": "sign(z) * sqrt(abs(z))",
    "error": "erf(z) - 0.25 * erfc(-z / 2)",
    "tails": "-log(erfc(z)) if z > 0 and z < 5 else 0",
    "logs": "expm1(min(z, 3)) if z < 0 else log1p(z)",
    "log": "log(abs(z) + 1e-3)",
    "clipped": "min(max(z, -1, z / 2), pi)",
    "choices": "where(z > 0 and not (z > 2) or z == -1, z**2, z**3)",
    "bounds": "where(z != 0 and z <= 5 and z >= -5, 1 / (1 + z**2), 0.25)",
    "power": "softplus(z)**1.5",
    "bell": "exp(-z * z / 2)",
    "constant": "2",
    "step_of_constants": "1 if z > 0.5 else -1",
    "swish_twice": "tanh(z) / (1 + exp(-z)) + z / (1 + exp(-z))",
    "logistic_loss": "log(1 + exp(-z))",
    "awkward '\"\n name": "z - 0.5",
}
OWN = {name: bp.Activation(name, text, differentiable=False) for name, text in FORMULAS.items()}
ALL = {**ACTIVATIONS, **OWN}

Z = np.r_[np.linspace(-12, 12, 401), -1000, -1e4, 1e4, 100, -100, -30, 30, 1e-6, -1e-6, -5, -3, -1, 0, 0.5, 1, 2, 3, 5]
"""Arguments for element-wise functions: edges, tails, kinks."""

MEAN, SCALE = [1e3, -2.0, 0.5], [10.0, 0.25, 3.0]
PREPROCESSING: dict[str, Any] = {
    "none": None,
    "scaler": {"kind": "scaler", "divisor": 3.0},
    "standardizer": {"kind": "standardizer", "mean": MEAN, "scale": SCALE},
}
NAMES = ['it\'s "quoted"', "two\nlines", "größe, 寸"]
FEATURES = ["a'b", 'say "x"', "ümlaut, comma"]


def single(activation: Any, dtype: Any) -> bp.MLP:
    """A network that hands z to an activation as it is: one input, or one row of three for functions of rows."""
    width = 3 if activation.rowwise else 1
    net = bp.MLP([width, width], output=activation, seed=0, dtype=dtype, backend="numpy")
    net.set_weights([(np.eye(width), np.zeros(width))])
    return net


def arguments(activation: Any, dtype: Any) -> Any:
    """Samples for `single`."""
    if not activation.rowwise:
        return Z[:, None].astype(dtype)
    return np.random.default_rng(0).normal(scale=[1, 5, 10], size=(50, 3)).astype(dtype)


def network(
    n_out: int, output: Any, dtype: Any = "float32", hidden: Any = "tanh", preprocessing: str = "none"
) -> bp.MLP:
    """A network with three inputs and weights and biases drawn at random."""
    net = bp.MLP([3, 5, 4, n_out], activation=hidden, output=output, seed=0, dtype=dtype, backend="numpy")
    rng = np.random.default_rng(7)
    net.set_weights([(rng.normal(size=W.shape), rng.normal(size=b.shape)) for W, b in net.get_weights()])
    net.meta = {"preprocessing": PREPROCESSING[preprocessing], "feature_names": FEATURES}
    return net


def samples(dtype: Any = "float32", preprocessing: str = "none") -> Any:
    """Samples in the range that a preprocessing expects."""
    X = np.random.default_rng(3).normal(size=(40, 3))
    if preprocessing == "standardizer":
        X = X * SCALE + MEAN
    return (X * 3 if preprocessing == "scaler" else X).astype(dtype)


def prepared(X: Any, preprocessing: str) -> Any:
    """What the network gets, by hand, in float64."""
    X = X.astype(np.float64)
    return {"none": X, "scaler": X / 3.0, "standardizer": (X - MEAN) / SCALE}[preprocessing]


TASKS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "regression": (
        2,
        "identity",
        {
            "task": "regression",
            "target_preprocessing": {"kind": "standardizer", "mean": [100.0, -5.0], "scale": [20.0, 0.5]},
        },
    ),
    "scaled regression": (
        1,
        "identity",
        {"task": "regression", "target_preprocessing": {"kind": "scaler", "divisor": 8.0}},
    ),
    "plain regression": (1, "softplus", {"task": "regression"}),
    "binary": (1, "sigmoid", {"task": "classification", "classes": NAMES[:2], "threshold": 0.5}),
    "binary by sign": (1, "identity", {"task": "classification", "classes": [3, 7], "threshold": 0.0}),
    "two outputs": (2, "softmax", {"task": "classification", "classes": NAMES[1:]}),
    "classes": (3, "softmax", {"task": "classification", "classes": NAMES}),
    "logarithms": (3, "log_softmax", {"classes": [5, -1, 2**40]}),
    "several sigmoids": (3, "sigmoid", {"task": "classification"}),
}
"""Number of outputs, output activation, notes; by task."""


def task_network(task: str, dtype: Any = "float32", preprocessing: str = "standardizer") -> bp.MLP:
    """A network with the notes of a task."""
    n_out, output, notes = TASKS[task]
    net = network(n_out, output, dtype, preprocessing=preprocessing)
    net.meta |= notes
    return net


def expected(task: str, H: Any) -> tuple[list[Any] | None, Any]:
    """Labels (None for numbers) and probabilities (None if there are none), or numbers, by hand from H[L]."""
    H = H.astype(np.float64)
    if task == "regression":
        return None, H * [20.0, 0.5] + [100.0, -5.0]
    if task == "scaled regression":
        return None, H * 8.0
    if task == "plain regression":
        return None, H
    if task == "binary":
        return [NAMES[int(h > 0.5)] for h in H[:, 0]], np.stack([1 - H[:, 0], H[:, 0]], axis=1)
    if task == "binary by sign":
        return [[3, 7][int(h > 0)] for h in H[:, 0]], None
    names: dict[str, Any] = {
        "two outputs": NAMES[1:],
        "classes": NAMES,
        "logarithms": [5, -1, 2**40],
        "several sigmoids": [0, 1, 2],
    }
    return [names[task][i] for i in H.argmax(axis=1)], np.exp(H) if task == "logarithms" else H


TABLE_NAMES = ["size", "soil", "age", "wet"]
TABLE_CATEGORIES = {"soil": ["sand", "größe, 寸", "clay"], "wet": ["yes", "no"]}
TABLE_PREPROCESSING: dict[str, Any] = {
    "kind": "pipeline",
    "steps": [
        {"kind": "imputer", "values": [10.0, 2.0, -1.0, 1.0], "how": "median"},
        {"kind": "standardizer", "mean": [4.0, 0.0, 1.0, 0.0], "scale": [2.0, 1.0, 0.5, 1.0]},
        {"kind": "one-hot", "counts": [0, 3, 0, 2]},
    ],
}
TABLE_ROWS: list[list[Any]] = [
    [1.5, "clay", 2.0, "yes"],
    [None, "sand", 0.25, "no"],
    [6.0, "", None, "NA"],
    [8.0, "größe, 寸", 1.0, None],
]
"""Rows of a table as it was measured: numbers, text, and what is missing."""
TABLE_PREPARED = np.array(
    [
        [-1.25, 0, 0, 1, 2.0, 1, 0],
        [3.0, 1, 0, 0, -1.5, 0, 1],
        [1.0, 0, 0, 1, -4.0, 0, 1],
        [2.0, 0, 1, 0, 0.0, 0, 1],
    ]
)
"""What the network gets of these rows, by hand."""


def table_network(dtype: Any = "float32") -> bp.MLP:
    """A classifier of rows with missing values and categories."""
    net = bp.MLP([7, 6, 3], "tanh", "softmax", seed=4, dtype=dtype, backend="numpy")
    net.meta = {
        "task": "classification",
        "classes": NAMES,
        "feature_names": TABLE_NAMES,
        "categories": TABLE_CATEGORIES,
        "preprocessing": TABLE_PREPROCESSING,
    }
    return net
