"""Throughput of training and prediction beside other libraries: ``python -m benchmarks.peers --help``.

========== =========================================================================================
module     what it holds
========== =========================================================================================
workloads  the networks, how they are trained, and what a step costs in operations and bytes
problem    data, first weights and the order of the samples, equal for all
reference  a float64 reference of the losses and outputs, which every contestant must meet
adapters   one file a library: the same training in its best idiomatic form
worker     a process that holds one contestant; it computes when it is told and sleeps between
race       interleaved rounds over the workers
results    parity, medians, ranks, and the result file
machine    where and with what this was measured
report     the table on the screen
table      the page docs/reference/benchmarks.md, written from the committed result files
========== =========================================================================================
"""
