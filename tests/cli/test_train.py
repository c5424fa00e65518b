"""``bpcore train``: choices, output, files, errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Run

FAST = ("--epochs", "2", "--layers", "4")


def test_digits_reach_97_percent_alike_on_every_backend(bpcore: Run, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    results = {}
    for name in ("numpy", "numba"):
        model = tmp_path / f"{name}.safetensors"
        results[name] = json.loads(bpcore("train", "digits", "--backend", name, "--json", "--save", model).stdout)
        assert results[name]["test"]["accuracy"] >= 0.97
        assert results[name]["record"]["backend"] == name
    histories = [results[name]["history"] for name in ("numpy", "numba")]
    assert len(histories[0]) == len(histories[1]) == 30
    for epoch, (first, second) in enumerate(zip(*histories, strict=True), start=1):
        # float32 rounding grows from step to step, and faster where Adam divides by a root that is nearly zero: in the
        # eighth epoch two ways of computing are 1e-7 apart, in the thirtieth 1e-4, while the loss falls below 0.01
        assert first["loss"] == pytest.approx(second["loss"], abs=1e-6 if epoch <= 8 else 1e-3)
        assert first["accuracy"] == pytest.approx(second["accuracy"], abs=1e-6 if epoch <= 8 else 3e-3)
        assert first["val_accuracy"] == pytest.approx(second["val_accuracy"], abs=1e-6 if epoch <= 8 else 1e-2)
    there, here = (
        bpcore("predict", tmp_path / "numpy.safetensors", "digits", "--backend", name).stdout
        for name in ("numpy", "numba")
    )
    assert there == here


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("iris", [4, 4, 3]),
        ("wine", [13, 4, 3]),
        ("breast-cancer", [30, 4, 1]),
        ("diabetes", [10, 4, 1]),
        ("digits", [64, 4, 10]),
    ],
)
def test_bundled_data(bpcore: Run, name: str, sizes: list[int]) -> None:
    pytest.importorskip("sklearn")
    result = json.loads(bpcore("train", name, "--json", *FAST).stdout)
    assert result["sizes"] == sizes
    assert result["data"]["train"] + result["data"]["test"] == result["data"]["samples"]
    assert result["data"]["test"] == round(0.2 * result["data"]["samples"])
    assert ("r2" in result["test"]) == (name == "diabetes")


def test_what_is_printed(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    text = bpcore("train", flowers, "--target", "kind", "--epochs", 20, "--save", model).stdout
    # words may be broken anywhere into the next line of a narrow column
    words = re.sub(r"\s+", "", text)
    for part in (
        "60 samples, 2 features",
        "kind, 2 classes: rose, tulip",
        "48 to train, 12 held out (seed 0)",
        "2 - 128 - 64 - 1, relu, relu, sigmoid, 8,705 parameters",
        "binary_cross_entropy",
        "numpy, float32: 'numpy' was given by the variable BPCORE_BACKEND",
        "held out",
        "accuracy 100.00 %",
        "20 (reached 20 epochs; parameters: last)",
        "samples/s, plan ",
        str(model),
    ):
        assert re.sub(r"\s+", "", part) in words, part
    assert max(len(row) for row in text.splitlines()) <= 80


def test_quiet_and_verbose(bpcore: Run, flowers: Path) -> None:
    quiet = bpcore("train", flowers, "--target", "kind", "-q", *FAST).stdout
    assert re.fullmatch(r"accuracy [\d.]+ %, loss [\d.]+; [\d.]+ s\n", quiet)
    verbose = bpcore("train", flowers, "--target", "kind", "-v", *FAST).stdout
    assert re.findall(r"^epoch +(\d+)  loss .* val_accuracy", verbose, re.MULTILINE) == ["1", "2"]


def test_json_is_complete_and_alone(bpcore: Run, flowers: Path) -> None:
    result = bpcore("train", flowers, "--target", "kind", "--json", "--patience", 1, *FAST)
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert set(found) == {
        *("data", "sizes", "test", "history", "stopped_because", "seconds", "samples_per_second", "kept", "record"),
        "saved",
        "targets",
    }
    assert found["data"]["classes"] == ["rose", "tulip"]
    assert found["record"]["backend"] == "numpy"
    assert found["samples_per_second"] == pytest.approx(found["data"]["train"] * 2 / found["seconds"])


def test_the_seed_decides_everything(bpcore: Run, flowers: Path) -> None:
    command = ("train", flowers, "--target", "kind", "--json", *FAST)
    runs = [json.loads(bpcore(*command, "--seed", seed).stdout) for seed in (4, 4, 5)]
    losses = [[row["loss"] for row in run["history"]] for run in runs]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("options", "n_out", "output", "loss"),
    [
        ((), 1, "sigmoid", "binary_cross_entropy"),
        (("--loss", "cross_entropy"), 2, "softmax", "cross_entropy"),
        (("--loss", "hinge"), 1, "identity", "hinge"),
        (("--loss", "binary_cross_entropy_logits"), 1, "identity", "binary_cross_entropy_logits"),
        (("--loss", "quadratic"), 1, "sigmoid", "quadratic"),
        (("--output", "softmax"), 2, "softmax", "cross_entropy"),
        (("--output", "identity"), 1, "identity", "mse"),
        (("--output", "tanh", "--loss", "hinge"), 1, "tanh", "hinge"),
    ],
)
def test_output_and_loss_follow_from_each_other(
    bpcore: Run, flowers: Path, tmp_path: Path, options: Any, n_out: int, output: str, loss: str
) -> None:
    from bpcore.persistence import load_model

    model = tmp_path / "m.safetensors"
    bpcore("train", flowers, "--target", "kind", "--epochs", 20, "--save", model, *options)
    net = load_model(model, backend="numpy")
    assert net.sizes[-1] == n_out
    assert net.output.name == output
    assert net.meta["loss"] == loss
    # what evaluate and predict make of the outputs agrees with the training, whatever the loss
    evaluated = json.loads(bpcore("evaluate", model, flowers, "--json").stdout)
    assert evaluated["accuracy"] == 1.0
    assert [row["right"] for row in evaluated["classes"]] == [20, 40]


def test_numbers_are_predicted_in_their_own_units(bpcore: Run, line: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    command = ("train", line, "--target", 2, "--layers", "none", "--optimizer", "momentum", "--epochs", 99)
    found = json.loads(bpcore(*command, "--json", "--save", model).stdout)
    assert found["data"]["task"] == "regression"
    assert found["sizes"] == [2, 1]
    assert found["test"]["r2"] > 0.999
    assert found["test"]["rmse"] < 0.5
    predicted = bpcore("predict", model, line, "--target", 2).stdout.splitlines()
    truth = [float(row.split(",")[2]) for row in line.read_text().splitlines()]
    assert predicted[0] == "prediction"
    np.testing.assert_allclose([float(row) for row in predicted[1:]], truth, atol=2)


def test_whole_numbers_as_classes(bpcore: Run, tmp_path: Path) -> None:
    path, model = tmp_path / "odd.npz", tmp_path / "m.safetensors"
    y = np.tile([3, 5, 7], 20)
    np.savez(path, X=np.eye(8)[y] + 0.01, y=y)
    found = json.loads(bpcore("train", path, "--json", "--epochs", 20, "--save", model).stdout)
    assert found["data"]["classes"] == [3, 5, 7]
    assert found["test"]["accuracy"] == 1.0
    assert bpcore("predict", model, path).stdout.split() == ["prediction", *map(str, y)]


@pytest.mark.parametrize("optimizer", ["sgd", "Adam", "lion", "lbfgs", "L-BFGS"])
def test_optimizers(bpcore: Run, flowers: Path, optimizer: str) -> None:
    found = json.loads(bpcore("train", flowers, "--target", "kind", "--optimizer", optimizer, "--json", *FAST).stdout)
    assert len(found["history"]) <= 2


def test_options_reach_the_training(bpcore: Run, flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bpcore as bp

    seen: dict[str, Any] = {}
    real = bp.train

    def spy(net: Any, X: Any, Y: Any, **options: Any) -> Any:
        seen.update(options, net=net)
        return real(net, X, Y, **options)

    monkeypatch.setattr(bp, "train", spy)
    bpcore(
        *("train", flowers, "--target", "kind", "--dtype", "float64", "--dropout", 0.25, "--l2", 0.01, "--eta", 0.003),
        *("--batch-size", "full", "--threads", 1, "--activation", "tanh,relu", "--layers", "3, 2", "--epochs", 2),
    )
    assert str(seen["net"].dtype) == "float64"
    assert seen["net"].sizes == (2, 3, 2, 1)
    assert [activation.name for activation in seen["net"].activations] == ["tanh", "relu", "sigmoid"]
    assert seen["dropout"] == 0.25
    assert seen["penalty"] == [bp.L2(0.01)]
    assert seen["optimizer"] == bp.Adam(0.003)
    assert seen["batch_size"] == "full"
    assert seen["threads"] == 1


def test_patience_looks_at_a_part_of_the_training_rows_only(bpcore: Run, flowers: Path) -> None:
    # a learning rate of almost nothing: the validation loss moves by less than float32 can show
    command = ("train", flowers, "--target", "kind", "--json", "--eta", "1e-30", "--epochs", 50, "--patience", 3)
    found = json.loads(bpcore(*command).stdout)
    sizes = found["data"]
    assert (sizes["train"], sizes["validation"], sizes["test"]) == (41, 7, 12)
    assert found["record"]["n_samples"] == 41
    assert found["record"]["n_validation"] == 7
    assert "val_loss has not improved for 3 epochs" in found["stopped_because"]
    assert len(found["history"]) == 4


def test_standardisation_learns_from_the_training_part_only(bpcore: Run, tmp_path: Path) -> None:
    from bpcore.data.split import train_test_split_indices
    from bpcore.persistence import load_model

    y = np.arange(40) % 2
    train, test = train_test_split_indices(40, 0.2, 0, y)
    X = np.zeros((40, 1))
    X[test] = 1000.0
    X[train] = np.arange(32)[:, None]
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=X, y=y)
    bpcore("train", path, "--save", model, *FAST)
    assert load_model(model, backend="numpy").meta["preprocessing"]["mean"] == [15.5]


def test_targets_are_standardised_by_the_training_part_only(bpcore: Run, tmp_path: Path) -> None:
    from bpcore.data.split import train_test_split_indices
    from bpcore.persistence import load_model

    train, test = train_test_split_indices(40, 0.2, 0)
    y = np.full(40, 1000.5)
    y[train] = np.arange(32) + 0.5
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=np.random.default_rng(0).normal(size=(40, 2)), y=y)
    bpcore("train", path, "--save", model, *FAST)
    fitted = load_model(model, backend="numpy").meta["target_preprocessing"]
    assert fitted["mean"] == [16.0]
    # the variance of 0 ... n-1 is (n**2 - 1) / 12
    assert fitted["scale"] == [pytest.approx(np.sqrt((32**2 - 1) / 12), rel=1e-15)]
    assert len(test) == 8


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("digts",),
            2,
            r"bpcore: unknown data set 'digts'; .*Did you mean 'digits'\? Or give the path of a file: \.csv",
        ),
        (("nothing.csv", "--target", "y"), 2, r"there is no file nothing\.csv"),
        (("FLOWERS",), 2, r"which column is the target\? Name it with --target; the columns are width, kind, length"),
        (("FLOWERS", "--target", "kin"), 2, r"unknown column .*'kin'; .*Did you mean 'kind'"),
        (("FLOWERS", "--target", "kind", "--layers", "4,x"), 2, r"--layers is '4,x'; expected widths"),
        (("FLOWERS", "--target", "kind", "--layers", "0"), 2, r"--layers is '0'"),
        (("FLOWERS", "--target", "kind", "--activation", "rleu"), 2, r"unknown activation 'rleu'.*'relu'"),
        (("FLOWERS", "--target", "kind", "--output", "softmx"), 2, r"unknown activation 'softmx'.*'softmax'"),
        (("FLOWERS", "--target", "kind", "--loss", "huge"), 2, r"unknown loss 'huge'"),
        (("FLOWERS", "--target", "kind", "--optimizer", "adm"), 2, r"unknown optimizer 'adm'.*'adam'"),
        (("FLOWERS", "--target", "kind", "--optimizer", "lbfgs", "--eta", "1"), 2, r"--eta has no meaning for lbfgs"),
        (("FLOWERS", "--target", "kind", "--batch-size", "many"), 2, r"--batch-size is 'many'"),
        (("FLOWERS", "--target", "kind", "--batch-size", "0"), 2, r"batch_size"),
        (("FLOWERS", "--target", "kind", "--epochs", "0"), 2, r"epochs is 0; it must be"),
        (("FLOWERS", "--target", "kind", "--dropout", "1.5"), 2, r"dropout rate is 1\.5"),
        (("FLOWERS", "--target", "kind", "--test-fraction", "1"), 2, r"test fraction must be between 0 and 1"),
        (("FLOWERS", "--target", "kind", "--dtype", "float16"), 2, r"dtype float16 is not supported"),
        (("FLOWERS", "--target", "kind", "--seed", "-1"), 2, r"seed"),
        (("FLOWERS", "--target", "kind", "--task", "ranking"), 2, r"unknown task 'ranking'; known: auto"),
        (("LINE", "--target", "2", "--loss", "cross_entropy"), 2, r"is for classes, but the target '2' is a number"),
        (("FLOWERS", "--target", "kind", "--save", "nowhere/m"), 2, r"there is no folder .*nowhere; create it first"),
        (("FLOWERS", "--target", "kind", "--backend", "cupi"), 2, r"unknown backend 'cupi'.*'cupy'"),
        (("LINE", "--target", "2", "--eta", "1e20"), 1, r"not finite"),
        (("digits", "--target", "y"), 2, r"--target is for files; the target of the data set 'digits' is fixed"),
        (("FLOWERS", "--nonsense"), 2, r"No such option"),
        (("FLOWERS", "--epochs", "x"), 2, r"Invalid value"),
    ],
)
def test_errors_are_one_line_on_standard_error(
    bpcore: Run, flowers: Path, line: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    files = {"FLOWERS": flowers, "LINE": line}
    result = bpcore("train", *(files.get(word, word) for word in words), code=code)
    assert re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    if result.stderr.startswith("bpcore: "):
        assert result.stderr.count("\n") == 1


def test_an_unwritable_path_is_found_before_the_training(
    bpcore: Run, flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bpcore as bp

    monkeypatch.setattr(bp, "train", lambda *args, **options: pytest.fail("trained in vain"))
    bpcore("train", flowers, "--target", "kind", "--save", flowers.parent, code=2)


def test_unusable_backend_has_its_own_code(bpcore: Run, flowers: Path) -> None:
    import bpcore as bp
    from bpcore.backends.contract import Probe
    from bpcore.backends.registry import register_backend

    class Broken(type(bp.get_backend("numpy"))):  # type: ignore[misc]
        @classmethod
        def probe(cls) -> Probe:
            return Probe(False, "it is broken", "mend it")

    register_backend("broken", lambda: Broken)
    try:
        result = bpcore("train", flowers, "--target", "kind", "--backend", "broken", code=3)
    finally:
        register_backend("broken", None)
    assert re.search(r"bpcore: backend 'broken' cannot run.*it is broken", result.stderr)


def test_debug_shows_where_an_error_came_from(flowers: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bpcore", "--debug", "train", str(flowers)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode != 0
    assert "Traceback" in result.stderr
    assert "DataError" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs to send SIGINT to one process")
def test_interrupt_ends_cleanly_and_saves(flowers: Path, tmp_path: Path) -> None:
    from bpcore.persistence import load_model

    model = tmp_path / "m.safetensors"
    words = ["train", str(flowers), "--target", "kind", "--epochs", "1000000", "-v", "--save", str(model)]
    # a test run in the background has SIGINT switched off, and its children inherit that
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bpcore.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *words],
        env={**os.environ, "BPCORE_BACKEND": "numpy"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for row in process.stdout:
        if row.startswith("epoch  10"):
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted by Ctrl-C" in rest
    assert errors == ""
    assert load_model(model, backend="numpy").meta["classes"] == ["rose", "tulip"]


def test_missing_values_categories_and_groups(bpcore: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    lines = ["size,colour,site,kind"]
    for i in range(120):
        colour = ("red", "green", "blue")[i % 3]
        size = "" if i % 7 == 0 else f"{rng.normal(5 * (i % 3), 0.5):.3f}"
        lines.append(f"{size},{'NA' if i % 11 == 0 else colour},s{i // 10},{'rose' if i % 3 == 0 else 'tulip'}")
    path, model = tmp_path / "t.csv", tmp_path / "m.safetensors"
    path.write_text("\n".join(lines) + "\n")
    refused = bpcore("train", path, "--target", "kind", "--group", "site", "--text", "one-hot", code=2)
    assert "line 2, column 'size': the value is missing" in refused.stderr
    words = ["train", path, "--target", "kind", "--group", "site", "--text", "one-hot", "--missing", "median"]
    result = json.loads(bpcore(*words, "--json", "--save", model, "--patience", "3").stdout)
    assert result["sizes"][0] == 4  # the size, and three colours
    parts = [result["data"][part] for part in ("train", "validation", "test")]
    assert sum(parts) == 120
    assert all(part % 10 == 0 for part in parts)  # whole groups
    assert result["test"]["accuracy"] > 0.9
    measured = json.loads(bpcore("evaluate", model, path, "--json").stdout)
    assert measured["samples"] == 120
    assert measured["accuracy"] > 0.9
    predicted = bpcore("predict", model, path).stdout.splitlines()
    assert len(predicted) == 121
    path.write_text("size,colour\n1.0,pink\n")
    assert "'pink' is not one of the categories" in bpcore("predict", model, path, code=2).stderr


def test_the_fill_is_that_of_the_training_part(bpcore: Run, tmp_path: Path) -> None:
    """The last rows are held out: what they hold must not move the mean."""
    path, model = tmp_path / "t.csv", tmp_path / "m.safetensors"
    rows = [f"{i % 2},{i}" for i in range(80)] + [f"{10_000},{i}" for i in range(20)]
    rows[3] = ",3"
    path.write_text("a,y\n" + "\n".join(rows) + "\n")
    bpcore("train", path, "--target", "y", "--split-order", "--missing", "mean", "--save", model, *FAST)
    from bpcore import load

    steps = load(model).meta["preprocessing"]["steps"]
    column = np.array([i % 2 for i in range(80) if i != 3])
    assert steps[0] == {"kind": "imputer", "values": [pytest.approx(column.mean(), rel=1e-15)], "how": "mean"}
    assert steps[1]["mean"] == [pytest.approx(column.mean(), rel=1e-15)]


def test_a_folder_of_mnist(bpcore: Run, tmp_path: Path) -> None:
    rng, model = np.random.default_rng(0), tmp_path / "m.safetensors"
    for name, m in (("train", 300), ("t10k", 50)):
        y = rng.integers(0, 3, m)
        images = rng.integers(0, 60, (m, 4, 4)).astype(np.uint8)
        images[np.arange(m), y, y] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", y.astype(np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    result = json.loads(bpcore("train", tmp_path, "--json", "--save", model, "--epochs", 5).stdout)
    assert (result["data"]["train"], result["data"]["test"], result["sizes"][0]) == (300, 50, 16)
    assert result["test"]["accuracy"] == 1
    assert json.loads(bpcore("evaluate", model, tmp_path, "--json").stdout)["samples"] == 50
    tested, its_labels = tmp_path / "t10k-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    assert json.loads(bpcore("evaluate", model, tested, "--labels", its_labels, "--json").stdout)["accuracy"] == 1
    assert len(bpcore("predict", model, tested).stdout.splitlines()) == 51
    words = ["train", tested, "--labels", its_labels, "--json", *FAST]
    assert json.loads(bpcore(*words).stdout)["data"]["test"] == 10
    assert "samples for testing of its own" in bpcore("train", tmp_path, "--split-order", code=2).stderr


@pytest.mark.parametrize("words", [(), ("--split-order",), ("--patience", 5), ("--no-stream",)])
def test_from_the_disk(bpcore: Run, flowers: Path, tmp_path: Path, words: tuple[Any, ...]) -> None:
    model, cache = tmp_path / "m.safetensors", tmp_path / "cache"
    cache.mkdir()
    where = () if "--no-stream" in words else ("--cache", cache)
    result = json.loads(
        bpcore("train", flowers, "--target", "kind", "--json", "--save", model, "--epochs", 40, *where, *words).stdout
    )
    assert sum(result["data"][part] for part in ("train", "validation", "test")) == 60
    assert (result["data"]["validation"] > 0) is ("--patience" in words)
    assert result["data"]["classes"] == ["rose", "tulip"]
    assert result["test"]["accuracy"] == 1
    on_disk = result["record"]["data"]["why"] == "the data is in a store on disk"
    assert on_disk is ("--no-stream" not in words)
    assert list(cache.iterdir()) == []
    assert json.loads(bpcore("evaluate", model, flowers, "--json").stdout)["accuracy"] == 1


def test_numbers_from_the_disk_are_measured_in_their_units(bpcore: Run, tmp_path: Path) -> None:
    model, line = tmp_path / "m.safetensors", tmp_path / "line.csv"
    A = np.random.default_rng(2).normal(size=(100, 3))
    y = 300 + A @ [20, -10, 1]  # the last column is noise
    line.write_text("".join(f"{a:.6f},{b:.6f},{t:.6f}\n" for (a, b, _), t in zip(A, y, strict=True)))
    words = ["train", line, "--target", "2", "--json", "--save", model, "--layers", "none", "--epochs", 200]
    test = json.loads(bpcore(*words, "--eta", "0.05", "--stream", "--split-order").stdout)["test"]
    assert test["r2"] > 0.99
    text = line.read_text().splitlines()[-20:]
    rest = tmp_path / "rest.csv"
    rest.write_text("\n".join(text) + "\n")
    measured = json.loads(bpcore("evaluate", model, rest, "--json").stdout)
    for name in ("mse", "rmse", "mae"):
        assert test[name] == pytest.approx(measured[name], rel=1e-4)


def test_large_files_are_trained_from_the_disk(bpcore: Run, flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.cli import inputs

    monkeypatch.setattr(inputs, "LARGE", 100)
    words = ["train", flowers, "--target", "kind", "--json", *FAST]
    assert json.loads(bpcore(*words).stdout)["record"]["data"]["placement"] == "streamed"
    assert json.loads(bpcore(*words, "--optimizer", "lbfgs").stdout)["record"]["data"]["placement"] == "resident"
    assert "does not go with a store on disk" in bpcore(*words, "--stream", "--batch-size", "full", code=2).stderr
    assert "there is no folder" in bpcore(*words, "--cache", "nowhere", code=2).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--missing", "avg"), r"unknown value for --missing 'avg'; known: refuse, mean"),
        (("--text", "drop"), r"unknown value for --text 'drop'; known: refuse, one-hot"),
        (("--group", "sight"), r"unknown column in .* 'sight'"),
        (("--group", "width", "--split-order"), r"--split-order and --group are two ways"),
        (("--group", "width", "--split-order", "--stream"), r"choose one"),
        (("--labels", "y.npy"), r"--labels is for \.npy and IDX files"),
        (("--labels", "y.npy", "--stream"), r"--labels is for \.npy and IDX files"),
    ],
)
def test_choices_of_data_that_have_no_meaning(bpcore: Run, flowers: Path, words: Any, message: str) -> None:
    assert re.search(message, bpcore("train", flowers, "--target", "kind", *words, code=2).stderr)
