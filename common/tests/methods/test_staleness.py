"""A layer whose planned count is all of its tokens is as fresh after the step as after a full one, whatever rates its tokens."""

from __future__ import annotations

import pytest
import torch
import toy

from toca.engine.cache import Cache
from toca.methods import ToCa
from toca.planning.plan import Kind
from toca.planning.scores import SCORES


@pytest.mark.parametrize("score", SCORES)
def test_a_layer_refreshed_whole_is_fresh(score: str) -> None:
    spec = toy.spec()
    model = toy.Model(spec)
    with Cache(spec, ToCa(interval=3, ratio=0.6, ratio_schedule="layerwise", score=score), num_steps=6) as cache:
        for step in range(6):
            model(torch.randn(2, 15, toy.WIDTH), 0.3 * step, cache)
            row, stale = cache.plan.steps[step], cache.selector("blocks", "mlp").staleness
            for layer in range(3):
                action = row["blocks", layer, "mlp"]
                assert (stale[layer] == 0).sum() >= 2 * action.tokens
                assert action.tokens < 15 or not stale[layer].any()
    kinds = {(action.kind, action.tokens) for row in cache.plan.steps for site, action in row.items() if site[2] == "mlp"}
    assert (Kind.PARTIAL, 15) in kinds and any(kind is Kind.PARTIAL and tokens < 15 for kind, tokens in kinds)
