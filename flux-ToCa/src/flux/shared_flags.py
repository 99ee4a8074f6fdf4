"""The flags that all programs share, and the pipeline they ask for."""

from __future__ import annotations

import argparse
import math
import tempfile
from functools import partial
from pathlib import Path

import torch

from flux.flags import add_method_flags, method_from
from flux.pipeline import Cost, Pipeline, cost_of
from flux.sampler import CELL
from flux.spec import LORA_RANK
from flux.weights import CONFIGS, load_ae, load_clip, load_flow_model, load_t5
from toca.cli.flags import truth
from toca.runs import programs
from toca.runs.programs import DTYPES, reproducible_matmuls

MEMORY_ADVICE = "try --offload, --dtype bf16, a smaller --batch_size, or fewer tokens (--width, --height)"
program_errors = partial(programs.program_errors, MEMORY_ADVICE)


def add_switch(parser: argparse.ArgumentParser, flag: str, default: bool, help: str) -> None:
    parser.add_argument(flag, type=truth, nargs="?", const=True, default=default, metavar="True|False", help=f"{help} (default {default})")


def add_shared_flags(parser: argparse.ArgumentParser, lora: bool = False) -> None:
    """Size, sampler, files and numerics, and the method of caching."""
    parser.add_argument("--width", type=int, default=1360, help="pixels, rounded down to a multiple of 16 (default 1360)")
    parser.add_argument("--height", type=int, default=768, help="pixels, rounded down to a multiple of 16 (default 768)")
    parser.add_argument("--num_steps", type=int, default=None, help="default: 4 for flux-schnell, 50 for the others")
    parser.add_argument("--guidance", type=float, default=None, help="default: the model's own, 3.5 for text to image")
    files = parser.add_argument_group("files", "paths, hub names, or nothing: environment variables, checkpoints/, hub")
    files.add_argument("--ckpt", default=None, help="the model's weights")
    files.add_argument("--ae", default=None, help="the autoencoder's weights")
    files.add_argument("--t5", default=None, help="folder or hub name of the T5 encoder")
    files.add_argument("--clip", default=None, help="folder or hub name of the CLIP text encoder")
    parser.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    parser.add_argument(
        "--dtype", choices=("bf16", "fp32"), default="bf16", help="of model and text encoders; latents and autoencoder are fp32"
    )
    add_switch(parser, "--offload", False, "keep only the networks at work on the device")
    add_switch(parser, "--watermark", False, "invisible watermark, from 256 x 256 pixels on")
    add_switch(parser, "--use_nsfw_filter", False, "do not write pictures that a classifier rates as unsafe")
    add_switch(parser, "--upstream_numerics", False, "bf16 latents and times, truncated 8-bit pictures, as the published programs")
    add_switch(parser, "--test_FLOPs", False, "print the FLOPs of the run; samples nothing, needs no weights")
    if lora:
        files.add_argument("--lora", default=None, help="the adapter's weights, of the -lora models")
        files.add_argument("--lora_scale", type=float, default=0.85, help="weight of the adapter (default 0.85)")
        add_switch(parser, "--keep_lora", False, "run the adapter beside the model instead of merging it into the weights")
    add_method_flags(parser)


def check(args: argparse.Namespace) -> Cost:
    """Fill in the defaults of the model, round the size down, and return what the run costs.

    Raises ValueError on wrong flags, or if nothing can be written where the pictures go.
    """
    config = CONFIGS[args.name]
    args.num_steps = config.num_steps if args.num_steps is None else args.num_steps
    args.guidance = config.guidance if args.guidance is None else args.guidance
    for flag in ("width", "height"):
        if getattr(args, flag) < CELL:
            raise ValueError(f"--{flag} must be at least {CELL} pixels, got {getattr(args, flag)}")
        setattr(args, flag, getattr(args, flag) // CELL * CELL)
    for flag in ("num_steps", "batch_size", "num_images_per_prompt", "n_samples"):
        if getattr(args, flag, 1) < 1:
            raise ValueError(f"--{flag} must be at least 1, got {getattr(args, flag)}")
    if not math.isfinite(args.guidance):
        raise ValueError(f"--guidance must be a number, got {args.guidance}")
    txt_tokens = config.t5_length + getattr(args, "image_tokens", 0)
    lora_rank = LORA_RANK if config.lora and getattr(args, "keep_lora", False) else 0
    cost = cost_of(config.params, args.height, args.width, txt_tokens, method_from(args), args.num_steps, lora_rank)
    cost.method.plan(cost.spec, cost.num_steps)
    if not args.test_FLOPs:
        flag = "output_dir" if hasattr(args, "output_dir") else "output"
        folder = Path(args.output_dir) if flag == "output_dir" else Path(args.output).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(f"--{flag}: {folder} cannot be written to: {error.strerror}") from error
    return cost


def load_pipeline(args: argparse.Namespace, device: torch.device, progress: bool = False) -> Pipeline:
    """The networks of the flags, loaded to the device, or to the CPU with --offload. Raises ValueError or OSError on missing files."""
    reproducible_matmuls()
    config, dtype, home = CONFIGS[args.name], DTYPES[args.dtype], torch.device("cpu") if args.offload else device
    lora = dict(lora=args.lora, lora_scale=args.lora_scale, keep_lora=args.keep_lora) if hasattr(args, "lora") else {}
    flow = load_flow_model(args.name, home, dtype, args.ckpt, **lora)
    return Pipeline(
        model=flow,
        ae=load_ae(home, args.ae, sample_z=args.upstream_numerics),
        t5=load_t5(home, config.t5_length, args.t5, dtype),
        clip=load_clip(home, args.clip, dtype),
        device=device,
        method=method_from(args),
        shifted=config.shifted,
        offload=args.offload,
        upstream=args.upstream_numerics,
        progress=progress,
    )


def describe(args: argparse.Namespace, cost: Cost) -> str:
    """The preset, its plan and what it saves, in one line."""
    preset = f"preset {args.preset}: " if args.preset else ""
    return preset + cost.describe(DTYPES[args.dtype].itemsize)
