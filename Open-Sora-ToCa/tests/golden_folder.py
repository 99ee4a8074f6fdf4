"""Reference data: which folder, its cases and its tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).resolve().parent


def find_folder() -> Path:
    """TOCA_GOLDEN_DIR (an error without cases.json), else the full set beside the repository, else the subset in this one."""
    if given := os.environ.get("TOCA_GOLDEN_DIR"):
        if not (Path(given) / "cases.json").is_file():
            raise FileNotFoundError(f"TOCA_GOLDEN_DIR is {given}, where there is no cases.json")
        return Path(given)
    full = HERE.parents[2] / "shared" / "golden" / "opensora"
    return full if (full / "cases.json").is_file() else HERE / "golden"


GOLDEN = find_folder()


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def tensors(file: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / file)


CASES: dict[str, dict[str, Any]] = read_json("cases.json")
