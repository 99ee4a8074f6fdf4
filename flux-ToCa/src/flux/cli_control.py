"""Text to image along the edges or the depths of a picture.

python -m flux control --name flux-dev-canny --img_cond_path robot.png --prompt "a robot made of glass"
python -m flux control --name flux-dev-depth-lora --lora_scale 0.85 --img_cond_path robot.png --prompt "a robot made of glass"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from flux.cli import Order, Run, add_program_flags, announced
from flux.conditions import canny, control_condition, depth_annotator, load_picture, to_tensor
from flux.flags import RunSettings, add_shared_flags, add_switch, parse
from flux.runs import program_errors
from toca.cli.flags import Parser

NAMES = ("flux-dev-canny", "flux-dev-depth", "flux-dev-canny-lora", "flux-dev-depth-lora")
DEPTH_MODEL = "LiheYoung/depth-anything-large-hf"


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    picture, settings = load_picture(args.img_cond_path), RunSettings.from_args(args)
    if not announced(args, settings):
        return
    annotate = torch.clone if args.img_is_map else canny if "canny" in args.name else depth_annotator(args.annotator)
    resized = picture.resize((settings.width, settings.height), Image.Resampling.LANCZOS)
    condition = control_condition(2 * to_tensor(resized) - 1, annotate)
    Run(settings, Path(args.output_dir)).picture(Order(args.prompt, settings), condition)


def parser() -> Parser:
    p = Parser(prog="python -m flux control", description=__doc__)
    p.add_argument("--name", choices=NAMES, required=True)
    p.add_argument("--img_cond_path", required=True, help="the picture; resized to --width x --height")
    add_switch(p, "--img_is_map", False, "the picture is a finished map of edges or depths")
    p.add_argument("--annotator", default=DEPTH_MODEL, help="folder or hub name of a depth model of transformers")
    p.add_argument("--prompt", default="a robot made of glass, in a bright laboratory")
    add_program_flags(p)
    add_shared_flags(p, lora=True)
    return p


if __name__ == "__main__":
    main()
