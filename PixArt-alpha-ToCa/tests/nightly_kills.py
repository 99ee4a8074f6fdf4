"""scripts/inference.py killed forty times: `make nightly`."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_parts import FORK, flags

from toca.testing.kills import survives


def test_a_prompt_file(parts: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a fox number {i}\n" for i in range(24)), encoding="utf-8")

    def line(folder: Path) -> list[str]:
        out = ["--txt_file", str(prompts), "--output_dir", str(folder), "--save_name", "run", "--bs", "2", "--npz"]
        program = [sys.executable, str(FORK / "tests" / "tiny_program.py"), "scripts/inference.py"]
        return [*program, *flags(parts, folder.parent / f"{folder.name}-texts", *out)]

    survived = survives(line, tmp_path / "work", "**/*.[pn][np][gz]")
    assert survived.kills == 40 and survived.files == 25
