"""Files of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from toca.runs.prompts import read_prompts


def test_a_prompt_is_a_line_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff a fox 🦊 \r\n\r\n\t\na\x0cb\x85c\u2028d \x07\na fox 🦊".encode())
    assert read_prompts(str(path), "--txt_file") == ["a fox 🦊", "a\x0cb\x85c\u2028d \x07", "a fox 🦊"]


BAD = ((b"\n \n", "holds no prompt"), (b"", "holds no prompt"), (b"\xff\xfe", "is not UTF-8"), (None, "cannot be read"))


@pytest.mark.parametrize(("content", "problem"), BAD)
def test_files_without_prompts_are_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--txt_file .*prompts.txt {problem}"):
        read_prompts(str(path), "--txt_file")
