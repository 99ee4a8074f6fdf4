"""Sample many images for FID: sharded over processes, resumable, one PNG per image and one npz for ADM's evaluator.

    torchrun --nproc_per_node=8 sample_ddp.py --ddim-sample --num-sampling-steps 50 --fresh-threshold 3 --num-fid-samples 50000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dit_cli import add_method_flags, add_model_flags
from sampling import Sampler, add_sampling_flags, describe, load_decoder, load_model, make_sampler, prepare, print_flops, to_uint8
from toca.runner import item_generators, process_group, sample_images, write_npz

PREFIX = {"none": "", "fora": "FORA-", "toca": "ToCa-", "duca": "Cache-Noise-", "taylorseer": "Taylor-"}


def folder_name(args: argparse.Namespace) -> str:
    """Upstream's folder name, with the sampler in it, so that DDIM and DDPM runs do not overwrite each other."""
    ckpt = Path(args.ckpt).stem if args.ckpt else "pretrained"
    name = f"{PREFIX[args.method]}{args.model.replace('/', '-')}-{ckpt}-size-{args.image_size}-vae-{Path(args.vae).name}-cfg-{args.cfg_scale}"
    name += f"-seed-{args.global_seed}-{'ddim' if args.ddim_sample else 'ddpm'}-step-{args.num_sampling_steps}-num-{args.num_fid_samples}"
    if args.method in ("toca", "duca"):
        name += f"-{args.cache_type}-{args.fresh_ratio}-{args.ratio_scheduler}-{args.force_fresh}-{args.fresh_threshold}-softweight-{args.soft_fresh_weight}"
    if args.method == "fora":
        name += f"-{args.fresh_threshold}"
    if args.method == "taylorseer":
        name += f"-{args.interval}-{args.max_order}"
    return name


def main(args: argparse.Namespace) -> None:
    prepare(args, vae="ema")
    if args.cfg_scale < 1:
        raise SystemExit(f"--cfg-scale must be at least 1 (1 samples without guidance), got {args.cfg_scale}")
    with process_group(args.device) as (rank, world, device):
        sample(args, rank, world, device)


def sample(args: argparse.Namespace, rank: int, world: int, device: torch.device) -> None:
    model = load_model(args, device)
    sampler = make_sampler(args, model)
    if args.test_FLOPs:
        return print_flops(sampler, args.per_proc_batch_size) if rank == 0 else None
    decode = load_decoder(args.vae, device)
    if rank == 0:
        print(describe(sampler))

    def sample_batch(indices: list[int]) -> np.ndarray:
        draw = _upstream_batch if args.upstream_stream else _batch
        return to_uint8(decode(draw(sampler, args.global_seed, indices, device).float()))

    folder = Path(args.sample_dir) / folder_name(args)
    settings = {key: value for key, value in vars(args).items() if key not in ("sample_dir", "device", "test_FLOPs")}
    sample_images(folder, args.num_fid_samples, args.per_proc_batch_size, sample_batch, settings, rank, world, extra=sampler.summary())
    if rank == 0:
        path = folder.with_name(folder.name + ".npz")
        write_npz(folder, args.num_fid_samples, path)
        print(f"{args.num_fid_samples} images -> {path}")


def _batch(sampler: Sampler, seed: int, indices: list[int], device: torch.device) -> torch.Tensor:
    """Label and noise of an image come from (seed, index) alone."""
    generators = item_generators(seed, indices)
    labels = torch.cat([torch.randint(sampler.model.num_classes, (1,), generator=generator) for generator in generators])
    return sampler.sample(labels.to(device), generators)


def _upstream_batch(sampler: Sampler, seed: int, indices: list[int], device: torch.device) -> torch.Tensor:
    """Latents, labels and the sampler's draws from one global generator, in upstream's order, seeded per batch by its first index."""
    torch.manual_seed(seed + indices[0])
    config = sampler.model.config
    z = torch.randn(len(indices), config.in_channels, config.input_size, config.input_size, device=device)
    labels = torch.randint(0, config.num_classes, (len(indices),), device=device)
    return sampler.sample_upstream_stream(labels, z)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(p)
    add_method_flags(p)
    add_sampling_flags(p, vae="ema")
    p.add_argument("--sample-dir", default="samples")
    p.add_argument("--per-proc-batch-size", type=int, default=32)
    p.add_argument("--num-fid-samples", type=int, default=50_000)
    p.add_argument("--global-seed", type=int, default=0)
    return p


if __name__ == "__main__":
    main(parser().parse_args())
