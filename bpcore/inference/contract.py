"""What an inference is made from, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bpcore.functions.activations import Activation
from bpcore.layout import ParameterLayout
from bpcore.typing import Array, DType

__all__ = ["ForwardSpec", "Inference"]


@dataclass(frozen=True)
class ForwardSpec:
    """What a forward pass computes, but for the numbers.

    Attributes
    ----------
    layout : ParameterLayout
        Where W and b lie in theta.
    sizes : tuple of int
        Widths n_1 ... n_L.
    activations : tuple of Activation
        Of the layers 2 ... L.
    dtype : numpy.dtype
        Of all arrays.
    """

    layout: ParameterLayout
    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    dtype: DType


class Inference(Protocol):
    """What :meth:`bpcore.MLP.predict` asks.

    Attributes
    ----------
    block : int
        Samples that go through the layers at once. Who cuts the samples does so at a multiple of it.
    refuses : bool
        Whether it notices samples that are not finite. Otherwise the caller must look. Where it says that they may not
        be finite, the caller looks, too: finite ones may overflow.
    """

    block: int
    refuses: bool

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """Compute H[L] of X (m, n_1) into ``out`` (m, n_L); return False if it was noticed that X is not finite.

        All arrays are C-contiguous, of the network's dtype, on the backend's device.
        """
