"""Small files with the real layout, and programs run on them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit.model import DiT
from dit.spec import CONFIGS, DiTConfig
from toca.testing import programs

FORK = Path(__file__).parents[1]
MINI8 = CONFIGS["DiT-mini"].replace(input_size=8)  # 16 tokens
LATENT = DiTConfig(depth=2, hidden_size=32, num_heads=2, patch_size=2, input_size=8, num_classes=5)  # 4 channels, as on a VAE
SIXTEEN_STEPS = ["--ddim-sample", "--num-sampling-steps", "16"]


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


def run(program: str, *flags: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """A program of the fork."""
    return programs.run(FORK / program, *flags, processes=processes)


@contextmanager
def refused(capsys: pytest.CaptureFixture[str], message: str) -> Iterator[None]:
    """The program ends with one line that has `message` in it, by the parser (status 2) or before anything is loaded (1)."""
    with pytest.raises(SystemExit) as ended:
        yield
    line = capsys.readouterr().err if ended.value.code == 2 else f"{ended.value.code}\n"
    assert re.search(message, line), line
    assert "error: " in line and line.count("\n") == 1
