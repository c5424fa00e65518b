"""Pictures that commands write: the extension is checked before anything is computed, the file appears at the end."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bpcore.errors import ConfigurationError, missing_extra
from bpcore.persistence.atomic import check_writable, write_atomically

__all__ = ["check_picture", "save_picture"]

FORMATS = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Extensions, and what is left out of such a file: a date would make two files of one picture differ."""


def check_picture(path: str, option: str) -> None:
    """Refuse a picture that could not be written in the end.

    Parameters
    ----------
    path : str
        The file.
    option : str
        Its option, for messages.

    Raises
    ------
    ConfigurationError
        If the extension is none of those that are known.
    MissingExtraError
        If matplotlib is not installed.
    ModelFileError
        If there is no such folder, or it cannot be written to.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ConfigurationError(f"{option} writes {', '.join(FORMATS)}, not {path}")
    if find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plot", option)
    check_writable(path)


def save_picture(figure: Any, path: str) -> None:
    """Write a figure of matplotlib to a file that :func:`check_picture` has accepted."""
    extension = Path(path).suffix.lower()
    data = io.BytesIO()
    figure.savefig(data, format=extension[1:], dpi=150, metadata=FORMATS[extension])
    write_atomically(path, data.getvalue())
