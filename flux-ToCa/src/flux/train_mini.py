"""Train flux-mini by rectified flow (uncached; caching is for sampling), with its text encoders along.

    python -m flux.train_mini --output DIR/coarse --minutes 20 --patch 4 --lr 3e-3
    python -m flux.train_mini --output DIR/fine --minutes 60 --lr 2e-3 --init DIR/coarse/checkpoints/0004000.safetensors
    python -m flux.train_mini --output DIR/fine --minutes 60 --resume
    python -m flux.train_mini --output DIR/guided --minutes 10 --distil DIR/fine/checkpoints/0009000.safetensors

The averaged weights of a run with patch 2 end up in --output as FLUX's programs read them; --init and --distil take such a folder, too.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from flux import mini
from toca.loading.weights import load_into
from toca.runs.programs import program_errors
from toca.training import program
from toca.training.loop import Loss
from toca.training.program import Draws
from toca.training.world import CHANNELS, SIZE

GUIDANCE = (1.0, 5.0)  # of distillation


class Batch(NamedTuple):
    """x_t (B, 3, 32, 32) = (1 - t) x + t eps, t (B,), velocity (B, 3, 32, 32) = eps - x, tokens (B, 2, TEXT_TOKENS)."""

    x: Tensor
    t: Tensor
    velocity: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Flow:
    """Batches of rectified flow, drawn from torch's generator, and the losses on them.

    mean, std: t is the sigmoid of such a normal (Esser et al. 2024).
    window: patches of a side of the part of the picture that the network sees; 0: all of it.
    """

    draws: Draws
    patch: int = mini.PATCH
    mean: float = 0.6
    std: float = 1.0
    window: int = 0

    def draw(self, step: int) -> Batch:
        x, tokens = self.draws(step)
        t = torch.sigmoid(self.mean + self.std * torch.randn(len(x))).to(x.device)
        eps, at = torch.randn(x.shape).to(x.device), t[:, None, None, None]
        return Batch((1 - at) * x + at * eps, t, eps - x, tokens)

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """Mean squared error of the velocity."""
        x, t, velocity, tokens = self.draw(step)
        keep, target = self._window(x.device), mini.patches(velocity, self.patch)
        predicted = network(x, t, tokens, patch=self.patch, keep=keep)
        return F.mse_loss(predicted.float(), target if keep is None else target[:, keep])

    def distil(self, teacher: mini.Mini, network: nn.Module, step: int) -> Tensor:
        """The same to what the teacher says under guidance w, uniform in GUIDANCE, of which the network is told: u + w (c - u), with c and
        u the teacher's velocities with and without the caption (Meng et al. 2023)."""
        x, t, _, tokens = self.draw(step)
        w = torch.empty(len(x)).uniform_(*GUIDANCE).to(x.device)
        nothing = self.draws.pool.empty.to(x.device).expand_as(tokens)
        with torch.no_grad():
            c, u = teacher(x, t, tokens).float(), teacher(x, t, nothing).float()
        return F.mse_loss(network(x, t, tokens, w).float(), u + w[:, None, None] * (c - u))

    def _window(self, device: torch.device) -> Tensor | None:
        """Indices (window^2,) of the patches of a random part of the picture, the same for the whole batch."""
        if not self.window:
            return None
        rows = SIZE // self.patch
        top, left = torch.randint(rows - self.window + 1, (2,)).tolist()
        grid = torch.arange(rows * rows, device=device).reshape(rows, rows)
        return grid[top : top + self.window, left : left + self.window].flatten()


def parser() -> argparse.ArgumentParser:
    p = program.parser(__doc__, bf16=True, cooldown=0.3)
    p.add_argument("--distil", default=None, help="weights of a model without guidance: learn its guided velocity, from them on")
    p.add_argument("--patch", type=int, choices=(2, 4), default=mini.PATCH, help="4: a coarse start, on a quarter of the tokens")
    p.add_argument("--window", type=int, default=0, help="show the network a part of the picture, so many patches wide; 0: all of it")
    p.add_argument("--timestep-mean", type=float, default=0.6, help="above 0: more of the noisy end (default 0.6)")
    p.add_argument("--timestep-std", type=float, default=1.0)
    return p


def check(args: argparse.Namespace) -> None:
    """Raises ValueError on flags that make no sense."""
    if args.distil and (args.patch != mini.PATCH or args.window or args.init):
        raise ValueError("--distil goes without --init, --patch and --window: it begins with the whole model that it is given")
    if not 0 <= args.window <= SIZE // args.patch:
        raise ValueError(f"--window must be in 0..{SIZE // args.patch}, got {args.window}")
    if not args.timestep_std > 0:
        raise ValueError(f"--timestep-std must be above 0, got {args.timestep_std}")


def teacher_from(path: str) -> mini.Mini:
    """A model without guidance. Raises ValueError if the weights do not fit."""
    teacher = mini.Mini()
    load_into(teacher, mini.read(path), path)
    return teacher.requires_grad_(False).eval()


@program_errors()
def main(args: argparse.Namespace) -> None:
    check(args)
    channels = CHANNELS * args.patch**2
    params = mini.PARAMS.replace(in_channels=channels, out_channels=channels, guidance_embed=args.distil is not None)

    def loss_of(model: mini.Mini, draws: Draws) -> Loss:
        flow = Flow(draws, args.patch, args.timestep_mean, args.timestep_std, args.window)
        return partial(flow.distil, teacher_from(args.distil).to(draws.device)) if args.distil else flow.loss

    if args.distil:
        args.init, args.drop = args.distil, 0.0
    average = program.run(args, lambda: mini.Mini(params), loss_of, mini.read)
    if average is not None and args.patch == mini.PATCH:
        mini.save(average, args.output)


if __name__ == "__main__":
    main(parser().parse_args())
