"""What a fit of a classifier asks of its targets: classes, weights of classes, strata and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight

from bpcore.errors import ConfigurationError
from bpcore.estimators.base import BaseMLP
from bpcore.estimators.labels import Labels
from bpcore.estimators.outputs import classification
from bpcore.functions.activations import Activation
from bpcore.functions.losses import Loss
from bpcore.typing import FloatArray, NDArray

__all__ = ["LearnsClasses"]


class LearnsClasses(BaseMLP):
    """A base whose targets are classes, or labels that do not exclude each other."""

    _y_numeric = False
    _labels: Labels

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = super()._validated(X, y, reset=reset)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn_targets(self, y: Any, first: bool, incremental: bool) -> None:
        if first:
            labels = Labels.of(y)
            announced = self.__dict__.pop("_announced", None)
            if incremental and labels.kind != "multilabel" and announced is not None:
                labels = Labels(announced, "multiclass" if len(announced) > 2 else "binary")
                labels.check(y, all_of_them=False)
            self._labels, self.classes_ = labels, labels.classes
        else:
            self._labels.check(y, all_of_them=bool(self.warm_start) and not incremental)

    def _chosen(self) -> tuple[Loss, Activation, int]:
        return *classification(self.loss, self.out_activation, self._labels.kind), self._labels.n_outputs

    def _targets(self, y: Any, loss: Loss) -> NDArray[Any]:
        return self._labels.targets(self._labels.codes(y), loss)

    def _row_weights(self, y: Any, sample_weight: NDArray[Any] | None, incremental: bool) -> NDArray[Any] | None:
        if self.class_weight is None:
            return sample_weight
        if incremental and isinstance(self.class_weight, str):
            raise ConfigurationError(
                f"class_weight={self.class_weight!r} needs all of the data and is not supported for partial_fit; give "
                "the weights themselves, from sklearn.utils.class_weight.compute_class_weight on all of the data"
            )
        by_class = compute_sample_weight(self.class_weight, self._labels.codes(y) if self._labels.sparse else y)
        return np.asarray(by_class if sample_weight is None else by_class * sample_weight, np.float64)

    def _checked_validation(self, y: Any) -> Any:
        self._labels.check(y, all_of_them=False)
        return y

    def _scorer(self, y: Any, weights: Any) -> Callable[[FloatArray], float] | None:
        if self._labels.kind != "multilabel":
            return None
        labels, codes, net = self._labels, self._labels.codes(y), self.net_
        threshold = 0.5 if net.output.range == (0, 1) else 0.0
        return lambda H: float(accuracy_score(codes, labels.guess(H, threshold), sample_weight=weights))

    def _strata(self, y: Any) -> Any:
        return y if self._labels.kind == "binary" else None

    def _note(self) -> None:
        super()._note()
        if self._labels.kind == "multilabel":
            return  # for several labels at once there is no word in the notes
        self.net_.meta["task"] = "classification"
        names = self.classes_.tolist()
        plain = all(isinstance(name, str) for name in names) or all(type(name) is int for name in names)
        if len(names) > 1 and plain:
            self.net_.meta["classes"] = names
