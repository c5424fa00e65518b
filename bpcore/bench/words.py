"""Numbers and answers in words, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["answer", "answer_of_operations", "batches", "number", "rate"]

Cells = Sequence[Mapping[str, Any]]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many digits that count, and no exponent.

    Examples
    --------
    >>> number(1234.5), number(0.012345), number(None)
    ('1230', '0.0123', '')
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def rate(value: float) -> str:
    """Write a rate with k, M or G.

    Examples
    --------
    >>> rate(1_234_567.0), rate(950.0)
    ('1.23 M', '950')
    """
    for unit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * unit:
            return number(value / unit) + letter
    return number(value)


def batches(first: int, last: int, cells: Cells) -> str:
    """Write a range of batch sizes, of those that were measured.

    Examples
    --------
    >>> batches(1, 8, [{"batch": 1}, {"batch": 8}]), batches(8, 8, [{"batch": 1}, {"batch": 8}])
    ('at every batch size from 1 to 8', 'at batch size 8')
    """
    if first == last:
        return f"at batch size {first}"
    everywhere = (first, last) == (cells[0]["batch"], cells[-1]["batch"])
    return f"{'at every' if everywhere else 'from'} batch size {'from ' if everywhere else ''}{first} to {last}"


def answer(network: Mapping[str, Any]) -> str:
    """Say who is the best where, and by how much it is faster than NumPy.

    Parameters
    ----------
    network : mapping
        Part of a result for one network.

    Returns
    -------
    str
        A sentence.
    """
    cells, ranges = network["cells"], network["winners"]
    if not ranges:
        return "Nothing was measured that could be ranked."
    said = []
    for part in ranges:
        inside = [cell for cell in cells if part["from"] <= cell["batch"] <= part["to"]]
        said.append(f"{part['best']} {batches(part['from'], part['to'], cells)}{_over_numpy(part['best'], inside)}")
    ties = sum(bool(cell["ties"]) for cell in cells)
    tied = f"; at {ties} of {len(cells)} batch sizes noise does not tell it from another" if ties else ""
    return f"Best here: {', '.join(said)}{tied}."


def _over_numpy(best: str, cells: Cells) -> str:
    """Write the range of speed-ups; where noise allows, of quiet figures alone."""
    if best == "numpy":
        return ""
    for statuses in (("ok",), ("ok", "noisy")):
        found = [
            cell["contenders"][best]["over_numpy"]
            for cell in cells
            if all(cell["contenders"].get(name, {}).get("status") in statuses for name in (best, "numpy"))
        ]
        if found:
            low, high = number(min(found)), number(max(found))
            return f" ({low} times as fast as NumPy)" if low == high else f" ({low} to {high} times as fast as NumPy)"
    return ""


def answer_of_operations(operations: Cells) -> str:
    """Say how often each contender is the fastest in single operations."""
    counts: dict[str, int] = {}
    for operation in operations:
        if operation["best"] is not None:
            counts[operation["best"]] = counts.get(operation["best"], 0) + 1
    if not counts:
        return "Nothing was measured that could be ranked."
    said = [f"{name} in {count}" for name, count in sorted(counts.items(), key=lambda found: -found[1])]
    ties = sum(bool(operation["ties"]) for operation in operations)
    tied = f"; in {ties} noise does not tell it from another" if ties else ""
    return f"The fastest of {len(operations)} operations: {', '.join(said)}{tied}."
