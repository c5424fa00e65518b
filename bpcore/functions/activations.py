"""Activation functions: one declaration each.

Every activation promises: its formula is finite for ``|z| <= 1e4`` in float32; infinities map to the mathematical
limit and NaN stays NaN; its derivative is written in ``z`` and, where that is cheaper or safer, in ``h``, the saved
output. An activation is element-wise, or works on whole rows (softmax, log-softmax), in which case the backends
implement it and its Jacobian by name.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field
from functools import cached_property, partial
from typing import Literal

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.declaration import check_derivative, sample_points
from bpcore.functions.formula import Formula

__all__ = ["ACTIVATIONS", "Activation", "get_activation"]

Interval = tuple[float, float]
REALS: Interval = (-math.inf, math.inf)


@dataclass(frozen=True)
class Activation:
    """An activation function ``h = act(z)``.

    Parameters
    ----------
    name : str
        Name in error messages, records and model files.
    formula : str
        The function of ``z`` in the language of :mod:`bpcore.functions.formula`. Empty for row-wise functions.
    derivative : str, optional
        The derivative in ``z`` and ``h`` (the output). Derived symbolically when not given; compared with
        central differences when given.
    range : (float, float)
        Interval in which the outputs lie; losses check it against the predictions that they accept.
    domain : (float, float)
        Interval of ``z`` in which the function is defined and probed.
    differentiable : bool
        False for functions that can only be used forward, such as ``step``.
    rowwise : ``""``, ``"softmax"`` or ``"log_softmax"``
        The row operation of the backends that implements it.
    source : str
        Where the formula comes from.
    check : bool
        Whether to parse the formulas and compare the derivative with differences now. The built-in declarations are
        compared by the test suite instead of at every import.

    Raises
    ------
    FormulaError
        If a formula is not in the language, or the derivative given is wrong.

    Examples
    --------
    >>> swish = Activation("my_swish", "z / (1 + exp(-z))")
    >>> print(swish.derivative_formula)
    sigmoid(z) + z * (sigmoid(z) * sigmoid(-z))
    >>> Activation("wrong", "tanh(z)", derivative="1 - h")
    Traceback (most recent call last):
        ...
    bpcore.errors.FormulaError: activation 'wrong': the given derivative 1 - h is 2 at z = -7.86507, \
but differences of tanh(z) give 5.89588e-07. Correct it, or leave it out to have it derived.
    """

    name: str
    formula: str
    derivative: str | None = None
    range: Interval = REALS
    domain: Interval = REALS
    differentiable: bool = True
    rowwise: Literal["", "softmax", "log_softmax"] = ""
    source: str = field(default="", compare=False)
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        if self.rowwise or not check:
            return
        formula = self.value_formula.expr
        if self.differentiable:
            derivative = self.derivative_formula.expr
            points = {"z": sample_points(*self.domain)}
            check_derivative(
                f"activation {self.name!r}", formula, derivative, "z", points, given=self.derivative is not None
            )

    @cached_property
    def value_formula(self) -> Formula:
        """The function as a formula in ``z``."""
        return Formula(self.formula, ["z"])

    @cached_property
    def derivative_formula(self) -> Formula:
        """The derivative as a formula in ``z`` and ``h``.

        Raises
        ------
        ConfigurationError
            If the function is forward only.
        """
        if not self.differentiable:
            raise ConfigurationError(
                f"activation {self.name!r} has no useful derivative: it can be used in forward and predict only"
            )
        if self.derivative is not None:
            return Formula(self.derivative, ["z", "h"])
        return self.value_formula.derivative("z")


_SQRT_HALF = "0.7071067811865476"
_GELU_TANH = "0.7978845608028654 * (z + 0.044715 * z**3)"

_builtin = partial(Activation, check=False)

_DECLARATIONS = (
    _builtin("identity", "z", source="linear output"),
    _builtin(
        "step",
        "where(z >= 0, 1, where(z < 0, 0, z))",
        range=(0, 1),
        differentiable=False,
        source="Rosenblatt 1958; the last branch hands NaN on",
    ),
    _builtin("sigmoid", "sigmoid(z)", "h * (1 - h)", range=(0, 1), source="logistic function 1 / (1 + exp(-z))"),
    _builtin("tanh", "tanh(z)", "1 - h*h", range=(-1, 1), source="hyperbolic tangent"),
    _builtin("relu", "max(z, 0)", "where(z > 0, 1, 0)", range=(0, math.inf), source="Nair & Hinton 2010"),
    _builtin("leaky_relu", "max(z, 0) + 0.01 * min(z, 0)", "where(z > 0, 1, 0.01)", source="Maas, Hannun & Ng 2013"),
    _builtin(
        "elu", "where(z > 0, z, expm1(z))", "where(z > 0, 1, h + 1)", range=(-1, math.inf), source="Clevert et al. 2015"
    ),
    _builtin(
        "selu",
        "1.0507009873554805 * where(z > 0, z, 1.6732632423543772 * expm1(z))",
        "where(z > 0, 1.0507009873554805, h + 1.7580993408473766)",
        range=(-1.7580993408473766, math.inf),
        source="Klambauer et al. 2017",
    ),
    # below -1000 the product of z with a vanishing factor is 0 in every precision; the bound keeps -inf * 0 away
    _builtin(
        "gelu",
        f"0.5 * max(z, -1000) * erfc(-{_SQRT_HALF} * z)",
        f"0.5 * erfc(-{_SQRT_HALF} * z) + 0.3989422804014327 * clip(z, -1000, 1000) * exp(-0.5 * z*z)",
        range=(-0.17, math.inf),
        source="Hendrycks & Gimpel 2016, exact form z * Phi(z)",
    ),
    _builtin(
        "gelu_tanh",
        f"max(z, -1000) * sigmoid(2 * {_GELU_TANH})",
        f"sigmoid(2 * {_GELU_TANH})"
        " + clip(z, -1000, 1000) * (1.5957691216057308 + 0.21406444881780073 * clip(z, -1000, 1000)**2)"
        f" * sigmoid(2 * {_GELU_TANH}) * sigmoid(-2 * {_GELU_TANH})",
        range=(-0.171, math.inf),
        source="Hendrycks & Gimpel 2016, tanh form; 0.5 * (1 + tanh(u)) = sigmoid(2 * u)",
    ),
    _builtin(
        "silu",
        "max(z, -1000) * sigmoid(z)",
        "sigmoid(z) + clip(z, -1000, 1000) * sigmoid(z) * sigmoid(-z)",
        range=(-0.2785, math.inf),
        source="Elfwing et al. 2017; swish of Ramachandran et al. 2017 with beta = 1",
    ),
    _builtin("softplus", "softplus(z)", "sigmoid(z)", range=(0, math.inf), source="log(1 + exp(z)), Dugas et al. 2000"),
    _builtin(
        "mish",
        "max(z, -1000) * tanh(softplus(z))",
        "tanh(softplus(z)) + clip(z, -1000, 1000) * (1 - tanh(softplus(z))**2) * sigmoid(z)",
        range=(-0.309, math.inf),
        source="Misra 2019",
    ),
    _builtin(
        "hard_sigmoid",
        "clip(z / 6 + 0.5, 0, 1)",
        "where(abs(z) < 3, 0.16666666666666666, 0)",
        range=(0, 1),
        source="Courbariaux et al. 2015, slope 1/6",
    ),
    _builtin("hard_tanh", "clip(z, -1, 1)", "where(abs(z) < 1, 1, 0)", range=(-1, 1), source="Collobert 2004"),
    _builtin("softmax", "", rowwise="softmax", range=(0, 1), source="exp(z_j) / sum_k exp(z_k), Bridle 1990"),
    _builtin("log_softmax", "", rowwise="log_softmax", range=(-math.inf, 0), source="z_j - log(sum_k exp(z_k))"),
)

ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in _DECLARATIONS}
"""The built-in activations by name."""

ALIASES = {"swish": "silu", "linear": "identity", "logistic": "sigmoid"}


def get_activation(activation: str | Activation) -> Activation:
    """Look an activation up by name; an :class:`Activation` is returned as it is.

    Raises
    ------
    UnknownNameError
        If there is no activation of that name.
    """
    if isinstance(activation, Activation):
        return activation
    name = ALIASES.get(activation, activation) if isinstance(activation, str) else activation
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise unknown("activation", activation, [*ACTIVATIONS, *ALIASES])
    return ACTIVATIONS[name]
