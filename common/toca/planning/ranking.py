"""When tokens are ranked: for a whole cycle ahead wherever no score changes before its end, many layers at once. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from toca.planning.plan import Kind, Plan
from toca.planning.scores import Score
from toca.planning.spec import Branch, Stack

TOGETHER = 8  # layers whose whole outputs wait for one ranking, before all but the chosen rows of them go


@dataclass(frozen=True)
class Batch:
    """Layers ranked together, for all of these steps at once.

    waits: for what the layers see at the step that ranks them; otherwise they are ranked when it begins. packs: what feeds the ranked
    branch is computed at that step, and until it is computed again only the chosen rows of it are read.
    """

    layers: range
    steps: tuple[int, ...]
    waits: bool = False
    packs: bool = False


def chosen_counts(plan: Plan, stack: Stack, branch: Branch, score: Score) -> list[list[int]]:
    """[step][layer]: how many tokens are ranked first. A layer that computes all of them ranks them only if it needs no input for it."""
    actions = [[row[stack.name, layer, branch.name] for layer in range(stack.depth)] for row in plan.steps]
    return [
        [a.tokens if a.kind is Kind.PARTIAL and not (score.from_input and a.tokens == branch.tokens) else 0 for a in step]
        for step in actions
    ]


def batches(plan: Plan, stack: Stack, branch: Branch, score: Score) -> list[list[Batch]]:
    """[step]: what is ranked at that step. Every step of a layer that chooses tokens is in one batch."""
    counts = chosen_counts(plan, stack, branch, score)
    alike: dict[tuple[int, Batch], list[int]] = {}  # (step, a batch without its layers) -> layers
    for layer in range(stack.depth):
        for start, steps in _stretches(plan, stack, branch, score, layer, [step[layer] for step in counts]):
            packs = _packs(plan, stack, branch, layer, start, steps)
            step = start if packs else steps[0]
            waits = score.from_input or _scores(plan, stack, branch, score, layer, step)
            alike.setdefault((step, Batch(range(0), steps, waits, packs)), []).append(layer)
    found: list[list[Batch]] = [[] for _ in plan.steps]
    for (step, batch), layers in alike.items():
        most = TOGETHER if batch.packs else 1 if batch.waits else stack.depth
        found[step] += [Batch(some, batch.steps, batch.waits, batch.packs) for some in spans(layers, most)]
    return found


def spans(layers: Sequence[int], most: int | None = None) -> Iterator[range]:
    """Ascending layers as ranges of neighbours, of at most so many layers each."""
    for _, run in groupby(enumerate(layers), lambda at: at[1] - at[0]):
        some = [layer for _, layer in run]
        for first in range(some[0], some[-1] + 1, most or len(some)):
            yield range(first, min(first + (most or len(some)), some[-1] + 1))


def _stretches(
    plan: Plan, stack: Stack, branch: Branch, score: Score, layer: int, counts: Sequence[int]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(the step from which on the scores are known, the steps that choose tokens by them), of a layer.

    Scores of the input are known at once, and for one step. A branch that rates itself chooses before it does. No stretch chooses as
    many rows as there are tokens.
    """
    start, steps, total = 0, [], 0
    for step, (row, count) in enumerate(zip(plan.steps, counts, strict=True)):
        action = row[stack.name, layer, branch.name]
        fresh = action.kind is Kind.FULL or action.tokens == branch.tokens or _scores(plan, stack, branch, score, layer, step)
        if step and _rates_itself(branch, score):
            fresh = fresh or plan.steps[step - 1][stack.name, layer, branch.name].score
        if fresh or (count and (score.from_input or total + count >= branch.tokens)):
            if steps:
                yield start, tuple(steps)
            start, steps, total = step, [], 0
        if count:
            steps.append(step)
            total += count
    if steps:
        yield start, tuple(steps)


def _scores(plan: Plan, stack: Stack, branch: Branch, score: Score, layer: int, step: int) -> bool:
    """Whether attention rates the layer's tokens anew at a step, before the branch chooses any."""
    scorer = branch.scorer(score.observes) if score.from_attention and not _rates_itself(branch, score) else None
    return bool(scorer and plan.steps[step][stack.name, layer, scorer].score)


def _rates_itself(branch: Branch, score: Score) -> bool:
    return score.observes == "entropy" and branch.entropy_by == branch.name


def _packs(plan: Plan, stack: Stack, branch: Branch, layer: int, start: int, steps: Sequence[int]) -> bool:
    """Whether what feeds the branch is computed at `start`, and read at `steps` alone until it is computed again."""
    feeder = next((b.name for b in stack.branches if b.feeds == branch.name), None)
    if feeder is None or start == steps[0] or plan.steps[start][stack.name, layer, feeder].kind is not Kind.FULL:
        return False
    later = range(start + 1, plan.num_steps)
    end = next((step for step in later if plan.steps[step][stack.name, layer, feeder].kind is Kind.FULL), plan.num_steps)
    return steps == tuple(step for step in range(start + 1, end) if plan.steps[step][stack.name, layer, branch.name].computes)
