"""Training data in a store on disk: windows of blocks in memory, the next one read while one is computed with.

A :class:`StoreProblem` is a :class:`~bpcore.host_data.HostProblem` whose rows come from the window that is in memory,
and from the file where they are not in it. In which order an epoch visits them it says itself
(:meth:`StoreProblem.steps`), so that the rows of some thousand steps lie in one window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.arrays import check_matrix, row_blocks
from bpcore.data.store import Store
from bpcore.data.targets import EncodedTargets, encode_targets
from bpcore.data.weights import check_sample_weight, class_weight_to_row_weights
from bpcore.errors import DataError, ShapeError
from bpcore.functions.losses import Loss
from bpcore.host_data import HostProblem, Rows
from bpcore.network import MLP
from bpcore.problem import row_weights_of
from bpcore.typing import DType, IntArray, NDArray

__all__ = ["StoreProblem", "store_weights"]


@dataclass(frozen=True)
class _Shape:
    """What is known of a matrix that is nowhere as a whole."""

    shape: tuple[int, int]


@dataclass
class _Window:
    """Prepared rows of some blocks.

    Attributes
    ----------
    slot : ndarray of int64, shape (number of blocks,)
        Place of each block in the window; -1 for those that are not in it.
    """

    X: NDArray[Any]
    Y: NDArray[Any] | None
    labels: IntArray | None
    slot: IntArray
    blocks: IntArray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class _Encoder:
    """Turns targets as a store gives them into what a loss compares."""

    n_out: int
    loss: Loss
    dtype: DType
    classes: list[int] | None
    name: str

    def __call__(self, y: Any) -> EncodedTargets:
        return encode_targets(
            y,
            n_out=self.n_out,
            loss_targets=self.loss,
            dtype=self.dtype,
            classes=self.classes,
            name=self.name,
        )


@dataclass(frozen=True)
class StoreProblem(HostProblem):
    """A store as the data of a network; attributes as :class:`~bpcore.problem.Problem`, but for what is below.

    Attributes
    ----------
    X, Y
        Have a shape and nothing else.
    labels : ndarray or None
        Empty, if the targets are classes: those of a row are read with it.
    store : Store
        The rows.
    encode : callable
        Turns targets into rows of Y.
    table : ndarray, shape (n_L, n_L), or None
        Rows of Y by label; None where each row is made for itself.
    counts : ndarray of int64 or None
        Samples of each class.
    """

    store: Store
    encode: _Encoder
    table: NDArray[Any] | None
    counts: IntArray | None
    _windows: list[_Window] = field(default_factory=list)
    _current: list[_Window] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        net: MLP,
        store: Store,
        loss: Loss,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        names: tuple[str, str] = ("X", "Y"),
    ) -> StoreProblem:
        """Check that a store fits a network and a loss; the targets are read once.

        Raises
        ------
        ShapeError, DataError
            As for :meth:`bpcore.problem.Problem.prepare`.
        """
        m, n_out, dtype = store.m, net.sizes[-1], net.dtype
        if store.width != net.sizes[0]:
            raise ShapeError(
                f"layer 1: {names[0]} has shape {store.shape}; expected (m, {net.sizes[0]}), one sample a row"
            )
        if not m:
            raise DataError(f"{names[0]} is a store without rows; at least one sample is needed")
        classes = None if store.classes is None else list(range(n_out if n_out > 1 else 2))
        if store.classes is not None and classes is not None and len(store.classes) > len(classes):
            raise DataError(
                f"{names[1]} has {len(store.classes)} classes, but a network with {n_out} "
                f"output{'s' if n_out > 1 else ''} tells {len(classes)} apart"
            )
        encode = _Encoder(n_out, loss, dtype, classes, names[1])
        counts, threshold = _survey(store, encode)
        one_hot = n_out > 1 and (store.label_map is not None or store.integers)
        table = encode(np.arange(n_out)).Y if one_hot else None
        weights = None
        if sample_weight is not None or class_weight is not None:
            weights = store_weights(net, store, encode, counts, sample_weight, class_weight)
        return cls(
            _Shape((m, store.width)),
            _Shape((m, n_out)),
            None if counts is None else np.empty(0, np.int64),
            weights,
            0.5 if net.output.range == (0, 1) else threshold,
            dtype,
            store,
            encode,
            table,
            counts,
        )

    def check_one_class(self, be: Backend) -> None:
        """Refuse to train a classifier on a single class."""
        if self.counts is not None and self.m > 1 and np.count_nonzero(self.counts) == 1:
            raise DataError(
                f"all {self.m} targets are class {int(np.argmax(self.counts))}; training a classifier needs at least "
                "two classes (pass allow_one_class=True to train all the same)"
            )

    def steps(self, batch: int, epoch: int, seed: int | None, done: int = 0) -> Iterator[IntArray]:
        """Yield the row numbers of the steps of an epoch, shape (steps, batch), those of one window after the other.

        While the caller trains with one window, a thread reads the next. The rows that are left over where a window
        ends begin the next one's steps; the last step of the epoch is short. As many steps as are `done` are left out,
        and windows that have no other rows are not read.
        """
        from concurrent.futures import Future, ThreadPoolExecutor

        order = self.store.order
        windows = list(enumerate(order.windows(epoch, seed)))
        skip = done * batch
        while windows and skip >= order.size(windows[0][1]):
            skip -= order.size(windows.pop(0)[1])
        if not windows:
            return
        rest = np.empty(0, np.int64)
        with ThreadPoolExecutor(1, "bpcore-read") as pool:
            coming: Future[_Window] = pool.submit(self._load, windows[0][1])
            for i, (k, blocks) in enumerate(windows):
                self._current[:] = [coming.result()]
                if i + 1 < len(windows):
                    coming = pool.submit(self._load, windows[i + 1][1])
                rows = np.concatenate([rest, order.rows_of(blocks, k, epoch, seed)[skip:]])
                skip = 0
                whole = len(rows) // batch * batch
                rest = rows[whole:]
                if whole:
                    yield rows[:whole].reshape(-1, batch)
            if len(rest):
                yield rest.reshape(1, -1)

    def _load(self, blocks: IntArray) -> _Window:
        """Read blocks into the window that is not in use, unless it is the one that has them."""
        current = self._current[0] if self._current else None
        if current is not None and np.array_equal(current.blocks, blocks):
            return current
        window = next((found for found in self._windows if found is not current), None)
        order = self.store.order
        if window is None:
            rows = min(order.block_rows * min(order.window, order.n_blocks), self.m + order.block_rows)
            window = _Window(
                np.empty((rows, self.X.shape[1]), self.dtype),
                None if self.table is not None else np.empty((rows, self.Y.shape[1]), self.dtype),
                None if self.labels is None else np.empty(rows, np.int64),
                np.full(order.n_blocks, -1),
            )
            self._windows.append(window)
        window.blocks = np.empty(0, np.int64)  # whatever is read of it from now on, it is not what it was
        window.slot[:] = -1
        for place, block in enumerate(blocks):
            start = int(block) * order.block_rows
            stop = min(start + order.block_rows, self.m)
            mine = slice(place * order.block_rows, place * order.block_rows + stop - start)
            self._read(start, stop, {"X": window.X[mine], **_some(Y=window.Y, labels=window.labels, rows=mine)})
            window.slot[block] = place
        window.blocks = blocks
        return window

    def _read(self, start: int, stop: int, out: Mapping[str, NDArray[Any]]) -> None:
        """Read a range of rows from the file and prepare them."""
        self._prepare(self.store.raw(start, stop), start, out["X"])
        self._targets(self.store.y(start, stop), out)

    def _prepare(self, raw: NDArray[Any], first: int, out: NDArray[Any]) -> None:
        X = self.store.prepared(raw)
        out[...] = X if X.dtype == out.dtype else check_matrix(X, dtype=out.dtype, first_row=first)

    def _targets(self, y: NDArray[Any], out: Mapping[str, NDArray[Any]]) -> None:
        if self.table is not None:
            if "labels" in out:
                out["labels"][...] = y
            if "Y" in out:
                out["Y"][...] = self.table[y]
            return
        part = self.encode(y)
        if "Y" in out:
            out["Y"][...] = part.Y
        if "labels" in out and part.labels is not None:
            out["labels"][...] = part.labels

    def write(self, rows: Rows, out: Mapping[str, NDArray[Any]]) -> None:
        """Gather some rows into arrays of :attr:`columns`: from the window where they are in it, else from the file."""
        if isinstance(rows, slice):
            self._read(rows.start, rows.stop, out)
        else:
            self._gather(rows, out)
        if self.weights is not None:
            out["weights"][...] = self.weights[rows]

    def _gather(self, rows: IntArray, out: Mapping[str, NDArray[Any]]) -> None:
        block_rows = self.store.order.block_rows
        window = self._current[0] if self._current else None
        place = np.full(len(rows), -1) if window is None else window.slot[rows // block_rows]
        absent = np.flatnonzero(place < 0)
        if window is not None and len(absent) < len(rows):
            # places of absent rows are any; they are written over below
            local = np.maximum(place, 0) * block_rows + rows % block_rows
            np.take(window.X, local, axis=0, out=out["X"], mode="clip")
            labels = None if window.labels is None else window.labels[local]
            if labels is not None and "labels" in out:
                out["labels"][...] = labels
            if self.table is not None and labels is not None:
                np.take(self.table, labels, axis=0, out=out["Y"], mode="clip")
            elif window.Y is not None:
                np.take(window.Y, local, axis=0, out=out["Y"], mode="clip")
        if len(absent):
            self._gather_from_file(rows, absent, out)

    def _gather_from_file(self, rows: IntArray, absent: IntArray, out: Mapping[str, NDArray[Any]]) -> None:
        """Read rows one by one, in the order in which they lie on the disk."""
        absent = absent[np.argsort(rows[absent], kind="stable")]
        store, wanted = self.store, rows[absent]
        raw = np.empty((len(wanted), store.n_columns), store.dtype)
        y: list[NDArray[Any]] = []
        ends = np.flatnonzero(np.diff(wanted, append=-2) != 1) + 1
        begin = 0
        for end in ends:
            start, stop = int(wanted[begin]), int(wanted[end - 1]) + 1
            raw[begin:end] = store.raw(start, stop)
            y.append(store.y(start, stop))
            begin = int(end)
        found: dict[str, NDArray[Any]] = {
            name: np.empty((len(wanted), *array.shape[1:]), array.dtype)
            for name, array in out.items()
            if name != "weights"
        }
        self._prepare(raw, int(wanted[0]), found["X"])
        self._targets(np.concatenate(y), found)
        for name, array in found.items():
            out[name][absent] = array

    def on_host(self, rows: slice, be: Backend, dtype: DType) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets (m, n_L) and weights (m,) of some rows, as NumPy arrays of a dtype."""
        Y = np.empty((rows.stop - rows.start, self.Y.shape[1]), dtype)
        self._targets(self.store.y(rows.start, rows.stop), {"Y": Y})
        return Y, np.ones(len(Y), dtype) if self.weights is None else self.weights[rows]


def _some(*, Y: NDArray[Any] | None, labels: IntArray | None, rows: slice) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    if Y is not None:
        found["Y"] = Y[rows]
    if labels is not None:
        found["labels"] = labels[rows]
    return found


def _survey(store: Store, encode: _Encoder) -> tuple[IntArray | None, float]:
    """Look at all targets once: refuse what does not fit; count the classes, if they are classes."""
    counts: IntArray | None = np.zeros(max(2, encode.n_out), np.int64)
    threshold = 0.5
    for rows in row_blocks(store.m, 8 * max(encode.n_out, store.n_targets)):
        part = _Encoder(
            encode.n_out, encode.loss, encode.dtype, encode.classes, f"{encode.name}[{rows.start}:{rows.stop}]"
        )(store.y(rows.start, rows.stop))
        threshold = part.threshold
        if part.labels is None:
            counts = None
        elif counts is not None:
            counts += np.bincount(part.labels, minlength=len(counts))
    return counts, threshold


def store_weights(
    net: MLP, store: Store, encode: _Encoder, counts: IntArray | None, sample_weight: Any, class_weight: Any
) -> NDArray[Any]:
    """Weight of each row of a store, in memory; see :func:`bpcore.problem.row_weights_of`."""
    if class_weight is None:
        weights = row_weights_of(net, None, store.m, sample_weight, None)
        assert weights is not None
        return weights
    if counts is None:
        raise DataError("class_weight needs targets that are classes, such as integer labels")
    table = np.ones(len(counts))
    if class_weight == "balanced":
        # of each class as often as it occurs: what the function makes of the whole
        table = store.m / (np.count_nonzero(counts) * np.maximum(counts, 1.0))
    else:
        names = net.meta.get("classes")
        table = class_weight_to_row_weights(np.arange(len(counts)), class_weight, n_classes=len(counts), classes=names)
    weights = np.empty(store.m, np.float64)
    for rows in row_blocks(store.m, 8 * max(encode.n_out, store.n_targets)):
        labels = encode(store.y(rows.start, rows.stop)).labels
        assert labels is not None
        weights[rows] = table[labels]
    if sample_weight is not None:
        weights *= check_sample_weight(sample_weight, n_rows=store.m)
    if not weights.any():
        raise DataError("sample_weight times class_weight is 0 for every row, so nothing would be learned")
    return weights.astype(net.dtype)
