"""Files of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from toca.runs.prompts import read_prompts


def test_a_prompt_is_a_line_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff a fox 🦊 \r\n\r\n\t\na\x0cb\x85c\u2028d \x07\na fox 🦊".encode())
    assert read_prompts(str(path), "--txt_file") == ["a fox 🦊", "a\x0cb\x85c\u2028d \x07", "a fox 🦊"]


def test_lines_end_as_on_any_system_and_joined_files_leave_no_marks(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa\rb\r\n\r\n\ufeffc\n\ufeff\n".encode())
    assert read_prompts(str(path), "--txt_file") == ["a", "b", "c"]


def test_long_prompts_are_read(tmp_path: Path) -> None:
    path, prompt = tmp_path / "prompts.txt", "a fox, é " * 7000 + "end"
    path.write_text(f"{prompt}\n{prompt}", encoding="utf-8")
    assert read_prompts(str(path), "--txt_file") == [prompt, prompt]


BAD = (
    (b"\n \n", "holds no prompt"),
    (b"", "holds no prompt"),
    (b"\xef\xbb\xbf\n", "holds no prompt"),
    (b"\xff\xfe", "is not UTF-8"),
    ("a fox\nb".encode("utf-16"), "is not UTF-8 text but UTF-16"),
    (b"a\nb\ncaf\xe9", "is not UTF-8 text: line 3 holds the byte 0xe9"),
    (b"a\r\nb\0c", "is no text: line 2 holds a NUL"),
    (None, "cannot be read"),
)


@pytest.mark.parametrize(("content", "problem"), BAD)
def test_files_without_prompts_are_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--txt_file .*prompts.txt {problem}"):
        read_prompts(str(path), "--txt_file")
