"""Name the packages; everything else is in pyproject.toml.

The folder ``kernels/`` is installed as ``bpcore.kernels``. Automatic discovery cannot rename a folder, and a
list written by hand goes stale, so the two trees are walked here.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["bpcore", "bpcore.*"]),
        *(f"bpcore.{name}" for name in find_packages(include=["kernels", "kernels.*"])),
    ]
)
