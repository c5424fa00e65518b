"""Where each public name of bpcore is documented: once, under the shortest name that users write.

Every module lists what it offers in ``__all__``. The same function may be offered by several: `train` by
:mod:`bpcore.training.loop`, where it is defined, and by :mod:`bpcore`. The second is its home; a reference to the first
leads there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any, NamedTuple

import bpcore

__all__ = ["Home", "homes", "modules", "names_of"]


class Home(NamedTuple):
    """The module under which a thing is documented, and its name there."""

    module: str
    name: str

    @property
    def full(self) -> str:
        """Both, with a dot."""
        return f"{self.module}.{self.name}"

    @property
    def thing(self) -> Any:
        """What has that name."""
        return getattr(importlib.import_module(self.module), self.name)


@functools.cache
def modules() -> dict[str, ModuleType]:
    """Import every module of bpcore, the kernels included, except those that run something."""
    found = {"bpcore": bpcore, "bpcore.kernels": importlib.import_module("bpcore.kernels")}
    for package in list(found.values()):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                found[info.name] = importlib.import_module(info.name)
    return dict(sorted(found.items()))


def names_of(module: ModuleType) -> list[str]:
    """Return the public names of a module, those that it imports when asked included."""
    return [*getattr(module, "__all__", ()), *getattr(module, "_LAZY", ())]


def _assigns(place: Home) -> bool:
    """Whether a module assigns a name, rather than importing it."""
    source = inspect.getsource(modules()[place.module])
    return re.search(rf"^{place.name}\b.*?=", source, re.M) is not None


@functools.cache
def homes() -> dict[str, Home]:
    """Map every public name, written in full, to its home."""
    offers: dict[object, list[Home]] = {}
    for module in modules().values():
        for name in names_of(module):
            thing = getattr(module, name)
            if isinstance(thing, ModuleType):
                continue
            # numbers and texts may be equal by chance; a class or a function is what it is
            own = callable(thing) and getattr(thing, "__module__", "").startswith("bpcore")
            offers.setdefault(id(thing) if own or isinstance(thing, dict) else (name, repr(thing)), []).append(
                Home(module.__name__, name)
            )
    found = {}
    for same in offers.values():
        thing = same[0].thing
        if hasattr(thing, "__qualname__"):
            home = min(same, key=lambda place: (place.module.count("."), len(place.full), place.full))
            # the name that it is defined with is looked for as well
            found[f"{thing.__module__}.{thing.__qualname__}"] = home
        else:
            # the words on a constant stand below its definition
            home = next((place for place in same if _assigns(place)), same[0])
        found |= {place.full: home for place in same}
    return found
