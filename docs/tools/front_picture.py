"""The picture of README: a network learns three spirals, above the equations that teach it.

Made by ``python -m docs.tools.front_picture``; it has no background, so it stands on white and on black paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.gallery.r10_two_hidden_layers import spirals

__all__ = ["draw", "stages"]

FILE = Path(__file__).resolve().parents[1] / "pictures" / "learning.png"
EPOCHS = (0, 10, 20, 40)
COLOURS = ("#2f86d6", "#dd6b20", "#159a76")
INK = "#7d848e"
EQUATIONS = (
    ("BP1", r"$\Delta^{(L)} = \frac{\partial E}{\partial H^{(L)}} \odot f_L'(Z^{(L)})$"),
    ("BP2", r"$\Delta^{(l)} = (\Delta^{(l+1)}\, W^{(l)\top}) \odot f_l'(Z^{(l)})$"),
    ("BP3", r"$\frac{\partial E}{\partial b^{(l)}} = \mathbf{1}^{\top} \Delta^{(l+1)}$"),
    ("BP4", r"$\frac{\partial E}{\partial W^{(l)}} = H^{(l)\top} \Delta^{(l+1)}$"),
)


def stages(cells: int) -> list[tuple[int, float, Any]]:
    """Train in stretches; return epoch, accuracy and the probabilities on a grid for each moment that is shown."""
    X, labels = spirals()
    net = bp.MLP([2, 16, 12, 3], "tanh", "softmax", dtype="float64", seed=1, backend="numpy")
    axis = np.linspace(-1.1, 1.1, cells)
    grid = np.stack([part.ravel() for part in np.meshgrid(axis, axis)], axis=1)
    found, done = [], 0
    for epoch in EPOCHS:
        if epoch > done:
            bp.train(
                net, X, labels, optimizer=bp.Adam(0.01), batch_size=10, epochs=epoch - done, seed=done, verbose=False
            )
            done = epoch
        found.append((epoch, net.evaluate(X, labels)["accuracy"], net.predict(grid).reshape(cells, cells, 3)))
    return found


def draw(path: Path = FILE, cells: int = 220) -> None:
    """Write the picture."""
    from bpcore.plots.style import load_matplotlib

    matplotlib = load_matplotlib("the picture of README")
    rgb = np.array([[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in COLOURS])
    X, labels = spirals()
    with matplotlib.rc_context({"mathtext.fontset": "stix", "font.size": 11, "text.color": INK}):
        figure = matplotlib.figure.Figure(figsize=(11, 3.7), facecolor="none")
        for k, (epoch, accuracy, P) in enumerate(stages(cells)):
            ax = figure.add_axes((0.005 + 0.25 * k, 0.24, 0.24, 0.66))
            # the colour says which class, its strength how sure
            sure = np.clip((P.max(axis=2) - 1 / 3) * 1.5, 0, 1)
            image = np.concatenate([rgb[P.argmax(axis=2)], 0.5 * sure[..., None]], axis=2)
            ax.imshow(image, origin="lower", extent=(-1.1, 1.1, -1.1, 1.1), interpolation="bilinear")
            ax.scatter(*X.T, c=[COLOURS[c] for c in labels], s=9, linewidths=0)
            ax.set_axis_off()
            words = "before training" if epoch == 0 else f"after {epoch} epochs"
            ax.set_title(f"{words}: {accuracy:.0%} right", color=INK, fontsize=11, pad=5)
            name, equation = EQUATIONS[k]
            figure.text(0.125 + 0.25 * k, 0.1, equation, ha="center", va="center", fontsize=14)
            figure.text(0.125 + 0.25 * k, 0.005, name, ha="center", va="bottom", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, transparent=True)


if __name__ == "__main__":
    draw()
