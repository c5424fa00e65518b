"""The labels of a classifier: from names to targets of the network, and back from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from bpcore.errors import ConfigurationError, DataError
from bpcore.functions.activations import Activation
from bpcore.functions.losses import Loss
from bpcore.typing import FloatArray, NDArray

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels:
    """The classes that a classifier knows.

    Parameters
    ----------
    classes : ndarray, shape (K,)
        The classes in order, or the numbers of the labels.
    kind : ``"binary"``, ``"multiclass"`` or ``"multilabel"``
        What they are; one or two classes have one output, which says that it is the second.
    sparse : bool, default False
        Whether labels come, and go, as sparse matrices.
    """

    classes: NDArray[Any]
    kind: str
    sparse: bool = False

    @classmethod
    def of(cls, y: Any) -> Labels:
        """Find the classes in targets.

        Parameters
        ----------
        y : ndarray, shape (m,) or (m, K), or sparse matrix
            Labels, or an indicator matrix of several labels.

        Raises
        ------
        ValueError
            If the targets are no classes, or several columns of classes.

        Examples
        --------
        >>> Labels.of(np.array(["b", "a", "b"])).classes.tolist()
        ['a', 'b']
        """
        check_classification_targets(y)
        found = type_of_target(y, input_name="y")
        if found == "multilabel-indicator":
            return cls(np.arange(y.shape[1]), "multilabel", not isinstance(y, np.ndarray))
        if found == "multiclass-multioutput":
            raise DataError(
                f"y has {y.shape[1]} columns of classes; one column, or an indicator matrix of labels that are each 0 "
                "or 1, is possible: train a classifier for each column (sklearn.multioutput.MultiOutputClassifier)"
            )
        classes = unique_labels(y)
        return cls(classes, "multiclass" if len(classes) > 2 else "binary")

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return 1 if self.kind == "binary" else len(self.classes)

    def check(self, y: Any, *, all_of_them: bool) -> None:
        """Refuse targets with other classes than these.

        Parameters
        ----------
        y : ndarray or sparse matrix
            Targets.
        all_of_them : bool
            Whether every class must occur (a warm start), or some may (partial_fit).

        Raises
        ------
        DataError
            If they do not fit.
        """
        found = unique_labels(y)
        if all_of_them and set(found) != set(self.classes):
            raise DataError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes}, `y` has {found}"
            )
        if len(np.setdiff1d(found, self.classes)):
            raise DataError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes}. 'y' has {found}."
            )

    def codes(self, y: Any) -> NDArray[Any]:
        """Return classes as numbers from 0, shape (m,), or labels as an indicator matrix of floats, shape (m, K)."""
        if self.kind == "multilabel":
            return np.asarray(y.toarray() if hasattr(y, "toarray") else y, np.float64)
        return np.asarray(np.searchsorted(self.classes, y), np.int64)

    def targets(self, codes: NDArray[Any], loss: Loss) -> NDArray[Any]:
        """Return what :func:`bpcore.train` takes for such codes."""
        if self.kind == "multilabel" and loss.target_kind == "sign":
            return 2 * codes - 1
        if self.kind == "binary" and loss.target_kind == "real":
            return codes.astype(bool)  # which tells numbers and two classes apart
        return codes

    def guess(self, H: FloatArray, threshold: float) -> NDArray[Any]:
        """Return the codes of outputs: the first largest one, or what is above the threshold."""
        if self.kind == "multiclass":
            return np.asarray(H.argmax(axis=1), np.int64)
        above = threshold < H
        return above.astype(np.int64) if self.kind == "multilabel" else above[:, 0].astype(np.int64)

    def names(self, codes: NDArray[Any]) -> Any:
        """Return classes by their codes."""
        if self.kind != "multilabel":
            return self.classes[np.minimum(codes, len(self.classes) - 1)]
        if not self.sparse:
            return codes
        from scipy.sparse import csr_matrix

        return csr_matrix(codes)

    def probabilities(self, H: FloatArray, output: Activation, loss: str) -> FloatArray:
        """Return the probability of each class, shape (m, K).

        Parameters
        ----------
        H : ndarray, shape (m, n_outputs)
            Outputs.
        output : Activation
            That they come from.
        loss : str
            Name of the loss.

        Returns
        -------
        ndarray, shape (m, K)
            In the dtype of the outputs. Rows sum to 1, except for labels that do not exclude each other.
        """
        if not has_probabilities(output, loss):
            raise ConfigurationError(no_probabilities(output, loss))
        if output.name == "log_softmax":
            return np.exp(H)
        P = _sigmoid(H) if output.name == "identity" else H
        if self.kind == "multilabel" or output.name == "softmax":
            return P
        if self.kind == "multiclass":
            return np.asarray(P / np.maximum(P.sum(axis=1, keepdims=True), np.finfo(P.dtype).tiny))
        if len(self.classes) == 1:
            return np.ones_like(P)
        return np.hstack([1 - P, P])


def has_probabilities(output: Activation, loss: str) -> bool:
    """Whether outputs are probabilities, or can be turned into them.

    Examples
    --------
    >>> from bpcore.functions.activations import ACTIVATIONS
    >>> has_probabilities(ACTIVATIONS["softmax"], "mse"), has_probabilities(ACTIVATIONS["identity"], "hinge")
    (True, False)
    """
    if output.name in ("softmax", "log_softmax", "sigmoid"):
        return True
    return output.name == "identity" and loss == "binary_cross_entropy_logits"


def no_probabilities(output: Activation, loss: str) -> str:
    """Say why there are no probabilities."""
    return (
        f"outputs of {output.name!r} trained with loss {loss!r} are no probabilities; predict works, and for them "
        "take a loss such as 'cross_entropy' or an out_activation such as 'softmax'"
    )


def _sigmoid(Z: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(Z))
