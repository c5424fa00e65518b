"""Throughput of training and prediction beside other libraries: ``python -m benchmarks.peers --help``.

========== =========================================================================================
module     what it holds
========== =========================================================================================
workloads  the networks, how they are trained, and what bpcore is to reach
adapters   one file a library: the same training in its best idiomatic form
holder     one contestant, and the commands that its process carries out
worker     that process: it computes when it is told and sleeps between
race       interleaved rounds over the workers
results    parity, medians, ranks, and the result file
machine    the cores of the workers, and their environment
report     the table on the screen
table      the page docs/reference/benchmarks.md, written from the committed result files
========== =========================================================================================

What a step costs, the data that are equal for all, the float64 witness that every contestant must meet, the pipe to a
worker and the facts about the machine are those of :mod:`bpcore.bench`.
"""
