"""A seeded generator of small RGB scenes of coloured shapes, and a judge that reads a picture back without learning."""

from .captions import Caption, caption, describe
from .compositions import KINDS, captioned, counted, placed, related
from .judge import Found, Reading, agrees, classify, judge
from .render import batch, render
from .sampling import single
from .scene import CLASSES, COLOURS, SHAPES, Background, Object, Scene, class_name

__all__ = [
    "CLASSES",
    "COLOURS",
    "KINDS",
    "SHAPES",
    "Background",
    "Caption",
    "Found",
    "Object",
    "Reading",
    "Scene",
    "agrees",
    "batch",
    "caption",
    "captioned",
    "class_name",
    "classify",
    "counted",
    "describe",
    "judge",
    "placed",
    "related",
    "render",
    "single",
]
