from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_processes_of_a_group_end_together(tmp_path):
    torch.multiprocessing.spawn(_member, (free_port(), tmp_path / "done"), nprocs=2)


PROGRAM = """
import os, signal, sys, time, torch
from toca.runs import processes
from toca.runs.programs import program_errors

processes.BEAT, processes.SILENT = 0.1, 20

@program_errors()
def main(way):
    with processes.process_group(torch.device("cpu")) as (rank, world, device):
        processes.barrier()
        print("together", flush=True)
        if rank == int(sys.argv[2]):
            if way == "raises":
                raise ValueError("the disk\\nis on fire")
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "busy":
            time.sleep(60)
        processes.barrier()

main(sys.argv[1])
"""


def group(way: str, dies: int, world: int = 2) -> list[tuple[int, str]]:
    """Exit status and errors of processes of which one dies."""
    place = dict(os.environ, WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), OMP_NUM_THREADS="1")
    line = [sys.executable, "-c", PROGRAM, way, str(dies)]
    started = [subprocess.Popen(line, env=place | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True) for rank in range(world)]
    try:
        return [(process.wait(50), process.stderr.read()) for process in started]
    finally:
        for process in started:
            process.kill()


def own_lines(text: str) -> list[str]:
    """Without what torch warns of."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("dies", [0, 1])
def test_others_end_and_say_which_process_raised(dies):
    ended = group("raises", dies)
    assert ended[dies][0] == 1 and own_lines(ended[dies][1]) == ["error: the disk is on fire"]
    assert ended[1 - dies][0] == 1
    assert own_lines(ended[1 - dies][1]) == [f"error: process {dies} of 2 ended: the disk is on fire; so process {1 - dies} ends too"]


@pytest.mark.parametrize("way, dies", [("waiting", 1), ("busy", 1), ("waiting", 0)])
def test_others_end_and_say_which_process_was_killed(way, dies):
    ended = group(way, dies)
    assert ended[dies][0] == -signal.SIGKILL and ended[1 - dies][0] == 1
    (line,) = own_lines(ended[1 - dies][1])
    assert line.startswith(f"error: process {dies} of 2") and "killed" in line
