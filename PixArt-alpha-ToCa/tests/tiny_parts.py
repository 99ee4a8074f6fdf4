"""Tiny random components in the layout of the published ones, and the programs run on them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from small import small_pixart

import pixart.spec
from pixart.spec import CONFIGS, PixArtConfig
from toca.testing.parts import save_t5, save_vae
from toca.testing.programs import run

FORK = Path(__file__).resolve().parents[1]
WIDTH, LENGTH = 16, 26  # of the texts, the length above that of the published totals
TINY = {
    size: config.replace(hidden_size=24, depth=3, num_heads=2, caption_channels=WIDTH, model_max_length=LENGTH)
    for size, config in CONFIGS.items()
}


def save_pixart(path: Path, config: PixArtConfig, seed: int = 0, **more: object) -> str:
    torch.save({"state_dict": small_pixart(config, seed).state_dict(), **more}, path)
    return str(path)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `{size}.pth`, `vae` and `t5-v1_1-xxl`."""
    folder = tmp_path_factory.mktemp("parts")
    for size, config in TINY.items():
        save_pixart(folder / f"{size}.pth", config)
    save_vae(folder / "vae")
    save_t5(folder / "t5-v1_1-xxl", WIDTH)
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released models, tiny, and no network."""
    for size, config in TINY.items():
        monkeypatch.setitem(pixart.spec.CONFIGS, size, config)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def flags(parts: Path, out: Path, *more: str, size: int = 256) -> list[str]:
    """Of a short run on the tiny parts."""
    files = ["--model_path", f"{parts}/{size}.pth", "--vae", f"{parts}/vae", "--t5_path", str(parts), "--text_cache", f"{out}/texts"]
    return ["--image_size", str(size), *files, "--device", "cpu", "--step", "4", *more]


def program(name: str, *flags: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """A program on tiny models."""
    return run(Path(__file__).parent / "tiny_program.py", name, *flags, processes=processes)
