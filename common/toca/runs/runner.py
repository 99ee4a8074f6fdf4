"""Sampling runs over many items: sharded over processes, resumable, with one seed per item so that no split changes a picture."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from tqdm.auto import tqdm

from toca.runs.files import atomic_path, remove_parts

MANIFEST = "manifest.json"


@contextmanager
def user_errors() -> Iterator[None]:
    """For the entry of a program: a wrong flag or a missing file (ValueError, OSError) ends it with one line instead of a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit("error: " + " ".join(str(error).split())) from error


@contextmanager
def program_errors(memory_advice: str) -> Iterator[None]:
    """For the entry of a program whose runs can be resumed: as `user_errors`, and exhausted memory and Ctrl-C end it with one line too.

    memory_advice: what takes less memory."""
    try:
        with user_errors():
            yield
    except torch.OutOfMemoryError as error:
        raise SystemExit(f"error: out of memory on the device: {memory_advice} ({str(error).strip().splitlines()[0]})") from error
    except KeyboardInterrupt as error:
        print("interrupted: finished files stay, and the same command goes on with the others")
        raise SystemExit(130) from error


def reproducible_matmuls() -> None:
    """Let MKL round a row of a product alike in batches of any size, so that on a CPU no picture depends on its batch.

    Read by MKL at its first product. Costs large products nothing, and does nothing to CUDA or to machines without MKL.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def item_seed(seed: int, index: int) -> int:
    """A seed in 0..2^63-1 for item `index` of a run: a hash of both, so that neighbouring runs and items share nothing."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest(), "little") >> 1


def item_generators(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per item; the numbers they draw do not depend on the device, the batch or the number of processes."""
    return [torch.Generator().manual_seed(item_seed(seed, index)) for index in indices]


def main_process() -> bool:
    """Whether this is the process that reports: rank 0 of torchrun, or the only one. Known before the process group is."""
    return os.environ.get("RANK", "0") == "0"


def device_from(name: str | None) -> torch.device:
    """The device of a flag, by default CUDA where there is one. Raises ValueError if there is no such device."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"--device {name}: no such kind of device, try cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


@contextmanager
def process_group(device: torch.device, timeout: timedelta = timedelta(hours=12)) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world size, device) as torchrun set them, or (0, 1, device) without it. NCCL on CUDA, gloo elsewhere.

    Processes that end well wait for each other: one that exits while gloo's threads still free the tensors of its last
    collective aborts, because they then ask a closed interpreter for its lock.
    timeout: how long processes wait for each other; generous, because a resumed run may leave one of them more to do.
    Raises ValueError if there are more processes than GPUs.
    """
    if "RANK" not in os.environ:
        yield 0, 1, device
        return
    if device.type == "cuda":
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(f"process {local} of this machine finds only {gpus} GPUs: start as many as there are, or use --device cpu")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        yield dist.get_rank(), dist.get_world_size(), device
        dist.barrier()
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes, if there are several."""
    if dist.is_initialized():
        dist.barrier()


def shards(num: int, batch: int, rank: int, world: int) -> list[list[int]]:
    """The batches of one process: item = i * world + rank + iteration * batch * world, the last ones beyond `num` included."""
    return [[i * world + rank + first for i in range(batch)] for first in range(0, num, batch * world)]


def sample_images(
    folder: Path,
    num: int,
    batch: int,
    sample_batch: Callable[[list[int]], Iterable[np.ndarray]],
    settings: Mapping[str, Any],
    rank: int = 0,
    world: int = 1,
    extra: Mapping[str, Any] | None = None,
    whole_batches: bool = False,
) -> None:
    """Write `{index:06d}.png` for all indices below `num` that `folder` lacks, and a manifest beside them. One run at a time per folder.

    sample_batch: item indices -> a picture (H, W, 3) uint8 of each. settings: what decides them; a folder made with others is refused.
    A batch that lacks a picture is sampled with all its items, because rounding may depend on the batch: a resumed run makes the same
    bytes as an unbroken one. whole_batches: include the surplus items beyond `num`, because they share one random stream.
    Raises ValueError if the folder holds a run with other settings.
    """
    started = time.time()
    check_manifest(folder, settings)
    barrier()  # all have read what rank 0 now writes
    if rank == 0:
        remove_parts(folder)
        if not (folder / MANIFEST).exists():
            _write_manifest(folder, settings, 0, {}, None)
    barrier()

    def path(index: int) -> Path:
        return folder / f"{index:06d}.png"

    made, todo = 0, []
    for indices in shards(num, batch, rank, world):
        inside = [index for index in indices if index < num]
        if lacking := {index for index in inside if not path(index).exists()}:
            todo.append((indices if whole_batches else inside, lacking))
    total = sum(len(lacking) for _, lacking in todo)
    with tqdm(total=total, unit="image", disable=rank != 0, desc=f"process 0 of {world}") as progress:
        for indices, lacking in todo:
            for index, picture in zip(indices, sample_batch(indices), strict=True):
                if index in lacking:
                    with atomic_path(path(index)) as part:
                        Image.fromarray(picture).save(part)
            made += len(lacking)
            progress.update(len(lacking))
    barrier()
    if rank == 0:
        run = dict(images_of_rank_0=made, processes=world, batch=batch, seconds=round(time.time() - started, 2))
        _write_manifest(folder, settings, num, extra or {}, run)


def write_npz(folder: Path, num: int, path: Path) -> None:
    """`arr_0`, uint8 (num, H, W, 3), from the PNGs of a folder, one picture in memory at a time; the bytes depend on the pictures alone.

    Raises ValueError if a picture is missing or has another size than the first.
    """
    if missing := [index for index in range(num) if not (folder / f"{index:06d}.png").exists()]:
        raise ValueError(f"{folder} lacks {len(missing)} of {num} pictures, first {missing[0]:06d}.png: run the same command again")
    remove_parts(path.parent, path.stem)
    with Image.open(folder / f"{0:06d}.png") as first:
        width, height = first.size
    header = dict(descr="|u1", fortran_order=False, shape=(num, height, width, 3))
    entry = zipfile.ZipInfo("arr_0.npy")  # stored, dated 1980
    with (
        atomic_path(path) as part,
        zipfile.ZipFile(part, "w") as archive,
        archive.open(entry, "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(num):
            with Image.open(folder / f"{index:06d}.png") as picture:
                if picture.size != (width, height):
                    raise ValueError(f"{folder}/{index:06d}.png is {picture.size}, the first picture {(width, height)}")
                file.write(np.asarray(picture.convert("RGB")).tobytes())


def check_manifest(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make sure that a folder is empty or holds the same run; `sample_images` does, and a program may earlier. Raises ValueError."""
    path = folder / MANIFEST
    if not path.exists():
        if next(folder.glob("[0-9]*.png"), None):
            raise ValueError(f"{folder} holds pictures but no {MANIFEST}: remove it or choose another folder")
        return
    before, now = json.loads(path.read_text())["settings"], json.loads(json.dumps(settings))
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in differing)
        raise ValueError(f"{folder} holds samples of a run with other settings ({changes}): remove it or choose another folder")


def _write_manifest(folder: Path, settings: Mapping[str, Any], num: int, extra: Mapping[str, Any], run: Mapping[str, Any] | None) -> None:
    path = folder / MANIFEST
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    content = dict(
        settings=dict(settings),
        num_images=num,
        **extra,
        versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__, pillow=Image.__version__),
        runs=runs + ([dict(run)] if run else []),
    )
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
