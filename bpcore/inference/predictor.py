"""What stands between :meth:`bpcore.MLP.predict` and an inference: samples from anywhere, outputs to anywhere.

An inference takes plain matrices on its backend. Here samples are checked and brought there, a block of rows at a time
where there are many, and the outputs go back to where the samples were, or into ``out``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.arrays import check_finite, is_plain
from bpcore.errors import DataError, ShapeError
from bpcore.inference import make_inference
from bpcore.inference.contract import ForwardSpec
from bpcore.inputs import bring_inputs, is_on_device
from bpcore.typing import Array, NDArray

__all__ = ["Predictor"]

PREDICTED_BYTES = 2**26
"""Bytes of samples, or of outputs, that are brought to a device together."""


class Predictor:
    """Predictions of one network on one backend; parameters as for :func:`~bpcore.inference.make_inference`.

    Attributes
    ----------
    infer : Inference
        What computes.
    """

    def __init__(self, be: Backend, spec: ForwardSpec) -> None:
        self._be, self._dtype, self._n_in, self._n_out = be, spec.dtype, spec.sizes[0], spec.sizes[-1]
        self._on_host = be.device == "cpu"
        self.infer = make_inference(be, spec)

    def __call__(self, theta: Array, X: Any, out: Array | None) -> Array:
        """Compute the outputs of samples; see :meth:`bpcore.MLP.predict`."""
        if self._on_host and not isinstance(X, np.memmap):  # what is in a file may have to be converted
            return self._together(theta, X, out)
        rows = self._rows_at_once(X)
        return self._together(theta, X, out) if rows == 0 else self._by_blocks(theta, X, out, rows)

    def _rows_at_once(self, X: Any) -> int:
        """How many samples are brought to the backend at a time; 0 for all of them."""
        if not isinstance(X, np.ndarray) or X.ndim != 2 or X.shape[1] != self._n_in:
            return 0
        if self._on_host and is_plain(X, X.shape, self._dtype):
            return 0
        widest = max(self._n_in, self._n_out) * self._dtype.itemsize
        rows = max(1, PREDICTED_BYTES // (self.infer.block * widest)) * self.infer.block
        return rows if len(X) > rows else 0

    def _by_blocks(self, theta: Array, X: NDArray[Any], out: Array | None, rows: int) -> Array:
        shape = len(X), self._n_out
        H = np.empty(shape, self._dtype) if out is None or _overlap(out, X) else out
        self._check_out(H, shape, False)
        for start in range(0, len(X), rows):
            block = slice(start, min(start + rows, len(X)))
            self._together(theta, X[block], H[block], f"X[{block.start}:{block.stop}]", start)
        if out is None or H is out:
            return H
        self._check_out(out, shape, False)
        out[...] = H
        return out

    def _together(self, theta: Array, X: Any, out: Array | None, name: str = "X", first_row: int = 0) -> Array:
        """Predict samples all at once; name and first row are for messages."""
        be, infer = self._be, self.infer
        on_device = not self._on_host and be.owns(X)
        # who looks at the values while reading them leaves nothing to check or to convert
        if not (infer.refuses and self._is_ready(X, on_device)):
            on_device = is_on_device(X, be)
            X = bring_inputs(X, be, self._n_in, self._dtype, name=name, first_row=first_row)
        elif not (self._on_host or on_device):
            X = be.asarray(X)
        H = self._target(out, X, on_device)
        if not infer(theta, X, H):
            check_finite(be.to_numpy(X), name=name, first_row=first_row)
        if out is None:
            return H if on_device else be.to_numpy(H)
        if H is not out:
            out[...] = H if on_device else be.to_numpy(H)
        return out

    def _is_ready(self, X: Any, on_device: bool) -> bool:
        """Whether samples can be computed with as they are, but for their values."""
        if not on_device:
            return type(X) is np.ndarray and is_plain(X, (len(X) or 1, self._n_in), self._dtype)
        shape = X.shape
        fits = len(shape) == 2 and shape[0] > 0 and shape[1] == self._n_in
        return fits and X.dtype == self._dtype and bool(X.flags.c_contiguous)

    def _target(self, out: Any, X: Array, on_device: bool) -> Array:
        """Return where the outputs are written: into ``out`` if that is possible."""
        shape, on_host = (X.shape[0], self._n_out), self._on_host
        if out is None:
            return np.empty(shape, self._dtype) if on_host else self._be.empty(shape, self._dtype)
        self._check_out(out, shape, on_device)
        direct = (on_device and out.flags.c_contiguous) or (on_host and is_plain(out, shape, self._dtype))
        if direct and (out is X or on_device or not np.may_share_memory(out, X)):
            return out
        return self._be.empty(shape, self._dtype)

    def _check_out(self, out: Any, shape: tuple[int, int], on_device: bool) -> None:
        """Refuse what the outputs cannot be written into."""
        here = self._be.owns(out) if on_device else type(out) is np.ndarray
        if not here or out.shape != shape or out.dtype != self._dtype:
            found = f"{out.dtype} {out.shape}" if hasattr(out, "dtype") and hasattr(out, "shape") else ""
            raise ShapeError(
                f"out is {type(out).__name__} {found}".rstrip() + f"; the outputs need an array of {self._dtype} "
                f"{shape}, {f'on {self._be.name}' if on_device else 'of NumPy'}, like the samples"
            )
        if not on_device and not out.flags.writeable:
            raise DataError("out is read-only; give an array that can be written, or none")


def _overlap(out: Any, X: NDArray[Any]) -> bool:
    return out is not X and isinstance(out, np.ndarray) and np.may_share_memory(out, X)
