"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from golden_data import MODULES, load_model, method_of, spec_of, tensors
from torch import Tensor

from flux.model import Flux
from toca.engine.cache import Cache
from toca.engine.selection import Uniform
from toca.testing.golden import assert_close
from toca.testing.replay import Place, Recorder, drawn, indices

PREDICTION = 5e-5  # tolerance
INPUTS = {"img", "img_ids", "txt", "txt_ids", "vec", "timesteps"}
TRACE = re.compile(r"trace\.s(\d+)\.(\w+)\.(\d+)\.(\w+)\.(score|indices|counter_before|counter_after|factor\d)")
DRAW = re.compile(r"rand\.s(\d+)\.(\w+)\.(\d+)\.(\w+)")


def given_draws(data: dict[str, Tensor]) -> dict[str, Uniform] | None:
    """The uniform draws of the reference run by branch; None if there are none."""
    draws: dict[str, dict[tuple[int, int], Tensor]] = {}
    for key in data:
        if match := DRAW.fullmatch(key):
            step, stream, layer, module = match.groups()
            draws.setdefault(MODULES[stream, module][1], {})[int(step), int(layer)] = data[key]
    return {branch: drawn(some) for branch, some in draws.items()} or None


@torch.no_grad()
def euler(model: Flux, cache: Cache, case: dict[str, Any], data: dict[str, Tensor], after_step=lambda step: None) -> tuple[Tensor, Tensor]:
    """Model outputs of all steps (S, B, N, C) and the final latents."""
    times, img = data["timesteps"].tolist(), data["img"]
    guidance = torch.full((len(img),), float(case["guidance"]))
    outputs = []
    for step, (t, after) in enumerate(itertools.pairwise(times)):
        t_vec = torch.full((len(img),), t)
        outputs.append(model(img, data["img_ids"], data["txt"], data["txt_ids"], t_vec, data["vec"], guidance, cache=cache))
        img = img + (after - t) * outputs[-1]
        after_step(step)
    return torch.stack(outputs), img


def check_case(case: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    data = tensors(f"{case['case']}.safetensors")
    unknown = {key for key in data.keys() - INPUTS - {"pred", "final"} if not TRACE.fullmatch(key) and not DRAW.fullmatch(key)}
    assert not unknown, f"tensors this runner does not know: {unknown}"
    assert data["img"].shape[:2] == (case["batch"], case["grid_h"] * case["grid_w"])
    factors = {}
    wanted = {int(match[1]) for key in data if (match := TRACE.fullmatch(key)) and match[5].startswith("factor")}
    with Cache(spec_of(case), method_of(case), case["num_steps"], uniform=given_draws(data)) as cache:
        heard = Recorder(cache)
        heard.listen(patch)

        def after_step(step: int) -> None:
            heard.look()
            if step in wanted:
                factors[step] = kept_factors(cache, case["txt_tokens"])

        pred, final = euler(load_model(case["config"]), cache, case, data, after_step)
    check_plan(cache, case)
    for key in data:
        if match := TRACE.fullmatch(key):
            check_trace(key, match, heard, factors, data[key])
    assert_close(pred, data["pred"], PREDICTION, "pred")
    assert_close(final, data["final"], PREDICTION, "final")


def check_plan(cache: Cache, case: dict[str, Any]) -> None:
    kinds = [cache.plan.step_kind(step) for step in range(case["num_steps"])]
    assert ["full" if kind == "full" else "cached" for kind in kinds] == case["step_types"]
    if rows := case.get("refreshed_rows_first_cached_step"):
        first = cache.plan.steps[case["step_types"].index("cached")]
        for name, count in rows.items():
            stream, layer, module = name.split(".")
            stack, branch = MODULES[stream, module]
            assert first[stack, int(layer), branch].tokens == count, name


def check_trace(key: str, match: re.Match[str], heard: Recorder, factors: dict[int, dict[Any, list[Tensor]]], expected: Tensor) -> None:
    step, stream, layer, module, what = match.groups()
    if what.startswith("factor"):
        return assert_close(factors[int(step)][int(layer), module][int(what[-1])], expected, PREDICTION, key)
    stack, branch = MODULES[stream, module]
    place = int(step), stack, int(layer), branch
    if place in heard.chosen:
        return check_ranking(key, what, heard, place, expected)
    assert heard.cache.plan.steps[int(step)][place[1:]].tokens == 0, f"{key}: tokens are refreshed, but were not ranked"
    assert what != "indices" or expected.numel() == 0


def check_ranking(key: str, what: str, heard: Recorder, place: Place, expected: Tensor) -> None:
    """A score, the tokens chosen, or their staleness."""
    before, after = heard.ages_around(place)
    found = dict(score=heard.scores[place][1], indices=indices(heard.chosen[place]), counter_before=before, counter_after=after)
    assert_close(found[what], expected, 2e-5 if what == "score" else 0, key)


def kept_factors(cache: Cache, txt_tokens: int) -> dict[tuple[int, str], list[Tensor]]:
    """Copies of all Taylor factors by (layer, upstream's module)."""
    kept: dict[tuple[int, str], list[Tensor]] = {}
    for layer, double in enumerate(cache._layers["double_blocks"]):
        kept[layer, "txt_attn"] = [factor[:, :txt_tokens].clone() for factor in double.attn.slot.factors]
        kept[layer, "img_attn"] = [factor[:, txt_tokens:].clone() for factor in double.attn.slot.factors]
        kept[layer, "img_mlp"] = [factor.clone() for factor in double.img_mlp.slot.factors]
        kept[layer, "txt_mlp"] = [factor.clone() for factor in double.txt_mlp.slot.factors]
    for layer, single in enumerate(cache._layers["single_blocks"]):
        kept[layer, "total"] = [factor.clone() for factor in single.total.slot.factors]
    return kept
