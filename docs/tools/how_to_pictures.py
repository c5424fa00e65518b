#!/usr/bin/env python3
"""Make the pictures of the how-to pages by running their code: ``python docs/tools/how_to_pictures.py``.

Whatever a page saves under a name is the picture of that name in ``docs/how-to/pictures``. `tests/test_docs.py` runs
the pages, too, and compares names and sizes.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "how-to"
PICTURES = HERE / "pictures"


def pages() -> list[Path]:
    """Return the pages whose code saves pictures."""
    return [page for page in sorted(HERE.glob("*.md")) if saved_by(page)]


def saved_by(page: Path) -> list[str]:
    """Return the names under which the code of a page saves pictures."""
    return re.findall(r'savefig\("([\w-]+\.png)"', page.read_text("utf-8"))


def shown_by(page: Path) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return re.findall(r"\]\(pictures/([\w-]+\.png)\)", page.read_text("utf-8"))


def run(page: Path, folder: Path) -> None:
    """Run the Python of a page in a folder."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for text in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            lines = text.splitlines()
            if any(line.startswith(">>> ") for line in lines):  # a dialogue: what was typed
                lines = [line[4:] for line in lines if line.startswith((">>> ", "... ")) or line == "..."]
                # an indented block of a dialogue ends with the next prompt
                text = "\n".join(lines)
            exec(compile(text, str(page), "exec"), namespace)


def main() -> None:
    """Write all pictures."""
    os.environ.setdefault("MPLBACKEND", "agg")
    PICTURES.mkdir(exist_ok=True)
    for page in pages():
        with tempfile.TemporaryDirectory() as folder:
            run(page, Path(folder))
            for name in saved_by(page):
                shutil.copy(Path(folder, name), PICTURES / name)
                print(PICTURES / name)


if __name__ == "__main__":
    main()
