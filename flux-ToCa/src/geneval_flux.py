"""Pictures for GenEval, in its folder layout.

    python src/geneval_flux.py evaluation_metadata.jsonl --model_name flux-dev --n_samples 4 --steps 50 --width 1024 --height 1024

For prompt i: `{i:05d}/metadata.jsonl`, `{i:05d}/samples/{k:05d}.png` and `{i:05d}/grid.png`. Sample k of every prompt is made of
seed + k, whatever the batch. The same command again goes on where an interrupted run stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid

from flux.flags import parse
from flux.pictures import save_picture
from flux.runs import Clock, Writer, batches, open_folder, picture_settings
from flux.shared_flags import add_shared_flags, check, describe, load_pipeline, program_errors
from toca.runs.files import atomic_path
from toca.runs.processes import barrier, process_group
from toca.runs.programs import device_from


def read_metadata(path: str) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises ValueError if a line is none, or has no prompt."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(objects[-1], dict) or not isinstance(objects[-1].get("prompt"), str):
            raise ValueError(f"{path}, line {number} has no prompt")
    if not objects:
        raise ValueError(f"{path} holds no prompt: one JSON object per line")
    return objects


@program_errors()
def main(args: argparse.Namespace) -> None:
    metadata, cost = read_metadata(args.metadata_file), check(args)
    if args.test_FLOPs:
        print(describe(args, cost))
        print(cost.flops_lines(args.batch_size))
        return
    with process_group(device_from(args.device)) as (rank, world, device):
        folder = Path(args.output_dir)
        settings = picture_settings(args) | dict(prompts=[entry["prompt"] for entry in metadata])
        if rank == 0:
            open_folder(folder, settings, cost.summary(), "[0-9]*/samples/*.png")
        barrier()
        todo = [index for index in range(len(metadata)) if lacking(args, folder / f"{index:05d}")]
        if rank == 0:
            jobs = f"{len(metadata)} prompts, {len(todo)} to do, {args.n_samples} samples each"
            print(f"{describe(args, cost)}\n{jobs} -> {folder}", flush=True)
        if todo:
            sample(args, folder, metadata, todo[rank::world], device, report=rank == 0)


def sample_path(folder: Path, k: int) -> Path:
    return folder / "samples" / f"{k:05d}.png"


def lacking(args: argparse.Namespace, folder: Path) -> bool:
    """Whether the folder of a prompt lacks something."""
    wanted = [folder / "metadata.jsonl", *(sample_path(folder, k) for k in range(args.n_samples))]
    return not all(path.exists() for path in [*wanted, *([] if args.skip_grid else [folder / "grid.png"])])


def sample(
    args: argparse.Namespace, folder: Path, metadata: list[dict[str, Any]], todo: list[int], device: torch.device, report: bool
) -> None:
    """The prompts of one process; a batch that lacks a sample is made as a whole, so that a resumed run equals an unbroken one."""
    pipeline = load_pipeline(args, device, progress=report)
    writer, clock = Writer(args.name, args.add_sampling_metadata, args.watermark, args.use_nsfw_filter), Clock(pipeline)
    if report:
        print(pipeline.weights(), flush=True)
    for index in todo:
        own, prompt, grown = folder / f"{index:05d}", metadata[index]["prompt"], False
        with atomic_path(own / "metadata.jsonl") as part:
            part.write_text(json.dumps(metadata[index]))
        for batch in batches(range(args.n_samples), args.batch_size):
            if all(sample_path(own, k).exists() for k in batch):
                continue
            with clock:
                pictures = pipeline.generate(
                    [prompt] * len(batch), [args.seed + k for k in batch], args.height, args.width, args.num_steps, args.guidance
                )
            clock.images += len(batch)
            for k, picture in zip(batch, pictures):
                if not sample_path(own, k).exists():
                    grown |= writer.write(picture, sample_path(own, k), prompt, any_metadata=False)
        if not args.skip_grid and (grown or not (own / "grid.png").exists()):
            write_grid(own, args.n_samples, args.batch_size)
    if report:
        print(clock.report())


def write_grid(folder: Path, num: int, columns: int) -> None:
    """`grid.png` of the samples that are there, two pixels apart."""
    paths = [path for path in (sample_path(folder, k) for k in range(num)) if path.exists()]
    if not paths:
        return
    pictures = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths])
    save_picture(make_grid(pictures, nrow=columns, padding=2).permute(1, 2, 0).numpy(), folder / "grid.png")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("metadata_file", help="JSON lines with a prompt each, as GenEval's evaluation_metadata.jsonl")
    p.add_argument("--model_name", "--name", dest="name", choices=("flux-dev", "flux-schnell", "flux-dev-krea"), default="flux-schnell")
    p.add_argument("--n_samples", type=int, default=1, help="per prompt")
    p.add_argument("--seed", type=int, default=42, help="sample k of a prompt is made of seed + k")
    p.add_argument("--batch_size", type=int, default=1, help="samples made together, and columns of the grid")
    p.add_argument("--output_dir", default="outputs")
    p.add_argument("--skip_grid", action="store_true", help="write no grid.png")
    p.add_argument("--add_sampling_metadata", action="store_true", help="write the prompt into the EXIF data")
    add_shared_flags(p)
    p.add_argument("--steps", dest="num_steps", type=int, default=None, help="the same as --num_steps")
    return p


if __name__ == "__main__":
    main(parse(parser()))
