"""Scenes for captions: one object in a named place, two in a relation, or two to four alike. Objects never overlap or leave the picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .captions import RELATIONS, caption
from .counter import uniforms
from .render import render
from .sampling import MARGIN, TINT, between, draw_backgrounds, single
from .scene import CLASSES, Background, Object, Scene

_RADIUS = (0.14, 0.17)
_CELLS = ((0.20, 0.31), (0.45, 0.55), (0.69, 0.80))  # well inside the thirds that `captions.place` tells apart


def _pick(u: float, n: int) -> int:
    return int(u * n)


def _draw(seed: int, index: int, stream: int) -> tuple[Background, list[float], list[list[float]]]:
    """The background, eight free numbers for the scene, and four rows of eight that make one object each."""
    u = uniforms(seed, stream, [index], 60)
    return draw_backgrounds(u[:, :20]).row(0), u[0, 20:28].tolist(), u[0, 28:].reshape(4, 8).tolist()


def _object(u: list[float], label: int, cx: float, cy: float, radius: float) -> Object:
    shape, colour = CLASSES[label]
    red, green, blue = (between(v, -TINT, TINT) for v in u[:3])
    return Object(shape, colour, cx, cy, radius, 2 * math.pi * u[3], (red, green, blue))


def placed(seed: int, index: int) -> Scene:
    """One object in one of nine places: "a yellow cross in the upper left"."""
    ground, free, (u, *_) = _draw(seed, index, stream=1)
    cx, cy = (between(u[6 + axis], *_CELLS[_pick(free[axis], 3)]) for axis in (0, 1))
    return Scene(ground, (_object(u, _pick(free[2], len(CLASSES)), cx, cy, between(u[4], *_RADIUS)),))


def related(seed: int, index: int) -> Scene:
    """Two objects that differ in shape or colour, side by side or one over the other: "a red circle left of a blue square"."""
    ground, free, rows = _draw(seed, index, stream=2)
    first = _pick(free[0], len(CLASSES))
    second = (first + 1 + _pick(free[1], len(CLASSES) - 1)) % len(CLASSES)
    x, y = list(RELATIONS.values())[_pick(free[2], len(RELATIONS))]
    level = between(free[3], 0.35, 0.65)
    objects = []
    for u, label, side in zip(rows, (first, second), (1, -1)):
        radius = between(u[4], 0.15, 0.20)
        along = 0.5 + side * (x + y) * between(u[6], radius + MARGIN, 0.5 - radius - MARGIN)
        across = level + between(u[7], -0.08, 0.08)
        cx, cy = (along, across) if x else (across, along)
        objects.append(_object(u, label, cx, cy, radius))
    return Scene(ground, tuple(objects))


def counted(seed: int, index: int) -> Scene:
    """Two to four objects of one class, each in its own quarter of the picture: "three green triangles"."""
    ground, free, rows = _draw(seed, index, stream=3)
    label, count = _pick(free[0], len(CLASSES)), 2 + _pick(free[1], 3)
    objects = []
    for u, quarter in zip(rows, np.argsort(free[2:6])[:count]):
        radius = between(u[4], *_RADIUS)
        slack = 0.25 - radius - MARGIN
        column, row = divmod(int(quarter), 2)
        cx, cy = 0.25 + 0.5 * column + between(u[6], -slack, slack), 0.25 + 0.5 * row + between(u[7], -slack, slack)
        objects.append(_object(u, label, cx, cy, radius))
    return Scene(ground, tuple(objects))


KINDS: dict[str, Callable[[int, int], Scene]] = {"single": single, "placed": placed, "related": related, "counted": counted}


def captioned(
    seed: int, indices: ArrayLike, size: int = 32, kinds: tuple[str, ...] = ("placed", "related", "counted")
) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures uint8 (n, size, size, 3) and their captions; picture i is a function of (seed, indices[i], kinds) alone.

    Raises ValueError for a kind that is not in KINDS.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"unknown kinds {kinds}; choose from {', '.join(KINDS)}")
    pick = (uniforms(seed, 4, indices, 1)[:, 0] * len(kinds)).astype(int)
    scenes = [KINDS[kinds[k]](seed, int(i)) for k, i in zip(pick, np.asarray(indices))]
    images = np.stack([render(scene, size) for scene in scenes]) if scenes else np.empty((0, size, size, 3), np.uint8)
    return images, [caption(scene) for scene in scenes]
