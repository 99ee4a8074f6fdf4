"""PixArt's checkpoints: the official files, training checkpoints, and diffusers' PixArtTransformer2DModel, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixart.flags import PRETRAINED
from pixart.model import PixArt, PixArtMS
from pixart.spec import CONFIGS, VAE_STRIDE, PixArtConfig
from toca.loading.autoencoder import PUBLISHED
from toca.loading.weights import find, load_into, load_state_dict

REPO = "PixArt-alpha/PixArt-alpha"
OFFICIAL = {256: "PixArt-XL-2-256x256.pth", 512: "PixArt-XL-2-512x512.pth", 1024: "PixArt-XL-2-1024-MS.pth"}
VAE = "sd-vae-ft-ema"
POSITIONS, NULL_TEXT = "pos_embed", "y_embedder.y_embedding"  # what diffusers' model has no place for

MODULES = {  # ours -> diffusers', outside the blocks; each with a weight and a bias
    "x_embedder.proj": "pos_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "final_layer.linear": "proj_out",
}
BLOCK_MODULES = {  # of blocks.i -> of transformer_blocks.i; several names: equal parts of ours, in this order
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}


def checkpoint_path(image_size: int, given: str | None = None) -> Path:
    """The checkpoint file. Raises FileNotFoundError that says where to get it and where to put it."""
    name = given or OFFICIAL[image_size]
    source = f"https://huggingface.co/{REPO} (`python tools/download.py` fetches {', '.join(OFFICIAL.values())})"
    return find(name, PRETRAINED, source, "or give another file with --model_path")


def vae_source(given: str | None = None) -> str:
    """The folder or hub name of the autoencoder: as given, else what was downloaded, else the published one."""
    return given or (str(PRETRAINED / VAE) if (PRETRAINED / VAE).is_dir() else PUBLISHED["ema"])


def load_model(path: Path, image_size: int, device: torch.device, dtype: torch.dtype = torch.float32, ema: bool = False) -> PixArt:
    """The model of a checkpoint, for sampling. ema: take `state_dict_ema` of a training checkpoint.

    Strict, but for the position table, which is computed. Raises ValueError that names what differs, or the resolution it was made for.
    """
    config = CONFIGS[image_size]
    with torch.device("meta"):
        model = (PixArtMS if config.micro_conditions else PixArt)(config)
    state = load_state_dict(path, parts=("state_dict_ema",) if ema else ("state_dict",))
    _check_positions(state.get(POSITIONS), config, path, image_size)
    load_into(model, state | {POSITIONS: model.pos_embed}, str(path))
    return model.to(device, dtype).requires_grad_(False).eval()


def _check_positions(table: Tensor | None, config: PixArtConfig, path: Path, image_size: int) -> None:
    tokens = math.prod(config.grid())
    if table is not None and table.shape[1] != tokens:
        side = math.isqrt(table.shape[1]) * config.patch_size * VAE_STRIDE
        raise ValueError(f"{path} is a checkpoint for {side} pixels, not for --image_size {image_size}")


# ---- diffusers ---------------------------------------------------------------------------------------------------------------------------


def diffusers_config(config: PixArtConfig) -> dict[str, Any]:
    """The arguments of diffusers' PixArtTransformer2DModel."""
    return dict(
        sample_size=config.input_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.hidden_size // config.num_heads,
        cross_attention_dim=config.hidden_size,
        caption_channels=config.caption_channels,
        interpolation_scale=int(config.lewei_scale),
        use_additional_conditions=config.micro_conditions,
    )


def key_map(depth: int, micro_conditions: bool) -> dict[str, tuple[str, ...]]:
    """Our key -> diffusers' keys, whose tensors lie one after the other in ours."""
    pairs = {ours: (theirs,) for ours, theirs in MODULES.items() if micro_conditions or not ours.startswith(("csize", "ar_"))}
    for i in range(depth):
        pairs |= {f"blocks.{i}.{ours}": tuple(f"transformer_blocks.{i}.{t}" for t in theirs) for ours, theirs in BLOCK_MODULES.items()}
    keys = {f"{ours}.{p}": tuple(f"{t}.{p}" for t in theirs) for ours, theirs in pairs.items() for p in ("weight", "bias")}
    keys |= {f"blocks.{i}.scale_shift_table": (f"transformer_blocks.{i}.scale_shift_table",) for i in range(depth)}
    return keys | {"final_layer.scale_shift_table": ("scale_shift_table",)}


def to_diffusers(state: Mapping[str, Tensor], config: PixArtConfig) -> dict[str, Tensor]:
    """The tensors of diffusers' model; the position table and the null text are left out. Raises ValueError on other keys than expected."""
    keys = key_map(config.depth, config.micro_conditions)
    _same_keys("the checkpoint", {*state} - {POSITIONS, NULL_TEXT}, {*keys})
    out = {}
    for ours, theirs in keys.items():
        out |= {key: part.contiguous() for key, part in zip(theirs, state[ours].chunk(len(theirs)))}
    return out


def from_diffusers(state: Mapping[str, Tensor], config: PixArtConfig, null_text: Tensor) -> dict[str, Tensor]:
    """Our tensors, but for the position table, which loading computes.

    null_text: (L, D), what guidance is measured from; diffusers encodes an empty prompt instead. Raises ValueError on other keys or shape.
    """
    expected = (config.model_max_length, config.caption_channels)
    if tuple(null_text.shape) != expected:
        raise ValueError(f"the null text is {tuple(null_text.shape)}, wanted {expected}")
    keys = key_map(config.depth, config.micro_conditions)
    _same_keys("the diffusers model", {*state}, {key for theirs in keys.values() for key in theirs})
    out = {ours: torch.cat([state[key] for key in theirs]) for ours, theirs in keys.items()}
    return out | {NULL_TEXT: null_text.contiguous()}


def _same_keys(what: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        raise ValueError(f"{what} lacks {sorted(wanted - found)[:8]} and has {sorted(found - wanted)[:8]} beyond what PixArt has")
