"""What a loop was compiled to: vector instructions, scalar ones, calls.

For the processor at hand Numba shows its code. For others, the same loop is compiled from Numba's intermediate
language with the optimiser that Numba uses; nothing of it is run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

TARGETS = {
    "x86-64 with AVX2": ("x86_64-unknown-linux-gnu", "haswell"),
    "x86-64 with AVX-512": ("x86_64-unknown-linux-gnu", "skylake-avx512"),
    "aarch64": ("aarch64-unknown-linux-gnu", "neoverse-n1"),
}
"""Platform and processor, as LLVM calls them."""

_OPERATION = r"(?:add|sub|mul|div|fn?m(?:add|sub)\d*)"
PACKED = {
    "x86": re.compile(rf"v?{_OPERATION}p[sd]"),
    "aarch64": re.compile(r"f(?:n?m)?(?:add|sub|mul|div|mla|mls)(?:\.(?:4s|2s|2d)|\tv\d+\.(?:4s|2s|2d)|\tz\d+\.[sd])"),
}
SCALAR = {
    "x86": re.compile(rf"v?{_OPERATION}s[sd]"),
    "aarch64": re.compile(r"fn?m?(?:add|sub|mul|div)\t[sd]\d+"),
}
CALL = {
    "x86": re.compile(r"callq?\b.*|jmpq?\t(?!\.?L).*"),
    "aarch64": re.compile(r"blr?\t.*|br\t.*|b\t(?!\.?L).*"),
}


@dataclass
class Code:
    """Instructions of one function by kind.

    Attributes
    ----------
    packed : int
        Number of arithmetic instructions on vectors.
    mixed : int
        Number of blocks (stretches without a label or a jump target) that hold such instructions and some on single
        numbers as well. What is left over at the end of a loop has blocks of its own.
    calls : list of str
        Whatever leaves the function but its return.
    """

    packed: int
    mixed: int
    calls: list[str]


def examine(assembly: str, name: str, family: str) -> Code:
    """Sort the instructions of the function `name`; `family` is x86 or aarch64."""
    (text,) = re.findall(
        rf"^_?{re.escape(name)}:$(.*?)^(?:\.?Lfunc_end|\s+\.(?:cfi|seh)_endproc)", assembly, re.MULTILINE | re.DOTALL
    )
    code = Code(0, 0, [])
    for block in re.split(r"^\.?L\w+:.*$", text, flags=re.MULTILINE):
        lines = [line.partition("#" if family == "x86" else "//")[0].strip() for line in block.splitlines()]
        packed = sum(bool(PACKED[family].match(line)) for line in lines)
        scalar = sum(bool(SCALAR[family].match(line)) for line in lines)
        code.packed += packed
        code.mixed += packed > 0 and scalar > 0
        code.calls += [line for line in lines if CALL[family].fullmatch(line)]
    return code


def family_of(triple: str) -> str | None:
    """Return the family of instructions for a platform, if this module can read it."""
    machine = triple.partition("-")[0]
    if machine in ("x86_64", "amd64", "i686"):
        return "x86"
    return "aarch64" if machine in ("aarch64", "arm64") else None


def native_code(kernel: Any) -> tuple[str, str]:
    """Return the assembly of a freshly compiled Numba function, and its name in there."""
    (signature,) = kernel.overloads
    return kernel.inspect_asm(signature), kernel.overloads[signature].fndesc.mangled_name


def build(ir: str, triple: str, cpu: str) -> str:
    """Optimise LLVM's intermediate language for a processor and return the assembly."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    ir = re.sub(r'^target triple = ".*"$', f'target triple = "{triple}"', ir, flags=re.MULTILINE)
    ir = re.sub(r'^target datalayout = ".*"$', f'target datalayout = "{machine.target_data}"', ir, flags=re.MULTILINE)
    module = llvm.parse_assembly(ir)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getModulePassManager()
    # Numba's own pass, which takes away pairs of reference counts
    passes.add_refprune_pass()
    passes.run(module, builder)
    return machine.emit_assembly(module)  # type: ignore[no-any-return]


_SCRIPT = """
import json, sys
from tests.kernels.accuracy import compiled
found = []
for name in json.loads(sys.argv[1]):
    for dtype in ("float32", "float64"):
        kernel = compiled(name, dtype)
        ((signature, ir),) = kernel.inspect_llvm().items()
        found.append((name, dtype, kernel.overloads[signature].fndesc.mangled_name, ir))
print(json.dumps(found))
"""


def intermediate(names: list[str], cache: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return ``{(function, dtype): (name, text)}`` in LLVM's language before it is optimised.

    Numba decides when it is imported how much to optimise, hence another process.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(names)],
        env={**os.environ, "NUMBA_OPT": "0", "BPCORE_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {(name, dtype): (mangled, ir) for name, dtype, mangled, ir in json.loads(done.stdout)}
