"""The classifier: a drop-in for :class:`sklearn.neural_network.MLPClassifier`, and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from bpcore.backends.contract import Backend
from bpcore.errors import DataError
from bpcore.estimators.class_targets import LearnsClasses
from bpcore.estimators.inputs import outputs_of
from bpcore.estimators.labels import Labels, has_probabilities, no_probabilities
from bpcore.estimators.outputs import classification
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

__all__ = ["MLPClassifier"]


def _tells_probabilities(estimator: Any) -> bool:
    if hasattr(estimator, "net_"):
        output, loss = estimator.net_.output, estimator.net_.meta.get("loss", "")
    else:
        loss_, output = classification(estimator.loss, estimator.out_activation, "binary")
        loss = loss_.name
    if has_probabilities(output, loss):
        return True
    raise AttributeError(no_probabilities(output, loss))


class MLPClassifier(ClassifierMixin, LearnsClasses):  # type: ignore[misc]
    """A multilayer perceptron that tells classes apart, with the interface of scikit-learn.

    Up to ``max_fun`` the parameters are those of :class:`sklearn.neural_network.MLPClassifier`, with its defaults and
    its meaning, down to the random numbers: the same ``random_state`` gives the same first weights, the same split
    and the same shuffles. All that follows are parameters of bpcore.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Widths of the hidden layers; ``()`` for none.
    activation : str, Activation or sequence of them, default "relu"
        Activation of the hidden layers, one for all or one for each: ``"identity"``, ``"logistic"``, ``"tanh"``,
        ``"relu"``, any other of bpcore, or one of your own.
    solver : str, UpdateRule or ScipyMinimize, default "adam"
        ``"lbfgs"``, ``"sgd"``, ``"adam"``; any other rule of bpcore by name (``"rmsprop"``); a rule with its own
        numbers, ``bp.AdamW(0.001)``; or ``bp.LBFGS()``.
    alpha : float, default 0.0001
        Strength of the L2 penalty, ``alpha / 2 * sum(w**2)`` divided by the number of samples of a batch (by the sum
        of their weights; in mini-batches by the mean of that over batches).
    batch_size : int or "auto", default "auto"
        Samples of a step; ``"auto"`` is min(200, n).
    learning_rate : {"constant", "invscaling", "adaptive"} or Schedule, default "constant"
        The words are for ``solver="sgd"`` alone; a schedule such as ``bp.Cosine(0.1, total=1000)`` is for every solver
        with steps.
    learning_rate_init : float, default 0.001
        Learning rate, or the first one.
    power_t : float, default 0.5
        Exponent of ``"invscaling"``: after t samples the rate is ``learning_rate_init / (t + 1)**power_t``.
    max_iter : int, default 200
        Most epochs; for ``"lbfgs"`` most iterations.
    shuffle : bool, default True
        Whether each epoch takes the samples in a fresh order.
    random_state : int, RandomState or None, default None
        Of first weights, split, shuffles and dropout.
    tol : float, default 1e-4
        An epoch that improves the loss, or the score, by less is one without improvement. For ``"lbfgs"``, the largest
        element of the gradient at which it ends.
    verbose : bool or int, default False
        Whether to print a line for each epoch.
    warm_start : bool, default False
        Whether fit goes on with the network of the last fit.
    momentum : float, default 0.9
        Of ``"sgd"``, from 0 to 1.
    nesterovs_momentum : bool, default True
        Whether ``"sgd"`` looks ahead.
    early_stopping : bool, default False
        Whether to set data aside, and stop when its score does not improve; the best parameters are kept.
    validation_fraction : float, default 0.1
        The share that is set aside.
    beta_1, beta_2, epsilon : float, default 0.9, 0.999 and 1e-8
        Of ``"adam"``.
    n_iter_no_change : int or inf, default 10
        Epochs without improvement that are borne.
    max_fun : int, default 15000
        Most evaluations of the loss in ``"lbfgs"``.
    loss : str, Loss or None, default None
        What is minimised; None is the log-loss of scikit-learn.
    out_activation : str, Activation or None, default None
        Activation of the output; None is the one that goes with the loss.
    init : str, Initializer or None, default None
        How parameters begin: an initialiser of bpcore, ``"auto"``, or None for that of scikit-learn.
    class_weight : mapping, "balanced" or None, default None
        Weight of each class, times the sample weight.
    dropout : float, sequence of float, Dropout or None, default None
        Rate on the hidden layers.
    clip : Clipping or None, default None
        Such as ``bp.ClipNorm(1.0)``.
    callbacks : sequence of callables or None, default None
        Run after every epoch as ``f(net, progress)``; one that returns True ends the training.
    time_limit : float or None, default None
        Seconds after which a training ends.
    backend : str, Backend or None, default None
        Where to compute; None follows the selection of bpcore.
    dtype : dtype or None, default None
        float32 or float64 of the network; None takes that of X.
    threads : int or None, default None
        Threads of a step; see :class:`bpcore.Trainer`.

    Attributes
    ----------
    net_ : bpcore.MLP
        The network; everything of bpcore works with it. ``net_.meta["classes"]`` has the names.
    run_ : Run
        History, record and reason of the end of the last training.
    classes_ : ndarray, shape (K,)
        The classes in order.
    loss_, best_loss_ : float
        Loss of the last epoch, with the penalty, and the smallest (None with early stopping).
    loss_curve_ : list of float
        Loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float or None
        Accuracy on validation data; the best one with early stopping.
    validation_loss_curve_ : list of float
        Loss on validation data, without the penalty.
    t_, n_iter_ : int
        Samples seen in all; epochs, or iterations, of the last fit.
    coefs_, intercepts_ : list of ndarray
        Weights (n_l, n_{l+1}) and biases (n_{l+1},) of the layers, copies.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.

    Notes
    -----
    Data is on the host. Sparse matrices are made dense for a fit, as a whole (m * n numbers), and for a prediction in
    blocks of 16 MiB. A training whose numbers are not finite is a :class:`ValueError`; with early stopping the best
    parameters are kept and a warning is given.

    Examples
    --------
    >>> X, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), ["no", "yes", "yes", "no"]
    >>> clf = MLPClassifier((8,), activation="tanh", solver="lbfgs", random_state=1).fit(X, y)
    >>> clf.predict(X).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    def __init__(
        self,
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
        loss: str | Loss | None = None,
        out_activation: str | Activation | None = None,
        init: str | Initializer | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
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
    ) -> MLPClassifier:
        """Train on data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (m, n)
            Samples.
        y : array_like, shape (m,) or (m, K)
            Classes, or an indicator matrix of labels that do not exclude each other.
        sample_weight : array_like, shape (m,), optional
            Weight of each sample, not negative.
        validation : (X, y), optional
            Data that is measured after every epoch; early stopping goes by it instead of setting some aside.

        Returns
        -------
        MLPClassifier
            This estimator.

        Raises
        ------
        ValueError
            If parameters or data do not fit, or the training met a number that is not finite.
        """
        self._fit(X, y, sample_weight, validation, incremental=False)
        return self

    @available_if(takes_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Train one epoch on data, from where the last call ended.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`.
        classes : array_like, shape (K,), optional
            All classes that there will be; needed at the first call.

        Returns
        -------
        MLPClassifier
            This estimator.
        """
        known = self._labels if hasattr(self, "net_") else None
        if classes is None and known is None:
            raise DataError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            given = Labels.of(np.asarray(classes)).classes
            if known is not None and not np.array_equal(known.classes, given):
                raise DataError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known.classes!r}"
                )
            if known is None:
                self._announced = given
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class of every sample.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (m, n)
            Samples.

        Returns
        -------
        ndarray, shape (m,) or (m, K)
            Classes, or an indicator matrix.
        """
        check_is_fitted(self, "net_")
        H = outputs_of(self, X)
        return self._labels.names(self._labels.guess(H, self.net_.threshold))  # type: ignore[no-any-return]

    @available_if(_tells_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> FloatArray:
        """Predict the probability of every class.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (m, n)
            Samples.

        Returns
        -------
        ndarray, shape (m, K)
            In the order of :attr:`classes_`. Only where the outputs are probabilities.
        """
        check_is_fitted(self, "net_")
        return self._labels.probabilities(outputs_of(self, X), self.net_.output, self.net_.meta["loss"])

    @available_if(_tells_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Predict the logarithm of :meth:`predict_proba`; -inf where a probability is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, bool]:
        return {"multilabel": True}  # for scikit-learn before 1.6
