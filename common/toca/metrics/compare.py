"""Mean distances of two sample sets, read in chunks so that fifty thousand pictures need no memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toca.metrics.distance import Pictures, psnr, ssim

CHUNK = 64  # pictures in memory at a time
SMALLEST = 11  # pixels of a side: the window of SSIM


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Mean PSNR in dB (None if it is infinite) and SSIM over the pairs of two .npz files or two folders of PNGs; how many are equal.

    Raises ValueError if they cannot be read or do not match, OSError if one is missing.
    """
    a, b = Path(a), Path(b)
    if a.is_dir() != b.is_dir():
        raise ValueError(f"{a} and {b}: compare two folders or two .npz files, not one of each")
    pairs, identical, total_psnr, total_ssim = 0, 0, 0.0, 0.0
    for some, others in _folder_pairs(a, b) if a.is_dir() else _npz_pairs(a, b):
        pairs += len(some)
        identical += int((some == others).all(axis=(1, 2, 3)).sum())
        total_psnr += len(some) * psnr(some, others)
        total_ssim += len(some) * ssim(some, others)
    mean = total_psnr / pairs
    return dict(a=str(a), b=str(b), pairs=pairs, psnr=None if math.isinf(mean) else mean, ssim=total_ssim / pairs, identical=identical)


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


# ---- folders --------------------------------------------------------------------------------------------------------------------------


def _folder_pairs(a: Path, b: Path) -> Iterator[tuple[Pictures, Pictures]]:
    names = sorted(path.name for path in a.glob("*.png"))
    others = {path.name for path in b.glob("*.png")}
    for folder, lacking in ((b, set(names) - others), (a, others - set(names))):
        if lacking:
            raise ValueError(f"{folder} lacks {len(lacking)} of the other folder's pictures, first {min(lacking)}")
    if not names:
        raise ValueError(f"{a} and {b} hold no PNGs")
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        some, more = ([_read(folder / name) for name in chunk] for folder in (a, b))
        for name, picture, other in zip(chunk, some, more, strict=True):
            _check((1, *picture.shape), (1, *other.shape), a / name, b / name)
            _check((1, *some[0].shape), (1, *picture.shape), a / chunk[0], a / name)
        yield np.stack(some), np.stack(more)


def _read(path: Path) -> Pictures:
    """(H, W, 3). Raises OSError, naming the file, if it is no picture."""
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except OSError as error:
        raise OSError(f"{path} is no readable picture: {error}") from error
