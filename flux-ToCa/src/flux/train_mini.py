"""Train flux-mini by rectified flow (uncached; caching is for sampling), with its text encoders along.

python -m flux.train_mini --output DIR --minutes 30 --patch 4 --lr 3e-3 --kinds single placed
python -m flux.train_mini --output DIR2 --init DIR/checkpoints/0004000.safetensors --steps 6000
python -m flux.train_mini --output DIR2 --resume --steps 6000
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from flux import mini
from toca import shapeworld
from toca.loading.weights import load_into, load_state_dict
from toca.runs.processes import process_group
from toca.runs.programs import device_from, program_errors
from toca.training import disk
from toca.training.loop import train
from toca.training.muon import optimisers
from toca.training.settings import Settings, add_flags
from toca.training.world import CHANNELS, SIZE, Pool

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

    null: tokens (1, 2, TEXT_TOKENS) of the empty caption.
    batch: pictures of this process.
    mean, std: t is the sigmoid of such a normal (Esser et al. 2024).
    drop: share of pictures whose caption is left out.
    window: patches of a side of the part of the picture that the network sees; 0: all of it.
    """

    pool: Pool
    null: Tensor
    batch: int
    patch: int
    mean: float
    std: float
    drop: float
    window: int
    device: torch.device
    rank: int = 0
    world: int = 1

    def draw(self, step: int) -> Batch:
        first = (step * self.world + self.rank) * self.batch
        x, tokens = self.pool.batch(np.arange(first, first + self.batch))
        t = torch.sigmoid(self.mean + self.std * torch.randn(self.batch))
        eps, left_out = torch.randn(x.shape), torch.rand(self.batch) < self.drop
        tokens = torch.where(left_out[:, None, None], self.null, tokens)
        at = t[:, None, None, None]
        return Batch(*(value.to(self.device) for value in ((1 - at) * x + at * eps, t, eps - x, tokens)))

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """Mean squared error of the velocity."""
        x, t, velocity, tokens = self.draw(step)
        keep = self._window()
        target = mini.patches(velocity, self.patch)
        predicted = network(x, t, tokens, patch=self.patch, keep=keep)
        return F.mse_loss(predicted.float(), target if keep is None else target[:, keep])

    def distil(self, teacher: mini.Mini, network: nn.Module, step: int) -> Tensor:
        """The same to what the teacher says under guidance w, uniform in GUIDANCE, of which the network is told: u + w (c - u), with c and
        u the teacher's velocities with and without the caption (Meng et al. 2023)."""
        x, t, _, tokens = self.draw(step)
        low, high = GUIDANCE
        w = torch.empty(len(x)).uniform_(low, high).to(self.device)
        with torch.no_grad():
            c = teacher(x, t, tokens).float()
            u = teacher(x, t, self.null.to(self.device).expand_as(tokens)).float()
        return F.mse_loss(network(x, t, tokens, w).float(), u + w[:, None, None] * (c - u))

    def _window(self) -> Tensor | None:
        """Indices (window^2,) of the tokens of a random part of the picture, the same for the whole batch."""
        if not self.window:
            return None
        rows = SIZE // self.patch
        top, left = torch.randint(rows - self.window + 1, (2,)).tolist()
        grid = torch.arange(rows * rows, device=self.device).reshape(rows, rows)
        return grid[top : top + self.window, left : left + self.window].flatten()


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --output")
    p.add_argument("--init", default=None, help="checkpoint whose fitting tensors start the model (ignored when resuming)")
    p.add_argument("--distil", default=None, help="checkpoint of a model without guidance whose guided samples are to be learnt")
    kinds = list(shapeworld.KINDS)
    p.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="of scenes, in equal shares unless repeated")
    p.add_argument("--pool", type=int, default=60_000, help="different pictures (default 60000)")
    p.add_argument("--workers", type=int, default=0, help="processes that draw the whole pool at the start; 0: as pictures are needed")
    p.add_argument("--patch", type=int, choices=(2, 4), default=mini.PATCH, help="4: a coarse start, four times as fast")
    p.add_argument("--timestep-mean", type=float, default=0.6, help="above 0: more of the noisy end (default 0.6)")
    p.add_argument("--timestep-std", type=float, default=1.0)
    p.add_argument("--drop", type=float, default=0.1, help="share of captions left out (default 0.1)")
    p.add_argument("--window", type=int, default=0, help="show the network a part of the picture, so many tokens wide; 0: all of it")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    add_flags(p, bf16=True, cooldown=0.3)
    return p


@program_errors()
def main(args: argparse.Namespace) -> None:
    settings = Settings.from_args(args)
    with process_group(device_from(args.device)) as (rank, world, device):
        if settings.batch % world:
            raise ValueError(f"--batch {settings.batch} must be a multiple of the {world} processes")
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.manual_seed(settings.seed)
        channels = CHANNELS * args.patch**2
        params = mini.PARAMS.replace(in_channels=channels, out_channels=channels, guidance_embed=args.distil is not None)
        model = mini.Mini(params).to(device)
        start = args.distil or args.init
        if start and not args.resume:
            print(disk.warm_start(model, start), flush=True)
        pool = Pool(model.tokenize, args.pool, args.kinds, settings.seed)
        if args.workers:
            pool.fill(args.workers)
        flow = Flow(
            pool,
            model.tokenize([""]),
            settings.batch // world,
            args.patch,
            args.timestep_mean,
            args.timestep_std,
            0.0 if args.distil else args.drop,
            args.window,
            device,
            rank,
            world,
        )
        loss = partial(flow.distil, teacher_from(args.distil, device)) if args.distil else flow.loss
        opts = optimisers(model, mini.hidden_matrices(model), settings.lr)
        note = {name: value if isinstance(value, (int, float, str, list)) else str(value) for name, value in vars(args).items()}
        if rank == 0:
            print(f"{sum(p.numel() for p in model.parameters()):,} parameters, into {args.output}", flush=True)
        ema = train(model, loss, opts, settings, args.output, resume=args.resume, note=note, rank=rank, world=world)
        if rank == 0 and args.patch == mini.PATCH:
            mini.save(ema, args.output)


def teacher_from(path: str, device: torch.device) -> mini.Mini:
    """A model without guidance from a checkpoint's averaged weights. Raises ValueError if they do not fit."""
    teacher = mini.Mini().to(device)
    load_into(teacher, load_state_dict(path), path)
    return teacher.requires_grad_(False).eval()


if __name__ == "__main__":
    main(parser().parse_args())
