"""Sampling runs over many items: sharded over processes, resumable, with one seed per item so that no split changes a picture."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from tqdm.auto import tqdm

from toca.files import atomic_path

MANIFEST = "manifest.json"


def item_seed(seed: int, index: int) -> int:
    """A seed in 0..2^63-1 for item `index` of a run: a hash of both, so that neighbouring runs and items share nothing."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest(), "little") >> 1


def item_generators(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per item; the numbers they draw do not depend on the device, the batch or the number of processes."""
    return [torch.Generator().manual_seed(item_seed(seed, index)) for index in indices]


@contextmanager
def process_group(device: str | None = None) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world size, device) as torchrun set them, or (0, 1, device) without it. NCCL on CUDA, gloo elsewhere."""
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "RANK" not in os.environ:
        yield 0, 1, kind
        return
    if kind.type == "cuda" and kind.index is None:
        kind = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(kind)
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size(), kind
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes, if there are several."""
    if dist.is_initialized():
        dist.barrier()


def shards(num: int, batch: int, rank: int, world: int) -> list[list[int]]:
    """The batches of item indices of one process: item = i * world + rank + iteration * batch * world, the last ones beyond `num` included."""
    return [[i * world + rank + first for i in range(batch)] for first in range(0, num, batch * world)]


def sample_images(
    folder: Path,
    num: int,
    batch: int,
    sample_batch: Callable[[list[int]], np.ndarray],
    settings: Mapping[str, Any],
    rank: int = 0,
    world: int = 1,
    extra: Mapping[str, Any] | None = None,
    whole_batches: bool = False,
) -> None:
    """Write `{index:06d}.png` for all indices below `num` that `folder` lacks, and a manifest beside them.

    sample_batch: item indices -> (len, H, W, 3) uint8. settings: what decides the pictures; a folder made with others is refused.
    whole_batches: sample every item of a batch of `shards`, also those on disk, because they share one random stream.
    Raises ValueError if the folder holds a run with other settings.
    """
    started = time.time()
    if rank == 0:
        _check_manifest(folder, settings)
    barrier()

    def path(index: int) -> Path:
        return folder / f"{index:06d}.png"

    def lacking(indices: list[int]) -> list[int]:
        return [index for index in indices if index < num and not path(index).exists()]

    batches = shards(num, batch, rank, world)
    if whole_batches:
        batches = [indices for indices in batches if lacking(indices)]
    else:
        todo = lacking([index for indices in batches for index in indices])
        batches = [todo[start : start + batch] for start in range(0, len(todo), batch)]
    made = 0
    with tqdm(total=sum(len(lacking(indices)) for indices in batches), unit="image", disable=rank != 0, desc=f"rank 0 of {world}") as progress:
        for indices in batches:
            wanted = set(lacking(indices))
            for index, picture in zip(indices, sample_batch(indices), strict=True):
                if index in wanted:
                    with atomic_path(path(index)) as part:
                        Image.fromarray(picture).save(part)
            made += len(wanted)
            progress.update(len(wanted))
    seconds = time.time() - started
    barrier()
    if rank == 0:
        _write_manifest(folder, settings, num, dict(extra or {}), dict(images=made, processes=world, seconds=round(seconds, 2)))


def write_npz(folder: Path, num: int, path: Path) -> None:
    """`arr_0`, uint8 (num, H, W, 3), from the PNGs of a folder, one picture in memory at a time; the bytes depend on the pictures alone.

    Raises FileNotFoundError if a picture is missing.
    """
    with Image.open(folder / f"{0:06d}.png") as first:
        width, height = first.size
    header = dict(descr="|u1", fortran_order=False, shape=(num, height, width, 3))
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for index in range(num):
                with Image.open(folder / f"{index:06d}.png") as picture:
                    file.write(np.asarray(picture.convert("RGB")).tobytes())


def _check_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Start a manifest, or make sure that the one there describes the same run."""
    path = folder / MANIFEST
    if not path.exists():
        return _write_manifest(folder, settings, 0, {}, None)
    before, now = json.loads(path.read_text())["settings"], json.loads(json.dumps(settings))
    differing = [f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        raise ValueError(f"{folder} holds samples of a run with other settings ({'; '.join(differing)}): remove it or choose another folder")


def _write_manifest(folder: Path, settings: Mapping[str, Any], num: int, extra: Mapping[str, Any], run: Mapping[str, Any] | None) -> None:
    path = folder / MANIFEST
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    content = dict(
        settings=dict(settings),
        num_images=num,
        **extra,
        versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__),
        runs=runs + ([dict(run)] if run else []),
    )
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
