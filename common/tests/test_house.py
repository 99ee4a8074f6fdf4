"""Who may import whom in `toca`, and what works without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import toca

ROOT = Path(toca.__file__).parent
MAY_IMPORT = {  # beside itself, `console`, and nothing else of toca
    "planning": set(),
    "methods": {"planning"},
    "presets": set(),
    "diffusion": set(),
    "shapeworld": set(),
    "metrics": {"loading", "runs"},
    "engine": {"planning"},
    "nn": {"engine"},
    "loading": set(),
    "runs": {"engine", "planning", "methods"},
    "training": {"runs", "loading", "planning", "engine", "shapeworld", "metrics"},
    "cli": {"planning", "methods", "presets", "metrics", "runs"},
    "testing": {"planning", "methods", "presets", "engine", "nn", "loading", "runs", "cli", "metrics"},
}
LEAVES = {"console"}
WITHOUT_TORCH = [
    "toca",
    "toca.console",
    "toca.planning",
    "toca.methods",
    "toca.presets",
    "toca.cli.flags",
    "toca.cli.forks",
    "toca.cli.main",
]


def imported(path: Path) -> set[str]:
    """The packages of toca that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "toca" else {node.module}
    return {name.split(".")[1] for name in found if name.startswith("toca.")}


def test_every_room_is_listed() -> None:
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == MAY_IMPORT.keys()
    assert {path.stem for path in ROOT.glob("*.py")} - {"__init__"} == LEAVES


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert imported(path) <= {room} | MAY_IMPORT[room] | LEAVES, path


def test_planning_and_command_lines_need_no_torch() -> None:
    modules = [
        *WITHOUT_TORCH,
        *(f"toca.{room}.{path.stem}" for room in ("planning", "methods", "presets") for path in (ROOT / room).glob("[a-z]*.py")),
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_public_face() -> None:
    assert all(getattr(toca, name) is not None for name in toca.__all__)
    assert set(dir(toca)) == set(toca.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        toca.nothing  # noqa: B018
