"""The plan of a run: what every site does at every step, made before the run, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from toca.planning.spec import HIDDEN, ModelSpec, Site, Stack


class Kind(IntEnum):
    FULL = 0  # compute all tokens
    PARTIAL = 1  # refresh the selected tokens, reuse the rest
    REUSE = 2  # recall the stored output
    FORECAST = 3  # recall a Taylor forecast of it
    SKIP = 4  # leave the branch out


@dataclass(frozen=True)
class Action:
    """What one site does at one step.

    tokens: how many are computed. gap: at a FULL step the steps since the previous full one (0: none, start a new history), at a
    FORECAST the steps since the last. order: of the differences kept or read. keep: the result is read again before it is replaced.
    score: the importance this site yields is read. At a PARTIAL step it changes that of the tokens refreshed, in the middle of a cycle.
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


Row = Mapping[Site, Action]


@dataclass(frozen=True)
class Plan:
    """`steps[e][site]`: the action of a site at step e, in execution order. Sites absent from a row run uncached."""

    spec: ModelSpec
    steps: tuple[Row, ...]

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @property
    def caches(self) -> bool:
        return any(action.kind is not Kind.FULL for row in self.steps for action in row.values())

    def kind_counts(self) -> Counter[str]:
        """Steps by kind: full, mixed (some layers or branches full), partial, reuse, forecast, skip."""
        return Counter(self.step_kind(step) for step in range(self.num_steps))

    def step_kind(self, step: int) -> str:
        row = self.steps[step]
        if row[HIDDEN].kind is not Kind.FULL:
            return "skip"
        kinds = {action.kind for site, action in row.items() if site != HIDDEN}
        if kinds == {Kind.FULL}:
            return "full"
        if Kind.FULL in kinds:
            return "mixed"
        return next(kind.name.lower() for kind in (Kind.PARTIAL, Kind.FORECAST, Kind.REUSE, Kind.SKIP) if kind in kinds)

    def tokens_refreshed(self) -> float:
        """Share of the token-wise branches' tokens that are computed, over the whole run."""
        sites = [site for site in self.spec.sites() if self.spec.branch(site).tokenwise]
        computed = sum(row[site].tokens for row in self.steps for site in sites)
        return computed / (self.num_steps * sum(self.spec.branch(site).tokens for site in sites))


def chunks_needed(plan: Plan, stack: Stack, step: int, layer: int) -> tuple[int, ...]:
    """The modulation chunks that a layer reads at a step: a branch's inputs if it computes tokens, its gate unless it is skipped."""
    needed: set[int] = set()
    for branch in stack.branches:
        action = plan.steps[step][stack.name, layer, branch.name]
        needed.update(branch.inputs if action.computes else (), branch.gate if action.kind is not Kind.SKIP else ())
    return tuple(sorted(needed))


def finish(
    spec: ModelSpec, rows: Iterable[Mapping[Site, Action]], history: bool = False, observes: str = "mass", frozen: bool = False
) -> Plan:
    """Mark what is read again (`keep`, `score`), so that a run stores and scores nothing else.

    history: a stored value is read through later full steps too (differences of a forecast). observes: what rates tokens
    (`toca.planning.scores.Score`). frozen: partial steps leave ratings as they are.
    """
    steps = [dict(row) for row in rows]
    for site in spec.sites():
        if target := spec.branch(site).feeds:
            _skip_unread(steps, site, (site[0], site[1], target))
    for site in (*spec.sites(), HIDDEN):
        read = False
        for row in reversed(steps):
            action = row[site]
            if action.keep != read:
                row[site] = replace(action, keep=read)
            if action.kind is Kind.FULL:
                read = read and history
            elif action.kind is not Kind.SKIP:
                read = True
    for site in spec.sites():
        branch = spec.branch(site)
        if branch.tokenwise and (scorer := branch.scorer(observes)):
            _mark_scores(steps, site, (site[0], site[1], scorer), branch.tokens, frozen)
    return Plan(spec, tuple(steps))


def _skip_unread(steps: list[dict[Site, Action]], fed: Site, reader: Site) -> None:
    """Leave a branch out between its full steps wherever its only reader computes nothing."""
    for row in steps:
        if row[fed].kind is not Kind.FULL and not row[reader].computes:
            row[fed] = Action(Kind.SKIP)


def _mark_scores(steps: list[dict[Site, Action]], ranked: Site, scorer: Site, tokens: int, frozen: bool) -> None:
    read = False
    for row in reversed(steps):
        selects = row[ranked].kind is Kind.PARTIAL and 0 < row[ranked].tokens < tokens
        read = read or (selects and ranked != scorer)
        if row[scorer].kind is Kind.FULL or (row[scorer].kind is Kind.PARTIAL and not frozen):
            row[scorer] = replace(row[scorer], score=row[scorer].score or read)
        if row[scorer].kind is Kind.FULL:
            read = False
        read = read or (selects and ranked == scorer)  # it chooses before it is computed
