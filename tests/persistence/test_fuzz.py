"""Files from strangers: whatever is in them, they load or are refused, in little memory and little time."""

from __future__ import annotations

import collections
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, DivergenceError, ModelFileError
from bpcore.functions.activations import Activation
from bpcore.persistence.checkpoint_file import read_checkpoint
from bpcore.persistence.model_file import load_model, save_model
from tests.persistence.mutations import HOSTILE as HOSTILE_VALUES
from tests.persistence.mutations import MUTATIONS, description_of, forge, forge_numbers, replace_somewhere, split

OWN = Activation("bent", "(sqrt(z*z + 1) - 1) / 2 + z", source="me")
TIMES_THE_FILE, BESIDES = 24, 2**21
"""What may be allocated at a time: so many times the file, which is what Python makes of a list of small numbers in
JSON and of its text again (files that consist of tensors need about three times), and what messages and the parser of
a formula take: that of Python 3.13 needs 1.4 MB for one of 4 KB."""
SECONDS = 5.0


def train(folder: Path, epochs: int, resume: bool = False) -> Any:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    net = bp.MLP([3, 4, 2], activation="tanh", output="softmax", seed=1, dtype="float32", backend="numpy")
    run = bp.train(
        net,
        X,
        y,
        optimizer=bp.Adam(bp.ReduceOnPlateau(0.01, patience=1)),
        batch_size=6,
        epochs=epochs,
        validation=(X, y),
        stop=bp.Patience(50),
        record_steps=True,
        seed=0,
        checkpoint=bp.Checkpoint(folder, every_steps=7, keep=1),
        resume=resume,
        verbose=False,
    )
    return net, run


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Models and checkpoints as they are written."""
    folder, found = tmp_path_factory.mktemp("valid"), []
    for dtype, activation in (("float32", "relu"), ("float64", OWN)):
        net = bp.MLP([3, 5, 2], activation, "softmax", seed=0, dtype=dtype, backend="numpy")
        net.meta = {"classes": ["a", "ä"], "deep": {"list": [1, 2.5, None, True, {"x": []}]}}
        save_model(net, folder / "model")
        found.append((folder / "model").read_bytes())
    train(folder / "checkpoints", 3)
    found.append(bp.Checkpoint(folder / "checkpoints").files()[0].read_bytes())
    return found


def load(path: Path) -> str:
    """Load a file as a model and as a checkpoint."""
    outcome = "refused"
    for read in (lambda: load_model(path, backend="numpy"), lambda: read_checkpoint(path)):
        try:
            read()
            outcome = "loaded"
        except ModelFileError as error:
            if len(str(error)) > 3000:
                pytest.fail(f"a message of {len(str(error))} characters")
    return outcome


def fuzz(valid: list[bytes], path: Path, cases: int) -> collections.Counter[str]:
    outcomes: collections.Counter[str] = collections.Counter()
    for data in valid:
        path.write_bytes(data)
        assert load(path) == "loaded"  # and whatever is imported when first needed is there
    for case in range(cases):
        rng = np.random.default_rng([7, case])
        mutate = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        data = mutate(valid[int(rng.integers(len(valid)))], rng)
        path.write_bytes(data)
        tracemalloc.start()
        begun = time.perf_counter()
        try:
            outcomes[load(path)] += 1
        except Exception as error:
            pytest.fail(f"case {case}, {mutate.__name__}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            seconds, (_, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < TIMES_THE_FILE * len(data) + BESIDES, f"case {case}, {mutate.__name__}: {peak} of {len(data)}"
        assert seconds < SECONDS, f"case {case}, {mutate.__name__}: {seconds:.1f} s"
    return outcomes


def test_mutated_files(valid: list[bytes], tmp_path: Path) -> None:
    outcomes = fuzz(valid, tmp_path / "file", 700)
    assert outcomes["refused"] > 400
    assert outcomes["loaded"] > 10  # a forged note, say


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_mutated_files(valid: list[bytes], tmp_path: Path) -> None:
    print(fuzz(valid, tmp_path / "file", 10_000))


def resume_forged(data: bytes, tmp_path: Path, cases: int) -> collections.Counter[str]:
    """Go on from checkpoints whose facts or numbers were forged, with checksums that fit."""
    outcomes: collections.Counter[str] = collections.Counter()
    header, rest = split(data)
    for case in range(cases):
        rng = np.random.default_rng([11, case])
        folder = tmp_path / str(case)
        folder.mkdir()
        path = bp.Checkpoint(folder).path_of(12)
        description = description_of(header)
        facts = description["checkpoint"]["facts"]
        # most of the facts are those that a difference is found in first
        part = facts if rng.random() < 0.2 else {key: facts[key] for key in facts if key != "fingerprint"}
        replace_somewhere(part, rng, HOSTILE_VALUES)
        if part is not facts:
            description["checkpoint"]["facts"] = {**part, "fingerprint": facts["fingerprint"]}
        path.write_bytes(forge_numbers(data, rng) if case % 3 == 2 else forge(header, rest, description))
        try:
            train(folder, 4, resume=True)
            outcomes["resumed"] += 1
        except (ModelFileError, ConfigurationError, DivergenceError) as error:  # the last by a learning rate of NaN
            outcomes[type(error).__name__] += 1
        except Exception as error:
            pytest.fail(f"case {case}: {type(error).__name__}: {str(error)[:300]}")
    return outcomes


def test_forged_checkpoints(valid: list[bytes], tmp_path: Path) -> None:
    outcomes = resume_forged(valid[-1], tmp_path, 300)
    assert outcomes["ModelFileError"] > 50
    assert outcomes["ConfigurationError"] > 10
    assert outcomes["resumed"] > 10


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_forged_checkpoints(valid: list[bytes], tmp_path: Path) -> None:
    print(resume_forged(valid[-1], tmp_path, 5000))
