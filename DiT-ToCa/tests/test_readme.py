"""The READMEs name flags and presets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import demo
import download
import sample
import sample_ddp
import train
from dit import bench
from toca.presets import DIT, FLUX_DEV

FORK = Path(__file__).parents[1]
READMES = (FORK / "README.md", FORK.parent / "README.md")
FOREIGN = {"--nproc_per_node", "--help", "--json", "--png", "--depth"}  # of torchrun, of `toca`, of another fork's benchmark
PROGRAMS = (sample, sample_ddp, train, demo, bench, download)
FLAGS = {flag for program in PROGRAMS for action in program.parser()._actions for flag in action.option_strings} | FOREIGN


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_preset_exists(readme: Path) -> None:
    named = set(re.findall(r"--preset ([a-z0-9-]+)", readme.read_text()))
    assert named and named <= DIT.keys() | FLUX_DEV.keys()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_flag_exists(readme: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]\w*", readme.read_text()))
    assert named <= FLAGS, sorted(named - FLAGS)


def test_every_sampling_and_training_flag_is_in_the_readme() -> None:
    text = READMES[0].read_text()
    own = {flag for program in (sample, sample_ddp, train) for action in program.parser()._actions for flag in action.option_strings}
    missing = {flag for flag in own if flag.startswith("--") and flag not in text}
    assert missing <= {"--help", "--no-ddim-sample"}, sorted(missing)
