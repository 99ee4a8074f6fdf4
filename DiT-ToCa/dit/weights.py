"""Which autoencoder a DiT works with; models that work on pixels need none."""

from __future__ import annotations

from pathlib import Path

import torch

from download import PRETRAINED
from toca.loading.autoencoder import LATENT_SCALE, PUBLISHED, Decoder, Encoder, decoder, load_autoencoder


def vae_name(name: str | None, in_channels: int, default: str) -> str:
    """The `--vae` of a model: `none` for one on pixels (3 channels). Raises ValueError where the flag and the model do not go together."""
    name = name or ("none" if in_channels == 3 else default)
    if (name == "none") != (in_channels == 3):
        needs = "works on pixels: leave --vae out" if in_channels == 3 else f"works on {in_channels}-channel latents: it needs a VAE"
        raise ValueError(f"--vae {name}: the model {needs}")
    return name


def load_vae(name: str, device: torch.device) -> torch.nn.Module:
    """diffusers' AutoencoderKL `ema`, `mse`, from a folder or by its hub name, in float32.

    Looks in `pretrained_models/` before the hub. Raises ValueError that says where to get it, where to put it, and what runs without,
    or what does not fit.
    """
    local = PRETRAINED / f"sd-vae-ft-{name}"
    source = str(local) if name in PUBLISHED and local.is_dir() else PUBLISHED.get(name, name)
    where = f"run `python download.py --vae {name}`, or put its folder at {local}" if name in PUBLISHED else "is it a diffusers folder?"
    return load_autoencoder(source, device, f"{where}, or give a folder or hub name with --vae; `--model DiT-mini` runs without any")


def load_decoder(name: str, device: torch.device) -> Decoder:
    """Latents (B, 4, h, w) to pixels (B, 3, 8h, 8w) around [-1, 1], a few at a time; the identity for `none`."""
    if name == "none":
        return lambda x: x
    return decoder(load_vae(name, device), device)


def load_encoder(name: str, device: torch.device) -> Encoder:
    """Pixels (B, 3, H, W) in [-1, 1] to a scaled sample of the posterior (B, 4, H/8, W/8); the identity for `none`."""
    if name == "none":
        return lambda x: x
    vae = load_vae(name, device)
    return torch.no_grad()(lambda x: vae.encode(x).latent_dist.sample().mul_(LATENT_SCALE))


def save_published(name: str) -> Path:
    """Fetch a published VAE into `pretrained_models/`, for machines that will be offline."""
    folder = PRETRAINED / f"sd-vae-ft-{name}"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        load_vae(name, torch.device("cpu")).save_pretrained(part)
        part.rename(folder)
    return folder
