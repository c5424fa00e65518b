"""What a network knows about its data: classes, names of columns, preprocessing, as noted in ``net.meta``.

The notes travel inside model files, so whoever reads them here has to expect anything that JSON can spell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bpcore.data.preprocessing import ClassList, Preprocessing, Standardizer, preprocessing_from_dict
from bpcore.errors import BpcoreError, ConfigurationError
from bpcore.typing import IntArray, NDArray

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["Knowledge"]


class Knowledge:
    """The notes of a network in the form that commands and exports use, checked against its widths.

    Parameters
    ----------
    net : MLP
        A network, trained here or loaded.

    Attributes
    ----------
    task : ``"classification"`` or ``"regression"``
        What the outputs are for; classification where the notes do not say.
    stated : bool
        Whether the notes say so, by a task or a list of classes.
    feature_names : tuple of str or None
        Names of the columns of X.
    classes : ClassList or None
        Names of the classes.
    target, loss : str or None
        Name of the target column, and of the loss.
    preprocessing, target_preprocessing : Scaler, Standardizer or None
        What was applied to X, and to numbers as targets.

    Raises
    ------
    ConfigurationError
        If the notes contradict each other or the network.

    Examples
    --------
    >>> from bpcore.network import MLP
    >>> net = MLP([2, 1], output="sigmoid", seed=0, backend="numpy")
    >>> net.meta = {"classes": ["rose", "tulip"]}
    >>> Knowledge(net).class_names
    ('rose', 'tulip')
    """

    def __init__(self, net: MLP) -> None:
        meta = net.meta
        self.net = net
        self.task: Literal["classification", "regression"] = (
            "regression" if meta.get("task") == "regression" else "classification"
        )
        self.stated = bool(meta.get("task") or meta.get("classes"))
        self.feature_names: tuple[str, ...] | None = _names(meta, "feature_names", net.sizes[0], "inputs")
        self.classes = self._read_classes()
        self.target = _text(meta, "target")
        self.loss = _text(meta, "loss")
        self.preprocessing = _restore(meta, "preprocessing", net.sizes[0], "inputs")
        self.target_preprocessing = _restore(meta, "target_preprocessing", net.sizes[-1], "outputs")
        threshold = meta.get("threshold", 0.0)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise ConfigurationError(f"net.meta['threshold'] is {threshold!r:.40}; expected a finite number")

    def _read_classes(self) -> ClassList | None:
        names = self.net.meta.get("classes")
        if not names or self.task == "regression":
            return None
        if not isinstance(names, list | tuple):
            raise ConfigurationError(f"net.meta['classes'] is {names!r:.80}; expected a list of names")
        classes = ClassList(tuple(names))
        if len(classes.names) != self.n_classes:
            raise ConfigurationError(
                f"net.meta['classes'] lists {len(classes.names)} classes, but a network of sizes "
                f"{list(self.net.sizes)} tells {self.n_classes} apart; correct the list"
            )
        return classes

    @property
    def n_classes(self) -> int:
        """How many classes the outputs tell apart: one output tells two."""
        return max(self.net.sizes[-1], 2)

    @property
    def class_names(self) -> tuple[str, ...] | tuple[int, ...]:
        """The classes in the order of their numbers; the numbers themselves, where they have no names."""
        return tuple(range(self.n_classes)) if self.classes is None else self.classes.names

    def classes_of(self, H: NDArray[Any]) -> IntArray:
        """Return the index of the class that each row of outputs, shape (m, n_L), says; int64, shape (m,)."""
        if H.shape[1] > 1:
            return np.asarray(H.argmax(axis=1), dtype=np.int64)
        return np.asarray(H[:, 0] > self.net.threshold, dtype=np.int64)

    @property
    def has_probabilities(self) -> bool:
        """Whether the outputs have the meaning of probabilities, or of their logarithms."""
        return self.task == "classification" and self.net.output.name in ("softmax", "log_softmax", "sigmoid")

    def probabilities_of(self, H: NDArray[Any]) -> NDArray[Any]:
        """Return the probability of each class, shape (m, K), from outputs that have that meaning."""
        if self.net.output.name == "log_softmax":
            return np.asarray(np.exp(H))
        if self.net.output.name == "sigmoid" and H.shape[1] == 1:
            return np.hstack([1 - H, H])
        return H

    def values_of(self, H: NDArray[Any]) -> NDArray[np.float64]:
        """Return outputs that are numbers in the units of the target, float64, shape (m, n_L)."""
        values = H.astype(np.float64)
        return values if self.target_preprocessing is None else self.target_preprocessing.undo(values)


def _text(meta: dict[str, Any], key: str) -> str | None:
    value = meta.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"net.meta[{key!r}] is {value!r:.80}; expected text")
    return value or None


def _names(meta: dict[str, Any], key: str, width: int, what: str) -> tuple[str, ...] | None:
    names = meta.get(key)
    if not names:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"net.meta[{key!r}] is {names!r:.80}; expected a list of names")
    if len(names) != width:
        raise ConfigurationError(f"net.meta[{key!r}] lists {len(names)} names, but the network has {width} {what}")
    return tuple(names)


def _restore(meta: dict[str, Any], key: str, width: int, what: str) -> Preprocessing | None:
    description = meta.get(key)
    if not description:
        return None
    if not isinstance(description, dict):
        raise ConfigurationError(f"net.meta[{key!r}] is {description!r:.80}; expected what to_dict() returns")
    try:
        fitted = preprocessing_from_dict(description)
    except BpcoreError as error:
        raise ConfigurationError(f"net.meta[{key!r}]: {error}") from error
    if isinstance(fitted, Standardizer) and len(fitted.mean) != width:
        raise ConfigurationError(
            f"net.meta[{key!r}] standardises {len(fitted.mean)} columns, but the network has {width} {what}"
        )
    return fitted
