"""A folder of diffusers' PixArtTransformer2DModel as a PixArt checkpoint.

    python tools/convert_diffusers_to_pixart_alpha.py --image_size 512 --folder pixart-512/transformer --output PixArt-512.safetensors

The null text that PixArt measures guidance from is not in the folder: it comes from a PixArt checkpoint or from a file that
convert_pixart_alpha_to_diffusers.py wrote, or T5's features of an empty prompt stand in, as diffusers' pipeline has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file

from pixart.flags import PRETRAINED
from pixart.spec import CONFIGS
from pixart.t5 import T5Embedder, t5_source
from pixart.weights import NULL_TEXT, from_diffusers
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.weights import load_state_dict
from toca.runs.files import atomic_path
from toca.runs.programs import program_errors


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    config = CONFIGS[args.image_size]
    model = PixArtTransformer2DModel.from_pretrained(args.folder, local_files_only=True)
    state = from_diffusers(model.state_dict(), config, null_text(args, config.model_max_length))
    with atomic_path(args.output) as part:
        save_file(state, part)
    announce(f"{args.folder} -> {args.output}")


def null_text(args: argparse.Namespace, length: int) -> torch.Tensor:
    """(L, D), of the file of the flags, or encoded. Raises ValueError if the file holds none."""
    if not args.null_text:
        encoder = T5Embedder(t5_source(args.t5_path, PRETRAINED), torch.device("cpu"), model_max_length=length)
        return encoder.get_text_embeddings([""])[0][0]
    state = load_state_dict(args.null_text, parts=("state_dict",))
    if NULL_TEXT not in state:
        raise ValueError(f"--null_text {args.null_text} holds no {NULL_TEXT}: give a PixArt checkpoint")
    return state[NULL_TEXT]


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--image_size", type=int, choices=CONFIGS, default=256)
    p.add_argument("--folder", required=True, help="of diffusers' transformer")
    p.add_argument("--null_text", help="PixArt checkpoint or file that holds the null text; without it T5 encodes an empty prompt")
    p.add_argument("--t5_path", help="folder or hub name of T5, for the empty prompt")
    p.add_argument("--output", required=True, help="checkpoint to write (.safetensors)")
    return p


if __name__ == "__main__":
    main()
