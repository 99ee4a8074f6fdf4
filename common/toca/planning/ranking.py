"""When tokens are ranked: for a whole cycle ahead wherever no score changes before its end, many layers at once. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from toca.planning.plan import Action, Kind, Plan
from toca.planning.scores import Score
from toca.planning.spec import Branch, Site, Stack

TOGETHER = 8  # layers whose whole outputs wait for one ranking, before all but the chosen tokens of them go


@dataclass(frozen=True)
class Batch:
    """Layers ranked together, for several steps at once.

    layers: neighbours in one stack.
    steps: those that choose by this ranking.
    waits: for what the layers see at the step that ranks them; otherwise they are ranked when it begins.
    packs: that step computes what feeds the ranked branch; until it is computed again only the chosen tokens of it are read.
    """

    layers: range
    steps: tuple[int, ...]
    waits: bool = False
    packs: bool = False


@dataclass(frozen=True)
class Timeline:
    """One branch in all layers of its stack through a run: when its tokens are scored, ranked and refreshed.

    A cycle of 4 steps of an MLP of 15 tokens, scored by attention (F full, R reused):

        step      0   1   2   3   4
        attn      F   R   R   R   F
        scored    x               x    attention shows scores at 0, and new ones at 4
        mlp       F   3   3   3   F
        counts    0   3   3   3   0    tokens to choose
        stretch   |---1---2---3   |    what 1, 2 and 3 choose is known from 0 on
        ranked        x                at 1, for 1, 2 and 3, all layers in one batch
              or  x                    at 0, if only chosen tokens of what feeds the branch are to be kept (`Batch.packs`)
    """

    plan: Plan
    stack: Stack
    branch: Branch
    score: Score

    def action(self, step: int, layer: int, branch: str | None = None) -> Action:
        """Of the branch itself, or of another one of the layer."""
        return self.plan.steps[step][self.stack.name, layer, branch or self.branch.name]

    @cached_property
    def counts(self) -> list[list[int]]:
        """[step][layer]: how many tokens are chosen. Where all are computed they are ranked too, unless that takes the input."""
        return [[self._count(self.action(step, layer)) for layer in range(self.stack.depth)] for step in range(self.plan.num_steps)]

    @cached_property
    def batches(self) -> list[list[Batch]]:
        """[step]: what is ranked at that step. Every step of a layer that chooses tokens is in one batch."""
        alike: dict[tuple[int, tuple[int, ...], bool, bool], list[int]] = {}  # (ranked at, steps, waits, packs) -> layers
        for layer in range(self.stack.depth):
            for start, steps in self._stretches(layer):
                packs = self._packs(layer, start, steps)
                at = start if packs else steps[0]
                waits = self.score.from_input or self._scored(layer, at)
                alike.setdefault((at, steps, waits, packs), []).append(layer)
        found: list[list[Batch]] = [[] for _ in self.plan.steps]
        for (at, steps, waits, packs), layers in alike.items():
            most = TOGETHER if packs else 1 if waits else self.stack.depth
            found[at] += [Batch(some, steps, waits, packs) for some in spans(layers, most)]
        return found

    @property
    def packed(self) -> dict[tuple[int, Site], list[tuple[int, int]]]:
        """Outputs of the feeder that shrink to the tokens that are read: (step, site) -> (step, tokens) of every read."""
        feeder = self.stack.feeder(self.branch)
        if feeder is None:
            return {}
        return {
            (at, (self.stack.name, layer, feeder.name)): [(step, self.counts[step][layer]) for step in batch.steps]
            for at, some in enumerate(self.batches)
            for batch in some
            for layer in (batch.layers if batch.packs else ())
        }

    def _count(self, action: Action) -> int:
        if action.kind is not Kind.PARTIAL or (self.score.from_input and action.tokens == self.branch.tokens):
            return 0
        return action.tokens

    def _stretches(self, layer: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(the step from which on the scores are known, the steps that choose tokens by them), of a layer.

        Scores of the input are known at once, and for one step. No stretch chooses as many tokens as there are.
        """
        start, total = 0, 0
        steps: list[int] = []
        for step in range(self.plan.num_steps):
            count = self.counts[step][layer]
            full = count and total + count >= self.branch.tokens
            if self._changes(layer, step) or full or (count and self.score.from_input):
                if steps:
                    yield start, tuple(steps)
                start, steps, total = step, [], 0
            if count:
                steps.append(step)
                total += count
        if steps:
            yield start, tuple(steps)

    def _changes(self, layer: int, step: int) -> bool:
        """Whether scores or staleness before the choice of a step are not those that the step before could foresee."""
        action = self.action(step, layer)
        by_itself = self._scores_itself and step > 0 and self.action(step - 1, layer).score
        return action.kind is Kind.FULL or action.tokens == self.branch.tokens or self._scored(layer, step) or by_itself

    def _scored(self, layer: int, step: int) -> bool:
        """Whether attention scores the layer's tokens anew at a step, before the branch chooses any."""
        scorer = self.branch.scorer(self.score.observes) if self.score.from_attention and not self._scores_itself else None
        return scorer is not None and self.action(step, layer, scorer).score

    @property
    def _scores_itself(self) -> bool:
        """Then it chooses before it scores."""
        return self.score.observes == "entropy" and self.branch.entropy_by == self.branch.name

    def _packs(self, layer: int, start: int, steps: tuple[int, ...]) -> bool:
        """Whether what feeds the branch is computed at `start`, and read at `steps` alone until it is computed again."""
        feeder = self.stack.feeder(self.branch)
        if feeder is None or start == steps[0] or self.action(start, layer, feeder.name).kind is not Kind.FULL:
            return False
        later = range(start + 1, self.plan.num_steps)
        end = next((step for step in later if self.action(step, layer, feeder.name).kind is Kind.FULL), self.plan.num_steps)
        return steps == tuple(step for step in range(start + 1, end) if self.action(step, layer).computes)


def spans(layers: Sequence[int], most: int | None = None) -> Iterator[range]:
    """Ascending layers as ranges of neighbours, of at most so many layers each."""
    for _, run in groupby(enumerate(layers), lambda at: at[1] - at[0]):
        some = [layer for _, layer in run]
        for first in range(some[0], some[-1] + 1, most or len(some)):
            yield range(first, min(first + (most or len(some)), some[-1] + 1))
