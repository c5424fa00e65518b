"""The memory of a forward and a backward pass, allocated once and used for every step."""

from __future__ import annotations

from bpcore.backends.contract import Backend
from bpcore.layout import ByLayer, ParameterLayout
from bpcore.typing import Array, DType

__all__ = ["Gradients", "Trace"]


class Trace:
    """What the forward pass leaves behind, for up to m samples.

    Attributes
    ----------
    H : ByLayer of Array
        Activations, H[1] = X (m, n_1) up to H[L].
    Z : ByLayer of Array
        Pre-activations Z[2] ... Z[L].
    masks : ByLayer of (Array or None)
        Dropout masks of the layers 1 ... L, (n_l,) or (m, n_l), holding 0 or 1 / (1 - rate).
    passed : ByLayer of Array
        What each layer hands on: ``H[l]``, times the mask where there is one.
    """

    __slots__ = ("H", "Z", "masks", "passed")

    def __init__(
        self, H: ByLayer[Array], Z: ByLayer[Array], masks: ByLayer[Array | None], passed: ByLayer[Array]
    ) -> None:
        self.H, self.Z, self.masks, self.passed = H, Z, masks, passed

    @classmethod
    def allocate(
        cls,
        be: Backend,
        sizes: tuple[int, ...],
        m: int,
        dtype: DType,
        mask_shapes: dict[int, tuple[int, ...]] | None = None,
        X: Array | None = None,
    ) -> Trace:
        """Make room for m samples; with X given, H[1] is X itself."""
        shapes = mask_shapes or {}
        H = [be.empty((m, n), dtype) for n in sizes[1:]]
        H.insert(0, be.empty((m, sizes[0]), dtype) if X is None else X)
        layers = range(1, len(sizes) + 1)
        masks = [be.empty(shapes[l], dtype) if l in shapes else None for l in layers]
        passed = [be.empty((m, sizes[l - 1]), dtype) if l in shapes else H[l - 1] for l in layers]
        Z = [be.empty((m, n), dtype) for n in sizes[1:]]
        return cls(ByLayer(H, 1), ByLayer(Z, 2), ByLayer(masks, 1), ByLayer(passed, 1))

    def rows(self, m: int) -> Trace:
        """The same memory for the first m samples only."""
        masks = [mask if mask is None or mask.ndim == 1 else mask[:m] for mask in self.masks]
        H = [h[:m] for h in self.H]
        passed = [h if whole is given else given[:m] for h, whole, given in zip(H, self.H, self.passed, strict=True)]
        return Trace(ByLayer(H, 1), ByLayer([z[:m] for z in self.Z], 2), ByLayer(masks, 1), ByLayer(passed, 1))


class Gradients:
    """Errors and gradients of one backward pass.

    Attributes
    ----------
    Delta : ByLayer of Array
        Errors Delta[2] ... Delta[L], (m, n_l).
    dW, db : ByLayer of Array
        Gradients of W[1] ... W[L-1] and b[1] ... b[L-1]; views into ``flat``.
    flat : Array
        The gradient of theta, in the layout of the network.
    dX : Array or None
        Gradient by the input, when asked for.
    """

    __slots__ = ("Delta", "dW", "dX", "db", "flat")

    def __init__(
        self, Delta: ByLayer[Array], dW: ByLayer[Array], db: ByLayer[Array], flat: Array, dX: Array | None
    ) -> None:
        self.Delta, self.dW, self.db, self.flat, self.dX = Delta, dW, db, flat, dX

    @classmethod
    def allocate(
        cls,
        be: Backend,
        sizes: tuple[int, ...],
        layout: ParameterLayout,
        m: int,
        dtype: DType,
        input_grad: bool = False,
    ) -> Gradients:
        """Make room for m samples."""
        flat = be.zeros(layout.size, dtype)
        Delta = ByLayer([be.empty((m, n), dtype) for n in sizes[1:]], first=2)
        dX = be.empty((m, sizes[0]), dtype) if input_grad else None
        return cls(Delta, layout.views(flat, "W"), layout.views(flat, "b"), flat, dX)

    def rows(self, m: int) -> Gradients:
        """The same memory for the first m samples only."""
        Delta = ByLayer([delta[:m] for delta in self.Delta], first=2)
        return Gradients(Delta, self.dW, self.db, self.flat, None if self.dX is None else self.dX[:m])
