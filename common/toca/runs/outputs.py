"""Whether outputs can be written, found out before they are made, and without leaving anything."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

LONGEST_NAME = 255  # bytes that file systems take
TEMPORARY = 20  # of which `atomic_path` needs so many beside a file's name


def check_folder(path: Path, flag: str, needed: int = 0) -> None:
    """Make sure that a folder is there or can be made, can be written to, and that its disk has room for `needed` bytes.

    flag: names it in the error. Raises ValueError.
    """
    check_names(path, flag)
    try:
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir():
            raise ValueError(f"{flag} {path}: {above} is a file, not a folder")
        tempfile.TemporaryFile(dir=above).close()
        free = shutil.disk_usage(above).free
    except OSError as error:
        raise ValueError(f"{flag} {path} cannot be written to: {error.strerror}") from error
    if free < needed:
        raise ValueError(f"{flag} {path}: this run writes about {size(needed)}, and the disk has {size(free)} free")


def check_file(path: Path, flag: str, needed: int = 0, endings: Collection[str] = ()) -> None:
    """Make sure that a file can be written, in a folder that is there or can be made. Raises ValueError.

    endings: of which its name must have one, if there are any.
    """
    check_names(path, flag, TEMPORARY)
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{flag} {path}: the name must end in {' or '.join(endings)}")
    if path.is_dir():
        raise ValueError(f"{flag} {path} is a folder: give the name of a file")
    check_folder(path.parent, flag, needed)


def check_names(path: Path, flag: str, beside: int = 0) -> None:
    """Raises ValueError if a path has a part that is no name. beside: bytes that the last one must leave."""
    for name in path.parts:
        if "\0" in name or len(os.fsencode(name)) > LONGEST_NAME - (beside if name == path.name else 0):
            shown = name if len(name) <= 40 else f"{name[:36]}..."
            raise ValueError(f"{flag}: {shown!r} is no name that a file can have")


def size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
