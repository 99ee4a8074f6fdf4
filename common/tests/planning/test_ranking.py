"""Cycles ranked ahead choose what ranking step by step chooses; and which layers and steps go together."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from feeding import FeedingModel, feeding_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Model, attn, mlp, spec, stack

from toca.engine.cache import Cache
from toca.methods import DuCa, Method, ToCa
from toca.planning.ranking import TOGETHER, Batch, Timeline, spans
from toca.planning.scores import SCORES
from toca.planning.spec import ModelSpec

TWO_STACKS = spec(stack("first", 2), stack("second", 1, [attn(), mlp()]))
UNEVEN = spec(stack(depth=2, branches=[attn(), mlp(interval_scale=2)]))
LAYERWISE = spec(stack(depth=11))
SPECS = {"two stacks": TWO_STACKS, "uneven cycles": UNEVEN, "layerwise": LAYERWISE, "feeding": feeding_spec(depth=11)}
SHARED = dict(interval=4, ratio=0.3)
METHODS = [
    *(ToCa(score=score, ratio_schedule="constant", **SHARED) for score in SCORES),
    DuCa(ratio_schedule="constant", **SHARED),
    ToCa(ratio_schedule="layerwise", **SHARED),
    ToCa(ratio_schedule="linear", interval=3, ratio=0.9, upstream_exact=True),
    ToCa(ratio_schedule="constant", force_fresh="local", **SHARED),
    ToCa(ratio_schedule="constant", force_fresh="none", **SHARED),
]
SKIPS_WHOLE_LAYERS = ("uneven cycles", "duca")  # also where a branch of another cycle would run
CASES = [(name, method) for name in SPECS for method in METHODS if (name, method.name) != SKIPS_WHOLE_LAYERS]
every_case = pytest.mark.parametrize(("name", "method"), CASES, ids=repr)


def ranked_branches(model_spec: ModelSpec, method: Method, steps: int = 13):
    plan, score = method.plan(model_spec, steps), SCORES[method.score]
    for some in model_spec.stacks:
        for branch in some.branches:
            if branch.tokenwise:
                timeline = Timeline(plan, some, branch, score)
                yield some, timeline.counts, timeline.batches


@every_case
def test_every_choice_is_made_once_and_in_time(name: str, method: Method) -> None:
    for some, counts, ranked in ranked_branches(SPECS[name], method):
        made = Counter((step, layer) for row in ranked for batch in row for step in batch.steps for layer in batch.layers)
        assert made == Counter((step, layer) for step, row in enumerate(counts) for layer in range(some.depth) if row[layer])
        assert all(now <= min(batch.steps) for now, row in enumerate(ranked) for batch in row)
        assert all(len(batch.layers) <= TOGETHER for row in ranked for batch in row if batch.packs)


def test_a_cycle_of_all_layers_is_one_batch() -> None:
    ((_, _, ranked),) = ranked_branches(LAYERWISE, ToCa(ratio_schedule="constant", **SHARED), 9)
    assert [batch for row in ranked for batch in row] == [Batch(range(11), (1, 2, 3)), Batch(range(11), (5, 6, 7))]


def test_scores_of_the_input_are_ranked_alone() -> None:
    for score in ("norm", "similarity"):
        ((_, _, ranked),) = ranked_branches(LAYERWISE, ToCa(score=score, ratio_schedule="constant", **SHARED), 9)
        for step in (1, 2, 3, 5, 6, 7):
            assert ranked[step] == [Batch(range(layer, layer + 1), (step,), waits=True) for layer in range(11)]


def test_rows_that_feed_are_known_at_the_full_step() -> None:
    """Eleven layers as eight and three: whole outputs wait for one ranking."""
    ((_, _, ranked),) = ranked_branches(feeding_spec(depth=11), ToCa(ratio_schedule="constant", interval=4, ratio=0.2), 5)
    assert ranked[0] == [Batch(range(8), (1, 2, 3), True, True), Batch(range(8, 11), (1, 2, 3), True, True)]


def test_a_cycle_that_reads_as_many_rows_as_there_are_is_cut_and_kept_whole() -> None:
    ((_, _, ranked),) = ranked_branches(feeding_spec(depth=1), ToCa(ratio_schedule="constant", interval=4, ratio=0.34), 5)
    assert ranked[1:4] == [[Batch(range(1), (1, 2))], [], [Batch(range(1), (3,))]]


def step_by_step(patch: pytest.MonkeyPatch) -> None:
    stretches = Timeline._stretches
    patch.setattr(Timeline, "_stretches", lambda *args: ((step, (step,)) for _, steps in stretches(*args) for step in steps))


@every_case
def test_ranking_ahead_is_ranking_step_by_step(name: str, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: outputs of every step, and staleness after it."""
    model_spec, steps = SPECS[name], 13
    model = (FeedingModel if name == "feeding" else Model)(model_spec)
    x = torch.randn(2, 15, model_spec.hidden[1], generator=torch.Generator().manual_seed(3))

    def trace() -> list[torch.Tensor]:
        seen = []
        with Cache(model_spec, method, steps) as cache:
            for step in range(steps):
                seen.append(model(x + 0.1 * step, 0.3 * step, cache))
                seen += [selector.staleness.clone() for selector in cache._selectors]
        return seen

    planned = trace()
    step_by_step(monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(planned, trace(), strict=True))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 30), unique=True).map(sorted), st.integers(1, 5))
def test_spans_cover_layers_in_short_runs(layers: list[int], most: int) -> None:
    found = list(spans(layers, most))
    assert [layer for span in found for layer in span] == layers
    assert all(1 <= len(span) <= most for span in found)
    assert all(a.stop < b.start for a, b in zip(spans(layers), list(spans(layers))[1:]))
