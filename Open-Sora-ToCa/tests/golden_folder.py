"""The reference data: which folder, its cases and its tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from toca.testing.golden import find

DATA = find("opensora", Path(__file__).parent)
GOLDEN, read_json, tensors = DATA.folder, DATA.json, DATA.tensors
CASES: dict[str, dict[str, Any]] = read_json("cases.json")
GIVEN = "TOCA_GOLDEN_DIR" in os.environ  # a folder of somebody's, which need not hold cases of every kind
HELPERS: dict[str, Any] = read_json("inference_helpers.json") if (GOLDEN / "inference_helpers.json").exists() else {}
MODULES: dict[str, Tensor] = tensors("modules.safetensors") if "modules" in CASES else {}  # single functions
WITH_HELPERS = pytest.mark.skipif(not HELPERS, reason="the folder has no cases of prompts and masks")
WITH_MODULES = pytest.mark.skipif(not MODULES, reason="the folder has no cases of single functions")
