"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from golden_folder import tensors
from golden_model import CYCLES, MODULES, TYPES, load_model, method_of, spec_of
from torch import Tensor

from opensora.schedulers.rf import RFLOW
from toca.engine.cache import Cache
from toca.engine.selection import Uniform
from toca.planning.plan import Kind, Plan
from toca.testing.golden import assert_close
from toca.testing.replay import Recorder, drawn, indices

INPUTS = {"z_init", "y", "text_mask", "cond_mask", "step_noise", "random_draws"}
OUTPUTS = {"timesteps", "x_mask", "z_final", "model_out", "model_out_vel", "model_out_vel_steps", "kept_steps"}
DECISIONS = {"decision_meta", "decision_indices"}
OUTPUT = 1e-4  # tolerance
DETAIL = re.compile(r"decision\.s(\d+)\.l(\d+)\.(spatial|temporal)\.([\w-]+)\.(score|indices|counter_before|counter_after)")


def given_draws(data: dict[str, Tensor]) -> dict[tuple[str, str], Uniform] | None:
    """The uniform draws of the reference run by stack and branch; None if there are none."""
    if "random_draws" not in data:
        return None
    draws: dict[tuple[str, str], dict[tuple[int, int], Tensor]] = {}
    for (step, layer, kind, module, _), some in zip(data["decision_meta"].tolist(), data["random_draws"]):
        draws.setdefault((TYPES[kind], list(MODULES.values())[module]), {})[step, layer] = some
    return {place: drawn(some) for place, some in draws.items()}


def replay(case: dict[str, Any], data: dict[str, Tensor], heard: Recorder) -> tuple[Tensor, Tensor]:
    """Model outputs of all steps (S, 2n, 8, T, H, W) and the final latents."""
    model, outputs, n = load_model(), [], case["batch"]
    height, width = case["height_width_px"]
    options = {name: case[name] for name in ("cfg_scale", "use_timestep_transform", "use_discrete_timesteps")}
    scheduler = RFLOW(num_sampling_steps=case["steps"], **options)
    sizes = dict(fps=torch.full((n,), float(case["fps"])), height=torch.tensor([height]), width=torch.tensor([width]))

    def network(x: Tensor, t: Tensor, x_mask: Tensor | None, **inputs: Any) -> Tensor:
        step = len(outputs)
        assert_close(t[:n], data["timesteps"][step], 1e-6, "timesteps")
        expected = data["x_mask"][step].bool() if "x_mask" in data else None
        assert (x_mask is None and (expected is None or expected.all())) or torch.equal(x_mask, expected)
        outputs.append(model(x, t, x_mask=x_mask, **inputs))
        heard.look()
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
    with Cache(spec_of(case), method_of(case), case["steps"], uniform=given_draws(data)) as cache:
        heard = Recorder(cache)
        heard.listen(patch)
        outputs, latents = replay(case, data, heard)
    check_outputs(outputs, data)
    assert_close(latents, data["z_final"], OUTPUT, "z_final")
    check_plan(cache.plan, case)
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
    assert_close(outputs[kept, :, : expected.shape[2]] * generated, expected * generated, OUTPUT, name)


def check_plan(plan: Plan, case: dict[str, Any]) -> None:
    for name, steps in case.get("full_steps", {}).items():
        branch = name.split("-")[-1] if "cross" not in name else "cross_attn"
        for stack in TYPES if name not in CYCLES[:2] else TYPES[CYCLES.index(name) :][:1]:
            full = [step for step, row in enumerate(plan.steps) if row[stack, 0, branch].kind is Kind.FULL]
            assert full == steps, name


def check_decisions(heard: Recorder, data: dict[str, Tensor]) -> None:
    """Every token of every decision; the engine refreshes nothing where the reference decided nothing."""
    decided = set()
    for (step, layer, kind, module, k), tokens in zip(data["decision_meta"].tolist(), data["decision_indices"]):
        place = step, TYPES[kind], layer, list(MODULES.values())[module]
        action = heard.cache.plan.steps[step][place[1:]]
        assert action.tokens == k, place
        if k:
            decided.add(place)
            found, wanted = indices(heard.chosen[place]), tokens[:, :k].long()
            assert torch.equal(found, wanted.repeat(len(found) // len(wanted), 1)), place
    assert decided == set(heard.chosen)


def check_detail(key: str, match: re.Match[str], heard: Recorder, expected: Tensor) -> None:
    step, layer, kind, module, what = match.groups()
    place = int(step), f"{kind}_blocks", int(layer), MODULES[module]
    if not heard.cache.plan.steps[int(step)][place[1:]].tokens:  # where nothing is refreshed, nothing is ranked
        assert what != "indices" or expected.numel() == 0
        return
    before, after = heard.ages_around(place)
    ranking = dict(score=heard.scores[place][1], indices=indices(heard.chosen[place]), counter_before=before, counter_after=after)
    found = ranking[what]
    assert_close(found.repeat(len(expected) // len(found), 1), expected, 2e-5 if what == "score" else 0, key)
