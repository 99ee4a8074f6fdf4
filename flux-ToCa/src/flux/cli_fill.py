"""Paint the masked part of a picture anew.

    python -m flux fill --img_cond_path room.png --img_mask_path mask.png --prompt "a cat on the sofa"

The result has the size of the picture, whose sides are multiples of 32. White parts of the mask are painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from flux.cli import MASK, PICTURE, SAMPLING, Order, add_program_flags, program_errors, run
from flux.conditions import fill_condition, to_tensor
from flux.flags import RunSettings, add_shared_flags, parse, text
from toca.cli.flags import MOST_PIXELS, Parser
from toca.loading.pictures import read_mask, read_picture

SIDES = 32


def pair(picture_path: str, mask_path: str) -> tuple[Image.Image, Image.Image]:
    """A picture and its mask. Raises ValueError if they do not fit each other or the model."""
    picture, mask = read_picture(picture_path), read_mask(mask_path)
    if picture.size != mask.size or any(side % SIDES for side in picture.size):
        near = " x ".join(str(max(SIDES, side // SIDES * SIDES)) for side in picture.size)
        sizes = " and ".join(f"{path} is {p.width} x {p.height}" for path, p in ((picture_path, picture), (mask_path, mask)))
        raise ValueError(f"picture and mask must have one size, sides multiples of {SIDES}: {sizes}; try {near} for both")
    if max(picture.size) > MOST_PIXELS:
        raise ValueError(f"{picture_path} is {picture.width} x {picture.height}, at most {MOST_PIXELS} pixels a side are painted")
    return picture, mask


def prepare(order: Order) -> tuple[RunSettings, dict[str, Any]]:
    picture, mask = pair(order.pictures["i"], order.pictures["m"])
    settings = order.settings.changed(width=picture.width, height=picture.height)
    return settings, dict(condition=fill_condition(2 * to_tensor(picture) - 1, to_tensor(mask)))


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    picture, _ = pair(args.img_cond_path, args.img_mask_path)
    order = Order(args.prompt, RunSettings.from_args(args, picture.size), dict(i=args.img_cond_path, m=args.img_mask_path))
    run(args, order, prepare, {**SAMPLING, **PICTURE, **MASK})


def parser() -> Parser:
    p = Parser(prog="python -m flux fill", description=__doc__)
    p.add_argument("--name", choices=("flux-dev-fill",), default="flux-dev-fill")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--img_mask_path", required=True, help="white where it is to be painted")
    p.add_argument("--prompt", type=text, default="a white paper cup")
    add_program_flags(p)
    add_shared_flags(p, sized=False)
    return p


if __name__ == "__main__":
    main()
