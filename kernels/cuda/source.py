"""Translation units: the ``.cuh`` files in order, and kernels printed from programs.

An element-wise kernel is printed for a program together with the *kind* of every argument, because the kind decides
how an element is addressed:

========== ==================================== ========================
kind       argument                             loaded
========== ==================================== ========================
scalar     a number, passed by value            never
one        array with a single element          once a thread
full       array of the result's shape (m, n)   for every element
row        array of shape (n,) or (1, n)        once a column
column     array of shape (m, 1)                for every element
========== ==================================== ========================

With full arguments and scalars only, the kernel is flat and moves 16 bytes at a time; else it walks over rows and
columns. What depends on scalars alone (such as ``1 - beta``) is computed on the host in float64, once a launch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var
from bpcore.functions.printing import to_c
from bpcore.functions.program import Program
from bpcore.kernels.cuda.tiling import shared_bytes, threads_of

__all__ = [
    "KINDS",
    "OPERANDS",
    "UNITS",
    "ElementwiseKernel",
    "Point",
    "around_unit",
    "early_source",
    "few_unit",
    "fused_source",
    "inference_unit",
    "narrow_unit",
    "print_elementwise",
    "print_point",
    "tile_unit",
    "translation_unit",
    "unit_source",
    "wide_unit",
]

KINDS = ("scalar", "one", "full", "row", "column")

UNITS = {
    "rowwise": ("scalar", "memory", "team", "rowwise"),
    "reductions": ("scalar", "memory", "team", "reductions"),
    "gather": ("scalar", "gather"),
    "random": ("scalar", "memory", "philox", "random"),
}
"""Files of each translation unit, in the order in which they need one another."""

_C_TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}


@cache
def cuda_text(name: str) -> str:
    """Text of a ``.cuh`` file of this folder, named without its suffix."""
    return files(__package__).joinpath(f"{name}.cuh").read_text(encoding="utf-8")


def translation_unit(dtype: Any, names: Iterable[str], *printed: str) -> str:
    """Put a translation unit together: the element type, some ``.cuh`` files, and printed kernels.

    Parameters
    ----------
    dtype : dtype
        float32 or float64: what ``T`` is.
    names : iterable of str
        Files without their suffix, in order.
    *printed : str
        Text that follows, for example :attr:`ElementwiseKernel.text`.

    Returns
    -------
    str
        CUDA C++.
    """
    return "\n".join([f"typedef {_C_TYPES[np.dtype(dtype)]} T;", *map(cuda_text, names), *printed])


def unit_source(unit: str, dtype: Any) -> str:
    """Text of one of the fixed units (:data:`UNITS`) for a dtype.

    Examples
    --------
    >>> unit_source("gather", "float32").splitlines()[0]
    'typedef float T;'
    """
    return translation_unit(dtype, UNITS[unit])


_STEP = ("scalar", "memory", "team", "philox", "rowwise")


def _product(dtype: Any, rows: int, columns: int, together: int) -> tuple[str, ...]:
    """Texts of ``product.cuh`` and what it requires, for tiles of so many rows and columns."""
    threads = threads_of(rows, columns)
    size = f"constexpr int BM = {rows}, BN = {columns}, PRODUCT_THREADS = {threads}, TOGETHER = {together};"
    nbytes = shared_bytes(rows, columns, np.dtype(dtype).itemsize)
    check = f'static_assert(Tile<BM, BN>::MEMORY * sizeof(T) == {nbytes}, "as in tiling.py");'
    return cuda_text("cluster"), size, cuda_text("factors"), cuda_text("product"), check


def _in_clusters(text: str, together: int) -> str:
    """Text of kernels whose blocks come in clusters of so many."""
    bounds = "__launch_bounds__(PRODUCT_THREADS, BLOCKS_AT_ONCE)"
    return text.replace(bounds, f"{bounds} __cluster_dims__({together}, 1, 1)") if together > 1 else text


def tile_unit(pieces: str, dtype: Any, rows: int, columns: int, together: int = 1) -> str:
    """Text of the products of a training step (``tiles.cuh``), in tiles of so many rows and columns.

    Parameters
    ----------
    pieces : str
        The printed declarations, see :mod:`bpcore.kernels.cuda.pieces`.
    dtype : dtype
        float32 or float64.
    rows, columns : int
        32 or 64.
    together : int, default 1
        Blocks of a cluster that share the sum over k of a tile: 1, 2, 4 or 8.
    """
    product = _product(dtype, rows, columns, together)
    step, after = cuda_text("step"), map(cuda_text, ("records", "output"))
    return translation_unit(dtype, _STEP, pieces, step, *product, *after, _in_clusters(cuda_text("tiles"), together))


def around_unit(pieces: str, dtype: Any) -> str:
    """Text of the other kernels of a step (``output.cuh``, ``around.cuh``); `pieces` as for :func:`tile_unit`."""
    return translation_unit(dtype, _STEP, pieces, *map(cuda_text, ("step", "records", "output", "around")))


def inference_unit(activations: str, dtype: Any, rows: int, columns: int, together: int = 1) -> str:
    """Text of the layers of a prediction (``inference.cuh``), in tiles of so many rows and columns.

    Parameters
    ----------
    activations : str
        As :func:`bpcore.kernels.cuda.pieces.print_activations` prints them.
    dtype : dtype
        float32 or float64.
    rows, columns, together : int
        As for :func:`tile_unit`.
    """
    names, product = ("scalar", "memory", "team", "rowwise"), _product(dtype, rows, columns, together)
    return translation_unit(dtype, names, activations, *product, _in_clusters(cuda_text("inference"), together))


def few_unit(activations: str, dtype: Any, rows: int, columns: int) -> str:
    """Text of the layers of a prediction of few samples (``few.cuh``).

    Parameters
    ----------
    activations, dtype
        As for :func:`inference_unit`.
    rows : int
        Samples, at most; 1 to 8.
    columns : int
        Outputs of a block, 8 or 32.
    """
    size = f"constexpr int ROWS = {rows}, COLUMNS = {columns};"
    return translation_unit(dtype, ("scalar", "memory", "team", "rowwise"), activations, size, cuda_text("few"))


def narrow_unit(activations: str, dtype: Any, below: int, outputs: int) -> str:
    """Text of the end of a network behind a product by cuBLAS (``narrow.cuh``).

    Parameters
    ----------
    activations, dtype
        As for :func:`inference_unit`.
    below : int
        Width of the layer whose product it is.
    outputs : int
        Width of the last layer, 32 or less.
    """
    size = f"constexpr int BELOW = {below}, OUTPUTS = {outputs};"
    return translation_unit(dtype, ("scalar", "memory", "team", "rowwise"), activations, size, cuda_text("narrow"))


OPERANDS = {"": "T", "tf32x3": "Tf32", "bf16": "Bfloat16", "fp16": "Float16"}
"""Types of what products by cuBLAS read, see ``operand.cuh``; by default that of everything else."""


def wide_unit(pieces: str, dtype: Any, operands: str = "") -> str:
    """Text of the kernels around products by cuBLAS.

    Parameters
    ----------
    pieces : str
        As for :func:`tile_unit`.
    dtype : dtype
        float32 or float64.
    operands : str
        A name of :data:`OPERANDS`.
    """
    choice = f"typedef {OPERANDS[operands]} Operand;\nconstexpr bool SCALED = {str(operands == 'fp16').lower()};"
    after = ("plane", "wide", "output_operands", "wide_output", "wide_update")
    return translation_unit(
        dtype, _STEP, pieces, *map(cuda_text, ("step", "records", "operand")), choice, *map(cuda_text, after)
    )


def fused_source(pieces: str, shape: str, kernel: str) -> str:
    """Text of a step of a narrow network in one kernel.

    Parameters
    ----------
    pieces : str
        As for :func:`tile_unit`.
    shape : str
        As :mod:`bpcore.kernels.cuda.fused` prints it.
    kernel : {"fused", "fused_float"}
        The file with the kernel: products in bf16, or in float32.
    """
    choice = f"typedef {OPERANDS['bf16' if kernel == 'fused' else '']} Operand;\nconstexpr bool SCALED = false;"
    after = ("output_operands", "wide_update", "cluster", *(("fragments",) if kernel == "fused" else ()))
    return translation_unit(
        np.float32,
        ("scalar", "memory", "team", "philox"),
        pieces,
        *map(cuda_text, ("step", "records", "operand")),
        choice,
        *map(cuda_text, after),
        shape,
        *map(cuda_text, ("fused_shared", kernel)),
    )


def early_source() -> str:
    """Text of a kernel ``count_launches(out)`` that doubles a number and adds 1, after the kernels before it."""
    kernel = 'extern "C" __global__ void count_launches(unsigned int* out) { follow(); out[0] = 2 * out[0] + 1; }'
    return translation_unit(np.float32, ("scalar", "cluster"), kernel)


@dataclass(frozen=True)
class ElementwiseKernel:
    """A printed kernel and how to call it.

    Attributes
    ----------
    name : str
        Name of the kernel.
    text : str
        Its source, to go into a :func:`translation_unit` after ``scalar`` and ``memory``.
    flat : bool
        Whether it takes the number of elements; else it takes the numbers of rows and columns.
    arrays : tuple of str
        Program inputs that are passed as pointers, in order, after the outputs.
    numbers : tuple of str
        Names whose values are passed next, as ``T``: program inputs or names assigned by `host`.
    host : Program or None
        What to compute on the host, from the scalar inputs, before a launch.

    The arguments of a launch are: outputs, arrays, numbers, sizes (int64).
    """

    name: str
    text: str
    flat: bool
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    host: Program | None

    def source(self, dtype: Any) -> str:
        """Text of a translation unit that holds this kernel alone."""
        return translation_unit(dtype, ("scalar", "memory"), self.text)


@dataclass(frozen=True)
class Point:
    """A program as a C++ function of one element.

    Attributes
    ----------
    name, text : str
        Name of the function and its source. It takes values ``T`` for the arrays and the numbers, then a reference
        ``T&`` for every output.
    arrays : tuple of str
        Program inputs that differ from element to element, in order.
    numbers : tuple of str
        Names of values that are the same for all elements: program inputs or names assigned by `host`.
    host : Program or None
        What to compute on the host, in float64, from the inputs that are numbers.
    """

    name: str
    text: str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    host: Program | None


def print_point(program: Program, scalars: Iterable[str] = (), *, name: str | None = None) -> Point:
    """Print a program as a function of one element.

    Parameters
    ----------
    program : Program
        What to compute.
    scalars : iterable of str
        Those of its inputs that are the same for all elements.
    name : str, optional
        Name of the function; by default one made from the program's key.

    Returns
    -------
    Point
        The function.

    Examples
    --------
    >>> point = print_point(Program("theta = theta - eta*(1 - mu)*g"), ("eta", "mu"), name="step")
    >>> print(point.text)
    DEVICE void step(T v_theta, T v_g, T v_host0, T& r_0) {
        v_theta = v_theta - v_host0 * v_g;
        r_0 = v_theta;
    }
    <BLANKLINE>
    >>> str(point.host)
    'host0 = eta * (1 - mu)'
    """
    fixed = set(scalars) & set(program.inputs)
    lines, host = _split(program, fixed)
    read = {name for _, expr in lines for name in _variables(expr)}
    arrays = tuple(x for x in program.inputs if x not in fixed)
    numbers = tuple(x for x in program.inputs if x in fixed and x in read) + tuple(x for x, _ in host if x in read)
    name = name or f"point_{program.key}"
    return Point(
        name=name,
        text=_print_point(name, lines, arrays, numbers, program.outputs),
        arrays=arrays,
        numbers=numbers,
        host=Program(dict(host), name=f"{program.name}, scalars") if host else None,
    )


def print_elementwise(program: Program, kinds: Mapping[str, str]) -> ElementwiseKernel:
    """Print the kernel of a program.

    Parameters
    ----------
    program : Program
        What to compute for every element.
    kinds : mapping of str to str
        One of :data:`KINDS` for each of the program's inputs.

    Returns
    -------
    ElementwiseKernel
        The kernel; the same text for the same program and kinds.

    Examples
    --------
    >>> kernel = print_elementwise(Program("theta = theta - eta*(1 - mu)*g"), dict(
    ...     theta="full", g="full", eta="scalar", mu="scalar"))
    >>> kernel.arrays, kernel.numbers, str(kernel.host)
    (('theta', 'g'), ('host0',), 'host0 = eta * (1 - mu)')
    """
    kinds = {name: kinds[name] for name in program.inputs}
    digest = hashlib.sha256(f"{program.key} {sorted(kinds.items())}".encode()).hexdigest()[:16]
    word = re.sub(r"[^A-Za-z0-9]+", "_", program.name).strip("_").lower()
    name = f"formula_{word}_{digest}" if word else f"formula_{digest}"
    point = print_point(program, [x for x, kind in kinds.items() if kind == "scalar"], name=f"{name}_point")
    flat = all(kind not in ("row", "column") for kind in kinds.values())
    grid = _print_flat if flat else _print_rows
    text = point.text + grid(name, {array: kinds[array] for array in point.arrays}, point.numbers, program.outputs)
    return ElementwiseKernel(
        name=name,
        text=f"// {program.name}: {program}\n{text}",
        flat=flat,
        arrays=point.arrays,
        numbers=point.numbers,
        host=point.host,
    )


def _variables(expr: Expr) -> set[str]:
    if isinstance(expr, Var):
        return {expr.name}
    return set().union(*map(_variables, expr.args)) if isinstance(expr, Call) else set()


def _split(program: Program, scalars: set[str]) -> tuple[list[tuple[str, Expr]], list[tuple[str, Expr]]]:
    """Divide a program into lines for the device and lines for the host.

    Host names are never assigned twice, so the device may read any of them at any point.
    """
    taken = {*program.inputs, *(target for target, _ in program.assignments)}
    host: dict[str, Expr] = {}
    meaning: dict[str, Expr] = {name: Var(name) for name in scalars}  # scalar names as seen by the current line
    device: list[tuple[str, Expr]] = []

    def is_scalar(expr: Expr) -> bool:
        return isinstance(expr, Num) or (isinstance(expr, Var) and expr.name in meaning) or _all_scalar(expr)

    def _all_scalar(expr: Expr) -> bool:
        return isinstance(expr, Call) and all(map(is_scalar, expr.args))

    def on_host(expr: Expr) -> Expr:
        """Replace names by what they mean at this line, in terms of host names."""
        if isinstance(expr, Var):
            return meaning[expr.name]
        return Call(expr.op, tuple(map(on_host, expr.args))) if isinstance(expr, Call) else expr

    def hoisted(expr: Expr) -> Expr:
        expr = on_host(expr)
        if not isinstance(expr, Call):
            return expr
        known = next((name for name, other in host.items() if other == expr), None)
        if known is None:
            known = next(
                name for k in range(len(taken) + len(host) + 1) if (name := f"host{k}") not in taken | set(host)
            )
            host[known] = expr
        return Var(known)

    def on_device(expr: Expr) -> Expr:
        if is_scalar(expr) and not (isinstance(expr, Call) and OPERATIONS[expr.op].truth):
            return hoisted(expr)
        return Call(expr.op, tuple(map(on_device, expr.args))) if isinstance(expr, Call) else expr

    for target, expr in program.assignments:
        value = on_device(expr)
        if is_scalar(expr):
            meaning[target] = value
        else:
            meaning.pop(target, None)
        if target in program.outputs or not is_scalar(expr):
            device.append((target, value))
    return device, list(host.items())


def _print_point(
    name: str,
    lines: list[tuple[str, Expr]],
    arrays: tuple[str, ...],
    numbers: tuple[str, ...],
    outputs: tuple[str, ...],
) -> str:
    """Print the function of one element: values in, results out by reference."""
    parameters = [f"T v_{x}" for x in (*arrays, *numbers)] + [f"T& r_{k}" for k in range(len(outputs))]
    declared = {*arrays, *numbers}
    body = []
    for target, expr in lines:
        body.append(f"    {'' if target in declared else 'T '}v_{target} = {to_c(expr)};")
        declared.add(target)
    body += [f"    r_{k} = v_{output};" for k, output in enumerate(outputs)]
    return f"DEVICE void {name}({', '.join(parameters)}) {{\n" + "\n".join(body) + "\n}\n"


def _parameters(arrays: Mapping[str, str], numbers: tuple[str, ...], outputs: tuple[str, ...], sizes: str) -> str:
    shapes = {"one": "(1,)", "row": "(n,)", "column": "(m,)", "full": "(p,)" if sizes == "p" else "(m, n)"}
    return ",\n    ".join(
        [
            *(f"T* o_{k} /* {shapes['full']} */" for k in range(len(outputs))),
            *(f"const T* a_{array} /* {shapes[kind]} */" for array, kind in arrays.items()),
            *(f"T v_{number}" for number in numbers),
            *(f"long long {size}" for size in sizes),
        ]
    )


def _print_flat(name: str, arrays: Mapping[str, str], numbers: tuple[str, ...], outputs: tuple[str, ...]) -> str:
    """Print a kernel over p elements: a thread owns every grid_size()-th pack, or element at the ragged end."""
    full = [array for array, kind in arrays.items() if kind == "full"]
    ones = [array for array, kind in arrays.items() if kind == "one"]
    pointers = [f"o_{k}" for k in range(len(outputs))] + [f"a_{array}" for array in full]

    def point(element: str, result: str) -> str:
        values = [element.format(a) if a in full else f"v_{a}" for a in arrays] + [f"v_{x}" for x in numbers]
        return f"{name}_point({', '.join(values + [result.format(k) for k in range(len(outputs))])});"

    packed = [f"const Pack p_{a} = reinterpret_cast<const Pack*>(a_{a})[i];" for a in full]
    packed += [f"Pack q_{k};" for k in range(len(outputs))]
    stored = [f"reinterpret_cast<Pack*>(o_{k})[i] = q_{k};" for k in range(len(outputs))]
    results = [f"o_{k}[i] = r_{k};" for k in range(len(outputs))]
    lines = [
        f'extern "C" __global__ void {name}(\n    {_parameters(arrays, numbers, outputs, "p")}) {{',
        *(f"    const T v_{a} = a_{a}[0];" for a in ones),
        "    long long done = 0;",
        f"    if ({' && '.join(f'is_aligned({pointer})' for pointer in pointers)}) {{",
        "        for (long long i = grid_index(); i < p / LANES; i += grid_size()) {",
        *(f"            {line}" for line in packed),
        "#pragma unroll",
        f"            for (int k = 0; k < LANES; ++k) {point('p_{}.v[k]', 'q_{}.v[k]')}",
        *(f"            {line}" for line in stored),
        "        }",
        "        done = p / LANES * LANES;",
        "    }",
        "    for (long long i = done + grid_index(); i < p; i += grid_size()) {",
        f"        T {', '.join(f'r_{k}' for k in range(len(outputs)))};",
        f"        {point('a_{}[i]', 'r_{}')}",
        *(f"        {line}" for line in results),
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _print_rows(name: str, arrays: Mapping[str, str], numbers: tuple[str, ...], outputs: tuple[str, ...]) -> str:
    """Print a kernel over (m, n): a thread owns one column at a time and every (gridDim.y * blockDim.y)-th row."""
    element = {"one": "v_{}", "row": "v_{}", "column": "a_{}[row]", "full": "a_{}[i]"}
    values = [element[kind].format(a) for a, kind in arrays.items()] + [f"v_{x}" for x in numbers]
    results = [f"r_{k}" for k in range(len(outputs))]
    lines = [
        f'extern "C" __global__ void {name}(\n    {_parameters(arrays, numbers, outputs, "mn")}) {{',
        *(f"    const T v_{a} = a_{a}[0];" for a, kind in arrays.items() if kind == "one"),
        "    const long long rows = static_cast<long long>(gridDim.y) * blockDim.y;",
        "    for (long long column = grid_index(); column < n; column += grid_size()) {",
        *(f"        const T v_{a} = a_{a}[column];" for a, kind in arrays.items() if kind == "row"),
        "        long long row = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y;",
        "        for (; row < m; row += rows) {",
        "            const long long i = row * n + column;",
        f"            T {', '.join(results)};",
        f"            {name}_point({', '.join(values + results)});",
        *(f"            o_{k}[i] = r_{k};" for k in range(len(outputs))),
        "        }",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"
