"""What the training programs of small models share: their flags, and a run from the flags on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from toca import shapeworld
from toca.console import announce
from toca.loading.weights import load_state_dict
from toca.runs.processes import process_group
from toca.runs.programs import device_from
from toca.training import disk
from toca.training.loop import Loss, train
from toca.training.muon import optimisers
from toca.training.settings import Settings, add_flags
from toca.training.world import Pool


class Trained(Protocol):
    """A network (`nn.Module`) with its words and its Muon weights."""

    def tokenize(self, captions: Any) -> Tensor: ...
    def hidden_matrices(self) -> Iterable[nn.Parameter]: ...


Model = TypeVar("Model", bound=Any)  # Trained and nn.Module


@dataclass(frozen=True)
class Draws:
    """Captioned batches of one process, a function of the step.

    batch: pictures of this process.
    drop: share of pictures whose caption is left out.
    """

    pool: Pool
    batch: int
    drop: float
    device: torch.device
    rank: int = 0
    world: int = 1

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, 32, 32) in [-1, 1] and tokens (B, ...), on the device; which captions are left out is torch's to draw."""
        first = (step * self.world + self.rank) * self.batch
        x, tokens = (value.to(self.device) for value in self.pool.batch(np.arange(first, first + self.batch)))
        left_out = (torch.rand(self.batch) < self.drop).to(self.device)
        return x, torch.where(left_out.reshape(-1, *[1] * (tokens.ndim - 1)), self.pool.empty.to(self.device), tokens)


def parser(description: str | None, **defaults: object) -> argparse.ArgumentParser:
    """defaults: of `Settings`."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", type=Path, required=True, help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --output")
    p.add_argument("--init", default=None, help="weights whose fitting tensors start the model (ignored when resuming)")
    kinds = list(shapeworld.KINDS)
    p.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="of scenes, in equal shares unless repeated")
    p.add_argument("--pool", type=int, default=60_000, help="different pictures (default 60000)")
    p.add_argument("--workers", type=int, default=0, help="processes that draw the whole pool at the start; 0: pictures as they are needed")
    p.add_argument("--drop", type=float, default=0.1, help="share of captions left out (default 0.1)")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    add_flags(p, **defaults)
    return p


def run(
    args: argparse.Namespace,
    build: Callable[[], Model],
    loss_of: Callable[[Model, Draws], Loss],
    read: Callable[[str], Mapping[str, Tensor]] = load_state_dict,
) -> Model | None:
    """Train what `build` makes, and return the average of its weights on the first process, None on the others.

    build: a model of `Trained`. loss_of: its loss on batches. read: the tensors of what --init names.
    Raises ValueError on flags that make no sense.
    """
    settings = Settings.from_args(args)
    for name, low, high in (("pool", 1, 10**7), ("workers", 0, 1024), ("drop", 0, 1)):
        if not low <= getattr(args, name) <= high:
            raise ValueError(f"--{name} must be in {low}..{high}, got {getattr(args, name)}")
    with process_group(device_from(args.device)) as (rank, world, device):
        if settings.batch % world:
            raise ValueError(f"--batch {settings.batch} must be a multiple of the {world} processes")
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.manual_seed(settings.seed)
        model = build().to(device)
        if args.init and not args.resume:
            announce(f"warm start from {args.init}: {disk.warm_start(model, read(args.init))}")
        pool = Pool(model.tokenize, args.pool, args.kinds, settings.seed)
        if args.workers:
            pool.fill(args.workers)
        loss = loss_of(model, Draws(pool, settings.batch // world, args.drop, device, rank, world))
        note = {name: value if isinstance(value, int | float | str | list) else str(value) for name, value in vars(args).items()}
        announce(f"{sum(p.numel() for p in model.parameters()):,} parameters, into {args.output}")
        opts = optimisers(model, model.hidden_matrices(), settings.lr)
        ema = train(model, loss, opts, settings, args.output, resume=args.resume, note=note, rank=rank, world=world)
        return ema if rank == 0 else None
