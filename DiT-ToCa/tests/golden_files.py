"""The reference files beside the sampling cases: probes, scores, schedules, tables, a training step."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import replace

import torch
from golden_data import load_model, metadata, model_with, tensors
from golden_tables import check_tables
from torch import Tensor

from diffusion import create_diffusion
from dit.spec import DiTConfig, dit_spec
from dit.training.train import optimisers, update_ema
from toca.engine.selection import selector_for
from toca.methods import METHODS
from toca.planning.scores import SCORES
from toca.testing.golden import assert_close
from toca.testing.replay import outputs_of


@torch.no_grad()
def check_forward_probe(file: str) -> None:
    """Single uncached passes with activations from inside, and a guided one."""
    data = tensors(file)
    probed = {int(match[1]) for key in data if (match := re.match(r"block(\d+)_", key))}
    model = load_model(model_with(data, probed))
    modules = {"patch_tokens": model.x_embedder, "t_emb": model.t_embedder, "y_emb": model.y_embedder, "final_layer_out": model.final_layer}
    for layer in probed:
        block = model.blocks[layer]
        modules |= {f"block{layer}_attn_out": block.attn, f"block{layer}_mlp_out": block.mlp, f"block{layer}_out": block}
    with outputs_of(modules) as seen:
        out = model(data["x"], data["t"], data["y"])
    seen |= dict(pos_embed=model.pos_embed, out=out, t_freq=model.t_embedder.timestep_embedding(data["t"], data["t_freq"].shape[1]))
    for layer in probed:
        seen[f"block{layer}_modulation"] = model.blocks[layer].adaLN_modulation(seen["t_emb"] + seen["y_emb"])
    scale = float(metadata(file)["cfg_scale"])
    guided = data["cfg_in"], data["cfg_t"], data["cfg_y"]
    half = guided[0].chunk(2)[0]
    seen["cfg_raw"] = model(torch.cat([half, half]), *guided[1:])
    seen[f"cfg_out_scale{scale:g}"] = model.forward_with_cfg(*guided, cfg_scale=scale)
    assert data.keys() - {"x", "t", "y", "cfg_in", "cfg_t", "cfg_y"} <= seen.keys()
    for name in data.keys() & seen.keys():
        assert_close(seen[name], data[name], 1e-4, name)


def check_scores(file: str) -> None:
    """Every score with and without staleness, after either bonus, and the tokens chosen."""
    data, notes = tensors(file), metadata(file)
    rows, tokens = data["counter"].shape
    side = int(tokens**0.5)
    spec = dit_spec(DiTConfig(1, 8, 1, 1, input_size=side))
    inputs = {
        "attention": data["attn_map"].sum(dim=1),
        "kv-norm": data["v_norm"][..., None],  # vectors of length one have these norms
        "norm": data["tokens"],
        "similarity": (data["tokens"], data["cached_mlp"]),
    }
    checked = {"attn_map", "counter", "tokens", "cached_mlp", "v_norm"}
    for key in data.keys() - checked:
        name, force, what = re.fullmatch(r"(.+)_(global|local)(?:_(bonus\d+|top\d+))?", key).groups()
        method_name = "duca" if what == "bonus08" else "toca"
        settings = dict(interval=int(notes["fresh_threshold"]), soft_fresh_weight=float(notes["soft_fresh_weight"]))
        method = METHODS[method_name](score=name, force_fresh=force, upstream_exact=True, ratio_schedule="constant", ratio=0.5, **settings)
        ranking = method.ranking(spec)
        assert what != "bonus06" or (ranking.bonus, ranking.block) == (0.6, int(notes["grid"]))
        stack = spec.stacks[0]
        plan = method.plan(spec, 9)
        selector = selector_for(plan, stack, stack.branch("mlp"), ranking, rows, torch.device("cpu"))
        base = SCORES[name].base(*inputs[name]) if name == "similarity" else SCORES[name].base(inputs[name])
        if selector.score.from_attention:
            selector.base[0] = base
        if what is None:
            selector.ranking = replace(ranking, block=0)
        final = selector.scores(1, range(1), data["counter"][None], base[None] if selector.score.from_input else None)[0]
        if what and what.startswith("top"):
            final = final.topk(int(what[3:])).indices.sort(dim=-1).values
        assert_close(final, data[key], 0 if what and what.startswith("top") else 5e-6, key)


def check_schedules(file: str) -> None:
    """The samplers' tables and kept timesteps, by the respacing they belong to."""
    for key, expected in tensors(file).items():
        respacing, table = re.fullmatch(r"((?:ddim)?[\d_]+?)_([a-z]\w+)", key).groups()
        diffusion = create_diffusion(respacing.replace("_", ","))
        if table == "timestep_map":
            assert diffusion.timestep_map == expected.tolist(), key
        else:
            torch.testing.assert_close(torch.from_numpy(getattr(diffusion, table)), expected, atol=0, rtol=1e-9, msg=key)


def check_train_step(file: str) -> None:
    """Loss terms and gradients of a batch, the weights after AdamW, and their moving average. Labels come with dropout applied."""
    data, names = tensors(file), json.loads(metadata(file)["grad_norm_names"])
    depth = 1 + max(int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name)))
    model = deepcopy(load_model(model_with(data, {depth - 1})))
    ema = deepcopy(model).requires_grad_(False)
    diffusion, outputs = create_diffusion(), []

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        outputs.append((x, model(x, t, y)))
        return outputs[-1][1]

    losses = diffusion.training_losses(network, data["x_start"], data["t"], dict(y=data["y"]), data["noise"])
    losses["loss"].mean().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(trained) == names
    found = losses | dict(x_t=outputs[0][0], model_out=outputs[0][1], grad_norms=torch.stack([p.grad.norm() for p in trained.values()]))
    found |= {f"grad.{name}": p.grad for name, p in trained.items()}
    for optimiser in optimisers(model, "adamw", 1e-4):
        optimiser.step()
    update_ema(ema, model, 0.9999)
    for prefix, net in (("after_step.", model), ("ema_after_step.", ema)):
        found |= {prefix + name: p for name, p in net.named_parameters()}
    assert data.keys() - {"x_start", "noise", "t", "y"} <= found.keys()
    for name in data.keys() & found.keys():
        assert_close(found[name], data[name], 2e-6 if "after_step" in name else 1e-5, name)


CHECKS = {
    "forward_probe.safetensors": check_forward_probe,
    "scores_unit.safetensors": check_scores,
    "schedules.safetensors": check_schedules,
    "tables.json": check_tables,
    "train_step.safetensors": check_train_step,
}
