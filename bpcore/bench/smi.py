"""What nvidia-smi tells of the GPUs: what they are, and how they are at this moment."""

from __future__ import annotations

import shutil
import subprocess

__all__ = ["MOMENT", "WHAT", "ask"]

WHAT = ("name", "driver_version", "memory.total", "compute_cap", "clocks.max.sm", "clocks.max.memory", "power.limit")
"""Facts that a comparison of two runs depends on."""

MOMENT = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "pstate", "utilization.gpu")
"""Hints why a figure is what it is: a GPU that is hot or saves power has lower clocks."""


def ask(fields: tuple[str, ...]) -> list[dict[str, str]]:
    """Return these fields of each GPU, with their units; nothing where nvidia-smi is not there or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line.split(", ") for line in done.stdout.splitlines()]
    return [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]
