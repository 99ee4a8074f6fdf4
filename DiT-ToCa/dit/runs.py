"""The sampling programs: a grid of pictures (sample.py), and many, on one process or several (sample_ddp.py)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dit.flags import RunSettings, class_labels, planned_run
from dit.pipeline import Pipeline
from toca.cli.report import flops_lines, run_summary, summary_line
from toca.console import announce
from toca.runs.clock import Stopwatch
from toca.runs.files import atomic_path
from toca.runs.folder import RunFolder, write_npz
from toca.runs.pictures import save_picture, to_uint8
from toca.runs.processes import batches_of, process_group
from toca.runs.programs import program_errors, reproducible_matmuls


def set_precision(settings: RunSettings) -> None:
    reproducible_matmuls()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32


@program_errors()
def sample_grid(args: argparse.Namespace) -> None:
    """sample.py: one picture with the grid of all labels."""
    from torchvision.utils import save_image

    labels = class_labels(args)
    if args.test_FLOPs:
        return announce(flops_lines(planned_run(args), len(labels)))
    if Path(args.output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output {args.output}: not the name of a picture, try sample.png")
    settings = RunSettings.from_args(args, labels)
    set_precision(settings)
    announce(summary_line(run_summary(settings.run)))
    pipeline = Pipeline.load(settings, device := torch.device(settings.device), progress=True)
    with (watch := Stopwatch(device)):
        if settings.upstream_stream:
            stream = pipeline.upstream_stream(settings.seed, len(labels), always_guided=True)
            pictures = pipeline.decode(stream.sample(labels=torch.tensor(labels, device=device)).float())
        else:
            pictures = pipeline.pictures(settings.seed, range(len(labels)), labels)
    watch.items += len(labels)
    with atomic_path(args.output) as part:
        save_image(pictures, part, nrow=4, normalize=True, value_range=(-1, 1))
    announce(f"{watch.report()} -> {args.output}")


@program_errors()
def sample_many(args: argparse.Namespace) -> None:
    """sample_ddp.py: a folder of pictures and an npz of them."""
    if args.test_FLOPs:
        return announce(flops_lines(planned_run(args), args.batch))
    settings = RunSettings.from_args(args)
    set_precision(settings)
    with process_group(torch.device(settings.device)) as (rank, world, device):
        sample_share(settings, Path(args.sample_dir), rank, world, device)


def sample_share(settings: RunSettings, root: Path, rank: int, world: int, device: torch.device) -> None:
    """The share of one process; rank 0 writes the npz at the end."""
    path, num, batch, summary = root / settings.folder_name(), settings.num_images, settings.batch, run_summary(settings.run)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    extra = dict(summary, device=place, num_images=num)
    with RunFolder(path, settings.pictures(world), extra, rank=rank, world=world) as folder:
        pipeline = Pipeline.load(settings, device)
        announce(f"{summary_line(summary)}\n{num} images, {world} x {batch} at a time -> {path}")
        stream = pipeline.upstream_stream(settings.seed * world + rank, batch) if settings.upstream_stream else None

        def make(indices: list[int]) -> np.ndarray:
            if stream:
                return to_uint8(pipeline.decode(stream.sample(indices[0] // (batch * world)).float()))
            return to_uint8(pipeline.pictures(settings.seed, indices))

        def file_of(index: int) -> Path | None:
            return path / f"{index:06d}.png" if index < num else None

        batches = batches_of(num, batch, rank, world)
        if not stream:  # surplus items share a batch's random stream alone
            batches = [[index for index in indices if index < num] for indices in batches]
        folder.sample(batches, file_of, make, lambda index, picture: save_picture(picture, path / f"{index:06d}.png"))
    if rank == 0:
        archive = path.with_name(path.name + ".npz")
        write_npz(path, num, archive)
        announce(f"{num} images -> {archive}")
