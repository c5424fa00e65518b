"""Everything between a file or an array and the matrices that training takes.

:mod:`~bpcore.data.arrays` checks arrays at the public edge, :mod:`~bpcore.data.targets` turns labels into
target matrices, :mod:`~bpcore.data.weights` checks sample and class weights,
:mod:`~bpcore.data.preprocessing` holds the fixed transformations that are saved with a model,
:mod:`~bpcore.data.datasets` and :mod:`~bpcore.data.files` read data, :mod:`~bpcore.data.split` sets a part of
it aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpcore.data.arrays import check_matrix
from bpcore.data.datasets import DATASETS, Dataset, load_dataset
from bpcore.data.files import load_file
from bpcore.data.fitting import fit_preprocessing
from bpcore.data.idx_files import load_idx
from bpcore.data.missing import Imputer
from bpcore.data.moments import Moments
from bpcore.data.npy_files import load_npy
from bpcore.data.one_hot import OneHot, Pipeline
from bpcore.data.preprocessing import ClassList, Scaler, Standardizer, preprocessing_from_dict
from bpcore.data.safetensors_files import load_safetensors
from bpcore.data.split import group_split_indices, ordered_split_indices, train_test_split_indices
from bpcore.data.store import Store
from bpcore.data.targets import EncodedTargets, encode_targets
from bpcore.data.weights import check_sample_weight, class_weight_to_row_weights

if TYPE_CHECKING:
    from bpcore.data.chunks import from_chunks
    from bpcore.data.store_files import StoredFile, store_file

__all__ = [
    "DATASETS",
    "ClassList",
    "Dataset",
    "EncodedTargets",
    "Imputer",
    "Moments",
    "OneHot",
    "Pipeline",
    "Scaler",
    "Standardizer",
    "Store",
    "StoredFile",
    "check_matrix",
    "check_sample_weight",
    "class_weight_to_row_weights",
    "encode_targets",
    "fit_preprocessing",
    "from_chunks",
    "group_split_indices",
    "load_dataset",
    "load_file",
    "load_idx",
    "load_npy",
    "load_safetensors",
    "ordered_split_indices",
    "preprocessing_from_dict",
    "store_file",
    "train_test_split_indices",
]


def __getattr__(name: str) -> Any:
    """Import what writes stores when it is first asked for: training from memory has no need of it."""
    if name == "from_chunks":
        from bpcore.data.chunks import from_chunks

        return from_chunks
    if name in ("StoredFile", "store_file"):
        from bpcore.data import store_files

        return getattr(store_files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
