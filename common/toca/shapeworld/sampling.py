"""Random scenes. Everything is drawn for a whole batch at once, as arrays with a leading axis of n scenes."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .counter import uniforms
from .scene import CLASSES, Background, Object, Scene

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)

_SINGLE_STREAM = 0
MARGIN = 0.03
TINT = 0.05
TILT = np.pi / 12  # shapes stand upright, but for a random turn of up to 15 degrees
_TEXTURES = np.array([[0, 0, 0], [1, 0, 0], [0.7, 0.7, 0], [0.6, 0.6, 0.6]])  # plain, stripes, checks, noise


class Backgrounds(NamedTuple):
    """One `Background` for each of n scenes."""

    start: Floats  # (n, 3)
    end: Floats  # (n, 3)
    angle: Floats  # (n,)
    waves: Floats  # (n, W, 4)

    def row(self, i: int) -> Background:
        start, end, angle, waves = (field[i].tolist() for field in self)
        return Background(tuple(start), tuple(end), angle, tuple(map(tuple, waves)))


class Objects(NamedTuple):
    """One `Object` for each of n scenes; `label` counts in CLASSES."""

    label: NDArray[np.int64]  # (n,)
    cx: Floats  # (n,)
    cy: Floats  # (n,)
    radius: Floats  # (n,)
    angle: Floats  # (n,)
    tint: Floats  # (n, 3)

    def row(self, i: int) -> Object:
        label, cx, cy, radius, angle, tint = (field[i].tolist() for field in self)
        shape, colour = CLASSES[label]
        return Object(shape, colour, cx, cy, radius, angle, tuple(tint))


def between(u: Number, low: float | Number, high: float | Number) -> Number:
    """The point that lies the fraction `u` of the way from `low` to `high`."""
    return low + (high - low) * u


def draw_backgrounds(u: Floats) -> Backgrounds:
    """Turn uniforms (n, 20) into greyish gradients under a soft texture: none, stripes, checks or low-frequency noise."""
    grey = between(u[:, 0:1], 0.20, 0.70)
    start = grey + between(u[:, 1:4], -0.05, 0.05)
    end = np.clip(grey + between(u[:, 4:5], -0.2, 0.2), 0.1, 0.75) + between(u[:, 5:8], -0.05, 0.05)

    kind = (u[:, 8] * len(_TEXTURES)).astype(np.int64)
    noise = kind == 3
    amplitude = _TEXTURES[kind] * between(u[:, 9:10], 0.02, 0.05)
    turn = np.where(noise[:, None], 2 * np.pi * u[:, 10:13], np.pi * (2 * u[:, 10:11] + [0.0, 0.5, 0.0]))
    cycles = np.where(noise[:, None], between(u[:, 13:16], 0.7, 2.0), between(u[:, 13:14], 1.5, 3.5))
    phase = 2 * np.pi * u[:, 16:19]
    waves = np.stack([cycles * np.cos(turn), cycles * np.sin(turn), phase, amplitude], axis=-1)
    return Backgrounds(start, end, 2 * np.pi * u[:, 19], waves)


def draw_singles(seed: int, indices: ArrayLike, labels: NDArray[np.int64] | None) -> tuple[Backgrounds, Objects]:
    """The single-object scenes of `indices` (n,), of the given classes (n,) or of random ones.

    A given label leaves place, size, tint and background as they would be without it.
    """
    u = uniforms(seed, _SINGLE_STREAM, indices, 28)
    label = (u[:, 0] * len(CLASSES)).astype(np.int64) if labels is None else labels
    radius = between(u[:, 1], 0.19, 0.325)
    cx, cy = (between(u[:, i], radius + MARGIN, 1 - radius - MARGIN) for i in (2, 3))
    angle = between(u[:, 4], -TILT, TILT)
    objects = Objects(label, cx, cy, radius, angle, between(u[:, 5:8], -TINT, TINT))
    return draw_backgrounds(u[:, 8:]), objects


def checked_labels(labels: ArrayLike, n: int) -> NDArray[np.int64]:
    """The labels as int64 (n,). Raises ValueError unless they are n integers that name classes."""
    found = np.asarray(labels)
    if found.shape != (n,) or (n and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= len(CLASSES))):
        raise ValueError(f"labels must be {n} integers in 0..{len(CLASSES) - 1}, one for each index")
    return found.astype(np.int64)


def single(seed: int, index: int, label: int | None = None) -> Scene:
    """The scene behind image `index` of `batch(seed, ...)`."""
    backgrounds, objects = draw_singles(seed, [index], None if label is None else checked_labels([label], 1))
    return Scene(backgrounds.row(0), (objects.row(0),))
