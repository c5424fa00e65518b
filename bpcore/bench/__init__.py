"""Measuring the backends on the machine of the user: ``bpcore bench``, ``bpcore bench compare``, ``bpcore tune``."""
