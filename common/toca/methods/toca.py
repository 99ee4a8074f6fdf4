from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toca.planning.checks import check_choice, check_kind, check_number, check_positive, check_truth
from toca.planning.method import CYCLE_LENGTH, Flag, Method, Ranking, check_run
from toca.planning.plan import Action, Kind, Plan, finish
from toca.planning.schedule import RATIO_SCHEDULES, At, Phase, refreshed_tokens
from toca.planning.scores import SCORES
from toca.planning.spec import HIDDEN, Branch, ModelSpec, Site, Spatial, Stack

FORCE_FRESH = ("global", "local", "none")


def _schedules(spec: ModelSpec) -> tuple[str, ...]:
    return tuple({**RATIO_SCHEDULES, **spec.ratio_schedules})


def _scored_by_text(spec: ModelSpec) -> bool:
    return any(branch.entropy_by for stack in spec.stacks for branch in stack.branches)


def _ageless(given: Mapping[str, Any]) -> str:
    return "" if given["force_fresh"] == "global" else f"with force-fresh {given['force_fresh']} no score has staleness in it"


@dataclass(frozen=True)
class ToCa(Method):
    """ToCa (ICLR 2025): between full steps attention is reused, and token-wise branches refresh their most important tokens.

    interval: base cycle length N, in steps.
    ratio: base share of refreshed tokens. At 0 nothing is refreshed between full steps (FORA); at 1 everything, attention too: every step
        is full.
    ratio_schedule: name of what scales the ratio over steps, layers and branches.
    score: name of what scores a token.
    soft_fresh_weight: weight of a token's staleness in its score (s3).
    force_fresh: when all tokens are refreshed.
        global: full steps recur every `interval`.
        local: only the first steps are full; any token older than `interval` steps is refreshed first, and enough are refreshed that none
            gets older than 2 x interval.
        none: only the first steps are full, ages are ignored.
    bonus: share of its score that the best token of a cell gets on top (s4); None: the model's own.
    frozen: tokens are scored at full steps alone, also where cross-attention could score those it refreshes in between.
    bucket: token counts are rounded up to a multiple of it.
    upstream_exact: reproduce the published code, accidents included.
    """

    name = "toca"
    label = "ToCa"
    flags = (
        CYCLE_LENGTH,
        Flag("fresh_ratio", "ratio", "base share of tokens refreshed at a cached step; 0 is FORA", type=float, least=0),
        Flag("cache_type", "score", "what scores a token", "attention", choices=lambda spec: tuple(SCORES)),
        Flag("ratio_scheduler", "ratio_schedule", "over steps, layers and branches", "ToCa", choices=_schedules),
        Flag("force_fresh", "force_fresh", "when all tokens are refreshed", "global", choices=lambda spec: FORCE_FRESH),
        Flag("soft_fresh_weight", "soft_fresh_weight", "weight of a token's staleness in its score", 0.25, float, least=0, idle=_ageless),
        Flag("token_bucket", "bucket", "round token counts up to a multiple: fewer shapes to compile", 1, int, most=2**20, in_name=False),
        Flag("upstream_exact", "upstream_exact", "reproduce the published code's steps, accidents included", False, bool, in_name=False),
        Flag(
            "frozen_scores",
            "frozen",
            "score tokens at full steps alone, not whenever they are refreshed",
            False,
            bool,
            applies=_scored_by_text,
            in_name=False,
        ),
    )
    interval: int = 3
    ratio: float = 0.07
    ratio_schedule: str = "ToCa"
    score: str = "attention"
    soft_fresh_weight: float = 0.25
    force_fresh: str = "global"
    bonus: float | None = None
    frozen: bool = False
    bucket: int = 1
    upstream_exact: bool = False

    def __post_init__(self) -> None:
        check_positive(interval=self.interval, bucket=self.bucket)
        check_number(ratio=self.ratio)
        if self.ratio < 0:
            raise ValueError(f"ratio must be between 0 (reuse everything) and 1 (refresh everything), got {self.ratio}")
        check_kind(str, "a name", ratio_schedule=self.ratio_schedule)
        check_choice(SCORES, score=self.score)
        check_choice(FORCE_FRESH, force_fresh=self.force_fresh)
        check_number(0, soft_fresh_weight=self.soft_fresh_weight)
        check_number(bonus=0 if self.bonus is None else self.bonus)
        check_truth(frozen=self.frozen, upstream_exact=self.upstream_exact)

    def plan(self, spec: ModelSpec, num_steps: int) -> Plan:
        check_run(spec, num_steps)
        spec.ratio_schedule(self.ratio_schedule)
        lengths = {self._cycle_length(branch) for stack in spec.stacks for branch in stack.branches}
        phases = {length: self._phases(spec, num_steps, length) for length in lengths}
        steps = [self._actions(spec, num_steps, step, phases) for step in range(num_steps)]
        return finish(spec, steps, observes=self.ranking(spec).rule.observes, frozen=self.frozen)

    def ranking(self, spec: ModelSpec) -> Ranking:
        spatial = spec.spatial.get(self.name, Spatial(0, 0.0))
        bonus = spatial.bonus if self.bonus is None else self.bonus
        return Ranking(
            score="entropy" if _scored_by_text(spec) and self.score == "attention" else self.score,
            age_weight=self.soft_fresh_weight / self.interval if self.force_fresh == "global" else 0.0,
            block=spatial.block if bonus else 0,
            bonus=bonus,
            frames=spatial.frames,
            softmax=self.upstream_exact and spec.published.softmax_bonus,
            overdue=self.interval if self.force_fresh == "local" and not self.upstream_exact else 0,
            upstream_exact=self.upstream_exact,
        )

    def _cycle_length(self, branch: Branch) -> int:
        """At interval 1 every branch is computed at every step, unless it was given a cycle of its own; published code has longer ones."""
        if self.interval == 1 and branch.interval is None and not self.upstream_exact:
            return 1
        return branch.cycle_length(self.interval)

    def _phases(self, spec: ModelSpec, num_steps: int, length: int) -> list[Phase]:
        if (self.ratio >= 1 or length == 1) and not self.upstream_exact:
            return [Phase(0, 0)] * num_steps
        cycle = spec.cycle("fora" if self.ratio == 0 else self.name)
        if self.force_fresh != "global" and (not self.upstream_exact or self.name in spec.published.full_steps_only_global):
            places = (max(0, step + 1 - cycle.lead) for step in range(num_steps))
            return [Phase(place, place) for place in places]
        return cycle.phases(length, num_steps, spec.counts_down, per_layer=self.upstream_exact)

    def _actions(self, spec: ModelSpec, num_steps: int, step: int, phases: Mapping[int, Sequence[Phase]]) -> dict[Site, Action]:
        index = num_steps - 1 - step if spec.counts_down else step
        actions: dict[Site, Action] = {HIDDEN: Action(Kind.FULL)}
        for at, stack in enumerate(spec.stacks):
            for layer in range(stack.depth):
                for branch in stack.branches:
                    phase = phases[self._cycle_length(branch)][step]
                    if phase.of(at, layer) == 0:
                        action = Action(Kind.FULL, branch.tokens)
                    else:
                        tokens = self._tokens(spec, stack, branch, layer, index, num_steps)
                        action = Action(Kind.PARTIAL, tokens) if tokens else Action(Kind.REUSE)
                    actions[stack.name, layer, branch.name] = action
        return actions

    def _tokens(self, spec: ModelSpec, stack: Stack, branch: Branch, layer: int, index: int, num_steps: int) -> int:
        if not branch.tokenwise:
            return 0
        depth = spec.published.depth if self.upstream_exact else stack.depth
        at = At(index / num_steps, layer / max(1, depth - 1), (index % self.interval) / self.interval, branch.name, layer)
        count = refreshed_tokens(self.ratio * spec.ratio_schedule(self.ratio_schedule)(at), branch.tokens, self.bucket)
        if self.force_fresh == "local" and not self.upstream_exact:
            return max(count, math.ceil(branch.tokens / self.interval))
        return count
