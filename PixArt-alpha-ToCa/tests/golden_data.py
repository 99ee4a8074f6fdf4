"""The reference data: which folder, its cases and models, and the engine's methods for upstream's flags."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pixart.model import PixArt, PixArtMS, position_table
from pixart.spec import PixArtConfig
from toca.methods import DuCa, Method, NoCaching, ToCa
from toca.testing.golden import DecidedOncePerStep, as_upstream, find

FILES = {"README.md", "cases.json", "config.json"}
SETTINGS = {"weights", "model", "sampler", "steps", "batch", "cfg_scale", "latent_hw", "input_size", "uses_mask", "reference", "engine"}
SETTINGS |= {"step_decision"}
NOTES = {"noise_level", "min_score_gap", "selections_same_in_float64", "finite", "img_hw", "aspect_ratio"}


DATA = find("pixart", Path(__file__).parent)
GOLDEN, read_json, tensors = DATA.folder, DATA.json, DATA.tensors
CASES: dict[str, dict[str, Any]] = read_json("cases.json")
CONFIGS: dict[str, dict[str, Any]] = read_json("config.json")


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


class StepwiseToCa(DecidedOncePerStep, ToCa):
    pass


METHODS = {
    "original PixArt-alpha (no cache)": {None: NoCaching},
    "ToCa fork": {"per layer (upstream)": ToCa, "once per step": StepwiseToCa},
    "DuCa fork": {"none (interval is constant)": DuCa},
}


def method_of(case: dict[str, Any]) -> Method:
    """The engine's method for upstream's fork and flags; a case it does not understand is an error."""
    make = METHODS[case["reference"].split(",")[0]][case["step_decision"]]
    if make is NoCaching:
        assert case["engine"] is None
        return make()
    return as_upstream(make, case["engine"])
