import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import WIDTH, Model, run, spec

from toca.engine.cache import Cache
from toca.engine.slots import Last, Taylor, scatter
from toca.methods import TaylorSeer
from toca.planning.plan import Action, Kind


def full(gap=0, order=0, keep=True):
    return Action(Kind.FULL, 4, gap=gap, order=order, keep=keep)


def forecast(gap, order, keep=True):
    return Action(Kind.FORECAST, gap=gap, order=order, keep=keep)


def fed(polynomial, times, order):
    """A slot that saw `polynomial` at `times`, the last of them now."""
    slot = Taylor()
    for k, time in enumerate(times):
        gap = time - times[k - 1] if k else 0
        action = full(gap, min(k, order))
        slot.prepare(action)
        slot.put(torch.full((1, 2, 3), polynomial(time), dtype=torch.float64), action)
    return slot


def forecast_by_hand(values, times, order, ahead):
    """The definition: differences divided by the newest gap, level by level, then a Taylor series."""
    factors = [values[0]]
    for k in range(1, len(times)):
        new = [values[k]]
        for level in range(min(k, order)):
            new.append((new[level] - factors[level]) / (times[k] - times[k - 1]))
        factors = new
    return sum(f * ahead**k / math.factorial(k) for k, f in enumerate(factors))


@settings(deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.integers(0, 5), st.integers(1, 5), st.data())
def test_taylor_follows_its_definition(values, order, ahead, data):
    gaps = data.draw(st.lists(st.integers(1, 4), min_size=len(values) - 1, max_size=len(values) - 1))
    times = [sum(gaps[:k]) for k in range(len(values))]
    slot = fed(lambda time: values[times.index(time)], times, order)
    found = slot.recall(forecast(ahead, min(order, len(values) - 1)))
    assert found.mean().item() == pytest.approx(forecast_by_hand(values, times, order, ahead), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_straight_line_is_forecast_exactly(order, ahead):
    slot = fed(lambda time: 3.0 - 2.0 * time, [0, 1, 4, 8, 12], order)
    torch.testing.assert_close(slot.recall(forecast(ahead, order)), torch.full((1, 2, 3), 3.0 - 2.0 * (12 + ahead), dtype=torch.float64))


@pytest.mark.parametrize("ahead, interval", [(1, 3), (2, 3), (3, 4)])
def test_a_parabola_is_forecast_with_the_lag_of_backward_differences(ahead, interval):
    """f_1 is the slope half an interval ago, f_2 the curvature: the forecast of a t^2 falls short by a * ahead * interval."""
    a, now = 0.7, 3 * interval
    slot = fed(lambda time: a * time**2, [0, interval, 2 * interval, now], 2)
    expected = a * (now + ahead) ** 2 - a * ahead * interval
    assert slot.recall(forecast(ahead, 2)).mean().item() == pytest.approx(expected)


def test_order_zero_is_reuse_and_holds_one_tensor():
    slot = fed(lambda time: float(time), [0, 3, 6], 0)
    assert slot.recall(forecast(2, 0)).mean() == 6.0 and len(slot.factors) == 1
    assert slot.nbytes == 6 * 8


def test_taylor_starts_anew_at_a_gap_of_zero_and_frees_what_nobody_reads():
    slot = fed(lambda time: float(time), [0, 1, 2], 2)
    assert slot.nbytes == 3 * 6 * 8
    slot.prepare(full())
    assert slot.nbytes == 0
    slot.put(torch.ones(1, 2, 3), full(keep=False))
    assert slot.nbytes == 0
    slot = fed(lambda time: float(time), [0, 1], 1)
    slot.recall(forecast(1, 1, keep=False))
    assert slot.nbytes == 0


def test_a_recalled_forecast_leaves_the_differences():
    slot = fed(lambda time: float(time), [0, 1, 2], 1)
    first = slot.recall(forecast(1, 1)).clone()
    assert torch.equal(slot.recall(forecast(1, 1)), first)


def test_last_keeps_the_tensor_itself_and_refreshes_rows():
    slot, value = Last(), torch.zeros(2, 3, 4)
    slot.put(value, full())
    assert slot.recall(full()) is value and slot.nbytes == 24 * 4
    scatter(slot.newest, torch.tensor([1, 5]), torch.stack([torch.ones(1, 4), 2 * torch.ones(1, 4)]))  # token 1 of row 0, token 2 of row 1
    assert value[..., 0].tolist() == [[0, 1, 0], [0, 0, 2]]


def test_last_frees_after_the_last_read_and_before_a_replacement():
    slot = Last()
    slot.put(torch.zeros(1, 2, 3), full(keep=False))
    assert slot.value is None
    slot.put(torch.zeros(1, 2, 3), full())
    assert slot.recall(Action(Kind.REUSE)) is not None and slot.value is None
    slot.put(torch.zeros(1, 2, 3), full())
    slot.prepare(full())
    assert slot.nbytes == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_long_gaps_and_high_orders_stay_in_the_range_of_half_precision(dtype):
    """64^4 / 4! is beyond float16. Of a polynomial of fourth order, whose differences are exact in few bits."""
    times, slot = [0, 64, 128, 192, 256], Taylor()
    values = [2.0 * (time / 64) ** 4 for time in times]
    for k, value in enumerate(values):
        action = full(64 if k else 0, min(k, 4))
        slot.prepare(action)
        slot.put(torch.full((1, 2, 3), value, dtype=dtype), action)
    for ahead in (1, 33, 63, 64):
        found = slot.recall(forecast(ahead, 4))
        assert found.dtype == dtype
        assert found.float().mean().item() == pytest.approx(forecast_by_hand(values, times, 4, ahead), rel=0.02)


def test_a_run_in_half_precision_with_long_gaps_is_finite():
    model_spec, steps = spec(), 250
    model, x = Model(model_spec).half(), torch.randn(2, 15, WIDTH).half()
    with Cache(model_spec, TaylorSeer(interval=64, order=4), steps) as cache:
        assert all(output.isfinite().all() for output in run(model, cache, x, steps))
    assert max(row["blocks", 0, "mlp"].gap for row in cache.plan.steps if row["blocks", 0, "mlp"].order == 4) == 64
