"""The pages of the gallery: one for each example, and the list of them.

What an example finds is printed while the site is built, so it stands in blocks for the site alone; a page on its own
has the words, the equations, the pictures and the way to run it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from bpcore.gallery import EXAMPLES, Example
from docs.tools.markdown import NOTE, table

__all__ = ["PAGES", "file_of", "words_of"]

HERE = Path(__file__).resolve().parents[1] / "gallery"

INTRODUCTION = """
# Gallery

Sixteen worked examples. Each is one short script built on the public names: it says which equations it uses, computes,
and compares what it found with the numbers that are known, within their tolerances. The command lists them, runs one by
number or by name, on the backend that is asked for, and saves its pictures:

```sh
bpcore gallery
bpcore gallery R7 --backend numba
bpcore gallery saturated-neuron --out pictures --format svg
bpcore gallery --all --json
```

A number that is off makes the exit code 1. Pictures need the extra `plot`; the numbers do not. In Python:

```python
>>> from bpcore.gallery import get_example, run_example
>>> report = run_example(get_example("R3"), backend="numpy")
>>> report.passed, len(report.checks)
(True, 7)
>>> print(report.tables[0].header, report.tables[0].rows[-1])
('update', 'x', 'J') (4, '0.03072', '0.000944')
```

`bpcore.gallery.save_pictures(example, report, folder)` writes its pictures. R1 and R2 use a small computational graph
of formulas, which serves for examples of your own:

```python
>>> from bpcore.gallery import Graph
>>> graph = Graph({"h": "sigmoid(w*x + b)", "E": "0.5*(h - y)**2"}, backend="numpy")
>>> graph.forward(w=2, x=1, b=2, y=0) > 0.48
True
>>> slopes = graph.backward()
>>> round(slopes["w"], 6), round(float(graph.differences("w")), 6)
(0.017345, 0.017345)
>>> round(graph.local["h", "E"], 4), round(graph.slopes["h"], 4)
(0.982, 0.982)
```

"""


def file_of(example: Example) -> str:
    """Return the name of an example's page."""
    return f"r{example.number:02d}-{example.name}.md"


def words_of(example: Example) -> tuple[str, str]:
    """Return the first sentence of an example's module and what follows it, up to the equations."""
    text = inspect.cleandoc(sys.modules[example.run.__module__].__doc__ or "")
    words = text.partition("::\n\n")[0].removeprefix(f"{example.key}. ").strip()
    first, _, rest = words.partition("\n\n")
    return first.replace("\n", " "), rest.strip().removesuffix("::")


def index() -> str:
    """Return the list of the examples."""
    text = NOTE + INTRODUCTION
    text += table(
        ("", "example", "what one sees"),
        ((e.key, f"[{e.name}]({file_of(e)})", e.shows) for e in EXAMPLES.values()),
    )
    files = "".join(f"{Path(file_of(e)).stem}\n" for e in EXAMPLES.values())
    return text + f"\n<!-- site\n```{{toctree}}\n:hidden:\n\n{files}```\n-->\n"


def page(example: Example) -> str:
    """Return the page of an example."""
    first, rest = words_of(example)
    module = example.run.__module__.replace(".", "/")
    text = NOTE + f"\n# {example.key}: {example.name.replace('-', ' ')}\n\n{first}\n\n"
    if rest:
        text += f"{rest}{'' if rest.endswith('.') else ':'}\n\n"
    text += "```text\n" + "".join(f"{line}\n" for line in example.equations) + "```\n\n"
    for path in sorted(HERE.glob(f"r{example.number:02d}-*.png")):
        text += f"![{example.shows}]({path.name})\n\n"
    text += (
        f"Run it: `bpcore gallery {example.key}`, with `--backend` elsewhere, with `--out FOLDER` for its pictures.\n"
    )
    text += f"The code: [{module}.py](../../{module}.py).\n\n"
    text += "<!-- site\n## What it finds\n\n"
    return (
        text
        + f"```{{gallery-tables}} {example.key}\n```\n\n## The code\n\n```{{gallery-source}} {example.key}\n```\n-->\n"
    )


PAGES: dict[str, Callable[[], str]] = {"index.md": index} | {
    file_of(e): (lambda e=e: page(e)) for e in EXAMPLES.values()
}
