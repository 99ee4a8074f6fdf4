"""The flags that decide what an Open-Sora run computes. Free of torch, so that `toca plan opensora ...` answers at once."""

from __future__ import annotations

import argparse

from opensora.datasets.aspect import get_image_size, get_num_frames, latent_size
from opensora.spec import CONFIGS, STDiT3Config, opensora_spec
from toca.cli import flags
from toca.cli.flags import method_from
from toca.planning.run import PlannedRun
from toca.planning.scores import SCORES
from toca.planning.spec import ModelSpec
from toca.presets import OPENSORA as presets

__all__ = ["add_method_flags", "method_from", "planned_run", "planning_parser", "spec_from"]

DEFAULT_PRESET = "toca-r85"  # what upstream's program does
PUBLISHED_TEXT = 10  # text tokens behind the published totals
RATINGS = tuple(name for name in SCORES if name != "compress")  # which rates by attention among all tokens; here it is among some


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings; the defaults are those of upstream's program, which has no such flags."""
    paid = "what rates a token; attention: that it pays to the text"
    spec = opensora_spec(STDiT3Config(), (1, 2, 2), 1)
    group = flags.add_method_flags(
        parser,
        presets,
        spec,
        "-",
        choices={"cache_type": RATINGS},
        help={"cache_type": paid},
        fresh_threshold=3,
        fresh_ratio=0.1,
    )
    cycles = "lengths of their own for the cycles of spatial attention, temporal attention, cross-attention and MLPs"
    group.add_argument("--cycles", type=int, nargs=4, metavar=("SPATIAL", "TEMPORAL", "CROSS", "MLP"), help=cycles)
    group.add_argument("--bonus", type=float, default=0.0, help="of the best token in every cell of 2 x 2 tokens (s4)")
    group.add_argument("--bonus-frames", type=int, default=1, help="latent frames that a cell reaches over")


def spec_from(args: argparse.Namespace, config: STDiT3Config, latent: tuple[int, int, int], text_tokens: int) -> ModelSpec:
    """The spec of the flags. Raises ValueError on a cycle or a cell that makes no sense."""
    if min(*(args.cycles or (1,)), args.bonus_frames, 1) < 1:
        raise ValueError(f"--cycles and --bonus-frames must be at least 1, got {args.cycles} and {args.bonus_frames}")
    cycles = tuple(args.cycles) if args.cycles else None
    return opensora_spec(config, latent, text_tokens, cycles, args.bonus, args.bonus_frames)


# ---- what `toca plan | flops | memory | table opensora` ask for ---------------------------------------------------------------------


def planning_parser() -> argparse.ArgumentParser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = argparse.ArgumentParser(description="Open-Sora v1.2: text to video.", add_help=False)
    parser.add_argument("--model", choices=CONFIGS, default="STDiT3-XL/2")
    parser.add_argument("--resolution", default="480p", help="144p 240p 360p 480p 720p 1080p 2k 4k, or the square ones 256 512 1024 2048")
    parser.add_argument("--aspect-ratio", default="9:16", help="height:width, 9:16 is landscape")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="pixels; wins over --resolution")
    parser.add_argument("--num-frames", default="51", help="a number, or 2s 4s 8s 16s 32s")
    parser.add_argument("--num-sampling-steps", type=int, default=30)
    text_help = f"of the longest prompt (default {PUBLISHED_TEXT}, that of the published totals)"
    parser.add_argument("--text-tokens", type=int, default=PUBLISHED_TEXT, help=text_help)
    add_method_flags(parser)
    parser.set_defaults(**presets[DEFAULT_PRESET].flags)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    config, frames = CONFIGS[args.model], get_num_frames(args.num_frames)
    height, width = args.image_size or get_image_size(args.resolution, args.aspect_ratio)
    if not 1 <= args.text_tokens <= config.model_max_length:
        raise ValueError(f"--text-tokens must be 1 to {config.model_max_length}, got {args.text_tokens}")
    latent = latent_size(frames, height, width)
    if min(latent) < 1:
        raise ValueError(f"a video of {height}x{width} pixels has no latents: 8x8 is the least")
    return PlannedRun(
        title=f"{args.model}, {height}x{width}, {frames} frames, {args.text_tokens} text tokens, {args.num_sampling_steps} steps",
        spec=spec_from(args, config, latent, args.text_tokens),
        method=method_from(args),
        num_steps=args.num_sampling_steps,
        rows_per_image=2,
    )
