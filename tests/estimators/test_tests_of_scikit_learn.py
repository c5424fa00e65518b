"""scikit-learn's own tests of its multilayer perceptrons, with one line of them changed: where they import from.

The file comes with scikit-learn, so each version brings its own. What cannot pass is listed with the reason, and is
reported as soon as it does.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from sklearn import neural_network

LINE = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
CHANGED = "from bpcore.estimators import MLPClassifier, MLPRegressor"

PRIVATE = {
    "test_fit": "sets up a step by hand: _random_state, _label_binarizer, _unpack",
    "test_gradient": "calls _init_coef, _pack, _unpack and _loss_grad_lbfgs",
    "test_learning_rate_warmstart": "reads _optimizer.learning_rate",
    "test_adaptive_learning_rate": "reads _optimizer.learning_rate",
}
"""What they use of the inside of scikit-learn's classes."""
MESSAGE = {"test_early_stopping_stratified": "expects a class to be called 'True'; here the message has its own name"}
TIGHT = {"test_mlp_regressor_dtypes_casting": "float32 within 1e-4, of a number near 0, too; later versions take 5e-4"}
"""What some versions expect, and others do not; told by a line of the file."""
LONG = {
    "test_lbfgs_classification",
    "test_lbfgs_classification_maxfun",
    "test_lbfgs_regression",
    "test_multilabel_classification",
    "test_multioutput_regression",
    "test_n_iter_no_change",
    "test_n_iter_no_change_inf",
    "test_partial_fit_classification",
    "test_partial_fit_regression",
    "test_warm_start",
}
"""What takes seconds."""


PATH = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
SOURCE = PATH.read_text("utf-8")
REASONS = PRIVATE | (MESSAGE if r"\['True'\]" in SOURCE else {})


def theirs() -> dict[str, Any]:
    """Run the file, and return its tests by name."""
    assert SOURCE.count(LINE) == 1
    module = ModuleType("tests_of_scikit_learn")
    exec(compile(SOURCE.replace(LINE, CHANGED), str(PATH), "exec"), vars(module))
    assert module.MLPClassifier.__module__.startswith("bpcore.")
    return {name: test for name, test in vars(module).items() if name.startswith("test_")}


def marked(name: str, test: Any) -> Any:
    if name in LONG:
        test = pytest.mark.long(test)
    if name in REASONS:
        test = pytest.mark.xfail(reason=REASONS[name], strict=True)(test)
    if name in TIGHT and "pred_32, rtol=1e-04" in SOURCE:
        test = pytest.mark.xfail(reason=TIGHT[name], strict=False)(test)
    return pytest.mark.filterwarnings("ignore")(test)


FOUND = theirs()
globals().update({name: marked(name, test) for name, test in FOUND.items()})


@pytest.fixture(autouse=True)
def on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPCORE_BACKEND", "numpy")


@pytest.fixture
def global_random_seed() -> int:
    """As scikit-learn runs them by default."""
    return 42


def test_the_lists_name_tests_that_exist() -> None:
    assert {*PRIVATE, *MESSAGE, *TIGHT, *LONG} <= set(FOUND)
    assert len(FOUND) >= 35
