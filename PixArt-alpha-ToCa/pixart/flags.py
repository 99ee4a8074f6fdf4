"""The flags that decide what a PixArt-alpha run computes. Free of torch, so that `toca plan pixart ...` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pixart.spec import CONFIGS, pixart_spec
from toca.cli import flags
from toca.cli.flags import method_from
from toca.planning.run import PlannedRun
from toca.presets import PIXART as presets
from toca.presets import parse_with_preset

STEPS = {"iddpm": 100, "dpm-solver": 20, "sa-solver": 25}  # by --sampling_algo, where --step is not set
TRAINED_STEPS = 1000
PUBLISHED_TEXT = 24  # real text tokens behind the published totals


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The model's resolution, the sampler and guidance."""
    parser.add_argument("--image_size", type=int, choices=CONFIGS, default=256, help="pixels; 1024 is the model of any aspect ratio")
    parser.add_argument("--sampling_algo", choices=STEPS, default="dpm-solver")
    parser.add_argument("--step", type=int, default=-1, help="sampling steps; -1: 20 of dpm-solver, 25 of sa-solver, 100 of iddpm")
    parser.add_argument("--cfg_scale", type=float, default=4.5, help="classifier-free guidance; 1 samples without")


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings, by upstream's names."""
    paid = "what rates a token; attention: that it pays to the text"
    flags.add_method_flags(parser, presets, pixart_spec(CONFIGS[256]), "_", help={"cache_type": paid}, fresh_threshold=3, fresh_ratio=0.30)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults."""
    return parse_with_preset(parser, presets, argv)


def num_steps(args: argparse.Namespace) -> int:
    """Sampling steps of the flags. Raises ValueError if there are too many, or none."""
    steps = STEPS[args.sampling_algo] if args.step == -1 else args.step
    if not 1 <= steps <= TRAINED_STEPS:
        raise ValueError(f"--step must be 1 to {TRAINED_STEPS}, or -1 for the sampler's own, got {args.step}")
    return steps


# ---- what `toca plan | flops | memory | table pixart` ask for -----------------------------------------------------------------------


def planning_parser() -> argparse.ArgumentParser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = argparse.ArgumentParser(description="PixArt-alpha: text to image.", add_help=False)
    add_model_flags(parser)
    longest = CONFIGS[256].model_max_length
    text_help = f"of the longest text in a batch, at most {longest} (default {PUBLISHED_TEXT}, that of the published totals)"
    parser.add_argument("--text_tokens", type=int, default=PUBLISHED_TEXT, help=text_help)
    add_method_flags(parser)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    config, steps = CONFIGS[args.image_size], num_steps(args)
    if not 1 <= args.cfg_scale < float("inf"):
        raise ValueError(f"--cfg_scale must be at least 1 (1 samples without guidance), got {args.cfg_scale}")
    if not 1 <= args.text_tokens <= config.model_max_length:
        raise ValueError(f"--text_tokens must be 1 to {config.model_max_length}, got {args.text_tokens}")
    guided = args.cfg_scale != 1
    return PlannedRun(
        title=f"PixArt-alpha {args.image_size} px, {args.text_tokens} text tokens, {args.sampling_algo}-{steps}",
        spec=pixart_spec(config, text_tokens=args.text_tokens, guided=guided),
        method=method_from(args),
        num_steps=steps,
        rows_per_image=2 if guided else 1,
    )
