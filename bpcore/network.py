"""The network: widths, activations, and all parameters in one vector.

Layers are numbered 1 ... L as in the equations; layer 1 is the input. ``W[l]`` (n_l, n_{l+1}) and ``b[l]``
(n_{l+1},) carry the number of the layer that they leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bpcore.backends import get_backend, selection
from bpcore.backends.contract import Backend
from bpcore.data.arrays import host_array
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.functions.activations import Activation, get_activation
from bpcore.functions.initializers import Initializer, default_initializer, get_initializer, initialize
from bpcore.inference import ForwardSpec
from bpcore.inference.predictor import Predictor
from bpcore.layout import ByLayer, ParameterLayout
from bpcore.settings import check_dtype, check_seed, default_dtype, default_seed
from bpcore.typing import Array, FloatArray, NDArray

__all__ = ["MLP"]

ActivationLike = str | Activation


class MLP:
    """A multilayer perceptron.

    Parameters
    ----------
    sizes : sequence of int
        Widths n_1 ... n_L, from the number of inputs to the number of outputs; at least two.
    activation : str, Activation or sequence of them
        Activation of the hidden layers: one for all, or one for each of the layers 2 ... L-1. Default ``"relu"``.
    output : str or Activation
        Activation of layer L. Default ``"softmax"``.
    init : str, Initializer or sequence of them
        How parameters begin, for all or for each of the layers 1 ... L-1. ``"auto"`` (default) chooses by the
        activation that follows: He normal for the ReLU family, LeCun normal for SELU, Glorot uniform otherwise.
    seed : int, optional
        Seed of the initial parameters, the same on every backend. Default ``BPCORE_SEED``, else drawn afresh; kept
        in :attr:`seed`.
    dtype : dtype, optional
        float32 or float64. Default ``BPCORE_DTYPE``, else float32.
    backend : str or Backend, optional
        Backend to hold on to. Without it the network follows the selection in force at each call
        (``use_backend``, ``set_backend``, ``BPCORE_BACKEND``, automatic).

    Attributes
    ----------
    sizes : tuple of int
        The widths.
    n_layers : int
        L.
    activations : ByLayer of Activation
        ``activations[l]`` for l = 2 ... L.
    theta : Array
        All parameters, flat, on the backend's device. Write into it, do not replace it.
    W, b : ByLayer of Array
        Views into theta, for l = 1 ... L-1.
    meta : dict
        JSON-serialisable notes that are saved with the model (classes, preprocessing, ...).

    Raises
    ------
    ConfigurationError
        If a width is not a positive whole number, or the lists do not fit the number of layers.
    UnknownNameError
        If an activation, initialiser or backend is not known.

    Examples
    --------
    >>> net = MLP([784, 128, 10], activation="relu", output="softmax", seed=0)
    >>> net.n_parameters
    101770
    >>> net.W[1].shape, net.b[2].shape
    ((784, 128), (10,))
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        output: ActivationLike = "softmax",
        *,
        init: str | Initializer | Sequence[str | Initializer] = "auto",
        seed: int | None = None,
        dtype: Any = None,
        backend: str | Backend | None = None,
    ) -> None:
        self.sizes = _check_sizes(sizes)
        self.n_layers = len(self.sizes)
        hidden = _for_each(activation, self.n_layers - 2, "activation", f"hidden layers 2 ... {self.n_layers - 1}")
        self.activations = ByLayer([get_activation(name) for name in (*hidden, output)], first=2)
        self.seed = default_seed() if seed is None else check_seed(seed)
        self.dtype = default_dtype() if dtype is None else check_dtype(dtype)
        self.layout = ParameterLayout(self.sizes)
        self.meta: dict[str, Any] = {}
        self._predictors: dict[Backend, Predictor] = {}
        self._pinned = backend is not None
        self._preferred: Backend | None = None
        self._backend = get_backend(backend)
        self._place(self._backend.asarray(self._initial_theta(init)))

    def _initial_theta(self, init: str | Initializer | Sequence[str | Initializer]) -> NDArray[Any]:
        """Draw the parameters on the host in float64, so that they are the same on every backend."""
        steps = self.n_layers - 1
        theta = np.zeros(self.layout.size, np.float64)
        W, b = self.layout.views(theta, "W"), self.layout.views(theta, "b")
        for l, name in enumerate(_for_each(init, steps, "init", f"layers 1 ... {steps}"), start=1):
            chosen = default_initializer(self.activations[l + 1].name) if name == "auto" else get_initializer(name)
            W[l][...], b[l][...] = initialize(chosen, self.sizes[l - 1], self.sizes[l], seed=self.seed, layer=l)
        return theta.astype(self.dtype)

    def _place(self, theta: Array) -> None:
        aligned = self._backend.copy(theta, out=self._backend.empty(self.layout.size, self.dtype))
        self.theta: Array = aligned
        self.W: ByLayer[Array] = self.layout.views(aligned, "W")
        self.b: ByLayer[Array] = self.layout.views(aligned, "b")

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return self.layout.n_parameters

    @property
    def output(self) -> Activation:
        """Activation of the last layer."""
        return self.activations[self.n_layers]

    @property
    def backend(self) -> Backend:
        """The backend on whose device the parameters are now."""
        return self._backend

    @property
    def pinned(self) -> bool:
        """Whether the network holds on to its backend instead of following the selection in force."""
        return self._pinned

    def to(self, backend: str | Backend) -> MLP:
        """Move the parameters to a backend and hold on to it.

        Parameters
        ----------
        backend : str or Backend
            Where to compute from now on.

        Returns
        -------
        MLP
            This network. Views taken before a move to another device show the old copy.
        """
        self._pinned = True
        return self._move(get_backend(backend))

    def _move(self, backend: Backend) -> MLP:
        if backend is not self._backend:
            before, self._backend = self._backend, backend
            if not backend.owns(self.theta):
                self._place(backend.asarray(before.to_numpy(self.theta)))
        return self

    def on(self, backend: str | Backend | None = None) -> Backend:
        """Resolve the backend of one call and bring the parameters there.

        Parameters
        ----------
        backend : str or Backend, optional
            Explicit choice; without it the network's own, or the selection in force.

        Returns
        -------
        Backend
            The backend, which now holds :attr:`theta`.
        """
        if backend is not None or not self._pinned:
            chosen = get_backend(backend)
            if backend is None and self._preferred is not None and selection().automatic:
                chosen = self._preferred
            self._move(chosen)
        return self._backend

    def prefer(self, backend: Backend) -> Backend:
        """Bring the parameters to a backend, and let them stay as long as the choice is automatic.

        Parameters
        ----------
        backend : Backend
            What was found to be the fastest for this network.

        Returns
        -------
        Backend
            The same.
        """
        self._preferred = backend
        self._move(backend)
        return backend

    # ---------------------------------------------------------------- parameters

    def get_weights(self) -> list[tuple[FloatArray, FloatArray]]:
        """Copy the parameters to the host as a list of (W, b), first layer first."""
        theta = self._backend.to_numpy(self.theta)
        W, b = self.layout.views(theta, "W"), self.layout.views(theta, "b")
        return [(W[l].copy(), b[l].copy()) for l in W.layers]

    def set_weights(self, weights: Iterable[tuple[Any, Any]]) -> MLP:
        """Replace all parameters.

        Parameters
        ----------
        weights : iterable of (W, b)
            One pair for each of the layers 1 ... L-1, of shapes (n_l, n_{l+1}) and (n_{l+1},).

        Returns
        -------
        MLP
            This network.

        Raises
        ------
        ShapeError
            If the number of pairs or a shape does not fit; nothing is changed then.
        DataError
            If a number is not finite; nothing is changed then.
        """
        pairs = [tuple(pair) for pair in weights]
        if len(pairs) != self.n_layers - 1 or any(len(pair) != 2 for pair in pairs):
            raise ShapeError(
                f"set_weights needs {self.n_layers - 1} pairs (W, b) for a network of sizes {list(self.sizes)}; "
                f"got {len(pairs)}"
            )
        theta = np.zeros(self.layout.size, self.dtype)
        for block in self.layout.blocks:
            name = f"{block.name}[{block.layer}]"
            given = host_array(pairs[block.layer - 1][0 if block.name == "W" else 1], name=name)
            if given.shape != block.shape:
                raise ShapeError(
                    f"{name} has shape {given.shape}; expected {block.shape} in a network of sizes {list(self.sizes)}"
                )
            with np.errstate(over="ignore"):
                self.layout.view(theta, block)[...] = given
        if not np.isfinite(theta).all():
            raise DataError("set_weights got numbers that are not finite (or not finite in the network's dtype)")
        self._backend.copy(self._backend.asarray(theta), out=self.theta)
        return self

    # ---------------------------------------------------------------- use

    def predict(
        self, X: Any, *, out: Array | None = None, backend: str | Backend | None = None, stream: Any = None
    ) -> Array:
        """Compute the outputs for every row.

        What is on the host does not have to fit on the device: more than 64 MiB go there a block of rows at a time, as
        do the rows of a :class:`numpy.memmap` that has to be converted.

        Several threads may call it at the same time. With ``out``, and an X that needs no conversion (C-contiguous,
        of the network's dtype), nothing is allocated after the first calls.

        Parameters
        ----------
        X : array_like, shape (m, n_1)
            Samples as rows, on the host or on the backend's device.
        out : Array, shape (m, n_L), optional
            Receives the outputs; of the network's dtype, where X is. May be X itself; on an accelerator it must not
            overlap X otherwise. If X is refused because of its values, some rows may have been written.
        backend : str or Backend, optional
            Where to compute; see :meth:`on`.
        stream : optional
            CUDA stream to queue the work on; see :class:`bpcore.Trainer`.

        Returns
        -------
        Array, shape (m, n_L)
            H[L], in the network's dtype, where X was: a NumPy array for data on the host. The object ``out``, if
            that was given.

        Raises
        ------
        ShapeError
            If X is not a matrix of n_1 columns, or out does not fit.
        DataError
            If X is empty or not finite.

        Examples
        --------
        >>> net = MLP([2, 3, 1], output="sigmoid", seed=1)
        >>> net.predict([[0.0, 1.0], [1.0, 1.0]]).shape
        (2, 1)
        """
        be = self.on(backend)
        if stream is not None:
            with be.on_stream(stream):
                return self.predict(X, out=out, backend=be)
        predictor = self._predictors.get(be)
        if predictor is None:
            spec = ForwardSpec(self.layout, self.sizes, tuple(self.activations), self.dtype)
            predictor = self._predictors[be] = Predictor(be, spec)
        return predictor(self.theta, X, out)

    def predict_classes(self, X: Any, *, backend: str | Backend | None = None) -> NDArray[np.int64]:
        """Predict the class of every row.

        Parameters
        ----------
        X : array_like, shape (m, n_1)
            Samples as rows.
        backend : str or Backend, optional
            Where to compute; see :meth:`on`.

        Returns
        -------
        ndarray of int64, shape (m,)
            The first largest output; with a single output, whether it is above :attr:`threshold`.
        """
        H = self._backend.to_numpy(self.predict(X, backend=backend))
        if H.shape[1] > 1:
            return np.asarray(H.argmax(axis=1), np.int64)
        return (H[:, 0] > self.threshold).astype(np.int64)

    @property
    def threshold(self) -> float:
        """Output above which a network with one output says class 1; training with a loss decides it.

        Before, it is the middle of the range of the output activation: 1/2 for sigmoid, 0 for tanh and identity.
        """
        return float(self.meta.get("threshold", 0.5 if self.output.range == (0, 1) else 0.0))

    def evaluate(
        self,
        X: Any,
        Y: Any = None,
        loss: Any = None,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        backend: str | Backend | None = None,
        stream: Any = None,
    ) -> dict[str, float]:
        """Measure the loss and the metrics that go with the targets; see :func:`bpcore.evaluation.evaluate`."""
        from bpcore.evaluation import evaluate

        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        return evaluate(self, X, Y, loss, **weights, backend=backend, stream=stream)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file; see :func:`bpcore.save`. :func:`bpcore.load` reads it back."""
        from bpcore.persistence.model_file import save_model

        save_model(self, path)

    def copy(self) -> MLP:
        """Return an independent network with the same parameters, on the same backend."""
        from copy import deepcopy

        twin = object.__new__(MLP)
        twin.__dict__.update(self.__dict__)
        twin.meta = deepcopy(self.meta)
        twin._place(self.theta)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state = {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("W", "b", "_backend", "_preferred", "theta", "_predictors")
        }
        # a pickled network may be loaded where its backend does not exist: parameters travel on the host
        return {**state, "theta": self._backend.to_numpy(self.theta), "backend": self._backend.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from bpcore.errors import BpcoreError

        theta, backend = state.pop("theta"), state.pop("backend")
        self.__dict__.update(state, _predictors={}, _preferred=None)
        try:
            self._backend = get_backend(backend)
        except BpcoreError:
            self._backend, self._pinned = get_backend(None), False
        self._place(self._backend.asarray(theta))

    def __repr__(self) -> str:
        names = ", ".join(activation.name for activation in self.activations)
        return (
            f"MLP({list(self.sizes)}, {names}; {self.n_parameters:,} parameters, {self.dtype} on {self._backend.name})"
        )


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        widths = tuple(sizes)
    except TypeError:
        widths = ()
    if len(widths) < 2:
        raise ConfigurationError(
            f"sizes must list at least the inputs and the outputs, such as [784, 10]; got {sizes!r}"
        )
    for layer, width in enumerate(widths, start=1):
        if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
            raise ConfigurationError(
                f"layer {layer} has width {width!r}; every width must be a whole number of at least 1 "
                f"(sizes {list(widths)})"
            )
    return tuple(int(width) for width in widths)


def _for_each(value: Any, count: int, what: str, layers: str) -> list[Any]:
    """Repeat a single value, or check that a list has one entry for each layer."""
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise ConfigurationError(f"{what} lists {len(value)} entries; {count} are needed, one for each of {layers}")
        return list(value)
    return [value] * count
