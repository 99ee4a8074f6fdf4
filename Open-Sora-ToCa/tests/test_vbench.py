"""VBench: its prompts, its names, and a run of several processes that goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import ROOT, SMALL, alike, infer, names, run

from opensora.datasets.write_video import about_sample

LAUNCH = ROOT / "eval/vbench/launch.sh"


PATHS = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
ENVIRONMENT = os.environ | dict(PYTHONPATH=PATHS, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def launch(config: Path, *argv: object, **environment: object) -> subprocess.CompletedProcess:
    variables = ENVIRONMENT | {key: str(value) for key, value in (dict(PYTHON=sys.executable, CONFIG=config) | environment).items()}
    return subprocess.run(["bash", LAUNCH, *map(str, argv)], env=variables, capture_output=True, text=True)


def test_two_processes_make_what_one_makes(monkeypatch, config, tmp_path) -> None:
    info = tmp_path / "VBench_full_info.json"
    info.write_text(json.dumps([dict(prompt_en=prompt, dimension=["scene"]) for prompt in ("a fox", "a hen", "a fox")]))
    vbench = tmp_path / "vbench.py"
    vbench.write_text(config.read_text() + "num_sample = 2\nprompt_as_path = True\n")
    out, prompts = tmp_path / "out", tmp_path / "texts" / "all_dimension.txt"
    where = dict(SAVE_DIR=out, PROMPTS=prompts, VBENCH_INFO=info)
    done = launch(vbench, f"{config.parent}/stdit", 17, "opensora-ToCa", "480p", "9:16", 6, *SMALL[:3], GPUS=2, **where)
    assert done.returncode == 0, done.stderr
    assert prompts.read_text() == "a fox\na hen\na fox\n"
    assert names(out) == ["a fox-0.mp4", "a fox-1.mp4", "a hen-0.mp4", "a hen-1.mp4"]
    infer(monkeypatch, vbench, tmp_path / "alone", "--prompt-path", prompts, "--ckpt-path", f"{config.parent}/stdit")
    assert all(alike(out / name, tmp_path / "alone" / name) for name in names(out))
    (out / "a hen-1.mp4").unlink()
    infer(monkeypatch, vbench, out, "--prompt-path", prompts, "--ckpt-path", f"{config.parent}/stdit")
    assert alike(out / "a hen-1.mp4", tmp_path / "alone" / "a hen-1.mp4")
    assert not alike(out / "a hen-1.mp4", out / "a hen-0.mp4")


def test_a_wrong_command_says_what_a_right_one_is(config) -> None:
    done = launch(config, "checkpoint", 51)
    assert done.returncode == 2 and "launch.sh CKPT NUM_FRAMES MODEL_NAME" in done.stderr
    done = launch(config, "checkpoint", 51, "name", "480p")
    assert done.returncode == 2 and "RES needs a RATIO" in done.stderr


def test_without_vbench_its_list_of_prompts_is_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "vbench", None)
    for info in ((), (tmp_path / "none.json",)):
        with pytest.raises((SystemExit, ValueError), match=r"VBENCH_INFO|vbench"):
            run(monkeypatch, "eval/vbench/prompts.py", tmp_path / "out.txt", *info)
    (tmp_path / "other.json").write_text('[{"prompt": "a fox"}]')
    with pytest.raises(SystemExit, match="is not VBench's list of prompts"):
        run(monkeypatch, "eval/vbench/prompts.py", tmp_path / "out.txt", tmp_path / "other.json")
    assert not (tmp_path / "out.txt").exists()


def test_two_processes_share_a_video(monkeypatch, config, tmp_path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    flags = ("--save-dir", tmp_path / "out", "--prompt", "a fox", "--sequence-parallel", *SMALL, "--num-frames", "1")
    command = [*map(str, (*torchrun, ROOT / "scripts/inference.py", config, *flags))]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    infer(monkeypatch, config, tmp_path / "alone", "--prompt", "a fox", "--num-frames", "1")
    (name,) = names(tmp_path / "out")
    pictures = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("out", "alone")]
    assert abs(pictures[0] - pictures[1]).max() <= 1
    assert about_sample(tmp_path / "out" / name) == about_sample(tmp_path / "alone" / name)
