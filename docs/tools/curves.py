"""Curves as small SVG files, drawn without a library; their colours show on white and on black paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "picture", "valley"]

INK = "#767c85"
COLOURS = ("#3487d1", "#d96c1e", "#159a76", "#b95fa0")
"""At least three to one against white and against the dark page."""

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 10, 40


class Curve(NamedTuple):
    """A line of a picture.

    Attributes
    ----------
    x, y : array
        Points; y that is not finite leaves a gap.
    label : str
        What the legend says.
    dashed : bool
        Derivatives are.
    colour : int
        Which of the four.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    label: str
    dashed: bool = False
    colour: int = 0


def picture(curves: Sequence[Curve], title: str, across: str, limits: tuple[float, float]) -> str:
    """Return the SVG of some curves over one axis.

    Parameters
    ----------
    curves : sequence of Curve
        At least one.
    title : str
        What one sees, for those who do not see it.
    across : str
        Name of the horizontal axis.
    limits : (float, float)
        Lowest and highest value that is shown.
    """
    low, high = limits
    first, last = float(curves[0].x[0]), float(curves[0].x[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = _opening(title)
    for x in ticks(first, last):
        at = place(x, low)[0]
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM, x == 0))
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{_text(x)}</text>')
    for y in ticks(low, high):
        at = place(first, y)[1]
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at, y == 0))
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{_text(y)}</text>')
    for curve in curves:
        dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
        path = _path(curve, low, high, place)
        parts.append(
            f'<path d="{path}" fill="none" stroke="{COLOURS[curve.colour]}" stroke-width="2" '
            f'stroke-linejoin="round"{dash}/>'
        )
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end" font-style="italic">{escape(across)}</text>'
    )
    x, y = float(LEFT), HEIGHT - 14
    for curve in curves:
        dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
        parts.append(
            f'<path d="M{x:.0f} {y}h18" stroke="{COLOURS[curve.colour]}" stroke-width="2"{dash}/>'
            f'<text x="{x + 22:.0f}" y="{y + 4}">{escape(curve.label)}</text>'
        )
        x += 36 + 6.2 * len(curve.label)
    return "\n".join([*parts, "</svg>"]) + "\n"


def valley(x: NDArray[np.float64], y: NDArray[np.float64], steepness: float, title: str) -> str:
    """Return the SVG of a path over the lines of equal height of ``(x**2 + steepness * y**2) / 2``."""

    def place(x: float, y: float) -> tuple[float, float]:
        return 10 + (x + 4.6) / 6.8 * (WIDTH - 20), HEIGHT / 2 - y / 1.9 * (HEIGHT / 2 - 6)

    parts = _opening(title)
    centre, unit = place(0.0, 0.0), place(1.0, 1.0)
    across, up = unit[0] - centre[0], centre[1] - unit[1]
    for height in (0.25, 1, 2, 4, 7, 11, 16):
        radius = float(np.sqrt(2 * height))
        parts.append(
            f'<ellipse cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" rx="{radius * across:.1f}" '
            f'ry="{radius / np.sqrt(steepness) * up:.1f}" fill="none" stroke="{INK}" stroke-width="0.8" opacity="0.5"/>'
        )
    places = [place(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5" stroke-linejoin="round"/>')
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" fill="{COLOURS[1]}"/>' for a, b in places]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _opening(title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="11" fill="{INK}">',
        f"<title>{escape(title)}</title>",
    ]


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in an interval, three to seven of them."""
    step = next(s * 10.0**e for e in range(-3, 6) for s in (1, 2, 5) if (high - low) / (s * 10.0**e) <= 6)
    first = int(np.ceil(low / step - 1e-9))
    return [round(k * step, 9) for k in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _text(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _line(x0: float, y0: float, x1: float, y1: float, axis: bool) -> str:
    width, opacity = (1, 0.9) if axis else (0.6, 0.35)
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{INK}" stroke-width="{width}" opacity="{opacity}"/>'


def _path(curve: Curve, low: float, high: float, place: object) -> str:
    words, down = [], False
    for x, y in zip(curve.x, curve.y, strict=True):
        if not np.isfinite(y) or not low - 0.02 * (high - low) <= y <= high + 0.02 * (high - low):
            down = False
            continue
        px, py = place(float(x), float(y))  # type: ignore[operator]
        words.append(f"{'L' if down else 'M'}{px:.1f} {py:.1f}")
        down = True
    return "".join(words)
