"""Numba kernels for the CPU: serial loops that release the GIL, compiled on first use and cached on disk.

Importing this package does not import Numba; its modules do.

=================  =====================================================================================
module             what it holds
=================  =====================================================================================
``cache``          where compiled code lives on disk, and how it never goes stale
``scalar``         ``exp_``, ``tanh_``, ``max_``, ...: functions of one number that vectorise inside loops
``elementwise``    prints a :class:`~bpcore.functions.program.Program` as one loop and compiles it
``rowwise``        softmax family, sums, gathers, hits
``philox``         counter-based random bits and dropout masks
=================  =====================================================================================
"""
