"""Upstream's import paths and ways to start its programs, from the fork's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FORK = Path(__file__).parents[1]


def test_import_paths() -> None:
    from flux.util import configs

    assert "flux-dev" in configs and all(locals().values())


@pytest.mark.parametrize("command", ["-m src.flux.cli", "-m src.flux.cli_fill", "-m flux redux", "src/geneval_flux.py"])
def test_programs_start_from_the_forks_folder(command: str) -> None:
    """Every one answers."""
    done = subprocess.run([sys.executable, *command.split(), "--num_steps", "0"], cwd=FORK, capture_output=True, text=True)
    assert done.returncode == 2 and "--num_steps: must be a whole number of 1 to 1000" in done.stderr
