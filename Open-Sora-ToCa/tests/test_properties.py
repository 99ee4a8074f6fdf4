"""What holds for every caching method on a small model: DESIGN's properties, FLOPs and bytes as planned, frames that are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small import LATENT, inputs, sample, small_spec, small_stdit3, some
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from opensora.spec import opensora_spec
from toca.engine.cache import NoCache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import executed_flops
from toca.planning.memory import predict
from toca.planning.plan import Kind
from toca.planning.spec import ModelSpec

STEPS = 8
README = ToCa(interval=3, ratio=0.1)
SCORES = ("attention", "kv-norm", "similarity", "norm", "random", "age", "k-norm")
METHODS: list[Method] = [
    FORA(2),
    README,
    *(ToCa(interval=3, ratio=0.2, ratio_schedule="constant", score=score) for score in SCORES),
    DuCa(interval=3, ratio=0.1, score="kv-norm"),
    DuCa(interval=4, ratio=0.2, ratio_schedule="constant"),
    TaylorSeer(interval=3, order=2),
]
MODEL = small_stdit3()


def ids(method: Method) -> str:
    return f"{method.name}-{getattr(method, 'score', '')}-{getattr(method, 'ratio_schedule', '')}"


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_caching_changes_something() -> None:
    data = inputs(1)
    plain = sample(MODEL, None, data)
    outputs = [sample(MODEL, method, data) for method in METHODS]
    assert all(1e-4 < (output - plain).std() < 0.5 * plain.std() for output in outputs)


@pytest.mark.parametrize("method", [NoCaching(), ToCa(ratio=1.0), ToCa(interval=1), FORA(1), DuCa(ratio=1.0)], ids=ids)
def test_no_reuse_is_no_cache(method: Method) -> None:
    data = inputs(2)
    spec = small_spec(cycles=(1, 1, 1, 1)) if getattr(method, "interval", 3) == 1 and method.name == "toca" else None
    close(sample(MODEL, method, data, spec=spec), sample(MODEL, None, data))


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_a_batch_is_its_prompts(method: Method) -> None:
    """Prompts of unequal length, alone, together, and in another order; a second run equals the first."""
    data, seeds = inputs(3), [5, 6, 7]
    together = sample(MODEL, method, data, seeds=seeds)
    assert torch.equal(together, sample(MODEL, method, data, seeds=seeds))
    order = [2, 0, 1]
    close(sample(MODEL, method, some(data, order), seeds=[seeds[i] for i in order]), together[order])
    close(torch.cat([sample(MODEL, method, some(data, [i]), spec=spec_of(data, i), seeds=[seeds[i]]) for i in range(3)]), together)


def spec_of(data: dict[str, Tensor], prompt: int) -> ModelSpec:
    return opensora_spec(MODEL.config, LATENT, int(data["mask"][prompt].sum()))


@pytest.mark.parametrize("method", [*METHODS, NoCaching()], ids=ids)
@pytest.mark.parametrize("prompts", [1, 2])
def test_flops_and_bytes_are_as_planned(method: Method, prompts: int) -> None:
    spec, held = small_spec(), []
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the counter is blind to the fused kernel of CPUs
        sample(MODEL, method, inputs(prompts), STEPS, after_step=lambda cache: held.append(cache.held))
    plan = method.plan(spec, STEPS)
    assert counter.get_total_flops() == executed_flops(plan, 2 * prompts)
    assert held == predict(plan, method, 2 * prompts, 4)


def test_cross_attention_costs_nothing_between_its_full_steps() -> None:
    """With the published ratio: no score, no selection, no product."""
    plan = README.plan(small_spec(), STEPS)
    sites = [(stack, layer, "cross_attn") for stack in ("spatial_blocks", "temporal_blocks") for layer in range(2)]
    for step, row in enumerate(plan.steps):
        assert all(row[site].kind is (Kind.FULL if step in (0, 1, 2, 6) else Kind.REUSE) for site in sites)
    selectors = []
    sample(MODEL, README, inputs(1), after_step=lambda cache: selectors.append(cache.selector("spatial_blocks", "cross_attn")))
    assert selectors == [None] * STEPS


# ---- frames that are given ------------------------------------------------------------------------------------------------------------

GIVEN = torch.tensor([[False, True, True], [True, False, True]])  # frame 0 of one video, frame 1 of another


@pytest.mark.parametrize("method", [NoCaching(), *METHODS], ids=ids)
def test_a_mask_of_ones_is_no_mask(method: Method) -> None:
    data = inputs(2)
    close(sample(MODEL, method, data, x_mask=torch.ones_like(GIVEN)), sample(MODEL, method, data))


class InParts(NoCache):
    """Token-wise branches run on one half of the tokens, in any order, and then on the other."""

    def mlp(self, f: Callable[..., Tensor], x: Tensor, *per_token: Tensor, rated: object = None) -> Tensor:
        out = torch.empty_like(x)
        for rows in torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(0)).chunk(2):
            out[:, rows] = f(x[:, rows], *(t[:, rows] for t in per_token))
        return out

    cross_attn = mlp


@torch.no_grad()
@pytest.mark.parametrize("x_mask", [None, GIVEN.repeat(2, 1)])
def test_selected_tokens_take_the_modulation_of_their_frame(x_mask: Tensor | None) -> None:
    data = inputs(2)
    args = data["z"].repeat(2, 1, 1, 1, 1), torch.full((4,), 700.0), data["y"].repeat(2, 1, 1, 1)
    sizes = {name: data[name] for name in ("mask", "fps", "height", "width")}
    close(MODEL(*args, x_mask=x_mask, cache=InParts(), **sizes), MODEL(*args, x_mask=x_mask, **sizes))


def test_given_frames_matter() -> None:
    data = inputs(2)
    for method in (None, README):
        assert (sample(MODEL, method, data, x_mask=GIVEN) - sample(MODEL, method, data)).abs().max() > 1e-2


def test_what_one_video_is_given_is_no_matter_of_another() -> None:
    data = inputs(2)
    alone = [sample(MODEL, README, some(data, [i]), spec=spec_of(data, i), x_mask=GIVEN[[i]]) for i in range(2)]
    close(torch.cat(alone), sample(MODEL, README, data, x_mask=GIVEN))
