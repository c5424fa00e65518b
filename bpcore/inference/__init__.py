"""Prediction: the forward pass for data of any length, in memory that does not grow with it.

:mod:`~bpcore.inference.reference` runs on every backend, an operation at a time. :mod:`~bpcore.inference.compiled` does
the same in one call of compiled code, on the Numba backend: for one sample, where the calls of the operations would
take most of the time, and for many, which a team of threads shares. :mod:`~bpcore.inference.cuda` does it on CuPy.

All may be called from several threads at once. What they need besides the output is kept from call to call, one set
for each call that is under way.
"""

from __future__ import annotations

from bpcore.backends.contract import Backend
from bpcore.inference.contract import ForwardSpec, Inference

__all__ = ["ForwardSpec", "Inference", "make_inference"]


def make_inference(be: Backend, spec: ForwardSpec) -> Inference:
    """Return the fastest inference that a backend has.

    Parameters
    ----------
    be : Backend
        Where it computes.
    spec : ForwardSpec
        What it computes.
    """
    if be.name == "cupy":
        from bpcore.inference.cuda import CudaInference

        return CudaInference(be, spec)
    if be.name == "numba":
        from bpcore.inference.compiled import CompiledInference

        return CompiledInference(be, spec)
    from bpcore.inference.reference import ReferenceInference

    return ReferenceInference(be, spec)
