"""Caching methods: each a frozen dataclass of settings that yields a plan. One file per method; this one only lists them."""

from toca.methods.duca import DuCa
from toca.methods.fora import FORA
from toca.methods.none import NoCaching
from toca.methods.taylorseer import TaylorSeer
from toca.methods.toca import ToCa
from toca.planning.method import Method

METHODS: dict[str, type[Method]] = {method.name: method for method in (NoCaching, FORA, ToCa, DuCa, TaylorSeer)}

__all__ = ["FORA", "METHODS", "DuCa", "Method", "NoCaching", "TaylorSeer", "ToCa"]
