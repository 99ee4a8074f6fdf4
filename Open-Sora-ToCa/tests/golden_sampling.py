"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from golden_folder import tensors
from golden_model import CYCLES, MODULES, TYPES, load_model, method_of, spec_of
from torch import Tensor

from opensora.schedulers.rf import RFLOW
from toca.engine.cache import Cache
from toca.engine.selection import Selector, Uniform
from toca.planning.plan import Kind, Plan

Place = tuple[int, str, int, str]  # (step, stack, layer, branch)
INPUTS = {"z_init", "y", "text_mask", "cond_mask", "step_noise", "random_draws"}
OUTPUTS = {"timesteps", "x_mask", "z_final", "model_out", "model_out_vel", "model_out_vel_steps", "kept_steps"}
DECISIONS = {"decision_meta", "decision_indices"}
DETAIL = re.compile(r"decision\.s(\d+)\.l(\d+)\.(spatial|temporal)\.([\w-]+)\.(score|indices|counter_before|counter_after)")


def close(name: str, found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found.to(expected.dtype), expected, atol=atol, rtol=0, msg=lambda message: f"{name}: {message}")


@dataclass
class Recorder:
    """How the engine ranked tokens in a run."""

    scores: dict[Place, Tensor] = field(default_factory=dict)  # (R, N)
    ages: dict[Place, Tensor] = field(default_factory=dict)  # (R, N) when the tokens were ranked
    ages_after: dict[Place, Tensor] = field(default_factory=dict)
    chosen: dict[Place, Tensor] = field(default_factory=dict)  # (2n, K), ascending

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Overhear the engine's ranking."""
        rank = Selector.scores

        def scores(selector: Selector, step: int, some: range, ages: Tensor, base: Tensor | None = None) -> Tensor:
            found = rank(selector, step, some, ages, base)
            stack = next(name for name in TYPES if self.cache.selector(name, selector.branch.name) is selector)
            for at, layer in enumerate(some):
                self.scores[step, stack, layer, selector.branch.name] = found[at].clone()
                self.ages[step, stack, layer, selector.branch.name] = ages[at].clone()
            return found

        patch.setattr(Selector, "scores", scores)

    def look(self, step: int) -> None:
        """Note what a step chose."""
        for stack in TYPES:
            for branch in MODULES.values():
                if not (selector := self.cache.selector(stack, branch)):
                    continue
                for layer, rows in enumerate(selector.chosen):
                    if rows is not None:
                        tokens = rows.view(len(selector.row_offset), -1) % selector.branch.tokens
                        self.chosen[step, stack, layer, branch] = tokens.sort(dim=-1).values
                        self.ages_after[step, stack, layer, branch] = selector.staleness[layer].clone()


def given_draws(data: dict[str, Tensor]) -> dict[tuple[str, str], Uniform] | None:
    """The uniform draws of the reference run by stack and branch; None if there are none."""
    if "random_draws" not in data:
        return None
    places = [place[:4] for place in data["decision_meta"].tolist()]
    draws = dict(zip(map(tuple, places), data["random_draws"]))

    def drawn(kind: int, module: int) -> Uniform:
        return lambda step, layers: torch.stack([draws[step, layer, kind, module] for layer in layers])

    return {
        (stack, branch): drawn(kind, module) for kind, stack in enumerate(TYPES) for module, branch in enumerate(MODULES.values())
    }


def replay(case: dict[str, Any], data: dict[str, Tensor], heard: Recorder) -> tuple[Tensor, Tensor]:
    """Model outputs of all steps (S, 2n, 8, T, H, W) and the final latents."""
    model, outputs, n = load_model(), [], case["batch"]
    height, width = case["height_width_px"]
    options = {name: case[name] for name in ("cfg_scale", "use_timestep_transform", "use_discrete_timesteps")}
    scheduler = RFLOW(num_sampling_steps=case["steps"], **options)
    sizes = dict(fps=torch.full((n,), float(case["fps"])), height=torch.tensor([height]), width=torch.tensor([width]))

    def network(x: Tensor, t: Tensor, x_mask: Tensor | None, **inputs: Any) -> Tensor:
        step = len(outputs)
        close("timesteps", t[:n], data["timesteps"][step], 1e-3)
        expected = data["x_mask"][step].bool() if "x_mask" in data else None
        assert (x_mask is None and (expected is None or expected.all())) or torch.equal(x_mask, expected)
        outputs.append(model(x, t, x_mask=x_mask, **inputs))
        heard.look(step)
        return outputs[-1]

    latents = scheduler.sample(
        network,
        data["z_init"],
        data["y"],
        model.y_embedder.y_embedding.expand(n, 1, -1, -1),
        num_frames=case["num_frames"],
        height=height,
        width=width,
        mask=data.get("cond_mask"),
        noise=lambda step, item: data["step_noise"][step, item],
        model_args=dict(mask=data["text_mask"], **sizes),
        cache=heard.cache,
    )
    return torch.stack(outputs), latents


def check_case(case: dict[str, Any], name: str, patch: pytest.MonkeyPatch) -> None:
    data = tensors(f"{name}.safetensors")
    unknown = {key for key in data.keys() - INPUTS - OUTPUTS - DECISIONS if not DETAIL.fullmatch(key)}
    assert not unknown, f"tensors this runner does not know: {unknown}"
    assert data["text_mask"].sum(dim=1).tolist() == case["text_lens"]
    heard = Recorder()
    heard.listen(patch)
    with Cache(spec_of(case), method_of(case), case["steps"], uniform=given_draws(data)) as heard.cache:
        outputs, latents = replay(case, data, heard)
    check_outputs(outputs, data)
    close("z_final", latents, data["z_final"], 1e-3)
    check_plan(heard.cache.plan, case)
    if "decision_meta" in data:
        check_decisions(heard, data)
    for key in data:
        if match := DETAIL.fullmatch(key):
            check_detail(key, match, heard, data[key])


def check_outputs(outputs: Tensor, data: dict[str, Tensor]) -> None:
    """Frames that are given do not count: upstream normalises them twice in its final layer."""
    kept = data.get("kept_steps", torch.arange(len(outputs))).long()
    (name,) = {"model_out", "model_out_vel", "model_out_vel_steps"} & data.keys()
    expected = data[name]
    generated = data["x_mask"][kept].bool()[:, :, None, :, None, None] if "x_mask" in data else torch.tensor(True)
    close(name, outputs[kept, :, : expected.shape[2]] * generated, expected * generated, 5e-4)


def check_plan(plan: Plan, case: dict[str, Any]) -> None:
    for name, steps in case.get("full_steps", {}).items():
        branch = name.split("-")[-1] if "cross" not in name else "cross_attn"
        for stack in TYPES if name not in CYCLES[:2] else TYPES[CYCLES.index(name) :][:1]:
            full = [step for step, row in enumerate(plan.steps) if row[stack, 0, branch].kind is Kind.FULL]
            assert full == steps, name


def check_decisions(heard: Recorder, data: dict[str, Tensor]) -> None:
    """Every token of every decision; the engine refreshes nothing where the reference decided nothing."""
    decided = set()
    for (step, layer, kind, module, k), indices in zip(data["decision_meta"].tolist(), data["decision_indices"]):
        place = step, TYPES[kind], layer, list(MODULES.values())[module]
        action = heard.cache.plan.steps[step][place[1:]]
        assert action.tokens == k, place
        if k:
            decided.add(place)
            found, wanted = heard.chosen[place], indices[:, :k].long()
            assert torch.equal(found, wanted.repeat(len(found) // len(wanted), 1)), place
    assert decided == set(heard.chosen)


def check_detail(key: str, match: re.Match[str], heard: Recorder, expected: Tensor) -> None:
    step, layer, kind, module, what = match.groups()
    place = int(step), f"{kind}_blocks", int(layer), MODULES[module]
    if not heard.cache.plan.steps[int(step)][place[1:]].tokens:  # where nothing is refreshed, nothing is ranked
        assert what != "indices" or expected.numel() == 0
        return
    found = dict(score=heard.scores, indices=heard.chosen, counter_before=heard.ages, counter_after=heard.ages_after)[what][place]
    close(key, found.repeat(len(expected) // len(found), 1), expected, 2e-5 if what == "score" else 0)
