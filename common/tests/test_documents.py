"""What READMEs and documentation show works: Python as pasted, every `toca` command, every link to a file."""

from __future__ import annotations

import importlib
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from toca.cli.main import command_line, main

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*-ToCa/README.md"), *(ROOT / "common" / "docs").rglob("*.md")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXTENSION = ("turns", "tiny")  # of pages that show what test_extension.py adds


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of a page's fenced blocks, but for those that include a file."""
    return [(language, text) for language, text in BLOCK.findall(page.read_text()) if "--8<--" not in text]


def cases(found: list[tuple[Path, str]]) -> list[object]:
    return [pytest.param(text, id=f"{page.relative_to(ROOT)}-{text.splitlines()[0][:40]}") for page, text in found]


PYTHON = [(page, text) for page in PAGES for language, text in blocks(page) if language == "python"]
SHOWN = [line for page in PAGES for language, text in blocks(page) if not language for line in text.replace("\\\n", " ").splitlines()]
COMMANDS = sorted({line.split("#")[0].strip() for line in SHOWN if line.startswith("toca ")})


@pytest.mark.parametrize("text", cases(PYTHON))
def test_python_runs_as_pasted(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("line", [line for line in COMMANDS if not any(name in line for name in EXTENSION)])
def test_a_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that plan are run; others are parsed."""
    monkeypatch.chdir(tmp_path)
    _, command, *argv = shlex.split(line)
    if command == "bench":
        (entry,) = entry_points(group="toca.benchmarks", name=argv[0])
        importlib.import_module(entry.module).parser().parse_args(argv[1:])
    elif command in ("compare", "eval"):
        command_line().parse_args([command, *argv])
    else:
        main([command, *argv])
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_there_are_blocks_and_commands() -> None:
    assert len(PYTHON) >= 2 and len(COMMANDS) > 15
