"""Folders of pictures that an interrupted run goes on with: settings beside the pictures, one file per index."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from flux.flags import method_from
from flux.pictures import NSFW_THRESHOLD, exif, nsfw_filter, save_picture, watermarker
from flux.pipeline import Pipeline
from flux.weights import AE, CLIP, CONFIGS, T5
from toca.loading.weights import fingerprint
from toca.runs.files import atomic_path, remove_parts

SETTINGS = "settings.json"
PICTURE_FLAGS = ("name", "width", "height", "num_steps", "guidance", "seed", "dtype", "upstream_numerics", "watermark")


def picture_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the pictures of a program, but for the prompts. Raises FileNotFoundError if a checkpoint is lacking."""
    checkpoint = CONFIGS[args.name].flow.find(args.ckpt)
    return {
        **{flag: getattr(args, flag) for flag in PICTURE_FLAGS},
        "method": {"name": args.method, **dataclasses.asdict(method_from(args))},
        "checkpoint": {"name": checkpoint.name, "fingerprint": fingerprint(checkpoint)},
        "ae": fingerprint(AE.find(args.ae)),
        "t5": _encoder(T5.folder(args.t5)),
        "clip": _encoder(CLIP.folder(args.clip)),
    }


def _encoder(source: str) -> str | list[str]:
    """Fingerprints of an encoder's files, in a folder or the hub's cache; its name where it is not on this machine yet."""
    config = Path(source) / "config.json"
    if not config.is_file():
        try:
            config = Path(try_to_load_from_cache(source, "config.json") or config)
        except HFValidationError:  # no hub name either: loading says so
            return source
    if not config.is_file():
        return source
    return [fingerprint(path) for path in sorted(config.parent.iterdir()) if path.suffix in (".json", ".safetensors", ".bin", ".model")]


def open_folder(folder: Path, settings: Mapping[str, Any], extra: Mapping[str, Any], pictures: str) -> None:
    """Note in a folder what its pictures are made of, or make sure that it was the same.

    settings: what decides the pictures; extra: noted beside. pictures: a glob. Raises ValueError if the folder holds another run.
    """
    path, now = folder / SETTINGS, json.loads(json.dumps(settings))
    if path.exists():
        before = json.loads(path.read_text())["settings"]
        if differing := [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]:
            changes = "; ".join(f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in differing)
            raise ValueError(f"{folder} holds pictures of a run with other settings ({changes}): remove it or choose another --output_dir")
        return remove_parts(folder)
    if next(folder.glob(pictures), None):
        raise ValueError(f"{folder} holds pictures but no {SETTINGS}: remove it or choose another --output_dir")
    versions = dict(python=platform.python_version(), torch=torch.__version__)
    with atomic_path(path) as part:
        part.write_text(json.dumps(dict(settings=now, **extra, versions=versions), indent=1) + "\n")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:56] + "...'"


class Writer:
    """Writes pictures with what was asked for: watermark, filter, metadata. metadata: the prompt goes into the EXIF data."""

    def __init__(self, model: str, metadata: bool, watermark: bool, nsfw: bool) -> None:
        self.model, self.metadata = model, metadata
        self.mark = watermarker() if watermark else None
        self.rate = nsfw_filter() if nsfw else None

    def write(self, picture: Any, path: Path, prompt: str, any_metadata: bool = True) -> bool:
        """Whether it was written; a picture that the filter rates as unsafe is not. any_metadata: also without the prompt."""
        if self.rate and (score := self.rate(picture)) >= NSFW_THRESHOLD:
            print(f"{path.name} not written: NSFW score {score:.2f}")
            return False
        data = exif(prompt if self.metadata else None, self.model) if self.metadata or any_metadata else None
        save_picture(self.mark(picture) if self.mark else picture, path, data)
        return True


class Clock:
    """Seconds of sampling, as the device sees them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.device, self.seconds, self.images = pipeline.device, 0.0, 0

    def __enter__(self) -> Clock:
        self.started = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds += self._now() - self.started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def report(self) -> str:
        per_image = self.seconds / max(self.images, 1)
        text = f"{self.images} images in {self.seconds:.2f} s, {per_image:.2f} s each"
        if self.device.type == "cuda":
            text += f"; peak {torch.cuda.max_memory_allocated(self.device) / 1e9:.2f} GB on {torch.cuda.get_device_name(self.device)}"
        return text


def batches(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[first : first + size]) for first in range(0, len(items), size)]
