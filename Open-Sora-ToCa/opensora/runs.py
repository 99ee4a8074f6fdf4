"""Videos of many prompts: everything that can be wrong is found before anything is sampled; files are whole or not there."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

import opensora.models.stdit.stdit3
import opensora.models.text_encoder.t5
import opensora.models.vae
import opensora.schedulers  # noqa: F401 - all of them register what configurations name
from opensora.acceleration.parallel_states import check_heads, sequence_parallel_group, shard_tokens
from opensora.datasets.utils import content_of
from opensora.datasets.write_video import about_sample, check_encoder, marked, read_sample, save_sample
from opensora.flags import RunSettings
from opensora.items import Item, items_of
from opensora.pipeline import Pipeline, load_pipeline
from opensora.registry import SCHEDULERS, build_module
from opensora.spec import STDiT3Config
from opensora.utils.config_utils import Parts
from opensora.weights import check_parts
from toca.cli.report import describe, plan_summary
from toca.console import announce
from toca.engine.token_shards import Whole
from toca.runs.clock import Stopwatch
from toca.runs.folder import RunFolder
from toca.runs.outputs import check_file
from toca.runs.processes import process_group
from toca.runs.programs import device_from, reproducible_matmuls

Shared = Mapping[str, Any]  # what decides the pixels of all items alike


def about(item: Item, shared: Shared) -> dict[str, Any]:
    """What decides the pixels of an item's file."""
    references = [content_of(path) for path in item.references]
    own = dict(index=item.index, k=item.k, texts=item.texts, numbers=item.numbers, references=references)
    return json.loads(json.dumps({**shared, **own, "groups": [dataclasses.astuple(group) for group in item.groups]}))


def to_file(items: Sequence[Item], path: Path) -> Item:
    """The only item, under another name. Raises ValueError if there are several, or the name does not fit."""
    if len(items) != 1:
        raise ValueError(f"--output is the file of one video, there would be {len(items)}: use scripts/inference.py")
    if path.suffix != items[0].path.suffix:
        raise ValueError(f"--output {path}: a file of this length ends in {items[0].path.suffix}")
    return dataclasses.replace(items[0], path=path)


def check_outputs(items: Sequence[Item], settings: RunSettings) -> None:
    """Make sure that all files of a run can be written. Raises ValueError."""
    size, copies = settings.size, 1 + settings.watermark
    needed = len(items) * copies * size.height * size.width * 3 if size.num_frames == 1 else 0  # of videos nobody knows
    longest = max((item.marked if settings.watermark else item.path for item in items), key=lambda path: len(os.fsencode(path.name)))
    check_file(longest, "--output" if settings.output else "--save-dir", needed)
    if folders := [str(item.path) for item in items if item.path.is_dir()]:
        raise ValueError(f"{folders[0]} is a folder, and would be a file of this run")
    if size.num_frames > 1:
        check_encoder()


def lacking(items: Sequence[Item], shared: Shared, strict: bool) -> list[Item]:
    """The items without a file made of the same. Raises ValueError with `strict` if a file was made of something else."""
    todo = []
    for item in items:
        there = about_sample(item.path) if item.path.exists() else None
        if there == about(item, shared):
            continue
        if strict and item.path.exists():
            known, now = there or {}, about(item, shared)
            what = ", ".join(sorted(key for key in {*known, *now} if known.get(key) != now.get(key)))
            raise ValueError(f"{item.path} was made with other settings ({what}): remove it or choose another --save-dir")
        todo.append(item)
    return todo


def mark_finished(items: Sequence[Item], shared: Shared, fps: int) -> int:
    """Make the copies with a watermark that are missing, of videos that are there. Returns how many."""
    missing = [item for item in items if about_sample(item.marked) != about(item, shared)]
    for item in missing:
        save_sample(marked(read_sample(item.path)), item.marked, fps, about(item, shared))
    return len(missing)


def main(args: argparse.Namespace, parts: Parts) -> None:
    """Sample what the settings ask for; processes of torchrun take their shares of it.

    Raises ValueError or OSError, before anything is sampled, if something of it is wrong.
    """
    reproducible_matmuls()
    settings = RunSettings.from_args(args, parts)
    device = device_from(settings.device)
    build_module(parts["scheduler"], SCHEDULERS)  # a frozen handful of numbers, which it checks
    items = items_of(args, settings.size)
    if settings.output:
        items = [to_file(items, settings.output)]
    check_outputs(items, settings)
    config, weights = check_parts(parts)
    _ = settings.planned(1, config).plan  # raises
    shared = {**settings.pictures(), "weights": weights}
    todo = lacking(items, shared, strict=settings.prompt_as_path)
    with process_group(device) as (rank, world, device):
        together = settings.sequence_parallel and world > 1
        if together:
            check_heads(config, world)
        elif settings.sequence_parallel:
            announce("--sequence-parallel: there is one process, which has the videos to itself")
        folder = items[0].path.parent
        with nullcontext() if settings.output else RunFolder(folder, None, rank=rank, world=world):
            announce(f"{counted(items)} of {settings.size.num_frames} frames, {settings.size.height}x{settings.size.width}, "
                     f"{len(todo)} to do -> {settings.output or folder}")  # fmt: skip
            if settings.watermark and rank == 0:
                finished = {item.path for item in items} - {item.path for item in todo}
                if made := mark_finished([item for item in items if item.path in finished], shared, settings.save_fps):
                    announce(f"watermarked {made} finished {'videos' if made > 1 else 'video'}")
            if mine := todo if together else todo[rank::world]:
                texts = [item.text(loop) for item in mine for loop in range(settings.loops.num)]

                def shards(config: STDiT3Config) -> Whole:
                    return shard_tokens(config, settings.size.latent, sequence_parallel_group(device.type) if together else None)

                pipeline = load_pipeline(settings, texts, device, shards, progress=rank == 0 and settings.verbose == 2)
                save = writer(settings, shared) if rank == 0 or not together else lambda item, frames: None
                sample(pipeline, mine, save, progress=rank == 0 and settings.verbose > 0)


def counted(items: Sequence[Item]) -> str:
    return f"{len(items)} video{'s' * (len(items) != 1)}"


def writer(settings: RunSettings, shared: Shared) -> Callable[[Item, Tensor], None]:
    """Writes an item's frames to its file, and a copy with the model's name if there is to be one."""

    def save(item: Item, frames: Tensor) -> None:
        if settings.watermark:
            save_sample(marked(frames), item.marked, settings.save_fps, about(item, shared))
        save_sample(frames, item.path, settings.save_fps, about(item, shared))

    return save


def sample(pipeline: Pipeline, items: Sequence[Item], save: Callable[[Item, Tensor], None], progress: bool) -> None:
    """Generate and write the items of one process."""
    settings = pipeline.settings
    longest = max(len(pipeline.texts[item.text(loop)]) for item in items for loop in range(settings.loops.num))
    run = settings.planned(longest, pipeline.model.config)
    announce(f"{describe(run.method)}: {plan_summary(run)}")
    with Stopwatch(pipeline.device, "video") as watch, tqdm(total=len(items), unit="video", disable=not progress) as bar:
        for first in range(0, len(items), settings.batch_size):
            batch = items[first : first + settings.batch_size]
            for item, frames in zip(batch, pipeline.generate(batch), strict=True):
                save(item, frames)
            watch.items += len(batch)
            bar.update(len(batch))
    announce(watch.report())
