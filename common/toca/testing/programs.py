"""Programs in processes of their own, as users start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def command(program: Path | str, *flags: str, processes: int = 0) -> list[str]:
    """The command line of a program, under torchrun if `processes`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    return [sys.executable, *launcher, str(program), *flags]


def environment(*paths: Path) -> dict[str, str]:
    """This process's, with folders to import from, one thread and no hub."""
    found = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(program: Path | str, *flags: str, processes: int = 0, paths: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A program that ended, with what it printed. Raises subprocess.TimeoutExpired after five minutes."""
    line = command(program, *flags, processes=processes)
    return subprocess.run(line, env=environment(*paths), capture_output=True, text=True, timeout=300)
