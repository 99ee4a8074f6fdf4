"""Text to image along the edges or the depths of a picture.

python -m flux control --name flux-dev-canny --img_cond_path robot.png --prompt "a robot made of glass"
python -m flux control --name flux-dev-depth-lora --lora_scale 0.85 --img_cond_path robot.png --prompt "a robot made of glass"
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from flux.cli import PICTURE, SAMPLING, SIZE, Order, add_program_flags, program_errors, run
from flux.conditions import Annotator, canny, control_condition, depth_annotator, to_tensor
from flux.flags import RunSettings, add_shared_flags, add_switch, parse, text
from toca.cli.flags import Parser
from toca.loading.pictures import read_picture

NAMES = ("flux-dev-canny", "flux-dev-depth", "flux-dev-canny-lora", "flux-dev-depth-lora")
DEPTH_MODEL = "LiheYoung/depth-anything-large-hf"


class Control:
    """Maps of pictures, as the flags have them made."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.canny, self.is_map, self.source = "canny" in args.name, args.img_is_map, args.annotator
        if self.source is not None and (self.canny or self.is_map):
            raise ValueError("--annotator: it finds depths, and " + ("the picture is a map" if self.is_map else f"{args.name} wants edges"))

    @cached_property
    def annotate(self) -> Annotator:
        if self.is_map:
            return torch.clone
        return canny if self.canny else depth_annotator(self.source or DEPTH_MODEL)

    def prepare(self, order: Order) -> tuple[RunSettings, dict[str, Any]]:
        size = (order.settings.width, order.settings.height)
        resized = read_picture(order.pictures["i"]).resize(size, Image.Resampling.LANCZOS)
        return order.settings, dict(condition=control_condition(2 * to_tensor(resized) - 1, self.annotate))


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    read_picture(args.img_cond_path)
    control = Control(args)
    order = Order(args.prompt, RunSettings.from_args(args), dict(i=args.img_cond_path))
    run(args, order, control.prepare, {**SIZE, **SAMPLING, **PICTURE}, ready=lambda: control.prepare(order))


def parser() -> Parser:
    p = Parser(prog="python -m flux control", description=__doc__)
    p.add_argument("--name", choices=NAMES, required=True)
    p.add_argument("--img_cond_path", required=True, help="the picture; resized to --width x --height")
    add_switch(p, "--img_is_map", False, "the picture is a finished map of edges or depths")
    p.add_argument("--annotator", default=None, help=f"folder or hub name of a depth model of transformers (default {DEPTH_MODEL})")
    p.add_argument("--prompt", type=text, default="a robot made of glass, in a bright laboratory")
    add_program_flags(p)
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main()
