"""Caching methods: each a frozen dataclass of settings that yields a plan. One file per method; this one only lists them."""

from toca.methods.duca import DuCa
from toca.methods.fora import FORA
from toca.methods.none import NoCaching
from toca.methods.scheduled import Scheduled
from toca.methods.taylorseer import TaylorSeer
from toca.methods.toca import ToCa
from toca.planning.method import Method

METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Make a method known to every command line under its name; a decorator for methods outside this folder.

    Raises ValueError if another one has that name, TypeError if it is none.
    """
    if not isinstance(method, type) or not issubclass(method, Method) or not isinstance(getattr(method, "name", None), str):
        raise TypeError(f"a method is a class derived from Method with a name, got {method!r}")
    if METHODS.setdefault(method.name, method) is not method:
        raise ValueError(f"there is a method {method.name!r} already: {METHODS[method.name].__qualname__}")
    return method


for _method in (NoCaching, FORA, ToCa, DuCa, TaylorSeer, Scheduled):
    register(_method)

__all__ = ["FORA", "METHODS", "DuCa", "Method", "NoCaching", "Scheduled", "TaylorSeer", "ToCa", "register"]
