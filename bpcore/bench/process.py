"""A process that measures, and the pipe to it.

Libraries in one process disturb each other: their pools of threads spin for a while after work, and each wants to be
first to choose how many threads there are. So each contender has a process of its own. Commands go to it as lines of
JSON on its standard input, replies come back likewise; in between it is blocked. It replies only when its threads have
gone to sleep, so that the next one has the machine to itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["FAILED", "OK", "SKIPPED", "Worker", "answer_commands", "serve", "settle"]

OK, SKIPPED, FAILED = "ok", "skipped", "failed"
"""How a command can end; ``skipped`` says that the contender cannot do it, ``failed`` that it should have."""

SETTLE_STEP = 0.005
SETTLE_STEPS = 4
"""Quiet steps in succession: a thread that spins may have had to wait for a core during one."""
SETTLE_LIMIT = 0.5


def settle() -> float:
    """Wait until this process uses next to no processor time; return the seconds waited."""
    begun, quiet = time.perf_counter(), 0
    while quiet < SETTLE_STEPS and time.perf_counter() - begun < SETTLE_LIMIT:
        used = time.process_time()
        time.sleep(SETTLE_STEP)
        quiet = quiet + 1 if time.process_time() - used < 0.1 * SETTLE_STEP else 0
    return time.perf_counter() - begun


def serve(holder: Any, commands: Iterable[str], reply: Callable[[str], None]) -> None:
    """Answer commands until there are no more.

    Parameters
    ----------
    holder : object
        Its methods carry out the commands and return dicts with a ``status``.
    commands : iterable of str
        Lines of JSON: an object with the name of the method under ``do``, and its arguments.
    reply : callable
        Takes a line of JSON. ``idle_load`` is the share of a core that the process used since the reply before.
    """
    idle_since: tuple[float, float] | None = None
    for line in commands:
        idle = None
        if idle_since is not None:
            wall = time.perf_counter() - idle_since[0]
            idle = (time.process_time() - idle_since[1]) / wall if wall > 0.01 else None
        asked = json.loads(line)
        try:
            answer = getattr(holder, asked.pop("do"))(**asked)
        except Exception as error:
            last = traceback.format_exc().strip().splitlines()[-12:]
            first_line = (str(error).strip().splitlines() or [""])[0]
            answer = {"status": FAILED, "why": f"{type(error).__name__}: {first_line}", "traceback": last}
        answer |= {"idle_load": idle, "settled_in": settle()}
        idle_since = (time.perf_counter(), time.process_time())
        reply(json.dumps(answer))


def answer_commands(holder: Any) -> None:
    """Serve the parent of this process; whatever libraries print goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(text: str) -> None:
        pipe.write(text + "\n")
        pipe.flush()

    serve(holder, sys.stdin, reply)


class Worker:
    """A process with one contender, and the pipe to it.

    Parameters
    ----------
    module : str
        What the process runs, with ``python -m``; it calls :func:`answer_commands`.
    words : sequence of str
        Its arguments.
    environment : dict of str to str
        Its environment.
    folder : Path, optional
        Where it runs; by default here.
    """

    def __init__(
        self, module: str, words: Iterable[str], environment: dict[str, str], folder: Path | None = None
    ) -> None:
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
        )
        self.replies: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put("")

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply; a worker that is too slow or dies is ended and said to have failed.

        Parameters
        ----------
        do : str
            Name of the method of the holder.
        limit : float
            Seconds to wait.
        **arguments
            JSON-serialisable.

        Returns
        -------
        dict
            The reply, with its ``status``.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.replies.get(timeout=limit)
        except queue.Empty:
            self.process.kill()
            self.process.wait()
            return {"status": FAILED, "why": f"{do} took more than {limit:.0f} s"}
        except OSError:
            line = ""
        if line:
            return dict(json.loads(line))
        code = self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return {"status": FAILED, "why": f"the process ended with {code}: {' '.join(last)}"}

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=5)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.errors.close()
