"""Paint the masked part of a picture anew.

    python -m flux fill --img_cond_path room.png --img_mask_path mask.png --prompt "a cat on the sofa"

The result has the size of the picture, whose sides are multiples of 32. White parts of the mask are painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flux.cli import Order, Run, add_program_flags, announced
from flux.conditions import fill_condition, load_picture, to_tensor
from flux.flags import RunSettings, add_shared_flags, parse
from flux.runs import program_errors
from toca.cli.flags import Parser

SIDES = 32


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    picture, mask = load_picture(args.img_cond_path), load_picture(args.img_mask_path, "L")
    if picture.size != mask.size or any(side % SIDES for side in picture.size):
        raise ValueError(f"picture and mask must have one size, sides multiples of {SIDES}; got {picture.size} and {mask.size}")
    settings = RunSettings.from_args(args, picture.size)
    if announced(args, settings):
        condition = fill_condition(2 * to_tensor(picture) - 1, to_tensor(mask))
        Run(settings, Path(args.output_dir)).picture(Order(args.prompt, settings), condition)


def parser() -> Parser:
    p = Parser(prog="python -m flux fill", description=__doc__)
    p.add_argument("--name", choices=("flux-dev-fill",), default="flux-dev-fill")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--img_mask_path", required=True, help="white where it is to be painted")
    p.add_argument("--prompt", default="a white paper cup")
    add_program_flags(p)
    add_shared_flags(p, sized=False)
    return p


if __name__ == "__main__":
    main()
