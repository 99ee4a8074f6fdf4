"""Upstream's import paths and ways to start its programs, from the fork's folder."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FORK = Path(__file__).parents[1]


NAMES = {
    "flux.math": "attention rope",
    "flux.model": "Flux FluxParams",
    "flux.modules.autoencoder": "AutoEncoder AutoEncoderParams",
    "flux.modules.conditioner": "HFEmbedder",
    "flux.modules.image_embedders": "ReduxAdapter",
    "flux.modules.layers": "DoubleStreamBlock EmbedND LastLayer MLPEmbedder SingleStreamBlock timestep_embedding",
    "flux.modules.lora": "LinearLora replace_linear_with_lora",
    "flux.sampling": "denoise get_noise get_schedule prepare time_shift unpack",
    "flux.util": "configs load_ae load_clip load_flow_model load_t5",
}


@pytest.mark.parametrize("module", NAMES)
def test_import_paths(module: str) -> None:
    assert all(hasattr(importlib.import_module(module), name) for name in NAMES[module].split())


@pytest.mark.parametrize("command", ["-m src.flux.cli", "-m src.flux.cli_fill", "-m flux redux", "src/geneval_flux.py"])
def test_programs_start_from_the_forks_folder(command: str) -> None:
    """Every one answers."""
    done = subprocess.run([sys.executable, *command.split(), "--num_steps", "0"], cwd=FORK, capture_output=True, text=True)
    assert done.returncode == 2 and "--num_steps: must be a whole number of 1 to 1000" in done.stderr
