"""The reference data: which folder, its cases and models, and the engine's methods for upstream's flags."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from dit.model import DiT
from dit.spec import DiTConfig
from toca.loading.weights import load_into
from toca.methods import DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.testing.golden import DecidedOncePerStep, as_upstream, find

CONFIG_KEYS = {field.name for field in dataclasses.fields(DiTConfig)}
NOTES = {"seed", "min_margin_boundary", "min_margin_block", "final_maxabs_f32_vs_f64", "out_maxabs_f32_vs_f64", "final_std"}
SETTINGS = {"name", "file", "weights", "variant", "steps", "ddim", "eta", "B", "use_cfg", "cfg_scale", "kw", "stepwise"}
KIND_CODES = {"0": "full", "1": "token-wise (ToCa)", "2": "skipped (DuCa aggressive)", "3": "Taylor"}


DATA = find("dit", Path(__file__).parent)
GOLDEN, read_json, tensors, metadata = DATA.folder, DATA.json, DATA.tensors, DATA.metadata
INDEX: dict[str, Any] = read_json("cases.json")
CONFIGS: dict[str, dict[str, Any]] = read_json("config.json")
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in INDEX["cases"]}


@cache
def load_model(name: str) -> DiT:
    """The model `name` of config.json in evaluation mode, loaded strictly. Do not change its weights: it is shared."""
    config = dict(CONFIGS[name])
    file, tokens, null = config.pop("file"), config.pop("tokens"), config.pop("null_label")
    assert set(config) <= CONFIG_KEYS, f"settings this runner does not know: {set(config) - CONFIG_KEYS}"
    model = DiT(DiTConfig(**config)).eval()
    assert (model.config.num_tokens, model.num_classes) == (tokens, null)
    load_into(model, tensors(file), file)
    return model


def model_with(data: dict[str, Tensor], layers: set[int]) -> str:
    """The model that a file without a case belongs to: of as many layers, and with the shapes of its tensors."""

    def fits(config: dict[str, Any]) -> bool:
        fixed = "pos_embed" not in data or data["pos_embed"].shape[1:] == (config["tokens"], config["hidden_size"])
        grads = [value.shape[0] for key, value in data.items() if key.endswith("x_embedder.proj.weight")]
        return fixed and max(layers) < config["depth"] and all(width == config["hidden_size"] for width in grads)

    return next(name for name, config in CONFIGS.items() if fits(config))


class StepwiseToCa(DecidedOncePerStep, ToCa):
    pass


class StepwiseDuCa(DecidedOncePerStep, DuCa):
    pass


METHODS = {("toca", False): ToCa, ("duca", False): DuCa, ("toca", True): StepwiseToCa, ("duca", True): StepwiseDuCa}


def method_of(case: dict[str, Any]) -> Method:
    """The engine's method for upstream's variant and flags; a case it does not understand is an error."""
    kw, variant = case["kw"], case["variant"]
    if variant == "orig":
        assert not kw, f"flags this runner does not know: {kw}"
        return NoCaching()
    if variant == "taylor":
        assert kw.keys() == {"interval", "max_order"}, f"flags this runner does not know: {kw}"
        return TaylorSeer(interval=kw["interval"], order=kw["max_order"])
    assert (variant, case["stepwise"]) in METHODS, f"a variant this runner does not know: {variant}"
    return as_upstream(METHODS[variant, case["stepwise"]], kw)
