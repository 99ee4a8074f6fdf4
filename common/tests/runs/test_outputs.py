"""What cannot be written is found before it is made, and looking leaves nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from toca.runs.outputs import check_file, check_folder
from toca.runs.pictures import check_picture


@pytest.mark.parametrize("name", ["", "new", "new/deep/er", "x" * 255, "ü" * 127])
def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path, name: str) -> None:
    check_folder(tmp_path / name, "--out")
    check_file(tmp_path / name / "file.bin", "--out")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_folder(Path("a/b"), "--out")
    check_file(Path("a.bin"), "--out")


@pytest.mark.parametrize("check", [check_folder, check_file])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/a/b", "file is a file, not a folder"),
        ("x" * 256 + "/a", "is no name that a file can have"),
        ("a" * 300, "is no name that a file can have"),
        ("ü" * 128, "is no name that a file can have"),
        ("a\0b", "is no name that a file can have"),
    ],
)
def test_what_cannot_be_a_place_is_refused(tmp_path: Path, check, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"--out.*{message}"):
        check(tmp_path / name, "--out")


def test_a_place_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--out .*file: .*file is a file, not a folder"):
        check_folder(tmp_path / "file", "--out")
    with pytest.raises(ValueError, match=r"--out .* is a folder: give the name of a file"):
        check_file(tmp_path, "--out")
    with pytest.raises(ValueError, match="no name that a file can have"):
        check_file(tmp_path / ("x" * 250), "--out")  # its temporary name is longer


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(ValueError, match=r"--out .*new cannot be written to: Permission denied"):
        check_folder(tmp_path / "new", "--out")


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**8, 10**8))
    check_folder(tmp_path, "--out", 10**8)
    with pytest.raises(ValueError, match=r"writes about 30\.0 GB, and the disk has 100\.0 MB free"):
        check_folder(tmp_path, "--out", 30 * 10**9)


def test_a_file_s_name_may_have_to_end_in_one_of_some(tmp_path: Path) -> None:
    check_file(tmp_path / "a.SAFETENSORS", "--out", endings=(".pt", ".safetensors"))
    with pytest.raises(ValueError, match=r"--out .*a.pth: the name must end in \.pt or \.safetensors"):
        check_file(tmp_path / "a.pth", "--out", endings=(".pt", ".safetensors"))


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "deep/a.webp", "a.bmp"])
def test_pictures_that_can_be_written(tmp_path: Path, name: str) -> None:
    check_picture(tmp_path / name, "--output")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "a.txt", "a.psd", "a.safetensors", ".png", "a.xbm", "a.png.part"])
def test_names_of_no_picture_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"--output .*: not the name of a picture"):
        check_picture(tmp_path / name, "--output")
