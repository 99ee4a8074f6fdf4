"""The flags of the programs, and what a run is made of. Free of torch, so that `toca plan pixart ...` answers at once."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixart.prompts import Prompt, read_lines
from pixart.spec import CONFIGS, pixart_spec
from toca.cli import flags
from toca.cli.flags import LARGEST_SEED, MOST_STEPS, Parser, check_used, method_from, number, truth, whole
from toca.planning.memory import DTYPES
from toca.planning.run import PlannedRun
from toca.presets import PIXART as presets
from toca.presets import parse_with_preset
from toca.runs.outputs import check_folder, check_names

if TYPE_CHECKING:
    from pixart.text_cache import TextCache

STEPS = {"iddpm": 100, "dpm-solver": 20, "sa-solver": 25}  # by --sampling_algo, where --step is not set
PUBLISHED_TEXT = 24  # real text tokens behind the published totals
LONGEST_TEXT = CONFIGS[256].model_max_length
T5_PRECISIONS = ("fp32", "bf16", "8bit")  # not fp16, in which T5 overflows
CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path()  # the current one, where the package is installed without it
PRETRAINED = FOLDER / "pretrained_models"


def steps(text: str) -> int:
    """The type of --step: -1 for the sampler's own number."""
    return -1 if text == "-1" else whole(1, MOST_STEPS)(text)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The model's resolution, the sampler and guidance."""
    parser.add_argument("--image_size", type=int, choices=CONFIGS, default=256, help="pixels; 1024 is the model of any aspect ratio")
    parser.add_argument("--sampling_algo", choices=STEPS, default="dpm-solver")
    parser.add_argument("--step", type=steps, default=-1, help="sampling steps; -1: 20 of dpm-solver, 25 of sa-solver, 100 of iddpm")
    parser.add_argument("--cfg_scale", type=number(1, 1000), default=4.5, help="classifier-free guidance; 1 samples without")


def add_method_flags(parser: argparse.ArgumentParser) -> None:
    """The caching method and its settings, by upstream's names."""
    paid = "what scores a token; attention: that it pays to the text"
    flags.add_method_flags(parser, presets, pixart_spec(CONFIGS[256]), "_", help={"cache_type": paid}, fresh_threshold=3, fresh_ratio=0.30)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of all programs that sample."""
    add_model_flags(parser)
    add_method_flags(parser)
    parser.set_defaults(text_tokens=PUBLISHED_TEXT)  # of the plan that is announced
    files = parser.add_argument_group("files", f"paths or hub names; by default what lies in {PRETRAINED.name}/, else the published ones")
    files.add_argument("--model_path", help="checkpoint (.pth, .safetensors)")
    files.add_argument("--ema", action="store_true", help="of a training checkpoint, take the averaged weights")
    files.add_argument("--vae", "--tokenizer_path", dest="vae", help="folder or hub name of the autoencoder (upstream's --tokenizer_path)")
    files.add_argument("--t5_path", help="folder that holds t5-v1_1-xxl, its own folder, or a hub name")
    files.add_argument("--t5_precision", choices=T5_PRECISIONS, default="fp32", help="8bit needs bitsandbytes and a GPU")
    files.add_argument("--t5_device", help="where T5 works, for GPUs too small for it: cpu (default: --device)")
    files.add_argument("--text_cache", default=str(PRETRAINED / "texts"), help="folder that keeps embedded texts")
    cleaning = "False: T5 reads prompts as they are, not cleaned as the captions of training were"
    parser.add_argument("--clean_caption", type=truth, default=True, metavar="BOOL", help=cleaning)
    parser.add_argument("--dtype", choices=DTYPES, help="of the network (default: fp16 on CUDA, fp32 elsewhere); the rest is fp32")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0, help="picture i depends on (seed, i) alone")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse flags, with those of a preset as defaults; settings of other methods than the chosen one are refused."""
    args = parse_with_preset(parser, presets, argv)
    check_used(parser, args, argv)
    return args


def num_steps(args: argparse.Namespace) -> int:
    """Sampling steps of the flags."""
    return STEPS[args.sampling_algo] if args.step == -1 else args.step


# ---- what `toca plan | flops | memory | table pixart` ask for -----------------------------------------------------------------------


def planning_parser() -> Parser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = Parser(description="PixArt-alpha: text to image.", add_help=False)
    add_model_flags(parser)
    text_help = f"of the longest text in a batch, at most {LONGEST_TEXT} (default {PUBLISHED_TEXT}, that of the published totals)"
    parser.add_argument("--text_tokens", type=whole(1, LONGEST_TEXT), default=PUBLISHED_TEXT, help=text_help)
    add_method_flags(parser)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    steps, guided = num_steps(args), args.cfg_scale != 1
    return PlannedRun(
        title=f"PixArt-alpha {args.image_size} px, {args.text_tokens} text tokens, {args.sampling_algo}-{steps}",
        spec=pixart_spec(CONFIGS[args.image_size], text_tokens=args.text_tokens, guided=guided),
        method=method_from(args),
        num_steps=steps,
        rows_per_image=2 if guided else 1,
    )


# ---- what a program samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; made once from the flags, checked on the way.

    run: model, method and steps; its plan is that of texts of PUBLISHED_TEXT tokens.
    prompts: one per picture.
    image_size: pixels of the square picture.
    sampling_algo: name of the sampler.
    cfg_scale: guidance, 1 for none.
    seed: of all pictures.
    device: of the network, its kind or its name.
    dtype: of the network, a name.
    checkpoint: file or folder of the network.
    diffusers: whether that is in diffusers' layout, whose null text is an empty prompt.
    ema: take its averaged weights.
    vae, t5: folders or hub names.
    t5_precision: a name.
    t5_device: where T5 works, None for `device`.
    text_cache: folder of embedded texts.
    clean_caption: whether prompts are cleaned.
    dataset: in the folder's name.
    """

    run: PlannedRun
    prompts: tuple[Prompt, ...]
    image_size: int
    sampling_algo: str
    cfg_scale: float
    seed: int
    device: str
    dtype: str
    checkpoint: Path
    diffusers: bool
    ema: bool
    vae: str
    t5: str
    t5_precision: str
    t5_device: str | None
    text_cache: Path
    clean_caption: bool
    dataset: str = "custom"

    @classmethod
    def from_args(cls, args: argparse.Namespace, lines: Sequence[str]) -> RunSettings:
        """Of the flags and the lines of prompts. Raises ValueError or OSError before anything is loaded."""
        from pixart import t5, weights
        from toca.loading.autoencoder import check_autoencoder
        from toca.runs.programs import device_from

        run, device = planned_run(args), device_from(args.device)
        _ = run.plan
        t5_device = device_from(args.t5_device, "--t5_device") if args.t5_device else device
        checkpoint = weights.checkpoint_path(args.image_size, args.model_path)
        settings = cls(
            run=run,
            prompts=tuple(read_lines(lines, args.image_size, args.clean_caption)),
            image_size=args.image_size,
            sampling_algo=args.sampling_algo,
            cfg_scale=args.cfg_scale,
            seed=args.seed,
            device=str(device),
            dtype=args.dtype or ("fp16" if device.type == "cuda" else "fp32"),
            checkpoint=checkpoint,
            diffusers=weights.check_checkpoint(checkpoint, args.image_size, args.ema),
            ema=args.ema,
            vae=weights.vae_source(args.vae),
            t5=t5.t5_source(args.t5_path, PRETRAINED),
            t5_precision=args.t5_precision,
            t5_device=args.t5_device,
            text_cache=Path(args.text_cache),
            clean_caption=args.clean_caption,
            dataset=getattr(args, "dataset", "custom"),
        )
        check_autoencoder(settings.vae, weights.VAE_ADVICE)
        check_names(settings.text_cache, "--text_cache")
        cache = settings.embedded_texts()
        if missing := cache.missing(settings.texts):
            check_folder(cache.folder, "--text_cache", len(missing) * PUBLISHED_TEXT * cache.width * 4)
            t5.check_t5(settings.t5, t5_device, settings.t5_precision, cache.width)
        return settings

    @property
    def texts(self) -> list[str]:
        """What is to be embedded: of every prompt, and the empty one where it stands for the null text."""
        return [prompt.text for prompt in self.prompts] + [""] * self.diffusers

    def embedded_texts(self) -> TextCache:
        from pixart.t5 import encoder_identity
        from pixart.text_cache import TextCache

        config = CONFIGS[self.image_size]
        identity = encoder_identity(self.t5, self.t5_precision)
        return TextCache(self.text_cache, identity, config.model_max_length, config.caption_channels)

    def pictures(self) -> dict[str, Any]:
        """Everything that decides the pictures; how they are spread over batches and processes does not."""
        from pixart.t5 import encoder_identity
        from toca.loading.weights import identity

        lines = "\n".join(prompt.line for prompt in self.prompts)
        return {
            "image_size": self.image_size,
            "sampling_algo": self.sampling_algo,
            "num_steps": self.run.num_steps,
            "cfg_scale": self.cfg_scale,
            "seed": self.seed,
            "dtype": self.dtype,
            "method": {"name": self.run.method.name, **asdict(self.run.method)},
            "checkpoint": {"name": self.checkpoint.name, "fingerprint": identity(self.checkpoint)},
            "ema": self.ema,
            "vae": identity(self.vae),
            "text_encoder": encoder_identity(self.t5, self.t5_precision),
            "t5_precision": self.t5_precision,
            "clean_caption": self.clean_caption,
            "prompts": hashlib.blake2b(lines.encode(), digest_size=8).hexdigest(),
        }

    def folder_name(self) -> str:
        """Upstream's name without the date and the batch size, and with the method, so that no two runs share a folder."""
        epoch, step = "unknown", "unknown"
        if (stem := self.checkpoint.stem).startswith("epoch_") and "_step_" in stem:
            epoch, step = stem.removeprefix("epoch_").split("_step_", 1)
        method = self.run.method
        settings = [str(getattr(method, flag.field)) for flag in method.flags if flag.in_name]
        name = f"{self.dataset}_epoch{epoch}_step{step}_scale{self.cfg_scale}_step{self.run.num_steps}_size{self.image_size}"
        return "_".join([f"{name}_samp{self.sampling_algo}_seed{self.seed}", method.name, *settings])
