"""What the kernels for few samples (few.cuh) and narrow ends (narrow.cuh) must compute, on arrays of their sizes.

``python -m tests.kernels.prediction_cases FOLDER [OLD NEW]`` runs some cases with AddressSanitizer, one source changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.functions.program import Program
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.pieces import Layer, print_activations
from bpcore.kernels.cuda.source import few_unit, narrow_unit
from tests.helpers.compare import assert_close
from tests.kernels.on_host import changed

FEW = (
    (1, 1, 1, 8),
    (1, 300, 8, 32),
    (2, 65, 10, 32),
    (3, 1030, 17, 8),
    (4, 33, 32, 32),
    (4, 270, 40, 32),
    (3, 5, 67, 8),
)
"""Samples, width below, width, columns of a block: ragged packs and whole ones, more rows of W than are asked for at
once."""
NARROW = ((1, 1, 1, 1), (9, 130, 10, 1), (70, 128, 10, 1), (33, 300, 17, 2), (37, 67, 32, 3), (11, 40, 9, 1))
"""Samples, width below, outputs, blocks: samples that a block meets at once and not, one pack of a lane and more."""
ACTIVATIONS = print_activations(
    [Layer(Program("h = tanh(z)"), None), Layer(None, None, "softmax"), Layer(None, None, "log_softmax")]
)


@dataclass
class Where:
    """How kernels are built and run."""

    folder: Path
    dtype: str = "float32"
    seed: int = 2
    sanitize: bool = False
    change: Sequence[str] = ()

    def module(self, source: str) -> HostModule:
        return HostModule(changed(source, self.change), self.folder, sanitize=self.sanitize)

    def normal(self, *shape: int) -> Any:
        return np.random.default_rng(sum(shape)).normal(size=shape).astype(self.dtype)


def activated(Z: Any) -> tuple[Any, Any, Any]:
    """Tanh, softmax and log-softmax of each row."""
    log = Z - Z.max(axis=1, keepdims=True)
    log -= np.log(np.exp(log).sum(axis=1, keepdims=True))
    return np.tanh(Z), np.exp(log), log


def judge(H: Any, expected: Any, length: int) -> None:
    assert_close(H, expected, dtype=H.dtype, length=length, scale=np.maximum(np.abs(expected), 1.0))


def few(where: Where, m: int, n_in: int, n: int, columns: int) -> None:
    """Compare a launch for each activation with float64, and let it meet an infinity."""
    module = where.module(few_unit(ACTIVATIONS.text, np.dtype(where.dtype), 1 << (m - 1).bit_length(), columns))
    A, W, b = where.normal(m, n_in), where.normal(n_in, n) / 8, where.normal(n)
    Z = A.astype(np.float64) @ W.astype(np.float64) + b
    for code, wanted in zip(ACTIVATIONS.codes, activated(Z), strict=True):
        expected = Z if code < 0 and n > columns else wanted  # rows are finished by whoever has all of them
        for given in (A, with_infinity(A)):
            H, odd = np.full((m, n), np.nan, where.dtype), np.zeros(1, np.uint32)
            arguments = given, W, b, H, np.int32(code), np.int32(1), odd, np.int64(m), np.int64(n_in), np.int64(n)
            module.launch("answer_few", (-(-n // columns),), (256,), arguments, seed=where.seed)
            assert odd[0] == (given is not A)
            good = m if given is A else m - 1
            judge(H[:good], expected[:good], n_in + n)


def narrow(where: Where, m: int, below: int, n: int, blocks: int) -> None:
    """Compare a launch for each activation with float64, after tanh; let it meet an infinity, watched and not."""
    module = where.module(narrow_unit(ACTIVATIONS.text, np.dtype(where.dtype), below, n))
    Z, before, W, b = where.normal(m, below), where.normal(below), where.normal(below, n), where.normal(n)
    W /= 8
    hidden = np.tanh(Z.astype(np.float64) + before)
    for code, expected in zip(ACTIVATIONS.codes, activated(hidden @ W.astype(np.float64) + b), strict=True):
        for given, watch in ((Z, 1), (with_infinity(Z), 1), (with_infinity(Z), 0)):
            H, odd = np.full((m, n), np.nan, where.dtype), np.zeros(1, np.uint32)
            arguments = given, W, b, H, before, np.int32(0), np.int32(watch), odd, np.int32(code), np.int64(m)
            module.launch("answer_narrow", (blocks,), (256,), arguments, seed=where.seed)
            assert odd[0] == (given is not Z and watch)
            good = m if given is Z else m - 1
            judge(H[:good], expected[:good], below + n)


def with_infinity(A: Any) -> Any:
    found = A.copy()
    found[-1, -1] = np.inf
    return found


if __name__ == "__main__":
    folder, *mistake = sys.argv[1:]
    for case, sizes in ((few, FEW[3]), (few, FEW[4]), (few, FEW[5]), (narrow, NARROW[1]), (narrow, NARROW[3])):
        if not mistake or mistake[2] == case.__name__:
            case(Where(Path(folder), sanitize=True, change=mistake[:2]), *sizes)
    print("all cases ran")
