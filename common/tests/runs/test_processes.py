from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from toca.runs.processes import batches_of, process_group


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5))
def test_batches_cover_every_item_once(num, batch, world):
    items = [index for rank in range(world) for indices in batches_of(num, batch, rank, world) for index in indices]
    assert sorted(items) == list(range(len(items)))
    assert num <= len(items) < num + batch * world


def test_batches_are_upstreams():
    assert batches_of(7, 2, rank=1, world=2) == [[1, 3], [5, 7]]


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with process_group(torch.device("cpu")) as place:
        assert place == (0, 1, torch.device("cpu"))
        assert not torch.distributed.is_initialized()


def _member(rank: int, port: int, done: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with process_group(torch.device("cpu")):
        if rank == 0:
            time.sleep(1)
            done.touch()
    assert done.exists() and not torch.distributed.is_initialized()


def test_processes_of_a_group_end_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_member, (port, tmp_path / "done"), nprocs=2)
