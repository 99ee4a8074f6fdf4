"""The READMEs name flags and presets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dit import bench
from dit.flags import demo_parser, download_parser, parse, sample_ddp_parser, sample_parser
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
    named = set(re.findall(r"--preset ([a-z0-9-]+)", readme.read_text(encoding="utf-8")))
    assert named and named <= DIT.keys() | FLUX_DEV.keys()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_flag_exists(readme: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]\w*", readme.read_text(encoding="utf-8")))
    assert named <= FLAGS, sorted(named - FLAGS)


def test_every_sampling_and_training_flag_is_in_the_readme() -> None:
    text = READMES[0].read_text(encoding="utf-8")
    own = {flag for parser in SAMPLING_AND_TRAINING for action in parser()._actions for flag in action.option_strings}
    missing = {flag for flag in own if flag.startswith("--") and flag not in text}
    assert missing <= {"--help", "--no-ddim-sample"}, sorted(missing)


PROGRAMS = {
    "sample": sample_parser,
    "sample_ddp": sample_ddp_parser,
    "train": train_parser,
    "demo": demo_parser,
    "download": download_parser,
}


def commands() -> list[tuple[str, list[str]]]:
    """(program, flags) of the command lines in the fork's README and in the model card."""
    text = READMES[0].read_text(encoding="utf-8") + (FORK / "weights" / "README.md").read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    shell: dict[str, str] = {}
    found = []
    for line in (line.split("#")[0] for line in lines):
        if assigned := re.fullmatch(r'(\w)="?([^"]*)"?\s*', line):
            shell[assigned[1]] = assigned[2].replace("$F", shell.get("F", ""))
        elif (match := re.search(r"(\w+)\.py (.*)", line)) and match[1] in PROGRAMS and "..." not in line:
            found.append((match[1], re.sub(r"\$(\w)", lambda name: shell[name[1]], match[2]).split()))
    return found


def test_every_command_line_is_one_that_the_program_takes() -> None:
    assert len(commands()) > 20
    for program, flags in commands():
        if program in ("sample", "sample_ddp"):
            parse(PROGRAMS[program](), flags)
        else:
            PROGRAMS[program]().parse_args(flags)


def test_values_in_the_tables_of_flags_are_choices() -> None:
    actions = [action for parser in SAMPLING_AND_TRAINING for action in parser()._actions if action.choices]
    choices = {flag: action.choices for action in actions for flag in action.option_strings}
    checked = set()
    for flag, text in re.findall(r"^\| `(--[\w-]+)` \| [^|]* \| (.*) \|$", READMES[0].read_text(encoding="utf-8"), re.MULTILINE):
        values = [value for value in re.findall(r"`([\w-]+)`", text) if not value.startswith("--")]
        if flag in choices and values:
            assert set(values) <= set(map(str, choices[flag])), (flag, values)
            checked.add(flag)
    assert {"--method", "--cache-type", "--ratio-scheduler", "--force-fresh", "--dtype"} <= checked
