"""A PixArt checkpoint as a folder of diffusers' PixArtTransformer2DModel.

    python tools/convert_pixart_alpha_to_diffusers.py --image_size 512 --output pixart-512/transformer

diffusers measures guidance from an empty prompt, PixArt from a learnt null text; --null_text keeps that for the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file

from pixart.spec import CONFIGS
from pixart.weights import NULL_TEXT, checkpoint_path, diffusers_config, load_model, to_diffusers
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.weights import load_into
from toca.runs.files import atomic_path
from toca.runs.programs import program_errors


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    path = checkpoint_path(args.image_size, args.model_path)
    state = load_model(path, args.image_size, torch.device("cpu"), ema=args.ema).state_dict()
    config = CONFIGS[args.image_size]
    with torch.device("meta"):
        model = PixArtTransformer2DModel(**diffusers_config(config))
    load_into(model, to_diffusers(state, config), str(path))
    model.save_pretrained(args.output)
    if args.null_text:
        with atomic_path(args.null_text) as part:
            save_file({NULL_TEXT: state[NULL_TEXT]}, part)
    announce(f"{path} -> {args.output}")


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--image_size", type=int, choices=CONFIGS, default=256)
    p.add_argument("--model_path", help="checkpoint (default: the published one of the size)")
    p.add_argument("--ema", action="store_true", help="of a training checkpoint, take the averaged weights")
    p.add_argument("--output", required=True, help="folder to write")
    p.add_argument("--null_text", help="also write the null text, to this .safetensors file")
    return p


if __name__ == "__main__":
    main()
