"""Replay one sampling case and compare everything the reference run wrote down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import load_model, method_of, tensors
from torch import Tensor

from pixart.solvers import DPMS, IDDPM, SASolverSampler
from pixart.spec import pixart_spec
from toca.engine.cache import Cache
from toca.engine.selection import Uniform
from toca.planning.plan import Kind
from toca.testing.golden import assert_close
from toca.testing.replay import Place, Recorder, drawn, indices, margins

BRANCHES = ("cross_attn", "mlp")
TIMES, INSIDE, TRAJECTORY = 1e-6, 2e-4, 2e-5  # tolerances
INSIDES = dict(module_input="input", cache_after="output")
CODES = {Kind.FULL: 1, Kind.PARTIAL: 0, Kind.REUSE: 0, Kind.SKIP: 2}
INPUTS = {"noise", "caption_embs", "mask", "img_hw", "aspect_ratio", "step_noise", "rand_scores"}
RECORDS = {"timesteps", "latents", "model_out", "model_out_steps", "final"}
RECORDS |= {"full", "topk", "selected_packed", "margin_boundary", "margin_block"}
PROBED = ("score", "score_bonus", "indices", "counter_before", "counter_after", "module_input", "cache_after")
PROBE = re.compile(rf"probe\.(\d+)\.(\d+)\.(cross-attn|mlp)\.({'|'.join(PROBED)})")


def place_of(step: int, layer: int, name: str) -> Place:
    return step, "blocks", layer, name.replace("-", "_")


@dataclass
class Calls:
    """What the model was asked, and what it said. latents: entering every call, and the result."""

    timesteps: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def model(self, forward: Callable[..., Tensor], heard: Recorder) -> Callable[..., Tensor]:
        """The same model, listened to."""

        def call(x: Tensor, t: Tensor, y: Tensor, **kwargs: Any) -> Tensor:
            self.timesteps.append(float(t[0]))
            self.latents.append(x)
            self.outputs.append(forward(x, t, y, cache=heard.cache, **kwargs))
            heard.look()
            return self.outputs[-1]

        return call


def tokenwise_passes(data: dict[str, Tensor]) -> Iterator[tuple[int, int]]:
    yield from ((e, layer) for e, layer in (data["full"] == 0).nonzero().tolist())


def given_draws(data: dict[str, Tensor]) -> dict[str, Uniform]:
    """The uniform draws of the reference run for every branch, both halves alike."""
    passes, draws = list(tokenwise_passes(data)), data["rand_scores"].unflatten(0, (-1, len(BRANCHES)))  # (passes, branches, R/2, N)
    assert len(passes) == len(draws)
    return {name: drawn(dict(zip(passes, draws[:, at].repeat(1, 2, 1)))) for at, name in enumerate(BRANCHES)}


def replay(case: dict[str, Any], data: dict[str, Tensor], patch: pytest.MonkeyPatch) -> tuple[Recorder, Calls]:
    """Run the case; the last latents are the result, of all rows the sampler keeps."""
    model, steps, noise, g = load_model(case["weights"], case["input_size"]), case["steps"], data["noise"], case["cfg_scale"]
    text = data["caption_embs"]
    null = model.y_embedder.y_embedding[: text.shape[1]].expand_as(text)
    kwargs = dict(mask=data.get("mask"), data_info=dict(img_hw=data["img_hw"], aspect_ratio=data["aspect_ratio"]))
    spec = pixart_spec(model.config, tuple(case["latent_hw"]), text.shape[1])
    with Cache(spec, method_of(case), steps, uniform=given_draws(data) if "rand_scores" in data else None) as cache:
        heard = Recorder(cache, {place_of(int(m[1]), int(m[2]), m[3]) for m in map(PROBE.fullmatch, data) if m})
        heard.listen(patch)
        calls = Calls()
        if case["sampler"] == "dpm":
            final = DPMS(calls.model(model.forward_with_dpmsolver, heard), text, null, g, kwargs).sample(noise, steps)
        elif case["sampler"] == "sa":
            sampler = SASolverSampler(calls.model(model.forward_with_dpmsolver, heard))
            final = sampler.sample(noise, text, null, g, steps, kwargs, draws=lambda step: data["step_noise"][step])
        else:
            assert case["sampler"] == "iddpm", f"a sampler this runner does not know: {case['sampler']}"
            z, options = torch.cat([noise, noise]), dict(noise_fn=lambda i, _: data["step_noise"][steps - 1 - i])
            y = torch.cat([text, null])
            network = calls.model(model.forward_with_cfg, heard)
            final = IDDPM(str(steps)).p_sample_loop(network, z.shape, z, model_kwargs=kwargs | dict(y=y, cfg_scale=g), **options)
    calls.latents.append(final)
    return heard, calls


def check_case(case: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    data = tensors(case["file"])
    unknown = {name for name in data if name not in INPUTS | RECORDS and not PROBE.fullmatch(name)}
    assert not unknown, f"tensors this runner does not know: {unknown}"
    assert ("mask" in data) == case["uses_mask"] and len(data["noise"]) == case["batch"]
    heard, calls = replay(case, data, patch)

    assert_close(torch.tensor(calls.timesteps), data["timesteps"], TIMES)
    last = case["steps"]  # model calls that can be compared: all, or those up to a near-tie decided the other way
    if "full" in data:
        check_plan(heard.cache, data)
        last = check_selections(heard, data)
        check_probes(heard, {name: value for name, value in data.items() if (m := PROBE.fullmatch(name)) and int(m[1]) < last})
    else:
        assert not heard.chosen
    rows = data["latents"].shape[1]
    assert_close(torch.stack([x[:rows] for x in calls.latents[: last + 1]]), data["latents"][: last + 1], TRAJECTORY, "latents")
    for e, expected in zip(data["model_out_steps"].tolist(), data["model_out"], strict=True):
        if e < last:
            assert_close(calls.outputs[e], expected, INSIDE, f"model output {e}")
    if last == case["steps"]:
        assert_close(calls.latents[-1][: case["batch"]], data["final"], TRAJECTORY, "final")


def check_plan(cache: Cache, data: dict[str, Tensor]) -> None:
    layers = range(cache.spec.stacks[0].depth)
    actions = [[[row["blocks", layer, name] for name in BRANCHES] for layer in layers] for row in cache.plan.steps]
    for branch in range(2):
        assert [[CODES[layer[branch].kind] for layer in step] for step in actions] == data["full"].tolist()
    tokens = torch.tensor([[[action.tokens for action in layer] for layer in step] for step in actions])
    cached = data["full"] == 0
    assert torch.equal(tokens[cached], data["topk"][cached].clamp_min(0).long())
    assert (data["topk"][~cached] == -1).all()


def check_selections(heard: Recorder, data: dict[str, Tensor]) -> int:
    """Exact up to a near-tie of the reference that fell otherwise; returns the step of that, or the number of steps. Margins too."""
    spec = heard.cache.spec
    tokens, block = spec.hidden[0], heard.cache.method.ranking(spec).block
    expected = torch.from_numpy(np.unpackbits(data["selected_packed"].numpy(), axis=-1, count=tokens)).bool()  # (S, L, 2, R, N)
    grid = spec.stacks[0].branch("mlp").grid
    for e, layer in tokenwise_passes(data):
        for at, name in enumerate(BRANCHES):
            place, given = place_of(e, layer, name), [data[f"margin_{kind}"][e, layer, at].item() for kind in ("boundary", "block")]
            if data["topk"][e, layer, at] in (-1, 0, tokens):
                whole = data["topk"][e, layer, at] == tokens
                assert expected[e, layer, at].all() == whole and (whole or place not in heard.chosen)
                continue
            if not torch.equal(heard.chosen[place], expected[e, layer, at]):
                assert min(given) <= 1e-6, f"selection at {place}, whose margins are {given}"
                return e
            assert margins(heard.scores[place], heard.chosen[place], grid, block) == pytest.approx(tuple(given), abs=1e-5), (
                f"margins at {place}"
            )
    return heard.cache.plan.num_steps


def check_probes(heard: Recorder, probes: dict[str, Tensor]) -> None:
    for key, expected in probes.items():
        _, step, layer, module, what = key.split(".")
        place, rows = place_of(int(step), int(layer), module), len(expected)
        if what in INSIDES:
            assert_close(heard.inside[place][INSIDES[what]], expected, INSIDE, key)
        elif what.startswith("counter"):
            ages = heard.ages_around(place)[what == "counter_after"]
            assert_close(ages.repeat(rows // len(ages), 1), expected, name=key)
        elif place in heard.chosen and not heard.chosen[place].all():
            before, final = (score.repeat(rows // len(score), 1) for score in heard.scores[place])
            found = dict(score=before, score_bonus=final, indices=indices(heard.chosen[place]))
            assert_close(found[what], expected, 0 if what == "indices" else 1e-5, key)
        else:  # all tokens are computed, so scores need not agree
            assert heard.cache.plan.steps[place[0]][place[1:]].tokens == heard.cache.spec.hidden[0]
            assert what != "indices" or expected.shape[1] == heard.cache.spec.hidden[0]
