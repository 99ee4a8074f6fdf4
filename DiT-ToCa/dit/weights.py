"""DiT's networks from files: the embedded DiT-mini, the official DiT-XL/2, one's own, and the autoencoder of those on latents."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit.flags import FOLDER, OFFICIAL, PRETRAINED, RunSettings
from dit.layouts import LABELS, POSITIONS, diffusers_names, diffusers_shapes, from_diffusers, of_diffusers, shapes
from dit.model import DiT
from dit.spec import DiTConfig
from toca.console import announce
from toca.loading.autoencoder import LATENT_SCALE, PUBLISHED, Decoder, Encoder, check_autoencoder, decoder, load_autoencoder
from toca.loading.weights import check_header, find, load_into, load_state_dict, shapes_of
from toca.nn.layers import sincos_2d
from toca.runs.programs import DTYPES, program_errors

SOURCE = "https://dl.fbaipublicfiles.com/DiT/models/"
MINI = FOLDER / "weights" / "DiT-mini.safetensors"


def checkpoint_path(model: str, image_size: int, ckpt: str | None = None) -> Path:
    """The checkpoint of a model: a file, or the folder of a diffusers model or pipeline.

    Raises FileNotFoundError that says where to get it, where to put it, and what needs none.
    """
    instead = "`--model DiT-mini` runs without any download"
    if ckpt is not None:
        if (folder := Path(ckpt)).is_dir():
            return folder / "transformer" if (folder / "transformer").is_dir() else folder
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


def check_checkpoint(path: Path, config: DiTConfig, resizes: bool, guided: bool) -> DiTConfig:
    """Make sure, without reading the tensors, that a checkpoint is one of a model; returns its configuration.

    That has no null label where the checkpoint, trained without label dropout, has none. resizes, guided: as in `RunSettings`.
    Raises ValueError or OSError as `load_model`, and if guidance has no null label to be measured from.
    """
    found = shapes_of(path)
    theirs = of_diffusers(found)
    labels = diffusers_names(1)[LABELS][0] if theirs else LABELS
    if labels in found and found[labels][0] == config.num_classes:
        if guided:
            rows = f"{config.num_classes} rows of {labels} for as many classes"
            raise ValueError(f"{path} was trained without a null label ({rows}), which guidance needs: sample with --cfg-scale 1")
        config = config.replace(class_dropout_prob=0.0)
    expected = diffusers_shapes(config) if theirs else shapes(config)
    if computed := not theirs and (resizes or POSITIONS not in found):
        expected.pop(POSITIONS)
    check_header(path, expected, ignored=(POSITIONS,) if computed else ())
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in its published layout. Raises ValueError or OSError if it is none."""
    state = load_state_dict(path)
    if not of_diffusers(state):
        return state
    announce(f"{path}: a DiT in diffusers' layout, converted")
    return from_diffusers(state, str(path))


def load_model(settings: RunSettings, device: torch.device) -> DiT:
    """The model with its checkpoint, in the wanted dtype, built without initialising weights first.

    Only the fixed position table depends on the image size. It is computed where the checkpoint has none, or one of another size than the
    `--image-size` that was asked for, and a line says so; without the flag, and for every other tensor, loading is strict.
    """
    path, config = settings.checkpoint, settings.config
    state = read_tensors(path)
    with torch.device("meta"):
        model = DiT(config)
    table = state.get(POSITIONS)
    computed = table is None or (settings.resizes and table.shape != model.pos_embed.shape)
    if computed:
        state[POSITIONS] = torch.from_numpy(sincos_2d(config.hidden_size, *map(np.arange, config.grid))).float()[None]
    load_into(model, state, str(path))
    if computed:
        held = "no table of positions: computed" if table is None else f"{table.shape[1]} positions: recomputed"
        announce(f"{path} holds {held} for the {config.num_tokens} of --image-size {settings.image_size}")
    return model.to(device, DTYPES[settings.dtype]).eval()


# ---- the autoencoder ------------------------------------------------------------------------------------------------------------------


def vae_source(name: str) -> tuple[str, str]:
    """The folder or hub name of a VAE, and what to do if it is not there. `ema` and `mse` are looked for in pretrained_models/ first."""
    local = PRETRAINED / f"sd-vae-ft-{name}"
    source = str(local) if name in PUBLISHED and local.is_dir() else PUBLISHED.get(name, name)
    where = f"run `python download.py --vae {name}`, or put its folder at {local}" if name in PUBLISHED else "is it a diffusers folder?"
    return source, f"{where}, or give a folder or hub name with --vae; `--model DiT-mini` runs without any"


def check_vae(name: str) -> None:
    """Make sure, without loading it, that a VAE is there and fits. Raises ValueError that says where to get it, or what does not fit."""
    if name != "none":
        check_autoencoder(*vae_source(name))


def load_vae(name: str, device: torch.device) -> torch.nn.Module:
    """diffusers' AutoencoderKL `ema`, `mse`, from a folder or by its hub name, in float32. Raises ValueError as `check_vae`."""
    source, advice = vae_source(name)
    return load_autoencoder(source, device, advice)


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
