"""Every conda environment installs exactly the requirement file that `make` and CI install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "environments"
ENVIRONMENTS = sorted(FOLDER.glob("*.yml"))
REQUIREMENTS = sorted(FOLDER.glob("requirements-*.txt"))


def pip_part(path: Path) -> list[str]:
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return pip


def requirements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def test_there_is_an_environment_for_dit() -> None:
    assert FOLDER / "environment-dit.yml" in ENVIRONMENTS


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_installs_the_shared_requirement_file(path: Path) -> None:
    model = path.stem.removeprefix("environment-")
    assert pip_part(path) == [f"-r requirements-{model}.txt"]
    assert (FOLDER / f"requirements-{model}.txt").exists()
    assert f"requirements-{model}.txt" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_an_environment_pins_its_python_and_can_run_pip(path: Path) -> None:
    plain = [entry for entry in yaml.safe_load(path.read_text())["dependencies"] if isinstance(entry, str)]
    assert "pip" in plain
    assert any(re.fullmatch(r"python=3\.\d+", entry) for entry in plain)


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pinned_and_name_no_address(path: Path) -> None:
    lines = requirements(path)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line), line
