"""The flags of train.py, and what a training run is made of. Free of torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dit.flags import MOST_BATCH, MOST_CLASSES, config_from, image_size, vae_name
from dit.spec import CONFIGS, DiTConfig
from toca.cli.flags import LARGEST_SEED, MOST_PIXELS, Parser, number, whole

MOST_TRAINING_STEPS, MOST_WORKERS = 1_000_000_000, 1000
EPOCHS, SCENES = 1400, "shapeworld"
OPTIMISERS = ("adamw", "muon")
TIMESTEP_SAMPLERS = ("uniform", "logit-normal")
SAME = (  # of a run that is resumed
    *("model", "image_size", "vae", "global_batch_size", "global_seed", "mixed_precision"),
    *("timestep_sampler", "timestep_mean", "timestep_std"),
)


def train_parser(description: str | None = None) -> Parser:
    """The flags of train.py."""
    steps = whole(1, MOST_TRAINING_STEPS)
    p = Parser(description=description)
    p.add_argument("--data-path", required=True, help="a folder with one sub-folder of images per class, or `shapeworld`")
    p.add_argument("--results-dir", default="results")
    p.add_argument("--model", choices=CONFIGS, default="DiT-XL/2")
    p.add_argument("--image-size", type=whole(1, MOST_PIXELS), default=None, help="side in pixels (default 256; DiT-mini 32)")
    p.add_argument("--num-classes", type=whole(1, MOST_CLASSES), default=None, help="default: the model's own (1000; DiT-mini 20)")
    p.add_argument("--epochs", type=steps, default=None, help="of an image folder (default 1400)")
    p.add_argument("--global-batch-size", type=whole(1, MOST_BATCH), default=256, help="over all processes")
    p.add_argument("--global-seed", type=whole(0, LARGEST_SEED), default=0)
    p.add_argument("--vae", default=None, help="ema, mse, a diffusers folder or hub name, or none (default ema; DiT-mini: none)")
    p.add_argument("--num-workers", type=whole(0, MOST_WORKERS), default=4, help="processes that read an image folder")
    p.add_argument("--log-every", type=steps, default=100)
    p.add_argument("--ckpt-every", type=steps, default=50_000)
    p.add_argument("--lr", type=number(0, 10), default=1e-4)
    p.add_argument("--optimizer", choices=OPTIMISERS, default="adamw")
    p.add_argument("--warmup-steps", type=whole(0, MOST_TRAINING_STEPS), default=0)
    cooldown = "share of the run at its end over which the learning rate falls to zero"
    p.add_argument("--cooldown", type=number(0, 1), default=0.0, help=cooldown)
    p.add_argument("--max-steps", type=steps, default=None, help="stop here at the latest")
    p.add_argument("--ema-decay", type=number(0, 0.999999), default=0.9999)
    p.add_argument("--mixed-precision", choices=("no", "bf16"), default="no", help="bf16: matrix products in bfloat16, weights in float32")
    p.add_argument("--timestep-sampler", choices=TIMESTEP_SAMPLERS, default="uniform")
    mean = "of logit-normal, default 0: mid-schedule; below it less noise"
    p.add_argument("--timestep-mean", type=number(-100, 100), default=None, help=mean)
    p.add_argument("--timestep-std", type=number(1e-6, 100), default=None, help="of logit-normal, default 1")
    p.add_argument("--patch-size", type=whole(1, 1024), default=None, help="override the model's patch size (a coarse start for --init)")
    p.add_argument("--init", default=None, help="checkpoint whose fitting tensors start the model")
    p.add_argument("--resume", default=None, help="checkpoint of train.py to go on from")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    return p


@dataclass(frozen=True)
class TrainSettings:
    """What a training run is made of; made once from the flags, checked on the way.

    config: shape of the model.
    model: its name.
    image_size: side of a picture in pixels.
    data_path: `shapeworld` or an image folder.
    vae: `none`, `ema`, `mse`, a folder or a hub name.
    results_dir: where new runs get a folder.
    epochs, max_steps: the run ends with whichever comes first; shapeworld has no epochs.
    global_batch_size: pictures of a step, over all processes.
    global_seed: of weights, data and noise.
    num_workers: processes that read pictures.
    log_every, ckpt_every: steps between lines of the log and between checkpoints.
    lr, optimizer: learning rate at its height, and what applies it.
    warmup_steps: over which it rises.
    cooldown: share of the run over which it falls.
    ema_decay: of the averaged weights, a step.
    mixed_precision: `bf16` for matrix products in bfloat16.
    timestep_sampler, timestep_mean, timestep_std: which timesteps a batch visits; the last two of logit-normal.
    init: checkpoint whose fitting tensors start the model.
    resume: checkpoint to go on from.
    device: where it runs, its kind or its name.
    """

    config: DiTConfig
    model: str
    image_size: int
    data_path: str
    vae: str
    results_dir: str
    epochs: int
    max_steps: int | None
    global_batch_size: int
    global_seed: int
    num_workers: int
    log_every: int
    ckpt_every: int
    lr: float
    optimizer: str
    warmup_steps: int
    cooldown: float
    ema_decay: float
    mixed_precision: str
    timestep_sampler: str
    timestep_mean: float | None
    timestep_std: float | None
    init: str | None
    resume: str | None
    device: str

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> TrainSettings:
        """Raises ValueError that names the flag before anything is loaded."""
        from toca.runs.programs import device_from

        if args.data_path == SCENES and args.epochs:
            raise ValueError(f"--epochs: {SCENES} has none, it is endless: give --max-steps")
        if args.data_path == SCENES and not args.max_steps:
            raise ValueError(f"--data-path {SCENES} is endless: give --max-steps")
        if args.data_path != SCENES and not Path(args.data_path).is_dir():
            raise ValueError(f"--data-path {args.data_path}: no such folder; {SCENES} needs none")
        if args.init and args.resume:
            raise ValueError("--init starts a new run, and --resume goes on with one: give one of them")
        if args.lr == 0:
            raise ValueError("--lr must be above 0")
        config = config_from(args)
        if args.patch_size:
            if config.input_size % args.patch_size:
                raise ValueError(
                    f"--patch-size {args.patch_size} does not divide the {config.input_size} x {config.input_size} the model sees"
                )
            config = config.replace(patch_size=args.patch_size)
        if args.timestep_sampler != "logit-normal" and (args.timestep_mean, args.timestep_std) != (None, None):
            raise ValueError("--timestep-mean and --timestep-std belong to --timestep-sampler logit-normal")
        given = {name: value for name, value in vars(args).items() if name not in ("num_classes", "patch_size")}
        given |= dict(image_size=image_size(args), epochs=args.epochs or EPOCHS, device=str(device_from(args.device)))
        return cls(config=config, **given | dict(vae=vae_name(args.vae, config.in_channels, "ema")))

    @property
    def timestep_options(self) -> dict[str, float]:
        """What the sampler of timesteps is told."""
        given = dict(mean=self.timestep_mean, std=self.timestep_std)
        return {name: value for name, value in given.items() if value is not None}

    def noted(self) -> dict[str, Any]:
        """The settings as plain data, for a checkpoint."""
        return asdict(self)

    def check_same(self, noted: Mapping[str, Any], source: str) -> None:
        """Raises ValueError if a checkpoint's settings make another run than these; how it is trained on may change, what it is may not."""
        now = self.noted()
        changes = [f"{name} was {noted[name]}, now {now[name]}" for name in SAME if noted.get(name) not in (None, now[name])]
        before = noted.get("data_path", self.data_path)
        if (before == SCENES) != (self.data_path == SCENES):
            changes.append(f"data_path was {before}, now {self.data_path}")
        if changes:
            raise ValueError(f"--resume {source}: it is a run with other settings ({'; '.join(changes)}); --init starts a new one from it")
