"""Judge flux-mini by a small GenEval, sampling with FLUX's own sampler: see `toca.training.judging`.

python -m flux.evaluate_mini --weights DIR --images 50
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flux import mini
from flux.model import Flux
from flux.modules.conditioner import HFEmbedder
from flux.sampler import denoise, get_schedule, prepare, unpack
from toca.cli.flags import Parser, number, whole
from toca.methods import Method
from toca.runs.pictures import to_uint8
from toca.runs.programs import device_from, program_errors
from toca.runs.seeds import item_generators
from toca.training.judging import evaluate, sheet, some_of_each, table
from toca.training.world import CHANNELS, SIZE

PIXELS = 8 * SIZE  # a side, as FLUX's sampler counts: eight for each latent


@dataclass(frozen=True)
class Sampler:
    """flux-mini and how it samples. guidance: of a model that is distilled for it. method: of caching; default none."""

    networks: tuple[Flux, HFEmbedder, HFEmbedder]
    num_steps: int = 28
    guidance: float = 3.5
    method: Method | None = None

    @torch.no_grad()
    def __call__(self, captions: list[str], seeds: list[int]) -> np.ndarray:
        """Pictures (B, 32, 32, 3) uint8 of captions and a seed each."""
        flux, t5, clip = self.networks
        noise = torch.stack([torch.randn(CHANNELS, SIZE, SIZE, generator=g) for g in item_generators(0, seeds)])
        inputs = prepare(t5, clip, noise.to(flux.img_in.weight.device), captions)
        timesteps = get_schedule(self.num_steps, inputs["img"].shape[1])
        x = denoise(flux, **inputs, timesteps=timesteps, guidance=self.guidance, method=self.method, seeds=seeds)
        return to_uint8(unpack(x, PIXELS, PIXELS))


def parser() -> argparse.ArgumentParser:
    p = Parser(description=__doc__)
    p.add_argument("--weights", type=Path, required=True, help="folder of flux-mini")
    p.add_argument("--images", type=whole(1, 10_000), default=50, help="of every task (default 50)")
    p.add_argument("--num_steps", type=whole(1, 1000), default=28)
    p.add_argument("--guidance", type=number(0, 100), default=3.5, help="of a model that is distilled for it (default 3.5)")
    p.add_argument("--seed", type=whole(0), default=0)
    p.add_argument("--sheet", type=Path, default=None, help="write four pictures of every task here")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    return p


@program_errors()
def main(args: argparse.Namespace) -> None:
    networks = mini.load(args.weights, device_from(args.device))
    samples = list(evaluate(Sampler(networks, args.num_steps, args.guidance), args.images, args.seed))
    print(table(samples), flush=True)
    if args.sheet:
        some = some_of_each(samples, 4)
        sheet(some).save(args.sheet)
        print("\n".join(f"{i:2} {sample.caption}: {'right' if sample.correct else 'wrong'}" for i, sample in enumerate(some)))


if __name__ == "__main__":
    main(parser().parse_args())
