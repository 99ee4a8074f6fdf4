"""Text to image along the edges or the depths of a picture.

python -m flux control --name flux-dev-canny --img_cond_path robot.png --prompt "a robot made of glass"
python -m flux control --name flux-dev-depth-lora --lora_scale 0.85 --img_cond_path robot.png --prompt "a robot made of glass"
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image

from flux.cli import Run, add_program_flags, options_from
from flux.conditions import canny, control_condition, depth_annotator, load_picture, to_tensor
from flux.flags import parse
from flux.shared_flags import add_shared_flags, add_switch, check, describe, load_pipeline, program_errors
from toca.runs.programs import device_from

NAMES = ("flux-dev-canny", "flux-dev-depth", "flux-dev-canny-lora", "flux-dev-depth-lora")
DEPTH_MODEL = "LiheYoung/depth-anything-large-hf"


@program_errors()
def main(args: argparse.Namespace) -> None:
    picture, cost = load_picture(args.img_cond_path), check(args)
    print(describe(args, cost), flush=True)
    if args.test_FLOPs:
        return print(cost.flops_lines(1))
    annotate = torch.clone if args.img_is_map else canny if "canny" in args.name else depth_annotator(args.annotator)
    resized = picture.resize((args.width, args.height), Image.Resampling.LANCZOS)
    condition = control_condition(2 * to_tensor(resized) - 1, annotate)
    Run(args, load_pipeline(args, device_from(args.device), progress=True)).picture(options_from(args), condition)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m flux control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--name", choices=NAMES, required=True)
    p.add_argument("--img_cond_path", required=True, help="the picture; resized to --width x --height")
    add_switch(p, "--img_is_map", False, "the picture is a finished map of edges or depths")
    p.add_argument("--annotator", default=DEPTH_MODEL, help="folder or hub name of a depth model of transformers")
    p.add_argument("--prompt", default="a robot made of glass, in a bright laboratory")
    add_program_flags(p)
    add_shared_flags(p, lora=True)
    return p


def run(argv: list[str]) -> None:
    main(parse(parser(), argv))
