"""What both estimators are: the order of a fit, and the attributes of scikit-learn's multilayer perceptron."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from bpcore.backends.contract import Backend
from bpcore.data.weights import check_sample_weight
from bpcore.errors import ConfigurationError, DataError
from bpcore.estimators.fitting import Data, fit_full_batch, fit_stochastic
from bpcore.estimators.initial import begin
from bpcore.estimators.inputs import dense, validated
from bpcore.estimators.outputs import name_of_output
from bpcore.estimators.parameters import check_parameters, hidden_sizes
from bpcore.estimators.rules import solver_of
from bpcore.estimators.steps import Memory, Steps
from bpcore.functions.activations import Activation, get_activation
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.losses import Loss
from bpcore.network import MLP
from bpcore.typing import FloatArray, NDArray

__all__ = ["BaseMLP"]


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators; see :class:`~bpcore.estimators.MLPClassifier` for parameters and attributes."""

    _y_numeric: bool
    net_: MLP
    _steps: Steps | None = None  # alive between calls of partial_fit
    _memory: Memory | None = None

    def _keep_parameters(self, given: dict[str, Any]) -> None:
        """Make attributes of the arguments of a constructor, as scikit-learn wants them: untouched."""
        for name in self._get_param_names():
            setattr(self, name, given[name])

    @abstractmethod
    def _learn_targets(self, y: Any, first: bool, incremental: bool) -> None:
        """Look at the targets of a call, and learn from the first."""

    @abstractmethod
    def _chosen(self) -> tuple[Loss, Activation, int]:
        """Return loss, output activation, and number of outputs."""

    @abstractmethod
    def _targets(self, y: Any, loss: Loss) -> NDArray[Any]:
        """Return targets as bpcore trains on."""

    @abstractmethod
    def _row_weights(self, y: Any, sample_weight: NDArray[Any] | None, incremental: bool) -> NDArray[Any] | None:
        """Multiply the weights of the samples by those of their classes."""

    @abstractmethod
    def _scorer(self, y: Any, weights: Any) -> Callable[[FloatArray], float] | None:
        """Return the score of outputs for these targets, where it is not measured with the loss."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Any, incremental: bool) -> Any:
        check_parameters(self)
        if incremental and self.early_stopping:
            raise ConfigurationError("partial_fit does not support early_stopping=True")
        first = not hasattr(self, "net_") or not (self.warm_start or incremental)
        X, y = self._validated(X, y, reset=first)
        if sample_weight is not None:
            if not np.any(np.asarray(sample_weight)):  # the word that scikit-learn's checks look for is zero
                raise DataError("every sample_weight is zero, so nothing would be learned; some must be positive")
            sample_weight = check_sample_weight(sample_weight, n_rows=X.shape[0])
        self._learn_targets(y, first, incremental)
        weights = self._row_weights(y, sample_weight, incremental)
        loss, output, n_outputs = self._chosen()
        solver = solver_of(self)
        sizes = [X.shape[1], *hidden_sizes(self.hidden_layer_sizes), n_outputs]
        rng = check_random_state(self.random_state)
        if first:
            self._begin(sizes, output, X.dtype, rng)
        elif list(self.net_.sizes) != sizes:
            raise ConfigurationError(
                f"training goes on with the network of the last call, of sizes {list(self.net_.sizes)}, but parameters "
                f"and data now ask for {sizes}; set warm_start=False, or use a fresh estimator (sklearn.base.clone)"
            )
        if not incremental:
            self._steps = self._memory = None
        names = self.net_.meta.pop("classes", None)  # labels are numbers while bpcore trains
        try:
            keeps_all = incremental or isinstance(solver, ScipyMinimize)
            data = self._divided(dense(X), y, weights, validation, rng, keeps_all)
            data.Y = self._targets(data.y, loss)
            if data.y_val is not None:
                data.Y_val, data.score = self._targets(data.y_val, loss), self._scorer(data.y_val, data.weights_val)
            if isinstance(solver, ScipyMinimize):
                fit_full_batch(self, data, loss, solver)
            else:
                fit_stochastic(self, data, loss, solver, rng, incremental)
        finally:
            if names is not None:
                self.net_.meta["classes"] = names
        self._note()
        return self

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Check data as scikit-learn does; X gets the dtype of the network."""
        dtype: list[Any] = [np.float64, np.float32]
        if not reset:
            dtype = [self.net_.dtype]
        elif self.dtype is not None:
            dtype = [np.dtype(self.dtype)]
        return validated(  # type: ignore[no-any-return]
            self, X, y, multi_output=True, y_numeric=self._y_numeric, dtype=dtype, order="C", reset=reset
        )

    def _begin(self, sizes: list[int], output: Activation, dtype: Any, rng: np.random.RandomState) -> None:
        """Make the network, and begin all that is counted."""
        given = self.activation
        n_hidden = len(sizes) - 2
        if isinstance(given, str | Activation):
            given = [given] * n_hidden
        hidden = [get_activation(activation) for activation in given]
        if len(hidden) != n_hidden:
            raise ConfigurationError(f"activation lists {len(hidden)} activations for {n_hidden} hidden layers")
        self.net_ = begin(sizes, hidden, output, self.init, rng, np.dtype(dtype), self.backend)
        self.n_layers_, self.n_outputs_, self.out_activation_ = len(sizes), sizes[-1], name_of_output(output)
        self.n_iter_, self.t_, self._no_improvement_count = 0, 0, 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []
        self.best_loss_: float | None = np.inf
        self.validation_scores_: list[float] | None = None
        self.best_validation_score_: float | None = None
        if self.early_stopping:
            self.best_loss_, self.validation_scores_, self.best_validation_score_ = None, [], -np.inf

    def _divided(
        self, X: Any, y: Any, weights: Any, validation: Any, rng: np.random.RandomState, keeps_all: bool
    ) -> Data:
        """Set validation data aside: the user's, or a part of the samples, drawn as scikit-learn does."""
        if validation is not None:
            try:
                X_val, y_val = validation
            except (TypeError, ValueError):
                raise DataError("validation must be a pair (X, y)") from None
            X_val, y_val = self._validated(X_val, y_val, reset=False)
            y_val = self._checked_validation(y_val)
            if self.validation_scores_ is None:
                self.validation_scores_ = []
            return Data(X, y, weights, dense(X_val), y_val)
        if keeps_all or not self.early_stopping:
            return Data(X, y, weights)
        stratify = self._strata(y)
        train, held = train_test_split(
            np.arange(len(X)), random_state=rng, test_size=self.validation_fraction, stratify=stratify
        )
        if len(held) < 2:
            raise DataError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        parts = (None, None) if weights is None else (weights[train], weights[held])
        return Data(X[train], y[train], parts[0], X[held], y[held], parts[1])

    def _checked_validation(self, y: Any) -> Any:
        """Refuse validation targets that do not fit."""
        return y

    def _strata(self, y: Any) -> Any:
        """Return what a split keeps the shares of; None for nothing."""
        return None

    def _batch(self, n: int) -> int:
        """Return the number of samples of a step."""
        if isinstance(self.batch_size, str):
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
            )
        return min(int(self.batch_size), n)

    def _note(self) -> None:
        """Write into the network what a program that loads it must know of the data."""
        if hasattr(self, "feature_names_in_"):
            self.net_.meta["feature_names"] = [str(name) for name in self.feature_names_in_]

    # ---------------------------------------------------------------- attributes

    @property
    def coefs_(self) -> list[FloatArray]:
        """Weights of the layers, copies that are read-only; a list of new ones may be assigned."""
        return _read_only(W for W, _ in self.net_.get_weights())

    @coefs_.setter
    def coefs_(self, values: Any) -> None:
        self.net_.set_weights(zip(values, self.intercepts_, strict=True))

    @property
    def intercepts_(self) -> list[FloatArray]:
        """Biases of the layers, as :attr:`coefs_`."""
        return _read_only(b for _, b in self.net_.get_weights())

    @intercepts_.setter
    def intercepts_(self, values: Any) -> None:
        self.net_.set_weights(zip(self.coefs_, values, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        steps = state.get("_steps")
        if steps is not None:  # a trainer stays where its device is
            state |= {"_memory": steps.remember(), "_steps": None}
        if isinstance(self.backend, Backend):
            state["backend"] = self.backend.name
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _read_only(arrays: Any) -> list[FloatArray]:
    found = list(arrays)
    for array in found:
        array.flags.writeable = False  # writing into a copy would be lost in silence
    return found
