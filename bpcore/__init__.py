"""A training core for multilayer perceptrons: the four equations, on NumPy, Numba and CuPy.

>>> import numpy as np, bpcore as bp
>>> net = bp.MLP([2, 8, 1], activation="tanh", output="sigmoid", seed=0)
>>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
>>> run = bp.train(net, X, y, optimizer=bp.Adam(0.05), batch_size=4, epochs=300, seed=0)
>>> net.predict_classes(X)
array([0, 1, 1, 0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpcore import data, errors, random
from bpcore._version import __version__
from bpcore.backends import backends, get_backend, selection, set_backend, use_backend
from bpcore.backends.contract import Backend
from bpcore.backprop import bp1_output_delta, bp2_hidden_delta, bp3_bias_grad, bp4_weight_grad
from bpcore.calls import backward, forward, sample_losses
from bpcore.descent import Descent, descend
from bpcore.evaluation import evaluate
from bpcore.exchange.card import model_card
from bpcore.exchange.numpy_export import export_numpy
from bpcore.exchange.onnx_export import export_onnx
from bpcore.exchange.sklearn_import import from_sklearn
from bpcore.exchange.torch_import import from_torch_state
from bpcore.exchange.torch_state import export_torch, to_torch_state
from bpcore.functions.activations import ACTIVATIONS, Activation
from bpcore.functions.clipping import ClipLayerNorm, ClipNorm, ClipValue
from bpcore.functions.formula import Formula
from bpcore.functions.full_batch import LBFGS, ScipyMinimize
from bpcore.functions.information import cross_entropy, entropy, information_content, kl_divergence
from bpcore.functions.initializers import INITIALIZERS, Initializer
from bpcore.functions.losses import LOSSES, CrossEntropy, Huber, Loss, Pair
from bpcore.functions.penalties import L1, L2, Penalty
from bpcore.functions.program import Program
from bpcore.functions.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    OneCycle,
    ReduceOnPlateau,
    Step,
    WarmUp,
)
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AMSGrad,
    Lion,
    Momentum,
    NAdam,
    Nesterov,
    RMSprop,
)
from bpcore.gradcheck import gradcheck
from bpcore.network import MLP
from bpcore.persistence.checkpoint import Checkpoint
from bpcore.persistence.model_file import load_model as load
from bpcore.persistence.model_file import save_model as save
from bpcore.training.callbacks import Callback
from bpcore.training.history import History
from bpcore.training.loop import train
from bpcore.training.run import Run
from bpcore.training.spec import Dropout, StepSpec
from bpcore.training.stopping import (
    AccuracyReached,
    GradientNorm,
    LossBelow,
    LossChange,
    MaxSteps,
    Patience,
    StopRule,
    WallClock,
)
from bpcore.training.trainer import Trainer
from bpcore.workspace import Gradients, Trace

if TYPE_CHECKING:
    from bpcore import plots as plots
    from bpcore.estimators import MLPClassifier as MLPClassifier
    from bpcore.estimators import MLPRegressor as MLPRegressor
    from bpcore.inspection import Alarm as Alarm
    from bpcore.inspection import InspectionReport as InspectionReport
    from bpcore.inspection import Inspector as Inspector
    from bpcore.inspection import inspect as inspect

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "L1",
    "L2",
    "LBFGS",
    "LOSSES",
    "MLP",
    "SGD",
    "AMSGrad",
    "AccuracyReached",
    "Activation",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Backend",
    "Callback",
    "Checkpoint",
    "ClipLayerNorm",
    "ClipNorm",
    "ClipValue",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "Descent",
    "Dropout",
    "Exponential",
    "Formula",
    "GradientNorm",
    "Gradients",
    "History",
    "Huber",
    "Initializer",
    "InverseTime",
    "Lion",
    "Loss",
    "LossBelow",
    "LossChange",
    "MaxSteps",
    "Momentum",
    "NAdam",
    "Nesterov",
    "OneCycle",
    "Pair",
    "Patience",
    "Penalty",
    "Program",
    "RMSprop",
    "ReduceOnPlateau",
    "Run",
    "ScipyMinimize",
    "Step",
    "StepSpec",
    "StopRule",
    "Trace",
    "Trainer",
    "UpdateRule",
    "WallClock",
    "WarmUp",
    "__version__",
    "backends",
    "backward",
    "bp1_output_delta",
    "bp2_hidden_delta",
    "bp3_bias_grad",
    "bp4_weight_grad",
    "cross_entropy",
    "data",
    "descend",
    "entropy",
    "errors",
    "evaluate",
    "export_numpy",
    "export_onnx",
    "export_torch",
    "forward",
    "from_sklearn",
    "from_torch_state",
    "get_backend",
    "gradcheck",
    "information_content",
    "kl_divergence",
    "load",
    "model_card",
    "random",
    "sample_losses",
    "save",
    "selection",
    "set_backend",
    "to_torch_state",
    "train",
    "use_backend",
]

_LAZY = {
    "Alarm": "bpcore.inspection",
    "InspectionReport": "bpcore.inspection",
    "Inspector": "bpcore.inspection",
    "MLPClassifier": "bpcore.estimators",
    "MLPRegressor": "bpcore.estimators",
    "inspect": "bpcore.inspection",
    "plots": "bpcore.plots",
}
"""Names that need an extra, or that most programs do without, and their modules, imported when they are first asked
for; not part of ``import *``."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LAZY[name])
    return module if _LAZY[name] == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
