"""Judge pixart-mini by a small GenEval, sampling with PixArt's own sampler: see `toca.training.judging`.

python -m pixart.evaluate_mini --weights DIR --images 50
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixart import mini
from pixart.aspect_ratios import nearest_bin
from pixart.sampler import Sampler
from pixart.spec import VAE_STRIDE
from pixart.t5 import T5Embedder
from toca.cli.flags import Parser, number, whole
from toca.methods import NoCaching
from toca.runs.pictures import to_uint8
from toca.runs.programs import device_from, program_errors
from toca.runs.seeds import item_generators
from toca.training.judging import evaluate, sheet, some_of_each, table
from toca.training.world import SIZE

PICTURE = nearest_bin("", 1.0, VAE_STRIDE * SIZE)  # as PixArt's sampler counts: eight pixels for each latent


@dataclass(frozen=True)
class CaptionSampler:
    """PixArt's sampler with its T5."""

    sampler: Sampler
    t5: T5Embedder

    @torch.no_grad()
    def __call__(self, captions: list[str], seeds: list[int]) -> np.ndarray:
        """Pictures (B, 32, 32, 3) uint8 of captions and a seed each."""
        y, mask = self.t5.get_text_embeddings(captions)
        return to_uint8(self.sampler.sample(y.cpu(), mask.cpu(), PICTURE, item_generators(0, seeds)))


def parser() -> argparse.ArgumentParser:
    p = Parser(description=__doc__)
    p.add_argument("--weights", type=Path, required=True, help="folder of pixart-mini")
    p.add_argument("--images", type=whole(1, 10_000), default=50, help="of every task (default 50)")
    p.add_argument("--num_steps", type=whole(1, 1000), default=20)
    p.add_argument("--cfg_scale", type=number(0, 100), default=3.0, help="guidance (default 3)")
    p.add_argument("--seed", type=whole(0), default=0)
    p.add_argument("--sheet", type=Path, default=None, help="write four pictures of every task here")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    return p


@program_errors()
def main(args: argparse.Namespace) -> None:
    model, t5 = mini.load(args.weights, device_from(args.device))
    sampler = CaptionSampler(Sampler(model, NoCaching(), "dpm-solver", args.num_steps, args.cfg_scale), t5)
    samples = list(evaluate(sampler, args.images, args.seed))
    print(table(samples), flush=True)
    if args.sheet:
        some = some_of_each(samples, 4)
        sheet(some).save(args.sheet)
        print("\n".join(f"{i:2} {sample.caption}: {'right' if sample.correct else 'wrong'}" for i, sample in enumerate(some)))


if __name__ == "__main__":
    main(parser().parse_args())
