"""Sample sets as our programs write them: .npz files, pictures, videos, folders of them; read in chunks, whatever their size."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = NDArray[np.uint8]  # (B, H, W, 3)
PICTURES, VIDEOS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".mkv", ".mov", ".webm", ".avi")  # endings
OVERVIEW = "grid"  # of GenEval's layout, a picture of others


def kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "folder" if path.is_dir() else "picture" if suffix in PICTURES else "video" if suffix in VIDEOS else ".npz"


def words(shape: tuple[int, ...]) -> str:
    number, height, width, channels = shape
    return f"{number} picture{'s' * (number != 1)} of {width} x {height} x {channels}"


def pictures(path: Path, chunk: int) -> tuple[int, Iterator[Pictures]]:
    """How many pictures an .npz or a folder holds, and they themselves, `chunk` at a time; those of a folder in the order of their names.

    Raises ValueError or OSError if there are none, they differ in size, or cannot be read.
    """
    if path.is_dir():
        found = files(path)
        return len(found), (_stacked(found[start : start + chunk]) for start in range(0, len(found), chunk))
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    with Npz(path) as archive:
        count = archive.shape[0]
    return count, _read_npz(path, count, chunk)


def files(folder: Path) -> list[Path]:
    """The pictures in a folder and below it, in the order of their names. Raises ValueError if there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of pictures")
    if not (found := [folder / name for name in sorted(names(folder)) if kind(folder / name) == "picture"]):
        raise ValueError(f"{folder} holds no pictures")
    return found


def _read_npz(path: Path, count: int, chunk: int) -> Iterator[Pictures]:
    with Npz(path) as archive:
        for start in range(0, count, chunk):
            yield archive.read(min(chunk, count - start))


def _stacked(paths: list[Path]) -> Pictures:
    read = [read_file(path) for path in paths]
    if odd := next((path for path, picture in zip(paths, read, strict=True) if picture.shape != read[0].shape), None):
        raise ValueError(f"{odd} has another size than {paths[0]}")
    return np.stack(read)


class Npz:
    """`arr_0` of an .npz, read from front to back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
            self.file = self.archive.open("arr_0.npy")
            version = np.lib.format.read_magic(self.file)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran, dtype = read_header(self.file)
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no .npz file with an array arr_0") from error
        if dtype != np.uint8 or fortran or len(self.shape) != 4:
            raise ValueError(f"{path}: arr_0 must be uint8 (N, H, W, C), got {dtype} {self.shape}")

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *exc: object) -> None:
        self.archive.close()

    def read(self, number: int) -> Pictures:
        """The next pictures. Raises ValueError if the file ends before its header says so."""
        shape = (number, *self.shape[1:])
        try:
            data = self.file.read(math.prod(shape))
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error
        if len(data) < math.prod(shape):
            raise ValueError(f"{self.path} ends before its {self.shape[0]} pictures do")
        return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def names(folder: Path) -> set[str]:
    """Of the pictures and videos in a folder and below it, without hidden files, which are parts, and without overviews."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURES + VIDEOS and path.is_file()]
    return {path.relative_to(folder).as_posix() for path in paths if not path.name.startswith(".") and path.stem != OVERVIEW}


def frames(path: Path) -> Iterator[Pictures]:
    """(H, W, 3), of a picture one."""
    return _decoded(path) if kind(path) == "video" else iter([read_file(path)])


def read_file(path: Path) -> Pictures:
    """(H, W, 3). Raises OSError, naming the file, if it is no picture."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            return np.array(picture.convert("RGB"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path} is no readable picture: {error}") from error


def _decoded(path: Path) -> Iterator[Pictures]:
    """The frames of a video. Raises ValueError if it cannot be decoded, or PyAV is missing."""
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{path}: videos are read through PyAV, pip install av ({error})") from error
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    frame = None
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no readable video: {error}") from error
    if frame is None:
        raise ValueError(f"{path} is a video without frames")
