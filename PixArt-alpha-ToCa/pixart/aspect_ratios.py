"""The picture sizes that PixArt samples, and the flags inside a prompt that ask for one: `a fox --ar 3:2`."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIDE = 1024
BINS = {  # height / width as the network is told it: (height, width) in pixels at 1024; other sizes are scaled
    0.25: (512, 2048), 0.28: (512, 1856), 0.32: (576, 1792), 0.33: (576, 1728), 0.35: (576, 1664), 0.4: (640, 1600),
    0.42: (640, 1536), 0.48: (704, 1472), 0.5: (704, 1408), 0.52: (704, 1344), 0.57: (768, 1344), 0.6: (768, 1280),
    0.68: (832, 1216), 0.72: (832, 1152), 0.78: (896, 1152), 0.82: (896, 1088), 0.88: (960, 1088), 0.94: (960, 1024),
    1.0: (1024, 1024), 1.07: (1024, 960), 1.13: (1088, 960), 1.21: (1088, 896), 1.29: (1152, 896), 1.38: (1152, 832),
    1.46: (1216, 832), 1.67: (1280, 768), 1.75: (1344, 768), 2.0: (1408, 704), 2.09: (1472, 704), 2.4: (1536, 640),
    2.5: (1600, 640), 3.0: (1728, 576), 4.0: (2048, 512),
}  # fmt: skip
MARKERS = re.compile(r"--aspect_ratio|--ar|--hw")
PAIR = r"\s+(\d+):(\d+)"


@dataclass(frozen=True)
class Request:
    """What a prompt asks for. text: without flags; height, width: pixels of the bin; ratio: the bin's label."""

    text: str
    height: int
    width: int
    ratio: float


def parse_prompt(prompt: str, image_size: int) -> Request:
    """The text before the first flag, and the bin nearest to `--aspect_ratio a:b`, else `--ar a:b` (height:width), else the square one.

    image_size: 256, 512 or 1024. Raises ValueError on flags that say nothing, and on `--hw`, which the network has no sizes for.
    """
    text, *flags = MARKERS.split(prompt, maxsplit=1)
    asked = re.search(f"--aspect_ratio{PAIR}", prompt) or re.search(f"--ar{PAIR}", prompt)
    if flags and (asked is None or "0" in (asked[1].strip("0") or "0", asked[2].strip("0") or "0")):
        raise ValueError(f"{prompt[len(text) :][:40]!r} is no aspect ratio: write --ar height:width in whole numbers, for example --ar 3:2")
    return nearest_bin(text.strip(), int(asked[1]) / int(asked[2]) if asked else 1.0, image_size)


def nearest_bin(text: str, ratio: float, image_size: int) -> Request:
    """The bin whose label is nearest to height / width."""
    label = min(BINS, key=lambda label: abs(label - ratio))
    height, width = (side * image_size // SIDE for side in BINS[label])
    return Request(text, height, width, label)
