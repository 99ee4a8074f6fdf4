"""Run the fork's programs in this process, and look at the files they write."""

from __future__ import annotations

import io
import runpy
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from torch import Tensor

from opensora.datasets.read_video import read_video

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--image-size", "16", "24", "--num-frames", "17", "--num-sampling-steps", "6")


def run(monkeypatch: pytest.MonkeyPatch, program: str, *argv: object) -> None:
    """A program as if started with these arguments."""
    monkeypatch.setattr(sys, "argv", [program, *map(str, argv)])
    runpy.run_path(str(ROOT / program), run_name="__main__")


def infer(monkeypatch: pytest.MonkeyPatch, config: Path, folder: Path, *argv: object) -> None:
    """scripts/inference.py for small videos; later arguments win."""
    run(monkeypatch, "scripts/inference.py", config, "--save-dir", folder, *SMALL, *argv)


def fails(monkeypatch: pytest.MonkeyPatch, config: Path, folder: Path, *argv: object) -> str:
    """The one line that scripts/inference.py ends with; it has written nothing."""
    with pytest.raises(SystemExit) as caught, redirect_stderr(io.StringIO()) as err:
        infer(monkeypatch, config, folder, *argv)
    assert not folder.exists()
    line = f"{caught.value.code}\n" if isinstance(caught.value.code, str) else err.getvalue()
    assert line.count("\n") == 1 and caught.value.code not in (0, None)
    return line


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def noise_video(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Coarse noise, which survives a video codec: (T, H, W, 3) uint8."""
    coarse = torch.rand(1, 3, frames, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear")[0]
    return (smooth * 255).to(torch.uint8).permute(1, 2, 3, 0)


def pixels(path: Path) -> Tensor:
    return read_video(path).int()


def alike(a: Path, b: Path) -> bool:
    """Whether two videos show the same. The encoder does not always make the same of frames as small as these; others differ by 24."""
    return len(pixels(a)) == len(pixels(b)) and float((pixels(a) - pixels(b)).abs().float().mean()) < 6
