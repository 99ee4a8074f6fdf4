"""A run over a file of prompts: what scripts/inference.py and scripts/inference_ddp.py do, on one process or several."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixart.flags import num_steps
from pixart.pipeline import MEMORY_ADVICE, Pipeline, Prompt, add_run_flags, check_plan, prepare, read_lines
from pixart.t5 import encoder_identity
from toca.cli.flags import method_from
from toca.cli.report import flops_lines, run_summary, summary_line
from toca.console import main_process
from toca.loading.weights import fingerprint
from toca.runs.files import atomic_path
from toca.runs.folder import RunFolder, write_npz
from toca.runs.pictures import save_picture
from toca.runs.processes import barrier, batches_of, process_group
from toca.runs.programs import program_errors
from toca.runs.prompts import read_prompts

PICTURE_FLAGS = ("image_size", "sampling_algo", "cfg_scale", "seed", "dtype", "ema", "vae", "t5_precision")
FOLDER_FLAGS = {  # in a folder's name, by method
    "none": (),
    "fora": ("fresh_threshold",),
    "toca": ("fresh_threshold", "fresh_ratio", "cache_type", "ratio_scheduler", "force_fresh", "soft_fresh_weight"),
    "taylorseer": ("fresh_threshold", "max_order"),
}
FOLDER_FLAGS["duca"] = FOLDER_FLAGS["toca"]


def parser(description: str) -> argparse.ArgumentParser:
    """The flags of scripts/inference.py and scripts/inference_ddp.py."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add_run_flags(p)
    p.add_argument("--txt_file", default=str(Path(__file__).parents[1] / "asset" / "samples.txt"), help="one prompt per line")
    p.add_argument("--bs", type=int, default=1, help="pictures sampled together")
    p.add_argument("--dataset", default="custom", help="goes into the folder's name")
    p.add_argument("--output_dir", default="output")
    p.add_argument("--save_name", help="folder in --output_dir (default: composed of the flags)")
    p.add_argument("--test_FLOPs", action="store_true", help="print the FLOPs of a batch; samples nothing, needs no weights")
    p.add_argument("--npz", action="store_true", help="also write all pictures to one .npz, for FID")
    return p


@program_errors(MEMORY_ADVICE)
def main(args: argparse.Namespace) -> None:
    if args.bs < 1:
        raise ValueError(f"--bs must be at least 1, got {args.bs}")
    if args.test_FLOPs:
        return print(flops_lines(check_plan(args), args.bs)) if main_process() else None
    device = prepare(args)
    prompts = read_lines(read_prompts(args.txt_file, "--txt_file"), args.image_size)
    if args.npz and len(sizes := {(p.size.height, p.size.width) for p in prompts}) > 1:
        raise ValueError(f"--npz wants pictures of one size; the prompts ask for {len(sizes)}, leave out their --ar")
    with process_group(device) as (rank, world, device):
        sample_prompts(args, prompts, rank, world, device)


def sample_prompts(args: argparse.Namespace, prompts: Sequence[Prompt], rank: int, world: int, device: torch.device) -> None:
    """Sample all prompts, this process its share, into the folder of the flags; rank 0 writes `prompts.jsonl` and the npz."""
    path, summary = Path(args.output_dir) / (args.save_name or folder_name(args)), run_summary(check_plan(args))
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    extra = dict(summary, text_tokens=args.text_tokens, device=place, num_images=len(prompts))
    with RunFolder(path, settings(args, prompts), extra, rank=rank, world=world) as folder:
        pipeline = Pipeline(args, device)
        if rank == 0:
            print(f"{summary_line(summary)}\n{len(prompts)} prompts, {world} x {args.bs} at a time -> {path}", flush=True)
            write_index(path, prompts)
        pipeline.encode([p.text for p in prompts], rank, world)
        barrier()  # all texts are there

        def make(indices: list[int]) -> list[np.ndarray]:
            return pipeline.pictures([prompts[i] for i in indices], args.seed, indices)

        batches = [[i for i in indices if i < len(prompts)] for indices in batches_of(len(prompts), args.bs, rank, world)]
        folder.sample(batches, lambda i: path / f"{i:06d}.png", make, lambda i, picture: save_picture(picture, path / f"{i:06d}.png"))
    if rank == 0 and args.npz:
        write_npz(path, len(prompts), path.with_name(path.name + ".npz"))
        print(f"{len(prompts)} pictures -> {path}.npz")


def settings(args: argparse.Namespace, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Everything that decides the pictures; how they are spread over batches and processes does not."""
    lines = "\n".join(p.line for p in prompts)
    return {
        **{flag: getattr(args, flag) for flag in PICTURE_FLAGS},
        "num_steps": num_steps(args),
        "method": {"name": args.method, **dataclasses.asdict(method_from(args))},
        "checkpoint": {"name": Path(args.model_path).name, "fingerprint": fingerprint(args.model_path)},
        "text_encoder": encoder_identity(args.t5_path, args.t5_precision),
        "prompts": hashlib.blake2b(lines.encode(), digest_size=8).hexdigest(),
    }


def folder_name(args: argparse.Namespace) -> str:
    """Upstream's name without the date and the batch size, and with the method, so that no two runs share a folder."""
    epoch, step = ("unknown", "unknown")
    if (stem := Path(args.model_path).stem).startswith("epoch_") and "_step_" in stem:
        epoch, step = stem.removeprefix("epoch_").split("_step_", 1)
    name = f"{args.dataset}_epoch{epoch}_step{step}_scale{args.cfg_scale}_step{num_steps(args)}_size{args.image_size}"
    name += f"_samp{args.sampling_algo}_seed{args.seed}_{args.method}"
    return "_".join([name, *(str(getattr(args, flag)) for flag in FOLDER_FLAGS[args.method])])


def write_index(folder: Path, prompts: Sequence[Prompt]) -> None:
    """`prompts.jsonl`: the file, the prompt, the text as it was encoded, and the size of every picture, a line each."""
    rows = (dict(file=f"{i:06d}.png", prompt=p.line, text=p.text, height=p.size.height, width=p.size.width) for i, p in enumerate(prompts))
    with atomic_path(folder / "prompts.jsonl") as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
