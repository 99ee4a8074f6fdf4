"""A folder of diffusers' PixArtTransformer2DModel as a PixArt checkpoint.

    python tools/convert_diffusers_to_pixart_alpha.py --image_size 512 --folder pixart-512/transformer --output PixArt-512.safetensors

The null text that PixArt measures guidance from is not in the folder: it comes from a PixArt checkpoint or from a file that
convert_pixart_alpha_to_diffusers.py wrote, or T5's features of an empty prompt stand in, as diffusers' pipeline has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pixart.flags import PRETRAINED
from pixart.spec import CONFIGS, PixArtConfig
from pixart.t5 import T5Embedder, check_t5, t5_source
from pixart.weights import NULL_TEXT, check_checkpoint, checkpoint_path, load_model, save_tensors
from toca.cli.flags import Parser
from toca.console import announce
from toca.loading.weights import load_state_dict, shapes_of
from toca.runs.outputs import check_file
from toca.runs.programs import program_errors

CPU = torch.device("cpu")


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    config, folder, source = CONFIGS[args.image_size], Path(args.folder), t5_source(args.t5_path, PRETRAINED)
    check_file(Path(args.output), "--output", endings=(".safetensors",))
    if not folder.exists():
        raise ValueError(f"--folder {folder}: there is no such folder")
    folder = checkpoint_path(args.image_size, args.folder)
    if not check_checkpoint(folder, args.image_size):
        raise ValueError(f"--folder {folder} holds a PixArt checkpoint, not diffusers' model")
    if args.null_text and args.t5_path:
        raise ValueError("--t5_path is for encoding an empty prompt, which --null_text takes the place of: give one of them")
    if args.null_text:
        check_null_text(args.null_text, config)
        given = load_state_dict(args.null_text, parts=("state_dict",))[NULL_TEXT]
        state = load_model(folder, args.image_size, CPU, null_text=given).state_dict()
    else:
        check_t5(source, CPU, "fp32", config.caption_channels)
        state = load_model(folder, args.image_size, CPU, null_text=empty_prompt(source)).state_dict()
    save_tensors(Path(args.output), state)
    announce(f"{folder} -> {args.output}")


def check_null_text(path: str, config: PixArtConfig) -> None:
    """Raises ValueError if a file holds none, or of another shape."""
    shape, wanted = shapes_of(path, parts=("state_dict",)).get(NULL_TEXT), (config.model_max_length, config.caption_channels)
    if shape is None:
        raise ValueError(f"--null_text {path} holds no {NULL_TEXT}: give a PixArt checkpoint")
    if shape != wanted:
        raise ValueError(f"--null_text {path}: the null text is {shape}, wanted {wanted}")


def empty_prompt(source: str) -> Tensor:
    """T5's features of an empty prompt, (1, D)."""
    features, mask = T5Embedder(source, CPU).get_text_embeddings([""])
    return features[0, : int(mask.sum())]


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("--image_size", type=int, choices=CONFIGS, default=1024, help="pixels (default: 1024)")
    p.add_argument("--folder", required=True, help="of diffusers' transformer, or the one above it")
    p.add_argument("--null_text", help="PixArt checkpoint or file that holds the null text; without it T5 encodes an empty prompt")
    p.add_argument("--t5_path", help="folder or hub name of T5, for the empty prompt")
    p.add_argument("--output", required=True, help="checkpoint to write (.safetensors)")
    return p


if __name__ == "__main__":
    main()
