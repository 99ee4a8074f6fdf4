"""Bytes that a run holds in its cache, from spec, plan and method alone: no torch, no run. Equal to `Cache.held` after every model call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from toca.planning.checks import check_kind, check_positive, check_whole
from toca.planning.method import Method
from toca.planning.plan import Kind, Plan, chunks_needed
from toca.planning.ranking import Timeline
from toca.planning.spec import HIDDEN, ModelSpec, Site, Stack

MODULATION_BUDGET = 2**28  # bytes that precomputed modulations may take, by default
ONCE_BUDGET = 2**30  # bytes that what layers compute once in a run may take, by default
DTYPES = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a number
INT64, INT32, FLOAT32, BOOL = 8, 4, 4, 1
Reads = Sequence[tuple[int, int]]  # (step, tokens)
NO_READS: Reads = ()


@dataclass(frozen=True)
class Held:
    """Bytes by part.

    outputs: what branches stored, Taylor differences included, or the tokens of it that are still read.
    inputs: of branches whose tokens are scored by how much they changed.
    hidden: the state after the last block.
    ranking: scores, staleness, and the tokens chosen so far, for coming steps too.
    modulation: the precomputed modulations of all steps.
    once: what else no step changes, such as an embedded text.
    """

    outputs: int = 0
    inputs: int = 0
    hidden: int = 0
    ranking: int = 0
    modulation: int = 0
    once: int = 0

    @property
    def total(self) -> int:
        return sum(astuple(self))


def predict(
    plan: Plan, method: Method, rows: int, element_size: int, modulation_budget: int = MODULATION_BUDGET, once_budget: int = ONCE_BUDGET
) -> list[Held]:
    """What the cache of a run holds after every model call.

    rows: of the batch, both halves of guidance counted.
    element_size: bytes of a number of the model's dtype.
    modulation_budget: bytes for precomputed modulations, 0 if the run does not precompute any.
    once_budget: bytes for what every layer computes once.
    Raises ValueError or TypeError on other arguments.
    """
    check_kind(Plan, plan=plan)
    check_kind(Method, method=method)
    check_positive(rows=rows, element_size=element_size)
    check_whole(modulation_budget=modulation_budget, once_budget=once_budget)
    spec, ranking = plan.spec, method.ranking(plan.spec)
    timelines = []
    if ranking:
        places = [(stack, branch) for stack in spec.stacks for branch in stack.branches if plan.selects(stack, branch)]
        timelines = [Timeline(plan, stack, branch, ranking.rule) for stack, branch in places]
    sizes = {site: rows * spec.branch(site).tokens * spec.branch(site).width * element_size for site in spec.sites()}
    tracked = {(some.stack.name, some.branch.name) for some in timelines if ranking and ranking.keeps_input}
    inputs = _stored(plan, {site: size for site, size in sizes.items() if (site[0], site[2]) in tracked}, {}, False)
    packed = {place: reads for some in timelines for place, reads in some.packed.items()}
    outputs = _stored(plan, sizes, packed, method.forecasts)
    hidden = rows * spec.hidden[0] * spec.hidden[1] * element_size
    states = _states(plan, method.forecasts)
    seeds = rows * INT64 if ranking and ranking.rule.random else 0
    selectors = [_selector(some, rows) for some in timelines]
    modulation = sum(_tables(plan, rows * element_size, modulation_budget))
    by_layers = layers_once(spec, rows, element_size)
    once = rows * (spec.once[0] * element_size + spec.once[1]) + (by_layers if by_layers <= once_budget else 0)
    return [
        Held(
            outputs=outputs[step],
            inputs=inputs[step],
            hidden=hidden * states[step],
            ranking=seeds + sum(held[step] for held in selectors),
            modulation=modulation,
            once=once,
        )
        for step, actions in enumerate(plan.steps)
    ]


def attention_maps(plan: Plan, method: Method, rows: int, element_size: int) -> int:
    """Bytes of the head-averaged attention map of every layer, which the published code keeps where we keep a number per token."""
    ranking = method.ranking(plan.spec)
    if ranking is None or not plan.spec.published.keeps_maps:
        return 0
    observes, total = ranking.rule.observes, 0
    for stack in plan.spec.stacks:
        names = {branch.scorer(observes) for branch in stack.branches if branch.tokenwise}
        for scorer in (branch for branch in stack.branches if branch.name in names):
            keys = {"mass": scorer.tokens, "entropy": plan.spec.published.map_keys.get(scorer.name, 0)}.get(observes, 0)
            total += stack.depth * rows * scorer.tokens * keys * element_size
    return total


def layers_once(spec: ModelSpec, rows: int, element_size: int) -> int:
    """Bytes of what all layers compute once in a run, such as the keys and values of a text."""
    return rows * element_size * sum(stack.depth * stack.once for stack in spec.stacks)


def table_elements(plan: Plan, stack: Stack) -> int:
    """Numbers per batch row of the precomputed modulations of a stack."""
    steps, layers = range(plan.num_steps), range(stack.depth)
    return stack.modulation[1] * sum(len(chunks_needed(plan, stack, step, layer)) for step in steps for layer in layers)


def _tables(plan: Plan, bytes_per_element: int, budget: int) -> Iterator[int]:
    """Bytes of every stack's precomputed modulations; a stack whose table would exceed what is left of the budget has none."""
    for stack in plan.spec.stacks:
        size = table_elements(plan, stack) * bytes_per_element
        if size <= budget:
            budget -= size
            yield size


def _stored(plan: Plan, sizes: Mapping[Site, int], packed: Mapping[tuple[int, Site], Reads], forecasts: bool) -> list[int]:
    """Bytes of all slots after every step; sizes: of one whole tensor of a site. packed: `Timeline.packed`."""
    held, reads, totals = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, NO_READS), []
    for step, actions in enumerate(plan.steps):
        for site in plan.running_sites(step):
            action = actions[site]
            if site not in sizes:
                continue
            if action.kind is Kind.FULL:
                reads[site] = packed.get((step, site), NO_READS)
            if reads[site]:
                held[site] = sizes[site] // plan.spec.branch(site).tokens * sum(tokens for at, tokens in reads[site] if at > step)
            else:
                held[site] = sizes[site] * (action.order + 1 if forecasts else 1) * action.keep
        totals.append(sum(held.values()))
    return totals


def _states(plan: Plan, forecasts: bool) -> list[int]:
    """How many hidden states, differences of them included, are held after every step."""
    held, states = 0, []
    for actions in plan.steps:
        action = actions[HIDDEN]
        if action.kind is Kind.FULL:
            held = action.order + 1 if forecasts else 1
        held *= action.keep
        states.append(held)
    return states


def _selector(timeline: Timeline, rows: int) -> list[int]:
    """What a `Selector` holds after every step: scores, staleness, the counts of all steps, positions; and of every step that is ranked,
    from then until it is over the chosen tokens, and until it comes the mask of them."""
    plan, score, tokens = timeline.plan, timeline.score, timeline.branch.tokens
    depth, distinct = timeline.stack.depth, rows // plan.spec.scored_together(score)
    scored = depth * distinct * tokens
    fixed = scored * (FLOAT32 if score.from_attention else 0) + scored * INT32 + (plan.num_steps * depth + tokens + rows) * INT64
    held = [fixed] * plan.num_steps
    for now, batches in enumerate(timeline.batches):
        for batch in batches:
            for step in batch.steps:
                chosen = sum(timeline.counts[step][layer] for layer in batch.layers) * rows * INT64
                held[step] += chosen
                for before in range(now, step):
                    held[before] += chosen + len(batch.layers) * distinct * tokens * BOOL
    return held
