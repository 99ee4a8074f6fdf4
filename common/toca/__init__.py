"""Feature caching for diffusion transformers: one engine for ToCa, DuCa, FORA and TaylorSeer.

The names below are loaded when they are first used: `import toca` alone needs neither torch nor a model.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_HOME = {  # where each public name lives
    "engine.cache": ("Cache", "LayerCache", "NO_CACHE", "RunCache", "UncachedLayer"),
    "methods": ("DuCa", "FORA", "METHODS", "Method", "NoCaching", "Scheduled", "TaylorSeer", "ToCa", "register"),
    "planning.flops": ("total_flops", "uncached_flops"),
    "planning.memory": ("predict",),
    "planning.plan": ("Action", "Kind", "Plan"),
    "planning.run": ("PlannedRun",),
    "planning.spec": ("Branch", "Cost", "ModelSpec", "Stack"),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("toca-engine")
        except PackageNotFoundError:  # a source tree on the path, not installed
            return "0+unknown"
    if name not in _MODULES:
        raise AttributeError(f"module 'toca' has no attribute {name!r}")
    return getattr(import_module(f"toca.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
