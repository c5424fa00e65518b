"""What an ONNX file takes, and how it becomes what the network takes: the stored preprocessing as nodes.

A table of numbers is the one input ``X``; columns of text are a second one, ``categories``. A graph turns both into the
matrix that the preprocessing was fitted to, with a code for each category and NaN for what is missing. From there the
steps are those of :mod:`bpcore.data`, one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from bpcore.data.csv_files import MISSING
from bpcore.data.missing import Imputer
from bpcore.data.one_hot import OneHot
from bpcore.data.preprocessing import Preprocessing, Scaler, Standardizer
from bpcore.exchange.onnx_nodes import Graph
from bpcore.persistence.knowledge import Knowledge

__all__ = ["CATEGORIES", "ML_DOMAIN", "NUMBERS", "input_columns", "prepared"]

NUMBERS, CATEGORIES = "X", "categories"
"""Names of the inputs."""
ML_DOMAIN = "ai.onnx.ml"
"""Operators of ONNX for classical models; text becomes a code by one of them, and by none of the others."""
UNKNOWN = -1.0
"""Code of a text that is no category."""


def input_columns(knowledge: Knowledge) -> dict[str, list[int]]:
    """Return the inputs of a graph by name, and which columns of the table each of them holds, in order."""
    text = knowledge.columns_of_text
    numbers = [j for j in range(knowledge.n_columns) if j not in text]
    return {name: columns for name, columns in ((NUMBERS, numbers), (CATEGORIES, list(text))) if columns}


def prepared(graph: Graph, knowledge: Knowledge) -> str:
    """Add everything from the inputs to what the network takes, and return its name; shape (batch, n_1)."""
    X = _table(graph, input_columns(knowledge), knowledge.columns_of_text, knowledge.imputes)
    kinds: Counter[type] = Counter()
    for step in knowledge.steps:
        X = _step(graph, step, X, f"_{kinds[type(step)]}" if kinds[type(step)] else "")
        kinds[type(step)] += 1
    return X


def _table(graph: Graph, inputs: Mapping[str, Sequence[int]], texts: Mapping[int, list[str]], imputes: bool) -> str:
    """Add the matrix of numbers and codes, with the columns in the order of the table."""
    if CATEGORIES not in inputs:
        return NUMBERS
    parts = [NUMBERS] if NUMBERS in inputs else []
    for place, j in enumerate(inputs[CATEGORIES]):
        column = graph.array(f"place_{j}", np.array([place], np.int64))
        text = graph.node("Gather", CATEGORIES, column, axis=1)
        codes = {category: float(code) for code, category in enumerate(texts[j])}
        if imputes:
            codes = {**dict.fromkeys(_missing_texts(), np.nan), **codes}
        code = graph.node(
            "LabelEncoder",
            text,
            domain=ML_DOMAIN,
            keys_strings=[key.encode() for key in codes],
            values_floats=list(codes.values()),
            default_float=UNKNOWN,
        )
        parts.append(graph.cast(code, graph.dtype) if graph.dtype != np.float32 else code)
    together = graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    found = [j for columns in inputs.values() for j in columns]
    if found == sorted(found):
        return together
    return graph.node("Gather", together, graph.array("order", np.argsort(found).astype(np.int64)), axis=1)


def _missing_texts() -> list[str]:
    """Spell a missing value in all ways that occur; whichever is a category itself is not missing."""
    spelled = {kind(word) for word in MISSING for kind in (str.lower, str.upper, str.capitalize)}
    return sorted(spelled | {"NaN"})


def _step(graph: Graph, step: Preprocessing, X: str, suffix: str) -> str:
    """Add one step, as its ``apply`` computes it."""
    if isinstance(step, Imputer):
        values = graph.array(f"fill{suffix}", np.array(step.values, graph.dtype))
        return graph.node("Where", graph.node("IsNaN", X), values, X)
    if isinstance(step, Scaler):
        return graph.node("Div", X, graph.number(step.divisor))
    if isinstance(step, OneHot):
        return _one_hot(graph, step.counts, X, suffix)
    assert isinstance(step, Standardizer)
    # float64 until the end, as Standardizer.apply: in float32 a large mean would swallow the differences
    wide = graph.cast(X, np.float64) if graph.dtype != np.float64 else X
    shifted = graph.node("Sub", wide, graph.array(f"mean{suffix}", np.array(step.mean)))
    scaled = graph.node("Div", shifted, graph.array(f"scale{suffix}", np.array(step.scale)))
    return graph.cast(scaled, graph.dtype) if graph.dtype != np.float64 else scaled


def _one_hot(graph: Graph, counts: Sequence[int], X: str, suffix: str) -> str:
    """Add columns of 0 and 1 in the place of codes; the columns between them stay together."""
    parts, j = [], 0
    while j < len(counts):
        end = j
        while end < len(counts) and not counts[end]:
            end += 1
        if end > j:
            plain = graph.array(f"columns_{j}{suffix}", np.arange(j, end))
            parts.append(graph.node("Gather", X, plain, axis=1))
            j = end
        else:
            parts.append(_indicators(graph, counts[j], X, j, suffix))
            j += 1
    return graph.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


def _indicators(graph: Graph, count: int, X: str, j: int, suffix: str) -> str:
    """Add K columns for one column of codes 0 ... K-1; a runtime stops with an error at anything else."""
    code = graph.node("Gather", X, graph.array(f"column_{j}{suffix}", np.array(j)), axis=1)
    limit = graph.number(float(count))
    good = graph.node("Equal", code, graph.node("Floor", code))
    good = graph.node("And", good, graph.node("GreaterOrEqual", code, graph.number(0.0)))
    good = graph.node("And", good, graph.node("Less", code, limit))
    # OneHot makes zeros of what is out of range, in silence; Gather refuses it, and says the name of its node
    index = graph.cast(graph.node("Where", good, code, limit), np.int64)
    known = graph.node(
        "Gather",
        graph.array(f"codes_{j}{suffix}", np.arange(count)),
        index,
        output=f"code_of_a_category_in_column_{j}{suffix}",
    )
    depth = graph.array(f"count_{j}{suffix}", np.array(count))
    found = graph.node("OneHot", known, depth, graph.array("off_and_on", np.array([0, 1], np.float32)), axis=1)
    return graph.cast(found, graph.dtype) if graph.dtype != np.float32 else found
