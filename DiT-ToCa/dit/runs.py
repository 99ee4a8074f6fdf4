"""The sampling programs: a grid of pictures (sample.py), and many, on one process or several (sample_ddp.py)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dit.flags import RunSettings, class_labels, planned_run
from dit.pipeline import Pipeline
from toca.cli.report import flops_lines, run_summary, summary_line
from toca.console import announce
from toca.planning.flops import total_flops, uncached_flops
from toca.planning.run import PlannedRun
from toca.runs.clock import Stopwatch
from toca.runs.files import atomic_path
from toca.runs.folder import MANIFEST, RunFolder, write_npz
from toca.runs.outputs import check_file, check_folder
from toca.runs.pictures import check_picture, save_picture, to_uint8
from toca.runs.processes import batches_of, process_group
from toca.runs.programs import program_errors, reproducible_matmuls

PNG_BYTES = 2  # of a pixel, about


def set_precision(settings: RunSettings) -> None:
    reproducible_matmuls()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32


def flops_text(run: PlannedRun, images: int) -> str:
    """`--test-FLOPs`: of a batch, as the published programs print it; of an image, beside the uncached run; of the published steps."""

    def line(title: str, run: PlannedRun, counter: str) -> str:
        own, uncached = total_flops(run.plan, counter, run.rows_per_image), uncached_flops(run.plan, counter, run.rows_per_image)
        return f"{title}: {own / 1e12:.3f} TFLOPs per image, {uncached / own:.2f}x less than uncached ({uncached / 1e12:.3f})"

    lines = [flops_lines(run, images), *(line(counter, run, counter) for counter in ("matmul", "upstream"))]
    if getattr(run.method, "upstream_exact", True) is False:
        exact = replace(run, method=replace(run.method, upstream_exact=True))
        lines.append(line("published (--upstream-exact, upstream counter)", exact, "upstream"))
    return "\n".join(lines)


@program_errors()
def sample_grid(args: argparse.Namespace) -> None:
    """sample.py: one picture with the grid of all labels."""
    from torchvision.utils import save_image

    labels = class_labels(args)
    if args.test_FLOPs:
        return announce(flops_text(planned_run(args), len(labels)))
    check_picture(Path(args.output), "--output")
    settings = RunSettings.from_args(args, labels)
    set_precision(settings)
    announce(summary_line(run_summary(settings.run)))
    pipeline = Pipeline.load(settings, device := torch.device(settings.device), progress=True)
    with (watch := Stopwatch(device)):
        if settings.upstream_stream:
            stream = pipeline.upstream_stream(settings.seed, len(labels), always_guided=True)
            pictures = pipeline.decoded(stream.sample(labels=torch.tensor(labels, device=device)))
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
        return announce(flops_text(planned_run(args), args.batch))
    settings = RunSettings.from_args(args)
    path = Path(args.sample_dir) / settings.folder_name()
    check_outputs(settings, path)
    set_precision(settings)
    with process_group(torch.device(settings.device)) as (rank, world, device):
        sample_share(settings, path, rank, world, device)


def file_of(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def npz_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".npz")


def check_outputs(settings: RunSettings, path: Path) -> None:
    """Make sure that the pictures and the npz can be written. Raises ValueError."""
    pixels, num, archive = settings.image_size**2, settings.num_images, npz_of(path)
    lacking = num - sum(1 for _ in path.glob("[0-9]*.png"))
    check_folder(path, "--sample-dir", PNG_BYTES * pixels * max(0, lacking) + 3 * pixels * num * (not archive.exists()))
    check_file(archive, "--sample-dir")
    if archive.exists() and not (path / MANIFEST).exists():
        raise ValueError(f"{archive} is there, and of no run in {path}: remove it or choose another --sample-dir")


def sample_share(settings: RunSettings, path: Path, rank: int, world: int, device: torch.device) -> None:
    """The share of one process; rank 0 writes the npz at the end."""
    num, batch, summary = settings.num_images, settings.batch, run_summary(settings.run)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    extra = dict(summary, device=place, num_images=num)
    with RunFolder(path, settings.pictures(world), extra, rank=rank, world=world) as folder:
        pipeline = Pipeline.load(settings, device)
        announce(f"{summary_line(summary)}\n{num} images, {world} x {batch} at a time -> {path}")
        stream = pipeline.upstream_stream(settings.seed * world + rank, batch) if settings.upstream_stream else None

        def make(indices: list[int]) -> np.ndarray:
            if stream:
                return to_uint8(pipeline.decoded(stream.sample(indices[0] // (batch * world))))
            return to_uint8(pipeline.pictures(settings.seed, indices))

        batches = batches_of(num, batch, rank, world)
        if not stream:  # surplus items share a batch's random stream alone
            batches = [[index for index in indices if index < num] for indices in batches]
        folder.sample(
            batches,
            lambda index: file_of(path, index) if index < num else None,
            make,
            lambda index, picture: save_picture(picture, file_of(path, index)),
        )
    if rank == 0:
        write_npz(path, num, npz_of(path))
        announce(f"{num} images -> {npz_of(path)}")
