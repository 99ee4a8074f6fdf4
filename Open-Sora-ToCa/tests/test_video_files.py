"""Pixels to files and back."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from PIL import Image
from programs import noise_video

from opensora.datasets.read_video import count_frames, read_video
from opensora.datasets.utils import count_reference, read_from_path
from opensora.datasets.write_video import frames_of, save_sample


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * ((a.float() - b.float()) / 255).square().mean().log10())


def test_a_video_survives_its_codec(tmp_path) -> None:
    frames = noise_video(9, 64, 96)
    save_sample(frames, tmp_path / "a.mp4", 24, {})
    back = read_video(tmp_path / "a.mp4")
    assert back.shape == frames.shape and count_frames(tmp_path / "a.mp4") == 9
    assert psnr(back, frames) > 26 > 20 > psnr(back.flip(-1), frames), "red is not blue"
    assert torch.equal(read_video(tmp_path / "a.mp4", most=4), back[:4])


def test_a_picture_survives_exactly(tmp_path) -> None:
    frames = noise_video(1, 16, 24)
    save_sample(frames, tmp_path / "a.png", 24, {})
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.tobytes() == frames.numpy().tobytes()
    read = read_from_path(str(tmp_path / "a.png"), (16, 24))
    assert torch.equal(frames_of(read), frames)


def test_pixels_are_rounded_and_clamped() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, -1 + 2 * 100.4 / 255, -1 + 2 * 100.6 / 255])
    assert frames_of(values.view(1, -1, 1, 1).expand(3, -1, 1, 1))[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255, 100, 101]


def test_a_reference_may_be_at_an_address(tmp_path) -> None:
    save_sample(noise_video(9, 16, 24), tmp_path / "a.mp4", 24, {})
    save_sample(noise_video(1, 16, 24), tmp_path / "a.png", 24, {})
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name, frames in (("a.mp4", 9), ("a.png", 1)):
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            assert count_reference(url) == frames
            assert torch.equal(read_from_path(url, (16, 24)), read_from_path(str(tmp_path / name), (16, 24)))
        with pytest.raises(ValueError, match=r"none\.png: cannot be fetched: File not found"):
            count_reference(f"http://127.0.0.1:{server.server_port}/none.png")
        server.shutdown()
