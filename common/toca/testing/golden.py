"""The reference data that a fork's tests replay: which folder, and what its files hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from toca.methods import Method, ToCa
from toca.planning.schedule import Phase

CASES = "cases.json"
FLAGS = {flag.name: flag.field for flag in ToCa.flags if flag.in_name}  # upstream's -> ours


class DecidedOncePerStep:
    """Upstream, patched to decide once per step: all its accidents but the mixed steps. To be mixed into a method."""

    def _phases(self, *args: Any) -> list[Phase]:
        return [Phase(phase.first, phase.first) for phase in super()._phases(*args)]


def as_upstream(make: Callable[..., Method], flags: Mapping[str, Any], **more: Any) -> Method:
    """A method with upstream's flags and accidents. Raises ValueError on a flag that is missing or not understood."""
    if flags.keys() != FLAGS.keys():
        raise ValueError(f"flags this runner does not know, or misses: {sorted(flags.keys() ^ FLAGS.keys())}")
    return make(**{FLAGS[flag]: value for flag, value in flags.items()}, upstream_exact=True, **more)


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


def assert_close(actual: Tensor, reference: Tensor, tolerance: float = 0.0, name: str = "") -> None:
    """Every number is the reference's to `tolerance` times the reference's largest: another processor rounds otherwise, and the rounding
    of a sum is as large as its largest terms. A tolerance of 0: to the bit."""
    scale = reference.abs().max().item() if tolerance and reference.numel() else 1.0

    def explain(message: str) -> str:
        return f"{name}: {message}"

    torch.testing.assert_close(actual.to(reference.dtype), reference, atol=tolerance * scale, rtol=0, msg=explain)
