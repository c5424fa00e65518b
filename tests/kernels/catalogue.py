"""Every formula that bpcore declares, as programs with the kinds of their arguments: what a GPU gets to compute."""

from __future__ import annotations

from typing import Any

from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.losses import LOSSES
from bpcore.functions.program import Program
from bpcore.functions.update_rules import UPDATE_RULES
from bpcore.kernels.cuda.source import ElementwiseKernel, print_elementwise


def programs() -> dict[str, tuple[Program, dict[str, str]]]:
    """Return name -> (program, kinds) for activations, their derivatives, losses, their derivatives, update rules."""
    found: dict[str, tuple[Program, dict[str, str]]] = {}

    def add(name: str, code: Any, **kinds: str) -> None:
        program = code if isinstance(code, Program) else Program(code, name=name)
        found[name] = (program, {x: kinds.get(x, "full") for x in program.inputs})

    for activation in ACTIVATIONS.values():
        if activation.rowwise:
            continue
        add(f"forward {activation.name}", {"z": "z + b", "h": activation.value_formula}, b="row")
        if activation.differentiable:
            derivative = activation.derivative_formula
            add(f"derivative {activation.name}", {"delta": f"delta * ({derivative.text})"})
    for loss in LOSSES.values():
        add(f"loss {loss.name}", {"terms": f"scale * ({loss.value_formula.text})"}, scale="column")
        add(f"gradient {loss.name}", {"g": f"scale * ({loss.derivative_formula.text})"}, scale="column")
        for output, pair in loss.pairs.items():
            add(f"loss {loss.name} {output}", {"terms": f"scale * ({pair.value})"}, scale="column")
            add(f"gradient {loss.name} {output}", {"delta": f"scale * ({pair.delta})"}, scale="column")
    for name, constructor in UPDATE_RULES.items():
        rule = constructor()
        arrays = {"theta", "g", *rule.state}
        program = rule.program
        add(f"update {name}", program, **{x: "scalar" for x in program.inputs if x not in arrays})
    return found


def kernels() -> list[ElementwiseKernel]:
    """Return the printed kernels of :func:`programs`, one for each different text."""
    printed = [print_elementwise(program, kinds) for program, kinds in programs().values()]
    return list({kernel.name: kernel for kernel in printed}.values())
