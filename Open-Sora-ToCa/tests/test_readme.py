"""The README names flags and presets that exist, and all of them."""

from __future__ import annotations

import re
import shlex

import pytest
from programs import ROOT

from opensora.flags import parse, parser
from toca.presets import OPENSORA

README = (ROOT / "README.md").read_text()
FLAGS = {flag for action in parser("sample.mp4")._actions for flag in action.option_strings}
FOREIGN = {"--nproc_per_node"}
DEVICES = {"cpu", "cuda"}


def test_flags() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z]\w*", README))
    assert named <= FLAGS | FOREIGN, sorted(named - FLAGS)
    assert {flag for flag in FLAGS if flag.startswith("--")} - named <= {"--help"}


def test_presets() -> None:
    named = set(re.findall(r"--preset ([a-z0-9-]+)", README))
    assert named and named <= OPENSORA.keys()


def test_configurations() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.py", README))
    assert named and all((ROOT / path).is_file() for path in named)


def commands() -> list[list[str]]:
    """Every command line of the README's blocks, as words."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


PARSED = [words for words in commands() if "scripts/inference.py" in words or "sample.py" in words[:2]]


@pytest.mark.parametrize("words", PARSED, ids=" ".join)
def test_commands_are_taken(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(ROOT)
    if "sample.py" in words:
        parse(["configs/opensora-v1-2/inference/sample.py", *words[2:]], output="sample.mp4")
    else:
        parse(words[words.index("scripts/inference.py") + 1 :])


def test_there_are_commands() -> None:
    assert len(PARSED) >= 9


def test_values() -> None:
    """What a row of the table of flags has in code, and is no flag, is a value that one of its flags takes."""
    actions = {option: action for action in parser("sample.mp4")._actions for option in action.option_strings}
    checked = 0
    for row in re.findall(r"^\| (`--.*) \|$", README, re.MULTILINE):
        named, *cells = row.split(" | ")
        allowed = [action.choices for flag in re.findall(r"`(--[\w-]+)`", named) if (action := actions[flag]).choices]
        words = re.findall(r"`([\w.-]+)`", " ".join(cells))
        if allowed and words:
            assert all(any(word in choices for choices in (*allowed, DEVICES)) for word in words), row
            checked += len(words)
    assert checked >= 12
