"""Running one part of the acceptance: a command with a time limit, after which nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["run", "tail"]

GRACE = 3.0
"""Seconds between asking the processes to end and ending them."""


def run(command: list[str], limit: float, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run a command; never raises.

    Parameters
    ----------
    command : list of str
        The program and its arguments.
    limit : float
        Seconds after which the command, and every process that it has started, is ended.
    folder : Path
        Where it runs.
    environment : dict
        Its variables.

    Returns
    -------
    dict
        ``status`` (``ok``, ``failed``, ``out of time`` or ``could not start``), ``seconds``, ``output``.
    """
    begun = time.perf_counter()
    facts: dict[str, Any] = {"command": " ".join(command), "limit_seconds": round(limit)}
    # a file and no pipe: a pipe is open as long as any process holds it
    with tempfile.TemporaryFile() as written:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=written,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return facts | {"status": "could not start", "seconds": 0.0, "output": str(error)}
        try:
            code = process.wait(timeout=max(limit, 1))
            facts |= {"status": "ok" if code == 0 else "failed", "returncode": code}
        except subprocess.TimeoutExpired:
            facts["status"] = "out of time"
        finally:
            _end(process)
        written.seek(0)
        output = written.read().decode("utf-8", "replace")
    return facts | {"seconds": round(time.perf_counter() - begun, 1), "output": output}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started, first kindly: interrupted, pytest still says what has failed."""
    if not hasattr(os, "killpg"):  # Windows, where processes form a tree and no group
        if process.poll() is None:
            with contextlib.suppress(OSError):
                subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
            process.kill()
        process.wait()
        return
    for word in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)


def tail(part: dict[str, Any], lines: int = 25) -> dict[str, Any]:
    """Keep the end of a part's output."""
    return {**part, "output": "\n".join(part["output"].splitlines()[-lines:])}
