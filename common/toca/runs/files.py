"""Files that are either whole or not there."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the name `path` when the block ends without an error, and goes otherwise.

    No reader, no crash and no second process ever meets half a file. A killed process leaves at most its hidden temporary file, which
    `remove_parts` clears away.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A name beside `path` that no other process uses, for what is to become it."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")


def take_name(part: Path, name: Callable[[int], Path], first: int = 0) -> Path:
    """Give a finished file the first of numbered names that is free, and return it. Of processes that do so at once each takes another."""
    for index in itertools.count(first):
        path = name(index)
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            os.replace(part, path)
        part.unlink(missing_ok=True)
        return path
    raise AssertionError("numbers do not end")


def remove_parts(folder: str | Path, stem: str | None = None) -> None:
    """Remove what killed processes left of `atomic_path` in a folder: of the files named `stem`, or of all.

    Call it only while no other process writes there.
    """
    name = "*" if stem is None else glob.escape(stem)
    for part in Path(folder).glob(f".{name}.{'[0-9a-f]' * 8}.part*"):
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes the name `path` when the block ends without an error, and goes otherwise.

    Raises OSError if `path` is a file or a folder that is not empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
