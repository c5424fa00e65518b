"""Models and checkpoints on disk: safetensors files, checked when read and replaced in one step when written."""

from bpcore.persistence.atomic import write_atomically
from bpcore.persistence.model_file import load_model, save_model

__all__ = ["load_model", "save_model", "write_atomically"]
