"""The README names flags, presets and files that exist, and all flags of the programs."""

from __future__ import annotations

import importlib.util
import re

from tiny_parts import FORK

import sample
from pixart import runs
from toca.presets import PIXART

TEXT = (FORK / "README.md").read_text()
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
    named = {*re.findall(r"(?:scripts|tools|asset|pixart)/[\w/]+\.\w+", TEXT), *re.findall(r"`(sample\.py)`", TEXT)}
    assert len(named) > 10 and all((FORK / name).exists() for name in named), named
