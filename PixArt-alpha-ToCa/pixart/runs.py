"""A run over a file of prompts: what scripts/inference.py and scripts/inference_ddp.py do, on one process or several."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pixart.flags import FOLDER, RunSettings, add_run_flags, parse, planned_run
from pixart.pipeline import Pipeline, embed
from pixart.prompts import Prompt
from toca.cli.flags import Parser, whole
from toca.cli.report import flops_lines, run_summary, summary_line
from toca.console import announce
from toca.runs.files import atomic_path
from toca.runs.folder import MANIFEST, RunFolder, check_manifest, write_npz
from toca.runs.outputs import check_file, check_folder, check_names
from toca.runs.pictures import save_picture
from toca.runs.processes import barrier, batches_of, process_group
from toca.runs.programs import program_errors, reproducible_matmuls
from toca.runs.prompts import read_prompts

PNG_BYTES = 1  # of a pixel, about
MEMORY_ADVICE = "try --t5_device cpu, --t5_precision bf16, --dtype fp16, or a smaller --bs"


def parser(description: str | None = None) -> Parser:
    """The flags of scripts/inference.py and scripts/inference_ddp.py."""
    p = Parser(description=description)
    add_run_flags(p)
    p.add_argument("--txt_file", default=str(FOLDER / "asset" / "samples.txt"), help="one prompt per line")
    p.add_argument("--bs", type=whole(1, 10_000), default=1, help="pictures sampled together")
    p.add_argument("--dataset", default="custom", help="goes into the folder's name")
    p.add_argument("--output_dir", default="output")
    p.add_argument("--save_name", help="folder in --output_dir (default: composed of the flags)")
    p.add_argument("--test_FLOPs", action="store_true", help="print the FLOPs of a batch; samples nothing, needs no weights")
    p.add_argument("--npz", action="store_true", help="also write all pictures to one .npz, for FID")
    return p


@program_errors(MEMORY_ADVICE)
def main(description: str | None = None, argv: Sequence[str] | None = None) -> None:
    args = parse(parser(description), argv)
    if args.test_FLOPs:
        return announce(flops_lines(planned_run(args), args.bs))
    settings = RunSettings.from_args(args, read_prompts(args.txt_file, "--txt_file"))
    if args.npz and len(sizes := {(p.size.height, p.size.width) for p in settings.prompts}) > 1:
        raise ValueError(f"--npz wants pictures of one size; the prompts ask for {len(sizes)}, leave out their --ar")
    path = output_folder(args, settings)
    reproducible_matmuls()
    with process_group(torch.device(settings.device)) as (rank, world, device):
        sample_prompts(settings, path, args.bs, rank, world, device)
        if rank == 0 and args.npz:
            write_npz(path, len(settings.prompts), npz_of(path))
            announce(f"{len(settings.prompts)} pictures -> {npz_of(path)}")


def output_folder(args: argparse.Namespace, settings: RunSettings) -> Path:
    """The folder of the pictures. Raises ValueError if they cannot be written there."""
    for flag, name in (("--save_name", args.save_name), ("--dataset", args.dataset)):
        if name is not None and (name in ("", ".", "..") or Path(name).name != name):
            raise ValueError(f"{flag} {name!r}: not the name of a folder")
    path = Path(args.output_dir) / (args.save_name or settings.folder_name())
    flag = "--output_dir" if args.save_name is None else "--save_name"
    check_names(path, flag)
    lacking = sum(p.size.height * p.size.width for i, p in enumerate(settings.prompts) if not file_of(path, i).exists())
    every = sum(p.size.height * p.size.width for p in settings.prompts)
    check_folder(path, flag, PNG_BYTES * lacking + 3 * every * args.npz)
    if args.npz:
        check_file(npz_of(path), "--npz")
        if npz_of(path).exists() and not (path / MANIFEST).exists():
            raise ValueError(f"--npz: {npz_of(path)} is there, and of no run in {path}: remove it or choose another --save_name")
    check_manifest(path, settings.pictures())
    return path


def file_of(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def npz_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".npz")


def sample_prompts(settings: RunSettings, path: Path, batch: int, rank: int, world: int, device: torch.device) -> None:
    """Sample all prompts, this process its share, into a folder; rank 0 writes `prompts.jsonl`."""
    prompts, summary = settings.prompts, run_summary(settings.run)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    extra = dict(summary, plan_of=settings.run.title, device=place, num_images=len(prompts), dataset=settings.dataset)
    with RunFolder(path, settings.pictures(), extra, rank=rank, world=world) as folder:
        announce(f"{summary_line(summary)}\n{len(prompts)} prompts, {world} x {batch} at a time -> {path}")
        if rank == 0:
            write_index(path, prompts)
        embed(settings, device, rank, world)
        barrier()  # all texts are there
        pipeline = Pipeline.load(settings, device)

        def make(indices: list[int]) -> list[np.ndarray]:
            return pipeline.pictures([prompts[i] for i in indices], settings.seed, indices)

        batches = [[i for i in indices if i < len(prompts)] for indices in batches_of(len(prompts), batch, rank, world)]
        folder.sample(batches, lambda i: file_of(path, i), make, lambda i, picture: save_picture(picture, file_of(path, i)))


def write_index(folder: Path, prompts: Sequence[Prompt]) -> None:
    """`prompts.jsonl`: the file, the prompt, the text as it was encoded, and the size of every picture, a line each."""
    rows = (dict(file=f"{i:06d}.png", prompt=p.line, text=p.text, height=p.size.height, width=p.size.width) for i, p in enumerate(prompts))
    with atomic_path(folder / "prompts.jsonl") as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
