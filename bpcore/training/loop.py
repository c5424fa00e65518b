"""Training: the loop over epochs around the trainer."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.store import Store
from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.clipping import Clipping
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.network import MLP
from bpcore.settings import check_count
from bpcore.training.announcement import announced_compiling
from bpcore.training.callbacks import CallbackLike, as_callback
from bpcore.training.record import make_record
from bpcore.training.run import Run
from bpcore.training.session import Keep, Session
from bpcore.training.spec import Dropout
from bpcore.training.stopping import StopRule, as_rule
from bpcore.training.trainer import Trainer, check_pair
from bpcore.training.validation import Metric, Validation

if TYPE_CHECKING:
    from bpcore.persistence.checkpoint import Checkpoint
    from bpcore.persistence.checkpoint_writer import CheckpointWriter

__all__ = ["train"]


def train(
    net: MLP,
    X: Any,
    Y: Any = None,
    *,
    loss: str | Loss | None = None,
    optimizer: str | UpdateRule | ScipyMinimize | None = None,
    batch_size: int | Literal["full"] = 64,
    epochs: int = 10,
    validation: tuple[Any, Any] | Store | None = None,
    metrics: Mapping[str, Metric] | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    dropout: float | Sequence[float] | Dropout | None = None,
    penalty: Penalty | Sequence[Penalty] | None = None,
    clip: Clipping | None = None,
    stop: StopRule | Iterable[StopRule] | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    keep: Keep = "auto",
    on_divergence: Literal["raise", "stop"] = "raise",
    callbacks: Iterable[CallbackLike] = (),
    record_steps: bool = False,
    allow_one_class: bool = False,
    backend: str | Backend | None = None,
    threads: int | None = None,
    plan: str = "auto",
    precision: str | None = None,
    data: Literal["auto", "resident", "stream"] = "auto",
    stream: Any = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    resume: bool = False,
    verbose: bool | None = None,
) -> Run:
    """Train a network by gradient descent.

    Parameters
    ----------
    net : MLP
        The network, trained in place.
    X : array_like, shape (n, n_1), or Store
        Inputs, one sample a row; or a store on disk (:func:`bpcore.data.from_chunks`), which has its targets inside.
    Y : array_like, shape (n,) or (n, n_L)
        Labels (integers from 0) or target values; see :mod:`bpcore.data.targets`.
    loss : str or Loss, optional
        What is minimised; by default the loss that goes with the output activation.
    optimizer : str, UpdateRule or ScipyMinimize, optional
        How parameters move. Default ``bp.SGD(0.1)``. A :class:`ScipyMinimize` (``bp.LBFGS()``) works on all samples
        at once; ``epochs`` then limits its iterations.
    batch_size : int or ``"full"``
        Samples a step: 1 for stochastic descent, ``"full"`` for full-batch descent. The last step of an epoch takes
        what is left. Default 64.
    epochs : int
        Largest number of passes over the data. Default 10.
    validation : (X, Y) or Store, optional
        Data that is measured after every epoch.
    metrics : mapping of str to function, optional
        Measures of your own, ``f(Y, H) -> float`` of the validation targets as given and the outputs as a NumPy array;
        they become columns ``val_<name>``.
    sample_weight : array_like, shape (n,), optional
        Weight of each sample in the mean; 2 counts like the row twice, 0 like the row absent.
    class_weight : mapping of class to float, or ``"balanced"``, optional
        Weight of each class, times the sample weight.
    dropout : float, sequence of float or Dropout, optional
        Rate on the hidden layers.
    penalty : Penalty or sequence of Penalty, optional
        Price of the weights, such as ``bp.L2(1e-4)``.
    clip : Clipping, optional
        Such as ``bp.ClipNorm(1.0)``.
    stop : StopRule or sequence of StopRule, optional
        When to stop before ``epochs`` are over; the first rule that fires counts.
    shuffle : bool
        Whether every epoch visits the samples in a fresh order. Default True.
    seed : int, optional
        Seed of shuffles and dropout masks. Default ``BPCORE_SEED``, else drawn afresh; see the record.
    keep : ``"auto"``, ``"last"`` or ``"best"``
        Which parameters the network has in the end: the last, or those of the best epoch of the monitored column
        (that of the first :class:`Patience`, else ``val_loss``, else ``loss``). ``"auto"`` keeps the best when there
        is a :class:`Patience`, or when training with validation data is interrupted; else the last.
    on_divergence : ``"raise"`` or ``"stop"``
        What to do at the first number that is not finite. The last good parameters are kept in both cases.
    callbacks : iterable of Callback or function
        Run after every epoch as ``f(net, progress)``; a function that returns True ends the training. A
        :class:`Callback` can do more; :class:`bpcore.Inspector` looks at every layer.
    record_steps : bool
        Whether ``history.steps`` holds the loss of every step. Default False.
    allow_one_class : bool
        Whether a classifier may be trained on one class only.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.
    threads : int, optional
        Number of threads; see :class:`bpcore.Trainer`.
    plan : str
        ``"auto"`` or the name of a plan.
    precision : str, optional
        In which the products are computed; see :class:`bpcore.Trainer`.
    data : ``"auto"``, ``"resident"`` or ``"stream"``
        Whether the data lies where the network computes, or stays on the host and goes there a few steps at a time;
        see :class:`bpcore.Trainer`. What was done is ``record["data"]``.
    stream : optional
        CUDA stream on which the work is queued; see :class:`bpcore.Trainer`.
    checkpoint : Checkpoint, str or PathLike, optional
        Where and how often the training is written down; the name of a folder alone means every 10 minutes. Another
        one is written at the end, after Ctrl-C, too. What was done is ``record["checkpoint"]``.
    resume : bool
        Whether to go on from the newest usable checkpoint, as if the training had never stopped: the same bits, on the
        same backend with the same plan and threads. ``epochs`` counts those before, too. Another network, rule, batch
        size, seed or data set is refused; ``seed=None`` takes that of the checkpoint. Where the folder holds no
        checkpoint, the training begins afresh. ``record["resumed"]`` lists where it has gone on.
    verbose : bool, optional
        Whether to show a progress bar; by default when standard error is a terminal.

    Returns
    -------
    Run
        History, reason of the end, and the record.

    Raises
    ------
    ShapeError, DataError, ConfigurationError, UnknownNameError
        If something does not fit, the checkpoint included; the network is unchanged.
    DeviceMemoryError
        If not even one sample at a time fits in the memory of a device; the network is unchanged.
    ModelFileError
        If checkpoints cannot be written, or none can be used; the network is unchanged.
    DivergenceError
        If a number is not finite, unless ``on_divergence="stop"``; its ``run`` attribute holds the history.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> net = bp.MLP([1, 16, 1], activation="tanh", output="identity", seed=0)
    >>> run = bp.train(net, X, X**2, optimizer=bp.Adam(0.01), batch_size=16, epochs=200, seed=0)
    >>> run.stopped_because, bool(run.history[-1]["loss"] < 5e-3)
    ('reached 200 epochs', True)
    """
    check_count("epochs", epochs)
    if keep not in ("auto", "last", "best"):
        raise unknown("value for keep", keep, ["auto", "last", "best"])
    if on_divergence not in ("raise", "stop"):
        raise unknown("value for on_divergence", on_divergence, ["raise", "stop"])
    check_pair(X, Y)
    full_batch = isinstance(optimizer, ScipyMinimize)
    full = batch_size == "full" or full_batch
    if isinstance(X, Store) and batch_size == "full":
        raise ConfigurationError(
            "batch_size='full' does not go with a store on disk, of which a window is in memory; give a number of "
            "samples"
        )
    n = _length(X)
    saver = _saver(checkpoint, resume, optimizer, verbose)
    trainer = Trainer(
        net,
        loss,
        None if isinstance(optimizer, ScipyMinimize) else optimizer,
        batch_size=n if full else min(int(batch_size), n) if _is_whole(batch_size) else batch_size,  # type: ignore[arg-type]
        dropout=dropout,
        penalty=penalty,
        clip=clip,
        seed=seed if saver is None else saver.seed(seed),
        backend=backend,
        threads=threads,
        plan=plan,
        precision=precision,
        data=data,
        stream=stream,
    )
    if full_batch and data == "stream":
        raise ConfigurationError(
            f"data='stream' is for steps of gradient descent; {optimizer!r} needs all samples in every iteration. "
            "Leave data out, or use an optimizer such as bp.Adam(0.001)"
        )
    if full_batch and trainer.precision is not None:
        raise ConfigurationError(
            f"precision={precision!r} is for steps of gradient descent; {optimizer!r} compares losses to all of their "
            "digits. Leave precision out, or use an optimizer such as bp.Adam(0.001)"
        )
    if full_batch and plan not in ("auto", "reference"):
        raise ConfigurationError(
            f"plan={plan!r} is for steps of gradient descent; {optimizer!r} calls the engine with all samples, as "
            "plan='reference' does. Leave plan out, or use an optimizer such as bp.Adam(0.001)"
        )
    if metrics and validation is None:
        raise ConfigurationError("metrics are measured on validation data; give validation=(X, Y)")
    trainer.verbose, trainer.moves_by_rule = verbose, not full_batch

    def descend() -> Run:
        problem = trainer.load(
            X, Y, sample_weight=sample_weight, class_weight=class_weight, validation=validation, whole=full_batch
        )
        if not allow_one_class:
            problem.check_one_class(trainer.be)
        with trainer.refusing("the validation data"):
            held_out = None if validation is None else Validation(trainer, validation, metrics)
        spec = trainer.prepare(problem)
        record = make_record(trainer, spec, problem.m, 0 if held_out is None else held_out.m)
        if full_batch:
            record |= {"plan": "reference", "plan_why": f"{optimizer!r} calls the engine with all samples"}
        order = None if full or not shuffle else trainer.seed
        what = None
        if saver is not None:
            from bpcore.training.fingerprint import fingerprint

            with trainer.refusing("a look at the data, for the checkpoints"):
                what = fingerprint(spec, problem, trainer.be, seed=trainer.seed, shuffle=order is not None)
        session = Session(
            trainer,
            problem,
            held_out,
            as_rule(stop),
            [as_callback(c) for c in callbacks],
            keep,
            record_steps,
            record,
            what,
            saver,
        )
        session.check_columns()
        if isinstance(optimizer, ScipyMinimize):
            from bpcore.training.full_batch import minimize

            spec_record = record["spec"]
            spec_record["optimizer"] = {"name": optimizer.method, **optimizer.keywords()}
            return session.conclude(minimize(session, optimizer, epochs, verbose), on_divergence)
        over = None if saver is None else saver.begin(session)
        return session.conclude(session.descend(epochs, order, verbose, over), on_divergence)

    try:
        with trainer.be.on_stream(stream), announced_compiling(trainer.be, verbose):
            return descend()
    except BaseException as error:
        if trainer.be.device != "cpu":
            # what the frames of an error hold would stay on the device as long as the error
            traceback.clear_frames(error.__traceback__)
        raise
    finally:
        trainer.release(state=True)


def _saver(checkpoint: Any, resume: bool, optimizer: Any, verbose: bool | None) -> CheckpointWriter | None:
    """What writes checkpoints, and knows where to go on; None if none are asked for."""
    if checkpoint is None:
        if resume:
            raise ConfigurationError("resume=True needs checkpoint=, the folder with the checkpoints of the training")
        return None
    if isinstance(optimizer, ScipyMinimize):
        raise ConfigurationError(
            f"checkpoint= is for steps of gradient descent; {optimizer!r} keeps its memory inside SciPy, which cannot "
            "be written down. Leave checkpoint out, or use an optimizer such as bp.Adam(0.001)"
        )
    # a floor above, and needed by none but those who ask for it
    from bpcore.persistence.checkpoint_writer import CheckpointWriter

    return CheckpointWriter.open(checkpoint, resume, verbose)


def _length(X: Any) -> int:
    try:
        return max(len(X), 1)
    except TypeError:
        return 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
