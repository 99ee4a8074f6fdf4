"""The README names flags, presets and files that exist, and all flags of the programs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from tiny_parts import FORK

import sample
from pixart import runs
from pixart.flags import parse
from toca.presets import PIXART

TEXT = (FORK / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
FOREIGN = {"--nproc_per_node", "--ar", "--aspect_ratio", "--hw"}  # of torchrun, and inside prompts


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, FORK / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags_of(*parsers) -> set[str]:
    return {flag for parser in parsers for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


PROGRAMS = flags_of(runs.parser(), sample.parser())
TOOLS = flags_of(*(tool(path.stem).parser() for path in sorted((FORK / "tools").glob("*.py"))))


def test_every_flag_of_the_readme_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", TEXT))
    assert named <= PROGRAMS | TOOLS | FOREIGN, sorted(named - PROGRAMS - TOOLS - FOREIGN)


def test_every_flag_of_the_programs_is_in_the_readme() -> None:
    assert not {flag for flag in PROGRAMS - {"--help"} if f"`{flag}`" not in TEXT}


def test_every_preset_exists() -> None:
    named = set(re.findall(r"--preset ([a-z0-9-]+)", TEXT))
    assert named and named <= PIXART.keys()


def test_every_file_exists() -> None:
    named = {*re.findall(r"(?:scripts|tools|asset)/[\w/]+\.\w+", TEXT), *re.findall(r"`(sample\.py)`", TEXT)}
    package = TEXT[TEXT.index("| in `pixart/` |") : TEXT.index("## Install")]
    named |= {f"pixart/{name}" for name in re.findall(r"`(\w+\.py|solvers/)`", package)} - {"pixart/sample.py"}
    assert len(named) > 18 and all((FORK / name).exists() for name in named), named


COMMANDS = [shlex.split(line.split(" # ")[0]) for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
RUNS = [(path, words[i + 1 :]) for words in COMMANDS for i, path in enumerate(words) if path.endswith(".py")]


@pytest.mark.parametrize(("path", "argv"), RUNS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60])
def test_every_command_is_taken_by_its_program(path: str, argv: list[str]) -> None:
    """With its values: presets, choices, numbers."""
    program = sample if path == "sample.py" else tool(Path(path).stem) if path.startswith("tools") else runs
    args = program.parser().parse_args(argv)
    if program in (sample, runs):
        parse(program.parser(), argv)
    assert args


def test_commands_are_there() -> None:
    assert len(RUNS) >= 9 and {path for path, _ in RUNS} >= {"sample.py", "scripts/inference.py", "scripts/inference_ddp.py"}


def test_every_value_of_a_flag_exists() -> None:
    """The words in a row of the table of flags are choices of its flags, where these have choices alone."""
    actions = {flag: action for action in runs.parser()._actions for flag in action.option_strings}
    checked = 0
    for row in re.findall(r"^\| (`--.*) \|$", TEXT, re.MULTILINE):
        flags = re.findall(r"`(--\w+)`", row.split(" | ")[0])
        if flags and all(actions[flag].choices for flag in flags):
            words = re.findall(r"`([\w.-]+)`", row.partition(" | ")[2])
            allowed = {str(choice) for flag in flags for choice in actions[flag].choices}
            assert {word for word in words if not word.startswith("--")} <= allowed, row
            checked += 1
    assert checked >= 5
