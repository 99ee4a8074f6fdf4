from __future__ import annotations

import json
import os
import socket
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from toca.runs.runner import (
    MANIFEST,
    check_manifest,
    item_generators,
    item_seed,
    process_group,
    program_errors,
    sample_images,
    shards,
    user_errors,
    write_npz,
)


def picture(index: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)


class Recorder:
    """A sampler that notes which items it was asked for."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, indices: list[int]) -> np.ndarray:
        self.batches.append(list(indices))
        return np.stack([picture(index) for index in indices])


def run(folder, num=10, batch=3, rank=0, world=1, settings=None, **options) -> list[list[int]]:
    recorder = Recorder()
    sample_images(folder, num, batch, recorder, settings or {"seed": 0}, rank, world, **options)
    return recorder.batches


def test_item_seeds_never_change():
    assert item_seed(0, 0) == 3560153452049741418
    assert item_seed(1, 0) == 4432326512554026153
    assert len({item_seed(seed, index) for seed in range(20) for index in range(100)}) == 2000


def test_an_item_draws_the_same_in_any_batch():
    together = [torch.rand(2, generator=g) for g in item_generators(3, [5, 6, 7])]
    (alone,) = (torch.rand(2, generator=g) for g in item_generators(3, [6]))
    assert torch.equal(together[1], alone)
    assert not torch.equal(together[0], together[1])


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5))
def test_shards_cover_every_item_once(num, batch, world):
    items = [index for rank in range(world) for indices in shards(num, batch, rank, world) for index in indices]
    assert sorted(items) == list(range(len(items)))
    assert num <= len(items) < num + batch * world


def test_shards_are_upstreams():
    assert shards(7, 2, rank=1, world=2) == [[1, 3], [5, 7]]


def test_a_run_writes_pictures_and_a_manifest(tmp_path):
    assert run(tmp_path, extra={"tflops": 1.5}) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert sorted(os.listdir(tmp_path)) == [f"{i:06d}.png" for i in range(10)] + [MANIFEST]
    assert all(np.array_equal(np.asarray(Image.open(tmp_path / f"{i:06d}.png")), picture(i)) for i in range(10))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["settings"] == {"seed": 0} and manifest["tflops"] == 1.5 and manifest["num_images"] == 10
    assert manifest["versions"]["torch"] == torch.__version__
    assert [(r["processes"], r["batch"]) for r in manifest["runs"]] == [(1, 3)]


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
    assert sorted(os.listdir(tmp_path)) == [f"{i:06d}.png" for i in range(10)] + [MANIFEST]
    assert run(tmp_path) == []
    assert len(json.loads((tmp_path / MANIFEST).read_text())["runs"]) == 3


def test_whole_batches_sample_the_surplus_but_do_not_write_it(tmp_path):
    assert run(tmp_path, whole_batches=True) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert len(list(tmp_path.glob("*.png"))) == 10


def test_a_failing_sampler_leaves_what_was_done(tmp_path):
    def fail(indices):
        if 3 in indices:
            raise RuntimeError
        return Recorder()(indices)

    with pytest.raises(RuntimeError):
        sample_images(tmp_path, 10, 3, fail, {"seed": 0})
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


@pytest.mark.parametrize("error", [ValueError("a\nb"), FileNotFoundError("a b")])
def test_user_errors_are_one_line(error):
    @user_errors()
    def main():
        raise error

    with pytest.raises(SystemExit, match=r"^error: a b$"):
        main()


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), user_errors():
        raise KeyError


def test_exhausted_memory_and_an_interruption_are_one_line_too(capsys):
    with pytest.raises(SystemExit, match=r"^error: out of memory on the device: buy more \(tried 2 GB\)$"), program_errors("buy more"):
        raise torch.OutOfMemoryError("tried 2 GB\nlong story")
    with pytest.raises(SystemExit, match="130"), program_errors(""):
        raise KeyboardInterrupt
    assert "the same command goes on" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^error: a$"), program_errors(""):
        raise ValueError("a")


def test_a_folder_can_be_checked_before_long_work(tmp_path):
    check_manifest(tmp_path, {"seed": 0})
    run(tmp_path, settings={"seed": 0})
    check_manifest(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        check_manifest(tmp_path, {"seed": 1})


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
