"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from golden_data import MODULES, load_model, method_of, spec_of, tensors
from torch import Tensor

from flux.model import Flux
from toca.engine.cache import Cache
from toca.engine.selection import Selector, Uniform
from toca.planning.plan import Plan

Place = tuple[int, str, int, str]  # (step, stack, layer, branch)
INPUTS = {"img", "img_ids", "txt", "txt_ids", "vec", "timesteps"}
TRACE = re.compile(r"trace\.s(\d+)\.(\w+)\.(\d+)\.(\w+)\.(score|indices|counter_before|counter_after|factor\d)")
DRAW = re.compile(r"rand\.s(\d+)\.(\w+)\.(\d+)\.(\w+)")


def close(name: str, found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found.to(expected.dtype), expected, atol=atol, rtol=0, msg=lambda message: f"{name}: {message}")


@dataclass
class Recorder:
    """How the engine ranked tokens in a run."""

    scores: dict[Place, Tensor] = field(default_factory=dict)  # (R, N)
    ages: dict[Place, Tensor] = field(default_factory=dict)  # (R, N) when the tokens were ranked
    ages_after: dict[Place, Tensor] = field(default_factory=dict)
    chosen: dict[Place, Tensor] = field(default_factory=dict)  # (R, K), ascending

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Overhear the engine's ranking."""
        rank = Selector.scores

        def scores(selector: Selector, step: int, some: range, ages: Tensor, base: Tensor | None = None) -> Tensor:
            found = rank(selector, step, some, ages, base)
            stack, branch = "single_blocks" if selector.branch.name == "total" else "double_blocks", selector.branch.name
            for at, layer in enumerate(some):
                self.scores[step, stack, layer, branch] = found[at].clone()
                self.ages[step, stack, layer, branch] = ages[at].clone()
            return found

        patch.setattr(Selector, "scores", scores)

    def look(self, cache: Cache, step: int) -> None:
        """Note what a step chose."""
        for stack, branch in MODULES.values():
            if not (selector := cache.selector(stack, branch)):
                continue
            for layer, rows in enumerate(selector.chosen):
                self.ages_after[step, stack, layer, branch] = selector.staleness[layer].clone()
                if rows is not None:
                    tokens = rows.view(selector.refreshed_at.shape[1], -1) % selector.branch.tokens
                    self.chosen[step, stack, layer, branch] = tokens.sort(dim=-1).values


def given_draws(data: dict[str, Tensor]) -> dict[str, Uniform] | None:
    """The uniform draws of the reference run by branch; None if there are none."""
    draws: dict[str, dict[tuple[int, int], Tensor]] = {}
    for key in data:
        if match := DRAW.fullmatch(key):
            step, stream, layer, module = match.groups()
            draws.setdefault(MODULES[stream, module][1], {})[int(step), int(layer)] = data[key]
    if not draws:
        return None

    def drawn(some: dict[tuple[int, int], Tensor]) -> Uniform:
        return lambda step, layers: torch.stack([some[step, layer] for layer in layers])

    return {branch: drawn(some) for branch, some in draws.items()}


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
    heard, factors = Recorder(), {}
    heard.listen(patch)
    wanted = {int(match[1]) for key in data if (match := TRACE.fullmatch(key)) and match[5].startswith("factor")}
    with Cache(spec_of(case), method_of(case), case["num_steps"], uniform=given_draws(data)) as cache:

        def after_step(step: int) -> None:
            heard.look(cache, step)
            if step in wanted:
                factors[step] = kept_factors(cache, case["txt_tokens"])

        pred, final = euler(load_model(case["config"]), cache, case, data, after_step)
    check_plan(cache, case)
    for key in data:
        if match := TRACE.fullmatch(key):
            check_trace(key, match, cache.plan, heard, factors, data[key])
    close("pred", pred, data["pred"], 5e-5)
    close("final", final, data["final"], 5e-5)


def check_plan(cache: Cache, case: dict[str, Any]) -> None:
    kinds = [cache.plan.step_kind(step) for step in range(case["num_steps"])]
    assert ["full" if kind == "full" else "cached" for kind in kinds] == case["step_types"]
    if rows := case.get("refreshed_rows_first_cached_step"):
        first = cache.plan.steps[case["step_types"].index("cached")]
        for name, count in rows.items():
            stream, layer, module = name.split(".")
            stack, branch = MODULES[stream, module]
            assert first[stack, int(layer), branch].tokens == count, name


def check_trace(
    key: str, match: re.Match[str], plan: Plan, heard: Recorder, factors: dict[int, dict[Any, list[Tensor]]], expected: Tensor
) -> None:
    step, stream, layer, module, what = match.groups()
    if what.startswith("factor"):
        return close(key, factors[int(step)][int(layer), module][int(what[-1])], expected, 5e-5)
    stack, branch = MODULES[stream, module]
    place = int(step), stack, int(layer), branch
    found = dict(score=heard.scores, indices=heard.chosen, counter_before=heard.ages, counter_after=heard.ages_after)[what]
    if place in found:
        return close(key, found[place], expected, 1e-5 if what == "score" else 0)
    assert plan.steps[int(step)][place[1:]].tokens == 0, f"{key}: tokens are refreshed, but were not ranked"
    assert what != "indices" or expected.numel() == 0


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
