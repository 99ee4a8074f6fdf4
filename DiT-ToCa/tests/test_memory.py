"""The predicted bytes are the held bytes, after every model call, for every method, score and precision."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from dit.model import DiT
from dit.spec import DiTConfig, dit_spec
from toca.engine.cache import Cache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.memory import Held, predict
from toca.planning.scores import SCORES

CONFIG = DiTConfig(depth=3, hidden_size=16, num_heads=2, patch_size=2, input_size=(8, 6), num_classes=5)
METHODS: list[Method] = [
    NoCaching(),
    FORA(3),
    FORA(1),
    TaylorSeer(3, 2),
    TaylorSeer(4, 0),
    TaylorSeer(1, 3),
    *(make(3, 0.3, score=score, upstream_exact=exact) for make, score, exact in product((ToCa, DuCa), SCORES, (False, True))),
    *(ToCa(3, ratio, score=score) for ratio, score in product((0.0, 0.02, 1.0, 5.0), ("attention", "norm"))),
    *(ToCa(3, 0.3, score=score, force_fresh=force) for force, score in product(("local", "none"), ("similarity", "compress"))),
    ToCa(1, 0.3),
    ToCa(4, 0.5, ratio_schedule="layerwise", bucket=4, score="similarity"),
]


def model() -> DiT:
    torch.manual_seed(0)
    built = DiT(CONFIG).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return built


MODEL = model()


@torch.no_grad()
def held_by_run(model: DiT, method: Method, steps: int, rows: int, **options: Any) -> tuple[Cache, list[Held]]:
    """What a run holds after every model call; every tensor that the cache refers to is checked to be counted."""
    y = torch.arange(rows) % 6
    x = torch.randn(rows, 4, 8, 6).to(model.pos_embed.dtype)
    timesteps = torch.arange(steps).flip(0)
    held = []
    with Cache(dit_spec(CONFIG), method, steps, **options) as cache:
        model.precompute_modulation(cache, timesteps, y)
        for t in timesteps:
            model(x, t.expand(rows), y, cache)
            held.append(cache.held)
            assert cache.nbytes == storage_bytes(cache)
    assert cache.nbytes == 0
    return cache, held


def storage_bytes(owner: object) -> int:
    """Bytes of all tensor storages that an object leads to."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    pending: list[Any] = [owner]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
        elif closure := getattr(value, "__closure__", None):
            pending += [cell.cell_contents for cell in closure]
        elif type(value).__module__.startswith("toca."):
            pending += vars(value).values()
    storages.pop(0, None)  # empty tensors
    return sum(storages.values())


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("steps", (1, 2, 11))
def test_predicted_bytes_are_held(method: Method, steps: int) -> None:
    for rows, budget in ((4, 2**28), (1, 0)):
        cache, held = held_by_run(MODEL, method, steps, rows, modulation_budget=budget)
        assert held == predict(cache.plan, method, rows, 4, budget)
        assert bool(held[0].modulation) == bool(budget)


@pytest.mark.parametrize("method", [ToCa(3, 0.3, score="similarity"), TaylorSeer(3, 2), DuCa(4, 0.3)], ids=repr)
def test_half_precision_halves_what_the_model_computed(method: Method) -> None:
    cache, held = held_by_run(model().bfloat16(), method, 9, 2)
    assert held == predict(cache.plan, method, 2, 2)
    assert max(h.outputs for h in held) * 2 == max(h.outputs for h in predict(cache.plan, method, 2, 4))


def test_modulations_beyond_the_budget_are_not_precomputed() -> None:
    cache, held = held_by_run(MODEL, ToCa(3, 0.3), 9, 2)
    exact = held[0].modulation
    for budget, kept in ((exact, exact), (exact - 1, 0)):
        cache, held = held_by_run(MODEL, ToCa(3, 0.3), 9, 2, modulation_budget=budget)
        assert {h.modulation for h in held} == {kept}
        assert held == predict(cache.plan, ToCa(3, 0.3), 2, 4, budget)


def test_given_seeds_and_draws_change_nothing_but_the_seeds() -> None:
    method = ToCa(3, 0.3, score="random")
    _, held = held_by_run(MODEL, method, 9, 4, seeds=[7, 8])
    cache, given = held_by_run(MODEL, method, 9, 4, uniform=lambda step, layers: torch.rand(len(layers), 4, 12))
    assert held == predict(cache.plan, method, 4, 4)
    assert [h.total - 4 * 8 for h in held] == [g.total for g in given]
