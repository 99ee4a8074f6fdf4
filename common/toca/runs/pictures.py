"""From a decoder's output to picture files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, isfinite, uint8

from toca.runs.files import atomic_path
from toca.runs.outputs import check_file


def check_finite(values: Tensor, what: str) -> None:
    """Raises ValueError if any value is NaN or infinite, of which a decoder would make black or grey pictures without a word.

    Call it once, after the loop and before decoding: it waits for the device. what: names the values, as in "the latents of prompt 3".
    """
    finite = isfinite(values)
    if not bool(finite.all()):
        bad = values.numel() - int(finite.sum())
        raise ValueError(f"{what}: {bad} of {values.numel()} values are NaN or infinite; fp16 overflows in some models, try bf16 or fp32")


def to_uint8(images: Tensor, truncate: bool = False) -> np.ndarray:
    """(B, 3, H, W) around [-1, 1] -> (B, H, W, 3) uint8, to the nearest level; truncate: to the one below."""
    images = images.float()
    levels = 127.5 * (images + 1) if truncate else 127.5 * images + 128  # the conversion cuts off fractions
    return levels.clamp(0, 255).to(uint8).permute(0, 2, 3, 1).cpu().numpy()


def save_picture(picture: np.ndarray, path: Path, **options: Any) -> None:
    """Write (H, W, 3) uint8 whole or not at all; JPEGs with quality 95 and full chroma. options: more for Pillow's `save`."""
    with atomic_path(path) as part:
        Image.fromarray(picture).save(part, **dict(quality=95, subsampling=0) | options)


def check_picture(path: Path, flag: str) -> None:
    """Make sure that a picture can be written. flag: names it in the error. Raises ValueError."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (16, 16)).save(BytesIO(), kind or "")
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{flag} {path}: not the name of a picture, try one that ends in .png") from error
    check_file(path, flag)
