"""A training run: one model, its average, and the loop over steps."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dit.layouts import POSITIONS
from dit.model import DiT
from dit.training.data import Data, Split, open_data
from dit.training.experiment import Log, check_place, check_resumed, open_folder, resume, save
from dit.training.flags import TrainSettings
from dit.training.timestep_sampler import create_named_schedule_sampler
from dit.weights import check_vae, load_encoder, read_tensors
from toca.console import announce
from toca.diffusion import create_diffusion
from toca.loading.weights import shapes_of
from toca.runs.processes import process_group
from toca.runs.programs import program_errors
from toca.runs.seeds import item_seed
from toca.training import muon


def total_steps(settings: TrainSettings, steps_per_epoch: int | None) -> int:
    """Where training ends: --max-steps or --epochs, whichever comes first. Raises ValueError if the data is endless and so is the run."""
    if steps_per_epoch is None:
        if settings.max_steps is None:
            raise ValueError(f"{settings.data_path} is endless: give --max-steps")
        return settings.max_steps
    steps = settings.epochs * steps_per_epoch
    return min(steps, settings.max_steps or steps)


def hidden_matrices(model: DiT) -> list[nn.Parameter]:
    """The weights Muon is made for: attention and MLP linears of the blocks."""
    return [p for name, p in model.named_parameters() if "blocks." in name and p.ndim == 2 and "adaLN" not in name]


def optimisers(model: DiT, name: str, lr: float) -> list[torch.optim.Optimizer]:
    return muon.optimisers(model, hidden_matrices(model) if name == "muon" else (), lr)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up, then constant, then a linear fall to zero over the last `--cooldown` share of the run."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.lr * min(warm, (total - step) / max(1.0, settings.cooldown * total))


@torch.no_grad()
def update_ema(ema: DiT, model: DiT, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def warm_start(model: DiT, path: str) -> str:
    """Take every tensor of a checkpoint whose name and shape fit: a DiT trained at another patch size hands on its blocks.

    Raises ValueError if none does.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in read_tensors(Path(path)).items() if k in own and v.shape == own[k].shape and k != POSITIONS}
    if not fitting:
        raise ValueError(f"--init {path}: no tensor in it has the name and the shape of one of the model")
    model.load_state_dict(own | fitting)
    return f"warm start from {path}: {len(fitting)} of {len(own)} tensors"


def check_files(settings: TrainSettings) -> None:
    """Make sure that what a run reads is there and fits, and that it can write. Raises ValueError or OSError."""
    check_place(settings)
    check_vae(settings.vae)
    if settings.resume:
        check_resumed(settings.resume, settings)
    if settings.init:
        shapes_of(settings.init)


@program_errors("try a smaller --global-batch-size or --model", "finished checkpoints stay, and --resume goes on from the last")
def train(args: argparse.Namespace) -> None:
    """train.py."""
    settings = TrainSettings.from_args(args)
    check_files(settings)
    with process_group(torch.device(settings.device)) as (rank, world, device):
        train_share(settings, rank, world, device)


def train_share(settings: TrainSettings, rank: int, world: int, device: torch.device) -> None:
    """The share of one process; rank 0 writes the log and the checkpoints."""
    if settings.global_batch_size % world:
        raise ValueError(f"--global-batch-size {settings.global_batch_size} must be a multiple of the {world} processes")
    split = Split(settings.global_batch_size // world, rank, world, settings.global_seed)
    data = open_data(settings.data_path, settings.image_size, split, settings.num_workers)
    total = total_steps(settings, data.steps_per_epoch)
    if data.num_classes > settings.config.num_classes:
        classes = f"{data.num_classes} classes, the model {settings.config.num_classes}"
        raise ValueError(f"{settings.data_path} has {classes}: give --num-classes")
    if settings.warmup_steps >= total:
        raise ValueError(f"--warmup-steps {settings.warmup_steps}: the run has {total} steps, and would never come to its --lr")
    with open_folder(settings) if rank == 0 else nullcontext() as folder:
        run_steps(settings, data, total, folder, rank, world, device)


def run_steps(settings: TrainSettings, data: Data, total: int, folder: Path | None, rank: int, world: int, device: torch.device) -> None:
    """Load the networks, and train to step `total`. folder: of rank 0."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    encode = load_encoder(settings.vae, device)
    torch.manual_seed(settings.global_seed)
    model = DiT(settings.config).to(device)
    started_from = f"\n{warm_start(model, settings.init)}" if settings.init and not settings.resume else ""
    ema = deepcopy(model).requires_grad_(False).eval()
    opts = optimisers(model, settings.optimizer, settings.lr)
    step = resume(settings.resume, model, ema, opts) if settings.resume else 0
    diffusion = create_diffusion(timestep_respacing="")
    timesteps = create_named_schedule_sampler(settings.timestep_sampler, diffusion, **settings.timestep_options)
    network = DistributedDataParallel(model) if world > 1 else model
    network.train()

    def predict(x: Tensor, t: Tensor, **labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
            return network(x, t, **labels).float()

    if folder:
        log = Log(folder / "log.jsonl", step, settings.global_batch_size)
        parameters = sum(p.numel() for p in model.parameters())
        announce(f"{settings.model}: {parameters:,} parameters, step {step} to {total}, into {folder}{started_from}")
    sums = torch.zeros(2, device=device)
    for x, y in data.batches(step) if step < total else ():
        torch.manual_seed(item_seed(settings.global_seed, step * world + rank))  # a resumed run draws what an unbroken one would
        with torch.no_grad():
            x = encode(x.to(device))
        t, weights = timesteps.sample(len(x), device)
        losses = diffusion.training_losses(predict, x, t, dict(y=y.to(device)))
        loss = (losses["loss"] * weights).mean()
        loss.backward()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = learning_rate(step, total, settings)
            opt.step()
            opt.zero_grad(set_to_none=True)
        update_ema(ema, model, settings.ema_decay)
        sums += torch.stack([loss.detach(), losses["mse"].detach().mean()]) / world
        step += 1
        logs, saves = (step % every == 0 or step == total for every in (settings.log_every, settings.ckpt_every))
        if (logs or saves) and not bool(sums.isfinite().all()):
            raise ValueError(f"the loss is not finite at step {step}: try a smaller --lr, from the last checkpoint on")
        if logs:
            if world > 1:
                dist.all_reduce(sums)
            if folder:
                log.write(step, sums)
            sums.zero_()
        if saves and folder:
            save(folder, step, model, ema, opts, settings)
        if step == total:
            return
