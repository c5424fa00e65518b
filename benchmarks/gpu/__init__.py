"""What is measured on a GPU; ``python benchmarks/gpu_acceptance.py`` calls all of it.

========== ============================================================================================
module     what it holds
========== ============================================================================================
workloads  the networks, in each precision, and the floor of a step
contestants who trains them: bpcore by each plan, PyTorch, JAX, and bpcore on the processor beside the GPU
with_*     one file a library, as in ``benchmarks/peers/adapters``
worker     a process that holds one contestant
race       interleaved rounds over the workers: ``python -m benchmarks.gpu.race --help``
costs      launches, barriers, copies, products: ``python -m benchmarks.gpu.costs --help``
costs.cu   its kernels
digits     how far products are from float64, one of its measurements
inference  prediction beside PyTorch, another one and a command of its own
parts      runs a command under a time limit, and ends what it started
report     the tables
========== ============================================================================================
"""
