"""``bpcore bench --peers``: the race against other libraries, whose programs are in the repository."""

from __future__ import annotations

from pathlib import Path

import typer

from bpcore.errors import ConfigurationError, DataError

__all__ = ["race_peers", "refuse_beside_peers"]

OF_PEERS = ("quick", "threads", "json")
"""What of the options of ``bpcore bench`` a race takes."""


def refuse_beside_peers(context: typer.Context, json: Path | None) -> None:
    """Refuse options that the race does not know, instead of racing without them."""
    source = context.get_parameter_source
    given = [name for name in context.params if getattr(source(name), "name", "") == "COMMANDLINE"]
    if others := [f"--{name.replace('_', '-')}" for name in given if name not in ("peers", *OF_PEERS)]:
        raise ConfigurationError(
            f"--peers takes {', '.join(f'--{name}' for name in OF_PEERS)} and not {', '.join(others)}; "
            "`python -m benchmarks.peers --help`, in a checkout, lists what a race can be asked"
        )
    if json == Path("-"):
        raise ConfigurationError("--peers prints tables; --json needs a file there, such as --json race.json")


def race_peers(quick: bool, threads: int | None, json: Path | None) -> int:
    """Run the race of benchmarks/peers, which is part of a checkout and not of the package."""
    import subprocess
    import sys

    import bpcore

    root = Path(bpcore.__file__).resolve().parents[1]
    if not (root / "benchmarks" / "peers" / "__main__.py").exists():
        raise DataError(
            "--peers races bpcore against PyTorch, JAX and others; its programs are in the repository, not in the "
            'package. Clone it, run pip install -e ".[bench]" there, and try again'
        )
    words = [*(["--quick"] if quick else []), *([] if threads is None else ["--threads", str(threads)])]
    words += [] if json is None else ["--json", str(json.absolute())]
    return subprocess.run([sys.executable, "-m", "benchmarks.peers", *words], cwd=root, check=False).returncode
