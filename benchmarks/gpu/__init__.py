"""What is measured on a GPU; ``python benchmarks/gpu_acceptance.py`` calls all of it.

========== ============================================================================================
module     what it holds
========== ============================================================================================
workloads  the networks, in each precision, and the floor of a step
contestants who trains them: bpcore by each plan, PyTorch, JAX, and bpcore on the processor beside the GPU
with_*     one file a library, as in ``benchmarks/peers/adapters``
worker     a process that holds one contestant
race       interleaved rounds over the workers: ``python -m benchmarks.gpu.race --help``
few_steps  what a profiler looks at: a few steps of a workload by a plan
counters   what kernels do with the GPU, by Nsight Compute: ``python -m benchmarks.gpu.counters --help``
ncu        its command line and its table
profile    kernel by kernel, by PyTorch's profiler: ``python -m benchmarks.gpu.profile --help``
crossovers which plan is the fastest where: ``python -m benchmarks.gpu.crossovers --help``
costs      launches, barriers, copies, products: ``python -m benchmarks.gpu.costs --help``
costs.cu   its kernels
digits     how far products are from float64, one of its measurements
inference  prediction beside PyTorch, another one and a command of its own
sanitized  the tests that run under compute-sanitizer
schedule   which part runs when, beside which others, and how long
parts      runs a command under a time limit, and ends what it started
report     the result as Markdown, with ``tables`` of counters and crossovers
========== ============================================================================================
"""
