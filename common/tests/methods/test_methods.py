from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import CYCLES, attn, mlp, spec, stack

from toca.methods import FORA, METHODS, DuCa, NoCaching, TaylorSeer, ToCa
from toca.methods.toca import FORCE_FRESH
from toca.planning.plan import Kind, chunks_needed
from toca.planning.schedule import Bilinear, Cycle
from toca.planning.scores import SCORES
from toca.planning.spec import HIDDEN

FULL, PARTIAL, REUSE, FORECAST, SKIP = Kind


def kinds(plan, branch="mlp", layer=0, name="blocks"):
    return [row[name, layer, branch].kind for row in plan.steps]


def tokens(plan, branch="mlp", layer=0):
    return [row["blocks", layer, branch].tokens for row in plan.steps]


def test_every_method_is_listed_by_its_name():
    assert list(METHODS) == ["none", "fora", "toca", "duca", "taylorseer", "scheduled"]
    assert all(METHODS[name].name == name for name in METHODS)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ToCa(interval=0), "interval must be at least 1, got 0"),
        (lambda: ToCa(bucket=0), "bucket must be at least 1, got 0"),
        (lambda: ToCa(ratio=-0.1), "ratio must be between 0 .* and 1 .*, got -0.1"),
        (lambda: ToCa(score="luck"), "unknown score 'luck': choose from attention, "),
        (lambda: DuCa(force_fresh="always"), "unknown force_fresh 'always': choose from global, local, none"),
        (lambda: ToCa(ratio_schedule="sine").plan(spec(), 5), "unknown ratio schedule 'sine' for toy: choose from constant, "),
        (lambda: FORA(interval=0).plan(spec(), 5), "interval must be at least 1, got 0"),
        (lambda: TaylorSeer(interval=0).plan(spec(), 5), "interval must be at least 1, got 0"),
        (lambda: TaylorSeer(order=-1).plan(spec(), 5), "order must be at least 0, got -1"),
        *((lambda method=method: method().plan(spec(), 0), "num_steps must be at least 1, got 0") for method in METHODS.values()),
    ],
)
def test_bad_settings_are_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fora_reuses_between_full_steps():
    assert kinds(FORA(interval=3).plan(spec(), 7)) == [FULL, REUSE, REUSE, FULL, REUSE, REUSE, FULL]
    assert kinds(ToCa(interval=3, ratio=0.0).plan(spec(), 7)) == kinds(FORA(interval=3).plan(spec(), 7))


UNCACHED = [FORA(interval=1), ToCa(interval=1), DuCa(interval=1), TaylorSeer(interval=1), ToCa(ratio=1.0), DuCa(ratio=1.0)]


@pytest.mark.parametrize("method", UNCACHED, ids=lambda method: method.name)
def test_an_interval_or_a_ratio_of_one_caches_nothing(method):
    plan = method.plan(spec(), 5)
    assert not plan.caches and NoCaching().plan(spec(), 5).tokens_refreshed() == plan.tokens_refreshed() == 1.0


SPECS = (
    spec(),
    spec(counts_down=True, cycles=dict.fromkeys(CYCLES, Cycle(lead=3, stretch=(1.4, -0.8), window=(0.2, 0.4, 2)))),
    spec(stack(branches=(attn(), mlp(interval_scale=2)))),
    spec(stack(), stack("more", depth=2)),
)
EVERY_STEP = st.one_of(
    st.builds(FORA, interval=st.just(1)),
    st.builds(TaylorSeer, interval=st.just(1), order=st.integers(0, 4)),
    *(
        st.builds(
            make,
            interval=st.just(1),
            ratio=st.floats(0, 2),
            ratio_schedule=st.sampled_from(["constant", "linear", "linear-mode", "exp", "cosine", "layerwise", "ToCa"]),
            score=st.sampled_from(sorted(SCORES)),
            soft_fresh_weight=st.floats(0, 2),
            force_fresh=st.sampled_from(FORCE_FRESH),
            bonus=st.none() | st.floats(0, 1),
            frozen=st.booleans(),
            bucket=st.integers(1, 20),
        )
        for make in (ToCa, DuCa)
    ),
)


@given(EVERY_STEP, st.sampled_from(SPECS), st.integers(1, 60))
def test_at_an_interval_of_one_a_run_is_the_uncached_one_whatever_else_is_set(method, model, num_steps):
    plan = method.plan(model, num_steps)
    steps = [{site: replace(action, gap=0, order=0) for site, action in row.items()} for row in plan.steps]  # what TaylorSeer notes besides
    assert tuple(steps) == NoCaching().plan(model, num_steps).steps and not plan.caches


def test_a_cycle_of_a_branchs_own_is_kept_at_an_interval_of_one():
    plan = ToCa(interval=1, ratio=0.0).plan(spec(stack(branches=(attn(), mlp(interval=2)))), 4)
    assert kinds(plan, "attn") == [FULL] * 4 and kinds(plan) == [FULL, REUSE, FULL, REUSE]


def test_toca_refreshes_token_wise_branches_and_reuses_the_others():
    plan = ToCa(interval=3).plan(spec(), 6)
    assert kinds(plan) == [FULL, PARTIAL, PARTIAL] * 2 and kinds(plan, "attn") == [FULL, REUSE, REUSE] * 2
    assert tokens(plan) == [15, 4, 4] * 2


def test_token_counts_follow_the_schedule_over_steps_and_layers():
    schedules = {"steep": Bilinear(progress=(1.0, -1.0), depth=(1.0, 1.0))}
    rising = spec(ratio_schedules=schedules)
    plan = ToCa(interval=5, ratio=0.4, ratio_schedule="steep").plan(rising, 5)
    assert tokens(plan) == [15, 4, 3, 2, 1] and tokens(plan, layer=2) == [15, 9, 7, 4, 2]  # 15 * 0.4 * (1 - e / 5) * (1 or 2)
    falling = ToCa(interval=5, ratio=0.4, ratio_schedule="steep").plan(spec(ratio_schedules=schedules, counts_down=True), 5)
    assert tokens(falling) == [15, 2, 3, 4, 15]  # the schedule sees the index, which falls from 4 to 0


def test_buckets_round_counts_up():
    assert tokens(ToCa(interval=3, bucket=4, ratio=0.08).plan(spec(), 3)) == [15, 4, 4]
    assert tokens(ToCa(interval=3, bucket=8).plan(spec(), 3)) == [15, 8, 8]
    assert tokens(ToCa(interval=3, bucket=20).plan(spec(), 3)) == [15, 15, 15]


def test_the_published_depth_counts_only_where_upstream_is_reproduced():
    shallow = spec(ratio_schedules={"deep": Bilinear(depth=(0.0, 1.0))})
    ours, upstream = (ToCa(ratio=0.9, ratio_schedule="deep", upstream_exact=exact).plan(shallow, 3) for exact in (False, True))
    assert (tokens(ours, layer=2)[1], tokens(upstream, layer=2)[1]) == (int(15 * 0.9), int(15 * 0.9 * 2 / 27))


def test_duca_skips_every_other_cached_step_whole():
    plan = DuCa(interval=5).plan(spec(), 5)
    assert kinds(plan) == kinds(plan, layer=2) == [FULL, PARTIAL, SKIP, PARTIAL, SKIP]
    assert [row[HIDDEN].kind for row in plan.steps] == [FULL, FULL, REUSE, FULL, REUSE]
    odd = DuCa(interval=5).plan(spec(skip_odd=True), 5)
    assert kinds(odd) == [FULL, SKIP, PARTIAL, SKIP, PARTIAL]


def test_taylorseer_builds_its_history_order_by_order():
    plan = TaylorSeer(interval=3, order=2).plan(spec(), 9)
    assert kinds(plan) == [FULL, FULL, FORECAST, FORECAST, FULL, FORECAST, FORECAST, FULL, FORECAST]
    actions = [row["blocks", 0, "attn"] for row in plan.steps]
    assert [a.gap for a in actions] == [0, 1, 1, 2, 3, 1, 2, 3, 1] and [a.order for a in actions] == [0, 1, 1, 1, 2, 2, 2, 2, 2]


def test_local_and_none_have_no_full_steps_after_the_first():
    local = ToCa(interval=4, force_fresh="local").plan(spec(), 9)
    free = ToCa(interval=4, ratio=0.04, force_fresh="none").plan(spec(), 9)
    assert kinds(local)[1:] == [PARTIAL] * 8 and tokens(local)[1] == 4  # a quarter, rounded up
    assert kinds(free)[1:] == [PARTIAL] * 8 and tokens(free)[1] == 2
    assert (ToCa(force_fresh="global").ranking(spec()).age_weight, ToCa(force_fresh="none").ranking(spec()).age_weight) == (0.25 / 3, 0.0)
    assert (ToCa(interval=4, force_fresh="local").ranking(spec()).overdue, ToCa(force_fresh="none").ranking(spec()).overdue) == (4, 0)


# ---- seams that other forks need ----------------------------------------------------------------------------------------------------


def test_branches_may_follow_longer_cycles():
    """Three branches as in video models: attention, cross-attention and an MLP, refreshed at different intervals."""
    cross = replace(mlp(grid=None, interval_scale=2), name="cross")
    three = spec(stack(branches=[attn(), cross, mlp(interval_scale=3)]))
    plan = ToCa(interval=2).plan(three, 7)
    assert kinds(plan, "attn") == [FULL, REUSE] * 3 + [FULL]
    assert [step for step, kind in enumerate(kinds(plan, "cross")) if kind is FULL] == [0, 4]
    assert [step for step, kind in enumerate(kinds(plan, "mlp")) if kind is FULL] == [0, 6]


def test_branches_may_have_cycles_of_their_own():
    cross = replace(mlp(grid=None, interval=5), name="cross")
    own = spec(stack(branches=[attn(interval=2), cross, mlp()]))
    plan = ToCa(interval=3, soft_fresh_weight=0.6).plan(own, 11)
    full = {name: [step for step, kind in enumerate(kinds(plan, name)) if kind is FULL] for name in ("attn", "cross", "mlp")}
    assert full == {"attn": [0, 2, 4, 6, 8, 10], "cross": [0, 5, 10], "mlp": [0, 3, 6, 9]}
    assert ToCa(interval=3, soft_fresh_weight=0.6).ranking(own).age_weight == pytest.approx(0.2)  # the method's interval


def test_duca_skips_by_the_shortest_cycle():
    """Long cycles are multiples of the short one: whole steps are skipped, and reuse follows in between."""
    cross = replace(mlp(grid=None, interval_scale=2), name="cross")
    plan = DuCa(interval=3, ratio_schedule="constant", ratio=0.2).plan(spec(stack(branches=[attn(), cross, mlp()])), 7)
    assert kinds(plan, "attn") == [FULL, REUSE, SKIP, FULL, REUSE, SKIP, FULL]
    assert kinds(plan, "cross") == [FULL, PARTIAL, SKIP, PARTIAL, PARTIAL, SKIP, FULL]
    assert [row[HIDDEN].kind for row in plan.steps] == [FULL, FULL, REUSE, FULL, FULL, REUSE, FULL]


def test_duca_does_not_skip_a_step_at_which_a_branch_is_due():
    plan = DuCa(interval=3).plan(spec(stack(branches=[attn(), mlp(interval=4)])), 9)
    assert [step for step, kind in enumerate(kinds(plan, "mlp")) if kind is FULL] == [0, 4, 8]
    assert kinds(plan, "attn") == [FULL, REUSE, SKIP, FULL, REUSE, SKIP, FULL, REUSE, REUSE]


def test_a_mixed_step_concerns_only_the_first_layer_of_the_first_stack():
    stretched = {"toca": Cycle(stretch=(1.4, -0.8), window=(0.2, 0.4, 2))}
    plan = ToCa(interval=3, upstream_exact=True).plan(spec(stack("double", 2), stack("single", 2), cycles=stretched, counts_down=True), 50)
    assert plan.kind_counts()["mixed"] == 2
    for step in (49 - 45, 49 - 32):
        row = plan.steps[step]
        assert plan.step_kind(step) == "mixed"
        assert {site[:2] for site in row if site != HIDDEN and row[site].kind is FULL} == {("double", 0)}
    once = ToCa(interval=3).plan(plan.spec, 50)
    assert once.kind_counts()["mixed"] == 0 and once.kind_counts()["full"] == 20


def test_steps_may_count_up_or_down():
    cycle = {"toca": Cycle(stretch=(1.4, -0.8))}
    up, down = (kinds(ToCa(interval=6).plan(spec(cycles=cycle, counts_down=down), 80)) for down in (False, True))
    assert up[:40].count(FULL) > up[40:].count(FULL) and down[:40].count(FULL) < down[40:].count(FULL)  # long cycles lie at high indices


def test_a_stack_without_token_wise_branches_is_reused_whole():
    plan = ToCa(interval=2).plan(spec(stack("double", 1), stack("single", 1, [attn()])), 2)
    assert plan.steps[1]["single", 0, "attn"].kind is REUSE
    assert chunks_needed(plan, plan.spec.stack("single"), 1, 0) == (2,)


def test_cycles_are_the_models_own():
    assert set(CYCLES) == {"fora", "toca", "duca", "taylorseer"}
    assert kinds(FORA(interval=3).plan(spec(cycles={"fora": Cycle(lead=3)}), 6)) == [FULL, FULL, FULL, FULL, REUSE, REUSE]
