"""Mean distances of two sample sets, read in chunks so that fifty thousand pictures, or long videos, need no memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toca.metrics.distance import Pictures, psnr, ssim

CHUNK = 64  # pictures in memory at a time
SMALLEST = 11  # pixels of a side: the window of SSIM
PICTURES, VIDEOS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".mkv", ".mov", ".webm", ".avi")  # endings
OVERVIEW = "grid"  # of GenEval's layout, a picture of others


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Mean PSNR in dB (None if it is infinite) and SSIM over pairs of pictures or frames; how many are equal, and in how many videos.

    a, b: two .npz files, two pictures, two videos, or two folders of pictures and videos, at any depth, which are paired by name.
    Raises ValueError if they cannot be read or do not match, OSError if one is missing.
    """
    a, b = Path(a), Path(b)
    if a.is_dir() != b.is_dir():
        raise ValueError(f"{a} and {b}: compare two folders or two .npz files, not one of each")
    if _kind(a) != _kind(b):
        raise ValueError(f"{a} and {b}: compare files of one kind: two .npz files, two pictures or two videos")
    files = _pairs_by_name(a, b) if a.is_dir() else [(a, b)]
    pairs, identical, total_psnr, total_ssim = 0, 0, 0.0, 0.0
    for some, others in _npz_pairs(a, b) if _kind(a) == ".npz" else _stacked(files):
        pairs += len(some)
        identical += int((some == others).all(axis=(1, 2, 3)).sum())
        total_psnr += len(some) * psnr(some, others)
        total_ssim += len(some) * ssim(some, others)
    mean, videos = total_psnr / pairs, sum(_kind(file) == "video" for file, _ in files)
    distances = dict(psnr=None if math.isinf(mean) else mean, ssim=total_ssim / pairs, identical=identical)
    return dict(a=str(a), b=str(b), pairs=pairs, videos=videos) | distances


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return "folder" if path.is_dir() else "picture" if suffix in PICTURES else "video" if suffix in VIDEOS else ".npz"


def _check(shape: tuple[int, ...], other: tuple[int, ...], a: object, b: object) -> None:
    if shape != other:
        raise ValueError(f"{a} holds {_words(shape)}, {b} holds {_words(other)}")
    if not shape[0]:
        raise ValueError(f"{a} and {b} hold no pictures")
    if min(shape[1:3]) < SMALLEST:
        raise ValueError(f"pictures must be at least {SMALLEST} pixels wide and high for SSIM, got {shape[2]} x {shape[1]}")


def _words(shape: tuple[int, ...]) -> str:
    number, height, width, channels = shape
    return f"{number} picture{'s' * (number != 1)} of {width} x {height} x {channels}"


# ---- .npz files -----------------------------------------------------------------------------------------------------------------------


def _npz_pairs(a: Path, b: Path) -> Iterator[tuple[Pictures, Pictures]]:
    with _Npz(a) as first, _Npz(b) as second:
        _check(first.shape, second.shape, a, b)
        for start in range(0, first.shape[0], CHUNK):
            number = min(CHUNK, first.shape[0] - start)
            yield first.read(number), second.read(number)


class _Npz:
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

    def __enter__(self) -> _Npz:
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


# ---- pictures and videos --------------------------------------------------------------------------------------------------------------


def _pairs_by_name(a: Path, b: Path) -> list[tuple[Path, Path]]:
    """Raises ValueError if one folder lacks files of the other, or there are none."""
    names, others = _names(a), _names(b)
    for folder, lacking in ((b, names - others), (a, others - names)):
        if lacking:
            raise ValueError(f"{folder} lacks {len(lacking)} of the other folder's pictures, first {min(lacking)}")
    if not names:
        raise ValueError(f"{a} and {b} hold no PNGs, JPEGs or videos")
    return [(a / name, b / name) for name in sorted(names)]


def _names(folder: Path) -> set[str]:
    """Of the pictures and videos in a folder and below it, without hidden files, which are parts, and without overviews."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURES + VIDEOS and path.is_file()]
    return {path.relative_to(folder).as_posix() for path in paths if not path.name.startswith(".") and path.stem != OVERVIEW}


def _stacked(files: Sequence[tuple[Path, Path]]) -> Iterator[tuple[Pictures, Pictures]]:
    """Pairs of pictures and frames, all of the first one's size."""
    some, others, size = [], [], None
    for a, b in files:
        for frame, (picture, other) in enumerate(zip_longest(_frames(a), _frames(b))):
            if picture is None or other is None:
                raise ValueError(f"{a if picture is None else b} ends after {frame} frames, {b if picture is None else a} has more")
            size = size or ((1, *picture.shape), a)
            _check((1, *picture.shape), (1, *other.shape), a, b)
            _check(size[0], (1, *picture.shape), size[1], a)
            some.append(picture)
            others.append(other)
            if len(some) == CHUNK:
                yield np.stack(some), np.stack(others)
                some, others = [], []
    if some:
        yield np.stack(some), np.stack(others)


def _frames(path: Path) -> Iterator[Pictures]:
    """(H, W, 3), of a picture one."""
    return _decoded(path) if _kind(path) == "video" else iter([_read(path)])


def _read(path: Path) -> Pictures:
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
