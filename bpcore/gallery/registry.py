"""The examples by number and by name."""

from __future__ import annotations

from bpcore.errors import unknown
from bpcore.gallery import (
    r01_linear_graph,
    r02_nonlinear_chain,
    r03_one_variable,
    r04_two_variables,
    r05_learning_rates,
    r06_linear_regression,
    r07_saturated_neuron,
    r08_three_classes_by_hand,
    r09_softmax_with_loss,
    r10_two_hidden_layers,
    r11_initialisation,
    r12_vanishing_gradient,
    r13_dropout,
    r14_loss_shapes,
    r15_entropy,
    r16_activation_curves,
)
from bpcore.gallery.example import Example

__all__ = ["EXAMPLES", "get_example"]

EXAMPLES: dict[str, Example] = {
    module.EXAMPLE.key: module.EXAMPLE
    for module in (
        r01_linear_graph,
        r02_nonlinear_chain,
        r03_one_variable,
        r04_two_variables,
        r05_learning_rates,
        r06_linear_regression,
        r07_saturated_neuron,
        r08_three_classes_by_hand,
        r09_softmax_with_loss,
        r10_two_hidden_layers,
        r11_initialisation,
        r12_vanishing_gradient,
        r13_dropout,
        r14_loss_shapes,
        r15_entropy,
        r16_activation_curves,
    )
}
"""The examples by short name, R1 to R16."""


def get_example(name: str) -> Example:
    """Look an example up.

    Parameters
    ----------
    name : str
        Short name (``"R7"``, in any case) or readable name (``"saturated-neuron"``).

    Returns
    -------
    Example
        The example.

    Raises
    ------
    UnknownNameError
        If there is none of that name.

    Examples
    --------
    >>> get_example("r7").name, get_example("dropout").key
    ('saturated-neuron', 'R13')
    """
    by_name = {example.name: example for example in EXAMPLES.values()}
    found = EXAMPLES.get(name.upper()) or by_name.get(name.lower())
    if found is None:
        raise unknown("example", name, [*EXAMPLES, *by_name])
    return found
