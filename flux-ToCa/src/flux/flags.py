"""The flags that FLUX's programs share, and what a run is by them. Free of torch, so that `toca plan flux-dev ...` answers at once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.files import CONFIGS
from flux.spec import CELL, LORA_RANK, FluxParams, flux_spec, txt_tokens
from toca.cli import flags as shared
from toca.cli.flags import LARGEST_SEED, MOST_PIXELS, MOST_STEPS, check_used, method_from, number, truth, whole
from toca.cli.report import flops_lines, run_summary, summary_line
from toca.planning.flops import rounded_tflops
from toca.planning.memory import DTYPES as BYTES
from toca.planning.memory import predict
from toca.planning.method import Method
from toca.planning.run import PlannedRun
from toca.presets import FLUX_DEV, FLUX_OTHERS, Preset

TEXT_MODELS = ("flux-dev", "flux-schnell", "flux-dev-krea")  # that paint from text alone
SIDE, STEPS, GUIDANCE, SEED = whole(CELL, MOST_PIXELS), whole(1, MOST_STEPS), number(0, 1000), whole(0, LARGEST_SEED)
LONGEST_TEXT = 4096
WATERMARK_PIXELS = 256 * 256  # that the watermark needs
CONTROL_LORA_SCALE = 0.85  # of the published command; 1 for other adapters


def text(given: str) -> str:
    """The type of a prompt. Raises ArgumentTypeError on bytes that are no text."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be text, got bytes that are none in this terminal's encoding") from None
    return given


def add_switch(parser: argparse.ArgumentParser, flag: str, default: bool, help: str) -> None:
    parser.add_argument(flag, type=truth, nargs="?", const=True, default=default, metavar="True|False", help=f"{help} (default {default})")


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings. Without --method and --preset `parse` takes the model's default preset."""
    age = "what rates a token; age: only how stale it is"
    spec = flux_spec(FluxParams(), 1, 1)
    shared.add_method_flags(parser, FLUX_DEV, spec, "_", help={"cache_type": age}, method=None, fresh_threshold=4, fresh_ratio=0.1)


def add_shared_flags(parser: argparse.ArgumentParser, sized: bool = True) -> None:
    """Size, sampler, files and numerics, and the method of caching. sized: the size is the program's to choose."""
    if sized:
        parser.add_argument("--width", type=SIDE, default=1360, help="pixels, rounded down to a multiple of 16 (default 1360)")
        parser.add_argument("--height", type=SIDE, default=768, help="pixels, rounded down to a multiple of 16 (default 768)")
    parser.add_argument("--num_steps", type=STEPS, default=None, help="default: 4 for flux-schnell, 50 for the others")
    parser.add_argument("--guidance", type=GUIDANCE, default=None, help="default: the model's own, 3.5 for text to image")
    files = parser.add_argument_group("files", "paths, hub names, or nothing: environment variables, checkpoints/, hub")
    files.add_argument("--ckpt", default=None, help="the model's weights")
    files.add_argument("--lora", default=None, help="an adapter's weights, in FLUX's own, kohya's, diffusers' or PEFT's layout")
    weight = "weight of the adapter (default 1; 0.85 for the -lora models)"
    files.add_argument("--lora_scale", type=number(-100, 100), default=None, help=weight)
    add_switch(parser, "--keep_lora", False, "run the adapter of a -lora model beside it instead of merging it into the weights")
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
    add_method_flags(parser)


def default_preset(name: str) -> str:
    """What a model is cached with unless told otherwise: four steps leave nothing to reuse."""
    return "none" if "schnell" in name else "toca4-01"


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, model: str | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults: of --preset, else of the model's own unless --method says otherwise.

    model: the name of the model; None if the flag --name or --model_name says it.
    """
    given = parser.parse_known_args(argv)[0]
    name = model or getattr(given, "name", None) or "flux-dev"
    preset = given.preset or (None if given.method else default_preset(name))
    if preset:
        parser.set_defaults(preset=preset, **FLUX_DEV[preset].flags)
    args = parser.parse_args(argv)
    check_used(parser, args, argv)
    return args


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; made once from the flags, checked on the way.

    run: the model at a size, the method and the steps.
    name: of the model.
    preset: the published setting it was asked for by.
    width, height: pixels, multiples of 16.
    guidance: strength of the distilled guidance.
    seed: of the first picture; None draws a fresh one for each.
    image_tokens: how many a picture has, beside the prompt's (redux).
    files: what the flags say of the weights, by flag; None where they say nothing.
    lora_scale, keep_lora: weight of an adapter, and whether it runs beside the weights.
    dtype: of model and text encoders.
    """

    run: PlannedRun
    name: str
    preset: str | None
    width: int
    height: int
    guidance: float
    seed: int | None
    image_tokens: int
    files: Mapping[str, str | None]
    lora_scale: float
    keep_lora: bool
    dtype: str
    device: str | None
    offload: bool
    watermark: bool
    use_nsfw_filter: bool
    upstream_numerics: bool
    add_sampling_metadata: bool

    @property
    def has_lora(self) -> bool:
        """Whether an adapter belongs to it: the model's own, or one that was given."""
        return CONFIGS[self.name].lora is not None or self.files["lora"] is not None

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, size: tuple[int, int] | None = None, image_tokens: int = 0, guidance: float | None = None
    ) -> RunSettings:
        """size: width and height where a picture decides them. guidance: the program's default, if it has one.

        Raises ValueError that names the flag.
        """
        config, given = CONFIGS[args.name], vars(args)
        width, height = (side // CELL * CELL for side in size or (args.width, args.height))
        steps = config.num_steps if args.num_steps is None else args.num_steps
        if args.guidance is not None:
            _check_guidance("--guidance", args.name)
        if config.lora is None and (args.keep_lora or (args.lora_scale is not None and args.lora is None)):
            flag = "--keep_lora: adapters run beside the -lora models alone" if args.keep_lora else "--lora_scale: there is no adapter"
            raise ValueError(f"{flag}; --lora merges one into the weights")
        scale = args.lora_scale if args.lora_scale is not None else CONTROL_LORA_SCALE if config.lora else 1.0
        return cls(
            run=planned(args.name, width, height, config.t5_length + image_tokens, method_from(args), steps, args.keep_lora),
            width=width,
            height=height,
            guidance=next(value for value in (args.guidance, guidance, config.guidance) if value is not None),
            image_tokens=image_tokens,
            files={flag: given[flag] for flag in ("ckpt", "lora", "ae", "t5", "clip")},
            lora_scale=scale,
            add_sampling_metadata=given.get("add_sampling_metadata", True),
            **{field: given[field] for field in ("name", "preset", "seed", "keep_lora", "dtype", "device", "offload", "watermark")},
            **{field: given[field] for field in ("use_nsfw_filter", "upstream_numerics")},
        )

    def __post_init__(self) -> None:
        if self.watermark and self.width * self.height < WATERMARK_PIXELS:
            raise ValueError(f"--watermark needs 256 x 256 pixels or as many, a picture of {self.width} x {self.height} has too few")

    def changed(self, **fields: Any) -> RunSettings:
        """With other fields, or `num_steps`. Raises ValueError on settings that make no sense."""
        if "guidance" in fields:
            _check_guidance("guidance", self.name)
        num_steps = fields.pop("num_steps", self.run.num_steps)
        new = dataclasses.replace(self, **fields)
        length = CONFIGS[new.name].t5_length + new.image_tokens
        return dataclasses.replace(new, run=planned(new.name, new.width, new.height, length, new.run.method, num_steps, new.keep_lora))

    def sampling(self) -> dict[str, Any]:
        """What `Pipeline.generate` is told beside prompts and seeds."""
        return dict(height=self.height, width=self.width, num_steps=self.run.num_steps, guidance=self.guidance)

    def pictures(self) -> dict[str, Any]:
        """Everything that decides the pictures but for prompts and the content of files."""
        fields = ("name", "width", "height", "guidance", "seed", "dtype", "upstream_numerics", "watermark", "use_nsfw_filter")
        method = self.run.method
        return {
            **{field: getattr(self, field) for field in fields},
            "num_steps": self.run.num_steps,
            "method": {"name": method.name, **dataclasses.asdict(method)},
        }

    def summary(self) -> dict[str, Any]:
        """What the run costs, for the terminal and for the manifest beside its pictures."""
        held = predict(self.run.plan, self.run.method, 1, BYTES[self.dtype])
        return run_summary(self.run) | dict(cache_bytes_per_image=max(h.total for h in held))

    def describe(self) -> str:
        """The preset, its plan, what it saves and what its cache takes, in one line."""
        summary = self.summary()
        preset = f"preset {self.preset}: " if self.preset else ""
        return f"{preset}{summary_line(summary)}; the cache takes {summary['cache_bytes_per_image'] / 1e9:.2f} GB per image"

    def flops_lines(self, images: int) -> str:
        """Both counters of the engine, and what the published code prints, which rounds every step."""
        rounded = rounded_tflops(self.run.plan, "upstream", images)
        return f"{flops_lines(self.run, images)}\npublished: {rounded:.2f} with every step rounded"


def _check_guidance(what: str, name: str) -> None:
    if not CONFIGS[name].params.guidance_embed:
        raise ValueError(f"{what}: {name} was distilled without guidance, which would change nothing")


# ---- what `toca plan | flops | memory | table flux-dev` ask for ---------------------------------------------------------------------


def planned(name: str, width: int, height: int, text: int, method: Method, num_steps: int, keep_lora: bool = False) -> PlannedRun:
    """A named model on a picture of width x height pixels and `text` tokens of text. Raises ValueError on settings that make no sense."""
    spec = flux_spec(CONFIGS[name].params, (width // CELL) * (height // CELL), text, LORA_RANK if keep_lora else 0)
    run = PlannedRun(f"{name}, {width}x{height}, {text} text tokens, {num_steps} steps", spec, method, num_steps)
    run.plan  # noqa: B018
    return run


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
        parser = shared.Parser(description=f"{self.name}: text to image.", add_help=False)
        parser.add_argument("--width", type=SIDE, default=1024, help="pixels, rounded down to a multiple of 16")
        parser.add_argument("--height", type=SIDE, default=1024, help="pixels, rounded down to a multiple of 16")
        parser.add_argument("--num_steps", type=STEPS, default=CONFIGS[self.name].num_steps)
        parser.add_argument("--txt_tokens", type=whole(1, LONGEST_TEXT), default=txt_tokens(self.name), help="length of the text sequence")
        if self.name.endswith("-lora"):
            parser.add_argument("--keep_lora", action="store_true", help="the adapter runs beside the model")
        add_method_flags(parser)
        parser.set_defaults(**self.presets[default_preset(self.name)].flags)
        return parser

    def planned_run(self, args: argparse.Namespace) -> PlannedRun:
        """Raises ValueError on flags that make no sense."""
        keep_lora = getattr(args, "keep_lora", False)
        return planned(self.name, args.width, args.height, args.txt_tokens, method_from(args), args.num_steps, keep_lora)


flux_dev = NamedModel("flux-dev")
flux_dev_krea = NamedModel("flux-dev-krea")
flux_schnell = NamedModel("flux-schnell")
flux_dev_canny = NamedModel("flux-dev-canny")
flux_dev_depth = NamedModel("flux-dev-depth")
flux_dev_canny_lora = NamedModel("flux-dev-canny-lora")
flux_dev_depth_lora = NamedModel("flux-dev-depth-lora")
flux_dev_fill = NamedModel("flux-dev-fill")
