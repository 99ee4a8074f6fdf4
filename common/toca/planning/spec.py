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
HIDDEN: Site = ("model", 0, "hidden")  # the hidden state after the last block, which stands in for a skipped step


RESERVED = frozenset(  # what `cache.<name>` is already in a block
    {"attend", "branches", "cache", "index", "modulation", "observers", "once", "peers", "running", "stack"}
)


def check_branch_names(names: Iterable[str]) -> None:
    """Blocks call `cache.<name>(f, x)`. Raises ValueError on a name that cannot be called so."""
    for name in names:
        if not name.isidentifier() or name.startswith("_") or name in RESERVED:
            taken = ", ".join(sorted(RESERVED))
            raise ValueError(f"no branch can be called {name!r}: `cache.{name}` in a block must be an identifier, without a leading "
                             f"underscore, and none of {taken}")


@dataclass(frozen=True)
class Cost:
    """FLOPs of one batch row: `fixed` once, `per_token` for every token computed; `reuse` where the stored output is recalled instead."""

    fixed: int = 0
    per_token: int = 0
    reuse: int = 0

    def __call__(self, tokens: int) -> int:
        return self.fixed + self.per_token * tokens


@dataclass(frozen=True)
class Branch:
    """One cached sub-layer: x -> x + gate * branch(x).

    tokenwise: tokens may be refreshed alone (an MLP or cross-attention; never self-attention).
    inputs, gate: the chunks of the layer's modulation that computing the branch and adding its output need.
    scored_by: the branch of the same layer whose attention rates this branch's tokens, which are the ones from `scored_from` on there
    (one joint attention rates the tokens of several streams).
    entropy_by: the cross-attention of the same layer, computed before this branch or the branch itself, whose entropy (s2) the score
    `attention` stands for.
    feeds: the branch of the same layer that alone reads this one's output, as a per-token input: kept only for where that computes.
    """

    name: str
    tokens: int
    width: int
    cost: Mapping[str, Cost]
    tokenwise: bool = False
    inputs: tuple[int, ...] = ()
    gate: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None  # rows, columns; of every frame in turn
    scored_by: str | None = None
    scored_from: int = 0
    entropy_by: str | None = None
    feeds: str | None = None
    map_keys: int = 0  # of the attention map that the published code keeps where its entropy rates tokens
    interval_scale: int = 1  # a branch may follow a cycle longer than the method's,
    interval: int | None = None  # or one of its own, whatever the method's is

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
    """`depth` equal layers. layer_cost: FLOPs a row costs in every layer that runs; norm_cost: in those not purely forecast. once: numbers
    of the model's dtype that a row of every layer keeps by `LayerCache.once`."""

    name: str
    depth: int
    branches: tuple[Branch, ...]
    modulation: tuple[int, int]  # (chunks, width of one)
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
    """s4: the best token of every block x block cell of the grid, over `frames` frames, gets `bonus` times its score on top.

    softmax: the published code takes a softmax of every frame's scores first.
    """

    block: int
    bonus: float
    frames: int = 1
    softmax: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A model at one resolution.

    counts_down: its step index falls during sampling; schedules see that index. coupled_rows: an image has so many rows, one in each of
    as many equal parts of the batch, and scores may rate them together: 2 for the halves of guidance.
    """

    name: str
    stacks: tuple[Stack, ...]
    forward_cost: Mapping[str, int]  # FLOPs of a row outside the stacks
    hidden: tuple[int, int]  # (tokens, width) of what enters `Cache.step` and of the hidden state after the last stack
    cycles: Mapping[str, Cycle] = field(default_factory=dict)  # by method, where it is not the plain one
    run_cost: Mapping[str, int] = field(default_factory=dict)  # FLOPs of a row at the first step alone: what `Cache.once` keeps
    once: tuple[int, int] = (0, 0)  # what that is, of a row: (numbers of the model's dtype, bytes of other dtypes)
    ratio_schedules: Mapping[str, RatioSchedule] = field(default_factory=dict)  # beside the common ones
    spatial: Mapping[str, Spatial] = field(default_factory=dict)  # by method
    counts_down: bool = False
    coupled_rows: int = 1
    uncoupled: frozenset[str] = frozenset()  # what scores observe (`planning.scores`) that rate the rows of an image apart all the same
    skip_odd: bool = False  # DuCa skips odd places of the cycle instead of even ones
    published_local: frozenset[str] = frozenset()  # methods whose published code has full steps with force_fresh "global" alone
    published_depth: int = 28  # the depth that upstream's layer schedules take for granted
    published_maps: bool = True  # upstream keeps attention maps where they rate tokens
    printed_units: tuple[float, ...] = ()  # largest first, if published totals add up rounded steps (`toca.planning.flops.rounded_tflops`)

    @property
    def counters(self) -> tuple[str, ...]:
        return COUNTERS if "executed" in self.forward_cost else COUNTERS[:2]

    def cycle(self, method: str) -> Cycle:
        """How full steps of a method recur; the plain cycle for one that the model has none for."""
        return self.cycles.get(method, Cycle())

    def ratio_schedule(self, name: str) -> RatioSchedule:
        known = {**RATIO_SCHEDULES, **self.ratio_schedules}
        if name not in known:
            raise ValueError(f"unknown ratio schedule {name!r} for {self.name}: choose from {', '.join(known)}")
        return known[name]

    def scored_together(self, score: Score) -> int:
        """Rows of an image that are scored together."""
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
