"""FLOPs of a run from its spec and plan, without running the model."""

from __future__ import annotations

from toca.plan import Kind, Plan, Row
from toca.spec import COUNTERS, HIDDEN, ModelSpec, Stack


def step_flops(spec: ModelSpec, row: Row, counter: str = "matmul") -> int:
    """FLOPs of one batch row at one step of a plan.

    counter "matmul": two per multiply-add of every matrix product, what `torch.utils.flop_counter` sees of a run that computes all
    modulation chunks. "upstream": what the published code counts (its own weights, no embeddings). Raises ValueError on another name.
    """
    if counter not in COUNTERS:
        raise ValueError(f"unknown FLOPs counter {counter!r}: choose from {', '.join(COUNTERS)}")
    total = spec.forward_cost.get(counter, 0)
    return total + sum(_layer(stack, layer, row, counter) for stack in spec.stacks for layer in range(stack.depth))


def _layer(stack: Stack, layer: int, row: Row, counter: str) -> int:
    actions = [(branch, row[stack.name, layer, branch.name]) for branch in stack.branches]
    if all(action.kind is Kind.SKIP for _, action in actions):
        return 0
    flops = stack.layer_cost.get(counter, 0) + sum(b.cost[counter](a.tokens) for b, a in actions if a.computes)
    forecast = all(action.kind is Kind.FORECAST for _, action in actions)
    return flops if forecast else flops + stack.norm_cost.get(counter, 0)


def total_flops(plan: Plan, counter: str = "matmul", rows: int = 2) -> int:
    """FLOPs of a whole run for `rows` batch rows: 2 for one image with guidance, the convention of the published tables."""
    return rows * sum(step_flops(plan.spec, row, counter) for row in plan.steps)


def uncached_flops(plan: Plan, counter: str = "matmul", rows: int = 2) -> int:
    """FLOPs of the same run without caching."""
    from toca.methods.none import NoCaching

    return total_flops(NoCaching().plan(plan.spec, plan.num_steps), counter, rows)


def speedup(plan: Plan, counter: str = "matmul") -> float:
    return uncached_flops(plan, counter) / total_flops(plan, counter)
