"""What pictures carry, and which are kept: watermark, NSFW filter, metadata."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

from flux.flags import WATERMARK_PIXELS
from toca.loading.pretrained import from_disk_or_hub, load_processor
from toca.loading.weights import plain_reason

WATERMARK = 0b001010101111111010000111100111001111010100101110
WATERMARK_BITS = [int(bit) for bit in bin(WATERMARK)[2:]]  # 46: published pictures carry no leading zeros
NSFW_MODEL, NSFW_LABEL, NSFW_THRESHOLD = "Falconsai/nsfw_image_detection", "nsfw", 0.85
UNICODE = b"UNICODE\0"  # how EXIF marks a comment in UTF-16
LONGEST_DESCRIPTION, MOST_IN_JPEG = 1000, 60_000  # letters; bytes
Mark = Callable[[np.ndarray], np.ndarray]
Filter = Callable[[np.ndarray], float]


def watermarker() -> Mark:
    """Puts the invisible watermark of FLUX into a picture (H, W, 3). Raises ValueError where its package is missing."""
    try:
        from imwatermark import WatermarkEncoder
    except ImportError as error:
        raise ValueError("--watermark: it needs `pip install invisible-watermark`") from error
    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", WATERMARK_BITS)

    def mark(picture: np.ndarray) -> np.ndarray:
        if picture.shape[0] * picture.shape[1] < WATERMARK_PIXELS:
            return picture
        return np.ascontiguousarray(encoder.encode(np.ascontiguousarray(picture[..., ::-1]), "dwtDct")[..., ::-1])

    return mark


def nsfw_filter(source: str | None = None) -> Filter:
    """Rates a picture (H, W, 3) from 0 to 1. Raises ValueError where the package or the weights are missing."""
    source = source or NSFW_MODEL
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

        processor = load_processor(AutoImageProcessor, source)
        model = from_disk_or_hub(AutoModelForImageClassification, source)
        classify = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"--use_nsfw_filter: {source} could not be loaded ({plain_reason(error)})") from error
    if (labels := set(model.config.id2label.values())) and NSFW_LABEL not in labels:
        raise ValueError(f"--use_nsfw_filter: {source} rates nothing as {NSFW_LABEL!r}, only {', '.join(sorted(labels)[:5])}")
    return lambda picture: next(x["score"] for x in classify(Image.fromarray(picture), top_k=len(labels)) if x["label"] == NSFW_LABEL)


def exif(prompt: str | None, model: str, most: int | None = None) -> Image.Exif:
    """What made a picture. The prompt is in ImageDescription, the start of a long one, and in UserComment, in any letters.

    prompt: None leaves it out. most: bytes of UserComment, which is cut to them: a JPEG holds no more than MOST_IN_JPEG.
    """
    data = Image.Exif()
    data[ExifTags.Base.Software] = "AI generated;txt2img;flux"
    data[ExifTags.Base.Make] = "Black Forest Labs"
    data[ExifTags.Base.Model] = model
    if prompt is not None:
        start = prompt if len(prompt) <= LONGEST_DESCRIPTION else f"{prompt[:LONGEST_DESCRIPTION]}..."
        data[ExifTags.Base.ImageDescription] = start if start.isascii() else start.encode()  # UTF-8
        comment = prompt.encode("utf-16-le")
        if most is not None and len(comment) > most:
            comment = comment[: most - most % 2].decode("utf-16-le", "ignore").encode("utf-16-le")
        data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + comment
    return data


def prompt_of(picture: Image.Image) -> str | None:
    """The prompt that `exif` wrote."""
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    return comment.removeprefix(UNICODE).decode("utf-16-le") if comment else None
