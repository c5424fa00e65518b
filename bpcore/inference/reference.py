"""Prediction on any backend: the operations of the forward pass, one after the other."""

from __future__ import annotations

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import activate
from bpcore.inference.contract import ForwardSpec
from bpcore.typing import Array

__all__ = ["ReferenceInference"]

ROWS = 4096
"""Samples that go through the layers at a time."""


class ReferenceInference:
    """The forward pass by a backend's operations; parameters as for :func:`~bpcore.inference.make_inference`."""

    refuses, block = False, ROWS

    def __init__(self, be: Backend, spec: ForwardSpec) -> None:
        self._be, self._spec = be, spec
        self._idle: list[list[tuple[Array, Array]]] = []

    @np.errstate(all="ignore")
    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`~bpcore.inference.Inference`."""
        be, m, L = self._be, X.shape[0], len(self._spec.sizes)
        layout, activations = self._spec.layout, self._spec.activations
        W, b = layout.views(theta, "W"), layout.views(theta, "b")
        rows = min(ROWS, m)
        buffers = self._borrow(rows)
        for start in range(0, m, rows):
            H = X[start : start + rows]
            count = H.shape[0]
            for l in range(1, L):
                Z, H_next = buffers[l - 1]
                after = out[start : start + count] if l == L - 1 else H_next[:count]
                be.matmul(H, W[l], out=Z[:count])
                H = activate(be, activations[l - 1], Z[:count], b[l], out=after)
        self._idle.append(buffers)
        return True

    def _borrow(self, rows: int) -> list[tuple[Array, Array]]:
        """Return Z and H of each layer, from an earlier call if they are large enough."""
        try:
            buffers = self._idle.pop()
            if buffers[0][0].shape[0] >= rows:
                return buffers
        except IndexError:  # all are in use
            pass
        empty, dtype, (*hidden, n_out) = self._be.empty, self._spec.dtype, self._spec.sizes[1:]
        buffers = [(empty((rows, n), dtype), empty((rows, n), dtype)) for n in hidden]
        return [*buffers, (empty((rows, n_out), dtype), None)]  # what the last layer hands on is the output
