"""Sizes of videos by name, and of their latents. Free of torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHUNK, LATENT_CHUNK = 17, 5  # frames that the autoencoder takes at a time, and the latent frames they become
SPATIAL, TEMPORAL = 8, 4  # pixels and frames of a latent
MOST_FRAMES = 16_384  # of a clip


@cache
def _tables() -> dict:
    return json.loads(Path(__file__).with_name("resolutions.json").read_text(encoding="utf-8"))


def resolutions() -> list[str]:
    return list(_tables()["resolutions"])


def get_image_size(resolution: str, ar_ratio: str) -> tuple[int, int]:
    """(height, width) in pixels of a named resolution.

    ar_ratio: height:width, so that "9:16" is landscape, or the quotient with two decimals, "0.56".
    Raises ValueError that lists what there is.
    """
    aliases, table = _tables()["aspect_ratio_alias"], _tables()["resolutions"]
    if resolution not in table:
        raise ValueError(f"there is no resolution {resolution!r}; choose from {', '.join(table)}, or give an image size")
    sizes = table[resolution]["sizes_h_w"]
    key = aliases.get(ar_ratio, ar_ratio)
    if key not in sizes:
        named = [alias for alias, quotient in aliases.items() if quotient in sizes]
        others = [quotient for quotient in sizes if quotient not in aliases.values()]
        raise ValueError(f"{resolution} has no aspect ratio {ar_ratio!r} (height:width); choose from {', '.join(named + others)}")
    height, width = sizes[key]
    return height, width


def get_num_frames(num_frames: int | str) -> int:
    """A number of frames: itself, or by name, "2s" or "1x" for 51. Raises ValueError on anything else, and below 1."""
    names = _tables()["num_frames_alias"]
    if num_frames in names:
        return names[num_frames]
    try:
        frames = int(num_frames)
    except ValueError as error:
        raise ValueError(f"number of frames {num_frames!r}: give a number, or one of {', '.join(names)}") from error
    if frames < 1:
        raise ValueError(f"the number of frames must be at least 1, got {frames}")
    return frames


def latent_frames(num_frames: int) -> int:
    """Latent frames of a clip: 5 for every 17 frames, and a quarter of the rest, rounded up."""
    whole, rest = divmod(num_frames, CHUNK)
    return whole * LATENT_CHUNK + -(-rest // TEMPORAL)


def latent_size(num_frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T, H, W) of the latents of a clip; what is left of a side beyond a multiple of 8 pixels is lost."""
    return latent_frames(num_frames), height // SPATIAL, width // SPATIAL


@dataclass(frozen=True)
class Size:
    """Of every clip of a run, in frames and pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.num_frames}"

    @property
    def latent(self) -> tuple[int, int, int]:
        return latent_size(self.num_frames, self.height, self.width)
