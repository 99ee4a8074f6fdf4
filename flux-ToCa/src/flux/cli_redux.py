"""Variations of a picture: its tokens take the place of a prompt, or stand beside one.

python -m flux redux --name flux-dev --img_cond_path robot.png
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from torch import Tensor

from flux.cli import Run, add_program_flags, options_from
from flux.conditions import load_picture
from flux.flags import parse
from flux.modules.image_embedders import ReduxAdapter, SiglipEncoder
from flux.shared_flags import DTYPES, add_shared_flags, check, describe, load_pipeline, program_errors
from flux.weights import REDUX, SIGLIP, load_checked, read
from toca.runs.programs import device_from

TOKENS = 729  # of SigLIP so400m at 384 pixels
GUIDANCE = 2.5


@program_errors()
def main(args: argparse.Namespace) -> None:
    picture = load_picture(args.img_cond_path)
    args.guidance = GUIDANCE if args.guidance is None else args.guidance
    if args.test_FLOPs:
        args.image_tokens = TOKENS
        cost = check(args)
        print(describe(args, cost))
        return print(cost.flops_lines(1))
    device = device_from(args.device)
    tokens = embed(picture, args, device)
    args.image_tokens = tokens.shape[1]
    print(describe(args, check(args)), flush=True)
    Run(args, load_pipeline(args, device, progress=True)).picture(options_from(args), image_tokens=tokens)


@torch.no_grad()
def embed(picture: Image.Image, args: argparse.Namespace, device: torch.device) -> Tensor:
    """The tokens (1, M, D) of a picture; both networks are gone again when the others are loaded."""
    path, dtype = REDUX.find(args.redux), DTYPES[args.dtype]
    state = read(path, REDUX, device, dtype)
    source = SIGLIP.folder(args.siglip)
    try:
        encoder = SiglipEncoder(source, dtype).to(device)
    except (OSError, ValueError) as error:
        raise ValueError(f"no SigLIP encoder at {source}: {SIGLIP.advice()} ({str(error).strip().splitlines()[0]})") from error
    with torch.device("meta"):
        adapter = ReduxAdapter(encoder.siglip.config.hidden_size, state["redux_down.bias"].numel() if "redux_down.bias" in state else 4096)
    load_checked(adapter, state, path, REDUX)
    return adapter(encoder(picture))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m flux redux", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--name", choices=("flux-dev", "flux-schnell", "flux-dev-krea"), default="flux-dev")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--prompt", default="", help="empty in the published command")
    p.add_argument("--redux", default=None, help="the adapter's weights")
    p.add_argument("--siglip", default=None, help="folder or hub name of SigLIP so400m")
    add_program_flags(p)
    add_shared_flags(p)
    return p


def run(argv: list[str]) -> None:
    main(parse(parser(), argv))
