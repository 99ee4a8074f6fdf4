from __future__ import annotations

import json
import multiprocessing
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toca.runs.folder import LOCK, MANIFEST, RunFolder, check_manifest, write_npz
from toca.runs.pictures import save_picture
from toca.runs.processes import batches_of


def picture(index: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)


class Recorder:
    """A sampler that notes which items it was asked for."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, indices: list[int]) -> np.ndarray:
        self.batches.append(list(indices))
        return np.stack([picture(index) for index in indices])


def run(path, num=10, batch=3, rank=0, world=1, settings=None, sampler=None, extra=None) -> list[list[int]]:
    """A run of `num` pictures; returns the batches that were made."""
    recorder = sampler or Recorder()
    batches = [[i for i in indices if i < num] for indices in batches_of(num, batch, rank, world)]
    with RunFolder(path, settings or {"seed": 0}, extra, rank=rank, world=world) as folder:
        folder.sample(batches, lambda i: file_of(path, i), recorder, lambda i, image: save_picture(image, file_of(path, i)))
    return recorder.batches


def file_of(path: Path, index: int) -> Path:
    return path / f"{index:06d}.png"


def test_a_run_writes_pictures_and_a_manifest(tmp_path):
    assert run(tmp_path, extra={"tflops": 1.5}) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert sorted(os.listdir(tmp_path)) == [LOCK] + [f"{i:06d}.png" for i in range(10)] + [MANIFEST]
    assert all(np.array_equal(np.asarray(Image.open(tmp_path / f"{i:06d}.png")), picture(i)) for i in range(10))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["settings"] == {"seed": 0} and manifest["tflops"] == 1.5
    assert manifest["versions"]["torch"] == torch.__version__
    assert [(r["processes"], r["items_of_rank_0"]) for r in manifest["runs"]] == [(1, 10)]


def test_processes_share_the_work(tmp_path):
    assert run(tmp_path, rank=0, world=2) == [[0, 2, 4], [6, 8]]
    assert run(tmp_path, rank=1, world=2) == [[1, 3, 5], [7, 9]]
    assert len(list(tmp_path.glob("*.png"))) == 10


def test_resuming_samples_lacking_batches_whole_and_rewrites_nothing(tmp_path):
    run(tmp_path)
    for index in (4, 9):
        (tmp_path / f"{index:06d}.png").unlink()
    (tmp_path / ".000003.0123abcd.part.png").write_text("half")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[0-9]*.png")}
    assert run(tmp_path) == [[3, 4, 5], [9]]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(os.listdir(tmp_path)) == [LOCK] + [f"{i:06d}.png" for i in range(10)] + [MANIFEST]
    assert run(tmp_path) == []
    assert len(json.loads((tmp_path / MANIFEST).read_text())["runs"]) == 3


def test_a_run_that_made_nothing_leaves_the_folder_free(tmp_path):
    with pytest.raises(RuntimeError), RunFolder(tmp_path, {"seed": 0}):
        raise RuntimeError
    run(tmp_path, settings={"seed": 1})
    assert json.loads((tmp_path / MANIFEST).read_text())["settings"] == {"seed": 1}


def test_a_surplus_item_is_made_with_its_batch_but_not_kept(tmp_path):
    made = Recorder()
    with RunFolder(tmp_path, {}) as folder:
        folder.sample(
            [[8, 9, 10]], lambda i: file_of(tmp_path, i) if i < 10 else None, made, lambda i, x: save_picture(x, file_of(tmp_path, i))
        )
    assert made.batches == [[8, 9, 10]]
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_failing_sampler_leaves_what_was_done(tmp_path):
    def fail(indices):
        if 3 in indices:
            raise RuntimeError
        return Recorder()(indices)

    with pytest.raises(RuntimeError):
        run(tmp_path, sampler=fail)
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert run(tmp_path) == [[3, 4, 5], [6, 7, 8], [9]]


def test_a_folder_of_another_run_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        run(tmp_path, settings={"seed": 1})
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ValueError, match="pictures but no manifest"):
        run(tmp_path)


def test_npz_has_the_layout_of_the_evaluator(tmp_path):
    run(tmp_path / "s")
    write_npz(tmp_path / "s", 9, tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as data:
        assert data.files == ["arr_0"]
        assert data["arr_0"].dtype == np.uint8
        assert np.array_equal(data["arr_0"], np.stack([picture(i) for i in range(9)]))
    with zipfile.ZipFile(tmp_path / "s.npz") as archive:
        assert [i.compress_type for i in archive.infolist()] == [zipfile.ZIP_STORED]


def test_npz_bytes_depend_on_the_pictures_alone(tmp_path):
    for name, batch in (("a", 2), ("b", 5)):
        run(tmp_path / name, batch=batch)
        write_npz(tmp_path / name, 10, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npz_is_written_a_picture_at_a_time(tmp_path):
    size, num = 64, 100
    for index in range(num):
        Image.fromarray(picture(index, size)).save(tmp_path / f"{index:06d}.png")
    tracemalloc.start()
    write_npz(tmp_path, num, tmp_path / "s.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < num * size * size * 3 / 4


def test_npz_needs_every_picture_and_keeps_the_old_file_until_it_has_them(tmp_path):
    folder, path = tmp_path / "s", tmp_path / "s.npz"
    run(folder)
    path.write_text("old")
    (tmp_path / ".s.0123abcd.part.npz").touch()
    Image.fromarray(picture(0, 8)).save(folder / "000005.png")
    with pytest.raises(ValueError, match=r"000005.png is \(8, 8\)"):
        write_npz(folder, 10, path)
    (folder / "000007.png").unlink()
    with pytest.raises(ValueError, match="lacks 1 of 10 pictures, first 000007"):
        write_npz(folder, 10, path)
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["s", "s.npz"]


def test_a_folder_can_be_checked_before_long_work(tmp_path):
    check_manifest(tmp_path, {"seed": 0})
    run(tmp_path, settings={"seed": 0})
    check_manifest(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        check_manifest(tmp_path, {"seed": 1})


def _hold(path: Path, ready: multiprocessing.Event) -> None:
    with RunFolder(path, {"seed": 0}):
        ready.set()
        multiprocessing.Event().wait(60)


def test_one_run_at_a_time_until_its_process_is_gone(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    (tmp_path / ".000003.0123abcd.part.png").write_text("half")
    with pytest.raises(ValueError, match="another run is at work in"):
        run(tmp_path)
    assert (tmp_path / ".000003.0123abcd.part.png").exists()  # the other run's
    holder.kill()
    holder.join()
    assert len(run(tmp_path)) == 4


@pytest.mark.parametrize("content, message", [("{", "damaged, no JSON"), ("[]", "lacks 'settings'"), ('{"settings": {}}', "lacks 'runs'")])
def test_a_damaged_manifest_is_named(tmp_path, content, message):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=f"{MANIFEST} is.*{message}"):
        run(tmp_path)


def test_a_folder_whose_outputs_say_themselves_what_made_them(tmp_path):
    """Nothing but outputs stays, whatever else is there, and still one run at a time."""
    folder = tmp_path / "s"
    run(folder, settings={"seed": 0})
    before = (folder / MANIFEST).read_text()
    with RunFolder(folder, None), pytest.raises(ValueError, match="another run is at work in"), RunFolder(folder, None):
        pass
    (folder / MANIFEST).unlink()
    with RunFolder(folder, None):
        assert not (folder / MANIFEST).exists()
    assert before and all(path.suffix == ".png" for path in folder.iterdir())
