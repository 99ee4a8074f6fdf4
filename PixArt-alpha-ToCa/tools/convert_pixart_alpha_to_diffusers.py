"""A PixArt checkpoint as a folder of diffusers' PixArtTransformer2DModel.

    python tools/convert_pixart_alpha_to_diffusers.py --image_size 512 --output pixart-512/transformer

diffusers measures guidance from an empty prompt, PixArt from a learnt null text; --null_text keeps that for the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pixart.spec import CONFIGS
from pixart.weights import NULL_TEXT, check_checkpoint, checkpoint_path, load_model, save_diffusers, save_tensors
from toca.cli.flags import Parser
from toca.console import announce
from toca.runs.outputs import check_file, check_folder
from toca.runs.programs import program_errors


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    output = Path(args.output) if args.output is not None else Path(args.dump_path) / "transformer"
    check_folder(output, "--output" if args.dump_path is None else "--dump_path")
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: remove it, or choose another folder")
    if args.null_text:
        check_file(Path(args.null_text), "--null_text", endings=(".safetensors",))
    path = checkpoint_path(args.image_size, args.model_path)
    if check_checkpoint(path, args.image_size, args.ema):
        raise ValueError(f"{path} is in diffusers' layout already")
    state = load_model(path, args.image_size, torch.device("cpu"), ema=args.ema).state_dict()
    save_diffusers(output, state, CONFIGS[args.image_size])
    announce(f"{path} -> {output}")
    if args.null_text:
        save_tensors(Path(args.null_text), {NULL_TEXT: state[NULL_TEXT]})
        announce(f"{path} -> {args.null_text}")


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--image_size", type=int, choices=CONFIGS, default=1024, help="pixels (default, as upstream's: 1024)")
    p.add_argument("--model_path", "--orig_ckpt_path", help="checkpoint (default: the published one of the size)")
    p.add_argument("--ema", action="store_true", help="of a training checkpoint, take the averaged weights")
    place = p.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", help="folder to write")
    place.add_argument("--dump_path", help="upstream's: folder to write `transformer` into")
    p.add_argument("--null_text", help="also write the null text, to this .safetensors file")
    return p


if __name__ == "__main__":
    main()
