"""Videos of many prompts: everything that can be wrong is found before anything is sampled; files are whole or not there."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import opensora.models.stdit.stdit3
import opensora.models.text_encoder.t5
import opensora.models.vae
import opensora.schedulers  # noqa: F401 - all of them register what configurations name
from opensora.acceleration.parallel_states import sequence_parallel_group, shard_tokens
from opensora.datasets.write_video import about_sample, check_encoder, marked, save_sample
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
from toca.runs.processes import process_group
from toca.runs.programs import device_from, reproducible_matmuls

Shared = Mapping[str, Any]  # what decides the pixels of all items alike


def about(item: Item, shared: Shared) -> dict[str, Any]:
    """What decides the pixels of an item's file."""
    own = dict(index=item.index, k=item.k, texts=item.texts, numbers=item.numbers, references=item.references)
    return json.loads(json.dumps({**shared, **own, "groups": [dataclasses.astuple(group) for group in item.groups]}))


def to_file(items: Sequence[Item], path: Path) -> Item:
    """The only item, under another name. Raises ValueError if there are several, or the name does not fit."""
    if len(items) != 1:
        raise ValueError(f"--output is the file of one video, there would be {len(items)}: use scripts/inference.py")
    if path.suffix != items[0].path.suffix:
        raise ValueError(f"--output {path}: a file of this length ends in {items[0].path.suffix}")
    return dataclasses.replace(items[0], path=path)


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


def main(args: argparse.Namespace, parts: Parts) -> None:
    """Sample what the settings ask for; processes of torchrun take their shares of it.

    Raises ValueError or OSError, before anything is sampled, if something of it is wrong.
    """
    reproducible_matmuls()
    settings = RunSettings.from_args(args, parts)
    items, output = items_of(args, settings.size), getattr(args, "output", None)
    if output:
        items = [to_file(items, Path(output))]
    if settings.size.num_frames > 1:
        check_encoder()
    build_module(parts["scheduler"], SCHEDULERS)  # a frozen handful of numbers, which it checks
    shared = {**settings.pictures(), "weights": check_parts(parts)}
    todo = lacking(items, shared, strict=args.prompt_as_path)
    folder = items[0].path.parent
    with (
        process_group(device_from(settings.device)) as (rank, world, device),
        nullcontext() if output else RunFolder(folder, None, rank=rank, world=world),
    ):
        size = settings.size
        announce(f"{counted(items)} of {size.num_frames} frames, {size.height}x{size.width}, {len(todo)} to do -> {output or folder}")
        together = args.sequence_parallel and world > 1
        mine = todo if together else todo[rank::world]
        if mine:
            texts = [item.text(loop) for item in mine for loop in range(settings.loops.num)]

            def shards(config: STDiT3Config) -> Whole:
                return shard_tokens(config, size.latent, sequence_parallel_group(device.type) if together else None)

            pipeline = load_pipeline(settings, texts, device, shards, progress=rank == 0 and args.verbose == 2)
            writes = rank == 0 or not together
            save = writer(settings.save_fps, shared, args.watermark) if writes else lambda item, frames: None
            sample(pipeline, mine, save, progress=rank == 0 and args.verbose > 0)


def counted(items: Sequence[Item]) -> str:
    return f"{len(items)} video{'s' * (len(items) != 1)}"


def writer(fps: int, shared: Shared, watermark: bool) -> Callable[[Item, Any], None]:
    """Writes an item's frames to its file, after a copy with the model's name if there is to be one."""

    def save(item: Item, frames: Any) -> None:
        if watermark:
            save_sample(marked(frames), item.path.with_stem(f"{item.path.stem}_watermark"), fps, about(item, shared))
        save_sample(frames, item.path, fps, about(item, shared))

    return save


def sample(pipeline: Pipeline, items: Sequence[Item], save: Callable[[Item, Any], None], progress: bool) -> None:
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
