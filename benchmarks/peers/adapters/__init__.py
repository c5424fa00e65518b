"""The contestants. Each is prepared by one function in one file; a library is imported by the worker that needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["CONTESTANTS", "Contestant", "Skip"]


class Skip(Exception):
    """Raised by an adapter that cannot do a workload here; the message is the reason."""


@dataclass(frozen=True)
class Contestant:
    """Where an adapter is.

    Attributes
    ----------
    module, function : str
        The function takes workload, problem and number of threads, and ``options``, and returns a
        :class:`~benchmarks.peers.adapters.runner.Runner`.
    packages : tuple of str
        What must be installed; also what is written into the record.
    ranked : bool
        Whether it takes part in the ranking.
    """

    module: str
    function: str
    packages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    ranked: bool = True

    @property
    def ours(self) -> bool:
        """Whether this is bpcore itself and no peer."""
        return self.packages[0] == "bpcore"


CONTESTANTS = {
    "bpcore": Contestant("with_bpcore", "prepare", ("bpcore", "numba", "scipy"), {"plan": "compiled"}),
    "bpcore-reference": Contestant("with_bpcore", "prepare", ("bpcore", "numba", "scipy"), {"plan": "reference"}),
    "bpcore-numpy": Contestant("with_bpcore", "prepare", ("bpcore",), {"plan": "reference", "backend": "numpy"}),
    "numpy": Contestant("with_numpy", "prepare", ("numpy",)),
    "scikit-learn": Contestant("with_sklearn", "prepare", ("scikit-learn",)),
    "torch": Contestant("with_torch", "prepare", ("torch",)),
    "torch-compile": Contestant("with_torch", "prepare_compiled", ("torch",)),
    "jax-jit": Contestant("with_jax", "prepare", ("jax", "jaxlib")),
    "jax-scan": Contestant("with_jax", "prepare", ("jax", "jaxlib"), {"scan": True}),
    "tinygrad": Contestant("with_tinygrad", "prepare", ("tinygrad",)),
    "products": Contestant("with_numpy", "prepare_products", ("numpy",), ranked=False),
}
"""bpcore with its plans and backends, the peers, and the floor: the step's matrix products alone, one by one."""
