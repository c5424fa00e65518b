"""The pages of activations, losses and update rules, written from their declarations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpcore import ACTIVATIONS, LOSSES, Activation, Formula, Loss, descend
from bpcore.functions import activations, losses
from bpcore.functions.expression import expand
from bpcore.functions.printing import to_text
from bpcore.functions.update_rules import UPDATE_RULES
from docs.tools.curves import Curve, picture, valley
from docs.tools.latex import latex, program_latex
from docs.tools.markdown import NOTE, table

__all__ = ["PAGES", "PICTURES", "corners"]

REACH = 5.0
Vector = NDArray[np.float64]
Function = Callable[[Vector], Vector]


# ------------------------------------------------------------------------------------------ what a curve is like


def corners(slope: Function, low: float, high: float) -> list[float]:
    """Return where a function has no derivative: where its slope from the left is another than from the right.

    >>> corners(lambda z: np.sign(z), -5, 5), corners(np.cos, -5, 5)
    ([0.0], [])
    """
    z = np.linspace(low, high, 2001)
    steep = np.flatnonzero(np.abs(np.diff(slope(z))) > 1e-3)
    left, right = z[steep], z[steep + 1]
    for _ in range(60):  # keep the half in which the slope changes more
        middle = 0.5 * (left + right)
        before, at, after = np.split(slope(np.concatenate([left, middle, right])), 3)
        first = np.abs(at - before) > np.abs(after - at)
        left, right = np.where(first, left, middle), np.where(first, middle, right)
    jump = np.abs(slope(right + 1e-9) - slope(left - 1e-9))
    return sorted({float(round(place, 6)) + 0.0 for place in 0.5 * (left + right)[jump > 1e-6]})


def _at(formula: Formula, **values: Any) -> Vector:
    size = np.broadcast(*values.values()).shape
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(formula(**values), dtype=np.float64), size)


def _value(act: Activation) -> Function:
    return lambda z: _at(act.value_formula, z=z)


def _slope(act: Activation) -> Function:
    def slope(z: Vector) -> Vector:
        values = {"z": z, "h": _at(act.value_formula, z=z)}
        used = act.derivative_formula.variables
        return _at(act.derivative_formula, **{name: values[name] for name in used}) if used else np.ones_like(z)

    return slope


def _interval(interval: tuple[float, float]) -> str:
    low, high = (f"{x:.4g}".replace("-", "\N{MINUS SIGN}").replace("inf", "∞") for x in interval)
    return f"{low} to {high}"


def _aliases(name: str, aliases: Mapping[str, str]) -> str:
    others = [f'`"{alias}"`' for alias, meant in aliases.items() if meant == name]
    return f'`"{name}"`' + (f", also {' and '.join(others)}" if others else "")


def _computed(formula: Formula) -> str:
    """Return the formula in the form that runs, if its printed one is another."""
    expr = expand(formula.expr)
    bounded = any(word in formula.text for word in ("-1000", "expm1", "erfc"))
    return f"`{to_text(expr)}`" if bounded or expr != formula.expr else ""


def _facts(rows: dict[str, str]) -> str:
    return table(("", ""), ((what, words) for what, words in rows.items() if words))


# ------------------------------------------------------------------------------------------ activations

ACTIVATIONS_TOP = """
# Activations

What a neuron makes of its input `z`. The derivative may use the output `h`, which is at hand. All are finite for
|z| up to 10 000 in float32, and every backend computes the same formula. One of your own is
[one declaration](../how-to/add-an-activation.md); [Accuracy](accuracy.md) says how exact `exp` and `tanh` are.

"""

ROWWISE = {
    "softmax": (
        r"h_j = \frac{e^{z_j}}{\sum_k e^{z_k}}",
        r"$\frac{\partial h_j}{\partial z_k} = h_j\, (\delta_{jk} - h_k)$, "
        r"applied as $H \odot (G - \mathrm{rowsum}(G \odot H))$",
        r"$e^{z_j - m} / \sum_k e^{z_k - m}$ with $m = \max_k z_k$",
    ),
    "log_softmax": (
        r"h_j = z_j - \ln \sum_k e^{z_k}",
        r"$\frac{\partial h_j}{\partial z_k} = \delta_{jk} - e^{h_k}$, applied as $G - e^{H} \odot \mathrm{rowsum}(G)$",
        r"$z_j - m - \ln \sum_k e^{z_k - m}$ with $m = \max_k z_k$",
    ),
}
"""What no formula of one number says: the function, its Jacobian, and the form that the backends compute."""


def _row_curve(act: Activation, z: Vector) -> tuple[Vector, Vector]:
    """Output and slope of the first of two scores (z, 0)."""
    h = 1 / (1 + np.exp(-z))
    return (h, h * (1 - h)) if act.rowwise == "softmax" else (np.log(h), 1 - h)


def _behaviour(act: Activation) -> dict[str, str]:
    z = np.linspace(-REACH, REACH, 2001)
    h = _value(act)(z)
    if not act.differentiable:
        return {"not differentiable": "at 0, where it jumps; the derivative is 0 elsewhere, so nothing can be learned"}
    slope = _slope(act)
    d = slope(z)
    far = slope(np.array([-60.0, 60.0]))
    rises = np.diff(h) > -1e-12
    places = corners(slope, -REACH, REACH)
    lowest = z[np.argmin(h)]
    return {
        "monotone": "yes" if rises.all() else f"no: lowest at z = {lowest:.3g}, where h = {h.min():.4g}",
        "not differentiable": "at z = " + ", ".join(f"{place:g}" for place in places) if places else "nowhere",
        "steepest": f"slope {d.max():.4g}"
        + (
            f" at z = {z[np.argmax(d)]:.3g}"
            if (d < d.max() - 1e-9).any() and (np.isclose(d, d.max())).sum() < 4
            else ""
        ),
        "slope far out": " to the left, ".join(f"{abs(x) if abs(x) > 1e-6 else 0:.4g}" for x in far) + " to the right",
    }


def activation_page() -> str:
    text = NOTE + ACTIVATIONS_TOP
    for act in ACTIVATIONS.values():
        text += f"## {act.name}\n\n"
        behaviour: dict[str, str] = {}
        if act.rowwise:
            formula, derivative, computed = ROWWISE[act.rowwise]
            behaviour["of whole rows"] = "the curve is the first of two outputs, for the scores (z, 0)"
        else:
            # the sigmoid has a letter of its own, which explains nothing here
            shown = expand(act.value_formula.expr) if act.formula == "sigmoid(z)" else act.value_formula
            formula, computed = f"h = {latex(shown)}", _computed(act.value_formula)
            derivative = (
                f"$h' = {latex(act.derivative_formula)}$" if act.differentiable else "none: for predictions only"
            )
            behaviour = _behaviour(act)
        low, high = np.isfinite(act.range)
        bounded = "bounded" if low and high else "bounded below" if low else "bounded above" if high else "not bounded"
        text += f"$$\n{formula}\n$$\n\n![{act.name} and its derivative](curves/activation-{act.name}.svg)\n\n"
        text += _facts(
            {
                "derivative": derivative,
                "name": _aliases(act.name, activations.ALIASES),
                "outputs": f"{_interval(act.range)}, {bounded}",
                **behaviour,
                "computed as": computed,
                "source": act.source,
                "code": f"[declaration](../../bpcore/functions/activations.py#{act.name})",
            }
        )
        text += "\n"
    return text.rstrip("\n") + "\n"


def activation_pictures() -> dict[str, str]:
    z, found = np.linspace(-REACH, REACH, 101), {}
    for act in ACTIVATIONS.values():
        h, d = _row_curve(act, z) if act.rowwise else (_value(act)(z), _slope(act)(z) if act.differentiable else 0 * z)
        if act.name == "step":
            h = np.where(np.abs(z) < 1e-9, np.nan, h)
        curves = [Curve(z, h, "h(z)")]
        if act.differentiable:
            curves.append(Curve(z, _with_gaps(d), "h\N{PRIME}(z)", dashed=True, colour=1))
        low = min(-0.5, float(np.floor(2 * min(h.min(), d.min())) / 2)) if act.name != "step" else -0.5
        high = max(1.5, min(3.0, float(np.ceil(2 * np.nanmax(h)) / 2)))
        limits = (max(low, -3.0) if act.name != "log_softmax" else -5.0, high)
        found[f"activation-{act.name}.svg"] = picture(curves, f"{act.name} and its derivative", "z", limits)
    return found


def _with_gaps(d: Vector) -> Vector:
    """Leave a gap where a slope jumps, instead of a steep line."""
    d = d.copy()
    d[1:][np.abs(np.diff(d)) > 0.5] = np.nan
    return d


# ------------------------------------------------------------------------------------------ losses

LOSSES_TOP = """
# Losses

What a prediction `a` costs if the target is `y`, for one output. A loss adds up the outputs of a sample or averages
them, and the loss of a batch is the mean over its samples. Beside some output activations the derivative of the loss
and that of the activation cancel; such a pair is declared with the loss, in a form that keeps its digits, and is used
by itself. One of your own is [one declaration](../how-to/add-an-activation.md).

"""

TARGETS = {
    "real": "any numbers",
    "probability": "numbers in [0, 1]",
    "distribution": "rows in [0, 1] that sum to 1: one-hot, soft targets, or labels",
    "sign": "\N{MINUS SIGN}1 and +1",
}
DRAWN: dict[str, tuple[tuple[float, float], tuple[float, ...]]] = {
    "real": ((-3, 3), (0.0,)),
    "probability": ((0.002, 0.998), (0.0, 1.0)),
    "distribution": ((0.002, 0.998), (1.0,)),
    "sign": ((-3, 3), (1.0, -1.0)),
}
"""Predictions and targets for which a loss is drawn."""


def _loss_slope(loss: Loss, y: float) -> Function:
    used = loss.derivative_formula.variables
    return lambda a: _at(
        loss.derivative_formula,
        **{name: value for name, value in (("a", a), ("y", np.full_like(a, y))) if name in used},
    )


def _reach(loss: Loss) -> tuple[tuple[float, float], tuple[float, ...]]:
    if loss.name == "binary_cross_entropy_logits":
        return (-5, 5), (0.0, 1.0)
    return DRAWN[loss.target_kind]


def loss_page() -> str:
    text = NOTE + LOSSES_TOP
    for loss in LOSSES.values():
        (low, high), targets = _reach(loss)
        places = {y: corners(_loss_slope(loss, y), low, high) for y in targets if loss.target_kind in ("real", "sign")}
        corner = "; ".join(
            f"at a = {', '.join(f'{a:g}' for a in found)} for y = {y:g}" for y, found in places.items() if found
        )
        pairs = "<br>".join(
            f"with `{output}`: value `{pair.value}`, $\\partial e / \\partial z = {latex(Formula(pair.delta))}$"
            for output, pair in loss.pairs.items()
        )
        text += f"## {loss.name}\n\n$$\ne(a, y) = {latex(loss.value_formula)}\n$$\n\n"
        text += f"![{loss.name} over the prediction](curves/loss-{loss.name}.svg)\n\n"
        text += _facts(
            {
                "derivative": rf"$\partial e / \partial a = {latex(loss.derivative_formula)}$",
                "name": _aliases(loss.name, losses.ALIASES),
                "outputs": "averaged" if loss.reduce == "mean" else "added up",
                "predictions": _interval(loss.prediction_range),
                "targets": TARGETS[loss.target_kind],
                "not differentiable": corner or "nowhere",
                "cancels": pairs,
                "source": loss.source,
                "code": f"[declaration](../../bpcore/functions/losses.py#{MADE_BY.get(loss.name, loss.name)})",
            }
        )
        text += "\n"
    return text.rstrip("\n") + "\n"


MADE_BY = {"huber": "Huber", "cross_entropy": "CrossEntropy"}
"""Losses that a function makes."""


def loss_pictures() -> dict[str, str]:
    found = {}
    for loss in LOSSES.values():
        (low, high), targets = _reach(loss)
        a = np.linspace(low, high, 101)
        curves = []
        for k, y in enumerate(targets):
            value = _at(loss.value_formula, a=a, y=np.full_like(a, y))
            curves.append(Curve(a, value, f"e, y = {y:g}", colour=2 * k))
            curves.append(Curve(a, _with_gaps(_loss_slope(loss, y)(a)), "∂e/∂a", dashed=True, colour=2 * k + 1))
        found[f"loss-{loss.name}.svg"] = picture(curves, f"{loss.name} over the prediction", "a", (-3.5, 5.0))
    return found


# ------------------------------------------------------------------------------------------ update rules


RULES_TOP = r"""
# Update rules

How a step changes the parameters: $\theta$ is a parameter, $g$ its gradient, $\eta$ the learning rate, $t$ the number
of the step, from 1. Each line sees what the lines above it have changed. What is the same for all parameters is
computed once a step in float64. The pictures show forty updates on $E = (x^2 + 8 y^2) / 2$ from $(-4, 1.5)$, each rule
with a learning rate that shows what it is like; they do not say which rule is better. One of your own is
[one declaration](../how-to/add-an-activation.md).

"""


def update_rule_page() -> str:
    text = NOTE + RULES_TOP
    for name, make in UPDATE_RULES.items():
        rule = make()
        function = getattr(make, "__name__", "")
        made = FUNCTIONS.get(name, function)
        module = make.__module__.replace(".", "/") if name not in FUNCTIONS else "bpcore/functions/update_rules"
        text += f"## {name}\n\n$$\n{program_latex(rule.program)}\n$$\n\n"
        if rule.scalars:
            text += f"where, once a step,\n\n$$\n{program_latex(rule.scalars)}\n$$\n\n"
        text += f"![{name}: {UPDATES} updates down a valley](curves/update-{name}.svg)\n\n"
        numbers = ", ".join(f"{key} = {value:g}" for key, value in rule.hyper.items())
        text += _facts(
            {
                "use": f'`bp.{made}()`, or the name `"{name}"`',
                "learning rate": f"{rule.schedule.at(0, 0):g}, unless another number or a schedule is given",
                "numbers": numbers,
                "in the picture": f"learning rate {ETAS[name]:g}",
                "kept for every parameter": ", ".join(f"`{key}`" for key in rule.state) or "nothing",
                "source": rule.source,
                "code": f"[`{made}`](../../{module}.py#{made})",
            }
        )
        text += "\n"
    return text.rstrip("\n") + "\n"


FUNCTIONS = {"sgd": "SGD"}

STEEPNESS, UPDATES = 8.0, 40
VALLEY = f"0.5 * (x**2 + {STEEPNESS:g} * y**2)"
ETAS = {
    "sgd": 0.1,
    "momentum": 0.03,
    "nesterov": 0.03,
    "adagrad": 1.0,
    "rmsprop": 0.12,
    "adadelta": 20.0,
    "adam": 0.4,
    "amsgrad": 0.4,
    "adamw": 0.4,
    "nadam": 0.25,
    "lion": 0.12,
}
"""Learning rates that show in forty updates what a rule is like; they do not compare the rules."""


def update_rule_pictures() -> dict[str, str]:
    found = {}
    for name, make in UPDATE_RULES.items():
        path = descend(VALLEY, {"x": -4.0, "y": 1.5}, make(ETAS[name]), max_updates=UPDATES, backend="numpy")
        title = f"{name}: {UPDATES} updates down a valley"
        found[f"update-{name}.svg"] = valley(path.points["x"], path.points["y"], STEEPNESS, title)
    return found


PAGES = {
    "activations.md": activation_page,
    "losses.md": loss_page,
    "update-rules.md": update_rule_page,
}


@functools.cache
def _pictures() -> dict[str, str]:
    return activation_pictures() | loss_pictures() | update_rule_pictures()


PICTURES = _pictures
"""The pictures by the name of their file."""
