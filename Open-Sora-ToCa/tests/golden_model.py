"""The reference model, its spec, and the engine's methods for upstream's flags."""

from __future__ import annotations

from functools import cache
from typing import Any

from golden_folder import GOLDEN, read_json

from opensora.models.stdit.stdit3 import STDiT3, STDiT3Config, load_stdit3
from opensora.spec import opensora_spec
from toca.methods import DuCa, Method, NoCaching, ToCa
from toca.planning.spec import ModelSpec
from toca.testing.golden import as_upstream

TYPES = ("spatial_blocks", "temporal_blocks")
MODULES = {"cross-attn": "cross_attn", "mlp": "mlp"}  # upstream's -> ours
CYCLES = ("spat-attn", "temp-attn", "cross-attn", "mlp")


@cache
def load_model() -> STDiT3:
    """The reference model in evaluation mode. Do not change its weights: it is shared."""
    return load_stdit3(STDiT3Config.from_dict(read_json("config.json")), GOLDEN / "weights.safetensors").eval()


def method_of(case: dict[str, Any]) -> Method:
    """The engine's method for upstream's flags; a case it does not understand is an error."""
    name = case["method"].split(",")[0]
    if "cache" not in case:
        assert name.startswith("uncached")
        return NoCaching()
    bonus = dict(case.get("s4_bonus", {}))
    method = as_upstream({"ToCa fork": ToCa, "DuCa fork": DuCa}[name], case["cache"], bonus=bonus.pop("ratio", 0.0))
    assert not bonus or bonus == {"grid": 2, "time_mean": False}, f"settings this runner does not know: {bonus}"
    return method


def spec_of(case: dict[str, Any]) -> ModelSpec:
    cycles = tuple(case["cycles"][name] for name in CYCLES) if "cycles" in case else None
    return opensora_spec(load_model().config, tuple(case["latent_thw"]), max(case["text_lens"]), cycles)
