"""Compiling ahead of time: small trainings that fill the cache folder, so that later processes start at once.

What a training compiles depends on its pieces (activations, loss, update rule, ...) and not on widths, depth or data.
So each piece is made to run once, in a network of a few neurons: whatever a plan, an evaluation or a prediction asks
the Numba backend for is then on disk, and no list of kernels has to be kept in step with them.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.backends import get_backend
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.activations import ACTIVATIONS, get_activation
from bpcore.functions.clipping import ClipLayerNorm, ClipNorm, Clipping, ClipValue
from bpcore.functions.losses import LOSSES, Loss, get_loss
from bpcore.functions.penalties import L1, L2
from bpcore.functions.update_rules import UPDATE_RULES, get_update_rule
from bpcore.network import MLP
from bpcore.settings import FLOAT_DTYPES, check_count
from bpcore.training.loop import train
from bpcore.training.spec import Dropout
from bpcore.training.stopping import GradientNorm

__all__ = ["Recipe", "WarmUpReport", "recipes", "run_recipe", "warm_up"]

Scope = Literal["quick", "usual", "all"]
SCOPES = ("quick", "usual", "all")

QUICK_ACTIVATIONS = ("relu", "tanh", "sigmoid")
QUICK_PAIRS = (("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid"), ("mse", "identity"))
QUICK_OPTIMIZERS = ("sgd", "momentum", "adam")

_PENALTIES = {"l1": L1(1e-3), "l2": L2(1e-3), "l1+l2": L1(1e-3) + L2(1e-3)}
_CLIPPINGS: dict[str, Clipping] = {"value": ClipValue(1.0), "norm": ClipNorm(1.0), "layer_norm": ClipLayerNorm(1.0)}


@dataclass(frozen=True)
class Recipe:
    """A small training that makes some pieces run; names only, so that it can be sent to another process.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.
    activation : str
        Of the hidden layers.
    loss, output : str
        Loss and output activation.
    optimizer : str
        Update rule.
    n_out : int
        Number of outputs; kernels for one column differ from those for several.
    classes : bool
        Whether the targets are labels.
    weighted : bool
        Whether the samples have weights.
    dropout : ``""``, ``"batch"`` or ``"sample"``
        Dropout, and what a mask is for.
    penalty, clip : str
        ``""`` for none.
    plan : str
        As for :func:`bpcore.train`.
    large : bool
        Whether a step is long enough that threads may share it.
    """

    dtype: str
    activation: str
    loss: str
    output: str
    optimizer: str
    n_out: int = 3
    classes: bool = False
    weighted: bool = False
    dropout: str = ""
    penalty: str = ""
    clip: str = ""
    plan: str = "auto"
    large: bool = False


@dataclass(frozen=True)
class WarmUpReport:
    """What :func:`warm_up` did.

    Parameters
    ----------
    compiled, present : tuple of str
        Functions that were compiled, and functions that were found in the cache folder, with the types of their
        arguments.
    folder : pathlib.Path
        Where they are.
    seconds : float
        Time that it took.
    """

    compiled: tuple[str, ...]
    present: tuple[str, ...]
    folder: Path
    seconds: float


# -------------------------------------------------------------------------------- what to run


def recipes(
    dtypes: Sequence[str] = ("float32",),
    scope: Scope = "usual",
    *,
    activations: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    optimizers: Sequence[str] | None = None,
) -> list[Recipe]:
    """List small trainings that together use every piece of a set.

    Parameters
    ----------
    dtypes, scope, activations, losses, optimizers
        As for :func:`warm_up`.

    Returns
    -------
    list of Recipe
        The first of each dtype needs what all others of that dtype need too.

    Examples
    --------
    >>> for recipe in recipes(scope="quick", activations=["relu", "tanh"], losses=["bce"], optimizers=["adam"]):
    ...     print(recipe.activation, recipe.loss, recipe.output, recipe.optimizer, recipe.n_out)
    relu binary_cross_entropy sigmoid adam 3
    relu binary_cross_entropy sigmoid adam 3
    relu binary_cross_entropy sigmoid adam 1
    tanh binary_cross_entropy sigmoid adam 3
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    for dtype in dtypes:
        if dtype not in [known.name for known in FLOAT_DTYPES]:
            raise unknown("dtype", dtype, [known.name for known in FLOAT_DTYPES])
    hidden = _names(activations, lambda name: get_activation(name).name, _activations(scope))
    for name in hidden:
        if not ACTIVATIONS[name].differentiable:
            raise ConfigurationError(f"activation {name!r} has no derivative, so nothing can be trained with it")
    rules = _names(optimizers, lambda name: get_update_rule(name).name, _optimizers(scope))
    chosen = _names(losses, lambda name: get_loss(name).name, tuple(LOSSES))
    pairs = [pair for pair in _pairs(scope, named=losses is not None) if pair[0] in chosen]
    found = [recipe for dtype in dtypes for recipe in _recipes(dtype, scope, hidden, pairs, rules)]
    return list(dict.fromkeys(found))


def _names(given: Sequence[str] | None, resolve: Callable[[str], str], default: tuple[str, ...]) -> tuple[str, ...]:
    if given is None:
        return default
    if not given:
        raise ConfigurationError("an empty list of names leaves nothing to compile")
    return tuple(dict.fromkeys(resolve(name) for name in given))


def _activations(scope: Scope) -> tuple[str, ...]:
    if scope == "quick":
        return QUICK_ACTIVATIONS
    # a row-wise activation on a hidden layer is rare
    return tuple(name for name, f in ACTIVATIONS.items() if f.differentiable and (scope == "all" or not f.rowwise))


def _optimizers(scope: Scope) -> tuple[str, ...]:
    return QUICK_OPTIMIZERS if scope == "quick" else tuple(get_update_rule(name).name for name in UPDATE_RULES)


def _pairs(scope: Scope, named: bool) -> tuple[tuple[str, str], ...]:
    """Return pairs of loss and output activation; a loss that was named is not dropped for being rarely used."""
    if scope == "quick" and not named:
        return QUICK_PAIRS
    return tuple(
        (loss.name, output.name)
        for loss in LOSSES.values()
        for output in ACTIVATIONS.values()
        if output.differentiable and _fit(loss, output.name) and (scope == "all" or _usual(loss, output.name))
    )


def _fit(loss: Loss, output: str) -> bool:
    try:
        loss.check_output(ACTIVATIONS[output])
    except ConfigurationError:
        return False
    return True


def _usual(loss: Loss, output: str) -> bool:
    """Whether people use them together: declared pairs, numbers as they are, squares with a bounded output."""
    squares = loss.name in ("quadratic", "mse") and output in ("sigmoid", "tanh")
    return output in loss.pairs or output == "identity" or squares


def _recipes(
    dtype: str, scope: Scope, hidden: Sequence[str], pairs: Sequence[tuple[str, str]], rules: Sequence[str]
) -> Iterable[Recipe]:
    kinds = {loss: LOSSES[loss].target_kind for loss, _ in pairs}
    first = Recipe(dtype, hidden[0], *pairs[0], rules[0], classes=kinds[pairs[0][0]] != "real")
    # at the beginning, when nothing else runs: it may measure how fast this machine is
    yield replace(first, large=True)
    for loss, output in pairs:
        kind = kinds[loss]
        # neither a softmax nor a distribution makes sense of one number
        for n_out in (3,) if ACTIVATIONS[output].rowwise or kind == "distribution" else (3, 1):
            plain = replace(first, loss=loss, output=output, n_out=n_out, classes=kind != "real")
            yield plain
            if scope != "quick":
                yield replace(plain, weighted=True)
                # squares are also taken between labels and outputs
                if kind == "real" and output != "identity":
                    yield replace(plain, classes=True)
    yield from (replace(first, activation=name) for name in hidden)
    yield from (replace(first, optimizer=name) for name in rules)
    if scope == "quick":
        return
    yield from (replace(first, optimizer=name, dropout="batch") for name in rules)
    yield replace(first, dropout="sample")
    yield from (replace(first, penalty=name) for name in _PENALTIES)
    yield from (replace(first, clip=name) for name in _CLIPPINGS)
    if scope == "all":
        # the plan that other plans fall back on, and whose parts gradients are checked with
        for recipe in _recipes(dtype, "usual", hidden, pairs, rules):
            yield replace(recipe, plan="reference")


# -------------------------------------------------------------------------------- running it


def run_recipe(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Run a small training, an evaluation and a prediction.

    Parameters
    ----------
    recipe : Recipe
        What to use.

    Returns
    -------
    compiled, loaded : list of str
        Functions that were compiled, or found in the cache folder. What this process has used before is in neither.
    """
    from bpcore.kernels.numba.cache import Observer, observed

    found: dict[bool, list[str]] = {True: [], False: []}

    class Counter(Observer):
        def ends(self, name: str, compiled: bool, seconds: float) -> None:
            found[compiled].append(name)

    with observed(Counter()):
        _train(recipe)
    return found[True], found[False]


def _train(recipe: Recipe) -> None:
    rng, loss, n = np.random.default_rng(0), LOSSES[recipe.loss], recipe.n_out
    m, hidden = (256, (256, 256)) if recipe.large else (6, (5, 4))
    X = rng.normal(size=(m, 4))
    Y: Any = np.arange(m) % max(n, 2) if recipe.classes else rng.random((m, n))
    weights = np.linspace(0.5, 1.5, m) if recipe.weighted else None
    net = MLP(
        [4, *hidden, n],
        activation=recipe.activation,
        output=recipe.output,
        seed=0,
        dtype=recipe.dtype,
        # a new object: one that has run before knows loops of equal formulas by other names, which a later process
        # would not find on disk
        backend=NumbaBackend(),
    )
    train(
        net,
        X,
        Y,
        loss=loss,
        # so small that nothing can overflow
        optimizer=get_update_rule(recipe.optimizer, eta=1e-6),
        batch_size=m - 2,
        epochs=1,
        validation=(X, Y),
        sample_weight=weights,
        dropout=Dropout(0.5, recipe.dropout) if recipe.dropout else None,  # type: ignore[arg-type]
        penalty=_PENALTIES.get(recipe.penalty),
        clip=_CLIPPINGS.get(recipe.clip),
        # never so small; a rule that asks for the norm
        stop=GradientNorm(1e-300),
        seed=0,
        plan=recipe.plan,
        verbose=False,
    )
    net.evaluate(X, Y, loss, sample_weight=weights)
    net.predict(X[:1])


def warm_up(
    dtype: str | Sequence[str] = "float32",
    scope: Scope = "usual",
    *,
    activations: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    optimizers: Sequence[str] | None = None,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> WarmUpReport:
    """Compile what training and prediction on the Numba backend need, into the cache folder.

    A later process that uses these pieces compiles nothing, whatever its widths, depth, batch size and data. A second
    call compiles nothing either.

    Parameters
    ----------
    dtype : str or sequence of str
        ``"float32"`` (default), ``"float64"``, or both in a list.
    scope : ``"quick"``, ``"usual"`` or ``"all"``
        ``"quick"``: relu, tanh and sigmoid; softmax with cross-entropy, sigmoid with binary cross-entropy, identity
        with mse; sgd, momentum and adam; nothing else. ``"usual"`` (default): all activations and update rules, every
        loss with the outputs that go with it, sample weights, dropout, penalties, clipping. ``"all"``: every loss with
        every output that it accepts, and the reference plan.
    activations, losses, optimizers : sequence of str, optional
        Only these hidden activations, losses and update rules.
    processes : int
        How many processes compile at the same time. Default 1: this one. More are started afresh, so a script that
        asks for them needs ``if __name__ == "__main__":``, as with :mod:`multiprocessing`.
    progress : callable, optional
        Called as ``progress(done, total)`` after every small training.

    Returns
    -------
    WarmUpReport
        What was compiled and what was there.

    Raises
    ------
    UnknownNameError, ConfigurationError
        If a name is unknown, or nothing is left to do.
    BackendError
        If Numba cannot run here.

    Examples
    --------
    >>> from bpcore.training.warmup import warm_up
    >>> report = warm_up(scope="quick", activations=["relu"], losses=["mse"], optimizers=["sgd"])
    >>> report.folder.is_dir()
    True
    """
    todo = recipes(
        (dtype,) if isinstance(dtype, str) else tuple(dtype),
        scope,
        activations=activations,
        losses=losses,
        optimizers=optimizers,
    )
    processes = check_count("processes", processes)
    get_backend("numba")
    from bpcore.kernels.numba.cache import folder

    begun, compiled, loaded, done = time.perf_counter(), set[str](), set[str](), 0
    for new, old in _run(todo, processes):
        compiled |= set(new)
        loaded |= set(old)
        done += 1
        if progress is not None:
            progress(done, len(todo))
    return WarmUpReport(
        tuple(sorted(compiled)), tuple(sorted(loaded - compiled)), folder(), time.perf_counter() - begun
    )


def _run(todo: Sequence[Recipe], processes: int) -> Iterator[tuple[list[str], list[str]]]:
    """Run here as long as nothing is compiled: to find that all is there, other processes would only be in the way."""
    # the first of each dtype compiles what all need: were others to begin at the same time, they would compile it too
    firsts = [
        next(recipe for recipe in todo if recipe.dtype == dtype) for dtype in dict.fromkeys(r.dtype for r in todo)
    ]
    ordered = [*firsts, *(recipe for recipe in todo if recipe not in firsts)]
    compiles = False
    for k, recipe in enumerate(ordered):
        if compiles and k >= len(firsts) and processes > 1:
            yield from _run_in_processes(ordered[k:], processes)
            return
        new, old = run_recipe(recipe)
        compiles |= bool(new)
        yield new, old


def _run_in_processes(todo: Sequence[Recipe], processes: int) -> Iterator[tuple[list[str], list[str]]]:
    # a forked child would inherit locks and thread pools in whatever state they are
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(run_recipe, recipe) for recipe in todo]
        try:
            for finished in as_completed(waiting):
                yield finished.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
