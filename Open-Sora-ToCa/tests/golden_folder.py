"""The reference data: which folder, its cases and its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toca.testing.golden import find

DATA = find("opensora", Path(__file__).parent)
GOLDEN, read_json, tensors = DATA.folder, DATA.json, DATA.tensors
CASES: dict[str, dict[str, Any]] = read_json("cases.json")
