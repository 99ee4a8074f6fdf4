"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import load_model, method_of, tensors
from torch import Tensor

from diffusion import DPMS, IDDPM, SASolverSampler
from pixart_spec import pixart_spec
from toca.engine.cache import BranchCache, Cache
from toca.engine.selection import Selector
from toca.planning.plan import Kind

BRANCHES = ("cross_attn", "mlp")
CODES = {Kind.FULL: 1, Kind.PARTIAL: 0, Kind.REUSE: 0, Kind.SKIP: 2}
INPUTS = {"noise", "caption_embs", "mask", "img_hw", "aspect_ratio", "step_noise", "rand_scores"}
RECORDS = {"timesteps", "latents", "model_out", "model_out_steps", "final"}
RECORDS |= {"full", "topk", "selected_packed", "margin_boundary", "margin_block"}
PROBED = ("score", "score_bonus", "indices", "counter_before", "counter_after", "module_input", "cache_after")
PROBE = re.compile(rf"probe\.(\d+)\.(\d+)\.(cross-attn|mlp)\.({'|'.join(PROBED)})")
Place = tuple[int, int, str]  # (step, layer, branch)


@dataclass
class Recorder:
    """What the engine did in a run, by place. `scores`: before and after the bonus; of an image where its rows are rated together."""

    probed: set[Place]
    timesteps: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)  # entering every model call
    outputs: list[Tensor] = field(default_factory=list)
    scores: dict[Place, tuple[Tensor, Tensor]] = field(default_factory=dict)
    chosen: dict[Place, Tensor] = field(default_factory=dict)  # (R, N) bool
    ages: dict[tuple[int, str], Tensor] = field(default_factory=dict)  # (L, rows, N) after a step
    inside: dict[Place, dict[str, Tensor]] = field(default_factory=dict)

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Overhear the engine's branches and ranking."""
        run_branch, rank = BranchCache.__call__, Selector.scores

        def branch(cache: BranchCache, f: Callable[..., Tensor], x: Tensor) -> Tensor:
            place = (cache.layer.cache.index, cache.layer.index, cache.branch.name)
            value = run_branch(cache, f, x)
            if place in self.probed:
                self.inside[place] = dict(module_input=x.clone(), cache_after=value.clone())
            return value

        def scores(selector: Selector, step: int, layers: range, *inputs: Tensor | None) -> Tensor:
            final, ranking = rank(selector, step, layers, *inputs), selector.ranking
            selector.ranking = replace(ranking, block=0)
            before = rank(selector, step, layers, *inputs).clone()
            selector.ranking = ranking
            name = selector.branch.name
            self.scores |= {(step, layer, name): (before[at], final[at]) for at, layer in enumerate(layers)}
            return final

        patch.setattr(BranchCache, "__call__", branch)
        patch.setattr(Selector, "scores", scores)

    def model(self, forward: Callable[..., Tensor], cache: Cache) -> Callable[..., Tensor]:
        """The same model, listened to."""

        def call(x: Tensor, t: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
            out = forward(x, t, y, cache=cache, **kwargs)
            self.timesteps.append(float(t[0]))
            self.latents.append(x)
            self.outputs.append(out)
            for name in BRANCHES:
                if selector := cache.selector("blocks", name):
                    self.ages[cache.index, name] = selector.staleness.clone()
                    for layer, count in enumerate(selector.counts[cache.index]):
                        if 0 < count < selector.branch.tokens:
                            mask = torch.zeros(len(x) * selector.branch.tokens, dtype=torch.bool)
                            mask[selector.chosen[layer]] = True
                            self.chosen[cache.index, layer, name] = mask.view(len(x), -1)
            return out

        return call


def tokenwise_passes(data: dict[str, Tensor]) -> Iterator[tuple[int, int]]:
    yield from ((e, layer) for e, layer in (data["full"] == 0).nonzero().tolist())


def given_draws(data: dict[str, Tensor]) -> dict[str, Callable[[int, range], Tensor]]:
    """The uniform draws of the reference run for every branch, both halves alike."""
    at = {place: data["rand_scores"][2 * i : 2 * i + 2] for i, place in enumerate(tokenwise_passes(data))}
    assert 2 * len(at) == len(data["rand_scores"])

    def draws(branch: int) -> Callable[[int, range], Tensor]:
        return lambda step, layers: torch.stack([at[step, layer][branch].repeat(2, 1) for layer in layers])

    return {name: draws(i) for i, name in enumerate(BRANCHES)}


def replay(case: dict[str, Any], data: dict[str, Tensor], patch: pytest.MonkeyPatch) -> tuple[Cache, Recorder]:
    """Run the case; the last of the recorder's latents is the result, of all rows the sampler keeps."""
    model, steps, noise, g = load_model(case["weights"], case["input_size"]), case["steps"], data["noise"], case["cfg_scale"]
    text = data["caption_embs"]
    null = model.y_embedder.y_embedding[: text.shape[1]].expand_as(text)
    kwargs = dict(mask=data.get("mask"), data_info=dict(img_hw=data["img_hw"], aspect_ratio=data["aspect_ratio"]))
    heard = Recorder({(int(m[1]), int(m[2]), m[3].replace("-", "_")) for m in map(PROBE.fullmatch, data) if m})
    heard.listen(patch)
    spec = pixart_spec(model.config, tuple(case["latent_hw"]), text.shape[1])
    with Cache(spec, method_of(case), steps, uniform=given_draws(data) if "rand_scores" in data else None) as cache:
        if case["sampler"] == "dpm":
            final = DPMS(heard.model(model.forward_with_dpmsolver, cache), text, null, g, kwargs).sample(noise, steps)
        elif case["sampler"] == "sa":
            sampler = SASolverSampler(heard.model(model.forward_with_dpmsolver, cache))
            final = sampler.sample(noise, text, null, g, steps, kwargs, draws=lambda step: data["step_noise"][step])
        else:
            assert case["sampler"] == "iddpm", f"a sampler this runner does not know: {case['sampler']}"
            z, options = torch.cat([noise, noise]), dict(noise_fn=lambda i, _: data["step_noise"][steps - 1 - i])
            y = torch.cat([text, null])
            network = heard.model(model.forward_with_cfg, cache)
            final = IDDPM(str(steps)).p_sample_loop(network, z.shape, z, model_kwargs=kwargs | dict(y=y, cfg_scale=g), **options)
    heard.latents.append(final)
    return cache, heard


def check_case(case: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    data = tensors(case["file"])
    unknown = {name for name in data if name not in INPUTS | RECORDS and not PROBE.fullmatch(name)}
    assert not unknown, f"tensors this runner does not know: {unknown}"
    assert ("mask" in data) == case["uses_mask"] and len(data["noise"]) == case["batch"]
    cache, heard = replay(case, data, patch)

    torch.testing.assert_close(torch.tensor(heard.timesteps), data["timesteps"], atol=1e-3, rtol=0)
    last = case["steps"]  # model calls that can be compared: all, or those up to a near-tie decided the other way
    if "full" in data:
        check_plan(cache, data)
        last = check_selections(cache, heard, data)
        check_probes(cache, heard, {name: value for name, value in data.items() if (m := PROBE.fullmatch(name)) and int(m[1]) < last})
    else:
        assert not heard.chosen
    rows = data["latents"].shape[1]
    close("latents", torch.stack([x[:rows] for x in heard.latents[: last + 1]]), data["latents"][: last + 1], *trajectory(data["final"]))
    for e, expected in zip(data["model_out_steps"].tolist(), data["model_out"], strict=True):
        if e < last:
            close(f"model output {e}", heard.outputs[e], expected, 1e-3)
    if last == case["steps"]:
        close("final", heard.latents[-1][: case["batch"]], data["final"], *trajectory(data["final"]))


def trajectory(final: Tensor) -> tuple[float]:
    return (2e-3 + 2e-5 * final.abs().max().item(),)


def close(name: str, found: Tensor, expected: Tensor, atol: float = 0.0) -> None:
    torch.testing.assert_close(found.to(expected.dtype), expected, atol=atol, rtol=0, msg=lambda message: f"{name}: {message}")


def check_plan(cache: Cache, data: dict[str, Tensor]) -> None:
    layers = range(cache.spec.stacks[0].depth)
    actions = [[[row["blocks", layer, name] for name in BRANCHES] for layer in layers] for row in cache.plan.steps]
    for branch in range(2):
        assert [[CODES[layer[branch].kind] for layer in step] for step in actions] == data["full"].tolist()
    tokens = torch.tensor([[[action.tokens for action in layer] for layer in step] for step in actions])
    cached = data["full"] == 0
    assert torch.equal(tokens[cached], data["topk"][cached].clamp_min(0).long())
    assert (data["topk"][~cached] == -1).all()


def check_selections(cache: Cache, heard: Recorder, data: dict[str, Tensor]) -> int:
    """Exact up to a near-tie of the reference that fell otherwise; returns the step of that, or the number of steps. Margins too."""
    tokens, block = cache.spec.hidden[0], cache.method.ranking(cache.spec).block
    expected = torch.from_numpy(np.unpackbits(data["selected_packed"].numpy(), axis=-1, count=tokens)).bool()  # (S, L, 2, R, N)
    grid = cache.spec.stacks[0].branch("mlp").grid
    for e, layer in tokenwise_passes(data):
        for at, name in enumerate(BRANCHES):
            place, given = (e, layer, name), (data["margin_boundary"][e, layer, at].item(), data["margin_block"][e, layer, at].item())
            if data["topk"][e, layer, at] in (-1, 0, tokens):
                assert place not in heard.chosen and expected[e, layer, at].all() == (data["topk"][e, layer, at] == tokens)
                continue
            if not torch.equal(heard.chosen[place], expected[e, layer, at]):
                assert min(given) <= 1e-6, f"selection at {place}, whose margins are {given}"
                return e
            found = margins(*heard.scores[place], heard.chosen[place], grid, block)
            assert found == pytest.approx(given, abs=1e-5), f"margins at {place}"
    return cache.plan.num_steps


def margins(before: Tensor, final: Tensor, chosen: Tensor, grid: tuple[int, int], block: int) -> tuple[float, float]:
    """Smallest gaps: of the last chosen and the first rejected score, and of the two best in a cell."""
    chosen = chosen[: len(final)]
    rejected = final.masked_fill(chosen, -math.inf).amax(dim=-1)
    best = before.unflatten(-1, grid).unfold(-2, block, block).unfold(-2, block, block).flatten(-2).topk(2, dim=-1).values
    return (final.masked_fill(~chosen, math.inf).amin(dim=-1) - rejected).min().item(), (best[..., 0] - best[..., 1]).min().item()


def check_probes(cache: Cache, heard: Recorder, probes: dict[str, Tensor]) -> None:
    for key, expected in probes.items():
        _, step, number, module, what = key.split(".")
        e, layer, name = place = int(step), int(number), module.replace("-", "_")
        rows = len(expected)
        if what in ("module_input", "cache_after"):
            close(key, heard.inside[place][what], expected, 1e-3)
        elif what.startswith("counter"):
            ages = heard.ages[e if what == "counter_after" else e - 1, name][layer]
            close(key, ages.repeat(rows // len(ages), 1), expected)
        elif place in heard.chosen:
            before, final = (score.repeat(rows // len(score), 1) for score in heard.scores[place])
            found = dict(score=before, score_bonus=final, indices=heard.chosen[place].nonzero()[:, 1].view(rows, -1))
            close(key, found[what], expected, 0 if what == "indices" else 2e-6)
        else:  # all tokens are computed, so the engine rates none
            assert cache.plan.steps[e]["blocks", layer, name].tokens == cache.spec.hidden[0]
            assert what != "indices" or expected.shape[1] == cache.spec.hidden[0]
