"""A branch that only feeds another: what is kept of it, and for how long."""

from __future__ import annotations

import pytest
import torch
from feeding import FeedingModel, feeding_spec
from toy import WIDTH, run

from toca.engine.cache import NO_CACHE, Cache
from toca.engine.token_shards import Whole
from toca.methods import FORA, DuCa, Method, TaylorSeer, ToCa
from toca.planning.memory import predict
from toca.planning.plan import Kind
from toca.planning.scores import SCORES

SPEC, STEPS = feeding_spec(depth=10), 10
METHODS = [FORA(3), TaylorSeer(3, 1), *(cls(4, 0.2, "constant", score) for cls in (ToCa, DuCa) for score in SCORES)]
every_method = pytest.mark.parametrize("method", METHODS, ids=[f"{m.name}-{getattr(m, 'score', '')}" for m in METHODS])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 15, WIDTH, generator=torch.Generator().manual_seed(0))


@every_method
def test_predicted_bytes_are_held(x: torch.Tensor, method: Method) -> None:
    model = FeedingModel(SPEC)
    with Cache(SPEC, method, STEPS) as cache:
        held = [model(x + 0.1 * step, 0.3 * step, cache) is not None and cache.held for step in range(STEPS)]
    assert held == predict(method.plan(SPEC, STEPS), method, 2, 4, modulation_budget=0)


@pytest.mark.parametrize("score", SCORES)
def test_only_rows_that_will_be_read_are_kept(x: torch.Tensor, score: str) -> None:
    """3 of 15 tokens at each of the steps 1, 2, 3; scores of the input are not known at the full step."""
    model, token = FeedingModel(SPEC), 2 * WIDTH * 4  # bytes, of two rows
    with Cache(SPEC, ToCa(4, 0.2, "constant", score), STEPS) as cache:
        for step in range(4):
            model(x + 0.1 * step, 0.3 * step, cache)
            kept = {layer.attn.slot.nbytes // token for layer in cache._layers["blocks"]}
            whole = 15 if step < 3 else 0
            assert kept == {whole if SCORES[score].from_input else 3 * (3 - step)}


def test_nothing_is_kept_where_nothing_is_refreshed(x: torch.Tensor) -> None:
    """Whole outputs are recalled then; the attention they were made of has no reader."""
    model = FeedingModel(SPEC)
    with Cache(SPEC, FORA(3), 3) as cache:
        run(model, cache, x, 2)
        assert all(layer.attn.slot.nbytes == 0 < layer.total.slot.nbytes for layer in cache._layers["blocks"])
    assert cache.plan.steps[1]["blocks", 0, "attn"].kind is Kind.SKIP


def test_all_rows_are_kept_where_a_cycle_reads_as_many(x: torch.Tensor) -> None:
    model = FeedingModel(SPEC)
    with Cache(SPEC, ToCa(4, 0.34, "constant"), STEPS) as cache:  # 5 of 15 tokens, three times
        run(model, cache, x, 1)
        assert {layer.attn.slot.nbytes for layer in cache._layers["blocks"]} == {2 * 15 * WIDTH * 4}


def test_fed_rows_are_those_of_the_full_step(x: torch.Tensor) -> None:
    """With the rest of the block silent, a refreshed token adds what attention gave it at the full step."""
    model = FeedingModel(feeding_spec(depth=1))
    (block,) = model.stacks["blocks"]
    with torch.no_grad():
        block.linear2.weight[:, WIDTH:] = 0.0
    with Cache(feeding_spec(depth=1), ToCa(4, 0.2, "constant"), 4) as cache:
        first = model(x, 0.0, cache) - x
        for _ in range(3):
            torch.testing.assert_close(model(x, 0.0, cache) - x, first, atol=1e-6, rtol=0)
    torch.testing.assert_close(model(x, 0.0, NO_CACHE) - x, first, atol=1e-6, rtol=0)


def test_tokens_that_feed_others_are_not_split_among_processes() -> None:
    with pytest.raises(ValueError, match="cannot be split among processes"):
        Cache(SPEC, FORA(3), STEPS, shards=Whole())
