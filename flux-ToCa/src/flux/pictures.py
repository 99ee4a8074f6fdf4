"""What pictures carry, and which are kept: watermark, NSFW filter, metadata."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

WATERMARK = 0b001010101111111010000111100111001111010100101110
WATERMARK_BITS = [int(bit) for bit in bin(WATERMARK)[2:]]  # 46: published pictures carry no leading zeros
WATERMARK_PIXELS = 256 * 256
NSFW_MODEL, NSFW_THRESHOLD = "Falconsai/nsfw_image_detection", 0.85
Mark = Callable[[np.ndarray], np.ndarray]
Filter = Callable[[np.ndarray], float]


def watermarker() -> Mark | None:
    """Puts the invisible watermark of FLUX into a picture (H, W, 3); None, and one line, where its package is missing."""
    try:
        from imwatermark import WatermarkEncoder
    except ImportError:
        print("no watermark: it needs `pip install invisible-watermark`")
        return None
    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", WATERMARK_BITS)

    def mark(picture: np.ndarray) -> np.ndarray:
        if picture.shape[0] * picture.shape[1] < WATERMARK_PIXELS:
            return picture
        return np.ascontiguousarray(encoder.encode(np.ascontiguousarray(picture[..., ::-1]), "dwtDct")[..., ::-1])

    return mark


def nsfw_filter(source: str | None = None) -> Filter | None:
    """Rates a picture (H, W, 3) from 0 to 1; None, and one line, where the package or the weights are missing."""
    source = source or NSFW_MODEL
    try:
        from transformers import pipeline

        classify = pipeline("image-classification", model=source, device="cpu")
    except (ImportError, OSError, ValueError) as error:
        print(f"no NSFW filter: {source} could not be loaded ({str(error).strip().splitlines()[0]})")
        return None
    return lambda picture: next((x["score"] for x in classify(Image.fromarray(picture)) if x["label"] == "nsfw"), 0.0)


def exif(prompt: str | None, model: str) -> Image.Exif:
    """prompt: None leaves it out."""
    data = Image.Exif()
    data[ExifTags.Base.Software] = "AI generated;txt2img;flux"
    data[ExifTags.Base.Make] = "Black Forest Labs"
    data[ExifTags.Base.Model] = model
    if prompt is not None:
        data[ExifTags.Base.ImageDescription] = prompt
    return data
