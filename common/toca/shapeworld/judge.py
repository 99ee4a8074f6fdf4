"""Read a picture back, without learning: segment by chroma, place by moments, and name by the template that explains the blob best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .captions import Caption, describe, matches
from .regions import Mask, background_chroma, blobs, chroma, grow, hue
from .render import Pixels, coverage
from .scene import CLASSES, COLOURS, SHAPES, Scene

_MIN_AREA = 0.012  # of the picture; the smallest object drawn covers 0.02
_HUE_COSINE = 0.90
_MISFIT = 0.12  # below 0.02 as rendered, 0.05 under noise, 0.06 under blur
_CONFIDENCE = 0.2  # above 0.9 as rendered, 0.7 under noise, 0.25 under blur
_STRETCH = 0.2  # an ellipse of axes 1.22 : 1; all four shapes have 0
_HARMONIC = {"circle": 1, "square": 4, "triangle": 3, "cross": 4}  # turns by 1/k of a circle leave the shape as it is


@dataclass(frozen=True)
class Found:
    """An object that the judge is sure of. `confidence` in 0..1 is 1 - misfit / misfit of the next best shape."""

    shape: str
    colour: str
    cx: float
    cy: float
    radius: float
    confidence: float


@dataclass(frozen=True)
class Reading:
    """The objects found, from left to right, and how many sizeable coloured blobs were none."""

    objects: tuple[Found, ...]
    unclear: int = 0


@dataclass(frozen=True)
class _Moments:
    """Of a soft mask: area, centre, the angle of the sum of mask * (x + iy)^k for each shape's harmonic k, and stretch.

    That angle turns k times as fast as the shape. The stretch is (a^2 - b^2) / (a^2 + b^2) for the axes a and b of
    the ellipse with the same second moments (Hu 1962).
    """

    area: float
    cx: float
    cy: float
    phase: dict[str, float]
    stretch: float


def _moments(soft: Pixels) -> _Moments:
    size = len(soft)
    grid = (np.arange(size) + 0.5) / size
    z = grid + 1j * grid[:, None]
    total = soft.sum()
    centre = (soft * z).sum() / total
    z -= centre
    phase = {shape: float(np.angle((soft * z**k).sum())) for shape, k in _HARMONIC.items()}
    stretch = float(abs((soft * z**2).sum()) / (soft * abs(z) ** 2).sum())
    return _Moments(float(total) / size**2, float(centre.real), float(centre.imag), phase, stretch)


def _draw(shape: str, cx: float, cy: float, radius: float, angle: float, size: int) -> Pixels:
    drawn: Pixels = coverage(shape, [np.array([value]) for value in (cx, cy, radius, angle)], size)[0]
    return drawn


# What the moments of each shape of radius 0.4 are when it is not turned: this fixes radius and angle from measured moments.
_UPRIGHT = {shape: _moments(_draw(shape, 0.5, 0.5, 0.4, 0.0, 128)) for shape in SHAPES}


def _fit(soft: Pixels, seen: _Moments, shape: str) -> tuple[float, float]:
    """The misfit of the shape's template to a soft mask, as squared error over squared template, and its radius."""
    radius = 0.4 * (seen.area / _UPRIGHT[shape].area) ** 0.5
    angle = (seen.phase[shape] - _UPRIGHT[shape].phase[shape]) / _HARMONIC[shape]
    template = _draw(shape, seen.cx, seen.cy, radius, angle, len(soft))
    return float(((soft - template) ** 2).sum() / (template**2).sum()), radius


def _soften(colour: Pixels, mask: Mask, others: Mask) -> tuple[Pixels, Pixels]:
    """How much of each pixel the blob covers, from its chroma relative to the background and that of its core; and the core's chroma."""
    strength = np.linalg.norm(colour, axis=-1)
    core = np.median(colour[mask & (strength >= np.median(strength[mask]))], axis=0)
    soft = np.clip(colour @ core / (core @ core), 0, 1.2)
    return np.where(grow(grow(mask)) & ~others, soft, np.float32(0)), core


def _read(colour: Pixels, mask: Mask, others: Mask) -> Found | None:
    soft, core = _soften(colour, mask, others)
    index, cosine = hue(core)
    seen = _moments(soft)
    fits = {shape: _fit(soft, seen, shape) for shape in SHAPES}
    best, second = sorted(fits, key=lambda shape: fits[shape][0])[:2]
    misfit, radius = fits[best]
    confidence = 1 - misfit / fits[second][0]
    if cosine < _HUE_COSINE or seen.stretch > _STRETCH or misfit > _MISFIT or confidence < _CONFIDENCE:
        return None
    return Found(best, COLOURS[int(index)], seen.cx, seen.cy, radius, confidence)


def judge(image: NDArray[np.uint8]) -> Reading:
    """What is on a picture, uint8 (size, size, 3) with size >= 16, on a background less colourful than its objects.

    Raises ValueError for any other array.
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or image.dtype != np.uint8 or len(image) < 16:
        raise ValueError(f"judge reads a square uint8 RGB picture of 16 pixels or more a side, not {image.dtype} {image.shape}")
    colour = chroma(np.divide(image, 255, dtype=np.float32))
    colour -= background_chroma(colour)
    masks = blobs(colour, max(6, round(_MIN_AREA * len(image) ** 2)))
    taken = np.sum(masks, axis=0, dtype=int) if masks else np.zeros(image.shape[:2], int)
    read = [_read(colour, mask, taken > mask) for mask in masks]
    found = [o for o in read if o is not None]
    return Reading(tuple(sorted(found, key=lambda o: o.cx)), len(read) - len(found))


def classify(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of each picture (n, size, size, 3), or -1 where there is not exactly one clear object; int64 (n,)."""
    return np.array([_label(judge(image)) for image in images], np.int64)


def _label(reading: Reading) -> int:
    if len(reading.objects) != 1 or reading.unclear:
        return -1
    return CLASSES.index((reading.objects[0].shape, reading.objects[0].colour))


def agrees(wanted: Caption | Scene, reading: Reading) -> bool:
    """Whether a reading shows exactly what a caption, or the caption of a scene, asks for, and nothing unclear beside it."""
    asked = describe(wanted) if isinstance(wanted, Scene) else wanted
    return reading.unclear == 0 and matches(asked, reading.objects)
