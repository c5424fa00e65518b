"""Each equation of the explanation is bound to the function that computes it, in both directions."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from bpcore import backprop
from docs.extensions.equations import name_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "backpropagation.md"
BOUND = {
    "eq-forward": backprop.forward_into,
    "eq-bp1": backprop.bp1_output_delta,
    "eq-bp2": backprop.bp2_hidden_delta,
    "eq-bp3": backprop.bp3_bias_grad,
    "eq-bp4": backprop.bp4_weight_grad,
}


def named_by_label(text: str) -> dict[str, str]:
    """Map each label to what the page says from there to the heading after it."""
    parts = re.split(r"^\$\$ \((eq-[\w-]+)\)$", text, flags=re.M)
    rest = "".join(parts)
    return {label: re.split(r"^#", rest[rest.index(label) :], maxsplit=1, flags=re.M)[0] for label in parts[1::2]}


@pytest.mark.parametrize("label", BOUND)
def test_an_equation_names_its_function(label):
    words = named_by_label(PAGE.read_text("utf-8"))
    assert label in words, f"no equation is labelled ({label})"
    assert f"`{BOUND[label].__name__}`" in words[label]


@pytest.mark.parametrize("label", BOUND)
def test_a_function_refers_to_its_equation(label):
    assert re.findall(r":eq:`([^`]*)`", inspect.getdoc(BOUND[label]) or "") == [label]


def test_no_docstring_refers_to_an_equation_that_is_not_there():
    labels = set(named_by_label(PAGE.read_text("utf-8")))
    for function in (getattr(backprop, name) for name in backprop.__all__):
        assert set(re.findall(r":eq:`([^`]*)`", inspect.getdoc(function) or "")) <= labels


def test_names():
    assert [name_of(label) for label in ("eq-bp1", "eq-bp1-pair", "eq-forward")] == ["BP1", "bp1-pair", "forward"]
