"""Names of contenders: a backend, with a precision, a plan, or both."""

from __future__ import annotations

import pytest

from bpcore.bench.contender import Contender, parse_contender, parse_contenders, usable_contenders
from bpcore.bench.evidence import LOSS_TOLERANCE, TOLERANCE
from bpcore.errors import ConfigurationError, UnknownNameError
from bpcore.training.plans import plans_on
from bpcore.training.precision import LOWER, plans_in


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("numba", Contender("numba", "float32")),
        (" CuPy:TF32 ", Contender("cupy", "tf32")),
        ("cupy:graph", Contender("cupy", "float32", "graph")),
        ("cupy:bf16:fused", Contender("cupy", "bf16", "fused")),
        ("cupy:fused:bf16", Contender("cupy", "bf16", "fused")),
        ("cupy:float32:persistent", Contender("cupy", "float32", "persistent")),
        ("numba:auto", Contender("numba", "float32")),
    ],
)
def test_names_are_read(word: str, expected: Contender) -> None:
    assert parse_contender(word, "float32") == expected
    assert parse_contender(expected.name, "float32") == expected, "and what is shown is a name"


@pytest.mark.parametrize("precision", LOWER)
def test_each_precision_goes_with_the_plans_that_compute_in_it(precision: str) -> None:
    """Whichever there are: the list is that of training, and what is measured in it can be judged."""
    for plan in plans_on("cupy"):
        word = f"cupy:{precision}:{plan}"
        if plan == "auto" or plan in plans_in(precision):
            assert parse_contender(word, "float32").plan == plan
        else:
            with pytest.raises(ConfigurationError, match=f"plan {plan} does not compute in {precision}; use cupy:"):
                parse_contender(word, "float32")
    assert precision in TOLERANCE
    assert precision in LOSS_TOLERANCE


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cupy:tf32:bf16", "names more than one precision, tf32 and bf16; write each as a contender of its own"),
        ("cupy:graph:wide", "names more than one plan, graph and wide"),
        ("numba:graph", "backend numba has no plan graph; its plans: auto, reference, compiled"),
        ("numpy:compiled", "backend numpy has no plan compiled; its plans: auto, reference"),
        ("cupy:bf16:graph", "use cupy:bf16:wide or cupy:bf16:fused, or cupy:graph"),
        ("cupy:float64", "all networks of a measurement have the same dtype, here float32; use --dtype float64"),
        ("numba:bf16", "precision bf16 is one of a GPU, for networks of float32; use cupy:bf16 with --dtype float32"),
    ],
)
def test_what_does_not_go_together_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{word!r}") as raised:
        parse_contender(word, "float32")
    assert message in str(raised.value)


def test_what_is_unknown_is_said_with_what_is_possible_on_that_backend() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown precision or plan 'compild'; known: .*reference, compiled"
    ) as raised:
        parse_contender("numba:compild", "float32")
    assert "graph" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="for networks of float32"):
        parse_contender("cupy:bf16", "float64")


def test_everyone_takes_part_once_and_numpy_always() -> None:
    words = ["cupy:bf16:fused", "numba", "numba:auto", "numpy"]
    assert [contender.name for contender in parse_contenders(words, "float32")] == ["numpy", "cupy:bf16:fused", "numba"]
    assert parse_contenders([], "float64") == [Contender("numpy", "float64")]


@pytest.mark.parametrize(("capability", "reduced"), [((9, 0), ["cupy:tf32", "cupy:bf16"]), ((7, 5), [])], ids=str)
@pytest.mark.usefixtures("fake_backend")
def test_a_gpu_takes_part_in_the_precisions_that_it_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reduced: list[str]
) -> None:
    monkeypatch.setattr("tests.backends.fake_cupy.CAPABILITY", capability)
    found, absent = usable_contenders("float32")
    names = [contender.name for contender in found]
    assert names[0] == "numpy"
    assert [name for name in names if name.startswith("cupy")] == ["cupy", *reduced]
    assert set(absent) == {"cupy:tf32", "cupy:bf16"} - set(reduced)
    assert [contender.name for contender in usable_contenders("float64")[0] if "cupy" in contender.name] == ["cupy"]
