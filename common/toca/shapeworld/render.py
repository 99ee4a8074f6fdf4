"""Scenes to pixels: signed distances, one pixel of analytic antialiasing, a whole batch in a few array operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .sampling import Backgrounds, Floats, Objects, checked_labels, draw_singles
from .scene import CLASSES, PALETTE, SHAPES, Scene

Pixels = NDArray[np.float32]

_CHUNK = 64  # the working set of a chunk at 32x32 stays in cache
_ARM = 0.32  # half width of a cross's arm, in radii


def _circle(x: Pixels, y: Pixels) -> Pixels:
    return np.sqrt(x * x + y * y) - 1


def _square(x: Pixels, y: Pixels) -> Pixels:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.5**0.5)


def _triangle(x: Pixels, y: Pixels) -> Pixels:
    return np.maximum(np.abs(x) * np.float32(0.75**0.5) - y / 2, y) - np.float32(0.5)


def _cross(x: Pixels, y: Pixels) -> Pixels:
    x, y = np.abs(x), np.abs(y)
    reach = np.float32((1 - _ARM**2) ** 0.5)
    return np.maximum(np.maximum(x, y) - reach, np.minimum(x, y) - np.float32(_ARM))


# Signed distance to the outline of each shape in the unit circle, negative within. Beyond a corner it is a lower bound: enough to draw by.
_DISTANCE: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
_SHAPE = np.array([SHAPES.index(shape) for shape, _ in CLASSES])
_RGB = np.array([PALETTE[colour] for _, colour in CLASSES])


def coverage(shape: str, placement: Sequence[Floats], size: int) -> Pixels:
    """How much of each pixel a shape covers, in 0..1: placement (cx, cy, radius, angle), each (n,); result (n, size, size)."""
    cx, cy, radius, angle = (np.asarray(field, np.float32)[:, None, None] for field in placement)
    grid = _grid(size)
    x, y = (grid[None, None, :] - cx) / radius, (grid[None, :, None] - cy) / radius  # (n, 1, W), (n, H, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    distance = _DISTANCE[shape](cos * x + sin * y, cos * y - sin * x)
    cover: Pixels = np.clip(0.5 - distance * (radius * size), 0, 1)
    return cover


def _grid(size: int) -> Pixels:
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


def paint_backgrounds(backgrounds: Backgrounds, size: int) -> Pixels:
    """The empty scenes, (n, size, size, 3) in 0..1."""
    start, end, angle, waves = (np.asarray(field, np.float32) for field in backgrounds)
    grid = _grid(size)
    x, y = grid[None, None, :], grid[None, :, None]  # (1, 1, W), (1, H, 1)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    mix = 0.5 + ((x - 0.5) * cos + (y - 0.5) * sin) / (np.abs(cos) + np.abs(sin))  # (n, H, W), 0..1 from edge to edge
    grey = np.zeros_like(mix)
    for fx, fy, phase, amplitude in np.moveaxis(waves, (1, 2), (0, 1))[..., None, None]:
        grey += amplitude * np.sin(2 * np.float32(np.pi) * (fx * x + fy * y) + phase)
    start, end = start[:, None, None], end[:, None, None]
    canvas: Pixels = start + (end - start) * mix[..., None] + grey[..., None]
    return canvas


def paint_objects(canvas: Pixels, objects: Objects) -> None:
    """Paint one object onto each picture of `canvas` (n, size, size, 3), in place."""
    rgb = np.asarray(_RGB[objects.label] + objects.tint, np.float32)[:, None, None]
    kind = _SHAPE[objects.label]
    for s, shape in enumerate(SHAPES):
        rows = np.flatnonzero(kind == s)
        cover = coverage(shape, [field[rows] for field in objects[1:5]], canvas.shape[1])
        canvas[rows] += (rgb[rows] - canvas[rows]) * cover[..., None]


def _to_bytes(canvas: Pixels) -> NDArray[np.uint8]:
    return np.asarray(np.clip(canvas, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def render(scene: Scene, size: int = 32) -> NDArray[np.uint8]:
    """One scene as uint8 RGB (size, size, 3)."""
    ground = scene.background
    start, end, angle = (np.array([field]) for field in (ground.start, ground.end, ground.angle))
    canvas = paint_backgrounds(Backgrounds(start, end, angle, np.reshape(ground.waves, (1, -1, 4))), size)
    for o in scene.objects:
        label = CLASSES.index((o.shape, o.colour))
        paint_objects(canvas, Objects(*(np.array([field]) for field in (label, o.cx, o.cy, o.radius, o.angle, o.tint))))
    return _to_bytes(canvas).squeeze(0)


def batch(seed: int, indices: ArrayLike, labels: ArrayLike | None = None, size: int = 32) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Single-object pictures and their labels: uint8 (n, size, size, 3) and int64 (n,).

    Picture i is a function of (seed, indices[i], labels[i]) alone; without `labels` the label, too, is drawn from the index.
    Raises ValueError for a negative seed or index, and for a label outside the classes.
    """
    rows = np.atleast_1d(indices)
    wanted = None if labels is None else checked_labels(labels, len(rows))
    images = np.empty((len(rows), size, size, 3), np.uint8)
    drawn = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), _CHUNK):
        part = slice(at, at + _CHUNK)
        backgrounds, objects = draw_singles(seed, rows[part], None if wanted is None else wanted[part])
        canvas = paint_backgrounds(backgrounds, size)
        paint_objects(canvas, objects)
        images[part], drawn[part] = _to_bytes(canvas), objects.label
    return images, drawn
