"""Mistakes in the kernels around products by cuBLAS have to be found by the comparison with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import DivergenceError
from bpcore.kernels.cuda import source

ROWS = 300  # more than the threads of the stand-in's only multiprocessor ask for at once


def gradients(be: Any, plan: str, dtype: str, precision: str | None, others: dict[str, Any]) -> Any:
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(ROWS, 8)), rng.integers(0, 4, ROWS)
    net = bp.MLP([8, 24, 12, 4], "tanh", seed=1, dtype=dtype, backend=be)
    trainer = bp.Trainer(
        net, optimizer=bp.Momentum(0.1), batch_size=ROWS, seed=4, plan=plan, precision=precision, **others
    )
    trainer.run(X, y, np.stack([rng.permutation(ROWS) for _ in range(3)]))
    used: Any = trainer._plan
    return be.to_numpy(used.gradient).astype(np.float64), be.to_numpy(net.theta).astype(np.float64)


def check(be: Any, dtype: str, precision: str | None, others: dict[str, Any]) -> None:
    """Compare gradient and parameters after three steps with the reference in float64."""
    tolerance = {None: 1e-9, "tf32x3": 2.0**-18, "bf16": 2.0**-6}[precision]
    wanted = gradients(bp.get_backend("numpy"), "reference", "float64", None, others)
    for found, expected in zip(gradients(be, "wide", dtype, precision, others), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


PLAIN: tuple[str, str | None, dict[str, Any]] = "float64", None, {}
SAMPLES = "float64", None, {"dropout": bp.Dropout(0.3, per="sample")}
BATCH = "float64", None, {"dropout": bp.Dropout(0.3)}
CLIPPED = "float64", None, {"clip": bp.ClipNorm(0.05)}
BFLOAT: tuple[str, str | None, dict[str, Any]] = "float32", "bf16", {}
PLANES: tuple[str, str | None, dict[str, Any]] = "float32", "tf32x3", {}
PLANES_SAMPLES = "float32", "tf32x3", SAMPLES[2]
BFLOAT_SAMPLES = "float32", "bf16", SAMPLES[2]  # eight neighbours at a time, four words of random bits

MISTAKES = {
    "the last stage of the sums of a block": ("plane", "half > 0; half /= 2", "half > 1; half /= 2", PLAIN),
    "the barrier before it": ("plane", "__syncthreads();\n    for (int half", "for (int half", PLAIN),
    "rows that are read ahead": ("plane", "row += ROWS_AHEAD * step", "row += 2 * ROWS_AHEAD * step", PLAIN),
    "the second stage of BP3": ("wide_update", "s < layer.splits;", "s < 1;", PLAIN),
    "the sums of the output": ("wide_output", "warp < blockDim.x / 32", "warp < 1", PLAIN),
    "masks of the backward pass": ("wide", "delta[k] *= mask[k]", "delta[k] *= T(1)", SAMPLES),
    "words of a mask": ("plane", "if (k == 0 || word == 0)", "if (k == 0)", BFLOAT_SAMPLES),
    "neurons that are not moved": ("wide_update", "is_kept(layer.keep_in, i) &&", "", BATCH),
    "the factor of the norm": ("wide_update", "g[k] *= u.factor", "g[k] *= T(1)", CLIPPED),
    "the copy of theta": ("wide_update", "if (COPIED) store_operands<V>(u.copy + at, u.plane, theta);", "", BFLOAT),
    "the copy of theta in two planes": (
        "wide_update",
        "if (COPIED) store_operands<V>",
        "if (false) store_operands<V>",
        PLANES,
    ),
    "the rest of a number": ("operand", "__fsub_rn(x, high.part);", "0.0f;", PLANES),
    "the rest, where it is": ("operand", "(p + plane) = low;", "(p + plane) = high;", PLANES_SAMPLES),
    "digits that tensor cores do not read": ("operand", "rounded & ~0x1fffu", "rounded & ~0xfffu", PLANES),
    "the rest in a derivative": (
        "wide",
        ": operands_at<V>(source + at, plane)",
        ": product_at<V>(source + at)",
        PLANES,
    ),
    "digits that are cut off": ("operand", "= bits_of_bfloat16(x);", "= bits_of_bfloat16(x) & 0xfff0;", BFLOAT),
}


@pytest.mark.parametrize(
    "case", [PLAIN, SAMPLES, BATCH, CLIPPED, BFLOAT, BFLOAT_SAMPLES, PLANES, PLANES_SAMPLES], ids=str
)
def test_without_a_mistake(fake_backend: CupyBackend, case: Any) -> None:
    check(fake_backend, *case)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    file, right, wrong, case = MISTAKES[mistake]
    text = source.cuda_text
    assert right in text(file)
    monkeypatch.setattr(
        source, "cuda_text", lambda name: text(name).replace(right, wrong) if name == file else text(name)
    )
    with pytest.raises((AssertionError, DivergenceError)):  # the latter for NaN
        check(fake_backend, *case)
