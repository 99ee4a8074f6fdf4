"""Reference data of the parts around the model: which folder, and the published checkpoints' keys."""

from __future__ import annotations

import json
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def find_folder() -> Path:
    """TOCA_GOLDEN_DIR, else the full set beside the repository, else the copy in this one. All hold sampling_utils.* and ae_*."""
    if given := os.environ.get("TOCA_GOLDEN_DIR"):
        return Path(given)
    full = HERE.parents[2] / "shared" / "golden" / "flux"
    return full if (full / "cases.json").is_file() else HERE / "golden"


GOLDEN = find_folder()


def manifest(name: str) -> dict[str, list[int]]:
    """Key -> shape of a published checkpoint."""
    return json.loads((HERE / "golden" / "checkpoint_keys.json").read_text())[name]
