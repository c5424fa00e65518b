"""Kernels of one cluster of thread blocks that fill their shared memory: what CuPy's launch does not know of.

The size of the cluster is a constant of the kernel, so an ordinary launch starts it. Two attributes have to be set
before: how much shared memory a block may have (CUDA allows 48 KiB unasked), and that a cluster may have more than the
eight blocks that every device with clusters can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PORTABLE_BLOCKS", "largest_cluster", "largest_shared_memory", "prepare_cluster"]

PORTABLE_BLOCKS = 8
LARGEST_BLOCKS = 16

# CUfunction_attribute of the driver's interface
_MAX_DYNAMIC_SHARED_SIZE_BYTES, _NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 8, 14


def largest_shared_memory(properties: Mapping[str, Any]) -> int:
    """Bytes of shared memory that a block may have, from CUDA's description of a device."""
    return int(properties.get("sharedMemPerBlockOptin") or 48 * 1024)


def largest_cluster(properties: Mapping[str, Any]) -> int:
    """Blocks of the largest cluster worth a try, from CUDA's description of a device; 1 if it has none."""
    major = int(properties["major"])
    return {9: LARGEST_BLOCKS, 10: LARGEST_BLOCKS}.get(major, PORTABLE_BLOCKS if major > 10 else 1)


def prepare_cluster(function: Any, shared: int, blocks: int) -> None:
    """Let a kernel have its shared memory and its cluster.

    Parameters
    ----------
    function : cupy.cuda.Function
        The kernel.
    shared : int
        Bytes of dynamic shared memory of a block.
    blocks : int
        Blocks of its cluster.
    """
    from cupy_backends.cuda.api import driver

    driver.funcSetAttribute(function.ptr, _MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
    if blocks > PORTABLE_BLOCKS:
        driver.funcSetAttribute(function.ptr, _NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
