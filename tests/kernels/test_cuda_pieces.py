"""Every declared piece of a step as it is printed for the GPU: activations with their derivatives, each loss behind
each output that it takes, penalties and update rules; against references that share no formula with them.

Plans are tested on networks, each of which has one loss, one output and one rule. Here are all of them, in one source:
the pieces of each step in a namespace of its own, and behind a row-wise output the kernel that ends a step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.losses import LOSSES, get_loss
from bpcore.functions.penalties import L1, L2, Penalty
from bpcore.kernels.cuda import host_runner, source
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.pieces import StepPieces
from bpcore.training.device_steps import device_pieces, penalty_prices, step_numbers
from bpcore.training.spec import StepSpec
from tests.functions.test_update_rules import CASES as RULES
from tests.functions.test_update_rules import STEPS
from tests.functions.test_update_rules import Problem as Quadratic
from tests.helpers.compare import assert_close
from tests.helpers.reference import ELEMENTWISE, Reference, targets_for
from tests.helpers.reference import LOSSES as PLAIN_LOSSES
from tests.kernels.test_cuda_compile import compiler

__all__ = ["compiler"]

on_the_cpu = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")

ROWS, OUTPUTS = 7, 5
HIDDEN = tuple(name for name, act in ACTIVATIONS.items() if act.differentiable and not act.rowwise)
PENALTIES = {"L1": L1(0.3), "L2": L2(0.2), "both": L1(0.3) + L2(0.2), "own": Penalty("own", "0.1 * w * w * w")}


def fits(loss: str, output: str) -> bool:
    """Whether a network may end so."""
    try:
        LOSSES[loss].check_output(ACTIVATIONS[output])
    except ConfigurationError:
        return False
    return bool(ACTIVATIONS[output].differentiable)


PAIRS = [
    (loss, output, weighted) for loss in LOSSES for output in ACTIVATIONS if fits(loss, output) for weighted in (0, 1)
]


def pieces_of(
    dtype: Any,
    *,
    hidden: tuple[str, ...] = (),
    output: str = "identity",
    loss: str = "mse",
    rule: Any = None,
    **others: Any,
) -> tuple[StepPieces, StepSpec]:
    """Print the pieces of a step."""
    names = (*hidden, output)
    sizes = (3, *(4 for _ in hidden), OUTPUTS)
    activations = tuple(ACTIVATIONS[name] for name in names)
    spec = StepSpec(sizes, activations, get_loss(loss), rule or bp.SGD(0.1), ROWS, np.dtype(dtype), **others)
    return device_pieces(spec), spec


_POINTS = """
extern "C" __global__ void {name}(const T* z, const T* y, T* h, T* delta, T* terms, const T* scales, long long n,
                                  long long p) {{
    for (long long i = grid_index(); i < p; i += grid_size()) {{
        h[i] = {space}::activate(0, z[i]);
        {space}::output_error(z[i], h[i], y[i], T(0), scales[i / n], terms[i], delta[i]);
    }}
}}
"""
_HIDDEN = """
extern "C" __global__ void hidden(int code, const T* z, const T* g, T* h, T* delta, long long p) {
    for (long long i = grid_index(); i < p; i += grid_size()) {
        h[i] = hiddens::activate(code, z[i]);
        delta[i] = hiddens::backprop(code, g[i], z[i], h[i]);
    }
}
"""
_RULE = """
extern "C" __global__ void {name}(T* theta, const T* g, T* s0, T* s1, T* s2, T* s3, const T* numbers, long long p) {{
    T* const states[] = {{s0, s1, s2, s3}};
    for (long long i = grid_index(); i < p; i += grid_size()) {{
        T own[{space}::STATES + 1];
        for (int s = 0; s < {space}::STATES; ++s) own[s] = states[s][i];
        {space}::update(theta[i], g[i], own, numbers);
        for (int s = 0; s < {space}::STATES; ++s) states[s][i] = own[s];
    }}
}}
"""
_PRICE = """
extern "C" __global__ void {name}(const T* g, const T* w, T* out, const T* prices, long long p) {{
    for (long long i = grid_index(); i < p; i += grid_size()) out[i] = {space}::penalise(g[i], w[i], prices);
}}
"""


def space(name: str, *texts: str) -> str:
    """Put texts in a namespace; kernels in it get its name in front of theirs, because they are not in it for C."""
    text = "\n".join(texts)
    kernels = sorted(set(re.findall(r"__global__ void (\w+)\(", text)))
    for kernel in kernels:
        text = re.sub(rf"\b{kernel}\(", f"{name}_{kernel}(", text)
    seen = "\n".join(f"using {name}::{name}_{kernel};" for kernel in kernels)
    return f"namespace {name} {{\n{text}\n}}\n{seen}"


_NEEDED = ("scalar", "memory", "team", "philox", "rowwise")


def losses(dtype: Any, chosen: Iterable[int]) -> list[str]:
    """Text of some of the pairs, with kernels that call them."""
    texts = []
    of_a_row = [source.cuda_text(file) for file in ("step", "records", "output")]
    for k in chosen:
        loss, output, weighted = PAIRS[k]
        pieces, _ = pieces_of(dtype, output=output, loss=loss, weighted=bool(weighted))
        rowwise = bool(ACTIVATIONS[output].rowwise)
        texts.append(space(f"pair{k}", pieces.text, *(of_a_row if rowwise else [])))
        if not rowwise:
            texts.append(_POINTS.format(name=f"points{k}", space=f"pair{k}"))
    return texts


@cache
def unit(dtype: Any, chosen: tuple[int, ...] = tuple(range(len(PAIRS)))) -> str:
    """Text of all pieces, or of some of the pairs and all others, with kernels that call them."""
    texts = losses(dtype, chosen)
    texts += [space("hiddens", pieces_of(dtype, hidden=HIDDEN)[0].text), _HIDDEN]
    for name, (rule, _, _) in RULES.items():
        texts.append(space(f"rule_{name}", pieces_of(dtype, rule=rule)[0].text))
        texts.append(_RULE.format(name=f"move_{name}", space=f"rule_{name}"))
    for name, penalty in PENALTIES.items():
        texts.append(space(f"price_{name}", pieces_of(dtype, penalty=penalty)[0].text))
        texts.append(_PRICE.format(name=f"pay_{name}", space=f"price_{name}"))
    return source.translation_unit(dtype, _NEEDED, *texts)


@pytest.fixture
def module(kernel_folder: Path, dtype: Any) -> HostModule:
    return HostModule(unit(dtype), kernel_folder)


def p_of(array: Any) -> Any:
    return np.int64(array.size)


# ------------------------------------------------------------------------------------------ losses behind outputs


def at_the_output(k: int, dtype: Any) -> tuple[Any, Any, Any]:
    """Z, Y and the weights of a pair."""
    loss, output, weighted = PAIRS[k]
    rng = np.random.default_rng(k)
    Z, Y = rng.normal(size=(ROWS, OUTPUTS)) * 1.5, targets_for(loss, rng, ROWS, OUTPUTS)
    if output == "hard_sigmoid":  # beyond 3 it is 0 or 1, where logarithms end
        Z = np.clip(Z, -2.75, 2.75)
        if weighted:
            Z[2] = -4.0  # the sample of weight 0 has an infinite loss
    weights = rng.uniform(0.2, 2, ROWS) if weighted else np.ones(ROWS)
    weights[2] = 0.0 if weighted else 1.0
    return Z.astype(dtype), Y.astype(dtype), weights.astype(dtype)


def expected_at(k: int, Z: Any, Y: Any, scales: Any) -> tuple[Any, Any, Any]:
    """H, the terms of the loss and Delta in float64, by SciPy and full Jacobians."""
    loss, output, _ = PAIRS[k]
    one = np.eye(OUTPUTS), np.zeros(OUTPUTS)
    reference = Reference([one], [output], loss)
    Z, Y = Z.astype(np.float64), Y.astype(np.float64)
    H = reference.forward(Z)[1][-1]
    mean = PLAIN_LOSSES[loss][2]
    value = PLAIN_LOSSES[loss][0](reference._prediction(H), Y)
    with np.errstate(all="ignore"):
        # dX behind an identity matrix is Delta, with 1 / ROWS and the mean over outputs inside
        Delta = reference.gradients(Z, Y)[1] * ROWS * (OUTPUTS if mean else 1)
    scale, here = scales[:, None], scales[:, None] > 0
    return H, scale * np.where(here, value, 0), scale * np.where(here, Delta, 0)


def steep(loss: str, H: Any, Y: Any) -> Any:
    """By how much the loss multiplies what H is off: of a logarithm, one over its distance from the end."""
    if loss not in ("cross_entropy", "binary_cross_entropy"):
        return 1.0
    probability = np.exp(H) if (H <= 0).all() else H
    nearest = np.minimum(probability, 1 - probability) if loss == "binary_cross_entropy" else probability
    return 1 / np.clip(nearest, 1e-3, None)


@on_the_cpu
@pytest.mark.parametrize("k", range(len(PAIRS)), ids=["-".join(map(str, pair)) for pair in PAIRS])
def test_every_loss_behind_every_output_that_it_takes(module: HostModule, dtype: Any, k: int) -> None:
    judge(module, dtype, k)


def judge(module: HostModule, dtype: Any, k: int) -> None:
    """Compare a pair with the reference, in both forms of the kernel where there is one for whole rows."""
    loss, output, weighted = PAIRS[k]
    Z, Y, weights = at_the_output(k, dtype)
    H, Delta, terms = (np.full_like(Z, np.nan) for _ in range(3))
    scales = np.ascontiguousarray(weights / 4)
    wanted_H, wanted_terms, wanted_Delta = expected_at(k, Z, Y, scales.astype(np.float64))
    if ACTIVATIONS[output].rowwise:
        index, record = np.arange(ROWS)[::-1].copy(), np.full((3, 1), np.nan)
        table = np.zeros(11, np.int64)
        Y_of, weights_of = (np.ascontiguousarray(array[::-1]) for array in (Y, weights))  # found by number
        for column, array in ((1, Y_of), (3, weights_of), (4, index), (5, record)):
            table[column] = array.ctypes.data
        table[7] = 1
        arguments = table, np.int32(0), Z, H, Delta, scales, dtype.type(0.25), np.zeros(2)
        sizes = np.int64(ROWS), np.int64(OUTPUTS)
        module.launch(f"pair{k}_output_narrow", (1,), (64,), (*arguments, *sizes, np.int32(8)), seed=k % 4)
        assert_close(record[:1, 0].astype(dtype), wanted_terms.sum(keepdims=True)[0], dtype=dtype, length=35, factor=32)
        wide = np.full_like(Z, np.nan)
        arguments = table, np.int32(0), Z, H, wide, scales, dtype.type(0.25), np.zeros(2)
        module.launch(f"pair{k}_output_wide", (1,), (64,), (*arguments, *sizes), seed=k % 4)
        assert_close(wide, wanted_Delta, dtype=dtype, factor=32, scale=scale_of(loss, wanted_H, Y, wanted_Delta))
    else:
        arguments = Z, Y, H, Delta, terms, scales, np.int64(OUTPUTS), p_of(Z)
        module.launch(f"points{k}", (1,), (32,), arguments)
        assert_close(terms, wanted_terms, dtype=dtype, factor=32, scale=np.abs(wanted_terms) + steep(loss, wanted_H, Y))
    assert_close(H, wanted_H, dtype=dtype, factor=16, scale=np.abs(wanted_H) + 1)
    assert_close(Delta, wanted_Delta, dtype=dtype, factor=32, scale=scale_of(loss, wanted_H, Y, wanted_Delta))
    if weighted:
        assert (Delta[2] == 0).all(), "a sample of weight 0 moves nothing"


def scale_of(loss: str, H: Any, Y: Any, Delta: Any) -> Any:
    return np.abs(Delta) + steep(loss, H, Y)


# A change of the text, and the pair that notices it.
MISTAKES = {
    "the Jacobian of log-softmax": ("exp_(h[j]) * inner", "h[j] * inner", ("mse", "log_softmax", 0)),
    "the Jacobian of softmax": ("error * out : error", "error : error", ("huber", "softmax", 0)),
    "no Jacobian": ("!PAIRED", "PAIRED", ("quadratic", "softmax", 0)),
    "a Jacobian too many": ("bool PAIRED = true", "bool PAIRED = false", ("cross_entropy", "softmax", 0)),
    "the derivative of the output": ("v_h * (T(1.0) - v_h)", "v_h", ("mse", "sigmoid", 0)),
    "weights of samples": ("WEIGHTED && columns ? scales[row] : scale", "scale", ("hinge", "softmax", 1)),
    "a weight of 0": ("v_scale == T(0.0)", "v_scale == T(9.0)", ("cross_entropy", "hard_sigmoid", 1)),
}


@on_the_cpu
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(kernel_folder: Path, name: str) -> None:
    old, new, pair = MISTAKES[name]
    dtype, k = np.dtype("float64"), PAIRS.index(pair)
    text = source.translation_unit(dtype, _NEEDED, *losses(dtype, [k]))
    judge(HostModule(text, kernel_folder), dtype, k)
    assert old in text, f"{old!r} is not in the text: the mistake is out of date"
    with pytest.raises(AssertionError):
        judge(HostModule(text.replace(old, new), kernel_folder), dtype, k)


# ------------------------------------------------------------------------------------------ activations


@on_the_cpu
@pytest.mark.parametrize("name", HIDDEN)
def test_every_activation_and_its_derivative(module: HostModule, dtype: Any, name: str) -> None:
    code = pieces_of(dtype, hidden=HIDDEN)[0].codes[HIDDEN.index(name)]
    rng = np.random.default_rng(1)
    z, g = (rng.normal(size=400).astype(dtype) * 3 for _ in range(2))
    h, delta = np.full_like(z, np.nan), np.full_like(z, np.nan)
    module.launch("hidden", (2,), (64,), (np.int32(code), z, g, h, delta, p_of(z)))
    value, slope = ELEMENTWISE[name]
    assert_close(h, value(z.astype(np.float64)), dtype=dtype, factor=16, scale=np.abs(z) + 1)
    expected = g.astype(np.float64) * slope(z.astype(np.float64))
    assert_close(delta, expected, dtype=dtype, factor=32, scale=np.abs(g) * (np.abs(z) + 1))


# ------------------------------------------------------------------------------------------ rules and penalties


@on_the_cpu
@pytest.mark.parametrize("name", RULES)
def test_every_update_rule_for_ten_steps(module: HostModule, dtype: Any, name: str) -> None:
    """Against a loop by hand in float64, whose parameters the kernel's gradients are taken from."""
    rule, loop, _ = RULES[name]
    problem = Quadratic(np.random.default_rng(3))
    path = loop(problem)
    pieces, spec = pieces_of(dtype, rule=rule)
    theta = problem.start.astype(dtype)
    states = [np.full_like(theta, rule.state_init[state]) for state in spec.rule.state]
    table, _ = step_numbers(
        rule, pieces.update, 0, [rule.schedule.at(t, 0) for t in range(STEPS)], rule.initial_running()
    )
    points = [problem.start, *path[:-1]]
    for t, where in enumerate(points):
        g = problem.gradient(where).astype(dtype)
        numbers = np.ascontiguousarray(table[t].astype(dtype))
        unused = [np.zeros_like(theta)] * (4 - len(states))
        module.launch(f"move_{name}", (1,), (32,), (theta, g, *states, *unused, numbers, p_of(theta)))
    # each step rounds theta and the state a dozen times; Adadelta divides by roots that begin at 1e-3
    assert_close(theta, path[-1], dtype=dtype, length=STEPS, factor=64, scale=np.abs(path[-1]) + 1)


@on_the_cpu
@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty(module: HostModule, dtype: Any, name: str) -> None:
    pieces, spec = pieces_of(dtype, penalty=PENALTIES[name])
    rng = np.random.default_rng(2)
    g, w = (rng.normal(size=100).astype(dtype) for _ in range(2))
    w[:3] = 0
    prices = penalty_prices(spec, pieces.penalty).astype(dtype)
    out = np.full_like(g, np.nan)
    module.launch(f"pay_{name}", (1,), (32,), (g, w, out, prices, p_of(g)))
    W = w.astype(np.float64)
    slope = {"L1": 0.3 * np.sign(W), "L2": 0.2 * W, "both": 0.3 * np.sign(W) + 0.2 * W, "own": 0.3 * W * W}[name]
    assert_close(out, g.astype(np.float64) + slope, dtype=dtype, scale=np.abs(g) + np.abs(slope))


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "dtype"), [("sm_80", "float64"), ("sm_90", "float32")])
def test_all_pieces_compile(compiler: Callable[[str, str], bytes], arch: str, dtype: str) -> None:
    """Behind rows one loss that is paired with them and one that is not: their kernels take the compiler longest."""
    chosen = [
        k
        for k, (loss, output, weighted) in enumerate(PAIRS)
        if not weighted and (loss in ("cross_entropy", "mse") or not ACTIVATIONS[output].rowwise)
    ]
    code = compiler(unit(np.dtype(dtype), tuple(chosen)), arch)
    names = [f"pair{k}_output_wide" if ACTIVATIONS[PAIRS[k][1]].rowwise else f"points{k}" for k in chosen]
    names += ["hidden", *(f"move_{name}" for name in RULES), *(f"pay_{name}" for name in PENALTIES)]
    assert [name for name in names if name.encode() not in code] == []
