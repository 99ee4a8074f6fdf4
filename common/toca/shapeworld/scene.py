"""What a scene is: a background and a few coloured shapes, in unit coordinates (x right, y down, the side is 1)."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
PALETTE: dict[str, RGB] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.12, 0.25, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "magenta": (0.90, 0.12, 0.85),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)
CLASSES: tuple[tuple[str, str], ...] = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)


@dataclass(frozen=True)
class Object:
    """One shape. `radius` is that of the circumscribed circle, `angle` is in radians, `tint` is added to the palette's colour."""

    shape: str
    colour: str
    cx: float
    cy: float
    radius: float
    angle: float
    tint: RGB = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape {self.shape!r}; choose from {', '.join(SHAPES)}")
        if self.colour not in COLOURS:
            raise ValueError(f"unknown colour {self.colour!r}; choose from {', '.join(COLOURS)}")


@dataclass(frozen=True)
class Background:
    """A linear gradient from `start` to `end` along `angle`, plus grey plane waves (fx, fy in cycles per side, phase, amplitude)."""

    start: RGB
    end: RGB
    angle: float
    waves: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Scene:
    """A background and the objects on it; a later object is painted over an earlier one."""

    background: Background
    objects: tuple[Object, ...]


def class_name(label: int) -> str:
    """The words for a class, such as "red circle". Raises ValueError unless 0 <= label < 20."""
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label {label} is not a class; labels are 0..{len(CLASSES) - 1}")
    shape, colour = CLASSES[label]
    return f"{colour} {shape}"
