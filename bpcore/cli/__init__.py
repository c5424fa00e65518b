"""The command line: ``bpcore train``, ``predict``, ``evaluate``, ``export``, ``doctor``, ``bench`` and others.

Exit codes, for scripts:

====  ==========================================================================
code  meaning
====  ==========================================================================
0     all went well
1     a check failed: a wrong gradient or number, training that diverged, a wrong result or regression of a benchmark
2     wrong usage or input: unknown names, unreadable files, data that cannot be used
3     a backend was asked for by name and cannot run here
130   interrupted by Ctrl-C
====  ==========================================================================

Results go to standard output, errors and progress to standard error. Typer and rich are imported when a command
runs, never by ``import bpcore``.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``bpcore``; by default those of the process.
    """
    from bpcore.cli.app import app

    app(args=None if arguments is None else list(arguments), prog_name="bpcore")
