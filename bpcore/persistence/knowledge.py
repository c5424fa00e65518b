"""What a network knows about its data: classes, names of columns, preprocessing, as noted in ``net.meta``.

The notes travel inside model files, so whoever reads them here has to expect anything that JSON can spell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bpcore.data.missing import Imputer
from bpcore.data.one_hot import OneHot
from bpcore.data.preprocessing import (
    ClassList,
    Preprocessing,
    Scaler,
    Standardizer,
    fills_missing,
    preprocessing_from_dict,
    steps_of,
)
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
    preprocessing : Preprocessing or None
        What was applied to X.
    target_preprocessing : Scaler, Standardizer or None
        What was applied to numbers as targets.
    n_columns : int
        How many columns X has before its preprocessing.
    categories : dict of str to list of str, or None
        What the codes in columns of categories stand for.
    imputes : bool
        Whether NaN in X is a missing value, which the preprocessing fills.

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
        self.preprocessing, self.n_columns = _restore(meta, "preprocessing", net.sizes[0], "inputs")
        self.imputes = fills_missing(self.preprocessing)
        self.feature_names: tuple[str, ...] | None = _names(meta, "feature_names", self.n_columns, "inputs")
        self.categories = self._read_categories()
        self.classes = self._read_classes()
        self.target = _text(meta, "target")
        self.loss = _text(meta, "loss")
        fitted, _ = _restore(meta, "target_preprocessing", net.sizes[-1], "outputs")
        if fitted is not None and not isinstance(fitted, Scaler | Standardizer):
            kind = fitted.to_dict()["kind"]
            raise ConfigurationError(
                f"net.meta['target_preprocessing'] is of kind {kind!r}; possible: scaler, standardizer"
            )
        self.target_preprocessing = fitted
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

    def _read_categories(self) -> dict[str, list[str]] | None:
        found = self.net.meta.get("categories")
        if not found:
            return None
        if not isinstance(found, dict) or not all(
            isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts) for texts in found.values()
        ):
            raise ConfigurationError(f"net.meta['categories'] is {found!r:.80}; expected lists of texts by column")
        counts = next((step.counts for step in self.steps if isinstance(step, OneHot)), None)
        names = self.feature_names or ()
        if counts is None or list(counts) != [len(found.get(name, ())) for name in names] or set(found) - set(names):
            raise ConfigurationError("net.meta['categories'] does not fit the names and the preprocessing of the model")
        return {name: list(texts) for name, texts in found.items()}

    @property
    def steps(self) -> tuple[Preprocessing, ...]:
        """The preprocessing as steps that are no pipelines themselves, in the order in which they are applied."""
        return steps_of(self.preprocessing)

    @property
    def columns_of_text(self) -> dict[int, list[str]]:
        """The categories of each column that is text before it becomes codes, by its number, in their order."""
        found = self.categories or {}
        return {j: found[name] for j, name in enumerate(self.feature_names or ()) if name in found}

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

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the outputs are called that are numbers: the targets by name, or the outputs by number."""
        n = int(self.net.sizes[-1])
        names = [] if self.target is None else [self.target] if n == 1 else self.target.split(",")
        return tuple(names) if len(names) == n else tuple(map(str, range(n)))

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


def _restore(meta: dict[str, Any], key: str, width: int, what: str) -> tuple[Preprocessing | None, int]:
    """Rebuild a preprocessing whose result has `width` columns; return it and how many columns it takes."""
    description = meta.get(key)
    if not description:
        return None, width
    if not isinstance(description, dict):
        raise ConfigurationError(f"net.meta[{key!r}] is {description!r:.80}; expected what to_dict() returns")
    try:
        fitted = preprocessing_from_dict(description)
    except BpcoreError as error:
        raise ConfigurationError(f"net.meta[{key!r}]: {error}") from error
    n = width
    for step in reversed(steps_of(fitted)):
        if isinstance(step, Standardizer) and len(step.mean) != n:
            raise ConfigurationError(
                f"net.meta[{key!r}] standardises {len(step.mean)} columns, but the network has {n} {what}"
            )
        if isinstance(step, Imputer) and len(step.values) != n:
            raise ConfigurationError(
                f"net.meta[{key!r}] fills {len(step.values)} columns, but the network has {n} {what}"
            )
        if isinstance(step, OneHot):
            if step.width != n:
                raise ConfigurationError(
                    f"net.meta[{key!r}] makes {step.width} columns of categories, but the network has {n} {what}"
                )
            n = len(step.counts)
    return fitted, n
