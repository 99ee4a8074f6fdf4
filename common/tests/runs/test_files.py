from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from toca.runs.files import atomic_folder, atomic_path, remove_parts


def test_the_file_appears_whole_and_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as part:
        part.write_text("half")
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_a_part_that_can_be_removed(tmp_path):
    code = (
        "import os, signal, sys; from toca.runs.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part: part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"]).returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left != "a.txt"
    remove_parts(tmp_path)
    assert os.listdir(tmp_path) == []


def test_removing_parts_touches_nothing_else(tmp_path):
    kept = [".hidden", "a.png", "a.part", ".b.part.png", ".other.0123abcd.part.npz"]
    for name in [*kept, ".x[1].0123abcd.part.npz"]:
        (tmp_path / name).touch()
    remove_parts(tmp_path, "x[1]")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    remove_parts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept[:-1])
    remove_parts(tmp_path / "absent")


def test_a_folder_appears_whole_and_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder"
    with atomic_folder(path) as part:
        (part / "a").write_text("1")
        assert not path.exists()
    assert os.listdir(path) == ["a"] and os.listdir(path.parent) == ["folder"]
    with pytest.raises(OSError), atomic_folder(path) as part:
        (part / "b").write_text("2")
    assert os.listdir(path) == ["a"] and os.listdir(path.parent) == ["folder"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "other") as part:
        (part / "b").write_text("2")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["new"]
