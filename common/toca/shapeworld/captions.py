"""What a scene says in words, and whether two places or a set of objects bear it out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from .scene import Scene

COUNTS: dict[int, str] = {2: "two", 3: "three", 4: "four"}
RELATIONS: dict[str, tuple[int, int]] = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
PLACES: dict[tuple[int, int], str] = {  # (column, row) of a 3x3 grid
    (0, 0): "in the upper left",
    (1, 0): "at the top",
    (2, 0): "in the upper right",
    (0, 1): "on the left",
    (1, 1): "in the centre",
    (2, 1): "on the right",
    (0, 2): "in the lower left",
    (1, 2): "at the bottom",
    (2, 2): "in the lower right",
}
_INNER = (0.38, 0.62)  # the middle column and row of the grid


class Placed(Protocol):
    """Anything with a shape, a colour and a centre: an object of a scene, or one that the judge found."""

    @property
    def shape(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def cx(self) -> float: ...
    @property
    def cy(self) -> float: ...


@dataclass(frozen=True)
class Caption:
    """(shape, colour) of each object, and `where`: the place of one, the relation of the first to the second, or nothing."""

    things: tuple[tuple[str, str], ...]
    where: str = ""

    def __str__(self) -> str:
        nouns = [f"{colour} {shape}" for shape, colour in self.things]
        if len(nouns) == 1:
            return f"a {nouns[0]} {self.where}".rstrip()
        if self.where:
            return f"a {nouns[0]} {self.where} a {nouns[1]}"
        return f"{COUNTS[len(nouns)]} {nouns[0]}{'es' if nouns[0].endswith('s') else 's'}"


def place(thing: Placed) -> str:
    """The words for the part of the picture, of nine, that holds the centre."""
    column, row = (sum(at > edge for edge in _INNER) for at in (thing.cx, thing.cy))
    return PLACES[column, row]


def holds(relation: str, first: Placed, second: Placed) -> bool:
    """Whether `first` is `relation` `second`: within 60 degrees of straight, so that a diagonal pair is both "left of" and "above"."""
    return 2 * _along(relation, first, second) > math.hypot(first.cx - second.cx, first.cy - second.cy)


def _along(relation: str, first: Placed, second: Placed) -> float:
    x, y = RELATIONS[relation]
    return x * (first.cx - second.cx) + y * (first.cy - second.cy)


def describe(scene: Scene) -> Caption:
    """The caption of a scene: the place of one object, the count of several alike, the relation of two that differ.

    Raises ValueError for a scene that no such caption fits.
    """
    things = tuple((o.shape, o.colour) for o in scene.objects)
    if len(things) == 1:
        return Caption(things, place(scene.objects[0]))
    if len(things) in COUNTS and len(set(things)) == 1:
        return Caption(things)
    if len(things) == 2:
        return Caption(things, max(RELATIONS, key=lambda name: _along(name, *scene.objects)))
    raise ValueError(f"no caption fits {len(things)} objects: use one, two that differ, or two to four alike")


def caption(scene: Scene) -> str:
    """The scene in words, such as "a red circle left of a blue square", "three green triangles", "a yellow cross in the upper left"."""
    return str(describe(scene))


def matches(wanted: Caption, found: tuple[Placed, ...]) -> bool:
    """Whether exactly the wanted objects are found, and placed as the caption says."""
    if sorted(wanted.things) != sorted((o.shape, o.colour) for o in found):
        return False
    if not wanted.where:
        return True
    if len(found) == 1:
        return place(found[0]) == wanted.where
    first, second = sorted(found, key=lambda o: wanted.things.index((o.shape, o.colour)))
    return holds(wanted.where, first, second)
