"""The flags of the sampling programs and what they stand for: what sample.py, sample_ddp.py, demo.py and the benchmark share."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from dit.flags import SIZES, config_from, method_from, planned_run
from dit.model import DiT
from dit.sampler import Sampler, describe
from dit.weights import Decoder, load_decoder, vae_name
from download import checkpoint_path
from toca.cli.report import flops_lines
from toca.console import announce
from toca.diffusion import create_diffusion
from toca.loading.weights import load_into, load_state_dict
from toca.nn.layers import sincos_2d
from toca.runs.pictures import to_uint8
from toca.runs.programs import DTYPES, device_from, reproducible_matmuls

__all__ = [
    "Decoder",
    "Sampler",
    "add_sampling_flags",
    "check_plan",
    "describe",
    "image_size",
    "load_decoder",
    "load_model",
    "make_sampler",
    "prepare",
    "print_flops",
    "to_uint8",
]
MAX_STEPS = 1000


def image_size(args: argparse.Namespace) -> int:
    """Side in pixels: the flag's, or the model's own."""
    return args.image_size or SIZES.get(args.model, 256)


def load_model(args: argparse.Namespace, device: torch.device) -> DiT:
    """The model of the flags with its checkpoint, in the wanted dtype, built without initialising weights first.

    Only the fixed position table depends on the image size. A checkpoint of another size is loaded at an `--image-size` that was asked for
    by recomputing that table, and a line says so; without the flag, and for every other tensor, loading is strict.
    """
    path = checkpoint_path(args.model, image_size(args), args.ckpt)
    config, state = config_from(args), load_state_dict(path)
    with torch.device("meta"):
        model = DiT(config)
    table = state.get("pos_embed")
    resized = args.image_size and table is not None and table.shape != model.pos_embed.shape
    if resized:
        state["pos_embed"] = torch.from_numpy(sincos_2d(config.hidden_size, *map(np.arange, config.grid))).float()[None]
    load_into(model, state, str(path))
    if resized:
        announce(f"{path} holds {table.shape[1]} positions: recomputed for the {config.num_tokens} of --image-size {args.image_size}")
    return model.to(device, DTYPES[args.dtype]).eval()


def make_sampler(args: argparse.Namespace, model: DiT, progress: bool = False) -> Sampler:
    return Sampler(
        model,
        create_diffusion(str(args.num_sampling_steps)),
        method_from(args),
        ddim=args.ddim_sample,
        eta=args.eta,
        cfg_scale=args.cfg_scale,
        guide_all_channels=args.guide_all_channels,
        progress=progress,
    )


def add_sampling_flags(parser: argparse.ArgumentParser, vae: str) -> None:
    """Flags of sample.py and sample_ddp.py beside the model's and the method's."""
    parser.add_argument("--vae", default=None, help=f"ema, mse, a diffusers folder or hub name, or none (default {vae}; DiT-mini: none)")
    parser.add_argument("--ckpt", default=None, help="checkpoint (.pt, .safetensors); default: the official one, or the embedded DiT-mini")
    parser.add_argument("--eta", type=float, default=0.0, help="DDIM's noise, 0 (none) to 1")
    parser.add_argument("--guide-all-channels", action="store_true", help="guide all noise channels, not the first three as published")
    parser.add_argument(
        "--upstream-stream",
        action="store_true",
        help="draw labels and noise as the published programs do, from one generator, so that images depend on batch size, processes and"
        " device; token selection (cache types random, compress) still draws from its own",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the DiT; the sampler's arithmetic and the VAE are fp32")
    parser.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    parser.add_argument("--tf32", action=argparse.BooleanOptionalAction, default=True, help="TF32 matmuls on CUDA")
    parser.add_argument("--test-FLOPs", action="store_true", help="print the FLOPs of the run; samples nothing, needs no weights")


def prepare(args: argparse.Namespace, vae: str) -> torch.device:
    """Check the flags, fill in the VAE, set precision, and name the device. Raises ValueError on flags that make no sense."""
    if not 1 <= args.num_sampling_steps <= MAX_STEPS:
        raise ValueError(f"--num-sampling-steps must be 1 to {MAX_STEPS}, got {args.num_sampling_steps}")
    if not 1 <= args.cfg_scale < float("inf"):
        raise ValueError(f"--cfg-scale must be at least 1 (1 samples without guidance), got {args.cfg_scale}")
    if not 0 <= args.eta <= 1 or (args.eta and not args.ddim_sample):
        raise ValueError(f"--eta must be 0 to 1, and needs --ddim-sample, got {args.eta}")
    for flag in ("image_size", "num_classes"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            raise ValueError(f"--{flag.replace('_', '-')} must be at least 1, got {getattr(args, flag)}")
    args.vae = vae_name(args.vae, config_from(args).in_channels, vae)
    reproducible_matmuls()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    return device_from(args.device)


def check_plan(args: argparse.Namespace) -> None:
    """Raise ValueError on caching settings that make no sense, before anything is loaded."""
    _ = planned_run(args).plan


def print_flops(args: argparse.Namespace, images: int) -> None:
    """`--test-FLOPs`."""
    print(flops_lines(planned_run(args), images))
