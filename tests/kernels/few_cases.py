"""What the kernel for predictions of few samples must compute (few.cuh), on arrays of exactly its sizes.

``python -m tests.kernels.few_cases FOLDER [OLD NEW]`` runs three cases with AddressSanitizer, the source changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.functions.program import Program
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.pieces import Layer, print_activations
from bpcore.kernels.cuda.source import few_unit
from tests.helpers.compare import assert_close

CASES = ((1, 1, 1), (1, 300, 8), (2, 65, 10), (3, 1030, 17), (4, 33, 32), (4, 270, 40), (3, 5, 67))
"""Samples, width below, width: ragged packs and whole ones, more rows of W than are asked for at once."""
LAYERS = [Layer(Program("h = tanh(z)"), None), Layer(None, None, "softmax"), Layer(None, None, "log_softmax")]


def check(
    folder: Path,
    dtype: str,
    m: int,
    n_in: int,
    n: int,
    columns: int,
    seed: int,
    *,
    change: Any = (),
    sanitize: bool = False,
) -> None:
    """Compare a launch for each activation with float64, and let it meet an infinity."""
    activations = print_activations(LAYERS)
    source = few_unit(activations.text, np.dtype(dtype), 1 << (m - 1).bit_length(), columns)
    if change:
        old, new = change
        assert source.count(old) == 1, f"{old!r} is not in the source: the mutation is out of date"
        source = source.replace(old, new)
    module, rng = HostModule(source, folder, sanitize=sanitize), np.random.default_rng(n_in)
    A, W, b = (rng.normal(size=shape).astype(dtype) for shape in ((m, n_in), (n_in, n), (n,)))
    W /= 8
    Z = A.astype(np.float64) @ W.astype(np.float64) + b
    log = Z - Z.max(axis=1, keepdims=True)
    log -= np.log(np.exp(log).sum(axis=1, keepdims=True))
    bad = A.copy()
    bad[-1, -1] = np.inf
    for code, expected in zip(activations.codes, (np.tanh(Z), np.exp(log), log), strict=True):
        if code < 0 and n > columns:
            expected = Z  # rows are finished by whoever has all of them
        for given in (A, bad):
            H, odd = np.full((m, n), np.nan, dtype), np.zeros(1, np.uint32)
            arguments = given, W, b, H, np.int32(code), np.int32(1), odd, np.int64(m), np.int64(n_in), np.int64(n)
            module.launch("answer_few", (-(-n // columns),), (256,), arguments, seed=seed)
            assert odd[0] == (given is bad)
            good = m if given is A else m - 1
            scale = np.maximum(np.abs(expected), 1.0)[:good]
            assert_close(H[:good], expected[:good], dtype=np.dtype(dtype), length=n_in + n, scale=scale)


def run_all(folder: Path, cases: Any = CASES, **how: Any) -> None:
    for number, case in enumerate(cases):
        check(folder, ("float32", "float64")[number % 2], *case, (8, 32, 32)[number % 3], number % 4, **how)


if __name__ == "__main__":
    where, *changed = sys.argv[1:]
    run_all(Path(where), CASES[3:6], sanitize=True, change=tuple(changed))
    print("they ran")
