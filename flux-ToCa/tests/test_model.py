"""The model: published shapes, agreement with diffusers, and what must hold of every method and score."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small import GRID, IMG_TOKENS, SMALL, SPEC, TXT_TOKENS, inputs, sample, small_flux, some
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flux.model import Flux, FluxParams
from flux.modules.lora import LinearLora, merge, replace_linear_with_lora
from flux.spec import CONFIGS, flux_spec
from toca.engine.cache import Cache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import executed_flops, total_flops, uncached_flops
from toca.planning.memory import Held, predict
from toca.planning.scores import SCORES

PUBLISHED_KEYS = json.loads((Path(__file__).parent / "golden" / "model_keys.json").read_text())  # name -> key -> shape
MODEL = small_flux()
DATA = inputs(2)
METHODS = [FORA(3), TaylorSeer(3, 2), *(cls(3, 0.3, score=score) for cls in (ToCa, DuCa) for score in SCORES)]
every_method = pytest.mark.parametrize("method", METHODS, ids=[f"{m.name}-{m.score}" if isinstance(m, ToCa) else m.name for m in METHODS])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


UNCACHED = sample(MODEL, None, DATA)


# ---- the plain model --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published", "parameters"),
    [
        ("flux-dev", "flux-dev", 11_901_408_320),
        ("flux-dev-krea", "flux-dev", 11_901_408_320),
        ("flux-schnell", "flux-schnell", 11_891_178_560),
        ("flux-dev-canny", "flux-dev-canny", 11_901_604_928),
        ("flux-dev-depth", "flux-dev-canny", 11_901_604_928),
        ("flux-dev-canny-lora", "flux-dev-canny", 11_901_604_928),
        ("flux-dev-depth-lora", "flux-dev-canny", 11_901_604_928),
        ("flux-dev-fill", "flux-dev-fill", 11_902_391_360),
    ],
)
def test_keys_and_shapes_are_the_published_ones(name: str, published: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Flux(CONFIGS[name])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == PUBLISHED_KEYS[published]
    assert sum(p.numel() for p in model.parameters()) == parameters


def diffusers_keys(params: FluxParams) -> Iterator[tuple[str, str]]:
    """(ours, diffusers') names of modules without fused linears or swapped halves."""
    yield from (("img_in", "x_embedder"), ("txt_in", "context_embedder"), ("final_layer.linear", "proj_out"))
    embedders = {"time_in": "timestep_embedder", "vector_in": "text_embedder"}
    for ours, theirs in (embedders | ({"guidance_in": "guidance_embedder"} if params.guidance_embed else {})).items():
        yield f"{ours}.in_layer", f"time_text_embed.{theirs}.linear_1"
        yield f"{ours}.out_layer", f"time_text_embed.{theirs}.linear_2"
    for i in range(params.depth):
        ours, theirs = f"double_blocks.{i}", f"transformer_blocks.{i}"
        yield f"{ours}.img_mod.lin", f"{theirs}.norm1.linear"
        yield f"{ours}.txt_mod.lin", f"{theirs}.norm1_context.linear"
        yield f"{ours}.img_attn.proj", f"{theirs}.attn.to_out.0"
        yield f"{ours}.txt_attn.proj", f"{theirs}.attn.to_add_out"
        for stream, ff in (("img", "ff"), ("txt", "ff_context")):
            yield f"{ours}.{stream}_mlp.0", f"{theirs}.{ff}.net.0.proj"
            yield f"{ours}.{stream}_mlp.2", f"{theirs}.{ff}.net.2"
    for i in range(params.depth_single_blocks):
        yield f"single_blocks.{i}.modulation.lin", f"single_transformer_blocks.{i}.norm.linear"
        yield f"single_blocks.{i}.linear2", f"single_transformer_blocks.{i}.proj_out"


def from_diffusers(state: dict[str, Tensor], params: FluxParams) -> dict[str, Tensor]:
    ours = {f"{a}.{part}": state[f"{b}.{part}"] for a, b in diffusers_keys(params) for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        scale, shift = state[f"norm_out.linear.{part}"].chunk(2)
        ours[f"final_layer.adaLN_modulation.1.{part}"] = torch.cat((shift, scale))
        for i in range(params.depth):
            attn = f"transformer_blocks.{i}.attn"
            fused = {"img": ("to_q", "to_k", "to_v"), "txt": ("add_q_proj", "add_k_proj", "add_v_proj")}
            for stream, names in fused.items():
                ours[f"double_blocks.{i}.{stream}_attn.qkv.{part}"] = torch.cat([state[f"{attn}.{name}.{part}"] for name in names])
        for i in range(params.depth_single_blocks):
            block = f"single_transformer_blocks.{i}"
            names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
            ours[f"single_blocks.{i}.linear1.{part}"] = torch.cat([state[f"{block}.{name}.{part}"] for name in names])
    for side, short in (("query", "q"), ("key", "k")):
        for i in range(params.depth):
            attn = f"transformer_blocks.{i}.attn"
            ours[f"double_blocks.{i}.img_attn.norm.{side}_norm.scale"] = state[f"{attn}.norm_{short}.weight"]
            ours[f"double_blocks.{i}.txt_attn.norm.{side}_norm.scale"] = state[f"{attn}.norm_added_{short}.weight"]
        for i in range(params.depth_single_blocks):
            ours[f"single_blocks.{i}.norm.{side}_norm.scale"] = state[f"single_transformer_blocks.{i}.attn.norm_{short}.weight"]
    return ours


@pytest.mark.parametrize("guidance", [True, False])
@torch.no_grad()
def test_a_diffusers_model_agrees(guidance: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    params = SMALL.replace(guidance_embed=guidance)
    torch.manual_seed(0)
    theirs = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=params.in_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.head_dim,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=guidance,
        axes_dims_rope=params.axes_dim,
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.8 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    model = Flux(params).eval()
    model.load_state_dict(from_diffusers(theirs.state_dict(), params))
    t = torch.tensor([0.71, 0.2])
    expected = theirs(
        hidden_states=DATA["img"],
        encoder_hidden_states=DATA["txt"],
        pooled_projections=DATA["y"],
        timestep=t,
        img_ids=DATA["img_ids"][0],
        txt_ids=DATA["txt_ids"][0],
        guidance=DATA["guidance"] if guidance else None,
        return_dict=False,
    )[0]
    torch.testing.assert_close(model(timesteps=t, **DATA), expected, atol=5e-4, rtol=0)  # they round the sinusoids otherwise


def test_wrong_inputs_are_refused() -> None:
    t = torch.ones(2)
    with pytest.raises(ValueError, match="guidance"):
        MODEL(timesteps=t, **{**DATA, "guidance": None})
    with pytest.raises(ValueError, match="tokens, channels"):
        MODEL(timesteps=t, **{**DATA, "img": DATA["img"][0]})
    with pytest.raises(ValueError, match="axes_dim"):
        Flux(SMALL.replace(axes_dim=(4, 6, 8)))
    with pytest.raises(ValueError, match="heads"):
        Flux(SMALL.replace(num_heads=3))
    with torch.no_grad(), Cache(SPEC, FORA(3), 4) as cache, pytest.raises(RuntimeError, match="spec says"):
        MODEL(timesteps=t, **{**DATA, "txt": DATA["txt"][:, 1:], "txt_ids": DATA["txt_ids"][:, 1:]}, cache=cache)


# ---- caching ----------------------------------------------------------------------------------------------------------------------------


@every_method
def test_every_method_changes_the_result_a_little(method: Method) -> None:
    difference = (sample(MODEL, method, DATA) - UNCACHED).abs().max() / UNCACHED.abs().max()
    assert 2e-4 < difference < 1


NOTHING_CACHED = [NoCaching(), FORA(1), TaylorSeer(1)]
NOTHING_CACHED += [cls(score=score, ratio=1.0) for cls in (ToCa, DuCa) for score in SCORES]
NOTHING_CACHED += [cls(score=score, interval=1) for cls in (ToCa, DuCa) for score in SCORES]


@pytest.mark.parametrize("method", NOTHING_CACHED, ids=repr)
def test_methods_that_cache_nothing_equal_no_cache(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, DATA), UNCACHED)


@every_method
def test_a_batch_equals_its_images(method: Method) -> None:
    data = inputs(3)
    together = sample(MODEL, method, data, seeds=(7, 8, 9))
    for i in range(3):
        close(sample(MODEL, method, some(data, [i]), seeds=(7 + i,)), together[i : i + 1])


@every_method
def test_a_second_run_equals_the_first_and_precomputing_changes_nothing(method: Method) -> None:
    first = sample(MODEL, method, DATA)
    assert torch.equal(sample(MODEL, method, DATA), first)
    close(sample(MODEL, method, DATA, precompute=True), first)


@every_method
@pytest.mark.parametrize("precompute", [False, True])
def test_predicted_bytes_are_held(method: Method, precompute: bool) -> None:
    held: list[Held] = []
    sample(MODEL, method, DATA, 9, precompute, lambda cache: held.append(cache.held))
    plan = method.plan(SPEC, 9)
    assert held == predict(plan, method, 2, 4, modulation_budget=2**28 if precompute else 0)
    assert any(h.outputs for h in held) and bool(held[0].modulation) == precompute


def test_half_precision_halves_what_the_model_computed() -> None:
    held, method = [], DuCa(4, 0.3)
    sample(small_flux().bfloat16(), method, DATA, 9, after_step=lambda cache: held.append(cache.held))
    assert held == predict(method.plan(SPEC, 9), method, 2, 2, modulation_budget=0)


@every_method
def test_planned_flops_are_those_of_a_run(method: Method) -> None:
    plan = method.plan(SPEC, 9)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it is blind to the fused kernel of CPUs
        sample(MODEL, method, DATA, 9)
    assert counter.get_total_flops() == executed_flops(plan, rows=2) <= total_flops(plan, rows=2)


def test_planned_flops_of_an_uncached_run() -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sample(MODEL, None, DATA, 3)
    assert counter.get_total_flops() == uncached_flops(NoCaching().plan(SPEC, 3), rows=2)


def test_age_refreshes_tokens_in_turns() -> None:
    chosen: list[list[int]] = []

    def look(cache: Cache) -> None:
        rows = cache.selector("single_blocks", "total").chosen[0]
        if rows is not None:
            chosen.append(sorted(rows.tolist()))

    sample(MODEL, ToCa(5, 0.15, score="age", ratio_schedule="constant"), some(DATA, [0]), 7, after_step=look)
    k = int(0.15 * (IMG_TOKENS + TXT_TOKENS))
    assert chosen == [list(range(place * k, (place + 1) * k)) for place in range(4)]


def test_a_kept_adapter_is_counted() -> None:
    """Every product of an uncached call. A cached step that reads some chunks of a modulation computes the adapter's part of each."""
    kept = small_flux()
    replace_linear_with_lora(kept, 4, 0.5)
    plan = NoCaching().plan(flux_spec(SMALL, IMG_TOKENS, TXT_TOKENS, lora_rank=4), 1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sample(kept, None, DATA, 1)
    assert counter.get_total_flops() == total_flops(plan, rows=2) > 1.1 * total_flops(NoCaching().plan(SPEC, 1), rows=2)
    method = ToCa(3, 0.3)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sample(kept, method, DATA, 9)
    assert counter.get_total_flops() == pytest.approx(total_flops(method.plan(plan.spec, 9), rows=2), rel=0.03)


def test_a_kept_adapter_counts_in_single_blocks_and_modulations() -> None:
    plain = small_flux()
    kept = small_flux()
    replace_linear_with_lora(kept, 4, 0.5)
    kept.load_state_dict(plain.state_dict(), strict=False)
    torch.manual_seed(1)
    with torch.no_grad():
        for module in [module for module in kept.modules() if isinstance(module, LinearLora)]:
            for p in (*module.lora_A.parameters(), *module.lora_B.parameters()):
                torch.nn.init.normal_(p, std=0.1)
    adapter = {key: value for key, value in kept.state_dict().items() if "lora_" in key}
    state = plain.state_dict()
    merge(state, adapter, 0.5)
    plain.load_state_dict(state)
    for method in (None, ToCa(3, 0.3)):
        close(sample(kept, method, DATA), sample(plain, method, DATA))
    assert (sample(plain, None, DATA) - UNCACHED).abs().max() > 1e-3


def test_the_spec_follows_the_size() -> None:
    assert (SPEC.hidden, GRID[0] * GRID[1]) == ((IMG_TOKENS, SMALL.hidden_size), IMG_TOKENS)
    assert SPEC.stack("double_blocks").branch("attn").tokens == IMG_TOKENS + TXT_TOKENS
    assert dataclasses.replace(SMALL, depth=1).replace(depth=2) == SMALL
