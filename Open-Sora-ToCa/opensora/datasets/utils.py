"""Reference pictures and videos, from a path or an address to pixels of the wanted size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from opensora.datasets.read_video import count_frames, read_video
from toca.loading import pictures
from toca.loading.weights import fingerprint

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")  # still or animated
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpeg", ".mpg")
SECONDS = 60  # without an answer from an address


def is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


@lru_cache(maxsize=32)
def fetch(url: str) -> bytes:
    """What is at an address. Raises ValueError if nothing can be had."""
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            return answer.read()
    except OSError as error:
        raise ValueError(f"reference {url}: cannot be fetched: {getattr(error, 'reason', error)}") from error


def opened(path: str) -> str | BytesIO:
    """A reference as it is read: a path, or what is at an address."""
    return BytesIO(fetch(path)) if is_url(path) else path


def is_image(path: str) -> bool:
    """By its ending. Raises ValueError on endings of neither pictures nor videos."""
    suffix = Path(path.split("?")[0] if is_url(path) else path).suffix.lower()
    if suffix not in IMAGES + VIDEOS:
        raise ValueError(f"expected a picture ({', '.join(IMAGES)}) or a video ({', '.join(VIDEOS)})")
    return suffix in IMAGES


def split_references(text: str) -> list[str]:
    """Paths and addresses apart by `;`. A file whose own name holds one is taken whole."""
    pieces, found = text.split(";"), []
    while pieces:
        lengths = range(len(pieces), 1, -1)
        most = next((n for n in lengths if Path(";".join(pieces[:n])).is_file()), 1)
        found.append(";".join(pieces[:most]))
        pieces = pieces[most:]
    return [path for path in found if path]


def count_reference(path: str) -> int:
    """The frames of a reference, whose first one can be read. Raises ValueError or FileNotFoundError if there is none."""
    if not is_url(path) and not Path(path).is_file():
        raise FileNotFoundError(f"there is no reference {path}")
    with named(path):
        still = is_image(path)
    source = opened(path)
    if still:
        pictures.read_picture(source, name=f"reference {path}")
        return pictures.count_frames(source, name=f"reference {path}")
    with named(path):
        return count_frames(source)


def content_of(path: str) -> str:
    """A short hash of a reference: what decides pixels is in the file, not in its name."""
    if is_url(path):
        return hashlib.blake2b(fetch(path), digest_size=8).hexdigest()
    return fingerprint(path)


@contextmanager
def named(path: str) -> Iterator[None]:
    """Errors of what cannot be read name the reference."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"reference {path}: {error}") from error


def read_from_path(path: str, image_size: tuple[int, int], most: int | None = None) -> Tensor:
    """Pixels (3, T, H, W) in [-1, 1] of a picture (T = 1) or of the first `most` frames of a video, from a path or an address.

    It is scaled until it covers image_size and cut around its centre. Raises ValueError or OSError if it cannot be read.
    """
    with named(path):
        still = is_image(path)
    source = opened(path)
    if still:
        shown = pictures.read_frames(source, most, name=f"reference {path}")
        if len(shown) == 1:
            return cover_image(shown[0], image_size)[:, None]
        frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in shown]))
    else:
        with named(path):
            frames = read_video(source, most)
    return cover_video(frames.permute(0, 3, 1, 2), image_size).transpose(0, 1)


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
