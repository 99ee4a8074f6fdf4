"""What must hold of every method and score: of runs, batches, FLOPs and bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from small import LENGTH, SMALL, SMALL_MS, Inputs, bounded, inputs, sample, small_pixart, small_spec
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixart.model import trim_text
from pixart.solvers import IDDPM, SASolverSampler
from toca.engine.cache import Cache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import executed_flops, uncached_flops
from toca.planning.memory import predict
from toca.planning.scores import SCORES

MODEL, DATA = small_pixart(), inputs(2)
METHODS: list[Method] = [FORA(3), TaylorSeer(3, 1), ToCa(3, 0.3, frozen=True), ToCa(3, 0.3, force_fresh="local")]
METHODS += [make(3, 0.3, score=score) for make, score in product((ToCa, DuCa), SCORES)]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: repr(method)[:60])
UNCACHED = sample(MODEL, None, DATA)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@every_method
def test_every_method_changes_the_result(method: Method) -> None:
    assert ((sample(MODEL, method, DATA) - UNCACHED).abs().max() / UNCACHED.abs().max()).item() > 1e-3


@pytest.mark.parametrize("method", [NoCaching(), FORA(1), TaylorSeer(1), ToCa(1), DuCa(1), ToCa(3, 1.0), DuCa(3, 1.0)], ids=repr)
def test_what_caches_nothing_equals_no_cache(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, DATA), UNCACHED)


@every_method
def test_a_second_run_equals_the_first(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, DATA), sample(MODEL, method, DATA))


@every_method
def test_permuting_the_batch_permutes_the_result(method: Method) -> None:
    data, order = inputs(3), [2, 0, 1]
    moved = sample(MODEL, method, data.of(order), seeds=[7 + i for i in order])
    close(moved, sample(MODEL, method, data, seeds=[7, 8, 9])[order])


@pytest.mark.parametrize("config", [SMALL, SMALL_MS], ids=["square", "3 x 5"])
@pytest.mark.parametrize("score", SCORES)
def test_sixteen_images_are_sixteen_runs(score: str, config) -> None:
    """With texts of different lengths, each trimmed to its own when alone.

    In at most one of them may two tokens swap places whose scores differ by less than the rounding of kernels for another batch size.
    """
    model, data, method = small_pixart(config), inputs(16, config), ToCa(3, 0.3, score=score)
    together = sample(model, method, data, seeds=range(16))
    distances = []
    for i in range(16):
        alone = data.of([i])
        text, _ = trim_text(alone.text, alone.mask)
        image = sample(model, method, alone._replace(text=text, mask=alone.mask[:, : text.shape[1]]), seeds=[i])
        distances.append((image - together[i : i + 1]).abs().max().item())
    *alike, farthest = sorted(distances)
    assert alike[-1] <= 1e-4 and farthest <= 0.05


@every_method
def test_without_guidance(method: Method) -> None:
    alone = sample(MODEL, method, DATA, cfg_scale=1)
    assert not torch.equal(alone, sample(MODEL, None, DATA, cfg_scale=1))
    close(sample(MODEL, method, DATA.of([1]), cfg_scale=1, seeds=[1]), alone[1:])


@torch.no_grad()
def other_sampler(name: str, method: Method, data: Inputs, steps: int = 6) -> Tensor:
    """iddpm or SA-Solver, with draws that depend on the step and the image alone."""
    null = MODEL.y_embedder.y_embedding[:LENGTH].expand_as(data.text)

    def draws(step: int, images: int = len(data.z)) -> Tensor:
        one = torch.randn(1, *data.z.shape[1:], generator=torch.Generator().manual_seed(step))
        return one.repeat(images, 1, 1, 1)

    with Cache(small_spec(MODEL), method, steps) as cache:
        kwargs = dict(mask=data.mask, data_info=dict(img_hw=data.img_hw, aspect_ratio=data.aspect_ratio), cache=cache)
        if name == "sa":
            return SASolverSampler(bounded(MODEL.forward_with_dpmsolver)).sample(data.z, data.text, null, 4.5, steps, kwargs, draws)
        z = torch.cat([data.z, data.z])
        kwargs |= dict(y=torch.cat([data.text, null]), cfg_scale=4.5)
        noise = dict(noise_fn=lambda i, _: draws(i, len(z)))
        return IDDPM(str(steps)).p_sample_loop(bounded(MODEL.forward_with_cfg), z.shape, z, model_kwargs=kwargs, **noise)[: len(data.z)]


@pytest.mark.parametrize("method", [FORA(3), TaylorSeer(3, 1), ToCa(3, 0.3), DuCa(3, 0.3)], ids=repr)
@pytest.mark.parametrize("sampler", ["iddpm", "sa"])
def test_the_other_samplers(sampler: str, method: Method) -> None:
    together = other_sampler(sampler, method, DATA)
    assert together.isfinite().all() and not torch.allclose(together, other_sampler(sampler, NoCaching(), DATA), atol=1e-3)
    close(other_sampler(sampler, method, DATA.of([1])), together[1:])


# ---- cost -------------------------------------------------------------------------------------------------------------------------------


def counted(method: Method | None, **options) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the counter is blind to the fused kernel of CPUs
        sample(MODEL, method, DATA, **options)
    return counter.get_total_flops()


RUNS = [*METHODS, *(make(3, 0.3, upstream_exact=True) for make in (ToCa, DuCa)), NoCaching()]


@pytest.mark.parametrize("method", RUNS, ids=lambda method: repr(method)[:60])
def test_planned_flops_are_those_of_a_run(method: Method) -> None:
    assert counted(method) == executed_flops(method.plan(small_spec(MODEL), 10), rows=4)


def test_flops_of_a_run_without_a_cache() -> None:
    assert counted(None) == uncached_flops(NoCaching().plan(small_spec(MODEL), 10), rows=4)
    assert counted(ToCa(3, 0.3), cfg_scale=1) == executed_flops(ToCa(3, 0.3).plan(small_spec(MODEL, guided=False), 10), rows=2)


def held(model, method: Method, data: Inputs, monkeypatch: pytest.MonkeyPatch, **options) -> tuple[Cache, list]:
    seen: list = []
    hidden = Cache.hidden

    def listen(cache: Cache, x: Tensor) -> Tensor:
        x = hidden(cache, x)
        seen.append((cache, cache.held))
        return x

    monkeypatch.setattr(Cache, "hidden", listen)
    sample(model, method, data, **options)
    return seen[0][0], [bytes_ for _, bytes_ in seen]


@pytest.mark.parametrize("method", RUNS, ids=lambda method: repr(method)[:60])
@pytest.mark.parametrize("budget", [2**30, 0])
def test_predicted_bytes_are_held(method: Method, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, found = held(MODEL, method, DATA, monkeypatch, once_budget=budget)
    assert found == predict(cache.plan, method, 4, 4, 0, budget)
    assert (found[0].once > 4 * 4 * (LENGTH + 1) * 24) == bool(budget)


def test_half_precision_halves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, found = held(small_pixart().bfloat16(), ToCa(3, 0.3), DATA, monkeypatch)
    assert found == predict(cache.plan, ToCa(3, 0.3), 4, 2, 0)


def test_a_budget_changes_no_picture() -> None:
    close(sample(MODEL, ToCa(3, 0.3), DATA, once_budget=0), sample(MODEL, ToCa(3, 0.3), DATA))


def test_frozen_scores_cost_no_products_less_and_pictures_more() -> None:
    live, frozen = ToCa(3, 0.3), replace(ToCa(3, 0.3), frozen=True)
    assert counted(live) == counted(frozen)
    assert not torch.equal(sample(MODEL, live, DATA), sample(MODEL, frozen, DATA))
