"""Find the coloured blobs of a picture by how far their chroma lies from the background's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .render import Pixels
from .scene import COLOURS, PALETTE

Mask = NDArray[np.bool_]

_CHROMATIC = 0.2  # backgrounds stay below 0.09, objects above 0.4


def chroma(rgb: Pixels) -> Pixels:
    """The part of a colour that no grey light changes: rgb minus its mean, (..., 3)."""
    return np.asarray(rgb - rgb.mean(axis=-1, keepdims=True))


_HUES = chroma(np.array([PALETTE[colour] for colour in COLOURS], np.float32))
_HUES /= np.linalg.norm(_HUES, axis=-1, keepdims=True)


def hue(colour: Pixels) -> tuple[NDArray[np.intp], Pixels]:
    """Index in COLOURS of the nearest hue to each chroma (..., 3), and the cosine of the angle to it."""
    cosine = colour @ _HUES.T / np.maximum(np.linalg.norm(colour, axis=-1, keepdims=True), 1e-6)
    return cosine.argmax(axis=-1), cosine.max(axis=-1)


def background_chroma(colour: Pixels) -> Pixels:
    """The median chroma of the picture's border (3,), from the chroma of all pixels (H, W, 3)."""
    border = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    return np.asarray(np.median(border, axis=0))


def components(kind: NDArray[np.integer]) -> NDArray[np.intp]:
    """Number the 4-connected regions of equal `kind` (H, W): each pixel gets the largest flat index of its region.

    Neighbours exchange numbers, then every pixel jumps to its number's number, so that long regions settle in few rounds.
    """
    number = np.arange(kind.size).reshape(kind.shape)
    down, across = kind[1:] == kind[:-1], kind[:, 1:] == kind[:, :-1]
    while True:
        new = number.copy()
        for joined, first, second in ((down, new[:-1], new[1:]), (across, new[:, :-1], new[:, 1:])):
            top = np.where(joined, np.maximum(first, second), 0)
            np.maximum(first, top, out=first)
            np.maximum(second, top, out=second)
        new = new.ravel()[new]
        if (new == number).all():
            return number
        number = new


def blobs(colour: Pixels, min_area: int) -> list[Mask]:
    """Masks (H, W) of the connected regions of one hue, of `min_area` pixels or more, in chroma relative to the background."""
    kind = np.where(np.linalg.norm(colour, axis=-1) > _CHROMATIC, hue(colour)[0], -1)
    number = components(kind)
    names, areas = np.unique(number[kind >= 0], return_counts=True)
    return [number == name for name in names[areas >= min_area]]


def grow(mask: Mask) -> Mask:
    """The mask and all pixels at its sides and corners."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown
