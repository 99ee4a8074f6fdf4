"""References are read as people see them: turned, transparent, of 16 bits, animated, and whatever they are called."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from programs import noise_video

from opensora.datasets.read_video import count_frames, read_video
from opensora.datasets.utils import content_of, count_reference, read_from_path, split_references
from opensora.datasets.write_video import frames_of, save_sample

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(width: int = 32, height: int = 16) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), BLUE)
    picture.paste(RED, (0, 0, width // 2, height))
    return picture


def colours(path: Path, size: tuple[int, int], frame: int = 0) -> list[tuple[int, ...]]:
    """What is in the middle of the top, bottom, left and right of a frame that covers size (height, width)."""
    pixels = frames_of(read_from_path(str(path), size))[frame]
    height, width = size
    places = ((1, width // 2), (height - 2, width // 2), (height // 2, 1), (height // 2, width - 2))
    return [tuple(pixels[place].tolist()) for place in places]


def test_a_photo_is_read_as_the_phone_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    halves().save(tmp_path / "phone.png", exif=exif)
    top, bottom, *_ = colours(tmp_path / "phone.png", (32, 16))
    assert (top, bottom) == (RED, BLUE)


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A video of the two halves with a display matrix, as phones write it into the header of the track."""
    save_sample(torch.from_numpy(np.array(halves()))[None].repeat(5, 1, 1, 1), path, 24, {})
    content = bytearray(path.read_bytes())
    first = content.find(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[first : first + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "place"),
    [((1, 0, 0, 1), "left"), ((0, 1, -1, 0), "top"), ((-1, 0, 0, -1), "right"), ((0, -1, 1, 0), "bottom")],
)
def test_a_video_is_read_as_the_phone_was_held(tmp_path: Path, matrix: tuple[int, int, int, int], place: str) -> None:
    path = turned(tmp_path / "a.mp4", matrix)
    size = (16, 32) if place in ("left", "right") else (32, 16)
    found = dict(zip(("top", "bottom", "left", "right"), colours(path, size)))
    assert tuple(read_video(path).shape[1:3]) == size
    red, blue = found[place], found[{"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[place]]
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


def test_what_does_not_cover_is_white(tmp_path: Path) -> None:
    picture = halves().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    picture.save(tmp_path / "cutout.png")
    assert set(colours(tmp_path / "cutout.png", (16, 32))) == {WHITE}


def test_sixteen_bits_are_not_cut_to_eight(tmp_path: Path) -> None:
    grey = np.full((16, 32), 0x8080, np.uint16)
    grey[:, :16] = 0x2020
    Image.fromarray(grey).save(tmp_path / "grey.png")
    *_, left, right = colours(tmp_path / "grey.png", (16, 32))
    assert (left, right) == ((0x20,) * 3, (0x80,) * 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_are_videos(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in (RED, BLUE, WHITE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40, **({"lossless": True} if "webp" in name else {}))
    assert count_reference(str(tmp_path / name)) == 3
    assert [set(colours(tmp_path / name, (16, 32), i)) for i in range(3)] == [{RED}, {BLUE}, {WHITE}]
    assert read_from_path(str(tmp_path / name), (16, 32), most=2).shape == (3, 2, 16, 32)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 16, 17, 18, 33])
def test_videos_have_as_many_frames_as_they_show(tmp_path: Path, frames: int) -> None:
    save_sample(noise_video(frames, 16, 24), tmp_path / "a.MP4", 24, {})
    assert count_frames(tmp_path / "a.MP4") == len(read_video(tmp_path / "a.MP4")) == count_reference(str(tmp_path / "a.MP4")) == frames
    assert read_from_path(str(tmp_path / "a.MP4"), (16, 24), most=4).shape == (3, min(frames, 4), 16, 24)


def test_capital_endings(tmp_path: Path) -> None:
    halves().save(tmp_path / "A.PNG")
    assert count_reference(str(tmp_path / "A.PNG")) == 1 and colours(tmp_path / "A.PNG", (16, 32))[2:] == [RED, BLUE]


def test_names_with_the_sign_that_parts_them(tmp_path: Path) -> None:
    for name in ("a;b.png", "c.png"):
        halves().save(tmp_path / name)
    a, c = str(tmp_path / "a;b.png"), str(tmp_path / "c.png")
    assert split_references(f"{a};{c}") == [a, c] and split_references(f"{c};{a};") == [c, a]
    assert split_references("x.png;y.png") == ["x.png", "y.png"] and split_references("") == []


def test_a_file_counts_by_what_is_in_it(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png")
    halves().save(tmp_path / "b.png")
    before = content_of(str(tmp_path / "a.png"))
    assert content_of(str(tmp_path / "b.png")) == before
    halves(40).save(tmp_path / "a.png")
    assert content_of(str(tmp_path / "a.png")) != before


def test_pyav_knows_how_a_frame_is_turned(tmp_path: Path) -> None:
    with av.open(turned(tmp_path / "a.mp4", (0, 1, -1, 0))) as container:
        assert next(container.decode(video=0)).rotation == -90
