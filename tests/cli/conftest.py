"""Running commands inside the test process, and data files small enough to train on in no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

Run = Callable[..., Any]


@pytest.fixture
def bpcore(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line on the NumPy backend; ``code`` is the exit code that is expected."""
    from bpcore.cli.app import app

    monkeypatch.setenv("BPCORE_BACKEND", "numpy")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(word) for word in words])
        unexpected = result.exception is not None and not isinstance(result.exception, SystemExit)
        assert not unexpected, result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two well separated kinds of flowers in a CSV file with a header: 60 rows."""
    rng = np.random.default_rng(1)
    lines = ["width,kind,length"]
    for i in range(60):
        rose = i % 3 == 0
        width, length = rng.normal((1, 4) if rose else (3, 2), 0.2)
        lines.append(f"{width:.4f},{'rose' if rose else 'tulip'},{length:.4f}")
    path = tmp_path / "flowers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """Numbers on a line, y = 300 + 20 a - 10 b, without a header: 50 rows."""
    A = np.random.default_rng(2).normal(size=(50, 2))
    y = 300 + A @ [20, -10]
    path = tmp_path / "line.csv"
    path.write_text("".join(f"{a:.6f},{b:.6f},{t:.6f}\n" for (a, b), t in zip(A, y, strict=True)))
    return path
