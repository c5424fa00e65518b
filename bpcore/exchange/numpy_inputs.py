"""What a predictor file does to a table before the network sees it: constants, and the function ``prepare``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from bpcore.data.csv_files import MISSING
from bpcore.data.missing import Imputer
from bpcore.data.one_hot import OneHot
from bpcore.data.preprocessing import Preprocessing, Scaler, Standardizer
from bpcore.exchange import numpy_template as template
from bpcore.persistence.knowledge import Knowledge

__all__ = ["constants", "literal", "needs", "prepare_source"]


def constants(knowledge: Knowledge) -> list[str]:
    """Return the lines that state the table and the numbers of the preprocessing, and of that of the targets."""
    texts = knowledge.columns_of_text
    lines = [
        f"FEATURES = {None if knowledge.feature_names is None else literal(knowledge.feature_names)}",
        f"COLUMNS = {knowledge.n_columns}",
        f"FILLS_MISSING = {knowledge.imputes}",
        f"MISSING = {literal(sorted(MISSING))}",
        *(["CATEGORIES = {", *(f"{j}: {literal(texts[j])}," for j in texts), "}"] if texts else ["CATEGORIES = {}"]),
    ]
    for step, suffix in _numbered(knowledge.steps):
        lines += _numbers("", suffix, step)
    return lines + _numbers("TARGET_", "", knowledge.target_preprocessing)


def prepare_source(knowledge: Knowledge) -> str:
    """Return the function that does all steps, one a line."""
    lines = []
    for step, suffix in _numbered(knowledge.steps):
        if isinstance(step, Imputer):
            lines.append(f"X = np.where(np.isnan(X), FILL{suffix}.astype(X.dtype), X)")
        elif isinstance(step, Scaler):
            lines.append(f"X = X / X.dtype.type(DIVISOR{suffix})")
        elif isinstance(step, OneHot):
            lines.append(f"X = one_hot(X, COUNTS{suffix})")
        else:
            lines.append(f"X = ((X - MEAN{suffix}) / SCALE{suffix}).astype(X.dtype)")
    body = "".join(f"    {line}\n" for line in [*lines, "return X"])
    return f'\ndef prepare(X):\n    """Apply the preprocessing that the network was trained with."""\n{body}'


def needs(knowledge: Knowledge) -> list[str]:
    """Return the functions that the preprocessing calls."""
    return [template.ONE_HOT] if any(isinstance(step, OneHot) for step in knowledge.steps) else []


def literal(values: Iterable[Any]) -> str:
    """Spell a tuple of numbers or text in ASCII, on as many lines as it needs."""
    cells = [f"{value!a}," for value in values]
    line = " ".join(cells)
    if len(line) < 80:
        return f"({line})" if len(cells) == 1 else f"({line[:-1]})"
    lines, width = [""], 0
    for cell in cells:
        if width + len(cell) > 100:
            lines.append("")
            width = 0
        lines[-1] += (" " if width else "    ") + cell
        width += len(cell) + 1
    return "(\n" + "\n".join(lines) + "\n)"


def _numbered(steps: Iterable[Preprocessing]) -> list[tuple[Preprocessing, str]]:
    """Return steps with the end of the names of their constants, which tells the second of a kind from the first."""
    found, kinds = [], Counter[type]()
    for step in steps:
        kinds[type(step)] += 1
        found.append((step, f"_{kinds[type(step)]}" if kinds[type(step)] > 1 else ""))
    return found


def _numbers(begin: str, end: str, step: Preprocessing | None) -> list[str]:
    """State the numbers of a step."""
    if isinstance(step, Scaler):
        return [f"{begin}DIVISOR{end} = {step.divisor!r}"]
    if isinstance(step, Standardizer):
        return [
            f"{begin}MEAN{end} = np.array({literal(step.mean)})",
            f"{begin}SCALE{end} = np.array({literal(step.scale)})",
        ]
    if isinstance(step, Imputer):
        return [f"{begin}FILL{end} = np.array({literal(step.values)})"]
    return [f"{begin}COUNTS{end} = {literal(step.counts)}"] if isinstance(step, OneHot) else []
