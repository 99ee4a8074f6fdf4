"""Several processes on one video: what cannot be is refused before anything is loaded, and none outlives another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import ROOT, SMALL, infer, names

from toca.testing.programs import environment

FLAGS = (*SMALL, "--prompt", "a fox", "--sequence-parallel", "--device", "cpu")


def start(program: Path, config: Path, folder: Path, world: int) -> list[subprocess.Popen[str]]:
    """The processes of a group, as on machines of their own: no launcher ends the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(world), CUDA_VISIBLE_DEVICES="")
    line = [sys.executable, str(program), str(config), "--save-dir", str(folder), *FLAGS]
    ranks = [environment(ROOT) | group | dict(RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(world)]
    return [subprocess.Popen(line, env=variables, stderr=subprocess.PIPE, text=True) for variables in ranks]


def test_a_process_that_is_killed_ends_the_others(config: Path, tmp_path: Path) -> None:
    first, second = start(ROOT / "tests/dying_program.py", config, tmp_path / "out", 2)
    assert second.wait(timeout=240) == -9
    killed = time.monotonic()
    _, errors = first.communicate(timeout=90)
    assert first.returncode == 1 and time.monotonic() - killed < 70
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "process 1 of 2" in line and "Traceback" not in errors
    assert [name for name in names(tmp_path / "out") if not name.startswith(".")] == []


def test_heads_that_do_not_divide_are_refused_before_anything_is_loaded(config: Path, tmp_path: Path) -> None:
    errors = [process.communicate(timeout=240)[1] for process in start(ROOT / "scripts/inference.py", config, tmp_path / "out", 3)]
    assert all("Traceback" not in error and "Loading" not in error for error in errors)
    assert any("--sequence-parallel: 2 heads do not divide among 3 processes; start 1, 2" in error for error in errors)
    assert not (tmp_path / "out").exists()


def test_one_process_has_nothing_to_share(monkeypatch: pytest.MonkeyPatch, config: Path, tmp_path: Path, capsys) -> None:
    assert "RANK" not in os.environ
    infer(monkeypatch, config, tmp_path / "out", "--prompt", "a fox", "--num-frames", 1, "--sequence-parallel")
    assert "--sequence-parallel: there is one process" in capsys.readouterr().out and names(tmp_path / "out") == ["sample_0000.png"]
