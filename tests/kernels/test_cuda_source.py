"""Printing of element-wise kernels: which arguments they take, and what is left to the host."""

from __future__ import annotations

import pytest

from bpcore.functions.program import Program
from bpcore.kernels.cuda.source import print_elementwise, translation_unit, unit_source


def test_scalars_are_combined_on_the_host() -> None:
    program = Program("m = beta*m + (1 - beta)*g; theta = theta - eta*(1 - beta)*m", ("m", "theta"))
    kernel = print_elementwise(program, dict(m="full", g="full", theta="full", beta="scalar", eta="scalar"))
    assert kernel.arrays == ("m", "g", "theta")
    assert kernel.numbers == ("beta", "host0", "host1")
    assert str(kernel.host) == "host0 = 1 - beta; host1 = eta * (1 - beta)"
    assert kernel.flat
    assert "v_m = v_beta * v_m + v_host0 * v_g;" in kernel.text


def test_a_scalar_temporary_keeps_the_value_of_its_line() -> None:
    program = Program("c = 2*k; a = c*x; c = c + 1; b = c*x", ("a", "b"))
    kernel = print_elementwise(program, {"k": "scalar", "x": "full"})
    assert str(kernel.host) == "host0 = 2 * k; host1 = host0 + 1"
    assert "v_a = v_host0 * v_x;" in kernel.text
    assert "v_b = v_host1 * v_x;" in kernel.text


def test_a_scalar_condition_is_tested_on_numbers_of_the_host() -> None:
    kernel = print_elementwise(Program("h = where(k*k > 2 and x > 0, x, k)"), {"k": "scalar", "x": "full"})
    assert str(kernel.host) == "host0 = k**2" or str(kernel.host) == "host0 = k * k"
    assert "v_host0 > T(2.0) && v_x > T(0.0)" in kernel.text


def test_a_scalar_output_is_written_everywhere() -> None:
    kernel = print_elementwise(Program("h = k + 1"), {"k": "scalar"})
    assert (kernel.arrays, kernel.numbers, kernel.flat) == ((), ("host0",), True)


def test_a_scalar_name_that_becomes_an_array() -> None:
    kernel = print_elementwise(Program("y = k*x; k = k + y; h = k*x", ("h",)), {"k": "scalar", "x": "full"})
    assert kernel.host is None
    assert "    v_k = v_k + v_y;" in kernel.text


def test_names_do_not_collide_with_those_of_the_host() -> None:
    kernel = print_elementwise(Program("h = host0 * (k + 1)"), {"host0": "full", "k": "scalar"})
    assert kernel.numbers == ("host1",)


def test_kinds_choose_the_addressing() -> None:
    kernel = print_elementwise(Program("h = z*w + b + c"), {"z": "full", "b": "row", "w": "column", "c": "one"})
    assert not kernel.flat
    for text in ("v_b = a_b[column]", "v_c = a_c[0]", "a_w[row]", "a_z[i]", "/* (n,) */", "/* (m,) */", "/* (1,) */"):
        assert text in kernel.text


def test_equal_programs_print_equal_text_and_others_another_name() -> None:
    kinds = {"z": "full"}
    first = print_elementwise(Program("h = 2*z", name="Twice, please"), kinds)
    assert first == print_elementwise(Program("h = 2*z", name="Twice, please"), kinds)
    assert first.name.startswith("formula_twice_please_")
    assert first.name != print_elementwise(Program("h = 3*z", name="Twice, please"), kinds).name
    assert first.name != print_elementwise(Program("h = 2*z", name="Twice, please"), {"z": "one"}).name


def test_units_start_with_their_element_type() -> None:
    assert unit_source("random", "float64").startswith("typedef double T;\n")
    with pytest.raises(KeyError):
        translation_unit("float16", ())
