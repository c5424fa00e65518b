"""Plans: who carries out the steps of a StepSpec.

A plan is chosen by name or, with ``"auto"``, by what the backend offers: on a GPU by the size of a step, from the sizes
that ``bpcore tune`` has measured on this machine, else from fixed ones. The choice and its reason go into the record of
the run. The reference runs everywhere; a faster plan is named here and must equal it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bpcore.backends.contract import Backend
from bpcore.errors import ConfigurationError, unknown
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.compiled import CompiledPlan
from bpcore.training.precision import refuse_precision
from bpcore.training.reference import ReferencePlan, Watch
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.tuning import step_flops, valid_tuning
from bpcore.typing import Array

__all__ = ["PLANS", "Plan", "choose_plan", "kind_on_gpu", "plans_on"]

PLANS = ("auto", "reference", "compiled", "persistent", "graph", "wide", "fused")

_ON_GPU = ("persistent", "graph", "wide", "fused")
_BACKENDS = {"compiled": "numba", **dict.fromkeys(_ON_GPU, "cupy")}

ON_CHIP_FLOPS = 60_000_000
"""Operations of a step up to which one cluster of blocks is faster than all multiprocessors, which must wait for one
another after each product."""
WIDE_FLOPS = 2_000_000_000
"""Operations of a step from which the products of cuBLAS are faster than our own, with what follows them."""


class Plan(Protocol):
    """What the training loop asks of a plan; see :class:`~bpcore.training.reference.ReferencePlan`."""

    name: str
    spec: StepSpec
    threads: int | None
    why: str
    uses_blas: bool

    @property
    def gradient(self) -> Array:
        """Gradient of the last step."""

    @property
    def carried(self) -> dict[str, Array]:
        """What the plan itself carries from step to step, such as the loss scale of fp16: small arrays by name."""

    def run(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch | None = None,
    ) -> None:
        """Run one step for each row of the index."""


def choose_plan(
    plan: str, spec: StepSpec, net: MLP, be: Backend, seed: int, threads: int | None = None
) -> tuple[Plan, str]:
    """Build the plan for a spec.

    Parameters
    ----------
    plan : str
        ``"auto"`` or the name of a plan.
    spec, net, be, seed
        As for :class:`~bpcore.training.reference.ReferencePlan`.
    threads : int, optional
        As for :class:`~bpcore.training.compiled.CompiledPlan`.

    Returns
    -------
    plan : Plan
        Ready to run.
    why : str
        The reason of the choice, for the record.

    Raises
    ------
    UnknownNameError
        If there is no plan of that name.
    ConfigurationError
        If the plan asked for cannot do this, or no plan can compute in the precision that was asked for.
    """
    if plan not in PLANS:
        raise unknown("plan", plan, PLANS)
    refuse_precision(spec.precision, plan, be)
    if plan == "reference":
        return ReferencePlan(spec, net, be, seed), "asked for"
    if be.name == "numba":
        return _choose_compiled(plan, spec, net, be, seed, threads)
    if be.name == "cupy":
        return _choose_on_gpu(plan, spec, net, be, seed)
    _refuse(plan, {"auto"}, be)
    return ReferencePlan(spec, net, be, seed), f"the only plan for backend {be.name}"


def plans_on(backend: str) -> tuple[str, ...]:
    """Return the names of the plans of a backend, ``"auto"`` first.

    Parameters
    ----------
    backend : str
        Its name.

    Examples
    --------
    >>> plans_on("numba"), plans_on("numpy")
    (('auto', 'reference', 'compiled'), ('auto', 'reference'))
    """
    return tuple(name for name in PLANS if _BACKENDS.get(name, backend) == backend)


def _refuse(plan: str, possible: set[str], be: Backend) -> None:
    if plan not in possible:
        needed = _BACKENDS[plan]
        raise ConfigurationError(
            f"plan={plan!r} needs backend {needed}; the network is on {be.name}. Use net.to({needed!r}) or plan='auto'"
        )


def _choose_compiled(
    plan: str, spec: StepSpec, net: MLP, be: Backend, seed: int, threads: int | None
) -> tuple[Plan, str]:
    _refuse(plan, {"auto", "compiled"}, be)
    if plan == "compiled":
        return CompiledPlan(spec, net, be, seed, threads), "asked for"
    reason = CompiledPlan.supports(spec)
    if reason is not None:
        return ReferencePlan(spec, net, be, seed), f"no compiled plan: {reason}"
    return CompiledPlan(spec, net, be, seed, threads), "whole runs of steps in one call, on backend numba"


def _choose_on_gpu(plan: str, spec: StepSpec, net: MLP, be: Backend, seed: int) -> tuple[Plan, str]:
    _refuse(plan, {"auto", *_ON_GPU}, be)
    kind, why = kind_on_gpu(plan, spec, be)
    made: Plan = kind(spec, net, be, seed)
    return made, why or made.why


def kind_on_gpu(plan: str, spec: StepSpec, be: Backend) -> tuple[Any, str]:
    """Class of the plan that a GPU runs, and why; the reason is empty where the plan has its own.

    Parameters
    ----------
    plan : str
        ``"auto"`` or the name of a plan of backend cupy.
    spec, be
        As for :class:`~bpcore.training.reference.ReferencePlan`.
    """
    # imported here, because who has no GPU should not wait for what only a GPU needs
    from bpcore.training.fused import FusedPlan
    from bpcore.training.graph import GraphPlan
    from bpcore.training.persistent import PersistentPlan
    from bpcore.training.wide import WidePlan

    of_gpu: tuple[Any, ...] = (PersistentPlan, GraphPlan, WidePlan, FusedPlan)
    named: dict[str, Any] = {kind.name: kind for kind in (ReferencePlan, *of_gpu)}
    if plan in named:
        return named[plan], "asked for"
    if spec.precision is not None:
        reason = FusedPlan.supports(spec, be)
        if reason is None:
            return FusedPlan, ""
        others = f"no other plan computes in {spec.precision}"
        return WidePlan, f"{WidePlan.why}; {f'no fused plan: {reason}' if spec.precision == 'bf16' else others}"
    # In the dtype of the network the fused plan is taken where it is asked for only: its speed there was not measured.
    flops = step_flops(spec.sizes, spec.batch_size)
    tuned, _ = valid_tuning()
    measured = None if tuned is None else tuned.plan(flops)
    if measured is not None:
        name, why = measured
        if name != "persistent" or PersistentPlan.supports(spec, be) is None:
            return named[name], why
    if flops <= ON_CHIP_FLOPS and PersistentPlan.supports(spec, be) is None:
        return PersistentPlan, ""
    kind = WidePlan if flops > WIDE_FLOPS else GraphPlan
    return kind, f"{kind.why}; a step has {flops / 1e9:.3g} GFLOP"
