"""Pictures of trainings, networks and inspections, with matplotlib (extra ``plot``).

Each function draws one picture: on the axes that it is given as ``ax``, or on a figure of its own, and returns what it
drew on. Nothing here touches ``pyplot``; ``ax.figure.savefig("loss.png")`` writes a picture, and a notebook shows one
that is the last thing of a cell.
"""

from bpcore.plots.boundary import decision_boundary
from bpcore.plots.confusion import confusion_matrix
from bpcore.plots.curves import curves
from bpcore.plots.histograms import activation_histograms, weight_histograms
from bpcore.plots.images import first_layer
from bpcore.plots.layers import by_layer, over_time
from bpcore.plots.rates import learning_rate

__all__ = [
    "activation_histograms",
    "by_layer",
    "confusion_matrix",
    "curves",
    "decision_boundary",
    "first_layer",
    "learning_rate",
    "over_time",
    "weight_histograms",
]
