"""FLOPs of a run from its spec and plan, without running the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from toca.planning.checks import check_choice, check_kind, check_positive
from toca.planning.plan import Actions, Kind, Plan, chunks_needed, full_step, running_layers
from toca.planning.spec import COUNTERS, Cost, ModelSpec, Stack

T = TypeVar("T")
FREE = Cost()


def step_flops(spec: ModelSpec, actions: Actions, counter: str = "matmul") -> int:
    """FLOPs of one batch row at one step of a plan.

    counter: what is counted; a spec may know more than these three.
        matmul: two per multiply-add of every matrix product, with the whole modulation of every layer that runs, as published code has it.
        upstream: what the published code counts (its own weights, no embeddings).
        executed: as matmul, but for what a spec says that we compute in another way.
    Raises ValueError on an unknown counter.
    """
    check_counter(spec, counter)
    return _counted(spec.forward_cost, counter, 0) + sum(stack_flops(stack, actions, counter) for stack in spec.stacks)


def check_counter(spec: ModelSpec, counter: str) -> None:
    """Raises ValueError or TypeError on what nobody counts by."""
    check_choice({**dict.fromkeys(COUNTERS), **spec.forward_cost}, **{"FLOPs counter": counter})


def stack_flops(stack: Stack, actions: Actions, counter: str = "matmul") -> int:
    """FLOPs of one batch row in the layers of a stack."""
    return sum(_layer(stack, layer, actions, counter) for layer in running_layers(actions, stack))


def _counted(costs: Mapping[str, T], counter: str, default: T) -> T:
    """A cost by counter; "executed" is that of "matmul" wherever a spec does not tell them apart."""
    return costs.get(counter, costs.get("matmul", default) if counter == "executed" else default)


def _layer(stack: Stack, layer: int, actions: Actions, counter: str) -> int:
    costs = [(_counted(branch.cost, counter, FREE), actions[stack.name, layer, branch.name]) for branch in stack.branches]
    flops = _counted(stack.layer_cost, counter, 0) + sum(cost(action.tokens) for cost, action in costs if action.computes)
    flops += sum(cost.reuse for cost, action in costs if action.kind is Kind.REUSE)
    forecast = all(action.kind in (Kind.FORECAST, Kind.SKIP) for _, action in costs)
    return flops if forecast else flops + _counted(stack.norm_cost, counter, 0)


def total_flops(plan: Plan, counter: str = "matmul", rows: int = 2) -> int:
    """FLOPs of a whole run for `rows` batch rows: 2 for one item with guidance, the convention of the published tables."""
    check_kind(Plan, plan=plan)
    check_positive(rows=rows)
    check_counter(plan.spec, counter)
    return rows * (_counted(plan.spec.run_cost, counter, 0) + sum(step_flops(plan.spec, actions, counter) for actions in plan.steps))


def rounded_tflops(plan: Plan, counter: str = "upstream", rows: int = 1) -> float:
    """TFLOPs of a whole run as some published tables have them: every step rounded before the sum, to two decimals of the largest of the
    published units that it reaches (`PublishedCode.printed_units`)."""
    steps = [rows * step_flops(plan.spec, actions, counter) for actions in plan.steps]
    printed = plan.spec.published.printed_units
    units = [next((unit for unit in printed if flops >= unit), printed[-1]) for flops in steps]
    return round(sum(round(flops / unit, 2) * unit for flops, unit in zip(steps, units, strict=True)) / 1e12, 2)


def executed_flops(plan: Plan, rows: int = 2) -> int:
    """What `torch.utils.flop_counter` sees of our run on the CPU: the counter "executed" less the modulation chunks that no branch reads.

    A run that computes its modulations beforehand does so once per distinct row, and costs less still.
    """
    unread = 0
    for stack in plan.spec.stacks:
        chunks, width = stack.modulation
        places = [(step, layer) for step, running in enumerate(plan.running) for layer in running[stack.name]]
        unread += sum(chunks - len(chunks_needed(plan, stack, *place)) for place in places) * 2 * width**2
    return total_flops(plan, "executed", rows) - rows * unread


def uncached_flops(plan: Plan, counter: str = "matmul", rows: int = 2) -> int:
    """FLOPs of the same run without caching."""
    check_kind(Plan, plan=plan)
    return plan.num_steps * total_flops(Plan(plan.spec, (full_step(plan.spec),)), counter, rows)


def speedup(plan: Plan, counter: str = "matmul") -> float:
    return uncached_flops(plan, counter) / total_flops(plan, counter)
