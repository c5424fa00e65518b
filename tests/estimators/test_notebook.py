"""A notebook written for scikit-learn runs with one line changed, and prints the same numbers."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "digits-with-scikit-learn.ipynb"
LINE = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
CHANGED = "from bpcore.estimators import MLPClassifier, MLPRegressor"


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def run(sources: list[str]) -> tuple[str, dict[str, Any]]:
    """Execute cells as a notebook does: in one namespace, and with the value of a last expression shown."""
    shown, names = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(shown), warnings.catch_warnings():
        for source in sources:
            body = ast.parse(source).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
                print("" if value is None else repr(value))
    return shown.getvalue(), names


def test_only_the_import_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPCORE_BACKEND", "numpy")
    source = cells("code")
    assert "\n".join(source).count("MLP") > 5
    assert source[0] == LINE
    theirs, _ = run(source)
    ours, names = run([CHANGED, *source[1:]])
    assert names["clf"][-1].__class__.__module__ == "bpcore.estimators.classifier"
    pattern = r"-?\d+(?:\.\d+)?"
    assert re.sub(pattern, "#", ours) == re.sub(pattern, "#", theirs)
    for found, expected in zip(re.findall(pattern, ours), re.findall(pattern, theirs), strict=True):
        assert float(found) == pytest.approx(float(expected), abs=0.002)


def test_the_notebook_says_which_line() -> None:
    assert CHANGED in cells("markdown")[0]
    assert CHANGED not in "\n".join(cells("code"))
