"""A computational graph of formulas: values forwards, slopes backwards.

Every node is a formula of nodes before it. ``forward`` computes the values; ``backward`` passes the derivative of the
last node back along the edges, each edge multiplying by its local derivative, and a node adding up what comes from its
children::

    dz/du = sum over the children v of u:  dz/dv * dv/du

Values are numbers or arrays of one shape; an array is many graphs side by side, and a number that feeds arrays collects
the slopes of all of them. Everything is computed by a backend, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bpcore.backends import get_backend
from bpcore.backends.contract import Backend
from bpcore.errors import ConfigurationError, FormulaError, ShapeError
from bpcore.functions.formula import Formula
from bpcore.typing import FloatArray

__all__ = ["Graph"]

STEP = float(np.cbrt(np.finfo(np.float64).eps))
Value = Any
"""A float, or an array on the device of the backend."""


class Graph:
    """A graph that is written as formulas, one for each node.

    Parameters
    ----------
    nodes : mapping of str to str or Formula
        Formula of each node; a formula may use inputs and the nodes above it. Names without a formula are the inputs,
        and the last node is the output.
    backend : str or Backend, optional
        Where to compute; by default the selection in force.

    Attributes
    ----------
    formulas : dict of str to Formula
        The nodes in order.
    inputs : tuple of str
        The inputs, in order of first use.
    output : str
        The last node.
    edges : tuple of (str, str)
        (parent, child), in the order of the children.
    values, slopes : dict of str to value
        What the last forward and backward pass left behind: every node, and the derivative of the output by it.
    local : dict of (str, str) to value
        Local derivative of every edge.

    Raises
    ------
    ConfigurationError
        If there is no node, or a formula uses a node that comes later.
    FormulaError
        If a formula is not in the language.

    Examples
    --------
    >>> graph = Graph({"x": "2*w + 3*b", "y": "2*b + 1", "z": "x*y"}, backend="numpy")
    >>> graph.forward(w=3, b=4)
    162.0
    >>> graph.backward()
    {'w': 18.0, 'b': 63.0}
    >>> graph.local["b", "x"], graph.slopes["y"]
    (3.0, 18.0)
    """

    def __init__(self, nodes: Mapping[str, str | Formula], backend: str | Backend | None = None) -> None:
        self.be = get_backend(backend)
        self.formulas = {name: f if isinstance(f, Formula) else Formula(f) for name, f in nodes.items()}
        if not self.formulas:
            raise ConfigurationError("a graph needs at least one node, such as {'y': '2*x'}")
        seen: set[str] = set()
        for name, formula in self.formulas.items():
            late = [used for used in formula.variables if used in self.formulas and used not in seen]
            if late:
                raise ConfigurationError(
                    f"node {name} = {formula} uses {', '.join(late)}, which does not come before it; "
                    f"the nodes are {', '.join(self.formulas)}. Write them in the order in which they are computed"
                )
            seen.add(name)
        self.edges = tuple((parent, name) for name, formula in self.formulas.items() for parent in formula.variables)
        self.inputs = tuple(dict.fromkeys(parent for parent, _ in self.edges if parent not in self.formulas))
        self.output = list(self.formulas)[-1]
        self.values: dict[str, Value] = {}
        self.local: dict[tuple[str, str], Value] = {}
        self.slopes: dict[str, Value] = {}

    def forward(self, **inputs: Any) -> Any:
        """Compute every node.

        Parameters
        ----------
        **inputs : float or array_like
            One value for each input; arrays must have one shape, with one or two axes.

        Returns
        -------
        float or Array
            The output. All nodes are in :attr:`values`.

        Raises
        ------
        FormulaError
            If an input is missing or unknown.
        ShapeError
            If the arrays have different shapes.
        """
        if set(inputs) != set(self.inputs):
            raise FormulaError(
                f"the graph has the inputs {', '.join(self.inputs)}; values were given for "
                f"{', '.join(inputs) or '(none)'}"
            )
        values = {name: self._value(inputs[name]) for name in self.inputs}
        shapes = {name: value.shape for name, value in values.items() if not isinstance(value, float)}
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"arrays in a graph must have one shape; got {shapes}")
        for name, formula in self.formulas.items():
            values[name] = self._evaluate(formula, values)
        self.values, self.local, self.slopes = values, {}, {}
        return values[self.output]

    def backward(self) -> dict[str, Any]:
        """Pass the derivative of the output back to the inputs.

        Returns
        -------
        dict of str to float or Array
            Derivative of the output (of the sum of its elements) by every input. Those by all nodes are in
            :attr:`slopes`, the local ones in :attr:`local`.

        Raises
        ------
        ConfigurationError
            If there was no forward pass.
        """
        if not self.values:
            raise ConfigurationError("backward() needs the values of a forward pass; call forward(...) first")
        self.local = {
            (parent, child): self._evaluate(self.formulas[child].derivative(parent), self.values)
            for parent, child in self.edges
        }
        slopes: dict[str, Value] = {name: 0.0 for name in self.values}
        slopes[self.output] = 1.0
        for parent, child in reversed(self.edges):
            passed = self._evaluate("slope * local", {"slope": slopes[child], "local": self.local[parent, child]})
            if isinstance(self.values[parent], float):
                passed = self._total(passed, like=self.values[child])
            slopes[parent] = self._evaluate("a + b", {"a": slopes[parent], "b": passed})
        self.slopes = {name: self._like(slope, self.values[name]) for name, slope in slopes.items()}
        return {name: self.slopes[name] for name in self.inputs}

    def differences(self, name: str) -> FloatArray:
        """Compute the derivative by one input a second time, by central differences of forward passes.

        Parameters
        ----------
        name : str
            The input.

        Returns
        -------
        ndarray of float64
            Shape of the input, () for a number: the derivative of the sum of the output's elements. The values of the
            graph are left as they were.
        """
        saved = self.values, self.local, self.slopes
        inputs = {key: self._host(self.values[key]) for key in self.inputs}
        x, found = inputs[name], np.empty(inputs[name].shape)
        for i in np.ndindex(x.shape):
            h = STEP * max(1.0, abs(float(x[i])))
            ends = []
            for moved in (x[i] + h, x[i] - h):
                changed = x.copy()
                changed[i] = moved
                ends.append(float(self._host(self.forward(**{**inputs, name: changed})).sum()))
            found[i] = (ends[0] - ends[1]) / (2 * h)
        self.values, self.local, self.slopes = saved
        return found

    def depth(self, name: str) -> int:
        """Length of the longest way from an input to a node: 0 for inputs."""
        parents = [parent for parent, child in self.edges if child == name]
        return 1 + max(map(self.depth, parents)) if parents else 0

    # ---------------------------------------------------------------- numbers and arrays

    def _value(self, given: Any) -> Value:
        if self.be.owns(given) and given.ndim > 0:
            return given
        array = np.asarray(given, np.float64)
        return float(array) if array.ndim == 0 else self.be.asarray(array)

    def _host(self, value: Value) -> FloatArray:
        return np.asarray(value if isinstance(value, float) else self.be.to_numpy(value), np.float64)

    def _evaluate(self, formula: Formula | str, values: Mapping[str, Value]) -> Value:
        """Evaluate on the backend; of numbers alone the result is a number."""
        checked = formula if isinstance(formula, Formula) else Formula(formula)
        used = {name: values[name] for name in checked.variables}
        result = self.be.evaluate(checked, **used)
        plain = all(isinstance(value, float) for value in used.values())
        return float(self.be.to_numpy(result)[0]) if plain else result

    def _total(self, value: Value, like: Value) -> float:
        """Sum what arrives at a number from a child: one slope for each element of the child."""
        if isinstance(value, float):
            return value if isinstance(like, float) else value * like.size
        return float(self.be.to_numpy(self.be.total(value, out=self.be.empty(1, np.float64)))[0])

    def _like(self, slope: Value, value: Value) -> Value:
        """A slope that is the same everywhere is a number until it is handed out with the shape of its node."""
        if isinstance(slope, float) and not isinstance(value, float):
            return self.be.fill(self.be.empty(value.shape, np.float64), slope)
        return slope
