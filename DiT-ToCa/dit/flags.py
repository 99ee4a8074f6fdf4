"""The flags that decide what a DiT run computes. Free of torch, so that `toca plan dit ...` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dit.spec import CONFIGS, DiTConfig, dit_spec
from toca.cli import flags
from toca.cli.flags import method_from
from toca.planning.run import PlannedRun
from toca.presets import DIT as presets
from toca.presets import parse_with_preset

SIZES = {"DiT-mini": 32}  # side in pixels of models that do not work at 256
VAE_STRIDE = 8
TRAINED_STEPS = 1000


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The model, its resolution and the sampler."""
    parser.add_argument("--model", choices=CONFIGS, default="DiT-XL/2")
    parser.add_argument("--image-size", type=int, default=None, help="side in pixels, a multiple of 8 x patch (default 256; DiT-mini 32)")
    parser.add_argument("--num-classes", type=int, default=None, help="default: the model's own (1000; DiT-mini 20)")
    parser.add_argument("--num-sampling-steps", type=int, default=250)
    parser.add_argument("--ddim-sample", action=argparse.BooleanOptionalAction, default=False, help="DDIM instead of DDPM")
    parser.add_argument("--cfg-scale", type=float, default=1.5, help="classifier-free guidance; 1 samples without")


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings, by upstream's names."""
    spec = dit_spec(CONFIGS["DiT-mini"])
    group = flags.add_method_flags(parser, presets, spec, "-", fresh_threshold=4, fresh_ratio=0.07, max_order=4)
    group.add_argument("--interval", type=int, default=4, help="cycle length of taylorseer")


def config_from(args: argparse.Namespace) -> DiTConfig:
    """The configuration of the flags. Raises ValueError if the image size does not fit the model."""
    config, pixels = CONFIGS[args.model], SIZES.get(args.model, 256) if args.image_size is None else args.image_size
    stride = 1 if args.model in SIZES else VAE_STRIDE
    if pixels < 1 or pixels % (stride * config.patch_size):
        raise ValueError(f"--image-size must be a multiple of {stride * config.patch_size} for {args.model}, got {pixels}")
    overrides = {} if args.num_classes is None else dict(num_classes=args.num_classes)
    return config.replace(input_size=pixels // stride, **overrides)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults."""
    return parse_with_preset(parser, presets, argv)


# ---- what `toca plan | flops | memory | table dit` ask for --------------------------------------------------------------------------


def planning_parser() -> argparse.ArgumentParser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = argparse.ArgumentParser(description="DiT: class-conditional images.", add_help=False)
    add_model_flags(parser)
    add_method_flags(parser)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    if not 1 <= args.num_sampling_steps <= TRAINED_STEPS:
        raise ValueError(f"--num-sampling-steps must be 1 to {TRAINED_STEPS}, got {args.num_sampling_steps}")
    if not 1 <= args.cfg_scale < float("inf"):
        raise ValueError(f"--cfg-scale must be at least 1 (1 samples without guidance), got {args.cfg_scale}")
    spec = dit_spec(config_from(args), "ddim" if args.ddim_sample else "ddpm")
    return PlannedRun(
        title=f"{args.model}, {'DDIM' if args.ddim_sample else 'DDPM'}-{args.num_sampling_steps}",
        spec=spec,
        method=method_from(args),
        num_steps=args.num_sampling_steps,
        rows_per_image=1 if args.cfg_scale == 1 else 2,
    )
