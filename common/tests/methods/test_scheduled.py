"""Full steps chosen one by one, with branches or the hidden state forecast between them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy import Model, run, spec, stack

from toca.engine.cache import NO_CACHE, Cache
from toca.methods import FORA, Scheduled, TaylorSeer
from toca.methods.scheduled import FILLS
from toca.planning.flops import executed_flops, uncached_flops
from toca.planning.memory import predict
from toca.planning.plan import Kind
from toca.planning.spec import HIDDEN
from toca.testing.golden import assert_close

SPEC = spec(stack("pair", 2), stack("single", 2))
X = torch.randn(3, 15, 8, generator=torch.Generator().manual_seed(1))


@st.composite
def schedules(draw: st.DrawFn, steps: int = 10) -> Scheduled:
    full = (0, *sorted(draw(st.sets(st.integers(1, steps - 1)))))
    fill = tuple(draw(st.lists(st.sampled_from(FILLS), min_size=len(full), max_size=len(full))))
    return Scheduled(full, fill, draw(st.integers(0, 3)))


def outputs(method: object, num_steps: int = 10, x: torch.Tensor = X) -> list[torch.Tensor]:
    with Cache(SPEC, method, num_steps) as cache:
        return run(Model(SPEC), cache, x, num_steps)


def test_even_steps_are_taylorseers() -> None:
    even = outputs(Scheduled((0, 1, 4, 7), order=1))
    theirs = TaylorSeer(3, 1).plan(SPEC, 10)
    assert [step for step in range(10) if theirs.step_kind(step) == "full"] == [0, 1, 4, 7]
    for ours, other in zip(even, outputs(TaylorSeer(3, 1)), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-6)


def test_order_zero_is_fora() -> None:
    for ours, other in zip(outputs(Scheduled((0, 3, 6, 9), order=0)), outputs(FORA(3)), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-6)


def test_all_steps_full_are_uncached() -> None:
    plain = run(Model(SPEC), NO_CACHE, X, 10)
    assert all(torch.equal(a, b) for a, b in zip(outputs(Scheduled(tuple(range(10)))), plain, strict=True))


def test_the_hidden_state_is_forecast_along_a_line() -> None:
    """Between full steps 0, 2 and 5 the state after the last layer goes on as it went from 0 to 2, and later from 2 to 5."""
    found, plain = outputs(Scheduled((0, 2, 5), ("hidden",))), run(Model(SPEC), NO_CACHE, X, 10)
    assert torch.equal(found[1], plain[0])
    for step, (a, b) in {3: (0, 2), 4: (0, 2), 6: (2, 5), 9: (2, 5)}.items():
        torch.testing.assert_close(found[step], plain[b] + (step - b) * (plain[b] - plain[a]) / (b - a), rtol=0, atol=1e-5)


def test_segments_of_both_kinds_keep_their_histories_apart() -> None:
    """A later segment forecasts branches from full steps between which the hidden state was forecast, and the other way round."""
    mixed = outputs(Scheduled((0, 2, 4, 6), ("hidden", "branches", "hidden", "branches")))
    branches, hidden = (outputs(Scheduled((0, 2, 4, 6), (fill,))) for fill in FILLS)
    for step in range(10):
        assert torch.equal(mixed[step], (branches if step in (3, 7, 8, 9) else hidden)[step]), step


def test_no_branch_is_stored_for_forecasts_of_the_hidden_state() -> None:
    with Cache(SPEC, Scheduled((0, 2, 5), ("hidden",)), 10) as cache:
        model, held = Model(SPEC), []
        for step in range(10):
            model(X, 0.1 * step, cache)
            held.append(cache.held)
    assert max(part.outputs for part in held) == 0
    assert [part.hidden // X.nbytes for part in held] == [1, 1, 2, 2, 2, 2, 2, 2, 2, 0]


@settings(deadline=None, max_examples=40)
@given(schedules())
def test_bytes_and_flops_are_those_of_the_plan(method: Scheduled) -> None:
    plan, model, held = method.plan(SPEC, 10), Model(SPEC), []
    with Cache(SPEC, method, 10) as cache:
        for step in range(10):
            model(X, 0.1 * step, cache)
            held.append(cache.held)
    assert held == predict(plan, method, 3, 4, modulation_budget=0)
    kinds = [plan.step_kind(step) for step in range(10)]
    assert [step for step, kind in enumerate(kinds) if kind == "full"] == list(method.full)
    assert set(kinds) <= {"full", "forecast", "hidden"}


@settings(deadline=None, max_examples=20)
@given(schedules())
def test_a_batch_is_its_items(method: Scheduled) -> None:
    together = outputs(method)
    alone = [outputs(method, x=X[i : i + 1]) for i in range(3)]
    for step in range(10):
        assert_close(together[step], torch.cat([one[step] for one in alone]), 1e-5)  # of extrapolated numbers, which grow


def test_a_step_of_a_forecast_state_costs_nothing_in_the_layers() -> None:
    method = Scheduled((0, 2, 5), ("hidden",))
    plan = method.plan(SPEC, 10)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, Cache(SPEC, method, 10) as cache:
        run(Model(SPEC), cache, X, 10)
    assert counter.get_total_flops() == executed_flops(plan, rows=3)
    assert executed_flops(plan) < 0.31 * uncached_flops(plan)
    assert plan.steps[3][HIDDEN].kind is Kind.FORECAST and not plan.running[3]["pair"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Scheduled(()), "full steps must rise from 0"),
        (lambda: Scheduled((1, 2)), "full steps must rise from 0, got"),
        (lambda: Scheduled((0, 3, 3)), "full steps must rise from 0, got"),
        (lambda: Scheduled((0, 3), ("nothing",)), "filled by branches or hidden, got 'nothing'"),
        (lambda: Scheduled((0, 3), ("hidden",) * 3), "2 full steps need one fill, or as many, got 3"),
        (lambda: Scheduled((0, 3), order=-1), "order must be at least 0, got -1"),
        (lambda: Scheduled((0, 10)).plan(SPEC, 10), "full steps must be below 10, the number of steps, got 10"),
    ],
)
def test_what_makes_no_schedule(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_flags() -> None:
    given_flags = dict(zip(("full_steps", "fill", "fill_order"), ((0, 2), ("hidden",), 2), strict=True))
    assert Scheduled.from_flags(given_flags) == Scheduled((0, 2), ("hidden",), 2)
    with pytest.raises(ValueError, match="got None"):
        Scheduled.from_flags(given_flags | {"full_steps": None})
    assert list(itertools.chain(*([flag.name] for flag in Scheduled.flags))) == list(given_flags)
