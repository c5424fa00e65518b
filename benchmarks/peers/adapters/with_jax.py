"""JAX: one jitted step a call with donated buffers, or a whole chunk of steps in one lax.scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import PredictRunner, Runner
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}


def scores(work: Workload, theta: Any, x: Any) -> Any:
    """Weighted inputs of the last layer."""
    if work.precision == "bf16":  # rounded anew at each step, from weights that are float32
        x, theta = x.astype(jnp.bfloat16), jax.tree.map(lambda p: p.astype(jnp.bfloat16), theta)
    for W, b in theta[:-1]:
        x = ACTIVATIONS[work.activation](x @ W + b)
    W, b = theta[-1]
    return (x @ W + b).astype(jnp.float32)


def loss_of(work: Workload, theta: Any, x: Any, y: Any) -> Any:
    z = scores(work, theta, x)
    if work.loss == "quadratic":
        return 0.5 * jnp.sum((jax.nn.sigmoid(z) - y) ** 2) / work.batch
    if work.loss == "mse":
        return jnp.mean((z - y) ** 2)
    if work.loss == "binary_cross_entropy":
        return jnp.mean(jax.nn.softplus(z) - y * z)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def update(work: Workload, theta: Any, gradient: Any, state: Any, t: Any) -> tuple[Any, Any]:
    """The update rule over the whole tree of parameters."""
    tree = jax.tree.map
    if work.optimizer == "sgd":
        return tree(lambda p, g: p - work.eta * g, theta, gradient), state
    if work.optimizer == "momentum":
        state = tree(lambda v, g: 0.9 * v + g, state, gradient)
        return tree(lambda p, v: p - work.eta * v, theta, state), state
    m = tree(lambda m, g: 0.9 * m + 0.1 * g, state[0], gradient)
    s = tree(lambda s, g: 0.999 * s + 0.001 * g * g, state[1], gradient)
    fix_m, fix_s = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    theta = tree(lambda p, m, s: p - work.eta * (m * fix_m) / (jnp.sqrt(s * fix_s) + 1e-8), theta, m, s)
    return theta, (m, s)


class JaxRunner(Runner):
    """What goes from step to step (parameters, state, number of the step) is donated and stays on the device."""

    def __init__(self, work: Workload, problem: Problem, scan: bool, unroll: int = 1) -> None:
        super().__init__()
        self.work, self.problem, self.scan = work, problem, scan
        self.X = jnp.asarray(problem.X)
        self.Y = jnp.asarray(problem.labels if work.loss == "cross_entropy" else problem.Y)

        def step(carry: Any, X: Any, Y: Any, rows: Any) -> tuple[Any, Any]:
            theta, state, k = carry
            x, y = (X, Y) if work.full_batch else (X[rows], Y[rows])
            loss, gradient = jax.value_and_grad(lambda theta: loss_of(work, theta, x, y))(theta)
            theta, state = update(work, theta, gradient, state, (k + 1).astype(jnp.float32))
            return (theta, state, k + 1), loss

        def one(carry: Any, X: Any, Y: Any, order: Any) -> tuple[Any, Any]:
            return step(carry, X, Y, order[carry[2] % work.chunk])

        def chunk(carry: Any, X: Any, Y: Any, order: Any) -> tuple[Any, Any]:
            return jax.lax.scan(lambda carry, rows: step(carry, X, Y, rows), carry, order, unroll=unroll)

        self.function = jax.jit(chunk if scan else one, donate_argnums=0)
        self.facts = {"form": f"lax.scan over {work.chunk} steps" if scan else "one jitted step a call"}

    def reset(self) -> None:
        def theta() -> Any:
            # fresh copies each time: what is donated is gone
            return [(jnp.array(W), jnp.array(b)) for W, b in self.problem.weights]

        def zeros() -> Any:
            return jax.tree.map(jnp.zeros_like, theta())

        state: Any = {"sgd": lambda: (), "momentum": zeros, "adam": lambda: (zeros(), zeros())}[self.work.optimizer]()
        self.carry = jax.block_until_ready((theta(), state, jnp.zeros((), jnp.int32)))

    def chunks(self, order: Any) -> Iterator[Any]:
        """Yield the sample numbers of each chunk, on the device."""
        # a full batch is not gathered; the order only says how many steps there are
        index = order[:, :1] if self.work.full_batch else order
        for start in range(0, len(order), self.work.chunk):
            yield jnp.asarray(index[start : start + self.work.chunk].astype(np.int32))

    def run(self, order: Any) -> Any:
        function, carry, X, Y = self.function, self.carry, self.X, self.Y
        losses, chunk = [], self.work.chunk
        for rows in self.chunks(order):
            for _ in range(1 if self.scan else chunk):
                carry, loss = function(carry, X, Y, rows)
                losses.append(loss)
        self.carry = jax.block_until_ready(carry)
        return losses

    def evidence(self, result: Any) -> Any:
        return np.concatenate([np.atleast_1d(np.asarray(loss, np.float64)) for loss in result])


def prepare(work: Workload, problem: Problem, threads: int, scan: bool = False) -> Runner:
    """Trace nothing yet; the first call compiles. The threads are those of the cores that the process may use."""
    jax.clear_caches()
    if work.kind == "train":
        return JaxRunner(work, problem, scan)
    if scan:
        raise Skip("a prediction is one call; see jax-jit")
    theta = [(jnp.array(W), jnp.array(b)) for W, b in problem.weights]
    function = jax.jit(lambda theta, x: jax.nn.softmax(scores(work, theta, x)))
    inputs = [jnp.array(x) for x in problem.inputs()]
    return PredictRunner(lambda x: function(theta, x).block_until_ready(), inputs, np.asarray)
