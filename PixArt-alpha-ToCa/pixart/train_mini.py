"""Train pixart-mini by predicting noise (uncached; caching is for sampling), with its text encoder along.

    python -m pixart.train_mini --output DIR/coarse --minutes 20 --patch 4 --lr 3e-3
    python -m pixart.train_mini --output DIR/fine --minutes 60 --lr 2e-3 --init DIR/coarse/checkpoints/0004000.safetensors
    python -m pixart.train_mini --output DIR/fine --minutes 60 --resume

The averaged weights of a run with patch 2 end up in --output as PixArt's programs read them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn
from torch import Tensor

from pixart import mini
from toca.diffusion import GaussianDiffusion, create_diffusion
from toca.runs.programs import program_errors
from toca.training import program
from toca.training.loop import Loss
from toca.training.program import Draws


@dataclass(frozen=True)
class Noise:
    """The loss of a noise prediction with learned variance (Nichol and Dhariwal 2021).

    mean, std: the timestep is the sigmoid of such a normal, as a share of all.
    drop: share of pictures whose text is left out.
    """

    draws: Draws
    diffusion: GaussianDiffusion
    mean: float
    std: float
    drop: float

    def loss(self, network: nn.Module, step: int) -> Tensor:
        x, tokens = self.draws(step)
        share = torch.sigmoid(self.mean + self.std * torch.randn(len(x)))
        t = (share * self.diffusion.num_timesteps).long().to(x.device)
        left_out, noise = (torch.rand(len(x)) < self.drop).to(x.device), torch.randn(x.shape).to(x.device)
        predict = partial(network, tokens=tokens, left_out=left_out)
        return self.diffusion.training_losses(predict, x, t, noise=noise)["loss"].mean()


def parser() -> argparse.ArgumentParser:
    p = program.parser(__doc__, bf16=True, cooldown=0.3)
    p.add_argument("--patch", type=int, choices=(2, 4), default=2, help="4: a coarse start, on a quarter of the tokens")
    p.add_argument("--timestep-mean", type=float, default=0.0, help="above 0: more of the noisy end (default 0)")
    p.add_argument("--timestep-std", type=float, default=1.0)
    return p


@program_errors()
def main(args: argparse.Namespace) -> None:
    if not args.timestep_std > 0:
        raise ValueError(f"--timestep-std must be above 0, got {args.timestep_std}")

    def loss_of(model: mini.Mini, draws: Draws) -> Loss:
        return Noise(draws, create_diffusion(""), args.timestep_mean, args.timestep_std, drop).loss

    drop, args.drop = args.drop, 0.0  # the text's features are left out, not its words
    average = program.run(args, lambda: mini.Mini(args.patch), loss_of)
    if average is not None and args.patch == mini.CONFIG.patch_size:
        mini.save(average, args.output)


if __name__ == "__main__":
    main(parser().parse_args())
