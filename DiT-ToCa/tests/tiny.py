"""Small files with the real layout, and programs run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit.model import DiT
from dit.spec import CONFIGS, DiTConfig

FORK = Path(__file__).parents[1]
MINI8 = CONFIGS["DiT-mini"].replace(input_size=8)  # 16 tokens
LATENT = DiTConfig(depth=2, hidden_size=32, num_heads=2, patch_size=2, input_size=8, num_classes=5)  # 4 channels, as on a VAE
SIXTEEN_STEPS = ["--ddim-sample", "--num-sampling-steps", "16", "--fresh-threshold", "3"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For the module that imports it: tensors this small gain nothing from more threads, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_dit(config: DiTConfig = MINI8, seed: int = 0) -> DiT:
    """A DiT whose every weight matters (a fresh one outputs zeros)."""
    torch.manual_seed(seed)
    model = DiT(config).eval()
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.04 if p.ndim > 1 else 0.02)
    return model


def save_dit(path: Path, config: DiTConfig = MINI8, seed: int = 0) -> str:
    save_file({key: value.contiguous() for key, value in random_dit(config, seed).state_dict().items()}, path)
    return str(path)


def save_vae(folder: Path, blocks: int = 4) -> str:
    """A random AutoencoderKL of 4 latent channels and stride 2^(blocks - 1), as diffusers saves it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=[4] * blocks,
        norm_num_groups=2,
        latent_channels=4,
    ).save_pretrained(folder)
    return str(folder)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(FORK), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(program: str, *flags: str, processes: int = 0) -> list[str]:
    """The command line of a program of the fork, under torchrun if `processes`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    return [sys.executable, *launcher, str(FORK / program), *flags]


def run(program: str, *flags: str, processes: int = 0) -> subprocess.CompletedProcess:
    return subprocess.run(command(program, *flags, processes=processes), env=environment(), capture_output=True, text=True, timeout=120)
