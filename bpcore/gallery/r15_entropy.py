"""R15. What a distribution does not tell is its entropy; believing a wrong distribution costs extra.

::

    information content -log p        entropy H(p) = -sum p log p <= log N, equal for the uniform distribution
    cross-entropy H(p, q) = -sum p log q >= H(p), equal for q = p
    Kullback-Leibler divergence D(p, q) = H(p, q) - H(p)
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLACK, BLUE, GREEN, GREY, RED

BASES: dict[Any, tuple[Any, str]] = {"e": (np.log, "nat"), 2: (np.log2, "bit"), 10: (np.log10, "hartley")}
EVENTS = (2, 4, 8, 16)
DRAWN = 300
P = (0.7, 0.2, 0.1)


def run(be: Backend, report: Report) -> None:
    """Compare entropies with log N, and cross-entropies with entropies and with the loss of a network."""
    rng = np.random.default_rng(6)
    drawn: dict[int, Any] = {n: rng.dirichlet(np.full(n, 0.7), DRAWN) for n in EVENTS}
    rows = []
    for n in EVENTS:
        uniform = {base: float(bp.entropy(np.full(n, 1 / n), base=base)) for base in BASES}
        for base, (log, unit) in BASES.items():
            report.check(f"entropy of {n} equal events", uniform[base], log(n), within=1e-14, unit=unit)
        largest = float(bp.entropy(drawn[n], base=2).max())
        report.at_most(f"largest entropy of {DRAWN} other distributions over {n}", largest, np.log2(n), unit="bit")
        rows.append((n, *(f"{uniform[base]:.4f}" for base in (2, 10, "e")), f"{largest:.4f}"))
    report.table("entropy of N equal events", ("N", "bit", "hartley", "nat", f"largest of {DRAWN} others, bit"), rows)

    p, q = drawn[8][: DRAWN // 2], drawn[8][DRAWN // 2 :]
    extra = bp.cross_entropy(p, q) - bp.entropy(p)
    report.at_least("smallest H(p, q) - H(p)", extra.min(), 0.0, unit="nat")
    report.at_most("largest |H(p, p) - H(p)|", np.abs(bp.cross_entropy(p, p) - bp.entropy(p)).max(), 1e-14, unit="nat")
    report.at_most(
        "largest |H(p, q) - H(p) - D(p, q)|", np.abs(extra - bp.kl_divergence(p, q)).max(), 1e-12, unit="nat"
    )
    # a softmax layer whose weights are the unit matrix predicts q from ln q
    net = bp.MLP([8, 8], output="softmax", init="zeros", dtype="float64", backend=be)
    net.set_weights([(np.eye(8), np.zeros(8))])
    logs = np.log(np.maximum(q, 1e-300))
    found = net.evaluate(logs, p, "cross_entropy")["loss"]
    report.check("loss of a network that predicts q for targets p", found, bp.cross_entropy(p, q).mean(),
                 within=1e-9, unit="nat")  # fmt: skip

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3)
        x = np.linspace(0.001, 0.999, 200)
        left.plot(x, bp.information_content(x, base=2), "--", color=GREY, label=r"$-\log_2 p$")
        left.plot(x, bp.entropy(np.stack([x, 1 - x], axis=1), base=2), color=BLUE, label="entropy of (p, 1 - p)")
        left.set(xlabel="p", ylabel="bit", ylim=(0, 4), title="one event, two events")
        left.legend()
        for n in EVENTS:
            middle.plot([n] * DRAWN, bp.entropy(drawn[n], base=2), "_", color=GREY, alpha=0.4, markersize=12)
        middle.plot(
            EVENTS, [bp.entropy(np.full(n, 1 / n), base=2) for n in EVENTS], "o-", color=RED, label="uniform: log N"
        )
        middle.plot([], [], "_", color=GREY, label="others, drawn at random")
        middle.set(
            xscale="log", xlabel="number of events N", ylabel="entropy / bit", title="uniform is largest", ylim=(0, 4.6)
        )
        middle.minorticks_off()
        middle.set_xticks(EVENTS, [str(n) for n in EVENTS])
        middle.legend(loc="upper left")
        t = np.linspace(0.02, 0.98, 200)
        believed = np.stack([t, (1 - t) * 2 / 3, (1 - t) / 3], axis=1)
        right.plot(t, bp.cross_entropy(np.array(P), believed, base=2), color=GREEN, label="H(p, q)")
        right.axhline(float(bp.entropy(P, base=2)), color=BLACK, linestyle="--", linewidth=1.0, label="H(p)")
        right.axvline(P[0], color=GREY, linestyle=":", linewidth=1.0)
        right.annotate("q = p", (P[0], 3.0), xytext=(3, 0), textcoords="offset points", fontsize="small")
        right.set(xlabel="$q_1$", ylabel="bit", ylim=(0, 4), title="p = (0.7, 0.2, 0.1)")
        right.legend(loc="upper center")

    report.picture("measures", "Information, entropy and cross-entropy.", draw, (8.6, 3.2))


EXAMPLE = Example(
    15, "entropy", "entropy is largest, log N, for equal events; cross-entropy is smallest for q = p", run
)
