"""A training in a process of its own, for tests that kill it. Arguments: FOLDER OUT EPOCHS BACKEND MODE.

MODE is ``plain``, or ``slow`` for checkpoints that take long to write: in many small pieces with pauses, and an fsync
that waits, so that a process that is killed at some moment was probably writing; ``last`` is for one that may end, and
``whole`` has no checkpoints at all.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy  # what is imported when first needed should be there when the clock begins

import bpcore as bp
from bpcore.persistence import atomic, checkpoint_writer

ROWS, BATCH, EVERY = 61, 6, 7


def write_slowly() -> None:
    write, fsync = os.write, os.fsync

    def piece(descriptor: int, data: Any) -> int:
        time.sleep(0.001)
        return write(descriptor, bytes(memoryview(data)[: max(1, len(data) // 3)]))

    def wait(descriptor: int) -> None:
        time.sleep(0.005)
        fsync(descriptor)

    atomic.os.write, atomic.os.fsync = piece, wait  # type: ignore[attr-defined]


def main(folder: str, out: str, epochs: int, backend: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(ROWS, 4)), rng.integers(0, 3, ROWS)
    net = bp.MLP([4, 7, 5, 3], ["tanh", "relu"], "softmax", seed=3, dtype="float32", backend=backend)
    options: dict[str, Any] = {}
    if mode == "last":
        options = {"checkpoint": bp.Checkpoint(folder, every_epochs=100), "resume": True}
    elif mode != "whole":
        checkpoint = bp.Checkpoint(folder, every_steps=EVERY, every_epochs=3, keep=3)
        # a training that takes its time, so that there is something to kill
        options = {"checkpoint": checkpoint, "resume": True, "callbacks": [lambda net, progress: time.sleep(0.003)]}
    if mode == "slow":
        write_slowly()
    assert safetensors.numpy is not None
    assert checkpoint_writer is not None
    print("ready", flush=True)
    run = bp.train(
        net,
        X,
        y,
        optimizer=bp.Adam(bp.ReduceOnPlateau(0.01, factor=0.9, patience=3)),
        dropout=bp.Dropout(0.2, per="sample"),
        sample_weight=1 + np.arange(ROWS) % 3,
        validation=(X[:20], y[:20]),
        stop=bp.Patience(10**6),
        keep="best",
        batch_size=BATCH,
        epochs=epochs,
        seed=5,
        record_steps=True,
        threads=2 if backend == "numba" else None,
        verbose=False,
        **options,
    )
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]
    result = {
        "theta": np.asarray(net.theta).tobytes().hex(),
        "history": rows,
        "steps": run.history.steps.tobytes().hex(),
        "resumed": run.record.get("resumed", []),
        "best_epoch": run.best_epoch,
    }
    Path(out).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
