"""The model card: what is known about a network, as one JSON value for people and programs.

A card holds nothing of its own. The structure is read from the network, everything else from ``net.meta``, where
training and :func:`bpcore.from_sklearn` note it and where it travels inside the model file.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpcore.errors import ConfigurationError
from bpcore.persistence.activation_json import activation_to_json
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.model_file import load_model, read_description

if TYPE_CHECKING:
    from bpcore.network import MLP
    from bpcore.training.run import Run

__all__ = ["CARD", "card_text", "model_card", "plain", "run_facts"]

CARD = 1
"""Version of the layout of a card."""


def model_card(model: MLP | str | os.PathLike[str], run: Run | None = None) -> dict[str, Any]:
    """Describe a network: structure, data, preprocessing, measurements, how it was trained, versions.

    Parameters
    ----------
    model : MLP, str or PathLike
        A network, or a model file.
    run : Run, optional
        The training that it comes from. By default what ``bpcore train`` has noted in the file.

    Returns
    -------
    dict
        Plain JSON, with the keys ``card`` (version of this layout), ``model`` (sizes, activations, loss, threshold,
        dtype, number of parameters), ``task``, ``classes``, ``data`` (features, categories, target, source, numbers of
        samples), ``preprocessing``, ``target_preprocessing``, ``held_out`` (metrics of data that training has not
        seen), ``run`` (the record of the training), ``created``, and ``file`` (format, version of bpcore, checksum), if
        a file was given. What is not known is None.

    Raises
    ------
    ModelFileError
        If the file cannot be read or is no model.
    ConfigurationError
        If the notes in ``net.meta`` contradict the network or are not JSON.

    Examples
    --------
    >>> from bpcore.network import MLP
    >>> card = model_card(MLP([4, 8, 3], seed=0, backend="numpy"))
    >>> card["model"]["sizes"], card["model"]["activations"], card["held_out"]
    ([4, 8, 3], ['relu', 'softmax'], None)
    """
    file = None
    if isinstance(model, str | os.PathLike):
        description = read_description(model)
        file = {key: description[key] for key in ("format", "bpcore", "sha256")}
        file["name"] = Path(model).name
        net = load_model(model, backend="numpy")
    else:
        net = model
    knowledge, meta = Knowledge(net), net.meta
    card = {
        "card": CARD,
        "model": {
            "sizes": list(net.sizes),
            "activations": [activation_to_json(activation) for activation in net.activations],
            "n_parameters": net.n_parameters,
            "dtype": str(net.dtype),
            "loss": knowledge.loss,
            "threshold": net.threshold if net.sizes[-1] == 1 and knowledge.task == "classification" else None,
        },
        "task": knowledge.task if knowledge.stated else None,
        "classes": None if knowledge.classes is None else list(knowledge.classes.names),
        "data": {
            "source": meta.get("data"),
            "samples": meta.get("samples"),
            "n_features": net.sizes[0],
            "feature_names": meta.get("feature_names"),
            "categories": knowledge.categories,
            "target": knowledge.target,
        },
        "preprocessing": meta.get("preprocessing"),
        "target_preprocessing": meta.get("target_preprocessing"),
        "held_out": meta.get("held_out"),
        "run": meta.get("run") if run is None else run_facts(run),
        "created": meta.get("created"),
        **({} if file is None else {"file": file}),
    }
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"net.meta is not plain JSON: {error}") from error
    return card


def card_text(card: dict[str, Any]) -> str:
    """Return a card as the text of a file."""
    return json.dumps(card, indent=2, allow_nan=False) + "\n"


def run_facts(run: Run) -> dict[str, Any]:
    """Return what a model keeps of the training that it comes from: the record, and how it ended; plain JSON."""
    facts = {
        **run.record,
        "epochs": len(run.history),
        "steps": run.steps,
        "seconds": run.seconds,
        "stopped_because": run.stopped_because,
        "best_epoch": run.best_epoch,
        "kept": run.kept,
    }
    return plain(facts)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """Turn a value into plain JSON: tuples into lists, keys into text, numbers that are not finite into None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value)
