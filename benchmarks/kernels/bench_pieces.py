"""What the compiled plan calls of one declaration: activation, BP2, loss with BP1, penalty, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from benchmarks.kernels.costs import Cost, loop, program
from benchmarks.kernels.measuring import FLOAT32, measure
from benchmarks.peers.workloads import WORKLOADS
from bpcore.backprop import bp1_program, bp2_program, loss_program, sample_scale
from bpcore.bench.witness import output_and_loss
from bpcore.functions.activations import get_activation
from bpcore.functions.losses import get_loss
from bpcore.functions.penalties import L2
from bpcore.functions.program import Program
from bpcore.functions.update_rules import Adam
from bpcore.kernels.numba import pieces
from tests.helpers.compare import assert_close
from tests.helpers.reference import ELEMENTWISE

ROWS, COLUMNS = 64, 128
SIZE = ROWS * COLUMNS


class Places:
    """Matrices one after the other in one vector, as the plan keeps them; NaN until something is written."""

    def __init__(self, *names: str, size: int = SIZE) -> None:
        self.work = np.full(len(names) * size, np.nan, np.float32)
        self.at = {name: k * size for k, name in enumerate(names)}
        self.size = size

    def __getitem__(self, name: str) -> Any:
        return self.work[self.at[name] : self.at[name] + self.size]


@pytest.mark.parametrize("name", ["relu", "tanh", "softmax"])
def test_forward(benchmark: Any, rng: np.random.Generator, name: str) -> None:
    activation, places = get_activation(name), Places("z", "h")
    places["z"][:] = rng.normal(size=SIZE, scale=2)
    z = places["z"].astype(np.float64)
    if activation.rowwise:
        expected = softmax(z.reshape(ROWS, COLUMNS), axis=1).ravel()
        piece, cost = pieces.forward(name, FLOAT32), loop(SIZE, FLOAT32.itemsize, operations=5, arrays=2)
    else:
        code = Program({"h": activation.value_formula}, name=name)
        expected, piece = ELEMENTWISE[name][0](z), pieces.forward(code, FLOAT32)
        cost = program(code, ["z"], SIZE, FLOAT32.itemsize)

    def judge(_: Any) -> None:
        assert_close(places["h"], expected, dtype=FLOAT32, length=COLUMNS if activation.rowwise else 1)

    arguments = places.work, places.at["z"], places.at["h"], ROWS, COLUMNS
    measure(benchmark, lambda: piece(*arguments), judge, group=f"piece forward {name}", cost=cost)


def test_backward(benchmark: Any, rng: np.random.Generator) -> None:
    """Of relu: a second time it changes nothing, so E is of the same size in all calls."""
    code, places, e = bp2_program(get_activation("relu"), False), Places("e", "z", "h"), rng.normal(size=SIZE)
    places["z"][:], places["h"][:] = rng.normal(size=SIZE), 0
    first, piece = e.astype(np.float32), pieces.backward(code, FLOAT32)
    expected = np.where(places["z"] > 0, first.astype(np.float64), 0)
    arguments = places.work, *places.at.values(), ROWS, COLUMNS
    measure(
        benchmark, lambda: piece(*arguments), lambda _: assert_close(places["e"], expected, dtype=FLOAT32),
        group="piece backward relu", cost=program(code, ["delta", "z"], SIZE, FLOAT32.itemsize),
        reset=lambda: np.copyto(places["e"], first),
    )  # fmt: skip


OUTPUTS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "digits-small": (10, lambda z: softmax(z, axis=1)),
    "tabular": (1, expit),
    "regression-tiny": (1, lambda z: z),
    "nielsen": (10, expit),
}
"""Workloads whose loss is measured; the width of their outputs, and the output activation in float64."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_output(benchmark: Any, rng: np.random.Generator, name: str) -> None:
    work, (n, output) = WORKLOADS[name], OUTPUTS[name]
    loss, activation = get_loss(work.loss), get_activation(work.output)
    m, names = work.batch, ("z", "h", "y", "terms", "delta")
    places = Places(*names, size=m * n)
    z = rng.normal(size=(m, n), scale=2).astype(np.float32)
    y = np.eye(n)[rng.integers(0, n, m)] if n > 1 else rng.integers(0, 2, (m, 1)).astype(np.float64)
    places["z"][:], places["y"][:] = z.ravel(), y.ravel()
    places["h"][:] = output(z.astype(np.float64)).ravel()
    value, delta = output_and_loss(work, z.astype(np.float64), y)
    codes = loss_program(loss, activation, False), bp1_program(loss, activation, False)
    paired = loss.pair_with(activation) is not None
    piece = pieces.output(*codes, activation.rowwise, paired, False, FLOAT32)
    one, scale = np.full(8, np.nan), sample_scale(loss, n) / m
    arguments = places.work, *places.at.values(), m, n, scale, np.empty(0, np.float32), 0, one

    def judge(_: Any) -> None:
        # errors of h are as large as those of 1, and so are those of h - y
        assert_close(one[:1].astype(np.float32), np.array([value]), dtype=FLOAT32, length=m * n)
        assert_close(places["delta"], delta.ravel(), dtype=FLOAT32, scale=(1 + abs(z.ravel())) / m)

    read = [program(code, ["z", "h", "y", "logh"], m * n, FLOAT32.itemsize) for code in codes]
    # what both read is read once
    moved = len({name for code in codes for name in code.inputs if name in ("z", "h", "y", "logh")}) + 2
    cost = Cost(sum(part.flops for part in read), moved * m * n * FLOAT32.itemsize)
    measure(benchmark, lambda: piece(*arguments), judge, group=f"piece output {work.loss} ({m}, {n})", cost=cost)


def test_penalty(benchmark: Any, rng: np.random.Generator) -> None:
    """With a price so small that the gradient stays what it is over all calls; judged with a large one."""
    penalty = L2(1.0)
    piece = pieces.penalty(penalty.gradient, penalty.constants, FLOAT32)
    first, w = (rng.normal(size=SIZE).astype(np.float32) for _ in range(2))
    grad, small = first.copy(), np.array([1e-30] * len(penalty.constants) + [1.0])
    large = np.array([*penalty.constants.values(), 1.0])

    def judge(_: Any) -> None:
        grad[:] = first
        piece(grad, w, 0, SIZE, large)
        expected = first.astype(np.float64) + w  # of half the sum of squares
        assert_close(grad, expected, dtype=FLOAT32, scale=abs(first) + abs(w))
        grad[:] = first

    cost = program(penalty.gradient, ["g", "w"], SIZE, FLOAT32.itemsize)
    measure(benchmark, lambda: piece(grad, w, 0, SIZE, small), judge, group="piece penalty", cost=cost)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_update(benchmark: Any, rng: np.random.Generator, masked: bool) -> None:
    """Adam over a weight matrix; masked, a third of its rows and of its columns stay as they are."""
    rule, t, eta = Adam(), 3, 1e-3
    scalars, _ = rule.host_scalars(t, eta, {})
    known = rule.constants(eta, scalars)
    numbers = np.array([known[name] for name in rule.scalar_names])
    piece = pieces.update(rule.program, rule.scalar_names, rule.state, masked, FLOAT32)
    names = ("theta", "g", *rule.state)
    first = {name: rng.uniform(0.1, 1, SIZE).astype(np.float32) for name in names}
    arrays = {name: value.copy() for name, value in first.items()}
    keep = (rng.random(ROWS + COLUMNS) > 1 / 3).astype(np.float32) if masked else np.ones(ROWS + COLUMNS, np.float32)
    unused = [np.empty(0, np.float32)] * (pieces.MAX_STATES - len(rule.state))
    arguments = (*arrays.values(), *unused, 0, ROWS, COLUMNS, keep, 0, ROWS, numbers)

    g, (m, v) = first["g"].astype(np.float64), (first[name].astype(np.float64) for name in rule.state)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    moved = first["theta"] - eta * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    where = np.outer(keep[:ROWS], keep[ROWS:]).ravel() > 0
    expected = np.where(where, moved, first["theta"])

    def reset() -> None:
        for name in names:
            arrays[name][:] = first[name]

    def judge(_: Any) -> None:
        assert not np.array_equal(arrays["theta"], first["theta"])
        assert_close(arrays["theta"], expected, dtype=FLOAT32)

    cost = program(rule.program, names, int(where.sum()), FLOAT32.itemsize)
    measure(benchmark, lambda: piece(*arguments), judge, group="piece update adam", cost=cost, reset=reset)


def test_scalars(benchmark: Any) -> None:
    """What is computed once in a step of Adam: the factors that correct its means."""
    rule, t, eta = Adam(), 3.0, 1e-3
    piece = pieces.scalars(rule.scalars, rule.hyper, rule.initial_running(), rule.scalar_names, rule.name)
    numbers, one = np.full(len(rule.scalar_names), np.nan), np.zeros(8)
    expected = rule.constants(eta, rule.host_scalars(3, eta, {})[0])  # by plain Python
    arguments = t, eta, np.array(list(rule.hyper.values())), np.empty(0), numbers, one

    def judge(_: Any) -> None:
        assert one[0] == 1
        assert_close(numbers, np.array([expected[name] for name in rule.scalar_names]), dtype=np.float64)

    measure(benchmark, lambda: piece(*arguments), judge, group="piece scalars adam")
