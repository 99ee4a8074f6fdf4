"""What the engine knows of a model: stacks of layers, their branches, costs, and the published settings. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
        check_branch_names([self.name])

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

    def branch(self, name: str) -> Branch:
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
        if name not in known:
            raise ValueError(f"unknown ratio schedule {name!r} for {self.name}: choose from {', '.join(known)}")
        return known[name]

    def scored_together(self, score: Score) -> int:
        """Rows of an item that are scored together."""
        return self.coupled_rows if score.couples and score.observes not in self.uncoupled else 1

    def stack(self, name: str) -> Stack:
        return next(stack for stack in self.stacks if stack.name == name)

    def branch(self, site: Site) -> Branch:
        return self.stack(site[0]).branch(site[2])

    def sites(self) -> Iterator[Site]:
        for stack in self.stacks:
            for layer in range(stack.depth):
                for branch in stack.branches:
                    yield stack.name, layer, branch.name
