"""Finding the first number that is not finite: a stretch of steps again, one by one, with every quantity looked at."""

from __future__ import annotations

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.errors import DivergenceError
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.plans import Plan
from bpcore.training.state import Snapshot, TrainingState
from bpcore.typing import Array

__all__ = ["first_bad"]


def first_bad(
    be: Backend,
    net: MLP,
    plan: Plan,
    state: TrainingState,
    snapshot: Snapshot,
    problem: Problem,
    index: Array,
    etas: list[float],
    sums: Array,
) -> DivergenceError:
    """Run steps that went wrong once more, until something is not finite; keep what was before that step.

    Parameters
    ----------
    be, net, plan, problem, index, etas, sums
        What the steps were run with.
    state : TrainingState
        As it was before them, like the parameters.
    snapshot : Snapshot
        Where parameters and state are kept meanwhile.

    Returns
    -------
    DivergenceError
        With step, layer and quantity, unless the device has no memory for looking at them.
    """
    first, last = state.step + 1, state.step + len(etas)
    try:
        return _search(be, net, plan, state, snapshot, problem, index, etas, sums)
    except Exception as error:
        if not be.is_out_of_memory(error):
            raise
    snapshot.put_back(net.theta, state, plan.carried)
    return DivergenceError(
        f"a number was not finite between steps {first} and {last}, and the device has no memory left to find out in "
        "which: data='stream' or a smaller batch_size leaves some. The parameters are those before one of these "
        "steps"
    )


def _search(
    be: Backend,
    net: MLP,
    plan: Plan,
    state: TrainingState,
    snapshot: Snapshot,
    problem: Problem,
    index: Array,
    etas: list[float],
    sums: Array,
) -> DivergenceError:
    found: list[tuple[str, int, str]] = []

    def watch(quantity: str, layer: int, array: Array) -> None:
        if not found and not be.all_finite(array):
            host = be.to_numpy(array)
            nan, infinite = int(np.isnan(host).sum()), int(np.isinf(host).sum())
            counts = [f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite")) if n]
            found.append((quantity, layer, ", ".join(counts)))

    last_loss = float("nan")
    for k in range(len(etas)):
        snapshot.take(net.theta, state, plan.carried)
        step = state.step + 1
        plan.run(problem, index[k : k + 1], state, etas[k : k + 1], sums[:, k : k + 1], watch)
        if found:
            snapshot.put_back(net.theta, state, plan.carried)
            quantity, layer, counts = found[0]
            where = f"{quantity}[{layer}]" if layer else f"the {quantity}"
            known = f"Last finite loss {last_loss:.6g}, " if np.isfinite(last_loss) else ""
            return DivergenceError(
                f"step {step}: {where} is not finite ({counts}). {known}eta {etas[k]:.6g}. The parameters before "
                "this step are kept. A smaller eta, gradient clipping (clip=bp.ClipNorm(1.0)) or standardised "
                "inputs usually help",
                step=step,
                layer=layer,
                quantity=quantity,
            )
        last_loss = float(be.to_numpy(sums)[0, k])
    # only a matrix product whose rounding changes from call to call can bring us here
    return DivergenceError(
        f"a number was not finite between steps {state.step - len(etas) + 1} and {state.step}, but not when they were "
        "repeated: the run is at the edge of overflow; use a smaller eta or float64"
    )
