"""The flags of every program, and what a run is made of. Free of torch, so that `toca plan opensora ...` answers at once."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from opensora.datasets.aspect import CHUNK, MOST_FRAMES, SPATIAL, Size, get_image_size, get_num_frames
from opensora.spec import CONFIGS, STDiT3Config, opensora_spec
from opensora.utils.config_utils import PARTS, Parts, merged, read_config
from opensora.utils.mask_strategy import check_loops
from toca.cli import flags
from toca.cli.flags import LARGEST_SEED, MOST_IMAGES, MOST_PIXELS, MOST_STEPS, Parser, method_from, number, truth, whole
from toca.console import announce
from toca.planning.run import PlannedRun
from toca.planning.scores import SCORES
from toca.planning.spec import ModelSpec
from toca.presets import OPENSORA as presets

DEFAULT_PRESET = "toca-r85"  # what upstream's program does
PUBLISHED_TEXT = 10  # text tokens behind the published totals
RATINGS = tuple(name for name in SCORES if name != "compress")  # which rates by attention among all tokens; here it is among some
DTYPES = ("fp16", "bf16", "fp32")
IMAGE_FPS = 120  # what the model was told of pictures
MOST_FPS, MOST_CLIPS = 1000, 1000
PART_FLAGS = {  # flags that set something of a part
    "ckpt_path": ("model", "from_pretrained"),
    "flash_attn": ("model", "enable_flash_attn"),
    "layernorm_kernel": ("model", "enable_layernorm_kernel"),
    "num_sampling_steps": ("scheduler", "num_sampling_steps"),
    "cfg_scale": ("scheduler", "cfg_scale"),
}


# ---- flags of several programs ---------------------------------------------------------------------------------------------------------


def frames(text: str) -> int:
    """The type of a flag that is a number of frames, or a name for one."""
    try:
        value = get_num_frames(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return whole(1, MOST_FRAMES)(str(value))


def add_size_flags(group: Any, resolution: str | None = None, aspect_ratio: str | None = None) -> None:
    """The size of a video; with the defaults, if it need not be said."""
    names = "144p 240p 360p 480p 720p 1080p 2k 4k, or the square ones 256 512 1024 2048 2880"
    group.add_argument("--resolution", default=resolution, help=names)
    ratio = "height:width, 9:16 is landscape; or their quotient with two decimals"
    group.add_argument("--aspect-ratio", default=aspect_ratio, help=ratio)
    pixels = dict(type=whole(SPATIAL, MOST_PIXELS), nargs=2, metavar=("HEIGHT", "WIDTH"))
    group.add_argument("--image-size", **pixels, help="pixels; wins over --resolution")
    group.add_argument("--num-frames", type=frames, default=51, help="a number, 1 for a picture, or 2s 4s 8s 16s 32s (1x 2x 4x 8x 16x)")


def size_of(args: argparse.Namespace) -> Size:
    """The size that flags stand for. Raises ValueError if there is none of that name."""
    if args.image_size is None and not (args.resolution and args.aspect_ratio):
        raise ValueError("give --resolution and --aspect-ratio, or --image-size")
    return Size(get_num_frames(args.num_frames), *(args.image_size or get_image_size(args.resolution, args.aspect_ratio)))


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
    group.add_argument("--cycles", type=whole(1, MOST_STEPS), nargs=4, metavar=("SPATIAL", "TEMPORAL", "CROSS", "MLP"), help=cycles)
    group.add_argument("--bonus", type=number(0, 1000), default=0.0, help="of the best token in every cell of 2 x 2 tokens (s4)")
    group.add_argument("--bonus-frames", type=whole(1, MOST_FRAMES), default=1, help="latent frames that a cell reaches over")


def spec_options(args: argparse.Namespace) -> dict[str, Any]:
    """What flags say to `opensora_spec` of caching."""
    return dict(cycles=tuple(args.cycles) if args.cycles else None, bonus=args.bonus, bonus_frames=args.bonus_frames)


# ---- what `toca plan | flops | memory | table opensora` ask for ------------------------------------------------------------------------


def planning_parser() -> argparse.ArgumentParser:
    """Flags of the model and the method, for a command's parser to take over."""
    parser = Parser(description="Open-Sora v1.2: text to video.", add_help=False)
    parser.add_argument("--model", choices=CONFIGS, default="STDiT3-XL/2")
    add_size_flags(parser, "480p", "9:16")
    parser.add_argument("--num-sampling-steps", type=whole(1, MOST_STEPS), default=30)
    text_help = f"of the longest prompt (default {PUBLISHED_TEXT}, that of the published totals)"
    parser.add_argument("--text-tokens", type=whole(1, STDiT3Config.model_max_length), default=PUBLISHED_TEXT, help=text_help)
    add_method_flags(parser)
    parser.set_defaults(**presets[DEFAULT_PRESET].flags)
    return parser


def planned_run(args: argparse.Namespace) -> PlannedRun:
    """Raises ValueError on flags that make no sense."""
    return _planned(args.model, CONFIGS[args.model], size_of(args), args, args.text_tokens, args.num_sampling_steps)


def _planned(name: str, config: STDiT3Config, size: Size, args: argparse.Namespace, text_tokens: int, steps: int) -> PlannedRun:
    return PlannedRun(
        title=f"{name}, {size.height}x{size.width}, {size.num_frames} frames, {text_tokens} text tokens, {steps} steps",
        spec=opensora_spec(config, size.latent, text_tokens, **spec_options(args)),
        method=method_from(args),
        num_steps=steps,
        rows_per_image=2,
    )


# ---- scripts/inference.py and sample.py ------------------------------------------------------------------------------------------------


def parser(output: str | None = None) -> Parser:
    """Every flag; all but those of PART_FLAGS are keys of a configuration as well. output: the default of --output, for one video."""
    p = Parser(description="Text to video with Open-Sora v1.2.")
    p.add_argument("config", help="Python configuration file, as configs/opensora-v1-2/inference/sample.py")
    p.add_argument("--seed", type=whole(0, LARGEST_SEED), default=42, help="sample k of prompt i depends on seed, i and k alone")
    p.add_argument("--batch-size", type=whole(1, MOST_IMAGES), default=1, help="prompts at a time")
    p.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the transformer; the autoencoder runs fp16 in fp32")
    p.add_argument("--device", help="default: cuda where there is one, else cpu")

    model = p.add_argument_group("model")
    model.add_argument("--ckpt-path", help="weights of the transformer: a folder, a .safetensors, .pt or .pth file, or a hub name")
    model.add_argument("--flash-attn", type=truth, help="accepted; attention is always fused")
    model.add_argument("--layernorm-kernel", type=truth, help="accepted; there is one layer norm")
    model.add_argument("--num-sampling-steps", type=whole(1, MOST_STEPS))
    model.add_argument("--cfg-scale", type=number(-1000, 1000), help="guidance")

    size = p.add_argument_group("size")
    add_size_flags(size)
    size.add_argument("--fps", type=whole(1, MOST_FPS), default=24, help="what the model is told")
    size.add_argument("--frame-interval", type=whole(1, MOST_FPS), default=1, help="frames of the video per frame made")
    size.add_argument("--save-fps", type=whole(1, MOST_FPS), help="of the file; default fps // frame_interval")

    prompts = p.add_argument_group("prompts")
    one = prompts.add_mutually_exclusive_group()
    one.add_argument("--prompt", nargs="+", help="may end in a JSON object with reference_path and mask_strategy")
    one.add_argument("--prompt-path", help="file with a prompt per line")
    one.add_argument("--prompt-generator", help="one prompt again and again, up to --end-index")
    first = "first line of the prompt file, and first number of the files"
    prompts.add_argument("--start-index", type=whole(0, MOST_IMAGES), default=0, help=first)
    prompts.add_argument("--end-index", type=whole(1, MOST_IMAGES), help="line of the prompt file to end before")
    prompts.add_argument("--num-sample", type=whole(1, MOST_IMAGES), default=1, help="samples per prompt")
    prompts.add_argument("--aes", type=number(-1000, 1000), help="aesthetic score to write behind the prompt")
    prompts.add_argument("--flow", type=number(-1000, 1000), help="motion score to write behind the prompt")
    prompts.add_argument("--camera-motion", help="camera motion to write behind the prompt")
    prompts.add_argument("--clean-prompts", type=truth, default=True, help="as for training; false: have them read as they are")
    prompts.add_argument("--llm-refine", type=truth, default=False, help="accepted as false: there is no service for it")

    given = p.add_argument_group("given frames and long videos")
    given.add_argument("--reference-path", nargs="+", help="one per prompt: pictures or videos, paths or addresses, apart by ;")
    given.add_argument("--mask-strategy", nargs="+", help="one per prompt: loop,reference,start,target,length,edit groups, apart by ;")
    given.add_argument("--loop", type=whole(1, MOST_CLIPS), default=1, help="clips of a long video, each continuing the last")
    taken = "latent frames that a clip takes over, a multiple of 5"
    given.add_argument("--condition-frame-length", type=whole(0, MOST_FRAMES), default=5, help=taken)
    given.add_argument("--condition-frame-edit", type=number(0, 1), default=0.0, help="how much they may change, 0 to 1")
    given.add_argument("--align", type=whole(1, MOST_FRAMES), help="move positions of mask strategies to multiples of this")

    files = p.add_argument_group("files")
    files.add_argument("--save-dir", default="./samples/samples/")
    files.add_argument("--sample-name", help="what file names begin with")
    files.add_argument("--prompt-as-path", action="store_true", help="name files by their prompts, as VBench, and skip what is there")
    files.add_argument("--watermark", type=truth, default=False, help="also write a copy with the model's name in a corner")
    files.add_argument("--verbose", type=int, default=1, choices=(0, 1, 2), help="1: a bar over prompts, 2: also over steps")

    unused = p.add_argument_group("accepted and unused here")
    for flag in ("--outputs", "--data-path", "--multi-resolution"):
        unused.add_argument(flag)
    shared_help = "under torchrun, all processes work on each video instead of each on its own videos"
    p.add_argument("--sequence-parallel", action="store_true", help=shared_help)
    p.add_argument("--shared-noise", action="store_true", help="sample k starts from seed 1024 + k, as published, whatever the prompt")
    add_method_flags(p)
    if output:
        files.add_argument("--output", default=output, help="the file of the one video, .mp4, or .png for a picture")
    return p


def parse(argv: Sequence[str] | None = None, output: str | None = None) -> tuple[argparse.Namespace, Parts]:
    """(settings, parts to build) of a command line. Raises ValueError on what a configuration must not say, or lacks."""
    p, argv = parser(output), sys.argv[1:] if argv is None else argv
    actions = [action for action in p._actions if action.dest != "help"]
    defaults = {action.dest: action.default for action in actions}
    for action in actions:
        action.default = argparse.SUPPRESS  # so that what is parsed is what was given
    given = vars(p.parse_args(argv))
    flags_by_key = {action.dest: action for action in actions if action.dest not in ("config", *PART_FLAGS)}
    config, parts = read_config(given["config"], flags_by_key)
    args = argparse.Namespace(**merged(defaults, {"preset": DEFAULT_PRESET}, config, given))
    for flag, (part, key) in PART_FLAGS.items():
        if flag in given:
            parts[part][key] = given[flag]
    flags.check_used(p, args, argv)
    check_given(p, given, args)
    return args, parts


USELESS: tuple[tuple[tuple[str, ...], Callable[[argparse.Namespace], bool], str], ...] = (  # flags, when they change nothing, and why
    (("fps", "save_fps", "frame_interval"), lambda args: args.num_frames * args.loop == 1, "a picture has no rate"),
    (("frame_interval",), lambda args: args.save_fps is not None, "save_fps is said, here or in the configuration, and is the file's rate"),
    (("aspect_ratio",), lambda args: args.image_size is not None and not args.resolution, "the size is said in pixels: give --resolution"),
    (("end_index",), lambda args: args.prompt is not None, "all prompts of --prompt are made"),
    (("condition_frame_length", "condition_frame_edit"), lambda args: args.loop == 1, "there is one clip: see --loop"),
    (("save_dir", "sample_name", "prompt_as_path"), lambda args: "output" in args, "--output names the file"),
    (("cycles",), lambda args: args.method in ("none", "scheduled"), "the method has no cycles"),
    (("bonus", "bonus_frames"), lambda args: args.method not in ("toca", "duca"), "it is of toca and duca"),
    (("bonus_frames",), lambda args: args.bonus == 0, "there is no --bonus"),
    (("seed",), lambda args: args.shared_noise and not _draws_more(args), "--shared-noise draws from seeds of its own"),
)  # fmt: skip
NO_MATTER = (  # settings of parts that change no pixel: places, speed and memory, training
    "from_pretrained", "local_files_only", "micro_batch_size", "enable_flash_attn", "enable_layernorm_kernel", "shardformer",
    "freeze_vae_2d", "cal_loss", "force_huggingface",
)  # fmt: skip
UNUSED = ("flash_attn", "layernorm_kernel", "outputs", "data_path", "multi_resolution")  # of upstream's programs


def _draws_more(args: argparse.Namespace) -> bool:
    """Whether a run may draw more than its first noise: for clips that continue, for references, for choices of tokens."""
    references = args.reference_path or args.prompt_path or any("{" in prompt for prompt in args.prompt or ())
    return bool(args.loop > 1 or references or args.cache_type == "random")


def check_given(p: Parser, given: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Refuse flags that were given and would change nothing; say which of upstream's are left aside."""
    options = {action.dest: action.option_strings[0] for action in p._actions if action.option_strings}
    for names, useless, why in USELESS:
        if useless(args) and (found := [name for name in names if name in given]):
            p.error(f"argument {options[found[0]]}: it would change nothing, {why}")
    unused = [options[name] for name in UNUSED if name in given]
    if args.image_size is not None:
        unused += [options[name] for name in ("resolution", "aspect_ratio") if name in given]
    if unused:
        announce(f"{', '.join(unused)}: accepted and not used")


NUMBERS = (  # of parts of a configuration
    ("scheduler", "num_sampling_steps", whole(1, MOST_STEPS)),
    ("scheduler", "cfg_scale", number(-1000, 1000)),
    ("vae", "micro_batch_size", whole(1, 1024)),
    ("vae", "micro_frame_size", whole(CHUNK, CHUNK)),
    ("text_encoder", "model_max_length", whole(1, STDiT3Config.model_max_length)),
)


def check_part_numbers(parts: Parts) -> None:
    """Raises ValueError if a number of a part is none, or out of range."""
    for part, key, kind in NUMBERS:
        value = parts[part].get(key)
        if value is None:
            continue
        try:
            if isinstance(value, bool | str):
                raise argparse.ArgumentTypeError(f"must be a number, got {value!r}")
            kind(str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"the configuration's {part}.{key} {error}") from None


# ---- what a run is made of -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loops:
    """How the clips of a long video follow each other: each takes over `length` latent frames of the last, which may change by `edit`."""

    num: int = 1
    length: int = 5
    edit: float = 0.0
    align: int | None = None


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; made once from the flags and the configuration, checked on the way.

    run: with texts of `PUBLISHED_TEXT` tokens and the named model; `planned` has it for others.
    parts: of the configuration, by `PARTS`, what builds the networks and the scheduler.
    fps: what the model is told.
    save_fps: what a file says.
    prompt_as_path: files are named by prompts, and none is made anew.
    output: the file of the only video; None in a folder of many.
    spec_options: of caching, for `opensora_spec`.
    """

    run: PlannedRun
    parts: Parts
    size: Size
    fps: int
    save_fps: int
    seed: int
    dtype: str
    device: str | None
    batch_size: int
    loops: Loops
    shared_noise: bool
    prompt_as_path: bool
    watermark: bool
    sequence_parallel: bool
    output: Path | None
    verbose: int
    spec_options: Mapping[str, Any]

    @classmethod
    def from_args(cls, args: argparse.Namespace, parts: Parts) -> RunSettings:
        """Raises ValueError that names the flag."""
        size = size_of(args)
        if 1 < size.num_frames < CHUNK:
            raise ValueError(f"--num-frames must be 1 (a picture) or at least {CHUNK}, got {size.num_frames}")
        if args.end_index is not None and args.end_index <= args.start_index:
            raise ValueError(f"--start-index {args.start_index} and --end-index {args.end_index} leave no prompt")
        if args.llm_refine:
            raise ValueError("--llm-refine: there is no service that refines prompts here; give refined prompts")
        check_loops(args.loop, size.num_frames, args.condition_frame_length)
        name = parts["model"].get("type")
        if name not in CONFIGS:
            raise ValueError(f"there is no model of type {name!r}; known: {', '.join(CONFIGS)}")
        check_part_numbers(parts)
        run = _planned(name, CONFIGS[name], size, args, PUBLISHED_TEXT, parts["scheduler"].get("num_sampling_steps", 10))
        _ = run.plan  # raises
        return cls(
            run=run,
            parts=parts,
            size=size,
            fps=IMAGE_FPS if size.num_frames == 1 else args.fps,
            save_fps=args.save_fps or max(args.fps // args.frame_interval, 1),
            seed=args.seed,
            dtype=args.dtype,
            device=args.device,
            batch_size=args.batch_size,
            loops=Loops(args.loop, args.condition_frame_length, args.condition_frame_edit, args.align),
            shared_noise=args.shared_noise,
            prompt_as_path=args.prompt_as_path,
            watermark=args.watermark,
            sequence_parallel=args.sequence_parallel,
            output=Path(args.output) if "output" in args else None,
            verbose=args.verbose,
            spec_options=spec_options(args),
        )

    def planned(self, text_tokens: int, config: STDiT3Config) -> PlannedRun:
        """The run with the longest text of a batch, on a loaded model."""
        return dataclasses.replace(self.run, spec=self.spec(text_tokens, config))

    def spec(self, text_tokens: int, config: STDiT3Config) -> ModelSpec:
        return opensora_spec(config, self.size.latent, text_tokens, **self.spec_options)

    def pictures(self) -> dict[str, Any]:
        """What decides the pixels of all videos alike, but for the weights, of which a part's other settings are here."""
        method = self.run.method
        return dict(
            seed=self.seed,
            dtype=self.dtype,
            fps=self.fps,
            save_fps=self.save_fps,
            size=astuple(self.size),
            loops=asdict(self.loops),
            shared_noise=self.shared_noise,
            **{part: {key: value for key, value in self.parts[part].items() if key not in NO_MATTER} for part in PARTS},
            method={"name": method.name, **asdict(method)},
            **self.spec_options,
        )
