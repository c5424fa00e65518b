"""Compiled kernels: Numba loops and CUDA C++ sources, each beside its NumPy reference.

The folder ``kernels/`` of the repository is installed as ``bpcore.kernels``; there is no top-level package of
that name.
"""
