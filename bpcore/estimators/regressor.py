"""The regressor: a drop-in for :class:`sklearn.neural_network.MLPRegressor`, and more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from bpcore.backends.contract import Backend
from bpcore.errors import DataError
from bpcore.estimators.base import BaseMLP
from bpcore.estimators.inputs import outputs_of
from bpcore.estimators.outputs import regression
from bpcore.estimators.rules import takes_batches
from bpcore.functions.activations import Activation
from bpcore.functions.clipping import Clipping
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.initializers import Initializer
from bpcore.functions.losses import Loss
from bpcore.functions.schedule import Schedule
from bpcore.functions.update_rule import UpdateRule
from bpcore.training.callbacks import CallbackLike
from bpcore.training.spec import Dropout
from bpcore.typing import FloatArray, NDArray

__all__ = ["MLPRegressor"]


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A multilayer perceptron that predicts numbers, with the interface of scikit-learn.

    Up to ``max_fun`` the parameters are those of :class:`sklearn.neural_network.MLPRegressor` (of 1.7 and later, where
    the loss comes first), with its defaults and its meaning, down to the random numbers. All that follows are
    parameters of bpcore.

    Parameters
    ----------
    loss : str or Loss, default "squared_error"
        ``"squared_error"``, half the square; ``"poisson"``, half the deviance, for targets that are not negative, with
        the output activation ``exp``; any other of bpcore (``"absolute"``, ``"huber"``), or one of your own.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, \
beta_1, beta_2, epsilon, n_iter_no_change, max_fun, out_activation, init, dropout, clip, callbacks, time_limit, \
backend, dtype, threads
        As for :class:`~bpcore.MLPClassifier`. The score of early stopping is R^2.

    Attributes
    ----------
    net_, run_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, validation_loss_curve_, \
t_, n_iter_, coefs_, intercepts_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As for :class:`~bpcore.MLPClassifier`.

    Notes
    -----
    With several outputs the squared error that is reported is the mean over them, and the gradient is that of their
    sum: so it is in scikit-learn, whose numbers are reproduced.

    Examples
    --------
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> reg = MLPRegressor(hidden_layer_sizes=16, activation="tanh", solver="lbfgs", max_iter=500, random_state=0)
    >>> bool(reg.fit(X, X[:, 0] ** 2).score(X, X[:, 0] ** 2) > 0.99)
    True
    """

    _y_numeric = True

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str | Activation | Sequence[str | Activation] = "relu",
        *,
        solver: str | UpdateRule | ScipyMinimize = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        out_activation: str | Activation | None = None,
        init: str | Initializer | None = None,
        dropout: float | Sequence[float] | Dropout | None = None,
        clip: Clipping | None = None,
        callbacks: Sequence[CallbackLike] | None = None,
        time_limit: float | None = None,
        backend: str | Backend | None = None,
        dtype: Any = None,
        threads: int | None = None,
    ) -> None:
        self._keep_parameters(locals())

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, validation: tuple[Any, Any] | None = None
    ) -> MLPRegressor:
        """Train on data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (m, n)
            Samples.
        y : array_like, shape (m,) or (m, n_outputs)
            Numbers.
        sample_weight : array_like, shape (m,), optional
            Weight of each sample, not negative.
        validation : (X, y), optional
            Data that is measured after every epoch; early stopping goes by it instead of setting some aside.

        Returns
        -------
        MLPRegressor
            This estimator.

        Raises
        ------
        ValueError
            If parameters or data do not fit, or the training met a number that is not finite.
        """
        self._fit(X, y, sample_weight, validation, incremental=False)
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train one epoch on data, from where the last call ended; parameters as for :meth:`fit`."""
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    def predict(self, X: Any) -> FloatArray:
        """Predict numbers.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (m, n)
            Samples.

        Returns
        -------
        ndarray, shape (m,) or (m, n_outputs)
            In the dtype of the network.
        """
        check_is_fitted(self, "net_")
        H = outputs_of(self, X)
        return H[:, 0] if H.shape[1] == 1 else H

    # ---------------------------------------------------------------- what a fit asks

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = super()._validated(X, y, reset=reset)
        y = y.toarray() if hasattr(y, "toarray") else y
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn_targets(self, y: Any, first: bool, incremental: bool) -> None:
        self._n_targets = 1 if y.ndim == 1 else int(y.shape[1])

    def _chosen(self) -> tuple[Loss, Activation, int]:
        return *regression(self.loss, self.out_activation), self._n_targets

    def _targets(self, y: Any, loss: Loss) -> NDArray[Any]:
        Y = np.asarray(y, np.float64).reshape(len(y), -1)
        if loss.name == "poisson" and Y.min() < 0:
            row = int(np.argmin(Y.min(axis=1)))
            raise DataError(f"y is {Y[row].min()} in row {row} (counted from 0); loss 'poisson' needs 0 or more")
        return Y

    def _row_weights(self, y: Any, sample_weight: NDArray[Any] | None, incremental: bool) -> NDArray[Any] | None:
        return sample_weight

    def _scorer(self, y: Any, weights: Any) -> Callable[[FloatArray], float] | None:
        if self._n_targets == 1:
            return None
        return lambda H: float(r2_score(y, H, sample_weight=weights))

    def _note(self) -> None:
        super()._note()
        self.net_.meta["task"] = "regression"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> dict[str, bool]:
        return {"multioutput": True}  # for scikit-learn before 1.6
