"""Calls of compiled functions that are chosen at run time.

Numba compiles a function together with everything that it calls. The loop over the training steps would then be
compiled anew for every activation and every optimiser. Instead it gets the addresses of functions that were compiled
by themselves, in one array of integers, and calls them as C would through a pointer.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from bpcore.kernels.numba.cache import Kernel

__all__ = ["addresses", "caller"]


def addresses(functions: Sequence[Callable[..., Any] | int]) -> Any:
    """Return where compiled functions begin.

    Parameters
    ----------
    functions : sequence of callable or int
        Addresses, or results of a :class:`~bpcore.kernels.numba.cache.Kernel`, each compiled for one signature. They
        must stay alive as long as the addresses are used.

    Returns
    -------
    array of int64, or tuple of callable
        For a :func:`caller`; with ``NUMBA_DISABLE_JIT=1`` there are no addresses, and the functions are handed on.
    """
    if numba.config.DISABLE_JIT:
        return tuple(functions)
    found = []
    for function in functions:
        if isinstance(function, int):
            found.append(function)
            continue
        (compiled,) = function.overloads.values()  # type: ignore[attr-defined]
        found.append(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
    return np.array(found, np.int64)


def caller(*arguments: str) -> Callable[..., None]:
    """Make a function for compiled code that calls functions with the given arguments.

    Parameters
    ----------
    *arguments : str
        As for :class:`~bpcore.kernels.numba.cache.Kernel`.

    Returns
    -------
    callable
        ``call(functions, k, *values)`` calls ``functions[k](*values)``, functions being a result of
        :func:`addresses`.
    """
    if numba.config.DISABLE_JIT:
        return lambda functions, k, *values: functions[k](*values)

    @intrinsic
    def call(typingctx, functions, k, *values):
        _check(arguments, values)

        def codegen(context, builder, signature, args):
            _, at, packed = args
            table = context.make_array(signature.args[0])(context, builder, args[0])
            address = builder.load(builder.gep(table.data, [at]))
            convention = context.call_conv
            pointer = builder.inttoptr(address, ir.PointerType(convention.get_function_type(types.none, values)))
            # the functions raise nothing, so the status is not looked at
            convention.call_function(builder, pointer, types.none, values, cgutils.unpack_tuple(builder, packed))
            return context.get_dummy_value()

        return types.none(functions, types.int64, types.StarArgTuple.from_types(values)), codegen

    return call  # type: ignore[no-any-return]


def _check(arguments: Sequence[str], kinds: Sequence[Any]) -> None:
    """Refuse values that are not what the function expects; nothing else would notice."""
    real = next(kind.dtype for text, kind in zip(arguments, kinds, strict=True) if text.startswith(("T", "float64 ")))
    for text, kind in zip(arguments, kinds, strict=True):
        expected = Kernel._type(text, np.dtype(str(real)), "C")
        if isinstance(expected, types.Array):
            fits = isinstance(kind, types.Array) and (kind.dtype, kind.ndim) == (expected.dtype, expected.ndim)
        else:
            fits = kind == expected
        if not fits:
            raise TypingError(f"a function that takes {', '.join(arguments)} was called with {kind} for {text}")
