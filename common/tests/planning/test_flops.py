from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy import WIDTH, Model, attn, mlp, run, spec, stack

from toca.engine.cache import NO_CACHE, Cache
from toca.methods import FORA, DuCa, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import executed_flops, speedup, step_flops, total_flops, uncached_flops
from toca.planning.plan import Kind
from toca.planning.spec import Cost, Stack

METHODS = [NoCaching(), FORA(), ToCa(), ToCa(ratio=1.0, upstream_exact=True), ToCa(score="norm", force_fresh="local")]
METHODS += [DuCa(interval=4), TaylorSeer(interval=3)]
LAYER, ATTN, MLP = 12 * WIDTH**2, 8 * WIDTH**2 + 4 * 15 * WIDTH, 8 * WIDTH**2  # FLOPs: modulation; per token of the branches


def counted(model, cache, x, steps):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the counter is blind to the fused kernel of CPUs
        run(model, cache, x, steps)
    return counter.get_total_flops()


def test_a_step_costs_what_it_computes():
    plan = DuCa(interval=4).plan(spec(stack(depth=1)), 4)
    assert [row["blocks", 0, "mlp"].kind for row in plan.steps] == [Kind.FULL, Kind.PARTIAL, Kind.SKIP, Kind.PARTIAL]
    tokens = plan.steps[1]["blocks", 0, "mlp"].tokens
    assert [step_flops(plan.spec, row) for row in plan.steps] == [LAYER + 15 * (ATTN + MLP), LAYER + tokens * MLP, 0, LAYER + tokens * MLP]
    upstream = [5 + 11 + 3 + 150 + 105, 5 + 11 + 7 * tokens, 0, 5 + 11 + 7 * tokens]
    assert [step_flops(plan.spec, row, "upstream") for row in plan.steps] == upstream


def test_a_forecast_step_has_no_norms():
    plan = TaylorSeer(interval=2).plan(spec(stack(depth=1)), 4)
    assert [step_flops(plan.spec, row, "upstream") for row in plan.steps] == [274, 274, 5, 274]


def test_totals_scale_with_rows_and_stacks():
    plan = FORA(interval=2).plan(spec(stack("double", 2), stack("single", 3, [attn()])), 4)
    full = 2 * (LAYER + 15 * (ATTN + MLP)) + 3 * (LAYER + 15 * ATTN)
    assert total_flops(plan, rows=1) == 2 * full + 2 * 5 * LAYER and total_flops(plan, rows=6) == 6 * total_flops(plan, rows=1)
    assert uncached_flops(plan, rows=1) == 4 * full
    assert speedup(plan) == pytest.approx(4 * full / (2 * full + 10 * LAYER))


def test_what_we_compute_otherwise_is_counted_apart():
    cost = {"matmul": Cost(per_token=10, reuse=7), "executed": Cost(per_token=9)}
    branch = replace(mlp(), inputs=(), gate=(), scored_by=None, cost=cost)
    one = Stack("blocks", 2, (branch,), (0, WIDTH), layer_cost={})
    plan = FORA(interval=2).plan(spec(one, run_cost={"executed": 1000}), 4)
    assert total_flops(plan, rows=3) == 3 * 2 * 2 * (15 * 10 + 7)
    assert executed_flops(plan, rows=3) == 3 * (2 * 2 * 15 * 9 + 1000)


def test_an_unknown_counter_is_an_error():
    plan = FORA().plan(spec(), 3)
    with pytest.raises(ValueError, match="unknown FLOPs counter 'macs': choose from matmul, upstream"):
        total_flops(plan, "macs")


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{getattr(m, 'score', '')}")
def test_planned_flops_are_those_of_a_run(method):
    model_spec, steps = spec(stack("first", 2), stack("second", 1, [attn(), mlp()])), 9
    model, x = Model(model_spec), torch.randn(3, 15, WIDTH)
    with Cache(model_spec, method, steps) as cache:
        assert counted(model, cache, x, steps) == executed_flops(cache.plan, rows=3)
    assert counted(model, NO_CACHE, x, steps) == uncached_flops(cache.plan, rows=3)
