"""One picture, or several, for every line of a prompt file.

    python src/sample.py --prompt_file prompts.txt --model_name flux-dev --width 1024 --height 1024 --num_steps 50 --add_sampling_metadata

Picture i is made of seed + i, whatever the batch. The same command again goes on where an interrupted run stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from flux.flags import parse
from flux.runs import Clock, Writer, batches, open_folder, picture_settings
from flux.shared_flags import add_shared_flags, check, describe, load_pipeline, program_errors
from toca.runs.processes import barrier, process_group
from toca.runs.programs import device_from
from toca.runs.prompts import read_prompts


@program_errors()
def main(args: argparse.Namespace) -> None:
    prompts, cost = read_prompts(args.prompt_file, "--prompt_file"), check(args)
    jobs = [prompt for prompt in prompts for _ in range(args.num_images_per_prompt)]
    if args.test_FLOPs:
        print(describe(args, cost))
        print(cost.flops_lines(args.batch_size))
        return
    with process_group(device_from(args.device)) as (rank, world, device):
        folder = Path(args.output_dir)
        settings = picture_settings(args) | dict(prompts=prompts, num_images_per_prompt=args.num_images_per_prompt)
        if rank == 0:
            open_folder(folder, settings, cost.summary(), "img_*.jpg")
        barrier()
        todo = [batch for batch in batches(range(len(jobs)), args.batch_size) if not all(path(folder, index).exists() for index in batch)]
        if rank == 0:
            print(f"{describe(args, cost)}\n{len(jobs)} pictures, {sum(map(len, todo))} to make -> {folder}", flush=True)
        if todo:
            sample(args, folder, jobs, todo[rank::world], device, report=rank == 0)


def path(folder: Path, index: int) -> Path:
    return folder / f"img_{index}.jpg"


def sample(args: argparse.Namespace, folder: Path, jobs: list[str], todo: list[list[int]], device: torch.device, report: bool) -> None:
    """Make the batches of one process; a batch that lacks a picture is made as a whole, so that a resumed run equals an unbroken one."""
    pipeline = load_pipeline(args, device, progress=report)
    writer, clock = Writer(args.name, args.add_sampling_metadata, args.watermark, args.use_nsfw_filter), Clock(pipeline)
    if report:
        print(pipeline.weights(), flush=True)
    for batch in todo:
        with clock:
            pictures = pipeline.generate(
                [jobs[i] for i in batch], [args.seed + i for i in batch], args.height, args.width, args.num_steps, args.guidance
            )
        clock.images += len(batch)
        for index, picture in zip(batch, pictures):
            if not path(folder, index).exists():
                writer.write(picture, path(folder, index), jobs[index])
    if report:
        print(clock.report())


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--prompt_file", required=True, help="one prompt per line; blank lines are dropped")
    p.add_argument("--model_name", "--name", dest="name", choices=("flux-dev", "flux-schnell", "flux-dev-krea"), default="flux-schnell")
    p.add_argument("--seed", type=int, default=0, help="picture i is made of seed + i")
    p.add_argument("--num_images_per_prompt", type=int, default=1, help="they follow one another")
    p.add_argument("--batch_size", type=int, default=1, help="pictures made together")
    p.add_argument("--output_dir", default="output")
    p.add_argument("--add_sampling_metadata", action="store_true", help="write the prompt into the EXIF data")
    add_shared_flags(p)
    return p


if __name__ == "__main__":
    main(parse(parser()))
