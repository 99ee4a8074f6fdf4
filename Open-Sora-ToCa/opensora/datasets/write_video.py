"""Videos and pictures that say what made them, and are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from opensora.datasets.read_video import read_video
from toca.runs.files import atomic_path
from toca.runs.pictures import to_uint8

CODEC = "libx264"
COMMENT = "comment"  # of a file's metadata: the settings, as JSON
WATERMARK = "Open-Sora"


def check_encoder() -> None:
    """Raises ValueError if videos cannot be written here."""
    try:
        import av
    except ImportError as error:
        raise ValueError(f"videos need PyAV and its ffmpeg libraries: pip install av ({error})") from error
    if CODEC not in av.codecs_available:
        raise ValueError(f"the ffmpeg libraries of this PyAV have no {CODEC} encoder: pip install av brings ones that do")


def frames_of(clip: Tensor) -> Tensor:
    """Pixels (3, T, H, W) in [-1, 1] as (T, H, W, 3) uint8 on the CPU."""
    return torch.from_numpy(to_uint8(clip.transpose(0, 1)))


def marked(frames: Tensor) -> Tensor:
    """Frames (T, H, W, 3) with the name of the model in the lower right corner."""
    height, width = frames.shape[1:3]
    stamp = Image.new("L", (width, height))
    font = ImageFont.load_default(size=max(height / 24, 8))
    ImageDraw.Draw(stamp).text((0.98 * width, 0.98 * height), WATERMARK, fill=160, font=font, anchor="rd")
    alpha = torch.frombuffer(bytearray(stamp.tobytes()), dtype=torch.uint8).view(1, height, width, 1).int()
    return (frames + (255 - frames.int()) * alpha // 255).to(torch.uint8)


def save_sample(frames: Tensor, path: Path, fps: int, about: Mapping[str, Any]) -> None:
    """One frame (1, H, W, 3) uint8 as a PNG, more as H.264 video of `fps`, by the ending of `path`. about: noted in the file."""
    comment = json.dumps(about, sort_keys=True)
    with atomic_path(path) as part:
        if path.suffix == ".png":
            info = PngInfo()
            info.add_itxt(COMMENT, comment)
            Image.fromarray(frames[0].numpy()).save(part, pnginfo=info)
        else:
            _write_video(frames, part, fps, comment)


def _write_video(frames: Tensor, path: Path, fps: int, comment: str) -> None:
    import av

    with av.open(path, "w") as container:
        container.metadata[COMMENT] = comment
        stream = container.add_stream(CODEC, rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_sample(path: Path) -> Tensor:
    """The frames (T, H, W, 3) uint8 of a file of `save_sample`. Raises ValueError or OSError if it cannot be read."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return torch.from_numpy(np.array(picture.convert("RGB")))[None]
    return read_video(path)


def about_sample(path: Path) -> dict[str, Any] | None:
    """What `save_sample` noted in a file; None if there is no such file, or it says nothing."""
    if not path.is_file():
        return None
    try:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                text = picture.text.get(COMMENT)
        else:
            import av

            with av.open(path) as container:
                text = container.metadata.get(COMMENT)
        about = json.loads(text or "null")
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None
