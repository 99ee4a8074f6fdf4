"""The README names flags, values, presets, commands and files that exist, and all flags of the programs."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from flux import bench, cli, cli_control, cli_fill, cli_picture, cli_redux, geneval, runs
from flux.flags import flux_dev, parse
from toca.cli.main import COMMANDS, Request
from toca.presets import FLUX_DEV

FORK = Path(__file__).parents[1]
TEXT = (FORK / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
PROGRAMS = {
    "python -m flux fill": cli_fill.parser,
    "python -m flux control": cli_control.parser,
    "python -m flux redux": cli_redux.parser,
    "python -m flux t2i": cli.parser,
    "python -m flux": cli.parser,
    "python src/sample.py": runs.prompts_parser,
    "python src/geneval_flux.py": geneval.parser,
    "python sample.py": cli_picture.parser,
    "toca bench flux-dev": bench.parser,
}
COMMAND_LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.startswith(("python ", "toca "))]
ACTIONS = [action for program in PROGRAMS.values() for action in program()._actions]
FLAGS = {flag for action in ACTIONS for flag in action.option_strings if flag.startswith("--")}
FOREIGN = {"--nproc_per_node"}  # of torchrun


def test_there_are_command_lines() -> None:
    assert len(COMMAND_LINES) > 8


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_is_understood(line: str) -> None:
    """Its flags and their values."""
    name, command, *rest = shlex.split(line)
    if name == "toca" and command in COMMANDS:
        assert rest[0] == "flux-dev" and Request(command, rest[0], flux_dev, rest[1:]).run()
        return
    program = next(program for program in PROGRAMS if f"{line} ".startswith(f"{program} "))
    argv = shlex.split(line.removeprefix(program))
    if program == "toca bench flux-dev":
        bench.parser().parse_args(argv)
    else:
        parse(PROGRAMS[program](), argv)


def test_every_flag_of_the_readme_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", TEXT))
    assert named <= FLAGS | FOREIGN, sorted(named - FLAGS)


def test_every_flag_of_the_programs_is_in_the_readme() -> None:
    missing = {flag for flag in FLAGS - {flag for action in bench.parser()._actions for flag in action.option_strings} if flag not in TEXT}
    assert missing <= {"--help"}, sorted(missing)


def choices(action: argparse.Action) -> set[str]:
    return {str(choice) for choice in action.choices or ()}


def test_every_value_beside_a_flag_exists() -> None:
    """`--flag value` inside a sentence."""
    for flag, value in re.findall(r"`(--[\w-]+) ([^`\s]+)`", TEXT):
        allowed = set().union(*(choices(action) for action in ACTIONS if flag in action.option_strings))
        assert not allowed or value in allowed, (flag, value)


def test_the_choices_of_small_flags_are_listed() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| `--")]
    for flag in ("--method", "--dtype"):
        (row,) = (row for row in rows if f"`{flag}`" in row.split("|")[1])
        (action,) = (action for action in cli.parser()._actions if flag in action.option_strings)
        assert {value for value in choices(action) if f"`{value}`" in row} == choices(action)


def test_every_preset_exists() -> None:
    named = set(re.findall(r"--preset ([a-z0-9-]+)", TEXT))
    assert named and named <= FLUX_DEV.keys()


def test_every_file_exists() -> None:
    named = re.findall(r"`((?:src/|modules/)?[a-z_]+\.py)`", TEXT)
    assert len(named) > 15
    assert all((FORK / name).is_file() or (FORK / "src" / "flux" / name).is_file() for name in named), named
