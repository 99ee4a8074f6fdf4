"""A run of scripts/inference.py: everything that can be wrong is found before anything is sampled; files are whole or not there."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

import opensora.models.stdit.stdit3
import opensora.models.text_encoder.t5
import opensora.models.vae
import opensora.schedulers  # noqa: F401 - all of them register what configurations name
from opensora.acceleration.parallel_states import sequence_parallel_group, shard_tokens
from opensora.datasets.write_video import about_sample, marked, save_sample
from opensora.flags import method_from, spec_from
from opensora.items import IMAGE_FPS, Item, Size, check_settings, items_of, save_fps, size_of
from opensora.pipeline import Loops, Pipeline, encode_texts
from opensora.registry import MODELS, SCHEDULERS, build_module, check_module
from opensora.spec import CONFIGS
from opensora.weights import checkpoint_path, weight_files
from toca.cli.report import describe, plan_summary
from toca.loading.weights import fingerprint
from toca.planning.run import PlannedRun
from toca.runs.files import remove_parts
from toca.runs.processes import barrier, process_group
from toca.runs.programs import DTYPES, device_from, reproducible_matmuls

Parts = Mapping[str, dict[str, Any]]
SETTINGS = ("seed", "dtype", "fps", "condition_frame_length", "condition_frame_edit", "align", "loop", "shared_noise", "cycles", "bonus",
            "bonus_frames")  # fmt: skip


def check_parts(parts: Parts) -> dict[str, Any]:
    """Make sure that the networks of a configuration are known and their weights there. Returns which weights they are.

    Raises ValueError on an unknown type or setting, FileNotFoundError if weights are missing.
    """
    weights = {}
    for name, flag in (("model", " (--ckpt-path)"), ("vae", ""), ("text_encoder", "")):
        check_module(parts[name], MODELS)
        source = parts[name].get("from_pretrained")
        if not source:
            raise ValueError(f"{name} has no from_pretrained{flag}: give a folder, a file or a hub name")
        if name != "text_encoder":
            file = weight_files(checkpoint_path(source))[0]
            weights[name] = dict(name=Path(source).name, fingerprint=fingerprint(file))
    return weights


def about(item: Item, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the pixels of an item's file."""
    own = dict(index=item.index, k=item.k, texts=item.texts, numbers=item.numbers, references=item.references)
    return json.loads(json.dumps(shared | own | dict(groups=[dataclasses.astuple(group) for group in item.groups])))


def to_file(items: Sequence[Item], path: Path) -> Item:
    """The only item, under another name. Raises ValueError if there are several, or the name does not fit."""
    if len(items) != 1:
        raise ValueError(f"--output is the file of one video, there would be {len(items)}: use scripts/inference.py")
    if path.suffix != items[0].path.suffix:
        raise ValueError(f"--output {path}: a file of this length ends in {items[0].path.suffix}")
    return dataclasses.replace(items[0], path=path)


def lacking(items: Sequence[Item], shared: Mapping[str, Any], strict: bool) -> list[Item]:
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


def load_pipeline(args: argparse.Namespace, parts: Parts, size: Size, texts: Sequence[str], device: torch.device, loud: bool) -> Pipeline:
    """The networks of a run on the device. The text encoder, the largest of them, is let go before the others come."""
    dtype = DTYPES[args.dtype]
    encoder = build_module(parts["text_encoder"], MODELS, device=device)
    encoded = encode_texts(encoder, texts)
    del encoder
    vae = build_module(parts["vae"], MODELS).to(device, torch.float32 if dtype is torch.float16 else dtype)  # it overflows in fp16
    model = build_module(parts["model"], MODELS).to(device, dtype).eval().requires_grad_(False)
    return Pipeline(
        model=model,
        vae=vae,
        scheduler=build_module(parts["scheduler"], SCHEDULERS),
        method=method_from(args),
        spec_for=partial(spec_from, args, model.config, size.latent),
        device=device,
        size=size,
        fps=IMAGE_FPS if size.num_frames == 1 else args.fps,
        seed=args.seed,
        texts=encoded,
        loops=Loops(args.loop, args.condition_frame_length, args.condition_frame_edit, args.align),
        shared_noise=args.shared_noise,
        progress=loud and args.verbose == 2,
    )


def main(args: argparse.Namespace, parts: Parts) -> None:
    """Sample what the settings ask for; processes of torchrun take their shares of it.

    Raises ValueError or OSError, before anything is sampled, if something of it is wrong.
    """
    reproducible_matmuls()
    size = size_of(args)
    check_settings(args, size)
    items = items_of(args, size)
    if output := getattr(args, "output", None):
        items = [to_file(items, Path(output))]
    weights, method, scheduler = check_parts(parts), method_from(args), build_module(parts["scheduler"], SCHEDULERS)
    method.plan(spec_from(args, CONFIGS[parts["model"]["type"]], size.latent, 1), scheduler.num_sampling_steps)
    shared = {name: getattr(args, name) for name in SETTINGS} | dict(
        size=dataclasses.astuple(size),
        save_fps=save_fps(args),
        scheduler=parts["scheduler"],
        method={"name": method.name, **dataclasses.asdict(method)},
        weights=weights,
    )
    todo = lacking(items, shared, strict=args.prompt_as_path)
    with process_group(device_from(args.device)) as (rank, world, device):
        if rank == 0:
            folder = items[0].path.parent
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise ValueError(f"cannot write to {folder}: choose another --save-dir")
            remove_parts(folder)
            print(f"{counted(items)} of {size.num_frames} frames, {size.height}x{size.width}, {len(todo)} to do -> {folder}", flush=True)
        barrier()  # before anyone writes
        together = args.sequence_parallel and world > 1
        mine = todo if together else todo[rank::world]
        if mine:
            texts = [item.text(loop) for item in mine for loop in range(args.loop)]
            pipeline = load_pipeline(args, parts, size, texts, device, rank == 0)
            if together:
                pipeline.shards = shard_tokens(pipeline.model.config, size.latent, sequence_parallel_group(device.type))
            sample(args, pipeline, mine, shared, loud=rank == 0, writes=rank == 0 or not together)


def counted(items: Sequence[Item]) -> str:
    return f"{len(items)} video{'s' * (len(items) != 1)}"


def sample(
    args: argparse.Namespace, pipeline: Pipeline, items: Sequence[Item], shared: Mapping[str, Any], loud: bool, writes: bool
) -> None:
    """Generate and write the items of one process; where several share every item, one of them writes."""
    if loud:
        longest = max(len(pipeline.texts[item.text(loop)]) for item in items for loop in range(args.loop))
        run = PlannedRun("", pipeline.spec_for(longest), pipeline.method, pipeline.scheduler.num_sampling_steps, rows_per_image=2)
        print(f"{describe(run.method)}: {plan_summary(run)}", flush=True)
    started = time.perf_counter()
    with tqdm(total=len(items), unit="video", disable=not loud or not args.verbose) as bar:
        for first in range(0, len(items), args.batch_size):
            batch = items[first : first + args.batch_size]
            for item, frames in zip(batch, pipeline.generate(batch), strict=True):
                if writes and args.watermark:
                    save_sample(marked(frames), item.path.with_stem(f"{item.path.stem}_watermark"), save_fps(args), about(item, shared))
                if writes:
                    save_sample(frames, item.path, save_fps(args), about(item, shared))
            bar.update(len(batch))
    if loud:
        seconds = time.perf_counter() - started
        print(f"{counted(items)} in {seconds:.1f} s, {seconds / len(items):.1f} s each")
