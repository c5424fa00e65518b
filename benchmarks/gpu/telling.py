"""How a part that measures for minutes tells what it is doing, and what it has found so far."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["telling"]


def telling(file: Path) -> tuple[Callable[[dict[str, Any]], None], Callable[[str], None]]:
    """Return what writes all figures found so far to a file, and what prints a line with the time since now."""
    begun = time.monotonic()

    def write(result: dict[str, Any]) -> None:
        file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8")

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    return write, tell
