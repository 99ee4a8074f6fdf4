"""Bytes that a run holds in its cache, from spec, plan and method alone: no torch, no run. Equal to `Cache.held` after every model call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

from toca.planning.method import Method, Ranking
from toca.planning.plan import Kind, Plan, Row, chunks_needed
from toca.planning.ranking import Batch, batches
from toca.planning.scores import RATINGS, Score
from toca.planning.spec import HIDDEN, Branch, ModelSpec, Site, Stack

MODULATION_BUDGET = 2**28  # bytes that precomputed modulations may take, by default
ONCE_BUDGET = 2**30  # bytes that what layers compute once in a run may take, by default
DTYPES = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a number
INT64, INT32, FLOAT32, BOOL = 8, 4, 4, 1
Ranked = list[list[Batch]]  # by step


@dataclass(frozen=True)
class Held:
    """Bytes by part.

    outputs: what branches stored, Taylor differences included, or the rows of it that are still read. inputs: what rated them by change
    keeps beside. hidden: the state after the last block. ranking: scores, staleness and the rows chosen so far, for coming steps too.
    modulation: the precomputed modulations of all steps. once: what else no step changes, such as an embedded text.
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

    rows: of the batch, both halves of guidance counted. element_size: bytes of a number of the model's dtype.
    modulation_budget: 0 if the run does not precompute modulations. once_budget: for what every layer computes once.
    Raises ValueError if rows or element_size is below 1.
    """
    if rows < 1 or element_size < 1:
        raise ValueError(f"rows and element_size must be at least 1, got {rows} and {element_size}")
    spec, ranking = plan.spec, method.ranking(plan.spec)
    modulation = sum(_tables(plan, rows * element_size, modulation_budget))
    selected = [(stack, branch) for stack in spec.stacks for branch in stack.branches if ranking and _selects(plan, stack, branch)]
    tracked = {(stack.name, branch.name) for stack, branch in selected if _keeps_inputs(ranking)}
    size = {site: rows * spec.branch(site).tokens * spec.branch(site).width * element_size for site in spec.sites()}
    hidden = rows * spec.hidden[0] * spec.hidden[1] * element_size
    by_layers = layers_once(spec, rows, element_size)
    once = rows * (spec.once[0] * element_size + spec.once[1]) + (by_layers if by_layers <= once_budget else 0)
    seeds = rows * INT64 if ranking and RATINGS[ranking.score].random else 0

    ranks = [(stack, branch, batches(plan, stack, branch, RATINGS[ranking.score])) for stack, branch in selected]
    ranking_bytes = [_ranking_bytes(plan, *some, RATINGS[ranking.score], rows) for some in ranks]
    packed = {place: reads for some in ranks for place, reads in _packed(plan, *some)}
    outputs, parts = dict.fromkeys(size, 0), dict.fromkeys(size, None)
    inputs = dict.fromkeys((site for site in size if (site[0], site[2]) in tracked), 0)
    held = []
    for step, row in enumerate(plan.steps):
        for site in _running(spec, row):
            if row[site].kind is Kind.FULL:
                parts[site] = packed.get((step, site))
            if reads := parts[site]:
                outputs[site] = size[site] // spec.branch(site).tokens * sum(count for at, count in reads if at > step)
            else:
                outputs[site] = size[site] * (row[site].order + 1 if method.forecasts else 1) if row[site].keep else 0
            if site in inputs:
                inputs[site] = size[site] * row[site].keep
        held.append(
            Held(
                outputs=sum(outputs.values()),
                inputs=sum(inputs.values()),
                hidden=hidden if row[HIDDEN].keep else 0,
                ranking=seeds + sum(some[step] for some in ranking_bytes),
                modulation=modulation,
                once=once,
            )
        )
    return held


def attention_maps(plan: Plan, method: Method, rows: int, element_size: int) -> int:
    """Bytes of the head-averaged attention map of every layer, which the published code keeps where we keep a number per token."""
    ranking = method.ranking(plan.spec)
    observes = RATINGS[ranking.score].observes if ranking and plan.spec.published_maps else None
    total = 0
    for stack in plan.spec.stacks:
        scorers = {branch.scorer(observes) for branch in stack.branches if branch.tokenwise} - {None}
        for scorer in map(stack.branch, scorers):
            keys = {"mass": scorer.tokens, "entropy": scorer.map_keys}.get(observes, 0)
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


def _running(spec: ModelSpec, row: Row) -> Iterator[Site]:
    """The sites of all layers that run: a layer is left out if all its branches are."""
    for stack in spec.stacks:
        for layer in range(stack.depth):
            sites = [(stack.name, layer, branch.name) for branch in stack.branches]
            if any(row[site].kind is not Kind.SKIP for site in sites):
                yield from sites


def _selects(plan: Plan, stack: Stack, branch: Branch) -> bool:
    """Whether the plan ever refreshes some of a branch's tokens, but not all: then they are ranked."""
    actions = (row[stack.name, layer, branch.name] for row in plan.steps for layer in range(stack.depth)) if branch.tokenwise else ()
    return any(action.kind is Kind.PARTIAL and 0 < action.tokens < branch.tokens for action in actions)


def _keeps_inputs(ranking: Ranking) -> bool:
    return RATINGS[ranking.score].observes == "change" and not ranking.upstream_exact


def _ranking_bytes(plan: Plan, stack: Stack, branch: Branch, ranked: Ranked, score: Score, rows: int) -> list[int]:
    """What a `Selector` holds after every step: scores, staleness, the counts of all steps, positions; and of every step that is ranked,
    from then until it is over the chosen rows, and until it comes the mask of them."""
    ranked_rows = rows // plan.spec.rated_together(score)
    tokens = stack.depth * ranked_rows * branch.tokens
    fixed = (tokens * FLOAT32 if score.from_attention else 0) + tokens * INT32
    fixed += (plan.num_steps * stack.depth + branch.tokens + rows) * INT64
    held = [fixed] * plan.num_steps
    for now, some in enumerate(ranked):
        for batch in some:
            for step in batch.steps:
                chosen = sum(plan.steps[step][stack.name, layer, branch.name].tokens for layer in batch.layers)
                held[step] += chosen * rows * INT64
                for before in range(now, step):
                    held[before] += chosen * rows * INT64 + len(batch.layers) * ranked_rows * branch.tokens * BOOL
    return held


def _packed(plan: Plan, stack: Stack, branch: Branch, ranked: Ranked) -> Iterator[tuple[tuple[int, Site], list[tuple[int, int]]]]:
    """Where an output shrinks to the rows of it that are read: ((step, site), the steps that read and how many rows each)."""
    feeder = next((b.name for b in stack.branches if b.feeds == branch.name), None)
    for step, some in enumerate(ranked):
        for batch in some if feeder else ():
            for layer in batch.layers if batch.packs else ():
                reads = [(at, plan.steps[at][stack.name, layer, branch.name].tokens) for at in batch.steps]
                yield (step, (stack.name, layer, feeder)), reads
