"""Reference tables of the published code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

GOLDEN = Path(os.environ.get("TOCA_GOLDEN_DIR") or Path(__file__).parent / "golden")


def golden_json(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())
