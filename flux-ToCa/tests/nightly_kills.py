"""src/sample.py and src/geneval_flux.py killed forty times each: `make nightly`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_programs import parts, tiny

from toca.testing.kills import survives

__all__ = ["parts", "tiny"]
TESTS = Path(__file__).resolve().parent


def program(name: str, *flags: str) -> list[str]:
    return [sys.executable, str(TESTS / "tiny_main.py"), name, *flags]


@pytest.mark.parametrize("name, files", [("sample", 40), ("geneval", 12 * 4)])
def test_many_pictures(name: str, files: int, tiny: list[str], tmp_path: Path) -> None:
    prompts, metadata = tmp_path / "prompts.txt", tmp_path / "metadata.jsonl"
    prompts.write_text("".join(f"a fox number {i}\n" for i in range(20)), encoding="utf-8")
    metadata.write_text(
        "".join(json.dumps(dict(prompt=f"a fox number {i}", tag="single_object")) + "\n" for i in range(12)), encoding="utf-8"
    )
    own = {
        "sample": ["--prompt_file", str(prompts), "--num_images_per_prompt", "2"],
        "geneval": [str(metadata), "--n_samples", "2"],
    }

    def line(folder: Path) -> list[str]:
        return program(name, *own[name], *tiny, "--batch_size", "2", "--output_dir", str(folder))

    outputs = "img_*.jpg" if name == "sample" else "[0-9]*/**/*"
    survived = survives(line, tmp_path / "work", outputs, paths=[TESTS, TESTS.parent / "src"])
    assert survived.kills == 40 and survived.files == files
