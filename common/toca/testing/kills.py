"""A resumable program, killed again and again at moments nobody chose, and started again: it must end with an unbroken run's bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toca.testing.programs import environment


@dataclass(frozen=True)
class Survived:
    """kills: how often the program was killed while it ran. seconds: an unbroken run took. files: compared, byte by byte."""

    kills: int
    seconds: float
    files: int


def survives(
    line: Callable[[Path], Sequence[str]],
    folder: Path,
    outputs: str,
    kills: int = 40,
    seed: int = 0,
    paths: Iterable[Path] = (),
    timeout: float = 300.0,
) -> Survived:
    """Kill a program `kills` times, each at a random moment of the time that an unbroken run takes, then let it end.

    line: the command line that writes into a folder.
    folder: an empty one to work in.
    outputs: a glob, inside the program's folder, for what must be equal.
    paths: to import from.
    The program's whole process group gets SIGKILL. An attempt that ends before its kill starts over in an emptied folder.
    Raises AssertionError if a run fails by itself, or a byte differs.
    """
    draw, env = random.Random(seed), environment(*paths)
    unbroken, broken = folder / "unbroken", folder / "broken"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    _finish(line(unbroken), env, timeout)
    seconds = time.monotonic() - started
    done = 0
    while done < kills:
        process = subprocess.Popen(line(broken), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        try:
            _, errors = process.communicate(timeout=draw.uniform(0.05, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            done += 1
            continue
        assert process.returncode == 0, f"after {done} kills: {errors.decode(errors='replace')[-2000:]}"
        _same(unbroken, broken, outputs)
        broken.rename(folder / f"whole-{done}-{time.monotonic_ns()}")
    _finish(line(broken), env, timeout)
    return Survived(done, seconds, _same(unbroken, broken, outputs))


def _finish(line: Sequence[str], env: dict[str, str], timeout: float) -> None:
    run = subprocess.run(line, env=env, capture_output=True, text=True, timeout=timeout)
    assert run.returncode == 0, run.stderr[-2000:]


def _same(first: Path, second: Path, outputs: str) -> int:
    """How many files they hold. Raises AssertionError if they differ in names or bytes, or hold none."""
    names, others = ({str(path.relative_to(root)) for path in root.glob(outputs) if path.is_file()} for root in (first, second))
    assert names and names == others, f"{sorted(names ^ others)} are in one of the two alone"
    for name in sorted(names):
        assert (first / name).read_bytes() == (second / name).read_bytes(), f"{name} differs from that of an unbroken run"
    return len(names)
