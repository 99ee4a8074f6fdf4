"""Stable Diffusion's autoencoder between pictures and 4-channel latents of an eighth of their side, through diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toca.loading.pretrained import config_of, from_disk_or_hub, is_hub_name
from toca.loading.weights import check_tensors, plain_reason, shapes_of

Encoder = Decoder = Callable[[Tensor], Tensor]
PUBLISHED = {name: f"stabilityai/sd-vae-ft-{name}" for name in ("ema", "mse")}
LATENT_SCALE = 0.18215
STRIDE, CHANNELS = 8, 4
DECODE_BATCH = 8


def load_autoencoder(source: str, device: torch.device, advice: str) -> torch.nn.Module:
    """diffusers' AutoencoderKL from a folder or by its hub name, in float32.

    advice: where to get one, for the ValueError if there is none. Raises ValueError too if it does not fit, is damaged or lacks tensors.
    """
    from diffusers import AutoencoderKL

    try:
        vae, info = from_disk_or_hub(AutoencoderKL, source, low_cpu_mem_usage=False, output_loading_info=True)
    except MemoryError:
        raise
    except Exception as error:  # of a missing folder, a damaged file, or a configuration that does not go with it
        raise ValueError(f"no VAE {source}: {advice} ({plain_reason(error)})") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"VAE {source} lacks {len(missing)} of its tensors, first {missing[0]}: {advice}")
    check_tensors(vae.state_dict(), str(source))
    _check_kind(vae.config, source)
    return vae.requires_grad_(False).to(device).eval()


def check_autoencoder(source: str, advice: str) -> None:
    """Make sure, without loading it, that an autoencoder is there and of the right kind; of a hub name, its configuration alone.

    Raises ValueError as `load_autoencoder`, but not on what only the weights tell.
    """
    try:
        if is_hub_name(source):
            from diffusers import AutoencoderKL

            try:
                config = AutoencoderKL.load_config(source, local_files_only=True)
            except OSError:
                config = AutoencoderKL.load_config(source)
        else:
            config = config_of(Path(source))
            shapes_of(source)
    except Exception as error:
        raise ValueError(f"no VAE {source}: {advice} ({plain_reason(error)})") from error
    _check_kind(config, source)


def _check_kind(config: Mapping[str, Any], source: str) -> None:
    blocks, channels = config.get("block_out_channels", ()), config.get("latent_channels")
    stride = 2 ** (len(blocks) - 1) if blocks else None
    if (stride, channels) != (STRIDE, CHANNELS):
        raise ValueError(f"VAE {source} has {channels} latent channels and stride {stride}; the model is made for {CHANNELS} and {STRIDE}")


def decoder(vae: torch.nn.Module, device: torch.device) -> Decoder:
    """Latents (B, 4, h, w) to pixels (B, 3, 8h, 8w) around [-1, 1], a few at a time."""
    batch = DECODE_BATCH if device.type == "cuda" else 1  # a CPU gains nothing from more, and rounding then ignores the batch

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return torch.cat([vae.decode(chunk / LATENT_SCALE).sample for chunk in latents.split(batch)])

    return decode
