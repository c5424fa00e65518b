"""Gradient descent on a formula: the smallest example of an update rule at work.

The formula language gives value and derivative, an update rule moves the variables, and everything runs on any backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bpcore.backends import get_backend
from bpcore.backends.contract import Backend
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.formula import Formula
from bpcore.functions.program import Program
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import SGD
from bpcore.typing import Array, FloatArray

__all__ = ["Descent", "descend"]


@dataclass(frozen=True)
class Descent:
    """The path of a descent.

    Attributes
    ----------
    points : dict of str to ndarray of float64
        Every variable along the path, the start included.
    values : ndarray of float64
        The formula along the path.
    stopped_because : str
        Why it ended.
    """

    points: dict[str, FloatArray]
    values: FloatArray
    stopped_because: str

    @property
    def updates(self) -> int:
        """Number of updates."""
        return len(self.values) - 1


def descend(
    formula: Formula | str,
    start: Mapping[str, float],
    optimizer: UpdateRule | None = None,
    *,
    below: float | None = None,
    change_below: float | None = None,
    gradient_below: float | None = None,
    max_updates: int = 1000,
    backend: str | Backend | None = None,
) -> Descent:
    """Minimise a formula by gradient descent and return the path.

    Parameters
    ----------
    formula : Formula or str
        What to minimise.
    start : mapping of str to float
        First value of every variable.
    optimizer : UpdateRule, optional
        How the variables move. Default ``SGD(0.1)``.
    below : float, optional
        Stop when the value is below this.
    change_below : float, optional
        Stop when an update changes the value by less than this.
    gradient_below : float, optional
        Stop when the Euclidean norm of the gradient is below this.
    max_updates : int
        Largest number of updates. Default 1000.
    backend : str or Backend, optional
        Where to compute.

    Returns
    -------
    Descent
        Points and values, the start included.

    Raises
    ------
    ConfigurationError
        If the start does not name exactly the variables of the formula.
    DivergenceError
        If a value is not finite.

    Examples
    --------
    >>> import bpcore as bp
    >>> path = bp.descend("x**2", {"x": 1.2}, bp.SGD(0.3), below=1e-3, backend="numpy")
    >>> path.updates, [round(float(x), 5) for x in path.points["x"]]
    (4, [1.2, 0.48, 0.192, 0.0768, 0.03072])
    """
    be = get_backend(backend)
    objective = formula if isinstance(formula, Formula) else Formula(formula)
    names = objective.variables
    if not names or set(names) != set(start):
        raise ConfigurationError(
            f"the formula has the variables {', '.join(names) or '(none)'}; "
            f"start gives {', '.join(start) or '(nothing)'}"
        )
    rule = SGD(0.1) if optimizer is None else optimizer
    programs = {"value": Program({"value": objective})}
    programs |= {name: Program({"slope": objective.derivative(name)}) for name in names}
    x = {name: be.fill(be.empty(1, np.float64), float(start[name])) for name in names}
    state = {name: {key: be.fill(be.empty(1, np.float64), v) for key, v in rule.state_init.items()} for name in names}
    g = {name: be.empty(1, np.float64) for name in names}
    running, scratch = rule.initial_running(), be.empty(1, np.float64)

    def number(array: Array) -> float:
        return float(be.to_numpy(array)[0])

    def run(program: Program, out: Array) -> float:
        be.elementwise(program, out=out, **{name: x[name] for name in program.inputs})
        return number(out)

    points = [{name: number(x[name]) for name in names}]
    values = [run(programs["value"], scratch)]
    reason = f"reached {max_updates} updates"
    for update in range(max_updates + 1):
        norm = float(np.sqrt(sum(run(programs[name], g[name]) ** 2 for name in names)))
        if below is not None and values[-1] < below:
            reason = f"the value is below {below:g}"
        elif change_below is not None and update and abs(values[-1] - values[-2]) < change_below:
            reason = f"the value changed by less than {change_below:g}"
        elif gradient_below is not None and norm < gradient_below:
            reason = f"the gradient norm is below {gradient_below:g}"
        elif update < max_updates:
            eta = rule.schedule.at(update, update)
            scalars, running = rule.host_scalars(update + 1, eta, running)
            for name in names:
                known = {"theta": x[name], "g": g[name], **state[name], **rule.constants(eta, scalars)}
                outs = (x[name], *(state[name][key] for key in rule.state))
                be.elementwise(rule.program, out=outs, **{key: known[key] for key in rule.program.inputs})
            points.append({name: number(x[name]) for name in names})
            values.append(run(programs["value"], scratch))
            if not np.isfinite(values[-1]):
                raise DivergenceError(
                    f"update {update + 1}: the value is not finite; use a smaller eta", step=update + 1
                )
            continue
        break
    return Descent({name: np.array([point[name] for point in points]) for name in names}, np.array(values), reason)
