"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist


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


def batches_of(num: int, batch: int, rank: int, world: int) -> list[list[int]]:
    """The batches of one process: item = i * world + rank + iteration * batch * world, the last ones beyond `num` included."""
    return [[i * world + rank + first for i in range(batch)] for first in range(0, num, batch * world)]
