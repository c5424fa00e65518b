"""What the step kernels need of the declarations, printed as C++ functions of one element: the pieces of a step.

The kernels of a training step (``step.cuh``, ``resident.cuh``) are the same for every network. What is declared, an
activation, a loss, a penalty or an update rule, is called by a fixed name and printed here:

==========================================  =================================================================
function or constant                        meaning
==========================================  =================================================================
``activate(code, z)``                       ``h = act(z)`` of the activation with this code
``backprop(code, delta, z, h)``             BP2 after its product: ``delta * act'(z)``
``output_error(z, h, y, logh, scale,``      the term of the loss, and BP1
``terms, delta)``
``penalise(g, w, prices)``                  adds the derivative of the price of a weight to its gradient
``update(theta, g, s, v)``                  the update rule; ``s`` is its state, ``v`` the numbers of the step
``OUTPUT_ROWS``                             0, or :data:`SOFTMAX` or :data:`LOG_SOFTMAX`: the output is one of these
``NEEDS_LOG``, ``PAIRED``                   whether the loss reads ``log h``; whether ``delta`` is all of BP1
``WEIGHTED``, ``CLASSES``                   whether samples have weights; whether hits are counted
``PENALISED``, ``STATES``, ``NUMBERS``      whether there is a penalty; arrays and numbers of the update rule
==========================================  =================================================================

Row-wise activations (softmax) are no functions of one element: their code is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bpcore.functions.program import Program
from bpcore.kernels.cuda.source import Point, print_point

__all__ = [
    "LOG_SOFTMAX",
    "SOFTMAX",
    "Activations",
    "Layer",
    "Output",
    "StepPieces",
    "print_activations",
    "print_pieces",
]

SOFTMAX, LOG_SOFTMAX = 1, 2

_ROWWISE = {"": 0, "softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX}


@dataclass(frozen=True)
class Layer:
    """The activation of one layer.

    Attributes
    ----------
    value : Program or None
        Computes ``h`` from ``z``; None for a row-wise activation.
    delta : Program or None
        Updates ``delta`` from ``delta``, ``z`` and ``h``; None for a row-wise activation, and where nothing goes back.
    rowwise : str
        ``""``, ``"softmax"`` or ``"log_softmax"``.
    """

    value: Program | None
    delta: Program | None
    rowwise: str = ""


@dataclass(frozen=True)
class Output:
    """Loss and BP1.

    Attributes
    ----------
    value : Program
        Computes ``terms`` from ``z, h, y, logh, scale``.
    delta : Program
        Computes ``delta`` from ``z, h, y, scale``.
    rowwise : str
        The output activation if it is row-wise, else ``""``.
    paired : bool
        Whether ``delta`` is all of BP1; else the Jacobian of the row-wise output follows.
    """

    value: Program
    delta: Program
    rowwise: str
    paired: bool


@dataclass(frozen=True)
class Activations:
    """Printed activations.

    Attributes
    ----------
    text : str
        Source of ``activate``.
    codes : tuple of int
        What each layer passes as ``code``, as in :class:`StepPieces`.
    """

    text: str
    codes: tuple[int, ...]


@dataclass(frozen=True)
class StepPieces:
    """Printed pieces and how to feed them.

    Attributes
    ----------
    text : str
        Source of all pieces.
    codes : tuple of int
        What each layer passes as ``code``; minus :data:`SOFTMAX` or :data:`LOG_SOFTMAX` for row-wise layers.
    update : Point
        The update rule; its ``numbers`` are the values ``v`` of a step, some of them computed by its ``host``.
    penalty : Point or None
        The penalty; its ``numbers`` are ``prices``.
    """

    text: str
    codes: tuple[int, ...]
    update: Point
    penalty: Point | None


def print_activations(layers: Sequence[Layer]) -> Activations:
    """Print the activations alone, for a pass that only goes forward.

    Parameters
    ----------
    layers : sequence of Layer
        Activations of the layers 2 ... L; their ``delta`` is not looked at.

    Returns
    -------
    Activations
        Equal text for equal declarations, whatever the widths of the layers.

    Examples
    --------
    >>> relu = Layer(Program("h = max(z, 0)"), None)
    >>> print_activations([relu, relu, Layer(None, None, "softmax")]).codes
    (0, 0, -1)
    """
    kinds, codes = _kinds(layers)
    values = _values(kinds)
    return Activations("\n".join([*(point.text for point in values), _activate(values)]), codes)


def print_pieces(
    layers: Sequence[Layer],
    output: Output,
    update: Program,
    *,
    states: Sequence[str],
    numbers: Iterable[str],
    penalty: Program | None = None,
    prices: Iterable[str] = (),
    weighted: bool = False,
    classes: bool = False,
) -> StepPieces:
    """Print the pieces of a training step.

    Parameters
    ----------
    layers : sequence of Layer
        Activations of the layers 2 ... L.
    output : Output
        Loss and BP1.
    update : Program
        The update rule, over ``theta``, ``g``, the states and the numbers; its outputs are ``theta`` and the states.
    states, numbers : sequence of str
        Names of the arrays and of the numbers of the update rule.
    penalty : Program, optional
        Updates ``g`` from ``g``, ``w`` and the prices.
    prices : iterable of str
        Names of the constants of the penalty.
    weighted, classes : bool
        Whether samples have weights; whether hits are counted.

    Returns
    -------
    StepPieces
        Equal text for equal declarations, whatever the widths of the layers.

    Examples
    --------
    >>> relu = Layer(Program("h = max(z, 0)"), Program("delta = delta * (1 if z > 0 else 0)"))
    >>> out = Output(Program("terms = scale * (h - y)**2"), Program("delta = scale * 2 * (h - y)"), "", True)
    >>> pieces = print_pieces([relu, relu], out, Program("theta = theta - eta*g"), states=(), numbers=("eta",))
    >>> pieces.codes, pieces.update.numbers
    ((0, 0), ('eta',))
    """
    kinds, codes = _kinds(layers)
    values = _values(kinds)
    deltas = [_point(layer.delta, f"backprop_{k}") for k, layer in enumerate(kinds)]
    both = Program({**dict(output.value.assignments), **dict(output.delta.assignments)}, outputs=("terms", "delta"))
    error = print_point(both, name="output_error_")
    rule = print_point(update, numbers, name="update_")
    price = print_point(penalty, prices, name="penalise_") if penalty is not None else None
    constants = {
        "int OUTPUT_ROWS": _ROWWISE[output.rowwise],
        "bool NEEDS_LOG": "logh" in both.inputs,
        "bool PAIRED": output.paired,
        "bool WEIGHTED": weighted,
        "bool CLASSES": classes,
        "bool PENALISED": price is not None,
        "int STATES": len(states),
        "int NUMBERS": len(rule.numbers),
    }
    places = {"theta": "theta", "g": "g", **{name: f"s[{k}]" for k, name in enumerate(states)}}
    results = ["theta", *(f"s[{k}]" for k in range(len(states)))]
    text = [f"constexpr {name} = {str(value).lower()};" for name, value in constants.items()]
    text += [point.text for point in (*values, *deltas, error, rule)]
    text += [
        _activate(values),
        _switch(
            "T backprop(int code, T delta, T z, T h)",
            deltas,
            "{call} return delta;",
            {"delta": "delta", "z": "z", "h": "h"},
            ["delta"],
        ),
        _function(
            "void output_error(T z, T h, T y, T logh, T scale, T& terms, T& delta)",
            _call(error, {name: name for name in ("z", "h", "y", "logh", "scale")}, ["terms", "delta"]),
        ),
        _function("void update(T& theta, T g, T* s, const T* v)", _call(rule, places, results, "v")),
    ]
    if price is None:
        text.append(_function("T penalise(T g, T w, const T* prices)", "return g;"))
    else:
        call = _call(price, {"g": "g", "w": "w"}, ["g"], "prices")
        text += [price.text, _function("T penalise(T g, T w, const T* prices)", f"{call} return g;")]
    return StepPieces("\n".join(text), codes, rule, price)


def _kinds(layers: Sequence[Layer]) -> tuple[list[Layer], tuple[int, ...]]:
    """Return the different element-wise activations, and the code of each layer."""
    kinds = list(dict.fromkeys(layer for layer in layers if not layer.rowwise))
    return kinds, tuple(-_ROWWISE[layer.rowwise] if layer.rowwise else kinds.index(layer) for layer in layers)


def _values(kinds: Sequence[Layer]) -> list[Point]:
    return [_point(layer.value, f"activate_{k}") for k, layer in enumerate(kinds)]


def _activate(values: Sequence[Point]) -> str:
    return _switch("T activate(int code, T z)", values, "T h; {call} return h;", {"z": "z"}, ["h"])


def _point(program: Program | None, name: str) -> Point:
    assert program is not None, "an activation that is not row-wise has formulas"
    return print_point(program, name=name)


def _call(point: Point, places: dict[str, str], results: Sequence[str], numbers: str = "") -> str:
    """Print a call: the arrays from their places, the numbers from a vector, the results by reference."""
    values = [places[name] for name in point.arrays] + [f"{numbers}[{k}]" for k in range(len(point.numbers))]
    return f"{point.name}({', '.join([*values, *results])});"


def _function(head: str, body: str) -> str:
    return f"DEVICE {head} {{\n    {body}\n}}\n"


def _switch(head: str, points: Sequence[Point], body: str, places: dict[str, str], results: Sequence[str]) -> str:
    """Print a function that chooses by its code, which is the same for all threads."""
    cases = [
        f"    if (code == {k}) {{ {body.format(call=_call(point, places, results))} }}"
        for k, point in enumerate(points)
    ]
    return f"DEVICE {head} {{\n" + "\n".join(cases) + "\n    return T(0);\n}\n"
