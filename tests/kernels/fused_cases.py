"""Steps of the fused kernels beside float64 that rounds at the same places, and a run under AddressSanitizer.

Run as a module with the library of AddressSanitizer preloaded. Arguments: the folder for builds, bf16 or float32, and
optionally a text of the sources and its replacement. Buffers are exactly as large as the kernel may touch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backprop import sample_scale
from bpcore.functions.losses import get_loss
from bpcore.kernels.cuda.fused import FusedShape, fused_unit
from bpcore.kernels.cuda.fused_float import FloatShape
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.training.device_steps import device_pieces
from bpcore.training.spec import StepSpec
from tests.backends.fake_cublas import from_bfloat16, to_bfloat16
from tests.helpers import compare
from tests.kernels.on_host import changed

BLOCKS = 2
DATA = 50  # rows of X
TOLERANCE = 1e-4
"""Of the largest number of a gradient; see :meth:`Run.compare`."""


@dataclass(frozen=True)
class Case:
    """A network, a loss, and how many samples go through it in tiles of how many."""

    sizes: tuple[int, ...]
    hidden: Any
    output: str
    loss: str
    m: int
    rows: int = 32
    weighted: bool = False
    shift: float = 0.0  # of all biases
    precision: str | None = "bf16"

    @property
    def shape(self) -> FusedShape:
        """Its shape."""
        return (FusedShape if self.precision else FloatShape)(self.sizes, self.rows)


RECIPROCAL = bp.Activation("reciprocal", "1/z", "-h*h", check=False)
ROOT = bp.Activation("root", "sqrt(z)", "0.5/h", check=False)

CASES = {
    "one tile": Case((16, 16, 16), "relu", "softmax", "cross_entropy", 32),
    "ragged": Case((13, 20, 37, 5), ["sigmoid", "tanh"], "softmax", "cross_entropy", 75, 32, True),
    "wide rows": Case((68, 100, 7), "sigmoid", "identity", "mse", 17, 16),
    "many outputs": Case((5, 9, 128), "tanh", "log_softmax", "mse", 30, 48),
    "no hidden layer": Case((40, 3), "relu", "softmax", "mse", 50, 64),
    "one output": Case((8, 64, 33, 1), ["relu", "identity"], "sigmoid", "binary_cross_entropy", 130, 128),
    "deep": Case((24, 32, 32, 32, 32, 32, 10), "relu", "softmax", "cross_entropy", 70, 32),
    "as wide to the end": Case((32, 32, 32, 32), "tanh", "softmax", "cross_entropy", 40, 32),
    "no value at 0": Case((5, 9, 21, 3), RECIPROCAL, "softmax", "cross_entropy", 20, 32, shift=4.0),
    "steep at 0": Case((5, 9, 21, 3), ["tanh", ROOT], "softmax", "cross_entropy", 20, 32, shift=4.0),
    "two runs": Case(
        (16, 16, 16, 16, 30, 30, 30, 1), ["tanh"] * 4 + ["relu"] * 2, "sigmoid", "binary_cross_entropy", 33
    ),
}

# Tiles of float32 have other numbers of rows.
_ROWS = {"wide rows": 32, "many outputs": 64, "no hidden layer": 128, "one output": 64, "two runs": 32}
FLOAT_CASES = {name: replace(case, precision=None, rows=_ROWS.get(name, case.rows)) for name, case in CASES.items()} | {
    "128 samples": Case((20, 64, 64, 64, 64, 12), "relu", "softmax", "cross_entropy", 300, 128, True, precision=None),
    "128 neurons": Case((128, 100, 9, 128), "tanh", "softmax", "mse", 70, 64, precision=None),
}

KINDS = {"bf16": CASES, "float32": FLOAT_CASES}
"""By the precision of the kernel."""


def spec_of(case: Case) -> tuple[bp.MLP, StepSpec]:
    """The network and its spec."""
    net = bp.MLP(list(case.sizes), case.hidden, case.output, seed=1, dtype="float32", backend="numpy")
    spec = StepSpec(
        *(net.sizes, tuple(net.activations), get_loss(case.loss), bp.SGD(0.1), case.m, net.dtype),
        weighted=case.weighted, classes=case.output != "identity", precision=case.precision,
    )  # fmt: skip
    return net, spec


def text_of(case: Case) -> str:
    """Text of the kernels for a case."""
    net, spec = spec_of(case)
    pieces = device_pieces(spec)
    offsets = net.layout.offsets
    return fused_unit(case.shape, pieces.text, pieces.codes, offsets)


class Run:
    """Data of one step, and what the kernel makes of it."""

    def __init__(self, case: Case) -> None:
        self.case, rng = case, np.random.default_rng(4)
        self.net, self.spec = spec_of(case)
        net, n = self.net, case.sizes[-1]
        net.theta[:] = 0
        for W, b in ((net.W[l], net.b[l]) for l in net.W.layers):
            W[...] = rng.normal(size=W.shape) / np.sqrt(len(W))
            b[...] = 0.3 * rng.normal(size=b.shape) + case.shift
        self.X = rng.normal(size=(DATA, case.sizes[0])).astype(np.float32)
        self.labels = rng.integers(0, max(2, n), DATA)
        one_hot = self.labels[:, None] == np.arange(n) if n > 1 else self.labels[:, None]
        self.Y = (rng.normal(size=(DATA, n)) if case.output == "identity" else one_hot).astype(np.float32)
        self.weights = (rng.random(DATA) + 0.1).astype(np.float32)
        self.index = rng.integers(0, DATA, (2, case.m))
        self.index[1, -1] = DATA - 1

    def kernel(self, folder: Path, seed: int = 2, change: Any = (), sanitize: bool = False) -> dict[str, Any]:
        """Run the kernels for the second step of two: gradient by layer, loss, hits."""
        case, net, m = self.case, self.net, self.case.m
        text = changed(text_of(case), change)
        module, shape, size = HostModule(text, folder, sanitize=sanitize), case.shape, net.layout.size
        records, numbers = np.zeros((3, 2)), np.zeros((2, 1), np.float32)
        batch = np.zeros(11, np.int64)
        arrays = (self.X, self.Y, self.labels, self.weights, self.index, records, numbers)
        batch[:7] = [array.ctypes.data for array in arrays]
        batch[7], batch[10] = 2, np.float64(0.5).view(np.int64)
        partial = {l: np.full((BLOCKS, case.sizes[l]), np.nan) for l in net.W.layers}
        layers = np.zeros((len(partial), 8), np.int64)
        layers[:, 4] = [array.ctypes.data for array in partial.values()]
        scale = np.float32(sample_scale(self.spec.loss, case.sizes[-1]))
        scales, one = np.zeros(m, np.float32), np.int32(1)
        if case.weighted:
            module.launch("weigh", (1,), (32,), (batch, one, scales, scale, np.int64(m)), seed=seed)
        slices, grad, of_block = np.zeros((BLOCKS, size), np.float32), np.zeros(size, np.float32), np.zeros(2 * BLOCKS)
        theta = np.ascontiguousarray(net.theta)
        kept = np.full(max(1, BLOCKS * shape.kept), np.nan, np.float32)
        beside = to_bfloat16(theta) if case.precision else kept
        arguments = (batch, one, beside, theta, scales, np.float32(scale / m), layers, slices, of_block)
        sizes = np.int64(size), np.int64(m)
        module.launch("fused_step", (BLOCKS,), (256,), (*arguments, *sizes), seed=seed, shared=shape.nbytes)
        blocks = -(-size // 128)
        module.launch("add_slices", (blocks,), (256,), (slices, grad, np.int64(BLOCKS), np.int64(size)), seed=seed)
        dW = net.layout.views(grad, "W")
        found: dict[str, Any] = {f"dW{l}": dW[l] for l in dW.layers}
        found |= {f"db{l}": array.sum(axis=0) for l, array in partial.items()}
        return found | {"loss": of_block[::2].sum(), "hits": of_block[1::2].sum(), "grad": grad}

    def reference(self) -> dict[str, Any]:
        """The same in float64, with operands of products rounded to bfloat16 where the kernel rounds them."""
        rounded: Any = to_operand if self.case.precision else np.float64
        net, case, index, n = self.net, self.case, self.index[1], self.case.sizes[-1]
        weights = self.weights[index].astype(np.float64) if case.weighted else np.ones(case.m)
        scale = (weights / weights.sum() * (1 / n if case.loss == "mse" else 1))[:, None]
        W, b = {l: rounded(net.W[l]) for l in net.W.layers}, {l: net.b[l].astype(np.float64) for l in net.b.layers}
        H, L = {1: rounded(self.X[index])}, len(case.sizes)
        names = [activation.name for activation in net.activations]
        for l in range(1, L - 1):
            H[l + 1] = rounded(HIDDEN[names[l - 1]][0](H[l] @ W[l] + b[l]))
        H[L], loss, Delta = OUTPUTS[case.output, case.loss](H[L - 1] @ W[L - 1] + b[L - 1], self.Y[index], scale)
        guess = H[L].argmax(axis=1) if n > 1 else H[L][:, 0] > 0.5
        hits = ((guess == self.labels[index]) * weights).sum() if self.spec.classes else 0.0
        found: dict[str, Any] = {"loss": loss.sum(), "hits": hits}
        for l in range(L - 1, 0, -1):
            Delta = rounded(Delta)
            found |= {f"dW{l}": H[l].T @ Delta, f"db{l}": Delta.sum(axis=0)}
            if l > 1:
                Delta = Delta @ W[l].T * HIDDEN[names[l - 2]][1](H[l])
        return found

    def compare(self, found: dict[str, Any], tolerance: float = TOLERANCE) -> None:
        """Compare with the reference: in float32 as closely as so many roundings allow, else by a tolerance.

        Sums in float32 and in float64 may lie on two sides of a number halfway between two of bfloat16: then one
        operand of thousands differs by a whole rounding. Of the largest number of a gradient that is below 1e-3; a
        rounding left out or done twice is several times as much, and a wrong element all of it.
        """
        least = 1e-3
        if not self.case.precision:
            tolerance, least = compare.tolerance(np.float32, length=self.case.m * len(self.case.sizes)), 0.0
        for name, wanted in self.reference().items():
            scale = max(np.abs(wanted).max(), least)
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=tolerance * scale, err_msg=name)


def to_operand(values: Any) -> Any:
    """What bfloat16 makes of numbers."""
    return from_bfloat16(to_bfloat16(values)).astype(np.float64)


def softmax(Z: Any) -> Any:
    """Rows of probabilities."""
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def _pair(H: Any, Y: Any, terms: Any, scale: Any) -> Any:
    return H, scale * terms, scale * (H - Y)


def _softmax_squares(Z: Any, Y: Any, scale: Any) -> Any:
    H = softmax(Z)
    G = 2 * scale * (H - Y)
    return H, scale * (H - Y) ** 2, H * (G - (G * H).sum(axis=1, keepdims=True))


def _log_softmax_squares(Z: Any, Y: Any, scale: Any) -> Any:
    H = np.log(softmax(Z))
    G = 2 * scale * (H - Y)
    return H, scale * (H - Y) ** 2, G - np.exp(H) * G.sum(axis=1, keepdims=True)


# act, and act' from what it gives
HIDDEN: dict[str, Any] = {
    "relu": (lambda z: np.maximum(z, 0), lambda h: h > 0),
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda h: h * (1 - h)),
    "identity": (lambda z: z, np.ones_like),
    "reciprocal": (lambda z: 1 / z, lambda h: -h * h),
    "root": (np.sqrt, lambda h: 0.5 / h),
}
# H, terms of the loss, BP1
OUTPUTS: dict[tuple[str, str], Any] = {
    ("softmax", "cross_entropy"): lambda Z, Y, s: _pair(softmax(Z), Y, -Y * np.log(softmax(Z)), s),
    ("sigmoid", "binary_cross_entropy"): lambda Z, Y, s: _pair(1 / (1 + np.exp(-Z)), Y, np.logaddexp(0, Z) - Y * Z, s),
    ("identity", "mse"): lambda Z, Y, s: (Z, s * (Z - Y) ** 2, 2 * s * (Z - Y)),
    ("softmax", "mse"): _softmax_squares,
    ("log_softmax", "mse"): _log_softmax_squares,
}


def main() -> None:
    """Run the cases that differ most in how they end: rows, columns, runs of eight, tiles."""
    folder, kind, *change = sys.argv[1:]
    for name in ("ragged", "wide rows", "many outputs", "two runs"):
        run = Run(KINDS[kind][name])
        found = run.kernel(Path(folder), change=change, sanitize=True)
        assert np.isfinite(found["grad"]).all()
    print("all cases ran")


if __name__ == "__main__":
    main()
