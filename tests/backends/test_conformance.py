"""Every backend, and the base class that each begins from, through the conformance suite."""

from __future__ import annotations

import inspect

import pytest

from bpcore.backends.contract import Backend, native_operations
from bpcore.backends.ops import OPS
from tests.backends.conformance import CASES, run_all, run_case

JUDGED = list(dict.fromkeys(case.op for case in CASES))


def run_cases(be, op, dtype):
    """Run all cases of one operation and report every one that fails, not only the first."""
    failures = []
    for case in CASES:
        if case.op == op:
            try:
                run_case(be, case, dtype)
            except Exception as error:
                failures.append(f"{case.name}: {type(error).__name__}: {error}")
    if failures:
        pytest.fail(f"{op} on {be.name}, {dtype}: {len(failures)} cases failed\n" + "\n".join(failures), pytrace=False)


@pytest.mark.parametrize("op", JUDGED)
def test_backend(backend, dtype, op):
    run_cases(backend, op, dtype)


@pytest.mark.parametrize("op", JUDGED)
def test_base_class(dtype, op):
    run_cases(Backend(), op, dtype)


def test_every_operation_of_the_table_has_cases():
    judged = {case.op for case in CASES}
    assert set(OPS) <= judged
    for op in OPS:
        assert sum(case.op == op for case in CASES) >= 10, op
    names = [(case.op, case.name) for case in CASES]
    assert len(set(names)) == len(names), "two cases have one name"


def test_run_all_counts_its_checks():
    assert run_all(Backend(), ops=["take_rows"]) == 2 * sum(case.op == "take_rows" for case in CASES)


@pytest.mark.parametrize("op", OPS)
def test_signatures_are_those_of_the_contract(backend, op):
    own, contract = (inspect.signature(getattr(kind, op)) for kind in (type(backend), Backend))
    assert list(own.parameters) == list(contract.parameters)
    for name, parameter in contract.parameters.items():
        assert own.parameters[name].kind == parameter.kind, name
        assert own.parameters[name].default == parameter.default, name


def test_native_operations_are_a_lookup(backend):
    native = native_operations(type(backend))
    assert native <= set(OPS)
    assert "elementwise" in native
    assert native_operations(Backend) == set()
    assert backend.describe()["native"] == sorted(native)


def test_describe_is_data(backend):
    import json

    facts = backend.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == backend.name
    assert facts["device"] == backend.device
    assert backend.name in repr(backend)
    backend.synchronize()
    assert all(isinstance(value, int) for value in backend.memory().values())


def test_the_table_counts_work():
    sizes = {"m": 3, "k": 5, "n": 7, "p": 11}
    assert OPS["matmul"].flops(sizes) == 2 * 3 * 5 * 7
    assert OPS["matmul"].elements(sizes) == 15 + 35 + 21
    assert OPS["column_sums"].elements(sizes) == 21 + 7
    for op in OPS.values():
        assert op.flops(sizes) >= 0
        assert op.elements(sizes) > 0
        assert op.reduction(sizes) >= 1
        assert "->" in op.signature or "program" in op.signature
