"""Train a DiT (uncached; caching is for sampling): AdamW or Muon, EMA, resumable, on one device or under torchrun.

    python train.py --data-path /path/to/imagenet/train --model DiT-XL/2
    python train.py --data-path shapeworld --model DiT-mini --image-size 32 --vae none
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from diffusion import create_diffusion
from diffusion.timestep_sampler import create_named_schedule_sampler
from models import DiT, DiT_models
from optim import Muon, hidden_matrices
from toca import shapeworld
from toca.files import atomic_path
from toca.runner import item_seed, process_group
from toca.weights import load_checkpoint, load_into, load_state_dict

Batches = Iterator[tuple[Tensor, Tensor]]


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre crop as in ADM: halve with a box filter while that keeps the short side at least `size`, resize bicubically, crop."""
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
    scale = size / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), resample=Image.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))


def image_folder_batches(path: str, size: int, batch: int, rank: int, world: int, seed: int, first_step: int, workers: int) -> Batches:
    """Endless batches of an image folder with one sub-folder per class, reshuffled per epoch, starting at `first_step`."""
    from torch.utils.data import DataLoader
    from torch.utils.data.distributed import DistributedSampler
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    augment = transforms.Compose([lambda image: center_crop(image, size), transforms.RandomHorizontalFlip(), normalise])
    dataset = ImageFolder(path, transform=augment)
    sampler = DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed, drop_last=True)
    loader = DataLoader(dataset, batch_size=batch, sampler=sampler, num_workers=workers, pin_memory=True, drop_last=True)
    if not len(loader):
        raise SystemExit(f"{path} holds {len(dataset)} images: fewer than one global batch of {batch * world}")
    epoch, skip = divmod(first_step, len(loader))
    while True:
        sampler.set_epoch(epoch)
        for index, pair in enumerate(loader):
            if index >= skip:
                yield pair
        epoch, skip = epoch + 1, 0


def shapeworld_batches(size: int, batch: int, rank: int, world: int, seed: int, first_step: int) -> Batches:
    """Endless batches of procedural scenes; scene n of the run is the same whatever the batch size."""
    step = first_step
    while True:
        first = (step * world + rank) * batch
        images, labels = shapeworld.batch(seed, np.arange(first, first + batch), size=size)
        yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(labels)
        step += 1


def encoder(vae: str, device: torch.device):
    """x -> 0.18215 * a sample of the VAE's posterior, or x itself for `none`."""
    if vae == "none":
        return lambda x: x
    from diffusers import AutoencoderKL

    name = f"stabilityai/sd-vae-ft-{vae}" if vae in ("ema", "mse") else vae
    autoencoder = AutoencoderKL.from_pretrained(name).to(device).eval()
    return lambda x: autoencoder.encode(x).latent_dist.sample().mul_(0.18215)


def optimisers(model: DiT, name: str, lr: float) -> list[torch.optim.Optimizer]:
    matrices = hidden_matrices(model) if name == "muon" else []
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=0)
    return [adamw, Muon(matrices, lr=lr)] if matrices else [adamw]


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then constant, then a linear fall to zero over the last `--cooldown` share of the run."""
    warm = min(1.0, (step + 1) / max(1, args.warmup_steps))
    left = (args.max_steps - step) / max(1.0, args.cooldown * args.max_steps) if args.max_steps else 1.0
    return args.lr * min(warm, 1.0, left)


@torch.no_grad()
def update_ema(ema: DiT, model: DiT, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def warm_start(model: DiT, path: str) -> None:
    """Take every tensor of a checkpoint whose name and shape fit: a DiT trained at another patch size hands on its blocks."""
    own = model.state_dict()
    fitting = {k: v for k, v in load_state_dict(path).items() if k in own and v.shape == own[k].shape and k != "pos_embed"}
    model.load_state_dict(own | fitting)
    print(f"warm start from {path}: {len(fitting)} of {len(own)} tensors")


def experiment_folder(args: argparse.Namespace) -> Path:
    """<results>/<3-digit index>-<model>, a new one unless resuming."""
    if args.resume:
        return Path(args.resume).resolve().parents[1]
    taken = [int(m[1]) for p in Path(args.results_dir).glob("*") if (m := re.match(r"(\d{3})-", p.name))]
    return Path(args.results_dir) / f"{max(taken, default=-1) + 1:03d}-{args.model.replace('/', '-')}"


def save(folder: Path, step: int, model: DiT, ema: DiT, opts: list[torch.optim.Optimizer], args: argparse.Namespace) -> None:
    """`checkpoints/<step>.pt` = {model, ema, opt, args, step}, all plain, and the EMA weights alone as safetensors."""
    state = dict(model=model.state_dict(), ema=ema.state_dict(), opt=[o.state_dict() for o in opts], args=vars(args), step=step)
    path = folder / "checkpoints" / f"{step:07d}.pt"
    with atomic_path(path.with_suffix(".safetensors")) as part:
        save_file({k: v.contiguous() for k, v in ema.state_dict().items()}, part)
    with atomic_path(path) as part:
        torch.save(state, part)


def main(args: argparse.Namespace) -> None:
    with process_group() as (rank, world, device):
        train(args, rank, world, device)


def train(args: argparse.Namespace, rank: int, world: int, device: torch.device) -> None:
    if args.global_batch_size % world:
        raise SystemExit(f"--global-batch-size {args.global_batch_size} must be a multiple of the {world} processes")
    torch.manual_seed(args.global_seed)
    latent = args.image_size // (1 if args.vae == "none" else 8)
    overrides = dict(num_classes=args.num_classes, patch_size=args.patch_size)
    model = DiT_models[args.model](input_size=latent, **{key: value for key, value in overrides.items() if value}).to(device)
    if args.init:
        warm_start(model, args.init)
    ema = deepcopy(model).requires_grad_(False).eval()
    opts = optimisers(model, args.optimizer, args.lr)
    step = 0
    if args.resume:
        state = load_checkpoint(args.resume)
        load_into(model, state["model"], args.resume)
        load_into(ema, state["ema"], args.resume)
        for opt, saved in zip(opts, state["opt"], strict=True):
            opt.load_state_dict(saved)
        step = state["step"]

    folder = experiment_folder(args)
    encode = encoder(args.vae, device)
    diffusion = create_diffusion(timestep_respacing="")
    timesteps = create_named_schedule_sampler(args.timestep_sampler, diffusion)
    network = DistributedDataParallel(model) if world > 1 else model
    network.train()
    batch = args.global_batch_size // world
    if args.data_path == "shapeworld":
        batches = shapeworld_batches(args.image_size, batch, rank, world, args.global_seed, step)
    else:
        batches = image_folder_batches(args.data_path, args.image_size, batch, rank, world, args.global_seed, step, args.num_workers)

    if rank == 0:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        print(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters, from step {step}, into {folder}", flush=True)
    log, running, started = folder / "log.jsonl", torch.zeros((), device=device), time.monotonic()
    for x, y in batches:
        torch.manual_seed(item_seed(args.global_seed, step * world + rank))  # a resumed run draws what an unbroken one would
        with torch.no_grad():
            x = encode(x.to(device))
        t, weights = timesteps.sample(len(x), device)
        losses = diffusion.training_losses(network, x, t, dict(y=y.to(device)))
        loss = (losses["loss"] * weights).mean()
        loss.backward()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = learning_rate(step, args)
            opt.step()
            opt.zero_grad(set_to_none=True)
        update_ema(ema, model, args.ema_decay)
        running += losses["mse"].detach().mean()
        step += 1
        if step % args.log_every == 0:
            if world > 1:
                dist.all_reduce(running)
            seconds = time.monotonic() - started
            line = dict(step=step, mse=running.item() / args.log_every / world, images_per_second=args.log_every * batch * world / seconds)
            if rank == 0:
                print(json.dumps(line), flush=True)
                with open(log, "a") as file:
                    file.write(json.dumps(line) + "\n")
            running.zero_()
            started = time.monotonic()
        finished = args.max_steps and step >= args.max_steps
        if rank == 0 and (step % args.ckpt_every == 0 or finished):
            save(folder, step, model, ema, opts, args)
        if finished:
            return


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data-path", required=True, help="a folder with one sub-folder of images per class, or `shapeworld`")
    p.add_argument("--results-dir", default="results")
    p.add_argument("--model", choices=sorted(DiT_models), default="DiT-XL/2")
    p.add_argument("--image-size", type=int, default=256, help="side in pixels (upstream: 256 or 512)")
    p.add_argument("--num-classes", type=int, default=None, help="default: the model's own (1000; DiT-mini 20)")
    p.add_argument("--epochs", type=int, default=1400)
    p.add_argument("--global-batch-size", type=int, default=256)
    p.add_argument("--global-seed", type=int, default=0)
    p.add_argument("--vae", default="ema", help="ema, mse, a diffusers folder or hub name, or `none` for pixel space")
    p.add_argument("--num-workers", type=int, default=4)
    p.add_argument("--log-every", type=int, default=100)
    p.add_argument("--ckpt-every", type=int, default=50_000)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    p.add_argument("--warmup-steps", type=int, default=0)
    p.add_argument("--cooldown", type=float, default=0.0, help="share of --max-steps at the end over which the learning rate falls to zero")
    p.add_argument("--max-steps", type=int, default=None, help="stop here, instead of after --epochs")
    p.add_argument("--ema-decay", type=float, default=0.9999)
    p.add_argument("--timestep-sampler", default="uniform")
    p.add_argument("--patch-size", type=int, default=None, help="override the model's patch size (a coarse start for --init)")
    p.add_argument("--init", default=None, help="checkpoint whose fitting tensors start the model")
    p.add_argument("--resume", default=None, help="checkpoint of train.py to go on from")
    return p


if __name__ == "__main__":
    main(parser().parse_args())
