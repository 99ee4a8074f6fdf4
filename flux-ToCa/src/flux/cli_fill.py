"""Paint the masked part of a picture anew.

    python -m flux fill --img_cond_path room.png --img_mask_path mask.png --prompt "a cat on the sofa"

The result has the size of the picture, whose sides are multiples of 32. White parts of the mask are painted.
"""

from __future__ import annotations

import argparse

from flux.cli import Run, add_program_flags, options_from
from flux.conditions import fill_condition, load_picture, to_tensor
from flux.flags import parse
from flux.shared_flags import add_shared_flags, check, describe, load_pipeline, program_errors
from toca.runs.programs import device_from

SIDES = 32


@program_errors()
def main(args: argparse.Namespace) -> None:
    picture, mask = load_picture(args.img_cond_path), load_picture(args.img_mask_path, "L")
    if picture.size != mask.size or any(side % SIDES for side in picture.size):
        raise ValueError(f"picture and mask must have one size, sides multiples of {SIDES}; got {picture.size} and {mask.size}")
    args.width, args.height = picture.size
    cost = check(args)
    print(describe(args, cost), flush=True)
    if args.test_FLOPs:
        return print(cost.flops_lines(1))
    condition = fill_condition(2 * to_tensor(picture) - 1, to_tensor(mask))
    Run(args, load_pipeline(args, device_from(args.device), progress=True)).picture(options_from(args), condition)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m flux fill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--name", choices=("flux-dev-fill",), default="flux-dev-fill")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--img_mask_path", required=True, help="white where it is to be painted")
    p.add_argument("--prompt", default="a white paper cup")
    add_program_flags(p)
    add_shared_flags(p)
    return p


def run(argv: list[str]) -> None:
    main(parse(parser(), argv))
