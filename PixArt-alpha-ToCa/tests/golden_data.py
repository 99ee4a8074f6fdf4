"""The reference data: which folder, its cases and models, and the engine's methods for upstream's flags."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from diffusion.model.nets import PixArt, PixArtMS
from diffusion.model.nets.PixArt import position_table
from pixart_spec import PixArtConfig
from toca.methods import DuCa, Method, NoCaching, ToCa

HERE = Path(__file__).resolve().parent
FILES = {"README.md", "cases.json", "config.json"}
SETTINGS = {"weights", "model", "sampler", "steps", "batch", "cfg_scale", "latent_hw", "input_size", "uses_mask", "reference", "engine"}
SETTINGS |= {"step_decision"}
NOTES = {"noise_level", "min_score_gap", "selections_same_in_float64", "finite", "img_hw", "aspect_ratio"}


def find_folder() -> Path:
    """TOCA_GOLDEN_DIR (an error without cases.json), else the full set beside the repository, else the subset in this one."""
    if given := os.environ.get("TOCA_GOLDEN_DIR"):
        if not (Path(given) / "cases.json").is_file():
            raise FileNotFoundError(f"TOCA_GOLDEN_DIR is {given}, where there is no cases.json")
        return Path(given)
    full = HERE.parents[2] / "shared" / "golden" / "pixart"
    return full if (full / "cases.json").is_file() else HERE / "golden"


GOLDEN = find_folder()


def read_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


CASES: dict[str, dict[str, Any]] = read_json("cases.json")
CONFIGS: dict[str, dict[str, Any]] = read_json("config.json")


def tensors(file: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / file)


@cache
def load_model(file: str, input_size: int | None = None) -> PixArt:
    """The model of a weights file, in evaluation mode, with positions for latents of that side. Do not change it: it is shared."""
    fields = dict(CONFIGS[file])
    kind = fields.pop("model")
    config = PixArtConfig(**fields, micro_conditions=kind == "PixArtMS")
    weights = tensors(file)
    if input_size not in (None, config.input_size):
        config = config.replace(input_size=input_size)
        weights["pos_embed"] = position_table(config, config.grid())
    model = {"PixArt": PixArt, "PixArtMS": PixArtMS}[kind](config).eval()
    model.load_state_dict(weights)
    return model


class DecidedOncePerStep(ToCa):
    """Upstream, patched to decide once per step: all its accidents but the mixed steps."""

    def _phases(self, *args: Any) -> list[tuple[int, int]]:
        return [(first, first) for first, _ in super()._phases(*args)]


METHODS = {
    "original PixArt-alpha (no cache)": {None: NoCaching},
    "ToCa fork": {"per layer (upstream)": ToCa, "once per step": DecidedOncePerStep},
    "DuCa fork": {"none (interval is constant)": DuCa},
}


def method_of(case: dict[str, Any]) -> Method:
    """The engine's method for upstream's fork and flags; a case it does not understand is an error."""
    make = METHODS[case["reference"].split(",")[0]][case["step_decision"]]
    if make is NoCaching:
        assert case["engine"] is None
        return make()
    flags = dict(case["engine"])
    method = make(
        interval=flags.pop("fresh_threshold"),
        ratio=flags.pop("fresh_ratio"),
        ratio_schedule=flags.pop("ratio_scheduler"),
        score=flags.pop("cache_type"),
        soft_fresh_weight=flags.pop("soft_fresh_weight"),
        force_fresh=flags.pop("force_fresh"),
        upstream_exact=True,
    )
    assert not flags, f"flags this runner does not know: {flags}"
    return method
