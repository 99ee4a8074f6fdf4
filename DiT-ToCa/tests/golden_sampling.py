"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import load_model, method_of, tensors
from torch import Tensor

from diffusion import create_diffusion
from dit.spec import dit_spec
from toca.engine.attention import attention_with_mass
from toca.engine.cache import Cache
from toca.engine.selection import Uniform
from toca.planning.flops import total_flops
from toca.planning.plan import Kind
from toca.testing.golden import assert_close
from toca.testing.replay import Place, Recorder, drawn, indices, margins

CODES = {Kind.FULL: 0, Kind.PARTIAL: 1, Kind.REUSE: 1, Kind.SKIP: 2, Kind.FORECAST: 3}
SCORES, ACTIVATIONS = 5e-6, 1e-4  # tolerances
TENSORS = {"z", "y", "noise", "timesteps", "out_index", "model_out", "model_out_uncond_half", "x_in", "final", "kind", "topk"}
TENSORS |= {"selected_packed", "margin_boundary", "margin_block", "counter_after", "random_scores", "random_scores_at", "detail_index"}
DETAILS = {"attn_colsum", "attn_map", "score_s1_s3", "score_final", "selected", "counter_before", "counter_after"}
DETAILS |= {"x_in", "attn_cache", "mlp_cache_before", "mlp_cache_after"}


@dataclass
class Outputs:
    """Of a run: (R, 2C, H, W) of every step, and the latents (R, C, H, W) entering every step with the final ones."""

    latents: list[Tensor]
    model: list[Tensor] = field(default_factory=list)


def place_of(step: int, layer: int, branch: str = "mlp") -> Place:
    return step, "blocks", layer, branch


def given_draws(data: dict[str, Tensor], rows: int) -> Uniform:
    """The uniform draws of the reference run, (M, R/2, N) at their (step, layer), for both halves."""
    at = zip(data["random_scores_at"].tolist(), data["random_scores"], strict=True)
    return drawn({tuple(place): scores.repeat(rows // len(scores), 1) for place, scores in at})


def replay(case: dict[str, Any], data: dict[str, Tensor], patch: pytest.MonkeyPatch) -> tuple[Recorder, Outputs]:
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

    outputs, details = Outputs([z]), data.get("detail_index", torch.empty(0)).tolist()
    spec = dit_spec(model.config, "ddim" if case["ddim"] else "ddpm")
    uniform = given_draws(data, len(z)) if "random_scores" in data else None
    with Cache(spec, method_of(case), steps, uniform=uniform) as cache:
        heard = Recorder(cache, {place_of(e, layer, branch) for e, layer, _ in details for branch in ("attn", "mlp")})
        heard.listen(patch)
        for step in loop(network, z.shape, model_kwargs=kwargs | dict(cache=cache), **options):
            heard.look()
            outputs.model.append(step["model_out"])
            outputs.latents.append(step["sample"])
    return heard, outputs


def check_case(case: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    data = tensors(case["file"])
    details = {f"d{i}_{name}" for i in range(len(data.get("detail_index", ()))) for name in DETAILS}
    assert set(data) <= TENSORS | details, f"tensors this runner does not know: {set(data) - TENSORS - details}"
    heard, outputs = replay(case, data, patch)
    rows, images = len(outputs.latents[0]), case["B"]

    check_plan(heard.cache, data)
    if "upstream_flops_counter" in case:
        assert total_flops(heard.cache.plan, "upstream", rows) == case["upstream_flops_counter"]
    flipped = check_selections(heard, data)
    if not flipped:  # a near-tie decided the other way moves what follows
        check_ages(heard, data)
        check_details(heard, data)
    tolerance = 1e-3 if flipped else ACTIVATIONS
    for at, e in enumerate(data["out_index"].tolist()):
        assert_close(outputs.model[e][:images], data["model_out"][at], tolerance, f"output of step {e}")
        if "model_out_uncond_half" in data:
            assert_close(outputs.model[e][images:], data["model_out_uncond_half"][at], tolerance, f"unguided output of step {e}")
        if "x_in" in data:
            assert_close(outputs.latents[e][:images], data["x_in"][at], tolerance, f"latents at step {e}")
    assert_close(outputs.latents[-1][:images], data["final"], tolerance, "final")


def check_plan(cache: Cache, data: dict[str, Tensor]) -> None:
    steps, layers = range(cache.plan.num_steps), range(cache.spec.stack("blocks").depth)
    actions = [[cache.plan.steps[e]["blocks", layer, "mlp"] for layer in layers] for e in steps]
    assert [[CODES[action.kind] for action in step] for step in actions] == data["kind"].tolist()
    if "topk" in data:
        partial = data["kind"] == 1
        assert torch.equal(torch.tensor([[action.tokens for action in step] for step in actions])[partial], data["topk"][partial].long())


def check_selections(heard: Recorder, data: dict[str, Tensor]) -> bool:
    """Exact wherever the reference's margins are above rounding, and the margins themselves. Returns whether a near-tie fell otherwise."""
    if "selected_packed" not in data:
        assert not heard.chosen
        return False
    spec = heard.cache.spec
    masks = np.unpackbits(data["selected_packed"].numpy(), axis=-1, count=spec.hidden[0])
    expected = {place_of(e, layer): torch.from_numpy(masks[e, layer]).bool() for e, layer in np.argwhere(masks.any(axis=(2, 3))).tolist()}
    assert heard.chosen.keys() == expected.keys()
    grid, block = spec.stack("blocks").branch("mlp").grid, heard.cache.method.ranking(spec).block
    flipped: dict[int, int] = {}  # layer -> step
    for place, chosen in heard.chosen.items():
        e, _, layer, _ = place
        if layer in flipped and (data["kind"][flipped[layer] : e, layer] != 0).all():
            continue  # until its next full step the layer's staleness differs
        given = data["margin_boundary"][e, layer].item(), data["margin_block"][e, layer].item()
        if torch.equal(chosen, expected[place]):
            ours = margins(heard.scores[place], chosen, grid, block)
            assert flipped or ours == pytest.approx(given, abs=1e-5), f"margins at {place}"
        else:
            assert min(given) <= 1e-6, f"selection at {place}, whose margins are {given}"
            flipped[layer] = e
    return bool(flipped)


def check_ages(heard: Recorder, data: dict[str, Tensor]) -> None:
    for (e, *_), ages in heard.ages.items() if "counter_after" in data else ():
        recorded = data["kind"][e] <= 1  # skipped layers have no entry
        assert torch.equal(ages[recorded], data["counter_after"][e].int()[recorded]), f"staleness after step {e}"


def check_details(heard: Recorder, data: dict[str, Tensor]) -> None:
    for i, (e, layer, step) in enumerate(data.get("detail_index", torch.empty(0)).tolist()):
        place, attn = place_of(e, layer), place_of(e, layer, "attn")
        assert step == heard.cache.plan.num_steps - 1 - e
        q, k, v = heard.attended[max(at for at in heard.attended if at[0] <= e and at[1:] == attn[1:])][:3]
        mlp = heard.inside[place]
        found = dict(x_in=mlp["input"], mlp_cache_before=mlp["stored"], mlp_cache_after=mlp["output"])
        found |= dict(attn_cache=heard.inside[attn]["output"], attn_colsum=attention_with_mass(q, k, v)[1])
        found["attn_map"] = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
        if heard.ages:
            found["counter_before"], found["counter_after"] = heard.ages_around(place)
        if place in heard.chosen:
            found["score_s1_s3"], found["score_final"] = heard.scores[place]
            found["selected"] = indices(heard.chosen[place])
        else:
            assert data[f"d{i}_selected"].numel() == 0
        for name in DETAILS & {key.removeprefix(f"d{i}_") for key in data}:
            if name in found:
                assert_close(found[name], data[f"d{i}_{name}"], tolerance_of(name), f"d{i}_{name}")
            else:  # nobody reads them, so the engine makes none
                assert place not in heard.chosen and name in ("score_s1_s3", "score_final", "selected", "counter_before", "counter_after")


def tolerance_of(name: str) -> float:
    """Selections and staleness are exact."""
    if "selected" in name or "counter" in name:
        return 0.0
    return SCORES if "score" in name or "attn_colsum" in name or "attn_map" in name else ACTIVATIONS
