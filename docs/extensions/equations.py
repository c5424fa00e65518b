"""Equations go by the names of the field: the label ``eq-bp1`` shows as (BP1), and so does a reference to it.

A page labels an equation with ``$$ ... $$ (eq-bp1)`` and names the functions that compute it below; their docstrings
refer back with ``:eq:`eq-bp1```. `tests/docs/test_equations.py` holds the two together.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["name_of", "setup"]


def name_of(label: str) -> str:
    """Return what is shown for a label.

    >>> name_of("eq-bp1"), name_of("eq-forward")
    ('BP1', 'forward')
    """
    word = label.removeprefix("eq-")
    return word.upper() if re.fullmatch(r"bp\d\w?", word) else word


def setup(app: Any) -> dict[str, Any]:
    from sphinx.domains.math import MathDomain

    class NamedEquations(MathDomain):
        """The domain of equations, with names where it has numbers."""

        def note_equation(self, docname: str, labelid: str, location: Any = None) -> None:
            super().note_equation(docname, labelid, location)
            self.equations[labelid] = (docname, name_of(labelid))  # type: ignore[assignment]

    app.add_domain(NamedEquations, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
