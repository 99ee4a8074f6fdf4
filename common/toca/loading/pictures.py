"""Pictures given by users, read as a viewer shows them: conditions, masks, references.

`read_picture` for colours, `read_mask` for masks, `read_frames` and `count_frames` for animated files. Every problem of a file is one
ValueError with its name. Colour profiles are not applied.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageSequence, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # never EPS: Pillow would start Ghostscript
ANIMATED = ("GIF", "WEBP", "PNG")  # further pictures in a TIFF or JPEG are pages or previews
MOST_PIXELS = 2**27  # of a picture: 11585 x 11585
MOST_PIXELS_OF_FRAMES = 2**30  # of all frames read together
ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF

Source = str | Path | BytesIO
Colour = str | tuple[int, int, int]


def read_picture(source: Source, background: Colour = "white", name: str | None = None) -> Image.Image:
    """The picture in mode RGB, upright; of an animated file the first frame. `np.array` of it: (H, W, 3) uint8.

    source: a path, or the bytes of a file. background: a colour as Pillow reads them, which shows through where the picture does not
    cover. name: what errors call the file (default: the path). 16 bits and floats (0 to 1) become 8 bits.
    Raises ValueError if there is no file, or it is no picture of FORMATS, cut off, damaged, or of more than MOST_PIXELS.
    """
    (frame,) = _read(source, 1, background, name)
    return frame


def read_mask(source: Source, name: str | None = None) -> Image.Image:
    """The brightness of a picture in mode L, upright: 255 where it is white and covers, 0 where it is black or does not cover.

    Raises ValueError as `read_picture`.
    """
    return read_picture(source, "black", name).convert("L")


def read_frames(source: Source, most: int | None = None, background: Colour = "white", name: str | None = None) -> list[Image.Image]:
    """The first `most` frames of a picture, or all, as `read_picture` gives them; a still picture has one.

    Raises ValueError as `read_picture`, and if the frames have more than MOST_PIXELS_OF_FRAMES together.
    """
    return _read(source, most, background, name)


def count_frames(source: Source, name: str | None = None) -> int:
    """How many frames `read_frames` gives. Raises ValueError as `read_picture`, but for pixels, which it leaves compressed."""
    with _opened(source, name) as picture:
        return _frames(picture)


def _read(source: Source, most: int | None, background: Colour, name: str | None) -> list[Image.Image]:
    if isinstance(background, str):
        background = ImageColor.getrgb(background)[:3]  # ValueError on no colour
    with _opened(source, name) as picture:
        if most != 1:  # which need not know how many there are
            most = min(_frames(picture), most or MOST_PIXELS_OF_FRAMES)
            if (total := most * picture.width * picture.height) > MOST_PIXELS_OF_FRAMES:
                raise ValueError(f"its frames have {total:,} pixels together, at most {MOST_PIXELS_OF_FRAMES:,} are read")
        return [_shown(frame, background) for frame in itertools.islice(ImageSequence.Iterator(picture), most)]


def _frames(picture: Image.Image) -> int:
    return getattr(picture, "n_frames", 1) if picture.format in ANIMATED else 1


@contextmanager
def _opened(source: Source, name: str | None) -> Iterator[Image.Image]:
    """A picture whose pixels are still compressed; whatever goes wrong in the block is a ValueError with the file's name."""
    name = name or ("the picture" if isinstance(source, BytesIO) else str(source))
    if isinstance(source, BytesIO):
        source.seek(0)
    elif not Path(source).is_file():
        raise ValueError(f"{name}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own about large pictures and odd metadata
            with Image.open(source, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(f"{picture.width} x {picture.height} pixels; at most {MOST_PIXELS:,} are read")
                yield picture
    except UnidentifiedImageError as error:
        size = source.getbuffer().nbytes if isinstance(source, BytesIO) else Path(source).stat().st_size
        what = f"not a picture of {', '.join(FORMATS)}" if size else "an empty file"
        raise ValueError(f"{name}: {what}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: at most {MOST_PIXELS:,} pixels are read") from error
    except Exception as error:  # decoders that meet arbitrary bytes raise whatever they lead to
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{name} cannot be read as a picture: {reason}") from error


def _shown(frame: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """A frame as a viewer shows it, on a background."""
    frame.load()
    turn = TURNS.get(_orientation(frame))
    shown = _eight_bits(frame) if frame.mode == "F" or frame.mode.startswith("I") else frame
    if shown.mode in ("LA", "PA", "RGBA") or "transparency" in shown.info:
        covering = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, (*background, 255)), covering)
    shown = shown.convert("RGB")
    return shown if turn is None else shown.transpose(turn)


def _orientation(frame: Image.Image) -> int | None:
    try:
        return frame.getexif().get(ORIENTATION)
    except Exception:  # a picture with unreadable metadata is shown as it is stored
        return None


def _eight_bits(frame: Image.Image) -> Image.Image:
    """Greys of 16 bits, or floats from 0 to 1, in mode L, or LA where one grey stands for none."""
    tags = getattr(frame, "tag_v2", {})
    values = np.asarray(frame, np.float32)
    if frame.mode == "F":
        if not (values.min() >= -0.01 and values.max() <= 1.01):  # so is NaN
            raise ValueError(f"floats must be 0 (black) to 1 (white), got {values.min():g} to {values.max():g}")
        white = 1.0
    elif frame.mode == "I" and frame.format == "TIFF":
        raise ValueError("signed or 32-bit integers have no white: save it with 8 or 16 bits, or as floats from 0 to 1")
    else:
        white = 2.0 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    levels = np.rint(values * (255 / white)).clip(0, 255).astype(np.uint8)
    grey = Image.fromarray(255 - levels if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else levels)
    if (clear := frame.info.get("transparency")) is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
