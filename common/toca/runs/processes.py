"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import NoReturn

import torch
import torch.distributed as dist

START = timedelta(minutes=10)  # for all processes to come up
BEAT, SILENT = 2.0, 20  # seconds between signs of life; how many may be missing


@contextmanager
def process_group(device: torch.device, timeout: timedelta = timedelta(hours=12)) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world size, device) as torchrun set them, or (0, 1, device) without it. NCCL on CUDA, gloo elsewhere.

    Processes that end well wait for each other: one that exits while gloo's threads still free the tensors of its last
    collective aborts, because they then ask a closed interpreter for its lock. If one ends otherwise, the others end within a minute.
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
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=START))
    except dist.DistError as error:
        raise ConnectionError(f"the processes did not find each other: {str(error).splitlines()[0]}") from error
    with Watch(rank, world):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world, timeout=timeout)
        try:
            yield rank, world, device
            dist.barrier()
        finally:
            dist.destroy_process_group()


class Watch:
    """Ends this process with one line once another of its group has ended early; a collective would wait for that one for hours.

    Every process counts up a key in the group's store, and looks after the count of the next one. Who ends with an error says so there,
    and so does who misses the next one's signs of life.
    """

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world, self.next = rank, world, (rank + 1) % world
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client = dist.TCPStore(host, port, is_master=False, timeout=START)  # of its own: the group's may be blocked
        self._store = dist.PrefixStore(f"toca/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", client)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._store.add(f"beats/{self.rank}", 1)
        if self.world > 1:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
        if lost and self._thread.is_alive():
            self._thread.join(BEAT * (SILENT + 5))  # another process broke the connection: this ends when it is known which
            raise ConnectionError(f"the processes lost each other: {str(error).splitlines()[0]}") from error
        self._left.set()
        if error:
            self._tell(f"process {self.rank} of {self.world} ended: {' '.join(str(error).split()) or type(error).__name__}")
            if self.rank == 0:
                time.sleep(2 * BEAT)  # the store may end with this process: the others read it first
        if self._thread.is_alive():
            self._thread.join(BEAT)  # a thread inside a store's call aborts an interpreter that ends

    def _watch(self) -> None:
        beats = silent = 0
        try:
            while not self._left.wait(BEAT):
                self._store.add(f"beats/{self.rank}", 1)
                if self._store.check(["ended"]):
                    self._end(self._store.get("ended").decode())
                before, beats = beats, self._store.add(f"beats/{self.next}", 0)
                silent = silent + 1 if beats == before else 0
                if silent > (SILENT if beats else START.total_seconds() / BEAT):
                    gone = f"no sign of life for {silent * BEAT:g} s"
                    self._tell(f"process {self.next} of {self.world} was killed, or its machine is gone: {gone}")
        except RuntimeError:  # the store went with the process that held it
            if not self._left.wait(BEAT):
                self._end(f"process 0 of {self.world}, or what started it, was killed")

    def _tell(self, news: str) -> None:
        """The first news stay; nobody is told where the store is gone."""
        with suppress(RuntimeError):
            if self._store.add("news", 1) == 1:
                self._store.set("ended", news)

    def _end(self, news: str) -> NoReturn:
        """The main thread may be inside a collective, where no exception reaches it."""
        sys.stdout.flush()
        print(f"error: {news}; so process {self.rank} ends too", file=sys.stderr, flush=True)
        os._exit(1)


def barrier() -> None:
    """Wait for all processes, if there are several."""
    if dist.is_initialized():
        dist.barrier()


def batches_of(num: int, batch: int, rank: int, world: int) -> list[list[int]]:
    """The batches of one process: item = i * world + rank + iteration * batch * world, the last ones beyond `num` included."""
    return [[i * world + rank + first for i in range(batch)] for first in range(0, num, batch * world)]
