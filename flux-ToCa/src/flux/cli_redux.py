"""Variations of a picture: its tokens take the place of a prompt, or stand beside one.

python -m flux redux --name flux-dev --img_cond_path robot.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flux.cli import PICTURE, SAMPLING, SIZE, Order, add_program_flags, program_errors, run
from flux.files import CONFIGS, REDUX, SIGLIP
from flux.flags import TEXT_MODELS, RunSettings, add_shared_flags, parse, text
from flux.modules.image_embedders import ReduxAdapter, SiglipEncoder
from flux.weights import Reader, blaming, header, reader
from toca.cli.flags import Parser
from toca.loading.pictures import read_picture
from toca.loading.pretrained import from_disk_or_hub
from toca.loading.weights import load_into, plain_reason
from toca.runs.programs import DTYPES, device_from

TOKENS = 729  # of SigLIP so400m at 384 pixels
GUIDANCE = 2.5


@dataclass(frozen=True)
class Redux:
    """Pictures to tokens. width: of the vision encoder; tokens: of a picture; text_width: of the model's text tokens."""

    adapter: Path
    siglip: str
    width: int
    tokens: int
    text_width: int

    @classmethod
    def find(cls, args: argparse.Namespace) -> Redux:
        """Raises ValueError or FileNotFoundError that says what is lacking, or does not fit."""
        from transformers import AutoConfig

        source = SIGLIP.folder(args.siglip)
        try:
            config = from_disk_or_hub(AutoConfig, source)
            vision = getattr(config, "vision_config", config)
            width, tokens = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"no SigLIP encoder at {source}: {SIGLIP.advice()} ({plain_reason(error)})") from error
        redux = cls(REDUX.find(args.redux), source, width, tokens, CONFIGS[args.name].params.context_in_dim)
        redux.load_adapter(header)
        return redux

    def load_adapter(self, read: Reader) -> ReduxAdapter:
        with torch.device("meta"):
            adapter = ReduxAdapter(self.width, self.text_width)
        with blaming(self.adapter, REDUX):
            load_into(adapter, read(self.adapter), str(self.adapter))
        return adapter

    @torch.no_grad()
    def embed(self, path: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tokens (1, M, D) of a picture; both networks are gone again when the others are loaded."""
        try:
            encoder = SiglipEncoder(self.siglip, dtype).to(device)
        except (OSError, ValueError) as error:
            raise ValueError(f"no SigLIP encoder at {self.siglip}: {SIGLIP.advice()} ({plain_reason(error)})") from error
        return self.load_adapter(reader(device, dtype))(encoder(read_picture(path)))


@program_errors()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(parser(), argv)
    read_picture(args.img_cond_path)
    redux = None if args.test_FLOPs else Redux.find(args)
    settings = RunSettings.from_args(args, image_tokens=redux.tokens if redux else TOKENS, guidance=GUIDANCE)

    @lru_cache(maxsize=1)
    def tokens(path: str) -> Tensor:
        return redux.embed(path, DTYPES[args.dtype], device_from(args.device))

    def prepare(order: Order) -> tuple[RunSettings, dict[str, Any]]:
        return order.settings, dict(image_tokens=tokens(order.pictures["i"]))

    order = Order(args.prompt, settings, dict(i=args.img_cond_path))
    run(args, order, prepare, {**SIZE, **SAMPLING, **PICTURE}, ready=lambda: prepare(order))


def parser() -> Parser:
    p = Parser(prog="python -m flux redux", description=__doc__)
    p.add_argument("--name", choices=TEXT_MODELS, default="flux-dev")
    p.add_argument("--img_cond_path", required=True, help="the picture")
    p.add_argument("--prompt", type=text, default="", help="empty in the published command")
    p.add_argument("--redux", default=None, help="the adapter's weights")
    p.add_argument("--siglip", default=None, help="folder or hub name of SigLIP so400m")
    add_program_flags(p)
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main()
