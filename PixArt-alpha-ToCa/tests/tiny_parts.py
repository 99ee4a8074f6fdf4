"""Tiny random components in the layout of the published ones, and the programs run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import small_pixart

import pixart.spec
from pixart.spec import CONFIGS, PixArtConfig

FORK = Path(__file__).resolve().parents[1]
WIDTH, LENGTH = 16, 26  # of the texts, the length above that of the published totals
TINY = {
    size: config.replace(hidden_size=24, depth=3, num_heads=2, caption_channels=WIDTH, model_max_length=LENGTH)
    for size, config in CONFIGS.items()
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_pixart(path: Path, config: PixArtConfig, seed: int = 0, **more: object) -> str:
    torch.save({"state_dict": small_pixart(config, seed).state_dict(), **more}, path)
    return str(path)


def save_vae(folder: Path) -> str:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    kinds = dict(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
    AutoencoderKL(**kinds, block_out_channels=[2] * 4, norm_num_groups=1, latent_channels=4).save_pretrained(folder)
    return str(folder)


def save_t5(folder: Path, width: int = WIDTH) -> str:
    """A two-layer T5 whose tokenizer knows letters and a space."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("\u2581" + x, -2.0) for x in LETTERS), *((x, -3.0) for x in LETTERS)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    T5EncoderModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `{size}.pth`, `vae` and `t5-v1_1-xxl`."""
    folder = tmp_path_factory.mktemp("parts")
    for size, config in TINY.items():
        save_pixart(folder / f"{size}.pth", config)
    save_vae(folder / "vae")
    save_t5(folder / "t5-v1_1-xxl")
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


def program(name: str, *flags: str, processes: int = 0) -> subprocess.CompletedProcess:
    """A program in a process of its own, or in several under torchrun, on tiny models."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, str(Path(__file__).parent / "tiny_program.py"), name, *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
