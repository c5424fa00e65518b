"""``bpcore gradcheck`` and ``bpcore doctor``, and the application around the commands."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import Run


def run_python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False, **options)


def test_random_networks_pass(bpcore: Run) -> None:
    found = json.loads(bpcore("gradcheck", "--count", 12, "--json").stdout)
    assert found["passed"]
    networks = found["networks"]
    assert len(networks) == 12
    assert len({network["loss"] for network in networks}) > 2
    assert len({tuple(network["sizes"]) for network in networks}) > 6
    for network in networks:
        layers = len(network["sizes"]) - 1
        assert len(network["rows"]) == 2 * layers + 1
        assert all(row["passed"] for row in network["rows"])


def test_a_given_network_and_a_second_backend(bpcore: Run) -> None:
    options = ("--layers", "3,4,2", "--activation", "tanh", "--loss", "cross_entropy", "--output", "softmax")
    text = bpcore("gradcheck", *options, "--against", "numba").stdout
    assert text.startswith("3 - 4 - 2 (tanh, softmax), cross_entropy, numpy: passed\n")
    for quantity in ("dW[1]", "dW[2]", "db[1]", "db[2]", "dX[1]"):
        for other in ("differences", "numba"):
            assert re.search(rf"^ok +{re.escape(quantity)} +{other} +\d+/\d+ +\S+ +[\d,]+ ", text, re.MULTILINE)
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_wrong_gradient_fails_with_code_1(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # not `import bpcore.gradcheck`: the package has a function of that name
    module = importlib.import_module("bpcore.gradcheck")
    real = module._gradients

    def wrong(*args: Any) -> Any:
        gradients = real(*args)
        gradients["dW", 2] = -gradients["dW", 2]
        return gradients

    monkeypatch.setattr(module, "_gradients", wrong)
    text = bpcore("gradcheck", "--layers", "3,4,2", "--output", "identity", code=1).stdout
    assert "mse, numpy: FAILED" in text
    assert re.search(r"^FAIL dW\[2\]", text, re.MULTILINE)
    assert re.search(r"^ok +dW\[1\]", text, re.MULTILINE)
    assert not json.loads(bpcore("gradcheck", "--json", "--layers", "3,4,2", code=1).stdout)["passed"]


def test_the_same_seed_draws_the_same_network(bpcore: Run) -> None:
    first, again, other = (bpcore("gradcheck", "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy", "hinge", "huber", "exponential"])
def test_every_kind_of_target(bpcore: Run, loss: str) -> None:
    bpcore("gradcheck", "--loss", loss, "--count", 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "3"), r"sizes must list at least the inputs and the outputs"),
        (("--layers", "3,x"), r"--layers is '3,x'"),
        (("--loss", "mes"), r"unknown loss 'mes'.*Did you mean 'mse'"),
        (("--output", "softmax", "--loss", "hinge", "--activation", "step"), r"step"),
        (("--output", "identity", "--loss", "binary_cross_entropy"), r"needs predictions in \[0, 1\]"),
        (("--count", "0"), r"must be at least 1, got 5 and 0"),
    ],
)
def test_gradcheck_refuses(bpcore: Run, words: tuple[str, ...], message: str) -> None:
    result = bpcore("gradcheck", *words, code=2)
    assert re.search(message, result.stderr), result.stderr


def test_doctor_says_what_is_usable_and_why_not(bpcore: Run) -> None:
    text = bpcore("doctor").stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"^in use +numpy \('numpy' was given by the variable BPCORE_BACKEND\)", text, re.MULTILINE)
    assert re.search(r"^numpy +usable: ", text, re.MULTILINE)
    assert re.search(r"^numba +(not )?usable: ", text, re.MULTILINE)
    assert re.search(r"^cupy +(not )?usable: ", text, re.MULTILINE)
    for heading in ("Backends", "Processor", "Matrix products", "Threads", "Environment", "Warnings"):
        assert f"\n{heading}\n" in text
    assert "BPCORE_BACKEND" in text


def test_doctor_as_json_is_the_whole_diagnosis(bpcore: Run) -> None:
    found = json.loads(bpcore("doctor", "--json").stdout)
    assert {"backends", "selection", "blas", "threading", "environment", "warnings"} <= set(found)
    assert found["selection"]["source"] == "BPCORE_BACKEND"


FACTS: dict[str, Any] = {
    "bpcore": "1",
    "python": {"version": "3"},
    "platform": {"system": "X"},
    "selection": {"name": "numpy", "source": "auto", "why": "because"},
    "backends": [
        {"name": "numpy", "usable": True, "reason": "good", "repair": "", "facts": {"a": [1, 2], "b": True}},
        {"name": "cupy", "usable": False, "reason": "no driver [bold]", "repair": "install it", "facts": {}},
    ],
    "cpu": {"model": "M", "quota": 1.5},
    "blas": [],
    "threading": {"layers": {}, "threads": None},
    "gpu": [{"name": "H200", "memory": 150 * 2**30, "driver": "CUDA 13"}],
    "environment": {},
    "warnings": [{"what": "slow kernels", "cost": "half the speed", "repair": "unset OPENBLAS_CORETYPE"}],
}


def test_doctor_shows_repairs_and_warnings(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # by import_module: the attribute `bpcore.backends` is the function that lists them
    monkeypatch.setattr(importlib.import_module("bpcore.backends.diagnosis"), "diagnose", lambda: FACTS)
    text = bpcore("doctor").stdout
    for part in (
        r"^cupy +not usable: no driver \[bold\]",
        r"^  repair +install it",
        r"^  a +1, 2",
        r"^  b +yes",
        r"^quota +1\.5 cores",
        r"^gpu +H200, 150 GiB, driver CUDA 13",
        r"no BLAS library that tells its name",
        r"^layers +none",
        r"^threads +unknown",
        r"^what +slow kernels",
        r"^cost +half the speed",
        r"^repair +unset OPENBLAS_CORETYPE",
    ):
        assert re.search(part, text, re.MULTILINE), (part, text)
    assert "Environment" not in text
    bpcore("doctor", "--strict", code=1)
    monkeypatch.setitem(FACTS, "warnings", [])
    bpcore("doctor", "--strict")


def test_doctor_exit_codes(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import bpcore as bp
    from bpcore.errors import BackendError

    bpcore("doctor", "--backend", "numpy")
    result = bpcore("doctor", "--backend", "cupi", code=2)
    assert "unknown backend 'cupi'" in result.stderr

    def unusable(name: Any = None) -> Any:
        raise BackendError("backend 'cupy' cannot run")

    monkeypatch.setattr(bp, "get_backend", unusable)
    result = bpcore("doctor", "--backend", "cupy", "--json", code=3)
    assert json.loads(result.stdout)["selection"]["name"] == "numpy"
    assert "bpcore: backend 'cupy' cannot run" in result.stderr


def test_doctor_reports_a_bad_variable_instead_of_failing(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPCORE_BACKEND", "cupi")
    result = bpcore("doctor", code=2)
    assert re.search(r"^in use +nothing", result.stdout, re.MULTILINE)
    assert "BPCORE_BACKEND" in result.stderr


def test_version_help_and_no_command(bpcore: Run) -> None:
    import bpcore as bp

    assert bpcore("--version").stdout == f"bpcore {bp.__version__}\n"
    for command in ("train", "predict", "evaluate", "gradcheck", "doctor"):
        assert command in bpcore("--help").stdout
        assert "Usage" in bpcore(command, "-h").stdout
    assert "Did you mean" in bpcore("trian", code=2).stderr or "No such command" in bpcore("trian", code=2).stderr


def test_python_m_bpcore_runs_the_same() -> None:
    import bpcore as bp

    result = run_python("-m", "bpcore", "--version")
    assert (result.returncode, result.stdout) == (0, f"bpcore {bp.__version__}\n")
    result = run_python("-m", "bpcore", "train", "digts")
    assert result.returncode == 2
    assert result.stderr.startswith("bpcore: unknown data set 'digts'")
    assert result.stdout == ""


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Any) -> None:
    """``bpcore predict ... | head -1``."""
    import bpcore as bp

    model, data = tmp_path / "m.safetensors", tmp_path / "d.csv"
    bp.MLP([1, 2], seed=0, backend="numpy").save(model)
    data.write_text("1\n" * 50_000)
    command = [sys.executable, "-m", "bpcore", "predict", str(model), str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "prediction\n"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert "Traceback" not in errors


def test_importing_bpcore_loads_nothing_of_the_command_line() -> None:
    code = "import bpcore, bpcore.cli, sys; print([m for m in ('typer', 'rich', 'sklearn') if m in sys.modules])"
    assert run_python("-c", code).stdout == "[]\n"


def test_main_takes_its_words_as_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    from bpcore.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("bpcore ")
