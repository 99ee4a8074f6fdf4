"""The driver itself: a program that writes whole files survives, one that leaves halves or counts on its memory does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from toca.testing.kills import Survived, survives

PROGRAM = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1]); folder.mkdir(exist_ok=True)
for i in range(6):
    path = folder / f"{i}.txt"
    if not path.exists():
        time.sleep(0.05)
        WRITE
"""
WHOLE = 'part = folder / f"{i}.part"; part.write_text(str(i)); os.replace(part, path)'
HALF = 'path.write_text(""); time.sleep(0.05); path.write_text(str(i))'
MEMORY = "path.write_text(f'{i} {len(list(folder.iterdir())) - (i if i else 0)} {time.time()}')"


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Survived]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("WRITE", request.param))
    return lambda: survives(lambda folder: [sys.executable, str(path), str(folder)], tmp_path, "*.txt", kills=8, timeout=60)


@pytest.mark.parametrize("program", [WHOLE], indirect=True)
def test_whole_files_survive(program: Callable[[], Survived]) -> None:
    survived = program()
    assert (survived.kills, survived.files) == (8, 6)


@pytest.mark.parametrize("program", [HALF, MEMORY], indirect=True)
def test_halves_and_what_depends_on_the_moment_do_not(program: Callable[[], Survived]) -> None:
    with pytest.raises(AssertionError, match="txt differs from that of an unbroken run"):
        program()


@pytest.mark.parametrize("program", ["raise SystemExit('no luck')"], indirect=True)
def test_a_program_that_fails_by_itself(program: Callable[[], Survived]) -> None:
    with pytest.raises(AssertionError, match="no luck"):
        program()
