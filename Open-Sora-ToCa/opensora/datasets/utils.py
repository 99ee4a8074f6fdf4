"""Reference pictures and videos, from a path or an address to pixels of the wanted size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from opensora.datasets.read_video import count_frames, read_video

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".mpeg", ".mpg")
SECONDS = 60  # without an answer from an address


def is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def is_image(path: str) -> bool:
    """By its ending. Raises ValueError on endings of neither pictures nor videos."""
    suffix = Path(path.split("?")[0] if is_url(path) else path).suffix.lower()
    if suffix not in IMAGES + VIDEOS:
        raise ValueError(f"reference {path}: expected a picture ({', '.join(IMAGES)}) or a video ({', '.join(VIDEOS)})")
    return suffix in IMAGES


def check_reference(path: str) -> int | None:
    """The frames of a reference on this machine, which can be read; None of an address. Raises ValueError or FileNotFoundError if not."""
    picture = is_image(path)
    if is_url(path):
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no reference {path}")
    if not picture:
        return count_frames(path)
    read_image(path)
    return 1


def read_image(source: str | BytesIO) -> Image.Image:
    """Raises ValueError if it is no picture."""
    try:
        with Image.open(source) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"cannot read the picture {source}: {error}") from error


def read_from_path(path: str, image_size: tuple[int, int], most: int | None = None) -> Tensor:
    """Pixels (3, T, H, W) in [-1, 1] of a picture (T = 1) or of the first `most` frames of a video.

    It is scaled until it covers image_size and cut around its centre. Raises ValueError or OSError if it cannot be read.
    """
    source: str | BytesIO = path
    if is_url(path):
        try:
            with urlopen(path, timeout=SECONDS) as answer:
                source = BytesIO(answer.read())
        except URLError as error:
            raise ValueError(f"cannot fetch the reference {path}: {error.reason}") from error
    if is_image(path):
        return cover_image(read_image(source), image_size)[:, None]
    return cover_video(read_video(source, most).permute(0, 3, 1, 2), image_size).transpose(0, 1)


def cover_size(height: int, width: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """The size with the proportions of height x width that just covers image_size."""
    rows, columns = image_size[0] / height, image_size[1] / width
    if rows > columns:
        return image_size[0], round(width * rows)
    return round(height * columns), image_size[1]


def centre_crop(x: Tensor, image_size: tuple[int, int]) -> Tensor:
    top, left = (round((have - want) / 2) for have, want in zip(x.shape[-2:], image_size))
    return x[..., top : top + image_size[0], left : left + image_size[1]]


def cover_image(picture: Image.Image, image_size: tuple[int, int]) -> Tensor:
    """(3, H, W) in [-1, 1], scaled by Pillow with a bicubic filter."""
    height, width = cover_size(picture.height, picture.width, image_size)
    pixels = torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.BICUBIC)))
    return centre_crop(pixels.permute(2, 0, 1), image_size) / 127.5 - 1


def cover_video(frames: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(T, 3, H, W) in [-1, 1] of frames (T, 3, h, w) uint8, scaled bilinearly without a filter."""
    size = cover_size(*frames.shape[-2:], image_size)
    return centre_crop(F.interpolate(frames.float(), size, mode="bilinear", align_corners=False), image_size) / 127.5 - 1
