"""PixArt's checkpoints: the official files, training checkpoints, and diffusers' PixArtTransformer2DModel, both ways."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pixart.flags import PRETRAINED
from pixart.model import PixArt, PixArtMS
from pixart.spec import CONFIGS, VAE_STRIDE, PixArtConfig
from toca.console import announce
from toca.loading.autoencoder import PUBLISHED
from toca.loading.pretrained import config_of
from toca.loading.weights import check_header, find, load_into, load_state_dict, parts_of, shapes_of
from toca.runs.files import atomic_folder, atomic_path

REPO = "PixArt-alpha/PixArt-alpha"
OTHERS = ("PixArt-XL-2-SAM-256x256.pth", "PixArt-XL-2-256x256-MSCOCO-FID732.pth")  # published too
OFFICIAL = {256: "PixArt-XL-2-256x256.pth", 512: "PixArt-XL-2-512x512.pth", 1024: "PixArt-XL-2-1024-MS.pth"}
VAE = "sd-vae-ft-ema"
VAE_ADVICE = "give its folder or hub name with --vae; `python tools/download.py --vae` fetches the published one"
EMA = "state_dict_ema"
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
    """The checkpoint: a file, or a folder of diffusers', its transformer's or the one above.

    Raises FileNotFoundError that says where to get it and where to put it.
    """
    name = given or OFFICIAL[image_size]
    for folder in (Path(name) / "transformer", Path(name)):
        if folder.is_dir():
            return folder
    source = f"https://huggingface.co/{REPO} (`python tools/download.py` fetches {', '.join(OFFICIAL.values())})"
    return find(name, PRETRAINED, source, "or give another file with --model_path")


def vae_source(given: str | None = None) -> str:
    """The folder or hub name of the autoencoder: as given, or diffusers' inside it; else what was downloaded; else the published one."""
    if given and (Path(given) / "vae" / "config.json").is_file() and not (Path(given) / "config.json").is_file():
        return str(Path(given) / "vae")
    return given or (str(PRETRAINED / VAE) if (PRETRAINED / VAE).is_dir() else PUBLISHED["ema"])


def load_model(
    path: Path,
    image_size: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    ema: bool = False,
    null_text: Tensor | None = None,
) -> PixArt:
    """The model of a checkpoint, for sampling. Strict, but for the position table, which is computed.

    ema: take the averaged weights of a training checkpoint.
    null_text: for a checkpoint in diffusers' layout, which has none: (L, D), or T5's features of an empty prompt, (1, D).
    Raises ValueError that names what differs, or the resolution it was made for.
    """
    config = CONFIGS[image_size]
    model = _on_meta(config)
    state = load_state_dict(path, _parts(path, ema))
    if of_diffusers(state):
        if null_text is None:
            raise ValueError(f"{path} is in diffusers' layout, which has no null text: T5's features of an empty prompt are needed")
        state = from_diffusers(state, config, null_text if len(null_text) > 1 else repeated(null_text, config.model_max_length))
    else:
        _check_positions(state[POSITIONS].shape if POSITIONS in state else None, config, path, image_size)
    load_into(model, state | {POSITIONS: model.pos_embed}, str(path))
    return model.to(device, dtype).requires_grad_(False).eval()


def check_checkpoint(path: Path, image_size: int, ema: bool = False) -> bool:
    """Make sure, without reading the tensors, that a checkpoint is one of the size's model; returns whether it is in diffusers' layout.

    Raises ValueError or OSError as `load_model`.
    """
    config = CONFIGS[image_size]
    parts, expected = _parts(path, ema), {key: tuple(value.shape) for key, value in _on_meta(config).state_dict().items()}
    shapes = shapes_of(path, parts)
    if of_diffusers(shapes):
        _check_resolution(path, config, image_size)
        keys = key_map(config.depth, config.micro_conditions)
        expected = {key: (expected[ours][0] // len(theirs), *expected[ours][1:]) for ours, theirs in keys.items() for key in theirs}
    else:
        _check_positions(shapes.get(POSITIONS), config, path, image_size)
    check_header(path, {key: shape for key, shape in expected.items() if key != POSITIONS}, parts, ignored=(POSITIONS,))
    return of_diffusers(shapes)


def _on_meta(config: PixArtConfig) -> PixArt:
    with torch.device("meta"):
        return (PixArtMS if config.micro_conditions else PixArt)(config)


def _parts(path: Path, ema: bool) -> tuple[str]:
    """What to take of a training checkpoint. Raises ValueError if it is not there."""
    if ema and EMA not in (found := parts_of(path)):
        has = f"only {', '.join(found)}" if found else "one set of weights alone"
        raise ValueError(f"--ema: {path} has no averaged weights ({EMA}); it has {has}")
    return (EMA if ema else "state_dict",)


def _check_positions(table: Sequence[int] | None, config: PixArtConfig, path: Path, image_size: int) -> None:
    """table: the shape of the position table, which says for which square it was made."""
    tokens = math.prod(config.grid())
    if table is not None and len(table) == 3 and table[1] != tokens:
        side = math.isqrt(table[1]) * config.patch_size * VAE_STRIDE
        raise ValueError(f"{path} is a checkpoint for {side} pixels, not for --image_size {image_size}")


def _check_resolution(path: Path, config: PixArtConfig, image_size: int) -> None:
    """Of a checkpoint in diffusers' layout, whose configuration alone says it. Raises ValueError if it is another."""
    folder = path if path.is_dir() else path.parent
    side = config_of(folder).get("sample_size") if (folder / "config.json").exists() else None
    if side is None:
        announce(f"{path} does not say for which resolution it was made: it is taken for --image_size {image_size}")
    elif side != config.input_size:
        made = f"{side * VAE_STRIDE} pixels" if isinstance(side, int) else f"a sample_size of {side!r}"
        raise ValueError(f"{path} is a checkpoint for {made}, not for --image_size {image_size}")


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


def of_diffusers(state: Collection[str]) -> bool:
    """Whether keys are those of diffusers' model."""
    return f"{MODULES['t_block.1']}.weight" in state


def repeated(empty: Tensor, length: int) -> Tensor:
    """The null text (L, D) that stands for diffusers' empty prompt, whose features (1, D) are those of the end token: to attend to L equal
    tokens, or to those that a caption's mask leaves, is to attend to one."""
    return empty.expand(length, -1).contiguous()


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


# ---- writing -----------------------------------------------------------------------------------------------------------------------------


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or not at all."""
    with atomic_path(path) as part:
        save_file({key: value.contiguous() for key, value in state.items()}, part)


def save_diffusers(folder: Path, state: Mapping[str, Tensor], config: PixArtConfig) -> None:
    """A folder of diffusers' model, whole or not at all. Raises OSError if it is there and not empty."""
    from diffusers import PixArtTransformer2DModel

    with torch.device("meta"):
        model = PixArtTransformer2DModel(**diffusers_config(config))
    load_into(model, to_diffusers(state, config), str(folder))
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
