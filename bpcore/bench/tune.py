"""``bpcore tune``: a short sweep, and from it the sizes of a step from which each backend and plan is the fastest."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bpcore.bench.contender import Contender, parse_contenders, usable_contenders
from bpcore.bench.networks import BATCH_SIZES, NETWORKS
from bpcore.bench.sweep import Settings, Sweep
from bpcore.errors import ConfigurationError, DataError
from bpcore.tuning import Range, Tuning, fingerprint

__all__ = ["PLANS", "contenders", "measure", "ranges", "tuning_of"]

PLANS = ("persistent", "graph", "wide")
"""Plans of the GPU that are compared."""

SWITCH_PRICE = math.log(1.05)
"""What another range must save of the time of one size: a few percent are no reason to choose differently."""


def contenders(words: Sequence[str] | None = None) -> list[Contender]:
    """Return who is compared.

    Parameters
    ----------
    words : sequence of str, optional
        Names as ``bpcore bench --backends`` takes them. A backend whose plan is named takes part, too, and NumPy does.
        By default all backends that run here, in float32, and of the GPU each plan.

    Raises
    ------
    ConfigurationError
        If one is named that no automatic choice can lead to.
    """
    if words is None:
        found = [contender for contender in usable_contenders("float32")[0] if contender.is_plain]
        if any(contender.backend == "cupy" for contender in found):
            found += [Contender("cupy", "float32", plan) for plan in PLANS]
        return found
    named = parse_contenders(words, "float32")
    for contender in named:
        if contender.precision != "float32":
            raise ConfigurationError(
                f"{contender.name!r}: a tuning decides between backends and plans in float32, because no lower "
                f"precision is ever chosen by itself; `bpcore bench --backends {contender.name}` measures it"
            )
        if contender.plan not in ("auto", *PLANS):
            raise ConfigurationError(
                f"{contender.name!r}: a tuning decides between the plans of a GPU; use "
                f"{', '.join(f'cupy:{plan}' for plan in PLANS)}, or {contender.backend}"
            )
    whole = [Contender(contender.backend, "float32") for contender in named]
    return list(dict.fromkeys([*whole, *named]))


def measure(
    seconds: float, tell: Callable[[str, float], None], compared: Sequence[Contender] | None = None
) -> dict[str, Any]:
    """Sweep over the presets with every second batch size.

    Parameters
    ----------
    seconds : float
        For everything.
    tell : callable
        As for :class:`~bpcore.bench.sweep.Sweep`.
    compared : sequence of Contender, optional
        By default :func:`contenders`.

    Returns
    -------
    dict
        A result, as ``bpcore bench --json`` writes it.
    """
    networks = list(NETWORKS.values())
    settings = Settings(compared or contenders(), networks, BATCH_SIZES[::2], seconds=seconds, parts=False)
    with Sweep(settings, tell) as sweep:
        return sweep.run()


def ranges(points: Sequence[tuple[float, Mapping[str, float]]]) -> tuple[Range, ...]:
    """Divide sizes of a step into ranges with one best choice each.

    Parameters
    ----------
    points : sequence of (flops, {name: seconds})
        How long a step of so many operations takes with each choice; who is missing cannot do it.

    Returns
    -------
    tuple of Range
        With which the sum over all points of log(time with the choice / least time), and a price for each switch, is
        least: by dynamic programming over the points in the order of their size. A range begins halfway, in the
        logarithm, between its first point and the last one of the range before.

    Examples
    --------
    >>> fast_start, fast_end = {"a": 1.0, "b": 3.0}, {"a": 9.0, "b": 3.0}
    >>> [(round(part.from_flops), part.best) for part in ranges([(10, fast_start), (1000, fast_end)])]
    [(0, 'a'), (100, 'b')]
    """
    points = sorted(points, key=lambda point: point[0])
    names = list(dict.fromkeys(name for _, times in points for name in times))
    total = dict.fromkeys(names, 0.0)
    came_from: list[dict[str, str]] = []
    for number, (_, times) in enumerate(points):
        least = min(times.values())
        cheapest = min(names, key=lambda name: total[name])
        origin: dict[str, str] = {}
        after: dict[str, float] = {}
        for name in names:
            switched = total[cheapest] + SWITCH_PRICE
            stay = number == 0 or total[name] <= switched
            origin[name] = name if stay else cheapest
            before = total[name] if stay else switched
            after[name] = before + (math.log(times[name] / least) if name in times else math.inf)
        came_from.append(origin)
        total = after
    best = min(names, key=lambda name: total[name])
    chosen = [best]
    for origin in reversed(came_from[1:]):
        chosen.append(origin[chosen[-1]])
    chosen.reverse()
    found = [Range(0.0, chosen[0])]
    for k in range(1, len(points)):
        if chosen[k] != chosen[k - 1]:
            found.append(Range(math.sqrt(points[k - 1][0] * points[k][0]), chosen[k]))
    return tuple(found)


def tuning_of(result: Mapping[str, Any]) -> Tuning:
    """Draw the conclusion from a sweep.

    Parameters
    ----------
    result : mapping
        Of :func:`measure`.

    Returns
    -------
    Tuning

    Raises
    ------
    DataError
        If the sweep was interrupted, or nothing could be compared.
    """
    if result["interrupted"]:
        raise DataError("the measurement was interrupted; nothing was stored")
    backends, plans = [], []
    for network in result["networks"]:
        for cell in network["cells"]:
            times = {
                name: 1e-6 * row["us_per_step"]["median"]
                for name, row in cell["contenders"].items()
                if row["status"] in ("ok", "noisy")
            }
            of_backends = {name: seconds for name, seconds in times.items() if ":" not in name}
            of_plans = {name.partition(":")[2]: seconds for name, seconds in times.items() if ":" in name}
            if of_backends:
                backends.append((float(cell["flops"]), of_backends))
            if of_plans:
                plans.append((float(cell["flops"]), of_plans))
    if not backends:
        raise DataError("no backend computed anything that could be compared; nothing was stored")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Tuning(ranges(backends), ranges(plans) if plans else (), fingerprint(), now)
