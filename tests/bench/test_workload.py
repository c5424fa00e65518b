"""What a step is said to cost, counted once more by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bpcore.bench.workload import PARTS, STATE_VECTORS, Workload
from bpcore.functions.update_rules import SGD, Adam

SMALL = Workload("train", (3, 4, 2), "tanh", "softmax", "cross_entropy", "momentum", 5, 50, 6, 0.1)


def test_operations_counted_by_hand() -> None:
    # forward 2*5*(3*4 + 4*2) = 200, BP4 the same, BP2 through W of the second layer 2*5*2*4 = 80
    assert SMALL.flops() == 480
    assert replace(SMALL, kind="predict").flops() == 200
    found = {part: flops for part, (flops, _) in SMALL.parts().items() if flops}
    assert found == {"forward": 200, "BP2": 80, "BP4": 200}


def test_bytes_counted_by_hand() -> None:
    # X of 5 rows by 3 read and written, and their numbers: 2*15 + 5 = 35; so Y: 2*10 + 5 = 25
    gather = 35 + 25
    # H @ W: 15 + 12 + 20 = 47 and 20 + 8 + 10 = 38; H = act(Z + b), one read and one written: 2*20 and 2*10
    forward = 47 + 38 + 40 + 20
    # outputs and targets read, Delta written: 3*10
    bp1 = 30
    # Delta @ W.T of the second layer: 10 + 8 + 20 = 38; Delta * act'(Z), two read and one written: 3*20
    bp2 = 38 + 60
    # Delta read, db written: 10 + 2 and 20 + 4
    bp3 = 12 + 24
    # H.T @ Delta: 20 + 10 + 8 = 38 and 15 + 20 + 12 = 47
    bp4 = 38 + 47
    # theta of 3*4+4 + 4*2+2 = 26 numbers read and written, the gradient read, the velocity read and written
    update = 5 * 26
    parts = dict(zip(PARTS, (gather, forward, bp1, bp2, bp3, bp4, update), strict=True))
    assert {part: moved for part, (_, moved) in SMALL.parts().items()} == {name: 4 * n for name, n in parts.items()}
    assert SMALL.bytes() == 4 * sum(parts.values()) == 4 * 584
    assert replace(SMALL, kind="predict").bytes() == 4 * forward
    assert replace(SMALL, optimizer="adam").bytes() - SMALL.bytes() == 4 * 2 * 26, "one vector more, read and written"
    assert replace(SMALL, optimizer="sgd").bytes() - SMALL.bytes() == -4 * 2 * 26
    assert replace(SMALL, precision="float64").bytes() == 2 * SMALL.bytes()
    # the whole data set is not gathered: of 50 rows X would be 2*150 + 50, Y 2*100 + 50
    assert replace(SMALL, batch=50).bytes() - replace(SMALL, batch=50, rows=51).bytes() == -4 * (350 + 250)
    assert "gather" not in replace(SMALL, batch=50).parts()


def test_no_bp2_without_a_hidden_layer() -> None:
    flat = replace(SMALL, sizes=(3, 2))
    assert [operation.part for operation in flat.operations] == [
        "gather", "gather", "forward", "forward", "BP1", "BP3", "BP4", "update",
    ]  # fmt: skip


@pytest.mark.parametrize("sizes", [(2, 3), (5, 7, 3), (4, 6, 6, 6, 1)])
def test_products_are_those_of_the_four_equations(sizes: tuple[int, ...]) -> None:
    """Counted once more by multiplying matrices."""
    work, counted = replace(SMALL, sizes=sizes), []

    def product(A: Any, B: Any) -> Any:
        counted.append((*A.shape, B.shape[1]))
        return A @ B

    H, W = [np.ones((work.batch, sizes[0]))], [np.ones(pair) for pair in itertools.pairwise(sizes)]
    for matrix in W:
        H.append(product(H[-1], matrix))
    delta = H[-1]
    for l in range(len(W) - 1, -1, -1):
        assert product(H[l].T, delta).shape == W[l].shape
        if l:
            delta = product(delta, W[l].T)
    found = [operation.sizes for operation in work.operations if operation.name == "matmul"]
    assert sorted((s["m"], s["k"], s["n"]) for s in found) == sorted(counted)
    assert work.flops() == sum(2 * m * k * n for m, k, n in counted)


def test_vectors_of_state_are_those_of_the_rules() -> None:
    assert {"sgd": len(SGD().state), "momentum": len(SGD(momentum=0.9).state), "adam": len(Adam().state)} == (
        STATE_VECTORS
    )


def test_the_dtype_is_that_of_weights() -> None:
    found = {name: replace(SMALL, precision=name).dtype for name in ("float32", "float64", "tf32", "bf16")}
    assert found == {"float32": np.float32, "float64": np.float64, "tf32": np.float32, "bf16": np.float32}


def test_fields_come_back_from_json() -> None:
    fields = SMALL.as_json()
    assert Workload.from_json({**fields, "sizes": list(fields["sizes"])}) == SMALL


def test_memory_grows_with_what_must_be_held() -> None:
    # 50 rows of 3 + 2 and a label; 4 quantities of 9 neurons for 5 rows; theta, gradient, velocity and two more
    assert SMALL.memory() == 4 * (50 * 6 + 5 * 4 * 9 + 5 * 26)
    assert replace(SMALL, precision="float64").memory() == 2 * SMALL.memory()
