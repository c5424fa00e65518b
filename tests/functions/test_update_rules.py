"""Ten steps of every update rule against plain NumPy loops and PyTorch; the conduct of rules; what is refused."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from bpcore.errors import ConfigurationError, FormulaError, UnknownNameError
from bpcore.functions.expression import evaluate
from bpcore.functions.schedules import Constant, Cosine, Step
from bpcore.functions.update_rules import (
    SGD,
    UPDATE_RULES,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AMSGrad,
    Lion,
    Momentum,
    NAdam,
    Nesterov,
    RMSprop,
    UpdateRule,
    get_update_rule,
)

STEPS = 10
TEXT: Any = "a"


class Problem:
    """A random quadratic with gradients of very different sizes."""

    def __init__(self, rng, n=12):
        A = rng.normal(size=(n, n))
        self.A, self.c = A @ A.T / n, rng.normal(size=n) * np.logspace(-3, 1, n)
        self.start = rng.normal(size=n)

    def gradient(self, theta):
        return self.A @ theta - self.c


def run(rule, problem, steps=STEPS, epoch_length=1000):
    """Interpret a rule line by line: the documented step, without any backend."""
    theta, running = problem.start.copy(), rule.initial_running()
    state = {name: np.full_like(theta, first) for name, first in rule.state_init.items()}
    path = []
    for t in range(1, steps + 1):
        eta = rule.schedule.at(t - 1, (t - 1) // epoch_length)
        scalars, running = rule.host_scalars(t, eta, running)
        values = {"theta": theta, "g": problem.gradient(theta), **state, **rule.constants(eta, scalars)}
        assert set(values) >= set(rule.program.inputs)
        for target, expr in rule.program.assignments:
            values[target] = evaluate(expr, values)
        theta, state = values["theta"], {name: values[name] for name in rule.state}
        path.append(theta)
    return np.array(path)


# Hand-written loops: each takes (problem, eta) and returns the path of theta. Written from the papers, in the
# conventions of PyTorch's documentation, one component operation at a time.


def loop(step):
    def path(problem):
        theta, out = problem.start.copy(), []
        memory: dict[str, Any] = {}
        for t in range(1, STEPS + 1):
            theta = step(theta, problem.gradient(theta), memory, t)
            out.append(theta)
        return np.array(out)

    return path


def zeros(memory, *names, like):
    for name in names:
        memory.setdefault(name, np.zeros_like(like))


@loop
def sgd(theta, g, memory, t):
    return theta - 0.05 * g


@loop
def momentum(theta, g, memory, t):
    zeros(memory, "v", like=g)
    memory["v"] = 0.8 * memory["v"] + g
    return theta - 0.05 * memory["v"]


@loop
def nesterov(theta, g, memory, t):
    zeros(memory, "v", like=g)
    memory["v"] = 0.8 * memory["v"] + g
    return theta - 0.05 * (g + 0.8 * memory["v"])


@loop
def adagrad(theta, g, memory, t):
    memory.setdefault("s", np.full_like(g, 0.1))
    memory["s"] = memory["s"] + g**2
    return theta - 0.05 * g / (np.sqrt(memory["s"]) + 1e-10)


@loop
def rmsprop(theta, g, memory, t):
    zeros(memory, "s", like=g)
    memory["s"] = 0.95 * memory["s"] + 0.05 * g**2
    return theta - 0.05 * g / (np.sqrt(memory["s"]) + 1e-3)


@loop
def adadelta(theta, g, memory, t):
    zeros(memory, "s", "u", like=g)
    memory["s"] = 0.8 * memory["s"] + 0.2 * g**2
    change = np.sqrt(memory["u"] + 1e-6) / np.sqrt(memory["s"] + 1e-6) * g
    memory["u"] = 0.8 * memory["u"] + 0.2 * change**2
    return theta - 1.5 * change


def moments(g, memory, t, beta1=0.8, beta2=0.95):
    zeros(memory, "m", "v", like=g)
    memory["m"] = beta1 * memory["m"] + (1 - beta1) * g
    memory["v"] = beta2 * memory["v"] + (1 - beta2) * g**2
    return memory["m"] / (1 - beta1**t), memory["v"] / (1 - beta2**t)


@loop
def adam(theta, g, memory, t):
    m, v = moments(g, memory, t)
    return theta - 0.05 * m / (np.sqrt(v) + 1e-3)


@loop
def amsgrad(theta, g, memory, t):
    zeros(memory, "vmax", like=g)
    m, _ = moments(g, memory, t)
    memory["vmax"] = np.maximum(memory["vmax"], memory["v"])
    return theta - 0.05 * m / (np.sqrt(memory["vmax"] / (1 - 0.95**t)) + 1e-3)


@loop
def adamw(theta, g, memory, t):
    m, v = moments(g, memory, t)
    return theta * (1 - 0.05 * 0.1) - 0.05 * m / (np.sqrt(v) + 1e-3)


@loop
def nadam(theta, g, memory, t):
    _, v = moments(g, memory, t)
    mu, mu_next = (0.8 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
    memory["product"] = memory.get("product", 1.0) * mu
    ahead = mu_next * memory["m"] / (1 - memory["product"] * mu_next)
    here = (1 - mu) * g / (1 - memory["product"])
    return theta - 0.05 * (ahead + here) / (np.sqrt(v) + 1e-3)


@loop
def lion(theta, g, memory, t):
    zeros(memory, "m", like=g)
    direction = np.sign(0.8 * memory["m"] + (1 - 0.8) * g)
    memory["m"] = 0.95 * memory["m"] + (1 - 0.95) * g
    return theta - 0.05 * (direction + 0.1 * theta)


BETAS = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
# name: (rule, hand-written loop, name and arguments in torch.optim)
CASES: dict[str, tuple[UpdateRule, Any, Any]] = {
    "sgd": (SGD(0.05), sgd, ("SGD", {})),
    "momentum": (SGD(0.05, momentum=0.8), momentum, ("SGD", {"momentum": 0.8})),
    "nesterov": (
        SGD(0.05, momentum=0.8, nesterov=True),
        nesterov,
        ("SGD", {"momentum": 0.8, "nesterov": True}),
    ),
    "adagrad": (Adagrad(0.05, initial=0.1), adagrad, ("Adagrad", {"initial_accumulator_value": 0.1})),
    "rmsprop": (RMSprop(0.05, alpha=0.95, eps=1e-3), rmsprop, ("RMSprop", {"alpha": 0.95, "eps": 1e-3})),
    "adadelta": (Adadelta(1.5, rho=0.8), adadelta, ("Adadelta", {"lr": 1.5, "rho": 0.8})),
    "adam": (Adam(0.05, **BETAS), adam, ("Adam", {"betas": (0.8, 0.95), "eps": 1e-3})),
    "amsgrad": (
        AMSGrad(0.05, **BETAS),
        amsgrad,
        ("Adam", {"betas": (0.8, 0.95), "eps": 1e-3, "amsgrad": True}),
    ),
    "adamw": (
        AdamW(0.05, **BETAS, weight_decay=0.1),
        adamw,
        ("AdamW", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ),
    "nadam": (NAdam(0.05, **BETAS), nadam, ("NAdam", {"betas": (0.8, 0.95), "eps": 1e-3})),
    "lion": (Lion(0.05, 0.8, 0.95, weight_decay=0.1), lion, None),
}
# ten steps of a dozen roundings each on a problem of moderate condition: a few hundred ulp
RTOL, ATOL = 1e-12, 1e-13


def torch_path(problem, optimizer_name, arguments):
    import torch

    theta = torch.tensor(problem.start, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, optimizer_name)([theta], **arguments)
    path = []
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # NAdam keeps the product of its momenta in the default dtype
    try:
        for _ in range(STEPS):
            theta.grad = torch.tensor(problem.gradient(theta.detach().numpy()))
            optimizer.step()
            path.append(theta.detach().numpy().copy())
    finally:
        torch.set_default_dtype(usual)
    return np.array(path)


def test_every_rule_is_tested():
    assert set(CASES) == set(UPDATE_RULES)
    assert all(rule.name == name for name, (rule, _, _) in CASES.items())


@pytest.mark.parametrize("name", CASES)
def test_against_a_plain_loop(name, rng):
    rule, expected, _ = CASES[name]
    problem = Problem(rng)
    np.testing.assert_allclose(run(rule, problem), expected(problem), rtol=RTOL, atol=ATOL)


@pytest.mark.witness
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2]])
def test_against_pytorch(name, rng):
    rule, _, (optimizer, arguments) = CASES[name]
    problem = Problem(rng)
    witness = torch_path(problem, optimizer, {"lr": 0.05, **arguments})
    np.testing.assert_allclose(run(rule, problem), witness, rtol=RTOL, atol=ATOL)


@pytest.mark.witness
@pytest.mark.parametrize(
    ("rule", "optimizer", "arguments"),
    [
        (RMSprop(), "RMSprop", {}),
        (Adagrad(), "Adagrad", {}),
        (Adadelta(), "Adadelta", {}),
        (Adam(), "Adam", {}),
        (AMSGrad(), "Adam", {"amsgrad": True}),
        (AdamW(), "AdamW", {}),
        (NAdam(), "NAdam", {}),
    ],
    ids=lambda value: value.name if isinstance(value, UpdateRule) else "",
)
def test_defaults_are_those_of_pytorch(rule, optimizer, arguments, rng):
    problem = Problem(rng)
    np.testing.assert_allclose(run(rule, problem), torch_path(problem, optimizer, arguments), rtol=RTOL, atol=ATOL)


def test_lion_defaults_are_those_of_the_paper():
    rule = Lion()
    assert rule.schedule == Constant(1e-4)
    assert rule.hyper == {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}


@pytest.mark.parametrize("rule", [case[0] for case in CASES.values()], ids=CASES)
def test_first_step_goes_downhill(rule, rng):
    problem = Problem(rng)
    first = run(rule.bind(eta=1e-4), problem, steps=1)[0] - problem.start
    assert first @ problem.gradient(problem.start) < 0


@pytest.mark.parametrize("rule", [case[0] for case in CASES.values()], ids=CASES)
def test_rules_are_values(rule):
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule
    assert hash(copy) == hash(rule)
    assert rule.bind() == rule
    assert rule.bind(eta=0.123) != rule
    assert rule.program.outputs == ("theta", *rule.state)
    assert rule.source
    with pytest.raises(AttributeError):
        rule.name = "other"
    rule.hyper["beta1"] = 5.0
    rule.state_init["m"] = 5.0
    assert copy == rule


def test_momentum_zero_needs_no_state():
    assert SGD(0.1).state == ()
    assert SGD(0.1) != SGD(0.1, momentum=0.9)
    assert SGD(0.1, momentum=0.9) == Momentum(0.1, 0.9)
    assert SGD(0.1, momentum=0.9, nesterov=True) == Nesterov(0.1, 0.9)


def test_eta_is_always_a_schedule():
    assert SGD(0.1).schedule == Constant(0.1)
    stairs = Step(0.1, every=3, factor=0.5)
    assert Adam(stairs).schedule is stairs


def test_a_schedule_is_followed(rng):
    problem = Problem(rng)
    schedule = Cosine(0.05, total=STEPS)
    theta = problem.start.copy()
    for t, after in enumerate(run(SGD(schedule), problem)):
        theta = theta - 0.05 * (1 + math.cos(math.pi * t / STEPS)) / 2 * problem.gradient(theta)
        np.testing.assert_allclose(after, theta, rtol=RTOL, atol=ATOL)


def test_host_scalars_are_float64_and_leave_their_input_alone():
    rule = NAdam(0.01)
    running = rule.initial_running()
    scalars, after = rule.host_scalars(1, 0.01, running)
    assert running == {"product": 1.0}
    assert after == {"product": scalars["product"]}
    assert after["product"] == pytest.approx(0.9 * (1 - 0.5 * 0.96**0.004), rel=1e-15)
    assert all(type(value) is float for value in scalars.values())
    assert Adam().host_scalars(3, 0.01)[0]["d2"] == 1 - 0.999
    assert SGD(0.1).host_scalars(1, 0.1) == ({}, {})


def test_late_steps_stay_finite():
    scalars, _ = Adam().host_scalars(10**9, 0.001)
    assert scalars["step"] == 0.001
    assert scalars["root"] == 1.0


def test_constants_are_exactly_what_the_program_reads():
    for rule, _, _ in CASES.values():
        scalars, _ = rule.host_scalars(1, 0.05)
        constants = rule.constants(0.05, scalars)
        assert tuple(constants) == rule.scalar_names
        assert {*constants, "theta", "g", *rule.state} >= set(rule.program.inputs)
        assert set(constants) <= set(rule.program.inputs)


def test_ones_own_rule(rng):
    problem = Problem(rng)
    heavy = UpdateRule("heavy", "v = mu*v + g; theta = theta - eta*v", state=("v",), hyper={"mu": 0.8}, eta=0.05)
    np.testing.assert_array_equal(run(heavy, problem), run(Momentum(0.05, 0.8), problem))
    assert UpdateRule("one", "v = v + g\ntheta = theta - eta*v", state="v").state == ("v",)


def test_bind():
    rule = Adam().bind(eta=0.5, beta1=0.7)
    assert rule.hyper == {"beta1": 0.7, "beta2": 0.999, "eps": 1e-8}
    assert rule.schedule == Constant(0.5)
    # what was cached for the old values must not survive
    old = Momentum(mu=0.5)
    assert old.constants(1.0, {})["mu"] == 0.5
    assert old.bind(mu=0.25).constants(1.0, {})["mu"] == 0.25
    with pytest.raises(UnknownNameError, match=r"unknown hyper parameter of update rule 'adam' 'beta'; .*mean 'beta"):
        Adam().bind(beta=0.5)
    with pytest.raises(ConfigurationError, match=r"adam: beta1 must be a finite number in \[0, 1\), got 1"):
        Adam().bind(beta1=1)


def test_get_update_rule():
    assert get_update_rule("AdamW", eta=0.1, weight_decay=0.2) == AdamW(0.1, weight_decay=0.2)
    assert get_update_rule(Adam()) == Adam()
    assert get_update_rule(Adam(), eta=0.1) == Adam(0.1)
    with pytest.raises(UnknownNameError, match=r"unknown update rule 'adm'.*Did you mean 'adam'\?"):
        get_update_rule("adm")
    with pytest.raises(UnknownNameError, match="unknown update rule 5"):
        get_update_rule(5)  # type: ignore[arg-type]


def test_scalars_that_fail_say_when():
    rule = UpdateRule("bad", "theta = theta - r*g", scalars="r = 1 / (t - 3)")
    assert rule.host_scalars(4, 0.1)[0] == {"r": 1.0}
    with pytest.raises(ConfigurationError, match=r"bad: the scalars 'r = 1 / \(t - 3\)' fail at t=3: .*division"):
        rule.host_scalars(3, 0.1)


@pytest.mark.parametrize(
    ("program", "extra", "message"),
    [
        ("v = mu*v + g", {"state": ("v",), "hyper": {"mu": 0.9}}, "x: never assigns 'theta'; it assigns v"),
        ("theta = theta - g", {"state": ("v",)}, "x: never assigns 'v'; it assigns theta"),
        (
            "theta = theta - eta*gg",
            {},
            r"x: line 1: unknown name 'gg'; known: theta, g, eta, pi, e\n  theta - eta\*gg\n {14}\^ position 13",
        ),
        ("a = g; theta = theta - b", {}, "x: line 2: unknown name 'b'; known: theta, g, eta, a, pi, e"),
        ("theta = theta - eta*t*g", {}, r"x: line 1 \(t can be read in scalars\): unknown name 't'"),
        (
            "v = mu*v + g; theta = theta - eta*v",
            {"hyper": {"mu": 0.9}},
            r"x: line 1, v = mu\*v \+ g: reads 'v' before it has a value.*declare state=\('v',\)",
        ),
        (
            "theta = theta - eta*m; m = g",
            {},
            r"x: line 1, theta = theta - eta\*m: reads 'm' before it has a value.*state=\('m',\)",
        ),
        ("g = 2*g; theta = theta - eta*g", {}, "x: line 1, g = 2.g: assigns 'g', which may only be read"),
        ("mu = 1; theta = theta - mu*g", {"hyper": {"mu": 0.9}}, "assigns 'mu', which may only be read"),
        ("d = 1; theta = theta - d*g", {"scalars": "d = 2"}, "assigns 'd', which may only be read"),
        ("theta - eta*g", {}, "expected 'name = formula', found 'theta - eta.g'"),
        ("theta = theta - ", {}, "position"),
        ("theta = theta - r*g", {"scalars": "r = q"}, "x scalars: line 1: unknown name 'q'; known: t, eta|q"),
        (
            "theta = theta - s*g",
            {"scalars": "s = s + 1"},
            r"x scalars: .*reads 's' before.*running=\{'s': 0\.0\}",
        ),
        (
            "theta = theta - g",
            {"running": {"s": 0}},
            "x: the running number 's' is never assigned; write scalars",
        ),
        (
            "theta = theta - r*g",
            {"running": {"s": 0}, "scalars": "r = 1"},
            "x scalars: never assigns 's'; it assigns r",
        ),
        (
            "theta = theta - g",
            {"scalars": "theta = 1"},
            "x scalars: line 1.*assigns 'theta', which may only be read",
        ),
        ("theta = theta - g", {"scalars": "r = theta"}, "x scalars: line 1: unknown name 'theta'"),
        (
            "v = g; theta = theta - v",
            {"state": ("v",), "scalars": "v = 1"},
            "x scalars: line 1.*assigns 'v', which may only be read",
        ),
    ],
)
def test_programs_that_are_refused(program, extra, message):
    with pytest.raises(FormulaError, match=message):
        UpdateRule("x", program, **extra)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"hyper": {"mu": math.nan}}, r"x: mu must be a finite number in \(-inf, inf\), got nan"),
        (
            {"hyper": {"mu": 2}, "ranges": {"mu": "[0, 1]"}},
            r"x: mu must be a finite number in \[0, 1\], got 2",
        ),
        ({"hyper": {"eta": 1}}, "x: the hyper parameter 'eta' is already a name of every update rule"),
        (
            {"hyper": {"e": 1}},
            "x: the hyper parameter 'e' is already a name of the formula language; rename it",
        ),
        ({"hyper": {"exp": 1}}, "x: the hyper parameter 'exp' is already a name of the formula language"),
        ({"state": ("v",), "hyper": {"v": 1}}, "x: the hyper parameter 'v' is already a name of a state"),
        ({"state": ("v", "v")}, "x: the state 'v' is already a name of a state"),
        ({"running": {"t": 1}}, "x: the running number 't' is already a name of every update rule"),
        ({"running": {"s": "a"}, "scalars": "s = s"}, "x: first s must be a finite number"),
        ({"eta": 0}, r"the learning rate eta must be a finite number in \(0, inf\), got 0"),
    ],
)
def test_numbers_and_names_that_are_refused(extra, message):
    with pytest.raises(ConfigurationError, match=message):
        UpdateRule("x", "theta = theta - eta*g", **extra)


def test_unknown_names_in_ranges_and_first_values():
    with pytest.raises(UnknownNameError, match=r"unknown hyper parameter of update rule 'x' 'nu'; known: mu\."):
        UpdateRule("x", "theta = theta - mu*g", hyper={"mu": 1}, ranges={"nu": "[0, 1]"})
    with pytest.raises(UnknownNameError, match=r"unknown state of update rule 'x' 'w'; known: v\."):
        UpdateRule("x", "v = g; theta = theta - v", state=("v",), state_init={"w": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "the learning rate eta must be"),
        (lambda: SGD(0.1, momentum=1.5), r"momentum: mu must be a finite number in \[0, 1\], got 1.5"),
        (lambda: SGD(0.1, momentum=-0.5), r"momentum: mu must be a finite number in \[0, 1\], got -0.5"),
        (lambda: SGD(0.1, nesterov=True), "SGD: nesterov=True needs momentum > 0, for example momentum=0.9"),
        (lambda: Adagrad(eps=0), r"adagrad: eps must be a finite number in \(0, inf\), got 0"),
        (lambda: Adagrad(initial=-1), r"adagrad: initial must be a finite number in \[0, inf\), got -1"),
        (lambda: RMSprop(alpha=1), r"rmsprop: alpha must be a finite number in \[0, 1\), got 1"),
        (lambda: Adadelta(rho=-0.1), r"adadelta: rho must be a finite number in \[0, 1\), got -0.1"),
        (lambda: Adam(beta2=1.0), r"adam: beta2 must be a finite number in \[0, 1\), got 1.0"),
        (lambda: AMSGrad(eps=-1), r"amsgrad: eps must be a finite number in \(0, inf\), got -1"),
        (
            lambda: AdamW(weight_decay=-1),
            r"adamw: weight_decay must be a finite number in \[0, inf\), got -1",
        ),
        (lambda: NAdam(momentum_decay=-1), r"nadam: momentum_decay must be .* \[0, inf\), got -1"),
        (
            lambda: Lion(weight_decay=TEXT),
            r"lion: weight_decay must be a finite number in \[0, inf\), got 'a'",
        ),
    ],
)
def test_hyper_parameters_out_of_range(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
