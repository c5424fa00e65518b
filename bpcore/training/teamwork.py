"""How many threads a training step is worth: a model of its time, from figures of this machine.

A step on T threads takes ``work / scaling(T) + meetings meeting(T) + bytes(T) SECONDS_PER_BYTE``.

- ``work`` is the time on one thread: the operations of the products at the measured rate, and what is done for each
  neuron and sample, and for each parameter, at rates that differ little between machines.
- ``bytes`` is what a thread finds in the cache of another: parameters that the other updated, and, of the samples of
  the other, what the layers handed on and their Delta.

What it takes to meet and to move data depends on which cores the threads are on, and systems, virtual machines above
all, move them without a word: between cores that share no cache both take four times as long. A small step on two
threads then takes twice as long as on one. So these two are not taken for what they may have been for a moment.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from bpcore.training.spec import StepSpec
from bpcore.tuning import step_flops

if TYPE_CHECKING:
    from bpcore.kernels.numba.machine import Machine

__all__ = ["best_team", "keeps_weights_apart", "shared_by_columns", "step_seconds"]

SECONDS_PER_NEURON = 0.3e-9
"""Activation, its derivative and gathering, for one neuron and one sample."""
SECONDS_PER_BYTE = 1e-10
"""From the cache of one core to another: 0.4e-10 between neighbours, 1.7e-10 between cores that share no cache."""
LEAST_MEETING_SECONDS = 0.5e-6
"""The least that a meeting is taken for; 0.15e-6 between neighbours, 0.4e-6 otherwise."""
LEAST_ROWS = 16
"""Rows of W[1] that a thread must have to multiply by them alone."""
SHARED_BYTES = 2**22
"""Size of W from which on it is shared by columns."""
LEAST_COLUMNS = 64
"""Columns that a thread must have then: two tiles of the widest vectors."""
SECONDS_PER_PARAMETER = 0.05e-9
"""Update of one parameter, for each array that it reads or writes."""


def step_seconds(spec: StepSpec, machine: Machine) -> float:
    """Return how long a step takes one thread, by the model, in seconds."""
    work = step_flops(spec.sizes, spec.batch_size) / machine.rate
    work += spec.batch_size * sum(spec.sizes) * SECONDS_PER_NEURON
    return work + _parameters(spec) * (2 + len(spec.rule.state)) * SECONDS_PER_PARAMETER


def exchanged_bytes(spec: StepSpec, threads: int) -> float:
    """Return how many bytes each thread of a team reads that another has written."""
    (n_1, n_2), m = spec.sizes[:2], spec.batch_size
    numbers = _parameters(spec) + m * (2 * sum(spec.sizes) - n_1 - spec.sizes[-1])
    if keeps_weights_apart(spec, threads):
        numbers += m * n_2 - n_1 * (n_2 + m)
    return numbers * spec.dtype.itemsize * (threads - 1) / threads


def keeps_weights_apart(spec: StepSpec, threads: int) -> bool:
    """Whether each thread should multiply by its own rows of W[1], and the parts of Z[2] be added up.

    It is worth it if less moves between cores: Z[2] instead of W[1] and X; and if what a thread multiplies by is no
    narrow strip.
    """
    (n_1, n_2), m = spec.sizes[:2], spec.batch_size
    return threads > 1 and n_1 >= LEAST_ROWS * threads and n_1 * (n_2 + m) > 2 * m * n_2


def shared_by_columns(spec: StepSpec, l: int, threads: int) -> bool:
    """Whether the members of a team should share the products with W[l] by columns instead of by samples.

    Then each reads a part of W[l] only. It pays where W[l] does not stay in a cache, and costs two meetings a product.
    """
    n_in, n = spec.sizes[l - 1], spec.sizes[l]
    return threads > 1 and n_in * n * spec.dtype.itemsize >= SHARED_BYTES and min(n_in, n) >= LEAST_COLUMNS * threads


def _parameters(spec: StepSpec) -> int:
    return sum((n_in + 1) * n for n_in, n in pairwise(spec.sizes))


def best_team(spec: StepSpec, machine: Machine) -> tuple[int, str]:
    """Choose the number of threads of a step.

    Parameters
    ----------
    spec : StepSpec
        The step.
    machine : Machine
        Figures of the machine.

    Returns
    -------
    threads : int
        The number.
    why : str
        The reason, with the times that the model gives.
    """

    def besides(k: int) -> float:
        threads = machine.threads[k]
        meetings = 3 if keeps_weights_apart(spec, threads) else 2
        moved = exchanged_bytes(spec, threads) * SECONDS_PER_BYTE
        return meetings * max(machine.meeting[k], LEAST_MEETING_SECONDS) + moved

    threads, told = machine.best_team(step_seconds(spec, machine), spec.batch_size, besides)
    return threads, f"expected for a step: {told}"
