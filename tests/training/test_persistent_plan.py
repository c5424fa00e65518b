"""The persistent plan against the reference path, step for step: over the stand-in for CuPy, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_cluster import largest_cluster, largest_shared_memory
from bpcore.errors import ConfigurationError
from bpcore.kernels.cuda import resident, source
from bpcore.kernels.cuda.host_runner import HostRunError
from bpcore.training.persistent import PersistentPlan, best_shape
from bpcore.training.spec import Dropout
from tests.helpers.compare import assert_same_bits
from tests.training.test_graph_plan import ROWS, SHAPES, Case, compare

HOPPER = 227 * 1024
"""Bytes of shared memory that a block of compute capability 9.0 may have."""

# blocks, threads, columns of W[1], whether samples are shared
CUTS = {
    "one block": (1, 64, 1, True),
    "two blocks": (2, 64, 1, True),
    "four blocks, two columns": (4, 32, 2, True),
    "each does all": (4, 32, 1, False),
}


def case(be: CupyBackend, shape: str, dtype: str, batch_size: int, cut: str) -> Case:
    """Make the networks of a test, one of them trained by a persistent plan; skip where there are no such clusters."""
    cluster, threads, column_blocks, shared = CUTS[cut]
    if cluster > largest_cluster(be.gpu.properties()):
        pytest.skip(f"a cluster of {cluster} blocks needs compute capability 9.0; this is {be.device}")
    made = Case(be, shape, dtype, batch_size, ("graph", "reference"))
    _, net, state = made.runs.pop("graph")
    plan = PersistentPlan(
        made.spec, net, be, 11, cluster=cluster, threads=threads, column_blocks=column_blocks, shared=shared
    )
    made.runs["persistent"] = plan, net, state
    made.problems["persistent"] = made.problems.pop("graph")
    return made


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", CUTS)
def test_equals_the_reference(cupy_backend: CupyBackend, cut: str, shape: str, dtype: str) -> None:
    if dtype == "float32" and shape in ("norm", "everything"):
        pytest.skip("a norm at the limit is above it in one order of addition and below it in another")
    try:
        made = case(cupy_backend, shape, dtype, 9, cut)
    except ConfigurationError as error:
        if largest_shared_memory(cupy_backend.gpu.properties()) < HOPPER:
            pytest.skip(f"what fits in {HOPPER // 1024} KiB is known, this device has less: {error}")
        # wide rows in float64, of which every block would keep all
        assert (shape, dtype) in {("log-softmax rows", "float64"), ("tiles", "float64")}
        assert CUTS[cut][0] == 1 or not CUTS[cut][3]
        assert "no shape of its blocks fits" in str(error)  # noqa: PT017 - what fits is not known before
        return
    compare(made, "persistent", 9)


@pytest.mark.parametrize("cut", CUTS)
def test_the_same_bits_from_run_to_run_and_however_a_run_is_cut(cupy_backend: CupyBackend, cut: str) -> None:
    index = np.random.default_rng(5).integers(0, ROWS, (12, 9))
    found: list[dict[str, Any]] = []
    for cuts in ([12], [12], [1, 2, 9]):
        made = case(cupy_backend, "masks", "float32", 9, cut)
        start = 0
        for count in cuts:
            made.run("persistent", index[start : start + count])
            start += count
        found.append(made.results("persistent"))
    for other in found[1:]:
        for name, array in found[0].items():
            assert_same_bits(other[name], array)


def test_what_does_not_fit_is_refused_in_words(fake_backend: CupyBackend) -> None:
    made = Case(fake_backend, "tiles", "float64", 20000, ("reference",))
    reason = PersistentPlan.supports(made.spec, fake_backend)
    assert reason is not None
    assert "a batch of 20000 take" in reason
    _, net, _ = made.runs["reference"]
    with pytest.raises(ConfigurationError, match="KiB of shared memory or more in each block; this device has 227 KiB"):
        PersistentPlan(made.spec, net, fake_backend, 0)


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=5),
    batch_size=st.integers(1, 40),
    blocks=st.sampled_from([(1, 1), (2, 2), (4, 1), (8, 2)]),
    threads=st.sampled_from([32, 96]),
    shared=st.booleans(),
    base=st.sampled_from(["masks", "everything", "masked rows"]),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_random_widths(fake_backend, widths, batch_size, blocks, threads, shared, base, dtype):
    """Every cut, with blocks that have no sample, no row or no column."""
    _, hidden, output, loss, rule, others = SHAPES[base]
    others = {**others, "dropout": Dropout(0.4, per="sample" if base == "everything" else "batch")}
    if len(widths) == 2:
        del others["dropout"]
    if dtype == "float32":
        others.pop("clip", None)  # a norm at the limit is above it in one order of addition and below it in another
    SHAPES["drawn"] = [*widths[:-1], max(2, widths[-1])], hidden[0], output, loss, rule, others
    CUTS["drawn"] = blocks[0], threads, blocks[1], shared or blocks[0] == 1
    try:
        compare(case(fake_backend, "drawn", dtype, batch_size, "drawn"), "persistent", batch_size)
    finally:
        del SHAPES["drawn"], CUTS["drawn"]


# A change of the kernel, and the network and the cut that notice it.
MUTATIONS = {
    "blocks do not wait for the parts of Z[2]": (
        "meet();\n        if (k > 0) finish_spread",
        "__syncthreads();\n        if (k > 0) finish_spread",
        "plain",
        "two blocks",
    ),
    "blocks do not wait for Delta": (
        "if (SHARES > 1) cluster_wait();",
        "__syncthreads();",
        "plain",
        "two blocks",
    ),
    "blocks clear their memory when others use it": (
        "meet();  // nobody writes",
        "__syncthreads();  // nobody writes",
        "plain",
        "four blocks, two columns",
    ),
    "the inputs are not awaited": (
        "finish_fetch(b, k);",
        "",
        "plain",
        "one block",
    ),
    "the inputs of others are not awaited": ("__syncthreads();  // the inputs", "// the inputs", "plain", "one block"),
    "Z[2] is not awaited": ("    __syncthreads();\n    finish_rows<2>", "    finish_rows<2>", "plain", "one block"),
    "Z of the next layer is not awaited": (
        "        __syncthreads();\n        finish_rows<l + 1>",
        "        finish_rows<l + 1>",
        "plain",
        "one block",
    ),
    "Delta of the output is not awaited": (
        "        __syncthreads();\n        backward<LAST - 1>",
        "        backward<LAST - 1>",
        "plain",
        "one block",
    ),
    "Delta of a layer is not awaited": ("if constexpr (l > 2) __syncthreads();", "", "weights", "one block"),
    "parts of one step and the next share their place": (
        "b.buffer * PARTS_SIZE",
        "0 * PARTS_SIZE",
        "plain",
        "each does all",
    ),
    "squares of the warps are not awaited": (
        "__syncthreads();\n    for (int l = threadIdx.x; l < LAST - 1",
        "for (int l = threadIdx.x; l < LAST - 1",
        "norm",
        "two blocks",
    ),
    "squares of the blocks are not awaited": (
        "meet();\n    const double* of_block",
        "__syncthreads();\n    const double* of_block",
        "norm",
        "two blocks",
    ),
    "an input too few": (
        "at_most(rows<1>(b), Layer<1>::N - first_row<1>(b))",
        "at_most(rows<1>(b), Layer<1>::N - first_row<1>(b) - 1)",
        "plain",
        "one block",
    ),
    "a mask for the wrong sample": (
        "(q * SHARES + b.share) * static_cast",
        "q * static_cast",
        "everything",
        "two blocks",
    ),
    "a masked neuron moves": ("if (row < Own::N && !(", "if (false && !(", "masks", "one block"),
    "the bias has a price": ("PENALISED && !bias", "PENALISED", "masked rows", "one block"),
    "parameters of another block are not awaited": (
        "if (k > 0) finish_spread(b, k - 1);",
        "",
        "plain",
        "two blocks",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_is_caught(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    old, new, shape, cut = MUTATIONS[name]
    original = source.cuda_text
    assert old in original("resident"), "the mutation is out of date"
    monkeypatch.setattr(resident, "cuda_text", lambda file: original(file).replace(old, new))
    for _ in range(4):  # each launch has another schedule
        made = case(fake_backend, shape, "float64", 9, cut)
        try:
            compare(made, "persistent", 9)
        except (AssertionError, HostRunError):
            return
    pytest.fail("no case noticed the mutation")


def test_a_watched_run_shows_every_step_and_ends_the_same(cupy_backend: CupyBackend) -> None:
    index = np.random.default_rng(5).integers(0, ROWS, (3, 9))
    quiet, watched = (case(cupy_backend, "plain", "float64", 9, "two blocks") for _ in range(2))
    seen: list[tuple[str, int]] = []
    quiet.run("persistent", index)
    watched.run("persistent", index, lambda quantity, layer, array: seen.append((quantity, layer)))
    assert seen.count(("Delta", 2)) == 3
    assert seen.count(("W", 1)) == 2 * 3  # by the reference, and as it is here
    for name, array in quiet.results("persistent").items():
        assert_same_bits(watched.results("persistent")[name], array)


def test_a_device_that_starts_no_cluster_of_sixteen(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver refuses: the plan takes eight blocks and says so, unless sixteen were asked for."""
    made = Case(fake_backend, "tiles", "float32", 100, ("reference",))
    _, net, _ = made.runs["reference"]
    best = best_shape(made.spec, fake_backend.gpu.properties())
    assert best is not None
    assert best.blocks == 16

    def refuse(self: PersistentPlan, function: Any, arguments: Any) -> None:
        raise RuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE: invalid cluster size")

    monkeypatch.setattr(PersistentPlan, "_launch", refuse)
    plan = PersistentPlan(made.spec, net, fake_backend, 0)
    assert plan.shape.blocks <= 8
    assert "this device starts no cluster of 16" in plan.why
    with pytest.raises(ConfigurationError, match=r"this device starts no cluster of 16 .* 8 blocks or fewer"):
        PersistentPlan(made.spec, net, fake_backend, 0, cluster=16)


def test_a_device_without_clusters_uses_one_block(fake_backend: CupyBackend) -> None:
    made = Case(fake_backend, "masks", "float32", 9, ("reference",))
    shape = best_shape(made.spec, {"major": 8, "sharedMemPerBlockOptin": 166912})
    assert shape is not None
    assert shape.blocks == 1
