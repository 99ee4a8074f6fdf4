"""Programs over many pictures: a prompt file, and what they share with GenEval: folders that resume, writing, fingerprints of weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flux.flags import SEED, TEXT_MODELS, RunSettings, add_shared_flags, parse
from flux.pictures import MOST_IN_JPEG, NSFW_THRESHOLD, exif, nsfw_filter, watermarker
from flux.pipeline import Pipeline
from flux.weights import Files
from toca.cli.flags import MOST_IMAGES, Parser, whole
from toca.console import announce
from toca.runs import programs
from toca.runs.clock import Stopwatch
from toca.runs.folder import RunFolder, check_manifest
from toca.runs.outputs import check_folder
from toca.runs.pictures import save_picture
from toca.runs.processes import process_group
from toca.runs.programs import device_from
from toca.runs.prompts import read_prompts

MEMORY_ADVICE = "try --offload, --dtype bf16, a smaller --batch_size, or fewer tokens (--width, --height)"
program_errors = partial(programs.program_errors, MEMORY_ADVICE)
BYTES_PER_PIXEL = {"jpg": 0.1, "png": 0.5}  # of pictures that compress well: what a disk must hold at least


class Writer:
    """Writes pictures with what was asked for: watermark, filter, metadata. Raises ValueError where something for that is missing."""

    def __init__(self, settings: RunSettings) -> None:
        self.model, self.metadata = settings.name, settings.add_sampling_metadata
        self.mark = watermarker() if settings.watermark else None
        self.rate = nsfw_filter() if settings.use_nsfw_filter else None

    def write(self, picture: np.ndarray, path: Path, prompt: str, any_metadata: bool = True) -> bool:
        """Whether it was written; a picture that the filter rates as unsafe is not. any_metadata: also without the prompt."""
        if self.rate and (score := self.rate(picture)) >= NSFW_THRESHOLD:
            announce(f"{path.name} not written: NSFW score {score:.2f}")
            return False
        most = MOST_IN_JPEG if path.suffix.lower() in (".jpg", ".jpeg") else None
        if self.metadata and most and len(prompt.encode("utf-16-le")) > most:
            announce(f"{path.name}: its EXIF data holds the first {most // 2} letters of the prompt")
        data = dict(exif=exif(prompt if self.metadata else None, self.model, most)) if self.metadata or any_metadata else {}
        save_picture(self.mark(picture) if self.mark else picture, path, **data)
        return True


def checked(
    settings: RunSettings, folder: Path, more: Mapping[str, Any], outputs: str, pictures: int
) -> tuple[Files, dict[str, Any], Writer]:
    """The files of a run, everything that decides its pictures, and their writer, once all has been checked that can be before loading.

    more: what decides the pictures beside the settings. outputs: a glob for them. pictures: how many there will be.
    """
    if pictures > MOST_IMAGES:
        raise ValueError(f"{pictures} pictures are more than the {MOST_IMAGES} of a run")
    check_folder(folder, "--output_dir", int(pictures * settings.width * settings.height * BYTES_PER_PIXEL[outputs[-3:]]))
    files = Files.find(settings)
    decides = settings.pictures() | files.fingerprints() | dict(more)
    check_manifest(folder, decides, outputs)
    files.check()
    return files, decides, Writer(settings)


def chunks(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


def add_batch_flags(parser: argparse.ArgumentParser, output_dir: str, seed: int) -> None:
    """Flags of the programs over many pictures."""
    names = dict(dest="name", choices=TEXT_MODELS, default="flux-schnell")
    parser.add_argument("--model_name", "--name", **names)
    parser.add_argument("--seed", type=SEED, default=seed, help=f"of the first picture (default {seed}); the next ones count on")
    parser.add_argument("--batch_size", type=whole(1, MOST_IMAGES), default=1, help="pictures made together")
    parser.add_argument("--output_dir", default=output_dir)
    parser.add_argument("--add_sampling_metadata", action="store_true", help="write the prompt into the EXIF data")
    add_shared_flags(parser)


# ---- src/sample.py -----------------------------------------------------------------------------------------------------------------


def prompts_parser() -> Parser:
    p = Parser(prog="sample.py", description="One picture, or several, for every line of a prompt file.")
    p.add_argument("--prompt_file", required=True, help="one prompt per line; blank lines are dropped")
    p.add_argument("--num_images_per_prompt", type=whole(1, MOST_IMAGES), default=1, help="they follow one another")
    add_batch_flags(p, "output", seed=0)
    return p


@program_errors()
def sample_prompts(argv: Sequence[str] | None = None) -> None:
    """Picture i is made of seed + i, whatever the batch. The same command again goes on where an interrupted run stopped."""
    args = parse(prompts_parser(), argv)
    prompts, settings = read_prompts(args.prompt_file, "--prompt_file"), RunSettings.from_args(args)
    announce(settings.describe())
    if args.test_FLOPs:
        return announce(settings.flops_lines(args.batch_size))
    device, folder = device_from(args.device), Path(args.output_dir)
    more = dict(prompts=prompts, num_images_per_prompt=args.num_images_per_prompt)
    files, decides, writer = checked(settings, folder, more, "img_*.jpg", len(prompts) * args.num_images_per_prompt)
    jobs = [prompt for prompt in prompts for _ in range(args.num_images_per_prompt)]

    def file_of(index: int) -> Path:
        return folder / f"img_{index}.jpg"

    with (
        process_group(device) as (rank, world, device),
        RunFolder(folder, decides, settings.summary(), "img_*.jpg", rank, world) as run,
    ):
        batches = chunks(range(len(jobs)), args.batch_size)
        lacking = sum(len(batch) for batch in batches if run.lacking(batch, file_of))
        announce(f"{len(jobs)} pictures, {lacking} to make -> {folder}")
        mine = [batch for batch in batches[rank::world] if run.lacking(batch, file_of)]
        if not mine:
            return
        pipeline, watch = Pipeline.load(files, device, progress=rank == 0), Stopwatch(device)
        announce(pipeline.weights())

        def make(batch: list[int]) -> np.ndarray:
            with watch:
                pictures = pipeline.generate([jobs[i] for i in batch], [args.seed + i for i in batch], **settings.sampling())
            watch.items += len(batch)
            return pictures

        run.sample(mine, file_of, make, lambda index, picture: writer.write(picture, file_of(index), jobs[index]))
        announce(watch.report())
