"""A seeded generator of small RGB scenes of coloured shapes, and a judge that reads a picture back without learning."""

from .render import batch, render
from .sampling import single
from .scene import CLASSES, COLOURS, SHAPES, Background, Object, Scene, class_name

__all__ = ["CLASSES", "COLOURS", "SHAPES", "Background", "Object", "Scene", "batch", "class_name", "render", "single"]
