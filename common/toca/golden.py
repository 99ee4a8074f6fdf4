"""The reference data that a fork's tests replay: which folder, and what its files hold."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

CASES = "cases.json"


@dataclass(frozen=True)
class Golden:
    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / name)

    def metadata(self, name: str) -> dict[str, str]:
        """The notes in a safetensors file."""
        with safe_open(self.folder / name, "pt") as opened:
            return opened.metadata() or {}


def find(model: str, tests: Path) -> Golden:
    """The data of a model; tests: the folder of its fork's tests, inside the repository.

    Looked for in the folder TOCA_GOLDEN_DIR or its subfolder `model`, else in the full set beside the repository, else in `tests`.
    Raises FileNotFoundError if there is no cases.json.
    """
    if given := os.environ.get("TOCA_GOLDEN_DIR"):
        folders = [Path(given), Path(given) / model]
    else:
        folders = [tests.resolve().parents[2] / "shared" / "golden" / model, tests / "golden"]
    for folder in folders:
        if (folder / CASES).is_file():
            return Golden(folder)
    raise FileNotFoundError(f"there is no {CASES} in {' or '.join(map(str, folders))}")
