"""Initialisers: where the first weights and biases of a layer come from.

Each is one declaration: a name, the distribution of W and of b as formulas in ``n_in`` and ``n_out`` (the
widths of the layers before and after), and the source. Numbers are drawn on the host, in float64, so a
network has the same initial parameters on every backend.

Which random number goes where is a contract (see :mod:`bpcore.random`): layer l draws with purpose WEIGHTS
and ``layer=l``; element (i, j) of ``W[l]`` uses draw ``i * n_out + j`` and element j of ``b[l]`` uses draw
``n_in * n_out + j`` of its distribution, whether that is uniform or normal. An orthogonal W starts from a
normal matrix of shape (max(n_in, n_out), min(n_in, n_out)) filled from the draws 0, 1, ... in C order.

An initialiser of one's own:

>>> small = Initializer("small", W=Normal("0.1 / sqrt(n_in)"))
>>> W, b = initialize(small, 3, 2, seed=0, layer=1)
>>> W.shape, b.tolist()
((3, 2), [0.0, 0.0])
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.formula import Formula
from bpcore.functions.ranges import check_count, check_number
from bpcore.random import Purpose, normal, uniform

__all__ = [
    "ALIASES",
    "INITIALIZERS",
    "Distribution",
    "Fill",
    "Initializer",
    "Normal",
    "Orthogonal",
    "Uniform",
    "constant",
    "default_initializer",
    "get_initializer",
    "initialize",
    "orthogonal",
]

WIDTHS = ("n_in", "n_out")


@dataclass(frozen=True)
class Distribution:
    """Base of the four distributions: one number that may depend on the widths of the layer.

    Parameters
    ----------
    scale : str or float
        A formula in ``n_in`` and ``n_out``, or a number.

    Raises
    ------
    FormulaError
        If the formula uses other names.
    """

    scale: str | float

    def __post_init__(self) -> None:
        if isinstance(self.scale, str):
            Formula(self.scale, WIDTHS)
        else:
            check_number(f"{type(self).__name__}: scale", self.scale)

    def value(self, n_in: int, n_out: int) -> float:
        """Evaluate the number for one layer; refuse one that is not finite."""
        if not isinstance(self.scale, str):
            return float(self.scale)
        result = float(Formula(self.scale)(n_in=float(n_in), n_out=float(n_out)))
        if not math.isfinite(result):
            raise ConfigurationError(f"{self.scale!r} is {result} at n_in={n_in}, n_out={n_out}; it must be finite")
        return result

    def draw(
        self, shape: tuple[int, ...], n_in: int, n_out: int, *, seed: int, layer: int, offset: int
    ) -> NDArray[np.float64]:
        """Return an array of `shape` made from the draws offset, offset + 1, ... in C order."""
        raise NotImplementedError


class Normal(Distribution):
    """The normal distribution with mean 0; `scale` is the standard deviation.

    Examples
    --------
    >>> Normal("sqrt(2 / n_in)").value(n_in=8, n_out=3)
    0.5
    """

    def draw(
        self, shape: tuple[int, ...], n_in: int, n_out: int, *, seed: int, layer: int, offset: int
    ) -> NDArray[np.float64]:
        """Draw from N(0, scale**2)."""
        x = normal(math.prod(shape), seed=seed, purpose=Purpose.WEIGHTS, layer=layer, offset=offset)
        return (self.value(n_in, n_out) * x).reshape(shape)


class Uniform(Distribution):
    """The uniform distribution on (-scale, scale).

    Examples
    --------
    >>> Uniform("sqrt(6 / (n_in + n_out))").value(n_in=4, n_out=2)
    1.0
    """

    def draw(
        self, shape: tuple[int, ...], n_in: int, n_out: int, *, seed: int, layer: int, offset: int
    ) -> NDArray[np.float64]:
        """Draw from U(-scale, scale)."""
        u = uniform(math.prod(shape), seed=seed, purpose=Purpose.WEIGHTS, layer=layer, offset=offset)
        return (self.value(n_in, n_out) * (2.0 * u - 1.0)).reshape(shape)


class Orthogonal(Distribution):
    """A matrix whose shorter side is orthonormal, times `scale` (the gain)."""

    def draw(
        self, shape: tuple[int, ...], n_in: int, n_out: int, *, seed: int, layer: int, offset: int
    ) -> NDArray[np.float64]:
        """Orthogonalise a normal matrix; with signs fixed, all such matrices are equally likely."""
        if len(shape) != 2:
            raise ConfigurationError(f"Orthogonal makes matrices; it cannot fill an array of shape {shape}")
        x = normal(math.prod(shape), seed=seed, purpose=Purpose.WEIGHTS, layer=layer, offset=offset)
        Q, R = np.linalg.qr(x.reshape(max(shape), min(shape)))
        Q *= np.where(np.diagonal(R) < 0, -1.0, 1.0)
        W = Q if shape[0] >= shape[1] else Q.T
        return np.ascontiguousarray(self.value(n_in, n_out) * W)


class Fill(Distribution):
    """No randomness: every element is `scale`."""

    def draw(
        self, shape: tuple[int, ...], n_in: int, n_out: int, *, seed: int, layer: int, offset: int
    ) -> NDArray[np.float64]:
        """Fill with the value."""
        return np.full(shape, self.value(n_in, n_out))


_ZERO = Fill(0.0)


@dataclass(frozen=True)
class Initializer:
    """How a layer's weights and biases start.

    Parameters
    ----------
    name : str
        A word for records and messages.
    W : Distribution
        Distribution of the weights.
    b : Distribution, default Fill(0.0)
        Distribution of the biases; not :class:`Orthogonal`.
    source : str, default ""
        Where it comes from.

    Raises
    ------
    ConfigurationError
        If W or b is not a distribution, or b is orthogonal.

    Examples
    --------
    >>> get_initializer("he_normal").W
    Normal(scale='sqrt(2 / n_in)')
    """

    name: str
    W: Distribution
    b: Distribution = _ZERO
    source: str = ""

    def __post_init__(self) -> None:
        for letter, value in (("W", self.W), ("b", self.b)):
            if not isinstance(value, Distribution):
                raise ConfigurationError(
                    f"initializer {self.name!r}: {letter} must be Normal, Uniform, Orthogonal or Fill, got {value!r}"
                )
        if isinstance(self.b, Orthogonal):
            raise ConfigurationError(f"initializer {self.name!r}: biases are a vector and cannot be orthogonal")


def constant(value: float, bias: float = 0.0) -> Initializer:
    """Every weight `value`, every bias `bias`.

    Raises
    ------
    ConfigurationError
        If a value is not finite.

    Examples
    --------
    >>> W, b = initialize(constant(0.5), 2, 2, seed=0, layer=1)
    >>> W.tolist(), b.tolist()
    ([[0.5, 0.5], [0.5, 0.5]], [0.0, 0.0])
    """
    return Initializer("constant", Fill(value), Fill(bias))


def orthogonal(gain: float = 1.0) -> Initializer:
    """Orthogonal weights times `gain`, biases 0.

    Raises
    ------
    ConfigurationError
        If the gain is not finite.

    Notes
    -----
    A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014.

    Examples
    --------
    >>> W, _ = initialize(orthogonal(2.0), 3, 3, seed=0, layer=1)
    >>> bool(np.allclose(W @ W.T, 4 * np.eye(3)))
    True
    """
    return Initializer("orthogonal", Orthogonal(gain), source="Saxe, McClelland, Ganguli 2014")


_NIELSEN = "M. Nielsen, Neural Networks and Deep Learning, 2015, chapter 3"
_GLOROT = "X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010"
_HE = "K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, 2015"
_LECUN = "Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller, Efficient backprop, 1998"

INITIALIZERS: dict[str, Initializer] = {
    declared.name: declared
    for declared in (
        Initializer("standard_normal", Normal(1.0), Normal(1.0), _NIELSEN),
        Initializer("improved", Normal("1 / sqrt(n_in + 1)"), Normal("1 / sqrt(n_in + 1)"), _NIELSEN),
        Initializer("glorot_normal", Normal("sqrt(2 / (n_in + n_out))"), source=_GLOROT),
        Initializer("glorot_uniform", Uniform("sqrt(6 / (n_in + n_out))"), source=_GLOROT),
        Initializer("he_normal", Normal("sqrt(2 / n_in)"), source=_HE),
        Initializer("he_uniform", Uniform("sqrt(6 / n_in)"), source=_HE),
        Initializer("lecun_normal", Normal("sqrt(1 / n_in)"), source=_LECUN),
        Initializer("lecun_uniform", Uniform("sqrt(3 / n_in)"), source=_LECUN),
        orthogonal(),
        Initializer("zeros", Fill(0.0)),
    )
}
"""The built-in initialisers by name. ``improved`` makes the standard deviation of z about 1."""

ALIASES: dict[str, str] = {
    "nielsen": "improved",
    "normal_scaled": "improved",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
}

_RECTIFIERS = frozenset("relu leaky_relu elu gelu gelu_tanh silu swish mish softplus".split())


def get_initializer(name: str | Initializer) -> Initializer:
    """Find an initialiser by name; an :class:`Initializer` is returned as it is.

    Raises
    ------
    UnknownNameError
        If no initialiser has that name.

    Examples
    --------
    >>> get_initializer("xavier_uniform").name
    'glorot_uniform'
    """
    if isinstance(name, Initializer):
        return name
    try:
        return INITIALIZERS[ALIASES.get(name, name)]
    except (KeyError, TypeError):
        raise unknown("initializer", name, (*INITIALIZERS, *ALIASES)) from None


def default_initializer(activation: str) -> Initializer:
    """Return what ``init="auto"`` means: the initialiser that suits the activation that follows.

    Parameters
    ----------
    activation : str
        Name of the activation of the layer that the weights lead to.

    Returns
    -------
    Initializer
        ``he_normal`` for ReLU and its relatives (leaky_relu, elu, gelu, gelu_tanh, silu, mish, softplus), of
        which half of the inputs are about 0; ``lecun_normal`` for selu, whose fixed point of mean 0 and
        variance 1 assumes it; ``glorot_uniform`` for all others.

    Notes
    -----
    He et al. 2015, section 2.2; G. Klambauer et al., "Self-normalizing neural networks", 2017, section 2;
    Glorot and Bengio 2010, equation 16.

    Examples
    --------
    >>> [default_initializer(name).name for name in ("relu", "selu", "tanh")]
    ['he_normal', 'lecun_normal', 'glorot_uniform']
    """
    if activation in _RECTIFIERS:
        return INITIALIZERS["he_normal"]
    return INITIALIZERS["lecun_normal" if activation == "selu" else "glorot_uniform"]


def initialize(
    initializer: str | Initializer, n_in: int, n_out: int, *, seed: int, layer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make the initial parameters of one layer.

    Parameters
    ----------
    initializer : str or Initializer
        What to draw from.
    n_in, n_out : int
        Widths of the layer before and after, at least 1.
    seed : int
        From 0 to 2**64 - 1.
    layer : int
        Number l of the layer that the parameters leave, from 1.

    Returns
    -------
    W : ndarray of float64, shape (n_in, n_out)
        Weights.
    b : ndarray of float64, shape (n_out,)
        Biases.

    Raises
    ------
    UnknownNameError
        If no initialiser has that name.
    ConfigurationError
        If a width is not a positive integer, or seed or layer is out of range.

    Examples
    --------
    >>> W, b = initialize("improved", 1000, 30, seed=0, layer=1)
    >>> W.shape, b.shape, round(float(W.std() * 1001 ** 0.5), 1)
    ((1000, 30), (30,), 1.0)
    """
    declared = get_initializer(initializer)
    for letter, width in (("n_in", n_in), ("n_out", n_out)):
        check_count(letter, width, 1)
    W = declared.W.draw((n_in, n_out), n_in, n_out, seed=seed, layer=layer, offset=0)
    b = declared.b.draw((n_out,), n_in, n_out, seed=seed, layer=layer, offset=n_in * n_out)
    return W, b
