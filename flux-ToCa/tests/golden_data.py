"""The reference data of the model: its cases and models, and the engine's methods for upstream's flags."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from flux.model import Flux, FluxParams
from flux.spec import flux_spec
from toca.loading.weights import load_into
from toca.methods import FORA, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.schedule import Cycle
from toca.planning.spec import ModelSpec
from toca.testing.golden import as_upstream, find

HERE = Path(__file__).parent
DATA = find("flux", HERE)
GOLDEN, read_json, tensors = DATA.folder, DATA.json, DATA.tensors

MODULES = {  # upstream's (stream, module) -> ours
    ("double_stream", "img_mlp"): ("double_blocks", "img_mlp"),
    ("double_stream", "txt_mlp"): ("double_blocks", "txt_mlp"),
    ("single_stream", "mlp"): ("single_blocks", "total"),
}


CASES: dict[str, dict[str, Any]] = read_json("cases.json")
CONFIGS: dict[str, dict[str, Any]] = read_json("config.json")


def metadata(file: str) -> dict[str, Any]:
    """The notes in a file; upstream's dictionaries and numbers are JSON, some strings are not."""
    notes = DATA.metadata(file)
    return {key: json.loads(value) if value[:1] in '{["0123456789-' else value for key, value in notes.items() if key != "steps_called"}


def manifest(name: str) -> dict[str, list[int]]:
    """Key -> shape of a published checkpoint."""
    return json.loads((HERE / "golden" / "checkpoint_keys.json").read_text())[name]


@cache
def load_model(name: str) -> Flux:
    """The model `name` of config.json in evaluation mode, loaded strictly. Do not change its weights: it is shared."""
    params = FluxParams(**CONFIGS[name]["params"])
    model = Flux(dataclasses.replace(params, axes_dim=tuple(params.axes_dim))).eval()
    load_into(model, tensors(CONFIGS[name]["weights_file"]), CONFIGS[name]["weights_file"])
    return model


def toca_of(flags: dict[str, Any]) -> ToCa:
    """ToCa by upstream's flags; one it does not understand is an error."""
    return as_upstream(ToCa, {"ratio_scheduler" if name == "fresh_ratio_schedule" else name: value for name, value in flags.items()})


def method_of(case: dict[str, Any]) -> Method:
    """The engine's method for upstream's name and flags; a case it does not understand is an error."""
    name, flags = case["method"], dict(case["cache"])
    if name == "none":
        assert not flags
        return NoCaching()
    if name == "taylorseer":
        assert flags.keys() == {"fresh_threshold", "max_order", "first_enhance"}
        return TaylorSeer(interval=flags["fresh_threshold"], order=flags["max_order"])
    assert name in ("toca", "fora"), f"a method this runner does not know: {name}"
    method = toca_of(flags)
    assert (method.ratio == 0) == (name == "fora")
    return FORA(method.interval) if name == "fora" else method


def spec_of(case: dict[str, Any]) -> ModelSpec:
    """The case's model at its size; how many first steps of TaylorSeer are full is upstream's flag."""
    spec = flux_spec(load_model(case["config"]).params, case["grid_h"] * case["grid_w"], case["txt_tokens"])
    lead = case["cache"].get("first_enhance", spec.cycles["taylorseer"].lead)
    return dataclasses.replace(spec, cycles={**spec.cycles, "taylorseer": Cycle(lead=lead, anchor="last_full")})
