"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import load_model, method_of, tensors
from torch import Tensor

from diffusion import create_diffusion
from dit_spec import dit_spec
from toca.engine.attention import attention_with_mass
from toca.engine.cache import BranchCache, Cache, CachedLayer
from toca.engine.selection import Selector, Uniform
from toca.planning.flops import total_flops
from toca.planning.plan import Kind

CODES = {Kind.FULL: 0, Kind.PARTIAL: 1, Kind.REUSE: 1, Kind.SKIP: 2, Kind.FORECAST: 3}
Place = tuple[int, int]  # (step in execution order, layer)
TENSORS = {"z", "y", "noise", "timesteps", "out_index", "model_out", "model_out_uncond_half", "x_in", "final", "kind", "topk"}
TENSORS |= {"selected_packed", "margin_boundary", "margin_block", "counter_after", "random_scores", "random_scores_at", "detail_index"}
DETAILS = {"attn_colsum", "attn_map", "score_s1_s3", "score_final", "selected", "counter_before", "counter_after"}
DETAILS |= {"x_in", "attn_cache", "mlp_cache_before", "mlp_cache_after"}


@dataclass
class Recorder:
    """What the engine did in a run. `scores`: before and after the block bonus. `inside`: tensors of the inspected layers."""

    inspected: set[Place]
    outputs: list[Tensor] = field(default_factory=list)  # (R, 2C, H, W) of every step
    latents: list[Tensor] = field(default_factory=list)  # (R, C, H, W) entering every step, and the final ones
    ages: dict[int, Tensor] = field(default_factory=dict)  # (L, R, N) after step e
    chosen: dict[Place, Tensor] = field(default_factory=dict)  # (R, N) bool
    scores: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)  # (R, N) each
    inside: dict[tuple[str, Place], Any] = field(default_factory=dict)

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Overhear the engine's branches, attention and ranking."""
        layers, qkv = {layer for _, layer in self.inspected}, {}
        run_branch, attend, rank = BranchCache.__call__, CachedLayer.attend, Selector.scores

        def branch(cache: BranchCache, f, x: Tensor) -> Tensor:
            place, name = (cache.layer.cache.index, cache.layer.index), cache.branch.name
            if place not in self.inspected:
                return run_branch(cache, f, x)
            if name == "mlp":
                self.inside["x_in", place] = x.clone()
                self.inside["mlp_cache_before", place] = cache.slot.value.clone()
                self.inside["qkv", place] = qkv[place[1]]
            value = run_branch(cache, f, x)
            self.inside[{"attn": "attn_cache", "mlp": "mlp_cache_after"}[name], place] = value.clone()
            return value

        def attention(cache: CachedLayer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if cache.index in layers:
                qkv[cache.index] = (q, k, v)
            return attend(cache, q, k, v)

        def scores(selector: Selector, step: int, some: range, *inputs: Tensor | None) -> Tensor:
            final, ranking = rank(selector, step, some, *inputs), selector.ranking
            selector.ranking = replace(ranking, block=0)
            before = rank(selector, step, some, *inputs).clone()
            self.scores |= {(step, layer): (before[at], final[at]) for at, layer in enumerate(some)}
            selector.ranking = ranking
            return final

        patch.setattr(BranchCache, "__call__", branch)
        patch.setattr(CachedLayer, "attend", attention)
        patch.setattr(Selector, "scores", scores)


def given_draws(data: dict[str, Tensor], rows: int) -> Uniform:
    """The uniform draws of the reference run, (M, R/2, N) at their (step, layer), for both halves."""
    at = {tuple(place): scores for place, scores in zip(data["random_scores_at"].tolist(), data["random_scores"], strict=True)}
    return lambda step, layers: torch.stack([at[step, layer].repeat(rows // at[step, layer].shape[0], 1) for layer in layers])


def replay(case: dict[str, Any], data: dict[str, Tensor], patch: pytest.MonkeyPatch) -> tuple[Cache, Recorder]:
    model, steps, cfg = load_model(case["weights"]), case["steps"], case["use_cfg"]
    diffusion = create_diffusion(str(steps))
    assert diffusion.timestep_map[::-1] == data["timesteps"].tolist()
    double = (lambda x: torch.cat([x, x])) if cfg else (lambda x: x)
    y, z = data["y"], double(data["z"])
    options: dict[str, Any] = dict(noise=z, noise_fn=lambda i, _: double(data["noise"][steps - 1 - i]))
    loop, network, kwargs = diffusion.p_sample_loop_progressive, model, dict(y=y)
    if case["ddim"]:
        loop, options["eta"] = diffusion.ddim_sample_loop_progressive, case["eta"]
    if cfg:
        network, kwargs = model.forward_with_cfg, dict(y=torch.cat([y, torch.full_like(y, model.num_classes)]), cfg_scale=case["cfg_scale"])

    heard = Recorder({(e, layer) for e, layer, _ in data.get("detail_index", torch.empty(0)).tolist()}, latents=[z])
    heard.listen(patch)
    spec = dit_spec(model.config, "ddim" if case["ddim"] else "ddpm")
    uniform = given_draws(data, len(z)) if "random_scores" in data else None
    with Cache(spec, method_of(case), steps, uniform=uniform) as cache:
        for e, step in enumerate(loop(network, z.shape, model_kwargs=kwargs | dict(cache=cache), **options)):
            heard.outputs.append(step["model_out"])
            heard.latents.append(step["sample"])
            if selector := cache.selector("blocks", "mlp"):
                heard.ages[e] = selector.staleness.clone()
                for layer, k in enumerate(selector.counts[e]):
                    if k:
                        mask = torch.zeros(len(z) * model.config.num_tokens, dtype=torch.bool)
                        mask[selector.chosen[layer]] = True
                        heard.chosen[e, layer] = mask.view(len(z), -1)
    return cache, heard


def check_case(case: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    data = tensors(case["file"])
    details = {f"d{i}_{name}" for i in range(len(data.get("detail_index", ()))) for name in DETAILS}
    assert set(data) <= TENSORS | details, f"tensors this runner does not know: {set(data) - TENSORS - details}"
    cache, heard = replay(case, data, patch)
    rows, images = len(heard.latents[0]), case["B"]

    check_plan(cache, data)
    if "upstream_flops_counter" in case:
        assert total_flops(cache.plan, "upstream", rows) == case["upstream_flops_counter"]
    flipped = check_selections(cache, heard, data)
    if not flipped:  # a near-tie decided the other way moves what follows
        check_ages(heard, data)
        check_details(cache, heard, data)
    tolerance = dict(atol=1e-3 if flipped else 1e-4, rtol=0)
    for at, e in enumerate(data["out_index"].tolist()):
        torch.testing.assert_close(heard.outputs[e][:images], data["model_out"][at], **tolerance)
        if "model_out_uncond_half" in data:
            torch.testing.assert_close(heard.outputs[e][images:], data["model_out_uncond_half"][at], **tolerance)
        if "x_in" in data:
            torch.testing.assert_close(heard.latents[e][:images], data["x_in"][at], **tolerance)
    torch.testing.assert_close(heard.latents[-1][:images], data["final"], **tolerance)


def check_plan(cache: Cache, data: dict[str, Tensor]) -> None:
    steps, layers = range(cache.plan.num_steps), range(cache.spec.stack("blocks").depth)
    actions = [[cache.plan.steps[e]["blocks", layer, "mlp"] for layer in layers] for e in steps]
    assert [[CODES[action.kind] for action in step] for step in actions] == data["kind"].tolist()
    if "topk" in data:
        partial = data["kind"] == 1
        assert torch.equal(torch.tensor([[action.tokens for action in step] for step in actions])[partial], data["topk"][partial].long())


def check_selections(cache: Cache, heard: Recorder, data: dict[str, Tensor]) -> bool:
    """Exact wherever the reference's margins are above rounding, and the margins themselves. Returns whether a near-tie fell otherwise."""
    if "selected_packed" not in data:
        assert not heard.chosen
        return False
    masks = np.unpackbits(data["selected_packed"].numpy(), axis=-1, count=cache.spec.hidden[0])
    expected = {(e, layer): torch.from_numpy(masks[e, layer]).bool() for e, layer in np.argwhere(masks.any(axis=(2, 3))).tolist()}
    assert heard.chosen.keys() == expected.keys()
    grid = cache.spec.stack("blocks").branch("mlp").grid
    flipped: dict[int, int] = {}  # layer -> step
    for (e, layer), chosen in heard.chosen.items():
        if layer in flipped and (data["kind"][flipped[layer] : e, layer] != 0).all():
            continue  # until its next full step the layer's staleness differs
        given = data["margin_boundary"][e, layer].item(), data["margin_block"][e, layer].item()
        if torch.equal(chosen, expected[e, layer]):
            ours = margins(*heard.scores[e, layer], chosen, grid, cache.method.ranking(cache.spec).block)
            assert flipped or ours == pytest.approx(given, abs=1e-5), f"margins at step {e}, layer {layer}"
        else:
            assert min(given) <= 1e-6, f"selection at step {e}, layer {layer}, whose margins are {given}"
            flipped[layer] = e
    return bool(flipped)


def margins(before: Tensor, final: Tensor, chosen: Tensor, grid: tuple[int, int], block: int) -> tuple[float, float]:
    """Smallest gaps: of the last chosen and the first rejected score, and of the two best in a cell."""
    rejected = final.masked_fill(chosen, -math.inf).amax(dim=-1)
    cells = before.unflatten(-1, grid).unfold(-2, block, block).unfold(-2, block, block).flatten(-2)
    best = cells.topk(2, dim=-1).values
    return (final.masked_fill(~chosen, math.inf).amin(dim=-1) - rejected).min().item(), (best[..., 0] - best[..., 1]).min().item()


def check_ages(heard: Recorder, data: dict[str, Tensor]) -> None:
    for e, ages in heard.ages.items() if "counter_after" in data else ():
        recorded = data["kind"][e] <= 1  # skipped layers have no entry
        assert torch.equal(ages[recorded], data["counter_after"][e].int()[recorded]), f"staleness after step {e}"


def check_details(cache: Cache, heard: Recorder, data: dict[str, Tensor]) -> None:
    for i, (e, layer, step) in enumerate(data.get("detail_index", torch.empty(0)).tolist()):
        place = (e, layer)
        assert step == cache.plan.num_steps - 1 - e
        q, k, v = heard.inside["qkv", place]
        found = {name: heard.inside[name, place] for name in ("x_in", "attn_cache", "mlp_cache_before", "mlp_cache_after")}
        found["attn_colsum"] = attention_with_mass(q, k, v)[1]
        found["attn_map"] = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
        if e in heard.ages:
            found |= dict(counter_before=heard.ages[e - 1][layer], counter_after=heard.ages[e][layer])
        if place in heard.chosen:
            found["score_s1_s3"], found["score_final"] = heard.scores[place]
            found["selected"] = heard.chosen[place].nonzero()[:, 1].view(len(q), -1)
        else:
            assert data[f"d{i}_selected"].numel() == 0
        for name in DETAILS & {key.removeprefix(f"d{i}_") for key in data}:
            if name in found:
                compare(f"d{i}_{name}", found[name], data[f"d{i}_{name}"])
            else:  # nobody reads them, so the engine makes none
                assert place not in heard.chosen and name in ("score_s1_s3", "score_final", "selected", "counter_before", "counter_after")


def compare(name: str, found: Tensor, expected: Tensor) -> None:
    """To the README's tolerances: selections and staleness exact, scores 5e-6, activations 1e-4."""
    exact = "selected" in name or "counter" in name
    tolerance = 0.0 if exact else 5e-6 if "score" in name or "attn_colsum" in name or "attn_map" in name else 1e-4
    torch.testing.assert_close(found.to(expected.dtype), expected, atol=tolerance, rtol=0, msg=lambda message: f"{name}: {message}")
