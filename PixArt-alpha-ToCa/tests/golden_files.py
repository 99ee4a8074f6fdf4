"""The reference files beside the sampling cases."""

from __future__ import annotations

import pytest
import torch
from golden_data import load_model, read_json, tensors

from pixart.model import position_table
from pixart.spec import PixArtConfig, pixart_spec
from toca.engine.attention import attention_with_mass
from toca.engine.cache import Cache
from toca.engine.selection import spatial_bonus
from toca.methods import ToCa
from toca.planning.scores import undecided
from toca.testing.golden import assert_close
from toca.testing.replay import Recorder, outputs_of


@torch.no_grad()
def check_forward(file: str) -> None:
    """One uncached pass, with activations from inside."""
    data, model = tensors(file), load_model("weights_ms.safetensors" if "_ms" in file else "weights.safetensors")
    block, inputs = model.blocks[0], {}
    modules = {"x_embedder_out": model.x_embedder, "t_embedder_out": model.t_embedder, "t_block_out": model.t_block}
    modules |= {"y_embedder_out": model.y_embedder, "final_layer_out": model.final_layer, "block27_out": model.blocks[27]}
    modules |= {"block0_attn_out": block.attn, "block0_cross_attn_out": block.cross_attn, "block0_mlp_out": block.mlp, "block0_out": block}
    if "_ms" in file:
        modules |= {"csize_embedder_out": model.csize_embedder, "ar_embedder_out": model.ar_embedder}
    hook = block.register_forward_pre_hook(lambda _, args: inputs.update(block0_in=args[0]))
    sizes = {name: data[name] for name in ("img_hw", "aspect_ratio") if name in data}
    with outputs_of(modules) as seen:
        out = model(data["x"], data["timestep"], data["y"], data["mask"], sizes)
    hook.remove()
    seen |= inputs | dict(pos_embed=model.positions(model.config.grid(tuple(data["x"].shape[2:]))), out=out)
    assert data.keys() - {"x", "timestep", "y", "mask", "img_hw", "aspect_ratio"} <= seen.keys()
    for name in data.keys() & seen.keys():
        assert_close(seen[name].expand_as(data[name]), data[name], 2e-5, name)


@torch.no_grad()
def check_cross_score(file: str) -> None:
    """Maps, entropies and scores of one layer of a full pass, by images of two rows."""
    data, model, layer = tensors(file), load_model("weights.safetensors"), 11
    spec = pixart_spec(model.config, text_tokens=data["y"].shape[1])
    with pytest.MonkeyPatch.context() as patch, Cache(spec, ToCa(3, 0.3), 4) as cache:
        heard = Recorder(cache, [(0, "blocks", layer, "mlp")])
        heard.listen(patch)
        model(data["x"], data["timestep"], data["y"], data["mask"], cache=cache)
        entropies = [cache.selector("blocks", name).base[layer] for name in ("cross_attn", "mlp")]
    q, k, _, mask = heard.attended[0, "blocks", layer, "cross_attn"]
    logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask[:, None, None], -torch.inf)
    score = undecided(entropies[0])
    seen = dict(head_mean_map=logits.softmax(dim=-1).mean(dim=1), entropy=entropies[0], score=score.repeat(2, 1))
    seen |= dict(score_bonus=spatial_bonus(score, model.config.grid(), 4, 0.4).repeat(2, 1))
    seen |= dict(self_attn_colsum=attention_with_mass(*heard.attended[0, "blocks", layer, "attn"][:3])[1])
    assert torch.equal(*entropies)
    assert data.keys() - {"x", "timestep", "y", "mask"} == seen.keys()
    for name, found in seen.items():
        assert_close(found, data[name], 1e-5 if name.startswith("score") else 2e-5, name)


def check_positions(file: str) -> None:
    """Samples and sums of the full-size position tables."""
    for name, table in read_json(file).items():
        config = PixArtConfig(input_size=2 * table["base_size"], lewei_scale=table["lewei_scale"])
        found = position_table(config, tuple(table["grid_hw"]))[0]
        expected = torch.tensor(table["values"])
        assert_close(found[table["tokens"]][:, table["dims"]], expected, 2e-5, name)
        assert found.double().sum().item() == pytest.approx(table["sum"], abs=1.0), name
        assert found.double().abs().sum().item() == pytest.approx(table["abs_sum"], abs=1.0), name


CHECKS = {
    "unit_forward.safetensors": check_forward,
    "unit_forward_ms.safetensors": check_forward,
    "unit_cross_score.safetensors": check_cross_score,
    "pos_embed_samples.json": check_positions,
}
