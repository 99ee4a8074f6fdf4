"""Pictures of users, read as a viewer shows them. The files are made here, of every kind that people have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from toca.loading import pictures
from toca.loading.pictures import MOST_PIXELS, count_frames, read_frames, read_mask, read_picture

PLAIN = np.stack(np.meshgrid(np.arange(0, 240, 8), np.arange(0, 200, 10), [40, 90, 160], indexing="xy"), axis=-1)
PLAIN = np.stack([PLAIN[:, :, 0, 0], PLAIN[:, :, 0, 1], PLAIN[:, :, 0, 0] // 2 + 60], axis=-1).astype(np.uint8)  # (20, 30, 3)
GREY = PLAIN[..., 0]
ORIENTATION = 0x0112


def saved(picture: np.ndarray | Image.Image, format: str, **options: object) -> BytesIO:
    file = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, format, **options)
    return file


def levels(picture: Image.Image) -> np.ndarray:
    return np.array(picture).astype(int)


def png(width: int, height: int, bits: int, colour: int, data: bytes, *chunks: tuple[bytes, bytes]) -> BytesIO:
    """A PNG by hand: what Pillow does not write. data: rows, each with its filter byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize("format", ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"))
def test_every_format_is_read_from_a_path_and_from_bytes(tmp_path: Path, format: str) -> None:
    options = dict(quality=95) | (dict(subsampling=0) if format == "JPEG" else dict(lossless=True) if format == "WEBP" else {})
    file = saved(PLAIN, format, **options)
    path = tmp_path / "picture.bin"
    path.write_bytes(file.getvalue())
    for source in (file, path, str(path)):
        picture = read_picture(source)
        assert picture.mode == "RGB" and picture.size == (30, 20)
        assert np.abs(levels(picture) - PLAIN).mean() < (10 if format == "GIF" else 3)


@pytest.mark.parametrize("format", ("PNG", "JPEG", "WEBP", "TIFF"))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(format: str, orientation: int) -> None:
    """Stored as a camera turns it: undoing the turn gives the plain one."""
    stored = PLAIN.transpose(1, 0, 2) if orientation > 4 else PLAIN
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (0,), 7: (0, 1), 8: (1,)}.get(orientation, ())
    stored = np.ascontiguousarray(np.flip(stored, flips))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = dict(tiffinfo={ORIENTATION: orientation}) if format == "TIFF" else dict(exif=exif, quality=95)
    options |= dict(subsampling=0) if format == "JPEG" else dict(lossless=True) if format == "WEBP" else {}
    picture = read_picture(saved(stored, format, **options))
    assert picture.size == (30, 20)
    assert np.abs(levels(picture) - PLAIN).mean() < 3


def test_unreadable_exif_leaves_a_picture_as_it_is_stored() -> None:
    assert (levels(read_picture(saved(PLAIN, "PNG", exif=b"Exif\x00\x00nothing"))) == PLAIN).all()


def test_sixteen_bits_become_eight_of_the_same_grey() -> None:
    deep = GREY.astype(np.uint16) * 257
    for file in (saved(deep, "PNG"), saved(deep, "TIFF"), BytesIO(b"P5 30 20 65535\n" + deep.astype(">u2").tobytes())):
        assert (levels(read_mask(file)) == GREY).all()
        assert (levels(read_picture(file)) == GREY[..., None]).all()
    assert set(levels(read_mask(saved(np.full((4, 4), 32768, np.uint16), "PNG"))).flat) <= {127, 128}
    colours = b"".join(b"\0" + row.tobytes() for row in (PLAIN.astype(">u2") * 257))
    assert np.abs(levels(read_picture(png(30, 20, 16, 2, colours))) - PLAIN).max() <= 1


def test_greys_of_other_widths_reach_white() -> None:
    for maximum in (1, 100, 1023, 4095):
        file = BytesIO(
            f"P5 2 1 {maximum}\n".encode() + ((0).to_bytes(1 + (maximum > 255), "big") + maximum.to_bytes(1 + (maximum > 255), "big"))
        )
        assert levels(read_mask(file)).tolist() == [[0, 255]]


def test_floats_from_black_to_white() -> None:
    picture = read_mask(saved(np.array([[0.0, 0.5, 1.0, 1.005]], np.float32), "TIFF"))
    assert levels(picture).tolist() in ([[0, 127, 255, 255]], [[0, 128, 255, 255]])
    for wrong in (3.5, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"the picture cannot be read.*floats must be 0 \(black\) to 1 \(white\)"):
            read_picture(saved(np.array([[0.0, wrong]], np.float32), "TIFF"))
    with pytest.raises(ValueError, match="integers have no white"):
        read_picture(saved(np.array([[0, 70_000]], np.int32), "TIFF"))


def test_a_tiff_whose_zero_is_white() -> None:
    assert levels(read_mask(saved(np.array([[0, 65535]], np.uint16), "TIFF", tiffinfo={262: 0}))).tolist() == [[255, 0]]


def test_alpha_is_laid_over_a_background_and_hides_what_is_under_it() -> None:
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:10], alpha[10:12] = 255, 128
    hidden = np.concatenate([PLAIN, alpha], axis=-1)
    for format in ("PNG", "TIFF"):
        white = levels(read_picture(saved(hidden, format)))
        assert (white[:10] == PLAIN[:10]).all() and (white[12:] == 255).all()
        assert np.abs(white[10:12] - (PLAIN[10:12] * 128.0 + 255 * 127) / 255).max() <= 1
    assert (levels(read_picture(saved(hidden, "PNG"), background="black"))[12:] == 0).all()
    assert (levels(read_picture(saved(hidden, "PNG"), background=(1, 2, 3)))[12:] == (1, 2, 3)).all()
    with pytest.raises(ValueError, match="unknown color"):
        read_picture(saved(hidden, "PNG"), background="no colour")


def test_the_alpha_of_a_mask_counts() -> None:
    strokes = np.full((4, 6, 4), 255, np.uint8)  # white, on transparent white
    strokes[:, 3:, 3] = 0
    assert (levels(read_mask(saved(strokes, "PNG"))) == [255, 255, 255, 0, 0, 0]).all()


def test_transparent_colours_of_every_kind() -> None:
    grey = saved(GREY, "PNG", transparency=0)
    assert (levels(read_picture(grey)) == np.where(GREY == 0, 255, GREY)[..., None]).all()
    deep = saved(GREY.astype(np.uint16) * 257, "PNG", transparency=0)
    assert (levels(read_picture(deep)) == np.where(GREY == 0, 255, GREY)[..., None]).all()
    colours = levels(read_picture(saved(PLAIN, "PNG", transparency=tuple(int(c) for c in PLAIN[0, 0]))))
    assert (colours[0, 0] == 255).all() and (colours[1:] == PLAIN[1:]).all()
    palette = Image.fromarray(PLAIN).quantize(8)
    assert (levels(read_picture(saved(palette, "PNG", transparency=bytes(8)))) == 255).all()
    assert (levels(read_picture(saved(Image.fromarray(np.stack([GREY, 0 * GREY], -1), "LA"), "PNG"))) == 255).all()


def test_palettes_cmyk_greys_and_single_bits() -> None:
    palette = Image.fromarray(PLAIN).quantize(64)
    assert (levels(read_picture(saved(palette, "PNG"))) == levels(palette.convert("RGB"))).all()
    cmyk = Image.fromarray(PLAIN).convert("CMYK")
    for format, options in (("TIFF", {}), ("JPEG", dict(quality=95, subsampling=0))):  # a JPEG holds it inverted, as Adobe's do
        assert np.abs(levels(read_picture(saved(cmyk, format, **options))) - PLAIN).mean() < 3
    assert (levels(read_picture(saved(GREY, "PNG"))) == GREY[..., None]).all()
    bits = GREY > 100
    assert (levels(read_mask(saved(bits, "PNG"))) == 255 * bits).all()


# ---- animated files -------------------------------------------------------------------------------------------------------------------


def animated(format: str, frames: int = 3) -> BytesIO:
    pages = [Image.new("RGB", (8, 6), (80 * index, 0, 255 - 80 * index)) for index in range(frames)]
    return saved(pages[0], format, save_all=True, append_images=pages[1:], duration=40, **(dict(lossless=True) if format == "WEBP" else {}))


@pytest.mark.parametrize("format", ("GIF", "WEBP", "PNG"))
def test_of_animated_files_the_first_frame_or_all(format: str) -> None:
    file = animated(format)
    assert count_frames(file) == 3
    assert (levels(read_picture(file)) == (0, 0, 255)).all()
    frames = read_frames(file)
    assert [levels(frame)[0, 0, 0] for frame in frames] == [0, 80, 160] and {frame.mode for frame in frames} == {"RGB"}
    assert len(read_frames(file, most=2)) == 2 and len(read_frames(file, most=9)) == 3


def test_pages_are_no_frames() -> None:
    file = animated("TIFF")
    assert count_frames(file) == 1 and len(read_frames(file)) == 1
    assert count_frames(saved(PLAIN, "PNG")) == 1 and len(read_frames(saved(PLAIN, "JPEG"))) == 1


def test_frames_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS_OF_FRAMES", 100)
    with pytest.raises(ValueError, match="its frames have 144 pixels together, at most 100 are read"):
        read_frames(animated("GIF"))
    assert len(read_frames(animated("GIF"), most=2)) == 2 and read_picture(animated("GIF"))


# ---- what is no picture ---------------------------------------------------------------------------------------------------------------


def huge(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, b"").getvalue()


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "text": (b"hello", "not a picture of PNG, JPEG"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not a picture of PNG, JPEG"),
    "icon": (saved(PLAIN, "ICO").getvalue(), "not a picture of PNG, JPEG"),
    "half a JPEG": (saved(PLAIN, "JPEG").getvalue()[:400], "cannot be read as a picture"),
    "most of a JPEG": (saved(PLAIN, "JPEG").getvalue()[:-60], "cannot be read as a picture"),
    "half a PNG": (saved(PLAIN, "PNG").getvalue()[:70], "cannot be read as a picture"),
    "half a GIF": (saved(PLAIN, "GIF").getvalue()[:-200], "cannot be read as a picture"),
    "half a WebP": (saved(PLAIN, "WEBP").getvalue()[:80], "cannot be read as a picture|not a picture of"),
    "huge": (huge(20_000, 20_000), "at most 134,217,728"),
    "large": (huge(12_000, 12_000), "12000 x 12000 pixels; at most 134,217,728 are read"),
    "wide": (huge(2**31 - 1, 2), "at most 134,217,728"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("read", (read_picture, read_mask, read_frames))
def test_every_problem_is_one_error_with_the_files_name(tmp_path: Path, kind: str, read: Callable[..., object]) -> None:
    content, problem = BAD[kind]
    path = tmp_path / "given.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^--img_cond_path"):
        read(BytesIO(content), name="--img_cond_path given.png")


def test_no_file_is_the_same_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ValueError, match="there is no such file"):
            read_picture(path)


def test_the_largest_picture_is_within_the_limit_of_pillow() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and MOST_PIXELS < 2 * Image.MAX_IMAGE_PIXELS


WHOLE = [
    saved(Image.fromarray(PLAIN).quantize(16), "PNG", transparency=0).getvalue(),
    saved(GREY.astype(np.uint16), "PNG").getvalue(),
    saved(PLAIN, "JPEG").getvalue(),
    saved(PLAIN, "TIFF", compression="tiff_lzw").getvalue(),
    saved(GREY.astype(np.float32) / 255, "TIFF").getvalue(),
    saved(PLAIN, "BMP").getvalue(),
    saved(PLAIN, "PPM").getvalue(),
    *(animated(format).getvalue() for format in ("GIF", "WEBP", "PNG")),
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.floats(0.2, 1))
def test_damaged_files_give_a_picture_or_one_error(content: bytes, changes: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place**2 * (len(damaged) - 1))] = value  # rather near the start
    try:
        frames = read_frames(BytesIO(bytes(damaged[: int(kept * len(damaged))])), most=4)
    except ValueError as error:
        assert str(error).startswith("the picture")
    else:
        assert all(frame.mode == "RGB" for frame in frames)
