"""The plan of a run: what every site does at every step, made before the run, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

from toca.planning.spec import HIDDEN, Branch, ModelSpec, Site, Stack


class Kind(IntEnum):
    FULL = 0  # compute all tokens
    PARTIAL = 1  # refresh the selected tokens, reuse the rest
    REUSE = 2  # recall the stored output
    FORECAST = 3  # recall a Taylor forecast of it
    SKIP = 4  # leave the branch out


@dataclass(frozen=True)
class Action:
    """What one site does at one step.

    tokens: how many are computed.
    gap: steps since the last full step; 0 at a full step means: forget the history.
    order: how many differences are stored (full) or used (forecast).
    keep: store the result, a later step reads it.
    score: attention here must also score tokens, because a later choice goes by it. At a partial step: those refreshed alone.
    """

    kind: Kind
    tokens: int = 0
    gap: int = 0
    order: int = 0
    keep: bool = False
    score: bool = False

    @property
    def computes(self) -> bool:
        return self.tokens > 0

    def chooses(self, tokens: int) -> bool:
        """Whether it refreshes some of so many tokens, but not all."""
        return self.kind is Kind.PARTIAL and 0 < self.tokens < tokens


Actions = Mapping[Site, Action]  # of one step
STANDS_IN = {Kind.REUSE: "skip", Kind.FORECAST: "hidden"}  # for the layers, at `HIDDEN`: the last state, or a forecast of it


@dataclass(frozen=True)
class Plan:
    """`steps[e][site]`: the action of a site at step e, in execution order; of every site of the spec, and `HIDDEN`.

    At `HIDDEN`, full: the state of this step is the newest that may stand in for another. partial: layers ran, but it is none of those.
    reuse, forecast: what is stored stands in for the layers.
    """

    spec: ModelSpec
    steps: tuple[Actions, ...]

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @cached_property
    def running(self) -> tuple[Mapping[str, frozenset[int]], ...]:
        """[step][stack]: the layers that run."""
        return tuple({stack.name: frozenset(running_layers(actions, stack)) for stack in self.spec.stacks} for actions in self.steps)

    def running_sites(self, step: int) -> Iterator[Site]:
        """The sites of all layers that run."""
        for stack in self.spec.stacks:
            for layer in sorted(self.running[step][stack.name]):
                yield from ((stack.name, layer, branch.name) for branch in stack.branches)

    def selects(self, stack: Stack, branch: Branch) -> bool:
        """Whether a branch ever refreshes some of its tokens, but not all: then they are ranked."""
        sites = [(stack.name, layer, branch.name) for layer in range(stack.depth)]
        return branch.tokenwise and any(actions[site].chooses(branch.tokens) for actions in self.steps for site in sites)

    @property
    def caches(self) -> bool:
        return any(action.kind is not Kind.FULL for actions in self.steps for action in actions.values())

    def kind_counts(self) -> Counter[str]:
        """Steps by kind: full, mixed (some layers or branches full), partial, reuse, forecast, skip, hidden.

        skip: the last state after all layers stands in for them. hidden: a forecast of it does.
        """
        return Counter(self.step_kind(step) for step in range(self.num_steps))

    def step_kind(self, step: int) -> str:
        actions = self.steps[step]
        if actions[HIDDEN].kind in STANDS_IN:
            return STANDS_IN[actions[HIDDEN].kind]
        kinds = {action.kind for site, action in actions.items() if site != HIDDEN}
        if kinds == {Kind.FULL}:
            return "full"
        if Kind.FULL in kinds:
            return "mixed"
        return next(kind.name.lower() for kind in (Kind.PARTIAL, Kind.FORECAST, Kind.REUSE, Kind.SKIP) if kind in kinds)

    def tokens_refreshed(self) -> float:
        """Share of the token-wise branches' tokens that are computed, over the whole run."""
        sites = [site for site in self.spec.sites() if self.spec.branch(site).tokenwise]
        computed = sum(actions[site].tokens for actions in self.steps for site in sites)
        return computed / (self.num_steps * sum(self.spec.branch(site).tokens for site in sites))


def full_step(spec: ModelSpec) -> dict[Site, Action]:
    """A step that computes everything."""
    return {site: Action(Kind.FULL, spec.branch(site).tokens) for site in spec.sites()} | {HIDDEN: Action(Kind.FULL)}


def running_layers(actions: Actions, stack: Stack) -> list[int]:
    """The layers of a stack that run at a step: all but those whose branches are all skipped."""
    names = [branch.name for branch in stack.branches]
    return [layer for layer in range(stack.depth) if any(actions[stack.name, layer, name].kind is not Kind.SKIP for name in names)]


def chunks_needed(plan: Plan, stack: Stack, step: int, layer: int) -> tuple[int, ...]:
    """The modulation chunks that a layer reads at a step: a branch's inputs if it computes tokens, its gate unless it is skipped."""
    needed: set[int] = set()
    for branch in stack.branches:
        action = plan.steps[step][stack.name, layer, branch.name]
        needed.update(branch.inputs if action.computes else (), branch.gate if action.kind is not Kind.SKIP else ())
    return tuple(sorted(needed))


def finish(spec: ModelSpec, planned: Iterable[Actions], history: bool = False, observes: str = "mass", frozen: bool = False) -> Plan:
    """Mark what is read again (`keep`, `score`), so that a run stores and scores nothing else.

    history: a stored value is read through later full steps too (differences of a forecast).
    observes: what tokens are scored by (`toca.planning.scores.Score`).
    frozen: partial steps leave scores as they are.
    """
    steps = [dict(actions) for actions in planned]
    for site in spec.sites():
        if target := spec.branch(site).feeds:
            _skip_unread(steps, site, (site[0], site[1], target))
    for site in (*spec.sites(), HIDDEN):
        _mark_kept(steps, site, history)
    for site in spec.sites():
        branch = spec.branch(site)
        if branch.tokenwise and (scorer := branch.scorer(observes)):
            _mark_scored(steps, site, (site[0], site[1], scorer), branch.tokens, frozen)
    return Plan(spec, tuple(steps))


def next_reader(step: int, reads: Sequence[bool], replaces: Sequence[bool]) -> int | None:
    """The first step after `step` that reads what was written at it; None if it is replaced before, or never read.

    reads, replaces: of every step. What a step replaces it does not read.
    """
    for later in range(step + 1, len(reads)):
        if replaces[later]:
            return None
        if reads[later]:
            return later
    return None


def _skip_unread(steps: list[dict[Site, Action]], fed: Site, reader: Site) -> None:
    """Leave a branch out between its full steps wherever its only reader computes nothing."""
    for actions in steps:
        if actions[fed].kind is not Kind.FULL and not actions[reader].computes:
            actions[fed] = Action(Kind.SKIP)


def _mark_kept(steps: list[dict[Site, Action]], site: Site, history: bool) -> None:
    kinds = [actions[site].kind for actions in steps]
    reads = [kind not in (Kind.FULL, Kind.SKIP) and (site != HIDDEN or kind in STANDS_IN) for kind in kinds]
    replaces = [kind is Kind.FULL and not history for kind in kinds]
    for step, actions in enumerate(steps):
        if next_reader(step, reads, replaces) is not None:
            actions[site] = replace(actions[site], keep=True)


def _mark_scored(steps: list[dict[Site, Action]], ranked: Site, scorer: Site, tokens: int, frozen: bool) -> None:
    """A branch chooses tokens before it computes them: by scores of an earlier step if it scores itself, else of the same step too."""
    reads = [actions[ranked].chooses(tokens) for actions in steps]
    replaces = [actions[scorer].kind is Kind.FULL for actions in steps]
    for step, actions in enumerate(steps):
        writes = replaces[step] or (actions[scorer].kind is Kind.PARTIAL and not frozen)
        at_once = reads[step] and ranked != scorer
        if writes and (at_once or next_reader(step, reads, replaces) is not None):
            actions[scorer] = replace(actions[scorer], score=True)
