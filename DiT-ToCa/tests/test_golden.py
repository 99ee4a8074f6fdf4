"""Replay the reference runs: kinds, counts, staleness, selections, outputs, finals.

The folder is TOCA_GOLDEN_DIR, else the full set beside the repository, else the copy in tests/golden.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dit_spec import DiTConfig, dit_spec
from diffusion import create_diffusion
from models import DiT
from toca.cache import Cache
from toca.flops import total_flops
from toca.methods import DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.plan import Kind
from toca.spec import HIDDEN
from toca.weights import load_into

HERE = Path(__file__).parent
CANDIDATES = [Path(os.environ[k]) for k in ("TOCA_GOLDEN_DIR",) if k in os.environ] + [
    HERE.parents[2] / "shared" / "golden" / "dit",
    HERE / "golden",
]
GOLDEN = next(folder for folder in CANDIDATES if (folder / "cases.json").exists() or folder is CANDIDATES[-1])
CASES = {case["name"]: case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"] if (GOLDEN / case["file"]).exists()}
CODES = {Kind.FULL: 0, Kind.PARTIAL: 1, Kind.REUSE: 1, Kind.SKIP: 2, Kind.FORECAST: 3}


def load_model(weights: str) -> DiT:
    c = json.loads((GOLDEN / "config.json").read_text())[weights]
    keys = ("depth", "hidden_size", "num_heads", "patch_size", "input_size", "in_channels", "num_classes", "mlp_ratio", "class_dropout_prob", "learn_sigma")
    model = DiT(DiTConfig(**{key: c[key] for key in keys})).eval()
    load_into(model, load_file(GOLDEN / c["file"]), c["file"])
    return model


def method_of(case: dict) -> Method:
    """The engine's method for upstream's variant and flags; a case it does not understand is an error."""
    kw = dict(case["kw"])
    if case["variant"] == "orig":
        assert not kw
        return NoCaching()
    if case["variant"] == "taylor":
        return TaylorSeer(interval=kw.pop("interval"), order=kw.pop("max_order"))
    settings = dict(
        interval=kw.pop("fresh_threshold"),
        ratio=kw.pop("fresh_ratio"),
        ratio_schedule=kw.pop("ratio_scheduler"),
        score=kw.pop("cache_type"),
        soft_fresh_weight=kw.pop("soft_fresh_weight"),
        force_fresh=kw.pop("force_fresh"),
        upstream_exact=not case["stepwise"],
    )
    assert not kw, f"flags this runner does not know: {kw}"
    return {"toca": ToCa, "duca": DuCa}[case["variant"]](**settings)


def given_draws(data: dict, rows: int):
    """The uniform draws of the reference run, [M, R/2, N] at their (step, layer), for both halves."""
    at = {tuple(place): scores for place, scores in zip(data["random_scores_at"].tolist(), data["random_scores"])}
    return lambda step, layers: torch.stack([at[step, layer].repeat(rows // at[step, layer].shape[0], 1) for layer in layers])


@pytest.mark.parametrize("name", CASES)
def test_sampling_case(name: str) -> None:
    case = CASES[name]
    data = load_file(GOLDEN / case["file"])
    model, steps, cfg = load_model(case["weights"]), case["steps"], case["use_cfg"]
    diffusion = create_diffusion(str(steps))
    spec = dit_spec(model.config, "ddim" if case["ddim"] else "ddpm")
    rows = case["B"] * (2 if cfg else 1)
    double = (lambda x: torch.cat([x, x])) if cfg else (lambda x: x)
    y = torch.cat([data["y"], torch.full_like(data["y"], model.num_classes)]) if cfg else data["y"]
    uniform = given_draws(data, rows) if "random_scores" in data else None
    noise = (lambda i, shape: double(data["noise"][steps - 1 - i])) if "noise" in data else None
    options = dict(noise=double(data["z"]), noise_fn=noise)
    loop = diffusion.p_sample_loop_progressive
    if case["ddim"]:
        loop, options["eta"] = diffusion.ddim_sample_loop_progressive, case["eta"]
    assert torch.equal(torch.tensor(diffusion.timestep_map[::-1]), data["timesteps"].long())

    method = method_of(case)
    outputs, chosen, counters = [], {}, {}
    with Cache(spec, method, steps, uniform=uniform) as cache:
        kwargs = dict(y=y, cache=cache)
        network = model
        if cfg:
            network, kwargs = model.forward_with_cfg, kwargs | dict(cfg_scale=case["cfg_scale"])
        for e, step in enumerate(loop(network, options["noise"].shape, model_kwargs=kwargs, **options)):
            outputs.append(step["model_out"])
            selector = cache.selector("blocks", "mlp")
            if selector:
                chosen[e] = [rows.clone() if k else None for rows, k in zip(selector.chosen, selector.counts[e])]
                counters[e] = selector.staleness.clone()

    if "kind" in data:
        check_plan(cache, data)
    if "upstream_flops_counter" in case:
        assert total_flops(cache.plan, "upstream", rows) == case["upstream_flops_counter"]
    if "selected_packed" in data:
        check_selections(data, chosen, rows, model.config.num_tokens)
    if "counter_after" in data:
        for e, counter in counters.items():
            recorded = data["kind"][e] <= 1  # skipped layers have no entry
            assert torch.equal(counter[recorded], data["counter_after"][e].int()[recorded]), f"staleness after step {e}"
    images = case["B"]
    for e, expected in zip(data["out_index"].tolist(), data["model_out"]):
        torch.testing.assert_close(outputs[e][:images], expected, atol=1e-4, rtol=0)
    if "model_out_uncond_half" in data:
        for e, expected in zip(data["out_index"].tolist(), data["model_out_uncond_half"]):
            torch.testing.assert_close(outputs[e][images:], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(step["sample"][:images], data["final"], atol=1e-4, rtol=0)


def check_plan(cache: Cache, data: dict) -> None:
    for e, row in enumerate(cache.plan.steps):
        for layer in range(data["kind"].shape[1]):
            action = row["blocks", layer, "mlp"]
            assert CODES[action.kind] == data["kind"][e, layer], (e, layer)
            if "topk" in data and CODES[action.kind] == 1:
                assert action.tokens == data["topk"][e, layer], (e, layer)
        assert (row[HIDDEN].kind is Kind.FULL) == (CODES[row["blocks", cache.plan.spec.stacks[0].depth - 1, "mlp"].kind] != 2)


def check_selections(data: dict, chosen: dict, rows: int, tokens: int) -> None:
    """Exact wherever the reference's own margins are above rounding."""
    compared = 0
    for e, layers in chosen.items():
        for layer, flat in enumerate(layers):
            mask = np.unpackbits(data["selected_packed"][e, layer].numpy(), axis=-1)[:, :tokens].astype(bool)
            if flat is None or min(data["margin_boundary"][e, layer], data["margin_block"][e, layer]) <= 1e-6:
                continue
            ours = np.zeros(rows * tokens, dtype=bool)
            ours[flat.numpy()] = True
            assert np.array_equal(ours.reshape(rows, tokens), mask), f"step {e}, layer {layer}"
            compared += 1
    assert compared or not any(data["topk"].flatten() > 0)
