"""Mean distances of two sample sets, read in chunks so that fifty thousand pictures, or long videos, need no memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from toca.metrics.distance import psnr, ssim
from toca.metrics.sources import Npz, Pictures, frames, kind, names, words

CHUNK = 64  # pictures in memory at a time
SMALLEST = 11  # pixels of a side: the window of SSIM


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Mean PSNR in dB (None if it is infinite) and SSIM over pairs of pictures or frames; how many are equal, and in how many videos.

    a, b: two .npz files, two pictures, two videos, or two folders of pictures and videos, at any depth, which are paired by name.
    Raises ValueError if they cannot be read or do not match, OSError if one is missing.
    """
    a, b = Path(a), Path(b)
    count, identical, total_psnr, total_ssim = 0, 0, 0.0, 0.0
    for some, others in pairs(a, b):
        count += len(some)
        identical += int((some == others).all(axis=(1, 2, 3)).sum())
        total_psnr += len(some) * psnr(some, others)
        total_ssim += len(some) * ssim(some, others)
    files = _files(a, b)
    mean, videos = total_psnr / count, sum(kind(file) == "video" for file, _ in files)
    distances = dict(psnr=None if math.isinf(mean) else mean, ssim=total_ssim / count, identical=identical)
    return dict(a=str(a), b=str(b), pairs=count, videos=videos) | distances


def pairs(a: Path, b: Path) -> Iterator[tuple[Pictures, Pictures]]:
    """Pictures and frames of two sets that belong together, (B, H, W, 3) of each, all of one size.

    Raises ValueError if they cannot be read or do not match, OSError if one is missing.
    """
    if a.is_dir() != b.is_dir():
        raise ValueError(f"{a} and {b}: compare two folders or two .npz files, not one of each")
    if kind(a) != kind(b):
        raise ValueError(f"{a} and {b}: compare files of one kind: two .npz files, two pictures or two videos")
    return _npz_pairs(a, b) if kind(a) == ".npz" else _stacked(_files(a, b))


def _files(a: Path, b: Path) -> list[tuple[Path, Path]]:
    return _pairs_by_name(a, b) if a.is_dir() else [(a, b)]


def _check(shape: tuple[int, ...], other: tuple[int, ...], a: object, b: object) -> None:
    if shape != other:
        raise ValueError(f"{a} holds {words(shape)}, {b} holds {words(other)}")
    if not shape[0]:
        raise ValueError(f"{a} and {b} hold no pictures")
    if min(shape[1:3]) < SMALLEST:
        raise ValueError(f"pictures must be at least {SMALLEST} pixels wide and high for SSIM, got {shape[2]} x {shape[1]}")


# ---- .npz files -----------------------------------------------------------------------------------------------------------------------


def _npz_pairs(a: Path, b: Path) -> Iterator[tuple[Pictures, Pictures]]:
    with Npz(a) as first, Npz(b) as second:
        _check(first.shape, second.shape, a, b)
        for start in range(0, first.shape[0], CHUNK):
            number = min(CHUNK, first.shape[0] - start)
            yield first.read(number), second.read(number)


# ---- pictures and videos --------------------------------------------------------------------------------------------------------------


def _pairs_by_name(a: Path, b: Path) -> list[tuple[Path, Path]]:
    """Raises ValueError if one folder lacks files of the other, or there are none."""
    own, others = names(a), names(b)
    for folder, lacking in ((b, own - others), (a, others - own)):
        if lacking:
            raise ValueError(f"{folder} lacks {len(lacking)} of the other folder's pictures, first {min(lacking)}")
    if not own:
        raise ValueError(f"{a} and {b} hold no PNGs, JPEGs or videos")
    return [(a / name, b / name) for name in sorted(own)]


def _stacked(files: Sequence[tuple[Path, Path]]) -> Iterator[tuple[Pictures, Pictures]]:
    """Pairs of pictures and frames, all of the first one's size."""
    some, others, size = [], [], None
    for a, b in files:
        for frame, (picture, other) in enumerate(zip_longest(frames(a), frames(b))):
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
