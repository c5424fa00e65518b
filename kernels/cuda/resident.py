"""The shape of a network in shared memory: how ``resident.cuh`` is cut, where everything lies, and its text.

All sizes are printed as constants, so the kernel is compiled for one network: then the compiler unrolls what is short
and no index is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Literal

from bpcore.kernels.cuda.pieces import StepPieces
from bpcore.kernels.cuda.source import cuda_text, translation_unit

__all__ = ["Form", "ResidentShape", "Tiling", "choose_tiling", "resident_unit"]

FILES = ("scalar", "memory", "team", "rowwise", "philox")
CLIPS = ("", "element", "all", "layer")
Form = Literal["forward", "backward", "gradient"]
PARAMETERS = (
    *("const T* X", "const T* Y", "const long long* labels", "const T* weights", "const long long* index"),
    *("const double* numbers", "double* records", "long long stride", "T* theta", "T* grad", "const T* prices"),
    *("T limit", "double norm_limit", "T scale", "T threshold", "long long first", "unsigned int key0"),
    *("unsigned int key1", "long long steps", "int m"),
)
"""Parameters of the kernel; the arrays of the update rule follow."""

LATENCY = 30
"""Cycles of a load from shared memory, an estimate."""
BANKS = 32
"""Words of four bytes that a multiprocessor loads from shared memory in a cycle, if they lie in different banks."""


@dataclass(frozen=True)
class Tiling:
    """How a warp is laid over a product; see ``onchip.cuh``.

    Attributes
    ----------
    rows, packs : int
        Rows and packs of columns of a lane's tile.
    across, sharing : int
        Lanes side by side; lanes that share a tile.
    cycles : float
        Estimate for one product.
    """

    rows: int
    packs: int
    across: int
    sharing: int
    cycles: float = field(default=0.0, compare=False)

    @property
    def is_large(self) -> bool:
        """Whether a lane holds 8 x 8 sums of float32."""
        return self.rows * self.packs == 16

    def __str__(self) -> str:
        return f"Tiling<{self.rows}, {self.packs}, {self.across}, {self.sharing}>"


@dataclass(frozen=True)
class Update:
    """What follows a gradient: the same lanes move the parameters.

    Attributes
    ----------
    row : int
        Elements from one row of parameters to the next.
    accesses : int
        Loads and stores of shared memory for each parameter.
    """

    row: int
    accesses: int

    def cycles(self, tiling: Tiling, lanes: int) -> int:
        """Cycles in which a warp's accesses occupy shared memory, for one tile of the warp.

        A lane holds some neighbours of one row after another. Lanes that hold rows a multiple of four apart meet the
        same banks, whatever the length of a row, unless their columns are apart.

        Parameters
        ----------
        tiling : Tiling
            How the lanes lie.
        lanes : int
            Elements in 16 bytes.
        """
        columns, down = tiling.packs * lanes, 32 // (tiling.across * tiling.sharing)
        sums = tiling.rows * columns
        held = max(1, sums // tiling.sharing)
        few, same = min(lanes, held), max(1, tiling.sharing // sums)
        words = 4 // lanes  # of an element
        at_once = max(1, BANKS // (few * words))  # lanes whose accesses go together
        wavefronts = 0
        for first in range(0, 32, at_once):
            banks: dict[int, set[int]] = {}
            for lane in range(first, first + at_once):
                tj, g, ti = lane % tiling.across, lane // tiling.across % tiling.sharing, lane // (32 // down)
                if g % same:
                    continue
                r, c = divmod(g // same * held, columns)
                i = (r // lanes * down + ti) * lanes + r % lanes
                j = (c // lanes * tiling.across + tj) * lanes + c % lanes
                start = (i * self.row + j) * words
                for word in range(start, start + few * words):
                    banks.setdefault(word % BANKS, set()).add(word)
            wavefronts += max(map(len, banks.values()), default=0)
        return held // few * self.accesses * wavefronts


@lru_cache(maxsize=4096)
def choose_tiling(
    form: Form, m: int, n: int, count: int, threads: int, itemsize: int, update: Update | None = None
) -> Tiling:
    """Choose the tiling with the fewest cycles, by a simple count.

    A multiprocessor does 128 multiplications of float32 in a cycle (half as many of float64) and loads 128 bytes from
    shared memory; a warp alone issues one instruction a cycle and waits for what it loads.

    Parameters
    ----------
    form : {"forward", "backward", "gradient"}
        Which of the factors are transposed.
    m, n : int
        Size of the product.
    count : int
        Terms of each sum.
    threads, itemsize : int
        Of a block; bytes of an element.
    update : Update, optional
        What follows a gradient.

    Returns
    -------
    Tiling
        The choice and its cycles.

    Examples
    --------
    >>> choose_tiling("forward", 64, 32, 196, 256, 4).rows
    8
    """
    lanes = 16 // itemsize
    terms = 1 if form == "gradient" else lanes
    best: Tiling | None = None
    for rows, packs, across, sharing in product((1, 2, 4, 8), (1, 2), (1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32)):
        if across * sharing > 32 or (form == "gradient" and rows % lanes):
            continue
        columns = packs * lanes
        down = 32 // (across * sharing)
        tasks = -(-m // (rows * down)) * -(-n // (columns * across))
        steps = -(-count // terms)
        loops = -(-steps // sharing)
        loads = {"forward": rows + lanes * packs, "backward": rows + columns, "gradient": rows // lanes + packs}[form]
        # lanes that read rows a multiple of four apart meet the same banks
        conflicts = max(1.0, 4 / across) if form == "forward" and sharing > 1 else 1.0
        if form != "forward" and 1 < across < 8 and sharing > 1:
            conflicts = 2.0
        multiplications = terms * rows * columns * itemsize // 4
        shuffles = 0
        held, lanes_left = rows * columns, sharing
        while lanes_left > 1:
            held, lanes_left = max(1, held // 2), lanes_left // 2
            shuffles += held
        all_loads, instructions = loads * 4 * conflicts, multiplications + loads
        throughput = tasks * (loops * max(all_loads, multiplications / 4) + shuffles + rows * columns / sharing)
        rounds = -(-tasks // (threads // 32))
        alone = rounds * (loops * (instructions + LATENCY / (1 if rows * columns > 16 else 4)) + 4 * shuffles + LATENCY)
        tiling = Tiling(rows, packs, across, sharing)
        cycles = max(throughput, alone)
        if update is not None:
            moved = update.cycles(tiling, lanes)
            cycles = max(throughput + tasks * moved, alone + rounds * (moved + 4 * LATENCY))
        if best is None or cycles < best.cycles:
            best = replace(tiling, cycles=cycles)
    assert best is not None
    return best


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class ResidentShape:
    """A network in the shared memory of a cluster.

    Attributes
    ----------
    sizes : tuple of int
        Widths of the layers.
    batch : int
        Largest number of samples in a step.
    itemsize : int
        Bytes of an element.
    states, numbers, prices : int
        Arrays and numbers of the update rule, constants of the penalty.
    blocks : int
        Thread blocks in the cluster.
    column_blocks : int
        Into how many columns W[1] is cut; ``blocks // column_blocks`` rows.
    shared : bool
        Whether the blocks share the samples and the upper parameters; else each does all of them.
    threads : int
        In a block, a multiple of 32.
    rates : mapping of int to float
        Dropout of the layers that have some.
    per_sample : bool
        Whether each sample has a mask of its own.
    clip : {"", "element", "all", "layer"}
        Clipping.
    wide_inputs : bool
        Whether rows of X begin at multiples of 16 bytes.
    """

    sizes: tuple[int, ...]
    batch: int
    itemsize: int
    states: int = 0
    numbers: int = 0
    prices: int = 0
    blocks: int = 1
    column_blocks: int = 1
    shared: bool = True
    threads: int = 256
    rates: tuple[tuple[int, float], ...] = ()
    per_sample: bool = False
    clip: str = ""
    wide_inputs: bool = False

    @property
    def lanes(self) -> int:
        """Elements in 16 bytes."""
        return 16 // self.itemsize

    @property
    def shares(self) -> int:
        """Into how many shares samples and upper parameters are cut."""
        return self.blocks if self.shared else 1

    @property
    def mine(self) -> int:
        """Most samples of a block."""
        return -(-self.batch // self.shares)

    @property
    def columns(self) -> int:
        """Most columns of a part of W[1]."""
        return _up(-(-self.sizes[1] // self.column_blocks), self.lanes)

    @property
    def last(self) -> int:
        """Number of the output layer."""
        return len(self.sizes)

    def row(self, n: int) -> int:
        """Elements from one row of n to the next: an odd multiple of 16 bytes."""
        return (_up(n, self.lanes) // self.lanes | 1) * self.lanes

    def chunk(self, l: int) -> int:
        """Most rows of W[l] and b[l] that a block updates."""
        parts = self.blocks // self.column_blocks if l == 1 else self.shares
        return _up(-(-(self.sizes[l - 1] + 1) // parts), self.lanes)

    def tilings(self, l: int) -> dict[Form, Tiling]:
        """Tilings of the products with W[l]."""
        lanes, n_in, n = self.lanes, self.sizes[l - 1], self.sizes[l]
        width, m = (self.columns, self.batch) if l == 1 else (n, self.mine)
        terms = self.chunk(1) if l == 1 else _up(n_in + 1, lanes)
        last = self.threads, self.itemsize
        row = self.row(self.columns if l == 1 else n)
        update = Update(row, 2 + 2 * self.states)
        return {
            "forward": choose_tiling("forward", m, width, terms, *last),
            "backward": choose_tiling("backward", m, n_in, _up(n, lanes), *last),
            "gradient": choose_tiling("gradient", self.chunk(l), width, self.batch, *last, update),
        }

    @cached_property
    def places(self) -> dict[str, int]:
        """Where everything begins, in elements; ``MEMORY`` is the length."""
        places: dict[str, int] = {}
        end = 0

        def room(name: str, count: int, itemsize: int = 0) -> None:
            nonlocal end
            places[name] = end
            end = _up(end + count * (itemsize or self.itemsize) // self.itemsize, self.lanes)

        m, mine, last = self.batch, self.mine, self.last
        room("GATES", 3, 8)
        room("LOSSES", 4 * m, 8)
        room("WEIGHT", 2, 8)
        room("RATES", 2 * self.numbers, 8)
        room("INDEX", 2 * m, 8)
        room("LABELS", 2 * mine, 8)
        if self.clip in ("all", "layer"):
            room("SQUARES", (last - 1) * (32 + self.blocks), 8)
        else:
            places["SQUARES"] = 0
        room("WEIGHTS", 2 * m)
        room("TARGETS", 2 * mine * self.sizes[-1])
        room("TERMS", mine * self.row(self.sizes[-1] + 1))
        parts = (1 if self.shared else 2) * self.blocks // self.column_blocks
        room("PARTS", parts * mine * self.row(self.sizes[1] + 1))
        masked = dict(self.rates)
        for l, n in enumerate(self.sizes, start=1):
            if l > 1:
                own = mine * self.row(n + 1)
                room(f"Z{l}", own)
                room(f"H{l}", own)
                room(f"DELTA{l}", m * self.row(self.columns if l == 2 else n))
                room(f"PASSED{l}", own if l < last else 0)
                room(f"MASK{l}", (own if self.per_sample else n) if l in masked else 0)
            if l == last:
                break
            if l > 1 and self.shares == 1:
                places[f"IN{l}"] = places[f"PASSED{l}"]
            else:
                room(f"IN{l}", (2 if l == 1 else 1) * m * self.row(self.chunk(l)))
            width = self.row(self.columns if l == 1 else self.sizes[l])
            part = self.chunk(l) * width
            room(f"W{l}", part if l == 1 else max(part, _up(n + 1, self.lanes) * width))
            room(f"STATE{l}", self.states * part)
            room(f"GRAD{l}", part if self.clip in ("all", "layer") else 0)
        places["MEMORY"] = end
        return places

    @property
    def nbytes(self) -> int:
        """Shared memory of a block."""
        return self.places["MEMORY"] * self.itemsize

    def constants(self) -> str:
        """Print the constants that ``onchip.cuh`` and ``resident.cuh`` read."""
        constants = {
            "THREADS": self.threads,
            "BLOCKS": self.blocks,
            "ROW_BLOCKS": self.blocks // self.column_blocks,
            "COLUMN_BLOCKS": self.column_blocks,
            "COLUMNS": self.columns,
            "SHARES": self.shares,
            "BATCH": self.batch,
            "MINE": self.mine,
            "LAST": self.last,
            "PRICES": self.prices,
            "WIDE_INPUTS": int(self.wide_inputs),
            "PER_SAMPLE": int(self.per_sample),
            "CLIP": CLIPS.index(self.clip),
            "INPUTS": self.batch * self.row(self.chunk(1)),
            "PARTS_SIZE": self.blocks // self.column_blocks * self.mine * self.row(self.sizes[1] + 1),
            **{name: place for name, place in self.places.items() if not name[-1].isdigit()},
        }
        return "\n".join(f"constexpr int {name} = {value};" for name, value in constants.items()) + "\n"

    def layers(self, codes: Sequence[int], offsets: Mapping[tuple[str, int], int]) -> str:
        """Print a struct for each layer.

        Parameters
        ----------
        codes : sequence of int
            Codes of the activations of the layers 2 ... L.
        offsets : mapping
            Where ``("W", l)`` and ``("b", l)`` begin in theta.
        """
        places, masked, structs = self.places, dict(self.rates), ["template <int l> struct Layer;"]
        for l, n in enumerate(self.sizes, start=1):
            rate = masked.get(l, 0.0)
            members: list[str] = []
            integers: dict[str, Any] = {"N": n, "ROW": self.row(n + 1), "CODE": codes[l - 2] if l > 1 else 0}
            if l > 1:
                integers |= {name: places[f"{name}{l}"] for name in ("Z", "H", "DELTA", "PASSED", "MASK")}
                integers["DELTA_ROW"] = self.row(self.columns if l == 2 else n)
            if l < self.last:
                shared_rows = l > 1 and self.shares == 1
                width = self.row(self.columns if l == 1 else self.sizes[l])
                integers |= {name: places[f"{name}{l}"] for name in ("IN", "W", "STATE", "GRAD")}
                integers |= {
                    "IN_ROW": self.row(n + 1) if shared_rows else self.row(self.chunk(l)),
                    "CHUNK": self.chunk(l),
                    "W_ROW": width,
                    "STATE_SIZE": self.chunk(l) * width,
                }
                members += [f"typedef {tiling} {form.capitalize()};" for form, tiling in self.tilings(l).items()]
                members += [f"static constexpr long long THETA_{x.upper()} = {offsets[x, l]};" for x in ("W", "b")]
            members += [f"static constexpr int {name} = {value};" for name, value in integers.items()]
            members += [
                f"static constexpr bool DROPS = {str(rate > 0).lower()};",
                f"static constexpr unsigned LIMIT = {int(rate * 2**32)}u;",
                f"static constexpr T KEPT = T({1 / (1 - rate)!r});",
            ]
            structs.append(f"template <> struct Layer<{l}> {{\n    " + "\n    ".join(members) + "\n};")
        return "\n".join(structs) + "\n"


def resident_unit(shape: ResidentShape, pieces: StepPieces, offsets: Mapping[tuple[str, int], int], dtype: Any) -> str:
    """Text of the kernel ``resident`` for a network.

    Parameters
    ----------
    shape : ResidentShape
        Its shape.
    pieces : StepPieces
        Its formulas.
    offsets : mapping
        Where ``("W", l)`` and ``("b", l)`` begin in theta.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    str
        CUDA C++.
    """
    states = range(shape.states)
    cluster = f"__cluster_dims__({shape.blocks}, 1, 1) " if shape.blocks > 1 else ""
    parameters = [*PARAMETERS, *(f"T* s{k}" for k in states)]
    entry = [
        f'extern "C" __global__ void __launch_bounds__({shape.threads}) {cluster}resident(',
        f"    {', '.join(parameters)}) {{",
        "    DYNAMIC_SHARED(shared);",
        f"    T* const states[] = {{{', '.join([f's{k}' for k in states] or ['nullptr'])}}};",
        "    const Run run = {X, Y, labels, weights, index, numbers, records, stride, theta, grad, states, prices,",
        "                     limit, norm_limit, scale, threshold, first, key0, key1, steps, m};",
        "    train(run, shared);",
        "}",
        "",
    ]
    parts = [
        pieces.text,
        shape.constants(),
        *map(cuda_text, ("cluster", "onchip")),
        shape.layers(pieces.codes, offsets),
        cuda_text("resident"),
        "\n".join(entry),
    ]
    return translation_unit(dtype, FILES, *parts)
