"""The settings of a run: a Python configuration file, a preset of caching, and flags, of which later ones win."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opensora.flags import DEFAULT_PRESET, add_method_flags
from toca.cli.flags import truth
from toca.presets import OPENSORA

PARTS = ("model", "vae", "text_encoder", "scheduler")  # what a configuration builds
DTYPES = ("fp16", "bf16", "fp32")
PART_FLAGS = {  # flags that set something of a part
    "ckpt_path": ("model", "from_pretrained"),
    "flash_attn": ("model", "enable_flash_attn"),
    "layernorm_kernel": ("model", "enable_layernorm_kernel"),
    "num_sampling_steps": ("scheduler", "num_sampling_steps"),
    "cfg_scale": ("scheduler", "cfg_scale"),
}


def parser(output: str | None = None) -> argparse.ArgumentParser:
    """Every flag; all but those of PART_FLAGS are keys of a configuration as well. output: the default of --output, for one video."""
    p = argparse.ArgumentParser(description="Text to video with Open-Sora v1.2.", allow_abbrev=False)
    p.add_argument("config", help="Python configuration file, as configs/opensora-v1-2/inference/sample.py")
    p.add_argument("--seed", type=int, default=42, help="sample k of prompt i depends on seed, i and k alone")
    p.add_argument("--batch-size", type=int, default=1, help="prompts at a time")
    p.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the transformer; the autoencoder runs fp16 in fp32")
    p.add_argument("--device", help="default: cuda where there is one, else cpu")

    model = p.add_argument_group("model")
    model.add_argument("--ckpt-path", help="weights of the transformer: a folder, a .safetensors, .pt or .pth file, or a hub name")
    model.add_argument("--flash-attn", type=truth, help="accepted; attention is always fused")
    model.add_argument("--layernorm-kernel", type=truth, help="accepted; there is one layer norm")
    model.add_argument("--num-sampling-steps", type=int)
    model.add_argument("--cfg-scale", type=float, help="guidance")

    size = p.add_argument_group("size")
    size.add_argument("--resolution", help="144p 240p 360p 480p 720p 1080p 2k 4k, or the square ones 256 512 1024 2048 2880")
    size.add_argument("--aspect-ratio", help="height:width, 9:16 is landscape; or their quotient with two decimals")
    size.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="pixels; wins over --resolution")
    size.add_argument("--num-frames", default=51, help="a number, 1 for a picture, or 2s 4s 8s 16s 32s (1x 2x 4x 8x 16x)")
    size.add_argument("--fps", type=int, default=24, help="what the model is told")
    size.add_argument("--frame-interval", type=int, default=1, help="frames of the video per frame made")
    size.add_argument("--save-fps", type=int, help="of the file; default fps // frame_interval")

    prompts = p.add_argument_group("prompts")
    prompts.add_argument("--prompt", nargs="+", help="may end in a JSON object with reference_path and mask_strategy")
    prompts.add_argument("--prompt-path", help="file with a prompt per line")
    prompts.add_argument("--prompt-generator", help="one prompt again and again, up to --end-index")
    prompts.add_argument("--start-index", type=int, default=0, help="first line of the prompt file, and first number of the files")
    prompts.add_argument("--end-index", type=int, help="line of the prompt file to end before")
    prompts.add_argument("--num-sample", type=int, default=1, help="samples per prompt")
    prompts.add_argument("--aes", type=float, help="aesthetic score to write behind the prompt")
    prompts.add_argument("--flow", type=float, help="motion score to write behind the prompt")
    prompts.add_argument("--camera-motion", help="camera motion to write behind the prompt")
    prompts.add_argument("--llm-refine", type=truth, default=False, help="accepted as false: there is no service for it")

    given = p.add_argument_group("given frames and long videos")
    given.add_argument("--reference-path", nargs="+", help="one per prompt: pictures or videos, paths or addresses, apart by ;")
    given.add_argument("--mask-strategy", nargs="+", help="one per prompt: loop,reference,start,target,length,edit groups, apart by ;")
    given.add_argument("--loop", type=int, default=1, help="clips of a long video, each continuing the last")
    given.add_argument("--condition-frame-length", type=int, default=5, help="latent frames that a clip takes over, a multiple of 5")
    given.add_argument("--condition-frame-edit", type=float, default=0.0, help="how much they may change, 0 to 1")
    given.add_argument("--align", type=int, help="move positions of mask strategies to multiples of this")

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


def read_config(path: str) -> dict[str, Any]:
    """A configuration file as a dictionary. Raises ValueError if it is none, FileNotFoundError if it is not there."""
    from mmengine.config import Config

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    if Path(path).suffix != ".py":
        raise ValueError(f"{path} is no Python configuration: its name must end in .py")
    try:
        return Config.fromfile(path).to_dict()
    except Exception as error:  # it is a program, which may fail in any way
        raise ValueError(f"{path} is not a configuration: {type(error).__name__}: {error}") from error


def parse(argv: Sequence[str] | None = None, output: str | None = None) -> tuple[argparse.Namespace, dict[str, dict[str, Any]]]:
    """(settings, parts to build) of a command line. Raises ValueError on what a configuration must not say, or lacks."""
    argv = sys.argv[1:] if argv is None else argv
    p = parser(output)
    given = p.parse_known_args(argv)[0]
    config = read_config(given.config)
    parts = {part: dict(config.pop(part) or {}) for part in PARTS if part in config}
    if missing := [part for part in PARTS if part not in parts]:
        raise ValueError(f"{given.config} lacks {', '.join(missing)}: it must describe {', '.join(PARTS)}")
    config = {key: value for key, value in config.items() if value is not None}
    check_config(p, config, given.config)
    with_method = any(argument.split("=")[0] == "--method" for argument in argv)
    if preset := given.preset or (None if with_method else config.get("preset", None if "method" in config else DEFAULT_PRESET)):
        p.set_defaults(**OPENSORA[preset].flags)
    p.set_defaults(**config | dict(preset=preset))
    args = p.parse_args(argv)
    for flag, (part, key) in PART_FLAGS.items():
        if (value := getattr(args, flag)) is not None:
            parts[part][key] = value
    return args, parts


def check_config(p: argparse.ArgumentParser, config: Mapping[str, Any], path: str) -> None:
    """Raises ValueError if a key is none of the flags, or its value none that the flag takes."""
    flags = {action.dest: action for action in p._actions if action.dest not in ("help", "config", *PART_FLAGS)}
    if unknown := sorted(config.keys() - flags.keys()):
        raise ValueError(f"{path} sets {', '.join(unknown)}; known are {', '.join(sorted([*flags, *PARTS]))}")
    for key, value in config.items():
        flag = flags[key]
        for single in value if isinstance(value, list | tuple) and flag.nargs in ("+", 2) else [value]:
            if flag.choices is not None and single not in flag.choices:
                raise ValueError(f"{path} sets {key} = {single!r}; choose from {', '.join(map(str, flag.choices))}")
            wanted = {int: int, float: (int, float), truth: bool}.get(flag.type)
            if wanted and not isinstance(single, wanted):
                raise ValueError(f"{path} sets {key} = {single!r}, which is no {'true or false' if flag.type is truth else 'number'}")
