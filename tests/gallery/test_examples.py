"""Every example finds the known numbers on every backend, and a planted error makes it fail."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import pkgutil
import re
import socket
import sys
from pathlib import Path

import pytest

import bpcore as bp
import bpcore.gallery
from bpcore.errors import MissingExtraError, UnknownNameError
from bpcore.functions.initializers import Normal
from bpcore.gallery import EXAMPLES, Check, Report, get_example, r11_initialisation, run_example, save_pictures
from bpcore.gallery.pictures import COLOURS

ROOT = Path(__file__).resolve().parents[2]
BY_KEY = pytest.mark.parametrize("key", EXAMPLES)


def failures(report):
    return [check.what for check in report.checks if not check.passed]


@functools.cache
def found_by_numpy(key):
    """What an example finds on NumPy, computed once for the tests of its numbers and of its pictures."""
    return run_example(EXAMPLES[key], "numpy")


@pytest.fixture
def offline(monkeypatch):
    """No socket leads anywhere."""

    def refuse(*_):
        raise AssertionError("an example went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@BY_KEY
def test_an_example_finds_the_known_numbers(key, backend, offline):
    report = found_by_numpy(key) if backend.name == "numpy" else run_example(EXAMPLES[key], backend)
    assert report.backend == backend.name
    assert failures(report) == []
    assert report.passed
    assert len(report.checks) >= 4
    assert report.tables
    assert report.pictures
    for table in report.tables:
        assert all(len(row) == len(table.header) for row in table.rows)


@pytest.mark.parametrize(
    "key",
    [*("R3 R5".split()), *(pytest.param(f"R{n}", marks=pytest.mark.long) for n in (1, 2, 4, 8, 9, 12, 14, 15, 16))],
)
def test_an_example_over_the_stand_in_of_a_gpu(key, fake_backend):
    """A device array refuses every implicit conversion, so what an example forgets to fetch is found here."""
    assert failures(run_example(EXAMPLES[key], fake_backend)) == []


@BY_KEY
def test_the_pictures_are_written(key, tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    report = found_by_numpy(key)
    paths = save_pictures(EXAMPLES[key], report, tmp_path / "new")
    assert len(paths) == len(report.pictures)
    in_docs = (ROOT / "docs" / "gallery").glob(f"r{EXAMPLES[key].number:02d}-*.png")
    assert {path.name for path in in_docs} == {path.name for path in paths}, (
        f"out of date: bpcore gallery {key} --out docs/gallery"
    )
    for path in paths:
        assert path.name.startswith(f"r{EXAMPLES[key].number:02d}-{EXAMPLES[key].name}-")
        with image.open(path) as picture:
            assert picture.width >= 600
            shades = picture.convert("L").histogram()
        assert 0.005 < 1 - max(shades) / sum(shades) < 0.95, "the picture is empty, or covered"


# ------------------------------------------------------------------------------------------ planted errors

PLANTED = {
    # example: module, name in it, wrong value, a check that must notice
    "R1": ("r01_linear_graph", "NODES", {"x": "2*w + 3*b", "y": "2*b + 1.01", "z": "x*y"}, "dz/dw"),
    "R2": ("r02_nonlinear_chain", "NODES", {"a": "x**2", "b": "log1p(a)", "c": "sqrt(b)"}, "iteration 1: b"),
    "R3": ("r03_one_variable", "ETA", 0.31, "x after 1 updates"),
    "R4": ("r04_two_variables", "ETA", 0.11, "updates"),
    "R5": ("r05_learning_rates", "START", -0.81, "eta 0.4: x after 1 updates"),
    "R6": (
        "r06_linear_regression",
        "REASONS",
        ("loss", "gradient", "reached 24 steps"),
        "stopped by number of updates",
    ),
    "R7": (
        "r07_saturated_neuron",
        "RUNS",
        {
            "quadratic, eta 0.15": ("mse", 0.15),  # twice the gradient
            "cross-entropy, eta 0.005": ("binary_cross_entropy", 0.005),
            "cross-entropy, eta 0.15": ("binary_cross_entropy", 0.15),
        },
        "quadratic, eta 0.15: output after 50",
    ),
    "R13": ("r13_dropout", "RATE", 0.01, "last validation loss, with over without"),
    "R14": ("r14_loss_shapes", "KNOWN", None, "huber at a = 2, y = 0"),
}


@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_error_is_noticed(key, monkeypatch):
    module, name, value, noticed = PLANTED[key]
    loaded = importlib.import_module(f"bpcore.gallery.{module}")
    monkeypatch.setattr(loaded, name, {**loaded.KNOWN, "huber": (2.0, 0.0, 2.0)} if value is None else value)
    if key == "R13":
        monkeypatch.setattr(loaded, "EPOCHS", 20)
    report = run_example(EXAMPLES[key], "numpy")
    assert not report.passed
    assert noticed in failures(report)


WRONG_SIGMOID = dataclasses.replace(bp.ACTIVATIONS["sigmoid"], derivative="h * (1.001 - h)", check=False)
WRONG_TANH = dataclasses.replace(bp.ACTIVATIONS["tanh"], derivative="1 - h", check=False)
WRONG_HUBER = dataclasses.replace(bp.LOSSES["huber"], derivative="clip(a - y, -2, 2)", check=False)


@pytest.mark.parametrize(
    ("key", "table", "wrong", "noticed"),
    [
        ("R7", bp.ACTIVATIONS, WRONG_SIGMOID, "quadratic: largest distance of dE/dz from h h (1 - h)"),
        ("R8", bp.ACTIVATIONS, WRONG_SIGMOID, "dE/dw1, engine against chain rule"),
        ("R8", bp.ACTIVATIONS, WRONG_SIGMOID, "dE/dw12, engine against differences"),
        ("R10", bp.ACTIVATIONS, WRONG_TANH, "Delta[3]: largest difference to the equation"),
        ("R14", bp.LOSSES, WRONG_HUBER, "huber: derivative against differences"),
        ("R16", bp.ACTIVATIONS, WRONG_SIGMOID, "sigmoid: derivative against differences"),
        ("R16", bp.ACTIVATIONS, WRONG_SIGMOID, "sigmoid'(0)"),
    ],
)
def test_a_wrong_derivative_is_noticed(key, table, wrong, noticed, cpu_backend, monkeypatch):
    monkeypatch.setitem(table, wrong.name, wrong)
    assert noticed in failures(run_example(EXAMPLES[key], cpu_backend))


@pytest.mark.parametrize("factor", [2.0, 1.001])
def test_an_error_of_the_output_that_is_too_large_is_noticed(factor, monkeypatch):
    """h - y times a factor, as if the mean were taken over another number of samples."""
    backward = bp.backward

    def wrong(*args, **kwargs):
        grads = backward(*args, **kwargs)
        for delta in grads.Delta:
            delta *= factor
        return grads

    monkeypatch.setattr(bp, "backward", wrong)
    assert "largest difference of dE/dz and (h - y) / N" in failures(run_example(EXAMPLES["R9"], "numpy"))


def test_a_gradient_that_does_not_vanish_is_noticed(monkeypatch):
    steep = dataclasses.replace(bp.ACTIVATIONS["sigmoid"], derivative="5 * h * (1 - h)", check=False)
    monkeypatch.setitem(bp.ACTIVATIONS, "sigmoid", steep)
    assert "sigmoid: largest |Delta[l]| as a share of its bound" in failures(run_example(EXAMPLES["R12"], "numpy"))


def test_weights_that_are_twice_as_wide_are_noticed(monkeypatch):
    wide = dataclasses.replace(bp.INITIALIZERS["improved"], W=Normal("2 / sqrt(n_in + 1)"))
    monkeypatch.setitem(bp.INITIALIZERS, "improved", wide)
    monkeypatch.setattr(r11_initialisation, "EPOCHS", 4)
    assert "N(0, 1/(p+1)): std(z), against the formula" in failures(run_example(EXAMPLES["R11"], "numpy"))


def test_an_entropy_of_the_wrong_base_is_noticed(monkeypatch):
    entropy = bp.entropy
    monkeypatch.setattr(bp, "entropy", lambda p, base="e": entropy(p))
    noticed = failures(run_example(EXAMPLES["R15"], "numpy"))
    assert "entropy of 2 equal events" in noticed


# ------------------------------------------------------------------------------------------ what they are made of


def test_checks():
    assert Check("x", 1.0, 1.1, "=", 0.1 + 1e-12).passed
    assert not Check("x", 1.0, 1.2, "=", 0.1).passed
    assert Check("x", 1.0, 1.0, "<=").passed
    assert not Check("x", 1.1, 1.0, "<=").passed
    assert not Check("x", 0.9, 1.0, ">=").passed
    for value in (math.nan, math.inf, -math.inf):
        for relation in ("=", "<=", ">="):
            assert not Check("x", value, 1.0, relation, 1e9).passed
    assert not Check("x", "a", "b", "is").passed
    report = Report("numpy")
    assert not report.passed, "nothing was checked"
    report.check("rounded", 0.98201, 0.9820, digits=4)
    assert report.passed
    report.check("rounded", 0.98206, 0.9820, digits=4)
    assert not report.passed


def test_the_list_is_complete():
    modules = [m.name for m in pkgutil.iter_modules(bpcore.gallery.__path__) if re.match(r"r\d\d_", m.name)]
    assert len(modules) == len(EXAMPLES) == 16
    assert list(EXAMPLES) == [f"R{n}" for n in range(1, 17)]
    assert len({example.name for example in EXAMPLES.values()}) == 16
    for example in EXAMPLES.values():
        assert get_example(example.name) is get_example(example.key.lower()) is example
        assert str(sys.modules[example.run.__module__].__doc__).startswith(f"{example.key}. ")
        assert len(example.equations) >= 2
        assert all(line == line.rstrip() for line in example.equations)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"unknown example 'droput'; known: R1, .*Did you mean 'dropout'\?"):
        get_example("droput")
    with pytest.raises(UnknownNameError, match="unknown format of pictures 'gif'; known: png, svg"):
        save_pictures(EXAMPLES["R3"], Report("numpy"), ".", "gif")


def test_pictures_need_matplotlib_and_numbers_do_not(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = run_example(EXAMPLES["R3"], "numpy")
    assert report.passed
    with pytest.raises(MissingExtraError, match=r"a picture of the gallery needs .*matplotlib.*bpcore\[plot\]"):
        save_pictures(EXAMPLES["R3"], report, tmp_path)


def test_a_picture_is_the_same_every_time(tmp_path):
    pytest.importorskip("matplotlib")
    report = run_example(EXAMPLES["R3"], "numpy")
    (first,), (second,) = (save_pictures(EXAMPLES["R3"], report, tmp_path / name, "svg") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert b"<svg" in first.read_bytes()


def test_pictures_leave_pyplot_and_the_settings_alone(monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = dict(matplotlib.rcParams.copy())
    save_pictures(EXAMPLES["R4"], run_example(EXAMPLES["R4"], "numpy"), tmp_path)
    assert dict(matplotlib.rcParams.copy()) == before


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_colours_are_visible_on_white():
    assert len(set(COLOURS)) == len(COLOURS)
    assert all(1.05 / (luminance(colour) + 0.05) >= 2 for colour in COLOURS)
