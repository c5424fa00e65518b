"""CUDA kernels: the ``.cuh`` sources, and the Python that prints, builds and (in tests) simulates them.

The sources are CUDA C++ over one element type ``T``. :mod:`.source` puts translation units together and prints the
kernel of a formula, :mod:`.build` compiles them for a device, :mod:`.host_runner` compiles the same text with g++ and
runs it on the CPU, thread by thread, for tests on machines without a GPU.
"""
