"""scripts/inference.py killed forty times: `make nightly`. Pictures, because an encoder does not always make the same of small videos."""

from __future__ import annotations

import sys
from pathlib import Path

from programs import ROOT

from toca.testing.kills import survives


def test_pictures_of_prompts(config: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a lighthouse number {i}\n" for i in range(20)), encoding="utf-8")

    def line(folder: Path) -> list[str]:
        size = ["--image-size", "16", "24", "--num-frames", "1", "--num-sampling-steps", "6", "--device", "cpu"]
        files = ["--prompt-path", str(prompts), "--save-dir", str(folder), "--num-sample", "2"]
        return [sys.executable, str(ROOT / "scripts" / "inference.py"), str(config), *size, *files]

    survived = survives(line, tmp_path / "work", "*.png", paths=[ROOT])
    assert survived.kills == 40 and survived.files == 40
