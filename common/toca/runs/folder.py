"""A folder of outputs that an interrupted run goes on with: one file per item, a manifest beside them, one run at a time."""

from __future__ import annotations

import json
import platform
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from tqdm.auto import tqdm

from toca.runs.files import atomic_path, remove_parts
from toca.runs.processes import barrier

MANIFEST, LOCK = "manifest.json", ".lock"
Item = TypeVar("Item")


class RunFolder:
    """The outputs of one run, opened before its networks load.

        with RunFolder(path, settings, rank=rank, world=world) as folder:
            folder.sample(batches_of(num, batch, rank, world), file_of, make, save)

    path: made if it is not there.
    settings: everything that decides the outputs, as JSON has it; a folder made with others is refused. None: every output says itself
        what made it, and readers may take all files of the folder for outputs, so that neither manifest nor lock stays behind.
    extra: noted in the manifest beside them.
    outputs: a glob for the outputs, which a folder without manifest must not hold.
    Raises ValueError on entry if the folder holds a run with other settings or another run is at work there, OSError if it cannot be
    written to. Processes of a run enter and leave together.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any] | None,
        extra: Mapping[str, Any] | None = None,
        outputs: str = "[0-9]*.png",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.path, self.settings, self.extra, self.outputs = path, settings, extra or {}, outputs
        self.rank, self.world, self.made = rank, world, 0
        self._lock = FileLock(path / LOCK, timeout=0)

    def __enter__(self) -> RunFolder:
        self._started = time.time()
        known = self.settings is None or check_manifest(self.path, self.settings, self.outputs)
        barrier()  # all have read what rank 0 now writes
        if self.rank == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise ValueError(f"another run is at work in {self.path}: wait for it, or choose another folder") from error
            remove_parts(self.path)
            if not known:
                self._write(None, anew=True)
        barrier()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            barrier()  # all have written their items
            if self.rank == 0 and self.settings is not None:
                self._write(dict(items_of_rank_0=self.made, processes=self.world, seconds=round(time.time() - self._started, 2)))
        if self.rank == 0 and self.settings is None:
            (self.path / LOCK).unlink(missing_ok=True)
        self._lock.release()

    def sample(
        self,
        batches: Iterable[Sequence[int]],
        file_of: Callable[[int], Path | None],
        make: Callable[[list[int]], Iterable[Item]],
        save: Callable[[int, Item], None],
        unit: str = "image",
    ) -> None:
        """Make the batches of this process that lack a file.

        file_of: the file of an item, None for a surplus one that is made with its batch and not kept. make: items -> an output of each.
        save: writes an output whole or not at all. A batch that lacks a file is made with all its items, because rounding may depend on
        the batch: a resumed run makes the same bytes as an unbroken one.
        """
        todo = [(list(indices), lacking) for indices in batches if (lacking := self.lacking(indices, file_of))]
        total = sum(len(lacking) for _, lacking in todo)
        with tqdm(total=total, unit=unit, disable=self.rank != 0, desc=f"process 0 of {self.world}") as progress:
            for indices, lacking in todo:
                for index, output in zip(indices, make(indices), strict=True):
                    if index in lacking:
                        save(index, output)
                self.made += len(lacking)
                progress.update(len(lacking))

    @staticmethod
    def lacking(indices: Iterable[int], file_of: Callable[[int], Path | None]) -> set[int]:
        """Those of the items whose file is not there."""
        return {index for index in indices if (path := file_of(index)) and not path.exists()}

    def _write(self, run: Mapping[str, Any] | None, anew: bool = False) -> None:
        path = self.path / MANIFEST
        runs = read_manifest(path)["runs"] if path.exists() and not anew else []
        content = dict(
            settings=dict(self.settings or {}),
            **self.extra,
            versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__, pillow=Image.__version__),
            runs=runs + ([dict(run)] if run else []),
        )
        with atomic_path(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest. Raises ValueError that names the file and what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, no JSON ({error}): remove it or choose another folder") from error
    for key, kind in (("settings", dict), ("runs", list)):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ValueError(f"{path} is no manifest of ours: it lacks {key!r}; remove it or choose another folder")
    return content


def check_manifest(folder: Path, settings: Mapping[str, Any], outputs: str = "[0-9]*.png") -> bool:
    """Make sure that a folder holds no outputs, or those of the same run; `RunFolder` does, and a program may earlier.

    Returns whether its manifest is that of the run. Raises ValueError if outputs are there of another run, or of nobody knows what.
    """
    path = folder / MANIFEST
    empty = next(folder.glob(outputs), None) is None
    if not path.exists():
        if not empty:
            raise ValueError(f"{folder} holds pictures but no {MANIFEST}: remove it or choose another folder")
        return False
    before, now = read_manifest(path)["settings"], json.loads(json.dumps(settings))
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing and not empty:
        changes = "; ".join(f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in differing)
        raise ValueError(f"{folder} holds samples of a run with other settings ({changes}): remove it or choose another folder")
    return not differing


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:56] + "..."


def write_npz(folder: Path, num: int, path: Path) -> None:
    """`arr_0`, uint8 (num, H, W, 3), from the PNGs of a folder, one picture in memory at a time; the bytes depend on the pictures alone.

    Raises ValueError if a picture is missing or has another size than the first.
    """
    if missing := [index for index in range(num) if not (folder / f"{index:06d}.png").exists()]:
        raise ValueError(f"{folder} lacks {len(missing)} of {num} pictures, first {missing[0]:06d}.png: run the same command again")
    remove_parts(path.parent, path.stem)
    with Image.open(folder / f"{0:06d}.png") as first:
        width, height = first.size
    header = dict(descr="|u1", fortran_order=False, shape=(num, height, width, 3))
    entry = zipfile.ZipInfo("arr_0.npy")  # stored, dated 1980
    with (
        atomic_path(path) as part,
        zipfile.ZipFile(part, "w") as archive,
        archive.open(entry, "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(num):
            with Image.open(folder / f"{index:06d}.png") as picture:
                if picture.size != (width, height):
                    raise ValueError(f"{folder}/{index:06d}.png is {picture.size}, the first picture {(width, height)}")
                file.write(np.asarray(picture.convert("RGB")).tobytes())
