"""Train a DiT (uncached; caching is for sampling): AdamW or Muon, EMA, resumable, on one device or under torchrun.

torchrun --nproc_per_node=8 train.py --data-path /path/to/imagenet/train --model DiT-XL/2
python train.py --data-path shapeworld --model DiT-mini --max-steps 20000 --global-batch-size 64
python train.py --resume results/000-DiT-mini/checkpoints/0010000.pt ...    # with the flags of the run to go on with
"""

from __future__ import annotations

import argparse
from copy import deepcopy

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from diffusion import create_diffusion
from dit.flags import config_from
from dit.model import DiT, DiT_models
from dit.pipeline import image_size
from dit.spec import DiTConfig
from dit.training.data import Split, open_data
from dit.training.experiment import Log, experiment_folder, resume, save
from dit.training.optim import Muon, hidden_matrices
from dit.training.timestep_sampler import SAMPLERS, create_named_schedule_sampler
from dit.weights import load_encoder, vae_name
from toca.loading.weights import load_state_dict
from toca.runs.files import remove_parts
from toca.runs.processes import process_group
from toca.runs.programs import device_from, program_errors
from toca.runs.seeds import item_seed

POSITIVE = ("global_batch_size", "log_every", "ckpt_every", "epochs", "max_steps", "patch_size", "num_classes", "image_size")


def timestep_options(args: argparse.Namespace) -> dict[str, float]:
    return {name: value for name in ("mean", "std") if (value := getattr(args, f"timestep_{name}")) is not None}


def check(args: argparse.Namespace) -> DiTConfig:
    """The model's configuration; fills in the VAE. Raises ValueError on flags that make no sense."""
    for name in POSITIVE:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if timestep_options(args) and args.timestep_sampler != "logit-normal":
        raise ValueError("--timestep-mean and --timestep-std belong to --timestep-sampler logit-normal")
    if args.timestep_std is not None and args.timestep_std <= 0:
        raise ValueError(f"--timestep-std must be above 0, got {args.timestep_std}")
    config = config_from(args)
    if args.patch_size:
        if config.input_size % args.patch_size:
            raise ValueError(f"--patch-size {args.patch_size} does not divide the {config.input_size} x {config.input_size} the model sees")
        config = config.replace(patch_size=args.patch_size)
    args.vae = vae_name(args.vae, config.in_channels, "ema")
    return config


def total_steps(args: argparse.Namespace, steps_per_epoch: int | None) -> int:
    """Where training ends: --max-steps or --epochs, whichever comes first. Raises ValueError if the data is endless and so is the run."""
    if steps_per_epoch is None:
        if args.max_steps is None:
            raise ValueError(f"{args.data_path} is endless: give --max-steps")
        return args.max_steps
    return min(args.epochs * steps_per_epoch, args.max_steps or args.epochs * steps_per_epoch)


def optimisers(model: DiT, name: str, lr: float) -> list[torch.optim.Optimizer]:
    matrices = hidden_matrices(model) if name == "muon" else []
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=0)
    return [adamw, Muon(matrices, lr=lr)] if matrices else [adamw]


def learning_rate(step: int, total: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then constant, then a linear fall to zero over the last `--cooldown` share of the run."""
    warm = min(1.0, (step + 1) / max(1, args.warmup_steps))
    return args.lr * min(warm, (total - step) / max(1.0, args.cooldown * total))


@torch.no_grad()
def update_ema(ema: DiT, model: DiT, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def warm_start(model: DiT, path: str) -> str:
    """Take every tensor of a checkpoint whose name and shape fit: a DiT trained at another patch size hands on its blocks."""
    own = model.state_dict()
    fitting = {k: v for k, v in load_state_dict(path).items() if k in own and v.shape == own[k].shape and k != "pos_embed"}
    model.load_state_dict(own | fitting)
    return f"warm start from {path}: {len(fitting)} of {len(own)} tensors"


@program_errors()
def main(args: argparse.Namespace) -> None:
    config = check(args)
    with process_group(device_from(args.device)) as (rank, world, device):
        train(args, config, rank, world, device)


def train(args: argparse.Namespace, config: DiTConfig, rank: int, world: int, device: torch.device) -> None:
    if args.global_batch_size % world:
        raise ValueError(f"--global-batch-size {args.global_batch_size} must be a multiple of the {world} processes")
    split = Split(args.global_batch_size // world, rank, world, args.global_seed)
    data = open_data(args.data_path, image_size(args), split, args.num_workers)
    total = total_steps(args, data.steps_per_epoch)
    if data.num_classes > config.num_classes:
        raise ValueError(f"{args.data_path} has {data.num_classes} classes, the model {config.num_classes}: give --num-classes")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    encode = load_encoder(args.vae, device)
    torch.manual_seed(args.global_seed)
    model = DiT(config).to(device)
    started_from = warm_start(model, args.init) if args.init and not args.resume else ""
    ema = deepcopy(model).requires_grad_(False).eval()
    opts = optimisers(model, args.optimizer, args.lr)
    step = resume(args.resume, model, ema, opts) if args.resume else 0
    diffusion = create_diffusion(timestep_respacing="")
    timesteps = create_named_schedule_sampler(args.timestep_sampler, diffusion, **timestep_options(args))
    network = DistributedDataParallel(model) if world > 1 else model
    network.train()

    def predict(x: Tensor, t: Tensor, **labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.mixed_precision == "bf16"):
            return network(x, t, **labels).float()

    if rank == 0:
        folder = experiment_folder(args)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_parts(folder / "checkpoints")
        log = Log(folder / "log.jsonl", step, args.global_batch_size)
        print(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters, step {step} to {total}, into {folder}", flush=True)
        print(started_from, end="\n" if started_from else "", flush=True)
    sums = torch.zeros(2, device=device)
    for x, y in data.batches(step) if step < total else ():
        torch.manual_seed(item_seed(args.global_seed, step * world + rank))  # a resumed run draws what an unbroken one would
        with torch.no_grad():
            x = encode(x.to(device))
        t, weights = timesteps.sample(len(x), device)
        losses = diffusion.training_losses(predict, x, t, dict(y=y.to(device)))
        loss = (losses["loss"] * weights).mean()
        loss.backward()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = learning_rate(step, total, args)
            opt.step()
            opt.zero_grad(set_to_none=True)
        update_ema(ema, model, args.ema_decay)
        sums += torch.stack([loss.detach(), losses["mse"].detach().mean()]) / world
        step += 1
        if step % args.log_every == 0 or step == total:
            if world > 1:
                dist.all_reduce(sums)
            if rank == 0:
                log.write(step, sums)
            sums.zero_()
        if rank == 0 and (step % args.ckpt_every == 0 or step == total):
            save(folder, step, model, ema, opts, args)
        if step == total:
            return


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data-path", required=True, help="a folder with one sub-folder of images per class, or `shapeworld`")
    p.add_argument("--results-dir", default="results")
    p.add_argument("--model", choices=DiT_models, default="DiT-XL/2")
    p.add_argument("--image-size", type=int, default=None, help="side in pixels (default 256; DiT-mini 32)")
    p.add_argument("--num-classes", type=int, default=None, help="default: the model's own (1000; DiT-mini 20)")
    p.add_argument("--epochs", type=int, default=1400, help="of an image folder")
    p.add_argument("--global-batch-size", type=int, default=256, help="over all processes")
    p.add_argument("--global-seed", type=int, default=0)
    p.add_argument("--vae", default=None, help="ema, mse, a diffusers folder or hub name, or none (default ema; DiT-mini: none)")
    p.add_argument("--num-workers", type=int, default=4)
    p.add_argument("--log-every", type=int, default=100)
    p.add_argument("--ckpt-every", type=int, default=50_000)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    p.add_argument("--warmup-steps", type=int, default=0)
    p.add_argument("--cooldown", type=float, default=0.0, help="share of the run at its end over which the learning rate falls to zero")
    p.add_argument("--max-steps", type=int, default=None, help="stop here at the latest")
    p.add_argument("--ema-decay", type=float, default=0.9999)
    p.add_argument("--mixed-precision", choices=("no", "bf16"), default="no", help="bf16: matrix products in bfloat16, weights in float32")
    p.add_argument("--timestep-sampler", choices=SAMPLERS, default="uniform")
    p.add_argument("--timestep-mean", type=float, default=None, help="of logit-normal, default 0: mid-schedule; below it less noise")
    p.add_argument("--timestep-std", type=float, default=None, help="of logit-normal, default 1")
    p.add_argument("--patch-size", type=int, default=None, help="override the model's patch size (a coarse start for --init)")
    p.add_argument("--init", default=None, help="checkpoint whose fitting tensors start the model (ignored when resuming)")
    p.add_argument("--resume", default=None, help="checkpoint of train.py to go on from")
    p.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    return p


if __name__ == "__main__":
    main(parser().parse_args())
