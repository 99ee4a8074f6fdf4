"""Result files say which commit made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from toca.runs.bench import commit


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_names_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "One")
    made = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == made
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{made}+"


def test_outside_of_a_checkout_there_is_none(tmp_path: Path) -> None:
    assert commit(tmp_path) is None and commit(tmp_path / "nowhere") is None
