"""What the engine knows of a model: stacks of layers, their branches, costs, and the published settings. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING

from toca.planning.checks import (
    check_all,
    check_choice,
    check_distinct,
    check_kind,
    check_mapping,
    check_positive,
    check_truth,
    check_whole,
    check_wholes,
)
from toca.planning.schedule import RATIO_SCHEDULES, Cycle, RatioSchedule

if TYPE_CHECKING:
    from toca.planning.scores import Score

COUNTERS = ("matmul", "upstream", "executed")  # the last where a spec tells it from the first
Site = tuple[str, int, str]  # (stack, layer, branch)
HIDDEN: Site = ("model", 0, "hidden")  # the state after the last block, which stands in for a step without layers


RESERVED = frozenset(  # what `cache.<name>` is already in a block
    {"attend", "branches", "cache", "index", "modulation", "observers", "once", "peers", "running", "stack"}
)


def check_branch_names(names: Iterable[str]) -> None:
    """Blocks call `cache.<name>(f, x)`. Raises ValueError on a name that cannot be called so."""
    for name in names:
        check_kind(str, "an identifier", **{"the name of a branch": name})
        if not name.isidentifier() or name.startswith("_") or name in RESERVED:
            allowed = f"an identifier without a leading underscore, and none of {', '.join(sorted(RESERVED))}"
            raise ValueError(f"no branch can be called {name!r}: blocks call it `cache.<name>`, which must be {allowed}")


@dataclass(frozen=True)
class Cost:
    """FLOPs of one batch row of a branch.

    fixed: where it computes any token.
    per_token: for every token computed.
    reuse: where the stored output is recalled instead.
    """

    fixed: int = 0
    per_token: int = 0
    reuse: int = 0

    def __post_init__(self) -> None:
        check_whole(fixed=self.fixed, per_token=self.per_token, reuse=self.reuse)

    def __call__(self, tokens: int) -> int:
        return self.fixed + self.per_token * tokens


@dataclass(frozen=True)
class Branch:
    """One cached sub-layer: x -> x + gate * branch(x).

    name: `cache.<name>` in a block.
    tokens, width: of its output, (R, tokens, width).
    cost: by counter (`toca.planning.flops`).
    tokenwise: whether tokens may be refreshed alone: an MLP or cross-attention, never self-attention.
    inputs: the chunks of the layer's modulation that computing the branch takes.
    gate: those that adding its output takes.
    grid: rows and columns of its tokens, of every frame in turn; None if they have no places.
    scored_by: name of the branch (same layer) whose attention scores this branch's tokens.
    scored_from: index of the first of these tokens among those of that attention, which may be of several streams.
    entropy_by: name of the cross-attention (same layer, computed before this branch, or this branch itself) whose entropy (s2) the score
        `attention` stands for.
    feeds: name of the only branch (same layer) that uses this branch's output, as an extra input per token. The cache then stores just the
        tokens that branch will recompute, and skips this branch at steps where it recomputes none.
    interval_scale: length of its cycle, in cycles of the method.
    interval: length of its cycle in steps, whatever the method's is.
    """

    name: str
    tokens: int
    width: int
    cost: Mapping[str, Cost]
    tokenwise: bool = False
    inputs: tuple[int, ...] = ()
    gate: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None
    scored_by: str | None = None
    scored_from: int = 0
    entropy_by: str | None = None
    feeds: str | None = None
    interval_scale: int = 1
    interval: int | None = None

    def __post_init__(self) -> None:
        """Of its tokens, width, costs and cycles."""
        check_branch_names([self.name])
        check_positive(tokens=self.tokens, width=self.width, interval_scale=self.interval_scale)
        check_positive(interval=1 if self.interval is None else self.interval)
        check_mapping(partial(check_kind, Cost), cost=self.cost)
        check_truth(tokenwise=self.tokenwise)
        check_wholes(inputs=self.inputs, gate=self.gate)
        check_whole(scored_from=self.scored_from)
        check_kind((str, NoneType), "the name of a branch, or None", scored_by=self.scored_by, entropy_by=self.entropy_by, feeds=self.feeds)
        if self.grid is not None:
            check_wholes(1, 2, grid=self.grid)
            if self.tokens % (self.grid[0] * self.grid[1]):
                raise ValueError(f"grid {self.grid[0]} x {self.grid[1]} must divide the {self.tokens} tokens of branch {self.name!r}")

    def cycle_length(self, interval: int) -> int:
        """Length of the branch's cycle under a method whose base cycle is `interval`."""
        return self.interval or interval * self.interval_scale

    def scorer(self, observes: str) -> str | None:
        """The branch whose attention shows what a score observes (`toca.planning.scores.Score`)."""
        return self.entropy_by if observes == "entropy" else self.scored_by


@dataclass(frozen=True)
class Stack:
    """Equal layers, one after the other.

    name: of the block list that `cache.walk` goes through.
    depth: number of layers.
    branches: in the order in which a layer computes them.
    modulation: of a layer, (number of chunks, width of one).
    layer_cost: FLOPs per batch row of a layer that runs, by counter, beside its branches.
    norm_cost: FLOPs per batch row of a layer that is not purely forecast, by counter.
    once: numbers of the model's dtype per batch row that a layer keeps by `LayerCache.once`.
    """

    name: str
    depth: int
    branches: tuple[Branch, ...]
    modulation: tuple[int, int]
    layer_cost: Mapping[str, int]
    norm_cost: Mapping[str, int] = field(default_factory=dict)
    once: int = 0

    def __post_init__(self) -> None:
        """Of its own fields, and of what its branches name."""
        check_kind(str, "a name", name=self.name)
        check_positive(depth=self.depth)
        check_all(Branch, branches=self.branches)
        check_wholes(0, 2, modulation=self.modulation)
        check_mapping(check_whole, layer_cost=self.layer_cost, norm_cost=self.norm_cost)
        check_whole(once=self.once)
        names = [branch.name for branch in self.branches]
        check_distinct(f"branches of stack {self.name!r}", names)
        for branch in self.branches:
            for what, name in dict(scored_by=branch.scored_by, entropy_by=branch.entropy_by, feeds=branch.feeds).items():
                if name is not None:
                    check_choice(names, **{f"{what} of branch {branch.name!r}": name})
            if unknown := [chunk for chunk in (*branch.inputs, *branch.gate) if chunk >= self.modulation[0]]:
                raise ValueError(
                    f"branch {branch.name!r} takes chunk {unknown[0]} of {self.modulation[0]} chunks of modulation, counted from 0"
                )

    def branch(self, name: str) -> Branch:
        """Raises ValueError if there is none of that name."""
        check_choice([branch.name for branch in self.branches], **{f"branch of stack {self.name!r}": name})
        return next(branch for branch in self.branches if branch.name == name)

    def feeder(self, reader: Branch) -> Branch | None:
        """The branch whose output only `reader` uses."""
        return next((branch for branch in self.branches if branch.feeds == reader.name), None)


@dataclass(frozen=True)
class Spatial:
    """s4: in every cell of the grid the score of the best token grows.

    block: side of a cell in tokens; 0: no cells.
    bonus: share of its score that the best token gets on top.
    frames: depth of a cell in frames.
    """

    block: int
    bonus: float
    frames: int = 1


@dataclass(frozen=True)
class PublishedCode:
    """Where the published code differs from ours: for `upstream_exact` and for published tables, never for our own runs.

    depth: number of layers that its layer schedules take for granted.
    full_steps_only_global: names of the methods that have full steps with force_fresh "global" alone; in the others they recur always.
    softmax_bonus: its s4 takes a softmax of every frame's scores first.
    keeps_maps: it keeps attention maps where they score tokens.
    map_keys: length of a map's rows by branch, where the entropy of its attention scores tokens.
    printed_units: in FLOPs, largest first: its totals add up steps that were rounded in them (`toca.planning.flops.rounded_tflops`);
        none: totals are exact.
    """

    depth: int = 28
    full_steps_only_global: frozenset[str] = frozenset()
    softmax_bonus: bool = False
    keeps_maps: bool = True
    map_keys: Mapping[str, int] = field(default_factory=dict)
    printed_units: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """A model at one resolution.

    name: of the model family.
    stacks: in the order in which the model computes them.
    forward_cost: FLOPs per batch row of a step outside the stacks, by counter.
    hidden: (tokens, width) of what enters `Cache.step`, and of the hidden state after the last stack.
    cycles: how full steps recur, by method; where a method is missing, in the plain cycle.
    run_cost: FLOPs per batch row at the first step alone, by counter: of what `Cache.once` keeps.
    once: what `Cache.once` keeps per batch row, (numbers of the model's dtype, bytes of other dtypes).
    ratio_schedules: by name, beside the common ones.
    spatial: by method.
    counts_down: its step index falls during sampling; schedules see that index.
    coupled_rows: batch rows of an item, one in each of as many equal parts of the batch; scores may be shared among them. 2 for the halves
        of guidance.
    uncoupled: what scores observe (`Score.observes`) that are not shared all the same.
    skip_odd: DuCa skips odd places of the cycle instead of even ones.
    published: what the published code does otherwise.
    """

    name: str
    stacks: tuple[Stack, ...]
    forward_cost: Mapping[str, int]
    hidden: tuple[int, int]
    cycles: Mapping[str, Cycle] = field(default_factory=dict)
    run_cost: Mapping[str, int] = field(default_factory=dict)
    once: tuple[int, int] = (0, 0)
    ratio_schedules: Mapping[str, RatioSchedule] = field(default_factory=dict)
    spatial: Mapping[str, Spatial] = field(default_factory=dict)
    counts_down: bool = False
    coupled_rows: int = 1
    uncoupled: frozenset[str] = frozenset()
    skip_odd: bool = False
    published: PublishedCode = PublishedCode()

    def __post_init__(self) -> None:
        check_kind(str, "a name", name=self.name)
        check_all(Stack, stacks=self.stacks)
        check_distinct("stacks", [stack.name for stack in self.stacks])
        check_mapping(check_whole, forward_cost=self.forward_cost, run_cost=self.run_cost)
        check_wholes(1, 2, hidden=self.hidden)
        check_wholes(0, 2, once=self.once)
        check_mapping(partial(check_kind, Cycle), cycles=self.cycles)
        check_mapping(partial(check_kind, Callable, "a function of `At`"), ratio_schedules=self.ratio_schedules)
        check_mapping(partial(check_kind, Spatial), spatial=self.spatial)
        check_truth(counts_down=self.counts_down, skip_odd=self.skip_odd)
        check_positive(coupled_rows=self.coupled_rows)
        check_kind(Collection, "a set of what scores observe", uncoupled=self.uncoupled)
        check_kind(PublishedCode, published=self.published)

    @property
    def counters(self) -> tuple[str, ...]:
        """Those that the costs are given in; `upstream` if there is a published code to count as."""
        given = set(self.forward_cost).union(*(branch.cost for stack in self.stacks for branch in stack.branches))
        return tuple(counter for counter in COUNTERS if counter in given)

    def cycle(self, method: str) -> Cycle:
        """How full steps of a method recur; the plain cycle for one that the model has none for."""
        return self.cycles.get(method, Cycle())

    def ratio_schedule(self, name: str) -> RatioSchedule:
        known = {**RATIO_SCHEDULES, **self.ratio_schedules}
        check_kind(str, "a name", ratio_schedule=name)
        if name not in known:
            raise ValueError(f"unknown ratio schedule {name!r} for {self.name}: choose from {', '.join(known)}")
        return known[name]

    def scored_together(self, score: Score) -> int:
        """Rows of an item that are scored together."""
        return self.coupled_rows if score.couples and score.observes not in self.uncoupled else 1

    def stack(self, name: str) -> Stack:
        """Raises ValueError if there is none of that name."""
        check_choice([stack.name for stack in self.stacks], **{f"stack of {self.name}": name})
        return next(stack for stack in self.stacks if stack.name == name)

    def branch(self, site: Site) -> Branch:
        return self.stack(site[0]).branch(site[2])

    def sites(self) -> Iterator[Site]:
        for stack in self.stacks:
            for layer in range(stack.depth):
                for branch in stack.branches:
                    yield stack.name, layer, branch.name
