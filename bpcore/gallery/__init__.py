"""The gallery: sixteen worked examples, each a short script with its equations, its known numbers and its pictures.

``bpcore gallery`` is the same on the command line.

>>> from bpcore.gallery import get_example, run_example
>>> report = run_example(get_example("R3"), backend="numpy")
>>> report.passed, report.checks[0]
(True, Check(what='updates', found=4.0, expected=4.0, relation='=', tolerance=0.0, unit=''))
"""

from __future__ import annotations

from bpcore.gallery.example import Check, Example, Picture, Report, Table, run_example
from bpcore.gallery.graph import Graph
from bpcore.gallery.graph_picture import draw_graph
from bpcore.gallery.pictures import save_pictures
from bpcore.gallery.registry import EXAMPLES, get_example

__all__ = [
    "EXAMPLES",
    "Check",
    "Example",
    "Graph",
    "Picture",
    "Report",
    "Table",
    "draw_graph",
    "get_example",
    "run_example",
    "save_pictures",
]
