"""Tiny random components of FLUX in the files of the real ones."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from flux.modules.lora import replace_linear_with_lora
from flux.spec import FluxParams
from toca.testing.parts import randomize, save_module

TINY_AE = AutoEncoderParams(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1, z_channels=16)
T5_WIDTH, CLIP_WIDTH = 40, 24


def save_ae(path: Path, params: AutoEncoderParams = TINY_AE) -> Path:
    return save_module(randomize(AutoEncoder(params)), path)


TINY_FLUX = FluxParams(
    vec_in_dim=CLIP_WIDTH, context_in_dim=T5_WIDTH, hidden_size=32, num_heads=2, depth=2, depth_single_blocks=3, axes_dim=(4, 6, 6)
)


def save_flux(path: Path, params: FluxParams = TINY_FLUX, seed: int = 0) -> Path:
    return save_module(randomize(Flux(params), seed), path)


def save_adapter(path: Path, params: FluxParams, max_rank: int = 4, seed: int = 1) -> Path:
    """An adapter for a model of `params`, in the published layout."""
    model = Flux(params)
    replace_linear_with_lora(model, max_rank)
    state = randomize(model, seed).state_dict()
    save_file({key: value.contiguous() for key, value in state.items() if "lora_" in key or "_norm.scale" in key}, path)
    return path
