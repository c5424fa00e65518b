"""What a prepared contestant can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bpcore.bench.witness import SHOWN_ROWS

__all__ = ["PredictRunner", "Runner"]


class Runner:
    """A contestant that holds one workload. Adapters derive from it.

    Attributes
    ----------
    facts : dict
        What the adapter chose, for the record.
    """

    facts: dict[str, Any]

    def __init__(self) -> None:
        self.facts = {}

    def reset(self) -> None:
        """Begin again: the first weights, a fresh update rule. Not timed."""
        raise NotImplementedError

    def stage(self, order: Any) -> Any:
        """Bring sample numbers to where the data is. Not timed."""
        return order

    def run(self, order: Any) -> Any:
        """Take one step for each row of sample numbers; return when all is computed. This is what is timed."""
        raise NotImplementedError

    def evidence(self, result: Any) -> Any:
        """Turn what `run` returned into numbers: a loss for each step, or one mean for each chunk. Not timed."""
        return np.asarray(result, np.float64)


class PredictRunner(Runner):
    """Calls a function of one input, over and over; inputs lie ready as the library likes them.

    Parameters
    ----------
    call : callable
        Maps an input to an output and waits for it.
    inputs : list
        The inputs of a chunk.
    to_numpy : callable
        Turns the last output into a NumPy array.
    """

    def __init__(self, call: Callable[[Any], Any], inputs: list[Any], to_numpy: Callable[[Any], Any]) -> None:
        super().__init__()
        self.call, self.inputs, self.to_numpy = call, inputs, to_numpy

    def reset(self) -> None:
        """Prediction changes nothing."""

    def run(self, order: Any) -> Any:
        call, inputs, output = self.call, self.inputs, None
        for _ in range(len(order) // len(inputs)):
            for x in inputs:
                output = call(x)
        return output

    def evidence(self, result: Any) -> Any:
        return np.asarray(self.to_numpy(result), np.float64)[:SHOWN_ROWS]
