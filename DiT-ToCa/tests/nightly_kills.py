"""sample_ddp.py and train.py killed forty times each: `make nightly`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tiny import FORK, SIXTEEN_STEPS, save_dit

from toca.testing.kills import survives


def test_samples_for_fid(tmp_path: Path) -> None:
    ckpt = save_dit(tmp_path / "mini.safetensors")

    def line(folder: Path) -> list[str]:
        model = ["--model", "DiT-mini", "--image-size", "8", "--ckpt", ckpt, "--device", "cpu", *SIXTEEN_STEPS]
        return [
            sys.executable,
            str(FORK / "sample_ddp.py"),
            *model,
            "--num-fid-samples",
            "40",
            "--per-proc-batch-size",
            "4",
            "--sample-dir",
            str(folder),
        ]

    survived = survives(line, tmp_path / "work", "**/*.[pn][np][gz]")
    assert survived.kills == 40 and survived.files == 41


def test_training(tmp_path: Path) -> None:
    def line(folder: Path) -> list[str]:
        data = ["--data-path", "shapeworld", "--model", "DiT-mini", "--image-size", "8", "--device", "cpu", "--global-batch-size", "4"]
        run = ["--max-steps", "30", "--ckpt-every", "3", "--log-every", "3", "--results-dir", str(folder)]
        saved = sorted(folder.glob("*/checkpoints/[0-9]*.pt"))
        if not saved:
            shutil.rmtree(folder, ignore_errors=True)  # or the next run would be another experiment
        return [sys.executable, str(FORK / "train.py"), *data, *run, *(["--resume", str(saved[-1])] if saved else [])]

    survived = survives(line, tmp_path / "work", "*/checkpoints/*.safetensors")
    assert survived.kills == 40 and survived.files == 10
