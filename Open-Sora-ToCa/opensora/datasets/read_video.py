"""Frames of a video file. PyAV decodes and encodes; it brings its own ffmpeg libraries."""

from __future__ import annotations

import itertools
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_video(source: str | Path | BytesIO, most: int | None = None) -> Tensor:
    """The first `most` frames of a video, or all of them, upright, (T, H, W, 3) uint8. Raises ValueError if it cannot be decoded."""
    import av

    try:
        with av.open(source) as container:
            frames = [_upright(frame) for frame in itertools.islice(container.decode(video=0), most)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"not a readable video: {error}") from error
    if not frames:
        raise ValueError("a video without frames")
    return torch.from_numpy(np.stack(frames))


def _upright(frame: Any) -> np.ndarray:
    """A frame as players show it: phones note how they were held beside what they saw."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))  # both counterclockwise


def count_frames(source: str | Path | BytesIO) -> int:
    """The frames of a video whose first one can be decoded, without decoding the others. Raises ValueError if it cannot."""
    import av

    read_video(source, most=1)
    if isinstance(source, BytesIO):
        source.seek(0)
    with av.open(source) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))
