#!/usr/bin/env python3
"""Write the pages of the reference that follow from the code: ``python docs/generate.py``.

`tests/test_docs.py` compares the pages with what this file makes of the code and fails when they differ.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import bpcore
from bpcore.backends.contract import Backend, native_operations
from bpcore.backends.ops import OPS
from bpcore.exchange.onnx_nodes import onnx_operators
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.initializers import INITIALIZERS
from bpcore.functions.losses import LOSSES
from bpcore.functions.update_rules import UPDATE_RULES
from bpcore.kernels.numba.accuracy import ACCURACY

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from docs.tools import function_pages, gallery_pages  # noqa: E402
from docs.tools.markdown import NOTE, table  # noqa: E402

HERE = Path(__file__).resolve().parent / "reference"
GROUPS = {
    "bpcore.network": "Networks",
    "bpcore.persistence": "Networks",
    "bpcore.persistence.checkpoint": "Training",
    "bpcore.calls": "The equations",
    "bpcore.backprop": "The equations",
    "bpcore.workspace": "The equations",
    "bpcore.gradcheck": "The equations",
    "bpcore.inspection": "Inspection",
    "bpcore.training": "Training",
    "bpcore.evaluation": "Training",
    "bpcore.functions.activations": "Activations and losses",
    "bpcore.functions.losses": "Activations and losses",
    "bpcore.functions.update_rule": "Optimisers",
    "bpcore.functions.update_rules": "Optimisers",
    "bpcore.functions.adam_family": "Optimisers",
    "bpcore.functions.full_batch": "Optimisers",
    "bpcore.functions.schedule": "Schedules of the learning rate",
    "bpcore.functions.schedules": "Schedules of the learning rate",
    "bpcore.functions.initializers": "Initialisers, penalties, clipping",
    "bpcore.functions.penalties": "Initialisers, penalties, clipping",
    "bpcore.functions.clipping": "Initialisers, penalties, clipping",
    "bpcore.functions.formula": "Formulas",
    "bpcore.functions.program": "Formulas",
    "bpcore.descent": "Formulas",
    "bpcore.functions.information": "Information measures",
    "bpcore.exchange": "Exchange",
    "bpcore.backends": "Backends",
    "bpcore.estimators": "Estimators for scikit-learn",
}


def first_sentence(thing: Any) -> str:
    """Return the first line of a docstring, its reStructuredText markup turned into Markdown's."""
    text = inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    for role in (":func:", ":class:", ":meth:", ":mod:", ":data:"):
        text = text.replace(role, "")
    return text.replace("``", "`").replace("`~", "`")


def signature(name: str, thing: Any) -> str:
    """Write a call with the names of its parameters; the docstring tells the rest."""
    if not callable(thing):
        return name
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return name
    words, starred = [], False
    for parameter in parameters:
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        # str(parameter) begins with the stars and goes on with annotation and default
        stars = str(parameter)[: str(parameter).index(parameter.name)]
        words.append(stars + parameter.name)
    return f"{name}({', '.join(words)})"


def group_of(module: str) -> str:
    """Return the heading for a module; a new module needs a line in `GROUPS`."""
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in GROUPS:
            return GROUPS[".".join(parts[:n])]
    raise LookupError(f"docs/generate.py: no heading for module {module}")


def api() -> str:
    groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in GROUPS.values()}
    constants: list[str] = []
    modules: list[tuple[str, str]] = []
    for name in sorted([*bpcore.__all__, *bpcore._LAZY], key=str.lower):
        thing = getattr(bpcore, name)
        if inspect.ismodule(thing):
            modules.append((f"`bpcore.{name}`", first_sentence(thing)))
        elif isinstance(thing, dict | str):
            constants.append(name)
        else:
            groups[group_of(thing.__module__)].append((f"`{signature(name, thing)}`", first_sentence(thing)))
    text = NOTE + "\n# Public names\n\n"
    text += (
        "Everything here is an attribute of `bpcore`. The docstrings have the shapes, defaults, errors and examples:\n"
    )
    text += "`help(bpcore.train)`.\n"
    for heading, rows in groups.items():
        if rows:
            text += f"\n## {heading}\n\n{table(('name', 'what it is'), rows)}"
    data = [(name, getattr(bpcore.data, name)) for name in sorted(bpcore.data.__all__, key=str.lower)]
    rows = [(f"`{signature(name, thing)}`", first_sentence(thing)) for name, thing in data if callable(thing)]
    text += f"\n## Data\n\nAttributes of `bpcore.data`.\n\n{table(('name', 'what it is'), rows)}"
    drawn = [(name, getattr(bpcore.plots, name)) for name in sorted(bpcore.plots.__all__)]
    rows = [(f"`{signature(name, thing)}`", first_sentence(thing)) for name, thing in drawn]
    text += f"\n## Plots\n\nAttributes of `bpcore.plots`.\n\n{table(('name', 'what it is'), rows)}"
    text += f"\n## Modules\n\n{table(('name', 'what it is'), modules)}"
    known = "`, `".join(name for name in constants if not name.startswith("_"))
    return text + f"\nThe built-in functions by name are the dictionaries `{known}`; see\n[Functions](functions.md).\n"


def functions() -> str:
    text = NOTE + "\n# Functions\n\n"
    text += (
        "What is built in, with the formula that every backend computes; declared in `bpcore/functions/`. How exact\n"
    )
    text += "`exp`, `tanh` and the like are: [Accuracy](accuracy.md). Each has a section with its derivative,\n"
    text += (
        "curve and properties: [activations](activations.md), [losses](losses.md), [update rules](update-rules.md).\n"
    )
    rows = []
    for act in ACTIVATIONS.values():
        derivative = f"`{act.derivative_formula}`" if act.differentiable and not act.rowwise else "none"
        if act.rowwise:
            derivative = "the Jacobian, by the backend"
        rows.append(
            (
                f"[`{act.name}`](activations.md#{act.name})",
                f"`{act.formula}`" if act.formula else "whole rows, by the backend",
                derivative,
                act.source,
            )
        )
    text += "\n## Activations\n\nOf `z`; the derivative may use the output `h`.\n\n"
    text += table(("name", "formula", "derivative", "source"), rows)
    text += "\n### In ONNX\n\nWhat `export_onnx` makes of them, opset 13. Operators are named once; in float64,\n"
    text += "`gelu` does without `Erf`, which ONNX Runtime has for float32 only.\n\n"
    text += table(
        ("name", "operators"),
        ((f"`{act.name}`", ", ".join(f"`{name}`" for name in onnx_operators(act))) for act in ACTIVATIONS.values()),
    )
    text += "\n## Losses\n\nOf a prediction `a` and a target `y`, for one output; the mean over the samples.\n\n"
    text += table(
        ("name", "formula", "outputs", "targets", "cancels with", "source"),
        (
            (
                f"[`{loss.name}`](losses.md#{loss.name})",
                f"`{loss.formula}`",
                loss.reduce,
                loss.target_kind,
                ", ".join(f"`{name}`" for name in loss.pairs),
                loss.source,
            )
            for loss in LOSSES.values()
        ),
    )
    text += "\n## Update rules\n\n`g` is the gradient, `eta` the learning rate, `t` the number of the step.\n\n"
    rules = [(name, make()) for name, make in UPDATE_RULES.items()]
    text += table(
        ("name", "for every parameter", "once a step", "source"),
        (
            (
                f"[`{name}`](update-rules.md#{name})",
                "<br>".join(f"`{part.strip()}`" for part in str(rule.program).split(";")),
                f"`{rule.scalars}`" if rule.scalars else "",
                rule.source,
            )
            for name, rule in rules
        ),
    )
    text += "\n## Initialisers\n\n`n_in` and `n_out` are the widths before and after.\n\n"
    text += table(
        ("name", "weights", "biases", "source"),
        ((f"`{name}`", distribution(init.W), distribution(init.b), init.source) for name, init in INITIALIZERS.items()),
    )
    return text


def distribution(made: Any) -> str:
    return f"{type(made).__name__.lower()} `{made.scale}`"


def operations() -> str:
    classes = {
        name: getattr(importlib.import_module(f"bpcore.backends.{name}_backend"), f"{name.capitalize()}Backend")
        for name in ("numpy", "numba", "cupy")
    }
    native = {name: native_operations(cls) for name, cls in classes.items()}
    text = NOTE + "\n# Operations of a backend\n\n"
    text += "m rows, n columns, k the inner size of a product, p elements. An operation that a backend does not\n"
    text += "implement itself runs as a plain expression of the array library.\n\n"
    rows = [
        (
            f"`{name}`",
            f"`{op.signature}`",
            first_sentence(getattr(Backend, name)),
            *("own" if name in native[backend] else "plain" for backend in classes),
        )
        for name, op in OPS.items()
    ]
    return text + table(("operation", "shapes", "what it does", *classes), rows)


def accuracy() -> str:
    text = NOTE
    text += """
# Accuracy of the elementary functions

The backend NumPy computes formulas with NumPy's functions, CuPy with those of CUDA. The loops of the backend Numba
have functions of their own, in `kernels/numba/`: straight lines of arithmetic that become vector instructions, float32
in float32 and float64 in float64. This page says how exact they are; `tests/kernels/test_numba_scalar.py` measures it.

## Errors

The largest error that was found, in units of the last place (ulp) of the exact result, rounded up; the promise holds
with and without fused multiply-add instructions. float32: every 61st of the 2³² bit patterns, hence all exponents and
both signs. float64: twenty million arguments; a quarter of them are random bit patterns, the others lie where
the function is not constant, and among them are the neighbours of all places where the computation changes its course.
A reference with more digits looks at each of them, mpmath at the worst.

*Below normal* is the largest error of a result below the smallest normal number, in units of the smallest positive
number; where it says *may be 0*, such a result can be lost. Infinity begins where the exact result rounds to it, give
or take the error of the function.

"""
    text += table(
        ("function", "float32", "float64", "below normal", "method"),
        (
            (
                f"`{name}`",
                f"{promise.float32}",
                f"{promise.float64}",
                {0.0: "none is", math.inf: "may be 0"}.get(promise.subnormal, f"{promise.subnormal}"),
                promise.method,
            )
            for name, promise in ACCURACY.items()
        ),
    )
    text += """
`sqrt`, `abs`, `sign`, `min`, `max` and arithmetic are exact or rounded once; `sin`, `cos` and powers that are not
multiplied out are those of the C library, one number at a time.

## Edge values

NaN gives NaN in all of them. These results are exact, including the sign of zero:

"""
    text += table(
        ("function", "value at the edges"),
        (
            (f"`{name}`", ", ".join(f"{edge(x)} → {edge(value)}" for x, value in promise.limits))
            for name, promise in ACCURACY.items()
        ),
    )
    return text


def edge(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    sign = "\N{MINUS SIGN}" if math.copysign(1, value) < 0 else ""
    return sign + ("∞" if math.isinf(value) else f"{abs(value):g}")


PAGES = {
    "accuracy.md": accuracy,
    "api.md": api,
    "functions.md": functions,
    "operations.md": operations,
    **function_pages.PAGES,
    **{f"../gallery/{name}": make for name, make in gallery_pages.PAGES.items()},
}


def pictures() -> dict[str, str]:
    """Return the pictures of the reference by the name of their file."""
    return function_pages.PICTURES()


def main() -> None:
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), "utf-8", newline="\n")
        print(HERE / name)
    (HERE / "curves").mkdir(exist_ok=True)
    for name, text in pictures().items():
        (HERE / "curves" / name).write_text(text, "utf-8", newline="\n")
    print(HERE / "curves")


if __name__ == "__main__":
    main()
