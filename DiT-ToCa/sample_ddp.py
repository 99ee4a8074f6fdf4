"""Sample many images for FID: sharded over processes, resumable, one PNG per image and one npz for ADM's evaluator.

    torchrun --nproc_per_node=8 sample_ddp.py --preset toca3-ddim50
    torchrun --nproc_per_node=2 sample_ddp.py --device cpu --model DiT-mini --ddim-sample --num-sampling-steps 50 --num-fid-samples 1000

The same command again goes on where a killed run stopped, and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dit.flags import add_method_flags, add_model_flags, method_from, parse
from dit.pipeline import add_sampling_flags, check_plan, image_size, load_decoder, load_model, make_sampler, prepare, print_flops
from dit.sampler import Sampler, describe
from dit.upstream_stream import UpstreamStream
from download import checkpoint_path
from toca.console import main_process
from toca.loading.weights import fingerprint
from toca.runs.folder import RunFolder, write_npz
from toca.runs.pictures import save_picture, to_uint8
from toca.runs.processes import batches_of, process_group
from toca.runs.programs import program_errors
from toca.runs.seeds import item_generators

PREFIX = {"none": "", "fora": "FORA-", "toca": "ToCa-", "duca": "Cache-Noise-", "taylorseer": "Taylor-"}
PICTURE_FLAGS = (
    *("model", "num_classes", "num_sampling_steps", "ddim_sample", "eta", "cfg_scale", "guide_all_channels", "upstream_stream"),
    *("vae", "dtype", "tf32", "global_seed", "num_fid_samples"),
)


def folder_name(args: argparse.Namespace) -> str:
    """Upstream's folder name, with the sampler in it, so that DDIM and DDPM runs do not overwrite each other."""
    ckpt = Path(args.ckpt).stem if args.ckpt else "pretrained"
    name = f"{PREFIX[args.method]}{args.model.replace('/', '-')}-{ckpt}-size-{image_size(args)}-vae-{Path(args.vae).name}"
    name += f"-cfg-{args.cfg_scale}-seed-{args.global_seed}-{'ddim' if args.ddim_sample else 'ddpm'}-step-{args.num_sampling_steps}"
    name += f"-num-{args.num_fid_samples}"
    if args.method in ("toca", "duca"):
        name += f"-{args.cache_type}-{args.fresh_ratio}-{args.ratio_scheduler}-{args.force_fresh}-{args.fresh_threshold}"
        name += f"-softweight-{args.soft_fresh_weight}"
    if args.method == "fora":
        name += f"-{args.fresh_threshold}"
    if args.method == "taylorseer":
        name += f"-{args.interval}-{args.max_order}"
    return name


def settings(args: argparse.Namespace, world: int) -> dict[str, Any]:
    """Everything that decides the pictures; how they are spread over batches and processes does only with upstream's stream."""
    checkpoint = checkpoint_path(args.model, image_size(args), args.ckpt)
    split = dict(batch=args.per_proc_batch_size, processes=world) if args.upstream_stream else {}
    return {
        **{flag: getattr(args, flag) for flag in PICTURE_FLAGS},
        "image_size": image_size(args),
        "method": {"name": args.method, **dataclasses.asdict(method_from(args))},
        "checkpoint": {"name": checkpoint.name, "fingerprint": fingerprint(checkpoint)},
        **split,
    }


@program_errors()
def main(args: argparse.Namespace) -> None:
    device = prepare(args, vae="ema")
    for flag in ("per_proc_batch_size", "num_fid_samples"):
        if getattr(args, flag) < 1:
            raise ValueError(f"--{flag.replace('_', '-')} must be at least 1, got {getattr(args, flag)}")
    check_plan(args)
    if args.test_FLOPs:
        return print_flops(args, args.per_proc_batch_size) if main_process() else None
    with process_group(device) as (rank, world, device):
        sample(args, rank, world, device)


def sample(args: argparse.Namespace, rank: int, world: int, device: torch.device) -> None:
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    path, num, batch = Path(args.sample_dir) / folder_name(args), args.num_fid_samples, args.per_proc_batch_size
    sampler = make_sampler(args, load_model(args, device))
    extra = dict(sampler.summary(), device=place, num_images=num)
    with RunFolder(path, settings(args, world), extra, rank=rank, world=world) as folder:
        decode = load_decoder(args.vae, device)
        if rank == 0:
            print(f"{describe(sampler)}\n{num} images, {world} x {batch} at a time -> {path}", flush=True)
        stream = UpstreamStream(sampler, args.global_seed * world + rank, batch, device) if args.upstream_stream else None

        def make(indices: list[int]) -> np.ndarray:
            latents = stream.sample(indices[0] // (batch * world)) if stream else independent(sampler, args.global_seed, indices, device)
            return to_uint8(decode(latents.float()))

        def file_of(index: int) -> Path | None:
            return path / f"{index:06d}.png" if index < num else None

        batches = batches_of(num, batch, rank, world)
        if not stream:  # surplus items share a batch's random stream alone
            batches = [[index for index in indices if index < num] for indices in batches]
        folder.sample(batches, file_of, make, lambda index, picture: save_picture(picture, path / f"{index:06d}.png"))
    if rank == 0:
        archive = path.with_name(path.name + ".npz")
        write_npz(path, num, archive)
        print(f"{num} images -> {archive}")


def independent(sampler: Sampler, seed: int, indices: list[int], device: torch.device) -> torch.Tensor:
    """Latents of images whose label and noise come from (seed, index) alone, whatever their batch."""
    generators = item_generators(seed, indices)
    labels = torch.cat([torch.randint(sampler.model.num_classes, (1,), generator=generator) for generator in generators])
    return sampler.sample(labels.to(device), generators)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(p)
    add_method_flags(p)
    add_sampling_flags(p, vae="ema")
    p.add_argument("--sample-dir", default="samples")
    p.add_argument("--per-proc-batch-size", type=int, default=32)
    p.add_argument("--num-fid-samples", type=int, default=50_000)
    p.add_argument("--global-seed", type=int, default=0, help="image i depends on (seed, i) alone")
    return p


if __name__ == "__main__":
    main(parse(parser()))
