"""Reference tables of the published code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toca.golden import find

DATA = find("pixart", Path(__file__).parent)


def golden_json(name: str) -> Any:
    return DATA.json(f"{name}.json")
