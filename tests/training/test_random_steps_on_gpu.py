"""Random steps by the plans of a GPU, against the reference plan on NumPy: over the stand-in for CuPy, and on a GPU.

What a step consists of is drawn: widths, activations, a loss behind an output that it takes, the rule, dropout,
penalty, clipping, weights of samples. Rows of X may begin at any address.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.losses import LOSSES
from tests.functions.test_update_rules import CASES as RULES
from tests.helpers.compare import tolerance
from tests.helpers.reference import targets_for
from tests.test_random_networks import fits

ROWS, STEPS = 40, 3
HIDDEN = tuple(name for name, act in ACTIVATIONS.items() if act.differentiable)
PAIRS = [(loss, output) for loss in LOSSES for output in HIDDEN if fits(loss, output)]
PLANS = ("graph", "wide", "persistent")


class Drawn:
    """A step, its data, and what a plan makes of some of them."""

    def __init__(
        self,
        sizes: list[int],
        hidden: list[str],
        loss: str,
        output: str,
        rule: str,
        batch: int,
        weighted: bool = False,
        odd: bool = False,
        **others: Any,
    ) -> None:
        self.sizes, self.hidden, self.loss, self.output = sizes, hidden, loss, output
        self.rule, self.batch, self.odd, self.others = RULES[rule][0], batch, odd, others
        rng = np.random.default_rng(len(sizes) + 7 * batch)
        self.X, self.Y = rng.normal(size=(ROWS, sizes[0])), targets_for(loss, rng, ROWS, sizes[-1])
        self.weights = rng.choice([0.0, 0.5, 2.0], size=ROWS) if weighted else None
        self.order = rng.integers(0, ROWS, (STEPS, batch))

    def __repr__(self) -> str:
        told = f"{self.sizes} {self.hidden} {self.output} {self.loss} {self.rule.name}, batch {self.batch}"
        return f"<{told}, weighted {self.weights is not None}, {self.others}>"

    def run(self, be: Any, plan: str, dtype: str) -> dict[str, Any]:
        """Train a little; return losses, parameters, gradient and state in float64."""
        net = bp.MLP(self.sizes, self.hidden or "relu", self.output, seed=1, dtype=dtype, backend=be)
        trainer = bp.Trainer(net, self.loss, self.rule, batch_size=self.batch, seed=5, plan=plan, **self.others)
        X: Any = self.X.astype(dtype)
        if self.odd and be.name == "cupy":
            flat = be.asarray(np.concatenate([np.zeros(1, dtype), X.ravel()]))
            X = flat[1:].reshape(X.shape)
            assert X.data.ptr % 16
        records = trainer.run(X, self.Y, self.order, sample_weight=self.weights)
        used: Any = trainer._plan
        assert used.name == plan
        arrays = {"theta": net.theta, "gradient": used.gradient, **trainer.state.arrays}
        found = {name: np.array(be.to_numpy(array), np.float64) for name, array in arrays.items()}
        return found | {"loss": np.array(records.loss), "weight": np.array(records.weight)}


def compare(case: Drawn, be: CupyBackend, plan: str, dtype: str = "float64") -> None:
    wanted = case.run(bp.get_backend("numpy"), "reference", "float64")
    found = case.run(be, plan, dtype)
    allowed = 1e-9 if dtype == "float64" else 10 * tolerance(np.float32, length=STEPS * max(*case.sizes, case.batch))
    for name, array in wanted.items():
        scale = np.abs(array).max(initial=1e-6)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=allowed * scale, err_msg=f"{name} of {case}")


@st.composite
def steps(draw: Any) -> Drawn:
    loss, output = draw(st.sampled_from(PAIRS))
    sizes = draw(st.lists(st.integers(1, 40), min_size=2, max_size=4))
    sizes[-1] = max(sizes[-1], 2)  # the softmax of one output has no slope
    depth = len(sizes) - 2
    hidden = draw(st.lists(st.sampled_from(HIDDEN), min_size=depth, max_size=depth))
    others: dict[str, Any] = {}
    if depth and draw(st.booleans()):
        others["dropout"] = bp.Dropout(
            draw(st.sampled_from([0.2, 0.5])), per=draw(st.sampled_from(["batch", "sample"]))
        )
    others["penalty"] = draw(st.sampled_from([None, bp.L2(0.05), bp.L1(0.01)]))
    others["clip"] = draw(st.sampled_from([None, bp.ClipNorm(0.3), bp.ClipLayerNorm(0.2), bp.ClipValue(0.1)]))
    rule, batch = draw(st.sampled_from(sorted(RULES))), draw(st.integers(1, 33))
    return Drawn(sizes, hidden, loss, output, rule, batch, draw(st.booleans()), draw(st.booleans()), **others)


def examples(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # each example is compiled: to make one smaller takes minutes
    )


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_random_steps(fake_backend: CupyBackend, plan: str) -> None:
    @examples(4)
    @given(case=steps())
    def check(case: Drawn) -> None:
        compare(case, fake_backend, plan)

    check()


@pytest.mark.long
@pytest.mark.parametrize("plan", PLANS)
def test_many_random_steps(cupy_backend: CupyBackend, plan: str) -> None:
    @examples(40)
    @given(case=steps())
    def check(case: Drawn) -> None:
        compare(case, cupy_backend, plan)

    check()


@pytest.mark.parametrize("plan", PLANS)
def test_log_softmax_behind_a_loss_that_is_no_pair_of_it(cupy_backend: CupyBackend, plan: str) -> None:
    """The Jacobian of a row, in the kernel that ends a step."""
    compare(Drawn([6, 9, 5], ["tanh"], "mse", "log_softmax", "momentum", 12, True), cupy_backend, plan)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("plan", "dtype"),
    [("graph", "float32"), ("wide", "float32"), ("wide", "float64"), ("persistent", "float32"), ("fused", "float32")],
)
def test_inputs_at_odd_addresses(cupy_backend: CupyBackend, plan: str, dtype: str) -> None:
    """Rows of 16 bytes and more that begin between multiples of 16: no access may be wider than they allow."""
    compare(Drawn([8, 12, 5], ["tanh"], "mse", "identity", "sgd", 20, odd=True), cupy_backend, plan, dtype)
