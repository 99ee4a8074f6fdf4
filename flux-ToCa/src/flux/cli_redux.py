"""Variations of a picture: its tokens take the place of a prompt, or stand beside one.

python -m flux redux --name flux-dev --img_cond_path robot.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from flux.cli import Order, Run, add_program_flags, announced
from flux.conditions import load_picture
from flux.files import REDUX, SIGLIP
from flux.flags import TEXT_MODELS, RunSettings, add_shared_flags, parse
from flux.modules.image_embedders import ReduxAdapter, SiglipEncoder
from flux.runs import program_errors
from flux.weights import load_checked, read
from toca.cli.flags import Parser
from toca.runs.programs import DTYPES, device_from

TOKENS = 729  # of SigLIP so400m at 384 pixels
GUIDANCE = 2.5


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    picture, settings = load_picture(args.img_cond_path), RunSettings.from_args(args, image_tokens=TOKENS)
    if not announced(args, settings):
        return
    tokens = embed(picture, args, device_from(args.device))
    settings = settings.changed(image_tokens=tokens.shape[1])
    Run(settings, Path(args.output_dir)).picture(Order(args.prompt, settings), image_tokens=tokens)


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


def parser() -> Parser:
    p = Parser(prog="python -m flux redux", description=__doc__)
    p.add_argument("--name", choices=TEXT_MODELS, default="flux-dev")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--prompt", default="", help="empty in the published command")
    p.add_argument("--redux", default=None, help="the adapter's weights")
    p.add_argument("--siglip", default=None, help="folder or hub name of SigLIP so400m")
    add_program_flags(p)
    add_shared_flags(p)
    p.set_defaults(guidance=GUIDANCE)
    return p


if __name__ == "__main__":
    main()
