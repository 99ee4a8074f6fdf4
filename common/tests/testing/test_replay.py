from __future__ import annotations

import pytest
import torch
import toy

from toca.engine.cache import Cache
from toca.methods import ToCa
from toca.testing.replay import Recorder, indices, margins


def test_a_recorder_notes_what_a_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes nothing of it; of a step of 3 chosen among 15 tokens: scores, choice, staleness, what went in and came out."""
    spec, method = toy.spec(), ToCa(interval=3, ratio=0.2, ratio_schedule="constant")
    model, x = toy.Model(spec), torch.randn(2, 15, toy.WIDTH)
    with Cache(spec, method, 5) as cache:
        plain = toy.run(model, cache, x, 5)
    with Cache(spec, method, 5) as cache:
        heard = Recorder(cache, [place := (1, "blocks", 2, "mlp")])
        heard.listen(monkeypatch)
        outputs = []
        for step in range(5):
            outputs.append(model(x + 0.1 * step, 0.3 * step, cache))
            heard.look()
    assert all(map(torch.equal, outputs, plain))
    chosen = heard.chosen[place]
    assert indices(chosen).shape == (2, 3)
    before, after = heard.ages_around(place)
    assert before.eq(0).all() and torch.equal(after == 0, chosen)
    assert min(margins(heard.scores[place], chosen, (3, 5), 2)) > 0
    inside = heard.inside[place]
    assert torch.equal((inside["output"] != inside["stored"]).any(dim=-1), chosen) and inside["input"].shape == x.shape
    assert heard.attended.keys() == {
        (step, "blocks", 2, "attn") for step, row in enumerate(cache.plan.steps) if row["blocks", 2, "attn"].tokens
    }
