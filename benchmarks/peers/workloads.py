"""The workloads: a network, how it is trained or asked, and what one step costs.

A *step* is one mini-batch of training, or one call of predict. A *chunk* is a fixed number of steps: the unit that is
handed to libraries that compile a whole epoch, and the grain in which losses are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4
"""Bytes of a float32."""

STATE_VECTORS = {"sgd": 0, "momentum": 1, "adam": 2}
"""Vectors as long as theta that an update rule keeps."""


@dataclass(frozen=True)
class Workload:
    """One network and how it is used.

    Attributes
    ----------
    kind : str
        ``"train"`` or ``"predict"``.
    sizes : tuple of int
        Widths of the layers.
    activation, output, loss, optimizer : str
        As bpcore calls them; ``momentum`` is SGD with momentum 0.9.
    batch, rows : int
        Samples in a step and samples in all. Equal: the whole data set at once, nothing to gather.
    chunk : int
        Steps in a chunk.
    eta : float
        Learning rate.
    over_best, over_torch : float
        The goals: bpcore's samples per second as a multiple of the best peer's, and of PyTorch eager's. 0: none.
    at_most_us : float
        The goal as a time, for one call. 0: none.
    share : float
        How much of the time for a workload this one gets.
    precision : str
        ``"float32"``, or on a GPU ``"tf32"`` or ``"bf16"``: of the products; weights and state are float32 always.
    """

    kind: str
    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    optimizer: str
    batch: int
    rows: int
    chunk: int
    eta: float = 0.0
    over_best: float = 0.0
    over_torch: float = 0.0
    at_most_us: float = 0.0
    share: float = 1.0
    precision: str = "float32"

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Shapes of the weight matrices."""
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def full_batch(self) -> bool:
        """Whether a step takes all rows as they lie."""
        return self.batch == self.rows

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum((a + 1) * b for a, b in self.pairs)

    def products(self) -> list[tuple[int, int, int]]:
        """Matrix products of a step as (rows, inner size, columns): forward, BP4, and BP2 but for the first layer."""
        forward = [(self.batch, a, b) for a, b in self.pairs]
        if self.kind == "predict":
            return forward
        return forward + [(a, self.batch, b) for a, b in self.pairs] + [(self.batch, b, a) for a, b in self.pairs[1:]]

    def flops(self) -> int:
        """Operations of these products, a multiplication and an addition each; element-wise work is not counted."""
        return sum(2 * m * k * n for m, k, n in self.products())

    def bytes(self) -> int:
        """Bytes that a step moves if every array is read or written whole each time an equation names it, once each.

        Inputs are read (training: twice, BP4 needs them again). Each layer writes its output and the next reads it.
        Training adds: H read by BP2 and BP4, targets read, Delta written and read by BP3 with BP4 and by BP2, W read
        by BP2, the gradient written and read, theta read and written by the update, and so is each vector of the update
        rule's state. Gathering a mini-batch reads and writes it once more.
        """
        theta, outputs = self.n_parameters, self.batch * sum(self.sizes[1:])
        hidden, inputs = self.batch * sum(self.sizes[1:-1]), self.batch * self.sizes[0]
        count = inputs + theta + outputs + hidden
        if self.kind == "train":
            count += inputs + (0 if self.full_batch else 2 * inputs)
            count += 2 * hidden + 2 * self.batch * self.sizes[-1]  # BP2 and BP4; outputs and targets at BP1
            count += 2 * outputs + hidden_deltas(self)
            count += sum(a * b for a, b in self.pairs[1:])
            count += (4 + 2 * STATE_VECTORS[self.optimizer]) * theta
        return FLOAT * count


def hidden_deltas(work: Workload) -> int:
    """Elements of the Deltas that BP2 reads: of all layers but the first hidden one."""
    return work.batch * sum(work.sizes[2:])


def _predict(sizes: tuple[int, ...], batch: int, at_most_us: float = 0.0) -> Workload:
    over_best = 0.0 if at_most_us else 1.2
    rows, chunk = (512, 512) if batch == 1 else (batch, 4)
    return Workload(
        "predict", sizes, "relu", "softmax", "", "sgd", batch, rows, chunk, over_best=over_best,
        at_most_us=at_most_us, share=0.6,
    )  # fmt: skip


WORKLOADS = {
    "nielsen": Workload(
        "train", (784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", 10, 4000, 400, 0.5, 2.0, 12.0
    ),
    "tabular": Workload(
        "train", (30, 64, 64, 1), "tanh", "sigmoid", "binary_cross_entropy", "adam", 32, 16384, 512, 1e-3, 1.5, 18.0
    ),
    "regression-tiny": Workload(
        "train", (4, 32, 32, 1), "tanh", "identity", "mse", "adam", 128, 32768, 256, 1e-3, 1.5, 18.0
    ),
    "digits-small": Workload(
        "train", (784, 128, 10), "relu", "softmax", "cross_entropy", "momentum", 64, 8192, 128, 0.01, 1.3, 3.5
    ),
    "deep-narrow": Workload(
        "train", (64, *(64,) * 8, 10), "relu", "softmax", "cross_entropy", "sgd", 256, 16384, 64, 0.01, 1.8, 4.0
    ),
    "mnist-mid": Workload(
        "train", (784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", 128, 2048, 16, 1e-3, 1.2, 2.0,
        share=1.5,
    ),
    "wide": Workload(
        "train", (1024, 4096, 4096, 1000), "relu", "softmax", "cross_entropy", "momentum", 256, 1024, 2, 0.01, 1.1, 2.2,
        share=3.0,
    ),
    "full-batch": Workload(
        "train", (64, 64, 10), "relu", "softmax", "cross_entropy", "sgd", 20000, 20000, 8, 0.1, 1.3, 2.2
    ),
    "predict-small-1": _predict((784, 128, 10), 1, 6.0),
    "predict-mid-1": _predict((784, 512, 512, 10), 1, 35.0),
    "predict-small-4096": _predict((784, 128, 10), 4096),
    "predict-mid-4096": _predict((784, 512, 512, 10), 4096),
}  # fmt: skip
"""The eight trainings and two networks to ask, one row at a time and 4096 at once."""

SMOKE = Workload("train", (12, 8, 3), "relu", "softmax", "cross_entropy", "momentum", 4, 64, 8, 0.05)
"""A tiny one for the tests of this harness."""


def get_workload(name: str) -> Workload:
    """Look a workload up; ``smoke`` is known too but not part of a full run."""
    return SMOKE if name == "smoke" else WORKLOADS[name]
