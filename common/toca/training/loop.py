"""The loop: loss, step, average; log and checkpoints on the way. On one device, or under torchrun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from toca.console import announce
from toca.runs.files import remove_parts
from toca.runs.seeds import item_seed
from toca.training import disk
from toca.training.settings import Settings

Loss = Callable[[nn.Module, int], Tensor]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def train(
    model: nn.Module,
    loss: Loss,
    opts: Sequence[torch.optim.Optimizer],
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    note: Mapping[str, Any] | None = None,
    rank: int = 0,
    world: int = 1,
) -> nn.Module:
    """Train `model` to the end that `settings` sets, and return the average of its weights.

    loss(network, step): the mean loss of this process's share of a batch, a function of the step alone: torch's generators are seeded for
    it by (seed, step, rank), so that a resumed run draws what an unbroken one would. `network` is the model as it is to be called.
    folder: of log and checkpoints. resume: go on from its newest checkpoint. note: plain values, kept with every checkpoint.
    Raises ValueError if there is nothing to resume, or if it does not fit.
    """
    ema = deepcopy(model).requires_grad_(False).eval()
    step = disk.resume(disk.newest(folder), model, ema, opts) if resume else 0
    network = DistributedDataParallel(model) if world > 1 else model
    network.train()
    device = next(model.parameters()).device
    if rank == 0:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_parts(folder / "checkpoints")
        log = disk.Log(folder / "log.jsonl", step, settings.batch)
    total, first = torch.zeros((), device=device), step
    started = saved = time.monotonic()
    ended = settings.ended(step, 0.0)
    while not ended:
        minutes = (time.monotonic() - started) / 60
        lr = settings.learning_rate(step, minutes)
        torch.manual_seed(item_seed(settings.seed, step * world + rank))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            value = loss(network, step)
        value.backward()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr
            opt.step()
            opt.zero_grad(set_to_none=True)
        update_ema(ema, model, settings.ema_decay)
        total += value.detach() / world
        step += 1
        ended = _together(settings.ended(step, (time.monotonic() - started) / 60), device, world)
        if step % settings.log_every == 0 or ended:
            if world > 1:
                dist.all_reduce(total)
            if rank == 0:
                log.write(step, total, lr)
            total.zero_()
        if rank == 0 and (ended or time.monotonic() - saved > 60 * settings.save_minutes):
            disk.save(folder, step, model, ema, opts, note or {}, settings.keep)
            saved = time.monotonic()
    announce(f"{step - first} steps, {(step - first) * settings.batch} items, {(time.monotonic() - started) / 60:.1f} minutes")
    return ema


def _together(ended: bool, device: torch.device, world: int) -> bool:
    """Whether any process is at the end: clocks differ, and one that stops alone would leave the others waiting."""
    if world == 1:
        return ended
    any_ended = torch.tensor(float(ended), device=device)
    dist.all_reduce(any_ended, dist.ReduceOp.MAX)
    return bool(any_ended)
