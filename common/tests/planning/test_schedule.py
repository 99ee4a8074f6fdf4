import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toca.planning.schedule import RATIO_SCHEDULES, At, Bilinear, Cycle, f32, refreshed_tokens


def phases(cycle, interval, num_steps, counts_down=False, per_layer=False):
    return cycle.phases(interval, num_steps, counts_down, per_layer)


@given(st.floats(-1e30, 1e30))
def test_f32_rounds_as_numpy_does(x):
    assert f32(x) == float(np.float32(x))


def test_a_fixed_cycle_counts_places_of_the_index():
    assert phases(Cycle(), 3, 7) == [(p, p) for p in (0, 1, 2, 0, 1, 2, 0)]
    assert phases(Cycle(), 3, 8, counts_down=True) == [(p, p) for p in (0, 0, 2, 1, 0, 2, 1, 0)]  # index 7 is the lead, then 6, 5, ...


def test_leading_steps_are_full_and_a_cycle_may_start_at_the_last_full_step():
    assert phases(Cycle(lead=2, anchor="last_full"), 3, 8) == [(p, p) for p in (0, 0, 1, 2, 0, 1, 2, 0)]
    assert phases(Cycle(lead=3), 4, 6) == [(p, p) for p in (0, 0, 0, 3, 0, 1)]


def test_a_stretched_cycle_is_long_at_high_index_and_fixed_in_its_window():
    cycle = Cycle(stretch=(1.4, -0.8), window=(0.2, 0.4, 2))
    assert [cycle.length(3, index, 50) for index in (0, 9, 10, 19, 20, 49)] == [2, 2, 2, 2, 3, 5]
    assert Cycle().length(5, 3, 10) == 5 and Cycle(stretch=(9.0, 0.0)).length(3, 0, 10) == 1


def test_half_a_step_rounds_to_even_as_in_float32():
    assert Cycle(stretch=(2.0, 0.0)).length(5, 0, 10) == 2 and Cycle(stretch=(2.0, 0.0)).length(7, 0, 10) == 4


def test_deciding_per_layer_makes_mixed_steps_and_deciding_once_does_not():
    cycle = Cycle(stretch=(1.4, -0.8), window=(0.2, 0.4, 2))
    mixed = phases(cycle, 3, 50, counts_down=True, per_layer=True)
    assert [49 - step for step, (first, rest) in enumerate(mixed) if first == 0 and rest] == [45, 32]
    once = phases(cycle, 3, 50, counts_down=True)
    assert [first for first, _ in once] == [first for first, _ in mixed] and all(first == rest for first, rest in once)


@given(st.integers(1, 12), st.integers(1, 60), st.booleans(), st.sampled_from(["index", "last_full"]), st.floats(0.5, 2), st.integers(1, 3))
def test_every_run_starts_full_and_no_cycle_outlasts_its_length(interval, num_steps, down, anchor, stretch, lead):
    cycle = Cycle(lead=lead, stretch=(stretch, 0.0), anchor=anchor)
    firsts = [first for first, rest in phases(cycle, interval, num_steps, down) if first == rest]
    assert len(firsts) == num_steps and not any(firsts[:lead])
    longest = max(cycle.length(interval, 0, num_steps), interval)
    full = [step for step, phase in enumerate(firsts) if phase == 0] + [num_steps]
    assert all(later - sooner <= longest for sooner, later in pairwise(full))
    assert interval > 1 or not any(firsts)


def test_interval_one_is_uncached_unless_layers_decide_alone():
    cycle = Cycle(stretch=(1.4, -0.8))
    assert set(phases(cycle, 1, 50, counts_down=True)) == {(0, 0)}
    assert set(phases(cycle, 1, 50, counts_down=True, per_layer=True)) != {(0, 0)}


@pytest.mark.parametrize(
    "name, progress, depth, mode, factor",
    [
        ("constant", 0.3, 0.7, 0.5, 1.0),
        ("linear", 0.5, 0.7, 0.5, 1.0),
        ("linear", 0.0, 0.7, 0.5, 1.9),
        ("layerwise", 0.3, 0.0, 0.5, 1.9),
        ("layerwise", 0.3, 1.0, 0.5, 0.1),
        ("exp", 0.5, 0.7, 0.5, 0.9**0.5),
        ("cosine", 0.0, 0.7, 0.5, 1.9),
        ("cosine", 1.0, 0.7, 0.5, 0.1),
        ("linear-mode", 0.5, 0.7, 0.75, 1.025),
    ],
)
def test_common_ratio_schedules(name, progress, depth, mode, factor):
    assert RATIO_SCHEDULES[name](At(progress, depth, mode, "mlp")) == pytest.approx(factor)


def test_a_bilinear_schedule_multiplies_progress_depth_and_branch():
    schedule = Bilinear(progress=(3.0, -4.0), depth=(0.8, 0.4), branch={"mlp": 2.5})
    assert schedule(At(0.25, 0.5, 0.0, "mlp")) == pytest.approx(2 * 1.0 * 2.5)
    assert schedule(At(0.25, 0.5, 0.0, "attn")) == pytest.approx(2.0)


def test_token_counts_are_truncated_in_float32_and_clamped():
    assert refreshed_tokens(0.07, 256) == 17 and refreshed_tokens(-0.5, 64) == 0 and refreshed_tokens(1.5, 64) == 64
    assert refreshed_tokens(0.7, 10) == 7  # 0.7 * 10 is below 7 in float64


@given(st.floats(-1, 2), st.integers(1, 5000), st.integers(1, 64))
def test_a_bucket_only_rounds_up(ratio, tokens, bucket):
    exact, bucketed = refreshed_tokens(ratio, tokens), refreshed_tokens(ratio, tokens, bucket)
    assert exact == int(np.float32(min(max(ratio, 0), 1)) * np.float32(tokens))
    assert bucketed == min(tokens, math.ceil(exact / bucket) * bucket)
