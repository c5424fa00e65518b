"""PyTorch as an independent witness: whole networks, and ten steps of every optimiser on the same batches."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp

pytestmark = pytest.mark.witness


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason='PyTorch is not installed; the extra "witness" brings it')


def activation(torch, name):
    f = torch.nn.functional
    return {
        "identity": lambda z: z,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": lambda z: f.leaky_relu(z, 0.01),
        "elu": f.elu,
        "selu": f.selu,
        "gelu": f.gelu,
        "gelu_tanh": lambda z: f.gelu(z, approximate="tanh"),
        "silu": f.silu,
        "softplus": f.softplus,
        "mish": f.mish,
        # PyTorch's own hardsigmoid has the slope 1/6 in float32, also for float64
        "hard_sigmoid": lambda z: torch.clamp(z / 6 + 0.5, 0, 1),
        "hard_tanh": f.hardtanh,
        "softmax": lambda z: torch.softmax(z, dim=1),
        "log_softmax": lambda z: torch.log_softmax(z, dim=1),
    }[name]


def criterion(torch, loss, output):
    """The loss of PyTorch that takes what the network puts out."""
    f = torch.nn.functional
    if loss == "cross_entropy":
        if output == "log_softmax":
            return lambda h, y: -(y * h).sum(dim=1).mean()
        return lambda h, y: -(y * torch.log(h)).sum(dim=1).mean()
    return {
        "quadratic": lambda h, y: 0.5 * ((h - y) ** 2).sum(dim=1).mean(),
        "mse": f.mse_loss,
        "absolute": f.l1_loss,
        "huber": f.huber_loss,
        "binary_cross_entropy": f.binary_cross_entropy,
        "binary_cross_entropy_logits": f.binary_cross_entropy_with_logits,
        "hinge": lambda h, y: torch.clamp(1 - y * h, min=0).sum(dim=1).mean(),
        "exponential": lambda h, y: torch.exp(-y * h).sum(dim=1).mean(),
    }[loss]


class Twin:
    """The same network in PyTorch: parameters with gradients, and a forward pass."""

    def __init__(self, torch, net):
        self.torch = torch
        self.parameters = [torch.tensor(array, requires_grad=True) for pair in net.get_weights() for array in pair]
        self.activations = [activation(torch, a.name) for a in net.activations]

    def __call__(self, X):
        H = X
        for l, act in enumerate(self.activations):
            H = act(H @ self.parameters[2 * l] + self.parameters[2 * l + 1])
        return H

    def weights(self):
        return [p.detach().numpy() for p in self.parameters]


def arrays(net):
    return [array for pair in net.get_weights() for array in pair]


def close(found, expected, tolerance):
    """Relative to the largest number of each array: sums that cancel keep the rounding of their terms."""
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1e-3, float(np.abs(e).max())))


NETWORKS = [
    ([4, 3], [], "softmax", "cross_entropy"),
    ([4, 8, 3], ["relu"], "softmax", "cross_entropy"),
    ([4, 8, 3], ["gelu"], "log_softmax", "cross_entropy"),
    ([4, 8, 7, 6, 5, 3], ["tanh", "silu", "elu", "selu"], "softmax", "cross_entropy"),
    ([4, 8, 6, 3], ["mish", "softplus"], "identity", "mse"),
    ([4, 8, 6, 3], ["gelu_tanh", "leaky_relu"], "identity", "huber"),
    ([4, 8, 6, 3], ["hard_sigmoid", "hard_tanh"], "tanh", "absolute"),
    ([4, 8, 1], ["sigmoid"], "sigmoid", "binary_cross_entropy"),
    ([4, 8, 3], ["tanh"], "sigmoid", "binary_cross_entropy"),
    ([4, 8, 3], ["relu"], "identity", "binary_cross_entropy_logits"),
    ([4, 8, 3], ["tanh"], "softmax", "quadratic"),
    ([4, 8, 3], ["softmax"], "softmax", "mse"),
    ([4, 8, 3], ["log_softmax"], "tanh", "hinge"),
    ([4, 8, 2], ["tanh"], "identity", "exponential"),
    ([4, 16, 16, 16, 16, 16, 16, 3], ["tanh"] * 6, "softmax", "cross_entropy"),
]


def targets(rng, loss, m, n):
    if loss == "cross_entropy":
        return rng.dirichlet(np.ones(n), size=m)
    if loss.startswith("binary"):
        return rng.uniform(size=(m, n))
    return rng.choice([-1.0, 1.0], size=(m, n)) if loss in ("hinge", "exponential") else rng.normal(size=(m, n))


@pytest.mark.parametrize(("sizes", "hidden", "output", "loss"), NETWORKS, ids=str)
def test_whole_networks_against_autograd(torch, backend, sizes, hidden, output, loss, rng):
    net = bp.MLP(sizes, hidden or "relu", output, dtype="float64", seed=2, backend=backend)
    net.set_weights([(W, 0.3 * rng.normal(size=b.shape)) for W, b in net.get_weights()])
    X, Y = rng.normal(size=(9, 4)), targets(rng, loss, 9, sizes[-1])
    twin = Twin(torch, net)
    x = torch.tensor(X, requires_grad=True)
    H = twin(x)
    value = criterion(torch, loss, output)(H, torch.tensor(Y))
    value.backward()
    trace = bp.forward(net, X)
    grads = bp.backward(net, trace, Y, loss)
    host = backend.to_numpy
    close([host(trace.H[net.n_layers])], [H.detach().numpy()], 1e-12)
    assert net.evaluate(X, Y, loss)["loss"] == pytest.approx(value.item(), rel=1e-12)
    found = [host(g) for pair in zip(grads.dW, grads.db, strict=True) for g in pair]
    close(found, [p.grad.numpy() for p in twin.parameters], 1e-10)
    close([host(grads.dX)], [x.grad.numpy()], 1e-10)


def test_labels_smoothing_and_class_weights(torch, backend, rng):
    """PyTorch's weighted mean divides by the weights of the batch, as ours does."""
    net = bp.MLP([4, 8, 3], "tanh", dtype="float64", seed=2, backend=backend)
    X, y, of_class = rng.normal(size=(11, 4)), rng.integers(0, 3, 11), np.array([0.5, 3.0, 1.25])
    for options, arguments in (
        ({}, {}),
        ({"label_smoothing": 0.2}, {"loss": bp.CrossEntropy(label_smoothing=0.2)}),
        ({"weight": torch.tensor(of_class)}, {"class_weight": dict(enumerate(of_class))}),
    ):
        twin = Twin(torch, net)
        twin.activations[-1] = lambda z: z  # cross_entropy of PyTorch takes scores
        value = torch.nn.functional.cross_entropy(twin(torch.tensor(X)), torch.tensor(y), **options)
        value.backward()
        grads = bp.backward(net, bp.forward(net, X), y, **arguments)
        found = [backend.to_numpy(g) for pair in zip(grads.dW, grads.db, strict=True) for g in pair]
        close(found, [p.grad.numpy() for p in twin.parameters], 1e-11)
        assert net.evaluate(X, y, **arguments)["loss"] == pytest.approx(value.item(), rel=1e-12)


RULES = {
    "sgd": (bp.SGD(0.1), lambda t: (t.SGD, {"lr": 0.1})),
    "momentum": (bp.SGD(0.1, momentum=0.9), lambda t: (t.SGD, {"lr": 0.1, "momentum": 0.9})),
    "nesterov": (
        bp.SGD(0.1, momentum=0.9, nesterov=True),
        lambda t: (t.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ),
    "adagrad": (
        bp.Adagrad(0.05, initial=0.1),
        lambda t: (t.Adagrad, {"lr": 0.05, "initial_accumulator_value": 0.1}),
    ),
    "rmsprop": (bp.RMSprop(0.01), lambda t: (t.RMSprop, {"lr": 0.01})),
    "adadelta": (bp.Adadelta(1.0), lambda t: (t.Adadelta, {"lr": 1.0})),
    "adam": (bp.Adam(0.01), lambda t: (t.Adam, {"lr": 0.01})),
    "amsgrad": (bp.AMSGrad(0.01), lambda t: (t.Adam, {"lr": 0.01, "amsgrad": True})),
    "adamw": (bp.AdamW(0.01, weight_decay=0.1), lambda t: (t.AdamW, {"lr": 0.01, "weight_decay": 0.1})),
    "nadam": (bp.NAdam(0.01), lambda t: (t.NAdam, {"lr": 0.01})),
}


def ten_steps(torch, be, name, dtype, rng):
    """Ten steps on both sides; returns our parameters, those of PyTorch, and both paths of losses."""
    net = bp.MLP([4, 16, 16, 3], "tanh", dtype=dtype, seed=2, backend=be)
    X, y = rng.normal(size=(40, 4)).astype(dtype), rng.integers(0, 3, 40)
    order = rng.integers(0, 40, size=(10, 8))
    twin = Twin(torch, net)
    twin.activations[-1] = lambda z: z
    rule, make = RULES[name]
    kind, options = make(torch.optim)
    optimizer = kind(twin.parameters, **options)
    losses = []
    for rows in order:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(twin(torch.tensor(X[rows])), torch.tensor(y[rows]))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    records = bp.Trainer(net, optimizer=rule, batch_size=8).run(X, y, order)
    return arrays(net), twin.weights(), records.loss, losses


@pytest.fixture
def double(torch):
    """Scalars of PyTorch's optimisers (the product of NAdam) have the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", RULES)
def test_ten_steps_of_every_optimiser(torch, backend, name, rng):
    found, expected, losses, expected_losses = ten_steps(torch, backend, name, "float64", rng)
    close(found, expected, 1e-10)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)


@pytest.mark.parametrize("name", RULES)
def test_ten_steps_in_float32(torch, cpu_backend, name, rng):
    """Rounded in another order, and a hundred times the eps of float32 for ten steps of three layers.

    Rules that divide by the root of a squared gradient turn a relative error of that gradient into one of the step;
    where the gradient is almost zero, that error is larger.
    """
    found, expected, losses, expected_losses = ten_steps(torch, cpu_backend, name, "float32", rng)
    assert all(array.dtype == np.float32 for array in found)
    divides = name not in ("sgd", "momentum", "nesterov")
    close(found, expected, (2000 if divides else 100) * float(np.finfo(np.float32).eps))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)


def test_l2_is_the_weight_decay_of_pytorch_on_weights_only(torch, backend, rng):
    net = bp.MLP([4, 16, 3], "tanh", dtype="float64", seed=2, backend=backend)
    X, y, order = rng.normal(size=(40, 4)), rng.integers(0, 3, 40), rng.integers(0, 40, size=(10, 8))
    twin = Twin(torch, net)
    twin.activations[-1] = lambda z: z
    optimizer = torch.optim.SGD(
        [{"params": twin.parameters[::2], "weight_decay": 0.05}, {"params": twin.parameters[1::2]}],
        lr=0.1,
        momentum=0.9,
    )
    for rows in order:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.tensor(X[rows])), torch.tensor(y[rows])).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters, 1e9)
        optimizer.step()
    bp.Trainer(net, optimizer=bp.SGD(0.1, momentum=0.9), batch_size=8, penalty=bp.L2(0.05)).run(X, y, order)
    close(arrays(net), twin.weights(), 1e-11)


@pytest.mark.parametrize("clip", ["value", "norm"])
def test_clipping_like_pytorch(torch, backend, clip, rng):
    net = bp.MLP([4, 16, 3], "tanh", dtype="float64", seed=2, backend=backend)
    X, y, order = rng.normal(size=(40, 4)), rng.integers(0, 3, 40), rng.integers(0, 40, size=(10, 8))
    twin = Twin(torch, net)
    twin.activations[-1] = lambda z: z
    optimizer = torch.optim.SGD(twin.parameters, lr=0.5)
    for rows in order:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.tensor(X[rows])), torch.tensor(y[rows])).backward()
        if clip == "value":
            torch.nn.utils.clip_grad_value_(twin.parameters, 0.03)
        else:
            torch.nn.utils.clip_grad_norm_(twin.parameters, 0.2)
        optimizer.step()
    ours = bp.ClipValue(0.03) if clip == "value" else bp.ClipNorm(0.2)
    bp.Trainer(net, optimizer=bp.SGD(0.5), batch_size=8, clip=ours).run(X, y, order)
    # PyTorch adds 1e-6 to the norm that it divides by
    close(arrays(net), twin.weights(), 1e-11 if clip == "value" else 2e-5)


def test_targets_and_data_as_tensors(torch, cpu_backend, rng):
    """Tensors on the CPU are taken as they are."""
    net = bp.MLP([4, 3], dtype="float32", seed=2, backend=cpu_backend)
    X, y = rng.normal(size=(9, 4)).astype("f"), rng.integers(0, 3, 9)
    tensors = torch.tensor(X), torch.tensor(y)
    np.testing.assert_array_equal(net.predict(tensors[0]), net.predict(X))
    assert net.evaluate(*tensors) == net.evaluate(X, y)
