"""Installed from wheels, into an environment that has the dependencies alone, the engine and its forks run from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = ["common", "DiT-ToCa", "PixArt-alpha-ToCa", "Open-Sora-ToCa", "flux-ToCa"]
NOT_BUILT = shutil.ignore_patterns("tests", "weights", "assets", "benchmarks", "build", "docs", "*.egg-info", "__pycache__")
COMMANDS = [
    "plan dit --preset toca3-ddim50",
    "plan flux-dev --preset toca4-01",
    "flops opensora",
    "memory pixart",
    "table pixart",
    "bench dit --model DiT-S/8 --num-sampling-steps 2 --methods uncached",
    "bench pixart --depth 1 --step 2 --text_tokens 8 --methods uncached",
    "bench opensora --depth 1 --image-size 64 64 --num-frames 1 --num-sampling-steps 2 --methods uncached",
    "bench flux-dev --blocks 1 1 --steps 2 --width 64 --height 64 --txt_tokens 8 --runs none --dtype bf16",
]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-cache-dir", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PIP_NO_INDEX": "1"})


@pytest.fixture(scope="module")
def toca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `toca` of the installed wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in PROJECTS:
        shutil.copytree(ROOT / project, folder / project, ignore=NOT_BUILT)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "built", *(folder / project for project in PROJECTS))
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip("--python", python, "install", "--no-deps", *(folder / "built").glob("*.whl"))
    return python.with_name("toca")


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: " ".join(line.split()[:2]))
def test_a_command_works_where_no_source_is(line: str, toca: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([toca, *line.split()], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    written = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")]
    assert [name.split("/")[0] for name in written] == ["benchmarks"] * line.startswith("bench"), written


def test_the_engine_is_told_from_another_package_of_its_name(toca: Path, tmp_path: Path) -> None:
    (tmp_path / "toca").mkdir()
    (tmp_path / "toca" / "__init__.py").touch()
    done = subprocess.run([toca.with_name("python"), "-c", "import dit"], cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: the engine is missing: pip install -e common" in done.stderr
