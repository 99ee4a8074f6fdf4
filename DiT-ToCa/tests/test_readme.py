"""The READMEs name flags and presets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dit import bench
from dit.flags import demo_parser, download_parser, sample_ddp_parser, sample_parser
from dit.training.flags import train_parser
from toca.presets import DIT, FLUX_DEV

FORK = Path(__file__).parents[1]
READMES = (FORK / "README.md", FORK.parent / "README.md")
FOREIGN = {"--nproc_per_node", "--help", "--json", "--png", "--depth"}  # of torchrun, of `toca`, of another fork's benchmark
SAMPLING_AND_TRAINING = (sample_parser, sample_ddp_parser, train_parser)
PARSERS = (*SAMPLING_AND_TRAINING, demo_parser, bench.parser, download_parser)
FLAGS = {flag for parser in PARSERS for action in parser()._actions for flag in action.option_strings} | FOREIGN


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
    own = {flag for parser in SAMPLING_AND_TRAINING for action in parser()._actions for flag in action.option_strings}
    missing = {flag for flag in own if flag.startswith("--") and flag not in text}
    assert missing <= {"--help", "--no-ddim-sample"}, sorted(missing)
