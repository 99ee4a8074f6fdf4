"""The flags of the sampling programs, and what a run is made of. Free of torch, so that `toca plan dit ...` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dit.spec import CONFIGS, DiTConfig, dit_spec
from toca.cli import flags
from toca.cli.flags import LARGEST_SEED, MOST_IMAGES, MOST_PIXELS, MOST_STEPS, Parser, check_used, method_from, number, whole
from toca.planning.memory import DTYPES
from toca.planning.method import Method
from toca.planning.run import PlannedRun
from toca.presets import DIT as presets
from toca.presets import parse_with_preset

SIZES = {"DiT-mini": 32}  # side in pixels of models that do not work at 256
VAE_STRIDE = 8
MOST_CLASSES, MOST_GUIDANCE, MOST_BATCH = 1_000_000, 1000, 100_000
IMAGENET = (207, 360, 387, 974, 88, 979, 417, 279)  # golden retriever, otter, red panda, geyser, macaw, valley, balloon, arctic fox
CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path()  # the current one, where the package is installed without it
PRETRAINED = FOLDER / "pretrained_models"
OFFICIAL = {256: "DiT-XL-2-256x256.pt", 512: "DiT-XL-2-512x512.pt"}

UPSTREAM_LABELS = {"duca": "Cache-Noise"}  # of folder names, where they are not the method's own
UPSTREAM_ORDER = ("cache_type", "fresh_ratio", "ratio_scheduler", "force_fresh", "fresh_threshold", "max_order", "soft_fresh_weight")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The model, its resolution and the sampler."""
    parser.add_argument("--model", choices=CONFIGS, default="DiT-XL/2")
    pixels = "side in pixels, a multiple of 8 x patch (default 256; DiT-mini 32)"
    parser.add_argument("--image-size", type=whole(1, MOST_PIXELS), default=None, help=pixels)
    parser.add_argument("--num-classes", type=whole(1, MOST_CLASSES), default=None, help="default: the model's own (1000; DiT-mini 20)")
    parser.add_argument("--num-sampling-steps", type=whole(1, MOST_STEPS), default=250)
    parser.add_argument("--ddim-sample", action=argparse.BooleanOptionalAction, default=False, help="DDIM instead of DDPM")
    flags.add_solver_flags(parser)
    parser.add_argument("--cfg-scale", type=number(1, MOST_GUIDANCE), default=1.5, help="classifier-free guidance; 1 samples without")


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings, by upstream's names."""
    spec = dit_spec(CONFIGS["DiT-mini"])
    group = flags.add_method_flags(parser, presets, spec, "-", fresh_threshold=4, fresh_ratio=0.07, max_order=4)
    group.add_argument("--interval", type=whole(1, MOST_STEPS), default=4, help="cycle length of taylorseer")


def add_pipeline_flags(parser: argparse.ArgumentParser, vae: str) -> None:
    """What sampling needs beside the model and the method: weights, the sampler's details, where it runs."""
    parser.add_argument("--ckpt", default=None, help="a checkpoint, or its name in pretrained_models/ (default: the official or embedded)")
    parser.add_argument("--vae", default=None, help=f"ema, mse, a diffusers folder or hub name, or none (default {vae}; DiT-mini: none)")
    parser.add_argument("--eta", type=number(0, 1), default=0.0, help="noise of DDIM, 0 to 1")
    parser.add_argument("--guide-all-channels", action="store_true", help="guide every noise channel, not the first three alone")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="precision of the DiT")
    parser.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    parser.add_argument("--tf32", action=argparse.BooleanOptionalAction, default=True, help="TF32 matmuls on CUDA")
    parser.set_defaults(default_vae=vae)


def _program_parser(description: str | None, vae: str) -> Parser:
    p = Parser(description=description)
    add_model_flags(p)
    add_method_flags(p)
    add_pipeline_flags(p, vae)
    p.add_argument("--upstream-stream", action="store_true", help="draw as the published programs do: an image depends on its batch")
    p.add_argument("--test-FLOPs", action="store_true", help="print the FLOPs of the run; samples nothing, needs no weights")
    return p


def sample_parser(description: str | None = None) -> Parser:
    """The flags of sample.py."""
    p = _program_parser(description, vae="mse")
    p.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0, help="image i depends on (seed, i) alone")
    p.add_argument("--class-labels", type=whole(0, MOST_CLASSES), nargs="+", default=None, help="one image for each")
    p.add_argument("--output", default="sample.png")
    return p


def sample_ddp_parser(description: str | None = None) -> Parser:
    """The flags of sample_ddp.py."""
    p = _program_parser(description, vae="ema")
    p.add_argument("--sample-dir", default="samples")
    p.add_argument("--per-proc-batch-size", dest="batch", type=whole(1, MOST_BATCH), default=32)
    p.add_argument("--num-fid-samples", dest="num_images", type=whole(1, MOST_IMAGES), default=50_000)
    p.add_argument("--global-seed", dest="seed", type=whole(0, LARGEST_SEED), default=0, help="image i depends on (seed, i) alone")
    return p


def demo_parser(description: str | None = None) -> Parser:
    """The flags of demo.py, whose methods are given."""
    p = Parser(description=description)
    add_model_flags(p)
    add_pipeline_flags(p, vae="mse")
    p.set_defaults(model="DiT-mini", num_sampling_steps=50, ddim_sample=True, method="none", upstream_stream=False)
    p.add_argument("--images", type=whole(1, 100_000), default=10)
    p.add_argument("--batch", type=whole(1, MOST_BATCH), default=20, help="images sampled together")
    p.add_argument("--repeats", type=whole(1, 1000), default=1, help="timed runs per method; the fastest counts")
    p.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0)
    p.add_argument("--output", default="demo.png")
    p.add_argument("--json", default=None, help="write the table here as well")
    return p


def download_parser(description: str | None = None) -> Parser:
    """The flags of download.py."""
    p = Parser(description=description)
    p.add_argument("--image-size", type=int, nargs="+", choices=OFFICIAL, default=list(OFFICIAL), help="which DiT-XL/2 (default both)")
    p.add_argument("--vae", nargs="+", choices=("ema", "mse"), default=[], help="also fetch these VAEs")
    return p


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults; settings of other methods than the chosen one are refused."""
    args = parse_with_preset(parser, presets, argv)
    check_used(parser, args, argv)
    unset = object()
    given = parser.parse_args(argv, argparse.Namespace(interval=unset, fresh_threshold=unset))
    if args.method == "taylorseer" and given.fresh_threshold is not unset:
        parser.error("argument --fresh-threshold: the cycle length of taylorseer is --interval")
    if args.method != "taylorseer" and given.interval is not unset:
        parser.error(f"argument --interval: --method {args.method} has no such setting; it is of taylorseer")
    return args


def image_size(args: argparse.Namespace) -> int:
    """Side in pixels: the flag's, or the model's own."""
    return args.image_size or SIZES.get(args.model, 256)


def config_from(args: argparse.Namespace) -> DiTConfig:
    """The configuration of the flags. Raises ValueError if the image size does not fit the model."""
    config, pixels, stride = CONFIGS[args.model], image_size(args), 1 if args.model in SIZES else VAE_STRIDE
    if pixels % (stride * config.patch_size):
        raise ValueError(f"--image-size must be a multiple of {stride * config.patch_size} for {args.model}, got {pixels}")
    overrides = {} if args.num_classes is None else dict(num_classes=args.num_classes)
    return config.replace(input_size=pixels // stride, **overrides)


def vae_name(name: str | None, in_channels: int, default: str) -> str:
    """The `--vae` of a model: `none` for one on pixels (3 channels). Raises ValueError where the flag and the model do not go together."""
    name = name or ("none" if in_channels == 3 else default)
    if (name == "none") != (in_channels == 3):
        needs = "works on pixels: leave --vae out" if in_channels == 3 else f"works on {in_channels}-channel latents: it needs a VAE"
        raise ValueError(f"--vae {name}: the model {needs}")
    return name


# ---- what `toca plan | flops | memory | table dit` ask for --------------------------------------------------------------------------


def planning_parser() -> Parser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = Parser(description="DiT: class-conditional images.", add_help=False)
    add_model_flags(parser)
    add_method_flags(parser)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    solver = flags.solver_from(args)
    if solver and args.ddim_sample:
        raise ValueError(f"--ddim-sample and --solver {args.solver} are two samplers: give one of them")
    sampler = f"{solver[0]} ({solver[1]})" if solver else "DDIM" if args.ddim_sample else "DDPM"
    return PlannedRun(
        title=f"{args.model}, {sampler}-{args.num_sampling_steps}",
        spec=dit_spec(config_from(args), "ddim" if args.ddim_sample or solver else "ddpm"),
        method=method_from(args),
        num_steps=args.num_sampling_steps,
        rows_per_image=1 if args.cfg_scale == 1 else 2,
    )


# ---- what a program samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; made once from the flags, checked on the way.

    run: model, method and steps.
    model: its name.
    config: its shape.
    image_size: side of a picture in pixels.
    resizes: whether a checkpoint of another size may be loaded, because the size was asked for.
    labels: classes of the pictures, one each; None where they are drawn from the seed.
    num_images: pictures.
    batch: pictures sampled together by one process.
    seed: of all pictures.
    ddim: DDIM instead of DDPM.
    solver: (solver, grid) in place of both.
    eta: noise of DDIM.
    cfg_scale: guidance, 1 for none.
    guide_all_channels: guide every noise channel, not the first three alone.
    upstream_stream: draw as the published programs do.
    checkpoint: file of the network.
    ckpt: as it was given, None for the official or embedded one.
    vae: `none`, `ema`, `mse`, a folder or a hub name.
    dtype: of the network, a name.
    device: of the networks, its kind or its name.
    tf32: whether matrix products on CUDA may round so.
    """

    run: PlannedRun
    model: str
    config: DiTConfig
    image_size: int
    resizes: bool
    labels: tuple[int, ...] | None
    num_images: int
    batch: int
    seed: int
    ddim: bool
    solver: tuple[str, str] | None
    eta: float
    cfg_scale: float
    guide_all_channels: bool
    upstream_stream: bool
    checkpoint: Path
    ckpt: str | None
    vae: str
    dtype: str
    device: str
    tf32: bool

    @classmethod
    def from_args(cls, args: argparse.Namespace, labels: tuple[int, ...] | None = None) -> RunSettings:
        """Of the flags, and the classes asked for. Raises ValueError that names the flag, or OSError, before anything is loaded."""
        from dit import weights
        from toca.runs.programs import device_from

        run, config, guided, resizes = planned_run(args), config_from(args), args.cfg_scale != 1, args.image_size is not None
        _ = run.plan
        if args.eta and not args.ddim_sample:
            raise ValueError(f"--eta needs --ddim-sample, got {args.eta}")
        if args.upstream_stream and args.solver:
            raise ValueError("--upstream-stream draws as the published samplers do: leave --solver out")
        if args.guide_all_channels and not guided:
            raise ValueError("--guide-all-channels needs guidance, and --cfg-scale 1 samples without")
        vae, device = vae_name(args.vae, config.in_channels, args.default_vae), device_from(args.device)
        checkpoint = weights.checkpoint_path(args.model, image_size(args), args.ckpt)
        config = weights.check_checkpoint(checkpoint, config, resizes, guided)
        weights.check_vae(vae)
        return cls(
            run=run,
            model=args.model,
            config=config,
            image_size=image_size(args),
            resizes=resizes,
            labels=labels,
            num_images=args.num_images if labels is None else len(labels),
            batch=args.batch if labels is None else len(labels),
            seed=args.seed,
            ddim=args.ddim_sample,
            solver=flags.solver_from(args),
            eta=args.eta,
            cfg_scale=args.cfg_scale,
            guide_all_channels=args.guide_all_channels,
            upstream_stream=args.upstream_stream,
            vae=vae,
            device=str(device),
            checkpoint=checkpoint,
            ckpt=args.ckpt,
            dtype=args.dtype,
            tf32=args.tf32,
        )

    @property
    def guided(self) -> bool:
        return self.cfg_scale != 1

    def pictures(self, processes: int = 1) -> dict[str, Any]:
        """Everything that decides the pictures; how they are spread over batches and processes does only with upstream's stream."""
        from dit.weights import vae_source
        from toca.loading.weights import identity

        kind = self.device.partition(":")[0]
        return {
            **(dict(batch=self.batch, processes=processes, device=kind) if self.upstream_stream else {}),
            "model": self.model,
            "image_size": self.image_size,
            "num_classes": self.config.num_classes,
            "num_images": self.num_images,
            "seed": self.seed,
            "ddim": self.ddim,
            "solver": self.solver,
            "num_steps": self.run.num_steps,
            "eta": self.eta,
            "cfg_scale": self.cfg_scale,
            "guide_all_channels": self.guide_all_channels,
            "method": {"name": self.run.method.name, **asdict(self.run.method)},
            "upstream_stream": self.upstream_stream,
            "checkpoint": {"name": self.checkpoint.name, "fingerprint": identity(self.checkpoint)},
            "vae": {"name": self.vae, "fingerprint": None if self.vae == "none" else identity(vae_source(self.vae)[0])},
            "dtype": self.dtype,
            "tf32": self.tf32,
        }

    def folder_name(self) -> str:
        """Upstream's folder name, with the sampler in it, so that DDIM and DDPM runs do not overwrite each other."""
        method, ckpt = self.run.method, Path(self.ckpt).stem if self.ckpt else "pretrained"
        name = f"{self.model.replace('/', '-')}-{ckpt}-size-{self.image_size}-vae-{Path(self.vae).name}-cfg-{self.cfg_scale}"
        sampler = "-".join(self.solver) if self.solver else "ddim" if self.ddim else "ddpm"
        name += f"-seed-{self.seed}-{sampler}-step-{self.run.num_steps}-num-{self.num_images}"
        return "-".join(filter(None, [UPSTREAM_LABELS.get(method.name, method.label), name, *named_settings(method)]))


def named_settings(method: Method) -> list[str]:
    """What a folder's name says of a method's settings, in upstream's order."""
    named = [flag for flag in method.flags if flag.in_name]
    named.sort(key=lambda flag: UPSTREAM_ORDER.index(flag.name) if flag.name in UPSTREAM_ORDER else len(UPSTREAM_ORDER))
    values = [getattr(method, flag.field) for flag in named]
    texts = [".".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values]
    return [f"softweight-{text}" if flag.name == "soft_fresh_weight" else text for flag, text in zip(named, texts)]


def class_labels(args: argparse.Namespace) -> tuple[int, ...]:
    """The labels of the flags, or eight well-known ImageNet classes, or the first twenty. Raises ValueError if one is out of range."""
    classes = config_from(args).num_classes
    labels = tuple(args.class_labels or (IMAGENET if classes == 1000 else range(min(classes, 20))))
    if bad := [label for label in labels if not 0 <= label < classes]:
        raise ValueError(f"--class-labels {bad} are outside 0..{classes - 1}")
    return labels
