"""Reference tables of the published code."""

from __future__ import annotations

from typing import Any

from golden_data import read_json


def golden_json(name: str) -> Any:
    return read_json(f"{name}.json")
