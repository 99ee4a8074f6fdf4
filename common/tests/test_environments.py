"""Every conda environment installs exactly the requirement file that `make` and CI install, and that file has what the fork imports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import tomllib
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "environments"
FORKS = {"dit": "DiT-ToCa", "pixart": "PixArt-alpha-ToCa", "opensora": "Open-Sora-ToCa", "flux": "flux-ToCa"}
ENVIRONMENTS = [*FOLDER.glob("*.yml"), *(ROOT / fork / "environment.yml" for fork in FORKS.values())]
REQUIREMENTS = sorted(FOLDER.glob("requirements-*.txt"))
OPTIONAL = {"accelerate", "bitsandbytes", "colossalai", "imwatermark"}  # imported where they are there, or asked for by name


def pip_part(path: Path) -> list[str]:
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return pip


def requirements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def imported(folder: Path) -> set[str]:
    """Names of foreign packages that the files of a folder import, tests left out."""
    files = [path for path in folder.rglob("*.py") if "tests" not in path.relative_to(folder).parts]
    own = {path.stem for path in files} | {path.name for path in folder.rglob("*") if path.is_dir()}
    found: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - own - set(sys.stdlib_module_names) - {"toca"}


def distributions(names: Iterable[str]) -> set[str]:
    """What has to be installed for these imports."""
    homes = packages_distributions()
    return {canonical(homes.get(name, [name])[0]) for name in names}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=\[;!~]", name)[0]).lower()


def declared(project: Path) -> set[str]:
    return {canonical(line) for line in tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]}


@pytest.mark.parametrize("model", FORKS)
def test_an_environment_installs_the_shared_requirement_file(model: str) -> None:
    assert (FOLDER / f"requirements-{model}.txt").exists()
    assert f"requirements-{model}.txt" in (ROOT / "Makefile").read_text()
    assert pip_part(FOLDER / f"environment-{model}.yml") == [f"-r requirements-{model}.txt"]
    assert pip_part(ROOT / FORKS[model] / "environment.yml") == [f"-r ../environments/requirements-{model}.txt", "-e ../common", "-e ."]


@pytest.mark.parametrize("model", FORKS)
def test_what_a_fork_imports_is_required(model: str) -> None:
    required = {canonical(line) for line in requirements(FOLDER / f"requirements-{model}.txt")}
    fork = ROOT / FORKS[model]
    assert distributions(imported(fork)) - OPTIONAL <= required
    assert declared(fork) - {"toca-engine"} <= required
    assert declared(ROOT / "common") <= required


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
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
