"""The flags that decide how a FLUX run is cached, and what it costs. Free of torch, so that `toca plan flux-dev ...` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flux.spec import CONFIGS, LORA_RANK, FluxParams, flux_spec, txt_tokens
from toca.cli import flags as shared
from toca.cli.flags import method_from
from toca.planning.run import PlannedRun
from toca.presets import FLUX_DEV, FLUX_OTHERS, Preset

PATCH = 16  # pixels of a token's side: the autoencoder's 8, two latents packed


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings. Without --method and --preset `parse` takes the model's default preset."""
    age = "what rates a token; age: only how stale it is"
    spec = flux_spec(FluxParams(), 1, 1)
    shared.add_method_flags(parser, FLUX_DEV, spec, "_", help={"cache_type": age}, method=None, fresh_threshold=4, fresh_ratio=0.1)


def default_preset(name: str) -> str:
    """What a model is cached with unless told otherwise: four steps leave nothing to reuse."""
    return "none" if "schnell" in name else "toca4-01"


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, model: str | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults: of --preset, else of the model's own unless --method says otherwise.

    model: the name of the model; None if the flag --name or --model_name says it.
    """
    given = parser.parse_known_args(argv)[0]
    name = model or getattr(given, "name", None) or getattr(given, "model_name", None) or "flux-dev"
    preset = given.preset or (None if given.method else default_preset(name))
    if preset:
        parser.set_defaults(preset=preset, **FLUX_DEV[preset].flags)
    return parser.parse_args(argv)


# ---- what `toca plan | flops | memory | table flux-dev` ask for ---------------------------------------------------------------------


def image_tokens(width: int, height: int) -> int:
    """Tokens of a picture. Raises ValueError if it has none."""
    if width < PATCH or height < PATCH:
        raise ValueError(f"--width and --height must be at least {PATCH}, got {width} and {height}")
    return (width // PATCH) * (height // PATCH)


@dataclass(frozen=True)
class NamedModel:
    """One of `CONFIGS`, as the command `toca` knows it (`toca.cli.forks.Fork`)."""

    name: str
    __file__: str = str(Path(__file__).parent)  # its folder is where the fork's packages are

    @property
    def presets(self) -> Mapping[str, Preset]:
        """Published settings; numbers are printed for flux-dev alone."""
        return FLUX_DEV if self.name == "flux-dev" else FLUX_OTHERS

    def planning_parser(self) -> argparse.ArgumentParser:
        """Flags of the model and the method, for a command's parser to take over."""
        parser = argparse.ArgumentParser(description=f"{self.name}: text to image.", add_help=False)
        parser.add_argument("--width", type=int, default=1024, help="pixels, rounded down to a multiple of 16")
        parser.add_argument("--height", type=int, default=1024)
        parser.add_argument("--num_steps", type=int, default=4 if "schnell" in self.name else 50)
        parser.add_argument("--txt_tokens", type=int, default=txt_tokens(self.name), help="length of the text sequence")
        if self.name.endswith("-lora"):
            parser.add_argument("--keep_lora", action="store_true", help="the adapter runs beside the model")
        add_method_flags(parser)
        parser.set_defaults(**self.presets[default_preset(self.name)].flags)
        return parser

    def planned_run(self, args: argparse.Namespace) -> PlannedRun:
        """Raises ValueError on flags that make no sense."""
        if min(args.num_steps, args.txt_tokens) < 1:
            raise ValueError(f"--num_steps and --txt_tokens must be at least 1, got {args.num_steps} and {args.txt_tokens}")
        lora_rank = LORA_RANK if getattr(args, "keep_lora", False) else 0
        spec = flux_spec(CONFIGS[self.name], image_tokens(args.width, args.height), args.txt_tokens, lora_rank)
        title = f"{self.name}, {args.width}x{args.height}, {args.txt_tokens} text tokens, {args.num_steps} steps"
        return PlannedRun(title, spec, method_from(args), args.num_steps)


flux_dev = NamedModel("flux-dev")
flux_dev_krea = NamedModel("flux-dev-krea")
flux_schnell = NamedModel("flux-schnell")
flux_dev_canny = NamedModel("flux-dev-canny")
flux_dev_depth = NamedModel("flux-dev-depth")
flux_dev_canny_lora = NamedModel("flux-dev-canny-lora")
flux_dev_depth_lora = NamedModel("flux-dev-depth-lora")
flux_dev_fill = NamedModel("flux-dev-fill")
