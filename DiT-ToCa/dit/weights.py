"""DiT's networks from files: the embedded DiT-mini, the official DiT-XL/2, one's own, and the autoencoder of those on latents."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dit.flags import FOLDER, OFFICIAL, PRETRAINED, RunSettings
from dit.model import DiT
from toca.console import announce
from toca.loading.autoencoder import LATENT_SCALE, PUBLISHED, Decoder, Encoder, decoder, load_autoencoder
from toca.loading.weights import find, load_into, load_state_dict
from toca.nn.layers import sincos_2d
from toca.runs.programs import DTYPES, program_errors

SOURCE = "https://dl.fbaipublicfiles.com/DiT/models/"
MINI = FOLDER / "weights" / "DiT-mini.safetensors"


def checkpoint_path(model: str, image_size: int, ckpt: str | None = None) -> Path:
    """The checkpoint file for a model. Raises FileNotFoundError that says where to get it, where to put it, and what needs none."""
    instead = "`--model DiT-mini` runs without any download"
    if ckpt is not None:
        source = SOURCE + ckpt if ckpt in OFFICIAL.values() else "wherever it was trained (train.py writes its own under results/)"
        return find(ckpt, PRETRAINED, source, instead)
    if model == "DiT-mini":
        return find(MINI.name, MINI.parent, "this repository, which carries it", "train.py makes another one")
    if model != "DiT-XL/2" or image_size not in OFFICIAL:
        raise FileNotFoundError(
            f"no official weights for {model} at {image_size} pixels (only DiT-XL/2 at 256 and 512): give your own with --ckpt; {instead}"
        )
    name = OFFICIAL[image_size]
    return find(name, PRETRAINED, f"{SOURCE}{name} (`python download.py` does)", instead)


def load_model(settings: RunSettings, device: torch.device) -> DiT:
    """The model with its checkpoint, in the wanted dtype, built without initialising weights first.

    Only the fixed position table depends on the image size. A checkpoint of another size is loaded at an `--image-size` that was asked for
    by recomputing that table, and a line says so; without the flag, and for every other tensor, loading is strict.
    """
    path, config = settings.checkpoint, settings.config
    state = load_state_dict(path)
    with torch.device("meta"):
        model = DiT(config)
    table = state.get("pos_embed")
    resized = settings.resizes and table is not None and table.shape != model.pos_embed.shape
    if resized:
        state["pos_embed"] = torch.from_numpy(sincos_2d(config.hidden_size, *map(np.arange, config.grid))).float()[None]
    load_into(model, state, str(path))
    if resized:
        announce(f"{path} holds {table.shape[1]} positions: recomputed for the {config.num_tokens} of --image-size {settings.image_size}")
    return model.to(device, DTYPES[settings.dtype]).eval()


# ---- the autoencoder ------------------------------------------------------------------------------------------------------------------


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


# ---- download.py ----------------------------------------------------------------------------------------------------------------------


def save_published(name: str) -> Path:
    """Fetch a published VAE into `pretrained_models/`, for machines that will be offline."""
    folder = PRETRAINED / f"sd-vae-ft-{name}"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        load_vae(name, torch.device("cpu")).save_pretrained(part)
        part.rename(folder)
    return folder


@program_errors()
def download(args: argparse.Namespace) -> None:
    """download.py: fetch the official files that are not there yet. An interrupted download leaves no file of the final name."""
    from torch.hub import download_url_to_file

    PRETRAINED.mkdir(exist_ok=True)
    for size in args.image_size:
        if not (path := PRETRAINED / OFFICIAL[size]).exists():
            download_url_to_file(SOURCE + path.name, str(path))
        announce(str(path))
    for name in args.vae:
        announce(str(save_published(name)))
