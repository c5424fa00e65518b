"""Networks as ONNX files, with their preprocessing and their classes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bpcore._version import __version__
from bpcore.data.preprocessing import Scaler, Standardizer
from bpcore.errors import ConfigurationError, missing_extra
from bpcore.exchange.card import model_card
from bpcore.exchange.onnx_inputs import CATEGORIES, ML_DOMAIN, NUMBERS, input_columns, prepared
from bpcore.exchange.onnx_nodes import ELEMENT_TYPES, Graph
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.persistence.knowledge import Knowledge
from bpcore.settings import check_dtype

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["IR_VERSION", "ML_OPSET", "OPSET", "export_onnx", "onnx_model"]

OPSET = 13
"""Of ONNX 1.8 (2020), and everything since: the first in which Softmax works on rows and Where, Min, Max and all
comparisons take both float32 and float64."""
IR_VERSION = 7
"""The one that came with this opset."""
ML_OPSET = 2
"""Of the operators for text, which only files with columns of text import; the one that came with this opset."""
LARGEST = 2**31 - 2**20
"""Bytes of parameters: a file that is one protocol buffer ends at 2 GiB."""


def export_onnx(net: MLP, path: str | os.PathLike[str], *, dtype: Any = None, bare: bool = False) -> None:
    """Write a network as an ONNX file, which any ONNX runtime can run without bpcore.

    Parameters
    ----------
    net : MLP
        The network. Not modified.
    path : str or PathLike
        The file, usually ``*.onnx``; replaced in one step.
    dtype : dtype, optional
        float32 or float64: of the parameters, of the input and of what is computed. Default: the network's.
    bare : bool, default False
        True writes the network alone, without preprocessing, labels and probabilities.

    Raises
    ------
    MissingExtraError
        If the package `onnx` is not installed.
    ConfigurationError
        If the notes in ``net.meta`` contradict the network, or the parameters do not fit into one file (2 GiB).
    ModelFileError
        If the file cannot be written.

    Notes
    -----
    Inputs are the table as it was before the stored preprocessing:

    ===================  ==========================================================================================
    name                 what it is
    ===================  ==========================================================================================
    ``X``                (batch, n), the columns of numbers, in their order. NaN is a missing value, where the
                         preprocessing fills such; a code where categories are numbered and have no names
    ``categories``       (batch, k), the columns of text, in their order. Only where there are some. An empty text, NA,
                         nan, null, none, ? and - are missing, where the preprocessing fills such and unless they are
                         categories themselves
    ===================  ==========================================================================================

    What is no category stops the runtime with an error of the node ``code_of_a_category_in_column_J`` (J is the number
    of the column, from 0); nothing else about the inputs is checked, and NaN that is not filled gives NaN. Outputs:

    ===================  ==========================================================================================
    name                 what it is
    ===================  ==========================================================================================
    ``output``           (batch, n_L), as ``net.predict``; for numbers in the units of the target
    ``label``            (batch,), the class: text or int64. Only where the notes state a classification
    ``probabilities``    (batch, K). Only with ``label``, for the outputs softmax, log_softmax and sigmoid
    ===================  ==========================================================================================

    Opset 13, IR version 7; with ``categories`` also opset 2 of the domain ``ai.onnx.ml``. The metadata has the key
    ``card``, the model card as JSON, with the names of classes and features (see :func:`bpcore.model_card`), and the
    documentation of each input lists the names of its columns.

    Examples
    --------
    >>> from bpcore.network import MLP
    >>> net = MLP([4, 8, 3], activation="gelu", seed=0)
    >>> export_onnx(net, "flowers.onnx")  # doctest: +SKIP
    """
    check_writable(path)
    write_atomically(path, onnx_model(net, dtype=dtype, bare=bare).SerializeToString())


def onnx_model(net: MLP, *, dtype: Any = None, bare: bool = False) -> Any:
    """Build what :func:`export_onnx` writes, as an ``onnx.ModelProto``."""
    onnx = import_onnx()
    helper = onnx.helper
    graph, knowledge = Graph(net.dtype if dtype is None else check_dtype(dtype)), Knowledge(net)
    outputs = _network(graph, net, knowledge, bare)
    domains = {"": OPSET} | ({ML_DOMAIN: ML_OPSET} if any("domain" in node.attributes for node in graph.nodes) else {})
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(node.operator, node.inputs, [node.output], name=node.output, **node.attributes)
                for node in graph.nodes
            ],
            "bpcore",
            [
                helper.make_tensor_value_info(name, kind, ["batch", *shape], doc)
                for name, kind, shape, doc in _inputs(graph, knowledge, bare)
            ],
            [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, kind, shape in outputs],
            [_tensor(onnx, name, array) for name, array in graph.constants().items()],
            doc_string=f"{list(net.sizes)} {[activation.name for activation in net.activations]!a}",
        ),
        producer_name="bpcore",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
        ir_version=IR_VERSION,
    )
    # JSON in ASCII, which every reader of protocol buffers takes
    helper.set_model_props(model, {"card": json.dumps(model_card(net))})
    return model


def import_onnx() -> Any:
    """Return the package `onnx`.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", "writing ONNX files") from error
    return onnx


Output: TypeAlias = tuple[str, int, list[int]]
"""Name, type of the elements, and shape but for the batch."""


def _inputs(graph: Graph, knowledge: Knowledge, bare: bool) -> list[tuple[str, int, list[int], str]]:
    """Return name, type of the elements, shape but for the batch, and the names of the columns, of each input."""
    kind = ELEMENT_TYPES[graph.dtype.name]
    if bare:
        return [(NUMBERS, kind, [knowledge.net.sizes[0]], "")]
    names = knowledge.feature_names
    return [
        (
            name,
            ELEMENT_TYPES["str"] if name == CATEGORIES else kind,
            [len(columns)],
            "" if names is None else json.dumps([names[j] for j in columns]),
        )
        for name, columns in input_columns(knowledge).items()
    ]


def _network(graph: Graph, net: MLP, knowledge: Knowledge, bare: bool) -> list[Output]:
    """Add everything from the inputs to the labels, and return what comes out."""
    if net.n_parameters * graph.dtype.itemsize > LARGEST:
        raise ConfigurationError(
            f"the {net.n_parameters:,} parameters need {net.n_parameters * graph.dtype.itemsize / 2**30:.1f} GiB as "
            f"{graph.dtype}, but an ONNX file holds 2 GiB; use dtype='float32', or a safetensors file (export_torch)"
        )
    H = NUMBERS if bare else prepared(graph, knowledge)
    labelled = knowledge.stated and knowledge.task == "classification" and not bare
    undo = None if bare or labelled else knowledge.target_preprocessing
    for l, (W, b) in enumerate(net.get_weights(), start=1):
        names = [graph.array(f"{name}{l}", _cast(P, graph.dtype, f"{name}[{l}]")) for name, P in (("W", W), ("b", b))]
        Z = graph.node("Gemm", H, *names, output=f"Z{l + 1}")
        last = l + 1 == net.n_layers and undo is None
        H = graph.activation(net.activations[l + 1], Z, output="output" if last else f"H{l + 1}")
    if undo is not None:
        _undo(graph, undo, H)
    found: list[Output] = [("output", ELEMENT_TYPES[graph.dtype.name], [net.sizes[-1]])]
    return found + (_labels(graph, knowledge) if labelled else [])


def _tensor(onnx: Any, name: str, array: Any) -> Any:
    if array.dtype.kind != "O":
        return onnx.numpy_helper.from_array(array, name)
    try:
        return onnx.helper.make_tensor(name, ELEMENT_TYPES["str"], array.shape, [text.encode() for text in array])
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"a class cannot be written to an ONNX file: {error}; rename it") from error


def _cast(P: Any, dtype: np.dtype[Any], name: str) -> Any:
    with np.errstate(over="ignore"):
        cast = P.astype(dtype)
    if not np.isfinite(cast).all():
        raise ConfigurationError(f"{name} holds numbers that are not finite in {dtype}; use dtype='float64'")
    return cast


def _undo(graph: Graph, fitted: Scaler | Standardizer, H: str) -> None:
    wide = graph.cast(H, np.float64) if graph.dtype != np.float64 else H
    if isinstance(fitted, Scaler):
        value = graph.node("Mul", wide, graph.array("target_divisor", np.float64(fitted.divisor)))
    else:
        scaled = graph.node("Mul", wide, graph.array("target_scale", np.array(fitted.scale)))
        value = graph.node("Add", scaled, graph.array("target_mean", np.array(fitted.mean)))
    graph.cast(value, graph.dtype, output="output")


def _labels(graph: Graph, knowledge: Knowledge) -> list[Output]:
    """Add the class of each row, and the probabilities where there are some."""
    net = knowledge.net
    if net.sizes[-1] > 1:
        index = graph.node("ArgMax", "output", axis=1, keepdims=0)
    else:
        above = graph.node("Greater", "output", graph.number(net.threshold))
        index = graph.cast(graph.node("Squeeze", above, graph.array("axis", np.array([1], np.int64))), np.int64)
    names = knowledge.class_names
    kind = "str" if isinstance(names[0], str) else "int64"
    try:
        classes = np.array(names, object if kind == "str" else np.int64)
    except OverflowError as error:
        raise ConfigurationError(f"a class cannot be written to an ONNX file: {error}; rename it") from error
    graph.node("Gather", graph.array("classes", classes), index, output="label")
    found: list[Output] = [("label", ELEMENT_TYPES[kind], [])]
    if knowledge.has_probabilities:
        if net.output.name == "log_softmax":
            graph.node("Exp", "output", output="probabilities")
        elif net.sizes[-1] == 1:
            rest = graph.node("Sub", graph.number(1.0), "output")
            graph.node("Concat", rest, "output", output="probabilities", axis=1)
        else:
            graph.node("Identity", "output", output="probabilities")
        found.append(("probabilities", ELEMENT_TYPES[graph.dtype.name], [knowledge.n_classes]))
    return found
